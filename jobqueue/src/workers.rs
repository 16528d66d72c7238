//! Workers, and the list of the jobs that each holds.

use hashbrown::HashTable;

use crate::hash::near;
use crate::id::WorkerName;
use crate::slab::{NONE, Slab};

/// A worker that holds jobs, or lately did.
#[derive(Clone, Debug)]
struct WorkerSlot {
    name: WorkerName,
    /// The first job of its list.
    head: u32,
}

/// All workers that hold jobs. One that holds none is mostly about to get another: it is kept until there are many such.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workers {
    slots: Slab<WorkerSlot>,
    index: HashTable<u32>,
    idle: u32,
}

impl Workers {
    fn find(&self, name: WorkerName) -> Option<u32> {
        let is_it = |at: &u32| self.slots.get(*at).is_some_and(|slot| slot.name == name);
        self.index.find(near(name.get()), is_it).copied()
    }

    /// The first job of a worker's list.
    pub(crate) fn head(&self, name: WorkerName) -> u32 {
        self.find(name).and_then(|at| self.slots.get(at)).map_or(NONE, |slot| slot.head)
    }

    /// Puts a job first in a worker's list; returns the worker's place, and the job that was first.
    pub(crate) fn enter(&mut self, name: WorkerName, job: u32) -> (u32, u32) {
        if let Some(at) = self.find(name) {
            let Some(slot) = self.slots.get_mut(at) else { return (NONE, NONE) };
            self.idle -= u32::from(slot.head == NONE);
            return (at, core::mem::replace(&mut slot.head, job));
        }
        let at = self.slots.insert(WorkerSlot { name, head: job });
        let slots = &self.slots;
        let hash = |at: &u32| slots.get(*at).map_or(0, |slot| near(slot.name.get()));
        self.index.insert_unique(near(name.get()), at, hash);
        (at, NONE)
    }

    /// The first job of a worker's list is gone, and this one is first now, if there is one.
    pub(crate) fn set_head(&mut self, at: u32, job: u32) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.head = job;
        self.idle += u32::from(job == NONE);
        self.idle = self.slots.tidy(&mut self.index, self.idle, |slot| slot.head == NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_hold_nothing_do_not_pile_up() {
        let mut workers = Workers::default();
        let (busy, _) = workers.enter(WorkerName::new(7), 1);
        for name in 100..10_000 {
            let (at, before) = workers.enter(WorkerName::new(name), 2);
            assert_eq!((before, workers.head(WorkerName::new(name))), (NONE, 2));
            workers.set_head(at, NONE);
            assert!(workers.slots.used <= 2 * 65 + 1);
        }
        assert_eq!(workers.enter(WorkerName::new(7), 3), (busy, 1));
    }
}
