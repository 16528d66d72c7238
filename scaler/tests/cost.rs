//! What instances cost, by tenant and pool, and rolled up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{Author, apply, config, seeds, stopped};
use tenon_scaler::{
    Config, Cost, Effect, Engine, GroupId, IdcId, Policy, Pool, PoolId, PoolKind, Progress, Quota, ReleaseId, ShapeId,
    Skip, TenantId, Timestamp, Traffic, VersionId, Watermark,
};

const HOUR_MS: u64 = 3_600_000;

fn at(hours: u64) -> Timestamp {
    Timestamp::from_millis(hours * HOUR_MS)
}

fn pool(price: u64) -> Pool {
    Pool {
        id: PoolId(1),
        kind: PoolKind::Resident,
        idc: IdcId(1),
        price,
        watermark: Watermark::default(),
        stock: vec![(ShapeId(1), 100)],
    }
}

fn put(engine: &mut Engine, now: Timestamp, group: u32, tenant: u32, size: u32) {
    let (release, shape) = (ReleaseId(1), ShapeId(1));
    let traffic = Traffic { id: GroupId(group), idcs: vec![], tenant: TenantId(tenant), release, shape };
    engine.put_group(now, traffic, Policy { min: size, max: size, ..Policy::default() }).unwrap();
    engine.handle_timeout(now);
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::Launch { request, count, .. } => engine.handle_launch(now, request, Progress::done(count)),
            Effect::Cancel { request, .. } => engine.handle_launch(now, request, stopped(engine, request)),
            Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
        }
    }
}

fn of(costs: &[Cost], tenant: u32) -> (u128, u128) {
    let line = costs.iter().find(|line| line.tenant == Some(TenantId(tenant))).unwrap();
    (line.instance_hours(), line.cost())
}

#[test]
fn hours_times_the_price_of_the_time_rolled_up_the_tree() {
    let mut engine = Engine::new(Config::builder().build().unwrap());
    engine.put_pool(at(0), pool(100)).unwrap();
    engine.put_release(at(0), ReleaseId(1), VersionId(1));
    for (tenant, parent) in [(9, None), (1, Some(9)), (2, Some(9)), (3, None)] {
        let parent = parent.map(TenantId);
        engine.put_quota(at(0), Quota { tenant: TenantId(tenant), parent, limit: 50 }).unwrap();
    }
    put(&mut engine, at(0), 1, 1, 4);
    // The next tick is a moment later: these two begin together.
    put(&mut engine, at(0), 2, 2, 3);
    put(&mut engine, at(1), 3, 3, 5);
    // Two hours at 100, then one at 250.
    engine.put_pool(at(2), pool(250)).unwrap();
    let costs = engine.costs(at(3));
    assert_eq!(of(&costs, 1), (12, 4 * 2 * 100 + 4 * 250));
    assert_eq!(of(&costs, 3), (10, 5 * 100 + 5 * 250));
    let [sum] = engine.cost_of(at(3), TenantId(9))[..] else { panic!("one pool") };
    assert_eq!((sum.instances, sum.instance_hours(), sum.cost()), (7, 4 * 3 + 3 * 2, 4 * 200 + 3 * 100 + 7 * 250));
    // A group that moves leaves what it has cost where it was.
    put(&mut engine, at(3), 1, 3, 4);
    let costs = engine.costs(at(5));
    assert_eq!((of(&costs, 1).0, of(&costs, 3).0), (12, 5 * 4 + 4 * 2));
    assert!(engine.cost_of(at(5), TenantId(77)).is_empty());
}

/// Whatever happens, the lines add up to what an observer of the holdings would have counted; and there are not too many.
#[test]
fn nothing_is_lost() {
    let most = core::cell::Cell::new(0);
    seeds(60, |seed| {
        let mut engine = Engine::new(config(Skip::Proven));
        let (mut counted, mut last) = (0_u128, None);
        for (now, op) in Author::new(seed).history(150) {
            let held = |engine: &Engine| -> u32 {
                let groups = engine.groups().collect::<Vec<_>>();
                let all = groups.iter().flat_map(|group| engine.holdings(*group));
                all.map(|held| held.starting + held.ready + held.leaving).sum()
            };
            counted += u128::from(held(&engine)) * u128::from(last.map_or(0, |last| now.millis_since(last)));
            last = Some(now);
            apply(&mut engine, now, &op);
            while engine.poll_effect().is_some() {}
            let costs = engine.costs(now);
            assert_eq!(costs.iter().map(|line| line.instance_ms).sum::<u128>(), counted, "{op:?}");
            // Pools times (groups and those forgotten).
            assert!(costs.len() <= 4 * 5, "{costs:?}");
        }
        most.set(most.get().max(counted));
    });
    assert!(most.get() > u128::from(HOUR_MS) * 10, "{}", most.get());
}
