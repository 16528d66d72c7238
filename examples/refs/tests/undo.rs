//! `refs undo` from the outside: by version, by push, by actor; what somebody has moved since stays, and is named.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

struct World {
    folder: tempfile::TempDir,
    ids: Vec<String>,
}

impl World {
    /// A bare repository with three commits, the first of which `main` names, in a log as version 1.
    fn new() -> Self {
        let mut world = Self { folder: tempfile::tempdir().unwrap(), ids: Vec::new() };
        fs::create_dir(world.path("repo.git")).unwrap();
        world.git(&["init", "-q", "--bare", "-b", "main"]);
        let tree = world.git(&["hash-object", "-w", "-t", "tree", "/dev/null"]);
        world.ids = ["one", "two", "three"].map(|why| world.git(&["commit-tree", &tree, "-m", why])).to_vec();
        world.set("main", 0);
        world.import(&[]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn git(&self, words: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.path("repo.git")).args(["-c", "core.hooksPath=/dev/null"]).args(words);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@b");
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn set(&self, branch: &str, id: usize) {
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &self.ids[id]]);
    }

    fn delete(&self, branch: &str) {
        self.git(&["update-ref", "-d", &format!("refs/heads/{branch}")]);
    }

    fn holds(&self, branch: &str) -> Option<usize> {
        let said = self.git(&["for-each-ref", "--format=%(objectname)", &format!("refs/heads/{branch}")]);
        self.ids.iter().position(|id| *id == said)
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_refs")).current_dir(self.folder.path()).args(words).output().unwrap()
    }

    fn refs(&self, words: &[&str]) -> String {
        let out = self.run(words);
        assert!(out.status.success(), "refs {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn refused(&self, words: &[&str]) -> String {
        let out = self.run(words);
        assert_eq!(out.status.code(), Some(1), "refs {words:?}: {}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8(out.stderr).unwrap()
    }

    fn import(&self, words: &[&str]) {
        self.refs(&[&["import", "repo.git", "log"], words].concat());
    }

    fn undo(&self, words: &[&str]) -> String {
        self.refs(&[&["undo", "log", "repo.git"], words].concat())
    }

    /// Everything that is there, to see that nothing was done.
    fn all(&self) -> (String, Vec<u8>) {
        (self.git(&["for-each-ref"]), fs::read(self.path("log/records")).unwrap())
    }
}

/// Mallory moves one branch, deletes a second, makes a third and, with a second push, a fourth; Ann then moves the third.
fn mischief(world: &World) {
    world.set("gone", 1);
    world.import(&["--actor", "ann", "--push", "1"]);
    world.set("main", 1);
    world.delete("gone");
    world.set("made", 1);
    world.import(&["--actor", "mallory", "--push", "2"]);
    world.set("more", 2);
    world.import(&["--actor", "mallory", "--push", "3"]);
    world.set("made", 2);
    world.import(&["--actor", "ann", "--push", "4"]);
}

#[test]
fn what_an_actor_did_is_taken_back_where_nobody_has_moved_it_since() {
    let world = World::new();
    mischief(&world);
    let before = world.all();
    let words = ["--actor", "mallory"];
    let plan = world.undo(&[&words[..], &["--dry-run"]].concat());
    let stays = "stays: refs/heads/made, changed by version 3: version 5 has moved it since\n";
    assert!(plan.ends_with(&format!("{stays}would give back 3 refs; 1 changes stay\n")), "{plan}");
    assert!(plan.contains(&format!("{} {} refs/heads/main\n", world.ids[1], world.ids[0])), "{plan}");
    assert_eq!(world.all(), before, "a dry run does nothing");

    let said = world.undo(&words);
    assert!(said.contains(stays) && said.contains("version 6: 3 changes"), "{said}");
    let held = ["main", "gone", "made", "more"].map(|branch| world.holds(branch));
    assert_eq!(held, [Some(0), Some(1), Some(2), None]);
    world.refs(&["verify", "log", "--against", "repo.git"]);
    let log = world.refs(&["log", "log"]);
    assert!(log.contains(" by mallory push 2\n") && log.ends_with(" undoes 3, 4\n"), "{log}");
    assert!(world.refused(&["undo", "log", "repo.git", "--actor", "mallory"]).contains("nothing can be given back"));
}

/// One push of two, one version of five; taking back what took back is doing it again.
#[test]
fn a_push_or_a_version_is_taken_back_alone() {
    let world = World::new();
    mischief(&world);
    world.undo(&["--push", "3"]);
    assert_eq!(["main", "more"].map(|branch| world.holds(branch)), [Some(1), None]);
    world.undo(&["--version", "6"]);
    assert_eq!(world.holds("more"), Some(2));
    // Two that moved one ref one after the other are taken back together.
    world.undo(&["--version", "3", "--version", "5"]);
    assert_eq!(["main", "gone", "made"].map(|branch| world.holds(branch)), [Some(0), Some(1), None]);
    world.refs(&["verify", "log", "--against", "repo.git"]);
}

#[test]
fn nothing_is_done_where_the_log_does_not_know_enough() {
    let world = World::new();
    mischief(&world);
    assert!(world.refused(&["undo", "log", "repo.git", "--push", "9"]).contains("no such record is in the log"));
    for words in [&[][..], &["--push", "2", "--actor", "ann"]] {
        assert_eq!(world.run(&[&["undo", "log", "repo.git"], words].concat()).status.code(), Some(2), "{words:?}");
    }
    world.set("main", 2);
    let before = world.all();
    let said = world.refused(&["undo", "log", "repo.git", "--push", "2"]);
    assert!(said.contains("repo.git differs from the log in 1 refs: import it first"), "{said}");
    assert_eq!(world.all(), before);
    world.import(&[]);
    world.refs(&["compact", "log", "--keep", "1"]);
    let out = world.run(&["undo", "log", "repo.git", "--actor", "mallory"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(
        !out.status.success() && said.contains("not looked at: versions 1..5, which only the snapshot holds"),
        "{said}"
    );
}

/// What Git cannot carry out is in the log neither: the commit that the branch named has been collected.
#[test]
fn what_git_refuses_is_not_recorded() {
    let world = World::new();
    mischief(&world);
    world.git(&["update-ref", "-d", "refs/heads/main"]);
    world.import(&["--push", "5"]);
    world.git(&["update-ref", "-d", "refs/heads/made"]);
    world.import(&[]);
    // The commit that `made` held goes; `more` holds it no longer either.
    world.delete("more");
    world.import(&["--push", "7"]);
    world.git(&["-c", "gc.reflogExpire=now", "gc", "-q", "--prune=now"]);
    let before = world.all();
    let said = world.refused(&["undo", "log", "repo.git", "--push", "7"]);
    assert!(said.contains("git update-ref refused") && said.contains("refs/heads/more"), "{said}");
    assert_eq!(world.all(), before);
}
