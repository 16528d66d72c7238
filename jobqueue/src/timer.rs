//! Deadlines of jobs. An entry that no longer matches its job's alarm is dead; when most are, they are swept out.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::id::JobId;
use crate::time::Timestamp;

/// One entry: when, whose, and where that job is kept.
type Entry = (Timestamp, JobId, u32);

/// A queue of deadlines: inserting costs a constant on average, cancelling nothing, and all come out in order of time
/// and job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    live: usize,
}

impl Timers {
    /// Arms a job whose alarm has just been set to `at`.
    pub(crate) fn arm(&mut self, at: Timestamp, job: JobId, slot: u32) {
        self.heap.push(Reverse((at, job, slot)));
        self.live += 1;
    }

    /// Counts one entry as dead.
    pub(crate) const fn disarm(&mut self) {
        self.live = self.live.saturating_sub(1);
    }

    /// The earliest entry, dead or alive.
    pub(crate) fn peek(&self) -> Option<Entry> {
        self.heap.peek().map(|Reverse(entry)| *entry)
    }

    /// The earliest time, if the earliest entry is known to be alive.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.peek().map(|(at, _, _)| at)
    }

    /// Takes out the earliest entry, which is alive.
    pub(crate) fn pop(&mut self) {
        self.heap.pop();
        self.disarm();
    }

    /// Takes out the earliest entry, which is dead.
    pub(crate) fn drop_dead(&mut self) {
        self.heap.pop();
    }

    /// Sweeps when more than half are dead, so that the sweeping is paid for by what died.
    pub(crate) fn sweep(&mut self, is_live: &impl Fn(Timestamp, JobId, u32) -> bool) {
        if self.heap.len() > 2 * self.live + 64 {
            self.heap.retain(|Reverse((at, job, slot))| is_live(*at, *job, *slot));
            self.live = self.heap.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn deadlines_come_in_order_and_dead_ones_never() {
        let mut timers = Timers::default();
        let mut alarms = vec![None; 4_000];
        for slot in 0..4_000_u32 {
            let at = Timestamp::from_millis(u64::from((slot * 7_919) % 4_000));
            alarms[slot as usize] = Some(at);
            timers.arm(at, JobId::new(u64::from(slot)), slot);
        }
        for slot in (0..4_000_u32).filter(|slot| slot % 4 != 0) {
            alarms[slot as usize] = None;
            timers.disarm();
        }
        let mut fired = Vec::new();
        timers.sweep(&|at, _, slot| alarms[slot as usize] == Some(at));
        assert_eq!(timers.heap.len(), 1_000, "the dead are swept out");
        while let Some(entry) = timers.peek() {
            timers.pop();
            alarms[entry.2 as usize] = None;
            fired.push(entry);
        }
        assert_eq!(fired.len(), 1_000);
        assert!(fired.is_sorted());
    }

    #[test]
    fn far_deadlines_are_ordinary() {
        let mut timers = Timers::default();
        let far = Timestamp::from_millis(1 << 40);
        timers.arm(far, JobId::new(1), 0);
        assert_eq!(timers.peek(), Some((far, JobId::new(1), 0)));
    }
}
