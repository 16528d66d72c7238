//! Random histories in which everything happens at once: members change, disks are lost and go back in time, machines
//! burn down, three routers share the store, writes outlast polls, nothing stays in memory. Every step is checked against
//! what was committed; and in the end, once faults stop, every router writes, after the commands that `explain` names.
//!
//! `QUORUM_HISTORIES` says how many of each (`.ci/run` and `.ci/deep` do), `QUORUM_SEED` replays one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, is told its seed by the environment, and prints what it did"
)]

mod common;

use common::{Dice, Fact, Message, REPO, Read, World, config};
use tenon_quorum::*;

const ROUTERS: usize = 3;
const NODES: u32 = 6;

/// What may happen besides loss, repetition, delay and changes of members.
#[derive(Clone, Copy, Debug)]
struct Faults {
    /// Disks are lost, and machines burn down.
    losses: bool,
    /// Older copies of disks are put back.
    rewinds: bool,
    /// The store comes back from a backup.
    restores: bool,
    /// How many repositories stay in memory.
    awake: u32,
}

struct History {
    world: World,
    dice: Dice,
    reads: Vec<Read>,
    /// Votes of long writes, and when they set out.
    slow: Vec<(Timestamp, Message)>,
    requests: u64,
    served: usize,
    faults: Faults,
}

impl History {
    fn new(seed: u64, faults: Faults) -> Self {
        let config = config().seed(seed).most_awake(faults.awake).catch_up_rounds(2).build().unwrap();
        let world = World::new(config, ROUTERS, NODES);
        Self { world, dice: Dice(seed), reads: Vec::new(), slow: Vec::new(), requests: 0, served: 0, faults }
    }

    fn node(&mut self) -> NodeId {
        NodeId(u32::try_from(self.dice.below(NODES as usize)).unwrap() + 1)
    }

    fn write(&mut self, router: usize) -> u64 {
        self.requests += 1;
        let _ = self.world.begin_write(router, self.requests);
        self.requests
    }

    fn step(&mut self) {
        let now = self.world.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.slow).into_iter().partition(|(at, _)| *at <= now);
        self.slow = later;
        self.world.net.extend(due.into_iter().map(|(_, message)| message));
        let router = self.dice.below(ROUTERS);
        match self.dice.below(100) {
            0..=64 if !self.world.net.is_empty() => self.deliver(),
            65..=74 => drop(self.write(router)),
            75..=79 => self.reads.push(self.world.begin_read(router)),
            80..=86 => {
                let ms = [1, 200, 600, 1_500, 3_000][self.dice.below(5)];
                self.world.tick(ms);
            }
            87..=88 => {
                let node = self.node();
                let health = [Health::Up, Health::Up, Health::Ailing, Health::Down][self.dice.below(4)];
                if !self.world.dead.contains(&node) {
                    self.world.health(node, health);
                }
            }
            89 => {
                self.world.restart_router(router);
                self.reads.retain(|read| read.router != router);
            }
            90..=92 => self.replace(router),
            93..=94 if self.faults.losses => self.lose(router),
            95 if self.faults.rewinds => {
                let node = self.node();
                self.world.keep_disk(node);
            }
            96..=97 if self.faults.rewinds => self.rewind(),
            98..=99 if self.faults.restores => self.store(router),
            _ => {}
        }
        self.step_reads();
    }

    fn deliver(&mut self) {
        let at = self.dice.below(self.world.net.len().min(12));
        let mut message = self.world.net.remove(at);
        if let Message::Tell(_, Fact::Swap(_, _, result)) = &mut message
            && self.dice.one_in(15)
        {
            *result = SwapResult::Unknown;
        }
        if self.dice.one_in(8) {
            self.world.net.push(message.clone());
        }
        if self.dice.one_in(15) {
            return;
        }
        let long = matches!(message, Message::Do(_, Effect::Grant(_))) && self.dice.one_in(3);
        self.world.deliver(&message);
        if long {
            let at = self.world.now.after_millis([800, 2_000, 4_000, 7_000][self.dice.below(4)]);
            let votes = |message: &mut Message| matches!(message, Message::Stage(..));
            self.slow.extend(self.world.net.extract_if(.., votes).map(|message| (at, message)));
        }
    }

    fn replace(&mut self, router: usize) {
        let (leaves, comes) = (self.node(), self.node());
        let comes = Member::voter(comes, self.world.nodes[&comes].incarnation);
        if !self.world.dead.contains(&comes.node) {
            let request = ReplaceRequest::new(REPO, leaves, comes);
            let _ = self.world.routers[router].replace(self.world.now, &request);
        }
    }

    /// One at a time: with two of three lost, what two of three held is lost.
    fn lose(&mut self, router: usize) {
        let node = self.node();
        if !self.world.is_whole() || self.world.dead.contains(&node) {
            return;
        }
        if self.dice.one_in(4) && self.world.dead.is_empty() {
            self.world.burn(node);
            return;
        }
        self.world.wipe(node);
        if self.dice.one_in(2) {
            let comes = Member::voter(node, self.world.nodes[&node].incarnation);
            let _ = self.world.routers[router].replace(self.world.now, &ReplaceRequest::new(REPO, node, comes));
        }
    }

    fn rewind(&mut self) {
        let node = self.node();
        if self.world.is_whole() && !self.world.dead.contains(&node) && self.world.rewind(node) {
            self.world.wiped = true;
        }
    }

    fn store(&mut self, router: usize) {
        match self.dice.below(8) {
            0 => {
                self.world.restore();
                self.reads.clear();
            }
            1 | 2 => self.world.back_up(),
            _ => drop(self.world.routers[router].recover(self.world.now, &RecoverRequest::new(REPO))),
        }
    }

    fn step_reads(&mut self) {
        for read in std::mem::take(&mut self.reads) {
            match self.world.step_read(&read) {
                Some(Ok(_)) => self.served += 1,
                Some(Err(_)) => {}
                None => self.reads.push(read),
            }
        }
    }

    /// Faults stop: every message arrives, every node is up that is not ashes, and an operator does what `explain` says.
    fn heal(&mut self) {
        self.reads.clear();
        self.world.net.extend(std::mem::take(&mut self.slow).into_iter().map(|(_, message)| message));
        let nodes: Vec<NodeId> = self.world.nodes.keys().copied().collect();
        for node in nodes.into_iter().filter(|node| !self.world.dead.contains(node)).collect::<Vec<_>>() {
            self.world.health(node, Health::Up);
        }
        for round in 0..60 {
            self.world.settle();
            self.world.tick(1_500);
            self.world.settle();
            if round % 4 == 3 {
                self.operate();
            }
        }
    }

    fn operate(&mut self) {
        // A look brings the row in, and asks the nodes.
        let _ = self.world.read(0);
        let round = self.world.routers[0].inspect(self.world.now, Inspection::Full(None), 1);
        assert_eq!(round.looked_at, 1);
        self.world.settle();
        let Some(story) = self.world.routers[0].explain(REPO) else { return };
        for Obstacle { remedy, .. } in story.obstacles {
            let now = self.world.now;
            match remedy {
                Remedy::BringBack { node, incarnation } => {
                    let gone = self.world.dead.contains(&node) || self.world.nodes[&node].incarnation > incarnation;
                    if gone {
                        self.world.routers.iter_mut().for_each(|router| router.lost(now, node, incarnation));
                    }
                }
                Remedy::Replace { leaves, comes } => {
                    let row = self.world.row.as_ref().unwrap();
                    let spare = |node: &&NodeId| row.member(**node).is_none() && !self.world.dead.contains(*node);
                    let comes = match comes {
                        Some(life) => Some(Member::voter(leaves, life)),
                        None => self
                            .world
                            .nodes
                            .keys()
                            .find(spare)
                            .map(|node| Member::voter(*node, self.world.nodes[node].incarnation)),
                    };
                    if let Some(comes) = comes {
                        let request = ReplaceRequest::new(REPO, leaves, comes);
                        let _ = self.world.routers[0].replace(now, &request);
                    }
                }
                Remedy::AcceptLoss { survivor } => panic!(
                    "{survivor} is to be the sole survivor: {story:?}",
                    story = self.world.routers[0].explain(REPO)
                ),
                Remedy::Recover => {
                    let holders: Vec<Member> =
                        self.world.nodes.iter().map(|(node, state)| Member::voter(*node, state.incarnation)).collect();
                    let request = RecoverRequest::new(REPO).held_by(holders.into_iter().take(8));
                    let _ = self.world.routers[0].recover(now, &request);
                }
                Remedy::Wait => {}
                Remedy::Migrate { .. } | Remedy::Create | Remedy::Restart => panic!("not in this history: {remedy:?}"),
                _ => panic!("not known to this history: {remedy:?}"),
            }
            self.world.settle();
        }
    }

    /// Every router writes, and reads what it wrote.
    fn is_live(&mut self) {
        for router in 0..ROUTERS {
            let request = self.write(router);
            for _ in 0..12 {
                self.world.settle();
                if self.world.finals.contains_key(&RequestId(request)) {
                    break;
                }
                self.world.tick(1_000);
            }
            let outcome = self.world.finals.get(&RequestId(request)).copied();
            let last = self.world.answers.last();
            let explained = self.world.routers[router].explain(REPO);
            assert!(
                matches!(outcome, Some(Outcome::Applied(_))),
                "router {router} cannot write: {outcome:?}, {last:?}\n{:?}\n{explained:#?}",
                self.world.row
            );
            assert_eq!(Ok(self.world.row.as_ref().unwrap().newest.version), self.world.read(router).map(|read| read.0));
        }
    }
}

fn sweep(name: &str, seeds: u64, faults: Faults) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (only, seeds) = (number("QUORUM_SEED"), number("QUORUM_HISTORIES").unwrap_or(seeds));
    let (mut commits, mut served) = (0, 0);
    for seed in only.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        let run = std::panic::catch_unwind(|| {
            let mut history = History::new(seed, faults);
            for _ in 0..500 {
                history.step();
            }
            history.heal();
            history.is_live();
            (history.world.history.len(), history.served)
        });
        let Ok((c, s)) = run else {
            panic!("seed {seed}; replay: QUORUM_SEED={seed} cargo test -p tenon-quorum --test histories {name}");
        };
        (commits, served) = (commits + c, served + s);
    }
    println!("{name}: {commits} commits, {served} reads served");
    assert!(only.is_some() || (commits as u64 > seeds && served > 10), "too little happens: {commits}, {served}");
}

#[test]
fn members_change() {
    sweep("members_change", 150, Faults { losses: false, rewinds: false, restores: false, awake: 0 });
}

#[test]
fn members_change_and_disks_are_lost() {
    sweep("members_change_and_disks_are_lost", 150, Faults { losses: true, rewinds: false, restores: false, awake: 0 });
}

#[test]
fn disks_go_back_in_time() {
    sweep("disks_go_back_in_time", 150, Faults { losses: false, rewinds: true, restores: false, awake: 0 });
}

#[test]
fn all_at_once() {
    sweep("all_at_once", 150, Faults { losses: true, rewinds: true, restores: false, awake: 0 });
}

#[test]
fn all_at_once_in_memory() {
    sweep("all_at_once_in_memory", 80, Faults { losses: true, rewinds: true, restores: false, awake: 64 });
}

#[test]
fn restored_stores_and_lost_disks() {
    sweep("restored_stores_and_lost_disks", 120, Faults { losses: true, rewinds: false, restores: true, awake: 0 });
}
