//! The record of a decision: every number it follows from, and its own proof.

mod explain;
mod lines;
mod words;

pub use lines::{Layer, LayerLine, Limit, LimitLine, Lines, RateLines, RuleLine, TimedLine};
pub(crate) use lines::{Said, Trace};

use crate::Timestamp;
use crate::allot::Allotment;
use crate::id::{GroupId, RuleId};
use crate::reason::{Direction, Reason};

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
        let Lines { timed, rules, limits, layers, base, rate: _ } = &self.lines;
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
        self.verify_rate()?;
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

    fn verify_rate(&self) -> Result<(), Mismatch> {
        let rated = self.lines.limits.iter().enumerate().find_map(|(at, line)| {
            if let Limit::Rate { size, bound } = line.limit { Some((at, size, bound, line.before)) } else { None }
        });
        let Some((at, size, bound, wanted)) = rated else { return Ok(()) };
        let direction = if wanted > size { Direction::Out } else { Direction::In };
        let follows = self.lines.rate.as_ref().map_or(size, |lines| lines.bound(direction, size));
        if follows == bound { Ok(()) } else { Err(Mismatch::Limit(at)) }
    }
}
