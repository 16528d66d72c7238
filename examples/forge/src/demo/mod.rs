//! `forge demo`: the whole, shown and checked by itself in under two minutes.

mod ci;
mod git;
mod pusher;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use door::SecretFile;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::ci::CiArgs;
use crate::cli::{DemoArgs, Limits, ServeArgs, say};
use crate::client::Client as Api;
use crate::home::ACCESS_TOKEN;
use crate::router;
use git::Client;
use pusher::Seen;

/// No wait of the demo is longer.
const LONGEST: Duration = Duration::from_mins(1);
/// Pushes that each phase waits for.
const PHASE: usize = 24;
/// The node that is killed in the middle of pushes, and the one that is built again from the log.
const KILLED: u32 = 2;
const REBUILT: u32 = 3;

/// A forge that serves inside this process, with node processes of its own.
#[derive(Debug)]
struct Running {
    api: Api,
    end: oneshot::Sender<()>,
    served: JoinHandle<Result<()>>,
}

impl Running {
    async fn start(data: &Path, limits: Limits) -> Result<Self> {
        let args = ServeArgs {
            data: data.to_owned(),
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            host: Vec::new(),
            max_connections: None,
            max_connections_per_address: None,
            node_port_base: None,
            nodes: 3,
            token_file: None,
            public_reads: false,
            open: false,
            limits,
            retention: router::tidy::Retention::usual(),
            ci: CiArgs::demo(data),
        };
        let (end, ended) = oneshot::channel();
        let (ready, url) = oneshot::channel();
        let tell = move |started: &router::Started| drop(ready.send(started.url.clone()));
        let mut served = tokio::spawn(router::serve(args, tell, async move { drop(ended.await) }));
        let url = tokio::select! {
            url = url => url.context("forge ended before it was ready")?,
            ended = &mut served => { ended??; bail!("forge ended at once") }
        };
        let token = SecretFile::read(&data.join(ACCESS_TOKEN))?.expose().to_owned();
        Ok(Self { api: Api::new(Some(url), data, Some(token))?, end, served })
    }

    async fn stop(self) -> Result<()> {
        drop(self.end);
        tokio::time::timeout(LONGEST, self.served).await.context("forge does not end")??
    }
}

/// The demo's clients, all pushing.
#[derive(Debug)]
struct Crowd {
    stop: watch::Sender<bool>,
    progress: Vec<watch::Receiver<usize>>,
    pushers: Vec<(String, JoinHandle<Result<Seen>>)>,
}

impl Crowd {
    async fn start(home: &Path, api: &Api, repos: &[&str], each: usize) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut crowd = Self { stop, progress: Vec::new(), pushers: Vec::new() };
        for repo in repos {
            for n in 1..=each {
                let client = Client::new(home, &format!("{repo}-user-{n}"), api, repo).await?;
                client.commit("readme").await?;
                if n == 1 {
                    // The first push makes the repository, and HEAD its branch.
                    client.run(&["push", "-q", "origin", "main"]).await?;
                }
                let (sender, progress) = watch::channel(0);
                crowd.progress.push(progress);
                let pushing = tokio::spawn(pusher::push_on(client, sender, stopped.clone()));
                crowd.pushers.push(((*repo).to_owned(), pushing));
            }
        }
        Ok(crowd)
    }

    fn done(&self) -> usize {
        self.progress.iter().map(|p| *p.borrow()).sum()
    }

    /// Waits until so many more pushes were acknowledged.
    async fn more(&self, pushes: usize) -> Result<()> {
        let (goal, end) = (self.done() + pushes, Instant::now() + LONGEST);
        while self.done() < goal {
            if self.pushers.iter().any(|(_, pushing)| pushing.is_finished()) {
                // Its error is told when all are asked how they ended.
                return Ok(());
            }
            if Instant::now() > end {
                bail!("pushes do not go on: {} of {goal}", self.done());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn finish(self) -> Result<BTreeMap<String, Vec<Seen>>> {
        self.stop.send_replace(true);
        let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        for (repo, pushing) in self.pushers {
            seen.entry(repo).or_default().push(pushing.await??);
        }
        Ok(seen)
    }
}

/// Runs the demo; fails if anything acknowledged is missing, stale or different.
pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let began = Instant::now();
    let temporary = tempfile::tempdir()?;
    let home = temporary.path();
    let data: PathBuf = args.data.unwrap_or_else(|| home.join("forge-data"));
    let step = |what: &str| say(&format!("[{:5.1} s] {what}\n", began.elapsed().as_secs_f64()));
    let mut report = Report::default();

    let forge = Running::start(&data, args.limits).await?;
    let url = forge.api.url().to_owned();
    step(&format!("three node processes and the router at {url}"));

    let repos = ["alpha", "beta"];
    let crowd = Crowd::start(home, &forge.api, &repos, 2).await?;
    step("4 users push to 2 repositories: branches, tags, forced moves, deletions, races");
    crowd.more(PHASE).await?;

    let killed = Instant::now();
    forge.api.order(KILLED, "kill").await?;
    step(&format!("node {KILLED} killed with SIGKILL; the users push on"));
    crowd.more(PHASE).await?;
    let started = Instant::now();
    forge.api.order(KILLED, "start").await?;
    report.repaired = all_current(&forge.api, started).await?;
    step(&format!("node {KILLED} started again; repaired and current"));
    crowd.more(PHASE).await?;
    let seen = crowd.finish().await?;
    report.count(&seen, killed, started);
    step(&format!("users stop after {} acknowledged pushes", report.pushes));

    for (repo, seen) in &seen {
        check_clone(home, &forge.api, repo, seen, &mut report).await?;
    }
    step("every repository cloned, fsck'd, and compared with what was acknowledged");

    report.ci = ci::run(home, &forge.api, &step).await?;

    for repo in repos {
        all_current(&forge.api, Instant::now()).await?;
        let done = forge.api.compact(repo).await?;
        report.folded += done.folded;
        report.bytes_before += done.bytes_before;
        report.bytes += done.bytes;
        let rebuilding = Instant::now();
        forge.api.rebuild(repo, REBUILT).await?;
        report.rebuilt = report.rebuilt.max(rebuilding.elapsed());
    }
    step(&format!("refs logs compacted; node {REBUILT}'s replicas thrown away and built again from them"));

    for repo in repos {
        compare_replicas(&forge.api, repo, &mut report).await?;
    }
    step("all replicas compared: digest, and what git for-each-ref lists");

    forge.stop().await?;
    let forge = Running::start(&data, args.limits).await?;
    for (repo, seen) in &seen {
        check_clone(home, &forge.api, repo, seen, &mut report).await?;
        compare_replicas(&forge.api, repo, &mut report).await?;
    }
    step("the whole stopped and started; everything compared once more");
    forge.stop().await?;

    report.took = began.elapsed();
    say(&report.text());
    report.verdict()
}

/// Waits until every replica of every repository is current; how long after `since` that was.
async fn all_current(api: &Api, since: Instant) -> Result<Duration> {
    let end = Instant::now() + LONGEST;
    loop {
        let status = api.status().await?;
        let behind = status.repos.iter().flat_map(|r| &r.replicas).find(|r| r.standing != "current");
        let Some(behind) = behind else { return Ok(since.elapsed()) };
        if Instant::now() > end {
            bail!("node {} is {} for too long", behind.node, behind.standing);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A fresh clone must hold exactly what was acknowledged.
async fn check_clone(home: &Path, api: &Api, repo: &str, seen: &[Seen], report: &mut Report) -> Result<()> {
    let name = format!("clone-{repo}-{}", report.clones);
    let client = Client::new(home, &name, api, repo).await?;
    let url = format!("{}/{repo}.git", api.url());
    client.run(&["fetch", "-q", "--update-head-ok", &url, "+refs/*:refs/*"]).await?;
    client.run(&["fsck", "--strict", "--no-dangling"]).await?;
    report.clones += 1;
    let listed = client.run(&["for-each-ref", "--format=%(objectname) %(refname)"]).await?;
    let there: BTreeMap<&str, &str> =
        listed.lines().filter_map(|line| line.split_once(' ').map(|(id, name)| (name, id))).collect();
    let want: BTreeMap<&str, &str> =
        seen.iter().flat_map(|s| &s.refs).map(|(name, id)| (name.as_str(), id.as_str())).collect();
    report.refs += want.len();
    for (name, id) in &want {
        if there.get(name) != Some(id) {
            report.missing.push(format!("{repo}: {name} should be {id}, is {:?}", there.get(name)));
        }
    }
    for name in there.keys().filter(|name| **name != "refs/heads/main" && !want.contains_key(*name)) {
        report.missing.push(format!("{repo}: {name} was deleted, or never pushed"));
    }
    let history = client.run(&["rev-list", "refs/heads/main"]).await?;
    let history: std::collections::BTreeSet<&str> = history.lines().collect();
    for id in seen.iter().flat_map(|s| &s.shared).filter(|id| !history.contains(id.as_str())) {
        report.missing.push(format!("{repo}: {id} was acknowledged on main"));
    }
    Ok(())
}

async fn compare_replicas(api: &Api, repo: &str, report: &mut Report) -> Result<()> {
    all_current(api, Instant::now()).await?;
    let found = api.inspect(repo).await?;
    report.replicas += found.replicas.len();
    if !found.alike {
        report.different.push(found.table());
    }
    Ok(())
}

/// What is said at the end.
#[derive(Debug, Default)]
struct Report {
    pushes: usize,
    pushes_while_down: usize,
    median: Duration,
    slowest: Duration,
    first_after_kill: Option<Duration>,
    lost_races: usize,
    failed: Vec<String>,
    reads: usize,
    stale: Vec<String>,
    refs: usize,
    clones: usize,
    missing: Vec<String>,
    repaired: Duration,
    folded: usize,
    bytes_before: usize,
    bytes: usize,
    rebuilt: Duration,
    replicas: usize,
    different: Vec<String>,
    ci: ci::Seen,
    took: Duration,
}

impl Report {
    fn count(&mut self, seen: &BTreeMap<String, Vec<Seen>>, killed: Instant, started: Instant) {
        let all: Vec<&Seen> = seen.values().flatten().collect();
        let pushes: Vec<(Instant, Duration)> = all.iter().flat_map(|s| s.pushes.iter().copied()).collect();
        let mut times: Vec<Duration> = pushes.iter().map(|p| p.1).collect();
        times.sort_unstable();
        self.pushes = pushes.len();
        self.pushes_while_down = pushes.iter().filter(|(sent, _)| *sent > killed && *sent < started).count();
        self.median = times.get(times.len() / 2).copied().unwrap_or_default();
        self.slowest = times.last().copied().unwrap_or_default();
        self.first_after_kill =
            pushes.iter().map(|(sent, took)| *sent + *took).filter(|at| *at > killed).min().map(|at| at - killed);
        self.lost_races = all.iter().map(|s| s.lost_races).sum();
        self.failed = all.iter().flat_map(|s| s.failed.iter().cloned()).collect();
        self.reads = all.iter().map(|s| s.reads).sum();
        self.stale = all.iter().flat_map(|s| s.stale.iter().cloned()).collect();
    }

    fn text(&self) -> String {
        let ms = |d: Duration| format!("{} ms", d.as_millis());
        let lines = [
            (
                "pushes acknowledged",
                format!("{}, {} of them while node {KILLED} was down", self.pushes, self.pushes_while_down),
            ),
            ("a push takes", format!("{} (median), {} (slowest)", ms(self.median), ms(self.slowest))),
            ("first push after the kill", self.first_after_kill.map_or_else(|| "none".to_owned(), ms)),
            ("pushes that lost a race", format!("{}, each told why", self.lost_races)),
            ("pushes that failed", self.failed.len().to_string()),
            ("reads after a push", format!("{}, {} stale", self.reads, self.stale.len())),
            (
                "refs acknowledged",
                format!("{} compared in {} clones, {} missing", self.refs, self.clones, self.missing.len()),
            ),
            ("node started to repaired", ms(self.repaired)),
            ("refs log compacted", format!("{} records, {} → {} bytes", self.folded, self.bytes_before, self.bytes)),
            ("replica rebuilt from the log", ms(self.rebuilt)),
            ("replicas compared", format!("{}, {} different", self.replicas, self.different.len())),
            ("pipelines passed", self.ci.pipelines_line()),
            ("job of the killed worker", self.ci.rerun_line()),
            ("the fleet", self.ci.fleet_line()),
            ("took", format!("{:.1} s", self.took.as_secs_f64())),
        ];
        let lines = lines.map(|(what, said)| format!("{what:<29} {said}\n")).concat();
        let faults = [&self.failed, &self.stale, &self.missing, &self.different, &self.ci.faults];
        let faults: Vec<String> = faults.into_iter().flatten().map(|fault| format!("FAULT {fault}\n")).collect();
        let faults = faults.concat();
        format!("\n{faults}{lines}")
    }

    /// A push may be refused or fail; what was acknowledged must be there, fresh, and everywhere the same.
    fn verdict(&self) -> Result<()> {
        let faults = self.stale.len() + self.missing.len() + self.different.len() + self.ci.faults.len();
        if faults > 0 {
            bail!("{faults} faults: see above");
        }
        if self.pushes_while_down == 0 {
            bail!("no push was acknowledged while node {KILLED} was down");
        }
        Ok(())
    }
}
