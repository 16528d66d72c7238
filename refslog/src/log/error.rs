//! Errors of a log.

use crate::codec::error::DecodeError;
use crate::compact::CompactError;
use crate::id::{LineageId, Version};
use crate::replay::ReplayError;
use crate::snapshot::{MergeError, RestoreError};

/// Why the log refuses a question about a version, or a fact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The version was folded: only `base` and `end` can be told apart now.
    #[error("version {asked} was folded: only versions {base} and {end} can be told apart")]
    VersionCompacted {
        /// The version asked for.
        asked: Version,
        /// The last version before it that can be told apart.
        base: Version,
        /// The first version after it that can be told apart.
        end: Version,
    },
    /// The version is before the log's snapshot: resynchronise from the snapshot.
    #[error("version {asked} is before the snapshot at {base}")]
    BeforeSnapshot {
        /// The version asked for.
        asked: Version,
        /// The version of the snapshot.
        base: Version,
    },
    /// The version is not written yet.
    #[error("version {asked} is not there yet, the newest is {newest}")]
    Future {
        /// The version asked for.
        asked: Version,
        /// The newest version.
        newest: Version,
    },
    /// The record is of another log.
    #[error("the log is {have}, the record is of log {found}")]
    LineageMismatch {
        /// The id of this log.
        have: LineageId,
        /// The id of the record's log.
        found: LineageId,
    },
    /// The segment is exact. A log keeps only segments that cover, because an exact one serves replicas at its base
    /// only.
    #[error("a log keeps segments that cover, not exact ones")]
    NeedsCover,
    /// Another record of this version is in the log already: two writers appended, or the replica follows a fork.
    #[error("the log holds another record of version {version}")]
    OtherRecord {
        /// The version of the record.
        version: Version,
    },
    /// The version is further behind than the log waits for, so a pin on it would hold nothing.
    #[error("version {asked} is {versions} versions and {bytes} bytes behind, more than the log waits for")]
    BeyondLimits {
        /// The version asked for.
        asked: Version,
        /// The number of versions after it.
        versions: u64,
        /// The size of the pieces after it, in bytes.
        bytes: u64,
    },
    /// The refs are not those at the log's end.
    #[error("the refs are at version {have}, the log ends at {newest}, or they differ")]
    NotAtEnd {
        /// The version of the refs.
        have: Version,
        /// The newest version.
        newest: Version,
    },
    /// The maximum of replicas or pins is reached.
    #[error("{max} replicas or pins are followed already")]
    TooManyNeeds {
        /// The maximum.
        max: usize,
    },
    /// The snapshot is damaged.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The snapshot cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The pieces do not lead to the state that they claim.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The pieces do not fit together.
    #[error(transparent)]
    Compact(#[from] CompactError),
    /// The segment does not fit the snapshot.
    #[error(transparent)]
    Merge(#[from] MergeError),
}
