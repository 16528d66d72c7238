//! What workers and the router say to each other: JSON over HTTP with `authorization: Bearer TOKEN`.
//!
//! Every call carries all that it needs and may be repeated. A refusal is `409` with one plain line; the worker
//! then lets go of the job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenon_jobqueue::LeaseToken;

/// Who a worker is: a restarted one has another `incarnation`, and does not own what its dead self held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Me {
    pub(crate) name: String,
    pub(crate) incarnation: u64,
}

/// `POST /internal/ci/pull`: give me work; waits up to [`Pull::wait_ms`] for some. The answer is a list of
/// [`Assignment`]s, empty or one long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pull {
    pub(crate) me: Me,
    /// Jobs are given that need no other tags than these.
    pub(crate) tags: Vec<String>,
    pub(crate) wait_ms: u64,
}

/// One delivery of a job, with all that its run needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// The fence of this delivery: every later word about it carries it.
    pub(crate) lease: LeaseToken,
    /// `stage / name`, for the worker's own log.
    pub(crate) title: String,
    /// Below the router's address.
    pub(crate) repository: String,
    pub(crate) commit: String,
    pub(crate) script: Vec<String>,
    /// The file's and the predefined ones.
    pub(crate) variables: BTreeMap<String, String>,
    /// How often the worker must be heard of.
    pub(crate) heartbeat_ms: u64,
    /// After this long without an answer the lease is lost, and the run must stop.
    pub(crate) lease_ms: u64,
    /// The most of the job's output that is kept, in bytes.
    pub(crate) log_limit: u64,
}

/// `POST /internal/ci/ack` (the run starts only on a [`Beat`] that says [`Order::Go`]), and
/// `POST /internal/ci/heartbeat`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) me: Me,
    pub(crate) lease: LeaseToken,
}

/// The answer to [`Held`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Go,
    /// Kill it and report.
    Stop,
}

/// `POST /internal/ci/report`: the run is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) me: Me,
    pub(crate) lease: LeaseToken,
    pub(crate) result: RunResult,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunResult {
    /// The script's exit status.
    Exit(i32),
    /// The worker could not run it: no checkout, no shell, no disk.
    Broken(String),
    /// It was killed on [`Order::Stop`].
    Stopped,
}

/// `POST /internal/ci/log?job=&attempt=&offset=` with the bytes that follow `offset`; the answer. A part that is
/// there already is not written again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LogAt {
    /// How much the router has now.
    pub(crate) length: u64,
}

/// `POST /internal/ci/leave`: this worker takes no more; a pull of its that waits is answered at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Leave {
    pub(crate) me: Me,
}
