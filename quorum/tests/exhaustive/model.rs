//! What may happen, how often, and what must hold whatever happens.

use stateright::semantics::ConsistencyTester;
use stateright::{Model, Property};
use tenon_quorum::*;

use crate::common::{Message as Sent, REPO, World, config};
use crate::message::Message;
use crate::system::{Breach, Reply, Sight, System, Writer, request};

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub writes: u8,
    pub reads: u8,
    /// Prompt messages that are set aside, and answers that come late.
    pub delays: u8,
    pub losses: u8,
    pub lost_replies: u8,
    pub repeats: u8,
    pub pauses: u8,
    pub crashes: u8,
    pub disks: u8,
    /// A copy of a disk that is as old as the world is put back.
    pub rewinds: u8,
    pub routers: u8,
    pub swaps: u8,
    pub aborts: u8,
    /// The store comes back from a backup that is as old as the world.
    pub restores: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Settled,
    /// A fourth node is a learner, and its first copy is under way.
    Learner,
}

/// A small world: how it starts, and what may happen in it.
#[derive(Clone, Debug)]
pub struct Bounded {
    pub name: &'static str,
    pub routers: usize,
    pub start: Start,
    pub budget: Budget,
    /// Names of reads that a settled router sends to three different nodes.
    names: Vec<RequestId>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub struct State {
    pub system: System,
    budget: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Deliver(usize, Reply),
    SetAside(usize),
    Lose(usize),
    Repeat(usize),
    Write { writer: usize, router: usize, through: NodeId },
    Abort(usize),
    BeginRead { router: usize, name: RequestId },
    StepRead,
    Pause(usize),
    Crash(NodeId),
    Restart(NodeId),
    LoseDisk(NodeId),
    Rewind(NodeId),
    LoseRouter(usize),
    Replace(NodeId, NodeId),
    Restore,
}

/// One state in so many is healed.
const HEALED: u64 = 199;

const LAST: NodeId = NodeId(3);
const LEARNER: NodeId = NodeId(4);

impl Bounded {
    pub fn new(name: &'static str, routers: usize, start: Start, budget: Budget) -> Self {
        let mut model = Self { name, routers, start, budget, names: Vec::new() };
        model.names = model.names();
        model
    }

    fn world(&self) -> World {
        let nodes = if self.start == Start::Learner || self.budget.swaps > 0 { 4 } else { 3 };
        let mut world = World::new(config().build().unwrap(), self.routers, nodes);
        for router in 0..self.routers {
            world.read(router).unwrap();
        }
        if self.start == Start::Learner {
            let comes = Member::voter(LEARNER, Incarnation(1));
            world.routers[0].replace(world.now, &ReplaceRequest::new(REPO, LAST, comes)).unwrap();
            let copies =
                |message: &Sent| matches!(message, Sent::Do(_, Effect::Initialise { .. } | Effect::Sync { .. }));
            let kept = std::cell::RefCell::new(Vec::new());
            world.settle_but(|message| {
                let copy = copies(message);
                if copy {
                    kept.borrow_mut().push(message.clone());
                }
                copy
            });
            world.net = kept.into_inner();
            assert!(!world.net.is_empty(), "the learner's copy is under way");
        }
        world
    }

    /// Names under which a router that knows all to be well sends reads to each of the three voters.
    fn names(&self) -> Vec<RequestId> {
        let world = self.world();
        let mut seen: Vec<(NodeId, RequestId)> = Vec::new();
        for name in (1..100).map(RequestId) {
            let mut router = world.routers[0].clone();
            let request = ReadRequest::linearizable(REPO, Ask(0)).request(name);
            if let Ok(ReadStep::Serve(route)) = router.route_read(world.now, &request)
                && seen.iter().all(|(node, _)| *node != route.node)
            {
                seen.push((route.node, name));
            }
        }
        assert_eq!(seen.len(), 3, "each voter is chosen under some name");
        seen.into_iter().map(|(_, name)| name).collect()
    }
}

impl State {
    /// One state in so many: to heal a world takes as long as to look at a hundred others.
    fn is_sampled(&self) -> bool {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&self.system, &mut hasher);
        std::hash::Hasher::finish(&hasher).is_multiple_of(HEALED)
    }

    /// The message that happens before anything else.
    fn prompt(&self) -> Option<usize> {
        self.system.net.iter().position(|parcel| !parcel.get().aside && parcel.get().message.is_prompt())
    }

    fn deliveries(&self, out: &mut Vec<Action>) {
        let (net, prompt) = (&self.system.net, self.prompt());
        for (at, parcel) in net.iter().enumerate().filter(|(at, _)| prompt.is_none_or(|prompt| prompt == *at)) {
            if at == 0 || net[at - 1] != *parcel {
                self.deliver(at, &parcel.get().message, out);
            }
        }
        if let Some(prompt) = prompt.filter(|_| self.budget.delays > 0) {
            out.push(Action::SetAside(prompt));
        }
    }

    fn deliver(&self, at: usize, message: &Message, out: &mut Vec<Action>) {
        let budget = &self.budget;
        out.push(Action::Deliver(at, Reply::AtOnce));
        if budget.delays > 0 && !matches!(message, Message::Tell(..) | Message::Serve(..)) {
            out.push(Action::Deliver(at, Reply::Late));
        }
        if budget.lost_replies > 0 && matches!(message, Message::Do(_, Effect::SwapRow { .. })) {
            out.push(Action::Deliver(at, Reply::Lost));
        }
        if budget.losses > 0 {
            out.push(Action::Lose(at));
        }
        if budget.repeats > 0 && !matches!(message, Message::Serve(..)) {
            out.push(Action::Repeat(at));
        }
    }

    fn faults(&self, out: &mut Vec<Action>) {
        let (system, budget) = (&self.system, &self.budget);
        let due = |router: &usize| system.routers[*router].1.get().next_deadline().is_some();
        if budget.pauses > 0 {
            out.extend((0..system.routers.len()).filter(due).map(Action::Pause));
        }
        let nodes = || (1..).map(NodeId).zip(&system.nodes);
        out.extend(nodes().filter(|(_, server)| !server.up).map(|(node, _)| Action::Restart(node)));
        if budget.crashes > 0 {
            out.extend(nodes().map(|(node, _)| Action::Crash(node)));
        }
        if budget.disks > 0 {
            out.extend([NodeId(1), LAST].map(Action::LoseDisk));
        }
        if budget.rewinds > 0 {
            out.extend([NodeId(1), LAST].map(Action::Rewind));
        }
        if budget.routers > 0 {
            out.push(Action::LoseRouter(0));
        }
        if budget.swaps > 0 {
            out.push(Action::Replace(LAST, LEARNER));
        }
        if budget.swaps > 0 && system.disks_lost > 0 {
            out.push(Action::Replace(LAST, LAST));
        }
        if budget.restores > 0 {
            out.push(Action::Restore);
        }
        if budget.aborts > 0 {
            out.push(Action::Abort(0));
        }
    }
}

impl Model for Bounded {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { system: System::of(&self.world()), budget: self.budget }]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        let (system, budget) = (&state.system, &state.budget);
        state.deliveries(out);
        if state.prompt().is_some() {
            return;
        }
        let last = self.routers - 1;
        for writer in 0..usize::from(budget.writes) {
            let Writer { asked, refused, .. } = system.writers[writer];
            if asked.is_some() || refused > 1 {
                continue;
            }
            // The nodes are alike until the first write: the first writer may as well use the first of them.
            let through = if writer == 0 { vec![NodeId(1)] } else { vec![NodeId(1), NodeId(2)] };
            let router = writer.min(last);
            out.extend(through.into_iter().map(|through| Action::Write { writer, router, through }));
        }
        match &system.reading {
            Some(reading) if !reading.routed && !reading.waits => out.push(Action::StepRead),
            None if budget.reads > 0 => {
                let names = || self.names.iter().copied();
                let routers = 0..self.routers;
                out.extend(routers.flat_map(|router| names().map(move |name| Action::BeginRead { router, name })));
            }
            Some(_) | None => {}
        }
        state.faults(out);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        let State { system, budget } = &mut next;
        match action {
            Action::Deliver(at, reply) => {
                match reply {
                    Reply::AtOnce => {}
                    Reply::Late => budget.delays -= 1,
                    Reply::Lost => budget.lost_replies -= 1,
                }
                system.deliver(at, reply);
            }
            Action::SetAside(at) => {
                budget.delays -= 1;
                system.set_aside(at);
            }
            Action::Lose(at) => {
                budget.losses -= 1;
                system.lose(at);
            }
            Action::Repeat(at) => {
                budget.repeats -= 1;
                let message = system.net[at].get().message.clone();
                system.send(message);
            }
            Action::Write { writer, router, through } => system.write(writer, router, through),
            Action::Abort(writer) => {
                budget.aborts -= 1;
                system.abort(writer);
            }
            Action::BeginRead { router, name } => {
                budget.reads -= 1;
                system.begin_read(router, name);
            }
            Action::StepRead => system.step_read(last.system.reading?),
            Action::Pause(router) => {
                budget.pauses -= 1;
                system.pass(router, 6_000);
            }
            Action::Crash(node) => {
                budget.crashes -= 1;
                system.crash(node);
            }
            Action::Restart(node) => system.restart(node),
            Action::LoseDisk(node) => {
                budget.disks -= 1;
                system.lose_disk(node);
            }
            Action::Rewind(node) => {
                budget.rewinds -= 1;
                system.rewind(node);
            }
            Action::LoseRouter(router) => {
                budget.routers -= 1;
                system.lose_router(router);
            }
            Action::Restore => {
                budget.restores -= 1;
                system.restore();
            }
            Action::Replace(leaves, comes) => {
                budget.swaps -= 1;
                system.replace(leaves, comes);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always("one committed content per version", |_, state: &State| one_content(&state.system)),
            Property::always("what readers see was committed", |_, state: &State| only_committed(&state.system)),
            Property::always("an acknowledged write was durable on W voters", |_, state: &State| {
                !state.system.breaches.contains(&Breach::ThinAcknowledgement)
            }),
            Property::always("the newest is durable on W voters, less the disks lost", |_, state: &State| {
                is_durable(&state.system)
            }),
            Property::always("the newest only grows", |_, state: &State| {
                !state.system.breaches.contains(&Breach::NewestWentBack)
            }),
            Property::always("an answer is true", |_, state: &State| answers_are_true(&state.system)),
            Property::always("what callers see is linearizable", |_, state: &State| {
                state.system.history.is_consistent()
            }),
            Property::always("nothing passes a gate under an old fence", |_, state: &State| {
                !state.system.breaches.contains(&Breach::OldFence)
            }),
            Property::always("once faults stop, a write is applied", |_, state: &State| {
                !state.is_sampled() || crate::heal::is_live(state.system.clone())
            }),
            Property::sometimes("a write is applied", |_, state: &State| {
                state.system.writers.iter().any(|writer| matches!(writer.outcome, Some(Outcome::Applied(_))))
            }),
        ];
        if self.budget.reads > 0 && self.budget.delays > 0 {
            all.push(Property::sometimes("a read applies what was committed", |_, state: &State| {
                state.system.sights.contains(&Sight::AppliedFirst)
            }));
        }
        if self.budget.restores > 0 {
            all.push(Property::sometimes("what the store had forgotten is recovered", |_, state: &State| {
                let row = state.system.row.get();
                let recovered = row.fence.generation > Generation(1) && state.system.is_open();
                recovered && row.newest.version > Version(0)
            }));
        }
        if self.budget.pauses > 0 {
            all.push(Property::sometimes("a write is known not to be applied", |_, state: &State| {
                state.system.writers.iter().any(|writer| writer.outcome == Some(Outcome::NotApplied))
            }));
        }
        all
    }
}

fn one_content(system: &System) -> bool {
    system.committed.iter().zip(1..).all(|(entry, version)| entry.version() == Version(version))
}

fn is_committed(system: &System, stamp: Stamp) -> bool {
    stamp == Stamp::BLANK || stamp.version == Version(0) || system.committed.iter().any(|entry| entry.stamp == stamp)
}

fn only_committed(system: &System) -> bool {
    system.nodes.iter().all(|server| is_committed(system, server.node.gate.applied()))
}

/// Whoever has moved on holds it too.
fn is_durable(system: &System) -> bool {
    let row = system.row.get();
    let holds = |member: &&Member| {
        let server = &system.nodes[member.node.0 as usize - 1];
        let report = server.node.gate.report();
        let staged = report.staged.is_some_and(|staged| staged.stamp == row.newest);
        server.node.incarnation == member.incarnation && (report.applied == row.newest || staged)
    };
    let needed = Quorum::THREE.write() as usize - (system.disks_lost + system.rewinds).min(1);
    !system.is_open() || row.newest.version == row.born || row.voters().filter(holds).count() >= needed
}

fn answers_are_true(system: &System) -> bool {
    (0..).zip(&system.writers).all(|(at, writer)| {
        let entry = writer.granted.and_then(|fence| system.committed.iter().find(|entry| entry.fence == fence));
        match writer.outcome {
            Some(Outcome::Applied(stamp)) => entry.is_some_and(|entry| entry.stamp == stamp) && request(at).0 > 0,
            Some(Outcome::NotApplied) => entry.is_none(),
            Some(Outcome::Unknown) | None => true,
        }
    })
}
