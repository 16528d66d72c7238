//! The proposal of one metric, and which pods count for it: the first half of the original's `replica_calculator.go`.

use smallvec::SmallVec;

use super::{Measured, Spec, Usage, View, tally};
use crate::Timestamp;

/// The phase of a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// Running.
    Running,
    /// Ended with success.
    Succeeded,
    /// Ended with a failure.
    Failed,
}

/// The readiness of a pod, with the time since when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ReadyCondition {
    /// Unknown.
    Absent,
    /// Ready since this time.
    Ready(Timestamp),
    /// Not ready since this time.
    NotReady(Timestamp),
}

/// A pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pod {
    /// The id of the pod.
    pub id: u32,
    /// The phase of its life.
    pub phase: Phase,
    /// Its readiness.
    pub ready: ReadyCondition,
    /// The time when it started.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deletion: Deletion,
    /// Its requests of each resource.
    pub requests: Requests,
}

/// The number of resources that a pod's requests can name.
pub const RESOURCES: usize = 4;

/// A pod's requests of each resource (CPU, memory, one container's CPU …), in thousandths.
///
/// Which resource has which place is the host's choice; a [`Metric`] names the place that it reads.
///
/// A request is `None` where some container that the metric counts has none: a utilisation fails then. A pod without the
/// container that a metric names requests 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Requests([Option<i64>; RESOURCES]);

impl Requests {
    /// A request of the resource at place 0, and of no other.
    #[must_use]
    pub const fn of(thousandths: Option<i64>) -> Self {
        let mut requests = [None; RESOURCES];
        requests[0] = thousandths;
        Self(requests)
    }

    /// Adds a request of the resource at `place`. A place from [`RESOURCES`] on is left out.
    #[must_use]
    pub fn with(mut self, place: u8, thousandths: Option<i64>) -> Self {
        if let Some(held) = self.0.get_mut(usize::from(place)) {
            *held = thousandths;
        }
        self
    }

    /// The request of the resource at `place`.
    #[must_use]
    pub fn get(&self, place: u8) -> Option<i64> {
        self.0.get(usize::from(place)).copied().flatten()
    }
}

/// Whether a pod is being deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Deletion {
    /// The pod is not being deleted.
    #[default]
    None,
    /// The deletion has begun.
    Begun,
}

/// A sample of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PodSample {
    /// The id of the pod.
    pub pod: u32,
    /// The value, in thousandths.
    pub value: i64,
    /// The time of the sample.
    pub at: Timestamp,
    /// The time span that the sample covers, in ms.
    pub window_ms: u64,
}

/// A sample of one container of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ContainerSample {
    /// The container's name, as a number of the host's.
    pub container: u32,
    /// The value, in thousandths; `None` if the resource was not measured for it.
    pub value: Option<i64>,
}

/// The value of a pod from the samples of its containers.
///
/// Their sum, and no sample if one was not measured; for a `ContainerResource` metric, that of the container that it
/// names (`getPodMetrics` and `getContainerMetrics` of `metrics/client.go`).
///
/// # Errors
/// [`MetricError::Source`] where the container that is named was not measured at all: the whole metric has failed.
pub fn value_of_containers(containers: &[ContainerSample], named: Option<u32>) -> Result<Option<i64>, MetricError> {
    let Some(named) = named else {
        let sum = containers.iter().try_fold(0_i64, |sum, held| Some(sum.saturating_add(held.value?)));
        return Ok(sum.filter(|_| !containers.is_empty()));
    };
    let held = containers.iter().find(|held| held.container == named);
    held.map(|held| held.value).ok_or(MetricError::Source)
}

/// Pods, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pods<'a>(pub &'a [Pod]);

impl Pods<'_> {
    pub(crate) fn get(&self, id: u32) -> Option<&Pod> {
        self.0.binary_search_by_key(&id, |pod| pod.id).ok().map(|at| &self.0[at])
    }

    pub(crate) fn ready(&self) -> i64 {
        let ready = |pod: &&Pod| pod.phase == Phase::Running && matches!(pod.ready, ReadyCondition::Ready(_));
        count(self.0.iter().filter(ready).count())
    }
}

/// A metric, and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Metric {
    /// The kind of the metric.
    pub kind: Kind,
    /// The target: a whole per cent for utilisation, thousandths for the others.
    pub target: i64,
    /// The place in [`Requests`] of the resource that a utilisation is relative to.
    pub resource: u8,
}

impl Metric {
    /// A metric of the resource at place 0.
    #[must_use]
    pub const fn new(kind: Kind, target: i64) -> Self {
        Self { kind, target, resource: 0 }
    }

    /// Sets the place of the resource.
    #[must_use]
    pub const fn of_resource(mut self, place: u8) -> Self {
        self.resource = place;
        self
    }
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kind {
    /// CPU use relative to the pods' requests.
    CpuUtilization,
    /// Use of another resource relative to the pods' requests.
    Utilization,
    /// CPU use, as an average of the pods.
    CpuAverage,
    /// Another metric of each pod, as an average.
    PodsAverage,
    /// A metric of another object, or an external one (its parts are summed), as it is.
    Value,
    /// A metric of another object, or an external one (its parts are summed), divided by the number of replicas.
    AverageValue,
}

/// The proposal of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The number of replicas.
    pub replicas: u32,
    /// The present utilisation, in whole per cent, for a utilisation metric.
    pub utilization_percent: Option<i64>,
    /// The measured value: the average of the pods, or the value, in thousandths.
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
    /// A pod has no request of the resource.
    #[error("missing request for pod {0}")]
    NoRequest(u32),
    /// The samples belong to no existing pod.
    #[error("no metrics returned matched known pods")]
    NoMatch,
    /// The specification has no metric.
    #[error("no metric is specified")]
    NoMetric,
}

/// The pods, by how they count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// The number of pods that count in full.
    pub ready: usize,
    /// Not ready: counted as using nothing when growing.
    pub unready: SmallVec<[u32; 8]>,
    /// Not measured: counted as using all when shrinking, nothing when growing.
    pub missing: SmallVec<[u32; 8]>,
    /// Failed or being deleted: not counted.
    pub ignored: SmallVec<[u32; 8]>,
}

/// Sorts pods by how they count (`groupPods`).
#[must_use]
pub fn classify(spec: &Spec, kind: Kind, pods: Pods<'_>, samples: &[PodSample], now: Timestamp) -> Classes {
    sort_out(spec.doubt(), kind, pods, samples, now)
}

/// How long after its start a pod is doubted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    pub(crate) cpu_initialization_ms: u64,
    pub(crate) initial_readiness_ms: u64,
}

pub(super) fn sort_out(doubt: Doubt, kind: Kind, pods: Pods<'_>, samples: &[PodSample], now: Timestamp) -> Classes {
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
                Ok(at) if cpu && is_unready(doubt, pod, &samples[at], now) => classes.unready.push(pod.id),
                Ok(_) => classes.ready += 1,
            }
        }
    }
    classes
}

fn is_unready(doubt: Doubt, pod: &Pod, sample: &PodSample, now: Timestamp) -> bool {
    let (since, not_ready) = match pod.ready {
        ReadyCondition::Absent => return true,
        ReadyCondition::Ready(since) => (since, false),
        ReadyCondition::NotReady(since) => (since, true),
    };
    let Some(started) = pod.started else { return true };
    if started.after_millis(doubt.cpu_initialization_ms) > now {
        // Still initialising: not ready, or not measured for a whole window since it became what it is.
        not_ready || sample.at < since.after_millis(sample.window_ms)
    } else {
        // Not ready, and never was.
        not_ready && started.after_millis(doubt.initial_readiness_ms) > since
    }
}

/// The proposal of one metric.
///
/// # Errors
///
/// A [`MetricError`]: there is no proposal then.
pub fn propose(
    spec: &Spec,
    metric: &Metric,
    measured: Measured<'_>,
    view: &View<'_>,
    now: Timestamp,
) -> Result<Proposal, MetricError> {
    let usage = match (metric.kind, measured) {
        (Kind::Value, Measured::Values(values)) => {
            let ready = (!view.pods.0.is_empty()).then(|| view.pods.ready());
            Usage::Value { usage: sum(values), ready }
        }
        (Kind::AverageValue, Measured::Values(values)) => {
            Usage::AverageValue { usage: sum(values), replicas: view.status_replicas }
        }
        (Kind::Value | Kind::AverageValue, _) | (_, Measured::Values(_) | Measured::Failed) => {
            return Err(MetricError::Source);
        }
        (_, Measured::Pods(samples)) => Usage::Pods(tally(spec.doubt(), metric, view.pods, samples, now)?),
    };
    usage.propose(metric, spec.tolerance, view.spec_replicas)
}

fn sum(values: &[i64]) -> i64 {
    values.iter().fold(0_i64, |sum, value| sum.saturating_add(*value))
}

pub(super) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
