//! The pipelines' store under the queue's host kit: conflicts, lost replies, writes that come late, engines that die
//! between a write and its commit, and the process killed in the middle of one.

use std::fs;

use rusqlite::TransactionBehavior;
use tenon_jobqueue::testkit::{JobStore, Report, Written as Outcome, torture};
use tenon_jobqueue::{Change, Incarnation, JobId, Row, Want};

use super::{Birth, BirthOf, CiFile, CiStore, CiStoreError, Cursor, Write, Written, rows};

/// The store as the task centre uses it.
struct Tables {
    folder: tempfile::TempDir,
    store: CiStore,
    /// What of it a crash leaves.
    files: &'static [&'static str],
}

impl Tables {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = CiStore::open(&folder.path().join("store.db")).unwrap();
        Self { folder, store, files: &["store.db", "store.db-wal"] }
    }
}

/// A new pipeline is born of a push; each of a repository of its own here, whose cursor nothing else moves.
fn with_birth(changes: &[Change]) -> Write {
    let new = changes.iter().filter(|change| change.expect.is_none()).find_map(|change| change.row.as_pipeline());
    let jobs: Vec<JobId> = changes.iter().filter_map(|change| Some(change.row.as_job()?.id())).collect();
    let birth = new.map(|row| Birth {
        pipeline: row.id,
        repo: row.id.get(),
        reference: "refs/heads/main".into(),
        hash: "1".repeat(40),
        subject: "a push".into(),
        pushed: 1,
        created_ms: row.created.as_millis(),
        what: BirthOf::Jobs(CiFile::parse("a: {script: x}").unwrap(), jobs),
        cursor: (Cursor::default(), Cursor { version: 1, part: 0 }),
    });
    Write { changes: changes.to_vec(), birth }
}

impl JobStore for Tables {
    type Error = CiStoreError;

    fn write(&mut self, changes: &[Change]) -> Result<Outcome, CiStoreError> {
        let told = self.store.write(&[with_birth(changes)])?;
        Ok(if told == [Written::Committed] { Outcome::Made } else { Outcome::Conflict })
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, CiStoreError> {
        self.store.fetch(want, written)
    }

    fn open_rows(&mut self) -> Result<Vec<Row>, CiStoreError> {
        self.store.open_rows()
    }

    fn next_life(&mut self) -> Result<Incarnation, CiStoreError> {
        self.store.count_up("engine").map(Incarnation::new)
    }

    /// What is in the files at this moment, with a transaction under way, is what the next process finds.
    fn crash(&mut self, cut: Option<&[Change]>) -> Result<(), CiStoreError> {
        let next = tempfile::tempdir().unwrap();
        {
            let mut connection = self.store.lock();
            let under_way = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some(changes) = cut {
                assert!(rows::apply(&under_way, &with_birth(changes))?);
            }
            for file in self.files {
                let (from, to) = (self.folder.path().join(file), next.path().join(file));
                if from.exists() {
                    fs::copy(from, to).unwrap();
                }
            }
        }
        self.store = CiStore::open(&next.path().join("store.db"))?;
        self.folder = next;
        Ok(())
    }
}

#[test]
fn the_store_keeps_pipelines_through_everything() {
    let mut all = Report::default();
    for seed in 0..5 {
        all += torture(&mut Tables::new(), seed, 400).unwrap_or_else(|broken| panic!("{broken}"));
    }
    let counts = [all.writes, all.conflicts, all.unknown + all.late, all.deaths, all.crashes, all.results, all.refused];
    assert!(counts.iter().all(|count| *count > 0) && all.writes > 300, "too little happened: {all:?}");
}

/// The kit catches a store that loses what is not yet in its main file: without that, its silence would mean nothing.
#[test]
fn a_store_that_forgets_its_log_is_caught() {
    let forgetful = || Tables { files: &["store.db"], ..Tables::new() };
    assert!((0..4).any(|seed| torture(&mut forgetful(), seed, 250).is_err()));
}
