//! An admin's first week: repositories deleted, renamed, forked, protected, swept.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Client, Forge, await_that, text};

fn names(forge: &Forge) -> Vec<String> {
    let status = forge.status();
    status["repos"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect()
}

fn with_one_push(forge: &Forge, name: &str) -> Client {
    let ann = forge.client("ann");
    ann.init(name, &forge.repo_url(name));
    ann.ok(name, &["push", "-q", "origin", "main"]);
    ann
}

/// Whether an object is in the folder of a repository, in whatever form.
fn holds(bare: &Path, id: &str) -> bool {
    let mut folders: Vec<PathBuf> = vec![bare.join("objects")];
    folders.extend(std::fs::read_dir(bare.join("parcels")).into_iter().flatten().map(|entry| entry.unwrap().path()));
    folders.iter().any(|objects| {
        let mut git = Command::new("git");
        git.args(["cat-file", "-e", id]).env("GIT_DIR", bare).env("GIT_OBJECT_DIRECTORY", objects);
        git.output().unwrap().status.success()
    })
}

#[test]
fn a_deleted_repository_is_gone_from_every_node_and_its_name_is_free() {
    let mut forge = Forge::start();
    let ann = with_one_push(&forge, "project");
    let bares: Vec<PathBuf> = (1..=3).map(|node| forge.bare("project", node)).collect();
    let id = forge.repo_id("project");
    let said = forge.run(&["delete", "project"]);
    assert!(!said.status.success() && text(&said).contains("--yes"), "{}", text(&said));
    assert!(names(&forge).contains(&"project".to_owned()));

    // A node that is away hears of it when it is back.
    forge.node("kill", 3);
    forge.ok(&["delete", "project", "--yes"]);
    assert!(!names(&forge).contains(&"project".to_owned()));
    ann.fails(".", &["ls-remote", &forge.repo_url("project")]);
    let said = forge.run(&["delete", "project", "--yes"]);
    assert!(text(&said).contains("no repository project"), "{}", text(&said));
    forge.node("start", 3);

    // The next of its name is another.
    ann.commit("project", "second");
    ann.ok("project", &["push", "-q", "origin", "main"]);
    assert_ne!(forge.repo_id("project"), id);
    forge.assert_alike("project");
    await_that("the folders of the deleted one are gone", || bares[..2].iter().all(|bare| !bare.exists()));
    forge.restart();
    ann.ok(".", &["clone", "-q", &forge.repo_url("project"), "copy"]);
    forge.assert_alike("project");
}

#[test]
fn a_repository_takes_another_name_and_a_fork_is_one_of_its_own() {
    let forge = Forge::start();
    let ann = with_one_push(&forge, "project");
    ann.ok("project", &["tag", "-a", "-m", "one", "v1"]);
    ann.ok("project", &["push", "-q", "origin", "main:refs/heads/stable", "v1"]);
    forge.ok(&["default-branch", "project", "stable"]);
    let said = forge.ok(&["rename", "project", "team/thing"]);
    assert!(said.contains("team/thing.git"), "{said}");
    ann.fails(".", &["ls-remote", &forge.repo_url("project")]);
    let refs = ann.remote_refs(&forge.repo_url("team/thing"));
    let said = forge.run(&["rename", "team/thing", "demo"]);
    assert!(!said.status.success() && text(&said).contains("there is a repository demo"), "{}", text(&said));

    let said = forge.ok(&["fork", "team/thing", "mine"]);
    assert!(said.contains("git clone ") && said.contains("/mine.git"), "{said}");
    assert_eq!(ann.remote_refs(&forge.repo_url("mine")), refs, "the same branches, tags and HEAD");
    let said = forge.run(&["fork", "team/thing", "mine"]);
    assert!(!said.status.success() && text(&said).contains("there is a repository mine"), "{}", text(&said));
    // What happens in one does not happen in the other.
    ann.commit("project", "second");
    ann.ok("project", &["push", "-q", &forge.repo_url("mine"), "main:stable"]);
    assert_eq!(ann.remote_refs(&forge.repo_url("team/thing")), refs);
    forge.ok(&["delete", "team/thing", "--yes"]);
    ann.ok(".", &["clone", "-q", &forge.repo_url("mine"), "copy"]);
    ann.ok("copy", &["fsck", "--strict"]);
    forge.assert_alike("mine");
    forge.ok(&["rebuild", "mine", "2"]);
    forge.assert_alike("mine");
    // Of nothing there is a fork, too.
    forge.ok(&["create", "empty"]);
    forge.ok(&["fork", "empty", "empty-too"]);
    forge.assert_alike("empty-too");
}

#[test]
fn a_protected_branch_is_neither_deleted_nor_forced() {
    let forge = Forge::start();
    let ann = with_one_push(&forge, "project");
    assert_eq!(forge.ok(&["protect", "project"]).trim(), "no branch is protected");
    assert_eq!(forge.ok(&["protect", "project", "main"]).trim(), "main");
    ann.commit("project", "second");
    ann.ok("project", &["push", "-q", "origin", "main", "main:other"]);
    let said = ann.fails("project", &["push", "origin", ":main"]);
    assert!(said.contains("main (the branch is protected: it cannot be deleted)"), "{said}");
    ann.ok("project", &["reset", "-q", "--hard", "HEAD~1"]);
    ann.commit("project", "third");
    let said = ann.fails("project", &["push", "--force", "origin", "main", "main:other"]);
    assert!(said.contains("main (the branch is protected: it cannot be forced)"), "{said}");
    assert!(said.contains("other (not moved: another ref of this push was refused)"), "{said}");
    ann.ok("project", &["push", "--force", "-q", "origin", "main:other"]);
    assert_eq!(forge.ok(&["protect", "project", "main", "--off"]).trim(), "no branch is protected");
    ann.ok("project", &["push", "--force", "-q", "origin", "main"]);
    forge.assert_alike("project");
}

#[test]
fn objects_of_a_refused_push_are_on_no_node_and_what_was_forced_away_is_swept() {
    let forge = Forge::start();
    let ann = with_one_push(&forge, "project");
    let url = forge.repo_url("project");
    // Refused by a rule of the host, after its objects had been shipped everywhere.
    forge.ok(&["protect", "project", "main"]);
    let secret = ann.commit("project", "secret");
    ann.ok("project", &["checkout", "-q", "--orphan", "apart"]);
    ann.ok("project", &["rm", "-rfq", "."]);
    let apart = ann.commit("project", "apart");
    ann.fails("project", &["push", "--force", "origin", "apart:main", &format!("{secret}:refs/heads/x")]);
    let bob = forge.client("bob");
    bob.ok(".", &["clone", "-q", &url, "copy"]);
    let held = |id: &str| (1..=3).filter(|node| holds(&forge.bare("project", *node), id)).collect::<Vec<u32>>();
    for id in [&secret, &apart] {
        await_that("the objects are gone everywhere", || held(id).is_empty());
        bob.fails("copy", &["-c", "protocol.version=2", "fetch", "origin", id]);
    }

    // Pushed, then forced away: not served from then on, and swept out on demand.
    ann.ok("project", &["push", "-q", "origin", &format!("{secret}:refs/heads/x")]);
    let content = ann.ok("project", &["rev-parse", &format!("{secret}:secret.txt")]);
    ann.ok("project", &["push", "-q", "--force", "origin", "apart:x"]);
    forge.assert_alike("project");
    for (id, version) in [(&secret, "2"), (&secret, "0"), (&content, "2")] {
        let protocol = format!("protocol.version={version}");
        let said = bob.fails("copy", &["-c", &protocol, "fetch", "origin", id]);
        assert!(said.contains("not our ref") || said.contains("unadvertised object"), "{said}");
    }
    // What a branch reaches is served by its id, whether it is a tip or not, a commit or a file.
    ann.ok("project", &["checkout", "-q", "apart"]);
    ann.commit("project", "later");
    ann.ok("project", &["push", "-q", "origin", "apart:x"]);
    let file = ann.ok("project", &["rev-parse", &format!("{apart}:apart.txt")]);
    for id in [&apart, &file] {
        bob.ok("copy", &["fetch", "-q", "origin", id]);
    }
    assert_eq!(held(&secret), [1, 2, 3]);
    let said = forge.ok(&["gc", "project"]);
    for node in 1..=3 {
        assert!(said.contains(&format!("node {node}: ")) && said.contains("bytes freed"), "{said}");
    }
    assert!(held(&secret).is_empty() && held(&content).is_empty());
    forge.assert_alike("project");
    for node in 1..=3 {
        let bare = forge.bare("project", node);
        let fsck = Command::new("git").args(["fsck", "--strict"]).env("GIT_DIR", &bare).output().unwrap();
        assert!(fsck.status.success(), "node {node}: {}", text(&fsck));
    }
    ann.ok(".", &["clone", "-q", "--mirror", &url, "mirror"]);
    // What was swept can be pushed again.
    ann.ok("project", &["push", "-q", "origin", &format!("{secret}:refs/heads/again")]);
    forge.assert_alike("project");
}

#[test]
fn the_whole_is_backed_up_and_comes_back_in_another_forge() {
    let forge = Forge::start();
    let ann = with_one_push(&forge, "project");
    ann.ok("project", &["tag", "-a", "-m", "one", "v1"]);
    ann.ok("project", &["push", "-q", "origin", "main:refs/heads/stable", "main:refs/notes/any", "v1"]);
    forge.ok(&["default-branch", "project", "stable"]);
    forge.ok(&["protect", "project", "main"]);
    forge.ok(&["rename", "project", "team/project"]);
    forge.ok(&["create", "empty"]);
    let refs = ann.remote_refs(&forge.repo_url("team/project"));
    let folder = forge.path().join("backup");
    let folder = folder.to_str().unwrap();
    let said = forge.ok(&["backup", folder]);
    assert!(said.starts_with("3 repositories, "), "{said}");
    let said = forge.run(&["backup", folder]);
    assert!(!said.status.success() && text(&said).contains("is there already"), "{}", text(&said));

    let other = Forge::start();
    let said = other.ok(&["restore", folder]);
    assert!(
        said.contains("demo: is there, and stays as it is") && said.contains("2 repositories are restored"),
        "{said}"
    );
    assert_eq!(ann.remote_refs(&other.repo_url("team/project")), refs);
    assert_eq!(other.ok(&["protect", "team/project"]).trim(), "main");
    ann.ok(".", &["clone", "-q", "--mirror", &other.repo_url("team/project"), "mirror"]);
    ann.ok("mirror", &["fsck", "--strict"]);
    other.assert_alike("team/project");
    assert!(names(&other).contains(&"empty".to_owned()));

    // A backup that is damaged, or was cut short, makes nothing of what it cannot make whole.
    other.ok(&["delete", "team/project", "--yes"]);
    let id = forge.repo_id("team/project");
    let file = Path::new(folder).join(format!("{id}.repository"));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() - 40;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let said = text(&other.run(&["restore", folder]));
    assert!(said.contains("team/project: not restored") && said.contains("1 repositories are not restored"), "{said}");
    assert!(!names(&other).contains(&"team/project".to_owned()));
    std::fs::remove_file(Path::new(folder).join("manifest.json")).unwrap();
    let said = text(&other.run(&["restore", folder]));
    assert!(said.contains("holds no whole backup"), "{said}");
}
