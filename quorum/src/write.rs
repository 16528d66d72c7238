//! Writes: a grant that carries the fence, votes, one compare-and-set, one of three outcomes.

use core::fmt;

use crate::fence::StageOrder;
use crate::id::{Digest, Incarnation, NodeId, RepoId, RequestId, Stamp, WriteId};
use crate::reason::Reason;
use crate::row::{Proof, Row};
use crate::waits::WaitsFor;

/// A write to be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct WriteRequest {
    /// To which repository.
    pub repo: RepoId,
    /// The caller's name for it; the grant and the answer carry it.
    pub request: RequestId,
    /// The node that must be the writer; any node at the newest state if `None`.
    pub writer: Option<NodeId>,
}

impl WriteRequest {
    /// A write through whichever node is best.
    #[must_use]
    pub const fn new(repo: RepoId, request: RequestId) -> Self {
        Self { repo, request, writer: None }
    }

    /// The same write through `node` and no other.
    #[must_use]
    pub const fn through(self, node: NodeId) -> Self {
        Self { writer: Some(node), ..self }
    }
}

/// The right to write once, given to one node. A plain token: the fence protects, not the type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a grant is an order to the writer's node"]
pub struct Grant {
    /// Of which write.
    pub write: WriteId,
    /// The caller's name for it.
    pub request: RequestId,
    /// Who writes.
    pub writer: NodeId,
    /// In which life of its disk.
    pub incarnation: Incarnation,
    /// The row: the fence of this grant, the state that the write goes on from, and who is to stage the write: every
    /// member, the writer too. Only voters' votes count.
    pub base: Row,
    /// Milliseconds from when the grant was *sent* in which votes count.
    pub lease_ms: u64,
}

impl Grant {
    /// The order to stage, for every member: the state after the write hashes to `digest`.
    #[must_use]
    pub fn stage(&self, digest: Digest) -> StageOrder {
        StageOrder { base: self.base.clone(), digest }
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// Committed, for ever.
    Applied(Stamp),
    /// Not committed, and no vote for it can be rolled forward.
    NotApplied,
    /// Not known by the deadline. The router goes on; once it knows, it answers this write a second and last time.
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

/// What the host claims when it gives a write up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GiveUp {
    /// No order to stage was sent to any node under this grant, and none will be.
    NothingStaged,
    /// Some node may hold a vote.
    PerhapsStaged,
}

/// Where a write stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum WritePhase {
    /// The row is being fetched.
    Locating,
    /// Waiting to hear from W voters that can take part.
    Gathering,
    /// The fence is being raised in the row.
    Raising,
    /// Granted; votes are coming in.
    Voting,
    /// The row is being moved.
    Committing,
    /// The store's answer was lost, or another router moved the row: the row is read again.
    Resolving,
    /// The feed is read: which fence committed the version after the base?
    ReadingFeed,
    /// It will not commit: the fence is raised in the row, so that it cannot.
    Closing,
    /// It cannot commit: N − W + 1 gates are raised, so that no vote for it can be rolled forward.
    Fencing,
}

/// A write, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteView {
    /// Of which repository.
    pub repo: RepoId,
    /// The caller's name for it.
    pub request: RequestId,
    /// Where it stands.
    pub phase: WritePhase,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// The fence and base of its grant, once there is one.
    pub grant: Option<Proof>,
    /// Whether its first answer was `Unknown`.
    pub answered: bool,
    /// Why it is not going to commit, if it is not.
    pub failing: Option<Reason>,
}
