//! Writes that were not made, or of which nobody knows.

use alloc::boxed::Box;

use super::Engine;
use super::call::{Work, latest, pipeline_row};
use super::flight::{Flight, Origin};
use crate::effect::{Answer, Change, Effect, Row};
use crate::id::{CallId, Ticket};
use crate::reason::Refused;
use crate::store::NONE;

impl Engine {
    /// The write was not made, as a row had another version.
    #[cold]
    pub(super) fn fail(&mut self, ticket: Ticket, fresh: &[Row]) {
        if self.is_own(ticket, fresh) {
            // It met itself: somebody on the way has repeated it.
            self.land(ticket);
            self.take(fresh);
            return;
        }
        let Some(flight) = self.end(ticket) else { return };
        self.counters.conflicted += 1;
        let newer = self.abandon(ticket, &flight, fresh);
        if newer == 0 {
            self.forget(&flight.changes);
        }
        self.go_on(flight, fresh);
    }

    /// The write's rows are free again; returns how many of `fresh` are newer than what was known.
    fn abandon(&mut self, ticket: Ticket, flight: &Flight, fresh: &[Row]) -> u32 {
        for (number, change) in flight.changes.iter().enumerate() {
            let noted = Some(flight.place(number)).filter(|at| *at != NONE);
            match &change.row {
                Row::Job(job) => {
                    let at = noted.or_else(|| self.store.find_job(job.id()));
                    self.unlock_job(at.unwrap_or(NONE), ticket);
                }
                Row::Pipeline(pipeline) => {
                    let at = noted.or_else(|| self.store.find_pipe(pipeline.id));
                    if let Some(slot) = self.store.pipes.get_mut(at.unwrap_or(NONE)) {
                        // What this write was to pay is still owed.
                        slot.look_at_all();
                    }
                    self.unlock_pipeline(at.unwrap_or(NONE), ticket);
                }
                Row::Key(row) => self.unlock_key(row.key, ticket),
                Row::Plan(_) | Row::Pool(_) | Row::Life(_) => {}
            }
        }
        self.unlock_share(flight.origin, ticket);
        self.take(fresh)
    }

    /// Whatever waited for a write that was not made is tried again.
    #[cold]
    fn go_on(&mut self, flight: Box<Flight>, fresh: &[Row]) {
        for change in &flight.changes {
            match &change.row {
                Row::Job(job) => {
                    if let Some(at) = self.store.find_job(job.id()) {
                        self.place(at);
                    }
                }
                Row::Key(row) => self.free_up(row.key),
                Row::Pipeline(_) | Row::Plan(_) | Row::Pool(_) | Row::Life(_) => {}
            }
        }
        for change in &flight.changes {
            if let Row::Pipeline(pipeline) = &change.row
                && let Some(at) = self.store.find_pipe(pipeline.id)
            {
                self.tidy_pipeline(at);
            }
        }
        match flight.origin {
            Origin::Call(call) => self.again(call, fresh),
            Origin::Pull(call, _) => {
                self.again_share(flight.origin);
                self.served(call);
            }
            Origin::Share(_) | Origin::Reclaim(_) | Origin::EndLife(..) | Origin::RaiseLife => {
                self.again_share(flight.origin);
            }
            Origin::Expire | Origin::Decide => {}
        }
        self.retire(flight);
    }

    /// A conflict that no row explains: what is in memory cannot be trusted, and is read again.
    #[cold]
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
                Row::Life(row) if row.life == self.config.engine => self.doubt_life(),
                Row::Job(_) | Row::Pipeline(_) | Row::Plan(_) | Row::Pool(_) | Row::Life(_) => {}
            }
        }
    }

    /// A command whose write conflicted is tried again from the rows that were told with the conflict.
    #[cold]
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

    /// Whether one of the rows was written by this write.
    fn is_own(&self, ticket: Ticket, rows: &[Row]) -> bool {
        let write = self.write_id(ticket);
        self.flights.get(ticket).is_some() && rows.iter().any(|row| row.write() == write)
    }

    /// A submission that was not made is made again, as the same write: should the first yet arrive, it is known by its
    /// write id. Returns whether the write is a submission.
    #[cold]
    fn propose_again(&mut self, ticket: Ticket) -> bool {
        let Some(Some(flight)) = self.flights.get_mut(ticket) else { return false };
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
    #[cold]
    pub(super) fn resolve(&mut self, ticket: Ticket, rows: &[Row]) {
        if self.is_own(ticket, rows) {
            self.land(ticket);
            self.take(rows);
        } else if rows.is_empty() && self.propose_again(ticket) {
            // Nothing stands in its way.
        } else if let Some(flight) = self.end(ticket) {
            self.abandon(ticket, &flight, rows);
            self.doubt_share(&flight);
            self.go_on(flight, rows);
        }
    }
}
