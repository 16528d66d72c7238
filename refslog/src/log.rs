//! The log of one repository: a snapshot, folded segments, the newest records, and the versions that are still needed.

mod config;
mod error;
mod history;
mod needs;
mod piece;
mod undo;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::compact::{CompactError, Mode, Segment};
use crate::id::{Point, Version};
use crate::plan::{Extent, Limits, PieceKind, Plan, Rule, Stretch};
use crate::record::Record;
use crate::snapshot::{Merged, Snapshot};

pub use config::{LogConfig, LogConfigBuilder, LogConfigError};
pub use error::LogError;
pub use history::Touched;
pub use needs::{PinId, ReplicaId, Standing};
pub use piece::Piece;
pub use undo::{Kept, KeptReason, Undo};

/// Whether the log accepted a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Taken {
    /// Accepted: the log has changed.
    Taken,
    /// Unchanged: the fact was late, repeated or unknown.
    Unchanged,
}

/// The result of a fold, with its statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Folded {
    /// The folded segment: make it durable, then tell [`Log::handle_folded`].
    pub segment: Segment,
    /// The pieces that were folded: base, end, number of changes.
    pub inputs: Vec<(Version, Version, usize)>,
    /// The number of changes that a later change of the same ref replaced.
    pub superseded: usize,
}

/// The result of a merge into the snapshot, with its statistics.
#[derive(Clone, Debug)]
#[must_use]
pub struct Absorbed {
    /// The later snapshot: make it durable, then tell [`Log::handle_absorbed`].
    pub snapshot: Snapshot,
    /// The pieces that were merged: base, end, number of changes.
    ///
    /// Their versions can no longer be told apart.
    pub inputs: Vec<(Version, Version, usize)>,
    /// The number of changes that a later change of the same ref replaced.
    pub superseded: usize,
    /// The number of refs that are new in the snapshot.
    pub added: usize,
    /// The number of refs whose value changed.
    pub replaced: usize,
    /// The number of refs that are gone from the snapshot.
    pub removed: usize,
    /// The number of tombstones dropped: deletions that no replica needs any more.
    pub tombstones: usize,
}

/// The log of one repository as a host keeps it: a snapshot, the pieces after it, and the versions that are still
/// needed.
///
/// Ask, do, tell: [`Log::append`] a record that is durable; ask [`Log::plan`] what to fold, do it with [`Log::fold`] or
/// [`Log::absorb`], make the result durable, tell [`Log::handle_folded`] or [`Log::handle_absorbed`], and only then
/// delete what it replaces.
#[derive(Clone, Debug)]
pub struct Log {
    config: LogConfig,
    snapshot: Snapshot,
    /// Adjacent, oldest first, from the snapshot on; with the size of each in bytes.
    pieces: Vec<(Piece, u64)>,
    replicas: BTreeMap<ReplicaId, Version>,
    pins: BTreeMap<PinId, Version>,
}

impl Log {
    /// A log that starts at a snapshot.
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
    /// use tenon_refslog::{Log, LogConfig, Taken};
    ///
    /// let mut log = Log::new(LogConfig::builder().build()?, before.snapshot());
    /// assert_eq!(log.append(record)?, Taken::Taken); // once the record is durable
    /// assert_eq!(log.end(), refs.point());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new(config: LogConfig, snapshot: Snapshot) -> Self {
        Self { config, snapshot, pieces: Vec::new(), replicas: BTreeMap::new(), pins: BTreeMap::new() }
    }

    /// The snapshot that the log starts with.
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The point where the log ends.
    #[must_use]
    pub fn end(&self) -> Point {
        self.pieces.last().map_or(self.snapshot.point(), |(piece, _)| piece.end())
    }

    /// The pieces after the snapshot, oldest first.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().map(|(piece, _)| piece)
    }

    /// Tells that a record is durable. Changes nothing if the log has the record already.
    ///
    /// # Errors
    /// It is of another log, does not follow the newest version, or is another record than the one of its version.
    pub fn append(&mut self, record: Record) -> Result<Taken, LogError> {
        let bytes = record.encode().len() as u64;
        self.push(Piece::Record(record), bytes)
    }

    /// Tells that a segment follows, as when a log is read back after a restart.
    ///
    /// # Errors
    /// It is of another log, is exact, or does not follow the newest version and its refs.
    pub fn append_segment(&mut self, segment: Segment) -> Result<Taken, LogError> {
        if segment.mode() == Mode::Exact {
            return Err(LogError::NeedsCover);
        }
        let bytes = segment.encode().len() as u64;
        self.push(Piece::Segment(segment), bytes)
    }

    fn push(&mut self, piece: Piece, bytes: u64) -> Result<Taken, LogError> {
        let end = self.end();
        if piece.end().lineage != end.lineage {
            return Err(LogError::LineageMismatch { have: end.lineage, found: piece.end().lineage });
        }
        if piece.end().version <= end.version {
            return self.check_repeated(&piece).map(|()| Taken::Unchanged);
        }
        if piece.base() != end.version {
            return Err(LogError::Future { asked: piece.base(), newest: end.version });
        }
        // A record does not say from which refs it starts; a segment does.
        if let Piece::Segment(segment) = &piece
            && segment.base().checksum != end.checksum
        {
            return Err(CompactError::Diverged { at: end.version }.into());
        }
        self.pieces.push((piece, bytes));
        Ok(Taken::Taken)
    }

    /// A piece that the log has already must be the same, as far as that can still be told.
    fn check_repeated(&self, piece: &Piece) -> Result<(), LogError> {
        let end = piece.end();
        let own = self.pieces().find(|own| own.end().version == end.version);
        let point = match own {
            Some(own) => own.end(),
            None if self.snapshot.point().version == end.version => self.snapshot.point(),
            // Within a fold, or before the snapshot.
            None => return Ok(()),
        };
        let differ = match (own, piece) {
            (Some(Piece::Record(own)), Piece::Record(other)) => !own.is_same_but_for_form(other),
            _ => false,
        };
        if point != end || differ { Err(LogError::OtherRecord { version: end.version }) } else { Ok(()) }
    }

    /// Lists the pieces that a replica at `version` has to replay, oldest first. The first may reach back before
    /// `version`.
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
    /// use tenon_refslog::{Log, LogConfig, Version};
    ///
    /// let mut log = Log::new(LogConfig::builder().build()?, before.snapshot());
    /// log.append(record)?;
    /// assert_eq!(log.since(Version(0))?.count(), 1);
    /// assert_eq!(log.since(Version(1))?.count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The version is before the snapshot, so that it must be taken whole, or after the end.
    pub fn since(&self, version: Version) -> Result<impl Iterator<Item = &Piece>, LogError> {
        self.check_known(version)?;
        Ok(self.pieces().skip_while(move |piece| piece.end().version <= version))
    }

    fn check_known(&self, asked: Version) -> Result<(), LogError> {
        let (base, newest) = (self.snapshot.point().version, self.end().version);
        if asked < base {
            return Err(LogError::BeforeSnapshot { asked, base });
        }
        if asked > newest { Err(LogError::Future { asked, newest }) } else { Ok(()) }
    }

    /// Plans the next step that shortens the log.
    ///
    /// `budget` is the number of bytes to read at once: a large fold is done in steps, each planned anew, so that
    /// nothing is lost if the host stops in between.
    pub fn plan(&self, budget: u64) -> Plan {
        let extents: Vec<Extent> = self
            .pieces
            .iter()
            .map(|(piece, bytes)| Extent {
                base: piece.base(),
                end: piece.end().version,
                bytes: *bytes,
                kind: match piece {
                    Piece::Record(_) => PieceKind::Record,
                    Piece::Segment(_) => PieceKind::Segment,
                },
            })
            .collect();
        let mut boundaries: Vec<Version> = self.pins.values().copied().collect();
        boundaries.extend(self.waited_for());
        let limits = Limits { readable: self.readable_from(), horizon: self.horizon(), boundaries: &boundaries };
        let rule = Rule { factor: self.config.factor, min_records: self.config.min_records, budget };
        rule.plan(&extents, self.snapshot.as_bytes().len() as u64, &limits)
    }

    fn range_of(&self, base: Version, end: Version) -> Option<core::ops::RangeInclusive<usize>> {
        let first = self.pieces.iter().position(|(piece, _)| piece.base() == base)?;
        let last = self.pieces.iter().position(|(piece, _)| piece.end().version == end)?;
        (first <= last).then_some(first..=last)
    }

    /// Folds the pieces that [`Plan::Fold`] or [`Plan::Absorb`] names.
    ///
    /// Changes nothing here: tell [`Log::handle_folded`] when the segment is durable.
    ///
    /// # Errors
    /// The pieces are not those of the plan any more, or contradict each other.
    pub fn fold(&self, stretch: &Stretch) -> Result<Folded, LogError> {
        let compacted = LogError::VersionCompacted { asked: stretch.base, base: stretch.base, end: stretch.end };
        let range = self.range_of(stretch.base, stretch.end).ok_or(compacted)?;
        let pieces = self.pieces.get(range.clone()).unwrap_or_default();
        let inputs: Vec<_> =
            pieces.iter().map(|(piece, _)| (piece.base(), piece.end().version, piece.changes().len())).collect();
        let segment = self.folded(range)?;
        let changes: usize = inputs.iter().map(|(_, _, changes)| changes).sum();
        let superseded = changes - segment.changes().len();
        Ok(Folded { segment, inputs, superseded })
    }

    fn folded(&self, range: core::ops::RangeInclusive<usize>) -> Result<Segment, CompactError> {
        let base = match range.start().checked_sub(1).and_then(|at| self.pieces.get(at)) {
            Some((before, _)) => before.end(),
            None => self.snapshot.point(),
        };
        let pieces = self.pieces.get(range).unwrap_or_default();
        let legs = piece::legs(base, pieces.iter().map(|(piece, _)| piece));
        crate::compact::fold(base, Mode::Cover, &legs)
    }

    /// Tells that a folded segment is durable. Once it is accepted, the pieces that it replaces may be deleted.
    ///
    /// It is folded again to see that it is what its pieces make, with or without old values. [`Taken::Unchanged`] where it
    /// is not, or where it would swallow a version that is retained, or was pinned since: keep the pieces then, and delete the segment.
    pub fn handle_folded(&mut self, segment: Segment) -> Taken {
        let (base, end) = (segment.base().version, segment.end().version);
        let Some(range) = self.range_of(base, end).filter(|range| range.start() < range.end()) else {
            return Taken::Unchanged;
        };
        let swallowed = self.pins.values().any(|pinned| base < *pinned && *pinned < end);
        if swallowed || end > self.readable_from() {
            return Taken::Unchanged;
        }
        let is_true = self.folded(range.clone()).is_ok_and(|own| own == segment || own.forward_only() == segment);
        if !is_true {
            return Taken::Unchanged;
        }
        let bytes = segment.encode().len() as u64;
        self.pieces.splice(range, [(Piece::Segment(segment), bytes)]);
        Taken::Taken
    }

    /// Merges the pieces that [`Plan::Absorb`] names into the snapshot, and drops their tombstones.
    ///
    /// Changes nothing here: tell [`Log::handle_absorbed`] when the snapshot is durable.
    ///
    /// # Errors
    /// The pieces are not those of the plan any more, or do not fit the snapshot.
    pub fn absorb(&self, stretch: &Stretch) -> Result<Absorbed, LogError> {
        let Folded { segment, inputs, superseded } = self.fold(stretch)?;
        let (snapshot, merged) = self.snapshot.merge_counted(&segment)?;
        let tombstones = segment.changes().iter().filter(|change| change.new_value().is_none()).count();
        let Merged { added, replaced, removed } = merged;
        Ok(Absorbed { snapshot, inputs, superseded, added, replaced, removed, tombstones })
    }

    /// Tells that a later snapshot of this log is durable.
    ///
    /// Once it is accepted, the pieces up to it and the older snapshot may be deleted. A snapshot beyond the horizon
    /// changes nothing: the pieces that it replaces are still needed.
    pub fn handle_absorbed(&mut self, snapshot: Snapshot) -> Taken {
        let point = snapshot.point();
        let behind = self.pieces.iter().position(|(piece, _)| piece.end() == point);
        match behind {
            Some(last) if point.version <= self.horizon() && snapshot.format() == self.snapshot.format() => {
                self.pieces.drain(..=last);
                self.snapshot = snapshot;
                Taken::Taken
            }
            _ => Taken::Unchanged,
        }
    }
}
