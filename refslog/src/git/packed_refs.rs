//! The `packed-refs` file.

use alloc::vec::Vec;

use super::{Fields, ParseError, ParseErrorKind, UnwritableName, lines, put_hex, split_once, writable};
use crate::change::{Target, Value};
use crate::name::RefName;
use crate::oid::ObjectFormat;

const HEADER: &[u8] = b"# pack-refs with: ";

/// The refs in a `packed-refs` file, in the file's order.
///
/// # Errors
/// The first line that Git would not have written.
pub fn parse_packed_refs(text: &[u8], format: ObjectFormat) -> Result<Vec<(RefName, Value)>, ParseError> {
    let mut refs: Vec<(RefName, Value)> = Vec::new();
    for (number, line) in lines(text) {
        let line = line?;
        let fields = Fields { line: number, format };
        if line.starts_with(b"#") {
            continue;
        }
        if let Some(hex) = line.strip_prefix(b"^") {
            let stray = || fields.error(ParseErrorKind::StrayPeeled);
            let (_, value) = refs.last_mut().ok_or_else(stray)?;
            let Value::Direct(target) = &*value else { return Err(stray()) };
            if target.peeled().is_some() {
                return Err(stray());
            }
            let peeled = Target::peeled_to(target.id(), fields.id(hex)?).map_err(|_| stray())?;
            *value = peeled.into();
            continue;
        }
        let (hex, name) = split_once(line, b' ').ok_or_else(|| fields.error(ParseErrorKind::Fields))?;
        refs.push((fields.name(name)?, fields.id(hex)?.into()));
    }
    Ok(refs)
}

/// A `packed-refs` file of these refs, which must come in the order of names.
///
/// Symbolic refs are left out: Git keeps them as files of their own. Without `peeled` for every annotated tag the header
/// does not claim that the file is peeled, so pass refs whose tags are either all peeled or not at all.
///
/// # Errors
/// A name with a line feed.
pub fn write_packed_refs(refs: impl IntoIterator<Item = (RefName, Value)>) -> Result<Vec<u8>, UnwritableName> {
    let mut out = Vec::new();
    let mut peeled = false;
    for (name, value) in refs {
        let Value::Direct(target) = value else { continue };
        put_hex(&mut out, target.id().as_bytes());
        out.push(b' ');
        out.extend_from_slice(writable(&name)?);
        out.push(b'\n');
        if let Some(id) = target.peeled() {
            peeled = true;
            out.push(b'^');
            put_hex(&mut out, id.as_bytes());
            out.push(b'\n');
        }
    }
    let claims: &[u8] = if peeled { b"peeled fully-peeled sorted \n" } else { b"sorted \n" };
    Ok([HEADER, claims, &out].concat())
}
