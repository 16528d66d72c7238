//! Recommendations: the cheapest rules that keep to the objective, and honest about what they were tested on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tenon_scaler::forecast::Series;
use tenon_scaler::nomad::TargetValue;
use tenon_scaler::recommend::{
    Advice, Family, Objective, RecommendError, Recommendation, Semantics, recommend, side_by_side,
};
use tenon_scaler::strategy::Kpa;
use tenon_scaler::{Behavior, Milli, PolicyError, Timestamp, ZoneId, Zones};

const DAY_MS: u64 = 86_400_000;
/// Monday, 4 May 2026.
const START: u64 = 1_777_852_800_000;

fn objective() -> Objective {
    Objective {
        per_instance: Milli::from_units(500),
        start_ms: 300_000,
        shortage_millionths: 10_000,
        min: 1,
        max: 200,
        zone: ZoneId(0),
        test_days: 7,
    }
}

fn series(step_ms: u64, values: Vec<i64>) -> Series {
    let values = values.into_iter().map(|value| Some(Milli::from_units(value))).collect();
    Series::new(Timestamp::from_millis(START), step_ms, values).unwrap()
}

/// Weeks of office hours in steps of five minutes; `peak` says how high a day of the week goes.
fn office(weeks: u64, peak: impl Fn(u64) -> i64) -> Vec<i64> {
    let load = |step: u64| {
        let (day, minute) = (step / 288, step % 288 * 5);
        let wave = i64::try_from((step * 7919) % 97).unwrap() * 4;
        if (540..1080).contains(&minute) { peak(day % 7) + wave } else { 1_000 + wave }
    };
    (0..weeks * 7 * 288).map(load).collect()
}

fn asked(values: Vec<i64>) -> Recommendation {
    recommend(&series(300_000, values), &objective(), &Zones::new()).unwrap()
}

#[test]
fn a_day_that_jumps_at_nine_is_met_by_a_timetable() {
    let values = office(4, |day| if day < 5 { 30_000 } else { 4_000 });
    // A metric rule sees the jump when it is there, and waits for instances: ten minutes a day.
    let lax = asked(values.clone());
    assert_eq!(lax.family, Family::Metric);
    let strict = Objective { shortage_millionths: 3_000, ..objective() };
    let found = recommend(&series(300_000, values.clone()), &strict, &Zones::new()).unwrap();
    assert!(matches!(found.family, Family::Timed | Family::Both), "{found:?}");
    assert!(found.fitted.shortage_millionths() <= 3_000, "{found:?}");
    assert!(found.tested.shortage_millionths() <= 3_000, "{found:?}");
    assert!(found.fitted.instance_ms > lax.fitted.instance_ms);
    assert!(found.saves_permille() > 400, "{} per mille", found.saves_permille());
    assert_eq!(found.tested_days.0, Timestamp::from_millis(START + 21 * DAY_MS));
    assert_eq!(found.tested_days.1.millis_since(found.fitted_days.0), 28 * DAY_MS);
    // Twice the instances are never needed to hold it.
    let needed: u128 =
        values[21 * 288..].iter().map(|load| load.unsigned_abs().div_ceil(500)).map(u128::from).sum::<u128>() * 300_000;
    assert!(found.tested.instance_ms >= needed - needed / 50 && found.tested.instance_ms < needed * 3 / 2);
}

#[test]
fn what_is_held_out_is_not_looked_at() {
    let values = office(4, |day| if day < 5 { 30_000 } else { 4_000 });
    let mut other = values.clone();
    for load in &mut other[21 * 288..] {
        *load *= 3;
    }
    let (one, other) = (asked(values), asked(other));
    assert_eq!((&one.policy, one.fitted, one.fixed_size), (&other.policy, other.fitted, other.fixed_size));
    assert!(other.tested.shortage_millionths() > 100_000, "the test says that it went wrong: {:?}", other.tested);
}

#[test]
fn load_without_a_rhythm_is_left_to_the_metric() {
    // A slow wave whose length has nothing to do with a day.
    let load = |step: i64| 20_000 + 15_000 * ((step % 1_733) - 866).abs() / 866;
    let found = asked((0..28 * 288).map(load).collect());
    assert_eq!(found.family, Family::Metric, "{found:?}");
    assert!(found.fitted.shortage_millionths() <= 10_000);
}

/// What is advised is never dearer than a fixed fleet that serves, nor short for longer than both it and the objective; where the rules
/// would be, the fixed fleet is the answer, and the report says how far the objective was met.
#[test]
fn what_is_advised_is_never_worse_than_the_fixed_fleet() {
    let (mut rules, mut fixed) = (0, 0);
    for (seed, allowed) in (0..8_i64).flat_map(|seed| [1_000, 50_000].map(|allowed| (seed, allowed))) {
        // From a load that hardly moves to one with a high day, with bursts that come without a rhythm.
        let depth = seed % 4 * 5_000;
        let load = |step: i64| {
            let wave = ((step % 24) - 12).abs() * depth / 12;
            let burst = if (step * 7_919 + seed * 31) % 1_009 < seed % 3 * 4 { 9_000 } else { 0 };
            20_000 - wave + burst + (step * 613) % 97 * 5
        };
        let objective = Objective { shortage_millionths: allowed, ..objective() };
        let found = match recommend(&series(3_600_000, (0..28 * 24).map(load).collect()), &objective, &Zones::new()) {
            Ok(found) => found,
            Err(error) => {
                assert!(matches!(error, RecommendError::OutOfReach(_)), "{error}");
                continue;
            }
        };
        let advised = found.advised();
        let fleet_serves = found.fixed.shortage_millionths() <= allowed;
        assert!(!fleet_serves || advised.instance_ms <= found.fixed.instance_ms, "{found:?}");
        let shortest = allowed.max(found.fixed.shortage_millionths());
        assert!(advised.shortage_millionths() <= shortest, "{found:?}");
        let expected = (u64::from(advised.shortage_millionths()) * 1000).div_ceil(u64::from(allowed));
        assert_eq!(u64::from(found.shortage_of_allowed_permille()), expected);
        match &found.advice {
            Advice::Rules => rules += 1,
            Advice::Fixed(policy) => {
                fixed += 1;
                assert_eq!((policy.min, policy.rules.len()), (found.fixed_size, 0));
            }
        }
    }
    assert!(rules > 3 && fixed > 3, "{rules} times rules, {fixed} times the fixed fleet");
}

/// Three weeks of office hours, then a week that is the same at every hour but for six bursts of ten minutes.
fn even_at_last(load: i64, burst: i64) -> Recommendation {
    let mut values = office(4, |day| if day < 5 { 30_000 } else { 4_000 });
    values[21 * 288..].fill(load);
    for at in (0..6).map(|day| (21 + day) * 288 + 100) {
        values[at..at + 2].fill(burst);
    }
    asked(values)
}

#[test]
fn rules_that_turn_out_dearer_than_a_fleet_that_serves_are_not_advised() {
    let found = even_at_last(30_300, 45_000);
    assert!(found.fixed.shortage_millionths() <= 10_000 && found.tested.shortage_millionths() <= 10_000, "{found:?}");
    assert!(found.tested.instance_ms > found.fixed.instance_ms, "{found:?}");
    assert!(matches!(found.advice, Advice::Fixed(_)), "{found:?}");
}

#[test]
fn rules_that_serve_are_advised_where_the_fixed_fleet_does_not() {
    let found = even_at_last(40_000, 40_000);
    assert!(found.fixed.shortage_millionths() > 900_000 && found.tested.shortage_millionths() <= 10_000, "{found:?}");
    assert_eq!(found.advice, Advice::Rules);
    assert!(found.saves_permille() < 0, "{found:?}");
}

#[test]
fn a_stricter_objective_is_not_cheaper() {
    let values = office(4, |day| 12_000 + 2_000 * i64::try_from(day).unwrap());
    let cost = |shortage_millionths| {
        let objective = Objective { shortage_millionths, ..objective() };
        recommend(&series(300_000, values.clone()), &objective, &Zones::new()).unwrap().fitted.instance_ms
    };
    let costs = [1_000, 10_000, 50_000].map(cost);
    assert!(costs[0] >= costs[1] && costs[1] >= costs[2], "{costs:?}");
}

#[test]
fn what_cannot_be_recommended_is_refused() {
    let refused = |values, objective| recommend(&series(300_000, values), &objective, &Zones::new()).unwrap_err();
    assert_eq!(refused(vec![1; 20 * 288], objective()), RecommendError::TooShort);
    assert_eq!(refused(vec![1; 28 * 288], Objective { test_days: 0, ..objective() }), RecommendError::TooShort);
    let nothing = Objective { per_instance: Milli::ZERO, ..objective() };
    assert_eq!(refused(vec![1; 28 * 288], nothing), RecommendError::Objective);
    assert_eq!(refused(vec![1; 28 * 288], Objective { min: 3, max: 2, ..objective() }), RecommendError::Objective);
    let nowhere = Objective { zone: ZoneId(7), ..objective() };
    assert_eq!(refused(vec![1; 28 * 288], nowhere), RecommendError::NoZone(ZoneId(7)));
}

#[test]
fn one_trace_under_four_autoscalers() {
    let values = office(2, |day| if day < 5 { 30_000 } else { 4_000 });
    let history = series(300_000, values.clone());
    let (objective, zones) = (objective(), Zones::new());
    let own = asked(office(4, |day| if day < 5 { 30_000 } else { 4_000 })).policy;
    let target = Milli::from_units(400);
    let kpa = Kpa {
        sample_ms: 300_000,
        stable_window_ms: 1_800_000,
        panic_window_ms: 300_000,
        ..Kpa::new(target, Milli::from_units(500))
    };
    let nomad = TargetValue::parse(&[("target", "400")]).unwrap();
    let all = [
        Semantics::Own(own),
        Semantics::Hpa { target, behavior: Behavior::kubernetes() },
        Semantics::Kpa(kpa),
        Semantics::Nomad(nomad),
    ];
    let came = side_by_side(&history, &objective, &zones, &all).unwrap();
    let needed: u128 =
        values.iter().map(|load| load.unsigned_abs().div_ceil(500)).map(u128::from).sum::<u128>() * 300_000;
    for (outcome, semantics) in came.iter().zip(&all) {
        // Each follows the load: not for free, not at twice what is needed, and short for a while after nine.
        assert!(
            outcome.instance_ms > needed * 9 / 10 && outcome.instance_ms < needed * 2,
            "{semantics:?}: {outcome:?}"
        );
        assert!((1..100_000).contains(&outcome.shortage_millionths()), "{semantics:?}: {outcome:?}");
        assert!(outcome.changes >= 20, "{semantics:?}: {outcome:?}");
    }
    // A quarter of head-room costs about that much more than none.
    assert!(came[1].instance_ms > came[0].instance_ms, "{came:?}");
    let bad = Semantics::Kpa(Kpa { panic_window_ms: 1, ..kpa });
    let refused = side_by_side(&history, &objective, &zones, &[all[0].clone(), bad]);
    assert!(matches!(refused, Err(PolicyError::Kpa(_))), "{refused:?}");
}
