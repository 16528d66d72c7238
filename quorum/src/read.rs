//! Reads: which node serves, or what must happen first.

use crate::id::{Ask, DomainId, Epoch, Generation, Incarnation, NodeId, RepoId, RequestId, Version};
use crate::reason::Reason;
use crate::row::Proof;
use crate::time::Timestamp;

/// What a caller has seen of a repository; it travels with the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Token {
    /// The life of the store in which it was seen.
    pub generation: Generation,
    /// The lineage.
    pub epoch: Epoch,
    /// The version.
    pub version: Version,
}

impl Token {
    /// What a caller has seen that was served under `proof`, or was answered with it.
    #[must_use]
    pub const fn of(proof: &Proof) -> Self {
        let Proof { fence, newest, .. } = proof;
        Self { generation: fence.generation, epoch: newest.epoch, version: newest.version }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Freshness {
    /// It sees every write that was answered before the read began: the row is fetched after that point.
    Linearizable,
    /// It sees at least what the token names: a caller's own writes, and never less than it saw before.
    AtLeast(Token),
    /// It sees what was the newest state at most so many milliseconds ago. The only mode in which the age of a cached
    /// row counts.
    BoundedStale {
        /// Milliseconds.
        age_ms: u64,
    },
    /// For when the store cannot be reached: it sees what at least W voters of one configuration say, after the read
    /// began, that they have applied, if none of at least R heard says more. It may miss the newest write. The
    /// reason of such a route says so ([`Reason::Degraded`]).
    Degraded,
}

/// Which node reads go to while a write of the same repository is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DuringWrite {
    /// Any that is current: until the row moves, what it has applied is the newest state.
    #[default]
    AnyCurrent,
    /// The writer's node and no other, as in systems whose write lock is a node's own. It has a price: a host that
    /// writes in place may show what is not committed, and never will be ([`Reason::MayObserveUncommitted`]), and reads
    /// wait for as long as a writer's node that is paused holds its grant.
    Holder,
}

/// A read to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReadRequest {
    /// Of which repository.
    pub repo: RepoId,
    /// Where the read began: [`crate::Router::begin_read`], taken once per read.
    pub began: Ask,
    /// How fresh.
    pub freshness: Freshness,
    /// The caller's failure domain: preferred, within a bound on its load.
    pub near: Option<DomainId>,
    /// The caller's name for the read. With one, chance comes from the seed and this name, not from what was decided
    /// before.
    pub request: Option<RequestId>,
    /// The client's request that this read is a part of: all of its reads go to one node.
    pub via: Option<RequestId>,
}

impl ReadRequest {
    /// A read that sees every write answered before `began`.
    #[must_use]
    pub const fn linearizable(repo: RepoId, began: Ask) -> Self {
        Self { repo, began, freshness: Freshness::Linearizable, near: None, request: None, via: None }
    }

    /// The same read with another freshness.
    #[must_use]
    pub const fn freshness(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// The same read under the caller's own name.
    #[must_use]
    pub const fn request(self, request: RequestId) -> Self {
        Self { request: Some(request), ..self }
    }

    /// The same read as a part of a client's request that reads several times: each of its reads goes to the same
    /// node, whichever router of the same seed decides, as long as the same nodes qualify, and moves on only where
    /// that node no longer qualifies or one that comes before it does again (highest random weight, after Thaler and
    /// Ravishankar, "A name-based mapping scheme for rendezvous", 1996). Load and domains are not looked at.
    #[must_use]
    pub const fn via(self, request: RequestId) -> Self {
        Self { via: Some(request), ..self }
    }

    /// The same read from a caller in `domain`.
    #[must_use]
    pub const fn near(self, domain: DomainId) -> Self {
        Self { near: Some(domain), ..self }
    }
}

/// What to do with a read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a step is an order to the host"]
pub enum ReadStep {
    /// Send it there.
    Serve(Route),
    /// Do this, then ask again with the same request.
    First(First),
}

/// What must happen before a read can be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a step is an order to the host"]
pub enum First {
    /// Fetch the row of the repository now, tell it with [`crate::Router::handle_row`] under this ask.
    FetchRow(Ask),
    /// Effects that will answer are out (probes, copies, another read's fetch): ask again after the next fact about
    /// the repository, or at this time if none comes.
    Wait {
        /// When to ask again at the latest.
        until: Timestamp,
    },
}

/// Where a read goes. The node's gate checks it: [`crate::FenceGate::admit_read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a route is an order to the host"]
pub struct Route {
    /// The node that serves.
    pub node: NodeId,
    /// The life of its disk that may serve.
    pub incarnation: Incarnation,
    /// What the node must see: `proof.newest`, under a fence and a configuration not older than its gate.
    pub proof: Proof,
    /// Why this node.
    pub reason: Reason,
}
