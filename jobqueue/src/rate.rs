//! Rates: how often something may happen, as a token bucket that fills by the clock.

use core::num::NonZeroU32;

use crate::time::Timestamp;

/// A rate: this many jobs per period.
///
/// At most `jobs` go at once, then one by one as time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rate {
    /// The number of jobs.
    pub jobs: NonZeroU32,
    /// The period in milliseconds.
    pub per_ms: NonZeroU32,
}

impl Rate {
    /// The rate, unless one of the numbers is 0.
    ///
    /// ```
    /// use tenon_jobqueue::Rate;
    ///
    /// let rate = Rate::new(10, 1_000).expect("neither number is 0"); // ten jobs a second
    /// assert_eq!((rate.jobs.get(), rate.per_ms.get()), (10, 1_000));
    /// assert_eq!(Rate::new(0, 1_000), None);
    /// ```
    #[must_use]
    pub fn new(jobs: u32, per_ms: u32) -> Option<Self> {
        Some(Self { jobs: NonZeroU32::new(jobs)?, per_ms: NonZeroU32::new(per_ms)? })
    }

    fn cost(self) -> u64 {
        u64::from(self.per_ms.get())
    }

    fn speed(self) -> u64 {
        u64::from(self.jobs.get())
    }
}

/// The state of a rate's bucket.
///
/// A millisecond brings as many drops as the rate has jobs, and a job takes as many as the rate has milliseconds, so
/// that nothing is ever rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Bucket {
    /// Drops that were missing from a full bucket at `at`.
    missing: u64,
    at: Timestamp,
}

impl Bucket {
    fn missing(self, now: Timestamp, rate: Rate) -> u64 {
        let full = rate.cost().saturating_mul(rate.speed());
        let filled = now.millis_since(self.at).saturating_mul(rate.speed());
        self.missing.min(full).saturating_sub(filled)
    }

    /// A bucket that lacked so much at that time.
    pub(crate) const fn of(missing: u64, at: Timestamp) -> Self {
        Self { missing, at }
    }

    /// The missing drops, and the time at which they were missing.
    pub(crate) const fn parts(self) -> (u64, Timestamp) {
        (self.missing, self.at)
    }

    /// Moves drops that were taken at a time that has not come to now.
    pub(crate) fn step_back(&mut self, now: Timestamp) {
        self.at = self.at.min(now);
    }

    /// How many jobs may go now.
    pub(crate) fn room(self, now: Timestamp, rate: Rate) -> u32 {
        let full = rate.cost().saturating_mul(rate.speed());
        u32::try_from((full - self.missing(now, rate)) / rate.cost()).unwrap_or(u32::MAX)
    }

    /// One job goes.
    pub(crate) fn take(&mut self, now: Timestamp, rate: Rate) {
        self.take_all(now, rate, 1);
    }

    /// Takes the drops of this many jobs.
    pub(crate) fn take_all(&mut self, now: Timestamp, rate: Rate, jobs: u32) {
        self.missing = self.missing(now, rate).saturating_add(rate.cost().saturating_mul(u64::from(jobs)));
        self.at = now;
    }

    /// When the next job may go, if none may now.
    pub(crate) fn ready_at(self, now: Timestamp, rate: Rate) -> Timestamp {
        let full = rate.cost().saturating_mul(rate.speed());
        let excess = self.missing(now, rate).saturating_add(rate.cost()).saturating_sub(full);
        now.after_millis(excess.div_ceil(rate.speed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_sees_more_than_two_buckets_and_the_long_run_sees_the_rate() {
        for (jobs, per_ms) in [(1, 1_000), (3, 1_000), (7, 13), (1_000, 1), (u32::MAX, u32::MAX)] {
            let rate = Rate::new(jobs, per_ms).unwrap();
            let (mut bucket, mut now, mut went) = (Bucket::default(), Timestamp::from_millis(5), 0_u64);
            let start = now;
            assert_eq!(bucket.room(now, rate), jobs, "full at first");
            for _ in 0..2_000 {
                if bucket.room(now, rate) == 0 {
                    let ready = bucket.ready_at(now, rate);
                    assert!(ready > now);
                    assert_eq!(bucket.room(Timestamp::from_millis(ready.as_millis() - 1), rate), 0, "not before");
                    now = ready;
                }
                assert!(bucket.room(now, rate) > 0);
                bucket.take(now, rate);
                went += 1;
                let allowed = u64::from(jobs) + now.millis_since(start) * u64::from(jobs) / u64::from(per_ms);
                assert!(went <= allowed, "{went} of {allowed}");
            }
        }
        assert_eq!(Rate::new(0, 1), None);
    }
}
