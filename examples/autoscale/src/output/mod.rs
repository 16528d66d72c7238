//! What a rehearsal came to, for people and for programs.

use crate::rehearse::{Outcome, PoolUse};

mod json;
mod page;
mod picture;
mod table;

pub(crate) use json::{document, instant};
pub(crate) use page::page;
pub(crate) use table::{percent, table};

/// All that a run has rehearsed.
pub(crate) struct Rehearsed {
    pub(crate) outcomes: Vec<Outcome>,
    /// What shared pools lent.
    pub(crate) pools: Vec<PoolUse>,
    /// The price of a pod for an hour.
    pub(crate) price: Option<f64>,
}
