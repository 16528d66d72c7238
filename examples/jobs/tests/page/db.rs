use rusqlite::{Connection, params};
use tenon_jobqueue::*;

type Fails<T> = Result<T, Box<dyn std::error::Error>>;

struct Db(Connection);

/// The primary key. Numbers keep their 64 bits, whatever sign the database sees in them.
fn key_of(row: RowKey) -> (i32, i64, i64) {
    match row {
        RowKey::Job(key) => (0, key.job.get().cast_signed(), i64::from(key.attempt.get())),
        RowKey::Pipeline(id) => (1, id.get().cast_signed(), 0),
        RowKey::Key(key) => (2, key.get().cast_signed(), 0),
        RowKey::Plan(id) => (3, id.get().cast_signed(), 0),
        RowKey::Pool(pool) => (4, i64::from(pool.get()), 0),
        RowKey::Life(life) => (5, life.get().cast_signed(), 0),
    }
}

impl Db {
    /// All of it or nothing; `false`: a row had another version, or was there already.
    fn write(&mut self, changes: &[Change]) -> Fails<bool> {
        let tx = self.0.transaction()?;
        for Change { expect, row } in changes {
            let (kind, id, attempt) = key_of(row.key());
            let pipeline = match row {
                Row::Job(job) => job.pipeline.get().cast_signed(),
                Row::Pipeline(_) | Row::Plan(_) => id,
                Row::Key(_) | Row::Pool(_) | Row::Life(_) => -1,
            };
            let (version, open) = (row.version(), row.is_open());
            let (version, text) = (i64::from(version.get()), serde_json::to_string(row)?);
            let touched = match expect.map(|version| i64::from(version.get())) {
                None => tx.execute(
                    "INSERT INTO queue VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                    params![kind, id, attempt, pipeline, version, open, text],
                )?,
                Some(expect) => tx.execute(
                    "UPDATE queue SET version = ?4, open = ?5, row = ?6
                     WHERE kind = ?1 AND id = ?2 AND attempt = ?3 AND version = ?7",
                    params![kind, id, attempt, version, open, text, expect],
                )?,
            };
            if touched != 1 {
                return Ok(false); // what was written so far is rolled back
            }
        }
        tx.commit()?;
        Ok(true)
    }

    fn rows(&mut self, which: &str) -> Fails<Vec<Row>> {
        let mut query = self.0.prepare(&format!("SELECT row FROM queue AS q WHERE {which}"))?;
        let texts = query.query_map([], |row| row.get::<_, String>(0))?;
        texts.map(|text| Ok(serde_json::from_str(&text?)?)).collect()
    }

    /// Rows as they are now; `written` are those that `Want::Written` asks about.
    fn read(&mut self, want: Want, written: &[Change]) -> Fails<Vec<Row>> {
        const LAST: &str = "attempt = (SELECT MAX(attempt) FROM queue WHERE kind = q.kind AND id = q.id)";
        let job = |id: JobId| format!("kind = 0 AND id = {} AND {LAST}", id.get().cast_signed());
        match want {
            Want::Job(id) => {
                let mut rows = self.rows(&job(id))?;
                if let Some(&Row::Job(job)) = rows.first() {
                    rows.extend(self.rows(&format!("kind IN (1, 3) AND id = {}", job.pipeline.get().cast_signed()))?);
                    rows.extend(job.spec.key.map(|key| self.one(RowKey::Key(key))).transpose()?.flatten());
                }
                Ok(rows)
            }
            Want::Pipeline(id) => self.rows(&format!("pipeline = {} AND {LAST}", id.get().cast_signed())),
            Want::Key(key) => {
                let mut rows: Vec<Row> = self.one(RowKey::Key(key))?.into_iter().collect();
                let mentioned: Vec<JobId> = rows.iter().filter_map(Row::as_key).flat_map(KeyRow::names).collect();
                let holds = |row: &Row| row.as_job().is_some_and(|job| job.held_key() == Some(key));
                let mut jobs = self.rows("kind = 0 AND open")?;
                jobs.retain(|row| !rows.is_empty() && holds(row));
                for name in mentioned {
                    let named = self.rows(&job(name))?;
                    jobs.extend(named.into_iter().filter(|row| !jobs.contains(row)).collect::<Vec<_>>());
                }
                rows.extend(jobs);
                Ok(rows)
            }
            Want::Written(_) => {
                let mut rows = Vec::new();
                for change in written {
                    rows.extend(self.one(change.row.key())?);
                }
                Ok(rows)
            }
            Want::Open { from, limit } => self.whole(|row| row.id >= from, limit),
            Want::Owing { limit } => self.whole(|row| row.owes, limit),
            Want::Pool(id) => {
                let mut rows: Vec<Row> = self.one(RowKey::Pool(id))?.into_iter().collect();
                if let Some(Row::Pool(pool)) = rows.first() {
                    for share in pool.shares.clone() {
                        rows.extend(self.one(RowKey::Life(share.life))?);
                    }
                }
                Ok(rows)
            }
            Want::Charged { pool, life } => {
                let mut rows: Vec<Row> = self.one(RowKey::Life(life))?.into_iter().collect();
                let charged = |row: &Row| row.as_job().is_some_and(|job| job.charged() == Some((pool, life)));
                rows.extend(self.rows("kind = 0 AND open")?.into_iter().filter(charged));
                Ok(rows)
            }
        }
    }

    fn one(&mut self, row: RowKey) -> Fails<Option<Row>> {
        let (kind, id, attempt) = key_of(row);
        let row = self.rows(&format!("kind = {kind} AND id = {id} AND attempt = {attempt}"))?.pop();
        let clock: i64 =
            self.0.query_row("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)", [], |row| row.get(0))?;
        Ok(row.map(|row| row.read_at(Timestamp::from_millis(clock.cast_unsigned()))))
    }

    /// The open pipelines that are as asked, by id, with their plans and the jobs that have not ended.
    fn whole(&mut self, is_wanted: impl Fn(&Pipeline) -> bool, limit: u32) -> Fails<Vec<Row>> {
        let mut found = self.rows("kind = 1 AND open")?;
        found.retain(|row| row.as_pipeline().is_some_and(&is_wanted));
        found.sort_unstable_by_key(Row::key);
        let mut rows = Vec::new();
        for id in found.iter().filter_map(Row::as_pipeline).map(|row| row.id.get().cast_signed()).take(limit as usize) {
            rows.extend(self.rows(&format!("pipeline = {id} AND (kind IN (1, 3) OR open)"))?);
        }
        Ok(rows)
    }

    /// What a new life of the engine starts with: a number that no life had before, and the rows that have not ended.
    fn start(&mut self) -> Fails<(Incarnation, Vec<Row>)> {
        let next = "INSERT INTO lives SELECT COALESCE(MAX(life), 0) + 1 FROM lives RETURNING life";
        let life: i64 = self.0.query_row(next, [], |row| row.get(0))?;
        Ok((Incarnation::new(life.cast_unsigned()), self.rows("open OR kind = 3 AND pipeline IN (SELECT id FROM queue WHERE kind = 1 AND open)")?))
    }
}
