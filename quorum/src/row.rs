//! The row: one compare-and-set register per repository, and the only place where a commit happens.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;

use crate::id::{Epoch, Fence, Incarnation, NodeId, RepoId, Revision, RouterId, ShardId, Stamp, Version};
use crate::quorum::Quorum;
use crate::reason::Reason;

/// The role of a member in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Role {
    /// A voter: its vote counts.
    Voter,
    /// A learner: it gets every write, but has no vote.
    Learner,
}

/// A member: a node in one life of its disk, with its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The life of the node's disk. In any other life, the node does not count.
    pub incarnation: Incarnation,
    /// The member's role.
    pub role: Role,
    /// The configuration in which the member took that role.
    pub since: Revision,
}

impl Member {
    /// A voter of the first configuration.
    #[must_use]
    pub const fn voter(node: NodeId, incarnation: Incarnation) -> Self {
        Self { node, incarnation, role: Role::Voter, since: Revision(1) }
    }

    /// Whether `other` is the same node in the same life of its disk.
    #[must_use]
    pub const fn is_same(&self, other: &Self) -> bool {
        self.node.0 == other.node.0 && self.incarnation.0 == other.incarnation.0
    }

    pub(crate) const fn taking(self, role: Role, since: Revision) -> Self {
        Self { role, since, ..self }
    }
}

/// The members of one configuration, in order.
///
/// Shared by all copies of a row: a clone allocates nothing.
#[derive(Clone, Debug, Default, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "Vec<Member>", into = "Vec<Member>"))]
pub struct Members(Arc<[Member]>);

/// Copies of one row share their members, so that most comparisons end at once.
impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl core::hash::Hash for Members {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Deref for Members {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        &self.0
    }
}

impl From<Vec<Member>> for Members {
    fn from(members: Vec<Member>) -> Self {
        Self(members.into())
    }
}

impl From<Members> for Vec<Member> {
    fn from(members: Members) -> Self {
        members.to_vec()
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<T: IntoIterator<Item = Member>>(members: T) -> Self {
        Self(members.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Member;
    type IntoIter = core::slice::Iter<'a, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The operations that a repository allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RowState {
    /// Live: reads and writes.
    Live,
    /// Deleted: no operation.
    ///
    /// The row stays as a tombstone, so that a node that comes back cannot bring the repository back.
    Deleted,
    /// Moving: reads only.
    ///
    /// Its learners on another shard catch up, or, once `shard` is that one, the old members learn where it went.
    Moving {
        /// The shard to move to.
        to: ShardId,
        /// The configuration in which the root of the family began to move.
        ///
        /// Marks of an earlier migration do not count in this one.
        round: Revision,
    },
    /// Decided: no operation yet. The store came back from a backup, and a vote was decided on that may have been
    /// committed.
    ///
    /// No node applies it before W gates know of the decision: so it holds, should the store be restored once more.
    Decided,
    /// Recovering: no operation yet. The store came back from a backup, and the newest state is known.
    ///
    /// The repository opens once W voters hold that state.
    Recovering,
    /// Pinned: reads and writes on one node only.
    ///
    /// The state committed there cannot be verified elsewhere.
    Pinned {
        /// The node that holds the newest state.
        node: NodeId,
    },
}

/// A lease: other routers leave the repository alone for a while.
///
/// It decides nothing: only the fence protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lease {
    /// The router that holds the lease.
    pub holder: RouterId,
    /// The length of the lease in ms.
    ///
    /// Another router waits as long, by its own clock, from when it first saw the row's fence; then two polls more.
    pub ms: u64,
    /// The purpose of the lease.
    pub purpose: Purpose,
}

/// The purpose of a [`Lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Purpose {
    /// A write is granted.
    Write,
    /// Grants are held so that a lagging member catches up.
    CatchUp {
        /// The number of copies that writes overtook.
        rounds: u32,
        /// The number of versions that the member lagged.
        lag: u64,
    },
}

/// A row: the whole register of one repository, as the host's metadata store holds it.
///
/// It is read and written *whole*: every change is a compare-and-set of the row that it was decided on. A commit
/// keeps the fence and moves `newest`; every other change raises the fence. So (`fence`, `newest.version`) grows with
/// every change of a row and names one state of it: a store may compare those two columns alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Row {
    /// The repository that the row describes.
    pub repo: RepoId,
    /// The id of the fork family: the repository that all of the family was forked from, or its own id if none.
    pub family: RepoId,
    /// The shard that holds the repository. A family is on one shard.
    pub shard: ShardId,
    /// The number of the configuration that `members` is.
    pub revision: Revision,
    /// The members: W to N voters, and any learners.
    ///
    /// A node is here twice only in two lives of its disk: as it was, and as a learner that will take its own seat.
    pub members: Members,
    /// The voters of the previous configuration, until enough of their gates know of this one.
    ///
    /// Then this configuration is *settled*, and the next grant or change of members clears the list.
    #[cfg_attr(feature = "serde", serde(default))]
    pub previous: Members,
    /// The newest committed state.
    pub newest: Stamp,
    /// The version at which this lineage of the repository began. A node without the lineage starts it empty there.
    pub born: Version,
    /// The fence in force, which says who may write. Its generation is the life of the store in which the repository
    /// was created or recovered.
    pub fence: Fence,
    /// The lease that other routers respect, if any. A commit clears it, and so does anything else that ends a grant.
    #[cfg_attr(feature = "serde", serde(default))]
    pub lease: Option<Lease>,
    /// The operations that the repository allows.
    pub state: RowState,
}

impl Row {
    /// The proof that this row gives to a node.
    #[must_use]
    pub const fn proof(&self) -> Proof {
        Proof { repo: self.repo, fence: self.fence, revision: self.revision, newest: self.newest }
    }

    /// The position of this state among all states of the row: larger is later.
    #[must_use]
    pub const fn order(&self) -> (Fence, Version) {
        (self.fence, self.newest.version)
    }

    /// The members whose votes count.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role == Role::Voter)
    }

    /// The member on `node`: a voter if it is one in any life of its disk, else the learner.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.voters().chain(&*self.members).find(|member| member.node == node)
    }

    /// The member on `node` in that life of its disk.
    #[must_use]
    pub fn member_in(&self, node: NodeId, incarnation: Incarnation) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node && member.incarnation == incarnation)
    }

    /// The leaving voters: voters of the previous configuration that are not members of this one. The row is shown to
    /// them, too.
    pub fn leavers(&self) -> impl Iterator<Item = &Member> {
        self.previous.iter().filter(|old| !self.members.iter().any(|member| member.is_same(old)))
    }

    /// The feed entry of the newest state.
    pub(crate) const fn feed_entry(&self) -> FeedEntry {
        FeedEntry { stamp: self.newest, fence: self.fence }
    }

    /// The configuration after this one.
    pub(crate) const fn next_revision(&self) -> Revision {
        Revision(self.revision.0.saturating_add(1))
    }

    /// The row in the next configuration: the members are `members`, and every grant is void.
    ///
    /// Only of a settled row: the previous voters are kept until enough of them know of it.
    #[must_use]
    pub(crate) fn reconfigured(&self, members: Members) -> Self {
        let (revision, previous) = (self.next_revision(), self.voters().copied().collect());
        Self { revision, members, previous, fence: self.fence.raised(), lease: None, ..self.clone() }
    }

    /// The row with the fence raised, which voids every grant.
    #[must_use]
    pub(crate) fn raised(&self) -> Self {
        Self { fence: self.fence.raised(), lease: None, ..self.clone() }
    }

    /// The row with the fence raised for a grant: settled, so the previous voters are forgotten.
    #[must_use]
    pub(crate) fn leased(&self, lease: Lease) -> Self {
        let previous = if self.previous.is_empty() { self.previous.clone() } else { Members::default() };
        Self { previous, fence: self.fence.raised(), lease: Some(lease), ..self.clone() }
    }

    /// The row with `stamp` committed.
    #[must_use]
    pub(crate) fn committed(&self, stamp: Stamp) -> Self {
        Self { newest: stamp, lease: None, ..self.clone() }
    }

    /// Refuses what no router can have written.
    pub(crate) fn check(&self, quorum: Quorum, most_members: usize) -> Result<(), Reason> {
        let bad = Err(Reason::BadRow { repo: self.repo });
        if self.members.len() > most_members || self.newest.epoch == Epoch(0) || self.born > self.newest.version {
            return bad;
        }
        let voters = u32::try_from(self.voters().count()).unwrap_or(u32::MAX);
        if voters > quorum.voters() || voters < quorum.write() || self.previous.len() > quorum.voters() as usize {
            return bad;
        }
        // Two lives of one node cannot both vote.
        let clash = |a: &Member, b: &Member| a.node == b.node && (a.incarnation == b.incarnation || a.role == b.role);
        let twice = |list: &Members| list.iter().enumerate().any(|(i, a)| list.iter().skip(i + 1).any(|b| clash(a, b)));
        if twice(&self.members) || twice(&self.previous) { bad } else { Ok(()) }
    }
}

/// A proof, read from a row: the fence and revision in force, and the newest committed state.
///
/// It travels with routed reads, grants, raises and copies. A proof can be old, never wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Proof {
    /// The repository of the row.
    pub repo: RepoId,
    /// The fence in force.
    pub fence: Fence,
    /// The configuration in force.
    pub revision: Revision,
    /// The newest committed state.
    pub newest: Stamp,
}

/// One committed change, written to the host's change feed in the same transaction as the row that commits it.
///
/// Other systems follow it; the router reads it to learn which fence committed which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FeedEntry {
    /// The state that was committed; its version is the entry's key within the repository.
    pub stamp: Stamp,
    /// The fence that committed it.
    pub fence: Fence,
}

impl FeedEntry {
    /// The version that was committed.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.stamp.version
    }
}
