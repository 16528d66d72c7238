//! Deadlines: set and cleared at a constant cost, and taken out in order.
//!
//! A radix heap (Ahuja, Mehlhorn, Orlin, Tarjan, "Faster Algorithms for the Shortest Path Problem", 1990) with an
//! ordinary heap at its near end. A deadline that lies beyond the *base* goes to the bucket of the highest bit in which
//! the two differ, unsorted; every deadline of a bucket is before all of the next. What is not beyond the base is near,
//! and sorted. When nothing near is left, the first bucket is opened: its earliest deadline becomes the base. So an
//! entry moves at most once for each bit of the time that it lies ahead, and most are cleared before they move at all.
//!
//! Nothing here knows what the deadlines are of: the figures measure this file by itself.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// The handle that clears a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alarm(u32);

/// A deadline: when, in milliseconds, whose turn it is among those of one tick, and what is kept where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<O> {
    at: u64,
    order: O,
    place: u32,
    alarm: Alarm,
}

/// All deadlines.
///
/// What was cleared stays where it is until it is met or swept; but the first of `near` is never a cleared one, and if
/// any deadline is set then one is there.
#[derive(Clone, Debug)]
pub(crate) struct Timers<O> {
    near: BinaryHeap<Reverse<Entry<O>>>,
    base: u64,
    /// Entries beyond the base, by the highest bit that differs.
    far: Vec<Vec<Entry<O>>>,
    /// Which buckets have entries, as bits.
    filled: u64,
    /// Which alarms are set, as bits; the number of one that is not set may still be in an entry.
    set: Vec<u64>,
    /// Numbers that no entry has.
    free: Vec<Alarm>,
    live: usize,
    cleared: usize,
}

impl<O: Copy + Ord> Default for Timers<O> {
    fn default() -> Self {
        Self {
            near: BinaryHeap::new(),
            base: 0,
            far: (0..u64::BITS).map(|_| Vec::new()).collect(),
            filled: 0,
            set: Vec::new(),
            free: Vec::new(),
            live: 0,
            cleared: 0,
        }
    }
}

impl<O: Copy + Ord> Timers<O> {
    /// Sets a deadline.
    pub(crate) fn arm(&mut self, at: u64, order: O, place: u32) -> Alarm {
        if self.live == 0 {
            // Nothing is here, cleared or not.
            self.base = at;
        }
        let alarm = self.number();
        self.live += 1;
        self.put(Entry { at, order, place, alarm });
        alarm
    }

    /// Clears a deadline that is set.
    pub(crate) fn disarm(&mut self, alarm: Alarm) {
        self.unset(alarm);
        self.live -= 1;
        self.cleared += 1;
        if self.near.peek().is_some_and(|Reverse(first)| first.alarm == alarm) {
            self.settle();
        }
        if self.cleared > self.live + 64 {
            self.sweep();
        }
    }

    /// The earliest time.
    pub(crate) fn first(&self) -> Option<u64> {
        self.near.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes out the first deadline if it is due, and returns its place.
    pub(crate) fn pop(&mut self, now: u64) -> Option<u32> {
        if self.first()? > now {
            return None;
        }
        let Reverse(entry) = self.near.pop()?;
        self.unset(entry.alarm);
        self.free.push(entry.alarm);
        self.live -= 1;
        self.settle();
        Some(entry.place)
    }

    fn put(&mut self, entry: Entry<O>) {
        if entry.at <= self.base {
            self.near.push(Reverse(entry));
        } else {
            let bucket = (entry.at ^ self.base).ilog2();
            self.filled |= 1 << bucket;
            self.far[bucket as usize].push(entry);
        }
    }

    /// Makes the first of `near` one that is set, if any is.
    fn settle(&mut self) {
        loop {
            while let Some(Reverse(first)) = self.near.peek() {
                let alarm = first.alarm;
                if self.keep(alarm) {
                    return;
                }
                self.near.pop();
            }
            if self.filled == 0 {
                return;
            }
            self.open();
        }
    }

    /// Opens the first bucket.
    fn open(&mut self) {
        let bucket = self.filled.trailing_zeros() as usize;
        self.filled &= self.filled - 1;
        let mut entries = core::mem::take(&mut self.far[bucket]);
        entries.retain(|entry| self.keep(entry.alarm));
        if let Some(first) = entries.iter().map(|entry| entry.at).min() {
            self.base = first;
        }
        // They go to smaller buckets or near, never back here.
        for entry in entries.drain(..) {
            self.put(entry);
        }
        if entries.capacity() <= 4_096 {
            self.far[bucket] = entries;
        }
    }

    /// Takes out what was cleared: it is more than what is set, and has paid for the looking.
    #[cold]
    fn sweep(&mut self) {
        let (mut near, mut far) = (core::mem::take(&mut self.near), core::mem::take(&mut self.far));
        near.retain(|Reverse(entry)| self.keep(entry.alarm));
        for (bucket, entries) in (0_u32..).zip(&mut far).filter(|(_, entries)| !entries.is_empty()) {
            entries.retain(|entry| self.keep(entry.alarm));
            if entries.is_empty() {
                self.filled &= !(1 << bucket);
            }
            if entries.capacity() > 4 * entries.len() + 4_096 {
                entries.shrink_to(2 * entries.len());
            }
        }
        (self.near, self.far) = (near, far);
    }

    // ---- numbers ----------------------------------------------------------------------------------------------------

    fn number(&mut self) -> Alarm {
        let alarm = self.free.pop().unwrap_or_else(|| {
            // Every smaller number is in an entry.
            let next = self.live + self.cleared;
            if next / 64 >= self.set.len() {
                self.set.push(0);
            }
            Alarm(u32::try_from(next).unwrap_or(u32::MAX))
        });
        if let Some(word) = self.set.get_mut(alarm.0 as usize / 64) {
            *word |= 1 << (alarm.0 % 64);
        }
        alarm
    }

    fn unset(&mut self, alarm: Alarm) {
        if let Some(word) = self.set.get_mut(alarm.0 as usize / 64) {
            *word &= !(1 << (alarm.0 % 64));
        }
    }

    /// Whether an entry is to be kept; if it was cleared, its number may be used again.
    fn keep(&mut self, alarm: Alarm) -> bool {
        let is_set = self.set.get(alarm.0 as usize / 64).is_some_and(|word| word >> (alarm.0 % 64) & 1 == 1);
        if !is_set {
            self.cleared -= 1;
            self.free.push(alarm);
        }
        is_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    /// Chance, by xorshift (Marsaglia, "Xorshift RNGs", 2003).
    struct Rng(u64);

    impl Rng {
        fn next_u64(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.next_u64() % bound
        }
    }

    /// What it must be equal to: a sorted map of all that is set.
    type Naive = BTreeMap<(u64, u64, u32), Alarm>;

    fn entries<O>(timers: &Timers<O>) -> usize {
        timers.near.len() + timers.far.iter().map(Vec::len).sum::<usize>()
    }

    /// Sets, clears and lets pass at random, with deadlines up to `2^bits` ahead.
    fn against_a_sorted_map(seed: u64, bits: u32) {
        let (mut timers, mut naive, mut rng) = (Timers::default(), Naive::new(), Rng(seed + 1));
        let mut now = 0_u64;
        for place in 0..20_000_u32 {
            let at = now.saturating_add(rng.next_u64() >> (64 - bits) >> rng.below(u64::from(bits)));
            let order = rng.below(3);
            naive.insert((at, order, place), timers.arm(at, order, place));
            match rng.below(8) {
                // Now and then nearly all are cleared, in no order.
                0 if rng.below(200) == 0 => {
                    let (mut kept, mut cleared) = (Naive::new(), naive.into_iter());
                    kept.extend(cleared.by_ref().take(3));
                    cleared.for_each(|(_, alarm)| timers.disarm(alarm));
                    naive = kept;
                }
                1..=4 => {
                    let from = (now.saturating_add(rng.next_u64() >> (64 - bits)), 0, 0);
                    if let Some((due, alarm)) = naive.range(from..).next().map(|(due, alarm)| (*due, *alarm)) {
                        naive.remove(&due);
                        timers.disarm(alarm);
                    }
                }
                5 => {
                    now = now.saturating_add(rng.next_u64() >> (64 - bits) >> rng.below(u64::from(bits)));
                    while let Some(place) = timers.pop(now) {
                        assert_eq!(naive.pop_first().map(|((.., first), _)| first), Some(place));
                    }
                    assert!(naive.first_key_value().is_none_or(|((at, ..), _)| *at > now));
                }
                _ => {}
            }
            assert_eq!(timers.first(), naive.first_key_value().map(|((at, ..), _)| *at));
            assert_eq!(timers.live, naive.len());
            assert_eq!(timers.live + timers.cleared, entries(&timers));
            assert!(timers.cleared <= timers.live + 64, "what was cleared does not pile up");
            assert!(timers.set.len() * 64 <= 2 * 20_000 + 128, "numbers are used again");
        }
    }

    #[test]
    fn it_goes_as_a_sorted_map_would() {
        for (seed, bits) in (0..).zip([2, 8, 17, 30, 37, 48, 63, 64]) {
            against_a_sorted_map(seed, bits);
        }
    }

    #[test]
    fn a_jump_of_an_hour_fires_each_once_in_order() {
        let mut timers = Timers::default();
        let mut due: Vec<(u64, u32)> =
            (0..100_000_u32).map(|place| (u64::from(place) * 7_919 % 3_600_000, place)).collect();
        for (at, place) in &due {
            timers.arm(*at, *place, *place);
        }
        due.sort_unstable();
        let fired: Vec<u32> = core::iter::from_fn(|| timers.pop(3_600_000)).collect();
        assert!(fired.iter().eq(due.iter().map(|(_, place)| place)));
        assert_eq!((timers.live, entries(&timers)), (0, 0));
    }
}
