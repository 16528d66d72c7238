//! Never fewer instances serving than wanted: random days with launches that hang, fail and are slow, metrics that die, clock
//! readings that are wrong, policies that change in the middle of their windows, and restarts without a snapshot.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use jiff::civil::time;
use support::{Dice, seeds};
use tenon_scaler::strategy::{Change, QueueLength, Strategy, Target, Threshold, Trigger};
use tenon_scaler::{
    Behavior, Config, Days, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Pace, Point, Policy, Pool, PoolId,
    PoolKind, Progress, ReleaseId, RequestId, Rule, RuleId, RuleKind, Running, ShapeId, Staleness, TenantId, Timestamp,
    Traffic, VersionId, Watermark, Window, ZoneId,
};

const TICK: u64 = 15_000;
const START: u64 = 1_777_852_800_000; // a Monday, 2026-05-04T00:00:00Z
const DEADLINE: u64 = 240_000;
const SLOWEST: u64 = 120_000;
const LONGEST_BACK_OFF: u64 = 60_000;
/// One start-up, the deadline of a launch, the back-off, and two ticks for a reading of the clock that was wrong.
const BOUND: u64 = SLOWEST + DEADLINE + LONGEST_BACK_OFF + 3 * TICK;
const LOAD: MetricId = MetricId(1);
const GROUPS: u32 = 3;
const POOLS: u16 = 3;

#[derive(Clone, Copy, Debug)]
struct Instance {
    group: GroupId,
    pool: PoolId,
    /// The launch that asked for it, while the engine that did is there.
    launch: Option<RequestId>,
    /// When it comes to serve; `None` for one that hangs.
    serves_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    progress: Progress,
    launch: bool,
}

/// The world: what runs, whatever the engine thinks.
struct World {
    dice: Dice,
    instances: Vec<Instance>,
    told: BTreeMap<RequestId, Told>,
    /// The pool in which things go wrong.
    bad: PoolId,
    /// Until when launches hang there; until when they fail.
    hangs: u64,
    fails: u64,
}

impl World {
    fn serving(&self, now: u64, group: GroupId, pool: Option<PoolId>) -> u32 {
        let serves = |one: &&Instance| {
            one.group == group && pool.is_none_or(|pool| one.pool == pool) && one.serves_at.is_some_and(|at| at <= now)
        };
        u32::try_from(self.instances.iter().filter(serves).count()).unwrap()
    }

    fn act(&mut self, now: u64, effect: &Effect) {
        match *effect {
            Effect::Launch { request, group, pool, count, .. } => {
                let mut told = Told { launch: true, ..Told::default() };
                for _ in 0..count {
                    let slow = [20_000, 60_000, SLOWEST][usize::try_from(self.dice.below(3)).unwrap()];
                    let serves_at = if pool == self.bad && now < self.fails {
                        told.progress.failed += 1;
                        continue;
                    } else if pool == self.bad && now < self.hangs {
                        None
                    } else {
                        Some(now + slow)
                    };
                    self.instances.push(Instance { group, pool, launch: Some(request), serves_at });
                }
                self.told.insert(request, told);
            }
            Effect::Cancel { request, keep, .. } => {
                let of = |one: &Instance| one.launch == Some(request);
                let mut over = u32::try_from(self.instances.iter().filter(|one| of(one)).count()).unwrap();
                over = over.saturating_sub(keep);
                let told = self.told.get_mut(&request).unwrap();
                self.instances.retain(|one| {
                    let goes = of(one) && over > 0 && one.serves_at.is_none_or(|at| at > now);
                    over -= u32::from(goes);
                    told.progress.cancelled += u32::from(goes);
                    !goes
                });
            }
            Effect::Release { request, group, pool, count } => {
                let mut left = count;
                self.instances.retain(|one| {
                    let goes =
                        one.group == group && one.pool == pool && left > 0 && one.serves_at.is_some_and(|at| at <= now);
                    left -= u32::from(goes);
                    !goes
                });
                self.told.insert(request, Told { progress: Progress::done(count), launch: false });
            }
        }
    }

    fn progress(&self, now: u64, request: RequestId) -> Option<Progress> {
        let told = self.told.get(&request)?;
        let came = |one: &&Instance| one.launch == Some(request) && one.serves_at.is_some_and(|at| at <= now);
        let done = u32::try_from(self.instances.iter().filter(came).count()).unwrap();
        Some(if told.launch { Progress { done, ..told.progress } } else { told.progress })
    }
}

fn setup(policies: &[Policy]) -> Engine {
    let config = Config::builder().tick_ms(TICK).launch_deadline_ms(DEADLINE).back_off_ms(15_000, LONGEST_BACK_OFF);
    let mut engine = Engine::new(config.build().unwrap());
    let now = Timestamp::ZERO;
    for id in 0..POOLS {
        let (kind, watermark, stock) = (PoolKind::Resident, Watermark::default(), vec![(ShapeId(1), 5_000)]);
        engine.put_pool(now, Pool { id: PoolId(id), kind, idc: IdcId(id), price: 1, watermark, stock }).unwrap();
    }
    engine.put_release(now, ReleaseId(1), VersionId(1));
    for (id, policy) in (0..).zip(policies) {
        engine.put_group(now, traffic(id), policy.clone()).unwrap();
    }
    engine
}

fn traffic(id: u32) -> Traffic {
    Traffic { id: GroupId(id), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) }
}

fn policy(dice: &mut Dice) -> Policy {
    let min = 1 + dice.small(8);
    let units = Milli::from_units;
    let strategy = match dice.below(3) {
        0 => Strategy::QueueLength(QueueLength { per_instance: units(10) }),
        1 => Strategy::Target(Target {
            target: units(10),
            tolerance_out_permille: 100,
            tolerance_in_permille: 200,
            ..Target::default()
        }),
        _ => {
            let side = |past, by| Some(Trigger { past: units(past), by });
            let (out, inward) = (side(12, Change::Permille(500)), side(6, Change::Permille(100)));
            Strategy::Threshold(Threshold { out, inward, need: 1, of: 1 })
        }
    };
    let hour = |dice: &mut Dice| time(i8::try_from(dice.below(24)).unwrap(), 0, 0, 0);
    let window = |dice: &mut Dice| {
        let (from, until) = (hour(dice), hour(dice));
        Window { zone: ZoneId(0), days: Days::Every, from, until, lead_ms: 0 }
    };
    let mut kinds = vec![RuleKind::Metric(LOAD, strategy)];
    for _ in 0..dice.below(4) {
        kinds.push(match dice.below(4) {
            0 => RuleKind::Floor(window(dice), 10 + dice.small(60)),
            1 => RuleKind::Delta(window(dice), 20 - i32::try_from(dice.below(30)).unwrap()),
            2 => RuleKind::Cap(window(dice), 5 + dice.small(30)),
            _ => {
                let at = hour(dice);
                let point = Point { zone: ZoneId(0), days: Days::Every, at, lead_ms: 0 };
                RuleKind::Step(point, 15 - i32::try_from(dice.below(30)).unwrap())
            }
        });
    }
    let stabilize_ms = dice.pick(&[0, 60_000, 300_000]);
    let cooldown_ms = dice.pick(&[0, 60_000]);
    Policy {
        min,
        max: min + 20 + dice.small(80),
        metrics: vec![Metric { id: LOAD, stale_after_ms: 60_000, when_stale: Staleness::ForbidIn }],
        rules: (0..).zip(kinds).map(|(id, kind)| Rule { id: RuleId(id), kind }).collect(),
        behavior: Behavior { inward: Pace { stabilize_ms, cooldown_ms, ..Pace::default() }, ..Behavior::default() },
        ..Policy::default()
    }
}

/// A day of the world, and the engine that sizes it.
struct Day {
    engine: Engine,
    world: World,
    policies: Vec<Policy>,
    /// Of each group, the targets of the last `BOUND` ms, and when they were decided.
    wanted: Vec<VecDeque<(u64, u32)>>,
    load: Vec<i64>,
    dead_until: u64,
    restarts: u32,
    releases: u32,
}

impl Day {
    fn restart(&mut self, now: u64) {
        // Nothing is left but what runs: not even the launches that are under way are known.
        self.engine = setup(&self.policies);
        self.world.told.clear();
        for one in &mut self.world.instances {
            one.launch = None;
        }
        let at = Timestamp::from_millis(now);
        let pairs = (0..GROUPS).flat_map(|group| (0..POOLS).map(move |pool| (GroupId(group), PoolId(pool))));
        let pairs: Vec<_> = pairs.collect();
        if self.world.dice.below(2) == 0 {
            let running = pairs.iter().map(|(group, pool)| Running {
                group: *group,
                pool: *pool,
                idc: IdcId(pool.0),
                version: VersionId(1),
                count: self.world.serving(now, *group, Some(*pool)),
            });
            self.engine.adopt(at, &running.collect::<Vec<_>>()).unwrap();
        } else {
            for (group, pool) in pairs {
                self.engine.handle_census(at, group, pool, at, self.world.serving(now, group, Some(pool)));
            }
        }
        self.wanted.iter_mut().for_each(VecDeque::clear);
        self.restarts += 1;
    }

    /// Something goes wrong.
    fn weather(&mut self, now: u64) {
        let at = Timestamp::from_millis(now);
        let dice = &mut self.world.dice;
        match dice.below(400) {
            0..=3 => self.world.hangs = now + dice.below(3_600_000),
            4..=6 => self.world.fails = now + dice.below(1_200_000),
            7..=9 => self.dead_until = now + dice.below(1_200_000),
            10..=12 => {
                let group = dice.small(u64::from(GROUPS));
                let policy = policy(dice);
                self.engine.put_group(at, traffic(group), policy.clone()).unwrap();
                self.policies[group as usize] = policy;
            }
            13..=15 => {
                let wrong = Timestamp::from_millis(now + dice.pick(&[3_600_000, 86_400_000, 31_536_000_000]));
                if dice.below(2) == 0 {
                    self.engine.handle_timeout(wrong);
                } else {
                    self.engine.handle_sample(wrong, GroupId(0), LOAD, wrong, Some(Milli::from_units(10)));
                }
                self.act(now);
            }
            16 => self.engine.handle_timeout(Timestamp::from_millis(now - 7_200_000)),
            17 if now > START + 7_200_000 => self.restart(now),
            _ => {}
        }
    }

    fn act(&mut self, now: u64) {
        while let Some(effect) = self.engine.poll_effect() {
            if let Effect::Release { group, .. } = effect {
                let ready: u32 = self.engine.holdings(group).iter().map(|held| held.ready).sum();
                let target = self.engine.state(group).unwrap().target();
                assert!(ready >= target, "{effect:?} leaves {ready} of {target} serving");
                self.releases += 1;
            }
            self.world.act(now, &effect);
        }
    }

    fn turn(&mut self, now: u64) {
        let at = Timestamp::from_millis(now);
        let world = &self.world;
        self.engine.catch_up(at, |id, _| Ok::<_, ()>(world.progress(now, id))).unwrap();
        for group in 0..GROUPS {
            let (id, load) = (GroupId(group), &mut self.load[group as usize]);
            *load = (*load + i64::from(self.world.dice.small(41)) - 20).clamp(0, 600);
            let ready = self.world.serving(now, id, None);
            let total =
                matches!(self.policies[group as usize].rules[0].kind, RuleKind::Metric(_, Strategy::QueueLength(_)));
            let value = if total { *load } else { *load / i64::from(ready.max(1)) };
            if now >= self.dead_until {
                self.engine.handle_sample(at, id, LOAD, at, Some(Milli::from_units(value)));
            }
            if self.world.dice.below(8) == 0 {
                for pool in (0..POOLS).map(PoolId) {
                    self.engine.handle_census(at, id, pool, at, self.world.serving(now, id, Some(pool)));
                }
            }
        }
        self.engine.handle_timeout(at);
        self.act(now);
    }

    /// What was wanted for as long as the bound says serves by now.
    fn check(&mut self, now: u64) {
        for group in 0..GROUPS {
            let id = GroupId(group);
            let wanted = &mut self.wanted[group as usize];
            wanted.push_back((now, self.engine.state(id).unwrap().target()));
            while wanted.front().is_some_and(|(at, _)| now - at > BOUND) {
                wanted.pop_front();
            }
            let (first, _) = wanted[0];
            let least = wanted.iter().map(|(_, target)| *target).min().unwrap();
            let serving = self.world.serving(now, id, None);
            assert!(
                now - first < BOUND || serving >= least,
                "{serving} serve at {now}, and for {BOUND} ms at least {least} were wanted\n{:?}\n{}",
                self.engine.holdings(id),
                self.engine.explain(Timestamp::from_millis(now), id).unwrap().explain()
            );
        }
    }
}

#[test]
fn never_fewer_serve_than_are_wanted() {
    let (restarts, releases, overdue) = (Cell::new(0), Cell::new(0), Cell::new(0));
    // The last day is one on which a clock that goes back makes launches of one age.
    seeds(26, |seed| {
        let mut dice = Dice(if seed == 25 { 144 } else { seed });
        let policies: Vec<Policy> = (0..GROUPS).map(|_| policy(&mut dice)).collect();
        let bad = PoolId(dice.pick(&[0, 1, 2]));
        let world = World { dice, instances: vec![], told: BTreeMap::new(), bad, hangs: 0, fails: 0 };
        let wanted = vec![VecDeque::new(); GROUPS as usize];
        let (engine, load) = (setup(&policies), vec![100; GROUPS as usize]);
        let mut day = Day { engine, world, policies, wanted, load, dead_until: 0, restarts: 0, releases: 0 };
        let (calm, end) = (START + 20 * 3_600_000, START + 24 * 3_600_000);
        let mut now = START;
        while now < end {
            if now < calm {
                day.weather(now);
            } else {
                (day.world.hangs, day.world.fails, day.dead_until) = (0, 0, 0);
            }
            day.turn(now);
            day.check(now);
            now += TICK;
        }
        // Faults have stopped long ago: what is wanted serves, and what hung is gone from the books.
        for group in (0..GROUPS).map(GroupId) {
            let overdue =
                day.engine.requests().filter(|(_, held)| now - held.at.as_millis() > DEADLINE + 2 * TICK).count();
            assert_eq!(overdue, 0, "requests of group {group} never end");
        }
        restarts.set(restarts.get() + day.restarts);
        releases.set(releases.get() + day.releases);
        overdue.set(overdue.get() + day.engine.counters().overdue);
    });
    assert!(restarts.get() > 20 && releases.get() > 1_000, "{} restarts, {} releases", restarts.get(), releases.get());
    assert!(overdue.get() > 0, "no launch came to its deadline");
}
