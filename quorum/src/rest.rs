//! Repositories at rest: all voters at the newest state, nothing under way. Each takes 42 bytes of one flat table; what
//! many have in common stands apart, and with it how their voters do: worked out when something changes, not at each read.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::balance::Nodes;
use crate::id::{Digest, Epoch, Fence, Generation, RepoId, Revision, ShardId, Stamp, Version};
use crate::node::{Health, Tally, Verdict};
use crate::row::{Member, Members, Proof, Role, Row, RowState};
use crate::state::Aside;
use crate::table::{Entry, Table};
use crate::time::Timestamp;

/// The part of a row that many repositories have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Common {
    /// The family, unless it is the repository's own id.
    family: Option<RepoId>,
    shard: ShardId,
    revision: Revision,
    generation: Generation,
    epoch: Epoch,
    born: Version,
    pub(crate) members: Members,
}

impl Common {
    #[inline]
    fn proof(&self, repo: RepoId, entry: &Entry) -> Proof {
        let version = Version(from_five(entry.version));
        Proof {
            repo,
            fence: Fence { generation: self.generation, counter: from_five(entry.counter) },
            revision: self.revision,
            newest: Stamp { epoch: self.epoch, version, digest: Digest(entry.digest) },
        }
    }
}

impl Entry {
    #[inline]
    fn told(&self) -> Timestamp {
        Timestamp::from_millis(u64::from(u32::from_le_bytes(self.told)) << 10)
    }
}

/// The low five bytes, if the number fits.
fn five(number: u64) -> Option<[u8; 5]> {
    let [low @ .., 0, 0, 0] = number.to_le_bytes() else { return None };
    Some(low)
}

#[inline]
fn from_five(low: [u8; 5]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..5].copy_from_slice(&low);
    u64::from_le_bytes(bytes)
}

/// How the voters of many repositories do, as last worked out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    /// [`Nodes::news`] as of then.
    news: u64,
    pub(crate) tally: Tally,
    /// The healthy ones.
    pub(crate) usable: Vec<Member>,
}

impl Outlook {
    /// Works it out anew: all voters are at the newest state, if they are in the right life of their disks.
    fn work_out(&mut self, members: &Members, nodes: &Nodes, now: Timestamp) {
        self.news = nodes.news();
        self.tally = Tally::default();
        self.usable.clear();
        for member in members.iter().filter(|member| member.role == Role::Voter) {
            let health = nodes.health(member, now);
            match health {
                Some(health) => self.tally.count(Verdict::Current, health),
                None => self.tally.count(Verdict::Unknown, Health::Down),
            }
            self.usable.extend(health.filter(|health| *health == Health::Up).map(|_| *member));
        }
    }
}

/// The shared parts of rows, with the number of repositories that share each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Held {
    common: Common,
    count: u32,
    #[cfg_attr(feature = "serde", serde(skip))]
    outlook: Aside<Outlook>,
}

/// A repository at rest, read out.
#[derive(Debug)]
pub(crate) struct Resting<'a> {
    pub(crate) proof: Proof,
    pub(crate) told: Timestamp,
    pub(crate) outlook: &'a Outlook,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Rest {
    table: Table,
    commons: Vec<Held>,
    /// The places there that nobody has.
    free: Vec<u32>,
    /// The shared parts in order, to find the place of one.
    places: BTreeSet<(Common, u32)>,
}

impl Rest {
    pub(crate) const fn new() -> Self {
        Self { table: Table::new(), commons: Vec::new(), free: Vec::new(), places: BTreeSet::new() }
    }

    pub(crate) const fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn contains(&self, repo: RepoId) -> bool {
        self.table.find(repo).is_some_and(|entry| self.common(entry).is_some())
    }

    fn common(&self, entry: &Entry) -> Option<&Common> {
        let place = usize::try_from(u32::from_le_bytes(entry.common)).ok()?;
        self.commons.get(place).map(|held| &held.common)
    }

    /// A repository at rest, if how its voters do was worked out for these `news` of the nodes.
    #[inline]
    pub(crate) fn get(&self, repo: RepoId, news: u64) -> Option<Resting<'_>> {
        let entry = self.table.find(repo)?;
        let held = self.commons.get(usize::try_from(u32::from_le_bytes(entry.common)).ok()?)?;
        let outlook = &held.outlook.0;
        let resting = Resting { proof: held.common.proof(repo, entry), told: entry.told(), outlook };
        (outlook.news == news).then_some(resting)
    }

    /// Works out how the voters of a repository at rest do, if that is not known.
    pub(crate) fn look(&mut self, repo: RepoId, nodes: &Nodes, now: Timestamp) {
        let place = self.table.find(repo).and_then(|entry| usize::try_from(u32::from_le_bytes(entry.common)).ok());
        let held = place.and_then(|place| self.commons.get_mut(place));
        if let Some(held) = held.filter(|held| held.outlook.0.news != nodes.news()) {
            held.outlook.0.work_out(&held.common.members, nodes, now);
        }
    }

    /// The whole row of a repository at rest, and when it was fetched.
    pub(crate) fn row(&self, repo: RepoId) -> Option<(Row, Timestamp)> {
        let entry = self.table.find(repo)?;
        let common = self.common(entry)?;
        let Proof { fence, revision, newest, .. } = common.proof(repo, entry);
        let row = Row {
            repo,
            family: common.family.unwrap_or(repo),
            shard: common.shard,
            revision,
            members: common.members.clone(),
            previous: Members::default(),
            newest,
            born: common.born,
            fence,
            lease: None,
            state: RowState::Live,
        };
        Some((row, entry.told()))
    }

    /// Has the row of a repository brought near, without deciding anything.
    #[inline]
    pub(crate) fn touch(&self, repo: RepoId) -> u8 {
        self.table.touch(repo)
    }

    /// Makes room for so many repositories at once.
    pub(crate) fn reserve(&mut self, repos: usize) {
        self.table.reserve(repos);
    }

    /// Takes a repository in; `false` if it is there already, its numbers are too large for the table, or the table has
    /// no room for it.
    pub(crate) fn insert(&mut self, row: &Row, told: Timestamp) -> bool {
        let (Some(version), Some(counter)) = (five(row.newest.version.0), five(row.fence.counter)) else {
            return false;
        };
        let Ok(told) = u32::try_from(told.as_millis() >> 10) else { return false };
        let settled = row.previous.is_empty() && row.lease.is_none();
        if row.state != RowState::Live || !settled || self.table.find(row.repo).is_some() {
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
        let taken = self.table.insert(entry);
        if !taken {
            self.unshare(common);
        }
        taken
    }

    /// The mark of what is held in common, counted once more.
    fn share(&mut self, common: Common) -> Option<[u8; 4]> {
        let known = self.places.range((common.clone(), 0)..).next().filter(|(found, _)| *found == common);
        let place = if let Some((_, place)) = known {
            *place
        } else {
            let held = Held { common: common.clone(), count: 0, outlook: Aside::default() };
            let place = if let Some(place) = self.free.pop() {
                *self.commons.get_mut(usize::try_from(place).ok()?)? = held;
                place
            } else {
                let place = u32::try_from(self.commons.len()).ok().filter(|place| *place < u32::MAX)?;
                self.commons.push(held);
                place
            };
            self.places.insert((common, place));
            place
        };
        self.commons.get_mut(usize::try_from(place).ok()?)?.count += 1;
        Some(place.to_le_bytes())
    }

    /// Takes a repository out: its row, and when it was fetched.
    pub(crate) fn take(&mut self, repo: RepoId) -> Option<(Row, Timestamp)> {
        let row = self.row(repo)?;
        let mark = self.table.find(repo)?.common;
        self.table.remove(repo);
        self.unshare(mark);
        Some(row)
    }

    fn unshare(&mut self, mark: [u8; 4]) {
        let place = u32::from_le_bytes(mark);
        let held = usize::try_from(place).ok().and_then(|place| self.commons.get_mut(place));
        let Some(held) = held.filter(|held| held.count > 0) else { return };
        held.count -= 1;
        if held.count == 0 {
            self.places.remove(&(held.common.clone(), place));
            self.free.push(place);
        }
    }

    /// The repositories whose hash is above `after`, in the order of their hashes.
    pub(crate) fn above(&self, after: Option<u64>) -> impl Iterator<Item = RepoId> {
        self.table.above(after)
    }

    /// Whether everything is as it should be: for a snapshot from outside.
    pub(crate) fn is_sound(&self) -> bool {
        let mut free = self.free.clone();
        free.sort_unstable();
        let unused = (0..).zip(&self.commons).filter(|(_, held)| held.count == 0).map(|(place, _): (u32, _)| place);
        self.table.is_sound()
            && self.table.entries().all(|entry| self.common(entry).is_some())
            && free.into_iter().eq(unused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};
    use crate::rng::{Rng, mix};

    fn row(repo: u64, version: u64) -> Row {
        let shard = ShardId(u32::try_from(repo % 3).expect("small"));
        Row {
            repo: RepoId(repo),
            family: RepoId(if repo.is_multiple_of(7) { 1 } else { repo }),
            shard,
            revision: Revision(1),
            members: (1..=3).map(|node| Member::voter(NodeId(node + 10 * shard.0), Incarnation(1))).collect(),
            previous: Members::default(),
            newest: Stamp { epoch: Epoch(1), version: Version(version), digest: Digest([7; 16]) },
            born: Version(0),
            fence: Fence { generation: Generation(1), counter: version + 1 },
            lease: None,
            state: RowState::Live,
        }
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
        assert!(rest.above(None).is_sorted_by_key(|repo| mix(repo.0)));
        let mut walked: Vec<u64> = rest.above(None).map(|repo| repo.0).collect();
        walked.sort_unstable();
        assert!(walked.iter().eq(model.keys()));
        let all: Vec<RepoId> = rest.above(None).collect();
        assert_eq!(rest.above(all.get(9).map(|repo| mix(repo.0))).next(), all.get(10).copied());
        for repo in model.keys() {
            rest.take(RepoId(*repo));
        }
        assert!(rest.len() == 0 && rest.places.is_empty() && rest.commons.iter().all(|held| held.count == 0));
        assert!(rest.is_sound() && rest.commons.len() <= 6, "places are used again: {}", rest.commons.len());
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let mut rest = Rest::new();
        let mut big = row(5, 1);
        big.newest.version = Version(1 << 40);
        assert!(!rest.insert(&big, Timestamp::ZERO));
        assert!(!rest.insert(&Row { state: RowState::Deleted, ..row(5, 1) }, Timestamp::ZERO));
        assert!(!rest.insert(&row(5, 1), Timestamp::MAX));
        assert!(!rest.insert(&row(u64::MAX, 1), Timestamp::ZERO));
        assert!(!rest.contains(RepoId(u64::MAX)) && rest.take(RepoId(u64::MAX)).is_none());
        assert!(rest.len() == 0 && rest.places.is_empty());
    }
}
