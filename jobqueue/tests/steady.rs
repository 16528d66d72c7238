//! In its steady state an engine allocates nothing for a job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tenon_jobqueue::{
    Act, Answer, Assignment, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, Outcome, PipelineId,
    PoolId, PoolSpec, PullRequest, Submission, Tag, Timestamp, Turns, Worker, WorkerName,
};

const TAGS: u32 = 20;

/// An engine whose database never fails, and what it has given out.
struct Steady {
    engine: Engine,
    now: Timestamp,
    next: u64,
    assigned: Vec<Assignment>,
}

impl Steady {
    fn new(turns: Turns, backlog: u64) -> Self {
        let mut engine = Engine::new(Config::builder(Incarnation::new(1)).build().unwrap());
        let now = Timestamp::from_millis(1);
        let tags = (0..TAGS).map(|tag| Tag::new(tag, 1)).collect();
        engine.put_pool(now, PoolSpec { id: PoolId::new(1), tags, turns, ..PoolSpec::default() }).unwrap();
        let mut steady = Self { engine, now, next: 0, assigned: Vec::with_capacity(16) };
        (0..backlog).for_each(|_| steady.submit());
        steady
    }

    fn settle(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => self.engine.handle_committed(self.now, ticket),
                Effect::Assign { assignment, .. } => self.assigned.push(assignment),
                Effect::Answer { answer, .. } => assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}"),
                Effect::Closed { .. } => {}
                other @ (Effect::Fetch { .. } | Effect::Abort { .. } | Effect::Poll { .. } | Effect::Judge { .. }) => {
                    panic!("nobody asked for {other:?}")
                }
            }
        }
    }

    fn submit(&mut self) {
        self.next += 1;
        let tag = Some(Tag::new(u32::try_from(self.next % u64::from(TAGS)).unwrap(), 1));
        let jobs = [NewJob { id: JobId::new(self.next), spec: JobSpec::default(), tag }];
        let (id, class, priority) = (PipelineId::new(self.next), Class::new(0), 0);
        self.engine.submit(self.now, &Submission { id, class, priority, jobs: &jobs, needs: &[] }).unwrap();
        self.settle();
    }

    /// One job in, one job through its life and out.
    fn life(&mut self) {
        self.now = self.now.after_millis(1);
        self.submit();
        let worker = Worker { name: WorkerName::new(self.next % 7), incarnation: Incarnation::new(1) };
        let request = PullRequest { pool: PoolId::new(1), worker, want: 1, wait_ms: 0, previous: None };
        self.engine.pull(self.now, &request).unwrap();
        self.settle();
        let job = self.assigned.pop().unwrap();
        for act in [Act::Ack, Act::Report(Outcome::Succeeded)] {
            self.engine.work(self.now, worker, job.token, act).unwrap();
            self.settle();
        }
    }
}

#[test]
fn a_life_allocates_nothing_once_warm() {
    // An order by shares or by priority is a tree, which takes and gives back a node now and then.
    for (turns, each_hundred) in [(Turns::Rotation, 0), (Turns::Fair, 25), (Turns::Priority, 25)] {
        let mut steady = Steady::new(turns, 5_000);
        (0..20_000).for_each(|_| steady.life());
        let counted = allocation_counter::measure(|| (0..20_000).for_each(|_| steady.life()));
        assert!(counted.count_total <= 20 + 200 * each_hundred, "{turns:?}: {} in 20,000 lives", counted.count_total);
        assert!(counted.bytes_current.abs() < 1 << 20, "{turns:?}: it neither grows nor shrinks");
    }
}
