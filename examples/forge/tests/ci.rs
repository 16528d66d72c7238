//! Pipelines end to end: real pushes, real worker processes, real kills.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Client, Forge, await_that};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A forge whose fleet grows at once.
fn forge() -> Forge {
    // Scripts leave marks where no job apart could: how jobs are kept apart is in `tests/jobs.rs`.
    let flags = ["--unsafe-jobs", "--workers-max", "3", "--jobs-per-worker", "1", "--calm-seconds", "2"];
    Forge::with(&flags, &[])
}

fn call(method: reqwest::Method, url: String) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let reply = client.request(method, url).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    })
}

fn get(forge: &Forge, path: &str) -> Value {
    let (status, text) = call(reqwest::Method::GET, format!("{}{path}", forge.url));
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn text(forge: &Forge, path: &str) -> String {
    call(reqwest::Method::GET, format!("{}{path}", forge.url)).1
}

fn post(forge: &Forge, path: &str) -> u16 {
    call(reqwest::Method::POST, format!("{}{path}", forge.url)).0
}

/// A client whose pushes carry this CI file.
fn with_file(forge: &Forge, repo: &str, file: &str) -> Client {
    let client = forge.client(&format!("user-of-{repo}"));
    client.init("w", &forge.repo_url(repo));
    std::fs::write(client.home.join("w/.gitlab-ci.yml"), file).unwrap();
    client.ok("w", &["add", ".gitlab-ci.yml"]);
    client.ok("w", &["commit", "-qm", "with a CI file"]);
    client.ok("w", &["push", "-q", "origin", "HEAD:main"]);
    client
}

/// The pipelines of a repository, newest first.
fn pipelines(forge: &Forge, repo: &str) -> Vec<Value> {
    get(forge, &format!("/api/pipelines?repo={repo}")).as_array().unwrap().clone()
}

/// The one pipeline of a repository, once there is one.
fn the_pipeline(forge: &Forge, repo: &str) -> u64 {
    await_that("a push has its pipeline", || !pipelines(forge, repo).is_empty());
    let all = pipelines(forge, repo);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]["id"].as_u64().unwrap()
}

fn mark(forge: &Forge, pipeline: u64) -> String {
    get(forge, &format!("/api/pipelines/{pipeline}"))["line"]["mark"].as_str().unwrap().to_owned()
}

fn ends(forge: &Forge, pipeline: u64, how: &str) {
    await_that(&format!("pipeline {pipeline} is {how}"), || mark(forge, pipeline) == how);
}

/// A job of a pipeline by its name.
fn job(forge: &Forge, pipeline: u64, name: &str) -> Value {
    let view = get(forge, &format!("/api/pipelines/{pipeline}"));
    let stages = view["stages"].as_array().unwrap();
    let jobs = stages.iter().flat_map(|stage| stage["jobs"].as_array().unwrap());
    jobs.into_iter().find(|job| job["name"] == name).unwrap_or_else(|| panic!("no job {name} in {view}")).clone()
}

fn await_job(forge: &Forge, pipeline: u64, name: &str, how: &str) -> u64 {
    await_that(&format!("{name} is {how}"), || job(forge, pipeline, name)["mark"] == how);
    job(forge, pipeline, name)["job"].as_u64().unwrap()
}

fn log(forge: &Forge, job: u64) -> String {
    text(forge, &format!("/api/jobs/{job}/log"))
}

/// How often a line is in a file that scripts append to.
fn times(file: &std::path::Path, line: &str) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().filter(|l| *l == line).count()
}

#[test]
fn a_push_runs_its_pipeline_and_a_manual_job_waits_for_approval() {
    let forge = forge();
    let file = "
stages: [build, check, ship]
variables: { COLOUR: blue }
compile:
  stage: build
  script: ['test -f .gitlab-ci.yml', 'echo \"$COLOUR $CI_COMMIT_SHA $CI_COMMIT_BRANCH\"']
unit:
  stage: check
  script: ['sleep 0.2; echo tested']
lint:
  stage: check
  allow_failure: true
  script: ['echo untidy >&2; exit 3']
release:
  stage: ship
  when: manual
  allow_failure: false
  script: [echo released]
";
    let client = with_file(&forge, "app", file);
    let commit = client.ok("w", &["rev-parse", "HEAD"]);
    let id = the_pipeline(&forge, "app");
    ends(&forge, id, "manual");
    let compile = await_job(&forge, id, "compile", "passed");
    assert!(log(&forge, compile).contains(&format!("blue {commit} main\n")), "{}", log(&forge, compile));
    let lint = await_job(&forge, id, "lint", "warned");
    assert!(log(&forge, lint).contains("untidy\n"));
    assert_eq!(job(&forge, id, "lint")["reason"], "the script ended with status 3");
    let release = await_job(&forge, id, "release", "manual");
    assert_eq!(post(&forge, &format!("/api/jobs/{release}/approve")), 204);
    ends(&forge, id, "passed");
    assert!(log(&forge, release).contains("released"));
    assert_eq!(post(&forge, &format!("/api/jobs/{release}/approve")), 409, "once is enough");

    // A tag is a push of its own; one without a change makes nothing.
    client.ok("w", &["tag", "v1"]);
    client.ok("w", &["push", "-q", "origin", "v1"]);
    client.ok("w", &["push", "-q", "origin", "v1", "HEAD:main"]);
    await_that("the tag has its pipeline", || pipelines(&forge, "app").len() == 2);
    assert_eq!(pipelines(&forge, "app")[0]["reference"], "v1");

    let page = text(&forge, "/");
    assert!(page.contains("with a CI file") && page.contains("data-part=\"fleet\""), "{page}");
    assert!(text(&forge, &format!("/-/jobs/{release}")).contains("released"));
    let metrics = text(&forge, "/metrics");
    assert!(metrics.contains("forge_ci_pipelines_closed_total{state=\"succeeded\"} 1"), "{metrics}");
    // A page of somebody else's cannot press our buttons.
    assert_eq!(post(&forge, &format!("/-/pipelines/{id}/abort")), 403);
}

#[test]
fn what_is_wrong_in_the_file_is_named_on_the_pipeline() {
    let forge = forge();
    let client = with_file(&forge, "app", "a:\n  script: [x]\n  after_script: [y]\n");
    let id = the_pipeline(&forge, "app");
    assert_eq!(mark(&forge, id), "failed");
    let line = get(&forge, &format!("/api/pipelines/{id}"))["line"].clone();
    assert_eq!(line["error"], "line 1: `a`: `after_script` is not supported");
    assert!(text(&forge, &format!("/-/pipelines/{id}")).contains("line 1: `a`: `after_script` is not supported"));

    std::fs::write(client.home.join("w/.gitlab-ci.yml"), "a: {script: x, needs: [b]}\nb: {script: x, needs: [a]}\n")
        .unwrap();
    client.ok("w", &["commit", "-qam", "a circle"]);
    client.ok("w", &["push", "-q", "origin", "HEAD:circle"]);
    await_that("the second push has its pipeline", || pipelines(&forge, "app").len() == 2);
    assert_eq!(pipelines(&forge, "app")[0]["error"], "line 1: `a.needs`: jobs need each other in a circle: a → b → a");

    // Without a CI file there is no pipeline.
    client.ok("w", &["rm", "-q", ".gitlab-ci.yml"]);
    client.ok("w", &["commit", "-qm", "no CI file"]);
    client.ok("w", &["push", "-q", "origin", "HEAD:none"]);
    std::fs::write(client.home.join("w/.gitlab-ci.yml"), "a: {script: 'true'}\n").unwrap();
    client.ok("w", &["add", "-A"]);
    client.ok("w", &["commit", "-qm", "again"]);
    client.ok("w", &["push", "-q", "origin", "HEAD:again"]);
    await_that("the last push has its pipeline", || pipelines(&forge, "app").len() == 3);
    assert_eq!(pipelines(&forge, "app")[0]["reference"], "again");
}

#[test]
fn the_job_of_a_killed_worker_runs_again() {
    let forge = forge();
    let mark = forge.path().join("marks");
    // The first run hangs, with a child of its own, until its worker is killed.
    let script = format!(
        "echo begun >> {0}; if [ $(wc -l < {0}) -eq 1 ]; then (sleep 100; echo orphan >> {0}) & sleep 100; fi",
        mark.display()
    );
    let file = format!("long:\n  script: ['{script}', 'echo done >> {}']\n", mark.display());
    let _client = with_file(&forge, "app", &file);
    let id = the_pipeline(&forge, "app");
    await_job(&forge, id, "long", "running");
    await_that("the script has begun", || times(&mark, "begun") == 1);
    let worker = job(&forge, id, "long")["worker"].clone();
    let overview = get(&forge, "/api/overview");
    let found = overview["workers"].as_array().unwrap().iter().find(|w| w["name"] == worker).unwrap().clone();
    kill(Pid::from_raw(i32::try_from(found["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL).unwrap();
    ends(&forge, id, "passed");
    assert_eq!((times(&mark, "begun"), times(&mark, "done"), times(&mark, "orphan")), (2, 1, 0));
    let long = job(&forge, id, "long")["job"].as_u64().unwrap();
    let attempts = get(&forge, &format!("/api/jobs/{long}"))["attempts"].as_array().unwrap().clone();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0]["reason"], "its worker fell silent (1 times)");
}

#[test]
fn a_killed_router_takes_up_its_pipelines() {
    let mut forge = forge();
    let mark = forge.path().join("marks");
    let say = |word: &str| format!("echo {word} >> {}", mark.display());
    let file = format!(
        "stages: [one, two, three]\na: {{stage: one, script: ['{}']}}\nb: {{stage: two, script: ['{}', 'sleep 3']}}\n\
         c: {{stage: three, script: ['{}']}}\n",
        say("a"),
        say("b"),
        say("c")
    );
    let client = with_file(&forge, "app", &file);
    let id = the_pipeline(&forge, "app");
    await_that("the second stage runs", || times(&mark, "b") == 1);
    forge.kill_router();
    forge.start_again(&[]);
    ends(&forge, id, "passed");
    assert_eq!((times(&mark, "a"), times(&mark, "c")), (1, 1), "what had ended is not run again");
    assert_eq!(pipelines(&forge, "app").len(), 1);

    // A push that was acknowledged just before the kill has its pipeline after it, and one only.
    client.commit("w", "next");
    client.ok("w", &["push", "-q", &forge.repo_url("app"), "HEAD:main"]);
    forge.kill_router();
    forge.start_again(&[]);
    await_that("the push has its pipeline", || pipelines(&forge, "app").len() == 2);
    ends(&forge, pipelines(&forge, "app")[0]["id"].as_u64().unwrap(), "passed");
    assert_eq!((pipelines(&forge, "app").len(), times(&mark, "c")), (2, 2));
}

#[test]
fn a_pipeline_is_aborted_and_what_was_stopped_or_failed_is_retried() {
    let forge = forge();
    let gate = forge.path().join("gate");
    let mark = forge.path().join("marks");
    let file = format!(
        "stages: [one, two]\nfirst: {{stage: one, script: ['echo first >> {1}']}}\n\
         slow: {{stage: two, script: ['test -f {0} || sleep 100']}}\n\
         flaky: {{stage: two, retry: 1, script: ['echo flaky >> {1}', 'test -f {0}']}}\n",
        gate.display(),
        mark.display()
    );
    let _client = with_file(&forge, "app", &file);
    let id = the_pipeline(&forge, "app");
    await_job(&forge, id, "slow", "running");
    // One retry, by itself.
    await_job(&forge, id, "flaky", "failed");
    assert_eq!((times(&mark, "flaky"), job(&forge, id, "flaky")["attempt"].as_u64()), (2, Some(2)));
    assert_eq!(post(&forge, &format!("/api/pipelines/{id}/abort")), 204);
    await_job(&forge, id, "slow", "stopped");
    ends(&forge, id, "stopped");

    std::fs::write(&gate, "").unwrap();
    assert_eq!(post(&forge, &format!("/api/pipelines/{id}/retry")), 204);
    ends(&forge, id, "passed");
    assert_eq!((times(&mark, "first"), times(&mark, "flaky")), (1, 3), "results that are there are kept");
}

#[test]
fn the_fleet_follows_the_queue_and_tags_lead_jobs_to_their_workers() {
    let forge = forge();
    let jobs: Vec<String> = (0..6).map(|n| format!("j{n}: {{script: [sleep 1]}}\n")).collect();
    let _client = with_file(&forge, "app", &(jobs.concat() + "special: {tags: [rare], script: [echo rare]}\n"));
    let id = the_pipeline(&forge, "app");
    let fleet = |what: &str| get(&forge, "/api/overview")["fleet"][what].as_u64().unwrap();
    await_that("the fleet is full", || fleet("ready") == 3);
    await_that("the fleet is small again", || fleet("ready") == 1 && fleet("target") == 1);
    let special = job(&forge, id, "special");
    assert_eq!(special["mark"], "waiting", "no worker of the fleet has its tag: {special}");
    let mut own = forge.worker("mine", "rare,other");
    ends(&forge, id, "passed");
    assert_eq!(job(&forge, id, "special")["worker"], "mine");
    own.end();
    let decisions = get(&forge, "/api/overview")["fleet"]["decisions"].as_array().unwrap().clone();
    assert!(
        decisions.iter().any(|d| d["reason"].as_str().unwrap().contains("jobs waiting or running")),
        "{decisions:?}"
    );
}

#[test]
fn a_push_can_say_that_it_wants_no_pipeline_and_a_job_outlives_its_branch() {
    let forge = forge();
    let user = with_file(&forge, "quiet", "job:\n  script: [\"sleep 2\", \"cat .gitlab-ci.yml\"]\n");
    let first = the_pipeline(&forge, "quiet");
    // The branch is gone before the job has its checkout; the commit is not.
    user.ok("w", &["push", "-q", "origin", "HEAD:refs/heads/kept"]);
    let second = {
        await_that("the other branch has its pipeline", || pipelines(&forge, "quiet").len() == 2);
        pipelines(&forge, "quiet")[0]["id"].as_u64().unwrap()
    };
    user.ok("w", &["commit", "-q", "--allow-empty", "-m", "elsewhere [skip ci]"]);
    user.ok("w", &["push", "-q", "--force", "origin", "HEAD:main", ":kept"]);
    user.ok("w", &["commit", "-q", "--allow-empty", "-m", "aloud"]);
    user.ok("w", &["push", "-q", "-o", "ci.skip", "origin", "HEAD:refs/heads/silent"]);
    user.ok("w", &["push", "-q", "origin", "HEAD:refs/heads/aloud"]);
    await_that("the last push has its pipeline", || {
        pipelines(&forge, "quiet").iter().any(|pipeline| pipeline["reference"] == "aloud")
    });
    let of: Vec<Value> = pipelines(&forge, "quiet").iter().map(|pipeline| pipeline["reference"].clone()).collect();
    assert_eq!(of, ["aloud", "kept", "main"], "neither [skip ci] nor -o ci.skip has one");
    ends(&forge, first, "passed");
    ends(&forge, second, "passed");
}
