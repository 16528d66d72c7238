//! The host kit passes a good store and finds out each way in which a store can be bad.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use tenon_jobqueue::testkit::{JobStore, Report, Written, torture};
use tenon_jobqueue::{
    Change, Incarnation, Job, JobId, JobKey, Key, KeyRow, Pipeline, PipelineId, PipelineState, Row, State, Version,
    Want, WriteId,
};

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
    jobs: BTreeMap<JobKey, Job>,
    pipelines: BTreeMap<PipelineId, Pipeline>,
    keys: BTreeMap<Key, KeyRow>,
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

    fn key(&self, key: Key) -> Key {
        if self.fault == Fault::CutsKeysTo63Bits { Key::new(key.get() & (u64::MAX >> 1)) } else { key }
    }

    fn version(&self, row: &Row) -> Option<Version> {
        match row {
            Row::Job(job) => self.tables.jobs.get(&job.key).map(|job| job.version),
            Row::Pipeline(row) => self.tables.pipelines.get(&row.id).map(|row| row.version),
            Row::Key(row) => self.tables.keys.get(&self.key(row.key)).map(|row| row.version),
        }
    }

    fn may(&self, change: &Change) -> bool {
        match self.fault {
            Fault::IgnoresVersions => self.version(&change.row).is_some() == change.expect.is_some(),
            Fault::IgnoresVersionsOfKeys if matches!(change.row, Row::Key(_)) => true,
            Fault::Upserts if change.expect.is_none() => true,
            _ => self.version(&change.row) == change.expect,
        }
    }

    fn put(&mut self, row: &Row) {
        match *row {
            Row::Job(mut job) => {
                if self.fault == Fault::ForgetsWhoWrote {
                    job.write = WriteId::default();
                }
                self.tables.jobs.insert(job.key, job);
            }
            Row::Pipeline(row) => drop(self.tables.pipelines.insert(row.id, row)),
            Row::Key(mut row) => {
                row.key = self.key(row.key);
                self.tables.keys.insert(row.key, row);
            }
        }
    }

    fn latest(&self, id: JobId) -> Option<Job> {
        let mut attempts = self.tables.jobs.values().filter(|job| job.id() == id);
        if self.fault == Fault::ReadsTheFirstAttempt { attempts.next() } else { attempts.next_back() }.copied()
    }

    fn fresh(&self, changes: &[Change]) -> Vec<Row> {
        let rows = changes.iter().filter_map(|change| match change.row {
            Row::Job(job) => self.tables.jobs.get(&job.key).copied().map(Row::Job),
            Row::Pipeline(row) => self.tables.pipelines.get(&row.id).copied().map(Row::Pipeline),
            Row::Key(row) => self.tables.keys.get(&self.key(row.key)).copied().map(Row::Key),
        });
        rows.collect()
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
        let pipeline = |id: PipelineId| self.tables.pipelines.get(&id).copied().map(Row::Pipeline);
        Ok(match want {
            Want::Job(id) => {
                let Some(mut job) = self.latest(id) else { return Ok(Vec::new()) };
                if self.fault == Fault::ReadsFromACache {
                    job = *self.cache.entry(id).or_insert(job);
                }
                [Row::Job(job)].into_iter().chain(pipeline(job.pipeline)).collect()
            }
            Want::Pipeline(id) => {
                let mut jobs: Vec<JobId> =
                    self.tables.jobs.values().filter(|job| job.pipeline == id).map(Job::id).collect();
                jobs.dedup();
                let jobs = jobs.into_iter().filter_map(|job| self.latest(job)).map(Row::Job);
                jobs.chain(pipeline(id)).collect()
            }
            Want::Key(key) => self.tables.keys.get(&self.key(key)).copied().map(Row::Key).into_iter().collect(),
            Want::Written(_) => self.fresh(written),
        })
    }

    fn open_rows(&mut self) -> Result<Vec<Row>, String> {
        let open = |job: &&Job| match self.fault {
            Fault::ForgetsTheSuspended => !job.state.is_terminal() && job.state != State::Suspended,
            Fault::TellsTheEndedToo => true,
            _ => !job.state.is_terminal(),
        };
        let jobs = self.tables.jobs.values().filter(open).copied().map(Row::Job);
        let pipelines = self.tables.pipelines.values().filter(|row| row.state() == PipelineState::Open);
        Ok(jobs.chain(pipelines.copied().map(Row::Pipeline)).collect())
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
