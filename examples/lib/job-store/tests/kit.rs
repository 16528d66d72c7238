//! Each store under the queue's host kit: lost replies, conflicts, writes that come late, engines that die between a
//! write and its commit, and the process, or the server, killed in the middle of a write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;

use job_store::server::{Server, Stop};
use job_store::{BlockingPostgresStore, Error, SqliteStore, Store, Write, postgres, sqlite};
use rusqlite::TransactionBehavior;
use tenon_jobqueue::testkit::{JobStore, Report, Written, torture};
use tenon_jobqueue::{Change, Incarnation, Row, Ticket, Timestamp, Want};

/// A store, and how it is killed and started again.
struct Tables<S, C> {
    store: S,
    crash: C,
}

impl<S: Store, C: FnMut(&mut S, Option<&[Change]>)> JobStore for Tables<S, C> {
    type Error = Error;

    fn write(&mut self, changes: &[Change]) -> Result<Written, Error> {
        // With a payload for each new job, as hosts do.
        let new = changes.iter().filter(|change| change.expect.is_none());
        let jobs = new.filter_map(|change| Some((change.row.as_job()?.id(), &b"a command"[..])));
        let payloads: Vec<_> = jobs.collect();
        let told = self.store.write(&[Write { payloads: &payloads, ..Write::of(changes) }])?;
        if told[0].is_made() {
            return Ok(Written::Made);
        }
        // But for what the database's clock says.
        let sorted = |rows: &[Row]| {
            let mut rows: Vec<Row> = rows.iter().map(|row| row.clone().read_at(Timestamp::ZERO)).collect();
            rows.sort_by_key(|row| format!("{row:?}"));
            rows
        };
        let fresh = sorted(&self.store.read(Want::Written(Ticket::default()), changes)?);
        let told = sorted(told[0].fresh());
        assert_eq!(told, fresh, "a conflict tells the rows as they are");
        Ok(Written::Conflict)
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, Error> {
        self.store.read(want, written)
    }

    fn open_rows(&mut self) -> Result<Vec<Row>, Error> {
        self.store.open_rows()
    }

    fn next_life(&mut self) -> Result<Incarnation, Error> {
        self.store.next_life()
    }

    fn crash(&mut self, cut: Option<&[Change]>) -> Result<(), Error> {
        (self.crash)(&mut self.store, cut);
        Ok(())
    }
}

fn assert_much_happened(all: Report) {
    let counts = [all.conflicts, all.unknown, all.late, all.deaths, all.crashes, all.results, all.refused];
    assert!(counts.iter().all(|count| *count > 0) && all.writes > 150, "too little happened: {all:?}");
}

/// What is in the files at this moment, with a transaction under way, is what the next process finds.
fn crash_sqlite(folder: &mut tempfile::TempDir, store: &mut SqliteStore, cut: Option<&[Change]>, files: &[&str]) {
    let next = tempfile::tempdir().unwrap();
    {
        let connection = store.connection();
        let under_way = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        assert!(sqlite::put(&under_way, cut.unwrap_or_default()).unwrap());
        for file in files {
            let (from, to) = (folder.path().join(file), next.path().join(file));
            if from.exists() {
                fs::copy(from, to).unwrap();
            }
        }
    }
    *store = SqliteStore::open(&next.path().join("queue.db")).unwrap();
    *folder = next;
}

fn torture_sqlite(seed: u64, steps: usize, files: &'static [&str]) -> Result<Report, String> {
    let mut folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("queue.db")).unwrap();
    let crash = move |store: &mut SqliteStore, cut: Option<&[Change]>| crash_sqlite(&mut folder, store, cut, files);
    torture(&mut Tables { store, crash }, seed, steps).map_err(|broken| broken.to_string())
}

#[test]
fn sqlite_keeps_jobs_through_everything() {
    let mut all = Report::default();
    for seed in 0..5 {
        all += torture_sqlite(seed, 400, &["queue.db", "queue.db-wal"]).unwrap_or_else(|broken| panic!("{broken}"));
    }
    assert_much_happened(all);
}

/// The kit catches a store that loses what is not yet in its main file: without that, its silence would mean nothing.
#[test]
fn a_sqlite_without_its_log_is_caught() {
    assert!((0..4).any(|seed| torture_sqlite(seed, 250, &["queue.db"]).is_err()));
}

/// A connection breaks in the middle of the write; now and then the whole server is killed.
fn crash_postgres(server: &mut Server, url: &str, crashes: &mut u32, cut: Option<&[Change]>) {
    if let Some(changes) = cut {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
            drop(tokio::spawn(connection));
            let under_way = client.transaction().await.unwrap();
            assert!(postgres::put(&under_way, changes).await.unwrap());
            // Nobody commits; the connection ends with the runtime.
            std::mem::forget(under_way);
        });
    }
    *crashes += 1;
    if crashes.is_multiple_of(8) {
        server.stop(Stop::Kill).unwrap();
        server.run().unwrap();
    }
}

#[test]
fn postgres_keeps_jobs_through_everything() {
    let name = "postgres_keeps_jobs_through_everything";
    let Some(mut server) = Server::start_or_skip(name).unwrap() else { return };
    let mut all = Report::default();
    for seed in 0..2 {
        let url = server.database(&format!("seed{seed}")).unwrap();
        let (mut crashes, server) = (0, &mut server);
        let store = BlockingPostgresStore::open(&url).unwrap();
        let crash = |store: &mut BlockingPostgresStore, cut: Option<&[Change]>| {
            crash_postgres(server, &url, &mut crashes, cut);
            *store = BlockingPostgresStore::open(&url).unwrap();
        };
        all += torture(&mut Tables { store, crash }, seed, 300).unwrap_or_else(|broken| panic!("{broken}"));
    }
    assert_much_happened(all);
}
