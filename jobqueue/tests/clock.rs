//! One wrong reading of the clock, and what operators say before there is anything to say it about.
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Host, new_job, pool, request};
use std::num::NonZeroU16;
use tenon_jobqueue::State::{Dead, Pending, Scheduled};
use tenon_jobqueue::{
    CLOCK_SKEW_MS, Key, NewJob, PoolSpec, PullRequest, Rate, Reason, Service, Tag, Timestamp, backoff,
};

const HOUR: u64 = 3_600_000;

/// The clock says an hour too much, once; what happens then happens by that time.
fn ahead(host: &mut Host, act: impl FnOnce(&mut Host)) {
    let right = host.now;
    host.now = right.after_millis(HOUR);
    act(host);
    host.run();
    host.now = right.after_millis(10);
    host.engine.handle_timeout(host.now);
    host.run();
}

#[test]
fn a_delivery_of_a_wrong_hour_comes_back_after_its_ack_deadline() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    ahead(&mut host, |host| drop(host.pull(1, 1)));
    assert_eq!(host.state(1), Scheduled);
    host.pass(10_000 + 10);
    assert_eq!(host.state(1), Pending, "ten seconds, not an hour and ten seconds");
}

#[test]
fn a_long_poll_of_a_wrong_hour_ends_in_time() {
    let mut host = Host::new();
    let mut call = None;
    ahead(&mut host, |host| {
        call = host.engine.pull(host.now, &PullRequest { wait_ms: 30_000, ..request(1, 1) }).ok();
    });
    host.pass(30_000);
    assert!(host.answers.contains_key(&call.unwrap()));
}

#[test]
fn rates_go_on_after_a_wrong_hour() {
    let mut host = Host::new();
    let rate = Rate::new(10, 1_000);
    host.engine.put_pool(host.now, PoolSpec { rate, ..pool(1, &[Tag::OTHER], 1_000) });
    host.engine.set_key_rate(host.now, Key::new(7), Rate::new(1, 1_000));
    let keyed = |id| {
        let mut new = new_job(id, 1);
        (new.spec.key, new.spec.key_limit) = (Some(Key::new(7)), 100);
        new
    };
    let jobs: Vec<NewJob> = (1..=30).map(|id| new_job(id, 1)).chain((31..=33).map(keyed)).collect();
    host.submit(1, &jobs);
    ahead(&mut host, |host| drop(host.pull(1, 10)));
    for _ in 0..60 {
        host.pass(100);
        host.pull(1, 10);
    }
    assert!((1..=33).all(|id| host.state(id) == Scheduled), "six seconds are enough for all of them");
}

#[test]
fn a_clock_that_is_a_little_behind_is_lifted() {
    let mut host = Host::new();
    host.now = Timestamp::from_millis(100_000);
    host.submit(1, &[new_job(1, 1)]);
    host.one(1);
    let due = host.engine.next_deadline();
    host.engine.handle_timeout(Timestamp::from_millis(100_000 - CLOCK_SKEW_MS));
    assert_eq!(host.engine.next_deadline(), due);
}

#[test]
fn a_tag_is_paused_and_weighed_before_it_has_a_job() {
    let mut host = Host::new();
    host.engine.set_tag(host.now, Tag::OTHER, Service::Closed).unwrap();
    host.engine.set_weight(host.now, Tag::OTHER, NonZeroU16::new(9).unwrap()).unwrap();
    let call = host.engine.pull(host.now, &PullRequest { wait_ms: HOUR, ..request(1, 1) }).unwrap();
    host.submit(1, &[new_job(1, 1)]);
    assert!(host.got(call).is_empty(), "a worker that waits gets nothing of a tag that was paused when it was empty");
    host.engine.set_tag(host.now, Tag::OTHER, Service::Open).unwrap();
    host.run();
    assert_eq!(host.got(call).len(), 1);
}

#[test]
fn a_job_that_is_never_acknowledged_is_dead_at_its_limit() {
    let mut host = Host::new();
    let mut new = new_job(1, 1);
    new.spec.policy.max_unacked = 3;
    host.submit(1, &[new]);
    for _ in 0..3 {
        host.one(1);
        host.pass(10_000);
    }
    assert_eq!((host.state(1), host.job(1).reason), (Dead, Reason::NeverAcked { unacked: 3 }));
}

#[test]
fn a_back_off_is_never_less_than_it_says() {
    let policy =
        tenon_jobqueue::Policy { backoff_ms: 60_000, backoff_cap_ms: 600_000, ..tenon_jobqueue::Policy::default() };
    for chance in 0..1_000 {
        assert!((60_000..=90_000).contains(&backoff(&policy, 1, chance)));
        assert!((600_000..=900_000).contains(&backoff(&policy, 9, chance)));
    }
}
