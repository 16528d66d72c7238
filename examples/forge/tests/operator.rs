//! What an operator does with the real program: a store from a backup is recovered, a repository moves to other nodes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::Forge;
use nix::sys::signal::Signal;

#[test]
fn a_store_from_a_backup_forgets_nothing() {
    let mut forge = Forge::start();
    let user = forge.client("user");
    user.init("work", &forge.repo_url("project"));
    user.ok("work", &["push", "-q", "origin", "HEAD:main"]);
    let backup = forge.path().join("store.backup");
    let backup = backup.to_str().unwrap();
    forge.ok(&["store", "backup", backup]);

    // What the backup does not know of: two pushes, and a repository.
    user.commit("work", "second");
    user.ok("work", &["push", "-q", "origin", "HEAD:main"]);
    let newest = user.commit("work", "third");
    user.ok("work", &["push", "-q", "origin", "HEAD:main", "HEAD:refs/heads/side"]);
    let (version, late) = (forge.version("project"), forge.repo_url("late"));
    user.ok("work", &["push", "-q", &late, "HEAD:main"]);
    let late = forge.repo_id("late");
    let refused = forge.run(&["store", "restore", backup]);
    assert!(!refused.status.success() && common::text(&refused).contains("another forge serves"));

    forge.end(Signal::SIGTERM);
    forge.ok(&["store", "restore", backup]);
    forge.start_again(&[]);
    let url = forge.repo_url("project");
    let said = user.fails(".", &["clone", "-q", &url, "early"]);
    assert!(said.contains("recover it first"), "{said}");
    user.commit("work", "fourth");
    user.ok("work", &["remote", "set-url", "origin", &url]);
    let said = user.fails("work", &["push", "-q", "origin", "HEAD:main"]);
    assert!(said.contains("recover it first"), "{said}");

    let said = forge.ok(&["store", "recover"]);
    assert!(said.contains(&format!("project: version {version} is the newest")), "{said}");
    assert_eq!(forge.version("project"), version);
    user.ok(".", &["clone", "-q", &url, "again"]);
    assert_eq!(user.ok("again", &["rev-parse", "HEAD"]), newest);
    user.ok(".", &["clone", "-q", &forge.repo_url(&format!("recovered/{late}")), "late"]);
    assert_eq!(user.ok("late", &["rev-parse", "HEAD"]), newest);
    // A name that is free again is another repository.
    user.ok("work", &["push", "-q", &forge.repo_url("late"), "HEAD:main"]);
    assert_ne!(forge.repo_id("late"), late);

    user.ok("work", &["push", "-q", "origin", "HEAD:main"]);
    forge.assert_alike("project");
    // The log goes on from what a node gave: it is compacted, and replicas are made of it.
    forge.ok(&["compact", "project"]);
    forge.ok(&["rebuild", "project", "2"]);
    forge.assert_alike("project");
    assert!(forge.ok(&["store", "recover"]).starts_with("recovered 0,"), "there is nothing left to do");
}

#[test]
fn a_repository_moves_to_another_shard() {
    let forge = Forge::with(&["--nodes", "6"], &[]);
    let user = forge.client("user");
    let url = forge.repo_url("project");
    user.init("work", &url);
    user.ok("work", &["push", "-q", "origin", "HEAD:main"]);
    let shard = |forge: &Forge| {
        let status = forge.status();
        let repo = status["repos"].as_array().unwrap().iter().find(|r| r["name"] == "project").unwrap().clone();
        let nodes = repo["replicas"].as_array().unwrap().iter().map(|r| r["node"].as_u64().unwrap()).collect();
        (repo["shard"].as_u64().unwrap(), nodes)
    };
    let (from, nodes): (u64, Vec<u64>) = shard(&forge);
    let of = |shard: u64| (3 * shard - 2..=3 * shard).collect::<Vec<_>>();
    assert_eq!(nodes, of(from));
    let to = 3 - from;
    let said = forge.ok(&["migrate", "project", &to.to_string()]);
    assert!(said.starts_with(&format!("project is on shard {to}: nodes ")), "{said}");
    assert_eq!(shard(&forge), (to, of(to)));
    // None of the old nodes is needed any more.
    for node in of(from) {
        forge.node("kill", u32::try_from(node).unwrap());
    }
    user.ok(".", &["clone", "-q", &url, "copy"]);
    let newest = user.commit("work", "second");
    user.ok("work", &["push", "-q", "origin", "HEAD:main"]);
    assert_eq!(user.ok(".", &["ls-remote", &url, "refs/heads/main"]).split_whitespace().next(), Some(newest.as_str()));
    forge.assert_alike("project");
    let said = forge.run(&["migrate", "project", "3"]);
    assert!(!said.status.success() && common::text(&said).contains("there are 2 shards"), "{}", common::text(&said));
}
