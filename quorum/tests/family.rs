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
    /// Chance of losing an effect, or the answer to one, as long as it is set.
    losses: Option<u64>,
    /// Swaps of this row wait.
    held: Option<RepoId>,
    waiting: Vec<(usize, Effect)>,
    changed: Vec<(RepoId, Result<(), Reason>)>,
    /// The same: of which router, and which change.
    ended: Vec<(usize, ChangeId, Result<(), Reason>)>,
}

impl Host {
    fn new() -> Self {
        Self::with(Config::builder())
    }

    fn with(config: ConfigBuilder) -> Self {
        let now = Timestamp::from_millis(1_000);
        let router = Router::new(config.build().unwrap());
        let mut host = Self {
            routers: [router.clone(), router],
            now,
            rows: BTreeMap::new(),
            gates: BTreeMap::new(),
            lives: BTreeMap::new(),
            broken: None,
            losses: None,
            held: None,
            waiting: Vec::new(),
            changed: Vec::new(),
            ended: Vec::new(),
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
        self.settle_for(usize::MAX);
    }

    /// Carries out so many effects at most.
    fn settle_for(&mut self, most: usize) {
        for _ in 0..most {
            let Some((router, effect)) = self.next_effect() else { return };
            if self.loses(&effect) {
                continue;
            }
            let is_held = matches!(&effect, Effect::SwapRow { next, .. } if self.held == Some(next.repo));
            if is_held {
                self.waiting.push((router, effect));
            } else {
                self.carry_out(router, effect);
            }
        }
    }

    /// Whether the effect, or what came of it, is lost.
    fn loses(&mut self, effect: &Effect) -> bool {
        let Some(dice) = &mut self.losses else { return false };
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (*dice >> 33) % 4 > 0 || matches!(effect, Effect::Changed { .. }) {
            return false;
        }
        if let Effect::SwapRow { expect, next, .. } = effect
            && (*dice >> 40).is_multiple_of(2)
            && self.rows.get(&next.repo) == expect.as_ref()
        {
            self.rows.insert(next.repo, next.clone());
            self.check();
        }
        true
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
        let (now, store) = (self.now, StoreMeta::new(Generation(1)));
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
                self.routers[router].handle_swap(now, ticket, &store, &result);
            }
            Effect::FetchRow { ask, repo } => {
                let row = self.rows.get(&repo);
                self.routers[router].handle_row(now, ask, &store, repo, row);
            }
            Effect::FetchFamily { ask, family } => {
                let all: Vec<RepoId> = self.rows.values().filter(|row| row.family == family).map(|r| r.repo).collect();
                self.routers[router].handle_family(now, ask, &store, family, &all);
            }
            Effect::RaiseGate { ask, node, incarnation, row } if self.lives[&node] == incarnation => {
                let gate = self.gate(node, row.repo);
                *gate = gate.raise(&row).unwrap_or(gate.clone());
                let report = gate.report();
                self.routers[router].handle_report(now, Some(ask), &report);
            }
            Effect::Probe { ask, node, repo } => {
                let report = self.gate(node, repo).report();
                self.routers[router].handle_report(now, Some(ask), &report);
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
            Effect::Changed { change, repo, result } => {
                self.changed.push((repo, result));
                self.ended.push((router, change, result));
            }
            Effect::RaiseGate { .. } | Effect::Cure { .. } | Effect::LeaveNote { .. } => {}
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

/// Whoever takes a family back hears how that ended as soon as it is back, whatever had happened by then.
#[test]
fn an_abort_that_succeeded_says_so_at_any_step() {
    let mut backs = 0;
    let worlds = [(None, 9, 0), (Some((NodeId(5), FORK_OF_FORK)), 1, 0), (Some((NodeId(4), ROOT)), 9, 5), (None, 1, 6)];
    for (broken, awake, down) in worlds {
        for (steps, router) in (0..80).flat_map(|steps| [(steps, 0), (steps, 1)]) {
            let mut host = Host::with(Config::builder().most_awake(awake));
            host.broken = broken;
            host.routers[0].migrate(host.now, &host.away()).unwrap();
            host.settle_for(steps);
            let back = host.routers[router].abort_migration(host.now, &host.away()).unwrap();
            host.losses = Some(steps as u64);
            if down > 0 {
                for router in &mut host.routers {
                    router.handle_node(host.now, NodeId(down), NodeState::up(Incarnation(1)).health(Health::Down));
                }
            }
            host.settle();
            host.wait();
            host.losses = None;
            for _ in 0..6 {
                host.wait();
            }
            let ended = host.ended.iter().find(|(of, change, _)| (*of, *change) == (router, back));
            let under_way: Vec<ChangeView> = host.routers.iter().flat_map(Router::changes).collect();
            let (_, _, result) =
                ended.unwrap_or_else(|| panic!("after {steps} steps, by router {router}: {under_way:?}"));
            let home = host.shards().iter().all(|(shard, _)| *shard == 1);
            // A router that sets out after the family was found at home moves it all the same.
            if router == 0 || result.is_err() {
                let wanted = if home { Ok(()) } else { Err(Reason::Moving) };
                assert_eq!(result, &wanted, "after {steps} steps, by router {router}");
                assert_eq!(under_way, [], "after {steps} steps, by router {router}");
                assert!(host.shards().iter().all(|(_, state)| *state == RowState::Live), "after {steps} steps");
            }
            backs += usize::from(home);
        }
    }
    assert!(backs > 100, "{backs}");
}

#[test]
fn a_fork_is_not_moved_by_itself() {
    let mut host = Host::new();
    let fork = MigrateRequest::new(FORK, ShardId(2), members(2));
    let refused = Err(Reason::NotTheRoot { root: ROOT }.into());
    assert_eq!(host.routers[0].migrate(host.now, &fork), refused);
    assert_eq!(host.routers[0].abort_migration(host.now, &fork), refused);
    // A router that has not heard of it finds out before it changes anything.
    let id = host.routers[1].migrate(host.now, &fork).unwrap();
    host.settle();
    assert_eq!(host.ended.last(), Some(&(1, id, Err(Reason::NotTheRoot { root: ROOT }))));
    assert_eq!(host.shards(), [(1, RowState::Live); 3]);
}

/// A family of which one fork cannot move is not left half way, read-only, until the time ends.
#[test]
fn a_family_with_a_pinned_fork_turns_back_by_itself() {
    let mut host = Host::new();
    let fork = host.rows.get_mut(&FORK).unwrap();
    fork.state = RowState::Pinned { node: NodeId(2) };
    fork.fence.counter += 1;
    host.migrate(0);
    host.wait();
    assert!(host.changed.contains(&(ROOT, Err(Reason::Pinned { node: NodeId(2) }))), "{:?}", host.changed);
    assert_eq!(host.rows[&ROOT].state, RowState::Live);
    assert_eq!(host.rows[&FORK_OF_FORK].state, RowState::Live);
    host.turn_back(0);
    host.wait();
    assert_eq!(host.changed.last(), Some(&(ROOT, Ok(()))), "a pinned fork is at home");
}
