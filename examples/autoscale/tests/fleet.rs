//! Tenon's own YAML: groups on shared pools, floors by the clock, tasks of a chain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::Value;

const FLEET: &str = r#"apiVersion: tenon/v1
kind: Fleet
metadata: {name: shop}
spec:
  pools:
  - {name: own, stock: 12, price: 0.25}
  - {name: leased, stock: 20, price: 1, lease: {from: 2026-06-01T00:00:00Z, until: 2026-06-02T00:00:00Z}}
  groups:
  - name: web
    min: 1
    max: 30
    metric: requests
    perInstance: 10
    timed:
    - {floor: 4, from: "08:30", until: "09:00", zone: Europe/Berlin, days: mon-fri}
    - {floor: 6, from: "09:00", until: "10:00", zone: UTC}
  - {name: db, min: 2, max: 10, metric: queries, perInstance: 100}
  chain:
    links:
    - {group: web, perInstance: 10, calls: [{group: db, perRequest: 2}]}
    - {group: db, perInstance: 100}
    tasks:
    - {from: 2026-06-01T08:30:00Z, until: 2026-06-01T08:40:00Z, wanted: {db: 5}}
"#;

fn rehearse(manifest: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fleet.yaml"), manifest).unwrap();
    let rows: Vec<String> = (0..150)
        .map(|minute| {
            let requests = if (10..30).contains(&minute) { 180 } else { 5 };
            format!("{},{requests},{}", 1_780_300_800 + minute * 60, requests * 2)
        })
        .collect();
    std::fs::write(folder.path().join("day.csv"), format!("time,requests,queries\n{}\n", rows.join("\n"))).unwrap();
    Command::new(env!("CARGO_BIN_EXE_autoscale"))
        .current_dir(folder.path())
        .args([
            "rehearse",
            "--policy",
            "fleet.yaml",
            "--trace",
            "day.csv",
            "--load",
            "--warm-up",
            "0s",
            "--start",
            "30s",
        ])
        .args(["--report", "page.html"])
        .args(more)
        .output()
        .unwrap()
}

fn size_at(changes: &Value, at: &str, initial: u64) -> u64 {
    let changes = changes.as_array().unwrap();
    let before = changes.iter().take_while(|change| change["at"].as_str().unwrap() <= at);
    before.last().map_or(initial, |change| change["size"].as_u64().unwrap())
}

#[test]
fn groups_share_pools_and_follow_metrics_floors_and_tasks() {
    let done = rehearse(FLEET, &["--output", "json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    let (web, db) = (&found["autoscalers"][0], &found["autoscalers"][1]);
    // 180 requests want 18, more than the pool of one's own has: the rest is leased.
    assert_eq!(size_at(&web["changes"], "2026-06-01T08:20:00Z", 1), 18);
    assert!(found["pools"][0]["peak"].as_u64().unwrap() <= 12);
    assert!(found["pools"][1]["peak"].as_u64().unwrap() >= 6, "{}", found["pools"]);
    assert!(found["pools"][1]["cost"].as_f64().unwrap() > 0.0);
    // The task of the chain holds at half past eight, the floor from nine to ten.
    assert_eq!(size_at(&db["changes"], "2026-06-01T08:35:00Z", 2), 5);
    assert_eq!(size_at(&web["changes"], "2026-06-01T09:30:00Z", 1), 6);
    assert_eq!(size_at(&web["changes"], "2026-06-01T10:20:00Z", 1), 1);
    let sums = &web["sums"];
    assert!(sums["short_seconds"].as_f64().unwrap() >= 30.0, "short while the first start");
    assert!(sums["pod_seconds"].as_f64().unwrap() > 18.0 * 1_200.0);
    let table = String::from_utf8(rehearse(FLEET, &[]).stdout).unwrap();
    assert!(table.contains("pool leased: "), "{table}");
}

#[test]
fn what_a_fleet_cannot_be_is_refused_with_its_place() {
    for (from, to, words) in [
        ("tenon/v1", "tenon/v2", "apiVersion: must be tenon/v1"),
        ("stock: 12", "stock: none", "spec.pools[0].stock: must be a whole number"),
        ("max: 30", "max: 0", "spec.groups[0].max: must be a whole number from 1"),
        ("days: mon-fri", "days: someday", "spec.groups[0].timed[0].days: must be every, month-end"),
        ("\"08:30\"", "noonish", "must be a time of day"),
        ("{db: 5}", "{cache: 5}", "spec.chain.tasks[0].wanted.cache: is no group of this fleet"),
        ("floor: 4,", "floor: 4, cap: 5,", "must have one of floor, cap and delta"),
        ("zone: UTC", "zone: Mars/Base", "is no name of a time zone"),
        ("calls: [{group: db", "calls: [{group: web", "fleet shop: these groups call one another in a circle"),
        ("name: db, min: 2", "name: web, min: 2", "the group `web` is there twice"),
    ] {
        let text = FLEET.replacen(from, to, 1);
        assert_ne!(text, FLEET, "{from}");
        let done = rehearse(&text, &[]);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{to}: {error}");
        assert!(error.contains(words), "`{words}` is not in: {error}");
    }
}
