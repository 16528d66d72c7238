//! What engines that share a database know of each other: a pool's row, and the row of each engine's life.

use alloc::vec::Vec;

use crate::id::{Incarnation, PoolId, Version, WriteId};
use crate::time::Timestamp;

/// A pool's row: how its limit is shared out among engines, and what is left of its rate.
///
/// The shares never add up to more than the limit. An engine uses a share only once it knows that it was written, and
/// gives one back only after it has ceased to use it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolRow {
    /// The row's primary key.
    pub pool: PoolId,
    /// How often the row was written.
    pub version: Version,
    /// Who wrote it last.
    pub write: WriteId,
    /// How many jobs the pool's workers may hold together, over all engines.
    pub limit: u32,
    /// What each engine may use, by its life, in the order of lives.
    pub shares: Vec<PoolShare>,
    /// Deliveries that were taken out of the rate's bucket, in the bucket's own unit.
    pub missing: u64,
    /// When that was, by the database's clock.
    pub filled: Timestamp,
    /// What the database's clock said when the row was read. A store fills it in on each read; it is not kept.
    pub clock: Timestamp,
}

/// How many of a pool's leases one life of an engine may give out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolShare {
    /// The life.
    pub life: Incarnation,
    /// Leases that it may have out at a time.
    pub leases: u32,
    /// Leases that it could use and does not have; others give back what they do not use.
    pub wanted: u32,
    /// Until when it is taken to be alive, by the database's clock.
    pub until: Timestamp,
}

/// One life of an engine: while this row is at the version that the life knows, the life may give out jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LifeRow {
    /// The row's primary key.
    pub life: Incarnation,
    /// How often the row was written: more than once means that another engine has ended this life.
    pub version: Version,
    /// Who wrote it last.
    pub write: WriteId,
}
