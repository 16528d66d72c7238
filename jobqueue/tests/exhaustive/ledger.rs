//! What happened so far, as far as a rule asks for it, and the rules.

use crate::common::Db;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use stateright::{Model, Property};
use tenon_jobqueue::{Change, JobId, JobKey, LeaseToken, Pipeline, PipelineId, PipelineState, Refused, Row, State};

pub const PIPELINE: PipelineId = PipelineId::new(1);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Deliveries that were ever written, and those of them that were ever written as running.
    pub delivered: BTreeSet<LeaseToken>,
    pub running: BTreeSet<LeaseToken>,
    /// What workers began.
    pub started: BTreeSet<LeaseToken>,
    accepted: BTreeMap<JobKey, u32>,
    opened: BTreeMap<JobKey, u32>,
    /// Aborts that were answered as done: of jobs, and of the pipeline.
    pub aborted: BTreeSet<JobId>,
    pub stopped: bool,
    /// What a worker was told.
    pub refused: BTreeSet<u16>,
    conflicts: bool,
    /// A write was found to be made after nobody knew.
    pub resolved: bool,
    /// An invariant of the rows that a write broke, or a panic.
    broken: Option<String>,
}

impl Ledger {
    /// The database makes a write, or not, and all that is ever to be known of it is noted.
    pub fn write(&mut self, db: &mut Db, changes: &[Change]) -> bool {
        let before = db.clone();
        if !db.write(changes) {
            self.conflicts = true;
            return false;
        }
        for change in changes {
            let Row::Job(job) = change.row else { continue };
            let old = before.jobs.get(&job.key);
            if old.is_some_and(|old| old.state == State::Unstart) {
                *self.opened.entry(job.key).or_default() += 1;
            }
            match (job.state, job.token()) {
                (State::Scheduled, Some(token)) => _ = self.delivered.insert(token),
                (State::Running, Some(token)) => _ = self.running.insert(token),
                (State::Succeeded | State::Failed, None) => *self.accepted.entry(job.key).or_default() += 1,
                _ => {}
            }
        }
        true
    }

    /// Does something; a panic is a rule that broke.
    pub fn watch<W>(world: &mut W, ledger: fn(&mut W) -> &mut Self, act: impl FnOnce(&mut W)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(world))) {
            let told = panic.downcast_ref::<String>().cloned();
            ledger(world).broken = Some(told.unwrap_or_else(|| "a panic".to_owned()));
        }
    }

    pub fn is_whole(&self) -> bool {
        self.broken.is_none()
    }

    pub fn results_are_single(&self, db: &Db) -> bool {
        self.accepted.values().chain(db.results.values()).all(|times| *times <= 1)
    }

    pub fn batches_open_once(&self) -> bool {
        self.opened.values().all(|times| *times <= 1)
    }

    pub fn aborts_are_final(&self, db: &Db) -> bool {
        let stays = |job: &JobId| matches!(db.job(job.get()).state, State::Aborting | State::Aborted);
        let pipeline = db.pipelines.get(&PIPELINE).map(Pipeline::state);
        let stopped = matches!(pipeline, Some(PipelineState::Open | PipelineState::Aborted));
        self.aborted.iter().all(stays) && (!self.stopped || stopped)
    }

    /// Of these deliveries workers hear.
    pub fn all_are_written(&self, assigned: &[LeaseToken]) -> bool {
        assigned.iter().all(|token| self.delivered.contains(token)) && self.started.is_subset(&self.running)
    }

    /// What a bounded look must have come upon, by name.
    pub fn witnesses(&self) -> [(&'static str, bool); 5] {
        [
            ("two writes meet", self.conflicts),
            ("an unknown write is found to be made", self.resolved),
            ("a late word is refused", self.refused.contains(&Refused::StaleLease.code())),
            ("a job ends", !self.accepted.is_empty()),
            ("a job is aborted while it runs", !self.aborted.is_empty() && !self.started.is_empty()),
        ]
    }
}

pub fn stages_are_in_order(db: &Db) -> bool {
    let never_began = |state| matches!(state, State::Unstart | State::Skipped | State::Aborted);
    db.pipelines.keys().all(|pipeline| {
        let jobs = db.latest(*pipeline);
        let begun = jobs.iter().filter(|job| !never_began(job.state)).map(|job| job.spec.order).max().unwrap_or(0);
        jobs.iter().filter(|job| job.spec.order < begun).all(|job| job.state.is_terminal())
    })
}

pub fn all_ended(db: &Db) -> bool {
    db.pipelines.values().all(|pipeline| pipeline.state() != PipelineState::Open)
}

/// A world that the rules can be asked of.
pub trait Seen {
    fn ledger(&self) -> (&Db, &Ledger);

    /// Deliveries that workers are about to hear of.
    fn assigned(&self) -> Vec<LeaseToken>;

    /// A number that tells worlds apart.
    fn place(&self) -> u64;

    /// Whether every pipeline ends, and each job once, if nothing goes wrong from here on.
    fn ends(&self) -> bool;
}

pub trait Follows {
    /// Of how many states one is followed to its end.
    fn one_in(&self) -> u64;
}

/// The rules, for either kind of world.
pub fn rules<M: Follows + Model<State: Seen>>() -> Vec<Property<M>> {
    let mut all: Vec<Property<M>> = vec![
        Property::always("every write keeps the rows' rules", |_, world: &M::State| world.ledger().1.is_whole()),
        Property::always("no job is lost", |model: &M, world: &M::State| {
            !world.place().is_multiple_of(model.one_in()) || world.ends()
        }),
        Property::always("no result is accepted twice", |_, world: &M::State| {
            let (db, ledger) = world.ledger();
            ledger.results_are_single(db)
        }),
        Property::always("stages are in order", |_, world: &M::State| stages_are_in_order(world.ledger().0)),
        Property::always("a batch opens once", |_, world: &M::State| world.ledger().1.batches_open_once()),
        Property::always("aborts are final", |_, world: &M::State| {
            let (db, ledger) = world.ledger();
            ledger.aborts_are_final(db)
        }),
        Property::always("workers hear of what is written", |_, world: &M::State| {
            world.ledger().1.all_are_written(&world.assigned())
        }),
    ];
    macro_rules! witness {
        ($($at:literal)*) => {$(
            let (name, _) = Ledger::default().witnesses()[$at];
            all.push(Property::sometimes(name, |_, world: &M::State| world.ledger().1.witnesses()[$at].1));
        )*};
    }
    witness!(0 1 2 3 4);
    all
}
