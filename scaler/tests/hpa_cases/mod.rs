//! The parts of the original's decision, and whole passes.

use serde_json::Value;
use tenon_scaler::hpa::{
    Bound, Deletion, Event, Events, Kind, Measured, Metric, Outcome, Phase, Pod, PodSample, Pods, Policy, PolicyKind,
    ReadyCondition, Recommendation, Requests, Rules, Select, Spec, State, Tolerance, View, classify, limit_by_policies,
    limit_default, propose, rate_limit, reconcile, stabilize_behavior, stabilize_default,
};
use tenon_scaler::{Direction, Timestamp};

use crate::{count, int};

/// Now, far enough from the epoch that the epoch is "old".
const NOW: Timestamp = Timestamp::from_millis(2_000_000_000_000);
const EPOCH: Timestamp = Timestamp::ZERO;

pub(crate) fn run(case: &Value) {
    let expect = &case["expect"];
    match case["fn"].as_str().unwrap() {
        "replica_calculator" => replica_calculator(case),
        "classify_pods" => classify_pods(case),
        "limit_by_policies" => {
            let bounds = (count(&case["min"]), count(&case["max"]));
            let up = rules(&case["scale_up_rules"]).unwrap_or_else(default_up);
            let down = rules(&case["scale_down_rules"]).unwrap_or_else(default_down);
            let (ups, downs) = (events(&case["scale_up_events"]), events(&case["scale_down_events"]));
            let (current, desired) = (count(&case["current"]), count(&case["desired"]));
            let limited = limit_by_policies(current, desired, bounds, (&up, &down), (&ups, &downs), NOW);
            assert_eq!(limited.replicas, count(&expect["replicas"]));
            reason(limited.bound, &expect["reason"]);
        }
        "rate_limit" => {
            let up = case["direction"] == "up";
            let rules = rules(&case["rules"]).unwrap();
            let (held, none) = (events(&case["events"]), Events::default());
            let both = if up { (&held, &none) } else { (&none, &held) };
            let direction = if up { Direction::Out } else { Direction::In };
            let limit = rate_limit(direction, count(&case["current"]), &rules, both, NOW);
            assert_eq!(limit, count(&expect["limit"]));
        }
        "limit_default" => {
            let bounds = (count(&case["min"]), count(&case["max"]));
            let growth = (count(&case["scale_up_factor"]), count(&case["scale_up_minimum"]));
            let limited = limit_default(count(&case["current"]), count(&case["desired"]), bounds, growth);
            assert_eq!(limited.replicas, count(&expect["replicas"]));
            reason(limited.bound, &expect["reason"]);
        }
        "stabilize_default" => {
            let mut log = recommendations(&case["history"]);
            let got = stabilize_default(count(&case["desired"]), millis(&case["downscale_window_s"]), &mut log, NOW);
            assert_eq!(got, count(&expect["replicas"]));
            assert_eq!(log.len(), count(&expect["history_len"]) as usize);
        }
        "stabilize_behavior" => {
            let mut log = recommendations(&case["history"]);
            let windows = (millis(&case["up_window_s"]), millis(&case["down_window_s"]));
            let got = stabilize_behavior(count(&case["current"]), count(&case["desired"]), windows, &mut log, NOW);
            assert_eq!(got, count(&expect["replicas"]));
            let log: Vec<u32> = log.iter().map(|held| held.replicas).collect();
            assert_eq!(log, expect["history"].as_array().unwrap().iter().map(count).collect::<Vec<_>>());
        }
        "store_scale_event" => {
            let mut held = events(&case["history"]);
            assert_eq!(held.within(millis(&case["sum_period_s"]), NOW), int(&expect["sum_before"]));
            if let Some(rules) = rules(&case["rules"]) {
                held.store(count(&case["new_change"]), &rules.policies, NOW);
            }
            let got: Vec<_> = held.0.iter().map(|event| (event.change, event.outdated)).collect();
            let expected = expect["history"].as_array().unwrap().iter();
            let expected: Vec<_> =
                expected.map(|event| (count(&event["change"]), event["outdated"].as_bool().unwrap())).collect();
            assert_eq!(got, expected);
        }
        "reconcile" => whole_pass(case),
        other => panic!("unknown function {other}"),
    }
}

fn reason(bound: Bound, expect: &Value) {
    if let Some(expect) = expect.as_str() {
        assert_eq!(format!("{bound:?}"), expect);
    }
}

fn millis(seconds: &Value) -> u64 {
    u64::try_from(int(seconds)).unwrap() * 1000
}

fn ago(age: &Value) -> Option<Timestamp> {
    age.as_i64().map(|age| Timestamp::from_millis(NOW.as_millis() - u64::try_from(age).unwrap() * 1000))
}

fn rules(value: &Value) -> Option<Rules> {
    let policies = value["policies"].as_array()?.iter().map(|policy| Policy {
        kind: match policy["type"].as_str().unwrap() {
            "pods" => PolicyKind::Pods,
            "percent" => PolicyKind::Percent,
            other => panic!("unknown policy {other}"),
        },
        value: count(&policy["value"]),
        period_ms: millis(&policy["period_s"]),
    });
    let select = match value["select"].as_str().unwrap_or("max") {
        "max" => Select::Max,
        "min" => Select::Min,
        "disabled" => Select::Disabled,
        other => panic!("unknown selection {other}"),
    };
    Some(Rules { select, policies: policies.collect(), stabilization_ms: millis(&value["stabilization_s"]) })
}

fn events(value: &Value) -> Events {
    let event = |event: &Value| Event {
        change: count(&event["change"]),
        at: ago(&event["age_s"]).unwrap(),
        outdated: event["outdated"].as_bool().unwrap_or(false),
    };
    Events(value.as_array().unwrap().iter().map(event).collect())
}

fn recommendations(value: &Value) -> Vec<Recommendation> {
    let one =
        |held: &Value| Recommendation { replicas: count(&held["recommendation"]), at: ago(&held["age_s"]).unwrap() };
    value.as_array().unwrap().iter().map(one).collect()
}

fn tolerance(value: &Value) -> Tolerance {
    let millionths = |value: &Value| format!("{:.0}", value.as_f64().unwrap_or(0.1) * 1e6).parse().unwrap();
    if value.is_object() {
        let (up_millionths, down_millionths) = (millionths(&value["scale_up"]), millionths(&value["scale_down"]));
        return Tolerance { up_millionths, down_millionths };
    }
    Tolerance { up_millionths: millionths(value), down_millionths: millionths(value) }
}

fn phase(value: &Value) -> Phase {
    match value.as_str().unwrap_or("running") {
        "pending" => Phase::Pending,
        "running" => Phase::Running,
        "succeeded" => Phase::Succeeded,
        "failed" => Phase::Failed,
        other => panic!("unknown phase {other}"),
    }
}

fn deletion(value: &Value) -> Deletion {
    if value.as_bool() == Some(true) { Deletion::Begun } else { Deletion::None }
}

/// The place of a pod's name among the pods, or after them: `pod-3` is 3.
fn name(pods: &Value, name: &str) -> u32 {
    let place = pods.as_array().unwrap().iter().position(|pod| pod["name"] == name);
    let number = || name.rsplit('-').next().unwrap().parse::<usize>().unwrap();
    u32::try_from(place.unwrap_or_else(number)).unwrap()
}

fn kind(metric: &Value) -> Option<Kind> {
    let cpu = metric["resource"].as_str().is_none_or(|resource| resource == "cpu");
    Some(match metric["kind"].as_str().unwrap() {
        "resource_utilization" | "container_resource_utilization" if cpu => Kind::CpuUtilization,
        "resource_utilization" | "container_resource_utilization" => Kind::Utilization,
        "resource_average_value" | "container_resource_average_value" if cpu => Kind::CpuAverage,
        "resource_average_value" | "container_resource_average_value" | "pods_average_value" => Kind::PodsAverage,
        "object_value" | "external_value" => Kind::Value,
        "object_average_value" | "external_average_value" => Kind::AverageValue,
        "invalid" => return None,
        other => panic!("unknown kind {other}"),
    })
}

fn target(metric: &Value) -> i64 {
    metric["target_percent"].as_i64().unwrap_or_else(|| int(&metric["target_milli"]))
}

fn replica_calculator(case: &Value) {
    let (metric, expect) = (&case["metric"], &case["expect"]);
    let container = metric["container"].as_str();
    let whole_pod = if container.is_some() { 1 } else { 2 };
    let pods: Vec<Pod> = (0..)
        .zip(case["pods"].as_array().unwrap())
        .map(|(id, pod)| {
            let started = ago(&pod["age_s"]).unwrap_or(EPOCH);
            Pod {
                id,
                phase: phase(&pod["phase"]),
                // The transition is at the epoch, so is the sample; the window is 60 s.
                ready: if pod["ready"] == true {
                    ReadyCondition::Ready(EPOCH)
                } else {
                    ReadyCondition::NotReady(EPOCH)
                },
                started: Some(started),
                deletion: deletion(&pod["deleting"]),
                requests: Requests::of(pod["request_milli_per_container"].as_i64().map(|request| request * whole_pod)),
            }
        })
        .collect();
    let of_container = |sample: &Value| -> i64 {
        if let Some(value) = sample["milli"].as_i64() {
            return value;
        }
        let parts = sample["container_milli"].as_array().unwrap();
        match container {
            Some(name) => int(&parts[name.trim_start_matches("container").parse::<usize>().unwrap() - 1]),
            None => parts.iter().map(int).sum(),
        }
    };
    let mut samples: Vec<PodSample> = metric["samples"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|sample| PodSample {
            pod: name(&case["pods"], sample["pod"].as_str().unwrap()),
            value: of_container(sample),
            at: EPOCH,
            window_ms: 60_000,
        })
        .collect();
    samples.sort_by_key(|sample| sample.pod);
    let values: Vec<i64> = metric["values_milli"].as_array().into_iter().flatten().map(int).collect();
    let kind = kind(metric).unwrap();
    let measured = match kind {
        Kind::Value | Kind::AverageValue => Measured::Values(&values),
        Kind::CpuUtilization | Kind::Utilization | Kind::CpuAverage | Kind::PodsAverage => Measured::Pods(&samples),
    };
    let current = count(&case["current_replicas"]);
    let view = View { spec_replicas: current, status_replicas: current, pods: Pods(&pods), measured: &[measured] };
    let spec = Spec { tolerance: tolerance(&case["tolerance"]), ..spec(case) };
    let outcome = propose(&spec, &Metric::new(kind, target(metric)), measured, &view, NOW);
    if let Some(text) = expect["error_contains"].as_str() {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(text) || same_meaning(&error, text), "{error:?}, not {text:?}");
        return;
    }
    let got = outcome.unwrap();
    assert_eq!(got.replicas, count(&expect["replicas"]));
    if let Some(percent) = expect["utilization_percent"].as_i64() {
        assert_eq!(got.utilization_percent, Some(percent));
    }
    if let Some(usage) = expect["average_milli"].as_i64().or(expect["usage_milli"].as_i64()) {
        assert_eq!(got.usage, usage);
    }
}

/// The original has said the same in other words from release to release.
fn same_meaning(error: &str, text: &str) -> bool {
    let alike =
        [["did not receive metrics", "did not receive metrics"], ["unable to get metrics", "unable to get metric"]];
    alike.iter().any(|[ours, theirs]| error.contains(ours) && text.contains(theirs))
        || (text.contains("no metrics") && error.contains("metrics"))
}

fn spec(case: &Value) -> Spec {
    let or = |key: &str, default: u64| case[key].as_u64().map_or(default, |seconds| seconds * 1000);
    Spec {
        min: count(&case["min"]),
        max: count(&case["max"]),
        cpu_initialization_ms: or("cpu_initialization_period_s", 120_000),
        initial_readiness_ms: or("delay_of_initial_readiness_s", 10_000),
        ..Spec::default()
    }
}

fn classify_pods(case: &Value) {
    let pods: Vec<Pod> = (0..)
        .zip(case["pods"].as_array().unwrap())
        .map(|(id, pod)| {
            let condition = &pod["ready_condition"];
            let since = ago(&condition["last_transition_age_s"]).unwrap_or(EPOCH);
            Pod {
                id,
                phase: phase(&pod["phase"]),
                ready: match condition["status"].as_bool() {
                    None => ReadyCondition::Absent,
                    Some(true) => ReadyCondition::Ready(since),
                    Some(false) => ReadyCondition::NotReady(since),
                },
                started: ago(&pod["age_s"]),
                deletion: deletion(&pod["deleting"]),
                requests: Requests::default(),
            }
        })
        .collect();
    let names: Vec<&str> = case["pods"].as_array().unwrap().iter().map(|pod| pod["name"].as_str().unwrap()).collect();
    let mut samples: Vec<PodSample> = case["metrics"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(pod, sample)| {
            Some(PodSample {
                pod: u32::try_from(names.iter().position(|name| name == pod)?).unwrap(),
                value: int(&sample["value"]),
                at: ago(&sample["sample_age_s"]).unwrap_or(EPOCH),
                window_ms: millis(&sample["window_s"]),
            })
        })
        .collect();
    samples.sort_by_key(|sample| sample.pod);
    let kind = if case["resource"].as_str() == Some("cpu") { Kind::CpuUtilization } else { Kind::PodsAverage };
    let classes = classify(&spec(case), kind, Pods(&pods), &samples, NOW);
    let expect = &case["expect"];
    let check = |got: &[u32], expected: &Value, what: &str| {
        let mut got: Vec<&str> = got.iter().map(|id| names[*id as usize]).collect();
        let mut expected: Vec<&str> = expected.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "{what}");
    };
    assert_eq!(classes.ready, count(&expect["ready_count"]) as usize);
    check(&classes.unready, &expect["unready"], "unready");
    check(&classes.missing, &expect["missing"], "missing");
    check(&classes.ignored, &expect["ignored"], "ignored");
}

fn whole_pass(case: &Value) {
    let pods_of_case = case["pods"].as_array().unwrap();
    let levels: Vec<i64> = case["levels_milli"].as_array().unwrap().iter().map(int).collect();
    let pods: Vec<Pod> = (0..)
        .zip(pods_of_case)
        .map(|(id, pod)| {
            let started = ago(&pod["age_s"]).unwrap_or(EPOCH);
            let since = ago(&pod["ready_transition_age_s"]).unwrap_or(started);
            Pod {
                id,
                phase: phase(&pod["phase"]),
                ready: if pod["ready"] == true {
                    ReadyCondition::Ready(since)
                } else {
                    ReadyCondition::NotReady(since)
                },
                started: Some(started),
                deletion: deletion(&pod["deleting"]),
                requests: Requests::of(pod["request_milli"].as_i64()),
            }
        })
        .collect();
    let failing: Vec<&str> =
        case["failing_sources"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let specs = case["metrics"].as_array().unwrap();
    let metrics: Vec<Metric> =
        specs.iter().map(|metric| Metric::new(kind(metric).unwrap_or(Kind::Value), target(metric))).collect();
    let samples: Vec<Vec<PodSample>> = metrics
        .iter()
        .map(|metric| {
            let halved = matches!(metric.kind, Kind::CpuUtilization | Kind::Utilization | Kind::CpuAverage);
            // A pod's use is that of two containers, each of which has half of it in whole thousandths.
            let value = |level: i64| if halved { level / 2 * 2 } else { level };
            (0..)
                .zip(&levels)
                .map(|(pod, level)| PodSample { pod, value: value(*level), at: NOW, window_ms: 60_000 })
                .collect()
        })
        .collect();
    let measured: Vec<Measured<'_>> = specs
        .iter()
        .zip(&metrics)
        .zip(&samples)
        .map(|((spec, metric), samples)| {
            let source = spec["kind"].as_str().unwrap();
            if source == "invalid" || failing.iter().any(|name| source.starts_with(name) || source_of(source) == *name)
            {
                return Measured::Failed;
            }
            match (metric.kind, source.starts_with("object")) {
                (Kind::Value | Kind::AverageValue, true) => Measured::Values(&levels[..levels.len().min(1)]),
                (Kind::Value | Kind::AverageValue, false) => Measured::Values(&levels),
                (_, _) => Measured::Pods(samples),
            }
        })
        .collect();
    let behavior = match (rules(&case["scale_up_rules"]), rules(&case["scale_down_rules"])) {
        (None, None) => None,
        (up, down) => Some((up.unwrap_or_else(default_up), down.unwrap_or_else(default_down))),
    };
    let spec = Spec {
        metrics,
        behavior,
        tolerance: tolerance(&case["tolerance"]),
        downscale_window_ms: millis(&case["downscale_window_s"]),
        scale_up_factor: count(&case["scale_up_factor"]),
        scale_up_minimum: count(&case["scale_up_minimum"]),
        ..spec(case)
    };
    let history = &case["history"];
    let state = State { recommendations: history.is_array().then(|| recommendations(history)), ..State::default() };
    let view = View {
        spec_replicas: count(&case["spec_replicas"]),
        status_replicas: count(&case["status_replicas"]),
        pods: Pods(&pods),
        measured: &measured,
    };
    let (replicas, outcome, _) = reconcile(&spec, &state, &view, NOW);
    assert_eq!(replicas, count(&case["expect"]["replicas"]), "{outcome:?}");
    assert!(!matches!(outcome, Outcome::Disabled) || replicas == 0);
}

/// The source that a kind of metric comes from.
fn source_of(kind: &str) -> &str {
    match kind {
        "pods_average_value" | "object_value" | "object_average_value" => "custom",
        "external_value" | "external_average_value" => "external",
        _ => "resource",
    }
}

fn default_up() -> Rules {
    let policy = |kind, value| Policy { kind, value, period_ms: 15_000 };
    let policies = vec![policy(PolicyKind::Pods, 4), policy(PolicyKind::Percent, 100)];
    Rules { select: Select::Max, policies, stabilization_ms: 0 }
}

fn default_down() -> Rules {
    let policies = vec![Policy { kind: PolicyKind::Percent, value: 100, period_ms: 15_000 }];
    Rules { select: Select::Max, policies, stabilization_ms: 300_000 }
}
