//! What a host is asked to do, and what it is told.

use crate::id::{AskId, CallId, JobId, JobKey, Key, LeaseToken, PipelineId, PoolId, Ticket, Version, Worker};
use crate::job::{Entry, Job, State};
use crate::key::KeyRow;
use crate::pipeline::{Pipeline, PipelineState};
use crate::reason::Refused;
use crate::time::Timestamp;

/// A row of one of the three tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Row {
    /// A job's.
    Job(Job),
    /// A pipeline's.
    Pipeline(Pipeline),
    /// A key's.
    Key(KeyRow),
}

/// One row of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Change {
    /// The version that the row must have; without one there must be no such row.
    pub expect: Option<Version>,
    /// What it becomes.
    pub row: Row,
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Want {
    /// The job's latest attempt, its pipeline's row, and its key's if it has one.
    Job(JobId),
    /// The pipeline's row, and the latest attempt of each of its jobs.
    Pipeline(PipelineId),
    /// The key's row.
    Key(Key),
    /// The rows that [`Engine::changes`](crate::Engine::changes) shows for this ticket, as they are.
    Written(Ticket),
}

/// A job for a worker.
#[must_use = "a job that is not handed over comes back only when its acknowledgement is overdue"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Assignment {
    /// What the worker names the job by from now on.
    pub token: LeaseToken,
    /// The job's pipeline.
    pub pipeline: PipelineId,
    /// The worker.
    pub worker: Worker,
    /// The pool it pulled for.
    pub pool: PoolId,
    /// What is asked of the worker.
    pub entry: Entry,
    /// Until when it must acknowledge.
    pub ack_by: Timestamp,
}

/// The answer to a command.
#[must_use = "somebody waits for the answer"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// The pipeline is there.
    Submitted,
    /// It is so, and written.
    Done {
        /// Where the job stands now. A worker that reads `Aborting` stops.
        state: State,
        /// The state's deadline, such as the end of the lease.
        until: Timestamp,
    },
    /// The pipeline is marked as aborted; its jobs follow.
    Aborting,
    /// There are new attempts.
    Retried {
        /// How many.
        jobs: u32,
        /// The first of them.
        first: JobKey,
    },
    /// The pull is over; its jobs were told before this.
    Pulled {
        /// How many.
        jobs: u32,
    },
    /// It was refused, and nothing was changed.
    Refused(Refused),
}

/// What a host must do.
#[must_use = "an effect that nobody acts on is a change that never happens"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Effect {
    /// Write [`Engine::changes`](crate::Engine::changes) of this ticket, all or nothing, then tell `handle_committed`,
    /// `handle_conflicted` or `handle_unknown`.
    Persist {
        /// The write.
        ticket: Ticket,
    },
    /// Read rows afresh, then tell `handle_rows`.
    Fetch {
        /// The read.
        ask: AskId,
        /// What to read.
        want: Want,
    },
    /// Give a job to the worker whose pull this answers.
    Assign {
        /// The pull.
        call: CallId,
        /// The job.
        assignment: Assignment,
    },
    /// Tell a worker to stop a job.
    Abort {
        /// The worker.
        worker: Worker,
        /// The job.
        token: LeaseToken,
    },
    /// Ask for the external result of a job, then report it, or when to ask again.
    Poll {
        /// The job.
        token: LeaseToken,
    },
    /// Judge a job whose batch is about to open, by your own filters or by the user's condition, then tell
    /// `handle_judged`.
    Judge {
        /// The job.
        job: JobKey,
        /// Its pipeline.
        pipeline: PipelineId,
    },
    /// Answer a command.
    Answer {
        /// The command.
        call: CallId,
        /// The answer.
        answer: Answer,
    },
    /// A pipeline has ended.
    Closed {
        /// The pipeline.
        pipeline: PipelineId,
        /// How.
        state: PipelineState,
    },
}
