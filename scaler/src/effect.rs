//! What the host must do, and how it says that it did.

use crate::id::{GroupId, PoolId, RequestId, ShapeId, VersionId};

/// Something for the host to do. Effects may be acted on in any order, several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Effect {
    /// Start `count` instances; tell how it goes with [`Engine::handle_launch`](crate::Engine::handle_launch).
    Launch {
        /// The request, for the fact; asking the cloud twice under one request must start them once.
        request: RequestId,
        /// For which group.
        group: GroupId,
        /// From which pool.
        pool: PoolId,
        /// Of which shape.
        shape: ShapeId,
        /// Running which image: the one that the group's release group had at the time of the decision.
        version: VersionId,
        /// How many.
        count: u32,
    },
    /// Stop `count` instances that serve; tell how it goes with
    /// [`Engine::handle_release`](crate::Engine::handle_release).
    Release {
        /// The request, for the fact.
        request: RequestId,
        /// Of which group.
        group: GroupId,
        /// Back to which pool.
        pool: PoolId,
        /// How many.
        count: u32,
    },
}

impl Effect {
    /// The request that it makes.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        match self {
            Self::Launch { request, .. } | Self::Release { request, .. } => *request,
        }
    }
}

/// A request whose end has not been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Request {
    /// For which group.
    pub group: GroupId,
    /// Of which pool.
    pub pool: PoolId,
    /// Whether it starts or stops instances.
    pub kind: RequestKind,
    /// How many in all.
    pub count: u32,
    /// How many of them are done: ready, or gone.
    pub done: u32,
    /// How many of them have failed to start.
    pub failed: u32,
}

impl Request {
    /// How many are still under way.
    #[must_use]
    pub const fn open(&self) -> u32 {
        self.count - self.done - self.failed
    }
}

/// Whether a request starts or stops instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RequestKind {
    /// It starts them.
    Launch,
    /// It stops them.
    Release,
}

/// Facts that changed nothing, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// About a group, a metric or a request that is not there (any more).
    pub unknown: u64,
    /// Already known, or overtaken by what is.
    pub late: u64,
    /// Before their time: about what has not been asked yet, or from the future.
    pub early: u64,
    /// Not possible: more than was asked, instances that were never lent.
    pub impossible: u64,
    /// Samples that were missing.
    pub missing: u64,
    /// Groups decided, over all ticks.
    pub decided: u64,
}
