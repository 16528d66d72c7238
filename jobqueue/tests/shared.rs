//! The face for many threads: with threads of the machine, or, under `--cfg shuttle`, with every interleaving that a
//! random scheduler finds. `RUSTFLAGS='--cfg shuttle' cargo test -p tenon-jobqueue --features shared --test shared`
#![cfg(feature = "shared")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "threads are what it is about")]
#![cfg_attr(shuttle, allow(unused_imports, reason = "what only the machine's threads play"))]

use std::collections::BTreeSet;

#[cfg(shuttle)]
use shuttle::{sync::Arc, sync::Mutex, thread};
#[cfg(not(shuttle))]
use std::{sync::Arc, sync::Mutex, thread};

use tenon_jobqueue::memory::MemoryRows;
use tenon_jobqueue::{
    Act, Answer, Class, Config, Effect, Incarnation, JobId, JobSpec, LeaseToken, NewJob, Outcome, PipelineId, Policy,
    PoolId, PoolSpec, PullRequest, Pulled, Rate, Refused, Row, Shared, Submission, Tag, Timestamp, Waiter, Want,
    Worker, WorkerName,
};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const POOL: PoolId = PoolId::new(1);

fn worker(name: u64) -> Worker {
    Worker { name: WorkerName::new(name), incarnation: Incarnation::new(1) }
}

fn shared(stripes: u64, pool: &PoolSpec) -> Shared {
    let config = Config::builder(Incarnation::new(0)).seed(3).build().unwrap();
    let lives: Vec<Incarnation> = (1..=stripes).map(Incarnation::new).collect();
    let shared = Shared::new(&config, &lives).unwrap();
    shared.put_pool(NOW, pool).unwrap();
    shared
}

fn pool() -> PoolSpec {
    PoolSpec { id: POOL, tags: vec![Tag::OTHER], ..PoolSpec::default() }
}

fn submit(shared: &Shared, id: u64) {
    let policy = Policy { ack_ms: 1_000_000, ..Policy::default() };
    let job = NewJob { id: JobId::new(id), spec: JobSpec { policy, ..JobSpec::default() }, tag: None };
    let new = Submission { id: PipelineId::new(id), class: Class::new(0), priority: 0, jobs: &[job], needs: &[] };
    shared.of(new.id, |engine| engine.submit(NOW, &new)).unwrap().unwrap();
}

fn request(name: u64, wait_ms: u64) -> PullRequest {
    PullRequest { pool: POOL, worker: worker(name), want: 1, wait_ms, previous: None }
}

/// What the threads' host has seen.
#[derive(Default)]
struct Seen {
    assigned: Vec<(PipelineId, LeaseToken)>,
    /// Ends of waits.
    woken: Vec<Waiter>,
    /// Pulls that were answered with nothing.
    empty: u64,
    /// The rows of limits that stripes share; or all rows.
    rows: MemoryRows,
    keeps_all: bool,
}

/// Does what any engine asks, as a database that never fails would.
fn drive(shared: &Shared, seen: &Mutex<Seen>) {
    drive_at(NOW, shared, seen);
}

fn drive_at(now: Timestamp, shared: &Shared, seen: &Mutex<Seen>) {
    loop {
        let mut idle = true;
        while let Some((stripe, effect)) = shared.poll_effect() {
            idle = false;
            match effect {
                Effect::Persist { ticket } => {
                    let mut changes = shared.with(stripe, |engine| engine.changes(ticket).to_vec()).unwrap();
                    let seen = &mut *seen.lock().unwrap();
                    changes.retain(|change| seen.keeps_all || matches!(change.row, Row::Pool(_) | Row::Life(_)));
                    let rows = &mut seen.rows;
                    let (made, fresh) = (rows.write(&changes), rows.read(Want::Written(ticket), &changes));
                    shared
                        .with(stripe, |engine| {
                            if made {
                                engine.handle_committed(now, ticket);
                            } else {
                                engine.handle_conflicted(now, ticket, &fresh);
                            }
                        })
                        .unwrap();
                }
                Effect::Fetch { ask, want } => {
                    let rows = &mut seen.lock().unwrap().rows;
                    rows.clock = now;
                    let rows = rows.read(want, &[]);
                    shared.with(stripe, |engine| engine.handle_rows(now, ask, &rows)).unwrap();
                }
                Effect::Assign { assignment, .. } => {
                    seen.lock().unwrap().assigned.push((assignment.pipeline, assignment.token));
                }
                Effect::Answer { answer: Answer::Pulled { jobs: 0 }, .. } => seen.lock().unwrap().empty += 1,
                Effect::Answer { answer, .. } => assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}"),
                Effect::Closed { .. } => {}
                other @ (Effect::Abort { .. } | Effect::Poll { .. } | Effect::Judge { .. }) => {
                    panic!("nobody asked for {other:?}")
                }
            }
        }
        while let Some(woken) = shared.poll_woken() {
            idle = false;
            assert!(matches!(woken.pulled, Ok(Pulled::By(..))), "{woken:?}");
            seen.lock().unwrap().woken.push(woken.waiter);
        }
        if idle {
            return;
        }
    }
}

/// Threads that bring jobs and threads that want them, all at once.
fn meet(jobs: u64, pulls: u64, stripes: u64) {
    let shared = Arc::new(shared(stripes, &pool()));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let waits = Arc::new(Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for half in 0..2 {
        let (shared, seen) = (Arc::clone(&shared), Arc::clone(&seen));
        threads.push(thread::spawn(move || {
            for id in (1..=jobs).filter(|id| id % 2 == half) {
                submit(&shared, id);
                drive(&shared, &seen);
            }
        }));
    }
    for name in 0..2 {
        let (shared, seen, waits) = (Arc::clone(&shared), Arc::clone(&seen), Arc::clone(&waits));
        threads.push(thread::spawn(move || {
            for number in (0..pulls).filter(|number| number % 2 == name) {
                if let Pulled::Waits(waiter) = shared.pull(NOW, &request(name, 60_000), number).unwrap() {
                    waits.lock().unwrap().push(waiter);
                }
                drive(&shared, &seen);
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    drive(&shared, &seen);
    let seen = seen.lock().unwrap();
    let given: BTreeSet<u64> = seen.assigned.iter().map(|(_, token)| token.key.job.get()).collect();
    assert_eq!(given.len(), seen.assigned.len(), "no job is given out twice");
    assert_eq!(seen.empty, 0, "nobody is sent for what another has");
    assert_eq!(given.len() as u64, jobs.min(pulls), "what can meet has met");
    let woken: BTreeSet<Waiter> = seen.woken.iter().copied().collect();
    assert_eq!(woken.len(), seen.woken.len(), "no wait ends twice");
    let waits = waits.lock().unwrap();
    let still: Vec<Waiter> = waits.iter().copied().filter(|waiter| shared.cancel(POOL, *waiter)).collect();
    assert!(still.iter().all(|waiter| !woken.contains(waiter)), "no wait both ends and goes on");
    assert_eq!(still.len() + woken.len(), waits.len(), "no wait is lost");
    assert_eq!(still.len() as u64, pulls - jobs.min(pulls), "and none goes on beside work");
}

#[cfg(shuttle)]
#[test]
fn a_pull_and_work_that_meet_in_any_order_see_each_other() {
    for (jobs, pulls, stripes) in [(1, 1, 1), (2, 2, 2), (3, 2, 2), (2, 3, 1)] {
        let runs = std::env::var("SHUTTLE_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
        shuttle::check_random(move || meet(jobs, pulls, stripes), runs);
        shuttle::check_pct(move || meet(jobs, pulls, stripes), runs, 3);
    }
}

#[cfg(not(shuttle))]
#[test]
fn a_pull_and_work_that_meet_see_each_other() {
    for round in 0..30 {
        meet(100 + round, 115, 1 + round % 4);
    }
}

#[cfg(not(shuttle))]
#[test]
fn jobs_live_their_lives_on_as_many_threads_as_there_are() {
    let shared = shared(4, &pool());
    thread::scope(|scope| {
        for half in 0..2_u64 {
            let shared = &shared;
            scope.spawn(move || {
                let seen = Mutex::new(Seen::default());
                for id in (1..=200).map(|id| id * 2 + half) {
                    submit(shared, id);
                    let _ = shared.pull(NOW, &request(0, 0), id).unwrap();
                    drive(shared, &seen);
                    let assigned = std::mem::take(&mut seen.lock().unwrap().assigned);
                    for (pipeline, token) in assigned {
                        for act in [Act::Ack, Act::Report(Outcome::Succeeded)] {
                            shared.of(pipeline, |engine| engine.work(NOW, worker(0), token, act)).unwrap().unwrap();
                            drive(shared, &seen);
                        }
                    }
                }
            });
        }
    });
    let seen = Mutex::new(Seen::default());
    // What one thread brought and the other was too early for.
    while matches!(shared.pull(NOW, &request(0, 0), 1).unwrap(), Pulled::By(..)) {
        drive(&shared, &seen);
    }
    for (pipeline, token) in &seen.lock().unwrap().assigned {
        shared.of(*pipeline, |engine| engine.work(NOW, worker(0), *token, Act::Report(Outcome::Succeeded)));
    }
    drive(&shared, &Mutex::new(Seen::default()));
    let left: u32 = shared.stripes().map(|stripe| shared.with(stripe, |engine| engine.jobs()).unwrap()).sum();
    assert_eq!(left, 0);
}

#[cfg(not(shuttle))]
#[test]
fn patience_ends_and_a_rate_that_refills_wakes() {
    let shared = shared(2, &PoolSpec { rate: Rate::new(1, 1_000), ..pool() });
    let seen = Mutex::new(Seen::default());
    let Pulled::Waits(waiter) = shared.pull(NOW, &request(1, 100), 1).unwrap() else { panic!("there is nothing") };
    assert_eq!(shared.next_deadline(), Some(NOW.after_millis(100)));
    shared.handle_timeout(NOW.after_millis(100));
    let woken = shared.poll_woken().unwrap();
    assert_eq!((woken.waiter, woken.pulled), (waiter, Ok(Pulled::Nothing)));
    assert!(!shared.cancel(POOL, waiter), "its end was told");
    // Two jobs of one stripe, which may give out one a second.
    let pipelines: Vec<u64> =
        (1..99).filter(|id| shared.stripe(PipelineId::new(*id)) == shared.stripe(PipelineId::new(1))).collect();
    submit(&shared, pipelines[0]);
    submit(&shared, pipelines[1]);
    drive(&shared, &seen);
    assert!(matches!(shared.pull(NOW, &request(1, 0), 1), Ok(Pulled::By(..))));
    drive(&shared, &seen);
    assert!(matches!(shared.pull(NOW, &request(1, 60_000), 1), Ok(Pulled::Waits(_))));
    shared.handle_timeout(NOW.after_millis(1_100));
    drive_at(NOW.after_millis(1_100), &shared, &seen);
    assert_eq!(seen.lock().unwrap().assigned.len(), 2);
}

#[cfg(not(shuttle))]
#[test]
fn eight_stripes_give_out_no_more_than_one_engine_might() {
    let shared = shared(8, &PoolSpec { max_leases: 5, ..pool() });
    let seen = Mutex::new(Seen { keeps_all: true, ..Seen::default() });
    for id in 1..=40 {
        submit(&shared, id);
        drive(&shared, &seen);
    }
    for second in 1..=60 {
        let now = NOW.after_millis(second * 1_000);
        for chance in 0..8 {
            let _ = shared.pull(now, &request(1, 0), chance).unwrap();
            drive_at(now, &shared, &seen);
        }
        shared.handle_timeout(now);
        drive_at(now, &shared, &seen);
        let out = seen.lock().unwrap().assigned.len();
        assert!(out <= 5, "{out} jobs are out");
    }
    assert_eq!(seen.lock().unwrap().assigned.len(), 5, "and no less");
}

#[test]
fn a_closed_pool_refuses_and_two_stripes_need_two_lives() {
    let run = || {
        let config = Config::builder(Incarnation::new(0)).build().unwrap();
        assert!(Shared::new(&config, &[]).is_none());
        assert!(Shared::new(&config, &[Incarnation::new(1), Incarnation::new(1)]).is_none());
        let shared = shared(2, &pool());
        let unknown = PullRequest { pool: PoolId::new(9), ..request(1, 5) };
        assert_eq!(shared.pull(NOW, &unknown, 1), Err(Refused::Disabled));
    };
    #[cfg(shuttle)]
    shuttle::check_random(run, 1);
    #[cfg(not(shuttle))]
    run();
}
