//! Writes: a grant that carries the fence, votes, one compare-and-set, and one of three outcomes.

use core::fmt;

use crate::fence::StageOrder;
use crate::id::{Digest, Incarnation, NodeId, RepoId, RequestId, Stamp, WriteId};
use crate::reason::Reason;
use crate::row::{Proof, Row};
use crate::waits::WaitsFor;

/// A request to grant a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct WriteRequest {
    /// The repository to write.
    pub repo: RepoId,
    /// The caller's id of the request. The grant and the answer carry it.
    pub request: RequestId,
    /// The node that must be the writer; any node at the newest state if `None`.
    pub writer: Option<NodeId>,
}

impl WriteRequest {
    /// A request for a write through any node that qualifies.
    ///
    /// ```
    /// use tenon_quorum::{NodeId, RepoId, RequestId, WriteRequest};
    ///
    /// let any = WriteRequest::new(RepoId(7), RequestId(1));
    /// assert_eq!((any.writer, any.through(NodeId(2)).writer), (None, Some(NodeId(2))));
    /// ```
    #[must_use]
    pub const fn new(repo: RepoId, request: RequestId) -> Self {
        Self { repo, request, writer: None }
    }

    /// Makes `node` the writer, and no other.
    #[must_use]
    pub const fn through(self, node: NodeId) -> Self {
        Self { writer: Some(node), ..self }
    }
}

/// A grant: the right to write once, given to one node.
///
/// A plain token: the fence protects, not the type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a grant is an order to the writer's node"]
pub struct Grant {
    /// The write that is granted.
    pub write: WriteId,
    /// The caller's id of the request.
    pub request: RequestId,
    /// The node that writes.
    pub writer: NodeId,
    /// The life of that node's disk.
    pub incarnation: Incarnation,
    /// The row that granted the write: its fence, the state that the write builds on, and the members that stage the
    /// write.
    ///
    /// Every member stages it, the writer too. Only voters' votes count.
    pub base: Row,
    /// The length of the lease in ms, from when the grant was *sent*. Votes count until then.
    pub lease_ms: u64,
}

impl Grant {
    /// The order to stage, for every member. The state after the write has this digest.
    #[must_use]
    pub fn stage(&self, digest: Digest) -> StageOrder {
        StageOrder { base: self.base.clone(), digest }
    }
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// Applied: committed, for ever.
    Applied(Stamp),
    /// Not applied: not committed, and no vote for it can be rolled forward.
    NotApplied,
    /// Unknown at the deadline.
    ///
    /// The router goes on; once it knows, it answers this write a second and last time.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied(stamp) => write!(f, "applied as {stamp}"),
            Self::NotApplied => f.write_str("not applied"),
            Self::Unknown => f.write_str("not known yet"),
        }
    }
}

/// The host's claim when it gives a write up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GiveUp {
    /// No order to stage was sent to any node under this grant, and none will be.
    NothingStaged,
    /// Some node may hold a vote.
    PerhapsStaged,
}

/// The phase of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum WritePhase {
    /// The row is being fetched.
    Locating,
    /// The router waits for reports of W voters that can take part.
    Gathering,
    /// The fence is being raised in the row.
    Raising,
    /// The write is granted; votes are coming in.
    Voting,
    /// The commit is under way: the row is being swapped.
    Committing,
    /// The outcome is unclear: the store's answer was lost, or another router changed the row. The row is read again.
    Resolving,
    /// The feed is read, to see which fence committed the version after the base.
    ReadingFeed,
    /// The write fails: the fence is raised in the row, so that it cannot commit.
    Closing,
    /// The write has failed in the row: N − W + 1 gates are raised, so that no vote for it can be rolled forward.
    Fencing,
}

/// The view of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteView {
    /// The repository that is written.
    pub repo: RepoId,
    /// The caller's id of the request.
    pub request: RequestId,
    /// The phase of the write.
    pub phase: WritePhase,
    /// The condition that the write waits for.
    pub waits_for: WaitsFor,
    /// The fence and base of its grant, once there is one.
    pub grant: Option<Proof>,
    /// Whether its first answer was `Unknown`.
    pub answered: bool,
    /// The reason why the write will not commit, if it will not.
    pub failing: Option<Reason>,
}
