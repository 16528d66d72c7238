//! Jobs that name what they need: the state table, revival, many engines, long pipelines.
#![allow(unused_must_use, reason = "answers that a scenario is not about")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Host, new_job, refused};
use tenon_jobqueue::State::{Aborted, Failed, Pending, Skipped, Succeeded, Suspended, Unstart};
use tenon_jobqueue::{
    Act, Answer, JobClass, JobId, NeedsError, NeedsVerdict, NewJob, OnFailure, Outcome, Outcomes, PipelineId,
    PipelineState, Plan, PlannedJob, Reason, Refused, Start, Submission, Version, When, Why, WriteId,
};

fn job(id: u64, order: u32, when: When) -> NewJob {
    let mut new = new_job(id, order);
    new.spec.when = when;
    new
}

fn manual(id: u64, order: u32, on_failure: OnFailure) -> NewJob {
    let mut new = new_job(id, order);
    (new.spec.start, new.spec.on_failure) = (Start::Manual, on_failure);
    new
}

/// Ends a job that a pull gives out, badly or well.
fn end(host: &mut Host, id: u64, outcome: Outcome) {
    for name in 1..50 {
        let got = host.pull(name, 50);
        for other in &got {
            host.ack(other);
        }
        if let Some(mine) = host.assigned.iter().rev().find(|(_, to)| to.token.key.job.get() == id).map(|(_, to)| *to) {
            assert!(matches!(host.say(&mine, Act::Report(outcome)), Answer::Done { .. }));
            return;
        }
    }
    panic!("nobody is given job {id}");
}

fn succeed(host: &mut Host, id: u64) {
    end(host, id, Outcome::Succeeded);
}

fn fail(host: &mut Host, id: u64) {
    end(host, id, Outcome::Failed { code: 1 });
}

/// The table of `ci-semantics`: what is waited for, and what becomes of a job of a stage, of one that names its needs on
/// success, of one on failure (of a stage, by needs), and of one that runs always.
#[test]
fn a_job_is_judged_by_what_it_waits_for_as_the_table_says() {
    use JobClass::{Active, Failed, Good, Ignored, Skipped, Stopped, Undecided};
    const RUN: Option<bool> = Some(true);
    const SKIP: Option<bool> = Some(false);
    const WAIT: Option<bool> = None;
    // [stage on success, needs on success, stage on failure, needs on failure, always]
    let table: [(&[JobClass], [Option<bool>; 5]); 12] = [
        (&[], [RUN, RUN, SKIP, SKIP, RUN]),
        (&[Good, Good], [RUN, RUN, SKIP, SKIP, RUN]),
        (&[Good, Skipped], [RUN, SKIP, SKIP, SKIP, RUN]),
        (&[Good, Ignored], [RUN, SKIP, SKIP, SKIP, RUN]),
        (&[Skipped, Ignored], [RUN, SKIP, SKIP, SKIP, RUN]),
        (&[Failed, Good], [SKIP, SKIP, RUN, RUN, RUN]),
        (&[Stopped, Good], [SKIP, SKIP, RUN, RUN, RUN]),
        (&[Failed, Skipped], [SKIP, SKIP, RUN, SKIP, RUN]),
        (&[Failed, Ignored], [SKIP, SKIP, RUN, SKIP, RUN]),
        (&[Failed, Active], [WAIT; 5]),
        (&[Undecided, Skipped], [WAIT; 5]),
        (&[Active, Good], [WAIT; 5]),
    ];
    for (before, says) in table {
        let mut outcomes = Outcomes::new(before.len() + 1);
        for (place, class) in before.iter().enumerate() {
            outcomes.set(place, *class);
        }
        let whens = [When::OnSuccess, When::OnSuccess, When::OnFailure, When::OnFailure, When::Always];
        for (at, (when, says)) in whens.into_iter().zip(says).enumerate() {
            let named = |place: usize| (at % 2 == 1).then(|| (0..u16::try_from(place).unwrap()).collect());
            let planned = |place: usize| PlannedJob {
                job: JobId::new(place as u64),
                order: u32::from(place == before.len()),
                when,
                needs: named(place).filter(|_| place == before.len()),
            };
            let jobs = (0..=before.len()).map(planned).collect();
            let plan = Plan { pipeline: PipelineId::new(1), version: Version::FIRST, write: WriteId::default(), jobs };
            let told = match plan.verdict(&outcomes, before.len()) {
                NeedsVerdict::Wait => None,
                NeedsVerdict::Run => Some(true),
                NeedsVerdict::Skip { .. } => Some(false),
            };
            assert_eq!(told, says, "{before:?}, {when:?}, by needs: {}", at % 2 == 1);
        }
    }
}

#[test]
fn a_job_starts_once_what_it_needs_has_ended_whatever_else_its_stage_does() {
    let mut host = Host::new();
    let jobs = [new_job(1, 1), new_job(2, 1), new_job(3, 2), new_job(4, 2), new_job(5, 3)];
    assert_eq!(host.submit_needs(1, &jobs, &[(3, &[1]), (4, &[])]), Answer::Submitted);
    assert_eq!(host.states(&[1, 2, 3, 4, 5]), [Pending, Pending, Unstart, Pending, Unstart], "no need: at once");
    assert_eq!(host.engine.explain(JobId::new(3)).unwrap().why, Why::Needs { job: JobId::new(1), more: 0 });
    assert_eq!(host.engine.explain(JobId::new(5)).unwrap().why, Why::Needs { job: JobId::new(1), more: 3 });
    succeed(&mut host, 1);
    assert_eq!(host.state(3), Pending, "its slow stranger, job 2, is not waited for");
    fail(&mut host, 2);
    assert!(!host.state(3).is_terminal(), "nor does it speak about it");
    succeed(&mut host, 3);
    succeed(&mut host, 4);
    assert_eq!(host.state(5), Skipped, "a job that says nothing waits for all earlier ones, and is judged by them");
    assert_eq!(host.job(5).reason, Reason::NotWanted { failed: 1 });
    assert_eq!(host.pipeline(1).state(), PipelineState::Failed);
    assert_eq!(host.engine.jobs(), 0);
}

#[test]
fn a_need_that_passed_is_enough_and_on_failure_with_a_passed_need_does_not_run() {
    let mut host = Host::new();
    let jobs = [new_job(1, 1), new_job(2, 1), new_job(3, 2), job(4, 2, When::OnFailure), job(5, 2, When::OnFailure)];
    host.submit_needs(1, &jobs, &[(3, &[1]), (4, &[1]), (5, &[2])]);
    fail(&mut host, 2);
    assert_eq!(host.state(5), Pending);
    succeed(&mut host, 1);
    assert_eq!(host.states(&[3, 4]), [Pending, Skipped]);
    assert_eq!(host.job(4).reason, Reason::NotWanted { failed: 0 });
}

#[test]
fn a_job_that_needs_a_manual_gate_waits_for_the_approval() {
    let mut host = Host::new();
    let jobs = [manual(1, 1, OnFailure::Fails), new_job(2, 2), manual(3, 1, OnFailure::Allowed), new_job(4, 2)];
    host.submit_needs(1, &jobs, &[(2, &[1]), (4, &[3])]);
    assert_eq!(host.states(&[1, 2, 3, 4]), [Suspended, Unstart, Suspended, Skipped], "an optional gate skips at once");
    assert_eq!(host.job(4).reason, Reason::NeedNotRun { skipped: 1 });
    for gate in [1, 3] {
        let call = host.engine.approve(host.now, JobId::new(gate));
        host.answer(call);
    }
    assert_eq!(host.states(&[2, 4]), [Unstart, Unstart], "playing it revives what was skipped because of it");
    succeed(&mut host, 1);
    succeed(&mut host, 3);
    assert!(!host.states(&[2, 4]).contains(&Unstart));
    assert_eq!(host.job(4).key.attempt.get(), 2);
}

#[test]
fn a_retried_job_revives_all_that_was_skipped_because_of_it() {
    for needs in [&[][..], &[(3, &[2][..]), (2, &[1][..])][..]] {
        let mut host = Host::new();
        host.submit_needs(1, &[new_job(1, 1), new_job(2, 2), new_job(3, 3)], needs);
        fail(&mut host, 1);
        assert_eq!(host.states(&[1, 2, 3]), [Failed, Skipped, Skipped]);
        assert_eq!(host.pipeline(1).state(), PipelineState::Failed);
        let call = host.engine.retry(host.now, JobId::new(1));
        assert!(matches!(host.answer(call), Answer::Retried { .. }));
        assert_eq!(host.states(&[1, 2, 3]), [Pending, Unstart, Unstart], "{needs:?}");
        assert_eq!(host.work_off(), [1, 2, 3]);
        assert_eq!(host.pipeline(1).state(), PipelineState::Succeeded, "green, and the deploy ran");
    }
}

#[test]
fn what_did_run_stays_decided_and_only_what_is_wanted_comes_back() {
    let mut host = Host::new();
    let jobs = [new_job(1, 1), new_job(2, 1), new_job(3, 2), new_job(4, 2), job(5, 2, When::OnFailure)];
    host.submit_needs(1, &jobs, &[(3, &[1]), (4, &[2]), (5, &[1])]);
    fail(&mut host, 1);
    fail(&mut host, 2);
    succeed(&mut host, 5);
    assert_eq!(host.states(&[3, 4, 5]), [Skipped, Skipped, Succeeded]);
    let call = host.engine.retry(host.now, JobId::new(1));
    host.answer(call);
    assert_eq!(host.states(&[3, 4, 5]), [Unstart, Skipped, Succeeded], "job 4 was skipped because of another");
    succeed(&mut host, 1);
    succeed(&mut host, 3);
    assert_eq!(host.pipeline(1).state(), PipelineState::Failed);
    let call = host.engine.retry(host.now, JobId::new(5));
    assert_eq!(host.answer(call), refused(Refused::Terminal(Succeeded)));
}

#[test]
fn an_aborted_pipeline_stops_what_waits_for_a_need() {
    let mut host = Host::new();
    let jobs: Vec<NewJob> = (1..=200).map(|id| new_job(id, 1 + u32::from(id > 1))).collect();
    host.submit_needs(1, &jobs, &[]);
    let call = host.engine.abort_pipeline(host.now, PipelineId::new(1));
    host.answer(call);
    assert!((1..=200).all(|id| host.state(id) == Aborted), "in writes of 64");
    assert_eq!(host.pipeline(1).state(), PipelineState::Aborted);
    assert_eq!(host.engine.jobs(), 0);
}

#[test]
fn two_ends_on_two_engines_open_what_needs_both_exactly_once() {
    for first in [0, 1] {
        let mut one = Host::new();
        one.submit_needs(1, &[new_job(1, 1), new_job(2, 1), new_job(3, 2)], &[(3, &[1, 2])]);
        let mut two = one.beside(2);
        let rows = one.db.borrow().open();
        let _ = two.engine.load(two.now, &rows);
        two.run();
        let (a, b) = (one.one(1), two.one(2));
        assert_ne!(a.token.key, b.token.key);
        one.engine.work(one.now, a.worker, a.token, Act::Report(Outcome::Succeeded)).unwrap();
        two.engine.work(two.now, b.worker, b.token, Act::Report(Outcome::Succeeded)).unwrap();
        // Both have read the same rows, each sees the other's job running; then both write.
        if first == 0 {
            one.run();
        } else {
            two.run();
        }
        if first == 0 {
            two.run();
        } else {
            one.run();
        }
        assert_eq!(one.state(3), Pending);
        assert_eq!(one.db.borrow().job(3).version.get(), 2, "opened once");
        assert_eq!(one.pull(1, 9).len() + two.pull(2, 9).len(), 1);
    }
}

#[test]
fn an_engine_that_dies_before_it_opened_what_it_owes_is_taken_over() {
    let mut one = Host::new();
    one.submit_needs(1, &[new_job(1, 1), new_job(2, 2)], &[(2, &[1])]);
    let job = one.one(1);
    one.engine.work(one.now, job.worker, job.token, Act::Report(Outcome::Succeeded)).unwrap();
    let effect = one.engine.poll_effect().unwrap();
    one.act(effect);
    assert!(one.pipeline(1).owes && one.state(2) == Unstart, "the end is written, and the opening is not");
    let mut two = one.beside(2);
    let rows = one.db.borrow().read(tenon_jobqueue::Want::Owing { limit: 10 }, &one.engine);
    let _ = two.engine.load(two.now, &rows);
    two.run();
    assert_eq!(two.state(2), Pending);
    assert!(!two.pipeline(1).owes);
}

#[test]
fn a_thousand_jobs_with_fifty_needs_run_once_each() {
    let mut host = Host::new();
    host.db.borrow_mut().unchecked = true;
    let jobs: Vec<NewJob> = (1..=1_000).map(|id| new_job(id, 1)).collect();
    let named: Vec<(u64, Vec<u64>)> = (2..=1_000_u64).map(|id| (id, (1..id).rev().take(50).collect())).collect();
    let needs: Vec<(u64, &[u64])> = named.iter().map(|(id, of)| (*id, &of[..])).chain([(1, &[][..])]).collect();
    assert_eq!(host.submit_needs(1, &jobs, &needs), Answer::Submitted);
    let done = host.work_off();
    assert_eq!(done, (1..=1_000).collect::<Vec<u64>>(), "each waits for the fifty before it");
    assert_eq!(host.pipeline(1).state(), PipelineState::Succeeded);
    // One more need, or one more job, is too much.
    let mut other = Host::new();
    let many: Vec<u64> = (1..=51).collect();
    let jobs: Vec<NewJob> = (1..=52).map(|id| new_job(id, 1)).collect();
    let (id, class) = (PipelineId::new(1), tenon_jobqueue::Class::new(0));
    let of: Vec<JobId> = many.iter().copied().map(JobId::new).collect();
    let new = Submission { id, class, priority: 0, jobs: &jobs, needs: &[(JobId::new(52), &of)] };
    assert_eq!(other.engine.submit(other.now, &new), Err(Refused::Full { used: 51, limit: 50 }));
}

#[test]
fn needs_that_cannot_be_are_named() {
    let jobs = [new_job(1, 1), new_job(2, 1), new_job(3, 1), new_job(4, 2)];
    let id = JobId::new;
    let of = |needs: &[(u64, &[u64])]| {
        let named: Vec<(JobId, Vec<JobId>)> =
            needs.iter().map(|(job, of)| (id(*job), of.iter().copied().map(id).collect())).collect();
        let needs: Vec<(JobId, &[JobId])> = named.iter().map(|(job, of)| (*job, &of[..])).collect();
        let class = tenon_jobqueue::Class::new(0);
        let new = Submission { id: PipelineId::new(1), class, priority: 0, jobs: &jobs, needs: &needs };
        let mut host = Host::new();
        (Plan::of(&new, WriteId::default()).err(), host.engine.submit(host.now, &new).err())
    };
    let circle = of(&[(1, &[2]), (2, &[3]), (3, &[1])]);
    let (job, need) = (id(1), id(2));
    assert_eq!(circle, (Some(NeedsError::Cycle(vec![id(1), id(2), id(3)])), Some(Refused::Needs { job, need })));
    let itself = of(&[(1, &[1])]);
    let (job, need) = (id(1), id(1));
    assert_eq!(itself, (Some(NeedsError::Cycle(vec![id(1)])), Some(Refused::Needs { job, need })));
    let (job, need) = (id(1), id(9));
    assert_eq!(of(&[(1, &[9])]), (Some(NeedsError::Missing(job, need)), Some(Refused::Needs { job, need })));
    let (job, need) = (id(1), id(4));
    assert_eq!(of(&[(1, &[4])]), (Some(NeedsError::Later(job, need)), Some(Refused::Needs { job, need })));
    assert_eq!(of(&[(1, &[]), (1, &[2])]), (Some(NeedsError::Twice(id(1))), Some(Refused::Invalid)));
}
