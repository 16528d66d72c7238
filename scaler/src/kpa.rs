//! The Knative pod autoscaler, exactly: stable and panic windows, rates, burst capacity, activation, delayed
//! scale-down.
//!
//! The original calculates in `f64`, and so does this module, in the same order and with `libm`, so that every machine
//! gives the same bits; only its window sums are kept as integers (billionths), so that what is remembered is plain data
//! that can be compared, hashed and written down without loss. Checked against the test tables of the original
//! (`tests/conformance.rs`).
//!
//! Follows Knative Serving as of August 2026 (its main branch at 98e5ef9, after 1.19): since 2025 the scale-down delay holds
//! nothing back on a revision that nothing calls.
//!
//! Sources: `pkg/autoscaler/scaling/autoscaler.go` and `pkg/autoscaler/aggregation` of Knative Serving.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::Timestamp;
use crate::num::Milli;

/// The specification of an autoscaler.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Spec {
    /// The target load of one pod.
    pub target: f64,
    /// The capacity of one pod.
    pub total: f64,
    /// The burst that must fit on top of the load; 0 for none, below 0 for any.
    pub target_burst_capacity: f64,
    /// The ratio of wanted to ready pods from which it panics.
    pub panic_threshold: f64,
    /// The maximum growth at once, as a factor of the ready pods.
    pub max_scale_up_rate: f64,
    /// The maximum shrinking at once, as a divisor of the ready pods: 2 for half of them.
    pub max_scale_down_rate: f64,
    /// The stable window, in ms.
    pub stable_window_ms: u64,
    /// The scale-down delay in ms: the highest count holds for this long, while calls can reach the revision.
    pub scale_down_delay_ms: u64,
    /// Whether calls can reach the revision.
    pub reach: Reach,
    /// The number of pods that it starts from zero with.
    pub activation_scale: u32,
}

/// Whether calls can reach a revision. An unreachable one may go down at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Reach {
    /// Calls can reach the revision.
    #[default]
    Reachable,
    /// No call can reach the revision.
    Unreachable,
}

/// The interval of decisions, in ms: the width of a bucket of the scale-down delay.
pub const TICK_MS: u64 = 2_000;

/// The state of an autoscaler between decisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct State {
    /// The time since when it panics; `None` if it does not.
    pub panic_since: Option<Timestamp>,
    /// The highest number of pods wanted in this panic.
    pub max_panic_pods: u32,
    delay: Option<MaxWindow>,
}

/// The panic state of an autoscaler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Panic {
    /// The time since when it panics; `None` if it does not.
    pub since: Option<Timestamp>,
    /// The highest number of pods wanted in this panic.
    pub most: u32,
}

/// The result of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Scaled {
    /// The number of pods.
    pub pods: u32,
    /// The capacity left once the burst has come; below 0, requests should be buffered.
    pub excess_burst_capacity: i32,
}

impl State {
    /// A new state, with `ready` pods.
    ///
    /// With more than one it starts in panic, so that it does not shrink before it knows the load.
    #[must_use]
    pub fn new(spec: &Spec, ready: u32, now: Timestamp) -> Self {
        Self {
            panic_since: (ready > 1).then_some(now),
            max_panic_pods: ready,
            delay: (spec.scale_down_delay_ms > 0).then(|| MaxWindow::new(spec.scale_down_delay_ms, TICK_MS)),
        }
    }

    /// Decides by the averages of the stable and of the panic window.
    pub fn scale(&mut self, spec: &Spec, ready: u32, stable: f64, panic: f64, now: Timestamp) -> Scaled {
        let before = Panic { since: self.panic_since, most: self.max_panic_pods };
        let (mut wanted, after) = before.scale(spec, ready, stable, panic, now);
        (self.panic_since, self.max_panic_pods) = (after.since, after.most);
        if let Some(delay) = self.delay.as_mut().filter(|_| spec.reach == Reach::Reachable) {
            delay.record(now, i64::from(wanted));
            wanted = u32::try_from(delay.current()).unwrap_or(wanted);
        }
        Scaled { pods: wanted, excess_burst_capacity: excess(spec, ready, panic) }
    }
}

impl Panic {
    /// Decides by the averages of the stable and of the panic window, before the scale-down delay. Returns the panic
    /// state afterwards, too.
    #[must_use]
    pub fn scale(mut self, spec: &Spec, ready: u32, stable: f64, panic: f64, now: Timestamp) -> (u32, Self) {
        let pods = f64::from(ready.max(1));
        let most = libm::ceil(spec.max_scale_up_rate * pods);
        let least = match spec.reach {
            Reach::Reachable => libm::floor(pods / spec.max_scale_down_rate),
            Reach::Unreachable => 0.0,
        };
        let (by_stable, by_panic) = (libm::ceil(stable / spec.target), libm::ceil(panic / spec.target));
        let within = |wanted: f64| {
            let pods = whole(libm::fmin(libm::fmax(wanted, least), most));
            if spec.activation_scale > 1 && wanted > 0.0 { pods.max(spec.activation_scale) } else { pods }
        };
        let (stable_pods, panic_pods) = (within(by_stable), within(by_panic));
        if by_panic / pods >= spec.panic_threshold {
            self.since = Some(now);
        } else if self.since.is_some_and(|since| since.after_millis(spec.stable_window_ms) < now) {
            self = Self::default();
        }
        if self.since.is_none() {
            return (stable_pods, self);
        }
        // No shrinking in a panic.
        self.most = self.most.max(stable_pods).max(panic_pods);
        (self.most, self)
    }
}

fn excess(spec: &Spec, ready: u32, panic: f64) -> i32 {
    if spec.target_burst_capacity < 0.0 {
        return -1;
    }
    if spec.target_burst_capacity <= 0.0 {
        return 0;
    }
    let left = libm::floor(f64::from(ready) * spec.total - spec.target_burst_capacity - panic);
    #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, which is what is meant")]
    let left = left as i32;
    left
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates, as is meant")]
fn whole(value: f64) -> u32 {
    (value as u32).min(i32::MAX.unsigned_abs())
}

/// The maximum over a window of buckets (Knative's `max.TimeWindow`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MaxWindow {
    /// Bucket and value: buckets ascend, values descend.
    maxima: VecDeque<(u64, i64)>,
    buckets: u64,
    granularity_ms: u64,
}

impl MaxWindow {
    /// Whether this can be what `fresh` has become.
    pub(crate) fn fits(&self, fresh: &Self) -> bool {
        (self.buckets, self.granularity_ms) == (fresh.buckets, fresh.granularity_ms)
            && self.maxima.iter().zip(self.maxima.iter().skip(1)).all(|(a, b)| a.0 < b.0 && a.1 > b.1)
    }

    /// After the clock went back to `now`: what was recorded later counts as of now.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        let bucket = now.as_millis() / self.granularity_ms;
        let later = self.maxima.iter().filter(|(held, _)| *held >= bucket).map(|(_, value)| *value).max();
        self.maxima.retain(|(held, _)| *held < bucket);
        if let Some(value) = later {
            self.maxima.push_back((bucket, value));
        }
    }

    /// A window of `window_ms`, in buckets of `granularity_ms`.
    #[must_use]
    pub fn new(window_ms: u64, granularity_ms: u64) -> Self {
        let granularity_ms = granularity_ms.max(1);
        Self { maxima: VecDeque::new(), buckets: window_ms.div_ceil(granularity_ms), granularity_ms }
    }

    /// Records a value.
    pub fn record(&mut self, now: Timestamp, value: i64) {
        let bucket = now.as_millis() / self.granularity_ms;
        while self.maxima.front().is_some_and(|(first, _)| first.saturating_add(self.buckets) <= bucket) {
            self.maxima.pop_front();
        }
        while self.maxima.back().is_some_and(|(_, held)| *held <= value) {
            self.maxima.pop_back();
        }
        self.maxima.push_back((bucket, value));
    }

    /// The largest value as of the last record; 0 if there is none.
    #[must_use]
    pub fn current(&self) -> i64 {
        self.maxima.front().map_or(0, |(_, value)| *value)
    }
}

/// Sums in buckets of time, for averages over a window (Knative's `TimedFloat64Buckets`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Buckets {
    /// In billionths.
    sums: Vec<i64>,
    /// The first and the last bucket written.
    written: Option<(u64, u64)>,
    granularity_ms: u64,
}

impl Buckets {
    /// A window of `window_ms`, in buckets of `granularity_ms`.
    #[must_use]
    pub fn new(window_ms: u64, granularity_ms: u64) -> Self {
        let granularity_ms = granularity_ms.max(1);
        let count = usize::try_from(window_ms.div_ceil(granularity_ms)).unwrap_or(usize::MAX).clamp(1, 100_000);
        Self { sums: alloc::vec![0; count], written: None, granularity_ms }
    }

    /// Whether this can be what `fresh` has become.
    pub(crate) fn fits(&self, fresh: &Self) -> bool {
        (self.sums.len(), self.granularity_ms) == (fresh.sums.len(), fresh.granularity_ms)
            && self.written.is_none_or(|(first, last)| first <= last)
    }

    /// After the clock went back to `now`: what was recorded later cannot be placed, and is forgotten.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        let bucket = now.as_millis() / self.granularity_ms;
        if self.written.is_some_and(|(_, last)| last > bucket) {
            self.sums.fill(0);
            self.written = None;
        }
    }

    fn window(&self) -> u64 {
        self.sums.len() as u64
    }

    fn slot(&self, bucket: u64) -> usize {
        usize::try_from(bucket % self.window()).unwrap_or(0)
    }

    /// Adds a value to its bucket. A value from before the window is dropped.
    pub fn record(&mut self, at: Timestamp, value: f64) {
        self.add(at, billionths(value));
    }

    /// Adds so many thousandths to their bucket; those from before the window are dropped.
    pub(crate) fn record_milli(&mut self, at: Timestamp, value: Milli) {
        self.add(at, value.as_thousandths().saturating_mul(1_000_000));
    }

    fn add(&mut self, at: Timestamp, value: i64) {
        let bucket = at.as_millis() / self.granularity_ms;
        let (mut first, mut last) = self.written.unwrap_or((bucket, bucket));
        if bucket.saturating_add(self.window()) <= last {
            return;
        }
        first = first.min(bucket);
        if bucket > last {
            if bucket - last >= self.window() {
                first = bucket;
                self.sums.fill(0);
            } else {
                for lost in last + 1..=bucket {
                    let slot = self.slot(lost);
                    self.sums[slot] = 0;
                }
            }
            last = bucket;
        }
        let slot = self.slot(bucket);
        self.sums[slot] = self.sums[slot].saturating_add(value);
        self.written = Some((first, last));
    }

    /// The average over the buckets of the window that have been written to, to six digits.
    #[must_use]
    pub fn average(&self, now: Timestamp) -> f64 {
        libm::round(self.exact_average(now) * 1e6) / 1e6
    }

    /// The average over the window, in millionths.
    pub(crate) fn average_millionths(&self, now: Timestamp) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, which is what is meant")]
        let millionths = libm::round(self.exact_average(now) * 1e6) as i64;
        millionths
    }

    fn exact_average(&self, now: Timestamp) -> f64 {
        let Some((first, last)) = self.written else { return 0.0 };
        let bucket = now.as_millis() / self.granularity_ms;
        let passed = bucket.saturating_sub(last);
        if passed >= self.window() {
            return 0.0;
        }
        let total: i128 = self.sums.iter().map(|sum| i128::from(*sum)).sum();
        let gone: i128 =
            (1..=passed).map(|ago| last + ago).map(|bucket| i128::from(self.sums[self.slot(bucket)])).sum();
        let count = (last - first + 1).min(self.window() - passed);
        #[expect(clippy::cast_precision_loss, reason = "an average to six digits")]
        let left = (total - gone) as f64;
        left / 1e9 / float(count)
    }

    /// The weighted average, in which each older bucket counts `1 - coefficient` times the next.
    #[must_use]
    pub fn weighted_average(&self, now: Timestamp, coefficient: f64) -> f64 {
        let Some((_, last)) = self.written else { return 0.0 };
        let passed = (now.as_millis() / self.granularity_ms).saturating_sub(last);
        if passed > self.window() {
            return 0.0;
        }
        let mut weight = coefficient;
        if passed > 0 {
            weight *= libm::pow(1.0 - coefficient, float(passed));
        }
        let mut sum = 0.0;
        for back in 0..self.window() - passed {
            #[expect(clippy::cast_precision_loss, reason = "the original calculates in floats")]
            let held = self.sums[self.slot(last % self.window() + self.window() - back)] as f64;
            sum += held / 1e9 * weight;
            weight *= 1.0 - coefficient;
        }
        sum
    }
}

/// The weight of the newest bucket with which `buckets` of them weigh `precision` together; not below `minimum`.
///
/// ```
/// use tenon_scaler::kpa::smoothing_coefficient;
///
/// assert!(smoothing_coefficient(60, 0.9999, 0.2) >= 0.2);
/// ```
#[must_use]
pub fn smoothing_coefficient(buckets: u32, precision: f64, minimum: f64) -> f64 {
    libm::fmax(1.0 - libm::pow(1.0 - precision, 1.0 / f64::from(buckets)), minimum)
}

fn billionths(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, which is what is meant")]
    let billionths = libm::round(value * 1e9) as i64;
    billionths
}

#[expect(clippy::cast_precision_loss, reason = "the original calculates so")]
fn float(value: u64) -> f64 {
    value as f64
}
