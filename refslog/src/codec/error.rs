//! Decoding errors: why bytes are not what they should be, and where.

use crate::compact::SegmentError;
use crate::name::NameError;
use crate::oid::OidError;
use crate::record::MalformedChanges;

/// Why bytes are not a record, segment or snapshot, and at which offset of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {kind}")]
pub struct DecodeError {
    offset: usize,
    kind: DecodeErrorKind,
}

impl DecodeError {
    pub(crate) const fn new(offset: usize, kind: DecodeErrorKind) -> Self {
        Self { offset, kind }
    }

    /// The offset in the input at which the fault shows.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The kind of the fault.
    #[must_use]
    pub const fn kind(&self) -> &DecodeErrorKind {
        &self.kind
    }

    /// Whether the last frame was not written whole.
    ///
    /// The frames before it are good: the log may be cut at [`DecodeError::offset`] and continued.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        matches!(self.kind, DecodeErrorKind::Torn)
    }
}

/// The kind of a fault in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The last frame is incomplete: a write was cut short.
    #[error("the last frame is incomplete")]
    Torn,
    /// A checksum does not match its bytes: some of them were altered.
    #[error("the bytes do not match their checksum")]
    Corrupt,
    /// The format is of a later release, or not of this crate.
    #[error("the format is unknown (tag {tag:#04x})")]
    Unsupported {
        /// The first byte that is not known.
        tag: u8,
    },
    /// The input ends where more is needed, or a count exceeds the bytes that are left.
    #[error("the input ends too early")]
    Truncated,
    /// A number is not in its shortest form, or too large.
    #[error("a number is not in its shortest form")]
    Overlong,
    /// The value is not in its canonical form.
    #[error("the value is not in its canonical form")]
    NotCanonical,
    /// Bytes follow after the end of the value.
    #[error("bytes follow the end")]
    TrailingBytes,
    /// A field has a value that has no meaning.
    #[error("a field has a value without a meaning")]
    Field,
    /// A ref name is not valid.
    #[error("a ref name is not valid: {0}")]
    Name(NameError),
    /// An object id is not valid.
    #[error("an object id is not valid: {0}")]
    Oid(OidError),
    /// The changes do not make a record.
    #[error("the changes make no record: {0}")]
    Changes(MalformedChanges),
    /// The parts do not make a segment.
    #[error("the parts make no segment: {0}")]
    Segment(SegmentError),
}
