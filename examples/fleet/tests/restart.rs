//! The controller is killed in the middle of the work, and started again: no job is lost, and no worker is left over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn controller(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_fleet")).arg(folder).spawn().unwrap()
}

fn count(folder: &Path, part: &str) -> usize {
    fs::read_dir(folder.join(part)).map_or(0, Iterator::count)
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what} does not come to pass");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_controller_finds_its_workers_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let jobs = |name: &str| {
        for at in 0..12 {
            fs::write(folder.join("job"), "echo $0 >>\"$(dirname \"$0\")/../log\"; sleep 0.3").unwrap();
            fs::rename(folder.join("job"), folder.join(format!("new/{name}{at:02}"))).unwrap();
        }
    };
    let mut first = controller(folder);
    until("the spool", || folder.join("workers").exists() && folder.join("new").exists());
    jobs("a");
    until("a fleet", || count(folder, "workers") >= 4);
    first.kill().unwrap();
    first.wait().unwrap();
    jobs("b");
    let mut second = controller(folder);
    until("the work", || count(folder, "done") == 24);
    until("one worker alone", || count(folder, "workers") == 1);
    second.kill().unwrap();
    second.wait().unwrap();
    let log = fs::read_to_string(folder.join("log")).unwrap();
    assert_eq!(log.lines().count(), 24, "each job runs once:\n{log}");
}
