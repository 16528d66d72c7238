//! The store's own state: with every answer, the life that it is in.

use crate::id::{Generation, RouterId};
use crate::row::Row;

/// The store's own state, read in the same transaction as each answer.
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

    /// Sets the note that stands beside the repository's row.
    #[must_use]
    pub const fn note(self, note: Option<RouterId>) -> Self {
        Self { note, ..self }
    }
}

/// The result of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SwapResult {
    /// Success: the row is `next` now.
    Moved,
    /// Conflict: the row was not `expect`. Nothing was changed; this is the row as it is (`None`: absent).
    Conflict(Option<Row>),
    /// Another store: the store is in another life than the swap is for. Nothing was changed.
    OtherStore,
    /// Unknown: no answer came, or an unclear one. The swap may have happened, may still happen, or not.
    Unknown,
}
