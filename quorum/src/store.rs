//! What the store says: with every answer, in which life it is.

use crate::id::{Generation, RouterId};
use crate::row::Row;

/// What the store says of itself with every answer, read in the same transaction.
///
/// A router believes only answers of the life that it was configured for ([`crate::ConfigBuilder::generation`]): a store
/// that came back from a backup has forgotten what an older router relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StoreMeta {
    /// The life of the store. It is kept *in* the store, and set when a backup is put in the store's place.
    pub generation: Generation,
    /// The router that waits for the repository, if one left a note ([`crate::Effect::LeaveNote`]).
    pub note: Option<RouterId>,
}

impl StoreMeta {
    /// A store in that life, without a note.
    #[must_use]
    pub const fn new(generation: Generation) -> Self {
        Self { generation, note: None }
    }

    /// The same with the note that stands beside the repository's row.
    #[must_use]
    pub const fn note(self, note: Option<RouterId>) -> Self {
        Self { note, ..self }
    }
}

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SwapResult {
    /// The row is `next` now.
    Moved,
    /// The row was not `expect`, and nothing was changed; this is what it is (`None`: absent).
    Conflict(Option<Row>),
    /// The store is in another life than the swap is for, and nothing was changed.
    OtherStore,
    /// No answer came, or one that does not say: the swap may have happened, may still happen, or not.
    Unknown,
}
