//! *Threshold*: out by k when n of the last m samples are above a bound, in by k when they are below another.

use super::Verdict;
use crate::error::PolicyError;
use crate::id::RuleId;
use crate::num::{Milli, mul_div_ceil, shift};

/// The number of instances that a trigger moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Change {
    /// An absolute number.
    Count(u32),
    /// A part of the present size, in thousandths, rounded up.
    Permille(u32),
}

impl Change {
    /// The number of instances, for a group of `size`.
    ///
    /// ```
    /// use tenon_scaler::strategy::Change;
    ///
    /// assert_eq!(Change::Count(2).of(10), 2);
    /// assert_eq!(Change::Permille(150).of(10), 2); // 1.5, rounded up
    /// ```
    #[must_use]
    pub fn of(self, size: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Permille(share) => mul_div_ceil(u64::from(size), u64::from(share), 1000),
        }
    }
}

/// One side of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Trigger {
    /// The bound: a sample strictly past it is a breach.
    pub past: Milli,
    /// The number of instances to move.
    pub by: Change,
}

/// Threshold scaling: out when samples are above one bound, in when they are below another.
///
/// A side that is `None` has no say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Threshold {
    /// The trigger of growth.
    pub out: Option<Trigger>,
    /// The trigger of shrinking.
    pub inward: Option<Trigger>,
    /// The number of breaches needed among the last `of` samples.
    pub need: u8,
    /// The number of samples looked at, at most 64. Fewer have been seen at first, and after a change.
    pub of: u8,
}

impl Threshold {
    pub(super) fn check(&self, rule: RuleId) -> Result<(), PolicyError> {
        if self.need == 0 || self.need > self.of || self.of > 64 {
            return Err(PolicyError::Samples(rule));
        }
        match (self.out, self.inward) {
            (None, None) => Err(PolicyError::Bounds(rule)),
            (Some(out), Some(inward)) if out.past < inward.past => Err(PolicyError::Bounds(rule)),
            _ => Ok(()),
        }
    }
}

/// Which of the last samples were past which bound: the newest is bit 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Breaches {
    above: u64,
    below: u64,
}

impl Breaches {
    /// Takes one more sample in.
    pub(crate) fn push(&mut self, threshold: &Threshold, value: Milli) {
        let above = threshold.out.is_some_and(|trigger| value > trigger.past);
        let below = threshold.inward.is_some_and(|trigger| value < trigger.past);
        let keep = u64::MAX >> (64 - u32::from(threshold.of.clamp(1, 64)));
        self.above = (self.above << 1 | u64::from(above)) & keep;
        self.below = (self.below << 1 | u64::from(below)) & keep;
    }

    /// The evidence as it stands, for a group of `size` of which `ready` serve.
    pub(crate) fn evidence(self, threshold: &Threshold, size: u32, ready: u32) -> ThresholdEvidence {
        let tally = |trigger: Option<Trigger>, bits: u64| {
            trigger.map(|Trigger { by, .. }| Side { breaches: u8::try_from(bits.count_ones()).unwrap_or(64), by })
        };
        ThresholdEvidence {
            out: tally(threshold.out, self.above),
            inward: tally(threshold.inward, self.below),
            need: threshold.need,
            size,
            ready,
        }
    }
}

/// One side of a [`ThresholdEvidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Side {
    /// The number of samples looked at that are past the bound.
    pub breaches: u8,
    /// The number of instances to move.
    pub by: Change,
}

/// The numbers that a threshold's verdict follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ThresholdEvidence {
    /// The samples above the bound, if the rule grows the group.
    pub out: Option<Side>,
    /// The samples below the bound, if the rule shrinks it.
    pub inward: Option<Side>,
    /// The number of breaches needed.
    pub need: u8,
    /// The size that metric rules start from.
    pub size: u32,
    /// The part of the size that serves.
    ///
    /// Growth starts from here, so that a group does not grow again for a load that the instances on their way will
    /// take, nor for what a pool could not deliver.
    pub ready: u32,
}

impl ThresholdEvidence {
    pub(super) fn verdict(&self) -> Verdict {
        if let Some(out) = self.out.filter(|side| side.breaches >= self.need) {
            let from = self.size.min(self.ready);
            return Verdict::Want(from.saturating_add(out.by.of(from).max(1)).max(self.size));
        }
        match self.inward {
            Some(side) if side.breaches >= self.need => {
                Verdict::Want(shift(self.size, -i64::from(side.by.of(self.size).max(1))))
            }
            Some(_) => Verdict::Hold,
            None => Verdict::Abstain,
        }
    }
}
