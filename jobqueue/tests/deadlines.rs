//! Deadlines of a job that are none of a worker's: by when it must have been taken, and by when it must have ended.
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Host, config, new_job, pool};
use tenon_jobqueue::State::{Aborting, Delayed, Failed, Pending, Running, Skipped, Succeeded, Suspended, TimedOut};
use tenon_jobqueue::{Act, Answer, JobId, JobKey, Key, Late, NewJob, PipelineState, Policy, Reason, State, Tag};

/// How a job is brought into a state.
type Bring = fn(&mut Host);

/// Two engines on one database.
fn two() -> [Host; 2] {
    let mut one = Host::on(config(1), std::rc::Rc::default());
    one.engine.put_pool(one.now, pool(1, &[Tag::OTHER], 100)).unwrap();
    let mut other = one.beside(2);
    other.engine.put_pool(other.now, pool(1, &[Tag::OTHER], 100)).unwrap();
    [one, other]
}

fn job(id: u64, order: u32, policy: Policy) -> NewJob {
    let mut job = new_job(id, order);
    job.spec.policy = policy;
    job
}

/// Lets time pass at both, each of which looks at all rows now and then.
fn pass(hosts: &mut [Host; 2], ms: u64) {
    for host in hosts {
        let rows = host.db.borrow().open();
        let _counted = host.engine.compensate(host.now, &rows);
        host.run();
        host.pass(ms);
    }
}

fn reason(host: &Host, id: u64) -> Reason {
    host.job(id).reason
}

#[test]
fn what_nobody_took_in_time_fails_or_is_skipped_with_its_reason_and_the_pipeline_goes_on() {
    for (late, state, end) in
        [(Late::Fails, Failed, PipelineState::Failed), (Late::IsSkipped, Skipped, PipelineState::Succeeded)]
    {
        let mut hosts = two();
        let policy = Policy { start_by_ms: 5_000, late, max_attempts: 3, ..Policy::default() };
        let begun = hosts[0].now;
        hosts[0].submit(1, &[job(1, 1, policy), job(2, 2, Policy::default())]);
        let due = begun.after_millis(5_000);
        assert_eq!(hosts[0].engine.explain(JobId::new(1)).unwrap().due, Some(due), "it says by when");
        assert_eq!(hosts[0].engine.next_deadline(), Some(due));
        pass(&mut hosts, 4_999);
        assert_eq!(hosts[0].state(1), Pending);
        pass(&mut hosts, 1);
        assert_eq!((hosts[0].state(1), reason(&hosts[0], 1)), (state, Reason::NotStarted { due }));
        if late == Late::IsSkipped {
            let given = hosts[1].one(1);
            hosts[1].succeed(&given);
        }
        let pipeline = hosts[0].pipeline(1);
        assert_eq!(pipeline.state(), end, "{late:?}");
        assert_eq!(hosts[0].db.borrow().jobs.len(), 2, "no further attempt");
    }
}

#[test]
fn what_is_taken_in_time_is_not_late_whatever_it_does_afterwards() {
    let mut hosts = two();
    hosts[0].submit(1, &[job(1, 1, Policy { start_by_ms: 5_000, ..Policy::default() })]);
    pass(&mut hosts, 4_000);
    let given = hosts[1].one(1);
    hosts[1].ack(&given);
    pass(&mut hosts, 10_000);
    assert_eq!(hosts[1].state(1), Running);
    // It goes on later, and waits in its queue for longer than it might have at first.
    let later = hosts[1].now.after_millis(1);
    hosts[1].say(&given, Act::Snooze(later));
    pass(&mut hosts, 60_000);
    assert_eq!(hosts[0].state(1), Pending);
    let again = hosts[0].one(2);
    hosts[0].succeed(&again);
    assert_eq!(hosts[0].state(1), Succeeded);
}

#[test]
fn a_delivery_that_nobody_acknowledged_does_not_extend_the_wait() {
    let mut hosts = two();
    let policy = Policy { start_by_ms: 5_000, ack_ms: 3_000, ..Policy::default() };
    hosts[0].submit(1, &[job(1, 1, policy)]);
    let due = hosts[0].now.after_millis(5_000);
    pass(&mut hosts, 4_000);
    let _lost = hosts[1].one(1);
    pass(&mut hosts, 3_000);
    pass(&mut hosts, 1);
    assert_eq!((hosts[0].state(1), reason(&hosts[0], 1)), (Failed, Reason::NotStarted { due }));
}

#[test]
fn a_job_that_is_set_aside_for_its_key_is_late_too() {
    let mut hosts = two();
    let keyed = |id, policy| {
        let mut job = job(id, 1, policy);
        job.spec.key = Some(Key::new(7));
        job
    };
    hosts[0].submit(1, &[keyed(1, Policy::default())]);
    let first = hosts[0].one(1);
    hosts[0].ack(&first);
    hosts[0].submit(2, &[keyed(2, Policy { start_by_ms: 5_000, ..Policy::default() })]);
    assert_eq!(hosts[0].pull(2, 1), []);
    pass(&mut hosts, 5_000);
    assert_eq!(hosts[0].state(2), Failed);
    hosts[0].succeed(&first);
    assert_eq!(hosts[0].engine.jobs(), 0);
}

#[test]
fn what_has_not_ended_in_time_is_stopped_over_all_attempts_and_not_tried_again() {
    let policy = Policy { finish_by_ms: 20_000, max_attempts: 9, backoff_ms: 1_000, ..Policy::default() };
    let mut hosts = two();
    hosts[0].submit(1, &[job(1, 1, policy)]);
    pass(&mut hosts, 0);
    let due = hosts[0].now.after_millis(20_000);
    let first = hosts[1].one(1);
    hosts[1].fail(&first);
    assert_eq!(hosts[1].state(1), Delayed);
    pass(&mut hosts, 5_000);
    let second = hosts[0].one(2);
    hosts[0].ack(&second);
    pass(&mut hosts, 14_999);
    assert_eq!(hosts[0].state(1), Running);
    pass(&mut hosts, 1);
    assert_eq!((hosts[0].state(1), reason(&hosts[0], 1)), (Aborting, Reason::NotFinished { due }));
    hosts[0].fail(&second);
    assert_eq!((hosts[0].state(1), reason(&hosts[0], 1)), (TimedOut, Reason::NotFinished { due }));
    assert_eq!(hosts[0].job(1).key, JobKey { attempt: second.token.key.attempt, ..first.token.key }, "it was the last");
    assert_eq!(hosts[0].pipeline(1).state(), PipelineState::Failed);
}

#[test]
fn the_end_comes_wherever_the_job_stands_and_a_late_success_does_not_count() {
    let policy = Policy { finish_by_ms: 20_000, lease_ms: 60_000, ..Policy::default() };
    let hour = |host: &Host| host.now.after_millis(3_600_000);
    let cases: [(State, Bring); 4] = [
        (Pending, |_| ()),
        (Delayed, |host| {
            let given = host.one(1);
            let later = host.now.after_millis(3_600_000);
            host.ack(&given);
            host.say(&given, Act::Snooze(later));
        }),
        (Suspended, |host| {
            let given = host.one(1);
            let later = host.now.after_millis(3_600_000);
            host.ack(&given);
            host.say(&given, Act::Suspend(later));
        }),
        (State::Polling, |host| {
            let given = host.one(1);
            let later = host.now.after_millis(3_600_000);
            host.ack(&given);
            host.say(&given, Act::Poll(later));
        }),
    ];
    for (state, bring) in cases {
        let mut hosts = two();
        hosts[0].submit(1, &[job(1, 1, policy)]);
        pass(&mut hosts, 0);
        bring(&mut hosts[1]);
        assert_eq!(hosts[1].state(1), state);
        assert!(hosts[1].job(1).due() < Some(hour(&hosts[1])), "{state:?}");
        pass(&mut hosts, 20_000);
        pass(&mut hosts, 1);
        assert_eq!(hosts[0].state(1), TimedOut, "{state:?}");
        assert!(matches!(reason(&hosts[0], 1), Reason::NotFinished { .. }), "{state:?}");
    }
    let mut hosts = two();
    hosts[0].submit(1, &[job(1, 1, policy)]);
    pass(&mut hosts, 0);
    let given = hosts[1].one(1);
    hosts[1].ack(&given);
    pass(&mut hosts, 20_000);
    hosts[1].succeed(&given);
    assert_eq!(hosts[0].state(1), TimedOut, "it had been told to stop");
}

#[test]
fn whoever_wants_it_again_gives_it_its_time_again() {
    let mut hosts = two();
    let policy = Policy { start_by_ms: 5_000, finish_by_ms: 20_000, ..Policy::default() };
    hosts[0].submit(1, &[job(1, 1, policy)]);
    pass(&mut hosts, 5_000);
    assert_eq!(hosts[0].state(1), Failed);
    pass(&mut hosts, 100_000);
    let retry = hosts[1].engine.retry(hosts[1].now, JobId::new(1));
    assert!(matches!(hosts[1].answer(retry), Answer::Retried { jobs: 1, .. }));
    let (now, row) = (hosts[1].now, hosts[1].job(1));
    assert_eq!((row.start_by, row.finish_by), (now.after_millis(5_000), now.after_millis(20_000)));
    let given = hosts[1].one(1);
    hosts[1].succeed(&given);
    assert_eq!(hosts[1].state(1), Succeeded);
}

#[test]
fn a_restart_keeps_both_deadlines() {
    let mut host = Host::on(config(1), std::rc::Rc::default());
    let policy = Policy { start_by_ms: 5_000, finish_by_ms: 20_000, ..Policy::default() };
    host.engine.put_pool(host.now, pool(1, &[Tag::OTHER], 100)).unwrap();
    host.submit(1, &[job(1, 1, policy)]);
    host.restart(2);
    host.pass(5_000);
    assert_eq!(host.state(1), Failed);
}
