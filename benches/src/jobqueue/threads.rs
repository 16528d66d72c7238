//! The face for many threads: whole lives of jobs on two threads, beside the same on one.

use std::thread;

use tenon_jobqueue::{
    Act, Assignment, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, Outcome, PipelineId, PoolId,
    PoolSpec, PullRequest, Shared, Submission, Tag, Timestamp, Worker, WorkerName,
};

use crate::{Bound, Row, Scale, interleave};

const NOW: Timestamp = Timestamp::from_millis(1);
const STRIPES: u64 = 64;
const TAGS: u64 = 100;

/// The figure that needs two cores.
pub(super) fn row(scale: Scale) -> Row {
    let each = scale.pick(200_000, 40_000) as u64;
    let config = Config::builder(Incarnation::new(0)).seed(1).build();
    let lives: Vec<Incarnation> = (1..=STRIPES).map(Incarnation::new).collect();
    let shared = config.ok().and_then(|config| Shared::new(&config, &lives));
    let Some(shared) = shared else { unreachable!("the defaults are valid") };
    let tags = (0..TAGS).map(tag).collect();
    let put = shared.put_pool(NOW, &PoolSpec { id: PoolId::new(1), tags, ..PoolSpec::default() });
    assert!(put.is_ok(), "{put:?}");
    let mut next = 1;
    let mut some = |threads: u64| {
        let first = next;
        next += 2 * each;
        let share = 2 * each / threads;
        thread::scope(|scope| {
            for at in 0..threads {
                let (shared, from) = (&shared, first + at * share);
                scope.spawn(move || (from..from + share).for_each(|number| life(shared, number)));
            }
        });
        usize::try_from(2 * each).unwrap_or(0)
    };
    let some = std::cell::RefCell::new(&mut some);
    let pair = interleave(5, || (some.borrow_mut())(2), || (some.borrow_mut())(1));
    Row::new("whole lives on two threads, against one", 1.0 / pair.ratio, "x", Bound::AtLeast(1.6))
        .note(format!("{STRIPES} stripes; {} jobs/s on one", crate::short(1e9 / pair.peer_ns)))
}

fn tag(number: u64) -> Tag {
    Tag::new(u32::try_from(number % TAGS).unwrap_or(0), 1)
}

/// A command within one stripe, and what follows from it.
fn ask<T, E: std::fmt::Debug>(
    shared: &Shared,
    pipeline: PipelineId,
    command: impl FnOnce(&mut Engine) -> Result<T, E>,
) -> Option<Assignment> {
    let told = shared.of(pipeline, |engine| {
        let said = command(engine);
        assert!(said.is_ok(), "{:?}", said.err());
        let mut assigned = None;
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => engine.handle_committed(NOW, ticket),
                Effect::Assign { assignment, .. } => assigned = Some(assignment),
                Effect::Fetch { .. }
                | Effect::Abort { .. }
                | Effect::Poll { .. }
                | Effect::Judge { .. }
                | Effect::Answer { .. }
                | Effect::Closed { .. } => {}
            }
        }
        assigned
    });
    told.flatten()
}

/// Enqueue, pull, acknowledge, finish: the stripe is locked for each by itself.
fn life(shared: &Shared, number: u64) {
    let worker = Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) };
    let pipeline = PipelineId::new(number);
    let jobs = [NewJob { id: JobId::new(number), spec: JobSpec::default(), tag: Some(tag(number)) }];
    let new = Submission { id: pipeline, class: Class::new(0), priority: 0, jobs: &jobs, needs: &[] };
    let pull = PullRequest { pool: PoolId::new(1), worker, want: 1, wait_ms: 0, previous: None };
    ask(shared, pipeline, |engine| engine.submit(NOW, &new));
    let Some(job) = ask(shared, pipeline, |engine| engine.pull(NOW, &pull)) else { return };
    for act in [Act::Ack, Act::Report(Outcome::Succeeded)] {
        ask(shared, job.pipeline, |engine| engine.work(NOW, worker, job.token, act));
    }
}
