//! Runs your own `.gitlab-ci.yml` on this machine.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]

mod cli;
mod git;
mod home;
mod junit;
mod live;
mod mask;
mod pipelines;
mod project;
mod queue;
mod report;
mod run;
mod select;
mod settings;
mod shell;
mod snapshot;
mod start;
mod stop;
mod tree;
mod views;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};
use gitlab_ci::{Note, Outcome};
use report::{Format, counted};
use start::Started;

/// How long a job runs whose file says nothing: as on GitLab.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_hours(1);

/// The file or the arguments are wrong, and nothing ran.
const WRONG: u8 = 2;
/// There is no pipeline.
const NONE: u8 = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = match &cli.command {
        Command::Run(args) => args.show.log_format,
        Command::Resume(args) => args.show.log_format,
        Command::List(_)
        | Command::Graph { .. }
        | Command::Explain { .. }
        | Command::Lint(_)
        | Command::Shell { .. }
        | Command::Completions { .. }
        | Command::Clean { .. } => Format::Text,
    };
    match execute(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("error: {why:#}");
            if format == Format::Json {
                let told = serde_json::json!({"event": "ended", "result": "error", "exit": WRONG, "jobs": [], "message": format!("{why:#}")});
                println!("{told}");
            }
            ExitCode::from(WRONG)
        }
    }
}

fn execute(command: Command) -> Result<u8> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Resume(args) => run::resume(&args),
        Command::Shell { job, place, apart } => run::shell(&job, &place, &apart),
        Command::List(args) => look(&args, |started| Ok(views::list(&started.plan))),
        Command::Graph { start, mermaid } => look(&start, |started| {
            Ok(if mermaid { views::mermaid(&started.plan) } else { views::text_graph(&started.plan) })
        }),
        Command::Explain { job, start } => look(&start, |started| {
            let wanted = select::Wanted::default().select(&started.plan)?;
            let found = select::named(&started.plan, &job)?;
            let explain = |at: usize| {
                let told = run::story(&start.place, &started.plan.jobs[at].name);
                views::explain(&started.plan, at, wanted.held[at], told)
            };
            Ok(found.into_iter().map(explain).collect())
        }),
        Command::Lint(args) => look(&args, |started| {
            let notes: Vec<String> = started.plan.notes.iter().map(|note: &Note| format!("{note}\n")).collect();
            let (jobs, files) = (counted(started.plan.jobs.len(), "job"), counted(started.plan.files.len(), "file"));
            Ok(format!("{}{jobs} from {files}: nothing is in the way\n", notes.concat()))
        }),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pipeline", &mut std::io::stdout());
            Ok(0)
        }
        Command::Clean { place, keep } => {
            let repository = git::Repository::find(&place.directory)?;
            let home = home::Home::of(&repository.root, place.state_dir.as_deref())?;
            let (count, bytes) = home.clean(keep << 20)?;
            println!("{count} runs and caches removed, {} MiB", bytes >> 20);
            Ok(0)
        }
    }
}

/// A plan that is not run.
struct Looked {
    plan: gitlab_ci::Plan,
}

fn look(args: &cli::StartArgs, show: impl FnOnce(&Looked) -> Result<String>) -> Result<u8> {
    let started = Started::new(args)?;
    match started.plan()? {
        Outcome::Pipeline(plan) => {
            print!("{}", show(&Looked { plan })?);
            Ok(0)
        }
        Outcome::None { reason, .. } => {
            println!("no pipeline: {reason}");
            Ok(NONE)
        }
    }
}
