//! Users go on while nodes die, pause and come back, and while the whole stops and starts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use common::{Forge, await_that};
use nix::sys::signal::Signal;

#[test]
fn a_killed_node_changes_nothing_for_users_and_is_repaired_when_it_is_back() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    for node in 1..=3 {
        forge.node("kill", node);
        let id = ann.commit("work", &format!("without-{node}"));
        ann.ok("work", &["push", "-q", "origin", "main"]);
        assert!(ann.remote_refs(&url).contains(&format!("{id}\trefs/heads/main")));
        ann.ok(".", &["clone", "-q", &url, &format!("clone-{node}")]);
        assert_eq!(forge.standings("demo")[node as usize - 1], "down");
        forge.node("start", node);
        forge.assert_alike("demo");
    }
}

#[test]
fn with_two_nodes_down_a_push_is_rejected_and_leaves_nothing() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let before = ann.remote_refs(&url);
    forge.node("kill", 2);
    forge.node("kill", 3);
    ann.commit("work", "second");
    let said = ann.fails("work", &["push", "origin", "main"]);
    assert!(said.contains("[remote rejected] main -> main (no quorum"), "{said}");
    // The node that is left is current: it may be read.
    assert_eq!(ann.remote_refs(&url), before);
    forge.node("start", 2);
    await_that("a push passes again", || ann.git("work", &["push", "-q", "origin", "main"]).status.success());
    forge.node("start", 3);
    forge.assert_alike("demo");
}

#[test]
fn a_node_killed_by_somebody_else_is_started_again() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let before = forge.pid(1).unwrap();
    forge.signal(1, Signal::SIGKILL);
    ann.commit("work", "second");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    await_that("node 1 runs again", || forge.pid(1).is_some_and(|pid| pid != before));
    forge.assert_alike("demo");
}

#[test]
fn a_paused_node_stalls_nobody_for_long_and_catches_up() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    forge.signal(2, Signal::SIGSTOP);
    let began = Instant::now();
    for n in 0..3 {
        let id = ann.commit("work", &format!("paused-{n}"));
        ann.ok("work", &["push", "-q", "origin", "main"]);
        assert!(ann.remote_refs(&url).contains(&format!("{id}\trefs/heads/main")));
    }
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    forge.signal(2, Signal::SIGCONT);
    forge.assert_alike("demo");
}

#[test]
fn stopping_and_starting_the_whole_loses_nothing() {
    let mut forge = Forge::start();
    let ann = forge.client("ann");
    for name in ["a", "b"] {
        ann.init(name, &forge.repo_url(name));
        ann.ok(name, &["push", "-q", "origin", "main"]);
    }
    forge.restart();
    let refs = ann.remote_refs(&forge.repo_url("a"));
    assert!(refs.contains(&format!("{}\trefs/heads/main", ann.ok("a", &["rev-parse", "main"]))));

    // The same when nobody gets to say good-bye.
    forge.kill_router();
    forge.start_again(&[]);
    ann.ok("b", &["remote", "set-url", "origin", &forge.repo_url("b")]);
    let id = ann.commit("b", "after");
    ann.ok("b", &["push", "-q", "origin", "main"]);
    assert!(ann.remote_refs(&forge.repo_url("b")).contains(&format!("{id}\trefs/heads/main")));
    forge.assert_alike("a");
    forge.assert_alike("b");
}

#[test]
fn nodes_are_killed_in_the_middle_of_pushes() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    forge.ok(&["create", "demo"]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let pushers: Vec<_> = (0..2)
            .map(|n| {
                let client = forge.client(&format!("client-{n}"));
                let (url, done) = (&url, &done);
                scope.spawn(move || {
                    client.init("work", url);
                    let mut acknowledged = Vec::new();
                    let mut round = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let id = client.commit("work", &format!("n{n}-{round}"));
                        let name = format!("refs/heads/n{n}/r{round}");
                        client.ok("work", &["push", "-q", "origin", &format!("HEAD:{name}")]);
                        acknowledged.push(format!("{id}\t{name}"));
                        round += 1;
                    }
                    acknowledged
                })
            })
            .collect();
        let killer = || {
            for node in [1, 2, 3] {
                let version = forge.version("demo");
                await_that("pushes go on", || forge.version("demo") >= version + 3);
                forge.node("kill", node);
                let version = forge.version("demo");
                await_that("pushes go on without it", || forge.version("demo") >= version + 3);
                forge.node("start", node);
                await_that("it is repaired", || forge.standings("demo")[node as usize - 1] == "current");
            }
        };
        // Whatever happens to the killer, the pushers end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(killer));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let acknowledged: Vec<String> = pushers.into_iter().flat_map(|t| t.join().unwrap()).collect();
        if let Err(e) = outcome {
            std::panic::resume_unwind(e);
        }
        acknowledged
    });
    let refs = forge.client("reader").remote_refs(&url);
    for line in &acknowledged {
        assert!(refs.contains(line), "{line} is missing");
    }
    forge.assert_alike("demo");
}

#[test]
fn a_client_that_goes_away_in_mid_push_blocks_nobody() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    ann.ok("work", &["push", "-q", "origin", "main"]);
    // A hook-free way to be in mid-push: a body that never ends.
    let address = forge.url.strip_prefix("http://").unwrap();
    let mut half = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /demo.git/git-receive-pack HTTP/1.1\r\nhost: {address}\r\ncontent-length: 100000\r\n\
         content-type: application/x-git-receive-pack-request\r\n\r\n0000"
    );
    half.write_all(head.as_bytes()).unwrap();
    ann.commit("work", "second");
    ann.ok("work", &["push", "-q", "origin", "main"]);

    // And one that is killed while its push is under way.
    for n in 0..5 {
        ann.commit("work", &format!("killed-{n}"));
        let mut push = ann.command(&ann.home.join("work"), &["push", "-q", "origin", "main"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 * n));
        push.kill().unwrap();
        push.wait().unwrap();
    }
    let id = ann.commit("work", "last");
    await_that("pushes pass again", || ann.git("work", &["push", "-q", "origin", "main"]).status.success());
    assert!(ann.remote_refs(&url).contains(&format!("{id}\trefs/heads/main")));
    forge.assert_alike("demo");
}

#[test]
fn a_reply_that_breaks_off_is_never_ended_cleanly() {
    let forge = Forge::start();
    let url = forge.repo_url("demo");
    let ann = forge.client("ann");
    ann.init("work", &url);
    std::fs::write(ann.home.join("work/noise"), common::noise(24_000_000)).unwrap();
    let id = ann.commit("work", "large");
    ann.ok("work", &["push", "-q", "origin", "main"]);

    // A fetch as Git asks for it, by a client that stops reading in the middle of the pack.
    let body = format!("0011command=fetch0001000dofs-delta0032want {id}\n0009done\n0000");
    let address = forge.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "POST /demo.git/git-upload-pack HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\
         git-protocol: version=2\r\ncontent-type: application/x-git-upload-pack-request\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut reply = vec![0; 1 << 16];
    stream.read_exact(&mut reply).unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&reply[..200]));
    for node in 1..=3 {
        forge.node("kill", node);
    }
    // The rest ends within ten seconds, and not as a whole reply does.
    let broken = stream.read_to_end(&mut reply);
    assert!(reply.len() < 24_000_000, "the reply was whole before the nodes died");
    assert!(broken.is_err() || !reply.ends_with(b"\r\n0\r\n\r\n"), "{broken:?}: the reply was ended cleanly");
    assert!(!matches!(&broken, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock), "the client hangs");
}

#[test]
fn a_node_that_lost_its_disk_counts_for_nothing_until_it_is_replaced_by_itself() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    ann.init("other", &forge.repo_url("other"));
    ann.ok("other", &["push", "-q", "origin", "main"]);
    forge.assert_alike("demo");
    let kept = forge.ok(&["node", "replace", "2"]);
    assert!(kept.starts_with("node 2 learned 0 repositories anew; 2 knew it as it is"), "{kept}");

    forge.node("kill", 2);
    let refused = forge.run(&["node", "replace", "2"]);
    assert!(!refused.status.success() && common::text(&refused).contains("not up"), "{}", common::text(&refused));
    std::fs::remove_dir_all(forge.data().join("node-2")).unwrap();
    forge.node("start", 2);
    await_that("the node is up again", || forge.pid(2).is_some());
    ann.commit("work", "without-it");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    assert_eq!(forge.standings("demo")[1], "unknown");

    let told = forge.ok(&["node", "replace", "2"]);
    assert!(told.starts_with("node 2 learned 2 repositories anew; 0 knew it as it is"), "{told}");
    forge.assert_alike("demo");
    forge.assert_alike("other");
    // It carries weight again: with another node down, it is one of the two that a push needs.
    forge.node("kill", 3);
    let id = ann.commit("work", "with-it");
    ann.ok("work", &["push", "-q", "origin", "main"]);
    assert!(ann.remote_refs(&forge.repo_url("demo")).contains(&format!("{id}\trefs/heads/main")));
}

/// A virtual machine's disk from a snapshot, a folder that was copied back: the node is an older copy of itself.
#[test]
fn an_older_copy_of_a_nodes_folder_repairs_itself() {
    let mut forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    forge.assert_alike("demo");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(done.success());
    };
    let (folder, older) = (forge.data().join("node-2"), forge.path().join("older"));
    forge.node("kill", 2);
    copy(&folder, &older);
    forge.node("start", 2);
    await_that("the node is up again", || forge.pid(2).is_some());
    for what in ["one", "two", "three"] {
        ann.commit("work", what);
        ann.ok("work", &["push", "-q", "origin", "main"]);
    }
    forge.assert_alike("demo");
    // Once while the router runs, and once while nobody does: the store alone knows then.
    for stopped in [false, true] {
        if stopped {
            forge.end(Signal::SIGTERM);
        } else {
            forge.node("kill", 2);
        }
        std::fs::remove_dir_all(&folder).unwrap();
        copy(&older, &folder);
        if stopped {
            forge.start_again(&[]);
            ann.ok("work", &["remote", "set-url", "origin", &forge.repo_url("demo")]);
        } else {
            forge.node("start", 2);
        }
        await_that("the node is up again", || forge.pid(2).is_some());
        ann.ok("work", &["ls-remote", "origin"]);
        await_that("the node is current again", || forge.standings("demo")[1] == "current");
        forge.assert_alike("demo");
        let log = std::fs::read_to_string(folder.join("log")).unwrap();
        assert!(log.contains("an older copy of itself"), "{log}");
        // It carries weight again: with another node down, it is one of the two that a push needs.
        forge.node("kill", 3);
        let id = ann.commit("work", if stopped { "five" } else { "four" });
        ann.ok("work", &["push", "-q", "origin", "main"]);
        assert!(ann.remote_refs(&forge.repo_url("demo")).contains(&format!("{id}\trefs/heads/main")));
        forge.node("start", 3);
        await_that("node 3 is up again", || forge.pid(3).is_some());
        forge.assert_alike("demo");
    }
}
