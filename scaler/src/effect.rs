//! Effects: the orders that the host carries out, and the progress that it reports.

use crate::Timestamp;
use crate::id::{GroupId, PoolId, RequestId, ShapeId, VersionId};

/// An effect: an order to the host. Effects may be carried out in any order, several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Effect {
    /// Start `count` instances. Tell the progress with [`Engine::handle_launch`](crate::Engine::handle_launch).
    Launch {
        /// The id of the request. Asking the cloud twice under one id must start the instances once.
        request: RequestId,
        /// The group that the instances are for.
        group: GroupId,
        /// The pool that lends the instances.
        pool: PoolId,
        /// The shape of the instances.
        shape: ShapeId,
        /// The image that the instances run: that of the group's release group at the time of the decision.
        version: VersionId,
        /// The number of instances.
        count: u32,
    },
    /// Reduce a launch to `keep` instances.
    ///
    /// Those that serve already stay and count first; stop as many of the others as are in excess. Tell those that are
    /// gone as [`Progress::cancelled`], and those that came to serve before they could be stopped as
    /// [`Progress::done`].
    ///
    /// A later one for the same launch keeps fewer, so acting twice on one changes nothing. A host that acts on several
    /// effects at once acts on a launch before it cancels it.
    Cancel {
        /// The id of the launch.
        request: RequestId,
        /// The group of the instances.
        group: GroupId,
        /// The pool of the instances.
        pool: PoolId,
        /// The number of instances of the launch that are still wanted, including those that serve.
        keep: u32,
    },
    /// Stop `count` instances that serve. Tell the progress with
    /// [`Engine::handle_release`](crate::Engine::handle_release).
    Release {
        /// The id of the request.
        request: RequestId,
        /// The group that gives the instances up.
        group: GroupId,
        /// The pool that gets the instances back.
        pool: PoolId,
        /// The number of instances.
        count: u32,
    },
}

impl Effect {
    /// The id of the request that the effect makes, or of the launch that it cancels.
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

/// Progress of a request. All counts are cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Progress {
    /// Instances of a launch that have come to serve; instances of a release that are gone.
    pub done: u32,
    /// Instances of a launch that failed to start and will not come. The pool is left alone for a while.
    pub failed: u32,
    /// Instances of a launch that were stopped because of [`Effect::Cancel`] and are gone.
    pub cancelled: u32,
}

impl Progress {
    /// Progress in which `count` instances are done, and none has failed.
    #[must_use]
    pub const fn done(count: u32) -> Self {
        Self { done: count, failed: 0, cancelled: 0 }
    }

    /// Progress in which `count` instances have failed, and none is done.
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

/// An open request: its end has not been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Request {
    /// The group of the instances.
    pub group: GroupId,
    /// The pool of the instances.
    pub pool: PoolId,
    /// Whether the request starts or stops instances.
    pub kind: RequestKind,
    /// The time when the request was made.
    pub at: Timestamp,
    /// The number of instances requested.
    pub count: u32,
    /// The number of instances of a launch that are still wanted, including those that serve; `count` for a release.
    pub keep: u32,
    /// The progress told so far.
    pub came: Progress,
}

impl Request {
    /// The number of instances that are still under way, wanted or not.
    #[must_use]
    pub const fn open(&self) -> u32 {
        self.count - self.came.done - self.came.failed - self.came.cancelled
    }

    /// The number of instances of a launch that are on their way and wanted.
    #[must_use]
    pub fn starting(&self) -> u32 {
        match self.kind {
            RequestKind::Launch => self.open().min(self.keep.saturating_sub(self.came.done)),
            RequestKind::Release => 0,
        }
    }

    /// The number of instances that are asked to go and are not gone yet: of a release, or of a cancelled launch.
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

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RequestKind {
    /// A launch: it starts instances.
    Launch,
    /// A release: it stops instances.
    Release,
}

/// Counters of facts that changed nothing, by their cause, and of ticks and decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Facts about a group, a metric or a request that does not exist, or no longer exists.
    pub unknown: u64,
    /// Facts that were known already, or overtaken by newer ones.
    pub late: u64,
    /// Facts before their time: about a request that was not made yet, or from the future.
    pub early: u64,
    /// Impossible facts: more instances than were requested, or instances that were never lent.
    pub impossible: u64,
    /// Missing samples.
    pub missing: u64,
    /// Launches that reached their deadline with instances still starting.
    pub overdue: u64,
    /// Ticks whose reading of the clock was behind, and that did nothing.
    pub behind: u64,
    /// Times that the clock went back, as two ticks confirmed.
    pub rewinds: u64,
    /// Ticks whose reading of the clock was far ahead of the one before, and that took nothing away.
    pub leaps: u64,
    /// Groups decided, over all ticks.
    pub decided: u64,
    /// Admitted groups whose demand ticks have estimated anew as the horizon moved.
    pub planned: u64,
}
