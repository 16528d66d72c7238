//! Needs: which replicas and pins still need which versions, and how far behind one may be.

use super::{Log, LogError, Taken};
use crate::id::Version;

/// The id of a replica that follows the log. The host picks the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct ReplicaId(pub u64);

/// The id of a pin, which keeps one version readable, for a backup say. The host picks the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct PinId(pub u64);

/// The progress of a replica that follows the log, and so its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Standing {
    /// Current: the replica has seen everything.
    Current,
    /// Behind: the replica may replay the pieces from [`Log::since`].
    Behind {
        /// The number of versions that it lacks.
        versions: u64,
        /// The size of the pieces that it lacks, in bytes.
        bytes: u64,
    },
    /// Resync: the replica is too far behind for the log to wait, and should take a snapshot.
    ///
    /// The pieces that it would need may be gone.
    Resync {
        /// The number of versions that it lacks.
        versions: u64,
        /// The size of the pieces that it lacks, in bytes.
        bytes: u64,
    },
}

impl Log {
    /// Tells the progress of a replica. From now on the log waits for it, within its limits.
    ///
    /// A version that is not newer than the one already told, or not there yet, changes nothing.
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

    /// Lists the replicas that are followed, each with its version.
    ///
    /// Make these durable, and tell them again when the log is read back, before it is compacted.
    pub fn replicas(&self) -> impl Iterator<Item = (ReplicaId, Version)> {
        self.replicas.iter().map(|(replica, version)| (*replica, *version))
    }

    /// Lists the pinned versions.
    ///
    /// Make these durable, and pin them again when the log is read back, before it is compacted.
    pub fn pins(&self) -> impl Iterator<Item = (PinId, Version)> {
        self.pins.iter().map(|(pin, version)| (*pin, *version))
    }

    /// Stops waiting for a replica.
    pub fn forget(&mut self, replica: ReplicaId) -> Taken {
        if self.replicas.remove(&replica).is_some() { Taken::Taken } else { Taken::Unchanged }
    }

    /// Keeps one version readable until it is unpinned or falls behind the log's limits ([`Log::standing`] tells).
    ///
    /// Every later fact respects it: a fold that would swallow the version is refused, even if it was begun before.
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

    /// Removes a pin.
    pub fn unpin(&mut self, pin: PinId) -> Taken {
        if self.pins.remove(&pin).is_some() { Taken::Taken } else { Taken::Unchanged }
    }

    /// The progress of a replica at this version.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// # let transaction: Transaction = [Command::create(main.clone(), id)].into_iter().collect();
    /// # let record = refs.admit(&transaction)?.into_record().expect("the ref is new");
    /// # let before = refs.clone();
    /// # refs.apply(&record)?;
    /// use tenon_refslog::{Log, LogConfig, Standing, Version};
    ///
    /// let mut log = Log::new(LogConfig::builder().build()?, before.snapshot());
    /// log.append(record)?;
    /// assert_eq!(log.standing(Version(1)), Standing::Current);
    /// assert!(matches!(log.standing(Version(0)), Standing::Behind { versions: 1, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// The horizon: the lowest version that a replica or pin within the limits still needs, or that is retained anyway.
    ///
    /// A deletion at the horizon is still delivered: the pieces that make later versions than the horizon stay in the
    /// log.
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

    /// The oldest of the newest versions that stay readable even if no replica needs them.
    ///
    /// From here on, nothing is folded.
    #[must_use]
    pub fn readable_from(&self) -> Version {
        Version(self.end().version.0.saturating_sub(self.config.retain_versions))
    }
}
