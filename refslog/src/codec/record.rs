//! Records in bytes.
//!
//! ```text
//! body  tag | lineage (8) | version | checksum after (32) | [length of the payload | payload] | count | run
//! tag   0x10, plus 1 for SHA-256, plus 2 with a payload, plus 4 where all new ids are known to peel as they say
//! ```

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::read::read_changes;
use super::run::{Entry, Restarts, put_run};
use super::{Reader, frame, put_bytes, put_len, put_varint};
use crate::change::{Change, Peel};
use crate::digest::Checksum;
use crate::id::{LineageId, Point};
use crate::oid::ObjectFormat;
use crate::record::Record;

/// The size of a record's body without changes: tag, lineage, version, checksum, count, prefix, layout, one head byte.
const MIN_BODY: usize = 46;

const TAG: u8 = 0x10;
const PAYLOAD: u8 = 2;
const PEELS: u8 = 4;

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

/// Whether it is known of all new ids, of which there is at least one, what they peel to.
pub(crate) fn know_peels(changes: &[Change]) -> bool {
    let mut ids = changes.iter().filter_map(|change| change.new_value()?.target()).peekable();
    ids.peek().is_some() && ids.all(|target| target.peel() != Peel::Unknown)
}

/// Takes what was said of all new ids: without a peeled id they are no tags. Answers whether saying so was the one way.
pub(crate) fn settle_peels(changes: &mut [Change], known: bool) -> bool {
    if known {
        changes.iter_mut().for_each(Change::know_peel);
    }
    know_peels(changes) == known
}

impl Record {
    /// Encodes the record as one frame, to append to a file or to keep in a row. [`Record::decode`] reads it back.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// # let transaction: Transaction = [Command::create(main.clone(), id)].into_iter().collect();
    /// # let record = refs.admit(&transaction)?.into_record().expect("the ref is new");
    /// use tenon_refslog::Record;
    ///
    /// let bytes = record.encode();
    /// assert_eq!(Record::decode(&bytes)?, record);
    /// assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let payload = self.payload();
        let mut body = Vec::with_capacity(MIN_BODY + payload.len() + changes.len() * 64);
        let of_payload = if payload.is_empty() { 0 } else { PAYLOAD };
        let of_peels = if know_peels(changes) { PEELS } else { 0 };
        body.push(TAG | format_bit(format_of(changes)) | of_payload | of_peels);
        body.extend_from_slice(&after.lineage.0.to_le_bytes());
        put_varint(&mut body, after.version.0);
        body.extend_from_slice(&after.checksum.to_bytes());
        if !payload.is_empty() {
            put_bytes(&mut body, payload);
        }
        put_len(&mut body, changes.len());
        let entries: Vec<Entry<'_>> = changes.iter().map(Entry::from).collect();
        put_run(&mut body, &entries, Restarts::None);
        frame::put_frame(out, &body);
    }

    /// Decodes a record that [`Record::encode`] wrote: one whole frame and nothing else.
    ///
    /// [`Records`](crate::Records) reads several.
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
        if tag & !(1 | PAYLOAD | PEELS) != TAG {
            return Err(DecodeError::new(base, Kind::Unsupported { tag }));
        }
        let lineage = LineageId(u64::from_le_bytes(reader.array()?));
        let version = reader.version()?;
        let checksum = Checksum::from_bytes(reader.array()?);
        let payload = if tag & PAYLOAD == 0 { &[][..] } else { reader.bytes()? };
        if (tag & PAYLOAD != 0 && payload.is_empty()) || payload.len() > Self::MAX_PAYLOAD {
            return Err(reader.error(Kind::Field));
        }
        let count = reader.len()?;
        let mut changes = Vec::new();
        if count > 0 {
            read_changes(reader, format_from_bit(tag), count, &mut changes)?.finish()?;
        }
        // Without any id, either format would do: the first is the canonical one.
        let is_canonical = format_of(&changes) == format_from_bit(tag);
        if !is_canonical || !settle_peels(&mut changes, tag & PEELS != 0) {
            return Err(DecodeError::new(base, Kind::NotCanonical));
        }
        let record = Self::new(Point { lineage, version, checksum }, changes)
            .map_err(|error| DecodeError::new(base, Kind::Changes(error)))?;
        record.with_payload(payload).map_err(|_| DecodeError::new(base, Kind::Field))
    }
}
