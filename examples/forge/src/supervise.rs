//! Starts the node processes, restarts one that dies, and stops them all with the router.
//!
//! A node's stdin is a pipe that only this process holds: when the router is gone, by whatever
//! means, the pipe ends and the node exits.

use std::fs::OpenOptions;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::cli::{CLUSTER_TOKEN_ENV, Limits};

/// The first wait before a dead node is started again; it doubles with each quick death.
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_MOST: Duration = Duration::from_secs(5);
/// A node that ran this long is not dying quickly.
const STEADY: Duration = Duration::from_secs(10);
/// How long a node may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// What every node process is started with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) data: PathBuf,
    pub(crate) router: String,
    pub(crate) token: String,
    pub(crate) ip: IpAddr,
    /// Node k listens on this port + k; on a free one if absent.
    pub(crate) port_base: Option<u16>,
    pub(crate) limits: Limits,
}

/// What can be asked of a node process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Start it, and keep it running.
    Start,
    /// Let it end, and keep it down.
    Stop,
    /// Kill it with SIGKILL, and keep it down.
    Kill,
}

/// All node processes.
#[derive(Debug)]
pub(crate) struct Supervisor {
    nodes: Vec<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    id: u32,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    pid: watch::Receiver<Option<u32>>,
}

impl Supervisor {
    /// Starts nodes 1 to `count`.
    pub(crate) fn start(plan: Plan, count: u32) -> Result<Self> {
        let plan = Arc::new(plan);
        let mut nodes = Vec::new();
        for id in 1..=count {
            let listen = plan.listen(id)?;
            let (orders, inbox) = mpsc::channel(8);
            let (pid_out, pid) = watch::channel(None);
            tokio::spawn(keep(Arc::clone(&plan), id, listen, inbox, pid_out));
            nodes.push(Keeper { id, orders, pid });
        }
        Ok(Self { nodes })
    }

    /// The process id of a node that runs.
    pub(crate) fn pid(&self, id: u32) -> Option<u32> {
        self.nodes.iter().find(|k| k.id == id).and_then(|k| *k.pid.borrow())
    }

    /// Gives an order and waits until it is carried out.
    pub(crate) async fn order(&self, id: u32, order: Order) -> Result<()> {
        let Some(keeper) = self.nodes.iter().find(|k| k.id == id) else {
            bail!("there is no node {id}");
        };
        let (done, wait) = oneshot::channel();
        keeper.orders.send((order, done)).await.context("the supervisor has ended")?;
        wait.await.context("the supervisor has ended")
    }

    /// Lets every node end, all at once, and waits for them.
    pub(crate) async fn stop(&self) {
        let mut ends = Vec::new();
        for keeper in &self.nodes {
            let (done, wait) = oneshot::channel();
            if keeper.orders.send((Order::Stop, done)).await.is_ok() {
                ends.push(wait);
            }
        }
        for end in ends {
            let _ended = end.await;
        }
    }
}

impl Plan {
    /// Finds out now, not in a log, whether the nodes can listen.
    pub(crate) fn check_ports(&self, count: u32) -> Result<()> {
        for id in 1..=count {
            let listen = self.listen(id)?;
            TcpListener::bind(listen).with_context(|| {
                format!("node {id} cannot listen on {listen}: choose other ports with --node-port-base")
            })?;
        }
        Ok(())
    }

    fn listen(&self, id: u32) -> Result<SocketAddr> {
        let port = match self.port_base {
            None => 0,
            Some(base) => u16::try_from(u32::from(base) + id)
                .ok()
                .with_context(|| format!("port {base} + {id} is no port: lower --node-port-base"))?,
        };
        Ok(SocketAddr::new(self.ip, port))
    }

    fn spawn(&self, id: u32, listen: SocketAddr) -> Result<Child> {
        let data = self.data.join(format!("node-{id}"));
        std::fs::create_dir_all(&data)?;
        let log = OpenOptions::new().create(true).append(true).open(data.join("log"))?;
        let l = &self.limits;
        let child = Command::new(std::env::current_exe()?)
            .args(["node", "run", "--id", &id.to_string()])
            .arg("--data")
            .arg(&data)
            .args(["--listen", &listen.to_string()])
            .args(["--router", &self.router])
            .args(["--max-push-bytes", &l.max_push_bytes.to_string()])
            .args(["--max-refs-per-push", &l.max_refs_per_push.to_string()])
            .args(["--max-git-seconds", &l.max_git_seconds.to_string()])
            .args(l.strict_objects.then_some("--strict-objects"))
            .env(CLUSTER_TOKEN_ENV, &self.token)
            // Its own group: Ctrl-C in the terminal reaches the router alone, which stops the
            // nodes in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start node {id}"))?;
        Ok(child)
    }
}

/// One node's life: started, restarted when it dies, down when it is told to be.
async fn keep(
    plan: Arc<Plan>,
    id: u32,
    listen: SocketAddr,
    mut orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    pid: watch::Sender<Option<u32>>,
) {
    let mut wanted = true;
    let mut pause = RESTART_FIRST;
    loop {
        if !wanted {
            match orders.recv().await {
                None => return,
                Some((order, done)) => {
                    wanted = order == Order::Start;
                    let _nobody_waits = done.send(());
                    continue;
                }
            }
        }
        let born = Instant::now();
        let mut child = match plan.spawn(id, listen) {
            Ok(child) => child,
            Err(e) => {
                warn!(node = id, "{e:#}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RESTART_MOST);
                continue;
            }
        };
        // Taken out of the child, whose `wait` would close it.
        let lifeline = child.stdin.take();
        pid.send_replace(child.id());
        info!(node = id, pid = child.id(), "node started");
        let mut told = Vec::new();
        tokio::select! {
            ended = child.wait() => {
                warn!(node = id, "node ended by itself: {}", describe(ended));
            }
            order = next_end(&mut orders, &mut told) => {
                wanted = false;
                end(&mut child, order).await;
            }
        }
        drop(lifeline);
        pid.send_replace(None);
        for done in told {
            let _nobody_waits = done.send(());
        }
        if wanted {
            if born.elapsed() > STEADY {
                pause = RESTART_FIRST;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RESTART_MOST);
        }
    }
}

/// Waits for an order that ends a running node; a start of one that runs is done at once.
async fn next_end(
    orders: &mut mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    told: &mut Vec<oneshot::Sender<()>>,
) -> Order {
    loop {
        match orders.recv().await {
            None => return Order::Stop,
            Some((Order::Start, done)) => {
                let _nobody_waits = done.send(());
            }
            Some((order, done)) => {
                told.push(done);
                return order;
            }
        }
    }
}

async fn end(child: &mut Child, order: Order) {
    if order == Order::Kill {
        signal(child, Signal::SIGKILL);
    } else {
        signal(child, Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _gone_already = child.kill().await;
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()) {
        let _gone_already = kill(Pid::from_raw(pid), signal);
    }
}

fn describe(ended: std::io::Result<std::process::ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(e) => e.to_string(),
    }
}
