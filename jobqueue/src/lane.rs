//! One tag's queue: largest priority first, then the oldest, then the smallest sequence number and id.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::config::Service;
use crate::id::{JobId, Tag};
use crate::job::Job;

/// A place in a queue: a total order, smallest first, that time does not change.
///
/// With ageing, what is compared is the time of arrival plus the handicap of a low priority: as all jobs age alike,
/// that order stays right for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    major: u64,
    time: u64,
    sequence: u64,
    job: JobId,
}

impl Rank {
    pub(crate) fn of(job: &Job, ageing_ms: Option<u32>) -> Self {
        let steps = u64::from(u8::MAX - job.priority);
        let time = job.since.as_millis();
        let major = ageing_ms.map_or(steps, |ms| time.saturating_add(steps * u64::from(ms)));
        Self { major, time, sequence: job.sequence, job: job.id() }
    }
}

/// An entry: its place, where its job is kept, and the stamp by which it is known to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) rank: Rank,
    pub(crate) slot: u32,
    pub(crate) stamp: u32,
}

/// One tag's queue.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) tag: Tag,
    pub(crate) service: Service,
    /// Jobs of this tag that have not ended.
    pub(crate) jobs: u32,
    /// Jobs of this tag that workers hold.
    pub(crate) held: u32,
    /// Entries that are alive.
    pub(crate) live: u32,
    /// The pools that serve it, and its place among each one's active lanes.
    pub(crate) pools: Vec<(u32, Option<u32>)>,
    heap: BinaryHeap<Reverse<Entry>>,
}

impl Lane {
    pub(crate) const fn new(tag: Tag) -> Self {
        Self { tag, service: Service::Open, jobs: 0, held: 0, live: 0, pools: Vec::new(), heap: BinaryHeap::new() }
    }

    /// Whether a pull could take something.
    pub(crate) fn is_active(&self) -> bool {
        self.live > 0 && self.service == Service::Open
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.heap.push(Reverse(entry));
        self.live += 1;
    }

    /// The first live entry, taken out.
    pub(crate) fn pop(&mut self, is_live: impl Fn(&Entry) -> bool) -> Option<Entry> {
        while let Some(Reverse(entry)) = self.heap.pop() {
            if is_live(&entry) {
                self.live = self.live.saturating_sub(1);
                return Some(entry);
            }
        }
        None
    }

    /// Counts one entry as dead, and sweeps when most are.
    pub(crate) fn drop_one(&mut self, is_live: impl Fn(&Entry) -> bool) {
        self.live = self.live.saturating_sub(1);
        if self.heap.len() > 2 * self.live as usize + 32 {
            self.heap.retain(|Reverse(entry)| is_live(entry));
        }
    }

    /// The live entries, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.heap.iter().map(|Reverse(entry)| entry)
    }
}
