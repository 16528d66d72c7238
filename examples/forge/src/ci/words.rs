//! The queue's states and reasons in words, and in the few marks that people look for.

use tenon_jobqueue::{Job, OnFailure, Outcome, Pipeline, PipelineState, Reason, State};

use super::view::{Act, Mark};

/// How a job stands.
pub(crate) fn mark(job: &Job) -> Mark {
    match job.state {
        State::Unstart => Mark::Created,
        State::Suspended if job.reason == Reason::Approval => Mark::Manual,
        State::Pending | State::Scheduled | State::Suspended | State::Delayed | State::Polling => Mark::Waiting,
        State::Running => Mark::Running,
        State::Aborting => Mark::Stopping,
        State::Succeeded | State::Reused => Mark::Passed,
        State::Failed | State::TimedOut | State::Dead => match job.spec.on_failure {
            OnFailure::Allowed => Mark::Warned,
            OnFailure::Fails => Mark::Failed,
        },
        State::Aborted | State::Superseded => Mark::Stopped,
        State::Skipped => Mark::Skipped,
    }
}

/// How a pipeline stands, by its row and its jobs; without a row its file was wrong.
pub(crate) fn pipeline_mark(row: Option<&Pipeline>, jobs: &[Mark]) -> Mark {
    let Some(row) = row else { return Mark::Failed };
    match row.state() {
        PipelineState::Open if row.aborted_at.is_some() => Mark::Stopping,
        PipelineState::Open if jobs.iter().any(|mark| matches!(mark, Mark::Running | Mark::Stopping)) => Mark::Running,
        PipelineState::Open if jobs.contains(&Mark::Waiting) => Mark::Waiting,
        PipelineState::Open if jobs.contains(&Mark::Manual) => Mark::Manual,
        PipelineState::Open => Mark::Created,
        PipelineState::Succeeded => Mark::Passed,
        PipelineState::Failed => Mark::Failed,
        PipelineState::Aborted => Mark::Stopped,
    }
}

/// How a pipeline stands, in a word.
pub(crate) const fn state(state: PipelineState) -> &'static str {
    match state {
        PipelineState::Open => "open",
        PipelineState::Succeeded => "succeeded",
        PipelineState::Failed => "failed",
        PipelineState::Aborted => "aborted",
    }
}

/// What somebody may ask of a job. An attempt that was followed by another is over.
pub(crate) fn acts(job: &Job, pipeline: &Pipeline) -> Vec<Act> {
    let open = pipeline.aborted_at.is_none();
    match job.state {
        State::Suspended if job.reason == Reason::Approval && open => vec![Act::Approve, Act::Abort],
        State::Unstart
        | State::Pending
        | State::Scheduled
        | State::Running
        | State::Suspended
        | State::Delayed
        | State::Polling => vec![Act::Abort],
        State::Failed | State::Aborted | State::TimedOut | State::Dead => vec![Act::Retry],
        State::Skipped | State::Aborting | State::Succeeded | State::Reused | State::Superseded => Vec::new(),
    }
}

/// What somebody may ask of a pipeline.
pub(crate) fn pipeline_acts(row: &Pipeline) -> Vec<Act> {
    match row.state() {
        PipelineState::Open if row.aborted_at.is_none() => vec![Act::Abort],
        PipelineState::Failed | PipelineState::Aborted => vec![Act::Retry],
        PipelineState::Open | PipelineState::Succeeded => Vec::new(),
    }
}

/// Why a job stands where it stands.
pub(crate) fn reason(job: &Job) -> String {
    let seconds = |ms: u64| ms.div_ceil(1000);
    match (job.reason, job.outcome) {
        (Reason::Reported, Some(Outcome::Succeeded)) => "the script succeeded".into(),
        (Reason::Reported, Some(Outcome::Failed { code } | Outcome::FailedForGood { code })) => {
            format!("the script ended with status {code}")
        }
        (Reason::Reported, None) => "the worker reported the end".into(),
        (Reason::Submitted, _) => "the stages before it are not done".into(),
        (Reason::Batch { .. }, _) => "waits for a worker".into(),
        (Reason::StartAt { .. }, _) => "it starts later".into(),
        (Reason::Approval, _) => "waits for somebody's approval".into(),
        (Reason::Held { .. }, _) => "held back".into(),
        (Reason::NotWanted { failed }, _) => format!("not wanted, with {failed} failed before it"),
        (Reason::Pulled, _) => "given to a worker".into(),
        (Reason::Acked, _) => "a worker runs it".into(),
        (Reason::DelayOver { .. }, _) => "its wait is over".into(),
        (Reason::NoAck { unacked, .. }, _) => format!("a worker did not begin it in time ({unacked} times)"),
        (Reason::LeaseLost { crashes, .. }, _) => format!("its worker fell silent ({crashes} times)"),
        (Reason::OverTime { .. }, _) => "it took too long".into(),
        (Reason::AbortUnanswered { .. }, _) => "stopped; its worker did not answer".into(),
        (Reason::Nacked { delay_ms, nacks }, _) => {
            format!("a worker gave it back ({nacks} times); again in {} s", seconds(delay_ms))
        }
        (Reason::Called | Reason::Callback | Reason::External | Reason::Snoozed, _) => "waits for an answer".into(),
        (Reason::Approved, _) => "approved".into(),
        (Reason::AbortAsked, _) => "stopped by somebody".into(),
        (Reason::PipelineAborted, _) => "its pipeline was stopped".into(),
        (Reason::Retry { delay_ms }, _) => format!("tried again after {} s", seconds(delay_ms)),
        (Reason::Revived, _) => "tried again on request".into(),
        (Reason::Superseded { by }, _) => format!("job {by} took its place"),
        (other, _) => format!("reason {}", other.code()),
    }
}
