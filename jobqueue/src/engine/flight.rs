//! Writes under way: proposed, then made, or not made, or unknown.

use alloc::vec::Vec;

use super::Engine;
use super::batch::wants_decision;
use super::call::{Call, Work, done, latest, moves_pipeline, pipeline_row};
use crate::effect::{Answer, Assignment, Change, Effect, Row};
use crate::event::Event;
use crate::id::{CallId, JobId, LeaseToken, Ticket};
use crate::job::{Delivery, Job, State};
use crate::pipeline::PipelineState;
use crate::reason::Refused;
use crate::store::{Lock, NONE};
use crate::transition::step;

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
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) changes: Vec<Change>,
    /// Where each change's row is kept, if it is here already; a locked row stays where it is.
    places: Vec<u32>,
    pub(super) origin: Origin,
    /// Whether it was told as unknown and its rows are being read.
    pub(super) resolving: bool,
    /// Commands that wait for a row of it, in the order in which they came.
    pub(super) waiters: Vec<CallId>,
}

impl Flight {
    /// One that was just proposed.
    pub(super) const fn new() -> Self {
        Self { changes: Vec::new(), places: Vec::new(), origin: Origin::Decide, resolving: false, waiters: Vec::new() }
    }

    /// Takes in a row that is kept at this place.
    pub(super) fn add(&mut self, change: &Change, at: u32) {
        if self.changes.capacity() == 0 {
            // Most writes are of one row, or of two.
            self.changes.reserve_exact(2);
        }
        self.changes.push(*change);
        self.places.push(at);
    }
}

impl Engine {
    /// Puts a row into the next write; it is kept at this place, or somebody knows where.
    pub(super) fn put(&mut self, at: u32, change: &Change) {
        self.scratch.add(change, at);
    }

    /// Proposes what was put into the next write. Its rows are locked until it is settled.
    pub(super) fn propose(&mut self, ticket: Ticket, origin: Origin) {
        let next = self.spare.pop().unwrap_or_else(Flight::new);
        let mut flight = core::mem::replace(&mut self.scratch, next);
        flight.origin = origin;
        for (change, at) in flight.changes.iter().zip(&mut flight.places) {
            *at = self.lock(change, *at, ticket);
        }
        self.flights.insert(ticket, flight);
        self.counters.proposed += 1;
        self.effects.push_back(Effect::Persist { ticket });
    }

    /// Locks the row's place in memory, and returns it. A locked job stands in no queue; one that is to be inserted has
    /// no place yet.
    pub(super) fn lock(&mut self, change: &Change, at: u32, ticket: Ticket) -> u32 {
        match &change.row {
            Row::Job(job) if change.expect.is_some() => {
                let at = if at == NONE { self.store.find_job(job.id()).unwrap_or(NONE) } else { at };
                if let Some(slot) = self.store.jobs.get_mut(at) {
                    slot.lock = Lock::of(ticket);
                    self.withdraw(at);
                }
                at
            }
            Row::Job(_) => NONE,
            Row::Pipeline(pipeline) => {
                let at = if at == NONE { self.store.pipe(pipeline.id) } else { at };
                if let Some(slot) = self.store.pipes.get_mut(at) {
                    slot.lock = Lock::of(ticket);
                }
                at
            }
            Row::Key(row) => {
                self.lock_key(row.key, ticket);
                NONE
            }
        }
    }

    /// Unlocks the write's rows; a job's own place in a queue is found once its row is known.
    fn unlock(&mut self, flight: &Flight, ticket: Ticket) {
        for (change, at) in flight.changes.iter().zip(&flight.places) {
            match &change.row {
                Row::Job(job) => {
                    let Some(slot) = self.store.jobs.get_mut(*at) else { continue };
                    slot.lock = Lock::default();
                    self.store.last_pipe = slot.pipe;
                    let pipe = self.store.pipes.get(slot.pipe).and_then(|pipe| pipe.row.as_ref());
                    // A job of an aborted pipeline could not be stopped while it was locked.
                    if pipe.is_some_and(|row| row.aborted_at.is_some()) {
                        self.undecided.push_back(job.pipeline);
                    }
                }
                Row::Pipeline(pipeline) => {
                    self.store.last_pipe = *at;
                    let Some(slot) = self.store.pipes.get_mut(*at) else { continue };
                    slot.lock = Lock::default();
                    if slot.row.as_ref().is_some_and(wants_decision) {
                        self.undecided.push_back(pipeline.id);
                    }
                    self.catch_up(*at);
                }
                Row::Key(row) => self.unlock_key(row.key, ticket),
            }
        }
    }

    /// The write was made.
    pub(super) fn land(&mut self, ticket: Ticket) {
        let Some(mut flight) = self.flights.remove(ticket) else {
            self.counters.ignored += 1;
            return;
        };
        self.counters.committed += 1;
        self.unfly(flight.origin);
        self.unlock(&flight, ticket);
        // Keys first, so that a holder finds itself named.
        for change in &flight.changes {
            if let Row::Key(row) = &change.row {
                self.apply_key(row);
            }
        }
        for (change, at) in flight.changes.iter().zip(&flight.places) {
            match &change.row {
                Row::Job(job) => {
                    let at = self.store.jobs.get(*at).map(|_| *at);
                    // An attempt that follows another finds that one gone, unless its pipeline's jobs are revived.
                    let at = if at.is_none() { self.store.find_job(job.id()) } else { at };
                    self.tell(job, at, flight.origin);
                    self.apply_job(job, at);
                }
                Row::Pipeline(pipeline) => self.apply_pipeline(pipeline, *at),
                Row::Key(_) => {}
            }
        }
        for change in &flight.changes {
            if let Row::Pipeline(pipeline) = &change.row
                && pipeline.state() != PipelineState::Open
            {
                self.tidy_pipeline(pipeline.id);
            }
        }
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
        match self.calls.get(call).map(|call| call.work) {
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
    fn tell(&mut self, job: &Job, at: Option<u32>, origin: Origin) {
        let old = at.and_then(|at| self.store.jobs.get(at)).map(|slot| slot.state);
        let (Some(token), Some(delivery)) = (job.token(), job.delivery) else { return };
        match job.state {
            State::Scheduled => {
                let Origin::Pull(call, _) = origin else { return };
                let Some(call_now) = self.calls.get_mut(call) else { return };
                if let Work::Pull(pull) = &mut call_now.work {
                    pull.got += 1;
                }
                self.effects.push_back(Effect::Assign { call, assignment: assignment(job, token, delivery) });
                if let Some(slot) = at.and_then(|at| self.store.jobs.get(at)) {
                    let lane = &mut self.queues.lanes[slot.lane as usize];
                    lane.waits.add(job.since.millis_since(slot.since));
                    lane.passed.1 += 1;
                }
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
        let Some(flight) = self.flights.remove(ticket) else {
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
        self.unlock(flight, ticket);
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
        let Some(call) = self.calls.get_mut(id) else { return };
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
        flight.places.clear();
        flight.resolving = false;
        if self.spare.len() < 1_024 {
            self.spare.push(flight);
        }
    }

    /// A delivery is no longer under way.
    fn unfly(&mut self, origin: Origin) {
        let Origin::Pull(call, pool) = origin else { return };
        self.queues.pools[pool as usize].flying -= 1;
        self.queues.stir(pool);
        if let Some(Call { work: Work::Pull(pull), .. }) = self.calls.get_mut(call) {
            pull.flying -= 1;
        }
    }

    /// Whether one of the rows was written by this write.
    fn is_own(&self, ticket: Ticket, rows: &[Row]) -> bool {
        let write = self.write_id(ticket);
        self.flights.get(ticket).is_some()
            && rows.iter().any(|row| match row {
                Row::Job(job) => job.write == write,
                Row::Pipeline(pipeline) => pipeline.write == write,
                Row::Key(row) => row.write == write,
            })
    }

    /// A submission that was not made is made again, as the same write: should the first yet arrive, it is known by its
    /// write id. Returns whether the write is a submission.
    fn propose_again(&mut self, ticket: Ticket) -> bool {
        let Some(flight) = self.flights.get_mut(ticket) else { return false };
        let Origin::Call(id) = flight.origin else { return false };
        let Some(call) = self.calls.get_mut(id).filter(|call| matches!(call.work, Work::Submit(_))) else {
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
        } else if let Some(flight) = self.flights.remove(ticket) {
            self.abandon(ticket, &flight, rows);
            self.go_on(flight, rows);
        }
    }

    /// A deadline of a job passed; or only seemed to, as the row's was moved meanwhile.
    pub(super) fn expire(&mut self, id: JobId, at: u32) {
        let now = self.now;
        let Some(slot) = self.store.jobs.get(at).filter(|slot| slot.id() == id) else { return };
        let (is_free, pipe) = (slot.lock.is_free(), slot.pipe);
        self.store.set_alarm(at, None);
        // A change in flight is left alone: settling it sets the alarm again.
        if !is_free {
            return;
        }
        let Some(old) = self.store.row(at) else { return };
        if old.due().is_none_or(|due| due > now) {
            return self.place(at);
        }
        let ticket = self.ticket();
        let mut job = old;
        let Ok(step) = step(now, &mut job, &Event::Expire, &self.stamp(ticket)) else { return };
        let Some(slot) = self.store.pipes.get_mut(pipe) else { return };
        let is_known = slot.lock.is_free() && slot.row.is_some();
        let known = slot.row;
        if (moves_pipeline(&old, &job, &step) && !is_known) || !self.key_is_clear(&old, &job) {
            // Settling the write of the pipeline or the key, or reading its row, sets the alarm again.
            if let Some(slot) = self.store.pipes.get_mut(pipe) {
                slot.late = true;
            }
            return;
        }
        self.stage(ticket, at, (&old, &job), step, known);
        self.propose(ticket, Origin::Expire);
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
