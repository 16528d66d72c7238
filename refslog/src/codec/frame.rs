//! Frames of a log that is only appended to: `length | CRC32C of that | CRC32C of length and body | body`.
//!
//! The length has a checksum of its own. So a frame that ends behind the file was cut short, whatever stands in it; without
//! that, only a search for frames behind it would tell a short write from a damaged length, and a record may hold bytes
//! that look like a frame.

use alloc::vec::Vec;

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::{Reader, put_len};
use crate::record::Record;

/// Appends one frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, body: &[u8]) {
    let start = out.len();
    put_len(out, body.len());
    let of_length = crc32c::crc32c(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&of_length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c_append(of_length, body).to_le_bytes());
    out.extend_from_slice(body);
}

/// Reads the frame at the front of `bytes`: its body and its whole length. [`Kind::Truncated`] where it goes on behind
/// their end, which nothing but a short write explains.
pub(crate) fn take_frame(bytes: &[u8], base: usize) -> Result<(&[u8], usize), DecodeError> {
    let corrupt = || DecodeError::new(base, Kind::Corrupt);
    let mut reader = Reader::new(bytes, base);
    let len = reader.varint().map_err(|error| if *error.kind() == Kind::Truncated { error } else { corrupt() })?;
    let head = bytes.get(..bytes.len() - reader.left()).unwrap_or_default();
    let of_length = u32::from_le_bytes(reader.array()?);
    if len == 0 || crc32c::crc32c(head) != of_length {
        return Err(corrupt());
    }
    let crc = u32::from_le_bytes(reader.array()?);
    let len = usize::try_from(len).map_err(|_| reader.error(Kind::Truncated))?;
    let body = reader.take(len)?;
    if crc32c::crc32c_append(of_length, body) != crc {
        return Err(corrupt());
    }
    Ok((body, bytes.len() - reader.left()))
}

/// The records of a log file, or of several rows put end to end, one after another.
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

    /// The offset of the next record: after a torn write, where to cut.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    fn read(&mut self) -> Result<Record, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (body, len) = take_frame(rest, self.at).map_err(|error| {
            let torn = *error.kind() == Kind::Truncated || ends_unwritten(rest);
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

/// The longest length with its checksum.
const HEAD: usize = 14;
/// The number of zero bytes at the end that mark bytes as not written: data that was written whole does not end so.
const UNWRITTEN: usize = 8;

/// Whether the bytes of a bad frame end in zeros, as a file system leaves what was allocated and not written: all of them, or
/// those from a place within this frame on, so that no other can stand behind it.
fn ends_unwritten(bytes: &[u8]) -> bool {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut reader = Reader::new(bytes, 0);
    let end = match (reader.varint(), reader.array()) {
        (Ok(len), Ok(of_length)) => {
            let head = bytes.get(..bytes.len() - reader.left() - 4).unwrap_or_default();
            let right = crc32c::crc32c(head) == u32::from_le_bytes(of_length);
            usize::try_from(len).ok().filter(|_| right).map(|len| len.saturating_add(head.len() + 8))
        }
        _ => None,
    };
    written == 0 || (written < end.unwrap_or(HEAD) && bytes.len() - written >= UNWRITTEN)
}
