//! *Step*: the change depends on how far the metric is from where it should be.

use alloc::vec::Vec;

use super::{Change, Verdict};
use crate::error::PolicyError;
use crate::id::RuleId;
use crate::num::{Milli, shift};

/// The adjustment that a band makes to the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Adjust {
    /// Hold: the metric is where it should be.
    Hold,
    /// Grow by this change.
    Out(Change),
    /// Shrink by this change.
    In(Change),
    /// Set the size to this number.
    To(u32),
}

/// A band: a range of values with its adjustment. It ends where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Band {
    /// The lowest value of the band.
    pub from: Milli,
    /// The adjustment.
    pub adjust: Adjust,
}

/// Step scaling: bands in the order of their values, with larger steps further off. Below the first, the rule has no
/// say.
///
/// Growth starts from the instances that serve, so that a group does not grow again for a load that the instances on their
/// way will take; a group moves at most once for each sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Steps {
    /// The bands.
    pub bands: Vec<Band>,
}

/// The maximum number of bands of one rule.
const MAX_BANDS: usize = 64;

impl Steps {
    pub(super) fn check(&self, rule: RuleId) -> Result<(), PolicyError> {
        let ascending = self.bands.windows(2).all(|two| two[0].from < two[1].from);
        let sound = ascending && !self.bands.is_empty() && self.bands.len() <= MAX_BANDS;
        if sound { Ok(()) } else { Err(PolicyError::Bands(rule)) }
    }

    /// The evidence for a group of `size`, of which `ready` serve.
    pub(crate) fn evidence(&self, value: Milli, size: u32, ready: u32) -> StepsEvidence {
        let above = self.bands.partition_point(|band| band.from <= value);
        let band = above.checked_sub(1).and_then(|at| self.bands.get(at)).copied();
        StepsEvidence { value, band, until: self.bands.get(above).map(|next| next.from), size, ready }
    }
}

/// The numbers that a step rule's verdict follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StepsEvidence {
    /// The measured value.
    pub value: Milli,
    /// The band that it falls into.
    pub band: Option<Band>,
    /// The value where the next band begins.
    pub until: Option<Milli>,
    /// The size that metric rules start from.
    pub size: u32,
    /// The part of the size that serves. Growth starts from here.
    pub ready: u32,
}

impl StepsEvidence {
    pub(super) fn verdict(&self) -> Verdict {
        let Some(band) = self.band.filter(|band| band.from <= self.value) else { return Verdict::Abstain };
        if self.until.is_some_and(|until| until <= self.value) {
            return Verdict::Abstain;
        }
        match band.adjust {
            Adjust::Hold => Verdict::Hold,
            Adjust::To(count) => Verdict::Want(count),
            Adjust::Out(by) => {
                let from = self.size.min(self.ready);
                Verdict::Want(from.saturating_add(by.of(from).max(1)).max(self.size))
            }
            Adjust::In(by) => Verdict::Want(shift(self.size, -i64::from(by.of(self.size).max(1)))),
        }
    }
}
