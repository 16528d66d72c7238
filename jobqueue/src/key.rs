//! Keys: the row of a key, which says which jobs hold it and which job is kept for its next turn.

use crate::id::{JobId, JobKey, Key, Version, WriteId};
use crate::rate::{Bucket, Rate};
use crate::time::Timestamp;
use crate::transition::CLOCK_SKEW_MS;

/// A key's row, written together with every delivery that takes the key and with every change that gives it back.
///
/// A name in it counts only as long as the row that it names agrees: see [`Want::Key`](crate::Want::Key). The row is made
/// by the first job that needs it and stays; that it is there says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KeyRow {
    /// The row's primary key.
    pub key: Key,
    /// The version: how often the row was written.
    pub version: Version,
    /// The id of the row's last write.
    pub write: WriteId,
    /// The job that took the key last and has not given it back.
    pub holder: Option<JobKey>,
    /// The sum of the weights of all jobs that hold the key.
    pub used: u32,
    /// The job that keeps newer ones out: see [`OnNewer::KeepsOut`](crate::OnNewer::KeepsOut).
    pub claim: Option<JobKey>,
    /// The newest of the jobs that give way to newer ones: see [`OnNewer::GivesWay`](crate::OnNewer::GivesWay).
    pub newest: Option<JobKey>,
    /// The job that takes the key next. No other takes it before `next_until`.
    pub next: Option<JobKey>,
    /// The time until which the key is kept for `next` once it is free; [`Timestamp::MAX`] while it is held.
    pub next_until: Timestamp,
    /// The deliveries taken out of the key's rate that have not refilled, in the bucket's own unit.
    #[cfg_attr(feature = "serde", serde(default))]
    pub missing: u64,
    /// The time at which `missing` was counted.
    #[cfg_attr(feature = "serde", serde(default))]
    pub filled: Timestamp,
}

impl KeyRow {
    /// A key that was never used.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self {
            key,
            version: Version::new(0),
            write: WriteId { engine: crate::id::Incarnation::new(0), ticket: crate::id::Ticket::new(0) },
            holder: None,
            used: 0,
            claim: None,
            newest: None,
            next: None,
            next_until: Timestamp::MAX,
            missing: 0,
            filled: Timestamp::ZERO,
        }
    }

    /// The state of the key's rate. A time far ahead was written by a wrong clock: it counts as now.
    pub(crate) fn bucket(&self, now: Timestamp) -> Bucket {
        let is_wrong = self.filled.millis_since(now) > CLOCK_SKEW_MS;
        Bucket::of(self.missing, if is_wrong { now } else { self.filled })
    }

    /// One job goes.
    pub(crate) fn spend(&mut self, now: Timestamp, rate: Rate) {
        let mut bucket = self.bucket(now);
        // Another engine's clock may be a little ahead.
        bucket.take(now.max(bucket.parts().1), rate);
        (self.missing, self.filled) = bucket.parts();
    }

    /// Lists the jobs that the row names; one may be named more than once.
    pub fn names(&self) -> impl Iterator<Item = JobId> {
        [self.holder, self.claim, self.newest, self.next].into_iter().flatten().map(|name| name.job)
    }
}
