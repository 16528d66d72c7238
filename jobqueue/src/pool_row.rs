//! Shared limits: a pool's row, and the row of each engine's life, by which engines of one database know of each other.

use alloc::vec::Vec;

use crate::id::{Incarnation, PoolId, Version, WriteId};
use crate::time::Timestamp;

/// A pool's row: the shares of engines in its limit, and the state of its rate.
///
/// The shares never add up to more than the limit. An engine uses a share only once it knows that it was written, and
/// gives one back only after it has ceased to use it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolRow {
    /// The row's primary key.
    pub pool: PoolId,
    /// The version: how often the row was written.
    pub version: Version,
    /// The id of the row's last write.
    pub write: WriteId,
    /// Maximum number of jobs that the pool's workers may hold together, over all engines.
    pub limit: u32,
    /// The share of each engine's life, in the order of lives.
    pub shares: Vec<PoolShare>,
    /// The deliveries taken out of the rate's bucket that have not refilled, in the bucket's own unit.
    pub missing: u64,
    /// The time at which `missing` was counted, by the database's clock.
    pub filled: Timestamp,
    /// The time of the database's clock when the row was read. A store fills it in on each read; it is not kept.
    pub clock: Timestamp,
}

/// The share of one life of an engine in a pool's leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolShare {
    /// The engine's life.
    pub life: Incarnation,
    /// Maximum number of leases that the life may have out at a time.
    pub leases: u32,
    /// The number of further leases that the life could use. Others give back those that they do not use.
    pub wanted: u32,
    /// The time until which the life is taken to be alive, by the database's clock.
    pub until: Timestamp,
}

/// The row of one life of an engine: while it is at the version that the life knows, the life may give out jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LifeRow {
    /// The row's primary key.
    pub life: Incarnation,
    /// The version. More than 1 means that another engine has ended this life.
    pub version: Version,
    /// The id of the row's last write.
    pub write: WriteId,
}
