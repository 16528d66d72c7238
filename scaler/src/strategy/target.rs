//! *Target tracking* (an average per instance) and *queue length* (a total).

use super::{Guard, Verdict};
use crate::num::{Milli, mul_div_ceil};

/// Target tracking: as many instances as bring the average per instance to the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Target {
    /// The target average per instance.
    pub target: Milli,
    /// The tolerance above the target before the group grows, in thousandths of the target.
    pub tolerance_out_permille: u32,
    /// The tolerance below the target before the group shrinks, in thousandths of the target.
    pub tolerance_in_permille: u32,
    /// Whether load below the target may never grow the group, nor load above it shrink it.
    ///
    /// While more instances serve than are wanted (during a rolling release, say), their number times a low average may
    /// be more than the present size.
    pub guard: Guard,
}

/// The numbers that a target's verdict follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TargetEvidence {
    /// The average per instance.
    pub value: Milli,
    /// The number of ready instances that it is averaged over.
    pub over: u32,
    /// The rule.
    pub rule: Target,
    /// The size that metric rules start from.
    pub size: u32,
}

impl TargetEvidence {
    pub(super) fn verdict(&self) -> Verdict {
        let value = u128::from(self.value.at_least_zero()) * 1000;
        let target = u128::from(self.rule.target.at_least_zero());
        let upper = target * (1000 + u128::from(self.rule.tolerance_out_permille));
        let lower = target * (1000 - u128::from(self.rule.tolerance_in_permille.min(1000)));
        if lower <= value && value <= upper {
            return Verdict::Hold;
        }
        // Load on a group without one ready instance still wants one.
        let over = u64::from(self.over.max(1));
        let wanted = mul_div_ceil(over, self.value.at_least_zero(), self.rule.target.at_least_zero());
        match self.rule.guard {
            Guard::Off => Verdict::Want(wanted),
            Guard::On if value < lower && self.size > 0 => Verdict::Want(wanted.min(self.size)),
            Guard::On => Verdict::Want(wanted.max(self.size)),
        }
    }
}

/// Queue length: one instance for each unit of a total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QueueLength {
    /// The load that one instance carries.
    pub per_instance: Milli,
}

/// The numbers that a queue length's verdict follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QueueEvidence {
    /// The total.
    pub total: Milli,
    /// The rule.
    pub rule: QueueLength,
}

impl QueueEvidence {
    pub(super) fn verdict(&self) -> Verdict {
        Verdict::Want(mul_div_ceil(self.total.at_least_zero(), 1, self.rule.per_instance.at_least_zero()))
    }
}
