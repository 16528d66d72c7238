//! Reasons: why a decision came out as it did.

use crate::id::RuleId;
use crate::record::Adopted;

/// The direction of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Direction {
    /// Out: the group grows.
    Out,
    /// In: the group shrinks.
    In,
}

/// The reason for a decision's target: the last thing that changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// No rule wants another size.
    Steady,
    /// A metric rule wants this size.
    Metric(RuleId),
    /// This many running instances were taken over, and the target is what runs.
    Adopted(u32),
    /// A broken metric forbids shrinking.
    Broken,
    /// No metric has a fresh sample, and its rules have no say: the size stays.
    Silent,
    /// The last move in this direction is too recent.
    Cooldown(Direction),
    /// The decisions of the stabilisation window do not all agree.
    Stabilized,
    /// The rate of this direction limits the move: more has moved lately than it allows.
    Rate(Direction),
    /// The minimum applies; this many were wanted.
    Minimum(u32),
    /// The maximum applies; this many were wanted.
    Maximum(u32),
    /// The clock has leapt forward: the group does not shrink until the next tick confirms the reading.
    Leap,
    /// The cause that kept the group larger has ended: a window, a step, an override, a chain's task, a rule.
    Ended,
    /// Timed deltas or steps apply.
    Timed,
    /// A timed floor applies.
    Floor(RuleId),
    /// A task for the group's chain applies.
    Chain,
    /// A timed cap applies.
    Cap(RuleId),
    /// Decisions are paused.
    Paused,
    /// An operator's override applies.
    ByHand,
    /// The group's traffic is gone.
    Draining,
}

impl Reason {
    /// The reason of a decision that changes the target from `before` to `after`, where its lines say `self`.
    pub(crate) fn of_change(self, before: u32, after: u32, adopted: &[Adopted]) -> Self {
        let silent = matches!(self, Self::Steady | Self::Silent);
        if silent && after < before {
            return Self::Ended;
        }
        if !adopted.is_empty() && after == before {
            return Self::Adopted(adopted.iter().fold(0, |sum, one| sum.saturating_add(one.count)));
        }
        self
    }

    /// The stable number of the reason, the same in every version.
    ///
    /// ```
    /// use tenon_scaler::{Reason, RuleId};
    ///
    /// assert_eq!(Reason::Metric(RuleId(1)).to_string(), "rule 1 wants this size");
    /// assert_ne!(Reason::Steady.code(), Reason::Broken.code());
    /// ```
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Steady => 100,
            Self::Metric(_) => 101,
            Self::Adopted(_) => 102,
            Self::Broken => 110,
            Self::Silent => 111,
            Self::Cooldown(Direction::Out) => 120,
            Self::Cooldown(Direction::In) => 121,
            Self::Stabilized => 122,
            Self::Rate(Direction::Out) => 123,
            Self::Rate(Direction::In) => 124,
            Self::Minimum(_) => 130,
            Self::Maximum(_) => 131,
            Self::Timed => 140,
            Self::Floor(_) => 141,
            Self::Cap(_) => 142,
            Self::Chain => 143,
            Self::Ended => 144,
            Self::Leap => 152,
            Self::Paused => 150,
            Self::ByHand => 151,
            Self::Draining => 160,
        }
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Steady => f.write_str("no rule wants another size"),
            Self::Metric(rule) => write!(f, "rule {rule} wants this size"),
            Self::Adopted(count) => write!(f, "{count} running instances were taken over"),
            Self::Silent => f.write_str("no metric has a fresh sample"),
            Self::Ended => f.write_str("the cause that kept the group larger has ended"),
            Self::Leap => f.write_str("the clock has leapt: the next tick must confirm it"),
            Self::Broken => f.write_str("a broken metric forbids shrinking"),
            Self::Cooldown(Direction::Out) => f.write_str("the last growth is too recent"),
            Self::Cooldown(Direction::In) => f.write_str("the last shrinking is too recent"),
            Self::Stabilized => f.write_str("the stabilisation window does not agree yet"),
            Self::Rate(Direction::Out) => f.write_str("growth is limited by its rate"),
            Self::Rate(Direction::In) => f.write_str("shrinking is limited by its rate"),
            Self::Minimum(wanted) => write!(f, "the minimum; {wanted} were wanted"),
            Self::Maximum(wanted) => write!(f, "the maximum; {wanted} were wanted"),
            Self::Timed => f.write_str("timed deltas and steps"),
            Self::Floor(rule) => write!(f, "the timed floor of rule {rule}"),
            Self::Chain => f.write_str("a task for the group's chain"),
            Self::Cap(rule) => write!(f, "the timed cap of rule {rule}"),
            Self::Paused => f.write_str("decisions are paused"),
            Self::ByHand => f.write_str("an operator's override"),
            Self::Draining => f.write_str("the group's traffic is gone"),
        }
    }
}
