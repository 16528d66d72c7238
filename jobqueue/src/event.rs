//! What can happen to a job.

use crate::id::{CallId, JobId, LeaseToken, PoolId, Worker};
use crate::job::Outcome;
use crate::reason::Reason;
use crate::time::Timestamp;

/// What a decision says about a job whose batch opens. Each is recorded in the row with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// To the queue.
    Enqueue(Reason),
    /// To the queue, but not before this time.
    Delay(Timestamp, Reason),
    /// Until somebody approves it or releases it, or the time has come.
    Await(Timestamp, Reason),
    /// Not in this run.
    Skip(Reason),
    /// An earlier result stands for it.
    Reuse(Reason),
}

/// What a worker says about a job that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Act {
    /// It has the job; it starts only when this is answered.
    Ack,
    /// It gives the job back; no attempt is spent.
    Nack,
    /// It is alive; the lease is extended.
    Heartbeat,
    /// It will be silent until this time; its time limit stands still meanwhile.
    Pause(Timestamp),
    /// It goes on before the pause is over.
    Resume,
    /// It wants the job again at this time; no attempt is spent.
    Snooze(Timestamp),
    /// The job waits for a callback with this token, at most until this time; the worker is free.
    Suspend(Timestamp),
    /// The result is to be asked for at this time; the worker is free.
    Poll(Timestamp),
    /// The job has ended.
    Report(Outcome),
}

/// Who wants a job stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Stopper {
    /// Somebody asked for this job.
    User,
    /// Its pipeline is being aborted.
    Pipeline,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// A decision was made about it.
    Decide(Verdict),
    /// A worker pulled it.
    Deliver {
        /// The worker.
        worker: Worker,
        /// The pool it pulls for.
        pool: PoolId,
        /// The pull.
        pull: CallId,
    },
    /// The worker that holds it said something.
    Work {
        /// The worker.
        worker: Worker,
        /// The delivery's token.
        token: LeaseToken,
        /// What it said.
        act: Act,
    },
    /// The callback that it waited for came.
    Callback {
        /// The token of the delivery that suspended it.
        token: LeaseToken,
    },
    /// Somebody approved it.
    Approve,
    /// Newer work takes its place.
    Supersede {
        /// That job.
        by: JobId,
    },
    /// Its deadline passed.
    Expire,
    /// It shall stop.
    Abort(Stopper),
    /// Somebody wants a new attempt.
    Retry,
    /// The worker that holds it is dead.
    Gone {
        /// The worker.
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
