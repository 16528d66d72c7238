//! What one metric proposes: the original's `replica_calculator.go`.

use smallvec::SmallVec;

use super::{Measured, Spec, View};
use crate::Timestamp;

/// The life of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// Whether a pod is ready, and since when that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ReadyCondition {
    /// Nothing is known.
    Absent,
    /// Ready since.
    Ready(Timestamp),
    /// Not ready since.
    NotReady(Timestamp),
}

/// One pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pod {
    /// Its name.
    pub id: u32,
    /// Its life.
    pub phase: Phase,
    /// Whether it is ready.
    pub ready: ReadyCondition,
    /// When it started.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deletion: Deletion,
    /// What it requests of the metric's resource, in thousandths; `None` where some container has no request.
    pub request: Option<i64>,
}

/// Whether a pod is being deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Deletion {
    /// It is not.
    #[default]
    None,
    /// It is.
    Begun,
}

/// What was measured of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PodSample {
    /// Which pod.
    pub pod: u32,
    /// How much, in thousandths.
    pub value: i64,
    /// When.
    pub at: Timestamp,
    /// Over how long, in ms.
    pub window_ms: u64,
}

/// Pods, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pods<'a>(pub &'a [Pod]);

impl Pods<'_> {
    fn get(&self, id: u32) -> Option<&Pod> {
        self.0.binary_search_by_key(&id, |pod| pod.id).ok().map(|at| &self.0[at])
    }

    fn ready(&self) -> i64 {
        let ready = |pod: &&Pod| pod.phase == Phase::Running && matches!(pod.ready, ReadyCondition::Ready(_));
        count(self.0.iter().filter(ready).count())
    }
}

/// What is measured, and what is aimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Metric {
    /// What it is.
    pub kind: Kind,
    /// The target: a whole per cent for utilisation, thousandths for the others.
    pub target: i64,
}

/// What kind of measurement a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kind {
    /// The use of CPU, over what the pods request.
    CpuUtilization,
    /// The use of another resource, over what the pods request.
    Utilization,
    /// The use of CPU, as an average of the pods.
    CpuAverage,
    /// Something else of each pod, as an average.
    PodsAverage,
    /// Something of another object, or from outside (the parts are added up), as it is.
    Value,
    /// The same, for each pod.
    AverageValue,
}

/// What one metric proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// How many replicas.
    pub replicas: u32,
    /// The present utilisation, in whole per cent, where that is what is measured.
    pub utilization_percent: Option<i64>,
    /// What was measured: the average of the pods, or the value, in thousandths.
    pub usage: i64,
}

/// Why a metric proposes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MetricError {
    /// The source failed, or measured something of another kind.
    #[error("unable to get metrics")]
    Source,
    /// There is no pod.
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    /// No pod that counts was measured.
    #[error("did not receive metrics for any ready pods")]
    NoReadyPods,
    /// A pod does not say what it requests.
    #[error("missing request for pod {0}")]
    NoRequest(u32),
    /// What was measured belongs to no pod that there is.
    #[error("no metrics returned matched known pods")]
    NoMatch,
    /// Nothing is measured at all.
    #[error("no metric is specified")]
    NoMetric,
}

/// Pods by what they count for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// How many count in full.
    pub ready: usize,
    /// Not ready: counted as using nothing when growing.
    pub unready: SmallVec<[u32; 8]>,
    /// Not measured: counted as using all when shrinking, nothing when growing.
    pub missing: SmallVec<[u32; 8]>,
    /// Failed or being deleted: not counted.
    pub ignored: SmallVec<[u32; 8]>,
}

/// Sorts pods by what they count for (`groupPods`).
#[must_use]
pub fn classify(spec: &Spec, kind: Kind, pods: Pods<'_>, samples: &[PodSample], now: Timestamp) -> Classes {
    let cpu = matches!(kind, Kind::CpuUtilization | Kind::CpuAverage);
    let mut classes = Classes::default();
    for pod in pods.0 {
        if pod.deletion == Deletion::Begun || pod.phase == Phase::Failed {
            classes.ignored.push(pod.id);
        } else if pod.phase == Phase::Pending {
            classes.unready.push(pod.id);
        } else {
            match samples.binary_search_by_key(&pod.id, |sample| sample.pod) {
                Err(_) => classes.missing.push(pod.id),
                Ok(at) if cpu && is_unready(spec, pod, &samples[at], now) => classes.unready.push(pod.id),
                Ok(_) => classes.ready += 1,
            }
        }
    }
    classes
}

fn is_unready(spec: &Spec, pod: &Pod, sample: &PodSample, now: Timestamp) -> bool {
    let (since, not_ready) = match pod.ready {
        ReadyCondition::Absent => return true,
        ReadyCondition::Ready(since) => (since, false),
        ReadyCondition::NotReady(since) => (since, true),
    };
    let Some(started) = pod.started else { return true };
    if started.after_millis(spec.cpu_initialization_ms) > now {
        // Still initialising: not ready, or not measured for a whole window since it became what it is.
        not_ready || sample.at < since.after_millis(sample.window_ms)
    } else {
        // Not ready, and never was.
        not_ready && started.after_millis(spec.initial_readiness_ms) > since
    }
}

/// Sums over samples that may be replaced: what ratios are taken of.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    value: i64,
    request: i64,
    /// Samples of known pods.
    known: i64,
    /// All samples.
    all: i64,
}

impl Sums {
    fn add(&mut self, value: i64, request: Option<i64>) {
        self.all += 1;
        self.value = self.value.saturating_add(if request.is_some() { value } else { 0 });
        if let Some(request) = request {
            self.request = self.request.saturating_add(request);
            self.known += 1;
        }
    }
}

/// What one metric proposes.
///
/// # Errors
/// A [`MetricError`]: there is no proposal then.
pub fn propose(
    spec: &Spec,
    metric: &Metric,
    measured: Measured<'_>,
    view: &View<'_>,
    now: Timestamp,
) -> Result<Proposal, MetricError> {
    match (metric.kind, measured) {
        (Kind::Value, Measured::Values(values)) => from_value(spec, metric, values, view),
        (Kind::AverageValue, Measured::Values(values)) => Ok(from_average_value(spec, metric, values, view)),
        (Kind::Value | Kind::AverageValue, _) | (_, Measured::Values(_) | Measured::Failed) => Err(MetricError::Source),
        (_, Measured::Pods(samples)) => from_pods(spec, metric, samples, view, now),
    }
}

fn from_pods(
    spec: &Spec,
    metric: &Metric,
    samples: &[PodSample],
    view: &View<'_>,
    now: Timestamp,
) -> Result<Proposal, MetricError> {
    if view.pods.0.is_empty() {
        return Err(MetricError::NoPods);
    }
    let by_request = matches!(metric.kind, Kind::CpuUtilization | Kind::Utilization);
    let classes = classify(spec, metric.kind, view.pods, samples, now);
    // Utilisation is over what known pods request; an average is over whatever was measured.
    let request = |pod: u32| if by_request { view.pods.get(pod).and_then(|pod| pod.request) } else { Some(1) };
    let mut sums = Sums::default();
    for sample in samples {
        if !classes.ignored.contains(&sample.pod) && !classes.unready.contains(&sample.pod) {
            sums.add(sample.value, request(sample.pod));
        }
    }
    if sums.all == 0 {
        return Err(MetricError::NoReadyPods);
    }
    if by_request && let Some(pod) = view.pods.0.iter().find(|pod| pod.request.is_none()) {
        return Err(MetricError::NoRequest(pod.id));
    }
    let (ratio, used) = ratio(metric, by_request, sums)?;
    let usage = sums.value / sums.known.max(1);
    let utilization_percent = by_request.then_some(used);
    let proposal = |replicas: u32| Proposal { replicas, utilization_percent, usage };
    let stay = Ok(proposal(view.spec_replicas));
    let with_unready = !classes.unready.is_empty() && ratio > 1.0;
    if !with_unready && classes.missing.is_empty() {
        if spec.tolerance.holds(ratio) {
            return stay;
        }
        return Ok(proposal(ceil(ratio * float(count(classes.ready)))));
    }
    for pod in &classes.missing {
        if ratio < 1.0 {
            let of_it = request(*pod).unwrap_or(0);
            // Shrinking: all that it requests, or all that it is meant to use.
            let fallback = if by_request { of_it.saturating_mul(metric.target.max(100)) / 100 } else { metric.target };
            sums.add(fallback, request(*pod));
        } else if ratio > 1.0 || !by_request {
            sums.add(0, request(*pod));
        }
    }
    if with_unready {
        for pod in &classes.unready {
            sums.add(0, request(*pod));
        }
    }
    let (again, _) = self::ratio(metric, by_request, sums)?;
    let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    if spec.tolerance.holds(again) || turned {
        return stay;
    }
    let replicas = ceil(again * float(sums.all));
    if (again < 1.0 && replicas > view.spec_replicas) || (again > 1.0 && replicas < view.spec_replicas) {
        return stay;
    }
    Ok(proposal(replicas))
}

/// The ratio to the target, and the whole per cent or the average that it is taken of.
fn ratio(metric: &Metric, by_request: bool, sums: Sums) -> Result<(f64, i64), MetricError> {
    if by_request {
        if sums.request == 0 {
            return Err(MetricError::NoMatch);
        }
        // Whole per cent, before the ratio is taken.
        let percent = sums.value.saturating_mul(100) / sums.request;
        return Ok((float(percent) / float(metric.target), percent));
    }
    let average = sums.value / sums.all.max(1);
    Ok((float(average) / float(metric.target), average))
}

fn from_value(spec: &Spec, metric: &Metric, values: &[i64], view: &View<'_>) -> Result<Proposal, MetricError> {
    let usage = values.iter().fold(0_i64, |sum, value| sum.saturating_add(*value));
    let ratio = float(usage) / float(metric.target);
    let replicas = if view.spec_replicas == 0 {
        ceil(ratio)
    } else if spec.tolerance.holds(ratio) {
        view.spec_replicas
    } else if view.pods.0.is_empty() {
        return Err(MetricError::NoPods);
    } else {
        ceil(ratio * float(view.pods.ready()))
    };
    Ok(Proposal { replicas, utilization_percent: None, usage })
}

fn from_average_value(spec: &Spec, metric: &Metric, values: &[i64], view: &View<'_>) -> Proposal {
    let usage = values.iter().fold(0_i64, |sum, value| sum.saturating_add(*value));
    let replicas = f64::from(view.status_replicas);
    let ratio = float(usage) / (float(metric.target) * replicas);
    let wanted =
        if spec.tolerance.holds(ratio) { view.status_replicas } else { ceil(float(usage) / float(metric.target)) };
    Proposal { replicas: wanted, utilization_percent: None, usage: i64::from(ceil(float(usage) / replicas)) }
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

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
