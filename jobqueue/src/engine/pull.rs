//! Pulls: served at once, parked while there is nothing, woken when something comes.

use super::call::{Pull, Work};
use super::flight::{Origin, assignment};
use super::{Engine, Purpose, Sleeper};
use crate::effect::{Answer, Effect, Row, Want};
use crate::event::Event;
use crate::id::{CallId, JobKey, LeaseToken, Worker};
use crate::job::State;
use crate::store::NONE;
use crate::transition::step;

impl Engine {
    fn pull_of(&mut self, id: CallId) -> Option<&mut Pull> {
        match &mut self.calls.get_mut(id)?.work {
            Work::Pull(pull) => Some(pull),
            Work::Submit(_) | Work::Event(..) | Work::AbortPipeline(_) | Work::RetryPipeline(_) => None,
        }
    }

    /// Proposes a delivery for each job that the pull can have; parks it if there is none.
    pub(super) fn serve(&mut self, id: CallId) {
        let Some(pull) = self.pull_of(id).copied() else { return };
        let mut flying = pull.flying;
        let pool = &self.queues.pools[pull.pool as usize];
        let (name, mut turn) = (pool.spec.id, self.queues.turn(pull.pool, &mut self.rng));
        while flying + pull.got < pull.want && self.queues.pools[pull.pool as usize].room(self.now) > 0 {
            let Some(at) = self.queues.take(pull.pool, &mut turn, &mut self.store.jobs) else { break };
            let Some(mut job) = self.store.row(at) else { continue };
            if job.spec.key.is_some() && !self.key_admits(&job) {
                self.set_aside(at);
                self.found_taken(at);
                continue;
            }
            let ticket = self.ticket();
            let event = Event::Deliver { worker: pull.worker, pool: name, pull: id };
            let expect = job.version;
            if step(self.now, &mut job, &event, &self.stamp(ticket)).is_err() {
                continue;
            }
            flying += 1;
            self.queues.pools[pull.pool as usize].spend(self.now);
            self.put_job(ticket, at, expect, &job);
            if let Some(life) = self.life.row.filter(|_| self.queues.pools[pull.pool as usize].share.is_some()) {
                // Not made if another engine has ended this life and counts what is charged to it.
                self.scratch.add(Some(life.version), Row::Life(life), NONE);
            }
            if job.spec.key.is_some() {
                self.stage_key(None, &job);
            }
            self.propose(ticket, Origin::Pull(id, pull.pool));
        }
        if let Some(pull) = self.pull_of(id) {
            pull.flying = flying;
        }
        let missed = pull.want - flying - pull.got;
        if missed > 0 && self.queues.pools[pull.pool as usize].is_starved(self.now) {
            self.seek_share(pull.pool, missed);
        }
        if flying == 0 {
            self.settle(id, pull);
        }
    }

    /// Nothing of the pull is under way any more.
    fn settle(&mut self, id: CallId, pull: Pull) {
        let share = self.queues.pools[pull.pool as usize].share.as_ref();
        // A pull that does not wait does wait for what this engine may give out.
        let looks = pull.is_hasty() && share.is_some_and(|share| share.is_moving() || self.life.lock.is_some());
        if pull.got > 0 || (pull.until <= self.now && !looks) {
            return self.answer(id, Answer::Pulled { jobs: pull.got });
        }
        // Oldest first, whenever it was parked.
        let parked = &mut self.queues.pools[pull.pool as usize].parked;
        if let Err(place) = parked.binary_search(&id) {
            parked.insert(place, id);
        }
        if !pull.is_hasty() {
            self.patience.insert((pull.until, id));
        }
        self.queues.woken.remove(&pull.pool);
        self.doze(pull.pool);
    }

    /// Sets the time to look at parked pulls again when the pool's rate lets the next job go.
    pub(super) fn doze(&mut self, pool: u32) {
        let slot = &self.queues.pools[pool as usize];
        if let Some(until) = slot.throttled_until(self.now).filter(|_| slot.has_work()) {
            self.sleepers.insert((until, Sleeper::Pool(pool)));
        }
    }

    /// A delivery of the pull was settled.
    pub(super) fn served(&mut self, id: CallId) {
        let Some(pull) = self.pull_of(id).filter(|pull| pull.flying == 0) else { return };
        let got = pull.got;
        if got > 0 {
            self.answer(id, Answer::Pulled { jobs: got });
        } else {
            self.serve(id);
        }
    }

    pub(super) fn unpark(&mut self, id: CallId) {
        let Some(pull) = self.pull_of(id).copied() else { return };
        let parked = &mut self.queues.pools[pull.pool as usize].parked;
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
    #[cold]
    pub(super) fn redeliver(&mut self, id: CallId, worker: Worker, previous: CallId) {
        let held = self.store.jobs_held(worker.name).filter_map(|at| {
            let slot = self.store.jobs.get(at).filter(|slot| slot.state == State::Scheduled && slot.lock.is_free())?;
            let delivery = self.store.delivery(slot).filter(|d| d.worker == worker && d.pull == previous)?;
            Some(delivery.token(JobKey { job: slot.id(), attempt: self.store.attempt(slot) }))
        });
        let mut lost: alloc::vec::Vec<LeaseToken> = held.collect();
        lost.sort_unstable();
        let Some(pull) = self.pull_of(id) else { return };
        lost.truncate(pull.want as usize);
        pull.flying += u32::try_from(lost.len()).unwrap_or(0);
        for token in lost {
            self.ask(Want::Job(token.key.job), Purpose::Again(id, token));
        }
    }

    /// The row of a lost assignment was read again.
    #[cold]
    pub(super) fn reassign(&mut self, id: CallId, token: LeaseToken) {
        let now = self.now;
        let found = self.job(token.key.job);
        let still = found.filter(|job| job.state == State::Scheduled && job.token() == Some(token) && job.until > now);
        let Some(pull) = self.pull_of(id) else { return };
        pull.flying -= 1;
        if let Some((job, delivery)) = still.and_then(|job| Some((job, job.delivery?))) {
            pull.got += 1;
            self.effects.push_back(Effect::Assign { call: id, assignment: assignment(&job, token, delivery) });
        }
        self.served(id);
    }
}
