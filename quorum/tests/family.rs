//! A fork family moves to another shard as one: a store and nodes in memory, for several repositories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use tenon_quorum::*;

const ROOT: RepoId = RepoId(1);
const FORK: RepoId = RepoId(2);
const FORK_OF_FORK: RepoId = RepoId(3);

struct Host {
    routers: [Router; 2],
    now: Timestamp,
    rows: BTreeMap<RepoId, Row>,
    gates: BTreeMap<(NodeId, RepoId), FenceGate>,
    lives: BTreeMap<NodeId, Incarnation>,
    /// Copies to this node of this repository come to nothing.
    broken: Option<(NodeId, RepoId)>,
    /// Swaps of this row wait.
    held: Option<RepoId>,
    waiting: Vec<(usize, Effect)>,
    changed: Vec<(RepoId, Result<(), Reason>)>,
}

impl Host {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_000);
        let router = Router::new(Config::builder().build().unwrap());
        let mut host = Self {
            routers: [router.clone(), router],
            now,
            rows: BTreeMap::new(),
            gates: BTreeMap::new(),
            lives: BTreeMap::new(),
            broken: None,
            held: None,
            waiting: Vec::new(),
            changed: Vec::new(),
        };
        for node in (1..=6).map(NodeId) {
            host.new_disk(node);
        }
        host.create(ROOT, None);
        host.create(FORK, Some(ROOT));
        host.create(FORK_OF_FORK, Some(FORK));
        assert!(host.changed.drain(..).all(|(_, result)| result == Ok(())));
        host
    }

    /// A node comes up with an empty disk.
    fn new_disk(&mut self, node: NodeId) {
        let life = self.lives.entry(node).or_insert(Incarnation(0));
        life.0 += 1;
        self.gates.retain(|(of, _), _| *of != node);
        for router in &mut self.routers {
            router.handle_node(self.now, node, NodeState::up(*life));
        }
    }

    fn create(&mut self, repo: RepoId, parent: Option<RepoId>) {
        let mut request = CreateRequest::new(repo, ShardId(1), members(1), Digest([0; 16]));
        request.parent = parent;
        self.routers[0].create(self.now, &request).unwrap();
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((router, effect)) = self.next_effect() {
            let is_held = matches!(&effect, Effect::SwapRow { next, .. } if self.held == Some(next.repo));
            if is_held {
                self.waiting.push((router, effect));
            } else {
                self.carry_out(router, effect);
            }
        }
    }

    fn next_effect(&mut self) -> Option<(usize, Effect)> {
        self.routers.iter_mut().enumerate().find_map(|(i, router)| Some((i, router.poll_effect()?)))
    }

    fn release(&mut self) {
        self.held = None;
        for (router, effect) in std::mem::take(&mut self.waiting) {
            self.carry_out(router, effect);
        }
        self.settle();
    }

    fn gate(&mut self, node: NodeId, repo: RepoId) -> &mut FenceGate {
        self.gates.entry((node, repo)).or_insert(FenceGate::new(repo, node, self.lives[&node]))
    }

    fn carry_out(&mut self, router: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::SwapRow { ticket, expect, next, .. } => {
                let found = self.rows.get(&next.repo).cloned();
                let result = if found == expect {
                    self.rows.insert(next.repo, next);
                    self.check();
                    SwapResult::Moved
                } else {
                    SwapResult::Conflict(found)
                };
                self.routers[router].handle_swap(now, ticket, &result);
            }
            Effect::FetchRow { ask, repo } => {
                let row = self.rows.get(&repo);
                self.routers[router].handle_row(now, ask, repo, row);
            }
            Effect::FetchFamily { ask, family } => {
                let all: Vec<RepoId> = self.rows.values().filter(|row| row.family == family).map(|r| r.repo).collect();
                self.routers[router].handle_family(now, ask, family, &all);
            }
            Effect::RaiseGate { node, incarnation, row } if self.lives[&node] == incarnation => {
                let gate = self.gate(node, row.repo);
                *gate = gate.raise(&row).unwrap_or(gate.clone());
                let report = gate.report();
                self.routers[router].handle_report(now, &report);
            }
            Effect::Probe { node, repo } => {
                let report = self.gate(node, repo).report();
                self.routers[router].handle_report(now, &report);
            }
            Effect::Initialise { task, target, incarnation, row }
            | Effect::Sync { task, target, incarnation, row, .. } => {
                let whole = self.broken != Some((target, row.repo)) && self.lives[&target] == incarnation;
                let gate = self.gate(target, row.repo);
                let installed = gate.raise(&row).and_then(|gate| gate.install(&row.proof()));
                let result = match installed.ok().filter(|_| whole) {
                    Some(installed) => {
                        *gate = installed;
                        SyncResult::Done(gate.report())
                    }
                    None => SyncResult::Failed,
                };
                self.routers[router].handle_synced(now, task, &result);
            }
            Effect::Changed { repo, result, .. } => self.changed.push((repo, result)),
            Effect::RaiseGate { .. } => {}
            Effect::FetchFeed { .. } | Effect::Grant(_) | Effect::Promise { .. } | Effect::Answer { .. } => {
                panic!("nobody writes here: {effect:?}")
            }
        }
    }

    /// Wherever one of the family is, all of it is.
    fn check(&self) {
        // A fork whose making was not answered yet is nobody's.
        let made = |row: &Row| row.repo <= FORK_OF_FORK || self.changed.contains(&(row.repo, Ok(())));
        let alive = |row: &&Row| row.state != RowState::Deleted && made(row);
        let holders = |row: &Row| -> BTreeSet<NodeId> { row.voters().map(|voter| voter.node).collect() };
        let anywhere = |row: &Row| -> BTreeSet<NodeId> { row.members.iter().map(|member| member.node).collect() };
        for row in self.rows.values().filter(alive).filter(|row| row.family == ROOT) {
            for other in self.rows.values().filter(alive).filter(|row| row.family == ROOT) {
                assert!(
                    holders(row).is_subset(&anywhere(other)) || holders(other).is_subset(&anywhere(row)),
                    "{} is split from {}",
                    row.repo,
                    other.repo
                );
            }
        }
    }

    fn tick(&mut self, ms: u64) {
        self.now = self.now.after_millis(ms);
        for router in &mut self.routers {
            router.handle_timeout(self.now);
        }
        self.settle();
    }

    fn migrate(&mut self, router: usize) {
        self.routers[router].migrate(self.now, &self.away()).unwrap();
        self.settle();
    }

    fn turn_back(&mut self, router: usize) {
        self.routers[router].abort_migration(self.now, &self.away()).unwrap();
        self.settle();
    }

    fn wait(&mut self) {
        for _ in 0..10 {
            self.tick(1_000);
        }
    }

    /// To the second shard, as its nodes live now.
    fn away(&self) -> MigrateRequest {
        let comers: Members =
            members(2).iter().map(|member| Member { incarnation: self.lives[&member.node], ..*member }).collect();
        MigrateRequest::new(ROOT, ShardId(2), comers)
    }

    fn shards(&self) -> Vec<(u32, RowState)> {
        self.rows.values().map(|row| (row.shard.0, row.state)).collect()
    }
}

fn members(shard: u32) -> Members {
    (3 * shard - 2..=3 * shard).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect()
}

#[test]
fn a_family_moves_as_one() {
    let mut host = Host::new();
    host.migrate(0);
    host.wait();
    assert_eq!(host.shards(), [(2, RowState::Live); 3]);
    let last = host.changed.last().unwrap();
    assert_eq!((host.changed.len(), last), (3, &(ROOT, Ok(()))), "the root's change ends last");
    assert!(host.rows.values().all(|row| row.members.iter().all(|member| member.node.0 > 3)));
}

#[test]
fn nobody_swaps_before_all_are_held_and_all_return() {
    let mut host = Host::new();
    host.broken = Some((NodeId(5), FORK_OF_FORK));
    host.migrate(0);
    host.wait();
    assert_eq!(host.shards(), [(1, RowState::Moving { to: ShardId(2), round: Revision(2) }); 3]);
    host.turn_back(0);
    host.wait();
    assert_eq!(host.shards(), [(1, RowState::Live); 3]);
    assert!(host.rows.values().all(|row| row.members.len() == 3));
    assert_eq!(host.changed.last(), Some(&(ROOT, Ok(()))));
}

/// A router that takes a migration back is late: the root has set out again when it sends a fork home.
#[test]
fn what_was_marked_for_an_earlier_journey_is_marked_anew() {
    let mut host = Host::new();
    host.broken = Some((NodeId(5), FORK_OF_FORK));
    host.migrate(0);
    host.held = Some(FORK);
    host.turn_back(0);
    host.wait();
    assert_eq!(host.shards()[..2], [(1, RowState::Live), (1, RowState::Moving { to: ShardId(2), round: Revision(2) })]);
    host.broken = None;
    host.migrate(1);
    host.wait();
    // Whoever turns back and whoever sets out do so until one of them ends; `check` sees that nobody is split off.
    host.release();
    host.wait();
    host.migrate(0);
    host.wait();
    assert_eq!(host.shards(), [(2, RowState::Live); 3]);
}

/// Past the root's swap a fork can only go on: a newcomer that lost what it had learned learns it anew.
#[test]
fn a_newcomer_may_lose_its_disk_on_the_way() {
    let mut host = Host::new();
    host.broken = Some((NodeId(5), FORK_OF_FORK));
    host.migrate(0);
    host.broken = None;
    host.held = Some(FORK);
    host.wait();
    // Its swap never gets to the store.
    host.waiting.clear();
    host.held = None;
    assert_eq!(host.shards()[..2], [(2, RowState::Live), (1, RowState::Moving { to: ShardId(2), round: Revision(2) })]);
    host.new_disk(NodeId(5));
    host.migrate(1);
    host.wait();
    assert_eq!(host.shards(), [(2, RowState::Live); 3]);
    assert_eq!(host.rows[&FORK].member(NodeId(5)).map(|member| member.incarnation), Some(Incarnation(2)));
}

#[test]
fn a_fork_that_is_made_while_its_family_is_marked_is_unmade() {
    let mut host = Host::new();
    // The root is marked after the fork's row was decided on, and listed before that row is there.
    host.held = Some(RepoId(4));
    host.create(RepoId(4), Some(ROOT));
    host.migrate(0);
    host.release();
    host.wait();
    let split = Reason::FamilySplit { parent: ROOT };
    assert!(host.changed.contains(&(RepoId(4), Err(split))), "{:?}", host.changed);
    assert_eq!(host.rows[&RepoId(4)].state, RowState::Deleted);
    assert_eq!(host.shards()[..3], [(2, RowState::Live); 3]);
}

#[test]
fn a_fork_lives_on_the_nodes_of_its_family() {
    let mut host = Host::new();
    for (shard, nodes) in [(1, 2), (2, 2), (2, 1)] {
        let fork = CreateRequest::new(RepoId(4), ShardId(shard), members(nodes), Digest([0; 16])).fork_of(ROOT);
        let split = Reason::FamilySplit { parent: ROOT };
        assert_eq!(host.routers[0].create(host.now, &fork), Err(split.into()), "shard {shard}, nodes of {nodes}");
    }
}
