//! Nodes die or stand still at the worst moments of a push; afterwards nothing is lost, nothing half done, nothing left over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, Forge, await_that};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nodes that look for drills.
fn forge() -> Forge {
    Forge::with(&[], &[("FORGE_DRILLS", "1")])
}

/// A repository with one push in it.
fn with_one_push(forge: &Forge) -> Client {
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    forge.assert_alike("demo");
    ann
}

/// Orders a drill: the first node that comes to its point carries it out, alone.
fn order(forge: &Forge, what: &str) {
    std::fs::write(forge.data().join("drill"), what).unwrap();
}

/// The node that the drill struck.
fn struck(forge: &Forge) -> u32 {
    let reached = |node: &u32| forge.data().join(format!("drill.reached.{node}"));
    let mut found = None;
    await_that("the drill strikes", || {
        found = (1..=3).find(|node| reached(node).exists());
        found.is_some()
    });
    let node = found.unwrap();
    std::fs::remove_file(reached(&node)).unwrap();
    node
}

/// Lets a node that stands still go on.
fn go_on(forge: &Forge) {
    std::fs::write(forge.data().join("drill.go"), "").unwrap();
}

/// Asserts that no Git process left anything in any copy of the repository, and that each is sound.
fn assert_nothing_left(forge: &Forge) {
    for node in 1..=3 {
        let bare = forge.bare("demo", node);
        let left: Vec<PathBuf> = files(&bare)
            .into_iter()
            .filter(|file| {
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let end = file.extension().unwrap_or_default();
                name.starts_with("tmp_") || end == "lock" || end == "keep"
            })
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let fsck =
            Command::new("git").args(["fsck", "--strict", "--no-dangling"]).env("GIT_DIR", &bare).output().unwrap();
        assert!(fsck.status.success(), "node {node}: {}", common::text(&fsck));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found
}

/// Waits for a client to end; whether it succeeded.
fn ended(child: &mut std::process::Child) -> bool {
    await_that("the client ends", || child.try_wait().unwrap().is_some());
    child.wait().unwrap().success()
}

/// The processes below a node whose command line has these words.
fn below(node: i32, words: &str) -> Vec<i32> {
    let mut all: Vec<(i32, i32, String)> = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let parent = rest.split_whitespace().nth(1).unwrap().parse().unwrap();
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        all.push((pid, parent, String::from_utf8_lossy(&line).replace('\0', " ")));
    }
    let mut family = vec![node];
    let mut found = Vec::new();
    while let Some(parent) = family.pop() {
        for (pid, _, line) in all.iter().filter(|(_, of, _)| *of == parent) {
            family.push(*pid);
            if line.contains(words) {
                found.push(*pid);
            }
        }
    }
    found
}

#[test]
fn a_writer_killed_at_any_point_of_a_push_loses_nothing_and_leaves_nothing() {
    let forge = forge();
    let ann = with_one_push(&forge);
    for point in ["in-parcel", "after-prepare", "after-append", "after-commit"] {
        let version = forge.version("demo");
        order(&forge, &format!("kill {point}"));
        let id = ann.commit("work", point);
        ann.ok("work", &["push", "-q", "origin", "main", &format!("main:refs/heads/{point}")]);
        struck(&forge);
        // Two refs, one transaction, one version: not half of it, not twice.
        assert_eq!(forge.version("demo"), version + 1, "{point}");
        forge.assert_alike("demo");
        let refs = ann.remote_refs(&forge.repo_url("demo"));
        assert!(refs.contains(&format!("{id}\trefs/heads/main")), "{point}: {refs:?}");
        assert!(refs.contains(&format!("{id}\trefs/heads/{point}")), "{point}: {refs:?}");
        assert_nothing_left(&forge);
    }
    ann.ok(".", &["clone", "-q", &forge.repo_url("demo"), "copy"]);
}

#[test]
fn a_replica_killed_after_its_vote_or_in_its_repair_comes_back_as_it_should_be() {
    let forge = forge();
    let ann = with_one_push(&forge);
    order(&forge, "kill after-stage");
    ann.commit("work", "second");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let node = struck(&forge);
    forge.assert_alike("demo");

    forge.node("kill", node);
    ann.commit("work", "third");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    order(&forge, &format!("kill in-sync {node}"));
    forge.node("start", node);
    assert_eq!(struck(&forge), node);
    forge.assert_alike("demo");
    assert_nothing_left(&forge);
}

#[test]
fn a_writer_that_wakes_up_after_its_time_moves_nothing() {
    let forge = Forge::with(&["--max-git-seconds", "4"], &[("FORGE_DRILLS", "1")]);
    let ann = with_one_push(&forge);
    order(&forge, "stall after-prepare");
    let version = forge.version("demo");
    ann.commit("work", "second");
    let mut push = ann.command(&ann.home.join("work"), &["push", "-q", "origin", "main:one"]).spawn().unwrap();
    let writer = struck(&forge);
    // It stands still with its refs locked, one step before it proposes; when it wakes up, it goes on.
    let pid = Pid::from_raw(forge.pid(u64::from(writer)).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    go_on(&forge);
    // Its grant runs out, another node takes the write over, and a further one passes.
    assert!(ended(&mut push), "the push went on elsewhere");
    let bob = forge.client("bob");
    bob.ok(".", &["clone", "-q", &forge.repo_url("demo"), "work"]);
    let id = bob.commit("work", "third");
    bob.ok("work", &["push", "-q", "origin", "main"]);
    assert_eq!(forge.version("demo"), version + 2);
    kill(pid, Signal::SIGCONT).unwrap();
    forge.assert_alike("demo");
    assert_eq!(forge.version("demo"), version + 2, "the late writer committed nothing");
    let refs = bob.remote_refs(&forge.repo_url("demo"));
    assert!(refs.contains(&format!("{id}\trefs/heads/main")), "{refs:?}");
    assert_nothing_left(&forge);
}

#[test]
fn a_git_that_dies_after_the_refs_were_locked_changes_nothing_of_the_outcome() {
    let forge = forge();
    let ann = with_one_push(&forge);
    let version = forge.version("demo");
    order(&forge, "stall after-prepare");
    let id = ann.commit("work", "second");
    let mut push = ann.command(&ann.home.join("work"), &["push", "-q", "origin", "main"]).spawn().unwrap();
    let writer = struck(&forge);
    let pid = forge.pid(u64::from(writer)).unwrap();
    let git = below(pid, "update-ref");
    assert!(!git.is_empty());
    for pid in git {
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    go_on(&forge);
    assert!(ended(&mut push), "what the log has is carried out");
    forge.assert_alike("demo");
    assert_eq!(forge.version("demo"), version + 1, "once, not twice");
    assert!(ann.remote_refs(&forge.repo_url("demo")).contains(&format!("{id}\trefs/heads/main")));
    // And its locks are in nobody's way.
    ann.commit("work", "third");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    forge.assert_alike("demo");
    assert_nothing_left(&forge);
}

#[test]
fn a_replica_that_lags_is_sent_all_objects() {
    let forge = forge();
    let ann = with_one_push(&forge);
    forge.node("kill", 3);
    for n in 0..3 {
        ann.commit("work", &format!("missed-{n}"));
        ann.ok("work", &["push", "-q", "origin", "main"]);
    }
    // Its repair stands still before it has fetched anything, so it lags.
    order(&forge, "stall before-sync 3");
    forge.node("start", 3);
    assert_eq!(struck(&forge), 3);
    let parcels = forge.bare("demo", 3).join("parcels");
    let id = ann.commit("work", "last");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let packs = || {
        files(&parcels).into_iter().filter(|file| file.extension().is_some_and(|end| end == "idx")).collect::<Vec<_>>()
    };
    await_that("the one that lags has a pack", || parcels.exists() && !packs().is_empty());
    let pack = packs().remove(0);
    let whole = Command::new("git").args(["verify-pack", "-v"]).arg(&pack).output().unwrap();
    let text = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(
        text.contains(&id) && text.matches(" commit ").count() == 5,
        "all five commits, not the newest alone: {text}"
    );
    go_on(&forge);
    forge.assert_alike("demo");
    assert_nothing_left(&forge);
}

#[test]
fn packs_and_refs_do_not_pile_up() {
    let forge = Forge::start();
    let ann = with_one_push(&forge);
    for n in 0..24 {
        ann.commit("work", &format!("more-{n}"));
        ann.ok("work", &["push", "-q", "origin", "main"]);
    }
    let many: Vec<String> = (0..250).map(|n| format!("main:refs/heads/b{n}")).collect();
    let mut push = vec!["push", "-q", "origin"];
    push.extend(many.iter().map(String::as_str));
    ann.ok("work", &push);
    for node in 1..=3 {
        let bare = forge.bare("demo", node);
        let count = |end: &str| {
            let files = files(&bare);
            files.iter().filter(|file| file.to_string_lossy().ends_with(end)).count()
        };
        await_that("packs are rolled together", || count(".pack") <= 21);
        await_that("refs are packed", || bare.join("packed-refs").exists() && files(&bare.join("refs")).len() < 50);
    }
    forge.assert_alike("demo");
    ann.ok(".", &["clone", "-q", &forge.repo_url("demo"), "copy"]);
    assert_nothing_left(&forge);
}

#[test]
fn nothing_of_a_hostile_repository_runs() {
    let forge = Forge::start();
    let ann = with_one_push(&forge);
    let trap = forge.path().join("trap");
    let sprung = forge.path().join("sprung");
    let hooks =
        ["pre-receive", "update", "post-receive", "post-update", "reference-transaction", "proc-receive", "command"];
    let command = trap.join("command");
    let command = command.display();
    for node in 1..=3 {
        let bare = forge.bare("demo", node);
        for folder in [&trap, &bare.join("hooks")] {
            std::fs::create_dir_all(folder).unwrap();
            for hook in hooks {
                let file = folder.join(hook);
                std::fs::write(&file, format!("#!/bin/sh\necho {hook} >> '{}'\n", sprung.display())).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        let config = format!(
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\thooksPath = {}\n\talternateRefsCommand = {command}\n\
             \tfsmonitor = {command}\n\tsshCommand = {command}\n\tgitProxy = {command}\n\tpager = {command}\n\
             [uploadpack]\n\tpackObjectsHook = {command}\n[receive]\n\tprocReceiveRefs = none\n\
             [gc]\n\tauto = 1\n[credential]\n\thelper = !{command}\n",
            trap.display()
        );
        std::fs::write(bare.join("config"), config).unwrap();
    }
    let id = ann.commit("work", "second");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    ann.ok(".", &["clone", "-q", &forge.repo_url("demo"), "copy"]);
    assert_eq!(ann.ok("copy", &["rev-parse", "HEAD"]), id);
    let ran = std::fs::read_to_string(&sprung).unwrap_or_default();
    assert!(ran.is_empty(), "ran: {ran}");
    forge.assert_alike("demo");
}

#[test]
fn refs_that_were_tampered_with_are_not_served_and_are_repaired() {
    let forge = Forge::start();
    let ann = with_one_push(&forge);
    let id = ann.commit("work", "second");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    forge.node("kill", 2);
    let bare = forge.bare("demo", 2);
    let first = ann.ok("work", &["rev-parse", "main~1"]);
    std::fs::write(bare.join("refs/heads/main"), format!("{first}\n")).unwrap();
    std::fs::write(bare.join("refs/heads/smuggled"), format!("{first}\n")).unwrap();
    forge.node("start", 2);
    for _ in 0..6 {
        let refs = ann.remote_refs(&forge.repo_url("demo"));
        assert!(refs.contains(&format!("{id}\trefs/heads/main")), "{refs:?}");
        assert!(refs.iter().all(|line| !line.contains("smuggled")), "{refs:?}");
    }
    forge.assert_alike("demo");
}

#[test]
fn a_clone_whose_git_dies_ends_soon_and_does_not_pass_for_whole() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    // Enough that does not compress, for a clone to be caught in its middle.
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = (0..4_000_000)
        .flat_map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        })
        .collect();
    std::fs::write(ann.home.join("work/noise"), bytes).unwrap();
    ann.commit("work", "noise");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let pids = forge.pids();
    for attempt in 0..20 {
        let copy = format!("copy-{attempt}");
        let mut clone = ann.command(&ann.home, &["clone", "-q", &forge.repo_url("demo"), &copy]).spawn().unwrap();
        let mut caught = false;
        while !caught && clone.try_wait().unwrap().is_none() {
            for git in pids.iter().flat_map(|pid| below(*pid, "upload-pack --stateless-rpc .")) {
                caught |= kill(Pid::from_raw(git), Signal::SIGKILL).is_ok();
            }
        }
        let killed = Instant::now();
        let whole = ended(&mut clone);
        assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
        if !whole {
            assert!(caught);
            return;
        }
        // Too early (another node served it) or too late (all was sent): whole, then.
        assert_eq!(ann.ok(&copy, &["rev-parse", "HEAD"]), ann.ok("work", &["rev-parse", "main"]));
        std::fs::remove_dir_all(ann.home.join(&copy)).unwrap();
    }
    panic!("no clone was caught in its middle");
}
