//! Every form of trace says the same, and what is wrong with one is told with its line, its column and its text.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// 2026-06-01T08:00:00Z.
const START: u64 = 1_780_300_800;
const LOADS: [f64; 7] = [0.2, 8.0, 8.0, 8.0, 3.0, 0.5, 0.5];

fn rehearse(file: &str, text: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  scaleTargetRef: {kind: Deployment, name: web}\n  maxReplicas: 50\n  targetCPUUtilizationPercentage: 50\n";
    std::fs::write(folder.path().join("hpa.yaml"), manifest).unwrap();
    std::fs::write(folder.path().join(file), text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_autoscale"))
        .current_dir(folder.path())
        .args(["rehearse", "--policy", "hpa.yaml", "--trace", file, "--output", "json", "--request", "cpu=500m"])
        .args(["--start", "0s", "--metric-lag", "0s", "--warm-up", "0s"])
        .args(more)
        .output()
        .unwrap()
}

fn changes(file: &str, text: &str, more: &[&str]) -> Value {
    let done = rehearse(file, text, more);
    assert!(done.status.success(), "{text}\n{}", String::from_utf8_lossy(&done.stderr));
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    found["autoscalers"][0]["changes"].clone()
}

fn refusal(file: &str, text: &str, more: &[&str]) -> String {
    let done = rehearse(file, text, more);
    assert_eq!(done.status.code(), Some(2), "{text}\n{}", String::from_utf8_lossy(&done.stdout));
    String::from_utf8(done.stderr).unwrap()
}

fn rows() -> Vec<(u64, f64)> {
    (0..).map(|place: u64| START + place * 60).zip(LOADS).collect()
}

/// Lines made of each row.
fn lines(of: impl Fn(u64, f64) -> String) -> String {
    let mut text = String::new();
    for (at, load) in rows() {
        writeln!(text, "{}", of(at, load)).unwrap();
    }
    text
}

/// `2026-06-01` and the time of day.
fn civil(at: u64, hours: u64) -> String {
    let minute = (at - START) / 60;
    format!("2026-06-01 {:02}:{minute:02}:00", 8 + hours)
}

/// Each form of section: its name, its text, and the options that it needs.
fn forms() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let pairs: Vec<Value> = rows().iter().map(|(at, load)| json!([at, load.to_string()])).collect();
    let matrix = json!({"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"__name__": "cores", "job": "web"}, "values": pairs}]}});
    let split: Vec<Value> = rows().iter().map(|(at, load)| json!([at, (load / 2.0).to_string()])).collect();
    let two = json!({"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"pod": "a"}, "values": split}, {"metric": {"pod": "b"}, "values": split}]}});
    let (times, loads): (Vec<u64>, Vec<f64>) = rows().into_iter().unzip();
    let victoria = json!({"metric": {"__name__": "cores"}, "values": loads,
        "timestamps": times.iter().map(|at| at * 1000).collect::<Vec<_>>()});
    let mut points: Vec<Value> = rows()
        .iter()
        .map(|(at, load)| json!({"Timestamp": civil(*at, 0).replace(' ', "T") + "Z", "Average": load, "Unit": "None"}))
        .collect();
    points.swap(0, 3);
    let sums: Vec<Value> = rows()
        .iter()
        .map(|(at, load)| json!({"Timestamp": civil(*at, 0).replace(' ', "T") + "+00:00", "Sum": load * 60.0, "Unit": "Count"}))
        .collect();
    let mut newest: Vec<(u64, f64)> = rows();
    newest.reverse();
    let metric_data = json!({"MetricDataResults": [{"Id": "m1", "Label": "cores",
        "Timestamps": newest.iter().map(|(at, _)| civil(*at, 0).replace(' ', "T") + "Z").collect::<Vec<_>>(),
        "Values": newest.iter().map(|(_, load)| load).collect::<Vec<_>>()}]});
    #[expect(clippy::cast_precision_loss, reason = "Datadog writes times as floats")]
    let datadog = json!({"series": [{"metric": "cores", "scope": "web", "interval": 60,
        "pointlist": rows().iter().map(|(at, load)| json!([*at as f64 * 1000.0, load])).collect::<Vec<_>>()}]});
    let google = json!({"timeSeries": [{"metric": {"type": "run.googleapis.com/cores", "labels": {}},
        "points": newest.iter().map(|(at, load)| json!({"interval": {"endTime": civil(*at, 0).replace(' ', "T") + "Z"},
            "value": {"doubleValue": load}})).collect::<Vec<_>>()}]});
    let grafana = format!(
        "\u{feff}sep=,\r\n\"Time\",\"{{__name__=\"\"cores\"\", pod=\"\"a,b\"\"}}\"\r\n{}",
        lines(|at, load| format!("{at}000,{load}\r"))
    );
    vec![
        ("prom.json", matrix.to_string(), vec![]),
        ("two.json", two.to_string(), vec!["--sum"]),
        ("promtool.txt", format!("{{job=\"web\"}} =>\n{}", lines(|at, load| format!("{load} @[{at}]"))), vec![]),
        ("promtool.json", matrix["data"]["result"].to_string(), vec![]),
        ("victoria.jsonl", victoria.to_string(), vec![]),
        ("grafana.csv", grafana, vec![]),
        (
            "formatted.csv",
            format!("Time,Load\n{}", lines(|at, load| format!("{},{load} s", civil(at, 2)))),
            vec!["--zone", "Europe/Berlin"],
        ),
        (
            "grafana6.csv",
            format!(
                "\"Series\";\"Time\";\"Value\"\n{}",
                lines(|at, load| format!("\"a\";\"{}+02:00\";{load}", civil(at, 2).replace(' ', "T")))
            ),
            vec![],
        ),
        ("statistics.json", json!({"Label": "CPU", "Datapoints": points}).to_string(), vec![]),
        ("sums.json", json!({"Label": "CPU", "Datapoints": sums}).to_string(), vec![]),
        ("metric-data.json", metric_data.to_string(), vec![]),
        ("datadog.json", datadog.to_string(), vec![]),
        ("google.json", google.to_string(), vec![]),
        (
            "plain.csv",
            format!("timestamp,value\n{}", lines(|at, load| format!("{},{load}", civil(at, 0)))),
            vec!["--zone", "UTC"],
        ),
        ("bare.csv", lines(|at, load| format!("{at},{load}")), vec![]),
        (
            "semicolon.csv",
            format!("time;load\n{}", lines(|at, load| format!("{at};{}", load.to_string().replace('.', ",")))),
            vec![],
        ),
        ("micros.csv", lines(|at, load| format!("{at}000000,{load}")), vec![]),
        (
            "unsorted.csv",
            {
                let text = lines(|at, load| format!("{at},{load}"));
                text.lines().rev().collect::<Vec<_>>().join("\n")
            },
            vec![],
        ),
    ]
}

#[test]
fn every_form_says_the_same() {
    let forms = forms();
    let expected = changes(forms[0].0, &forms[0].1, &["--load"]);
    assert!(expected.as_array().unwrap().len() >= 4, "{expected}");
    for (file, text, options) in &forms {
        let all: Vec<&str> = ["--load"].iter().chain(options).copied().collect();
        assert_eq!(changes(file, text, &all), expected, "{file}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (file, text, options, words) in [
        (
            "a.csv",
            "timestamp,value\n2026-06-01 08:00:00,1\n",
            &[][..],
            "a.csv, line 2, column 1: `2026-06-01 08:00:00` names no zone",
        ),
        ("a.csv", "time,v\n1780300800,1\nsoon,2\n", &[], "line 3, column 1: `soon` is no time"),
        ("a.csv", "time,v\n1780300800,1\n1780300860,many\n", &[], "line 3, column 12: `many` is no value"),
        (
            "a.csv",
            "time,v\n1780300800,1\n1780300800,2\n",
            &[],
            "line 3, column 1: `v` has two values at 2026-06-01T08:00:00Z",
        ),
        ("a.csv", "time,v\n1780300800,12.5 °C\n", &[], "\"Formatted data\" off"),
        ("a.csv", "time,v\n1780300800,1 ms\n1780300860,2 MiB\n", &[], "line 3, column 12: `2 MiB` is counted in bytes"),
        ("a.csv", "time,v\n2026-03-29 02:30:00,1\n", &["--zone", "Europe/Berlin"], "the clock never showed"),
        ("a.csv", "time,v\n2026-10-25 02:30:00,1\n", &["--zone", "Europe/Berlin"], "--fold earlier or --fold later"),
        ("a.csv", "time,v\n\"1780300800,1\n", &[], "line 2, column 1: a quotation mark is opened"),
        ("a.csv", "", &[], "the trace is empty"),
        ("a.csv", "time\n1780300800\n", &[], "a row has one cell"),
        (
            "a.json",
            "{\"status\":\"error\",\"error\":\"query timed out\"}",
            &[],
            "Prometheus answered with an error instead of values: query timed out",
        ),
        (
            "a.json",
            "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}",
            &[],
            "the answer is a vector, which is of one instant",
        ),
        (
            "a.json",
            "{\"data\":{\"resultType\":\"matrix\",\"result\":[{\"values\":[[1780300800,\"1\"],\n[1780300860,\"x\"]]}]}}",
            &[],
            "line 2, column",
        ),
        ("a.json", "{\"data\":{\"resultType\":\"matrix\",\"result\":[]}}", &[], "the trace holds no point"),
        ("a.json", "{\"rows\":[]}", &[], "is of no form that is known"),
        ("a.json", "{\"data\": ", &[], "line 1, column"),
        ("a.jsonl", "{\"metric\":{},\"values\":[1],\"timestamps\":[]}", &[], "there are 1 values and 0 timestamps"),
        (
            "a.json",
            "{\"MetricDataResults\":[{\"Id\":\"m\",\"Timestamps\":[\"2026-06-01T08:00:00Z\"],\"Values\":[]}]}",
            &[],
            "m has 1 Timestamps and 0 Values",
        ),
        ("a.txt", "{} =>\n1 @[soon]\n", &[], "line 2, column 1: `1 @[soon]` is no point"),
        ("a.csv", "time,a,b\n1780300800,1,2\n", &[], "metric cpu has no column in the trace, which has `a`, `b`"),
        ("a.csv", "time,v\n1780300800,1\n", &["--zone", "Mars/Base"], "no zone has that name"),
        ("a.csv", "time,v\n1780300800,50\n", &["--utilisation"], "a recorded utilisation is not a load"),
        ("cpu_utilization.csv", "time,v\n1780300800,50\n", &[], "--recorded-replicas"),
        ("a.csv", "time,v\n1780300800,50\n", &["--backlog"], "needs --service-rate"),
    ] {
        let error = refusal(file, text, options);
        assert!(error.contains(words), "`{words}` is not in: {error}");
    }
}

/// A recorded utilisation with the replicas of then is the load that was.
#[test]
fn a_recorded_utilisation_with_its_replicas_is_a_load() {
    let load = lines(|at, load| format!("{at},{load}"));
    let replicas = |load: f64| if load > 4.0 { 16.0 } else { 2.0 };
    let recorded = format!(
        "time,cpu,replicas\n{}",
        lines(|at, load| format!("{at},{},{}", load / 0.5 / replicas(load) * 100.0, replicas(load)))
    );
    let expected = changes("load.csv", &load, &["--load", "--initial", "2"]);
    assert_eq!(changes("cpu.csv", &recorded, &["--utilisation", "--initial", "2"]), expected);
    let fixed = lines(|at, load| format!("{at},{}", load / 0.5 / 4.0 * 100.0));
    assert_eq!(changes("cpu.csv", &fixed, &["--utilisation", "--recorded-replicas", "4", "--initial", "2"]), expected);
}
