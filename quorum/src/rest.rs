//! Repositories at rest: all voters at the newest state, nothing under way. Each takes 42 bytes of one flat table.
//!
//! The table is open addressing with entries *in the order of their hash* (an ordered hash table after Amble and Knuth,
//! "Ordered hash tables", 1974): a search ends at the first larger hash, and a table can be walked in a fixed order.
//! It grows by an eighth, so that at most a fifth of it is empty once it is large.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::id::{Digest, Epoch, Fence, Generation, RepoId, Revision, ShardId, Stamp, Version};
use crate::rng::mix;
use crate::row::{Member, Members, Row, RowState};
use crate::time::Timestamp;

/// What many repositories have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Common {
    /// The family, unless it is the repository's own.
    family: Option<RepoId>,
    shard: ShardId,
    revision: Revision,
    generation: Generation,
    epoch: Epoch,
    born: Version,
    pub(crate) members: Members,
}

/// One repository: `common`, version, fence counter, age, id, digest; little-endian, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Entry {
    repo: [u8; 8],
    digest: [u8; 16],
    version: [u8; 5],
    counter: [u8; 5],
    /// When the row was fetched, in units of 1024 ms, rounded down: never younger than it is.
    told: [u8; 4],
    /// The place of what it has in common with others, plus one; 0 is an empty slot.
    common: [u8; 4],
}

impl Entry {
    const EMPTY: Self =
        Self { repo: [0; 8], digest: [0; 16], version: [0; 5], counter: [0; 5], told: [0; 4], common: [0; 4] };

    fn repo(&self) -> RepoId {
        RepoId(u64::from_le_bytes(self.repo))
    }

    fn is_empty(&self) -> bool {
        self.common == [0; 4]
    }

    fn hash(&self) -> u64 {
        mix(u64::from_le_bytes(self.repo))
    }
}

/// The low five bytes, if the number fits.
fn five(number: u64) -> Option<[u8; 5]> {
    let [low @ .., 0, 0, 0] = number.to_le_bytes() else { return None };
    Some(low)
}

fn from_five(low: [u8; 5]) -> u64 {
    low.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A repository at rest, read out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resting<'a> {
    pub(crate) newest: Stamp,
    pub(crate) fence: Fence,
    pub(crate) revision: Revision,
    pub(crate) told: Timestamp,
    pub(crate) members: &'a [Member],
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Rest {
    slots: Vec<Entry>,
    /// Slots that are a home; the few behind them take what runs over the end.
    homes: usize,
    len: usize,
    /// What repositories have in common, and how many have it.
    commons: Vec<Option<(Common, u32)>>,
    /// The same, to find its place.
    places: BTreeSet<(Common, u32)>,
}

impl Rest {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), homes: 0, len: 0, commons: Vec::new(), places: BTreeSet::new() }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    fn home(&self, hash: u64) -> usize {
        let wide = u128::from(hash) * u128::try_from(self.homes).unwrap_or(0);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// The first slot from the hash's home on that is empty or not before it.
    fn seek(&self, hash: u64) -> usize {
        let mut at = self.home(hash);
        while self.slots.get(at).is_some_and(|slot| !slot.is_empty() && slot.hash() < hash) {
            at += 1;
        }
        at
    }

    fn find(&self, repo: RepoId) -> Option<&Entry> {
        let slot = self.slots.get(self.seek(mix(repo.0)))?;
        (slot.repo() == repo && !slot.is_empty()).then_some(slot)
    }

    fn common(&self, entry: &Entry) -> Option<&Common> {
        let place = usize::try_from(u32::from_le_bytes(entry.common)).ok()?.checked_sub(1)?;
        self.commons.get(place)?.as_ref().map(|(common, _)| common)
    }

    /// A repository at rest.
    pub(crate) fn get(&self, repo: RepoId) -> Option<Resting<'_>> {
        let entry = self.find(repo)?;
        let common = self.common(entry)?;
        let version = Version(from_five(entry.version));
        Some(Resting {
            newest: Stamp { epoch: common.epoch, version, digest: Digest(entry.digest) },
            fence: Fence { generation: common.generation, counter: from_five(entry.counter) },
            revision: common.revision,
            told: Timestamp::from_millis(u64::from(u32::from_le_bytes(entry.told)) << 10),
            members: &common.members,
        })
    }

    /// The whole row of a repository at rest, and when it was fetched.
    pub(crate) fn row(&self, repo: RepoId) -> Option<(Row, Timestamp)> {
        let common = self.common(self.find(repo)?)?;
        let resting = self.get(repo)?;
        let row = Row {
            repo,
            family: common.family.unwrap_or(repo),
            shard: common.shard,
            revision: common.revision,
            members: common.members.clone(),
            newest: resting.newest,
            born: common.born,
            fence: resting.fence,
            state: RowState::Live,
        };
        Some((row, resting.told))
    }

    /// Makes room for so many repositories at once.
    pub(crate) fn reserve(&mut self, repos: usize) {
        let homes = repos.saturating_add(repos / 9).saturating_add(1);
        if homes > self.homes {
            self.rebuild(homes);
        }
    }

    fn rebuild(&mut self, homes: usize) {
        let old = core::mem::take(&mut self.slots);
        self.homes = homes;
        self.slots.reserve_exact(homes.saturating_add(64));
        self.slots.resize(homes, Entry::EMPTY);
        // In the order of hashes, so that each goes behind the last.
        let mut end = 0;
        for entry in old.into_iter().filter(|entry| !entry.is_empty()) {
            let at = self.home(entry.hash()).max(end);
            self.put(at, entry);
            end = at + 1;
        }
    }

    fn put(&mut self, at: usize, entry: Entry) {
        match self.slots.get_mut(at) {
            Some(slot) => *slot = entry,
            None => self.slots.push(entry),
        }
    }

    /// Takes a repository in; `false` if its numbers are too large for the table, or it is there already.
    pub(crate) fn insert(&mut self, row: &Row, told: Timestamp) -> bool {
        let (Some(version), Some(counter)) = (five(row.newest.version.0), five(row.fence.counter)) else {
            return false;
        };
        let Ok(told) = u32::try_from(told.as_millis() >> 10) else { return false };
        if row.state != RowState::Live || self.find(row.repo).is_some() {
            return false;
        }
        let common = Common {
            family: (row.family != row.repo).then_some(row.family),
            shard: row.shard,
            revision: row.revision,
            generation: row.fence.generation,
            epoch: row.newest.epoch,
            born: row.born,
            members: row.members.clone(),
        };
        let Some(common) = self.share(common) else { return false };
        let (repo, digest) = (row.repo.0.to_le_bytes(), row.newest.digest.0);
        let entry = Entry { repo, digest, version, counter, told: told.to_le_bytes(), common };
        if self.len >= self.homes.saturating_mul(9) / 10 {
            self.rebuild(self.homes.saturating_mul(9) / 8 + 16);
        }
        // From its place on, each entry moves up by one, to the next empty slot.
        let mut at = self.seek(entry.hash());
        let mut carried = entry;
        while let Some(slot) = self.slots.get_mut(at).filter(|slot| !slot.is_empty()) {
            core::mem::swap(slot, &mut carried);
            at += 1;
        }
        self.put(at, carried);
        self.len += 1;
        true
    }

    /// The mark of what is held in common, counted once more.
    fn share(&mut self, common: Common) -> Option<[u8; 4]> {
        let known = self.places.range((common.clone(), 0)..).next().filter(|(found, _)| *found == common);
        let place = if let Some((_, place)) = known {
            *place
        } else {
            let free = self.commons.iter().position(Option::is_none);
            let place = u32::try_from(free.unwrap_or(self.commons.len())).ok().filter(|place| *place < u32::MAX)?;
            if free.is_none() {
                self.commons.push(None);
            }
            if let Some(slot) = self.commons.get_mut(usize::try_from(place).ok()?) {
                *slot = Some((common.clone(), 0));
            }
            self.places.insert((common, place));
            place
        };
        if let Some(Some((_, count))) = self.commons.get_mut(usize::try_from(place).ok()?) {
            *count += 1;
        }
        Some((place + 1).to_le_bytes())
    }

    /// Takes a repository out: its row, and when it was fetched.
    pub(crate) fn take(&mut self, repo: RepoId) -> Option<(Row, Timestamp)> {
        let row = self.row(repo)?;
        let mut at = self.seek(mix(repo.0));
        let mark = self.slots.get(at)?.common;
        // Each entry behind that is not at home moves down by one.
        while let Some(&next) = self.slots.get(at + 1) {
            if next.is_empty() || self.home(next.hash()) > at {
                break;
            }
            self.put(at, next);
            at += 1;
        }
        self.put(at, Entry::EMPTY);
        self.len -= 1;
        self.unshare(mark);
        Some(row)
    }

    fn unshare(&mut self, mark: [u8; 4]) {
        let place = u32::from_le_bytes(mark).saturating_sub(1);
        let slot = usize::try_from(place).ok().and_then(|place| self.commons.get_mut(place));
        let Some(held @ Some((_, 1..))) = slot else { return };
        if let Some((common, count)) = held.take() {
            if count > 1 {
                *held = Some((common, count - 1));
            } else {
                self.places.remove(&(common, place));
            }
        }
    }

    /// The repositories whose hash is above `after`, in the order of their hashes.
    pub(crate) fn above(&self, after: Option<u64>) -> impl Iterator<Item = RepoId> {
        let from = after.map_or(0, |hash| self.seek(hash));
        let rest = self.slots.get(from..).unwrap_or(&[]).iter().filter(|slot| !slot.is_empty());
        rest.map(Entry::repo).filter(move |repo| after.is_none_or(|hash| mix(repo.0) > hash))
    }

    /// Whether the table is as it should be: for a snapshot from outside.
    pub(crate) fn is_sound(&self) -> bool {
        let full = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_empty());
        let ordered = full().map(|(_, slot)| slot.hash()).is_sorted_by(|a, b| a < b);
        let placed = full().all(|(at, slot)| self.home(slot.hash()) <= at && self.common(slot).is_some());
        let reached = full().all(|(_, slot)| self.find(slot.repo()).is_some());
        ordered && placed && reached && full().count() == self.len && self.slots.len() >= self.homes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};
    use crate::rng::Rng;

    fn row(repo: u64, version: u64) -> Row {
        let shard = ShardId(u32::try_from(repo % 3).expect("small"));
        Row {
            repo: RepoId(repo),
            family: RepoId(if repo.is_multiple_of(7) { 1 } else { repo }),
            shard,
            revision: Revision(1),
            members: (1..=3).map(|node| Member::voter(NodeId(node + 10 * shard.0), Incarnation(1))).collect(),
            newest: Stamp { epoch: Epoch(1), version: Version(version), digest: Digest([7; 16]) },
            born: Version(0),
            fence: Fence { generation: Generation(1), counter: version + 1 },
            state: RowState::Live,
        }
    }

    #[test]
    fn an_entry_is_42_bytes() {
        assert_eq!(size_of::<Entry>(), 42);
    }

    #[test]
    fn the_table_is_a_map() {
        let (mut rest, mut model, mut rng) = (Rest::new(), alloc::collections::BTreeMap::new(), Rng::new(1));
        for step in 0..20_000 {
            let repo = rng.below(3_000) * 0x9e37_79b9;
            let told = Timestamp::from_millis(step * 1024);
            if rng.below(3) == 0 {
                assert_eq!(rest.take(RepoId(repo)), model.remove(&repo));
            } else {
                let fresh = !model.contains_key(&repo);
                assert_eq!(rest.insert(&row(repo, step), told), fresh);
                model.entry(repo).or_insert((row(repo, step), told));
            }
            if step % 500 == 0 {
                assert!(rest.is_sound());
            }
        }
        assert_eq!(rest.len(), model.len());
        for (repo, held) in &model {
            assert_eq!(rest.row(RepoId(*repo)).as_ref(), Some(held));
        }
        let mut walked: Vec<u64> = rest.above(None).map(|repo| repo.0).collect();
        walked.sort_unstable();
        assert!(walked.iter().eq(model.keys()));
        let all: Vec<RepoId> = rest.above(None).collect();
        assert_eq!(rest.above(all.get(9).map(|repo| mix(repo.0))).next(), all.get(10).copied());
        for repo in model.keys() {
            rest.take(RepoId(*repo));
        }
        assert!(rest.len() == 0 && rest.places.is_empty() && rest.commons.iter().all(Option::is_none));
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let mut rest = Rest::new();
        let mut big = row(5, 1);
        big.newest.version = Version(1 << 40);
        assert!(!rest.insert(&big, Timestamp::ZERO));
        assert!(!rest.insert(&Row { state: RowState::Deleted, ..row(5, 1) }, Timestamp::ZERO));
        assert!(!rest.insert(&row(5, 1), Timestamp::MAX));
        assert_eq!(rest.len(), 0);
    }
}
