//! One push on the node that was granted it: `receive-pack` and its hooks, from the grant to the answer.
//!
//! The order, and who may still end it: objects to the other members (in `pre-receive`) → refs admitted by the log's rules, locked and
//! checked by Git, proposed once to the router, moved (in `proc-receive`). Until the proposal, a client that leaves, a raised
//! fence or the time limit kills the process group and nothing has happened. From the proposal on, the outcome is the log's:
//! what it has is carried out here whoever is still listening.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use tenon_quorum::Fence;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::hook::{Call, Pass};
use super::replica::{Replica, ReplicaError, Turn};
use super::{Shared, pre_receive, proc_receive};
use crate::git::{Running, repository};
use crate::wire::WriteOrder;

/// What the client gets, block by block; an error breaks its connection.
pub(crate) type Reply = mpsc::Receiver<std::io::Result<Bytes>>;
type ReplyTo = mpsc::Sender<std::io::Result<Bytes>>;

/// A push that was admitted.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) shared: Arc<Shared>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) order: WriteOrder,
    phase: AtomicU8,
}

const OPEN: u8 = 0;
const PROPOSING: u8 = 1;
const CLOSED: u8 = 2;

/// Why a push was ended from outside.
#[derive(Debug, Clone, Copy)]
enum Stop {
    ClientLeft,
    Fenced,
    TooSlow,
}

impl Push {
    /// Admits a push under its grant and starts it.
    ///
    /// # Errors
    /// The gate refuses the grant, or the node is not where the grant builds on; nothing was started.
    pub(crate) async fn start(
        shared: Arc<Shared>,
        replica: Arc<Replica>,
        order: WriteOrder,
        body: Body,
    ) -> Result<Reply, ReplicaError> {
        let grant = &order.grant;
        if (grant.writer, grant.incarnation) != (shared.node, shared.db.incarnation()) {
            return Err(ReplicaError::Refused("the grant is for another node, or another life of this one".into()));
        }
        let report = replica.settle(&grant.base).await?;
        if report.applied != grant.base.newest {
            return Err(ReplicaError::Refused(format!("the node is at {}", report.applied)));
        }
        let (to, reply) = mpsc::channel(8);
        let push = Arc::new(Push { shared, replica, order, phase: AtomicU8::new(OPEN) });
        tokio::spawn(push.run(body, to));
        Ok(reply)
    }

    async fn run(self: Arc<Self>, body: Body, to: ReplyTo) {
        let turn = Arc::new(self.replica.turn().await);
        if let Err(error) = self.receive(&turn, body, &to).await {
            tracing::warn!(repo = %self.replica.id, write = %self.order.grant.write, %error, "a push broke off");
            // Never a clean end after a partial answer: the client would wait for ever, or believe it.
            let _ = to.send(Err(std::io::Error::other(error.to_string()))).await;
        }
    }

    async fn receive(self: &Arc<Self>, turn: &Arc<Turn>, body: Body, to: &ReplyTo) -> Result<(), ReplicaError> {
        let mut fence = self.replica.fence();
        if *fence.borrow_and_update() > self.order.grant.base.fence {
            return Err(ReplicaError::Refused("fenced off before it began".into()));
        }
        repository::settle_config(&self.replica.folder)?;
        let pass = self.shared.desk.admit()?;
        let mut running = self.spawn(&pass)?;
        let (stdin, stdout) = (running.stdin.take(), running.stdout.take());
        let proposal = tokio::sync::Mutex::new(None);
        let limit = running.limit();
        let stop = tokio::select! {
            done = exchange(stdin, body, stdout, to) => {
                done?;
                None
            }
            () = self.serve_hooks(pass, turn, &proposal) => None,
            () = to.closed() => Some(Stop::ClientLeft),
            () = raised(&mut fence, self.order.grant.base.fence) => Some(Stop::Fenced),
            () = tokio::time::sleep(limit) => Some(Stop::TooSlow),
        };
        let closed = self.phase.compare_exchange(OPEN, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let ended = match stop {
            None => running.succeed().await.map_err(ReplicaError::from),
            Some(stop) => {
                tracing::info!(repo = %self.replica.id, ?stop, proposed = !closed, "a push is stopped");
                running.kill().await;
                Err(ReplicaError::Refused(format!("stopped: {stop:?}")))
            }
        };
        // What is proposed is seen to its end before anybody else may move refs.
        if let Some(task) = proposal.into_inner() {
            let task: JoinHandle<()> = task;
            let _ = task.await;
        }
        if ended.is_err() {
            repository::clean_push(&self.replica.folder)?;
        }
        ended
    }

    fn spawn(&self, pass: &Pass) -> Result<Running, ReplicaError> {
        let mut invocation = self.shared.git.within(&self.replica.folder, "receive-pack");
        invocation.setting("core.hooksPath", self.shared.hooks_folder());
        invocation.setting("receive.maxInputSize", self.shared.limits.max_push_bytes.to_string());
        for (name, value) in pass.environment() {
            invocation.env(name, value);
        }
        Ok(invocation.args(["--stateless-rpc", "."]).spawn()?)
    }

    /// Answers the hooks; never ends by itself.
    async fn serve_hooks(
        self: &Arc<Self>,
        mut pass: Pass,
        turn: &Arc<Turn>,
        proposal: &tokio::sync::Mutex<Option<JoinHandle<()>>>,
    ) {
        while let Some(call) = pass.call().await {
            match call.hook.as_str() {
                "pre-receive" => pre_receive::answer(self, call).await,
                "proc-receive" => {
                    let (push, turn) = (Arc::clone(self), Arc::clone(turn));
                    let task = tokio::spawn(proc_receive::answer(push, turn, call));
                    *proposal.lock().await = Some(task);
                }
                _ => refuse(call).await,
            }
        }
        std::future::pending::<()>().await;
    }

    /// Claims the right to propose; afterwards the push can no longer be called off. `false`: it has been.
    pub(crate) fn begin_proposing(&self) -> bool {
        self.phase.compare_exchange(OPEN, PROPOSING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

async fn refuse(mut call: Call) {
    let _ = call.say("forge: there is no such hook").await;
    let _ = call.exit(1).await;
}

/// Waits until the gate is raised above `mine`.
async fn raised(fence: &mut watch::Receiver<Fence>, mine: Fence) {
    if fence.wait_for(|fence| *fence > mine).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Both directions at once, until Git has said all.
async fn exchange(
    stdin: Option<ChildStdin>,
    body: Body,
    stdout: Option<ChildStdout>,
    to: &ReplyTo,
) -> std::io::Result<()> {
    match select(pin!(pump(stdout, to)), pin!(feed(stdin, body))).await {
        Either::Left((done, _)) => done,
        Either::Right(((), pump)) => pump.await,
    }
}

/// Gives Git the client's bytes. A Git that stops reading says why by itself; a client that stops sending lets Git see the end.
async fn feed(stdin: Option<ChildStdin>, body: Body) {
    let Some(mut stdin) = stdin else { return };
    let mut blocks = body.into_data_stream();
    while let Some(Ok(block)) = blocks.next().await {
        if stdin.write_all(&block).await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}

/// Gives the client Git's bytes.
async fn pump(stdout: Option<ChildStdout>, to: &ReplyTo) -> std::io::Result<()> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    let mut block = vec![0; 32 << 10];
    loop {
        let count = stdout.read(&mut block).await?;
        if count == 0 {
            return Ok(());
        }
        if to.send(Ok(Bytes::copy_from_slice(&block[..count]))).await.is_err() {
            // The client left: the other branch sees that too, and stops.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Err(std::io::Error::other("the client left"));
        }
    }
}
