//! A small persistent job runner: shell commands in a queue that survives `kill -9`, on blocking threads and `SQLite`.
#![allow(clippy::print_stdout, reason = "printing is what this program does")]

mod store;
#[cfg(test)]
mod torture;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use store::Store;
use tenon_jobqueue::{
    Act, Answer, Assignment, CallId, Class, Config, Effect, Engine, JobId, JobSpec, NewJob, Outcome, PipelineId,
    Policy, PoolId, PoolSpec, PullRequest, Refused, Row, State, Submission, Tag, Timestamp, Want, Worker, WorkerName,
};

/// A queue of shell commands that survives kill -9.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "jobs.db", global = true)]
    db: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Puts a command into the queue of its tag; a larger priority goes first.
    Submit {
        #[arg(long, default_value_t = 0)]
        priority: u8,
        #[arg(long, default_value_t = 0)]
        tag: u32,
        #[arg(long, default_value_t = 1)]
        attempts: u16,
        command: String,
    },
    /// Stops a job, wherever it stands.
    Abort { job: u64 },
    /// Runs what is in the queues of these tags, until no queue holds anything; any number of these may run.
    Run {
        #[arg(long, default_value_t = 2)]
        workers: u64,
        #[arg(long, default_values_t = [0])]
        tag: Vec<u32>,
        /// Does not end.
        #[arg(long)]
        forever: bool,
    },
    /// Prints every job.
    List,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let store = Store::open(&args.db)?;
    let engine = Engine::new(Config::builder(store.next_life()?).settling_ms(0).build()?);
    let mut centre = Centre { store, engine, seen: -1 };
    match args.what {
        What::Submit { priority, tag, attempts, command } => {
            let id: i64 = centre.store.one("INSERT INTO commands(command) VALUES(?1) RETURNING job", [command])?;
            let id = id.cast_unsigned();
            let policy = Policy { max_attempts: attempts, lease_ms: 5_000, timeout_ms: 0, ..Policy::default() };
            let job = NewJob {
                id: JobId::new(id),
                spec: JobSpec { policy, ..JobSpec::default() },
                tag: Some(Tag::new(tag, 0)),
            };
            let new = Submission { id: PipelineId::new(id), class: Class::new(0), priority, jobs: &[job], needs: &[] };
            let _submitted = centre.ask(|engine, now| engine.submit(now, &new))?;
        }
        What::Abort { job } => drop(centre.ask(|engine, now| engine.abort(now, JobId::new(job)))?),
        What::Run { workers, tag, forever } => {
            let id = PoolId::new(1);
            let tags = tag.iter().map(|tag| Tag::new(*tag, 0)).collect();
            centre.engine.put_pool(now(), PoolSpec { id, tags, ..PoolSpec::default() })?;
            let incarnation = centre.engine.incarnation();
            let centre = Mutex::new(centre);
            return scope(|threads| {
                let work = |name| work(&centre, Worker { name: WorkerName::new(name), incarnation }, forever);
                let threads: Vec<_> = (0..workers).map(|name| threads.spawn(move || work(name))).collect();
                threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
            });
        }
        What::List => centre.store.rows("kind = 0", [])?.iter().for_each(tell),
    }
    Ok(())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn tell(row: &Row) {
    if let Row::Job(job) = row {
        println!("job {}, attempt {}: {:?} ({})", job.id(), job.attempt(), job.state, job.reason);
    }
}

/// The engine and its database.
struct Centre {
    store: Store,
    engine: Engine,
    /// The version of the database that was looked at last.
    seen: i64,
}

impl Centre {
    /// Gives a command and does what the engine says until it is answered. If the database fails the program ends: its
    /// next life goes on from the rows.
    fn ask(
        &mut self,
        command: impl FnOnce(&mut Engine, Timestamp) -> Result<CallId, Refused>,
    ) -> Result<(Answer, Option<Assignment>)> {
        let asked = command(&mut self.engine, now())?;
        let (mut answered, mut job) = (None, None);
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    let changes = self.engine.changes(ticket).to_vec();
                    if self.store.write(&changes)? {
                        for change in &changes {
                            tell(&change.row);
                        }
                        self.engine.handle_committed(now(), ticket);
                    } else {
                        let fresh = self.store.read(Want::Written(ticket), &changes)?;
                        self.engine.handle_conflicted(now(), ticket, &fresh);
                    }
                }
                // What became of a write is always known here, so nobody asks for what was written.
                Effect::Fetch { ask, want } => self.engine.handle_rows(now(), ask, &self.store.read(want, &[])?),
                Effect::Assign { call, assignment } => job = job.or((call == asked).then_some(assignment)),
                Effect::Answer { call, answer } => answered = answered.or((call == asked).then_some(answer)),
                // A worker hears of an abort by its heartbeat.
                Effect::Abort { .. } | Effect::Closed { .. } | Effect::Poll { .. } | Effect::Judge { .. } => {}
            }
        }
        Ok((answered.context("a database that blocks leaves nothing open")?, job))
    }

    /// A job for a worker, after a look at the clock, and at the rows if another process has written.
    fn pull(&mut self, worker: Worker) -> Result<Option<(Assignment, String)>> {
        let version = self.store.one("PRAGMA data_version", [])?;
        if std::mem::replace(&mut self.seen, version) != version {
            let _counted = self.engine.compensate(now(), &self.store.rows("open", [])?);
        }
        self.engine.handle_timeout(now());
        let pull = PullRequest { pool: PoolId::new(1), worker, want: 1, wait_ms: 0, previous: None };
        let job = self.ask(|engine, now| engine.pull(now, &pull))?.1;
        let command = |job: u64| self.store.one("SELECT command FROM commands WHERE job = ?1", [job.cast_signed()]);
        job.map(|job| Ok((job, command(job.token.key.job.get())?))).transpose()
    }
}

fn work(centre: &Mutex<Centre>, me: Worker, forever: bool) -> Result<()> {
    let centre = || centre.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let pulled = centre().pull(me)?;
        let Some((job, command)) = pulled else {
            // The database knows what other processes have ended.
            if !forever && centre().store.one::<i64>("SELECT COUNT(*) FROM rows WHERE open", [])? == 0 {
                return Ok(());
            }
            sleep(Duration::from_millis(50));
            continue;
        };
        let say = |act| centre().ask(|engine, now| engine.work(now, me, job.token, act));
        let runs = |act| Ok::<_, anyhow::Error>(matches!(say(act)?.0, Answer::Done { state: State::Running, .. }));
        // It starts only once the database says that it may.
        if !runs(Act::Ack)? {
            continue;
        }
        let mut child = Command::new("sh").args(["-c", &command]).spawn()?;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                // Aborted, or given to somebody else while this process slept.
                None if !runs(Act::Heartbeat)? => child.kill()?,
                None => sleep(Duration::from_millis(100)),
            }
        };
        let failed = Outcome::Failed { code: status.code().unwrap_or(-1) };
        let _told = say(Act::Report(if status.success() { Outcome::Succeeded } else { failed }))?;
    }
}
