//! The queue of one run: `tenon-jobqueue`, its rows in a file of the run, and threads that run jobs.
//!
//! All use of the queue's engine is here. The engine decides what runs next, what is skipped, tried again, stopped for its
//! time-out, kept apart by a key; this module does what it says and tells what happened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use job_store::{SqliteStore, Store as _, Write};
use rusqlite::Connection;
use tenon_jobqueue::{
    Act, Answer, Assignment, CallId, Class, Config, Effect, Engine, Job as QueueRow, JobId, JobSpec, Key, LeaseToken,
    Limits, NewJob, OnFailure, Outcome, Pipeline, PipelineId, PipelineState, Policy, PoolId, PoolSpec, PullRequest,
    Reason, Row, Start, State, Submission, Tag, Timestamp, Want, When, Worker, WorkerName,
};

use crate::stop::{Stop, Why};

/// How long a pull waits before it is asked again.
const PULL: Duration = Duration::from_mins(1);
/// How often a job may lose its runner, which a `kill -9` of this program is.
const MAX_CRASHES: u16 = 1_000;
/// How long a job that is told to stop may take.
const ABORT: Duration = Duration::from_secs(30);

/// A job as the queue knows it.
#[derive(Clone, Debug)]
pub(crate) struct QueueJob {
    /// The number of its stage.
    pub(crate) stage: usize,
    /// The jobs that it names, by number.
    pub(crate) needs: Option<Vec<usize>>,
    pub(crate) when: gitlab_ci::When,
    pub(crate) start: gitlab_ci::Start,
    /// Its failure does not count; if it is manual, nobody waits for it.
    pub(crate) may_fail: bool,
    /// What only one job holds at a time.
    pub(crate) key: Option<u64>,
    /// Further attempts.
    pub(crate) retries: u8,
    /// Whether a time-out is followed by another attempt.
    pub(crate) retries_timeouts: bool,
    pub(crate) timeout: Duration,
}

/// What a job's thread says of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Succeeded,
    /// It failed, and may be tried again.
    Failed(i32),
    /// It failed, and trying again is of no use.
    FailedForGood(i32),
}

/// Who runs jobs.
pub(crate) trait Work: Sync {
    /// Runs one attempt of a job; returns soon once it is told to stop. `is_last` says that no attempt is left after it.
    fn run(&self, job: usize, attempt: u32, is_last: bool, stop: &Stop) -> Verdict;
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing is left to do.
    Closed,
    /// A person must start a job that others wait for.
    Blocked,
    /// It was interrupted.
    Interrupted,
}

/// Where a job stands in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Succeeded,
    Failed,
    TimedOut,
    Stopped,
    /// It was not wanted: this many that it waits for failed, and this many did not run.
    Skipped {
        failed: u32,
        not_run: u32,
    },
    /// A person may start it.
    Manual,
    /// It was not reached.
    Waiting,
}

/// What happens outside of the engine.
enum Message {
    Done { slot: u64, verdict: Verdict },
    Interrupt,
}

/// A thread that is running a job, or is about to.
struct Busy {
    assignment: Assignment,
    stop: Arc<Stop>,
}

/// What a command was, until it is answered.
enum Asked {
    Pull(u64),
    Ack(u64),
    Report(u64),
    Other,
}

/// The queue of one run.
pub(crate) struct Queue {
    store: SqliteStore,
    engine: Engine,
    first: u64,
    jobs: Vec<QueueJob>,
    asked: BTreeMap<CallId, Asked>,
    busy: BTreeMap<u64, Busy>,
    closed: bool,
    interrupted: bool,
}

/// Interrupts a run from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Interrupter(Sender<Message>);

impl Interrupter {
    pub(crate) fn interrupt(&self) {
        // A run that has ended is not interrupted.
        let _ended = self.0.send(Message::Interrupt);
    }
}

impl Queue {
    /// The queue in this file, for these jobs.
    pub(crate) fn open(file: &Path, jobs: Vec<QueueJob>) -> Result<Self> {
        let connection = Connection::open(file).context("the queue's file cannot be opened")?;
        connection.busy_timeout(Duration::from_secs(10))?;
        // What was written outlives this process, though perhaps not a loss of power.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        let mut store = SqliteStore::on(connection)?;
        let mut limits = Limits::default();
        (limits.jobs_per_pipeline, limits.needs_per_job) = (65_535, 65_535);
        let config = Config::builder(store.next_life()?).settling_ms(0).recheck_ms(0).limits(limits).build()?;
        let engine = Engine::new(config);
        let first = 1;
        let (asked, busy) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { store, engine, first, jobs, asked, busy, closed: false, interrupted: false })
    }

    /// Takes up the run if it has begun, else begins it. Jobs that `played` names are started as by a person.
    pub(crate) fn begin(&mut self, played: &[usize]) -> Result<()> {
        let now = now();
        self.engine.put_pool(now, PoolSpec { id: POOL, tags: vec![TAG], ..PoolSpec::default() })?;
        let rows = self.store.open_rows()?;
        let old: Vec<Worker> =
            rows.iter().filter_map(Row::as_job).filter_map(|job| Some(job.delivery?.worker)).collect();
        let _counted = self.engine.load(now, &rows);
        // Whoever ran jobs in an earlier life of this program is dead.
        for worker in old {
            self.engine.handle_worker_gone(now, worker);
        }
        let has_begun = !self.store.jobs(JobId::new(0), 1)?.is_empty();
        if !has_begun {
            self.submit()?;
        }
        self.settle()?;
        for job in played {
            let call = self.engine.approve(now, self.id(*job));
            if let Ok(call) = call {
                self.asked.insert(call, Asked::Other);
            }
            self.settle()?;
        }
        let is_open = |row: &Pipeline| row.state() == PipelineState::Open;
        self.closed = !self.engine.pipeline(PIPELINE).is_some_and(is_open);
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        let ids: Vec<Vec<JobId>> =
            self.jobs.iter().map(|job| job.needs.iter().flatten().map(|at| self.id(*at)).collect()).collect();
        let needs: Vec<(JobId, &[JobId])> = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| job.needs.is_some())
            .map(|(at, _)| (self.id(at), ids[at].as_slice()))
            .collect();
        let jobs: Vec<NewJob> = self
            .jobs
            .iter()
            .enumerate()
            .map(|(at, job)| NewJob { id: self.id(at), spec: spec(job), tag: Some(TAG) })
            .collect();
        let submission = Submission { id: PIPELINE, class: Class::new(0), priority: 0, jobs: &jobs, needs: &needs };
        let call = self.engine.submit(now(), &submission).context("the queue does not take the jobs")?;
        self.asked.insert(call, Asked::Other);
        Ok(())
    }

    fn id(&self, job: usize) -> JobId {
        JobId::new(self.first.saturating_add(u64::try_from(job).unwrap_or(u64::MAX)))
    }

    fn job_of(&self, id: JobId) -> usize {
        usize::try_from(id.get().saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Runs jobs, so many at once, until nothing is left to do. `told` gets what can interrupt it.
    pub(crate) fn run(&mut self, slots: u64, work: &dyn Work, told: impl FnOnce(Interrupter)) -> Result<Ended> {
        let (sender, messages) = channel();
        told(Interrupter(sender.clone()));
        std::thread::scope(|scope| {
            let ended = self.serve(slots, work, scope, &sender, &messages);
            // Whatever went wrong: nobody goes on running.
            self.busy.values().for_each(|busy| busy.stop.stop(Why::Interrupted));
            ended
        })
    }

    fn serve<'scope>(
        &mut self,
        slots: u64,
        work: &'scope dyn Work,
        scope: &'scope Scope<'scope, '_>,
        sender: &Sender<Message>,
        messages: &Receiver<Message>,
    ) -> Result<Ended> {
        for slot in 0..slots {
            self.pull(slot)?;
        }
        loop {
            for (slot, attempt) in self.settle()? {
                let Some(busy) = self.busy.get(&slot) else { continue };
                let (stop, sender) = (Arc::clone(&busy.stop), sender.clone());
                let job = self.job_of(busy.assignment.token.key.job);
                let is_last = self.is_last(busy.assignment.token, job);
                scope.spawn(move || {
                    let verdict = work.run(job, attempt, is_last, &stop);
                    // The other end is there for as long as this scope.
                    let _told = sender.send(Message::Done { slot, verdict });
                });
            }
            if self.busy.is_empty() && (self.closed || self.interrupted) {
                return Ok(if self.interrupted { Ended::Interrupted } else { Ended::Closed });
            }
            if self.busy.is_empty() && self.is_blocked() {
                return Ok(Ended::Blocked);
            }
            let wait = self
                .engine
                .next_deadline()
                .map_or(PULL, |at| Duration::from_millis(at.as_millis().saturating_sub(now().as_millis())).min(PULL));
            match messages.recv_timeout(wait) {
                Ok(Message::Done { slot, verdict }) => self.report(slot, verdict)?,
                Ok(Message::Interrupt) => self.interrupt(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the threads that run jobs are gone"),
            }
            self.engine.handle_timeout(now());
        }
    }

    /// Whether a failure of this attempt ends the job.
    fn is_last(&self, token: LeaseToken, job: usize) -> bool {
        let failures = self.engine.job(token.key.job).map_or(0, |row| row.tally.failures);
        self.jobs.get(job).is_none_or(|job| failures >= u16::from(job.retries))
    }

    /// Whether all that is left waits for a person, or for what waits for one.
    fn is_blocked(&self) -> bool {
        let mut rows = self.engine.jobs_of(PIPELINE).peekable();
        rows.peek().is_some() && rows.all(|row| matches!(row.state, State::Suspended | State::Unstart))
    }

    fn pull(&mut self, slot: u64) -> Result<()> {
        let wait_ms = u64::try_from(PULL.as_millis()).unwrap_or(u64::MAX);
        let pull = PullRequest { pool: POOL, worker: self.worker(slot), want: 1, wait_ms, previous: None };
        let call = self.engine.pull(now(), &pull)?;
        self.asked.insert(call, Asked::Pull(slot));
        Ok(())
    }

    fn worker(&self, slot: u64) -> Worker {
        Worker { name: WorkerName::new(slot), incarnation: self.engine.incarnation() }
    }

    fn report(&mut self, slot: u64, verdict: Verdict) -> Result<()> {
        let Some(busy) = self.busy.get(&slot) else { return Ok(()) };
        let outcome = match verdict {
            Verdict::Succeeded => Outcome::Succeeded,
            Verdict::Failed(code) => Outcome::Failed { code },
            Verdict::FailedForGood(code) => Outcome::FailedForGood { code },
        };
        let word = self.engine.work(now(), self.worker(slot), busy.assignment.token, Act::Report(outcome));
        if let Ok(call) = word {
            self.asked.insert(call, Asked::Report(slot));
        } else {
            // The job ended before this word: an abort that took too long.
            self.busy.remove(&slot);
            self.pull(slot)?;
        }
        Ok(())
    }

    fn interrupt(&mut self) {
        self.interrupted = true;
        self.busy.values().for_each(|busy| busy.stop.stop(Why::Interrupted));
        if let Ok(call) = self.engine.abort_pipeline(now(), PIPELINE) {
            self.asked.insert(call, Asked::Other);
        }
    }

    /// Does what the engine says until it says nothing more. Returns the slots whose jobs may start, with their attempts.
    fn settle(&mut self) -> Result<Vec<(u64, u32)>> {
        let mut starts = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    let told = self.store.write(&[Write::of(self.engine.changes(ticket))])?;
                    match told.first() {
                        Some(told) if !told.is_made() => self.engine.handle_conflicted(now(), ticket, told.fresh()),
                        Some(_) | None => self.engine.handle_committed(now(), ticket),
                    }
                }
                Effect::Fetch { ask, want } => {
                    let written = if let Want::Written(ticket) = want {
                        self.engine.changes(ticket).to_vec()
                    } else {
                        Vec::new()
                    };
                    let rows = self.store.read(want, &written)?;
                    self.engine.handle_rows(now(), ask, &rows);
                }
                Effect::Assign { call, assignment } => {
                    let Some(Asked::Pull(slot)) = self.asked.get(&call) else { continue };
                    let slot = *slot;
                    let word = self.engine.work(now(), self.worker(slot), assignment.token, Act::Ack)?;
                    self.asked.insert(word, Asked::Ack(slot));
                    self.busy.insert(slot, Busy { assignment, stop: Arc::new(Stop::default()) });
                }
                Effect::Abort { token, .. } => self.stop(token),
                Effect::Closed { .. } => self.closed = true,
                Effect::Answer { call, answer } => self.answered(call, answer, &mut starts)?,
                // No job here is judged or polled.
                Effect::Poll { .. } | Effect::Judge { .. } => {}
            }
        }
        Ok(starts)
    }

    fn answered(&mut self, call: CallId, answer: Answer, starts: &mut Vec<(u64, u32)>) -> Result<()> {
        let refused = match answer {
            Answer::Refused(why) => Some(why),
            Answer::Submitted
            | Answer::Done { .. }
            | Answer::Aborting
            | Answer::Retried { .. }
            | Answer::Pulled { .. } => None,
        };
        match self.asked.remove(&call) {
            Some(Asked::Pull(slot)) if !self.busy.contains_key(&slot) && !self.interrupted => self.pull(slot)?,
            Some(Asked::Ack(slot)) => {
                if let Some(busy) = self.busy.get(&slot).filter(|_| refused.is_none()) {
                    starts.push((slot, busy.assignment.token.key.attempt.get()));
                } else {
                    self.busy.remove(&slot);
                    self.pull(slot)?;
                }
            }
            Some(Asked::Report(slot)) => {
                self.busy.remove(&slot);
                self.pull(slot)?;
            }
            Some(Asked::Other) => {
                if let Some(why) = refused
                    && !self.interrupted
                {
                    bail!("the queue refused: {why}");
                }
            }
            Some(Asked::Pull(_)) | None => {}
        }
        Ok(())
    }

    /// The engine wants a job stopped: for its time-out, or with its pipeline.
    fn stop(&mut self, token: LeaseToken) {
        let slot = self.busy.iter().find(|(_, busy)| busy.assignment.token == token).map(|(slot, _)| *slot);
        let Some(busy) = slot.and_then(|slot| self.busy.get(&slot)) else { return };
        let is_timeout =
            self.engine.job(token.key.job).is_some_and(|row| matches!(row.reason, Reason::OverTime { .. }));
        busy.stop.stop(if is_timeout { Why::Timeout } else { Why::Interrupted });
        let retries = self.jobs.get(self.job_of(token.key.job)).is_some_and(|job| job.retries_timeouts);
        if is_timeout && !retries {
            // The time limit was first, and no further attempt is wanted.
            if let Ok(call) = self.engine.abort(now(), token.key.job) {
                self.asked.insert(call, Asked::Other);
            }
        }
    }

    /// Where each job stands.
    pub(crate) fn standings(&mut self) -> Result<Vec<Standing>> {
        let mut latest: BTreeMap<JobId, QueueRow> = BTreeMap::new();
        let mut from = JobId::new(0);
        loop {
            let rows = self.store.jobs(from, 500)?;
            let Some(last) = rows.iter().filter_map(Row::as_job).map(QueueRow::id).max() else { break };
            for row in rows.iter().filter_map(Row::as_job) {
                let newest = latest.entry(row.id()).or_insert(*row);
                if row.attempt() >= newest.attempt() {
                    *newest = *row;
                }
            }
            from = JobId::new(last.get() + 1);
        }
        let standing = |at: usize| latest.get(&self.id(at)).map_or(Standing::Waiting, standing);
        Ok((0..self.jobs.len()).map(standing).collect())
    }
}

/// The one pipeline of a run's file, and the one pool and tag.
const PIPELINE: PipelineId = PipelineId::new(1);
const POOL: PoolId = PoolId::new(1);
const TAG: Tag = Tag::new(1, 0);

fn standing(row: &QueueRow) -> Standing {
    match row.state {
        State::Succeeded | State::Reused => Standing::Succeeded,
        State::Failed | State::Dead => Standing::Failed,
        State::TimedOut => Standing::TimedOut,
        State::Aborted if row.outcome.is_none() && row.delivery.is_none() => Standing::Waiting,
        State::Aborted | State::Superseded => Standing::Stopped,
        State::Skipped => {
            let failed = if let Reason::NotWanted { failed } = row.reason { failed } else { 0 };
            let not_run = if let Reason::NeedNotRun { skipped } = row.reason { skipped } else { 0 };
            Standing::Skipped { failed, not_run }
        }
        State::Suspended => Standing::Manual,
        State::Unstart
        | State::Pending
        | State::Scheduled
        | State::Running
        | State::Delayed
        | State::Polling
        | State::Aborting => Standing::Waiting,
    }
}

fn spec(job: &QueueJob) -> JobSpec {
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let policy = Policy {
        // The runner lives and dies with this process: nobody has to say that it lives.
        lease_ms: u32::MAX,
        timeout_ms: ms(job.timeout).max(1),
        abort_ms: ms(ABORT),
        backoff_ms: 0,
        max_attempts: 1 + u16::from(job.retries),
        max_crashes: MAX_CRASHES,
        ..Policy::default()
    };
    JobSpec {
        order: u32::try_from(job.stage + 1).unwrap_or(u32::MAX),
        when: match job.when {
            gitlab_ci::When::OnSuccess => When::OnSuccess,
            gitlab_ci::When::OnFailure => When::OnFailure,
            gitlab_ci::When::Always => When::Always,
        },
        start: match job.start {
            gitlab_ci::Start::Auto => Start::Auto,
            gitlab_ci::Start::Manual => Start::Manual,
            gitlab_ci::Start::After(time) => Start::After(ms(time)),
        },
        on_failure: if job.may_fail { OnFailure::Allowed } else { OnFailure::Fails },
        key: job.key.map(Key::new),
        policy,
        ..JobSpec::default()
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
