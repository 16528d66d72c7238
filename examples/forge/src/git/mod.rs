//! Real Git as child processes: found once, spawned safely, bounded in time and output.
//!
//! Every Git process of forge is made here. It sees a cleared environment, no system or user configuration, the settings of
//! [`settings`] above those of the repository, a process group of its own, and it does not outlive the value that stands for it.

pub(crate) mod advertise;
pub(crate) mod objects;
pub(crate) mod pkt;
pub(crate) mod process;
pub(crate) mod refs;
pub(crate) mod repository;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use process::{Invocation, Running};
use tenon_refslog::git::ListingError;

/// The oldest Git that has all forge needs: settings by `GIT_CONFIG_COUNT` (2.31), `repack --geometric` (2.32).
const OLDEST: (u32, u32) = (2, 32);

/// Why a Git process did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("git was not found on PATH; install Git {}.{} or newer, or put it on PATH", OLDEST.0, OLDEST.1)]
    Missing,
    #[error("git {found} is too old; install Git {}.{} or newer", OLDEST.0, OLDEST.1)]
    TooOld { found: String },
    #[error("git {what}: {source}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("git {what} took longer than {} s and was stopped", limit.as_secs())]
    TooSlow { what: &'static str, limit: Duration },
    #[error("git {what} wrote more than {limit} bytes and was stopped")]
    TooMuch { what: &'static str, limit: usize },
    #[error("git {what}: {message}")]
    Failed { what: &'static str, message: String },
    /// A listing of refs that is not complete, so that nothing follows from what it lacks.
    #[error("git for-each-ref: {0}")]
    Listing(#[from] ListingError),
}

impl GitError {
    /// What Git itself said, in one line fit for a client: without `fatal: ` and its like.
    pub(crate) fn in_one_line(&self) -> String {
        let text = self.to_string();
        let mut line: String =
            text.lines().next_back().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        if let GitError::Failed { message, .. } = self {
            line = last_line(message);
        }
        line
    }
}

/// The last line of what Git wrote to standard error, without its `fatal: ` or `error: `.
pub(crate) fn last_line(text: &str) -> String {
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let line = line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: ")).unwrap_or(line);
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The installed Git, and how long one of its processes may run.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    program: PathBuf,
    limit: Duration,
}

impl Git {
    /// Finds Git on `PATH` and checks its version.
    pub(crate) async fn find(limit: Duration) -> Result<Git, GitError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|folder| folder.join("git"))
            .find(|file| file.is_file())
            .ok_or(GitError::Missing)?;
        let git = Git { program, limit };
        let output = git.bare("--version").run(&[]).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.trim().trim_start_matches("git version ").to_owned();
        let mut numbers = found.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(GitError::TooOld { found });
        }
        Ok(git)
    }

    /// A Git command that belongs to no repository.
    pub(crate) fn bare(&self, what: &'static str) -> Invocation {
        Invocation::new(&self.program, what, self.limit)
    }

    /// `git WHAT` on the bare repository in `folder`.
    pub(crate) fn within(&self, folder: &Path, what: &'static str) -> Invocation {
        let mut invocation = self.bare(what);
        invocation.folder(folder);
        for (key, value) in settings() {
            invocation.setting(key, value);
        }
        invocation
    }
}

/// The settings every Git process sees, above whatever stands in the repository's own `config`.
///
/// The first group makes what Git acknowledges durable and keeps it from tidying up on its own; the second disarms every
/// setting by which a repository could make Git run a program or leave the machine.
fn settings() -> [(&'static str, &'static str); 21] {
    [
        ("core.fsync", "all"),
        ("core.fsyncMethod", "fsync"),
        ("core.logAllRefUpdates", "false"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("fetch.unpackLimit", "1"),
        ("transfer.unpackLimit", "1"),
        ("uploadpack.allowFilter", "true"),
        ("uploadpack.allowAnySHA1InWant", "true"),
        ("uploadpack.advertiseRefInWant", "false"),
        ("safe.directory", "*"),
        ("core.hooksPath", "/dev/null"),
        ("core.alternateRefsCommand", "true"),
        ("core.fsmonitor", "false"),
        ("core.sshCommand", "false"),
        ("core.gitProxy", "false"),
        ("core.askPass", "false"),
        ("credential.helper", ""),
        ("http.proxy", ""),
        ("protocol.allow", "never"),
        ("protocol.http.allow", "always"),
    ]
}
