//! Records in bytes.
//!
//! ```text
//! body  tag | lineage (8) | version | checksum after (32) | count | run
//! tag   0x10 SHA-1, 0x11 SHA-256
//! ```

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::read::read_changes;
use super::run::{Entry, Restarts, put_run};
use super::{Reader, frame, put_len, put_varint};
use crate::change::Change;
use crate::digest::Checksum;
use crate::id::{LineageId, Point};
use crate::oid::ObjectFormat;
use crate::record::Record;

/// No record's body is shorter: tag, lineage, version, checksum, count, prefix, layout, one head byte.
pub(crate) const MIN_BODY: usize = 46;

const TAG: u8 = 0x10;

/// The object format of changes: that of any id in them; SHA-1 where there is none.
pub(crate) fn format_of(changes: &[Change]) -> ObjectFormat {
    changes
        .iter()
        .flat_map(|change| change.new_value().into_iter().chain(change.old().value()))
        .find_map(crate::Value::id)
        .map_or(ObjectFormat::Sha1, |id| id.format())
}

pub(crate) const fn format_bit(format: ObjectFormat) -> u8 {
    match format {
        ObjectFormat::Sha1 => 0,
        ObjectFormat::Sha256 => 1,
    }
}

pub(crate) const fn format_from_bit(tag: u8) -> ObjectFormat {
    if tag & 1 == 0 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 }
}

impl Record {
    /// The record as one frame, to append to a file or to keep in a row. [`Record::decode`] reads it back.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out.into()
    }

    /// Appends the record's frame to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let changes = self.changes();
        let after = self.after();
        let mut body = Vec::with_capacity(MIN_BODY + changes.len() * 64);
        body.push(TAG | format_bit(format_of(changes)));
        body.extend_from_slice(&after.lineage.0.to_le_bytes());
        put_varint(&mut body, after.version.0);
        body.extend_from_slice(&after.checksum.to_bytes());
        put_len(&mut body, changes.len());
        let entries: Vec<Entry<'_>> = changes.iter().map(Entry::from).collect();
        put_run(&mut body, &entries, Restarts::None);
        frame::put_frame(out, &body);
    }

    /// Reads a record that [`Record::encode`] wrote: one whole frame and nothing else. [`Records`](crate::Records) reads
    /// several.
    ///
    /// # Errors
    /// What is wrong with the bytes, and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (body, len) = frame::take_frame(bytes, 0)?;
        if len != bytes.len() {
            return Err(DecodeError::new(len, Kind::TrailingBytes));
        }
        Self::decode_body(body, len - body.len())
    }

    pub(crate) fn decode_body(body: &[u8], base: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, base);
        let tag = reader.byte()?;
        if tag & !1 != TAG {
            return Err(DecodeError::new(base, Kind::Unsupported { tag }));
        }
        let lineage = LineageId(u64::from_le_bytes(reader.array()?));
        let version = reader.version()?;
        let checksum = Checksum::from_bytes(reader.array()?);
        let count = reader.len()?;
        let mut changes = Vec::new();
        if count > 0 {
            read_changes(reader, format_from_bit(tag), count, &mut changes)?.finish()?;
        }
        // Without any id, either format would do: the first is the canonical one.
        if format_of(&changes) != format_from_bit(tag) {
            return Err(DecodeError::new(base, Kind::NotCanonical));
        }
        Self::new(Point { lineage, version, checksum }, changes)
            .map_err(|error| DecodeError::new(base, Kind::Changes(error)))
    }
}
