//! A persistent job runner: shell commands in a queue that survives `kill -9`, on `SQLite` or, with several servers, on
//! `PostgreSQL`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]

mod centre;
mod work;

use std::path::Path;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use centre::{Answered, Ask, Centre, NewCommand};
use clap::{Parser, Subcommand};
use job_store::{NewSchedule, SqliteStore, Store};
use tenon_jobqueue::schedule::Missed;
use tenon_jobqueue::{Answer, JobId, PoolId, PoolSpec, Row, Tag, Timestamp, Worker, WorkerName};

/// How long a command waits for the database.
const PATIENCE: Duration = Duration::from_secs(30);

/// A queue of shell commands that survives kill -9.
#[derive(Parser)]
struct Args {
    /// A file of this machine, or a database that several servers share (`postgres://user@host/name`).
    #[arg(long, default_value = "jobs.db", global = true)]
    store: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Puts a command into the queue of its tag.
    Submit(NewCommand),
    /// Stops a job, wherever it stands.
    Abort { job: u64 },
    /// Runs what is in the queues of these tags, until no queue holds anything; any number of these may run.
    Run {
        /// Commands that this process runs at once.
        #[arg(long, default_value_t = 2)]
        workers: u64,
        #[arg(long, default_values_t = [0])]
        tag: Vec<u32>,
        /// Commands that all runners of this queue run at once, together; tell each of them the same.
        #[arg(long, default_value_t = u32::MAX, hide_default_value = true)]
        limit: u32,
        /// Goes on when the queues are empty.
        #[arg(long)]
        forever: bool,
    },
    /// Prints every job.
    List,
    /// Puts a command into the queue whenever its time has come, while a runner runs; or ends that.
    Schedule {
        #[command(subcommand)]
        what: OnSchedule,
    },
}

#[derive(Subcommand)]
enum OnSchedule {
    /// Makes a schedule.
    Add {
        /// Minute, hour, day, month and weekday, such as '30 2 * * 1-5'.
        #[arg(long)]
        cron: String,
        /// The time zone that it goes by.
        #[arg(long, default_value = "UTC")]
        zone: String,
        /// What becomes of times at which no runner ran.
        #[arg(long, value_enum, default_value_t = IfMissed::Skip)]
        missed: IfMissed,
        #[command(flatten)]
        command: NewCommand,
    },
    /// Ends a schedule; what it has put into the queue stays.
    End { schedule: u64 },
    /// Prints every schedule, with the time that comes next.
    List,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum IfMissed {
    /// They are left out.
    Skip,
    /// The last stands for all.
    Once,
    /// Each is made up for.
    All,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let store = || open(&args.store);
    match args.what {
        What::Submit(command) => {
            let mut centre = Centre::new(store()?)?;
            let asked = centre.submit(&command)?;
            finished(&centre.wait(&asked, PATIENCE)?)
        }
        What::Abort { job } => {
            let mut centre = Centre::new(store()?)?;
            let asked = centre.ask(Ask::Abort(JobId::new(job)));
            finished(&centre.wait(&asked, PATIENCE)?)
        }
        What::Run { workers, tag, limit, forever } => run(&args.store, workers, (&tag, limit), forever),
        What::List => list(store()?),
        What::Schedule { what } => schedule(store()?, what),
    }
}

fn run(place: &str, workers: u64, serves: (&[u32], u32), forever: bool) -> Result<()> {
    let centre = start(place, serves)?;
    let incarnation = centre.incarnation();
    let desk = centre.desk();
    scope(|threads| {
        for name in 0..workers {
            // A name of its own in every process, so that none takes another's jobs for its own.
            let me = Worker { name: WorkerName::new((incarnation.get() << 8) | name), incarnation };
            let desk = desk.clone();
            threads.spawn(move || work::work(&desk, me));
        }
        drop(desk);
        centre.run(forever)
    })
}

/// A new life: the number, then the controls, then the rows. A server that is just starting is waited for.
fn start(place: &str, (tags, max_leases): (&[u32], u32)) -> Result<Centre> {
    let begun = Instant::now();
    loop {
        let attempt = || {
            let mut centre = Centre::new(open(place)?)?;
            let tags = tags.iter().map(|tag| Tag::new(*tag, 0)).collect();
            centre.put_pool(PoolSpec { id: PoolId::new(1), tags, max_leases, ..PoolSpec::default() })?;
            centre.load()?;
            Ok(centre)
        };
        match attempt() {
            Err(why) if is_shared(place) && begun.elapsed() < PATIENCE => {
                eprintln!("the database is waited for: {why:#}");
                sleep(Duration::from_secs(1));
            }
            told => return told,
        }
    }
}

fn is_shared(place: &str) -> bool {
    place.starts_with("postgres://") || place.starts_with("postgresql://")
}

fn open(place: &str) -> Result<Box<dyn Store>> {
    if !is_shared(place) {
        let store = SqliteStore::open(Path::new(place));
        return Ok(Box::new(store.with_context(|| format!("{place} cannot be used as a queue"))?));
    }
    #[cfg(feature = "postgres")]
    return Ok(Box::new(job_store::BlockingPostgresStore::open(place).context("the database cannot be used")?));
    #[cfg(not(feature = "postgres"))]
    bail!("this jobrunner was built without PostgreSQL: build it with --features postgres")
}

fn finished(answered: &Answered) -> Result<()> {
    if let Answer::Refused(why) = answered.answer {
        bail!("refused: {why}");
    }
    Ok(())
}

fn schedule(mut store: Box<dyn Store>, what: OnSchedule) -> Result<()> {
    match what {
        OnSchedule::Add { cron, zone, missed, command } => {
            let missed = match missed {
                IfMissed::Skip => Missed::Skip,
                IfMissed::Once => Missed::Once,
                IfMissed::All => Missed::All,
            };
            let id = store.put_schedule(&NewSchedule { cron, zone, missed, payload: command.encode() }, now())?;
            println!("schedule {id}");
        }
        OnSchedule::End { schedule } if !store.end_schedule(schedule)? => bail!("there is no schedule {schedule}"),
        OnSchedule::End { .. } => {}
        OnSchedule::List => {
            for row in store.schedules()? {
                let next = row.schedule.next.map_or_else(|| "never".into(), |at| format!("at {} ms", at.as_millis()));
                println!("schedule {}: {} {}, {:?}; next {next}", row.id, row.cron, row.zone, row.schedule.missed);
            }
        }
    }
    Ok(())
}

fn list(mut store: Box<dyn Store>) -> Result<()> {
    let mut from = Some(JobId::new(0));
    while let Some(first) = from {
        let rows = store.jobs(first, 1_000)?;
        rows.iter().for_each(tell);
        let last = rows.last().and_then(|row| Some(row.as_job()?.id()));
        from = last.and_then(|last| last.get().checked_add(1)).map(JobId::new);
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
