//! What the pipelines' host keeps: rows by compare-and-set on their version, and beside each new pipeline the place in
//! the feed of pushes that it came from, in the same transaction.
//!
//! A change that is answered is on disk. A crash between a push and its pipeline loses nothing: the place in the feed has
//! not moved. A crash after it makes none twice: it has.

mod read;
mod rows;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use tenon_jobqueue::{Attempt, Change, JobId, JobKey, PipelineId, Row};

pub(crate) use read::{JobRecord, PipelineRecord};

use super::file::CiFile;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS ci_numbers(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ci_cursors(repo INTEGER PRIMARY KEY, version INTEGER NOT NULL, part INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ci_names(
  kind TEXT NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY(kind, id), UNIQUE(kind, name)) STRICT;
CREATE TABLE IF NOT EXISTS ci_pipelines(
  id INTEGER PRIMARY KEY, repo INTEGER NOT NULL, reference TEXT NOT NULL, hash TEXT NOT NULL, subject TEXT NOT NULL,
  pushed INTEGER NOT NULL, file TEXT, error TEXT, created_ms INTEGER NOT NULL, ended_ms INTEGER,
  open INTEGER NOT NULL, version INTEGER NOT NULL, row TEXT) STRICT;
CREATE INDEX IF NOT EXISTS ci_pipelines_open ON ci_pipelines(id) WHERE open = 1;
CREATE TABLE IF NOT EXISTS ci_jobs(
  job INTEGER NOT NULL, attempt INTEGER NOT NULL, pipeline INTEGER NOT NULL, open INTEGER NOT NULL,
  version INTEGER NOT NULL, worker INTEGER, began_ms INTEGER, ended_ms INTEGER, row TEXT NOT NULL,
  PRIMARY KEY(job, attempt)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ci_jobs_pipeline ON ci_jobs(pipeline);
CREATE INDEX IF NOT EXISTS ci_jobs_open ON ci_jobs(job) WHERE open = 1;
CREATE TABLE IF NOT EXISTS ci_keys(key TEXT PRIMARY KEY, version INTEGER NOT NULL, row TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ci_places(job INTEGER PRIMARY KEY, pipeline INTEGER NOT NULL, place INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ci_fleet(
  at_ms INTEGER NOT NULL, before INTEGER NOT NULL, after INTEGER NOT NULL, code INTEGER NOT NULL, reason TEXT NOT NULL) STRICT;
";

/// What went wrong in the store. After an error of [`CiStore::write`] the outcome is *unknown*.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CiStoreError {
    #[error("the store cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the store holds a value that is none: {0}")]
    Value(String),
}

/// What a number in the store stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A set of tags that jobs need: a component of the queue.
    Tags,
    /// A set of tags that workers have.
    Pool,
    Worker,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Pool => "pool",
            Self::Worker => "worker",
        }
    }
}

/// A place in a repository's feed: all of `version`, and `part` of the changes of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) version: u64,
    pub(crate) part: u32,
}

/// What is written with a new pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) pipeline: PipelineId,
    pub(crate) repo: u64,
    pub(crate) reference: String,
    pub(crate) hash: String,
    pub(crate) subject: String,
    /// The version of the repository that brought it.
    pub(crate) pushed: u64,
    pub(crate) created_ms: u64,
    pub(crate) what: BirthOf,
    /// The feed's cursor moves with it, from here to there.
    pub(crate) cursor: (Cursor, Cursor),
}

/// With jobs, or with what is wrong instead.
#[derive(Clone, Debug)]
pub(crate) enum BirthOf {
    /// The file, and its jobs in its order.
    Jobs(CiFile, Vec<JobId>),
    Error(String),
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Committed,
    /// A row had another version; nothing was changed. These are the rows as they are.
    Conflicted(Vec<Row>),
}

/// One write of the queue's rows.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) changes: Vec<Change>,
    pub(crate) birth: Option<Birth>,
}

/// The tables, in the file that the router's own are in.
#[derive(Debug)]
pub(crate) struct CiStore {
    connection: Mutex<Connection>,
}

impl CiStore {
    /// Opens the file, or makes it.
    pub(crate) fn open(file: &Path) -> Result<Self, CiStoreError> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch(TABLES)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// A panic while the lock was held cannot leave half a change: transactions roll back.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes several writes with one sync to disk. Each is made whole or not at all, whatever becomes of the others.
    ///
    /// # Errors
    /// Nobody knows which of them were made.
    pub(crate) fn write(&self, writes: &[Write]) -> Result<Vec<Written>, CiStoreError> {
        let mut connection = self.lock();
        let mut all = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut told = Vec::with_capacity(writes.len());
        for write in writes {
            let mut one = all.savepoint()?;
            if rows::apply(&one, write)? {
                one.commit()?;
                told.push(Written::Committed);
            } else {
                one.rollback()?;
                one.commit()?;
                told.push(Written::Conflicted(rows::as_they_are(&all, &write.changes)?));
            }
        }
        all.commit()?;
        Ok(told)
    }

    /// A pipeline without jobs, and the cursor that moves with it; or the cursor alone. `false`: the cursor was not
    /// where it was thought to be, and nothing was changed.
    pub(crate) fn pass(
        &self,
        repo: u64,
        cursor: (Cursor, Cursor),
        birth: Option<&Birth>,
    ) -> Result<bool, CiStoreError> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let moved = match birth {
            Some(birth) => rows::bear(&tx, birth)?,
            None => rows::move_cursor(&tx, repo, cursor)?,
        };
        if moved {
            tx.commit()?;
        }
        Ok(moved)
    }

    pub(crate) fn cursor(&self, repo: u64) -> Result<Cursor, CiStoreError> {
        rows::cursor(&self.lock(), signed(repo)?)
    }

    /// Forgets pipelines that ended before a moment, but for each repository's newest `keep`; the jobs' attempts that are gone.
    pub(crate) fn forget(&self, before_ms: u64, keep: u32) -> Result<Vec<JobKey>, CiStoreError> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // The largest id stays: what comes after it is counted from there.
        tx.execute_batch("CREATE TEMP TABLE IF NOT EXISTS old(id INTEGER PRIMARY KEY); DELETE FROM old")?;
        tx.execute(
            "INSERT INTO old(id) SELECT id FROM (
               SELECT id, open, COALESCE(ended_ms, created_ms) AS ended,
                 ROW_NUMBER() OVER (PARTITION BY repo ORDER BY id DESC) AS place FROM ci_pipelines)
             WHERE place > ?2 AND open = 0 AND ended < ?1 AND id < (SELECT MAX(id) FROM ci_pipelines)
               AND id != COALESCE((SELECT pipeline FROM ci_places ORDER BY job DESC LIMIT 1), 0)",
            params![signed(before_ms)?, keep],
        )?;
        let gone = {
            let mut query =
                tx.prepare("SELECT job, attempt FROM ci_jobs WHERE pipeline IN old ORDER BY job, attempt")?;
            let rows = query.query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, u32>(1)?)))?;
            rows.map(|row| {
                let (job, attempt) = row?;
                Ok(JobKey { job: JobId::new(unsigned(job)?), attempt: Attempt::new(attempt) })
            })
            .collect::<Result<Vec<_>, CiStoreError>>()?
        };
        for table in ["ci_jobs", "ci_places"] {
            tx.execute(&format!("DELETE FROM {table} WHERE pipeline IN old"), [])?;
        }
        tx.execute("DELETE FROM ci_pipelines WHERE id IN old", [])?;
        tx.commit()?;
        Ok(gone)
    }

    /// Counts one up, durably: a number that was never given out before.
    pub(crate) fn count_up(&self, name: &str) -> Result<u64, CiStoreError> {
        let value: i64 = self.lock().query_row(
            "INSERT INTO ci_numbers(name, value) VALUES(?1, 1)
             ON CONFLICT(name) DO UPDATE SET value = value + 1 RETURNING value",
            [name],
            |r| r.get(0),
        )?;
        unsigned(value)
    }

    /// The largest ids in use: of a pipeline, and of a job.
    pub(crate) fn largest(&self) -> Result<(u64, u64), CiStoreError> {
        let connection = self.lock();
        let one = |sql: &str| -> Result<u64, CiStoreError> { unsigned(connection.query_row(sql, [], |r| r.get(0))?) };
        Ok((one("SELECT COALESCE(MAX(id), 0) FROM ci_pipelines")?, one("SELECT COALESCE(MAX(job), 0) FROM ci_places")?))
    }

    /// The number that stands for a name; a new one if it has none. Numbers begin at 1.
    pub(crate) fn number(&self, kind: Kind, name: &str) -> Result<u32, CiStoreError> {
        let connection = self.lock();
        let find = |connection: &Connection| {
            connection
                .prepare_cached("SELECT id FROM ci_names WHERE kind = ?1 AND name = ?2")?
                .query_row(params![kind.word(), name], |r| r.get::<_, i64>(0))
                .optional()
        };
        if let Some(id) = find(&connection)? {
            return small(id);
        }
        let id: i64 = connection.query_row(
            "INSERT INTO ci_names(kind, id, name)
             SELECT ?1, COALESCE(MAX(id), 0) + 1, ?2 FROM ci_names WHERE kind = ?1 RETURNING id",
            params![kind.word(), name],
            |r| r.get(0),
        )?;
        small(id)
    }

    /// All names of a kind, by number.
    pub(crate) fn names(&self, kind: Kind) -> Result<Vec<(u32, String)>, CiStoreError> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT id, name FROM ci_names WHERE kind = ?1 ORDER BY id")?;
        let rows = query.query_map([kind.word()], |r| Ok((r.get::<_, i64>(0)?, r.get(1)?)))?;
        rows.map(|row| row.map_err(CiStoreError::from).and_then(|(id, name)| Ok((small(id)?, name)))).collect()
    }

    /// Remembers a change of the fleet's size; the oldest are forgotten.
    pub(crate) fn add_fleet(&self, d: &super::view::FleetDecision, kept: u32) -> Result<(), CiStoreError> {
        let mut connection = self.lock();
        let tx = connection.transaction()?;
        tx.execute(
            "INSERT INTO ci_fleet(at_ms, before, after, code, reason) VALUES(?1, ?2, ?3, ?4, ?5)",
            params![signed(d.at_ms)?, d.from, d.to, d.code, d.reason],
        )?;
        tx.execute("DELETE FROM ci_fleet WHERE rowid <= (SELECT MAX(rowid) FROM ci_fleet) - ?1", params![kept])?;
        Ok(tx.commit()?)
    }

    /// Changes of the fleet's size, newest first.
    pub(crate) fn fleet(&self) -> Result<Vec<super::view::FleetDecision>, CiStoreError> {
        let connection = self.lock();
        let mut query =
            connection.prepare_cached("SELECT at_ms, before, after, code, reason FROM ci_fleet ORDER BY rowid DESC")?;
        let rows = query.query_map([], |r| {
            Ok((
                r.get::<_, i64>(0)?,
                super::view::FleetDecision {
                    at_ms: 0,
                    from: r.get(1)?,
                    to: r.get(2)?,
                    code: r.get(3)?,
                    reason: r.get(4)?,
                },
            ))
        })?;
        rows.map(|row| {
            let (at, decision) = row?;
            Ok(super::view::FleetDecision { at_ms: unsigned(at)?, ..decision })
        })
        .collect()
    }
}

/// `SQLite`'s integers are signed; ids, versions and times are not, and never grow that far.
fn signed(value: u64) -> Result<i64, CiStoreError> {
    i64::try_from(value).map_err(|_| CiStoreError::Value(format!("{value} is too large")))
}

fn unsigned(value: i64) -> Result<u64, CiStoreError> {
    u64::try_from(value).map_err(|_| CiStoreError::Value(format!("{value} is negative")))
}

fn small(value: i64) -> Result<u32, CiStoreError> {
    u32::try_from(value).map_err(|_| CiStoreError::Value(format!("{value} is no id")))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, CiStoreError> {
    serde_json::to_string(value).map_err(|e| CiStoreError::Value(e.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, CiStoreError> {
    serde_json::from_str(text).map_err(|e| CiStoreError::Value(e.to_string()))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture;
