//! Pulls: served at once, parked while there is nothing, woken when something comes.

use super::call::{Call, Pull, Work};
use super::flight::{Origin, assignment};
use super::{Engine, Purpose, Sleeper};
use crate::effect::{Answer, Change, Effect, Row, Want};
use crate::event::Event;
use crate::id::{CallId, LeaseToken, Worker};
use crate::job::State;
use crate::transition::step;

impl Engine {
    fn pull_of(&self, id: CallId) -> Option<Pull> {
        match self.calls.get(id)?.work {
            Work::Pull(pull) => Some(pull),
            Work::Submit(_) | Work::Event(..) | Work::AbortPipeline(_) | Work::RetryPipeline(_) => None,
        }
    }

    fn set_pull(&mut self, id: CallId, pull: Pull) {
        if let Some(call) = self.calls.get_mut(id) {
            call.work = Work::Pull(pull);
        }
    }

    /// Proposes a delivery for each job that the pull can have; parks it if there is none.
    pub(super) fn serve(&mut self, id: CallId) {
        let Some(mut pull) = self.pull_of(id) else { return };
        let Some(pool) = self.queues.pool(pull.pool) else { return };
        let mut turn = self.queues.turn(pool, &mut self.rng);
        while pull.flying + pull.got < pull.want && self.queues.pools[pool as usize].room(self.now) > 0 {
            let Some(at) = self.queues.take(pool, &mut turn, &mut self.store.jobs) else { break };
            let Some(old) = self.store.row(at) else { continue };
            if !self.key_admits(&old) {
                self.set_aside(at);
                continue;
            }
            let ticket = self.ticket();
            let event = Event::Deliver { worker: pull.worker, pool: pull.pool, pull: id };
            let mut job = old;
            if step(self.now, &mut job, &event, &self.stamp(ticket)).is_err() {
                continue;
            }
            pull.flying += 1;
            let spec = &mut self.queues.pools[pool as usize];
            spec.flying += 1;
            if let Some(rate) = spec.spec.rate {
                spec.bucket.take(self.now, rate);
            }
            self.put(at, &Change { expect: Some(old.version), row: Row::Job(job) });
            if let Some(key) = old.spec.key {
                self.stage_key(&old, &job, job.write);
                self.spend_key(key);
            }
            self.propose(ticket, Origin::Pull(id, pool));
        }
        self.set_pull(id, pull);
        if pull.flying == 0 {
            self.settle(id, pull, pool);
        }
    }

    /// Nothing of the pull is under way any more.
    fn settle(&mut self, id: CallId, pull: Pull, pool: u32) {
        if pull.got > 0 || pull.until <= self.now {
            return self.answer(id, Answer::Pulled { jobs: pull.got });
        }
        // Oldest first, whenever it was parked.
        let parked = &mut self.queues.pools[pool as usize].parked;
        if let Err(place) = parked.binary_search(&id) {
            parked.insert(place, id);
        }
        self.patience.insert((pull.until, id));
        self.queues.woken.remove(&pool);
        self.doze(pool);
    }

    /// Whoever is parked at a pool that its rate holds back is looked at when the rate lets the next job go.
    pub(super) fn doze(&mut self, pool: u32) {
        let slot = &self.queues.pools[pool as usize];
        if let Some(until) = slot.throttled_until(self.now).filter(|_| slot.has_work()) {
            self.sleepers.insert((until, Sleeper::Pool(pool)));
        }
    }

    /// A delivery of the pull was settled.
    pub(super) fn served(&mut self, id: CallId) {
        let Some(pull) = self.pull_of(id).filter(|pull| pull.flying == 0) else { return };
        if pull.got > 0 {
            self.answer(id, Answer::Pulled { jobs: pull.got });
        } else {
            self.serve(id);
        }
    }

    pub(super) fn unpark(&mut self, id: CallId) {
        let Some(pull) = self.pull_of(id) else { return };
        let Some(pool) = self.queues.pool(pull.pool) else { return };
        let parked = &mut self.queues.pools[pool as usize].parked;
        if let Ok(place) = parked.binary_search(&id) {
            parked.remove(place);
        }
        self.patience.remove(&(pull.until, id));
    }

    /// The pull's patience has ended.
    pub(super) fn give_up(&mut self, id: CallId) {
        self.unpark(id);
        self.answer(id, Answer::Pulled { jobs: 0 });
    }

    /// The worker never saw the answer to `previous`: what was assigned by it is read again, and assigned again if
    /// the row still says so.
    pub(super) fn redeliver(&mut self, id: CallId, worker: Worker, previous: CallId) {
        let held = self.store.jobs_held(worker.name).filter_map(|at| {
            let slot = self.store.jobs.get(at).filter(|slot| slot.state == State::Scheduled && slot.lock.is_free())?;
            let delivery = self.store.delivery(slot).filter(|d| d.worker == worker && d.pull == previous)?;
            Some(delivery.token(slot.key()))
        });
        let mut lost: alloc::vec::Vec<LeaseToken> = held.collect();
        lost.sort_unstable();
        let Some(mut pull) = self.pull_of(id) else { return };
        for token in lost.into_iter().take(pull.want as usize) {
            pull.flying += 1;
            self.ask(Want::Job(token.key.job), Purpose::Again(id, token));
        }
        self.set_pull(id, pull);
    }

    /// The row of a lost assignment was read again.
    pub(super) fn reassign(&mut self, id: CallId, token: LeaseToken) {
        let now = self.now;
        let found = self.job(token.key.job);
        let still = found.filter(|job| job.state == State::Scheduled && job.token() == Some(token) && job.until > now);
        let Some(Call { work: Work::Pull(pull), .. }) = self.calls.get_mut(id) else { return };
        pull.flying -= 1;
        if let Some((job, delivery)) = still.and_then(|job| Some((job, job.delivery?))) {
            pull.got += 1;
            self.effects.push_back(Effect::Assign { call: id, assignment: assignment(&job, token, delivery) });
        }
        self.served(id);
    }
}
