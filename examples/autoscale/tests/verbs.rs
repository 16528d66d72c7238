//! `compare`, `lint`, streams of several documents, exit codes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

const HPA: &str = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web, namespace: shop}\nspec:\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 1\n  maxReplicas: 20\n  metrics:\n  - type: Resource\n    resource:\n      name: cpu\n      target: {type: Utilization, averageUtilization: 50}\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  replicas: 3\n  template:\n    spec:\n      containers:\n      - name: web\n        resources: {requests: {cpu: 400m}}\n      - name: proxy\n        resources: {requests: {cpu: 100m}}\n";
const SCALED: &str = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: jobs}\nspec:\n  scaleTargetRef: {name: jobs}\n  minReplicaCount: 1\n  cooldownPeriod: 60\n  triggers:\n  - type: prometheus\n    metadata:\n      serverAddress: http://prometheus:9090\n      query: sum(rate(jobs[2m]))\n      threshold: '2'\n";

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_autoscale")).current_dir(folder).args(args).output().unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..60).map(|minute| format!("{},{}", 1_780_300_800 + minute * 60, minute % 9)).collect();
    std::fs::write(folder.path().join("day.csv"), format!("time,load\n{}\n", rows.join("\n"))).unwrap();
    std::fs::write(folder.path().join("hpa.yaml"), HPA).unwrap();
    folder
}

#[test]
fn a_stream_gives_one_table_and_a_name_picks_one() {
    let folder = folder();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", SCALED.replace('\n', "\n  ").trim_end());
    let stream =
        format!("# Source: chart\n---\n{DEPLOYMENT}---\n{HPA}---\napiVersion: v1\nkind: Service\n---\n{list}\n");
    std::fs::write(folder.path().join("all.yaml"), stream).unwrap();
    // The Deployment of the stream says what a pod requests, and how many there are.
    let done =
        run(folder.path(), &["rehearse", "--policy", "all.yaml", "--trace", "day.csv", "--load", "--output", "json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let names: Vec<&str> =
        found["autoscalers"].as_array().unwrap().iter().map(|held| held["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web", "jobs"]);
    assert_eq!(found["autoscalers"][0]["initial"], 3);
    assert_eq!(found["autoscalers"][0]["capacity"], 0.25);
    let done =
        run(folder.path(), &["rehearse", "--policy", "all.yaml", "--trace", "day.csv", "--load", "--name", "jobs"]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("ScaledObject jobs") && !text.contains("shop/web"), "{text}");
    let done = run(folder.path(), &["rehearse", "--policy", "all.yaml", "--trace", "day.csv", "--name", "nobody"]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("no autoscaler has that name; there is web, jobs"));
    // Without a request, a utilisation cannot be told.
    let done = run(folder.path(), &["rehearse", "--policy", "hpa.yaml", "--trace", "day.csv", "--load"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("--request cpu=500m"));
}

#[test]
fn every_default_that_was_used_is_printed() {
    let folder = folder();
    let base = ["rehearse", "--policy", "hpa.yaml", "--trace", "day.csv", "--load", "--request", "cpu=500m"];
    let text = String::from_utf8(run(folder.path(), &base).stdout).unwrap();
    for default in [
        "--start 1m",
        "--stop 30s",
        "--metric-lag 30s",
        "--warm-up 10m",
        "--sync 15s",
        "--tolerance 0.1",
        "--capacity 0.25",
        "--initial 1",
    ] {
        assert!(text.contains(default), "{default} is not in {text}");
    }
    let text = String::from_utf8(run(folder.path(), &[&base[..], &["--start", "5s"]].concat()).stdout).unwrap();
    assert!(!text.contains("--start 1m"));
}

#[test]
fn a_condition_that_holds_gives_exit_code_1() {
    let folder = folder();
    let base = ["rehearse", "--policy", "hpa.yaml", "--trace", "day.csv", "--load", "--request", "cpu=500m"];
    let with = |more: &[&str]| run(folder.path(), &[&base[..], more].concat());
    assert_eq!(with(&["--fail-if", "short > 99%"]).status.code(), Some(0));
    let done = with(&["--fail-if", "short > 99%", "--fail-if", "peak >= 2"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("'peak >= 2' holds"));
    assert_eq!(with(&["--fail-if", "shortage > 1"]).status.code(), Some(2));
    let done = with(&["--fail-if", "short > 1%", "--capacity", "unlimited"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("--capacity"));
}

#[test]
fn variants_stand_side_by_side_under_one_measure() {
    let folder = folder();
    let path = "spec.metrics[0].resource.target.averageUtilization=80";
    let done = run(
        folder.path(),
        &[
            "compare",
            "hpa.yaml",
            "--set",
            path,
            "--set",
            "spec.maxReplicas=2",
            "--trace",
            "day.csv",
            "--load",
            "cpu",
            "--request",
            "cpu=500m",
            "--output",
            "json",
        ],
    );
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let all = found["autoscalers"].as_array().unwrap();
    assert_eq!(all[1]["title"], format!("hpa.yaml with {path}"));
    assert!(all.iter().all(|held| held["capacity"] == 0.25), "one measure for all");
    let hours = |place: usize| all[place]["sums"]["pod_seconds"].as_f64().unwrap();
    assert!(hours(1) < hours(0) && hours(2) < hours(0), "a higher target, or a lower maximum, takes fewer pods");
    assert_eq!(all[2]["sums"]["peak"], 2);
    for (set, words) in [
        ("spec.metrics[7].type=Pods", "the list has 1 items, and [7] is asked for"),
        ("spec.maxReplicas", "write PATH=VALUE"),
        ("spec.maxReplicas=0", "spec.maxReplicas: must be a whole number from 1"),
        ("spec.maxReplica=9", "is not a field that Kubernetes or KEDA knows here"),
    ] {
        let done = run(
            folder.path(),
            &["compare", "hpa.yaml", "--set", set, "--trace", "day.csv", "--load", "cpu", "--request", "cpu=500m"],
        );
        assert_eq!(done.status.code(), Some(2), "{set}");
        assert!(String::from_utf8_lossy(&done.stderr).contains(words), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn lint_says_what_will_not_do_what_was_meant() {
    let folder = folder();
    std::fs::write(folder.path().join("fine.yaml"), HPA).unwrap();
    let done = run(folder.path(), &["lint", "fine.yaml"]);
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stdout).trim()), (Some(0), "nothing to say"));
    let cron = |start: &str, end: &str, desired: u32| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: a}}\nspec:\n  scaleTargetRef: {{name: a}}\n  minReplicaCount: 19\n  triggers:\n  - type: cron\n    metadata: {{timezone: Europe/Berlin, start: '{start}', end: '{end}', desiredReplicas: '{desired}'}}\n"
        )
    };
    let value = HPA.replace(
        "  - type: Resource\n    resource:\n      name: cpu\n      target: {type: Utilization, averageUtilization: 50}",
        "  - type: External\n    external:\n      metric: {name: queue_depth}\n      target: {type: Value, value: 50}",
    );
    let latency = SCALED.replace("sum(rate(jobs[2m]))", "histogram_quantile(0.95, sum(rate(x[2m])))");
    for (text, words) in [
        (SCALED.to_owned(), "spec.cooldownPeriod: has no effect"),
        (value, "the size runs to the maximum"),
        (latency, "looks like a latency"),
        (SCALED.replace("sum(rate(jobs[2m]))", "jobs"), "may return several series"),
        (cron("0 8 * * *", "0 9 * * *", 20), "within the tolerance of a tenth"),
        (cron("30 6 * * 1-5", "10 22 * * *", 30), "fires daily, and start does not"),
        (cron("30 2 * * *", "0 4 * * *", 30), "does not exist, since the clock is put forward"),
    ] {
        std::fs::write(folder.path().join("a.yaml"), &text).unwrap();
        let done = run(folder.path(), &["lint", "a.yaml"]);
        let found = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(done.status.code(), Some(1), "{text}\n{found}{}", String::from_utf8_lossy(&done.stderr));
        assert!(found.contains(words), "`{words}` is not in: {found}");
    }
}

#[test]
fn what_the_cluster_would_refuse_is_refused_with_its_place() {
    let folder = folder();
    let so = |field: &str, trigger: &str| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: a}}\nspec:\n  scaleTargetRef: {{name: a}}\n{field}  triggers:\n{trigger}"
        )
    };
    let cpu = "  - type: cpu\n    metadata: {type: Utilization, value: '50'}\n";
    let fine = "  - type: kafka\n    metadata: {lagThreshold: '5'}\n";
    for (text, words) in [
        (
            HPA.replace("minReplicas: 1", "minReplicas: 0"),
            "line 6, column 16: spec.minReplicas: minReplicas 0 must have at least one Object or External metric",
        ),
        (HPA.replace("minReplicas: 1", "minReplicas: 30"), "must be less than or equal to maxReplicas"),
        (
            HPA.replace("maxReplicas: 20", "maxReplicas: many"),
            "spec.maxReplicas: must be a whole number without quotes, found `many`",
        ),
        (HPA.replace("autoscaling/v2", "autoscaling/v3"), "apiVersion: must be one of autoscaling/v2"),
        (
            HPA.replace("type: Resource", "type: Resources"),
            "spec.metrics[0].type: must be Resource, ContainerResource, Pods, Object or External",
        ),
        (HPA.replace("averageUtilization: 50", "averageUtilization: 0"), "must be a whole number from 1"),
        (
            HPA.replace("  metrics:", "  behavior: {scaleDown: {stabilizationWindowSeconds: 7200}}\n  metrics:"),
            "must be at most 3600, found 7200",
        ),
        (
            HPA.replace(
                "  metrics:",
                "  behavior: {scaleUp: {policies: [{type: Pods, value: 1, periodSeconds: 3600}]}}\n  metrics:",
            ),
            "must be at most 1800",
        ),
        (HPA.replace("  minReplicas: 1", "  minReplicas: 1\n\u{a0} labels: {}"), "has a no-break space"),
        (HPA.replace("20", "'{{ .Values.max }}'"), "helm template"),
        (so("", cpu), "spec.triggers[0].metadata.type: KEDA removed it in 2.18: set `metricType: Utilization`"),
        (so("  minReplicaCount: 1\n", cpu), "metricType"),
        (
            so("  minReplicaCount: 1\n  idleReplicaCount: 1\n", fine),
            "spec.idleReplicaCount: IdleReplicaCount=1 must be less than MinReplicaCount=1",
        ),
        (so("  scaleDownDelay: 5\n", fine), "spec.scaleDownDelay: is not a field"),
        (
            so("  scaleDownDelay: 5\n  idleReplicaCount: 0\n", fine),
            "spec.idleReplicaCount: IdleReplicaCount=0 must be less than MinReplicaCount=0",
        ),
        (
            so("", "  - type: kafka\n    metadata: {lagThreshold: <LAG>}\n"),
            "spec.triggers[0].metadata.lagThreshold: must be a number, found `<LAG>`, which looks like a placeholder",
        ),
        (
            so("", "  - type: prometheus\n    metadata: {query: up}\n"),
            "spec.triggers[0].metadata.threshold: is missing",
        ),
        (
            so(
                "",
                "  - type: cron\n    metadata: {timezone: Europe/Berlin, start: 0 8 * * 7, end: 0 9 * * *, desiredReplicas: '2'}\n",
            ),
            "end of range (7) above maximum (6): 7",
        ),
        (so("", fine).replace("keda.sh", "keda.k8s.io"), "is of KEDA 1"),
        (
            so(
                "  fallback: {failureThreshold: 3, replicas: 2}\n  minReplicaCount: 1\n",
                "  - type: cpu\n    metricType: Utilization\n    metadata: {value: '50'}\n",
            ),
            "needs at least one trigger that is not cpu or memory",
        ),
        (
            so(
                "  advanced: {scalingModifiers: {formula: a + b, target: '2'}}\n",
                "  - type: kafka\n    name: a\n    metadata: {}\n",
            ),
            "`b` is not the name of a trigger",
        ),
        (HPA.replace("HorizontalPodAutoscaler", "ScaledJob"), "kind: ScaledJob scales by other means"),
        (
            format!(
                "{HPA}---\n{}",
                SCALED
                    .replace("scaleTargetRef: {name: jobs}", "scaleTargetRef: {name: web}")
                    .replace("{name: jobs}", "{name: jobs, namespace: shop}")
            ),
            "both scale Deployment web",
        ),
        ("a: [".to_owned(), "a.yaml, line"),
        (
            "kind: Service\napiVersion: v1\n".to_owned(),
            "no HorizontalPodAutoscaler or ScaledObject stands in the policy; there is Service",
        ),
    ] {
        std::fs::write(folder.path().join("a.yaml"), &text).unwrap();
        let done = run(folder.path(), &["lint", "a.yaml"]);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{text}\n{error}{}", String::from_utf8_lossy(&done.stdout));
        assert!(error.contains(words), "`{words}` is not in: {error}");
    }
}

/// A container without a request fails a utilisation in the cluster, and so it does here.
#[test]
fn a_sidecar_without_a_request_fails_the_metric() {
    let folder = folder();
    let with = |deployment: &str| {
        std::fs::write(folder.path().join("all.yaml"), format!("{deployment}---\n{HPA}")).unwrap();
        let done = run(
            folder.path(),
            &[
                "rehearse",
                "--policy",
                "all.yaml",
                "--trace",
                "day.csv",
                "--load",
                "--output",
                "json",
                "--warm-up",
                "0s",
            ],
        );
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let changes = found["autoscalers"][0]["changes"].as_array().unwrap().len();
        (changes, found["autoscalers"][0]["findings"].to_string())
    };
    assert!(with(DEPLOYMENT).0 > 0);
    let (changes, findings) =
        with(&DEPLOYMENT.replace("requests: {cpu: 100m}", "{}").replace("resources: {{}}", "resources: {}"));
    assert_eq!(changes, 0);
    assert!(findings.contains("container proxy requests none of it"), "{findings}");
}
