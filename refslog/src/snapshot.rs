//! Snapshots: all refs at one version, in bytes that can be read in place.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

use crate::change::{Change, Old, Peel, Target, Value};
use crate::codec::Reader;
use crate::codec::block::{MOST_ENTRIES, block_len};
use crate::codec::error::{DecodeError, DecodeErrorKind as Kind};
use crate::codec::parts::{RawEntry, RawOld, RawValue};
use crate::codec::record::format_bit;
use crate::codec::run::Entry;
use crate::codec::table::{Table, TableBuilder};
use crate::compact::Segment;
use crate::config::Config;
use crate::digest::Checksum;
use crate::id::{LineageId, Point, Version};
use crate::name::RefName;
use crate::oid::ObjectFormat;
use crate::refs::{Refs, RefsError};
use crate::replay::Replayed;

/// Tag of a snapshot's table, plus 1 for SHA-256, plus 2 where all ids are known to peel as they say. Its meta: lineage (8) |
/// version (8) | checksum (32).
const TAG: u8 = 0x20;
const PEELS: u8 = 2;
const META: usize = 48;

/// A snapshot: all refs of a repository at one version, as bytes. Written by [`Refs::snapshot`], read in place.
///
/// Opening reads the footer only. A look-up reads a block per level of the index and checks each block's CRC32C.
#[derive(Clone, Debug)]
#[must_use]
pub struct Snapshot {
    table: Table,
    point: Point,
}

impl Snapshot {
    /// Opens a snapshot: shares `bytes` and reads the footer.
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
    /// use tenon_refslog::Snapshot;
    ///
    /// let snapshot = Snapshot::open(refs.snapshot().as_bytes().clone())?;
    /// assert!(snapshot.get(&main)?.is_some());
    /// assert!(Snapshot::open(b"not a snapshot".to_vec()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The footer is not one of a snapshot, or is damaged.
    pub fn open(bytes: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let opened = Table::open::<META>(bytes.into(), |tag| tag & !(1 | PEELS) == TAG)?;
        let mut meta = Reader::new(&opened.meta, 0);
        let point = Point {
            lineage: LineageId(u64::from_le_bytes(meta.array()?)),
            version: Version(u64::from_le_bytes(meta.array()?)),
            checksum: Checksum::from_bytes(meta.array()?),
        };
        Ok(Self { table: opened.table, point })
    }

    /// The bytes, to keep or to send.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        self.table.bytes()
    }

    /// The point of the log that the snapshot was taken at.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The object format of its ids.
    #[must_use]
    pub const fn format(&self) -> ObjectFormat {
        self.table.format
    }

    /// The number of refs.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.table.count()
    }

    /// Whether there are no refs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a ref. Symbolic refs are not followed.
    ///
    /// # Errors
    ///
    /// A block on the way is damaged.
    pub fn get(&self, name: &RefName) -> Result<Option<Value>, DecodeError> {
        self.get_bytes(name.as_bytes())
    }

    pub(crate) fn get_bytes(&self, name: &[u8]) -> Result<Option<Value>, DecodeError> {
        self.table.find(name, |entry, offset| self.value_of(&entry, offset))
    }

    /// The first ref from `from` on for which `found` has an answer, or the first of which it says that none will come
    /// (`Break(None)`).
    pub(crate) fn find_from<T>(
        &self,
        from: &[u8],
        mut found: impl FnMut(&[u8]) -> ControlFlow<Option<T>>,
    ) -> Result<Option<T>, DecodeError> {
        let mut answer = None;
        self.table.each_from(from, |name, _, _| {
            Ok(match found(name) {
                ControlFlow::Continue(()) => ControlFlow::Continue(()),
                ControlFlow::Break(it) => {
                    answer = it;
                    ControlFlow::Break(())
                }
            })
        })?;
        Ok(answer)
    }

    fn value_of(&self, entry: &RawEntry<'_>, offset: usize) -> Result<Value, DecodeError> {
        let mut value = value_of(entry.old, entry.new, offset)?;
        if self.table.tag & PEELS != 0 {
            value.know_peel();
        }
        Ok(value)
    }

    #[cfg(test)]
    pub(crate) fn blocks_read(&self) -> u32 {
        self.table.blocks_read()
    }

    /// Passes every ref to `each` as raw bytes, in the order of names, and checks every block.
    ///
    /// Nothing is copied but the name that is shared with the one before; [`Snapshot::for_each`] makes values of them.
    ///
    /// # Errors
    /// The first fault. What was handed out before it is good.
    pub fn scan(&self, mut each: impl FnMut(&[u8], ValueRef<'_>)) -> Result<(), DecodeError> {
        self.table.scan(|name, entry, offset| match (entry.old, entry.new) {
            (RawOld::Any, Some(RawValue::Direct { id, peeled })) => {
                each(name, ValueRef::Direct { id, peeled });
                Ok(())
            }
            (RawOld::Any, Some(RawValue::Symbolic(target))) => {
                each(name, ValueRef::Symbolic(target));
                Ok(())
            }
            _ => Err(DecodeError::new(offset, Kind::Field)),
        })
    }

    /// Passes every ref to `each`, in the order of names, and checks every block, name and id.
    ///
    /// # Errors
    /// The first fault. What was handed out before it is good.
    pub fn for_each(&self, mut each: impl FnMut(RefName, Value)) -> Result<(), DecodeError> {
        let (mut ids, mut unpeeled) = (0_usize, 0_usize);
        self.table.scan(|name, entry, offset| {
            let name = RefName::broken(name).map_err(|error| DecodeError::new(offset, Kind::Name(error)))?;
            if let Some(RawValue::Direct { peeled, .. }) = entry.new {
                ids += 1;
                unpeeled += usize::from(peeled.is_none());
            }
            each(name, self.value_of(&entry, offset)?);
            Ok(())
        })?;
        // What the tag says of peeled ids is said in one way: without any id, or where each has one, there is no choice.
        let says = self.table.tag & PEELS != 0;
        if (ids == 0 && says) || (ids > 0 && unpeeled == 0 && !says) {
            return Err(DecodeError::new(self.as_bytes().len(), Kind::NotCanonical));
        }
        Ok(())
    }
}

/// The value of a ref as raw bytes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRef<'a> {
    /// An object id and, for an annotated tag, its peeled id if known.
    Direct {
        /// The bytes of the id.
        id: &'a [u8],
        /// The bytes of the peeled id.
        peeled: Option<&'a [u8]>,
    },
    /// The name of another ref.
    Symbolic(&'a [u8]),
}

fn value_of(old: RawOld<'_>, new: Option<RawValue<'_>>, offset: usize) -> Result<Value, DecodeError> {
    match (old, new) {
        (RawOld::Any, Some(value)) => value.to_value(offset),
        _ => Err(DecodeError::new(offset, Kind::Field)),
    }
}

/// Why a snapshot cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are damaged.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The refs are not those that were written, or the configuration is not that of their repository.
    #[error(transparent)]
    Refs(#[from] RefsError),
    /// The snapshot is of another object format.
    #[error("the snapshot is of format {found}, the repository of {want}")]
    ObjectFormat {
        /// The repository's format.
        want: ObjectFormat,
        /// The snapshot's format.
        found: ObjectFormat,
    },
}

impl Refs {
    /// All refs as bytes.
    ///
    /// Equal refs at equal points give equal bytes on every replica with the same knowledge of peeled ids. Those are
    /// kept, count for no equality, and may be known on one replica only.
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
    /// let snapshot = refs.snapshot();
    /// assert_eq!((snapshot.len(), snapshot.point()), (1, refs.point()));
    /// assert_eq!(Refs::restore(config, &snapshot)?.checksum(), refs.checksum());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        let mut writer = Writer::new(self.config().format(), self.len() * 32 + 256);
        for (name, value) in self.iter() {
            writer.push(name, value);
        }
        writer.finish(self.point())
    }

    /// Restores the refs of a snapshot. Every block, every name and the checksum of the whole are checked.
    ///
    /// # Errors
    /// The snapshot is damaged, or is not of a repository with this configuration.
    pub fn restore(config: Config, snapshot: &Snapshot) -> Result<Self, RestoreError> {
        if snapshot.format() != config.format() {
            return Err(RestoreError::ObjectFormat { want: config.format(), found: snapshot.format() });
        }
        let Point { lineage, version, checksum } = snapshot.point();
        let mut entries = Vec::new();
        snapshot.for_each(|name, value| entries.push((name, value)))?;
        let refs = Self::from_entries(config, lineage, version, entries)?;
        if refs.checksum() == checksum {
            Ok(refs)
        } else {
            Err(RefsError::Checksum { want: checksum, found: refs.checksum() }.into())
        }
    }
}

/// Why a snapshot cannot be installed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The snapshot is damaged, or of another repository.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The snapshot is older than the refs: it would take them back.
    #[error("the refs are at version {have}, the snapshot is of {found}")]
    Older {
        /// The version of the refs.
        have: Version,
        /// The version of the snapshot.
        found: Version,
    },
    /// The snapshot is of another log. [`Refs::restore`] starts over with it.
    #[error("the refs follow log {have}, the snapshot is of log {found}")]
    LineageMismatch {
        /// The log of the refs.
        have: LineageId,
        /// The log of the snapshot.
        found: LineageId,
    },
}

impl Refs {
    /// Replaces the refs by those of a snapshot, for a replica that is too far behind to replay, or that has diverged.
    ///
    /// A snapshot of the same version and checksum changes nothing. One of the same version and another checksum is
    /// installed: the refs had diverged from their log.
    ///
    /// # Errors
    /// The snapshot is older than the refs, of another log, or cannot be restored; nothing is changed.
    pub fn install(&mut self, snapshot: &Snapshot) -> Result<Replayed, InstallError> {
        let (have, found) = (self.point(), snapshot.point());
        if have.lineage != found.lineage {
            return Err(InstallError::LineageMismatch { have: have.lineage, found: found.lineage });
        }
        if found.version < have.version {
            return Err(InstallError::Older { have: have.version, found: found.version });
        }
        if found == have {
            return Ok(Replayed::AlreadyApplied);
        }
        *self = Self::restore(self.config().clone(), snapshot)?;
        Ok(Replayed::Applied)
    }
}

/// Why a segment cannot be merged into a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The snapshot is damaged.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The segment does not start at the snapshot's point.
    #[error("the snapshot is at version {have}, the segment starts at {need}, or in other refs")]
    NotAtBase {
        /// The version of the snapshot.
        have: Version,
        /// The version at which the segment starts.
        need: Version,
    },
    /// A ref does not hold the value that the change replaces.
    #[error("'{name}' does not hold what the change replaces")]
    OldMismatch {
        /// The name of the ref.
        name: RefName,
    },
    /// An id is of another object format.
    #[error("the id of '{name}' is of another object format")]
    ObjectFormat {
        /// The name of the ref.
        name: RefName,
    },
}

/// Gathers refs into blocks, in the order of names.
struct Writer {
    table: TableBuilder,
    format: ObjectFormat,
    block: Vec<(RefName, Value)>,
    /// The known peels of the ids so far.
    peels: Peels,
}

/// Whether the peels of the ids are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peels {
    NoId,
    Known,
    Unknown,
}

impl Writer {
    fn new(format: ObjectFormat, expected_bytes: usize) -> Self {
        let table = TableBuilder::new(TAG | format_bit(format), expected_bytes);
        Self { table, format, block: Vec::with_capacity(MOST_ENTRIES), peels: Peels::NoId }
    }

    fn finish(mut self, point: Point) -> Snapshot {
        while !self.block.is_empty() {
            self.flush();
        }
        if self.peels == Peels::Known {
            self.table.set_tag(TAG | format_bit(self.format) | PEELS);
        }
        let mut meta = Vec::with_capacity(META);
        meta.extend_from_slice(&point.lineage.0.to_le_bytes());
        meta.extend_from_slice(&point.version.0.to_le_bytes());
        meta.extend_from_slice(&point.checksum.to_bytes());
        Snapshot { table: self.table.finish_open(&meta), point }
    }

    fn push(&mut self, name: RefName, value: Value) {
        match value.target().map(Target::peel) {
            Some(Peel::Unknown) => self.peels = Peels::Unknown,
            Some(_) if self.peels == Peels::NoId => self.peels = Peels::Known,
            Some(_) | None => {}
        }
        self.block.push((name, value));
        if self.block.len() >= MOST_ENTRIES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let entries: Vec<Entry<'_>> = self
            .block
            .iter()
            .map(|(name, value)| Entry { name: name.as_bytes(), old: &Old::Any, new: Some(value) })
            .collect();
        let len = block_len(&entries);
        self.table.push_block(entries.get(..len).unwrap_or_default());
        self.block.drain(..len);
    }
}

impl Snapshot {
    /// The snapshot at the end of a segment that starts at this one.
    ///
    /// Tombstones are dropped: nothing is before a snapshot.
    ///
    /// Needs no key: old values are compared one by one where they are known, and the checksum is the segment's.
    ///
    /// # Errors
    /// The snapshot is damaged, or the segment does not start here.
    pub fn merge(&self, segment: &Segment) -> Result<Self, MergeError> {
        Ok(self.merge_counted(segment)?.0)
    }

    /// The merged snapshot ([`Snapshot::merge`]), with the statistics of the merge.
    pub(crate) fn merge_counted(&self, segment: &Segment) -> Result<(Self, Merged), MergeError> {
        if segment.base() != self.point {
            return Err(MergeError::NotAtBase { have: self.point.version, need: segment.base().version });
        }
        let format = self.format();
        for change in segment.changes() {
            if !change.new_value().is_none_or(|value| value.fits(format)) {
                return Err(MergeError::ObjectFormat { name: change.name().clone() });
            }
        }
        let expected = self.as_bytes().len() + segment.changes().len() * 40;
        let mut writer = Writer::new(format, expected);
        let mut changes = segment.changes().iter().peekable();
        let mut wrong: Option<RefName> = None;
        let mut merged = Merged::default();
        let mut note = |change: &Change, current: Option<&Value>| {
            if !change.old().matches(current) && wrong.is_none() {
                wrong = Some(change.name().clone());
            }
            match (current, change.new_value()) {
                (None, Some(_)) => merged.added += 1,
                (Some(_), None) => merged.removed += 1,
                (Some(old), Some(new)) => merged.replaced += usize::from(old != new),
                (None, None) => {}
            }
        };
        self.for_each(|name, value| {
            while let Some(change) = changes.next_if(|change| *change.name() < name) {
                note(change, None);
                if let Some(new) = change.new_value() {
                    writer.push(change.name().clone(), new.clone());
                }
            }
            match changes.next_if(|change| *change.name() == name) {
                Some(change) => {
                    note(change, Some(&value));
                    if let Some(new) = change.new_value() {
                        writer.push(name, new.clone());
                    }
                }
                None => writer.push(name, value),
            }
        })?;
        for change in changes {
            note(change, None);
            if let Some(new) = change.new_value() {
                writer.push(change.name().clone(), new.clone());
            }
        }
        if let Some(name) = wrong {
            return Err(MergeError::OldMismatch { name });
        }
        Ok((writer.finish(segment.end()), merged))
    }
}

/// The statistics of a merge.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Merged {
    pub(crate) added: usize,
    pub(crate) replaced: usize,
    pub(crate) removed: usize,
}
