//! A fork family moves to another shard as one: a store and nodes in memory, for several repositories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use tenon_quorum::*;

const ROOT: RepoId = RepoId(1);
const FORK: RepoId = RepoId(2);
const FORK_OF_FORK: RepoId = RepoId(3);

struct Host {
    router: Router,
    now: Timestamp,
    rows: BTreeMap<RepoId, Row>,
    gates: BTreeMap<(NodeId, RepoId), FenceGate>,
    /// Copies to this node of this repository come to nothing.
    broken: Option<(NodeId, RepoId)>,
    /// Swaps of these rows wait.
    held: Option<RepoId>,
    waiting: Vec<Effect>,
    changed: Vec<(RepoId, Result<(), Reason>)>,
}

impl Host {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_000);
        let mut router = Router::new(Config::builder().build().unwrap());
        for node in (1..=6).map(NodeId) {
            router.handle_node(now, node, NodeState::up(Incarnation(1)));
        }
        let (rows, gates, waiting, changed) = (BTreeMap::new(), BTreeMap::new(), Vec::new(), Vec::new());
        let mut host = Self { router, now, rows, gates, broken: None, held: None, waiting, changed };
        host.create(ROOT, None);
        host.create(FORK, Some(ROOT));
        host.create(FORK_OF_FORK, Some(FORK));
        assert!(host.changed.drain(..).all(|(_, result)| result == Ok(())));
        host
    }

    fn create(&mut self, repo: RepoId, parent: Option<RepoId>) {
        let mut request = CreateRequest::new(repo, ShardId(1), members(1), Digest([0; 16]));
        request.parent = parent;
        self.router.create(self.now, &request).unwrap();
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(effect) = self.router.poll_effect() {
            let is_held = matches!(&effect, Effect::SwapRow { next, .. } if self.held == Some(next.repo));
            if is_held {
                self.waiting.push(effect);
            } else {
                self.carry_out(effect);
            }
        }
    }

    fn release(&mut self) {
        self.held = None;
        for effect in std::mem::take(&mut self.waiting) {
            self.carry_out(effect);
        }
        self.settle();
    }

    fn carry_out(&mut self, effect: Effect) {
        let now = self.now;
        let fresh = |node, repo| FenceGate::new(repo, node, Incarnation(1));
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
                self.router.handle_swap(now, ticket, &result);
            }
            Effect::FetchRow { ask, repo } => self.router.handle_row(now, ask, repo, self.rows.get(&repo)),
            Effect::FetchFamily { ask, family } => {
                let all: Vec<RepoId> = self.rows.values().filter(|row| row.family == family).map(|r| r.repo).collect();
                self.router.handle_family(now, ask, family, &all);
            }
            Effect::RaiseGate { node, row, .. } => {
                let gate = self.gates.entry((node, row.repo)).or_insert(fresh(node, row.repo));
                *gate = gate.raise(&row).unwrap_or(gate.clone());
                let report = gate.report();
                self.router.handle_report(now, &report);
            }
            Effect::Probe { node, repo } => {
                let report = self.gates.entry((node, repo)).or_insert(fresh(node, repo)).report();
                self.router.handle_report(now, &report);
            }
            Effect::Initialise { task, target, row, .. } | Effect::Sync { task, target, row, .. } => {
                let gate = self.gates.entry((target, row.repo)).or_insert(fresh(target, row.repo));
                let installed = gate.raise(&row).and_then(|gate| gate.install(&row.proof()));
                let whole = self.broken != Some((target, row.repo));
                let result = match installed.ok().filter(|_| whole) {
                    Some(installed) => {
                        *gate = installed;
                        SyncResult::Done(gate.report())
                    }
                    None => SyncResult::Failed,
                };
                self.router.handle_synced(now, task, &result);
            }
            Effect::Changed { repo, result, .. } => self.changed.push((repo, result)),
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
        self.router.handle_timeout(self.now);
        self.settle();
    }

    fn shards(&self) -> Vec<(u32, RowState)> {
        self.rows.values().map(|row| (row.shard.0, row.state)).collect()
    }
}

fn members(shard: u32) -> Members {
    (3 * shard - 2..=3 * shard).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect()
}

fn away() -> MigrateRequest {
    MigrateRequest::new(ROOT, ShardId(2), members(2))
}

#[test]
fn a_family_moves_as_one() {
    let mut host = Host::new();
    host.router.migrate(host.now, &away()).unwrap();
    host.settle();
    for _ in 0..10 {
        host.tick(1_000);
    }
    assert_eq!(host.shards(), [(2, RowState::Live); 3]);
    let last = host.changed.last().unwrap();
    assert_eq!((host.changed.len(), last), (3, &(ROOT, Ok(()))), "the root's change ends last");
    assert!(host.rows.values().all(|row| row.members.iter().all(|member| member.node.0 > 3)));
}

#[test]
fn nobody_swaps_before_all_are_held_and_all_return() {
    let mut host = Host::new();
    host.broken = Some((NodeId(5), FORK_OF_FORK));
    host.router.migrate(host.now, &away()).unwrap();
    host.settle();
    for _ in 0..10 {
        host.tick(1_000);
    }
    assert_eq!(host.shards(), [(1, RowState::Moving { to: ShardId(2) }); 3]);
    host.router.abort_migration(host.now, &away()).unwrap();
    host.settle();
    for _ in 0..10 {
        host.tick(1_000);
    }
    assert_eq!(host.shards(), [(1, RowState::Live); 3]);
    assert!(host.rows.values().all(|row| row.members.len() == 3));
    assert_eq!(host.changed.last(), Some(&(ROOT, Ok(()))));
}

#[test]
fn a_fork_that_is_made_while_its_family_is_marked_is_unmade() {
    let mut host = Host::new();
    // The root is marked after the fork's row was decided on, and listed before that row is there.
    host.held = Some(RepoId(4));
    host.create(RepoId(4), Some(ROOT));
    host.router.migrate(host.now, &away()).unwrap();
    host.settle();
    host.release();
    for _ in 0..10 {
        host.tick(1_000);
    }
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
        assert_eq!(host.router.create(host.now, &fork), Err(split.into()), "shard {shard}, nodes of {nodes}");
    }
}
