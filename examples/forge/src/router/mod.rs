//! The router: the one process that clients talk to, and the only one that reads and writes the store.

mod name;
mod spool;
mod store;
