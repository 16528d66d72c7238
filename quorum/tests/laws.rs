//! The first eight laws of CONTRIBUTING.md, on random inputs: facts that make sense, facts that are late, repeated or invented.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Dice, Fact, Message, REPO, World, config};
use tenon_quorum::*;

/// An input, and when.
type Event = (Timestamp, Input);

/// Feeds one input; what comes back is compared as text.
fn feed(router: &mut Router, (now, input): &Event) -> String {
    format!("{:?}", router.apply(*now, input))
}

/// A router in the midst of its work: the first router of a random world, and the inputs that made it.
fn busy_world(seed: u64, steps: usize) -> (World, Dice) {
    let mut dice = Dice(seed);
    let mut world = World::new(config().seed(seed).build().unwrap(), 2, 3);
    for request in 0..steps as u64 {
        match dice.below(10) {
            0..=5 if !world.net.is_empty() => {
                let message = world.net.remove(dice.below(world.net.len()));
                if !dice.one_in(8) {
                    world.deliver(&message);
                }
            }
            6 | 7 => drop(world.begin_write(dice.below(2), request)),
            8 => world.tick([1, 600, 3_000][dice.below(3)]),
            _ => {
                let read = world.begin_read(dice.below(2));
                let _ = world.step_read(&read);
            }
        }
    }
    (world, dice)
}

/// An input out of the blue: often nonsense.
fn any_input(dice: &mut Dice, world: &World) -> Event {
    let small = |dice: &mut Dice| dice.next() % 40;
    let node = |dice: &mut Dice| NodeId(u32::try_from(dice.next() % 5).unwrap());
    let stamp = |dice: &mut Dice| Stamp {
        epoch: Epoch(u32::try_from(dice.next() % 3).unwrap()),
        version: Version(dice.next() % 5),
        digest: Digest([u8::try_from(dice.next() % 3).unwrap(); 16]),
    };
    let fence = |dice: &mut Dice| Fence { generation: Generation(1), counter: dice.next() % 20 };
    let row = world.row.clone().map(|row| Row { newest: stamp(dice), fence: fence(dice), ..row });
    let report = |dice: &mut Dice| Report {
        repo: RepoId(6 + dice.next() % 2),
        node: node(dice),
        incarnation: Incarnation(dice.next() % 3),
        boot: Boot { store: Generation(1), counter: dice.next() % 3 },
        began: dice.next() % 5,
        serial: small(dice),
        rewound: dice.one_in(30),
        applied: stamp(dice),
        staged: dice.one_in(2).then(|| Staged { fence: fence(dice), revision: Revision(1), stamp: stamp(dice) }),
        generation: Generation(u32::from(dice.one_in(9))),
        fence: fence(dice),
        base: Version(dice.next() % 5),
        revision: Revision(1),
    };
    let members = || -> Members { (1..=3).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect() };
    let store = |dice: &mut Dice| {
        let life = if dice.one_in(60) { dice.next() % 3 } else { 1 };
        let left = dice.one_in(5).then(|| RouterId(u32::try_from(dice.next() % 3).unwrap()));
        StoreMeta::new(Generation(u32::try_from(life).unwrap())).note(left)
    };
    let freshness = |dice: &mut Dice| {
        let token = Token { generation: Generation(1), epoch: Epoch(1), version: Version(dice.next() % 5) };
        let stale = Freshness::BoundedStale { age_ms: 500 };
        [Freshness::Linearizable, Freshness::AtLeast(token), stale, Freshness::Degraded][dice.below(4)]
    };
    let input = match dice.below(26) {
        0 => Input::BeginRead,
        1 | 2 => Input::RouteRead(ReadRequest::linearizable(REPO, Ask(small(dice))).freshness(freshness(dice))),
        3 | 4 => Input::BeginWrite(WriteRequest::new(REPO, RequestId(small(dice)))),
        5 => Input::AbortWrite { write: WriteId(small(dice)), claim: GiveUp::PerhapsStaged },
        6 => Input::Create(CreateRequest::new(REPO, ShardId(1), members(), Digest([0; 16]))),
        7..=10 => Input::PollEffect,
        11 | 12 => Input::Row { ask: Ask(small(dice)), store: store(dice), repo: REPO, row },
        13 => {
            let entry = FeedEntry { stamp: stamp(dice), fence: fence(dice) };
            Input::Feed { ask: Ask(small(dice)), store: store(dice), repo: REPO, entry: Some(entry) }
        }
        14 => {
            let result = [SwapResult::Moved, SwapResult::Conflict(row), SwapResult::Unknown];
            Input::Swap { ticket: Ticket(small(dice)), store: store(dice), result: result[dice.below(3)].clone() }
        }
        15 | 16 => Input::Report { ask: dice.one_in(2).then(|| Ask(small(dice))), report: report(dice) },
        17 => Input::Declined { repo: REPO, node: node(dice), fence: fence(dice) },
        18 => Input::Synced { task: TaskId(small(dice)), result: SyncResult::Failed },
        19 => Input::Node { node: node(dice), state: NodeState::up(Incarnation(dice.next() % 3)) },
        20 => Input::Delete(REPO),
        21 => Input::Replace(ReplaceRequest::new(REPO, node(dice), Member::voter(node(dice), Incarnation(1)))),
        22 => {
            let others: Members = (4..=6).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect();
            let request = MigrateRequest::new(REPO, ShardId(2), others);
            if dice.one_in(2) { Input::Migrate(request) } else { Input::AbortMigration(request) }
        }
        23 => match dice.below(6) {
            4 => Input::Cancel(ChangeId(small(dice))),
            5 => Input::RemoveLearner { repo: REPO, node: node(dice) },
            0 => Input::AcceptLoss { repo: REPO, survivor: node(dice) },
            1 => Input::Recover(RecoverRequest::new(REPO)),
            2 => Input::Promise(Box::new(FenceGate::new(REPO, node(dice), Incarnation(1)))),
            _ => Input::Family {
                ask: Ask(small(dice)),
                store: store(dice),
                family: REPO,
                members: vec![REPO, RepoId(6)],
            },
        },
        24 if dice.one_in(3) => Input::Lost { node: node(dice), incarnation: Incarnation(dice.next() % 3) },
        24 => Input::Inspect { inspection: [Inspection::Spot, Inspection::Full(None)][dice.below(2)], budget: 3 },
        _ => Input::Timeout,
    };
    (world.now.after_millis(dice.next() % 200_000), input)
}

fn inputs(seed: u64, count: usize) -> Vec<Event> {
    let (world, mut dice) = busy_world(seed, 60);
    let up = |n| (world.now, Input::Node { node: NodeId(n), state: NodeState::up(Incarnation(1)) });
    let mut all: Vec<Event> = (1..=3).map(up).collect();
    all.extend((0..count).map(|_| any_input(&mut dice, &world)));
    all
}

fn replay(router: &mut Router, inputs: &[Event]) -> Vec<String> {
    inputs.iter().map(|input| feed(router, input)).collect()
}

fn drain(router: &mut Router) -> Vec<Effect> {
    core::iter::from_fn(|| router.poll_effect()).collect()
}

#[test]
fn law_1_and_6_the_same_inputs_give_the_same_answers_and_state() {
    for seed in 0..200 {
        let inputs = inputs(seed, 300);
        let new = || Router::new(config().seed(seed).build().unwrap());
        let (mut a, mut b) = (new(), new());
        assert_eq!(replay(&mut a, &inputs), replay(&mut b, &inputs), "seed {seed}");
        assert_eq!(a.snapshot(), b.snapshot(), "seed {seed}");
        assert_eq!(a.digest(), b.digest(), "seed {seed}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn law_6_a_recording_survives_being_stored() {
    for seed in 0..20 {
        let inputs = inputs(seed, 200);
        let text = serde_json::to_string(&inputs).unwrap();
        let back: Vec<Event> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, inputs, "seed {seed}");
    }
}

#[test]
fn law_2_when_effects_are_drained_never_changes_what_is_drained() {
    for seed in 0..200 {
        let polls = |event: &Event| matches!(event.1, Input::PollEffect);
        let inputs: Vec<Event> = inputs(seed, 300).into_iter().filter(|event| !polls(event)).collect();
        let mut late = Router::new(config().build().unwrap());
        let mut early = late.clone();
        let answers = replay(&mut late, &inputs);
        let mut drained = Vec::new();
        for (input, answer) in inputs.iter().zip(&answers) {
            assert_eq!(&feed(&mut early, input), answer, "seed {seed}");
            drained.extend(drain(&mut early));
        }
        assert_eq!(drain(&mut late), drained, "seed {seed}");
    }
}

#[test]
fn law_3_a_refusal_changes_nothing() {
    let (mut refusals, mut at_rest) = (0, 0);
    for seed in 0..300 {
        let (mut world, mut dice) = busy_world(seed, 80);
        for _ in 0..if seed % 3 == 0 { 4 } else { 0 } {
            world.settle();
            world.tick(40_000);
        }
        for node in 1..=3 {
            if dice.one_in(2) {
                world.health(NodeId(node), Health::Down);
            }
        }
        let now = world.now;
        // Every third world has nothing under way, and its repository is at rest.
        let config = world.config.clone().to_builder().most_awake(u32::from(seed % 3 > 0)).build().unwrap();
        let router = &mut Router::restore(config, world.routers[0].snapshot()).unwrap();
        router.handle_timeout(now);
        at_rest += router.repositories().1;
        for request in 0..5 {
            let began = router.begin_read();
            let before = router.snapshot();
            let refused = match request {
                0 => router.route_read(now, &ReadRequest::linearizable(REPO, began)).is_err(),
                4 => {
                    let stale = Freshness::BoundedStale { age_ms: 1_000_000 };
                    router.route_read(now, &ReadRequest::linearizable(REPO, began).freshness(stale)).is_err()
                }
                1 => router.begin_write(now, &WriteRequest::new(REPO, RequestId(999))).is_err(),
                2 => router.begin_write(now, &WriteRequest::new(REPO, RequestId(9)).through(NodeId(9))).is_err(),
                _ => router.create(now, &CreateRequest::new(REPO, ShardId(1), Vec::new(), Digest([0; 16]))).is_err(),
            };
            if refused {
                refusals += 1;
                assert_eq!(router.snapshot(), before, "seed {seed}, request {request}");
            }
        }
    }
    assert!(refusals > 300 && at_rest > 30, "only {refusals} refusals, {at_rest} at rest");
}

#[test]
fn law_4_late_repeated_and_unknown_facts_change_nothing() {
    let mut told = 0;
    for seed in 0..150 {
        let mut world = World::new(config().seed(seed).build().unwrap(), 1, 3);
        let mut dice = Dice(seed);
        let mut past = Vec::new();
        for request in 0..120 {
            if world.net.is_empty() || dice.one_in(9) {
                let _ = world.begin_write(0, request);
                continue;
            }
            let message = world.net.remove(dice.below(world.net.len()));
            world.deliver(&message);
            if let Message::Tell(_, fact) = message {
                past.push(fact);
            }
        }
        let last = |report: &Report, router: &Router| {
            let newer =
                |other: &Fact| matches!(other, Fact::Report(_, o) if o.node == report.node && o.serial > report.serial);
            !past.iter().any(newer) && router.row(REPO).is_some()
        };
        for fact in &past {
            // The last word of a node, said again, is news: it still is so.
            if matches!(fact, Fact::Report(_, report) if last(report, &world.routers[0])) {
                continue;
            }
            let before = world.routers[0].snapshot();
            world.tell(0, fact);
            told += 1;
            assert_eq!(world.routers[0].snapshot(), before, "seed {seed}: {fact:?}");
        }
        // What nobody asked for says nothing either.
        let before = world.routers[0].snapshot();
        for fact in [
            Fact::Row(Ask(u64::MAX), world.store(), None),
            Fact::Feed(Ask(u64::MAX), world.store(), None),
            Fact::Swap(Ticket(u64::MAX), world.store(), SwapResult::Moved),
            Fact::Synced(TaskId(u64::MAX), SyncResult::Failed),
            Fact::Declined(NodeId(1), Fence::default()),
        ] {
            world.tell(0, &fact);
        }
        assert_eq!(world.routers[0].snapshot(), before, "seed {seed}");
        assert!(world.routers[0].counters().stale_facts > 0);
    }
    assert!(told > 500, "only {told} late facts");
}

#[test]
fn law_4_a_time_out_before_the_deadline_changes_nothing() {
    for seed in 0..200 {
        let (mut world, _) = busy_world(seed, 80);
        let router = &mut world.routers[0];
        let before = router.snapshot();
        if router.next_deadline().is_none_or(|due| due > world.now) {
            router.handle_timeout(world.now);
            assert_eq!(router.snapshot(), before, "seed {seed}");
        }
    }
}

#[test]
fn law_5_a_restored_router_is_a_twin() {
    for seed in 0..200 {
        let (world, mut dice) = busy_world(seed, 80);
        let mut router = world.routers[0].clone();
        let mut twin = Router::restore(world.config.clone(), router.snapshot()).unwrap();
        let inputs: Vec<Event> = (0..100).map(|_| any_input(&mut dice, &world)).collect();
        for input in &inputs {
            let (a, b) = (feed(&mut router, input), feed(&mut twin, input));
            assert_eq!(a, b, "seed {seed}: {input:?}");
        }
        assert_eq!(router.snapshot(), twin.snapshot(), "seed {seed}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn law_5_a_snapshot_survives_being_stored() {
    for seed in 0..50 {
        let (world, _) = busy_world(seed, 80);
        let snapshot = world.routers[0].snapshot();
        let text = serde_json::to_string(&snapshot).unwrap();
        let back: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(back, snapshot, "seed {seed}");
        assert_eq!(Router::restore(world.config.clone(), back).unwrap(), world.routers[0]);
    }
}

#[test]
fn law_7_limits_hold_and_nothing_panics() {
    for seed in 0..300 {
        let inputs = inputs(seed, 400);
        let config = config().most_writes(2).most_changes(2).most_tasks(2).most_nodes(4).most_repositories(1);
        let mut router = Router::new(config.build().unwrap());
        for input in &inputs {
            feed(&mut router, input);
            assert!(router.tasks().count() <= 2);
            let left = Router::restore(router.config().clone(), router.snapshot());
            assert!(left.is_ok(), "seed {seed}: {left:?} after {input:?}");
        }
        let polled = drain(&mut router).len();
        assert!(polled < 4_000, "seed {seed}: {polled} effects");
    }
}

#[test]
fn law_8_the_numbers_of_a_reason_recompute_the_decision() {
    let mut seen = 0;
    for seed in 0..300 {
        let (mut world, mut dice) = busy_world(seed, 80);
        for node in 1..=3 {
            let health = [Health::Up, Health::Up, Health::Ailing, Health::Down][dice.below(4)];
            world.health(NodeId(node), health);
        }
        let router = &mut world.routers[0];
        let began = router.begin_read();
        let reason = match router.route_read(world.now, &ReadRequest::linearizable(REPO, began)) {
            Ok(ReadStep::Serve(route)) => route.reason,
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                router.handle_row(world.now, ask, &StoreMeta::new(Generation(1)), REPO, world.row.as_ref());
                match router.route_read(world.now, &ReadRequest::linearizable(REPO, began)) {
                    Ok(ReadStep::Serve(route)) => route.reason,
                    Ok(ReadStep::First(_)) => continue,
                    Err(refusal) => refusal.reason,
                }
            }
            Ok(ReadStep::First(First::Wait { .. })) => continue,
            Err(refusal) => refusal.reason,
        };
        seen += 1;
        let sums = |t: &Tally| t.usable + t.ailing + t.down + t.lagging + t.suspect + t.unknown == t.voters;
        let right = if let Reason::AtNewest(tally) = &reason {
            tally.usable > 0 && sums(tally)
        } else if let Reason::HealthWidened(tally) = &reason {
            tally.usable == 0 && tally.ailing > 0 && sums(tally)
        } else if let Reason::NobodyCurrent(tally) = &reason {
            tally.able() == 0 && sums(tally)
        } else {
            false
        };
        assert!(right, "seed {seed}: {reason}");
    }
    assert!(seen > 200, "only {seen} decisions");
}
