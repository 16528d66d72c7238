//! The parts of a [run](super::run)'s entries as they stand in the bytes, without the names before them.

use super::Reader;
use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::pack::{is_packable, is_packed_well_long, packed_len, unpack, unpacked};
use super::run::{MAX_OP, MIXED, PACKED, PLAIN};
use crate::change::{Change, Old, Target, Value};
use crate::name::RefName;
use crate::oid::{ObjectFormat, ObjectId};

/// A value as it stands in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawValue<'a> {
    Direct { id: &'a [u8], peeled: Option<&'a [u8]> },
    Symbolic(&'a [u8]),
}

impl RawValue<'_> {
    pub(crate) fn to_value(self, offset: usize) -> Result<Value, DecodeError> {
        let id = |bytes| ObjectId::from_bytes(bytes).map_err(|error| DecodeError::new(offset, Kind::Oid(error)));
        match self {
            Self::Direct { id: bytes, peeled: None } => Ok(id(bytes)?.into()),
            Self::Direct { id: bytes, peeled: Some(peeled) } => Target::peeled_to(id(bytes)?, id(peeled)?)
                .map(Value::from)
                .map_err(|_| DecodeError::new(offset, Kind::Field)),
            Self::Symbolic(name) => {
                RefName::broken(name).map(Value::Symbolic).map_err(|error| DecodeError::new(offset, Kind::Name(error)))
            }
        }
    }
}

/// The old value that an entry states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawOld<'a> {
    Any,
    Absent,
    Is(RawValue<'a>),
}

/// An entry that was read, without its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEntry<'a> {
    pub(crate) old: RawOld<'a>,
    pub(crate) new: Option<RawValue<'a>>,
}

impl<'a> RawEntry<'a> {
    pub(crate) const fn plain(id: &'a [u8]) -> Self {
        Self { old: RawOld::Any, new: Some(RawValue::Direct { id, peeled: None }) }
    }

    /// The entry under its name as a change.
    pub(crate) fn to_change(self, name: &[u8], offset: usize) -> Result<Change, DecodeError> {
        let name = RefName::broken(name).map_err(|error| DecodeError::new(offset, Kind::Name(error)))?;
        let old = match self.old {
            RawOld::Any => Old::Any,
            RawOld::Absent => Old::Absent,
            RawOld::Is(value) => Old::Is(value.to_value(offset)?),
        };
        Ok(Change::new(name, old, self.new.map(|value| value.to_value(offset)).transpose()?))
    }
}

/// The bytes that an entry adds to the name before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suffix<'a> {
    bytes: &'a [u8],
    pub(super) len: usize,
    packed: bool,
}

impl<'a> Suffix<'a> {
    /// The characters, of which the first `len` count.
    pub(super) fn chars(self) -> impl Iterator<Item = u8> + 'a {
        let (packed, plain) = if self.packed { (self.bytes, &[][..]) } else { (&[][..], self.bytes) };
        unpacked(packed).chain(plain.iter().copied()).take(self.len)
    }

    pub(super) fn is_canonical(self) -> bool {
        if self.packed { is_packed_well_long(self.bytes, self.len) } else { !is_packable(self.bytes) }
    }
}

/// The front of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front<'a> {
    pub(super) op: u8,
    /// Bytes that the name shares with the one before, behind what all of the run share.
    pub(super) shared: usize,
    pub(super) suffix: Suffix<'a>,
}

/// Room for a short suffix: up to fourteen characters.
pub(super) const ROOM: usize = 16;
/// Op, head, room for a short suffix, and an id of either format.
const AHEAD: usize = 2 + ROOM + 32;

/// The head bytes of names that share less than fifteen bytes with the one before and have one to fourteen of their own.
const IS_SHORT: [bool; 256] = {
    let mut table = [false; 256];
    let mut head = 0;
    while head < 256 {
        table[head] = head >> 4 != 15 && head & 15 != 15 && head & 15 != 0;
        head += 1;
    }
    table
};

/// The front of an entry whose name differs in a few bytes from the one before, as most do. Behind it an id is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short<'a> {
    pub(super) op: u8,
    pub(super) shared: usize,
    pub(super) len: usize,
    pub(super) suffix: &'a [u8; ROOM],
    /// Bytes of all of it.
    pub(super) taken: usize,
}

impl Short<'_> {
    pub(super) const fn is_packed(&self) -> bool {
        self.op & PACKED != 0
    }

    pub(super) const fn is_known(&self) -> bool {
        self.op <= MAX_OP
    }

    /// Whether an id follows, and nothing else.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        self.op & !PACKED == PLAIN
    }

    /// The suffix in the order of bytes, with zeros behind it: no name has a zero byte.
    #[inline]
    pub(super) fn key(&self) -> u128 {
        let key = if self.is_packed() {
            let mut chars = [0; ROOM];
            unpack(self.suffix.get(..ROOM / 2).unwrap_or_default(), &mut chars);
            u128::from_be_bytes(chars)
        } else {
            u128::from_be_bytes(*self.suffix)
        };
        key & !(u128::MAX >> (8 * self.len))
    }
}

/// The bytes of a name from `at` on, as [`Short::key`] has those of a suffix.
pub(super) fn key_of(name: &[u8], at: usize) -> u128 {
    let mut key = [0; ROOM];
    for (to, from) in key.iter_mut().zip(name.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    u128::from_be_bytes(key)
}

/// The entries of a run, part by part.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    pub(super) reader: Reader<'a>,
    id_len: usize,
    /// The op byte that all entries have.
    pub(super) uniform: Option<u8>,
}

impl<'a> Parts<'a> {
    /// The prefix of all names, and the reader of the entries behind it.
    pub(super) fn new(mut reader: Reader<'a>, format: ObjectFormat) -> Result<(&'a [u8], Self), DecodeError> {
        let prefix = reader.bytes()?;
        let layout = reader.byte()?;
        if layout != MIXED && layout > MAX_OP {
            return Err(reader.error(Kind::Field));
        }
        Ok((prefix, Self { reader, id_len: format.len(), uniform: (layout != MIXED).then_some(layout) }))
    }

    pub(super) fn front(&mut self) -> Result<Front<'a>, DecodeError> {
        let offset = self.reader.offset();
        let op = if let Some(op) = self.uniform { op } else { self.reader.byte()? };
        if op > MAX_OP {
            return Err(DecodeError::new(offset, Kind::Field));
        }
        let head = self.reader.byte()?;
        let shared = self.part(head >> 4)?;
        let len = self.part(head & 15)?;
        let packed = op & PACKED != 0;
        let bytes = self.reader.take(if packed { packed_len(len) } else { len })?;
        Ok(Front { op, shared, suffix: Suffix { bytes, len, packed } })
    }

    /// The front of the next entry, if it is a short one and bytes enough are left; nothing is read yet.
    #[inline]
    pub(super) fn short(&self) -> Option<Short<'a>> {
        let bytes: &[u8; AHEAD] = self.reader.rest().first_chunk()?;
        let (op, lead, front): (u8, usize, &[u8; 1 + ROOM]) = match self.uniform {
            Some(op) => (op, 1, bytes.first_chunk()?),
            None => (bytes[0], 2, bytes.get(1..)?.first_chunk()?),
        };
        let head = front[0];
        if !IS_SHORT[usize::from(head)] {
            return None;
        }
        let (shared, len) = (usize::from(head >> 4), usize::from(head & 15));
        // Where the next entry stands depends on this one's head: as few steps as can be from the one to the other.
        let packed = op >> 4 & 1;
        let taken = lead + ((len + usize::from(packed)) >> packed);
        Some(Short { op, shared, len, suffix: front.last_chunk()?, taken })
    }

    /// Passes over the front of a short entry.
    #[inline]
    pub(super) fn pass(&mut self, short: &Short<'_>) -> Result<(), DecodeError> {
        self.reader.take(short.taken).map(drop)
    }

    /// Passes over the front of a short entry, and the id behind it, which it hands out.
    #[inline]
    pub(super) fn pass_plain(&mut self, short: &Short<'_>) -> Result<&'a [u8], DecodeError> {
        self.pass(short)?;
        self.id()
    }

    fn part(&mut self, nibble: u8) -> Result<usize, DecodeError> {
        if nibble < 15 {
            return Ok(usize::from(nibble));
        }
        let offset = self.reader.offset();
        let above = self.reader.varint()?;
        usize::try_from(above)
            .ok()
            .filter(|above| *above <= RefName::MAX_LEN)
            .map(|above| above + 15)
            .ok_or(DecodeError::new(offset, Kind::Field))
    }

    #[inline]
    pub(super) fn values(&mut self, op: u8) -> Result<RawEntry<'a>, DecodeError> {
        let old = match op >> 2 & 3 {
            0 => RawOld::Any,
            1 => RawOld::Absent,
            2 => RawOld::Is(RawValue::Direct { id: self.id()?, peeled: None }),
            _ => RawOld::Is(RawValue::Symbolic(self.reader.bytes()?)),
        };
        let new = match op & 3 {
            0 => None,
            1 => Some(RawValue::Direct { id: self.id()?, peeled: None }),
            2 => Some(RawValue::Direct { id: self.id()?, peeled: Some(self.id()?) }),
            _ => Some(RawValue::Symbolic(self.reader.bytes()?)),
        };
        Ok(RawEntry { old, new })
    }

    #[inline]
    fn id(&mut self) -> Result<&'a [u8], DecodeError> {
        self.reader.take(self.id_len)
    }
}
