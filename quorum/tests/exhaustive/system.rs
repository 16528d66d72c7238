//! The whole system as one small value: routers, nodes, the store's row and feed, what is under way, and what callers saw.
//!
//! Routers and gates are the crate's own. A message is carried out and its answer told in one step, unless a fault comes
//! between; messages themselves are taken in any order, however late.

use std::collections::BTreeMap;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
use tenon_quorum::*;

use crate::common::{Fact, Message as Sent, Node, REPO, World, numbered};
use crate::history::{Asked, Content, Told};
use crate::message::{Life, Marked, Message, Parcel};

pub const READER: usize = 2;

/// A node's server, and what the checker keeps about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub node: Node,
    pub up: bool,
    /// The highest fence that this life of the disk was raised to.
    raised: Fence,
}

/// A writer, which writes once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    pub asked: Option<(Life, WriteId)>,
    /// How often it was refused.
    pub refused: u8,
    pub granted: Option<Fence>,
    pub outcome: Option<Outcome>,
}

/// A read that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    pub at: Life,
    pub request: ReadRequest,
    /// Its route is under way.
    pub routed: bool,
    /// It asks again once its router hears something.
    pub waits: bool,
}

/// A rule that was seen to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Breach {
    /// Something passed a gate under a fence older than one that had passed.
    OldFence,
    /// A row took the place of a later one.
    NewestWentBack,
    /// A write was acknowledged that fewer than W voters had ever held.
    ThinAcknowledgement,
}

/// Something worth having seen, so that a world that shows nothing is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    AppliedFirst,
    ReadRefused,
    Conflict,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub struct System {
    pub routers: Vec<(u8, Marked<Router>)>,
    config: Marked<Config>,
    pub now: Timestamp,
    pub row: Marked<Row>,
    /// Who waits, by the store's note.
    pub note: Option<RouterId>,
    /// The store's record of each disk's starts.
    boots: BTreeMap<(NodeId, Incarnation), BootRecord>,
    pub feed: Vec<FeedEntry>,
    /// All that was ever committed, whatever the store forgot.
    pub committed: Vec<FeedEntry>,
    /// The row and the feed that the store comes back with from a backup.
    backup: (Marked<Row>, usize),
    /// By number, from 1.
    pub nodes: Vec<Server>,
    /// In the order of their marks: a set with repetition.
    pub net: Vec<Marked<Parcel>>,
    pub writers: [Writer; 2],
    pub reading: Option<Reading>,
    pub history: LinearizabilityTester<usize, Content>,
    /// Who ever held what.
    held: Vec<(Stamp, u8)>,
    pub disks_lost: usize,
    /// The last answer to a write of a healed world.
    healed: Option<(RequestId, Outcome)>,
    /// The first copy of each disk, and how often one was put back.
    copies: Marked<Vec<Node>>,
    pub rewinds: usize,
    pub breaches: Vec<Breach>,
    pub sights: Vec<Sight>,
}

pub fn request(writer: usize) -> RequestId {
    RequestId(writer as u64 + 1)
}

/// How an answer gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    AtOnce,
    Late,
    Lost,
}

impl System {
    /// As the world is, with everything under way.
    pub fn of(world: &World) -> Self {
        let raised = Fence::default();
        let server = |node: &Node| Server { node: node.clone(), up: true, raised };
        let mut system = Self {
            routers: world.routers.iter().map(|router| (0, Marked::new(router.clone()))).collect(),
            config: Marked::new(world.config.clone()),
            now: world.now,
            row: Marked::new(world.row.clone().expect("created")),
            note: None,
            boots: world.boots.clone(),
            feed: world.feed.clone(),
            committed: world.feed.clone(),
            backup: (Marked::new(world.row.clone().expect("created")), world.feed.len()),
            nodes: world.nodes.values().map(server).collect(),
            net: Vec::new(),
            writers: [Writer::default(); 2],
            reading: None,
            history: LinearizabilityTester::new(Content(0)),
            held: Vec::new(),
            disks_lost: 0,
            healed: None,
            copies: Marked::new(world.nodes.values().cloned().collect()),
            rewinds: 0,
            breaches: Vec::new(),
            sights: Vec::new(),
        };
        for message in &world.net {
            if let Sent::Do(router, effect) = message {
                system.send(Message::Do(Life { router: *router, life: 0 }, effect.clone()));
            }
        }
        system
    }

    pub fn store(&self) -> StoreMeta {
        StoreMeta::new(self.config.get().generation()).note(self.note)
    }

    fn start(&mut self, node: NodeId) {
        let (store, server) = (self.store().generation, &mut self.nodes[node.0 as usize - 1]);
        let record = self.boots.entry((node, server.node.incarnation)).or_default();
        server.node.start(store, record);
    }

    pub fn life(&self, router: usize) -> Life {
        Life { router, life: self.routers[router].0 }
    }

    fn lives(&self, life: Life) -> bool {
        self.routers[life.router].0 == life.life
    }

    pub fn send(&mut self, message: Message) {
        self.put(Parcel { message, aside: false });
    }

    fn put(&mut self, parcel: Parcel) {
        let parcel = Marked::new(parcel);
        let at = self.net.partition_point(|other| other.mark < parcel.mark);
        self.net.insert(at, parcel);
    }

    /// Does something to a router, and what it orders at once: the rest is under way.
    pub fn at<R>(&mut self, router: usize, act: impl FnOnce(&mut Router) -> R) -> R {
        let life = self.life(router);
        let mut effects = Vec::new();
        let result = self.routers[router].1.change(|router| {
            let result = act(router);
            effects.extend(core::iter::from_fn(|| router.poll_effect()));
            result
        });
        for effect in effects {
            match effect {
                Effect::Answer { request, outcome, .. } => self.answered(request, outcome),
                Effect::Changed { .. } => {}
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
                | Effect::Sync { .. } => self.send(Message::Do(life, effect)),
            }
        }
        result
    }

    /// How a write of the healed world ended.
    pub fn outcome_of(&self, request: RequestId) -> Option<Outcome> {
        self.healed.filter(|(name, _)| *name == request).map(|(_, outcome)| outcome)
    }

    fn answered(&mut self, request: RequestId, outcome: Outcome) {
        let at = usize::try_from(request.0 - 1).expect("a writer");
        if at >= self.writers.len() {
            self.healed = Some((request, outcome));
            return;
        }
        self.writers[at].outcome = Some(outcome);
        let told = match outcome {
            Outcome::Applied(stamp) => {
                let needed = self.config.get().quorum().write();
                let held = self.held.iter().find(|(held, _)| *held == stamp).map_or(0, |(_, by)| by.count_ones());
                if held < needed {
                    self.breach(Breach::ThinAcknowledgement);
                }
                Told::Applied
            }
            Outcome::NotApplied => Told::NotApplied,
            Outcome::Unknown => return,
        };
        // A second answer makes the history invalid, which the checker sees.
        let _ = self.history.on_return(at, told);
    }

    pub fn breach(&mut self, breach: Breach) {
        if !self.breaches.contains(&breach) {
            self.breaches.push(breach);
        }
    }

    pub fn saw(&mut self, sight: Sight) {
        if !self.sights.contains(&sight) {
            self.sights.push(sight);
        }
    }

    pub fn tell(&mut self, to: Life, fact: &Fact) {
        // Tickets mean nothing to a later life; what a node says of itself does.
        if self.lives(to) || matches!(fact, Fact::Report(..)) {
            let now = self.now;
            if let Some(reading) = self.reading.as_mut().filter(|reading| reading.at.router == to.router) {
                reading.waits = false;
            }
            self.at(to.router, |router| fact.tell(router, now));
        }
    }

    pub fn tell_all(&mut self, fact: &Fact) {
        for router in 0..self.routers.len() {
            self.tell(self.life(router), fact);
        }
    }

    /// The node's server, if it runs and its disk is in that life.
    pub fn server(&mut self, node: NodeId, incarnation: Incarnation) -> Option<&mut Server> {
        let server = self.nodes.get_mut(node.0 as usize - 1)?;
        (server.up && server.node.incarnation == incarnation).then_some(server)
    }

    /// Keeps account of what a node let pass, and of what it holds.
    pub fn passed(&mut self, node: NodeId, under: Option<Fence>) {
        let server = &mut self.nodes[node.0 as usize - 1];
        let report = server.node.gate.report();
        let old = under.is_some_and(|fence| fence < server.raised);
        server.raised = server.raised.max(report.fence);
        for stamp in [Some(report.applied), report.staged.map(|staged| staged.stamp)].into_iter().flatten() {
            let bit = 1 << node.0;
            match self.held.iter_mut().find(|(held, _)| *held == stamp) {
                Some((_, by)) => *by |= bit,
                None => self.held.push((stamp, bit)),
            }
        }
        self.held.sort_unstable();
        if old {
            self.breach(Breach::OldFence);
        }
    }

    pub fn end_read(&mut self, told: Told) {
        self.reading = None;
        let _ = self.history.on_return(READER, told);
    }

    /// Takes a message off the network and carries it out.
    pub fn deliver(&mut self, at: usize, reply: Reply) {
        let message = self.net.remove(at);
        for (to, fact) in self.carry_out(&message.get().message) {
            match reply {
                Reply::AtOnce => self.tell(to, &fact),
                Reply::Late => self.send(Message::Tell(to, fact)),
                Reply::Lost => {
                    if let Fact::Swap(ticket, store, _) = fact {
                        self.tell(to, &Fact::Swap(ticket, store, SwapResult::Unknown));
                    }
                }
            }
        }
    }

    /// A message will be carried out some other time.
    pub fn set_aside(&mut self, at: usize) {
        let parcel = self.net.remove(at);
        self.put(Parcel { aside: true, message: parcel.get().message.clone() });
    }

    /// A message is lost before anybody saw it.
    pub fn lose(&mut self, at: usize) {
        let message = self.net.remove(at);
        if let (Message::Serve(..), Some(reading)) = (&message.get().message, self.reading) {
            self.reading = Some(Reading { routed: false, ..reading });
        }
    }

    pub fn write(&mut self, writer: usize, router: usize, through: NodeId) {
        let (now, life, name) = (self.now, self.life(router), request(writer));
        let request = WriteRequest::new(REPO, name).through(through);
        let _ = self.history.on_invoke(writer, Asked::Write(name.0));
        if let Ok(id) = self.at(router, |router| router.begin_write(now, &request)) {
            self.writers[writer].asked = Some((life, id));
        } else {
            self.writers[writer].refused += 1;
            let _ = self.history.on_return(writer, Told::NotApplied);
        }
    }

    pub fn begin_read(&mut self, router: usize, name: RequestId) {
        let began = self.at(router, Router::begin_read);
        let request = ReadRequest::linearizable(REPO, began).request(name);
        let _ = self.history.on_invoke(READER, Asked::Read);
        self.reading = Some(Reading { at: self.life(router), request, routed: false, waits: false });
    }

    pub fn step_read(&mut self, reading: Reading) {
        let now = self.now;
        match self.at(reading.at.router, |router| router.route_read(now, &reading.request)) {
            Ok(ReadStep::Serve(route)) => {
                self.reading = Some(Reading { routed: true, ..reading });
                self.send(Message::Serve(reading.at, route));
            }
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                self.send(Message::Do(reading.at, Effect::FetchRow { ask, repo: REPO }));
            }
            Ok(ReadStep::First(First::Wait { .. })) => self.reading = Some(Reading { waits: true, ..reading }),
            Err(_) => self.end_read(Told::Refused),
        }
    }

    /// The process of a node dies: what it had not said is never said. Its disk stays.
    pub fn crash(&mut self, node: NodeId) {
        self.nodes[node.0 as usize - 1].up = false;
        self.net.retain(|message| !matches!(&message.get().message, Message::Stage(_, writer, ..) if *writer == node));
        self.health(node, Health::Down);
    }

    /// It comes up again, and takes over what the row proves of what it had staged: no more.
    pub fn restart(&mut self, node: NodeId) {
        let row = self.row.get().clone();
        self.start(node);
        let server = &mut self.nodes[node.0 as usize - 1];
        server.up = true;
        let raised = server.node.show(&row).is_ok();
        self.passed(node, raised.then_some(row.fence));
        self.health(node, Health::Up);
    }

    /// The disk of a node is lost; it comes back empty, under a larger incarnation.
    pub fn lose_disk(&mut self, node: NodeId) {
        self.disks_lost += 1;
        let server = &mut self.nodes[node.0 as usize - 1];
        let incarnation = Incarnation(server.node.incarnation.0 + 1);
        *server = Server { node: Node::new(node, incarnation), up: true, raised: Fence::default() };
        self.start(node);
        self.health(node, Health::Up);
    }

    /// The copy of a node's disk that is as old as the world is put in its place, and the node started.
    pub fn rewind(&mut self, node: NodeId) {
        let copy = self.copies.get()[node.0 as usize - 1].clone();
        let server = &mut self.nodes[node.0 as usize - 1];
        if server.node.incarnation != copy.incarnation {
            return;
        }
        self.rewinds += 1;
        *server = Server { node: copy, up: true, raised: Fence::default() };
        self.start(node);
        self.health(node, Health::Up);
    }

    fn health(&mut self, node: NodeId, health: Health) {
        let incarnation = self.nodes[node.0 as usize - 1].node.incarnation;
        self.tell_all(&Fact::Node(node, NodeState::up(incarnation).health(health)));
    }

    /// A router is lost with all it knew. What it had sent still arrives; a caller who reads through it is told nothing.
    pub fn lose_router(&mut self, router: usize) {
        let (life, config) = (self.life(router), numbered(self.config.get(), router));
        self.routers[router] = (life.life + 1, Marked::new(Router::new(config)));
        if self.reading.is_some_and(|reading| reading.at == life) {
            self.net.retain(|message| !matches!(message.get().message, Message::Serve(..)));
            self.end_read(Told::Refused);
        }
        for (id, server) in (1..).map(NodeId).zip(self.nodes.clone()) {
            let health = if server.up { Health::Up } else { Health::Down };
            let state = NodeState::up(server.node.incarnation).health(health);
            self.tell(self.life(router), &Fact::Node(id, state));
        }
    }

    /// The store comes back from a backup, in its next life: what is on its way to it from the life before still arrives,
    /// and routers start anew.
    pub fn restore(&mut self) {
        let (row, entries) = self.backup.clone();
        self.row = row;
        self.feed.truncate(entries);
        self.note = None;
        self.config.change(|config| {
            let next = Generation(config.generation().0 + 1);
            *config = config.clone().to_builder().generation(next).build().expect("as before");
        });
        for router in 0..self.routers.len() {
            self.lose_router(router);
        }
        let now = self.now;
        let _ = self.at(0, |router| router.recover(now, &RecoverRequest::new(REPO)));
    }

    /// Whether the row is of the store's present life, and not being recovered.
    pub fn is_open(&self) -> bool {
        let row = self.row.get();
        let closed = matches!(row.state, RowState::Decided | RowState::Recovering);
        row.fence.generation == self.config.get().generation() && !closed
    }

    pub fn replace(&mut self, leaves: NodeId, comes: NodeId) {
        let incarnation = self.nodes[comes.0 as usize - 1].node.incarnation;
        let (now, request) = (self.now, ReplaceRequest::new(REPO, leaves, Member::voter(comes, incarnation)));
        let _ = self.at(0, |router| router.replace(now, &request));
    }

    pub fn abort(&mut self, writer: usize) {
        let now = self.now;
        if let Some((life, id)) = self.writers[writer].asked.filter(|(life, _)| self.lives(*life)) {
            self.at(life.router, |router| router.abort_write(now, id, GiveUp::PerhapsStaged));
        }
    }

    /// A router, and whoever waits for it, finds that so much time went by.
    pub fn pass(&mut self, router: usize, ms: u64) {
        self.now = self.now.after_millis(ms);
        let life = self.life(router);
        self.tell(life, &Fact::Timeout);
    }
}
