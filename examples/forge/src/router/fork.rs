//! A fork: a repository of its own that begins with all that another has.
//!
//! It is made as its first push: everything is packed where it is, shipped to the new repository's nodes and checked like any
//! push. If that fails, there is no fork.

use axum::http::StatusCode;
use futures_util::StreamExt as _;
use tenon_quorum::RepoId;
use tenon_refslog::Value;

use super::http::Failure;
use super::name::RepoName;
use super::push::{self, PushEnd};
use super::store::Newborn;
use super::{Host, admin, reads};
use crate::git::pkt;

/// Makes `name` a fork of `parent`; its id.
///
/// # Errors
/// There is a repository of that name, or the parent cannot be read; there is no fork then.
pub(super) async fn fork(host: &Host, parent: RepoId, name: &RepoName) -> Result<RepoId, Failure> {
    if host.repos.find(name).await?.is_some() {
        return Err(Failure::new(StatusCode::CONFLICT, format!("there is a repository {name} already")));
    }
    let refs = admin::refs(host, parent).await?;
    let head = refs.get(&crate::git::refs::head_name());
    let head = head.as_ref().and_then(Value::target_name).filter(|branch| refs.get(branch).is_some()).cloned();
    let mut commands = Vec::new();
    let mut tips = Vec::new();
    for (name, value) in refs.iter() {
        let Some(id) = Value::id(&value).filter(|_| !name.is_head()) else { continue };
        let lead = if tips.is_empty() { "\0report-status" } else { "" };
        let ids = format!("{} {} ", "0".repeat(40), id.to_hex());
        pkt::put(&mut commands, &[ids.as_bytes(), name.as_bytes(), lead.as_bytes()].concat());
        tips.push(id.to_hex());
    }
    pkt::flush(&mut commands);
    if tips.is_empty() {
        return host.repos.ensure(name).await;
    }
    tips.sort_unstable();
    tips.dedup();
    let route = reads::route(&host.driver, parent, None).await?;
    let pack = host.driver.nodes.pack(&route, &tips).await.map_err(Failure::unavailable)?;
    let start = futures_util::stream::iter([Ok(bytes::Bytes::from(commands))]);
    let body = axum::body::Body::from_stream(start.chain(pack));
    let body = host.spool.take(body, u64::MAX / 16).await.map_err(Failure::unavailable)?;
    let asked = push::commands(&body).await?;
    let (made, newborn) = host.repos.for_push(name).await?;
    if newborn == Newborn::No {
        return Err(Failure::new(StatusCode::CONFLICT, format!("there is a repository {name} already")));
    }
    let pushed = push::take_through(host, made, &asked, body).await;
    let taken = pushed.as_ref().is_ok_and(|pushed| pushed.end == PushEnd::Taken);
    if !taken {
        host.repos.unmake(made).await?;
        let why = pushed?.why.unwrap_or_default();
        return Err(Failure::unavailable(format!("the fork was not made: {why}")));
    }
    host.repos.keep(made).await?;
    if let Some(head) = head {
        admin::point_head(host, made, &head).await?;
    }
    Ok(made)
}
