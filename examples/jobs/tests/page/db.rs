use rusqlite::{Connection, params};
use tenon_jobqueue::*;

type Fails<T> = Result<T, Box<dyn std::error::Error>>;

struct Db(Connection);

/// The primary key. Numbers keep their 64 bits, whatever sign the database sees in them.
fn key_of(row: &Row) -> (i32, i64, i64) {
    match row {
        Row::Job(job) => (0, job.id().get().cast_signed(), i64::from(job.attempt().get())),
        Row::Pipeline(row) => (1, row.id.get().cast_signed(), 0),
        Row::Key(row) => (2, row.key.get().cast_signed(), 0),
    }
}

impl Db {
    /// All of it or nothing; `false`: a row had another version, or was there already.
    fn write(&mut self, changes: &[Change]) -> Fails<bool> {
        let tx = self.0.transaction()?;
        for Change { expect, row } in changes {
            let (kind, id, attempt) = key_of(row);
            let (pipeline, version, open) = match row {
                Row::Job(job) => (job.pipeline.get().cast_signed(), job.version, !job.state.is_terminal()),
                Row::Pipeline(row) => (id, row.version, row.state() == PipelineState::Open),
                Row::Key(row) => (0, row.version, false),
            };
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
        match want {
            Want::Job(job) => {
                let mut rows = self.rows(&format!("kind = 0 AND id = {} AND {LAST}", job.get().cast_signed()))?;
                if let Some(&Row::Job(job)) = rows.first() {
                    rows.extend(self.rows(&format!("kind = 1 AND id = {}", job.pipeline.get().cast_signed()))?);
                    if let Some(key) = job.spec.key {
                        rows.extend(self.read(Want::Key(key), &[])?);
                    }
                }
                Ok(rows)
            }
            Want::Pipeline(id) => self.rows(&format!("pipeline = {} AND kind < 2 AND {LAST}", id.get().cast_signed())),
            Want::Key(key) => self.rows(&format!("kind = 2 AND id = {}", key.get().cast_signed())),
            Want::Written(_) => {
                let mut rows = Vec::new();
                for (kind, id, attempt) in written.iter().map(|change| key_of(&change.row)) {
                    rows.extend(self.rows(&format!("kind = {kind} AND id = {id} AND attempt = {attempt}"))?);
                }
                Ok(rows)
            }
        }
    }

    /// What a new life of the engine starts with: a number that no life had before, and the rows that have not ended.
    fn start(&mut self) -> Fails<(Incarnation, Vec<Row>)> {
        let next = "INSERT INTO lives SELECT COALESCE(MAX(life), 0) + 1 FROM lives RETURNING life";
        let life: i64 = self.0.query_row(next, [], |row| row.get(0))?;
        Ok((Incarnation::new(life.cast_unsigned()), self.rows("open")?))
    }
}
