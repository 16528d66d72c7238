//! Plans: which jobs each job of a pipeline waits for, by name or as all jobs of earlier orders.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::{JobId, PipelineId, Version, WriteId};
use crate::job::{OnNewer, When};
use crate::outcome::{JobClass, Outcomes};
use crate::pipeline::{NeedsError, Pipeline, Submission, circle_of};

/// The plan of a pipeline: which jobs each job waits for. A row that is written once, with the pipeline.
///
/// Only a pipeline in which some job waits for another has a plan. A job's place in it is its place in
/// [`Pipeline::outcomes`](crate::Pipeline::outcomes).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Plan {
    /// The row's primary key.
    pub pipeline: PipelineId,
    /// The version: how often the row was written.
    pub version: Version,
    /// The id of the row's write.
    pub write: WriteId,
    /// The jobs, by order; those of equal order as they were submitted.
    pub jobs: Vec<PlannedJob>,
}

/// One job of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PlannedJob {
    /// The id of the job.
    pub job: JobId,
    /// The order of the job.
    pub order: u32,
    /// The condition on earlier results under which the job is wanted.
    pub when: When,
    /// The places of the jobs that it needs, ascending; `None` if it waits for all jobs of smaller orders.
    pub needs: Option<Vec<u16>>,
}

/// The verdict on a job by the jobs that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum NeedsVerdict {
    /// Wait: some of them have not ended.
    Wait,
    /// Run: the job is wanted.
    Run,
    /// Skip: the job is not wanted.
    Skip {
        /// The number of them that failed or were stopped.
        failed: u32,
        /// The number of them that were skipped, or are manual jobs without an approval.
        skipped: u32,
    },
}

impl Plan {
    /// The plan of a submission; `None` if no job waits for another, and all may be opened together.
    ///
    /// # Errors
    ///
    /// [`NeedsError`] names the jobs that wait for each other, or for what is not there.
    pub fn of(new: &Submission<'_>, write: WriteId) -> Result<Option<Self>, NeedsError> {
        let first = new.jobs.first().map_or(0, |job| job.spec.order);
        // Jobs whose keys must be read before they open are decided one by one.
        let keyed = |job: &crate::NewJob| job.spec.key.is_some() && job.spec.on_newer != OnNewer::Waits;
        let alike = new.jobs.len() < 2 || !new.jobs.iter().any(keyed);
        if new.needs.is_empty() && alike && new.jobs.iter().all(|job| job.spec.order == first) {
            return Ok(None);
        }
        let planned =
            |job: &crate::NewJob| PlannedJob { job: job.id, order: job.spec.order, when: job.spec.when, needs: None };
        let mut jobs: Vec<PlannedJob> = new.jobs.iter().map(planned).collect();
        jobs.sort_by_key(|job| job.order);
        let mut by_id = index(&jobs);
        if let Some(twice) = by_id.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(NeedsError::Twice(twice[0].0));
        }
        let find = |by_id: &[(JobId, u16)], id: JobId| {
            by_id.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| by_id[at].1)
        };
        for (job, needs) in new.needs {
            let at = find(&by_id, *job).ok_or(NeedsError::Missing(*job, *job))?;
            let mut places = Vec::with_capacity(needs.len());
            for need in *needs {
                let place = find(&by_id, *need).ok_or(NeedsError::Missing(*job, *need))?;
                if jobs[usize::from(place)].order > jobs[usize::from(at)].order {
                    return Err(NeedsError::Later(*job, *need));
                }
                places.push(place);
            }
            places.sort_unstable();
            places.dedup();
            if jobs[usize::from(at)].needs.replace(places).is_some() {
                return Err(NeedsError::Twice(*job));
            }
        }
        by_id.clear();
        let plan = Self { pipeline: new.id, version: Version::FIRST, write, jobs };
        plan.check_circles()?;
        Ok(Some(plan))
    }

    /// Only jobs of one order can need each other in a circle, as none needs a later one.
    fn check_circles(&self) -> Result<(), NeedsError> {
        let mut waits: Vec<usize> = self.jobs.iter().map(|job| job.needs.as_ref().map_or(0, Vec::len)).collect();
        let dependants = dependants(&self.jobs);
        let mut ready: Vec<usize> = (0..self.jobs.len()).filter(|at| waits[*at] == 0).collect();
        while let Some(at) = ready.pop() {
            for &after in &dependants[at] {
                waits[usize::from(after)] -= 1;
                if waits[usize::from(after)] == 0 {
                    ready.push(usize::from(after));
                }
            }
        }
        let open = |at: usize| waits[at] > 0;
        if !(0..self.jobs.len()).any(open) {
            return Ok(());
        }
        let next = |at: usize| {
            let needs = self.jobs[at].needs.iter().flatten();
            needs.copied().map(usize::from).find(|need| open(*need))
        };
        let first = (0..self.jobs.len()).find(|at| open(*at));
        Err(NeedsError::Cycle(
            circle_of(first, self.jobs.len(), next).into_iter().map(|at| self.jobs[at].job).collect(),
        ))
    }

    /// The place of a job in the plan.
    #[must_use]
    pub fn place(&self, job: JobId) -> Option<usize> {
        self.jobs.iter().position(|planned| planned.job == job)
    }

    /// How many jobs have a smaller order than the one at this place; they come before it.
    fn earlier(&self, place: usize) -> usize {
        let order = self.jobs.get(place).map_or(0, |job| job.order);
        self.jobs.partition_point(|job| job.order < order)
    }

    /// The verdict on the job at `place` by the classes of the jobs that it waits for.
    #[must_use]
    pub fn verdict(&self, outcomes: &Outcomes, place: usize) -> NeedsVerdict {
        let Some(job) = self.jobs.get(place) else { return NeedsVerdict::Wait };
        let (mut failed, mut skipped) = (0, 0);
        let mut wait = false;
        let mut count = |class: JobClass| match class {
            JobClass::Undecided | JobClass::Active => wait = true,
            JobClass::Failed | JobClass::Stopped => failed += 1,
            JobClass::Skipped | JobClass::Ignored => skipped += 1,
            JobClass::Good => {}
        };
        match &job.needs {
            Some(needs) => needs.iter().for_each(|need| count(outcomes.get(usize::from(*need)))),
            None => (0..self.earlier(place)).for_each(|at| count(outcomes.get(at))),
        }
        if wait {
            return NeedsVerdict::Wait;
        }
        let names = job.needs.is_some();
        let runs = match job.when {
            When::Always => true,
            When::OnSuccess => failed == 0 && (skipped == 0 || !names),
            When::OnFailure => failed > 0 && (skipped == 0 || !names),
        };
        if runs { NeedsVerdict::Run } else { NeedsVerdict::Skip { failed, skipped } }
    }

    /// The first job that the one at `place` waits for and that has not ended, and how many more there are.
    pub(crate) fn waits_for(&self, outcomes: &Outcomes, place: usize) -> Option<(JobId, u32)> {
        let open = |at: &usize| matches!(outcomes.get(*at), JobClass::Undecided | JobClass::Active);
        let needs = self.jobs.get(place)?.needs.as_ref();
        let all: Vec<usize> = match needs {
            Some(needs) => needs.iter().copied().map(usize::from).filter(open).collect(),
            None => (0..self.earlier(place)).filter(open).collect(),
        };
        let first = self.jobs.get(*all.first()?)?.job;
        Some((first, u32::try_from(all.len() - 1).unwrap_or(u32::MAX)))
    }
}

fn index(jobs: &[PlannedJob]) -> Vec<(JobId, u16)> {
    let mut by_id: Vec<(JobId, u16)> = jobs.iter().map(|job| job.job).zip(0..).collect();
    by_id.sort_unstable();
    by_id
}

fn dependants(jobs: &[PlannedJob]) -> Vec<Vec<u16>> {
    let mut dependants = vec![Vec::new(); jobs.len()];
    for (job, at) in jobs.iter().zip(0..) {
        for need in job.needs.iter().flatten() {
            if let Some(list) = dependants.get_mut(usize::from(*need)) {
                list.push(at);
            }
        }
    }
    dependants
}

/// A plan with what finds its way in it.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) plan: Plan,
    by_id: Vec<(JobId, u16)>,
    dependants: Vec<Vec<u16>>,
}

/// The next write that a job of a pipeline is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// A decision: it runs, or is skipped with these numbers of failed and skipped jobs before it.
    Decision(NeedsVerdict),
    /// A new attempt: it was skipped because of what it waits for, and that has changed.
    Revival,
    /// An end: the pipeline was aborted.
    Stop,
}

impl Graph {
    pub(crate) fn new(plan: Plan) -> Self {
        let (by_id, dependants) = (index(&plan.jobs), dependants(&plan.jobs));
        Self { plan, by_id, dependants }
    }

    pub(crate) fn place(&self, job: JobId) -> Option<usize> {
        let at = self.by_id.binary_search_by_key(&job, |(id, _)| *id).ok()?;
        Some(usize::from(self.by_id[at].1))
    }

    /// The write that the job at this place is owed, if any.
    pub(crate) fn owed(&self, pipeline: &Pipeline, place: usize) -> Option<Owed> {
        let class = pipeline.outcomes.get(place);
        if pipeline.aborted_at.is_some() {
            return matches!(class, JobClass::Undecided | JobClass::Ignored).then_some(Owed::Stop);
        }
        match (class, self.plan.verdict(&pipeline.outcomes, place)) {
            (JobClass::Undecided, verdict @ (NeedsVerdict::Run | NeedsVerdict::Skip { .. })) => {
                Some(Owed::Decision(verdict))
            }
            (JobClass::Skipped, NeedsVerdict::Wait | NeedsVerdict::Run) => Some(Owed::Revival),
            (
                JobClass::Undecided
                | JobClass::Skipped
                | JobClass::Active
                | JobClass::Ignored
                | JobClass::Good
                | JobClass::Failed
                | JobClass::Stopped,
                _,
            ) => None,
        }
    }

    /// The places whose verdict may be another once the job at this place stands elsewhere, besides those that name it:
    /// jobs without needs, up to the first order that still waits for another job.
    fn followers(&self, outcomes: &Outcomes, place: usize) -> core::ops::Range<usize> {
        let order = self.plan.jobs.get(place).map_or(0, |job| job.order);
        let from = self.plan.jobs.partition_point(|job| job.order <= order);
        let is_open = |at: &usize| matches!(outcomes.get(*at), JobClass::Undecided | JobClass::Active);
        let first_open = (0..self.plan.jobs.len()).find(is_open).unwrap_or(self.plan.jobs.len());
        // While something is open before them, only what was skipped can be owed anything: a revival.
        let any_skipped = (from..self.plan.jobs.len()).any(|at| outcomes.get(at) == JobClass::Skipped);
        let end = match self.plan.jobs.get(first_open) {
            Some(job) if !any_skipped => self.plan.jobs.partition_point(|other| other.order <= job.order),
            Some(_) | None => self.plan.jobs.len(),
        };
        from.min(end)..end
    }

    /// The places that may be owed something once the job at this place stands elsewhere.
    pub(crate) fn touched(&self, outcomes: &Outcomes, place: usize) -> Vec<u16> {
        let mut places = self.dependants.get(place).cloned().unwrap_or_default();
        let stages = self.followers(outcomes, place);
        places.extend(stages.filter(|at| self.plan.jobs[*at].needs.is_none()).filter_map(|at| u16::try_from(at).ok()));
        places
    }

    /// Every place.
    pub(crate) fn places(&self) -> impl Iterator<Item = u16> {
        (0..self.plan.jobs.len()).filter_map(|at| u16::try_from(at).ok())
    }
}
