//! What is shown of the platform: plain data, drawn by the page and answered by the API alike.

use serde::Serialize;

/// How a pipeline or a job stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    /// Nothing has been decided about it.
    Created,
    /// In a queue, or waiting for a time.
    Waiting,
    Running,
    /// Waiting for somebody's approval.
    Manual,
    Passed,
    /// Failed, which is allowed.
    Warned,
    Failed,
    Stopping,
    Stopped,
    Skipped,
}

impl Mark {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Manual => "manual",
            Self::Passed => "passed",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Skipped => "skipped",
        }
    }
}

/// Everything on the first page.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    pub(crate) at_ms: u64,
    pub(crate) url: String,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) repos: Vec<RepoView>,
    /// Newest first.
    pub(crate) pipelines: Vec<PipelineLine>,
    pub(crate) queues: Vec<QueueView>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) fleet: FleetView,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) node: u32,
    pub(crate) datacentre: u32,
    pub(crate) up: bool,
    pub(crate) pid: Option<u32>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RepoView {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) shard: u32,
    pub(crate) version: u64,
    pub(crate) replicas: Vec<ReplicaView>,
    pub(crate) last: Option<PipelineLine>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReplicaView {
    pub(crate) node: u32,
    /// In a word: current, lagging, divergent, ahead, unknown, down.
    pub(crate) standing: &'static str,
    /// Versions behind, where it is known.
    pub(crate) lag: Option<u64>,
}

/// A pipeline in a list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PipelineLine {
    pub(crate) id: u64,
    pub(crate) repo: String,
    /// A branch or a tag, without `refs/…/`.
    pub(crate) reference: String,
    pub(crate) commit: String,
    pub(crate) subject: String,
    pub(crate) mark: Mark,
    /// What is wrong with the CI file, if that is why there are no jobs.
    pub(crate) error: Option<String>,
    pub(crate) created_ms: u64,
    /// When it was over; while it is not, absent.
    pub(crate) ended_ms: Option<u64>,
    /// Stage by stage, in order.
    pub(crate) stages: Vec<Vec<Dot>>,
}

/// A job in a pipeline's line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Dot {
    pub(crate) job: u64,
    pub(crate) name: String,
    pub(crate) mark: Mark,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct QueueView {
    /// What its jobs need of a worker.
    pub(crate) tags: Vec<String>,
    /// Which kind of branch they come from.
    pub(crate) class: &'static str,
    pub(crate) depth: u64,
    pub(crate) oldest_ms: Option<u64>,
    pub(crate) running: u64,
    /// Workers that could take its jobs.
    pub(crate) workers: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WorkerView {
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    /// Whether the fleet started it; others came by themselves.
    pub(crate) fleet: bool,
    pub(crate) state: WorkerState,
    /// The job that it holds, and its title.
    pub(crate) job: Option<(u64, String)>,
    pub(crate) pid: Option<u32>,
    /// When it was last heard of.
    pub(crate) seen_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkerState {
    Starting,
    Idle,
    Busy,
    /// Finishes its job and goes.
    Leaving,
    /// Not heard of for longer than it may be.
    Silent,
}

impl WorkerState {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Leaving => "leaving",
            Self::Silent => "silent",
        }
    }
}

/// The workers that the scaler sizes, over time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FleetView {
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) target: u32,
    pub(crate) ready: u32,
    pub(crate) starting: u32,
    /// Why the target is what it is.
    pub(crate) why: String,
    /// Oldest first.
    pub(crate) points: Vec<FleetPoint>,
    /// Newest first.
    pub(crate) decisions: Vec<FleetDecision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FleetPoint {
    pub(crate) at_ms: u64,
    pub(crate) target: u32,
    pub(crate) ready: u32,
    /// Jobs that wait or run.
    pub(crate) load: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FleetDecision {
    pub(crate) at_ms: u64,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// The scaler's reason, by its stable number and in words.
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// One pipeline, whole.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PipelineView {
    pub(crate) at_ms: u64,
    pub(crate) line: PipelineLine,
    pub(crate) stages: Vec<StageView>,
    /// What of its file has no effect here.
    pub(crate) notes: Vec<String>,
    pub(crate) acts: Vec<Act>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct StageView {
    pub(crate) name: String,
    pub(crate) jobs: Vec<JobView>,
}

/// What somebody can ask of a pipeline or a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Act {
    Abort,
    Retry,
    Approve,
}

impl Act {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Approve => "approve",
        }
    }
}

/// A job's newest attempt.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobView {
    pub(crate) job: u64,
    pub(crate) name: String,
    pub(crate) stage: String,
    pub(crate) mark: Mark,
    /// The state's own name, and why it stands there, by the reason's stable number and in words.
    pub(crate) state: String,
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) attempt: u32,
    pub(crate) tags: Vec<String>,
    pub(crate) needs: Vec<String>,
    pub(crate) allow_failure: bool,
    pub(crate) worker: Option<String>,
    /// Since when it stands as it does.
    pub(crate) since_ms: u64,
    /// When it last began to run, and when that ended.
    pub(crate) began_ms: Option<u64>,
    pub(crate) ended_ms: Option<u64>,
    pub(crate) acts: Vec<Act>,
}

/// One job with all its attempts, and one attempt's log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobPage {
    pub(crate) at_ms: u64,
    pub(crate) line: PipelineLine,
    pub(crate) job: JobView,
    pub(crate) script: Vec<String>,
    /// Oldest first.
    pub(crate) attempts: Vec<AttemptView>,
    /// Which attempt the log is of.
    pub(crate) shown: u32,
    pub(crate) log: String,
    /// How many bytes of the log stand before what is shown.
    pub(crate) log_before: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct AttemptView {
    pub(crate) attempt: u32,
    pub(crate) mark: Mark,
    pub(crate) reason: String,
    pub(crate) worker: Option<String>,
}
