//! All refs at one version, in bytes that can be read in place.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::change::{Old, Value};
use crate::codec::Reader;
use crate::codec::error::{DecodeError, DecodeErrorKind as Kind};
use crate::codec::record::format_bit;
use crate::codec::run::{Entry, RawOld, RawValue};
use crate::codec::table::{Table, TableBuilder};
use crate::config::Config;
use crate::digest::Checksum;
use crate::id::{LineageId, Point, Version};
use crate::name::RefName;
use crate::oid::ObjectFormat;
use crate::refs::{Refs, RefsError};

/// Tag of a snapshot's table, plus 1 for SHA-256. Its meta: lineage (8) | version (8) | checksum (32).
const TAG: u8 = 0x20;
const META: usize = 48;

/// All refs of a repository at one version, as bytes: written by [`Refs::snapshot`], read in place.
///
/// Opening reads the footer only. A look-up reads a block per level of the index and checks each block's CRC32C.
#[derive(Clone, Debug)]
#[must_use]
pub struct Snapshot {
    table: Table,
    point: Point,
}

impl Snapshot {
    /// Opens a snapshot; shares `bytes` and reads its footer.
    ///
    /// # Errors
    /// The footer is not one of a snapshot, or is damaged.
    pub fn open(bytes: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let opened = Table::open::<META>(bytes.into(), |tag| tag & !1 == TAG)?;
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

    /// Where in its log the snapshot was taken.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The object format of its ids.
    #[must_use]
    pub const fn format(&self) -> ObjectFormat {
        self.table.format
    }

    /// How many refs it holds.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.table.count()
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a ref holds; symbolic refs are not followed.
    ///
    /// # Errors
    /// A block on the way is damaged.
    pub fn get(&self, name: &RefName) -> Result<Option<Value>, DecodeError> {
        self.table.find(name.as_bytes(), |entry, offset| value_of(entry.old, entry.new, offset))
    }

    /// Hands every ref to `each`, in the order of names, and checks every block.
    ///
    /// # Errors
    /// The first fault. What was handed out before it is good.
    pub fn for_each(&self, mut each: impl FnMut(RefName, Value)) -> Result<(), DecodeError> {
        self.table.scan(|name, entry, offset| {
            let name = RefName::broken(name).map_err(|error| DecodeError::new(offset, Kind::Name(error)))?;
            each(name, value_of(entry.old, entry.new, offset)?);
            Ok(())
        })
    }
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
    /// All refs as bytes. Equal refs at equal points give equal bytes, on every replica.
    pub fn snapshot(&self) -> Snapshot {
        let tag = TAG | format_bit(self.config().format());
        let mut table = TableBuilder::new(tag, self.len() * 32 + 256);
        let entries: Vec<Entry<'_>> = self
            .map
            .iter()
            .map(|(name, value)| Entry { name: name.as_bytes(), old: &Old::Any, new: Some(value) })
            .collect();
        table.push_all(&entries);
        let point = self.point();
        let mut meta = Vec::with_capacity(META);
        meta.extend_from_slice(&point.lineage.0.to_le_bytes());
        meta.extend_from_slice(&point.version.0.to_le_bytes());
        meta.extend_from_slice(&point.checksum.to_bytes());
        Snapshot { table: table.finish_open(&meta), point }
    }

    /// The refs that a snapshot holds. Every block, every name and the checksum of the whole are checked.
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
