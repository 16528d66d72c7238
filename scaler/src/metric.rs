//! What a group is measured by, and what a measurement that stays away means.

use crate::Timestamp;
use crate::id::MetricId;
use crate::num::Milli;

/// One measurement. A missing one (a NaN) is no sample: it is not passed on, and the last one grows older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sample {
    /// When it was taken.
    pub at: Timestamp,
    /// What was measured.
    pub value: Milli,
    /// The ready instances it is averaged over: those at the time of the sample, so that a fleet that has grown since
    /// does not multiply an old average by its new size.
    pub over: u32,
}

/// What a metric says once its last sample is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Staleness {
    /// The metric is broken: the group may grow by other rules, but not shrink.
    #[default]
    ForbidIn,
    /// The rules on this metric have no say, as if they were not there.
    Ignore,
    /// The metric reads as this value.
    Assume(Milli),
}

/// A metric that a group's rules may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Metric {
    /// Its name within the group.
    pub id: MetricId,
    /// The age, in ms, from which a sample no longer counts.
    pub stale_after_ms: u64,
    /// What it says then.
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
