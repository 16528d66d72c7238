//! Slots: what is kept of a row in memory, and where it hangs.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::num::NonZeroU64;

use crate::id::{Attempt, JobId, PipelineId, Ticket, Version};
use crate::job::{Entry, Job, JobSpec, State, Tally};
use crate::pipeline::Pipeline;
use crate::plan::{Graph, Plan};
use crate::reason::Reason;
use crate::slab::NONE;
use crate::time::Timestamp;
use crate::timer::Alarm;

/// The write that is under way for a row, if any. Tickets count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lock(Option<NonZeroU64>);

impl Lock {
    pub(crate) fn of(ticket: Ticket) -> Self {
        Self(NonZeroU64::new(ticket.get()))
    }

    pub(crate) fn ticket(self) -> Option<Ticket> {
        self.0.map(|number| Ticket::new(number.get()))
    }

    pub(crate) const fn is_free(self) -> bool {
        self.0.is_none()
    }
}

/// A job that has not ended, and where it hangs: what every job has, in a line and a quarter of a processor's cache.
///
/// What a job that waits for the first time shares with many others is kept once (its [`Kind`](crate::kinds::Kind)); any
/// other job's row is kept whole, and apart (its [`Rest`]).
#[derive(Clone, Debug)]
pub(crate) struct JobSlot {
    pub(super) id: JobId,
    pub(super) write: Ticket,
    pub(crate) since: Timestamp,
    pub(crate) sequence: u64,
    pub(crate) lock: Lock,
    pub(crate) version: Version,
    pub(super) more: More,
    /// The lane of its tag.
    pub(crate) lane: u32,
    /// Its pipeline's slot.
    pub(crate) pipe: u32,
    pub(super) pipe_links: (u32, u32),
    /// Its place in its lane's level, while it is queued there.
    pub(crate) position: u32,
    pub(crate) state: State,
    pub(crate) priority: u8,
    pub(crate) hangs: Hangs,
}

/// Where more about a job is kept: its rest, or its kind if it has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct More(pub(super) u32);

impl More {
    /// Says that it is a kind.
    const KIND: u32 = 1 << 31;

    pub(super) const fn kind(at: u32) -> Self {
        Self(at | Self::KIND)
    }
}

/// Where a waiting job hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Hangs {
    /// Nowhere.
    No,
    /// In the line of its lane's level.
    InLine,
    /// Among the level's strays, which came later than their time.
    Stray,
    /// Aside, until its key is free.
    Aside,
}

impl JobSlot {
    pub(crate) const fn id(&self) -> JobId {
        self.id
    }

    /// Where its rest is kept, if it has one.
    pub(crate) const fn rest(&self) -> u32 {
        if self.more.0 < More::KIND { self.more.0 } else { NONE }
    }

    pub(super) const fn kind(&self) -> u32 {
        if self.more.0 < More::KIND { NONE } else { self.more.0 - More::KIND }
    }

    /// Whether it stands in its queue.
    pub(crate) const fn is_queued(&self) -> bool {
        matches!(self.hangs, Hangs::InLine | Hangs::Stray)
    }
}

/// The rest of a job in progress, and where it hangs then.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    /// The whole row: what the slot says of it is the same.
    pub(super) row: Job,
    /// The alarm of its deadline, while that is watched.
    pub(super) alarm: Option<Alarm>,
    /// The pool in whose leases it is counted.
    pub(super) pool: u32,
    /// The worker in whose list it hangs.
    pub(super) worker: u32,
    pub(super) worker_links: (u32, u32),
}

impl Rest {
    pub(super) const fn of(job: &Job) -> Self {
        Self { row: *job, alarm: None, pool: NONE, worker: NONE, worker_links: (NONE, NONE) }
    }
}

/// Why a job without a rest stands where it stands.
pub(super) const fn plain_reason(state: State, spec: &JobSpec) -> Reason {
    if matches!(state, State::Unstart) { Reason::Submitted } else { Reason::Batch { order: spec.order } }
}

/// Whether a row says no more than that the job waits for the first time.
pub(super) fn is_plain(job: &Job) -> bool {
    matches!(job.state, State::Unstart | State::Pending)
        && job.key.attempt == Attempt::FIRST
        && job.reason == plain_reason(job.state, &job.spec)
        && job.delivery.is_none()
        && job.tally == Tally::default()
        && job.until == Timestamp::MAX
        && job.timeout_at == Timestamp::MAX
        && job.entry == Entry::Run
        && job.outcome.is_none()
        && job.start_by == Timestamp::MAX
        && job.finish_by == Timestamp::MAX
}

/// A pipeline that is open or has jobs here.
#[derive(Clone, Debug)]
pub(crate) struct PipeSlot {
    pub(crate) id: PipelineId,
    /// The row; none while it is being read.
    pub(crate) row: Option<Pipeline>,
    pub(crate) lock: Lock,
    /// The row's version when the whole pipeline was read.
    pub(crate) read_at: Option<Version>,
    /// Whether the row, or the whole pipeline, is being read.
    pub(crate) asked: bool,
    /// Whether a deadline of one of its jobs could not be acted on while its row was locked or unknown.
    pub(crate) late: bool,
    /// Jobs here that no decision was made about.
    pub(crate) unstarted: u32,
    /// Jobs here.
    pub(crate) jobs: u32,
    pub(super) head: u32,
    /// The pass of pages in which it was seen last, or made.
    pub(crate) pass: u8,
    /// Its plan, if its jobs wait for each other and the plan is here.
    pub(crate) planned: Option<Box<Planned>>,
}

/// A pipeline's plan, and the places that may be owed something.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) graph: Arc<Graph>,
    pub(crate) due: Due,
}

/// Places of jobs that may be owed something.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// All must be looked at: the row is not this engine's own.
    All,
    /// These, and no others.
    Places(BTreeSet<u16>),
}

impl Planned {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { graph: Arc::new(Graph::new(plan)), due: Due::All }
    }

    /// These may be owed something, too.
    pub(crate) fn add(&mut self, places: impl IntoIterator<Item = u16>) {
        if let Due::Places(due) = &mut self.due {
            due.extend(places);
        }
    }

    /// Those that may be owed something; none is from now on.
    pub(crate) fn take(&mut self) -> BTreeSet<u16> {
        match core::mem::replace(&mut self.due, Due::Places(BTreeSet::new())) {
            Due::All => self.graph.places().collect(),
            Due::Places(due) => due,
        }
    }
}

impl PipeSlot {
    /// The plan, if it is here.
    pub(crate) fn graph(&self) -> Option<&Arc<Graph>> {
        self.planned.as_ref().map(|planned| &planned.graph)
    }

    /// Whether the row says that there is a plan, and it is not here.
    pub(crate) fn lacks_plan(&self) -> bool {
        self.planned.is_none() && self.row.as_ref().is_some_and(|row| !row.outcomes.is_empty())
    }

    /// Which jobs are owed something must be looked for among all of them.
    pub(crate) fn look_at_all(&mut self) {
        if let Some(planned) = &mut self.planned {
            planned.due = Due::All;
        }
    }

    /// Whether jobs that this row counts are not here.
    pub(crate) const fn lacks_jobs(&self, row: &Pipeline) -> bool {
        self.unstarted != row.unstarted || self.jobs < row.unstarted.saturating_add(row.remaining)
    }
}
