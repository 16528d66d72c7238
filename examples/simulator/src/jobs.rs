//! Jobs: several task centres on one database, and the workers that pull from them.

use std::collections::BTreeMap;

use tenon_jobqueue::memory::MemoryRows;
use tenon_jobqueue::{
    Act, Answer, AskId, Assignment, CallId, Change, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec,
    LeaseToken, NewJob, Outcome, PipelineId, Policy, PoolId, PoolSpec, PullRequest, Row, Service, State, Submission,
    Tag, Ticket, Timestamp, Want, Worker, WorkerName,
};

use crate::chance::Chance;
use crate::job_ledger::JobLedger;
use crate::ledger::Broken;
use crate::repos::Network;

/// A task centre's place, and its life.
type Life = (usize, Incarnation);

/// Something under way.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A write on its way to the database.
    Write(Life, Ticket, Vec<Change>),
    /// What came of it: made, not made with the rows as they are, or nobody knows.
    Written(Life, Ticket, Written),
    /// A read on its way to the database.
    Read(Life, AskId, Want, Vec<Change>),
    /// Its answer.
    Rows(Life, AskId, Vec<Row>),
    /// A worker looks for work.
    Pull(u64),
    /// A job on its way to its worker.
    Given(u64, Assignment),
    /// A worker says something about its job.
    Say(u64, LeaseToken, Act),
    /// A worker has done its job.
    Done(u64, LeaseToken),
    /// It is time for a heartbeat.
    Beat(u64, LeaseToken),
}

/// What came of a write.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    Made,
    Conflict(Vec<Row>),
    Unknown,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
enum Waits {
    Pull(u64),
    Word(u64, LeaseToken, Act),
    Submit(PipelineId),
}

#[derive(Debug)]
struct Centre {
    engine: Engine,
    waits: BTreeMap<CallId, Waits>,
}

/// A worker: one job at a time, from either pool.
#[derive(Clone, Copy, Debug)]
struct Hand {
    /// How often it has pulled: every fourth time it looks for jobs of the second pool.
    pulls: u64,
    job: Option<LeaseToken>,
    /// When it asked for a job, or last heard about the one that it has.
    since: u64,
    /// Whether it goes once its job is done.
    leaves: bool,
}

pub(crate) struct Jobs {
    now: u64,
    centres: Vec<Centre>,
    /// Until when a task centre stands still.
    still: Vec<u64>,
    rows: MemoryRows,
    lives: u64,
    hands: BTreeMap<u64, Hand>,
    next_hand: u64,
    next_job: u64,
    limit: u32,
    paused: bool,
    chance: Chance,
    pub(crate) network: Network,
    pub(crate) ledger: JobLedger,
    pub(crate) out: Vec<(u64, Message)>,
}

/// Most jobs go through the first pool, some through the second, which has a small limit.
const POOLS: [PoolId; 2] = [PoolId::new(1), PoolId::new(2)];
/// Jobs that need the second pool's machines.
const RARE: Tag = Tag::new(3, 0);
const TAGS: [Tag; 3] = [Tag::new(1, 0), Tag::new(2, 0), RARE];
const RARE_LIMIT: u32 = 3;
/// How many jobs may run at once in the first pool, unless an operator says otherwise.
pub(crate) const LIMIT: u32 = 60;
const LEASE_MS: u32 = 60_000;
/// How long a worker waits for a job.
const PULL_MS: u64 = 10_000;

fn at(now: u64) -> Timestamp {
    Timestamp::from_millis(now)
}

impl Jobs {
    pub(crate) fn new(seed: u64, engines: usize) -> anyhow::Result<Self> {
        let mut jobs = Self {
            now: 0,
            centres: Vec::new(),
            still: vec![0; engines],
            rows: MemoryRows::default(),
            lives: 0,
            hands: BTreeMap::new(),
            next_hand: 1,
            next_job: 1,
            limit: LIMIT,
            paused: false,
            chance: Chance::new(seed, 3),
            network: Network::GOOD,
            ledger: JobLedger::default(),
            out: Vec::new(),
        };
        jobs.ledger.set_limits(0, &[(POOLS[0], jobs.limit), (POOLS[1], RARE_LIMIT)]);
        for _ in 0..engines {
            let centre = jobs.birth(0)?;
            jobs.centres.push(centre);
        }
        Ok(jobs)
    }

    fn pools(&self) -> [PoolSpec; 2] {
        let all =
            |id, tags: &[Tag], max_leases| PoolSpec { id, tags: tags.to_vec(), max_leases, ..PoolSpec::default() };
        [all(POOLS[0], &TAGS[..2], self.limit), all(POOLS[1], &[RARE], RARE_LIMIT)]
    }

    /// A new life of a task centre: its number, then its controls, then the rows.
    fn birth(&mut self, now: u64) -> anyhow::Result<Centre> {
        self.lives += 1;
        let mut builder = Config::builder(Incarnation::new(self.lives)).seed(self.lives);
        for tag in TAGS {
            builder = builder.tag(tag);
        }
        let mut engine = Engine::new(builder.build()?);
        for pool in self.pools() {
            engine.put_pool(at(now), pool)?;
        }
        if self.paused {
            for tag in TAGS {
                engine.set_tag(at(now), tag, Service::Closed)?;
            }
        }
        let _counted = engine.load(at(now), &self.rows.open());
        Ok(Centre { engine, waits: BTreeMap::new() })
    }

    fn delay(&mut self) -> u64 {
        1 + self.chance.below(self.network.slowest)
    }

    fn send(&mut self, message: Message) {
        let takes = self.delay();
        self.out.push((takes, message));
    }

    /// A task centre that answers, if there is one.
    fn any(&mut self, now: u64) -> usize {
        let awake: Vec<usize> = (0..self.centres.len()).filter(|centre| self.still[*centre] <= now).collect();
        awake.get(self.chance.place(awake.len())).copied().unwrap_or(0)
    }

    pub(crate) fn stand_still(&mut self, now: u64, centre: usize, ms: u64) {
        self.still[centre] = now + ms;
    }

    /// Everything works again.
    pub(crate) fn calm(&mut self, now: u64) {
        self.network = Network::GOOD;
        self.still.iter_mut().for_each(|until| *until = now);
    }

    // ---- the users ----------------------------------------------------------------------------------------------------

    /// A push has started a pipeline: stages, or needs.
    pub(crate) fn submit(&mut self, now: u64) {
        let id = PipelineId::new(self.next_job);
        let width = 2 + self.chance.below(3);
        let policy = Policy {
            ack_ms: 15_000,
            lease_ms: LEASE_MS,
            timeout_ms: 3_600_000,
            backoff_ms: 2_000,
            max_attempts: 3,
            max_crashes: 1_000,
            max_unacked: 1_000,
            ..Policy::default()
        };
        let mut jobs = Vec::new();
        for place in 0..width + 2 {
            let order = match place {
                0 => 1,
                last if last == width + 1 => 3,
                _ => 2,
            };
            let rare = self.chance.permille(200);
            let tag = if rare { RARE } else { TAGS[self.chance.place(2)] };
            let spec = JobSpec { order, policy, ..JobSpec::default() };
            jobs.push(NewJob { id: JobId::new(self.next_job), spec, tag: Some(tag) });
            self.next_job += 1;
        }
        // Every second pipeline says what its jobs need: the first, and the last all others.
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let by_needs = self.chance.permille(500);
        let first = [ids[0]];
        let middle = &ids[1..ids.len() - 1];
        let mut needs: Vec<(JobId, &[JobId])> = Vec::new();
        if by_needs {
            needs.push((ids[0], &[]));
            needs.extend(middle.iter().map(|job| (*job, &first[..])));
            needs.push((ids[ids.len() - 1], middle));
        }
        let priority = u8::try_from(self.chance.below(4)).unwrap_or(0);
        let new = Submission { id, class: Class::new(0), priority, jobs: &jobs, needs: &needs };
        let centre = self.any(now);
        self.ledger.asked(id, &ids);
        if let Ok(call) = self.centres[centre].engine.submit(at(now), &new) {
            self.centres[centre].waits.insert(call, Waits::Submit(id));
        }
        self.drain(centre);
    }

    // ---- task centres -------------------------------------------------------------------------------------------------

    pub(crate) fn next_deadline(&self, now: u64) -> Option<u64> {
        let due = |(at, centre): (usize, &Centre)| {
            centre.engine.next_deadline().map(|due| due.as_millis().max(self.still[at]).max(now))
        };
        self.centres.iter().enumerate().filter_map(due).min()
    }

    pub(crate) fn tick(&mut self, now: u64) {
        self.now = now;
        for centre in 0..self.centres.len() {
            let is_due = self.centres[centre].engine.next_deadline().is_some_and(|due| due <= at(now));
            if is_due && self.still[centre] <= now {
                self.centres[centre].engine.handle_timeout(at(now));
                self.drain(centre);
            }
        }
    }

    /// One wrong reading of the clock.
    pub(crate) fn step_clock(&mut self, now: u64, centre: usize, ms: u64) {
        self.centres[centre].engine.handle_timeout(at(now + ms));
        self.centres[centre].engine.handle_timeout(at(now));
        self.drain(centre);
    }

    pub(crate) fn crash(&mut self, now: u64, centre: usize) -> anyhow::Result<()> {
        self.centres[centre] = self.birth(now)?;
        self.drain(centre);
        Ok(())
    }

    pub(crate) fn set_limit(&mut self, now: u64, limit: u32) {
        self.limit = limit;
        self.ledger.set_limits(now, &[(POOLS[0], limit), (POOLS[1], RARE_LIMIT)]);
        let pools = self.pools();
        for centre in 0..self.centres.len() {
            for pool in &pools {
                // The pools are few and known.
                let _refused = self.centres[centre].engine.put_pool(at(now), pool.clone());
            }
            self.drain(centre);
        }
    }

    pub(crate) fn pause_at(&mut self, now: u64, paused: bool) {
        self.paused = paused;
        let service = if paused { Service::Closed } else { Service::Open };
        for centre in 0..self.centres.len() {
            for tag in TAGS {
                let _refused = self.centres[centre].engine.set_tag(at(now), tag, service);
            }
            self.drain(centre);
        }
    }

    fn drain(&mut self, centre: usize) {
        let life = (centre, self.centres[centre].engine.incarnation());
        while let Some(effect) = self.centres[centre].engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    let changes = self.centres[centre].engine.changes(ticket).to_vec();
                    self.send(Message::Write(life, ticket, changes));
                }
                Effect::Fetch { ask, want } => {
                    let engine = &self.centres[centre].engine;
                    let written = if let Want::Written(ticket) = want { engine.changes(ticket) } else { &[] };
                    let message = Message::Read(life, ask, want, written.to_vec());
                    self.send(message);
                }
                Effect::Assign { call, assignment } => {
                    if let Some(Waits::Pull(hand)) = self.centres[centre].waits.get(&call).copied() {
                        self.send(Message::Given(hand, assignment));
                    }
                }
                Effect::Answer { call, answer } => self.answered(centre, call, answer),
                // A worker hears of an abort by its heartbeat; no job here is judged or polled.
                Effect::Abort { .. } | Effect::Closed { .. } | Effect::Poll { .. } | Effect::Judge { .. } => {}
            }
        }
    }

    fn answered(&mut self, centre: usize, call: CallId, answer: Answer) {
        match self.centres[centre].waits.remove(&call) {
            Some(Waits::Pull(hand)) if !matches!(answer, Answer::Pulled { jobs: 1.. }) => {
                self.out.push((1_000, Message::Pull(hand)));
            }
            Some(Waits::Word(hand, token, act)) => self.heard(hand, token, act, answer),
            Some(Waits::Submit(pipeline)) if answer == Answer::Submitted => self.ledger.taken(pipeline),
            Some(Waits::Pull(_) | Waits::Submit(_)) | None => {}
        }
    }

    // ---- workers ------------------------------------------------------------------------------------------------------

    /// A worker comes; returns its number.
    pub(crate) fn hire(&mut self, now: u64) -> u64 {
        let hand = self.next_hand;
        self.next_hand += 1;
        self.hands.insert(hand, Hand { pulls: hand, job: None, since: now, leaves: false });
        self.out.push((1, Message::Pull(hand)));
        hand
    }

    /// A worker goes once it has done what it does.
    pub(crate) fn dismiss(&mut self, hand: u64) {
        if let Some(state) = self.hands.get_mut(&hand) {
            state.leaves = true;
        }
    }

    /// A worker dies; somebody sees that in half of all cases.
    pub(crate) fn kill(&mut self, now: u64, hand: u64) {
        self.hands.remove(&hand);
        if self.chance.permille(500) {
            for centre in 0..self.centres.len() {
                self.centres[centre].engine.handle_worker_gone(at(now), worker(hand));
                self.drain(centre);
            }
        }
    }

    fn say(&mut self, now: u64, hand: u64, token: LeaseToken, act: Act) {
        // A word may go to any centre.
        let centre = self.any(now);
        match self.centres[centre].engine.work(at(now), worker(hand), token, act) {
            Ok(call) => drop(self.centres[centre].waits.insert(call, Waits::Word(hand, token, act))),
            Err(_) => self.out.push((1_000, Message::Say(hand, token, act))),
        }
        self.drain(centre);
    }

    fn heard(&mut self, hand: u64, token: LeaseToken, act: Act, answer: Answer) {
        let now = self.now;
        let Some(state) = self.hands.get_mut(&hand).filter(|state| state.job == Some(token)) else { return };
        state.since = now;
        let is_over = match (act, answer) {
            (Act::Ack, Answer::Done { state: State::Running, .. }) => {
                let takes = 2_000 + self.chance.below(60_000) + if self.chance.permille(30) { 300_000 } else { 0 };
                self.out.push((takes, Message::Done(hand, token)));
                self.out.push((u64::from(LEASE_MS) / 3, Message::Beat(hand, token)));
                false
            }
            (Act::Heartbeat, Answer::Done { state: State::Running, .. }) => false,
            _ => true,
        };
        if is_over {
            state.job = None;
            self.out.push((1, Message::Pull(hand)));
        }
    }

    // ---- messages -----------------------------------------------------------------------------------------------------

    fn lives(&self, (centre, incarnation): Life) -> bool {
        self.centres[centre].engine.incarnation() == incarnation
    }

    pub(crate) fn deliver(&mut self, now: u64, message: Message) -> Result<(), Broken> {
        self.now = now;
        if let Message::Written((centre, _), ..) | Message::Rows((centre, _), ..) = &message
            && self.still[*centre] > now
        {
            let wait = self.still[*centre] - now;
            self.out.push((wait, message));
            return Ok(());
        }
        match message {
            Message::Write(life, ticket, changes) => {
                let made = self.rows.write(&changes);
                if made {
                    self.ledger.written(now, &changes)?;
                }
                let lost = self.network.loses_replies && self.chance.permille(100);
                let written = if lost {
                    Written::Unknown
                } else if made {
                    Written::Made
                } else {
                    self.rows.clock = at(now);
                    Written::Conflict(self.rows.read(Want::Written(ticket), &changes))
                };
                self.send(Message::Written(life, ticket, written));
            }
            Message::Written(life, ticket, written) if self.lives(life) => {
                let engine = &mut self.centres[life.0].engine;
                match written {
                    Written::Made => engine.handle_committed(at(now), ticket),
                    Written::Conflict(fresh) => engine.handle_conflicted(at(now), ticket, &fresh),
                    Written::Unknown => engine.handle_unknown(at(now), ticket),
                }
                self.drain(life.0);
            }
            Message::Read(life, ask, want, written) => {
                self.rows.clock = at(now);
                let rows = self.rows.read(want, &written);
                self.send(Message::Rows(life, ask, rows));
            }
            Message::Rows(life, ask, rows) if self.lives(life) => {
                let engine = &mut self.centres[life.0].engine;
                if self.network.loses_replies && self.chance.permille(50) {
                    engine.handle_unread(at(now), ask);
                } else {
                    engine.handle_rows(at(now), ask, &rows);
                }
                self.drain(life.0);
            }
            Message::Written(..) | Message::Rows(..) => {}
            Message::Pull(hand) => self.pull(now, hand),
            Message::Given(hand, assignment) => {
                if let Some(state) = self.hands.get_mut(&hand).filter(|state| state.job.is_none()) {
                    (state.job, state.since) = (Some(assignment.token), now);
                    self.send(Message::Say(hand, assignment.token, Act::Ack));
                }
            }
            Message::Say(hand, token, act) => {
                if self.hands.get(&hand).is_some_and(|state| state.job == Some(token)) {
                    self.say(now, hand, token, act);
                }
            }
            Message::Done(hand, token) => {
                let outcome = match self.chance.below(1_000) {
                    0..10 => Outcome::FailedForGood { code: 2 },
                    10..30 => Outcome::Failed { code: 1 },
                    _ => Outcome::Succeeded,
                };
                self.send(Message::Say(hand, token, Act::Report(outcome)));
            }
            Message::Beat(hand, token) => {
                if self.hands.get(&hand).is_some_and(|state| state.job == Some(token)) {
                    self.say(now, hand, token, Act::Heartbeat);
                    self.out.push((u64::from(LEASE_MS) / 3, Message::Beat(hand, token)));
                }
            }
        }
        Ok(())
    }

    fn pull(&mut self, now: u64, hand: u64) {
        let Some(state) = self.hands.get(&hand).copied().filter(|state| state.job.is_none()) else { return };
        if state.leaves {
            self.hands.remove(&hand);
            return;
        }
        if let Some(state) = self.hands.get_mut(&hand) {
            (state.pulls, state.since) = (state.pulls + 1, now);
        }
        let pool = POOLS[usize::from(state.pulls.is_multiple_of(4))];
        let request = PullRequest { pool, worker: worker(hand), want: 1, wait_ms: PULL_MS, previous: None };
        let centre = self.any(now);
        match self.centres[centre].engine.pull(at(now), &request) {
            Ok(call) => drop(self.centres[centre].waits.insert(call, Waits::Pull(hand))),
            Err(_) => self.out.push((1_000, Message::Pull(hand))),
        }
        self.drain(centre);
    }

    /// Workers that hear nothing any more: one whose task centre died asks another, and one whose lease nobody extends stops
    /// what it does, as it must.
    pub(crate) fn nudge(&mut self, now: u64) {
        for (hand, state) in &mut self.hands {
            let patience = if state.job.is_some() { u64::from(LEASE_MS) } else { PULL_MS + 5_000 };
            if now > state.since + patience {
                (state.job, state.since) = (None, now);
                self.out.push((1, Message::Pull(*hand)));
            }
        }
    }

    /// Whether everything has ended, and no task centre holds anything of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ledger.open() == 0 && self.centres.iter().all(|centre| centre.engine.jobs() == 0)
    }

    /// What is in the way, in the task centres' own words.
    pub(crate) fn why(&self) -> String {
        let held: Vec<u32> = self.centres.iter().map(|centre| centre.engine.jobs()).collect();
        let first = self.ledger.first_open();
        let story = first.map(|job| {
            let told: Vec<String> =
                self.centres.iter().map(|centre| format!("{:?}", centre.engine.explain(job))).collect();
            format!("job {job}: {:?}; {}", self.rows.latest(job), told.join("; "))
        });
        format!(
            "{} pipelines open, task centres hold {held:?} jobs; {story:?}; pools {:?}",
            self.ledger.open(),
            self.rows.pools
        )
    }

    /// A number that says what the database holds.
    pub(crate) fn state(&self) -> u64 {
        self.rows.jobs.values().fold(0, |sum, job| {
            sum.rotate_left(5) ^ job.id().get() ^ u64::from(job.version.get()) << 32 ^ job.since.as_millis()
        })
    }
}

fn worker(hand: u64) -> Worker {
    Worker { name: WorkerName::new(hand), incarnation: Incarnation::new(1) }
}
