//! The queue's rows in one table, each written only from the version that the engine expects; and the commands.

use std::path::Path;

use anyhow::Result;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, TransactionBehavior, params};
use tenon_jobqueue::{Change, Incarnation, PipelineState, Row, Version, Want};

const TABLES: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS rows(kind INTEGER, id INTEGER, attempt INTEGER, version INTEGER NOT NULL,
  pipeline INTEGER NOT NULL, open INTEGER NOT NULL, row TEXT NOT NULL, PRIMARY KEY(kind, id, attempt)) STRICT;
CREATE INDEX IF NOT EXISTS rows_open ON rows(kind, id) WHERE open;
CREATE INDEX IF NOT EXISTS rows_of ON rows(pipeline, id);
CREATE TABLE IF NOT EXISTS commands(job INTEGER PRIMARY KEY, command TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS lives(life INTEGER PRIMARY KEY AUTOINCREMENT) STRICT;";
const LATEST: &str = "attempt = (SELECT MAX(attempt) FROM rows WHERE kind = r.kind AND id = r.id)";

pub(crate) struct Store(pub(crate) Connection);

impl Store {
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let db = Connection::open(file)?;
        db.execute_batch(TABLES)?;
        Ok(Self(db))
    }

    pub(crate) fn one<T: FromSql>(&self, sql: &str, with: impl Params) -> Result<T> {
        Ok(self.0.query_row(sql, with, |r| r.get(0))?)
    }

    /// A number for a new life of an engine, never given out before.
    pub(crate) fn next_life(&self) -> Result<Incarnation> {
        let life: i64 = self.one("INSERT INTO lives DEFAULT VALUES RETURNING life", [])?;
        Ok(Incarnation::new(life.cast_unsigned()))
    }

    /// Makes a write, all of it or nothing; `false`: a row had another version.
    pub(crate) fn write(&mut self, changes: &[Change]) -> Result<bool> {
        let tx = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            if put(&tx, change)? != 1 {
                return Ok(false);
            }
        }
        tx.commit()?;
        Ok(true)
    }

    pub(crate) fn rows(&self, which: &str, with: impl Params) -> Result<Vec<Row>> {
        let mut query = self.0.prepare_cached(&format!("SELECT row FROM rows AS r WHERE {which}"))?;
        query.query_map(with, |r| r.get::<_, String>(0))?.map(|text| Ok(serde_json::from_str(&text?)?)).collect()
    }

    /// Rows as they are now; `written` are those that [`Want::Written`] asks about.
    pub(crate) fn read(&self, want: Want, written: &[Change]) -> Result<Vec<Row>> {
        match want {
            Want::Job(job) => {
                let of = "kind = 1 AND id = (SELECT pipeline FROM rows WHERE kind = 0 AND id = ?1)";
                self.rows(&format!("{LATEST} AND (kind = 0 AND id = ?1 OR {of})"), [job.get().cast_signed()])
            }
            Want::Pipeline(id) => {
                self.rows(&format!("{LATEST} AND kind < 2 AND pipeline = ?1"), [id.get().cast_signed()])
            }
            Want::Key(key) => self.rows("kind = 2 AND id = ?1", [key.get().cast_signed()]),
            Want::Written(_) => {
                let one = |change: &Change| self.rows("kind = ?1 AND id = ?2 AND attempt = ?3", key(&change.row));
                Ok(written.iter().map(one).collect::<Result<Vec<_>>>()?.concat())
            }
        }
    }
}

/// A row's primary key.
fn key(row: &Row) -> (u8, i64, u32) {
    match row {
        Row::Job(job) => (0, job.id().get().cast_signed(), job.attempt().get()),
        Row::Pipeline(row) => (1, row.id.get().cast_signed(), 0),
        Row::Key(row) => (2, row.key.get().cast_signed(), 0),
    }
}

/// Puts one row in its place, if that is as expected: how many rows were touched.
pub(crate) fn put(on: &Connection, change: &Change) -> Result<usize> {
    let (kind, id, attempt) = key(&change.row);
    let (version, pipeline, open) = match &change.row {
        Row::Job(job) => (job.version, job.pipeline.get().cast_signed(), !job.state.is_terminal()),
        Row::Pipeline(row) => (row.version, id, row.state() == PipelineState::Open),
        Row::Key(row) => (row.version, 0, false),
    };
    let sql = match change.expect {
        None => "INSERT OR IGNORE INTO rows SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE ?8 = 0",
        Some(_) => {
            "UPDATE rows SET version = ?4, pipeline = ?5, open = ?6, row = ?7
                    WHERE kind = ?1 AND id = ?2 AND attempt = ?3 AND version = ?8"
        }
    };
    let (row, expect) = (serde_json::to_string(&change.row)?, change.expect.map_or(0, Version::get));
    Ok(on.prepare_cached(sql)?.execute(params![kind, id, attempt, version.get(), pipeline, open, row, expect])?)
}
