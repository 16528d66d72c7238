//! Who still needs which versions of a log, and how far behind one may be.

use super::{Log, LogError, Taken};
use crate::id::Version;

/// A replica that follows the log; the host picks the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct ReplicaId(pub u64);

/// Somebody who needs one version to stay readable, such as a backup; the host picks the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct PinId(pub u64);

/// What a replica that follows the log should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Standing {
    /// It has seen everything.
    Current,
    /// It may replay what [`Log::since`] gives.
    Behind {
        /// Versions it lacks.
        versions: u64,
        /// Bytes of the pieces it lacks.
        bytes: u64,
    },
    /// It is too far behind for the log to wait: it should take a snapshot, and what it would need may be gone.
    Resync {
        /// Versions it lacks.
        versions: u64,
        /// Bytes of the pieces it lacks.
        bytes: u64,
    },
}

impl Log {
    /// Tells how far a replica has come; from now on the log waits for it, within its limits. A version that is not newer
    /// than the one already told, or not there yet, changes nothing.
    ///
    /// # Errors
    /// As many replicas as allowed are followed already.
    pub fn handle_progress(&mut self, replica: ReplicaId, version: Version) -> Result<Taken, LogError> {
        let known = self.replicas.get(&replica).copied();
        if version > self.end().version || known.is_some_and(|known| version <= known) {
            return Ok(Taken::Unchanged);
        }
        let max = self.config.max_needs;
        if known.is_none() && self.replicas.len() >= max {
            return Err(LogError::TooManyNeeds { max });
        }
        self.replicas.insert(replica, version);
        Ok(Taken::Taken)
    }

    /// The replicas that are followed, each with the version that it has come to: make these durable, and tell them again
    /// when the log is read back, before it is compacted.
    pub fn replicas(&self) -> impl Iterator<Item = (ReplicaId, Version)> {
        self.replicas.iter().map(|(replica, version)| (*replica, *version))
    }

    /// The versions that are pinned: make these durable, and pin them again when the log is read back, before it is
    /// compacted.
    pub fn pins(&self) -> impl Iterator<Item = (PinId, Version)> {
        self.pins.iter().map(|(pin, version)| (*pin, *version))
    }

    /// Stops waiting for a replica.
    pub fn forget(&mut self, replica: ReplicaId) -> Taken {
        if self.replicas.remove(&replica).is_some() { Taken::Taken } else { Taken::Unchanged }
    }

    /// Keeps one version readable until it is unpinned or falls behind the log's limits ([`Log::standing`] tells). Every
    /// later fact respects it: a fold that would swallow the version is not taken, even if it was begun before.
    ///
    /// # Errors
    /// The version is not there, was folded away, is beyond the limits already, or too many are pinned.
    pub fn pin(&mut self, pin: PinId, version: Version) -> Result<(), LogError> {
        self.check_known(version)?;
        self.check_boundary(version)?;
        if let Standing::Resync { versions, bytes } = self.standing(version) {
            return Err(LogError::BeyondLimits { asked: version, versions, bytes });
        }
        let max = self.config.max_needs;
        if !self.pins.contains_key(&pin) && self.pins.len() >= max {
            return Err(LogError::TooManyNeeds { max });
        }
        self.pins.insert(pin, version);
        Ok(())
    }

    /// Lets a pinned version go.
    pub fn unpin(&mut self, pin: PinId) -> Taken {
        if self.pins.remove(&pin).is_some() { Taken::Taken } else { Taken::Unchanged }
    }

    /// What a replica at this version should do.
    pub fn standing(&self, version: Version) -> Standing {
        let end = self.end().version;
        let versions = end.0.saturating_sub(version.0);
        let bytes = self.bytes_after(version);
        if versions == 0 {
            return Standing::Current;
        }
        let gone = version < self.snapshot.point().version;
        if gone || versions > self.config.max_lag_versions || bytes > self.config.max_lag_bytes {
            return Standing::Resync { versions, bytes };
        }
        Standing::Behind { versions, bytes }
    }

    fn bytes_after(&self, version: Version) -> u64 {
        let after = self.pieces.iter().rev().take_while(|(piece, _)| piece.end().version > version);
        after.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The lowest version that somebody within the limits still needs, or that is retained anyway. A deletion at the
    /// horizon is still delivered: what makes a later version than the horizon stays in the log.
    #[must_use]
    pub fn horizon(&self) -> Version {
        let readable = self.readable_from();
        self.waited_for().map_or(readable, |version| version.min(readable))
    }

    /// The lowest version that a replica or pin within the limits needs.
    pub(super) fn waited_for(&self) -> Option<Version> {
        let needs = self.replicas.values().chain(self.pins.values());
        needs.copied().filter(|version| !matches!(self.standing(*version), Standing::Resync { .. })).min()
    }

    /// The oldest of the newest versions that stay readable whether or not somebody needs them: from here on, nothing is
    /// folded.
    #[must_use]
    pub fn readable_from(&self) -> Version {
        Version(self.end().version.0.saturating_sub(self.config.retain_versions))
    }
}
