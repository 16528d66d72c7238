//! Days that must pass, through the program itself, each of them twice alike; and seeds that did not pass once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

fn simulator(arguments: &[&str]) -> (bool, String) {
    let told = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().unwrap();
    let said = String::from_utf8(told.stdout).unwrap() + &String::from_utf8(told.stderr).unwrap();
    (told.status.success(), said)
}

fn passes(arguments: &str) {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let (passed, said) = simulator(&arguments);
    assert!(passed && said.contains("passed: "), "{arguments:?}: {said}");
}

/// A short day of few repositories; `TENON_DAYS` makes it more of them.
fn small(weather: &str, more: &str) {
    let days = std::env::var("TENON_DAYS").unwrap_or_else(|_| "2".into());
    passes(&format!(
        "--weather {weather} --days {days} --hours 2 --repos 20 --pipelines-per-day 1500 --quiet --twice {more}"
    ));
}

#[test]
fn calm_days_pass() {
    small("calm", "--seed 10");
    let (passed, said) = simulator(&["--weather", "calm", "--hours", "2", "--repos", "20", "--seed", "5"]);
    assert!(passed && said.contains("(100.0000 % answered as applied)"), "nothing is refused on a calm day: {said}");
}

#[test]
fn faulty_days_pass() {
    small("faulty", "--seed 20");
}

#[test]
fn days_of_operators_pass() {
    small("operators", "--seed 30");
}

#[test]
fn days_with_restored_stores_pass() {
    small("restored", "--seed 40");
}

#[test]
fn days_on_which_everything_is_evicted_at_once_pass() {
    small("faulty", "--seed 50 --awake 0 --routers 2 --engines 2");
    small("restored", "--seed 60 --awake 0 --routers 2 --engines 2");
}

/// Each line of `seeds.txt` broke a law once.
#[test]
fn seeds_that_broke_a_law_once_pass() {
    for line in include_str!("seeds.txt").lines().filter(|line| line.starts_with("--")) {
        passes(&format!("{line} --quiet"));
    }
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let page = std::env::temp_dir().join(format!("simulator-{}.html", std::process::id()));
    let path = page.to_str().unwrap();
    let (passed, said) =
        simulator(&["--weather", "faulty", "--hours", "1", "--repos", "10", "--report", path, "--quiet"]);
    assert!(passed, "{said}");
    let html = std::fs::read_to_string(&page).unwrap();
    std::fs::remove_file(&page).unwrap();
    assert!(
        html.contains("<svg")
            && html.contains("A faulty day, seed 1")
            && html.contains("cargo run --release -p simulator")
    );
    assert!(!html.contains("<script") && !html.contains("http"), "no script, no request");
}

#[test]
fn a_schedule_can_be_listed_and_cut_down() {
    let day = ["--weather", "faulty", "--hours", "2", "--repos", "10", "--seed", "7"];
    let (listed, said) = simulator(&[&day[..], &["--list-faults"]].concat());
    assert!(listed && said.lines().count() >= 6, "{said}");
    let (passed, said) = simulator(&[&day[..], &["--faults", "0,2"]].concat());
    assert!(passed && said.contains("2 faults"), "{said}");
}
