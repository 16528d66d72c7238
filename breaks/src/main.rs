//! Does each safety rule have a test that notices when it is broken?
//!
//! A crate lists its breaks in `tests/breaks.txt`. Each is made in a copy of the crate, and the crate's own tests must
//! fail on it. Prints a Markdown table, rule → what noticed; fails if a break survives.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints what it found")]

mod copy;
mod list;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::copy::{Copy, Verdict};

/// Break the safety rules of a crate on purpose, one at a time, and name the test that notices.
#[derive(Parser)]
struct Options {
    /// The crate's folder: quorum, refslog, jobqueue, scaler, or one under examples/lib.
    folder: String,
    /// Only the breaks whose rule contains one of these texts.
    rules: Vec<String>,
}

fn run(options: &Options) -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the program's own folder has no parent")?;
    let mut breaks = list::read(&root.join(&options.folder))?;
    let chosen = |rule: &str| options.rules.is_empty() || options.rules.iter().any(|text| rule.contains(text));
    breaks.retain(|broken| chosen(&broken.rule));
    ensure!(!breaks.is_empty(), "no break's rule contains {}", options.rules.join(" or "));
    let mut tests: Vec<String> = breaks.iter().flat_map(|broken| broken.tests.clone()).collect();
    tests.sort_unstable();
    tests.dedup();
    eprintln!("{} breaks; first the unbroken crate: {}", breaks.len(), tests.join(", "));
    let copy = Copy::of(root, &options.folder)?;
    copy.passes(&tests)?;
    println!("| broken on purpose | noticed by |\n|---|---|");
    let mut survivors = Vec::new();
    for broken in &breaks {
        match copy.try_break(broken)? {
            Verdict::Noticed(test) => println!("| {} | `{test}` |", broken.rule),
            Verdict::Survived => {
                println!("| {} | **nothing** |", broken.rule);
                survivors.push(broken.rule.clone());
            }
        }
    }
    Ok(survivors)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(survivors) if survivors.is_empty() => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("{} survived: {}", survivors.len(), survivors.join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
