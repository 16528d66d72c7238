//! Wait times: a histogram that forgets.

use alloc::vec::Vec;

/// Buckets in an octave, as a power of two: what is read back is at most a quarter too large.
const FINE: u32 = 2;
/// Waits beyond 2^32 ms, some 50 days, are counted as that.
const BUCKETS: usize = 128;
/// At so many waits, all counts are halved: the newest few thousand speak loudest.
const MANY: u32 = 8_192;

/// The waits of late, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    counts: Vec<u16>,
    total: u32,
}

fn bucket(ms: u64) -> usize {
    let ms = u32::try_from(ms).unwrap_or(u32::MAX);
    if ms < 1 << FINE {
        return ms as usize;
    }
    let octave = ms.ilog2();
    let within = (ms >> (octave - FINE)) - (1 << FINE);
    (((octave - FINE + 1) << FINE) + within) as usize
}

/// The largest wait of a bucket.
fn limit(bucket: usize) -> u64 {
    let (high, low) = (bucket >> FINE, bucket as u64 & ((1 << FINE) - 1));
    match high {
        0 => low,
        high => ((((1 << FINE) + low + 1) << (high - 1)) - 1).min(u64::from(u32::MAX)),
    }
}

impl Waits {
    pub(crate) fn add(&mut self, ms: u64) {
        if self.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
        }
        if self.total >= MANY {
            self.total = 0;
            for count in &mut self.counts {
                *count /= 2;
                self.total += u32::from(*count);
            }
        }
        if let Some(count) = self.counts.get_mut(bucket(ms)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// Within what time so many percent of them went.
    pub(crate) fn quantile(&self, percent: u8) -> Option<u64> {
        let wanted = (u64::from(self.total) * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        found.map(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn a_quantile_is_at_most_a_quarter_too_large() {
        for ms in (0..70_000).chain([1 << 31, (1 << 32) - 1]) {
            let told = limit(bucket(ms));
            assert!(told >= ms && told <= ms + ms / 4, "{ms} is told as {told}");
        }
        assert_eq!(limit(bucket(1 << 40)), (1 << 32) - 1);
        let (mut waits, mut rng) = (Waits::default(), Rng::new(1));
        let mut all: Vec<u64> = (0..8_000).map(|_| rng.below(1_000) * rng.below(1_000)).collect();
        for ms in &all {
            waits.add(*ms);
        }
        all.sort_unstable();
        for percent in [1, 50, 90, 99, 100] {
            let exact = all[(8_000 * usize::from(percent)).div_ceil(100) - 1];
            let told = waits.quantile(percent).unwrap();
            assert!(told >= exact && told <= exact + exact / 4, "{percent}: {exact} is told as {told}");
        }
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut waits = Waits::default();
        assert_eq!(waits.quantile(50), None);
        for _ in 0..100_000 {
            waits.add(1_000_000);
        }
        for _ in 0..40_000 {
            waits.add(3);
        }
        assert_eq!(waits.quantile(90), Some(3));
    }
}
