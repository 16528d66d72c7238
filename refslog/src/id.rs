//! Positions: the log, version and checksum of a state or a record.

use core::fmt;

use crate::digest::Checksum;

/// The id of a log: a number that the host draws at random when it starts a repository's log anew.
///
/// Versions of different lineages cannot be compared: a repository that was restored from an old backup, or whose log
/// was lost, starts a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct LineageId(pub u64);

impl fmt::Display for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The number of records that a state has seen.
///
/// Versions are dense: the record after version `v` makes version `v + 1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Version(pub u64);

impl Version {
    /// Version 0: the state before the first record.
    pub const GENESIS: Self = Self(0);

    /// The version that the next record makes; `None` past the last number.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }

    /// The version before; `None` at genesis.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(previous) => Some(Self(previous)),
            None => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Width and fill are the number's.
        self.0.fmt(f)
    }
}

/// A point: a position in a log, with the checksum of all refs there.
///
/// Two replicas at equal points hold equal refs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Point {
    /// The id of the log.
    pub lineage: LineageId,
    /// The version in that log.
    pub version: Version,
    /// The checksum of all refs at that version.
    pub checksum: Checksum,
}

impl Point {
    /// The start of a log: version 0, no refs.
    #[must_use]
    pub const fn genesis(lineage: LineageId) -> Self {
        Self { lineage, version: Version::GENESIS, checksum: Checksum::EMPTY }
    }
}
