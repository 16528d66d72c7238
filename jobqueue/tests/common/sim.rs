//! Random histories: engines that share a database, workers, users, and everything that goes wrong between them.
#![allow(unreachable_pub, unused_must_use, dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::num::NonZeroU16;

use crate::common::{Db, pool};
use tenon_jobqueue::{
    Act, Answer, AskId, Assignment, CallId, Change, Class, Component, ComponentMode, Condition, Config, Effect, Engine,
    Hold, Incarnation, Job, JobId, JobKey, JobSpec, Judgement, Key, Late, LeaseToken, Limits, NewJob, OnFailure,
    OnNewer, Outcome, PipelineId, PipelineState, Policy, PoolId, PoolSpec, PullRequest, Rate, Refused, ResultKey, Row,
    Service, Start, State, Submission, Tag, Ticket, Timestamp, Turns, When, Worker, WorkerName,
};

/// Everything that a host can say to an engine.
#[derive(Clone, Debug)]
pub enum Input {
    Pool(PoolSpec),
    Tag(Tag, Service),
    Weight(Tag, NonZeroU16),
    KeyRate(Key, Option<Rate>),
    Gone(Worker),
    EngineGone(Incarnation),
    PoolNews(PoolId),
    Submit(PipelineId, u8, Vec<NewJob>),
    SubmitNeeds(PipelineId, Vec<NewJob>, Vec<(JobId, Vec<JobId>)>),
    Pull(PullRequest),
    Cancel(CallId),
    Work(Worker, LeaseToken, Act),
    Callback(LeaseToken),
    Approve(JobId),
    Abort(JobId),
    Retry(JobId),
    AbortPipeline(PipelineId),
    RetryPipeline(PipelineId),
    Committed(Ticket),
    Conflicted(Ticket, Vec<Row>),
    Unknown(Ticket),
    Rows(AskId, Vec<Row>),
    Judged(JobKey, Judgement),
    Hold(Hold),
    Release(u32),
    Component(Component, ComponentMode),
    Timeout,
    Load(Vec<Row>),
    Compensate(Vec<Row>),
}

impl Input {
    /// Says it; a refusal is returned.
    pub fn say(&self, now: Timestamp, engine: &mut Engine) -> Result<Option<CallId>, Refused> {
        let call = match self {
            Self::Pool(spec) => return engine.put_pool(now, spec.clone()).map(|()| None),
            Self::Tag(tag, service) => return engine.set_tag(now, *tag, *service).map(|()| None),
            Self::Weight(tag, weight) => return engine.set_weight(now, *tag, *weight).map(|()| None),
            Self::KeyRate(key, rate) => return engine.set_key_rate(now, *key, *rate).map(|()| None),
            Self::Hold(hold) => return engine.hold(now, *hold).map(|()| None),
            Self::Component(component, mode) => {
                return engine.set_component(now, *component, *mode).map(|()| None);
            }
            Self::Submit(id, priority, jobs) => {
                engine.submit(now, &Submission { id: *id, class: Class::new(0), priority: *priority, jobs, needs: &[] })
            }
            Self::SubmitNeeds(id, jobs, needs) => {
                let needs: Vec<(JobId, &[JobId])> = needs.iter().map(|(job, of)| (*job, &of[..])).collect();
                engine.submit(now, &Submission { id: *id, class: Class::new(0), priority: 0, jobs, needs: &needs })
            }
            Self::Pull(request) => engine.pull(now, request),
            Self::Work(worker, token, act) => engine.work(now, *worker, *token, *act),
            Self::Callback(token) => engine.callback(now, *token),
            Self::Approve(job) => engine.approve(now, *job),
            Self::Abort(job) => engine.abort(now, *job),
            Self::Retry(job) => engine.retry(now, *job),
            Self::AbortPipeline(id) => engine.abort_pipeline(now, *id),
            Self::RetryPipeline(id) => engine.retry_pipeline(now, *id),
            fact => {
                fact.tell(now, engine);
                return Ok(None);
            }
        };
        call.map(Some)
    }

    fn tell(&self, now: Timestamp, engine: &mut Engine) {
        match self {
            Self::Cancel(call) => engine.cancel_pull(now, *call),
            Self::Committed(ticket) => engine.handle_committed(now, *ticket),
            Self::Conflicted(ticket, rows) => engine.handle_conflicted(now, *ticket, rows),
            Self::Unknown(ticket) => engine.handle_unknown(now, *ticket),
            Self::Rows(ask, rows) => engine.handle_rows(now, *ask, rows),
            Self::Judged(job, judgement) => engine.handle_judged(now, *job, *judgement),
            Self::Gone(worker) => engine.handle_worker_gone(now, *worker),
            Self::EngineGone(life) => engine.handle_engine_gone(now, *life),
            Self::PoolNews(pool) => engine.handle_pool_news(now, *pool),
            Self::Release(filter) => engine.release(now, *filter),
            Self::Timeout => engine.handle_timeout(now),
            Self::Load(rows) => drop(engine.load(now, rows)),
            Self::Compensate(rows) => drop(engine.compensate(now, rows)),
            other => panic!("{other:?} is a command"),
        }
    }
}

/// `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn one<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[usize::try_from(self.roll(of.len() as u64)).unwrap()].clone())
    }
}

/// One engine with what it wants done, and all that was ever said to it.
pub struct Node {
    pub engine: Engine,
    pub config: Config,
    pub todo: Vec<Effect>,
    pub log: Vec<(Timestamp, Input)>,
    pub out: Vec<Effect>,
    pub refusals: Vec<(Input, Refused)>,
    pulls: Vec<CallId>,
}

/// The whole.
pub struct Sim {
    pub dice: Dice,
    pub now: Timestamp,
    pub db: Db,
    pub nodes: Vec<Node>,
    pub assigned: Vec<Assignment>,
    pub pipelines: u64,
    pub jobs: u64,
    pub lives: u64,
    /// Writes that were told as unknown and may still be made, later than anybody expects.
    pub late: Vec<Vec<Change>>,
    /// Whether writes and reads go wrong.
    pub faults: bool,
}

fn weight(number: u64) -> NonZeroU16 {
    NonZeroU16::new(u16::try_from(number).unwrap()).unwrap()
}

pub fn tags() -> [Tag; 3] {
    [Tag::OTHER, Tag::new(1, 0), Tag::new(2, 0)]
}

impl Sim {
    pub fn new(seed: u64, nodes: usize) -> Self {
        let mut sim = Self {
            dice: Dice(seed),
            now: Timestamp::from_millis(1_000),
            db: Db::default(),
            nodes: Vec::new(),
            assigned: Vec::new(),
            pipelines: 0,
            jobs: 0,
            lives: 0,
            late: Vec::new(),
            faults: true,
        };
        for _ in 0..nodes {
            let node = sim.birth();
            sim.nodes.push(node);
        }
        for node in 0..nodes {
            sim.pools(node);
        }
        sim
    }

    fn birth(&mut self) -> Node {
        self.lives += 1;
        let mut limits = Limits::default();
        limits.jobs = 60;
        limits.calls = 40;
        let mut builder = Config::builder(Incarnation::new(self.lives))
            .seed(self.lives)
            .limits(limits)
            .settling_ms(0)
            .recheck_ms(700);
        for tag in tags() {
            builder = builder.tag(tag);
        }
        let config = builder.build().unwrap();
        let engine = Engine::new(config.clone());
        let (todo, log, out, refusals, pulls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Node { engine, config, todo, log, out, refusals, pulls }
    }

    fn pools(&mut self, node: usize) {
        for (id, tags, leases) in [(1, &tags()[..], 8), (2, &tags()[1..], 4)] {
            let turns = [Turns::Rotation, Turns::Priority, Turns::Fair][usize::try_from(self.dice.roll(3)).unwrap()];
            let rate = Rate::new(3, 1_000).filter(|_| self.dice.roll(3) == 0);
            self.say(node, Input::Pool(PoolSpec { turns, rate, ..pool(id, tags, leases) }));
        }
    }

    pub fn say(&mut self, node: usize, input: Input) -> Option<CallId> {
        let node = &mut self.nodes[node];
        node.log.push((self.now, input.clone()));
        let said = input.say(self.now, &mut node.engine);
        while let Some(effect) = node.engine.poll_effect() {
            node.out.push(effect);
            node.todo.push(effect);
        }
        match said {
            Ok(call) => {
                node.pulls.extend(call.filter(|_| matches!(input, Input::Pull(_))));
                call
            }
            Err(why) => {
                node.refusals.push((input, why));
                None
            }
        }
    }

    /// Something happens.
    pub fn step(&mut self) {
        let node = usize::try_from(self.dice.roll(self.nodes.len() as u64)).unwrap();
        match self.dice.roll(100) {
            0..4 => self.submit(node),
            4..16 => self.pull(node),
            16..36 => self.work(node),
            36..44 => self.meddle(node),
            44..52 => {
                let ms = [1, 50, 500, 3_000][usize::try_from(self.dice.roll(4)).unwrap()];
                self.now = self.now.after_millis(ms);
                self.say(node, Input::Timeout);
            }
            52 if self.faults => self.restart(node),
            53 => {
                let page = self.db.open();
                self.say(node, Input::Compensate(page));
            }
            54 => {
                if let Some(changes) = self.late.pop() {
                    self.db.write(&changes);
                }
            }
            _ => self.act(node),
        }
    }

    fn submit(&mut self, node: usize) {
        let mut jobs = Vec::new();
        for _ in 0..=self.dice.roll(4) {
            self.jobs += 1;
            let policy = Policy {
                ack_ms: 1_000,
                lease_ms: 3_000,
                timeout_ms: 9_000,
                abort_ms: 2_000,
                backoff_ms: u32::try_from(self.dice.roll(2) * 500).unwrap(),
                backoff_cap_ms: 4_000,
                max_attempts: u16::try_from(1 + self.dice.roll(3)).unwrap(),
                max_crashes: 2,
                max_nacks: 4,
                start_by_ms: [0, 0, 0, 2_500][usize::try_from(self.dice.roll(4)).unwrap()],
                late: [Late::Fails, Late::IsSkipped][usize::try_from(self.dice.roll(2)).unwrap()],
                finish_by_ms: [0, 0, 0, 6_000][usize::try_from(self.dice.roll(4)).unwrap()],
                max_unacked: 6,
            };
            let spec = JobSpec {
                order: u32::try_from(1 + self.dice.roll(3)).unwrap(),
                component: Component::new(u32::try_from(self.dice.roll(4)).unwrap()),
                when: [When::OnSuccess, When::OnSuccess, When::Always, When::OnFailure]
                    [usize::try_from(self.dice.roll(4)).unwrap()],
                start: [Start::Auto, Start::Auto, Start::Auto, Start::Manual, Start::After(700)]
                    [usize::try_from(self.dice.roll(5)).unwrap()],
                on_failure: [OnFailure::Fails, OnFailure::Allowed][usize::try_from(self.dice.roll(2)).unwrap()],
                unchanged: [None, None, Some(ResultKey(self.dice.roll(9)))]
                    [usize::try_from(self.dice.roll(3)).unwrap()],
                condition: [Condition::None, Condition::None, Condition::Ask]
                    [usize::try_from(self.dice.roll(3)).unwrap()],
                key: [None, None, Some(Key::new(self.dice.roll(2)))][usize::try_from(self.dice.roll(3)).unwrap()],
                key_limit: 1,
                key_weight: 1,
                on_newer: [OnNewer::Waits, OnNewer::Waits, OnNewer::GivesWay, OnNewer::KeepsOut]
                    [usize::try_from(self.dice.roll(4)).unwrap()],
                policy,
            };
            jobs.push(NewJob { id: JobId::new(self.jobs), spec, tag: None });
        }
        self.pipelines += 1;
        if self.dice.roll(2) == 0 {
            let needs = self.needs(&jobs);
            self.say(node, Input::SubmitNeeds(PipelineId::new(self.pipelines), jobs, needs));
            return;
        }
        let priority = u8::try_from(self.dice.roll(4)).unwrap();
        self.say(node, Input::Submit(PipelineId::new(self.pipelines), priority, jobs));
    }

    /// Some jobs name some that stand before them.
    fn needs(&mut self, jobs: &[NewJob]) -> Vec<(JobId, Vec<JobId>)> {
        let mut needs = Vec::new();
        for (at, job) in jobs.iter().enumerate() {
            if self.dice.roll(2) == 0 {
                let before = jobs[..at].iter().filter(|other| other.spec.order <= job.spec.order);
                let named: Vec<JobId> = before.map(|other| other.id).collect();
                needs.push((job.id, named.into_iter().filter(|_| self.dice.roll(3) > 0).collect()));
            }
        }
        needs
    }

    fn pull(&mut self, node: usize) {
        let previous = self.dice.one(&self.nodes[node].pulls).filter(|_| self.dice.roll(3) == 0);
        if let Some(call) = previous.filter(|_| self.dice.roll(7) == 0) {
            self.say(node, Input::Cancel(call));
            return;
        }
        let worker = Worker {
            name: WorkerName::new(self.dice.roll(4)),
            incarnation: Incarnation::new(1 + self.dice.roll(8) / 7),
        };
        let pool = PoolId::new(u32::try_from(1 + self.dice.roll(2)).unwrap());
        let want = u32::try_from(1 + self.dice.roll(4)).unwrap();
        let wait_ms = self.dice.roll(3) * 1_000;
        self.say(node, Input::Pull(PullRequest { pool, worker, want, wait_ms, previous }));
    }

    fn work(&mut self, node: usize) {
        let Some(job) = self.dice.one(&self.assigned) else { return };
        let later = self.now.after_millis(self.dice.roll(4_000));
        let act = match self.dice.roll(20) {
            0..6 => Act::Ack,
            6 => Act::Nack,
            7..10 => Act::Heartbeat,
            10 => Act::Pause(later),
            11 => Act::Resume,
            12 => Act::Snooze(later),
            13 => Act::Suspend(later),
            14 => Act::Poll(later),
            15 => Act::Report(Outcome::FailedForGood { code: 2 }),
            16 => Act::Report(Outcome::Failed { code: 1 }),
            17 => {
                self.say(node, Input::Callback(job.token));
                return;
            }
            _ => Act::Report(Outcome::Succeeded),
        };
        self.say(node, Input::Work(job.worker, job.token, act));
    }

    fn meddle(&mut self, node: usize) {
        let job = JobId::new(self.dice.roll(self.jobs + 2));
        let pipeline = PipelineId::new(self.dice.roll(self.pipelines + 2));
        let input = match self.dice.roll(21) {
            0..3 => Input::Abort(job),
            3..7 => Input::Approve(job),
            7..9 => Input::Retry(job),
            9 => Input::AbortPipeline(pipeline),
            10 => Input::RetryPipeline(pipeline),
            11 => {
                let until = self.now.after_millis(self.dice.roll(3_000));
                let component = Some(Component::new(u32::try_from(self.dice.roll(4)).unwrap()));
                let filter = u32::try_from(self.dice.roll(3)).unwrap();
                Input::Hold(Hold { filter, class: None, component, from: self.now, until })
            }
            14 => Input::Weight(self.dice.one(&tags()).unwrap(), weight(1 + self.dice.roll(2_000))),
            15 => {
                let rate = Rate::new(2, 1_500).filter(|_| self.dice.roll(2) == 0);
                Input::KeyRate(Key::new(self.dice.roll(2)), rate)
            }
            16 => self.dice.one(&self.assigned).map_or(Input::Timeout, |job| Input::Gone(job.worker)),
            17 if self.dice.roll(4) == 0 => return self.pools(node),
            // Now and then of one that lives.
            18 if self.dice.roll(2) == 0 => Input::EngineGone(Incarnation::new(1 + self.dice.roll(self.lives))),
            19 => Input::PoolNews(PoolId::new(u32::try_from(1 + self.dice.roll(3)).unwrap())),
            12 => Input::Release(u32::try_from(self.dice.roll(3)).unwrap()),
            13 => {
                let component = Component::new(u32::try_from(self.dice.roll(4)).unwrap());
                let mode = [ComponentMode::Runs, ComponentMode::Skipped][usize::try_from(self.dice.roll(2)).unwrap()];
                Input::Component(component, mode)
            }
            _ => {
                let tag = self.dice.one(&tags()).unwrap();
                let service =
                    [Service::Open, Service::Open, Service::Closed][usize::try_from(self.dice.roll(3)).unwrap()];
                Input::Tag(tag, service)
            }
        };
        self.say(node, input);
    }

    /// The engine dies, with all it was about to do, and another life of it starts from the rows.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node] = self.birth();
        self.pools(node);
        let rows = self.db.open();
        self.say(node, Input::Load(rows));
    }

    /// Does one of the things that an engine wants done, in any order, well or badly.
    pub fn act(&mut self, node: usize) {
        let todo = self.nodes[node].todo.len();
        if todo == 0 {
            return;
        }
        let at = if self.faults { usize::try_from(self.dice.roll(todo as u64)).unwrap() } else { 0 };
        let effect = self.nodes[node].todo.remove(at);
        match effect {
            Effect::Persist { ticket } => self.persist(node, ticket),
            Effect::Fetch { ask, want } => {
                self.db.clock = self.now;
                let rows = self.db.read(want, &self.nodes[node].engine);
                self.say(node, Input::Rows(ask, rows.clone()));
                if self.faults && self.dice.roll(10) == 0 {
                    self.say(node, Input::Rows(ask, rows));
                }
            }
            Effect::Assign { assignment, .. } => {
                let lost = self.faults && self.dice.roll(10) == 0;
                if !lost {
                    self.assigned.push(assignment);
                }
            }
            Effect::Judge { job, .. } => {
                let until = self.now.after_millis(500);
                let judgements = [
                    Judgement::Pass,
                    Judgement::Skip { filter: 7 },
                    Judgement::Reuse { result_of: JobId::new(1) },
                    Judgement::Hold { filter: 8, until },
                ];
                let judgement = self.dice.one(&judgements).unwrap();
                self.say(node, Input::Judged(job, judgement));
            }
            Effect::Abort { .. } | Effect::Poll { .. } | Effect::Answer { .. } | Effect::Closed { .. } => {}
        }
    }

    fn persist(&mut self, node: usize, ticket: Ticket) {
        let changes = self.nodes[node].engine.changes(ticket).to_vec();
        let fate = if self.faults { self.dice.roll(20) } else { 10 };
        if fate == 0 {
            // The reply is lost, and nothing was written; or not yet.
            self.late.push(changes);
            self.say(node, Input::Unknown(ticket));
            return;
        }
        let made = self.db.write(&changes);
        if fate == 1 {
            self.say(node, Input::Unknown(ticket));
            self.say(node, Input::Unknown(ticket));
        } else if made {
            self.say(node, Input::Committed(ticket));
            if fate == 2 {
                self.say(node, Input::Committed(ticket));
                self.say(node, Input::Conflicted(ticket, Vec::new()));
            }
        } else {
            let fresh = if fate == 3 { Vec::new() } else { self.db.fresh(&changes) };
            self.say(node, Input::Conflicted(ticket, fresh));
        }
    }

    /// Nothing goes wrong any more, everybody works: every pipeline must end.
    pub fn converge(&mut self) {
        self.faults = false;
        for node in 0..self.nodes.len() {
            self.restart(node);
        }
        for _ in 0..3_000 {
            for node in 0..self.nodes.len() {
                while !self.nodes[node].todo.is_empty() {
                    self.act(node);
                }
            }
            if self.db.pipelines.values().all(|pipeline| pipeline.state() != PipelineState::Open) {
                return;
            }
            let node = usize::try_from(self.dice.roll(self.nodes.len() as u64)).unwrap();
            let waiting = self.db.jobs.values().find(|job| job.state == State::Suspended).map(Job::id);
            if let Some(job) = waiting {
                self.say(node, Input::Approve(job));
            }
            for job in std::mem::take(&mut self.assigned) {
                self.say(node, Input::Work(job.worker, job.token, Act::Report(Outcome::Succeeded)));
            }
            let worker = Worker { name: WorkerName::new(9), incarnation: Incarnation::new(1) };
            let request = PullRequest { pool: PoolId::new(1), worker, want: 8, wait_ms: 0, previous: None };
            self.say(node, Input::Pull(request));
            self.now = self.now.after_millis(200);
            self.say(node, Input::Timeout);
            let page = self.db.open();
            self.say(node, Input::Compensate(page));
        }
        let open: Vec<_> = self.db.pipelines.values().filter(|p| p.state() == PipelineState::Open).collect();
        panic!(
            "pipelines that never end at {:?}: {open:?}\n{:?}\n{:?}",
            self.now,
            self.db.keys,
            open.iter()
                .flat_map(|p| self.db.latest(p.id))
                .map(|job| {
                    let why: Vec<_> =
                        self.nodes.iter().map(|node| node.engine.explain(job.id()).map(|e| e.why)).collect();
                    (job.id(), job.state, job.spec.key, job.spec.on_newer, job.reason, why)
                })
                .collect::<Vec<_>>()
        );
    }
}

/// The refusal that an answer tells.
pub fn refusal(effect: &Effect) -> Option<Refused> {
    match effect {
        Effect::Answer { answer: Answer::Refused(why), .. } => Some(*why),
        _ => None,
    }
}
