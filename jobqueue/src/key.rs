//! A key's row: which job holds what only one may hold.

use crate::id::{JobKey, Key, Version, WriteId};

/// A key's row, written together with the delivery that takes the key and with the change that gives it back.
///
/// The row is made by the first delivery and stays; that it is there says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KeyRow {
    /// The row's primary key.
    pub key: Key,
    /// How often the row was written.
    pub version: Version,
    /// Who wrote it last.
    pub write: WriteId,
    /// Who holds it.
    pub holder: Option<JobKey>,
}
