//! A key's row: which jobs hold what only so many may hold, and which job is kept for its next turn.

use crate::id::{JobId, JobKey, Key, Version, WriteId};
use crate::time::Timestamp;

/// A key's row, written together with every delivery that takes the key and with every change that gives it back.
///
/// A name in it counts only as long as the row that it names agrees: see [`Want::Key`](crate::Want::Key). The row is made
/// by the first job that needs it and stays; that it is there says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KeyRow {
    /// The row's primary key.
    pub key: Key,
    /// How often the row was written.
    pub version: Version,
    /// Who wrote it last.
    pub write: WriteId,
    /// The job that took the key last, and has not given it back.
    pub holder: Option<JobKey>,
    /// The weights of all jobs that hold the key, added up.
    pub used: u32,
    /// The job that keeps newer ones out: see [`OnNewer::KeepsOut`](crate::OnNewer::KeepsOut).
    pub claim: Option<JobKey>,
    /// The newest of the jobs that give way to newer ones: see [`OnNewer::GivesWay`](crate::OnNewer::GivesWay).
    pub newest: Option<JobKey>,
    /// The job that takes the key next: no other takes it before `next_until`.
    pub next: Option<JobKey>,
    /// Until when the key is kept for `next` once it is free; [`Timestamp::MAX`] while it is held.
    pub next_until: Timestamp,
}

impl KeyRow {
    /// A key that nobody has used.
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
        }
    }

    /// The jobs that the row names; one may be named more than once.
    pub fn names(&self) -> impl Iterator<Item = JobId> {
        [self.holder, self.claim, self.newest, self.next].into_iter().flatten().map(|name| name.job)
    }
}
