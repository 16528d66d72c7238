//! Tortures a host's own store, and checks the crate's rules through it.
//!
//! A host implements [`JobStore`] for its tables and calls [`torture`] in a test, with a few dozen seeds. The kit runs two
//! engines on the store, with workers and users, and treats all of them as the world does: replies are lost, writes reach
//! the database long after they were given up, engines die between a write and its commit, the whole process dies in the
//! middle of a write, workers say things twice and too late. After each step the store must hold the very rows that were
//! written, and at the end every pipeline must have ended, each result accepted once.
//!
//! # What you must persist, and when
//!
//! The tables of the ready stores, for `SQLite` and for `PostgreSQL`:
//!
//! ```sql
//! CREATE TABLE jobqueue_rows(
//!   kind SMALLINT NOT NULL,    -- 0 a job, 1 a pipeline, 2 a key, 3 a plan, 4 a pool, 5 a life of an engine
//!   id BIGINT NOT NULL,        -- the number of the job, pipeline, key, pool or life; a plan has its pipeline's
//!   attempt INT NOT NULL,      -- the job's attempt; 0 for other kinds
//!   pipeline BIGINT,           -- of a job, a pipeline or a plan
//!   version INT NOT NULL,      -- a row is changed only from the version that the engine expects
//!   open BOOLEAN NOT NULL,     -- a job that has not ended, a pipeline that is open
//!   owes BOOLEAN NOT NULL,     -- a pipeline that any engine may go on with
//!   holds BIGINT,              -- the key that a job holds
//!   life BIGINT,               -- the life of an engine that a leased job is charged to
//!   row BYTEA NOT NULL,        -- the whole row
//!   PRIMARY KEY(kind, id, attempt));
//! CREATE INDEX jobqueue_open ON jobqueue_rows(kind, id) WHERE open;
//! CREATE INDEX jobqueue_of ON jobqueue_rows(pipeline) WHERE pipeline IS NOT NULL;
//! CREATE INDEX jobqueue_owes ON jobqueue_rows(id) WHERE owes;
//! CREATE INDEX jobqueue_holds ON jobqueue_rows(holds) WHERE holds IS NOT NULL;
//! CREATE TABLE jobqueue_numbers(name TEXT PRIMARY KEY, value BIGINT NOT NULL);
//! ```
//!
//! | what | when | how, in SQL |
//! |---|---|---|
//! | the number of a life | before [`Engine::new`](crate::Engine::new), in every life | `INSERT INTO jobqueue_numbers(name, value) VALUES('life', 1) ON CONFLICT(name) DO UPDATE SET value = jobqueue_numbers.value + 1 RETURNING value` |
//! | all rows of [`Engine::changes`](crate::Engine::changes) | on [`Effect::Persist`](crate::Effect::Persist), before `handle_committed` | one transaction; each statement must touch exactly one row, else roll back and tell `handle_conflicted` |
//! | … a row that is new (`expect` is `None`) | | `INSERT INTO jobqueue_rows(…) VALUES(…) ON CONFLICT DO NOTHING` |
//! | … a row that is there | | `UPDATE jobqueue_rows SET version = :new, open = :open, …, row = :row WHERE kind = :kind AND id = :id AND attempt = :attempt AND version = :expect` |
//! | … a guard (`expect` is the row's own version) | | `SELECT kind FROM jobqueue_rows WHERE kind = :kind AND id = :id AND attempt = :attempt AND version = :expect FOR SHARE` |
//! | nothing | for every other effect | |
//!
//! And what you must be able to read, always as it is and never from a cache: what each [`Want`] asks for stands on its
//! item. [`MemoryRows`](crate::memory::MemoryRows) is the model; a restart loads [`MemoryRows::open`](crate::memory::MemoryRows::open).

mod run;
mod truth;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::{Change, Incarnation, Row, Want};

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// Made: all its rows are durable now.
    Made,
    /// Conflict: a row had another version, or existed already. Nothing was changed.
    Conflict,
}

/// A host's tables.
pub trait JobStore {
    /// The error of the store itself.
    type Error: Debug;

    /// Makes a write: all its rows or none, each only from the version that it expects.
    ///
    /// # Errors
    /// The store failed. Whether the write was made may then be unknown.
    fn write(&mut self, changes: &[Change]) -> Result<Written, Self::Error>;

    /// Reads the wanted rows as they are now. `written` are the changes that [`Want::Written`] asks about.
    ///
    /// # Errors
    ///
    /// The store failed.
    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, Self::Error>;

    /// Reads all open pipelines and all unfinished jobs. Keys may be left out.
    ///
    /// # Errors
    /// The store failed.
    fn open_rows(&mut self) -> Result<Vec<Row>, Self::Error>;

    /// Draws an incarnation that no life of an engine had before, durably.
    ///
    /// # Errors
    /// The store failed.
    fn next_life(&mut self) -> Result<Incarnation, Self::Error>;

    /// Kills the process and starts it again: data that is not durable is gone.
    ///
    /// With `cut`, it died in the middle of this write, which was never acknowledged: it is there whole afterwards, or
    /// not at all.
    ///
    /// # Errors
    /// The store does not come up again.
    fn crash(&mut self, cut: Option<&[Change]>) -> Result<(), Self::Error>;
}

/// A rule that the store broke, with what is needed to reproduce it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// The step at which the fault showed.
    pub step: usize,
    /// A description of the fault.
    pub what: String,
}

/// The statistics of a run, so that a test can see that something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of writes made.
    pub writes: u32,
    /// The number of writes that conflicted with another.
    pub conflicts: u32,
    /// The number of writes whose outcome was told as unknown.
    pub unknown: u32,
    /// The number of writes that reached the store after they were given up.
    pub late: u32,
    /// The number of engines that died between a write and its commit.
    pub deaths: u32,
    /// The number of crashes of the whole process.
    pub crashes: u32,
    /// The number of results that were accepted.
    pub results: u32,
    /// The number of workers' messages that were refused: late ones, and repeated ones.
    pub refused: u32,
}

impl core::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.conflicts += other.conflicts;
        self.unknown += other.unknown;
        self.late += other.late;
        self.deaths += other.deaths;
        self.crashes += other.crashes;
        self.results += other.results;
        self.refused += other.refused;
    }
}

/// Runs `steps` random steps through a new, empty store, then lets everything come to its end.
///
/// # Errors
/// The first rule that the store breaks.
pub fn torture<S: JobStore>(store: &mut S, seed: u64, steps: usize) -> Result<Report, Violation> {
    let at = |step| move |what| Violation { seed, step, what };
    let mut run = run::Run::new(store, seed).map_err(at(0))?;
    for step in 0..steps {
        run.step().and_then(|()| run.look()).map_err(at(step))?;
    }
    run.come_to_an_end().map_err(at(steps))?;
    Ok(run.report())
}
