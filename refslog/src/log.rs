//! A repository's log: a snapshot, folded segments, the newest records, and who still needs what.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::change::{Change, Value};
use crate::codec::error::DecodeError;
use crate::compact::{CompactError, Leg, Mode, Segment};
use crate::config::Config;
use crate::digest::Checksum;
use crate::id::{LineageId, Point, Version};
use crate::name::RefName;
use crate::plan::{Extent, PieceKind, Plan, Rule, Stretch};
use crate::record::Record;
use crate::refs::Refs;
use crate::replay::ReplayError;
use crate::snapshot::{MergeError, RestoreError, Snapshot};

/// A replica that follows the log; the host picks the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct ReplicaId(pub u64);

/// Somebody who needs one version to stay readable, such as a backup; the host picks the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct PinId(pub u64);

/// How a log is kept short. Built by [`LogConfig::builder`]; cannot be invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    factor: u64,
    min_records: usize,
    retain_versions: u64,
    max_lag_versions: u64,
    max_lag_bytes: u64,
    max_needs: usize,
}

/// Collects the fields of a [`LogConfig`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct LogConfigBuilder(LogConfig);

/// Why a log's configuration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LogConfigError {
    /// Below 2, pieces do not grow.
    #[error("a factor of {given}: pieces grow from 2 on")]
    Factor {
        /// What was asked for.
        given: u64,
    },
    /// A segment needs at least two records.
    #[error("min_records is {given}, two are needed to fold")]
    MinRecords {
        /// What was asked for.
        given: usize,
    },
}

impl LogConfig {
    /// The defaults: factor 2, folds from 64 records on, 1,000 versions kept, replicas followed up to 1,000,000 versions
    /// or 1 GiB behind, 1,024 of them.
    pub const fn builder() -> LogConfigBuilder {
        LogConfigBuilder(Self {
            factor: 2,
            min_records: 64,
            retain_versions: 1_000,
            max_lag_versions: 1_000_000,
            max_lag_bytes: 1 << 30,
            max_needs: 1_024,
        })
    }
}

impl LogConfigBuilder {
    /// How many times larger a piece is than what follows it: more pieces and fewer rewrites with a smaller one.
    pub const fn factor(mut self, factor: u64) -> Self {
        self.0.factor = factor;
        self
    }

    /// How many records gather before they are folded.
    pub const fn min_records(mut self, min_records: usize) -> Self {
        self.0.min_records = min_records;
        self
    }

    /// How many of the newest versions stay out of the snapshot even if nobody needs them.
    pub const fn retain_versions(mut self, versions: u64) -> Self {
        self.0.retain_versions = versions;
        self
    }

    /// How many versions a replica or pin may be behind before the log stops waiting for it.
    pub const fn max_lag_versions(mut self, versions: u64) -> Self {
        self.0.max_lag_versions = versions;
        self
    }

    /// How many bytes of log a replica or pin may hold back before the log stops waiting for it.
    pub const fn max_lag_bytes(mut self, bytes: u64) -> Self {
        self.0.max_lag_bytes = bytes;
        self
    }

    /// How many replicas, and how many pins, are followed at most.
    pub const fn max_needs(mut self, needs: usize) -> Self {
        self.0.max_needs = needs;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// A field that cannot work.
    pub fn build(self) -> Result<LogConfig, LogConfigError> {
        let config = self.0;
        if config.factor < 2 {
            return Err(LogConfigError::Factor { given: config.factor });
        }
        if config.min_records < 2 {
            return Err(LogConfigError::MinRecords { given: config.min_records });
        }
        Ok(config)
    }
}

/// A stretch of the log as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A record, as appended.
    Record(Record),
    /// Records folded; always [`Mode::Cover`] in a log.
    Segment(Segment),
}

impl Piece {
    fn base(&self) -> Version {
        match self {
            Self::Record(record) => record.base_version(),
            Self::Segment(segment) => segment.base().version,
        }
    }

    fn end(&self) -> Point {
        match self {
            Self::Record(record) => record.after(),
            Self::Segment(segment) => segment.end(),
        }
    }

    /// The changes, in the order of names.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        match self {
            Self::Record(record) => record.changes(),
            Self::Segment(segment) => segment.changes(),
        }
    }

    fn change_of(&self, name: &RefName) -> Option<&Change> {
        let changes = self.changes();
        let at = changes.binary_search_by(|change| change.name().cmp(name)).ok()?;
        changes.get(at)
    }
}

/// What a replica that follows the log should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Standing {
    /// It has seen everything.
    Current,
    /// It may replay what [`Log::since`] gives.
    Behind {
        /// Versions it lacks.
        versions: u64,
        /// Bytes of the pieces it lacks.
        bytes: u64,
    },
    /// It is too far behind for the log to wait: it should take a snapshot, and what it would need may be gone.
    Resync {
        /// Versions it lacks.
        versions: u64,
        /// Bytes of the pieces it lacks.
        bytes: u64,
    },
}

/// Why the log cannot be asked about a version, or cannot take what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The version went into a fold: only `base` and `end` can be told apart now.
    #[error("version {asked} was compacted: {base} and {end} can be told, not what is between")]
    VersionCompacted {
        /// What was asked for.
        asked: Version,
        /// The last version before it that can be told.
        base: Version,
        /// The first version after it that can be told.
        end: Version,
    },
    /// The version is before the log's snapshot: resynchronise from that.
    #[error("version {asked} is before the snapshot at {base}")]
    BeforeSnapshot {
        /// What was asked for.
        asked: Version,
        /// Version of the snapshot.
        base: Version,
    },
    /// The version is not written yet.
    #[error("version {asked} is not there yet, the newest is {newest}")]
    Future {
        /// What was asked for.
        asked: Version,
        /// The newest version.
        newest: Version,
    },
    /// The record is of another log.
    #[error("the log is {have}, the record is of {found}")]
    LineageMismatch {
        /// This log.
        have: LineageId,
        /// The record's log.
        found: LineageId,
    },
    /// An exact segment serves replicas at its base only, so a log keeps none.
    #[error("a log keeps segments that cover, not exact ones")]
    NeedsCover,
    /// More replicas or pins than the configuration allows.
    #[error("{max} replicas or pins are followed already")]
    TooManyNeeds {
        /// How many are allowed.
        max: usize,
    },
    /// The snapshot is damaged.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The snapshot cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The pieces do not lead where they say.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The pieces do not fit together.
    #[error(transparent)]
    Compact(#[from] CompactError),
    /// The segment does not fit the snapshot.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// Whether the log took what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Taken {
    /// It did.
    Taken,
    /// It was late, repeated or unknown, and changed nothing.
    Unchanged,
}

/// What a fold did, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Folded {
    /// The segment: make it durable, then tell [`Log::handle_folded`].
    pub segment: Segment,
    /// The pieces that went into it: base, end, changes.
    pub inputs: Vec<(Version, Version, usize)>,
    /// Changes that a later one of the same ref replaced, and so are gone.
    pub superseded: usize,
}

/// The log of one repository as a host keeps it: a snapshot, the pieces after it, and who still needs which versions.
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
    #[must_use]
    pub const fn new(config: LogConfig, snapshot: Snapshot) -> Self {
        Self { config, snapshot, pieces: Vec::new(), replicas: BTreeMap::new(), pins: BTreeMap::new() }
    }

    /// Where the log starts: its snapshot.
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Where the log ends.
    #[must_use]
    pub fn end(&self) -> Point {
        self.pieces.last().map_or(self.snapshot.point(), |(piece, _)| piece.end())
    }

    /// The pieces after the snapshot, oldest first.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().map(|(piece, _)| piece)
    }

    /// Tells that a record is durable. One that the log has already changes nothing.
    ///
    /// # Errors
    /// It is of another log, or does not follow the newest version.
    pub fn append(&mut self, record: Record) -> Result<Taken, LogError> {
        let bytes = record.encode().len() as u64;
        self.push(Piece::Record(record), bytes)
    }

    /// Tells that a segment follows, as when a log is read back after a restart.
    ///
    /// # Errors
    /// It is of another log, is exact, or does not follow the newest version.
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
            return Ok(Taken::Unchanged);
        }
        if piece.base() != end.version {
            return Err(LogError::Future { asked: piece.base(), newest: end.version });
        }
        self.pieces.push((piece, bytes));
        Ok(Taken::Taken)
    }

    /// The pieces that a replica at `version` has to replay, oldest first; the first may reach back before it.
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

    /// Tells how far a replica has come; from now on the log waits for it, within its limits. An older version than the
    /// one already told changes nothing.
    ///
    /// # Errors
    /// As many replicas as allowed are followed already.
    pub fn handle_progress(&mut self, replica: ReplicaId, version: Version) -> Result<Taken, LogError> {
        let max = self.config.max_needs;
        if !self.replicas.contains_key(&replica) && self.replicas.len() >= max {
            return Err(LogError::TooManyNeeds { max });
        }
        let known = self.replicas.entry(replica).or_insert(version);
        let newer = version > *known;
        *known = version.max(*known);
        Ok(if newer { Taken::Taken } else { Taken::Unchanged })
    }

    /// Stops waiting for a replica.
    pub fn forget(&mut self, replica: ReplicaId) -> Taken {
        if self.replicas.remove(&replica).is_some() { Taken::Taken } else { Taken::Unchanged }
    }

    /// Keeps one version readable until it is unpinned, within the log's limits.
    ///
    /// # Errors
    /// The version is not there, was folded away, or too many are pinned.
    pub fn pin(&mut self, pin: PinId, version: Version) -> Result<(), LogError> {
        self.check_known(version)?;
        self.check_boundary(version)?;
        let max = self.config.max_needs;
        if !self.pins.contains_key(&pin) && self.pins.len() >= max {
            return Err(LogError::TooManyNeeds { max });
        }
        self.pins.insert(pin, version);
        Ok(())
    }

    /// Lets a pinned version go.
    pub fn unpin(&mut self, pin: PinId) -> Taken {
        if self.pins.remove(&pin).is_some() { Taken::Taken } else { Taken::Unchanged }
    }

    /// What a replica at this version should do.
    pub fn standing(&self, version: Version) -> Standing {
        let end = self.end().version;
        let versions = end.0.saturating_sub(version.0);
        let bytes = self.bytes_after(version);
        if versions == 0 {
            return Standing::Current;
        }
        let gone = version < self.snapshot.point().version;
        if gone || versions > self.config.max_lag_versions || bytes > self.config.max_lag_bytes {
            return Standing::Resync { versions, bytes };
        }
        Standing::Behind { versions, bytes }
    }

    fn bytes_after(&self, version: Version) -> u64 {
        let after = self.pieces.iter().rev().take_while(|(piece, _)| piece.end().version > version);
        after.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The lowest version that somebody within the limits still needs, or that is retained anyway. A deletion at the
    /// horizon is still delivered: what makes a later version than the horizon stays in the log.
    #[must_use]
    pub fn horizon(&self) -> Version {
        let end = self.end().version;
        let retained = Version(end.0.saturating_sub(self.config.retain_versions));
        let needs = self.replicas.values().chain(self.pins.values());
        let waited_for = needs.filter(|version| !matches!(self.standing(**version), Standing::Resync { .. }));
        waited_for.copied().chain([retained]).min().unwrap_or(end)
    }

    /// What to do next about the log's length. `budget` is in bytes read at once: a large fold is done in steps, each
    /// planned anew, so that nothing is lost if the host stops in between.
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
        let horizon = self.horizon();
        let mut boundaries: Vec<Version> = self.pins.values().copied().collect();
        boundaries.push(horizon);
        let rule = Rule { factor: self.config.factor, min_records: self.config.min_records, budget };
        rule.plan(&extents, self.snapshot.as_bytes().len() as u64, horizon, &boundaries)
    }

    fn range_of(&self, base: Version, end: Version) -> Option<core::ops::RangeInclusive<usize>> {
        let first = self.pieces.iter().position(|(piece, _)| piece.base() == base)?;
        let last = self.pieces.iter().position(|(piece, _)| piece.end().version == end)?;
        (first <= last).then_some(first..=last)
    }

    /// Folds what [`Plan::Fold`] or [`Plan::Absorb`] names. Changes nothing here: tell [`Log::handle_folded`] when it is
    /// durable.
    ///
    /// # Errors
    /// The pieces are not those of the plan any more, or contradict each other.
    pub fn fold(&self, stretch: &Stretch) -> Result<Folded, LogError> {
        let compacted = LogError::VersionCompacted { asked: stretch.base, base: stretch.base, end: stretch.end };
        let range = self.range_of(stretch.base, stretch.end).ok_or(compacted)?;
        let base = match range.start().checked_sub(1).and_then(|at| self.pieces.get(at)) {
            Some((before, _)) => before.end(),
            None => self.snapshot.point(),
        };
        let (mut at, mut legs, mut inputs) = (base, Vec::new(), Vec::new());
        for (piece, _) in self.pieces.get(range).unwrap_or_default() {
            inputs.push((piece.base(), piece.end().version, piece.changes().len()));
            legs.push(match piece {
                Piece::Record(record) => Leg::of_record(at, record),
                Piece::Segment(segment) => Leg::from(segment),
            });
            at = piece.end();
        }
        let segment = crate::compact::fold(base, Mode::Cover, &legs)?;
        let changes: usize = inputs.iter().map(|(_, _, changes)| changes).sum();
        let superseded = changes - segment.changes().len();
        Ok(Folded { segment, inputs, superseded })
    }

    /// Tells that a folded segment is durable; the pieces that it replaces may now be deleted.
    pub fn handle_folded(&mut self, segment: Segment) -> Taken {
        let Some(range) = self.range_of(segment.base().version, segment.end().version) else {
            return Taken::Unchanged;
        };
        let same_end = self.pieces.get(*range.end()).is_some_and(|(last, _)| last.end() == segment.end());
        if !same_end || range.start() == range.end() || segment.mode() == Mode::Exact {
            return Taken::Unchanged;
        }
        let bytes = segment.encode().len() as u64;
        self.pieces.splice(range, [(Piece::Segment(segment), bytes)]);
        Taken::Taken
    }

    /// Merges what [`Plan::Absorb`] names into the snapshot; its tombstones go there. Changes nothing here: tell
    /// [`Log::handle_absorbed`] when it is durable.
    ///
    /// # Errors
    /// The pieces are not those of the plan any more, or do not fit the snapshot.
    pub fn absorb(&self, stretch: &Stretch) -> Result<Snapshot, LogError> {
        Ok(self.snapshot.merge(&self.fold(stretch)?.segment)?)
    }

    /// Tells that a later snapshot of this log is durable; the pieces up to it and the older snapshot may be deleted. One
    /// beyond the horizon changes nothing: somebody still needs what it replaces.
    pub fn handle_absorbed(&mut self, snapshot: Snapshot) -> Taken {
        let point = snapshot.point();
        let behind = self.pieces.iter().position(|(piece, _)| piece.end() == point);
        match behind {
            Some(last) if point.version <= self.horizon() => {
                self.pieces.drain(..=last);
                self.snapshot = snapshot;
                Taken::Taken
            }
            _ => Taken::Unchanged,
        }
    }

    /// What a ref held at a version. Within a folded stretch, refs that it did not touch are still known.
    ///
    /// # Errors
    /// The version is not in the log, or was folded away for this ref.
    pub fn get(&self, name: &RefName, version: Version) -> Result<Option<Value>, LogError> {
        self.check_known(version)?;
        for (piece, _) in self.pieces.iter().rev().skip_while(|(piece, _)| piece.base() >= version) {
            let Some(change) = piece.change_of(name) else { continue };
            let end = piece.end().version;
            if version < end {
                return Err(LogError::VersionCompacted { asked: version, base: piece.base(), end });
            }
            return Ok(change.new_value().cloned());
        }
        Ok(self.snapshot.get(name)?)
    }

    /// The versions between which a ref was last touched: after the first and up to the second; `None` if not since the
    /// snapshot.
    #[must_use]
    pub fn last_touched(&self, name: &RefName) -> Option<(Version, Version)> {
        let piece = self.pieces().filter(|piece| piece.change_of(name).is_some()).last()?;
        Some((piece.base(), piece.end().version))
    }

    fn check_boundary(&self, asked: Version) -> Result<(), LogError> {
        match self.pieces().find(|piece| piece.base() < asked && asked < piece.end().version) {
            Some(piece) => Err(LogError::VersionCompacted { asked, base: piece.base(), end: piece.end().version }),
            None => Ok(()),
        }
    }

    /// The checksum of all refs at a version.
    ///
    /// # Errors
    /// The version is not in the log, or was folded away.
    pub fn checksum_at(&self, version: Version) -> Result<Checksum, LogError> {
        self.check_known(version)?;
        self.check_boundary(version)?;
        let piece = self.pieces().find(|piece| piece.end().version == version);
        Ok(piece.map_or(self.snapshot.point(), Piece::end).checksum)
    }

    /// All refs at a version.
    ///
    /// # Errors
    /// The version is not in the log or was folded away, or the log is damaged.
    pub fn restore_at(&self, config: Config, version: Version) -> Result<Refs, LogError> {
        self.check_known(version)?;
        self.check_boundary(version)?;
        let mut refs = Refs::restore(config, &self.snapshot)?;
        for piece in self.pieces().take_while(|piece| piece.end().version <= version) {
            let _ = refs.take_piece(piece)?;
        }
        Ok(refs)
    }
}

impl Refs {
    /// Replays a piece of a log.
    ///
    /// # Errors
    /// As [`Refs::apply`] and [`Refs::replay`]; nothing is changed.
    pub fn take_piece(&mut self, piece: &Piece) -> Result<crate::Replayed, ReplayError> {
        match piece {
            Piece::Record(record) => self.apply(record),
            Piece::Segment(segment) => self.replay(segment),
        }
    }
}
