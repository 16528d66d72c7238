//! Several engines on one database: what one has ended, freed, made or been told is never waited for by another.
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Db, Host, new_job, request, worker};
use std::cell::RefCell;
use std::rc::Rc;
use tenon_jobqueue::State::{Pending, Running, Scheduled, Succeeded, Superseded};
use tenon_jobqueue::{
    Act, Answer, Config, Effect, Incarnation, JobId, Key, NewJob, OnNewer, Outcome, PipelineId, PipelineState,
    PullRequest, Rate, Refused,
};

const RECHECK: u64 = 1_000;

/// So many engines on one database.
fn engines(count: u64) -> Vec<Host> {
    let db: Rc<RefCell<Db>> = Rc::default();
    let config = |life| {
        let recheck_ms = u32::try_from(RECHECK).unwrap();
        Config::builder(Incarnation::new(life)).seed(life).settling_ms(0).recheck_ms(recheck_ms).build().unwrap()
    };
    (1..=count).map(|life| Host::on(config(life), Rc::clone(&db))).collect()
}

/// Lets time pass on all of them alike.
fn pass(hosts: &mut [Host], ms: u64) {
    for _ in 0..ms.div_ceil(100) {
        for host in &mut *hosts {
            host.pass(100);
        }
    }
}

fn keyed(id: u64, key: u64, on_newer: OnNewer, (weight, limit): (u32, u32)) -> NewJob {
    let mut new = new_job(id, 1);
    (new.spec.key, new.spec.on_newer) = (Some(Key::new(key)), on_newer);
    (new.spec.key_weight, new.spec.key_limit) = (weight, limit);
    new
}

fn park(host: &mut Host, name: u64) {
    host.engine.pull(host.now, &PullRequest { wait_ms: 1_000_000, ..request(name, 1) }).unwrap();
    host.run();
}

fn finish(host: &mut Host, id: u64) {
    let job = host.assigned.iter().rev().find(|(_, to)| to.token.key.job.get() == id).unwrap().1;
    assert!(matches!(host.say(&job, Act::Report(Outcome::Succeeded)), Answer::Done { .. }));
}

fn all_are_empty(hosts: &mut [Host]) {
    pass(hosts, 4 * RECHECK);
    for host in hosts {
        assert_eq!(host.engine.jobs(), 0, "everything has ended");
    }
}

#[test]
fn a_key_that_another_engine_frees_is_found_free_within_two_rechecks() {
    let mut hosts = engines(2);
    hosts[0].submit(1, &[keyed(1, 7, OnNewer::Waits, (1, 1))]);
    hosts[1].submit(2, &[keyed(2, 7, OnNewer::Waits, (1, 1))]);
    assert_eq!(hosts[0].one(1).token.key.job.get(), 1);
    park(&mut hosts[1], 2);
    pass(&mut hosts, 10 * RECHECK / 2);
    assert_eq!(hosts[1].state(2), Pending, "its key is held by a job of which this engine has no row");
    finish(&mut hosts[0], 1);
    pass(&mut hosts, 2 * RECHECK + 100);
    assert_eq!(hosts[1].state(2), Scheduled);
    finish(&mut hosts[1], 2);
    all_are_empty(&mut hosts);
}

#[test]
fn of_two_engines_that_want_a_key_neither_starves_the_other() {
    let mut hosts = engines(2);
    let jobs: Vec<NewJob> = (1..=6).map(|id| keyed(id, 7, OnNewer::Waits, (1, 1))).collect();
    hosts[0].submit(1, &jobs);
    hosts[1].submit(2, &[keyed(9, 7, OnNewer::Waits, (1, 1))]);
    hosts[0].one(1);
    park(&mut hosts[1], 2);
    let mut held = 1;
    while hosts[1].state(9) == Pending {
        let running: Vec<u64> = (1..=6).filter(|id| hosts[0].state(*id) == Scheduled).collect();
        for id in running {
            finish(&mut hosts[0], id);
        }
        park(&mut hosts[0], 1);
        held += 1;
        pass(&mut hosts, 3 * RECHECK);
        assert!(held < 5, "the other engine has had the key {held} times");
    }
}

#[test]
fn what_ended_elsewhere_leaves_the_memory_of_every_engine() {
    let mut hosts = engines(3);
    for pipeline in 1..=40_u64 {
        let at = usize::try_from(pipeline % 3).unwrap();
        hosts[at].submit(pipeline, &[new_job(pipeline * 10, 1), new_job(pipeline * 10 + 1, 2)]);
    }
    pass(&mut hosts, 2 * RECHECK);
    assert!(hosts.iter().all(|host| host.engine.jobs() == 80), "each has them all");
    for _ in 0..100 {
        hosts[0].work_off();
    }
    assert!(hosts[0].db.borrow().pipelines.values().all(|row| row.state() == PipelineState::Succeeded));
    all_are_empty(&mut hosts);
}

#[test]
fn a_unique_job_is_unique_over_all_engines() {
    let mut hosts = engines(4);
    for id in 1..=8_u64 {
        let at = usize::try_from(id % 4).unwrap();
        hosts[at].submit(id, &[keyed(id, 7, OnNewer::KeepsOut, (1, 1))]);
    }
    for _ in 0..3 {
        pass(&mut hosts, RECHECK);
    }
    let ran = |host: &Host| (1..=8).filter(|id| host.state(*id) != Superseded).collect::<Vec<u64>>();
    let alive = ran(&hosts[0]);
    assert_eq!(alive.len(), 1, "{alive:?}");
    let at = usize::try_from(alive[0] % 4).unwrap();
    hosts[at].one(1);
    finish(&mut hosts[at], alive[0]);
    hosts[2].submit(20, &[keyed(20, 7, OnNewer::KeepsOut, (1, 1))]);
    pass(&mut hosts, 2 * RECHECK);
    assert_eq!(hosts[2].state(20), Pending, "once the first has ended, another may come");
    // The engine of the first job took the whole of the pool's limit: it gives back what this pull waits for.
    hosts[2].pull(1, 1);
    pass(&mut hosts, 2 * RECHECK);
    hosts[2].one(1);
    finish(&mut hosts[2], 20);
    all_are_empty(&mut hosts);
}

#[test]
fn of_jobs_that_give_way_the_newest_stays_whichever_engine_has_it() {
    let mut hosts = engines(3);
    for id in 1..=6_u64 {
        let at = usize::try_from(id % 3).unwrap();
        hosts[at].submit(id, &[keyed(id, 7, OnNewer::GivesWay, (1, 1))]);
        pass(&mut hosts, RECHECK);
    }
    let states = hosts[0].states(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(states, [Superseded, Superseded, Superseded, Superseded, Superseded, Pending]);
    hosts[0].one(1);
    finish(&mut hosts[0], 6);
    all_are_empty(&mut hosts);
}

#[test]
fn at_most_so_much_of_a_key_is_held_over_all_engines() {
    let mut hosts = engines(3);
    for id in 1..=12_u64 {
        let at = usize::try_from(id % 3).unwrap();
        let weight = 1 + u32::from(id % 4 == 0);
        hosts[at].submit(id, &[keyed(id, 7, OnNewer::Waits, (weight, 3))]);
    }
    pass(&mut hosts, RECHECK);
    let mut most = 0;
    for round in 0..200 {
        for (at, name) in [(0, 1), (1, 2), (2, 3)] {
            hosts[at].pull(name, 4);
        }
        let used = hosts[0].db.borrow().keys[&Key::new(7)].used;
        assert!(used <= 3, "the limit holds in sum");
        most = most.max(used);
        let at = round % 3;
        let held = hosts[at].assigned.iter().map(|(_, to)| to.token.key.job.get()).collect::<Vec<u64>>();
        if let Some(id) = held.into_iter().find(|id| hosts[at].state(*id) == Scheduled) {
            finish(&mut hosts[at], id);
        }
        pass(&mut hosts, RECHECK / 2);
    }
    assert_eq!(most, 3, "and is used up");
    assert!((1..=12).all(|id| hosts[0].state(id) == Succeeded));
    assert_eq!(hosts[0].db.borrow().keys[&Key::new(7)].used, 0);
    all_are_empty(&mut hosts);
}

#[test]
fn a_keys_rate_holds_over_all_engines() {
    let mut hosts = engines(3);
    let key = Key::new(7);
    for host in &mut hosts {
        host.engine.set_key_rate(host.now, key, Rate::new(2, 1_000)).unwrap();
    }
    for id in 1..=60_u64 {
        let at = usize::try_from(id % 3).unwrap();
        hosts[at].submit(id, &[keyed(id, 7, OnNewer::Waits, (1, 100))]);
    }
    let (start, mut given) = (hosts[0].now, 0);
    for _ in 0..100 {
        for (at, name) in [(0, 1), (1, 2), (2, 3)] {
            given += hosts[at].pull(name, 4).len() as u64;
        }
        assert!(given <= 2 + 2 * hosts[0].now.millis_since(start) / 1_000, "{given} of them");
        pass(&mut hosts, 100);
    }
    assert!(given >= 15, "and is used: {given}");
}

#[test]
fn a_weight_above_its_limit_is_refused() {
    let mut hosts = engines(1);
    for spec in [(0, 1), (2, 1)] {
        let jobs = [keyed(1, 7, OnNewer::Waits, spec)];
        let new = tenon_jobqueue::Submission {
            id: PipelineId::new(1),
            class: tenon_jobqueue::Class::new(0),
            priority: 0,
            jobs: &jobs,
            needs: &[],
        };
        let now = hosts[0].now;
        assert_eq!(hosts[0].engine.submit(now, &new), Err(Refused::Invalid));
    }
}

#[test]
fn what_is_submitted_at_one_engine_is_given_out_by_another() {
    let mut hosts = engines(2);
    park(&mut hosts[1], 2);
    hosts[0].submit(1, &[new_job(1, 1)]);
    pass(&mut hosts, RECHECK + 100);
    assert_eq!(hosts[1].assigned.len(), 1, "by the regular pass");
    park(&mut hosts[1], 2);
    hosts[0].submit(2, &[new_job(2, 1)]);
    let now = hosts[1].now;
    hosts[1].engine.handle_news(now, PipelineId::new(2));
    hosts[1].run();
    assert_eq!(hosts[1].assigned.len(), 2, "at once, with a notification");
}

#[test]
fn a_worker_that_died_is_remembered_until_its_jobs_have_come() {
    let mut hosts = engines(2);
    hosts[0].submit(1, &[new_job(1, 1)]);
    let job = hosts[0].one(5);
    hosts[0].ack(&job);
    let now = hosts[1].now;
    hosts[1].engine.handle_worker_gone(now, worker(5));
    assert_eq!(hosts[0].state(1), Running);
    pass(&mut hosts, 2 * RECHECK);
    assert_eq!(hosts[0].job(1).tally.crashes, 1, "long before its lease has ended");
}

#[test]
fn a_read_that_fails_is_made_again() {
    let mut host = engines(1).remove(0);
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    let call = host.engine.work(host.now, job.worker, job.token, Act::Ack).unwrap();
    let Some(Effect::Persist { ticket }) = host.engine.poll_effect() else { panic!() };
    assert!(host.db.borrow_mut().write(host.engine.changes(ticket)));
    host.engine.handle_unknown(host.now, ticket);
    for _ in 0..3 {
        let Some(Effect::Fetch { ask, .. }) = host.engine.poll_effect() else { panic!("not read again") };
        host.engine.handle_unread(host.now, ask);
        assert!(host.engine.poll_effect().is_none(), "not at once");
        host.now = host.engine.next_deadline().unwrap();
        host.engine.handle_timeout(host.now);
    }
    host.run();
    assert!(matches!(host.answers[&call], Answer::Done { state: Running, .. }));
    assert_eq!(host.engine.job(JobId::new(1)).unwrap().state, Running);
}
