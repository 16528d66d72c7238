//! The run itself: two engines, workers, users, and all that goes wrong between them.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use super::truth::{Keys, Truth};
use super::{JobStore, Report, Written};
use crate::rng::Rng;
use crate::{
    Act, Answer, Assignment, Change, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, Judgement, Key,
    NewJob, OnFailure, Outcome, PipelineId, Policy, PoolId, PoolSpec, PullRequest, Start, Submission, Tag, Ticket,
    Timestamp, Version, Want, When, Worker, WorkerName,
};

const POOL: PoolId = PoolId::new(1);
/// Deliveries that workers still have words about, living or not.
const REMEMBERED: usize = 40;

/// One engine and what it wants done.
#[derive(Debug)]
struct Node {
    engine: Engine,
    todo: Vec<Effect>,
}

pub(super) struct Run<'a, S> {
    store: &'a mut S,
    chance: Rng,
    now: Timestamp,
    truth: Truth,
    nodes: Vec<Node>,
    lives: Vec<Incarnation>,
    assigned: Vec<Assignment>,
    /// Writes that were given up and may still be made.
    late: Vec<Vec<Change>>,
    pipelines: u64,
    jobs: u64,
    /// Nothing goes wrong any more.
    calm: bool,
    report: Report,
}

fn failed(error: impl Debug) -> String {
    format!("the store failed: {error:?}")
}

impl<'a, S: JobStore> Run<'a, S> {
    pub(super) fn new(store: &'a mut S, seed: u64) -> Result<Self, String> {
        let mut run = Self {
            store,
            chance: Rng::new(seed),
            now: Timestamp::from_millis(1_000),
            truth: Truth::default(),
            nodes: Vec::new(),
            lives: Vec::new(),
            assigned: Vec::new(),
            late: Vec::new(),
            pipelines: 0,
            jobs: 0,
            calm: false,
            report: Report::default(),
        };
        for _ in 0..2 {
            let node = run.birth()?;
            run.nodes.push(node);
        }
        Ok(run)
    }

    pub(super) fn report(&self) -> Report {
        Report { results: self.truth.results(), ..self.report }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.chance.below(sides)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = self.dice(of.len() as u64);
        usize::try_from(at).ok().and_then(|at| of.get(at).copied())
    }

    /// A new life of an engine, rebuilt from the store.
    fn birth(&mut self) -> Result<Node, String> {
        let life = self.store.next_life().map_err(failed)?;
        if self.lives.contains(&life) {
            return Err(format!("life {life} was given out before"));
        }
        self.lives.push(life);
        let config = Config::builder(life).seed(life.get()).settling_ms(0).build();
        let mut engine = Engine::new(config.map_err(|error| format!("{error}"))?);
        let pool = PoolSpec { id: POOL, tags: vec![Tag::OTHER], max_leases: 8, ..PoolSpec::default() };
        engine.put_pool(self.now, pool).map_err(|refused| format!("{refused}"))?;
        let rows = self.open_rows()?;
        let told = engine.load(self.now, &rows);
        if told.broken + told.left > 0 {
            return Err(format!("rows cannot be loaded: {told:?}"));
        }
        let mut node = Node { engine, todo: Vec::new() };
        node.gather();
        Ok(node)
    }

    /// Tells every engine which lives have ended: what they had of the pool's limit is free.
    fn tell_gone(&mut self) {
        let alive: Vec<Incarnation> = self.nodes.iter().map(|node| node.engine.incarnation()).collect();
        let gone: Vec<Incarnation> = self.lives.iter().copied().filter(|life| !alive.contains(life)).collect();
        for at in 0..self.nodes.len() {
            for life in &gone {
                self.with(at, |engine, now| engine.handle_engine_gone(now, *life));
            }
        }
    }

    fn open_rows(&mut self) -> Result<Vec<crate::Row>, String> {
        let rows = self.store.open_rows().map_err(failed)?;
        self.truth.check("the rows that have not ended", &rows, &self.truth.open_rows(), Keys::Optional)?;
        Ok(rows)
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<crate::Row>, String> {
        let rows = self.store.read(want, written).map_err(failed)?;
        let keys = if matches!(want, Want::Key(_) | Want::Written(_)) { Keys::Asked } else { Keys::Optional };
        self.truth.check(&format!("{want:?}"), &rows, &self.truth.read(want, written), keys)?;
        Ok(rows)
    }

    /// The store makes a write, or not, as it must.
    fn write(&mut self, changes: &[Change]) -> Result<bool, String> {
        let may = self.truth.allows(changes);
        match (self.store.write(changes).map_err(failed)?, may) {
            (Written::Made, true) => {
                self.report.writes += 1;
                self.truth.make(changes)?;
                Ok(true)
            }
            (Written::Conflict, false) => {
                self.report.conflicts += 1;
                Ok(false)
            }
            (Written::Made, false) => Err(format!("made, though a row has another version: {changes:?}")),
            (Written::Conflict, true) => Err(format!("refused, though each row has its version: {changes:?}")),
        }
    }

    // ---- one step -------------------------------------------------------------------------------------------------

    pub(super) fn step(&mut self) -> Result<(), String> {
        let at = usize::from(self.dice(2) == 0);
        match self.dice(40) {
            0..3 => self.submit(at),
            3..8 => self.pull(at),
            8..16 => self.word(at),
            16 | 17 => self.meddle(at),
            18 | 19 => {
                let ms = self.one(&[1, 100, 1_000, 4_000]).unwrap_or(1);
                self.now = self.now.after_millis(ms);
                self.with(at, Engine::handle_timeout);
            }
            20 => {
                let page = self.open_rows()?;
                let _counted = self.with(at, |engine, now| engine.compensate(now, &page));
            }
            21 => self.land_late()?,
            22 => self.crash()?,
            23 => self.write_half(at)?,
            _ => self.act(at)?,
        }
        Ok(())
    }

    /// Asks the store for something, whatever was done.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let job = JobId::new(1 + self.dice(self.jobs.max(1)));
        self.read(Want::Job(job), &[])?;
        let pipeline = PipelineId::new(1 + self.dice(self.pipelines.max(1)));
        self.read(Want::Pipeline(pipeline), &[]).map(drop)
    }

    fn with<T>(&mut self, at: usize, act: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        let node = &mut self.nodes[at];
        let said = act(&mut node.engine, self.now);
        self.report.refused += node.gather();
        said
    }

    fn submit(&mut self, at: usize) {
        let mut jobs = Vec::new();
        for _ in 0..=self.dice(3) {
            self.jobs += 1;
            let spec = JobSpec {
                order: 1 + u32::try_from(self.dice(2)).unwrap_or(0),
                when: self.one(&[When::OnSuccess, When::Always]).unwrap_or_default(),
                start: self.one(&[Start::Auto, Start::Auto, Start::Manual, Start::After(500)]).unwrap_or_default(),
                on_failure: self.one(&[OnFailure::Fails, OnFailure::Allowed]).unwrap_or_default(),
                key: self.one(&[None, None, Some(Key::new(1)), Some(Key::new(u64::MAX))]).flatten(),
                policy: Policy {
                    ack_ms: 1_000,
                    lease_ms: 3_000,
                    timeout_ms: 9_000,
                    abort_ms: 2_000,
                    backoff_ms: 100,
                    max_attempts: 2,
                    max_crashes: 2,
                    ..Policy::default()
                },
                ..JobSpec::default()
            };
            jobs.push(NewJob { id: JobId::new(self.jobs), spec, tag: None });
        }
        self.pipelines += 1;
        let new = Submission {
            id: PipelineId::new(self.pipelines),
            class: Class::new(0),
            priority: 0,
            jobs: &jobs,
            needs: &[],
        };
        let _refused_if_full = self.with(at, |engine, now| engine.submit(now, &new));
    }

    fn pull(&mut self, at: usize) {
        let name = WorkerName::new(self.dice(3));
        let worker = Worker { name, incarnation: Incarnation::new(1 + self.dice(2)) };
        let request = PullRequest { pool: POOL, worker, want: 2, wait_ms: 0, previous: None };
        let _refused_if_full = self.with(at, |engine, now| engine.pull(now, &request));
    }

    /// A worker says something about a delivery, perhaps of long ago, perhaps again, perhaps to the other engine.
    fn word(&mut self, at: usize) {
        let assigned = core::mem::take(&mut self.assigned);
        let picked = self.one(&assigned);
        self.assigned = assigned;
        let Some(job) = picked else { return };
        let later = self.now.after_millis(self.dice(2_000));
        let done = Act::Report(Outcome::Succeeded);
        let acts = [
            Act::Ack,
            Act::Ack,
            Act::Heartbeat,
            Act::Nack,
            Act::Snooze(later),
            Act::Suspend(later),
            Act::Report(Outcome::Failed { code: 1 }),
            done,
            done,
        ];
        let act = self.one(&acts).unwrap_or(done);
        let _refused_if_full = self.with(at, |engine, now| engine.work(now, job.worker, job.token, act));
    }

    fn meddle(&mut self, at: usize) {
        let job = JobId::new(1 + self.dice(self.jobs.max(1)));
        let pipeline = PipelineId::new(1 + self.dice(self.pipelines.max(1)));
        let what = self.dice(6);
        let _refused_if_full = self.with(at, |engine, now| match what {
            0 => engine.abort(now, job),
            1 => engine.retry(now, job),
            2 => engine.abort_pipeline(now, pipeline),
            3 => engine.retry_pipeline(now, pipeline),
            _ => engine.approve(now, job),
        });
    }

    /// A write reaches the store after its author has given it up, or is dead.
    fn land_late(&mut self) -> Result<(), String> {
        let Some(changes) = self.late.pop() else { return Ok(()) };
        self.report.late += 1;
        self.write(&changes).map(drop)
    }

    /// A write that could be made now, if an engine wants one.
    fn possible(&self, at: usize) -> Option<Vec<Change>> {
        let node = &self.nodes[at];
        let writes = node.todo.iter().filter_map(|effect| match effect {
            Effect::Persist { ticket } => Some(node.engine.changes(*ticket)),
            Effect::Fetch { .. }
            | Effect::Assign { .. }
            | Effect::Abort { .. }
            | Effect::Poll { .. }
            | Effect::Judge { .. }
            | Effect::Answer { .. }
            | Effect::Closed { .. } => None,
        });
        writes.filter(|changes| self.truth.allows(changes)).map(<[Change]>::to_vec).next()
    }

    /// A write whose last row has another version leaves nothing of the others behind.
    fn write_half(&mut self, at: usize) -> Result<(), String> {
        let Some(mut changes) = self.possible(at) else { return Ok(()) };
        if let Some(last) = changes.last_mut() {
            last.expect = Some(Version::new(u32::MAX));
        }
        self.write(&changes)?;
        self.read(Want::Written(Ticket::new(0)), &changes).map(drop)
    }

    /// The whole process dies, perhaps in the middle of a write.
    fn crash(&mut self) -> Result<(), String> {
        let cut = self.possible(0);
        self.store.crash(cut.as_deref()).map_err(failed)?;
        self.report.crashes += 1;
        if let Some(changes) = cut {
            let rows = self.store.read(Want::Written(Ticket::new(0)), &changes).map_err(failed)?;
            // A guard is there in any case.
            let moved = || changes.iter().filter(|change| change.expect != Some(change.row.version()));
            let there = moved().filter(|change| rows.contains(&change.row)).count();
            if there == moved().count() {
                self.truth.make(&changes)?;
            } else if there > 0 {
                return Err(format!("{there} of {} rows of a write that was cut short are there", changes.len()));
            }
        }
        for at in 0..self.nodes.len() {
            self.nodes[at] = self.birth()?;
        }
        self.tell_gone();
        Ok(())
    }

    /// Does one of the things that an engine wants done, in any order, well or badly.
    fn act(&mut self, at: usize) -> Result<(), String> {
        let count = self.nodes[at].todo.len();
        if count == 0 {
            return Ok(());
        }
        let pick = if self.calm { 0 } else { usize::try_from(self.dice(count as u64)).unwrap_or(0) };
        match self.nodes[at].todo.remove(pick) {
            Effect::Persist { ticket } => self.persist(at, ticket),
            Effect::Fetch { ask, want } => {
                let written =
                    if let Want::Written(ticket) = want { self.nodes[at].engine.changes(ticket) } else { &[] }.to_vec();
                let rows = self.read(want, &written)?;
                self.with(at, |engine, now| engine.handle_rows(now, ask, &rows));
                Ok(())
            }
            Effect::Assign { assignment, .. } => {
                self.assigned.push(assignment);
                if self.assigned.len() > REMEMBERED {
                    let _oldest = self.assigned.remove(0);
                }
                Ok(())
            }
            Effect::Judge { job, .. } => {
                self.with(at, |engine, now| engine.handle_judged(now, job, Judgement::Pass));
                Ok(())
            }
            Effect::Abort { .. } | Effect::Poll { .. } | Effect::Answer { .. } | Effect::Closed { .. } => Ok(()),
        }
    }

    fn persist(&mut self, at: usize, ticket: Ticket) -> Result<(), String> {
        let changes = self.nodes[at].engine.changes(ticket).to_vec();
        let fate = if self.calm { 9 } else { self.dice(20) };
        if fate == 0 {
            self.report.unknown += 1;
            self.late.push(changes);
            self.with(at, |engine, now| engine.handle_unknown(now, ticket));
            return Ok(());
        }
        let made = self.write(&changes)?;
        match (fate, made) {
            (1, _) => {
                self.report.unknown += 1;
                self.with(at, |engine, now| engine.handle_unknown(now, ticket));
            }
            (2, true) => {
                self.report.deaths += 1;
                self.nodes[at] = self.birth()?;
                self.tell_gone();
            }
            (_, true) => {
                self.with(at, |engine, now| engine.handle_committed(now, ticket));
                if fate == 3 {
                    self.with(at, |engine, now| engine.handle_committed(now, ticket));
                }
            }
            (_, false) => {
                let fresh = self.read(Want::Written(ticket), &changes)?;
                self.with(at, |engine, now| engine.handle_conflicted(now, ticket, &fresh));
            }
        }
        Ok(())
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    /// Nothing goes wrong any more, and everybody works: no job may be lost.
    pub(super) fn come_to_an_end(&mut self) -> Result<(), String> {
        self.calm = true;
        self.store.crash(None).map_err(failed)?;
        for at in 0..self.nodes.len() {
            self.nodes[at] = self.birth()?;
        }
        self.tell_gone();
        for round in 0..2_000 {
            let at = round % self.nodes.len();
            while !self.nodes[at].todo.is_empty() {
                self.act(at)?;
            }
            if self.truth.open_pipelines().next().is_none() {
                return self.open_rows().map(drop);
            }
            if let Some(job) = self.truth.waiting() {
                let _refused_if_full = self.with(at, |engine, now| engine.approve(now, job));
            }
            for job in core::mem::take(&mut self.assigned) {
                let done = Act::Report(Outcome::Succeeded);
                let _refused_if_full = self.with(at, |engine, now| engine.work(now, job.worker, job.token, done));
            }
            self.pull(at);
            self.now = self.now.after_millis(200);
            self.with(at, Engine::handle_timeout);
            let page = self.open_rows()?;
            let _counted = self.with(at, |engine, now| engine.compensate(now, &page));
        }
        let lost: Vec<PipelineId> = self.truth.open_pipelines().map(|row| row.id).collect();
        Err(format!("pipelines that never end: {lost:?}"))
    }
}

impl Node {
    /// Takes what the engine wants done; how many of the answers are refusals.
    fn gather(&mut self) -> u32 {
        let mut refused = 0;
        while let Some(effect) = self.engine.poll_effect() {
            refused += u32::from(matches!(effect, Effect::Answer { answer: Answer::Refused(_), .. }));
            self.todo.push(effect);
        }
        refused
    }
}
