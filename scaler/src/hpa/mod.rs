//! The Kubernetes `HorizontalPodAutoscaler` (`autoscaling/v2`), exactly.
//!
//! [`reconcile`] is one pass of its controller: each metric's proposal ([`propose`]), the largest of them, stabilisation, and
//! the limits of its behaviour policies. Where the original calculates in `f64`, so does this module, in the same order;
//! where the original overflows, this one stays at the largest count. Checked against the test tables of the original
//! (`tests/conformance.rs`).
//!
//! Follows Kubernetes as it has been since 1.27 (which mended in 2023: of a metric that is no resource, pods that are missing at
//! a ratio of exactly 1 change nothing). [`reconcile`] keeps what is known to go wrong there and is open upstream, such as
//! [138505](https://github.com/kubernetes/kubernetes/issues/138505); the rule [`strategy::Hpa`](crate::strategy::Hpa) is
//! protected against it unless its [`Guard`](crate::strategy::Guard) is off.
//!
//! Sources: `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go` of Kubernetes.

mod limit;
mod propose;
mod tally;

pub use limit::{Bound, Event, Events, Limited, Policy, PolicyKind, Recommendation, Rules, Select};
pub use limit::{limit_by_policies, limit_default, rate_limit, stabilize_behavior, stabilize_default};
pub use propose::{
    Classes, ContainerSample, Deletion, Kind, Metric, MetricError, Phase, Pod, PodSample, Pods, Proposal, RESOURCES,
    ReadyCondition, Requests,
};
pub use propose::{classify, propose, value_of_containers};
pub use tally::{Tally, Uncounted, Usage};

pub(crate) use limit::furthest;
pub(crate) use propose::Doubt;
pub(crate) use tally::tally;

use alloc::vec::Vec;

use crate::Timestamp;

/// The tolerance: how far a ratio may be from 1 before it counts, in millionths, per direction. The bound itself is
/// within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tolerance {
    /// The tolerance above 1, in millionths.
    pub up_millionths: u32,
    /// The tolerance below 1, in millionths.
    pub down_millionths: u32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { up_millionths: 100_000, down_millionths: 100_000 }
    }
}

impl Tolerance {
    pub(crate) fn holds(self, ratio: f64) -> bool {
        let down = f64::from(self.down_millionths) / 1_000_000.0;
        let up = f64::from(self.up_millionths) / 1_000_000.0;
        (1.0 - down) <= ratio && ratio <= (1.0 + up)
    }
}

/// The specification of an autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Spec {
    /// The minimum size; 0 allows scaling to zero.
    pub min: u32,
    /// The maximum size.
    pub max: u32,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// The tolerance.
    pub tolerance: Tolerance,
    /// The behaviour; `None` for the defaults of a controller without behaviour policies.
    pub behavior: Option<(Rules, Rules)>,
    /// Without behaviour: the time for which the highest recommendation holds, in ms.
    pub downscale_window_ms: u64,
    /// Without behaviour: the maximum growth at once, as a factor.
    pub scale_up_factor: u32,
    /// Without behaviour: the size to which growth is always allowed.
    pub scale_up_minimum: u32,
    /// The time after a pod's start in which its CPU samples are doubted, in ms.
    pub cpu_initialization_ms: u64,
    /// The time after its start within which a pod that became unready counts as never ready, in ms.
    pub initial_readiness_ms: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            min: 1,
            max: 1,
            metrics: Vec::new(),
            tolerance: Tolerance::default(),
            behavior: None,
            downscale_window_ms: 300_000,
            scale_up_factor: 2,
            scale_up_minimum: 4,
            cpu_initialization_ms: 300_000,
            initial_readiness_ms: 30_000,
        }
    }
}

impl Spec {
    fn doubt(&self) -> Doubt {
        Doubt { cpu_initialization_ms: self.cpu_initialization_ms, initial_readiness_ms: self.initial_readiness_ms }
    }
}

/// The state of an autoscaler between passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct State {
    /// The recent recommendations; `None` before the first pass.
    pub recommendations: Option<Vec<Recommendation>>,
    /// Growth that counts against policies.
    pub ups: Events,
    /// Shrinking that counts against policies.
    pub downs: Events,
}

/// The inputs of one pass.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The number of replicas asked for.
    pub spec_replicas: u32,
    /// The number of replicas that exist.
    pub status_replicas: u32,
    /// The pods.
    pub pods: Pods<'a>,
    /// The samples of each metric of the spec, in order.
    pub measured: &'a [Measured<'a>],
}

/// The samples of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured<'a> {
    /// Samples of each pod, in the order of their ids.
    ///
    /// A pod may be missing, and there may be samples of pods that are gone.
    Pods(&'a [PodSample]),
    /// One value, or the parts of a sum, in thousandths.
    Values(&'a [i64]),
    /// The source failed.
    Failed,
}

/// The outcome of a pass, with the original's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Outcome {
    /// Disabled: zero replicas are asked for, and the minimum is not zero.
    Disabled,
    /// A metric failed, so the size stays.
    Failed(MetricError),
    /// Sized, with the bound that applied.
    Sized(Bound),
}

/// Runs one pass: the number of replicas, the outcome, and the next state.
#[must_use]
pub fn reconcile(spec: &Spec, state: &State, view: &View<'_>, now: Timestamp) -> (u32, Outcome, State) {
    let mut next = state.clone();
    let current = view.spec_replicas;
    let recommendations =
        next.recommendations.get_or_insert_with(|| alloc::vec![Recommendation { replicas: current, at: now }]);
    if current == 0 && spec.min != 0 {
        return (0, Outcome::Disabled, next);
    }
    let (desired, bound) = if current > spec.max {
        (spec.max, Bound::TooManyReplicas)
    } else if current < spec.min {
        (spec.min, Bound::TooFewReplicas)
    } else {
        let desired = match largest(spec, view, now) {
            Ok(desired) => desired,
            Err(error) => return (current, Outcome::Failed(error), next),
        };
        let limited = if let Some((up, down)) = &spec.behavior {
            let windows = (up.stabilization_ms, down.stabilization_ms);
            let desired = stabilize_behavior(current, desired, windows, recommendations, now);
            limit_by_policies(current, desired, (spec.min, spec.max), (up, down), (&next.ups, &next.downs), now)
        } else {
            let desired = stabilize_default(desired, spec.downscale_window_ms, recommendations, now);
            limit_default(current, desired, (spec.min, spec.max), (spec.scale_up_factor, spec.scale_up_minimum))
        };
        (limited.replicas, limited.bound)
    };
    if let Some((up, down)) = &spec.behavior {
        if desired > current {
            next.ups.store(desired - current, &up.policies, now);
        } else if desired < current {
            next.downs.store(current - desired, &down.policies, now);
        }
    }
    (desired, Outcome::Sized(bound), next)
}

/// The largest proposal; where a metric has failed, none that would shrink.
fn largest(spec: &Spec, view: &View<'_>, now: Timestamp) -> Result<u32, MetricError> {
    let mut failed = None;
    let mut most: Option<u32> = None;
    for (at, metric) in spec.metrics.iter().enumerate() {
        let measured = view.measured.get(at).copied().unwrap_or(Measured::Failed);
        match propose(spec, metric, measured, view, now) {
            Ok(proposal) => most = most.max(Some(proposal.replicas)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match (most, failed) {
        (Some(most), Some(error)) if most < view.spec_replicas => Err(error),
        (Some(most), _) => Ok(most),
        (None, error) => Err(error.unwrap_or(MetricError::NoMetric)),
    }
}
