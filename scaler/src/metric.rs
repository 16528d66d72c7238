//! Metrics: what a group is measured by, and the treatment of samples that are too old.

use crate::Timestamp;
use crate::id::MetricId;
use crate::num::Milli;

/// A sample: one measurement of a metric.
///
/// A missing one (a NaN) is not passed on, and the last one grows older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sample {
    /// The time when it was taken.
    pub at: Timestamp,
    /// The measured value.
    pub value: Milli,
    /// The number of ready instances at the time of the sample, which it is averaged over.
    ///
    /// So a fleet that has grown since does not multiply an old average by its new size.
    pub over: u32,
}

/// The treatment of a metric whose last sample is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Staleness {
    /// Broken: the group may grow by other rules, but not shrink.
    #[default]
    ForbidIn,
    /// Ignored: the rules on this metric have no say, as if they did not exist.
    Ignore,
    /// Assumed: the metric reads as this value.
    Assume(Milli),
}

/// A metric that a group's rules may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Metric {
    /// The id of the metric within the group.
    pub id: MetricId,
    /// The age, in ms, from which a sample no longer counts.
    pub stale_after_ms: u64,
    /// The treatment of the metric once its last sample is too old.
    pub when_stale: Staleness,
}

/// A metric as a rule reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A fresh sample.
    Fresh(Sample),
    /// No fresh sample, and a value to read in its place.
    Assumed(Milli),
    /// No fresh sample; the rule has no say.
    Silent,
    /// No fresh sample; nothing may shrink.
    Broken,
}

impl Metric {
    /// Reads `sample` at `now`.
    pub(crate) fn read(&self, sample: Option<Sample>, now: Timestamp) -> Reading {
        match sample {
            Some(sample) if now.millis_since(sample.at) < self.stale_after_ms => Reading::Fresh(sample),
            _ => match self.when_stale {
                Staleness::ForbidIn => Reading::Broken,
                Staleness::Ignore => Reading::Silent,
                Staleness::Assume(value) => Reading::Assumed(value),
            },
        }
    }
}
