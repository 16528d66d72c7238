//! Whatever a host passes in (pools, policies, samples, facts, instants, all of them as absurd as they like): no panic,
//! sums that add up, bounds that hold, refusals that change nothing, records that recompute themselves, snapshots that
//! come back whole; and two engines, one that passes over ticks and one that does not, that stay the same.
#![no_main]

use std::collections::BTreeMap;

use jiff::civil::{Time, date};
use libfuzzer_sys::fuzz_target;
use tenon_scaler::chain::{Call, Chain, ChainTask, ChainVerdict, Link};
use tenon_scaler::hpa::{self, Deletion, Kind, Phase, Pod, PodSample, PolicyKind, ReadyCondition, Select};
use tenon_scaler::place::{Health, Host, Spread, place, rebalance};
use tenon_scaler::strategy::{
    Adjust, Band, Change, Guard, Hpa, Kpa, QueueLength, Steps, Strategy, Target, Threshold, Trigger,
};
use tenon_scaler::*;

/// Choices, byte by byte; zeros when they have run out.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn flip(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Small, or at an edge of what fits.
    fn wide(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX - u64::from(self.byte()),
            1 => u64::from(u32::MAX) - 3 + u64::from(self.byte()),
            2 => u64::from(self.byte()) << self.below(64),
            3 => u64::from(self.byte()) * 1_000,
            _ => u64::from(self.byte()),
        }
    }

    fn count(&mut self) -> u32 {
        if self.below(12) == 0 { u32::try_from(self.wide()).unwrap_or(u32::MAX) } else { u32::from(self.byte() % 40) }
    }

    fn milli(&mut self) -> Milli {
        let size = i64::try_from(self.wide()).unwrap_or(i64::MAX);
        Milli::from_thousandths(if self.below(6) == 0 {
            -size
        } else {
            size.saturating_mul(if self.flip() { 1_000 } else { 1 })
        })
    }

    fn id(&mut self) -> u16 {
        u16::from(self.below(4))
    }

    fn time(&mut self) -> Time {
        let minute = [0, 30, 59][usize::from(self.below(3))];
        Time::new(i8::try_from(self.below(24)).unwrap_or(0), minute, 0, 0).unwrap_or_default()
    }

    fn days(&mut self) -> Days {
        match self.below(6) {
            0 => Days::Week(self.byte()),
            1 => Days::Month(1 << self.below(32)),
            2 => Days::MonthEnd,
            3 => Days::Between(date(2026, 10, 20), date(2026, 10, 31)),
            4 => Days::Between(date(9999, 12, 30), date(9999, 12, 31)),
            _ => Days::Every,
        }
    }
}

fn change(tape: &mut Tape<'_>) -> Change {
    if tape.flip() { Change::Count(tape.count()) } else { Change::Permille(tape.count()) }
}

fn strategy(tape: &mut Tape<'_>) -> Strategy {
    match tape.below(7) {
        0 => {
            let side = |tape: &mut Tape<'_>| tape.flip().then(|| Trigger { past: tape.milli(), by: change(tape) });
            Strategy::Threshold(Threshold {
                out: side(tape),
                inward: side(tape),
                need: tape.byte() % 5,
                of: tape.byte() % 70,
            })
        }
        1 => Strategy::Target(Target {
            target: tape.milli(),
            tolerance_out_permille: tape.count(),
            tolerance_in_permille: tape.count(),
            guard: if tape.flip() { Guard::On } else { Guard::Off },
        }),
        2 => Strategy::QueueLength(QueueLength { per_instance: tape.milli() }),
        3 => {
            let guard = if tape.flip() { Guard::On } else { Guard::Off };
            Strategy::Hpa(Hpa { guard, ..Hpa::new(hpa_metric(tape)) })
        }
        4 => {
            let kpa = Kpa::new(tape.milli(), tape.milli());
            Strategy::Kpa(Kpa { target_burst_capacity: tape.milli(), activation_scale: tape.count(), ..kpa })
        }
        5 => steps(tape),
        _ => Strategy::Given,
    }
}

fn hpa_metric(tape: &mut Tape<'_>) -> hpa::Metric {
    use Kind::{AverageValue, CpuAverage, CpuUtilization, PodsAverage, Utilization, Value};
    const KINDS: [Kind; 6] = [CpuUtilization, Utilization, CpuAverage, PodsAverage, Value, AverageValue];
    hpa::Metric::new(KINDS[usize::from(tape.below(6))], tape.milli().as_thousandths())
}

fn steps(tape: &mut Tape<'_>) -> Strategy {
    let mut from = tape.milli();
    let mut bands = vec![];
    for _ in 0..tape.below(4) {
        let adjust = match tape.below(4) {
            0 => Adjust::Hold,
            1 => Adjust::Out(change(tape)),
            2 => Adjust::In(change(tape)),
            _ => Adjust::To(tape.count()),
        };
        bands.push(Band { from, adjust });
        from = Milli::from_thousandths(from.as_thousandths().saturating_add(1 + i64::from(tape.byte())));
    }
    Strategy::Steps(Steps { bands })
}

fn kind(tape: &mut Tape<'_>) -> RuleKind {
    let window = |tape: &mut Tape<'_>| Window {
        zone: ZoneId(tape.id()),
        days: tape.days(),
        from: tape.time(),
        until: tape.time(),
        lead_ms: if tape.flip() { 0 } else { tape.wide() },
    };
    let by = |tape: &mut Tape<'_>| i32::try_from(tape.count()).unwrap_or(i32::MAX) * if tape.flip() { 1 } else { -1 };
    match tape.below(8) {
        0 => RuleKind::Floor(window(tape), tape.count()),
        1 => RuleKind::Cap(window(tape), tape.count()),
        2 => RuleKind::Delta(window(tape), by(tape)),
        3 => {
            let lead_ms = if tape.flip() { 0 } else { tape.wide() };
            RuleKind::Step(Point { zone: ZoneId(tape.id()), days: tape.days(), at: tape.time(), lead_ms }, by(tape))
        }
        _ => RuleKind::Metric(MetricId(tape.id() % 2), strategy(tape)),
    }
}

fn policy(tape: &mut Tape<'_>) -> Policy {
    let pace = |tape: &mut Tape<'_>| {
        let policy = |tape: &mut Tape<'_>| hpa::Policy {
            kind: if tape.flip() { PolicyKind::Pods } else { PolicyKind::Percent },
            value: tape.count(),
            period_ms: tape.wide(),
        };
        let select = [Select::Max, Select::Min, Select::Disabled][usize::from(tape.below(3))];
        let rate = (tape.below(3) == 0).then(|| Rate { select, policies: vec![policy(tape)] });
        Pace { cooldown_ms: tape.wide(), stabilize_ms: tape.wide(), rate }
    };
    let metric = |tape: &mut Tape<'_>, id| Metric {
        id: MetricId(id),
        stale_after_ms: tape.wide(),
        when_stale: match tape.below(3) {
            0 => Staleness::ForbidIn,
            1 => Staleness::Ignore,
            _ => Staleness::Assume(tape.milli()),
        },
    };
    let behavior = if tape.flip() {
        Behavior::default()
    } else {
        Behavior { out: pace(tape), inward: pace(tape), ..Behavior::default() }
    };
    let metrics = (0..2).map(|id| metric(tape, id)).collect();
    let rules = (0..u16::from(tape.below(4))).map(|id| Rule { id: RuleId(id), kind: kind(tape) }).collect();
    let (min, max) = (u32::from(tape.below(4)), tape.count());
    let warm_up_ms = if tape.flip() { 0 } else { tape.wide() };
    let grant = if tape.flip() { Grant::Partial } else { Grant::Atomic };
    let skew = (tape.below(3) == 0).then(|| tape.count());
    Policy { min, max, rank: tape.below(3), metrics, rules, behavior, warm_up_ms, grant, skew, ..Policy::default() }
}

fn traffic(tape: &mut Tape<'_>, id: GroupId) -> Traffic {
    let idcs = (0..2).filter(|_| tape.below(4) == 0).map(IdcId).collect();
    let (tenant, release) = (TenantId(u32::from(tape.id())), ReleaseId(u32::from(tape.below(2))));
    Traffic { id, idcs, tenant, release, shape: ShapeId(tape.id() % 2) }
}

fn pool(tape: &mut Tape<'_>, now: Timestamp) -> Pool {
    let kind = match tape.below(5) {
        0 => PoolKind::Dedicated(TenantId(u32::from(tape.id()))),
        1 => PoolKind::Emergency { from: now, until: now.after_millis(tape.wide()) },
        _ => PoolKind::Resident,
    };
    let mark = |tape: &mut Tape<'_>| if tape.flip() { 1_000 } else { u16::from(tape.byte()) * 5 };
    let watermark = Watermark { high_permille: mark(tape), low_permille: mark(tape) };
    let stock = (0..2).map(|shape| (ShapeId(shape), tape.count())).collect();
    Pool { id: PoolId(tape.id()), kind, idc: IdcId(tape.id() % 2), price: tape.wide(), watermark, stock }
}

/// One call; whether it was a command that was refused.
fn call(engine: &mut Engine, now: Timestamp, tape: &mut Tape<'_>) -> bool {
    let group = GroupId(u32::from(tape.id()));
    let at = Timestamp::from_millis(now.as_millis().wrapping_sub(u64::from(tape.below(3)) * 7_000));
    match tape.below(23) {
        0 | 1 => engine.put_pool(now, pool(tape, now)).is_err(),
        2 => {
            engine.put_release(now, ReleaseId(u32::from(tape.below(2))), VersionId(u64::from(tape.byte())));
            false
        }
        3 | 4 => engine.put_group(now, traffic(tape, group), policy(tape)).is_err(),
        5 | 6 => {
            let upper: Vec<u32> = (0..tape.below(20)).map(|_| tape.count()).collect();
            let authority = if tape.flip() { Authority::Owner } else { Authority::Operator };
            let verdict = engine.admit(now, traffic(tape, group), policy(tape), &upper, authority);
            matches!(verdict, Err(_) | Ok(Verdict::Refused(_)))
        }
        7 => {
            let parent = tape.flip().then(|| TenantId(u32::from(tape.id())));
            engine
                .put_quota(now, Quota { tenant: TenantId(u32::from(tape.id())), parent, limit: tape.count() })
                .is_err()
        }
        8 => match tape.below(4) {
            0 => engine.drop_traffic(now, group).is_err(),
            1 => engine.pause(now, group).is_err(),
            2 => engine.resume(now, group).is_err(),
            _ => {
                let by_hand =
                    tape.flip().then(|| Override { count: tape.count(), until: now.after_millis(tape.wide()) });
                engine.set_by_hand(now, group, by_hand).is_err()
            }
        },
        20 | 21 => start_chain(engine, now, tape),
        22 => {
            place_on_hosts(tape);
            false
        }
        fact => {
            tell(engine, now, at, group, fact, tape);
            false
        }
    }
}

fn start_chain(engine: &mut Engine, now: Timestamp, tape: &mut Tape<'_>) -> bool {
    let group = |tape: &mut Tape<'_>| GroupId(u32::from(tape.id()));
    let limit = |tape: &mut Tape<'_>| tape.flip().then(|| tape.milli());
    let link = |tape: &mut Tape<'_>| Link { group: group(tape), per_instance: tape.milli(), limit: limit(tape) };
    let call = |tape: &mut Tape<'_>| Call { caller: group(tape), callee: group(tape), permille: tape.count() };
    let links = (0..tape.below(4)).map(|_| link(tape)).collect();
    let calls = (0..tape.below(4)).map(|_| call(tape)).collect();
    let Ok(chain) = Chain::new(links, calls) else { return false };
    let entries: Vec<(GroupId, Milli)> = (0..tape.below(3)).map(|_| (group(tape), tape.milli())).collect();
    let count = tape.count();
    let _weakest = chain.assess(&entries, |_| count).permille();
    let wanted = (0..tape.below(4)).map(|_| (group(tape), tape.count())).collect();
    let grant = if tape.flip() { Grant::Partial } else { Grant::Atomic };
    let id = TaskId(u32::from(tape.id()));
    let task = ChainTask { id, wanted, from: now, until: now.after_millis(tape.wide()), grant };
    let verdict = engine.start_chain(now, &chain, &task);
    if let Ok(ChainVerdict::Started(plan)) = &verdict {
        assert!(plan.steps.iter().all(|step| step.granted >= step.before), "a chain takes nothing away: {plan:?}");
        assert!(grant == Grant::Partial || plan.is_whole());
    }
    matches!(verdict, Err(_) | Ok(ChainVerdict::Refused(_)))
}

fn place_on_hosts(tape: &mut Tape<'_>) {
    let host = |tape: &mut Tape<'_>| Host {
        id: HostId(u32::from(tape.below(9))),
        idc: IdcId(tape.id()),
        room: tape.count(),
        here: if tape.below(9) == 0 { tape.count() } else { u32::from(tape.below(5)) },
        load_permille: u16::from(tape.byte()) * 4,
        health: [Health::Good, Health::Closed, Health::Bad][usize::from(tape.below(3))],
    };
    let hosts: Vec<Host> = (0..tape.below(9)).map(|_| host(tape)).collect();
    let skew = tape.flip().then(|| u32::from(tape.below(4)));
    let grant = if tape.flip() { Grant::Partial } else { Grant::Atomic };
    let spread = Spread { per_host: u32::from(tape.below(5)), skew, grant };
    let count = u32::from(tape.byte());
    let placed = place(&hosts, count, spread);
    let sum: u32 = placed.on.iter().map(|(_, count)| count).sum();
    assert_eq!(sum + placed.missing, count, "{placed:?}");
    assert!(grant == Grant::Partial || sum == 0 || sum == count);
    assert!(placed.on.iter().all(|(_, count)| *count <= spread.per_host.max(1) * 9), "{placed:?}");
    assert!(rebalance(&hosts, spread, 50).len() <= 50);
}

fn tell(engine: &mut Engine, now: Timestamp, at: Timestamp, group: GroupId, fact: u8, tape: &mut Tape<'_>) {
    let metric = MetricId(tape.id() % 3);
    match fact {
        9..=11 => engine.handle_sample(now, group, metric, at, tape.flip().then(|| tape.milli())),
        12 | 13 => {
            let progress = Progress { done: tape.count(), failed: tape.count(), cancelled: tape.count() };
            engine.handle_progress(now, RequestId(tape.wide()), progress);
        }
        14 => engine.handle_release(now, RequestId(tape.wide()), tape.count()),
        15 => engine.handle_census(now, group, PoolId(tape.id()), at, tape.count()),
        16 => {
            let pod = |id, tape: &mut Tape<'_>| Pod {
                id,
                phase: [Phase::Running, Phase::Pending, Phase::Failed][usize::from(tape.below(3))],
                ready: match tape.below(3) {
                    0 => ReadyCondition::Absent,
                    1 => ReadyCondition::NotReady(at),
                    _ => ReadyCondition::Ready(at),
                },
                started: tape.flip().then_some(at),
                deletion: if tape.flip() { Deletion::None } else { Deletion::Begun },
                requests: hpa::Requests::of(tape.flip().then(|| tape.milli().as_thousandths())),
            };
            let pods: Vec<Pod> = (0..u32::from(tape.below(5))).map(|id| pod(id, tape)).collect();
            engine.handle_pods(now, group, at, &pods);
        }
        17 => {
            let sample = |pod, tape: &mut Tape<'_>| PodSample {
                pod,
                value: tape.milli().as_thousandths(),
                at,
                window_ms: tape.wide(),
            };
            let samples: Vec<PodSample> = (0..u32::from(tape.below(5))).map(|id| sample(id, tape)).collect();
            engine.handle_pod_samples(now, group, metric, at, &samples);
        }
        _ => engine.handle_timeout(now),
    }
}

fn check(engine: &Engine, now: Timestamp, tenants: &BTreeMap<GroupId, ShapeId>) {
    let mut held: BTreeMap<(PoolId, ShapeId), u64> = BTreeMap::new();
    for group in engine.groups() {
        for holding in engine.holdings(group) {
            let all = u64::from(holding.starting) + u64::from(holding.ready) + u64::from(holding.leaving);
            *held.entry((holding.pool, tenants[&group])).or_default() += all;
        }
        let explained = engine.explain(now, group).expect("a group that is there is explained");
        assert_eq!(explained.verify(), Ok(()), "{}", explained.explain());
        if let Some(record) = engine.record(group) {
            assert_eq!(record.verify(), Ok(()), "{}", record.explain());
        }
    }
    for pool in engine.pools() {
        for (shape, total) in &pool.stock {
            let stock = engine.stock(pool.id, *shape).expect("what is declared is there");
            assert!(stock.total == *total && stock.lent <= stock.total);
            assert_eq!(u64::from(stock.lent), held.remove(&(pool.id, *shape)).unwrap_or(0), "{pool:?}");
        }
    }
    assert!(held.values().all(|count| *count == 0), "held, and lent by nobody: {held:?}");
}

fuzz_target!(|bytes: &[u8]| {
    let mut zones = Zones::new();
    let _berlin = zones.bundled("Europe/Berlin").expect("a zone of the data");
    let config = |skip| {
        let limits = Limits { instances: 1_000_000, rules: 5 };
        let builder = Config::builder().zones(zones.clone()).limits(limits).skip(skip).drain_ms(60_000);
        builder.max_groups(4).max_pools(4).max_requests(12).build().expect("a sound configuration")
    };
    let (mut engine, mut patient) = (Engine::new(config(Skip::Proven)), Engine::new(config(Skip::Nothing)));
    let mut shapes = BTreeMap::new();
    // The night on which Berlin's clocks go back.
    let mut now = Timestamp::from_millis(1_792_886_400_000);
    let mut tape = Tape(bytes);
    while !tape.0.is_empty() {
        let ahead = tape.below(10);
        now = now.after_millis(match ahead {
            0 => u64::from(tape.byte()) * 3_600_000,
            1 => tape.wide(),
            2..=5 => 15_000,
            _ => 0,
        });
        let before = engine.snapshot();
        let mut again = Tape(tape.0);
        let refused = call(&mut engine, now, &mut tape);
        assert_eq!(call(&mut patient, now, &mut again), refused);
        let after = engine.snapshot();
        assert!(!refused || before == after, "a refusal changes nothing");
        assert_eq!(after, patient.snapshot(), "passing over ticks changes nothing");
        assert_eq!(engine.moves(), patient.moves());
        let restored = Engine::restore(config(Skip::Proven), after.clone()).expect("a snapshot comes back");
        assert_eq!(restored.snapshot(), after);
        for group in engine.groups() {
            if let Some(traffic) = engine.traffic(group) {
                shapes.insert(group, traffic.shape);
            }
        }
        check(&engine, now, &shapes);
        for _ in 0..tape.below(3) {
            assert_eq!(engine.poll_effect(), patient.poll_effect());
        }
    }
});
