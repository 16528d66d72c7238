//! History: values and checksums at earlier versions of a log.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::piece::legs;
use super::{Log, LogError, Piece};
use crate::change::{Change, Value};
use crate::compact::{Mode, fold};
use crate::config::Config;
use crate::digest::Checksum;
use crate::id::{Point, Version};
use crate::name::RefName;
use crate::refs::Refs;

/// A ref that differs between two versions, and when it was last touched on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Touched {
    /// The change from the first version to the second.
    pub change: Change,
    /// The version after which the ref was last touched.
    pub after: Version,
    /// The version by which the ref was last touched: the one after `after`, unless both were folded into one.
    pub by: Version,
}

impl Log {
    /// The refs that differ between a version and a later one, in the order of names, each with the version that
    /// touched it last.
    ///
    /// # Errors
    /// A version is not in the log or was folded away, the second is before the first, or old values were dropped.
    pub fn diff(&self, from: Version, to: Version) -> Result<Vec<Touched>, LogError> {
        if from > to {
            return Err(LogError::Future { asked: from, newest: to });
        }
        let (base, end) = (self.point_at(from)?, self.point_at(to)?.version);
        let pieces = || self.pieces().filter(|piece| piece.base() >= from && piece.end().version <= end);
        let net = fold(base, Mode::Exact, &legs(base, pieces()))?;
        let mut last: BTreeMap<&RefName, (Version, Version)> = BTreeMap::new();
        for piece in pieces() {
            let stretch = (piece.base(), piece.end().version);
            last.extend(piece.changes().iter().map(|change| (change.name(), stretch)));
        }
        let touched = net.changes().iter().map(|change| {
            let (after, by) = last.get(change.name()).copied().unwrap_or((from, to));
            Touched { change: change.clone(), after, by }
        });
        Ok(touched.collect())
    }

    /// The value of a ref at a version.
    ///
    /// Within a folded stretch, refs that it did not touch are still known.
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
    /// use tenon_refslog::{Log, LogConfig, Value, Version};
    ///
    /// let mut log = Log::new(LogConfig::builder().build()?, before.snapshot());
    /// log.append(record)?;
    /// assert_eq!(log.get(&main, Version(0))?, None);
    /// assert_eq!(log.get(&main, Version(1))?, Some(Value::from(id)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The version is not in the log, or was folded away for this ref.
    pub fn get(&self, name: &RefName, version: Version) -> Result<Option<Value>, LogError> {
        self.check_known(version)?;
        for (piece, _) in self.pieces.iter().rev().skip_while(|(piece, _)| piece.base() >= version) {
            let Some(change) = piece.change_of(name) else { continue };
            let end = piece.end().version;
            if version < end {
                return Err(LogError::VersionCompacted { asked: version, base: piece.base(), end });
            }
            return Ok(change.new_value().cloned());
        }
        Ok(self.snapshot.get(name)?)
    }

    /// The versions between which a ref was last touched: after the first and up to the second.
    ///
    /// `None` if it was not touched since the snapshot.
    #[must_use]
    pub fn last_touched(&self, name: &RefName) -> Option<(Version, Version)> {
        let piece = self.pieces().filter(|piece| piece.change_of(name).is_some()).last()?;
        Some((piece.base(), piece.end().version))
    }

    pub(super) fn check_boundary(&self, asked: Version) -> Result<(), LogError> {
        match self.pieces().find(|piece| piece.base() < asked && asked < piece.end().version) {
            Some(piece) => Err(LogError::VersionCompacted { asked, base: piece.base(), end: piece.end().version }),
            None => Ok(()),
        }
    }

    /// The checksum of all refs at a version.
    ///
    /// # Errors
    /// The version is not in the log, or was folded away.
    pub fn checksum_at(&self, version: Version) -> Result<Checksum, LogError> {
        Ok(self.point_at(version)?.checksum)
    }

    fn point_at(&self, version: Version) -> Result<Point, LogError> {
        self.check_known(version)?;
        self.check_boundary(version)?;
        let piece = self.pieces().find(|piece| piece.end().version == version);
        Ok(piece.map_or(self.snapshot.point(), Piece::end))
    }

    /// All refs at a version.
    ///
    /// # Errors
    /// The version is not in the log or was folded away, or the log is damaged.
    pub fn restore_at(&self, config: Config, version: Version) -> Result<Refs, LogError> {
        self.check_known(version)?;
        self.check_boundary(version)?;
        let mut refs = Refs::restore(config, &self.snapshot)?;
        for piece in self.pieces().take_while(|piece| piece.end().version <= version) {
            let _ = refs.take_piece(piece)?;
        }
        Ok(refs)
    }
}
