//! A node process: real bare repositories, a gate for each, and no will of its own.
//!
//! The router asks; the gate of the repository judges; Git does; the gate on disk says what is so.

mod db;
mod drill;
pub(crate) mod gc;
mod listing;
mod parcels;
mod push;
mod replica;
mod serve;
mod sync;
#[cfg(test)]
mod torture;
mod upkeep;
mod wants;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tenon_quorum::{NodeId, RepoId};
use tenon_refslog::Config;
use tokio::sync::OnceCell;

use crate::cli::{CLUSTER_TOKEN_ENV, Limits, NodeArgs};
use crate::git::Git;
use crate::wire::{Register, Registered};
use replica::{Replica, ReplicaError};

/// How long a node that starts waits for the Git processes of its former life to end.
const FORMER_LIFE: Duration = Duration::from_secs(30);

/// What all of a node's work shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) folder: PathBuf,
    /// The router's address.
    pub(crate) router: String,
    pub(crate) token: String,
    pub(crate) limits: Limits,
    pub(crate) git: Git,
    pub(crate) db: db::Db,
    pub(crate) drills: drill::Drills,
    pub(crate) http: reqwest::Client,
    /// What the refs of every repository are held to.
    pub(crate) rules: Config,
    pub(crate) upkeep: upkeep::Upkeep,
    replicas: Mutex<BTreeMap<RepoId, Arc<OnceCell<Arc<Replica>>>>>,
}

impl Shared {
    /// What a node works with, in a folder where nobody else is at work.
    fn new(
        args: &NodeArgs,
        folder: PathBuf,
        token: String,
        git: Git,
        db: db::Db,
        rules: Config,
    ) -> anyhow::Result<Arc<Shared>> {
        let node = NodeId(args.id);
        Ok(Arc::new(Shared {
            node,
            router: args.router.clone(),
            token,
            limits: args.limits,
            git,
            drills: drill::Drills::from_environment(node, &folder),
            http: http()?,
            rules,
            upkeep: upkeep::Upkeep::default(),
            db,
            folder,
            replicas: Mutex::default(),
        }))
    }

    pub(crate) fn repository_folder(&self, id: RepoId) -> PathBuf {
        self.folder.join("repos").join(format!("{}.git", id.0))
    }

    pub(crate) fn spool_folder(&self) -> PathBuf {
        self.folder.join("spool")
    }

    /// The repository, opened when it is first asked for.
    pub(crate) async fn replica(self: &Arc<Self>, id: RepoId) -> Result<Arc<Replica>, ReplicaError> {
        let cell = Arc::clone(self.replicas.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        let open = async || Ok::<_, ReplicaError>(Arc::new(Replica::open(Arc::clone(self), id).await?));
        cell.get_or_try_init(open).await.cloned()
    }
}

/// Runs a node until its standard input ends: whoever started it is gone then.
///
/// # Errors
/// What it needs is not there, with what to do about it.
pub(crate) async fn run(args: NodeArgs) -> anyhow::Result<()> {
    let token = std::env::var(CLUSTER_TOKEN_ENV)
        .with_context(|| format!("{CLUSTER_TOKEN_ENV} is not set: nodes are started by `forge`, not by hand"))?;
    let folder = prepare_folder(&args.data)?;
    let _alone = alone(&folder).await?;
    let git = Git::find(Duration::from_secs(args.limits.max_git_seconds)).await?;
    let mut db = db::Db::open(&folder.join("node.db"))?;
    let listener = tokio::net::TcpListener::bind(args.listen).await.with_context(|| {
        format!(
            "node {} cannot listen on {}: is the port taken? choose others with --node-port-base",
            args.id, args.listen
        )
    })?;
    let node = NodeId(args.id);
    let url = format!("http://{}", listener.local_addr()?);
    let mut parent = pin!(parent_gone());
    let http = http()?;
    let registered = loop {
        let (incarnation, boot) = db.known();
        let register = Register { node, incarnation, boot, url: url.clone() };
        let registered = tokio::select! {
            registered = announce(&http, &args.router, &token, &register) => registered?,
            () = &mut parent => return Ok(()),
        };
        if db.begin(registered.begin)? {
            break registered;
        }
    };
    if db.disk().rewound == db.disk().boot {
        tracing::warn!(%node, "this folder is an older copy of itself; what it holds is brought up to date");
    }
    let incarnation = db.incarnation();
    let rules = crate::git::refs::rules(registered.checksum_key)?;
    let shared = Shared::new(&args, folder, token, git, db, rules)?;
    tracing::info!(%node, %incarnation, url, "node is up");
    tokio::spawn(upkeep::run(Arc::clone(&shared)));
    tokio::select! {
        served = serve::run(listener, shared) => served.context("the node's server ended"),
        () = parent => Ok(()),
    }
}

/// For what a node asks of the router and of other nodes.
fn http() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().tcp_nodelay(true).connect_timeout(Duration::from_secs(5)).build()
}

fn prepare_folder(data: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(data.join("repos")).with_context(|| format!("cannot make the folder {}", data.display()))?;
    let folder = data.canonicalize()?;
    crate::git::repository::remove(&folder.join("spool"))?;
    fs::create_dir_all(folder.join("spool"))?;
    Ok(folder)
}

/// Makes sure that no other node, and no Git process of a former life of this one, is at work in the folder.
///
/// The lock belongs to the open file, which every child inherits: it is free once the last of them has ended. So whoever gets it may
/// remove what killed processes left.
async fn alone(folder: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    let until = Instant::now() + FORMER_LIFE;
    while file.try_lock().is_err() {
        if Instant::now() > until {
            bail!(
                "{} is in use by another node, or by a git process that does not end; stop it first",
                folder.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

/// Tells the router where this node listens, until it answers.
async fn announce(
    http: &reqwest::Client,
    router: &str,
    token: &str,
    register: &Register,
) -> anyhow::Result<Registered> {
    let mut waited = Duration::from_millis(20);
    loop {
        let answer = http.post(format!("{router}/internal/register")).bearer_auth(token).json(register).send().await;
        match answer.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => return answer.json().await.context("the router's answer cannot be read"),
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                bail!("the router refuses this node: {error}");
            }
            Err(error) if waited > Duration::from_secs(2) => tracing::warn!(%error, "the router does not answer yet"),
            Err(_) => {}
        }
        tokio::time::sleep(waited).await;
        waited = (waited * 2).min(Duration::from_secs(3));
    }
}

/// Waits for the end of standard input. The thread that reads it ends with the process.
fn parent_gone() -> impl Future<Output = ()> {
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(tell);
    });
    async {
        let _ = told.await;
    }
}
