//! Metric rules: how a measurement becomes a wanted count.
//!
//! A strategy's rule of arithmetic stands in its *evidence*: the numbers it read, with one pure function from them to the
//! verdict. The live decision calls that function, and so does whoever verifies the record of it.

mod hpa;
mod kpa;
mod steps;
mod target;
mod threshold;

pub use hpa::{Hpa, HpaEvidence};
pub use kpa::{Kpa, KpaEvidence};
pub use steps::{Adjust, Band, Steps, StepsEvidence};
pub use target::{QueueEvidence, QueueLength, Target, TargetEvidence};
pub use threshold::{Change, Side, Threshold, ThresholdEvidence, Trigger};

pub(crate) use kpa::Memory;
pub(crate) use threshold::Breaches;

use alloc::boxed::Box;

use crate::error::PolicyError;
use crate::id::RuleId;
use crate::num::Milli;

/// How a metric becomes a wanted count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Strategy {
    /// So many more or fewer when `n` of the last `m` samples are past a bound.
    Threshold(Threshold),
    /// As many as bring the average per instance to its target.
    Target(Target),
    /// One instance for so much of a total: queued jobs, requests a second.
    QueueLength(QueueLength),
    /// So many more or fewer by how far the metric is from where it should be.
    Steps(Steps),
    /// As the Kubernetes `HorizontalPodAutoscaler` would.
    Hpa(Hpa),
    /// As the Knative pod autoscaler would.
    Kpa(Kpa),
    /// The metric is the wanted count itself, by a formula of the host's own.
    Given,
}

/// What one rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// This many.
    Want(u32),
    /// As many as there are; this too is a say, and keeps another rule from shrinking the group.
    Hold,
    /// No say.
    Abstain,
    /// The metric is broken: no shrinking.
    Broken,
}

/// The numbers that a metric rule's verdict follows from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Evidence {
    /// Of a [`Threshold`].
    Threshold(ThresholdEvidence),
    /// Of a [`Target`].
    Target(TargetEvidence),
    /// Of a [`QueueLength`].
    QueueLength(QueueEvidence),
    /// Of [`Steps`].
    Steps(StepsEvidence),
    /// Of an [`Hpa`].
    Hpa(Box<HpaEvidence>),
    /// Of an [`Hpa`] that proposes nothing: nothing may shrink.
    HpaFailed(crate::hpa::MetricError),
    /// Of [`Steps`] whose last sample has moved the group already: the next one is waited for.
    Heard,
    /// Of a [`Kpa`].
    Kpa(Box<KpaEvidence>),
    /// Of [`Strategy::Given`]: the count that the host's formula gave.
    Given(Milli),
    /// No fresh sample, and the rule has no say.
    Silent,
    /// No fresh sample, and nothing may shrink.
    Broken,
}

impl Evidence {
    /// What follows from these numbers.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Threshold(evidence) => evidence.verdict(),
            Self::Target(evidence) => evidence.verdict(),
            Self::QueueLength(evidence) => evidence.verdict(),
            Self::Steps(evidence) => evidence.verdict(),
            Self::Hpa(evidence) => evidence.verdict(),
            Self::Kpa(evidence) => evidence.verdict(),
            Self::Given(count) => Verdict::Want(crate::num::mul_div_ceil(count.at_least_zero(), 1, 1000)),
            Self::Heard => Verdict::Hold,
            Self::Silent => Verdict::Abstain,
            Self::Broken | Self::HpaFailed(_) => Verdict::Broken,
        }
    }
}

impl Evidence {
    /// The size that the rule started from, where it looks at it.
    pub(crate) fn size(&self) -> Option<u32> {
        match self {
            Self::Threshold(evidence) => Some(evidence.size),
            Self::Steps(evidence) => Some(evidence.size),
            Self::Hpa(evidence) => Some(evidence.size),
            Self::Target(evidence) => Some(evidence.size),
            Self::QueueLength(_)
            | Self::HpaFailed(_)
            | Self::Heard
            | Self::Kpa(_)
            | Self::Given(_)
            | Self::Silent
            | Self::Broken => None,
        }
    }
}

/// Whether a rule that follows another autoscaler is protected where that one is known to go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Guard {
    /// It is. A load within tolerance keeps the size that was decided, however many instances a pool has delivered; load
    /// below the target never grows the group, and load above it never shrinks it; and after a time without measurements
    /// the window starts with the size that there is.
    #[default]
    On,
    /// It is not: the rule does exactly what the original does.
    Off,
}

impl Strategy {
    /// Whether the answer changes with how many instances serve, though as many are there or on their way.
    pub(crate) const fn reads_ready(&self) -> bool {
        matches!(self, Self::Hpa(_) | Self::Kpa(_) | Self::Threshold(_) | Self::Steps(_))
    }

    /// Whether the numbers of this strategy can be read in one way only.
    pub(crate) fn check(&self, rule: RuleId) -> Result<(), PolicyError> {
        match self {
            Self::Threshold(threshold) => threshold.check(rule),
            Self::Target(Target { target: value, .. }) | Self::QueueLength(QueueLength { per_instance: value }) => {
                if *value > Milli::ZERO {
                    Ok(())
                } else {
                    Err(PolicyError::Target(rule))
                }
            }
            Self::Steps(steps) => steps.check(rule),
            Self::Hpa(hpa) => hpa.check(rule),
            Self::Kpa(kpa) => kpa.check(rule),
            Self::Given => Ok(()),
        }
    }
}
