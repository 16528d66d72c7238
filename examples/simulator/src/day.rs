//! A day: traffic, faults, and the laws that are watched; then a calm in which everything must come to its end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tenon_quorum::{NodeId, RepoId};

use crate::chance::Chance;
use crate::faults::{Fault, NODES, Weather, schedule};
use crate::fleet::{Fleet, TICK};
use crate::jobs::{self, Jobs};
use crate::ledger::Broken;
use crate::repos::{self, Network, Repos, Told};

/// What kind of day is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) hours: u64,
    pub(crate) repos: u64,
    pub(crate) pipelines_per_day: u64,
    pub(crate) weather: Weather,
    pub(crate) routers: usize,
    pub(crate) engines: usize,
    /// How many repositories a router keeps in memory beyond what is under way.
    pub(crate) awake: u32,
    /// The places in the schedule of the faults that happen; all if there are none named.
    pub(crate) only: Option<Vec<usize>>,
}

impl Plan {
    pub(crate) const fn ms(&self) -> u64 {
        self.hours * 3_600_000
    }

    /// All faults of such a day, and when they happen.
    pub(crate) fn faults(&self) -> Vec<(u64, Fault)> {
        schedule(self.weather, self.seed, self.ms(), self.routers, self.engines)
    }
}

/// Where a day stands at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: u64,
    pub(crate) pushes: u64,
    pub(crate) failed_pushes: u64,
    pub(crate) reads: u64,
    pub(crate) failed_reads: u64,
    pub(crate) load: u64,
    pub(crate) serving: u32,
    pub(crate) target: u32,
}

/// What a day was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) events: u64,
    pub(crate) digest: u64,
    pub(crate) pushes: u64,
    pub(crate) failed_pushes: u64,
    pub(crate) reads: u64,
    pub(crate) failed_reads: u64,
    pub(crate) pipelines: u64,
    pub(crate) results: u64,
    pub(crate) commits: u64,
    pub(crate) waits: [u64; 32],
    pub(crate) peak: usize,
    pub(crate) instance_hours: u64,
    /// How long the calm took until everything was at its end, in ms.
    pub(crate) healed_ms: u64,
    pub(crate) samples: Vec<Sample>,
    /// Why pushes were not applied, and how often.
    pub(crate) failures: std::collections::BTreeMap<String, u64>,
    /// The faults that happened, and when.
    pub(crate) faults: Vec<(u64, Fault)>,
}

#[derive(Clone, Debug)]
enum Event {
    Repos(Box<repos::Message>),
    Jobs(Box<jobs::Message>),
    Traffic,
    Fleet,
    Fault(Fault),
    /// A fault ends.
    End(Fault),
    Operators,
    Sample,
}

struct Queued(u64, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A law was broken: what, at which event, when.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) broken: Broken,
    pub(crate) event: u64,
    pub(crate) at: u64,
}

struct Day<'a> {
    plan: &'a Plan,
    queue: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
    now: u64,
    repos: Repos,
    jobs: Jobs,
    fleet: Fleet,
    chance: Chance,
    summary: Summary,
    /// Faults have stopped, and so has traffic.
    is_calm: bool,
    calm_since: u64,
    /// Pushes that were applied before the calm.
    pushed: u64,
    /// Repositories that are yet to be written in the calm, and those whose write came to nothing.
    asked: Vec<RepoId>,
    retry: Vec<RepoId>,
    retry_at: u64,
    last: Sample,
}

/// When repositories are made, before the day begins.
const DAWN_MS: u64 = 120_000;
/// Within so much time after the faults everything must be at its end.
const CALM_MS: u64 = 3 * 3_600_000;

/// How busy an hour of the day is, in permille of the busiest.
const BUSY: [u64; 24] = [
    150, 110, 90, 80, 90, 130, 220, 400, 650, 850, 950, 1_000, 900, 880, 950, 980, 930, 820, 640, 480, 380, 300, 240,
    190,
];

/// Runs a day.
pub(crate) fn run(plan: &Plan, progress: &mut dyn FnMut(u64, &Summary)) -> anyhow::Result<Result<Summary, Violation>> {
    let mut day = Day {
        plan,
        queue: BinaryHeap::new(),
        sequence: 0,
        now: 1,
        repos: Repos::new(plan.seed, plan.routers, plan.repos, plan.awake)?,
        jobs: Jobs::new(plan.seed, plan.engines)?,
        fleet: Fleet::new(plan.seed)?,
        chance: Chance::new(plan.seed, 5),
        summary: Summary::default(),
        is_calm: false,
        calm_since: 0,
        pushed: 0,
        asked: Vec::new(),
        retry: Vec::new(),
        retry_at: 0,
        last: Sample::default(),
    };
    day.repos.create(1)?;
    day.push(DAWN_MS, Event::Traffic);
    day.push(TICK, Event::Fleet);
    day.push(5_000, Event::Operators);
    day.push(DAWN_MS, Event::Sample);
    let faults = plan.faults().into_iter().enumerate();
    let faults = faults.filter(|(place, _)| plan.only.as_ref().is_none_or(|only| only.contains(place)));
    for (_, (at, fault)) in faults {
        day.push(DAWN_MS + at, Event::Fault(fault));
    }
    let told = day.live(progress)?;
    Ok(told.map(|()| {
        let mut summary = day.summary;
        summary.digest ^= day.repos.state() ^ day.jobs.state().rotate_left(17);
        summary.pipelines = day.jobs.ledger.taken;
        summary.results = day.jobs.ledger.results;
        summary.commits = day.repos.ledger.commits;
        summary.failures = day.repos.failures;
        summary.waits = day.jobs.ledger.waits;
        summary.peak = day.fleet.peak;
        summary.instance_hours = day.fleet.instance_ms / 3_600_000;
        summary
    }))
}

impl Day<'_> {
    fn push(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued(self.now + after, self.sequence, event)));
    }

    fn live(&mut self, progress: &mut dyn FnMut(u64, &Summary)) -> anyhow::Result<Result<(), Violation>> {
        let end = DAWN_MS + self.plan.ms();
        let mut next_told = 0;
        loop {
            if !self.is_calm && self.now >= end {
                self.calm();
            }
            if self.is_calm {
                match self.is_healed() {
                    Ok(true) => return Ok(Ok(())),
                    Ok(false) => {}
                    Err(broken) => return Ok(Err(self.violation(broken))),
                }
            }
            let due = self.queue.peek().map_or(u64::MAX, |Reverse(queued)| queued.0);
            let wake =
                [self.repos.next_deadline(self.now), self.jobs.next_deadline(self.now)].into_iter().flatten().min();
            if let Some(wake) = wake.filter(|wake| *wake < due) {
                self.now = self.now.max(wake);
                self.summary.events += 1;
                self.repos.tick(self.now);
                self.jobs.tick(self.now);
                self.gather();
                continue;
            }
            let Some(Reverse(Queued(at, sequence, event))) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            self.summary.events += 1;
            self.summary.digest = self.summary.digest.rotate_left(7).wrapping_mul(31) ^ at ^ sequence << 20;
            let told = self.handle(event)?;
            self.gather();
            if let Err(broken) = told.and_then(|()| self.repos.ledger.take_wrong()) {
                return Ok(Err(self.violation(broken)));
            }
            if self.now / 600_000 >= next_told {
                next_told = self.now / 600_000 + 1;
                progress(self.now, &self.summary);
            }
        }
        Ok(Ok(()))
    }

    const fn violation(&self, broken: Broken) -> Violation {
        Violation { broken, event: self.summary.events, at: self.now }
    }

    /// Takes what the parts put on their way, and what clients were told.
    fn gather(&mut self) {
        for (after, message) in std::mem::take(&mut self.repos.out) {
            self.push(after, Event::Repos(Box::new(message)));
        }
        for (after, message) in std::mem::take(&mut self.jobs.out) {
            self.push(after, Event::Jobs(Box::new(message)));
        }
        for told in std::mem::take(&mut self.repos.told) {
            match told {
                Told::Pushed(_) => {
                    self.summary.pushes += 1;
                    // Not every push has a file that says what to run; in the calm nothing new is begun.
                    if !self.is_calm {
                        self.jobs.submit(self.now);
                        for (after, message) in std::mem::take(&mut self.jobs.out) {
                            self.push(after, Event::Jobs(Box::new(message)));
                        }
                    }
                }
                Told::PushFailed(repo) => {
                    self.summary.failed_pushes += 1;
                    if self.is_calm {
                        self.retry.push(repo);
                    }
                }
                Told::Served => self.summary.reads += 1,
                Told::ReadFailed => self.summary.failed_reads += 1,
            }
        }
    }

    fn handle(&mut self, event: Event) -> anyhow::Result<Result<(), Broken>> {
        match event {
            Event::Repos(message) => return Ok(self.repos.deliver(self.now, *message)),
            Event::Jobs(message) => return Ok(self.jobs.deliver(self.now, *message)),
            Event::Traffic => self.traffic(),
            Event::Fleet => return Ok(self.look_at_fleet()),
            Event::Fault(fault) if !self.is_calm => self.fault(fault)?,
            Event::End(fault) if !self.is_calm => self.end(fault),
            Event::Fault(_) | Event::End(_) => {}
            Event::Operators => {
                self.repos.look_after(self.now);
                self.jobs.nudge(self.now);
                self.push(5_000, Event::Operators);
            }
            Event::Sample => self.sample(),
        }
        Ok(Ok(()))
    }

    /// Somebody reads or pushes, and the next one comes soon.
    fn traffic(&mut self) {
        if self.is_calm {
            return;
        }
        let hour = usize::try_from((self.now / 3_600_000) % 24).unwrap_or(0);
        let busy = BUSY[hour];
        // Of eight that come, one pushes.
        let per_day = self.plan.pipelines_per_day * 8;
        let average: u64 = BUSY.iter().sum::<u64>() / 24;
        let gap = (86_400_000 * average / (per_day.max(1) * busy)).max(1);
        let repo = RepoId(1 + self.chance.zipf(self.plan.repos));
        if self.chance.below(8) == 0 {
            self.repos.push(self.now, repo);
        } else {
            self.repos.read(self.now, repo);
        }
        let after = 1 + self.chance.below(2 * gap);
        self.push(after, Event::Traffic);
    }

    fn look_at_fleet(&mut self) -> Result<(), Broken> {
        let change = self.fleet.tick(self.now, self.jobs.ledger.load())?;
        for _ in 0..change.come {
            let hand = self.jobs.hire(self.now);
            self.fleet.hired(self.now, hand);
        }
        for hand in change.go {
            self.jobs.dismiss(hand);
        }
        self.push(TICK, Event::Fleet);
        Ok(())
    }

    fn sample(&mut self) {
        let now = Sample {
            at: self.now,
            pushes: self.summary.pushes,
            failed_pushes: self.summary.failed_pushes,
            reads: self.summary.reads,
            failed_reads: self.summary.failed_reads,
            load: self.jobs.ledger.load(),
            serving: self.fleet.serving(self.now, None),
            target: self.fleet.target(),
        };
        let last = std::mem::replace(&mut self.last, now);
        self.summary.samples.push(Sample {
            pushes: now.pushes - last.pushes,
            failed_pushes: now.failed_pushes - last.failed_pushes,
            reads: now.reads - last.reads,
            failed_reads: now.failed_reads - last.failed_reads,
            ..now
        });
        self.push(self.plan.ms() / 288, Event::Sample);
    }

    fn fault(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.summary.faults.push((self.now, fault));
        let lasts = self.befall(fault)?;
        if lasts > 0 {
            self.push(lasts + 1, Event::End(fault));
        }
        Ok(())
    }

    /// Something happens to the nodes, routers and the metadata store; returns for how long it lasts, in ms.
    fn befall(&mut self, fault: Fault) -> anyhow::Result<u64> {
        let now = self.now;
        match fault {
            Fault::NodeCrash(node, ms) => {
                self.repos.crash_node(now, NodeId(node), ms);
                return Ok(ms);
            }
            Fault::Partition(node, ms) => {
                self.repos.cut_off(now, NodeId(node), ms);
                return Ok(ms);
            }
            Fault::DatacenterDown(dc, ms) => {
                for node in (1..=NODES).filter(|node| 1 + (node - 1) % 3 == dc) {
                    self.repos.crash_node(now, NodeId(node), ms);
                }
                return Ok(ms);
            }
            // What the quorum stands for: one disk at a time, with everything else in its place.
            Fault::DiskLost(node) if self.repos.is_whole(now) => self.repos.lose_disk(now, NodeId(node)),
            Fault::Rewind(node) if self.repos.is_whole(now) => drop(self.repos.rewind(now, NodeId(node))),
            Fault::DiskLost(_) | Fault::Rewind(_) => {}
            Fault::KeepCopy(node) => self.repos.keep_copy(NodeId(node)),
            Fault::RouterCrash(router) => self.repos.crash_router(now, router),
            Fault::RouterPause(router, ms) => self.repos.pause_router(now, router, ms),
            Fault::Replace(node) => self.repos.replace(now, NodeId(node)),
            Fault::BackUp => self.repos.back_up(),
            Fault::Restore => drop(self.repos.restore(now)),
            Fault::EngineCrash(_)
            | Fault::EnginePause(..)
            | Fault::ClockStep(..)
            | Fault::Loss(..)
            | Fault::Slow(..)
            | Fault::LostReplies(_)
            | Fault::WorkersDie(_)
            | Fault::MetricsGap(_)
            | Fault::LaunchesHang(_)
            | Fault::LaunchesFail(_)
            | Fault::Limit(..)
            | Fault::PauseQueues(_)
            | Fault::Override(..) => return self.befall_others(fault),
        }
        Ok(0)
    }

    /// The same for networks, task centres, workers and the fleet.
    fn befall_others(&mut self, fault: Fault) -> anyhow::Result<u64> {
        let now = self.now;
        match fault {
            Fault::Loss(loss, ms) => {
                self.repos.network.loss = loss;
                return Ok(ms);
            }
            Fault::Slow(slowest, ms) => {
                self.repos.network.slowest = slowest;
                self.jobs.network.slowest = slowest;
                return Ok(ms);
            }
            Fault::LostReplies(ms) => {
                self.repos.network.loses_replies = true;
                self.jobs.network.loses_replies = true;
                return Ok(ms);
            }
            Fault::PauseQueues(ms) => {
                self.jobs.pause_at(now, true);
                return Ok(ms);
            }
            Fault::Limit(limit, ms) => {
                self.jobs.set_limit(now, limit);
                return Ok(ms);
            }
            Fault::EngineCrash(engine) => self.jobs.crash(now, engine)?,
            Fault::EnginePause(engine, ms) => self.jobs.stand_still(now, engine, ms),
            Fault::ClockStep(engine, ms) => self.jobs.step_clock(now, engine, ms),
            Fault::WorkersDie(percent) => {
                for hand in self.fleet.lose(percent) {
                    self.jobs.kill(now, hand);
                }
                self.fleet.census(now);
            }
            Fault::MetricsGap(ms) => self.fleet.blind(now + ms),
            Fault::LaunchesHang(ms) => self.fleet.hang(now + ms),
            Fault::LaunchesFail(ms) => self.fleet.fail(now + ms),
            Fault::Override(count, ms) => self.fleet.hold(now, count, now + ms),
            Fault::NodeCrash(..)
            | Fault::DiskLost(_)
            | Fault::KeepCopy(_)
            | Fault::Rewind(_)
            | Fault::RouterCrash(_)
            | Fault::RouterPause(..)
            | Fault::Partition(..)
            | Fault::DatacenterDown(..)
            | Fault::Replace(_)
            | Fault::BackUp
            | Fault::Restore => {}
        }
        Ok(0)
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::NodeCrash(node, _) | Fault::Partition(node, _) => self.repos.bring_back(self.now, NodeId(node)),
            Fault::DatacenterDown(dc, _) => {
                for node in (1..=NODES).filter(|node| 1 + (node - 1) % 3 == dc) {
                    self.repos.bring_back(self.now, NodeId(node));
                }
            }
            Fault::Loss(..) => self.repos.network.loss = 0,
            Fault::Slow(..) => {
                self.repos.network.slowest = Network::GOOD.slowest;
                self.jobs.network.slowest = Network::GOOD.slowest;
            }
            Fault::LostReplies(_) => {
                self.repos.network.loses_replies = false;
                self.jobs.network.loses_replies = false;
            }
            Fault::PauseQueues(_) => self.jobs.pause_at(self.now, false),
            Fault::Limit(..) => self.jobs.set_limit(self.now, jobs::LIMIT),
            // These are over at once, or by a time that was told with them.
            Fault::DiskLost(_)
            | Fault::KeepCopy(_)
            | Fault::Rewind(_)
            | Fault::RouterCrash(_)
            | Fault::RouterPause(..)
            | Fault::EngineCrash(_)
            | Fault::EnginePause(..)
            | Fault::ClockStep(..)
            | Fault::WorkersDie(_)
            | Fault::MetricsGap(_)
            | Fault::LaunchesHang(_)
            | Fault::LaunchesFail(_)
            | Fault::Replace(_)
            | Fault::Override(..)
            | Fault::BackUp
            | Fault::Restore => {}
        }
    }

    // ---- the end of the day -------------------------------------------------------------------------------------------

    /// Faults and traffic stop: from here on everything must come to its end.
    fn calm(&mut self) {
        self.is_calm = true;
        self.calm_since = self.now;
        self.pushed = self.summary.pushes;
        self.repos.calm(self.now);
        self.jobs.calm(self.now);
        self.jobs.pause_at(self.now, false);
        self.jobs.set_limit(self.now, jobs::LIMIT);
        self.fleet.calm(self.now);
        self.asked = (1..=self.plan.repos).map(RepoId).collect();
    }

    /// Whether every repository has taken a write, every job has ended, and the fleet is what it should be.
    fn is_healed(&mut self) -> Result<bool, Broken> {
        let waited = self.now - self.calm_since;
        // Operators first; then each repository is written once.
        if waited > 60_000 {
            while let Some(repo) = self.asked.pop() {
                self.repos.push(self.now, repo);
                if self.asked.len().is_multiple_of(20) {
                    break;
                }
            }
            if self.now >= self.retry_at {
                self.retry_at = self.now + 10_000;
                self.asked.append(&mut self.retry);
            }
            self.gather();
        }
        let written = self.summary.pushes - self.pushed;
        let is_written = self.asked.is_empty() && self.retry.is_empty() && written >= self.plan.repos;
        let fleet = self.fleet.serving(self.now, None) >= self.fleet.target();
        if is_written && self.jobs.is_empty() && fleet && waited > 120_000 {
            self.summary.healed_ms = waited;
            return Ok(true);
        }
        if waited > CALM_MS {
            let why = if !is_written {
                let first = self.asked.first().or_else(|| self.retry.first()).copied().unwrap_or(RepoId(1));
                format!(
                    "{written} of {} repositories take a write; {first}: {}",
                    self.plan.repos,
                    self.repos.why(first)
                )
            } else if fleet {
                self.jobs.why()
            } else {
                self.fleet.why(self.now)
            };
            return Err(Broken(format!("{} min after the last fault not all is well: {why}", waited / 60_000)));
        }
        Ok(false)
    }
}
