//! A repository moves to another shard, readable throughout.

use serde::{Deserialize, Serialize};
use tenon_quorum::{MigrateRequest, RepoId, ShardId};

use super::http::Failure;
use super::{Host, repos};

/// Where a repository is now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) shard: u32,
    pub(crate) nodes: Vec<u32>,
}

/// Moves `repo`, and all that was forked from it; asked again, it goes on where it was cut short.
pub(crate) async fn migrate(host: &Host, repo: RepoId, to: ShardId) -> Result<Moved, Failure> {
    let shards = repos::shards(host.nodes);
    if to.0 == 0 || to.0 > shards {
        return Err(Failure::not_found(format!("there is no {to}: of {} nodes there are {shards} shards", host.nodes)));
    }
    host.survey(repo).await?;
    let row = host.driver.view(|core| core.router.row_of(repo));
    let root = row.map(|row| row.family).ok_or_else(|| Failure::not_found("there is no such repository"))?;
    let request = MigrateRequest::new(root, to, host.repos.members(to).await?);
    host.driver.change(|router, now| router.migrate(now, &request)).await.map_err(Failure::unavailable)?;
    let row = host.driver.view(|core| core.router.row_of(repo));
    let nodes = row.iter().flat_map(|row| &row.members).map(|member| member.node.0).collect();
    Ok(Moved { shard: to.0, nodes })
}
