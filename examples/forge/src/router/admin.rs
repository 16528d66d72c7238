//! What an admin does with one repository: delete, rename, fork, its default branch, protected branches, sweeping.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Json, Router as Routes, routing};
use serde::{Deserialize, Serialize};
use tenon_quorum::{Digest, RepoId};
use tenon_refslog::{Command, RefName, Refs, Snapshot, Transaction, Value};

use super::api::{Listed, named, parse};
use super::http::Failure;
use super::nodes::Life;
use super::store::{Pipelines, Protection};
use super::{Host, reads};
use crate::node::gc::Swept;
use crate::wire::Proposed;

/// How often a change of refs is tried again when a push comes in between.
const ATTEMPTS: usize = 4;
/// Records of the log that are looked through for what pipelines still want.
const MOST_RECORDS: usize = 10_000;

pub(super) fn routes() -> Routes<Host> {
    Routes::new()
        .route("/api/repos/{name}", routing::delete(delete))
        .route("/api/repos/{name}/rename", routing::post(rename))
        .route("/api/repos/{name}/fork", routing::post(fork))
        .route("/api/repos/{name}/default-branch", routing::get(default_branch).post(set_default_branch))
        .route("/api/repos/{name}/protected", routing::get(protected).post(protect))
        .route("/api/repos/{name}/sweep", routing::post(sweep))
}

async fn delete(State(host): State<Host>, Path(name): Path<String>) -> Result<StatusCode, Failure> {
    let repo = named(&host, &name).await?;
    host.repos.remove(repo).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Another name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewName {
    pub(crate) name: String,
}

async fn rename(
    State(host): State<Host>,
    Path(name): Path<String>,
    Json(new): Json<NewName>,
) -> Result<Json<Listed>, Failure> {
    let repo = named(&host, &name).await?;
    let new = parse(&new.name)?;
    host.repos.rename(repo, &new).await?;
    Ok(Json(Listed { id: repo.0, name: new.to_string() }))
}

async fn fork(
    State(host): State<Host>,
    Path(name): Path<String>,
    Json(new): Json<NewName>,
) -> Result<Json<Listed>, Failure> {
    let repo = named(&host, &name).await?;
    let new = parse(&new.name)?;
    let made = super::fork::fork(&host, repo, &new).await?;
    Ok(Json(Listed { id: made.0, name: new.to_string() }))
}

/// A branch by its short name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Branch {
    pub(crate) branch: String,
}

async fn default_branch(State(host): State<Host>, Path(name): Path<String>) -> Result<Json<Branch>, Failure> {
    let repo = named(&host, &name).await?;
    let head = refs(&host, repo).await?.get(&crate::git::refs::head_name());
    let branch = head.as_ref().and_then(Value::target_name).map(short).unwrap_or_default();
    Ok(Json(Branch { branch }))
}

async fn set_default_branch(
    State(host): State<Host>,
    Path(name): Path<String>,
    Json(asked): Json<Branch>,
) -> Result<Json<Branch>, Failure> {
    let repo = named(&host, &name).await?;
    point_head(&host, repo, &full(&asked.branch)?).await?;
    Ok(Json(asked))
}

/// Points `HEAD` at a branch that is there.
pub(super) async fn point_head(host: &Host, repo: RepoId, branch: &RefName) -> Result<(), Failure> {
    let mut last = Failure::unavailable("other pushes came in between");
    for _ in 0..ATTEMPTS {
        let refs = refs(host, repo).await?;
        if refs.get(branch).is_none() {
            return Err(Failure::not_found(format!("there is no branch {}", short(branch))));
        }
        let command = Command::update(crate::git::refs::head_name(), Value::Symbolic(branch.clone()));
        let admitted = refs.admit(&Transaction::from(command)).map_err(|refused| {
            let why = refused.verdicts().iter().find_map(|verdict| verdict.reason().map(ToString::to_string));
            Failure::new(StatusCode::CONFLICT, why.unwrap_or_else(|| "HEAD cannot be moved".to_owned()))
        })?;
        let Some(record) = admitted.into_record() else { return Ok(()) };
        let lease = host.writes.begin(repo, Pipelines::Skipped).await.map_err(Failure::unavailable)?;
        if lease.grant().base.newest.version.0 != refs.version().0 {
            let _not_proposed = lease.end().await;
            continue;
        }
        let after = Digest(record.after().checksum.prefix16());
        match lease.propose(after, record.encode()).await {
            Proposed::Applied { .. } => return Ok(()),
            Proposed::NotApplied { reason } | Proposed::Unknown { reason } => last = Failure::unavailable(reason),
        }
    }
    Err(last)
}

/// The refs of a repository as they are now.
pub(super) async fn refs(host: &Host, repo: RepoId) -> Result<Refs, Failure> {
    let mut last = Failure::unavailable("no node could serve the refs");
    for _ in 0..ATTEMPTS {
        let route = reads::route(&host.driver, repo, None).await?;
        // The node applies what the row shows before it says what it holds.
        let row = reads::row(&host.driver, repo).await?;
        if let Some(member) = row.members.iter().find(|member| member.node == route.node) {
            let answer = host.driver.nodes.raise(Life::from(member), &row).await;
            host.driver.tell_answer(route.node, None, answer).await;
        }
        match host.driver.nodes.snapshot(route.node, repo, route.proof.newest).await {
            Ok(bytes) => {
                let snapshot = Snapshot::open(bytes).map_err(Failure::unavailable)?;
                return Refs::restore(host.repos.config().clone(), &snapshot).map_err(Failure::unavailable);
            }
            Err(e) => last = Failure::unavailable(format!("{}: {e:#}", route.node)),
        }
    }
    Err(last)
}

fn short(name: &RefName) -> String {
    let text = String::from_utf8_lossy(name.as_bytes()).into_owned();
    text.strip_prefix("refs/heads/").map(str::to_owned).unwrap_or(text)
}

fn full(branch: &str) -> Result<RefName, Failure> {
    let name = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    RefName::new(format!("refs/heads/{name}").as_bytes())
        .map_err(|e| Failure::new(StatusCode::BAD_REQUEST, format!("`{branch}` is no branch's name: {e}")))
}

/// A branch to protect, or no longer to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Protect {
    pub(crate) branch: String,
    pub(crate) on: bool,
}

async fn protected(State(host): State<Host>, Path(name): Path<String>) -> Result<Json<Vec<String>>, Failure> {
    let repo = named(&host, &name).await?;
    let names = host.driver.stored(move |store| store.protected(repo.0)).await?;
    Ok(Json(names.iter().map(|name| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()).collect()))
}

async fn protect(
    State(host): State<Host>,
    Path(name): Path<String>,
    Json(asked): Json<Protect>,
) -> Result<Json<Vec<String>>, Failure> {
    let repo = named(&host, &name).await?;
    let branch = full(&asked.branch)?;
    let branch = String::from_utf8_lossy(branch.as_bytes()).into_owned();
    let protection = if asked.on { Protection::On } else { Protection::Off };
    host.driver.stored(move |store| store.protect(repo.0, &branch, protection)).await?;
    protected(State(host), Path(name)).await
}

/// What sweeping did on each node: bytes freed, or why not.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SweptNodes {
    pub(crate) nodes: Vec<(u32, Result<Swept, String>)>,
}

async fn sweep(State(host): State<Host>, Path(name): Path<String>) -> Result<Json<SweptNodes>, Failure> {
    let repo = named(&host, &name).await?;
    Ok(Json(SweptNodes { nodes: sweep_all(&host, repo).await? }))
}

/// Sweeps a repository on every node that answers. What pipelines still want stays: the commits of open ones, and those of
/// records that have not been followed yet.
pub(super) async fn sweep_all(host: &Host, repo: RepoId) -> Result<Vec<(u32, Result<Swept, String>)>, Failure> {
    host.survey(repo).await?;
    let keep = wanted_by_pipelines(host, repo).await?;
    let row = reads::row(&host.driver, repo).await?;
    let mut done = Vec::new();
    for member in &row.members {
        let swept = host.driver.nodes.sweep(Life::from(member), repo, &keep).await;
        done.push((member.node.0, swept.map_err(|e| format!("{e:#}"))));
    }
    Ok(done)
}

/// The ids that no ref need reach for pipelines to need them.
pub(super) async fn wanted_by_pipelines(host: &Host, repo: RepoId) -> Result<Vec<String>, Failure> {
    let mut keep = host.ci.open_commits(repo.0).await?;
    let followed = host.ci.followed(repo.0).await?;
    let rows = host.driver.stored(move |store| store.feed(repo.0, followed, MOST_RECORDS)).await?;
    for row in rows.iter().filter(|row| !row.record.is_empty()) {
        let record = tenon_refslog::Record::decode(&row.record).map_err(Failure::unavailable)?;
        keep.extend(record.changes().iter().filter_map(|change| Some(change.new_value()?.id()?.to_hex())));
    }
    keep.sort_unstable();
    keep.dedup();
    Ok(keep)
}
