//! Records of decisions: every number that a decision follows from, and a check that it does.

mod explain;
mod lines;
mod words;

pub use lines::{Adopted, Layer, LayerLine, Limit, LimitLine, Lines, RateLines, RuleLine, TimedLine};
pub(crate) use lines::{Said, Stage, Trace};

use crate::Timestamp;
use crate::allot::Allotment;
use crate::id::{GroupId, RuleId};
use crate::reason::{Direction, Reason};

/// A decision: the size of a group, with its reasons.
///
/// Per rule what it read and said, then the limits and the layers in order, each with the size before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct Decision {
    /// The time of the decision.
    pub at: Timestamp,
    /// The number of instances that served.
    pub ready: u32,
    /// The number of instances on their way.
    pub starting: u32,
    /// The target before.
    pub previous: u32,
    /// The target.
    pub target: u32,
    /// The reason for the target: the last thing that changed it.
    pub reason: Reason,
    /// The time before which the answer cannot change, unless an input does.
    pub next_change: Timestamp,
    /// The numbers behind the decision.
    pub lines: Lines,
}

/// A record: a decision, and its split over pools.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// The id of the group.
    pub group: GroupId,
    /// The decision.
    pub decision: Decision,
    /// The split over pools.
    pub allotment: Allotment,
}

impl Record {
    /// Verifies the record: recomputes the decision from its own numbers, and checks that the split adds up to it.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn verify(&self) -> Result<(), Mismatch> {
        self.decision.verify()?;
        let sum = |parts: &[(crate::PoolId, u32)]| parts.iter().map(|(_, count)| i64::from(*count)).sum::<i64>();
        let Allotment { lent, returned, cancelled, missing, waiting, .. } = &self.allotment;
        let grown = sum(lent) + i64::from(*missing);
        let shrunk = sum(returned) + sum(cancelled) + i64::from(*waiting);
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
    /// The size that metric rules start from is not what the target before leaves, or one is kept though a rule has a
    /// say.
    #[error("the size that metric rules start from does not follow from the target before")]
    Base,
    /// The reason is not that of the last line that changed the target.
    #[error("the reason does not follow from the lines")]
    Reason,
    /// A limit, counted from 0, does not start where the one before ended, or ends elsewhere than it says.
    #[error("limit {0} does not follow from the lines before it")]
    Limit(usize),
    /// A layer, counted from 0, does not start where the one before ended, or ends elsewhere than it says.
    #[error("layer {0} does not follow from the lines before it")]
    Layer(usize),
    /// The deltas that hold do not add up to their layer.
    #[error("the deltas do not add up to their layer")]
    Deltas,
    /// The target is not what the last layer leaves.
    #[error("the target is not what the last layer leaves")]
    Target,
    /// The allotted and the missing instances do not add up to those requested.
    #[error("the allotment does not add up to the change")]
    Allotment,
}

impl Decision {
    /// The change from the instances that exist or are on their way: above zero to grow, below to shrink.
    #[must_use]
    pub fn change(&self) -> i64 {
        i64::from(self.target) - i64::from(self.ready) - i64::from(self.starting)
    }

    /// Verifies the decision from its own numbers: the verdict of each rule, every limit and layer, the target, and the
    /// reason.
    ///
    /// # Errors
    /// The first [`Mismatch`].
    pub fn verify(&self) -> Result<(), Mismatch> {
        let Lines { adopted, timed, base, shares, limits, layers, pace, caps, leap, top, .. } = &self.lines;
        if i64::from(self.previous) - shares != i64::from(*base) {
            return Err(Mismatch::Base);
        }
        let (mut size, mut reason) = self.verify_rules()?;
        let mut at = 0;
        let mut limit = |line: &LimitLine, size: &mut u32, reason: &mut Reason| {
            if line.before != *size || line.limit.apply(*size) != line.after {
                return Err(Mismatch::Limit(at));
            }
            if line.after != line.before {
                *reason = line.limit.reason(line.before, line.after);
            }
            (*size, at) = (line.after, at + 1);
            Ok(())
        };
        let mut at = 0;
        let mut layer = |line: &LayerLine, size: &mut u32, reason: &mut Reason| {
            if line.before != *size || line.layer.apply(*size) != line.after {
                return Err(Mismatch::Layer(at));
            }
            *reason = line.layer.reason(line.before, line.after).unwrap_or(*reason);
            (*size, at) = (line.after, at + 1);
            Ok(())
        };
        limits.iter().try_for_each(|line| limit(line, &mut size, &mut reason))?;
        layers.iter().try_for_each(|line| layer(line, &mut size, &mut reason))?;
        pace.iter().try_for_each(|line| limit(line, &mut size, &mut reason))?;
        caps.iter().try_for_each(|line| layer(line, &mut size, &mut reason))?;
        leap.iter().try_for_each(|line| limit(line, &mut size, &mut reason))?;
        top.iter().try_for_each(|line| layer(line, &mut size, &mut reason))?;
        self.verify_rate()?;
        let given =
            timed.iter().map(|line| if let TimedLine::Delta { given, .. } = line { i64::from(*given) } else { 0 });
        let added = layers.iter().map(|line| if let Layer::Deltas(sum) = line.layer { sum } else { 0 });
        if given.sum::<i64>() != added.sum::<i64>() {
            return Err(Mismatch::Deltas);
        }
        if size != self.target {
            return Err(Mismatch::Target);
        }
        let reason = reason.of_change(self.previous, self.target, adopted);
        if reason == self.reason { Ok(()) } else { Err(Mismatch::Reason) }
    }

    /// Verifies the joint result of the metric rules, and its reason.
    fn verify_rules(&self) -> Result<(u32, Reason), Mismatch> {
        let Lines { rules, base, rest, .. } = &self.lines;
        let mut metrics = crate::read::Metrics::nothing(rest.unwrap_or(*base));
        for line in rules {
            if line.evidence.verdict() != line.verdict || line.evidence.size().is_some_and(|size| size != *base) {
                return Err(Mismatch::Rule(line.rule));
            }
            metrics.hear(line.rule, line.verdict, &line.evidence, *base);
        }
        if metrics.said.spoken == rest.is_some() {
            return Err(Mismatch::Base);
        }
        Ok((metrics.said.wanted, metrics.reason()))
    }

    fn verify_rate(&self) -> Result<(), Mismatch> {
        let limits = self.lines.limits.iter().chain(&self.lines.pace);
        let rated = limits.enumerate().find_map(|(at, line)| {
            if let Limit::Rate { size, bound } = line.limit { Some((at, size, bound, line.before)) } else { None }
        });
        let Some((at, size, bound, wanted)) = rated else { return Ok(()) };
        let direction = if wanted > size { Direction::Out } else { Direction::In };
        let follows = self.lines.rate.as_ref().map_or(size, |lines| lines.bound(direction, size));
        if follows == bound { Ok(()) } else { Err(Mismatch::Limit(at)) }
    }
}
