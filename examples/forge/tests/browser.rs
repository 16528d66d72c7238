//! Hostile pages in a real Chromium, against a forge on loopback.
//!
//! Everything goes to forge through a relay that remembers what arrived: what the browser itself did not send proves
//! nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Client, Forge, await_that, needs};

/// A page that does all that a page can do to another server without its leave.
const ATTACKS: &str = r#"<!doctype html><title>hostile</title>
<img src="http://FORGE/planted.git/info/refs?service=git-receive-pack">
<iframe name=frame></iframe>
<form id=push target=frame method=post enctype=text/plain action="http://FORGE/demo.git/git-receive-pack?by=form">
  <input name=a value=b></form>
<form id=kill target=frame2 method=post action="http://FORGE/api/nodes/1/kill?by=form"><input name=a value=b></form>
<iframe name=frame2></iframe>
<script>
const pack = new Blob([Uint8Array.from(PACK)], {type: "text/plain"});
const blind = (path, body) =>
  fetch("http://FORGE" + path, {method: "POST", mode: "no-cors", credentials: "include", body}).catch(() => {});
push.submit();
kill.submit();
Promise.all([
  blind("/demo.git/git-receive-pack?by=fetch", pack),
  blind("/api/nodes/2/kill?by=fetch", "x"),
  blind("/-/pipelines/1/abort?by=fetch", new URLSearchParams({a: "b"})),
  new Promise(done => setTimeout(done, 1500)),
]).then(() => fetch("/done"));
</script>"#;

/// A page that becomes a form's answer, as a person sees it who clicks somewhere.
const TOP_LEVEL: &str = r#"<!doctype html><title>hostile</title>
<form id=push method=post enctype=text/plain action="http://FORGE/demo.git/git-receive-pack?by=top"><input name=a></form>
<script>setTimeout(() => push.submit(), 300)</script>"#;

#[test]
fn no_page_of_another_site_reaches_git_the_api_or_a_button() {
    let Some(chromium) = chromium() else { return };
    let forge = Forge::start();
    let relay = Relay::before(&forge);
    let pids = forge.pids();
    let ann = forge.client("ann");
    ann.init("work", &forge.repo_url("demo"));
    std::fs::write(ann.home.join("work/.gitlab-ci.yml"), "a: {script: ['true']}\n").unwrap();
    ann.ok("work", &["add", "."]);
    ann.ok("work", &["commit", "-qm", "with a CI file"]);
    let push = a_push(&ann, "refs/heads/evil");

    // A page of another site on the same network: the browser asks nobody before it sends.
    let page = ATTACKS.replace("FORGE", &relay.address).replace("PACK", &format!("{push:?}"));
    let hostile = Hostile::serving(&page);
    let map = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    let _browser = Browser::open(&chromium, &forge, &[map], &format!("http://evil.example:{}/", hostile.port));
    await_that("the page has done what it can", || hostile.saw("GET /done"));
    for attack in ["planted.git/info/refs", "by=form", "git-receive-pack?by=fetch", "2/kill?by=fetch", "abort?by=fetch"]
    {
        assert!(relay.saw(attack), "the browser did not send {attack}: {}", relay.requests());
    }

    // A page of the public internet: what is left to it is a form that becomes the whole page.
    let hostile = Hostile::serving(&TOP_LEVEL.replace("FORGE", &relay.address));
    let public = format!("--ip-address-space-overrides=127.0.0.1:{}=public", hostile.port);
    let _browser = Browser::open(&chromium, &forge, &[&public], &format!("http://127.0.0.1:{}/", hostile.port));
    await_that("the form was sent", || relay.saw("POST /demo.git/git-receive-pack?by=top"));

    let refs = ann.ok(".", &["ls-remote", &forge.repo_url("demo")]);
    assert!(!refs.contains("evil"), "a page pushed: {refs}");
    let status = forge.status();
    let names: Vec<_> = status["repos"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["demo"], "a page made a repository");
    assert_eq!(forge.pids(), pids, "a page killed a node");
    // The same bytes are a push when Git's own content type leads them.
    let pushed = post(&relay.address, "/demo.git/git-receive-pack", &push);
    assert!(pushed.contains("ok refs/heads/evil"), "the attack is none: {pushed}");
}

#[test]
fn a_name_that_leads_here_is_not_ours_for_that() {
    let Some(chromium) = chromium() else { return };
    let forge = Forge::start();
    let relay = Relay::before(&forge);
    let port = relay.address.rsplit(':').next().unwrap();
    // As after DNS rebinding: to the browser, forge is evil.example.
    let map = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    for path in ["", "api/repos", "api/overview"] {
        let seen = dom(&chromium, &forge, &[map], &format!("http://evil.example:{port}/{path}"));
        assert!(seen.contains("this server is not called"), "{path}: {seen}");
    }
    let seen = dom(&chromium, &forge, &[], &format!("http://127.0.0.1:{port}/"));
    assert!(seen.contains("demo"), "our own page: {seen}");
}

fn chromium() -> Option<String> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    });
    needs("Chromium", found.map(str::to_owned))
}

/// The body of a push of the client's HEAD to a new ref.
fn a_push(client: &Client, name: &str) -> Vec<u8> {
    let head = client.ok("work", &["rev-parse", "HEAD"]);
    let pack = {
        let mut command = client.command(&client.home.join("work"), &["pack-objects", "--all", "--stdout", "-q"]);
        command.stdin(Stdio::null()).output().unwrap().stdout
    };
    let line = format!("{} {head} {name}\0report-status\n", "0".repeat(40));
    let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
    body.extend_from_slice(&pack);
    body
}

fn post(address: &str, path: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    write!(head, "content-type: application/x-git-receive-pack-request\r\ncontent-length: {}\r\n\r\n", body.len())
        .unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

/// A browser that shows a page until it is dropped.
struct Browser(Child);

impl Browser {
    fn command(chromium: &str, forge: &Forge, flags: &[&str]) -> Command {
        let profile = tempfile::tempdir_in(forge.path()).unwrap().keep();
        let mut command = Command::new(chromium);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(flags)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn open(chromium: &str, forge: &Forge, flags: &[&str], url: &str) -> Self {
        let mut command = Self::command(chromium, forge, flags);
        Self(command.arg("--remote-debugging-port=0").arg(url).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

/// What a page looks like once it is loaded.
fn dom(chromium: &str, forge: &Forge, flags: &[&str], url: &str) -> String {
    let mut command = Browser::command(chromium, forge, flags);
    command.args(["--timeout=8000", "--dump-dom", url]);
    common::text(&common::bounded(command))
}

type Seen = Arc<Mutex<String>>;

/// The hostile server: one page, and a note of what is asked for.
struct Hostile {
    port: u16,
    seen: Seen,
}

impl Hostile {
    fn serving(page: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, seen, page) = (listener.local_addr().unwrap().port(), Seen::default(), page.to_owned());
        let note = Arc::clone(&seen);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut block = [0; 4096];
                let count = stream.read(&mut block).unwrap_or(0);
                note.lock().unwrap().push_str(&String::from_utf8_lossy(&block[..count]));
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: ";
                let _gone = stream.write_all(format!("{head}{}\r\n\r\n{page}", page.len()).as_bytes());
            }
        });
        Self { port, seen }
    }

    fn saw(&self, what: &str) -> bool {
        self.seen.lock().unwrap().contains(what)
    }
}

/// Passes bytes on to forge and back, and remembers those that went there.
struct Relay {
    address: String,
    seen: Seen,
}

impl Relay {
    fn before(forge: &Forge) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, seen) = (listener.local_addr().unwrap().to_string(), Seen::default());
        let (to, note) = (forge.url.strip_prefix("http://").unwrap().to_owned(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let (from, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let note = Arc::clone(&note);
                std::thread::spawn(move || pass(from, server, Some(&note)));
                std::thread::spawn(move || pass(back, client, None));
            }
        });
        Self { address, seen }
    }

    fn saw(&self, what: &str) -> bool {
        self.seen.lock().unwrap().contains(what)
    }

    /// The first lines of what arrived.
    fn requests(&self) -> String {
        let seen = self.seen.lock().unwrap();
        seen.lines().filter(|line| line.ends_with("HTTP/1.1")).collect::<Vec<_>>().join("; ")
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, note: Option<&Seen>) {
    let mut block = [0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut block) {
        if let Some(note) = note {
            note.lock().unwrap().push_str(&String::from_utf8_lossy(&block[..count]));
        }
        if to.write_all(&block[..count]).is_err() {
            break;
        }
    }
    let _gone = to.shutdown(std::net::Shutdown::Both);
}
