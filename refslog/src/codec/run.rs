//! A run of changes in the order of names, each name written as what differs from the one before.
//!
//! ```text
//! run     common prefix of all names | layout | entries
//! layout  0xff: each entry has its own op byte; else the op byte of all
//! op      bits 0-1 new (0 gone, 1 id, 2 id and peeled id, 3 symbolic), bits 2-3 old (0 not kept, 1 absent, 2 id,
//!         3 symbolic), bit 4: the suffix is packed, two characters a byte (see `pack`)
//! entry   [op] | head (shared << 4 | suffix, 15 = a varint of what is above follows) | suffix | old | new
//! ```

use alloc::vec::Vec;

use super::pack::{is_packable, put_packed};
use super::{put_bytes, put_varint};
use crate::change::{Change, Old, Value};

pub(super) const MIXED: u8 = 0xff;
pub(super) const PACKED: u8 = 0x10;
/// The op byte of an id without an old value, as all of a snapshot's branches have.
pub(super) const PLAIN: u8 = 1;
pub(super) const MAX_OP: u8 = 0x1f;
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

    /// The restart after the one at `index`.
    pub(super) const fn after(self, index: usize) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::Every32 => index + RESTART,
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
        put_packed(out, suffix);
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
