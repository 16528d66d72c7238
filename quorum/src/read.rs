//! Reads: which node serves, or what must happen first.

use crate::error::Reason;
use crate::id::{Ask, Incarnation, NodeId, RepoId};
use crate::row::Proof;
use crate::time::Timestamp;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Freshness {
    /// It sees every write that was answered before the read began: the row is fetched after that point.
    Linearizable {
        /// Where the read began: [`crate::Router::begin_read`], taken once per read.
        began: Ask,
    },
}

/// A read to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReadRequest {
    /// Of which repository.
    pub repo: RepoId,
    /// How fresh.
    pub freshness: Freshness,
}

impl ReadRequest {
    /// A read that sees every write answered before `began`.
    #[must_use]
    pub const fn linearizable(repo: RepoId, began: Ask) -> Self {
        Self { repo, freshness: Freshness::Linearizable { began } }
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
