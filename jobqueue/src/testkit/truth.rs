//! The oracle of the store: the same writes in memory.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::memory::MemoryRows;
use crate::{Change, Job, JobId, Pipeline, PipelineState, PoolRow, Row, State, Timestamp, Want};

#[derive(Debug, Default)]
pub(super) struct Truth {
    rows: MemoryRows,
    /// How often a job's success was accepted.
    results: BTreeMap<JobId, u32>,
}

impl Truth {
    pub(super) fn allows(&self, changes: &[Change]) -> bool {
        self.rows.allows(changes)
    }

    /// Makes a write that is allowed.
    pub(super) fn make(&mut self, changes: &[Change]) -> Result<(), String> {
        for change in changes {
            if let Row::Job(job) = &change.row {
                let old = self.rows.jobs.get(&job.key);
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
            self.rows.put(change.row.clone());
        }
        Ok(())
    }

    pub(super) fn results(&self) -> u32 {
        self.results.values().sum()
    }

    /// The rows that a store must answer.
    pub(super) fn read(&self, want: Want, written: &[Change]) -> Vec<Row> {
        self.rows.read(want, written)
    }

    pub(super) fn open_pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.rows.pipelines.values().filter(|row| row.state() == PipelineState::Open)
    }

    /// Every row that a restart needs.
    pub(super) fn open_rows(&self) -> Vec<Row> {
        self.rows.open()
    }

    pub(super) fn waiting(&self) -> Option<JobId> {
        self.rows.jobs.values().find(|job| job.state == State::Suspended).map(Job::id)
    }

    /// Whether the rows that the store told are those that it must tell, in whatever order, and as they were written.
    /// Keys' rows may be left out where they were not asked for.
    pub(super) fn check(&self, asked: &str, told: &[Row], must: &[Row], keys: Keys) -> Result<(), String> {
        let spared = |row: &Row| keys == Keys::Optional && matches!(row, Row::Key(_));
        // A store fills in its own clock.
        let told: Vec<Row> = told.iter().cloned().map(untimed).collect();
        let must: Vec<Row> = must.iter().cloned().map(untimed).collect();
        for row in must.iter().filter(|row| !spared(row)) {
            match told.iter().filter(|other| *other == row).count() {
                1 => {}
                0 => return Err(format!("{asked}: missing, or not as it was written: {row:?}; told were {told:?}")),
                _ => return Err(format!("{asked}: told twice: {row:?}")),
            }
        }
        let wrong = told
            .iter()
            .find(|row| self.rows.get(row.key()).as_ref() != Some(*row) || !(must.contains(row) || spared(row)));
        wrong.map_or(Ok(()), |row| Err(format!("{asked}: old, or not asked for: {row:?}")))
    }
}

/// The row without what the store's clock says.
fn untimed(row: Row) -> Row {
    if let Row::Pool(row) = row { Row::Pool(PoolRow { clock: Timestamp::ZERO, ..row }) } else { row }
}

/// Whether keys' rows must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    Asked,
    Optional,
}
