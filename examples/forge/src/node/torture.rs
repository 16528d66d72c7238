//! The store of the router and the database of the nodes under `tenon-quorum`'s host kit: replies lost, orders twice,
//! processes killed, disks lost. What travels is put through the same header as between real processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use axum::http::HeaderMap;
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use tenon_quorum::testkit::{Done, Host, NODES, Order, REPOS, Reply, Swap, torture};
use tenon_quorum::{
    Admission, FeedEntry, FenceGate, GateRefusal, Incarnation, NodeId, Proof, RepoId, Route, Row, Stamp, SwapResult,
    Version,
};

use super::db::Db;
use crate::router::driver::{decode, encode, feed_row};
use crate::router::store::{FeedRow, Sqlite, Store as _, Swapped};
use crate::wire;

type Result<T> = anyhow::Result<T>;

/// A database's files, and what of them a killed process leaves: what is in them at this moment.
fn as_left(folder: &Path, name: &str) -> Result<TempDir> {
    let next = tempfile::tempdir()?;
    for file in fs::read_dir(folder)? {
        let file = file?;
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(file.path(), next.path().join(file.file_name()))?;
        }
    }
    assert!(next.path().join(name).exists(), "{name} is there");
    Ok(next)
}

/// As it arrives at the other end.
fn sent<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let headers =
        HeaderMap::from_iter([(axum::http::header::HeaderName::from_static(wire::ASK), wire::to_header(value))]);
    wire::from_header(&headers, wire::ASK).expect("what was put into a header comes out of it")
}

struct Node {
    folder: TempDir,
    db: Db,
}

impl Node {
    fn open(folder: TempDir) -> Result<Node> {
        let db = Db::open(&folder.path().join("node.db"))?;
        Ok(Node { folder, db })
    }

    /// Contents lie in files named by their state, as Git's objects do: written before the gate says that they are there.
    fn file(&self, stamp: Stamp) -> std::path::PathBuf {
        self.folder.path().join(format!("content-{}-{}", stamp.version.0, stamp.digest))
    }

    fn content(&self, stamp: Stamp) -> Vec<u8> {
        fs::read(self.file(stamp)).unwrap_or_default()
    }

    async fn gate(&self, id: NodeId, repo: RepoId) -> Result<(FenceGate, Option<Vec<u8>>)> {
        let kept = self.db.load(repo).await?;
        let blank = || (FenceGate::new(repo, id, self.db.incarnation()), None);
        Ok(kept.map_or_else(blank, |kept| (kept.gate, kept.record)))
    }

    /// Keeps a gate, and what it voted for while the vote is open.
    async fn keep(&self, gate: &FenceGate, record: Option<Vec<u8>>) -> Result<()> {
        let record = record.filter(|_| gate.staged().is_some());
        Ok(self.db.keep(gate.report().repo, gate, record).await?)
    }

    async fn apply(&self, gate: &FenceGate, record: Option<Vec<u8>>, proof: &Proof) -> Result<()> {
        fs::write(self.file(proof.newest), record.as_deref().unwrap_or_default())?;
        self.keep(&gate.apply(proof)?, None).await
    }

    async fn show(&self, id: NodeId, row: &Row) -> Result<()> {
        let (gate, record) = self.gate(id, row.repo).await?;
        let gate = gate.raise(row)?;
        self.keep(&gate, record.clone()).await?;
        if gate.proves_staged(&row.proof()) { self.apply(&gate, record, &row.proof()).await } else { Ok(()) }
    }

    async fn install(&self, id: NodeId, row: &Row, content: &[u8]) -> Result<()> {
        let (mut gate, record) = self.gate(id, row.repo).await?;
        if let Ok(raised) = gate.raise(row) {
            gate = raised;
            self.keep(&gate, record.clone()).await?;
        }
        let installed = gate.install(&row.proof())?;
        if installed.applied() != gate.applied() {
            fs::write(self.file(row.newest), content)?;
        }
        self.keep(&installed, record).await
    }

    async fn read(&self, id: NodeId, route: &Route) -> Result<Vec<u8>> {
        let (gate, record) = self.gate(id, route.proof.repo).await?;
        if gate.admit_read(route)? == Admission::ApplyFirst {
            self.apply(&gate, record, &route.proof).await?;
        }
        Ok(self.content(self.gate(id, route.proof.repo).await?.0.applied()))
    }
}

struct Forge {
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
    store: Sqlite,
    backup: TempDir,
    nodes: BTreeMap<NodeId, Node>,
    cuts: usize,
}

impl Forge {
    fn new() -> Result<Forge> {
        let folder = tempfile::tempdir()?;
        let store = Sqlite::open(&folder.path().join("store.db"))?;
        let nodes = NODES.into_iter().map(|id| Ok((id, Node::open(tempfile::tempdir()?)?))).collect::<Result<_>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
        let backup = tempfile::tempdir()?;
        Ok(Forge { runtime, folder, store, backup, nodes, cuts: 0 })
    }

    fn gets_through(&mut self) -> bool {
        self.cuts += 1;
        self.cuts.is_multiple_of(2)
    }

    async fn carry_out(&self, id: NodeId, order: &Order) -> Result<Done> {
        let node = &self.nodes[&id];
        match order {
            Order::Probe(_) => {}
            Order::Raise(row) => node.show(id, &sent(row)).await?,
            Order::Stage(order, content) => {
                let order = sent(order);
                node.show(id, &order.base).await?;
                let gate = node.gate(id, order.base.repo).await?.0.stage(&order)?;
                node.keep(&gate, Some(content.clone())).await?;
            }
            Order::Initialise(row) => node.install(id, &sent(row), &[]).await?,
            Order::Copy(row, source) => {
                let source = (&self.nodes[source], *source);
                if source.0.gate(source.1, row.repo).await?.0.applied() != row.newest {
                    return Ok(Done::Refused);
                }
                node.install(id, &sent(row), &source.0.content(row.newest)).await?;
            }
            Order::Read(route) => return node.read(id, &sent(route)).await.map(Done::Content),
            Order::Promise(repo, generation) => {
                let (gate, record) = node.gate(id, *repo).await?;
                node.keep(&gate.promise(sent(generation))?, record).await?;
                return Ok(Done::Promised(Box::new(sent(&node.gate(id, *repo).await?.0))));
            }
        }
        Ok(Done::Yes)
    }

    fn handle(&self, id: NodeId, life: Incarnation, order: &Order) -> Result<Done> {
        if self.nodes[&id].db.incarnation() != life && !matches!(order, Order::Probe(_)) {
            return Ok(Done::Refused);
        }
        let done = self.runtime.block_on(self.carry_out(id, order));
        done.or_else(|error| error.downcast::<GateRefusal>().map(|_| Done::Refused))
    }
}

impl Host for Forge {
    type Error = anyhow::Error;

    fn row(&mut self, repo: RepoId) -> Result<Option<Row>> {
        Ok(self.store.row(repo.0)?.and_then(|body| decode(repo, &body)))
    }

    fn swap(&mut self, swap: Swap<'_>) -> Result<SwapResult> {
        let (repo, expect) = (swap.next.repo, swap.expect.map(encode));
        let feed = swap.feed.map(|entry| feed_row(entry, b"a record".as_slice().into()));
        match self.store.swap(repo.0, expect.as_deref(), &encode(swap.next), feed.as_ref())? {
            Swapped::Moved => Ok(SwapResult::Moved),
            Swapped::Conflict(found) => Ok(SwapResult::Conflict(found.and_then(|body| decode(repo, &body)))),
        }
    }

    fn feed(&mut self, repo: RepoId, version: Version) -> Result<Option<FeedEntry>> {
        let found = self.store.feed(repo.0, version.0.saturating_sub(1), 1)?;
        Ok(found.first().filter(|row| row.version == version.0).map(FeedRow::entry))
    }

    fn family(&mut self, family: RepoId) -> Result<Vec<RepoId>> {
        let mut members = Vec::new();
        for repo in REPOS {
            let row = self.row(repo)?;
            members.extend(row.filter(|row| row.family == family).map(|row| row.repo));
        }
        Ok(members)
    }

    fn back_up(&mut self) -> Result<()> {
        self.backup = as_left(self.folder.path(), "store.db")?;
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        self.folder = as_left(self.backup.path(), "store.db")?;
        self.store = Sqlite::open(&self.folder.path().join("store.db"))?;
        Ok(())
    }

    fn crash_store(&mut self, cut: Option<Swap<'_>>) -> Result<()> {
        if let Some(swap) = cut.filter(|_| self.gets_through()) {
            let _ = self.swap(swap)?;
        }
        let next = as_left(self.folder.path(), "store.db")?;
        self.store = Sqlite::open(&next.path().join("store.db"))?;
        self.folder = next;
        Ok(())
    }

    fn order(&mut self, node: NodeId, life: Incarnation, order: &Order) -> Result<Reply> {
        let done = self.handle(node, life, order)?;
        let gate = self.runtime.block_on(self.nodes[&node].gate(node, order.repo()))?.0;
        Ok(Reply { report: sent(&gate.report()), done })
    }

    fn crash_node(&mut self, node: NodeId, cut: Option<(Incarnation, &Order)>) -> Result<()> {
        if let Some((life, order)) = cut.filter(|_| self.gets_through()) {
            let _ = self.handle(node, life, order)?;
        }
        let next = Node::open(as_left(self.nodes[&node].folder.path(), "node.db")?)?;
        self.nodes.insert(node, next);
        Ok(())
    }

    fn lose_disk(&mut self, node: NodeId) -> Result<Incarnation> {
        let next = Node::open(tempfile::tempdir()?)?;
        let life = next.db.incarnation();
        self.nodes.insert(node, next);
        Ok(life)
    }
}

#[test]
fn what_is_acknowledged_outlives_every_crash() {
    let (mut commits, mut reads, mut crashes, mut disks, mut recoveries, mut moves) = (0, 0, 0, 0, 0, 0);
    for seed in 0..8 {
        let ran = torture(&mut Forge::new().unwrap(), seed, 150).unwrap_or_else(|broken| panic!("{broken}"));
        commits += ran.commits;
        reads += ran.reads;
        crashes += ran.crashes;
        disks += ran.disks;
        recoveries += ran.recoveries;
        moves += ran.moves;
    }
    assert!(commits > 30 && reads > 20 && crashes > 30 && disks > 0, "{commits} {reads} {crashes} {disks}");
    assert!(recoveries > 0 && moves > 0, "{recoveries} {moves}");
}
