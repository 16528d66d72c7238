//! Tallies: samples summed up, and the arithmetic from the sums to a count, as in the second half of the original's
//! `replica_calculator.go`.
//!
//! The sums are all that a proposal follows from, so that the record of one holds them rather than every pod.

use super::propose::{Doubt, count, sort_out};
use super::{Kind, Metric, MetricError, PodSample, Pods, Proposal, Tolerance};
use crate::Timestamp;
use crate::num::Milli;

/// The measured use of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Usage {
    /// The use of pods.
    Pods(Tally),
    /// The value of an object, or an external one, as it is.
    Value {
        /// The measured value, in thousandths.
        usage: i64,
        /// The number of ready pods; `None` if there is no pod.
        ready: Option<i64>,
    },
    /// The value of an object, or an external one, divided by the number of replicas.
    AverageValue {
        /// The measured value, in thousandths.
        usage: i64,
        /// The number of replicas that exist.
        replicas: u32,
    },
}

/// Samples of pods, summed by how the pods count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tally {
    /// The use of the pods that count, in thousandths.
    pub used: i64,
    /// The requests of the pods that count: thousandths for a utilisation, one each for an average.
    pub requested: i64,
    /// The number of their samples that belong to known pods.
    pub known: i64,
    /// The number of samples that count.
    pub counted: i64,
    /// The number of pods that are ready and measured.
    pub ready: i64,
    /// The pods that were not measured.
    pub missing: Uncounted,
    /// The pods that are not ready.
    pub unready: Uncounted,
}

/// Pods whose use is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Uncounted {
    /// The number of pods.
    pub pods: i64,
    /// The requests of these pods.
    pub requested: i64,
    /// The use that is assumed for these pods when the others would have the group shrink.
    pub feared: i64,
}

/// Sums up what was measured of `pods`.
pub(crate) fn tally(
    doubt: Doubt,
    metric: &Metric,
    pods: Pods<'_>,
    samples: &[PodSample],
    now: Timestamp,
) -> Result<Tally, MetricError> {
    if pods.0.is_empty() {
        return Err(MetricError::NoPods);
    }
    let by_request = metric.is_utilization();
    let classes = sort_out(doubt, metric.kind, pods, samples, now);
    // Utilisation is over what known pods request; an average is over whatever was measured.
    let request =
        |pod: u32| if by_request { pods.get(pod).and_then(|pod| pod.requests.get(metric.resource)) } else { Some(1) };
    let mut tally = Tally { ready: count(classes.ready), ..Tally::default() };
    for sample in samples {
        if classes.ignored.contains(&sample.pod) || classes.unready.contains(&sample.pod) {
            continue;
        }
        tally.counted += 1;
        if let Some(requested) = request(sample.pod) {
            tally.used = tally.used.saturating_add(sample.value);
            tally.requested = tally.requested.saturating_add(requested);
            tally.known += 1;
        }
    }
    if tally.counted == 0 {
        return Err(MetricError::NoReadyPods);
    }
    if by_request && let Some(pod) = pods.0.iter().find(|pod| pod.requests.get(metric.resource).is_none()) {
        return Err(MetricError::NoRequest(pod.id));
    }
    for (of, part) in [(&classes.missing, &mut tally.missing), (&classes.unready, &mut tally.unready)] {
        for pod in of {
            let requested = request(*pod).unwrap_or(0);
            // Shrinking: all that it requests, or all that it is meant to use.
            let feared =
                if by_request { requested.saturating_mul(metric.target.max(100)) / 100 } else { metric.target };
            part.pods += 1;
            part.requested = part.requested.saturating_add(requested);
            part.feared = part.feared.saturating_add(feared);
        }
    }
    Ok(tally)
}

impl Metric {
    /// Whether it is measured of each pod.
    pub(crate) fn is_of_pods(&self) -> bool {
        !matches!(self.kind, Kind::Value | Kind::AverageValue)
    }

    pub(crate) fn is_utilization(&self) -> bool {
        matches!(self.kind, Kind::CpuUtilization | Kind::Utilization)
    }
}

impl Usage {
    /// The ratio of use to target use, before pods whose use is not known; `None` if there is no such ratio.
    pub(crate) fn ratio(&self, metric: &Metric) -> Option<f64> {
        let ratio = match *self {
            Self::Pods(tally) => tally.ratio(metric).ok()?.0,
            Self::Value { usage, .. } => float(usage) / float(metric.target),
            Self::AverageValue { usage, replicas } => float(usage) / (float(metric.target) * f64::from(replicas)),
        };
        Some(ratio)
    }

    /// The proposal for a group of `current` replicas.
    ///
    /// # Errors
    ///
    /// A [`MetricError`]: there is no proposal then.
    pub fn propose(&self, metric: &Metric, tolerance: Tolerance, current: u32) -> Result<Proposal, MetricError> {
        match *self {
            Self::Pods(tally) => tally.propose(metric, tolerance, current),
            Self::Value { usage, ready } => {
                let ratio = float(usage) / float(metric.target);
                let replicas = if current == 0 {
                    ceil(ratio)
                } else if tolerance.holds(ratio) {
                    current
                } else {
                    ceil(ratio * float(ready.ok_or(MetricError::NoPods)?))
                };
                Ok(Proposal { replicas, utilization_percent: None, usage })
            }
            Self::AverageValue { usage, replicas: held } => {
                let replicas = f64::from(held);
                let ratio = float(usage) / (float(metric.target) * replicas);
                let wanted = if tolerance.holds(ratio) { held } else { ceil(float(usage) / float(metric.target)) };
                let each = i64::from(ceil(float(usage) / replicas));
                Ok(Proposal { replicas: wanted, utilization_percent: None, usage: each })
            }
        }
    }
}

impl Tally {
    /// The use of `pods` equal pods, of which only the average is known.
    ///
    /// A utilisation is in parts of their requests.
    pub(crate) fn even(metric: &Metric, average: Milli, pods: u32) -> Result<Self, MetricError> {
        if pods == 0 {
            return Err(MetricError::NoPods);
        }
        let pods = i64::from(pods);
        let requested = if metric.is_utilization() { pods.saturating_mul(1000) } else { pods };
        let used = average.as_thousandths().saturating_mul(pods);
        Ok(Self { used, requested, known: pods, counted: pods, ready: pods, ..Self::default() })
    }

    fn propose(mut self, metric: &Metric, tolerance: Tolerance, current: u32) -> Result<Proposal, MetricError> {
        let by_request = metric.is_utilization();
        let (ratio, measured) = self.ratio(metric)?;
        let usage = self.used / self.known.max(1);
        let utilization_percent = by_request.then_some(measured);
        let proposal = |replicas: u32| Proposal { replicas, utilization_percent, usage };
        let stay = Ok(proposal(current));
        let with_unready = self.unready.pods > 0 && ratio > 1.0;
        if !with_unready && self.missing.pods == 0 {
            if tolerance.holds(ratio) {
                return stay;
            }
            return Ok(proposal(ceil(ratio * float(self.ready))));
        }
        let missing = self.missing;
        if ratio < 1.0 {
            self.count_in(missing, missing.feared);
        } else if ratio > 1.0 {
            self.count_in(missing, 0);
        }
        if with_unready {
            self.count_in(self.unready, 0);
        }
        let (again, _) = self.ratio(metric)?;
        let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
        if tolerance.holds(again) || turned {
            return stay;
        }
        let replicas = ceil(again * float(self.counted));
        if (again < 1.0 && replicas > current) || (again > 1.0 && replicas < current) {
            return stay;
        }
        Ok(proposal(replicas))
    }

    fn count_in(&mut self, part: Uncounted, used: i64) {
        self.counted = self.counted.saturating_add(part.pods);
        self.requested = self.requested.saturating_add(part.requested);
        self.used = self.used.saturating_add(used);
    }

    /// The ratio to the target, and the whole per cent or the average that it is taken of.
    fn ratio(&self, metric: &Metric) -> Result<(f64, i64), MetricError> {
        if metric.is_utilization() {
            if self.requested == 0 {
                return Err(MetricError::NoMatch);
            }
            // Whole per cent, before the ratio is taken.
            let percent = self.used.saturating_mul(100).checked_div(self.requested).unwrap_or(i64::MAX);
            return Ok((float(percent) / float(metric.target), percent));
        }
        let average = self.used / self.counted.max(1);
        Ok((float(average) / float(metric.target), average))
    }
}

/// The next whole count; the largest where it is too large, 0 below 0 and for no number.
fn ceil(value: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates: an overload that overflows stays an overload"
    )]
    let whole = libm::ceil(value) as u32;
    whole.min(i32::MAX.unsigned_abs())
}

#[expect(clippy::cast_precision_loss, reason = "the original calculates so")]
fn float(value: i64) -> f64 {
    value as f64
}
