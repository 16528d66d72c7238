//! What would my autoscaler have done? A Kubernetes HPA or a KEDA `ScaledObject`, and a recorded day, played as a closed loop.
//!
//! Decisions are `tenon-scaler`'s; this program reads manifests ([`manifest`]) and traces ([`trace`]), makes the world that they
//! meet ([`mod@rehearse`]), and shows what came out ([`output`]).

mod args;
mod condition;
mod cron;
mod day;
mod error;
mod finding;
mod fleet;
mod formula;
#[cfg(test)]
mod hostile;
mod lint;
mod manifest;
mod output;
mod policy;
mod prometheus;
mod quantity;
mod rehearse;
mod trace;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Parser as _;
use jiff::Timestamp;

use crate::args::{Cli, Compare, Lint, Output, Print, Rehearse, Verb};
use crate::condition::Condition;
use crate::day::{Stage, text_of};
use crate::error::{Error, Result};
use crate::finding::{Finding, Level};
use crate::manifest::{Edit, Stream};
use crate::output::Rehearsed;
use crate::rehearse::Outcome;

/// A condition holds, or a warning was found.
const FOUND: u8 = 1;
/// What was given is refused.
const REFUSED: u8 = 2;

fn run(verb: Verb, out: &mut impl Write) -> Result<u8> {
    match verb {
        Verb::Rehearse(options) => rehearse(&options, out),
        Verb::Compare(options) => compare(&options, out),
        Verb::Lint(options) => lint(&options, out),
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
    let conditions = conditions(&options.print)?;
    let stream = stream(&options.policy, &options.set, options.name.as_deref())?;
    let stage = Stage::new(&options.day, &stream.kinds.autoscalers)?;
    let mut outcomes = Vec::new();
    for autoscaler in &stream.kinds.autoscalers {
        outcomes.push(stage.rehearse(autoscaler, stream.workload_of(autoscaler))?);
    }
    let mut pools = Vec::new();
    for fleet in &stream.kinds.fleets {
        let (groups, used) = stage.rehearse_fleet(fleet)?;
        outcomes.extend(groups);
        pools.extend(used);
    }
    let findings = stream.findings.iter().chain(&stage.findings).cloned().collect();
    let result = Rehearsed { outcomes, pools, price: options.day.price };
    tell(&result, &stage, findings, &options.print, out)?;
    judged(&conditions, &result.outcomes)
}

/// Each file as it is, then the first one with each change.
fn compare(options: &Compare, out: &mut impl Write) -> Result<u8> {
    let conditions = conditions(&options.print)?;
    let first = options.policies.first().map(std::slice::from_ref).unwrap_or_default();
    let mut stage = Stage::new(&options.day, &stream(first, &[], options.name.as_deref())?.kinds.autoscalers)?;
    let as_is = options.policies.iter().map(|file| (file, None));
    let changed =
        options.policies.first().into_iter().flat_map(|file| options.set.iter().map(move |set| (file, Some(set))));
    let (mut outcomes, mut findings) = (Vec::new(), stage.findings.clone());
    for (file, set) in as_is.chain(changed) {
        let edits: Vec<String> = set.into_iter().cloned().collect();
        let stream = stream(std::slice::from_ref(file), &edits, options.name.as_deref())?;
        let [autoscaler] = &stream.kinds.autoscalers[..] else {
            return Err(Error::of_file(
                file,
                "must have one HorizontalPodAutoscaler or ScaledObject to be compared: choose one with --name",
            ));
        };
        let mut outcome = stage.rehearse(autoscaler, stream.workload_of(autoscaler))?;
        stage.measure_by(outcome.capacity);
        outcome.title = set.map_or_else(|| file.clone(), |set| format!("{file} with {set}"));
        outcomes.push(outcome);
        findings.extend(stream.findings.into_iter().filter(|_| set.is_none()));
    }
    let result = Rehearsed { outcomes, pools: Vec::new(), price: options.day.price };
    tell(&result, &stage, findings, &options.print, out)?;
    judged(&conditions, &result.outcomes)
}

fn lint(options: &Lint, out: &mut impl Write) -> Result<u8> {
    let stream = stream(&options.policies, &[], options.name.as_deref())?;
    let now = Timestamp::now();
    let mut findings = stream.findings.clone();
    findings.extend(stream.kinds.autoscalers.iter().flat_map(|autoscaler| lint::look(autoscaler, Some(now))));
    findings.sort_by_key(|finding| finding.level);
    let written = match options.output {
        Output::Table if findings.is_empty() => writeln!(out, "nothing to say"),
        Output::Table => findings.iter().try_for_each(|finding| writeln!(out, "{finding}")),
        Output::Json => writeln!(out, "{:#}", serde_json::json!({ "findings": findings })),
    };
    written.map_err(unwritten)?;
    Ok(if findings.iter().any(|finding| finding.level == Level::Warning) { FOUND } else { 0 })
}

fn conditions(print: &Print) -> Result<Vec<Condition>> {
    print.fail_if.iter().map(|text| Condition::parse(text)).collect()
}

/// Prints what came out, and writes the page.
fn tell(
    result: &Rehearsed,
    stage: &Stage,
    mut findings: Vec<Finding>,
    print: &Print,
    out: &mut impl Write,
) -> Result<()> {
    findings.sort_by_key(|finding| finding.level);
    if let Some(file) = &print.report {
        let page = output::page(result, stage, &findings);
        std::fs::write(file, page)
            .map_err(|error| Error::new(format!("--report {}: cannot be written: {error}", file.display())))?;
    }
    let written = match print.output {
        Output::Table => output::table(result, stage, &findings, out),
        Output::Json => writeln!(out, "{:#}", output::document(result, stage, &findings)),
    };
    written.map_err(unwritten)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err passes on")]
fn unwritten(error: io::Error) -> Error {
    Error::new(format!("the output cannot be written: {error}"))
}

/// The exit code: whether a condition holds of an outcome.
fn judged(conditions: &[Condition], outcomes: &[Outcome]) -> Result<u8> {
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
