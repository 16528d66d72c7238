//! The Knative pod autoscaler as a rule among others: the rule remembers its windows, its panic and its delay.

use super::Verdict;
use crate::Timestamp;
use crate::error::PolicyError;
use crate::id::RuleId;
use crate::kpa::{Buckets, MaxWindow, Panic, Reach, Spec, TICK_MS};
use crate::metric::Sample;
use crate::num::Milli;

/// A metric rule that sizes a group by concurrency or requests a second, as the Knative pod autoscaler does.
///
/// Its metric is the total over all instances; samples are averaged in buckets of [`Kpa::sample_ms`], in which there
/// should be one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Kpa {
    /// The target load of one instance.
    pub target: Milli,
    /// The capacity of one instance.
    pub total: Milli,
    /// The burst that must fit on top of the load; 0 for none, below 0 for any.
    pub target_burst_capacity: Milli,
    /// The ratio of wanted to ready instances from which it panics, in thousandths.
    pub panic_permille: u32,
    /// The maximum growth at once, as a factor of the ready instances, in thousandths.
    pub up_permille: u32,
    /// The maximum shrinking at once, as a divisor of the ready instances, in thousandths: 2,000 for half of them.
    pub down_permille: u32,
    /// The stable window, in ms: from six seconds to an hour.
    pub stable_window_ms: u32,
    /// The panic window, in ms: within the stable one.
    pub panic_window_ms: u32,
    /// The sampling interval, in ms: from a tenth of a second up to the panic window.
    pub sample_ms: u32,
    /// The scale-down delay in ms, at most an hour: the highest count holds for this long.
    pub scale_down_delay_ms: u32,
    /// The number of instances that it starts from zero with.
    pub activation_scale: u32,
    /// Whether calls can reach the group.
    pub reach: Reach,
}

impl Kpa {
    /// A rule with the defaults of the original.
    ///
    /// A stable window of a minute and a panic window of a tenth of it, panic at twice the ready instances, growth up
    /// to a thousandfold, shrinking to a half.
    #[must_use]
    pub const fn new(target: Milli, total: Milli) -> Self {
        Self {
            target,
            total,
            target_burst_capacity: Milli::from_units(211),
            panic_permille: 2_000,
            up_permille: 1_000_000,
            down_permille: 2_000,
            stable_window_ms: 60_000,
            panic_window_ms: 6_000,
            sample_ms: 1_000,
            scale_down_delay_ms: 0,
            activation_scale: 1,
            reach: Reach::Reachable,
        }
    }

    pub(super) fn check(&self, rule: RuleId) -> Result<(), PolicyError> {
        let sound = self.target > Milli::ZERO
            && self.up_permille > 1_000
            && self.down_permille > 1_000
            && self.panic_permille >= 1_000
            && (6_000..=HOUR_MS).contains(&self.stable_window_ms)
            && (100..=self.panic_window_ms).contains(&self.sample_ms)
            && self.panic_window_ms <= self.stable_window_ms
            && self.scale_down_delay_ms <= HOUR_MS;
        if sound { Ok(()) } else { Err(PolicyError::Kpa(rule)) }
    }

    fn spec(&self) -> Spec {
        let milli = |value: Milli| {
            #[expect(clippy::cast_precision_loss, reason = "the original calculates in floats")]
            let value = value.as_thousandths() as f64;
            value / 1000.0
        };
        let permille = |value: u32| f64::from(value) / 1000.0;
        Spec {
            target: milli(self.target),
            total: milli(self.total),
            target_burst_capacity: milli(self.target_burst_capacity),
            panic_threshold: permille(self.panic_permille),
            max_scale_up_rate: permille(self.up_permille),
            max_scale_down_rate: permille(self.down_permille),
            stable_window_ms: u64::from(self.stable_window_ms),
            scale_down_delay_ms: u64::from(self.scale_down_delay_ms),
            reach: self.reach,
            activation_scale: self.activation_scale,
        }
    }
}

const HOUR_MS: u32 = 3_600_000;

/// The memory of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Memory {
    stable: Buckets,
    burst: Buckets,
    panic: Panic,
    delay: Option<MaxWindow>,
    /// When the newest sample in the windows was taken.
    last: Option<Timestamp>,
}

impl Memory {
    /// A fresh one, with `ready` instances: it starts in panic over more than one, so that it does not shrink what it
    /// does not know yet.
    pub(crate) fn new(rule: &Kpa, ready: u32, now: Timestamp) -> Self {
        let window = |ms: u32| Buckets::new(u64::from(ms), u64::from(rule.sample_ms));
        Self {
            stable: window(rule.stable_window_ms),
            burst: window(rule.panic_window_ms),
            panic: Panic { since: (ready > 1).then_some(now), most: ready },
            delay: (rule.scale_down_delay_ms > 0).then(|| MaxWindow::new(u64::from(rule.scale_down_delay_ms), TICK_MS)),
            last: None,
        }
    }

    /// After the clock went back to `now`: nothing that is remembered is later.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        self.last = self.last.map(|last| last.min(now));
        self.panic.since = self.panic.since.map(|since| since.min(now));
        self.stable.rewind(now);
        self.burst.rewind(now);
        if let Some(delay) = &mut self.delay {
            delay.rewind(now);
        }
    }

    /// Takes a sample in, if it is a new one.
    pub(crate) fn observe(&mut self, sample: Sample) {
        if self.last.is_none_or(|last| sample.at > last) {
            self.stable.record_milli(sample.at, sample.value);
            self.burst.record_milli(sample.at, sample.value);
            self.last = Some(sample.at);
        }
    }

    /// Reads `value` where there is no sample, once a bucket.
    pub(crate) fn assume(&mut self, rule: &Kpa, value: Milli, now: Timestamp) {
        if self.last.is_none_or(|last| now >= last.after_millis(u64::from(rule.sample_ms))) {
            self.observe(Sample { at: now, value, over: 0 });
        }
    }

    /// Decides by the windows as they stand.
    pub(crate) fn decide(&mut self, rule: &Kpa, ready: u32, now: Timestamp) -> KpaEvidence {
        let mut evidence = KpaEvidence {
            rule: *rule,
            ready,
            stable_millionths: self.stable.average_millionths(now),
            panic_millionths: self.burst.average_millionths(now),
            before: self.panic,
            at: now,
            held: 0,
        };
        let (wanted, after) = evidence.scale();
        self.panic = after;
        if let Some(delay) = self.delay.as_mut().filter(|_| rule.reach == Reach::Reachable) {
            delay.record(now, i64::from(wanted));
            evidence.held = u32::try_from(delay.current()).unwrap_or(0);
        }
        evidence
    }

    pub(crate) fn is_sound(&self, rule: &Kpa) -> bool {
        let fresh = Self::new(rule, 0, Timestamp::ZERO);
        self.stable.fits(&fresh.stable)
            && self.burst.fits(&fresh.burst)
            && match (&self.delay, &fresh.delay) {
                (None, None) => true,
                (Some(delay), Some(fresh)) => delay.fits(fresh),
                _ => false,
            }
    }
}

/// The numbers that the verdict follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KpaEvidence {
    /// The rule.
    pub rule: Kpa,
    /// The number of instances that served.
    pub ready: u32,
    /// The average over the stable window, in millionths.
    pub stable_millionths: i64,
    /// The average over the panic window, in millionths.
    pub panic_millionths: i64,
    /// The panic state before the decision.
    pub before: Panic,
    /// The time of the decision.
    pub at: Timestamp,
    /// The highest count wanted within the scale-down delay; 0 without one.
    pub held: u32,
}

impl KpaEvidence {
    fn scale(&self) -> (u32, Panic) {
        let average = |millionths: i64| {
            #[expect(clippy::cast_precision_loss, reason = "the original calculates in floats")]
            let millionths = millionths as f64;
            millionths / 1e6
        };
        let (stable, panic) = (average(self.stable_millionths), average(self.panic_millionths));
        self.before.scale(&self.rule.spec(), self.ready, stable, panic, self.at)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::Want(self.scale().0.max(self.held))
    }
}
