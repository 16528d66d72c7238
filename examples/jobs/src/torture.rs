//! The store under the queue's host kit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;

use rusqlite::TransactionBehavior;
use tenon_jobqueue::testkit::{JobStore, Report, Written, torture};
use tenon_jobqueue::{Change, Incarnation, Row, Want};

use crate::store::{Store, put};

struct Tables {
    folder: tempfile::TempDir,
    store: Store,
}

impl JobStore for Tables {
    type Error = anyhow::Error;

    fn write(&mut self, changes: &[Change]) -> Result<Written, anyhow::Error> {
        Ok(if self.store.write(changes)? { Written::Made } else { Written::Conflict })
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, anyhow::Error> {
        self.store.read(want, written)
    }

    fn open_rows(&mut self) -> Result<Vec<Row>, anyhow::Error> {
        self.store.rows("open", [])
    }

    fn next_life(&mut self) -> Result<Incarnation, anyhow::Error> {
        self.store.next_life()
    }

    /// What is in the files at this moment, with a transaction under way, is what the next process finds.
    fn crash(&mut self, cut: Option<&[Change]>) -> Result<(), anyhow::Error> {
        let next = tempfile::tempdir()?;
        {
            let under_way = self.store.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for change in cut.unwrap_or_default() {
                assert_eq!(put(&under_way, change)?, 1);
            }
            for file in ["jobs.db", "jobs.db-wal"] {
                fs::copy(self.folder.path().join(file), next.path().join(file))?;
            }
        }
        *self = Self { store: Store::open(&next.path().join("jobs.db"))?, folder: next };
        Ok(())
    }
}

#[test]
fn the_store_keeps_jobs_through_everything() {
    let mut all = Report::default();
    for seed in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("jobs.db")).unwrap();
        all += torture(&mut Tables { folder, store }, seed, 400).unwrap_or_else(|broken| panic!("{broken}"));
    }
    let counts = [all.conflicts, all.unknown, all.late, all.deaths, all.crashes, all.results, all.refused];
    assert!(counts.iter().all(|count| *count > 0) && all.writes > 300, "too little happened: {all:?}");
}
