//! Why a log refuses.

use crate::codec::error::DecodeError;
use crate::compact::CompactError;
use crate::id::{LineageId, Version};
use crate::replay::ReplayError;
use crate::snapshot::{MergeError, RestoreError};

/// Why the log cannot be asked about a version, or cannot take what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The version went into a fold: only `base` and `end` can be told apart now.
    #[error("version {asked} was compacted: {base} and {end} can be told, not what is between")]
    VersionCompacted {
        /// What was asked for.
        asked: Version,
        /// The last version before it that can be told.
        base: Version,
        /// The first version after it that can be told.
        end: Version,
    },
    /// The version is before the log's snapshot: resynchronise from that.
    #[error("version {asked} is before the snapshot at {base}")]
    BeforeSnapshot {
        /// What was asked for.
        asked: Version,
        /// Version of the snapshot.
        base: Version,
    },
    /// The version is not written yet.
    #[error("version {asked} is not there yet, the newest is {newest}")]
    Future {
        /// What was asked for.
        asked: Version,
        /// The newest version.
        newest: Version,
    },
    /// The record is of another log.
    #[error("the log is {have}, the record is of {found}")]
    LineageMismatch {
        /// This log.
        have: LineageId,
        /// The record's log.
        found: LineageId,
    },
    /// An exact segment serves replicas at its base only, so a log keeps none.
    #[error("a log keeps segments that cover, not exact ones")]
    NeedsCover,
    /// Another record of this version is in the log already: two writers appended, or the replica follows a fork.
    #[error("version {version} is another record in this log")]
    OtherRecord {
        /// The version.
        version: Version,
    },
    /// The version is further behind than the log waits for, so that a pin on it would hold nothing.
    #[error("version {asked} is {versions} versions and {bytes} bytes behind, more than the log waits for")]
    BeyondLimits {
        /// What was asked for.
        asked: Version,
        /// Versions after it.
        versions: u64,
        /// Bytes of the pieces after it.
        bytes: u64,
    },
    /// The refs are not those at the log's end.
    #[error("the refs are at version {have}, the log ends at {newest}, or they differ")]
    NotAtEnd {
        /// Version of the refs.
        have: Version,
        /// The newest version.
        newest: Version,
    },
    /// More replicas or pins than the configuration allows.
    #[error("{max} replicas or pins are followed already")]
    TooManyNeeds {
        /// How many are allowed.
        max: usize,
    },
    /// The snapshot is damaged.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The snapshot cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The pieces do not lead where they say.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The pieces do not fit together.
    #[error(transparent)]
    Compact(#[from] CompactError),
    /// The segment does not fit the snapshot.
    #[error(transparent)]
    Merge(#[from] MergeError),
}
