//! Given, when, then.
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Host, at, component, config, new_job, pool, refused, request, spec, told, worker};
use tenon_jobqueue::State::{
    Aborted, Aborting, Dead, Delayed, Failed, Pending, Polling, Reused, Running, Scheduled, Skipped, Succeeded,
    Superseded, Suspended, TimedOut, Unstart,
};
use tenon_jobqueue::{
    Act, Answer, Attempt, Class, Condition, Config, ConfigError, Effect, Entry, Hold, Incarnation, JobId, JobSpec,
    Judgement, Key, LeaseToken, Limits, NeedsError, NewJob, OnFailure, Outcome, PipelineId, PipelineState, Policy,
    PullRequest, Reason, Refused, ResultKey, Row, Service, Standing, Start, Submission, Tag, Ticket, Version, When,
    Why, Worker, WriteId, run_orders,
};

fn with(id: u64, order: u32, change: impl FnOnce(&mut JobSpec)) -> NewJob {
    let mut spec = spec(order);
    change(&mut spec);
    NewJob { id: JobId::new(id), spec, tag: None }
}

fn policy(id: u64, change: impl FnOnce(&mut Policy)) -> NewJob {
    with(id, 1, |spec| change(&mut spec.policy))
}

// ---- a run, whole ----------------------------------------------------------------------------------------------------

#[test]
fn a_job_lives_its_life_in_four_writes() {
    let mut host = Host::new();
    assert_eq!(host.submit(1, &[new_job(1, 1)]), Answer::Submitted);
    assert_eq!(host.state(1), Pending);
    let job = host.one(1);
    assert_eq!((host.state(1), job.entry), (Scheduled, Entry::Run));
    assert_eq!(told(host.ack(&job)), Running);
    assert_eq!(told(host.succeed(&job)), Succeeded);
    assert_eq!(host.closed, [(PipelineId::new(1), PipelineState::Succeeded)]);
    assert_eq!(host.writes, 4);
    assert_eq!(host.engine.jobs(), 0, "an ended job is forgotten");
}

#[test]
fn equal_orders_run_together_and_the_next_waits_for_all_of_them() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 10), new_job(2, 10), new_job(3, 20), new_job(4, 30)]);
    assert_eq!(host.states(&[1, 2, 3, 4]), [Pending, Pending, Unstart, Unstart]);
    let jobs = host.pull(1, 10);
    assert_eq!(jobs.len(), 2);
    host.succeed(&jobs[0]);
    assert_eq!(host.state(3), Unstart, "one of the batch is still running");
    assert_eq!(host.engine.explain(JobId::new(3)).unwrap().why, Why::Batch { open: 10, remaining: 1 });
    host.succeed(&jobs[1]);
    assert_eq!(host.state(3), Pending);
    assert_eq!(host.work_off(), [3, 4]);
    assert_eq!(host.pipeline(1).state(), PipelineState::Succeeded);
}

#[test]
fn a_failure_skips_what_comes_after_but_not_what_wants_it() {
    let mut host = Host::new();
    let cleanup = with(3, 3, |spec| spec.when = When::Always);
    let alarm = with(4, 2, |spec| spec.when = When::OnFailure);
    host.submit(1, &[new_job(1, 1), new_job(2, 2), cleanup, alarm]);
    let job = host.one(1);
    host.fail(&job);
    assert_eq!(host.states(&[1, 2, 4]), [Failed, Skipped, Pending]);
    assert_eq!(host.job(2).reason, Reason::NotWanted { failed: 1 });
    assert_eq!(host.work_off(), [4, 3]);
    assert_eq!(host.pipeline(1).state(), PipelineState::Failed);
}

#[test]
fn an_allowed_failure_changes_nothing_for_the_rest() {
    let mut host = Host::new();
    let lint = with(1, 1, |spec| spec.on_failure = OnFailure::Allowed);
    host.submit(1, &[lint, new_job(2, 2)]);
    let job = host.one(1);
    host.fail(&job);
    assert_eq!(host.work_off(), [2]);
    assert_eq!(host.pipeline(1).state(), PipelineState::Succeeded);
}

#[test]
fn a_batch_in_which_nothing_is_wanted_is_passed_over() {
    let mut host = Host::new();
    let on_failure = |id, order| with(id, order, |spec| spec.when = When::OnFailure);
    host.submit(1, &[on_failure(1, 1), on_failure(2, 2)]);
    assert_eq!(host.states(&[1, 2]), [Skipped, Skipped]);
    assert_eq!(host.closed, [(PipelineId::new(1), PipelineState::Succeeded)]);
}

// ---- manual, delayed, suspended, polled --------------------------------------------------------------------------------

#[test]
fn a_manual_job_waits_for_its_approval_and_the_pipeline_for_it() {
    let mut host = Host::new();
    host.submit(1, &[with(1, 1, |spec| spec.start = Start::Manual), new_job(2, 2)]);
    assert_eq!(host.state(1), Suspended);
    assert!(host.pull(1, 1).is_empty());
    let call = host.engine.approve(host.now, JobId::new(1));
    assert_eq!(told(host.answer(call)), Pending);
    assert_eq!(host.work_off(), [1, 2]);
}

#[test]
fn nobody_waits_for_a_manual_job_that_may_fail_and_it_can_be_approved_later() {
    let mut host = Host::new();
    let deploy = with(1, 1, |spec| {
        spec.start = Start::Manual;
        spec.on_failure = OnFailure::Allowed;
    });
    host.submit(1, &[deploy, new_job(2, 1), new_job(3, 2)]);
    assert_eq!(host.work_off(), [2, 3]);
    assert_eq!(host.pipeline(1).state(), PipelineState::Succeeded);
    assert_eq!(host.state(1), Suspended);
    let call = host.engine.approve(host.now, JobId::new(1));
    assert_eq!(told(host.answer(call)), Pending);
    assert_eq!(host.pipeline(1).state(), PipelineState::Open, "it is open again");
    assert_eq!(host.work_off(), [1]);
    assert_eq!(host.pipeline(1).state(), PipelineState::Succeeded);
}

#[test]
fn a_delayed_start_starts_when_it_is_time() {
    let mut host = Host::new();
    host.submit(1, &[with(1, 1, |spec| spec.start = Start::After(60_000))]);
    assert_eq!(host.state(1), Delayed);
    host.pass(59_999);
    assert_eq!(host.state(1), Delayed);
    host.pass(1);
    assert_eq!(host.state(1), Pending);
}

#[test]
fn a_callback_wakes_a_suspended_job_and_its_token_dies_with_it() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    host.ack(&job);
    let until = host.now.after_millis(10_000);
    assert_eq!(told(host.say(&job, Act::Suspend(until))), Suspended);
    assert_eq!(host.engine.leased(common::POOL), 0, "the resource is free");
    let call = host.engine.callback(host.now, job.token);
    assert_eq!(told(host.answer(call)), Pending);
    let again = host.one(2);
    assert_eq!(again.entry, Entry::Callback);
    let call = host.engine.callback(host.now, job.token);
    assert_eq!(host.answer(call), refused(Refused::StaleLease));
    assert_eq!(host.say(&job, Act::Heartbeat), refused(Refused::StaleLease));
    assert_eq!(told(host.succeed(&again)), Succeeded);
}

#[test]
fn a_callback_that_never_comes_times_out() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    let until = host.now.after_millis(10_000);
    host.say(&job, Act::Suspend(until));
    host.pass(10_000);
    assert_eq!(host.state(1), TimedOut);
    let call = host.engine.callback(host.now, job.token);
    assert_eq!(host.answer(call), refused(Refused::Terminal(TimedOut)));
}

#[test]
fn an_external_result_is_asked_for_until_it_comes() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    host.ack(&job);
    let first = host.now.after_millis(5_000);
    assert_eq!(told(host.say(&job, Act::Poll(first))), Polling);
    assert_eq!(host.engine.leased(common::POOL), 0);
    host.pass(5_000);
    assert_eq!(host.polls, [job.token]);
    host.pass(60_000);
    assert_eq!(host.polls.len(), 2, "asked again, as no answer came");
    // Whoever polls is another worker: the token speaks.
    let call = host.engine.work(host.now, worker(77), job.token, Act::Report(Outcome::Succeeded));
    assert_eq!(told(host.answer(call)), Succeeded);
}

#[test]
fn an_external_result_that_takes_too_long_times_out() {
    let mut host = Host::new();
    host.submit(1, &[policy(1, |policy| policy.timeout_ms = 100_000)]);
    let job = host.one(1);
    let first = host.now.after_millis(5_000);
    host.say(&job, Act::Poll(first));
    host.pass(100_000);
    assert_eq!(host.state(1), TimedOut);
}

#[test]
fn a_snooze_spends_no_attempt_and_goes_on() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    host.ack(&job);
    let until = host.now.after_millis(1_000);
    assert_eq!(told(host.say(&job, Act::Snooze(until))), Delayed);
    host.pass(1_000);
    let again = host.one(1);
    assert_eq!((again.token.key.attempt, again.entry), (Attempt::FIRST, Entry::Resume));
}

// ---- filters ----------------------------------------------------------------------------------------------------------

#[test]
fn a_degraded_component_is_skipped_until_it_is_back() {
    let mut host = Host::new();
    let scan = |id| with(id, 1, |spec| spec.component = component(5));
    host.engine.set_component(host.now, component(5), Service::Closed).unwrap();
    host.submit(1, &[scan(1), new_job(2, 2)]);
    assert_eq!(host.states(&[1, 2]), [Skipped, Pending]);
    assert_eq!(host.job(1).reason, Reason::Degraded { component: component(5) });
    host.engine.set_component(host.now, component(5), Service::Open).unwrap();
    host.submit(2, &[scan(3)]);
    assert_eq!(host.state(3), Pending);
}

#[test]
fn a_freeze_window_holds_what_it_names_until_it_ends_or_is_taken_back() {
    let mut host = Host::new();
    let deploy = |id| with(id, 1, |spec| spec.component = component(5));
    let (from, until) = (host.now, host.now.after_millis(60_000));
    let hold = Hold { filter: 3, class: None, component: Some(component(5)), from, until };
    host.engine.hold(host.now, hold).unwrap();
    host.submit(1, &[deploy(1), new_job(2, 1)]);
    assert_eq!(host.states(&[1, 2]), [Suspended, Pending]);
    assert_eq!(host.job(1).reason, Reason::Held { filter: 3, until });
    host.pass(60_000);
    assert_eq!(host.state(1), Pending);
    let until = host.now.after_millis(60_000);
    host.engine.hold(host.now, Hold { from: host.now, until, ..hold }).unwrap();
    host.submit(2, &[deploy(3)]);
    host.submit(3, &[deploy(4)]);
    assert_eq!(host.states(&[3, 4]), [Suspended, Suspended]);
    let call = host.engine.approve(host.now, JobId::new(3));
    assert_eq!(told(host.answer(call)), Pending, "an operator lets one through");
    host.engine.release(host.now, 3);
    host.run();
    assert_eq!(host.job(4).reason, Reason::Released { filter: 3 });
}

#[test]
fn a_result_with_the_same_inputs_is_reused() {
    let mut host = Host::new();
    let build = |id, key| with(id, 1, |spec| spec.unchanged = Some(ResultKey(key)));
    host.submit(1, &[build(1, 77)]);
    host.work_off();
    host.submit(2, &[build(2, 77), build(3, 78), new_job(4, 2)]);
    assert_eq!(host.states(&[2, 3, 4]), [Reused, Pending, Unstart]);
    assert_eq!(host.job(2).reason, Reason::Unchanged { result_of: JobId::new(1) });
    host.engine.remember(host.now, ResultKey(5), JobId::new(900));
    host.submit(3, &[build(5, 5)]);
    assert_eq!(host.pipeline(3).state(), PipelineState::Succeeded);
}

#[test]
fn the_host_is_asked_when_the_batch_is_about_to_open_and_not_before() {
    let mut host = Host::new();
    let ask = |id, order| with(id, order, |spec| spec.condition = Condition::Ask);
    host.submit(1, &[new_job(1, 1), ask(2, 2), ask(3, 2), ask(4, 2), ask(5, 2), new_job(6, 2)]);
    assert_eq!(host.judged, []);
    host.work_off();
    assert_eq!(host.judged.len(), 4, "each once");
    let later = host.now.after_millis(1_000);
    let judgements = [
        Judgement::Pass,
        Judgement::Skip { filter: 9 },
        Judgement::Reuse { result_of: JobId::new(1) },
        Judgement::Hold { filter: 9, until: later },
    ];
    for (job, judgement) in host.judged.clone().into_iter().zip(judgements) {
        assert_eq!(host.state(6), Unstart, "the batch opens as a whole");
        host.engine.handle_judged(host.now, job, judgement);
        host.run();
    }
    assert_eq!(host.states(&[2, 3, 4, 5, 6]), [Pending, Skipped, Reused, Suspended, Pending]);
    host.pass(1_000);
    assert_eq!(host.state(5), Pending);
}

#[test]
fn a_question_that_was_lost_is_asked_again_by_the_next_life() {
    let mut host = Host::new();
    host.submit(1, &[with(1, 1, |spec| spec.condition = Condition::Ask)]);
    host.restart(2);
    assert_eq!(host.judged.len(), 1);
    let job = host.judged[0];
    host.engine.handle_judged(host.now, job, Judgement::Pass);
    host.run();
    assert_eq!(host.state(1), Pending);
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
fn heartbeats_keep_a_lease_and_silence_loses_it() {
    let mut host = Host::new();
    host.submit(1, &[policy(1, |policy| policy.lease_ms = 10_000)]);
    let job = host.one(1);
    host.ack(&job);
    for _ in 0..10 {
        host.pass(9_000);
        assert_eq!(told(host.say(&job, Act::Heartbeat)), Running);
    }
    host.pass(10_000);
    assert_eq!(host.state(1), Delayed, "a lost lease is followed by another attempt, whatever the policy of failures");
    let lost = host.db.borrow().jobs[&job.token.key];
    assert!(matches!(lost.reason, Reason::LeaseLost { crashes: 1, .. }));
    assert_eq!(lost.state, Failed);
}

#[test]
fn heartbeats_are_thinned() {
    let mut host = Host::new();
    host.submit(1, &[policy(1, |policy| policy.lease_ms = 10_000)]);
    let job = host.one(1);
    host.ack(&job);
    let writes = host.writes;
    for _ in 0..29 {
        host.pass(100);
        assert_eq!(told(host.say(&job, Act::Heartbeat)), Running);
    }
    assert_eq!(host.writes, writes, "within the first third nothing is written");
    host.pass(100);
    host.say(&job, Act::Heartbeat);
    assert_eq!(host.writes, writes + 1);
    assert_eq!(host.job(1).until, host.now.after_millis(10_000));
}

#[test]
fn a_job_that_crashes_its_workers_ends_dead_over_all_attempts() {
    let mut host = Host::new();
    let brittle = policy(1, |policy| {
        policy.max_attempts = 1;
        policy.max_crashes = 3;
        policy.backoff_ms = 0;
    });
    host.submit(1, &[brittle]);
    for attempt in 1..=3 {
        let job = host.one(attempt);
        assert_eq!(u64::from(job.token.key.attempt.get()), attempt);
        host.ack(&job);
        host.pass(60_000);
    }
    assert_eq!(host.state(1), Dead);
    assert_eq!(host.pipeline(1).state(), PipelineState::Failed);
    let call = host.engine.retry(host.now, JobId::new(1));
    let Answer::Retried { jobs: 1, first } = host.answer(call) else { panic!() };
    assert_eq!(first.attempt, Attempt::new(4));
    assert_eq!(host.job(1).tally.crashes, 0, "a revival forgives");
    assert_eq!(host.work_off(), [1]);
}

#[test]
fn a_crash_spends_none_of_the_retries_that_failures_have() {
    let mut host = Host::new();
    host.submit(1, &[policy(1, |policy| (policy.max_attempts, policy.backoff_ms) = (2, 0))]);
    let job = host.one(1);
    host.ack(&job);
    host.pass(60_000);
    let second = host.one(1);
    assert_eq!(told(host.fail(&second)), Failed);
    let third = host.one(1);
    assert_eq!(third.token.key.attempt, Attempt::new(3));
    host.fail(&third);
    assert_eq!((host.state(1), host.job(1).key.attempt), (Failed, Attempt::new(3)));
    assert_eq!((host.job(1).tally.failures, host.job(1).tally.crashes), (2, 1));
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
        assert!((full / 2..=full).contains(&delay_ms), "{delay_ms} of {full}");
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
fn a_repeated_ack_is_fine_and_writes_nothing() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    host.ack(&job);
    let writes = host.writes;
    assert_eq!(told(host.ack(&job)), Running);
    assert_eq!(host.writes, writes);
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
fn of_all_jobs_with_one_key_one_is_out_and_the_others_block_nobody() {
    let mut host = Host::new();
    host.submit(1, &[keyed(1, 7), keyed(2, 7), keyed(3, 7), new_job(4, 1), keyed(5, 8)]);
    let jobs = host.pull(1, 10);
    let ids: Vec<u64> = jobs.iter().map(|job| job.token.key.job.get()).collect();
    assert_eq!(ids, [1, 4, 5]);
    assert!(host.pull(1, 10).is_empty());
    host.succeed(&jobs[0]);
    assert_eq!(host.one(1).token.key.job.get(), 2, "in their order");
    host.pass(10_000);
    let again = host.pull(1, 1);
    assert_eq!(again[0].token.key.job.get(), 3, "a delivery that is not acknowledged gives the key back");
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

#[test]
fn waiting_work_that_gives_way_collapses_to_the_newest() {
    let mut host = Host::new();
    let deploy = |id| {
        with(id, 1, |spec| {
            (spec.key, spec.on_newer) = (Some(Key::new(7)), tenon_jobqueue::OnNewer::GivesWay);
        })
    };
    host.submit(1, &[deploy(1)]);
    let running = host.one(1);
    for id in 2..=4 {
        host.submit(id, &[deploy(id)]);
    }
    assert_eq!(host.states(&[1, 2, 3, 4]), [Scheduled, Superseded, Superseded, Pending]);
    assert_eq!(host.job(2).reason, Reason::Superseded { by: JobId::new(3) });
    assert_eq!(host.pipeline(2).state(), PipelineState::Aborted);
    host.succeed(&running);
    assert_eq!(host.one(1).token.key.job.get(), 4);
}

// ---- aborts and retries -----------------------------------------------------------------------------------------------------

#[test]
fn an_abort_before_running_is_an_end_and_leaves_the_queue() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1), new_job(2, 1)]);
    let call = host.engine.abort(host.now, JobId::new(1));
    assert_eq!(told(host.answer(call)), Aborted);
    assert_eq!(host.engine.depth(Tag::OTHER), 1);
    assert_eq!(host.one(1).token.key.job.get(), 2);
}

#[test]
fn an_abort_of_a_delivered_job_means_that_its_ack_is_refused() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    let call = host.engine.abort(host.now, JobId::new(1));
    assert_eq!(told(host.answer(call)), Aborted);
    assert_eq!(host.ack(&job), refused(Refused::Terminal(Aborted)));
}

#[test]
fn a_running_job_is_told_to_stop_and_a_late_success_is_recorded_not_applied() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    host.ack(&job);
    let call = host.engine.abort(host.now, JobId::new(1));
    assert_eq!(told(host.answer(call)), Aborting);
    assert_eq!(host.aborts, [(job.worker, job.token)]);
    assert_eq!(told(host.say(&job, Act::Heartbeat)), Aborting, "the worker learns of it from its heartbeat too");
    assert_eq!(told(host.succeed(&job)), Aborted);
    assert_eq!(host.job(1).outcome, Some(Outcome::Succeeded));
    assert_eq!(host.pipeline(1).state(), PipelineState::Aborted);
}

#[test]
fn an_abort_that_nobody_confirms_is_over_in_time() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    host.ack(&job);
    let call = host.engine.abort(host.now, JobId::new(1));
    host.answer(call);
    host.pass(30_000);
    assert_eq!(host.state(1), Aborted);
    assert!(matches!(host.job(1).reason, Reason::AbortUnanswered { .. }));
}

#[test]
fn first_applied_wins_between_an_end_and_an_abort() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let job = host.one(1);
    host.succeed(&job);
    let call = host.engine.abort(host.now, JobId::new(1));
    assert_eq!(host.answer(call), refused(Refused::Terminal(Succeeded)));
}

#[test]
fn a_job_over_its_time_is_stopped_then_tried_again_unless_somebody_aborts() {
    let impatient = |id| {
        policy(id, |policy| {
            (policy.timeout_ms, policy.lease_ms, policy.max_attempts) = (50_000, 100_000, 2);
            policy.backoff_ms = 0;
        })
    };
    let mut host = Host::new();
    host.submit(1, &[impatient(1)]);
    let job = host.one(1);
    host.ack(&job);
    host.pass(50_000);
    assert_eq!(host.state(1), Aborting, "its worker may still run it");
    assert_eq!(host.aborts.len(), 1);
    assert_eq!(told(host.succeed(&job)), TimedOut);
    assert_eq!((host.job(1).key.attempt, host.state(1)), (Attempt::new(2), Pending));

    let mut host = Host::new();
    host.submit(1, &[impatient(1)]);
    let job = host.one(1);
    host.ack(&job);
    host.pass(50_000);
    let call = host.engine.abort(host.now, JobId::new(1));
    assert_eq!(told(host.answer(call)), Aborting);
    host.fail(&job);
    assert_eq!((host.job(1).key.attempt, host.state(1)), (Attempt::FIRST, Aborted), "no further attempt");
}

#[test]
fn a_failure_is_tried_again_after_a_back_off_unless_it_is_for_good() {
    let mut host = Host::new();
    let job = |id| policy(id, |policy| (policy.max_attempts, policy.backoff_ms) = (3, 1_000));
    host.submit(1, &[job(1)]);
    let first = host.one(1);
    assert_eq!(told(host.fail(&first)), Failed, "the first attempt has failed");
    assert_eq!(host.state(1), Delayed, "the second waits");
    assert_eq!(host.pipeline(1).state(), PipelineState::Open);
    host.pass(1_000);
    let second = host.one(1);
    assert_eq!(second.token.key.attempt, Attempt::new(2));
    assert_eq!(host.succeed(&first), refused(Refused::StaleLease), "the first cannot end the second");
    assert_eq!(told(host.say(&second, Act::Report(Outcome::FailedForGood { code: 2 }))), Failed);
    assert_eq!(host.job(1).key.attempt, Attempt::new(2));
    assert_eq!(host.pipeline(1).state(), PipelineState::Failed);
}

#[test]
fn aborting_a_pipeline_stops_everything_wherever_it_stands() {
    let mut host = Host::new();
    let manual = with(3, 1, |spec| spec.start = Start::Manual);
    let later = with(4, 1, |spec| spec.start = Start::After(9_000));
    host.submit(1, &[new_job(1, 1), new_job(2, 1), manual, later, new_job(5, 2)]);
    let running = host.one(1);
    host.ack(&running);
    let call = host.engine.abort_pipeline(host.now, PipelineId::new(1));
    assert_eq!(host.answer(call), Answer::Aborting);
    assert_eq!(host.states(&[1, 2, 3, 4, 5]), [Aborting, Aborted, Aborted, Aborted, Aborted]);
    assert_eq!(host.closed, []);
    let call = host.engine.abort_pipeline(host.now, PipelineId::new(1));
    assert_eq!(host.answer(call), Answer::Aborting, "again is fine");
    host.fail(&running);
    assert_eq!(host.closed, [(PipelineId::new(1), PipelineState::Aborted)]);
    let call = host.engine.abort_pipeline(host.now, PipelineId::new(1));
    assert_eq!(host.answer(call), refused(Refused::Closed(PipelineState::Aborted)));
}

#[test]
fn retrying_a_pipeline_keeps_what_succeeded_and_goes_on_from_what_failed() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1), new_job(2, 1), new_job(3, 2)]);
    let jobs = host.pull(1, 2);
    host.succeed(&jobs[0]);
    host.fail(&jobs[1]);
    let (good, bad) = (jobs[0].token.key.job.get(), jobs[1].token.key.job.get());
    assert_eq!(host.pipeline(1).state(), PipelineState::Failed);
    let call = host.engine.retry_pipeline(host.now, PipelineId::new(1));
    let Answer::Retried { jobs: 2, .. } = host.answer(call) else { panic!() };
    assert_eq!(host.work_off(), [bad, 3]);
    assert_eq!(host.job(good).key.attempt, Attempt::FIRST);
    assert_eq!(host.pipeline(1).state(), PipelineState::Succeeded);
    let call = host.engine.retry_pipeline(host.now, PipelineId::new(1));
    assert_eq!(host.answer(call), refused(Refused::Nothing));
}

#[test]
fn retrying_an_aborted_pipeline_opens_it_again() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1), new_job(2, 2)]);
    let call = host.engine.abort_pipeline(host.now, PipelineId::new(1));
    host.answer(call);
    assert_eq!(host.pipeline(1).state(), PipelineState::Aborted);
    let call = host.engine.retry_pipeline(host.now, PipelineId::new(1));
    assert!(matches!(host.answer(call), Answer::Retried { jobs: 2, .. }));
    assert_eq!(host.work_off(), [1, 2]);
}

// ---- queues and pools -------------------------------------------------------------------------------------------------------

#[test]
fn priority_then_time_then_sequence() {
    let mut host = Host::new();
    host.submit_as(1, 0, 1, &[new_job(10, 1), new_job(11, 1)]);
    host.pass(5);
    host.submit_as(2, 0, 9, &[new_job(20, 1)]);
    host.submit_as(3, 0, 9, &[new_job(5, 1)]);
    let order: Vec<u64> = host.pull(1, 10).iter().map(|job| job.token.key.job.get()).collect();
    assert_eq!(order, [20, 5, 10, 11]);
}

#[test]
fn ageing_bounds_how_long_the_lowest_priority_waits() {
    let aged = Config::builder(Incarnation::new(1)).ageing_ms(100).settling_ms(0).build().unwrap();
    let mut host = Host::on(aged, std::rc::Rc::default());
    host.submit_as(1, 0, 0, &[new_job(1, 1)]);
    // (255 - 0) × 100 ms: what comes later than that goes behind, whatever its priority.
    host.pass(25_499);
    host.submit_as(2, 0, 255, &[new_job(2, 1)]);
    host.pass(2);
    host.submit_as(3, 0, 255, &[new_job(3, 1)]);
    let order: Vec<u64> = host.pull(1, 10).iter().map(|job| job.token.key.job.get()).collect();
    assert_eq!(order, [2, 1, 3]);
}

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

#[test]
fn a_drained_pool_takes_no_pulls_and_keeps_its_leases() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1), new_job(2, 1)]);
    let job = host.one(1);
    let mut drained = pool(1, &[Tag::OTHER], 1_000);
    drained.service = Service::Closed;
    host.engine.put_pool(host.now, drained).unwrap();
    assert_eq!(host.engine.pull(host.now, &request(1, 1)), Err(Refused::Disabled));
    assert_eq!(told(host.succeed(&job)), Succeeded);
    let Why::Queue { pools, .. } = host.engine.explain(JobId::new(2)).unwrap().why else { panic!() };
    assert_eq!(pools, [(common::POOL, Standing::Closed)]);
}

#[test]
fn explain_tells_how_many_are_ahead_and_who_has_no_room() {
    let mut host = Host::new();
    host.engine.put_pool(host.now, pool(1, &[Tag::OTHER], 1)).unwrap();
    let jobs: Vec<NewJob> = (1..=4).map(|id| new_job(id, 1)).collect();
    host.submit(1, &jobs);
    host.one(1);
    let Why::Queue { ahead, pools, .. } = host.engine.explain(JobId::new(4)).unwrap().why else { panic!() };
    assert_eq!(ahead, 2);
    assert_eq!(pools, [(common::POOL, Standing::NoRoom { used: 1, limit: 1 })]);
}

// ---- parked pulls -----------------------------------------------------------------------------------------------------------

#[test]
fn a_parked_pull_is_woken_once_by_what_comes_and_gives_up_in_time() {
    let mut host = Host::new();
    let patient = PullRequest { wait_ms: 30_000, ..request(1, 1) };
    let first = host.engine.pull(host.now, &patient).unwrap();
    let second = host.engine.pull(host.now, &patient).unwrap();
    host.run();
    assert!(host.answers.is_empty());
    host.submit(1, &[new_job(1, 1)]);
    assert_eq!(host.answers[&first], Answer::Pulled { jobs: 1 }, "who waits longest is first");
    assert!(!host.answers.contains_key(&second));
    let job = host.got(first)[0];
    host.ack(&job);
    host.pass(30_000);
    assert_eq!(host.answers[&second], Answer::Pulled { jobs: 0 });
}

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
    // One after another they are written, and the first there is taken: it is the only one there is.
    host.act(effects[1]);
    host.run();
    assert_eq!(host.got(call)[0].token.key.job.get(), 2);
    host.act(effects[0]);
    host.act(effects[2]);
    host.run();
    assert_eq!(host.one(2).token.key.job.get(), 3, "by priority, not by when they were due");
}

#[test]
fn a_batch_is_visible_as_a_whole() {
    let mut host = Host::new();
    let patient = PullRequest { wait_ms: 60_000, ..request(1, 3) };
    let call = host.engine.pull(host.now, &patient).unwrap();
    host.submit(1, &[new_job(1, 1), new_job(2, 1), new_job(3, 1), new_job(4, 1)]);
    assert_eq!(host.got(call).len(), 3);
    assert_eq!(host.answers[&call], Answer::Pulled { jobs: 3 });
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

#[test]
fn room_made_by_an_end_wakes_a_parked_pull() {
    let mut host = Host::new();
    host.engine.put_pool(host.now, pool(1, &[Tag::OTHER], 1)).unwrap();
    host.submit(1, &[new_job(1, 1), new_job(2, 1)]);
    let job = host.one(1);
    let patient = PullRequest { wait_ms: 60_000, ..request(2, 1) };
    let call = host.engine.pull(host.now, &patient).unwrap();
    host.run();
    assert!(host.got(call).is_empty());
    host.succeed(&job);
    assert_eq!(host.got(call).len(), 1);
}

#[test]
fn a_lost_assignment_is_sent_again_to_the_same_life_of_the_worker_only() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    let lost = host.engine.pull(host.now, &request(1, 1)).unwrap();
    host.run();
    let sent = host.got(lost)[0];
    let reborn = Worker { incarnation: Incarnation::new(2), ..worker(1) };
    let again = PullRequest { previous: Some(lost), ..request(1, 1) };
    assert_eq!(host.pull_for(&PullRequest { worker: reborn, ..again }), []);
    assert_eq!(host.pull(1, 1), [], "not without naming the lost pull");
    assert_eq!(host.pull_for(&again), [sent]);
    host.pass(10_000);
    host.one(2);
    assert_eq!(host.pull_for(&again), [], "not after it was taken back");
}

// ---- several engines, one database ------------------------------------------------------------------------------------------

#[test]
fn two_engines_pull_one_row_and_one_of_them_gets_it() {
    let mut one = Host::new();
    one.submit(1, &[new_job(1, 1)]);
    let mut two = one.beside(2);
    let rows = one.db.borrow().open();
    let _ = two.engine.load(two.now, &rows);
    two.run();
    let (a, b) = (one.pull(1, 1), two.pull(2, 1));
    assert_eq!((a.len(), b.len()), (1, 0));
    assert_eq!(two.engine.counters().conflicted, 1);
    // The other engine takes the worker's words all the same.
    let call = two.engine.work(two.now, a[0].worker, a[0].token, Act::Ack);
    assert_eq!(told(two.answer(call)), Running);
    let call = one.engine.work(one.now, a[0].worker, a[0].token, Act::Report(Outcome::Succeeded));
    assert_eq!(told(one.answer(call)), Succeeded, "a stale row is read again, not believed");
}

#[test]
fn an_engine_that_knows_nothing_reads_the_row_and_goes_on_with_the_pipeline() {
    let mut one = Host::new();
    one.submit(1, &[new_job(1, 1), new_job(2, 2)]);
    let job = one.one(1);
    let mut two = one.beside(2);
    let call = two.engine.work(two.now, job.worker, job.token, Act::Report(Outcome::Succeeded));
    assert_eq!(told(two.answer(call)), Succeeded);
    assert_eq!(two.state(2), Pending, "the next batch is open");
    assert_eq!(two.work_off(), [2]);
}

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
        let new = Submission { id: PipelineId::new(1), class: Class::new(0), priority: 0, jobs: &[new_job(1, 1)] };
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
                    }
                }
                let mut db = host.db.borrow_mut();
                for row in &rows {
                    match row {
                        Row::Job(job) => db.jobs.insert(job.key, *job).map(|_| ()),
                        Row::Pipeline(row) => db.pipelines.insert(row.id, *row).map(|_| ()),
                        Row::Key(row) => db.keys.insert(row.key, *row).map(|_| ()),
                    };
                }
                drop(db);
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
fn deadlines_that_passed_while_nobody_watched_are_acted_on() {
    let mut host = Host::new();
    host.submit(1, &[new_job(1, 1)]);
    host.one(1);
    host.now = host.now.after_millis(3_600_000);
    host.restart(2);
    host.pass(0);
    assert_eq!(host.state(1), Pending);
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
