//! The queue's rows in SQL: compare-and-set on the version, and births.

use rusqlite::{Connection, OptionalExtension as _, params};
use tenon_jobqueue::{Change, Job, JobId, Pipeline, PipelineId, PipelineState, Row, RowKey, State, Version};

use super::{Birth, BirthOf, CiStoreError, Cursor, Write, json, parsed, signed, small, unsigned};

/// Applies a write; `false` if a row had another version: the caller then rolls back.
pub(super) fn apply(on: &Connection, write: &Write) -> Result<bool, CiStoreError> {
    if let Some(birth) = &write.birth
        && !bear(on, birth)?
    {
        return Ok(false);
    }
    for change in &write.changes {
        let made = match &change.row {
            Row::Job(job) => put_job(on, change.expect, job)?,
            Row::Pipeline(_) => true,
            Row::Key(_) | Row::Plan(_) | Row::Pool(_) | Row::Life(_) => put_other(on, change)?,
        };
        if !made {
            return Ok(false);
        }
    }
    // After its jobs: a pipeline ends when the last of them does.
    for change in &write.changes {
        if let Row::Pipeline(pipeline) = &change.row
            && !put_pipeline(on, change.expect, pipeline)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn put_job(on: &Connection, expect: Option<Version>, job: &Job) -> Result<bool, CiStoreError> {
    let (id, attempt) = (signed(job.key.job.get())?, job.key.attempt.get());
    let since = signed(job.since.as_millis())?;
    let open = !job.state.is_terminal();
    let worker = job.delivery.map(|d| signed(d.worker.name.get())).transpose()?;
    let began = (job.state == State::Running).then_some(since);
    let ended = (!open).then_some(since);
    let made = match expect {
        None => on
            .prepare_cached(
                "INSERT OR IGNORE INTO ci_jobs(job, attempt, pipeline, open, version, worker, began_ms, ended_ms, row)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                id,
                attempt,
                signed(job.pipeline.get())?,
                open,
                job.version.get(),
                worker,
                began,
                ended,
                json(job)?
            ])?,
        Some(old) => on
            .prepare_cached(
                "UPDATE ci_jobs SET open = ?3, version = ?4, worker = COALESCE(?5, worker),
                   began_ms = COALESCE(?6, began_ms), ended_ms = COALESCE(MAX(?7, COALESCE(?6, began_ms, ?7)), ended_ms), row = ?8
                 WHERE job = ?1 AND attempt = ?2 AND version = ?9",
            )?
            .execute(params![id, attempt, open, job.version.get(), worker, began, ended, json(job)?, old.get()])?,
    };
    Ok(made == 1)
}

/// What the rows besides jobs and pipelines are known by in their table: keys by their bare number.
fn name(key: RowKey) -> String {
    match key {
        RowKey::Job(key) => format!("job {}.{}", key.job, key.attempt),
        RowKey::Pipeline(id) => format!("pipeline {id}"),
        RowKey::Key(key) => key.to_string(),
        RowKey::Plan(id) => format!("plan {id}"),
        RowKey::Pool(id) => format!("pool {id}"),
        RowKey::Life(life) => format!("life {life}"),
    }
}

fn put_other(on: &Connection, change: &Change) -> Result<bool, CiStoreError> {
    let (key, version) = (name(change.row.key()), change.row.version().get());
    let text = json(&change.row)?;
    let made = match change.expect {
        None => on
            .prepare_cached("INSERT OR IGNORE INTO ci_keys(key, version, row) VALUES(?1, ?2, ?3)")?
            .execute(params![key, version, text])?,
        Some(old) => on
            .prepare_cached("UPDATE ci_keys SET version = ?2, row = ?3 WHERE key = ?1 AND version = ?4")?
            .execute(params![key, version, text, old.get()])?,
    };
    Ok(made == 1)
}

/// A row that is neither a job nor a pipeline.
pub(super) fn other(on: &Connection, key: RowKey) -> Result<Option<Row>, CiStoreError> {
    let row: Option<String> =
        on.prepare_cached("SELECT row FROM ci_keys WHERE key = ?1")?.query_row([name(key)], |r| r.get(0)).optional()?;
    let row: Option<Row> = row.map(|row| parsed(&row)).transpose()?;
    Ok(row.map(|row| row.read_at(crate::ci::centre::now())))
}

fn put_pipeline(on: &Connection, expect: Option<Version>, pipeline: &Pipeline) -> Result<bool, CiStoreError> {
    let open = pipeline.state() == PipelineState::Open;
    // A new pipeline's row is there since its birth, with version 0.
    let old = expect.map_or(0, Version::get);
    let made = on
        .prepare_cached(
            "UPDATE ci_pipelines SET open = ?2, version = ?3, row = ?4, ended_ms = NULL WHERE id = ?1 AND version = ?5",
        )?
        .execute(params![signed(pipeline.id.get())?, open, pipeline.version.get(), json(pipeline)?, old])?;
    if made == 1 && !open {
        on.prepare_cached(
            "UPDATE ci_pipelines SET ended_ms = MAX(created_ms, (SELECT MAX(ended_ms) FROM ci_jobs WHERE pipeline = ?1)) WHERE id = ?1",
        )?
        .execute([signed(pipeline.id.get())?])?;
    }
    Ok(made == 1)
}

/// Writes what belongs to a new pipeline, and moves the cursor; `false` if that was elsewhere, or the id is taken.
pub(super) fn bear(on: &Connection, birth: &Birth) -> Result<bool, CiStoreError> {
    let (file, error, jobs) = match &birth.what {
        BirthOf::Jobs(file, jobs) => (Some(json(file)?), None, jobs.as_slice()),
        BirthOf::Error(error) => (None, Some(error.as_str()), &[][..]),
    };
    let id = signed(birth.pipeline.get())?;
    let ended = error.map(|_| signed(birth.created_ms)).transpose()?;
    let made = on.execute(
        "INSERT OR IGNORE INTO ci_pipelines(
           id, repo, reference, hash, subject, pushed, file, error, created_ms, ended_ms, open, version, row)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, 0, NULL)",
        params![
            id,
            signed(birth.repo)?,
            birth.reference,
            birth.hash,
            birth.subject,
            signed(birth.pushed)?,
            file,
            error,
            signed(birth.created_ms)?,
            ended
        ],
    )?;
    if made == 0 {
        return Ok(false);
    }
    for (place, job) in jobs.iter().enumerate() {
        on.prepare_cached("INSERT INTO ci_places(job, pipeline, place) VALUES(?1, ?2, ?3)")?.execute(params![
            signed(job.get())?,
            id,
            i64::try_from(place).unwrap_or(i64::MAX)
        ])?;
    }
    move_cursor(on, birth.repo, birth.cursor)
}

pub(super) fn cursor(on: &Connection, repo: i64) -> Result<Cursor, CiStoreError> {
    let found: Option<(i64, i64)> = on
        .prepare_cached("SELECT version, part FROM ci_cursors WHERE repo = ?1")?
        .query_row([repo], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    found
        .map_or(Ok(Cursor::default()), |(version, part)| Ok(Cursor { version: unsigned(version)?, part: small(part)? }))
}

/// Moves a cursor that is at the first place to the second.
pub(super) fn move_cursor(on: &Connection, repo: u64, (from, to): (Cursor, Cursor)) -> Result<bool, CiStoreError> {
    let repo = signed(repo)?;
    if cursor(on, repo)? != from {
        return Ok(false);
    }
    on.prepare_cached("INSERT OR REPLACE INTO ci_cursors(repo, version, part) VALUES(?1, ?2, ?3)")?
        .execute(params![repo, signed(to.version)?, to.part])?;
    Ok(true)
}

/// The rows that a write would have changed, as they are.
pub(super) fn as_they_are(on: &Connection, changes: &[Change]) -> Result<Vec<Row>, CiStoreError> {
    let mut rows = Vec::new();
    for change in changes {
        match &change.row {
            Row::Job(job) => {
                let row: Option<String> = on
                    .prepare_cached("SELECT row FROM ci_jobs WHERE job = ?1 AND attempt = ?2")?
                    .query_row(params![signed(job.key.job.get())?, job.key.attempt.get()], |r| r.get(0))
                    .optional()?;
                rows.extend(row.map(|row| parsed(&row).map(Row::Job)).transpose()?);
            }
            Row::Pipeline(row) => rows.extend(pipeline(on, row.id)?.map(Row::Pipeline)),
            Row::Key(_) | Row::Plan(_) | Row::Pool(_) | Row::Life(_) => rows.extend(other(on, change.row.key())?),
        }
    }
    Ok(rows)
}

pub(super) fn pipeline(on: &Connection, id: PipelineId) -> Result<Option<Pipeline>, CiStoreError> {
    let row: Option<Option<String>> = on
        .prepare_cached("SELECT row FROM ci_pipelines WHERE id = ?1")?
        .query_row([signed(id.get())?], |r| r.get(0))
        .optional()?;
    row.flatten().map(|row| parsed(&row)).transpose()
}

/// A job's latest attempt.
pub(super) fn latest(on: &Connection, job: JobId) -> Result<Option<Job>, CiStoreError> {
    let row: Option<String> = on
        .prepare_cached("SELECT row FROM ci_jobs WHERE job = ?1 ORDER BY attempt DESC LIMIT 1")?
        .query_row([signed(job.get())?], |r| r.get(0))
        .optional()?;
    row.map(|row| parsed(&row)).transpose()
}

/// The latest attempt of each job of a pipeline.
pub(super) fn latest_of(on: &Connection, id: PipelineId) -> Result<Vec<Job>, CiStoreError> {
    let mut query = on.prepare_cached(
        "SELECT row FROM ci_jobs AS j WHERE pipeline = ?1
           AND attempt = (SELECT MAX(attempt) FROM ci_jobs WHERE job = j.job) ORDER BY job",
    )?;
    let rows = query.query_map([signed(id.get())?], |r| r.get::<_, String>(0))?;
    rows.map(|row| parsed(&row?)).collect()
}

/// Every job that has not ended, and is as asked.
pub(super) fn open_jobs(on: &Connection, is_wanted: impl Fn(&Job) -> bool) -> Result<Vec<Row>, CiStoreError> {
    let mut query = on.prepare_cached("SELECT row FROM ci_jobs WHERE open = 1")?;
    let jobs: Vec<Job> =
        query.query_map([], |r| r.get::<_, String>(0))?.map(|row| parsed(&row?)).collect::<Result<_, _>>()?;
    Ok(jobs.into_iter().filter(is_wanted).map(Row::Job).collect())
}
