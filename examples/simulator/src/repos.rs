//! Repositories on nodes: a metadata store, nodes with gates, several routers, and the network between them.

mod faults;
mod node;
mod operate;

use std::collections::{BTreeMap, BTreeSet};

use tenon_quorum::{
    Ask, BootRecord, Config, CreateRequest, Digest, DomainId, Effect, FeedEntry, Fence, FenceGate, First, Generation,
    Grant, Incarnation, Member, NodeId, Outcome, ReadRequest, ReadStep, Reason, RepoId, Report, RequestId, Route,
    Router, RouterId, Row, RowState, ShardId, StageOrder, StoreMeta, SwapResult, SyncResult, TaskId, Ticket, Timestamp,
    Version, WriteRequest,
};

use crate::chance::Chance;
use crate::faults::{NODES, SPARES};
use crate::ledger::{Broken, RepoLedger};
use node::Node;

/// A router's number, and which life of it.
pub(crate) type Life = (usize, u32);

/// Something under way.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// An order of a router to the store or to a node.
    Order(Life, Box<Effect>),
    /// A fact on its way to a router.
    Tell(Life, Box<Fact>),
    /// From a writer's node to a member.
    Vote(Life, NodeId, Incarnation, Box<StageOrder>),
    /// A routed read, on its way to its node.
    Serve(u64, Box<Route>),
    /// A client looks again at its read.
    Look(u64),
}

/// What a router is told.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Row(Ask, StoreMeta, RepoId, Option<Row>),
    Feed(Ask, StoreMeta, RepoId, Option<FeedEntry>),
    Family(Ask, StoreMeta, RepoId),
    Swap(Ticket, StoreMeta, SwapResult),
    Report(Option<Ask>, Report),
    Promise(FenceGate),
    Declined(RepoId, NodeId, Fence),
    Synced(TaskId, SyncResult),
}

/// A read that a client waits for.
#[derive(Clone, Copy, Debug)]
struct Read {
    life: Life,
    request: ReadRequest,
    /// What it must see at least, by what had been answered when it began.
    floor: u64,
    until: u64,
}

/// A push that is under way, at a router in one of its lives.
#[derive(Clone, Copy, Debug)]
struct Push {
    repo: RepoId,
    router: usize,
    /// The pusher was told that nobody knows; whatever comes later reaches no one.
    is_told: bool,
}

/// What happened to clients, for the rest of the world to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A push was applied.
    Pushed(RepoId),
    /// A push was not applied, or its pusher was told nothing.
    PushFailed(RepoId),
    /// A read was served.
    Served,
    /// A read was not served in time.
    ReadFailed,
}

/// How the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// The longest that a message takes, in ms.
    pub(crate) slowest: u64,
    /// How many messages in a thousand are lost, and how many come twice.
    pub(crate) loss: u64,
    /// Whether stores lose the replies of writes.
    pub(crate) loses_replies: bool,
}

impl Network {
    pub(crate) const GOOD: Self = Self { slowest: 20, loss: 0, loses_replies: false };
}

/// The whole, with its own clock of what is under way kept by whoever drives it.
pub(crate) struct Repos {
    config: Config,
    routers: Vec<(Router, u32)>,
    /// Until when a router stands still.
    paused: Vec<u64>,
    rows: BTreeMap<RepoId, Row>,
    feed: BTreeMap<(RepoId, Version), FeedEntry>,
    notes: BTreeMap<RepoId, RouterId>,
    boots: BTreeMap<(NodeId, Incarnation), BootRecord>,
    backup: Option<Backup>,
    nodes: BTreeMap<NodeId, Node>,
    /// Until when a node is cut off.
    apart: BTreeMap<NodeId, u64>,
    copies: BTreeMap<NodeId, Node>,
    reads: BTreeMap<u64, Read>,
    next: u64,
    pushes: BTreeMap<RequestId, Push>,
    chance: Chance,
    pub(crate) network: Network,
    pub(crate) ledger: RepoLedger,
    /// Messages to be delivered, with how long they take.
    pub(crate) out: Vec<(u64, Message)>,
    pub(crate) told: Vec<Told>,
    /// Repositories that an operator looks after, since something was lost or restored.
    sick: BTreeSet<RepoId>,
    /// Those that were looked at in this round.
    later: Vec<RepoId>,
    count: u64,
    /// When repositories were inspected last.
    inspected: u64,
    /// Why pushes were not applied, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// What a backup of the metadata store holds.
#[derive(Clone)]
struct Backup {
    rows: BTreeMap<RepoId, Row>,
    feed: BTreeMap<(RepoId, Version), FeedEntry>,
    boots: BTreeMap<(NodeId, Incarnation), BootRecord>,
}

/// A reason with `n` for each number.
fn words(reason: &str) -> String {
    let mut words = String::new();
    for c in reason.chars() {
        match c {
            '0'..='9' if words.ends_with('n') => {}
            '0'..='9' => words.push('n'),
            c => words.push(c),
        }
    }
    words
}

fn numbered(config: &Config, router: usize) -> Config {
    let number = RouterId(u32::try_from(router).unwrap_or(0));
    config.clone().to_builder().router(number).build().unwrap_or_else(|_| config.clone())
}

/// The content of a write: the request that made it, and the fence that it was made under.
fn digest_of(request: RequestId, fence: Fence) -> Digest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&request.0.to_be_bytes());
    bytes[8..].copy_from_slice(&fence.counter.to_be_bytes());
    Digest(bytes)
}

impl Repos {
    pub(crate) fn new(seed: u64, routers: usize, repos: u64, awake: u32) -> anyhow::Result<Self> {
        let builder =
            Config::builder().seed(seed).hold_ms(30_000).change_ms(1_800_000).lease_ms(30_000).write_ms(60_000);
        let config = builder.retry_ms(500).sync_ms(30_000).most_awake(awake).build()?;
        let mut world = Self {
            routers: (0..routers).map(|router| (Router::new(numbered(&config, router)), 0)).collect(),
            paused: vec![0; routers],
            config,
            rows: BTreeMap::new(),
            feed: BTreeMap::new(),
            notes: BTreeMap::new(),
            boots: BTreeMap::new(),
            backup: None,
            nodes: BTreeMap::new(),
            apart: BTreeMap::new(),
            copies: BTreeMap::new(),
            reads: BTreeMap::new(),
            next: 1,
            pushes: BTreeMap::new(),
            chance: Chance::new(seed, 2),
            network: Network::GOOD,
            ledger: RepoLedger::default(),
            out: Vec::new(),
            told: Vec::new(),
            sick: BTreeSet::new(),
            later: Vec::new(),
            count: repos,
            inspected: 0,
            failures: BTreeMap::new(),
        };
        for node in (1..=NODES + SPARES).map(NodeId) {
            world.nodes.insert(node, Node::new(Incarnation(1)));
            world.start(0, node);
        }
        Ok(world)
    }

    /// Makes every repository, one by one.
    pub(crate) fn create(&mut self, now: u64) -> anyhow::Result<()> {
        for repo in (1..=self.count).map(RepoId) {
            let first = (repo.0 % u64::from(NODES)).try_into().unwrap_or(0);
            let members = (0..3).map(|step| NodeId(1 + (first + step * 2) % NODES));
            let members: Vec<Member> = members.map(|node| Member::voter(node, self.nodes[&node].incarnation)).collect();
            let request = CreateRequest::new(repo, ShardId(1), members, Digest([0; 16]));
            let router = usize::try_from(repo.0).unwrap_or(0) % self.routers.len();
            self.routers[router].0.create(Timestamp::from_millis(now), &request)?;
            self.drain();
        }
        Ok(())
    }

    fn store(&self, repo: RepoId) -> StoreMeta {
        StoreMeta::new(self.config.generation()).note(self.notes.get(&repo).copied())
    }

    fn domain(node: NodeId) -> DomainId {
        DomainId(1 + (node.0 - 1) % 3)
    }

    // ---- clients ------------------------------------------------------------------------------------------------------

    fn router(&mut self, now: u64) -> Option<usize> {
        let awake: Vec<usize> = (0..self.routers.len()).filter(|router| self.paused[*router] <= now).collect();
        awake.get(self.chance.place(awake.len())).copied()
    }

    /// Somebody pushes.
    pub(crate) fn push(&mut self, now: u64, repo: RepoId) {
        let Some(router) = self.router(now) else { return self.told.push(Told::PushFailed(repo)) };
        let request = RequestId(self.next);
        self.next += 1;
        let begun = self.routers[router].0.begin_write(Timestamp::from_millis(now), &WriteRequest::new(repo, request));
        match begun {
            Ok(_) => drop(self.pushes.insert(request, Push { repo, router, is_told: false })),
            Err(refusal) => {
                *self.failures.entry(words(&refusal.to_string())).or_default() += 1;
                self.told.push(Told::PushFailed(repo));
            }
        }
        self.drain();
    }

    /// Somebody reads.
    pub(crate) fn read(&mut self, now: u64, repo: RepoId) {
        let Some(router) = self.router(now) else { return self.told.push(Told::ReadFailed) };
        let (router, life) = (&mut self.routers[router], router);
        let request = ReadRequest::linearizable(repo, router.0.begin_read());
        let read = Read { life: (life, router.1), request, floor: self.ledger.floor(repo), until: now + 30_000 };
        let id = self.next;
        self.next += 1;
        self.reads.insert(id, read);
        self.step_read(now, id);
    }

    fn step_read(&mut self, now: u64, id: u64) {
        let Some(read) = self.reads.get(&id).copied() else { return };
        let (at, life) = read.life;
        if now >= read.until || self.routers[at].1 != life {
            self.reads.remove(&id);
            return self.told.push(Told::ReadFailed);
        }
        if self.paused[at] > now {
            return self.out.push((self.paused[at] - now, Message::Look(id)));
        }
        let repo = read.request.repo;
        match self.routers[at].0.route_read(Timestamp::from_millis(now), &read.request) {
            Ok(ReadStep::Serve(route)) => {
                let delay = self.delay();
                self.out.push((delay, Message::Serve(id, Box::new(route))));
            }
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                let fact = Fact::Row(ask, self.store(repo), repo, self.rows.get(&repo).cloned());
                let delay = self.delay() + self.delay();
                self.out.push((delay, Message::Tell(read.life, Box::new(fact))));
                self.out.push((delay + 1, Message::Look(id)));
            }
            Ok(ReadStep::First(First::Wait { until })) => {
                let wait = until.as_millis().saturating_sub(now).clamp(5, 250);
                self.out.push((wait, Message::Look(id)));
            }
            Err(_) => self.out.push((250, Message::Look(id))),
        }
        self.drain();
    }

    fn serve(&mut self, now: u64, id: u64, route: &Route) -> Result<(), Broken> {
        let Some(read) = self.reads.get(&id).copied() else { return Ok(()) };
        let repo = read.request.repo;
        let Some(state) = self.hears(now, route.node, route.incarnation) else {
            // The client asks again.
            self.out.push((250, Message::Look(id)));
            return Ok(());
        };
        match state.serve(repo, route.node, route) {
            Ok(seen) => {
                self.reads.remove(&id);
                self.told.push(Told::Served);
                self.ledger.read(repo, read.floor, seen.version.0, seen.digest.0)
            }
            Err(report) => {
                let delay = self.delay();
                self.out.push((delay, Message::Tell(read.life, Box::new(Fact::Report(None, *report)))));
                self.out.push((delay + 1, Message::Look(id)));
                Ok(())
            }
        }
    }

    // ---- routers ------------------------------------------------------------------------------------------------------

    /// When a router wants to be woken.
    pub(crate) fn next_deadline(&self, now: u64) -> Option<u64> {
        let due = |(at, (router, _)): (usize, &(Router, u32))| {
            router.next_deadline().map(|due| due.as_millis().max(self.paused[at]).max(now))
        };
        self.routers.iter().enumerate().filter_map(due).min()
    }

    /// Wakes the routers whose time has come.
    pub(crate) fn tick(&mut self, now: u64) {
        let at = Timestamp::from_millis(now);
        for (router, (core, _)) in self.routers.iter_mut().enumerate() {
            if self.paused[router] <= now && core.next_deadline().is_some_and(|due| due <= at) {
                core.handle_timeout(at);
            }
        }
        self.drain();
    }

    fn delay(&mut self) -> u64 {
        1 + self.chance.below(self.network.slowest)
    }

    /// Puts a message on its way: it may be lost, or come twice.
    fn send(&mut self, message: Message, takes: u64) {
        let loss = self.network.loss;
        if self.chance.permille(loss) {
            return;
        }
        if self.chance.permille(loss) {
            let late = takes + self.delay() * 3;
            self.out.push((late, message.clone()));
        }
        self.out.push((takes, message));
    }

    /// Moves what routers want done onto the network.
    fn drain(&mut self) {
        for at in 0..self.routers.len() {
            while let Some(effect) = self.routers[at].0.poll_effect() {
                let life = (at, self.routers[at].1);
                match effect {
                    Effect::Answer { request, outcome, reason, .. } => self.answered(request, outcome, reason),
                    Effect::Changed { .. } => {}
                    effect @ (Effect::SwapRow { .. }
                    | Effect::LeaveNote { .. }
                    | Effect::FetchRow { .. }
                    | Effect::FetchFeed { .. }
                    | Effect::FetchFamily { .. }
                    | Effect::Grant(_)
                    | Effect::RaiseGate { .. }
                    | Effect::Probe { .. }
                    | Effect::Cure { .. }
                    | Effect::Promise { .. }
                    | Effect::Initialise { .. }
                    | Effect::Sync { .. }) => {
                        let takes = self.delay();
                        self.send(Message::Order(life, Box::new(effect)), takes);
                    }
                }
            }
        }
    }

    fn answered(&mut self, request: RequestId, outcome: Outcome, reason: Reason) {
        let Some(Push { repo, is_told, .. }) = self.pushes.get(&request).copied() else { return };
        if let Outcome::Applied(stamp) = outcome {
            self.ledger.applied(repo, request.0, stamp.version.0, stamp.digest.0);
        } else if outcome == Outcome::NotApplied {
            self.ledger.not_applied(repo, request.0);
        }
        if outcome != Outcome::Unknown {
            self.pushes.remove(&request);
        } else if let Some(push) = self.pushes.get_mut(&request) {
            push.is_told = true;
        }
        if is_told {
            return;
        }
        let applied = matches!(outcome, Outcome::Applied(_));
        if !applied {
            *self.failures.entry(words(&reason.to_string())).or_default() += 1;
        }
        self.told.push(if applied { Told::Pushed(repo) } else { Told::PushFailed(repo) });
    }

    // ---- messages -----------------------------------------------------------------------------------------------------

    fn hears(&mut self, now: u64, node: NodeId, incarnation: Incarnation) -> Option<&mut Node> {
        let is_apart = self.apart.get(&node).is_some_and(|until| *until > now);
        self.nodes.get_mut(&node).filter(|state| !is_apart && state.is_up(now) && state.incarnation == incarnation)
    }

    /// Delivers one message.
    pub(crate) fn deliver(&mut self, now: u64, message: Message) -> Result<(), Broken> {
        match message {
            Message::Tell((at, life), fact) => {
                if self.routers[at].1 != life {
                    return Ok(());
                }
                if self.paused[at] > now {
                    let wait = self.paused[at] - now;
                    self.out.push((wait, Message::Tell((at, life), fact)));
                    return Ok(());
                }
                tell(&mut self.routers[at].0, Timestamp::from_millis(now), *fact);
                self.drain();
                Ok(())
            }
            Message::Order(life, effect) => self.carry_out(now, life, *effect),
            Message::Vote(life, node, incarnation, order) => {
                self.vote(now, life, node, incarnation, &order);
                Ok(())
            }
            Message::Serve(id, route) => self.serve(now, id, &route),
            Message::Look(id) => {
                self.step_read(now, id);
                Ok(())
            }
        }
    }

    fn reply(&mut self, life: Life, fact: Fact) {
        let takes = self.delay();
        self.send(Message::Tell(life, Box::new(fact)), takes);
    }

    fn carry_out(&mut self, now: u64, life: Life, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::SwapRow { ticket, store, expect, next, feed, clears_note } => {
                let repo = next.repo;
                let mut result = self.swap(store, expect.as_ref(), &next, feed)?;
                if result == SwapResult::Moved && clears_note {
                    self.notes.remove(&repo);
                }
                if self.network.loses_replies && self.chance.permille(150) {
                    result = SwapResult::Unknown;
                }
                self.reply(life, Fact::Swap(ticket, self.store(repo), result));
            }
            Effect::LeaveNote { repo, router } => {
                if self.rows.contains_key(&repo) {
                    self.notes.insert(repo, router);
                }
            }
            Effect::FetchRow { ask, repo } => {
                self.reply(life, Fact::Row(ask, self.store(repo), repo, self.rows.get(&repo).cloned()));
            }
            Effect::FetchFeed { ask, repo, version } => {
                self.reply(life, Fact::Feed(ask, self.store(repo), repo, self.feed.get(&(repo, version)).copied()));
            }
            Effect::FetchFamily { ask, family } => self.reply(life, Fact::Family(ask, self.store(family), family)),
            Effect::Grant(grant) => self.take_grant(now, life, &grant),
            Effect::RaiseGate { ask, node, incarnation, row } => {
                if let Some(state) = self.hears(now, node, incarnation) {
                    let report = state.show(node, &row);
                    self.reply(life, Fact::Report(Some(ask), report));
                }
            }
            Effect::Probe { ask, node, repo } => {
                let incarnation = self.nodes[&node].incarnation;
                if let Some(state) = self.hears(now, node, incarnation) {
                    let report = state.gate(repo, node).report();
                    self.reply(life, Fact::Report(Some(ask), report));
                }
            }
            Effect::Cure { ask, node, incarnation, row, boot, serial } => {
                if let Some(state) = self.hears(now, node, incarnation) {
                    let report = state.cure(node, &row, boot, serial);
                    self.reply(life, Fact::Report(Some(ask), report));
                }
            }
            Effect::Promise { node, incarnation, repo, generation } => {
                if let Some(state) = self.hears(now, node, incarnation) {
                    let gate = state.promise(repo, node, generation);
                    self.reply(life, Fact::Promise(gate));
                }
            }
            Effect::Initialise { task, target, incarnation, row } => {
                if let Some(state) = self.hears(now, target, incarnation) {
                    let result = state.install(target, &row);
                    self.reply(life, Fact::Synced(task, result));
                }
            }
            Effect::Sync { task, target, incarnation, source, row } => {
                let lives = self.nodes[&source].incarnation;
                let held = self.hears(now, source, lives).map(|state| state.gate(row.repo, source).applied());
                if let Some(state) = self.hears(now, target, incarnation) {
                    let exact = held == Some(row.newest);
                    let result = if exact { state.install(target, &row) } else { SyncResult::Failed };
                    // A copy takes its time.
                    let takes = 200 + self.chance.below(3_000);
                    self.send(Message::Tell(life, Box::new(Fact::Synced(task, result))), takes);
                }
            }
            Effect::Answer { .. } | Effect::Changed { .. } => {}
        }
        Ok(())
    }

    fn swap(
        &mut self,
        store: Generation,
        expect: Option<&Row>,
        next: &Row,
        feed: Option<FeedEntry>,
    ) -> Result<SwapResult, Broken> {
        if store != self.config.generation() {
            return Ok(SwapResult::OtherStore);
        }
        let repo = next.repo;
        if self.rows.get(&repo) != expect {
            return Ok(SwapResult::Conflict(self.rows.get(&repo).cloned()));
        }
        self.rows.insert(repo, next.clone());
        if let Some(entry) = feed {
            self.feed.insert((repo, entry.version()), entry);
            self.ledger.committed(repo, entry.stamp.version.0, entry.stamp.digest.0)?;
        }
        let open = !matches!(next.state, RowState::Decided | RowState::Recovering);
        if open && next.fence.generation == self.config.generation() {
            self.ledger.row(repo, next.newest.version.0)?;
        }
        Ok(SwapResult::Moved)
    }

    fn take_grant(&mut self, now: u64, life: Life, grant: &Grant) {
        let (writer, fence, repo) = (grant.writer, grant.base.fence, grant.base.repo);
        let Some(state) = self.hears(now, writer, grant.incarnation) else { return };
        match state.take(writer, grant, digest_of(grant.request, fence)) {
            Ok(order) => {
                // The client's data travels first: a push takes seconds.
                let takes = 300 + self.chance.below(6_000);
                for member in &grant.base.members {
                    let late = takes + self.delay();
                    self.send(Message::Vote(life, member.node, member.incarnation, Box::new(order.clone())), late);
                }
            }
            Err(report) => {
                self.reply(life, Fact::Report(None, *report));
                self.reply(life, Fact::Declined(repo, writer, fence));
            }
        }
    }

    fn vote(&mut self, now: u64, life: Life, node: NodeId, incarnation: Incarnation, order: &StageOrder) {
        let (repo, fence) = (order.base.repo, order.base.fence);
        let Some(state) = self.hears(now, node, incarnation) else { return };
        let (report, voted) = state.stage(node, order);
        self.reply(life, Fact::Report(None, report));
        if !voted {
            self.reply(life, Fact::Declined(repo, node, fence));
        }
    }

    /// A number that says what the routers hold.
    pub(crate) fn state(&self) -> u64 {
        self.routers.iter().fold(0, |sum, (router, life)| sum.rotate_left(9) ^ router.digest() ^ u64::from(*life))
    }
}

fn tell(router: &mut Router, now: Timestamp, fact: Fact) {
    match fact {
        Fact::Row(ask, store, repo, row) => router.handle_row(now, ask, &store, repo, row.as_ref()),
        Fact::Family(ask, store, root) => router.handle_family(now, ask, &store, root, &[root]),
        Fact::Feed(ask, store, repo, entry) => router.handle_feed(now, ask, &store, repo, entry),
        Fact::Swap(ticket, store, result) => router.handle_swap(now, ticket, &store, &result),
        Fact::Report(ask, report) => router.handle_report(now, ask, &report),
        Fact::Promise(gate) => router.handle_promise(now, &gate),
        Fact::Declined(repo, node, fence) => router.handle_declined(now, repo, node, fence),
        Fact::Synced(task, result) => router.handle_synced(now, task, &result),
    }
}
