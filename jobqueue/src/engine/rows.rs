//! Rows that come from outside: read, loaded, compensated; and how a row takes its place in memory.

use super::batch::wants_decision;
use super::call::job_row;
use super::{Engine, Purpose, rings};
use crate::config::Limits;
use crate::effect::{Effect, Row};
use crate::id::{AskId, PipelineId};
use crate::job::{Job, State};
use crate::pipeline::{Pipeline, PipelineState};
use crate::store::Hangs;
use crate::time::Timestamp;

/// What a pass of compensation found.
#[must_use = "rows that did not fit must be supplied again"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compensated {
    /// Rows that were newer than what was known, or not known at all.
    pub taken: u32,
    /// Rows that contradict themselves; they were left alone.
    pub broken: u32,
    /// Rows that no limit had room for; supply them again later.
    pub left: u32,
}

/// What became of a row from outside.
enum Taken {
    Yes,
    Known,
    Broken,
    NoRoom,
}

impl Engine {
    /// Rebuilds from rows: supply every pipeline that is open and every job that has not ended, in any order and in as
    /// many portions as you like. What is newer in memory is kept.
    pub fn load(&mut self, now: Timestamp, rows: &[Row]) -> Compensated {
        self.lift(now);
        let told = self.take_all(rows);
        self.pump();
        told
    }

    /// One pass of compensation over a page of rows: jobs that are in no queue are queued again, pipelines with nothing
    /// in progress are decided again, deadlines are set. Rows younger than the configured settling time, and rows
    /// whose change is under way, are left alone. A second pass over the same rows does nothing.
    pub fn compensate(&mut self, now: Timestamp, page: &[Row]) -> Compensated {
        self.lift(now);
        let mut told = Compensated::default();
        for row in page {
            let since = match row {
                Row::Job(job) => job.since,
                Row::Pipeline(pipeline) => pipeline.created,
                Row::Key(_) => Timestamp::ZERO,
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
            if slot.row.is_some_and(|row| slot.lacks_jobs(&row)) {
                slot.read_at = None;
            }
            self.undecided.push_back(pipeline.id);
        }
    }

    /// Takes what is newer; returns how many rows were.
    pub(super) fn take(&mut self, rows: &[Row]) -> u32 {
        self.take_all(rows).taken
    }

    fn take_all(&mut self, rows: &[Row]) -> Compensated {
        let mut told = Compensated::default();
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
                Row::Key(_) => Taken::Known,
            };
            match taken {
                Taken::Yes => told.taken += 1,
                Taken::Known => {}
                Taken::Broken => told.broken += 1,
                Taken::NoRoom => told.left += 1,
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
            self.apply_job(job, None);
            self.undecided.push_back(job.pipeline);
            return Taken::Yes;
        };
        let Some(slot) = self.store.jobs.get(at) else { return Taken::Known };
        let known = (slot.key().attempt, slot.version);
        if !slot.lock.is_free() || (job.key.attempt, job.version) <= known {
            return Taken::Known;
        }
        self.apply_job(job, Some(at));
        self.undecided.push_back(job.pipeline);
        Taken::Yes
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
        if !slot.lock.is_free() || slot.row.is_some_and(|row| row.version >= pipeline.version) {
            return Taken::Known;
        }
        slot.row = Some(*pipeline);
        self.undecided.push_back(pipeline.id);
        self.catch_up(at);
        self.tidy_pipeline(pipeline.id);
        Taken::Yes
    }

    /// What was asked for has been read.
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
                self.read_key(key);
            }
            Purpose::Again(id, token) => {
                self.take(rows);
                self.reassign(id, token);
            }
        }
    }

    fn read_pipeline(&mut self, id: PipelineId, rows: &[Row]) {
        self.take(rows);
        let Some(at) = self.store.find_pipe(id) else { return };
        let Some(slot) = self.store.pipes.get_mut(at) else { return };
        slot.asked = false;
        slot.read_at = slot.row.map(|row| row.version);
        if slot.row.is_none() {
            // No such pipeline: its jobs cannot be real.
            while let Some(job) = self.unlocked(at) {
                self.remove(job);
            }
        }
        self.undecided.push_back(id);
        self.tidy_pipeline(id);
    }

    /// Some job of the pipeline that no write is under way for.
    fn unlocked(&self, pipe: u32) -> Option<u32> {
        let is_free = |job: &u32| self.store.jobs.get(*job).is_some_and(|slot| slot.lock.is_free());
        self.store.jobs_of(pipe).find(is_free)
    }

    // ---- a row takes its place ------------------------------------------------------------------------------------

    /// A job's row as it now is, and where it is kept. An ended one is forgotten: its row is the host's.
    pub(super) fn apply_job(&mut self, job: &Job, at: Option<u32>) {
        if job.state != State::Unstart {
            self.filters.forget(job.id());
            if !self.judging.is_empty() {
                self.judging.remove(&job.id());
            }
        }
        if let (State::Succeeded, Some(key)) = (job.state, job.spec.unchanged) {
            self.filters.remember(key, job.id(), self.config.limits().results);
        }
        match (at, job.state.is_terminal()) {
            (None, true) => {}
            (Some(at), true) => self.remove(at),
            (Some(at), false) => self.change(at, job),
            (None, false) => {
                let lane = self.queues.lane(job.tag, &mut self.store.tags);
                let queue = &mut self.queues.lanes[lane as usize];
                queue.jobs += 1;
                queue.passed.0 += u64::from(job.state == State::Pending);
                let at = self.store.insert_job(job, lane);
                let pipe = self.store.jobs.get(at).map(|slot| slot.pipe);
                if let Some(pipe) = pipe.and_then(|pipe| self.store.pipes.get_mut(pipe)) {
                    pipe.unstarted += u32::from(job.state == State::Unstart);
                }
                self.count(at);
                self.key_comes(None, job);
                self.place(at);
            }
        }
    }

    /// The row of a job that is here becomes another.
    fn change(&mut self, at: u32, job: &Job) {
        self.withdraw(at);
        let Some(slot) = self.store.jobs.get(at) else { return };
        let (was, is) = (slot.state == State::Unstart, job.state == State::Unstart);
        if was != is
            && let Some(pipe) = self.store.pipes.get_mut(slot.pipe)
        {
            pipe.unstarted = pipe.unstarted + u32::from(is) - u32::from(was);
        }
        let comes = job.state == State::Pending && slot.state != State::Pending;
        self.queues.lanes[slot.lane as usize].passed.0 += u64::from(comes);
        let old = job.spec.key.and_then(|_| self.store.row(at));
        // While a delivery lasts, its worker and its pool stay the same.
        let goes_on = slot.state.is_leased() && job.state.is_leased() && self.store.delivery(slot) == job.delivery;
        self.store.put_job(at, job);
        if !goes_on {
            self.count(at);
        }
        self.key_comes(old.as_ref(), job);
        self.place(at);
        self.store.slim(at, job);
    }

    /// Forgets a job.
    pub(super) fn remove(&mut self, at: u32) {
        self.withdraw(at);
        if let Some(job) = self.store.spec(at).filter(|spec| spec.key.is_some()).and_then(|_| self.store.row(at)) {
            self.key_goes(&job);
        }
        let Some(slot) = self.store.jobs.get(at) else { return };
        let (lane, pipe, pool) = (slot.lane, slot.pipe, self.store.pool(slot));
        let (held, unstarted) = (self.store.is_held(slot), slot.state == State::Unstart);
        if self.store.set_alarm(at, None).is_some() {
            self.timers.disarm();
        }
        if let Some(pool) = pool {
            self.queues.pools[pool as usize].leased -= 1;
            self.queues.stir(pool);
        }
        if let Some(pipe) = self.store.pipes.get_mut(pipe) {
            pipe.unstarted -= u32::from(unstarted);
        }
        self.queues.lanes[lane as usize].held -= u32::from(held);
        self.queues.lanes[lane as usize].jobs -= 1;
        self.store.remove_job(at);
        self.timers.sweep(&|at, job, slot| rings(&self.store, at, job, slot));
    }

    /// Counts the job among what its worker and its pool hold, or not.
    fn count(&mut self, at: u32) {
        let Some(slot) = self.store.jobs.get(at).filter(|slot| !slot.is_plain()) else { return };
        let delivery = self.store.delivery(slot).filter(|_| slot.state.is_leased());
        let new = delivery.and_then(|delivery| self.queues.pool(delivery.pool));
        let (held, old, lane) = (self.store.is_held(slot), self.store.pool(slot), slot.lane);
        if delivery.is_some() != held {
            let all = &mut self.queues.lanes[lane as usize].held;
            *all = *all + u32::from(!held) - u32::from(held);
        }
        if old != new {
            if let Some(old) = old {
                self.queues.pools[old as usize].leased -= 1;
                self.queues.stir(old);
            }
            if let Some(new) = new {
                self.queues.pools[new as usize].leased += 1;
            }
            self.store.set_pool(at, new);
        }
        self.store.set_worker(at, delivery.map(|delivery| delivery.worker.name));
    }

    /// Takes the job out of where it waits.
    pub(super) fn withdraw(&mut self, at: u32) {
        let Some(slot) = self.store.jobs.get(at) else { return };
        match slot.hangs {
            Hangs::No => {}
            Hangs::InLine | Hangs::Stray => self.queues.unqueue(slot.lane, &mut self.store.jobs, at),
            Hangs::Aside => self.take_back(at),
        }
    }

    /// Puts the job into its queue, or takes it out, and sets its alarm, as its row and its lock now are.
    pub(super) fn place(&mut self, at: u32) {
        let Some(slot) = self.store.jobs.get(at) else { return };
        let waits = slot.state == State::Pending && slot.lock.is_free();
        if !waits && slot.hangs != Hangs::No {
            return self.withdraw(at);
        }
        if !slot.lock.is_free() {
            return;
        }
        if waits && slot.hangs == Hangs::No {
            self.queues.push(slot.lane, &mut self.store.jobs, at);
        }
        let Some(slot) = self.store.jobs.get(at).filter(|slot| !slot.is_plain()) else { return };
        let (alarm, due, id) = (self.store.alarm(slot), self.store.due(slot), slot.id());
        match (alarm, due) {
            // An alarm that rings too early is set again then: cheaper than moving it with each heartbeat.
            (Some(alarm), Some(due)) if alarm <= due => {}
            (_, Some(due)) => {
                if self.store.set_alarm(at, Some(due)).is_some() {
                    self.timers.disarm();
                }
                self.timers.arm(due, id, at);
            }
            (Some(_), None) => {
                self.store.set_alarm(at, None);
                self.timers.disarm();
            }
            (None, None) => {}
        }
    }

    /// Sets the alarms that were missed while the pipeline's row was locked or unknown.
    pub(super) fn catch_up(&mut self, pipe: u32) {
        let Some(slot) = self.store.pipes.get_mut(pipe) else { return };
        if !core::mem::take(&mut slot.late) {
            return;
        }
        let jobs: alloc::vec::Vec<u32> = self.store.jobs_of(pipe).collect();
        for job in jobs {
            self.place(job);
        }
    }

    /// A pipeline's row as this engine has just written it, and where it is kept.
    pub(super) fn apply_pipeline(&mut self, pipeline: &Pipeline, at: u32) {
        let Some(slot) = self.store.pipes.get_mut(at) else { return };
        slot.row = Some(*pipeline);
        if wants_decision(pipeline) {
            self.undecided.push_back(pipeline.id);
        }
        if pipeline.state() != PipelineState::Open {
            self.effects.push_back(Effect::Closed { pipeline: pipeline.id, state: pipeline.state() });
        }
    }

    /// Forgets the pipelines of these changes if they have ended.
    pub(super) fn tidy(&mut self, changes: &[crate::effect::Change]) {
        for change in changes {
            match &change.row {
                Row::Pipeline(pipeline) => self.tidy_pipeline(pipeline.id),
                Row::Job(_) | Row::Key(_) => {}
            }
        }
    }

    /// Forgets a pipeline that has ended, with the manual jobs that nobody waited for; or one that is nothing here.
    pub(super) fn tidy_pipeline(&mut self, id: PipelineId) {
        let Some(at) = self.store.find_pipe(id) else { return };
        let Some(slot) = self.store.pipes.get(at).filter(|slot| slot.lock.is_free() && !slot.asked) else { return };
        if slot.row.is_some_and(|row| row.state() == PipelineState::Open) {
            return;
        }
        while let Some(job) = self.unlocked(at) {
            self.remove(job);
        }
        if self.store.pipes.get(at).is_some_and(|slot| slot.jobs == 0) {
            self.store.remove_pipe(at);
        }
    }
}
