//! Random histories of an engine, from a seed that a failure prints.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;

use jiff::civil::time;
use tenon_scaler::hpa::{self, Deletion, Kind, Phase, Pod, PodSample, PolicyKind, ReadyCondition, Requests, Select};
use tenon_scaler::strategy::{
    Adjust, Band, Change, Guard, Hpa, Kpa, QueueLength, Steps, Strategy, Target, Threshold, Trigger,
};
use tenon_scaler::{
    Authority, Behavior, Config, Days, Effect, Engine, Formula, Grant, GroupId, IdcId, Limits, Metric, MetricId, Milli,
    Override, Pace, Point, Policy, Pool, PoolId, PoolKind, Progress, Quota, Rate, ReleaseId, RequestId, Rule, RuleId,
    RuleKind, ShapeId, Skip, Staleness, TenantId, Term, Timestamp, Traffic, Verdict, VersionId, Watermark, Window,
    ZoneId, Zones,
};

/// `SplitMix64`.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn small(&mut self, bound: u64) -> u32 {
        u32::try_from(self.below(bound)).unwrap()
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// Runs `check` with many seeds: with as many as `SCALER_SEEDS` says, or with the one in `SCALER_SEED`.
pub(crate) fn seeds(count: u64, check: impl Fn(u64)) {
    let set = |name: &str| std::env::vars().find(|(held, _)| held == name).map(|(_, value)| value.parse().unwrap());
    let count = set("SCALER_SEEDS").unwrap_or(count);
    let range = set("SCALER_SEED").map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in range {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed)));
        if let Err(panic) = outcome {
            let name = std::thread::current().name().unwrap_or("").to_string();
            #[expect(clippy::print_stdout, reason = "the one line that a failing test owes")]
            let () = println!("seed {seed} fails; again with: SCALER_SEED={seed} cargo test -p tenon-scaler {name}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// One call to an engine.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    PutPool(Pool),
    PutQuota(Quota),
    PutRelease(ReleaseId, VersionId),
    PutGroup(Traffic, Policy),
    Admit(Traffic, Policy, u32, Authority),
    Drop(GroupId),
    ByHand(GroupId, Option<Override>),
    Pause(GroupId),
    Resume(GroupId),
    Sample(GroupId, MetricId, Timestamp, Option<Milli>),
    Launch(RequestId, Progress),
    Release(RequestId, u32),
    Census(GroupId, PoolId, Timestamp, u32),
    Pods(GroupId, Timestamp, Vec<Pod>),
    PodSamples(GroupId, MetricId, Timestamp, Vec<PodSample>),
    Tick,
}

impl Op {
    pub(crate) fn is_fact(&self) -> bool {
        let of_instances = matches!(self, Self::Census(..) | Self::Pods(..) | Self::PodSamples(..));
        of_instances || matches!(self, Self::Sample(..) | Self::Launch(..) | Self::Release(..) | Self::Tick)
    }
}

/// Makes the call; whether a command was refused.
pub(crate) fn apply(engine: &mut Engine, now: Timestamp, op: &Op) -> bool {
    match op.clone() {
        Op::PutPool(pool) => engine.put_pool(now, pool).is_err(),
        Op::PutQuota(quota) => engine.put_quota(now, quota).is_err(),
        Op::PutRelease(release, version) => {
            engine.put_release(now, release, version);
            false
        }
        Op::PutGroup(traffic, policy) => engine.put_group(now, traffic, policy).is_err(),
        Op::Admit(traffic, policy, upper, authority) => {
            let verdict = engine.admit(now, traffic, policy, &[upper; 200], authority);
            matches!(verdict, Err(_) | Ok(Verdict::Refused(_)))
        }
        Op::Drop(group) => engine.drop_traffic(now, group).is_err(),
        Op::ByHand(group, by_hand) => engine.set_by_hand(now, group, by_hand).is_err(),
        Op::Pause(group) => engine.pause(now, group).is_err(),
        Op::Resume(group) => engine.resume(now, group).is_err(),
        Op::Sample(group, metric, at, value) => {
            engine.handle_sample(now, group, metric, at, value);
            false
        }
        Op::Launch(request, progress) => {
            engine.handle_launch(now, request, progress);
            false
        }
        Op::Release(request, gone) => {
            engine.handle_release(now, request, gone);
            false
        }
        Op::Census(group, pool, at, serving) => {
            engine.handle_census(now, group, pool, at, serving);
            false
        }
        Op::Pods(group, at, pods) => {
            engine.handle_pods(now, group, at, &pods);
            false
        }
        Op::PodSamples(group, metric, at, samples) => {
            engine.handle_pod_samples(now, group, metric, at, &samples);
            false
        }
        Op::Tick => {
            engine.handle_timeout(now);
            false
        }
    }
}

/// What a host tells of a launch that was cancelled: all that was to go is gone.
pub(crate) fn stopped(engine: &Engine, request: RequestId) -> Progress {
    let Some(held) = engine.request(request) else { return Progress::default() };
    Progress { cancelled: held.came.cancelled + held.leaving(), ..held.came }
}

pub(crate) fn config(skip: Skip) -> Config {
    let mut zones = Zones::new();
    zones.bundled("Europe/Berlin").unwrap();
    Config::builder()
        .zones(zones)
        .skip(skip)
        .drain_ms(60_000)
        .max_groups(4)
        .max_pools(4)
        .max_requests(12)
        .limits(Limits { instances: 60, rules: 6 })
        .build()
        .unwrap()
}

/// A night on which Berlin's clocks go back: 25 October 2026, 01:00 UTC.
pub(crate) const START: u64 = 1_792_886_400_000;

/// Makes histories up: it runs an engine of its own so that facts are about what was asked.
pub(crate) struct Author {
    pub(crate) dice: Dice,
    pub(crate) now: Timestamp,
    pub(crate) engine: Engine,
    cloud: VecDeque<Effect>,
}

impl Author {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Timestamp::from_millis(START);
        Self { dice: Dice(seed), now, engine: Engine::new(config(Skip::Proven)), cloud: VecDeque::new() }
    }

    /// A history of `length` calls.
    pub(crate) fn history(mut self, length: usize) -> Vec<(Timestamp, Op)> {
        (0..length).map(|_| self.step()).collect()
    }

    pub(crate) fn step(&mut self) -> (Timestamp, Op) {
        self.now = self.now.after_millis(self.dice.pick(&[0, 0, 1, 500, 15_000, 15_000, 60_000, 600_000]));
        let op = self.op();
        apply(&mut self.engine, self.now, &op);
        while let Some(effect) = self.engine.poll_effect() {
            self.cloud.push_back(effect);
        }
        (self.now, op)
    }

    fn op(&mut self) -> Op {
        let dice = &mut self.dice;
        let group = GroupId(dice.small(5));
        match dice.below(28) {
            24 => Op::Pods(group, self.now, pods(dice, self.now)),
            25..=26 => {
                let metric = MetricId(u16::try_from(dice.below(2)).unwrap());
                Op::PodSamples(group, metric, self.now, pod_samples(dice, self.now))
            }
            0 => Op::PutPool(pool(dice, self.now)),
            1 => Op::PutRelease(ReleaseId(dice.small(2)), VersionId(dice.below(9))),
            2 => Op::Admit(
                traffic(dice, group),
                policy(dice),
                dice.small(30),
                dice.pick(&[Authority::Owner, Authority::Owner, Authority::Operator]),
            ),
            3 => Op::PutGroup(traffic(dice, group), policy(dice)),
            4 if dice.below(6) == 0 => Op::Drop(group),
            4 => {
                let parent = (dice.below(2) == 0).then(|| TenantId(dice.small(4)));
                Op::PutQuota(Quota { tenant: TenantId(dice.small(4)), parent, limit: dice.small(40) })
            }
            5 => Op::ByHand(
                group,
                (dice.below(3) > 0)
                    .then(|| Override { count: dice.small(20), until: self.now.after_millis(dice.below(100_000)) }),
            ),
            6 if dice.below(3) == 0 => Op::Pause(group),
            7 => Op::Resume(group),
            8..=12 => {
                let at = Timestamp::from_millis(
                    (self.now.as_millis() + dice.pick(&[0, 0, 0, 9])) - dice.pick(&[0, 0, 5_000]),
                );
                let value =
                    (dice.below(8) > 0).then(|| Milli::from_thousandths(i64::try_from(dice.below(40_000)).unwrap()));
                Op::Sample(group, MetricId(u16::try_from(dice.below(3)).unwrap()), at, value)
            }
            13..=17 => match self.cloud.pop_front() {
                Some(Effect::Launch { request, count, .. }) => {
                    let failed = if dice.below(4) == 0 { dice.small(u64::from(count) + 1) } else { 0 };
                    // Some come late, in parts, or never.
                    let hung = if dice.below(5) == 0 { dice.small(u64::from(count - failed) + 1) } else { 0 };
                    Op::Launch(request, Progress { done: count - failed - hung, failed, cancelled: 0 })
                }
                Some(Effect::Cancel { request, .. }) => {
                    let mut told = stopped(&self.engine, request);
                    if dice.below(4) == 0 && told.cancelled > 0 {
                        // One came to serve before it could be stopped.
                        (told.done, told.cancelled) = (told.done + 1, told.cancelled - 1);
                    }
                    Op::Launch(request, told)
                }
                Some(Effect::Release { request, count, .. }) => Op::Release(request, count),
                None => {
                    let (done, failed, cancelled) = (dice.small(9), dice.small(3), dice.small(2));
                    Op::Launch(RequestId(dice.below(50)), Progress { done, failed, cancelled })
                }
            },
            18 => Op::Census(group, PoolId(u16::try_from(dice.below(4)).unwrap()), self.now, dice.small(5)),
            _ => Op::Tick,
        }
    }
}

pub(crate) fn pool(dice: &mut Dice, now: Timestamp) -> Pool {
    let kind = match dice.below(4) {
        0 => PoolKind::Dedicated(TenantId(dice.small(2))),
        1 => {
            let from = now.after_millis(dice.below(50_000));
            PoolKind::Emergency { from, until: from.after_millis(dice.below(4_000_000)) }
        }
        _ => PoolKind::Resident,
    };
    let watermark = if dice.below(2) == 0 {
        Watermark::default()
    } else {
        Watermark { high_permille: 800, low_permille: dice.pick(&[500, 900]) }
    };
    let stock = (0..2).filter(|_| dice.below(5) > 0).map(ShapeId).collect::<Vec<_>>();
    Pool {
        id: PoolId(u16::try_from(dice.below(5)).unwrap()),
        kind,
        idc: IdcId(u16::try_from(dice.below(3)).unwrap()),
        price: dice.below(3),
        watermark,
        stock: stock.into_iter().map(|shape| (shape, dice.small(30))).collect(),
    }
}

pub(crate) fn traffic(dice: &mut Dice, id: GroupId) -> Traffic {
    let idcs = (0..3).filter(|_| dice.below(3) == 0).map(IdcId).collect();
    Traffic {
        id,
        idcs,
        tenant: TenantId(dice.small(2)),
        release: ReleaseId(dice.small(2)),
        shape: ShapeId(u16::try_from(dice.below(2)).unwrap()),
    }
}

pub(crate) fn policy(dice: &mut Dice) -> Policy {
    let pace = |dice: &mut Dice| Pace {
        cooldown_ms: dice.pick(&[0, 0, 40_000]),
        stabilize_ms: dice.pick(&[0, 0, 60_000, 700_000]),
        rate: rate(dice),
    };
    let mut behavior = Behavior { out: pace(dice), inward: pace(dice), ..Behavior::default() };
    if dice.below(6) == 0 {
        behavior.inward.stabilize_ms = 0;
        behavior = Behavior { out: behavior.out, inward: behavior.inward, ..Behavior::kubernetes_unset() };
    }
    let metrics = (0..2).map(|id| Metric {
        id: MetricId(id),
        stale_after_ms: dice.pick(&[20_000, 100_000, 2_000_000]),
        when_stale: dice.pick(&[Staleness::ForbidIn, Staleness::Ignore, Staleness::Assume(Milli::from_units(9))]),
    });
    let metrics = metrics.collect();
    let rules = (0..dice.below(6)).map(|id| Rule { id: RuleId(u16::try_from(id).unwrap()), kind: kind(dice) });
    let rules = rules.collect();
    let min = dice.small(5);
    let grant = dice.pick(&[Grant::Partial, Grant::Partial, Grant::Atomic]);
    let skew = dice.pick(&[None, None, Some(1), Some(4)]);
    let (max, rank) = (min + dice.small(50), u8::try_from(dice.below(3)).unwrap());
    let formulas = (dice.below(5) == 0).then(|| {
        let terms = vec![Term::Metric(MetricId(0)), Term::Ready, Term::Div];
        Formula { metric: MetricId(1), terms }
    });
    let formulas = formulas.into_iter().collect();
    Policy { min, max, rank, metrics, formulas, rules, behavior, warm_up_ms: dice.pick(&[0, 90_000]), grant, skew }
}

pub(crate) fn rate(dice: &mut Dice) -> Option<Rate> {
    let policy = |dice: &mut Dice| hpa::Policy {
        kind: dice.pick(&[PolicyKind::Pods, PolicyKind::Percent]),
        value: 1 + dice.small(60),
        period_ms: dice.pick(&[15_000, 60_000, 900_000]),
    };
    match dice.below(6) {
        0 => Some(Rate::disabled()),
        1 | 2 => {
            let select = dice.pick(&[Select::Max, Select::Min]);
            Some(Rate { select, policies: (0..=dice.below(2)).map(|_| policy(dice)).collect() })
        }
        _ => None,
    }
}

pub(crate) fn pods(dice: &mut Dice, now: Timestamp) -> Vec<Pod> {
    let before =
        |dice: &mut Dice| Timestamp::from_millis(now.as_millis() - dice.pick(&[0, 10_000, 60_000, 400_000, 3_000_000]));
    let pod = |id, dice: &mut Dice| Pod {
        id,
        phase: dice.pick(&[Phase::Running, Phase::Running, Phase::Running, Phase::Pending, Phase::Failed]),
        ready: match dice.below(5) {
            0 => ReadyCondition::NotReady(before(dice)),
            1 => ReadyCondition::Absent,
            _ => ReadyCondition::Ready(before(dice)),
        },
        started: (dice.below(6) > 0).then(|| before(dice)),
        deletion: if dice.below(9) == 0 { Deletion::Begun } else { Deletion::None },
        requests: Requests::of((dice.below(15) > 0).then_some(1_000)),
    };
    (0..dice.small(8)).map(|id| pod(id, dice)).collect()
}

pub(crate) fn pod_samples(dice: &mut Dice, now: Timestamp) -> Vec<PodSample> {
    let ids: Vec<u32> = (0..8).filter(|_| dice.below(4) > 0).collect();
    let sample = |pod| PodSample { pod, value: i64::from(dice.small(2_000)), at: now, window_ms: 30_000 };
    ids.into_iter().map(sample).collect()
}

/// A pod that has long been ready.
pub(crate) fn serving(now: Timestamp) -> Pod {
    let since = Timestamp::from_millis(now.as_millis() - 900_000_000);
    Pod {
        id: 0,
        phase: Phase::Running,
        ready: ReadyCondition::Ready(since),
        started: Some(since),
        deletion: Deletion::None,
        requests: Requests::of(Some(1_000)),
    }
}

/// Strategies of other autoscalers, and steps.
fn strategy(dice: &mut Dice) -> Strategy {
    let kind =
        dice.pick(&[Kind::CpuUtilization, Kind::Utilization, Kind::PodsAverage, Kind::Value, Kind::AverageValue]);
    match dice.below(3) {
        0 => {
            let target = if matches!(kind, Kind::CpuUtilization | Kind::Utilization) { 60 } else { 900 };
            let guard = dice.pick(&[Guard::On, Guard::On, Guard::Off]);
            Strategy::Hpa(Hpa { guard, ..Hpa::new(hpa::Metric::new(kind, target)) })
        }
        1 => Strategy::Kpa(Kpa {
            sample_ms: 5_000,
            scale_down_delay_ms: dice.pick(&[0, 30_000]),
            activation_scale: dice.pick(&[1, 3]),
            ..Kpa::new(Milli::from_units(4), Milli::from_units(8))
        }),
        _ => {
            let band = |from, adjust| Band { from: Milli::from_units(from), adjust };
            let bands = vec![
                band(0, Adjust::In(Change::Count(2))),
                band(10, Adjust::Hold),
                band(20, Adjust::Out(Change::Permille(200))),
                band(30, Adjust::Out(Change::Count(7))),
                band(38, Adjust::To(25)),
            ];
            Strategy::Steps(Steps { bands })
        }
    }
}

fn kind(dice: &mut Dice) -> RuleKind {
    let metric = MetricId(u16::try_from(dice.below(2)).unwrap());
    let change = dice.pick(&[Change::Count(1), Change::Count(4), Change::Permille(300)]);
    let hour = i8::try_from(dice.below(4)).unwrap();
    let zone = ZoneId(u16::try_from(dice.below(2)).unwrap());
    let days = dice.pick(&[Days::Every, Days::Every, Days::WEEKEND, Days::Month(1 << 24)]);
    let lead_ms = dice.pick(&[0, 0, 300_000]);
    let window = Window {
        zone,
        days,
        from: time(hour, dice.pick(&[0, 30]), 0, 0),
        until: time((hour + 1) % 24, dice.pick(&[0, 15]), 0, 0),
        lead_ms,
    };
    let delta = i32::try_from(dice.below(24)).unwrap() - 12;
    match dice.below(11) {
        8..=10 => RuleKind::Metric(metric, strategy(dice)),
        0 => RuleKind::Metric(metric, Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(2) })),
        1 => RuleKind::Metric(
            metric,
            Strategy::Target(Target {
                target: Milli::from_units(10),
                tolerance_out_permille: 100,
                tolerance_in_permille: 200,
                guard: dice.pick(&[Guard::On, Guard::On, Guard::Off]),
            }),
        ),
        2 | 3 => RuleKind::Metric(
            metric,
            Strategy::Threshold(Threshold {
                out: Some(Trigger { past: Milli::from_units(25), by: change }),
                inward: (dice.below(3) > 0).then_some(Trigger { past: Milli::from_units(12), by: change }),
                need: 1 + u8::try_from(dice.below(2)).unwrap(),
                of: 3,
            }),
        ),
        4 => RuleKind::Floor(window, dice.small(20)),
        5 => RuleKind::Cap(window, dice.small(20)),
        6 => RuleKind::Delta(window, delta),
        _ => RuleKind::Step(Point { zone, days, at: window.from, lead_ms }, delta),
    }
}
