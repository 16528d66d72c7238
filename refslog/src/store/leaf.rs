//! A leaf of the store: some sorted names without what all of them share, and what they hold.

use alloc::vec::Vec;

use crate::name::RefName;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An id of which nobody has looked whether it names a tag.
    Id,
    NotATag,
    Peeled,
    Symbolic,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    /// Bytes that all names share; they are those of the leaf's first name.
    pub(super) prefix: usize,
    /// The names without the prefix.
    pub(super) tails: Vec<u8>,
    /// Where each tail ends.
    pub(super) ends: Vec<u32>,
    pub(super) kinds: Vec<Kind>,
    /// An id each; zeros for symbolic refs.
    pub(super) ids: Vec<u8>,
}

impl Leaf {
    pub(super) fn tail(&self, index: usize) -> &[u8] {
        let end = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let start = index.checked_sub(1).map_or(0, end);
        self.tails.get(start..end(index)).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The index of a tail, or where it would stand.
    pub(super) fn search(&self, tail: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.tail(middle).cmp(tail) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Equal => return Ok(middle),
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub(super) fn insert(&mut self, index: usize, tail: &[u8], kind: Kind, id: &[u8]) {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        self.tails.splice(start..start, tail.iter().copied());
        // A leaf holds 128 names of at most 64 KiB: its tails fit four bytes.
        let len = u32::try_from(tail.len()).unwrap_or(u32::MAX);
        self.ends.insert(index, u32::try_from(start).unwrap_or(u32::MAX));
        for end in self.ends.iter_mut().skip(index) {
            *end = end.saturating_add(len);
        }
        self.kinds.insert(index, kind);
        let at = index * id.len();
        self.ids.splice(at..at, id.iter().copied());
    }

    pub(super) fn remove(&mut self, index: usize, id_len: usize) {
        let len = self.tail(index).len();
        let end = self.ends.get(index).map_or(0, |end| *end as usize);
        self.tails.drain(end - len..end);
        self.ends.remove(index);
        for end in self.ends.iter_mut().skip(index) {
            *end -= u32::try_from(len).unwrap_or_default();
        }
        self.kinds.remove(index);
        self.ids.drain(index * id_len..(index + 1) * id_len);
    }

    /// The entries from `from` on, under a prefix of `prefix` bytes of `first`, the leaf's first name before.
    pub(super) fn copy_into(
        &self,
        first: &RefName,
        range: core::ops::Range<usize>,
        into: &mut Self,
        prefix: usize,
        id_len: usize,
    ) {
        let lead = first.as_bytes().get(..self.prefix).unwrap_or_default();
        for index in range {
            let tail = self.tail(index);
            match lead.get(prefix..) {
                Some(more) => {
                    into.tails.extend_from_slice(more);
                    into.tails.extend_from_slice(tail);
                }
                None => into.tails.extend_from_slice(tail.get(prefix - lead.len()..).unwrap_or_default()),
            }
            into.ends.push(u32::try_from(into.tails.len()).unwrap_or(u32::MAX));
            into.kinds.extend(self.kinds.get(index));
            into.ids.extend_from_slice(self.ids.get(index * id_len..(index + 1) * id_len).unwrap_or_default());
        }
        into.prefix = prefix;
    }
}
