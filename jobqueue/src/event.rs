//! Events: everything that can happen to a job.

use crate::id::{CallId, JobId, LeaseToken, PoolId, Worker};
use crate::job::Outcome;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The decision about a job whose batch opens. Each is recorded in the row with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// Enqueue the job now.
    Enqueue(Reason),
    /// Enqueue the job, but not before this time.
    Delay(Timestamp, Reason),
    /// Hold the job until it is approved or released, or the time has come.
    Await(Timestamp, Reason),
    /// Skip the job in this run.
    Skip(Reason),
    /// Reuse an earlier result in place of the job.
    Reuse(Reason),
}

/// A worker's message about a job that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Act {
    /// Acknowledge: the worker has the job. It starts the job only when this is answered.
    Ack,
    /// Give back: the worker returns the job. No attempt is spent.
    Nack,
    /// Heartbeat: the worker is alive. The lease is extended.
    Heartbeat,
    /// Pause: the worker will be silent until this time. The job's time limit stands still meanwhile.
    Pause(Timestamp),
    /// Resume: the worker goes on before the pause is over.
    Resume,
    /// Snooze: the worker wants the job again at this time. No attempt is spent.
    Snooze(Timestamp),
    /// Suspend: the job waits for a callback with this token, at most until this time. The worker is free.
    Suspend(Timestamp),
    /// Poll: the external result is to be asked for at this time. The worker is free.
    Poll(Timestamp),
    /// Report: the job has ended.
    Report(Outcome),
}

/// The source of a request to stop a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Stopper {
    /// A request for this job.
    User,
    /// The abort of its pipeline.
    Pipeline,
}

/// An event of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// A decision was made about the job.
    Decide(Verdict),
    /// A worker pulled the job.
    Deliver {
        /// The worker that pulled.
        worker: Worker,
        /// The pool that the worker pulls for.
        pool: PoolId,
        /// The id of the pull.
        pull: CallId,
    },
    /// The worker that holds the job sent a message.
    Work {
        /// The worker that sent it.
        worker: Worker,
        /// The token of the delivery.
        token: LeaseToken,
        /// The message.
        act: Act,
    },
    /// The callback that the job waited for came.
    Callback {
        /// The token of the delivery that suspended the job.
        token: LeaseToken,
    },
    /// The job was approved.
    Approve,
    /// A newer job supersedes this one.
    Supersede {
        /// The newer job.
        by: JobId,
    },
    /// The job's deadline passed.
    Expire,
    /// The job is to be stopped.
    Abort(Stopper),
    /// A new attempt was requested.
    Retry,
    /// The worker that holds the job is dead.
    Gone {
        /// The worker that died.
        worker: Worker,
    },
}

/// An event without its data: a column of the published table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum EventKind {
    /// [`Verdict::Enqueue`]
    Enqueue = 0,
    /// [`Verdict::Delay`]
    Delay = 1,
    /// [`Verdict::Await`]
    Await = 2,
    /// [`Verdict::Skip`]
    Skip = 3,
    /// [`Verdict::Reuse`]
    Reuse = 4,
    /// [`Event::Deliver`]
    Deliver = 5,
    /// [`Act::Ack`]
    Ack = 6,
    /// [`Act::Nack`]
    Nack = 7,
    /// [`Act::Heartbeat`]
    Heartbeat = 8,
    /// [`Act::Pause`]
    Pause = 9,
    /// [`Act::Resume`]
    Resume = 10,
    /// [`Act::Snooze`]
    Snooze = 11,
    /// [`Act::Suspend`]
    Suspend = 12,
    /// [`Act::Poll`]
    Poll = 13,
    /// [`Act::Report`]
    Report = 14,
    /// [`Event::Callback`]
    Callback = 15,
    /// [`Event::Approve`]
    Approve = 16,
    /// [`Event::Supersede`]
    Supersede = 17,
    /// [`Event::Expire`]
    Expire = 18,
    /// [`Event::Abort`]
    Abort = 19,
    /// [`Event::Retry`]
    Retry = 20,
    /// [`Event::Gone`]
    Gone = 21,
}

impl EventKind {
    /// Every kind, in the order of the published table.
    pub const ALL: [Self; 22] = [
        Self::Enqueue,
        Self::Delay,
        Self::Await,
        Self::Skip,
        Self::Reuse,
        Self::Deliver,
        Self::Ack,
        Self::Nack,
        Self::Heartbeat,
        Self::Pause,
        Self::Resume,
        Self::Snooze,
        Self::Suspend,
        Self::Poll,
        Self::Report,
        Self::Callback,
        Self::Approve,
        Self::Supersede,
        Self::Expire,
        Self::Abort,
        Self::Retry,
        Self::Gone,
    ];
}

impl Event {
    /// The event without its data.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Decide(Verdict::Enqueue(_)) => EventKind::Enqueue,
            Self::Decide(Verdict::Delay(..)) => EventKind::Delay,
            Self::Decide(Verdict::Await(..)) => EventKind::Await,
            Self::Decide(Verdict::Skip(_)) => EventKind::Skip,
            Self::Decide(Verdict::Reuse(_)) => EventKind::Reuse,
            Self::Deliver { .. } => EventKind::Deliver,
            Self::Work { act, .. } => match act {
                Act::Ack => EventKind::Ack,
                Act::Nack => EventKind::Nack,
                Act::Heartbeat => EventKind::Heartbeat,
                Act::Pause(_) => EventKind::Pause,
                Act::Resume => EventKind::Resume,
                Act::Snooze(_) => EventKind::Snooze,
                Act::Suspend(_) => EventKind::Suspend,
                Act::Poll(_) => EventKind::Poll,
                Act::Report(_) => EventKind::Report,
            },
            Self::Callback { .. } => EventKind::Callback,
            Self::Approve => EventKind::Approve,
            Self::Supersede { .. } => EventKind::Supersede,
            Self::Expire => EventKind::Expire,
            Self::Abort(_) => EventKind::Abort,
            Self::Retry => EventKind::Retry,
            Self::Gone { .. } => EventKind::Gone,
        }
    }
}
