//! The same store for threads that may block.

use tenon_jobqueue::{Change, Incarnation, JobId, Row, Timestamp, Want};
use tokio::runtime::{Builder, Runtime};

use super::PostgresStore;
use crate::schedule::{NewSchedule, ScheduleRow};
use crate::{Error, Store, Write, Written};

/// The store for threads that may block; it must not be called from within an async runtime.
#[derive(Debug)]
pub struct BlockingPostgresStore {
    store: PostgresStore,
    runtime: Runtime,
}

impl BlockingPostgresStore {
    /// Connects, without TLS, and makes the tables or brings older ones up to date.
    ///
    /// # Errors
    ///
    /// As for [`PostgresStore::open`].
    pub fn open(url: &str) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(PostgresStore::open(url))?;
        Ok(Self { store, runtime })
    }
}

impl Store for BlockingPostgresStore {
    fn next_life(&mut self) -> Result<Incarnation, Error> {
        self.runtime.block_on(self.store.next_life())
    }

    fn next_ids(&mut self, count: u32) -> Result<u64, Error> {
        self.runtime.block_on(self.store.next_ids(count))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<Vec<Written>, Error> {
        self.runtime.block_on(self.store.write(writes))
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
        self.runtime.block_on(self.store.read(want, written))
    }

    fn open_rows(&mut self) -> Result<Vec<Row>, Error> {
        self.runtime.block_on(self.store.open_rows())
    }

    fn put_schedule(&mut self, new: &NewSchedule, now: Timestamp) -> Result<u64, Error> {
        self.runtime.block_on(self.store.put_schedule(new, now))
    }

    fn end_schedule(&mut self, id: u64) -> Result<bool, Error> {
        self.runtime.block_on(self.store.end_schedule(id))
    }

    fn schedules(&mut self) -> Result<Vec<ScheduleRow>, Error> {
        self.runtime.block_on(self.store.schedules())
    }

    fn due(&mut self, now: Timestamp, limit: u32) -> Result<Vec<ScheduleRow>, Error> {
        self.runtime.block_on(self.store.due(now, limit))
    }

    fn jobs(&mut self, from: JobId, limit: u32) -> Result<Vec<Row>, Error> {
        self.runtime.block_on(self.store.jobs(from, limit))
    }

    fn payload(&mut self, job: JobId) -> Result<Option<Vec<u8>>, Error> {
        self.runtime.block_on(self.store.payload(job))
    }
}
