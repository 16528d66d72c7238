//! The loop of reads: every read ends, in a node's answer, a refusal or at its time, whatever is lost on the way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Dice, REPO, World, config};
use std::collections::BTreeMap;
use tenon_quorum::*;

/// Carries out what the queue says, losing one thing in `loses`; answers the waiters.
fn carry_out(
    world: &mut World,
    reads: &mut ReadQueue<(u64, Version)>,
    ended: &mut BTreeMap<u64, Result<Version, Refusal>>,
    dice: &mut Dice,
    loses: usize,
) {
    while let Some(event) = reads.poll() {
        match event {
            ReadEvent::Refused(refusal, (waiter, _)) => {
                assert_eq!(ended.insert(waiter, Err(refusal)), None, "answered once");
            }
            _ if dice.one_in(loses) => {}
            ReadEvent::FetchRow(ask, repo) => {
                let row = world.row.clone();
                let store = world.store();
                world.routers[0].handle_row(world.now, ask, &store, repo, row.as_ref());
                reads.wake(&mut world.routers[0], world.now, repo);
            }
            ReadEvent::Serve(route, read) => {
                let node = world.nodes.get_mut(&route.node).unwrap();
                if let Some(stamp) = node.serve(&route) {
                    let (waiter, floor) = read.waiter;
                    assert!(stamp.version >= floor, "a stale read");
                    assert_eq!(ended.insert(waiter, Ok(stamp.version)), None, "answered once");
                } else {
                    let report = node.gate.report();
                    world.routers[0].handle_report(world.now, None, &report);
                    reads.again(&mut world.routers[0], world.now, read);
                }
            }
        }
    }
}

#[test]
fn every_read_ends_and_none_is_stale() {
    let mut served = 0;
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut world = World::new(config().seed(seed).build().unwrap(), 2, 3);
        let (mut reads, mut ended) = (ReadQueue::new(64, 10_000), BTreeMap::new());
        let mut lost = 0;
        for step in 0..80 {
            match dice.below(4) {
                0 => {
                    let began = world.routers[0].begin_read();
                    let floor = world.history.iter().map(FeedEntry::version).max().unwrap_or_default();
                    let request = ReadRequest::linearizable(REPO, began);
                    reads.begin(&mut world.routers[0], world.now, request, (step, floor)).unwrap();
                    lost += 1;
                }
                1 => drop(world.begin_write(dice.below(2), step)),
                2 if !world.net.is_empty() => {
                    let message = world.net.remove(dice.below(world.net.len()));
                    world.deliver(&message);
                    reads.wake(&mut world.routers[0], world.now, REPO);
                }
                _ => {
                    world.tick(300);
                    reads.handle_timeout(&mut world.routers[0], world.now);
                }
            }
            carry_out(&mut world, &mut reads, &mut ended, &mut dice, 9);
        }
        for _ in 0..30 {
            world.settle();
            world.tick(500);
            reads.handle_timeout(&mut world.routers[0], world.now);
            carry_out(&mut world, &mut reads, &mut ended, &mut dice, usize::MAX);
        }
        assert!(reads.is_empty() && reads.next_deadline().is_none(), "seed {seed}: {reads:?}");
        served += ended.values().filter(|result| result.is_ok()).count();
        // A read whose order to the node was lost is the host's to answer; all others ended.
        assert!(ended.len() <= lost, "seed {seed}");
    }
    assert!(served > 1_000, "{served}");
}

#[test]
fn a_read_gives_up_at_its_time_and_a_full_queue_takes_none() {
    let mut world = World::new(config().build().unwrap(), 1, 3);
    let mut reads = ReadQueue::new(1, 2_000);
    let request = ReadRequest::linearizable(REPO, world.routers[0].begin_read());
    reads.begin(&mut world.routers[0], world.now, request, "one").unwrap();
    assert_eq!(reads.begin(&mut world.routers[0], world.now, request, "two"), Err("two"));
    // Nothing is ever fetched.
    let mut last = None;
    for _ in 0..10 {
        let Some(due) = reads.next_deadline() else { break };
        reads.handle_timeout(&mut world.routers[0], due);
        while let Some(event) = reads.poll() {
            last = Some((due, event));
        }
    }
    let (due, event) = last.unwrap();
    assert_eq!(due, world.now.after_millis(2_000));
    let ReadEvent::Refused(refusal, "one") = event else { panic!("{event:?}") };
    assert_eq!(refusal.reason, Reason::Deadline { waits_for: WaitsFor::Row });
}
