//! A repository as one stream of bytes: out of one, into another. A fork is made so, and a backup is brought back.
//!
//! The stream is a line of JSON ([`Lead`]) and then exactly what a client would send that pushed everything. What comes in is
//! taken as the first push of a new repository, shipped and checked like any: if it fails, there is no repository.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router as Routes, routing};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use tenon_quorum::RepoId;
use tenon_refslog::{RefName, Value};

use super::api::{Listed, named, parse};
use super::http::Failure;
use super::name::RepoName;
use super::push::{self, PushEnd, Size};
use super::store::{Newborn, Protection};
use super::{Host, admin, reads};
use crate::git::pkt;

/// The longest first line, in bytes.
const LONGEST_LEAD: usize = 1 << 20;
/// What is taken in has no limit but the disk's.
const NO_LIMIT: u64 = u64::MAX / 16;

pub(super) fn routes() -> Routes<Host> {
    Routes::new()
        .route("/api/repos/{name}/export", routing::get(export))
        .route("/api/repos/{name}/import", routing::post(import))
}

/// What a repository is beyond its refs and objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lead {
    /// The branch that `HEAD` names, in full, if it is there.
    head: Option<String>,
    /// Protected branches, in full.
    protected: Vec<String>,
    /// How many refs follow.
    refs: usize,
}

/// Makes `name` a fork of `parent`; its id.
///
/// # Errors
/// There is a repository of that name, or the parent cannot be read; there is no fork then.
pub(super) async fn fork(host: &Host, parent: RepoId, name: &RepoName) -> Result<RepoId, Failure> {
    let (lead, body) = everything(host, parent).await?;
    take_in(host, name, Lead { protected: Vec::new(), ..lead }, Body::from_stream(body)).await
}

async fn export(State(host): State<Host>, Path(name): Path<String>) -> Result<Response, Failure> {
    let repo = named(&host, &name).await?;
    let (lead, body) = everything(&host, repo).await?;
    let mut line = serde_json::to_vec(&lead).map_err(Failure::unavailable)?;
    line.push(b'\n');
    let body = futures_util::stream::iter([Ok(Bytes::from(line))]).chain(body);
    Ok(([(header::CONTENT_TYPE, "application/x-forge-repository")], Body::from_stream(body)).into_response())
}

async fn import(
    State(host): State<Host>,
    Path(name): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Listed>), Failure> {
    let name = parse(&name)?;
    let mut blocks = body.into_data_stream();
    let mut start = BytesMut::new();
    let end = loop {
        if let Some(end) = start.iter().position(|byte| *byte == b'\n') {
            break end;
        }
        let block = blocks.next().await.and_then(Result::ok).filter(|_| start.len() <= LONGEST_LEAD);
        let no = || Failure::new(StatusCode::BAD_REQUEST, "this is no repository that forge has exported");
        start.extend_from_slice(&block.ok_or_else(no)?);
    };
    let line = start.split_to(end + 1);
    let lead: Lead = serde_json::from_slice(&line).map_err(|e| {
        Failure::new(StatusCode::BAD_REQUEST, format!("this is no repository that forge has exported: {e}"))
    })?;
    let rest = futures_util::stream::iter([Ok(start.freeze())]).chain(blocks);
    let made = take_in(&host, &name, lead, Body::from_stream(rest)).await?;
    Ok((StatusCode::CREATED, Json(Listed { id: made.0, name: name.to_string() })))
}

/// All of a repository: what it is, and the push that would make it.
async fn everything(
    host: &Host,
    repo: RepoId,
) -> Result<(Lead, impl Stream<Item = std::io::Result<Bytes>> + Send + use<>), Failure> {
    let refs = admin::refs(host, repo).await?;
    let head = refs.get(&crate::git::refs::head_name());
    let head = head.as_ref().and_then(Value::target_name).filter(|branch| refs.get(branch).is_some());
    let head = head.map(|branch| String::from_utf8_lossy(branch.as_bytes()).into_owned());
    let protected = host.driver.stored(move |store| store.protected(repo.0)).await?;
    let mut commands = Vec::new();
    let mut tips = Vec::new();
    for (name, value) in refs.iter() {
        let Some(id) = Value::id(&value).filter(|_| !name.is_head()) else { continue };
        let capabilities = if tips.is_empty() { "\0report-status" } else { "" };
        let ids = format!("{} {} ", "0".repeat(40), id.to_hex());
        pkt::put(&mut commands, &[ids.as_bytes(), name.as_bytes(), capabilities.as_bytes()].concat());
        tips.push(id.to_hex());
    }
    pkt::flush(&mut commands);
    let lead = Lead { head, protected, refs: tips.len() };
    tips.sort_unstable();
    tips.dedup();
    let pack = if tips.is_empty() {
        futures_util::stream::empty().left_stream()
    } else {
        let route = reads::route(&host.driver, repo, None).await?;
        host.driver.nodes.pack(&route, &tips).await.map_err(Failure::unavailable)?.right_stream()
    };
    Ok((lead, futures_util::stream::iter([Ok(Bytes::from(commands))]).chain(pack)))
}

/// Makes a repository of what another was.
async fn take_in(host: &Host, name: &RepoName, lead: Lead, body: Body) -> Result<RepoId, Failure> {
    let taken = || Failure::new(StatusCode::CONFLICT, format!("there is a repository {name} already"));
    if host.repos.find(name).await?.is_some() {
        return Err(taken());
    }
    let body = Body::from_stream(body.into_data_stream().map_err(std::io::Error::other));
    let body = host.spool.take(body, NO_LIMIT).await.map_err(Failure::unavailable)?;
    let asked = push::commands(&body).await?;
    if asked.commands().len() != lead.refs {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "the repository is cut short: not all of its refs are there",
        ));
    }
    if lead.refs == 0 {
        return host.repos.ensure(name).await;
    }
    let (made, Newborn::Yes) = host.repos.for_push(name).await? else { return Err(taken()) };
    let pushed = push::take_through(host, made, (&asked, Size::Any), body).await;
    if !pushed.as_ref().is_ok_and(|pushed| pushed.end == PushEnd::Taken) {
        host.repos.unmake(made).await?;
        let why = pushed?.why.unwrap_or_default();
        return Err(Failure::unavailable(format!("{name} was not made: {why}")));
    }
    host.repos.keep(made).await?;
    if let Some(head) = lead.head.and_then(|head| RefName::new(head.as_bytes()).ok()) {
        admin::point_head(host, made, &head).await?;
    }
    for branch in lead.protected {
        host.driver.stored(move |store| store.protect(made.0, &branch, Protection::On)).await?;
    }
    Ok(made)
}
