//! The judge of jobs: once, in order, none lost, and no more at once than was allowed.

use std::collections::BTreeMap;

use tenon_jobqueue::{Change, JobId, PipelineId, PipelineState, PoolId, Row, State};

use crate::ledger::Broken;

/// For how long after an operator's change the limit before it may still be used up, in ms.
const GRACE_MS: u64 = 60_000;

#[derive(Clone, Debug)]
struct Known {
    pipeline: PipelineId,
    /// Jobs that must have succeeded before it.
    needs: Vec<JobId>,
    state: State,
    succeeded: u32,
    waits_since: u64,
    pool: Option<PoolId>,
}

/// All jobs, as the database and the users know them.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobLedger {
    jobs: BTreeMap<JobId, Known>,
    /// Pipelines that a user was told are taken in, and whether they have ended.
    pipelines: BTreeMap<PipelineId, bool>,
    /// What may be out at once in each pool, and since when.
    limits: BTreeMap<PoolId, (u32, u64)>,
    out: BTreeMap<PoolId, u32>,
    /// Jobs that wait for a worker, or have one.
    busy: u64,
    pub(crate) results: u64,
    pub(crate) taken: u64,
    /// How long jobs waited, in ms, in classes of powers of two.
    pub(crate) waits: [u64; 32],
}

impl JobLedger {
    /// A user asks for a pipeline: its first job, then all in the middle, then the last.
    pub(crate) fn asked(&mut self, pipeline: PipelineId, jobs: &[JobId]) {
        let last = jobs.len() - 1;
        for (place, id) in jobs.iter().enumerate() {
            let needs = if place == 0 {
                Vec::new()
            } else if place == last {
                jobs[1..last].to_vec()
            } else {
                vec![jobs[0]]
            };
            let state = State::Unstart;
            self.jobs.insert(*id, Known { pipeline, needs, state, succeeded: 0, waits_since: 0, pool: None });
        }
    }

    /// The user was told that the pipeline is there.
    pub(crate) fn taken(&mut self, pipeline: PipelineId) {
        self.taken += 1;
        self.pipelines.entry(pipeline).or_insert(false);
    }

    pub(crate) fn set_limits(&mut self, now: u64, limits: &[(PoolId, u32)]) {
        for (pool, limit) in limits {
            self.limits.insert(*pool, (*limit, now));
        }
    }

    /// The database made a write.
    pub(crate) fn written(&mut self, now: u64, changes: &[Change]) -> Result<(), Broken> {
        for change in changes {
            match &change.row {
                Row::Job(job) => {
                    let pool = job.charged().map(|(pool, _)| pool);
                    self.job(now, job.id(), job.state, pool)?;
                }
                Row::Pipeline(pipeline) => {
                    let ended = pipeline.state() != PipelineState::Open;
                    let known = self.pipelines.entry(pipeline.id).or_insert(false);
                    *known = ended;
                }
                Row::Key(_) | Row::Plan(_) | Row::Pool(_) | Row::Life(_) => {}
            }
        }
        Ok(())
    }

    fn job(&mut self, now: u64, id: JobId, state: State, pool: Option<PoolId>) -> Result<(), Broken> {
        let Some(known) = self.jobs.get(&id) else { return Err(Broken(format!("job {id} was never asked for"))) };
        if state == State::Scheduled && known.state != State::Scheduled {
            let early = known.needs.iter().find(|need| self.jobs.get(need).is_none_or(|job| job.succeeded == 0));
            if let Some(need) = early {
                return Err(Broken(format!("job {id} is given out, and job {need} before it has not succeeded")));
            }
        }
        let Some(known) = self.jobs.get_mut(&id) else { return Ok(()) };
        match (known.state, state) {
            (was, State::Pending) if was != State::Pending => known.waits_since = now,
            (State::Pending, State::Scheduled) => {
                let waited = now.saturating_sub(known.waits_since);
                self.waits[usize::try_from(64 - waited.leading_zeros()).unwrap_or(0).min(31)] += 1;
            }
            _ => {}
        }
        if state == State::Succeeded {
            known.succeeded += 1;
            self.results += 1;
            if known.succeeded > 1 {
                return Err(Broken(format!("the result of job {id} was accepted {} times", known.succeeded)));
            }
        }
        let is_busy = |state: State, pool: Option<PoolId>| state == State::Pending || pool.is_some();
        let (was_busy, busy) = (is_busy(known.state, known.pool), is_busy(state, pool));
        self.busy = self.busy + u64::from(busy) - u64::from(was_busy);
        known.state = state;
        let before = std::mem::replace(&mut known.pool, pool);
        if before != pool {
            if let Some(old) = before {
                *self.out.entry(old).or_default() -= 1;
            }
            if let Some(new) = pool {
                let out = self.out.entry(new).or_default();
                *out += 1;
                let (limit, since) = self.limits.get(&new).copied().unwrap_or((0, 0));
                if *out > limit && now >= since + GRACE_MS {
                    return Err(Broken(format!("{out} jobs of pool {new} are out, and {limit} may be")));
                }
            }
        }
        Ok(())
    }

    /// Pipelines that are taken in and have not ended.
    pub(crate) fn open(&self) -> usize {
        self.pipelines.values().filter(|ended| !**ended).count()
    }

    /// Jobs that wait for a worker, or have one.
    pub(crate) const fn load(&self) -> u64 {
        self.busy
    }

    pub(crate) fn first_open(&self) -> Option<JobId> {
        let is_open = |job: &Known| self.pipelines.get(&job.pipeline) == Some(&false) && !job.state.is_terminal();
        self.jobs.iter().find(|(_, job)| is_open(job)).map(|(id, _)| *id)
    }
}
