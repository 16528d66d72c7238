//! What is read: rows for the engine, and records for people.

use rusqlite::{Connection, OptionalExtension as _, Params, Row as SqlRow, params};
use tenon_jobqueue::{Change, Job, JobId, KeyRow, Pipeline, Row, RowKey, Want};

use super::{CiStore, CiStoreError, parsed, rows, signed, unsigned};
use crate::ci::file::{CiFile, JobDef};

/// Pipelines with their plans and the jobs that have not ended.
fn whole(on: &Connection, which: &str, with: impl Params) -> Result<Vec<Row>, CiStoreError> {
    let mut query = on.prepare_cached(&format!("SELECT row FROM ci_pipelines WHERE {which}"))?;
    let pipelines: Vec<Pipeline> =
        query.query_map(with, |r| r.get::<_, String>(0))?.map(|row| parsed(&row?)).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for row in pipelines {
        all.extend(rows::other(on, RowKey::Plan(row.id))?);
        let jobs = rows::latest_of(on, row.id)?;
        all.extend(jobs.into_iter().filter(|job| !job.state.is_terminal()).map(Row::Job));
        all.push(Row::Pipeline(row));
    }
    Ok(all)
}

/// A pipeline with all that is known of it.
#[derive(Clone, Debug)]
pub(crate) struct PipelineRecord {
    pub(crate) id: u64,
    pub(crate) repo: u64,
    pub(crate) reference: String,
    pub(crate) hash: String,
    pub(crate) subject: String,
    pub(crate) file: Option<CiFile>,
    pub(crate) error: Option<String>,
    pub(crate) created_ms: u64,
    pub(crate) ended_ms: Option<u64>,
    /// None where there are no jobs.
    pub(crate) row: Option<Pipeline>,
}

/// One attempt of a job.
#[derive(Clone, Debug)]
pub(crate) struct JobRecord {
    pub(crate) row: Job,
    /// Its place in the pipeline's file.
    pub(crate) place: usize,
    pub(crate) worker: Option<String>,
    pub(crate) began_ms: Option<u64>,
    pub(crate) ended_ms: Option<u64>,
}

const PIPELINE: &str =
    "SELECT id, repo, reference, hash, subject, file, error, created_ms, ended_ms, row FROM ci_pipelines";
const JOB: &str = "SELECT j.row, p.place, n.name, j.began_ms, j.ended_ms FROM ci_jobs AS j
   JOIN ci_places AS p ON p.job = j.job
   LEFT JOIN ci_names AS n ON n.kind = 'worker' AND n.id = j.worker";

impl CiStore {
    /// Rows afresh, as the engine wants them; `written` are the changes of the write that it asks about.
    pub(crate) fn fetch(&self, want: Want, written: &[Change]) -> Result<Vec<Row>, CiStoreError> {
        let on = self.lock();
        match want {
            Want::Job(job) => {
                let Some(job) = rows::latest(&on, job)? else { return Ok(Vec::new()) };
                let pipeline = rows::pipeline(&on, job.pipeline)?.map(Row::Pipeline);
                let mut all: Vec<Row> = [Row::Job(job)].into_iter().chain(pipeline).collect();
                let others = [RowKey::Plan(job.pipeline)].into_iter().chain(job.spec.key.map(RowKey::Key));
                for other in others {
                    all.extend(rows::other(&on, other)?);
                }
                Ok(all)
            }
            Want::Pipeline(id) => {
                let pipeline = rows::pipeline(&on, id)?.map(Row::Pipeline);
                let plan = rows::other(&on, RowKey::Plan(id))?;
                let jobs = rows::latest_of(&on, id)?.into_iter().map(Row::Job);
                Ok(pipeline.into_iter().chain(plan).chain(jobs).collect())
            }
            Want::Key(key) => {
                let Some(row) = rows::other(&on, RowKey::Key(key))? else { return Ok(Vec::new()) };
                let mut jobs = rows::open_jobs(&on, |job| job.held_key() == Some(key))?;
                for name in row.as_key().into_iter().flat_map(KeyRow::names) {
                    let row = rows::latest(&on, name)?.map(Row::Job);
                    jobs.extend(row.filter(|row| !jobs.contains(row)));
                }
                Ok([row].into_iter().chain(jobs).collect())
            }
            Want::Written(_) => rows::as_they_are(&on, written),
            Want::Open { from, limit } => {
                whole(&on, "open = 1 AND id >= ?1 ORDER BY id LIMIT ?2", params![signed(from.get())?, limit])
            }
            Want::Owing { limit } => whole(&on, "open = 1 AND json_extract(row, '$.owes') LIMIT ?1", params![limit]),
            Want::Pool(id) => {
                let Some(row) = rows::other(&on, RowKey::Pool(id))? else { return Ok(Vec::new()) };
                let shares = if let Row::Pool(row) = &row { row.shares.clone() } else { Vec::new() };
                let mut all = vec![row];
                for share in shares {
                    all.extend(rows::other(&on, RowKey::Life(share.life))?);
                }
                Ok(all)
            }
            Want::Charged { pool, life } => {
                let life_row = rows::other(&on, RowKey::Life(life))?;
                let charged = rows::open_jobs(&on, |job| job.charged() == Some((pool, life)))?;
                Ok(life_row.into_iter().chain(charged).collect())
            }
        }
    }

    /// Every open pipeline with its plan, and every job that has not ended.
    pub(crate) fn open_rows(&self) -> Result<Vec<Row>, CiStoreError> {
        let on = self.lock();
        let mut all = whole(&on, "open = 1", params![])?;
        all.retain(|row| row.as_job().is_none());
        all.extend(rows::open_jobs(&on, |_| true)?);
        Ok(all)
    }

    /// The commits of a repository's open pipelines, newest first.
    pub(crate) fn open_commits(&self, repo: u64, most: u32) -> Result<Vec<String>, CiStoreError> {
        let on = self.lock();
        let mut query = on.prepare_cached(
            "SELECT hash FROM ci_pipelines WHERE open = 1 AND repo = ?1 GROUP BY hash ORDER BY MAX(id) DESC LIMIT ?2",
        )?;
        let found = query.query_map(params![signed(repo)?, most], |r| r.get(0))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// The newest pipelines, of one repository or of all, newest first.
    pub(crate) fn pipelines(&self, repo: Option<u64>, most: u32) -> Result<Vec<PipelineRecord>, CiStoreError> {
        let on = self.lock();
        let repo = repo.map(signed).transpose()?;
        let mut query =
            on.prepare_cached(&format!("{PIPELINE} WHERE ?1 IS NULL OR repo = ?1 ORDER BY id DESC LIMIT ?2"))?;
        let mut found = query.query(params![repo, most])?;
        let mut all = Vec::new();
        while let Some(row) = found.next()? {
            all.push(pipeline(row)?);
        }
        Ok(all)
    }

    pub(crate) fn pipeline(&self, id: u64) -> Result<Option<PipelineRecord>, CiStoreError> {
        let on = self.lock();
        let mut query = on.prepare_cached(&format!("{PIPELINE} WHERE id = ?1"))?;
        let mut found = query.query([signed(id)?])?;
        found.next()?.map(pipeline).transpose()
    }

    /// The latest attempt of each job of a pipeline, in the file's order.
    pub(crate) fn jobs(&self, pipeline: u64) -> Result<Vec<JobRecord>, CiStoreError> {
        self.job_records(
            "WHERE j.pipeline = ?1 AND j.attempt = (SELECT MAX(attempt) FROM ci_jobs WHERE job = j.job) ORDER BY p.place",
            pipeline,
        )
    }

    /// Every attempt of a job, oldest first.
    pub(crate) fn attempts(&self, job: u64) -> Result<Vec<JobRecord>, CiStoreError> {
        self.job_records("WHERE j.job = ?1 ORDER BY j.attempt", job)
    }

    fn job_records(&self, which: &str, id: u64) -> Result<Vec<JobRecord>, CiStoreError> {
        let on = self.lock();
        let mut query = on.prepare_cached(&format!("{JOB} {which}"))?;
        let mut found = query.query([signed(id)?])?;
        let mut all = Vec::new();
        while let Some(row) = found.next()? {
            all.push(JobRecord {
                row: parsed(&row.get::<_, String>(0)?)?,
                place: usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX),
                worker: row.get(2)?,
                began_ms: time(row, 3)?,
                ended_ms: time(row, 4)?,
            });
        }
        Ok(all)
    }

    /// What a job is: its pipeline and its definition.
    pub(crate) fn definition(&self, job: JobId) -> Result<Option<(PipelineRecord, JobDef)>, CiStoreError> {
        let found: Option<(i64, i64)> = self
            .lock()
            .prepare_cached("SELECT pipeline, place FROM ci_places WHERE job = ?1")?
            .query_row([signed(job.get())?], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let Some((id, place)) = found else { return Ok(None) };
        let pipeline = self.pipeline(unsigned(id)?)?;
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        Ok(pipeline.and_then(|p| {
            let def = p.file.as_ref()?.jobs.get(place)?.clone();
            Some((p, def))
        }))
    }

    /// How many pipelines stand in each way: open, then ended.
    pub(crate) fn totals(&self) -> Result<(u64, u64), CiStoreError> {
        let (open, all): (i64, i64) =
            self.lock().query_row("SELECT COALESCE(SUM(open), 0), COUNT(*) FROM ci_pipelines", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })?;
        Ok((unsigned(open)?, unsigned(all)?))
    }

    /// The name of a repository; the table is the router's.
    pub(crate) fn repository(&self, id: u64) -> Result<Option<String>, CiStoreError> {
        let name = self
            .lock()
            .prepare_cached("SELECT name FROM repos WHERE id = ?1")?
            .query_row([signed(id)?], |r| r.get(0))
            .optional()?;
        Ok(name)
    }
}

fn pipeline(row: &SqlRow<'_>) -> Result<PipelineRecord, CiStoreError> {
    let file: Option<String> = row.get(5)?;
    let body: Option<String> = row.get(9)?;
    Ok(PipelineRecord {
        id: unsigned(row.get(0)?)?,
        repo: unsigned(row.get(1)?)?,
        reference: row.get(2)?,
        hash: row.get(3)?,
        subject: row.get(4)?,
        file: file.map(|text| parsed(&text)).transpose()?,
        error: row.get(6)?,
        created_ms: unsigned(row.get(7)?)?,
        ended_ms: time(row, 8)?,
        row: body.map(|text| parsed(&text)).transpose()?,
    })
}

fn time(row: &SqlRow<'_>, at: usize) -> Result<Option<u64>, CiStoreError> {
    row.get::<_, Option<i64>>(at)?.map(unsigned).transpose()
}
