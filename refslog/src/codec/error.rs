//! Why bytes are not what they should be, and where.

use crate::compact::SegmentError;
use crate::name::NameError;
use crate::oid::OidError;
use crate::record::MalformedChanges;

/// Bytes that are no record, segment or snapshot: what is wrong, and at which offset of the input.
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

    /// Offset in the input at which the fault shows.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> &DecodeErrorKind {
        &self.kind
    }

    /// Whether this is a last frame that was not written whole: what stands before it is good, and the log may be cut
    /// at [`DecodeError::offset`] and continued.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        matches!(self.kind, DecodeErrorKind::Torn)
    }
}

/// What is wrong with bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The last frame is incomplete: a write was cut short.
    #[error("the last frame is incomplete")]
    Torn,
    /// A checksum does not fit its bytes: something was altered.
    #[error("the bytes do not fit their checksum")]
    Corrupt,
    /// A format of a later release, or none of ours.
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
    /// The same value has another, canonical form.
    #[error("the value is not in its canonical form")]
    NotCanonical,
    /// Bytes follow where the value ends.
    #[error("bytes follow the end")]
    TrailingBytes,
    /// A field has a value that has no meaning.
    #[error("a field has no meaning")]
    Field,
    /// A name that cannot be one.
    #[error("a name is not one: {0}")]
    Name(NameError),
    /// An id that cannot be one.
    #[error("an id is not one: {0}")]
    Oid(OidError),
    /// Changes that make no record.
    #[error("the changes make no record: {0}")]
    Changes(MalformedChanges),
    /// Parts that make no segment.
    #[error("the parts make no segment: {0}")]
    Segment(SegmentError),
}
