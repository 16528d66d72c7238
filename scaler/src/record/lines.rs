//! The numbers behind a decision, line by line, each with the one function that says what follows from it.

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

/// The numbers behind a [`Decision`](crate::Decision), in the order in which they took effect: rules, `limits`, `layers`,
/// `pace`, `top`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lines {
    /// Running instances that the group took over since the decision before.
    pub adopted: SmallVec<[Adopted; 0]>,
    /// Timed deltas that hold, and steps that were taken.
    pub timed: SmallVec<[TimedLine; 1]>,
    /// What each metric rule read and said.
    pub rules: SmallVec<[RuleLine; 2]>,
    /// The size that metric rules start from: the target before, without `shares`.
    pub base: u32,
    /// How much of the target before is not for metric rules to say: what timed deltas and steps had added.
    pub shares: i64,
    /// The size that metric rules said last; present only where none of them has a say now, and the group keeps it.
    pub rest: Option<u32>,
    /// What held metric rules back.
    pub limits: SmallVec<[LimitLine; 3]>,
    /// What raises the size above what metric rules want.
    pub layers: SmallVec<[LayerLine; 2]>,
    /// What held the way down back.
    pub pace: SmallVec<[LimitLine; 1]>,
    /// What cuts the size, or sets it aside.
    pub caps: SmallVec<[LayerLine; 2]>,
    /// What kept the group from shrinking because the clock had leapt.
    pub leap: Option<LimitLine>,
    /// What an operator set.
    pub top: Option<LayerLine>,
    /// The policies of the rate that holds the group back, if any.
    pub rate: Option<Box<RateLines>>,
}

/// The policies of a rate at work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateLines {
    /// Which of them holds.
    pub select: Select,
    /// Each with what moved within its period.
    pub policies: Vec<RateLine>,
}

impl RateLines {
    /// How far they let a group of `size` go.
    #[must_use]
    pub fn bound(&self, direction: Direction, size: u32) -> u32 {
        bound(direction, size, self.select, self.policies.iter().copied())
    }
}

/// What one metric rule read and said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RuleLine {
    /// The rule.
    pub rule: RuleId,
    /// The age of its metric's sample, in ms; `None` where there is none.
    pub age_ms: Option<u64>,
    /// What it read.
    pub evidence: Evidence,
    /// What it said.
    pub verdict: Verdict,
}

/// What one timed rule asked, and what it was given: less, where there was less to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum TimedLine {
    /// A delta whose window holds.
    Delta {
        /// The rule.
        rule: RuleId,
        /// How many more (or fewer) it asks for.
        asked: i32,
        /// How many more (or fewer) it was given when its window began.
        given: i32,
    },
    /// A step that was taken in this decision.
    Step {
        /// The rule.
        rule: RuleId,
        /// When it fell due.
        at: Timestamp,
        /// How many more (or fewer) it asks for.
        asked: i32,
        /// How many more (or fewer) it was given.
        given: i32,
    },
}

/// Something that holds metric rules back.
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
    /// The highest count of the window holds, in both directions.
    Highest {
        /// The most that was wanted in the window.
        most: u32,
    },
    /// How far one decision may grow the group.
    Jump {
        /// The size before.
        size: u32,
        /// To how many times the size.
        factor: u32,
        /// To how many it may always grow.
        minimum: u32,
    },
    /// The clock has leapt: no fewer until the next tick confirms the reading.
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
        /// The time to wait, in ms.
        cooldown_ms: u64,
    },
    /// The rate of a direction.
    Rate {
        /// The size before.
        size: u32,
        /// How far its policies let the group go.
        bound: u32,
    },
}

impl Limit {
    /// What a decision is bound by where the limit makes `after` of `before`.
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

    /// The size that it leaves of `wanted`.
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
    /// What was wanted.
    pub before: u32,
    /// What it left.
    pub after: u32,
    /// Until when it holds by itself; [`Timestamp::MAX`] where that depends on inputs.
    pub until: Timestamp,
}

/// Something that stands above metric rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Layer {
    /// The sum of the timed deltas.
    Deltas(i64),
    /// What steps have added and not taken back.
    Steps(u32),
    /// The highest timed floor.
    Floor {
        /// Its rule.
        rule: RuleId,
        /// At least so many instances.
        count: u32,
    },
    /// The highest floor of a task for its chain.
    Chain(u32),
    /// The minimum.
    Minimum(u32),
    /// The lowest timed cap.
    Cap {
        /// Its rule.
        rule: RuleId,
        /// At most so many instances.
        count: u32,
    },
    /// The maximum.
    Maximum(u32),
    /// A pause: the target before.
    Paused(u32),
    /// An operator's override.
    ByHand(u32),
    /// What is left of a group whose traffic is gone.
    Draining(u32),
}

impl Layer {
    /// What a decision is bound by where the layer makes `after` of `before`; `None` where it has no part in it.
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

    /// The size that it makes of `size`.
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
    /// The pool that they stand in.
    pub pool: PoolId,
    /// The data centre of the pool.
    pub idc: IdcId,
    /// The image that they run; `None` where a census found them.
    pub version: Option<VersionId>,
    /// How many instances.
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

/// What metric rules want together: the most that any of them wants, where one that holds wants the size there is.
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
