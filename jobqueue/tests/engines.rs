//! Given, when, then, where text does not reach: what a database does badly, every way out of a key, limits, order. The
//! others are in `scenarios/`.
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Host, at, component, config, new_job, pool, refused, request, spec, told};
use tenon_jobqueue::State::{Aborting, Dead, Delayed, Pending, Running, Scheduled, Succeeded};
use tenon_jobqueue::{
    Act, Answer, Class, Config, ConfigError, Effect, Incarnation, JobId, JobSpec, Key, LeaseToken, Limits, NeedsError,
    NewJob, Outcome, PipelineId, Policy, PullRequest, Reason, Refused, Row, Service, Start, Submission, Tag, Ticket,
    Version, Why, Worker, WriteId, run_orders,
};

fn with(id: u64, order: u32, change: impl FnOnce(&mut JobSpec)) -> NewJob {
    let mut spec = spec(order);
    change(&mut spec);
    NewJob { id: JobId::new(id), spec, tag: None }
}

fn policy(id: u64, change: impl FnOnce(&mut Policy)) -> NewJob {
    with(id, 1, |spec| change(&mut spec.policy))
}

// ---- leases --------------------------------------------------------------------------------------------------------------

#[test]
fn an_unacknowledged_delivery_flows_back_to_the_tail_and_never_dies_of_it() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    for round in 1..=20 {
        let lost = host.one(1);
        host.pass(10_000);
        assert_eq!(host.state(1), Pending);
        assert_eq!(host.job(1).reason, Reason::NoAck { due: lost.ack_by, unacked: round });
    }
    host.submit(2, &[new_job(2, 1)]);
    let first = host.one(1);
    host.pass(10_000);
    assert_eq!(host.one(1).token.key.job.get(), 2, "what was not acknowledged goes behind, not before");
    assert_eq!(host.ack(&first), refused(Refused::StaleLease));
}

#[test]
fn a_host_may_say_the_tag_itself_and_sees_each_queue() {
    let mut host = Host::new();
    let (mine, own) = (NewJob { tag: Some(Tag::new(8, 8)), ..new_job(1, 1) }, pool(2, &[Tag::new(8, 8)], 9));
    host.engine.put_pool(host.now, own).unwrap();
    host.submit(1, &[mine, new_job(2, 1)]);
    host.one(1);
    let views: Vec<_> = host.engine.queues().map(|view| (view.tag, view.depth, view.oldest, view.leased)).collect();
    assert_eq!(views, [(Tag::new(8, 8), 1, Some(host.now), 0), (Tag::OTHER, 0, None, 1)]);
    let request = PullRequest { pool: tenon_jobqueue::PoolId::new(2), ..request(1, 1) };
    assert_eq!(host.pull_for(&request).len(), 1);
}

#[test]
fn nacks_back_off_longer_and_longer_and_end_dead() {
    let mut host = Host::new();
    let unwanted = policy(1, |policy| {
        policy.max_nacks = 5;
        policy.backoff_ms = 1_000;
        policy.backoff_cap_ms = 4_000;
    });
    host.submit(1, &[unwanted]);
    for full in [1_000, 2_000, 4_000, 4_000] {
        let job = host.one(1);
        assert_eq!(told(host.say(&job, Act::Nack)), Delayed);
        let Reason::Nacked { delay_ms, .. } = host.job(1).reason else { panic!() };
        assert!((full..=full * 3 / 2).contains(&delay_ms), "{delay_ms} of {full}");
        host.pass(delay_ms);
    }
    let job = host.one(1);
    assert_eq!(told(host.say(&job, Act::Nack)), Dead);
}

#[test]
fn a_pause_stops_the_clock_of_a_job_and_resuming_early_gives_the_rest_back() {
    let mut host = Host::new();
    host.submit(1, &[policy(1, |policy| (policy.lease_ms, policy.timeout_ms) = (10_000, 100_000))]);
    let job = host.one(1);
    host.ack(&job);
    let limit = host.job(1).timeout_at;
    let until = host.now.after_millis(50_000);
    host.say(&job, Act::Pause(until));
    host.pass(30_000);
    assert_eq!(told(host.say(&job, Act::Resume)), Running);
    assert_eq!(host.job(1).timeout_at, limit.after_millis(30_000));
    host.pass(10_000);
    assert_eq!(host.job(1).tally.crashes, 1, "after the pause silence counts again");
}

#[test]
fn a_report_in_scheduled_implies_the_ack_and_a_repeated_one_says_how_it_ended() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    assert_eq!(told(host.succeed(&job)), Succeeded);
    assert_eq!(host.succeed(&job), refused(Refused::Terminal(Succeeded)));
    assert_eq!(host.db.borrow().results[&JobId::new(1)], 1);
}

#[test]
fn each_rule_refuses_by_its_name() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    let stranger = Worker { incarnation: Incarnation::new(2), ..job.worker };
    let other_write = LeaseToken { write: WriteId { ticket: Ticket::new(999), ..job.token.write }, ..job.token };
    let other_version = LeaseToken { version: Version::new(99), ..job.token };
    let mut nowhere = job.token;
    nowhere.key.job = JobId::new(404);
    let cases = [
        (stranger, job.token, Refused::NotOwner),
        (job.worker, other_write, Refused::StaleLease),
        (job.worker, other_version, Refused::StaleLease),
        (job.worker, nowhere, Refused::Unknown),
    ];
    for (worker, token, why) in cases {
        for act in [Act::Ack, Act::Heartbeat, Act::Report(Outcome::Succeeded)] {
            let call = host.engine.work(host.now, worker, token, act);
            assert_eq!(host.answer(call), refused(why), "{act:?}");
        }
    }
    assert_eq!(host.say(&job, Act::Heartbeat), refused(Refused::WrongState(Scheduled)));
    let call = host.engine.approve(host.now, JobId::new(1));
    assert_eq!(host.answer(call), refused(Refused::WrongState(Scheduled)));
    let call = host.engine.retry(host.now, JobId::new(1));
    assert_eq!(host.answer(call), refused(Refused::StillOpen(Scheduled)));
}

// ---- keys -----------------------------------------------------------------------------------------------------------------

fn keyed(id: u64, key: u64) -> NewJob {
    with(id, 1, |spec| spec.key = Some(Key::new(key)))
}

#[test]
fn a_key_is_given_back_by_every_way_out() {
    type Out = fn(&mut Host, &tenon_jobqueue::Assignment);
    let ways: [Out; 7] = [
        |host, job| _ = host.fail(job),
        |host, job| _ = host.say(job, Act::Nack),
        |host, job| _ = host.say(job, Act::Snooze(host.now.after_millis(500_000))),
        |host, job| _ = host.say(job, Act::Suspend(host.now.after_millis(500_000))),
        |host, _| host.pass(60_000),
        |host, job| {
            let call = host.engine.abort(host.now, job.token.key.job);
            host.answer(call);
            host.succeed(job);
        },
        |host, _| {
            let call = host.engine.abort_pipeline(host.now, PipelineId::new(1));
            host.answer(call);
            host.pass(30_000);
        },
    ];
    for (at, out) in ways.into_iter().enumerate() {
        let mut host = Host::new();
        host.submit(1, &[keyed(1, 7)]);
        host.submit(2, &[keyed(2, 7)]);
        let job = host.one(1);
        host.ack(&job);
        assert!(host.pull(1, 1).is_empty());
        out(&mut host, &job);
        assert_eq!(host.one(1).token.key.job.get(), 2, "way {at}");
    }
}

#[test]
fn a_key_is_kept_over_a_restart_and_seen_by_other_engines() {
    let mut one = Host::new();
    one.submit(1, &[keyed(1, 7), keyed(2, 7)]);
    let mut two = one.beside(2);
    let rows = one.db.borrow().open();
    let _ = two.engine.load(two.now, &rows);
    two.run();
    let job = one.one(1);
    assert!(two.pull(2, 5).is_empty(), "the other engine learns of it from the conflict");
    one.restart(3);
    assert!(one.pull(1, 5).is_empty());
    let call = two.engine.work(two.now, job.worker, job.token, Act::Report(Outcome::Succeeded));
    assert_eq!(told(two.answer(call)), Succeeded);
    assert_eq!(two.one(2).token.key.job.get(), 2);
}

#[test]
fn a_key_that_was_read_while_an_own_write_of_it_was_under_way_is_read_again() {
    let mut one = Host::new();
    one.submit(1, &[keyed(1, 7), keyed(2, 7)]);
    let mut two = one.beside(2);
    let rows = one.db.borrow().open();
    let _ = two.engine.load(two.now, &rows);
    two.run();
    one.engine.pull(one.now, &request(1, 1)).unwrap();
    let Some(Effect::Persist { ticket }) = one.engine.poll_effect() else { panic!() };
    assert!(one.db.borrow_mut().write(one.engine.changes(ticket)), "made, and not told");
    assert!(two.pull(2, 1).is_empty(), "the other engine learns of it");
    two.pass(10_000);
    let job = two.one(2);
    assert_eq!(job.token.key.job.get(), 2);
    let call = one.engine.work(two.now, job.worker, job.token, Act::Report(Outcome::Succeeded)).unwrap();
    one.run();
    one.engine.handle_committed(two.now, ticket);
    one.run();
    assert_eq!(told(one.answers[&call]), Succeeded);
    let page = two.db.borrow().open();
    let _ = two.engine.compensate(two.now, &page);
    assert_eq!(two.one(2).token.key.job.get(), 1, "the key was given back with the end");
}

// ---- queues and pools -------------------------------------------------------------------------------------------------------

#[test]
fn a_jobs_tag_is_the_most_exact_that_is_declared() {
    let tags = [Tag::new(1, 1), Tag::new(2, 0), Tag::new(0, 3)];
    let mut builder = Config::builder(Incarnation::new(1));
    for tag in tags {
        builder = builder.tag(tag);
    }
    let config = builder.build().unwrap();
    let cases = [(1, 1, (1, 1)), (1, 2, (0, 0)), (2, 1, (2, 0)), (2, 3, (2, 0)), (9, 3, (0, 3)), (9, 9, (0, 0))];
    for (component, class, (c, k)) in cases {
        let tag = config.tag(common::component(component), tenon_jobqueue::Class::new(class));
        assert_eq!(tag, Tag::new(c, k), "({component}, {class})");
    }
}

fn two_tags() -> Host {
    let config = Config::builder(Incarnation::new(1)).seed(7).tag(Tag::new(1, 0)).tag(Tag::new(2, 0));
    let mut host = Host::on(config.settling_ms(0).build().unwrap(), std::rc::Rc::default());
    host.engine.put_pool(host.now, pool(1, &[Tag::new(1, 0), Tag::new(2, 0)], 100)).unwrap();
    host.engine.put_pool(host.now, pool(2, &[Tag::new(2, 0)], 2)).unwrap();
    let job = |id: u64| with(id, 1, |spec| spec.component = component(1 + u32::try_from(id % 2).unwrap()));
    let jobs: Vec<NewJob> = (1..=8).map(job).collect();
    host.submit(1, &jobs);
    host
}

#[test]
fn a_pull_goes_round_its_pools_queues_and_no_others() {
    let mut host = two_tags();
    let got = host.pull(1, 4);
    let odd = got.iter().filter(|job| job.token.key.job.get() % 2 == 1).count();
    assert_eq!(odd, 2, "one from each queue in turn");
    let request = PullRequest { pool: tenon_jobqueue::PoolId::new(2), ..request(2, 10) };
    let got = host.pull_for(&request);
    assert_eq!(got.len(), 2, "at most its leases");
    assert!(got.iter().all(|job| job.token.key.job.get() % 2 == 1), "only its tag");
    assert_eq!(host.pull_for(&request), []);
    host.succeed(&got[0]);
    assert_eq!(host.pull(1, 10).len(), 2);
}

#[test]
fn a_paused_tag_waits_and_the_others_do_not() {
    let mut host = two_tags();
    host.engine.set_tag(host.now, Tag::new(2, 0), Service::Closed).unwrap();
    let got = host.pull(1, 10);
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|job| job.token.key.job.get() % 2 == 0));
    let why = host.engine.explain(JobId::new(1)).unwrap().why;
    let Why::Queue { ahead: 0, tag: Service::Closed, pools } = why else { panic!("{why:?}") };
    assert_eq!(pools.len(), 2);
    host.engine.set_tag(host.now, Tag::new(2, 0), Service::Open).unwrap();
    assert_eq!(host.pull(1, 10).len(), 4);
}

// ---- parked pulls -----------------------------------------------------------------------------------------------------------

#[test]
fn what_comes_at_once_is_seen_at_once_highest_first() {
    let mut host = Host::new();
    let patient = PullRequest { wait_ms: 60_000, ..request(1, 1) };
    for (pipeline, priority) in [(1, 1), (2, 200), (3, 100)] {
        let later = with(pipeline, 1, |spec| spec.start = Start::After(10_000));
        host.submit_as(pipeline, 0, priority, &[later]);
    }
    let call = host.engine.pull(host.now, &patient).unwrap();
    // All three are due in the same millisecond; the database is slow.
    host.now = host.now.after_millis(10_000);
    host.engine.handle_timeout(host.now);
    let effects: Vec<Effect> = std::iter::from_fn(|| host.engine.poll_effect()).collect();
    assert_eq!(effects.len(), 3);
    let rows = host.db.borrow().open();
    assert_eq!(rows.len(), 6);
    // They are proposed highest first, but the last is written first, and taken: it is the only one there is.
    host.act(effects[2]);
    host.run();
    assert_eq!(host.got(call)[0].token.key.job.get(), 1);
    host.act(effects[1]);
    host.act(effects[0]);
    host.run();
    assert_eq!(host.one(2).token.key.job.get(), 2, "by priority, not by when it was written");
}

#[test]
fn a_cancelled_pull_takes_nothing() {
    let mut host = Host::new();
    let patient = PullRequest { wait_ms: 60_000, ..request(1, 3) };
    let call = host.engine.pull(host.now, &patient).unwrap();
    host.engine.cancel_pull(host.now, call);
    host.submit(1, &[new_job(1, 1)]);
    assert_eq!(host.state(1), Pending);
    assert!(!host.answers.contains_key(&call));
    assert_eq!(host.engine.next_deadline(), None);
}

// ---- several engines, one database ------------------------------------------------------------------------------------------

#[test]
fn two_completions_on_two_engines_cannot_both_miss_that_they_were_the_last() {
    let mut one = Host::new();
    one.submit(1, &[new_job(1, 1), new_job(2, 1), new_job(3, 2)]);
    let jobs = one.pull(1, 2);
    let mut two = one.beside(2);
    let rows = one.db.borrow().open();
    let _ = two.engine.load(two.now, &rows);
    two.run();
    let done = Act::Report(Outcome::Succeeded);
    one.engine.work(one.now, jobs[0].worker, jobs[0].token, done).unwrap();
    two.engine.work(two.now, jobs[1].worker, jobs[1].token, done).unwrap();
    // Both have proposed from the same pipeline row before either is written.
    one.run();
    two.run();
    assert_eq!(two.engine.counters().conflicted, 1);
    assert_eq!(one.state(3), Pending);
}

#[test]
fn a_stopped_pipelines_job_gets_no_further_attempt() {
    let mut one = Host::new();
    one.submit(1, &[policy(1, |policy| policy.max_attempts = 2)]);
    let job = one.one(1);
    one.ack(&job);
    // Another engine marks the pipeline as aborted, and dies before it stops the job.
    let mut two = one.beside(2);
    let rows = two.db.borrow().open();
    let _ = two.engine.load(two.now, &rows);
    two.engine.abort_pipeline(two.now, PipelineId::new(1)).unwrap();
    while one.pipeline(1).aborted_at.is_none() {
        let effect = two.engine.poll_effect().unwrap();
        two.act(effect);
    }
    drop(two);
    one.fail(&job);
    assert_eq!(one.job(1).key.attempt, job.token.key.attempt, "whoever aborted it wants no second attempt");
    assert!(one.state(1).is_terminal() && one.pipeline(1).state() == tenon_jobqueue::PipelineState::Aborted);
}

#[test]
fn a_row_whose_change_is_under_way_is_left_alone() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let call = host.engine.pull(host.now, &request(1, 1)).unwrap();
    let Some(Effect::Persist { ticket }) = host.engine.poll_effect() else { panic!() };
    assert!(host.db.borrow_mut().write(host.engine.changes(ticket)));
    // The row is read, as it is now, before the write is told as made.
    let rows = host.db.borrow().open();
    assert_eq!(host.engine.load(host.now, &rows).taken, 0);
    host.engine.handle_committed(host.now, ticket);
    host.run();
    assert_eq!((host.state(1), host.got(call).len()), (Scheduled, 1));
}

#[test]
fn a_repeated_acknowledgement_is_not_believed_from_memory() {
    let mut one = Host::new();
    one.submit(1, &[new_job(1, 1)]);
    let held = one.one(1);
    assert_eq!(told(one.ack(&held)), Running);
    // Another engine, on the same database, gives the job up; this one has not heard of it.
    let mut two = one.beside(2);
    let rows = two.db.borrow().open();
    let _ = two.engine.load(two.now, &rows);
    let call = two.engine.abort(two.now, JobId::new(1));
    assert_eq!(told(two.answer(call)), Aborting);
    assert_eq!(told(one.ack(&held)), Aborting, "the worker must not start it");
}

#[test]
fn an_unknown_write_is_known_by_its_write_id_and_not_by_its_version() {
    for made in [true, false] {
        let mut host = Host::new();
        host.submit(1, &[new_job(1, 1)]);
        let call = host.engine.pull(host.now, &request(1, 1)).unwrap();
        let Some(Effect::Persist { ticket }) = host.engine.poll_effect() else { panic!() };
        let changes = host.engine.changes(ticket).to_vec();
        if made {
            assert!(host.db.borrow_mut().write(&changes));
        } else {
            // Another engine writes the same version, for another worker.
            let mut other = changes.clone();
            if let Row::Job(job) = &mut other[0].row {
                job.write = WriteId { engine: Incarnation::new(2), ticket };
            }
            assert!(host.db.borrow_mut().write(&other));
        }
        host.engine.handle_unknown(host.now, ticket);
        host.run();
        assert_eq!(host.got(call).len(), usize::from(made), "made: {made}");
    }
}

#[test]
fn a_submission_that_was_lost_is_made_again_and_is_its_own_should_the_first_arrive() {
    for arrives in [false, true] {
        let mut host = Host::new();
        let new = Submission {
            id: PipelineId::new(1),
            class: Class::new(0),
            priority: 0,
            jobs: &[new_job(1, 1)],
            needs: &[],
        };
        let call = host.engine.submit(host.now, &new).unwrap();
        let Some(Effect::Persist { ticket }) = host.engine.poll_effect() else { panic!() };
        let first = host.engine.changes(ticket).to_vec();
        host.engine.handle_unknown(host.now, ticket);
        let Some(asked) = host.engine.poll_effect() else { panic!() };
        host.act(asked);
        if arrives {
            assert!(host.db.borrow_mut().write(&first));
        }
        host.run();
        assert_eq!(host.answers[&call], Answer::Submitted, "not `Exists`: it is the caller's own");
        assert_eq!(host.work_off(), [1]);
    }
}

#[test]
fn a_write_that_lands_late_after_it_was_read_as_missing_does_no_harm() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    host.engine.pull(host.now, &request(1, 1)).unwrap();
    let Some(Effect::Persist { ticket }) = host.engine.poll_effect() else { panic!() };
    let late = host.engine.changes(ticket).to_vec();
    host.engine.handle_unknown(host.now, ticket);
    host.run();
    assert_eq!(host.state(1), Scheduled, "it was proposed again");
    assert!(!host.db.borrow_mut().write(&late), "the late write meets the newer version");
    assert_eq!(host.assigned.len(), 1);
}

#[test]
fn a_conflict_that_explains_nothing_makes_the_engine_read_again() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let call = host.engine.pull(host.now, &PullRequest { wait_ms: 1_000, ..request(1, 1) }).unwrap();
    let Some(Effect::Persist { ticket }) = host.engine.poll_effect() else { panic!() };
    host.engine.handle_conflicted(host.now, ticket, &[]);
    let next = host.engine.poll_effect();
    let Some(read @ Effect::Fetch { .. }) = next else { panic!("not read again: {next:?}") };
    host.act(read);
    host.run();
    assert_eq!(host.got(call).len(), 1, "the pipeline was read, and the job came back");
}

#[test]
fn a_request_that_always_conflicts_is_contended_at_last() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let call = host.engine.abort(host.now, JobId::new(1)).unwrap();
    for _ in 0..100 {
        match host.engine.poll_effect() {
            Some(Effect::Persist { ticket }) => {
                let mut rows = host.db.borrow().fresh(host.engine.changes(ticket));
                for row in &mut rows {
                    match row {
                        Row::Job(job) => job.version = job.version.next(),
                        Row::Pipeline(row) => row.version = row.version.next(),
                        Row::Key(row) => row.version = row.version.next(),
                        Row::Plan(_) | Row::Pool(_) | Row::Life(_) => {}
                    }
                }
                for row in &rows {
                    host.db.borrow_mut().put(row.clone());
                }
                host.engine.handle_conflicted(host.now, ticket, &rows);
            }
            Some(effect) => host.act(effect),
            None => break,
        }
    }
    assert_eq!(host.answers[&call], refused(Refused::Contended));
}

// ---- restart, compensation, limits ---------------------------------------------------------------------------------------------

#[test]
fn a_restart_from_rows_keeps_states_and_order() {
    let mut host = Host::new();
    host.submit_as(1, 0, 1, &[new_job(1, 1), new_job(2, 1)]);
    host.submit_as(2, 0, 5, &[new_job(3, 1), new_job(4, 2)]);
    let running = host.one(1);
    host.ack(&running);
    assert_eq!(running.token.key.job.get(), 3);
    host.restart(2);
    assert_eq!(told(host.say(&running, Act::Heartbeat)), Running, "leases outlive the engine");
    let order: Vec<u64> = host.pull(1, 10).iter().map(|job| job.token.key.job.get()).collect();
    assert_eq!(order, [1, 2]);
    host.succeed(&running);
    assert_eq!(host.state(4), Pending);
}

#[test]
fn compensation_brings_back_what_was_lost_and_does_nothing_twice() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1), new_job(2, 2)]);
    host.submit(2, &[new_job(3, 1)]);
    // A new engine that was told nothing: the rows are all there is.
    let mut host = host.beside(2);
    let page = host.db.borrow().open();
    let first = host.engine.compensate(host.now, &page);
    host.run();
    assert_eq!(first.taken, 5);
    assert_eq!(host.engine.depth(Tag::OTHER), 2);
    let before = host.engine.snapshot();
    let page = host.db.borrow().open();
    let second = host.engine.compensate(host.now, &page);
    assert_eq!(second.taken, 0);
    assert_eq!(host.engine.snapshot(), before);
}

#[test]
fn compensation_decides_a_pipeline_whose_decision_was_lost() {
    let mut host = Host::new();
    let call = host.engine.submit(
        host.now,
        &tenon_jobqueue::Submission {
            id: PipelineId::new(1),
            class: tenon_jobqueue::Class::new(0),
            priority: 0,
            jobs: &[new_job(1, 1)],
            needs: &[],
        },
    );
    let Some(Effect::Persist { ticket }) = host.engine.poll_effect() else { panic!("{call:?}") };
    let changes = host.engine.changes(ticket).to_vec();
    assert!(host.db.borrow_mut().write(&changes));
    // The engine dies here: the rows are there, the decision was never made.
    let mut host = host.beside(2);
    let page = host.db.borrow().open();
    let _ = host.engine.compensate(host.now, &page);
    host.run();
    assert_eq!(host.state(1), Pending);
}

#[test]
fn compensation_leaves_young_rows_alone() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let config = Config::builder(Incarnation::new(2)).settling_ms(5_000).build().unwrap();
    let mut other = Host::on(config, std::rc::Rc::clone(&host.db));
    other.now = host.now;
    let page = host.db.borrow().open();
    assert_eq!(other.engine.compensate(other.now, &page).taken, 0);
    other.now = other.now.after_millis(5_000);
    assert_eq!(other.engine.compensate(other.now, &page).taken, 2);
}

#[test]
fn full_is_an_answer() {
    type Set = fn(&mut Limits);
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Config::builder(Incarnation::new(1)).limits(limits).build().unwrap()
    };
    let three = [new_job(1, 1), new_job(2, 1), new_job(3, 1)];
    let cases: [(Set, Refused); 4] = [
        (|limits| limits.jobs = 2, Refused::Full { used: 3, limit: 2 }),
        (|limits| limits.jobs_per_pipeline = 2, Refused::Full { used: 3, limit: 2 }),
        (|limits| limits.jobs_per_tag = 2, Refused::Full { used: 3, limit: 2 }),
        (|limits| limits.calls = 1, Refused::Full { used: 2, limit: 1 }),
    ];
    for (change, why) in cases {
        let mut host = Host::on(limits(change), std::rc::Rc::default());
        if why == (Refused::Full { used: 2, limit: 1 }) {
            let patient = PullRequest { wait_ms: 1, ..request(1, 1) };
            host.engine.pull(host.now, &patient).unwrap();
        }
        let before = host.engine.snapshot();
        let new = tenon_jobqueue::Submission {
            id: PipelineId::new(1),
            class: tenon_jobqueue::Class::new(0),
            priority: 0,
            jobs: &three,
            needs: &[],
        };
        assert_eq!(host.engine.submit(host.now, &new), Err(why));
        assert_eq!(host.engine.snapshot(), before);
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let mut host = Host::new();
    let hopeless = policy(1, |policy| policy.max_attempts = 0);
    let cases: [&[NewJob]; 3] = [&[], &[new_job(1, 1), new_job(1, 2)], &[hopeless]];
    for jobs in cases {
        let new = tenon_jobqueue::Submission {
            id: PipelineId::new(1),
            class: tenon_jobqueue::Class::new(0),
            priority: 0,
            jobs,
            needs: &[],
        };
        assert_eq!(host.engine.submit(host.now, &new), Err(Refused::Invalid));
    }
    host.submit(1, &[new_job(1, 1)]);
    let mut other = host.beside(2);
    assert_eq!(other.submit(1, &[new_job(7, 1)]), refused(Refused::Exists), "told by the database");
    assert_eq!(Config::builder(Incarnation::new(1)).heartbeat_percent(100).build(), Err(ConfigError::HeartbeatShare));
    assert_eq!(config(1).limits().pull, 1_000);
}

// ---- needs -----------------------------------------------------------------------------------------------------------------

#[test]
fn orders_come_from_needs_and_a_circle_is_named() {
    let id = JobId::new;
    let (build, test, lint, deploy) = (id(1), id(2), id(3), id(4));
    let jobs: [(JobId, &[JobId]); 4] = [(deploy, &[test, lint]), (build, &[]), (test, &[build]), (lint, &[])];
    assert_eq!(run_orders(&jobs), Ok(vec![3, 1, 2, 1]));
    let circle: [(JobId, &[JobId]); 4] = [(build, &[deploy]), (test, &[build]), (lint, &[]), (deploy, &[test])];
    assert_eq!(run_orders(&circle), Err(NeedsError::Cycle(vec![build, deploy, test])));
    let own: [(JobId, &[JobId]); 1] = [(build, &[build])];
    assert_eq!(run_orders(&own), Err(NeedsError::Cycle(vec![build])));
    assert_eq!(run_orders(&[(build, &[test][..])]), Err(NeedsError::Missing(build, test)));
    assert_eq!(run_orders(&[(build, &[][..]), (build, &[][..])]), Err(NeedsError::Twice(build)));
    assert_eq!(at(5).as_millis(), 5);
}
