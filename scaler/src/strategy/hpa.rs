//! The `HorizontalPodAutoscaler`'s proposal for one metric, as a rule among others.
//!
//! The rest of its decision is a group's own: the largest proposal, a failed metric that forbids shrinking, stabilisation
//! and rates ([`Behavior`](crate::Behavior)), the bounds.

use super::{Guard, Verdict};
use crate::error::PolicyError;
use crate::hpa::{Doubt, Metric, Tolerance, Usage};
use crate::id::RuleId;

/// A metric rule that decides as the `HorizontalPodAutoscaler` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hpa {
    /// The metric and its target.
    ///
    /// Samples of pod metrics are told by [`Engine::handle_pod_samples`](crate::Engine::handle_pod_samples), others by
    /// [`Engine::handle_sample`](crate::Engine::handle_sample). If the host tells of no pods
    /// ([`Engine::handle_pods`](crate::Engine::handle_pods)), a sample is the average of every ready instance; of a
    /// utilisation, in parts of what they request: 0.62 is 62 %.
    ///
    /// Of a group without instances, metrics of pods measure nothing: such rules alone never bring it back from zero. The
    /// original demands a metric of an object, or an external one, where the minimum is 0.
    pub metric: Metric,
    /// The tolerance.
    pub tolerance: Tolerance,
    /// The time after a pod's start in which its CPU samples are doubted, in ms.
    pub cpu_initialization_ms: u64,
    /// The time after its start within which a pod that became unready counts as never ready, in ms.
    pub initial_readiness_ms: u64,
    /// Whether the rule is guarded against known faults of the original.
    pub guard: Guard,
}

impl Hpa {
    /// A rule with the defaults of the original's controller: a tolerance of a tenth, five minutes, thirty seconds.
    #[must_use]
    pub fn new(metric: Metric) -> Self {
        let spec = crate::hpa::Spec::default();
        Self {
            metric,
            tolerance: spec.tolerance,
            cpu_initialization_ms: spec.cpu_initialization_ms,
            initial_readiness_ms: spec.initial_readiness_ms,
            guard: Guard::On,
        }
    }

    pub(super) fn check(&self, rule: RuleId) -> Result<(), PolicyError> {
        if self.metric.target > 0 { Ok(()) } else { Err(PolicyError::Target(rule)) }
    }

    pub(crate) fn doubt(&self) -> Doubt {
        Doubt { cpu_initialization_ms: self.cpu_initialization_ms, initial_readiness_ms: self.initial_readiness_ms }
    }
}

/// The numbers that the verdict follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HpaEvidence {
    /// The metric and its target.
    pub metric: Metric,
    /// The tolerance.
    pub tolerance: Tolerance,
    /// The measured use.
    pub usage: Usage,
    /// The size that metric rules start from.
    pub size: u32,
    /// Whether the rule is guarded against known faults of the original.
    pub guard: Guard,
}

impl HpaEvidence {
    pub(crate) fn verdict(&self) -> Verdict {
        match self.usage.propose(&self.metric, self.tolerance, self.size) {
            Ok(proposal) if proposal.replicas == self.size => Verdict::Hold,
            Ok(proposal) => self.guarded(proposal.replicas),
            Err(_) => Verdict::Broken,
        }
    }

    /// A load within tolerance keeps the size, though a pool has delivered fewer; and a proposal goes the way that the load
    /// says, though more pods run than are wanted.
    fn guarded(&self, replicas: u32) -> Verdict {
        let ratio = self.usage.ratio(&self.metric).filter(|_| self.guard == Guard::On && self.size > 0);
        match ratio {
            Some(ratio) if self.tolerance.holds(ratio) => Verdict::Hold,
            Some(ratio) if ratio < 1.0 => Verdict::Want(replicas.min(self.size)),
            Some(_) => Verdict::Want(replicas.max(self.size)),
            None => Verdict::Want(replicas),
        }
    }
}
