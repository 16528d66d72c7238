//! Writes under way: proposed, then made.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Engine;
use super::batch::wants_decision;
use super::call::{Before, Call, Work, done};
use crate::effect::{Answer, Assignment, Change, Effect, Row};
use crate::event::Event;
use crate::id::{CallId, Incarnation, LeaseToken, Ticket, Version};
use crate::job::{Delivery, Job, State};
use crate::pipeline::{Pipeline, PipelineState};
use crate::reason::Refused;
use crate::store::{Lock, NONE};
use crate::transition::step;

/// The origin of a proposed write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Origin {
    /// A command.
    Call(CallId),
    /// A delivery for a pull, and the pool's place.
    Pull(CallId, u32),
    /// A deadline.
    Expire,
    /// A decision.
    #[default]
    Decide,
    /// This engine's demand on a pool's limits, by the pool's place.
    Share(u32),
    /// Shares reclaimed in a pool from a life that has ended.
    Reclaim(u32),
    /// The end of another life, which has leases in a pool.
    EndLife(u32, Incarnation),
    /// This engine's own life, which another has ended.
    RaiseLife,
}

/// How many rows of a write have their places noted; most writes are of one row, or of two.
const NOTED: usize = 4;

/// A write under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    pub(super) changes: Vec<Change>,
    /// Where the first rows are kept, if they are here already; a locked row stays where it is.
    places: [u32; NOTED],
    pub(super) origin: Origin,
    /// Whether it was told as unknown and its rows are being read.
    pub(super) resolving: bool,
    /// Commands that wait for a row of it, in the order in which they came.
    pub(super) waiters: Vec<CallId>,
}

impl Flight {
    /// The place that was noted of a row.
    pub(super) fn place(&self, number: usize) -> u32 {
        self.places.get(number).copied().unwrap_or(NONE)
    }

    /// Takes in a row that is kept at this place.
    pub(super) fn add(&mut self, expect: Option<Version>, row: Row, at: u32) {
        self.note(at);
        self.changes.push(Change { expect, row });
    }

    /// Takes in a job's row, which is large, that is kept at this place.
    pub(super) fn add_job(&mut self, expect: Option<Version>, job: &Job, at: u32) {
        self.note(at);
        self.changes.push(Change { expect, row: Row::Job(*job) });
    }

    fn note(&mut self, at: u32) {
        if let Some(place) = self.places.get_mut(self.changes.len()) {
            *place = at;
        }
        if self.changes.capacity() == 0 {
            self.changes.reserve_exact(2);
        }
    }
}

impl Engine {
    // ---- proposed ---------------------------------------------------------------------------------------------------

    /// Puts a job's row into the next write, and locks it where it is kept. A locked job stands in no queue, and no
    /// deadline of it is watched.
    pub(super) fn put_job(&mut self, ticket: Ticket, at: u32, expect: Version, job: &Job) {
        self.scratch.add_job(Some(expect), job, at);
        self.lock_job(at, ticket);
    }

    /// Puts a job's row into the next write that is to be inserted. It has no place yet.
    pub(super) fn put_new_job(&mut self, job: &Job) {
        self.scratch.add_job(None, job, NONE);
    }

    /// Puts a pipeline's row into the next write, and locks it where it is kept.
    pub(super) fn put_pipeline(&mut self, ticket: Ticket, at: u32, expect: Option<Version>, row: Pipeline) {
        self.scratch.add(expect, Row::Pipeline(row), at);
        if let Some(slot) = self.store.pipes.get_mut(at) {
            slot.lock = Lock::of(ticket);
        }
    }

    pub(super) fn lock_job(&mut self, at: u32, ticket: Ticket) {
        let Some(slot) = self.store.jobs.get_mut(at) else { return };
        slot.lock = Lock::of(ticket);
        let (lane, rest, hangs) = (slot.lane, slot.rest(), slot.hangs);
        self.unhang(at, lane, rest, hangs);
    }

    /// Proposes what was put into the next write. Its rows stay locked until it is settled.
    pub(super) fn propose(&mut self, ticket: Ticket, origin: Origin) {
        self.scratch.origin = origin;
        let next = self.spare.pop().unwrap_or_default();
        *self.flights.open(ticket) = Some(core::mem::replace(&mut self.scratch, next));
        self.counters.proposed += 1;
        self.effects.push_back(Effect::Persist { ticket });
    }

    /// The write that is under way with this ticket.
    pub(super) fn flight(&mut self, ticket: Ticket) -> Option<&mut Flight> {
        self.flights.get_mut(ticket)?.as_deref_mut()
    }

    // ---- over -------------------------------------------------------------------------------------------------------

    /// A write under way is over.
    pub(super) fn end(&mut self, ticket: Ticket) -> Option<Box<Flight>> {
        let Some(flight) = self.flights.close(ticket).and_then(Option::take) else {
            self.counters.ignored += 1;
            return None;
        };
        if let Origin::Pull(call, pool) = flight.origin {
            // The delivery is no longer under way.
            self.queues.unfly(pool);
            if let Some(Call { work: Work::Pull(pull), .. }) = self.calls.get_mut(call) {
                pull.flying -= 1;
            }
        }
        Some(flight)
    }

    /// The write no longer locks a job's row; the job's place in a queue is found once its row is known.
    pub(super) fn unlock_job(&mut self, at: u32, ticket: Ticket) {
        let Some(slot) = self.store.jobs.get_mut(at).filter(|slot| slot.lock == Lock::of(ticket)) else { return };
        slot.lock = Lock::default();
        // A job of an aborted pipeline could not be stopped while it was locked.
        if let Some(pipe) = self.store.pipes.get(slot.pipe)
            && pipe.row.as_ref().is_some_and(|row| row.aborted_at.is_some())
        {
            self.undecided.push_back(pipe.id);
        }
    }

    /// The write no longer locks a pipeline's row.
    pub(super) fn unlock_pipeline(&mut self, at: u32, ticket: Ticket) {
        self.store.last_pipe = at;
        let Some(slot) = self.store.pipes.get_mut(at).filter(|slot| slot.lock == Lock::of(ticket)) else { return };
        slot.lock = Lock::default();
        if slot.row.as_ref().is_some_and(wants_decision) {
            self.undecided.push_back(slot.id);
        }
        if slot.late {
            self.catch_up(at);
        }
    }

    /// The commands that waited for a write are tried; its memory is kept for the next.
    pub(super) fn retire(&mut self, mut flight: Box<Flight>) {
        if !flight.waiters.is_empty() {
            for call in core::mem::take(&mut flight.waiters) {
                self.run(call, &[]);
            }
        }
        flight.changes.clear();
        flight.resolving = false;
        if self.spare.len() < 1_024 {
            self.spare.push(flight);
        }
    }

    // ---- made -------------------------------------------------------------------------------------------------------

    /// The write was made.
    pub(super) fn land(&mut self, ticket: Ticket) {
        let Some(flight) = self.end(ticket) else { return };
        self.counters.committed += 1;
        self.land_keys(&flight, ticket);
        for (number, change) in flight.changes.iter().enumerate() {
            match &change.row {
                Row::Job(job) => self.land_job(job, flight.place(number), ticket, flight.origin),
                Row::Pipeline(pipeline) => self.land_pipeline(pipeline, flight.place(number), ticket),
                Row::Plan(plan) => self.apply_plan(plan),
                Row::Key(_) | Row::Pool(_) | Row::Life(_) => {}
            }
        }
        match flight.origin {
            Origin::Call(call) => {
                let answer = self.written(call, &flight.changes);
                self.answer(call, answer);
            }
            Origin::Pull(call, _) => self.served(call),
            Origin::Expire | Origin::Decide => {}
            Origin::Share(_) | Origin::Reclaim(_) | Origin::EndLife(..) | Origin::RaiseLife => {
                self.land_share(&flight, ticket);
            }
        }
        self.retire(flight);
    }

    /// Keys come first, so that a holder finds itself named.
    fn land_keys(&mut self, flight: &Flight, ticket: Ticket) {
        for change in &flight.changes {
            if let Row::Key(row) = &change.row {
                self.unlock_key(row.key, ticket);
                self.apply_key(row);
            }
        }
    }

    fn land_job(&mut self, job: &Job, at: u32, ticket: Ticket, origin: Origin) {
        let is_new = job.version == Version::FIRST && !job.state.is_terminal();
        let at = if at == NONE && !is_new { self.store.find_job(job.id()).unwrap_or(NONE) } else { at };
        self.unlock_job(at, ticket);
        if let Some(delivery) = job.delivery {
            self.tell(job, delivery, at, origin);
        }
        self.apply_job(job, at);
    }

    fn land_pipeline(&mut self, pipeline: &Pipeline, at: u32, ticket: Ticket) {
        let at = if at == NONE { self.store.find_pipe(pipeline.id).unwrap_or(NONE) } else { at };
        self.unlock_pipeline(at, ticket);
        self.apply_pipeline(pipeline, at);
        if pipeline.state() != PipelineState::Open {
            self.tidy_pipeline(at);
        }
    }

    /// The answer to a command once its write is made.
    fn written(&self, call: CallId, changes: &[Change]) -> Answer {
        let inserted = || {
            let new = changes.iter().filter(|change| change.expect.is_none());
            let keys = new.filter_map(|change| Some(change.row.as_job()?.key));
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
                let own =
                    changes.iter().filter(|change| change.expect.is_some()).find_map(|change| change.row.as_job());
                own.map_or(Answer::Refused(Refused::Unknown), done)
            }
        }
    }

    /// Emits what follows the commit of the row of a job that is, or was, given to a worker.
    fn tell(&mut self, job: &Job, delivery: Delivery, at: u32, origin: Origin) {
        match (job.state, origin) {
            (State::Scheduled, Origin::Pull(call, _)) => {
                let Some(Call { work: Work::Pull(pull), .. }) = self.calls.get_mut(call) else { return };
                pull.got += 1;
                let assignment = assignment(job, delivery.token(job.key), delivery);
                self.effects.push_back(Effect::Assign { call, assignment });
                if let Some(slot) = self.store.jobs.get(at) {
                    let lane = &mut self.queues.lanes[slot.lane as usize];
                    lane.waits.add(job.since.millis_since(slot.since));
                    lane.passed.1 += 1;
                }
            }
            (State::Aborting, _) if self.store.jobs.get(at).is_none_or(|slot| slot.state != State::Aborting) => {
                let (worker, token) = (delivery.worker, delivery.token(job.key));
                self.effects.push_back(Effect::Abort { worker, token });
            }
            (State::Polling, Origin::Expire) => self.effects.push_back(Effect::Poll { token: delivery.token(job.key) }),
            _ => {}
        }
    }

    /// A deadline of a job has passed.
    pub(super) fn expire(&mut self, at: u32) {
        let Some(slot) = self.store.jobs.get(at) else { return };
        self.store.take_alarm(slot.rest());
        let Some(mut job) = self.store.row(at) else { return };
        let ticket = self.ticket();
        let before = Before::of(&job);
        let Ok(step) = step(self.now, &mut job, &Event::Expire, &self.stamp(ticket)) else { return self.place(at) };
        let pipe = self.store.jobs.get(at).map_or(NONE, |slot| slot.pipe);
        let Some(slot) = self.store.pipes.get_mut(pipe) else { return };
        let moves = before.moves_pipeline(&job, &step);
        let lacks_plan = slot.lacks_plan();
        let known = slot.row.clone().filter(|_| moves && slot.lock.is_free() && !lacks_plan);
        let graph = slot.graph().cloned();
        if moves && lacks_plan {
            slot.late = true;
            return self.whole(job.pipeline);
        }
        let is_clear = self.key_is_clear(before.key, job.held_key());
        let Some(slot) = self.store.pipes.get_mut(pipe) else { return };
        if (moves && known.is_none()) || !is_clear {
            // Settling the write of the pipeline or the key, or reading its row, sets the alarm again.
            slot.late = true;
            return;
        }
        self.stage(ticket, at, (&before, &job), step, known.map(|row| (row, graph)));
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
