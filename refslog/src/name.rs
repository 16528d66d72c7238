//! Ref names, by Git's own rules.

use alloc::sync::Arc;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

/// Names up to this long are held without an allocation.
const INLINE: usize = 38;

/// A ref's full name, such as `refs/heads/main` or `HEAD`: bytes, not text, compared byte by byte.
///
/// [`RefName::new`] takes what `git check-ref-format --allow-onelevel` takes. [`RefName::broken`] also takes names
/// that Git would no longer create but that can be named without leaving `refs/`, so that a repository which has one
/// can be read and rid of it; [`RefName::is_well_formed`] tells the two apart.
#[derive(Clone)]
pub struct RefName(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, buf: [u8; INLINE] },
    Shared(Arc<[u8]>),
}

/// The rule that a ref name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than [`RefName::MAX_LEN`].
    #[error("the name is longer than {} bytes", RefName::MAX_LEN)]
    TooLong,
    /// A component between slashes is empty: a slash at either end, or two in a row.
    #[error("a component of the name is empty")]
    EmptyComponent,
    /// A component starts with a dot.
    #[error("a component starts with '.'")]
    LeadingDot,
    /// The name contains two dots in a row.
    #[error("the name contains '..'")]
    DoubleDot,
    /// The name ends with a dot.
    #[error("the name ends with '.'")]
    TrailingDot,
    /// A component ends with `.lock`.
    #[error("a component ends with '.lock'")]
    LockSuffix,
    /// The name is the single character `@`.
    #[error("the name is '@'")]
    AtAlone,
    /// The name contains `@{`.
    #[error("the name contains '@{{'")]
    AtBrace,
    /// The name contains a control character, a space, or one of `~ ^ : ? * [ \`.
    #[error("byte {byte:#04x} at offset {at} is not allowed in a name")]
    ForbiddenByte {
        /// The offset of the byte in the name.
        at: usize,
        /// The forbidden byte.
        byte: u8,
    },
    /// The name has one level only (no slash), where more are required.
    #[error("the name has one level only")]
    OneLevel,
    /// The name could point outside of `refs/`, so it cannot even be represented.
    #[error("the name could leave 'refs/'")]
    Unsafe,
}

/// Whether a name without a slash passes [`RefName::check`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OneLevel {
    /// Refuse, as plain `git check-ref-format`: a slash is required.
    #[default]
    Refuse,
    /// Allow, as `git check-ref-format --allow-onelevel`.
    Allow,
}

impl RefName {
    /// The longest name that can be represented, in bytes.
    pub const MAX_LEN: usize = 65_535;

    /// A well-formed name. One level is enough here (`HEAD`); admission has a rule of its own for those.
    ///
    /// ```
    /// use tenon_refslog::{NameError, RefName};
    ///
    /// assert!(RefName::new("refs/heads/main").is_ok());
    /// assert_eq!(RefName::new("refs/heads/a..b"), Err(NameError::DoubleDot));
    /// ```
    ///
    /// # Errors
    /// The first rule of `git check-ref-format --allow-onelevel` that the name breaks.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let name = name.as_ref();
        Self::check(name, OneLevel::Allow)?;
        Ok(Self::store(name))
    }

    /// A name that Git would not create, but that is safe to name.
    ///
    /// It is below `refs/` without `.`, `..` and empty components and without a NUL byte, or consists of capitals and
    /// underscores only. Well-formed names pass too.
    ///
    /// # Errors
    /// [`NameError::Unsafe`], or an empty or overlong name.
    pub fn broken(name: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let name = name.as_ref();
        if Self::check(name, OneLevel::Allow).is_ok() || is_safe(name) {
            check_len(name)?;
            return Ok(Self::store(name));
        }
        check_len(name)?;
        Err(NameError::Unsafe)
    }

    /// Checks a name by the rules of `git check-ref-format`, without building it.
    ///
    /// ```
    /// use tenon_refslog::{NameError, OneLevel, RefName};
    ///
    /// assert_eq!(RefName::check(b"main", OneLevel::Refuse), Err(NameError::OneLevel));
    /// assert_eq!(RefName::check(b"main", OneLevel::Allow), Ok(()));
    /// ```
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn check(name: &[u8], one_level: OneLevel) -> Result<(), NameError> {
        check_len(name)?;
        if name == b"@" {
            return Err(NameError::AtAlone);
        }
        let mut start = 0;
        let mut previous = b'/';
        for (at, &byte) in name.iter().enumerate() {
            if !PLAIN[usize::from(byte)] {
                match byte {
                    b'/' => {
                        check_component(name.get(start..at).unwrap_or_default())?;
                        start = at + 1;
                    }
                    b'.' if previous == b'/' => return Err(NameError::LeadingDot),
                    b'.' if previous == b'.' => return Err(NameError::DoubleDot),
                    b'{' if previous == b'@' => return Err(NameError::AtBrace),
                    b'.' | b'{' => {}
                    _ => return Err(NameError::ForbiddenByte { at, byte }),
                }
            }
            previous = byte;
        }
        check_component(name.get(start..).unwrap_or_default())?;
        if previous == b'.' {
            return Err(NameError::TrailingDot);
        }
        if start == 0 && one_level == OneLevel::Refuse {
            return Err(NameError::OneLevel);
        }
        Ok(())
    }

    /// Whether Git would create a ref of this name (a one-level name counts).
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        Self::check(self.as_bytes(), OneLevel::Allow).is_ok()
    }

    /// Whether the name has no slash (`HEAD`, `ORIG_HEAD`).
    #[must_use]
    pub fn is_one_level(&self) -> bool {
        !self.as_bytes().contains(&b'/')
    }

    /// Whether the name is `HEAD`.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.as_bytes() == b"HEAD"
    }

    /// Whether the name is a root ref that Git both makes and deletes: capitals and underscores only (`HEAD`,
    /// `ORIG_HEAD`).
    #[must_use]
    pub fn is_root(&self) -> bool {
        is_root(self.as_bytes())
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, buf } => buf.get(..usize::from(*len)).unwrap_or(buf),
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The proper prefixes that end before a slash, shortest first: `refs`, `refs/heads` for `refs/heads/main`.
    ///
    /// ```
    /// use tenon_refslog::RefName;
    ///
    /// let name = RefName::new("refs/heads/main")?;
    /// assert_eq!(name.parents().collect::<Vec<_>>(), [b"refs".as_slice(), b"refs/heads"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = self.as_bytes();
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').filter_map(move |(at, _)| bytes.get(..at))
    }

    /// Sixteen bytes from `at` on, in the order of bytes, with zeros behind the name's end: no name has a zero byte.
    pub(crate) fn key_at(&self, at: usize) -> u128 {
        // What is behind an inline name is zero.
        if let Repr::Inline { buf, .. } = &self.0
            && let Some(key) = buf.get(at..).and_then(|rest| rest.first_chunk())
        {
            return u128::from_be_bytes(*key);
        }
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(self.as_bytes().get(at..).unwrap_or_default()) {
            *to = *from;
        }
        u128::from_be_bytes(key)
    }

    /// Holds bytes that were checked, or that come from a name.
    pub(crate) fn store(name: &[u8]) -> Self {
        let mut buf = [0; INLINE];
        if let (Ok(len), Some(head)) = (u8::try_from(name.len()), buf.get_mut(..name.len())) {
            head.copy_from_slice(name);
            return Self(Repr::Inline { len, buf });
        }
        Self(Repr::Shared(Arc::from(name)))
    }
}

/// Bytes that are allowed anywhere: all but slash, dot, brace and the forbidden ones.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        let control = byte <= b' ' as usize || byte == 0x7f;
        plain[byte] = !control;
        byte += 1;
    }
    let special = b"/.{~^:?*[\\";
    let mut at = 0;
    while at < special.len() {
        plain[special[at] as usize] = false;
        at += 1;
    }
    plain
};

fn check_len(name: &[u8]) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > RefName::MAX_LEN {
        return Err(NameError::TooLong);
    }
    Ok(())
}

fn check_component(component: &[u8]) -> Result<(), NameError> {
    if component.is_empty() {
        return Err(NameError::EmptyComponent);
    }
    if component.ends_with(b".lock") {
        return Err(NameError::LockSuffix);
    }
    Ok(())
}

/// Git's `refname_is_safe`: nothing that a file system could take for a way out of `refs/`.
fn is_safe(name: &[u8]) -> bool {
    if name.contains(&0) {
        return false;
    }
    match name.strip_prefix(b"refs/") {
        Some(rest) => rest.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")),
        None => is_root(name),
    }
}

fn is_root(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_')
}

impl PartialEq for RefName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for RefName {}

impl PartialOrd for RefName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RefName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for RefName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl core::borrow::Borrow<[u8]> for RefName {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for RefName {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl TryFrom<&str> for RefName {
    type Error = NameError;

    fn try_from(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl core::str::FromStr for RefName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefName({self})")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for RefName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match core::str::from_utf8(self.as_bytes()) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_bytes(self.as_bytes()),
        }
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for RefName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> serde::de::Visitor<'de> for Bytes {
            type Value = RefName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a ref name")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<RefName, E> {
                RefName::broken(bytes).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RefName, E> {
                self.visit_bytes(text.as_bytes())
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<RefName, A::Error> {
                let mut bytes = alloc::vec::Vec::new();
                while let Some(byte) = seq.next_element::<u8>()? {
                    if bytes.len() >= RefName::MAX_LEN {
                        return Err(serde::de::Error::custom(NameError::TooLong));
                    }
                    bytes.push(byte);
                }
                self.visit_bytes(&bytes)
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}
