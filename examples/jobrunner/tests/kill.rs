//! The runner is killed with `kill -9` while jobs run and wait: the next one finishes them all, each once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn jobs(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobrunner"));
    command.current_dir(folder).args(arguments);
    command
}

fn output(folder: &Path, arguments: &[&str]) -> String {
    let output = jobs(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for(file: &Path, runner: &mut Child) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "the first job never began");
        assert!(runner.try_wait().unwrap().is_none(), "the runner has ended");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_runner_killed_in_the_middle_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // The first life of this job never ends by itself.
    output(here, &["submit", "--priority", "9", "echo begun >> slow; test -e killed || sleep 15"]);
    for job in 0..5 {
        output(here, &["submit", &format!("echo {job} >> done")]);
    }
    output(here, &["submit", "--tag", "7", "echo 5 >> done"]);
    let mut runner = jobs(here, &["run", "--workers", "1"]).spawn().unwrap();
    wait_for(&here.join("slow"), &mut runner);
    runner.kill().unwrap();
    runner.wait().unwrap();
    fs::write(here.join("killed"), "").unwrap();
    // Two runners share what is left.
    let mut other = jobs(here, &["run", "--tag", "7"]).spawn().unwrap();
    let told = output(here, &["run"]);
    assert!(other.wait().unwrap().success(), "{told}");
    let mut done: Vec<String> = fs::read_to_string(here.join("done")).unwrap().lines().map(str::to_owned).collect();
    done.sort_unstable();
    assert_eq!(done, ["0", "1", "2", "3", "4", "5"], "each once");
    assert_eq!(fs::read_to_string(here.join("slow")).unwrap().lines().count(), 2, "the lost one was tried again");
    let list = output(here, &["list"]);
    assert!(list.contains("job 1, attempt 1: Failed (its worker fell silent, 1 times so far)"), "{list}");
    assert!(list.contains("job 1, attempt 2: Succeeded"), "{list}");
    assert!(list.contains("job 7, attempt 1: Succeeded"), "{list}");
}

#[test]
fn what_fails_is_tried_again_and_what_is_aborted_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    output(here, &["submit", "--attempts", "2", "test -e second || { touch second; exit 3; }"]);
    output(here, &["submit", "sleep 60"]);
    let mut runner = jobs(here, &["run"]).spawn().unwrap();
    wait_for(&here.join("second"), &mut runner);
    let start = Instant::now();
    while !output(here, &["list"]).contains("job 2, attempt 1: Running") {
        assert!(start.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(20));
    }
    output(here, &["abort", "2"]);
    assert!(runner.wait().unwrap().success());
    let list = output(here, &["list"]);
    for line in [
        "job 1, attempt 1: Failed (reported by its worker)",
        "job 1, attempt 2: Succeeded",
        "job 2, attempt 1: Aborted",
    ] {
        assert!(list.contains(line), "{line}: {list}");
    }
}

#[test]
fn what_is_late_is_skipped_and_what_takes_too_long_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    output(here, &["submit", "--start-within", "1", "echo late >> late"]);
    output(here, &["submit", "--finish-within", "2", "exec sleep 60"]);
    sleep(Duration::from_millis(1_100));
    output(here, &["run"]);
    let list = output(here, &["list"]);
    assert!(list.contains("job 1, attempt 1: Skipped (no worker took it in time)"), "{list}");
    assert!(list.contains("job 2, attempt 1: TimedOut (not finished in time)"), "{list}");
    assert!(!here.join("late").exists());
}

#[test]
fn a_schedule_fires_while_a_runner_runs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let told = output(here, &["schedule", "add", "--cron", "* * * * *", "--missed", "all", "echo fired >> fired"]);
    assert_eq!(told, "schedule 1\n");
    assert!(!jobs(here, &["schedule", "add", "--cron", "* * *", "true"]).output().unwrap().status.success());
    assert!(output(here, &["schedule", "list"]).contains("schedule 1: * * * * * UTC, All; next at "));
    // As if its time had come an hour ago: it is the next minute's in any case.
    let database = rusqlite::Connection::open(here.join("jobs.db")).unwrap();
    let set = "UPDATE jobqueue_schedules SET last_ms = last_ms - 3600000, next_ms = next_ms - 3600000";
    assert_eq!(database.execute(set, []).unwrap(), 1);
    let mut runner = jobs(here, &["run", "--forever"]).spawn().unwrap();
    let start = Instant::now();
    let fired = || fs::read_to_string(here.join("fired")).unwrap_or_default().lines().count();
    while fired() < 60 {
        assert!(start.elapsed() < Duration::from_mins(2), "{} firings", fired());
        sleep(Duration::from_millis(50));
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
    output(here, &["schedule", "end", "1"]);
    assert_eq!(output(here, &["schedule", "list"]), "");
}
