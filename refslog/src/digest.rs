//! The checksum of all refs, updated change by change.

use core::fmt;

use crate::change::Value;
use crate::name::RefName;
use crate::oid::{ObjectFormat, write_hex};

/// The checksum of a set of refs: the sum, modulo 2^256, of a keyed BLAKE3 hash of each (name, kind, value).
///
/// The sum does not depend on any order, so one change costs two hashes whatever the number of refs. This is the
/// additive multiset hash of Bellare and Micciancio ("A new paradigm for collision-free hashing", 1997) made safe
/// against chosen names by a secret key (Clarke, Devadas, van Dijk, Gassend and Suh, "Incremental multiset hash
/// functions", 2003, `MSet-Add-Hash`). Without the key, names could be searched that leave the sum as it was.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// The checksum of no refs.
    pub const EMPTY: Self = Self([0; 32]);

    /// A checksum from its 32 bytes (little-endian).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes (little-endian).
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The first 16 bytes, for a host that carries a 16-byte digest. A sum of its own: equal refs, equal prefix.
    #[must_use]
    pub fn prefix16(self) -> [u8; 16] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// The checksum with the entries of `other` added.
    ///
    /// ```
    /// use tenon_refslog::{Checksum, ChecksumKey, ObjectId, RefName, Value};
    ///
    /// let key = ChecksumKey::new([42; 32]);
    /// let entry = key.entry(&RefName::new("refs/heads/main")?, &Value::from(ObjectId::from_hex("a".repeat(40))?));
    /// assert_eq!(Checksum::EMPTY.plus(entry).minus(entry), Checksum::EMPTY);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut sum = [0; 32];
        let mut carry = false;
        for ((out, a), b) in sum.chunks_exact_mut(8).zip(limbs(&self.0)).zip(limbs(&other.0)) {
            let (limb, over) = a.overflowing_add(b);
            let (limb, again) = limb.overflowing_add(u64::from(carry));
            carry = over || again;
            out.copy_from_slice(&limb.to_le_bytes());
        }
        Self(sum)
    }

    /// The checksum with the entries of `other` taken out.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let mut difference = [0; 32];
        let mut borrow = false;
        for ((out, a), b) in difference.chunks_exact_mut(8).zip(limbs(&self.0)).zip(limbs(&other.0)) {
            let (limb, under) = a.overflowing_sub(b);
            let (limb, again) = limb.overflowing_sub(u64::from(borrow));
            borrow = under || again;
            out.copy_from_slice(&limb.to_le_bytes());
        }
        Self(difference)
    }
}

fn limbs(bytes: &[u8; 32]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|limb| limb.try_into().map_or(0, u64::from_le_bytes))
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

/// The secret key of a host's checksums: 32 random bytes, the same on all replicas of a repository.
///
/// Keep it with the host's other secrets, and never send it to users.
#[derive(Clone, PartialEq, Eq)]
pub struct ChecksumKey([u8; 32]);

/// Longest (name, kind, value) that is hashed without an allocation.
const FRAME: usize = 256;

impl ChecksumKey {
    /// A key from 32 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The checksum of one ref, to be added to the sum.
    ///
    /// A peeled id adds nothing: it is derived.
    #[must_use]
    pub fn entry(&self, name: &RefName, value: &Value) -> Checksum {
        let (kind, payload): (u8, &[u8]) = match value {
            Value::Direct(target) => match target.id().format() {
                ObjectFormat::Sha1 => (1, target.as_id_bytes()),
                ObjectFormat::Sha256 => (2, target.as_id_bytes()),
            },
            Value::Symbolic(target) => (3, target.as_bytes()),
        };
        self.hash(kind, name.as_bytes(), payload)
    }

    /// Framed so that no two (kind, name, payload) share their bytes: the kind, the name's length, the name, the rest.
    pub(crate) fn hash(&self, kind: u8, name: &[u8], payload: &[u8]) -> Checksum {
        // A name is at most `RefName::MAX_LEN` bytes, so its length fits two.
        let len = u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
        let [low, high] = len;
        let head = [kind, low, high];
        let parts: [&[u8]; 3] = [&head, name, payload];
        let mut frame = [0; FRAME];
        let mut end = 0;
        for part in parts {
            let Some(space) = frame.get_mut(end..end + part.len()) else {
                let mut hasher = blake3::Hasher::new_keyed(&self.0);
                for part in parts {
                    hasher.update(part);
                }
                return Checksum(*hasher.finalize().as_bytes());
            };
            space.copy_from_slice(part);
            end += part.len();
        }
        Checksum(*blake3::keyed_hash(&self.0, frame.get(..end).unwrap_or_default()).as_bytes())
    }
}

impl fmt::Debug for ChecksumKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChecksumKey(secret)")
    }
}
