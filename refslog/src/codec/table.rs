//! A sorted table of entries in blocks, with an index above them: what segments and snapshots are made of.
//!
//! ```text
//! file    magic | tag | data blocks | index nodes, level by level | footer
//! block   payload | CRC32C of the payload
//! data    count | run (names start anew every 32 entries) | offset in the payload of each restart but the first (2 each)
//! node    see `index`
//! footer  entries (8) | root offset (8) | root length (4) | levels (1) | meta | CRC32C | tag | magic
//! ```
//!
//! A block holds 128 entries, or fewer where their names and values exceed 8 KiB: so the cut is a function of the
//! entries. Opening reads the footer only; a look-up reads one block per level, and checks each.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::block::{DataBlock, block_len};
use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::index::{self, Child};
use super::parts::RawEntry;
use super::run::{Entry, Restarts, put_run};
use super::{Reader, put_len};
use crate::oid::ObjectFormat;

const MAGIC: &[u8; 4] = b"TNRF";
/// Magic and tag.
pub(super) const HEAD: usize = 5;
/// More levels than any table that fits an address space has.
const MAX_LEVELS: u8 = 10;

/// Writes a table entry by entry, a block at a time.
#[derive(Debug)]
pub(crate) struct TableBuilder {
    out: Vec<u8>,
    tag: u8,
    blocks: Vec<Child>,
    count: u64,
}

impl TableBuilder {
    pub(crate) fn new(tag: u8, expected_bytes: usize) -> Self {
        let mut out = Vec::with_capacity(expected_bytes);
        out.extend_from_slice(MAGIC);
        out.push(tag);
        Self { out, tag, blocks: Vec::new(), count: 0 }
    }

    /// Adds entries in the order of names; all of a table's entries in one call, or blocks of [`block_len`] each.
    pub(crate) fn push_all(&mut self, mut entries: &[Entry<'_>]) {
        while !entries.is_empty() {
            let (block, rest) = entries.split_at(block_len(entries));
            self.push_block(block);
            entries = rest;
        }
    }

    pub(crate) fn push_block(&mut self, block: &[Entry<'_>]) {
        let Some(first) = block.first() else { return };
        let start = self.out.len();
        put_len(&mut self.out, block.len());
        let restarts = put_run(&mut self.out, block, Restarts::Every32);
        for restart in restarts.iter().skip(1) {
            // All but the last entry of a block fit 8 KiB and their overhead, so a restart's offset fits two bytes.
            let offset = u16::try_from(restart - start).unwrap_or(u16::MAX);
            self.out.extend_from_slice(&offset.to_le_bytes());
        }
        index::seal(&mut self.out, start);
        self.blocks.push(Child { first: first.name.to_vec(), start, end: self.out.len() });
        self.count += block.len() as u64;
    }

    /// Another tag than the one at the start: for what is known only at the end.
    pub(crate) fn set_tag(&mut self, tag: u8) {
        self.tag = tag;
        if let Some(byte) = self.out.get_mut(MAGIC.len()) {
            *byte = tag;
        }
    }

    /// The table's bytes.
    pub(crate) fn finish(self, meta: &[u8]) -> Bytes {
        self.finish_open(meta).bytes
    }

    /// The table, as opening its bytes would give it.
    pub(crate) fn finish_open(mut self, meta: &[u8]) -> Table {
        let (root, levels) = index::put_levels(&mut self.out, 0, self.blocks);
        let Span { start, end } = root;
        let footer = self.out.len();
        self.out.extend_from_slice(&self.count.to_le_bytes());
        self.out.extend_from_slice(&(start as u64).to_le_bytes());
        // A root is a node of at most 128 names, or a block.
        self.out.extend_from_slice(&u32::try_from(end - start).unwrap_or(u32::MAX).to_le_bytes());
        self.out.push(levels);
        self.out.extend_from_slice(meta);
        let crc = crc32c::crc32c(&[self.tag]);
        let crc = crc32c::crc32c_append(crc, self.out.get(footer..).unwrap_or_default());
        self.out.extend_from_slice(&crc.to_le_bytes());
        self.out.push(self.tag);
        self.out.extend_from_slice(MAGIC);
        Table {
            verified: Verified::new(self.out.len()),
            bytes: self.out.into(),
            tag: self.tag,
            format: super::record::format_from_bit(self.tag),
            count: self.count,
            root,
            levels,
        }
    }
}

/// A table in bytes, opened.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(super) bytes: Bytes,
    pub(crate) format: ObjectFormat,
    pub(crate) tag: u8,
    pub(super) count: u64,
    pub(super) root: Span,
    pub(super) levels: u8,
    verified: Verified,
}

/// Which blocks were found right before: what is in memory is checksummed once, not at each look-up.
///
/// A bit for each KiB in which a block starts; blocks of less than one have none, so that no two share a bit. Setting one
/// twice, from two threads, is harmless, and losing one costs a checksum.
#[derive(Clone, Debug)]
struct Verified(Arc<[AtomicU64]>);

const GRAIN: usize = 1024;

impl Verified {
    fn new(bytes: usize) -> Self {
        Self((0..bytes.div_ceil(GRAIN).div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn slot(&self, span: Span) -> Option<(&AtomicU64, u64)> {
        let bit = span.start / GRAIN;
        let slot = self.0.get(bit / 64).filter(|_| span.end - span.start >= GRAIN)?;
        Some((slot, 1 << (bit % 64)))
    }
}

/// Where a block with its checksum stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// An opened table, and what its footer says besides.
pub(crate) struct Opened<const META: usize> {
    pub(crate) table: Table,
    pub(crate) meta: [u8; META],
}

impl Table {
    /// Reads the footer. `known` says which tags are of this kind; their lowest bit is the object format.
    pub(crate) fn open<const META: usize>(
        bytes: Bytes,
        known: impl Fn(u8) -> bool,
    ) -> Result<Opened<META>, DecodeError> {
        let len = bytes.len();
        let tail = 21 + META + 4 + HEAD;
        let footer = len.checked_sub(tail).filter(|at| *at >= HEAD).ok_or(DecodeError::new(len, Kind::Truncated))?;
        let mut reader = Reader::new(bytes.get(footer..).unwrap_or_default(), footer);
        let count = u64::from_le_bytes(reader.array()?);
        let start = u64::from_le_bytes(reader.array()?);
        let root_len = u32::from_le_bytes(reader.array()?);
        let levels = reader.byte()?;
        let meta = reader.array::<META>()?;
        let crc_at = reader.offset();
        let crc = u32::from_le_bytes(reader.array()?);
        let tag = reader.byte()?;
        let magic: [u8; 4] = reader.array()?;
        if magic != *MAGIC || bytes.get(..4) != Some(MAGIC) {
            return Err(DecodeError::new(len - 4, Kind::Unsupported { tag: magic[0] }));
        }
        if !known(tag) {
            return Err(DecodeError::new(len - HEAD, Kind::Unsupported { tag }));
        }
        let body = bytes.get(footer..crc_at).unwrap_or_default();
        let found = crc32c::crc32c_append(crc32c::crc32c(&[tag]), body);
        if found != crc || bytes.get(4) != Some(&tag) {
            return Err(DecodeError::new(footer, Kind::Corrupt));
        }
        let wrong = DecodeError::new(footer, Kind::Field);
        let start = usize::try_from(start).map_err(|_| wrong.clone())?;
        let end = usize::try_from(root_len).ok().and_then(|len| start.checked_add(len)).ok_or_else(|| wrong.clone())?;
        let fits = if count == 0 { start == 0 && end == 0 && footer == HEAD } else { start >= HEAD && end == footer };
        if !fits || levels > MAX_LEVELS {
            return Err(wrong);
        }
        let format = super::record::format_from_bit(tag);
        let verified = Verified::new(bytes.len());
        let table = Self { bytes, format, tag, count, root: Span { start, end }, levels, verified };
        Ok(Opened { table, meta })
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The payload of a block whose checksum fits.
    pub(super) fn block(&self, span: Span) -> Result<&[u8], DecodeError> {
        let wrong = || DecodeError::new(span.start, Kind::Corrupt);
        let whole = self.bytes.get(span.start..span.end).ok_or_else(wrong)?;
        let (payload, crc) = whole.split_last_chunk::<4>().ok_or_else(wrong)?;
        let slot = self.verified.slot(span);
        if slot.is_some_and(|(slot, bit)| slot.load(Ordering::Relaxed) & bit != 0) {
            return Ok(payload);
        }
        if crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
            return Err(wrong());
        }
        if let Some((slot, bit)) = slot {
            slot.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(payload)
    }

    /// Hands the entries from `from` on to `each`, in the order of names, until it answers with `Break`. Reads the blocks that
    /// it needs, and no others.
    pub(crate) fn each_from(
        &self,
        from: &[u8],
        each: impl FnMut(&[u8], RawEntry<'_>, usize) -> Result<ControlFlow<()>, DecodeError>,
    ) -> Result<(), DecodeError> {
        if self.count > 0 {
            let _ = Walk { table: self, from, last: Vec::new(), each }.down(self.root, self.levels)?;
        }
        Ok(())
    }

    /// How many blocks were found right so far, for those that a bit is kept for.
    #[cfg(test)]
    pub(crate) fn blocks_read(&self) -> u32 {
        self.verified.0.iter().map(|bits| bits.load(Ordering::Relaxed).count_ones()).sum()
    }

    pub(super) fn data(&self, span: Span) -> Result<DataBlock<'_>, DecodeError> {
        DataBlock::new(self.block(span)?, span.start, self.format)
    }

    /// The entry of a name, handed to `read` with the offset at which it stands.
    pub(crate) fn find<T>(
        &self,
        name: &[u8],
        read: impl FnOnce(RawEntry<'_>, usize) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.count == 0 {
            return Ok(None);
        }
        let mut span = self.root;
        for _ in 0..self.levels {
            let node = index::Node::new(self.block(span)?, span.start)?;
            let Some(child) = node.child_of(name)? else { return Ok(None) };
            span = child;
        }
        match self.data(span)?.find(name)? {
            Some((entry, offset)) => read(entry, offset).map(Some),
            None => Ok(None),
        }
    }
}

/// A walk from a name on.
struct Walk<'a, F> {
    table: &'a Table,
    from: &'a [u8],
    /// The name before: names only grow, so that no walk goes over a hostile index for ever.
    last: Vec<u8>,
    each: F,
}

impl<F: FnMut(&[u8], RawEntry<'_>, usize) -> Result<ControlFlow<()>, DecodeError>> Walk<'_, F> {
    fn down(&mut self, span: Span, levels: u8) -> Result<ControlFlow<()>, DecodeError> {
        let Some(below) = levels.checked_sub(1) else { return self.block(span) };
        let table = self.table;
        let node = index::Node::new(table.block(span)?, span.start)?;
        let first = node.place_of(self.from)?.saturating_sub(1);
        for at in first..node.count() {
            if self.down(node.child(at)?, below)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block(&mut self, span: Span) -> Result<ControlFlow<()>, DecodeError> {
        let table = self.table;
        let mut run = table.data(span)?.run()?;
        loop {
            let offset = run.offset();
            let Some(entry) = run.next_entry()? else { return Ok(ControlFlow::Continue(())) };
            if !self.last.is_empty() && self.last.as_slice() >= run.name() {
                return Err(DecodeError::new(offset, Kind::NotCanonical));
            }
            self.last.clear();
            self.last.extend_from_slice(run.name());
            if run.name() >= self.from && (self.each)(run.name(), entry, offset)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}
