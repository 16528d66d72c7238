//! The queue's rows in one table, each written only from the version that the engine expects; and the commands.

use std::path::Path;

use anyhow::Result;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, TransactionBehavior, params};
use tenon_jobqueue::{Change, Incarnation, Job, KeyRow, Pipeline, Row, RowKey, Version, Want};

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
                let of = "kind IN (1, 3) AND id = (SELECT pipeline FROM rows WHERE kind = 0 AND id = ?1)";
                let mut rows =
                    self.rows(&format!("{LATEST} AND (kind = 0 AND id = ?1 OR {of})"), [number(job.get())])?;
                if let Some(key) = rows.iter().find_map(|row| row.as_job()?.spec.key) {
                    rows.extend(self.one_row(RowKey::Key(key))?);
                }
                Ok(rows)
            }
            Want::Pipeline(id) => self.rows(&format!("{LATEST} AND pipeline = ?1"), [number(id.get())]),
            Want::Key(key) => {
                let Some(row) = self.one_row(RowKey::Key(key))? else { return Ok(Vec::new()) };
                let mentioned = row.as_key().into_iter().flat_map(KeyRow::names).collect::<Vec<_>>();
                let mut jobs = self.open_jobs(|job| job.held_key() == Some(key))?;
                for name in mentioned {
                    let named = self.rows(&format!("{LATEST} AND kind = 0 AND id = ?1"), [number(name.get())])?;
                    jobs.extend(named.into_iter().filter(|row| !jobs.contains(row)).collect::<Vec<_>>());
                }
                Ok([row].into_iter().chain(jobs).collect())
            }
            Want::Written(_) => {
                let one = |change: &Change| self.one_row(change.row.key());
                Ok(written.iter().filter_map(|change| one(change).transpose()).collect::<Result<_>>()?)
            }
            Want::Open { from, limit } => self.whole(|row| row.id >= from, limit),
            Want::Owing { limit } => self.whole(|row| row.owes, limit),
            Want::Pool(id) => {
                let Some(row) = self.one_row(RowKey::Pool(id))? else { return Ok(Vec::new()) };
                let shares = if let Row::Pool(row) = &row { row.shares.clone() } else { Vec::new() };
                let lives = shares.iter().filter_map(|share| self.one_row(RowKey::Life(share.life)).transpose());
                [Ok(row)].into_iter().chain(lives).collect()
            }
            Want::Charged { pool, life } => {
                let row = self.one_row(RowKey::Life(life))?;
                let jobs = self.open_jobs(|job| job.charged() == Some((pool, life)))?;
                Ok(row.into_iter().chain(jobs).collect())
            }
        }
    }

    /// The open pipelines that are as asked, by id, with their plans and the jobs that have not ended.
    fn whole(&self, is_wanted: impl Fn(&Pipeline) -> bool, limit: u32) -> Result<Vec<Row>> {
        let mut found = self.rows("kind = 1 AND open", [])?;
        found.retain(|row| row.as_pipeline().is_some_and(&is_wanted));
        found.sort_unstable_by_key(Row::key);
        found.truncate(limit as usize);
        let mut all = Vec::new();
        for row in found {
            let Row::Pipeline(Pipeline { id, .. }) = row else { continue };
            all.extend(self.rows("pipeline = ?1 AND (kind IN (1, 3) OR open)", [number(id.get())])?);
        }
        Ok(all)
    }

    fn open_jobs(&self, is_wanted: impl Fn(&Job) -> bool) -> Result<Vec<Row>> {
        let mut rows = self.rows("kind = 0 AND open", [])?;
        rows.retain(|row| row.as_job().is_some_and(&is_wanted));
        Ok(rows)
    }

    fn one_row(&self, row: RowKey) -> Result<Option<Row>> {
        let found = self.rows("kind = ?1 AND id = ?2 AND attempt = ?3", key(row))?.pop();
        Ok(found.map(|row| row.read_at(crate::now())))
    }
}

const fn number(id: u64) -> i64 {
    id.cast_signed()
}

/// A row's primary key.
const fn key(row: RowKey) -> (u8, i64, u32) {
    match row {
        RowKey::Job(key) => (0, number(key.job.get()), key.attempt.get()),
        RowKey::Pipeline(id) => (1, number(id.get()), 0),
        RowKey::Key(key) => (2, number(key.get()), 0),
        RowKey::Plan(id) => (3, number(id.get()), 0),
        RowKey::Pool(pool) => (4, pool.get() as i64, 0),
        RowKey::Life(life) => (5, number(life.get()), 0),
    }
}

/// Puts one row in its place, if that is as expected: how many rows were touched.
pub(crate) fn put(on: &Connection, change: &Change) -> Result<usize> {
    let (kind, id, attempt) = key(change.row.key());
    let (version, open) = (change.row.version(), change.row.is_open());
    let pipeline = match &change.row {
        Row::Job(job) => number(job.pipeline.get()),
        Row::Pipeline(_) | Row::Plan(_) => id,
        Row::Key(_) | Row::Pool(_) | Row::Life(_) => -1,
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
