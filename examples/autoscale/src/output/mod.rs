//! What a rehearsal came to, for people and for programs.

mod json;
mod page;
mod picture;
mod table;

pub(crate) use json::{document, instant};
pub(crate) use page::page;
pub(crate) use table::{percent, table};
