//! Every figure the crates promise, measured beside its peers in the same run.
//!
//! A figure is a [`Row`]: what was measured, the peer that ran beside it, the ratio of the two, the bound, and whether it
//! holds. `cargo run --release -p benches --bin figures` prints them all. The machines that run this are shared and
//! noisy, so a figure is a median, a comparison interleaves the two sides, and what must not regress is guarded by
//! counts (instructions, allocations, bytes), never by a clock.

// For a file of a `no_std` crate that is measured by itself.
extern crate alloc;

pub mod jobqueue;
mod measure;
mod quorum;
pub mod refslog;
mod row;
mod scaler;

pub use measure::{Pair, Scale, allocations, bytes_held, bytes_peak, interleave, median_ns};
pub use row::{Bound, Row, short};

/// One crate's figures.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// The crate's short name, as on the command line.
    pub name: &'static str,
    /// Measures every figure of the crate.
    pub rows: fn(Scale) -> Vec<Row>,
}

/// Every suite, in the order in which the README names the crates.
pub const SUITES: &[Suite] = &[
    Suite { name: "quorum", rows: quorum::rows },
    Suite { name: "refslog", rows: refslog::rows },
    Suite { name: "jobqueue", rows: jobqueue::rows },
    Suite { name: "scaler", rows: scaler::rows },
];
