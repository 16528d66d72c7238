//! Snapshots of a Git repository's refs on the command line: take, read, compare.
#![allow(clippy::print_stdout, reason = "printing is what this program does")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tenon_refslog::{
    Change, ChecksumKey, Config, LineageId, ObjectFormat, Records, RefName, Refs, Snapshot, Value, Version, diff, git,
};

/// Snapshots of a Git repository's refs: take one, read it, compare two.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Writes a snapshot of a repository's refs, HEAD included.
    Take {
        /// The repository.
        repository: PathBuf,
        /// The snapshot to write.
        file: PathBuf,
    },
    /// Prints every ref in a snapshot.
    List {
        /// The snapshot.
        file: PathBuf,
    },
    /// Prints what one ref held.
    Get {
        /// The snapshot.
        file: PathBuf,
        /// The ref's full name.
        name: String,
    },
    /// Prints what two snapshots differ in.
    Diff {
        /// The earlier snapshot.
        from: PathBuf,
        /// The later snapshot.
        to: PathBuf,
    },
    /// Prints `git update-ref --stdin -z` input that brings a repository from one snapshot to another.
    Update {
        /// What the repository holds.
        from: PathBuf,
        /// What it is to hold.
        to: PathBuf,
    },
    /// Prints the records of a log file, and whether its end was cut off.
    Log {
        /// The log.
        file: PathBuf,
    },
}

/// Snapshots of this program are not compared with other hosts': a fixed key is no secret, and needs to be none.
const KEY: [u8; 32] = *b"tenon refs: a key that is public";

fn main() -> Result<()> {
    match Args::parse().what {
        What::Take { repository, file } => take(&repository, &file),
        What::List { file } => {
            let mut lines = Vec::new();
            open(&file)?.for_each(|name, value| lines.push(format!("{value} {name}")))?;
            print_lines(lines)
        }
        What::Get { file, name } => match open(&file)?.get(&RefName::new(&name)?)? {
            Some(value) => print_lines([value.to_string()]),
            None => bail!("{name} is not in {}", file.display()),
        },
        What::Diff { from, to } => {
            let shown = |value: Option<&Value>| value.map_or("-".to_owned(), ToString::to_string);
            let line = |change: &Change| {
                format!("{} {} {}", shown(change.old().value()), shown(change.new_value()), change.name())
            };
            print_lines(diff(&load(&from)?, &load(&to)?).iter().map(line))
        }
        What::Update { from, to } => {
            let (from, to) = (load(&from)?, load(&to)?);
            let texts = git::write_changes(&diff(&from, &to), to.config().format());
            let mut out = std::io::stdout().lock();
            for (at, text) in texts.iter().enumerate() {
                // Each text is a transaction of its own.
                out.write_all(if at == 0 { b"start\0" } else { b"commit\0start\0" })?;
                out.write_all(text)?;
            }
            Ok(out.write_all(if texts.is_empty() { b"" } else { b"commit\0" })?)
        }
        What::Log { file } => {
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            for record in Records::new(bytes) {
                match record {
                    Ok(record) => {
                        let checksum = record.after().checksum;
                        print_lines([format!("{} {checksum} {} changes", record.version(), record.changes().len())])?;
                    }
                    Err(cut) if cut.is_torn() => print_lines([format!("cut short at byte {}", cut.offset())])?,
                    Err(damage) => return Err(damage).context("the log is damaged; do not append to it"),
                }
            }
            Ok(())
        }
    }
}

/// Prints, and ends quietly where the reader has gone.
fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        match writeln!(out, "{line}") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

fn ask_git(repository: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let asked = format!("git {}", arguments.join(" "));
    let out = Process::new("git").arg("-C").arg(repository).args(arguments).output();
    let out = out.with_context(|| format!("cannot run {asked}"))?;
    if !out.status.success() {
        bail!("{asked}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(out.stdout)
}

fn take(repository: &Path, file: &Path) -> Result<()> {
    let format = match ask_git(repository, &["rev-parse", "--show-object-format"])?.trim_ascii() {
        b"sha1" => ObjectFormat::Sha1,
        b"sha256" => ObjectFormat::Sha256,
        other => bail!("unknown object format {}", other.escape_ascii()),
    };
    let listed = ask_git(repository, &["for-each-ref", &format!("--format={}", git::FOR_EACH_REF_FORMAT)])?;
    let mut entries = git::parse_for_each_ref(&listed, format)?;
    // HEAD may be unborn, so it is asked for by itself; a detached one is an id.
    let head = match ask_git(repository, &["symbolic-ref", "-q", "HEAD"]) {
        Ok(target) => Value::Symbolic(RefName::new(target.trim_ascii())?),
        Err(_) => tenon_refslog::ObjectId::from_hex(ask_git(repository, &["rev-parse", "HEAD"])?.trim_ascii())?.into(),
    };
    entries.push((RefName::new("HEAD")?, head));
    let config = Config::builder(format, ChecksumKey::new(KEY)).build()?;
    let refs = Refs::from_entries(config, LineageId(0), Version(1), entries)?;
    let snapshot = refs.snapshot();
    std::fs::write(file, snapshot.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    print_lines([format!("{} refs, {} bytes, checksum {}", refs.len(), snapshot.as_bytes().len(), refs.checksum())])
}

fn open(file: &Path) -> Result<Snapshot> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Snapshot::open(bytes).with_context(|| format!("{} is no snapshot", file.display()))
}

fn load(file: &Path) -> Result<Refs> {
    let snapshot = open(file)?;
    let config = Config::builder(snapshot.format(), ChecksumKey::new(KEY)).build()?;
    Refs::restore(config, &snapshot).with_context(|| format!("{} is damaged", file.display()))
}
