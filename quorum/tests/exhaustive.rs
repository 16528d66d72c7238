//! Every order of events in small worlds, breadth first: two writers, two reads one after the other, three nodes (and a
//! learner), and faults. Each state is checked as in the random histories.
//!
//! A plain run looks at some thousand states of each world; `QUORUM_STATES=300000 cargo test --release -p tenon-quorum
//! --test exhaustive -- --nocapture` at as many of each, a million and more in all.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, is told its size by the environment, and prints what it did"
)]

mod common;

use common::{Message, REPO, Read, World, config};
use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tenon_quorum::*;

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Hash, Default)]
struct Budget {
    writes: [u8; 2],
    reads: u8,
    losses: u8,
    repeats: u8,
    pauses: u8,
    disks: u8,
    restarts: u8,
    swaps: u8,
    restores: u8,
}

#[derive(Clone)]
struct Scene {
    world: World,
    budget: Budget,
    read: Option<Read>,
    requests: u64,
}

#[derive(Clone, Debug)]
enum Action {
    Deliver(usize),
    Lose(usize),
    Repeat(usize),
    Write(usize),
    Read(usize),
    Pause,
    LoseDisk(NodeId),
    RestartRouter(usize),
    RestoreRouter(usize),
    Replace,
}

impl Scene {
    fn fingerprint(&self) -> u64 {
        let hash = |value: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            value(&mut hasher);
            hasher.finish()
        };
        // Which messages are under way matters, not in which order they were sent.
        let net: u64 = self.world.net.iter().fold(0, |sum, message| sum.wrapping_add(hash(&|h| message.hash(h))));
        hash(&|h| {
            let world = &self.world;
            (net, &world.routers, world.now, &world.row, &world.feed).hash(h);
            (world.nodes.iter().collect::<Vec<_>>(), world.finals.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>())
                .hash(h);
            (&self.budget, &self.read, self.requests).hash(h);
        })
    }

    fn actions(&self) -> Vec<Action> {
        let (world, budget) = (&self.world, &self.budget);
        let mut all = Vec::new();
        let mut seen: Vec<&Message> = Vec::new();
        for (i, message) in world.net.iter().enumerate() {
            if seen.contains(&message) {
                continue;
            }
            seen.push(message);
            all.push(Action::Deliver(i));
            if budget.losses > 0 {
                all.push(Action::Lose(i));
            }
            if budget.repeats > 0 {
                all.push(Action::Repeat(i));
            }
        }
        all.extend((0..world.routers.len()).filter(|r| budget.writes[*r] > 0).map(Action::Write));
        match &self.read {
            Some(read) => all.push(Action::Read(read.router)),
            None if budget.reads > 0 => all.extend((0..world.routers.len()).map(Action::Read)),
            None => {}
        }
        let due = world.routers.iter().any(|router| router.next_deadline().is_some());
        if budget.pauses > 0 && due {
            all.push(Action::Pause);
        }
        if budget.disks > 0 && world.is_whole() {
            all.extend([NodeId(1), NodeId(3)].map(Action::LoseDisk));
        }
        if budget.restarts > 0 {
            all.push(Action::RestartRouter(0));
        }
        if budget.restores > 0 {
            all.push(Action::RestoreRouter(0));
        }
        if budget.swaps > 0 {
            all.push(Action::Replace);
        }
        all
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Deliver(i) => {
                let message = self.world.net.remove(*i);
                self.world.deliver(&message);
            }
            Action::Lose(i) => {
                self.budget.losses -= 1;
                self.world.net.remove(*i);
            }
            Action::Repeat(i) => {
                self.budget.repeats -= 1;
                let message = self.world.net[*i].clone();
                self.world.deliver(&message);
            }
            Action::Write(router) => {
                self.budget.writes[*router] -= 1;
                self.requests += 1;
                let _ = self.world.begin_write(*router, self.requests);
            }
            Action::Read(router) => {
                if self.read.is_none() {
                    self.budget.reads -= 1;
                }
                let read = self.read.unwrap_or_else(|| self.world.begin_read(*router));
                self.read = if self.world.step_read(&read).is_some() { None } else { Some(read) };
            }
            Action::Pause => {
                self.budget.pauses -= 1;
                self.world.tick(6_000);
            }
            Action::LoseDisk(node) => {
                self.budget.disks -= 1;
                self.world.wipe(*node);
            }
            Action::RestartRouter(router) => {
                self.budget.restarts -= 1;
                self.world.restart_router(*router);
                self.read = self.read.filter(|read| read.router != *router);
            }
            Action::RestoreRouter(router) => {
                self.budget.restores -= 1;
                let snapshot = self.world.routers[*router].snapshot();
                self.world.routers[*router] = Router::restore(self.world.config.clone(), snapshot).unwrap();
            }
            Action::Replace => {
                self.budget.swaps -= 1;
                let comes = Member::voter(NodeId(4), self.world.nodes[&NodeId(4)].incarnation);
                let request = ReplaceRequest::new(REPO, NodeId(3), comes);
                let _ = self.world.routers[0].replace(self.world.now, &request);
                self.world.drain();
            }
        }
    }
}

/// Looks at up to `most` states, nearest first; how many, and whether that was all.
fn explore(name: &str, start: Scene, most: usize) -> (usize, bool) {
    let mut seen = BTreeSet::from([start.fingerprint()]);
    let mut parents: Vec<(usize, Action)> = vec![(0, Action::Pause)];
    let mut queue = VecDeque::from([(0_usize, start)]);
    while let Some((at, scene)) = queue.pop_front() {
        for action in scene.actions() {
            let mut next = scene.clone();
            if catch_unwind(AssertUnwindSafe(|| next.act(&action))).is_err() {
                let mut path = vec![action];
                let mut step = at;
                while step != 0 {
                    path.push(parents[step].1.clone());
                    step = parents[step].0;
                }
                path.reverse();
                panic!("{name}: after {path:?}");
            }
            if seen.insert(next.fingerprint()) {
                parents.push((at, action));
                if seen.len() >= most {
                    return (seen.len(), false);
                }
                queue.push_back((parents.len() - 1, next));
            }
        }
    }
    (seen.len(), true)
}

fn worlds() -> Vec<(&'static str, usize, Budget)> {
    let one = Budget { writes: [1, 0], reads: 1, ..Budget::default() };
    let two = Budget { writes: [1, 1], reads: 2, ..Budget::default() };
    vec![
        ("one write and one read", 1, one),
        ("two writers, two reads", 2, two),
        ("a lost message", 1, Budget { losses: 1, pauses: 1, ..one }),
        ("a repeated message", 1, Budget { repeats: 1, ..one }),
        ("a pause past the lease", 2, Budget { pauses: 1, writes: [1, 1], ..one }),
        ("a lost disk", 1, Budget { disks: 1, ..one }),
        ("a lost router", 2, Budget { restarts: 1, pauses: 1, ..one }),
        ("a restored router", 1, Budget { restores: 1, ..one }),
        ("a swap of a member", 1, Budget { swaps: 1, ..one }),
        (
            "one of each",
            2,
            Budget { losses: 1, repeats: 1, pauses: 1, disks: 1, restarts: 1, swaps: 1, restores: 1, ..two },
        ),
    ]
}

#[test]
fn every_order_of_events() {
    let most = std::env::var("QUORUM_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_500);
    let mut total = 0;
    for (name, routers, budget) in worlds() {
        let world = World::new(config().build().unwrap(), routers, if budget.swaps > 0 { 4 } else { 3 });
        let start = Scene { world, budget, read: None, requests: 0 };
        let (states, all) = explore(name, start, most);
        total += states;
        println!("{name}: {states} states{}", if all { ", all there are" } else { "" });
    }
    println!("{total} states");
    assert!(total >= most * 5);
}
