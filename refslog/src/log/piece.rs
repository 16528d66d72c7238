//! Pieces: the records and segments that a log is made of.

use alloc::vec::Vec;

use crate::change::Change;
use crate::compact::{Leg, Segment};
use crate::id::{Point, Version};
use crate::name::RefName;
use crate::record::Record;
use crate::refs::Refs;
use crate::replay::ReplayError;

/// A piece: a stretch of the log as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A record, as appended.
    Record(Record),
    /// A segment of folded records, always in [`Mode::Cover`](crate::Mode).
    Segment(Segment),
}

impl Piece {
    pub(super) fn base(&self) -> Version {
        match self {
            Self::Record(record) => record.base_version(),
            Self::Segment(segment) => segment.base().version,
        }
    }

    pub(super) fn end(&self) -> Point {
        match self {
            Self::Record(record) => record.after(),
            Self::Segment(segment) => segment.end(),
        }
    }

    /// The changes, in the order of names.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        match self {
            Self::Record(record) => record.changes(),
            Self::Segment(segment) => segment.changes(),
        }
    }

    pub(super) fn change_of(&self, name: &RefName) -> Option<&Change> {
        let changes = self.changes();
        let at = changes.binary_search_by(|change| change.name().cmp(name)).ok()?;
        changes.get(at)
    }
}

impl Refs {
    /// Replays a piece of a log.
    ///
    /// # Errors
    /// As [`Refs::apply`] and [`Refs::replay`]; nothing is changed.
    pub fn take_piece(&mut self, piece: &Piece) -> Result<crate::Replayed, ReplayError> {
        match piece {
            Piece::Record(record) => self.apply(record),
            Piece::Segment(segment) => self.replay(segment),
        }
    }
}

/// Adjacent pieces, the first of which starts at `base`, as stretches to fold.
pub(super) fn legs<'a>(base: Point, pieces: impl Iterator<Item = &'a Piece>) -> Vec<Leg<'a>> {
    let mut at = base;
    let legs = pieces.map(|piece| {
        let leg = match piece {
            Piece::Record(record) => Leg::of_record(at, record),
            Piece::Segment(segment) => Leg::from(segment),
        };
        at = piece.end();
        leg
    });
    legs.collect()
}
