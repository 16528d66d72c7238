//! What a rehearsal comes to: time short, amount not served, pod-time; beside a fixed fleet and the replicas of then.

use serde::Serialize;

use super::binding::{Binding, Demand, RecordedReader, RecordedSeries};
use super::world::seconds;
use super::{Change, Plant};
use crate::quantity::float;

/// Sums over the time after the warm-up; seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Sums {
    /// How long is counted.
    pub(crate) seconds: f64,
    /// Pod-seconds, from creation to gone.
    pub(crate) pod_seconds: f64,
    /// How long the demand was above what ready pods carry; `None` where no capacity is known.
    pub(crate) short_seconds: Option<f64>,
    /// The demand that was not served, in its unit times seconds.
    pub(crate) unserved: Option<f64>,
    /// The demand as a whole, in its unit times seconds.
    pub(crate) demanded: Option<f64>,
    pub(crate) changes: u64,
    pub(crate) flaps: u64,
    /// Pods that were created.
    pub(crate) starts: u64,
    /// The most pods at one time.
    pub(crate) peak: u32,
    /// The smallest fleet of a fixed size that is never short.
    pub(crate) fixed: Option<Fleets>,
    /// The replicas of then.
    pub(crate) recorded: Option<Fleets>,
}

/// What another fleet comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Fleets {
    pub(crate) pod_seconds: f64,
    pub(crate) short_seconds: f64,
    pub(crate) peak: u32,
}

/// What is known of pods besides how many there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives {
    /// Pods that were created.
    pub(super) started: u64,
    pub(super) peak: u32,
    /// When each pod that was removed is gone.
    pub(super) going: Vec<u64>,
}

/// Counts on the way.
pub(super) struct Meter<'a> {
    demand: Option<Demand<'a>>,
    capacity: Option<f64>,
    recorded: Option<RecordedReader<'a>>,
    is_linear: bool,
    from: u64,
    sums: Sums,
    most: f64,
    of_recorded: Fleets,
}

/// A straight line is followed in steps of this many ms.
const FINE_MS: u64 = 15_000;

impl<'a> Meter<'a> {
    pub(super) fn new(binding: &'a Binding, plant: &Plant) -> Self {
        let demand = binding.demand_reader();
        let capacity = binding.capacity.filter(|capacity| *capacity > 0.0);
        let is_linear = binding
            .demand
            .and_then(|place| binding.inputs[place].as_ref())
            .is_some_and(|bound| bound.series.between == crate::trace::Between::Linear);
        let zero = (demand.is_some() && capacity.is_some()).then_some(0.0);
        Self {
            is_linear,
            capacity,
            recorded: binding.recorded.as_ref().map(RecordedSeries::reader),
            from: plant.from.saturating_add(plant.warm_up_ms).min(plant.until),
            sums: Sums {
                short_seconds: zero,
                unserved: zero,
                demanded: demand.as_ref().map(|_| 0.0),
                ..Sums::default()
            },
            demand,
            most: 0.0,
            of_recorded: Fleets::default(),
        }
    }

    /// The next instant after `now` at which what is counted may change.
    pub(super) fn next_change(&mut self, now: u64) -> u64 {
        let mut next = if now < self.from { self.from } else { u64::MAX };
        if let Some(demand) = &mut self.demand {
            next = next.min(demand.next_change(now));
            if self.is_linear {
                next = next.min(now + FINE_MS);
            }
        }
        if let Some(recorded) = &mut self.recorded {
            next = next.min(recorded.next_change(now));
        }
        next
    }

    /// Counts the time from `from` to `until`, in which nothing changes.
    pub(super) fn count(&mut self, from: u64, until: u64, size: u32, ready: u32) {
        if from < self.from {
            return;
        }
        let span = seconds(until - from);
        self.sums.seconds += span;
        self.sums.pod_seconds += float(size) * span;
        let recorded = self.recorded.as_mut().and_then(|recorded| recorded.value(from));
        if let Some(count) = recorded {
            self.of_recorded.pod_seconds += count * span;
            self.of_recorded.peak = self.of_recorded.peak.max(whole(count));
        }
        let Some(load) = self.demand.as_mut().and_then(|demand| demand.value(from)) else { return };
        self.sums.demanded = self.sums.demanded.map(|sum| sum + load * span);
        let Some(capacity) = self.capacity else { return };
        self.most = self.most.max(load / capacity);
        let short = |carried: f64| (load - carried * capacity).max(0.0);
        // What is a rounding error above is not short.
        let slack = load.abs() * 1e-9;
        let missing = short(float(ready));
        if missing > slack {
            self.sums.short_seconds = self.sums.short_seconds.map(|sum| sum + span);
            self.sums.unserved = self.sums.unserved.map(|sum| sum + missing * span);
        }
        if recorded.is_some_and(|count| short(count) > slack) {
            self.of_recorded.short_seconds += span;
        }
    }

    pub(super) fn finish(mut self, changes: &[Change], lives: &Lives, plant: &Plant) -> Sums {
        let counted = || changes.iter().filter(|change| change.at >= self.from);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.sums.changes = count(counted().count());
        let flips = changes.windows(2).filter(|two| {
            let (first, second) = (&two[0], &two[1]);
            let turned = (first.after > first.before) != (second.after > second.before);
            second.at >= self.from && turned && second.at - first.at <= plant.flap_ms
        });
        self.sums.flaps = count(flips.count());
        (self.sums.starts, self.sums.peak) = (lives.started, lives.peak);
        for gone in &lives.going {
            let since = gone.saturating_sub(plant.stop_ms).max(self.from);
            self.sums.pod_seconds += seconds((*gone).min(plant.until).saturating_sub(since));
        }
        if self.capacity.is_some() && self.demand.is_some() {
            let size = whole((self.most - 1e-9).ceil()).max(1);
            let pod_seconds = float(size) * self.sums.seconds;
            self.sums.fixed = Some(Fleets { pod_seconds, short_seconds: 0.0, peak: size });
        }
        self.sums.recorded = self.recorded.is_some().then_some(self.of_recorded);
        self.sums
    }
}

fn whole(value: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates, as is meant")]
    let whole = value as u32;
    whole
}
