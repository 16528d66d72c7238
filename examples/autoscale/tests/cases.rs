//! Cases, each a folder of its own: a manifest, a trace, and what must come of them (`expect.json`). They go through the binary.
//!
//! The folder of cases is the one that `AUTOSCALE_CASES` names, else `tests/cases`. One without a case fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn folder() -> PathBuf {
    std::env::var_os("AUTOSCALE_CASES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"), PathBuf::from)
}

/// A number or a text, as an option takes it.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The options that the `args` of a case stand for. Rows are held, metrics are not behind, and nothing is left out of the sums.
fn options(args: &Value) -> Vec<String> {
    let mut options: Vec<String> =
        ["--between", "held", "--metric-lag", "0s", "--stop", "0s", "--warm-up", "0s", "--sync", "15s"]
            .map(String::from)
            .into();
    let mut put = |option: &str, value: String| options.extend([option.to_owned(), value]);
    let seconds = |value: &Value| format!("{}s", text(value));
    for (name, value) in args.as_object().unwrap() {
        match name.as_str() {
            "request" => put("--request", format!("cpu={}", text(value))),
            "memory_request" => put("--request", format!("memory={}", text(value))),
            "limit" => put("--limit", format!("cpu={}", text(value))),
            "recorded_replicas" => put("--recorded-replicas", text(value)),
            "initial" => put("--initial", text(value)),
            "startup_s" => put("--start", seconds(value)),
            "window_s" => put("--metric-window", seconds(value)),
            "capacity" => put("--capacity", text(value)),
            "until" => put("--until", text(value)),
            "partitions" => put("--partitions", text(value)),
            "zone" => put("--zone", text(value)),
            "fold" => put("--fold", text(value)),
            "name" => put("--name", text(value)),
            "bind" => {
                for (metric, how) in value.as_object().unwrap() {
                    let option = match how["mode"].as_str().unwrap() {
                        "load" => "--load",
                        "utilization" | "utilisation" => "--utilisation",
                        "per_pod" => "--per-pod",
                        "open" => "--open-loop",
                        "backlog" => "--backlog",
                        other => panic!("the mode {other} is not known"),
                    };
                    let column = how["column"].as_str().map(|column| format!("={column}")).unwrap_or_default();
                    put(option, format!("{metric}{column}"));
                    if let Some(rate) = how.get("per_replica") {
                        put("--service-rate", format!("{metric}={}", text(rate)));
                    }
                }
            }
            other => panic!("the argument {other} is not known"),
        }
    }
    for (name, option, value) in [
        ("capacity", "--capacity", "unlimited"),
        ("startup_s", "--start", "0s"),
        ("window_s", "--metric-window", "15s"),
    ] {
        if args.get(name).is_none() {
            options.extend([option.to_owned(), value.to_owned()]);
        }
    }
    options
}

/// What is wrong with a case; nothing where it holds.
fn faults(case: &Path) -> Vec<String> {
    let expect: Value = serde_json::from_str(&std::fs::read_to_string(case.join("expect.json")).unwrap()).unwrap();
    let trace = ["trace.csv", "trace.json"].map(|name| case.join(name)).into_iter().find(|path| path.exists()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_autoscale"));
    command
        .args(["rehearse", "--output", "json", "--policy"])
        .arg(case.join("manifest.yaml"))
        .arg("--trace")
        .arg(trace);
    let done = command.args(options(&expect["args"])).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    let expected = &expect["expect"];
    if expected.get("error").is_some() {
        return refusal(expected, done.status.code(), &stderr);
    }
    if !done.status.success() {
        return vec![format!("it ends with {}: {stderr}", done.status)];
    }
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    let found = &found["autoscalers"][0];
    let mut faults = Vec::new();
    for (name, value) in expected.as_object().unwrap() {
        let own = match name.as_str() {
            "initial" | "final" | "cron_active" => found[name].clone(),
            "changes" => found["changes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|change| Value::from(vec![change["at"].clone(), change["size"].clone(), change["by"].clone()]))
                .collect(),
            "pod_seconds" | "short_seconds" | "unserved" => found["sums"][name].clone(),
            other => {
                faults.push(format!("the expectation {other} is not known"));
                continue;
            }
        };
        let same = match (value.as_f64(), own.as_f64()) {
            (Some(value), Some(own)) => (value - own).abs() < 1e-6,
            _ => *value == own,
        };
        if !same {
            faults.push(format!("{name}: expected {value}, found {own}"));
        }
    }
    faults
}

fn refusal(expected: &Value, code: Option<i32>, stderr: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if code != Some(2) {
        faults.push(format!("it ends with {code:?} instead of 2"));
    }
    let words = expected["error_has"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for word in words.chain(expected["path"].as_str()) {
        if !stderr.to_lowercase().contains(&word.to_lowercase()) {
            faults.push(format!("`{word}` is not in: {stderr}"));
        }
    }
    faults
}

#[test]
fn every_case_holds() {
    let folder = folder();
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expect.json").exists())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case stands in {}", folder.display());
    let mut failed = Vec::new();
    for case in &cases {
        let faults = faults(case);
        if !faults.is_empty() {
            failed.push(format!("{}:\n  {}", case.file_name().unwrap().display(), faults.join("\n  ")));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases fail\n{}", failed.len(), cases.len(), failed.join("\n"));
}
