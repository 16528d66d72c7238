//! The `packed-refs` file.

use alloc::vec::Vec;

use super::{Fields, ParseError, ParseErrorKind, UnwritableName, lines, put_hex, split_once, writable};
use crate::change::{Peel, Target, Value};
use crate::name::RefName;
use crate::oid::ObjectFormat;

const HEADER: &[u8] = b"# pack-refs with:";
const TAGS: &[u8] = b"refs/tags/";

/// The refs whose peeled ids a file states completely.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Peeled {
    Perhaps,
    Tags,
    All,
}

impl Peeled {
    fn of_header(line: &[u8]) -> Self {
        let claims = || line.split(|byte| *byte == b' ');
        if claims().any(|claim| claim == b"fully-peeled") {
            Self::All
        } else if claims().any(|claim| claim == b"peeled") {
            Self::Tags
        } else {
            Self::Perhaps
        }
    }

    fn covers(self, name: &RefName) -> bool {
        self == Self::All || (self == Self::Tags && name.as_bytes().starts_with(TAGS))
    }
}

/// Parses a `packed-refs` file, in the file's order.
///
/// The header's statement about peeled ids is believed, as Git does.
///
/// ```
/// use tenon_refslog::{ObjectFormat, git};
///
/// let text = format!("{} refs/heads/main\n", "a".repeat(40));
/// assert_eq!(git::parse_packed_refs(text.as_bytes(), ObjectFormat::Sha1)?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first line that Git would not have written.
pub fn parse_packed_refs(text: &[u8], format: ObjectFormat) -> Result<Vec<(RefName, Value)>, ParseError> {
    let mut refs: Vec<(RefName, Value)> = Vec::new();
    let mut peeled = Peeled::Perhaps;
    for (number, line) in lines(text) {
        let line = line?;
        let fields = Fields { line: number, format };
        if line.starts_with(b"#") {
            if let Some(claims) = line.strip_prefix(HEADER).filter(|_| number == 1) {
                peeled = Peeled::of_header(claims);
            }
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
        let (name, id) = (fields.name(name)?, fields.id(hex)?);
        let target = if peeled.covers(&name) { Target::not_a_tag(id) } else { Target::from(id) };
        refs.push((name, target.into()));
    }
    Ok(refs)
}

/// Why refs do not make a `packed-refs` file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedRefsError {
    /// A name contains a line feed.
    #[error(transparent)]
    Unwritable(#[from] UnwritableName),
    /// A name stands twice.
    #[error("'{name}' stands twice")]
    Duplicate {
        /// The name that stands twice.
        name: RefName,
    },
}

/// Writes a `packed-refs` file of these refs, which may come in any order.
///
/// Symbolic refs and refs outside of `refs/` are left out: Git keeps them as files of their own. The header claims what holds
/// for every entry, and no more: `sorted`, since they are; `peeled` and `fully-peeled` where it is known of every tag, or of
/// every ref, whether it is an annotated tag and what it peels to ([`Peel`](crate::Peel)). Without the claim, Git looks at
/// the objects.
///
/// # Errors
/// A name with a line feed, or one that stands twice.
pub fn write_packed_refs(refs: impl IntoIterator<Item = (RefName, Value)>) -> Result<Vec<u8>, PackedRefsError> {
    let packed = refs.into_iter().filter_map(|(name, value)| match value {
        Value::Direct(target) if name.as_bytes().starts_with(b"refs/") => Some((name, target)),
        Value::Direct(_) | Value::Symbolic(_) => None,
    });
    let mut packed: Vec<(RefName, Target)> = packed.collect();
    packed.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut out = Vec::new();
    let mut peeled = Peeled::All;
    let mut previous: Option<&RefName> = None;
    for (name, target) in &packed {
        if previous.replace(name) == Some(name) {
            return Err(PackedRefsError::Duplicate { name: name.clone() });
        }
        put_hex(&mut out, target.id().as_bytes());
        out.push(b' ');
        out.extend_from_slice(writable(name)?);
        out.push(b'\n');
        match target.peel() {
            Peel::Unknown if name.as_bytes().starts_with(TAGS) => peeled = Peeled::Perhaps,
            Peel::Unknown => peeled = peeled.min(Peeled::Tags),
            Peel::NotATag => {}
            Peel::To(id) => {
                out.push(b'^');
                put_hex(&mut out, id.as_bytes());
                out.push(b'\n');
            }
        }
    }
    let claims: &[u8] = match peeled {
        Peeled::All => b" peeled fully-peeled sorted \n",
        Peeled::Tags => b" peeled sorted \n",
        Peeled::Perhaps => b" sorted \n",
    };
    Ok([HEADER, claims, &out].concat())
}
