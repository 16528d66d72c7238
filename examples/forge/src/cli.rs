//! The command line: what the program can be asked, and the one place where errors are printed.

mod backup;
mod repository;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use door::{Secret, SecretFile};
use tracing_subscriber::EnvFilter;

use crate::ci::{CiArgs, WORKER_TOKEN_ENV, WORKER_TOKEN_FILE, worker};
use crate::client::Client;
use crate::home::{ACCESS_TOKEN, Home, published_token_file};
use crate::router::store;
use crate::router::tidy::Retention;
use crate::{demo, node, router};

/// The environment variable that hands the cluster's token to a node process (never in `argv`,
/// which every user of the machine can read).
pub(crate) const CLUSTER_TOKEN_ENV: &str = "FORGE_CLUSTER_TOKEN";

/// The data folder, unless another is named.
const DATA: &str = "forge-data";
/// Where the router listens, unless told otherwise.
const LISTEN: &str = "127.0.0.1:7420";

/// A replicated Git host on this machine.
///
/// Without a command it serves: the router, its Git smart-HTTP proxy and the node processes, until
/// Ctrl-C. All data lives in one folder; stopping and starting again loses nothing.
#[derive(Debug, Parser)]
#[command(name = "forge", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Create a repository.
    Create(NamedArgs),
    /// Show the nodes, and every repository's version and replicas.
    Status(StatusArgs),
    /// Delete a repository, with everything in it, on every node.
    Delete(repository::DeleteArgs),
    /// Give a repository another name; the old one leads nowhere afterwards.
    Rename(repository::NewNameArgs),
    /// Make a repository of its own that begins with all that another has.
    Fork(repository::NewNameArgs),
    /// Say, or choose, the branch that a clone checks out.
    DefaultBranch(repository::DefaultBranchArgs),
    /// Protect a branch: it cannot be deleted, nor forced. Without a branch: list those that are protected.
    Protect(repository::ProtectArgs),
    /// Sweep out objects that no branch or tag reaches any more, on every node; say what was freed.
    Gc(NamedArgs),
    /// Fold a repository's refs log: old records become segments.
    Compact(NamedArgs),
    /// Compare a repository's replicas by what Git lists on each node; fails if they differ.
    Inspect(InspectArgs),
    /// Throw one replica away and build it again from the log and another replica's objects.
    Rebuild(RebuildArgs),
    /// Move a repository, and what was forked from it, to another shard; it can be read throughout.
    Migrate(MigrateArgs),
    /// Write every repository of a running forge into a new folder: branches, tags, what is protected, all objects.
    Backup(backup::BackupArgs),
    /// Make every repository of a backup in a running forge; those that are there already stay as they are.
    Restore(backup::BackupArgs),
    /// Back the metadata store up, put a backup back, recover what it has forgotten.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print a link that logs a browser in, once, within ten minutes.
    Login(ClientArgs),
    /// The token that users show.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Give Git the token, for this forge alone: `git -c credential.helper='/path/of/forge credential --data DATA' …`.
    Credential(CredentialArgs),
    /// Stop, start, kill or replace a node.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Be a worker: pull jobs from a forge, run them as this user, report.
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Show and check it all by itself: pushes, a killed node, repair, compaction, comparison.
    Demo(DemoArgs),
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Work until Ctrl-C. A worker runs what the repositories of its forge tell it to, as the user that it runs as.
    Run(WorkerArgs),
    /// Run one program of a job, and end it with its worker; a worker starts it.
    #[command(hide = true)]
    Guard {
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        argv: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Put a new token in the old one's place. It holds at once: programs and browsers have to show it anew.
    Rotate(ClientArgs),
}

#[derive(Debug, Args)]
struct CredentialArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// `get`, `store` or `erase`, which Git says.
    #[arg(default_value = "get")]
    act: String,
}

/// A worker process.
#[derive(Debug, Args)]
struct WorkerArgs {
    /// Its name, which no other worker may have [default: worker- and the process id].
    #[arg(long)]
    name: Option<String>,
    /// What it can do: it takes jobs that need no other tags.
    #[arg(long, value_delimiter = ',')]
    tags: Vec<String>,
    /// The folder it builds in; emptied at its start.
    #[arg(long, default_value = "forge-worker")]
    folder: PathBuf,
    /// The router's address [default: that of the forge that serves --data].
    #[arg(long)]
    server: Option<String>,
    /// The data folder of a forge on this machine.
    #[arg(long, default_value = "forge-data")]
    data: PathBuf,
    /// A file with the token of the forge's workers [default: the environment variable `FORGE_WORKER_TOKEN`; else
    /// `worker-token` in --data].
    #[arg(long)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    jobs: crate::ci::JobArgs,
    /// End with the process that holds this one's standard input.
    #[arg(long, hide = true)]
    with_parent: bool,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Let the node end, and keep it down.
    Stop(OneNodeArgs),
    /// Start it again.
    Start(OneNodeArgs),
    /// Kill it with SIGKILL, and keep it down.
    Kill(OneNodeArgs),
    /// Give a node that came back with an empty folder its places again: it learns every repository anew.
    Replace(OneNodeArgs),
    /// Be a node; the router starts it.
    #[command(hide = true)]
    Run(NodeArgs),
}

/// Which router a command talks to.
#[derive(Debug, Args)]
struct ClientArgs {
    /// The router's address [default: that of the forge that serves --data; else the usual one].
    #[arg(long)]
    server: Option<String>,
    /// The data folder of a forge on this machine.
    #[arg(long, default_value = DATA)]
    data: PathBuf,
    /// A file with the forge's token [default: the environment variable `FORGE_TOKEN`; else that of --data, unless --server
    /// names another forge].
    #[arg(long)]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// The repository.
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct RebuildArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// On which node: 1, 2 or 3.
    node: u32,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Where to: nodes 1 to 3 are shard 1, 4 to 6 shard 2, and so on.
    shard: u32,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Write the store as it is now into a new file; a forge may be serving it.
    Backup(BackupArgs),
    /// Put a backup in the store's place; no forge may be serving it. Then start one, and recover.
    Restore(BackupArgs),
    /// After a restore: find out from the nodes what is newest, in every repository. Until then none can be used.
    Recover(ClientArgs),
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// The backup.
    file: PathBuf,
    /// The data folder of a forge on this machine.
    #[arg(long, default_value = DATA)]
    data: PathBuf,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct OneNodeArgs {
    /// Which node: 1, 2 or 3.
    node: u32,
    #[command(flatten)]
    client: ClientArgs,
}

/// How the platform is served.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// The folder that holds everything.
    #[arg(long, default_value = DATA)]
    pub(crate) data: PathBuf,
    /// Where the router listens. Port 0 picks a free one.
    #[arg(long, default_value = LISTEN)]
    pub(crate) listen: SocketAddr,
    /// A name that browsers and Git call this server by, besides this machine's own and the address it listens on; may be
    /// given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// Most connections at once [default: a quarter of the files that may be open, at most 1024]. When there are as many, who
    /// has been idle for longest gives way.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_connections: Option<usize>,
    /// Most connections at once of one address; a proxy in front is one [default: a quarter of all].
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_connections_per_address: Option<usize>,
    /// Node k listens on this port + k [default: the router's port; free ones if that is 0].
    #[arg(long)]
    pub(crate) node_port_base: Option<u16>,
    /// How many node processes there are; three are a shard.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: u32,
    /// The file with the token that users show, made if it is not there [default: `access-token` in the data folder].
    #[arg(long)]
    pub(crate) token_file: Option<PathBuf>,
    /// Let everybody read who reaches the router: repositories, pages, job logs. Changes need the token.
    #[arg(long)]
    pub(crate) public_reads: bool,
    /// No token: everybody on this machine may do everything, jobs with a network among them. On loopback only.
    #[arg(long, conflicts_with_all = ["public_reads", "token_file"])]
    pub(crate) open: bool,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) retention: Retention,
    #[command(flatten)]
    pub(crate) ci: CiArgs,
}

/// How the demo is run.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the data in this folder [default: a temporary one].
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// One node process, as the router's supervisor starts it.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// Which node this is: 1, 2 or 3.
    #[arg(long)]
    pub(crate) id: u32,
    /// The node's own folder.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Where the node listens. Port 0 picks a free one; the router is told.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// The router's address, as `http://HOST:PORT`.
    #[arg(long)]
    pub(crate) router: String,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// What one request may cost.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Limits {
    /// Largest body of one push, in bytes.
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) max_push_bytes: u64,
    /// Most refs that one push may change.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) max_refs_per_push: usize,
    /// Refuse every fault that Git finds in objects, also those of old repositories that harm nobody.
    #[arg(long)]
    pub(crate) strict_objects: bool,
    /// Longest run of one Git process, in seconds.
    #[arg(long, default_value_t = 600)]
    pub(crate) max_git_seconds: u64,
    /// Longest wait of a push for its repository's lock, in seconds.
    #[arg(long, default_value_t = 30)]
    pub(crate) max_wait_seconds: u64,
    /// Most pushes that wait for one repository.
    #[arg(long, default_value_t = 64)]
    pub(crate) max_queue: usize,
}

/// Does what was asked. Errors go to standard error, with all their causes.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Worker(WorkerCommand::Guard { argv }) => return worker::guard::main(&argv),
        Command::Login(args) => with_runtime("warn", login(args)),
        Command::Token(TokenCommand::Rotate(args)) => rotate(&args),
        Command::Credential(args) => credential(&args),
        Command::Worker(WorkerCommand::Run(args)) => with_runtime("forge=info", work(args)),
        Command::Serve(args) => with_runtime("forge=info", serve(args)),
        Command::Node(NodeCommand::Run(args)) => with_runtime("forge=info", node::run(args)),
        Command::Node(NodeCommand::Stop(args)) => with_runtime("warn", order(args, "stop")),
        Command::Node(NodeCommand::Start(args)) => with_runtime("warn", order(args, "start")),
        Command::Node(NodeCommand::Kill(args)) => with_runtime("warn", order(args, "kill")),
        Command::Node(NodeCommand::Replace(args)) => with_runtime("warn", replace(args)),
        Command::Demo(args) => with_runtime("error", demo::run(args)),
        Command::Create(args) => with_runtime("warn", create(args)),
        Command::Status(args) => with_runtime("warn", status(args)),
        Command::Delete(args) => with_runtime("warn", repository::delete(args)),
        Command::Rename(args) => with_runtime("warn", repository::rename(args)),
        Command::Fork(args) => with_runtime("warn", repository::fork(args)),
        Command::DefaultBranch(args) => with_runtime("warn", repository::default_branch(args)),
        Command::Protect(args) => with_runtime("warn", repository::protect(args)),
        Command::Gc(args) => with_runtime("warn", repository::sweep(args)),
        Command::Compact(args) => with_runtime("warn", compact(args)),
        Command::Rebuild(args) => with_runtime("warn", rebuild(args)),
        Command::Migrate(args) => with_runtime("warn", migrate(args)),
        Command::Backup(args) => with_runtime("warn", backup::back_up(args)),
        Command::Restore(args) => with_runtime("warn", backup::restore(args)),
        Command::Store(StoreCommand::Backup(args)) => back_up(&args),
        Command::Store(StoreCommand::Restore(args)) => restore(&args),
        Command::Store(StoreCommand::Recover(args)) => with_runtime("warn", recover(args)),
        Command::Inspect(args) => with_runtime("warn", inspect(args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _closed = writeln!(std::io::stderr(), "error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// `RUST_LOG` overrides what is logged; logs go to standard error.
fn with_runtime(level: &str, task: impl Future<Output = Result<()>>) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    let lines = crate::logs::Sparing::new(tracing_subscriber::fmt::format());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .event_format(lines)
        .init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(task)
}

/// What a command has to say; a closed pipe is no error.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

impl ClientArgs {
    fn client(self) -> Result<Client> {
        let token = self.token()?;
        // Named by nobody, and not here: then it is where a forge listens unless told otherwise.
        let usual = self.data == Path::new(DATA) && !self.data.exists();
        let server = self.server.or_else(|| usual.then(|| format!("http://{LISTEN}")));
        Client::new(server, &self.data, token)
    }

    /// The token of the forge that is talked to. That of the data folder is for the forge that serves it, and no other.
    fn token(&self) -> Result<Option<String>> {
        if let Some(file) = &self.token_file {
            return Ok(Some(SecretFile::read(file)?.expose().to_owned()));
        }
        if let Some(given) = std::env::var_os("FORGE_TOKEN") {
            let given = Secret::new(&given.to_string_lossy()).context("FORGE_TOKEN")?;
            return Ok(Some(given.expose().to_owned()));
        }
        match published_token_file(&self.data).filter(|_| self.server.is_none()) {
            Some(file) => Ok(Some(SecretFile::read(&file)?.expose().to_owned())),
            None => Ok(None),
        }
    }
}

async fn serve(args: ServeArgs) -> Result<()> {
    let data = args.data.clone();
    let ready = move |started: &router::Started| {
        let url = &started.url;
        let program = std::env::current_exe().unwrap_or_else(|_| "forge".into());
        let forge = spoken_path(&program);
        let clone = started.login.as_ref().map_or_else(
            || format!("git clone {url}/demo.git"),
            |_| format!("git clone -c credential.helper={} {url}/demo.git", helper(&program, &data)),
        );
        let login = started.login.as_ref().map_or_else(
            || "open to everybody on this machine".to_owned(),
            |link| format!("{link}\n                                     (for a browser, once; then: {forge} login)"),
        );
        let no_jobs = started.no_jobs.as_ref().map_or_else(String::new, |why| format!("No jobs run: {why}.\n\n"));
        let with = if data == Path::new(DATA) { String::new() } else { format!(" --data {}", data.display()) };
        say(&format!(
            "forge serves {url} with three nodes; data in {}\n\n\
             \x20 {login}\n\
             \x20 {clone}\n\
             \x20 git push {url}/my/project.git HEAD:main      (the first push makes the repository)\n\
             \x20 {forge} status{with}\n\
             \x20 {forge} node kill 2{with}      (and push on; then: node start 2)\n\n\
             {no_jobs}Ctrl-C ends it; nothing is lost.\n",
            data.display()
        ));
    };
    router::serve(args, ready, signalled()?).await
}

/// What makes Git ask this program for the token; as one word of a command line. The token stands in no argument and in
/// no configuration.
fn helper(program: &Path, data: &Path) -> String {
    let plain = |path: &Path| {
        path.to_str().is_some_and(|p| p.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b)))
    };
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    if plain(program) && plain(&data) {
        return format!("'{} credential --data {}'", program.display(), data.display());
    }
    let quoted = |path: &Path| format!("\"{}\"", path.display().to_string().replace(['"', '$', '`', '\\', '\''], "?"));
    format!("'!{} credential --data {}'", quoted(program), quoted(&data))
}

async fn login(args: ClientArgs) -> Result<()> {
    let client = args.client()?;
    match client.login().await? {
        Some(path) => say(&format!("{}{path}\n", client.url())),
        None => say(&format!("{} is open to everybody on its machine\n", client.url())),
    }
    Ok(())
}

fn rotate(args: &ClientArgs) -> Result<()> {
    let file = args.token_file.clone().or_else(|| published_token_file(&args.data));
    let file = file.unwrap_or_else(|| args.data.join(ACCESS_TOKEN));
    SecretFile::rotate(&file)?;
    say(&format!("{} holds a new token; browsers log in anew\n", file.display()));
    Ok(())
}

/// Git's side of it: lines of `name=value`, then an empty one.
fn credential(args: &CredentialArgs) -> Result<()> {
    let asked = std::io::read_to_string(std::io::stdin().take(64 << 10))?;
    let field = |name: &str| asked.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let ours = match &args.client.server {
        Some(server) => server.clone(),
        None => crate::home::published_address(&args.client.data)?,
    };
    let given = format!("{}://{}", field("protocol").unwrap_or_default(), field("host").unwrap_or_default());
    let alias = given.replacen("://localhost", "://127.0.0.1", 1);
    let ours = ours.trim_end_matches('/');
    // Anybody's remote asks the same helper.
    if args.act != "get" || (given != ours && alias != ours) {
        return Ok(());
    }
    let own = ClientArgs { server: None, data: args.client.data.clone(), token_file: args.client.token_file.clone() };
    if let Some(token) = own.token()? {
        say(&format!("username=forge\npassword={token}\n"));
    }
    Ok(())
}

/// A path as it is typed from here.
fn spoken_path(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

async fn work(args: WorkerArgs) -> Result<()> {
    let jobs = args.jobs.decide(&args.folder, &args.data).map_err(|why| anyhow::anyhow!("{why}"))?;
    let token = match (&args.token_file, std::env::var(WORKER_TOKEN_ENV)) {
        (Some(file), _) => std::fs::read_to_string(file).with_context(|| format!("the token in {}", file.display()))?,
        (None, Ok(token)) if !token.is_empty() => token,
        (None, _) => std::fs::read_to_string(args.data.join(WORKER_TOKEN_FILE)).with_context(|| {
            format!(
                "no token: name the data folder of a forge with --data, or put the token of one into {WORKER_TOKEN_ENV}"
            )
        })?,
    };
    let server = match args.server {
        Some(server) => server,
        None => crate::home::published_address(&args.data)?,
    };
    let folder = std::path::absolute(&args.folder)?;
    let options = worker::Options {
        name: args.name.unwrap_or_else(|| format!("worker-{}", std::process::id())),
        server: server.trim_end_matches('/').to_owned(),
        token: token.trim().to_owned(),
        tags: args.tags,
        folder,
        jobs,
        life: if args.with_parent { worker::Life::WithParent } else { worker::Life::OwnMaster },
    };
    worker::run(options).await
}

/// Ends with SIGINT or SIGTERM.
fn signalled() -> Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be caught")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be caught")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn create(args: NamedArgs) -> Result<()> {
    let client = args.client.client()?;
    let made = client.create(&args.name).await?;
    say(&format!("git clone {}/{}.git\n", client.url(), made.name));
    Ok(())
}

async fn status(args: StatusArgs) -> Result<()> {
    let status = args.client.client()?.status().await?;
    say(&if args.json { json(&status)? } else { status.table() });
    Ok(())
}

async fn compact(args: NamedArgs) -> Result<()> {
    let done = args.client.client()?.compact(&args.name).await?;
    say(&format!("{}\n", done.line()));
    Ok(())
}

async fn rebuild(args: RebuildArgs) -> Result<()> {
    let RebuildArgs { named, node } = args;
    let version = named.client.client()?.rebuild(&named.name, node).await?;
    say(&format!("node {node} holds version {version} of {} again\n", named.name));
    Ok(())
}

async fn migrate(args: MigrateArgs) -> Result<()> {
    let MigrateArgs { named, shard } = args;
    let now = named.client.client()?.migrate(&named.name, shard).await?;
    let nodes: Vec<String> = now.nodes.iter().map(u32::to_string).collect();
    say(&format!("{} is on shard {}: nodes {}\n", named.name, now.shard, nodes.join(", ")));
    Ok(())
}

fn back_up(args: &BackupArgs) -> Result<()> {
    store::back_up(&args.data.join("store.db"), &args.file)?;
    say(&format!("{} is a backup of the store\n", args.file.display()));
    Ok(())
}

fn restore(args: &BackupArgs) -> Result<()> {
    // Only whoever has the folder's lock may change the store.
    let home = Home::open(&args.data)?;
    store::restore(&args.file, &home.store(), home.next_generation()?)?;
    say("the backup is in the store's place; start forge, then: forge store recover\n");
    Ok(())
}

async fn recover(args: ClientArgs) -> Result<()> {
    let done = args.client()?.recover().await?;
    say(&done.lines());
    if done.failed.is_empty() { Ok(()) } else { bail!("{} repositories are not recovered", done.failed.len()) }
}

async fn inspect(args: InspectArgs) -> Result<()> {
    let found = args.named.client.client()?.inspect(&args.named.name).await?;
    say(&if args.json { json(&found)? } else { found.table() });
    if found.alike { Ok(()) } else { bail!("the replicas of {} differ", args.named.name) }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

async fn order(args: OneNodeArgs, order: &str) -> Result<()> {
    args.client.client()?.order(args.node, order).await
}

async fn replace(args: OneNodeArgs) -> Result<()> {
    let done = args.client.client()?.replace(args.node).await?;
    say(&done.lines(args.node));
    if done.failed.is_empty() { Ok(()) } else { bail!("in {} repositories it has no place again", done.failed.len()) }
}
