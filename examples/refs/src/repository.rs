//! What a Git repository's refs are now, asked of Git itself.

use std::path::Path;
use std::process::Command;

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

/// Asks Git for everything.
pub(crate) fn list(repository: &Path) -> Result<Listing> {
    let _asking = progress::spinner("asking Git for all refs");
    if !is_repository(repository) {
        bail!("{} is no Git repository", repository.display());
    }
    let format = match ask(repository, &["rev-parse", "--show-object-format"])?.trim_ascii() {
        b"sha1" => ObjectFormat::Sha1,
        b"sha256" => ObjectFormat::Sha256,
        other => bail!("object format {} is not known here", other.escape_ascii()),
    };
    let listed = ask(repository, &["for-each-ref", &format!("--format={}", git::FOR_EACH_REF_FORMAT)])?;
    let mut entries =
        git::parse_for_each_ref(&listed, format).context("git for-each-ref printed what it never does")?;
    // HEAD may be unborn, so it is asked for by itself; a detached one is an id.
    let head = match ask(repository, &["symbolic-ref", "-q", "HEAD"]) {
        Ok(target) => Value::Symbolic(RefName::new(target.trim_ascii()).context("HEAD's target")?),
        Err(_) => ObjectId::from_hex(ask(repository, &["rev-parse", "HEAD"])?.trim_ascii()).context("HEAD")?.into(),
    };
    entries.push((RefName::new("HEAD")?, head));
    Ok(Listing { format, entries })
}

fn ask(repository: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let asked = || format!("git {}", arguments.first().copied().unwrap_or_default());
    // Whose repository it is does not matter: its refs are read, and nothing in it is run.
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-C"]).arg(repository).args(arguments);
    let out = command.output().with_context(|| format!("cannot run {}", asked()))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let said = String::from_utf8_lossy(&out.stderr);
    bail!("{} failed in {}: {}", asked(), repository.display(), said.trim())
}
