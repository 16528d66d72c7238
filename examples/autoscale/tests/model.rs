//! Random manifests on random days: the program does what a naive second reading of the same rules does, change for change.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/naive.rs"]
#[allow(
    unreachable_pub,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::wildcard_enum_match_arm,
    reason = "a model is to be read, and its numbers are small"
)]
mod naive;

use std::fmt::Write as _;
use std::process::Command;

use naive::{Keda, Kind, Metric, Rules, START, Scenario, Target};
use serde_json::Value;

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// A scenario, its manifest, and the options that bind its columns.
fn scenario(dice: &mut Dice) -> (Scenario, String, Vec<String>) {
    let step = dice.pick(&[15, 30, 60, 60, 90]);
    let count = 8 + dice.below(30);
    let (mut rows, mut values) = (Vec::new(), [1.5, 20.0]);
    for row in 0..count {
        for (value, heights) in values.iter_mut().zip([[0.0, 0.2, 1.0, 3.3, 8.0], [0.0, 5.0, 40.0, 61.7, 100.0]]) {
            if dice.below(4) == 0 {
                *value = dice.pick(&heights);
            }
        }
        let seen = values.map(|value| Some(value).filter(|_| dice.below(16) > 0));
        if row < 3 || dice.below(12) > 0 {
            rows.push((START + row * step, seen));
        }
    }
    let mut steps: Vec<u64> = rows.windows(2).map(|two| two[1].0 - two[0].0).collect();
    steps.sort_unstable();
    let behavior = (dice.below(2) == 0).then(|| (rules(dice, &[0, 0, 30, 120]), rules(dice, &[0, 60, 120, 300])));
    let mut plan = Scenario {
        step: steps[steps.len() / 2],
        rows,
        until: START + count * step + dice.below(100),
        initial: i64::try_from(dice.below(9)).unwrap(),
        startup: dice.pick(&[0, 0, 20, 30, 60, 120]),
        bounds: (1 + i64::try_from(dice.below(3)).unwrap(), dice.pick(&[6, 10, 30])),
        metrics: vec![],
        behavior,
        keda: None,
        capacity: None,
    };
    let (manifest, options) = if dice.below(2) == 0 { hpa(dice, &mut plan) } else { keda(dice, &mut plan) };
    (plan, manifest, options)
}

fn rules(dice: &mut Dice, windows: &[u64]) -> Rules {
    let policy =
        |dice: &mut Dice| (dice.below(2) == 0, dice.pick(&[1, 2, 4, 10, 50, 100]), dice.pick(&[15, 30, 60, 120]));
    let policies = (0..=dice.below(2)).map(|_| policy(dice)).collect();
    Rules { window: dice.pick(windows), select: dice.pick(&["Max", "Max", "Min", "Disabled"]), policies }
}

fn behavior_text(plan: &Scenario, indent: &str) -> String {
    let Some((up, down)) = &plan.behavior else { return String::new() };
    let mut text = format!("{indent}behavior:\n");
    for (name, rules) in [("scaleUp", up), ("scaleDown", down)] {
        let policies: Vec<String> = rules
            .policies
            .iter()
            .map(|(percent, value, period)| {
                let kind = if *percent { "Percent" } else { "Pods" };
                format!("{{type: {kind}, value: {value}, periodSeconds: {period}}}")
            })
            .collect();
        writeln!(
            text,
            "{indent}  {name}: {{stabilizationWindowSeconds: {}, selectPolicy: {}, policies: [{}]}}",
            rules.window,
            rules.select,
            policies.join(", ")
        )
        .unwrap();
    }
    text
}

fn hpa(dice: &mut Dice, plan: &mut Scenario) -> (String, Vec<String>) {
    let (min, max) = plan.bounds;
    let mut text = format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: w}}\nspec:\n  scaleTargetRef: {{kind: Deployment, name: w}}\n  minReplicas: {min}\n  maxReplicas: {max}\n"
    );
    text.push_str(&behavior_text(plan, "  "));
    text.push_str("  metrics:\n");
    let mut options: Vec<String> = Vec::new();
    let mut put = |words: &[&str]| options.extend(words.iter().map(|word| (*word).to_owned()));
    let both = dice.below(3);
    if both == 1 {
        put(&["--capacity", "unlimited"]);
    } else {
        let (percent, request) = (dice.pick(&[50, 70, 80]), dice.pick(&[250, 500, 1_000]));
        plan.metrics.push(Metric { kind: Kind::Cpu, target: Target::Utilization(percent, request) });
        writeln!(text, "  - {{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: {percent}}}}}}}").unwrap();
        put(&["--load", "cpu=a", "--request", &format!("cpu={request}m")]);
        let each = dice.pick(&[0.25, 0.4, 1.0]);
        plan.capacity = Some(each);
        put(&["--capacity", &each.to_string()]);
    }
    if both != 0 {
        let number = dice.pick(&[2, 5, 20]);
        let (target, words) = if dice.below(3) > 0 {
            (Target::Average(number), format!("type: AverageValue, averageValue: {number}"))
        } else {
            (Target::Value(number), format!("type: Value, value: {number}"))
        };
        plan.metrics.push(Metric { kind: Kind::Total { column: 1 }, target });
        writeln!(text, "  - {{type: External, external: {{metric: {{name: depth}}, target: {{{words}}}}}}}").unwrap();
        put(&["--open-loop", "depth=b"]);
    }
    (text, options)
}

fn keda(dice: &mut Dice, plan: &mut Scenario) -> (String, Vec<String>) {
    let min = dice.pick(&[0, 0, 1, 2]);
    let idle = (min > 0 && dice.below(2) == 0).then_some(0);
    let mut keda = Keda {
        min,
        idle,
        poll: dice.pick(&[5, 10, 30, 30, 45]),
        cooldown: dice.pick(&[0, 30, 60, 120, 300]),
        initial_cooldown: dice.pick(&[0, 0, 60]),
        fallback: None,
    };
    plan.bounds.0 = min.max(1);
    let mut options = vec!["--capacity".to_owned(), "unlimited".into()];
    let mut triggers = String::new();
    for place in 0..=dice.below(2) {
        let kind = dice.below(4);
        if kind == 0 && place == 0 {
            let (number, rate) = (dice.pick(&[5, 20]), dice.pick(&[0.5, 1.0, 2.0]));
            plan.metrics.push(Metric { kind: Kind::Queue { rate }, target: Target::Average(number) });
            writeln!(
                triggers,
                "  - {{type: rabbitmq, metadata: {{queueName: q, mode: QueueLength, value: '{number}'}}}}"
            )
            .unwrap();
            options.extend([
                "--backlog".into(),
                format!("s{place}=a"),
                "--service-rate".into(),
                format!("s{place}={rate}"),
            ]);
        } else if kind == 1 {
            let (from, replicas) = (dice.below(10), dice.pick(&[2, 5, 9]));
            let until = from + 1 + dice.below(9);
            let window = Kind::Cron { from: 28_800 + from * 60, until: 28_800 + until * 60, replicas };
            plan.metrics.push(Metric { kind: window, target: Target::Average(1) });
            writeln!(triggers, "  - {{type: cron, metadata: {{timezone: Etc/UTC, start: '{from} 8 * * *', end: '{until} 8 * * *', desiredReplicas: '{replicas}'}}}}").unwrap();
        } else {
            let (number, activation) = (dice.pick(&[2, 10, 25]), dice.pick(&[0, 0, 5, 30]));
            let (zero, column) = (dice.below(2) == 0, dice.below(2));
            let (kind, target) = if dice.below(3) > 0 {
                ("AverageValue", Target::Average(number))
            } else {
                ("Value", Target::Value(number))
            };
            plan.metrics.push(Metric {
                kind: Kind::Prometheus { column: usize::try_from(column).unwrap(), zero, activation },
                target,
            });
            writeln!(triggers, "  - {{type: prometheus, metricType: {kind}, metadata: {{serverAddress: x, query: sum(y), threshold: '{number}', activationThreshold: '{activation}', ignoreNullValues: '{zero}'}}}}").unwrap();
            options
                .extend(["--open-loop".into(), format!("s{place}={}", ["a", "b"][usize::try_from(column).unwrap()])]);
        }
    }
    let behaviors = ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"];
    if dice.below(2) == 0 {
        keda.fallback = Some((dice.pick(&[0, 1, 3]), dice.pick(&[0, 2, 6]), dice.pick(&behaviors)));
    }
    let mut text = format!(
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: w}}\nspec:\n  scaleTargetRef: {{name: w}}\n  minReplicaCount: {min}\n  maxReplicaCount: {}\n  pollingInterval: {}\n  cooldownPeriod: {}\n  initialCooldownPeriod: {}\n",
        plan.bounds.1, keda.poll, keda.cooldown, keda.initial_cooldown
    );
    if idle.is_some() {
        text.push_str("  idleReplicaCount: 0\n");
    }
    if let Some((threshold, replicas, behavior)) = keda.fallback {
        writeln!(text, "  fallback: {{failureThreshold: {threshold}, replicas: {replicas}, behavior: {behavior}}}")
            .unwrap();
    }
    if plan.behavior.is_some() {
        write!(text, "  advanced:\n    horizontalPodAutoscalerConfig:\n{}", behavior_text(plan, "      ")).unwrap();
    }
    plan.keda = Some(keda);
    (format!("{text}  triggers:\n{triggers}"), options)
}

/// The second of `2026-06-01T08:00:15Z`, a time on the day of the start.
fn second(at: &str) -> u64 {
    let number = |from: usize| at[from..from + 2].parse::<u64>().unwrap();
    START + (number(11) - 8) * 3_600 + number(14) * 60 + number(17)
}

#[test]
fn a_naive_model_comes_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (mut changes, mut short) = (0, 0);
    let seeds = std::env::var("TENON_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    for seed in 1..=seeds {
        let (plan, manifest, options) = scenario(&mut Dice(seed));
        let text = |value: &Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let rows: Vec<String> =
            plan.rows.iter().map(|(at, values)| format!("{at},{},{}", text(&values[0]), text(&values[1]))).collect();
        std::fs::write(folder.path().join("m.yaml"), &manifest).unwrap();
        std::fs::write(folder.path().join("t.csv"), format!("time,a,b\n{}\n", rows.join("\n"))).unwrap();
        let done = Command::new(env!("CARGO_BIN_EXE_autoscale"))
            .current_dir(folder.path())
            .args(["rehearse", "--policy", "m.yaml", "--trace", "t.csv", "--output", "json", "--between", "held"])
            .args(["--metric-lag", "0s", "--stop", "0s", "--warm-up", "0s", "--start", &format!("{}s", plan.startup)])
            .args(["--initial", &plan.initial.to_string(), "--until", &plan.until.to_string()])
            .args(&options)
            .output()
            .unwrap();
        assert!(done.status.success(), "seed {seed}: {}\n{manifest}", String::from_utf8_lossy(&done.stderr));
        let found: Value = serde_json::from_slice(&done.stdout).unwrap();
        let held = &found["autoscalers"][0];
        let own: Vec<(u64, i64, &str)> = held["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| {
                let (at, by) = (change["at"].as_str().unwrap(), change["by"].as_str().unwrap());
                (second(at), change["size"].as_i64().unwrap(), by)
            })
            .collect();
        let (expected, pod_seconds, short_seconds) = naive::play(&plan);
        assert_eq!(own, expected, "seed {seed}: {options:?}\n{manifest}");
        let sum = |name: &str| held["sums"][name].as_f64().unwrap_or(0.0).round().to_string();
        assert_eq!(sum("pod_seconds"), pod_seconds.to_string(), "seed {seed}\n{manifest}");
        assert_eq!(sum("short_seconds"), short_seconds.to_string(), "seed {seed}\n{manifest}");
        (changes, short) = (changes + expected.len(), short + u32::from(short_seconds > 0));
    }
    assert!(changes > 1_000 && short > 50, "{changes} changes, {short} were short");
}
