//! A host in memory: a database that swaps by version, and a loop that does what the engine says.
#![allow(unreachable_pub, unused_must_use, reason = "a test host")]
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tenon_jobqueue::memory::MemoryRows;
use tenon_jobqueue::{
    Act, Answer, Assignment, CallId, Change, Class, Component, Config, Effect, Engine, Incarnation, Job, JobClass,
    JobId, JobKey, JobSpec, LeaseToken, NeedsVerdict, NewJob, Outcome, Outcomes, Pipeline, PipelineId, PipelineState,
    PoolId, PoolRow, PoolSpec, PullRequest, Refused, Row, State, Submission, Tag, Timestamp, Want, Worker, WorkerName,
};

/// All rows, written by compare-and-set on the version, all rows of a write or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Db {
    pub rows: MemoryRows,
    /// How often each job's result was accepted.
    pub results: BTreeMap<JobId, u32>,
    /// Whether the rows' rules are not looked at with every write.
    pub unchecked: bool,
}

impl std::ops::Deref for Db {
    type Target = MemoryRows;

    fn deref(&self) -> &MemoryRows {
        &self.rows
    }
}

impl std::ops::DerefMut for Db {
    fn deref_mut(&mut self) -> &mut MemoryRows {
        &mut self.rows
    }
}

/// All that engines may give out of a pool together.
fn lent(row: &PoolRow) -> u64 {
    row.shares.iter().map(|share| u64::from(share.leases)).sum()
}

impl Db {
    pub fn write(&mut self, changes: &[Change]) -> bool {
        assert!(!changes.is_empty(), "an empty write");
        if !self.allows(changes) {
            return false;
        }
        for job in changes.iter().filter_map(|change| change.row.as_job()) {
            let was = self.jobs.get(&job.key).map(|old| old.state);
            assert!(was.is_none_or(|state| !state.is_terminal()), "{was:?} was left: {job:?}");
            if job.state == State::Succeeded {
                *self.results.entry(job.id()).or_default() += 1;
            }
        }
        for row in changes.iter().filter_map(|change| change.row.as_pool()) {
            // A limit that was lowered may stand below what is out.
            let before = self.pools.get(&row.pool).map_or(0, lent);
            assert!(lent(row) <= before.max(u64::from(row.limit)), "shares of more than there is: {row:?}");
        }
        assert!(self.rows.write(changes));
        if !self.unchecked {
            self.check(changes);
        }
        true
    }

    /// What must hold after every write: a pipeline's counts are its jobs', and a key's row names who holds it.
    pub fn check(&self, changes: &[Change]) {
        let mut held = BTreeMap::new();
        for job in self.jobs.values() {
            if let Some(key) = job.held_key() {
                let used: &mut u32 = held.entry(key).or_default();
                *used += job.spec.key_weight;
                assert!(*used <= job.spec.key_limit, "more jobs hold {key} than may");
            }
        }
        self.check_pools();
        let told = self.keys.values().filter(|row| row.used > 0).map(|row| (row.key, row.used));
        assert_eq!(held, told.collect(), "how much of each key is held");
        for pipeline in self.pipelines.values() {
            let mut counted = Pipeline { unstarted: 0, remaining: 0, failed: 0, stopped: 0, ..pipeline.clone() };
            let plan = self.plans.get(&pipeline.id);
            counted.outcomes = plan.map(|plan| Outcomes::new(plan.jobs.len())).unwrap_or_default();
            for job in self.latest(pipeline.id) {
                counted.absorb(plan, None, Some(&job));
            }
            assert_eq!(counted, *pipeline, "the pipeline's counts are not its jobs'");
            for place in 0..plan.map_or(0, |plan| plan.jobs.len()) {
                let verdict = plan.unwrap().verdict(&pipeline.outcomes, place);
                let owed = match pipeline.outcomes.get(place) {
                    JobClass::Undecided if pipeline.aborted_at.is_some() => true,
                    JobClass::Undecided => verdict != NeedsVerdict::Wait,
                    JobClass::Skipped => pipeline.aborted_at.is_none() && !matches!(verdict, NeedsVerdict::Skip { .. }),
                    JobClass::Active | JobClass::Ignored | JobClass::Good | JobClass::Failed | JobClass::Stopped => {
                        false
                    }
                };
                assert!(
                    pipeline.owes || !owed,
                    "place {place} is owed something that the row does not say: {pipeline:?} {changes:?} {plan:?}"
                );
            }
        }
    }

    /// What must hold of limits that engines share: nobody uses more than its share.
    fn check_pools(&self) {
        for row in self.pools.values() {
            let mut charged: BTreeMap<Incarnation, u32> = BTreeMap::new();
            for (_, life) in self.jobs.values().filter_map(Job::charged).filter(|(pool, _)| *pool == row.pool) {
                *charged.entry(life).or_default() += 1;
            }
            for (life, used) in charged {
                let share = row.share(life).map_or(0, |share| share.leases);
                assert!(used <= share, "engine {life} has {used} leases out and may have {share}: {row:?}");
            }
        }
    }

    /// The latest attempt of each job of a pipeline.
    pub fn latest(&self, pipeline: PipelineId) -> Vec<Job> {
        let mut latest: BTreeMap<JobId, Job> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.pipeline == pipeline) {
            latest.insert(job.id(), *job);
        }
        latest.into_values().collect()
    }

    pub fn job(&self, id: u64) -> Job {
        let id = JobId::new(id);
        *self.jobs.values().rfind(|job| job.id() == id).unwrap()
    }

    pub fn read(&self, want: Want, engine: &Engine) -> Vec<Row> {
        let written = if let Want::Written(ticket) = want { engine.changes(ticket) } else { &[] };
        self.rows.read(want, written)
    }

    /// The rows of a write as they are.
    pub fn fresh(&self, changes: &[Change]) -> Vec<Row> {
        changes.iter().filter_map(|change| self.get(change.row.key())).collect()
    }

    /// Every row that a rebuild needs, and the keys.
    pub fn open(&self) -> Vec<Row> {
        let keys = self.keys.values().copied().map(Row::Key);
        self.rows.open().into_iter().chain(keys).collect()
    }
}

/// One engine and what it has said.
pub struct Host {
    pub engine: Engine,
    pub db: Rc<RefCell<Db>>,
    pub now: Timestamp,
    pub assigned: Vec<(CallId, Assignment)>,
    pub answers: BTreeMap<CallId, Answer>,
    pub aborts: Vec<(Worker, LeaseToken)>,
    pub polls: Vec<LeaseToken>,
    pub judged: Vec<JobKey>,
    pub closed: Vec<(PipelineId, PipelineState)>,
    pub writes: u32,
}

pub const POOL: PoolId = PoolId::new(1);

pub fn worker(name: u64) -> Worker {
    Worker { name: WorkerName::new(name), incarnation: Incarnation::new(1) }
}

pub fn pool(id: u32, tags: &[Tag], max_leases: u32) -> PoolSpec {
    PoolSpec { id: PoolId::new(id), tags: tags.to_vec(), max_leases, ..PoolSpec::default() }
}

pub fn config(engine: u64) -> Config {
    Config::builder(Incarnation::new(engine)).seed(42).settling_ms(0).recheck_ms(0).build().unwrap()
}

pub fn spec(order: u32) -> JobSpec {
    JobSpec { order, ..JobSpec::default() }
}

pub fn new_job(id: u64, order: u32) -> NewJob {
    NewJob { id: JobId::new(id), spec: spec(order), tag: None }
}

impl Host {
    pub fn new() -> Self {
        Self::on(config(1), Rc::default())
    }

    pub fn on(config: Config, db: Rc<RefCell<Db>>) -> Self {
        let mut host = Self {
            engine: Engine::new(config),
            db,
            now: Timestamp::from_millis(1_000),
            assigned: Vec::new(),
            answers: BTreeMap::new(),
            aborts: Vec::new(),
            polls: Vec::new(),
            judged: Vec::new(),
            closed: Vec::new(),
            writes: 0,
        };
        host.engine.put_pool(host.now, pool(1, &[Tag::OTHER], 1_000)).unwrap();
        host
    }

    /// Another engine, in another life, on the same database.
    pub fn beside(&self, life: u64) -> Self {
        let mut host = Self::on(config(life), Rc::clone(&self.db));
        host.now = self.now;
        host
    }

    /// A restart: a new life, rebuilt from the rows.
    pub fn restart(&mut self, life: u64) {
        let rows = self.db.borrow().open();
        *self = Self { now: self.now, ..self.beside(life) };
        let told = self.engine.load(self.now, &rows);
        assert_eq!((told.left, told.broken), (0, 0));
        self.run();
    }

    pub fn job(&self, id: u64) -> Job {
        self.db.borrow().job(id)
    }

    pub fn state(&self, id: u64) -> State {
        self.job(id).state
    }

    pub fn states(&self, ids: &[u64]) -> Vec<State> {
        ids.iter().map(|id| self.state(*id)).collect()
    }

    pub fn pipeline(&self, id: u64) -> Pipeline {
        self.db.borrow().pipelines[&PipelineId::new(id)].clone()
    }

    /// Does one effect, as a careful host does.
    pub fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { ticket } => {
                let changes = self.engine.changes(ticket).to_vec();
                self.writes += 1;
                let made = self.db.borrow_mut().write(&changes);
                if made {
                    self.engine.handle_committed(self.now, ticket);
                } else {
                    let fresh = self.db.borrow().fresh(&changes);
                    self.engine.handle_conflicted(self.now, ticket, &fresh);
                }
            }
            Effect::Fetch { ask, want } => {
                self.db.borrow_mut().clock = self.now;
                let rows = self.db.borrow().read(want, &self.engine);
                self.engine.handle_rows(self.now, ask, &rows);
            }
            Effect::Assign { call, assignment } => self.assigned.push((call, assignment)),
            Effect::Abort { worker, token } => self.aborts.push((worker, token)),
            Effect::Poll { token } => self.polls.push(token),
            Effect::Judge { job, .. } => self.judged.push(job),
            Effect::Answer { call, answer } => {
                assert!(self.answers.insert(call, answer).is_none(), "{call} was answered twice");
            }
            Effect::Closed { pipeline, state } => self.closed.push((pipeline, state)),
        }
    }

    /// Does everything until nothing is left to do.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            let Some(effect) = self.engine.poll_effect() else { return };
            self.act(effect);
        }
        panic!("the engine never rests");
    }

    /// Lets time pass, with every deadline on its way.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.after_millis(ms);
        for _ in 0..100_000 {
            let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
            self.run();
        }
        panic!("a deadline that never passes: {:?}", self.engine.next_deadline());
    }

    pub fn answer(&mut self, call: Result<CallId, Refused>) -> Answer {
        let call = call.unwrap();
        self.run();
        self.answers[&call]
    }

    pub fn submit(&mut self, pipeline: u64, jobs: &[NewJob]) -> Answer {
        self.submit_as(pipeline, 0, 0, jobs)
    }

    /// Submits jobs, some of which name what they need.
    pub fn submit_needs(&mut self, pipeline: u64, jobs: &[NewJob], needs: &[(u64, &[u64])]) -> Answer {
        let needs: Vec<(JobId, Vec<JobId>)> =
            needs.iter().map(|(job, of)| (JobId::new(*job), of.iter().copied().map(JobId::new).collect())).collect();
        let needs: Vec<(JobId, &[JobId])> = needs.iter().map(|(job, of)| (*job, &of[..])).collect();
        let (id, class) = (PipelineId::new(pipeline), Class::new(0));
        let call = self.engine.submit(self.now, &Submission { id, class, priority: 0, jobs, needs: &needs });
        self.answer(call)
    }

    pub fn submit_as(&mut self, pipeline: u64, class: u32, priority: u8, jobs: &[NewJob]) -> Answer {
        let (id, class) = (PipelineId::new(pipeline), Class::new(class));
        let call = self.engine.submit(self.now, &Submission { id, class, priority, jobs, needs: &[] });
        self.answer(call)
    }

    pub fn pull_for(&mut self, request: &PullRequest) -> Vec<Assignment> {
        let call = self.engine.pull(self.now, request).unwrap();
        self.run();
        self.got(call)
    }

    pub fn got(&self, call: CallId) -> Vec<Assignment> {
        self.assigned.iter().filter(|(to, _)| *to == call).map(|(_, assignment)| *assignment).collect()
    }

    pub fn pull(&mut self, name: u64, want: u32) -> Vec<Assignment> {
        self.pull_for(&request(name, want))
    }

    pub fn one(&mut self, name: u64) -> Assignment {
        let jobs = self.pull(name, 1);
        assert_eq!(jobs.len(), 1, "one job for worker {name}");
        jobs[0]
    }

    pub fn say(&mut self, to: &Assignment, act: Act) -> Answer {
        let call = self.engine.work(self.now, to.worker, to.token, act);
        self.answer(call)
    }

    /// Acknowledges.
    pub fn ack(&mut self, to: &Assignment) -> Answer {
        self.say(to, Act::Ack)
    }

    pub fn succeed(&mut self, to: &Assignment) -> Answer {
        self.say(to, Act::Report(Outcome::Succeeded))
    }

    pub fn fail(&mut self, to: &Assignment) -> Answer {
        self.say(to, Act::Report(Outcome::Failed { code: 1 }))
    }

    /// Pulls, acknowledges and finishes everything that can be pulled, until nothing can.
    pub fn work_off(&mut self) -> Vec<u64> {
        let mut done = Vec::new();
        for _ in 0..10_000 {
            let jobs = self.pull(99, 10);
            if jobs.is_empty() {
                return done;
            }
            for job in jobs {
                self.ack(&job);
                assert!(matches!(self.succeed(&job), Answer::Done { state: State::Succeeded, .. }));
                done.push(job.token.key.job.get());
            }
        }
        panic!("work without end");
    }
}

pub fn request(name: u64, want: u32) -> PullRequest {
    PullRequest { pool: POOL, worker: worker(name), want, wait_ms: 0, previous: None }
}

pub const fn component(number: u32) -> Component {
    Component::new(number)
}

pub const fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

pub const fn refused(why: Refused) -> Answer {
    Answer::Refused(why)
}

/// The state that an answer tells.
pub fn told(answer: Answer) -> State {
    match answer {
        Answer::Done { state, .. } => state,
        Answer::Submitted | Answer::Aborting | Answer::Retried { .. } | Answer::Pulled { .. } | Answer::Refused(_) => {
            panic!("{answer:?}")
        }
    }
}
