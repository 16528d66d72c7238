//! What the jobs of a pipeline wait for: the needs that they name, or all jobs of earlier orders.

use alloc::vec::Vec;

use crate::id::{JobId, PipelineId, Version, WriteId};
use crate::job::When;

/// What the jobs of a pipeline wait for: a row that is written once, with the pipeline, and never changes.
///
/// Only a pipeline in which some job waits for another has one. A job's place in it is its place in
/// [`Pipeline::outcomes`](crate::Pipeline::outcomes).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Plan {
    /// The row's primary key.
    pub pipeline: PipelineId,
    /// How often the row was written.
    pub version: Version,
    /// Who wrote it.
    pub write: WriteId,
    /// The jobs, by order; equals as they were submitted.
    pub jobs: Vec<PlannedJob>,
}

/// One job of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PlannedJob {
    /// The job.
    pub job: JobId,
    /// Its order.
    pub order: u32,
    /// When it is wanted.
    pub when: When,
    /// The places of the jobs that it needs, ascending; without a list it waits for all jobs of smaller orders.
    pub needs: Option<Vec<u16>>,
}
