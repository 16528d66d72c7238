//! What the store must hold: the same writes in memory.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Change, Job, JobId, JobKey, Key, KeyRow, Pipeline, PipelineId, PipelineState, Row, State, Version, Want};

#[derive(Debug, Default)]
pub(super) struct Truth {
    jobs: BTreeMap<JobKey, Job>,
    pipelines: BTreeMap<PipelineId, Pipeline>,
    keys: BTreeMap<Key, KeyRow>,
    /// How often a job's success was accepted.
    results: BTreeMap<JobId, u32>,
}

impl Truth {
    fn version(&self, row: &Row) -> Option<Version> {
        match row {
            Row::Job(job) => self.jobs.get(&job.key).map(|job| job.version),
            Row::Pipeline(row) => self.pipelines.get(&row.id).map(|row| row.version),
            Row::Key(row) => self.keys.get(&row.key).map(|row| row.version),
        }
    }

    pub(super) fn allows(&self, changes: &[Change]) -> bool {
        changes.iter().all(|change| self.version(&change.row) == change.expect)
    }

    /// Makes a write that is allowed.
    pub(super) fn make(&mut self, changes: &[Change]) -> Result<(), String> {
        for change in changes {
            match change.row {
                Row::Job(job) => {
                    let old = self.jobs.insert(job.key, job);
                    if old.is_some_and(|old| old.state.is_terminal()) {
                        return Err(format!("job {} left its end", job.id()));
                    }
                    if job.state == State::Succeeded {
                        let results = self.results.entry(job.id()).or_default();
                        *results += 1;
                        if *results > 1 {
                            return Err(format!("the result of job {} was accepted {results} times", job.id()));
                        }
                    }
                }
                Row::Pipeline(row) => drop(self.pipelines.insert(row.id, row)),
                Row::Key(row) => drop(self.keys.insert(row.key, row)),
            }
        }
        Ok(())
    }

    pub(super) fn results(&self) -> u32 {
        self.results.values().sum()
    }

    pub(super) fn latest(&self, id: JobId) -> Option<Job> {
        self.jobs.values().rfind(|job| job.id() == id).copied()
    }

    fn latest_of(&self, pipeline: PipelineId) -> impl Iterator<Item = Job> {
        let mut latest: BTreeMap<JobId, Job> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.pipeline == pipeline) {
            latest.insert(job.id(), *job);
        }
        latest.into_values()
    }

    /// What a store must answer; a job's key may come with it.
    pub(super) fn read(&self, want: Want, written: &[Change]) -> Vec<Row> {
        let pipeline = |id| self.pipelines.get(&id).copied().map(Row::Pipeline);
        match want {
            Want::Job(id) => {
                let job = self.latest(id);
                let with = job.and_then(|job| pipeline(job.pipeline));
                let key = job.and_then(|job| self.keys.get(&job.spec.key?).copied().map(Row::Key));
                job.map(Row::Job).into_iter().chain(with).chain(key).collect()
            }
            Want::Pipeline(id) => self.latest_of(id).map(Row::Job).chain(pipeline(id)).collect(),
            Want::Key(key) => self.keys.get(&key).copied().map(Row::Key).into_iter().collect(),
            Want::Written(_) => written.iter().filter_map(|change| self.row_of(&change.row)).collect(),
        }
    }

    fn row_of(&self, row: &Row) -> Option<Row> {
        match row {
            Row::Job(job) => self.jobs.get(&job.key).copied().map(Row::Job),
            Row::Pipeline(row) => self.pipelines.get(&row.id).copied().map(Row::Pipeline),
            Row::Key(row) => self.keys.get(&row.key).copied().map(Row::Key),
        }
    }

    pub(super) fn open_pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.pipelines.values().filter(|row| row.state() == PipelineState::Open)
    }

    /// Every row that a restart needs.
    pub(super) fn open_rows(&self) -> Vec<Row> {
        let jobs = self.jobs.values().filter(|job| !job.state.is_terminal()).copied().map(Row::Job);
        jobs.chain(self.open_pipelines().copied().map(Row::Pipeline)).collect()
    }

    pub(super) fn waiting(&self) -> Option<JobId> {
        self.jobs.values().find(|job| job.state == State::Suspended).map(Job::id)
    }

    /// Whether the rows that the store told are those that it must tell, in whatever order, and as they were written.
    /// Keys' rows may be left out where they were not asked for.
    pub(super) fn check(&self, asked: &str, told: &[Row], must: &[Row], keys: Keys) -> Result<(), String> {
        let spared = |row: &Row| keys == Keys::Optional && matches!(row, Row::Key(_));
        for row in must.iter().filter(|row| !spared(row)) {
            match told.iter().filter(|other| *other == row).count() {
                1 => {}
                0 => return Err(format!("{asked}: missing, or not as it was written: {row:?}; told were {told:?}")),
                _ => return Err(format!("{asked}: told twice: {row:?}")),
            }
        }
        let wrong = told.iter().find(|row| self.row_of(row) != Some(**row) || !(must.contains(row) || spared(row)));
        wrong.map_or(Ok(()), |row| Err(format!("{asked}: old, or not asked for: {row:?}")))
    }
}

/// Whether keys' rows must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    Asked,
    Optional,
}
