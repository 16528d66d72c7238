//! Where rows are kept in memory: two slabs, and the lists that run through them.

use alloc::vec::Vec;

use crate::hash::Map;
use crate::id::{JobId, PipelineId, Ticket, Version, WorkerName};
use crate::job::Job;
use crate::pipeline::Pipeline;
use crate::time::Timestamp;

/// The end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// A job that has not ended, and where it hangs.
#[derive(Clone, Debug)]
pub(crate) struct JobSlot {
    pub(crate) job: Job,
    /// The write that is under way.
    pub(crate) lock: Option<Ticket>,
    /// The lane of its tag.
    pub(crate) lane: u32,
    /// Its pipeline's slot.
    pub(crate) pipe: u32,
    /// Known to the lane's entries: an entry with another stamp is dead.
    pub(crate) stamp: u32,
    /// Whether an entry of its lane is alive.
    pub(crate) queued: bool,
    /// Which entry of the timers is alive.
    pub(crate) alarm: Option<Timestamp>,
    /// The pool in whose leases it is counted.
    pub(crate) pool: Option<u32>,
    /// Whether it waits for its key, outside of its queue.
    pub(crate) displaced: bool,
    /// Whether it is counted among its tag's held jobs.
    pub(crate) held: bool,
    pipe_links: (u32, u32),
    worker_links: (u32, u32),
    worker: Option<WorkerName>,
}

/// A pipeline that is open or has jobs here.
#[derive(Clone, Debug)]
pub(crate) struct PipeSlot {
    pub(crate) id: PipelineId,
    /// The row; none while it is being read.
    pub(crate) row: Option<Pipeline>,
    /// The write that is under way.
    pub(crate) lock: Option<Ticket>,
    /// Whether the row, or the whole pipeline, is being read.
    pub(crate) asked: bool,
    /// The row's version when the whole pipeline was read.
    pub(crate) read_at: Option<Version>,
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

#[derive(Clone, Debug)]
enum Place<T> {
    Used(T),
    Free(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: u32,
    pub(crate) used: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: NONE, used: 0 }
    }
}

impl<T> Slab<T> {
    fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        let at = self.free;
        if let Some(place) = self.places.get_mut(at as usize) {
            if let Place::Free(next) = place {
                self.free = *next;
            }
            *place = Place::Used(value);
            return at;
        }
        self.places.push(Place::Used(value));
        u32::try_from(self.places.len() - 1).unwrap_or(NONE)
    }

    fn remove(&mut self, at: u32) {
        if let Some(place @ Place::Used(_)) = self.places.get_mut(at as usize) {
            *place = Place::Free(self.free);
            self.free = at;
            self.used -= 1;
        }
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        match self.places.get(at as usize) {
            Some(Place::Used(value)) => Some(value),
            Some(Place::Free(_)) | None => None,
        }
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        match self.places.get_mut(at as usize) {
            Some(Place::Used(value)) => Some(value),
            Some(Place::Free(_)) | None => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| match place {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        })
    }
}

/// All rows in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) jobs: Slab<JobSlot>,
    pub(crate) pipes: Slab<PipeSlot>,
    job_index: Map<JobId, u32>,
    pipe_index: Map<PipelineId, u32>,
    /// The first job of each worker's list.
    workers: Map<WorkerName, u32>,
}

impl Store {
    pub(crate) fn find_job(&self, id: JobId) -> Option<u32> {
        self.job_index.get(&id).copied()
    }

    pub(crate) fn find_pipe(&self, id: PipelineId) -> Option<u32> {
        self.pipe_index.get(&id).copied()
    }

    /// The pipeline's slot, made if it is not there.
    pub(crate) fn pipe(&mut self, id: PipelineId) -> u32 {
        if let Some(at) = self.find_pipe(id) {
            return at;
        }
        let slot = PipeSlot {
            id,
            row: None,
            lock: None,
            asked: false,
            read_at: None,
            late: false,
            unstarted: 0,
            jobs: 0,
            head: NONE,
        };
        let at = self.pipes.insert(slot);
        self.pipe_index.insert(id, at);
        at
    }

    /// Forgets a pipeline that has no jobs here.
    pub(crate) fn remove_pipe(&mut self, at: u32) {
        if let Some(slot) = self.pipes.get(at) {
            self.pipe_index.remove(&slot.id);
            self.pipes.remove(at);
        }
    }

    pub(crate) fn insert_job(&mut self, job: Job, lane: u32) -> u32 {
        let pipe = self.pipe(job.pipeline);
        let head = self.pipes.get(pipe).map_or(NONE, |slot| slot.head);
        let at = self.jobs.insert(JobSlot {
            job,
            lock: None,
            lane,
            pipe,
            stamp: 0,
            queued: false,
            alarm: None,
            pool: None,
            displaced: false,
            held: false,
            pipe_links: (NONE, head),
            worker_links: (NONE, NONE),
            worker: None,
        });
        self.job_index.insert(job.id(), at);
        if let Some(first) = self.jobs.get_mut(head) {
            first.pipe_links.0 = at;
        }
        if let Some(slot) = self.pipes.get_mut(pipe) {
            slot.head = at;
            slot.jobs += 1;
        }
        at
    }

    pub(crate) fn remove_job(&mut self, at: u32) {
        self.set_worker(at, None);
        let Some(slot) = self.jobs.get(at) else { return };
        let (id, pipe, (before, after)) = (slot.job.id(), slot.pipe, slot.pipe_links);
        if let Some(other) = self.jobs.get_mut(after) {
            other.pipe_links.0 = before;
        }
        if let Some(other) = self.jobs.get_mut(before) {
            other.pipe_links.1 = after;
        } else if let Some(slot) = self.pipes.get_mut(pipe) {
            slot.head = after;
        }
        if let Some(slot) = self.pipes.get_mut(pipe) {
            slot.jobs -= 1;
        }
        self.job_index.remove(&id);
        self.jobs.remove(at);
    }

    /// Hangs the job in the list of the worker that holds it, or in none.
    pub(crate) fn set_worker(&mut self, at: u32, worker: Option<WorkerName>) {
        let Some(slot) = self.jobs.get(at) else { return };
        if slot.worker == worker {
            return;
        }
        if let Some(old) = slot.worker {
            let (before, after) = slot.worker_links;
            if let Some(other) = self.jobs.get_mut(after) {
                other.worker_links.0 = before;
            }
            if let Some(other) = self.jobs.get_mut(before) {
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
            if let Some(first) = self.jobs.get_mut(links.1) {
                first.worker_links.0 = at;
            }
        }
        if let Some(slot) = self.jobs.get_mut(at) {
            slot.worker = worker;
            slot.worker_links = links;
        }
    }

    /// The slots of a pipeline's jobs, in no order.
    pub(crate) fn jobs_of(&self, pipe: u32) -> impl Iterator<Item = u32> {
        let head = self.pipes.get(pipe).map_or(NONE, |slot| slot.head);
        self.follow(head, |slot| slot.pipe_links.1)
    }

    /// The slots of the jobs that a worker holds, in no order.
    pub(crate) fn jobs_held(&self, worker: WorkerName) -> impl Iterator<Item = u32> {
        let head = self.workers.get(&worker).copied().unwrap_or(NONE);
        self.follow(head, |slot| slot.worker_links.1)
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
