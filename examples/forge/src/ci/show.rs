//! From rows to what is shown.

use std::collections::BTreeMap;

use tenon_jobqueue::{Attempt, JobId, JobKey};

use super::centre::{Centre, now};
use super::plan::{self, BranchClass};
use super::store::{CiStoreError, JobRecord, PipelineRecord};
use super::view::{
    AttemptView, Dot, JobPage, JobView, Overview, PipelineLine, PipelineView, QueueView, RepoView, StageView,
    WorkerState, WorkerView,
};
use super::words;
use crate::router::{Failure, Host, Shown};

/// Pipelines on the first page.
const NEWEST: u32 = 25;
/// How much of a log a page shows.
const LOG_SHOWN: u64 = 128 << 10;
/// A worker that was not heard of for so long is silent; an idle one is heard of with every pull.
const SILENT_MS: u64 = 45_000;
const SILENT_BUSY_MS: u64 = 5_000;

pub(crate) async fn overview(host: &Host) -> Result<Overview, Failure> {
    let shown = host.shown().await?;
    let names: BTreeMap<u64, String> = shown.iter().map(|repo| (repo.id, repo.name.clone())).collect();
    let centre = &host.ci().centre;
    let (pipelines, repos) = stored(centre, move |centre| {
        let newest = centre.store.pipelines(None, NEWEST)?;
        let pipelines = newest.iter().map(|p| line(centre, p, &names)).collect::<Result<Vec<_>, _>>()?;
        let repos = shown.into_iter().map(|repo| repo_view(centre, repo, &names)).collect::<Result<Vec<_>, _>>()?;
        Ok((pipelines, repos))
    })
    .await?;
    Ok(Overview {
        at_ms: now().as_millis(),
        url: host.url().to_owned(),
        nodes: host.nodes_shown(),
        repos,
        pipelines,
        queues: queues(centre),
        workers: workers(host),
        fleet: host.ci().fleet.view(),
    })
}

/// Runs what reads the store on a thread that may block.
pub(crate) async fn stored<T: Send + 'static>(
    centre: &std::sync::Arc<Centre>,
    read: impl FnOnce(&Centre) -> Result<T, CiStoreError> + Send + 'static,
) -> Result<T, Failure> {
    let centre = std::sync::Arc::clone(centre);
    let done = tokio::task::spawn_blocking(move || read(&centre)).await;
    done.map_err(Failure::unavailable)?.map_err(Failure::unavailable)
}

fn repo_view(centre: &Centre, repo: Shown, names: &BTreeMap<u64, String>) -> Result<RepoView, CiStoreError> {
    let last = centre.store.pipelines(Some(repo.id), 1)?.first().map(|p| line(centre, p, names)).transpose()?;
    Ok(RepoView {
        id: repo.id,
        name: repo.name,
        shard: repo.shard,
        version: repo.version,
        replicas: repo.replicas,
        last,
    })
}

/// A pipeline's line in a list.
pub(crate) fn line(
    centre: &Centre,
    pipeline: &PipelineRecord,
    names: &BTreeMap<u64, String>,
) -> Result<PipelineLine, CiStoreError> {
    Ok(line_of(pipeline, &centre.store.jobs(pipeline.id)?, names))
}

fn line_of(pipeline: &PipelineRecord, jobs: &[JobRecord], names: &BTreeMap<u64, String>) -> PipelineLine {
    let marks: Vec<_> = jobs.iter().map(|job| words::mark(&job.row)).collect();
    let mut stages: Vec<Vec<Dot>> = Vec::new();
    if let Some(file) = &pipeline.file {
        stages.resize_with(file.stages.len(), Vec::new);
        for (job, mark) in jobs.iter().zip(&marks) {
            if let Some((def, stage)) = file.jobs.get(job.place).and_then(|d| Some((d, stages.get_mut(d.stage)?))) {
                stage.push(Dot { job: job.row.key.job.get(), name: def.name.clone(), mark: *mark });
            }
        }
        stages.retain(|stage| !stage.is_empty());
    }
    PipelineLine {
        id: pipeline.id,
        repo: names.get(&pipeline.repo).cloned().unwrap_or_default(),
        reference: plan::short_reference(&pipeline.reference).to_owned(),
        commit: pipeline.hash.clone(),
        subject: pipeline.subject.clone(),
        mark: words::pipeline_mark(pipeline.row.as_ref(), &marks),
        error: pipeline.error.clone(),
        created_ms: pipeline.created_ms,
        ended_ms: pipeline.ended_ms,
        stages,
    }
}

/// The newest pipelines of one repository.
pub(crate) async fn of_repository(host: &Host, repo: u64, name: &str, most: u32) -> Result<Vec<PipelineLine>, Failure> {
    let names = BTreeMap::from([(repo, name.to_owned())]);
    stored(&host.ci().centre, move |centre| {
        centre.store.pipelines(Some(repo), most)?.iter().map(|p| line(centre, p, &names)).collect()
    })
    .await
}

/// One pipeline; `None` if there is none.
pub(crate) fn pipeline(centre: &Centre, id: u64) -> Result<Option<PipelineView>, CiStoreError> {
    let Some(record) = centre.store.pipeline(id)? else { return Ok(None) };
    let jobs = centre.store.jobs(id)?;
    let line = line_of(&record, &jobs, &name_of(centre, &record)?);
    let stages = record.file.as_ref().map_or_else(Vec::new, |file| {
        let stage = |(at, name): (usize, &String)| StageView {
            name: name.clone(),
            jobs: jobs
                .iter()
                .filter(|job| file.jobs.get(job.place).is_some_and(|def| def.stage == at))
                .filter_map(|job| job_view(&record, job))
                .collect(),
        };
        file.stages.iter().enumerate().map(stage).filter(|stage| !stage.jobs.is_empty()).collect()
    });
    let acts = record.row.as_ref().map_or_else(Vec::new, words::pipeline_acts);
    let notes = record.file.as_ref().map(|file| file.notes.clone()).unwrap_or_default();
    Ok(Some(PipelineView { at_ms: now().as_millis(), line, stages, notes, acts }))
}

fn name_of(centre: &Centre, record: &PipelineRecord) -> Result<BTreeMap<u64, String>, CiStoreError> {
    Ok(centre.store.repository(record.repo)?.map(|name| (record.repo, name)).into_iter().collect())
}

fn job_view(pipeline: &PipelineRecord, job: &JobRecord) -> Option<JobView> {
    let file = pipeline.file.as_ref()?;
    let def = file.jobs.get(job.place)?;
    let needs = def.needs.iter().flatten().filter_map(|at| Some(file.jobs.get(*at)?.name.clone()));
    Some(JobView {
        job: job.row.key.job.get(),
        name: def.name.clone(),
        stage: file.stages.get(def.stage).cloned().unwrap_or_default(),
        mark: words::mark(&job.row),
        state: format!("{:?}", job.row.state),
        code: job.row.reason.code(),
        reason: words::reason(&job.row),
        attempt: job.row.key.attempt.get(),
        tags: def.tags.clone(),
        needs: needs.collect(),
        allow_failure: def.allow_failure,
        worker: job.worker.clone(),
        since_ms: job.row.since.as_millis(),
        began_ms: job.began_ms,
        ended_ms: job.ended_ms,
        acts: pipeline.row.as_ref().map_or_else(Vec::new, |row| words::acts(&job.row, row)),
    })
}

/// One job, with the log of one attempt, the newest if none is named; `None` if there is no such job or attempt.
pub(crate) fn job(centre: &Centre, id: u64, attempt: Option<u32>) -> Result<Option<JobPage>, CiStoreError> {
    let job = JobId::new(id);
    let Some((record, def)) = centre.store.definition(job)? else { return Ok(None) };
    let attempts = centre.store.attempts(id)?;
    let Some(newest) = attempts.last() else { return Ok(None) };
    let shown = attempt.unwrap_or(newest.row.key.attempt.get());
    let Some(view) = job_view(&record, newest).filter(|_| (1..=newest.row.key.attempt.get()).contains(&shown)) else {
        return Ok(None);
    };
    let key = JobKey { job, attempt: Attempt::new(shown) };
    let log = centre.logs.tail(key, LOG_SHOWN).map_err(|e| CiStoreError::Value(format!("the log: {e}")))?;
    let line = line_of(&record, &centre.store.jobs(record.id)?, &name_of(centre, &record)?);
    let attempts = attempts.iter().map(|a| AttemptView {
        attempt: a.row.key.attempt.get(),
        mark: words::mark(&a.row),
        reason: words::reason(&a.row),
        worker: a.worker.clone(),
    });
    Ok(Some(JobPage {
        at_ms: now().as_millis(),
        line,
        job: view,
        script: def.script,
        attempts: attempts.collect(),
        shown,
        log: log.text,
        log_before: log.before,
    }))
}

/// Every queue that has held a job, by what its jobs need and where they come from.
pub(crate) fn queues(centre: &Centre) -> Vec<QueueView> {
    let at = now();
    centre.view(|core| {
        let mut all: Vec<_> = core.engine.queues().collect();
        all.sort_unstable_by_key(|queue| queue.tag);
        let shown = all.into_iter().map(|queue| {
            let needs = core.components.get(&queue.tag.component.get()).cloned().unwrap_or_default();
            let fits = |has: &[String]| needs.iter().all(|tag| has.contains(tag));
            let fit = core.workers.values().filter(|w| !w.leaving && fits(&w.tags)).count();
            QueueView {
                class: BranchClass::word_of(queue.tag.class),
                depth: u64::from(queue.depth),
                oldest_ms: queue.oldest.map(|since| at.millis_since(since)),
                running: u64::from(queue.leased),
                workers: u64::try_from(fit).unwrap_or(u64::MAX),
                tags: needs,
            }
        });
        shown.collect()
    })
}

/// The fleet's workers, and those that came by themselves.
fn workers(host: &Host) -> Vec<WorkerView> {
    let at = now().as_millis();
    let mut processes = host.ci().fleet.processes();
    let mut all: Vec<WorkerView> = host.ci().centre.view(|core| {
        let seen = core.workers.iter().map(|(name, seen)| {
            let process = processes.remove(name);
            let silent = if seen.job.is_some() { SILENT_BUSY_MS } else { SILENT_MS };
            let state = match (&seen.job, process) {
                _ if at.saturating_sub(seen.seen_ms) > silent => WorkerState::Silent,
                (_, Some((_, true))) => WorkerState::Leaving,
                _ if seen.leaving => WorkerState::Leaving,
                (Some(_), _) => WorkerState::Busy,
                (None, _) => WorkerState::Idle,
            };
            WorkerView {
                name: name.clone(),
                tags: seen.tags.clone(),
                fleet: process.is_some(),
                state,
                job: seen.job.as_ref().map(|(job, title)| (job.get(), title.clone())),
                pid: process.and_then(|(pid, _)| pid),
                seen_ms: seen.seen_ms,
            }
        });
        seen.collect()
    });
    let starting = processes.into_iter().map(|(name, (pid, leaving))| WorkerView {
        name,
        tags: Vec::new(),
        fleet: true,
        state: if leaving { WorkerState::Leaving } else { WorkerState::Starting },
        job: None,
        pid,
        seen_ms: at,
    });
    all.extend(starting);
    all
}
