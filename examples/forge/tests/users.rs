//! What users do with stock `git`, with all nodes up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Forge, text};

#[test]
fn a_first_push_makes_the_repository_and_every_kind_of_push_reaches_all_replicas() {
    let forge = Forge::start();
    let url = forge.repo_url("team/demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "origin", "main"]);

    // Several branches and tags at once, one of them annotated.
    let first = ann.ok("work", &["rev-parse", "HEAD"]);
    ann.ok("work", &["branch", "topic"]);
    ann.ok("work", &["tag", "light"]);
    ann.ok("work", &["tag", "-a", "-m", "v1", "v1"]);
    let second = ann.commit("work", "second");
    ann.ok("work", &["push", "origin", "--all"]);
    ann.ok("work", &["push", "origin", "--tags"]);

    let bob = forge.client("bob");
    bob.ok(".", &["clone", "-q", &url, "work"]);
    assert_eq!(bob.ok("work", &["rev-parse", "HEAD", "origin/topic", "light"]), format!("{second}\n{first}\n{first}"));
    assert_eq!(bob.ok("work", &["cat-file", "-t", "v1"]), "tag");
    bob.ok("work", &["fsck", "--strict"]);

    // A forced push back, a deletion of a branch and of a tag.
    ann.ok("work", &["reset", "-q", "--hard", &first]);
    let third = ann.commit("work", "third");
    ann.fails("work", &["push", "origin", "main"]);
    ann.ok("work", &["push", "--force", "origin", "main"]);
    ann.ok("work", &["push", "origin", ":topic", ":refs/tags/light"]);
    bob.ok("work", &["fetch", "-q", "--prune", "--prune-tags", "--force", "origin"]);
    assert_eq!(bob.ok("work", &["rev-parse", "origin/main"]), third);
    assert_eq!(
        bob.ok("work", &["for-each-ref", "--format=%(refname)"]),
        "refs/heads/main\nrefs/remotes/origin/HEAD\nrefs/remotes/origin/main\nrefs/tags/v1"
    );

    // A push that changes nothing makes no version.
    let version = forge.version("team/demo");
    ann.ok("work", &["push", "origin", "main"]);
    assert_eq!(forge.version("team/demo"), version);

    let found = forge.assert_alike("team/demo");
    let refs = found["replicas"][0]["refs"].as_str().unwrap();
    assert!(refs.contains(&format!("{third} refs/heads/main")) || refs.contains("refs/heads/main"), "{refs}");
}

#[test]
fn shallow_and_partial_clones_are_served() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    for n in 0..5 {
        ann.commit("work", &format!("c{n}"));
    }
    ann.ok("work", &["push", "-q", "origin", "main"]);

    ann.ok(".", &["clone", "-q", "--depth=2", &url, "shallow"]);
    assert_eq!(ann.ok("shallow", &["rev-list", "--count", "HEAD"]), "2");
    ann.ok("shallow", &["fetch", "-q", "--unshallow"]);
    assert_eq!(ann.ok("shallow", &["rev-list", "--count", "HEAD"]), "6");

    ann.ok(".", &["clone", "-q", "--filter=blob:none", "--no-checkout", &url, "partial"]);
    let missing = ann.ok("partial", &["rev-list", "--objects", "--missing=print", "HEAD"]);
    assert!(missing.contains("\n?"), "nothing was left out: {missing}");
    ann.ok("partial", &["checkout", "-q", "main"]);
    assert!(ann.home.join("partial/c4.txt").exists());

    // From a shallow clone one may push, too.
    ann.ok(".", &["clone", "-q", "--depth=1", &url, "thin"]);
    let id = ann.commit("thin", "from-shallow");
    ann.ok("thin", &["push", "-q", "origin", "main"]);
    assert!(ann.remote_refs(&url).iter().any(|line| *line == format!("{id}\trefs/heads/main")));
    forge.assert_alike("demo");
}

#[test]
fn head_names_the_branch_that_the_first_push_brings() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    assert_eq!(forge.ok(&["create", "empty"]).trim(), format!("git clone {}", forge.repo_url("empty")));
    ann.ok(".", &["clone", "-q", &forge.repo_url("empty"), "empty"]);
    assert_eq!(ann.ok("empty", &["symbolic-ref", "HEAD"]), "refs/heads/main");

    let url = forge.repo_url("trunk");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "HEAD:refs/heads/trunk"]);
    assert!(ann.remote_refs(&url).contains(&"ref: refs/heads/trunk\tHEAD".to_owned()));
    ann.ok(".", &["clone", "-q", &url, "clone"]);
    assert_eq!(ann.ok("clone", &["symbolic-ref", "HEAD"]), "refs/heads/trunk");

    // A later `main` does not move it.
    ann.ok("work", &["push", "-q", "origin", "HEAD:refs/heads/main"]);
    assert!(ann.remote_refs(&url).contains(&"ref: refs/heads/trunk\tHEAD".to_owned()));
    forge.assert_alike("trunk");
}

/// A `pre-push` hook runs between the server's advertisement and the push: what it pushes from
/// another clone makes the old values of the first stale.
fn sneak_in(client: &common::Client, folder: &str, other: &str, refspec: &str) {
    let hook = client.home.join(folder).join(".git/hooks/pre-push");
    let other = client.home.join(other);
    let script = format!("#!/bin/sh\nunset GIT_DIR\nexec git -C '{}' push -q origin {refspec}\n", other.display());
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn of_two_pushes_that_race_on_one_ref_one_is_rejected_and_told_why() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("one", &url);
    ann.ok("one", &["push", "-q", "origin", "main"]);
    ann.ok(".", &["clone", "-q", &url, "two"]);
    ann.commit("one", "mine");
    let theirs = ann.commit("two", "theirs");
    let version = forge.version("demo");

    sneak_in(&ann, "one", "two", "main");
    let said = ann.fails("one", &["push", "origin", "main"]);
    assert!(said.contains("[remote rejected] main -> main ("), "{said}");
    assert_eq!(forge.version("demo"), version + 1);
    assert!(ann.remote_refs(&url).contains(&format!("{theirs}\trefs/heads/main")));
    forge.assert_alike("demo");
}

#[test]
fn ten_refs_with_one_stale_none_moves_and_each_is_told_why() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("one", &url);
    ann.ok("one", &["push", "-q", "origin", "main"]);
    ann.ok(".", &["clone", "-q", &url, "two"]);
    ann.commit("two", "theirs");
    ann.commit("one", "mine");
    let mut refspecs = vec!["HEAD:main".to_owned()];
    refspecs.extend((1..10).map(|n| format!("HEAD:refs/heads/b{n}")));
    sneak_in(&ann, "one", "two", "main");

    let mut args = vec!["push", "--porcelain", "origin"];
    args.extend(refspecs.iter().map(String::as_str));
    let said = ann.fails("one", &args);
    let rejected: Vec<&str> = said.lines().filter(|line| line.starts_with('!')).collect();
    assert_eq!(rejected.len(), 10, "{said}");
    assert!(rejected.iter().all(|line| line.contains("[remote rejected] (")), "{said}");
    let refs = ann.remote_refs(&url);
    assert!(refs.iter().all(|line| !line.contains("refs/heads/b")), "{refs:?}");

    // The same push again, rebased by force, moves all ten.
    std::fs::remove_file(ann.home.join("one/.git/hooks/pre-push")).unwrap();
    args.insert(1, "--force");
    ann.ok("one", &args);
    assert_eq!(ann.remote_refs(&url).iter().filter(|line| line.contains("refs/heads/")).count(), 11);
    forge.assert_alike("demo");
}

#[test]
fn clients_push_at_once_and_nothing_acknowledged_is_missing() {
    let forge = Forge::start();
    let shared = forge.repo_url("shared");
    forge.ok(&["create", "shared"]);
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let client = forge.client(&format!("client-{n}"));
            let shared = shared.clone();
            std::thread::spawn(move || {
                client.init("work", &shared);
                let mut acknowledged = Vec::new();
                for round in 0..3 {
                    let id = client.commit("work", &format!("n{n}-{round}"));
                    let name = format!("refs/heads/n{n}/r{round}");
                    client.ok("work", &["push", "-q", "origin", &format!("HEAD:{name}")]);
                    acknowledged.push(format!("{id}\t{name}"));
                    // Whoever was told of a push sees it.
                    assert!(client.remote_refs(&shared).contains(acknowledged.last().unwrap()));
                }
                acknowledged
            })
        })
        .collect();
    let acknowledged: Vec<String> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    let refs = forge.client("reader").remote_refs(&shared);
    for line in &acknowledged {
        assert!(refs.contains(line), "{line} is missing in {refs:?}");
    }
    assert_eq!(forge.version("shared"), 1 + acknowledged.len() as u64);
    forge.assert_alike("shared");
}

#[test]
fn a_log_is_compacted_and_a_replica_is_built_again_from_it() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    for n in 0..6 {
        ann.commit("work", &format!("c{n}"));
        ann.ok("work", &["push", "-q", "origin", "main", &format!("HEAD:refs/heads/b{n}")]);
    }
    ann.ok("work", &["push", "-q", "origin", ":b0", ":b1"]);
    let before = forge.assert_alike("demo");
    let said = forge.ok(&["compact", "demo"]);
    assert!(said.starts_with("folded 8 records of 8 versions: the log is now "), "{said}");
    assert!(said.contains(" 0 records"), "{said}");
    let said = forge.ok(&["compact", "demo"]);
    assert!(said.starts_with("folded 0 records"), "{said}");

    let replica = forge.bare("demo", 3);
    assert!(replica.join("objects").exists());
    assert_eq!(forge.ok(&["rebuild", "demo", "3"]).trim(), "node 3 holds version 8 of demo again");
    assert!(replica.join("objects").exists());
    let after = forge.assert_alike("demo");
    assert_eq!(before["replicas"][2]["refs"], after["replicas"][2]["refs"]);

    // And goes on from there.
    ann.commit("work", "after");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    forge.ok(&["compact", "demo"]);
    forge.assert_alike("demo");
}

#[test]
fn bodies_of_every_size_pass() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    // Larger than what Git posts in one piece (1 MiB), and than what is spooled in memory.
    std::fs::write(ann.home.join("work/noise"), common::noise(3_000_000)).unwrap();
    ann.commit("work", "large");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    // Enough branches that a fetch request exceeds what Git sends without gzip.
    for n in 0..60 {
        ann.ok("work", &["branch", &format!("b{n}")]);
    }
    ann.ok("work", &["push", "-q", "origin", "--all"]);
    ann.ok(".", &["clone", "-q", "--mirror", &url, "mirror"]);
    assert_eq!(ann.ok("mirror", &["for-each-ref"]).lines().count(), 61);
    ann.ok("mirror", &["-c", "protocol.version=0", "fetch", "-q", "origin"]);
    ann.ok("mirror", &["fsck"]);
    let out = ann.git("work", &["push", "origin", "main"]);
    assert!(text(&out).contains("Everything up-to-date"));
}
