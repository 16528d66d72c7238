//! Who is let in: the token, its rotation, Git's helper, the browser's cookie, what is public, what is open.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use common::{Client, Forge};

/// One request; the status, and the whole answer.
fn ask(forge: &Forge, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let address = forge.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut head = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head = [&*head, name, ": ", value, "\r\n"].concat();
    }
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut reply = String::new();
    if line == "GET /-/live" {
        // It goes on for as long as somebody listens.
        let mut block = [0; 1024];
        let count = stream.read(&mut block).unwrap();
        reply.push_str(&String::from_utf8_lossy(&block[..count]));
    } else {
        stream.read_to_string(&mut reply).unwrap();
    }
    (reply.split(' ').nth(1).unwrap().parse().unwrap(), reply)
}

fn status(forge: &Forge, line: &str, authorization: Option<&str>) -> u16 {
    let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
    ask(forge, line, &headers, "").0
}

fn token(forge: &Forge) -> String {
    std::fs::read_to_string(forge.data().join("access-token")).unwrap().trim().to_owned()
}

/// What Git is told to get the token with, as the start prints it.
fn helper(forge: &Forge) -> String {
    format!("credential.helper={} credential --data {}", env!("CARGO_BIN_EXE_forge"), forge.data().display())
}

const READS: [&str; 8] = [
    "GET /",
    "GET /metrics",
    "GET /-/live",
    "GET /api/overview",
    "GET /api/repos",
    "GET /api/jobs/1/log",
    "GET /demo.git/info/refs?service=git-upload-pack",
    "GET /no/such/page",
];
const WRITES: [&str; 4] = [
    "POST /api/repos",
    "POST /api/nodes/1/kill",
    "POST /api/login",
    "GET /demo.git/info/refs?service=git-receive-pack",
];

#[test]
fn without_the_token_nothing_is_read_or_written_on_loopback_too() {
    let forge = Forge::locked(&[], &[]);
    let worker = std::fs::read_to_string(forge.data().join("worker-token")).unwrap();
    let cluster = std::fs::read_to_string(forge.data().join("token")).unwrap();
    for line in READS.iter().chain(&WRITES) {
        for wrong in
            [None, Some("Bearer "), Some("Bearer wrong"), Some("Basic Og=="), Some(&*format!("Bearer {cluster}"))]
        {
            assert_eq!(status(&forge, line, wrong), 401, "{line} {wrong:?}");
        }
        // A worker reads repositories, and does nothing else.
        let fetches = line.contains("git-upload-pack");
        let as_worker = status(&forge, line, Some(&format!("Bearer {worker}")));
        assert_eq!(as_worker == 401, !fetches, "{line}: {as_worker}");
        assert_ne!(status(&forge, line, Some(&format!("Bearer {}", token(&forge)))), 401, "{line}");
    }
    assert!(ask(&forge, "GET /", &[], "").1.contains("forge wants its token"));
}

#[test]
fn git_asks_the_helper_and_the_token_stands_nowhere_else() {
    let forge = Forge::locked(&[], &[]);
    let ann = forge.client("ann");
    let url = forge.repo_url("demo");
    ann.fails(".", &["clone", &url, "refused"]);
    ann.ok(".", &["clone", "-q", "-c", &helper(&forge), &url, "work"]);
    ann.commit("work", "first");
    ann.ok("work", &["push", "-q", "origin", "HEAD:main"]);
    let config = std::fs::read_to_string(ann.home.join("work/.git/config")).unwrap();
    assert!(!config.contains(&token(&forge)) && config.contains("credential --data"), "{config}");

    // No other server gets it from the helper.
    assert!(answer(&forge, &forge.url, "get").contains(&token(&forge)));
    for (url, act) in
        [("http://evil.example", "get"), ("https://127.0.0.1", "get"), (&*forge.url, "store"), ("", "get")]
    {
        assert_eq!(answer(&forge, url, act), "", "{url} {act}");
    }
    assert!(forge.run(&["status"]).status.success(), "the commands of this machine find it");
    let mut elsewhere = std::process::Command::new(env!("CARGO_BIN_EXE_forge"));
    elsewhere.args(["status", "--server", &forge.url, "--data"]).arg(forge.data());
    let said = common::text(&common::bounded(elsewhere));
    assert!(said.contains("wants its token"), "another server was given the token of this one: {said}");
}

fn answer(forge: &Forge, url: &str, act: &str) -> String {
    let (protocol, host) = url.split_once("://").unwrap_or_default();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_forge"));
    command.args(["credential", "--data"]).arg(forge.data()).arg(act).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    write!(child.stdin.take().unwrap(), "protocol={protocol}\nhost={host}\n\n").unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn a_browser_is_let_in_by_a_link_once_or_by_the_token_and_until_it_is_rotated() {
    let forge = Forge::locked(&[], &[]);
    let cookie_of = |reply: &str| {
        let line = reply.lines().find(|line| line.starts_with("set-cookie: ")).unwrap_or_else(|| panic!("{reply}"));
        assert!(line.contains("HttpOnly") && line.contains("SameSite=Strict"), "{line}");
        line["set-cookie: ".len()..].split(';').next().unwrap().to_owned()
    };
    let link = forge.ok(&["login"]);
    let path = link.trim().strip_prefix(&*forge.url).unwrap();
    let (code, reply) = ask(&forge, &format!("GET {path}"), &[], "");
    assert_eq!(code, 200, "{reply}");
    let cookie = cookie_of(&reply);
    assert_eq!(ask(&forge, &format!("GET {path}"), &[], "").0, 403, "the link works twice");
    for line in ["GET /", "GET /api/overview"] {
        assert_eq!(ask(&forge, line, &[("cookie", &cookie)], "").0, 200, "{line}");
        assert_eq!(ask(&forge, line, &[("cookie", &format!("{cookie}0"))], "").0, 401, "{line}");
    }
    assert_eq!(ask(&forge, "GET /demo.git/info/refs?service=git-receive-pack", &[("cookie", &cookie)], "").0, 403);

    let origin = forge.url.clone();
    let form = [("content-type", "application/x-www-form-urlencoded"), ("origin", &*origin)];
    assert_eq!(ask(&forge, "POST /-/login", &form, "token=wrong").0, 403);
    let (code, reply) = ask(&forge, "POST /-/login", &form, &format!("token={}", token(&forge)));
    assert_eq!(code, 200);
    assert_eq!(ask(&forge, "GET /", &[("cookie", &cookie_of(&reply))], "").0, 200);

    let old = format!("Bearer {}", token(&forge));
    forge.ok(&["token", "rotate"]);
    assert_eq!(ask(&forge, "GET /", &[("cookie", &cookie)], "").0, 401, "a cookie outlives its token");
    assert_eq!(status(&forge, "GET /api/repos", Some(&old)), 401);
    assert_eq!(status(&forge, "GET /api/repos", Some(&format!("Bearer {}", token(&forge)))), 200);
    forge.ok(&["status"]);
}

#[test]
fn public_reads_are_reads_and_an_open_forge_is_open() {
    let forge = Forge::locked(&["--public-reads"], &[]);
    for line in READS {
        assert_ne!(status(&forge, line, None), 401, "{line}");
    }
    for line in WRITES {
        assert_eq!(status(&forge, line, None), 401, "{line}");
    }
    let ann: Client = forge.client("ann");
    ann.ok(".", &["clone", "-q", &forge.repo_url("demo"), "reader"]);
    let open = Forge::with(&[], &[]);
    for line in READS {
        assert_ne!(status(&open, line, None), 401, "{line}");
    }
    assert!(!open.data().join("access-token").exists());
}

#[test]
fn a_token_of_ones_own_is_a_file_and_an_empty_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "a-token-that-somebody-chose\n").unwrap();
    let forge = Forge::locked(&["--token-file", file.to_str().unwrap()], &[]);
    assert_eq!(status(&forge, "GET /api/repos", Some("Bearer a-token-that-somebody-chose")), 200);
    forge.ok(&["status"]);
    for bad in ["", " ", "short"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_forge"));
        command.args(["status", "--data"]).arg(forge.data()).env("FORGE_TOKEN", bad);
        let said = common::text(&common::bounded(command));
        assert!(said.contains("FORGE_TOKEN"), "{bad:?}: {said}");
    }
}
