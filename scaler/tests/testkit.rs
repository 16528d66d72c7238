//! The host kit passes a good host and finds out each way in which a host can be bad.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use support::seeds;
use tenon_scaler::strategy::{Change, QueueLength, Strategy, Threshold, Trigger};
use tenon_scaler::testkit::{Event, Host, Lives, Progress, Report, torture};
use tenon_scaler::{
    Behavior, Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Pace, Policy, Pool, PoolId, PoolKind,
    ReleaseId, RequestId, Rule, RuleId, RuleKind, ShapeId, Snapshot, Staleness, TenantId, Timestamp, Traffic,
    VersionId, Watermark,
};

/// How a host misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A request that is asked twice starts twice.
    StartsTwice,
    /// A request that came to its end is forgotten, so that asked again it starts again.
    ForgetsTheDone,
    /// What is new is told, rather than all.
    TellsDeltas,
    /// A gap reads as zero.
    GapIsZero,
    /// An old measurement is stamped with the time at which it is read.
    StampsNow,
    /// A failure is told as an instance that serves.
    FailureIsSuccess,
    /// A failure is not told at all.
    SwallowsFailures,
    /// A release is told as done as soon as it is asked.
    ReleasesAtOnce,
    /// Who was asked to go is still counted.
    CountsLeaving,
    /// A snapshot is not durable until the next one is written.
    SavesLate,
    /// Progress lives in memory alone.
    ForgetsProgress,
    /// What was asked shortly before a crash never reaches the cloud, although it was acknowledged.
    LosesAsked,
    /// What is cancelled comes to serve all the same, and is told as gone.
    IgnoresCancels,
    /// A launch that the pool could fill is filled with one instance more.
    StartsOneMore,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    group: GroupId,
    pool: PoolId,
    launch: bool,
    count: u32,
    /// How many of a launch are still wanted.
    keep: u32,
    came: Progress,
    told: Progress,
}

impl Asked {
    fn open(&self) -> u32 {
        self.count - self.came.done - self.came.failed - self.came.cancelled
    }
}

/// A cloud in memory, a metrics source, and a store of one snapshot as text.
#[derive(Debug)]
struct Memory {
    fault: Fault,
    lives: Lives,
    saved: [Option<String>; 2],
    asked: BTreeMap<RequestId, Asked>,
    serving: BTreeMap<(GroupId, PoolId), u32>,
    /// Instances that nobody knows of.
    extra: u32,
    metrics: BTreeMap<(GroupId, MetricId), (Timestamp, Milli)>,
    last: Option<RequestId>,
}

impl Memory {
    fn new(fault: Fault, lives: Lives) -> Self {
        let (asked, serving, metrics) = Default::default();
        Self { fault, lives, saved: [None, None], asked, serving, extra: 0, metrics, last: None }
    }

    fn of(&mut self, request: RequestId) -> Result<&mut Asked, String> {
        self.asked.get_mut(&request).ok_or_else(|| "unknown request".to_owned())
    }
}

impl Host for Memory {
    type Error = String;

    fn lives(&self) -> Lives {
        self.lives
    }

    fn save(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        self.saved.swap(0, 1);
        self.saved[0] = Some(serde_json::to_string(snapshot).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn load(&mut self) -> Result<Option<Snapshot>, String> {
        let kept = &self.saved[usize::from(self.fault == Fault::SavesLate)];
        kept.as_ref().map(|text| serde_json::from_str(text).map_err(|error| error.to_string())).transpose()
    }

    fn act(&mut self, _: Timestamp, effect: &Effect) -> Result<(), String> {
        if let Effect::Cancel { request, keep, .. } = *effect {
            let asked = self.of(request)?;
            asked.keep = asked.keep.min(keep);
            return Ok(());
        }
        let known = self.asked.get(&effect.request()).copied();
        let forgotten = |known: Asked| self.fault == Fault::ForgetsTheDone && known.open() == 0;
        if let Some(known) = known {
            if self.fault == Fault::StartsTwice || forgotten(known) {
                self.extra += u32::from(known.launch);
            }
            return Ok(());
        }
        let (group, pool, launch, count) = match *effect {
            Effect::Launch { group, pool, count, .. } => (group, pool, true, count),
            Effect::Release { group, pool, count, .. } => (group, pool, false, count),
            Effect::Cancel { .. } => return Ok(()),
        };
        let mut came = Progress::default();
        if launch {
            self.extra += u32::from(self.fault == Fault::StartsOneMore && count == 3);
        } else {
            let serving = self.serving.entry((group, pool)).or_default();
            came.done = count - count.min(*serving);
            *serving -= count.min(*serving);
        }
        self.asked.insert(
            effect.request(),
            Asked { group, pool, launch, count, keep: count, came, told: Progress::default() },
        );
        self.last = Some(effect.request());
        Ok(())
    }

    fn progress(&mut self, _: Timestamp, request: RequestId) -> Result<Progress, String> {
        let asked = self.asked.get_mut(&request).ok_or("unknown")?;
        let Progress { done, failed, cancelled } = asked.came;
        let before = std::mem::replace(&mut asked.told, asked.came);
        let fault = |fault| self.fault == fault;
        Ok(if fault(Fault::TellsDeltas) {
            Progress {
                done: done - before.done,
                failed: failed - before.failed,
                cancelled: cancelled - before.cancelled,
            }
        } else if fault(Fault::FailureIsSuccess) {
            Progress { done: done + failed, failed: 0, cancelled }
        } else if fault(Fault::SwallowsFailures) {
            Progress { done, failed: 0, cancelled }
        } else if fault(Fault::ReleasesAtOnce) && !asked.launch {
            Progress::done(asked.count)
        } else {
            asked.came
        })
    }

    fn census(&mut self, _: Timestamp, group: GroupId, pool: PoolId) -> Result<u32, String> {
        let leaving = self.asked.values().filter(|asked| !asked.launch && asked.group == group && asked.pool == pool);
        let leaving: u32 = leaving.map(Asked::open).sum();
        let serving = self.serving.get(&(group, pool)).copied().unwrap_or(0);
        Ok(if self.fault == Fault::CountsLeaving { serving + leaving } else { serving })
    }

    fn read(&mut self, now: Timestamp, group: GroupId, metric: MetricId) -> Result<Option<(Timestamp, Milli)>, String> {
        let newest = self.metrics.get(&(group, metric)).copied();
        Ok(match (self.fault, newest) {
            (Fault::GapIsZero, newest) => newest.filter(|(at, _)| *at == now).or(Some((now, Milli::ZERO))),
            (Fault::StampsNow, Some((_, value))) => Some((now, value)),
            _ => newest,
        })
    }

    fn existing(&mut self, pool: PoolId) -> Result<u32, String> {
        let serving: u32 = self.serving.iter().filter(|((_, at), _)| *at == pool).map(|(_, count)| *count).sum();
        let open = self.asked.values().filter(|asked| asked.pool == pool);
        let open: u32 = open.map(Asked::open).sum();
        Ok(serving + open + self.extra)
    }

    fn happen(&mut self, _: Timestamp, event: Event) -> Result<(), String> {
        match event {
            Event::Measured { group, metric, at, value } => {
                self.metrics.insert((group, metric), (at, value));
            }
            Event::Start { request, count } => {
                let asked = self.of(request)?;
                asked.came.done += count;
                let place = (asked.group, asked.pool);
                *self.serving.entry(place).or_default() += count;
            }
            Event::Fail { request, count } => self.of(request)?.came.failed += count,
            Event::Stop { request, count } => {
                let asked = self.of(request)?;
                if asked.open() < count || asked.keep + asked.came.cancelled + count > asked.count {
                    return Err("it was not cancelled".into());
                }
                asked.came.cancelled += count;
                self.extra += if self.fault == Fault::IgnoresCancels { count } else { 0 };
            }
            Event::Leave { request, count } => self.of(request)?.came.done += count,
            Event::Die { group, pool, count } => *self.serving.get_mut(&(group, pool)).ok_or("nobody there")? -= count,
        }
        Ok(())
    }

    fn crash(&mut self, _: Timestamp) -> Result<(), String> {
        if self.lives == Lives::WithHost {
            (self.asked, self.serving) = Default::default();
            return Ok(());
        }
        for asked in self.asked.values_mut() {
            if self.fault == Fault::ForgetsProgress {
                asked.came.failed = 0;
            }
        }
        if self.fault == Fault::LosesAsked
            && let Some(last) = self.last.filter(|last| self.asked[last].came == Progress::default())
        {
            // It is in the host's list of what it has asked, so that it is not asked again; and it does not run.
            self.asked.get_mut(&last).unwrap().count = 0;
        }
        Ok(())
    }
}

/// Two groups, two pools, two kinds of rules.
fn engine() -> Engine {
    let mut engine = Engine::new(Config::builder().tick_ms(15_000).build().unwrap());
    let now = Timestamp::from_millis(1_000_000);
    for (id, count) in [(1, 6), (2, 20)] {
        let (kind, watermark) = (PoolKind::Resident, Watermark::default());
        let stock = vec![(ShapeId(1), count)];
        let pool = Pool { id: PoolId(id), kind, idc: IdcId(id), price: u64::from(id), watermark, stock };
        engine.put_pool(now, pool).unwrap();
    }
    engine.put_release(now, ReleaseId(1), VersionId(1));
    for id in [1, 2] {
        let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(5) });
        let trigger = |past| Some(Trigger { past: Milli::from_units(past), by: Change::Count(2) });
        let threshold = Strategy::Threshold(Threshold { out: trigger(40), inward: trigger(15), need: 1, of: 1 });
        let metric = |id| Metric { id: MetricId(id), stale_after_ms: 120_000, when_stale: Staleness::ForbidIn };
        let policy = Policy {
            min: u32::from(id == 1),
            max: 12,
            metrics: vec![metric(1)],
            rules: vec![Rule {
                id: RuleId(1),
                kind: RuleKind::Metric(MetricId(1), if id == 1 { queue } else { threshold }),
            }],
            behavior: Behavior { inward: Pace { cooldown_ms: 20_000, ..Pace::default() }, ..Behavior::default() },
            ..Policy::default()
        };
        let (tenant, release, shape) = (TenantId(1), ReleaseId(1), ShapeId(1));
        let traffic = Traffic { id: GroupId(id), idcs: vec![], tenant, release, shape };
        engine.put_group(now, traffic, policy).unwrap();
    }
    engine
}

#[test]
fn a_good_host_passes() {
    for lives in [Lives::On, Lives::WithHost] {
        let sum = core::cell::Cell::new(Report::default());
        seeds(25, |seed| {
            let report = torture(&mut Memory::new(Fault::None, lives), &engine(), seed, 300).unwrap();
            let mut all = sum.get();
            all.started += report.started;
            all.failed += report.failed;
            all.left += report.left;
            all.died += report.died;
            all.repeated += report.repeated;
            all.gaps += report.gaps;
            all.crashes += report.crashes;
            sum.set(all);
        });
        let all = sum.get();
        assert!(all.started > 400 && all.failed > 50 && all.left > 150 && all.died > 50, "{all:?}");
        assert!(all.gaps > 1_000 && all.crashes > 200, "{all:?}");
        assert!(all.repeated > 20 || lives == Lives::WithHost, "{all:?}");
    }
}

#[test]
fn each_fault_is_found_within_a_few_seeds() {
    for fault in [
        Fault::StartsTwice,
        Fault::ForgetsTheDone,
        Fault::TellsDeltas,
        Fault::GapIsZero,
        Fault::StampsNow,
        Fault::FailureIsSuccess,
        Fault::SwallowsFailures,
        Fault::ReleasesAtOnce,
        Fault::CountsLeaving,
        Fault::SavesLate,
        Fault::ForgetsProgress,
        Fault::LosesAsked,
        Fault::StartsOneMore,
        Fault::IgnoresCancels,
    ] {
        let found = (0..20).find_map(|seed| torture(&mut Memory::new(fault, Lives::On), &engine(), seed, 300).err());
        let found = found.unwrap_or_else(|| panic!("{fault:?} was not found"));
        assert!(!found.what.contains("the host failed"), "{fault:?} is found by a rule, not by an error: {found}");
    }
}
