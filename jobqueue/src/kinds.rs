//! Interning: the parts that many jobs have in common, each kept once.

use hashbrown::HashTable;

use crate::hash::hash_of;
use crate::id::Incarnation;
use crate::job::{Job, JobSpec};
use crate::slab::Slab;

/// The part of a row that many jobs have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) spec: JobSpec,
    pub(crate) engine: Incarnation,
}

impl Kind {
    fn is_of(&self, job: &Job) -> bool {
        self.engine == job.write.engine && self.spec == job.spec
    }
}

/// All kinds that some waiting job is of, and some that a job lately was of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds {
    /// Each with its number of jobs.
    slots: Slab<(Kind, u32)>,
    index: HashTable<u32>,
    /// The kind that was met last, which is mostly met next.
    last: u32,
    /// Kinds that no job is of.
    idle: u32,
}

impl Kinds {
    pub(crate) fn get(&self, at: u32) -> Option<&Kind> {
        self.slots.get(at).map(|(kind, _)| kind)
    }

    /// The kind of one more job.
    pub(crate) fn enter(&mut self, job: &Job) -> u32 {
        if !self.get(self.last).is_some_and(|kind| kind.is_of(job)) {
            self.last = self.find(job);
        }
        if let Some((_, jobs)) = self.slots.get_mut(self.last) {
            self.idle -= u32::from(*jobs == 0);
            *jobs += 1;
        }
        self.last
    }

    /// The kind of a job, made if it is not there.
    fn find(&mut self, job: &Job) -> u32 {
        let kind = Kind { spec: job.spec, engine: job.write.engine };
        let (slots, hash) = (&mut self.slots, hash_of(&kind));
        let found = self.index.find(hash, |at| slots.get(*at).is_some_and(|(known, _)| *known == kind));
        found.copied().unwrap_or_else(|| {
            self.idle += 1;
            let at = slots.insert((kind, 0));
            self.index.insert_unique(hash, at, |at| slots.get(*at).map_or(0, |(kind, _)| hash_of(kind)));
            at
        })
    }

    /// One job of the kind is gone, or no longer only waits.
    pub(crate) fn leave(&mut self, at: u32) {
        let Some((_, jobs)) = self.slots.get_mut(at) else { return };
        *jobs -= 1;
        self.idle += u32::from(*jobs == 0);
        self.idle = self.slots.tidy(&mut self.index, self.idle, |(_, jobs)| *jobs == 0);
    }
}
