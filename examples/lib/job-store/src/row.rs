//! How a row of the queue becomes a row of the table, and back.

use tenon_jobqueue::{Change, Incarnation, KeyRow, PoolId, PoolRow, Row, RowKey, Timestamp, Version};

use crate::Error;

/// The first byte of an encoded row: it says how the rest is encoded.
const FORMAT: u8 = 1;

const JOB: i16 = 0;
const PIPELINE: i16 = 1;
const KEY: i16 = 2;
const PLAN: i16 = 3;
const POOL: i16 = 4;
const LIFE: i16 = 5;

/// A row's primary key. Numbers keep their 64 bits, whatever sign the database sees in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) kind: i16,
    pub(crate) id: i64,
    pub(crate) attempt: i32,
}

impl Place {
    pub(crate) const fn of(key: RowKey) -> Self {
        let (kind, id, attempt) = match key {
            RowKey::Job(key) => (JOB, key.job.get(), key.attempt.get()),
            RowKey::Pipeline(id) => (PIPELINE, id.get(), 0),
            RowKey::Key(key) => (KEY, key.get(), 0),
            RowKey::Plan(id) => (PLAN, id.get(), 0),
            RowKey::Pool(id) => (POOL, id.get() as u64, 0),
            RowKey::Life(life) => (LIFE, life.get(), 0),
        };
        Self { kind, id: id.cast_signed(), attempt: attempt.cast_signed() }
    }

    fn damaged(self, why: &impl ToString) -> Error {
        Error::Damaged { kind: self.kind, id: self.id.cast_unsigned(), why: why.to_string() }
    }
}

/// A row as the table has it.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) place: Place,
    pub(crate) pipeline: Option<i64>,
    pub(crate) version: i32,
    pub(crate) open: bool,
    pub(crate) owes: bool,
    pub(crate) holds: Option<i64>,
    pub(crate) life: Option<i64>,
    pub(crate) row: Vec<u8>,
    pub(crate) what: What,
}

/// What is done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It is new.
    Insert,
    /// It is there in this version.
    Update(i32),
    /// It is there in its own version, and stays as it is.
    Guard,
}

impl Columns {
    pub(crate) fn of(Change { expect, row }: &Change) -> Result<Self, Error> {
        let place = Place::of(row.key());
        let pipeline = match row {
            Row::Job(job) => Some(job.pipeline),
            Row::Pipeline(row) => Some(row.id),
            Row::Plan(row) => Some(row.pipeline),
            Row::Key(_) | Row::Pool(_) | Row::Life(_) => None,
        };
        let what = match expect {
            None => What::Insert,
            Some(expect) if *expect == row.version() => What::Guard,
            Some(expect) => What::Update(number(*expect)),
        };
        let job = row.as_job();
        Ok(Self {
            place,
            pipeline: pipeline.map(|id| id.get().cast_signed()),
            version: number(row.version()),
            open: row.is_open(),
            owes: row.is_open() && row.as_pipeline().is_some_and(|row| row.owes),
            holds: job.and_then(|job| Some(job.held_key()?.get().cast_signed())),
            life: job.and_then(|job| Some(job.charged()?.1.get().cast_signed())),
            row: if what == What::Guard { Vec::new() } else { encode(place, row)? },
            what,
        })
    }
}

fn number(version: Version) -> i32 {
    version.get().cast_signed()
}

/// `MessagePack` with a struct's fields by their place: a fifth of the JSON, and a field added at the end of a struct with
/// `#[serde(default)]` still reads what was written before it.
fn encode(place: Place, row: &Row) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![FORMAT];
    let written = match row {
        Row::Job(row) => rmp_serde::encode::write(&mut bytes, row),
        Row::Pipeline(row) => rmp_serde::encode::write(&mut bytes, row),
        Row::Key(row) => rmp_serde::encode::write(&mut bytes, row),
        Row::Plan(row) => rmp_serde::encode::write(&mut bytes, row),
        Row::Pool(row) => {
            let row = PoolRow { clock: Timestamp::ZERO, ..row.clone() };
            rmp_serde::encode::write(&mut bytes, &row)
        }
        Row::Life(row) => rmp_serde::encode::write(&mut bytes, row),
    };
    written.map(|()| bytes).map_err(|why| place.damaged(&why))
}

/// The row with these bytes; a pool's row tells what the database's clock says.
pub(crate) fn decode(kind: i16, id: i64, bytes: &[u8], clock: Timestamp) -> Result<Row, Error> {
    let damaged = |why: &dyn ToString| Place { kind, id, attempt: 0 }.damaged(&why.to_string());
    let body = match bytes.split_first() {
        Some((&FORMAT, body)) => body,
        Some((format, _)) => return Err(damaged(&format!("format {format} is unknown"))),
        None => return Err(damaged(&"it is empty")),
    };
    let read = match kind {
        JOB => rmp_serde::from_slice(body).map(Row::Job),
        PIPELINE => rmp_serde::from_slice(body).map(Row::Pipeline),
        KEY => rmp_serde::from_slice(body).map(Row::Key),
        PLAN => rmp_serde::from_slice(body).map(Row::Plan),
        POOL => rmp_serde::from_slice(body).map(|row| Row::Pool(PoolRow { clock, ..row })),
        LIFE => rmp_serde::from_slice(body).map(Row::Life),
        other => return Err(damaged(&format!("kind {other} is unknown"))),
    };
    read.map_err(|why| damaged(&why))
}

/// The rows that are told with a job's: its pipeline's and plan, and its key's.
pub(crate) fn beside(rows: &[Row]) -> Vec<Place> {
    let jobs = rows.iter().filter_map(Row::as_job);
    jobs.flat_map(|job| {
        let of = [RowKey::Pipeline(job.pipeline), RowKey::Plan(job.pipeline)];
        of.into_iter().chain(job.spec.key.map(RowKey::Key)).map(Place::of)
    })
    .collect()
}

/// The lives that have a share in the pool among these rows.
pub(crate) fn sharers(rows: &[Row]) -> Vec<Place> {
    let shares = rows.iter().flat_map(|row| if let Row::Pool(row) = row { row.shares.as_slice() } else { &[] });
    shares.map(|share| Place::of(RowKey::Life(share.life))).collect()
}

/// The jobs that the key among these rows names, by number, each once.
pub(crate) fn named(rows: &[Row]) -> Vec<i64> {
    let keys = rows.iter().filter_map(Row::as_key);
    let mut jobs: Vec<i64> = keys.flat_map(KeyRow::names).map(|job| job.get().cast_signed()).collect();
    jobs.sort_unstable();
    jobs.dedup();
    jobs
}

pub(crate) fn pipelines(rows: &[Row]) -> u32 {
    u32::try_from(rows.iter().filter(|row| row.as_pipeline().is_some()).count()).unwrap_or(u32::MAX)
}

pub(crate) fn is_charged(row: &Row, pool: PoolId, life: Incarnation) -> bool {
    row.as_job().is_some_and(|job| job.charged() == Some((pool, life)))
}
