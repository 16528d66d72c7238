//! How a row takes its place in memory, and leaves it.

use alloc::boxed::Box;

use super::Engine;
use super::batch::wants_decision;
use crate::effect::Effect;
use crate::job::{Job, State};
use crate::pipeline::{Pipeline, PipelineState};
use crate::plan::Plan;
use crate::store::{Hangs, NONE, Planned};
use crate::transition::CLOCK_SKEW_MS;

impl Engine {
    /// A job's row as it now is, and where it is kept; there it hangs nowhere. An ended one is forgotten: its row is the
    /// host's.
    pub(super) fn apply_job(&mut self, job: &Job, at: u32) {
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
            (NONE, true) => {}
            (NONE, false) => self.insert(job),
            (_, true) => self.drop_job(at),
            (_, false) => self.change(at, job),
        }
    }

    /// A job comes here, unless it was read already.
    fn insert(&mut self, job: &Job) {
        let lane = self.queues.lane(job.tag, &mut self.store.tags);
        let at = match self.store.insert_job(job, lane) {
            Ok(at) => at,
            Err(at) => return self.replace(at, job),
        };
        let queue = &mut self.queues.lanes[lane as usize];
        queue.jobs += 1;
        queue.passed.0 += u64::from(job.state == State::Pending);
        if job.state == State::Unstart
            && let Some(pipe) = self.store.pipe_of(at)
        {
            pipe.unstarted += 1;
        }
        if job.delivery.is_some() {
            self.count(at, job, false);
        }
        if job.spec.key.is_some() {
            self.key_comes(None, job);
        }
        self.place(at);
    }

    /// A new row of a job of which a row is here: of an earlier attempt, or the same, which somebody has read already.
    #[cold]
    fn replace(&mut self, at: u32, job: &Job) {
        let known = self.store.jobs.get(at).map(|slot| (self.store.attempt(slot), slot.version));
        if known.is_some_and(|known| known < (job.key.attempt, job.version)) {
            self.withdraw(at);
            self.change(at, job);
        }
    }

    /// The row of a job that is here becomes another.
    fn change(&mut self, at: u32, job: &Job) {
        let old = job.spec.key.and_then(|_| self.store.row(at));
        let was_charged = self.is_charged(at);
        let Some((was, is_held_alike)) = self.store.put_job(at, job) else { return };
        if was != job.state {
            let (was, is) = (was == State::Unstart, job.state == State::Unstart);
            if (was || is)
                && let Some(pipe) = self.store.pipe_of(at)
            {
                pipe.unstarted = pipe.unstarted + u32::from(is) - u32::from(was);
            }
            if job.state == State::Pending
                && let Some(slot) = self.store.jobs.get(at)
            {
                self.queues.lanes[slot.lane as usize].passed.0 += 1;
            }
        }
        if !is_held_alike {
            self.count(at, job, was_charged);
        }
        if old.is_some() {
            self.key_comes(old.as_ref(), job);
        }
        self.place(at);
        if job.state == State::Pending {
            self.store.slim(at, job);
        }
    }

    /// Forgets a job, wherever it hangs.
    pub(super) fn remove(&mut self, at: u32) {
        self.withdraw(at);
        self.drop_job(at);
    }

    /// Forgets a job that stands in no queue.
    fn drop_job(&mut self, at: u32) {
        if self.store.spec(at).is_some_and(|spec| spec.key.is_some())
            && let Some(job) = self.store.row(at)
        {
            self.key_goes(&job);
        }
        let was_charged = self.is_charged(at);
        let Some(slot) = self.store.jobs.get(at) else { return };
        let unstarted = slot.state == State::Unstart;
        let lane = &mut self.queues.lanes[slot.lane as usize];
        lane.jobs -= 1;
        let (pool, is_held) = self.store.holders(slot);
        lane.held -= u32::from(is_held);
        if let Some(pool) = pool {
            self.queues.release(pool, was_charged);
        }
        if unstarted && let Some(pipe) = self.store.pipe_of(at) {
            pipe.unstarted -= 1;
        }
        self.store.remove_job(at);
    }

    /// Whether a job is counted in a pool's leases and was given out here.
    fn is_charged(&self, at: u32) -> bool {
        self.config.recheck_ms > 0
            && self.store.jobs.get(at).is_some_and(|slot| self.store.is_charged(slot, self.config.engine))
    }

    /// Counts the job among what its worker and its pool hold, or not.
    fn count(&mut self, at: u32, job: &Job, was_charged: bool) {
        let delivery = job.delivery.filter(|_| job.state.is_leased());
        let new = delivery.and_then(|delivery| self.queues.pool(delivery.pool));
        let Some(slot) = self.store.jobs.get(at) else { return };
        let (old, was_held) = self.store.holders(slot);
        let held = &mut self.queues.lanes[slot.lane as usize].held;
        *held = *held + u32::from(delivery.is_some()) - u32::from(was_held);
        let is_charged = self.config.recheck_ms > 0
            && new.is_some()
            && delivery.is_some_and(|delivery| delivery.write.engine == self.config.engine);
        if old != new || was_charged != is_charged {
            if let Some(new) = new {
                self.queues.pools[new as usize].leased += 1;
                self.queues.pools[new as usize].charged += u32::from(is_charged);
            }
            if let Some(old) = old {
                self.queues.release(old, was_charged);
            }
        }
        self.store.set_holders(at, new, delivery.map(|delivery| delivery.worker.name));
    }

    /// Takes the job out of where it waits; no deadline of it is watched.
    pub(super) fn withdraw(&mut self, at: u32) {
        let Some(slot) = self.store.jobs.get(at) else { return };
        let (lane, rest, hangs) = (slot.lane, slot.rest(), slot.hangs);
        self.unhang(at, lane, rest, hangs);
    }

    /// Takes the job out of where it waits, if that is known.
    #[inline]
    pub(super) fn unhang(&mut self, at: u32, lane: u32, rest: u32, hangs: Hangs) {
        if let Some(alarm) = self.store.take_alarm(rest) {
            self.timers.disarm(alarm);
        }
        match hangs {
            Hangs::No => {}
            Hangs::InLine | Hangs::Stray => self.queues.unqueue(lane, &mut self.store.jobs, at),
            Hangs::Aside => self.take_back(at),
        }
    }

    /// Puts the job into its queue, and watches its deadline, unless it is there already or its row is locked.
    pub(super) fn place(&mut self, at: u32) {
        let Some(slot) = self.store.jobs.get(at).filter(|slot| slot.lock.is_free()) else { return };
        let (lane, rest) = (slot.lane, slot.rest());
        let order = (u8::MAX - slot.priority, slot.sequence, slot.id());
        if slot.state == State::Pending && slot.hangs == Hangs::No {
            self.queues.push(lane, &mut self.store.jobs, at);
        }
        if let Some(due) = self.store.unwatched(rest) {
            // A row of a time that has not come was written by a clock that was wrong: its wait counts from now.
            let since = self.store.jobs.get(at).map_or(due, |slot| slot.since);
            let is_wrong = since.millis_since(self.now) > CLOCK_SKEW_MS;
            let due = if is_wrong { self.now.after_millis(due.millis_since(since)) } else { due };
            let alarm = self.timers.arm(due.as_millis(), order, at);
            self.store.set_alarm(rest, alarm);
        }
    }

    /// Sets the alarms that were missed while the pipeline's row was locked or unknown.
    #[cold]
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
        slot.row = Some(pipeline.clone());
        if wants_decision(pipeline) {
            self.undecided.push_back(pipeline.id);
        }
        if pipeline.state() != PipelineState::Open {
            self.effects.push_back(Effect::Closed { pipeline: pipeline.id, state: pipeline.state() });
        }
    }

    /// A pipeline's plan, if the pipeline is here.
    pub(super) fn apply_plan(&mut self, plan: &Plan) {
        let at = self.store.find_pipe(plan.pipeline);
        if let Some(slot) = at.and_then(|at| self.store.pipes.get_mut(at))
            && slot.planned.is_none()
        {
            slot.planned = Some(Box::new(Planned::new(plan.clone())));
            self.undecided.push_back(plan.pipeline);
        }
    }

    /// Forgets a pipeline that has ended, with the manual jobs that nobody waited for; or one that is nothing here.
    pub(super) fn tidy_pipeline(&mut self, at: u32) {
        let Some(slot) = self.store.pipes.get(at).filter(|slot| slot.lock.is_free() && !slot.asked) else { return };
        if slot.row.as_ref().is_some_and(|row| row.state() == PipelineState::Open) {
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
