//! Rows from outside: read, loaded, compensated.

use super::call::{job_row, pipeline_row};
use super::{Engine, Purpose};
use crate::config::Limits;
use crate::effect::Row;
use crate::id::{AskId, PipelineId};
use crate::job::Job;
use crate::pipeline::{Pipeline, PipelineState};
use crate::store::NONE;
use crate::time::Timestamp;

/// The result of a pass of compensation.
#[must_use = "rows that did not fit must be supplied again"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compensated {
    /// The number of rows that were newer than those known, or not known at all.
    pub taken: u32,
    /// The number of rows that contradict themselves. They were left alone.
    pub broken: u32,
    /// The number of rows that no limit had room for. Supply them again later.
    pub left: u32,
}

/// The result of taking in a row from outside.
enum Taken {
    Yes,
    Known,
    Broken,
    NoRoom,
}

impl Engine {
    /// Loads rows: supply all open pipelines and all unfinished jobs, in any order and in any number of portions.
    ///
    /// A newer row in memory is kept.
    ///
    /// ```
    /// # use tenon_jobqueue::{Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, PipelineId, PoolId, PoolSpec};
    /// # use tenon_jobqueue::{PullRequest, Submission, Tag, Timestamp, Worker, WorkerName};
    /// # let now = Timestamp::from_millis(1);
    /// # let mut engine = Engine::new(Config::builder(Incarnation::new(1)).recheck_ms(0).build()?);
    /// # let (pool, worker) = (PoolId::new(1), Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) });
    /// # engine.put_pool(now, PoolSpec { id: pool, tags: vec![Tag::OTHER], max_leases: 10, ..PoolSpec::default() })?;
    /// # let jobs = [NewJob { id: JobId::new(1), spec: JobSpec::default(), tag: None }];
    /// # let submission = Submission { id: PipelineId::new(1), class: Class::new(0), priority: 0, jobs: &jobs, needs: &[] };
    /// # let persist = |engine: &mut Engine| {
    /// #     let mut others = Vec::new();
    /// #     while let Some(effect) = engine.poll_effect() {
    /// #         match effect {
    /// #             Effect::Persist { ticket } => engine.handle_committed(now, ticket),
    /// #             other => others.push(other),
    /// #         }
    /// #     }
    /// #     others
    /// # };
    /// # engine.submit(now, &submission)?;
    /// # persist(&mut engine);
    /// use tenon_jobqueue::Row;
    ///
    /// let rows: Vec<Row> = engine.job(JobId::new(1)).map(Row::Job).into_iter().collect();
    /// let mut next = Engine::new(Config::builder(Incarnation::new(2)).build()?); // a new life, after a restart
    /// assert_eq!(next.load(now, &rows).taken, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load(&mut self, now: Timestamp, rows: &[Row]) -> Compensated {
        self.lift(now);
        let told = self.take_all(rows);
        self.pump();
        told
    }

    /// Compensates over a page of rows: queues jobs that are in no queue, decides idle pipelines again, and sets
    /// deadlines.
    ///
    /// Rows younger than the configured settling time, and rows whose change is under way, are left alone. A second
    /// pass over the same rows does nothing.
    pub fn compensate(&mut self, now: Timestamp, page: &[Row]) -> Compensated {
        self.lift(now);
        let mut told = Compensated::default();
        for row in page {
            let since = match row {
                Row::Job(job) => job.since,
                Row::Pipeline(pipeline) => pipeline.created,
                Row::Key(_) | Row::Plan(_) | Row::Pool(_) | Row::Life(_) => Timestamp::ZERO,
            };
            if self.now.millis_since(since) >= self.config.settling_ms {
                if let Row::Pipeline(pipeline) = row {
                    self.suspect(pipeline);
                }
                let one = self.take_all(core::slice::from_ref(row));
                told.taken += one.taken;
                told.broken += one.broken;
                told.left += one.left;
            }
        }
        self.pump();
        told
    }

    /// A pipeline's row that has not moved since the whole of it was read may still lack jobs that did not fit then.
    fn suspect(&mut self, pipeline: &Pipeline) {
        let at = self.store.find_pipe(pipeline.id);
        if let Some(slot) = at.and_then(|at| self.store.pipes.get_mut(at)) {
            if slot.row.as_ref().is_some_and(|row| slot.lacks_jobs(row) || row.owes) || slot.lacks_plan() {
                slot.read_at = None;
            }
            self.undecided.push_back(pipeline.id);
        }
    }

    /// Takes what is newer; returns how many rows were.
    pub(super) fn take(&mut self, rows: &[Row]) -> u32 {
        self.take_all(rows).taken
    }

    pub(super) fn take_all(&mut self, rows: &[Row]) -> Compensated {
        let mut told = Compensated { taken: self.take_lives(rows), ..Compensated::default() };
        // Keys first, so that nobody asks for one that is here.
        for row in rows {
            if let Row::Key(row) = row {
                told.taken += u32::from(self.take_key(row));
            }
        }
        for row in rows {
            let taken = match row {
                Row::Job(job) => self.take_job(job),
                Row::Pipeline(pipeline) => self.take_pipeline(pipeline),
                Row::Key(_) | Row::Plan(_) | Row::Pool(_) | Row::Life(_) => Taken::Known,
            };
            match taken {
                Taken::Yes => told.taken += 1,
                Taken::Known => {}
                Taken::Broken => told.broken += 1,
                Taken::NoRoom => told.left += 1,
            }
        }
        for row in rows {
            if let Row::Plan(plan) = row {
                self.apply_plan(plan);
            }
        }
        // A job is of no use without its pipeline's row.
        for job in rows.iter().filter_map(job_row) {
            let at = self.store.find_job(job.id()).and_then(|at| self.store.jobs.get(at)).map(|slot| slot.pipe);
            if at.and_then(|at| self.store.pipes.get(at)).is_some_and(|slot| slot.row.is_none()) {
                self.whole(job.pipeline);
            }
        }
        told
    }

    fn take_job(&mut self, job: &Job) -> Taken {
        if !job.check() {
            return Taken::Broken;
        }
        self.next_sequence = self.next_sequence.max(job.sequence.saturating_add(1));
        let Some(at) = self.store.find_job(job.id()) else {
            if job.state.is_terminal() {
                return Taken::Known;
            }
            if !self.has_room(job) {
                return Taken::NoRoom;
            }
            self.apply_job(job, NONE);
            self.undecided.push_back(job.pipeline);
            self.mourn(job);
            return Taken::Yes;
        };
        let Some(slot) = self.store.jobs.get(at) else { return Taken::Known };
        let known = (self.store.attempt(slot), slot.version);
        if !slot.lock.is_free() || (job.key.attempt, job.version) <= known {
            return Taken::Known;
        }
        // Where it belongs never changes, whatever the row says.
        let (pipe, tag) =
            (self.store.pipes.get(slot.pipe).map(|pipe| pipe.id), self.store.tags.get(slot.lane as usize));
        let (pipeline, tag) = (pipe.unwrap_or(job.pipeline), tag.copied().unwrap_or(job.tag));
        self.withdraw(at);
        self.apply_job(&Job { pipeline, tag, ..*job }, at);
        self.undecided.push_back(pipeline);
        self.mourn(job);
        Taken::Yes
    }

    /// A row that has come may be held by a worker that was told to be dead.
    fn mourn(&mut self, job: &Job) {
        let worker = job.delivery.filter(|_| job.state.is_leased()).map(|delivery| delivery.worker);
        if let Some(worker) = worker.filter(|worker| !self.gone.is_empty() && self.gone.contains_key(worker)) {
            self.bereaved.push_back((job.id(), worker));
        }
    }

    fn has_room(&self, job: &Job) -> bool {
        let Limits { jobs, jobs_per_tag, pipelines, tags, .. } = *self.config.limits();
        let lane = self.queues.find(job.tag);
        if lane.is_none() && self.queues.lanes.len() >= tags as usize {
            return false;
        }
        let in_tag = lane.map_or(0, |lane| self.queues.lanes[lane as usize].jobs);
        let has_pipeline = self.store.find_pipe(job.pipeline).is_some();
        self.store.jobs.used < jobs && in_tag < jobs_per_tag && (has_pipeline || self.store.pipes.used < pipelines)
    }

    fn take_pipeline(&mut self, pipeline: &Pipeline) -> Taken {
        let at = match self.store.find_pipe(pipeline.id) {
            Some(at) => at,
            None if pipeline.state() != PipelineState::Open => return Taken::Known,
            None if self.store.pipes.used >= self.config.limits().pipelines => return Taken::NoRoom,
            None => self.store.pipe(pipeline.id),
        };
        let Some(slot) = self.store.pipes.get_mut(at) else { return Taken::Known };
        if !slot.lock.is_free() || slot.row.as_ref().is_some_and(|row| row.version >= pipeline.version) {
            return Taken::Known;
        }
        slot.row = Some(pipeline.clone());
        slot.look_at_all();
        self.undecided.push_back(pipeline.id);
        self.catch_up(at);
        self.tidy_pipeline(at);
        Taken::Yes
    }

    /// Acts on the rows that were read for a purpose.
    #[cold]
    pub(super) fn answered(&mut self, ask: AskId, rows: &[Row]) {
        let Some((_, purpose)) = self.asks.remove(&ask) else {
            self.counters.ignored += 1;
            return;
        };
        match purpose {
            Purpose::Call(id) => {
                self.take(rows);
                if let Some(call) = self.calls.get_mut(id) {
                    call.fresh = true;
                }
                self.run(id, rows);
            }
            Purpose::Resolve(ticket) => self.resolve(ticket, rows),
            Purpose::Pipeline(id) => self.read_pipeline(id, rows),
            Purpose::Key(key) => {
                self.take(rows);
                self.read_key(key, rows);
            }
            Purpose::Pool(at) => self.read_pool(at, rows),
            Purpose::Charged(at, life) => self.read_charged(at, life, rows),
            Purpose::Page => self.read_page(rows),
            Purpose::Owing => {
                self.take(rows);
                self.compare(rows);
            }
            Purpose::Again(id, token) => {
                self.take(rows);
                self.reassign(id, token);
            }
        }
    }

    #[cold]
    fn read_pipeline(&mut self, id: PipelineId, rows: &[Row]) {
        self.take(rows);
        let Some(at) = self.store.find_pipe(id) else { return };
        let Some(slot) = self.store.pipes.get_mut(at) else { return };
        slot.asked = false;
        if pipeline_row(rows, id).is_none() && slot.lock.is_free() {
            slot.row = None;
        }
        slot.read_at = slot.row.as_ref().map(|row| row.version);
        if slot.row.is_none() {
            // No such pipeline: its jobs cannot be real.
            while let Some(job) = self.unlocked(at) {
                self.remove(job);
            }
        }
        self.decide_with(id, rows);
        self.undecided.push_back(id);
        self.tidy_pipeline(at);
    }

    /// Some job of the pipeline that no write is under way for.
    pub(super) fn unlocked(&self, pipe: u32) -> Option<u32> {
        let is_free = |job: &u32| self.store.jobs.get(*job).is_some_and(|slot| slot.lock.is_free());
        self.store.jobs_of(pipe).find(is_free)
    }
}
