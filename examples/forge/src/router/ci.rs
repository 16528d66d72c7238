//! What pipelines take from the rest of the host: pushes as they were committed, files of commits, how things stand.

use tenon_quorum::{Health, NodeId, RepoId, Verdict};
use tokio::sync::watch;

use super::api::standing;
use super::http::Failure;
use super::nodes::{Answer, Served};
use super::store::FeedRow;
use super::{Host, nodes, reads};
use crate::ci::Ci;
use crate::ci::view::{NodeView, ReplicaView};
use crate::wire::FileView;

/// How often a read is routed again when nodes fail it.
const ATTEMPTS: usize = 6;

/// A repository as it stands in memory.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) shard: u32,
    pub(crate) version: u64,
    pub(crate) replicas: Vec<ReplicaView>,
}

impl Host {
    /// Pipelines.
    pub(crate) fn ci(&self) -> &Ci {
        &self.ci
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Changes with everything that happens to repositories.
    pub(crate) fn turns(&self) -> watch::Receiver<u64> {
        self.driver.turns()
    }

    /// Every repository, and how it stands in memory; one that nobody asked for yet has no version.
    pub(crate) async fn shown(&self) -> Result<Vec<Shown>, Failure> {
        let names = self.driver.stored(|store| store.names()).await?;
        Ok(self.driver.view(|core| {
            let shown = names.into_iter().map(|(id, name)| {
                let repo = RepoId(id);
                let row = core.router.row_of(repo);
                let newest = row.as_ref().map_or(0, |row| row.newest.version.0);
                let members = core.router.members(repo);
                let replicas = members.map(|(member, verdict, health)| replica(member.node, verdict, health, newest));
                Shown {
                    id,
                    name,
                    shard: row.map_or(0, |row| row.shard.0),
                    version: newest,
                    replicas: replicas.collect(),
                }
            });
            shown.collect()
        }))
    }

    pub(crate) fn nodes_shown(&self) -> Vec<NodeView> {
        let shown = (1..=self.nodes).map(|id| NodeView {
            node: id,
            datacentre: id,
            up: self.driver.nodes.known(NodeId(id)).as_ref().is_some_and(nodes::Known::is_up),
            pid: self.supervisor.pid(id),
        });
        shown.collect()
    }

    /// Committed changes of a repository with a version above `after`, oldest first.
    pub(crate) async fn pushes(&self, repo: u64, after: u64, most: usize) -> Result<Vec<FeedRow>, Failure> {
        Ok(self.driver.stored(move |store| store.feed(repo, after, most)).await?)
    }

    /// One file of what an object leads to, from a node that is current.
    pub(crate) async fn file(&self, repo: u64, object: &str, path: &str, most: usize) -> Result<FileView, Failure> {
        let repo = RepoId(repo);
        let nodes = &self.driver.nodes;
        let mut last = Failure::unavailable("no node could serve the read");
        for _ in 0..ATTEMPTS {
            let route = reads::route(&self.driver, repo, None).await?;
            match nodes.file(&route, object, path, most).await {
                Ok(Served::Reply(reply)) => return reply.json().await.map_err(Failure::unavailable),
                Ok(Served::Refused(refused)) => {
                    last = Failure::unavailable(format!("{} refused the read: {}", route.node, refused.reason));
                    self.driver.tell_answer(route.node, None, Ok(Answer::Refused(refused))).await;
                }
                Err(e) => {
                    self.driver.node_failed(route.node, &e).await;
                    last = Failure::unavailable(format!("{} failed: {e:#}", route.node));
                }
            }
        }
        Err(last)
    }
}

fn replica(node: NodeId, verdict: Verdict, health: Option<Health>, newest: u64) -> ReplicaView {
    let down = matches!(health, None | Some(Health::Down));
    let (standing, lag) = standing(verdict, newest);
    ReplicaView { node: node.0, standing: if down { "down" } else { standing }, lag }
}
