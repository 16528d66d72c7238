//! A replicated Git host in one command: a router with the smart-HTTP proxy and three node
//! processes on loopback, each with real bare repositories. What is decided here is decided by
//! `tenon-quorum` and `tenon-refslog`; this program does, and tells them what happened.

#[expect(dead_code, reason = "joins the router with its store")]
mod ci;
mod cli;
mod client;
mod demo;
mod git;
mod home;
mod node;
mod router;
mod supervise;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
