//! Facts: the events that the host tells the engine.

use alloc::vec::Vec;

use super::{Engine, Purpose, Sleeper};
use crate::effect::{Row, Want};
use crate::event::Event;
use crate::filter::Judgement;
use crate::id::{AskId, JobId, JobKey, Ticket, Worker};
use crate::store::JobSlot;
use crate::time::Timestamp;

/// How many dead workers are remembered at a time.
const MOURNED: usize = 10_000;

impl Engine {
    /// Tells that the write was made.
    pub fn handle_committed(&mut self, now: Timestamp, ticket: Ticket) {
        self.lift(now);
        self.land(ticket);
        self.pump();
    }

    /// Tells that the write was not made, because a row had another version.
    ///
    /// `fresh` are the write's rows as they are; those that are not newer than the known ones are ignored.
    pub fn handle_conflicted(&mut self, now: Timestamp, ticket: Ticket, fresh: &[Row]) {
        self.lift(now);
        self.fail(ticket, fresh);
        self.pump();
    }

    /// Tells that the outcome of the write is unknown. Its rows are read again, and their write ids tell.
    pub fn handle_unknown(&mut self, now: Timestamp, ticket: Ticket) {
        self.lift(now);
        match self.flight(ticket) {
            Some(flight) if !flight.resolving => {
                flight.resolving = true;
                self.ask(Want::Written(ticket), Purpose::Resolve(ticket));
            }
            Some(_) | None => self.counters.ignored += 1,
        }
        self.pump();
    }

    /// Tells the rows that were asked for, as far as there are any.
    pub fn handle_rows(&mut self, now: Timestamp, ask: AskId, rows: &[Row]) {
        self.lift(now);
        self.answered(ask, rows);
        self.pump();
    }

    /// Tells the host's judgement on a job that it was asked to judge.
    pub fn handle_judged(&mut self, now: Timestamp, job: JobKey, judgement: Judgement) {
        self.lift(now);
        if self.judging.remove(&job.job) {
            self.filters.tell(job.job, judgement);
            if let Some(row) = self.job(job.job) {
                self.undecided.push_back(row.pipeline);
            }
        } else {
            self.counters.ignored += 1;
        }
        self.pump();
    }

    /// Tells that the host could not judge a job. It is asked again after 200 ms.
    pub fn handle_unjudged(&mut self, now: Timestamp, job: JobKey) {
        self.lift(now);
        match self.job(job.job).filter(|_| self.judging.remove(&job.job)) {
            Some(row) => {
                let at = self.now.after_millis(super::sweep::RETRY_MS);
                self.sleepers.insert((at, Sleeper::Pipeline(row.pipeline)));
            }
            None => self.counters.ignored += 1,
        }
        self.pump();
    }

    /// Tells that a worker, in this life, is dead: the host saw it die, or sees it in another life.
    ///
    /// Its jobs are taken back now, as they would be when their leases end; those that another engine gave it, as soon
    /// as a pass of pages shows them.
    pub fn handle_worker_gone(&mut self, now: Timestamp, worker: Worker) {
        self.lift(now);
        let held = self.store.jobs_held(worker.name).filter_map(|at| self.store.jobs.get(at));
        let is_its = |slot: &&JobSlot| self.store.delivery(slot).is_some_and(|delivery| delivery.worker == worker);
        let mut held: Vec<JobId> = held.filter(is_its).map(JobSlot::id).collect();
        held.sort_unstable();
        if self.config.recheck_ms > 0 && (self.gone.len() < MOURNED || self.gone.contains_key(&worker)) {
            // Rows of it that come here within the next two passes are taken back as well.
            self.gone.insert(worker, self.sweep.pass);
        } else if held.is_empty() {
            self.counters.ignored += 1;
        }
        for job in held {
            self.silently(job, Event::Gone { worker });
        }
        self.pump();
    }

    /// Advances the clock to `now` and acts on due deadlines, at most a budget of them.
    ///
    /// Call again while [`Engine::next_deadline`] is not later than `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.lift(now);
        while let Some((until, call)) = self.patience.first().copied().filter(|(until, _)| *until <= self.now) {
            self.patience.remove(&(until, call));
            self.give_up(call);
        }
        while let Some((until, sleeper)) = self.sleepers.first().copied().filter(|(until, _)| *until <= self.now) {
            self.sleepers.remove(&(until, sleeper));
            match sleeper {
                Sleeper::Pool(pool) => self.wake_pool(pool),
                Sleeper::Key(key) => self.free_up(key),
                Sleeper::Ask(ask) => self.ask_again(ask),
                Sleeper::Pipeline(id) => self.undecided.push_back(id),
            }
        }
        for _ in 0..self.config.budget {
            let Some(job) = self.timers.pop(self.now.as_millis()) else { break };
            self.expire(job);
        }
        self.sweep();
        self.pump();
    }
}
