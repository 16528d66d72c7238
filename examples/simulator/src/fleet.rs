//! The fleet: instances in data centres, scaled by the jobs that wait; each instance is a worker.

use std::collections::BTreeMap;

use tenon_scaler::strategy::{QueueLength, Strategy};
use tenon_scaler::{
    Behavior, Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Override, Pace, Policy, Pool, PoolId,
    PoolKind, Progress, ReleaseId, RequestId, Rule, RuleId, RuleKind, Running, ShapeId, Staleness, TenantId, Timestamp,
    Traffic, VersionId, Watermark,
};

use crate::chance::Chance;
use crate::ledger::Broken;

/// How often the fleet is looked at, in ms.
pub(crate) const TICK: u64 = 15_000;
const WORKERS: GroupId = GroupId(1);
const LOAD: MetricId = MetricId(1);
const SHAPE: ShapeId = ShapeId(1);
/// Machines of our own in two data centres, and a cloud to lease from.
const POOLS: [(u16, u32); 3] = [(1, 20), (2, 20), (3, 400)];
const DEADLINE_MS: u64 = 300_000;

#[derive(Clone, Copy, Debug)]
struct Instance {
    pool: PoolId,
    launch: Option<RequestId>,
    /// When it comes to serve; none for one that hangs.
    serves_at: Option<u64>,
    /// The worker that it is, once it serves.
    hand: Option<u64>,
}

pub(crate) struct Fleet {
    engine: Engine,
    instances: Vec<Instance>,
    told: BTreeMap<RequestId, (Progress, bool)>,
    chance: Chance,
    hangs_until: u64,
    fails_until: u64,
    blind_until: u64,
    pub(crate) peak: usize,
    pub(crate) instance_ms: u64,
}

/// What the fleet asks of its workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Instances that came to serve: each is to become a worker ([`Fleet::hired`]).
    pub(crate) come: usize,
    /// Workers that go.
    pub(crate) go: Vec<u64>,
}

fn at(now: u64) -> Timestamp {
    Timestamp::from_millis(now)
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> anyhow::Result<Self> {
        let config = Config::builder().tick_ms(TICK).launch_deadline_ms(DEADLINE_MS).back_off_ms(15_000, 60_000);
        let mut engine = Engine::new(config.build()?);
        for (id, machines) in POOLS {
            let stock = vec![(SHAPE, machines)];
            let kind = PoolKind::Resident;
            let price = if machines > 100 { 900 } else { 100 };
            let watermark = Watermark::default();
            engine.put_pool(at(0), Pool { id: PoolId(id), kind, idc: IdcId(id), price, watermark, stock })?;
        }
        engine.put_release(at(0), ReleaseId(1), VersionId(1));
        let metric = Metric { id: LOAD, stale_after_ms: 60_000, when_stale: Staleness::ForbidIn };
        let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(1) });
        let inward = Pace { stabilize_ms: 300_000, ..Pace::default() };
        let policy = Policy {
            min: 4,
            max: 120,
            metrics: vec![metric],
            rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(LOAD, queue) }],
            behavior: Behavior { inward, ..Behavior::default() },
            ..Policy::default()
        };
        let group = Traffic { id: WORKERS, idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: SHAPE };
        engine.put_group(at(0), group, policy)?;
        let chance = Chance::new(seed, 4);
        let (hangs_until, fails_until, blind_until) = (0, 0, 0);
        let told = BTreeMap::new();
        Ok(Self {
            engine,
            instances: Vec::new(),
            told,
            chance,
            hangs_until,
            fails_until,
            blind_until,
            peak: 0,
            instance_ms: 0,
        })
    }

    /// How many serve, in one pool or in all.
    pub(crate) fn serving(&self, now: u64, pool: Option<PoolId>) -> u32 {
        let serves =
            |one: &&Instance| pool.is_none_or(|pool| one.pool == pool) && one.serves_at.is_some_and(|at| at <= now);
        u32::try_from(self.instances.iter().filter(serves).count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn target(&self) -> u32 {
        self.engine.state(WORKERS).map_or(0, tenon_scaler::GroupState::target)
    }

    fn progress(&self, now: u64, request: RequestId) -> Option<Progress> {
        let (progress, is_launch) = self.told.get(&request)?;
        let came = |one: &&Instance| one.launch == Some(request) && one.serves_at.is_some_and(|at| at <= now);
        let done = u32::try_from(self.instances.iter().filter(came).count()).unwrap_or(u32::MAX);
        Some(if *is_launch { Progress { done: done.max(progress.done), ..*progress } } else { *progress })
    }

    /// One look at the fleet, with the jobs that wait or run.
    pub(crate) fn tick(&mut self, now: u64, load: u64) -> Result<Change, Broken> {
        let fleet = &*self;
        let told: BTreeMap<RequestId, Option<Progress>> =
            fleet.engine.requests().map(|(id, _)| (id, fleet.progress(now, id))).collect();
        let caught = self.engine.catch_up(at(now), |id, _| Ok::<_, ()>(told.get(&id).copied().flatten()));
        if caught.is_err() {
            return Err(Broken("the fleet cannot be caught up with".into()));
        }
        if now >= self.blind_until {
            let load = Milli::from_units(i64::try_from(load).unwrap_or(i64::MAX));
            self.engine.handle_sample(at(now), WORKERS, LOAD, at(now), Some(load));
        }
        if self.chance.permille(100) {
            for (pool, _) in POOLS {
                let serving = self.serving(now, Some(PoolId(pool)));
                self.engine.handle_census(at(now), WORKERS, PoolId(pool), at(now), serving);
            }
        }
        self.engine.handle_timeout(at(now));
        let mut change = Change::default();
        while let Some(effect) = self.engine.poll_effect() {
            self.act(now, &effect, &mut change)?;
        }
        change.come =
            self.instances.iter().filter(|one| one.hand.is_none() && one.serves_at.is_some_and(|at| at <= now)).count();
        self.peak = self.peak.max(self.instances.len());
        self.instance_ms += self.instances.len() as u64 * TICK;
        for (pool, stock) in POOLS {
            let there = self.instances.iter().filter(|one| one.pool == PoolId(pool)).count();
            if there > stock as usize {
                return Err(Broken(format!("{there} instances in pool {pool}, which has {stock} machines")));
            }
        }
        Ok(change)
    }

    fn act(&mut self, now: u64, effect: &Effect, change: &mut Change) -> Result<(), Broken> {
        match *effect {
            Effect::Launch { request, pool, count, .. } => {
                let mut progress = Progress::default();
                for _ in 0..count {
                    let slow = 20_000 + self.chance.below(70_000);
                    let serves_at = if pool == PoolId(3) && now < self.fails_until {
                        progress.failed += 1;
                        continue;
                    } else if pool == PoolId(3) && now < self.hangs_until {
                        None
                    } else {
                        Some(now + slow)
                    };
                    self.instances.push(Instance { pool, launch: Some(request), serves_at, hand: None });
                }
                self.told.insert(request, (progress, true));
            }
            Effect::Cancel { request, keep, .. } => {
                let of = |one: &Instance| one.launch == Some(request);
                let there = u32::try_from(self.instances.iter().filter(|one| of(one)).count()).unwrap_or(0);
                let mut over = there.saturating_sub(keep);
                let mut cancelled = 0;
                self.instances.retain(|one| {
                    let goes = of(one) && over > 0 && one.serves_at.is_none_or(|at| at > now);
                    over -= u32::from(goes);
                    cancelled += u32::from(goes);
                    !goes
                });
                if let Some((progress, _)) = self.told.get_mut(&request) {
                    progress.cancelled += cancelled;
                }
            }
            Effect::Release { request, pool, count, .. } => {
                let ready: u32 = self.engine.holdings(WORKERS).iter().map(|held| held.ready).sum();
                let target = self.target();
                if ready < target {
                    return Err(Broken(format!("a release of {count} leaves {ready} of {target} instances ready")));
                }
                let mut left = count;
                self.instances.retain(|one| {
                    let goes = one.pool == pool && left > 0 && one.serves_at.is_some_and(|at| at <= now);
                    left -= u32::from(goes);
                    if goes {
                        change.go.extend(one.hand);
                    }
                    !goes
                });
                self.told.insert(request, (Progress::done(count), false));
            }
        }
        Ok(())
    }

    /// An instance that serves has become this worker.
    pub(crate) fn hired(&mut self, now: u64, hand: u64) {
        let free = |one: &&mut Instance| one.hand.is_none() && one.serves_at.is_some_and(|at| at <= now);
        if let Some(one) = self.instances.iter_mut().find(free) {
            one.hand = Some(hand);
        }
    }

    /// So many workers in a hundred die with their machines; returns which.
    pub(crate) fn lose(&mut self, percent: u64) -> Vec<u64> {
        let mut lost = Vec::new();
        let chance = &mut self.chance;
        self.instances.retain(|one| match one.hand {
            Some(hand) if chance.below(100) < percent => {
                lost.push(hand);
                false
            }
            _ => true,
        });
        lost
    }

    /// The engine is lost with all it knew, and adopts what runs.
    pub(crate) fn census(&mut self, now: u64) {
        let running = POOLS.map(|(pool, _)| Running {
            group: WORKERS,
            pool: PoolId(pool),
            idc: IdcId(pool),
            version: VersionId(1),
            count: self.serving(now, Some(PoolId(pool))),
        });
        for one in running {
            self.engine.handle_census(at(now), WORKERS, one.pool, at(now), one.count);
        }
    }

    pub(crate) const fn hang(&mut self, until: u64) {
        self.hangs_until = until;
    }

    pub(crate) const fn fail(&mut self, until: u64) {
        self.fails_until = until;
    }

    pub(crate) const fn blind(&mut self, until: u64) {
        self.blind_until = until;
    }

    /// An operator holds the fleet at a size until a time, or lets it go.
    pub(crate) fn hold(&mut self, now: u64, count: u32, until: u64) {
        let by_hand = Override { count, until: at(until) };
        let _refused = self.engine.set_by_hand(at(now), WORKERS, Some(by_hand));
    }

    /// Everything works again.
    pub(crate) fn calm(&mut self, now: u64) {
        (self.hangs_until, self.fails_until, self.blind_until) = (0, 0, 0);
        let _refused = self.engine.set_by_hand(at(now), WORKERS, None);
        self.census(now);
    }

    pub(crate) fn why(&self, now: u64) -> String {
        let story = self.engine.explain(at(now), WORKERS).map(|decision| decision.explain().clone());
        format!(
            "{} serve of {} wanted; {:?}; {:?}",
            self.serving(now, None),
            self.target(),
            self.engine.holdings(WORKERS),
            story
        )
    }
}
