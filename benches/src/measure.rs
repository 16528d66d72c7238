//! Medians, interleaved comparisons, and counts that a noisy machine cannot disturb.

use std::time::Instant;

/// How much work a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The sizes the bounds speak of.
    Full,
    /// A tenth or less, for a look; rows say so in their note.
    Quick,
}

impl Scale {
    /// `full` at full scale, `quick` otherwise.
    #[must_use]
    pub const fn pick(self, full: usize, quick: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// What an interleaved comparison found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Median of the subject, in nanoseconds an operation.
    pub subject_ns: f64,
    /// Median of the peer, in nanoseconds an operation.
    pub peer_ns: f64,
    /// Median of the ratios of neighbouring rounds, subject over peer.
    pub ratio: f64,
}

/// The median time of one operation in nanoseconds: `rounds` rounds, each of which runs `work` once and says by its
/// return value how many operations that was. One round before them warms up and is not counted.
pub fn median_ns(rounds: usize, mut work: impl FnMut() -> usize) -> f64 {
    timed(&mut work);
    median((0..rounds.max(1)).map(|_| timed(&mut work)).collect())
}

/// Runs subject and peer in turns, so that what disturbs the machine disturbs both, and compares neighbouring rounds.
pub fn interleave(rounds: usize, mut subject: impl FnMut() -> usize, mut peer: impl FnMut() -> usize) -> Pair {
    timed(&mut subject);
    timed(&mut peer);
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for round in 0..rounds.max(1) {
        // Who goes first changes, so that neither always runs on the other's warm cache.
        if round % 2 == 0 {
            ours.push(timed(&mut subject));
            theirs.push(timed(&mut peer));
        } else {
            theirs.push(timed(&mut peer));
            ours.push(timed(&mut subject));
        }
    }
    let ratio = median(ours.iter().zip(&theirs).map(|(our, their)| our / their).collect());
    Pair { subject_ns: median(ours), peer_ns: median(theirs), ratio }
}

/// Allocations that `work` makes.
pub fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

/// Bytes that the allocator was asked for by `build` and that its result still holds.
pub fn bytes_held<T>(build: impl FnOnce() -> T) -> (T, i64) {
    let mut kept = None;
    let counted = allocation_counter::measure(|| kept = Some(build()));
    let Some(kept) = kept else { unreachable!("measure() runs its closure once") };
    (kept, counted.bytes_current)
}

/// The most bytes that `work` had from the allocator at one time.
pub fn bytes_peak<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let mut kept = None;
    let counted = allocation_counter::measure(|| kept = Some(work()));
    let Some(kept) = kept else { unreachable!("measure() runs its closure once") };
    (kept, counted.bytes_max)
}

fn timed(work: &mut impl FnMut() -> usize) -> f64 {
    let start = Instant::now();
    let operations = std::hint::black_box(work());
    let spent = start.elapsed();
    spent.as_secs_f64() * 1e9 / f64::from(u32::try_from(operations.max(1)).unwrap_or(u32::MAX))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::{allocations, bytes_held, median};

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_allocated_is_counted() {
        assert_eq!(allocations(|| ()), 0);
        let (kept, bytes) = bytes_held(|| vec![0_u8; 4096]);
        assert_eq!(bytes, 4096);
        assert_eq!(kept.len(), 4096);
    }
}
