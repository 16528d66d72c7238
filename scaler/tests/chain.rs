//! Chains: order, back-pressure, stock, all or nothing, and the weakest link.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::similar_names, reason = "callers and callees")]

mod support;

use support::{Dice, seeds, stopped};
use tenon_scaler::chain::{Call, Chain, ChainError, ChainTask, ChainVerdict, HeldBack, Link};
use tenon_scaler::{
    Authority, Cause, Config, Effect, Engine, Grant, GroupId, IdcId, Milli, Policy, Pool, PoolId, PoolKind, Progress,
    Quota, Reason, Refusal, Refused, ReleaseId, ShapeId, TaskId, TenantId, Timestamp, Traffic, Verdict, VersionId,
    Watermark,
};

fn link(group: u32, per_instance: i64) -> Link {
    Link { group: GroupId(group), per_instance: Milli::from_units(per_instance), limit: None }
}

fn call(caller: u32, callee: u32, permille: u32) -> Call {
    Call { caller: GroupId(caller), callee: GroupId(callee), permille }
}

fn traffic(id: u32) -> Traffic {
    Traffic { id: GroupId(id), idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) }
}

fn engine(groups: &[u32], stock: u32) -> Engine {
    let mut engine = Engine::new(Config::builder().leap_ms(u64::MAX).build().unwrap());
    let now = Timestamp::ZERO;
    let pool = Pool {
        id: PoolId(1),
        kind: PoolKind::Resident,
        idc: IdcId(1),
        price: 1,
        watermark: Watermark::default(),
        stock: vec![(ShapeId(1), stock)],
    };
    engine.put_pool(now, pool).unwrap();
    engine.put_release(now, ReleaseId(1), VersionId(1));
    for group in groups {
        engine.put_group(now, traffic(*group), Policy { min: 2, max: 100, ..Policy::default() }).unwrap();
    }
    settle(&mut engine, now);
    engine
}

/// A tick, and all that it asks for done at once.
fn settle(engine: &mut Engine, now: Timestamp) {
    engine.handle_timeout(now);
    while let Some(effect) = engine.poll_effect() {
        match effect {
            Effect::Launch { request, count, .. } => engine.handle_launch(now, request, Progress::done(count)),
            Effect::Cancel { request, .. } => engine.handle_launch(now, request, stopped(engine, request)),
            Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
        }
    }
}

fn task(wanted: &[(u32, u32)], grant: Grant) -> ChainTask {
    ChainTask {
        id: TaskId(1),
        wanted: wanted.iter().map(|(group, count)| (GroupId(*group), *count)).collect(),
        from: Timestamp::from_millis(60_000),
        until: Timestamp::from_millis(600_000),
        grant,
    }
}

/// 1 calls 2 once and 3 half of the time; 2 calls 4 thrice.
fn shop() -> Chain {
    let links = vec![link(1, 100), link(2, 100), link(3, 50), link(4, 200)];
    Chain::new(links, vec![call(1, 2, 1000), call(1, 3, 500), call(2, 4, 3000)]).unwrap()
}

#[test]
fn who_is_called_comes_first_and_a_circle_is_named() {
    let order: Vec<u32> = shop().links().iter().map(|link| link.group.0).collect();
    assert_eq!(order, [3, 4, 2, 1]);
    let links = || vec![link(1, 1), link(2, 1), link(3, 1), link(4, 1), link(5, 1)];
    let circle = vec![call(5, 1, 1), call(1, 2, 1), call(2, 3, 1), call(3, 1, 1), call(3, 4, 1)];
    let named = Chain::new(links(), circle).unwrap_err();
    assert_eq!(named, ChainError::Cycle(vec![GroupId(1), GroupId(2), GroupId(3)]));
    assert_eq!(Chain::new(links(), vec![call(1, 1, 1)]).unwrap_err(), ChainError::Cycle(vec![GroupId(1)]));
    assert_eq!(Chain::new(links(), vec![call(1, 9, 1)]).unwrap_err(), ChainError::Unknown(GroupId(9)));
    assert_eq!(Chain::new(vec![link(1, 1), link(1, 1)], vec![]).unwrap_err(), ChainError::Twice(GroupId(1)));
    assert_eq!(Chain::new(vec![link(1, 0)], vec![]).unwrap_err(), ChainError::Carries(GroupId(1)));
}

#[test]
fn seventy_services_are_held_for_the_time_of_the_task() {
    let groups: Vec<u32> = (1..=72).collect();
    let mut engine = engine(&groups, 10_000);
    let calls = (2..=72).map(|callee| call(callee / 2, callee, 1000)).collect();
    let chain = Chain::new(groups.iter().map(|group| link(*group, 100)).collect(), calls).unwrap();
    let wanted: Vec<(u32, u32)> = groups.iter().map(|group| (*group, 20)).collect();
    let verdict = engine.start_chain(Timestamp::from_millis(1), &chain, &task(&wanted, Grant::Atomic)).unwrap();
    let ChainVerdict::Started(plan) = verdict else { panic!("{verdict:?}") };
    assert!(plan.is_whole() && plan.steps.iter().all(|step| (step.before, step.granted) == (2, 20)));
    let place = |group: u32| plan.steps.iter().position(|step| step.group == GroupId(group)).unwrap();
    assert!((2..=72).all(|callee| place(callee) < place(callee / 2)), "who is called comes first");
    let target = |engine: &Engine| engine.state(GroupId(50)).unwrap().target();
    settle(&mut engine, Timestamp::from_millis(45_000));
    assert_eq!(target(&engine), 2, "not before its time");
    settle(&mut engine, Timestamp::from_millis(60_000));
    assert_eq!(target(&engine), 20);
    let record = engine.record(GroupId(50)).unwrap();
    assert_eq!((record.decision.reason, record.verify()), (Reason::Chain, Ok(())));
    assert_eq!(record.decision.next_change, Timestamp::from_millis(600_000));
    let saved = engine.snapshot();
    assert_eq!(Engine::restore(engine.config().clone(), saved.clone()).unwrap().snapshot(), saved);
    settle(&mut engine, Timestamp::from_millis(600_000));
    assert_eq!(target(&engine), 2, "and not after it");
}

#[test]
fn a_caller_is_not_grown_past_what_its_callee_carries() {
    let mut engine = engine(&[1, 2, 3, 4], 10_000);
    // 4 carries 2,000; 2 asks three times its own load of it, and so can carry 666: six instances.
    let plan =
        engine.plan_chain(Timestamp::ZERO, &shop(), &task(&[(1, 30), (2, 40), (4, 10)], Grant::Partial)).unwrap();
    let step = |group: u32| plan.steps.iter().find(|step| step.group == GroupId(group)).unwrap();
    assert_eq!((step(4).granted, &step(4).held_back), (10, &None));
    assert_eq!(step(2).granted, 6);
    assert_eq!(step(2).held_back, Some(HeldBack::Callee { callee: GroupId(4), carries: Milli::from_units(2_000) }));
    // 3 was not asked to grow: its two instances carry the half of what two of 1 pass on.
    assert_eq!((step(1).granted, step(3).granted), (2, 2));
    assert!(matches!(step(1).held_back, Some(HeldBack::Callee { callee: GroupId(3), .. })));
    // To be whole or nothing: nothing, and nothing has changed.
    let before = engine.snapshot();
    let verdict = engine.start_chain(Timestamp::ZERO, &shop(), &task(&[(1, 30), (2, 40)], Grant::Atomic)).unwrap();
    assert!(matches!(verdict, ChainVerdict::Refused(_)));
    assert_eq!(before, engine.snapshot());
    let nobody = Chain::new(vec![link(9, 1)], vec![]).unwrap();
    assert_eq!(
        engine.plan_chain(Timestamp::ZERO, &nobody, &task(&[], Grant::Partial)),
        Err(Refused::NoGroup(GroupId(9)))
    );
}

#[test]
fn a_limit_of_the_callee_is_not_grown_past_with_instances() {
    let engine = engine(&[1, 2], 10_000);
    let database = Link { limit: Some(Milli::from_units(350)), ..link(2, 100) };
    let chain = Chain::new(vec![link(1, 100), database], vec![call(1, 2, 1000)]).unwrap();
    let plan = engine.plan_chain(Timestamp::ZERO, &chain, &task(&[(1, 30), (2, 30)], Grant::Partial)).unwrap();
    assert_eq!((plan.steps[0].granted, plan.steps[1].granted), (30, 3));
}

#[test]
fn stock_and_quota_go_to_who_is_called_first() {
    let mut engine = engine(&[1, 2, 3, 4], 20);
    let wanted = [(1, 8), (2, 8), (3, 8), (4, 24)];
    let plan = engine.plan_chain(Timestamp::ZERO, &shop(), &task(&wanted, Grant::Partial)).unwrap();
    let granted: Vec<(u32, u32)> = plan.steps.iter().map(|step| (step.group.0, step.granted)).collect();
    // Twelve are free: six to 3, six of the twenty-two to 4; nothing is left for those that call them.
    assert_eq!(granted, [(3, 8), (4, 8), (2, 2), (1, 2)]);
    let short = HeldBack::Short { causes: vec![(PoolId(1), Cause::Stock)], refusal: None };
    assert_eq!(plan.steps[1].held_back, Some(short));
    engine.put_quota(Timestamp::ZERO, Quota { tenant: TenantId(1), parent: None, limit: 9 }).unwrap();
    let plan = engine.plan_chain(Timestamp::ZERO, &shop(), &task(&wanted, Grant::Partial)).unwrap();
    assert_eq!(plan.steps[0].granted, 3);
    let Some(HeldBack::Short { refusal, .. }) = &plan.steps[0].held_back else { panic!("{plan:?}") };
    assert_eq!(*refusal, Some(Refusal::Quota(TenantId(1))));
}

/// A task of so many instances of group 1 between two hours.
fn hours(id: u32, count: u32, from: u64, until: u64) -> ChainTask {
    let hour = |hour: u64| Timestamp::from_millis(hour * 3_600_000);
    ChainTask {
        id: TaskId(id),
        wanted: vec![(GroupId(1), count)],
        from: hour(from),
        until: hour(until),
        grant: Grant::Partial,
    }
}

#[test]
fn tasks_superpose_and_none_replaces_or_pins_another() {
    let mut engine = engine(&[1], 10_000);
    let chain = Chain::new(vec![link(1, 100)], vec![]).unwrap();
    let target = |engine: &mut Engine, hour: u64| {
        settle(engine, Timestamp::from_millis(hour * 3_600_000));
        engine.state(GroupId(1)).unwrap().target()
    };
    let start = |engine: &mut Engine, hour: u64, task: &ChainTask| {
        let verdict = engine.start_chain(Timestamp::from_millis(hour * 3_600_000), &chain, task).unwrap();
        assert!(matches!(verdict, ChainVerdict::Started(_)), "{verdict:?}");
    };
    start(&mut engine, 0, &hours(1, 100, 1, 13));
    assert_eq!(target(&mut engine, 1), 100);
    // Two at noon takes nothing from the hundred that run until one; four tonight does not pin the hundred.
    start(&mut engine, 11, &hours(2, 2, 12, 20));
    start(&mut engine, 11, &hours(3, 4, 18, 22));
    assert_eq!(target(&mut engine, 12), 100);
    assert_eq!(target(&mut engine, 13), 2);
    assert_eq!(target(&mut engine, 18), 4);
    // One of the same name takes the other's place; one that is ended is gone.
    start(&mut engine, 18, &hours(3, 9, 18, 22));
    assert_eq!(target(&mut engine, 19), 9);
    assert_eq!(engine.end_chain(Timestamp::from_millis(19 * 3_600_000), TaskId(3)), 1);
    assert_eq!(target(&mut engine, 20), 2);
    let backwards = engine.start_chain(Timestamp::ZERO, &chain, &hours(4, 9, 18, 18));
    assert_eq!(backwards, Err(Refused::NoTime(TaskId(4))));
}

#[test]
fn admission_counts_the_tasks_of_chains_and_chains_what_is_admitted() {
    let mut engine = engine(&[1], 800);
    let chain = Chain::new(vec![link(1, 100)], vec![]).unwrap();
    let policy = Policy { min: 300, max: 1_000, ..Policy::default() };
    engine.put_group(Timestamp::ZERO, traffic(1), Policy { max: 1_000, ..Policy::default() }).unwrap();
    settle(&mut engine, Timestamp::from_millis(15_000));
    let verdict = engine.start_chain(Timestamp::ZERO, &chain, &hours(1, 700, 10, 12)).unwrap();
    assert!(matches!(verdict, ChainVerdict::Started(_)), "{verdict:?}");
    assert_eq!(engine.overcommitted(), []);
    let refused = engine.admit(Timestamp::ZERO, traffic(2), policy.clone(), &[], Authority::Owner).unwrap();
    let Verdict::Refused(witness) = refused else { panic!("{refused:?}") };
    assert_eq!((witness[0].first, witness[0].excess), (Timestamp::from_millis(36_000_000), 200));
    // An operator grants it all the same: then it shows.
    let _ = engine.admit(Timestamp::ZERO, traffic(2), policy.clone(), &[], Authority::Operator).unwrap();
    assert_eq!(engine.overcommitted().len(), 1);
    assert_eq!(engine.end_chain(Timestamp::ZERO, TaskId(1)), 1);
    assert_eq!(engine.overcommitted(), []);
    // And the other way round: a task gets no more than what is admitted leaves.
    let verdict = engine.start_chain(Timestamp::ZERO, &chain, &hours(2, 700, 10, 12)).unwrap();
    let ChainVerdict::Started(plan) = verdict else { panic!("{verdict:?}") };
    assert_eq!(plan.steps[0].granted, 500);
    assert!(matches!(&plan.steps[0].held_back, Some(HeldBack::Admitted(over)) if over[0].excess == 200));
    let whole = ChainTask { grant: Grant::Atomic, ..hours(3, 700, 10, 12) };
    let before = engine.snapshot();
    let verdict = engine.start_chain(Timestamp::ZERO, &chain, &whole).unwrap();
    assert!(matches!(verdict, ChainVerdict::Refused(_)));
    assert_eq!(before, engine.snapshot());
    let restored = Engine::restore(engine.config().clone(), before.clone()).unwrap();
    assert_eq!(restored.overcommitted(), engine.overcommitted());
}

#[test]
fn the_weakest_link() {
    let entries = [(GroupId(1), Milli::from_units(1_000))];
    let instances = |group: GroupId| [0, 12, 15, 20, 14][usize::try_from(group.0).unwrap()];
    let found = shop().assess(&entries, instances);
    let of = |group: u32| *found.links.iter().find(|link| link.group == GroupId(group)).unwrap();
    assert_eq!(of(4).load, Milli::from_units(3_000));
    assert_eq!((of(4).permille, of(4).wanted), (933, 15));
    assert_eq!((of(3).load, of(3).permille), (Milli::from_units(500), 2_000));
    assert_eq!((found.weakest, found.permille()), (Some(GroupId(4)), 933));
    assert_eq!(shop().assess(&[], instances).permille(), u32::MAX);
}

/// Any topology whose calls go from a smaller id to a larger one has an order, in which they all come first; and no plan
/// goes past what is carried or what there is.
#[test]
fn any_plan_is_carried_and_in_stock() {
    seeds(60, |seed| {
        let mut dice = Dice(seed);
        let groups: Vec<u32> = (1..=12).collect();
        let stock = 24 + dice.small(300);
        let engine = engine(&groups, stock);
        let links: Vec<Link> = groups.iter().map(|group| link(*group, 1 + i64::from(dice.small(200)))).collect();
        let mut calls = vec![];
        for caller in 1..12 {
            for callee in caller + 1..=12 {
                if dice.below(4) == 0 {
                    calls.push(call(caller, callee, 1 + dice.small(3_000)));
                }
            }
        }
        let chain = Chain::new(links, calls.clone()).unwrap();
        let place = |group| chain.links().iter().position(|link| link.group == group).unwrap();
        assert!(calls.iter().all(|call| place(call.callee) < place(call.caller)));
        let wanted: Vec<(u32, u32)> = groups.iter().map(|group| (*group, dice.small(120))).collect();
        let plan = engine.plan_chain(Timestamp::ZERO, &chain, &task(&wanted, Grant::Partial)).unwrap();
        assert!(plan.steps.iter().map(|step| step.granted - step.before).sum::<u32>() <= stock - 24);
        let step = |group| &plan.steps[place(group)];
        for call in &calls {
            let (caller, callee) = (step(call.caller), step(call.callee));
            assert!(caller.granted >= caller.before && caller.granted <= caller.wanted.max(caller.before));
            if caller.granted == caller.before {
                continue;
            }
            let each = |group| chain.links()[place(group)].per_instance.as_thousandths();
            let asked: i64 = calls
                .iter()
                .filter(|other| other.callee == call.callee)
                .map(|other| {
                    let granted = step(other.caller).granted;
                    i64::from(granted) * each(other.caller) * i64::from(other.permille) / 1000
                })
                .sum();
            assert!(asked <= i64::from(callee.granted) * each(call.callee), "{call:?} in {plan:?}");
        }
    });
}
