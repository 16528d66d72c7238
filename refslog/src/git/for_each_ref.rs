//! The output of `git for-each-ref`.

use alloc::vec::Vec;

use super::{Fields, ParseError, ParseErrorKind, UnwritableName, lines, put_hex, writable};
use crate::change::{Target, Value};
use crate::name::RefName;
use crate::oid::ObjectFormat;
use crate::refs::Refs;

/// What to pass as `git for-each-ref --format`: id, peeled id, symbolic target and name, separated by spaces.
///
/// `--include-root-refs` (Git 2.45) adds `HEAD`; before that, `git symbolic-ref HEAD` has it. An unborn `HEAD` is in
/// neither output of `for-each-ref`.
pub const FOR_EACH_REF_FORMAT: &str = "%(objectname) %(*objectname) %(symref) %(refname)";

/// The refs that `git for-each-ref` printed with [`FOR_EACH_REF_FORMAT`], in the order of the output.
///
/// Of a chain of symbolic refs, Git prints the end only: a host that serves such chains asks `git symbolic-ref` for each.
///
/// # Errors
/// The first line that Git would not have printed.
pub fn parse_for_each_ref(text: &[u8], format: ObjectFormat) -> Result<Vec<(RefName, Value)>, ParseError> {
    let mut refs = Vec::new();
    for (number, line) in lines(text) {
        let fields = Fields { line: number, format };
        let mut parts = line?.splitn(4, |byte| *byte == b' ');
        let mut part = || parts.next().ok_or_else(|| fields.error(ParseErrorKind::Fields));
        let (id, peeled, symref, name) = (part()?, part()?, part()?, part()?);
        let id = fields.id(id)?;
        let value = match (peeled, symref) {
            (_, target) if !target.is_empty() => Value::Symbolic(fields.name(target)?),
            (b"", _) => Value::from(id),
            (peeled, _) => Target::peeled_to(id, fields.id(peeled)?)
                .map_err(|_| fields.error(ParseErrorKind::ObjectFormat { want: format }))?
                .into(),
        };
        refs.push((fields.name(name)?, value));
    }
    Ok(refs)
}

/// What `git for-each-ref` would print of these refs with [`FOR_EACH_REF_FORMAT`], `HEAD` included.
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
