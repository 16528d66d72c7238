//! Git's own text formats, both ways: pure text, no process is run here.
//!
//! Parsers take what Git prints and hand out typed values; writers make what Git reads. Null ids become `None`.

mod for_each_ref;
mod lines;
mod packed_refs;
mod reflog;
mod update_ref;

pub use for_each_ref::{
    FOR_EACH_REF_FORMAT, ListingError, UnreadReason, UnreadRef, parse_for_each_ref, write_for_each_ref,
};
pub use lines::{HookLine, parse_hook_line, parse_hook_lines, write_hook_line};
pub use packed_refs::{PackedRefsError, parse_packed_refs, write_packed_refs};
pub use reflog::{ReflogLine, parse_reflog, parse_reflog_line, write_reflog_line};
pub use update_ref::{UnwritableCommand, parse_update_ref, write_changes, write_transaction};

use alloc::vec::Vec;

use crate::name::{NameError, RefName};
use crate::oid::{ObjectFormat, ObjectId, OidError};

/// Why text is not what Git would have written, and on which line (for `-z` formats, in which field).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct ParseError {
    line: usize,
    kind: ParseErrorKind,
}

impl ParseError {
    pub(crate) const fn new(line: usize, kind: ParseErrorKind) -> Self {
        Self { line, kind }
    }

    /// The line, or for `-z` formats the field, counted from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The kind of the fault.
    #[must_use]
    pub const fn kind(&self) -> &ParseErrorKind {
        &self.kind
    }
}

/// The kind of a fault in text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The line has a wrong number of fields.
    #[error("the line has a wrong number of fields")]
    Fields,
    /// The text ends within a line.
    #[error("the text ends within a line")]
    Unterminated,
    /// A ref name is not valid.
    #[error("{0}")]
    Name(NameError),
    /// An object id is not valid.
    #[error("{0}")]
    Oid(OidError),
    /// An id is of another object format than the repository.
    #[error("the id is not of format {want}")]
    ObjectFormat {
        /// The repository's format.
        want: ObjectFormat,
    },
    /// A peeled id stands without a ref before it.
    #[error("a peeled id stands without a ref before it")]
    StrayPeeled,
    /// A word is neither a command nor an option.
    #[error("the word is neither a command nor an option")]
    Unknown,
    /// A command that only steers `update-ref`'s own transaction is out of place.
    #[error("a command is out of place")]
    OutOfPlace,
    /// A number is not valid.
    #[error("a number is not valid")]
    Number,
    /// A transaction was begun and not committed when the text ended: Git aborts it.
    #[error("the text ends before 'commit', so Git aborts the transaction")]
    Unfinished,
}

/// A name contains a line feed, so it cannot be written in a line-based format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' contains a line feed and cannot stand in a line")]
pub struct UnwritableName {
    /// The name of the ref.
    pub name: RefName,
}

fn writable(name: &RefName) -> Result<&[u8], UnwritableName> {
    let bytes = name.as_bytes();
    if bytes.contains(&b'\n') { Err(UnwritableName { name: name.clone() }) } else { Ok(bytes) }
}

/// Complete lines with their numbers; the text must end with a line feed.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Result<&[u8], ParseError>)> {
    text.split_inclusive(|byte| *byte == b'\n').enumerate().map(|(at, line)| {
        let line = line.strip_suffix(b"\n").ok_or(ParseError::new(at + 1, ParseErrorKind::Unterminated));
        (at + 1, line)
    })
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// Parses fields of one line or record.
#[derive(Clone, Copy)]
struct Fields {
    line: usize,
    format: ObjectFormat,
}

impl Fields {
    fn error(self, kind: ParseErrorKind) -> ParseError {
        ParseError::new(self.line, kind)
    }

    fn name(self, bytes: &[u8]) -> Result<RefName, ParseError> {
        RefName::broken(bytes).map_err(|error| self.error(ParseErrorKind::Name(error)))
    }

    fn id_or_null(self, hex: &[u8]) -> Result<Option<ObjectId>, ParseError> {
        if hex.len() != self.format.hex_len() && matches!(hex.len(), 40 | 64) {
            return Err(self.error(ParseErrorKind::ObjectFormat { want: self.format }));
        }
        ObjectId::from_hex_or_null(hex).map_err(|error| self.error(ParseErrorKind::Oid(error)))
    }

    fn id(self, hex: &[u8]) -> Result<ObjectId, ParseError> {
        self.id_or_null(hex)?.ok_or_else(|| self.error(ParseErrorKind::Oid(OidError::Null)))
    }
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend([byte >> 4, byte & 15].map(|nibble| DIGITS[usize::from(nibble)]));
    }
}

fn put_id_or_null(out: &mut Vec<u8>, id: Option<ObjectId>, format: ObjectFormat) {
    match id {
        Some(id) => put_hex(out, id.as_bytes()),
        None => out.extend_from_slice(format.null_hex().as_bytes()),
    }
}
