//! The API: repositories, status, inspection, nodes; and the calls that nodes make.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Json, Router as Routes, middleware, routing};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tenon_quorum::{NodeId, RepoId, ShardId, Start, Verdict, WriteId};

use super::http::{self, Failure};
use super::name::RepoName;
use super::store::LogRows;
use super::{Host, admin, fork, nodes, reads, writes};
use crate::supervise::Order;
use crate::wire::{self, Begin, LogPart, Proposed, Register, Registered};

/// The largest record that a node may propose.
const MAX_RECORD_BYTES: usize = 64 << 20;
/// How many questions are put to nodes at once.
const AT_ONCE: usize = 16;

pub(crate) fn routes(host: &Host) -> Routes<Host> {
    let public = Routes::new()
        .route("/api/repos", routing::get(list).post(create))
        .route("/api/repos/{name}/compact", routing::post(compact))
        .route("/api/repos/{name}/inspect", routing::get(inspect))
        .route("/api/repos/{name}/rebuild/{node}", routing::post(rebuild))
        .route("/api/repos/{name}/migrate/{shard}", routing::post(migrate))
        .route("/api/store/recover", routing::post(recover))
        .route("/api/status", routing::get(status))
        .route("/api/nodes/{id}/replace", routing::post(replace))
        .route("/api/nodes/{id}/{order}", routing::post(order))
        .merge(admin::routes())
        .merge(fork::routes());
    let internal = Routes::new()
        .route("/internal/register", routing::post(register))
        .route("/internal/writes/{write}/propose", routing::post(propose))
        .route("/internal/repos/{id}/log", routing::get(log))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_RECORD_BYTES))
        .layer(middleware::from_fn_with_state(host.clone(), http::internal));
    public.merge(internal)
}

/// A repository in a list.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: u64,
    pub(crate) name: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
}

async fn list(State(host): State<Host>) -> Result<Json<Vec<Listed>>, Failure> {
    let names = host.driver.stored(|store| store.names()).await?;
    Ok(Json(names.into_iter().map(|(id, name)| Listed { id, name }).collect()))
}

async fn create(State(host): State<Host>, Json(asked): Json<Named>) -> Result<(StatusCode, Json<Listed>), Failure> {
    let name = parse(&asked.name)?;
    let there = host.repos.find(&name).await?;
    let repo = host.repos.ensure(&name).await?;
    let status = if there.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Listed { id: repo.0, name: name.to_string() })))
}

/// Everything that `forge status` shows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) url: String,
    pub(crate) quorum: String,
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) repos: Vec<RepoStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) node: u32,
    pub(crate) datacentre: u32,
    pub(crate) url: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) up: bool,
    pub(crate) incarnation: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RepoStatus {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) shard: u32,
    pub(crate) version: u64,
    pub(crate) epoch: u32,
    pub(crate) digest: String,
    pub(crate) fence: String,
    pub(crate) replicas: Vec<ReplicaStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReplicaStatus {
    pub(crate) node: u32,
    /// In a word: current, lagging, divergent, ahead, unknown, down.
    pub(crate) standing: String,
    /// Versions behind, where it is known.
    pub(crate) lag: Option<u64>,
}

async fn status(State(host): State<Host>) -> Result<Json<Status>, Failure> {
    let names = host.driver.stored(|store| store.names()).await?;
    let repos = futures_util::stream::iter(names)
        .map(|(id, name)| repo_status(&host, RepoId(id), name))
        .buffered(AT_ONCE)
        .filter_map(|status| async { status })
        .collect()
        .await;
    let nodes = (1..=host.nodes).map(|id| {
        let known = host.driver.nodes.known(NodeId(id));
        NodeStatus {
            node: id,
            datacentre: id,
            pid: host.supervisor.pid(id),
            up: known.as_ref().is_some_and(nodes::Known::is_up),
            incarnation: known.as_ref().map(|k| k.incarnation.0),
            url: known.map(|k| k.url),
        }
    });
    let quorum = host.driver.view(|core| core.router.config().quorum());
    let quorum = format!("{}/{}/{}", quorum.voters(), quorum.read(), quorum.write());
    Ok(Json(Status { url: host.url.clone(), quorum, nodes: nodes.collect(), repos }))
}

async fn repo_status(host: &Host, repo: RepoId, name: String) -> Option<RepoStatus> {
    // A fresh row and fresh reports; what lags is repaired from here on.
    let _shown_anyway = host.survey(repo).await;
    let row = host.driver.view(|core| core.router.row_of(repo))?;
    let replicas = host.driver.view(|core| {
        let members = core.router.members(repo);
        members
            .map(|(member, verdict, health)| {
                // Up, but with another disk than the one that is a member: not down, and not what the row means.
                let known = host.driver.nodes.known(member.node);
                let stranger = known.is_some_and(|k| k.is_up() && k.incarnation != member.incarnation);
                let down = matches!(health, None | Some(tenon_quorum::Health::Down)) && !stranger;
                let (standing, lag) = standing(verdict, row.newest.version.0);
                ReplicaStatus { node: member.node.0, standing: if down { "down" } else { standing }.to_owned(), lag }
            })
            .collect()
    });
    Some(RepoStatus {
        id: repo.0,
        name,
        shard: row.shard.0,
        version: row.newest.version.0,
        epoch: row.newest.epoch.0,
        digest: row.newest.digest.to_string(),
        fence: row.fence.to_string(),
        replicas,
    })
}

pub(crate) fn standing(verdict: Verdict, newest: u64) -> (&'static str, Option<u64>) {
    match verdict {
        Verdict::Current => ("current", Some(0)),
        Verdict::Lagging { applied } => ("lagging", Some(newest.saturating_sub(applied.version.0))),
        Verdict::Divergent { .. } => ("divergent", None),
        Verdict::Rewound { applied } => ("rewound", Some(newest.saturating_sub(applied.version.0))),
        Verdict::Ahead { .. } | Verdict::RowOld => ("ahead", None),
        Verdict::Unknown => ("unknown", None),
    }
}

/// What every replica of a repository holds, compared.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Inspection {
    pub(crate) version: u64,
    pub(crate) digest: String,
    pub(crate) replicas: Vec<Inspected>,
    /// Whether all replicas were asked and hold the same refs, those that the row says.
    pub(crate) alike: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Inspected {
    pub(crate) node: u32,
    /// Why nothing is known, if nothing is.
    pub(crate) error: Option<String>,
    pub(crate) version: Option<u64>,
    /// Of the refs that Git lists, computed now.
    pub(crate) digest: Option<String>,
    pub(crate) refs: Option<String>,
}

async fn inspect(State(host): State<Host>, Path(name): Path<String>) -> Result<Json<Inspection>, Failure> {
    let repo = named(&host, &name).await?;
    let route = reads::route(&host.driver, repo, None).await?;
    host.survey(repo).await?;
    let newest = route.proof.newest;
    let row = host.driver.view(|core| core.router.row_of(repo));
    let asked = row.iter().flat_map(|row| &row.members).map(|member| async {
        let node = member.node;
        match host.driver.nodes.refs(node, repo).await {
            Ok(view) => Inspected {
                node: node.0,
                error: None,
                version: Some(view.report.applied.version.0),
                digest: Some(view.digest),
                refs: Some(view.refs),
            },
            Err(e) => {
                Inspected { node: node.0, error: Some(format!("{e:#}")), version: None, digest: None, refs: None }
            }
        }
    });
    let replicas = futures_util::future::join_all(asked).await;
    let digest = newest.digest.to_string();
    let first = replicas.first().and_then(|r| r.refs.clone());
    let alike = replicas.iter().all(|r| {
        r.error.is_none()
            && r.digest.as_deref() == Some(digest.as_str())
            && r.version == Some(newest.version.0)
            && r.refs == first
    });
    Ok(Json(Inspection { version: newest.version.0, digest, replicas, alike }))
}

async fn compact(State(host): State<Host>, Path(name): Path<String>) -> Result<Json<super::log::Compacted>, Failure> {
    let repo = named(&host, &name).await?;
    Ok(Json(super::log::compact(&host, repo).await?))
}

/// A replica thrown away and built again from the log and another replica's objects.
async fn rebuild(
    State(host): State<Host>,
    Path((name, node)): Path<(String, u32)>,
) -> Result<Json<BTreeMap<String, u64>>, Failure> {
    let repo = named(&host, &name).await?;
    let node = NodeId(node);
    let answer = host.driver.nodes.rebuild(node, repo).await.map_err(Failure::unavailable)?;
    host.driver.tell_answer(node, None, Ok(answer)).await;
    let version = host.repaired(repo, node).await?;
    Ok(Json(BTreeMap::from([("version".to_owned(), version)])))
}

/// A repository brought to another shard.
async fn migrate(
    State(host): State<Host>,
    Path((name, shard)): Path<(String, u32)>,
) -> Result<Json<super::Moved>, Failure> {
    let repo = named(&host, &name).await?;
    Ok(Json(super::migrate::migrate(&host, repo, ShardId(shard)).await?))
}

/// The store came back from a backup: what is newest is found out from the nodes.
async fn recover(State(host): State<Host>) -> Result<Json<super::Recovered>, Failure> {
    Ok(Json(super::recover::recover(&host).await?))
}

async fn order(State(host): State<Host>, Path((id, order)): Path<(u32, String)>) -> Result<StatusCode, Failure> {
    let order = match order.as_str() {
        "start" => Order::Start,
        "stop" => Order::Stop,
        "kill" => Order::Kill,
        _ => return Err(Failure::not_found("an order is start, stop or kill")),
    };
    host.supervisor.order(id, order).await.map_err(Failure::not_found)?;
    host.driver.check_node(NodeId(id)).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn replace(State(host): State<Host>, Path(id): Path<u32>) -> Result<Json<super::Replaced>, Failure> {
    Ok(Json(super::replace::replace(&host, NodeId(id)).await?))
}

/// A node starts in steps: it gets a life, if its disk is empty; a boot, which it writes down; then it is one of us.
async fn register(State(host): State<Host>, Json(asked): Json<Register>) -> Result<Json<Registered>, Failure> {
    let (node, disk) = (asked.node, asked.boot);
    let Some(incarnation) = asked.incarnation else {
        let life = host.driver.stored(|store| store.draw_life()).await?;
        return Ok(Json(Registered { checksum_key: host.checksum_key, begin: Begin::Life(life) }));
    };
    let begin = match host.driver.stored(move |store| store.start_node(node.0, incarnation, disk)).await? {
        Start::Keep { boot, rewound } => Begin::Boot { boot, rewound },
        Start::Ready => {
            host.driver.nodes.register(node, incarnation, asked.url);
            host.driver.node_up(node, incarnation);
            // What it missed while it was away is brought to it before anybody asks for it.
            tokio::spawn(host.clone().survey_all());
            Begin::Ready
        }
    };
    Ok(Json(Registered { checksum_key: host.checksum_key, begin }))
}

async fn propose(
    State(host): State<Host>,
    Path(write): Path<u64>,
    headers: HeaderMap,
    record: Bytes,
) -> Result<Json<Proposed>, Failure> {
    let ask = wire::from_header(&headers, wire::ASK)
        .ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "a proposal needs its header"))?;
    // The proposal is carried through even if its node dies while it waits.
    let proposed = tokio::spawn(async move { writes::propose(&host.driver, WriteId(write), ask, record).await });
    proposed.await.map(Json).map_err(Failure::unavailable)
}

#[derive(Debug, Deserialize)]
struct LogRange {
    from: u64,
    to: u64,
}

async fn log(
    State(host): State<Host>,
    Path(id): Path<u64>,
    Query(range): Query<LogRange>,
) -> Result<Response, Failure> {
    let rows = host.driver.stored(move |store| store.log(id, range.from)).await?;
    Ok(Response::new(Body::from(pieces(rows, range.to))))
}

/// A log up to a version, as a node reads it.
pub(crate) fn pieces(rows: LogRows, to: u64) -> Bytes {
    let mut out = BytesMut::new();
    if let Some((_, bytes)) = rows.snapshot {
        LogPart::Snapshot(bytes.into()).put(&mut out);
    }
    for segment in rows.segments {
        LogPart::Segment(segment.bytes.into()).put(&mut out);
    }
    for row in rows.tail.into_iter().filter(|row| row.version <= to) {
        LogPart::Record(row.record.into()).put(&mut out);
    }
    out.freeze()
}

pub(super) fn parse(name: &str) -> Result<RepoName, Failure> {
    RepoName::parse(name).map_err(|e| Failure::new(StatusCode::BAD_REQUEST, e))
}

pub(super) async fn named(host: &Host, name: &str) -> Result<RepoId, Failure> {
    let name = parse(name)?;
    host.repos.find(&name).await?.ok_or_else(|| Failure::not_found(format!("there is no repository {name}")))
}
