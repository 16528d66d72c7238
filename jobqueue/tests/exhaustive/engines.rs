//! Two task centres, each a real engine, two workers and a database, with a network between them that loses, doubles and
//! reorders.

use crate::common::{Db, POOL, config, pool, worker};
use crate::ledger::{Follows, Ledger, PIPELINE, Seen, all_ended, rules};
use crate::message::Message;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic::catch_unwind;

use stateright::{Model, Property};
use tenon_jobqueue::{
    Act, Answer, CallId, Class, Effect, Engine, JobId, LeaseToken, NewJob, Outcome, PullRequest, State, Submission,
    Tag, Timestamp, Worker,
};

const FOR_EVER: u64 = u64::MAX;

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub pulls: [u8; 2],
    pub losses: u8,
    pub doubles: u8,
    pub crashes: u8,
    pub ticks: u8,
    pub aborts: u8,
    pub stops: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Deliver(Message),
    Lose(Message),
    Double(Message),
    Pull(usize),
    Tick(usize),
    Crash(usize),
    Abort(usize, JobId),
    Stop(usize),
}

/// Who asked a centre.
#[derive(Clone, Copy, Debug, Hash)]
enum Asked {
    Word(Worker, LeaseToken, Act),
    Abort(JobId),
    Stop,
    Other,
}

#[derive(Clone, Debug)]
struct Centre {
    life: u64,
    engine: Engine,
    asked: BTreeMap<CallId, Asked>,
    pulled: Option<CallId>,
}

#[derive(Clone, Debug)]
pub struct World {
    centres: Vec<Centre>,
    pub db: Db,
    /// Sorted by hash: which messages are under way matters, not in which order they were sent.
    net: Vec<(u64, Message)>,
    now: Timestamp,
    lives: u64,
    pub budget: Budget,
    pub ledger: Ledger,
    outcome: Outcome,
    /// Tells what it does.
    loud: bool,
}

fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Hash for World {
    fn hash<H: Hasher>(&self, h: &mut H) {
        for centre in &self.centres {
            (centre.life, centre.engine.snapshot(), &centre.asked, centre.pulled).hash(h);
        }
        self.net.iter().for_each(|(message, _)| message.hash(h));
        (&self.db, self.now, self.lives, self.budget, &self.ledger).hash(h);
    }
}

/// As the checker itself tells states apart.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        hashed(self) == hashed(other)
    }
}

impl World {
    /// A pipeline of these jobs that both centres know of; `out` of them are delivered, in turn to each worker, and run.
    pub fn new(jobs: &[NewJob], out: usize, outcome: Outcome) -> Self {
        let (db, net, ledger, budget) = (Db::default(), Vec::new(), Ledger::default(), Budget::default());
        let (centres, now) = (Vec::new(), Timestamp::from_millis(1_000));
        let mut world = Self { centres, db, net, now, lives: 0, budget, ledger, outcome, loud: false };
        for _ in 0..2 {
            let centre = world.birth();
            world.centres.push(centre);
        }
        let new = Submission { id: PIPELINE, class: Class::new(0), priority: 0, jobs, needs: &[] };
        world.centres[0].engine.submit(world.now, &new).unwrap();
        world.drain(0);
        world.deliver_all();
        let rows = world.db.open();
        let _ = world.centres[1].engine.load(world.now, &rows);
        world.drain(1);
        for turn in 0..out {
            world.pull(turn % 2);
            // Everything but what reports.
            while let Some(at) = world.net.iter().position(|(_, message)| !is_report(message)) {
                let (_, message) = world.net.remove(at);
                world.deliver(message);
            }
        }
        world
    }

    /// The same, but nothing of it is written yet.
    pub fn unwritten(jobs: &[NewJob]) -> Self {
        let mut world = Self::new(&[crate::common::new_job(1, 1)], 0, Outcome::Succeeded);
        world.db = Db::default();
        world.centres = (0..2).map(|_| world.birth()).collect();
        let new = Submission { id: PIPELINE, class: Class::new(0), priority: 0, jobs, needs: &[] };
        world.centres[0].engine.submit(world.now, &new).unwrap();
        world.drain(0);
        world.ledger = Ledger::default();
        world
    }

    fn birth(&mut self) -> Centre {
        self.lives += 1;
        let mut engine = Engine::new(config(self.lives));
        engine.put_pool(self.now, pool(POOL.get(), &[Tag::OTHER], 8)).unwrap();
        let _ = engine.load(self.now, &self.db.open());
        Centre { life: self.lives, engine, asked: BTreeMap::new(), pulled: None }
    }

    fn send(&mut self, message: Message) {
        let hash = hashed(&message);
        let at = self.net.partition_point(|(other, _)| *other <= hash);
        self.net.insert(at, (hash, message));
    }

    fn centre_of(&self, life: u64) -> Option<usize> {
        self.centres.iter().position(|centre| centre.life == life)
    }

    fn drain(&mut self, at: usize) {
        let life = self.centres[at].life;
        while let Some(effect) = self.centres[at].engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    let changes = self.centres[at].engine.changes(ticket).to_vec();
                    self.send(Message::Write { life, ticket, changes });
                }
                Effect::Fetch { ask, want } => self.send(Message::Read { life, ask, want }),
                Effect::Assign { assignment, .. } => self.send(Message::Assign { centre: at, assignment }),
                Effect::Answer { call, answer } => self.answered(at, call, answer),
                Effect::Judge { .. } | Effect::Abort { .. } | Effect::Poll { .. } | Effect::Closed { .. } => {}
            }
        }
    }

    fn answered(&mut self, centre: usize, call: CallId, answer: Answer) {
        let ended = matches!(answer, Answer::Done { state: State::Aborting | State::Aborted, .. });
        match self.centres[centre].asked.remove(&call) {
            Some(Asked::Word(worker, token, act)) => {
                self.send(Message::Reply { centre, worker, token, act, answer });
            }
            Some(Asked::Abort(job)) if ended => _ = self.ledger.aborted.insert(job),
            Some(Asked::Stop) if answer == Answer::Aborting => self.ledger.stopped = true,
            Some(_) | None => {}
        }
    }

    fn deliver(&mut self, message: Message) {
        if self.loud {
            println!("  then {}", message.told());
        }
        let now = self.now;
        match message {
            Message::Write { life, ticket, changes } => {
                let made = self.ledger.write(&mut self.db, &changes);
                let conflict = (!made).then(|| self.db.fresh(&changes));
                if self.centre_of(life).is_some() {
                    self.send(Message::Written { life, ticket, conflict });
                }
            }
            Message::Written { life, ticket, conflict } => {
                let Some(at) = self.centre_of(life) else { return };
                match conflict {
                    None => self.centres[at].engine.handle_committed(now, ticket),
                    Some(fresh) => self.centres[at].engine.handle_conflicted(now, ticket, &fresh),
                }
                self.drain(at);
            }
            Message::Read { life, ask, want } => {
                let Some(at) = self.centre_of(life) else { return };
                let rows = self.db.read(want, &self.centres[at].engine);
                self.send(Message::Rows { life, ask, rows });
            }
            Message::Rows { life, ask, rows } => {
                let Some(at) = self.centre_of(life) else { return };
                let before = self.centres[at].engine.counters().committed;
                self.centres[at].engine.handle_rows(now, ask, &rows);
                self.ledger.resolved |= self.centres[at].engine.counters().committed > before;
                self.drain(at);
            }
            Message::Assign { centre, assignment } => {
                let (worker, token) = (assignment.worker, assignment.token);
                self.send(Message::Word { centre, worker, token, act: Act::Ack });
            }
            Message::Word { centre, worker, token, act } => {
                let call = self.centres[centre].engine.work(now, worker, token, act).unwrap();
                self.centres[centre].asked.insert(call, Asked::Word(worker, token, act));
                self.drain(centre);
            }
            Message::Reply { centre, worker, token, act, answer } => match (act, answer) {
                // Only now it starts; what it has to say at the end, it says to the other centre.
                (Act::Ack, Answer::Done { state: State::Running, .. }) => {
                    self.ledger.started.insert(token);
                    let act = Act::Report(self.outcome);
                    self.send(Message::Word { centre: 1 - centre, worker, token, act });
                }
                (_, Answer::Refused(why)) => _ = self.ledger.refused.insert(why.code()),
                _ => {}
            },
        }
    }

    /// The sender of a write learns that nobody knows; everybody else learns nothing.
    fn lose(&mut self, message: &Message) {
        if let Message::Write { life, ticket, .. } | Message::Written { life, ticket, .. } = message
            && let Some(at) = self.centre_of(*life)
        {
            self.centres[at].engine.handle_unknown(self.now, *ticket);
            self.drain(at);
        }
    }

    fn pull(&mut self, at: usize) {
        let previous = self.centres[at].pulled;
        let request = PullRequest { pool: POOL, worker: worker(at as u64), want: 1, wait_ms: FOR_EVER, previous };
        let call = self.centres[at].engine.pull(self.now, &request).unwrap();
        self.centres[at].pulled = Some(call);
        self.drain(at);
    }

    fn deadline(&self, at: usize) -> Option<Timestamp> {
        self.centres[at].engine.next_deadline().filter(|due| *due != Timestamp::MAX)
    }

    fn act(&mut self, action: Action) {
        let take = |net: &mut Vec<(u64, Message)>, message: &Message| {
            let at = net.iter().position(|(_, other)| other == message).unwrap();
            net.remove(at);
        };
        match action {
            Action::Deliver(message) => {
                take(&mut self.net, &message);
                self.deliver(message);
            }
            Action::Lose(message) => {
                self.budget.losses -= 1;
                take(&mut self.net, &message);
                self.lose(&message);
            }
            Action::Double(message) => {
                self.budget.doubles -= 1;
                self.deliver(message);
            }
            Action::Pull(at) => {
                self.budget.pulls[at] -= 1;
                self.pull(at);
            }
            Action::Tick(at) => {
                self.budget.ticks -= 1;
                self.now = self.now.max(self.deadline(at).unwrap());
                self.centres[at].engine.handle_timeout(self.now);
                self.drain(at);
            }
            Action::Crash(at) => {
                self.budget.crashes -= 1;
                let dead = self.centres[at].life;
                self.centres[at] = self.birth();
                self.net.retain(|(_, message)| match message {
                    Message::Written { life, .. } | Message::Read { life, .. } | Message::Rows { life, .. } => {
                        *life != dead
                    }
                    _ => true,
                });
                self.drain(at);
            }
            Action::Abort(at, job) => {
                self.budget.aborts -= 1;
                let call = self.centres[at].engine.abort(self.now, job).unwrap();
                self.centres[at].asked.insert(call, Asked::Abort(job));
                self.drain(at);
            }
            Action::Stop(at) => {
                self.budget.stops -= 1;
                let call = self.centres[at].engine.abort_pipeline(self.now, PIPELINE).unwrap();
                self.centres[at].asked.insert(call, Asked::Stop);
                self.drain(at);
            }
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..10_000 {
            let Some((_, message)) = self.net.pop() else { return };
            self.deliver(message);
        }
        panic!("messages without end");
    }

    fn follow(mut self) -> bool {
        let world = &mut self;
        for _ in 0..60 {
            world.deliver_all();
            if !world.db.pipelines.is_empty() && all_ended(&world.db) {
                return world.ledger.results_are_single(&world.db);
            }
            let due = [0, 1].into_iter().filter_map(|at| world.deadline(at)).min();
            let page = world.db.open();
            for at in 0..2 {
                world.pull(at);
                world.deliver_all();
                let _ = world.centres[at].engine.compensate(world.now, &page);
                world.drain(at);
            }
            world.now = world.now.max(due.unwrap_or(world.now));
            for at in 0..2 {
                world.centres[at].engine.handle_timeout(world.now);
                world.drain(at);
            }
        }
        // A pipeline whose author died before it was written never was.
        self.db.pipelines.is_empty()
    }
}

fn is_report(message: &Message) -> bool {
    matches!(message, Message::Word { act: Act::Report(_), .. })
}

/// One world to look at, and whether every state, or only each eighth, is followed to its end.
#[derive(Clone)]
pub struct Checked {
    pub start: World,
    pub ends_of_one_in: u64,
}

impl Seen for World {
    fn ledger(&self) -> (&Db, &Ledger) {
        (&self.db, &self.ledger)
    }

    fn assigned(&self) -> Vec<LeaseToken> {
        let assigned = self.net.iter().filter_map(|(_, message)| match message {
            Message::Assign { assignment, .. } => Some(assignment.token),
            _ => None,
        });
        assigned.collect()
    }

    fn place(&self) -> u64 {
        hashed(&self.net.iter().map(|(hash, _)| *hash).collect::<Vec<u64>>())
    }

    /// From here on nothing goes wrong.
    fn ends(&self) -> bool {
        let follow = |loud| catch_unwind(|| Self { loud, ..self.clone() }.follow()).unwrap_or(false);
        // What goes wrong is shown.
        follow(false) || follow(true)
    }
}

impl Follows for Checked {
    fn one_in(&self) -> u64 {
        self.ends_of_one_in
    }
}

impl Model for Checked {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let budget = &world.budget;
        let mut last = None;
        for (hash, message) in &world.net {
            if last.replace(hash) == Some(hash) {
                continue;
            }
            actions.push(Action::Deliver(message.clone()));
            // A question to the database is put again until it is answered.
            if budget.losses > 0 && !matches!(message, Message::Read { .. } | Message::Rows { .. }) {
                actions.push(Action::Lose(message.clone()));
            }
            if budget.doubles > 0 {
                actions.push(Action::Double(message.clone()));
            }
        }
        for at in 0..2 {
            if budget.pulls[at] > 0 {
                actions.push(Action::Pull(at));
            }
            if budget.ticks > 0 && world.deadline(at).is_some() {
                actions.push(Action::Tick(at));
            }
            if budget.crashes > 0 {
                actions.push(Action::Crash(at));
            }
            if budget.aborts > 0 {
                actions.push(Action::Abort(at, JobId::new(1)));
            }
            if budget.stops > 0 {
                actions.push(Action::Stop(at));
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        Ledger::watch(&mut world, |world| &mut world.ledger, |world| world.act(action));
        Some(world)
    }

    fn format_action(&self, action: &Action) -> String {
        match action {
            Action::Deliver(message) => message.told(),
            Action::Lose(message) => format!("lost: {}", message.told()),
            Action::Double(message) => format!("and again later: {}", message.told()),
            other => format!("{other:?}"),
        }
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.ledger.is_whole()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules()
    }
}
