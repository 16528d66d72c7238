//! Days of a whole code platform in virtual time: the real crates, one seed, every law watched.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]

mod chance;
mod day;
mod faults;
mod fleet;
mod job_ledger;
mod jobs;
mod ledger;
mod report;
mod repos;
mod shrink;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;

use day::{Plan, Summary};
use faults::Weather;

/// Run days of a code platform, in virtual time, and watch every law.
///
/// Exits with 0 if every day passed, with 1 if a law was broken; then the command that replays it is printed.
#[derive(Parser, Debug)]
#[command(version)]
struct Options {
    /// The seed of the first day; the same seed gives the same day.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many days, each with the next seed.
    #[arg(long, default_value_t = 1)]
    days: u64,
    /// How long a day is, in hours.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// How many repositories there are; a few are busy, most are not (Zipf).
    #[arg(long, default_value_t = 200)]
    repos: u64,
    /// How many pushes a day has; each starts a pipeline of four to six jobs. Reads are seven times as many.
    #[arg(long, default_value_t = 2_000)]
    pipelines_per_day: u64,
    /// What goes wrong.
    #[arg(long, value_enum, default_value_t = Weather::Faulty)]
    weather: Weather,
    /// How many routers share the metadata store.
    #[arg(long, default_value_t = 3)]
    routers: usize,
    /// How many task centres share the queue's database.
    #[arg(long, default_value_t = 3)]
    engines: usize,
    /// How many repositories a router keeps in memory; with 0 everything is evicted at once.
    #[arg(long, default_value_t = 65_536)]
    awake: u32,
    /// Which faults of the schedule happen, by number, comma-separated; all unless it is said.
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<usize>>,
    /// Prints the day's schedule of faults, with their numbers, and runs nothing.
    #[arg(long)]
    list_faults: bool,
    /// Writes a page that shows the (last) day.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Runs each day twice, and fails if the two differ.
    #[arg(long)]
    twice: bool,
    /// Says nothing but the last line.
    #[arg(long, short)]
    quiet: bool,
}

impl Options {
    fn plan(&self, seed: u64) -> Plan {
        Plan {
            seed,
            hours: self.hours.max(1),
            repos: self.repos.max(1),
            pipelines_per_day: self.pipelines_per_day.max(1),
            weather: self.weather,
            routers: self.routers.max(1),
            engines: self.engines.max(1),
            awake: self.awake,
            only: self.faults.clone(),
        }
    }
}

/// The command that runs this day again.
fn command(plan: &Plan) -> String {
    let weather = format!("{:?}", plan.weather).to_lowercase();
    let only = plan.only.as_ref().map(|only| {
        let numbers: Vec<String> = only.iter().map(ToString::to_string).collect();
        format!(" --faults {}", numbers.join(","))
    });
    format!(
        "cargo run --release -p simulator -- --seed {} --hours {} --repos {} --pipelines-per-day {} --weather {weather} \
         --routers {} --engines {} --awake {}{}",
        plan.seed,
        plan.hours,
        plan.repos,
        plan.pipelines_per_day,
        plan.routers,
        plan.engines,
        plan.awake,
        only.unwrap_or_default()
    )
}

fn percent(good: u64, bad: u64) -> String {
    let share = (good * 1_000_000).checked_div(good + bad).unwrap_or(1_000_000);
    format!("{}.{:04} %", share / 10_000, share % 10_000)
}

/// In how many ms so many percent of all waits were over, at most.
fn wait(waits: &[u64; 32], percent: u64) -> u64 {
    let all: u64 = waits.iter().sum();
    let mut seen = 0;
    for (class, count) in waits.iter().enumerate() {
        seen += count;
        if seen * 100 >= all * percent {
            return 1 << class;
        }
    }
    0
}

fn tell(plan: &Plan, summary: &Summary, took: f64) {
    println!(
        "seed {}: passed; {} events in {took:.1} s; {} pushes ({} answered as applied), {} reads ({} served in time); \
         {} pipelines, {} jobs done, waits {} s (half), {} s (99 %); fleet at most {}, {} instance-hours; {} faults, all well \
         {} min after the last; digest {:016x}",
        plan.seed,
        summary.events,
        summary.pushes + summary.failed_pushes,
        percent(summary.pushes, summary.failed_pushes),
        summary.reads + summary.failed_reads,
        percent(summary.reads, summary.failed_reads),
        summary.pipelines,
        summary.results,
        wait(&summary.waits, 50) / 1_000,
        wait(&summary.waits, 99) / 1_000,
        summary.peak,
        summary.instance_hours,
        summary.faults.len(),
        summary.healed_ms / 60_000,
        summary.digest
    );
    for (reason, count) in &summary.failures {
        println!("  {count:>6} pushes: {reason}");
    }
}

fn run(options: &Options) -> Result<bool> {
    if options.list_faults {
        for (number, (at, fault)) in options.plan(options.seed).faults().iter().enumerate() {
            println!("{number:>3}  {:>2}:{:02}  {fault}", at / 3_600_000, at / 60_000 % 60);
        }
        return Ok(true);
    }
    let mut passed = 0;
    for seed in options.seed..options.seed + options.days {
        let (plan, start) = (options.plan(seed), Instant::now());
        let mut progress = |now: u64, so_far: &Summary| {
            if !options.quiet && options.days == 1 {
                eprint!(
                    "\r{:>2}:{:02}  {} events, {} pushes  ",
                    now / 3_600_000,
                    now / 60_000 % 60,
                    so_far.events,
                    so_far.pushes
                );
            }
        };
        let told = day::run(&plan, &mut progress)?;
        if !options.quiet && options.days == 1 {
            eprintln!();
        }
        match told {
            Ok(summary) => {
                if options.twice {
                    let again =
                        day::run(&plan, &mut |_, _| {})?.map_err(|again| anyhow::anyhow!("{}", again.broken))?;
                    anyhow::ensure!(again.digest == summary.digest, "seed {seed}: two runs of one day differ");
                }
                if !options.quiet {
                    tell(&plan, &summary, start.elapsed().as_secs_f64());
                }
                if let Some(path) = &options.report {
                    std::fs::write(path, report::page(&plan, &summary, &command(&plan)))
                        .with_context(|| format!("{} cannot be written", path.display()))?;
                }
                passed += 1;
            }
            Err(violation) => {
                println!(
                    "seed {seed}: BROKEN at event {}, {} ms into the day: {}",
                    violation.event, violation.at, violation.broken
                );
                println!("replay: {}", command(&plan));
                let (least, tries) = shrink::shrink(&plan)?;
                println!("with as few faults as were found in {tries} tries: {}", command(&least));
                for (number, (at, fault)) in least.faults().iter().enumerate() {
                    if least.only.as_ref().is_none_or(|only| only.contains(&number)) {
                        println!("  {number:>3}  {:>2}:{:02}  {fault}", at / 3_600_000, at / 60_000 % 60);
                    }
                }
                println!("broken: {passed} days passed, 1 did not");
                return Ok(false);
            }
        }
    }
    println!("passed: {passed} days, {:?}", options.weather);
    Ok(true)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("simulator: {why:#}");
            ExitCode::from(2)
        }
    }
}
