//! `tenon-scaler`: a tick over a fleet of groups, one decision, one pass of an HPA, and a day's rehearsal.

mod taxi;

use std::hint::black_box;
use std::time::Instant;

use tenon_scaler::forecast::Series;
use tenon_scaler::hpa::{Deletion, Kind, Measured, Phase, Pod, PodSample, Pods, ReadyCondition, View};
use tenon_scaler::recommend::{Objective, recommend};
use tenon_scaler::strategy::{Change, Strategy, Target, Threshold, Trigger};
use tenon_scaler::{
    Authority, Config, Days, Effect, Engine, Group, GroupId, GroupState, IdcId, Inputs, Limits, Metric, MetricId,
    Milli, Policy, Pool, PoolId, PoolKind, Records, Rehearsal, ReleaseId, Rule, RuleId, RuleKind, Sample, ShapeId,
    Skip, Staleness, TenantId, Timestamp, Traffic, VersionId, Watermark, Window, World, ZoneId, Zones, decide, hpa,
};

use crate::{Bound, Row, Scale, bytes_held, median_ns};

const HOUR_MS: u64 = 3_600_000;
const LOAD: MetricId = MetricId(1);

/// Every figure of the crate.
pub(crate) fn rows(scale: Scale) -> Vec<Row> {
    let mut rows = vec![one_decision(), one_hpa_pass(), live_tick(scale)];
    rows.extend(rehearsal(scale));
    rows.push(admission(scale));
    rows.extend(taxi::rows());
    rows.push(recommendation());
    rows
}

fn threshold() -> RuleKind {
    let side = |past, by| Some(Trigger { past: Milli::from_units(past), by: Change::Permille(by) });
    RuleKind::Metric(LOAD, Strategy::Threshold(Threshold { out: side(70, 200), inward: side(30, 100), need: 2, of: 3 }))
}

/// Group `at` of a fleet: threshold rules, a third of them with a timed floor; every fifth tracks a target.
fn policy(at: u32) -> Policy {
    let hour = |hour: u32| jiff::civil::time(i8::try_from(hour % 24).unwrap_or(0), 0, 0, 0);
    let kind = if at.is_multiple_of(5) {
        let target = Target { target: Milli::from_units(50), tolerance_out_permille: 100, tolerance_in_permille: 100 };
        RuleKind::Metric(LOAD, Strategy::Target(target))
    } else {
        threshold()
    };
    let mut rules = vec![Rule { id: RuleId(1), kind }];
    if at.is_multiple_of(3) {
        let window =
            Window { zone: ZoneId(0), days: Days::Every, from: hour(at), until: hour(at + 3), lead_ms: 300_000 };
        rules.push(Rule { id: RuleId(2), kind: RuleKind::Floor(window, 12) });
    }
    Policy {
        min: 2,
        max: 50,
        metrics: vec![Metric { id: LOAD, stale_after_ms: 15 * 60_000, when_stale: Staleness::ForbidIn }],
        rules,
        ..Policy::default()
    }
}

fn fleet(groups: u32, skip: Skip) -> Engine {
    let config = Config::builder().max_requests(100_000_000).skip(skip).records(Records::None).build();
    let mut engine = Engine::new(config.unwrap_or_else(|error| unreachable!("{error}")));
    let now = Timestamp::ZERO;
    for idc in 0..3 {
        let stock = vec![(ShapeId(1), 100_000_000)];
        let pool = Pool {
            id: PoolId(idc),
            kind: PoolKind::Resident,
            idc: IdcId(idc),
            price: 100,
            watermark: Watermark::default(),
            stock,
        };
        let _ = engine.put_pool(now, pool);
    }
    engine.put_release(now, ReleaseId(1), VersionId(1));
    for at in 0..groups {
        let traffic =
            Traffic { id: GroupId(at), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) };
        let _ = engine.put_group(now, traffic, policy(at));
    }
    engine
}

/// A day's curve, with the group's own phase and height, and some noise: the load of a group in thousandths.
fn demand(at: Timestamp, group: u32) -> i64 {
    let step = at.as_millis() / 300_000;
    let hash = (step ^ u64::from(group).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let phase = i64::try_from((step + u64::from(group) * 7) % 288).unwrap_or(0);
    let triangle = 144 - (phase - 144).abs();
    let noise = i64::try_from(hash >> 54).unwrap_or(0) * 40;
    (100 + 8 * i64::from(group % 5)) * 1000 + triangle * 3_000 + noise
}

struct Days5m;

impl World for Days5m {
    fn measure(&mut self, at: Timestamp, group: GroupId, _: MetricId, ready: u32) -> Option<Milli> {
        Some(Milli::from_thousandths(demand(at, group.0) / i64::from(ready.max(1))))
    }

    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32 {
        u32::try_from(demand(at, group.0) / 80_000).unwrap_or(0)
    }
}

fn one_decision() -> Row {
    let policy = policy(1);
    let group = Group::new(policy, &Zones::new(), Limits::default()).unwrap_or_else(|error| unreachable!("{error}"));
    let mut state = GroupState::new(&group, 10);
    let mut now = Timestamp::from_millis(1);
    let ns = median_ns(21, || {
        for round in 0..20_000_i64 {
            now = now.after_millis(15_000);
            let samples = [Some(Sample { at: now, value: Milli::from_units(30 + round % 45), over: 10 })];
            let inputs = Inputs { ready: state.target(), samples: &samples, ..Inputs::default() };
            let (decision, next) = decide(&group, &state, &inputs, now);
            state = next;
            black_box(&decision);
        }
        20_000
    });
    Row::new("one decision with its record, threshold", ns, "ns", Bound::AtMost(150.0))
}

fn one_hpa_pass() -> Row {
    let now = Timestamp::from_millis(1_000_000_000);
    let since = Timestamp::from_millis(1);
    let pods: Vec<Pod> = (0..10)
        .map(|id| Pod {
            id,
            phase: Phase::Running,
            ready: ReadyCondition::Ready(since),
            started: Some(since),
            deletion: Deletion::None,
            request: Some(1000),
        })
        .collect();
    let samples: Vec<PodSample> =
        (0..10).map(|pod| PodSample { pod, value: 400 + i64::from(pod) * 30, at: now, window_ms: 60_000 }).collect();
    let metrics = vec![hpa::Metric { kind: Kind::CpuUtilization, target: 50 }];
    let spec = hpa::Spec { min: 1, max: 100, metrics, ..hpa::Spec::default() };
    let measured = [Measured::Pods(&samples)];
    let view = View { spec_replicas: 10, status_replicas: 10, pods: Pods(&pods), measured: &measured };
    let mut state = hpa::State::default();
    let mut at = now;
    let ns = median_ns(21, || {
        for _ in 0..5_000 {
            at = at.after_millis(15_000);
            let (replicas, _, next) = hpa::reconcile(&spec, &state, black_box(&view), at);
            state = next;
            black_box(replicas);
        }
        5_000
    });
    Row::new("one HPA pass, 10 pods, 5 min window", ns, "ns", Bound::AtMost(1000.0))
}

fn live_tick(scale: Scale) -> Row {
    let groups = u32::try_from(scale.pick(100_000, 10_000)).unwrap_or(0);
    let mut engine = fleet(groups, Skip::Nothing);
    let mut now = Timestamp::ZERO;
    let mut spent = Vec::new();
    for _ in 0..40 {
        now = now.after_millis(15_000);
        for at in 0..groups {
            let ready = engine.holdings(GroupId(at)).iter().map(|held| held.ready).sum::<u32>();
            let value = demand(now, at) / i64::from(ready.max(1));
            engine.handle_sample(now, GroupId(at), LOAD, now, Some(Milli::from_thousandths(value)));
        }
        let start = Instant::now();
        engine.handle_timeout(now);
        spent.push(start.elapsed().as_secs_f64() * 1e3);
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Launch { request, count, .. } => engine.handle_launch(now, request, count, 0),
                Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
            }
        }
    }
    // The first ticks build the fleet up; what is promised is the tick of a fleet that runs.
    let mut spent = spent.split_off(10);
    spent.sort_by(f64::total_cmp);
    let scaled = spent[spent.len() / 2];
    Row::new(format!("a tick over {groups} groups, new samples for all"), scaled, "ms", Bound::AtMost(30.0))
        .note("threshold 80 %, target tracking 20 %, a third with a timed floor; none skipped")
}

fn rehearsal(scale: Scale) -> Vec<Row> {
    let groups = u32::try_from(scale.pick(100_000, 5_000)).unwrap_or(0);
    let run = |skip| Rehearsal {
        from: Timestamp::ZERO,
        until: Timestamp::from_millis(24 * HOUR_MS),
        sample_ms: 300_000,
        start_ms: 60_000,
        stop_ms: 30_000,
        flap_ms: 600_000,
        skip,
    };
    let engine = fleet(groups, Skip::Proven);
    let start = Instant::now();
    let report = engine.rehearse(run(Skip::Proven), &mut Days5m);
    let spent = start.elapsed().as_secs_f64();
    let (_, bytes) = bytes_held(|| engine.clone());
    let few = fleet(500, Skip::Proven);
    let (one, other) = (few.rehearse(run(Skip::Proven), &mut Days5m), few.rehearse(run(Skip::Nothing), &mut Days5m));
    let name = format!("rehearsal, {groups} groups x 24 h x 15 s ticks, 5 min samples");
    vec![
        Row::new(name, spent, "s", Bound::AtMost(6.0)).note(format!(
            "{} ticks, {} changes; passing over ticks changed {} of 500 groups' report",
            report.ticks,
            report.changes,
            if one == other { "nothing" } else { "SOMETHING" }
        )),
        Row::new(
            "memory of the fork that is rehearsed on",
            f64::from(u32::try_from(bytes >> 20).unwrap_or(0)),
            "MB",
            Bound::AtMost(200.0),
        ),
    ]
}

/// Rules for one service, searched on three weeks and tested on a fourth.
fn recommendation() -> Row {
    let values = (0..28 * 288_u64).map(|step| {
        let (day, at) = (step / 288 % 7, Timestamp::from_millis(step % 288 * 300_000));
        let weekend = if day < 5 { 3 } else { 2 };
        Some(Milli::from_thousandths(demand(at, u32::try_from(day).unwrap_or(0)) * weekend))
    });
    let history =
        Series::new(Timestamp::ZERO, 300_000, values.collect()).unwrap_or_else(|error| unreachable!("{error}"));
    let objective = Objective {
        per_instance: Milli::from_units(40),
        start_ms: 300_000,
        shortage_millionths: 5_000,
        min: 1,
        max: 500,
        zone: ZoneId(0),
        test_days: 7,
    };
    let mut note = String::new();
    let ms = median_ns(5, || {
        match recommend(black_box(&history), &objective, &Zones::new()) {
            Ok(found) => {
                note = format!(
                    "{:?}, {} candidates; on held-out days {} per mille saved at {} millionths short",
                    found.family,
                    found.tried,
                    found.saves_permille(),
                    found.tested.shortage_millionths()
                );
            }
            Err(error) => note = error.to_string(),
        }
        1
    }) / 1e6;
    Row::new("recommendation for one service, 28 days of 5 min data", ms, "ms", Bound::AtMost(100.0)).note(note)
}

fn admission(scale: Scale) -> Row {
    let groups = u32::try_from(scale.pick(100_000, 10_000)).unwrap_or(0);
    let mut engine = fleet(0, Skip::Proven);
    let traffic =
        |at| Traffic { id: GroupId(at), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) };
    let upper: Vec<u32> = (0..288).map(|slot| 5 + slot / 48).collect();
    let now = Timestamp::ZERO;
    for at in 0..groups {
        let _ = engine.admit(now, traffic(at), policy(at), &upper, Authority::Owner);
    }
    let mut turn = 0;
    let ns = median_ns(21, || {
        for _ in 0..200 {
            turn = (turn + 7919) % groups;
            let verdict = engine.admit(now, traffic(turn), policy(turn + 1), black_box(&upper), Authority::Owner);
            let _ = black_box(verdict);
        }
        200
    });
    Row::new(format!("admission of one change among {groups} admitted"), ns / 1000.0, "us", Bound::AtMost(10.0))
        .note("three pools, 288 slots of five minutes")
}
