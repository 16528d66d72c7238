//! Two deciders and two task centres that keep nothing in memory: each reads rows, asks the row layer what becomes of
//! them, and writes that by compare-and-set; what became of an unknown write its write id tells. This is all that a host
//! needs that takes the rows without the engine. (Keys are the engine's, and are not here.)

use crate::common::{Db, POOL, worker};
use crate::ledger::{Follows, Ledger, PIPELINE, Seen, all_ended, rules};
use crate::plan::{Task, plan, submitted};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::catch_unwind;

use stateright::{Model, Property};
use tenon_jobqueue::{
    Act, CallId, Change, Event, Incarnation, Job, JobId, LeaseToken, NewJob, Outcome, Row, State, Stopper, Ticket,
    Timestamp, WriteId,
};

/// A write proposed and not settled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flight {
    task: Task,
    write: WriteId,
    changes: Vec<Change>,
    /// Nobody knows whether it was made.
    unknown: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub pulls: u8,
    pub losses: u8,
    pub doubles: u8,
    pub crashes: u8,
    pub ticks: u8,
    pub aborts: u8,
    pub stops: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads, and proposes.
    Begin(usize, Task),
    Commit(usize),
    /// The write is made or not, and its author learns neither.
    LoseReply(usize),
    /// The write is not made; perhaps later.
    LoseWrite(usize),
    Resolve(usize),
    Crash(usize),
    /// A write whose author has given it up reaches the database.
    Late(usize),
    /// A worker hears of its job; twice, if it is not taken away.
    Hear(LeaseToken),
    Miss(LeaseToken),
    /// A word is said; twice, if it is kept.
    Word(usize, LeaseToken, Act),
    Again(usize, LeaseToken, Act),
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub db: Db,
    actors: [Option<Flight>; 4],
    late: Vec<Vec<Change>>,
    assigned: BTreeSet<LeaseToken>,
    words: BTreeSet<(LeaseToken, Act)>,
    now: Timestamp,
    writes: u64,
    pub budget: Budget,
    pub ledger: Ledger,
    outcome: Outcome,
}

impl World {
    /// A pipeline of these jobs, about which nothing was decided.
    pub fn new(jobs: &[NewJob], outcome: Outcome) -> Self {
        let now = Timestamp::from_millis(1_000);
        let db = submitted(now, jobs);
        Self {
            db,
            actors: [None, None, None, None],
            late: Vec::new(),
            assigned: BTreeSet::new(),
            words: BTreeSet::new(),
            now,
            writes: 0,
            budget: Budget::default(),
            ledger: Ledger::default(),
            outcome,
        }
    }

    /// What the four may begin now.
    fn tasks(&self) -> Vec<(usize, Task)> {
        let Some(pipeline) = self.db.pipelines.get(&PIPELINE) else { return Vec::new() };
        let mut tasks = Vec::new();
        if pipeline.aborted_at.is_some() || pipeline.owes || pipeline.remaining == 0 && pipeline.unstarted > 0 {
            tasks.extend([(0, Task::Decide), (1, Task::Decide)]);
        }
        for job in self.db.latest(PIPELINE) {
            for at in [2, 3] {
                if job.state == State::Pending && self.budget.pulls > 0 {
                    let deliver =
                        Event::Deliver { worker: worker(at as u64), pool: POOL, pull: CallId::new(self.writes) };
                    tasks.push((at, Task::Event(job.id(), deliver)));
                }
                if job.due().is_some_and(|due| due <= self.now) {
                    tasks.push((at, Task::Event(job.id(), Event::Expire)));
                }
                if self.budget.aborts > 0 && job.id() == JobId::new(1) {
                    tasks.push((at, Task::Event(job.id(), Event::Abort(Stopper::User))));
                }
            }
        }
        if self.budget.stops > 0 {
            tasks.extend([(2, Task::Stop), (3, Task::Stop)]);
        }
        // What would change nothing is not begun.
        let changes = |task: &Task| plan(&self.db, self.now, task, WriteId::default()).is_ok();
        tasks.retain(|(at, task)| self.actors[*at].is_none() && changes(task));
        tasks
    }

    /// Reads and proposes; a task that is refused is over, and its author says so to whoever asked.
    fn begin(&mut self, at: usize, task: Task) {
        self.writes += 1;
        let write = WriteId { engine: Incarnation::new(at as u64), ticket: Ticket::new(self.writes) };
        match plan(&self.db, self.now, &task, write) {
            Ok(changes) => self.actors[at] = Some(Flight { task, write, changes, unknown: false }),
            Err(why) => {
                if let Task::Event(_, Event::Work { .. }) = task {
                    self.ledger.refused.insert(why.code());
                }
            }
        }
    }

    /// The write is known to be made: what it led to.
    fn made(&mut self, flight: &Flight) {
        let job = flight.changes.iter().find_map(|change| match change.row {
            Row::Job(job) if change.expect.is_some() => Some(job),
            _ => None,
        });
        match (flight.task, job) {
            (Task::Event(_, Event::Deliver { .. }), Some(Job { key, delivery: Some(delivery), .. })) => {
                self.assigned.insert(LeaseToken { key, version: delivery.version, write: delivery.write });
            }
            // Only now the worker starts.
            (Task::Event(_, Event::Work { token, act: Act::Ack, .. }), Some(Job { state: State::Running, .. })) => {
                self.ledger.started.insert(token);
                self.words.insert((token, Act::Report(self.outcome)));
            }
            (Task::Event(id, Event::Abort(_)), _) => _ = self.ledger.aborted.insert(id),
            (Task::Stop, _) => self.ledger.stopped = true,
            _ => {}
        }
    }

    fn commit(&mut self, at: usize) {
        let Some(flight) = self.actors[at].take() else { return };
        if self.ledger.write(&mut self.db, &flight.changes) {
            self.made(&flight);
        } else {
            self.begin(at, flight.task);
        }
    }

    fn resolve(&mut self, at: usize) {
        let Some(flight) = self.actors[at].take() else { return };
        let own = self.db.fresh(&flight.changes).into_iter().any(|row| row.write() == flight.write);
        if own {
            self.ledger.resolved = true;
            self.made(&flight);
        } else {
            self.begin(at, flight.task);
        }
    }

    fn word(&mut self, at: usize, token: LeaseToken, act: Act) {
        let owner = self.db.jobs.get(&token.key).and_then(|job| job.delivery).map(|delivery| delivery.worker);
        let event = Event::Work { worker: owner.unwrap_or(worker(2)), token, act };
        self.begin(at, Task::Event(token.key.job, event));
    }

    fn spend(&mut self, task: &Task) {
        match task {
            Task::Event(_, Event::Deliver { .. }) => self.budget.pulls -= 1,
            Task::Event(_, Event::Abort(_)) => self.budget.aborts -= 1,
            Task::Stop => self.budget.stops -= 1,
            _ => {}
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Begin(at, task) => {
                self.spend(&task);
                self.begin(at, task);
            }
            Action::Commit(at) => self.commit(at),
            Action::LoseReply(at) => {
                self.budget.losses -= 1;
                let Some(flight) = &mut self.actors[at] else { return };
                flight.unknown = true;
                self.ledger.write(&mut self.db, &flight.changes);
            }
            Action::LoseWrite(at) => {
                self.budget.losses -= 1;
                let Some(flight) = &mut self.actors[at] else { return };
                flight.unknown = true;
                self.late.push(flight.changes.clone());
            }
            Action::Resolve(at) => self.resolve(at),
            Action::Crash(at) => {
                self.budget.crashes -= 1;
                self.late.extend(self.actors[at].take().map(|flight| flight.changes));
            }
            Action::Late(at) => {
                let changes = self.late.remove(at);
                self.ledger.write(&mut self.db, &changes);
            }
            Action::Hear(token) => {
                self.assigned.remove(&token);
                self.words.insert((token, Act::Ack));
            }
            Action::Miss(token) => {
                self.budget.losses -= 1;
                self.assigned.remove(&token);
            }
            Action::Word(at, token, act) => {
                self.words.remove(&(token, act));
                self.word(at, token, act);
            }
            Action::Again(at, token, act) => {
                self.budget.doubles -= 1;
                self.word(at, token, act);
            }
            Action::Tick => {
                self.budget.ticks -= 1;
                self.now = self.deadline().unwrap_or(self.now).max(self.now);
            }
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.db.jobs.values().filter_map(Job::due).min()
    }

    /// The next thing, done well.
    fn step(&mut self) {
        for at in 0..4 {
            if self.actors[at].as_ref().is_some_and(|flight| flight.unknown) {
                self.resolve(at);
            }
            self.commit(at);
        }
        let next = if let Some((token, act)) = self.words.first().copied() {
            Some(Action::Word(2, token, act))
        } else if let Some(token) = self.assigned.first().copied() {
            Some(Action::Hear(token))
        } else {
            self.tasks().first().map(|(at, task)| Action::Begin(*at, *task))
        };
        match next {
            Some(action) => self.act(&action),
            None => self.now = self.deadline().unwrap_or(self.now).max(self.now),
        }
    }

    /// The same, once a worker has begun.
    pub fn begun(mut self) -> Self {
        self.budget.pulls = 1;
        while self.ledger.started.is_empty() {
            self.step();
        }
        self
    }

    fn follow(mut self) -> bool {
        self.budget = Budget { pulls: u8::MAX, ..Budget::default() };
        for _ in 0..80 {
            if all_ended(&self.db) && self.actors.iter().all(Option::is_none) {
                return self.ledger.results_are_single(&self.db);
            }
            self.step();
        }
        false
    }
}

impl Seen for World {
    fn ledger(&self) -> (&Db, &Ledger) {
        (&self.db, &self.ledger)
    }

    fn assigned(&self) -> Vec<LeaseToken> {
        self.assigned.iter().copied().collect()
    }

    fn place(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    fn ends(&self) -> bool {
        catch_unwind(|| self.clone().follow()).unwrap_or(false)
    }
}

#[derive(Clone)]
pub struct Checked {
    pub start: World,
    pub ends_of_one_in: u64,
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
        actions.extend(world.tasks().into_iter().map(|(at, task)| Action::Begin(at, task)));
        for (at, flight) in world.actors.iter().enumerate() {
            let Some(flight) = flight else { continue };
            if flight.unknown {
                actions.push(Action::Resolve(at));
            } else {
                actions.push(Action::Commit(at));
                if budget.losses > 0 {
                    actions.extend([Action::LoseReply(at), Action::LoseWrite(at)]);
                }
            }
            if budget.crashes > 0 {
                actions.push(Action::Crash(at));
            }
        }
        actions.extend((0..world.late.len()).map(Action::Late));
        for token in &world.assigned {
            actions.push(Action::Hear(*token));
            if budget.losses > 0 {
                actions.push(Action::Miss(*token));
            }
        }
        for (token, act) in &world.words {
            for at in [2, 3].into_iter().filter(|at| world.actors[*at].is_none()) {
                actions.push(Action::Word(at, *token, *act));
                if budget.doubles > 0 {
                    actions.push(Action::Again(at, *token, *act));
                }
            }
        }
        if budget.ticks > 0 && world.deadline().is_some() {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        Ledger::watch(&mut world, |world| &mut world.ledger, |world| world.act(&action));
        Some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.ledger.is_whole()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules()
    }
}
