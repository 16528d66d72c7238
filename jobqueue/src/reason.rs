//! Why a row stands where it stands, and why a request was refused.

use crate::id::{Component, JobId};
use crate::job::State;
use crate::pipeline::PipelineState;
use crate::time::Timestamp;

/// Why a job stands where it stands. The numbers are those that the decision was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// It was submitted.
    Submitted,
    /// Its batch, the smallest order not yet begun, was opened.
    Batch {
        /// The batch's order.
        order: u32,
    },
    /// Its batch was opened and it starts later.
    StartAt {
        /// When.
        at: Timestamp,
    },
    /// Its batch was opened and it waits for an approval.
    Approval,
    /// A filter holds it.
    Held {
        /// The filter's number.
        filter: u32,
        /// Until when.
        until: Timestamp,
    },
    /// The window that held it was taken back.
    Released {
        /// The filter's number.
        filter: u32,
    },
    /// This many required jobs have failed, and it is not wanted then.
    NotWanted {
        /// How many.
        failed: u32,
    },
    /// The component is switched off, system-wide.
    Degraded {
        /// The component.
        component: Component,
    },
    /// The user's condition said no.
    Condition {
        /// The filter's number.
        filter: u32,
    },
    /// An earlier job with the same component, code and parameters has succeeded.
    Unchanged {
        /// That job.
        result_of: JobId,
    },
    /// A worker pulled it.
    Pulled,
    /// The worker acknowledged it.
    Acked,
    /// A deadline that it waited for has come.
    DelayOver {
        /// The deadline.
        due: Timestamp,
    },
    /// The worker did not acknowledge it in time.
    NoAck {
        /// The deadline.
        due: Timestamp,
        /// How often that has happened.
        unacked: u16,
    },
    /// It was given out so many times, and no worker ever acknowledged it.
    NeverAcked {
        /// How many times.
        unacked: u16,
    },
    /// The worker fell silent.
    LeaseLost {
        /// The deadline.
        due: Timestamp,
        /// How often that has happened.
        crashes: u16,
    },
    /// It took too long.
    OverTime {
        /// The deadline.
        due: Timestamp,
    },
    /// The worker was told to stop and did not answer in time.
    AbortUnanswered {
        /// The deadline.
        due: Timestamp,
    },
    /// The worker gave it back.
    Nacked {
        /// The back-off in milliseconds.
        delay_ms: u64,
        /// How often that has happened.
        nacks: u16,
    },
    /// The worker asked to go on later.
    Snoozed,
    /// The worker waits for a callback.
    Callback,
    /// The worker waits for an external result.
    External,
    /// The callback came.
    Called,
    /// It was approved.
    Approved,
    /// The worker reported the end.
    Reported,
    /// Somebody asked for it to stop.
    AbortAsked,
    /// Its pipeline was aborted.
    PipelineAborted,
    /// The attempt before failed; this one starts after a back-off.
    Retry {
        /// The back-off in milliseconds.
        delay_ms: u64,
    },
    /// Somebody asked for a new attempt.
    Revived,
    /// The worker that held it is dead.
    WorkerGone {
        /// How often a worker was lost after it had acknowledged the job, this time included if it had.
        crashes: u16,
    },
    /// No worker took it in time: its policy's `start_by_ms` has passed.
    NotStarted {
        /// The deadline.
        due: Timestamp,
    },
    /// It had not ended in time, with all its attempts: its policy's `finish_by_ms` has passed.
    NotFinished {
        /// The deadline.
        due: Timestamp,
    },
    /// None of the jobs that it waits for failed, but this many of them did not run.
    NeedNotRun {
        /// How many.
        skipped: u32,
    },
    /// Other work with the same key stands for it.
    Superseded {
        /// That job.
        by: JobId,
    },
}

impl Reason {
    /// The reason's stable number.
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
            Self::Released { filter } => write!(f, "let go by filter {filter}"),
            Self::NotWanted { failed } => write!(f, "not wanted, with {failed} failed before it"),
            Self::NeedNotRun { skipped } => write!(f, "not wanted, as {skipped} that it needs did not run"),
            Self::Degraded { component } => write!(f, "component {component} is off"),
            Self::Condition { filter } => write!(f, "filter {filter} said no"),
            Self::Unchanged { result_of } => write!(f, "the result of job {result_of} stands for it"),
            Self::Pulled => f.write_str("given to a worker"),
            Self::Acked => f.write_str("a worker has begun it"),
            Self::DelayOver { .. } => f.write_str("its wait is over"),
            Self::NoAck { unacked, .. } => write!(f, "not acknowledged in time, {unacked} times so far"),
            Self::NeverAcked { unacked } => write!(f, "given out {unacked} times and never acknowledged"),
            Self::LeaseLost { crashes, .. } => write!(f, "its worker fell silent, {crashes} times so far"),
            Self::OverTime { .. } => f.write_str("it took too long"),
            Self::AbortUnanswered { .. } => f.write_str("stopped; its worker did not answer"),
            Self::Nacked { delay_ms, nacks } => {
                write!(f, "given back, {nacks} times so far; back-off of {delay_ms} ms")
            }
            Self::Snoozed => f.write_str("its worker goes on later"),
            Self::Callback => f.write_str("waits for a callback"),
            Self::External => f.write_str("waits for an external result"),
            Self::Called => f.write_str("the callback came"),
            Self::Approved => f.write_str("approved"),
            Self::Reported => f.write_str("reported by its worker"),
            Self::AbortAsked => f.write_str("somebody stopped it"),
            Self::PipelineAborted => f.write_str("its pipeline was stopped"),
            Self::Retry { delay_ms } => write!(f, "tried again, {delay_ms} ms after the failure"),
            Self::Revived => f.write_str("tried again on request"),
            Self::WorkerGone { crashes } => write!(f, "its worker is dead; {crashes} were lost with it so far"),
            Self::NotStarted { .. } => f.write_str("no worker took it in time"),
            Self::NotFinished { .. } => f.write_str("it had not ended in time"),
            Self::Superseded { by } => write!(f, "job {by} took its place"),
        }
    }
}

/// Which rule refused a request. A refusal changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Refused {
    /// The job was delivered again, or taken back, since this token was made.
    #[error("the lease is no longer valid")]
    StaleLease,
    /// The job has ended.
    #[error("the job has ended: {0:?}")]
    Terminal(State),
    /// The lease is another worker's, or another life's of the same worker.
    #[error("the lease belongs to another worker")]
    NotOwner,
    /// There is no such row.
    #[error("no such job or pipeline")]
    Unknown,
    /// A limit is reached: {used} of {limit}.
    #[error("full: {used} of {limit}")]
    Full {
        /// How much there is.
        used: u64,
        /// How much there may be.
        limit: u64,
    },
    /// The pool is drained or unknown.
    #[error("the pool takes no pulls")]
    Disabled,
    /// The event means nothing in this state.
    #[error("not possible in state {0:?}")]
    WrongState(State),
    /// No deadline has passed.
    #[error("no deadline has passed")]
    NotDue,
    /// The old attempt may still run.
    #[error("the job is still open: {0:?}")]
    StillOpen(State),
    /// The row is not at the version that the caller expects; an answer of the row layer only.
    #[error("the row has another version")]
    StaleVersion,
    /// A row with this id is there already.
    #[error("the id is taken")]
    Exists,
    /// The request contradicts itself: no jobs, one job twice, or a policy that allows nothing.
    #[error("the request cannot be meant")]
    Invalid,
    /// A job cannot need another: that one is not there, comes later, or the two need each other in a circle.
    #[error("job {job} cannot need job {need}: it is not there, comes later, or they need each other in a circle")]
    Needs {
        /// The job.
        job: JobId,
        /// What it needs.
        need: JobId,
    },
    /// The row changed under the request again and again; it may be asked again.
    #[error("too many conflicts")]
    Contended,
    /// The pipeline has ended.
    #[error("the pipeline has ended: {0:?}")]
    Closed(PipelineState),
    /// No job of the pipeline can be tried again.
    #[error("nothing to do")]
    Nothing,
}

impl Refused {
    /// The rule's stable number.
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
