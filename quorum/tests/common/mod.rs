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
    Row(Ask, StoreMeta, Option<Row>),
    Feed(Ask, StoreMeta, Option<FeedEntry>),
    Family(Ask, StoreMeta),
    Swap(Ticket, StoreMeta, SwapResult),
    Report(Option<Ask>, Report),
    Promise(Box<FenceGate>),
    Declined(NodeId, Fence),
    Synced(TaskId, SyncResult),
    Node(NodeId, NodeState),
    Timeout,
}

impl Fact {
    pub fn tell(&self, router: &mut Router, now: Timestamp) {
        match self {
            Self::Row(ask, store, row) => router.handle_row(now, *ask, store, REPO, row.as_ref()),
            Self::Family(ask, store) => router.handle_family(now, *ask, store, REPO, &[REPO]),
            Self::Feed(ask, store, entry) => router.handle_feed(now, *ask, store, REPO, *entry),
            Self::Swap(ticket, store, result) => router.handle_swap(now, *ticket, store, result),
            Self::Report(ask, report) => router.handle_report(now, *ask, report),
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
    pub disk: Disk,
    pub gate: FenceGate,
}

impl Node {
    pub fn new(node: NodeId, incarnation: Incarnation) -> Self {
        Self { incarnation, disk: Disk::default(), gate: FenceGate::new(REPO, node, incarnation) }
    }

    /// Starts: draws a boot from the store's record of its disk.
    pub fn start(&mut self, store: Generation, record: &mut BootRecord) {
        let (drawn, step) = record.start(store, self.disk.boot);
        *record = drawn;
        if let Start::Keep { boot, rewound } = step {
            self.disk = self.disk.started(boot, rewound);
            (*record, _) = record.start(store, boot);
        }
        self.gate = self.gate.started(&self.disk);
    }

    /// Cures the gate, if it can be.
    pub fn cure(&mut self, row: &Row, boot: Boot, serial: u64) {
        if let Ok(cured) = self.gate.cure(row, boot, serial) {
            self.gate = cured;
        }
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

/// What a backup of the store holds: the row, the feed, and the boots that were drawn.
pub type Backup = (Option<Row>, Vec<FeedEntry>, BTreeMap<(NodeId, Incarnation), BootRecord>);

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
    /// Who waits, by the store's note.
    pub note: Option<RouterId>,
    /// The store's record of each disk's starts.
    pub boots: BTreeMap<(NodeId, Incarnation), BootRecord>,
    pub backup: Option<Backup>,
    /// Copies of disks, to be put back.
    pub copies: BTreeMap<NodeId, Node>,
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
    /// Nodes that burned down: they never speak again.
    pub dead: BTreeSet<NodeId>,
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
    Config::builder().hold_ms(30_000).change_ms(600_000).lease_ms(5_000).write_ms(20_000).retry_ms(500).sync_ms(3_000)
}

/// The configuration of one of several routers.
pub fn numbered(config: &Config, router: usize) -> Config {
    let number = RouterId(u32::try_from(router).expect("few routers"));
    config.clone().to_builder().router(number).build().expect("as before")
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
            routers: (0..routers).map(|router| Router::new(numbered(&config, router))).collect(),
            config,
            now,
            row: None,
            feed: Vec::new(),
            history: Vec::new(),
            note: None,
            boots: BTreeMap::new(),
            backup: None,
            copies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            net: Vec::new(),
            answers: Vec::new(),
            changes: Vec::new(),
            granted: BTreeMap::new(),
            finals: BTreeMap::new(),
            served: Vec::new(),
            twisted: BTreeSet::new(),
            dead: BTreeSet::new(),
            apart: BTreeSet::new(),
            wiped: false,
            lossy: false,
            refusals: 0,
        };
        for node in (1..=nodes).map(NodeId) {
            let incarnation = Incarnation(1);
            world.nodes.insert(node, Node::new(node, incarnation));
            world.start(node);
            world.health(node, Health::Up);
        }
        world
    }

    pub fn store(&self) -> StoreMeta {
        StoreMeta::new(self.config.generation()).note(self.note)
    }

    /// A node's process starts (again).
    pub fn start(&mut self, node: NodeId) {
        let state = self.nodes.get_mut(&node).expect("a node");
        let record = self.boots.entry((node, state.incarnation)).or_default();
        state.start(self.config.generation(), record);
    }

    pub fn keep_disk(&mut self, node: NodeId) {
        self.copies.insert(node, self.nodes[&node].clone());
    }

    /// The copy of a disk that was taken last is put in its place, and the node started; whether there was one of the
    /// disk's present life.
    pub fn rewind(&mut self, node: NodeId) -> bool {
        let Some(copy) = self.copies.remove(&node) else { return false };
        if copy.incarnation != self.nodes[&node].incarnation {
            return false;
        }
        self.nodes.insert(node, copy);
        self.start(node);
        true
    }

    pub fn back_up(&mut self) {
        self.backup = Some((self.row.clone(), self.feed.clone(), self.boots.clone()));
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
        self.start(node);
        self.wiped = true;
        self.health(node, Health::Up);
    }

    /// A machine burns down.
    pub fn burn(&mut self, node: NodeId) {
        self.dead.insert(node);
        self.wiped = true;
        self.health(node, Health::Down);
    }

    /// A router is lost with all it knew.
    pub fn restart_router(&mut self, router: usize) {
        self.routers[router] = Router::new(numbered(&self.config, router));
        let mine = |message: &Message| match message {
            Message::Do(r, _) => *r == router,
            Message::Tell(r, fact) => *r == router && !matches!(fact, Fact::Report(..)),
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
            let health = if self.dead.contains(&node) { Health::Down } else { Health::Up };
            let state = NodeState::up(self.nodes[&node].incarnation).health(health).domain(self.domain(node));
            self.routers[router].handle_node(self.now, node, state);
        }
    }

    /// The store comes back as it was at the last backup, under a new generation; routers start anew.
    pub fn restore(&mut self) {
        let Some((row, feed, boots)) = self.backup.clone() else { return };
        (self.row, self.feed, self.boots, self.note) = (row, feed, boots, None);
        let generation = Generation(self.config.generation().0 + 1);
        self.config = self.config.clone().to_builder().generation(generation).build().expect("as before");
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
                    | Effect::Cure { .. }
                    | Effect::LeaveNote { .. }
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
        let alive = !self.dead.contains(&node);
        self.nodes.get_mut(&node).filter(|state| alive && state.incarnation == incarnation)
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

    /// The same, leaving what the routers order then to the caller.
    pub fn deliver_quietly(&mut self, message: &Message) {
        match message {
            Message::Tell(NOBODY, _) => {}
            Message::Tell(router, fact) => self.tell(*router, fact),
            Message::Stage(router, node, incarnation, order) => self.stage(*router, *node, *incarnation, order),
            Message::Do(router, effect) => self.carry_out(*router, effect),
        }
    }

    fn carry_out(&mut self, router: usize, effect: &Effect) {
        let store = self.store();
        let reply = match effect {
            Effect::SwapRow { ticket, store, expect, next, feed, clears_note } => {
                let result = self.swap(*store, expect.as_ref(), next, *feed);
                if result == SwapResult::Moved && *clears_note {
                    self.note = None;
                }
                Some(Fact::Swap(*ticket, self.store(), result))
            }
            Effect::LeaveNote { router, .. } => {
                self.note = Some(*router).filter(|_| self.row.is_some());
                None
            }
            Effect::FetchRow { ask, .. } => Some(Fact::Row(*ask, store, self.row.clone())),
            Effect::FetchFeed { ask, version, .. } => {
                Some(Fact::Feed(*ask, store, self.feed.iter().find(|entry| entry.version() == *version).copied()))
            }
            Effect::FetchFamily { ask, .. } => Some(Fact::Family(*ask, store)),
            Effect::Grant(grant) => {
                self.take_grant(router, grant);
                None
            }
            Effect::RaiseGate { ask, node, incarnation, row } => self.at(*node, *incarnation).map(|state| {
                // Refused or not, the report is the answer.
                let _ = state.show(row);
                Fact::Report(Some(*ask), state.gate.report())
            }),
            Effect::Probe { ask, node, .. } => {
                let alive = self.nodes.get(node).filter(|_| !self.dead.contains(node));
                alive.map(|state| Fact::Report(Some(*ask), state.gate.report()))
            }
            Effect::Cure { ask, node, incarnation, row, boot, serial } => self.at(*node, *incarnation).map(|state| {
                state.cure(row, *boot, *serial);
                Fact::Report(Some(*ask), state.gate.report())
            }),
            Effect::Promise { node, incarnation, generation, .. } => {
                self.at(*node, *incarnation).map(|state| state.promise(*generation))
            }
            Effect::Initialise { task, target, incarnation, row } => {
                self.install(*target, *incarnation, row).map(|result| Fact::Synced(*task, result))
            }
            Effect::Sync { task, target, incarnation, source, row } => {
                let exact = self
                    .nodes
                    .get(source)
                    .filter(|_| !self.dead.contains(source))
                    .is_some_and(|state| state.gate.applied() == row.newest);
                let result = if exact { self.install(*target, *incarnation, row) } else { Some(SyncResult::Failed) };
                result.map(|result| Fact::Synced(*task, result))
            }
            Effect::Answer { .. } | Effect::Changed { .. } => None,
        };
        self.net.extend(reply.map(|fact| Message::Tell(router, fact)));
    }

    fn swap(&mut self, store: Generation, expect: Option<&Row>, next: &Row, feed: Option<FeedEntry>) -> SwapResult {
        if store != self.config.generation() {
            return SwapResult::OtherStore;
        }
        self.compare_and_set(expect, next, feed)
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
            self.net.push(Message::Tell(router, Fact::Report(None, report)));
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
        self.net.push(Message::Tell(router, Fact::Report(None, report)));
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
                self.net.push(Message::Tell(read.router, Fact::Row(ask, self.store(), self.row.clone())));
                None
            }
            Ok(ReadStep::First(First::Wait { .. })) => None,
            Ok(ReadStep::Serve(route)) => {
                let state = self.nodes.get_mut(&route.node).filter(|_| !self.dead.contains(&route.node))?;
                let Some(Stamp { version, .. }) = state.serve(&route) else {
                    let report = state.gate.report();
                    self.refusals += 1;
                    self.net.push(Message::Tell(read.router, Fact::Report(None, report)));
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
            let alive = |m: &Member| {
                let state = &self.nodes[&m.node];
                let rewound = state.gate.report().rewound;
                state.incarnation == m.incarnation && !self.dead.contains(&m.node) && !rewound
            };
            let whole = |m: &Member| alive(m) && self.holds(m, row.newest) && knows(m);
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
