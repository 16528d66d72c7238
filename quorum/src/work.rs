//! Work under way, and the repository that each part belongs to.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::commit::Write;
use crate::id::{ChangeId, RepoId, TaskId, Ticket, WriteId};
use crate::row::Row;

/// Who waits for a swap, or owns a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Owner {
    Write(WriteId),
    Change(ChangeId),
    Task(TaskId),
}

/// A swap that is out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Swap {
    pub(crate) owner: Owner,
    pub(crate) next: Row,
}

/// The swaps that are out. Tickets grow, so that a new one goes to the end, and few are out at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Swaps(Vec<(Ticket, Swap)>);

impl Swaps {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn insert(&mut self, ticket: Ticket, swap: Swap) {
        let at = self.0.partition_point(|(other, _)| *other < ticket);
        self.0.insert(at, (ticket, swap));
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "called as a map is")]
    pub(crate) fn remove(&mut self, ticket: &Ticket) -> Option<Swap> {
        let at = self.0.binary_search_by_key(ticket, |(other, _)| *other).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Ticket> {
        self.0.iter().map(|(ticket, _)| ticket)
    }
}

/// Writes under way. One that is being taken a step further is out of its place meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Writes(BTreeMap<WriteId, Option<Box<Write>>>);

impl Writes {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WriteId, Option<&Write>)> {
        self.0.iter().map(|(id, write)| (*id, write.as_deref()))
    }

    pub(crate) fn get(&self, id: WriteId) -> Option<&Write> {
        self.0.get(&id)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: WriteId) -> Option<&mut Write> {
        self.0.get_mut(&id)?.as_deref_mut()
    }

    pub(crate) fn take(&mut self, id: WriteId) -> Option<Box<Write>> {
        self.0.get_mut(&id)?.take()
    }

    pub(crate) fn put(&mut self, id: WriteId, write: Box<Write>) {
        self.0.insert(id, Some(write));
    }

    pub(crate) fn remove(&mut self, id: WriteId) {
        self.0.remove(&id);
    }
}

/// The work under way in one repository: seldom more than one write.
pub(crate) type Owners = SmallVec<[Owner; 2]>;

/// The writes and changes of each repository, in the order they began; at most one write of each is unanswered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Work(BTreeMap<RepoId, Owners>);

impl Work {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn is_any(&self, repo: RepoId) -> bool {
        self.0.contains_key(&repo)
    }

    pub(crate) fn of(&self, repo: RepoId) -> Owners {
        self.0.get(&repo).map(|owners| Owners::from_slice(owners)).unwrap_or_default()
    }

    pub(crate) fn writes(&self, repo: RepoId) -> impl Iterator<Item = WriteId> {
        let all = self.0.get(&repo).into_iter().flatten();
        all.filter_map(|owner| if let Owner::Write(id) = owner { Some(*id) } else { None })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RepoId, Owner)> {
        self.0.iter().flat_map(|(repo, owners)| owners.iter().map(|owner| (*repo, *owner)))
    }

    pub(crate) fn contains(&self, repo: RepoId, owner: Owner) -> bool {
        self.0.get(&repo).is_some_and(|owners| owners.contains(&owner))
    }

    pub(crate) fn begin(&mut self, repo: RepoId, owner: Owner) {
        let owners = self.0.entry(repo).or_default();
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }

    pub(crate) fn end(&mut self, repo: RepoId, owner: Owner) {
        let Some(owners) = self.0.get_mut(&repo) else { return };
        owners.retain(|other| *other != owner);
        if owners.is_empty() {
            self.0.remove(&repo);
        }
    }
}
