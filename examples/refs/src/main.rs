//! A log of a Git repository's refs, kept in a folder: import, read, undo, compact, compare, export, verify.
//!
//! Everything is decided by `tenon-refslog`; this program reads and writes files ([`store`]) and asks Git ([`repository`]).

mod compact;
mod import;
mod note;
mod place;
mod progress;
mod repository;
mod show;
mod store;
mod undo;
mod verify;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::note::Note;
use crate::place::Place;
use crate::show::Text;
use crate::undo::Chosen;

/// Keeps the history of a Git repository's refs in a folder, in few bytes.
///
/// A PLACE is a log's folder, optionally at a version (`LOG@12`), or a Git repository as it is now.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Brings a log up to what a repository's refs are now; makes the log where there is none
    Import {
        /// The repository, bare or not
        repository: PathBuf,
        /// The log's folder
        log: PathBuf,
        /// Who made the changes since the last import, to be kept with them
        #[arg(long, value_name = "NAME")]
        actor: Option<String>,
        /// By which push the changes came, to be kept with them
        #[arg(long, value_name = "ID")]
        push: Option<String>,
    },
    /// Prints what a log holds: its snapshot, segments and records, or the history of one ref
    Log {
        /// The log's folder
        log: PathBuf,
        /// The full name of a ref, to see only what became of it
        name: Option<String>,
        /// Print every change, not only how many there are
        #[arg(long, conflicts_with = "name")]
        changes: bool,
    },
    /// Gives back to a repository what refs held before a version, a push or an actor, where nobody has moved them since
    Undo {
        /// The log's folder
        log: PathBuf,
        /// The repository, which must be as the log's newest version says
        repository: PathBuf,
        #[command(flatten)]
        chosen: Chosen,
        /// Say what would be given back and what cannot be, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Folds records into segments, and old segments into the snapshot
    Compact {
        /// The log's folder
        log: PathBuf,
        /// Versions before the newest that can still be asked for, each one: their records are not folded
        #[arg(long, default_value_t = 1_000, value_name = "VERSIONS")]
        keep: u64,
        /// Most bytes that one step may read
        #[arg(long, default_value_t = u64::MAX, value_name = "BYTES", hide_default_value = true)]
        budget: u64,
        /// Say what the first step would be, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints what two places differ in
    Diff {
        /// The place to start from
        from: Place,
        /// The place to go to
        to: Place,
        /// Print input of `git update-ref --stdin -z` that leads from one to the other
        #[arg(long)]
        update_ref: bool,
    },
    /// Prints all refs of a place, as Git would
    Export {
        /// The place
        place: Place,
        /// Only refs whose names start so
        #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
        only: String,
        /// The text format
        #[arg(long = "as", value_enum, default_value_t = Text::PackedRefs, value_name = "FORMAT")]
        text: Text,
        /// A file to write, instead of printing
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Reads every byte of a log and says whether all of it is as it was written
    Verify {
        /// The log's folder
        log: PathBuf,
        /// A repository that must hold what the log ends with
        #[arg(long, value_name = "REPOSITORY")]
        against: Option<PathBuf>,
    },
}

fn run(verb: Verb, out: &mut impl Write) -> Result<()> {
    match verb {
        Verb::Import { repository, log, actor, push } => {
            import::import(&repository, &log, &Note { actor, push, ..Note::now()? }, out)
        }
        Verb::Log { log, name: Some(name), .. } => show::history(&log, &name, out),
        Verb::Log { log, name: None, changes } => {
            let detail = if changes { show::Detail::Changes } else { show::Detail::Counts };
            show::pieces(&log, detail, out)
        }
        Verb::Undo { log, repository, chosen, dry_run: true } => undo::plan(&log, &repository, &chosen, out),
        Verb::Undo { log, repository, chosen, dry_run: false } => undo::undo(&log, &repository, &chosen, out),
        Verb::Compact { log, keep, budget, dry_run } => {
            let rule = compact::rule(keep)?;
            if dry_run { compact::plan(&log, rule, budget, out) } else { compact::compact(&log, rule, budget, out) }
        }
        Verb::Diff { from, to, update_ref } => {
            let changes = show::Changes::between(&from, &to)?;
            if update_ref { changes.write_update_ref(out) } else { changes.write(out) }
        }
        Verb::Export { place, only, text, output: None } => show::export(&place, only.as_bytes(), text, out),
        Verb::Export { place, only, text, output: Some(file) } => {
            let mut bytes = Vec::new();
            show::export(&place, only.as_bytes(), text, &mut bytes)?;
            store::write_whole(&file, &bytes)
        }
        Verb::Verify { log, against } => verify::verify(&log, against.as_deref(), out),
    }
}

fn main() -> ExitCode {
    let verb = Args::parse().verb;
    let mut out = BufWriter::new(io::stdout().lock());
    let done = run(verb, &mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has gone: it has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "refs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
