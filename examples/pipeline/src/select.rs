//! Which jobs of a plan a run has, and what holds some of them back.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use gitlab_ci::{AllowFailure, Job, Need, Plan, Start};

use crate::queue::QueueJob;

/// What the command line says about jobs.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// These, with what they need; all, if there are none.
    pub(crate) names: Vec<String>,
    /// These alone.
    pub(crate) only: bool,
    /// Manual jobs that are started as by a person.
    pub(crate) play: Vec<String>,
    pub(crate) allow_deploy: bool,
    pub(crate) without_services: bool,
    /// Whether jobs may run in containers.
    pub(crate) has_containers: bool,
}

/// The jobs of a run.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) plan: Plan,
    pub(crate) queue: Vec<QueueJob>,
    /// Why a job waits for a person that would start by itself on GitLab.
    pub(crate) held: Vec<Option<&'static str>>,
}

impl Wanted {
    /// Chooses the jobs of a run.
    pub(crate) fn select(&self, plan: &Plan) -> Result<Selected> {
        let mut chosen: BTreeSet<usize> = BTreeSet::new();
        let mut played: BTreeSet<usize> = BTreeSet::new();
        for name in &self.names {
            let found = named(plan, name)?;
            played.extend(&found);
            chosen.extend(found);
        }
        for name in &self.play {
            played.extend(named(plan, name)?);
        }
        if self.names.is_empty() {
            chosen = (0..plan.jobs.len()).collect();
        } else if !self.only {
            let mut left: Vec<usize> = chosen.iter().copied().collect();
            while let Some(at) = left.pop() {
                let names_them = plan.jobs[at].needs.is_some();
                for before in waits_for(plan, at) {
                    // Whoever wants a job wants what it names, by hand or not.
                    if names_them {
                        played.insert(before);
                    }
                    if chosen.insert(before) {
                        left.push(before);
                    }
                }
            }
        }
        let kept: Vec<usize> = chosen.into_iter().collect();
        let place = |old: usize| kept.binary_search(&old).ok();
        let mut selected =
            Selected { plan: Plan { jobs: Vec::new(), ..plan.clone() }, queue: Vec::new(), held: Vec::new() };
        for &old in &kept {
            let mut job = plan.jobs[old].clone();
            job.needs = job.needs.map(|needs| {
                let moved = |need: Need| Some(Need { job: place(need.job)?, ..need });
                needs.into_iter().filter_map(moved).collect()
            });
            if self.without_services {
                job.services.clear();
            }
            job.takes_from = job.takes_from.iter().filter_map(|from| place(*from)).collect();
            let held = self.holds(&job);
            let may_fail = held.is_some() || job.allow_failure == AllowFailure::Yes;
            if held.is_some() {
                job.start = Start::Manual;
            } else if played.contains(&old) && job.start == Start::Manual {
                job.start = Start::Auto;
            }
            selected.queue.push(queued(&job, may_fail));
            selected.held.push(held);
            selected.plan.jobs.push(job);
        }
        Ok(selected)
    }

    /// Why a job is listed and not run.
    fn holds(&self, job: &Job) -> Option<&'static str> {
        if job.deploys() && !self.allow_deploy {
            return Some("deploy: --allow-deploy runs it");
        }
        let has_containers = self.has_containers && job.image.is_some();
        let needs_containers = !job.services.is_empty() && !self.without_services && !has_containers;
        needs_containers.then_some(
            "services: it needs containers beside it, which the shell has not; --without-services runs it all the same",
        )
    }
}

fn queued(job: &Job, may_fail: bool) -> QueueJob {
    QueueJob {
        stage: job.stage_index,
        needs: job.needs.as_ref().map(|needs| needs.iter().map(|need| need.job).collect()),
        when: job.when,
        start: job.start,
        may_fail,
        key: job.resource_group.as_ref().map(|group| {
            let digest = crate::home::digest(group.as_bytes());
            u64::from_str_radix(&digest[..16], 16).unwrap_or_default()
        }),
        retries: job.retry.max,
        retries_timeouts: ["job_execution_timeout", "stuck_or_timeout_failure"]
            .iter()
            .any(|kind| job.retry.counts(kind, None)),
        timeout: job.timeout.unwrap_or(crate::DEFAULT_TIMEOUT),
    }
}

/// The jobs of this name: one, or all that `parallel` makes of it.
pub(crate) fn named(plan: &Plan, name: &str) -> Result<Vec<usize>> {
    let is_it = |job: &Job| job.name == name || job.group == name;
    let found: Vec<usize> = plan.jobs.iter().enumerate().filter(|(_, job)| is_it(job)).map(|(at, _)| at).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if let Some(absent) = plan.absent.iter().find(|absent| absent.name == name) {
        bail!(
            "`{name}` is not in this pipeline: {}; `--branch`, `--tag`, `--source` and `--variable` start another one",
            absent.reason
        );
    }
    let names: Vec<&str> = plan.jobs.iter().map(|job| job.name.as_str()).collect();
    bail!("there is no job `{name}`; there are {}", names.join(", "));
}

/// The jobs that one waits for.
pub(crate) fn waits_for(plan: &Plan, at: usize) -> Vec<usize> {
    let job = &plan.jobs[at];
    match &job.needs {
        Some(needs) => needs.iter().map(|need| need.job).collect(),
        None => (0..plan.jobs.len()).filter(|other| plan.jobs[*other].stage_index < job.stage_index).collect(),
    }
}
