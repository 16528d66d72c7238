//! Reads: which node serves, or what must happen first.

use crate::id::{Ask, DomainId, Epoch, Generation, Incarnation, NodeId, RepoId, RequestId, Version};
use crate::reason::Reason;
use crate::row::Proof;
use crate::time::Timestamp;

/// A token: the state that a caller has seen of a repository. It travels with the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Token {
    /// The life of the store in which the state was seen.
    pub generation: Generation,
    /// The lineage of that state.
    pub epoch: Epoch,
    /// The version of that state.
    pub version: Version,
}

impl Token {
    /// The token for a caller that was served under `proof`, or was answered with it.
    #[must_use]
    pub const fn of(proof: &Proof) -> Self {
        let Proof { fence, newest, .. } = proof;
        Self { generation: fence.generation, epoch: newest.epoch, version: newest.version }
    }
}

/// The consistency that a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Freshness {
    /// Linearizable: the read sees every write that was answered before it began.
    ///
    /// The row is fetched after that point.
    Linearizable,
    /// At least a token: the read sees the state that the token names, or a later one.
    ///
    /// A caller sees its own writes, and never less than it saw before.
    AtLeast(Token),
    /// Bounded staleness: the read sees the newest state of at most `age_ms` ago.
    ///
    /// The only mode in which the age of a cached row counts.
    BoundedStale {
        /// The maximum age of the row, in ms.
        age_ms: u64,
    },
    /// Degraded, for when the store cannot be reached: the read sees the state that at least W voters agree on, and may
    /// miss the newest write.
    ///
    /// W voters of one configuration must report, after the read began, that they have applied it, and none of at least
    /// R voters heard may report more. The reason of such a route says so ([`Reason::Degraded`]).
    Degraded,
}

/// The policy for reads while a write of the same repository is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DuringWrite {
    /// Any current node: until the row moves, its applied state is the newest.
    #[default]
    AnyCurrent,
    /// The writer's node only, as in systems whose write lock belongs to a node.
    ///
    /// It has a price: a host that writes in place may show data that is not committed, and never will be
    /// ([`Reason::MayObserveUncommitted`]), and reads wait for as long as a writer's node that is paused holds its
    /// grant.
    Holder,
}

/// A request to route a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReadRequest {
    /// The repository to read.
    pub repo: RepoId,
    /// The point where the read began: [`crate::Router::begin_read`], taken once per read.
    pub began: Ask,
    /// The consistency that the read asks for.
    pub freshness: Freshness,
    /// The caller's failure domain. Nodes in it are preferred, within a bound on their load.
    pub near: Option<DomainId>,
    /// The caller's id of the read.
    ///
    /// With one, random choices come from the seed and this id, not from earlier decisions.
    pub request: Option<RequestId>,
    /// The client's request that this read is a part of. All reads of one request go to one node.
    pub via: Option<RequestId>,
}

impl ReadRequest {
    /// A linearizable read: it sees every write that was answered before `began`.
    ///
    /// ```
    /// use tenon_quorum::{Config, DomainId, ReadRequest, RepoId, Router};
    ///
    /// let mut router = Router::new(Config::builder().build()?);
    /// let read = ReadRequest::linearizable(RepoId(7), router.begin_read()).near(DomainId(1));
    /// assert_eq!(read.near, Some(DomainId(1)));
    /// # Ok::<(), tenon_quorum::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn linearizable(repo: RepoId, began: Ask) -> Self {
        Self { repo, began, freshness: Freshness::Linearizable, near: None, request: None, via: None }
    }

    /// Sets the consistency.
    #[must_use]
    pub const fn freshness(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// Sets the caller's id of the read.
    #[must_use]
    pub const fn request(self, request: RequestId) -> Self {
        Self { request: Some(request), ..self }
    }

    /// Makes the read a part of a client's request, whose reads all go to the same node.
    ///
    /// Any router of the same seed chooses the same node as long as the same nodes qualify. Reads move on only where
    /// that node no longer qualifies, or one that ranks before it does again (highest random weight, after Thaler and
    /// Ravishankar, "A name-based mapping scheme for rendezvous", 1996). Load and domains are not looked at.
    #[must_use]
    pub const fn via(self, request: RequestId) -> Self {
        Self { via: Some(request), ..self }
    }

    /// Sets the caller's failure domain.
    #[must_use]
    pub const fn near(self, domain: DomainId) -> Self {
        Self { near: Some(domain), ..self }
    }
}

/// The next step of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a step is an order to the host"]
pub enum ReadStep {
    /// Send the read to the route's node.
    Serve(Route),
    /// Do this first, then ask again with the same request.
    First(First),
}

/// An action that must come before a read can be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a step is an order to the host"]
pub enum First {
    /// Fetch the row of the repository now, and tell it with [`crate::Router::handle_row`] under this ask.
    FetchRow(Ask),
    /// Wait, then ask again: after the next fact about the repository, or at this time if none comes.
    ///
    /// Effects that will answer are under way (probes, copies, another read's fetch).
    Wait {
        /// The latest time to ask again.
        until: Timestamp,
    },
}

/// A routed read: the node that serves it, with the proof that the node's gate checks
/// ([`crate::FenceGate::admit_read`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a route is an order to the host"]
pub struct Route {
    /// The node that serves.
    pub node: NodeId,
    /// The life of the node's disk that may serve.
    pub incarnation: Incarnation,
    /// The proof for the node's gate: the state that the node must have, under a fence and a configuration not older
    /// than its gate.
    pub proof: Proof,
    /// The reason for this node.
    pub reason: Reason,
}
