//! The output of `git for-each-ref`.

use alloc::vec::Vec;
use core::fmt;

use super::{Fields, ParseError, ParseErrorKind, UnwritableName, lines, put_hex, writable};
use crate::change::{Target, Value};
use crate::name::RefName;
use crate::oid::ObjectFormat;
use crate::refs::Refs;

/// The argument for `git for-each-ref --format`: id, peeled id, symbolic target and name, separated by spaces.
///
/// `--include-root-refs` (Git 2.45) adds `HEAD`; before that, `git symbolic-ref HEAD` has it. An unborn `HEAD` is in
/// neither output of `for-each-ref`.
pub const FOR_EACH_REF_FORMAT: &str = "%(objectname) %(*objectname) %(symref) %(refname)";

/// A ref that Git passed over because it cannot read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnreadRef {
    /// The name as Git printed it. It may be one that [`RefName`] refuses.
    pub name: Vec<u8>,
    /// The reason why Git cannot read the ref.
    pub reason: UnreadReason,
}

/// The reason why Git passed over a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnreadReason {
    /// Broken: its content is neither an id nor the name of a ref, as a power loss leaves it.
    ///
    /// No command of Git writes or deletes such a ref; its file in the repository has to be removed.
    Broken,
    /// Bad name: its name breaks Git's rules. `git update-ref -d` deletes it.
    BadName,
}

impl fmt::Display for UnreadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.reason {
            UnreadReason::Broken => "it is damaged",
            UnreadReason::BadName => "its name breaks Git's rules",
        };
        write!(f, "'{}': {what}", self.name.escape_ascii())
    }
}

/// Why the output of `git for-each-ref` is not a complete list of refs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListingError {
    /// A line of standard output is not what Git prints.
    #[error("the listing cannot be read: {0}")]
    Parse(#[from] ParseError),
    /// Git passed over refs. They exist: that they are not listed does not mean that they were deleted.
    #[error("Git cannot read {}{}", .first, More(.rest.len()))]
    Unread {
        /// The first ref passed over.
        first: UnreadRef,
        /// All further refs passed over.
        rest: Vec<UnreadRef>,
    },
    /// Git printed another message on standard error, so the list may be incomplete.
    #[error("Git printed while it listed refs: {}", .line.escape_ascii())]
    Said {
        /// The first line of the message.
        line: Vec<u8>,
    },
}

struct More(usize);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, "; nor {} more", self.0) }
    }
}

/// Parses the output of `git for-each-ref` with [`FOR_EACH_REF_FORMAT`], in the order of the output, if it is complete.
///
/// Git passes over what it cannot read, says so on standard error only, and ends with status 0. So both texts of the
/// process are needed, printed in English (`LC_ALL=C`), and the caller must check that its status was 0. Git does
/// **not** say that it passes over symbolic refs that lead nowhere: ask `git symbolic-ref` for those that may be there.
///
/// Of a chain of symbolic refs, Git prints the end only: a host that serves such chains asks `git symbolic-ref
/// --no-recurse` for each.
///
/// # Errors
/// The listing is not complete, or a line is none that Git would have printed.
pub fn parse_for_each_ref(
    output: &[u8],
    errors: &[u8],
    format: ObjectFormat,
) -> Result<Vec<(RefName, Value)>, ListingError> {
    check_errors(errors)?;
    Ok(parse_listing(output, format)?)
}

/// Whether Git listed everything, by what it printed on standard error.
fn check_errors(errors: &[u8]) -> Result<(), ListingError> {
    let mut unread = Vec::new();
    for line in errors.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let known = [
            (&b"warning: ignoring broken ref "[..], UnreadReason::Broken),
            (b"warning: ignoring ref with broken name ", UnreadReason::BadName),
        ];
        let found = known.iter().find_map(|(lead, reason)| Some((line.strip_prefix(*lead)?, *reason)));
        let Some((name, reason)) = found else { return Err(ListingError::Said { line: line.to_vec() }) };
        unread.push(UnreadRef { name: name.to_vec(), reason });
    }
    let mut unread = unread.into_iter();
    match unread.next() {
        Some(first) => Err(ListingError::Unread { first, rest: unread.collect() }),
        None => Ok(()),
    }
}

fn parse_listing(text: &[u8], format: ObjectFormat) -> Result<Vec<(RefName, Value)>, ParseError> {
    let mut refs = Vec::new();
    for (number, line) in lines(text) {
        let fields = Fields { line: number, format };
        let mut parts = line?.splitn(4, |byte| *byte == b' ');
        let mut part = || parts.next().ok_or_else(|| fields.error(ParseErrorKind::Fields));
        let (id, peeled, symref, name) = (part()?, part()?, part()?, part()?);
        let id = fields.id(id)?;
        let value = match (peeled, symref) {
            (_, target) if !target.is_empty() => Value::Symbolic(fields.name(target)?),
            (b"", _) => Target::not_a_tag(id).into(),
            (peeled, _) => Target::peeled_to(id, fields.id(peeled)?)
                .map_err(|_| fields.error(ParseErrorKind::ObjectFormat { want: format }))?
                .into(),
        };
        refs.push((fields.name(name)?, value));
    }
    Ok(refs)
}

/// Writes these refs as `git for-each-ref` with [`FOR_EACH_REF_FORMAT`] would print them, `HEAD` included.
///
/// Like Git, it names the end of a chain of symbolic refs, and prints no symbolic ref that leads nowhere.
///
/// # Errors
/// A name with a line feed.
pub fn write_for_each_ref(refs: &Refs) -> Result<Vec<u8>, UnwritableName> {
    let mut out = Vec::new();
    for (name, value) in refs.iter() {
        let (value, symref) = match value {
            Value::Direct(_) => (Some(value), None),
            Value::Symbolic(_) => {
                let end = refs.resolve(&name);
                (end.as_ref().and_then(|end| refs.get(end)), end)
            }
        };
        let Some(Value::Direct(target)) = value else { continue };
        put_hex(&mut out, target.id().as_bytes());
        out.push(b' ');
        if let Some(peeled) = target.peeled() {
            put_hex(&mut out, peeled.as_bytes());
        }
        out.push(b' ');
        if let Some(symref) = &symref {
            out.extend_from_slice(writable(symref)?);
        }
        out.push(b' ');
        out.extend_from_slice(writable(&name)?);
        out.push(b'\n');
    }
    Ok(out)
}
