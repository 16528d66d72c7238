//! Metric rules: how a measurement becomes a wanted count.
//!
//! A strategy's rule of arithmetic stands in its *evidence*: the numbers it read, with one pure function from them to the
//! verdict. The live decision calls that function, and so does the verification of its record.

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

/// The strategy of a metric rule: how its metric becomes a wanted count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Strategy {
    /// Threshold: adds or removes instances when `n` of the last `m` samples are past a bound.
    Threshold(Threshold),
    /// Target tracking: brings the average per instance to its target.
    Target(Target),
    /// Queue length: one instance for each unit of a total, such as queued jobs or requests a second.
    QueueLength(QueueLength),
    /// Steps: adds or removes instances by how far the metric is from where it should be.
    Steps(Steps),
    /// The Kubernetes `HorizontalPodAutoscaler`'s algorithm.
    Hpa(Hpa),
    /// The Knative pod autoscaler's algorithm.
    Kpa(Kpa),
    /// Given: the metric is the wanted count itself, by a formula of the host's own.
    Given,
}

/// The verdict of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// Want: this many instances.
    Want(u32),
    /// Hold: the present size. It counts as a say, and keeps another rule from shrinking the group.
    Hold,
    /// Abstain: no say.
    Abstain,
    /// Broken: the metric is broken, so nothing may shrink.
    Broken,
}

/// The numbers that a metric rule's verdict follows from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Evidence {
    /// The evidence of a [`Threshold`].
    Threshold(ThresholdEvidence),
    /// The evidence of a [`Target`].
    Target(TargetEvidence),
    /// The evidence of a [`QueueLength`].
    QueueLength(QueueEvidence),
    /// The evidence of [`Steps`].
    Steps(StepsEvidence),
    /// The evidence of an [`Hpa`].
    Hpa(Box<HpaEvidence>),
    /// The error of an [`Hpa`] that proposes nothing: nothing may shrink.
    HpaFailed(crate::hpa::MetricError),
    /// The last sample of [`Steps`] has moved the group already: the rule waits for the next one.
    Heard,
    /// The evidence of a [`Kpa`].
    Kpa(Box<KpaEvidence>),
    /// The count that the host's formula gave, for [`Strategy::Given`].
    Given(Milli),
    /// No fresh sample: the rule has no say.
    Silent,
    /// No fresh sample: nothing may shrink.
    Broken,
}

impl Evidence {
    /// The verdict that follows from these numbers.
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

/// Whether a rule that follows another autoscaler is guarded against known faults of that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Guard {
    /// Guarded.
    ///
    /// A load within tolerance keeps the size that was decided, however many instances a pool has delivered; load below
    /// the target never grows the group, and load above it never shrinks it; and after a time without measurements the
    /// window starts with the present size.
    #[default]
    On,
    /// Not guarded: the rule does exactly what the original does.
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
