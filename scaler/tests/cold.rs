//! A running fleet is taken over, a wrong reading of the clock stalls nothing for long, and records do not take a forgery.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{Author, apply, config, seeds};
use tenon_scaler::strategy::{QueueLength, Strategy};
use tenon_scaler::{
    Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Override, Policy, Pool, PoolId, PoolKind, Reason,
    Refused, ReleaseId, Rule, RuleId, RuleKind, Running, ShapeId, Skip, Staleness, TenantId, Timestamp, Traffic,
    VersionId, Watermark,
};

const GROUP: GroupId = GroupId(1);
const LOAD: MetricId = MetricId(1);
const NOON: u64 = 1_777_896_000_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(NOON + ms)
}

fn engine() -> Engine {
    let mut engine = Engine::new(Config::builder().build().unwrap());
    for id in 1..=2 {
        let (kind, watermark, stock) = (PoolKind::Resident, Watermark::default(), vec![(ShapeId(1), 30)]);
        engine.put_pool(at(0), Pool { id: PoolId(id), kind, idc: IdcId(id), price: 1, watermark, stock }).unwrap();
    }
    engine.put_release(at(0), ReleaseId(1), VersionId(1));
    let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(1) });
    let policy = Policy {
        min: 1,
        max: 50,
        metrics: vec![Metric { id: LOAD, stale_after_ms: 60_000, when_stale: Staleness::ForbidIn }],
        rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(LOAD, queue) }],
        ..Policy::default()
    };
    let traffic = Traffic { id: GROUP, idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) };
    engine.put_group(at(0), traffic, policy).unwrap();
    engine
}

fn running(pool: u16, version: u64, count: u32) -> Running {
    Running { group: GROUP, pool: PoolId(pool), idc: IdcId(pool), version: VersionId(version), count }
}

fn effects(engine: &mut Engine) -> Vec<Effect> {
    std::iter::from_fn(|| engine.poll_effect()).collect()
}

#[test]
fn what_runs_is_adopted_and_named_and_not_launched_again() {
    let mut engine = engine();
    let fleet = [running(1, 1, 15), running(1, 7, 5), running(2, 1, 20)];
    assert_eq!(engine.adopt(at(0), &fleet), Ok(40));
    assert_eq!(engine.adopt(at(1), &fleet), Ok(0), "asking again changes nothing");
    engine.handle_timeout(at(15_000));
    assert_eq!(effects(&mut engine), []);
    let record = engine.record(GROUP).unwrap();
    assert_eq!(record.decision.reason, Reason::Adopted(40));
    let named: Vec<(u16, u16, Option<u64>, u32)> = record
        .decision
        .lines
        .adopted
        .iter()
        .map(|line| (line.pool.0, line.idc.0, line.version.map(|version| version.0), line.count))
        .collect();
    assert_eq!(named, [(1, 1, Some(1), 15), (1, 1, Some(7), 5), (2, 2, Some(1), 20)]);
    assert!(
        record.explain().contains("took over 5 that ran in pool 1, data centre 1, version 7"),
        "{}",
        record.explain()
    );
    assert_eq!(engine.stock(PoolId(1), ShapeId(1)).unwrap().free(), 10);
    // And from there on it is sized as any other.
    engine.handle_sample(at(30_000), GROUP, LOAD, at(30_000), Some(Milli::from_units(38)));
    engine.handle_timeout(at(30_000));
    let released: u32 = effects(&mut engine)
        .iter()
        .map(|effect| if let Effect::Release { count, .. } = effect { *count } else { 0 })
        .sum();
    assert_eq!(released, 2);
}

#[test]
fn what_cannot_run_is_refused() {
    let mut engine = engine();
    let before = engine.snapshot();
    let wrong = Running { idc: IdcId(2), ..running(1, 1, 3) };
    let told = Refused::WrongIdc { pool: PoolId(1), idc: IdcId(1), told: IdcId(2) };
    assert_eq!(engine.adopt(at(0), &[running(2, 1, 4), wrong]), Err(told));
    let more = Refused::MoreThanStock { pool: PoolId(1), shape: ShapeId(1), free: 30, running: 31 };
    assert_eq!(engine.adopt(at(0), &[running(1, 1, 30), running(1, 2, 1)]), Err(more));
    assert_eq!(engine.adopt(at(0), &[running(9, 1, 1)]), Err(Refused::NoPool(PoolId(9))));
    assert_eq!(before, engine.snapshot());
}

#[test]
fn a_census_of_a_fleet_that_nobody_knows_adopts_it_and_one_above_the_ledger_is_sized_down() {
    let mut engine = engine();
    engine.handle_census(at(1), GROUP, PoolId(1), at(1), 20);
    engine.handle_census(at(1), GROUP, PoolId(2), at(1), 20);
    engine.handle_sample(at(1), GROUP, LOAD, at(1), Some(Milli::from_units(40)));
    engine.handle_timeout(at(15_000));
    assert_eq!(effects(&mut engine), [], "forty run, and forty are wanted");
    // Five more come from somewhere: they are found, and they go.
    engine.handle_census(at(20_000), GROUP, PoolId(1), at(20_000), 25);
    engine.handle_timeout(at(30_000));
    let found = effects(&mut engine);
    assert!(matches!(found[..], [Effect::Release { count: 5, .. }]), "{found:?}");
    // What launches have under way explains a census: it is not counted twice.
    engine.handle_sample(at(31_000), GROUP, LOAD, at(31_000), Some(Milli::from_units(44)));
    engine.handle_timeout(at(45_000));
    let launched = effects(&mut engine);
    let Effect::Launch { pool, count, .. } = launched[0] else { panic!("{launched:?}") };
    let ready = engine.holdings(GROUP).iter().find(|held| held.pool == pool).unwrap().ready;
    engine.handle_census(at(46_000), GROUP, pool, at(46_000), ready + count);
    assert_eq!(engine.holdings(GROUP).iter().find(|held| held.pool == pool).unwrap().ready, ready);
}

/// How many of 240 ticks decide something, where the group has to be looked at in each.
fn decided(engine: &mut Engine, from: u64) -> u64 {
    let before = engine.counters().decided;
    for tick in 0..240 {
        let now = at(from + tick * 15_000);
        engine.handle_sample(now, GROUP, LOAD, now, Some(Milli::from_units(i64::try_from(tick % 9).unwrap())));
        engine.handle_timeout(now);
    }
    engine.counters().decided - before
}

#[test]
fn one_wrong_reading_costs_two_ticks_at_most() {
    for ahead in [3_600_000, 86_400_000, 31_536_000_000] {
        for by_sample in [false, true] {
            let mut engine = engine();
            decided(&mut engine, 0);
            let wrong = at(3_600_000 + ahead);
            if by_sample {
                engine.handle_sample(wrong, GROUP, LOAD, wrong, Some(Milli::from_units(5)));
            } else {
                engine.handle_timeout(wrong);
            }
            assert!(decided(&mut engine, 3_600_000) >= 238, "{ahead} ms ahead, {by_sample}");
            assert_eq!((engine.counters().behind, engine.counters().rewinds), (1, 1));
            // A restore heals in the same way.
            engine.handle_timeout(at(7_200_000 + ahead));
            let mut engine = Engine::restore(engine.config().clone(), engine.snapshot()).unwrap();
            assert!(decided(&mut engine, 7_200_000) >= 238);
        }
        // A reading that is late is no news at all.
        let mut engine = engine();
        decided(&mut engine, ahead);
        let before = engine.snapshot();
        engine.handle_timeout(at(0));
        assert_eq!(before, engine.snapshot());
        assert_eq!(decided(&mut engine, ahead + 3_600_000), 240);
    }
}

#[test]
fn a_leap_of_the_clock_takes_nothing_away_before_it_is_confirmed() {
    let mut engine = engine();
    let by_hand = Override { count: 20, until: at(3_600_000) };
    engine.set_by_hand(at(0), GROUP, Some(by_hand)).unwrap();
    engine.handle_timeout(at(0));
    for effect in effects(&mut engine) {
        let Effect::Launch { request, count, .. } = effect else { panic!("{effect:?}") };
        engine.handle_launch(at(1), request, tenon_scaler::Progress::done(count - 1));
    }
    // A day ahead: the override is over, and the launches are overdue. Nothing goes.
    let day = 86_400_000;
    engine.handle_timeout(at(day));
    assert_eq!(effects(&mut engine), []);
    assert_eq!(engine.state(GROUP).unwrap().target(), 20);
    // Back again, and all is as it was.
    for tick in 1..4 {
        engine.handle_sample(at(tick * 15_000), GROUP, LOAD, at(tick * 15_000), Some(Milli::from_units(3)));
        engine.handle_timeout(at(tick * 15_000));
        assert_eq!(effects(&mut engine), []);
    }
    assert_eq!(engine.state(GROUP).unwrap().target(), 20);
    // A day that has really passed is confirmed by the tick after it.
    engine.handle_timeout(at(day));
    assert_eq!(engine.next_deadline(), Some(at(day + 1_000)));
    engine.handle_sample(at(day + 1_000), GROUP, LOAD, at(day + 1_000), Some(Milli::from_units(3)));
    engine.handle_timeout(at(day + 1_000));
    assert_eq!(engine.state(GROUP).unwrap().target(), 3);
}

#[test]
fn a_source_whose_clock_is_a_little_ahead_is_heard() {
    let mut engine = engine();
    engine.handle_sample(at(0), GROUP, LOAD, at(200), Some(Milli::from_units(9)));
    engine.handle_timeout(at(0));
    assert_eq!(engine.state(GROUP).unwrap().target(), 9);
    engine.handle_sample(at(15_000), GROUP, LOAD, at(17_001), Some(Milli::from_units(12)));
    assert_eq!(engine.counters().early, 1);
}

/// Law 8 to the letter: no number of a record that stands behind its decision can be another.
#[test]
fn a_record_with_another_reason_or_size_is_not_taken() {
    let tried = core::cell::Cell::new(0);
    seeds(60, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        for (now, op) in Author::new(seed).history(100) {
            apply(&mut engine, now, &op);
            while engine.poll_effect().is_some() {}
            for group in engine.groups() {
                let decision = engine.explain(now, group).unwrap();
                let mut forged = decision.clone();
                forged.reason = if forged.reason == Reason::Timed { Reason::Chain } else { Reason::Timed };
                assert!(forged.verify().is_err(), "another reason");
                let mut forged = decision.clone();
                forged.lines.base += 1;
                assert!(forged.verify().is_err(), "another base");
                let mut forged = decision.clone();
                forged.lines.shares += 1;
                assert!(forged.verify().is_err(), "other shares");
                let mut forged = decision.clone();
                forged.lines.rest = forged.lines.rest.map_or(Some(3), |_| None);
                assert!(forged.verify().is_err(), "another rest");
                tried.set(tried.get() + 1);
            }
        }
    });
    assert!(tried.get() > 500, "{} records", tried.get());
}
