//! The router: the one process that clients talk to, and the only one that reads and writes the
//! store.

mod access;
mod admin;
mod answer;
pub(crate) mod api;
mod browse;
mod ci;
pub(crate) mod driver;
mod fork;
mod git;
mod http;
pub(crate) mod log;
mod migrate;
mod name;
pub(crate) mod nodes;
mod push;
mod reads;
mod recover;
mod replace;
mod repos;
pub(crate) mod spool;
pub(crate) mod store;
pub(crate) mod tidy;
mod writes;

use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use tenon_quorum::{Generation, NodeId, Quorum, RepoId};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::warn;

pub(crate) use access::Link;
pub(crate) use admin::{Branch, NewName, Protect, SweptNodes};
pub(crate) use api::{Inspected, Inspection, Listed, Named, NodeStatus, ReplicaStatus, RepoStatus, Status};
pub(crate) use ci::Shown;
pub(crate) use driver::pause_after;
pub(crate) use http::{Failure, bears};
pub(crate) use log::Compacted;
pub(crate) use migrate::Moved;
pub(crate) use recover::Recovered;
pub(crate) use replace::Replaced;

use crate::ci::Ci;
use crate::cli::{Limits, ServeArgs};
use crate::home::{self, Home};
use crate::supervise::{Plan, Supervisor};
use access::Access;
use driver::Driver;
use nodes::Nodes;
use repos::Repos;
use spool::Spool;
use store::{Sqlite, Store};
use writes::Writes;

/// How many repositories are looked at at once when a node comes back.
const SURVEYS_AT_ONCE: usize = 8;
/// How long requests may go on when the router ends.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a replica may take to be brought up to date, when somebody waits for it.
const REPAIR: Duration = Duration::from_mins(2);

/// Where a browser is let in.
pub(crate) const PATH_OF_LOGIN: &str = "/-/login";

/// What whoever started a forge is told.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) url: String,
    /// A link that logs a browser in, once; absent where everybody is let in.
    pub(crate) login: Option<String>,
    /// Why no jobs run, if none do.
    pub(crate) no_jobs: Option<String>,
}

/// The running router, as handlers see it.
#[derive(Clone, Debug)]
pub(crate) struct Host(Arc<Parts>);

/// What a router is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    driver: Arc<Driver>,
    /// How many there are, each a datacentre of its own.
    nodes: u32,
    repos: Repos,
    writes: Arc<Writes>,
    supervisor: Supervisor,
    spool: Spool,
    limits: Limits,
    retention: tidy::Retention,
    access: Access,
    cluster_token: String,
    checksum_key: [u8; 32],
    url: String,
    ci: Ci,
}

impl Deref for Host {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Serves until `end` is there, then stops the nodes. `ready` is told the address.
pub(crate) async fn serve(
    args: ServeArgs,
    ready: impl FnOnce(&Started),
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    if !args.listen.ip().is_loopback() && args.open {
        bail!("--open lets everybody in, and --listen {} can be reached from other machines", args.listen);
    }
    let count = args.nodes;
    if count == 0 || !count.is_multiple_of(repos::REPLICAS) {
        bail!("--nodes {count}: a shard is {} nodes, so theirs is a multiple of it", repos::REPLICAS);
    }
    let door = http::door(&args)?;
    args.ci.check()?;
    // Before anything is made: a Git that is missing or too old is said here, not by each node.
    crate::git::Git::find(Duration::from_secs(args.limits.max_git_seconds)).await?;
    let home = Home::open(&args.data)?;
    let listener = bind(args.listen).await?;
    let address = listener.local_addr()?;
    let url = format!("http://{}", reachable(address));
    let store = Arc::new(Sqlite::open(&home.store())?);
    let (checksum_key, generation) = (checksum_key(&*store)?, home.generation()?);
    let life = store.meta("life", &|| generation.to_string())?;
    if life != generation.to_string() {
        bail!(
            "{} is in life {life}, and this folder in {generation}: put a backup back with `forge store restore`",
            home.store().display()
        );
    }
    let long = Duration::from_secs(args.limits.max_git_seconds);
    let nodes = Nodes::new(home.token().to_owned(), long)?;
    let driver = Driver::new(tenon_quorum::Router::new(quorum_config(long, generation)?), store, nodes);
    let wait = Duration::from_secs(args.limits.max_wait_seconds);
    let writes = Arc::new(Writes::new(Arc::clone(&driver), args.limits.max_queue, wait));
    let refs = crate::git::refs::rules(checksum_key)?;
    let plan = plan(&args, &home, &url);
    plan.check_ports(count)?;
    let supervisor = Supervisor::start(plan, count)?;
    let host = Host(Arc::new(Parts {
        repos: Repos::new(Arc::clone(&driver), Arc::clone(&writes), refs, repos::shards(count)),
        driver,
        nodes: count,
        writes,
        supervisor,
        spool: Spool::new(&home.spool()?),
        limits: args.limits,
        retention: args.retention,
        access: Access::of(&args, &home, address.port())?,
        cluster_token: home.token().to_owned(),
        checksum_key,
        url: url.clone(),
        ci: Ci::start(&home, &url, &args.ci)?,
    }));
    let app = api::routes(&host)
        .merge(crate::ci::api::routes(&host))
        .merge(access::routes())
        .fallback(git::serve)
        .with_state(host.clone());
    let app = app.layer(axum::middleware::from_fn_with_state(host.clone(), access::authorise));
    let app = app.layer(door);
    let (close, closing) = tokio::sync::oneshot::channel::<()>();
    let limits = connections(&args)?;
    let server = tokio::spawn(door::serve(listener, app, limits, async move { drop(closing.await) }));
    let driver = tokio::spawn(Arc::clone(&host.driver).run());
    let keeper = tokio::spawn(log::keep_short(host.clone()));
    let tidying = tokio::spawn(tidy::run(host.clone()));
    let started = host.all_registered(&home).await;
    if started.is_ok() {
        match tokio::time::timeout(FAREWELL, host.repos.unmake_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!("what is left of first pushes that were cut short stays for now: {e}"),
            Err(_) => warn!("what is left of first pushes that were cut short stays until the next start"),
        }
        host.first_repository().await;
        home.publish_address(&url)?;
        let login = host.access.login()?.map(|path| format!("{url}{path}"));
        ready(&Started { url: url.clone(), login, no_jobs: host.ci.no_jobs.clone() });
        let ci = host.ci.run(&host);
        end.await;
        ci.iter().for_each(JoinHandle::abort);
    }
    host.ci.close().await;
    // Requests that are under way may end; they need the nodes.
    drop(close);
    if tokio::time::timeout(FAREWELL, server).await.is_err() {
        warn!("some requests did not end in time; they are broken off");
    }
    host.supervisor.stop().await;
    keeper.abort();
    tidying.abort();
    driver.abort();
    started
}

async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}: is another program there? choose another address with --listen")
    })
}

/// Where clients on this machine reach what listens at `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), address.port())
    } else {
        address
    }
}

/// How many connections there may be: four descriptors each, of those that the system allows.
fn connections(args: &ServeArgs) -> Result<door::Limits> {
    const MOST: usize = 1024;
    let descriptors = door::raise_descriptor_limit()?;
    let possible = usize::try_from(descriptors / 4).unwrap_or(MOST).clamp(32, MOST);
    let total = args.max_connections.unwrap_or(possible);
    let per_address = args.max_connections_per_address.unwrap_or(total / 4);
    tracing::info!(descriptors, connections = total, per_address, "limits");
    Ok(door::Limits::default().connections(total, per_address))
}

fn plan(args: &ServeArgs, home: &Home, url: &str) -> Plan {
    let port_base = args.node_port_base.or((args.listen.port() != 0).then_some(args.listen.port()));
    Plan {
        data: home.path().to_owned(),
        router: url.to_owned(),
        token: home.token().to_owned(),
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        port_base,
        limits: args.limits,
    }
}

/// One key for all repositories, drawn once; whoever knows it could forge refs with equal checksums.
fn checksum_key(store: &dyn Store) -> Result<[u8; 32]> {
    let draw = home::random_bytes()?;
    let text = store.meta("checksum key", &|| home::hex(&draw))?;
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..text.len()).step_by(2)) {
        let pair = text.get(at..at + 2).context("the store's checksum key is none")?;
        *byte = u8::from_str_radix(pair, 16).context("the store's checksum key is none")?;
    }
    Ok(key)
}

/// A grant lasts as long as Git may run: a writer that dies is noticed by its connection, not by its lease.
fn quorum_config(long: Duration, generation: u32) -> Result<tenon_quorum::Config> {
    let lease = u64::try_from(long.as_millis())?;
    let config = tenon_quorum::Config::builder()
        .quorum(Quorum::THREE)
        .generation(Generation(generation))
        .seed(home::random()?)
        .lease_ms(lease)
        .write_ms(lease + 30_000)
        .build()?;
    Ok(config)
}

impl Host {
    /// Whoever starts a forge for the first time finds something to clone.
    async fn first_repository(&self) {
        let first = async {
            let none = self.driver.stored(|store| store.names()).await?.is_empty();
            if let (true, Ok(name)) = (none, name::RepoName::parse("demo")) {
                self.repos.ensure(&name).await?;
            }
            Ok::<_, Failure>(())
        };
        if let Err(e) = first.await {
            warn!("the repository demo was not made: {e}");
        }
    }

    /// Waits until every node has said where it listens.
    async fn all_registered(&self, home: &Home) -> Result<()> {
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let mut turns = self.driver.turns();
            let there = self.driver.nodes.all().len();
            if there >= self.nodes as usize {
                return Ok(());
            }
            if tokio::time::timeout_at(end, turns.changed()).await.is_err() {
                let logs = (1..=self.nodes).filter(|id| self.driver.nodes.known(NodeId(*id)).is_none());
                let logs: Vec<String> = logs.map(|id| home.node_log(id).display().to_string()).collect();
                bail!("{there} of {} nodes started; why the others did not, say {}", self.nodes, logs.join(" and "));
            }
        }
    }

    /// Fetches the row and shows it to every node: a node that voted for what the row proves applies it, what lags is
    /// repaired from here on.
    async fn survey(&self, repo: RepoId) -> Result<(), Failure> {
        let ask = self.driver.ask(|core, _| core.router.begin_read());
        self.driver.fetch_row(ask, repo).await;
        let row = self.driver.view(|core| core.router.row_of(repo));
        let Some(row) = row else { return Err(Failure::not_found("there is no such repository")) };
        let up = row.members.iter().filter(|m| self.driver.nodes.known(m.node).is_some_and(|k| k.is_up()));
        let asked = up.map(|member| async {
            let answer = self.driver.nodes.raise(member.into(), &row).await;
            self.driver.tell_answer(member.node, None, answer).await;
        });
        futures_util::future::join_all(asked).await;
        Ok(())
    }

    /// What each replica that was heard of has applied.
    fn applied(&self, repo: RepoId) -> Vec<(NodeId, u64)> {
        use tenon_quorum::Verdict;
        self.driver.view(|core| {
            let newest = core.router.row_of(repo).map_or(0, |row| row.newest.version.0);
            let members = core.router.members(repo);
            members
                .filter_map(|(member, verdict, _)| match verdict {
                    Verdict::Current => Some((member.node, newest)),
                    Verdict::Lagging { applied } | Verdict::Rewound { applied } => {
                        Some((member.node, applied.version.0))
                    }
                    Verdict::Divergent { .. } | Verdict::Ahead { .. } | Verdict::RowOld | Verdict::Unknown => None,
                })
                .collect()
        })
    }

    async fn survey_all(self) {
        let names = match self.driver.stored(|store| store.names()).await {
            Ok(names) => names,
            Err(e) => return warn!("the repositories cannot be listed: {e}"),
        };
        let host = &self;
        futures_util::stream::iter(names)
            .for_each_concurrent(SURVEYS_AT_ONCE, |(id, _)| async move {
                let _no_row_yet = host.survey(RepoId(id)).await;
            })
            .await;
    }

    /// Waits until a replica says itself that it holds the newest state; answers with the version.
    async fn repaired(&self, repo: RepoId, node: NodeId) -> Result<u64, Failure> {
        let end = tokio::time::Instant::now() + REPAIR;
        loop {
            self.survey(repo).await?;
            let newest = self.driver.view(|core| core.router.row_of(repo).map(|row| row.newest));
            let report = self.driver.nodes.report(node, repo).await.map_err(Failure::unavailable)?;
            if Some(report.applied) == newest {
                return Ok(report.applied.version.0);
            }
            if tokio::time::Instant::now() > end {
                return Err(Failure::unavailable(format!("{node} was not brought up to date in time")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
