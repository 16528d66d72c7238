//! Limits of a pool that several engines on one database share: they hold in sum, are used up, and come back from the
//! dead. That no write breaks them is looked at after each write of every test ([`common::Db`]).
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{Db, Host, new_job, pool, request};
use tenon_jobqueue::State::{Scheduled, Succeeded};
use tenon_jobqueue::{
    Act, Change, Config, Effect, Incarnation, JobId, NewJob, Outcome, PoolId, PoolSpec, PullRequest, Rate, Standing,
    Tag, Why,
};

const RECHECK: u64 = 1_000;
/// For how long a share counts that nobody renews.
const TERM: u64 = 5 * RECHECK;

fn engine(life: u64, db: &Rc<RefCell<Db>>, spec: &PoolSpec) -> Host {
    let recheck_ms = u32::try_from(RECHECK).unwrap();
    let config = Config::builder(Incarnation::new(life)).seed(life).settling_ms(0).recheck_ms(recheck_ms);
    let mut host = Host::on(config.build().unwrap(), Rc::clone(db));
    host.engine.put_pool(host.now, spec.clone()).unwrap();
    host
}

/// So many engines on one database, which holds so many jobs.
fn engines(count: u64, jobs: u64, spec: &PoolSpec) -> Vec<Host> {
    let db: Rc<RefCell<Db>> = Rc::default();
    let mut hosts: Vec<Host> = (1..=count).map(|life| engine(life, &db, spec)).collect();
    let all: Vec<NewJob> = (1..=jobs).map(|id| new_job(id, 1)).collect();
    hosts[0].submit(1, &all);
    pass(&mut hosts, 2 * RECHECK);
    hosts
}

fn pass(hosts: &mut [Host], ms: u64) {
    for _ in 0..ms.div_ceil(100) {
        for host in &mut *hosts {
            host.pass(100);
        }
    }
}

fn out(hosts: &[Host]) -> usize {
    hosts[0].db.borrow().jobs.values().filter(|job| job.state.is_leased()).count()
}

fn limit(max_leases: u32) -> PoolSpec {
    pool(1, &[Tag::OTHER], max_leases)
}

/// Every worker of this engine ends what it has.
fn finish_all(host: &mut Host) -> usize {
    let jobs: Vec<_> = host.assigned.drain(..).map(|(_, job)| job).collect();
    for job in &jobs {
        host.say(job, Act::Report(Outcome::Succeeded));
    }
    jobs.len()
}

#[test]
fn three_engines_give_out_no_more_than_one_might_and_no_less() {
    let mut hosts = engines(3, 60, &limit(10));
    let mut most = 0;
    for round in 0..200 {
        for name in 1..=3_u64 {
            hosts[usize::try_from(name).unwrap() - 1].pull(name, 4);
        }
        assert!(out(&hosts) <= 10, "round {round}");
        most = most.max(out(&hosts));
        finish_all(&mut hosts[round % 3]);
        pass(&mut hosts, RECHECK / 2);
    }
    assert_eq!(most, 10, "the limit is used up");
    assert!((1..=60).all(|id| hosts[0].state(id) == Succeeded));
    pass(&mut hosts, 2 * TERM);
    assert!(hosts.iter().all(|host| host.engine.jobs() == 0), "every engine is empty");
}

#[test]
fn of_two_engines_that_want_the_only_lease_neither_starves_the_other() {
    let mut hosts = engines(2, 40, &limit(1));
    let mut had = [0, 0];
    for _ in 0..60 {
        for (at, had) in had.iter_mut().enumerate() {
            let wait = PullRequest { wait_ms: 1_000_000, ..request(at as u64, 1) };
            if hosts[at].engine.parked(common::POOL) == 0 {
                let now = hosts[at].now;
                hosts[at].engine.pull(now, &wait).unwrap();
                hosts[at].run();
            }
            *had += finish_all(&mut hosts[at]);
        }
        assert!(out(&hosts) <= 1);
        pass(&mut hosts, RECHECK);
    }
    assert!(had[0] >= 5 && had[1] >= 5, "{had:?}");
}

#[test]
fn a_rate_holds_over_all_engines() {
    let spec = PoolSpec { rate: Rate::new(3, 1_000), ..limit(1_000) };
    let mut hosts = engines(3, 100, &spec);
    let start = hosts[0].now;
    for _ in 0..100 {
        for name in 1..=3_u64 {
            hosts[usize::try_from(name).unwrap() - 1].pull(name, 4);
        }
        let allowed = 3 + 3 * hosts[0].now.millis_since(start) / 1_000 + 3;
        assert!(out(&hosts) as u64 <= allowed, "{} of {allowed}", out(&hosts));
        pass(&mut hosts, 100);
    }
    assert!(out(&hosts) >= 25, "and is used: {}", out(&hosts));
}

#[test]
fn what_a_dead_engine_had_comes_back_when_its_share_has_lapsed() {
    let mut hosts = engines(2, 20, &limit(8));
    assert_eq!(hosts[1].pull(2, 8).len(), 8);
    finish_all(&mut hosts[1]);
    hosts[1].pull(2, 2);
    let dead = hosts.remove(1);
    assert!(hosts[0].pull(1, 8).is_empty(), "it may be alive");
    let why = hosts[0].engine.explain(JobId::new(20)).unwrap().why;
    let Why::Queue { pools, .. } = why else { panic!("{why:?}") };
    assert_eq!(pools, [(common::POOL, Standing::NoShare { share: 0, limit: 8 })]);
    pass(&mut hosts, TERM + 3 * RECHECK);
    assert_eq!(hosts[0].pull(1, 8).len(), 6, "all but the two that its workers still have");
    drop(dead);
}

#[test]
fn a_share_that_was_taken_under_a_wrong_clock_of_the_database_comes_back_in_time() {
    let mut hosts = engines(2, 20, &limit(8));
    hosts[1].now = hosts[1].now.after_millis(3_600_000);
    assert_eq!(hosts[1].pull(2, 8).len(), 8);
    finish_all(&mut hosts[1]);
    hosts.remove(1);
    hosts[0].pull(1, 1);
    pass(&mut hosts, TERM + 3 * RECHECK);
    assert!(hosts[0].pull(1, 8).len() >= 7, "not only when the hour is over");
}

#[test]
fn a_second_engine_has_leases_at_once_in_a_pool_that_has_but_a_rate() {
    let spec = PoolSpec { rate: Rate::new(100, 1_000), ..limit(u32::MAX) };
    let mut hosts = engines(2, 20, &spec);
    assert_eq!(hosts[0].pull(1, 4).len(), 4);
    assert_eq!(hosts[1].pull(2, 20).len(), 16, "but for those that it meets as given out");
}

#[test]
fn a_pull_that_does_not_wait_is_answered_though_its_job_goes_while_the_pools_row_is_read() {
    let other = Tag::new(7, 0);
    let mut host = engine(1, &Rc::default(), &limit(2));
    host.engine.put_pool(host.now, pool(2, &[other], 2)).unwrap();
    host.submit(1, &[new_job(1, 1)]);
    host.submit(2, &[NewJob { tag: Some(other), ..new_job(50, 1) }]);
    let now = host.now;
    host.engine.pull(now, &request(1, 1)).unwrap();
    let first = host.engine.poll_effect().unwrap();
    let call = host.engine.pull(now, &PullRequest { pool: PoolId::new(2), ..request(2, 1) }).unwrap();
    let second = host.engine.poll_effect().unwrap();
    // The first pool's row is being written, and the engine's life with it, when the second is told.
    host.act(first);
    let write = host.engine.poll_effect().unwrap();
    let abort = host.engine.abort(now, JobId::new(50)).unwrap();
    let gone = host.engine.poll_effect().unwrap();
    host.act(gone);
    assert!(
        host.answers.contains_key(&abort) || {
            host.run();
            true
        }
    );
    host.act(second);
    host.act(write);
    host.run();
    assert!(host.answers.contains_key(&call), "it waits for nothing that is still to come");
}

#[test]
fn what_an_engine_had_that_is_told_to_be_dead_comes_back_at_once() {
    let mut hosts = engines(2, 20, &limit(8));
    assert_eq!(hosts[1].pull(2, 8).len(), 8);
    finish_all(&mut hosts[1]);
    hosts.remove(1);
    let now = hosts[0].now;
    hosts[0].engine.handle_engine_gone(now, Incarnation::new(2));
    assert_eq!(hosts[0].pull(1, 8).len(), 8);
}

#[test]
fn an_engine_that_was_taken_for_dead_gives_out_nothing_by_its_old_share_and_goes_on() {
    let mut hosts = engines(2, 40, &limit(8));
    assert_eq!(hosts[1].pull(2, 8).len(), 8);
    finish_all(&mut hosts[1]);
    // A delivery is on its way while the other engine takes its share.
    let now = hosts[0].now;
    hosts[1].engine.pull(now, &request(2, 8)).unwrap();
    hosts[0].engine.handle_engine_gone(now, Incarnation::new(2));
    assert_eq!(hosts[0].pull(1, 8).len(), 8);
    hosts[1].run();
    assert_eq!(out(&hosts), 8, "its deliveries were not made");
    finish_all(&mut hosts[0]);
    for _ in 0..20 {
        hosts[1].pull(2, 8);
        pass(&mut hosts, RECHECK);
    }
    assert!(!hosts[1].assigned.is_empty(), "it lives, and has a share again");
}

/// An engine with one of two leases out, and another delivery of which nobody knows whether it was made.
fn in_doubt() -> (Vec<Host>, Vec<Change>) {
    let mut hosts = engines(1, 10, &limit(2));
    hosts[0].pull(1, 2);
    let (held, now) = (hosts[0].assigned[0].1, hosts[0].now);
    hosts[0].say(&held, Act::Report(Outcome::Succeeded));
    hosts[0].engine.pull(now, &request(1, 1)).unwrap();
    let Some(Effect::Persist { ticket }) = hosts[0].engine.poll_effect() else { panic!("a delivery") };
    let late = hosts[0].engine.changes(ticket).to_vec();
    hosts[0].engine.handle_unknown(now, ticket);
    (hosts, late)
}

#[test]
fn a_delivery_of_which_nobody_knows_is_not_made_later_beyond_the_limit() {
    let (mut hosts, late) = in_doubt();
    hosts[0].run();
    assert_eq!(out(&hosts), 2, "the pull is served with another delivery");
    assert!(!hosts[0].db.borrow_mut().write(&late), "it comes too late");
    assert_eq!(out(&hosts), 2);
}

#[test]
fn a_delivery_that_is_made_after_it_was_given_up_counts() {
    let (mut hosts, late) = in_doubt();
    let Some(read) = hosts[0].engine.poll_effect() else { panic!("its rows are read") };
    hosts[0].act(read);
    assert!(hosts[0].db.borrow_mut().write(&late), "before the engine's life is raised");
    // The next delivery is of another job, so that it does not meet the late one.
    let Some(raise) = hosts[0].engine.poll_effect() else { panic!("its life is raised") };
    hosts[0].submit_as(2, 0, 200, &[new_job(50, 1)]);
    hosts[0].act(raise);
    hosts[0].run();
    hosts[0].pull(1, 1);
    assert_eq!(out(&hosts), 2, "the engine has found it");
}

#[test]
fn a_share_that_was_given_back_in_doubt_is_not_used_before_it_is_known() {
    let mut hosts = engines(2, 20, &limit(4));
    hosts[0].pull(1, 3);
    finish_all(&mut hosts[0]);
    hosts[1].pull(2, 1);
    pass(&mut hosts, 2 * RECHECK);
    assert_eq!(hosts[1].pull(2, 1).len(), 1);
    let now = hosts[0].now;
    hosts[1].engine.pull(now, &PullRequest { wait_ms: 60_000, ..request(2, 4) }).unwrap();
    hosts[1].run();
    // The first engine gives back what the other waits for, and nobody knows whether that is written.
    hosts[0].engine.handle_pool_news(now, common::POOL);
    let Some(read) = hosts[0].engine.poll_effect() else { panic!("the pool's row is read") };
    hosts[0].act(read);
    let Some(Effect::Persist { ticket }) = hosts[0].engine.poll_effect() else { panic!("less is written") };
    let late = hosts[0].engine.changes(ticket).to_vec();
    hosts[0].engine.handle_unknown(now, ticket);
    let Some(read) = hosts[0].engine.poll_effect() else { panic!("its rows are read") };
    hosts[0].act(read);
    // The other engine is dead, so there is no reason any more to give anything back.
    hosts[0].engine.handle_engine_gone(now, Incarnation::new(2));
    hosts[0].pull(1, 2);
    // The first of these meets what the other engine has given out.
    hosts[0].pull(1, 1);
    hosts[0].pull(1, 1);
    assert_eq!(out(&hosts), 4);
    assert!(!hosts[0].db.borrow_mut().write(&late), "it comes too late");
}

#[test]
fn a_smaller_limit_holds_as_soon_as_what_is_out_allows_it() {
    let mut hosts = engines(2, 40, &limit(8));
    for name in [1, 2, 2, 2_u64] {
        hosts[usize::try_from(name).unwrap() - 1].pull(name, 4);
        pass(&mut hosts, 2 * RECHECK);
    }
    assert_eq!(out(&hosts), 8, "what one has and does not use, the other gets within a few looks");
    for host in &mut hosts {
        host.engine.put_pool(host.now, limit(3)).unwrap();
    }
    for round in 0..12 {
        finish_all(&mut hosts[round % 2]);
        pass(&mut hosts, 2 * RECHECK);
        for name in 1..=2_u64 {
            hosts[usize::try_from(name).unwrap() - 1].pull(name, 4);
        }
        assert!(round == 0 || out(&hosts) <= 3 + 1, "round {round}: {}", out(&hosts));
    }
    assert_eq!(hosts[0].states(&[1]).iter().filter(|state| **state == Scheduled).count(), 0);
}

#[test]
fn news_of_a_pool_is_looked_at_at_once() {
    let mut hosts = engines(2, 20, &limit(4));
    assert_eq!(hosts[1].pull(2, 4).len(), 4);
    let now = hosts[1].now;
    hosts[0].engine.pull(now, &PullRequest { wait_ms: 60_000, ..request(1, 1) }).unwrap();
    hosts[0].run();
    hosts[1].engine.handle_pool_news(now, common::POOL);
    hosts[1].run();
    finish_all(&mut hosts[1]);
    hosts[1].engine.handle_pool_news(now, common::POOL);
    hosts[1].run();
    hosts[0].engine.handle_pool_news(now, common::POOL);
    hosts[0].run();
    assert_eq!(hosts[0].assigned.len(), 1, "without a look in between");
}
