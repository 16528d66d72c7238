//! Figures of `tenon-jobqueue`, beside a straightforward in-process queue and real queue servers.

mod servers;
mod threads;
mod timers;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tenon_jobqueue::{
    Act, Assignment, Class, Config, Effect, Engine, Event, Incarnation, Job, JobId, JobKey, JobSpec, LeaseToken,
    NewJob, Outcome, PipelineId, PoolId, PoolSpec, PullRequest, Row as DbRow, Stamp, Submission, Tag, Ticket,
    Timestamp, Worker, WorkerName, WriteId, transition,
};
use tokio_util::time::DelayQueue;

use crate::{Bound, Row, Scale, allocations, bytes_held, interleave, median_ns};

const TAGS: u32 = 1_000;
const POOLS: u32 = 100;

/// Every figure of the crate.
#[must_use]
pub fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(life(scale));
    rows.push(one_transition());
    rows.extend(pull(scale));
    rows.push(memory(scale));
    rows.extend(timers::rows(scale));
    rows.push(rebuild(scale));
    rows.push(threads::row(scale));
    rows.extend(servers::rows(scale));
    rows
}

fn worker() -> Worker {
    Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) }
}

fn tag(number: u64) -> Tag {
    Tag::new(u32::try_from(number % u64::from(TAGS)).unwrap_or(0), 1)
}

/// An engine whose host is memory: it reads each proposed row and says that it is written.
struct Host {
    engine: Engine,
    now: Timestamp,
    next: u64,
    assigned: Vec<Assignment>,
    read: u64,
}

impl Host {
    fn new(pools: u32, tags: u32) -> Self {
        let config = Config::builder(Incarnation::new(1)).seed(1).build();
        let Ok(config) = config else { unreachable!("the defaults are valid") };
        let mut engine = Engine::new(config);
        let now = Timestamp::from_millis(1);
        for pool in 0..pools {
            let share = tags / pools;
            let tags = (pool * share..(pool + 1) * share).map(|tag| Tag::new(tag, 1)).collect();
            let id = PoolId::new(pool);
            let put = engine.put_pool(now, PoolSpec { id, tags, ..PoolSpec::default() });
            assert!(put.is_ok(), "{put:?}");
        }
        Self { engine, now, next: 1, assigned: Vec::new(), read: 0 }
    }

    fn settle(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    for change in self.engine.changes(ticket) {
                        self.read += u64::from(change.row.version().get());
                    }
                    self.engine.handle_committed(self.now, ticket);
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
        self.submit_as(number, tag(number));
    }

    fn submit_as(&mut self, number: u64, tag: Tag) {
        let job = NewJob { id: JobId::new(number), spec: JobSpec::default(), tag: Some(tag) };
        self.submit_all(number, &[job]);
    }

    fn submit_all(&mut self, pipeline: u64, jobs: &[NewJob]) {
        let (id, class) = (PipelineId::new(pipeline), Class::new(0));
        let call = self.engine.submit(self.now, &Submission { id, class, priority: 0, jobs, needs: &[] });
        assert!(call.is_ok(), "{call:?}");
        self.settle();
    }

    fn pull(&mut self, pool: u32, want: u32) {
        let request = PullRequest { pool: PoolId::new(pool), worker: worker(), want, wait_ms: 0, previous: None };
        let call = self.engine.pull(self.now, &request);
        assert!(call.is_ok(), "{call:?}");
        self.settle();
    }

    fn say(&mut self, token: LeaseToken, act: Act) {
        let call = self.engine.work(self.now, worker(), token, act);
        assert!(call.is_ok(), "{call:?}");
        self.settle();
    }

    /// Enqueue, decide, pull, ack, finish: one job in, one job out.
    fn life(&mut self) {
        self.now = self.now.after_millis(self.next % 2);
        self.submit();
        self.pull(u32::try_from(self.next % u64::from(POOLS)).unwrap_or(0), 1);
        while let Some(job) = self.assigned.pop() {
            self.say(job.token, Act::Ack);
            self.say(job.token, Act::Report(Outcome::Succeeded));
        }
    }
}

/// What somebody writes in an afternoon: a heap a tag and a map of jobs behind one mutex, and a delay queue.
struct Plain {
    inner: Mutex<PlainInner>,
}

struct PlainInner {
    heaps: HashMap<u32, BinaryHeap<(u8, Reverse<u64>)>>,
    jobs: HashMap<u64, (u8, u32, [u64; 8])>,
    delays: DelayQueue<u64>,
    next: u64,
    turn: u32,
}

impl Plain {
    fn new() -> Self {
        let inner =
            PlainInner { heaps: HashMap::new(), jobs: HashMap::new(), delays: DelayQueue::new(), next: 1, turn: 0 };
        Self { inner: Mutex::new(inner) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut PlainInner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn submit(&self) {
        self.with(|inner| {
            let id = inner.next;
            inner.next += 1;
            let tag = u32::try_from(id % u64::from(TAGS)).unwrap_or(0);
            inner.jobs.insert(id, (0, tag, [id; 8]));
            inner.heaps.entry(tag).or_default().push((0, Reverse(id)));
        });
    }

    fn life(&self) {
        self.submit();
        let pulled = self.with(|inner| {
            for _ in 0..TAGS {
                inner.turn = (inner.turn + 1) % TAGS;
                let turn = inner.turn;
                let Some((_, Reverse(id))) = inner.heaps.get_mut(&turn).and_then(BinaryHeap::pop) else { continue };
                if let Some(job) = inner.jobs.get_mut(&id) {
                    job.0 = 1;
                }
                return Some((id, inner.delays.insert(id, Duration::from_secs(10))));
            }
            None
        });
        let Some((id, key)) = pulled else { return };
        let key = self.with(|inner| {
            inner.delays.remove(&key);
            if let Some(job) = inner.jobs.get_mut(&id) {
                job.0 = 2;
            }
            inner.delays.insert(id, Duration::from_mins(1))
        });
        self.with(|inner| {
            inner.delays.remove(&key);
            black_box(inner.jobs.remove(&id));
        });
    }
}

fn life(scale: Scale) -> Vec<Row> {
    let backlog = scale.pick(1_000_000, 100_000);
    let batch = scale.pick(100_000, 20_000);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        return vec![Row::absent("whole life of a job", "jobs/s", "no runtime for the peer")];
    };
    let _context = runtime.enter();
    let mut host = Host::new(POOLS, TAGS);
    let plain = Plain::new();
    for _ in 0..backlog {
        host.submit();
        plain.submit();
    }
    let pair = interleave(
        5,
        || {
            (0..batch).for_each(|_| host.life());
            batch
        },
        || {
            (0..batch).for_each(|_| plain.life());
            batch
        },
    );
    let (ours, theirs) = (1e9 / pair.subject_ns, 1e9 / pair.peer_ns);
    let steady = allocations(|| (0..batch).for_each(|_| host.life()));
    #[allow(clippy::cast_precision_loss, reason = "a count for a table")]
    let each = steady as f64 / batch as f64;
    let what = format!("{backlog} jobs waiting, {TAGS} tags, {POOLS} pools; the host reads each row");
    vec![
        Row::new("whole life of a job, one core", ours, "jobs/s", Bound::AtLeast(1.5e6)).note(what),
        Row::new("whole life against a plain queue", ours, "jobs/s", Bound::RatioAtLeast(3.0)).beside(
            "heaps, map and DelayQueue behind a mutex",
            theirs,
            1.0 / pair.ratio,
        ),
        Row::new("allocations for each job, warm", each, "allocations", Bound::AtMost(0.01)),
    ]
}

fn one_transition() -> Row {
    let mut host = Host::new(1, 1_000);
    host.submit();
    let Some(job) = host.engine.job(JobId::new(1)) else { unreachable!("it was submitted") };
    let jobs: Vec<Job> =
        (0..1_024).map(|number| Job { key: JobKey { job: JobId::new(number), ..job.key }, ..job }).collect();
    let event = Event::Deliver { worker: worker(), pool: PoolId::new(0), pull: tenon_jobqueue::CallId::new(1) };
    let stamp = Stamp { write: WriteId { engine: Incarnation::new(1), ticket: Ticket::new(9) }, chance: 1 };
    let ns = median_ns(9, || {
        for _ in 0..1_000 {
            for job in &jobs {
                black_box(transition(host.now, black_box(job), &event, &stamp).is_ok());
            }
        }
        1_000 * jobs.len()
    });
    Row::new("one transition of a row", ns, "ns", Bound::AtMost(60.0)).note("stateless; the row is at hand")
}

/// One batch of 16 pulled: popped, leased, proposed. What the host does with it is no part of it.
fn pull_ns(scale: Scale, others: u32) -> f64 {
    let mut host = Host::new(1, 10);
    for number in 0..others {
        host.submit_as(1 << 40 | u64::from(number), Tag::new(number, 2));
    }
    let batches = scale.pick(2_000, 500);
    let request = PullRequest { pool: PoolId::new(0), worker: worker(), want: 16, wait_ms: 0, previous: None };
    let (mut next, mut proposed) = (1_u64 << 50, Vec::new());
    let mut rounds = Vec::new();
    for _ in 0..7 {
        for _ in 0..batches * 16 {
            next += 1;
            host.submit_as(next, Tag::new(u32::try_from(next % 10).unwrap_or(0), 1));
        }
        let mut spent = Duration::ZERO;
        for _ in 0..batches {
            let start = std::time::Instant::now();
            let call = host.engine.pull(host.now, &request);
            while let Some(effect) = host.engine.poll_effect() {
                proposed.push(effect);
            }
            spent += start.elapsed();
            assert!(call.is_ok() && proposed.len() == 16, "{call:?}");
            for effect in proposed.drain(..) {
                if let Effect::Persist { ticket } = effect {
                    host.engine.handle_committed(host.now, ticket);
                }
            }
            host.settle();
            for job in std::mem::take(&mut host.assigned) {
                host.say(job.token, Act::Report(Outcome::Succeeded));
            }
        }
        rounds.push(spent.as_secs_f64() * 1e9 / f64::from(u32::try_from(batches * 16).unwrap_or(1)));
    }
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn pull(scale: Scale) -> Vec<Row> {
    let few = pull_ns(scale, 1_000);
    let many = pull_ns(scale, u32::try_from(scale.pick(100_000, 20_000)).unwrap_or(0));
    vec![
        Row::new("pull, batch 16, each job", few, "ns", Bound::AtMost(120.0))
            .note("popped, proposed; 1,000 tags outside"),
        Row::new("pull with 100 times the tags outside", many, "ns", Bound::RatioAtMost(1.1)).beside(
            "1,000 tags outside",
            few,
            many / few,
        ),
    ]
}

fn memory(scale: Scale) -> Row {
    let count = scale.pick(10_000_000, 1_000_000);
    let (host, bytes) = bytes_held(|| {
        let mut host = Host::new(POOLS, TAGS);
        let mut jobs = Vec::new();
        for number in 1..=count as u64 {
            jobs.push(NewJob { id: JobId::new(number), spec: JobSpec::default(), tag: Some(tag(number)) });
            if jobs.len() == 100 {
                host.submit_all(number, &jobs);
                jobs.clear();
            }
        }
        host
    });
    #[allow(clippy::cast_precision_loss, reason = "a count for a table")]
    let each = bytes as f64 / count as f64;
    let jobs = host.engine.jobs();
    Row::new("memory of a queued job", each, "bytes", Bound::AtMost(96.0))
        .note(format!("{jobs} jobs, 100 to a pipeline; all that the engine holds, slack included"))
}

fn rebuild(scale: Scale) -> Row {
    let count = scale.pick(1_000_000, 100_000);
    let mut host = Host::new(POOLS, TAGS);
    (0..count).for_each(|_| host.submit());
    let mut table = Vec::new();
    for number in 1..=count as u64 {
        table.extend(host.engine.job(JobId::new(number)).map(DbRow::Job));
        table.extend(host.engine.pipeline(PipelineId::new(number)).cloned().map(DbRow::Pipeline));
    }
    drop(host);
    let mut fresh = Host::new(POOLS, TAGS);
    let start = std::time::Instant::now();
    let told = fresh.engine.load(fresh.now, &table);
    let spent = start.elapsed().as_secs_f64();
    assert_eq!(told.taken as usize, table.len(), "every row is taken");
    Row::new("rebuild from rows", spent, "s", Bound::AtMost(1.0)).note(format!("{count} jobs, each with a pipeline"))
}
