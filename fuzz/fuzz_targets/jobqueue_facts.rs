//! Arbitrary commands and facts, in any order, with any ids: no panic; a refusal changes nothing; a twin made from the
//! snapshot answers alike; nothing outgrows its limit. Rows told by a database are those of proposed writes, altered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_jobqueue::*;

/// The input as a stream of small numbers; it ends in zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: u8) -> u64 {
        u64::from(self.next() % bound)
    }

    fn number(&mut self) -> u64 {
        match self.next() {
            255 => u64::MAX,
            254 => 1 << 40,
            small => u64::from(small % 12),
        }
    }
}

const LIMIT: u32 = 24;

fn config() -> Config {
    let mut limits = Limits::default();
    (limits.jobs, limits.pipelines, limits.calls, limits.keys, limits.tags) = (LIMIT, LIMIT, 16, 4, 6);
    Config::builder(Incarnation::new(1)).limits(limits).settling_ms(0).budget(8).build().unwrap()
}

fn token(bytes: &mut Bytes<'_>, seen: &[LeaseToken]) -> LeaseToken {
    let at = usize::from(bytes.next());
    let known = seen.get(at % seen.len().max(1)).copied();
    let key = JobKey { job: JobId::new(bytes.number()), attempt: Attempt::new(1) };
    known.filter(|_| at < 220).unwrap_or(LeaseToken { key, version: Version::FIRST, write: WriteId::default() })
}

fn act(bytes: &mut Bytes<'_>, now: Timestamp) -> Act {
    let later = now.after_millis(bytes.number());
    match bytes.below(10) {
        0 => Act::Nack,
        1 => Act::Heartbeat,
        2 => Act::Pause(later),
        3 => Act::Resume,
        4 => Act::Snooze(later),
        5 => Act::Suspend(later),
        6 => Act::Poll(later),
        7 => Act::Report(Outcome::Succeeded),
        8 => Act::Report(Outcome::Failed { code: 1 }),
        _ => Act::Ack,
    }
}

fn job(bytes: &mut Bytes<'_>) -> NewJob {
    let policy = Policy {
        max_attempts: bytes.next().into(),
        max_crashes: bytes.next().into(),
        lease_ms: u32::from(bytes.next()),
        timeout_ms: u32::from(bytes.next()),
        backoff_ms: if bytes.next() == 255 { u32::MAX } else { 1 },
        ..Policy::default()
    };
    let spec = JobSpec {
        order: u32::try_from(bytes.below(3)).unwrap(),
        start: [Start::Auto, Start::Manual, Start::After(u32::MAX)][usize::try_from(bytes.below(3)).unwrap()],
        when: [When::OnSuccess, When::OnFailure, When::Always][usize::try_from(bytes.below(3)).unwrap()],
        condition: [Condition::None, Condition::Ask][usize::try_from(bytes.below(2)).unwrap()],
        key: [None, Some(Key::new(bytes.number()))][usize::try_from(bytes.below(2)).unwrap()],
        on_newer: [OnNewer::Waits, OnNewer::GivesWay][usize::try_from(bytes.below(2)).unwrap()],
        policy,
        ..JobSpec::default()
    };
    let tag = Tag::new(u32::try_from(bytes.below(3)).unwrap(), 0);
    NewJob { id: JobId::new(bytes.number()), spec, tag: Some(tag) }
}

fn command(bytes: &mut Bytes<'_>, now: Timestamp, engine: &mut Engine, seen: &[LeaseToken]) -> Result<(), Refused> {
    let worker = Worker { name: WorkerName::new(bytes.below(3)), incarnation: Incarnation::new(bytes.below(2)) };
    let (id, pool) = (JobId::new(bytes.number()), PoolId::new(u32::try_from(bytes.below(3)).unwrap()));
    let call = match bytes.below(10) {
        0 | 1 => {
            let jobs: Vec<NewJob> = (0..bytes.below(5)).map(|_| job(bytes)).collect();
            let (id, priority) = (PipelineId::new(bytes.number()), bytes.next());
            engine.submit(now, &Submission { id, class: Class::new(0), priority, jobs: &jobs, needs: &[] })
        }
        2 | 3 => {
            let (want, wait_ms) = (u32::from(bytes.next()), bytes.number());
            let previous = [None, Some(CallId::new(bytes.number()))][usize::try_from(bytes.below(2)).unwrap()];
            engine.pull(now, &PullRequest { pool, worker, want, wait_ms, previous })
        }
        4 | 5 => {
            let token = token(bytes, seen);
            engine.work(now, worker, token, act(bytes, now))
        }
        6 => engine.callback(now, token(bytes, seen)),
        7 if bytes.below(2) == 0 => engine.approve(now, id),
        7 => engine.abort(now, id),
        8 => engine.retry(now, id),
        _ => engine.abort_pipeline(now, PipelineId::new(bytes.number())),
    };
    call.map(drop)
}

fn fact(bytes: &mut Bytes<'_>, now: Timestamp, engine: &mut Engine, written: &mut [Row]) {
    let (ticket, ask) = (Ticket::new(bytes.number()), AskId::new(bytes.number()));
    // A database that tells old rows, other rows, or rows that cannot be.
    for row in written.iter_mut() {
        if bytes.next() > 250
            && let Row::Job(job) = row
        {
            job.version = Version::new(bytes.number().try_into().unwrap_or(u32::MAX));
            job.state = State::from_code(bytes.next() % 16).unwrap();
        }
    }
    let from = usize::from(bytes.next()).min(written.len());
    let rows = &written[from..];
    match bytes.below(8) {
        0 => engine.handle_committed(now, ticket),
        1 => engine.handle_conflicted(now, ticket, rows),
        2 => engine.handle_unknown(now, ticket),
        3 => engine.handle_rows(now, ask, rows),
        4 => engine.handle_timeout(now),
        5 => drop(engine.compensate(now, rows)),
        6 => engine.cancel_pull(now, CallId::new(bytes.number())),
        _ => {
            let job = JobKey { job: JobId::new(bytes.number()), attempt: Attempt::FIRST };
            engine.handle_judged(now, job, Judgement::Pass);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let mut engine = Engine::new(config());
    let tags = vec![Tag::OTHER, Tag::new(1, 0)];
    let (id, kind, service) = (PoolId::new(1), PoolKind::Preset, Service::Open);
    engine
        .put_pool(Timestamp::ZERO, PoolSpec { id, kind, tags, max_leases: 6, service, ..PoolSpec::default() })
        .unwrap();
    let (mut now, mut seen, mut written) = (Timestamp::ZERO, Vec::new(), Vec::new());
    while !bytes.0.is_empty() {
        now = now.after_millis(bytes.number());
        let mut twin = Engine::restore(config(), &engine.snapshot()).expect("an own snapshot");
        let mut again = Bytes(bytes.0);
        if bytes.below(2) == 0 {
            again.next();
            let before = engine.snapshot();
            let said = command(&mut bytes, now, &mut engine, &seen);
            assert_eq!(said, command(&mut again, now, &mut twin, &seen), "the twin answers alike");
            assert!(said.is_ok() || before == engine.snapshot(), "a refusal changes nothing");
        } else {
            again.next();
            let mut same = written.clone();
            fact(&mut bytes, now, &mut engine, &mut written);
            fact(&mut again, now, &mut twin, &mut same);
        }
        assert_eq!(engine.snapshot(), twin.snapshot(), "the twin is the same");
        // A retry inserts beside what is there; each call has at most one write under way.
        assert!(engine.jobs() <= LIMIT + 16, "{} jobs", engine.jobs());
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Persist { ticket } => {
                    written.extend(engine.changes(ticket).iter().map(|change| change.row.clone()));
                    if bytes.next() < 200 {
                        engine.handle_committed(now, ticket);
                    }
                }
                Effect::Assign { assignment, .. } => seen.push(assignment.token),
                _ => {}
            }
        }
    }
});
