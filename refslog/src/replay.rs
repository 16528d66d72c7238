//! Bringing a state forward along its log.

use alloc::vec::Vec;

use crate::change::{Change, Old};
use crate::compact::{Mode, Segment};
use crate::digest::Checksum;
use crate::id::{LineageId, Point, Version};
use crate::log::Record;
use crate::name::RefName;
use crate::refs::Refs;

/// What replaying did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Replayed {
    /// The refs now stand at the end of what was replayed.
    Applied,
    /// The refs had seen all of it: nothing was changed.
    AlreadyApplied,
}

/// Why a record or segment cannot be replayed on these refs. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ReplayError {
    /// Records between the refs and what was given are missing: fetch those after `have` first.
    #[error("the refs are at version {have}, what was given starts at {need}")]
    Gap {
        /// Version of the refs.
        have: Version,
        /// Version that is needed.
        need: Version,
    },
    /// An exact segment applies at its base only.
    #[error("the refs are at version {have}, an exact segment applies at {need} only")]
    NotAtBase {
        /// Version of the refs.
        have: Version,
        /// Version that is needed.
        need: Version,
    },
    /// The refs follow another log: resynchronise from a snapshot of this one.
    #[error("the refs follow log {have}, what was given is of log {found}")]
    LineageMismatch {
        /// Log of the refs.
        have: LineageId,
        /// Log of what was given.
        found: LineageId,
    },
    /// A ref does not hold what the change replaces: the replica has diverged.
    #[error("'{name}' does not hold what the change replaces")]
    OldMismatch {
        /// The ref.
        name: RefName,
    },
    /// The result would not have the checksum that it must have: the replica has diverged, or the key is another.
    #[error("version {version} would have checksum {found}, not {want}")]
    ChecksumMismatch {
        /// The version.
        version: Version,
        /// The checksum that it must have.
        want: Checksum,
        /// The checksum that it would have.
        found: Checksum,
    },
    /// An id is not of the repository's object format.
    #[error("the id of '{name}' is not of the repository's object format")]
    Format {
        /// The ref.
        name: RefName,
    },
}

/// A stretch of a log: what records and segments have in common.
pub(crate) struct Stretch<'a> {
    base: Version,
    base_checksum: Option<Checksum>,
    after: Point,
    mode: Mode,
    changes: &'a [Change],
}

impl<'a> Stretch<'a> {
    /// A record is both: its one step can only be taken from its base.
    pub(crate) fn of_record(record: &'a Record) -> Self {
        Self {
            base: record.base_version(),
            base_checksum: None,
            after: record.after(),
            mode: Mode::Exact,
            changes: record.changes(),
        }
    }

    pub(crate) fn of_segment(segment: &'a Segment) -> Self {
        Self {
            base: segment.base().version,
            base_checksum: Some(segment.base().checksum),
            after: segment.end(),
            mode: segment.mode(),
            changes: segment.changes(),
        }
    }
}

impl Refs {
    /// Takes a compacted stretch of the log. The result's checksum is computed first: an error leaves the refs as they
    /// were.
    ///
    /// # Errors
    /// See [`ReplayError`]; nothing is changed.
    pub fn replay(&mut self, segment: &Segment) -> Result<Replayed, ReplayError> {
        self.take(&Stretch::of_segment(segment))
    }

    /// What [`Refs::replay`] would change here, each with what it replaces: for a replica that replays into a store of its
    /// own, such as Git. Empty where all was seen already.
    ///
    /// # Errors
    /// As [`Refs::replay`].
    pub fn pending(&self, segment: &Segment) -> Result<Vec<Change>, ReplayError> {
        let stretch = Stretch::of_segment(segment);
        if self.check(&stretch)? == Replayed::AlreadyApplied {
            return Ok(Vec::new());
        }
        let net = stretch.changes.iter().filter_map(|change| {
            let current = self.map.get(change.name());
            (current != change.new_value())
                .then(|| Change::new(change.name().clone(), Old::known(current.cloned()), change.new_value().cloned()))
        });
        Ok(net.collect())
    }

    pub(crate) fn take(&mut self, stretch: &Stretch<'_>) -> Result<Replayed, ReplayError> {
        if self.check(stretch)? == Replayed::AlreadyApplied {
            return Ok(Replayed::AlreadyApplied);
        }
        for change in stretch.changes {
            match change.new_value() {
                Some(value) => self.map.insert(change.name().clone(), value.clone()),
                None => self.map.remove(change.name()),
            };
        }
        self.point = stretch.after;
        Ok(Replayed::Applied)
    }

    /// Whether the stretch can be taken from here, and would lead where it says; `AlreadyApplied` where it is behind.
    fn check(&self, stretch: &Stretch<'_>) -> Result<Replayed, ReplayError> {
        let have = self.point.version;
        if self.point.lineage != stretch.after.lineage {
            return Err(ReplayError::LineageMismatch { have: self.point.lineage, found: stretch.after.lineage });
        }
        if have >= stretch.after.version {
            return Ok(Replayed::AlreadyApplied);
        }
        if have < stretch.base {
            return Err(ReplayError::Gap { have, need: stretch.base });
        }
        let at_base = have == stretch.base;
        if !at_base && stretch.mode == Mode::Exact {
            return Err(ReplayError::NotAtBase { have, need: stretch.base });
        }
        if let Some(want) = stretch.base_checksum.filter(|_| at_base)
            && want != self.point.checksum
        {
            return Err(ReplayError::ChecksumMismatch { version: have, want, found: self.point.checksum });
        }
        let found = self.checksum_after(stretch.changes, at_base)?;
        if found != stretch.after.checksum {
            return Err(ReplayError::ChecksumMismatch {
                version: stretch.after.version,
                want: stretch.after.checksum,
                found,
            });
        }
        Ok(Replayed::Applied)
    }

    /// The checksum that the changes lead to. At their base, their old values must be what the refs hold.
    fn checksum_after(&self, changes: &[Change], at_base: bool) -> Result<Checksum, ReplayError> {
        let key = &self.config.key;
        let mut checksum = self.point.checksum;
        for change in changes {
            let name = change.name();
            let current = self.map.get(name);
            if at_base && !change.old().matches(current) {
                return Err(ReplayError::OldMismatch { name: name.clone() });
            }
            let new = change.new_value();
            if !new.is_none_or(|value| value.fits(self.config.format)) {
                return Err(ReplayError::Format { name: name.clone() });
            }
            if current == new {
                continue;
            }
            if let Some(value) = current {
                checksum = checksum.minus(key.entry(name, value));
            }
            if let Some(value) = new {
                checksum = checksum.plus(key.entry(name, value));
            }
        }
        Ok(checksum)
    }
}
