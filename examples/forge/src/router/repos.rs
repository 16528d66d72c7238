//! Repositories by name, and how one comes to be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tenon_quorum::{CreateRequest, Digest, Epoch, Member, NodeId, RepoId, Row, RowState, ShardId};
use tenon_refslog::{Command, RefName, Refs, Transaction, Value};
use tracing::info;

use super::driver::{Driver, decode};
use super::http::Failure;
use super::name::RepoName;
use super::store::{Newborn, Pipelines};
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
    /// Known to be whole, by the name that each has now.
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
        let Some(id) = self.driver.stored(move |store| store.name(&text)).await? else { return Ok(None) };
        if self.stored_row(RepoId(id)).await?.is_some_and(|row| row.state == RowState::Deleted) {
            // Its deletion was cut short: it is finished.
            let _one_at_a_time = self.creating.lock().await;
            self.driver.stored(move |store| store.forget(id)).await?;
            return Ok(None);
        }
        // Perhaps its creation was cut short: finish it.
        self.ensure(name).await.map(Some)
    }

    /// The id of a repository, which is made if it is not there.
    pub(crate) async fn ensure(&self, name: &RepoName) -> Result<RepoId, Failure> {
        Ok(self.make(name, Newborn::No).await?.0)
    }

    /// The id of a repository for a push that may be its first; whether it was made for this push, which then keeps it
    /// ([`Repos::keep`]) or has it removed again ([`Repos::unmake`]).
    pub(crate) async fn for_push(&self, name: &RepoName) -> Result<(RepoId, Newborn), Failure> {
        match self.find(name).await? {
            Some(repo) => Ok((repo, Newborn::No)),
            None => self.make(name, Newborn::Yes).await,
        }
    }

    async fn make(&self, name: &RepoName, newborn: Newborn) -> Result<(RepoId, Newborn), Failure> {
        let _one_at_a_time = self.creating.lock().await;
        if let Some(repo) = self.known(name) {
            return Ok((repo, Newborn::No));
        }
        let text = name.to_string();
        let repo = RepoId(self.driver.stored(move |store| store.add_name(&text)).await?);
        let row = self.stored_row(repo).await?;
        let made = if row.is_none() { newborn } else { Newborn::No };
        if row.is_none() {
            if made == Newborn::Yes {
                self.driver.stored(move |store| store.set_newborn(repo.0, Newborn::Yes)).await?;
            }
            self.create(repo).await?;
            info!(%repo, %name, "created");
        }
        if row.is_none_or(|row| row.newest.version.0 == 0) {
            self.point_head(repo).await?;
        }
        self.ready().insert(name.clone(), repo);
        Ok((repo, made))
    }

    /// The first push of a repository was taken.
    pub(crate) async fn keep(&self, repo: RepoId) -> Result<(), Failure> {
        Ok(self.driver.stored(move |store| store.set_newborn(repo.0, Newborn::No)).await?)
    }

    /// Removes a repository that was made for a push which was refused, unless another push has come to it meanwhile.
    pub(crate) async fn unmake(&self, repo: RepoId) -> Result<(), Failure> {
        // A push that comes in between would be acknowledged and gone.
        let _nobody_pushes = self.writes.hold(repo).await.map_err(Failure::unavailable)?;
        let row = self.stored_row(repo).await?;
        // The first version says where HEAD points; the second is somebody's push.
        if row.is_some_and(|row| row.newest.version.0 <= 1) { self.remove(repo).await } else { self.keep(repo).await }
    }

    /// Finishes with what was left when the router ended in the middle of first pushes.
    pub(crate) async fn unmake_all(&self) -> Result<(), Failure> {
        for repo in self.driver.stored(|store| store.newborns()).await? {
            self.unmake(RepoId(repo)).await?;
        }
        Ok(())
    }

    /// Deletes a repository: its name is free at once, its nodes drop it, what is under way in it is refused.
    pub(crate) async fn remove(&self, repo: RepoId) -> Result<(), Failure> {
        let _one_at_a_time = self.creating.lock().await;
        let done = self.driver.change(|router, now| router.delete(now, repo)).await;
        done.map_err(Failure::unavailable)?;
        self.ready().retain(|_, known| *known != repo);
        self.driver.stored(move |store| store.forget(repo.0)).await?;
        info!(%repo, "deleted");
        Ok(())
    }

    /// Gives a repository another name, under which alone it is found from then on.
    pub(crate) async fn rename(&self, repo: RepoId, name: &RepoName) -> Result<(), Failure> {
        let _one_at_a_time = self.creating.lock().await;
        let text = name.to_string();
        if !self.driver.stored(move |store| store.rename(repo.0, &text)).await? {
            return Err(Failure::new(StatusCode::CONFLICT, format!("there is a repository {name} already")));
        }
        let mut ready = self.ready();
        ready.retain(|_, known| *known != repo);
        ready.insert(name.clone(), repo);
        Ok(())
    }

    async fn stored_row(&self, repo: RepoId) -> Result<Option<Row>, Failure> {
        let body = self.driver.stored(move |store| store.row(repo.0)).await?;
        Ok(body.and_then(|body| decode(repo, &body)))
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, BTreeMap<RepoName, RepoId>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, name: &RepoName) -> Option<RepoId> {
        self.ready().get(name).copied()
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
        let lease = self.writes.begin(repo, Pipelines::Wanted).await.map_err(Failure::unavailable)?;
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
