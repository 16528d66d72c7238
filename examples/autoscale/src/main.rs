//! What would my autoscaler have done? A Kubernetes HPA or a KEDA `ScaledObject`, and a recorded day, played as a closed loop.
//!
//! Decisions are `tenon-scaler`'s; this program reads manifests ([`manifest`]) and traces ([`trace`]), makes the world that they
//! meet ([`rehearse`]), and shows what came out ([`output`]).

mod args;
mod condition;
mod cron;
mod day;
mod error;
mod finding;
mod formula;
mod manifest;
mod output;
mod policy;
mod quantity;
mod rehearse;
mod trace;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Output, Rehearse, Verb};
use crate::condition::Condition;
use crate::day::{Stage, text_of};
use crate::error::{Error, Result};
use crate::manifest::{Edit, Stream};

/// A condition holds, or a warning was found.
const FOUND: u8 = 1;
/// What was given is refused.
const REFUSED: u8 = 2;

fn run(verb: Verb, out: &mut impl Write) -> Result<u8> {
    match verb {
        Verb::Rehearse(options) => rehearse(&options, out),
    }
}

/// All manifests of some files.
fn stream(files: &[String], edits: &[String], name: Option<&str>) -> Result<Stream> {
    let edits: Vec<Edit> = edits.iter().map(|text| Edit::parse(text)).collect::<Result<_>>()?;
    let mut stream = Stream::default();
    for file in files {
        let shown = if file == "-" { "standard input" } else { file };
        manifest::read(shown, &text_of(file)?, &edits, &mut stream)?;
    }
    stream.choose(name)?;
    Ok(stream)
}

fn rehearse(options: &Rehearse, out: &mut impl Write) -> Result<u8> {
    let conditions: Vec<Condition> =
        options.fail_if.iter().map(|text| Condition::parse(text)).collect::<Result<_>>()?;
    let stream = stream(&options.policy, &options.set, options.name.as_deref())?;
    let stage = Stage::new(&options.day)?;
    let mut outcomes = Vec::new();
    for autoscaler in &stream.autoscalers {
        outcomes.push(stage.rehearse(autoscaler, stream.workload_of(autoscaler))?);
    }
    let mut findings: Vec<_> = stream.findings.iter().chain(&stage.findings).cloned().collect();
    findings.sort_by_key(|finding| finding.level);
    if let Some(file) = &options.report {
        let page = output::page(&outcomes, &stage, &findings, options.day.price);
        std::fs::write(file, page)
            .map_err(|error| Error::new(format!("--report {}: cannot be written: {error}", file.display())))?;
    }
    let written = match options.output {
        Output::Table => output::table(&outcomes, &stage, &findings, options.day.price, out),
        Output::Json => writeln!(out, "{:#}", output::document(&outcomes, &stage, &findings)),
    };
    written.map_err(|error| Error::new(format!("the output cannot be written: {error}")))?;
    let mut code = 0;
    for (condition, outcome) in conditions.iter().flat_map(|held| outcomes.iter().map(move |outcome| (held, outcome))) {
        if let Some(text) = condition.holds(outcome)? {
            let _ = writeln!(io::stderr(), "autoscale: {text}");
            code = FOUND;
        }
    }
    Ok(code)
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let mut out = BufWriter::new(io::stdout().lock());
    let code = run(verb, &mut out);
    let flushed = out.flush();
    match code {
        Ok(code) => match flushed {
            // A reader that has gone has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(REFUSED),
            _ => ExitCode::from(code),
        },
        Err(error) => {
            let _ = writeln!(io::stderr(), "autoscale: {error}");
            ExitCode::from(REFUSED)
        }
    }
}
