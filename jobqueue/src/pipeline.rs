//! A pipeline's row, which counts what its jobs are up to, and the orders of its jobs.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::id::{Class, JobId, PipelineId, Tag, Version, WriteId};
use crate::job::{Job, JobSpec, OnFailure, Start, State};
use crate::outcome::Outcomes;
use crate::reason::Reason;
use crate::time::Timestamp;

/// Where a pipeline stands; it follows from the counts in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PipelineState {
    /// Some job is undecided or in progress.
    Open,
    /// Every required job is done.
    Succeeded,
    /// A required job failed.
    Failed,
    /// It was stopped, or a required job was.
    Aborted,
}

/// A pipeline's row: versioned, and written together with every change that moves its counts.
///
/// Because each completion writes this row, two that complete at once on two hosts cannot both believe that the other
/// is still running: one of the writes conflicts, and is made again from the new counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pipeline {
    /// The row's primary key.
    pub id: PipelineId,
    /// How often the row was written.
    pub version: Version,
    /// Who wrote it last.
    pub write: WriteId,
    /// What kind of pipeline it is.
    pub class: Class,
    /// The weight of its jobs; larger goes first.
    pub priority: u8,
    /// When it was submitted.
    pub created: Timestamp,
    /// The order of the batch opened last; 0 before the first.
    pub order: u32,
    /// Jobs that no decision was made about.
    pub unstarted: u32,
    /// Jobs in progress that the pipeline waits for: its open batch's, and approved manual ones.
    pub remaining: u32,
    /// Required jobs that failed.
    pub failed: u32,
    /// Required jobs that were stopped or superseded.
    pub stopped: u32,
    /// When somebody aborted it.
    pub aborted_at: Option<Timestamp>,
    /// Whether some job is owed a write that did not fit into the last one: to be opened, skipped, revived or stopped.
    /// Any engine may go on with it; databases index these.
    pub owes: bool,
    /// Where each job stands that has a place in the pipeline's [`Plan`](crate::Plan); empty without a plan.
    pub outcomes: Outcomes,
}

/// In which of its pipeline's counts a job's row stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Share {
    #[default]
    None,
    Unstarted,
    Remaining,
    Failed,
    Stopped,
}

impl Share {
    pub(crate) fn of(job: &Job) -> Self {
        let required = job.spec.on_failure == OnFailure::Fails;
        match job.state {
            State::Unstart => Self::Unstarted,
            // Nobody waits for a manual job that may fail: the pipeline may end before somebody approves it.
            State::Suspended if !required && job.spec.start == Start::Manual && job.reason == Reason::Approval => {
                Self::None
            }
            State::Pending
            | State::Scheduled
            | State::Running
            | State::Suspended
            | State::Delayed
            | State::Polling
            | State::Aborting => Self::Remaining,
            State::Failed | State::TimedOut | State::Dead if required => Self::Failed,
            State::Aborted | State::Superseded if required => Self::Stopped,
            State::Failed
            | State::TimedOut
            | State::Dead
            | State::Aborted
            | State::Superseded
            | State::Succeeded
            | State::Skipped
            | State::Reused => Self::None,
        }
    }

    /// Whether a row that stood here stands elsewhere now, so that the counts must be written with it.
    pub(crate) fn is_left_by(self, row: &Job) -> bool {
        self != Self::of(row)
    }
}

impl Pipeline {
    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> PipelineState {
        if self.unstarted > 0 || self.remaining > 0 {
            PipelineState::Open
        } else if self.aborted_at.is_some() {
            PipelineState::Aborted
        } else if self.failed > 0 {
            PipelineState::Failed
        } else if self.stopped > 0 {
            PipelineState::Aborted
        } else {
            PipelineState::Succeeded
        }
    }

    /// Takes the change of one job into the counts: `old` no longer counts, `new` does. An attempt that is followed
    /// by another is the `old` of that one.
    pub fn absorb(&mut self, old: Option<&Job>, new: Option<&Job>) {
        self.trade(old.map(Share::of).unwrap_or_default(), new.map(Share::of).unwrap_or_default());
    }

    /// One job's share is another now.
    pub(crate) const fn trade(&mut self, gone: Share, come: Share) {
        if let Some(count) = self.count(gone) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.count(come) {
            *count = count.saturating_add(1);
        }
    }

    const fn count(&mut self, share: Share) -> Option<&mut u32> {
        match share {
            Share::None => None,
            Share::Unstarted => Some(&mut self.unstarted),
            Share::Remaining => Some(&mut self.remaining),
            Share::Failed => Some(&mut self.failed),
            Share::Stopped => Some(&mut self.stopped),
        }
    }

    /// Whether a change of a job from `old` to `new` moves the counts, so that this row must be written with it.
    #[must_use]
    pub fn is_moved_by(old: &Job, new: &Job) -> bool {
        Share::of(old).is_left_by(new)
    }

    /// The row as the next write of it.
    #[must_use]
    pub(crate) fn written(mut self, write: WriteId) -> Self {
        self.version = self.version.next();
        self.write = write;
        self
    }
}

/// A job to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NewJob {
    /// Its id, never used before.
    pub id: JobId,
    /// What it is.
    pub spec: JobSpec,
    /// The queue it waits in; without one, what [`Config::tag`](crate::Config::tag) says.
    pub tag: Option<Tag>,
}

/// A pipeline to be made, with all its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Submission<'a> {
    /// Its id, never used before.
    pub id: PipelineId,
    /// What kind of pipeline it is.
    pub class: Class,
    /// The weight of its jobs; larger goes first.
    pub priority: u8,
    /// Its jobs, in the order in which equals shall run.
    pub jobs: &'a [NewJob],
    /// The jobs that name what they need, each with those jobs: it starts once they have ended, whatever else its order
    /// does, and is judged by them alone; with an empty list it starts at once. A job that is not listed waits for all
    /// jobs of smaller orders. What a job needs must not have a larger order than it.
    pub needs: &'a [(JobId, &'a [JobId])],
}

/// A run that cannot be ordered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NeedsError {
    /// Each of these needs the next, and the last the first.
    #[error("jobs need each other in a circle: {0:?}")]
    Cycle(Vec<JobId>),
    /// The first needs the second, which is not there.
    #[error("job {0} needs job {1}, which is not there")]
    Missing(JobId, JobId),
    /// A job is there twice.
    #[error("job {0} is there twice")]
    Twice(JobId),
}

/// Run orders from needs: each job's order is one more than the largest among the jobs it needs, and at least 1.
/// The result is in the order of `jobs`, each given with what it needs.
///
/// # Errors
///
/// [`NeedsError`] names the jobs that cannot be ordered.
pub fn run_orders(jobs: &[(JobId, &[JobId])]) -> Result<Vec<u32>, NeedsError> {
    let mut index = BTreeMap::new();
    for (at, (id, _)) in jobs.iter().enumerate() {
        if index.insert(*id, at).is_some() {
            return Err(NeedsError::Twice(*id));
        }
    }
    let mut waits: Vec<usize> = vec![0; jobs.len()];
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    for (at, (id, needs)) in jobs.iter().enumerate() {
        for need in *needs {
            let other = *index.get(need).ok_or(NeedsError::Missing(*id, *need))?;
            needed_by[other].push(at);
            waits[at] += 1;
        }
    }
    // Kahn, "Topological sorting of large networks", 1962.
    let mut orders: Vec<u32> = vec![1; jobs.len()];
    let mut ready: Vec<usize> = (0..jobs.len()).filter(|at| waits[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        for &after in &needed_by[at] {
            orders[after] = orders[after].max(orders[at].saturating_add(1));
            waits[after] -= 1;
            if waits[after] == 0 {
                ready.push(after);
            }
        }
    }
    let open: Vec<bool> = waits.iter().map(|count| *count > 0).collect();
    if open.contains(&true) { Err(NeedsError::Cycle(circle(jobs, &index, &open))) } else { Ok(orders) }
}

/// One circle among the jobs that could not be ordered: each of them needs another of them, so following needs comes
/// round.
fn circle(jobs: &[(JobId, &[JobId])], index: &BTreeMap<JobId, usize>, open: &[bool]) -> Vec<JobId> {
    let mut seen: Vec<Option<usize>> = vec![None; jobs.len()];
    let mut path: Vec<JobId> = Vec::new();
    let mut at = open.iter().position(|open| *open);
    while let Some(here) = at {
        if let Some(start) = seen[here] {
            return path.split_off(start);
        }
        seen[here] = Some(path.len());
        path.push(jobs[here].0);
        at = jobs[here].1.iter().filter_map(|need| index.get(need).copied()).find(|need| open[*need]);
    }
    path
}
