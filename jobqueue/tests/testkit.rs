//! The host kit passes a good store and finds out each way in which a store can be bad.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use tenon_jobqueue::memory::MemoryRows;
use tenon_jobqueue::testkit::{JobStore, Report, Written, torture};
use tenon_jobqueue::{Attempt, Change, Incarnation, Job, JobId, JobKey, Key, Row, RowKey, State, Want, WriteId};

/// How a store misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    IgnoresVersions,
    IgnoresVersionsOfKeys,
    Upserts,
    WritesHalf,
    CutsInHalf,
    SwallowsConflicts,
    LosesTheLastWrite,
    ReadsFromACache,
    ReadsTheFirstAttempt,
    ForgetsTheSuspended,
    ForgetsWhoWrote,
    TellsTheEndedToo,
    RepeatsLives,
    CutsKeysTo63Bits,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    rows: MemoryRows,
    lives: u64,
}

struct Store {
    fault: Fault,
    tables: Tables,
    /// As it was before the last write.
    before: Tables,
    /// Each job as it was first seen.
    cache: BTreeMap<JobId, Job>,
}

impl Store {
    fn new(fault: Fault) -> Self {
        Self { fault, tables: Tables::default(), before: Tables::default(), cache: BTreeMap::new() }
    }

    /// The key that the store takes a row's for.
    fn key(&self, key: RowKey) -> RowKey {
        match key {
            RowKey::Key(key) if self.fault == Fault::CutsKeysTo63Bits => {
                RowKey::Key(Key::new(key.get() & (u64::MAX >> 1)))
            }
            _ => key,
        }
    }

    fn may(&self, change: &Change) -> bool {
        let version = self.tables.rows.version(self.key(change.row.key()));
        match self.fault {
            Fault::IgnoresVersions => version.is_some() == change.expect.is_some(),
            Fault::IgnoresVersionsOfKeys if matches!(change.row, Row::Key(_)) => true,
            Fault::Upserts if change.expect.is_none() => true,
            _ => version == change.expect,
        }
    }

    fn put(&mut self, row: &Row) {
        let mut row = row.clone();
        match &mut row {
            Row::Job(job) if self.fault == Fault::ForgetsWhoWrote => job.write = WriteId::default(),
            Row::Key(row) => {
                if let RowKey::Key(key) = self.key(RowKey::Key(row.key)) {
                    row.key = key;
                }
            }
            _ => {}
        }
        self.tables.rows.put(row);
    }

    fn first(&self, row: Row) -> Row {
        let first = |key: JobKey| JobKey { attempt: Attempt::FIRST, ..key };
        match row {
            Row::Job(job) => self.tables.rows.get(RowKey::Job(first(job.key))).unwrap_or(row),
            _ => row,
        }
    }
}

impl JobStore for Store {
    type Error = String;

    fn write(&mut self, changes: &[Change]) -> Result<Written, String> {
        let before = self.tables.clone();
        for change in changes {
            if self.may(change) {
                self.put(&change.row);
                continue;
            }
            if self.fault != Fault::WritesHalf {
                self.tables = before;
            }
            let swallows = self.fault == Fault::SwallowsConflicts;
            return Ok(if swallows { Written::Made } else { Written::Conflict });
        }
        self.before = before;
        Ok(Written::Made)
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Result<Vec<Row>, String> {
        let want = match want {
            Want::Key(key) => match self.key(RowKey::Key(key)) {
                RowKey::Key(key) => Want::Key(key),
                _ => want,
            },
            _ => want,
        };
        let mut rows = self.tables.rows.read(want, written);
        if matches!(want, Want::Written(_)) {
            rows = written.iter().filter_map(|change| self.tables.rows.get(self.key(change.row.key()))).collect();
        } else if self.fault == Fault::ReadsTheFirstAttempt {
            rows = rows.into_iter().map(|row| self.first(row)).collect();
        } else if let (Fault::ReadsFromACache, Some(Row::Job(job))) = (self.fault, rows.first_mut()) {
            *job = *self.cache.entry(job.id()).or_insert(*job);
        }
        Ok(rows)
    }

    fn open_rows(&mut self) -> Result<Vec<Row>, String> {
        let mut rows = self.tables.rows.open();
        match self.fault {
            Fault::ForgetsTheSuspended => {
                rows.retain(|row| row.as_job().is_none_or(|job| job.state != State::Suspended));
            }
            Fault::TellsTheEndedToo => {
                let ended = self.tables.rows.jobs.values().filter(|job| job.state.is_terminal());
                rows.extend(ended.copied().map(Row::Job));
            }
            _ => {}
        }
        Ok(rows)
    }

    fn next_life(&mut self) -> Result<Incarnation, String> {
        self.tables.lives += 1;
        let lives = if self.fault == Fault::RepeatsLives { self.tables.lives.min(3) } else { self.tables.lives };
        Ok(Incarnation::new(lives))
    }

    fn crash(&mut self, cut: Option<&[Change]>) -> Result<(), String> {
        if self.fault == Fault::LosesTheLastWrite {
            let lives = self.tables.lives;
            self.tables = Tables { lives, ..self.before.clone() };
        }
        if let (Some(changes), Fault::CutsInHalf) = (cut, self.fault) {
            self.put(&changes[0].row);
        }
        self.cache.clear();
        Ok(())
    }
}

#[test]
fn a_good_store_passes_and_all_that_can_happen_did() {
    let mut all = Report::default();
    for seed in 0..30 {
        all += torture(&mut Store::new(Fault::None), seed, 600).unwrap_or_else(|broken| panic!("{broken}"));
    }
    let counts = [all.writes, all.conflicts, all.unknown, all.late, all.deaths, all.crashes, all.results, all.refused];
    assert!(counts.iter().all(|count| *count > 50), "{all:?}");
}

#[test]
fn each_fault_is_found() {
    let faults = [
        Fault::IgnoresVersions,
        Fault::IgnoresVersionsOfKeys,
        Fault::Upserts,
        Fault::WritesHalf,
        Fault::CutsInHalf,
        Fault::SwallowsConflicts,
        Fault::LosesTheLastWrite,
        Fault::ReadsFromACache,
        Fault::ReadsTheFirstAttempt,
        Fault::ForgetsTheSuspended,
        Fault::ForgetsWhoWrote,
        Fault::TellsTheEndedToo,
        Fault::RepeatsLives,
        Fault::CutsKeysTo63Bits,
    ];
    for fault in faults {
        let found = (0..20).find_map(|seed| torture(&mut Store::new(fault), seed, 400).err());
        assert!(found.is_some(), "{fault:?} was not found out");
    }
}
