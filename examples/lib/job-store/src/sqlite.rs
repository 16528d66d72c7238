//! The store on `SQLite`: one file, threads that may block.
//!
//! [`SqliteStore`] is all that most hosts need. A host that writes tables of its own in the same transaction calls
//! [`migrate`], [`put`], [`rows_of`] and [`read`] on its own connection.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, Params, TransactionBehavior, params};
use tenon_jobqueue::{Change, Incarnation, JobId, Row, RowKey, Timestamp, Want};

use crate::row::{self, Columns, Place, What};
use crate::schedule::{self, Firing, NewSchedule, ScheduleRow};
use crate::{Error, Store, Write, Written, first_of, halves, sql};

const PUT_NEW: &str = "INSERT INTO jobqueue_rows(kind, id, attempt, pipeline, version, open, owes, holds, life, row)
 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
const PUT_OLD: &str = "UPDATE jobqueue_rows SET version = ?4, open = ?5, owes = ?6, holds = ?7, life = ?8, row = ?9
 WHERE kind = ?1 AND id = ?2 AND attempt = ?3 AND version = ?10";
const GUARD: &str = "SELECT COUNT(*) FROM jobqueue_rows WHERE kind = ?1 AND id = ?2 AND attempt = ?3 AND version = ?4";
const PUT_PAYLOAD: &str = "INSERT INTO jobqueue_payloads(job, payload) VALUES(?1, ?2) ON CONFLICT DO NOTHING";
const AT: &str = "SELECT kind, id, row FROM jobqueue_rows WHERE kind = ?1 AND id = ?2 AND attempt = ?3";

/// Makes the tables, or brings older ones up to date. Does nothing if they are.
///
/// # Errors
///
/// [`Error::NewerSchema`] if a newer program made them; nothing is changed.
pub fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(sql::MAKE_VERSION)?;
    let found: i64 = tx.query_row(sql::VERSION, [], |row| row.get(0))?;
    let Some(missing) = usize::try_from(found).ok().and_then(|found| sql::MIGRATIONS.get(found..)) else {
        return Err(Error::NewerSchema { found, known: sql::NEWEST });
    };
    for (step, version) in missing.iter().zip(found + 1..) {
        tx.execute_batch(step)?;
        tx.execute(sql::SET_VERSION, [version])?;
    }
    Ok(tx.commit()?)
}

/// Puts rows in their places, inside a transaction of the host's: `false` if one has another version than expected, or
/// is there already. The host then rolls back.
///
/// # Errors
///
/// The database failed, or a row cannot be encoded. The host then rolls back, too.
pub fn put(on: &Connection, changes: &[Change]) -> Result<bool, Error> {
    for change in changes {
        let Columns { place: Place { kind, id, attempt }, pipeline, version, open, owes, holds, life, row, what } =
            Columns::of(change)?;
        let touched = match what {
            What::Insert => on
                .prepare_cached(PUT_NEW)?
                .execute(params![kind, id, attempt, pipeline, version, open, owes, holds, life, row])?,
            What::Update(old) => on
                .prepare_cached(PUT_OLD)?
                .execute(params![kind, id, attempt, version, open, owes, holds, life, row, old])?,
            What::Guard => {
                let there = params![kind, id, attempt, version];
                on.prepare_cached(GUARD)?.query_row(there, |row| row.get::<_, bool>(0)).map(usize::from)?
            }
        };
        if touched != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the rows of a write as they are.
///
/// # Errors
///
/// The database failed, or a row cannot be decoded.
pub fn rows_of(on: &Connection, changes: &[Change]) -> Result<Vec<Row>, Error> {
    all_at(on, changes.iter().map(|change| Place::of(change.row.key())))
}

/// Reads what the engine wants, all of it as it is at one moment; `written` are the changes that [`Want::Written`] asks about.
///
/// # Errors
///
/// The database failed, or a row cannot be decoded.
pub fn read(on: &Connection, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
    // Inside a transaction of the host's, that one is the moment.
    let moment = if on.is_autocommit() { Some(on.unchecked_transaction()?) } else { None };
    let found = read_in_parts(on, want, written)?;
    moment.map_or(Ok(()), rusqlite::Transaction::commit)?;
    Ok(found)
}

fn read_in_parts(on: &Connection, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
    match want {
        Want::Job(job) => {
            let mut found = rows(on, sql::JOB, [job.get().cast_signed()])?;
            found.extend(all_at(on, row::beside(&found))?);
            Ok(found)
        }
        Want::Pipeline(id) => rows(on, sql::PIPELINE, [id.get().cast_signed()]),
        Want::Key(key) => {
            let mut found = all_at(on, [Place::of(RowKey::Key(key))])?;
            if !found.is_empty() {
                let mut jobs = rows(on, sql::HOLDERS, [key.get().cast_signed()])?;
                for job in row::named(&found) {
                    let named = rows(on, sql::JOB, [job])?;
                    jobs.extend(named.into_iter().filter(|row| !jobs.contains(row)).collect::<Vec<_>>());
                }
                found.extend(jobs);
            }
            Ok(found)
        }
        Want::Written(_) => rows_of(on, written),
        Want::Open { from, limit } => {
            let (mut found, mut room) = (Vec::new(), limit);
            for (first, last) in halves(from.get()) {
                let half = rows(on, sql::OPEN, params![first, last, room])?;
                room = room.saturating_sub(row::pipelines(&half));
                found.extend(half);
            }
            Ok(found)
        }
        Want::Owing { limit } => rows(on, sql::OWING, [limit]),
        Want::Pool(id) => {
            let mut found = all_at(on, [Place::of(RowKey::Pool(id))])?;
            found.extend(all_at(on, row::sharers(&found))?);
            Ok(found)
        }
        Want::Charged { pool, life } => {
            let mut found = all_at(on, [Place::of(RowKey::Life(life))])?;
            let jobs = rows(on, sql::CHARGED, [life.get().cast_signed()])?;
            found.extend(jobs.into_iter().filter(|row| row::is_charged(row, pool, life)));
            Ok(found)
        }
    }
}

/// Reads every open pipeline with its plan, and every job that has not ended.
///
/// # Errors
///
/// The database failed, or a row cannot be decoded.
pub fn open_rows(on: &Connection) -> Result<Vec<Row>, Error> {
    rows(on, sql::ALL_OPEN, [])
}

/// Draws `count` numbers of this name, which nobody was given before: the first of them.
///
/// # Errors
///
/// The database failed.
pub fn draw(on: &Connection, name: &str, count: u32) -> Result<u64, Error> {
    let last = on.prepare_cached(sql::DRAW)?.query_row(params![name, count], |row| row.get(0))?;
    Ok(first_of(last, count))
}

/// Draws the number of a new life of an engine, which no life had before.
///
/// # Errors
///
/// The database failed.
pub fn next_life(on: &Connection) -> Result<Incarnation, Error> {
    draw(on, sql::LIFE, 1).map(Incarnation::new)
}

fn all_at(on: &Connection, places: impl IntoIterator<Item = Place>) -> Result<Vec<Row>, Error> {
    let mut found = Vec::new();
    for Place { kind, id, attempt } in places {
        found.extend(rows(on, AT, params![kind, id, attempt])?);
    }
    Ok(found)
}

fn rows(on: &Connection, sql: &str, with: impl Params) -> Result<Vec<Row>, Error> {
    let mut query = on.prepare_cached(sql)?;
    let mut found = query.query(with)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(decoded(row)?);
    }
    Ok(rows)
}

fn decoded(row: &rusqlite::Row<'_>) -> Result<Row, Error> {
    let bytes = row.get_ref(2)?.as_bytes().map_err(rusqlite::Error::from)?;
    // The database is in this process, and so is its clock.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    row::decode(row.get(0)?, row.get(1)?, bytes, Timestamp::from_millis(u64::try_from(clock).unwrap_or(u64::MAX)))
}

fn scheduled(on: &Connection, sql: &str, with: impl Params) -> Result<Vec<ScheduleRow>, Error> {
    let mut query = on.prepare_cached(sql)?;
    let mut found = query.query(with)?;
    let mut rows = Vec::new();
    while let Some(r) = found.next()? {
        let (numbers, times) = ((r.get(0)?, r.get(1)?), (r.get(5)?, r.get(6)?));
        rows.push(schedule::row_of(numbers, (r.get(2)?, r.get(3)?, r.get(4)?), times, r.get(7)?)?);
    }
    Ok(rows)
}

/// Moves a schedule; `false` if somebody else has.
fn fire(on: &Connection, firing: Option<Firing>) -> Result<bool, Error> {
    let Some(Firing { schedule, version, decision }) = firing else { return Ok(true) };
    let (last, next) = schedule::times(&decision.schedule);
    let moved = on.prepare_cached(sql::MOVE_SCHEDULE)?.execute(params![last, next, schedule.cast_signed(), version])?;
    Ok(moved == 1)
}

/// The store in one file, which any number of processes of one machine may share.
#[derive(Debug)]
pub struct SqliteStore(Connection);

impl SqliteStore {
    /// Opens the file, or makes it. What is written is on disk before it is told as made.
    ///
    /// # Errors
    ///
    /// The file cannot be used, or a newer program made it.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Self::on(connection)
    }

    /// Opens a store that ends with the process.
    ///
    /// # Errors
    ///
    /// `SQLite` failed.
    pub fn in_memory() -> Result<Self, Error> {
        Self::on(Connection::open_in_memory()?)
    }

    /// Puts the tables beside those of the host, on its own connection and with its own settings.
    ///
    /// # Errors
    ///
    /// `SQLite` failed, or a newer program made the tables.
    pub fn on(mut connection: Connection) -> Result<Self, Error> {
        connection.set_prepared_statement_cache_capacity(64);
        migrate(&mut connection)?;
        Ok(Self(connection))
    }

    /// The connection, for tables of the host's own.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Store for SqliteStore {
    fn next_life(&mut self) -> Result<Incarnation, Error> {
        next_life(&self.0)
    }

    fn next_ids(&mut self, count: u32) -> Result<u64, Error> {
        draw(&self.0, sql::IDS, count)
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, Error> {
        let mut all = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut told = Vec::with_capacity(writes.len());
        for write in writes {
            // Rolled back when it is dropped, unless it is committed.
            let one = all.savepoint()?;
            if put(&one, write.changes)? && fire(&one, write.firing)? {
                for (job, payload) in write.payloads {
                    one.prepare_cached(PUT_PAYLOAD)?.execute(params![job.get().cast_signed(), payload])?;
                }
                one.commit()?;
                told.push(Written::Made);
            } else {
                drop(one);
                told.push(Written::Conflict(rows_of(&all, write.changes)?));
            }
        }
        all.commit()?;
        Ok(told)
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
        // All of it as of one moment.
        let tx = self.0.transaction()?;
        read(&tx, want, written)
    }

    fn open_rows(&mut self) -> Result<Vec<Row>, Error> {
        open_rows(&self.0)
    }

    fn put_schedule(&mut self, new: &NewSchedule, now: Timestamp) -> Result<u64, Error> {
        let schedule = new.begin(now)?;
        let (id, (last, next)) = (self.next_ids(1)?, schedule::times(&schedule));
        let missed = new.missed.code();
        let columns = params![id.cast_signed(), new.cron, new.zone, missed, last, next, new.payload];
        self.0.prepare_cached(sql::PUT_SCHEDULE)?.execute(columns)?;
        Ok(id)
    }

    fn end_schedule(&mut self, id: u64) -> Result<bool, Error> {
        Ok(self.0.prepare_cached(sql::END_SCHEDULE)?.execute([id.cast_signed()])? == 1)
    }

    fn schedules(&mut self) -> Result<Vec<ScheduleRow>, Error> {
        scheduled(&self.0, sql::SCHEDULES, [])
    }

    fn due(&mut self, now: Timestamp, limit: u32) -> Result<Vec<ScheduleRow>, Error> {
        scheduled(&self.0, sql::DUE, params![now.as_millis().cast_signed(), limit])
    }

    fn jobs(&mut self, from: JobId, limit: u32) -> Result<Vec<Row>, Error> {
        for (first, last) in halves(from.get()) {
            let found = rows(&self.0, sql::JOBS, params![first, last, limit])?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    fn payload(&mut self, job: JobId) -> Result<Option<Vec<u8>>, Error> {
        let mut query = self.0.prepare_cached(sql::PAYLOAD)?;
        Ok(query.query_row([job.get().cast_signed()], |row| row.get(0)).optional()?)
    }
}
