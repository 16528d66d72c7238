//! The first eight laws of CONTRIBUTING.md, over random histories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{Author, Op, START, apply, config, seeds};
use tenon_scaler::{Effect, Engine, GroupId, MetricId, PoolId, Progress, RequestId, Skip, Snapshot, Timestamp};

const SEEDS: u64 = 100;
const LENGTH: usize = 120;

fn drain(engine: &mut Engine, into: &mut Vec<Effect>) {
    while let Some(effect) = engine.poll_effect() {
        into.push(effect);
    }
}

fn bytes(engine: &Engine) -> String {
    serde_json::to_string(&engine.snapshot()).unwrap()
}

#[test]
fn determinism_and_replay() {
    seeds(SEEDS, |seed| {
        let history = Author::new(seed).history(LENGTH);
        let (mut one, mut other) = (Engine::new(config(Skip::Proven)), Engine::new(config(Skip::Proven)));
        let (mut effects, mut again) = (vec![], vec![]);
        for (now, op) in &history {
            apply(&mut one, *now, op);
            drain(&mut one, &mut effects);
        }
        for (now, op) in &history {
            apply(&mut other, *now, op);
            drain(&mut other, &mut again);
        }
        assert_eq!(effects, again);
        assert_eq!(bytes(&one), bytes(&other));
    });
}

#[test]
fn lazy_drain() {
    seeds(SEEDS, |seed| {
        let history = Author::new(seed).history(LENGTH);
        let (mut eager, mut lazy) = (Engine::new(config(Skip::Proven)), Engine::new(config(Skip::Proven)));
        let (mut effects, mut later) = (vec![], vec![]);
        for (now, op) in &history {
            apply(&mut eager, *now, op);
            drain(&mut eager, &mut effects);
            // A host can tell only of what it has been asked.
            if matches!(op, Op::Launch(..) | Op::Release(..)) {
                drain(&mut lazy, &mut later);
            }
            apply(&mut lazy, *now, op);
        }
        drain(&mut lazy, &mut later);
        assert_eq!(effects, later);
        assert_eq!(bytes(&eager), bytes(&lazy));
    });
}

#[test]
fn a_refusal_changes_nothing() {
    let refusals = core::cell::Cell::new(0);
    seeds(SEEDS, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        for (now, op) in Author::new(seed).history(LENGTH) {
            let before = engine.snapshot();
            if apply(&mut engine, now, &op) {
                assert_eq!(before, engine.snapshot(), "{op:?}");
                refusals.set(refusals.get() + 1);
            }
            drain(&mut engine, &mut vec![]);
        }
    });
    assert!(refusals.get() > 20, "{} refusals", refusals.get());
}

#[test]
fn late_repeated_unknown_and_early_facts_change_nothing() {
    seeds(SEEDS, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        for (now, op) in Author::new(seed).history(LENGTH) {
            apply(&mut engine, now, &op);
            let before = engine.snapshot();
            // What has just been emitted has not been asked of the host yet: whatever it says of it is early.
            for request in engine.requests().map(|(id, _)| id).collect::<Vec<_>>() {
                let waiting = before_drain(&engine, request);
                if waiting {
                    engine.handle_launch(now, request, Progress::done(1));
                    engine.handle_release(now, request, 1);
                }
            }
            if op.is_fact() && !matches!(op, Op::Tick) {
                apply(&mut engine, now, &op);
            }
            if engine.next_deadline().is_some_and(|deadline| now < deadline) {
                engine.handle_timeout(Timestamp::from_millis(START / 2));
                engine.handle_timeout(now);
            }
            engine.handle_sample(now, GroupId(99), MetricId(0), now, None);
            engine.handle_sample(now, GroupId(1), MetricId(99), now, None);
            engine.handle_census(now, GroupId(1), PoolId(99), now, 1);
            engine.handle_launch(now, RequestId(u64::MAX), Progress { done: 1, failed: 1, cancelled: 1 });
            engine.handle_release(now, RequestId(u64::MAX), u32::MAX);
            engine.handle_census(now, GroupId(1), PoolId(1), now.after_millis(2_001), 0);
            assert_eq!(before, engine.snapshot(), "{op:?}");
            drain(&mut engine, &mut vec![]);
        }
    });
}

/// Whether the effect that makes `request` is still waiting in `engine`.
fn before_drain(engine: &Engine, request: RequestId) -> bool {
    let mut fork = engine.clone();
    std::iter::from_fn(|| fork.poll_effect())
        .any(|effect| effect.request() == request && !matches!(effect, Effect::Cancel { .. }))
}

#[test]
fn twin() {
    seeds(SEEDS / 5, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        let mut twin = engine.clone();
        for (now, op) in Author::new(seed).history(LENGTH) {
            let text = bytes(&twin);
            let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
            twin = Engine::restore(config(Skip::Proven), snapshot).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let (mut effects, mut of_twin) = (vec![], vec![]);
            assert_eq!(apply(&mut engine, now, &op), apply(&mut twin, now, &op));
            assert_eq!(bytes(&engine), bytes(&twin), "{op:?}");
            drain(&mut engine, &mut effects);
            drain(&mut twin, &mut of_twin);
            assert_eq!(effects, of_twin);
        }
    });
}

#[test]
fn skipping_changes_nothing() {
    seeds(SEEDS, |seed| {
        let (mut skips, mut does_not) = (Engine::new(config(Skip::Proven)), Engine::new(config(Skip::Nothing)));
        for (now, op) in Author::new(seed).history(LENGTH) {
            apply(&mut skips, now, &op);
            apply(&mut does_not, now, &op);
            assert_eq!(skips.moves(), does_not.moves(), "{op:?}");
            assert_eq!(skips.snapshot(), does_not.snapshot(), "{op:?}");
            drain(&mut skips, &mut vec![]);
            drain(&mut does_not, &mut vec![]);
        }
        assert!(skips.counters().decided <= does_not.counters().decided);
    });
}

#[test]
fn bounded_and_never_panics() {
    seeds(SEEDS, |seed| {
        let mut author = Author::new(seed);
        let mut engine = Engine::new(config(Skip::Proven));
        for _ in 0..LENGTH {
            let (now, op) = author.step();
            // Some instants are far off, some facts are absurd.
            let now = match author.dice.below(40) {
                0 => Timestamp::MAX,
                1 => Timestamp::ZERO,
                _ => now,
            };
            apply(&mut engine, now, &op);
            let absurd = Progress { done: author.dice.small(9), failed: u32::MAX, cancelled: u32::MAX };
            engine.handle_launch(now, RequestId(author.dice.below(20)), absurd);
            assert!(engine.requests().count() <= 12 + 4 * 4, "requests");
            assert!(engine.groups().count() <= 4 && engine.pools().count() <= 4);
            if let Some(group) = engine.groups().next() {
                assert!(engine.holdings(group).len() <= 4);
            }
        }
    });
}

#[test]
fn explained() {
    let records = core::cell::Cell::new(0);
    seeds(SEEDS, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        for (now, op) in Author::new(seed).history(LENGTH) {
            apply(&mut engine, now, &op);
            drain(&mut engine, &mut vec![]);
            for group in engine.groups() {
                let explained = engine.explain(now, group).unwrap();
                assert_eq!(explained.verify(), Ok(()), "{}", explained.explain());
                let Some(record) = engine.record(group) else { continue };
                assert_eq!(record.verify(), Ok(()), "{}", record.explain());
                records.set(records.get() + 1);
                let mut forged = record.clone();
                forged.decision.target += 1;
                assert!(forged.verify().is_err());
                let mut forged = record.clone();
                forged.allotment.missing += 1;
                assert!(forged.verify().is_err());
                if !record.decision.lines.rules.is_empty() {
                    let mut forged = record.clone();
                    forged.decision.lines.rules[0].verdict = tenon_scaler::strategy::Verdict::Want(1_000_000);
                    assert!(forged.verify().is_err());
                }
            }
        }
    });
    assert!(records.get() > 50, "{} records", records.get());
}
