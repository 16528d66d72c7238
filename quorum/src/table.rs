//! A flat table of rows at rest: a search waits for memory once, and searches that follow each other wait together.
//!
//! Each entry is in one of two buckets that its hash names (cuckoo hashing, Pagh and Rodler, 2001; buckets of several:
//! Dietzfelbinger and Weidling, "Balanced allocation and dictionaries with tightly packed constant size bins", 2007). A
//! search looks at both, whatever it finds in the first, and decides nothing on the way: a processor can go on with
//! the next search while this one's memory is still on its way. So nine slots of ten can be in use, which no table that
//! is searched slot by slot could bear.
//!
//! The first bucket follows the order of the hashes, and the second is not far behind it: so the table can be walked in
//! that order.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hint::select_unpredictable;

use smallvec::SmallVec;

use crate::id::RepoId;
use crate::rng::mix;

/// One repository: little-endian, no padding. In this order no id of three entries in a row lies across two cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) repo: [u8; 8],
    pub(crate) digest: [u8; 16],
    pub(crate) version: [u8; 5],
    pub(crate) counter: [u8; 5],
    /// When the row was fetched, in units of 1024 ms, rounded down: never younger than it is.
    pub(crate) told: [u8; 4],
    /// The place of what it has in common with others.
    pub(crate) common: [u8; 4],
}

impl Entry {
    /// An empty slot. So no entry is for the repository of this number, and no place has that one.
    const EMPTY: Self =
        Self { repo: [0xff; 8], digest: [0; 16], version: [0; 5], counter: [0; 5], told: [0; 4], common: [0xff; 4] };

    #[inline]
    pub(crate) fn repo(&self) -> RepoId {
        RepoId(u64::from_le_bytes(self.repo))
    }

    fn is_empty(&self) -> bool {
        self.repo == Self::EMPTY.repo
    }

    fn hash(&self) -> u64 {
        mix(self.repo().0)
    }
}

/// Three entries fill two cache lines but for two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[repr(align(128))]
struct Bucket([Entry; 3]);

impl Bucket {
    const EMPTY: Self = Self([Entry::EMPTY; 3]);

    fn free(&self) -> Option<usize> {
        self.0.iter().position(Entry::is_empty)
    }
}

/// A step on the search for a free slot: a bucket, and for which slot of which earlier step's: its entry may move here.
#[derive(Clone, Copy)]
struct Step {
    bucket: usize,
    from: Option<(usize, usize)>,
}

/// A number below `bound`, in proportion to `share`, and what is left over: a share again.
#[inline]
fn scaled(share: u64, bound: usize) -> (usize, u64) {
    let wide = u128::from(share) * u128::try_from(bound).unwrap_or(0);
    let rest = u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0);
    (usize::try_from(wide >> 64).unwrap_or(0), rest)
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Table {
    buckets: Vec<Bucket>,
    /// Buckets that are somebody's first.
    firsts: usize,
    /// How far behind the first bucket the second is at most; so many buckets follow the firsts.
    reach: usize,
    len: usize,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self { buckets: Vec::new(), firsts: 0, reach: 0, len: 0 }
    }

    /// An empty table of `firsts` buckets, and those behind them.
    fn sized(firsts: usize) -> Self {
        // Within some 200 buckets chance evens out what is crowded: nearer, a tenth of free slots would not do.
        const FAR: usize = 256;
        let reach = firsts.min(FAR);
        let mut buckets = Vec::new();
        buckets.reserve_exact(firsts.saturating_add(reach));
        buckets.resize(firsts.saturating_add(reach), Bucket::EMPTY);
        Self { buckets, firsts, reach, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    fn slots(&self) -> usize {
        self.buckets.len().saturating_mul(3)
    }

    fn first(&self, hash: u64) -> usize {
        scaled(hash, self.firsts).0
    }

    /// The two buckets of a hash: what is left over where it picks the first picks the second.
    #[inline]
    fn places(&self, hash: u64) -> (usize, usize) {
        let (first, rest) = scaled(hash, self.firsts);
        (first, first + 1 + scaled(rest, self.reach).0)
    }

    /// The entry of a repository. Nothing but the last line branches on what is in the table.
    #[inline]
    pub(crate) fn find(&self, repo: RepoId) -> Option<&Entry> {
        let (first, second) = self.places(mix(repo.0));
        let (first, second) = (self.buckets.get(first)?, self.buckets.get(second)?);
        let [mut found, ..] = first.0.each_ref();
        for bucket in [first, second] {
            for entry in &bucket.0 {
                found = select_unpredictable(entry.repo() == repo, entry, found);
            }
        }
        (found.repo() == repo).then_some(found)
    }

    /// Reads a byte of each cache line that [`Self::find`] would look at, so that they are on their way here.
    #[inline]
    pub(crate) fn touch(&self, repo: RepoId) -> u8 {
        let (first, second) = self.places(mix(repo.0));
        let ends = |bucket: &Bucket| bucket.0[0].repo[0] ^ bucket.0[2].repo[7];
        self.buckets.get(first).map_or(0, ends) ^ self.buckets.get(second).map_or(0, ends)
    }

    /// Makes room for so many entries at once.
    pub(crate) fn reserve(&mut self, entries: usize) {
        let buckets = entries.saturating_add(entries / 9) / 3;
        if buckets >= self.firsts {
            self.grow(buckets + 1);
        }
    }

    /// Moves everything to a table of `firsts` buckets; `false`, with nothing moved, if something would not find room.
    fn grow(&mut self, firsts: usize) -> bool {
        let mut new = Self::sized(firsts);
        let moved = self.entries().all(|entry| new.put(*entry));
        if moved {
            *self = new;
        }
        moved
    }

    /// Takes in an entry that is not there; `false` if there is no room and growing would not make it: the table is
    /// half empty, and yet crowded just there.
    pub(crate) fn insert(&mut self, entry: Entry) -> bool {
        if entry.is_empty() {
            return false;
        }
        if self.len >= self.slots() / 10 * 9 {
            self.grow(self.roomier());
        }
        self.put(entry) || (self.len >= self.slots() / 2 && self.grow(self.roomier()) && self.put(entry))
    }

    /// An eighth more, so that a large table is never more than a fifth empty.
    const fn roomier(&self) -> usize {
        self.firsts.saturating_add(self.firsts / 8).saturating_add(4)
    }

    /// Puts an entry into one of its buckets; `false`, with nothing changed, if there is no room. Others may have to
    /// move to their other bucket for it, along the shortest way to a free slot.
    fn put(&mut self, entry: Entry) -> bool {
        const MOST: usize = 4096;
        let (first, second) = self.places(entry.hash());
        let root = |bucket| Step { bucket, from: None };
        let mut steps: SmallVec<[Step; 32]> = [first, second].into_iter().map(root).collect();
        let mut next = 0;
        while let Some(&Step { bucket, .. }) = steps.get(next) {
            let Some(found) = self.buckets.get(bucket) else { return false };
            if let Some(free) = found.free() {
                self.shift(&steps, next, free, entry);
                self.len += 1;
                return true;
            }
            let all = if steps.len() < MOST { &found.0[..] } else { &[] };
            steps.extend(all.iter().enumerate().map(|(slot, other)| {
                let (first, second) = self.places(other.hash());
                Step { bucket: if first == bucket { second } else { first }, from: Some((next, slot)) }
            }));
            next += 1;
        }
        false
    }

    /// Moves what is on the way from one of the first two steps to `last`, each into the slot that the next one frees.
    fn shift(&mut self, steps: &[Step], last: usize, free: usize, entry: Entry) {
        let (mut at, mut hole) = (last, free);
        while let Some(&Step { bucket, from }) = steps.get(at) {
            let origin = from.and_then(|(from, slot)| Some((steps.get(from)?.bucket, slot)));
            let moved = origin.and_then(|(bucket, slot)| self.buckets.get(bucket)?.0.get(slot).copied());
            if let Some(slot) = self.buckets.get_mut(bucket).and_then(|bucket| bucket.0.get_mut(hole)) {
                *slot = moved.unwrap_or(entry);
            }
            let Some((from, slot)) = from else { return };
            (at, hole) = (from, slot);
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, repo: RepoId) {
        let (first, second) = self.places(mix(repo.0));
        for bucket in [first, second] {
            let slots = self.buckets.get_mut(bucket).into_iter().flat_map(|bucket| &mut bucket.0);
            for slot in slots.filter(|slot| slot.repo() == repo && !slot.is_empty()) {
                *slot = Entry::EMPTY;
                self.len -= 1;
            }
        }
    }

    /// The repositories whose hash is above `after`, in the order of their hashes.
    pub(crate) fn above(&self, after: Option<u64>) -> impl Iterator<Item = RepoId> {
        let mut next = after.map_or(0, |hash| self.first(hash));
        let mut seen = BTreeMap::new();
        core::iter::from_fn(move || {
            loop {
                // All of a first bucket are seen once the last bucket that can be their second was looked at.
                let complete = |hash: u64| next >= self.buckets.len() || self.first(hash) + self.reach < next;
                if seen.first_key_value().is_some_and(|(hash, _)| complete(*hash)) {
                    return seen.pop_first().map(|(_, repo)| repo);
                }
                let entries = self.buckets.get(next)?.0.iter().filter(|entry| !entry.is_empty());
                let above = entries.filter(|entry| after.is_none_or(|hash| entry.hash() > hash));
                seen.extend(above.map(|entry| (entry.hash(), entry.repo())));
                next += 1;
            }
        })
    }

    /// Every entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.0).filter(|entry| !entry.is_empty())
    }

    /// Whether the table is as it should be, each entry there once: for a snapshot from outside.
    pub(crate) fn is_sound(&self) -> bool {
        let sized = self.firsts.checked_add(self.reach) == Some(self.buckets.len()) && self.reach <= self.firsts;
        let is_found = |entry: &Entry| self.find(entry.repo()).is_some_and(|found| core::ptr::eq(found, entry));
        sized && self.entries().all(is_found) && self.entries().count() == self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(repo: u64) -> Entry {
        Entry { repo: repo.to_le_bytes(), ..Entry::EMPTY }
    }

    #[test]
    fn three_entries_fill_two_cache_lines() {
        assert_eq!((size_of::<Entry>(), size_of::<Bucket>(), align_of::<Bucket>()), (42, 128, 128));
    }

    /// Those of one stripe of `Shared` have some bits of their hashes in common: still nine slots of ten take one.
    #[test]
    fn a_table_fills_whatever_picked_its_repositories() {
        let of_a_stripe = (0..).filter(|repo| ((mix(*repo) & u64::from(u32::MAX)) * 16) >> 32 == 15);
        let picks: [&mut dyn Iterator<Item = u64>; 3] =
            [&mut (0..), &mut of_a_stripe.into_iter(), &mut (0..).step_by(4096)];
        for repos in picks {
            let mut table = Table::new();
            table.reserve(10_000);
            let buckets = table.buckets.len();
            for repo in repos.take(10_000) {
                assert!(table.insert(entry(repo)));
            }
            assert!(table.is_sound() && table.len() == 10_000);
            assert_eq!(table.buckets.len(), buckets, "what was reserved is enough");
        }
    }

    #[test]
    fn a_crowd_is_not_taken_in_and_costs_no_memory() {
        // Numbers whose hashes begin alike: all of them belong to a few buckets of any table.
        let mut table = Table::new();
        let crowd = (0..).filter(|repo| mix(*repo) >> 56 == 0);
        let taken = crowd.take(2_000).filter(|repo| table.insert(entry(*repo))).count();
        assert!(table.is_sound() && table.len() == taken);
        assert!(taken < 2_000 && table.slots() < 2_000 * 3, "{taken} in {}", table.slots());
    }
}
