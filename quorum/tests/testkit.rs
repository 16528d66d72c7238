//! The host kit passes a good host and finds out each way in which a host can be bad.
#![cfg(feature = "testkit")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it did"
)]

use std::collections::BTreeMap;

use tenon_quorum::testkit::{Answer, Done, Host, NODES, Order, REPOS, Ran, Reply, Swap, torture};
use tenon_quorum::*;

/// How a host misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Swaps whatever is there.
    NoCompareAndSet,
    /// Takes a row with the same version for the same row.
    ComparesVersionsOnly,
    /// Moves the row in one transaction and writes the feed in another.
    FeedApart,
    /// Raises the gate in memory.
    RaiseNotKept,
    /// Votes first, persists with the next order.
    VoteBeforeDisk,
    /// Persists the vote without what it is a vote for.
    VoteWithoutContent,
    /// Applies in the gate, and shows readers the old content.
    ApplyWithoutContent,
    /// Copies whatever a node has that is not the source.
    CopiesAnything,
    /// An empty disk under the old incarnation.
    SameIncarnation,
    /// Takes orders that were meant for an earlier life of its disk.
    AnyLife,
    /// Serves reads without asking the gate.
    ReadsUnasked,
    /// Promises, and keeps the gate as it was.
    PromiseNotKept,
    /// Promises, and persists with the next order.
    PromiseBeforeDisk,
    /// Starts again with its contents, and with new gates.
    LosesFence,
    /// Backs the rows up, and not the feed.
    BacksRowsUpOnly,
    /// Backs the store up while it is written to: one row is older than the other.
    TearsBackup,
    /// Lists the root of a family, and not its forks.
    ListsRootOnly,
    /// Swaps for routers of any life of the store.
    AnyStoreLife,
    /// Comes back from a backup in the life that it was in.
    SameStoreLife,
    /// Leaves a note beside the row for ever.
    KeepsNotes,
    /// Starts from an older copy of its disk as if nothing were.
    IgnoresRewind,
    /// Throws contents away, and leaves the gate as it was.
    DiscardsWithoutGate,
}

#[derive(Clone, Debug)]
struct Disk {
    gate: FenceGate,
    staged: Vec<u8>,
    content: Vec<u8>,
}

impl Disk {
    fn blank(repo: RepoId, node: NodeId, life: u64) -> Self {
        Self { gate: FenceGate::new(repo, node, Incarnation(life)), staged: Vec::new(), content: Vec::new() }
    }
}

/// What a process knows, and what its disk does.
#[derive(Clone, Debug)]
struct Server {
    memory: Disk,
    disk: Disk,
}

/// A whole store.
#[derive(Clone, Debug, Default)]
struct Store {
    life: Generation,
    notes: BTreeMap<RepoId, RouterId>,
    boots: BTreeMap<(NodeId, Incarnation), BootRecord>,
    rows: BTreeMap<RepoId, Row>,
    feed: BTreeMap<(RepoId, Version), FeedEntry>,
}

#[derive(Debug)]
struct Memory {
    fault: Fault,
    store: Store,
    backup: Store,
    nodes: BTreeMap<(NodeId, RepoId), Server>,
    disks: BTreeMap<NodeId, tenon_quorum::Disk>,
    copies: BTreeMap<NodeId, (tenon_quorum::Disk, BTreeMap<RepoId, Disk>)>,
    lives: u64,
    cuts: usize,
}

impl Memory {
    fn new(fault: Fault) -> Self {
        let (store, backup, nodes) =
            (Store { life: Generation(1), ..Store::default() }, Store::default(), BTreeMap::new());
        let (disks, copies) = (BTreeMap::new(), BTreeMap::new());
        let mut memory = Self { fault, store, backup, nodes, disks, copies, lives: 1, cuts: 0 };
        for node in NODES {
            memory.empty_disk(node, 1);
        }
        memory
    }

    fn empty_disk(&mut self, node: NodeId, life: u64) {
        for repo in REPOS {
            let blank = Disk::blank(repo, node, life);
            self.nodes.insert((node, repo), Server { memory: blank.clone(), disk: blank });
        }
        self.disks.insert(node, tenon_quorum::Disk::default());
        self.start(node);
    }

    /// Takes what is on the disk, under a new boot.
    fn start(&mut self, node: NodeId) {
        let life = self.server(node, REPOS[0]).disk.gate.report().incarnation;
        let disk = self.disks.get_mut(&node).unwrap();
        let record = self.store.boots.entry((node, life)).or_default();
        loop {
            let (kept, step) = record.start(self.store.life, disk.boot);
            *record = kept;
            let Start::Keep { boot, rewound } = step else { break };
            *disk = disk.started(boot, rewound && self.fault != Fault::IgnoresRewind);
        }
        let disk = *disk;
        for repo in REPOS {
            let server = self.server(node, repo);
            server.memory = server.disk.clone();
            server.memory.gate = server.memory.gate.started(&disk);
        }
    }

    fn said(&self, repo: RepoId) -> StoreMeta {
        StoreMeta::new(self.store.life).note(self.store.notes.get(&repo).copied())
    }

    fn answer<T>(&self, repo: RepoId, found: T) -> Answer<T> {
        Answer { store: self.said(repo), found }
    }

    fn server(&mut self, node: NodeId, repo: RepoId) -> &mut Server {
        self.nodes.get_mut(&(node, repo)).unwrap()
    }

    fn is_expected(&self, repo: RepoId, expect: Option<&Row>) -> bool {
        let (version, row) = (|row: &Row| row.newest.version, self.store.rows.get(&repo));
        row == expect
            || self.fault == Fault::NoCompareAndSet
            || (self.fault == Fault::ComparesVersionsOnly && row.map(version) == expect.map(version))
    }

    /// Every other process that dies gets to the end of what it was at.
    fn gets_through(&mut self) -> bool {
        self.cuts += 1;
        self.cuts.is_multiple_of(2)
    }

    fn show(&mut self, node: NodeId, row: &Row) -> Result<(), GateRefusal> {
        let fault = self.fault;
        let server = self.server(node, row.repo);
        let mut next = server.memory.clone();
        next.gate = next.gate.raise(row)?;
        let raised_only = !next.gate.proves_staged(&row.proof());
        if !raised_only {
            next.gate = next.gate.apply(&row.proof())?;
            if fault != Fault::ApplyWithoutContent {
                next.content.clone_from(&next.staged);
            }
        }
        server.memory = next;
        if !(raised_only && fault == Fault::RaiseNotKept) {
            server.disk = server.memory.clone();
        }
        Ok(())
    }

    fn stage(&mut self, node: NodeId, order: &StageOrder, content: &[u8]) -> Result<(), GateRefusal> {
        self.show(node, &order.base)?;
        let fault = self.fault;
        let server = self.server(node, order.base.repo);
        server.memory.gate = server.memory.gate.stage(order)?;
        server.memory.staged = content.to_vec();
        if fault == Fault::VoteWithoutContent {
            server.disk.gate = server.memory.gate.clone();
        } else if fault != Fault::VoteBeforeDisk {
            server.disk = server.memory.clone();
        }
        Ok(())
    }

    fn install(&mut self, node: NodeId, row: &Row, content: Vec<u8>) -> Result<(), GateRefusal> {
        let server = self.server(node, row.repo);
        if let Ok(raised) = server.memory.gate.raise(row) {
            server.memory.gate = raised;
            server.disk = server.memory.clone();
        }
        let gate = server.memory.gate.install(&row.proof())?;
        if gate.applied() != server.memory.gate.applied() {
            server.memory.content = content;
        }
        server.memory.gate = gate;
        server.disk = server.memory.clone();
        Ok(())
    }

    fn read(&mut self, route: &Route) -> Result<Vec<u8>, GateRefusal> {
        let fault = self.fault;
        let server = self.server(route.node, route.proof.repo);
        if fault != Fault::ReadsUnasked && server.memory.gate.admit_read(route)? == Admission::ApplyFirst {
            server.memory.gate = server.memory.gate.apply(&route.proof)?;
            server.memory.content.clone_from(&server.memory.staged);
            server.disk = server.memory.clone();
        }
        Ok(server.memory.content.clone())
    }

    fn promise(&mut self, node: NodeId, repo: RepoId, generation: Generation) -> Result<Done, GateRefusal> {
        let fault = self.fault;
        let server = self.server(node, repo);
        let promised = server.memory.gate.promise(generation)?;
        if fault != Fault::PromiseNotKept {
            server.memory.gate = promised.clone();
        }
        if fault != Fault::PromiseBeforeDisk {
            server.disk = server.memory.clone();
        }
        Ok(Done::Promised(Box::new(promised)))
    }

    /// What a good host does: the steps that the gate names, content and gate in one transaction.
    fn obey(&mut self, node: NodeId, order: &Order) -> Result<Done, GateRefusal> {
        let repo = order.repo();
        let mut duty = self.server(node, repo).memory.gate.obey(order)?;
        let mut done = Done::Yes;
        loop {
            let source = if let Act::Copy(source) = duty.act { self.nodes.get(&(source, repo)) } else { None };
            let copied = source.map(|server| server.disk.clone());
            let server = self.server(node, repo);
            server.memory.gate = duty.gate;
            server.disk = server.memory.clone();
            match (duty.act, order) {
                (Act::Reply, Order::Promise(..)) => return Ok(Done::Promised(Box::new(server.memory.gate.clone()))),
                (Act::Reply, _) => return Ok(done),
                (Act::ShowStaged, _) => server.memory.content.clone_from(&server.memory.staged),
                (Act::KeepStaged, Order::Stage(_, content)) => server.memory.staged.clone_from(content),
                (Act::Copy(_), Order::Copy(row, _)) => match copied.filter(|disk| disk.gate.applied() == row.newest) {
                    Some(disk) => server.memory.content = disk.content,
                    None => return Ok(Done::Refused),
                },
                (Act::Empty | Act::Discard, _) => server.memory.content = Vec::new(),
                (Act::Serve, _) => done = Done::Content(server.memory.content.clone()),
                (Act::KeepStaged | Act::Copy(_), _) => unreachable!("an act of another order"),
            }
            duty = server.memory.gate.obeyed(order, duty.act)?;
        }
    }

    fn carry_out(&mut self, node: NodeId, order: &Order) -> Result<Done, GateRefusal> {
        if self.fault == Fault::None {
            return self.obey(node, order);
        }
        match order {
            Order::Probe(_) => {}
            Order::Raise(row) => self.show(node, row)?,
            Order::Stage(order, content) => self.stage(node, order, content)?,
            Order::Initialise(row) => self.install(node, row, Vec::new())?,
            Order::Copy(row, source) => {
                let other =
                    NODES.into_iter().find(|node| node != source).filter(|_| self.fault == Fault::CopiesAnything);
                let source = &self.nodes[&(other.unwrap_or(*source), row.repo)].disk;
                if source.gate.applied() != row.newest && self.fault != Fault::CopiesAnything {
                    return Ok(Done::Refused);
                }
                self.install(node, row, source.content.clone())?;
            }
            Order::Cure(row, boot, serial) => {
                let server = self.server(node, row.repo);
                server.memory.gate = server.memory.gate.raise(row)?;
                server.disk = server.memory.clone();
                server.memory.gate = server.memory.gate.cure(row, *boot, *serial)?;
                server.disk = server.memory.clone();
            }
            Order::Discard(row) => {
                let fault = self.fault;
                let server = self.server(node, row.repo);
                if fault != Fault::DiscardsWithoutGate {
                    server.memory.gate = server.memory.gate.discard(row)?;
                }
                server.memory.content = Vec::new();
                server.disk = server.memory.clone();
            }
            Order::Read(route) => return self.read(route).map(Done::Content),
            Order::Promise(repo, generation) => return self.promise(node, *repo, *generation),
        }
        Ok(Done::Yes)
    }

    fn handle(&mut self, node: NodeId, life: Incarnation, order: &Order) -> Done {
        let mine = self.server(node, order.repo()).memory.gate.report().incarnation;
        if mine != life && !matches!(order, Order::Probe(_)) && self.fault != Fault::AnyLife {
            return Done::Refused;
        }
        self.carry_out(node, order).unwrap_or(Done::Refused)
    }
}

impl Host for Memory {
    type Error = String;

    fn row(&mut self, repo: RepoId) -> Result<Answer<Option<Row>>, String> {
        Ok(self.answer(repo, self.store.rows.get(&repo).cloned()))
    }

    fn note(&mut self, repo: RepoId, router: RouterId) -> Result<(), String> {
        if self.store.rows.contains_key(&repo) {
            self.store.notes.insert(repo, router);
        }
        Ok(())
    }

    fn swap(&mut self, swap: Swap<'_>) -> Result<Answer<SwapResult>, String> {
        let repo = swap.next.repo;
        if swap.store != self.store.life && self.fault != Fault::AnyStoreLife {
            return Ok(self.answer(repo, SwapResult::OtherStore));
        }
        if !self.is_expected(repo, swap.expect) {
            return Ok(self.answer(repo, SwapResult::Conflict(self.store.rows.get(&repo).cloned())));
        }
        self.store.rows.insert(repo, swap.next.clone());
        self.store.feed.extend(swap.feed.map(|entry| ((repo, entry.version()), *entry)));
        if swap.clears_note && self.fault != Fault::KeepsNotes {
            self.store.notes.remove(&repo);
        }
        Ok(self.answer(repo, SwapResult::Moved))
    }

    fn feed(&mut self, repo: RepoId, version: Version) -> Result<Answer<Option<FeedEntry>>, String> {
        Ok(self.answer(repo, self.store.feed.get(&(repo, version)).copied()))
    }

    fn family(&mut self, family: RepoId) -> Result<Answer<Vec<RepoId>>, String> {
        let all = self.store.rows.values().filter(|row| row.family == family).map(|row| row.repo);
        let all = all.filter(|repo| *repo == family || self.fault != Fault::ListsRootOnly).collect();
        Ok(self.answer(family, all))
    }

    fn back_up(&mut self) -> Result<(), String> {
        let torn = self.backup.rows.get(&REPOS[1]).cloned().filter(|_| self.fault == Fault::TearsBackup);
        self.backup = self.store.clone();
        self.backup.rows.extend(torn.map(|row| (row.repo, row)));
        Ok(())
    }

    fn restore(&mut self, generation: Generation) -> Result<(), String> {
        if self.fault != Fault::SameStoreLife {
            self.store.life = generation;
        }
        self.store.notes.clear();
        self.store.boots.clone_from(&self.backup.boots);
        self.store.rows.clone_from(&self.backup.rows);
        if self.fault != Fault::BacksRowsUpOnly {
            self.store.feed.clone_from(&self.backup.feed);
        }
        Ok(())
    }

    fn crash_store(&mut self, cut: Option<Swap<'_>>) -> Result<(), String> {
        let Some(swap) = cut else { return Ok(()) };
        if self.fault == Fault::FeedApart {
            let _ = self.swap(Swap { feed: None, ..swap })?;
        } else if self.gets_through() {
            let _ = self.swap(swap)?;
        }
        Ok(())
    }

    fn order(&mut self, node: NodeId, life: Incarnation, order: &Order) -> Result<Reply, String> {
        let done = self.handle(node, life, order);
        let fault = self.fault;
        let server = self.server(node, order.repo());
        let report = server.memory.gate.report();
        let vote = fault == Fault::VoteBeforeDisk && !matches!(order, Order::Stage(..));
        let promise = fault == Fault::PromiseBeforeDisk && !matches!(order, Order::Promise(..));
        if vote || promise {
            server.disk = server.memory.clone();
        }
        Ok(Reply { report, done })
    }

    fn crash_node(&mut self, node: NodeId, cut: Option<(Incarnation, &Order)>) -> Result<(), String> {
        if let Some((life, order)) = cut.filter(|_| self.gets_through()) {
            let _ = self.handle(node, life, order);
        }
        let fault = self.fault;
        for repo in REPOS {
            let server = self.server(node, repo);
            if fault == Fault::LosesFence {
                server.disk.gate = FenceGate::new(repo, node, server.disk.gate.report().incarnation);
            }
        }
        self.start(node);
        Ok(())
    }

    fn keep_disk(&mut self, node: NodeId) -> Result<(), String> {
        let disks = REPOS.map(|repo| (repo, self.nodes[&(node, repo)].disk.clone()));
        self.copies.insert(node, (self.disks[&node], disks.into_iter().collect()));
        Ok(())
    }

    fn rewind_node(&mut self, node: NodeId) -> Result<(), String> {
        let (disk, copies) = self.copies.remove(&node).unwrap();
        self.disks.insert(node, disk);
        for (repo, copy) in copies {
            self.server(node, repo).disk = copy;
        }
        self.start(node);
        Ok(())
    }

    fn lose_disk(&mut self, node: NodeId) -> Result<Incarnation, String> {
        let Incarnation(old) = self.server(node, REPOS[0]).disk.gate.report().incarnation;
        self.lives += 1;
        let life = if self.fault == Fault::SameIncarnation { old } else { self.lives };
        self.empty_disk(node, life);
        Ok(Incarnation(life))
    }
}

/// The complaint about the first seed that shows the fault.
fn found(fault: Fault) -> Option<String> {
    (0..60).find_map(|seed| torture(&mut Memory::new(fault), seed, 400).err()).map(|violation| violation.to_string())
}

#[test]
fn a_good_host_passes() {
    let mut all = Ran::default();
    for seed in 0..150 {
        let ran = torture(&mut Memory::new(Fault::None), seed, 300).unwrap_or_else(|violation| panic!("{violation}"));
        all.commits += ran.commits;
        all.reads += ran.reads;
        all.refusals += ran.refusals;
        all.conflicts += ran.conflicts;
        all.mishaps += ran.mishaps;
        all.crashes += ran.crashes;
        all.disks += ran.disks;
        all.restores += ran.restores;
        all.recoveries += ran.recoveries;
        all.moves += ran.moves;
        all.rewinds += ran.rewinds;
        all.cures += ran.cures;
    }
    let Ran {
        commits,
        reads,
        refusals,
        conflicts,
        mishaps,
        crashes,
        disks,
        restores,
        recoveries,
        moves,
        rewinds,
        cures,
    } = all;
    println!("{all:?}");
    assert!(commits > 250 && reads > 500 && refusals > 100 && conflicts > 100, "{all:?}");
    assert!(rewinds > 10 && cures > 10, "{all:?}");
    assert!(mishaps > 1_000 && crashes > 1_000 && disks > 20, "{all:?}");
    assert!(restores > 50 && recoveries > 50 && moves > 25, "{all:?}");
}

#[test]
fn every_bad_host_is_found_out() {
    for (fault, complaint) in [
        (Fault::NoCompareAndSet, "swap"),
        (Fault::ComparesVersionsOnly, "swap"),
        (Fault::FeedApart, "the feed does not hold"),
        (Fault::RaiseNotKept, "forgot in a crash"),
        (Fault::VoteBeforeDisk, "forgot in a crash"),
        (Fault::VoteWithoutContent, "serves another content"),
        (Fault::ApplyWithoutContent, "serves another content"),
        (Fault::CopiesAnything, "serves another content"),
        (Fault::SameIncarnation, "incarnation"),
        (Fault::AnyLife, "did what its gate refuses|does not follow from the order"),
        (Fault::ReadsUnasked, "did what its gate refuses|serves another content"),
        (Fault::PromiseNotKept, "does not follow from the order"),
        (Fault::PromiseBeforeDisk, "forgot in a crash"),
        (Fault::LosesFence, "forgot in a crash"),
        (Fault::BacksRowsUpOnly, "the feed holds what comes after"),
        (Fault::TearsBackup, "not what it was made last"),
        (Fault::ListsRootOnly, "the family is"),
        (Fault::AnyStoreLife, "for another life of the store"),
        (Fault::SameStoreLife, "the store says that it is in"),
        (Fault::KeepsNotes, "the note beside the row"),
        (Fault::IgnoresRewind, "does not follow from the order|gate refuses|allows"),
        (Fault::DiscardsWithoutGate, "does not follow from the order|gate refuses"),
    ] {
        let Some(what) = found(fault) else { panic!("{fault:?} passes") };
        assert!(complaint.split('|').any(|complaint| what.contains(complaint)), "{fault:?} is found, but by: {what}");
    }
}
