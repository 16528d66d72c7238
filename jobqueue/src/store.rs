//! Where rows are kept in memory: slabs, and the lists that run through them.

mod slot;

use alloc::vec::Vec;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as IndexEntry;

use crate::hash::near;
use crate::id::{Attempt, Incarnation, JobId, JobKey, PipelineId, Tag, WorkerName, WriteId};
use crate::job::{Delivery, Entry, Job, JobSpec, State, Tally};
use crate::kinds::Kinds;
pub(crate) use crate::slab::{NONE, Slab};
use crate::time::Timestamp;
use crate::timer::Alarm;
use crate::workers::Workers;
pub(crate) use slot::{Due, Hangs, JobSlot, Lock, PipeSlot, Planned};
use slot::{More, Rest, is_plain, plain_reason};

/// All jobs' slots, which lanes reach into.
pub(crate) type Jobs = Slab<JobSlot>;

/// All rows in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) jobs: Jobs,
    pub(crate) pipes: Slab<PipeSlot>,
    rests: Slab<Rest>,
    kinds: Kinds,
    /// The pipeline that was met last.
    pub(crate) last_pipe: u32,
    /// The tag of each lane.
    pub(crate) tags: Vec<Tag>,
    job_index: HashTable<u32>,
    pipe_index: HashTable<u32>,
    workers: Workers,
    /// The number of the pass of pages under way.
    pub(crate) pass: u8,
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
        self.find_pipe(id).unwrap_or_else(|| self.add_pipe(id))
    }

    /// A slot for a pipeline that has none.
    pub(crate) fn add_pipe(&mut self, id: PipelineId) -> u32 {
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
            planned: None,
            pass: self.pass,
        };
        let at = self.pipes.insert(slot);
        let hash = |at: &u32| self.pipes.get(*at).map_or(0, |slot| near(slot.id.get()));
        self.pipe_index.insert_unique(near(id.get()), at, hash);
        self.last_pipe = at;
        at
    }

    /// The pipeline's slot of the job that is kept here.
    pub(crate) fn pipe_of(&mut self, job: u32) -> Option<&mut PipeSlot> {
        self.pipes.get_mut(self.jobs.get(job)?.pipe)
    }

    /// Forgets a pipeline that has no jobs here.
    pub(crate) fn remove_pipe(&mut self, at: u32) {
        let Some(slot) = self.pipes.get(at) else { return };
        if let Ok(entry) = self.pipe_index.find_entry(near(slot.id.get()), |other| *other == at) {
            entry.remove();
        }
        self.pipes.remove(at);
    }

    // ---- rows -----------------------------------------------------------------------------------------------------

    /// The job's row, if it is kept whole.
    #[inline]
    pub(crate) fn whole(&self, at: u32) -> Option<&Job> {
        self.rests.get(self.jobs.get(at)?.rest()).map(|rest| &rest.row)
    }

    /// The job's row.
    #[inline]
    pub(crate) fn row(&self, at: u32) -> Option<Job> {
        if let Some(row) = self.whole(at) {
            return Some(*row);
        }
        let slot = self.jobs.get(at)?;
        let kind = self.kinds.get(slot.kind())?;
        Some(Job {
            key: JobKey { job: slot.id, attempt: Attempt::FIRST },
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
            start_by: Timestamp::MAX,
            finish_by: Timestamp::MAX,
        })
    }

    /// The specification of the job, which never changes.
    pub(crate) fn spec(&self, at: u32) -> Option<&JobSpec> {
        let slot = self.jobs.get(at)?;
        let rest = self.rests.get(slot.rest()).map(|rest| &rest.row.spec);
        rest.or_else(|| self.kinds.get(slot.kind()).map(|kind| &kind.spec))
    }

    /// Which attempt of a job is here.
    pub(crate) fn attempt(&self, slot: &JobSlot) -> Attempt {
        self.rests.get(slot.rest()).map_or(Attempt::FIRST, |rest| rest.row.key.attempt)
    }

    /// Who holds the job, if it is held.
    pub(crate) fn delivery(&self, slot: &JobSlot) -> Option<Delivery> {
        self.rests.get(slot.rest())?.row.delivery
    }

    /// A place for a job's row, if it has none; else the place that it has.
    pub(crate) fn insert_job(&mut self, job: &Job, lane: u32) -> Result<u32, u32> {
        let pipe = self.pipe(job.pipeline);
        let is_it = |at: &u32| self.jobs.get(*at).is_some_and(|slot| slot.id == job.id());
        let hash = |at: &u32| self.jobs.get(*at).map_or(0, |slot| near(slot.id.get()));
        let vacant = match self.job_index.entry(near(job.id().get()), is_it, hash) {
            IndexEntry::Occupied(here) => return Err(*here.get()),
            IndexEntry::Vacant(vacant) => vacant,
        };
        let more =
            if is_plain(job) { More::kind(self.kinds.enter(job)) } else { More(self.rests.insert(Rest::of(job))) };
        let mut head = NONE;
        if let Some(slot) = self.pipes.get_mut(pipe) {
            head = core::mem::replace(&mut slot.head, self.jobs.next());
            slot.jobs += 1;
        }
        let at = self.jobs.insert(JobSlot {
            id: job.id(),
            write: job.write.ticket,
            since: job.since,
            sequence: job.sequence,
            lock: Lock::default(),
            version: job.version,
            more,
            lane,
            pipe,
            pipe_links: (NONE, head),
            position: 0,
            state: job.state,
            priority: job.priority,
            hangs: Hangs::No,
        });
        vacant.insert(at);
        if let Some(first) = self.jobs.get_mut(head) {
            first.pipe_links.0 = at;
        }
        Ok(at)
    }

    /// The job's row is another now; it hangs where it hung. Returns the state that it had, and whether the delivery that
    /// it is held by is still the same.
    pub(crate) fn put_job(&mut self, at: u32, job: &Job) -> Option<(State, bool)> {
        let slot = self.jobs.get_mut(at)?;
        let was = core::mem::replace(&mut slot.state, job.state);
        slot.write = job.write.ticket;
        slot.since = job.since;
        slot.sequence = job.sequence;
        slot.version = job.version;
        slot.priority = job.priority;
        let holder = |row: &Job| row.delivery.filter(|_| row.state.is_leased()).map(|delivery| delivery.write);
        if let Some(rest) = self.rests.get_mut(slot.rest()) {
            let is_same = holder(&rest.row) == holder(job);
            rest.row = *job;
            return Some((was, is_same));
        }
        self.kinds.leave(slot.kind());
        slot.more =
            if is_plain(job) { More::kind(self.kinds.enter(job)) } else { More(self.rests.insert(Rest::of(job))) };
        Some((was, holder(job).is_none()))
    }

    /// Drops the rest of a job that has become plain and hangs nowhere by it.
    pub(crate) fn slim(&mut self, at: u32, job: &Job) {
        let Some(slot) = self.jobs.get_mut(at) else { return };
        let hangs = |rest: &Rest| rest.alarm.is_some() || rest.pool != NONE || rest.worker != NONE;
        if slot.rest() != NONE && is_plain(job) && !self.rests.get(slot.rest()).is_some_and(hangs) {
            self.rests.remove(slot.rest());
            slot.more = More::kind(self.kinds.enter(job));
        }
    }

    pub(crate) fn remove_job(&mut self, at: u32) {
        self.set_holders(at, None, None);
        let Some(slot) = self.jobs.get(at) else { return };
        let (kind, rest, pipe, (before, after)) = (slot.kind(), slot.rest(), slot.pipe, slot.pipe_links);
        if let Ok(entry) = self.job_index.find_entry(near(slot.id.get()), |other| *other == at) {
            entry.remove();
        }
        self.jobs.remove(at);
        self.rests.remove(rest);
        self.kinds.leave(kind);
        if let Some(other) = self.jobs.get_mut(after) {
            other.pipe_links.0 = before;
        }
        if let Some(other) = self.jobs.get_mut(before) {
            other.pipe_links.1 = after;
        }
        if let Some(pipe) = self.pipes.get_mut(pipe) {
            pipe.jobs -= 1;
            if before == NONE {
                pipe.head = after;
            }
        }
    }

    // ---- what a job in progress hangs by ----------------------------------------------------------------------------

    /// The deadline of a job in progress, if it has one that is not watched.
    pub(crate) fn unwatched(&self, rest: u32) -> Option<Timestamp> {
        let rest = self.rests.get(rest).filter(|rest| rest.alarm.is_none())?;
        rest.row.due()
    }

    pub(crate) fn set_alarm(&mut self, rest: u32, alarm: Alarm) {
        if let Some(rest) = self.rests.get_mut(rest) {
            rest.alarm = Some(alarm);
        }
    }

    /// Takes the alarm of a job's deadline, if it was watched; it no longer is.
    pub(crate) fn take_alarm(&mut self, rest: u32) -> Option<Alarm> {
        self.rests.get_mut(rest)?.alarm.take()
    }

    /// The pool in whose leases it is counted, and whether it hangs in a worker's list.
    pub(crate) fn holders(&self, slot: &JobSlot) -> (Option<u32>, bool) {
        let rest = self.rests.get(slot.rest());
        rest.map_or((None, false), |rest| ((rest.pool != NONE).then_some(rest.pool), rest.worker != NONE))
    }

    /// Whether it is counted in a pool's leases and was given out by this life of an engine.
    pub(crate) fn is_charged(&self, slot: &JobSlot, life: Incarnation) -> bool {
        let rest = self.rests.get(slot.rest()).filter(|rest| rest.pool != NONE);
        rest.is_some_and(|rest| rest.row.delivery.is_some_and(|delivery| delivery.write.engine == life))
    }

    fn rest_of(&mut self, at: u32) -> Option<&mut Rest> {
        let rest = self.jobs.get(at)?.rest();
        self.rests.get_mut(rest)
    }

    /// Counts the job in a pool's leases, and hangs it in the list of the worker that holds it; or in none.
    pub(crate) fn set_holders(&mut self, at: u32, pool: Option<u32>, worker: Option<WorkerName>) {
        let Some(rest) = self.rest_of(at) else { return };
        rest.pool = pool.unwrap_or(NONE);
        let (old, (before, after)) = (rest.worker, rest.worker_links);
        if old != NONE {
            if let Some(other) = self.rest_of(after) {
                other.worker_links.0 = before;
            }
            if let Some(other) = self.rest_of(before) {
                other.worker_links.1 = after;
            } else {
                self.workers.set_head(old, after);
            }
        }
        let (new, next) = worker.map_or((NONE, NONE), |name| self.workers.enter(name, at));
        if let Some(other) = self.rest_of(next) {
            other.worker_links.0 = at;
        }
        if let Some(rest) = self.rest_of(at) {
            rest.worker = new;
            rest.worker_links = (NONE, next);
        }
    }

    /// The places of a pipeline's jobs, in no order.
    pub(crate) fn jobs_of(&self, pipe: u32) -> impl Iterator<Item = u32> {
        let head = self.pipes.get(pipe).map_or(NONE, |slot| slot.head);
        self.follow(head, |slot| slot.pipe_links.1)
    }

    /// The places of the jobs that a worker holds, in no order.
    pub(crate) fn jobs_held(&self, worker: WorkerName) -> impl Iterator<Item = u32> {
        let head = self.workers.head(worker);
        self.follow(head, |slot| self.rests.get(slot.rest()).map_or(NONE, |rest| rest.worker_links.1))
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
    fn a_waiting_job_takes_72_bytes() {
        assert_eq!(Slab::<JobSlot>::bytes_a_place(), 72);
    }
}
