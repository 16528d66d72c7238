//! The demo's pipelines: pushed commits run them, a worker is killed in mid-job, the fleet grows and shrinks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::git::Client;
use crate::client::Client as Api;

const REPO: &str = "gamma";
const BRANCHES: [&str; 2] = ["main", "feature"];
/// No wait is longer.
const LONGEST: Duration = Duration::from_mins(1);
const FILE: &str = "\
stages: [build, check, ship]
compile:
  stage: build
  script: ['sleep 1', 'test -f .gitlab-ci.yml']
unit:
  stage: check
  script: ['sleep 2', 'echo tested']
lint:
  stage: check
  script: ['sleep 1', 'echo tidy']
docs:
  stage: check
  needs: []
  allow_failure: true
  script: ['echo no pages; false']
release:
  stage: ship
  script: ['echo shipped $CI_COMMIT_SHORT_SHA']
";

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pipelines: usize,
    jobs: usize,
    took: Duration,
    rerun: Duration,
    largest: u64,
    decisions: usize,
    pub(super) faults: Vec<String>,
}

impl Seen {
    pub(super) fn pipelines_line(&self) -> String {
        format!("{}, with {} jobs, in {:.1} s", self.pipelines, self.jobs, self.took.as_secs_f64())
    }

    pub(super) fn rerun_line(&self) -> String {
        format!("ran again, done {:.1} s after the kill", self.rerun.as_secs_f64())
    }

    pub(super) fn fleet_line(&self) -> String {
        format!("1 → {} → 1 workers, in {} decisions", self.largest, self.decisions)
    }
}

/// Runs it all; what is wrong is in the faults.
pub(super) async fn run(home: &Path, api: &Api, step: &impl Fn(&str)) -> Result<Seen> {
    let mut seen = Seen::default();
    let began = Instant::now();
    let client = Client::new(home, "ci-user", api, REPO).await?;
    std::fs::write(client.folder().join(".gitlab-ci.yml"), FILE)?;
    client.run(&["add", "."]).await?;
    for branch in BRANCHES {
        client.commit(&format!("for-{branch}")).await?;
        client.run(&["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]).await?;
    }
    step("two branches pushed with a CI file: two pipelines");

    let (pid, job) = until(async || busy(api).await, "a worker of the fleet runs a job").await?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).context("the worker cannot be killed")?;
    let killed = Instant::now();
    step(&format!("a worker killed with SIGKILL in the middle of job {job}"));

    let path = format!("/api/pipelines?repo={REPO}");
    let ended = until(
        async || {
            let fleet = api.get("/api/overview").await?;
            seen.largest = seen.largest.max(number(&fleet["fleet"]["ready"]));
            let all = api.get(&path).await?;
            let list = all.as_array().context("no list")?.clone();
            let over = list.len() >= BRANCHES.len() && list.iter().all(|p| !p["ended_ms"].is_null());
            Ok(over.then_some(list))
        },
        "all pipelines have ended",
    )
    .await?;
    seen.took = began.elapsed();
    for pipeline in &ended {
        check(api, pipeline, &mut seen).await?;
    }
    if ended.len() != BRANCHES.len() {
        seen.faults.push(format!("{} pipelines of {} pushes", ended.len(), BRANCHES.len()));
    }
    rerun(api, job, killed, &mut seen).await?;
    step("all pipelines have passed, the killed worker's job with them; each result counted once");

    let decisions = until(
        async || {
            let fleet = api.get("/api/overview").await?["fleet"].clone();
            let small = number(&fleet["ready"]) == 1 && number(&fleet["target"]) == 1;
            Ok(small.then(|| fleet["decisions"].as_array().map_or(0, Vec::len)))
        },
        "the fleet shrinks",
    )
    .await?;
    seen.decisions = decisions;
    if seen.largest < 2 {
        seen.faults.push("the fleet did not grow".into());
    }
    step(&format!("the fleet grew to {} workers, and is down to 1 again", seen.largest));
    Ok(seen)
}

/// The process of a worker that runs a job that takes a while, and the job.
async fn busy(api: &Api) -> Result<Option<(u64, u64)>> {
    let view = api.get("/api/overview").await?;
    let workers = view["workers"].as_array().context("no workers")?;
    let found = workers.iter().find(|w| w["state"] == "busy" && w["job"][1] != "docs" && w["pid"].is_u64());
    Ok(found.map(|w| (number(&w["pid"]), number(&w["job"][0]))))
}

/// A pipeline that is over has passed, and every job of it has at most one attempt that succeeded.
async fn check(api: &Api, line: &Value, seen: &mut Seen) -> Result<()> {
    let id = number(&line["id"]);
    if line["mark"] != "passed" {
        seen.faults.push(format!("pipeline {id} is {}", line["mark"]));
        return Ok(());
    }
    seen.pipelines += 1;
    for job in line["stages"].as_array().into_iter().flatten().flat_map(|stage| stage.as_array().into_iter().flatten())
    {
        seen.jobs += 1;
        let page = api.get(&format!("/api/jobs/{}", number(&job["job"]))).await?;
        let passed = page["attempts"].as_array().map_or(0, |all| all.iter().filter(|a| a["mark"] == "passed").count());
        let wanted = usize::from(job["mark"] == "passed");
        if passed != wanted {
            seen.faults.push(format!("job {} counted {passed} times", job["job"]));
        }
    }
    Ok(())
}

async fn rerun(api: &Api, job: u64, killed: Instant, seen: &mut Seen) -> Result<()> {
    let page = api.get(&format!("/api/jobs/{job}")).await?;
    if page["attempts"].as_array().map_or(0, Vec::len) < 2 {
        // It had just ended when its worker was killed.
        return Ok(());
    }
    let ended = number(&page["job"]["ended_ms"]);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let ago = since.saturating_sub(Duration::from_millis(ended));
    seen.rerun = killed.elapsed().saturating_sub(ago);
    Ok(())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

async fn until<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>, what: &str) -> Result<T> {
    let end = Instant::now() + LONGEST;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("waited in vain: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
