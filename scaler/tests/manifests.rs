//! Manifests of `HorizontalPodAutoscaler`s and traces of their load (`tests/data/autoscale-cases`): a rehearsal of a group
//! with the manifest's rules is what `hpa::reconcile` does when it is driven by hand, pass for pass, and both are what the
//! case expects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tenon_scaler::hpa::{
    self, Deletion, Kind, Measured, Phase, Pod, PodSample, Pods, ReadyCondition, Requests, Rules, Spec, View, reconcile,
};
use tenon_scaler::strategy::{Guard, Hpa, Strategy};
use tenon_scaler::{
    Behavior, Config, Engine, GroupId, IdcId, Metric, MetricId, Milli, Move, Pace, Policy, Pool, PoolId, PoolKind,
    Rehearsal, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Skip, Staleness, TenantId, Timeline, Timestamp, Traffic,
    VersionId, Watermark, World,
};

const PASS_MS: u64 = 15_000;

/// What a manifest says, by hand: the crate reads no YAML.
struct Manifest {
    case: &'static str,
    bounds: (u32, u32),
    metrics: Vec<hpa::Metric>,
    behavior: Behavior,
}

fn manifests() -> Vec<Manifest> {
    let cpu = |target| hpa::Metric::new(Kind::CpuUtilization, target);
    let unset = Behavior::kubernetes_unset;
    let block = {
        let filled = Behavior::kubernetes();
        Behavior { inward: Pace { stabilize_ms: 60_000, ..filled.inward.clone() }, ..filled }
    };
    let manifest = |case, bounds, metrics, behavior| Manifest { case, bounds, metrics, behavior };
    vec![
        manifest("01-no-behavior-doubles-from-four", (1, 50), vec![cpu(50)], unset()),
        manifest("02-behavior-block-fills-defaults", (1, 50), vec![cpu(50)], block),
        manifest("04-scale-down-takes-highest-of-five-minutes", (1, 10), vec![cpu(50)], unset()),
        manifest(
            "06-memory-is-per-pod-and-only-grows",
            (2, 6),
            vec![cpu(80), hpa::Metric::new(Kind::Utilization, 80).of_resource(1)],
            unset(),
        ),
        manifest("07-gap-and-nan-hold-the-size", (1, 20), vec![cpu(50)], unset()),
        manifest("08-starting-pods-count-as-idle", (1, 50), vec![cpu(80)], unset()),
        manifest("09-value-target-on-a-total-runs-away", (1, 30), vec![hpa::Metric::new(Kind::Value, 50_000)], unset()),
    ]
}

/// A trace, column by column in thousandths, and what the case asks for.
struct Case {
    rows: BTreeMap<u64, Vec<Option<i64>>>,
    step_ms: u64,
    requests: Requests,
    initial: u32,
    startup_ms: u64,
    until: u64,
    capacity: Option<i64>,
    expect: Value,
}

fn instant(text: &str) -> u64 {
    u64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()).unwrap()
}

fn thousandths(text: &str) -> Option<i64> {
    Milli::from_f64(text.parse().ok()?).map(Milli::as_thousandths)
}

/// `500m`, `1000`.
fn quantity(value: &Value) -> Option<i64> {
    let text = value.as_str()?;
    text.strip_suffix('m').map_or_else(|| thousandths(text), |milli| milli.parse().ok())
}

fn load(case: &str) -> Case {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/autoscale-cases", case].iter().collect();
    let expect: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("expect.json")).unwrap()).unwrap();
    let mut rows = BTreeMap::new();
    if let Ok(text) = std::fs::read_to_string(folder.join("trace.csv")) {
        for line in text.lines().skip(1) {
            let mut cells = line.split(',');
            let at = instant(cells.next().unwrap());
            rows.insert(at, cells.map(thousandths).collect::<Vec<_>>());
        }
    } else {
        let text = std::fs::read_to_string(folder.join("trace.json")).unwrap();
        let matrix: Value = serde_json::from_str(&text).unwrap();
        for pair in matrix["data"]["result"][0]["values"].as_array().unwrap() {
            rows.insert(pair[0].as_u64().unwrap() * 1000, vec![thousandths(pair[1].as_str().unwrap())]);
        }
    }
    let times: Vec<u64> = rows.keys().copied().collect();
    let mut steps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    steps.sort_unstable();
    let args = &expect["args"];
    Case {
        step_ms: steps[steps.len() / 2],
        rows,
        requests: Requests::of(quantity(&args["request"])).with(1, quantity(&args["memory_request"])),
        initial: u32::try_from(args["initial"].as_u64().unwrap()).unwrap(),
        startup_ms: args["startup_s"].as_u64().unwrap_or(0) * 1000,
        until: instant(args["until"].as_str().unwrap()),
        capacity: args["capacity"].as_f64().and_then(Milli::from_f64).map(Milli::as_thousandths),
        expect,
    }
}

impl Case {
    fn start(&self) -> u64 {
        *self.rows.keys().next().unwrap()
    }

    /// A row holds, for less than two steps.
    fn value(&self, at: u64, column: usize) -> Option<i64> {
        let (row, values) = self.rows.range(..=at).next_back()?;
        values[column].filter(|_| at - row < 2 * self.step_ms)
    }

    fn samples(&self, at: u64, column: usize, pods: &[Pod], samples: &mut Vec<PodSample>) {
        let Some(load) = self.value(at, column) else { return };
        let ready: Vec<u32> =
            pods.iter().filter(|pod| matches!(pod.ready, ReadyCondition::Ready(_))).map(|pod| pod.id).collect();
        // CPU is a load that ready pods share; memory is of each pod, however many there are.
        let each = if column == 0 { load / i64::try_from(ready.len().max(1)).unwrap() } else { load };
        let now = Timestamp::from_millis(at);
        samples.extend(ready.into_iter().map(|pod| PodSample { pod, value: each, at: now, window_ms: PASS_MS }));
    }
}

/// Drives the original's pass by hand, over pods of its own.
fn by_hand(manifest: &Manifest, case: &Case) -> Vec<(u64, u32)> {
    let rules = |pace: &Pace| {
        let rate = pace.rate.clone().unwrap();
        Rules { select: rate.select, policies: rate.policies, stabilization_ms: pace.stabilize_ms }
    };
    let unset = manifest.behavior == Behavior::kubernetes_unset();
    let spec = Spec {
        min: manifest.bounds.0,
        max: manifest.bounds.1,
        metrics: manifest.metrics.clone(),
        behavior: (!unset).then(|| (rules(&manifest.behavior.out), rules(&manifest.behavior.inward))),
        ..Spec::default()
    };
    let mut state = hpa::State::default();
    let long_ago = case.start() - 86_400_000;
    // Created and ready.
    let mut pods: Vec<(u32, u64, u64)> = (0..case.initial).map(|id| (id, long_ago, long_ago)).collect();
    let (mut current, mut changes, mut next_id) = (case.initial, vec![], case.initial);
    let mut now = case.start();
    while now < case.until {
        let at = Timestamp::from_millis(now);
        let seen: Vec<Pod> = pods
            .iter()
            .map(|(id, created, ready)| Pod {
                id: *id,
                phase: if *ready <= now { Phase::Running } else { Phase::Pending },
                ready: if *ready <= now {
                    ReadyCondition::Ready(Timestamp::from_millis(*ready))
                } else {
                    ReadyCondition::NotReady(Timestamp::from_millis(*created))
                },
                started: Some(Timestamp::from_millis(*created)),
                deletion: Deletion::None,
                requests: case.requests,
            })
            .collect();
        let mut of_pods: Vec<Vec<PodSample>> = vec![];
        let mut values: Vec<Option<i64>> = vec![];
        for column in 0..manifest.metrics.len() {
            let mut samples = vec![];
            case.samples(now, column, &seen, &mut samples);
            of_pods.push(samples);
            values.push(case.value(now, column));
        }
        let measured: Vec<Measured<'_>> = manifest
            .metrics
            .iter()
            .enumerate()
            .map(|(column, metric)| match (metric.kind, &values[column]) {
                (_, None) => Measured::Failed,
                (Kind::Value, Some(value)) => Measured::Values(std::slice::from_ref(value)),
                _ => Measured::Pods(&of_pods[column]),
            })
            .collect();
        let view = View { spec_replicas: current, status_replicas: current, pods: Pods(&seen), measured: &measured };
        let (replicas, _, next) = reconcile(&spec, &state, &view, at);
        state = next;
        for _ in current..replicas {
            pods.push((next_id, now, now + case.startup_ms));
            next_id += 1;
        }
        for _ in replicas..current {
            // Those that are not ready go first, then the youngest.
            let goes = pods.iter().rposition(|(_, _, ready)| *ready > now).unwrap_or(pods.len() - 1);
            pods.remove(goes);
        }
        if replicas != current {
            changes.push((now, replicas));
        }
        current = replicas;
        now += PASS_MS;
    }
    changes
}

/// The trace as the world of a rehearsal.
struct Trace<'a>(&'a Case, Vec<(u64, u32)>);

impl World for Trace<'_> {
    fn measure(&mut self, at: Timestamp, _: GroupId, metric: MetricId, _: u32) -> Option<Milli> {
        self.0.value(at.as_millis(), usize::from(metric.0)).map(Milli::from_thousandths)
    }

    fn measure_pods(&mut self, at: Timestamp, _: GroupId, metric: MetricId, pods: Pods<'_>, out: &mut Vec<PodSample>) {
        self.0.samples(at.as_millis(), usize::from(metric.0), pods.0, out);
    }

    fn requests(&mut self, _: GroupId) -> Requests {
        self.0.requests
    }

    fn start_size(&mut self, _: GroupId) -> Option<u32> {
        Some(self.0.initial)
    }

    fn needed(&mut self, at: Timestamp, _: GroupId) -> u32 {
        let Some(capacity) = self.0.capacity else { return 0 };
        let load = self.0.value(at.as_millis(), 0).unwrap_or(0);
        u32::try_from((load + capacity - 1) / capacity).unwrap()
    }

    fn decided(&mut self, at: Timestamp, moves: &[Move]) {
        self.1.extend(moves.iter().map(|moved| (at.as_millis(), moved.after)));
    }
}

fn engine(manifest: &Manifest) -> Engine {
    let mut engine = Engine::new(Config::builder().tick_ms(PASS_MS).build().unwrap());
    let now = Timestamp::ZERO;
    let (kind, watermark, stock) = (PoolKind::Resident, Watermark::default(), vec![(ShapeId(1), 1_000)]);
    engine.put_pool(now, Pool { id: PoolId(1), kind, idc: IdcId(1), price: 1, watermark, stock }).unwrap();
    engine.put_release(now, ReleaseId(1), VersionId(1));
    let ids = || (0..).zip(&manifest.metrics);
    let rule = |(id, metric): (u16, &hpa::Metric)| Rule {
        id: RuleId(id),
        kind: RuleKind::Metric(MetricId(id), Strategy::Hpa(Hpa { guard: Guard::Off, ..Hpa::new(*metric) })),
    };
    // Only what was measured in this very pass counts.
    let metric = |id| Metric { id: MetricId(id), stale_after_ms: 1, when_stale: Staleness::ForbidIn };
    let policy = Policy {
        min: manifest.bounds.0,
        max: manifest.bounds.1,
        metrics: ids().map(|(id, _)| metric(id)).collect(),
        rules: ids().map(rule).collect(),
        behavior: manifest.behavior.clone(),
        ..Policy::default()
    };
    let (tenant, release, shape) = (TenantId(1), ReleaseId(1), ShapeId(1));
    engine.put_group(now, Traffic { id: GroupId(1), idcs: vec![], tenant, release, shape }, policy).unwrap();
    engine
}

#[test]
fn a_rehearsal_of_a_manifest_is_the_originals_pass_for_pass() {
    for manifest in manifests() {
        let case = load(manifest.case);
        let expected: Vec<(u64, u32)> = case.expect["expect"]["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| (instant(change[0].as_str().unwrap()), u32::try_from(change[1].as_u64().unwrap()).unwrap()))
            .collect();
        assert_eq!(by_hand(&manifest, &case), expected, "{} by hand", manifest.case);
        for skip in [Skip::Proven, Skip::Nothing] {
            let run = Rehearsal {
                from: Timestamp::from_millis(case.start()),
                until: Timestamp::from_millis(case.until),
                sample_ms: PASS_MS,
                start_ms: case.startup_ms,
                skip,
                timeline: Timeline::Rows,
                ..Rehearsal::default()
            };
            let mut trace = Trace(&case, vec![]);
            let report = engine(&manifest).rehearse(run, &mut trace);
            assert_eq!(trace.1, expected, "{} rehearsed", manifest.case);
            let expect = &case.expect["expect"];
            assert_eq!(
                report.instance_ms() / 1000,
                u128::from(expect["pod_seconds"].as_u64().unwrap()),
                "{}",
                manifest.case
            );
            if let Some(short) = expect["short_seconds"].as_u64() {
                assert_eq!(report.shortage_ms / 1000, short, "{}", manifest.case);
                assert!(report.short_instance_ms > u128::from(report.shortage_ms), "short of more than one");
            }
            let rows = &report.timeline;
            assert_eq!(
                rows[0].wanted,
                expected.first().map_or(case.initial, |first| if first.0 == case.start() {
                    first.1
                } else {
                    case.initial
                })
            );
            assert_eq!(rows.last().unwrap().wanted, u32::try_from(expect["final"].as_u64().unwrap()).unwrap());
            assert!(
                rows.windows(2)
                    .all(|two| two[0].at < two[1].at && two[0].short_instance_ms <= two[1].short_instance_ms)
            );
            assert!(
                rows.iter()
                    .all(|row| row.pools.iter().map(|(_, count)| count).sum::<u32>() == row.ready + row.starting)
            );
            assert!(case.startup_ms == 0 || rows.iter().any(|row| row.starting > 0 && row.reason.is_some()));
        }
    }
}
