//! One test for each kind of fault that once lost a write, or left a repository that nobody could write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Message, REPO, World, config};
use tenon_quorum::*;

fn world(routers: usize, nodes: u32) -> World {
    World::new(config().build().unwrap(), routers, nodes)
}

/// Writes through router `router`: the answer, if one comes without time passing.
fn write(world: &mut World, router: usize, request: u64) -> Option<Outcome> {
    world.begin_write(router, request).unwrap();
    world.settle();
    world.finals.get(&RequestId(request)).copied()
}

fn replace(world: &mut World, router: usize, leaves: u32, comes: u32) {
    let comes = Member::voter(NodeId(comes), world.nodes[&NodeId(comes)].incarnation);
    let request = ReplaceRequest::new(REPO, NodeId(leaves), comes);
    world.routers[router].replace(world.now, &request).unwrap();
}

fn is_applied(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Applied(_)))
}

/// A message on its way to a node that is meant by its number.
fn is_for(message: &Message, nodes: &[u32]) -> bool {
    let node = match message {
        Message::Stage(_, node, ..)
        | Message::Do(
            _,
            Effect::RaiseGate { node, .. }
            | Effect::Probe { node, .. }
            | Effect::Cure { node, .. }
            | Effect::Promise { node, .. }
            | Effect::Sync { target: node, .. }
            | Effect::Initialise { target: node, .. },
        ) => *node,
        Message::Do(_, Effect::Grant(grant)) => grant.writer,
        Message::Do(..) | Message::Tell(..) => return false,
    };
    nodes.contains(&node.0)
}

fn raises(message: &Message) -> bool {
    matches!(message, Message::Do(_, Effect::RaiseGate { .. }))
}

fn version(world: &World) -> u64 {
    world.row.as_ref().unwrap().newest.version.0
}

/// Recovers from router 0, with time for those who are silent.
fn recover(world: &mut World) {
    world.routers[0].recover(world.now, &RecoverRequest::new(REPO)).unwrap();
    for _ in 0..6 {
        world.settle();
        world.tick(600);
    }
    world.settle();
}

/// Rule 17: a repository that is evicted and comes back forgets no gate that was not told of the last swap.
#[test]
fn eviction_forgets_no_seat_that_was_not_told() {
    let mut world = World::new(config().most_awake(0).build().unwrap(), 1, 4);
    assert!(is_applied(write(&mut world, 0, 1)));
    world.tick(40_000);
    world.settle();
    world.back_up();
    replace(&mut world, 0, 2, 4);
    // Of the swap that makes node 4 a voter, node 1 and the one that leaves never hear.
    let last = |message: &Message| {
        let Message::Do(_, Effect::RaiseGate { row, .. }) = message else { return false };
        row.revision >= Revision(3) && is_for(message, &[1, 2])
    };
    world.settle_but(last);
    for _ in 0..8 {
        world.tick(500);
        world.settle_but(last);
    }
    assert_eq!(world.row.as_ref().unwrap().revision, Revision(3));
    // It would go to rest now, if nothing kept it.
    world.begin_write(0, 2).unwrap();
    world.settle_but(|message| is_for(message, &[1, 2]));
    assert!(!world.finals.contains_key(&RequestId(2)), "a write waits for the gates of the configuration before");
    world.tick(1_000);
    world.settle();
    assert!(is_applied(world.finals.get(&RequestId(2)).copied()));
    world.restore();
    world.health(NodeId(3), Health::Down);
    let down = |message: &Message| is_for(message, &[3]);
    world.routers[0].recover(world.now, &RecoverRequest::new(REPO)).unwrap();
    for _ in 0..6 {
        world.settle_but(down);
        world.tick(600);
    }
    assert_eq!(world.read(0).unwrap().0, Version(2), "what was acknowledged is there");
}

/// Rule 10: a member is replaced while another is being rebuilt, and the repository takes writes.
#[test]
fn a_seat_is_never_empty_while_others_are_replaced() {
    let mut world = world(1, 4);
    assert!(is_applied(write(&mut world, 0, 1)));
    world.wipe(NodeId(3));
    replace(&mut world, 0, 3, 3);
    let copies = |message: &Message| {
        matches!(message, Message::Do(_, Effect::Sync { target: NodeId(3), .. } | Effect::Initialise { .. }))
    };
    world.settle_but(copies);
    replace(&mut world, 0, 1, 4);
    world.settle_but(copies);
    assert_eq!(world.changes.pop(), Some(Ok(())), "node 4 has the place of node 1");
    world.begin_write(0, 2).unwrap();
    world.settle_but(copies);
    assert!(is_applied(world.finals.get(&RequestId(2)).copied()));
    for _ in 0..8 {
        world.tick(2_000);
        world.settle();
    }
    assert_eq!(world.changes.pop(), Some(Ok(())), "and node 3 has its own again");
    let mut voters: Vec<_> = world.row.as_ref().unwrap().voters().map(|v| (v.node.0, v.incarnation.0)).collect();
    voters.sort_unstable();
    assert_eq!(voters, [(2, 1), (3, 2), (4, 1)]);
}

/// Rule 10: one machine burns down while another one's disk is lost; the lost disk is rebuilt first.
#[test]
fn a_lost_disk_is_rebuilt_beside_a_machine_that_burned_down() {
    let mut world = world(1, 4);
    assert!(is_applied(write(&mut world, 0, 1)));
    world.wipe(NodeId(3));
    replace(&mut world, 0, 3, 3);
    world.settle();
    assert_eq!(world.changes.pop(), Some(Ok(())));
    world.burn(NodeId(1));
    replace(&mut world, 0, 1, 4);
    world.settle();
    assert_eq!(world.changes.pop(), Some(Ok(())));
    assert!(is_applied(write(&mut world, 0, 2)));
}

/// Rule 10: a refusal names the seat, and the command that frees it. Law 9: a bare time-out is not the whole answer.
#[test]
fn what_is_not_settled_names_the_seat_and_the_command() {
    let mut world = world(1, 5);
    assert!(is_applied(write(&mut world, 0, 1)));
    world.burn(NodeId(1));
    replace(&mut world, 0, 3, 4);
    // Node 2 and node 3 never hear of the new configuration.
    let deaf = |message: &Message| raises(message) && is_for(message, &[2, 3]);
    world.settle_but(deaf);
    world.health(NodeId(2), Health::Down);
    world.health(NodeId(3), Health::Down);
    world.begin_write(0, 2).ok();
    for _ in 0..30 {
        world.tick(1_000);
        world.settle_but(|message| is_for(message, &[2, 3]));
    }
    let story = world.routers[0].explain(REPO).unwrap();
    let named = |o: &Obstacle| matches!((o.reason, o.remedy), (Reason::Unsettled { .. }, Remedy::BringBack { .. }));
    assert!(story.obstacles.iter().any(named), "{story:?}");
    world.health(NodeId(2), Health::Up);
    let now = world.now;
    world.routers[0].lost(now, NodeId(1), Incarnation(1));
    for _ in 0..30 {
        world.settle_but(|message| is_for(message, &[3]));
        world.tick(1_000);
    }
    world.begin_write(0, 3).unwrap();
    world.settle_but(|message| is_for(message, &[3]));
    assert!(is_applied(world.finals.get(&RequestId(3)).copied()), "{:?}", world.routers[0].explain(REPO));
}

/// Rule 9: a member whose copies are always overtaken is current after a bounded number of them.
#[test]
fn a_repository_that_is_written_often_catches_up() {
    let mut world = World::new(config().catch_up_rounds(3).build().unwrap(), 1, 3);
    world.begin_write(0, 1).unwrap();
    let deaf = |message: &Message| matches!(message, Message::Stage(_, NodeId(3), ..));
    world.settle_but(deaf);
    let is_copy = |message: &Message| matches!(message, Message::Do(_, Effect::Sync { target: NodeId(3), .. }));
    let (mut requests, mut held) = (1, false);
    let under_way = std::cell::RefCell::new(Vec::new());
    let slow = |message: &Message| {
        if is_copy(message) {
            under_way.borrow_mut().push(message.clone());
        }
        is_copy(message) || deaf(message)
    };
    for copies in 0..12 {
        // A copy takes as long as two writes, if they are granted.
        for _ in 0..2 {
            requests += 1;
            let _ = world.begin_write(0, requests);
            world.settle_but(slow);
            world.tick(600);
            world.settle_but(slow);
            held |= !world.finals.contains_key(&RequestId(requests));
        }
        let done: Vec<Message> = under_way.borrow_mut().drain(..).collect();
        for copy in done {
            world.deliver(&copy);
        }
        let is_current = world.nodes[&NodeId(3)].gate.applied() == world.row.as_ref().unwrap().newest;
        world.settle_but(slow);
        if is_current && copies > 0 {
            assert!(held, "a write was held for it");
            return;
        }
    }
    panic!("not current after twelve copies");
}

/// Rule 16: a copy of a disk that was taken in this very start of the node, and put back.
#[test]
fn a_disk_that_goes_back_in_time_is_found_out_fenced_and_cured() {
    let mut world = world(1, 3);
    assert!(is_applied(write(&mut world, 0, 1)));
    world.keep_disk(NodeId(3));
    for request in 2..=4 {
        assert!(is_applied(write(&mut world, 0, request)));
    }
    assert!(world.rewind(NodeId(3)));
    let _ = world.routers[0].inspect(world.now, Inspection::Full(None), 9);
    // It says something: it is no source, no voter, and found.
    world.settle_but(|message| matches!(message, Message::Do(_, Effect::SwapRow { .. } | Effect::Sync { .. })));
    let found: Vec<_> = world.routers[0].findings(REPO).collect();
    assert!(matches!(found[..], [(NodeId(3), Finding::Rewound { .. })]), "{found:?}");
    for _ in 0..4 {
        world.tick(1_000);
        world.settle();
    }
    assert_eq!(world.routers[0].findings(REPO).count(), 0);
    assert_eq!(world.nodes[&NodeId(3)].gate.applied().version, Version(4));
    world.health(NodeId(1), Health::Down);
    world.begin_write(0, 5).unwrap();
    world.settle_but(|message| is_for(message, &[1]));
    assert!(is_applied(world.finals.get(&RequestId(5)).copied()), "with another node down, the cured one votes");
}

/// Rule 16: a node knows by its boot that its disk is an older copy, whatever any router remembers.
#[test]
fn a_disk_from_before_the_last_start_gives_no_vote_and_no_promise() {
    let mut world = world(1, 3);
    assert!(is_applied(write(&mut world, 0, 1)));
    world.keep_disk(NodeId(3));
    world.start(NodeId(3));
    assert!(is_applied(write(&mut world, 0, 2)));
    assert!(world.rewind(NodeId(3)));
    let gate = world.nodes[&NodeId(3)].gate.clone();
    assert!(gate.report().rewound);
    assert_eq!(gate.promise(Generation(2)), Err(GateRefusal::Rewound));
    let row = world.row.clone().unwrap();
    assert!(gate.stage(&StageOrder { base: row.clone(), digest: Digest([1; 16]) }).is_err());
    let route = Route {
        node: NodeId(3),
        incarnation: Incarnation(1),
        proof: row.proof(),
        reason: Reason::AtNewest(Tally::default()),
    };
    assert_eq!(gate.admit_read(&route), Err(GateRefusal::Rewound));
    world.restart_router(0);
    world.read(0).unwrap();
    for _ in 0..4 {
        world.tick(1_000);
        world.settle();
    }
    let report = world.nodes[&NodeId(3)].gate.report();
    assert!(!report.rewound && report.applied.version == Version(2), "{report:?}");
}

/// Rule 5: two routers with long writes on one repository both make progress, and none of them loses a write.
#[test]
fn two_routers_with_long_writes_both_make_progress() {
    let mut world = World::new(config().write_ms(60_000).build().unwrap(), 2, 3);
    world.read(1).unwrap();
    let (mut open, mut requests, mut applied) = ([None::<u64>; 2], 0, [0; 2]);
    let mut slow: Vec<(Timestamp, Message)> = Vec::new();
    for _ in 0..240 {
        for router in 0..2 {
            if let Some(request) = open[router].filter(|request| world.finals.contains_key(&RequestId(*request))) {
                assert!(is_applied(world.finals.get(&RequestId(request)).copied()), "{:?}", world.answers.last());
                applied[router] += 1;
                open[router] = None;
            }
            if open[router].is_none() {
                requests += 1;
                world.begin_write(router, requests).unwrap();
                open[router] = Some(requests);
            }
        }
        // Each write takes two seconds from its grant to its votes.
        for _ in 0..200 {
            world.drain();
            let votes = |message: &mut Message| matches!(message, Message::Stage(..));
            let due = world.now.after_millis(2_000);
            slow.extend(world.net.extract_if(.., votes).map(|message| (due, message)));
            if world.net.is_empty() {
                break;
            }
            let message = world.net.remove(0);
            world.deliver(&message);
        }
        world.tick(250);
        let now = world.now;
        let (due, later) = slow.into_iter().partition(|(at, _)| *at <= now);
        slow = later;
        let due: Vec<(Timestamp, Message)> = due;
        for (_, message) in &due {
            world.deliver(message);
        }
    }
    assert!(applied[0] >= 5 && applied[1] >= 5, "{applied:?}");
}

/// Rule 14: a swap of an old router that reaches the restored store is refused there, so that what was answered stays true.
#[test]
fn a_late_swap_of_an_old_router_does_nothing_to_a_restored_store() {
    let mut world = world(1, 3);
    world.back_up();
    world.begin_write(0, 1).unwrap();
    let late = std::cell::RefCell::new(Vec::new());
    world.settle_but(|message| {
        let commit = matches!(message, Message::Do(_, Effect::SwapRow { feed: Some(_), .. }));
        if commit {
            late.borrow_mut().push(message.clone());
        }
        commit
    });
    world.restore();
    // The store is as it was: the raise that the commit expects is not there, or is once it is raised again.
    let row = world.row.clone().unwrap();
    for message in late.into_inner() {
        if let Message::Do(router, Effect::SwapRow { ticket, store, next, feed, clears_note, .. }) = message {
            let effect = Effect::SwapRow { ticket, store, expect: Some(row.clone()), next, feed, clears_note };
            world.deliver(&Message::Do(router, effect));
        }
    }
    assert_eq!(world.row, Some(row));
}

/// Rule 14: what an old router fetches from a restored store is no answer to it, and it says so.
#[test]
fn an_old_router_decides_nothing_on_a_restored_store() {
    let mut world = world(2, 3);
    assert!(is_applied(write(&mut world, 0, 1)));
    world.back_up();
    assert!(is_applied(write(&mut world, 0, 2)));
    world.read(1).unwrap();
    let mut old = world.routers[1].clone();
    world.restore();
    let began = old.begin_read();
    let read = ReadRequest::linearizable(REPO, began);
    let store = world.store();
    let reason = loop {
        match old.route_read(world.now, &read) {
            Ok(ReadStep::First(First::FetchRow(ask))) => {
                old.handle_row(world.now, ask, &store, REPO, world.row.as_ref());
            }
            Ok(step) => panic!("{step:?}"),
            Err(refusal) => break refusal.reason,
        }
    };
    assert_eq!(reason, Reason::OtherStore { router: Generation(1), store: Generation(2) });
    let refused = old.begin_write(world.now, &WriteRequest::new(REPO, RequestId(9)));
    assert_eq!(refused.map_err(|refusal| refusal.reason), Err(reason));
    assert!(old.explain(REPO).unwrap().obstacles.iter().any(|obstacle| obstacle.remedy == Remedy::Restart));
}

/// Rule 6: gates of a configuration that is not settled answer for nothing.
#[test]
fn a_write_that_was_answered_as_not_applied_does_not_come_back() {
    let mut world = world(2, 4);
    world.read(1).unwrap();
    world.back_up();
    // Router 0 writes: nodes 1 and 2 vote, and the commit is held.
    world.begin_write(0, 1).unwrap();
    let commit = std::cell::RefCell::new(Vec::new());
    world.settle_but(|message| {
        let held = matches!(message, Message::Do(_, Effect::SwapRow { feed: Some(_), .. }));
        if held {
            commit.borrow_mut().push(message.clone());
        }
        held || matches!(message, Message::Stage(_, NodeId(3), ..))
    });
    // Router 1 replaces node 1 by node 4; nobody who is not new hears of it but node 2.
    replace(&mut world, 1, 1, 4);
    let deaf = |message: &Message| raises(message) && is_for(message, &[1, 3]);
    world.settle_but(deaf);
    for _ in 0..4 {
        world.tick(500);
        world.settle_but(|message| deaf(message) || matches!(message, Message::Stage(..)));
    }
    world.net.extend(commit.into_inner());
    world.settle_but(deaf);
    let swapped = world.row.as_ref().unwrap().revision >= Revision(3);
    let answered = world.finals.get(&RequestId(1)).copied() == Some(Outcome::NotApplied);
    world.restore();
    world.health(NodeId(2), Health::Down);
    recover(&mut world);
    assert!(!answered || version(&world) == 0, "swapped: {swapped}: it came back as v{}", version(&world));
}

/// Rules 14 and 16: one true vote is enough where the others may be forgotten, and whoever is up is waited for.
#[test]
fn an_acknowledged_write_outlives_a_rewind_that_nobody_found_out_and_a_restore() {
    let mut world = world(1, 3);
    world.back_up();
    world.keep_disk(NodeId(2));
    world.begin_write(0, 1).unwrap();
    world.settle_but(|message| matches!(message, Message::Stage(_, NodeId(3), ..)));
    assert!(is_applied(world.finals.get(&RequestId(1)).copied()));
    // The copy is of this very start of the node, and the router that could know is lost with the store.
    assert!(world.rewind(NodeId(2)));
    assert!(!world.nodes[&NodeId(2)].gate.report().rewound);
    world.restore();
    world.routers[0].recover(world.now, &RecoverRequest::new(REPO)).unwrap();
    // The promise of node 1, which alone holds the write, comes late.
    world.settle_but(|message| matches!(message, Message::Do(_, Effect::Promise { node: NodeId(1), .. })));
    assert_ne!(world.row.as_ref().unwrap().fence.generation, Generation(2), "whoever is up is waited for");
    for _ in 0..6 {
        world.tick(600);
        world.settle();
    }
    assert_eq!(world.read(0).unwrap().0, Version(1));
}

/// Rule 14: a life of a disk that a restored store draws again is another one.
#[test]
fn a_disk_that_a_restored_store_numbers_is_no_voter_of_before() {
    let (before, after) = (Incarnation::drawn(Generation(1), 2), Incarnation::drawn(Generation(2), 1));
    assert!(after > before && Incarnation::drawn(Generation(1), 3) < after);
    let mut record = BootRecord::default();
    let (kept, Start::Keep { boot, .. }) = record.start(Generation(1), Boot::default()) else { panic!("it draws") };
    record = kept;
    let (_, Start::Keep { boot: next, .. }) = BootRecord::default().start(Generation(2), boot) else {
        panic!("it draws")
    };
    assert!(next > boot && record != BootRecord::default());
}

/// A copy that failed again and again is tried at once when its node comes back.
#[test]
fn a_node_that_comes_back_is_copied_to_at_once() {
    let mut world = world(1, 3);
    world.begin_write(0, 1).unwrap();
    let lost =
        |message: &Message| matches!(message, Message::Stage(_, NodeId(3), ..) | Message::Do(_, Effect::Sync { .. }));
    world.settle_but(lost);
    let _ = world.read(0);
    for _ in 0..10 {
        world.tick(4_000);
        world.settle_but(lost);
    }
    world.health(NodeId(3), Health::Down);
    world.health(NodeId(3), Health::Up);
    world.settle();
    assert_eq!(world.nodes[&NodeId(3)].gate.applied().version, Version(1));
}

/// Tokens are made of what was served, and of what a write was answered with.
#[test]
fn a_token_names_what_was_served() {
    let mut world = world(1, 3);
    assert!(is_applied(write(&mut world, 0, 1)));
    let old = world.row.clone().unwrap();
    assert!(is_applied(write(&mut world, 0, 2)));
    let gate = &world.nodes[&NodeId(1)].gate;
    let token = gate.token(&old.proof());
    assert_eq!((token.version, Token::of(&old.proof()).version), (Version(2), Version(1)));
    let now = world.now;
    world.routers[0].begin_write(now, &WriteRequest::new(REPO, RequestId(3))).unwrap();
    let mut answered = None;
    for _ in 0..200 {
        while let Some(effect) = world.routers[0].poll_effect() {
            if let Effect::Answer { token, .. } = &effect {
                answered = *token;
            }
            world.net.push(Message::Do(0, effect));
        }
        if world.net.is_empty() {
            break;
        }
        let message = world.net.remove(0);
        if !matches!(message, Message::Do(_, Effect::Answer { .. } | Effect::Changed { .. })) {
            world.deliver_quietly(&message);
        }
    }
    let newest = world.row.as_ref().unwrap();
    assert_eq!(answered, Some(Token::of(&newest.proof())));
}

/// What a node throws away is asked of its gate first: then no read of an old router finds nothing.
#[test]
fn what_was_thrown_away_is_served_to_nobody() {
    let mut world = world(1, 4);
    assert!(is_applied(write(&mut world, 0, 1)));
    let old = world.row.clone().unwrap();
    let gate = world.nodes[&NodeId(3)].gate.clone();
    assert!(matches!(gate.discard(&old), Err(GateRefusal::IsMember { .. })));
    replace(&mut world, 0, 3, 4);
    world.settle_but(|message| is_for(message, &[3]));
    // Node 3 was never told, and serves what it holds; once it throws that away, it refuses.
    let route = Route {
        node: NodeId(3),
        incarnation: Incarnation(1),
        proof: old.proof(),
        reason: Reason::AtNewest(Tally::default()),
    };
    assert_eq!(gate.admit_read(&route), Ok(Admission::Serve));
    let gone = gate.discard(world.row.as_ref().unwrap()).unwrap();
    assert!(gone.admit_read(&route).is_err() && gone.serve(&route).is_err());
}
