//! The task centre: one thread that has the engine and the store. Workers speak to it by channels.
//!
//! What has gathered is asked of the engine, all its writes are made with one commit, and answers go back. A database
//! that fails is asked again; meanwhile nothing that relies on a write goes on.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use job_store::{Firing, Store, Write};
use tenon_jobqueue::{
    Act, Answer, AskId, Assignment, CallId, Change, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, Key,
    Late, LeaseToken, NewJob, PipelineId, Policy, PoolId, PoolSpec, PullRequest, Refused, Row, Submission, Tag, Ticket,
    Want, Worker,
};

use crate::{now, tell};

/// A lease; the worker's heartbeats come several times within it.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
/// How often the centre looks at the clock, and at what other processes have written.
const TICK: Duration = Duration::from_millis(100);
/// Pipelines that are looked at with each tick; the next tick goes on behind them.
const PAGE: u32 = 500;
/// How long a runner waits for its engine to be empty once the queue is: what another runner has ended goes when its lease
/// would have.
const SETTLES: Duration = Duration::from_secs(15);

/// A command for the queue.
#[derive(clap::Args)]
pub(crate) struct NewCommand {
    /// The larger goes first.
    #[arg(long, default_value_t = 0)]
    priority: u8,
    #[arg(long, default_value_t = 0)]
    tag: u32,
    /// How often it may fail before it is given up.
    #[arg(long, default_value_t = 1)]
    attempts: u16,
    /// How often its runner may die under it before it is given up.
    #[arg(long, default_value_t = 3)]
    crashes: u16,
    /// Of all commands with this key one runs at a time.
    #[arg(long)]
    key: Option<u64>,
    /// Seconds within which a worker must have begun it; else it is skipped. 0: it waits for as long as it takes.
    #[arg(long, default_value_t = 0)]
    start_within: u32,
    /// Seconds within which it must have ended, with all attempts; else it is stopped. 0: no limit.
    #[arg(long, default_value_t = 0)]
    finish_within: u32,
    command: String,
}

impl NewCommand {
    /// What a schedule keeps: a line of numbers, then the command.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { priority, tag, attempts, crashes, key, start_within, finish_within, command } = self;
        let key = key.map_or_else(|| "-".to_owned(), |key| key.to_string());
        format!("{priority} {tag} {attempts} {crashes} {start_within} {finish_within} {key}\n{command}").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, command) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        let mut numbers = numbers.split(' ');
        let (priority, tag) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let (attempts, crashes) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let (start_within, finish_within) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let key = numbers.next()?.parse().ok();
        Some(Self { priority, tag, attempts, crashes, key, start_within, finish_within, command: command.to_owned() })
    }
}

/// What is asked of the centre.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// A worker wants a job.
    Pull(Worker),
    /// A worker says something about its job.
    Word(Worker, LeaseToken, Act),
    /// Somebody wants a job stopped.
    Abort(JobId),
}

/// What the centre says to it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    /// A pulled job, and its command.
    pub(crate) job: Option<(Assignment, String)>,
}

/// Where workers ask.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Sender<(Ask, Sender<Answered>)>);

impl Desk {
    /// Asks; the answer comes over the channel, unless the centre ends.
    pub(crate) fn ask(&self, what: Ask) -> Receiver<Answered> {
        let (answer, answered) = channel();
        // A centre that has ended has dropped the other end of either channel.
        let _ended = self.0.send((what, answer));
        answered
    }
}

/// Somebody who waits, and the job that was assigned meanwhile.
struct Waiting {
    answer: Sender<Answered>,
    job: Option<(Assignment, String)>,
}

/// The engine and its database.
pub(crate) struct Centre {
    store: Box<dyn Store>,
    engine: Engine,
    desk: Desk,
    asked: Receiver<(Ask, Sender<Answered>)>,
    waiting: BTreeMap<CallId, Waiting>,
    /// Reads that the database has failed to answer so far.
    unread: Vec<(AskId, Want)>,
    /// What is written beside jobs that are being submitted.
    payloads: BTreeMap<JobId, String>,
    /// The firings of schedules that start what is being submitted, until that is answered: a submission whose write was
    /// lost is made again, and must then be with its firing, too.
    firings: BTreeMap<PipelineId, (Firing, Receiver<Answered>)>,
    /// Where the next page begins.
    page: PipelineId,
    failing: bool,
}

impl Centre {
    /// A new life of an engine.
    pub(crate) fn new(mut store: Box<dyn Store>) -> Result<Self> {
        let engine = Engine::new(Config::builder(store.next_life()?).settling_ms(0).build()?);
        let (sender, asked) = channel();
        Ok(Self {
            store,
            engine,
            desk: Desk(sender),
            asked,
            waiting: BTreeMap::new(),
            unread: Vec::new(),
            payloads: BTreeMap::new(),
            firings: BTreeMap::new(),
            page: PipelineId::new(0),
            failing: false,
        })
    }

    /// Takes in what the queue holds. What has come too late meanwhile is given to nobody.
    pub(crate) fn load(&mut self) -> Result<()> {
        let _counted = self.engine.load(now(), &self.store.open_rows()?);
        self.engine.handle_timeout(now());
        self.settle();
        Ok(())
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.engine.incarnation()
    }

    pub(crate) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    pub(crate) fn put_pool(&mut self, pool: PoolSpec) -> Result<()> {
        Ok(self.engine.put_pool(now(), pool)?)
    }

    /// Submits a command, as a pipeline of one job.
    pub(crate) fn submit(&mut self, new: &NewCommand) -> Result<Receiver<Answered>> {
        let id = self.store.next_ids(1)?;
        self.submit_as(id, new)
    }

    fn submit_as(&mut self, id: u64, new: &NewCommand) -> Result<Receiver<Answered>> {
        let (max_attempts, max_crashes) = (new.attempts, new.crashes);
        let lease_ms = u32::try_from(LEASE.as_millis())?;
        let policy = Policy {
            max_attempts,
            max_crashes,
            lease_ms,
            timeout_ms: 0,
            start_by_ms: new.start_within.saturating_mul(1_000),
            late: Late::IsSkipped,
            finish_by_ms: new.finish_within.saturating_mul(1_000),
            ..Policy::default()
        };
        let spec = JobSpec { policy, key: new.key.map(Key::new), ..JobSpec::default() };
        let job = NewJob { id: JobId::new(id), spec, tag: Some(Tag::new(new.tag, 0)) };
        self.payloads.insert(job.id, new.command.clone());
        let pipeline = PipelineId::new(id);
        let jobs = [job];
        let submission =
            Submission { id: pipeline, class: Class::new(0), priority: new.priority, jobs: &jobs, needs: &[] };
        let call = self.engine.submit(now(), &submission);
        Ok(self.await_call(call))
    }

    /// Starts what schedules have come due, each in the write that moves its schedule: if another runner has fired
    /// meanwhile, nothing is written.
    fn fire(&mut self) -> Result<()> {
        // What was missed comes one by one; the rest waits for the next time.
        for _ in 0..100 {
            let payloads = &mut self.payloads;
            self.firings.retain(|id, (_, answered)| {
                let is_open = matches!(answered.try_recv(), Err(TryRecvError::Empty));
                if !is_open {
                    payloads.remove(&JobId::new(id.get()));
                }
                is_open
            });
            let due = self.store.due(now(), 100)?;
            if due.is_empty() || self.failing {
                break;
            }
            for row in due {
                let Some(firing) = row.firing(now())? else { continue };
                let new = NewCommand::decode(&row.payload).filter(|_| firing.decision.fire.is_some());
                let Some(new) = new else {
                    let _moved = self.store.write(&[Write { firing: Some(firing), ..Write::of(&[]) }])?;
                    continue;
                };
                let id = self.store.next_ids(1)?;
                let answered = self.submit_as(id, &new)?;
                self.firings.insert(PipelineId::new(id), (firing, answered));
                self.settle();
            }
        }
        Ok(())
    }

    /// Asks the engine.
    pub(crate) fn ask(&mut self, what: Ask) -> Receiver<Answered> {
        let (answer, answered) = channel();
        self.put(what, answer);
        answered
    }

    fn put(&mut self, what: Ask, answer: Sender<Answered>) {
        let now = now();
        let call = match what {
            Ask::Pull(worker) => {
                let pull = PullRequest { pool: PoolId::new(1), worker, want: 1, wait_ms: 0, previous: None };
                self.engine.pull(now, &pull)
            }
            Ask::Word(worker, token, act) => self.engine.work(now, worker, token, act),
            Ask::Abort(job) => self.engine.abort(now, job),
        };
        self.note(call, answer);
    }

    fn await_call(&mut self, call: Result<CallId, Refused>) -> Receiver<Answered> {
        let (answer, answered) = channel();
        self.note(call, answer);
        answered
    }

    fn note(&mut self, call: Result<CallId, Refused>, answer: Sender<Answered>) {
        match call {
            Ok(call) => drop(self.waiting.insert(call, Waiting { answer, job: None })),
            // Whoever asked may be gone by now.
            Err(why) => drop(answer.send(Answered { answer: Answer::Refused(why), job: None })),
        }
    }

    /// Does what the engine says until the answer is there.
    pub(crate) fn wait(&mut self, answered: &Receiver<Answered>, patience: Duration) -> Result<Answered> {
        let start = Instant::now();
        loop {
            self.settle();
            match answered.recv_timeout(if self.failing { TICK } else { Duration::ZERO }) {
                Ok(answered) => return Ok(answered),
                Err(RecvTimeoutError::Timeout) if start.elapsed() < patience => self.engine.handle_timeout(now()),
                Err(_) => bail!("the database does not answer; whether this was done is not known"),
            }
        }
    }

    /// Serves the workers. Without `forever`, until no job is left.
    pub(crate) fn run(mut self, forever: bool) -> Result<()> {
        let (mut ticked, mut fired, mut empty_since) = (Instant::now(), Instant::now(), None);
        loop {
            match self.asked.recv_timeout(TICK) {
                Ok((what, answer)) => self.put(what, answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the workers have ended"),
            }
            while let Ok((what, answer)) = self.asked.try_recv() {
                self.put(what, answer);
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.engine.handle_timeout(now());
                let is_empty = self.look_around();
                let since = *empty_since.get_or_insert_with(Instant::now);
                if !is_empty {
                    empty_since = None;
                } else if self.engine.jobs() == 0 && !forever {
                    // The workers' next question finds nobody.
                    return Ok(());
                } else if since.elapsed() > SETTLES && !forever {
                    // What another runner ended, of tags that this one does not serve.
                    eprintln!("the queue is empty; the engine still holds {} jobs", self.engine.jobs());
                    return Ok(());
                }
            }
            if fired.elapsed() >= Duration::from_secs(1) {
                fired = Instant::now();
                if let Err(why) = self.fire() {
                    eprintln!("schedules cannot be looked at: {why:#}");
                }
            }
            self.settle();
        }
    }

    /// Takes the next page of what is open into account, whoever wrote it. Returns whether nothing is.
    fn look_around(&mut self) -> bool {
        let from = self.page;
        match self.store.read(Want::Open { from, limit: PAGE }, &[]) {
            Ok(rows) => {
                let _counted = self.engine.compensate(now(), &rows);
                let last = rows.iter().filter_map(Row::as_pipeline).map(|row| row.id).max();
                self.page = last.and_then(|last| last.get().checked_add(1)).map(PipelineId::new).unwrap_or_default();
                rows.is_empty() && from == PipelineId::default()
            }
            Err(why) => {
                self.fails(&why);
                false
            }
        }
    }

    /// Does what the engine says, until there is nothing to do, or the database fails.
    fn settle(&mut self) {
        loop {
            let mut tickets = Vec::new();
            while let Some(effect) = self.engine.poll_effect() {
                match effect {
                    Effect::Persist { ticket } => tickets.push(ticket),
                    Effect::Fetch { ask, want } => self.unread.push((ask, want)),
                    Effect::Assign { call, assignment } => self.assign(call, assignment),
                    Effect::Answer { call, answer } => {
                        if let Some(waiting) = self.waiting.remove(&call) {
                            let _gone = waiting.answer.send(Answered { answer, job: waiting.job });
                        }
                    }
                    // A worker hears of an abort by its heartbeat.
                    Effect::Abort { .. } | Effect::Closed { .. } | Effect::Poll { .. } | Effect::Judge { .. } => {}
                }
            }
            if tickets.is_empty() && self.unread.is_empty() {
                return;
            }
            if !(self.write(&tickets) && self.read()) {
                return;
            }
        }
    }

    /// Makes all writes that have gathered with one commit. Returns whether the database did not fail.
    fn write(&mut self, tickets: &[Ticket]) -> bool {
        if tickets.is_empty() {
            return true;
        }
        let changes = |ticket: &Ticket| -> Vec<Change> { self.engine.changes(*ticket).to_vec() };
        let all: Vec<Vec<Change>> = tickets.iter().map(changes).collect();
        let payloads: Vec<Vec<(JobId, &[u8])>> = all.iter().map(|changes| beside(changes, &self.payloads)).collect();
        let writes: Vec<Write<'_>> =
            all.iter().zip(&payloads).map(|(changes, payloads)| self.write_of(changes, payloads)).collect();
        let told = self.store.write(&writes);
        match told {
            Ok(told) => {
                self.failing = false;
                for ((ticket, changes), told) in tickets.iter().zip(&all).zip(told) {
                    if told.is_made() {
                        for change in changes {
                            tell(&change.row);
                        }
                        self.engine.handle_committed(now(), *ticket);
                    } else {
                        self.engine.handle_conflicted(now(), *ticket, told.fresh());
                    }
                }
                true
            }
            Err(why) => {
                self.fails(&why);
                for ticket in tickets {
                    self.engine.handle_unknown(now(), *ticket);
                }
                false
            }
        }
    }

    /// A write, with the firing of the schedule that has started its pipeline.
    fn write_of<'a>(&self, changes: &'a [Change], payloads: &'a [(JobId, &'a [u8])]) -> Write<'a> {
        let mut new = changes.iter().filter(|change| change.expect.is_none());
        let firing = new.find_map(|change| self.firings.get(&change.row.as_pipeline()?.id));
        Write { changes, payloads, firing: firing.map(|(firing, _)| *firing) }
    }

    /// Reads what the engine has asked for; what the database fails to answer the engine asks again later.
    fn read(&mut self) -> bool {
        for (ask, want) in std::mem::take(&mut self.unread) {
            let written =
                if let Want::Written(ticket) = want { self.engine.changes(ticket).to_vec() } else { Vec::new() };
            match self.store.read(want, &written) {
                Ok(rows) => self.engine.handle_rows(now(), ask, &rows),
                Err(why) => {
                    self.fails(&why);
                    self.engine.handle_unread(now(), ask);
                }
            }
        }
        !self.failing
    }

    /// A job for whoever pulled. If nobody waits for it, or its command cannot be read, it comes back when its
    /// acknowledgement is overdue.
    fn assign(&mut self, call: CallId, assignment: Assignment) {
        match self.store.payload(assignment.token.key.job) {
            Ok(command) => {
                if let Some(waiting) = self.waiting.get_mut(&call) {
                    let command = String::from_utf8_lossy(&command.unwrap_or_default()).into_owned();
                    waiting.job = Some((assignment, command));
                }
            }
            Err(why) => self.fails(&why),
        }
    }

    fn fails(&mut self, why: &job_store::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            eprintln!("the database fails, and is tried again: {why}");
        }
    }
}

/// The commands of the jobs that a write makes.
fn beside<'a>(changes: &[Change], payloads: &'a BTreeMap<JobId, String>) -> Vec<(JobId, &'a [u8])> {
    let new = changes.iter().filter(|change| change.expect.is_none());
    let jobs = new.filter_map(|change| Some(change.row.as_job()?.id()));
    jobs.filter_map(|job| Some((job, payloads.get(&job)?.as_bytes()))).collect()
}
