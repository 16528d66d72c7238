//! Repositories as they are found in the field: old, odd, mirrored in and out. Whatever objects a test needs, it makes itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::Write as _;
use std::process::Stdio;

use common::{Client, Forge};

/// Writes an object as it stands, whatever Git would say of it; its id.
fn object(client: &Client, folder: &str, kind: &str, content: &[u8]) -> String {
    let mut hash =
        client.command(&client.home.join(folder), &["hash-object", "--literally", "-w", "--stdin", "-t", kind]);
    let mut child = hash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A tree of these entries, as they stand.
fn tree(client: &Client, folder: &str, entries: &[(&str, &str, &str)]) -> String {
    let mut content = Vec::new();
    for (mode, name, id) in entries {
        content.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        content.extend((0..40).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
    }
    object(client, folder, "tree", &content)
}

/// A commit of a tree, with these lines for its author and its committer.
fn commit(client: &Client, folder: &str, tree: &str, author: &str, committer: &str) -> String {
    let text = format!("tree {tree}\nauthor {author}\ncommitter {committer}\n\nold\n");
    object(client, folder, "commit", text.as_bytes())
}

const GOOD: &str = "A <a@example.org> 1100000000 +0100";

/// What old repositories have in them and what harms nobody: a name for each, and the commit.
fn harmless(client: &Client, folder: &str) -> Vec<(&'static str, String)> {
    let blob = object(client, folder, "blob", b"old\n");
    let deep = tree(client, folder, &[("100644", "file", &blob)]);
    let plain = tree(client, folder, &[("100644", "file", &blob)]);
    let padded = tree(client, folder, &[("100644", "a", &blob), ("040000", "folder", &deep)]);
    let group = tree(client, folder, &[("100664", "file", &blob)]);
    let make = |author: &str| commit(client, folder, &plain, author, GOOD);
    vec![
        ("zeroPaddedFilemode", commit(client, folder, &padded, GOOD, GOOD)),
        ("badFilemode", commit(client, folder, &group, GOOD, GOOD)),
        ("badTimezone", make("A <a@example.org> 1300000000 -07000")),
        ("missingSpaceBeforeDate", make("A <a@example.org>1300000000 +0000")),
        ("missingSpaceBeforeEmail", make("A<a@example.org> 1300000000 +0000")),
        ("missingNameBeforeEmail", make("<a@example.org> 1300000000 +0000")),
        ("missingEmail", make("A 1300000000 +0000")),
        ("badEmail", make("A <a@example.org 1300000000 +0000")),
        ("badName", make("A > B <a@example.org> 1300000000 +0000")),
        ("zeroPaddedDate", make("A <a@example.org> 01300000000 +0000")),
        ("badDateOverflow", make("A <a@example.org> 99999999999999999999 +0000")),
        (
            "multipleAuthors",
            object(
                client,
                folder,
                "commit",
                format!("tree {plain}\nauthor {GOOD}\nauthor {GOOD}\ncommitter {GOOD}\n\nold\n").as_bytes(),
            ),
        ),
    ]
}

/// What could trick a checkout, or is no repository's content at all.
fn harmful(client: &Client, folder: &str) -> Vec<(&'static str, String)> {
    let blob = object(client, folder, "blob", b"new\n");
    let link = object(client, folder, "blob", b"/etc/passwd");
    let modules =
        object(client, folder, "blob", b"[submodule \"../../x\"]\n\tpath = x\n\turl = https://example.org/x\n");
    let modules_url = object(client, folder, "blob", b"[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=touch\n");
    let of = |entries: &[(&str, &str, &str)]| commit(client, folder, &tree(client, folder, entries), GOOD, GOOD);
    vec![
        ("hasDotgit", of(&[("100644", ".git", &blob)])),
        ("hasDotgit", of(&[("100644", ".GIT", &blob)])),
        ("hasDotgit", of(&[("100644", "git~1", &blob)])),
        ("hasDotdot", of(&[("100644", "..", &blob)])),
        ("fullPathname", of(&[("100644", "a/b", &blob)])),
        ("duplicateEntries", of(&[("100644", "a", &blob), ("100644", "a", &link)])),
        ("treeNotSorted", of(&[("100644", "b", &blob), ("100644", "a", &blob)])),
        ("gitmodulesSymlink", of(&[("120000", ".gitmodules", &link)])),
        ("gitmodulesName", of(&[("100644", ".gitmodules", &modules)])),
        ("gitmodulesUrl", of(&[("100644", ".gitmodules", &modules_url)])),
    ]
}

#[test]
fn the_harmless_faults_of_old_repositories_pass_and_those_that_harm_do_not() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("old"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    for (fault, id) in harmless(&ann, "work") {
        ann.ok("work", &["push", "-q", "origin", &format!("{id}:refs/heads/{fault}")]);
    }
    for (fault, id) in harmful(&ann, "work") {
        let said = ann.fails("work", &["push", "origin", &format!("{id}:refs/heads/{fault}")]);
        assert!(said.contains("[remote rejected]"), "{fault}: {said}");
        for node in 1..=3 {
            let bare = forge.bare("old", node);
            let has = std::process::Command::new("git").args(["cat-file", "-e", &id]).env("GIT_DIR", &bare).output();
            assert!(!has.unwrap().status.success(), "{fault}: node {node} holds it");
        }
    }
    forge.assert_alike("old");
    // What was taken can be fetched, whole.
    ann.ok(".", &["clone", "-q", "--mirror", &forge.repo_url("old"), "mirror"]);
    assert_eq!(ann.ok("mirror", &["for-each-ref"]).lines().count(), 1 + harmless(&ann, "work").len());
    // A replica that is built again takes the same.
    forge.ok(&["rebuild", "old", "2"]);
    forge.assert_alike("old");
}

#[test]
fn a_strict_host_refuses_harmless_faults_too() {
    let forge = Forge::with(&["--strict-objects"], &[]);
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("old"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    for (fault, id) in harmless(&ann, "work").into_iter().filter(|(fault, _)| *fault != "badFilemode") {
        let said = ann.fails("work", &["push", "origin", &format!("{id}:refs/heads/{fault}")]);
        assert!(said.contains(fault), "{fault}: {said}");
    }
}

#[test]
fn a_first_push_that_fails_leaves_no_repository() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    let url = forge.repo_url("team/new");
    ann.init("work", &url);
    let (_, bad) = harmful(&ann, "work").remove(0);
    let names = || {
        let status = forge.status();
        status["repos"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Whoever only asks makes none either.
    ann.ok("work", &["push", "-q", "--dry-run", "origin", "main"]);
    for refspecs in [vec![format!("{bad}:refs/heads/main")], vec![format!("{bad}:refs/heads/x"), "main".to_owned()]] {
        let mut args = vec!["push", "origin"];
        args.extend(refspecs.iter().map(String::as_str));
        let said = ann.fails("work", &args);
        assert!(said.contains("[remote rejected]"), "{said}");
        assert!(!names().contains(&"team/new".to_owned()), "{:?}", names());
    }
    ann.fails(".", &["ls-remote", &url]);
    // The next one makes it.
    ann.ok("work", &["push", "-q", "origin", "main"]);
    assert!(names().contains(&"team/new".to_owned()));
    forge.assert_alike("team/new");
    // And a later one that fails does not take it away.
    ann.fails("work", &["push", "origin", &format!("{bad}:refs/heads/bad")]);
    assert!(names().contains(&"team/new".to_owned()));
}

#[test]
fn the_default_branch_is_one_that_people_expect_and_follows_when_it_is_deleted() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    let head = |name: &str| {
        let refs = ann.remote_refs(&forge.repo_url(name));
        refs.iter()
            .find_map(|line| line.strip_prefix("ref: refs/heads/"))
            .map(|l| l.split('\t').next().unwrap().to_owned())
    };
    ann.init("work", &forge.repo_url("unused"));
    for (number, branch) in ["abc", "stable", "zzz"].iter().enumerate() {
        ann.ok("work", &["branch", branch]);
        ann.ok("work", &["checkout", "-q", branch]);
        let date = if *branch == "stable" { 1_900_000_000 } else { 1_800_000_000 + number };
        std::fs::write(ann.home.join("work/file"), branch).unwrap();
        ann.ok("work", &["add", "."]);
        let mut command = ann.command(&ann.home.join("work"), &["commit", "-q", "-m", branch]);
        command.env("GIT_COMMITTER_DATE", format!("{date} +0000"));
        assert!(common::bounded(command).status.success());
    }
    // main, then master, then the branch of the newest commit; never simply the first.
    let push = |name: &str, branches: &[&str]| {
        let url = forge.repo_url(name);
        let mut args = vec!["push", "-q", url.as_str()];
        args.extend_from_slice(branches);
        ann.ok("work", &args);
    };
    push("one", &["abc", "main", "stable"]);
    assert_eq!(head("one").as_deref(), Some("main"));
    push("two", &["abc", "main:master", "stable"]);
    assert_eq!(head("two").as_deref(), Some("master"));
    push("three", &["abc", "stable", "zzz"]);
    assert_eq!(head("three").as_deref(), Some("stable"));
    // A mirror whose newest push drops the default branch.
    push("three", &[":stable", "zzz:later"]);
    assert!(["zzz", "later"].contains(&head("three").as_deref().unwrap()), "{:?}", head("three"));
    push("one", &[":main"]);
    assert_eq!(head("one").as_deref(), Some("stable"));
    // It can be chosen.
    assert_eq!(forge.ok(&["default-branch", "one", "abc"]).trim(), "abc");
    assert_eq!((head("one").as_deref(), forge.ok(&["default-branch", "one"]).trim()), (Some("abc"), "abc"));
    let said = forge.run(&["default-branch", "one", "nowhere"]);
    assert!(!said.status.success() && common::text(&said).contains("no branch nowhere"), "{}", common::text(&said));
    for name in ["one", "two", "three"] {
        forge.assert_alike(name);
    }
    // A mirror is what was mirrored.
    ann.ok(".", &["clone", "-q", "--mirror", &forge.repo_url("one"), "mirror"]);
    push("again", &["--mirror"]);
}

#[test]
fn lfs_is_refused_in_words_that_its_client_shows() {
    let forge = Forge::start();
    let reply = common::http(&forge.url, "POST", "/demo.git/info/lfs/objects/batch", "{}");
    assert!(reply.starts_with("HTTP/1.1 501 "), "{reply}");
    assert!(reply.contains("application/vnd.git-lfs+json") && reply.contains("stores no Git LFS objects"), "{reply}");
}

#[test]
fn a_signed_push_and_other_ids_are_refused_once_and_in_words() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let said = ann.fails("work", &["push", "--signed=yes", "origin", "main:signed"]);
    assert!(said.contains("does not support --signed"), "{said}");
    ann.ok(".", &["init", "-q", "--object-format=sha256", "other"]);
    ann.ok("other", &["commit", "-q", "--allow-empty", "-m", "one"]);
    let said = ann.fails("other", &["push", &forge.repo_url("demo"), "HEAD:other"]);
    assert!(said.contains("hash algorithm"), "{said}");
    // A push option that nobody knows here is said to have done nothing.
    let out = ann.git("work", &["push", "-o", "reviewer=bob", "origin", "main:options"]);
    assert!(
        out.status.success() && common::text(&out).contains("`reviewer=bob` is not known here"),
        "{}",
        common::text(&out)
    );
}
