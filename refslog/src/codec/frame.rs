//! Frames of a log that is only appended to: `length | CRC32C | body`.

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::{Reader, put_len};
use crate::record::Record;

/// Appends one frame. The checksum covers the length too, so that a damaged length is not taken for a short write.
pub(crate) fn put_frame(out: &mut Vec<u8>, body: &[u8]) {
    let start = out.len();
    put_len(out, body.len());
    let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
    let crc = crc32c::crc32c_append(crc, body);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
}

/// Reads the frame at the front of `bytes`: its body and its whole length.
pub(crate) fn take_frame(bytes: &[u8], base: usize) -> Result<(&[u8], usize), DecodeError> {
    let mut reader = Reader::new(bytes, base);
    let len = reader.varint()?;
    let head = bytes.get(..bytes.len() - reader.left()).unwrap_or_default();
    let crc = u32::from_le_bytes(reader.array()?);
    let len = usize::try_from(len).map_err(|_| reader.error(Kind::Truncated))?;
    let body = reader.take(len)?;
    if len == 0 || crc32c::crc32c_append(crc32c::crc32c(head), body) != crc {
        return Err(DecodeError::new(base, Kind::Corrupt));
    }
    Ok((body, bytes.len() - reader.left()))
}

/// The records of a log file or of several rows put end to end, one after another.
///
/// Yields each record until the bytes end. After an error it yields nothing more: [`DecodeError::is_torn`] tells a
/// write that was cut short (cut the file at the error's offset and go on) from damage before good records (do not).
#[derive(Clone, Debug)]
#[must_use]
pub struct Records {
    bytes: Bytes,
    at: usize,
    failed: Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    No,
    Yes,
}

impl Records {
    /// Reads the records in `bytes`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), at: 0, failed: Failed::No }
    }

    /// Offset of the next record: after a torn write, where to cut.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    fn read(&mut self) -> Result<Record, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (body, len) = take_frame(rest, self.at).map_err(|error| {
            let unwritten = *error.kind() == Kind::Truncated || ends_unwritten(rest);
            let torn = unwritten && !good_frame_follows(rest);
            DecodeError::new(self.at, if torn { Kind::Torn } else { Kind::Corrupt })
        })?;
        let record = Record::decode_body(body, self.at + len - body.len())?;
        self.at += len;
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<Record, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed == Failed::Yes || self.at >= self.bytes.len() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.failed = Failed::Yes;
        }
        Some(record)
    }
}

/// Whether the bytes end in zeros, as a file system leaves what was allocated and not written. No record ends so: an id
/// of eight zero bytes at its end is not met.
fn ends_unwritten(bytes: &[u8]) -> bool {
    bytes.iter().rev().take(8).all(|byte| *byte == 0)
}

/// Whether any good frame stands behind the bad one at the front, so that the bad one is not the end of the log.
///
/// The search may checksum eight times as many bytes as there are; if that does not settle it, the answer is "perhaps",
/// which counts as yes: nothing that may be good is ever given up.
fn good_frame_follows(bytes: &[u8]) -> bool {
    let mut budget = bytes.len().saturating_mul(8).saturating_add(1 << 16);
    for start in 1..bytes.len() {
        let rest = bytes.get(start..).unwrap_or_default();
        let mut reader = Reader::new(rest, 0);
        let Ok(len) = reader.len() else { continue };
        if len < super::record::MIN_BODY || reader.left() < len.saturating_add(4) {
            continue;
        }
        match budget.checked_sub(len) {
            Some(left) => budget = left,
            None => return true,
        }
        if take_frame(rest, 0).is_ok() {
            return true;
        }
    }
    false
}
