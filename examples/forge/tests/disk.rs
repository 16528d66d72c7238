//! A disk that is full: users are told so at once, nothing is lost, and all goes on when there is room.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Client, Forge, await_that, needs};
use tempfile::TempDir;

/// A file system of its own at a folder, gone with this.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount anything.
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|out| out.status.success()).then(|| Self(at.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves not a single block.
    fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        for block in [1 << 20, 1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![0; block]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that a failing test left may still be in it.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn is_told(ann: &Client) {
    let said = ann.fails("work", &["push", "origin", "main"]);
    assert!(said.contains("[remote rejected] main -> main (the server's disk is full)"), "{said}");
}

/// Users who try again and again, for a while: how many lines that is in the logs.
fn insist(forge: &Forge, ann: &Client) -> usize {
    let before = forge.lines_logged();
    for n in 0..3 {
        ann.commit("work", &format!("again-{n}"));
        is_told(ann);
    }
    std::thread::sleep(Duration::from_secs(3));
    forge.lines_logged() - before
}

#[test]
fn whoever_pushes_to_a_full_disk_is_told_and_pushes_again_when_there_is_room() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::mount(&dir.path().join("data"), 40);
    let Some(disk) = needs("right to mount a file system", disk) else { return };
    let forge = Forge::in_folder(dir, &["--open"], &[]);
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let before = ann.remote_refs(&url);
    disk.fill();
    // In memory at the router, and too large for it.
    ann.commit("work", "small");
    is_told(&ann);
    fs::write(ann.home.join("work/large"), common::noise(3 << 20)).unwrap();
    ann.commit("work", "large");
    is_told(&ann);
    let lines = insist(&forge, &ann);
    assert!(lines < 200, "{lines} lines");
    let new = ann.git("work", &["push", &forge.repo_url("new"), "main"]);
    assert!(common::text(&new).contains("the server's disk is full"), "{}", common::text(&new));
    // Reads go on.
    assert_eq!(ann.remote_refs(&url), before);
    ann.ok(".", &["clone", "-q", &url, "clone"]);
    disk.free();
    await_that("a push passes again", || ann.git("work", &["push", "-q", "origin", "main"]).status.success());
    forge.assert_alike("demo");
    drop(forge);
    drop(disk);
}

#[test]
fn a_full_disk_of_the_store_alone_is_no_hot_loop() {
    let dir = TempDir::new().unwrap();
    let disk = Disk::mount(&dir.path().join("data"), 4);
    let Some(disk) = needs("right to mount a file system", disk) else { return };
    for name in ["node-1", "node-2", "node-3", "spool"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        std::os::unix::fs::symlink(dir.path().join(name), dir.path().join("data").join(name)).unwrap();
    }
    let forge = Forge::in_folder(dir, &["--open"], &[]);
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let before = ann.remote_refs(&url);
    disk.fill();
    // What the log of SQLite has room for may pass.
    await_that("the store is full", || {
        ann.commit("work", "more");
        let pushed = ann.git("work", &["push", "origin", "HEAD:refs/heads/other"]);
        common::text(&pushed).contains("the server's disk is full")
    });
    let lines = insist(&forge, &ann);
    assert!(lines < 200, "{lines} lines");
    assert_eq!(ann.remote_refs(&url)[..2], before[..2]);
    disk.free();
    await_that("a push passes again", || ann.git("work", &["push", "-q", "origin", "main"]).status.success());
    forge.assert_alike("demo");
    drop(forge);
    drop(disk);
}
