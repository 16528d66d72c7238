//! Bytes for records, segments and snapshots: canonical (one byte string for one value), checked, and read as hostile.

pub(crate) mod block;
pub(crate) mod error;
pub(crate) mod frame;
pub(crate) mod index;
mod pack;
pub(crate) mod parts;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod run;
mod scan;
pub(crate) mod segment;
pub(crate) mod table;

use alloc::vec::Vec;

use crate::id::Version;
use error::{DecodeError, DecodeErrorKind as Kind};

/// Appends `value` in LEB128: seven bits a byte, low bits first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // Masked to seven bits: nothing is cut off.
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// Appends a length as a varint.
pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, len as u64);
}

/// Appends bytes behind their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads from the front of a slice; errors carry the offset in the whole input.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Offset of the slice's end in the whole input.
    end: usize,
}

impl<'a> Reader<'a> {
    /// Reads a slice that starts at the offset `base` of the whole input.
    pub(crate) const fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { rest: bytes, end: base.saturating_add(bytes.len()) }
    }

    /// Offset of the next byte in the whole input.
    #[inline]
    pub(crate) const fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    /// The bytes that are left to read.
    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) const fn error(&self, kind: Kind) -> DecodeError {
        DecodeError::new(self.offset(), kind)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else { return Err(self.error(Kind::Truncated)) };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else { return Err(self.error(Kind::Truncated)) };
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let Some((byte, rest)) = self.rest.split_first() else { return Err(self.error(Kind::Truncated)) };
        self.rest = rest;
        Ok(*byte)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let offset = self.offset();
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let fits = bits.checked_shl(shift).filter(|wide| wide >> shift == bits);
            value |= fits.ok_or(DecodeError::new(offset, Kind::Overlong))?;
            if byte & 0x80 == 0 {
                // A last byte of zero adds nothing: a shorter form exists.
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::new(offset, Kind::Overlong));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::new(offset, Kind::Overlong))
    }

    /// A count or length, which cannot be more than the bytes that are left.
    pub(crate) fn len(&mut self) -> Result<usize, DecodeError> {
        let offset = self.offset();
        let len = self.varint()?;
        usize::try_from(len).ok().filter(|len| *len <= self.left()).ok_or(DecodeError::new(offset, Kind::Truncated))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.len()?;
        self.take(len)
    }

    pub(crate) fn version(&mut self) -> Result<Version, DecodeError> {
        self.varint().map(Version)
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.left() == 0 { Ok(()) } else { Err(self.error(Kind::TrailingBytes)) }
    }
}
