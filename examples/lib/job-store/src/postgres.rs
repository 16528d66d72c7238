//! The store on `PostgreSQL`: any number of servers, each with a connection that is made again when it breaks.
//!
//! [`PostgresStore`] and [`BlockingPostgresStore`] are all that most hosts need. A host that writes tables of its own in
//! the same transaction calls [`migrate`] and [`put`] on its own connection.

mod blocking;
mod columns;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tenon_jobqueue::{Change, Incarnation, JobId, Row, RowKey, Timestamp, Want};
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row as SqlRow, Statement, ToStatement, Transaction};

pub use blocking::BlockingPostgresStore;
use columns::{Puts, places};

use crate::row::{self, Place};
use crate::schedule::{self, Firing, NewSchedule, ScheduleRow};
use crate::{Error, Write, Written, first_of, halves, sql};

/// How often a write is tried that the server broke off because of another (a deadlock): nothing of it was made.
const TRIES: u32 = 5;
/// How long the server may take for one call.
const PATIENCE: Duration = Duration::from_secs(30);
/// Programs that start together make the tables one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310590000071551)";
/// Rows are written again several times before they rest: room for that beside them spares the indices.
const TUNE: &str = "ALTER TABLE jobqueue_rows SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)";

type Connecting = Pin<Box<dyn Future<Output = Result<Client, Error>> + Send>>;

/// A connection, and the statements that it has prepared.
#[derive(Debug)]
struct Connection {
    client: Client,
    statements: Statements,
}

macro_rules! statements {
    ($($name:ident: $sql:expr;)*) => {
        #[derive(Debug)]
        struct Statements { $($name: Statement,)* }

        impl Statements {
            async fn prepare(client: &Client) -> Result<Self, Error> {
                // All at once: one way to the server and back.
                let ($($name,)*) = tokio::try_join!($(Box::pin(client.prepare($sql)),)*)?;
                Ok(Self { $($name,)* })
            }
        }
    };
}

statements! {
    put_new: columns::PUT_NEW;
    put_old: columns::PUT_OLD;
    put_payloads: columns::PUT_PAYLOADS;
    guard: columns::GUARD;
    at: columns::AT;
    job: sql::JOB;
    pipeline: sql::PIPELINE;
    open: sql::OPEN;
    owing: sql::OWING;
    all_open: sql::ALL_OPEN;
    holders: sql::HOLDERS;
    charged: sql::CHARGED;
    jobs: sql::JOBS;
    payload: sql::PAYLOAD;
    draw: sql::DRAW;
    put_schedule: sql::PUT_SCHEDULE;
    move_schedule: sql::MOVE_SCHEDULE;
    end_schedule: sql::END_SCHEDULE;
    schedules: sql::SCHEDULES;
    due: sql::DUE;
}

impl Statements {
    /// Those that write.
    const fn puts(&self) -> [&Statement; 5] {
        [&self.put_new, &self.put_old, &self.put_payloads, &self.guard, &self.move_schedule]
    }
}

/// The store for tokio. Its calls may come from many tasks; they go over one connection, one after the other.
///
/// Dropping a call's future while it waits is like losing its answer: the connection is made anew, and a write may or
/// may not have been made.
pub struct PostgresStore {
    connect: Arc<dyn Fn() -> Connecting + Send + Sync>,
    connection: Mutex<Option<Connection>>,
    patience: Duration,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects, without TLS, and makes the tables or brings older ones up to date.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or used, or a newer program made the tables.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let mut config: Config = url.parse()?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(PATIENCE / 3);
        }
        Self::open_with(move || {
            let config = config.clone();
            async move {
                let (client, connection) = config.connect(NoTls).await?;
                // It ends with the client, or with the connection, whose error the client's next call tells.
                drop(tokio::spawn(connection));
                Ok(client)
            }
        })
        .await
    }

    /// Takes the host's own way to connect, such as with TLS. It is gone whenever a connection is broken.
    ///
    /// # Errors
    ///
    /// As for [`PostgresStore::open`].
    pub async fn open_with<C, F>(connect: C) -> Result<Self, Error>
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Client, Error>> + Send + 'static,
    {
        let connect = Arc::new(move || -> Connecting { Box::pin(connect()) });
        let store = Self { connect, connection: Mutex::new(None), patience: PATIENCE };
        store.in_time(store.make_tables()).await?;
        Ok(store)
    }

    async fn make_tables(&self) -> Result<(), Error> {
        let mut client = (self.connect)().await?;
        migrate(&mut client).await?;
        let statements = Statements::prepare(&client).await?;
        *self.connection.lock().await = Some(Connection { client, statements });
        Ok(())
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let silent = || Error::Silent(u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX));
        tokio::time::timeout(self.patience, call).await.unwrap_or_else(|_| Err(silent()))
    }

    /// The connection, whose place is empty meanwhile: only a call that went well puts it back.
    async fn take(&self) -> Result<(MutexGuard<'_, Option<Connection>>, Connection), Error> {
        let mut place = self.connection.lock().await;
        let held = place.take().filter(|held| !held.client.is_closed());
        let connection = if let Some(held) = held {
            held
        } else {
            let client = (self.connect)().await?;
            let statements = Statements::prepare(&client).await?;
            Connection { client, statements }
        };
        Ok((place, connection))
    }

    /// Draws the number of a new life of an engine, which no life had before, however many processes start at once.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn next_life(&self) -> Result<Incarnation, Error> {
        self.draw(sql::LIFE, 1).await.map(Incarnation::new)
    }

    /// Draws `count` numbers for jobs and pipelines, which nobody was given before: the first of them.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn next_ids(&self, count: u32) -> Result<u64, Error> {
        self.draw(sql::IDS, count).await
    }

    async fn draw(&self, name: &str, count: u32) -> Result<u64, Error> {
        let rows = self.query(|statements| &statements.draw, &[&name, &i64::from(count)]).await?;
        let last = rows.first().map(|row| row.try_get(0)).transpose()?;
        Ok(first_of(last.unwrap_or_default(), count))
    }

    /// Makes several writes with one commit. Each is made whole or not at all, whatever becomes of the others.
    ///
    /// # Errors
    ///
    /// The database failed: nobody knows which of the writes were made.
    pub async fn write(&self, writes: &[Write<'_>]) -> Result<Vec<Written>, Error> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.in_time(async {
            let (mut place, mut held) = self.take().await?;
            let mut tries = 1;
            let told = loop {
                match held.write(writes).await {
                    Err(Error::Postgres(why)) if was_broken_off(&why) && tries < TRIES => tries += 1,
                    told => break told?,
                }
            };
            *place = Some(held);
            Ok(told)
        })
        .await
    }

    /// Reads rows afresh, all as they were at one moment; `written` are the changes that [`Want::Written`] asks about.
    ///
    /// # Errors
    ///
    /// The database failed, or a row cannot be decoded.
    pub async fn read(&self, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
        self.in_time(async {
            let (mut place, held) = self.take().await?;
            let rows = held.read(want, written).await?;
            *place = Some(held);
            Ok(rows)
        })
        .await
    }

    /// Reads every open pipeline with its plan, and every job that has not ended: what a new life of an engine loads.
    ///
    /// # Errors
    ///
    /// The database failed, or a row cannot be decoded.
    pub async fn open_rows(&self) -> Result<Vec<Row>, Error> {
        self.query(|statements| &statements.all_open, &[]).await?.iter().map(decoded).collect()
    }

    /// Makes a schedule, which fires for the first time after `now`: its number.
    ///
    /// # Errors
    ///
    /// The line or the zone is none, or the database failed.
    pub async fn put_schedule(&self, new: &NewSchedule, now: Timestamp) -> Result<u64, Error> {
        let schedule = new.begin(now)?;
        let (id, (last, next)) = (self.next_ids(1).await?, schedule::times(&schedule));
        let missed = i16::from(new.missed.code());
        let with: [&(dyn ToSql + Sync); 7] =
            [&id.cast_signed(), &new.cron, &new.zone, &missed, &last, &next, &new.payload];
        self.execute(|statements| &statements.put_schedule, &with).await?;
        Ok(id)
    }

    /// Ends a schedule; what it has started goes on. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn end_schedule(&self, id: u64) -> Result<bool, Error> {
        Ok(self.execute(|statements| &statements.end_schedule, &[&id.cast_signed()]).await? == 1)
    }

    /// Reads all schedules, by number.
    ///
    /// # Errors
    ///
    /// The database failed, or a row cannot be read.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, Error> {
        self.query(|statements| &statements.schedules, &[]).await?.iter().map(scheduled).collect()
    }

    /// Reads the first `limit` schedules whose next firing has come, the longest overdue first.
    ///
    /// # Errors
    ///
    /// The database failed, or a row cannot be read.
    pub async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<ScheduleRow>, Error> {
        let with: [&(dyn ToSql + Sync); 2] = [&now.as_millis().cast_signed(), &i64::from(limit)];
        self.query(|statements| &statements.due, &with).await?.iter().map(scheduled).collect()
    }

    async fn query(
        &self,
        which: fn(&Statements) -> &Statement,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<SqlRow>, Error> {
        self.in_time(async {
            let (mut place, held) = self.take().await?;
            let rows = held.client.query(which(&held.statements), with).await?;
            *place = Some(held);
            Ok(rows)
        })
        .await
    }

    async fn execute(&self, which: fn(&Statements) -> &Statement, with: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        self.in_time(async {
            let (mut place, held) = self.take().await?;
            let touched = held.client.execute(which(&held.statements), with).await?;
            *place = Some(held);
            Ok(touched)
        })
        .await
    }

    /// Reads every attempt of the first `limit` jobs from this one on, by number, ended ones too.
    ///
    /// # Errors
    ///
    /// The database failed, or a row cannot be decoded.
    pub async fn jobs(&self, from: JobId, limit: u32) -> Result<Vec<Row>, Error> {
        for (first, last) in halves(from.get()) {
            let with: [&(dyn ToSql + Sync); 3] = [&first, &last, &i64::from(limit)];
            let found = self.query(|statements| &statements.jobs, &with).await?;
            if !found.is_empty() {
                return found.iter().map(decoded).collect();
            }
        }
        Ok(Vec::new())
    }

    /// Reads what was written beside a job.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub async fn payload(&self, job: JobId) -> Result<Option<Vec<u8>>, Error> {
        let rows = self.query(|statements| &statements.payload, &[&job.get().cast_signed()]).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    }
}

impl Connection {
    /// All writes at once; if one of them met another, each by itself, so that the others are made.
    async fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, Error> {
        let puts = self.statements.puts();
        let tx = self.client.transaction().await?;
        if put_all(&tx, puts, writes).await? {
            tx.commit().await?;
            return Ok(vec![Written::Made; writes.len()]);
        }
        tx.rollback().await?;
        let mut all = self.client.transaction().await?;
        let mut made = Vec::with_capacity(writes.len());
        for write in writes {
            let one = all.savepoint("one").await?;
            let good = put_all(&one, puts, std::slice::from_ref(write)).await?;
            if good {
                one.commit().await?;
            } else {
                one.rollback().await?;
            }
            made.push(good);
        }
        all.commit().await?;
        let mut told = Vec::with_capacity(writes.len());
        for (good, write) in made.into_iter().zip(writes) {
            let fresh = if good { Written::Made } else { Written::Conflict(self.rows_of(write.changes).await?) };
            told.push(fresh);
        }
        Ok(told)
    }

    /// All of it as it was at one moment: what takes several statements is read from one snapshot.
    async fn read(&self, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
        if matches!(want, Want::Pipeline(_) | Want::Written(_) | Want::Owing { .. }) {
            return self.read_in_parts(want, written).await;
        }
        self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let found = self.read_in_parts(want, written).await?;
        self.client.batch_execute("COMMIT").await?;
        Ok(found)
    }

    async fn read_in_parts(&self, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
        match want {
            Want::Job(job) => {
                let mut found = self.rows(&self.statements.job, job.get().cast_signed()).await?;
                found.extend(self.at(&row::beside(&found)).await?);
                Ok(found)
            }
            Want::Pipeline(id) => self.rows(&self.statements.pipeline, id.get().cast_signed()).await,
            Want::Key(key) => {
                let mut found = self.at(&[Place::of(RowKey::Key(key))]).await?;
                if !found.is_empty() {
                    let mut jobs = self.rows(&self.statements.holders, key.get().cast_signed()).await?;
                    for job in row::named(&found) {
                        let named = self.rows(&self.statements.job, job).await?;
                        jobs.extend(named.into_iter().filter(|row| !jobs.contains(row)).collect::<Vec<_>>());
                    }
                    found.extend(jobs);
                }
                Ok(found)
            }
            Want::Written(_) => self.rows_of(written).await,
            Want::Open { from, limit } => {
                let (mut found, mut room) = (Vec::new(), limit);
                for (first, last) in halves(from.get()) {
                    let with: [&(dyn ToSql + Sync); 3] = [&first, &last, &i64::from(room)];
                    let half = self.client.query(&self.statements.open, &with).await?;
                    let half = half.iter().map(decoded).collect::<Result<Vec<_>, _>>()?;
                    room = room.saturating_sub(row::pipelines(&half));
                    found.extend(half);
                }
                Ok(found)
            }
            Want::Owing { limit } => self.rows(&self.statements.owing, i64::from(limit)).await,
            Want::Pool(id) => {
                let mut found = self.at(&[Place::of(RowKey::Pool(id))]).await?;
                found.extend(self.at(&row::sharers(&found)).await?);
                Ok(found)
            }
            Want::Charged { pool, life } => {
                let mut found = self.at(&[Place::of(RowKey::Life(life))]).await?;
                let jobs = self.rows(&self.statements.charged, life.get().cast_signed()).await?;
                found.extend(jobs.into_iter().filter(|row| row::is_charged(row, pool, life)));
                Ok(found)
            }
        }
    }

    async fn rows(&self, statement: &Statement, number: i64) -> Result<Vec<Row>, Error> {
        let rows = self.client.query(statement, &[&number]).await?;
        rows.iter().map(decoded).collect()
    }

    async fn rows_of(&self, changes: &[Change]) -> Result<Vec<Row>, Error> {
        let places: Vec<Place> = changes.iter().map(|change| Place::of(change.row.key())).collect();
        self.at(&places).await
    }

    async fn at(&self, at: &[Place]) -> Result<Vec<Row>, Error> {
        if at.is_empty() {
            return Ok(Vec::new());
        }
        let (kinds, ids, attempts) = places(at);
        let rows = self.client.query(&self.statements.at, &[&kinds, &ids, &attempts]).await?;
        rows.iter().map(decoded).collect()
    }
}

/// Puts rows in their places, inside a transaction of the host's: `false` if one has another version than expected, or
/// is there already. The host then rolls back.
///
/// # Errors
///
/// The database failed, or a row cannot be encoded. The host then rolls back, too.
pub async fn put(tx: &Transaction<'_>, changes: &[Change]) -> Result<bool, Error> {
    let puts = [columns::PUT_NEW, columns::PUT_OLD, columns::PUT_PAYLOADS, columns::GUARD, sql::MOVE_SCHEDULE];
    put_all(tx, puts, &[Write::of(changes)]).await
}

/// Puts the rows of all writes in their places, by the statements for new rows, for rows that are there, for payloads, for
/// guards and for schedules.
async fn put_all<S: ToStatement + ?Sized>(
    tx: &Transaction<'_>,
    [put_new, put_old, put_payloads, guard, move_schedule]: [&S; 5],
    writes: &[Write<'_>],
) -> Result<bool, Error> {
    let Puts { new, old, guards, payloads } = Puts::of(writes)?;
    // First, so that they stay as they are from here on.
    if guards.len() > 0 && tx.query(guard, &guards.versions()).await?.len() as u64 != guards.len() {
        return Ok(false);
    }
    if new.len() > 0 && tx.execute(put_new, &new.columns()).await? != new.len() {
        return Ok(false);
    }
    if old.len() > 0 && tx.execute(put_old, &old.columns()).await? != old.len() {
        return Ok(false);
    }
    if !payloads.0.is_empty() {
        tx.execute(put_payloads, &[&payloads.0, &payloads.1]).await?;
    }
    for Firing { schedule, version, decision } in writes.iter().filter_map(|write| write.firing) {
        let (last, next) = schedule::times(&decision.schedule);
        let with: [&(dyn ToSql + Sync); 4] = [&last, &next, &schedule.cast_signed(), &version.cast_signed()];
        if tx.execute(move_schedule, &with).await? != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the tables, or brings older ones up to date. Does nothing if they are.
///
/// # Errors
///
/// [`Error::NewerSchema`] if a newer program made them; nothing is changed.
pub async fn migrate(client: &mut Client) -> Result<(), Error> {
    let tx = client.transaction().await?;
    tx.batch_execute(LOCK).await?;
    tx.batch_execute(sql::MAKE_VERSION).await?;
    let found: i64 = tx.query_one(sql::VERSION, &[]).await?.try_get(0)?;
    let Some(missing) = usize::try_from(found).ok().and_then(|found| sql::MIGRATIONS.get(found..)) else {
        return Err(Error::NewerSchema { found, known: sql::NEWEST });
    };
    for (step, version) in missing.iter().zip(found + 1..) {
        tx.batch_execute(step).await?;
        tx.execute(sql::SET_VERSION, &[&version]).await?;
    }
    if !missing.is_empty() {
        tx.batch_execute(TUNE).await?;
    }
    Ok(tx.commit().await?)
}

/// The server took it back whole, to let another go on.
fn was_broken_off(why: &tokio_postgres::Error) -> bool {
    why.code()
        .is_some_and(|code| *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE)
}

/// A row of kind, id and bytes; where pools are asked for, with the database's clock.
fn decoded(row: &SqlRow) -> Result<Row, Error> {
    let clock = if row.len() > 3 { row.try_get::<_, i64>(3)? } else { 0 };
    row::decode(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, Timestamp::from_millis(clock.cast_unsigned()))
}

fn scheduled(r: &SqlRow) -> Result<ScheduleRow, Error> {
    let (numbers, times) = ((r.try_get(0)?, r.try_get(1)?), (r.try_get(5)?, r.try_get(6)?));
    schedule::row_of(numbers, (r.try_get(2)?, r.try_get(3)?, r.try_get(4)?), times, r.try_get(7)?)
}
