//! Who is next, how often, and for how long somebody may have to wait: given, when, then.
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use common::{Host, at, new_job, pool, request, told, worker};
use tenon_jobqueue::State::{Aborted, Aborting, Dead, Delayed, Failed, Pending, Running, Scheduled, Superseded};
use tenon_jobqueue::{
    Act, Answer, Assignment, Config, ConfigBuilder, Incarnation, JobId, Key, NewJob, OnNewer, Outcome, PoolSpec,
    PullRequest, Rate, Reason, Refused, Standing, Tag, Turns, Why, Worker,
};

const A: Tag = Tag::new(1, 0);
const B: Tag = Tag::new(2, 0);
const C: Tag = Tag::new(3, 0);

fn config() -> ConfigBuilder {
    Config::builder(Incarnation::new(1)).seed(7).settling_ms(0)
}

fn host(config: ConfigBuilder, turns: Turns) -> Host {
    let mut host = Host::on(config.build().unwrap(), std::rc::Rc::default());
    host.engine.put_pool(host.now, PoolSpec { turns, ..pool(1, &[A, B, C], 1_000_000) }).unwrap();
    host
}

/// Submits `count` jobs of one tag as one pipeline; their ids follow on `first`.
fn fill(host: &mut Host, tag: Tag, priority: u8, first: u64, count: u64) {
    let job = |id| NewJob { tag: Some(tag), ..new_job(id, 1) };
    let jobs: Vec<NewJob> = (first..first + count).map(job).collect();
    assert_eq!(host.submit_as(first, 0, priority, &jobs), Answer::Submitted);
}

fn ids(jobs: &[Assignment]) -> Vec<u64> {
    jobs.iter().map(|job| job.token.key.job.get()).collect()
}

/// How many jobs of each thousand of ids were given out.
fn shares(jobs: &[Assignment]) -> BTreeMap<u64, u64> {
    let mut shares = BTreeMap::new();
    for id in ids(jobs) {
        *shares.entry(id / 1_000).or_insert(0) += 1;
    }
    shares
}

fn weigh(host: &mut Host, tag: Tag, weight: u16) {
    host.engine.set_weight(host.now, tag, NonZeroU16::new(weight).unwrap()).unwrap();
}

fn keyed(id: u64, key: u64, on_newer: OnNewer) -> NewJob {
    let mut job = new_job(id, 1);
    (job.spec.key, job.spec.on_newer) = (Some(Key::new(key)), on_newer);
    job
}

// ---- whose turn --------------------------------------------------------------------------------------------------------

#[test]
fn strict_priority_looks_at_all_tags_at_once() {
    let mut host = host(config(), Turns::Priority);
    fill(&mut host, A, 1, 1_000, 3);
    host.pass(5);
    fill(&mut host, B, 9, 2_000, 2);
    fill(&mut host, C, 1, 3_000, 2);
    assert_eq!(ids(&host.pull(1, 4)), [2_000, 2_001, 1_000, 1_001], "the priority, then who came first");
    fill(&mut host, C, 200, 4_000, 1);
    assert_eq!(ids(&host.pull(1, 10)), [4_000, 1_002, 3_000, 3_001]);
}

#[test]
fn strict_priority_follows_what_leaves_and_what_is_paused() {
    let mut host = host(config(), Turns::Priority);
    fill(&mut host, A, 9, 1_000, 2);
    fill(&mut host, B, 5, 2_000, 2);
    let call = host.engine.abort(host.now, JobId::new(1_000));
    assert_eq!(told(host.answer(call)), Aborted);
    assert_eq!(ids(&host.pull(1, 1)), [1_001]);
    fill(&mut host, A, 9, 3_000, 1);
    host.engine.set_tag(host.now, A, tenon_jobqueue::Service::Closed).unwrap();
    assert_eq!(ids(&host.pull(1, 5)), [2_000, 2_001]);
    host.engine.set_tag(host.now, A, tenon_jobqueue::Service::Open).unwrap();
    assert_eq!(ids(&host.pull(1, 5)), [3_000]);
}

#[test]
fn nobody_starves_beyond_the_bound_of_ageing_in_any_tag() {
    // The bound: (255 - priority) × ageing_ms. Whatever comes later than that after a job goes behind it.
    for priority in [0_u8, 100, 250] {
        let mut host = host(config().ageing_ms(10), Turns::Priority);
        let bound = u64::from(255 - priority) * 10;
        fill(&mut host, A, priority, 1, 1);
        let mut next = 1_000;
        for early in [true, false] {
            host.pass(if early { bound - 1 } else { 2 });
            next += 1_000;
            fill(&mut host, B, 255, next, 1);
        }
        assert_eq!(ids(&host.pull(1, 10)), [2_000, 1, 3_000], "priority {priority}");
    }
}

#[test]
fn fair_shares_are_by_weight_whatever_the_depths() {
    let mut host = host(config(), Turns::Fair);
    for (tag, first, depth) in [(A, 1_000, 900), (B, 2_000, 500), (C, 3_000, 400)] {
        fill(&mut host, tag, 0, first, depth);
    }
    for (tag, weight) in [(A, 1), (B, 2), (C, 3)] {
        weigh(&mut host, tag, weight);
    }
    let mut had = Vec::new();
    for _ in 0..60 {
        had.extend(host.pull(1, 10));
        // The bound of start-time fair queueing: of two busy tags, |W_a / w_a - W_b / w_b| <= 1 / w_a + 1 / w_b.
        let shares = shares(&had);
        let of = |tag: u64| shares.get(&tag).copied().unwrap_or(0);
        for (a, wa) in [(1, 1), (2, 2), (3, 3)] {
            for (b, wb) in [(1, 1), (2, 2), (3, 3)] {
                assert!((of(a) * wb).abs_diff(of(b) * wa) <= wa + wb, "{shares:?}");
            }
        }
    }
    assert_eq!(shares(&had), BTreeMap::from([(1, 100), (2, 200), (3, 300)]));
}

#[test]
fn an_idle_tenant_earns_no_credit() {
    let mut host = host(config(), Turns::Fair);
    fill(&mut host, B, 0, 5_000, 1);
    assert_eq!(ids(&host.pull(1, 1)), [5_000], "then it has nothing for a while");
    fill(&mut host, A, 0, 1_000, 900);
    host.pull(1, 500);
    fill(&mut host, B, 0, 2_000, 900);
    let had = shares(&host.pull(1, 100));
    assert!(had[&1].abs_diff(50) <= 1 && had[&2].abs_diff(50) <= 1, "{had:?}: what was not used is lost");
}

#[test]
fn a_change_of_weight_acts_at_once_and_large_weights_differ() {
    let mut host = host(config(), Turns::Fair);
    fill(&mut host, A, 0, 1_000, 999);
    fill(&mut host, B, 0, 2_000, 999);
    host.pull(1, 100);
    weigh(&mut host, B, 9);
    assert_eq!(shares(&host.pull(1, 100))[&2].abs_diff(90), 0, "with the very next job");
    weigh(&mut host, A, 3_000);
    weigh(&mut host, B, 1_000);
    assert!(shares(&host.pull(1, 400))[&1].abs_diff(300) <= 1);
    let never = Tag::new(77, 7);
    assert_eq!(host.engine.set_weight(host.now, never, NonZeroU16::MIN), Ok(()), "before it has any job");
}

#[test]
fn fairness_goes_on_where_it_was_after_a_restore() {
    let mut host = host(config(), Turns::Fair);
    fill(&mut host, A, 0, 1_000, 99);
    fill(&mut host, B, 0, 2_000, 99);
    weigh(&mut host, A, 3);
    host.pull(1, 3);
    let mut twin = tenon_jobqueue::Engine::restore(config().build().unwrap(), &host.engine.snapshot()).unwrap();
    for _ in 0..20 {
        let call = host.engine.pull(host.now, &request(1, 1)).unwrap();
        assert_eq!(twin.pull(host.now, &request(1, 1)), Ok(call));
        while let Some(effect) = host.engine.poll_effect() {
            assert_eq!(twin.poll_effect(), Some(effect));
            if let tenon_jobqueue::Effect::Persist { ticket } = effect {
                assert_eq!(twin.changes(ticket), host.engine.changes(ticket));
            }
        }
    }
}

#[test]
fn a_pool_may_change_how_it_takes_turns() {
    let mut host = host(config(), Turns::Rotation);
    fill(&mut host, A, 0, 1_000, 20);
    fill(&mut host, B, 9, 2_000, 20);
    assert_eq!(shares(&host.pull(1, 10)), BTreeMap::from([(1, 5), (2, 5)]));
    for (turns, shared) in [(Turns::Priority, [(2, 4)].into()), (Turns::Fair, BTreeMap::from([(1, 2), (2, 2)]))] {
        host.engine.put_pool(host.now, PoolSpec { turns, ..pool(1, &[A, B], 1_000) }).unwrap();
        assert_eq!(shares(&host.pull(1, 4)), shared, "{turns:?}");
    }
}

// ---- how often ---------------------------------------------------------------------------------------------------------

#[test]
fn a_pool_is_given_jobs_no_faster_than_its_rate_and_wakes_for_the_next() {
    let mut host = host(config(), Turns::Rotation);
    let rate = Rate::new(2, 1_000);
    host.engine.put_pool(host.now, PoolSpec { rate, ..pool(1, &[A], 1_000) }).unwrap();
    fill(&mut host, A, 0, 1_000, 5);
    assert_eq!(ids(&host.pull(1, 5)), [1_000, 1_001]);
    let Why::Queue { pools, .. } = host.engine.explain(JobId::new(1_002)).unwrap().why else { panic!() };
    let until = host.now.after_millis(500);
    assert_eq!(pools, [(common::POOL, Standing::Throttled { until })]);
    let parked = host.engine.pull(host.now, &PullRequest { wait_ms: 60_000, ..request(2, 5) }).unwrap();
    host.run();
    host.pass(499);
    assert!(host.got(parked).is_empty());
    host.pass(1);
    assert_eq!(ids(&host.got(parked)), [1_002], "one more as soon as it may be");
    host.pass(60_000);
    assert_eq!(host.pull(1, 5).len(), 2, "what was not used is kept for one burst only");
}

#[test]
fn a_keys_rate_holds_its_jobs_and_nobody_elses() {
    let mut host = Host::new();
    host.engine.set_key_rate(host.now, Key::new(7), Rate::new(1, 10_000)).unwrap();
    host.submit(
        1,
        &[keyed(1, 7, OnNewer::Waits), keyed(2, 7, OnNewer::Waits), new_job(3, 1), keyed(4, 8, OnNewer::Waits)],
    );
    let got = host.pull(1, 10);
    assert_eq!(ids(&got), [1, 3, 4]);
    for job in &got {
        host.succeed(job);
    }
    assert!(host.pull(1, 10).is_empty(), "the key is free, and yet it is too early");
    host.pass(9_999);
    assert!(host.pull(1, 10).is_empty());
    host.pass(1);
    assert_eq!(ids(&host.pull(1, 10)), [2]);
    host.engine.set_key_rate(host.now, Key::new(7), None).unwrap();
    host.submit(2, &[keyed(5, 9, OnNewer::Waits)]);
    assert_eq!(ids(&host.pull(1, 10)), [5]);
}

#[test]
fn taking_a_keys_rate_back_frees_what_it_held() {
    let mut host = Host::new();
    host.engine.set_key_rate(host.now, Key::new(7), Rate::new(1, 1_000_000)).unwrap();
    host.submit(1, &[keyed(1, 7, OnNewer::Waits), keyed(2, 7, OnNewer::Waits)]);
    let job = host.one(1);
    host.succeed(&job);
    assert!(host.pull(1, 1).is_empty());
    host.engine.set_key_rate(host.now, Key::new(7), None).unwrap();
    assert_eq!(ids(&host.pull(1, 1)), [2]);
}

#[test]
fn a_unique_key_keeps_newer_work_out_while_it_waits_or_runs() {
    let mut host = Host::new();
    host.submit(1, &[keyed(1, 7, OnNewer::KeepsOut)]);
    host.submit(2, &[keyed(2, 7, OnNewer::KeepsOut)]);
    assert_eq!((host.state(1), host.state(2)), (Pending, Superseded));
    assert_eq!(host.job(2).reason, Reason::Superseded { by: JobId::new(1) });
    let job = host.one(1);
    host.submit(3, &[keyed(3, 7, OnNewer::KeepsOut)]);
    assert_eq!(host.state(3), Superseded, "it is out, and still unique");
    host.submit(6, &[keyed(6, 7, OnNewer::Waits)]);
    assert_eq!(host.state(6), Pending, "what waits is not kept out: it takes its turn");
    host.succeed(&job);
    host.work_off();
    host.submit(4, &[keyed(4, 7, OnNewer::KeepsOut)]);
    assert_eq!(host.state(4), Pending, "now it has ended");
    host.submit(5, &[keyed(5, 8, OnNewer::KeepsOut)]);
    assert_eq!(host.state(5), Pending, "another key is another matter");
}

// ---- a worker that is dead -----------------------------------------------------------------------------------------------

#[test]
fn what_a_dead_worker_held_comes_back_now_and_not_after_its_lease() {
    let mut host = Host::new();
    let jobs: Vec<NewJob> = (1..=3).map(|id| new_job(id, 1)).collect();
    host.submit(1, &jobs);
    let got = host.pull(1, 2);
    let other = host.one(2);
    host.ack(&got[0]);
    host.ack(&other);
    host.engine.handle_worker_gone(host.now, worker(1));
    host.run();
    assert_eq!(host.job(1).state, Delayed, "another attempt, after its back-off");
    assert_eq!(
        (host.job(1).attempt().get(), host.job(1).tally.crashes),
        (2, 1),
        "it was acknowledged: it may be its fault"
    );
    assert_eq!((host.job(2).state, host.job(2).attempt().get()), (Pending, 1));
    assert_eq!((host.job(2).tally.unacked, host.job(2).tally.crashes), (1, 0), "it never began");
    assert_eq!(host.job(2).reason, Reason::WorkerGone { crashes: 0 });
    assert_eq!(host.state(3), Running, "another worker's");
    let late = host.say(&got[0], Act::Report(Outcome::Succeeded));
    assert_eq!(late, Answer::Refused(Refused::StaleLease));
}

#[test]
fn a_worker_in_another_life_is_another_worker() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    let before = host.engine.counters().ignored;
    host.engine.handle_worker_gone(host.now, Worker { incarnation: Incarnation::new(9), ..worker(1) });
    host.run();
    assert_eq!((host.state(1), host.engine.counters().ignored), (Scheduled, before + 1));
    assert_eq!(told(host.ack(&job)), Running);
}

#[test]
fn a_job_that_kills_its_workers_is_dead_when_they_are_seen_to_die() {
    let mut host = Host::new();
    let mut job = new_job(1, 1);
    (job.spec.policy.max_crashes, job.spec.policy.backoff_ms) = (2, 0);
    host.submit(1, &[job]);
    for name in 1..=2 {
        let job = host.one(name);
        host.ack(&job);
        host.engine.handle_worker_gone(host.now, worker(name));
        host.run();
    }
    assert_eq!((host.state(1), host.job(1).reason), (Dead, Reason::WorkerGone { crashes: 2 }));
}

#[test]
fn a_dead_worker_need_not_confirm_an_abort() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1), new_job(2, 1)]);
    let jobs = host.pull(1, 2);
    for job in &jobs {
        host.ack(job);
    }
    let call = host.engine.abort(host.now, JobId::new(1));
    assert_eq!(told(host.answer(call)), Aborting);
    host.fail(&jobs[1]);
    assert_eq!(host.state(2), Failed);
    host.engine.handle_worker_gone(host.now, worker(1));
    host.run();
    assert_eq!(host.state(1), Aborted);
    assert!(host.engine.next_deadline().is_none(), "nothing is waited for");
}

// ---- why it is not running -----------------------------------------------------------------------------------------------

#[test]
fn a_job_that_waits_for_its_key_says_whom_it_waits_for() {
    let mut host = Host::new();
    host.submit(1, &[keyed(1, 7, OnNewer::Waits), keyed(2, 7, OnNewer::Waits), keyed(3, 7, OnNewer::Waits)]);
    let got = host.pull(1, 3);
    assert_eq!(ids(&got), [1]);
    let holder = Some(got[0].token.key);
    let why = |host: &Host, id| host.engine.explain(JobId::new(id)).unwrap().why;
    assert_eq!(why(&host, 2), Why::Key { key: Key::new(7), holder, until: None, ahead: 0 });
    assert_eq!(why(&host, 3), Why::Key { key: Key::new(7), holder, until: None, ahead: 1 });
    host.engine.set_key_rate(host.now, Key::new(7), Rate::new(1, 500)).unwrap();
    host.succeed(&got[0]);
    assert_eq!(ids(&host.pull(1, 3)), [2], "the rate counts from when it was set");
    assert_eq!(why(&host, 2), Why::Until(host.now.after_millis(10_000)));
    let until = Some(host.now.after_millis(500));
    let Why::Key { holder: Some(_), until: told, .. } = why(&host, 3) else { panic!("{:?}", why(&host, 3)) };
    assert_eq!(told, until);
}

#[test]
fn a_job_that_the_host_was_asked_about_says_so() {
    let mut host = Host::new();
    let mut job = new_job(1, 1);
    job.spec.condition = tenon_jobqueue::Condition::Ask;
    host.submit(1, &[job]);
    assert_eq!(host.engine.explain(JobId::new(1)).unwrap().why, Why::Asked);
}

// ---- what is seen --------------------------------------------------------------------------------------------------------

#[test]
fn a_queue_tells_its_depth_its_oldest_its_rates_and_its_waits() {
    let mut host = host(config(), Turns::Rotation);
    fill(&mut host, A, 0, 1_000, 100);
    let first = host.now;
    for _ in 0..50 {
        host.pass(100);
        host.pull(1, 1);
    }
    fill(&mut host, A, 9, 2_000, 1);
    let view = host.engine.queues().find(|view| view.tag == A).unwrap();
    assert_eq!((view.depth, view.oldest), (51, Some(first)), "the oldest, whatever its priority");
    assert_eq!((view.arrived, view.delivered), (101, 50));
    for (percent, exact) in [(1, 100), (50, 2_500), (90, 4_500), (100, 5_000)] {
        let told = host.engine.wait_ms(A, percent).unwrap();
        assert!(told >= exact && told <= exact + exact / 4, "{percent} %: {told} ms");
    }
    assert_eq!(host.engine.wait_ms(B, 50), None);
    assert_eq!(first, at(1_000));
}
