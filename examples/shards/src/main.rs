//! A blob store on three nodes that outlives the loss of one: `cargo run -p shards`.
#![allow(clippy::print_stdout, clippy::wildcard_imports, reason = "it shows what happens")]
use std::{collections::BTreeMap, fs, path::Path, path::PathBuf, time::Duration, time::SystemTime};

use serde::{Serialize, de::DeserializeOwned};
use tenon_quorum::*;
use tokio::{sync::mpsc, sync::oneshot, time::sleep, time::timeout};

/// Returns once it is on disk, whole: a process that dies on the way leaves the old file.
fn keep(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec(value)?)?;
    fs::File::open(&new)?.sync_all()?;
    Ok(fs::rename(&new, file)?)
}

fn load<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Option<T>> {
    Ok(if file.try_exists()? { Some(serde_json::from_slice(&fs::read(file)?)?) } else { None })
}

/// The store never comes back from a backup here, and one router has it.
const STORE: StoreMeta = StoreMeta::new(Generation(1));

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What a node does with its gate; over a wire this would be a message.
type Work = Box<dyn FnOnce(&FenceGate) -> Result<FenceGate, GateRefusal> + Send>;
type Content = Option<(Digest, String)>;
type Mail = (RepoId, Work, Content, oneshot::Sender<Option<(FenceGate, String)>>);

/// A node is a task with files: its gates, and contents by their digests. Both are on disk before anybody hears of it.
async fn node(folder: PathBuf, node: NodeId, mut mail: mpsc::Receiver<Mail>) -> anyhow::Result<()> {
    let file = |name: &dyn std::fmt::Display| folder.join(format!("{node}, {name}"));
    while let Some((repo, work, content, reply)) = mail.recv().await {
        let gate = load(&file(&repo))?.unwrap_or_else(|| FenceGate::new(repo, node, Incarnation(1)));
        content.map_or(Ok(()), |(digest, content)| keep(&file(&digest), &content))?;
        let next = work(&gate);
        let found = load(&file(&next.as_ref().unwrap_or(&gate).applied().digest))?.unwrap_or_default();
        next.iter().try_for_each(|next| keep(&file(&repo), next))?;
        let _ = reply.send(next.ok().map(|next| (next, found)));
    }
    Ok(())
}

struct Blobs {
    router: Router,
    nodes: BTreeMap<NodeId, mpsc::Sender<Mail>>,
    folder: PathBuf,
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

    /// Has a node do something: its gate then, and the content. `None`: refused, or no answer, so that nobody knows.
    async fn on(&mut self, id: NodeId, repo: RepoId, work: Work, content: Content) -> Option<(FenceGate, String)> {
        let (reply, answer) = oneshot::channel();
        self.nodes.get(&id)?.send((repo, work, content, reply)).await.ok()?;
        let (gate, content) = timeout(Duration::from_millis(500), answer).await.ok()?.ok()??;
        self.router.handle_report(now(), None, &gate.report());
        Some((gate, content))
    }

    async fn copy(&mut self, task: TaskId, target: NodeId, row: Row, content: Content) {
        let repo = row.repo;
        let install = Box::new(move |gate: &FenceGate| gate.raise(&row)?.install(&row.proof()));
        let done = self.on(target, repo, install, content).await;
        let result = done.map_or(SyncResult::Failed, |(gate, _)| SyncResult::Done(gate.report()));
        self.router.handle_synced(now(), task, &result);
    }

    /// Does what the router says, and tells it; `value` is what a write puts. The answer, if it is one.
    async fn carry_out(&mut self, effect: Effect, value: &str) -> anyhow::Result<Option<String>> {
        let file = |repo: RepoId| self.folder.join(repo.to_string());
        let record = |repo| anyhow::Ok(load::<(Option<Row>, Vec<FeedEntry>)>(&file(repo))?.unwrap_or_default());
        match effect {
            Effect::SwapRow { ticket, expect, next, feed, .. } => {
                let (row, mut entries) = record(next.repo)?;
                let result = if row == expect {
                    entries.extend(feed);
                    keep(&file(next.repo), &(next, entries)).map_or(SwapResult::Unknown, |()| SwapResult::Moved)
                } else {
                    SwapResult::Conflict(row)
                };
                self.router.handle_swap(now(), ticket, &STORE, &result);
            }
            Effect::FetchRow { ask, repo } => {
                self.router.handle_row(now(), ask, &STORE, repo, record(repo)?.0.as_ref());
            }
            Effect::FetchFeed { ask, repo, version } => {
                let entry = record(repo)?.1.into_iter().find(|entry| entry.version() == version);
                self.router.handle_feed(now(), ask, &STORE, repo, entry);
            }
            Effect::Grant(grant) => {
                let digest = Digest(*blake3::hash(value.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 16]));
                let Row { repo, fence, members, .. } = &grant.base;
                for &Member { node, .. } in members {
                    let order = grant.stage(digest);
                    let vote = Box::new(move |gate: &FenceGate| gate.show(&order.base)?.stage(&order));
                    if self.on(node, *repo, vote, Some((digest, value.to_owned()))).await.is_none() {
                        self.router.handle_declined(now(), *repo, node, *fence);
                    }
                }
            }
            Effect::RaiseGate { node, row, .. } => {
                self.on(node, row.repo, Box::new(move |gate| gate.show(&row)), None).await;
            }
            Effect::Probe { node, repo, .. } => {
                drop(self.on(node, repo, Box::new(|gate| Ok(gate.clone())), None).await);
            }
            Effect::Initialise { task, target, row, .. } => self.copy(task, target, row, None).await,
            Effect::Sync { task, target, source, row, .. } => {
                let found = self.on(source, row.repo, Box::new(|gate| Ok(gate.clone())), None).await;
                match found.filter(|(gate, _)| gate.applied() == row.newest) {
                    Some((gate, content)) => {
                        self.copy(task, target, row, Some((gate.applied().digest, content))).await;
                    }
                    None => self.router.handle_synced(now(), task, &SyncResult::Failed),
                }
            }
            // After a backup, in a move to another shard, after an older copy of a disk came back, with several routers.
            Effect::Promise { .. } | Effect::FetchFamily { .. } | Effect::Cure { .. } | Effect::LeaveNote { .. } => {}
            Effect::Answer { outcome, reason, .. } => return Ok(Some(format!("{outcome}: {reason}"))),
            Effect::Changed { result, .. } => {
                return Ok(Some(result.map_or_else(|reason| reason.to_string(), |()| "done".into())));
            }
        }
        Ok(None)
    }

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
                    self.carry_out(Effect::FetchRow { ask, repo }, "").await?;
                }
                ReadStep::First(First::Wait { .. }) => drop(self.turn("").await?),
                ReadStep::Serve(route) => {
                    if let Some((gate, content)) =
                        self.on(route.node, repo, Box::new(move |gate| gate.serve(&route)), None).await
                    {
                        return Ok(format!("{content:?} from {}, {}", route.node, gate.applied()));
                    }
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (folder, blob, router) = (tempfile::tempdir()?, RepoId(1), Router::new(Config::builder().build()?));
    let mut blobs = Blobs { router, nodes: BTreeMap::new(), folder: folder.path().to_owned() };
    (1..=3).for_each(|id| blobs.start(NodeId(id)));
    let members: Members = (1..=3).map(|id| Member::voter(NodeId(id), Incarnation(1))).collect();
    blobs.router.create(now(), &CreateRequest::new(blob, ShardId(1), members, Digest([0; 16])))?;
    println!("create: {}", blobs.answer("").await?);
    println!("put one: {}", blobs.put(blob, 1, "one").await?);
    blobs.router.begin_write(now(), &WriteRequest::new(blob, RequestId(2)))?;
    blobs.kill(NodeId(3)); // in the middle of the write
    println!("put two: {}", blobs.answer("two").await?);
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
