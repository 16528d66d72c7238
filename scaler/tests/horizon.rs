//! Admission's horizon begins with the present, and moves with it, a few groups a tick.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;

use jiff::civil::time;
use support::{Dice, seeds};
use tenon_scaler::chain::{Chain, ChainTask, Link};
use tenon_scaler::strategy::{QueueLength, Strategy};
use tenon_scaler::{
    Authority, Config, Crossing, Days, Effect, Engine, Grant, GroupId, IdcId, Metric, MetricId, Milli, Override, Point,
    Policy, Pool, PoolId, PoolKind, Progress, Refused, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, TaskId,
    TenantId, Timestamp, Traffic, Verdict, VersionId, Watermark, Window, ZoneId,
};

const HOUR: u64 = 3_600_000;
const LOAD: MetricId = MetricId(1);

fn at(hours: u64) -> Timestamp {
    Timestamp::from_millis(hours * HOUR)
}

fn engine(stock: u32) -> Engine {
    let mut engine = Engine::new(Config::builder().build().unwrap());
    let (kind, watermark) = (PoolKind::Resident, Watermark::default());
    let pool = Pool { id: PoolId(1), kind, idc: IdcId(1), price: 1, watermark, stock: vec![(ShapeId(1), stock)] };
    engine.put_pool(Timestamp::ZERO, pool).unwrap();
    engine.put_release(Timestamp::ZERO, ReleaseId(1), VersionId(1));
    engine
}

fn traffic(id: u32) -> Traffic {
    Traffic { id: GroupId(id), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) }
}

fn window(from: i8, until: i8) -> Window {
    Window { zone: ZoneId(0), days: Days::Every, from: time(from, 0, 0, 0), until: time(until, 0, 0, 0), lead_ms: 0 }
}

fn policy(max: u32, kinds: Vec<RuleKind>) -> Policy {
    let metrics = vec![Metric { id: LOAD, stale_after_ms: 600_000, when_stale: Staleness::ForbidIn }];
    let rules = (0..).zip(kinds).map(|(id, kind)| Rule { id: RuleId(id), kind }).collect();
    Policy { min: 0, max, metrics, rules, ..Policy::default() }
}

fn by_metric() -> RuleKind {
    RuleKind::Metric(LOAD, Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(1) }))
}

fn ticks(engine: &mut Engine, from: Timestamp, until: Timestamp) {
    let mut now = from;
    while now < until {
        engine.handle_timeout(now);
        while engine.poll_effect().is_some() {}
        now = now.after_millis(15_000);
    }
}

fn refused(verdict: Verdict) -> (Timestamp, u32) {
    let Verdict::Refused(witness) = verdict else { panic!("{verdict:?}") };
    (witness[0].first, witness[0].excess)
}

/// At eleven in the evening, what would overload tomorrow is refused; also a week later, with ticks or without, and after a
/// restart.
#[test]
fn an_overload_of_tomorrow_is_refused() {
    let floor = |count| policy(900, vec![RuleKind::Floor(window(10, 12), count)]);
    let mut engine = engine(800);
    assert_eq!(engine.admit(at(0), traffic(1), floor(700), &[], Authority::Owner).unwrap(), Verdict::Admitted);
    let silent = engine.clone();
    for day in [0, 1, 7] {
        ticks(&mut engine, at(day * 24), at(day * 24 + 23));
        let now = at(day * 24 + 23);
        for mut engine in
            [engine.clone(), silent.clone(), Engine::restore(silent.config().clone(), engine.snapshot()).unwrap()]
        {
            assert_eq!(engine.horizon(now).start, now);
            let before = engine.snapshot();
            let asked = engine.admit(now, traffic(2), floor(300), &[], Authority::Owner).unwrap();
            assert_eq!(refused(asked), (at(day * 24 + 34), 200), "on day {day}");
            assert_eq!(engine.snapshot(), before, "a refusal changes nothing");
            let asked = engine.admit(now, traffic(2), floor(300), &[], Authority::Operator).unwrap();
            assert!(matches!(asked, Verdict::Overridden(_)));
            assert_eq!(engine.overcommitted()[0].first, at(day * 24 + 34));
        }
    }
}

/// What a forecast says past the horizon counts when the horizon gets there; where it ends, the maximum does.
#[test]
fn a_forecast_that_is_longer_than_the_horizon_counts_as_the_horizon_moves() {
    let mut engine = engine(100);
    let upper: Vec<u32> = (0..576).map(|slot| if slot < 288 { 10 } else { 60 }).collect();
    let asked = engine.admit(at(0), traffic(1), policy(90, vec![by_metric()]), &upper, Authority::Owner).unwrap();
    assert_eq!(asked, Verdict::Admitted);
    let more = |engine: &mut Engine, hour, count| {
        let floor = RuleKind::Floor(Window { days: Days::Every, ..window(0, 0) }, count);
        engine.admit(at(hour), traffic(2), policy(90, vec![floor]), &[], Authority::Owner).unwrap()
    };
    assert_eq!(more(&mut engine, 0, 80), Verdict::Admitted);
    engine.drop_traffic(at(0), GroupId(2)).unwrap();
    ticks(&mut engine, at(0), at(6));
    assert_eq!(refused(more(&mut engine, 6, 80)), (at(24), 40));
    ticks(&mut engine, at(6), at(30));
    assert_eq!(refused(more(&mut engine, 30, 20)), (at(48), 10));
    // A new forecast takes the place of the maximum.
    engine.replan(at(30), |_, _| vec![60; 288]);
    assert_eq!(more(&mut engine, 30, 20), Verdict::Admitted);
}

/// What a step has added counts until another takes it back; every day anew, and not twice.
#[test]
fn steps_count_as_long_as_they_hold() {
    let step = |hour, by| {
        RuleKind::Step(Point { zone: ZoneId(0), days: Days::Every, at: time(hour, 0, 0, 0), lead_ms: 0 }, by)
    };
    let mut engine = engine(100);
    let pair = policy(90, vec![by_metric(), step(8, 40), step(20, -40)]);
    let asked = engine.admit(at(0), traffic(1), pair, &[10; 576], Authority::Owner).unwrap();
    assert_eq!(asked, Verdict::Admitted);
    let ask = |engine: &mut Engine, hour: u64, count| {
        engine.admit(
            at(hour),
            traffic(2),
            policy(90, vec![RuleKind::Floor(window(12, 14), count)]),
            &[],
            Authority::Owner,
        )
    };
    let mut now = 0;
    for hour in [6, 11, 15, 21, 26, 35] {
        ticks(&mut engine, at(now), at(hour));
        now = hour;
        let noon = if hour % 24 < 14 { hour / 24 * 24 + 12 } else { hour / 24 * 24 + 36 };
        let mut probe = engine.clone();
        assert_eq!(refused(ask(&mut probe, hour, 60).unwrap()), (at(noon), 10), "at {hour}");
        assert_eq!(ask(&mut probe, hour, 50).unwrap(), Verdict::Admitted, "at {hour}");
    }
}

/// However time goes on (ticks that come late or not at all, restarts, clocks that leap and come back), the plan is what it
/// would be if every group were planned anew.
#[test]
fn a_plan_that_has_moved_is_the_plan_that_is_made_anew() {
    let (over, answers) = (Cell::new(0), [Cell::new(0), Cell::new(0)]);
    seeds(12, |seed| {
        let mut dice = Dice(seed);
        let mut engine = engine(200);
        let mut uppers: BTreeMap<GroupId, (u64, Vec<u32>)> = BTreeMap::new();
        let mut now = at(24);
        for turn in 0..150 {
            now = now.after_millis(dice.pick(&[15_000, 300_000, 300_000, HOUR, 3 * HOUR, 40 * HOUR]));
            if dice.below(3) > 0 {
                engine.handle_timeout(now);
                engine.handle_timeout(now.after_millis(2_000));
                while engine.poll_effect().is_some() {}
            }
            let slot = engine.horizon(now).start.as_millis() / 300_000;
            let id = dice.small(6);
            let hour = |dice: &mut Dice| i8::try_from(dice.below(24)).unwrap();
            let mut kinds = vec![by_metric()];
            for _ in 0..dice.below(3) {
                let window = window(hour(&mut dice), hour(&mut dice));
                kinds.push(match dice.below(3) {
                    0 => RuleKind::Floor(window, dice.small(60)),
                    1 => RuleKind::Delta(window, i32::try_from(dice.below(40)).unwrap() - 20),
                    _ => RuleKind::Cap(window, dice.small(60)),
                });
            }
            let (asked, height) = (policy(20 + dice.small(60), kinds), dice.small(60));
            let length = dice.pick(&[0, 100, 288, 400, 576]);
            let upper: Vec<u32> = (0..length).map(|slot| height.saturating_sub(slot % 40)).collect();
            match dice.below(8) {
                0 => {
                    engine = Engine::restore(engine.config().clone(), engine.snapshot()).unwrap();
                }
                1 if engine.drop_traffic(now, GroupId(id)).is_ok() => {
                    uppers.remove(&GroupId(id));
                    engine = Engine::restore(engine.config().clone(), engine.snapshot()).unwrap();
                }
                2 if engine.state(GroupId(1)).is_some() => {
                    let chain = Chain::new(
                        vec![Link { group: GroupId(1), per_instance: Milli::from_units(1), limit: None }],
                        vec![],
                    )
                    .unwrap();
                    let from = now.after_millis(dice.below(20 * HOUR));
                    let task = ChainTask {
                        id: TaskId(1),
                        wanted: vec![(GroupId(1), dice.small(50))],
                        grant: Grant::Partial,
                        from,
                        until: from.after_millis(1 + dice.below(9 * HOUR)),
                    };
                    let _ = engine.start_chain(now, &chain, &task).unwrap();
                }
                3 => {
                    // A reading that is wrong, told once or twice, and the clock that is right again.
                    for _ in 0..dice.below(3) {
                        engine.handle_timeout(now.after_millis(90 * 24 * HOUR));
                    }
                    for _ in 0..3 {
                        now = now.after_millis(15_000);
                        engine.handle_timeout(now);
                    }
                }
                _ => {
                    let authority = dice.pick(&[Authority::Owner, Authority::Owner, Authority::Operator]);
                    let answer = engine.admit(now, traffic(id), asked.clone(), &upper, authority);
                    if matches!(answer, Ok(Verdict::Admitted | Verdict::Overridden(_))) {
                        uppers.insert(GroupId(id), (slot, upper.clone()));
                    }
                }
            }
            let mut anew = engine.clone();
            anew.replan(now, |group, horizon| {
                let start = horizon.start.as_millis() / 300_000;
                let Some((from, upper)) = uppers.get(&group) else { return vec![] };
                upper.iter().skip(usize::try_from(start - from).unwrap()).copied().collect()
            });
            let mut moved = engine.clone();
            // A probe on top has the same answer from both.
            let probe = policy(200, vec![RuleKind::Floor(window(hour(&mut dice), hour(&mut dice)), dice.small(150))]);
            let answer = anew.admit(now, traffic(9), probe.clone(), &[], Authority::Owner);
            assert_eq!(moved.admit(now, traffic(9), probe, &[], Authority::Owner), answer, "turn {turn}");
            answers[usize::from(matches!(answer, Ok(Verdict::Admitted)))].update(|count| count + 1);
            for engine in [&mut moved, &mut anew] {
                // The second one confirms a leap of the first.
                engine.handle_timeout(now.after_millis(15_000));
                engine.handle_timeout(now.after_millis(17_000));
            }
            assert_eq!(moved.overcommitted(), anew.overcommitted(), "turn {turn}");
            over.set(over.get() + anew.overcommitted().len());
        }
    });
    let [no, yes] = answers.map(|count| count.get());
    assert!(over.get() > 100 && no > 100 && yes > 100, "{} over, {no} refused, {yes} admitted", over.get());
}

/// A tick plans few groups anew, and none is ever planned too short for the horizon.
#[test]
fn the_horizon_moves_a_few_groups_at_a_time() {
    let groups = 2_000;
    let mut engine = engine(1_000_000);
    for id in 0..groups {
        let verdict = engine.admit(at(0), traffic(id), policy(9, vec![by_metric()]), &[3; 576], Authority::Owner);
        assert_eq!(verdict.unwrap(), Verdict::Admitted);
    }
    let mut most = 0;
    let mut before = 0;
    let mut now = at(0);
    while now < at(20) {
        engine.handle_timeout(now);
        while engine.poll_effect().is_some() {}
        let planned = engine.counters().planned;
        (most, before) = (most.max(planned - before), planned);
        now = now.after_millis(15_000);
    }
    // Six hours of margin, a quarter of them for one turn: 360 ticks.
    assert_eq!(most, u64::from(groups).div_ceil(360));
    assert!(before >= u64::from(groups) * 3, "{before} planned anew");
}

/// After an outage, however long, each tick plans a bounded share of the groups anew. Until all are planned nothing is admitted
/// by a plan with holes, and after 32 ticks the answer is that of a plan that is made anew.
#[test]
fn a_tick_after_an_outage_catches_up_with_a_bounded_share() {
    let groups = 4_000;
    let mut engine = engine(12_100);
    for id in 0..groups {
        let verdict = engine.admit(at(0), traffic(id), policy(3, vec![by_metric()]), &[], Authority::Owner);
        assert_eq!(verdict.unwrap(), Verdict::Admitted);
    }
    let one_more = |engine: &mut Engine, now, count| {
        let floor = RuleKind::Floor(window(0, 0), count);
        engine.admit(now, traffic(groups), policy(900, vec![floor]), &[], Authority::Owner)
    };
    for outage in [8, 29, 200] {
        let mut engine = engine.clone();
        let (mut now, mut ticks) = (at(outage), 0);
        while let Err(refusal) = one_more(&mut engine.clone(), now, 101) {
            let Refused::PlanBehind(behind) = refusal else { panic!("{refusal}") };
            assert!(behind > 125 && ticks < 32, "{behind} behind after {ticks} ticks");
            let before = engine.snapshot();
            assert_eq!(one_more(&mut engine, now, 1), Err(refusal));
            assert_eq!(engine.snapshot(), before, "a refusal changes nothing");
            let chain =
                Chain::new(vec![Link { group: GroupId(1), per_instance: Milli::from_units(1), limit: None }], vec![]);
            let wanted = vec![(GroupId(1), 2)];
            let task =
                ChainTask { id: TaskId(1), wanted, grant: Grant::Partial, from: now, until: now.after_millis(HOUR) };
            assert_eq!(engine.start_chain(now, &chain.unwrap(), &task).unwrap_err(), refusal);
            // A restart in the midst of it goes on where it was.
            engine = Engine::restore(engine.config().clone(), engine.snapshot()).unwrap();
            let planned = engine.counters().planned;
            now = now.after_millis(15_000);
            engine.handle_timeout(now);
            while engine.poll_effect().is_some() {}
            assert!(engine.counters().planned - planned <= 125, "a tick plans a thirty-second of the groups");
            ticks += 1;
        }
        assert!(ticks > 20, "{ticks} ticks");
        assert_eq!(refused(one_more(&mut engine, now, 101).unwrap()).1, 1, "after {outage} hours");
        assert_eq!(one_more(&mut engine, now, 100).unwrap(), Verdict::Admitted);
    }
}

/// A pool that reaches its high mark is told of once, and once more when it has come down to the low one; also after a
/// restart, which tells nothing a second time.
#[test]
fn each_crossing_of_a_watermark_is_told_once() {
    for (low_permille, down) in [(500, 50), (800, 79)] {
        let mut engine = Engine::new(Config::builder().build().unwrap());
        let watermark = Watermark { high_permille: 800, low_permille };
        let (id, idc, kind) = (PoolId(1), IdcId(1), PoolKind::Resident);
        let pool = Pool { id, kind, idc, price: 1, watermark, stock: vec![(ShapeId(1), 100), (ShapeId(2), 0)] };
        engine.put_pool(Timestamp::ZERO, pool).unwrap();
        engine.put_release(Timestamp::ZERO, ReleaseId(1), VersionId(1));
        engine.put_group(Timestamp::ZERO, traffic(1), policy(100, vec![])).unwrap();
        let mut now = at(1);
        let mut told = vec![];
        for count in [79, 79, 80, 80, 95, down + 1, down, down, 90] {
            let by_hand = Some(Override { count, until: Timestamp::MAX });
            engine.set_by_hand(now, GroupId(1), by_hand).unwrap();
            for _ in 0..3 {
                engine.handle_timeout(now);
                told.extend(engine.crossings().iter().copied());
                while let Some(effect) = engine.poll_effect() {
                    match effect {
                        Effect::Launch { request, count, .. } => {
                            engine.handle_launch(now, request, Progress::done(count));
                        }
                        Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
                        Effect::Cancel { .. } => panic!("nothing is starting"),
                    }
                }
                engine = Engine::restore(engine.config().clone(), engine.snapshot()).unwrap();
                now = now.after_millis(15_000);
            }
        }
        let crossing = |over, lent| Crossing { pool: PoolId(1), shape: ShapeId(1), over, lent, mark: 80 };
        assert_eq!(told, [crossing(true, 80), crossing(false, down), crossing(true, 80)], "low mark {low_permille}");
    }
}
