//! Rehearsal: on the same code path as live decisions, tick for tick.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::VecDeque;

use support::{Author, Dice, Op, START, apply, config, seeds, stopped};
use tenon_scaler::chain::{Chain, ChainTask, Link};
use tenon_scaler::hpa::{PodSample, Pods};
use tenon_scaler::{
    Config, Effect, Engine, Grant, GroupId, IdcId, MetricId, Milli, Move, Override, Policy, PolicyError, Pool, PoolId,
    PoolKind, Progress, Rehearsal, ReleaseId, Report, RequestId, RequestKind, ShapeId, Skip, TaskId, TenantId,
    Timeline, Timestamp, Traffic, VersionId, Watermark, World,
};

/// Load that follows from a seed alone, and sometimes is not measured.
struct Load(u64);

/// The same, and what each tick decided.
struct Watched(Load, Vec<(Timestamp, Vec<Move>)>);

impl World for Watched {
    fn measure_pods(
        &mut self,
        at: Timestamp,
        group: GroupId,
        metric: MetricId,
        pods: Pods<'_>,
        samples: &mut Vec<PodSample>,
    ) {
        self.0.measure_pods(at, group, metric, pods, samples);
    }

    fn measure(&mut self, at: Timestamp, group: GroupId, metric: MetricId, ready: u32) -> Option<Milli> {
        self.0.measure(at, group, metric, ready)
    }

    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32 {
        self.0.needed(at, group)
    }

    fn decided(&mut self, at: Timestamp, moves: &[Move]) {
        self.1.push((at, moves.to_vec()));
    }
}

impl World for Load {
    fn measure_pods(&mut self, _: Timestamp, _: GroupId, _: MetricId, _: Pods<'_>, _: &mut Vec<PodSample>) {
        // The live host knows no instances one by one: so here, none of them reads anything.
    }

    fn measure(&mut self, at: Timestamp, group: GroupId, metric: MetricId, ready: u32) -> Option<Milli> {
        let place = at.as_millis() / 300_000 * 64 + u64::from(group.0) * 8 + u64::from(metric.0);
        let mut dice = Dice(self.0 ^ place.wrapping_mul(0x9e37));
        let load = i64::try_from(dice.below(90)).unwrap();
        (dice.below(10) > 0).then(|| Milli::from_thousandths(load * 1000 / i64::from(ready.max(1))))
    }

    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32 {
        u32::try_from((at.as_millis() / 300_000 + u64::from(group.0)) % 12).unwrap()
    }
}

/// An engine with some groups and pools, at rest.
fn engine(seed: u64, skip: Skip) -> Engine {
    let mut engine = Engine::new(config(skip));
    // A world tells of groups, not of instances: so does this host.
    let tells = |op: &Op| !matches!(op, Op::Pods(..) | Op::PodSamples(..));
    for (now, op) in Author::new(seed).history(60).into_iter().filter(|(_, op)| tells(op)) {
        apply(&mut engine, now, &op);
    }
    for effect in std::iter::from_fn(|| engine.poll_effect()).collect::<Vec<_>>() {
        answer(&mut engine, Timestamp::ZERO, effect.request());
    }
    for request in engine.requests().map(|(id, _)| id).collect::<Vec<_>>() {
        answer(&mut engine, Timestamp::ZERO, request);
    }
    // Its clock is right: the second of two readings that agree confirms whatever the history had read.
    for now in [SETTLED, SETTLED + 1_000].map(Timestamp::from_millis) {
        engine.handle_timeout(now);
        while let Some(effect) = engine.poll_effect() {
            answer(&mut engine, now, effect.request());
        }
    }
    engine
}

/// After all histories.
const SETTLED: u64 = START + 365 * 86_400_000;

/// Tells that a request is done.
fn answer(engine: &mut Engine, now: Timestamp, id: RequestId) {
    let Some(request) = engine.request(id) else { return };
    match request.kind {
        RequestKind::Launch => {
            let (done, cancelled) =
                (request.came.done + request.starting(), request.came.cancelled + request.leaving());
            let came = Progress { done, cancelled, ..request.came };
            engine.handle_launch(now, id, came);
        }
        RequestKind::Release => {
            let all = request.count;
            engine.handle_release(now, id, all);
        }
    }
}

fn rehearsal(engine: &Engine, skip: Skip) -> Rehearsal {
    let from = engine.next_deadline().unwrap_or(Timestamp::from_millis(START));
    Rehearsal {
        from,
        until: from.after_millis(6 * 3_600_000),
        sample_ms: 300_000,
        start_ms: 40_000,
        stop_ms: 20_000,
        flap_ms: 600_000,
        skip,
        ..Rehearsal::default()
    }
}

#[test]
fn passing_over_ticks_changes_nothing() {
    seeds(40, |seed| {
        let engine = engine(seed, Skip::Proven);
        let before = engine.snapshot();
        let report = |skip| engine.rehearse(rehearsal(&engine, skip), &mut Load(seed));
        assert_eq!(report(Skip::Proven), report(Skip::Nothing));
        assert_eq!(before, engine.snapshot(), "a rehearsal is on a fork");
    });
}

/// Runs the same world live, through the public face alone.
fn live(engine: &mut Engine, run: Rehearsal, load: &mut Load) -> (Report, Vec<(Timestamp, Vec<Move>)>) {
    let mut report = Report::default();
    let mut decided = vec![];
    let mut cloud: VecDeque<(Timestamp, RequestId)> = VecDeque::new();
    for at in (run.from.as_millis()..run.until.as_millis()).step_by(5_000).map(Timestamp::from_millis) {
        let due: Vec<_> = cloud.iter().copied().filter(|(when, _)| *when <= at).collect();
        cloud.retain(|(when, _)| *when > at);
        for (when, request) in due {
            answer(engine, when, request);
        }
        if at.millis_since(run.from).is_multiple_of(run.sample_ms) {
            for group in engine.groups().collect::<Vec<_>>() {
                let ready = engine.holdings(group).iter().map(|held| held.ready).sum();
                for metric in [MetricId(0), MetricId(1)] {
                    engine.handle_sample(at, group, metric, at, load.measure(at, group, metric, ready));
                }
            }
        }
        if engine.next_deadline().is_some_and(|deadline| deadline <= at) {
            engine.handle_timeout(at);
            report.changes += engine.moves().len() as u64;
            if !engine.moves().is_empty() {
                decided.push((at, engine.moves().to_vec()));
            }
        }
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Launch { request, count, .. } => {
                    report.launched += u64::from(count);
                    cloud.push_back((at.after_millis(run.start_ms), request));
                }
                Effect::Cancel { request, .. } => {
                    let told = stopped(engine, request);
                    report.cancelled += u64::from(engine.request(request).map_or(0, tenon_scaler::Request::leaving));
                    engine.handle_launch(at, request, told);
                }
                Effect::Release { request, count, .. } => {
                    report.released += u64::from(count);
                    cloud.push_back((at.after_millis(run.stop_ms), request));
                }
            }
        }
        cloud.make_contiguous().sort();
    }
    (report, decided)
}

#[test]
fn a_rehearsal_is_what_comes_to_pass() {
    let changes = core::cell::Cell::new(0);
    seeds(40, |seed| {
        let mut engine = engine(seed, Skip::Proven);
        if engine.groups().next().is_none() {
            return;
        }
        let run = rehearsal(&engine, Skip::Proven);
        let mut watched = Watched(Load(seed), vec![]);
        let foreseen = engine.rehearse(run, &mut watched);
        let mut slowly = Watched(Load(seed), vec![]);
        assert_eq!(engine.rehearse(Rehearsal { skip: Skip::Nothing, ..run }, &mut slowly), foreseen);
        let (seen, decided) = live(&mut engine, run, &mut Load(seed));
        assert_eq!(watched.1, decided, "tick for tick");
        assert_eq!(slowly.1, decided, "nothing skipped, tick for tick");
        assert_eq!(
            (foreseen.changes, foreseen.launched, foreseen.released),
            (seen.changes, seen.launched, seen.released)
        );
        changes.set(changes.get() + seen.changes);
    });
    assert!(changes.get() > 100, "{} changes", changes.get());
}

#[test]
fn a_rehearsal_of_the_past_keeps_to_the_grid_of_ticks() {
    seeds(20, |seed| {
        let engine = engine(seed, Skip::Proven);
        let from = Timestamp::from_millis(START - 86_400_000);
        let run = Rehearsal { from, until: from.after_millis(3_600_000), ..rehearsal(&engine, Skip::Proven) };
        let mut watched = Watched(Load(seed), vec![]);
        let report = engine.rehearse(run, &mut watched);
        assert_eq!(report.ticks, 3_600_000 / 15_000);
        assert!(watched.1.iter().all(|(at, _)| at.as_millis().is_multiple_of(15_000)), "{:?}", watched.1);
    });
}

#[test]
fn what_if_is_two_rehearsals() {
    let cheaper = core::cell::Cell::new(0);
    seeds(120, |seed| {
        let engine = engine(seed, Skip::Proven);
        let before = engine.snapshot();
        let run = rehearsal(&engine, Skip::Proven);
        let same = engine.what_if(run, [], &mut Load(seed)).unwrap();
        assert_eq!((&same.now, same.cost(), same.shortage_ms()), (&same.then, 0, 0));
        assert_eq!(same.now, engine.rehearse(run, &mut Load(seed)));
        // Every group that is still there at one instance at most.
        let Some(group) = before_groups(&engine).into_iter().next() else { return };
        let policy = Policy { min: 0, max: 1, ..Policy::default() };
        let Ok(less) = engine.what_if(run, [(group, policy.clone())], &mut Load(seed)) else { return };
        assert_eq!(before, engine.snapshot(), "nothing has changed");
        assert_eq!(less.now, same.now);
        cheaper.set(cheaper.get() + u32::from(less.cost() < 0));
        let none = Traffic { shape: ShapeId(9), ..traffic(GroupId(77)) };
        let bad = Policy { min: 2, max: 1, ..Policy::default() };
        assert_eq!(engine.what_if(run, [(none, bad)], &mut Load(seed)), Err(PolicyError::MinAboveMax.into()));
    });
    assert!(cheaper.get() > 3, "{} were cheaper", cheaper.get());
}

fn traffic(id: GroupId) -> Traffic {
    Traffic { id, idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) }
}

/// Groups as they could be put again.
fn before_groups(engine: &Engine) -> Vec<Traffic> {
    engine.groups().filter_map(|id| engine.traffic(id).cloned()).collect()
}

/// A rehearsal that begins at a size of its own forgets what was, and not what was ordered: a chain's task, an override, a
/// pause.
#[test]
fn orders_outlast_the_size_that_a_rehearsal_begins_with() {
    struct Begin;
    impl World for Begin {
        fn measure(&mut self, _: Timestamp, _: GroupId, _: MetricId, _: u32) -> Option<Milli> {
            None
        }
        fn start_size(&mut self, _: GroupId) -> Option<u32> {
            Some(2)
        }
        fn needed(&mut self, _: Timestamp, _: GroupId) -> u32 {
            0
        }
    }
    let hour = |hours: u64| Timestamp::from_millis(hours * 3_600_000);
    let group = |id| Traffic { id: GroupId(id), ..traffic(GroupId(id)) };
    let mut engine = Engine::new(Config::builder().build().unwrap());
    let (kind, watermark, stock) = (PoolKind::Resident, Watermark::default(), vec![(ShapeId(1), 100)]);
    let pool = Pool { id: PoolId(1), kind, idc: IdcId(1), price: 1, watermark, stock };
    engine.put_pool(Timestamp::ZERO, pool).unwrap();
    engine.put_release(Timestamp::ZERO, ReleaseId(1), VersionId(1));
    for id in 1..=3 {
        engine.put_group(Timestamp::ZERO, group(id), Policy { min: 2, max: 20, ..Policy::default() }).unwrap();
    }
    let link = Link { group: GroupId(1), per_instance: Milli::from_units(1), limit: None };
    let chain = Chain::new(vec![link], vec![]).unwrap();
    let wanted = vec![(GroupId(1), 7)];
    let task = ChainTask { id: TaskId(1), wanted, grant: Grant::Partial, from: hour(2), until: hour(3) };
    let _ = engine.start_chain(hour(1), &chain, &task).unwrap();
    engine.set_by_hand(hour(1), GroupId(2), Some(Override { count: 9, until: hour(9) })).unwrap();
    engine.pause(hour(1), GroupId(3)).unwrap();
    let run = Rehearsal {
        from: hour(1),
        until: hour(4),
        sample_ms: 60_000,
        timeline: Timeline::Rows,
        ..Rehearsal::default()
    };
    let report = engine.rehearse(run, &mut Begin);
    let most = |id| report.timeline.iter().filter(|row| row.group == GroupId(id)).map(|row| row.wanted).max();
    assert_eq!((most(1), most(2), most(3)), (Some(7), Some(9), Some(2)));
}
