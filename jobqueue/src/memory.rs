//! A store in memory: all rows, written and read as a database must.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use crate::effect::{Change, Row, RowKey, Want};
use crate::id::{Attempt, Incarnation, JobId, JobKey, Key, PipelineId, PoolId, Version};
use crate::job::Job;
use crate::key::KeyRow;
use crate::pipeline::{Pipeline, PipelineState};
use crate::plan::Plan;
use crate::pool_row::{LifeRow, PoolRow};
use crate::time::Timestamp;

/// All rows of a queue, in memory: for tests, examples, and programs that need nothing durable.
///
/// It is also the model of what any other store must do: [`MemoryRows::write`] and [`MemoryRows::read`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryRows {
    /// All attempts of all jobs.
    pub jobs: BTreeMap<JobKey, Job>,
    /// All pipelines.
    pub pipelines: BTreeMap<PipelineId, Pipeline>,
    /// All keys.
    pub keys: BTreeMap<Key, KeyRow>,
    /// The plans of pipelines that have one.
    pub plans: BTreeMap<PipelineId, Plan>,
    /// All pools whose limit is shared.
    pub pools: BTreeMap<PoolId, PoolRow>,
    /// All lives of engines.
    pub lives: BTreeMap<Incarnation, LifeRow>,
    /// The time of the store's clock.
    pub clock: Timestamp,
    /// The jobs of each pipeline.
    of: BTreeSet<(PipelineId, JobId)>,
}

impl MemoryRows {
    /// The row with this primary key.
    #[must_use]
    pub fn get(&self, key: RowKey) -> Option<Row> {
        match key {
            RowKey::Job(key) => self.jobs.get(&key).copied().map(Row::Job),
            RowKey::Pipeline(id) => self.pipelines.get(&id).cloned().map(Row::Pipeline),
            RowKey::Key(key) => self.keys.get(&key).copied().map(Row::Key),
            RowKey::Plan(id) => self.plans.get(&id).cloned().map(Row::Plan),
            RowKey::Pool(id) => {
                let row = self.pools.get(&id).cloned();
                row.map(|row| Row::Pool(PoolRow { clock: self.clock, ..row }))
            }
            RowKey::Life(life) => self.lives.get(&life).copied().map(Row::Life),
        }
    }

    /// The version of the row with this primary key, if there is one.
    #[must_use]
    pub fn version(&self, key: RowKey) -> Option<Version> {
        match key {
            RowKey::Job(key) => self.jobs.get(&key).map(|row| row.version),
            RowKey::Pipeline(id) => self.pipelines.get(&id).map(|row| row.version),
            RowKey::Key(key) => self.keys.get(&key).map(|row| row.version),
            RowKey::Plan(id) => self.plans.get(&id).map(|row| row.version),
            RowKey::Pool(id) => self.pools.get(&id).map(|row| row.version),
            RowKey::Life(life) => self.lives.get(&life).map(|row| row.version),
        }
    }

    /// Whether each row has the version that the write expects.
    #[must_use]
    pub fn allows(&self, changes: &[Change]) -> bool {
        changes.iter().all(|change| self.version(change.row.key()) == change.expect)
    }

    /// Makes a write, all of it or nothing. Returns `false` if a row had another version.
    ///
    /// ```
    /// use tenon_jobqueue::memory::MemoryRows;
    /// use tenon_jobqueue::{Change, Key, KeyRow, Row};
    ///
    /// let mut db = MemoryRows::default();
    /// let insert = Change { expect: None, row: Row::Key(KeyRow::new(Key::new(5))) };
    /// assert!(db.write(&[insert.clone()]));
    /// assert!(!db.write(&[insert])); // the row exists now
    /// ```
    #[must_use = "a write that conflicts was not made"]
    pub fn write(&mut self, changes: &[Change]) -> bool {
        let allowed = self.allows(changes);
        for change in changes.iter().filter(|_| allowed) {
            self.put(change.row.clone());
        }
        allowed
    }

    /// Stores a row, whatever the version in its place.
    pub fn put(&mut self, row: Row) {
        match row {
            Row::Job(row) => {
                self.of.insert((row.pipeline, row.id()));
                self.jobs.insert(row.key, row);
            }
            Row::Pipeline(row) => drop(self.pipelines.insert(row.id, row)),
            Row::Key(row) => drop(self.keys.insert(row.key, row)),
            Row::Plan(row) => drop(self.plans.insert(row.pipeline, row)),
            Row::Pool(row) => drop(self.pools.insert(row.pool, row)),
            Row::Life(row) => drop(self.lives.insert(row.life, row)),
        }
    }

    /// The latest attempt of a job.
    #[must_use]
    pub fn latest(&self, job: JobId) -> Option<Job> {
        let all = JobKey { job, attempt: Attempt::new(0) }..=JobKey { job, attempt: Attempt::new(u32::MAX) };
        self.jobs.range(all).next_back().map(|(_, row)| *row)
    }

    /// The latest attempt of each job of a pipeline, by id.
    pub fn jobs_of(&self, pipeline: PipelineId) -> impl Iterator<Item = Job> {
        let all = (pipeline, JobId::new(0))..=(pipeline, JobId::new(u64::MAX));
        self.of.range(all).filter_map(|(_, job)| self.latest(*job))
    }

    /// Reads the wanted rows. `written` are the changes that [`Want::Written`] asks about.
    #[must_use]
    pub fn read(&self, want: Want, written: &[Change]) -> Vec<Row> {
        match want {
            Want::Job(id) => {
                let Some(job) = self.latest(id) else { return Vec::new() };
                let keys = [RowKey::Pipeline(job.pipeline), RowKey::Plan(job.pipeline)];
                let more = keys.into_iter().chain(job.spec.key.map(RowKey::Key));
                [Row::Job(job)].into_iter().chain(more.filter_map(|key| self.get(key))).collect()
            }
            Want::Pipeline(id) => {
                let more = [RowKey::Pipeline(id), RowKey::Plan(id)].into_iter().filter_map(|key| self.get(key));
                self.jobs_of(id).map(Row::Job).chain(more).collect()
            }
            Want::Key(key) => self.key(key),
            Want::Written(_) => written.iter().filter_map(|change| self.get(change.row.key())).collect(),
            Want::Open { from, limit } => {
                let rest = self.pipelines.range((Bound::Included(from), Bound::Unbounded)).map(|(_, row)| row);
                self.whole(rest.filter(|row| row.state() == PipelineState::Open).take(limit as usize))
            }
            Want::Owing { limit } => {
                let owing = |row: &&Pipeline| row.owes && row.state() == PipelineState::Open;
                self.whole(self.pipelines.values().filter(owing).take(limit as usize))
            }
            Want::Pool(id) => {
                let pool = self.get(RowKey::Pool(id));
                let shares = self.pools.get(&id).into_iter().flat_map(|row| &row.shares);
                let lives = shares.filter_map(|share| self.get(RowKey::Life(share.life)));
                pool.into_iter().chain(lives).collect()
            }
            Want::Charged { pool, life } => {
                let charged = self.jobs.values().filter(|job| job.charged() == Some((pool, life)));
                self.get(RowKey::Life(life)).into_iter().chain(charged.copied().map(Row::Job)).collect()
            }
        }
    }

    /// A key, with the jobs that it names or that hold it.
    fn key(&self, key: Key) -> Vec<Row> {
        let Some(row) = self.keys.get(&key) else { return Vec::new() };
        let holders = self.jobs.values().filter(|job| job.held_key() == Some(key)).map(Job::id);
        let jobs: BTreeSet<JobId> = row.names().chain(holders).collect();
        let jobs = jobs.into_iter().filter_map(|job| self.latest(job));
        [Row::Key(*row)].into_iter().chain(jobs.map(Row::Job)).collect()
    }

    /// Pipelines, with their plans and the jobs that have not ended.
    fn whole<'a>(&'a self, pipelines: impl Iterator<Item = &'a Pipeline>) -> Vec<Row> {
        let mut rows = Vec::new();
        for row in pipelines {
            rows.push(Row::Pipeline(row.clone()));
            rows.extend(self.get(RowKey::Plan(row.id)));
            rows.extend(self.jobs_of(row.id).filter(|job| !job.state.is_terminal()).map(Row::Job));
        }
        rows
    }

    /// All open pipelines with their plans, and all unfinished jobs: the rows that a new life of an engine loads.
    #[must_use]
    pub fn open(&self) -> Vec<Row> {
        let open = |row: &&Pipeline| row.state() == PipelineState::Open;
        let mut rows = self.whole(self.pipelines.values().filter(open));
        // A manual job that nobody waits for may outlive its pipeline.
        let lost = |job: &&Job| {
            let pipeline = self.pipelines.get(&job.pipeline);
            !job.state.is_terminal() && pipeline.is_none_or(|row| row.state() != PipelineState::Open)
        };
        rows.extend(self.jobs.values().filter(lost).copied().map(Row::Job));
        rows
    }
}
