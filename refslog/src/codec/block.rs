//! Data blocks of a [table](super::table): how many entries one has, and where in it a name is.

use core::cmp::Ordering;

use super::Reader;
use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::parts::{Front, Parts, RawEntry, RawOld, RawValue, Short, key_of};
use super::read::RunReader;
use super::run::{Entry, RESTART, Restarts};
use crate::change::Value;
use crate::oid::ObjectFormat;

/// The maximum number of entries in a block.
pub(crate) const MOST_ENTRIES: usize = 128;
const FULL_BYTES: usize = 8_192;
/// The weight of an id, of either format.
const ID_WEIGHT: usize = 32;

/// The fill of a block, which decides where it ends: the number of its entries, and the weight of their names and
/// values.
///
/// A block ends as soon as it is full, so the cut is a function of the entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fill {
    entries: usize,
    weight: usize,
    /// The part of `weight` that is the last entry's.
    last: usize,
}

impl Fill {
    fn add(&mut self, weight: usize) {
        self.weight += weight;
        self.last = weight;
        self.entries += 1;
    }

    /// Counts an entry that was read.
    #[inline]
    pub(crate) fn add_read(&mut self, name: &[u8], entry: &RawEntry<'_>) {
        let value = |value: RawValue<'_>| match value {
            RawValue::Direct { .. } => ID_WEIGHT,
            RawValue::Symbolic(name) => name.len(),
        };
        let old = if let RawOld::Is(old) = entry.old { value(old) } else { 0 };
        self.add(name.len() + old + entry.new.map_or(0, value));
    }

    /// Counts some entries that were read, of an id and nothing else each: the bytes of their names, and the last one's name.
    #[inline]
    pub(crate) fn add_plain(&mut self, entries: usize, names: usize, last: &[u8]) {
        if entries > 0 {
            self.entries += entries;
            self.weight += names + entries * ID_WEIGHT;
            self.last = last.len() + ID_WEIGHT;
        }
    }

    fn add_written(&mut self, entry: &Entry<'_>) {
        let value = |value: &Value| match value {
            Value::Direct(_) => ID_WEIGHT,
            Value::Symbolic(name) => name.as_bytes().len(),
        };
        self.add(entry.name.len() + entry.old.value().map_or(0, value) + entry.new.map_or(0, value));
    }

    pub(crate) const fn is_full(self) -> bool {
        self.entries >= MOST_ENTRIES || self.weight >= FULL_BYTES
    }

    /// Whether the last entry still belonged into the block.
    pub(crate) const fn is_overfull(self) -> bool {
        self.entries > MOST_ENTRIES || self.weight - self.last >= FULL_BYTES
    }
}

/// How many of these entries make the next block.
pub(crate) fn block_len(entries: &[Entry<'_>]) -> usize {
    let mut fill = Fill::default();
    let last = entries.iter().position(|entry| {
        fill.add_written(entry);
        fill.is_full()
    });
    last.map_or(entries.len(), |last| last + 1)
}

/// A data block whose checksum was found right.
pub(crate) struct DataBlock<'a> {
    payload: &'a [u8],
    base: usize,
    format: ObjectFormat,
    count: usize,
    run_at: usize,
    /// Offsets of the restarts but the first, two bytes each.
    restarts: &'a [u8],
}

impl<'a> DataBlock<'a> {
    pub(crate) fn new(payload: &'a [u8], base: usize, format: ObjectFormat) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, base);
        let count = reader.len()?;
        let wrong = || DecodeError::new(base, Kind::Field);
        let restarts = 2 * (count.checked_sub(1).ok_or_else(wrong)? / RESTART);
        let run_at = payload.len() - reader.left();
        let at = payload.len().checked_sub(restarts).filter(|at| *at >= run_at).ok_or_else(wrong)?;
        let (run, restarts) = payload.split_at(at);
        Ok(Self { payload: run, base, format, count, run_at, restarts })
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    fn reader_at(&self, at: usize) -> Reader<'a> {
        Reader::new(self.payload.get(at..).unwrap_or_default(), self.base.saturating_add(at))
    }

    pub(crate) fn run(&self) -> Result<RunReader<'a>, DecodeError> {
        RunReader::new(self.reader_at(self.run_at), self.format, self.count, Restarts::Every32)
    }

    /// Offset in the payload of a restart other than the first.
    pub(crate) fn restart(&self, number: usize) -> Option<usize> {
        let at = 2 * number.checked_sub(1)?;
        self.restarts.get(at..at + 2)?.try_into().ok().map(|pair| usize::from(u16::from_le_bytes(pair)))
    }

    /// The entry of a name, with the offset at which it stands.
    ///
    /// No name is put together on the way. Of each entry it is known how much its name shares with the one before, and of
    /// that one how much it shares with what is looked for: where the two differ, the names need not be compared.
    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<(RawEntry<'a>, usize)>, DecodeError> {
        let (prefix, first) = Parts::new(self.reader_at(self.run_at), self.format)?;
        let Some(tail) = name.strip_prefix(prefix) else { return Ok(None) };
        let (number, mut parts) = self.last_restart_not_after(tail, &first)?;
        let (mut matched, mut key) = (0, key_of(tail, 0));
        for _ in 0..RESTART.min(self.count - RESTART * number) {
            let offset = parts.reader.offset();
            if let Some(short) = parts.short().filter(Short::is_plain) {
                let id = parts.pass_plain(&short)?;
                let order = short.shared.cmp(&matched);
                if order.is_gt() {
                    continue;
                }
                let own = short.key();
                if order.is_lt() || own > key {
                    return Ok(None);
                }
                if own == key {
                    return Ok(Some((RawEntry::plain(id), offset)));
                }
                // What they share ends before either does: both are of bytes, sixteen at a time.
                matched += (own ^ key).leading_zeros() as usize / 8;
                key = key_of(tail, matched);
                continue;
            }
            let Front { op, shared, suffix } = parts.front()?;
            match shared.cmp(&matched) {
                // It leaves the name before, where that was still that of the one looked for: it is behind it.
                Ordering::Less => return Ok(None),
                // It leaves the name before, which was before the one looked for, further on: so is it.
                Ordering::Greater => {}
                Ordering::Equal => {
                    let (order, more) = compare(suffix.chars(), tail.get(matched..).unwrap_or_default());
                    match order {
                        Ordering::Less => matched += more,
                        Ordering::Equal => return parts.values(op).map(|entry| Some((entry, offset))),
                        Ordering::Greater => return Ok(None),
                    }
                    key = key_of(tail, matched);
                }
            }
            parts.values(op)?;
        }
        Ok(None)
    }

    /// The last restart whose name is not after `tail`, or the first; and the parts from there on.
    fn last_restart_not_after(&self, tail: &[u8], first: &Parts<'a>) -> Result<(usize, Parts<'a>), DecodeError> {
        let (mut low, mut high) = (0, self.restarts.len() / 2);
        let mut found = first.clone();
        while low < high {
            let middle = (low + high).div_ceil(2);
            let mut parts = first.clone();
            parts.reader = self.reader_at(self.restart(middle).unwrap_or(usize::MAX));
            let here = parts.clone();
            if compare(parts.front()?.suffix.chars(), tail).0.is_gt() {
                high = middle - 1;
            } else {
                low = middle;
                found = here;
            }
        }
        Ok((low, found))
    }
}

/// The order of two names, and how many bytes they share.
fn compare(chars: impl Iterator<Item = u8>, tail: &[u8]) -> (Ordering, usize) {
    let mut shared = 0;
    let mut rest = tail.iter();
    for char in chars {
        match rest.next().map(|byte| char.cmp(byte)) {
            Some(Ordering::Equal) => shared += 1,
            Some(order) => return (order, shared),
            None => return (Ordering::Greater, shared),
        }
    }
    (if rest.as_slice().is_empty() { Ordering::Equal } else { Ordering::Less }, shared)
}
