//! Nodes of the index above the blocks of a table.
//!
//! ```text
//! node    count (4) | length of the common prefix (4) | where the children start (8)
//!         | end of each name's tail (4 each) | end of each child, from where they start (4 each) | prefix | tails
//! ```
//!
//! Everything has a fixed place, so that a look-up is a binary search over the bytes as they are.

use alloc::vec::Vec;

use super::Reader;
use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::run::common_prefix;
use super::table::Span;

const FAN_OUT: usize = 128;

/// A block or node that was written: its first name and its place.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) first: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Appends the checksum of what stands from `start` on.
pub(crate) fn seal(out: &mut Vec<u8>, start: usize) {
    let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Writes the levels above `blocks` behind what is in `out`, which starts at `base` of the file; answers with the root
/// and how many levels there are above the blocks.
pub(crate) fn put_levels(out: &mut Vec<u8>, base: usize, blocks: Vec<Child>) -> (Span, u8) {
    let mut levels = 0_u8;
    let mut nodes = blocks;
    while nodes.len() > 1 {
        nodes = nodes.chunks(FAN_OUT).filter_map(|group| put_node(out, base, group)).collect();
        levels = levels.saturating_add(1);
    }
    (nodes.first().map_or(Span { start: 0, end: 0 }, |root| Span { start: root.start, end: root.end }), levels)
}

fn put_node(out: &mut Vec<u8>, base: usize, group: &[Child]) -> Option<Child> {
    let (first, last) = (group.first()?, group.last()?);
    let start = out.len();
    let common = common_prefix(&first.first, &last.first);
    put_u32(out, group.len());
    put_u32(out, common);
    out.extend_from_slice(&(first.start as u64).to_le_bytes());
    let mut end = 0;
    for child in group {
        end += child.first.len() - common;
        put_u32(out, end);
    }
    for child in group {
        put_u32(out, child.end - first.start);
    }
    out.extend_from_slice(first.first.get(..common)?);
    for child in group {
        out.extend_from_slice(child.first.get(common..)?);
    }
    seal(out, start);
    Some(Child { first: first.first.clone(), start: base + start, end: base + out.len() })
}

/// Names of a node are below 128 × 64 KiB; its children below 128 × 128 × 200 KiB: within four bytes at each level that
/// memory can hold.
fn put_u32(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

/// A node whose checksum was found right.
pub(crate) struct Node<'a> {
    base: usize,
    count: usize,
    children_at: usize,
    name_ends: &'a [u8],
    child_ends: &'a [u8],
    prefix: &'a [u8],
    tails: &'a [u8],
}

impl<'a> Node<'a> {
    pub(crate) fn new(payload: &'a [u8], base: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, base);
        let wrong = || DecodeError::new(base, Kind::Field);
        let small = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| wrong());
        let count = small(reader.array()?)?;
        let common = small(reader.array()?)?;
        let children_at = usize::try_from(u64::from_le_bytes(reader.array()?)).map_err(|_| wrong())?;
        if !(1..=FAN_OUT).contains(&count) {
            return Err(wrong());
        }
        let name_ends = reader.take(4 * count)?;
        let child_ends = reader.take(4 * count)?;
        let prefix = reader.take(common)?;
        let tails = reader.take(reader.left())?;
        Ok(Self { base, count, children_at, name_ends, child_ends, prefix, tails })
    }

    fn number(&self, of: &[u8], at: usize) -> Result<usize, DecodeError> {
        of.get(4 * at..4 * at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .and_then(|bytes| usize::try_from(u32::from_le_bytes(bytes)).ok())
            .ok_or(DecodeError::new(self.base, Kind::Field))
    }

    fn between(&self, of: &[u8], at: usize) -> Result<(usize, usize), DecodeError> {
        let start = match at.checked_sub(1) {
            Some(before) => self.number(of, before)?,
            None => 0,
        };
        Ok((start, self.number(of, at)?))
    }

    fn tail(&self, at: usize) -> Result<&'a [u8], DecodeError> {
        let (start, end) = self.between(self.name_ends, at)?;
        self.tails.get(start..end).ok_or(DecodeError::new(self.base, Kind::Field))
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn child(&self, at: usize) -> Result<Span, DecodeError> {
        let (start, end) = self.between(self.child_ends, at)?;
        let wrong = DecodeError::new(self.base, Kind::Field);
        let place = |offset: usize| self.children_at.checked_add(offset);
        // Children stand before their node, so that no walk goes round in circles.
        match (place(start), place(end)) {
            (Some(start), Some(end)) if start < end && end <= self.base => Ok(Span { start, end }),
            _ => Err(wrong),
        }
    }

    /// The last child whose first name is not after `name`.
    pub(crate) fn child_of(&self, name: &[u8]) -> Result<Option<Span>, DecodeError> {
        self.place_of(name)?.checked_sub(1).map(|at| self.child(at)).transpose()
    }

    /// How many children have a first name that is not after `name`.
    pub(crate) fn place_of(&self, name: &[u8]) -> Result<usize, DecodeError> {
        let head = name.get(..self.prefix.len()).unwrap_or(name);
        let tail = name.get(self.prefix.len()..).unwrap_or_default();
        let mut low = 0;
        let mut high = self.count;
        match head.cmp(self.prefix) {
            core::cmp::Ordering::Less => return Ok(0),
            core::cmp::Ordering::Greater => low = self.count,
            core::cmp::Ordering::Equal => {}
        }
        while low < high {
            let middle = low.midpoint(high);
            if self.tail(middle)? <= tail {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Appends all children in order. Each starts where the one before ends, in this node or in the one before it: so there
    /// are never more of them than the file has room for, whatever its nodes say.
    pub(crate) fn children(&self, to: &mut Vec<Span>) -> Result<(), DecodeError> {
        for at in 0..self.count {
            let child = self.child(at)?;
            if to.last().is_some_and(|before| before.end != child.start) {
                return Err(DecodeError::new(self.base, Kind::NotCanonical));
            }
            to.push(child);
        }
        Ok(())
    }
}
