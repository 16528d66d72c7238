//! Chance from a seed: the same seed gives the same day.

/// A small generator (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// A generator of its own for each part of the world, so that one part's draws do not move another's.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let mut chance = Self(seed ^ part.wrapping_mul(0xa076_1d64_78bd_642f));
        chance.next();
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number of `from..to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from))
    }

    /// A place in a list of `len`.
    pub(crate) fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Whether something happens that has so many chances in a thousand.
    pub(crate) fn permille(&mut self, of: u64) -> bool {
        self.below(1_000) < of
    }

    /// A place in `0..count` by Zipf's law with exponent 1: a few are asked for all the time, most hardly ever.
    pub(crate) fn zipf(&mut self, count: u64) -> u64 {
        // By inversion of the harmonic sum's logarithm.
        #[allow(clippy::cast_precision_loss, reason = "a rank")]
        let (unit, count_f) = ((self.next() >> 11) as f64 / 9_007_199_254_740_992.0, count as f64);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below the count")]
        let rank = ((count_f + 1.0).powf(unit) - 1.0) as u64;
        rank.min(count.saturating_sub(1))
    }
}
