//! The scaler's host kit over the crew itself: real processes, real files, and a controller that is killed all the time.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "a test fails by panicking, and works by hand")]

#[path = "../src/crew.rs"]
mod crew;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use crew::{Crew, Worker};
use tenon_scaler::strategy::{QueueLength, Strategy};
use tenon_scaler::testkit::{Event, Host, torture};
use tenon_scaler::*;

/// A worker that serves when it is let, and goes when it is killed.
const WORKER: &str = r#"#!/bin/sh
folder="${2%/workers/*}" name="${2##*/}"
echo $$ >"$folder/$name.new" && mv "$folder/$name.new" "$folder/pids/$name"
while [ ! -e "$folder/go/$name" ]; do sleep 0.01; done
exec 9>>"$2"
flock -x 9
echo serves >&9
exec sleep 1000
"#;

/// The name under which a worker was launched.
fn name(held: &Worker) -> String {
    held.leave.file_stem().unwrap().to_string_lossy().into_owned()
}

struct Rig {
    crew: Crew,
    folder: PathBuf,
    /// What each request was, as the host needs it to be asked.
    requests: BTreeMap<RequestId, Request>,
    metrics: BTreeMap<MetricId, (Timestamp, Milli)>,
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < Duration::from_mins(1), "{what} does not come to pass");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

impl Rig {
    fn new(folder: PathBuf) -> Result<Self> {
        let program = folder.join("worker.sh");
        fs::write(&program, WORKER)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        for part in ["pids", "go"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let crew = Crew::open(&folder, program)?;
        Ok(Self { crew, folder, requests: BTreeMap::new(), metrics: BTreeMap::new() })
    }

    fn names(&mut self, count: u32, is: impl Fn(&Worker) -> bool) -> Result<Vec<String>> {
        let workers = self.crew.workers()?;
        let names: Vec<_> = workers.iter().filter(|held| is(held)).map(name).take(count as usize).collect();
        ensure!(names.len() == count as usize, "{} of {count} are there", names.len());
        Ok(names)
    }

    fn kill(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            let pid = fs::read_to_string(self.folder.join("pids").join(name))?;
            ensure!(Command::new("kill").args(["-9", pid.trim()]).status()?.success(), "no process {pid}");
            fs::remove_file(self.folder.join("pids").join(name))?;
            // One that never came is known by its age.
            let old = SystemTime::now().checked_sub(Duration::from_mins(1)).context("the clock")?;
            let file = self.crew.workers()?.into_iter().find(|held| crate::name(held) == *name).context("no file")?;
            fs::File::options().append(true).open(&file.leave)?.set_modified(old)?;
        }
        until("their end", || Ok(self.crew.workers()?.iter().all(|held| !names.contains(&name(held)) || !held.alive)))
    }
}

impl Host for Rig {
    type Error = anyhow::Error;

    fn save(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.crew.save(snapshot)
    }

    fn load(&mut self) -> Result<Option<Snapshot>> {
        let text = fs::read_to_string(self.folder.join("state.json")).ok();
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    fn act(&mut self, _: Timestamp, effect: &Effect) -> Result<()> {
        self.crew.act(effect)?;
        let (group, pool, kind, count) = match *effect {
            Effect::Launch { count, group, pool, .. } => (group, pool, RequestKind::Launch, count),
            Effect::Release { count, group, pool, .. } => (group, pool, RequestKind::Release, count),
            Effect::Cancel { .. } => return Ok(()),
        };
        let (at, came) = (Timestamp::ZERO, Progress::default());
        self.requests.insert(effect.request(), Request { group, pool, kind, at, count, keep: count, came });
        for held in self.crew.workers()?.iter().filter(|held| held.alive) {
            until("a process", || Ok(self.folder.join("pids").join(name(held)).exists()))?;
            if !held.serves() {
                // Starts are the kit's to bring about, however slow this machine is.
                let young = SystemTime::now() + Duration::from_hours(1);
                fs::File::options().append(true).open(&held.leave)?.set_modified(young)?;
            }
        }
        Ok(())
    }

    fn progress(&mut self, _: Timestamp, request: RequestId) -> Result<Progress> {
        let asked = *self.requests.get(&request).context("never asked")?;
        Ok(Crew::progress(&self.crew.workers()?, request, &asked))
    }

    fn census(&mut self, _: Timestamp, _: GroupId, _: PoolId) -> Result<u32> {
        Ok(u32::try_from(self.crew.workers()?.iter().filter(|held| held.serves()).count())?)
    }

    fn read(&mut self, _: Timestamp, _: GroupId, metric: MetricId) -> Result<Option<(Timestamp, Milli)>> {
        Ok(self.metrics.get(&metric).copied())
    }

    fn existing(&mut self, _: PoolId) -> Result<u32> {
        let mut count = 0;
        for entry in fs::read_dir(self.folder.join("pids"))? {
            let pid = fs::read_to_string(entry?.path())?;
            let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
            count += u32::from(!status.is_empty() && !status.contains("State:\tZ"));
        }
        Ok(count)
    }

    fn happen(&mut self, _: Timestamp, event: Event) -> Result<()> {
        match event {
            Event::Measured { metric, at, value, .. } => {
                self.metrics.insert(metric, (at, value));
                Ok(())
            }
            Event::Start { request, count } => {
                let is_starting = |held: &Worker| held.launch == request && held.alive && !held.came && !held.cancelled;
                let names = self.names(count, is_starting)?;
                for name in &names {
                    fs::write(self.folder.join("go").join(name), "")?;
                }
                until("their start", || {
                    Ok(self.crew.workers()?.iter().all(|held| !names.contains(&name(held)) || held.serves()))
                })
            }
            Event::Fail { request, count } => {
                let fails = |held: &Worker| held.launch == request && held.alive && !held.came && !held.cancelled;
                let names = self.names(count, fails)?;
                self.kill(&names)
            }
            Event::Stop { request, count } => {
                let names = self.names(count, |held| held.launch == request && held.alive && held.cancelled)?;
                self.kill(&names)
            }
            Event::Leave { request, count } => {
                let names = self.names(count, |held| held.release == Some(request) && held.alive)?;
                self.kill(&names)
            }
            Event::Die { count, .. } => {
                let names = self.names(count, Worker::serves)?;
                self.kill(&names)
            }
        }
    }

    fn crash(&mut self, _: Timestamp) -> Result<()> {
        // All that the controller knows of is on the disk; the workers go on.
        self.crew = Crew::open(&self.folder, self.folder.join("worker.sh"))?;
        Ok(())
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new(Config::builder().build().unwrap());
    let (now, shape, watermark) = (Timestamp::from_millis(1), ShapeId(1), Watermark::default());
    let stock = vec![(shape, 5)];
    let pool = Pool { id: PoolId(1), kind: PoolKind::Resident, idc: IdcId(1), price: 1, watermark, stock };
    engine.put_pool(now, pool).unwrap();
    engine.put_release(now, ReleaseId(1), VersionId(1));
    let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(8) });
    let policy = Policy {
        max: 5,
        metrics: vec![Metric { id: MetricId(1), stale_after_ms: 100_000, when_stale: Staleness::ForbidIn }],
        rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(MetricId(1), queue) }],
        ..Policy::default()
    };
    let traffic = Traffic { id: GroupId(1), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape };
    engine.put_group(now, traffic, policy).unwrap();
    engine
}

#[test]
fn the_crew_passes_the_scalers_host_kit() {
    let (mut started, mut left, mut crashes) = (0, 0, 0);
    for seed in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::new(folder.path().to_owned()).unwrap();
        let outcome = torture(&mut rig, &engine(), seed, 50);
        for held in rig.crew.workers().unwrap().iter().filter(|held| held.alive) {
            let pid = fs::read_to_string(folder.path().join("pids").join(name(held))).unwrap();
            Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
        }
        let report = outcome.unwrap_or_else(|broken| panic!("{broken}"));
        started += report.started;
        left += report.left;
        crashes += report.crashes;
    }
    assert!(started > 15 && left > 5 && crashes > 10, "{started} started, {left} left, {crashes} crashes");
}
