//! A job's row: plain data with a version, which any host can keep in any database.

use crate::id::{
    Attempt, CallId, Component, Incarnation, JobId, JobKey, Key, LeaseToken, PipelineId, PoolId, Tag, Version, Worker,
    WriteId,
};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The state of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum State {
    /// Created; no decision has been made about it.
    #[default]
    Unstart = 0,
    /// Decided; waits in its tag's queue.
    Pending = 1,
    /// Given to a worker that has not acknowledged it.
    Scheduled = 2,
    /// Run by a worker.
    Running = 3,
    /// Waits for a callback or an approval, or is held; holds no resource.
    Suspended = 4,
    /// Waits for a time: back-off, snooze or a scheduled start.
    Delayed = 5,
    /// Waits for an external result that is polled; holds no resource.
    Polling = 6,
    /// Told to stop; the worker has not confirmed yet.
    Aborting = 7,
    /// Ended with success.
    Succeeded = 8,
    /// Ended with a failure.
    Failed = 9,
    /// Stopped on request.
    Aborted = 10,
    /// Ran, or waited for an answer, for too long.
    TimedOut = 11,
    /// Skipped: not wanted in this run.
    Skipped = 12,
    /// Not run: an earlier result is reused.
    Reused = 13,
    /// Not run: a newer job took its place.
    Superseded = 14,
    /// Given up: it may crash its workers, or no worker acknowledges it.
    Dead = 15,
}

impl State {
    /// Every state, in the order of the published table.
    pub const ALL: [Self; 16] = [
        Self::Unstart,
        Self::Pending,
        Self::Scheduled,
        Self::Running,
        Self::Suspended,
        Self::Delayed,
        Self::Polling,
        Self::Aborting,
        Self::Succeeded,
        Self::Failed,
        Self::Aborted,
        Self::TimedOut,
        Self::Skipped,
        Self::Reused,
        Self::Superseded,
        Self::Dead,
    ];

    /// Whether the state is final.
    ///
    /// ```
    /// use tenon_jobqueue::State;
    ///
    /// assert!(State::Succeeded.is_terminal());
    /// assert!(!State::Suspended.is_terminal());
    /// ```
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self as u8 >= Self::Succeeded as u8
    }

    /// Whether a worker may be running the job.
    #[must_use]
    pub const fn is_leased(self) -> bool {
        matches!(self, Self::Scheduled | Self::Running | Self::Aborting)
    }

    /// The stable number of the state, as databases keep it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The state with this number.
    ///
    /// ```
    /// use tenon_jobqueue::State;
    ///
    /// assert_eq!(State::from_code(State::Running.code()), Some(State::Running));
    /// assert_eq!(State::from_code(99), None);
    /// ```
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The effect of a job's failure on its pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnFailure {
    /// The pipeline fails with the job.
    #[default]
    Fails,
    /// The pipeline goes on as if the job had succeeded. If the job is manual, the pipeline does not wait for it.
    Allowed,
}

/// The condition on earlier results under which a job is wanted: the failures so far of required jobs in its pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum When {
    /// Only if no required job has failed.
    #[default]
    OnSuccess,
    /// Only if a required job has failed.
    OnFailure,
    /// In any case.
    Always,
}

/// The start condition of a job once its batch is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Start {
    /// Automatic: the job starts at once.
    #[default]
    Auto,
    /// Manual: the job waits for an approval.
    Manual,
    /// Delayed: the job starts after this many milliseconds.
    After(u32),
}

/// The inputs of a job, as a number: a hash of its component, code revision and parameters, made by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct ResultKey(pub u64);

/// The policy for a waiting job when a newer one with its key waits too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnNewer {
    /// The job keeps its turn.
    #[default]
    Waits,
    /// The job is superseded by a newer one that gives way, too: only the newest is worth running.
    GivesWay,
    /// The job stays, and supersedes newer ones, unless they simply wait.
    ///
    /// From its opening to its end its key is unique, on any number of engines.
    KeepsOut,
}

/// Whether the host is asked before a job runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Condition {
    /// The host is not asked.
    #[default]
    None,
    /// The host is asked when the job's batch is about to open: its own filters, or the user's condition.
    Ask,
}

/// The policy for a job that no worker took in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Late {
    /// The job fails, without a further attempt.
    #[default]
    Fails,
    /// The job is skipped, and its pipeline goes on as if a filter had skipped it.
    IsSkipped,
}

/// The time limits and the numbers of tries of a job. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// Time from delivery to acknowledgement, in ms.
    pub ack_ms: u32,
    /// Time from one heartbeat to the loss of the lease, in ms.
    pub lease_ms: u32,
    /// Time from acknowledgement to result, external result included, in ms; 0 is no limit.
    pub timeout_ms: u32,
    /// Time from the order to stop to its confirmation, in ms.
    pub abort_ms: u32,
    /// Base back-off after a failed attempt or a nack, in ms. Each further one doubles it. 0 is none.
    pub backoff_ms: u32,
    /// Maximum of the doubled back-off, in ms. Each back-off is longer by a random part of up to a half.
    pub backoff_cap_ms: u32,
    /// Maximum number of attempts that fail or run over their time, 1 or more. Lost leases are not counted here.
    pub max_attempts: u16,
    /// Number of leases lost after the acknowledgement at which the job is `Dead`, 1 or more.
    ///
    /// Until then each is followed by another attempt.
    pub max_crashes: u16,
    /// Number of nacks at which the job is `Dead`, 1 or more.
    pub max_nacks: u16,
    /// Time in which a worker must acknowledge an attempt, from when it could first be taken, in ms; 0 is no limit.
    ///
    /// Back-offs and deliveries that were not acknowledged do not extend it.
    pub start_by_ms: u32,
    /// The policy for a job that no worker took within `start_by_ms`.
    pub late: Late,
    /// Time in which the job must end, from when it could first be taken, in ms; 0 is no limit.
    ///
    /// All attempts, back-offs and waits count. A job that has not ended by then is stopped and is `TimedOut`, without
    /// a further attempt.
    pub finish_by_ms: u32,
    /// Number of deliveries without acknowledgement at which the job is `Dead`, 1 or more.
    pub max_unacked: u16,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ack_ms: 10_000,
            lease_ms: 60_000,
            timeout_ms: 3_600_000,
            abort_ms: 30_000,
            backoff_ms: 1_000,
            backoff_cap_ms: 60_000,
            max_attempts: 1,
            max_crashes: 3,
            max_nacks: 100,
            start_by_ms: 0,
            late: Late::Fails,
            finish_by_ms: 0,
            max_unacked: 100,
        }
    }
}

/// The specification of a job, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct JobSpec {
    /// The job's place in the orchestration: equal numbers run in parallel, smaller ones before.
    pub order: u32,
    /// The operation that the job runs.
    pub component: Component,
    /// The condition on earlier results under which the job is wanted.
    pub when: When,
    /// The start condition.
    pub start: Start,
    /// The effect of the job's failure.
    pub on_failure: OnFailure,
    /// The job's inputs, if an earlier success with the same inputs may be reused.
    pub unchanged: Option<ResultKey>,
    /// Whether the host is asked before the job runs.
    pub condition: Condition,
    /// The key that the job holds while it runs, if any.
    pub key: Option<Key>,
    /// Maximum weight of the key that all jobs may hold together for this job to join them, 1 or more.
    pub key_limit: u32,
    /// The weight of the key that the job holds, from 1 to `key_limit`.
    pub key_weight: u32,
    /// The policy for when a newer job with the same key waits too.
    pub on_newer: OnNewer,
    /// The time limits and the numbers of tries.
    pub policy: Policy,
}

impl Default for JobSpec {
    /// A job of order 0 without a key, wanted on success, that starts by itself and fails its pipeline.
    fn default() -> Self {
        Self {
            order: 0,
            component: Component::default(),
            when: When::default(),
            start: Start::default(),
            on_failure: OnFailure::default(),
            unchanged: None,
            condition: Condition::default(),
            key: None,
            key_limit: 1,
            key_weight: 1,
            on_newer: OnNewer::default(),
            policy: Policy::default(),
        }
    }
}

/// The entry that the next delivery starts the job at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Entry {
    /// Run from the beginning.
    #[default]
    Run,
    /// Go on after a callback or an approval that the running job waited for.
    Callback,
    /// Go on after a snooze.
    Resume,
}

/// The delivery of a job to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Delivery {
    /// The worker that got the job.
    pub worker: Worker,
    /// The pool that the worker pulled for.
    pub pool: PoolId,
    /// The pull that was answered with the job.
    pub pull: CallId,
    /// The row's version at the delivery.
    pub version: Version,
    /// The id of the write that delivered it.
    pub write: WriteId,
}

impl Delivery {
    /// The token of this delivery of the row with this key.
    pub(crate) const fn token(&self, key: JobKey) -> LeaseToken {
        LeaseToken { key, version: self.version, write: self.write }
    }
}

/// The counts of what went wrong with a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tally {
    /// Deliveries that were never acknowledged. They say nothing about the job.
    pub unacked: u16,
    /// Attempts that failed or ran over their time, this one included.
    pub failures: u16,
    /// Leases lost after the acknowledgement, over all attempts. The job may crash its workers.
    pub crashes: u16,
    /// Deliveries that a worker gave back.
    pub nacks: u16,
}

/// A worker's report of its job's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// The job succeeded.
    Succeeded,
    /// The job failed, and may be tried again as its policy says.
    Failed {
        /// The worker's own code, such as an exit status.
        code: i32,
    },
    /// The job failed, and trying again is of no use.
    FailedForGood {
        /// The worker's own code, such as an exit status.
        code: i32,
    },
}

/// A job's row.
///
/// The fields are public because a host maps them to its own columns. [`Job::check`] says whether a row that comes
/// from outside can be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Job {
    /// The row's primary key.
    pub key: JobKey,
    /// The pipeline that the job is part of.
    pub pipeline: PipelineId,
    /// The version: how often the row was written.
    pub version: Version,
    /// The id of the row's last write.
    pub write: WriteId,
    /// The specification of the job, which never changes.
    pub spec: JobSpec,
    /// The tag, and so the queue that the job waits in.
    pub tag: Tag,
    /// The priority; larger goes first.
    pub priority: u8,
    /// The state of the job.
    pub state: State,
    /// The reason for the state.
    pub reason: Reason,
    /// The time when the job came into the state.
    pub since: Timestamp,
    /// The deadline of the state: ack, lease, back-off, poll, wait or abort; [`Timestamp::MAX`] is none.
    pub until: Timestamp,
    /// The time by which running and polling must have ended; [`Timestamp::MAX`] is no limit.
    pub timeout_at: Timestamp,
    /// The number of the job among those that its engine took in: the last tie-breaker in a queue before the id.
    pub sequence: u64,
    /// The present delivery; in `Suspended`, the last one.
    pub delivery: Option<Delivery>,
    /// The entry that the next delivery starts the job at.
    pub entry: Entry,
    /// The counts of what went wrong so far.
    pub tally: Tally,
    /// The worker's last report of the end, applied or only recorded.
    pub outcome: Option<Outcome>,
    /// The time by which a worker must have acknowledged the job.
    ///
    /// [`Timestamp::MAX`] before the job could be taken, once it has been, and without a limit.
    pub start_by: Timestamp,
    /// The time by which the job must have ended, over all attempts.
    ///
    /// [`Timestamp::MAX`] before the job could be taken, and without a limit.
    pub finish_by: Timestamp,
}

impl Job {
    /// The job's id.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.key.job
    }

    /// The number of the attempt that the row is.
    #[must_use]
    pub const fn attempt(&self) -> Attempt {
        self.key.attempt
    }

    /// The key that the job holds now: from its delivery until its worker, or the external system, is done with it.
    #[must_use]
    pub const fn held_key(&self) -> Option<Key> {
        if self.state.is_leased() || matches!(self.state, State::Polling) { self.spec.key } else { None }
    }

    /// The pool and the engine's life that the job is charged to: from its delivery until its worker is done with it.
    #[must_use]
    pub fn charged(&self) -> Option<(PoolId, Incarnation)> {
        let delivery = self.delivery.filter(|_| self.state.is_leased())?;
        Some((delivery.pool, delivery.write.engine))
    }

    /// The token of the delivery that the row remembers.
    #[must_use]
    pub fn token(&self) -> Option<LeaseToken> {
        Some(self.delivery?.token(self.key))
    }

    /// The next deadline that can pass, if any.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let due = match self.state {
            State::Scheduled | State::Aborting => self.until,
            State::Suspended | State::Delayed => self.until.min(self.finish_by),
            State::Running | State::Polling => self.until.min(self.timeout_at).min(self.finish_by),
            State::Pending => self.start_by.min(self.finish_by),
            State::Unstart
            | State::Succeeded
            | State::Failed
            | State::Aborted
            | State::TimedOut
            | State::Skipped
            | State::Reused
            | State::Superseded
            | State::Dead => Timestamp::MAX,
        };
        (due != Timestamp::MAX).then_some(due)
    }

    /// Whether the row is consistent: numbered from 1, and held by a worker exactly where a state needs one.
    #[must_use]
    pub fn check(&self) -> bool {
        let held = self.state.is_leased() || self.state == State::Polling;
        let free = matches!(self.state, State::Unstart | State::Pending | State::Delayed);
        self.key.attempt >= Attempt::FIRST
            && self.version >= Version::FIRST
            && (!held || self.delivery.is_some())
            && (!free || self.delivery.is_none())
            && self.delivery.is_none_or(|d| d.version <= self.version)
    }
}
