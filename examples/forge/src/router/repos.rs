//! Repositories by name, and how one comes to be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenon_quorum::{CreateRequest, Digest, Epoch, Member, NodeId, RepoId, ShardId};
use tenon_refslog::{Command, RefName, Refs, Transaction, Value};
use tracing::info;

use super::driver::{Driver, decode};
use super::http::Failure;
use super::name::RepoName;
use super::writes::Writes;
use crate::wire::{self, Proposed};

/// How many nodes hold a repository.
pub(crate) const REPLICAS: u32 = 3;

/// The shards of so many nodes: nodes 1 to 3 are the first, 4 to 6 the second, and so on.
pub(crate) const fn shards(nodes: u32) -> u32 {
    nodes / REPLICAS
}

/// The shard that a node belongs to.
pub(crate) const fn shard_of(node: NodeId) -> ShardId {
    ShardId((node.0 - 1) / REPLICAS + 1)
}

/// How long a creation waits for nodes that have not registered yet.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a creation waits for members that are up; those that are late are repaired.
const INITIALISE: Duration = Duration::from_secs(2);

/// Names, and creation.
#[derive(Debug)]
pub(crate) struct Repos {
    driver: Arc<Driver>,
    writes: Arc<Writes>,
    config: tenon_refslog::Config,
    shards: u32,
    /// Known to be whole; a name never leads to another id.
    ready: Mutex<BTreeMap<RepoName, RepoId>>,
    /// One creation at a time.
    creating: tokio::sync::Mutex<()>,
}

impl Repos {
    pub(crate) fn new(driver: Arc<Driver>, writes: Arc<Writes>, config: tenon_refslog::Config, shards: u32) -> Self {
        Self { driver, writes, config, shards, ready: Mutex::default(), creating: tokio::sync::Mutex::new(()) }
    }

    /// The rules of every repository's refs.
    pub(crate) fn config(&self) -> &tenon_refslog::Config {
        &self.config
    }

    /// The id of a repository that exists.
    pub(crate) async fn find(&self, name: &RepoName) -> Result<Option<RepoId>, Failure> {
        if let Some(repo) = self.known(name) {
            return Ok(Some(repo));
        }
        let text = name.to_string();
        match self.driver.stored(move |store| store.name(&text)).await? {
            // Perhaps its creation was cut short: finish it.
            Some(_) => self.ensure(name).await.map(Some),
            None => Ok(None),
        }
    }

    /// The id of a repository, which is made if it is not there.
    pub(crate) async fn ensure(&self, name: &RepoName) -> Result<RepoId, Failure> {
        let _one_at_a_time = self.creating.lock().await;
        if let Some(repo) = self.known(name) {
            return Ok(repo);
        }
        let text = name.to_string();
        let repo = RepoId(self.driver.stored(move |store| store.add_name(&text)).await?);
        let row = self.driver.stored(move |store| store.row(repo.0)).await?;
        let row = row.and_then(|body| decode(repo, &body));
        if row.is_none() {
            self.create(repo).await?;
            info!(%repo, %name, "created");
        }
        if row.is_none_or(|row| row.newest.version.0 == 0) {
            self.point_head(repo).await?;
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), repo);
        Ok(repo)
    }

    fn known(&self, name: &RepoName) -> Option<RepoId> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    async fn create(&self, repo: RepoId) -> Result<(), Failure> {
        let shard = ShardId(u32::try_from(repo.0 % u64::from(self.shards)).unwrap_or(0) + 1);
        let members = self.members(shard).await?;
        let empty = Digest(Refs::new(self.config.clone(), wire::lineage(repo, Epoch(1))).checksum().prefix16());
        let request = CreateRequest::new(repo, shard, members, empty);
        let done = self.driver.change(|router, now| router.create(now, &request)).await;
        done.map_err(Failure::unavailable)?;
        self.initialised(repo).await;
        Ok(())
    }

    /// Gives every member a moment to start its replica, so that all take part in the first write.
    async fn initialised(&self, repo: RepoId) {
        let end = tokio::time::Instant::now() + INITIALISE;
        loop {
            let mut turns = self.driver.turns();
            let all = self.driver.view(|core| core.router.tally(repo).is_some_and(|t| t.able() + t.down == t.voters));
            if all || tokio::time::timeout_at(end, turns.changed()).await.is_err() {
                return;
            }
        }
    }

    /// The nodes of a shard, once each has said who it is.
    pub(crate) async fn members(&self, shard: ShardId) -> Result<Vec<Member>, Failure> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut turns = self.driver.turns();
            let nodes = self.driver.nodes.all().into_iter().filter(|(node, _)| shard_of(*node) == shard);
            let members: Vec<Member> = nodes.map(|(node, known)| Member::voter(node, known.incarnation)).collect();
            if members.len() >= REPLICAS as usize {
                return Ok(members);
            }
            if tokio::time::timeout_at(end, turns.changed()).await.is_err() {
                let there = members.len();
                return Err(Failure::unavailable(format!("{there} of {REPLICAS} nodes of {shard} have registered")));
            }
        }
    }

    /// The first record of every log: where HEAD points, so that no clone is without a branch to be on.
    async fn point_head(&self, repo: RepoId) -> Result<(), Failure> {
        let lease = self.writes.begin(repo).await.map_err(Failure::unavailable)?;
        let base = lease.grant().base.newest;
        if base.version.0 > 0 {
            return Ok(());
        }
        let refs = Refs::new(self.config.clone(), wire::lineage(repo, base.epoch));
        let record = first_record(&refs).ok_or_else(|| Failure::unavailable("HEAD was not admitted"))?;
        let after = Digest(record.after().checksum.prefix16());
        match lease.propose(after, record.encode()).await {
            Proposed::Applied { .. } => Ok(()),
            Proposed::NotApplied { reason } | Proposed::Unknown { reason } => Err(Failure::unavailable(reason)),
        }
    }
}

fn first_record(refs: &Refs) -> Option<tenon_refslog::Record> {
    let head = RefName::new("HEAD").ok()?;
    let main = RefName::new("refs/heads/main").ok()?;
    let command = Command::update(head, Value::Symbolic(main));
    refs.admit(&Transaction::from(command)).ok()?.into_record()
}
