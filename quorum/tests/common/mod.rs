//! A world in memory: a store, nodes with gates, a network that loses, repeats and reorders, and routers.
//!
//! It holds one repository and checks, at every step, what must never be broken: see [`World::check`].
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "shared by test files, each of which uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use tenon_quorum::*;

pub const REPO: RepoId = RepoId(7);

/// A small generator for tests (`SplitMix64`).
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    Row(Ask, Option<Row>),
    Feed(Ask, Option<FeedEntry>),
    Family(Ask),
    Swap(Ticket, SwapResult),
    Report(Report),
    Promise(Box<FenceGate>),
    Declined(NodeId, Fence),
    Synced(TaskId, SyncResult),
    Node(NodeId, NodeState),
    Timeout,
}

impl Fact {
    pub fn tell(&self, router: &mut Router, now: Timestamp) {
        match self {
            Self::Row(ask, row) => router.handle_row(now, *ask, REPO, row.as_ref()),
            Self::Family(ask) => router.handle_family(now, *ask, REPO, &[REPO]),
            Self::Feed(ask, entry) => router.handle_feed(now, *ask, REPO, *entry),
            Self::Swap(ticket, result) => router.handle_swap(now, *ticket, result),
            Self::Report(report) => router.handle_report(now, report),
            Self::Promise(gate) => router.handle_promise(now, gate),
            Self::Declined(node, fence) => router.handle_declined(now, REPO, *node, *fence),
            Self::Synced(task, result) => router.handle_synced(now, *task, result),
            Self::Node(node, state) => router.handle_node(now, *node, *state),
            Self::Timeout => router.handle_timeout(now),
        }
    }
}

/// Something under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// An order of a router's `life` to the store or to a node.
    Do(usize, Effect),
    /// A fact on its way to a router.
    Tell(usize, Fact),
    /// From a writer's node to a member.
    Stage(usize, NodeId, Incarnation, StageOrder),
}

/// A node's server, for the one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub incarnation: Incarnation,
    pub gate: FenceGate,
}

impl Node {
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self { incarnation, gate: FenceGate::new(REPO, node, incarnation) }
    }

    /// Shows a row to the gate, which applies what the row proves.
    pub fn show(&mut self, row: &Row) -> Result<(), GateRefusal> {
        self.gate = self.gate.show(row)?;
        Ok(())
    }

    /// Takes a grant: what every member is to stage, unless the gate refuses.
    pub fn take(&mut self, grant: &Grant) -> Option<StageOrder> {
        let fence = grant.base.fence;
        let taken = self.show(&grant.base).is_ok() && self.gate.applied() == grant.base.newest;
        taken.then(|| grant.stage(digest_of(grant.request, fence)))
    }

    /// Stages a write; whether the gate let it.
    pub fn stage(&mut self, order: &StageOrder) -> bool {
        let staged = self.show(&order.base).and_then(|()| self.gate.stage(order));
        staged.map(|gate| self.gate = gate).is_ok()
    }

    /// Promises itself to a life of the store.
    pub fn promise(&mut self, generation: Generation) -> Fact {
        if let Ok(promised) = self.gate.promise(generation) {
            self.gate = promised;
        }
        Fact::Promise(Box::new(self.gate.clone()))
    }

    /// Takes over a copy of what the row shows.
    pub fn install(&mut self, row: &Row) -> SyncResult {
        if let Ok(raised) = self.gate.raise(row) {
            self.gate = raised;
        }
        match self.gate.install(&row.proof()) {
            Ok(installed) => {
                self.gate = installed;
                SyncResult::Done(self.gate.report())
            }
            Err(_) => SyncResult::Failed,
        }
    }

    /// Serves a read, if the gate admits it: what readers see then.
    pub fn serve(&mut self, route: &Route) -> Option<Stamp> {
        self.gate = self.gate.serve(route).ok()?;
        Some(self.gate.applied())
    }
}

#[derive(Clone, Copy, Debug, Hash)]
pub struct Read {
    pub router: usize,
    pub request: ReadRequest,
    /// What had been committed when it began.
    pub floor: Version,
}

/// A router's former life, which hears no answer.
const NOBODY: usize = usize::MAX;

#[derive(Clone)]
pub struct World {
    pub routers: Vec<Router>,
    pub config: Config,
    pub now: Timestamp,
    pub row: Option<Row>,
    pub feed: Vec<FeedEntry>,
    /// All that was ever committed, whatever the store has forgotten.
    pub history: Vec<FeedEntry>,
    pub backup: Option<(Option<Row>, Vec<FeedEntry>)>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub net: Vec<Message>,
    pub answers: Vec<(usize, WriteId, RequestId, Outcome, Reason)>,
    pub changes: Vec<Result<(), Reason>>,
    /// The fence of each request's grant: at most one.
    pub granted: BTreeMap<RequestId, Fence>,
    pub finals: BTreeMap<RequestId, Outcome>,
    pub served: Vec<(Version, Reason)>,
    /// Nodes that compute another digest than the writer.
    pub twisted: BTreeSet<NodeId>,
    /// Nodes of the second failure domain.
    pub apart: BTreeSet<NodeId>,
    /// A disk was lost: one copy of what is committed may be all there is for a while.
    pub wiped: bool,
    /// More was lost than the quorum stands for.
    pub lossy: bool,
    /// How often a node's gate refused a routed read.
    pub refusals: usize,
}

pub fn config() -> ConfigBuilder {
    Config::builder().change_ms(600_000).lease_ms(5_000).write_ms(20_000).retry_ms(500).sync_ms(3_000)
}

pub fn digest_of(request: RequestId, fence: Fence) -> Digest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&request.0.to_be_bytes());
    bytes[8..].copy_from_slice(&fence.counter.to_be_bytes());
    Digest(bytes)
}

impl World {
    /// `routers` routers over one store; `nodes` nodes, the first N of them voters of the repository, created.
    pub fn new(config: Config, routers: usize, nodes: u32) -> Self {
        let mut world = Self::bare(config, routers, nodes);
        world.create();
        world
    }

    pub fn bare(config: Config, routers: usize, nodes: u32) -> Self {
        let now = Timestamp::from_millis(1_000);
        let mut world = Self {
            routers: vec![Router::new(config.clone()); routers],
            config,
            now,
            row: None,
            feed: Vec::new(),
            history: Vec::new(),
            backup: None,
            nodes: BTreeMap::new(),
            net: Vec::new(),
            answers: Vec::new(),
            changes: Vec::new(),
            granted: BTreeMap::new(),
            finals: BTreeMap::new(),
            served: Vec::new(),
            twisted: BTreeSet::new(),
            apart: BTreeSet::new(),
            wiped: false,
            lossy: false,
            refusals: 0,
        };
        for node in (1..=nodes).map(NodeId) {
            let incarnation = Incarnation(1);
            world.nodes.insert(node, Node::new(node, incarnation));
            world.health(node, Health::Up);
        }
        world
    }

    pub fn voters(&self) -> Vec<Member> {
        let n = self.config.quorum().voters() as usize;
        self.nodes.iter().take(n).map(|(node, state)| Member::voter(*node, state.incarnation)).collect()
    }

    pub fn create(&mut self) {
        let request = CreateRequest::new(REPO, ShardId(1), self.voters(), Digest([0; 16]));
        self.routers[0].create(self.now, &request).expect("created");
        self.settle();
        assert_eq!(self.changes.pop(), Some(Ok(())));
    }

    pub fn domain(&self, node: NodeId) -> DomainId {
        DomainId(u32::from(self.apart.contains(&node)))
    }

    pub fn health(&mut self, node: NodeId, health: Health) {
        let state = NodeState::up(self.nodes[&node].incarnation).health(health).domain(self.domain(node));
        for router in &mut self.routers {
            router.handle_node(self.now, node, state);
        }
    }

    /// The disk of a node is lost; it comes back empty, under a larger incarnation.
    pub fn wipe(&mut self, node: NodeId) {
        let incarnation = Incarnation(self.nodes[&node].incarnation.0 + 1);
        self.nodes.insert(node, Node::new(node, incarnation));
        self.wiped = true;
        self.health(node, Health::Up);
    }

    /// A router is lost with all it knew.
    pub fn restart_router(&mut self, router: usize) {
        self.routers[router] = Router::new(self.config.clone());
        let mine = |message: &Message| match message {
            Message::Do(r, _) => *r == router,
            Message::Tell(r, fact) => *r == router && !matches!(fact, Fact::Report(_)),
            Message::Stage(..) => false,
        };
        // What was on its way to the store still gets there; nobody hears of it: its ticket means nothing to the next life.
        self.net.retain(|message| !mine(message) || matches!(message, Message::Do(_, Effect::SwapRow { .. })));
        for message in &mut self.net {
            if let Message::Do(r, _) = message
                && *r == router
            {
                *r = NOBODY;
            }
        }
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            let state = NodeState::up(self.nodes[&node].incarnation).domain(self.domain(node));
            self.routers[router].handle_node(self.now, node, state);
        }
    }

    /// The store comes back as it was at the last backup, under a new generation; routers start anew.
    pub fn restore(&mut self) {
        let Some((row, feed)) = self.backup.clone() else { return };
        (self.row, self.feed) = (row, feed);
        let generation = Generation(self.config.generation().0 + 1);
        self.config = self.config.clone().to_builder().generation(generation).build().expect("as before");
        // What was on its way to the store is lost with its connections.
        self.net.retain(|message| !matches!(message, Message::Do(_, Effect::SwapRow { .. })));
        for router in 0..self.routers.len() {
            self.restart_router(router);
        }
    }

    /// Moves what routers want done onto the network.
    pub fn drain(&mut self) {
        for (i, router) in self.routers.iter_mut().enumerate() {
            while let Some(effect) = router.poll_effect() {
                match effect {
                    Effect::Answer { write, request, outcome, reason, .. } => {
                        self.answers.push((i, write, request, outcome, reason));
                        if outcome != Outcome::Unknown {
                            let old = self.finals.insert(request, outcome);
                            assert_eq!(old, None, "{request} was answered twice");
                        }
                    }
                    Effect::Changed { result, .. } => self.changes.push(result),
                    Effect::SwapRow { .. }
                    | Effect::FetchRow { .. }
                    | Effect::FetchFeed { .. }
                    | Effect::FetchFamily { .. }
                    | Effect::Grant(_)
                    | Effect::RaiseGate { .. }
                    | Effect::Probe { .. }
                    | Effect::Promise { .. }
                    | Effect::Initialise { .. }
                    | Effect::Sync { .. } => self.net.push(Message::Do(i, effect)),
                }
            }
        }
    }

    pub fn tell(&mut self, router: usize, fact: &Fact) {
        fact.tell(&mut self.routers[router], self.now);
    }

    pub fn at(&mut self, node: NodeId, incarnation: Incarnation) -> Option<&mut Node> {
        self.nodes.get_mut(&node).filter(|state| state.incarnation == incarnation)
    }

    /// Carries out one message; answers go onto the network.
    pub fn deliver(&mut self, message: &Message) {
        match message {
            Message::Tell(NOBODY, _) => {}
            Message::Tell(router, fact) => self.tell(*router, fact),
            Message::Stage(router, node, incarnation, order) => self.stage(*router, *node, *incarnation, order),
            Message::Do(router, effect) => self.carry_out(*router, effect),
        }
        self.drain();
        self.check();
    }

    fn carry_out(&mut self, router: usize, effect: &Effect) {
        let reply = match effect {
            Effect::SwapRow { ticket, expect, next, feed } => {
                let result = self.compare_and_set(expect.as_ref(), next, *feed);
                Some(Fact::Swap(*ticket, result))
            }
            Effect::FetchRow { ask, .. } => Some(Fact::Row(*ask, self.row.clone())),
            Effect::FetchFeed { ask, version, .. } => {
                Some(Fact::Feed(*ask, self.feed.iter().find(|entry| entry.version() == *version).copied()))
            }
            Effect::FetchFamily { ask, .. } => Some(Fact::Family(*ask)),
            Effect::Grant(grant) => {
                self.take_grant(router, grant);
                None
            }
            Effect::RaiseGate { node, incarnation, row } => self.at(*node, *incarnation).map(|state| {
                // Refused or not, the report is the answer.
                let _ = state.show(row);
                Fact::Report(state.gate.report())
            }),
            Effect::Probe { node, .. } => self.nodes.get(node).map(|state| Fact::Report(state.gate.report())),
            Effect::Promise { node, incarnation, generation, .. } => {
                self.at(*node, *incarnation).map(|state| state.promise(*generation))
            }
            Effect::Initialise { task, target, incarnation, row } => {
                self.install(*target, *incarnation, row).map(|result| Fact::Synced(*task, result))
            }
            Effect::Sync { task, target, incarnation, source, row } => {
                let exact = self.nodes.get(source).is_some_and(|state| state.gate.applied() == row.newest);
                let result = if exact { self.install(*target, *incarnation, row) } else { Some(SyncResult::Failed) };
                result.map(|result| Fact::Synced(*task, result))
            }
            Effect::Answer { .. } | Effect::Changed { .. } => None,
        };
        self.net.extend(reply.map(|fact| Message::Tell(router, fact)));
    }

    pub fn compare_and_set(&mut self, expect: Option<&Row>, next: &Row, feed: Option<FeedEntry>) -> SwapResult {
        if self.row.as_ref() != expect {
            return SwapResult::Conflict(self.row.clone());
        }
        // Committed is committed, whatever a backup has forgotten.
        let held = self.history.iter().map(|entry| entry.stamp).max_by_key(|stamp| (stamp.epoch, stamp.version));
        let kept = next.state == RowState::Decided || held.is_none_or(|held| !held.is_beyond(next.newest));
        assert!(self.lossy || kept, "{held:?} is forgotten");
        self.row = Some(next.clone());
        self.feed.extend(feed);
        self.history.extend(feed.filter(|entry| !self.history.iter().any(|old| old.stamp == entry.stamp)));
        SwapResult::Moved
    }

    fn take_grant(&mut self, router: usize, grant: &Grant) {
        let old = self.granted.insert(grant.request, grant.base.fence);
        assert!(old.is_none_or(|old| old == grant.base.fence), "two grants for {}", grant.request);
        let fence = grant.base.fence;
        let Some(state) = self.at(grant.writer, grant.incarnation) else { return };
        let Some(order) = state.take(grant) else {
            let report = state.gate.report();
            self.net.push(Message::Tell(router, Fact::Report(report)));
            self.net.push(Message::Tell(router, Fact::Declined(grant.writer, fence)));
            return;
        };
        for member in &grant.base.members {
            self.net.push(Message::Stage(router, member.node, member.incarnation, order.clone()));
        }
    }

    fn stage(&mut self, router: usize, node: NodeId, incarnation: Incarnation, order: &StageOrder) {
        let twist = u8::from(self.twisted.contains(&node));
        let mut order = order.clone();
        order.digest.0[15] ^= twist;
        let Some(state) = self.at(node, incarnation) else { return };
        let voted = state.stage(&order);
        let report = state.gate.report();
        self.net.push(Message::Tell(router, Fact::Report(report)));
        if !voted {
            self.net.push(Message::Tell(router, Fact::Declined(node, order.base.fence)));
        }
    }

    fn install(&mut self, node: NodeId, incarnation: Incarnation, row: &Row) -> Option<SyncResult> {
        self.at(node, incarnation).map(|state| state.install(row))
    }

    /// Delivers everything in order until nothing moves.
    pub fn settle(&mut self) {
        self.settle_but(|_| false);
    }

    /// The same, losing what `lose` says.
    pub fn settle_but(&mut self, lose: impl Fn(&Message) -> bool) {
        self.drain();
        for _ in 0..10_000 {
            if self.net.is_empty() {
                return;
            }
            let message = self.net.remove(0);
            if !lose(&message) {
                self.deliver(&message);
            }
        }
        panic!("does not settle: {:?}", self.net);
    }

    pub fn tick(&mut self, ms: u64) {
        self.now = self.now.after_millis(ms);
        for router in 0..self.routers.len() {
            self.tell(router, &Fact::Timeout);
        }
        self.drain();
    }

    pub fn begin_read(&mut self, router: usize) -> Read {
        let began = self.routers[router].begin_read();
        // Whatever the store has forgotten.
        let committed = self.history.iter().map(FeedEntry::version).max();
        let floor = committed.filter(|_| !self.lossy).unwrap_or_default();
        Read { router, request: ReadRequest::linearizable(REPO, began), floor }
    }

    /// One step of a read: `Some` once it is over.
    pub fn step_read(&mut self, read: &Read) -> Option<Result<(Version, Reason), Refusal>> {
        let step = self.routers[read.router].route_read(self.now, &read.request);
        self.drain();
        match step {
            Err(refusal) => Some(Err(refusal)),
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                self.net.push(Message::Tell(read.router, Fact::Row(ask, self.row.clone())));
                None
            }
            Ok(ReadStep::First(First::Wait { .. })) => None,
            Ok(ReadStep::Serve(route)) => {
                let state = self.nodes.get_mut(&route.node)?;
                let Some(Stamp { version, .. }) = state.serve(&route) else {
                    let report = state.gate.report();
                    self.refusals += 1;
                    self.net.push(Message::Tell(read.router, Fact::Report(report)));
                    return None;
                };
                assert!(version >= read.floor, "a stale read: {version}, {} was committed", read.floor);
                self.check();
                Some(Ok((version, route.reason)))
            }
        }
    }

    pub fn read(&mut self, router: usize) -> Result<(Version, Reason), Refusal> {
        let read = self.begin_read(router);
        for _ in 0..50 {
            if let Some(result) = self.step_read(&read) {
                return result;
            }
            self.settle();
        }
        panic!("the read does not end");
    }

    pub fn begin_write(&mut self, router: usize, request: u64) -> Result<WriteId, Refusal> {
        let result = self.routers[router].begin_write(self.now, &WriteRequest::new(REPO, RequestId(request)));
        self.drain();
        result
    }

    pub fn holds(&self, member: &Member, stamp: Stamp) -> bool {
        let report = self.nodes[&member.node].gate.report();
        report.applied == stamp || report.staged.is_some_and(|staged| staged.stamp == stamp)
    }

    /// Whether every member of the row holds its newest state and knows who the members are: then one disk may be lost.
    pub fn is_whole(&self) -> bool {
        // A restored row is no measure of what may be lost.
        let present = |row: &&Row| row.fence.generation == self.config.generation();
        self.row.as_ref().filter(present).is_some_and(|row| {
            let knows = |m: &Member| self.nodes[&m.node].gate.report().revision >= row.revision;
            let whole =
                |m: &Member| self.nodes[&m.node].incarnation == m.incarnation && self.holds(m, row.newest) && knows(m);
            row.voters().count() == self.config.quorum().voters() as usize && row.members.iter().all(whole)
        })
    }

    /// What must hold at every moment.
    pub fn check(&self) {
        let committed = |stamp: Stamp| {
            let known = self.history.iter().any(|entry| entry.stamp == stamp);
            stamp == Stamp::BLANK || stamp.version == Version(0) || known
        };
        for (i, entry) in self.history.iter().enumerate() {
            assert_eq!(entry.version(), Version(i as u64 + 1), "one commit per version: {:?}", self.history);
        }
        for (node, state) in &self.nodes {
            assert!(
                committed(state.gate.applied()),
                "{node} shows {}, which never was committed",
                state.gate.applied()
            );
        }
        for (request, outcome) in &self.finals {
            let entry = self.granted.get(request).and_then(|fence| self.history.iter().find(|e| e.fence == *fence));
            match outcome {
                Outcome::Applied(stamp) => assert_eq!(entry.map(|entry| entry.stamp), Some(*stamp), "{request}"),
                Outcome::NotApplied => assert_eq!(entry, None, "{request} was answered as not applied"),
                Outcome::Unknown => panic!("no final outcome"),
            }
        }
        // A restored row is old, and one that is being recovered is not on W nodes yet: both are closed.
        let open = |row: &&Row| {
            let closed = matches!(row.state, RowState::Decided | RowState::Recovering);
            row.fence.generation == self.config.generation() && !closed && !self.lossy
        };
        let Some(row) = self.row.as_ref().filter(open) else { return };
        let durable = row.voters().filter(|member| self.holds(member, row.newest)).count();
        let written = row.newest.version > row.born && row.state != RowState::Deleted;
        let needed = if written { self.config.quorum().write() as usize } else { 0 };
        let needed = if self.wiped { needed.min(1) } else { needed };
        assert!(durable >= needed, "{} is durable on {durable} nodes", row.newest);
    }
}
