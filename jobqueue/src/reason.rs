//! Reasons: why a job is in its state, and why a request was refused.

use crate::id::{Component, JobId};
use crate::job::State;
use crate::pipeline::PipelineState;
use crate::time::Timestamp;

/// The reason why a job is in its state, with the numbers that the decision was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// The job was submitted; its batch is not open yet.
    Submitted,
    /// The job's batch, the smallest order not yet begun, was opened.
    Batch {
        /// The order of the batch.
        order: u32,
    },
    /// The job's batch was opened, and the job starts later.
    StartAt {
        /// The time when it starts.
        at: Timestamp,
    },
    /// The job's batch was opened, and the job waits for an approval.
    Approval,
    /// A filter holds the job.
    Held {
        /// The number of the filter.
        filter: u32,
        /// The time when the hold ends.
        until: Timestamp,
    },
    /// The window that held the job was removed.
    Released {
        /// The number of the filter.
        filter: u32,
    },
    /// This many required jobs have failed, and the job is not wanted then.
    NotWanted {
        /// The number of failed jobs.
        failed: u32,
    },
    /// The component is switched off, system-wide.
    Degraded {
        /// The component.
        component: Component,
    },
    /// The user's condition, or a host's filter, excluded the job.
    Condition {
        /// The filter's number.
        filter: u32,
    },
    /// An earlier job with the same component, code and parameters has succeeded.
    Unchanged {
        /// The earlier job.
        result_of: JobId,
    },
    /// A worker pulled the job.
    Pulled,
    /// The worker acknowledged the job.
    Acked,
    /// The time that the job waited for has come.
    DelayOver {
        /// The time that it waited for.
        due: Timestamp,
    },
    /// The worker did not acknowledge the job in time.
    NoAck {
        /// The deadline of the acknowledgement.
        due: Timestamp,
        /// The number of deliveries without acknowledgement so far.
        unacked: u16,
    },
    /// The job was delivered too many times without an acknowledgement.
    NeverAcked {
        /// The number of such deliveries.
        unacked: u16,
    },
    /// The worker's heartbeats stopped, and the lease ended.
    LeaseLost {
        /// The end of the lease.
        due: Timestamp,
        /// The number of leases lost so far.
        crashes: u16,
    },
    /// The job ran longer than its time limit.
    OverTime {
        /// The end of the time limit.
        due: Timestamp,
    },
    /// The worker was told to stop and did not answer in time.
    AbortUnanswered {
        /// The deadline of its answer.
        due: Timestamp,
    },
    /// The worker gave the job back.
    Nacked {
        /// The back-off in milliseconds.
        delay_ms: u64,
        /// The number of nacks so far.
        nacks: u16,
    },
    /// The worker snoozed the job.
    Snoozed,
    /// The job waits for a callback.
    Callback,
    /// The job waits for an external result.
    External,
    /// The callback came.
    Called,
    /// The job was approved.
    Approved,
    /// The worker reported the end.
    Reported,
    /// A request asked to stop the job.
    AbortAsked,
    /// The job's pipeline was aborted.
    PipelineAborted,
    /// The attempt before failed; this one starts after a back-off.
    Retry {
        /// The back-off in milliseconds.
        delay_ms: u64,
    },
    /// A new attempt was requested.
    Revived,
    /// The worker that held the job is dead.
    WorkerGone {
        /// The number of workers lost after they had acknowledged the job, this one included if it had.
        crashes: u16,
    },
    /// No worker took the job in time: its policy's `start_by_ms` has passed.
    NotStarted {
        /// The deadline that passed.
        due: Timestamp,
    },
    /// The job, with all its attempts, had not ended in time: its policy's `finish_by_ms` has passed.
    NotFinished {
        /// The deadline that passed.
        due: Timestamp,
    },
    /// None of the jobs that it waits for failed, but this many of them did not run.
    NeedNotRun {
        /// The number of jobs that did not run.
        skipped: u32,
    },
    /// Another job with the same key superseded this one.
    Superseded {
        /// The other job.
        by: JobId,
    },
}

impl Reason {
    /// The stable number of the reason.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Submitted => 1,
            Self::Batch { .. } => 2,
            Self::StartAt { .. } => 3,
            Self::Approval => 4,
            Self::Held { .. } => 5,
            Self::NotWanted { .. } => 6,
            Self::Degraded { .. } => 7,
            Self::Condition { .. } => 8,
            Self::Unchanged { .. } => 9,
            Self::Pulled => 10,
            Self::Acked => 11,
            Self::DelayOver { .. } => 12,
            Self::NoAck { .. } => 13,
            Self::LeaseLost { .. } => 14,
            Self::OverTime { .. } => 15,
            Self::AbortUnanswered { .. } => 16,
            Self::Nacked { .. } => 17,
            Self::Snoozed => 18,
            Self::Callback => 19,
            Self::External => 20,
            Self::Called => 21,
            Self::Approved => 22,
            Self::Reported => 23,
            Self::AbortAsked => 24,
            Self::PipelineAborted => 25,
            Self::Retry { .. } => 26,
            Self::Revived => 27,
            Self::Superseded { .. } => 28,
            Self::Released { .. } => 29,
            Self::WorkerGone { .. } => 30,
            Self::NotStarted { .. } => 40,
            Self::NotFinished { .. } => 41,
            Self::NeedNotRun { .. } => 31,
            Self::NeverAcked { .. } => 32,
        }
    }
}

/// In words, for people; programs take the variant or its code.
impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Submitted => f.write_str("its batch is not open"),
            Self::Batch { order } => write!(f, "batch {order} is open"),
            Self::StartAt { at } => write!(f, "starts at {} ms", at.as_millis()),
            Self::Approval => f.write_str("waits for an approval"),
            Self::Held { filter, .. } => write!(f, "held by filter {filter}"),
            Self::Released { filter } => write!(f, "released by filter {filter}"),
            Self::NotWanted { failed } => write!(f, "not wanted: {failed} required jobs failed before it"),
            Self::NeedNotRun { skipped } => write!(f, "not wanted: {skipped} jobs that it needs did not run"),
            Self::Degraded { component } => write!(f, "component {component} is off"),
            Self::Condition { filter } => write!(f, "skipped by filter {filter}"),
            Self::Unchanged { result_of } => write!(f, "the result of job {result_of} is reused"),
            Self::Pulled => f.write_str("given to a worker"),
            Self::Acked => f.write_str("acknowledged by its worker"),
            Self::DelayOver { .. } => f.write_str("its wait is over"),
            Self::NoAck { unacked, .. } => write!(f, "not acknowledged in time, {unacked} times so far"),
            Self::NeverAcked { unacked } => write!(f, "given out {unacked} times and never acknowledged"),
            Self::LeaseLost { crashes, .. } => write!(f, "its worker fell silent, {crashes} times so far"),
            Self::OverTime { .. } => f.write_str("its time limit passed"),
            Self::AbortUnanswered { .. } => f.write_str("told to stop; its worker did not answer in time"),
            Self::Nacked { delay_ms, nacks } => {
                write!(f, "given back, {nacks} times so far; back-off of {delay_ms} ms")
            }
            Self::Snoozed => f.write_str("snoozed by its worker"),
            Self::Callback => f.write_str("waits for a callback"),
            Self::External => f.write_str("waits for an external result"),
            Self::Called => f.write_str("its callback came"),
            Self::Approved => f.write_str("approved"),
            Self::Reported => f.write_str("reported by its worker"),
            Self::AbortAsked => f.write_str("stopped on request"),
            Self::PipelineAborted => f.write_str("its pipeline was aborted"),
            Self::Retry { delay_ms } => write!(f, "tried again, {delay_ms} ms after the failure"),
            Self::Revived => f.write_str("tried again on request"),
            Self::WorkerGone { crashes } => write!(f, "its worker is dead; {crashes} workers lost so far"),
            Self::NotStarted { .. } => f.write_str("no worker took it in time"),
            Self::NotFinished { .. } => f.write_str("not finished in time"),
            Self::Superseded { by } => write!(f, "superseded by job {by}"),
        }
    }
}

/// The rule that refused a request. A refusal changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Refused {
    /// The token is no longer valid: the job was delivered again, or taken back, since it was made.
    #[error("the lease is no longer valid")]
    StaleLease,
    /// The job has ended.
    #[error("the job has ended: {0:?}")]
    Terminal(State),
    /// The lease belongs to another worker, or to another life of the same worker.
    #[error("the lease belongs to another worker")]
    NotOwner,
    /// There is no such row.
    #[error("the job or pipeline does not exist")]
    Unknown,
    /// A limit is reached.
    #[error("a limit is reached: {used} of {limit}")]
    Full {
        /// The number in use.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// The pool is drained or unknown.
    #[error("the pool takes no pulls")]
    Disabled,
    /// The event is impossible in this state.
    #[error("the event is not possible in state {0:?}")]
    WrongState(State),
    /// No deadline has passed.
    #[error("no deadline has passed")]
    NotDue,
    /// The old attempt may still run.
    #[error("the job is still open: {0:?}")]
    StillOpen(State),
    /// The row is not at the version that the caller expects. An answer of the row layer only.
    #[error("the row has another version")]
    StaleVersion,
    /// A row with this id exists.
    #[error("the id is taken")]
    Exists,
    /// The request contradicts itself: no jobs, one job twice, or a policy that allows nothing.
    #[error("the request contradicts itself")]
    Invalid,
    /// A job cannot need another: that one does not exist, comes later, or the two need each other in a circle.
    #[error(
        "job {job} cannot need job {need}: that job does not exist, comes later, or they need each other in a circle"
    )]
    Needs {
        /// The job that has the need.
        job: JobId,
        /// The job that it needs.
        need: JobId,
    },
    /// The row changed under the request again and again. The request may be repeated.
    #[error("too many conflicts: the row changed in each attempt")]
    Contended,
    /// The pipeline has ended.
    #[error("the pipeline has ended: {0:?}")]
    Closed(PipelineState),
    /// No job of the pipeline can be tried again.
    #[error("no job of the pipeline can be retried")]
    Nothing,
}

impl Refused {
    /// The stable number of the rule.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::StaleLease => 101,
            Self::Terminal(_) => 102,
            Self::NotOwner => 103,
            Self::Unknown => 104,
            Self::Full { .. } => 105,
            Self::Disabled => 106,
            Self::WrongState(_) => 107,
            Self::NotDue => 108,
            Self::StillOpen(_) => 109,
            Self::StaleVersion => 110,
            Self::Exists => 111,
            Self::Invalid => 112,
            Self::Contended => 113,
            Self::Closed(_) => 114,
            Self::Nothing => 115,
            Self::Needs { .. } => 116,
        }
    }
}
