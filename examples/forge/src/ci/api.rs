//! The routes of pipelines: for workers, for programs, for people.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Json, Router as Routes, routing};
use futures_util::Stream;
use serde::Deserialize;
use tenon_jobqueue::{Attempt, CallId, Engine, JobId, JobKey, PipelineId, Refused, Timestamp};

use super::centre::{Failed, Report};
use super::view::{Act, JobPage, Overview, PipelineLine, PipelineView};
use super::wire::{Assignment, Beat, Done, Held, Leave, LogAt, Pull};
use super::{metrics, page, show};
use crate::router::{self, Failure, Host};

/// The largest part of a log, and the largest other body.
const MOST_BODY: usize = 1 << 20;
/// The longest that a worker's pull waits.
const LONGEST_PULL_MS: u64 = 30_000;
/// A page is told of changes at most so often, and that the server lives at least so often.
const TELL_AT_MOST: Duration = Duration::from_millis(400);
const TELL_AT_LEAST: Duration = Duration::from_secs(5);
/// Pipelines in a list.
const LISTED: u32 = 100;

pub(crate) fn routes(host: &Host) -> Routes<Host> {
    let workers = Routes::new()
        .route("/internal/ci/pull", routing::post(pull))
        .route("/internal/ci/ack", routing::post(ack))
        .route("/internal/ci/heartbeat", routing::post(heartbeat))
        .route("/internal/ci/log", routing::post(log_part))
        .route("/internal/ci/report", routing::post(report))
        .route("/internal/ci/leave", routing::post(leave))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(host.clone(), only_workers));
    let programs = Routes::new()
        .route("/api/overview", routing::get(overview))
        .route("/api/pipelines", routing::get(pipelines))
        .route("/api/pipelines/{id}", routing::get(pipeline))
        .route("/api/pipelines/{id}/{act}", routing::post(act_on_pipeline))
        .route("/api/jobs/{id}", routing::get(job))
        .route("/api/jobs/{id}/log", routing::get(log))
        .route("/api/jobs/{id}/{act}", routing::post(act_on_job));
    let people = Routes::new()
        .route("/", routing::get(overview_page))
        .route("/-/pipelines/{id}", routing::get(pipeline_page))
        .route("/-/pipelines/{id}/{act}", routing::post(pipeline_form))
        .route("/-/jobs/{id}", routing::get(job_page))
        .route("/-/jobs/{id}/{act}", routing::post(job_form))
        .route("/-/live", routing::get(live))
        .route("/-/style.css", routing::get(async || asset("text/css; charset=utf-8", page::STYLE)))
        .route("/-/live.js", routing::get(async || asset("text/javascript; charset=utf-8", page::SCRIPT)))
        .route("/metrics", routing::get(async |State(host): State<Host>| metrics::text(&host).await));
    workers.merge(programs).merge(people)
}

// ---- workers ------------------------------------------------------------------------------------------------------

async fn only_workers(State(host): State<Host>, request: Request, next: Next) -> Response {
    if router::bears(request.headers(), &host.ci().worker_token) {
        return next.run(request).await;
    }
    Failure::new(StatusCode::UNAUTHORIZED, "for workers, which show the token of the file `worker-token`")
        .into_response()
}

/// `409` is an answer that does not change by asking again.
impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        let status = match &failed {
            Failed::Refused(Refused::Unknown) => StatusCode::NOT_FOUND,
            Failed::Refused(Refused::Full { .. } | Refused::Contended) | Failed::Store(_) | Failed::Ends => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Failed::Refused(_) => StatusCode::CONFLICT,
        };
        Self::new(status, failed)
    }
}

/// To a worker, a job that is not there is as good as another's.
fn for_worker(failed: Failed) -> Failure {
    if let Failed::Refused(why @ Refused::Unknown) = failed {
        return Failure::new(StatusCode::CONFLICT, why);
    }
    failed.into()
}

async fn pull(State(host): State<Host>, Json(mut ask): Json<Pull>) -> Result<Json<Vec<Assignment>>, Failure> {
    ask.wait_ms = ask.wait_ms.min(LONGEST_PULL_MS);
    let wrong = ask.me.name.is_empty() || ask.me.name.len() > 128 || !ask.tags.iter().all(|t| super::file::is_tag(t));
    if wrong {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "a worker has a name, and tags of letters, digits, '.', '_', '-'",
        ));
    }
    let ci = host.ci();
    let mut closing = ci.closing.subscribe();
    tokio::select! {
        jobs = ci.centre.pull(ask) => Ok(Json(jobs.map_err(for_worker)?)),
        _ = closing.wait_for(|closing| *closing) => Err(Failure::unavailable("the router ends")),
    }
}

async fn ack(State(host): State<Host>, Json(ask): Json<Held>) -> Result<Json<Beat>, Failure> {
    Ok(Json(host.ci().centre.ack(&ask).await.map_err(for_worker)?))
}

async fn heartbeat(State(host): State<Host>, Json(ask): Json<Held>) -> Result<Json<Beat>, Failure> {
    Ok(Json(host.ci().centre.heartbeat(&ask).await.map_err(for_worker)?))
}

async fn report(State(host): State<Host>, Json(done): Json<Done>) -> Result<Json<()>, Failure> {
    let report = Report { me: done.me, lease: done.lease, result: done.result };
    host.ci().centre.report(&report).await.map_err(for_worker)?;
    Ok(Json(()))
}

async fn leave(State(host): State<Host>, Json(ask): Json<Leave>) -> Json<()> {
    host.ci().centre.leave(&ask.me);
    Json(())
}

#[derive(Debug, Deserialize)]
struct LogPart {
    job: u64,
    attempt: u32,
    offset: u64,
}

async fn log_part(State(host): State<Host>, Query(at): Query<LogPart>, part: Bytes) -> Result<Json<LogAt>, Failure> {
    let key = JobKey { job: JobId::new(at.job), attempt: Attempt::new(at.attempt) };
    let logs = host.ci().centre.logs.clone();
    let written = tokio::task::spawn_blocking(move || logs.append(key, at.offset, &part)).await;
    let length = written.map_err(Failure::unavailable)?.map_err(Failure::unavailable)?;
    host.ci().centre.stir();
    Ok(Json(LogAt { length }))
}

// ---- programs -----------------------------------------------------------------------------------------------------

async fn overview(State(host): State<Host>) -> Result<Json<Overview>, Failure> {
    Ok(Json(show::overview(&host).await?))
}

#[derive(Debug, Deserialize)]
struct Which {
    repo: Option<String>,
}

async fn pipelines(State(host): State<Host>, Query(which): Query<Which>) -> Result<Json<Vec<PipelineLine>>, Failure> {
    let shown = host.shown().await?;
    let names = shown.iter().map(|repo| (repo.id, repo.name.clone())).collect();
    let repo = match &which.repo {
        None => None,
        Some(name) => {
            let found = shown.iter().find(|repo| repo.name == *name);
            Some(found.ok_or_else(|| Failure::not_found(format!("there is no repository {name}")))?.id)
        }
    };
    let lines = show::stored(&host.ci().centre, move |centre| {
        centre.store.pipelines(repo, LISTED)?.iter().map(|p| show::line(centre, p, &names)).collect()
    });
    Ok(Json(lines.await?))
}

async fn pipeline(State(host): State<Host>, Path(id): Path<u64>) -> Result<Json<PipelineView>, Failure> {
    Ok(Json(read_pipeline(&host, id).await?))
}

async fn read_pipeline(host: &Host, id: u64) -> Result<PipelineView, Failure> {
    let found = show::stored(&host.ci().centre, move |centre| show::pipeline(centre, id)).await?;
    found.ok_or_else(|| Failure::not_found(format!("there is no pipeline {id}")))
}

#[derive(Debug, Deserialize)]
struct Shown {
    attempt: Option<u32>,
}

async fn job(
    State(host): State<Host>,
    Path(id): Path<u64>,
    Query(shown): Query<Shown>,
) -> Result<Json<JobPage>, Failure> {
    Ok(Json(read_job(&host, id, shown.attempt).await?))
}

async fn read_job(host: &Host, id: u64, attempt: Option<u32>) -> Result<JobPage, Failure> {
    let found = show::stored(&host.ci().centre, move |centre| show::job(centre, id, attempt)).await?;
    found.ok_or_else(|| Failure::not_found(format!("there is no job {id}, or no such attempt")))
}

/// The whole log of an attempt, the newest if none is named.
async fn log(State(host): State<Host>, Path(id): Path<u64>, Query(shown): Query<Shown>) -> Result<Response, Failure> {
    let attempt = read_job(&host, id, shown.attempt).await?.shown;
    let key = JobKey { job: JobId::new(id), attempt: Attempt::new(attempt) };
    let tail = show::stored(&host.ci().centre, move |centre| {
        centre.logs.tail(key, u64::MAX).map_err(|e| super::store::CiStoreError::Value(format!("the log: {e}")))
    });
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, tail.await?.text).into_response())
}

async fn act_on_pipeline(
    State(host): State<Host>,
    Path((id, act)): Path<(u64, String)>,
) -> Result<StatusCode, Failure> {
    let command = match parse_act(&act) {
        Some(Act::Abort) => Engine::abort_pipeline,
        Some(Act::Retry) => Engine::retry_pipeline,
        Some(Act::Approve) | None => return Err(Failure::not_found("a pipeline can be asked to abort or to retry")),
    };
    command_on(&host, |engine, now| command(engine, now, PipelineId::new(id))).await
}

async fn act_on_job(State(host): State<Host>, Path((id, act)): Path<(u64, String)>) -> Result<StatusCode, Failure> {
    let command = match parse_act(&act) {
        Some(Act::Abort) => Engine::abort,
        Some(Act::Retry) => Engine::retry,
        Some(Act::Approve) => Engine::approve,
        None => return Err(Failure::not_found("a job can be asked to abort, to retry, or to go on by approve")),
    };
    command_on(&host, |engine, now| command(engine, now, JobId::new(id))).await
}

fn parse_act(word: &str) -> Option<Act> {
    [Act::Abort, Act::Retry, Act::Approve].into_iter().find(|act| act.word() == word)
}

async fn command_on(
    host: &Host,
    command: impl FnOnce(&mut Engine, Timestamp) -> Result<CallId, Refused>,
) -> Result<StatusCode, Failure> {
    let _told_enough = host.ci().centre.ask(command).await?;
    Ok(StatusCode::NO_CONTENT)
}

// ---- people -------------------------------------------------------------------------------------------------------

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

fn or_sorry(drawn: Result<maud::Markup, Failure>) -> Response {
    drawn.map_or_else(|failure| (failure.status, page::html(page::sorry(&failure.message))).into_response(), page::html)
}

async fn overview_page(State(host): State<Host>) -> Response {
    or_sorry(show::overview(&host).await.map(|view| page::overview(&view)))
}

async fn pipeline_page(State(host): State<Host>, Path(id): Path<u64>) -> Response {
    or_sorry(read_pipeline(&host, id).await.map(|view| page::pipeline(&view)))
}

async fn job_page(State(host): State<Host>, Path(id): Path<u64>, Query(shown): Query<Shown>) -> Response {
    or_sorry(read_job(&host, id, shown.attempt).await.map(|view| page::job(&view)))
}

async fn pipeline_form(State(host): State<Host>, Path((id, act)): Path<(u64, String)>) -> Response {
    back(act_on_pipeline(State(host), Path((id, act))).await, &format!("/-/pipelines/{id}"))
}

async fn job_form(State(host): State<Host>, Path((id, act)): Path<(u64, String)>) -> Response {
    let pipeline = read_job(&host, id, None).await.map(|view| view.line.id);
    let to = pipeline.map_or_else(|_| "/".to_owned(), |id| format!("/-/pipelines/{id}"));
    back(act_on_job(State(host), Path((id, act))).await, &to)
}

fn back(done: Result<StatusCode, Failure>, to: &str) -> Response {
    match done {
        Ok(_) => Redirect::to(to).into_response(),
        Err(failure) => or_sorry(Err(failure)),
    }
}

/// Tells a page that something has changed.
async fn live(State(host): State<Host>) -> Sse<impl Stream<Item = Result<Event, std::convert::Infallible>>> {
    let (turns, closing) = (host.ci().centre.turns(), host.ci().closing.subscribe());
    let nodes = host.turns();
    Sse::new(futures_util::stream::unfold((turns, nodes, closing), async |(mut turns, mut nodes, mut closing)| {
        let ends = tokio::select! {
            _ = turns.changed() => false,
            _ = nodes.changed() => false,
            () = tokio::time::sleep(TELL_AT_LEAST) => false,
            _ = closing.wait_for(|closing| *closing) => true,
        };
        if ends {
            return None;
        }
        // What follows at once is told with it.
        tokio::time::sleep(TELL_AT_MOST).await;
        turns.mark_unchanged();
        nodes.mark_unchanged();
        Some((Ok(Event::default().data("changed")), (turns, nodes, closing)))
    }))
}
