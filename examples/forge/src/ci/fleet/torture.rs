//! The scaler's host kit, over the fleet's own processes and rules: real children, killed, late, and left behind.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tenon_scaler::testkit::{Event, Host, Lives, Progress, torture};
use tenon_scaler::{Effect, GroupId, MetricId, Milli, PoolId, RequestId, Snapshot, Timestamp};
use tokio::process::{Child, Command};

use super::crew::{Crew, Launch, Stage};
use super::{Sizing, engine};

/// Workers that do nothing, and go only when they are made to.
#[derive(Debug)]
struct Idle;

impl Launch for Idle {
    fn launch(&self, _: &str) -> Result<Child> {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; read line"]).stdin(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn()?;
        // A release that comes before the shell has read its first word would end it.
        let status = format!("/proc/{}/status", child.id().context("it has ended")?);
        while !ignores_term(&std::fs::read_to_string(&status)?) {
            std::thread::yield_now();
        }
        Ok(child)
    }
}

/// Whether a process is deaf to SIGTERM, by what `/proc/PID/status` says of it.
fn ignores_term(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 << 14 != 0)
}

#[derive(Default)]
struct Rig {
    crew: Crew,
    /// Workers that have asked for work.
    seen: Vec<String>,
    metrics: BTreeMap<MetricId, (Timestamp, Milli)>,
}

impl Rig {
    fn named(&self, count: u32, is: impl Fn(Stage) -> bool) -> Vec<String> {
        let found = self.crew.processes().filter(|(name, _, stage)| is(*stage) && !self.seen.contains(name));
        found.map(|(name, ..)| name.clone()).take(count as usize).collect()
    }

    /// Kills so many, and waits until they have been reaped.
    fn kill(&mut self, count: u32, is: impl Fn(Stage) -> bool) -> Result<()> {
        let names: Vec<String> =
            self.crew.processes().filter(|held| is(held.2)).map(|held| held.0.clone()).take(count as usize).collect();
        ensure!(names.len() == count as usize, "{} of {count} are there", names.len());
        for name in &names {
            self.crew.child(name).context("no such worker")?.start_kill()?;
        }
        let start = Instant::now();
        let mut left = names.len();
        while left > 0 {
            let ended = self.crew.reap();
            self.seen.retain(|name| !ended.contains(name));
            left -= ended.len();
            ensure!(start.elapsed() < Duration::from_secs(20), "killed, and not gone");
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Host for Rig {
    type Error = anyhow::Error;

    /// A worker's life is tied to its standard input, which the router holds.
    fn lives(&self) -> Lives {
        Lives::WithHost
    }

    fn save(&mut self, _: &Snapshot) -> Result<()> {
        Ok(())
    }

    fn load(&mut self) -> Result<Option<Snapshot>> {
        Ok(None)
    }

    fn act(&mut self, now: Timestamp, effect: &Effect) -> Result<()> {
        match *effect {
            Effect::Launch { request, count, .. } => self.crew.launch(now.as_millis(), &Idle, request, count),
            Effect::Cancel { request, keep, .. } => self.crew.cancel(request, keep),
            Effect::Release { request, count, .. } => self.crew.release(request, count, &[]),
        }
        Ok(())
    }

    fn progress(&mut self, _: Timestamp, request: RequestId) -> Result<Progress> {
        Ok(self.crew.totals(request))
    }

    fn census(&mut self, _: Timestamp, _: GroupId, _: PoolId) -> Result<u32> {
        Ok(self.crew.serving())
    }

    fn read(&mut self, _: Timestamp, _: GroupId, metric: MetricId) -> Result<Option<(Timestamp, Milli)>> {
        Ok(self.metrics.get(&metric).copied())
    }

    fn existing(&mut self, _: PoolId) -> Result<u32> {
        let alive = |pid: Option<u32>| pid.is_some_and(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists());
        Ok(u32::try_from(self.crew.processes().filter(|(_, pid, _)| alive(*pid)).count())?)
    }

    fn happen(&mut self, now: Timestamp, event: Event) -> Result<()> {
        match event {
            Event::Measured { metric, at, value, .. } => {
                self.metrics.insert(metric, (at, value));
            }
            Event::Start { request, count } => {
                let names = self.named(count, |stage| stage == Stage::Starting(request));
                ensure!(names.len() == count as usize, "{} of {count} are starting", names.len());
                self.seen.extend(names);
                // The limit of a start is the kit's to bring about.
                self.crew.greet(0, &self.seen);
            }
            Event::Fail { request, count } => self.kill(count, |stage| stage == Stage::Starting(request))?,
            Event::Stop { request, count } => self.kill(count, |stage| stage == Stage::Cancelled(request))?,
            Event::Leave { request, count } => self.kill(count, |stage| stage == Stage::Leaving(request))?,
            Event::Die { count, .. } => self.kill(count, |stage| stage == Stage::Serving)?,
        }
        ensure!(now >= Timestamp::ZERO, "time goes on");
        Ok(())
    }

    fn crash(&mut self, _: Timestamp) -> Result<()> {
        // The processes end with their standard input.
        for mut child in self.crew.disband() {
            drop(child.stdin.take());
        }
        (self.crew, self.seen) = Default::default();
        Ok(())
    }
}

fn sizing() -> Sizing {
    Sizing { min: 1, max: 6, jobs_per_worker: 4, oldest_ms: 20_000, calm_ms: 2_000, tags: Vec::new() }
}

#[tokio::test]
async fn the_fleet_passes_the_scalers_host_kit() {
    let (mut started, mut left, mut died) = (0, 0, 0);
    for seed in 0..12 {
        let engine = engine(&sizing()).unwrap();
        let report = torture(&mut Rig::default(), &engine, seed, 60).unwrap_or_else(|broken| panic!("{broken}"));
        started += report.started;
        left += report.left;
        died += report.died;
    }
    assert!(started > 40 && left > 10 && died > 5, "{started} started, {left} left, {died} died");
}
