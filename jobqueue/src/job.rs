//! A job's row: plain data with a version, which any host can keep in any database.

use crate::id::{
    Attempt, CallId, Component, Incarnation, JobId, JobKey, Key, LeaseToken, PipelineId, PoolId, Tag, Version, Worker,
    WriteId,
};
use crate::reason::Reason;
use crate::time::Timestamp;

/// Where a job stands.
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
    /// A worker runs it.
    Running = 3,
    /// Waits for a callback or an approval, or is held; holds no resource.
    Suspended = 4,
    /// Waits for a time: back-off, snooze or a scheduled start.
    Delayed = 5,
    /// Waits for an external result that is polled; holds no resource.
    Polling = 6,
    /// The worker was told to stop and has not confirmed.
    Aborting = 7,
    /// Done.
    Succeeded = 8,
    /// Done badly.
    Failed = 9,
    /// Stopped on request.
    Aborted = 10,
    /// Ran, or waited for an answer, for too long.
    TimedOut = 11,
    /// Not wanted in this run.
    Skipped = 12,
    /// An earlier result stands for it.
    Reused = 13,
    /// Newer work took its place.
    Superseded = 14,
    /// Given up: it may crash its workers, or none wants it.
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

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self as u8 >= Self::Succeeded as u8
    }

    /// Whether a worker may be running the job.
    #[must_use]
    pub const fn is_leased(self) -> bool {
        matches!(self, Self::Scheduled | Self::Running | Self::Aborting)
    }

    /// The state's stable number, as databases keep it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The state with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// How a job may end up failing its pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnFailure {
    /// The pipeline fails with it.
    #[default]
    Fails,
    /// The pipeline goes on as if it had succeeded; if the job is manual, nobody waits for it.
    Allowed,
}

/// In which weather a job is wanted, by the failures so far of required jobs in its pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum When {
    /// Only when nothing has failed.
    #[default]
    OnSuccess,
    /// Only when something has failed.
    OnFailure,
    /// Always.
    Always,
}

/// What starts a job once its batch is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Start {
    /// Nothing more.
    #[default]
    Auto,
    /// An approval.
    Manual,
    /// This many milliseconds.
    After(u32),
}

/// The inputs of a job, as a number: a hash of its component, code revision and parameters, made by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct ResultKey(pub u64);

/// What a waiting job does when a newer one with its key waits too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnNewer {
    /// It keeps its turn.
    #[default]
    Waits,
    /// It is superseded by a newer one that gives way, too: only the newest is worth running.
    GivesWay,
    /// It stays, and a newer one that does not simply wait is superseded by it: from its opening to its end its key is
    /// unique, on however many engines.
    KeepsOut,
}

/// Whether the host has a word to say before a job runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Condition {
    /// No.
    #[default]
    None,
    /// It is asked when the job's batch is about to open: its own filters, or the user's condition.
    Ask,
}

/// What becomes of a job that no worker took in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Late {
    /// The job fails, without a further attempt.
    #[default]
    Fails,
    /// The job is skipped, and its pipeline goes on as if a filter had skipped it.
    IsSkipped,
}

/// How long things may take and how often they are tried. Times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// From delivery to acknowledgement.
    pub ack_ms: u32,
    /// From one heartbeat to the loss of the lease.
    pub lease_ms: u32,
    /// From acknowledgement to result, external result included; 0 is no limit.
    pub timeout_ms: u32,
    /// From the order to stop to its confirmation.
    pub abort_ms: u32,
    /// The least first back-off, after a failed attempt or a nack; each further one doubles it. 0 is none.
    pub backoff_ms: u32,
    /// What doubling ends at. Each back-off is longer by up to a half, by chance.
    pub backoff_cap_ms: u32,
    /// How many attempts may fail or run over their time, 1 or more. Lost leases are not counted here.
    pub max_attempts: u16,
    /// At how many leases lost after the acknowledgement the job is `Dead`, 1 or more; until then each is followed by
    /// another attempt.
    pub max_crashes: u16,
    /// At how many nacks the job is `Dead`, 1 or more.
    pub max_nacks: u16,
    /// How long an attempt may wait for a worker's acknowledgement from when it could first be taken; 0 is no limit. Back-offs
    /// and deliveries that nobody acknowledged do not extend it.
    pub start_by_ms: u32,
    /// What becomes of a job that no worker took within `start_by_ms`.
    pub late: Late,
    /// How long the job may take from when it could first be taken to its end, with all attempts, back-offs and waits; 0 is
    /// no limit. What has not ended by then is stopped and is `TimedOut`, without a further attempt.
    pub finish_by_ms: u32,
    /// At how many deliveries that were never acknowledged the job is `Dead`, 1 or more.
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

/// What never changes about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct JobSpec {
    /// Its place in the orchestration: equal numbers run in parallel, smaller ones before.
    pub order: u32,
    /// The operation it runs.
    pub component: Component,
    /// When it is wanted.
    pub when: When,
    /// What starts it.
    pub start: Start,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// Its inputs, if a success with the same inputs stands for it.
    pub unchanged: Option<ResultKey>,
    /// Whether the host is asked before it runs.
    pub condition: Condition,
    /// What at most `key_limit` jobs may hold at a time.
    pub key: Option<Key>,
    /// How much of its key may be held at a time, by all jobs together, for this job to join them; 1 or more.
    pub key_limit: u32,
    /// How much of its key it holds; from 1 to `key_limit`.
    pub key_weight: u32,
    /// What it does when a newer job with its key waits too.
    pub on_newer: OnNewer,
    /// Times and tries.
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

/// What the next delivery asks of the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Entry {
    /// Begin.
    #[default]
    Run,
    /// The callback, or the approval, that a running job waited for has come.
    Callback,
    /// Go on after a snooze.
    Resume,
}

/// Who holds a job, and by which delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Delivery {
    /// The worker.
    pub worker: Worker,
    /// The pool it pulled for.
    pub pool: PoolId,
    /// The pull that was answered with it.
    pub pull: CallId,
    /// The row's version at the delivery.
    pub version: Version,
    /// The write that delivered it.
    pub write: WriteId,
}

impl Delivery {
    /// The token of this delivery of the row with this key.
    pub(crate) const fn token(&self, key: JobKey) -> LeaseToken {
        LeaseToken { key, version: self.version, write: self.write }
    }
}

/// What has gone wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tally {
    /// Deliveries that were never acknowledged; they say nothing about the job.
    pub unacked: u16,
    /// Attempts that failed or ran over their time, this one's end included.
    pub failures: u16,
    /// Leases lost after the acknowledgement, over all attempts: the job may crash its workers.
    pub crashes: u16,
    /// Deliveries that a worker gave back.
    pub nacks: u16,
}

/// What a worker says of its job's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// It worked.
    Succeeded,
    /// It failed, and may be tried again as its policy says.
    Failed {
        /// The worker's own code, such as an exit status.
        code: i32,
    },
    /// It failed, and trying again is of no use.
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
    /// The pipeline it is part of.
    pub pipeline: PipelineId,
    /// How often the row was written.
    pub version: Version,
    /// Who wrote it last.
    pub write: WriteId,
    /// What never changes.
    pub spec: JobSpec,
    /// The queue it waits in.
    pub tag: Tag,
    /// Larger goes first.
    pub priority: u8,
    /// Where it stands.
    pub state: State,
    /// Why it stands there.
    pub reason: Reason,
    /// Since when it stands there.
    pub since: Timestamp,
    /// The state's own deadline: ack, lease, back-off, poll, wait or abort; [`Timestamp::MAX`] is none.
    pub until: Timestamp,
    /// When running and polling must have ended; [`Timestamp::MAX`] is no limit.
    pub timeout_at: Timestamp,
    /// Its number among the jobs that its engine took in; the last word in the order of a queue but for the id.
    pub sequence: u64,
    /// Who holds it; in `Suspended`, who last did.
    pub delivery: Option<Delivery>,
    /// What the next delivery asks of the worker.
    pub entry: Entry,
    /// What has gone wrong so far.
    pub tally: Tally,
    /// The worker's last word about the end, applied or only recorded.
    pub outcome: Option<Outcome>,
    /// By when a worker must have acknowledged it; [`Timestamp::MAX`] before it could be taken, once it has been, and
    /// without a limit.
    pub start_by: Timestamp,
    /// By when it must have ended, over all attempts; [`Timestamp::MAX`] before it could be taken, and without a limit.
    pub finish_by: Timestamp,
}

impl Job {
    /// The job's id.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.key.job
    }

    /// The attempt this row is.
    #[must_use]
    pub const fn attempt(&self) -> Attempt {
        self.key.attempt
    }

    /// The key that it holds now: from its delivery until its worker, or the external system, is done with it.
    #[must_use]
    pub const fn held_key(&self) -> Option<Key> {
        if self.state.is_leased() || matches!(self.state, State::Polling) { self.spec.key } else { None }
    }

    /// The pool and the engine's life whose share it takes up: from its delivery until its worker is done with it.
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

    /// Whether the row can be true: numbered from 1, and held by a worker exactly where a state needs one.
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
