//! The numbers behind a decision, line by line, each with the one function that computes its result.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::behavior::{RateLine, bound};
use crate::hpa::Select;
use crate::id::{IdcId, PoolId, RuleId, VersionId};
use crate::num::shift;
use crate::reason::{Direction, Reason};
use crate::strategy::{Evidence, Verdict};

/// The lines behind a [`Decision`](crate::Decision), in the order in which they took effect.
///
/// Rules, `limits`, `layers`, `pace`, `caps`, `leap`, `top`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lines {
    /// Running instances that the group took over since the decision before.
    pub adopted: SmallVec<[Adopted; 0]>,
    /// Timed deltas that hold, and steps that were taken.
    pub timed: SmallVec<[TimedLine; 1]>,
    /// The evidence and the verdict of each metric rule.
    pub rules: SmallVec<[RuleLine; 2]>,
    /// The size that metric rules start from: the target before, without `shares`.
    pub base: u32,
    /// The part of the target before that timed deltas and steps had added. Metric rules have no say over it.
    pub shares: i64,
    /// The size that metric rules wanted last. Present only if none of them has a say now, and the group keeps it.
    pub rest: Option<u32>,
    /// The limits that held metric rules back.
    pub limits: SmallVec<[LimitLine; 3]>,
    /// The layers that raise the size above what metric rules want.
    pub layers: SmallVec<[LayerLine; 2]>,
    /// The limits that held shrinking back.
    pub pace: SmallVec<[LimitLine; 1]>,
    /// The layers that cap the size, or set it aside.
    pub caps: SmallVec<[LayerLine; 2]>,
    /// The limit that kept the group from shrinking because the clock had leapt.
    pub leap: Option<LimitLine>,
    /// The layer of an operator's override.
    pub top: Option<LayerLine>,
    /// The policies of the rate that holds the group back, if any.
    pub rate: Option<Box<RateLines>>,
}

/// The policies of a rate, at work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateLines {
    /// The selection of the policy that applies.
    pub select: Select,
    /// The policies, each with the moves within its period.
    pub policies: Vec<RateLine>,
}

impl RateLines {
    /// The size to which the policies allow a group of `size` to move.
    #[must_use]
    pub fn bound(&self, direction: Direction, size: u32) -> u32 {
        bound(direction, size, self.select, self.policies.iter().copied())
    }
}

/// The evidence and the verdict of one metric rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RuleLine {
    /// The id of the rule.
    pub rule: RuleId,
    /// The age of its metric's sample, in ms; `None` if there is none.
    pub age_ms: Option<u64>,
    /// The numbers that it read.
    pub evidence: Evidence,
    /// The verdict that follows from them.
    pub verdict: Verdict,
}

/// The request and the share of one timed rule. The share is less where there was less to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum TimedLine {
    /// A delta whose window holds.
    Delta {
        /// The id of the rule.
        rule: RuleId,
        /// The number of instances that it asks for, more or fewer.
        asked: i32,
        /// The number of instances that it was given when its window began, more or fewer.
        given: i32,
    },
    /// A step that was taken in this decision.
    Step {
        /// The id of the rule.
        rule: RuleId,
        /// The time when it fell due.
        at: Timestamp,
        /// The number of instances that it asks for, more or fewer.
        asked: i32,
        /// The number of instances that it was given, more or fewer.
        given: i32,
    },
}

/// A limit that holds metric rules back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Limit {
    /// A broken metric: no fewer than before.
    Broken {
        /// The size before.
        size: u32,
    },
    /// The group's bounds.
    Bounds {
        /// The minimum.
        min: u32,
        /// The maximum.
        max: u32,
    },
    /// The stabilisation window of growing.
    StabilizedOut {
        /// The size before.
        size: u32,
        /// The least that was wanted in the window.
        least: u32,
    },
    /// The stabilisation window of shrinking.
    StabilizedIn {
        /// The size before.
        size: u32,
        /// The most that was wanted in the window.
        most: u32,
    },
    /// The highest count of the window, which holds in both directions.
    Highest {
        /// The most that was wanted in the window.
        most: u32,
    },
    /// The limit on one decision's growth.
    Jump {
        /// The size before.
        size: u32,
        /// The factor: growth is allowed to this many times the size.
        factor: u32,
        /// The size to which growth is always allowed.
        minimum: u32,
    },
    /// A leap of the clock: no fewer until the next tick confirms the reading.
    Leap {
        /// The size before.
        size: u32,
    },
    /// The cool-down of a direction.
    Cooldown {
        /// The size before.
        size: u32,
        /// The time since the last move in that direction, in ms.
        waited_ms: u64,
        /// The cool-down, in ms.
        cooldown_ms: u64,
    },
    /// The rate of a direction.
    Rate {
        /// The size before.
        size: u32,
        /// The size to which its policies allow a move.
        bound: u32,
    },
}

impl Limit {
    /// The reason for a decision that the limit changes from `before` to `after`.
    pub(crate) fn reason(&self, before: u32, after: u32) -> Reason {
        match self {
            Self::Broken { .. } => Reason::Broken,
            Self::Bounds { .. } if after > before => Reason::Minimum(before),
            Self::Bounds { .. } => Reason::Maximum(before),
            Self::StabilizedOut { .. } | Self::StabilizedIn { .. } | Self::Highest { .. } => Reason::Stabilized,
            Self::Cooldown { .. } if after < before => Reason::Cooldown(Direction::Out),
            Self::Cooldown { .. } => Reason::Cooldown(Direction::In),
            Self::Rate { .. } | Self::Jump { .. } if after < before => Reason::Rate(Direction::Out),
            Self::Rate { .. } | Self::Jump { .. } => Reason::Rate(Direction::In),
            Self::Leap { .. } => Reason::Leap,
        }
    }

    /// The size left of `wanted`.
    #[must_use]
    pub fn apply(&self, wanted: u32) -> u32 {
        match *self {
            Self::Broken { size } | Self::Leap { size } => wanted.max(size),
            Self::Bounds { min, max } => wanted.clamp(min, max.max(min)),
            Self::StabilizedOut { size, least } => wanted.min(least.max(size)).max(wanted.min(size)),
            Self::StabilizedIn { size, most } => wanted.max(most.min(size)),
            Self::Highest { most } => wanted.max(most),
            Self::Jump { size, factor, minimum } => wanted.min(size.saturating_mul(factor).max(minimum).max(size)),
            Self::Rate { size, bound } => {
                if wanted > size {
                    wanted.min(bound.max(size))
                } else {
                    wanted.max(bound.min(size))
                }
            }
            Self::Cooldown { size, waited_ms, cooldown_ms } => {
                if waited_ms < cooldown_ms {
                    size
                } else {
                    wanted
                }
            }
        }
    }
}

/// A [`Limit`] at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LimitLine {
    /// The limit.
    pub limit: Limit,
    /// The size that was wanted.
    pub before: u32,
    /// The size that the limit left.
    pub after: u32,
    /// The time until which it holds by itself; [`Timestamp::MAX`] if that depends on inputs.
    pub until: Timestamp,
}

/// A layer above metric rules, which raises the size, caps it or sets it aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Layer {
    /// The sum of the timed deltas.
    Deltas(i64),
    /// The number of instances that steps have added and not taken back.
    Steps(u32),
    /// The highest timed floor.
    Floor {
        /// The id of its rule.
        rule: RuleId,
        /// The minimum number of instances.
        count: u32,
    },
    /// The highest floor of a task for the group's chain.
    Chain(u32),
    /// The minimum.
    Minimum(u32),
    /// The lowest timed cap.
    Cap {
        /// The id of its rule.
        rule: RuleId,
        /// The maximum number of instances.
        count: u32,
    },
    /// The maximum.
    Maximum(u32),
    /// A pause, with the target before.
    Paused(u32),
    /// An operator's override.
    ByHand(u32),
    /// A drain, with the size left of a group whose traffic is gone.
    Draining(u32),
}

impl Layer {
    /// The reason for a decision that the layer changes from `before` to `after`; `None` if it has no part in it.
    pub(crate) fn reason(&self, before: u32, after: u32) -> Option<Reason> {
        let reason = match *self {
            Self::Paused(_) => return Some(Reason::Paused),
            Self::ByHand(_) => return Some(Reason::ByHand),
            Self::Draining(_) => return Some(Reason::Draining),
            Self::Deltas(_) | Self::Steps(_) => Reason::Timed,
            Self::Floor { rule, .. } => Reason::Floor(rule),
            Self::Chain(_) => Reason::Chain,
            Self::Minimum(_) => Reason::Minimum(before),
            Self::Cap { rule, .. } => Reason::Cap(rule),
            Self::Maximum(_) => Reason::Maximum(before),
        };
        (after != before).then_some(reason)
    }

    /// The size after the layer, given the size before it.
    #[must_use]
    pub fn apply(&self, size: u32) -> u32 {
        match *self {
            Self::Deltas(by) => shift(size, by),
            Self::Steps(by) => size.saturating_add(by),
            Self::Floor { count, .. } | Self::Chain(count) | Self::Minimum(count) => size.max(count),
            Self::Cap { count, .. } | Self::Maximum(count) | Self::Draining(count) => size.min(count),
            Self::Paused(count) | Self::ByHand(count) => count,
        }
    }
}

/// A [`Layer`] at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerLine {
    /// The layer.
    pub layer: Layer,
    /// The size below it.
    pub before: u32,
    /// The size above it.
    pub after: u32,
}

/// Running instances that a group took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Adopted {
    /// The pool of the instances.
    pub pool: PoolId,
    /// The data centre of the pool.
    pub idc: IdcId,
    /// The image of the instances; `None` if a census found them.
    pub version: Option<VersionId>,
    /// The number of instances.
    pub count: u32,
}

/// At which point of a decision a line takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Metric,
    Pace,
    Top,
}

/// Where a decision's lines go: into its record, or nowhere.
pub(crate) trait Trace {
    const ON: bool;
    fn adopted(&mut self, lines: SmallVec<[Adopted; 0]>);
    fn base(&mut self, size: u32, shares: i64);
    fn rest(&mut self, size: u32);
    fn timed(&mut self, line: TimedLine);
    fn rule(&mut self, line: RuleLine);
    fn limit(&mut self, stage: Stage, line: LimitLine);
    fn rate(&mut self, select: Select, lines: impl Iterator<Item = RateLine>);
    fn layer(&mut self, stage: Stage, line: LayerLine);
}

impl Trace for () {
    const ON: bool = false;
    fn adopted(&mut self, _: SmallVec<[Adopted; 0]>) {}
    fn base(&mut self, _: u32, _: i64) {}
    fn rest(&mut self, _: u32) {}
    fn timed(&mut self, _: TimedLine) {}
    fn rule(&mut self, _: RuleLine) {}
    fn limit(&mut self, _: Stage, _: LimitLine) {}
    fn rate(&mut self, _: Select, _: impl Iterator<Item = RateLine>) {}
    fn layer(&mut self, _: Stage, _: LayerLine) {}
}

impl Trace for Lines {
    const ON: bool = true;
    fn adopted(&mut self, lines: SmallVec<[Adopted; 0]>) {
        self.adopted = lines;
    }
    fn base(&mut self, size: u32, shares: i64) {
        (self.base, self.shares) = (size, shares);
    }
    fn rest(&mut self, size: u32) {
        self.rest = Some(size);
    }
    fn timed(&mut self, line: TimedLine) {
        self.timed.push(line);
    }
    fn rule(&mut self, line: RuleLine) {
        self.rules.push(line);
    }
    fn limit(&mut self, stage: Stage, line: LimitLine) {
        match (stage, line.limit) {
            (_, Limit::Leap { .. }) => self.leap = Some(line),
            (Stage::Metric, _) => self.limits.push(line),
            (Stage::Pace | Stage::Top, _) => self.pace.push(line),
        }
    }
    fn rate(&mut self, select: Select, lines: impl Iterator<Item = RateLine>) {
        self.rate = Some(Box::new(RateLines { select, policies: lines.collect() }));
    }
    fn layer(&mut self, stage: Stage, line: LayerLine) {
        match stage {
            Stage::Metric => self.layers.push(line),
            Stage::Pace => self.caps.push(line),
            Stage::Top => self.top = Some(line),
        }
    }
}

/// The joint result of the metric rules: the most that any of them wants, where one that holds wants the present size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) wanted: u32,
    pub(crate) by: Option<RuleId>,
    pub(crate) spoken: bool,
}

impl Said {
    pub(crate) const fn nothing(base: u32) -> Self {
        Self { wanted: base, by: None, spoken: false }
    }

    pub(crate) fn hear(&mut self, rule: RuleId, verdict: Verdict, base: u32) {
        let wanted = match verdict {
            Verdict::Want(count) => count,
            Verdict::Hold => base,
            Verdict::Abstain | Verdict::Broken => return,
        };
        if !self.spoken || wanted > self.wanted {
            self.wanted = wanted;
            self.by = matches!(verdict, Verdict::Want(_)).then_some(rule);
        }
        self.spoken = true;
    }
}
