//! The first eight laws of CONTRIBUTING.md, over random histories. A failure prints the seed; `SEED=n cargo test -p tenon-jobqueue --test laws`
//! replays it alone, `SEEDS=n` runs so many.
#![allow(unused_must_use, reason = "answers that a law is not about")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a failure is replayed by its seed")]

mod common;
#[path = "common/sim.rs"]
mod sim;

use common::{Db, pool};
use sim::{Input, Sim};
use tenon_jobqueue::{
    AskId, CallId, Effect, Engine, Job, JobId, Reason, Row, Snapshot, State, Ticket, Timestamp, backoff,
};

fn seeds(count: u64) -> Vec<u64> {
    let from = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    from("SEED").map_or_else(|| (0..from("SEEDS").unwrap_or(count)).collect(), |seed| vec![seed])
}

/// Runs `check` for each seed, and names the seed that fails.
fn each(count: u64, check: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds(count) {
        if let Err(why) = std::panic::catch_unwind(|| check(seed)) {
            println!("replay: SEED={seed} cargo test -p tenon-jobqueue --test laws");
            std::panic::resume_unwind(why);
        }
    }
}

/// A history of `steps` steps on `nodes` engines.
fn history(seed: u64, nodes: usize, steps: u32) -> Sim {
    let mut sim = Sim::new(seed, nodes);
    for _ in 0..steps {
        sim.step();
    }
    sim
}

/// What an engine puts out when it is told `log`; its effects are drained as `drains` says.
fn replay(sim: &Sim, log: &[(Timestamp, Input)], drains: impl Fn(usize) -> bool) -> (Vec<Effect>, Engine) {
    let mut engine = Engine::new(sim.nodes[0].config.clone());
    let mut out = Vec::new();
    for (at, (now, input)) in log.iter().enumerate() {
        input.say(*now, &mut engine);
        if drains(at) {
            out.extend(std::iter::from_fn(|| engine.poll_effect()));
        }
    }
    out.extend(std::iter::from_fn(|| engine.poll_effect()));
    (out, engine)
}

#[test]
fn law_1_and_6_the_same_inputs_give_the_same_outputs_and_rebuild_the_state() {
    each(60, |seed| {
        let sim = history(seed, 1, 600);
        let node = &sim.nodes[0];
        let (out, engine) = replay(&sim, &node.log, |_| true);
        assert_eq!(out, node.out);
        assert_eq!(engine.snapshot(), node.engine.snapshot());
    });
}

#[test]
fn law_2_when_effects_are_drained_never_changes_them() {
    each(60, |seed| {
        let sim = history(seed, 1, 600);
        let node = &sim.nodes[0];
        for drains in [|_| false, |at: usize| at.is_multiple_of(7)] {
            let (out, _) = replay(&sim, &node.log, drains);
            assert_eq!(out, node.out);
        }
    });
}

#[test]
fn law_3_a_refusal_changes_nothing() {
    each(20, |seed| {
        let sim = history(seed, 1, 400);
        let engine = &sim.nodes[0].engine;
        let refused = [
            Input::Pull(tenon_jobqueue::PullRequest { want: 0, ..common::request(1, 1) }),
            Input::Pull(tenon_jobqueue::PullRequest { pool: tenon_jobqueue::PoolId::new(99), ..common::request(1, 1) }),
            Input::Submit(tenon_jobqueue::PipelineId::new(1 << 40), 0, Vec::new()),
            Input::Submit(tenon_jobqueue::PipelineId::new(1 << 40), 0, vec![common::new_job(1, 1); 2]),
            Input::Submit(
                tenon_jobqueue::PipelineId::new(1 << 40),
                0,
                (0..61).map(|id| common::new_job((1 << 40) + id, 1)).collect(),
            ),
            Input::Pool(pool(1, &vec![tenon_jobqueue::Tag::OTHER; 10_001], 1)),
        ];
        for input in refused {
            let mut after = engine.clone();
            let said = input.say(sim.now, &mut after);
            assert!(said.is_err(), "{input:?}");
            assert_eq!(after.snapshot(), engine.snapshot(), "{input:?}: {said:?}");
        }
    });
}

#[test]
fn law_4_late_repeated_unknown_and_early_facts_change_nothing() {
    each(20, |seed| {
        let sim = history(seed, 1, 400);
        let engine = &sim.nodes[0].engine;
        let settled: Vec<Ticket> =
            (0..2_000).map(Ticket::new).filter(|ticket| engine.changes(*ticket).is_empty()).collect();
        let rows: Vec<Row> = sim.db.open();
        let mut after = engine.clone();
        for ticket in settled {
            after.handle_committed(sim.now, ticket);
            after.handle_conflicted(sim.now, ticket, &rows);
            after.handle_unknown(sim.now, ticket);
        }
        after.handle_rows(sim.now, AskId::new(1 << 40), &rows);
        after.cancel_pull(sim.now, CallId::new(1 << 40));
        after.handle_pool_news(sim.now, tenon_jobqueue::PoolId::new(99));
        after.handle_engine_gone(sim.now, engine.incarnation());
        assert_eq!(after.snapshot(), engine.snapshot());
        assert!(after.counters().ignored > engine.counters().ignored, "but it is counted");
        if engine.next_deadline().is_none_or(|due| due > sim.now) {
            after.handle_timeout(sim.now);
            assert_eq!(after.snapshot(), engine.snapshot(), "a spurious timeout");
            // A clock that steps back a little is lifted.
            let before = sim.now.as_millis().saturating_sub(tenon_jobqueue::CLOCK_SKEW_MS);
            after.handle_timeout(Timestamp::from_millis(before));
            assert_eq!(after.snapshot(), engine.snapshot());
        }
    });
}

#[test]
fn law_5_a_twin_answers_alike_for_ever() {
    each(600, |seed| {
        let sim = history(seed, 1, 400);
        let node = &sim.nodes[0];
        let mut engine = Engine::new(node.config.clone());
        let mut twin = engine.clone();
        for (at, (now, input)) in node.log.iter().enumerate() {
            if at % 5 == 0 {
                twin = Engine::restore(node.config.clone(), &twin.snapshot()).unwrap();
            }
            assert_eq!(input.say(*now, &mut engine), input.say(*now, &mut twin), "{input:?}");
            assert_eq!(engine.next_deadline(), twin.next_deadline(), "{input:?}");
            while let Some(effect) = engine.poll_effect() {
                assert_eq!(Some(effect), twin.poll_effect(), "{input:?}");
            }
            assert_eq!(twin.poll_effect(), None);
            assert_eq!(engine.snapshot(), twin.snapshot(), "{input:?}");
        }
    });
}

#[test]
fn law_7_nothing_outgrows_its_limit() {
    each(30, |seed| {
        let mut sim = Sim::new(seed, 2);
        for _ in 0..1_500 {
            sim.step();
            for node in &sim.nodes {
                assert!(node.engine.jobs() <= 60 + 16, "jobs: a retry may add what was already there");
            }
        }
        let refused = sim.nodes.iter().flat_map(|node| &node.refusals);
        assert!(refused.count() < 1_500);
    });
}

/// A reason's numbers give the decision again.
fn recompute(job: &Job) {
    let delay = job.until.millis_since(job.since);
    match job.reason {
        Reason::Batch { order } => assert_eq!(order, job.spec.order),
        Reason::StartAt { at } if job.state == State::Delayed => assert_eq!(at, job.until),
        Reason::NotWanted { failed } => {
            let wanted = match job.spec.when {
                tenon_jobqueue::When::OnSuccess => failed == 0,
                tenon_jobqueue::When::OnFailure => failed > 0,
                tenon_jobqueue::When::Always => true,
            };
            assert!(!wanted);
        }
        Reason::Retry { delay_ms } if job.state == State::Delayed => assert_eq!(delay_ms, delay),
        Reason::Nacked { delay_ms, nacks } if job.state == State::Delayed => {
            assert_eq!((delay_ms, nacks), (delay, job.tally.nacks));
            let cap = u64::from(job.spec.policy.backoff_cap_ms);
            let largest = backoff(&job.spec.policy, nacks, 0).max(cap + cap / 2);
            assert!(delay_ms <= largest);
        }
        Reason::NoAck { due, unacked } => assert!(due <= job.since && unacked == job.tally.unacked),
        Reason::LeaseLost { due, crashes } => {
            assert!(due <= job.since && crashes == job.tally.crashes);
            assert_eq!(job.state == State::Dead, crashes >= job.spec.policy.max_crashes);
        }
        Reason::OverTime { due } | Reason::AbortUnanswered { due } | Reason::DelayOver { due } => {
            assert!(due <= job.since || job.state == State::Aborting);
        }
        _ => {}
    }
}

#[test]
fn law_8_the_numbers_in_a_reason_recompute_the_decision() {
    each(60, |seed| {
        let mut sim = Sim::new(seed, 1);
        for _ in 0..600 {
            sim.step();
            sim.db.jobs.values().for_each(recompute);
        }
    });
}

fn ended_well(db: &Db) {
    for (job, count) in &db.results {
        assert_eq!(*count, 1, "the result of {job} was accepted {count} times");
    }
}

#[test]
fn every_history_converges_however_many_engines_share_the_rows() {
    each(150, |seed| {
        let mut sim = history(seed, 1 + usize::try_from(seed % 3).unwrap(), 800);
        sim.converge();
        ended_well(&sim.db);
        assert!(sim.pipelines > 5, "a history of nothing");
        let submitted: Vec<JobId> = sim.db.jobs.keys().map(|key| key.job).collect();
        assert!(submitted.iter().all(|id| sim.db.jobs.values().any(|job| job.id() == *id)));
    });
}

#[cfg(feature = "serde")]
#[test]
fn a_snapshot_travels_as_json() {
    let sim = history(3, 1, 500);
    let snapshot = sim.nodes[0].engine.snapshot();
    let text = serde_json::to_string(&snapshot).unwrap();
    let back: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(back, snapshot);
    assert!(Engine::restore(sim.nodes[0].config.clone(), &back).is_ok());
}

#[test]
fn a_snapshot_of_another_life_is_not_taken() {
    let snapshot: Snapshot = Engine::new(common::config(1)).snapshot();
    let refused = Engine::restore(common::config(2), &snapshot);
    assert!(matches!(refused, Err(tenon_jobqueue::RestoreError::OtherLife(_))));
}
