//! Rehearsal: on the same code path as live decisions, tick for tick.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::VecDeque;

use support::{Author, Dice, START, apply, config, seeds};
use tenon_scaler::{Effect, Engine, GroupId, MetricId, Milli, Rehearsal, Report, RequestId, Skip, Timestamp, World};

/// Load that follows from a seed alone, and sometimes is not measured.
struct Load(u64);

impl World for Load {
    fn measure(&mut self, at: Timestamp, group: GroupId, metric: MetricId, ready: u32) -> Option<Milli> {
        let place = at.as_millis() / 300_000 * 64 + u64::from(group.0) * 8 + u64::from(metric.0);
        let mut dice = Dice(self.0 ^ place.wrapping_mul(0x9e37));
        let load = i64::try_from(dice.below(90)).unwrap();
        (dice.below(10) > 0).then(|| Milli::from_thousandths(load * 1000 / i64::from(ready.max(1))))
    }

    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32 {
        u32::try_from((at.as_millis() / 300_000 + u64::from(group.0)) % 12).unwrap()
    }
}

/// An engine with some groups and pools, at rest.
fn engine(seed: u64, skip: Skip) -> Engine {
    let mut engine = Engine::new(config(skip));
    for (now, op) in Author::new(seed).history(60) {
        apply(&mut engine, now, &op);
    }
    for effect in std::iter::from_fn(|| engine.poll_effect()).collect::<Vec<_>>() {
        answer(&mut engine, Timestamp::ZERO, effect.request());
    }
    for request in engine.requests().map(|(id, _)| id).collect::<Vec<_>>() {
        answer(&mut engine, Timestamp::ZERO, request);
    }
    engine
}

/// Tells that a request is done.
fn answer(engine: &mut Engine, now: Timestamp, request: RequestId) {
    let Some(count) = engine.requests().find(|(id, _)| *id == request).map(|(_, held)| held.count - held.failed) else {
        return;
    };
    engine.handle_launch(now, request, count, 0);
    engine.handle_release(now, request, count);
}

fn rehearsal(engine: &Engine, skip: Skip) -> Rehearsal {
    let from = engine.next_deadline().unwrap_or(Timestamp::from_millis(START)).after_millis(1_000_000);
    Rehearsal {
        from,
        until: from.after_millis(6 * 3_600_000),
        sample_ms: 300_000,
        start_ms: 40_000,
        stop_ms: 20_000,
        flap_ms: 600_000,
        skip,
    }
}

#[test]
fn passing_over_ticks_changes_nothing() {
    seeds(40, |seed| {
        let engine = engine(seed, Skip::Proven);
        let before = engine.snapshot();
        let report = |skip| engine.rehearse(rehearsal(&engine, skip), &mut Load(seed));
        assert_eq!(report(Skip::Proven), report(Skip::Nothing));
        assert_eq!(before, engine.snapshot(), "a rehearsal is on a fork");
    });
}

/// Runs the same world live, through the public face alone, with a host that is as punctual as the rehearsed one.
fn live(engine: &mut Engine, run: Rehearsal, load: &mut Load) -> Report {
    let mut report = Report::default();
    let mut cloud: VecDeque<(Timestamp, RequestId)> = VecDeque::new();
    for at in (run.from.as_millis()..run.until.as_millis()).step_by(5_000).map(Timestamp::from_millis) {
        let due: Vec<_> = cloud.iter().copied().filter(|(when, _)| *when <= at).collect();
        cloud.retain(|(when, _)| *when > at);
        for (when, request) in due {
            answer(engine, when, request);
        }
        if at.millis_since(run.from).is_multiple_of(run.sample_ms) {
            for group in engine.groups().collect::<Vec<_>>() {
                let ready = engine.holdings(group).iter().map(|held| held.ready).sum();
                for metric in [MetricId(0), MetricId(1)] {
                    engine.handle_sample(at, group, metric, at, load.measure(at, group, metric, ready));
                }
            }
        }
        if engine.next_deadline().is_some_and(|deadline| deadline <= at) {
            engine.handle_timeout(at);
            report.changes += engine.moves().len() as u64;
        }
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Launch { request, count, .. } => {
                    report.launched += u64::from(count);
                    cloud.push_back((at.after_millis(run.start_ms), request));
                }
                Effect::Release { request, count, .. } => {
                    report.released += u64::from(count);
                    cloud.push_back((at.after_millis(run.stop_ms), request));
                }
            }
        }
        cloud.make_contiguous().sort();
    }
    report
}

#[test]
fn a_rehearsal_is_what_comes_to_pass() {
    let changes = core::cell::Cell::new(0);
    seeds(40, |seed| {
        let mut engine = engine(seed, Skip::Proven);
        if engine.groups().next().is_none() {
            return;
        }
        let run = rehearsal(&engine, Skip::Proven);
        let foreseen = engine.rehearse(run, &mut Load(seed));
        let seen = live(&mut engine, run, &mut Load(seed));
        assert_eq!(
            (foreseen.changes, foreseen.launched, foreseen.released),
            (seen.changes, seen.launched, seen.released)
        );
        changes.set(changes.get() + seen.changes);
    });
    assert!(changes.get() > 100, "{} changes", changes.get());
}
