//! HPA, KPA and Nomad against the test tables of the originals: those in `tests/data`, or whole ones whose paths are in
//! `HPA_CASES`, `KNATIVE_CASES`, `NOMAD_CASES`. A table without a case, or with one of an unknown function, fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

mod hpa_cases;
mod knative_cases;
mod nomad_cases;

use serde_json::Value;

/// Runs every case of a table; a case panics where it fails.
fn table(variable: &str, copy: &str, run: impl Fn(&Value)) {
    let path = std::env::vars()
        .find(|(name, _)| name == variable)
        .map_or_else(|| format!("{}/tests/data/{copy}", env!("CARGO_MANIFEST_DIR")), |(_, path)| path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let table: Value = serde_json::from_str(&text).unwrap();
    let cases = table["cases"].as_array().unwrap();
    assert!(!cases.is_empty(), "{path} has no case");
    let mut failed = vec![];
    for case in cases {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case)));
        if let Err(panic) = caught {
            let why = panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| format!("{:?}", panic.downcast_ref::<&str>()));
            failed.push(format!("{}: {why}", case["id"]));
        }
    }
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn hpa() {
    table("HPA_CASES", "hpa_cases.json", hpa_cases::run);
}

#[test]
fn knative() {
    table("KNATIVE_CASES", "knative_cases.json", knative_cases::run);
}

#[test]
fn nomad() {
    table("NOMAD_CASES", "nomad_cases.json", nomad_cases::run);
}

/// A whole number of a case; 0 where it is absent or null.
fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| value.as_f64().map_or(0, |float| format!("{float:.0}").parse().unwrap()))
}

fn count(value: &Value) -> u32 {
    u32::try_from(int(value)).unwrap()
}
