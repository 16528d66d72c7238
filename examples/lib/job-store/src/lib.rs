//! Ready stores for [`tenon_jobqueue`]: one schema, on `SQLite` and on `PostgreSQL`.
//!
//! | store | feature | for |
//! |---|---|---|
//! | [`SqliteStore`] | `sqlite`, on by default | one machine, threads that may block |
//! | [`PostgresStore`] | `postgres` | several servers, tokio |
//! | [`BlockingPostgresStore`] | `postgres` | several servers, threads that may block |
//!
//! A store keeps the engine's rows, draws numbers that no other process draws, and keeps a payload beside each job, such
//! as its command. It makes its tables itself and brings older ones up to date. Each passes the host kit of the crate.
//!
//! ```
//! use job_store::{SqliteStore, Store as _, Write};
//! use tenon_jobqueue::{Class, Config, Effect, Engine, JobId, JobSpec, NewJob, PipelineId, Submission, Timestamp};
//!
//! let mut store = SqliteStore::in_memory()?;
//! let mut engine = Engine::new(Config::builder(store.next_life()?).build()?);
//! let id = store.next_ids(1)?;
//! let job = NewJob { id: JobId::new(id), spec: JobSpec::default(), tag: None };
//! let new = Submission { id: PipelineId::new(id), class: Class::new(0), priority: 0, jobs: &[job], needs: &[] };
//! let now = Timestamp::from_millis(1);
//! engine.submit(now, &new)?;
//! while let Some(effect) = engine.poll_effect() {
//!     match effect {
//!         Effect::Persist { ticket } => {
//!             let payloads = [(job.id, &b"echo hello"[..])];
//!             let write = Write { payloads: &payloads, ..Write::of(engine.changes(ticket)) };
//!             match store.write(&[write]) {
//!                 Ok(told) if told[0].is_made() => engine.handle_committed(now, ticket),
//!                 Ok(told) => engine.handle_conflicted(now, ticket, told[0].fresh()),
//!                 Err(_) => engine.handle_unknown(now, ticket),
//!             }
//!         }
//!         Effect::Fetch { ask, want } => {
//!             let rows = store.read(want, &[])?;
//!             engine.handle_rows(now, ask, &rows);
//!         }
//!         _ => {}
//!     }
//! }
//! assert_eq!(store.payload(job.id)?.as_deref(), Some(&b"echo hello"[..]));
//! assert_eq!(store.open_rows()?.len(), 2, "a job and its pipeline");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
#[cfg(feature = "postgres")]
pub mod postgres;
mod row;
mod schedule;
#[cfg(feature = "server")]
pub mod server;
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use error::Error;
#[cfg(feature = "postgres")]
pub use postgres::{BlockingPostgresStore, PostgresStore};
pub use schedule::{Firing, NewSchedule, ScheduleRow};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use tenon_jobqueue::{Change, Incarnation, JobId, Row, Timestamp, Want};

/// One write: rows that are changed together or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The rows, as [`Engine::changes`](tenon_jobqueue::Engine::changes) shows them.
    pub changes: &'a [Change],
    /// What is kept beside jobs, written with their first rows; a payload that is there already stays.
    pub payloads: &'a [(JobId, &'a [u8])],
    /// The firing of a schedule that starts these rows: if the schedule has moved, nothing is written.
    pub firing: Option<Firing>,
}

impl<'a> Write<'a> {
    /// A write of rows alone.
    #[must_use]
    pub const fn of(changes: &'a [Change]) -> Self {
        Self { changes, payloads: &[], firing: None }
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// All its rows are durable.
    Made,
    /// A row had another version, or was there already: nothing was changed. These are the write's rows as they are.
    Conflict(Vec<Row>),
}

impl Written {
    /// Whether the write was made.
    #[must_use]
    pub const fn is_made(&self) -> bool {
        matches!(self, Self::Made)
    }

    /// The rows as they are, after a conflict.
    #[must_use]
    pub fn fresh(&self) -> &[Row] {
        match self {
            Self::Made => &[],
            Self::Conflict(rows) => rows,
        }
    }
}

/// A store that blocks its caller.
///
/// # Errors
///
/// After an error of [`Store::write`] nobody knows which of the writes were made; after any other error nothing was read,
/// or a number was drawn that nobody uses.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Store: Send {
    /// Draws the number of a new life of an engine, which no life had before, however many processes start at once.
    fn next_life(&mut self) -> Result<Incarnation, Error>;

    /// Draws `count` numbers for jobs and pipelines, which nobody was given before: the first of them.
    fn next_ids(&mut self, count: u32) -> Result<u64, Error>;

    /// Makes several writes with one commit. Each is made whole or not at all, whatever becomes of the others.
    fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, Error>;

    /// Reads rows afresh, all as they were at one moment; `written` are the changes that [`Want::Written`] asks about.
    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, Error>;

    /// Reads every attempt of the first `limit` jobs from this one on, by number, ended ones too.
    fn jobs(&mut self, from: JobId, limit: u32) -> Result<Vec<Row>, Error>;

    /// Reads what was written beside a job.
    fn payload(&mut self, job: JobId) -> Result<Option<Vec<u8>>, Error>;

    /// Reads every open pipeline with its plan, and every job that has not ended: what a new life of an engine loads.
    fn open_rows(&mut self) -> Result<Vec<Row>, Error>;

    /// Makes a schedule, which fires for the first time after `now`: its number.
    fn put_schedule(&mut self, new: &NewSchedule, now: Timestamp) -> Result<u64, Error>;

    /// Ends a schedule; what it has started goes on. Returns whether there was one.
    fn end_schedule(&mut self, id: u64) -> Result<bool, Error>;

    /// Reads all schedules, by number.
    fn schedules(&mut self) -> Result<Vec<ScheduleRow>, Error>;

    /// Reads the first `limit` schedules whose next firing has come, the longest overdue first.
    fn due(&mut self, now: Timestamp, limit: u32) -> Result<Vec<ScheduleRow>, Error>;
}

/// Drawn numbers end with this one: the first of them.
fn first_of(last: i64, count: u32) -> u64 {
    last.cast_unsigned().saturating_sub(u64::from(count)) + 1
}

/// The parts of a range of ids in which the database's signed numbers and the engine's agree about the order.
fn halves(from: u64) -> impl Iterator<Item = (i64, i64)> {
    let from = from.cast_signed();
    let parts = if from >= 0 { [Some((from, i64::MAX)), Some((i64::MIN, -1))] } else { [Some((from, -1)), None] };
    parts.into_iter().flatten()
}
