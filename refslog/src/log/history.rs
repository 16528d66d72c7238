//! What was at an earlier version of a log.

use super::{Log, LogError, Piece};
use crate::change::Value;
use crate::config::Config;
use crate::digest::Checksum;
use crate::id::Version;
use crate::name::RefName;
use crate::refs::Refs;

impl Log {
    /// What a ref held at a version. Within a folded stretch, refs that it did not touch are still known.
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

    /// The versions between which a ref was last touched: after the first and up to the second; `None` if not since the
    /// snapshot.
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
        self.check_known(version)?;
        self.check_boundary(version)?;
        let piece = self.pieces().find(|piece| piece.end().version == version);
        Ok(piece.map_or(self.snapshot.point(), Piece::end).checksum)
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
