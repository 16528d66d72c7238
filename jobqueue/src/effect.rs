//! What a host is asked to do, and what it is told.

use crate::id::{
    AskId, CallId, Incarnation, JobId, JobKey, Key, LeaseToken, PipelineId, PoolId, Ticket, Version, Worker, WriteId,
};
use crate::job::{Entry, Job, State};
use crate::key::KeyRow;
use crate::pipeline::{Pipeline, PipelineState};
use crate::plan::Plan;
use crate::pool_row::{LifeRow, PoolRow};
use crate::reason::Refused;
use crate::time::Timestamp;

/// A row of one of the queue's tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Row {
    /// One attempt of a job.
    Job(Job),
    /// A pipeline.
    Pipeline(Pipeline),
    /// A key that jobs share.
    Key(KeyRow),
    /// What the jobs of a pipeline wait for; written once.
    Plan(Plan),
    /// A pool's limit, and how much of it each engine may use.
    Pool(PoolRow),
    /// One life of an engine.
    Life(LifeRow),
}

/// A row's primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RowKey {
    /// One attempt of a job.
    Job(JobKey),
    /// A pipeline.
    Pipeline(PipelineId),
    /// A key that jobs share.
    Key(Key),
    /// The plan of a pipeline.
    Plan(PipelineId),
    /// A pool.
    Pool(PoolId),
    /// One life of an engine.
    Life(Incarnation),
}

impl Row {
    /// The row's primary key.
    #[must_use]
    pub const fn key(&self) -> RowKey {
        match self {
            Self::Job(row) => RowKey::Job(row.key),
            Self::Pipeline(row) => RowKey::Pipeline(row.id),
            Self::Key(row) => RowKey::Key(row.key),
            Self::Plan(row) => RowKey::Plan(row.pipeline),
            Self::Pool(row) => RowKey::Pool(row.pool),
            Self::Life(row) => RowKey::Life(row.life),
        }
    }

    /// How often the row was written.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self {
            Self::Job(row) => row.version,
            Self::Pipeline(row) => row.version,
            Self::Key(row) => row.version,
            Self::Plan(row) => row.version,
            Self::Pool(row) => row.version,
            Self::Life(row) => row.version,
        }
    }

    /// Who wrote the row last.
    #[must_use]
    pub const fn write(&self) -> WriteId {
        match self {
            Self::Job(row) => row.write,
            Self::Pipeline(row) => row.write,
            Self::Key(row) => row.write,
            Self::Plan(row) => row.write,
            Self::Pool(row) => row.write,
            Self::Life(row) => row.write,
        }
    }

    /// The row as it is told: a pool's says what the database's clock said when it was read.
    #[must_use]
    pub fn read_at(mut self, clock: Timestamp) -> Self {
        if let Self::Pool(row) = &mut self {
            row.clock = clock;
        }
        self
    }

    /// The job, if it is one.
    #[must_use]
    pub const fn as_job(&self) -> Option<&Job> {
        if let Self::Job(row) = self { Some(row) } else { None }
    }

    /// The pipeline, if it is one.
    #[must_use]
    pub const fn as_pipeline(&self) -> Option<&Pipeline> {
        if let Self::Pipeline(row) = self { Some(row) } else { None }
    }

    /// The key, if it is one.
    #[must_use]
    pub const fn as_key(&self) -> Option<&KeyRow> {
        if let Self::Key(row) = self { Some(row) } else { None }
    }

    /// The pool's limits, if it is them.
    #[must_use]
    pub const fn as_pool(&self) -> Option<&PoolRow> {
        if let Self::Pool(row) = self { Some(row) } else { None }
    }

    /// The engine's life, if it is one.
    #[must_use]
    pub const fn as_life(&self) -> Option<&LifeRow> {
        if let Self::Life(row) = self { Some(row) } else { None }
    }

    /// Whether the row is a job that has not ended, or a pipeline that is open. Databases index these.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        match self {
            Self::Job(row) => !row.state.is_terminal(),
            Self::Pipeline(row) => matches!(row.state(), PipelineState::Open),
            Self::Key(_) | Self::Plan(_) | Self::Pool(_) | Self::Life(_) => false,
        }
    }
}

/// One row of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Change {
    /// The version that the row must have; without one there must be no such row.
    pub expect: Option<Version>,
    /// What it becomes. A row whose version is the expected one is a guard: it must be so, and stays as it is.
    pub row: Row,
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Want {
    /// The job's latest attempt, its pipeline's row and plan, and its key's row if it has one.
    Job(JobId),
    /// The pipeline's row and plan, and the latest attempt of each of its jobs.
    Pipeline(PipelineId),
    /// The key's row; then, read after it, the latest attempt of each job that it names ([`KeyRow::names`]), and every
    /// job that holds it ([`Job::held_key`]). A job is told once.
    Key(Key),
    /// The rows that [`Engine::changes`](crate::Engine::changes) shows for this ticket, as they are.
    Written(Ticket),
    /// A page: of the open pipelines whose id is `from` or larger, the first `limit` by id, with their plans and
    /// with all their jobs that have not ended.
    Open {
        /// The smallest id.
        from: PipelineId,
        /// How many pipelines.
        limit: u32,
    },
    /// At most `limit` open pipelines whose row says [`Pipeline::owes`], with their plans and with all their jobs that
    /// have not ended.
    Owing {
        /// How many pipelines.
        limit: u32,
    },
    /// The pool's row, and the row of each life that has a share in it.
    Pool(PoolId),
    /// The row of this life; then, read after it, every job that is charged to it in this pool ([`Job::charged`]).
    Charged {
        /// The pool.
        pool: PoolId,
        /// The life.
        life: Incarnation,
    },
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
