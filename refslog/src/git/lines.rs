//! The lines `old new name` that hooks and a push bring.

use alloc::vec::Vec;

use super::{Fields, ParseError, ParseErrorKind, UnwritableName, lines, put_id_or_null, split_once, writable};
use crate::change::{Old, Value};
use crate::name::RefName;
use crate::oid::{ObjectFormat, ObjectId};
use crate::transaction::{Command, Transaction};

/// A line `old new name`, as `pre-receive`, `post-receive`, `proc-receive` and `reference-transaction` get it.
///
/// In `reference-transaction`, a null old id may also mean that none was expected, and either value may be symbolic
/// (`ref:refs/heads/main`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HookLine {
    /// The old value; `None` for the null id.
    pub old: Option<Value>,
    /// The new value; `None` for the null id.
    pub new: Option<Value>,
    /// The name of the ref.
    pub name: RefName,
}

impl HookLine {
    /// Converts the line to a command that expects the old value (a null id expects no ref), as a push means it.
    #[must_use]
    pub fn into_command(self) -> Command {
        let command = match self.new {
            Some(value) => Command::update(self.name, value),
            None => Command::delete(self.name),
        };
        command.expecting(Old::known(self.old))
    }
}

/// Parses one line, without its line feed.
///
/// ```
/// use tenon_refslog::{ObjectFormat, git};
///
/// let text = format!("{} {} refs/heads/main", "0".repeat(40), "a".repeat(40));
/// let line = git::parse_hook_line(text.as_bytes(), ObjectFormat::Sha1)?;
/// assert_eq!((line.name.to_string(), line.old), ("refs/heads/main".to_owned(), None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The line is not `old new name`.
pub fn parse_hook_line(line: &[u8], format: ObjectFormat) -> Result<HookLine, ParseError> {
    parse_numbered(line, Fields { line: 1, format })
}

fn parse_numbered(line: &[u8], fields: Fields) -> Result<HookLine, ParseError> {
    let wrong = || fields.error(ParseErrorKind::Fields);
    let (old, rest) = split_once(line, b' ').ok_or_else(wrong)?;
    let (new, name) = split_once(rest, b' ').ok_or_else(wrong)?;
    let value = |text: &[u8]| match text.strip_prefix(b"ref:") {
        Some(target) => fields.name(target).map(|name| Some(Value::Symbolic(name))),
        None => Ok(fields.id_or_null(text)?.map(Value::from)),
    };
    Ok(HookLine { old: value(old)?, new: value(new)?, name: fields.name(name)? })
}

/// Parses all lines of a hook's input into one transaction.
///
/// # Errors
/// The first line that is not `old new name`.
pub fn parse_hook_lines(text: &[u8], format: ObjectFormat) -> Result<Transaction, ParseError> {
    lines(text)
        .map(|(number, line)| parse_numbered(line?, Fields { line: number, format }).map(HookLine::into_command))
        .collect()
}

/// Writes one line, with its line feed.
///
/// # Errors
/// A name with a line feed.
pub fn write_hook_line(out: &mut Vec<u8>, line: &HookLine, format: ObjectFormat) -> Result<(), UnwritableName> {
    let name = writable(&line.name)?;
    for value in [&line.old, &line.new] {
        match value {
            Some(Value::Symbolic(target)) => {
                let target = writable(target)?;
                out.extend_from_slice(b"ref:");
                out.extend_from_slice(target);
            }
            direct => put_id_or_null(out, direct.as_ref().and_then(Value::id), format),
        }
        out.push(b' ');
    }
    out.extend_from_slice(name);
    out.push(b'\n');
    Ok(())
}

impl From<(Option<ObjectId>, Option<ObjectId>, RefName)> for HookLine {
    fn from((old, new, name): (Option<ObjectId>, Option<ObjectId>, RefName)) -> Self {
        Self { old: old.map(Value::from), new: new.map(Value::from), name }
    }
}
