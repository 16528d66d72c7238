//! Object ids: SHA-1 or SHA-256, never mixed.

use alloc::string::String;
use core::fmt;

/// The hash that a repository names its objects by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ObjectFormat {
    /// SHA-1: 20 bytes, 40 hexadecimal digits.
    #[default]
    Sha1,
    /// SHA-256: 32 bytes, 64 hexadecimal digits.
    Sha256,
}

impl ObjectFormat {
    /// The length of an id in this format, in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Always `false`: ids have bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The number of hexadecimal digits of an id in this format.
    #[must_use]
    pub const fn hex_len(self) -> usize {
        self.len() * 2
    }

    /// The null id as Git writes it: zeros, for "no object".
    #[must_use]
    pub const fn null_hex(self) -> &'static str {
        const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
        match self {
            Self::Sha1 => ZEROS.split_at(40).0,
            Self::Sha256 => ZEROS,
        }
    }
}

impl fmt::Display for ObjectFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        })
    }
}

/// The id of an object. Never the null id.
///
/// "No object" is an `Option` here; the null id appears only in Git's text formats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(Repr);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

/// Why bytes or text are not an object id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OidError {
    /// The length is wrong: neither 20 nor 32 bytes, or not that of the format.
    #[error("an object id cannot have {len} bytes or digits")]
    Length {
        /// The given length: bytes for [`ObjectId::from_bytes`], digits for text.
        len: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("the character at offset {at} is not a hexadecimal digit")]
    Digit {
        /// The offset of the character.
        at: usize,
    },
    /// The id is the null id, where an object is needed.
    #[error("the null id names no object")]
    Null,
}

impl ObjectId {
    /// An id from its 20 (SHA-1) or 32 (SHA-256) bytes.
    ///
    /// # Errors
    /// Another length, or all zeros.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OidError> {
        if bytes.iter().all(|byte| *byte == 0) && matches!(bytes.len(), 20 | 32) {
            return Err(OidError::Null);
        }
        if let Ok(sha1) = <[u8; 20]>::try_from(bytes) {
            return Ok(Self(Repr::Sha1(sha1)));
        }
        <[u8; 32]>::try_from(bytes)
            .map(|sha256| Self(Repr::Sha256(sha256)))
            .map_err(|_| OidError::Length { len: bytes.len() })
    }

    /// An id from 40 or 64 hexadecimal digits.
    ///
    /// ```
    /// use tenon_refslog::{ObjectFormat, ObjectId, OidError};
    ///
    /// let id = ObjectId::from_hex("a".repeat(64))?;
    /// assert_eq!(id.format(), ObjectFormat::Sha256);
    /// assert_eq!(ObjectId::from_hex("abc"), Err(OidError::Length { len: 3 }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Another length, another character, or all zeros.
    pub fn from_hex(hex: impl AsRef<[u8]>) -> Result<Self, OidError> {
        Self::from_hex_or_null(hex)?.ok_or(OidError::Null)
    }

    /// An id from 40 or 64 hexadecimal digits; `None` for Git's null id.
    ///
    /// ```
    /// use tenon_refslog::ObjectId;
    ///
    /// assert_eq!(ObjectId::from_hex_or_null("0".repeat(40)), Ok(None));
    /// assert!(ObjectId::from_hex_or_null("a".repeat(40))?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The text has another length or another character.
    pub fn from_hex_or_null(hex: impl AsRef<[u8]>) -> Result<Option<Self>, OidError> {
        let hex = hex.as_ref();
        let mut bytes = [0_u8; 32];
        let Some(out) = bytes.get_mut(..hex.len() / 2).filter(|_| matches!(hex.len(), 40 | 64)) else {
            return Err(OidError::Length { len: hex.len() });
        };
        for (at, (pair, byte)) in hex.chunks_exact(2).zip(out.iter_mut()).enumerate() {
            let [high, low] = [pair.first(), pair.last()].map(|digit| digit.copied().and_then(nibble));
            let high = high.ok_or(OidError::Digit { at: 2 * at })?;
            let low = low.ok_or(OidError::Digit { at: 2 * at + 1 })?;
            *byte = high << 4 | low;
        }
        match Self::from_bytes(out) {
            Err(OidError::Null) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Sha1(bytes) => bytes,
            Repr::Sha256(bytes) => bytes,
        }
    }

    /// The format of the id.
    #[must_use]
    pub const fn format(&self) -> ObjectFormat {
        match self.0 {
            Repr::Sha1(_) => ObjectFormat::Sha1,
            Repr::Sha256(_) => ObjectFormat::Sha256,
        }
    }

    /// The id in lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        alloc::format!("{self}")
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.as_bytes())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

impl core::str::FromStr for ObjectId {
    type Err = OidError;

    fn from_str(hex: &str) -> Result<Self, OidError> {
        Self::from_hex(hex)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ObjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = <String as serde::Deserialize>::deserialize(deserializer)?;
        Self::from_hex(hex).map_err(serde::de::Error::custom)
    }
}
