//! Rules and limits in words.

use core::fmt::{Display, Formatter, Result};

use super::{Layer, Limit};
use crate::hpa::Usage;
use crate::num::Milli;
use crate::strategy::{Evidence, HpaEvidence, KpaEvidence, Side, StepsEvidence, ThresholdEvidence, Verdict};

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Want(count) => write!(f, "wants {count}"),
            Self::Hold => f.write_str("holds"),
            Self::Abstain => f.write_str("has no say"),
            Self::Broken => f.write_str("forbids shrinking"),
        }
    }
}

impl Display for Evidence {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Threshold(evidence) => threshold(evidence, f),
            Self::Target(evidence) => {
                write!(f, "{} per instance over {}, target {}", evidence.value, evidence.over, evidence.rule.target)
            }
            Self::QueueLength(evidence) => {
                write!(f, "{} in total, {} per instance", evidence.total, evidence.rule.per_instance)
            }
            Self::Steps(evidence) => steps(evidence, f),
            Self::Hpa(evidence) => hpa(evidence, f),
            Self::HpaFailed(error) => write!(f, "{error}"),
            Self::Heard => f.write_str("its last sample has moved the group already"),
            Self::Kpa(evidence) => kpa(evidence, f),
            Self::Given(count) => write!(f, "{count} by the host's formula"),
            Self::Silent | Self::Broken => f.write_str("no fresh sample"),
        }
    }
}

fn threshold(evidence: &ThresholdEvidence, f: &mut Formatter<'_>) -> Result {
    let side = |side: Option<Side>| side.map_or(0, |side| side.breaches);
    let ThresholdEvidence { out, inward, need, size, .. } = evidence;
    write!(f, "{} samples above, {} below, and {need} move a group of {size}", side(*out), side(*inward))
}

fn steps(evidence: &StepsEvidence, f: &mut Formatter<'_>) -> Result {
    match evidence.band {
        Some(band) => write!(f, "{} lies in the band from {}", evidence.value, band.from),
        None => write!(f, "{} lies below every band", evidence.value),
    }
}

fn hpa(evidence: &HpaEvidence, f: &mut Formatter<'_>) -> Result {
    let target = evidence.metric.target;
    match evidence.usage {
        Usage::Pods(tally) if evidence.metric.is_utilization() => {
            let percent = tally.used.saturating_mul(100) / tally.requested.max(1);
            write!(f, "{} ready pods use {percent} % of what they request, target {target} %", tally.ready)
        }
        Usage::Pods(tally) => {
            let average = Milli::from_thousandths(tally.used / tally.known.max(1));
            write!(f, "{average} per pod over {}, target {}", tally.ready, Milli::from_thousandths(target))
        }
        Usage::Value { usage, .. } | Usage::AverageValue { usage, .. } => {
            write!(f, "{} in total, target {}", Milli::from_thousandths(usage), Milli::from_thousandths(target))
        }
    }
}

fn kpa(evidence: &KpaEvidence, f: &mut Formatter<'_>) -> Result {
    let milli = |millionths: i64| Milli::from_thousandths(millionths / 1000);
    let KpaEvidence { rule, ready, stable_millionths, panic_millionths, .. } = evidence;
    let (stable, panic) = (milli(*stable_millionths), milli(*panic_millionths));
    write!(f, "{stable} in the stable window, {panic} in the panic window, {} per instance, {ready} ready", rule.target)
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Broken { .. } => f.write_str("a broken metric"),
            Self::Bounds { min, max } => write!(f, "bounds of {min} and {max}"),
            Self::StabilizedOut { least, .. } => write!(f, "stabilisation, at least {least} wanted in the window"),
            Self::StabilizedIn { most, .. } => write!(f, "stabilisation, at most {most} wanted in the window"),
            Self::Highest { most } => write!(f, "the highest count in the window, {most}"),
            Self::Jump { factor, minimum, .. } => write!(f, "growth to at most {factor} times the size, or {minimum}"),
            Self::Leap { .. } => f.write_str("a leap of the clock that the next tick must confirm"),
            Self::Cooldown { waited_ms, cooldown_ms, .. } => {
                write!(f, "a cool-down, {waited_ms} of {cooldown_ms} ms waited")
            }
            Self::Rate { bound, .. } => write!(f, "a rate that allows {bound}"),
        }
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Deltas(by) => write!(f, "timed deltas of {by:+}"),
            Self::Steps(by) => write!(f, "timed steps of +{by}"),
            Self::Floor { count, .. } => write!(f, "a timed floor of {count}"),
            Self::Chain(count) => write!(f, "a chain's task of {count}"),
            Self::Minimum(count) => write!(f, "the minimum of {count}"),
            Self::Cap { count, .. } => write!(f, "a timed cap of {count}"),
            Self::Maximum(count) => write!(f, "the maximum of {count}"),
            Self::Paused(_) => f.write_str("a pause"),
            Self::ByHand(_) => f.write_str("an operator"),
            Self::Draining(_) => f.write_str("what is left of a group whose traffic is gone"),
        }
    }
}
