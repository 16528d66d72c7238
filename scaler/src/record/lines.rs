//! The numbers behind a decision, line by line, each with the one function that says what follows from it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::behavior::{RateLine, bound};
use crate::hpa::Select;
use crate::id::RuleId;
use crate::num::shift;
use crate::reason::Direction;
use crate::strategy::{Evidence, Verdict};

/// The numbers behind a [`Decision`](crate::Decision), in the order in which they took effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lines {
    /// Timed deltas that hold, and steps that were taken.
    pub timed: SmallVec<[TimedLine; 1]>,
    /// What each metric rule read and said.
    pub rules: SmallVec<[RuleLine; 2]>,
    /// What held metric rules back.
    pub limits: SmallVec<[LimitLine; 3]>,
    /// What stands above metric rules.
    pub layers: SmallVec<[LayerLine; 3]>,
    /// The size that metric rules had decided before.
    pub base: u32,
    /// The policies of the rate that holds metric rules back, if any.
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
    /// A pause: the size stays.
    Paused {
        /// The size before.
        size: u32,
    },
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
    /// The stabilisation windows.
    Stabilized {
        /// The size before.
        size: u32,
        /// The least that was wanted in the window for growing.
        least: u32,
        /// The most that was wanted in the window for shrinking.
        most: u32,
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
    /// The size that it leaves of `wanted`.
    #[must_use]
    pub fn apply(&self, wanted: u32) -> u32 {
        match *self {
            Self::Paused { size } => size,
            Self::Broken { size } => wanted.max(size),
            Self::Bounds { min, max } => wanted.clamp(min, max.max(min)),
            Self::Stabilized { size, least, most } => size.max(least).min(most.max(least)),
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
    Floor(u32),
    /// What a task for its chain holds it at.
    Chain(u32),
    /// The minimum.
    Minimum(u32),
    /// The lowest timed cap.
    Cap(u32),
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
    /// The size that it makes of `size`.
    #[must_use]
    pub fn apply(&self, size: u32) -> u32 {
        match *self {
            Self::Deltas(by) => shift(size, by),
            Self::Steps(by) => size.saturating_add(by),
            Self::Floor(count) | Self::Chain(count) | Self::Minimum(count) => size.max(count),
            Self::Cap(count) | Self::Maximum(count) | Self::Draining(count) => size.min(count),
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

/// Where a decision's lines go: into its record, or nowhere.
pub(crate) trait Trace {
    const ON: bool;
    fn base(&mut self, size: u32);
    fn timed(&mut self, line: TimedLine);
    fn rule(&mut self, line: RuleLine);
    fn limit(&mut self, line: LimitLine);
    fn rate(&mut self, select: Select, lines: impl Iterator<Item = RateLine>);
    fn layer(&mut self, line: LayerLine);
}

impl Trace for () {
    const ON: bool = false;
    fn base(&mut self, _: u32) {}
    fn timed(&mut self, _: TimedLine) {}
    fn rule(&mut self, _: RuleLine) {}
    fn limit(&mut self, _: LimitLine) {}
    fn rate(&mut self, _: Select, _: impl Iterator<Item = RateLine>) {}
    fn layer(&mut self, _: LayerLine) {}
}

impl Trace for Lines {
    const ON: bool = true;
    fn base(&mut self, size: u32) {
        self.base = size;
    }
    fn timed(&mut self, line: TimedLine) {
        self.timed.push(line);
    }
    fn rule(&mut self, line: RuleLine) {
        self.rules.push(line);
    }
    fn limit(&mut self, line: LimitLine) {
        self.limits.push(line);
    }
    fn rate(&mut self, select: Select, lines: impl Iterator<Item = RateLine>) {
        self.rate = Some(Box::new(RateLines { select, policies: lines.collect() }));
    }
    fn layer(&mut self, line: LayerLine) {
        self.layers.push(line);
    }
}

/// What metric rules want together: the most that any of them wants, where one that holds wants the size there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) wanted: u32,
    pub(crate) by: Option<RuleId>,
    spoken: bool,
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
