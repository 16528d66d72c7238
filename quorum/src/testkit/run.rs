//! One run: routers, work under way, and the model that the host is checked against.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::act::{Job, Read};
use super::books::Books;
use super::shadow::Shadow;
use super::{Host, NODES, Order, REPOS, Ran, failed};
use crate::boot::Disk;
use crate::config::Config;
use crate::goal::CreateRequest;
use crate::id::{Digest, Fence, Incarnation, NodeId, RepoId, RequestId, RouterId, ShardId, Version};
use crate::migrate::Way;
use crate::node::NodeState;
use crate::read::ReadRequest;
use crate::rng::{Rng, mix};
use crate::router::Router;
use crate::row::{Member, RowState};
use crate::time::Timestamp;
use crate::write::{Outcome, WriteRequest};

pub(super) struct Run<'a, H> {
    pub(super) host: &'a mut H,
    pub(super) rng: Rng,
    pub(super) config: Config,
    pub(super) now: Timestamp,
    pub(super) routers: [Router; 2],
    /// The jobs under way, each with its router.
    pub(super) jobs: Vec<(usize, Job)>,
    pub(super) books: Books,
    pub(super) nodes: BTreeMap<(NodeId, RepoId), Shadow>,
    /// The starts of each node.
    pub(super) disks: BTreeMap<NodeId, Disk>,
    /// A copy of a node's disk, and what each of its gates was then.
    pub(super) copy: Option<(NodeId, Disk, BTreeMap<RepoId, Shadow>)>,
    pub(super) contents: BTreeMap<Digest, Vec<u8>>,
    /// What each request was granted.
    pub(super) granted: BTreeMap<RequestId, (RepoId, Fence)>,
    pub(super) answers: BTreeMap<RequestId, Outcome>,
    asked: u64,
    pub(super) reads: Vec<Read>,
    pub(super) sky: Sky,
    pub(super) ran: Ran,
}

/// With so much under way, nothing new begins.
const CROWD: usize = 60;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sky {
    /// Nothing goes wrong.
    Clear,
    /// Things are lost, and processes die; the store is taken back, or the family moves, if the seed says so.
    Rough { restores: Often, moves: Often },
}

/// Once in so many steps.
pub(super) type Often = Option<usize>;

impl<'a, H: Host> Run<'a, H> {
    pub(super) fn new(host: &'a mut H, seed: u64) -> Result<Self, String> {
        let times = Config::builder().lease_ms(5_000).write_ms(20_000).retry_ms(500).sync_ms(3_000).change_ms(600_000);
        let config = times.seed(seed).build().map_err(|error| format!("{error}"))?;
        let routers = [0, 1].map(|router| Router::new(numbered(&config, router)));
        let mut run = Self {
            host,
            rng: Rng::new(mix(seed)),
            config,
            now: Timestamp::from_millis(1_000),
            routers,
            jobs: Vec::new(),
            books: Books::default(),
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            copy: None,
            contents: BTreeMap::new(),
            granted: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: 0,
            reads: Vec::new(),
            sky: Sky::Clear,
            ran: Ran::default(),
        };
        run.found()?;
        run.sky = Sky::Rough {
            restores: (!seed.is_multiple_of(2)).then_some(20),
            moves: (!(seed / 2).is_multiple_of(2)).then_some(60),
        };
        Ok(run)
    }

    /// Meets the nodes, and creates the repositories.
    fn found(&mut self) -> Result<(), String> {
        for node in NODES {
            for repo in REPOS {
                // Whatever life is asked, a probe says which it is.
                let reply = self.host.order(node, Incarnation(0), &Order::Probe(repo)).map_err(failed)?;
                let blank = Shadow::new(repo, node, reply.report.incarnation);
                self.nodes.insert((node, repo), blank);
            }
            let disk = self.restarted(node)?;
            self.start_gates(node, &disk);
        }
        self.tell_nodes();
        let [root, _] = REPOS;
        for repo in REPOS {
            let empty = self.host.empty(repo);
            self.contents.insert(empty, Vec::new());
            let mut request = CreateRequest::new(repo, ShardId(1), self.members_of(ShardId(1)), empty);
            request.parent = (repo != root).then_some(root);
            self.routers[0].create(self.now, &request).map_err(|error| format!("{error}"))?;
            self.settle()?;
            if self.books.row(repo).is_none() {
                return Err(format!("with all well, {repo} is not created"));
            }
        }
        Ok(())
    }

    /// All gates of a node are told that it has started.
    pub(super) fn start_gates(&mut self, node: NodeId, disk: &Disk) {
        for repo in REPOS {
            if let Some(shadow) = self.nodes.remove(&(node, repo)) {
                self.nodes.insert((node, repo), shadow.started(disk));
            }
        }
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or(0)
    }

    pub(super) fn bad_luck(&mut self, one_in: usize) -> bool {
        self.sky != Sky::Clear && self.below(one_in) == 0
    }

    pub(super) fn any_repo(&mut self) -> RepoId {
        REPOS[self.below(REPOS.len())]
    }

    /// The life that a node's disk is in.
    pub(super) fn life(&self, node: NodeId) -> Incarnation {
        self.nodes.get(&(node, REPOS[0])).map_or(Incarnation(0), |shadow| shadow.gate.report().incarnation)
    }

    /// The nodes of a shard, as they live now.
    pub(super) fn members_of(&self, shard: ShardId) -> Vec<Member> {
        let (first, second) = NODES.split_at(3);
        let nodes = if shard == ShardId(1) { first } else { second };
        nodes.iter().map(|node| Member::voter(*node, self.life(*node))).collect()
    }

    pub(super) fn tell_nodes(&mut self) {
        for node in NODES {
            let state = NodeState::up(self.life(node));
            for router in &mut self.routers {
                router.handle_node(self.now, node, state);
            }
        }
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        if let Sky::Rough { restores, moves } = self.sky {
            if restores.is_some_and(|one_in| self.below(one_in) == 0) {
                self.store_weather()?;
            }
            if moves.is_some_and(|one_in| self.below(one_in) == 0) {
                let router = self.below(2);
                self.migrate(router);
            }
        }
        let router = self.below(2);
        match self.below(100) {
            of if !self.jobs.is_empty() && (of < 65 || self.jobs.len() > CROWD) => {
                let at = self.below(self.jobs.len().min(6));
                let (router, job) = self.jobs.remove(at);
                if self.bad_luck(10) {
                    self.ran.mishaps += 1;
                    self.jobs.push((router, job.clone()));
                }
                self.carry_out(router, job)?;
            }
            0..=74 => {
                let repo = self.any_repo();
                self.begin_write(router, repo);
            }
            75..=82 => {
                let repo = self.any_repo();
                self.begin_read(router, repo);
            }
            83..=90 => {
                let ms = [100, 600, 3_000, 6_000][self.below(4)];
                self.tick(ms);
            }
            91..=93 => self.stale_swap()?,
            94 => self.lose_router(router),
            95 => self.lose_disk(router)?,
            96 => self.rewind_weather()?,
            97 => self.crash_store()?,
            98 => self.discard()?,
            _ => {
                let node = NODES[self.below(NODES.len())];
                self.crash_node(node, None)?;
            }
        }
        self.step_reads()?;
        self.drain()?;
        self.check()
    }

    /// With the world well again, the family is on one shard, everybody sees the newest, and writes are applied.
    pub(super) fn heal(mut self) -> Result<Ran, String> {
        let sky = core::mem::replace(&mut self.sky, Sky::Clear);
        self.reads.clear();
        if matches!(sky, Sky::Rough { restores: Some(_), .. }) {
            self.restore()?;
        }
        self.settle()?;
        if matches!(sky, Sky::Rough { moves: Some(_), .. }) {
            self.set_out(0, Way::There);
        }
        for round in 0..40 {
            self.settle()?;
            self.operate(round);
            self.settle()?;
            self.tick(40_000);
        }
        self.settle()?;
        for router in 0..2 {
            if self.routers[router].next_deadline().is_some() {
                return Err("with all well, a router still waits for something".into());
            }
            for repo in REPOS {
                self.ends_well(router, repo)?;
            }
        }
        Ok(self.ran)
    }

    fn ends_well(&mut self, router: usize, repo: RepoId) -> Result<(), String> {
        let Some(row) = self.books.row(repo).cloned() else { return Err(format!("{repo} has no row")) };
        let home = self.books.row(row.family).is_some_and(|root| root.shard == row.shard);
        let nodes: Vec<NodeId> = self.members_of(row.shard).iter().map(|member| member.node).collect();
        if row.state != RowState::Live || !home || !row.voters().all(|voter| nodes.contains(&voter.node)) {
            return Err(format!("with all well, {repo} is not where its family is: {row:?}"));
        }
        let before = self.ran.reads;
        self.begin_read(router, repo);
        for _ in 0..50 {
            self.step_reads()?;
            self.settle()?;
        }
        if self.ran.reads == before {
            return Err(format!("with all well, {} of {repo} cannot be read", row.newest));
        }
        let asked = self.begin_write(router, repo);
        self.settle()?;
        match self.answers.get(&asked) {
            Some(Outcome::Applied(_)) => Ok(()),
            other => Err(format!("with all well, {repo} takes no write: {other:?}")),
        }
    }

    pub(super) fn tick(&mut self, ms: u64) {
        self.now = self.now.after_millis(ms);
        for router in &mut self.routers {
            router.handle_timeout(self.now);
        }
    }

    pub(super) fn begin_write(&mut self, router: usize, repo: RepoId) -> RequestId {
        self.asked += 1;
        let request = RequestId(self.asked);
        // Busy, or too few voters: an ordinary answer.
        let _ = self.routers[router].begin_write(self.now, &WriteRequest::new(repo, request));
        request
    }

    fn begin_read(&mut self, router: usize, repo: RepoId) {
        let request = ReadRequest::linearizable(repo, self.routers[router].begin_read());
        let floor: Version = self.books.committed(repo);
        self.reads.push(Read { router, request, floor });
    }

    /// Carries out everything until nothing is under way.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..10_000 {
            self.drain()?;
            if self.jobs.is_empty() {
                return self.check();
            }
            let (router, job) = self.jobs.remove(0);
            self.carry_out(router, job)?;
        }
        Err("with all well, there is no end of things to do".into())
    }
}

/// The configuration of one of several routers.
pub(super) fn numbered(config: &Config, router: u32) -> Config {
    Config { router: RouterId(router), ..config.clone() }
}
