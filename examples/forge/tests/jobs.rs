//! Jobs apart from the machine, end to end. What a hostile job tries in detail is in the tests of the package `sandbox`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::{Command, Stdio};

use common::{Client, Forge, await_that, needs, text};
use serde_json::Value;

fn sandbox() -> Option<()> {
    let there = Command::new("bwrap").arg("--version").stdout(Stdio::null()).status();
    needs("bubblewrap", there.is_ok_and(|status| status.success()).then_some(()))
}

/// A forge with a token, the user's helper for it, and one worker at most.
fn with_job(script: &str, flags: &[&str]) -> (Forge, Client) {
    let forge = Forge::locked(&[&["--workers-max", "1"], flags].concat(), &[]);
    let client = forge.client("ann");
    client.init("w", &forge.repo_url("app"));
    let helper = format!("{} credential --data {}", env!("CARGO_BIN_EXE_forge"), forge.data().display());
    client.ok("w", &["config", "credential.helper", &helper]);
    let script = script.replace("PORT", forge.url.rsplit(':').next().unwrap());
    let lines: Vec<String> = script.lines().map(|line| format!("  - '{}'\n", line.replace('\'', "''"))).collect();
    std::fs::write(client.home.join("w/.gitlab-ci.yml"), format!("job:\n  script:\n{}", lines.concat())).unwrap();
    client.ok("w", &["add", "-A"]);
    client.ok("w", &["commit", "-qm", "a job"]);
    client.ok("w", &["push", "-q", "origin", "HEAD:main"]);
    (forge, client)
}

fn get(forge: &Forge, path: &str) -> Value {
    let token = std::fs::read_to_string(forge.data().join("access-token")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = client.get(format!("{}{path}", forge.url)).bearer_auth(token.trim()).send().await.unwrap();
        let text = reply.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    })
}

/// Waits for the end of the only job; how it ended, and its log.
fn ended(forge: &Forge) -> (String, String) {
    let line = || get(forge, "/api/pipelines").as_array().and_then(|all| all.first().cloned());
    await_that("the pipeline has ended", || line().is_some_and(|line| !line["ended_ms"].is_null()));
    let log = get(forge, "/api/jobs/1/log");
    (line().unwrap()["mark"].as_str().unwrap().to_owned(), log.as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_job_finds_its_checkout_and_nothing_of_forge() {
    if sandbox().is_none() {
        return;
    }
    let probe = "
test -f .gitlab-ci.yml
test \"$CI_PROJECT_DIR\" = \"$PWD\"
git log --oneline
echo x > made && rm made
test \"$(id -u)\" = 1000
if env | grep -i token; then exit 9; fi
if grep -ri bearer .git; then exit 10; fi
if cat /proc/*/environ | grep -ai token; then exit 11; fi
for d in / /tmp /home /run /var /etc; do if find $d -xdev -name access-token -o -xdev -name worker-token -o -xdev -name node.db 2>/dev/null | grep .; then exit 12; fi; done
if bash -c 'exec 3<>/dev/tcp/127.0.0.1/PORT' 2>/dev/null; then exit 13; fi
echo apart";
    let probe = probe.trim();
    let (forge, client) = with_job(probe, &[]);
    let (mark, log) = ended(&forge);
    assert_eq!(mark, "passed", "{log}");
    assert!(log.contains("\napart\n"), "{log}");
    drop(client);
}

#[test]
fn a_job_that_leaves_its_session_ends_with_its_job() {
    if sandbox().is_none() {
        return;
    }
    let mark = format!("7{}", std::process::id());
    let (forge, _client) =
        with_job(&format!("setsid sleep {mark} & sleep 0.2\n(setsid nohup sleep {mark} &)\necho over"), &[]);
    let (how, log) = ended(&forge);
    assert_eq!(how, "passed", "{log}");
    let wanted = format!("sleep\0{mark}\0");
    let runs = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
            .count()
    };
    await_that("nothing of it runs", || runs() == 0);
}

#[test]
fn where_jobs_cannot_be_kept_apart_none_runs_unless_that_is_wanted() {
    // A sandbox that cannot write its own files cannot be made.
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("worker");
    std::fs::write(dir.path().join("worker.sandbox"), "in the way").unwrap();
    let forge = Forge::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
    command.args(["worker", "run", "--data"]).arg(forge.data()).arg("--folder").arg(&folder);
    let said = text(&common::bounded(command));
    assert!(said.contains("--unsafe-jobs") && said.contains("worker.sandbox"), "{said}");

    std::fs::create_dir_all(dir.path().join("data/ci")).unwrap();
    std::fs::write(dir.path().join("data/ci/probe.sandbox"), "in the way").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
    command.args(["--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut told = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    while !told.contains("Ctrl-C") {
        assert_ne!(std::io::BufRead::read_line(&mut out, &mut told).unwrap(), 0, "{told}");
    }
    let _gone = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    );
    child.wait().unwrap();
    assert!(told.contains("No jobs run: ") && told.contains("--unsafe-jobs"), "{told}");
    assert!(told.contains("/-/login?key=") && told.contains("credential.helper="), "{told}");
}
