//! A blob store on three nodes that outlives the loss of one: `cargo run -p shards`.
#![allow(clippy::print_stdout, clippy::wildcard_imports, reason = "it shows what happens")]
use std::{collections::BTreeMap, fs, io::Write as _, path::Path, path::PathBuf, time::Duration, time::SystemTime};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tenon_quorum::*;
use tokio::{sync::mpsc, sync::oneshot, time::sleep, time::timeout};

/// Returns once it is on disk, whole: a process that dies on the way leaves the old file.
fn keep(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    let mut out = fs::File::create(&new)?;
    out.write_all(&serde_json::to_vec(value)?)?;
    out.sync_all()?;
    Ok(fs::rename(&new, file)?)
}

fn load<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Option<T>> {
    Ok(if file.try_exists()? { Some(serde_json::from_slice(&fs::read(file)?)?) } else { None })
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A node's file of one blob.
#[derive(Serialize, Deserialize)]
struct Held {
    gate: FenceGate,
    staged: String,
    content: String,
}

/// What a node does with what it holds; over a wire this would be a message.
type Work = Box<dyn FnOnce(&mut Held) -> Result<(), GateRefusal> + Send>;
type Mail = (RepoId, Work, oneshot::Sender<(Held, bool)>);

impl Held {
    fn show(&mut self, row: &Row) -> Result<(), GateRefusal> {
        self.gate = self.gate.raise(row)?;
        if self.gate.proves_staged(&row.proof()) { self.apply(&row.proof()) } else { Ok(()) }
    }

    fn apply(&mut self, proof: &Proof) -> Result<(), GateRefusal> {
        self.gate = self.gate.apply(proof)?;
        self.content = std::mem::take(&mut self.staged);
        Ok(())
    }

    fn read(&mut self, route: &Route) -> Result<(), GateRefusal> {
        if self.gate.admit_read(route)? == Admission::ApplyFirst { self.apply(&route.proof) } else { Ok(()) }
    }
}

/// A node is a task with files. What it was made to hold is on disk before anybody hears of it.
async fn node(folder: PathBuf, node: NodeId, mut mail: mpsc::Receiver<Mail>) -> anyhow::Result<()> {
    while let Some((repo, work, reply)) = mail.recv().await {
        let (file, gate) = (folder.join(format!("{node}, {repo}")), FenceGate::new(repo, node, Incarnation(1)));
        let mut held = load(&file)?.unwrap_or(Held { gate, staged: String::new(), content: String::new() });
        let done = work(&mut held).is_ok();
        keep(&file, &held)?;
        let _ = reply.send((held, done));
    }
    Ok(())
}

struct Blobs {
    router: Router,
    nodes: BTreeMap<NodeId, mpsc::Sender<Mail>>,
    folder: PathBuf,
    doomed: Option<NodeId>,
}

impl Blobs {
    fn start(&mut self, id: NodeId) {
        let (line, mail) = mpsc::channel(16);
        tokio::spawn(node(self.folder.clone(), id, mail));
        self.nodes.insert(id, line);
        self.router.handle_node(now(), id, NodeState::up(Incarnation(1)));
    }

    fn kill(&mut self, id: NodeId) {
        println!("{id} is killed");
        self.nodes.remove(&id);
        self.router.handle_node(now(), id, NodeState::up(Incarnation(1)).health(Health::Down));
    }

    /// Has a node do something. `None`: no answer, which says nothing about whether it was done.
    async fn on(&mut self, id: NodeId, repo: RepoId, work: Work) -> Option<(Held, bool)> {
        let (reply, answer) = oneshot::channel();
        self.nodes.get(&id)?.send((repo, work, reply)).await.ok()?;
        let (held, done) = timeout(Duration::from_millis(500), answer).await.ok()?.ok()?;
        self.router.handle_report(now(), &held.gate.report());
        Some((held, done))
    }

    async fn copy(&mut self, task: TaskId, target: NodeId, row: Row, content: Option<String>) {
        let (repo, mut result) = (row.repo, SyncResult::Failed);
        if let Some(content) = content {
            let install = move |held: &mut Held| {
                held.gate = held.gate.raise(&row)?.install(&row.proof())?;
                held.content = content;
                Ok(())
            };
            if let Some((held, true)) = self.on(target, repo, Box::new(install)).await {
                result = SyncResult::Done(held.gate.report());
            }
        }
        self.router.handle_synced(now(), task, &result);
    }

    /// Does what the router says, and tells it; `value` is what a write puts. The answer, if it is one.
    async fn carry_out(&mut self, effect: Effect, value: &str) -> anyhow::Result<Option<String>> {
        let file = |repo: RepoId| self.folder.join(repo.to_string());
        let record = |repo| load::<(Option<Row>, Vec<FeedEntry>)>(&file(repo)); // row and feed move together
        match effect {
            Effect::SwapRow { ticket, expect, next, feed } => {
                let (row, mut entries) = record(next.repo)?.unwrap_or_default();
                let result = if row == expect {
                    entries.extend(feed);
                    keep(&file(next.repo), &(next, entries)).map_or(SwapResult::Unknown, |()| SwapResult::Moved)
                } else {
                    SwapResult::Conflict(row)
                };
                self.router.handle_swap(now(), ticket, &result);
            }
            Effect::FetchRow { ask, repo } => {
                let (row, _) = record(repo)?.unwrap_or_default();
                self.router.handle_row(now(), ask, repo, row.as_ref());
            }
            Effect::FetchFeed { ask, repo, version } => {
                let (_, entries) = record(repo)?.unwrap_or_default();
                self.router.handle_feed(now(), ask, repo, entries.into_iter().find(|e| e.version() == version));
            }
            Effect::Grant(grant) => {
                self.doomed.take().into_iter().for_each(|id| self.kill(id));
                let digest = blake3::hash(value.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default();
                for &Member { node, .. } in &grant.base.members {
                    let (order, value) = (grant.stage(Digest(digest)), value.to_owned());
                    let vote = move |held: &mut Held| {
                        held.show(&order.base)?;
                        held.gate = held.gate.stage(&order)?;
                        held.staged = value;
                        Ok(())
                    };
                    if !matches!(self.on(node, grant.base.repo, Box::new(vote)).await, Some((_, true))) {
                        self.router.handle_declined(now(), grant.base.repo, node, grant.base.fence);
                    }
                }
            }
            Effect::RaiseGate { node, row, .. } => drop(self.on(node, row.repo, Box::new(move |h| h.show(&row))).await),
            Effect::Probe { node, repo } => drop(self.on(node, repo, Box::new(|_| Ok(()))).await),
            Effect::Initialise { task, target, row, .. } => self.copy(task, target, row, Some(String::new())).await,
            Effect::Sync { task, target, source, row, .. } => {
                let found = self.on(source, row.repo, Box::new(|_| Ok(()))).await;
                let exact = found.filter(|(held, _)| held.gate.applied() == row.newest);
                self.copy(task, target, row, exact.map(|(held, _)| held.content)).await;
            }
            // Only after the store came back from a backup, or where a repository moves to another shard.
            Effect::Promise { .. } | Effect::FetchFamily { .. } => {}
            Effect::Answer { outcome, reason, .. } => return Ok(Some(format!("{outcome:?}: {reason}"))),
            Effect::Changed { result, .. } => return Ok(Some(format!("{result:?}"))),
        }
        Ok(None)
    }

    /// One turn of the loop.
    async fn turn(&mut self, value: &str) -> anyhow::Result<Option<String>> {
        if let Some(effect) = self.router.poll_effect() {
            return self.carry_out(effect, value).await;
        }
        sleep(Duration::from_millis(20)).await;
        self.router.handle_timeout(now());
        Ok(None)
    }

    async fn put(&mut self, repo: RepoId, request: u64, value: &str) -> anyhow::Result<String> {
        let begun = self.router.begin_write(now(), &WriteRequest::new(repo, RequestId(request)));
        if let Err(refusal) = begun { Ok(format!("refused: {refusal}")) } else { self.answer(value).await }
    }

    async fn answer(&mut self, value: &str) -> anyhow::Result<String> {
        let mut answer = None;
        while answer.is_none() {
            answer = self.turn(value).await?;
        }
        Ok(answer.unwrap_or_default())
    }

    async fn get(&mut self, repo: RepoId) -> anyhow::Result<String> {
        let read = ReadRequest::linearizable(repo, self.router.begin_read());
        loop {
            match self.router.route_read(now(), &read)? {
                ReadStep::First(First::FetchRow(ask)) => {
                    drop(self.carry_out(Effect::FetchRow { ask, repo }, "").await?);
                }
                ReadStep::First(First::Wait { .. }) => drop(self.turn("").await?),
                ReadStep::Serve(route) => {
                    let serve = Box::new(move |held: &mut Held| held.read(&route));
                    if let Some((held, true)) = self.on(route.node, repo, serve).await {
                        return Ok(format!("{:?} from {}, {}", held.content, route.node, held.gate.applied().version));
                    }
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (folder, blob, router) = (tempfile::tempdir()?, RepoId(1), Router::new(Config::builder().build()?));
    let mut blobs = Blobs { router, nodes: BTreeMap::new(), folder: folder.path().to_owned(), doomed: None };
    (1..=3).for_each(|id| blobs.start(NodeId(id)));
    let members: Members = (1..=3).map(|id| Member::voter(NodeId(id), Incarnation(1))).collect();
    blobs.router.create(now(), &CreateRequest::new(blob, ShardId(1), members, Digest([0; 16])))?;
    println!("create: {}", blobs.answer("").await?);
    println!("put one: {}", blobs.put(blob, 1, "one").await?);
    blobs.doomed = Some(NodeId(3)); // as soon as the next write is granted
    println!("put two: {}", blobs.put(blob, 2, "two").await?);
    println!("get: {}", blobs.get(blob).await?);
    blobs.kill(NodeId(2));
    println!("put three: {}", blobs.put(blob, 3, "three").await?);
    println!("get: {}", blobs.get(blob).await?);
    (2..=3).for_each(|id| blobs.start(NodeId(id)));
    println!("nodes 2 and 3 are back; put four: {}", blobs.put(blob, 4, "four").await?);
    blobs.kill(NodeId(1));
    println!("get: {}", blobs.get(blob).await?);
    Ok(())
}
