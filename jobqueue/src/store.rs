//! Where rows are kept in memory: slabs, and the lists that run through them.

use core::num::NonZeroU64;

use alloc::vec::Vec;
use hashbrown::HashTable;

use crate::hash::{Map, hash_of, near};
use crate::id::{Attempt, Incarnation, JobId, JobKey, PipelineId, Tag, Ticket, Version, WorkerName, WriteId};
use crate::job::{Delivery, Entry, Job, JobSpec, Outcome, State, Tally};
use crate::pipeline::Pipeline;
use crate::reason::Reason;
pub(crate) use crate::slab::{NONE, Slab};
use crate::time::Timestamp;

/// The write that is under way for a row, if any. Tickets count from 1.
#[derive(Clone, Copy, Debug, Default)]
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
/// What a job shares with many others is kept once (its [`Kind`]), and what only a job in progress has is kept apart
/// (its [`Rest`]). A job that waits for the first time has no rest.
#[derive(Clone, Debug)]
pub(crate) struct JobSlot {
    id: JobId,
    write: Ticket,
    pub(crate) since: Timestamp,
    pub(crate) sequence: u64,
    pub(crate) lock: Lock,
    attempt: Attempt,
    pub(crate) version: Version,
    kind: u32,
    /// The lane of its tag.
    pub(crate) lane: u32,
    /// Its pipeline's slot.
    pub(crate) pipe: u32,
    pipe_links: (u32, u32),
    rest: u32,
    /// Its place in its lane's level, while it is queued there.
    pub(crate) position: u32,
    pub(crate) state: State,
    pub(crate) priority: u8,
    pub(crate) hangs: Hangs,
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

    pub(crate) const fn key(&self) -> JobKey {
        JobKey { job: self.id, attempt: self.attempt }
    }

    /// Whether it has nothing but what every waiting job has.
    pub(crate) const fn is_plain(&self) -> bool {
        self.rest == NONE
    }

    /// Whether it stands in its queue.
    pub(crate) const fn is_queued(&self) -> bool {
        matches!(self.hangs, Hangs::InLine | Hangs::Stray)
    }
}

/// What jobs share: what they are, and whose write they were last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    spec: JobSpec,
    engine: Incarnation,
}

/// What a job in progress has besides, and where it hangs then.
#[derive(Clone, Debug)]
struct Rest {
    reason: Reason,
    until: Timestamp,
    timeout_at: Timestamp,
    delivery: Option<Delivery>,
    entry: Entry,
    tally: Tally,
    outcome: Option<Outcome>,
    /// Which entry of the timers is alive.
    alarm: Option<Timestamp>,
    /// The pool in whose leases it is counted.
    pool: u32,
    worker: Option<WorkerName>,
    worker_links: (u32, u32),
}

impl Rest {
    const fn of(job: &Job) -> Self {
        Self {
            reason: job.reason,
            until: job.until,
            timeout_at: job.timeout_at,
            delivery: job.delivery,
            entry: job.entry,
            tally: job.tally,
            outcome: job.outcome,
            alarm: None,
            pool: NONE,
            worker: None,
            worker_links: (NONE, NONE),
        }
    }
}

/// Why a job without a rest stands where it stands.
const fn plain_reason(state: State, spec: &JobSpec) -> Reason {
    if matches!(state, State::Unstart) { Reason::Submitted } else { Reason::Batch { order: spec.order } }
}

/// Whether a row says no more than that the job waits for the first time.
fn is_plain(job: &Job) -> bool {
    matches!(job.state, State::Unstart | State::Pending)
        && job.reason == plain_reason(job.state, &job.spec)
        && job.delivery.is_none()
        && job.tally == Tally::default()
        && job.until == Timestamp::MAX
        && job.timeout_at == Timestamp::MAX
        && job.entry == Entry::Run
        && job.outcome.is_none()
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
    head: u32,
}

impl PipeSlot {
    /// Whether jobs that this row counts are not here.
    pub(crate) const fn lacks_jobs(&self, row: &Pipeline) -> bool {
        self.unstarted != row.unstarted || self.jobs < row.unstarted.saturating_add(row.remaining)
    }
}

/// All jobs' slots, which lanes reach into.
pub(crate) type Jobs = Slab<JobSlot>;

/// All rows in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) jobs: Jobs,
    pub(crate) pipes: Slab<PipeSlot>,
    rests: Slab<Rest>,
    kinds: Slab<(Kind, u32)>,
    /// The kind that was met last, which is mostly met next.
    last_kind: u32,
    /// The pipeline that was met last.
    pub(crate) last_pipe: u32,
    /// The tag of each lane.
    pub(crate) tags: Vec<Tag>,
    job_index: HashTable<u32>,
    pipe_index: HashTable<u32>,
    kind_index: HashTable<u32>,
    /// The first job of each worker's list.
    workers: Map<WorkerName, u32>,
}

impl Store {
    pub(crate) fn find_job(&self, id: JobId) -> Option<u32> {
        let is_it = |at: &u32| self.jobs.get(*at).is_some_and(|slot| slot.id == id);
        self.job_index.find(near(id.get()), is_it).copied()
    }

    pub(crate) fn find_pipe(&self, id: PipelineId) -> Option<u32> {
        if self.pipes.get(self.last_pipe).is_some_and(|slot| slot.id == id) {
            return Some(self.last_pipe);
        }
        let is_it = |at: &u32| self.pipes.get(*at).is_some_and(|slot| slot.id == id);
        self.pipe_index.find(near(id.get()), is_it).copied()
    }

    /// The pipeline's slot, made if it is not there.
    pub(crate) fn pipe(&mut self, id: PipelineId) -> u32 {
        if let Some(at) = self.find_pipe(id) {
            return at;
        }
        let slot = PipeSlot {
            id,
            row: None,
            lock: Lock::default(),
            asked: false,
            read_at: None,
            late: false,
            unstarted: 0,
            jobs: 0,
            head: NONE,
        };
        let at = self.pipes.insert(slot);
        let hash = |at: &u32| self.pipes.get(*at).map_or(0, |slot| near(slot.id.get()));
        self.pipe_index.insert_unique(near(id.get()), at, hash);
        self.last_pipe = at;
        at
    }

    /// Forgets a pipeline that has no jobs here.
    pub(crate) fn remove_pipe(&mut self, at: u32) {
        if let Some(slot) = self.pipes.remove(at)
            && let Ok(entry) = self.pipe_index.find_entry(near(slot.id.get()), |other| *other == at)
        {
            entry.remove();
        }
    }

    // ---- rows -----------------------------------------------------------------------------------------------------

    /// The job's row.
    pub(crate) fn row(&self, at: u32) -> Option<Job> {
        let slot = self.jobs.get(at)?;
        let (kind, _) = self.kinds.get(slot.kind)?;
        let mut job = Job {
            key: slot.key(),
            pipeline: self.pipes.get(slot.pipe)?.id,
            version: slot.version,
            write: WriteId { engine: kind.engine, ticket: slot.write },
            spec: kind.spec,
            tag: self.tags.get(slot.lane as usize).copied()?,
            priority: slot.priority,
            state: slot.state,
            reason: plain_reason(slot.state, &kind.spec),
            since: slot.since,
            until: Timestamp::MAX,
            timeout_at: Timestamp::MAX,
            sequence: slot.sequence,
            delivery: None,
            entry: Entry::Run,
            tally: Tally::default(),
            outcome: None,
        };
        if let Some(rest) = self.rests.get(slot.rest) {
            job.reason = rest.reason;
            job.until = rest.until;
            job.timeout_at = rest.timeout_at;
            job.delivery = rest.delivery;
            job.entry = rest.entry;
            job.tally = rest.tally;
            job.outcome = rest.outcome;
        }
        Some(job)
    }

    /// What never changes about the job.
    pub(crate) fn spec(&self, at: u32) -> Option<&JobSpec> {
        Some(&self.kinds.get(self.jobs.get(at)?.kind)?.0.spec)
    }

    /// Who holds the job, if it is held.
    pub(crate) fn delivery(&self, slot: &JobSlot) -> Option<Delivery> {
        self.rests.get(slot.rest)?.delivery
    }

    /// The next deadline that can pass, if any.
    pub(crate) fn due(&self, slot: &JobSlot) -> Option<Timestamp> {
        let rest = self.rests.get(slot.rest)?;
        slot.state.due(rest.until, rest.timeout_at)
    }

    pub(crate) fn insert_job(&mut self, job: &Job, lane: u32) -> u32 {
        let pipe = self.pipe(job.pipeline);
        let head = self.pipes.get(pipe).map_or(NONE, |slot| slot.head);
        let kind = self.kind(job);
        let rest = if is_plain(job) { NONE } else { self.rests.insert(Rest::of(job)) };
        let at = self.jobs.insert(JobSlot {
            id: job.id(),
            write: job.write.ticket,
            since: job.since,
            sequence: job.sequence,
            lock: Lock::default(),
            attempt: job.key.attempt,
            version: job.version,
            kind,
            lane,
            pipe,
            pipe_links: (NONE, head),
            rest,
            position: 0,
            state: job.state,
            priority: job.priority,
            hangs: Hangs::No,
        });
        let hash = |at: &u32| self.jobs.get(*at).map_or(0, |slot| near(slot.id.get()));
        self.job_index.insert_unique(near(job.id().get()), at, hash);
        if let Some(first) = self.jobs.get_mut(head) {
            first.pipe_links.0 = at;
        }
        if let Some(slot) = self.pipes.get_mut(pipe) {
            slot.head = at;
            slot.jobs += 1;
        }
        at
    }

    /// The job's row is another now; it hangs where it hung.
    pub(crate) fn put_job(&mut self, at: u32, job: &Job) {
        let Some(slot) = self.jobs.get(at) else { return };
        let mut kind = slot.kind;
        let is_same = |(known, _): &(Kind, u32)| known.engine == job.write.engine && known.spec == job.spec;
        if !self.kinds.get(kind).is_some_and(is_same) {
            self.drop_kind(kind);
            kind = self.kind(job);
        }
        let Some(slot) = self.jobs.get_mut(at) else { return };
        slot.kind = kind;
        slot.write = job.write.ticket;
        slot.since = job.since;
        slot.sequence = job.sequence;
        slot.attempt = job.key.attempt;
        slot.version = job.version;
        slot.state = job.state;
        slot.priority = job.priority;
        if let Some(rest) = self.rests.get_mut(slot.rest) {
            rest.reason = job.reason;
            rest.until = job.until;
            rest.timeout_at = job.timeout_at;
            rest.delivery = job.delivery;
            rest.entry = job.entry;
            rest.tally = job.tally;
            rest.outcome = job.outcome;
        } else if !is_plain(job) {
            slot.rest = self.rests.insert(Rest::of(job));
        }
    }

    /// Drops the rest of a job that has become plain and hangs nowhere by it.
    pub(crate) fn slim(&mut self, at: u32, job: &Job) {
        let Some(slot) = self.jobs.get_mut(at) else { return };
        let hangs = |rest: &Rest| rest.alarm.is_some() || rest.pool != NONE || rest.worker.is_some();
        if slot.rest != NONE && is_plain(job) && !self.rests.get(slot.rest).is_some_and(hangs) {
            self.rests.remove(slot.rest);
            slot.rest = NONE;
        }
    }

    pub(crate) fn remove_job(&mut self, at: u32) {
        self.set_worker(at, None);
        let Some(slot) = self.jobs.remove(at) else { return };
        let (before, after) = slot.pipe_links;
        if let Some(other) = self.jobs.get_mut(after) {
            other.pipe_links.0 = before;
        }
        if let Some(other) = self.jobs.get_mut(before) {
            other.pipe_links.1 = after;
        } else if let Some(pipe) = self.pipes.get_mut(slot.pipe) {
            pipe.head = after;
        }
        if let Some(pipe) = self.pipes.get_mut(slot.pipe) {
            pipe.jobs -= 1;
        }
        self.rests.remove(slot.rest);
        self.drop_kind(slot.kind);
        if let Ok(entry) = self.job_index.find_entry(near(slot.id.get()), |other| *other == at) {
            entry.remove();
        }
    }

    fn kind(&mut self, job: &Job) -> u32 {
        let is_it = |kind: &Kind| kind.engine == job.write.engine && kind.spec == job.spec;
        if let Some((kind, users)) = self.kinds.get_mut(self.last_kind)
            && is_it(kind)
        {
            *users += 1;
            return self.last_kind;
        }
        let kind = Kind { spec: job.spec, engine: job.write.engine };
        let hash = hash_of(&kind);
        let kinds = &self.kinds;
        let found = self.kind_index.find(hash, |at| kinds.get(*at).is_some_and(|(known, _)| *known == kind));
        let at = if let Some(at) = found.copied() {
            if let Some((_, users)) = self.kinds.get_mut(at) {
                *users += 1;
            }
            at
        } else {
            let at = self.kinds.insert((kind, 1));
            let kinds = &self.kinds;
            self.kind_index.insert_unique(hash, at, |at| kinds.get(*at).map_or(0, |(kind, _)| hash_of(kind)));
            at
        };
        self.last_kind = at;
        at
    }

    fn drop_kind(&mut self, at: u32) {
        let Some((_, users)) = self.kinds.get_mut(at) else { return };
        *users -= 1;
        if *users == 0
            && let Some((kind, _)) = self.kinds.remove(at)
            && let Ok(entry) = self.kind_index.find_entry(hash_of(&kind), |other| *other == at)
        {
            entry.remove();
        }
    }

    // ---- what a job in progress hangs by ----------------------------------------------------------------------------

    /// When its alarm is set for.
    pub(crate) fn alarm(&self, slot: &JobSlot) -> Option<Timestamp> {
        self.rests.get(slot.rest)?.alarm
    }

    /// Sets or clears its alarm; returns what it was.
    pub(crate) fn set_alarm(&mut self, at: u32, alarm: Option<Timestamp>) -> Option<Timestamp> {
        let rest = self.jobs.get(at)?.rest;
        core::mem::replace(&mut self.rests.get_mut(rest)?.alarm, alarm)
    }

    /// The pool in whose leases it is counted.
    pub(crate) fn pool(&self, slot: &JobSlot) -> Option<u32> {
        self.rests.get(slot.rest).map(|rest| rest.pool).filter(|pool| *pool != NONE)
    }

    pub(crate) fn set_pool(&mut self, at: u32, pool: Option<u32>) {
        let rest = self.jobs.get(at).map_or(NONE, |slot| slot.rest);
        if let Some(rest) = self.rests.get_mut(rest) {
            rest.pool = pool.unwrap_or(NONE);
        }
    }

    fn rest_of(&mut self, at: u32) -> Option<&mut Rest> {
        let rest = self.jobs.get(at)?.rest;
        self.rests.get_mut(rest)
    }

    /// Hangs the job in the list of the worker that holds it, or in none.
    pub(crate) fn set_worker(&mut self, at: u32, worker: Option<WorkerName>) {
        let Some(rest) = self.rest_of(at) else { return };
        if rest.worker == worker {
            return;
        }
        let (old, (before, after)) = (rest.worker, rest.worker_links);
        if let Some(old) = old {
            if let Some(other) = self.rest_of(after) {
                other.worker_links.0 = before;
            }
            if let Some(other) = self.rest_of(before) {
                other.worker_links.1 = after;
            } else if after == NONE {
                self.workers.remove(&old);
            } else {
                self.workers.insert(old, after);
            }
        }
        let mut links = (NONE, NONE);
        if let Some(new) = worker {
            links.1 = self.workers.insert(new, at).unwrap_or(NONE);
            if let Some(first) = self.rest_of(links.1) {
                first.worker_links.0 = at;
            }
        }
        if let Some(rest) = self.rest_of(at) {
            rest.worker = worker;
            rest.worker_links = links;
        }
    }

    /// Whether the job hangs in a worker's list.
    pub(crate) fn is_held(&self, slot: &JobSlot) -> bool {
        self.rests.get(slot.rest).is_some_and(|rest| rest.worker.is_some())
    }

    /// The places of a pipeline's jobs, in no order.
    pub(crate) fn jobs_of(&self, pipe: u32) -> impl Iterator<Item = u32> {
        let head = self.pipes.get(pipe).map_or(NONE, |slot| slot.head);
        self.follow(head, |slot| slot.pipe_links.1)
    }

    /// The places of the jobs that a worker holds, in no order.
    pub(crate) fn jobs_held(&self, worker: WorkerName) -> impl Iterator<Item = u32> {
        let head = self.workers.get(&worker).copied().unwrap_or(NONE);
        self.follow(head, |slot| self.rests.get(slot.rest).map_or(NONE, |rest| rest.worker_links.1))
    }

    fn follow(&self, head: u32, next: impl Fn(&JobSlot) -> u32) -> impl Iterator<Item = u32> {
        let mut at = head;
        core::iter::from_fn(move || {
            let here = at;
            at = next(self.jobs.get(here)?);
            Some(here)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_job_takes_80_bytes() {
        assert_eq!(Slab::<JobSlot>::bytes_a_place(), 80);
    }
}
