//! A run of changes in the order of names, each name written as what differs from the one before.
//!
//! ```text
//! run     common prefix of all names | layout | entries
//! layout  0xff: each entry has its own op byte; else the op byte of all
//! op      bits 0-1 new (0 gone, 1 id, 2 id and peeled id, 3 symbolic), bits 2-3 old (0 not kept, 1 absent, 2 id,
//!         3 symbolic), bit 4: the suffix is packed, two characters a byte
//! entry   [op] | head (shared << 4 | suffix, 15 = a varint of what is above follows) | suffix | old | new
//! ```
//!
//! Names of a platform are mostly numbers (`refs/changes/34/1234/5`, `refs/pull/17/head`), so a suffix of digits and a
//! few other characters is packed into nibbles.

use alloc::vec::Vec;

use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::{Reader, put_bytes, put_varint};
use crate::change::{Change, Old, Target, Value};
use crate::name::RefName;
use crate::oid::{ObjectFormat, ObjectId};

const MIXED: u8 = 0xff;
const PACKED: u8 = 0x10;
const MAX_OP: u8 = 0x1f;
/// Names after which the shared part starts anew, so that a reader can begin there.
pub(crate) const RESTART: usize = 32;

/// An entry to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) old: &'a Old,
    pub(crate) new: Option<&'a Value>,
}

impl<'a> From<&'a Change> for Entry<'a> {
    fn from(change: &'a Change) -> Self {
        Self { name: change.name().as_bytes(), old: change.old(), new: change.new_value() }
    }
}

pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Whether reading may begin inside a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restarts {
    None,
    Every32,
}

impl Restarts {
    const fn at(self, index: usize) -> bool {
        match self {
            Self::None => index == 0,
            Self::Every32 => index.is_multiple_of(RESTART),
        }
    }
}

/// Appends a run; answers with the offset of each restart in `out`.
pub(crate) fn put_run(out: &mut Vec<u8>, entries: &[Entry<'_>], restarts: Restarts) -> Vec<usize> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Vec::new();
    };
    let common = common_prefix(first.name, last.name);
    put_bytes(out, first.name.get(..common).unwrap_or_default());
    let ops: Vec<(u8, usize)> = plan_ops(entries, common, restarts);
    let uniform = ops.first().map(|(op, _)| *op).filter(|first| ops.iter().all(|(op, _)| op == first));
    out.push(uniform.unwrap_or(MIXED));
    let mut starts = Vec::new();
    for (index, (entry, (op, shared))) in entries.iter().zip(&ops).enumerate() {
        if restarts.at(index) {
            starts.push(out.len());
        }
        if uniform.is_none() {
            out.push(*op);
        }
        let suffix = entry.name.get(common + shared..).unwrap_or_default();
        put_name(out, *shared, suffix, op & PACKED != 0);
        if let Some(old) = entry.old.value() {
            put_value(out, old);
        }
        if let Some(new) = entry.new {
            put_value(out, new);
        }
    }
    starts
}

fn plan_ops(entries: &[Entry<'_>], common: usize, restarts: Restarts) -> Vec<(u8, usize)> {
    let mut previous: &[u8] = &[];
    let mut ops = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let tail = entry.name.get(common..).unwrap_or_default();
        let shared = if restarts.at(index) { 0 } else { common_prefix(previous, tail) };
        let packed = is_packable(tail.get(shared..).unwrap_or_default());
        ops.push((op_of(entry, packed), shared));
        previous = tail;
    }
    ops
}

fn op_of(entry: &Entry<'_>, packed: bool) -> u8 {
    let new = match entry.new {
        None => 0,
        Some(Value::Direct(target)) if target.peeled().is_none() => 1,
        Some(Value::Direct(_)) => 2,
        Some(Value::Symbolic(_)) => 3,
    };
    let old = match entry.old {
        Old::Any => 0,
        Old::Absent => 1,
        Old::Is(Value::Direct(_)) => 2,
        Old::Is(Value::Symbolic(_)) => 3,
    };
    new | old << 2 | if packed { PACKED } else { 0 }
}

fn put_name(out: &mut Vec<u8>, shared: usize, suffix: &[u8], packed: bool) {
    let nibble = |len: usize| u8::try_from(len.min(15)).unwrap_or(15);
    out.push(nibble(shared) << 4 | nibble(suffix.len()));
    for len in [shared, suffix.len()] {
        if let Some(above) = len.checked_sub(15) {
            put_varint(out, above as u64);
        }
    }
    if packed {
        for pair in suffix.chunks(2) {
            let code = |at: usize| pair.get(at).and_then(|byte| nibble_of(*byte)).unwrap_or(PAD);
            out.push(code(0) << 4 | code(1));
        }
    } else {
        out.extend_from_slice(suffix);
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Direct(target) => {
            out.extend_from_slice(target.as_id_bytes());
            if let Some(peeled) = target.peeled() {
                out.extend_from_slice(peeled.as_bytes());
            }
        }
        Value::Symbolic(name) => put_bytes(out, name.as_bytes()),
    }
}

const ALPHABET: &[u8; 15] = b"0123456789/-.v_";
const PAD: u8 = 15;
const fn nibbles() -> [u8; 256] {
    let mut table = [PAD; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        table[ALPHABET[at] as usize] = b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"[at];
        at += 1;
    }
    table
}
const NIBBLES: [u8; 256] = nibbles();

/// The two characters of each byte; 0 for a nibble that stands for none.
const fn pairs() -> [[u8; 2]; 256] {
    let mut table = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        let (high, low) = (at >> 4, at & 15);
        if high < ALPHABET.len() {
            table[at][0] = ALPHABET[high];
        }
        if low < ALPHABET.len() {
            table[at][1] = ALPHABET[low];
        }
        at += 1;
    }
    table
}
const PAIRS: [[u8; 2]; 256] = pairs();

fn nibble_of(byte: u8) -> Option<u8> {
    NIBBLES.get(usize::from(byte)).copied().filter(|code| *code != PAD)
}

/// A suffix is packed if and only if that is shorter and possible.
fn is_packable(suffix: &[u8]) -> bool {
    suffix.len() >= 2 && suffix.iter().all(|byte| nibble_of(*byte).is_some())
}

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

/// What an entry says of the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawOld<'a> {
    Any,
    Absent,
    Is(RawValue<'a>),
}

/// An entry that was read; its name is in the reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEntry<'a> {
    pub(crate) old: RawOld<'a>,
    pub(crate) new: Option<RawValue<'a>>,
}

/// Reads a run entry by entry, into one name buffer.
#[derive(Clone, Debug)]
pub(crate) struct RunReader<'a> {
    reader: Reader<'a>,
    format: ObjectFormat,
    restarts: Restarts,
    common: usize,
    uniform: Option<u8>,
    ops_seen: Option<(u8, bool)>,
    name: Vec<u8>,
    count: usize,
    index: usize,
}

impl<'a> RunReader<'a> {
    /// Reads a run of `count` entries at the reader's place.
    pub(crate) fn new(
        mut reader: Reader<'a>,
        format: ObjectFormat,
        count: usize,
        restarts: Restarts,
    ) -> Result<Self, DecodeError> {
        // An entry takes at least its head byte.
        if count > reader.left() {
            return Err(reader.error(Kind::Truncated));
        }
        let name = reader.bytes()?.to_vec();
        let layout = reader.byte()?;
        if layout != MIXED && layout > MAX_OP {
            return Err(reader.error(Kind::Field));
        }
        Ok(Self {
            reader,
            format,
            restarts,
            common: name.len(),
            uniform: (layout != MIXED).then_some(layout),
            ops_seen: None,
            name,
            count,
            index: 0,
        })
    }

    /// The same run, to be read from a restart on: entry `index`, at `at` in the reader's slice.
    pub(crate) fn seek(&mut self, reader: Reader<'a>, index: usize) {
        self.reader = reader;
        self.index = index;
        self.name.truncate(self.common);
    }

    /// The name of the entry read last.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether the entry read last is one that reading may begin at.
    pub(crate) const fn at_restart(&self) -> bool {
        self.index % RESTART == 1
    }

    /// The number of the restart that the next entry is, but for the first.
    pub(crate) const fn restart_ahead(&self) -> Option<usize> {
        let ahead = self.index > 0 && self.index < self.count && self.index.is_multiple_of(RESTART);
        if ahead { Some(self.index / RESTART) } else { None }
    }

    /// Whether the next entry, or the one after the run, is one that reading may begin at.
    pub(crate) const fn before_restart(&self) -> bool {
        self.index.is_multiple_of(RESTART) || self.index == self.count
    }

    /// Entries that are left to read.
    pub(crate) const fn left(&self) -> usize {
        self.count - self.index
    }

    pub(crate) const fn offset(&self) -> usize {
        self.reader.offset()
    }

    /// The next entry; `None` after the last.
    #[inline]
    pub(crate) fn next_entry(&mut self) -> Result<Option<RawEntry<'a>>, DecodeError> {
        if self.index == self.count {
            return Ok(None);
        }
        let op = match self.uniform {
            Some(op) => op,
            None => self.read_op()?,
        };
        self.read_name(op & PACKED != 0)?;
        let old = match op >> 2 & 3 {
            0 => RawOld::Any,
            1 => RawOld::Absent,
            2 => RawOld::Is(self.read_id(1)?),
            _ => RawOld::Is(RawValue::Symbolic(self.reader.bytes()?)),
        };
        let new = match op & 3 {
            0 => None,
            kind @ (1 | 2) => Some(self.read_id(kind)?),
            _ => Some(RawValue::Symbolic(self.reader.bytes()?)),
        };
        self.index += 1;
        Ok(Some(RawEntry { old, new }))
    }

    fn read_op(&mut self) -> Result<u8, DecodeError> {
        let offset = self.reader.offset();
        let op = self.reader.byte()?;
        if op > MAX_OP {
            return Err(DecodeError::new(offset, Kind::Field));
        }
        self.note_op(op);
        Ok(op)
    }

    fn note_op(&mut self, op: u8) {
        self.ops_seen = Some(match self.ops_seen {
            None => (op, true),
            Some((first, same)) => (first, same && first == op),
        });
    }

    #[inline]
    fn read_id(&mut self, kind: u8) -> Result<RawValue<'a>, DecodeError> {
        let len = self.format.len();
        let id = self.reader.take(len)?;
        let peeled = if kind == 2 { Some(self.reader.take(len)?) } else { None };
        Ok(RawValue::Direct { id, peeled })
    }

    /// Reads a name over the one before; refuses any other than the shortest form, and names out of order.
    #[inline]
    fn read_name(&mut self, packed: bool) -> Result<(), DecodeError> {
        let offset = self.reader.offset();
        let head = self.reader.byte()?;
        let shared = self.read_part(head >> 4)?;
        let len = self.read_part(head & 15)?;
        let keep = self.common + shared;
        let restart = self.restarts.at(self.index);
        if keep > self.name.len() || keep + len > RefName::MAX_LEN || (restart && shared != 0) {
            return Err(DecodeError::new(offset, Kind::NotCanonical));
        }
        let before = self.name.get(keep).copied();
        let ended = self.name.len() == keep;
        self.name.truncate(keep);
        if packed {
            self.read_packed(len)?;
        } else {
            let suffix = self.reader.take(len)?;
            if is_packable(suffix) {
                return Err(DecodeError::new(offset, Kind::NotCanonical));
            }
            self.name.extend_from_slice(suffix);
        }
        if restart {
            return Ok(());
        }
        // Greater than the name before, and sharing no more with it than was said.
        match (before, self.name.get(keep)) {
            (Some(before), Some(now)) if *now > before => Ok(()),
            (None, Some(_)) if ended => Ok(()),
            _ => Err(DecodeError::new(offset, Kind::NotCanonical)),
        }
    }

    #[inline]
    fn read_part(&mut self, nibble: u8) -> Result<usize, DecodeError> {
        if nibble < 15 { Ok(usize::from(nibble)) } else { self.read_long_part() }
    }

    fn read_long_part(&mut self) -> Result<usize, DecodeError> {
        let offset = self.reader.offset();
        let above = self.reader.varint()?;
        usize::try_from(above)
            .ok()
            .filter(|above| *above <= RefName::MAX_LEN)
            .map(|above| above + 15)
            .ok_or(DecodeError::new(offset, Kind::Field))
    }

    #[inline]
    fn read_packed(&mut self, len: usize) -> Result<(), DecodeError> {
        let start = self.reader.offset();
        let packed = self.reader.take(len.div_ceil(2))?;
        let mut canonical = len >= 2;
        let keep = self.name.len();
        self.name.resize(keep + len, 0);
        let suffix = self.name.get_mut(keep..).unwrap_or_default();
        let (odd, even) = (len % 2 == 1, len / 2);
        for (pair, byte) in suffix.chunks_exact_mut(2).zip(packed) {
            let [first, second] = PAIRS[usize::from(*byte)];
            canonical &= first != 0 && second != 0;
            pair.copy_from_slice(&[first, second]);
        }
        if let (true, Some(byte), Some(end)) = (odd, packed.get(even), suffix.last_mut()) {
            let [first, second] = PAIRS[usize::from(*byte)];
            canonical &= first != 0 && second == 0 && byte & 15 == PAD;
            *end = first;
        }
        if canonical { Ok(()) } else { Err(DecodeError::new(start, Kind::NotCanonical)) }
    }

    /// After the last entry: that the common prefix was as long as it can be, and op bytes were left out if they could be.
    /// Answers with the reader behind the run.
    pub(crate) fn finish(self, first: &[u8]) -> Result<Reader<'a>, DecodeError> {
        let canonical_common = common_prefix(first, &self.name) == self.common;
        let canonical_ops = self.uniform.is_some() || matches!(self.ops_seen, Some((_, false)));
        if self.index == self.count && canonical_common && canonical_ops {
            Ok(self.reader)
        } else {
            Err(self.reader.error(Kind::NotCanonical))
        }
    }
}

/// Reads a whole run of changes, as hostile: names and ids are checked, order is strict.
///
/// Where reading may begin anew, a name is not compared with the one before; the caller checks the order.
pub(crate) fn read_changes<'a>(
    reader: Reader<'a>,
    format: ObjectFormat,
    count: usize,
    restarts: Restarts,
    changes: &mut Vec<Change>,
) -> Result<Reader<'a>, DecodeError> {
    let mut run = RunReader::new(reader, format, count, restarts)?;
    let mut first: Vec<u8> = Vec::new();
    loop {
        let offset = run.offset();
        let Some(entry) = run.next_entry()? else {
            return run.finish(&first);
        };
        if run.left() + 1 == count {
            first = run.name().to_vec();
        }
        let name = RefName::broken(run.name()).map_err(|error| DecodeError::new(offset, Kind::Name(error)))?;
        let old = match entry.old {
            RawOld::Any => Old::Any,
            RawOld::Absent => Old::Absent,
            RawOld::Is(value) => Old::Is(value.to_value(offset)?),
        };
        let new = entry.new.map(|value| value.to_value(offset)).transpose()?;
        changes.push(Change::new(name, old, new));
    }
}
