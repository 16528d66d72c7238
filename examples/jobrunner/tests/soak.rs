//! Two runners on one `PostgreSQL`, both killed again and again, the database restarted, connections cut and reads failing:
//! in the end every job that was taken in is done once, every engine is empty, no key was ever held twice, and never more jobs
//! were out than the pool allows.
//!
//! `TENON_SOAK_SECONDS` says how long it goes on (5 by default); `TENON_SOAK_SEED` repeats a run's choices.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use job_store::server::{Server, Stop};
use job_store::{BlockingPostgresStore, Store};
use tenon_jobqueue::{JobId, Key, Row, State, Want};

/// Chance from a seed: xorshift (Marsaglia, "Xorshift RNGs", 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Two runners, the database, and what was asked of them.
struct Soak {
    server: Server,
    url: String,
    folder: tempfile::TempDir,
    runners: Vec<Child>,
    chance: Chance,
    /// Jobs that the queue said it has.
    taken: BTreeSet<u64>,
    kills: u32,
    restarts: u32,
    cuts: u32,
    looks: u32,
    /// The most jobs that were seen out at once.
    most: usize,
}

const KEYS: u64 = 3;
/// Jobs that both runners may run at once, together; they have six workers.
const LIMIT: usize = 4;

impl Soak {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobrunner"));
        command.current_dir(self.folder.path()).args(["--store", &self.url]).args(arguments).stdin(Stdio::null());
        command
    }

    fn log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.folder.path().join("runners.log")).unwrap()
    }

    /// A runner in a process group of its own, so that it dies with its commands, as a machine does.
    fn runner(&self, arguments: &[&str]) -> Child {
        let limit = LIMIT.to_string();
        let arguments = [&["run", "--workers", "3", "--limit", &limit], arguments].concat();
        self.command(&arguments).process_group(0).stdout(self.log()).stderr(self.log()).spawn().unwrap()
    }

    fn submit(&mut self) {
        let key = self.chance.below(KEYS + 3).to_string();
        let number = self.chance.below(1_000_000);
        let script = format!("echo {number} >> ran; sleep 0.{}", self.chance.below(3));
        let mut arguments = vec!["submit", "--crashes", "1000"];
        if key.parse::<u64>().unwrap() < KEYS {
            arguments.extend(["--key", &key]);
        }
        arguments.push(&script);
        let told = self.command(&arguments).stderr(self.log()).output().unwrap();
        // A submission that was not answered may have been made, or not; one that was must not be lost.
        if told.status.success() {
            let said = String::from_utf8(told.stdout).unwrap();
            let id = said.strip_prefix("job ").and_then(|rest| rest.split_once(',')).map(|(id, _)| id);
            self.taken.insert(id.unwrap_or_else(|| panic!("{said}")).parse().unwrap());
        }
    }

    fn kill(&mut self) {
        let at = usize::try_from(self.chance.below(self.runners.len() as u64)).unwrap();
        let group = format!("-{}", self.runners[at].id());
        assert!(
            self.runners[at].try_wait().unwrap().is_none(),
            "a runner has ended by itself: see {}",
            self.keep().display()
        );
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
        self.runners[at].wait().unwrap();
        self.runners[at] = self.runner(&["--forever"]);
        self.kills += 1;
    }

    fn restart(&mut self) {
        let how = if self.chance.below(2) == 0 { Stop::Kill } else { Stop::Fast };
        self.server.stop(how).unwrap();
        sleep(Duration::from_millis(self.chance.below(1_500)));
        self.server.run().unwrap();
        self.restarts += 1;
    }

    /// All connections are cut at once: whatever is being read or written fails.
    fn cut(&mut self) {
        let ask = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'tenon'";
        self.server.psql(ask).unwrap();
        self.cuts += 1;
    }

    /// What must be so at every moment.
    fn look(&mut self) {
        let Ok(mut store) = BlockingPostgresStore::open(&self.url) else { return };
        for key in 0..KEYS {
            let Ok(rows) = store.read(Want::Key(Key::new(key)), &[]) else { return };
            let held = rows.iter().filter_map(Row::as_job).filter(|job| job.held_key() == Some(Key::new(key)));
            let held: Vec<JobId> = held.map(tenon_jobqueue::Job::id).collect();
            assert!(held.len() <= 1, "key {key} is held by {held:?}");
        }
        let Ok(rows) = store.open_rows() else { return };
        let out = rows.iter().filter_map(Row::as_job).filter(|job| job.state.is_leased()).count();
        assert!(out <= LIMIT, "{out} jobs are out, and {LIMIT} may be");
        self.most = self.most.max(out);
        self.looks += 1;
    }

    /// Keeps what was written, for whoever looks into a failure.
    fn keep(&self) -> PathBuf {
        let kept = std::env::temp_dir().join("jobrunner-soak.log");
        std::fs::copy(self.folder.path().join("runners.log"), &kept).unwrap();
        kept
    }

    /// The faults stop. Both runners end by themselves, which they do only with an empty queue and an empty engine.
    fn come_to_an_end(&mut self) {
        for mut runner in std::mem::take(&mut self.runners) {
            assert!(
                Command::new("kill").args(["-KILL", "--", &format!("-{}", runner.id())]).status().unwrap().success()
            );
            runner.wait().unwrap();
        }
        let mut last = [self.runner(&[]), self.runner(&[])];
        let start = Instant::now();
        for runner in &mut last {
            let status = loop {
                if let Some(status) = runner.try_wait().unwrap() {
                    break status;
                }
                assert!(
                    start.elapsed() < Duration::from_mins(5),
                    "it does not come to its end: see {}",
                    self.keep().display()
                );
                sleep(Duration::from_millis(50));
            };
            assert!(status.success(), "{status}: see {}", self.keep().display());
        }
        let told = std::fs::read_to_string(self.folder.path().join("runners.log")).unwrap();
        assert!(!told.contains("the engine still holds"), "an engine is not empty: see {}", self.keep().display());
    }

    fn check(&self) {
        let mut store = BlockingPostgresStore::open(&self.url).unwrap();
        assert_eq!(store.open_rows().unwrap(), [], "nothing is left open");
        let mut ends: BTreeMap<u64, Vec<State>> = BTreeMap::new();
        let (mut from, mut attempts) = (Some(JobId::new(0)), 0);
        while let Some(first) = from {
            let rows = store.jobs(first, 1_000).unwrap();
            for job in rows.iter().filter_map(Row::as_job) {
                attempts += 1;
                ends.entry(job.id().get()).or_default().push(job.state);
            }
            let last = rows.last().and_then(Row::as_job).map(|job| job.id().get() + 1);
            from = last.map(JobId::new);
        }
        for (job, states) in &ends {
            let done = states.iter().filter(|state| **state == State::Succeeded).count();
            assert_eq!(done, 1, "job {job}: {states:?}; see {}", self.keep().display());
        }
        let lost: Vec<&u64> = self.taken.iter().filter(|job| !ends.contains_key(job)).collect();
        assert!(lost.is_empty(), "taken in, and lost: {lost:?}");
        println!(
            "{} jobs, {attempts} attempts; {} kills, {} restarts and {} cuts; keys and limits looked at {} times, at most {} jobs out at once",
            ends.len(),
            self.kills,
            self.restarts,
            self.cuts,
            self.looks,
            self.most
        );
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn every_job_is_done_once_whatever_is_killed() {
    let Some(server) = Server::start_or_skip("every_job_is_done_once_whatever_is_killed").unwrap() else { return };
    let (seconds, seed) = (from_environment("TENON_SOAK_SECONDS", 5), from_environment("TENON_SOAK_SEED", 1));
    println!("TENON_SOAK_SECONDS={seconds} TENON_SOAK_SEED={seed}");
    let url = server.url();
    let mut soak = Soak {
        server,
        url,
        folder: tempfile::tempdir().unwrap(),
        runners: Vec::new(),
        chance: Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        taken: BTreeSet::new(),
        kills: 0,
        restarts: 0,
        cuts: 0,
        looks: 0,
        most: 0,
    };
    soak.runners = vec![soak.runner(&["--forever"]), soak.runner(&["--forever"])];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        match soak.chance.below(40) {
            0..3 => soak.kill(),
            3 => soak.cut(),
            4 if soak.chance.below(4) == 0 => soak.restart(),
            5..20 => soak.submit(),
            20..25 => soak.look(),
            _ => sleep(Duration::from_millis(50)),
        }
    }
    soak.come_to_an_end();
    soak.check();
    assert!(Path::new(&soak.folder.path().join("ran")).exists() && soak.taken.len() > 1, "too little happened");
}
