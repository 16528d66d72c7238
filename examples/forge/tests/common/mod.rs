//! The harness: a whole forge on free ports in a temporary folder, and stock `git` clients.
#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test file uses a part of it; a test fails by panicking"
)]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// No process of these tests may take longer.
const CLIENT: Duration = Duration::from_mins(2);

/// A running forge: router and three nodes. Stopped when dropped.
#[derive(Debug)]
pub(crate) struct Forge {
    dir: TempDir,
    child: Child,
    pub(crate) url: String,
    flags: Vec<String>,
    env: Vec<(String, String)>,
}

impl Forge {
    pub(crate) fn start() -> Self {
        Self::with(&[], &[])
    }

    /// With more flags, and environment variables that nodes see too. Open to everybody: what the token does is in
    /// `tests/tokens.rs`.
    pub(crate) fn with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::locked(&[&["--open"], flags].concat(), env)
    }

    /// As people start it: users show its token.
    pub(crate) fn locked(flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), flags, env)
    }

    /// With what the folder holds already.
    pub(crate) fn in_folder(dir: TempDir, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let flags: Vec<String> = flags.iter().map(|s| (*s).to_owned()).collect();
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (child, url) = spawn(dir.path(), &flags, &env);
        Self { dir, child, url, flags, env }
    }

    /// How many lines router and nodes have logged.
    pub(crate) fn lines_logged(&self) -> usize {
        let files = ["forge.log", "data/node-1/log", "data/node-2/log", "data/node-3/log"];
        files
            .iter()
            .map(|file| std::fs::read_to_string(self.path().join(file)).unwrap_or_default().lines().count())
            .sum()
    }

    /// The folder that everything of this test lives in; the data folder is `data` in it.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn repo_url(&self, name: &str) -> String {
        format!("{}/{name}.git", self.url)
    }

    /// Ends the whole with SIGTERM and starts it again.
    pub(crate) fn restart(&mut self) {
        self.end(Signal::SIGTERM);
        self.start_again(&[]);
    }

    /// Kills the router; its nodes must end by themselves.
    pub(crate) fn kill_router(&mut self) {
        let nodes = self.pids();
        self.end(Signal::SIGKILL);
        await_that("the nodes end with their router", || nodes.iter().all(|pid| !alive(*pid)));
    }

    /// Starts it again, after [`Forge::kill_router`] or [`Forge::end`].
    pub(crate) fn start_again(&mut self, env: &[(&str, &str)]) {
        let mut all = self.env.clone();
        all.extend(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let (child, url) = spawn(self.dir.path(), &self.flags, &all);
        self.child = child;
        self.url = url;
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let _gone = kill(Pid::from_raw(pid), signal);
        await_that("forge ends", || self.child.try_wait().unwrap().is_some());
    }

    /// `forge ARGS --data …`
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command.args(args).arg("--data").arg(self.data());
        bounded(command)
    }

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "forge {args:?}: {}", text(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    /// Asserts that all replicas are alike: same version, same refs, same digest as the row's.
    pub(crate) fn assert_alike(&self, repo: &str) -> Value {
        await_that("all replicas are current", || self.standings(repo).iter().all(|s| s == "current"));
        let out = self.run(&["inspect", repo, "--json"]);
        assert!(out.status.success(), "inspect {repo}: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// How the replicas of a repository stand, node by node.
    pub(crate) fn standings(&self, repo: &str) -> Vec<String> {
        let status = self.status();
        let repo = status["repos"].as_array().unwrap().iter().find(|r| r["name"] == repo).unwrap();
        let word = |r: &Value| r["standing"].as_str().unwrap().to_owned();
        repo["replicas"].as_array().unwrap().iter().map(word).collect()
    }

    pub(crate) fn version(&self, repo: &str) -> u64 {
        let status = self.status();
        let repos = status["repos"].as_array().unwrap();
        repos.iter().find(|r| r["name"] == repo).unwrap()["version"].as_u64().unwrap()
    }

    pub(crate) fn repo_id(&self, repo: &str) -> u64 {
        let status = self.status();
        let repos = status["repos"].as_array().unwrap();
        repos.iter().find(|r| r["name"] == repo).unwrap()["id"].as_u64().unwrap()
    }

    /// The bare repository on a node.
    pub(crate) fn bare(&self, repo: &str, node: u32) -> PathBuf {
        self.data().join(format!("node-{node}/repos/{}.git", self.repo_id(repo)))
    }

    /// The process ids of the nodes that run.
    pub(crate) fn pids(&self) -> Vec<i32> {
        (1..=3).filter_map(|node| self.pid(node)).collect()
    }

    pub(crate) fn pid(&self, node: u64) -> Option<i32> {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|n| n["node"] == node).unwrap();
        node["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap())
    }

    pub(crate) fn signal(&self, node: u64, signal: Signal) {
        kill(Pid::from_raw(self.pid(node).unwrap()), signal).unwrap();
    }

    pub(crate) fn node(&self, order: &str, node: u32) {
        self.ok(&["node", order, &node.to_string()]);
    }

    /// A worker of one's own.
    pub(crate) fn worker(&self, name: &str, tags: &str) -> OwnWorker {
        let child = Command::new(env!("CARGO_BIN_EXE_forge"))
            .args(["worker", "run", "--unsafe-jobs", "--name", name, "--tags", tags, "--data"])
            .arg(self.data())
            .arg("--folder")
            .arg(self.path().join(name))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(self.path().join(format!("{name}.log"))).unwrap())
            .spawn()
            .unwrap();
        OwnWorker(child)
    }

    /// A stock client with a home of its own.
    pub(crate) fn client(&self, name: &str) -> Client {
        let home = self.dir.path().join(name);
        std::fs::create_dir_all(&home).unwrap();
        Client { home }
    }
}

/// A worker that the fleet did not start. Ended when dropped.
#[derive(Debug)]
pub(crate) struct OwnWorker(Child);

impl OwnWorker {
    pub(crate) fn end(&mut self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        await_that("the worker ends", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for OwnWorker {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.end(Signal::SIGTERM);
        }
        if std::thread::panicking() {
            for file in ["forge.log", "data/node-1/log", "data/node-2/log", "data/node-3/log"] {
                let log = std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
                println!("---- {file}\n{log}");
            }
        }
    }
}

fn spawn(dir: &Path, flags: &[String], env: &[(String, String)]) -> (Child, String) {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("forge.log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(dir.join("data"))
        .args(flags)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.strip_prefix("forge serves ").and_then(|rest| rest.split(' ').next());
    let Some(url) = url else {
        let log = std::fs::read_to_string(dir.join("forge.log")).unwrap();
        panic!("forge did not start: {line:?}\n{log}");
    };
    (child, url.to_owned())
}

/// A user: a home folder without configuration, and the stock `git`.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) home: PathBuf,
}

impl Client {
    pub(crate) fn command<S: AsRef<OsStr>>(&self, dir: &Path, args: &[S]) -> Command {
        let mut command = Command::new("git");
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("GIT_")) {
            command.env_remove(key);
        }
        command
            .args(["-c", "init.defaultBranch=main", "-c", "protocol.version=2", "-c", "gc.auto=0"])
            .args(args)
            .current_dir(dir)
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", "A")
            .env("GIT_AUTHOR_EMAIL", "a@example.org")
            .env("GIT_COMMITTER_NAME", "A")
            .env("GIT_COMMITTER_EMAIL", "a@example.org")
            .env("NO_PROXY", "*");
        command
    }

    /// Runs git in a folder of this client's home; the output, whatever it is.
    pub(crate) fn git(&self, folder: &str, args: &[&str]) -> Output {
        bounded(self.command(&self.home.join(folder), args))
    }

    /// Runs git, which must succeed; its standard output.
    pub(crate) fn ok(&self, folder: &str, args: &[&str]) -> String {
        let out = self.git(folder, args);
        assert!(out.status.success(), "git {args:?}: {}", text(&out));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// Runs git, which must fail; what it said.
    pub(crate) fn fails(&self, folder: &str, args: &[&str]) -> String {
        let out = self.git(folder, args);
        assert!(!out.status.success(), "git {args:?} succeeded: {}", text(&out));
        text(&out)
    }

    /// A new repository with a remote and one commit.
    pub(crate) fn init(&self, folder: &str, url: &str) {
        std::fs::create_dir_all(self.home.join(folder)).unwrap();
        self.ok(folder, &["init", "-q", "."]);
        self.ok(folder, &["remote", "add", "origin", url]);
        self.commit(folder, "first");
    }

    /// A commit that adds a file; its id.
    pub(crate) fn commit(&self, folder: &str, what: &str) -> String {
        let dir = self.home.join(folder);
        std::fs::write(dir.join(format!("{what}.txt")), format!("{what}\n").repeat(10)).unwrap();
        self.ok(folder, &["add", "."]);
        self.ok(folder, &["commit", "-q", "-m", what]);
        self.ok(folder, &["rev-parse", "HEAD"])
    }

    /// The refs that a server shows, sorted by name.
    pub(crate) fn remote_refs(&self, url: &str) -> Vec<String> {
        let out = self.ok(".", &["ls-remote", "--symref", url]);
        out.lines().map(str::to_owned).collect()
    }
}

/// A plain request over a connection of its own; the whole reply.
pub(crate) fn http(url: &str, method: &str, path: &str, body: &str) -> String {
    http_with(url, method, path, "", body)
}

/// The same with more header lines, each with its end.
pub(crate) fn http_with(url: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

/// What a process said, both ways.
pub(crate) fn text(out: &Output) -> String {
    format!("{}{}{}", out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Runs a command that must end within the clients' bound.
pub(crate) fn bounded(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _broken = from.read_to_end(&mut bytes);
            bytes
        })
    };
    let stdout = reader(Box::new(out));
    let stderr = reader(Box::new(err));
    let end = Instant::now() + CLIENT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} did not end within {CLIENT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Waits for a condition; fails after a while.
pub(crate) fn await_that(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn alive(pid: i32) -> bool {
    // A zombie has ended; only its parent has not heard of it yet.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')) && !stat.is_empty()
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| step()).collect()
}

/// Something that a test cannot do without. Where it is missing the test is skipped by name, or fails if
/// `TENON_NO_SKIPS` is set.
pub(crate) fn needs<T>(what: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        assert!(std::env::var_os("TENON_NO_SKIPS").is_none(), "no {what}, and TENON_NO_SKIPS is set");
        println!("skipped: no {what}");
    }
    found
}
