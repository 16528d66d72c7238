//! Segments in bytes: a [table](super::table) of changes.
//!
//! ```text
//! tag   0x30, plus 1 for SHA-256
//! meta  lineage (8) | base version (8) | base checksum (32) | end version (8) | end checksum (32) | flags (1)
//! flags bit 0: exact, bit 1: forward-only, bit 2: all new ids are known to peel as they say
//! ```

use alloc::vec::Vec;

use bytes::Bytes;

use super::Reader;
use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::record::{format_bit, format_of, know_peels, settle_peels};
use super::run::Entry;
use super::table::{Table, TableBuilder};
use crate::compact::{Mode, Segment};
use crate::digest::Checksum;
use crate::id::{LineageId, Point, Version};
use crate::record::Form;

const TAG: u8 = 0x30;
const META: usize = 89;
const PEELS: u8 = 4;

impl Segment {
    /// Encodes the segment as bytes, for a file or an object store. [`Segment::decode`] reads it back.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let changes = self.changes();
        let mut table = TableBuilder::new(TAG | format_bit(format_of(changes)), changes.len() * 50 + 256);
        let entries: Vec<Entry<'_>> = changes.iter().map(Entry::from).collect();
        table.push_all(&entries);
        let mut meta = Vec::with_capacity(META);
        let (base, end) = (self.base(), self.end());
        meta.extend_from_slice(&base.lineage.0.to_le_bytes());
        for point in [base, end] {
            meta.extend_from_slice(&point.version.0.to_le_bytes());
            meta.extend_from_slice(&point.checksum.to_bytes());
        }
        let exact = u8::from(self.mode() == Mode::Exact);
        let peels = if know_peels(changes) { PEELS } else { 0 };
        meta.push(exact | u8::from(self.form() == Form::ForwardOnly) << 1 | peels);
        table.finish(&meta)
    }

    /// Decodes a segment that [`Segment::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes, and where.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let bytes = bytes.into();
        let opened = Table::open::<META>(bytes, |tag| tag & !1 == TAG)?;
        let table = opened.table;
        let mut meta = Reader::new(&opened.meta, 0);
        let lineage = LineageId(u64::from_le_bytes(meta.array()?));
        let mut point = || {
            let version = Version(u64::from_le_bytes(meta.array()?));
            let checksum = Checksum::from_bytes(meta.array()?);
            Ok(Point { lineage, version, checksum })
        };
        let (base, end) = (point()?, point()?);
        let flags = meta.byte()?;
        let wrong = |kind| DecodeError::new(table.bytes().len(), kind);
        let (mode, form) = match flags & !PEELS {
            0 => (Mode::Cover, Form::Invertible),
            1 => (Mode::Exact, Form::Invertible),
            2 => (Mode::Cover, Form::ForwardOnly),
            3 => (Mode::Exact, Form::ForwardOnly),
            _ => return Err(wrong(Kind::Field)),
        };
        let mut changes = Vec::new();
        table.scan(|name, entry, offset| {
            changes.push(entry.to_change(name, offset)?);
            Ok(())
        })?;
        // Without any id, either format would do: the first is the canonical one.
        if format_of(&changes) != table.format || !settle_peels(&mut changes, flags & PEELS != 0) {
            return Err(wrong(Kind::NotCanonical));
        }
        Self::new(base, end, mode, form, changes).map_err(|error| wrong(Kind::Segment(error)))
    }
}
