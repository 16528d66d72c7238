//! The router's store and its client, the nodes' servers, replicas and Git under `tenon-quorum`'s host kit: replies lost,
//! orders twice and late, processes killed in the midst of it, disks lost, the store taken back to a backup, the family
//! moved. What is written is a commit, and a read asks Git for it.

mod author;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::{Path as InPath, Query};
use axum::routing::get;
use bytes::Bytes;
use tempfile::TempDir;
use tenon_quorum::testkit::{Answer as Asked, Done, Host, NODES, Order, REPOS, Ran, Reply, Swap, torture};
use tenon_quorum::{
    Boot, Digest, FeedEntry, Generation, Incarnation, NodeId, RepoId, Route, RouterId, Row, StageOrder, Start,
    StoreMeta, SwapResult, Version,
};
use tenon_refslog::Config;
use tokio::runtime::Runtime;

use super::db::Db;
use super::{NodeArgs, Shared, serve};
use crate::cli::Limits;
use crate::git::Git;
use crate::router::api::pieces;
use crate::router::driver::{decode, encode, feed_row};
use crate::router::log;
use crate::router::nodes::{Answer, Life, Nodes, Served};
use crate::router::spool::Spooled;
use crate::router::store::{FeedRow, Sqlite, Store, Swapped};
use crate::wire::{self, Begin, CureAsk, FileText, FileView, ParcelId, Peer, SyncAsk};
use author::Author;

type Result<T> = anyhow::Result<T>;

const TOKEN: &str = "the cluster's";
const LIMITS: Limits = Limits {
    max_push_bytes: 1 << 20,
    max_refs_per_push: 10,
    strict_objects: false,
    max_git_seconds: 60,
    max_wait_seconds: 10,
    max_queue: 10,
};

fn rules() -> Result<Config> {
    Ok(crate::git::refs::rules([7; 32])?)
}

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

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// What stands for a node's process: all that it does ends with its runtime, wherever it is.
struct Node {
    runtime: Option<Runtime>,
    folder: TempDir,
    incarnation: Incarnation,
    url: String,
}

impl Node {
    fn start(id: NodeId, folder: TempDir, router: &str, store: &Sqlite) -> Result<Node> {
        let runtime = runtime()?;
        let path = super::prepare_folder(folder.path())?;
        let (incarnation, url) = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let listen = listener.local_addr()?;
            let args = NodeArgs { id: id.0, data: path.clone(), listen, router: router.to_owned(), limits: LIMITS };
            let git = Git::find(Duration::from_secs(LIMITS.max_git_seconds)).await?;
            let mut db = Db::open(&path.join("node.db"))?;
            while !db.begin(next_step(store, id, db.known())?)? {}
            let incarnation = db.incarnation();
            let shared = Shared::new(&args, path, TOKEN.to_owned(), git, db, rules()?)?;
            tokio::spawn(serve::run(listener, shared));
            anyhow::Ok((incarnation, format!("http://{listen}")))
        })?;
        Ok(Node { runtime: Some(runtime), folder, incarnation, url })
    }

    /// What is on its disk then is what the next process finds.
    fn kill(mut self) -> TempDir {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
        self.folder
    }
}

/// What the router answers to a node that starts.
fn next_step(store: &Sqlite, node: NodeId, (life, boot): (Option<Incarnation>, Boot)) -> Result<Begin> {
    let Some(life) = life else { return Ok(Begin::Life(store.draw_life()?)) };
    Ok(match store.start_node(node.0, life, boot)? {
        Start::Keep { boot, rewound } => Begin::Boot { boot, rewound },
        Start::Ready => Begin::Ready,
    })
}

/// The store that the router has open; nodes read logs from it.
type Open = Arc<Mutex<Arc<Sqlite>>>;

struct Forge {
    runtime: Runtime,
    /// Where the log is served.
    url: String,
    folder: TempDir,
    store: Open,
    backup: TempDir,
    nodes: BTreeMap<NodeId, Node>,
    client: Nodes,
    author: Author,
    /// What was proposed, for the swap that commits it; gone with the router.
    records: BTreeMap<(RepoId, tenon_quorum::Fence), Bytes>,
    cuts: u64,
    /// Copies of nodes' folders, to be put back.
    copies: BTreeMap<NodeId, TempDir>,
}

fn asked<T>(said: crate::router::store::Said, found: T) -> Asked<T> {
    let store = StoreMeta::new(Generation(said.life)).note(said.note.map(RouterId));
    Asked { store, found }
}

#[derive(serde::Deserialize)]
struct Range {
    from: u64,
    to: u64,
}

impl Forge {
    fn new() -> Result<Forge> {
        let folder = tempfile::tempdir()?;
        let store: Open = Arc::new(Mutex::new(Arc::new(Sqlite::open(&folder.path().join("store.db"))?)));
        let runtime = runtime()?;
        let read = Arc::clone(&store);
        let answer = async move |InPath(id): InPath<u64>, Query(range): Query<Range>| {
            let store = Arc::clone(&read.lock().unwrap_or_else(PoisonError::into_inner));
            store.log(id, range.from).map(|rows| pieces(rows, range.to)).map_err(|error| error.to_string())
        };
        let routes = axum::Router::new().route("/internal/repos/{id}/log", get(answer));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}", listener.local_addr()?);
        runtime.spawn(async move { axum::serve(listener, routes).await });
        let client = Nodes::new(TOKEN.to_owned(), Duration::from_secs(LIMITS.max_git_seconds))?;
        let (backup, author) = (tempfile::tempdir()?, Author::new()?);
        let (nodes, records) = (BTreeMap::new(), BTreeMap::new());
        let mut forge = Forge {
            runtime,
            url,
            folder,
            store,
            backup,
            nodes,
            client,
            author,
            records,
            cuts: 0,
            copies: BTreeMap::new(),
        };
        for id in NODES {
            forge.start(id, tempfile::tempdir()?)?;
        }
        Ok(forge)
    }

    fn start(&mut self, id: NodeId, folder: TempDir) -> Result<Incarnation> {
        let node = Node::start(id, folder, &self.url, &self.store())?;
        let incarnation = node.incarnation;
        self.client.register(id, incarnation, node.url.clone());
        self.nodes.insert(id, node);
        Ok(incarnation)
    }

    fn kill(&mut self, id: NodeId) -> Result<TempDir> {
        Ok(self.nodes.remove(&id).context("no such node")?.kill())
    }

    fn store(&self) -> Arc<Sqlite> {
        Arc::clone(&self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn open_store(&mut self, folder: TempDir) -> Result<()> {
        let store = Arc::new(Sqlite::open(&folder.path().join("store.db"))?);
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = store;
        self.folder = folder;
        Ok(())
    }

    async fn carry_out(&self, node: NodeId, incarnation: Incarnation, order: &Order) -> Result<Done> {
        let to = Life { node, incarnation };
        let answer = match order {
            Order::Probe(_) => return Ok(Done::Yes),
            Order::Raise(row) => self.client.raise(to, row).await?,
            Order::Stage(order, _) => return self.stage(to, order).await,
            Order::Cure(row, boot, serial) => {
                self.client.cure(to, &CureAsk { row: row.clone(), boot: *boot, serial: *serial }).await?
            }
            // A node keeps the folder of a repository that it is no member of any more.
            Order::Discard(_) => return Ok(Done::Refused),
            Order::Initialise(row) => self.client.sync(to, &SyncAsk { row: row.clone(), source: None }).await?,
            Order::Copy(row, source) => return Ok(self.copy(to, row, *source).await.unwrap_or(Done::Refused)),
            Order::Read(route) => return self.read(route).await,
            // The client does not tell a refusal from a failure; the kit does.
            Order::Promise(repo, generation) => {
                let promised = self.client.promise(to, *repo, *generation).await;
                return Ok(promised.map_or(Done::Refused, |gate| Done::Promised(Box::new(gate))));
            }
        };
        Ok(done(&answer))
    }

    /// What a writer's node and the router do: the objects first, then the record.
    async fn stage(&self, to: Life, order: &StageOrder) -> Result<Done> {
        let written = self.author.written(order.base.repo, order.digest).context("nobody wrote that")?;
        let parcel = ParcelId::random()?;
        let url = format!("{}/repos/{}/parcels/{parcel}", self.nodes[&to.node].url, order.base.repo.0);
        let request = reqwest::Client::builder().no_proxy().build()?.post(url).bearer_auth(TOKEN);
        let request = request.header(wire::LIFE, wire::to_header(&to.incarnation));
        let reply = request.body(written.shipment.clone()).send().await?;
        match reply.status().as_u16() {
            200 => Ok(done(&self.client.stage(to, order, &written.record, Some(&parcel)).await?)),
            409 => Ok(Done::Refused),
            _ => bail!("{}: {}", reply.status(), reply.text().await?),
        }
    }

    /// As the driver does it: what a restored store has forgotten of the log is mended from the source.
    async fn copy(&self, to: Life, row: &Row, source: NodeId) -> Result<Done> {
        let peer = Peer { node: source, url: self.nodes[&source].url.clone() };
        let ask = SyncAsk { row: row.clone(), source: Some(peer) };
        let answer = self.client.sync(to, &ask).await?;
        if matches!(answer, Answer::Report(_)) {
            return Ok(Done::Yes);
        }
        let store: Arc<dyn Store> = self.store();
        log::mend(&store, &self.client, row, source).await?;
        Ok(done(&self.client.sync(to, &ask).await?))
    }

    /// The advertisement says where the branch is; then the file is read there.
    async fn read(&self, route: &Route) -> Result<Done> {
        let (path, nothing) = ("info/refs?service=git-upload-pack", Spooled::Memory(Bytes::new()));
        let reply = match self.client.serve_read(route, path, &axum::http::HeaderMap::new(), &nothing).await? {
            Served::Reply(reply) => reply.bytes().await?,
            Served::Refused(_) => return Ok(Done::Refused),
        };
        let text = String::from_utf8_lossy(&reply);
        let Some(at) = text.find(" refs/heads/main") else { return Ok(Done::Content(Vec::new())) };
        let tip = text.get(at.saturating_sub(40)..at).context("no id stands before the branch")?;
        let view: FileView = match self.client.file(route, tip, author::FILE, 1 << 10).await? {
            Served::Reply(reply) => reply.json().await?,
            Served::Refused(_) => return Ok(Done::Refused),
        };
        let Some(FileText::Text(text)) = view.file else { bail!("the file is not in {tip}") };
        Ok(Done::Content(text.into_bytes()))
    }
}

fn done(answer: &Answer) -> Done {
    match answer {
        Answer::Report(_) => Done::Yes,
        Answer::Refused(_) => Done::Refused,
    }
}

impl Host for Forge {
    type Error = anyhow::Error;

    fn empty(&self, repo: RepoId) -> Digest {
        author::empty(repo)
    }

    fn digest(&mut self, base: &Row, content: &[u8]) -> Result<Digest> {
        let (digest, record) = self.author.write(base, content)?;
        self.records.insert((base.repo, base.fence), record);
        Ok(digest)
    }

    fn row(&mut self, repo: RepoId) -> Result<Asked<Option<Row>>> {
        let (said, body) = self.store().look(repo.0)?;
        Ok(asked(said, body.and_then(|body| decode(repo, &body))))
    }

    fn note(&mut self, repo: RepoId, router: RouterId) -> Result<()> {
        Ok(self.store().note(repo.0, router.0)?)
    }

    fn swap(&mut self, swap: Swap<'_>) -> Result<Asked<SwapResult>> {
        let (repo, expect, next) = (swap.next.repo, swap.expect.map(encode), encode(swap.next));
        let record = |entry: &FeedEntry| self.records.get(&(repo, entry.fence)).cloned().unwrap_or_default();
        let feed = swap.feed.map(|entry| feed_row(entry, record(entry)));
        let (said, swapped) = self.store().swap(&crate::router::store::Swap {
            life: swap.store.0,
            repo: repo.0,
            expect: expect.as_deref(),
            next: &next,
            feed: feed.as_ref(),
            clears_note: swap.clears_note,
        })?;
        let result = match swapped {
            Swapped::Moved => SwapResult::Moved,
            Swapped::OtherLife => SwapResult::OtherStore,
            Swapped::Conflict(found) => SwapResult::Conflict(found.and_then(|body| decode(repo, &body))),
        };
        Ok(asked(said, result))
    }

    fn feed(&mut self, repo: RepoId, version: Version) -> Result<Asked<Option<FeedEntry>>> {
        let found = self.store().feed(repo.0, version.0.saturating_sub(1), 1)?;
        let entry = found.first().filter(|row| row.version == version.0).map(FeedRow::entry);
        Ok(asked(self.store().look(repo.0)?.0, entry))
    }

    fn family(&mut self, family: RepoId) -> Result<Asked<Vec<RepoId>>> {
        let mut members = Vec::new();
        for repo in REPOS {
            let row = self.row(repo)?.found;
            members.extend(row.filter(|row| row.family == family).map(|row| row.repo));
        }
        Ok(asked(self.store().look(family.0)?.0, members))
    }

    fn back_up(&mut self) -> Result<()> {
        self.backup = as_left(self.folder.path(), "store.db")?;
        Ok(())
    }

    fn restore(&mut self, generation: Generation) -> Result<()> {
        self.records.clear();
        let next = tempfile::tempdir()?;
        // What is in the files is a store; what its log holds comes into the one file that is a backup.
        let (whole, backup) = (as_left(self.backup.path(), "store.db")?, next.path().join("backup"));
        crate::router::store::back_up(&whole.path().join("store.db"), &backup)?;
        crate::router::store::restore(&backup, &next.path().join("store.db"), generation.0)?;
        self.open_store(next)
    }

    fn crash_store(&mut self, cut: Option<Swap<'_>>) -> Result<()> {
        self.cuts += 1;
        if let Some(swap) = cut.filter(|_| self.cuts.is_multiple_of(2)) {
            let _ = self.swap(swap)?;
        }
        self.open_store(as_left(self.folder.path(), "store.db")?)
    }

    fn order(&mut self, node: NodeId, life: Incarnation, order: &Order) -> Result<Reply> {
        let done = self.runtime.block_on(self.carry_out(node, life, order))?;
        let report = self.runtime.block_on(self.client.report(node, order.repo()))?;
        Ok(Reply { report, done })
    }

    /// It dies somewhere on the way, sooner or later.
    fn crash_node(&mut self, node: NodeId, cut: Option<(Incarnation, &Order)>) -> Result<()> {
        self.cuts += 1;
        if let Some((life, order)) = cut {
            let until = Duration::from_millis(3 * (self.cuts % 16));
            let _ =
                self.runtime.block_on(async { tokio::time::timeout(until, self.carry_out(node, life, order)).await });
        }
        let folder = self.kill(node)?;
        self.start(node, folder).map(drop)
    }

    fn keep_disk(&mut self, node: NodeId) -> Result<()> {
        let from = self.nodes.get(&node).context("no such node")?.folder.path();
        let copy = tempfile::tempdir()?;
        let done = std::process::Command::new("cp").arg("-a").arg(from).arg(copy.path().join("disk")).status()?;
        anyhow::ensure!(done.success(), "the folder of {node} cannot be copied");
        self.copies.insert(node, copy);
        Ok(())
    }

    fn rewind_node(&mut self, node: NodeId) -> Result<()> {
        drop(self.kill(node)?);
        let copy = self.copies.remove(&node).context("no copy was taken")?;
        let folder = tempfile::tempdir()?;
        fs::remove_dir(folder.path())?;
        fs::rename(copy.path().join("disk"), folder.path())?;
        self.start(node, folder).map(drop)
    }

    fn lose_disk(&mut self, node: NodeId) -> Result<Incarnation> {
        drop(self.kill(node)?);
        self.start(node, tempfile::tempdir()?)
    }
}

#[test]
fn what_is_acknowledged_outlives_every_crash() {
    let run = |seed| torture(&mut Forge::new().unwrap(), seed, 180).unwrap_or_else(|broken| panic!("{broken}"));
    // In one thread each: they wait for disks and for Git most of the time.
    let runs = [0, 1, 2, 3].map(|seed| std::thread::spawn(move || run(seed)));
    let mut all = Ran::default();
    for ran in runs.map(|run| run.join().unwrap()) {
        all.commits += ran.commits;
        all.reads += ran.reads;
        all.crashes += ran.crashes;
        all.disks += ran.disks;
        all.recoveries += ran.recoveries;
        all.moves += ran.moves;
    }
    println!("{all:?}");
    assert!(all.commits > 20 && all.reads > 30 && all.crashes > 20, "{all:?}");
    assert!(all.recoveries > 0 && all.moves > 0, "{all:?}");
}
