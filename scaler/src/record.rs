//! The record of a decision: every number it follows from, and its own proof.

use alloc::string::String;
use core::fmt::Write as _;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::allot::Allotment;
use crate::id::{GroupId, RuleId};
use crate::num::shift;
use crate::reason::Reason;
use crate::strategy::{Evidence, Verdict};

/// How many instances a group gets, and why: per rule what it read and said, the limits and the layers in order, each
/// with the size before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct Decision {
    /// When it was made.
    pub at: Timestamp,
    /// The instances that served.
    pub ready: u32,
    /// The instances on their way.
    pub starting: u32,
    /// The target before.
    pub previous: u32,
    /// The target.
    pub target: u32,
    /// The last thing that changed the target.
    pub reason: Reason,
    /// Before this instant the answer cannot change, unless an input does.
    pub next_change: Timestamp,
    /// The numbers behind it.
    pub lines: Lines,
}

/// The numbers behind a [`Decision`], in the order in which they took effect.
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
}

/// What one metric rule read and said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
            Self::Floor(count) | Self::Minimum(count) => size.max(count),
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
    fn layer(&mut self, line: LayerLine);
}

impl Trace for () {
    const ON: bool = false;
    fn base(&mut self, _: u32) {}
    fn timed(&mut self, _: TimedLine) {}
    fn rule(&mut self, _: RuleLine) {}
    fn limit(&mut self, _: LimitLine) {}
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

/// A decision, and what pools made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// The group.
    pub group: GroupId,
    /// The decision.
    pub decision: Decision,
    /// The split over pools.
    pub allotment: Allotment,
}

impl Record {
    /// Recomputes the decision from its own numbers, and checks that the split adds up to it.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn verify(&self) -> Result<(), Mismatch> {
        self.decision.verify()?;
        let sum = |parts: &[(crate::PoolId, u32)]| parts.iter().map(|(_, count)| i64::from(*count)).sum::<i64>();
        let Allotment { lent, returned, missing, waiting, .. } = &self.allotment;
        let grown = sum(lent) + i64::from(*missing);
        let shrunk = sum(returned) + i64::from(*waiting);
        if grown - shrunk == self.decision.change() && (grown == 0 || shrunk == 0) {
            Ok(())
        } else {
            Err(Mismatch::Allotment)
        }
    }

    /// The whole story in words, a line each.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut out = self.decision.explain();
        // Writing into a string does not fail.
        let _ = self.tell(&mut out);
        out
    }

    fn tell(&self, out: &mut String) -> core::fmt::Result {
        let Allotment { version, lent, returned, missing, causes, refusal, waiting } = &self.allotment;
        for (pool, count) in lent {
            writeln!(out, "  pool {pool}: +{count}, version {}", version.map_or(0, |version| version.0))?;
        }
        for (pool, count) in returned {
            writeln!(out, "  pool {pool}: -{count}")?;
        }
        if *missing > 0 {
            writeln!(out, "  short of {missing}: {causes:?} {refusal:?}")?;
        }
        if *waiting > 0 {
            writeln!(out, "  {waiting} go once they have started")?;
        }
        Ok(())
    }
}

/// Where a record does not follow from its own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// A rule's verdict does not follow from what it read.
    #[error("the verdict of rule {0} does not follow from what it read")]
    Rule(RuleId),
    /// A limit, counted from 0, does not start where the one before ended, or ends elsewhere than it says.
    #[error("limit {0} does not follow")]
    Limit(usize),
    /// A layer, counted from 0, does not start where the one before ended, or ends elsewhere than it says.
    #[error("layer {0} does not follow")]
    Layer(usize),
    /// The deltas that hold do not add up to their layer.
    #[error("the deltas do not add up to their layer")]
    Deltas,
    /// The target is not what the last layer leaves.
    #[error("the target is not what the last layer leaves")]
    Target,
    /// What was allotted, what is short and what was asked do not add up.
    #[error("the allotment does not add up to the change")]
    Allotment,
}

impl Decision {
    /// The change from what is there or on its way: above zero to grow, below to shrink.
    #[must_use]
    pub fn change(&self) -> i64 {
        i64::from(self.target) - i64::from(self.ready) - i64::from(self.starting)
    }

    /// Recomputes the decision from its own numbers.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn verify(&self) -> Result<(), Mismatch> {
        let Lines { timed, rules, limits, layers, base } = &self.lines;
        let mut said = Said::nothing(*base);
        for line in rules {
            if line.evidence.verdict() != line.verdict {
                return Err(Mismatch::Rule(line.rule));
            }
            said.hear(line.rule, line.verdict, *base);
        }
        let mut size = said.wanted;
        for (at, line) in limits.iter().enumerate() {
            if line.before != size || line.limit.apply(size) != line.after {
                return Err(Mismatch::Limit(at));
            }
            size = line.after;
        }
        let mut deltas = 0;
        for line in timed {
            if let TimedLine::Delta { given, .. } = line {
                deltas += i64::from(*given);
            }
        }
        for (at, line) in layers.iter().enumerate() {
            if line.before != size || line.layer.apply(size) != line.after {
                return Err(Mismatch::Layer(at));
            }
            if let Layer::Deltas(sum) = line.layer {
                deltas -= sum;
            }
            size = line.after;
        }
        if deltas != 0 {
            return Err(Mismatch::Deltas);
        }
        if size == self.target { Ok(()) } else { Err(Mismatch::Target) }
    }

    /// The whole story in words, a line each.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = self.tell(&mut out);
        out
    }

    fn tell(&self, out: &mut String) -> core::fmt::Result {
        let Self { ready, starting, previous, target, reason, .. } = self;
        writeln!(out, "target {target} (was {previous}; {ready} ready, {starting} starting): {reason}")?;
        for line in &self.lines.timed {
            match line {
                TimedLine::Delta { rule, asked, given } => {
                    writeln!(out, "  rule {rule}: delta {asked:+}, given {given:+}")?;
                }
                TimedLine::Step { rule, asked, given, .. } => {
                    writeln!(out, "  rule {rule}: step {asked:+}, given {given:+}")?;
                }
            }
        }
        for line in &self.lines.rules {
            write!(out, "  rule {}: {:?}", line.rule, line.verdict)?;
            match line.age_ms {
                Some(age) => writeln!(out, ", from {:?}, {age} ms old", line.evidence)?,
                None => writeln!(out, ", from {:?}, no sample", line.evidence)?,
            }
        }
        for line in self.lines.limits.iter().filter(|line| line.before != line.after) {
            writeln!(out, "  {:?}: {} -> {}", line.limit, line.before, line.after)?;
        }
        for line in self.lines.layers.iter().filter(|line| line.before != line.after) {
            writeln!(out, "  {:?}: {} -> {}", line.layer, line.before, line.after)?;
        }
        Ok(())
    }
}
