//! Instruction counts of the hot paths of `tenon-jobqueue`. A count does not depend on how busy the machine is, so the
//! limit beside each is a guard: what exceeds it has become slower, and the run fails.
#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::unwrap_used,
    reason = "a bench: its entry point is generated, and it fails by panicking"
)]

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use tenon_jobqueue::{
    Act, Assignment, CallId, Class, Config, Effect, Engine, Event, Incarnation, Job, JobId, JobSpec, LeaseToken,
    NewJob, Outcome, PipelineId, PoolId, PoolKind, PoolSpec, PullRequest, Service, Stamp, Submission, Tag, Timestamp,
    Transition, Worker, WorkerName, transition,
};

fn limit(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

const NOW: Timestamp = Timestamp::from_millis(1);
const POOL: PoolId = PoolId::new(1);
const WORKER: Worker = Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) };
const TAGS: u64 = 100;

/// A host in memory with some jobs in each of its queues, warm.
struct Host {
    engine: Engine,
    next: u64,
    assigned: Vec<Assignment>,
}

impl Host {
    fn new() -> Self {
        let mut engine = Engine::new(Config::builder(Incarnation::new(1)).seed(1).build().unwrap());
        let (kind, service) = (PoolKind::Preset, Service::Open);
        let tags = (0..TAGS).map(Self::tag).collect();
        engine
            .put_pool(NOW, PoolSpec { id: POOL, kind, tags, max_leases: u32::MAX, service, ..PoolSpec::default() })
            .unwrap();
        let mut host = Self { engine, next: 1, assigned: Vec::with_capacity(64) };
        (0..2_000).for_each(|_| host.submit());
        (0..100).for_each(|_| host.life());
        // As many writes under way at once as are measured, so that their memory is there.
        host.ask(16);
        host.settle();
        for job in std::mem::take(&mut host.assigned) {
            host.say(job.token, Act::Report(Outcome::Succeeded));
        }
        host.assigned.reserve(64);
        host
    }

    fn tag(number: u64) -> Tag {
        Tag::new(u32::try_from(number % TAGS).unwrap(), 1)
    }

    fn settle(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    black_box(self.engine.changes(ticket).len());
                    self.engine.handle_committed(NOW, ticket);
                }
                Effect::Assign { assignment, .. } => self.assigned.push(assignment),
                Effect::Fetch { .. }
                | Effect::Abort { .. }
                | Effect::Poll { .. }
                | Effect::Judge { .. }
                | Effect::Answer { .. }
                | Effect::Closed { .. } => {}
            }
        }
    }

    fn submit(&mut self) {
        let number = self.next;
        self.next += 1;
        let job = NewJob { id: JobId::new(number), spec: JobSpec::default(), tag: Some(Self::tag(number)) };
        let new =
            Submission { id: PipelineId::new(number), class: Class::new(0), priority: 0, jobs: &[job], needs: &[] };
        self.engine.submit(NOW, &new).unwrap();
        self.settle();
    }

    fn ask(&mut self, want: u32) {
        let pull = PullRequest { pool: POOL, worker: WORKER, want, wait_ms: 0, previous: None };
        self.engine.pull(NOW, &pull).unwrap();
    }

    fn say(&mut self, token: LeaseToken, act: Act) {
        self.engine.work(NOW, WORKER, token, act).unwrap();
        self.settle();
    }

    /// Enqueue, decide, pull, acknowledge, finish: one job in, one job out.
    fn life(&mut self) {
        self.submit();
        self.ask(1);
        self.settle();
        while let Some(job) = self.assigned.pop() {
            self.say(job.token, Act::Ack);
            self.say(job.token, Act::Report(Outcome::Succeeded));
        }
    }
}

fn row() -> Box<Job> {
    Box::new(Host::new().engine.job(JobId::new(1_500)).unwrap())
}

#[library_benchmark(config = limit(LIMITS.transition))]
#[bench::delivered(row())]
fn one_transition(row: Box<Job>) -> Transition {
    let event = Event::Deliver { worker: WORKER, pool: POOL, pull: CallId::new(1) };
    transition(NOW, black_box(&*row), black_box(&event), &Stamp::default()).unwrap()
}

#[library_benchmark(config = limit(LIMITS.pull))]
#[bench::sixteen(Host::new())]
fn pull(mut host: Host) -> Host {
    black_box(&mut host).ask(16);
    host
}

#[library_benchmark(config = limit(LIMITS.life))]
#[bench::hundred_tags(Host::new())]
fn life(mut host: Host) -> Host {
    black_box(&mut host).life();
    host
}

/// The most instructions each may take: what was measured, and a twentieth.
struct Limits {
    transition: u64,
    pull: u64,
    life: u64,
}

const LIMITS: Limits = Limits { transition: 610, pull: 15_800, life: 12_200 };

library_benchmark_group!(name = hot, benchmarks = [one_transition, pull, life]);
main!(library_benchmark_groups = hot);
