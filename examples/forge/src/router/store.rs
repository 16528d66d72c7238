//! The metadata store: names, the one row per repository that decides, the feed beside it, and
//! what compaction made of old records.
//!
//! [`Store`] is what the router needs of a database; [`Sqlite`] is the embedded one. Its calls
//! block: the router makes them on a blocking thread.

mod backup;
mod sqlite;
#[cfg(test)]
mod torture;

use tenon_quorum::{Boot, Incarnation, Start};

pub(crate) use backup::{back_up, restore};
pub(crate) use sqlite::Sqlite;

/// What went wrong in the store. After an error of [`Store::swap`] the outcome is *unknown*.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    #[error(
        "the store was made by a later version of forge (schema {found}, this one reads up to {known}): \
         use that version, or a backup from before it"
    )]
    Schema { found: String, known: String },
    #[error("the store holds a value that is none: {0}")]
    Value(String),
}

impl StoreError {
    /// Whether the disk has no room left: nothing was written.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Database(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

/// A committed change, in the same transaction as the swap that committed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FeedRow {
    pub(crate) version: u64,
    pub(crate) digest: [u8; 16],
    /// The fence that committed it: (generation, counter).
    pub(crate) fence: (u32, u64),
    /// Epoch of the version.
    pub(crate) epoch: u32,
    /// The encoded refs record; empty once compaction has folded it into a segment.
    pub(crate) record: Vec<u8>,
    /// Whether the push wants pipelines.
    pub(crate) pipelines: Pipelines,
}

/// Whether a push gets pipelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pipelines {
    #[default]
    Wanted,
    /// Its sender said `-o ci.skip`.
    Skipped,
}

/// Whether a repository waits for its first push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newborn {
    Yes,
    No,
}

/// Whether a branch is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    On,
    Off,
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Swapped {
    /// The row is now `next`.
    Moved,
    /// The swap is for another life of the store; nothing changed.
    OtherLife,
    /// The row was another; nothing changed. Here it is.
    Conflict(Option<Vec<u8>>),
}

/// What the store says of itself with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The life that the store is in.
    pub(crate) life: u32,
    /// The router that waits for the repository.
    pub(crate) note: Option<u32>,
}

/// A compare-and-set of a whole row; with it, and only with it, the feed grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap<'a> {
    /// The life of the store that it was decided in.
    pub(crate) life: u32,
    pub(crate) repo: u64,
    /// `None` for a row that must not be there yet.
    pub(crate) expect: Option<&'a [u8]>,
    pub(crate) next: &'a [u8],
    pub(crate) feed: Option<&'a FeedRow>,
    /// Whether the note beside the row goes.
    pub(crate) clears_note: bool,
}

/// A compacted part of a repository's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) base: u64,
    pub(crate) end: u64,
    pub(crate) bytes: Vec<u8>,
}

/// The log of one repository as stored: a snapshot, then segments, then records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogRows {
    /// The refs at a version, encoded; absent while the log still begins at genesis.
    pub(crate) snapshot: Option<(u64, Vec<u8>)>,
    pub(crate) segments: Vec<SegmentRow>,
    pub(crate) tail: Vec<FeedRow>,
}

/// One compaction, applied whole.
#[derive(Clone, Debug)]
pub(crate) struct Compaction {
    /// Replaces the snapshot, if one was made.
    pub(crate) snapshot: Option<(u64, Vec<u8>)>,
    /// Replaces all segments.
    pub(crate) segments: Vec<SegmentRow>,
    /// Records up to and with this version are held by the above, and dropped.
    pub(crate) through: u64,
}

/// What the router keeps, and how it may change.
pub(crate) trait Store: std::fmt::Debug + Send + Sync {
    /// A value that belongs to the whole store; made by `make` if it is not there.
    fn meta(&self, key: &str, make: &dyn Fn() -> String) -> Result<String, StoreError>;
    /// The id of a name; a new one if `create` says so.
    fn name(&self, name: &str) -> Result<Option<u64>, StoreError>;
    /// The id of a new name, or of the one that is there.
    fn add_name(&self, name: &str) -> Result<u64, StoreError>;
    /// Gives a name to a repository that has none here, but a row.
    fn adopt(&self, repo: u64, name: &str) -> Result<(), StoreError>;
    /// Gives a repository another name; `false` if that is another's.
    fn rename(&self, repo: u64, name: &str) -> Result<bool, StoreError>;
    /// Forgets the name, the feed and the log of a repository that is deleted; its row, a tombstone, stays.
    fn forget(&self, repo: u64) -> Result<(), StoreError>;
    /// Remembers that a repository is being made for its first push, or that this push is done.
    fn set_newborn(&self, repo: u64, newborn: Newborn) -> Result<(), StoreError>;
    /// Repositories whose first push was not done when the router ended.
    fn newborns(&self) -> Result<Vec<u64>, StoreError>;
    /// The branches of a repository that cannot be deleted or moved back, as full names.
    fn protected(&self, repo: u64) -> Result<Vec<String>, StoreError>;
    /// Protects a branch, or no longer.
    fn protect(&self, repo: u64, branch: &str, protection: Protection) -> Result<(), StoreError>;
    /// At which version a repository was swept last, and when; one that never was begins to wait now.
    fn swept(&self, repo: u64, version: Option<u64>, now_ms: u64) -> Result<Option<(u64, u64)>, StoreError>;
    /// A repository was swept.
    fn set_swept(&self, repo: u64, version: u64, now_ms: u64) -> Result<(), StoreError>;
    /// Forgets rows of the feed up to the version `followed` whose records are folded, but for the newest `keep` rows.
    fn shorten_feed(&self, repo: u64, followed: u64, keep: u32) -> Result<(), StoreError>;
    /// Every repository, by name.
    fn names(&self) -> Result<Vec<(u64, String)>, StoreError>;
    /// The row of a repository, whole.
    fn row(&self, repo: u64) -> Result<Option<Vec<u8>>, StoreError>;
    /// The row of a repository, whole, and what the store says of itself.
    fn look(&self, repo: u64) -> Result<(Said, Option<Vec<u8>>), StoreError>;
    /// Compare-and-set of the whole row, in that life of the store.
    fn swap(&self, swap: &Swap<'_>) -> Result<(Said, Swapped), StoreError>;
    /// Writes beside a row which router waits.
    fn note(&self, repo: u64, router: u32) -> Result<(), StoreError>;
    /// A number for an empty disk, larger than any before.
    fn draw_life(&self) -> Result<Incarnation, StoreError>;
    /// What a node that starts is to do, whose disk knows this boot.
    fn start_node(&self, node: u32, life: Incarnation, disk: Boot) -> Result<Start, StoreError>;
    /// Committed changes with a version above `after`, oldest first.
    fn feed(&self, repo: u64, after: u64, limit: usize) -> Result<Vec<FeedRow>, StoreError>;
    /// What a reader that is at `from` needs: nothing that ends at or below it.
    fn log(&self, repo: u64, from: u64) -> Result<LogRows, StoreError>;
    /// Repositories whose log holds more records than so many.
    fn long_logs(&self, many: usize) -> Result<Vec<u64>, StoreError>;
    /// Replaces records by what they were folded into, in one transaction.
    fn compact(&self, repo: u64, done: &Compaction) -> Result<(), StoreError>;
}
