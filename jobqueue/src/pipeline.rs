//! Pipelines: the row that counts the states of a pipeline's jobs, and the orders of the jobs.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::id::{Class, JobId, PipelineId, Tag, Version, WriteId};
use crate::job::{Job, JobSpec};
use crate::outcome::{JobClass, Outcomes};
use crate::plan::Plan;
use crate::time::Timestamp;

/// The state of a pipeline, computed from the counts in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PipelineState {
    /// Open: some job is undecided, in progress or owed a write.
    Open,
    /// Succeeded: every required job is done.
    Succeeded,
    /// Failed: a required job failed.
    Failed,
    /// Aborted: the pipeline was stopped, or a required job was.
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
    /// The version: how often the row was written.
    pub version: Version,
    /// The id of the row's last write.
    pub write: WriteId,
    /// The class of the pipeline.
    pub class: Class,
    /// The priority of its jobs; larger goes first.
    pub priority: u8,
    /// The time when it was submitted.
    pub created: Timestamp,
    /// The order of the batch opened last; 0 before the first.
    pub order: u32,
    /// The number of jobs that no decision was made about.
    pub unstarted: u32,
    /// The number of jobs in progress that the pipeline waits for: its open batch's, and approved manual ones.
    pub remaining: u32,
    /// The number of required jobs that failed.
    pub failed: u32,
    /// The number of required jobs that were stopped or superseded.
    pub stopped: u32,
    /// The time when the pipeline was aborted, if it was.
    pub aborted_at: Option<Timestamp>,
    /// Whether some job is owed a write that did not fit into the last one: to be opened, skipped, revived or stopped.
    ///
    /// Any engine may go on with it; databases index these.
    pub owes: bool,
    /// The class of each job that has a place in the pipeline's [`Plan`](crate::Plan); empty without a plan.
    pub outcomes: Outcomes,
}

impl Pipeline {
    /// The state of the pipeline.
    #[must_use]
    pub const fn state(&self) -> PipelineState {
        if self.unstarted > 0 || self.remaining > 0 || self.owes {
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

    /// Counts the change of one job, in the counts and in the outcomes if it has a place in the plan.
    ///
    /// `old` no longer counts, `new` does. An attempt that is followed by another is the `old` of that one.
    pub fn absorb(&mut self, plan: Option<&Plan>, old: Option<&Job>, new: Option<&Job>) {
        let place = plan.zip(new.or(old)).and_then(|(plan, job)| plan.place(job.id()));
        self.trade(place, old.map(JobClass::of), new.map(JobClass::of));
    }

    /// One job's class is another now.
    pub(crate) fn trade(&mut self, place: Option<usize>, gone: Option<JobClass>, come: Option<JobClass>) {
        if let Some(count) = gone.and_then(|class| self.count(class)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = come.and_then(|class| self.count(class)) {
            *count = count.saturating_add(1);
        }
        if let Some((place, class)) = place.zip(come) {
            self.outcomes.set(place, class);
        }
    }

    const fn count(&mut self, class: JobClass) -> Option<&mut u32> {
        match class {
            JobClass::Undecided => Some(&mut self.unstarted),
            JobClass::Active => Some(&mut self.remaining),
            JobClass::Failed => Some(&mut self.failed),
            JobClass::Stopped => Some(&mut self.stopped),
            JobClass::Ignored | JobClass::Good | JobClass::Skipped => None,
        }
    }

    /// Whether a change of a job from `old` to `new` moves this row, so that it must be written with it.
    #[must_use]
    pub fn is_moved_by(old: &Job, new: &Job) -> bool {
        JobClass::of(old) != JobClass::of(new)
    }

    /// The row as the next write of it.
    #[must_use]
    pub(crate) fn written(mut self, write: WriteId) -> Self {
        self.version = self.version.next();
        self.write = write;
        self
    }
}

/// A job to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NewJob {
    /// The id of the job, never used before.
    pub id: JobId,
    /// The specification of the job.
    pub spec: JobSpec,
    /// The tag of the job; without one, the tag that [`Config::tag`](crate::Config::tag) gives.
    pub tag: Option<Tag>,
}

/// A pipeline to be created, with all its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Submission<'a> {
    /// The id of the pipeline, never used before.
    pub id: PipelineId,
    /// The class of the pipeline.
    pub class: Class,
    /// The priority of its jobs; larger goes first.
    pub priority: u8,
    /// The jobs. Those of equal order run in this order.
    pub jobs: &'a [NewJob],
    /// The needs: jobs that name the jobs they need.
    ///
    /// Such a job starts once the named jobs have ended, whatever else its order does, and is judged by them alone;
    /// with an empty list it starts at once. A job that is not listed waits for all jobs of smaller orders. A needed
    /// job must not have a larger order than the job that needs it.
    pub needs: &'a [(JobId, &'a [JobId])],
}

/// Why the needs of jobs give no run order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NeedsError {
    /// The jobs need each other in a circle: each needs the next, and the last the first.
    #[error("jobs need each other in a circle: {0:?}")]
    Cycle(Vec<JobId>),
    /// The first job needs the second, which does not exist.
    #[error("job {0} needs job {1}, which does not exist")]
    Missing(JobId, JobId),
    /// The first job needs the second, which has a larger order.
    #[error("job {0} needs job {1}, which comes later")]
    Later(JobId, JobId),
    /// A job is listed twice.
    #[error("job {0} is listed twice")]
    Twice(JobId),
}

/// Computes run orders from needs, in the order of `jobs`, each given with the jobs that it needs.
///
/// A job's order is one more than the largest among the jobs it needs, and at least 1.
///
/// ```
/// use tenon_jobqueue::{JobId, NeedsError, run_orders};
///
/// let [build, test, deploy] = [1, 2, 3].map(JobId::new);
/// let orders = run_orders(&[(deploy, &[build, test]), (build, &[]), (test, &[build])])?;
/// assert_eq!(orders, [3, 1, 2]);
/// assert_eq!(run_orders(&[(build, &[test])]), Err(NeedsError::Missing(build, test)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    let next = |at: usize| jobs[at].1.iter().filter_map(|need| index.get(need).copied()).find(|need| open[*need]);
    let first = open.iter().position(|open| *open);
    circle_of(first, jobs.len(), next).into_iter().map(|at| jobs[at].0).collect()
}

/// The circle that one comes into from `first` by going on to `next`.
pub(crate) fn circle_of(first: Option<usize>, of: usize, next: impl Fn(usize) -> Option<usize>) -> Vec<usize> {
    let mut seen: Vec<Option<usize>> = vec![None; of];
    let mut path: Vec<usize> = Vec::new();
    let mut at = first;
    while let Some(here) = at {
        if let Some(start) = seen[here] {
            return path.split_off(start);
        }
        seen[here] = Some(path.len());
        path.push(here);
        at = next(here);
    }
    path
}
