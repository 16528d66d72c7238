//! The command line: what the program can be asked, and the one place where errors are printed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The environment variable that hands the cluster's token to a node process (never in `argv`,
/// which every user of the machine can read).
pub(crate) const CLUSTER_TOKEN_ENV: &str = "FORGE_CLUSTER_TOKEN";

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
}

/// How the platform is served.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// The folder that holds everything.
    #[arg(long, default_value = "forge-data")]
    pub(crate) data: PathBuf,
    /// Where the router listens. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7420")]
    pub(crate) listen: SocketAddr,
    /// Node k listens on this port + k [default: the router's port; free ones if that is 0].
    #[arg(long)]
    pub(crate) node_port_base: Option<u16>,
    /// Required of writers (as HTTP password, or as bearer) when the router can be reached from
    /// other machines.
    #[arg(long, env = "FORGE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
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
