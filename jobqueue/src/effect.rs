//! Effects: what a host is asked to do, and the rows and answers that it is told.

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
    /// The plan of a pipeline: which jobs its jobs wait for. Written once.
    Plan(Plan),
    /// The limit of a pool, and the share of each engine in it.
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

    /// The version: how often the row was written.
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

    /// The write id of the row's last write.
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

    /// The row as a store tells it: a pool's row carries the time of the database's clock at the read.
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

    /// The pool's row, if it is one.
    #[must_use]
    pub const fn as_pool(&self) -> Option<&PoolRow> {
        if let Self::Pool(row) = self { Some(row) } else { None }
    }

    /// The engine's life, if it is one.
    #[must_use]
    pub const fn as_life(&self) -> Option<&LifeRow> {
        if let Self::Life(row) = self { Some(row) } else { None }
    }

    /// Whether the row is an unfinished job or an open pipeline. Databases index these.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        match self {
            Self::Job(row) => !row.state.is_terminal(),
            Self::Pipeline(row) => matches!(row.state(), PipelineState::Open),
            Self::Key(_) | Self::Plan(_) | Self::Pool(_) | Self::Life(_) => false,
        }
    }
}

/// A change of one row in a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Change {
    /// The version that the row must have; `None` if there must be no such row.
    pub expect: Option<Version>,
    /// The new row.
    ///
    /// A row whose version is the expected one is a guard: it must have that version, and stays as it is.
    pub row: Row,
}

/// The rows that a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Want {
    /// A job's latest attempt, its pipeline's row and plan, and its key's row if it has one.
    Job(JobId),
    /// A pipeline's row and plan, and the latest attempt of each of its jobs.
    Pipeline(PipelineId),
    /// A key's row, and then the latest attempt of each job that it names or that holds it.
    ///
    /// The jobs are read after the row: those that it names ([`KeyRow::names`]) and those that hold it
    /// ([`Job::held_key`]). A job is told once.
    Key(Key),
    /// The present rows that the write of this ticket changes ([`Engine::changes`](crate::Engine::changes)).
    Written(Ticket),
    /// A page of open pipelines: the first `limit` by id whose id is `from` or larger, with their plans and unfinished
    /// jobs.
    Open {
        /// The smallest id of the page.
        from: PipelineId,
        /// Maximum number of pipelines.
        limit: u32,
    },
    /// At most `limit` open pipelines whose row says [`Pipeline::owes`], with their plans and unfinished jobs.
    Owing {
        /// Maximum number of pipelines.
        limit: u32,
    },
    /// A pool's row, and the row of each life that has a share in it.
    Pool(PoolId),
    /// The row of a life, and then every job that is charged to it in a pool ([`Job::charged`]).
    ///
    /// The jobs are read after the row.
    Charged {
        /// The id of the pool.
        pool: PoolId,
        /// The id of the life.
        life: Incarnation,
    },
}

/// A job assigned to a worker.
#[must_use = "a job that is not handed over comes back only when its acknowledgement is overdue"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Assignment {
    /// The token that the worker names the job by from now on.
    pub token: LeaseToken,
    /// The job's pipeline.
    pub pipeline: PipelineId,
    /// The worker.
    pub worker: Worker,
    /// The pool that the worker pulled for.
    pub pool: PoolId,
    /// The entry that the worker starts the job at.
    pub entry: Entry,
    /// The time by which the worker must acknowledge.
    pub ack_by: Timestamp,
}

/// The answer to a command.
#[must_use = "somebody waits for the answer"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// The pipeline is written.
    Submitted,
    /// The event is written.
    Done {
        /// The state of the job now. A worker that reads `Aborting` stops.
        state: State,
        /// The state's deadline, such as the end of the lease.
        until: Timestamp,
    },
    /// The pipeline is marked as aborted; its jobs follow.
    Aborting,
    /// New attempts are written.
    Retried {
        /// The number of new attempts.
        jobs: u32,
        /// The first new attempt.
        first: JobKey,
    },
    /// The pull is over; its jobs were assigned before this.
    Pulled {
        /// The number of jobs assigned.
        jobs: u32,
    },
    /// The command was refused, and nothing was changed.
    Refused(Refused),
}

/// An effect: an order to the host.
#[must_use = "an effect that nobody acts on is a change that never happens"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Effect {
    /// Persist [`Engine::changes`](crate::Engine::changes) of this ticket, all or nothing.
    ///
    /// Then tell `handle_committed`, `handle_conflicted` or `handle_unknown`.
    Persist {
        /// The ticket of the write.
        ticket: Ticket,
    },
    /// Read rows afresh, then tell `handle_rows`.
    Fetch {
        /// The id of the read.
        ask: AskId,
        /// The rows to read.
        want: Want,
    },
    /// Give a job to the worker whose pull this answers.
    Assign {
        /// The id of the pull.
        call: CallId,
        /// The assigned job.
        assignment: Assignment,
    },
    /// Tell a worker to stop a job.
    Abort {
        /// The worker that holds the job.
        worker: Worker,
        /// The token of the delivery.
        token: LeaseToken,
    },
    /// Ask for the external result of a job, then report it, or when to ask again.
    Poll {
        /// The token of the delivery.
        token: LeaseToken,
    },
    /// Judge a job whose batch is about to open, then tell `handle_judged`.
    ///
    /// Apply your own filters, or the user's condition.
    Judge {
        /// The job to judge.
        job: JobKey,
        /// The job's pipeline.
        pipeline: PipelineId,
    },
    /// Answer a command.
    Answer {
        /// The id of the command.
        call: CallId,
        /// The answer to it.
        answer: Answer,
    },
    /// Note that a pipeline has ended.
    Closed {
        /// The pipeline that ended.
        pipeline: PipelineId,
        /// The state that it ended in.
        state: PipelineState,
    },
}
