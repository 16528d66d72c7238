//! Rows side by side, so that one statement takes as many as there are.

use tokio_postgres::types::ToSql;

use crate::row::{Columns, Place, What};
use crate::{Error, Write};

pub(super) const PUT_NEW: &str = "INSERT INTO
 jobqueue_rows(kind, id, attempt, version, open, owes, holds, life, row, pipeline)
 SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::int[], $4::int[], $5::bool[], $6::bool[], $7::bigint[],
   $8::bigint[], $9::bytea[], $10::bigint[])
 ON CONFLICT DO NOTHING";
pub(super) const PUT_OLD: &str = "UPDATE jobqueue_rows AS t SET version = n.version, open = n.open, owes = n.owes,
   holds = n.holds, life = n.life, row = n.row
 FROM unnest($1::smallint[], $2::bigint[], $3::int[], $4::int[], $5::bool[], $6::bool[], $7::bigint[], $8::bigint[],
   $9::bytea[], $10::int[]) AS n(kind, id, attempt, version, open, owes, holds, life, row, expect)
 WHERE t.kind = n.kind AND t.id = n.id AND t.attempt = n.attempt AND t.version = n.expect";
/// Rows that must stay as they are until the write is made.
pub(super) const GUARD: &str = "SELECT t.kind FROM jobqueue_rows AS t
 JOIN unnest($1::smallint[], $2::bigint[], $3::int[], $4::int[]) AS n(kind, id, attempt, version)
   ON t.kind = n.kind AND t.id = n.id AND t.attempt = n.attempt AND t.version = n.version FOR SHARE OF t";
pub(super) const PUT_PAYLOADS: &str = "INSERT INTO jobqueue_payloads(job, payload)
 SELECT * FROM unnest($1::bigint[], $2::bytea[]) ON CONFLICT DO NOTHING";
/// Rows by their primary keys, with what the database's clock says now.
pub(super) const AT: &str = "SELECT t.kind, t.id, t.row,
 (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint FROM jobqueue_rows AS t
 JOIN unnest($1::smallint[], $2::bigint[], $3::int[]) AS n(kind, id, attempt)
   ON t.kind = n.kind AND t.id = n.id AND t.attempt = n.attempt";

/// The columns of rows that are new, of rows that are there, or of guards.
#[derive(Debug, Default)]
pub(super) struct Rows {
    kind: Vec<i16>,
    id: Vec<i64>,
    attempt: Vec<i32>,
    version: Vec<i32>,
    open: Vec<bool>,
    owes: Vec<bool>,
    holds: Vec<Option<i64>>,
    life: Vec<Option<i64>>,
    row: Vec<Vec<u8>>,
    /// Of new rows.
    pipeline: Vec<Option<i64>>,
    /// Of rows that are there.
    expect: Vec<i32>,
}

/// What is put with one transaction.
#[derive(Debug, Default)]
pub(super) struct Puts<'a> {
    pub(super) new: Rows,
    pub(super) old: Rows,
    pub(super) guards: Rows,
    pub(super) payloads: (Vec<i64>, Vec<&'a [u8]>),
}

impl<'a> Puts<'a> {
    /// The rows of these writes in the order of primary keys, so that two servers that write the same rows seldom wait for
    /// each other in a circle.
    pub(super) fn of(writes: &[Write<'a>]) -> Result<Self, Error> {
        let mut all = Vec::new();
        for change in writes.iter().flat_map(|write| write.changes) {
            all.push(Columns::of(change)?);
        }
        all.sort_by_key(|columns| (columns.place, columns.version));
        // Several writes of one engine are guarded by one row.
        let is_same =
            |a: &Columns, b: &Columns| a.what == What::Guard && b.what == What::Guard && a.version == b.version;
        all.dedup_by(|a, b| a.place == b.place && is_same(a, b));
        let mut puts = Self::default();
        for columns in all {
            match columns.what {
                What::Insert => puts.new.push(columns),
                What::Update(_) => puts.old.push(columns),
                What::Guard => puts.guards.push(columns),
            }
        }
        let payloads = writes.iter().flat_map(|write| write.payloads);
        puts.payloads = payloads.map(|(job, payload)| (job.get().cast_signed(), *payload)).unzip();
        Ok(puts)
    }
}

impl Rows {
    fn push(&mut self, columns: Columns) {
        self.kind.push(columns.place.kind);
        self.id.push(columns.place.id);
        self.attempt.push(columns.place.attempt);
        self.version.push(columns.version);
        self.open.push(columns.open);
        self.owes.push(columns.owes);
        self.holds.push(columns.holds);
        self.life.push(columns.life);
        self.row.push(columns.row);
        match columns.what {
            What::Update(expect) => self.expect.push(expect),
            // Whose a row is never changes.
            What::Insert | What::Guard => self.pipeline.push(columns.pipeline),
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.id.len() as u64
    }

    /// For the statements that write.
    pub(super) fn columns(&self) -> [&(dyn ToSql + Sync); 10] {
        let last: &(dyn ToSql + Sync) = if self.expect.is_empty() { &self.pipeline } else { &self.expect };
        let Self { kind, id, attempt, version, open, owes, holds, life, row, .. } = self;
        [kind, id, attempt, version, open, owes, holds, life, row, last]
    }

    /// For the statement that looks.
    pub(super) fn versions(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.kind, &self.id, &self.attempt, &self.version]
    }
}

/// The columns of primary keys.
pub(super) fn places(at: &[Place]) -> (Vec<i16>, Vec<i64>, Vec<i32>) {
    let kinds = at.iter().map(|place| place.kind).collect();
    (kinds, at.iter().map(|place| place.id).collect(), at.iter().map(|place| place.attempt).collect())
}
