//! The row: one compare-and-set register per repository, the only place where a commit happens.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;

use crate::id::{Epoch, Fence, Incarnation, NodeId, RepoId, Revision, RouterId, ShardId, Stamp, Version};
use crate::quorum::Quorum;
use crate::reason::Reason;

/// What a member does for a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Role {
    /// Its vote counts.
    Voter,
    /// It gets every write, but neither counts nor raises what counts.
    Learner,
}

/// One replica: a node in one life of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Member {
    /// The machine.
    pub node: NodeId,
    /// The life of its disk. Under any other, the machine counts in nothing.
    pub incarnation: Incarnation,
    /// What it does here.
    pub role: Role,
    /// The configuration in which it took that role.
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

/// The members of one configuration, in order. Shared by all copies of a row: a clone allocates nothing.
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

/// What may be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RowState {
    /// Reads and writes.
    Live,
    /// Nothing: the row stays as a tombstone, so that no node that comes back can bring the repository back.
    Deleted,
    /// Reads only: its learners on another shard catch up, or, once `shard` is that one, the old members learn where it
    /// went.
    Moving {
        /// Where to.
        to: ShardId,
        /// The configuration in which the root of the family set out. What of the family was marked for an earlier
        /// journey counts for nothing in this one.
        round: Revision,
    },
    /// Nothing yet: the store came back from a backup, and a vote was decided on that may have been committed. No node
    /// applies it before W gates know of the decision: so it holds, should the store be restored once more.
    Decided,
    /// Nothing yet: the store came back from a backup, and what is newest is known. It opens once W voters hold it.
    Recovering,
    /// Reads and writes on one node only: what is committed there cannot be verified elsewhere.
    Pinned {
        /// The node.
        node: NodeId,
    },
}

/// A right to the repository that other routers leave alone for a while. It decides nothing: only the fence protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lease {
    /// The router that has it.
    pub holder: RouterId,
    /// Milliseconds that another router waits, by its own clock, from when it first saw the row's fence; then two polls
    /// more.
    pub ms: u64,
    /// What for.
    pub purpose: Purpose,
}

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Purpose {
    /// A write is granted.
    Write,
    /// No write is granted, so that a member that never catches up does.
    CatchUp {
        /// Copies that were overtaken before.
        rounds: u32,
        /// How many versions the member was behind.
        lag: u64,
    },
}

/// The whole register of one repository, as the host's metadata store holds it.
///
/// It is read and written *whole*: every change is a compare-and-set of the row that it was decided on. A commit
/// keeps the fence and moves `newest`; every other change raises the fence. So (`fence`, `newest.version`) grows with
/// every change of a row and names one state of it: a store may compare those two columns alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Row {
    /// Whose row it is.
    pub repo: RepoId,
    /// The fork family: the id of the repository that all of it was forked from, at any distance; its own id if none.
    pub family: RepoId,
    /// The shard; a family is on one.
    pub shard: ShardId,
    /// The configuration that `members` is.
    pub revision: Revision,
    /// At most N voters, at least W, and any learners. A node is here twice only in two lives of its disk: as it was,
    /// and as a learner that will take its own seat.
    pub members: Members,
    /// The voters of the configuration before this one, until enough of their gates know of this one: then it is
    /// *settled*, and the next grant or change of members clears the list.
    #[cfg_attr(feature = "serde", serde(default))]
    pub previous: Members,
    /// The newest committed state.
    pub newest: Stamp,
    /// The version at which this lineage of the repository began: a node without it starts it empty there.
    pub born: Version,
    /// Who may write. Its generation is the life of the store in which the repository was created or recovered.
    pub fence: Fence,
    /// A right that other routers leave alone for a while; a commit, and whatever ends a grant, clears it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub lease: Option<Lease>,
    /// What may be done.
    pub state: RowState,
}

impl Row {
    /// What this row proves to a node.
    #[must_use]
    pub const fn proof(&self) -> Proof {
        Proof { repo: self.repo, fence: self.fence, revision: self.revision, newest: self.newest }
    }

    /// The place of this state among all states of the row: larger is later.
    #[must_use]
    pub const fn order(&self) -> (Fence, Version) {
        (self.fence, self.newest.version)
    }

    /// The members whose votes count.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role == Role::Voter)
    }

    /// The member that `node` is: a voter if it is one in any life of its disk, else the learner.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.voters().chain(&*self.members).find(|member| member.node == node)
    }

    /// The member that `node` is in that life of its disk.
    #[must_use]
    pub fn member_in(&self, node: NodeId, incarnation: Incarnation) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node && member.incarnation == incarnation)
    }

    /// The voters of the configuration before that are no members of this one: the row is shown to them, too.
    pub fn leavers(&self) -> impl Iterator<Item = &Member> {
        self.previous.iter().filter(|old| !self.members.iter().any(|member| member.is_same(old)))
    }

    /// What the feed says about the newest state.
    pub(crate) const fn feed_entry(&self) -> FeedEntry {
        FeedEntry { stamp: self.newest, fence: self.fence }
    }

    /// The configuration after this one.
    pub(crate) const fn next_revision(&self) -> Revision {
        Revision(self.revision.0.saturating_add(1))
    }

    /// The same row in the next configuration: the members are `members`, and every grant is void. Only of a settled
    /// row: the voters before are kept until enough of them know of it.
    #[must_use]
    pub(crate) fn reconfigured(&self, members: Members) -> Self {
        let (revision, previous) = (self.next_revision(), self.voters().copied().collect());
        Self { revision, members, previous, fence: self.fence.raised(), lease: None, ..self.clone() }
    }

    /// The same row with the fence raised: voids every grant.
    #[must_use]
    pub(crate) fn raised(&self) -> Self {
        Self { fence: self.fence.raised(), lease: None, ..self.clone() }
    }

    /// The same row with the fence raised for a grant: settled, so the voters before are forgotten.
    #[must_use]
    pub(crate) fn leased(&self, lease: Lease) -> Self {
        let previous = if self.previous.is_empty() { self.previous.clone() } else { Members::default() };
        Self { previous, fence: self.fence.raised(), lease: Some(lease), ..self.clone() }
    }

    /// The same row with `stamp` committed.
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

/// What a row, as somebody read it, proves: the fence and revision in force, and what is committed.
///
/// It travels with routed reads, grants, raises and copies. A proof can be old, never wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Proof {
    /// Whose row.
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
