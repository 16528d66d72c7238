//! What a Git repository's refs are now, asked of Git itself.
//!
//! A ref that is missing from the answer counts as deleted, so the answer is taken only if it is complete: whatever Git
//! prints on standard error is looked at, and what it leaves out in silence is searched for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use tenon_refslog::{ObjectFormat, ObjectId, RefName, Value, git};

use crate::progress;

/// All refs of a repository, `HEAD` included.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) format: ObjectFormat,
    pub(crate) entries: Vec<(RefName, Value)>,
}

/// Whether a folder is a repository, bare or with a work tree.
pub(crate) fn is_repository(path: &Path) -> bool {
    path.join(".git").exists() || (path.join("HEAD").exists() && path.join("objects").exists())
}

/// Asks Git for everything. `known` are the refs that were there before: one that Git does not list any more is asked for
/// by name before it counts as deleted.
pub(crate) fn list(repository: &Path, known: impl Iterator<Item = RefName>) -> Result<Listing> {
    let _asking = progress::spinner("asking Git for all refs");
    if !is_repository(repository) {
        bail!("{} is no Git repository", repository.display());
    }
    let format = match ask(repository, &["rev-parse", "--show-object-format"])?.trim_ascii() {
        b"sha1" => ObjectFormat::Sha1,
        b"sha256" => ObjectFormat::Sha256,
        other => bail!("object format {} is not known here", other.escape_ascii()),
    };
    let listed = run(repository, &["for-each-ref", &format!("--format={}", git::FOR_EACH_REF_FORMAT)])?;
    let entries = git::parse_for_each_ref(&listed.stdout, &listed.stderr, format)
        .with_context(|| format!("not all refs of {} can be read", repository.display()))?;
    let mut refs: BTreeMap<RefName, Value> = entries.into_iter().collect();
    // Git prints where a chain of symbolic refs ends, not what each of them holds.
    for (name, value) in refs.iter_mut().filter(|(_, value)| value.target_name().is_some()) {
        *value = symbolic(repository, name)?.with_context(|| format!("'{name}' moved while it was read"))?;
    }
    let mut asked: Vec<RefName> = known.filter(|name| name.as_bytes().starts_with(b"refs/")).collect();
    asked.extend(loose(repository)?);
    for name in asked {
        if !refs.contains_key(&name)
            && let Some(value) = symbolic(repository, &name)?
        {
            refs.insert(name, value);
        }
    }
    let head = RefName::new("HEAD")?;
    // HEAD may be unborn, so it is asked for by itself; a detached one is an id.
    let value = if let Some(value) = symbolic(repository, &head)? {
        value
    } else {
        let id = ask(repository, &["rev-parse", "--verify", "HEAD"]).context("HEAD cannot be read")?;
        ObjectId::from_hex(id.trim_ascii()).context("HEAD cannot be read")?.into()
    };
    refs.insert(head, value);
    Ok(Listing { format, entries: refs.into_iter().collect() })
}

/// What a symbolic ref names, even where that does not exist; `None` where the ref is none, or does not exist.
fn symbolic(repository: &Path, name: &RefName) -> Result<Option<Value>> {
    let mut command = git(repository);
    command.args(["symbolic-ref", "--no-recurse", "-q"]).arg(OsStr::from_bytes(name.as_bytes()));
    let out = command.output().context("cannot run git symbolic-ref")?;
    let said = String::from_utf8_lossy(&out.stderr);
    match out.status.code() {
        Some(0) if said.is_empty() => {
            let target = out.stdout.strip_suffix(b"\n").unwrap_or(&out.stdout);
            let read = RefName::new(target);
            let read = read.with_context(|| format!("'{name}' names '{}'", target.escape_ascii()))?;
            Ok(Some(Value::Symbolic(read)))
        }
        Some(1) if said.is_empty() => Ok(None),
        // One that does not exist is no fault.
        Some(128) if said.trim() == format!("fatal: No such ref: {}", String::from_utf8_lossy(name.as_bytes())) => {
            Ok(None)
        }
        _ => bail!("git symbolic-ref failed for '{name}': {}", said.trim()),
    }
}

/// The names of the loose refs in a repository's folder. Git lists no symbolic ref that leads nowhere, and does not say so; in
/// the folder, it stands as a file. (Under `reftable` there are no such files: a new one that leads nowhere is not seen.)
fn loose(repository: &Path) -> Result<Vec<RefName>> {
    let common = ask(repository, &["rev-parse", "--path-format=absolute", "--git-common-dir"])?;
    let common = PathBuf::from(std::ffi::OsString::from_vec(common.trim_ascii_end().to_vec()));
    let mut names = Vec::new();
    if common.join("reftable").exists() {
        return Ok(names);
    }
    let mut folders = vec![common.join("refs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if let Ok(name) = path.strip_prefix(&common) {
                // What is no name Git has told of, or passes over because it is no ref (a lock, a hidden file).
                names.extend(RefName::new(name.as_os_str().as_bytes()).ok());
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Carries out a transaction in the form of `git update-ref --stdin -z`: all of it, or none of it and an error that says why.
pub(crate) fn transact(repository: &Path, commands: &[u8]) -> Result<()> {
    let mut command = git(repository);
    command.args(["update-ref", "--stdin", "-z"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run git update-ref")?;
    // Git may refuse before it has read all; what it says then counts.
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(commands));
    let out = child.wait_with_output().context("git update-ref")?;
    if !out.status.success() {
        bail!("git update-ref refused: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(written.transpose().map(drop)?)
}

/// Git in English and without any setting from outside of the repository: what it prints is read here.
fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"GIT_") && name != "GIT_EXEC_PATH" {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    // Whose repository it is does not matter: its refs are read, and nothing in it is run.
    command.args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-C"]).arg(repository);
    command
}

fn run(repository: &Path, arguments: &[&str]) -> Result<Output> {
    let asked = || format!("git {}", arguments.first().copied().unwrap_or_default());
    let out = git(repository).args(arguments).output().with_context(|| format!("cannot run {}", asked()))?;
    if out.status.success() {
        return Ok(out);
    }
    let said = String::from_utf8_lossy(&out.stderr);
    bail!("{} failed in {}: {}", asked(), repository.display(), said.trim())
}

/// Runs Git for an answer to which it has nothing to add.
fn ask(repository: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let out = run(repository, arguments)?;
    if !out.stderr.is_empty() {
        bail!("Git said in {}: {}", repository.display(), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(out.stdout)
}
