//! Reading a [run](super::run): entry by entry into one name buffer, as hostile.

use alloc::vec::Vec;
use core::mem::take;

use super::Reader;
use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::pack::{first_of, is_packable, is_packed_well, unpack};
use super::parts::{Front, Parts, ROOM, RawEntry, Short, Suffix};
use super::run::{MIXED, RESTART, Restarts};
use crate::change::Change;
use crate::name::RefName;
use crate::oid::ObjectFormat;

/// A name that is written over again and again, with room for short suffixes behind it.
#[derive(Clone, Debug, Default)]
struct NameBuffer {
    bytes: Vec<u8>,
    len: usize,
}

impl NameBuffer {
    fn new(name: &[u8]) -> Self {
        let mut buffer = Self { bytes: Vec::with_capacity(name.len() + 4 * ROOM), len: name.len() };
        buffer.bytes.extend_from_slice(name);
        buffer.make_room();
        buffer
    }

    /// Makes room up to the longest name that is put in place here.
    fn make_room(&mut self) {
        self.bytes.resize((self.len + 4 * ROOM).min(RefName::MAX_LEN).max(self.len), 0);
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Puts a short suffix behind the first `keep` bytes; does nothing where there is no room, where it is not in its one
    /// form, or where the name would not be after the one before. Answers with the name.
    #[inline]
    fn put_short(&mut self, keep: usize, short: &Short<'_>) -> Option<&[u8]> {
        let (suffix, len) = (short.suffix, short.len);
        let (first, canonical) = if short.is_packed() {
            (first_of(suffix[0]), is_packed_well(u64::from_le_bytes(*suffix.first_chunk()?), len))
        } else {
            (suffix[0], !is_packable(suffix.get(..len)?))
        };
        let room: &mut [u8; ROOM] = self.bytes.get_mut(keep..)?.first_chunk_mut()?;
        if !canonical || keep > self.len || (keep < self.len && first <= room[0]) {
            return None;
        }
        if short.is_packed() {
            // Few are longer.
            unpack(suffix.first_chunk::<4>()?, room);
            if len > 8 {
                unpack(suffix.get(4..7)?, room.get_mut(8..)?);
            }
        } else {
            *room = *suffix;
        }
        self.len = keep + len;
        self.bytes.get(..self.len)
    }

    fn replace(&mut self, keep: usize, suffix: Suffix<'_>) {
        self.bytes.truncate(keep);
        self.bytes.extend(suffix.chars());
        self.len = self.bytes.len();
        self.make_room();
    }
}

/// Reads a run entry by entry, into one name buffer.
#[derive(Clone, Debug)]
pub(crate) struct RunReader<'a> {
    parts: Parts<'a>,
    restarts: Restarts,
    common: usize,
    /// All op bytes, and-ed and or-ed: equal if and only if they are.
    ops: (u8, u8),
    /// The byte of the first name behind what all share.
    lead: Option<u8>,
    name: NameBuffer,
    count: usize,
    index: usize,
    /// The index of the next restart, or of the end.
    stop: usize,
}

impl<'a> RunReader<'a> {
    /// Reads a run of `count` entries at the reader's place.
    pub(crate) fn new(
        reader: Reader<'a>,
        format: ObjectFormat,
        count: usize,
        restarts: Restarts,
    ) -> Result<Self, DecodeError> {
        // An entry takes at least its head byte.
        if count > reader.left() {
            return Err(reader.error(Kind::Truncated));
        }
        let (prefix, parts) = Parts::new(reader, format)?;
        let name = NameBuffer::new(prefix);
        Ok(Self { parts, restarts, common: prefix.len(), ops: (MIXED, 0), lead: None, name, count, index: 0, stop: 0 })
    }

    /// The name of the entry read last.
    #[inline]
    pub(crate) fn name(&self) -> &[u8] {
        self.name.as_slice()
    }

    /// The number of the restart that the next entry is, if it is one.
    pub(crate) const fn restart_ahead(&self) -> Option<usize> {
        if self.is_at_stop() && self.index < self.count { Some(self.index / RESTART) } else { None }
    }

    /// Whether the next entry is a restart, or none is left.
    #[inline]
    pub(crate) const fn is_at_stop(&self) -> bool {
        self.index == self.stop
    }

    #[inline]
    pub(crate) const fn offset(&self) -> usize {
        self.parts.reader.offset()
    }

    /// The next entry; `None` after the last.
    pub(crate) fn next_entry(&mut self) -> Result<Option<RawEntry<'a>>, DecodeError> {
        if self.is_at_stop() {
            if self.index == self.count {
                return Ok(None);
            }
            // Here names start anew.
            self.name.len = self.common;
            self.stop = self.restarts.after(self.index).min(self.count);
        }
        let op = match self.parts.short() {
            Some(short) if short.is_known() && self.name.put_short(self.common + short.shared, &short).is_some() => {
                self.ops = (self.ops.0 & short.op, self.ops.1 | short.op);
                self.parts.pass(&short)?;
                short.op
            }
            _ => self.any_name()?,
        };
        if self.index == 0 {
            self.lead = self.name.as_slice().get(self.common).copied();
        }
        let entry = self.parts.values(op)?;
        self.index += 1;
        Ok(Some(entry))
    }

    /// Hands out names, ids and offsets for as long as entries are of the usual kind: no restart, an id and nothing else,
    /// under a name that differs from the one before in a few bytes. Stops ahead of any other, and ahead of one that is
    /// wrong: [`Self::next_entry`] says what it is.
    ///
    /// What the loop writes is its own while it runs, so that it is kept in registers.
    #[inline]
    pub(crate) fn each_plain(
        &mut self,
        mut each: impl FnMut(&[u8], &'a [u8], usize) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let (mut parts, mut name, mut ops) = (self.parts.clone(), take(&mut self.name), self.ops);
        let mut index = self.index;
        while index < self.stop
            && let Some(short) = parts.short().filter(Short::is_plain)
            && let Some(name) = name.put_short(self.common + short.shared, &short)
        {
            ops = (ops.0 & short.op, ops.1 | short.op);
            index += 1;
            let offset = parts.reader.offset();
            each(name, parts.pass_plain(&short)?, offset)?;
        }
        (self.parts, self.name, self.ops, self.index) = (parts, name, ops, index);
        Ok(())
    }

    /// Reads a name over the one before; refuses any other than the shortest form, and names out of order.
    fn any_name(&mut self) -> Result<u8, DecodeError> {
        let offset = self.offset();
        let Front { op, shared, suffix } = self.parts.front()?;
        let keep = self.common + shared;
        let before = self.name.as_slice().get(keep).copied();
        let fits = keep <= self.name.len && keep + suffix.len <= RefName::MAX_LEN;
        if !fits || !suffix.is_canonical() {
            return Err(DecodeError::new(offset, Kind::NotCanonical));
        }
        self.ops = (self.ops.0 & op, self.ops.1 | op);
        self.name.replace(keep, suffix);
        let now = self.name.as_slice().get(keep).copied();
        // Greater than the name before, and sharing no more with it than was said. Only the first of all may be no longer
        // than what all share.
        if now > before || self.index == 0 { Ok(op) } else { Err(DecodeError::new(offset, Kind::NotCanonical)) }
    }

    /// After the last entry: that the common prefix was as long as it can be, and op bytes were left out if they could be.
    /// Answers with the reader behind the run.
    pub(crate) fn finish(self) -> Result<Reader<'a>, DecodeError> {
        let last = self.name.as_slice().get(self.common);
        let canonical_common = self.lead.is_none() || self.lead.as_ref() != last;
        let canonical_ops = self.parts.uniform.is_some() || self.ops.0 != self.ops.1;
        if self.index == self.count && canonical_common && canonical_ops {
            Ok(self.parts.reader)
        } else {
            Err(self.parts.reader.error(Kind::NotCanonical))
        }
    }
}

/// Reads a whole run of changes, as hostile: names and ids are checked, order is strict.
pub(crate) fn read_changes<'a>(
    reader: Reader<'a>,
    format: ObjectFormat,
    count: usize,
    changes: &mut Vec<Change>,
) -> Result<Reader<'a>, DecodeError> {
    let mut run = RunReader::new(reader, format, count, Restarts::None)?;
    loop {
        let offset = run.offset();
        let Some(entry) = run.next_entry()? else {
            return run.finish();
        };
        changes.push(entry.to_change(run.name(), offset)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::put_bytes;
    use crate::codec::run::{PACKED, PLAIN};

    /// A run: the prefix, the layout, and entries as (op where they are mixed, shared, length, suffix), each with an id.
    fn run(prefix: &[u8], layout: u8, entries: &[(u8, u8, u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, prefix);
        out.push(layout);
        for (op, shared, len, suffix) in entries {
            out.extend((layout == MIXED).then_some(*op));
            out.push(shared << 4 | len);
            out.extend_from_slice(suffix);
            out.extend_from_slice(&[7; 20]);
        }
        out
    }

    /// The names of a run with `behind` bytes behind it: with many, even its last entries are read in the short way.
    fn names(bytes: &[u8], count: usize, behind: usize) -> Result<Vec<Vec<u8>>, DecodeError> {
        let bytes = [bytes, &alloc::vec![0; behind]].concat();
        let mut run = RunReader::new(Reader::new(&bytes, 0), ObjectFormat::Sha1, count, Restarts::None)?;
        let mut names = Vec::new();
        while run.next_entry()?.is_some() {
            names.push(run.name().to_vec());
            run.each_plain(|name, _, _| {
                names.push(name.to_vec());
                Ok(())
            })?;
        }
        run.finish().map(|_| names)
    }

    #[test]
    fn a_run_has_one_form() {
        let packed = PLAIN | PACKED;
        let good: [&[u8]; 3] = [
            &run(b"refs/", PLAIN, &[(0, 0, 1, b"a"), (0, 1, 1, b"b"), (0, 0, 2, b"cd")]),
            &run(b"refs/", packed, &[(0, 0, 2, b"\x12"), (0, 0, 3, b"\x34\x5f")]),
            &run(b"", MIXED, &[(packed, 0, 2, b"\x12"), (PLAIN, 0, 2, b"zz")]),
        ];
        let bad: [(&str, &[u8]); 10] = [
            ("what can be packed is", &run(b"", PLAIN, &[(0, 0, 2, b"12"), (0, 0, 2, b"zz")])),
            ("what can be packed is, later on", &run(b"", PLAIN, &[(0, 0, 2, b"+x"), (0, 0, 2, b"12")])),
            ("one character is not packed", &run(b"", packed, &[(0, 0, 1, b"\x1f"), (0, 0, 2, b"\x22")])),
            ("a filler among characters", &run(b"", packed, &[(0, 0, 2, b"\x12"), (0, 0, 3, b"\x2f\x2f")])),
            ("the prefix is as long as it can be", &run(b"refs/", PLAIN, &[(0, 0, 2, b"ab"), (0, 1, 1, b"c")])),
            ("op bytes are left out where they can be", &run(b"", MIXED, &[(1, 0, 1, b"a"), (1, 0, 1, b"b")])),
            ("op bytes are left out, whatever they say", &run(b"", MIXED, &[(5, 0, 1, b"a"), (5, 0, 1, b"b")])),
            ("as much is shared as can be", &run(b"", PLAIN, &[(0, 0, 2, b"ab"), (0, 0, 2, b"ac")])),
            ("no more is shared than there is", &run(b"", PLAIN, &[(0, 0, 1, b"a"), (0, 2, 1, b"b")])),
            ("names are in order", &run(b"", PLAIN, &[(0, 0, 1, b"b"), (0, 0, 1, b"a")])),
        ];
        for behind in [0, 100] {
            for (at, bytes) in good.iter().enumerate() {
                let count = if at == 0 { 3 } else { 2 };
                assert_eq!(names(bytes, count, behind).unwrap().len(), count);
            }
            for (rule, bytes) in bad {
                let error = names(bytes, 2, behind).unwrap_err();
                assert_eq!(error.kind(), &Kind::NotCanonical, "{rule}, with {behind} bytes behind");
            }
        }
    }
    #[test]
    fn a_name_is_never_too_long() {
        for (common, fits) in [(RefName::MAX_LEN - 20, true), (RefName::MAX_LEN - 1, true), (RefName::MAX_LEN, false)] {
            let bytes = run(&alloc::vec![b'r'; common], PLAIN, &[(0, 0, 1, b"a"), (0, 0, 1, b"b"), (0, 0, 1, b"c")]);
            for behind in [0, 100] {
                let read = names(&bytes, 3, behind).map(|names| names.iter().map(Vec::len).max());
                assert_eq!(read.ok(), fits.then_some(Some(common + 1)), "{common} and one, {behind} bytes behind");
            }
        }
    }
}
