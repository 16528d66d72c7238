//! What is refused at the door, and how clearly.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use common::{Forge, bounded, text};

#[test]
fn a_start_that_cannot_work_says_what_to_do() {
    let forge = Forge::start();
    let start = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command.args(args);
        let out = bounded(command);
        assert!(!out.status.success(), "{args:?} serves");
        text(&out)
    };
    let other = forge.path().join("other");
    let other = other.to_str().unwrap();
    let taken = forge.url.strip_prefix("http://").unwrap();
    let said = start(&["--listen", taken, "--data", other]);
    assert!(said.contains("choose another address with --listen"), "{said}");

    let port: u16 = taken.rsplit(':').next().unwrap().parse().unwrap();
    let base = (port - 2).to_string();
    let said = start(&["--listen", "127.0.0.1:0", "--node-port-base", &base, "--data", other]);
    assert!(said.contains("--node-port-base"), "{said}");

    let said = start(&["--listen", "127.0.0.1:0", "--data", forge.data().to_str().unwrap()]);
    assert!(said.contains("another forge serves the data folder"), "{said}");

    let said = start(&["--listen", "0.0.0.0:0", "--open", "--data", other]);
    assert!(said.contains("can be reached from other machines"), "{said}");
    let said = start(&["--listen", "127.0.0.1:0", "--host", "http://x", "--data", other]);
    assert!(said.contains("not a host name"), "{said}");
    let empty = forge.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let said = start(&["--listen", "127.0.0.1:0", "--token-file", empty.to_str().unwrap(), "--data", other]);
    assert!(said.contains("20 to 1024 printable characters"), "{said}");

    // Flags are looked at before anything is made or started.
    let unmade = forge.path().join("unmade");
    for (flags, told) in [
        (&["--workers-min", "3", "--workers-max", "2"][..], "--workers-min 3 is above --workers-max 2"),
        (&["--worker-tags", "a b"], "`a b` is no tag"),
        (&["--nodes", "4"], "--nodes 4"),
    ] {
        let mut args = vec!["--listen", "127.0.0.1:0", "--data", unmade.to_str().unwrap()];
        args.extend_from_slice(flags);
        let said = start(&args);
        assert!(said.contains(told), "{said}");
        assert!(!unmade.exists(), "{flags:?} made a folder");
    }

    let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
    command.args(["--listen", "127.0.0.1:0", "--data", other]).env("PATH", "/nowhere");
    let said = text(&bounded(command));
    assert!(said.contains("install Git"), "{said}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
    command.args(["status", "--server", "http://127.0.0.1:1"]);
    let said = text(&bounded(command));
    assert!(said.contains("no forge answers"), "{said}");
}

#[test]
fn names_and_sizes_are_bounded() {
    let forge = Forge::with(&["--max-push-bytes", "100000", "--max-refs-per-push", "5"], &[]);
    let ann = forge.client("ann");
    for bad in ["a..b", ".x", "a/b/c/d", "api/x", "x.lock", "%2e%2e/x"] {
        ann.init(&format!("w{}", bad.len()), &forge.repo_url(bad));
        let said = ann.fails(&format!("w{}", bad.len()), &["push", "origin", "main"]);
        assert!(said.contains("400") || said.contains("404"), "{bad}: {said}");
        std::fs::remove_dir_all(ann.home.join(format!("w{}", bad.len()))).unwrap();
    }
    let said = ann.fails(".", &["clone", &forge.repo_url("nobody"), "nobody"]);
    assert!(said.contains("there is no repository nobody") || said.contains("not found"), "{said}");

    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    for n in 0..6 {
        ann.ok("work", &["branch", &format!("b{n}")]);
    }
    let said = ann.fails("work", &["push", "origin", "--all"]);
    assert!(said.contains("6 refs in one push, at most 5 are allowed"), "{said}");
    std::fs::write(ann.home.join("work/noise"), common::noise(200_000)).unwrap();
    ann.commit("work", "large");
    let said = ann.fails("work", &["push", "origin", "main"]);
    assert!(
        said.contains("[remote rejected] main -> main (the push is larger than the 100000 bytes allowed)"),
        "{said}"
    );
    forge.assert_alike("demo");
}

#[test]
fn what_nodes_may_do_is_closed_to_everyone_else() {
    let forge = Forge::start();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let status = forge.status();
    let node = status["nodes"][0]["url"].as_str().unwrap();
    for (url, want) in [
        (format!("{}/internal/repos/1/log?from=0&to=9", forge.url), 401),
        (format!("{node}/repos/1/refs"), 401),
        (format!("{node}/repos/1/info/refs?service=git-upload-pack"), 401),
    ] {
        assert_eq!(get(&url), want, "{url}");
    }
}

/// The status of a plain GET.
fn get(url: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_forge_without_a_fleet_starts_and_takes_pushes() {
    let forge = Forge::with(&["--workers-max", "0"], &[]);
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    ann.ok("work", &["push", "-q", "origin", "main"]);
    let overview: serde_json::Value = {
        let reply = common::http(&forge.url, "GET", "/api/overview", "");
        serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    assert_eq!(overview["workers"].as_array().unwrap().len(), 0);
}
