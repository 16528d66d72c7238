//! What the host must do, and how it says that it did.

use crate::Timestamp;
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
    /// Keep no more than `keep` instances of a launch: those that serve already stay and count first; stop as many of the
    /// others as are over. Tell those that are gone as [`Progress::cancelled`], and those that came to serve before they
    /// could be stopped as [`Progress::done`].
    ///
    /// A later one for the same launch keeps fewer, so acting twice on one changes nothing. A host that acts on several
    /// effects at once acts on a launch before it cancels it.
    Cancel {
        /// The launch.
        request: RequestId,
        /// For which group.
        group: GroupId,
        /// From which pool.
        pool: PoolId,
        /// How many instances of the launch are still wanted, including those that serve.
        keep: u32,
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
    /// The request that the effect makes, or the launch that it cancels.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        match self {
            Self::Launch { request, .. } | Self::Cancel { request, .. } | Self::Release { request, .. } => *request,
        }
    }

    /// Whether the effect makes a request of its own.
    pub(crate) const fn is_request(&self) -> bool {
        !matches!(self, Self::Cancel { .. })
    }
}

/// What a request has come to so far: running totals, not what is new since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Progress {
    /// Instances of a launch that have come to serve; instances of a release that are gone.
    pub done: u32,
    /// Instances of a launch that will not come because something failed: the pool is left alone for a while.
    pub failed: u32,
    /// Instances of a launch that were stopped because of [`Effect::Cancel`] and are gone.
    pub cancelled: u32,
}

impl Progress {
    /// `count` instances are done, and none has failed.
    #[must_use]
    pub const fn done(count: u32) -> Self {
        Self { done: count, failed: 0, cancelled: 0 }
    }

    /// `count` instances have failed, and none is done.
    #[must_use]
    pub const fn failed(count: u32) -> Self {
        Self { done: 0, failed: count, cancelled: 0 }
    }

    /// The sum; `None` where it is too large to name.
    pub(crate) fn ended(self) -> Option<u32> {
        self.done.checked_add(self.failed)?.checked_add(self.cancelled)
    }

    /// The larger total of each: totals never go down.
    pub(crate) fn max(self, other: Self) -> Self {
        let Self { done, failed, cancelled } = other;
        Self { done: self.done.max(done), failed: self.failed.max(failed), cancelled: self.cancelled.max(cancelled) }
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
    /// When it was asked.
    pub at: Timestamp,
    /// How many instances in all.
    pub count: u32,
    /// How many instances of a launch are still wanted, including those that serve; `count` for a release.
    pub keep: u32,
    /// What it has come to.
    pub came: Progress,
}

impl Request {
    /// How many instances are still under way, wanted or not.
    #[must_use]
    pub const fn open(&self) -> u32 {
        self.count - self.came.done - self.came.failed - self.came.cancelled
    }

    /// How many instances of a launch are on their way and wanted.
    #[must_use]
    pub fn starting(&self) -> u32 {
        match self.kind {
            RequestKind::Launch => self.open().min(self.keep.saturating_sub(self.came.done)),
            RequestKind::Release => 0,
        }
    }

    /// How many instances are asked to go and are not gone yet: of a release, or of a launch that was cancelled.
    #[must_use]
    pub fn leaving(&self) -> u32 {
        self.open() - self.starting()
    }

    /// Whether these numbers can belong together.
    pub(crate) fn is_sound(&self) -> bool {
        let only_launches = self.came.failed == 0 && self.came.cancelled == 0 && self.keep == self.count;
        self.came.ended().is_some_and(|ended| ended < self.count)
            && self.keep <= self.count
            && (self.kind == RequestKind::Launch || only_launches)
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
    /// Launches that came to their deadline with instances still starting.
    pub overdue: u64,
    /// Ticks whose reading of the clock was behind, and that did nothing.
    pub behind: u64,
    /// Times that the clock went back, told by two ticks, and everything that was remembered was put right.
    pub rewinds: u64,
    /// Ticks whose reading was far ahead of the one before, and that took nothing away.
    pub leaps: u64,
    /// Groups decided, over all ticks.
    pub decided: u64,
    /// Admitted groups whose demand ticks have estimated anew as the horizon moved.
    pub planned: u64,
}
