//! A fleet of groups: one live tick over all of them, and a day's rehearsal, on one core and on two.

use std::hint::black_box;
use std::ops::Range;
use std::thread;
use std::time::Instant;

use tenon_scaler::hpa::{self, Deletion, Kind, Phase, Pod, PodSample, ReadyCondition, Requests};
use tenon_scaler::strategy::{Change, Hpa, Kpa, Strategy, Target, Threshold, Trigger};
use tenon_scaler::{
    Config, Days, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Policy, Pool, PoolId, PoolKind, Progress,
    Records, Rehearsal, ReleaseId, Report, Rule, RuleId, RuleKind, ShapeId, Skip, Staleness, TenantId, Timeline,
    Timestamp, Traffic, VersionId, Watermark, Window, World, ZoneId,
};

use super::LOAD;
use crate::{Bound, Row, Scale, bytes_held, bytes_peak};

const HOUR_MS: u64 = 3_600_000;

/// Which rules a fleet has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mix {
    /// Of twenty groups sixteen with thresholds, a third of them with a timed floor, three of an HPA with ten pods, and one
    /// of a KPA.
    Live,
    /// Of five groups four with thresholds and one that tracks a target; a third of all with a timed floor.
    Rehearsed,
}

fn threshold() -> RuleKind {
    let side = |past, by| Some(Trigger { past: Milli::from_units(past), by: Change::Permille(by) });
    RuleKind::Metric(LOAD, Strategy::Threshold(Threshold { out: side(70, 200), inward: side(30, 100), need: 2, of: 3 }))
}

fn is_hpa(at: u32) -> bool {
    (16..19).contains(&(at % 20))
}

fn is_kpa(at: u32) -> bool {
    at % 20 == 19
}

/// The rules of group `at`.
pub(super) fn policy(at: u32, mix: Mix) -> Policy {
    let hour = |hour: u32| jiff::civil::time(i8::try_from(hour % 24).unwrap_or(0), 0, 0, 0);
    let kind = if mix == Mix::Live && is_hpa(at) {
        let metric = hpa::Metric::new(Kind::CpuUtilization, 50);
        RuleKind::Metric(LOAD, Strategy::Hpa(Hpa::new(metric)))
    } else if mix == Mix::Live && is_kpa(at) {
        RuleKind::Metric(LOAD, Strategy::Kpa(Kpa::new(Milli::from_units(50), Milli::from_units(100))))
    } else if mix == Mix::Rehearsed && at.is_multiple_of(5) {
        let target = Target {
            target: Milli::from_units(50),
            tolerance_out_permille: 100,
            tolerance_in_permille: 100,
            ..Target::default()
        };
        RuleKind::Metric(LOAD, Strategy::Target(target))
    } else {
        threshold()
    };
    let mut rules = vec![Rule { id: RuleId(1), kind }];
    if at.is_multiple_of(3) && !(mix == Mix::Live && (is_hpa(at) || is_kpa(at))) {
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

pub(super) fn fleet(groups: Range<u32>, skip: Skip, mix: Mix) -> Engine {
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
    for at in groups {
        let traffic =
            Traffic { id: GroupId(at), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) };
        let _ = engine.put_group(now, traffic, policy(at, mix));
    }
    engine
}

/// A day's curve, with the group's own phase and height, and some noise: the load of a group in thousandths.
pub(super) fn demand(at: Timestamp, group: u32) -> i64 {
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

/// Tells what was measured of every group: the average per instance, or each of ten pods, or the total.
fn measure(engine: &mut Engine, now: Timestamp, groups: u32) {
    let ready = ReadyCondition::Ready(Timestamp::from_millis(1));
    let pod = |id| {
        let (phase, started) = (Phase::Running, Some(Timestamp::from_millis(1)));
        Pod { id, phase, ready, started, deletion: Deletion::None, requests: Requests::of(Some(1_000)) }
    };
    let pods: Vec<Pod> = (0..10).map(pod).collect();
    let value = |group: u32, pod: u32| 400 + demand(now, group + pod) % 200;
    for at in 0..groups {
        let group = GroupId(at);
        if is_hpa(at) {
            let sample = |pod| PodSample { pod, value: value(at, pod), at: now, window_ms: 30_000 };
            let samples: Vec<PodSample> = (0..10).map(sample).collect();
            engine.handle_pods(now, group, now, &pods);
            engine.handle_pod_samples(now, group, LOAD, now, &samples);
            continue;
        }
        let ready = engine.holdings(group).iter().map(|held| held.ready).sum::<u32>();
        let over = if is_kpa(at) { 1 } else { i64::from(ready.max(1)) };
        engine.handle_sample(now, group, LOAD, now, Some(Milli::from_thousandths(demand(now, at) / over)));
    }
}

pub(super) fn live_tick(scale: Scale) -> Row {
    let groups = u32::try_from(scale.pick(100_000, 10_000)).unwrap_or(0);
    let mut engine = fleet(0..groups, Skip::Nothing, Mix::Live);
    let mut now = Timestamp::ZERO;
    let mut spent = Vec::new();
    for _ in 0..40 {
        now = now.after_millis(15_000);
        measure(&mut engine, now, groups);
        let start = Instant::now();
        engine.handle_timeout(now);
        spent.push(start.elapsed().as_secs_f64() * 1e3);
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Launch { request, count, .. } => engine.handle_launch(now, request, Progress::done(count)),
                Effect::Cancel { request, .. } => {
                    let held = engine.request(request).map(|held| (held.came, held.leaving()));
                    let (came, leaving) = held.unwrap_or_default();
                    engine.handle_launch(now, request, Progress { cancelled: came.cancelled + leaving, ..came });
                }
                Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
            }
        }
    }
    // The first ticks build the fleet up; what is promised is the tick of a fleet that runs.
    let mut spent = spent.split_off(10);
    spent.sort_by(f64::total_cmp);
    let median = spent[spent.len() / 2];
    Row::new(format!("a tick over {groups} groups, new samples for all"), median, "ms", Bound::AtMost(30.0))
        .note("threshold 80 %, a third of them with a timed floor; HPA with 10 pods 15 %; KPA 5 %; none skipped")
}

const DAY: Rehearsal = Rehearsal {
    from: Timestamp::ZERO,
    until: Timestamp::from_millis(24 * HOUR_MS),
    sample_ms: 300_000,
    start_ms: 60_000,
    stop_ms: 30_000,
    flap_ms: 600_000,
    skip: Skip::Proven,
    timeline: Timeline::None,
};

pub(super) fn rehearsal(scale: Scale) -> Vec<Row> {
    let groups = u32::try_from(scale.pick(100_000, 5_000)).unwrap_or(0);
    let rehearse = |engine: &Engine| engine.rehearse(DAY, &mut Days5m);
    let (engine, held) = bytes_held(|| fleet(0..groups, Skip::Proven, Mix::Rehearsed));
    let start = Instant::now();
    let report = rehearse(&engine);
    let spent = start.elapsed().as_secs_f64();
    let (_, peak) = bytes_peak(|| rehearse(&engine));
    let few = fleet(0..500, Skip::Proven, Mix::Rehearsed);
    let every = few.rehearse(Rehearsal { skip: Skip::Nothing, ..DAY }, &mut Days5m);
    let same = if rehearse(&few) == every { "nothing" } else { "SOMETHING" };
    let name = format!("rehearsal, {groups} groups x 24 h x 15 s ticks, 5 min samples");
    let note = format!(
        "{} ticks, {} changes; passing over ticks changed {same} of 500 groups' report",
        report.ticks, report.changes
    );
    let bytes = held + i64::try_from(peak).unwrap_or(i64::MAX);
    vec![
        Row::new(name, spent, "s", Bound::AtMost(6.0)).note(note),
        Row::new(
            "memory of a rehearsal at its peak, with the engine it forks",
            f64::from(i32::try_from(bytes >> 20).unwrap_or(i32::MAX)),
            "MB",
            Bound::AtMost(200.0),
        ),
        two_cores(groups, &report, rehearse),
    ]
}

/// Two halves of the fleet that do not meet, each on a core of its own.
fn two_cores(groups: u32, whole: &Report, rehearse: impl Fn(&Engine) -> Report + Sync) -> Row {
    let halves = [0..groups / 2, groups / 2..groups].map(|half| fleet(half, Skip::Proven, Mix::Rehearsed));
    let mut ratios = Vec::new();
    let mut sums = (0, 0, 0);
    for _ in 0..3 {
        let start = Instant::now();
        for half in &halves {
            black_box(rehearse(half));
        }
        let alone = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let reports = thread::scope(|scope| {
            let runs = halves.each_ref().map(|half| scope.spawn(|| rehearse(half)));
            runs.map(|run| run.join().unwrap_or_default())
        });
        ratios.push(alone / start.elapsed().as_secs_f64());
        sums = reports.iter().fold((0, 0, 0), |sum, report| {
            (sum.0 + report.changes, sum.1 + report.launched, sum.2 + report.instance_ms())
        });
    }
    ratios.sort_by(f64::total_cmp);
    let same = sums == (whole.changes, whole.launched, whole.instance_ms());
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Row::new("rehearsal on two cores, over one", ratios[1], "x", Bound::AtLeast(1.7)).note(format!(
        "two halves on a thread each, {cores} cores here; the sums are {} of the whole",
        if same { "those" } else { "NOT those" }
    ))
}
