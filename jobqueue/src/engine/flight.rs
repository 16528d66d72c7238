//! Writes under way: proposed, then made, or not made, or unknown.

use alloc::vec::Vec;

use super::call::{Call, Work, done, latest, moves_pipeline, pipeline_row};
use super::{Engine, Purpose};
use crate::decide;
use crate::effect::{Answer, Assignment, Change, Effect, Row, Want};
use crate::event::{Event, Verdict};
use crate::id::{CallId, JobId, LeaseToken, PipelineId, Ticket, Version};
use crate::job::{Delivery, Job, State};
use crate::pipeline::{Pipeline, PipelineState};
use crate::reason::{Reason, Refused};
use crate::transition::transition;

/// What a write was proposed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Origin {
    /// A command.
    Call(CallId),
    /// A delivery for a pull, and the pool's place.
    Pull(CallId, u32),
    /// A deadline.
    Expire,
    /// A decision.
    Decide,
}

/// A write under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Flight {
    pub(super) changes: Vec<Change>,
    pub(super) origin: Origin,
    /// Whether it was told as unknown and its rows are being read.
    pub(super) resolving: bool,
    /// Commands that wait for a row of it, in the order in which they came.
    pub(super) waiters: Vec<CallId>,
}

impl Engine {
    /// Proposes what is in the scratch as one write. Its rows are locked until it is settled.
    pub(super) fn propose(&mut self, ticket: Ticket, origin: Origin) {
        let (mut changes, waiters) = self.spare.pop().unwrap_or_default();
        changes.append(&mut self.scratch);
        for change in &changes {
            self.lock(change, ticket);
        }
        let flight = Flight { changes, origin, resolving: false, waiters };
        self.flights.insert(ticket, flight);
        self.counters.proposed += 1;
        self.effects.push_back(Effect::Persist { ticket });
    }

    /// Locks the row's place in memory. A locked job stands in no queue; one that is to be inserted has no place yet.
    pub(super) fn lock(&mut self, change: &Change, ticket: Ticket) {
        match &change.row {
            Row::Job(job) if change.expect.is_some() => {
                let Some(at) = self.store.find_job(job.id()) else { return };
                if let Some(slot) = self.store.jobs.get_mut(at) {
                    slot.lock = Some(ticket);
                }
                self.place(at);
            }
            Row::Job(_) => {}
            Row::Pipeline(pipeline) => {
                let at = self.store.pipe(pipeline.id);
                if let Some(slot) = self.store.pipes.get_mut(at) {
                    slot.lock = Some(ticket);
                }
            }
            Row::Key(row) => self.lock_key(row.key, ticket),
        }
    }

    /// Unlocks the row's place in memory; a job's own place is found once its row is known.
    fn unlock(&mut self, row: &Row, ticket: Ticket) {
        match row {
            Row::Job(job) => {
                let at = self.store.find_job(job.id());
                let slot = at.and_then(|at| self.store.jobs.get_mut(at)).filter(|slot| slot.lock == Some(ticket));
                let Some(slot) = slot else { return };
                slot.lock = None;
                let pipe = self.store.pipes.get(slot.pipe).and_then(|pipe| pipe.row);
                // A job of an aborted pipeline could not be stopped while it was locked.
                if pipe.is_some_and(|row| row.aborted_at.is_some()) {
                    self.undecided.push_back(job.pipeline);
                }
            }
            Row::Pipeline(pipeline) => {
                let Some(at) = self.store.find_pipe(pipeline.id) else { return };
                if let Some(slot) = self.store.pipes.get_mut(at) {
                    slot.lock = None;
                }
                self.undecided.push_back(pipeline.id);
                self.catch_up(at);
            }
            Row::Key(row) => self.unlock_key(row.key, ticket),
        }
    }

    /// The write was made.
    pub(super) fn land(&mut self, ticket: Ticket) {
        let Some(mut flight) = self.flights.remove(&ticket) else {
            self.counters.ignored += 1;
            return;
        };
        self.counters.committed += 1;
        self.unfly(flight.origin);
        for change in &flight.changes {
            self.unlock(&change.row, ticket);
        }
        // Keys first, so that a holder finds itself named.
        for change in &flight.changes {
            if let Row::Key(row) = &change.row {
                self.apply_key(row);
            }
        }
        for change in &flight.changes {
            match &change.row {
                Row::Job(job) => {
                    self.tell(job, flight.origin);
                    self.apply_job(job);
                }
                Row::Pipeline(pipeline) => self.apply_pipeline(pipeline),
                Row::Key(_) => {}
            }
        }
        self.tidy(&flight.changes);
        if let Origin::Call(call) = flight.origin {
            let answer = self.written(call, &flight.changes);
            self.answer(call, answer);
        }
        if let Origin::Pull(call, _) = flight.origin {
            self.served(call);
        }
        self.wake(&mut flight.waiters);
        self.retire(flight);
    }

    /// What a command is told once its write is made.
    fn written(&self, call: CallId, changes: &[Change]) -> Answer {
        let inserted = || {
            let keys = changes.iter().filter(|change| change.expect.is_none()).filter_map(|change| match change.row {
                Row::Job(job) => Some(job.key),
                Row::Pipeline(_) | Row::Key(_) => None,
            });
            let (mut jobs, mut first) = (0, None);
            for key in keys {
                jobs += 1;
                first = first.or(Some(key));
            }
            first.map_or(Answer::Refused(Refused::Nothing), |first| Answer::Retried { jobs, first })
        };
        match self.calls.get(&call).map(|call| call.work) {
            Some(Work::Submit(_)) => Answer::Submitted,
            Some(Work::AbortPipeline(_)) => Answer::Aborting,
            Some(Work::RetryPipeline(_) | Work::Event(_, Event::Retry)) => inserted(),
            Some(Work::Event(..) | Work::Pull(_)) | None => {
                // An attempt that is followed by another is told of before that one.
                let own = changes.iter().find_map(|change| match change.row {
                    Row::Job(job) if change.expect.is_some() => Some(job),
                    Row::Job(_) | Row::Pipeline(_) | Row::Key(_) => None,
                });
                own.map_or(Answer::Refused(Refused::Unknown), |job| done(&job))
            }
        }
    }

    /// Emits what follows the commit of a job's row.
    fn tell(&mut self, job: &Job, origin: Origin) {
        let old = self.store.find_job(job.id()).and_then(|at| self.store.jobs.get(at)).map(|slot| slot.job.state);
        let (Some(token), Some(delivery)) = (job.token(), job.delivery) else { return };
        match job.state {
            State::Scheduled => {
                let Origin::Pull(call, _) = origin else { return };
                let Some(call_now) = self.calls.get_mut(&call) else { return };
                if let Work::Pull(pull) = &mut call_now.work {
                    pull.got += 1;
                }
                self.effects.push_back(Effect::Assign { call, assignment: assignment(job, token, delivery) });
            }
            State::Aborting if old != Some(State::Aborting) => {
                self.effects.push_back(Effect::Abort { worker: delivery.worker, token });
            }
            State::Polling if origin == Origin::Expire => self.effects.push_back(Effect::Poll { token }),
            State::Unstart
            | State::Pending
            | State::Running
            | State::Suspended
            | State::Delayed
            | State::Polling
            | State::Aborting
            | State::Succeeded
            | State::Failed
            | State::Aborted
            | State::TimedOut
            | State::Skipped
            | State::Reused
            | State::Superseded
            | State::Dead => {}
        }
    }

    /// The write was not made, as a row had another version.
    pub(super) fn fail(&mut self, ticket: Ticket, fresh: &[Row]) {
        if self.is_own(ticket, fresh) {
            // It met itself: somebody on the way has repeated it.
            self.land(ticket);
            self.take(fresh);
            return;
        }
        let Some(flight) = self.flights.remove(&ticket) else {
            self.counters.ignored += 1;
            return;
        };
        self.counters.conflicted += 1;
        let newer = self.abandon(ticket, &flight, fresh);
        if newer == 0 {
            self.forget(&flight.changes);
        }
        self.go_on(flight, fresh);
    }

    /// The write's rows are free again; returns how many of `fresh` are newer than what was known.
    fn abandon(&mut self, ticket: Ticket, flight: &Flight, fresh: &[Row]) -> u32 {
        self.unfly(flight.origin);
        for change in &flight.changes {
            self.unlock(&change.row, ticket);
        }
        self.take(fresh)
    }

    /// Whatever waited for a write that was not made is tried again.
    fn go_on(&mut self, mut flight: Flight, fresh: &[Row]) {
        for change in &flight.changes {
            match &change.row {
                Row::Job(job) => {
                    if let Some(at) = self.store.find_job(job.id()) {
                        self.place(at);
                    }
                }
                Row::Key(row) => self.free_up(row.key),
                Row::Pipeline(_) => {}
            }
        }
        self.tidy(&flight.changes);
        match flight.origin {
            Origin::Call(call) => self.again(call, fresh),
            Origin::Pull(call, _) => self.served(call),
            Origin::Expire | Origin::Decide => {}
        }
        self.wake(&mut flight.waiters);
        self.retire(flight);
    }

    /// A conflict that no row explains: what is in memory cannot be trusted, and is read again.
    fn forget(&mut self, changes: &[Change]) {
        for change in changes {
            match &change.row {
                Row::Job(job) if change.expect.is_some() => {
                    if let Some(at) = self.store.find_job(job.id()) {
                        self.remove(at);
                    }
                    self.doubt(job.pipeline);
                }
                Row::Pipeline(pipeline) if change.expect.is_some() => self.doubt(pipeline.id),
                Row::Key(row) => {
                    if let Some(slot) = self.keys.get_mut(&row.key) {
                        (slot.row, slot.known) = (None, false);
                    }
                    self.ask_key(row.key);
                }
                Row::Job(_) | Row::Pipeline(_) => {}
            }
        }
    }

    /// A command whose write conflicted is tried again from the rows that were told with the conflict.
    fn again(&mut self, id: CallId, fresh: &[Row]) {
        let limit = self.config.tries;
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.tries += 1;
        call.fresh = false;
        if call.tries >= limit {
            return self.answer(id, Answer::Refused(Refused::Contended));
        }
        match call.work {
            Work::Submit(_) => self.answer(id, Answer::Refused(Refused::Exists)),
            Work::Event(job, _) => {
                call.fresh = latest(fresh, job).is_some();
                self.run(id, fresh);
            }
            Work::AbortPipeline(pipeline) => {
                call.fresh = pipeline_row(fresh, pipeline).is_some();
                self.run(id, fresh);
            }
            Work::RetryPipeline(_) | Work::Pull(_) => self.run(id, &[]),
        }
    }

    fn wake(&mut self, waiters: &mut Vec<CallId>) {
        for call in waiters.drain(..) {
            self.run(call, &[]);
        }
    }

    /// Keeps the memory of a settled write for the next.
    fn retire(&mut self, mut flight: Flight) {
        flight.changes.clear();
        if self.spare.len() < 1_024 {
            self.spare.push((flight.changes, flight.waiters));
        }
    }

    /// A delivery is no longer under way.
    fn unfly(&mut self, origin: Origin) {
        let Origin::Pull(call, pool) = origin else { return };
        self.queues.pools[pool as usize].flying -= 1;
        self.queues.stir(pool);
        if let Some(Call { work: Work::Pull(pull), .. }) = self.calls.get_mut(&call) {
            pull.flying -= 1;
        }
    }

    /// Whether one of the rows was written by this write.
    fn is_own(&self, ticket: Ticket, rows: &[Row]) -> bool {
        let write = self.write_id(ticket);
        self.flights.contains_key(&ticket)
            && rows.iter().any(|row| match row {
                Row::Job(job) => job.write == write,
                Row::Pipeline(pipeline) => pipeline.write == write,
                Row::Key(row) => row.write == write,
            })
    }

    /// A submission that was not made is made again, as the same write: should the first yet arrive, it is known by its
    /// write id. Returns whether the write is a submission.
    fn propose_again(&mut self, ticket: Ticket) -> bool {
        let Some(flight) = self.flights.get_mut(&ticket) else { return false };
        let Origin::Call(id) = flight.origin else { return false };
        let Some(call) = self.calls.get_mut(&id).filter(|call| matches!(call.work, Work::Submit(_))) else {
            return false;
        };
        call.tries += 1;
        if call.tries >= self.config.tries {
            return false;
        }
        flight.resolving = false;
        self.effects.push_back(Effect::Persist { ticket });
        true
    }

    /// The unknown write's rows were read: an equal write id, and nothing else, means that it was made.
    pub(super) fn resolve(&mut self, ticket: Ticket, rows: &[Row]) {
        if self.is_own(ticket, rows) {
            self.land(ticket);
            self.take(rows);
        } else if rows.is_empty() && self.propose_again(ticket) {
            // Nothing stands in its way.
        } else if let Some(flight) = self.flights.remove(&ticket) {
            self.abandon(ticket, &flight, rows);
            self.go_on(flight, rows);
        }
    }

    /// A deadline of a job passed; or only seemed to, as the row's was moved meanwhile.
    pub(super) fn expire(&mut self, id: JobId, at: u32) {
        let now = self.now;
        let Some(slot) = self.store.jobs.get_mut(at).filter(|slot| slot.job.id() == id) else { return };
        slot.alarm = None;
        // A change in flight is left alone: settling it sets the alarm again.
        if slot.lock.is_some() {
            return;
        }
        let (job, pipe) = (slot.job, slot.pipe);
        if job.due().is_none_or(|due| due > now) {
            return self.place(at);
        }
        let ticket = self.ticket();
        let Ok(change) = transition(now, &job, &Event::Expire, &self.stamp(ticket)) else { return };
        let known = self.store.pipes.get(pipe).and_then(|slot| slot.row);
        let slot = self.store.pipes.get_mut(pipe).filter(|slot| slot.lock.is_some() || slot.row.is_none());
        if let Some(slot) = slot.filter(|_| moves_pipeline(&job, &change)) {
            // Settling the pipeline's write, or reading its row, sets the alarm again.
            slot.late = true;
            return;
        }
        if !self.key_is_clear(&job, &change.row) {
            // Settling the key's write, or reading its row, sets the alarm again.
            if let Some(slot) = self.store.pipes.get_mut(pipe) {
                slot.late = true;
            }
            return;
        }
        self.scratch.clear();
        self.stage(ticket, &job, change, known);
        self.propose(ticket, Origin::Expire);
    }

    /// Opens the pipeline's next batch, or stops its jobs if it was aborted.
    pub(super) fn decide(&mut self, id: PipelineId) {
        let Some(at) = self.store.find_pipe(id) else { return };
        let Some(slot) = self.store.pipes.get(at) else { return };
        let Some(mut row) = slot.row.filter(|_| slot.lock.is_none()) else { return };
        let idle = row.remaining == 0 && row.unstarted > 0;
        if !idle && (row.aborted_at.is_none() || row.state() != PipelineState::Open) {
            return;
        }
        if slot.lacks_jobs(&row) {
            self.whole(id);
            // Which batch is next cannot be told yet; what shall stop can.
            if row.aborted_at.is_none() {
                return;
            }
        }
        let Some(slot) = self.store.pipes.get(at).filter(|slot| slot.lock.is_none()) else { return };
        let expect = slot.row.map(|row| row.version);
        let mut batch = core::mem::take(&mut self.batch);
        batch.clear();
        let free = self.store.jobs_of(at).filter_map(|at| self.store.jobs.get(at)).filter(|slot| slot.lock.is_none());
        // A key that a job may have to give back must be known.
        let is_clear = |job: &Job| self.key_is_clear(job, &Job { state: State::Aborted, ..*job });
        batch.extend(free.map(|slot| slot.job).filter(is_clear));
        batch.sort_unstable_by_key(|job| (job.spec.order, job.sequence, job.id()));
        let ticket = self.ticket();
        let stamp = self.stamp(ticket);
        if decide::decide(self.now, &mut row, &mut batch, &self.filters, &stamp) > 0 {
            self.scratch.clear();
            for job in batch.iter().filter(|job| job.write == stamp.write) {
                // A decision writes each job once.
                let old = Version::new(job.version.get() - 1);
                self.scratch.push(Change { expect: Some(old), row: Row::Job(*job) });
                let before = self.store.find_job(job.id()).and_then(|at| self.store.jobs.get(at)).map(|slot| slot.job);
                if let Some(before) = before {
                    self.stage_key(&before, job, stamp.write);
                }
            }
            self.scratch.push(Change { expect, row: Row::Pipeline(row) });
            self.propose(ticket, Origin::Decide);
        } else if row.aborted_at.is_none() {
            self.ask_host(&row, &batch);
        }
        self.batch = batch;
    }

    /// Asks the host about each job of the next batch that it must judge, once.
    fn ask_host(&mut self, row: &Pipeline, jobs: &[Job]) {
        let Some(order) = decide::next_order(jobs) else { return };
        let asked = jobs.iter().filter(|job| job.spec.order == order);
        for job in asked.filter(|job| self.filters.must_ask(self.now, row, job)) {
            if self.judging.insert(job.id()) {
                self.effects.push_back(Effect::Judge { job: job.key, pipeline: row.id });
            }
        }
    }

    /// Sends what a window holds to the queues.
    pub(super) fn release_held(&mut self, filter: u32) {
        let is_held = |job: &Job| matches!(job.reason, Reason::Held { filter: of, .. } if of == filter);
        let held = self.store.jobs.iter().filter(|slot| slot.lock.is_none() && slot.job.state == State::Suspended);
        let mut held: Vec<Job> = held.map(|slot| slot.job).filter(is_held).collect();
        held.sort_unstable_by_key(|job| job.key);
        for job in held {
            let ticket = self.ticket();
            let event = Event::Decide(Verdict::Enqueue(Reason::Released { filter }));
            let Ok(change) = transition(self.now, &job, &event, &self.stamp(ticket)) else { continue };
            self.scratch.clear();
            self.stage(ticket, &job, change, None);
            self.propose(ticket, Origin::Decide);
        }
    }

    /// Reads a pipeline and all its jobs, unless that is under way or has just shown the same.
    pub(super) fn whole(&mut self, id: PipelineId) {
        let at = self.store.pipe(id);
        let Some(slot) = self.store.pipes.get_mut(at) else { return };
        let read = slot.row.is_some() && slot.read_at == slot.row.map(|row| row.version);
        if !slot.asked && !read {
            slot.asked = true;
            self.ask(Want::Pipeline(id), Purpose::Pipeline(id));
        }
    }

    /// Trusts nothing that is in memory about a pipeline, and reads it again.
    fn doubt(&mut self, id: PipelineId) {
        let at = self.store.pipe(id);
        if let Some(slot) = self.store.pipes.get_mut(at) {
            slot.row = None;
        }
        self.whole(id);
    }
}

pub(super) const fn assignment(job: &Job, token: LeaseToken, delivery: Delivery) -> Assignment {
    Assignment {
        token,
        pipeline: job.pipeline,
        worker: delivery.worker,
        pool: delivery.pool,
        entry: job.entry,
        ack_by: job.until,
    }
}
