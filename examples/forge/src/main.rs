//! A replicated Git host with CI in one command: a router with the smart-HTTP proxy and the pipelines' task centre, three
//! node processes on loopback, each with real bare repositories, and a fleet of workers. What is decided here is decided
//! by `tenon-quorum`, `tenon-refslog`, `tenon-jobqueue` and `tenon-scaler`; this program does, and tells them what happened.

mod ci;
mod cli;
mod client;
mod clock;
mod demo;
mod git;
mod home;
mod logs;
mod node;
mod router;
mod supervise;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
