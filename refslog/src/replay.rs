//! Replay: bringing a state forward along its log.

use alloc::vec::Vec;
use core::convert::Infallible;

use crate::change::{Change, Old, Value};
use crate::compact::{Mode, Segment};
use crate::config::Config;
use crate::digest::Checksum;
use crate::id::{LineageId, Point, Version};
use crate::name::RefName;
use crate::record::Record;
use crate::refs::Refs;

/// The result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Replayed {
    /// Applied: the refs are now at the end of the record or segment.
    Applied,
    /// Already applied: the refs had seen all of it, and nothing was changed.
    AlreadyApplied,
}

/// Why a record or segment cannot be replayed on these refs. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ReplayError {
    /// Records are missing between the refs and the record or segment: fetch those after `have` first.
    #[error("the refs are at version {have}, the record or segment starts at {need}")]
    Gap {
        /// The version of the refs.
        have: Version,
        /// The version that the replay starts at.
        need: Version,
    },
    /// An exact segment applies at its base only, and is rolled back at its end only.
    #[error("the refs are at version {have}, and must be at {need}")]
    NotAtBase {
        /// The version of the refs.
        have: Version,
        /// The version needed.
        need: Version,
    },
    /// The refs follow another log: resynchronise from a snapshot of this one.
    #[error("the refs follow log {have}, the record or segment is of log {found}")]
    LineageMismatch {
        /// The log of the refs.
        have: LineageId,
        /// The log of the record or segment.
        found: LineageId,
    },
    /// A ref does not hold the value that the change replaces: the replica has diverged.
    #[error("'{name}' does not hold what the change replaces")]
    OldMismatch {
        /// The name of the ref.
        name: RefName,
    },
    /// The result would have another checksum than the log says: the replica has diverged, or the key is another.
    ///
    /// Also returned if the refs are at this version already, but are others.
    #[error("version {version} would have checksum {found}, not {want}")]
    ChecksumMismatch {
        /// The version of the result.
        version: Version,
        /// The checksum that the log says.
        want: Checksum,
        /// The checksum that the result would have.
        found: Checksum,
    },
    /// The old values were dropped, so the segment cannot be rolled back.
    #[error("the old values were dropped, so the segment cannot be rolled back")]
    NeedsOldValues,
    /// An id is not of the repository's object format.
    #[error("the id of '{name}' is not of the repository's object format")]
    Format {
        /// The name of the ref.
        name: RefName,
    },
}

/// A stretch of a log: what records and segments have in common.
pub(crate) struct Part<'a> {
    base: Version,
    base_checksum: Option<Checksum>,
    after: Point,
    mode: Mode,
    changes: &'a [Change],
}

impl Part<'_> {
    pub(crate) const fn after(&self) -> Point {
        self.after
    }

    pub(crate) const fn changes(&self) -> &[Change] {
        self.changes
    }
}

impl<'a> Part<'a> {
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
    /// Applies a segment of the log. An error leaves the refs as they were: the checksum is computed first.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// # let transaction: Transaction = [Command::create(main.clone(), id)].into_iter().collect();
    /// # let record = refs.admit(&transaction)?.into_record().expect("the ref is new");
    /// # let before = refs.clone();
    /// # refs.apply(&record)?;
    /// use tenon_refslog::{Mode, Replayed, Segment};
    ///
    /// let mut replica = before;
    /// let segment = Segment::of_record(replica.point(), &record, Mode::Cover)?;
    /// assert_eq!(replica.replay(&segment)?, Replayed::Applied);
    /// assert_eq!(replica.checksum(), refs.checksum());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`ReplayError`]; nothing is changed.
    pub fn replay(&mut self, segment: &Segment) -> Result<Replayed, ReplayError> {
        self.take(&Part::of_segment(segment))
    }

    /// The changes that [`Refs::replay`] would make here, each with its old value. Empty if all was seen already.
    ///
    /// For a replica that replays into a store of its own, such as Git.
    ///
    /// # Errors
    ///
    /// As [`Refs::replay`].
    pub fn pending(&self, segment: &Segment) -> Result<Vec<Change>, ReplayError> {
        let part = Part::of_segment(segment);
        if self.check(&part)? == Replayed::AlreadyApplied {
            return Ok(Vec::new());
        }
        let net = part.changes.iter().filter_map(|change| {
            let name = change.name();
            let current = self.get(name);
            let new = change.new_value();
            (current.as_ref() != new).then(|| Change::new(name.clone(), Old::known(current), new.cloned()))
        });
        Ok(net.collect())
    }

    /// Rolls a segment back by its old values: for a replica that went ahead of the log, or along a fork of it.
    ///
    /// The refs must be at the segment's end, in its very state. A record is rolled back as [`Segment::of_record`].
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// # let transaction: Transaction = [Command::create(main.clone(), id)].into_iter().collect();
    /// # let record = refs.admit(&transaction)?.into_record().expect("the ref is new");
    /// # let before = refs.clone();
    /// # refs.apply(&record)?;
    /// use tenon_refslog::{Mode, Segment};
    ///
    /// let segment = Segment::of_record(before.point(), &record, Mode::Cover)?;
    /// refs.rollback(&segment)?;
    /// assert_eq!(refs.point(), before.point());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`ReplayError`]; nothing is changed.
    pub fn rollback(&mut self, segment: &Segment) -> Result<(), ReplayError> {
        let (base, end) = (segment.base(), segment.end());
        if self.point.lineage != end.lineage {
            return Err(ReplayError::LineageMismatch { have: self.point.lineage, found: end.lineage });
        }
        if self.point.version != end.version {
            return Err(ReplayError::NotAtBase { have: self.point.version, need: end.version });
        }
        if self.point.checksum != end.checksum {
            let (want, found) = (end.checksum, self.point.checksum);
            return Err(ReplayError::ChecksumMismatch { version: end.version, want, found });
        }
        let undo = segment.changes().iter().map(|change| match change.old() {
            Old::Any => Err(ReplayError::NeedsOldValues),
            Old::Absent | Old::Is(_) => Ok(Change::new(
                change.name().clone(),
                Old::known(change.new_value().cloned()),
                change.old().value().cloned(),
            )),
        });
        let undo = undo.collect::<Result<Vec<_>, _>>()?;
        let found = self.checksum_after(&undo)?;
        if found != base.checksum {
            return Err(ReplayError::ChecksumMismatch { version: base.version, want: base.checksum, found });
        }
        self.set(&undo);
        self.point = base;
        Ok(())
    }

    fn set(&mut self, changes: &[Change]) {
        for change in changes {
            match change.new_value() {
                Some(value) => self.map.insert(change.name(), value),
                None => self.map.remove(change.name().as_bytes()),
            }
        }
    }

    pub(crate) fn take(&mut self, part: &Part<'_>) -> Result<Replayed, ReplayError> {
        if self.check(part)? == Replayed::AlreadyApplied {
            return Ok(Replayed::AlreadyApplied);
        }
        self.set(part.changes);
        self.point = part.after;
        Ok(Replayed::Applied)
    }

    fn check(&self, part: &Part<'_>) -> Result<Replayed, ReplayError> {
        let get = |name: &RefName| Ok::<_, Infallible>(self.get(name));
        match check(&self.config, self.point, part, get) {
            Ok(verdict) => verdict,
            Err(never) => match never {},
        }
    }

    fn checksum_after(&self, changes: &[Change]) -> Result<Checksum, ReplayError> {
        let get = |name: &RefName| Ok::<_, Infallible>(self.get(name));
        match checksum_after(&self.config, self.point.checksum, changes, true, get) {
            Ok(checksum) => checksum,
            Err(never) => match never {},
        }
    }
}

/// Whether a stretch can be taken at `point`, and would lead where it says; `AlreadyApplied` where it is behind. `get` looks
/// refs up; the outer error is that of looking up.
pub(crate) fn check<E>(
    config: &Config,
    point: Point,
    part: &Part<'_>,
    get: impl FnMut(&RefName) -> Result<Option<Value>, E>,
) -> Result<Result<Replayed, ReplayError>, E> {
    let have = point.version;
    if let Some(early) = place(point, part).transpose() {
        return Ok(early);
    }
    let found = match checksum_after(config, point.checksum, part.changes, have == part.base, get)? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    if found == part.after.checksum {
        return Ok(Ok(Replayed::Applied));
    }
    let (version, want) = (part.after.version, part.after.checksum);
    Ok(Err(ReplayError::ChecksumMismatch { version, want, found }))
}

/// Judges a stretch by versions alone: `None` if it starts here, or may be taken here.
fn place(point: Point, part: &Part<'_>) -> Result<Option<Replayed>, ReplayError> {
    let have = point.version;
    let mismatch = |want| ReplayError::ChecksumMismatch { version: have, want, found: point.checksum };
    if point.lineage != part.after.lineage {
        return Err(ReplayError::LineageMismatch { have: point.lineage, found: part.after.lineage });
    }
    // Another record of this version is not late, but of a fork.
    if have == part.after.version && point.checksum != part.after.checksum {
        return Err(mismatch(part.after.checksum));
    }
    if have >= part.after.version {
        return Ok(Some(Replayed::AlreadyApplied));
    }
    if have < part.base {
        return Err(ReplayError::Gap { have, need: part.base });
    }
    if have != part.base && part.mode == Mode::Exact {
        return Err(ReplayError::NotAtBase { have, need: part.base });
    }
    match part.base_checksum {
        Some(want) if have == part.base && want != point.checksum => Err(mismatch(want)),
        _ => Ok(None),
    }
}

/// The checksum that the changes lead to. At their base, their old values must be what the refs hold.
fn checksum_after<E>(
    config: &Config,
    before: Checksum,
    changes: &[Change],
    at_base: bool,
    mut get: impl FnMut(&RefName) -> Result<Option<Value>, E>,
) -> Result<Result<Checksum, ReplayError>, E> {
    let key = &config.key;
    let mut checksum = before;
    for change in changes {
        let name = change.name();
        let current = get(name)?;
        let current = current.as_ref();
        if at_base && !change.old().matches(current) {
            return Ok(Err(ReplayError::OldMismatch { name: name.clone() }));
        }
        let new = change.new_value();
        if !new.is_none_or(|value| value.fits(config.format)) {
            return Ok(Err(ReplayError::Format { name: name.clone() }));
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
    Ok(Ok(checksum))
}
