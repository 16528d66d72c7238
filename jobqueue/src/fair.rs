//! Weighted fair scheduling: start-time fair queueing.
//!
//! After Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996: each tag of a pool is a flow, and each job
//! costs one.

use core::num::NonZeroU16;

/// The cost of one job for a tag of weight 1: large enough that any two weights differ.
const COST: u128 = 1 << 32;

/// The lag, in virtual time, beyond which more lag no longer matters.
const FORGOTTEN: u64 = 1 << 33;

/// A tag's account in one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// The virtual time of its last start, or of its arrival after it was idle.
    base: u128,
    /// Whether the job that started at `base` is still to be paid for. The weight that counts is the one when it is
    /// paid, so that another weight acts at once.
    owes: bool,
}

impl Flow {
    /// The account of a tag that has had nothing yet.
    pub(crate) const fn new(clock: u128) -> Self {
        Self { base: clock, owes: false }
    }

    /// The virtual time at which its next job starts.
    pub(crate) fn start(self, weight: NonZeroU16) -> u128 {
        let cost = if self.owes { COST / u128::from(weight.get()) } else { 0 };
        self.base + cost
    }

    /// Starts the flow again after it was idle. The share that it did not use meanwhile is lost.
    pub(crate) fn arrive(&mut self, clock: u128, weight: NonZeroU16) {
        if self.start(weight) < clock {
            *self = Self::new(clock);
        }
    }

    /// Its job that was to start then has started.
    pub(crate) const fn serve(&mut self, start: u128) {
        *self = Self { base: start, owes: true };
    }

    /// How far it is behind its pool's clock, as far as that matters, and whether it owes.
    pub(crate) fn behind(self, clock: u128) -> (u64, bool) {
        let lag = u64::try_from(clock.saturating_sub(self.base)).unwrap_or(FORGOTTEN);
        (lag.min(FORGOTTEN), self.owes)
    }

    /// The account that is so far behind a clock that has just begun, and that clock.
    pub(crate) fn of(lag: u64, owes: bool) -> (Self, u128) {
        let clock = u128::from(FORGOTTEN) * 2;
        (Self { base: clock - u128::from(lag.min(FORGOTTEN)), owes }, clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn weight(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    /// Serves `jobs` jobs among flows that never idle; returns how many each had.
    fn serve(flows: &mut [(Flow, u16)], clock: &mut u128, jobs: u32) -> Vec<u32> {
        let mut had = alloc::vec![0; flows.len()];
        for _ in 0..jobs {
            let next = (0..flows.len()).min_by_key(|at| (flows[*at].0.start(weight(flows[*at].1)), *at)).unwrap();
            let start = flows[next].0.start(weight(flows[next].1));
            *clock = (*clock).max(start);
            flows[next].0.serve(start);
            had[next] += 1;
        }
        had
    }

    #[test]
    fn shares_are_by_weight_and_weights_far_above_a_thousand_differ() {
        let mut clock = 0;
        let mut flows = [(Flow::default(), 1), (Flow::default(), 3), (Flow::default(), 6)];
        assert_eq!(serve(&mut flows, &mut clock, 10_000), [1_000, 3_000, 6_000]);
        assert!((1..u16::MAX).all(|w| COST / u128::from(w) > COST / u128::from(w + 1)), "no two weights are alike");
    }

    #[test]
    fn no_two_busy_tags_are_ever_further_apart_than_a_job_of_each() {
        // Theorem 1 of the paper: |W_a / w_a - W_b / w_b| <= 1 / w_a + 1 / w_b over any time in which both are busy.
        let weights = [1_u16, 2, 5, 40, 1_000, 1_001];
        let mut flows: Vec<(Flow, u16)> = weights.iter().map(|w| (Flow::default(), *w)).collect();
        let (mut clock, mut had) = (0, alloc::vec![0_u64; weights.len()]);
        for _ in 0..20_000 {
            for (sum, one) in had.iter_mut().zip(serve(&mut flows, &mut clock, 1)) {
                *sum += u64::from(one);
            }
            for (a, wa) in had.iter().zip(weights.map(u64::from)) {
                for (b, wb) in had.iter().zip(weights.map(u64::from)) {
                    assert!((a * wb).abs_diff(b * wa) <= wa + wb + 1, "{had:?}");
                }
            }
        }
    }

    #[test]
    fn an_idle_tag_earns_no_credit_and_a_new_weight_acts_at_once() {
        let (mut clock, mut flows) = (0, [(Flow::default(), 1), (Flow::default(), 1)]);
        serve(&mut flows[..1], &mut clock, 1_000);
        flows[1].0.arrive(clock, weight(1));
        assert_eq!(serve(&mut flows, &mut clock, 100), [50, 50], "what was not used is lost");
        flows[1].1 = 9;
        let had = serve(&mut flows, &mut clock, 100);
        assert!(had[0].abs_diff(10) <= 1, "{had:?}: but for the job that is being paid for");
    }

    #[test]
    fn an_account_is_kept_by_its_distance() {
        let (mut clock, mut flows) = (0, [(Flow::default(), 3), (Flow::default(), 7)]);
        serve(&mut flows, &mut clock, 1_001);
        let mut later = 0;
        let mut twins = flows.map(|(flow, weight)| {
            let (lag, owes) = flow.behind(clock);
            let (twin, clock) = Flow::of(lag, owes);
            later = clock;
            (twin, weight)
        });
        assert_eq!(serve(&mut flows, &mut clock, 999), serve(&mut twins, &mut later, 999));
    }
}
