//! What must hold whatever comes: sums, bounds, pace, and that what was admitted is delivered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;

use support::{Author, Dice, apply, config, seeds, stopped};
use tenon_scaler::strategy::Strategy;
use tenon_scaler::{
    Authority, Behavior, Config, Effect, Engine, GroupId, Holding, IdcId, Metric, MetricId, Milli, Pace, Policy, Pool,
    PoolId, PoolKind, Progress, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Skip, Staleness, TenantId, Timestamp,
    Traffic, Verdict, VersionId, Watermark,
};

fn all(held: &Holding) -> u32 {
    held.starting + held.ready + held.leaving
}

/// Lent + free = total in every pool, and what is lent is what groups hold, by shape.
fn check_conservation(engine: &Engine, shapes: &BTreeMap<GroupId, (ShapeId, TenantId)>) {
    let mut held: BTreeMap<(PoolId, ShapeId), u32> = BTreeMap::new();
    let mut used: BTreeMap<TenantId, u32> = BTreeMap::new();
    for group in engine.groups() {
        let (shape, tenant) = shapes[&group];
        for holding in engine.holdings(group) {
            *held.entry((holding.pool, shape)).or_default() += all(holding);
            *used.entry(tenant).or_default() += holding.starting + holding.ready;
        }
    }
    for pool in engine.pools() {
        for (shape, total) in &pool.stock {
            let stock = engine.stock(pool.id, *shape).unwrap();
            assert_eq!(stock.total, *total);
            assert_eq!(stock.lent + stock.free(), stock.total);
            assert_eq!(stock.lent, held.remove(&(pool.id, *shape)).unwrap_or(0), "{pool:?}");
        }
    }
    assert!(held.values().all(|count| *count == 0), "held of pools that lent nothing: {held:?}");
    for (tenant, count) in used {
        // What counts against a tenant is at least its own.
        assert!(engine.quota(tenant).is_none_or(|node| node.used >= count), "tenant {tenant}");
    }
}

#[test]
fn sums_bounds_and_marks_hold_over_random_histories() {
    let (launched, capped) = (Cell::new(0_u64), Cell::new(0_u64));
    seeds(150, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        let mut shapes = BTreeMap::new();
        let mut policies: BTreeMap<GroupId, Policy> = BTreeMap::new();
        for (now, op) in Author::new(seed).history(150) {
            let deadline = engine.next_deadline();
            let refused = apply(&mut engine, now, &op);
            // A tick that is not due leaves the moves of the one before it, which other orders held for.
            let ticked = engine.next_deadline() != deadline;
            if let (support::Op::PutGroup(traffic, policy) | support::Op::Admit(traffic, policy, ..), false) =
                (&op, refused)
            {
                shapes.insert(traffic.id, (traffic.shape, traffic.tenant));
                policies.insert(traffic.id, policy.clone());
            }
            let effects: Vec<Effect> = std::iter::from_fn(|| engine.poll_effect()).collect();
            check_conservation(&engine, &shapes);
            for effect in effects {
                let Effect::Launch { pool, shape, count, .. } = effect else { continue };
                launched.set(launched.get() + u64::from(count));
                let marks = engine.pools().find(|held| held.id == pool).unwrap();
                let stock = engine.stock(pool, shape).unwrap();
                let mark = u64::from(stock.total) * u64::from(marks.watermark.high_permille) / 1000;
                assert!(u64::from(stock.lent) <= mark, "{effect:?} goes past the mark of {mark}: {stock:?}");
                if let PoolKind::Emergency { from, until } = marks.kind {
                    assert!(from <= now && now < until, "{effect:?} outside the lease");
                }
            }
            if ticked
                && matches!(op, support::Op::Tick)
                && engine.moves().iter().any(|moved| moved.after != moved.before)
            {
                for moved in engine.moves() {
                    let Some(state) = engine.state(moved.group) else { continue };
                    let policy = &policies[&moved.group];
                    let ruled = state.by_hand().is_none() && !state.is_draining() && !state.is_paused();
                    assert!(!ruled || moved.after <= policy.max, "{moved:?} above {}", policy.max);
                    let has_cap = policy.rules.iter().any(|rule| matches!(rule.kind, RuleKind::Cap(..)));
                    assert!(!ruled || has_cap || moved.after >= policy.min, "{moved:?} below {}", policy.min);
                    capped.set(capped.get() + u64::from(ruled));
                }
            }
        }
    });
    assert!(launched.get() > 1_000 && capped.get() > 200, "{} launched, {} moves", launched.get(), capped.get());
}

const LOAD: MetricId = MetricId(1);

fn given(id: u32, max: u32, behavior: Behavior) -> (Traffic, Policy) {
    let policy = Policy {
        max,
        metrics: vec![Metric { id: LOAD, stale_after_ms: 100_000_000, when_stale: Staleness::ForbidIn }],
        rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(LOAD, Strategy::Given) }],
        behavior,
        ..Policy::default()
    };
    let (release, shape, tenant) = (ReleaseId(1), ShapeId(1), TenantId(1));
    (Traffic { id: GroupId(id), idcs: vec![], tenant, release, shape }, policy)
}

fn pools(engine: &mut Engine, stocks: &[u32], watermark: Watermark) {
    for (id, count) in (0..).zip(stocks) {
        let stock = vec![(ShapeId(1), *count)];
        let pool = Pool { id: PoolId(id), kind: PoolKind::Resident, idc: IdcId(id), price: 1, watermark, stock };
        engine.put_pool(Timestamp::ZERO, pool).unwrap();
    }
    engine.put_release(Timestamp::ZERO, ReleaseId(1), VersionId(1));
}

/// A host that is done at once.
fn obey(engine: &mut Engine, now: Timestamp) {
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::Launch { request, count, .. } => engine.handle_launch(now, request, Progress::done(count)),
            Effect::Cancel { request, .. } => engine.handle_launch(now, request, stopped(engine, request)),
            Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
        }
    }
}

/// However a metric shakes: two moves in one direction are a cool-down apart, a group shrinks only to what was the most
/// wanted in the window, and so the number of moves in a time has a bound that can be computed.
#[test]
fn no_metric_makes_a_group_flap_beyond_the_bound() {
    const TICK: u64 = 15_000;
    let moves = Cell::new(0);
    seeds(100, |seed| {
        let mut dice = Dice(seed);
        let pace = |dice: &mut Dice, window: &[u64]| Pace {
            cooldown_ms: dice.pick(&[15_000, 60_000, 300_000]),
            stabilize_ms: dice.pick(window),
            ..Pace::default()
        };
        let (out, inward) = (pace(&mut dice, &[0, 30_000]), pace(&mut dice, &[0, 60_000, 600_000]));
        let mut engine = Engine::new(Config::builder().build().unwrap());
        pools(&mut engine, &[1_000], Watermark::default());
        let (traffic, policy) =
            given(1, 100, Behavior { out: out.clone(), inward: inward.clone(), ..Behavior::default() });
        engine.put_group(Timestamp::ZERO, traffic, policy).unwrap();
        let mut wanted: Vec<(u64, u32)> = vec![];
        let mut last: [Option<u64>; 2] = [None, None];
        let mut counts = [0_u64; 2];
        let ticks = 800;
        for tick in 0..ticks {
            let now = tick * TICK;
            let want = dice.small(100);
            let at = Timestamp::from_millis(now);
            engine.handle_sample(at, GroupId(1), LOAD, at, Some(Milli::from_units(i64::from(want))));
            engine.handle_timeout(at);
            obey(&mut engine, at);
            wanted.push((now, want));
            for moved in engine.moves() {
                let side = usize::from(moved.after < moved.before);
                let (cooldown, window) =
                    [(out.cooldown_ms, out.stabilize_ms), (inward.cooldown_ms, inward.stabilize_ms)][side];
                assert!(last[side].is_none_or(|last| now - last >= cooldown), "{moved:?} within the cool-down");
                let recent = wanted.iter().filter(|(when, _)| now - when < window.max(1)).map(|(_, want)| *want);
                let bound = if side == 0 { recent.min() } else { recent.max() }.unwrap();
                assert!(if side == 0 { moved.after <= bound } else { moved.after >= bound }, "{moved:?}, {bound}");
                last[side] = Some(now);
                counts[side] += 1;
            }
        }
        for (count, pace) in counts.into_iter().zip([out, inward]) {
            assert!(count <= ticks * TICK / pace.cooldown_ms + 1, "{count} moves");
        }
        moves.set(moves.get() + counts[0] + counts[1]);
    });
    assert!(moves.get() > 2_000, "{} moves", moves.get());
}

/// What was admitted on a forecast is delivered, to the last instance, on every day that the forecast bounds.
#[test]
fn what_was_admitted_is_delivered_while_the_forecast_holds() {
    let (admitted, refused) = (Cell::new(0), Cell::new(0));
    seeds(60, |seed| {
        let mut dice = Dice(seed);
        let mut engine = Engine::new(Config::builder().build().unwrap());
        let stocks: Vec<u32> = (0..=dice.below(3)).map(|_| 20 + dice.small(60)).collect();
        let high_permille = dice.pick(&[1000, 800]);
        pools(&mut engine, &stocks, Watermark { high_permille, low_permille: high_permille });
        let mut uppers: Vec<(GroupId, Vec<u32>)> = vec![];
        for id in 0..40 {
            let (peak, phase, height) = (dice.below(288), dice.below(20) + 1, dice.small(25));
            let upper: Vec<u32> = (0..288_u64)
                .map(|slot| height.saturating_sub(u32::try_from(slot.abs_diff(peak) / phase).unwrap()))
                .collect();
            let (traffic, policy) = given(id, 30, Behavior::default());
            match engine.admit(Timestamp::ZERO, traffic, policy, &upper, Authority::Owner).unwrap() {
                Verdict::Admitted => {
                    admitted.set(admitted.get() + 1);
                    uppers.push((GroupId(id), upper));
                }
                Verdict::Refused(witness) => {
                    refused.set(refused.get() + 1);
                    assert!(!witness.is_empty() && witness.iter().all(|found| found.excess > 0));
                    assert_eq!(engine.state(GroupId(id)), None, "a refused group is not there");
                }
                Verdict::Overridden(_) => panic!("nobody overrode"),
            }
            assert_eq!(engine.overcommitted(), [], "over the mark by the forecast that was admitted on");
        }
        for slot in 0..288_u64 {
            let now = Timestamp::from_millis(slot * 300_000);
            for (group, upper) in &uppers {
                let most = upper[usize::try_from(slot).unwrap()];
                let want = most - dice.small(3).min(most);
                engine.handle_sample(now, *group, LOAD, now, Some(Milli::from_units(i64::from(want))));
            }
            // Who shrinks gives back before who grows asks again.
            engine.handle_timeout(now);
            obey(&mut engine, now);
            let again = now.after_millis(15_000);
            engine.handle_timeout(again);
            obey(&mut engine, again);
            for (group, _) in &uppers {
                let ready: u32 = engine.holdings(*group).iter().map(|held| held.ready).sum();
                assert_eq!(ready, engine.state(*group).unwrap().target(), "group {group} in slot {slot}");
            }
        }
    });
    assert!(admitted.get() > 300 && refused.get() > 300, "{} and {}", admitted.get(), refused.get());
}

/// Every number in a snapshot that others must agree with, one more than it is.
fn forgeries(value: &serde_json::Value, forged: &mut Vec<(String, serde_json::Value)>) {
    fn walk(here: &serde_json::Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        match here {
            serde_json::Value::Object(fields) => {
                for (key, field) in fields {
                    path.push(key.clone());
                    walk(field, path, found);
                    path.pop();
                }
            }
            serde_json::Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    path.push(at.to_string());
                    walk(item, path, found);
                    path.pop();
                }
            }
            serde_json::Value::Number(_) => {
                let sums = ["lent", "starting", "ready", "leaving", "used"];
                let counted = path.last().is_some_and(|key| sums.contains(&key.as_str()));
                if counted && !path.iter().any(|key| key == "record") {
                    found.push(path.clone());
                }
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => {}
        }
    }
    let mut found = vec![];
    walk(value, &mut vec![], &mut found);
    for path in found {
        let pointer = format!("/{}", path.join("/"));
        let mut copy = value.clone();
        let number = copy.pointer_mut(&pointer).unwrap();
        *number = (number.as_u64().unwrap() + 1).into();
        forged.push((pointer, copy));
    }
}

#[test]
fn a_snapshot_whose_sums_do_not_agree_is_refused() {
    let tried = Cell::new(0);
    seeds(25, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        for (now, op) in Author::new(seed).history(80) {
            apply(&mut engine, now, &op);
            while engine.poll_effect().is_some() {}
        }
        let value = serde_json::to_value(engine.snapshot()).unwrap();
        let whole = serde_json::from_value(value.clone()).unwrap();
        assert!(Engine::restore(config(Skip::Proven), whole).is_ok());
        let mut all = vec![];
        forgeries(&value, &mut all);
        for (pointer, forged) in all {
            let forged = serde_json::from_value(forged).unwrap();
            assert!(Engine::restore(config(Skip::Proven), forged).is_err(), "{pointer} is one more, and was taken");
            tried.set(tried.get() + 1);
        }
    });
    assert!(tried.get() > 100, "{} forgeries", tried.get());
}

/// A sample from the future, more than was asked, more than there are: nothing changes.
#[test]
fn facts_that_cannot_be_change_nothing() {
    let told = Cell::new(0);
    seeds(60, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        for (now, op) in Author::new(seed).history(100) {
            apply(&mut engine, now, &op);
            while engine.poll_effect().is_some() {}
            let before = engine.snapshot();
            let groups: Vec<GroupId> = engine.groups().collect();
            for group in groups {
                let metrics: Vec<MetricId> =
                    engine.policy(group).unwrap().metrics.iter().map(|metric| metric.id).collect();
                for metric in metrics {
                    engine.handle_sample(now, group, metric, now.after_millis(2_001), Some(Milli::from_units(7)));
                }
                for held in engine.holdings(group).to_vec() {
                    // What launches have under way explains so many; and an old census says nothing.
                    let later = held.since.max(now).after_millis(1);
                    engine.handle_census(now, group, held.pool, later, held.ready + held.starting);
                    engine.handle_census(now, group, held.pool, held.since, held.ready + 30);
                }
            }
            let open: Vec<_> = engine.requests().map(|(id, request)| (id, *request)).collect();
            for (id, request) in open {
                for (done, failed) in [(request.count + 1, 0), (request.count, 1), (0, request.count + 1)] {
                    let told = done.max(request.came.done) + failed.max(request.came.failed);
                    if told + request.came.cancelled > request.count {
                        engine.handle_launch(now, id, Progress { done, failed, cancelled: 0 });
                    }
                }
                engine.handle_release(now, id, request.count + 1);
                told.set(told.get() + 1);
            }
            assert_eq!(before, engine.snapshot(), "{op:?}");
        }
    });
    assert!(told.get() > 500, "{} requests", told.get());
}

/// A pool that fails is asked again later and later, up to a bound; one that delivers is forgiven.
#[test]
fn a_pool_that_fails_is_left_alone_for_longer_each_time() {
    let mut engine = Engine::new(Config::builder().tick_ms(1_000).back_off_ms(10_000, 60_000).build().unwrap());
    pools(&mut engine, &[9], Watermark::default());
    let (traffic, policy) = given(1, 9, Behavior::default());
    engine.put_group(Timestamp::ZERO, traffic, policy).unwrap();
    engine.handle_sample(Timestamp::ZERO, GroupId(1), LOAD, Timestamp::ZERO, Some(Milli::from_units(3)));
    let mut asked: Vec<u64> = vec![];
    for second in 0..400 {
        let now = Timestamp::from_millis(second * 1_000);
        engine.handle_timeout(now);
        while let Some(effect) = engine.poll_effect() {
            let Effect::Launch { request, count, .. } = effect else { panic!("{effect:?}") };
            asked.push(second);
            // The sixth delivers one of three.
            let came = u32::from(asked.len() == 6);
            engine.handle_launch(now, request, Progress { done: came, failed: count - came, cancelled: 0 });
        }
    }
    let gaps: Vec<u64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(gaps[..8], [10, 20, 40, 60, 60, 10, 20, 40], "asked at {asked:?}");
}

/// At the last instant that there is, ticks do not move on; what is kept then still comes back.
#[test]
fn the_end_of_time_is_an_instant_like_others() {
    let end = Timestamp::MAX;
    let mut engine = Engine::new(Config::builder().build().unwrap());
    pools(&mut engine, &[9], Watermark::default());
    let pace = || Pace { stabilize_ms: 60_000, ..Pace::default() };
    let (traffic, policy) = given(1, 9, Behavior { out: pace(), inward: pace(), ..Behavior::default() });
    engine.put_group(Timestamp::ZERO, traffic, policy.clone()).unwrap();
    for (at, want) in [(end.as_millis() - 1, 3), (end.as_millis(), 5)] {
        let at = Timestamp::from_millis(at);
        engine.handle_sample(at, GroupId(1), LOAD, at, Some(Milli::from_units(want)));
        for _ in 0..3 {
            engine.handle_timeout(end);
            obey(&mut engine, end);
            let policy = Policy { min: u32::from(want == 5), ..policy.clone() };
            engine.put_group(end, given(1, 9, Behavior::default()).0, policy).unwrap();
        }
    }
    let kept = engine.snapshot();
    let restored = Engine::restore(Config::builder().build().unwrap(), kept.clone()).unwrap();
    assert_eq!(restored.snapshot(), kept);
}
