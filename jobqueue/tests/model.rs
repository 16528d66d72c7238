//! The engine against a naive reference: one tag, one pool, a list of jobs that is searched from end to end.
#![allow(unused_must_use, reason = "answers are compared by what they tell")]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a failure is replayed by its seed")]

mod common;
#[path = "common/sim.rs"]
mod sim;

use common::{Host, new_job, pool};
use sim::Dice;
use std::collections::BTreeMap;
use tenon_jobqueue::{Act, Answer, Assignment, JobId, NewJob, Outcome, State, Tag};

const ACK: u64 = 10_000;
const LEASE: u64 = 60_000;
const LEASES: usize = 6;

/// A job of the reference.
#[derive(Clone, Debug)]
struct Naive {
    id: u64,
    pipeline: u64,
    order: u32,
    priority: u8,
    state: State,
    /// When it came into its queue, and its number there.
    place: (u64, u64),
    due: u64,
}

/// The reference: every rule said once, in the slowest way.
#[derive(Default)]
struct Model {
    now: u64,
    jobs: Vec<Naive>,
}

impl Model {
    fn job(&mut self, id: u64) -> &mut Naive {
        self.jobs.iter_mut().find(|job| job.id == id).unwrap()
    }

    fn submit(&mut self, pipeline: u64, priority: u8, orders: &[(u64, u32)]) {
        for (id, order) in orders {
            let (id, order) = (*id, *order);
            let place = (0, self.jobs.len() as u64);
            self.jobs.push(Naive { id, pipeline, order, priority, state: State::Unstart, place, due: u64::MAX });
        }
        self.decide();
    }

    /// A pipeline with nothing in progress opens its smallest order; after a bad end the rest is skipped.
    fn decide(&mut self) {
        let pipelines: Vec<u64> = self.jobs.iter().map(|job| job.pipeline).collect();
        for pipeline in pipelines {
            let mine: Vec<&Naive> = self.jobs.iter().filter(|job| job.pipeline == pipeline).collect();
            let busy = mine.iter().any(|job| job.state != State::Unstart && !job.state.is_terminal());
            let next = mine.iter().filter(|job| job.state == State::Unstart).map(|job| job.order).min();
            let before = mine.iter().filter(|job| next.is_some_and(|next| job.order < next));
            let bad = before.clone().any(|job| matches!(job.state, State::Failed | State::Dead | State::Aborted));
            let now = self.now;
            for job in self.jobs.iter_mut().filter(|job| job.pipeline == pipeline && job.state == State::Unstart) {
                if !busy && (bad || Some(job.order) == next) {
                    job.state = if bad { State::Skipped } else { State::Pending };
                    job.place.0 = now;
                }
            }
        }
    }

    fn pull(&mut self, want: usize) -> Vec<u64> {
        let mut got = Vec::new();
        let held = |job: &&Naive| matches!(job.state, State::Scheduled | State::Running | State::Aborting);
        while got.len() < want && self.jobs.iter().filter(held).count() < LEASES {
            let queue = self.jobs.iter_mut().filter(|job| job.state == State::Pending);
            let Some(job) = queue.min_by_key(|job| (u8::MAX - job.priority, job.place)) else { break };
            job.state = State::Scheduled;
            job.due = self.now + ACK;
            got.push(job.id);
        }
        got
    }

    /// What the holder of the job says; `live` is whether its delivery is still the job's.
    fn say(&mut self, id: u64, act: Act, live: bool) -> Option<State> {
        let now = self.now;
        let job = self.job(id);
        if !live {
            return None;
        }
        let before = job.state;
        job.state = match (job.state, act) {
            (State::Scheduled | State::Running, Act::Ack) | (State::Running, Act::Heartbeat) => State::Running,
            (State::Aborting, Act::Ack | Act::Heartbeat) => State::Aborting,
            (State::Scheduled | State::Running, Act::Report(Outcome::Succeeded)) => State::Succeeded,
            (State::Scheduled | State::Running, Act::Report(_)) => State::Failed,
            (State::Aborting, Act::Report(_)) => State::Aborted,
            _ => return None,
        };
        // Heartbeats in the first part of a lease are not written.
        let started = before == State::Scheduled && job.state == State::Running;
        let beat = act == Act::Heartbeat && job.state == State::Running && LEASE - (job.due - now) >= LEASE * 30 / 100;
        if started || beat {
            job.due = now + LEASE;
        }
        let state = job.state;
        self.decide();
        Some(state)
    }

    fn abort(&mut self, id: u64) {
        let now = self.now;
        let job = self.job(id);
        match job.state {
            State::Running => (job.state, job.due) = (State::Aborting, now + 30_000),
            state if state.is_terminal() || state == State::Aborting => {}
            _ => job.state = State::Aborted,
        }
        self.decide();
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        let timed = |job: &&mut Naive| matches!(job.state, State::Scheduled | State::Running | State::Aborting);
        while let Some(job) = self.jobs.iter_mut().filter(timed).filter(|j| j.due <= end).min_by_key(|j| (j.due, j.id))
        {
            self.now = self.now.max(job.due);
            match job.state {
                State::Scheduled => (job.state, job.place.0) = (State::Pending, self.now),
                State::Running => job.state = State::Dead,
                _ => job.state = State::Aborted,
            }
            self.decide();
        }
        self.now = end;
    }
}

/// A job that is given up when a lease is lost.
fn fragile(id: u64, order: u32) -> NewJob {
    let mut job = new_job(id, order);
    job.spec.policy.max_crashes = 1;
    job
}

/// One random step of both, compared.
fn step(dice: &mut Dice, model: &mut Model, host: &mut Host, held: &mut Vec<Assignment>, ids: &mut (u64, u64)) {
    match dice.roll(12) {
        0 | 1 => {
            let orders: Vec<(u64, u32)> =
                (0..=dice.roll(3)).map(|_| (ids.0.max(1), u32::try_from(dice.roll(3)).unwrap())).collect();
            let first = ids.0 + 1;
            let orders: Vec<(u64, u32)> = (first..).zip(orders).map(|(id, (_, order))| (id, order)).collect();
            ids.0 += orders.len() as u64;
            ids.1 += 1;
            let priority = u8::try_from(dice.roll(3)).unwrap();
            let jobs: Vec<NewJob> = orders.iter().map(|(id, order)| fragile(*id, *order)).collect();
            host.submit_as(ids.1, 0, priority, &jobs);
            model.submit(ids.1, priority, &orders);
        }
        2..=4 => {
            let want = 1 + dice.roll(3);
            let got = host.pull(1, u32::try_from(want).unwrap());
            let jobs: Vec<u64> = got.iter().map(|job| job.token.key.job.get()).collect();
            assert_eq!(jobs, model.pull(usize::try_from(want).unwrap()));
            held.extend(got);
        }
        5..=8 => {
            let Some(job) = dice.one(held) else { return };
            let acts = [Act::Ack, Act::Ack, Act::Heartbeat, Act::Report(Outcome::Succeeded)];
            let failed = Act::Report(Outcome::Failed { code: 1 });
            let act = if dice.roll(8) == 0 { failed } else { dice.one(&acts).unwrap() };
            let live = host.job(job.token.key.job.get()).token() == Some(job.token);
            let said = match host.say(&job, act) {
                Answer::Done { state, .. } => Some(state),
                _ => None,
            };
            assert_eq!(said, model.say(job.token.key.job.get(), act, live), "{act:?} {job:?}");
        }
        9 if ids.0 > 0 => {
            let id = 1 + dice.roll(ids.0);
            let call = host.engine.abort(host.now, JobId::new(id));
            host.answer(call);
            model.abort(id);
        }
        _ => {
            let ms = [1, 700, 9_000, 31_000].map(|ms| ms)[usize::try_from(dice.roll(4)).unwrap()];
            host.pass(ms);
            model.pass(ms);
        }
    }
}

#[test]
fn the_engine_and_the_reference_agree_on_every_job_after_every_step() {
    let seeds = std::env::var("SEED").map_or(0..200, |seed| seed.parse().unwrap()..seed.parse::<u64>().unwrap() + 1);
    for seed in seeds {
        println!("replay: SEED={seed} cargo test -p tenon-jobqueue --test model");
        let mut dice = Dice(seed);
        let mut host = Host::new();
        host.engine.put_pool(host.now, pool(1, &[Tag::OTHER], 6)).unwrap();
        let mut model = Model { now: host.now.as_millis(), ..Model::default() };
        let (mut held, mut ids) = (Vec::new(), (0, 0));
        for _ in 0..150 {
            step(&mut dice, &mut model, &mut host, &mut held, &mut ids);
            let states: BTreeMap<u64, State> = model.jobs.iter().map(|job| (job.id, job.state)).collect();
            let real: BTreeMap<u64, State> =
                host.db.borrow().jobs.values().map(|job| (job.id().get(), job.state)).collect();
            assert_eq!(real, states);
        }
    }
}
