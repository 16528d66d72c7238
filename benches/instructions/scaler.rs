//! Instruction counts of the hot paths of `tenon-scaler`. A count does not depend on how busy the machine is, so the limit
//! beside each is a guard: what exceeds it has become slower, and the run fails.
#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::unwrap_used,
    reason = "a bench: its entry point is generated, and it fails by panicking"
)]

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use tenon_scaler::hpa::{self, Deletion, Kind, Phase, Pod, PodSample, ReadyCondition, Requests};
use tenon_scaler::strategy::{Change, Hpa, Kpa, Strategy, Threshold, Trigger};
use tenon_scaler::{
    Authority, Config, Decision, Engine, Group, GroupId, GroupState, IdcId, Inputs, Limits, Metric, MetricId, Milli,
    Policy, Pool, PoolId, PoolKind, Records, ReleaseId, Rule, RuleId, RuleKind, Sample, ShapeId, Skip, Staleness,
    TenantId, Timestamp, Traffic, Verdict, VersionId, Watermark, Zones, decide,
};

fn limit(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

const LOAD: MetricId = MetricId(1);
const START: Timestamp = Timestamp::from_millis(15_000);

fn threshold() -> Strategy {
    let side = |past| Some(Trigger { past: Milli::from_units(past), by: Change::Permille(100) });
    Strategy::Threshold(Threshold { out: side(70), inward: side(30), need: 2, of: 3 })
}

fn policy(strategy: Strategy) -> Policy {
    Policy {
        min: 2,
        max: 50,
        metrics: vec![Metric { id: LOAD, stale_after_ms: 900_000, when_stale: Staleness::ForbidIn }],
        rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(LOAD, strategy) }],
        ..Policy::default()
    }
}

fn traffic(at: u32) -> Traffic {
    Traffic { id: GroupId(at), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) }
}

/// A group that has decided a few times, and a fresh sample.
fn group(strategy: Strategy) -> (Group, GroupState, Sample) {
    let group = Group::new(policy(strategy), &Zones::new(), Limits::default()).unwrap();
    let mut state = GroupState::new(&group, 10);
    for step in 0..4 {
        let at = Timestamp::from_millis(step * 1_000);
        let samples = [Some(Sample { at, value: Milli::from_units(50), over: 10 })];
        state = decide(&group, &state, &Inputs { ready: 10, starting: 0, samples: &samples, fleet: None }, at).1;
    }
    (group, state, Sample { at: START, value: Milli::from_units(50), over: 10 })
}

#[library_benchmark(config = limit(LIMITS.threshold))]
#[bench::fresh_sample(group(threshold()))]
fn decide_threshold(
    (group, state, sample): (Group, GroupState, Sample),
) -> ((Decision, GroupState), Group, GroupState) {
    let samples = [Some(sample)];
    let inputs = Inputs { ready: 10, starting: 0, samples: &samples, fleet: None };
    // What it was given is given back, so that dropping it is not counted.
    (decide(black_box(&group), &state, &inputs, START), group, state)
}

fn pods() -> hpa::Metric {
    hpa::Metric::new(Kind::CpuUtilization, 60)
}

/// An engine of `count` groups that stand at their size, each with a new sample.
fn fleet(count: u32, strategy: &Strategy) -> Engine {
    let config = Config::builder().skip(Skip::Nothing).records(Records::None).build().unwrap();
    let mut engine = Engine::new(config);
    let now = Timestamp::ZERO;
    for idc in 0..3 {
        let (kind, watermark, stock) = (PoolKind::Resident, Watermark::default(), vec![(ShapeId(1), 1_000_000)]);
        engine.put_pool(now, Pool { id: PoolId(idc), kind, idc: IdcId(idc), price: 1, watermark, stock }).unwrap();
    }
    engine.put_release(now, ReleaseId(1), VersionId(1));
    for at in 0..count {
        engine.put_group(now, traffic(at), Policy { min: 10, ..policy(strategy.clone()) }).unwrap();
    }
    engine.handle_timeout(now);
    while let Some(tenon_scaler::Effect::Launch { request, count, .. }) = engine.poll_effect() {
        engine.handle_launch(now, request, tenon_scaler::Progress::done(count));
    }
    let ready = ReadyCondition::Ready(now);
    let pod = |id| Pod {
        id,
        phase: Phase::Running,
        ready,
        started: Some(now),
        deletion: Deletion::None,
        requests: Requests::of(Some(1_000)),
    };
    let pods: Vec<Pod> = (0..10).map(pod).collect();
    let samples: Vec<PodSample> =
        (0..10).map(|pod| PodSample { pod, value: 600, at: START, window_ms: 30_000 }).collect();
    for at in 0..count {
        if matches!(strategy, Strategy::Hpa(_)) {
            engine.handle_pods(START, GroupId(at), START, &pods);
            engine.handle_pod_samples(START, GroupId(at), LOAD, START, &samples);
        } else {
            engine.handle_sample(START, GroupId(at), LOAD, START, Some(Milli::from_units(50)));
        }
    }
    engine
}

fn tick(mut engine: Engine) -> Engine {
    black_box(&mut engine).handle_timeout(START);
    engine
}

#[library_benchmark(config = limit(LIMITS.tick_threshold))]
#[bench::hundred_groups(fleet(100, &threshold()))]
fn tick_threshold(engine: Engine) -> Engine {
    tick(engine)
}

#[library_benchmark(config = limit(LIMITS.tick_hpa))]
#[bench::hundred_groups_of_ten_pods(fleet(100, &Strategy::Hpa(Hpa::new(pods()))))]
fn tick_hpa(engine: Engine) -> Engine {
    tick(engine)
}

#[library_benchmark(config = limit(LIMITS.tick_kpa))]
#[bench::hundred_groups(fleet(100, &Strategy::Kpa(Kpa::new(Milli::from_units(10), Milli::from_units(20)))))]
fn tick_kpa(engine: Engine) -> Engine {
    tick(engine)
}

/// A thousand admitted groups, and a change of one of them.
fn admitted() -> (Engine, Vec<u32>) {
    let mut engine = fleet(0, &threshold());
    let upper: Vec<u32> = (0..288).map(|slot| 5 + slot / 48).collect();
    for at in 0..1_000 {
        let verdict = engine.admit(START, traffic(at), policy(threshold()), &upper, Authority::Owner);
        assert_eq!(verdict, Ok(Verdict::Admitted));
    }
    (engine, upper.iter().map(|count| count + 1).collect())
}

#[library_benchmark(config = limit(LIMITS.admission))]
#[bench::one_change_of_a_thousand(admitted())]
fn admission((mut engine, upper): (Engine, Vec<u32>)) -> (Engine, Verdict) {
    let verdict = engine.admit(START, traffic(500), policy(threshold()), black_box(&upper), Authority::Owner);
    (engine, verdict.unwrap())
}

/// The most instructions each may take: what was measured, and a tenth.
struct Most {
    threshold: u64,
    tick_threshold: u64,
    tick_hpa: u64,
    tick_kpa: u64,
    admission: u64,
}

const LIMITS: Most =
    Most { threshold: 2_045, tick_threshold: 110_700, tick_hpa: 309_300, tick_kpa: 232_000, admission: 73_700 };

library_benchmark_group!(name = hot, benchmarks = [decide_threshold, tick_threshold, tick_hpa, tick_kpa, admission]);
main!(library_benchmark_groups = hot);
