//! What a push may not do is refused ref by ref, with a reason that its user reads; what it may do passes as with plain Git.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::Forge;

#[test]
fn what_git_would_refuse_is_refused_with_its_reason_and_moves_nothing() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["tag", "-a", "-m", "one", "v1"]);
    ann.ok("work", &["push", "-q", "origin", "main", "main:refs/heads/topic/one", "v1"]);
    let blob = ann.ok("work", &["rev-parse", "HEAD:first.txt"]);
    let before = ann.remote_refs(&url);
    let version = forge.version("demo");
    // What is pushed, and what must be said of which ref.
    let cases: &[(&[&str], &str)] = &[
        (&["main:refs/heads/topic"], "topic (conflicts with 'refs/heads/topic/one', which exists)"),
        (&["main:refs/heads/main/sub"], "main/sub (conflicts with 'refs/heads/main', which exists)"),
        (&["main:refs/heads/x", "main:refs/heads/x/y"], "x/y (conflicts with 'refs/heads/x' in the same transaction)"),
        (&["v1:refs/heads/tagged"], "non-commit object"),
        (&["BLOB:refs/heads/blob"], "non-commit object"),
        (&["main:refs/worktree/mine"], "belongs to one worktree"),
        (&[":refs/heads/topic/one", "BLOB:refs/heads/topic"], "non-commit object"),
        (&["main:refs/tags/LONG"], "the name is too long"),
    ];
    for (refspecs, said) in cases {
        let refspecs: Vec<String> =
            refspecs.iter().map(|spec| spec.replace("BLOB", &blob).replace("LONG", &"l".repeat(251))).collect();
        let mut args = vec!["push", "origin"];
        args.extend(refspecs.iter().map(String::as_str));
        let answer = ann.fails("work", &args);
        assert!(answer.contains("[remote rejected]") && answer.contains(said), "{refspecs:?}: {answer}");
    }
    assert_eq!(ann.remote_refs(&url), before);
    assert_eq!(forge.version("demo"), version);
    forge.assert_alike("demo");
}

#[test]
fn what_plain_git_takes_is_taken() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let blob = ann.ok("work", &["rev-parse", "HEAD:first.txt"]);
    let cases: &[&[&str]] = &[
        &["--atomic", "main:refs/heads/a", "main:refs/heads/b"],
        &["-o", "ci.skip", "-o", "reviewer=bob", "main:refs/heads/c"],
        &["BLOB:refs/tags/blob", "BLOB:refs/notes/any"],
        &["main:refs/changes/01/1/1", "main:refs/keep/around"],
        &["main:refs/heads/ümläut"],
        &[":refs/heads/a", ":refs/heads/b"],
        &["main:refs/heads/a/deeper"],
        &[":refs/heads/a/deeper", "main:refs/heads/a"],
        &[":refs/heads/a", "main:refs/heads/a/b/c"],
        &[":refs/heads/was-never-there"],
    ];
    for refspecs in cases {
        let refspecs: Vec<String> = refspecs.iter().map(|spec| spec.replace("BLOB", &blob)).collect();
        let mut args = vec!["push", "origin"];
        args.extend(refspecs.iter().map(String::as_str));
        ann.ok("work", &args);
    }
    forge.assert_alike("demo");
    assert_eq!(forge.version("demo"), 2 + 9, "one version for each push that changed something");

    // A shallow clone pushes what it made upon it.
    ann.commit("work", "second");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let guest = forge.client("guest");
    guest.ok(".", &["clone", "-q", "--depth", "1", &url, "shallow"]);
    let id = guest.commit("shallow", "third");
    guest.ok("shallow", &["push", "-q", "origin", "main"]);
    assert!(ann.remote_refs(&url).contains(&format!("{id}\trefs/heads/main")));
    // And so do the older protocols.
    for version in ["0", "1"] {
        let protocol = format!("protocol.version={version}");
        let copy = format!("v{version}");
        guest.ok(".", &["-c", &protocol, "clone", "-q", &url, &copy]);
        guest.commit(&copy, &copy);
        guest.ok(&copy, &["-c", &protocol, "push", "-q", "origin", "main"]);
    }
    forge.assert_alike("demo");
}

#[test]
fn objects_that_are_damaged_or_missing_reach_no_replica() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    // A tree with an entry that no checkout may ever write.
    let blob = ann.ok("work", &["rev-parse", "HEAD:first.txt"]);
    let tree = {
        let home = ann.home.join("work");
        std::fs::write(home.join("entry"), format!("100644 blob {blob}\t.git\0")).unwrap();
        let mut mktree = ann.command(&home, &["mktree", "-z"]);
        mktree.stdin(std::fs::File::open(home.join("entry")).unwrap());
        String::from_utf8(mktree.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let commit = ann.ok("work", &["commit-tree", &tree, "-m", "bad"]);
    let said = ann.fails("work", &["push", "origin", &format!("{commit}:refs/heads/bad")]);
    assert!(said.contains("hasDotgit") || said.contains(".git"), "{said}");
    forge.assert_alike("demo");
    for node in 1..=3 {
        let bare = forge.bare("demo", node);
        let has =
            std::process::Command::new("git").args(["cat-file", "-e", &commit]).env("GIT_DIR", bare).output().unwrap();
        assert!(!has.status.success(), "node {node} holds it");
    }
}
