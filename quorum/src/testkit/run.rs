//! One run: routers, what is under way, the weather, and the accounts that the host is held against.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::shadow::Shadow;
use super::{Done, Host, NODES, Order, Ran, Reply, failed};
use crate::config::Config;
use crate::effect::Effect;
use crate::fence::StageOrder;
use crate::goal::CreateRequest;
use crate::id::{Digest, Fence, Incarnation, NodeId, RepoId, RequestId, ShardId, Stamp, Version};
use crate::node::{Health, NodeState};
use crate::read::{First, ReadRequest, ReadStep};
use crate::repair::SyncResult;
use crate::rng::{Rng, mix};
use crate::router::Router;
use crate::row::{FeedEntry, Member, Row};
use crate::time::Timestamp;
use crate::write::{Grant, Outcome, WriteRequest};

pub(super) const REPO: RepoId = RepoId(1);
const EMPTY: Digest = Digest([0; 16]);

/// Something under way: an effect, or a vote to be gathered.
#[derive(Clone, Debug)]
enum Job {
    Do(Effect),
    Stage(Member, StageOrder, Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
struct Read {
    router: usize,
    request: ReadRequest,
    /// What had been committed when it began.
    floor: Version,
}

pub(super) struct Run<'a, H> {
    pub(super) host: &'a mut H,
    rng: Rng,
    pub(super) config: Config,
    pub(super) now: Timestamp,
    pub(super) routers: [Router; 2],
    jobs: Vec<(usize, Job)>,
    /// What the store holds.
    pub(super) row: Option<Row>,
    pub(super) past: Option<Row>,
    pub(super) feed: BTreeMap<Version, FeedEntry>,
    pub(super) nodes: BTreeMap<NodeId, Shadow>,
    contents: BTreeMap<Digest, Vec<u8>>,
    pub(super) granted: BTreeMap<RequestId, Fence>,
    pub(super) answers: BTreeMap<RequestId, Outcome>,
    asked: u64,
    reads: Vec<Read>,
    healing: Healing,
    pub(super) ran: Ran,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Healing {
    No,
    Yes,
}

impl<'a, H: Host> Run<'a, H> {
    pub(super) fn new(host: &'a mut H, seed: u64) -> Result<Self, String> {
        let times = Config::builder().lease_ms(5_000).write_ms(20_000).retry_ms(500).sync_ms(3_000);
        let config = times.seed(seed).build().map_err(|error| format!("{error}"))?;
        let now = Timestamp::from_millis(1_000);
        let routers = [Router::new(config.clone()), Router::new(config.clone())];
        let mut run = Self {
            host,
            rng: Rng::new(mix(seed)),
            config,
            now,
            routers,
            jobs: Vec::new(),
            row: None,
            past: None,
            feed: BTreeMap::new(),
            nodes: BTreeMap::new(),
            contents: BTreeMap::from([(EMPTY, Vec::new())]),
            granted: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: 0,
            reads: Vec::new(),
            healing: Healing::Yes,
            ran: Ran::default(),
        };
        run.found()?;
        run.healing = Healing::No;
        Ok(run)
    }

    /// Meets the nodes, and creates the repository.
    fn found(&mut self) -> Result<(), String> {
        let mut members = Vec::new();
        for node in NODES {
            // Whatever life is asked, a probe says which it is.
            let reply = self.host.order(node, Incarnation(0), &Order::Probe(REPO)).map_err(failed)?;
            let life = reply.report.incarnation;
            self.nodes.insert(node, Shadow::new(REPO, node, life));
            members.push(Member::voter(node, life));
            self.tell_health(node);
        }
        members.pop();
        let request = CreateRequest::new(REPO, ShardId(1), members, EMPTY);
        let now = self.now;
        self.routers[0].create(now, &request).map_err(|error| format!("{error}"))?;
        self.settle()
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or(0)
    }

    pub(super) fn bad_luck(&mut self, one_in: usize) -> bool {
        self.healing == Healing::No && self.below(one_in) == 0
    }

    pub(super) fn tell_health(&mut self, node: NodeId) {
        let Some(shadow) = self.nodes.get(&node) else { return };
        let state = NodeState::up(shadow.gate.report().incarnation).health(Health::Up);
        for router in &mut self.routers {
            router.handle_node(self.now, node, state);
        }
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        let router = self.below(2);
        match self.below(100) {
            0..=64 if !self.jobs.is_empty() => {
                let at = self.below(self.jobs.len().min(6));
                let (router, job) = self.jobs.remove(at);
                if self.bad_luck(10) {
                    self.ran.mishaps += 1;
                    self.jobs.push((router, job.clone()));
                }
                self.carry_out(router, job)?;
            }
            0..=74 => self.begin_write(router),
            75..=82 => self.begin_read(router),
            83..=90 => {
                let ms = [100, 600, 3_000, 6_000][self.below(4)];
                self.tick(ms);
            }
            91..=93 => self.stale_swap()?,
            94 => self.lose_router(router),
            95..=96 => self.lose_disk(router)?,
            97 => {
                self.host.crash_store(None).map_err(failed)?;
                self.ran.crashes += 1;
            }
            _ => {
                let node = NODES[self.below(4)];
                self.crash_node(node, None)?;
            }
        }
        self.step_reads()?;
        self.drain()?;
        self.check()
    }

    /// With the world well again, every write is answered for good, and everybody sees the newest.
    pub(super) fn heal(mut self) -> Result<Ran, String> {
        self.healing = Healing::Yes;
        self.reads.clear();
        for _ in 0..40 {
            self.settle()?;
            self.tick(40_000);
        }
        self.settle()?;
        let newest = self.row.as_ref().map_or(Version(0), |row| row.newest.version);
        for router in 0..2 {
            if self.routers[router].next_deadline().is_some() {
                return Err("with all well, a router still waits for something".into());
            }
            let before = self.ran.reads;
            self.begin_read(router);
            for _ in 0..50 {
                self.step_reads()?;
                self.settle()?;
            }
            if self.ran.reads == before {
                return Err(format!("with all well, {newest} cannot be read"));
            }
        }
        Ok(self.ran)
    }

    fn tick(&mut self, ms: u64) {
        self.now = self.now.after_millis(ms);
        for router in &mut self.routers {
            router.handle_timeout(self.now);
        }
    }

    fn begin_write(&mut self, router: usize) {
        self.asked += 1;
        let request = WriteRequest::new(REPO, RequestId(self.asked));
        // Busy, or too few voters: an ordinary answer.
        let _ = self.routers[router].begin_write(self.now, &request);
    }

    fn begin_read(&mut self, router: usize) {
        let request = ReadRequest::linearizable(REPO, self.routers[router].begin_read());
        let floor = self.row.as_ref().map_or(Version(0), |row| row.newest.version);
        self.reads.push(Read { router, request, floor });
    }

    fn step_reads(&mut self) -> Result<(), String> {
        for read in core::mem::take(&mut self.reads) {
            if !self.step_read(read)? {
                self.reads.push(read);
            }
        }
        Ok(())
    }

    /// Whether the read is over.
    fn step_read(&mut self, read: Read) -> Result<bool, String> {
        let now = self.now;
        let route = match self.routers[read.router].route_read(now, &read.request) {
            Err(_) => return Ok(true),
            Ok(ReadStep::First(First::Wait { .. })) => return Ok(false),
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                self.jobs.push((read.router, Job::Do(Effect::FetchRow { ask, repo: REPO })));
                return Ok(false);
            }
            Ok(ReadStep::Serve(route)) => route,
        };
        let Some(reply) = self.call(route.node, route.incarnation, &Order::Read(route))? else { return Ok(false) };
        let Done::Content(content) = reply.done else {
            self.routers[read.router].handle_report(now, &reply.report);
            return Ok(false);
        };
        let Stamp { version, digest, .. } = reply.report.applied;
        if version < read.floor {
            return Err(format!("a stale read: {version}, and {} had been committed", read.floor));
        }
        if self.contents.get(&digest) != Some(&content) {
            return Err(format!("{} serves another content than was written", route.node));
        }
        self.ran.reads += 1;
        Ok(true)
    }

    fn lose_router(&mut self, router: usize) {
        self.routers[router] = Router::new(self.config.clone());
        self.jobs.retain(|(owner, _)| *owner != router);
        self.reads.retain(|read| read.router != router);
        for node in NODES {
            self.tell_health(node);
        }
    }

    /// Carries out everything until nothing is under way.
    fn settle(&mut self) -> Result<(), String> {
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

    fn drain(&mut self) -> Result<(), String> {
        for router in 0..2 {
            while let Some(effect) = self.routers[router].poll_effect() {
                match effect {
                    Effect::Answer { request, outcome, .. } => self.answered(request, outcome)?,
                    // The kit's store is never set back, and nothing moves to another shard.
                    Effect::Changed { .. } | Effect::Promise { .. } | Effect::FetchFamily { .. } => {}
                    Effect::SwapRow { .. }
                    | Effect::FetchRow { .. }
                    | Effect::FetchFeed { .. }
                    | Effect::Grant(_)
                    | Effect::RaiseGate { .. }
                    | Effect::Probe { .. }
                    | Effect::Initialise { .. }
                    | Effect::Sync { .. } => self.jobs.push((router, Job::Do(effect))),
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, request: RequestId, outcome: Outcome) -> Result<(), String> {
        let old = self.answers.insert(request, outcome);
        if old.is_some_and(|old| old != Outcome::Unknown) {
            return Err(format!("{request} was answered twice"));
        }
        Ok(())
    }

    fn carry_out(&mut self, router: usize, job: Job) -> Result<(), String> {
        let now = self.now;
        let effect = match job {
            Job::Stage(member, order, content) => return self.stage(router, member, order, content),
            Job::Do(effect) => effect,
        };
        match effect {
            Effect::SwapRow { ticket, expect, next, feed } => {
                let told = self.swap(expect.as_ref(), &next, feed.as_ref())?;
                if let Some(result) = told {
                    self.routers[router].handle_swap(now, ticket, &result);
                }
            }
            Effect::FetchRow { ask, repo } => {
                let row = self.host.row(repo).map_err(failed)?;
                if !self.bad_luck(12) {
                    self.routers[router].handle_row(now, ask, repo, row.as_ref());
                }
            }
            Effect::FetchFeed { ask, repo, version } => {
                let entry = self.host.feed(repo, version).map_err(failed)?;
                self.routers[router].handle_feed(now, ask, repo, entry);
            }
            Effect::Grant(grant) => self.take(router, &grant)?,
            Effect::RaiseGate { node, incarnation, row } => self.ask(router, node, incarnation, &Order::Raise(row))?,
            Effect::Probe { node, repo } => {
                let life = self.nodes.get(&node).map_or(Incarnation(0), |shadow| shadow.gate.report().incarnation);
                self.ask(router, node, life, &Order::Probe(repo))?;
            }
            Effect::Initialise { task, target, incarnation, row } => {
                let reply = self.call(target, incarnation, &Order::Initialise(row))?;
                self.copied(router, task, reply);
            }
            Effect::Sync { task, target, incarnation, source, row } => {
                let reply = self.call(target, incarnation, &Order::Copy(row, source))?;
                self.copied(router, task, reply);
            }
            Effect::Answer { .. } | Effect::Changed { .. } | Effect::Promise { .. } | Effect::FetchFamily { .. } => {}
        }
        Ok(())
    }

    fn copied(&mut self, router: usize, task: crate::id::TaskId, reply: Option<Reply>) {
        let Some(reply) = reply else { return };
        let result = if reply.done == Done::Yes { SyncResult::Done(reply.report) } else { SyncResult::Failed };
        self.routers[router].handle_synced(self.now, task, &result);
    }

    fn ask(&mut self, router: usize, node: NodeId, life: Incarnation, order: &Order) -> Result<(), String> {
        if let Some(reply) = self.call(node, life, order)? {
            self.routers[router].handle_report(self.now, &reply.report);
        }
        Ok(())
    }

    /// The kit writes for the host's client: every member is to stage the same content.
    fn take(&mut self, router: usize, grant: &Grant) -> Result<(), String> {
        let fence = grant.base.fence;
        let old = self.granted.insert(grant.request, fence);
        if old.is_some_and(|old| old != fence) {
            return Err(format!("two grants for {}", grant.request));
        }
        let content = format!("{} under {fence}", grant.request).into_bytes();
        let mut digest = Digest([0; 16]);
        for (byte, from) in digest.0.iter_mut().zip(mix(grant.request.0 ^ mix(fence.counter)).to_be_bytes().repeat(2)) {
            *byte = from;
        }
        self.contents.insert(digest, content.clone());
        let order = grant.stage(digest);
        let jobs = order.base.members.iter().map(|m| (router, Job::Stage(*m, order.clone(), content.clone())));
        self.jobs.extend(jobs);
        Ok(())
    }

    fn stage(&mut self, router: usize, to: Member, order: StageOrder, content: Vec<u8>) -> Result<(), String> {
        let fence = order.base.fence;
        let order = Order::Stage(order, content);
        let Some(reply) = self.call(to.node, to.incarnation, &order)? else { return Ok(()) };
        self.routers[router].handle_report(self.now, &reply.report);
        if reply.done == Done::Refused {
            self.routers[router].handle_declined(self.now, REPO, to.node, fence);
        }
        Ok(())
    }
}
