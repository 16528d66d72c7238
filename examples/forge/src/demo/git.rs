//! The stock `git` of a user with a home folder of its own, run within bounds.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::client::Client as Api;

/// No run of a client may take longer.
const LONGEST: Duration = Duration::from_mins(1);

/// A user's Git in one folder.
#[derive(Clone, Debug)]
pub(super) struct Client {
    name: String,
    folder: PathBuf,
    /// A header, for no other eyes.
    token: String,
}

impl Client {
    /// A user with an empty repository, whose `origin` is `repo` of a forge.
    pub(super) async fn new(home: &Path, name: &str, api: &Api, repo: &str) -> Result<Self> {
        let folder = home.join(name);
        std::fs::create_dir_all(&folder)?;
        let token = format!("Authorization: Bearer {}", api.token().unwrap_or_default());
        let client = Self { name: name.to_owned(), folder, token };
        client.run(&["init", "-q", "-b", "main", "."]).await?;
        client.run(&["remote", "add", "origin", &format!("{}/{repo}.git", api.url())]).await?;
        Ok(client)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs git; its standard output.
    ///
    /// # Errors
    /// It failed: with what it said.
    pub(super) async fn run(&self, args: &[&str]) -> Result<String> {
        let out = Command::new("git")
            .args(["-c", "gc.auto=0"])
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", &self.token)
            .env("GIT_AUTHOR_NAME", &self.name)
            .env("GIT_AUTHOR_EMAIL", "user@example.org")
            .env("GIT_COMMITTER_NAME", &self.name)
            .env("GIT_COMMITTER_EMAIL", "user@example.org")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let out = tokio::time::timeout(LONGEST, out).await;
        let out = out.with_context(|| format!("git {args:?} did not end within {LONGEST:?}"))??;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned());
        }
        let both = [out.stdout, out.stderr].concat();
        bail!("git {args:?}: {}", String::from_utf8_lossy(&both).trim())
    }

    /// The folder that it works in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Commits a new file on top of what is checked out; its id.
    pub(super) async fn commit(&self, what: &str) -> Result<String> {
        tokio::fs::write(self.folder.join(what), format!("{what} by {}\n", self.name).repeat(20)).await?;
        self.run(&["add", what]).await?;
        self.run(&["commit", "-q", "-m", what]).await?;
        self.run(&["rev-parse", "HEAD"]).await
    }

    /// What the server shows: `id name` lines, sorted, those under `pattern`.
    pub(super) async fn remote_refs(&self, pattern: &str) -> Result<Vec<(String, String)>> {
        let out = self.run(&["ls-remote", "--refs", "origin", pattern]).await?;
        let line = |line: &str| line.split_once('\t').map(|(id, name)| (name.to_owned(), id.to_owned()));
        Ok(out.lines().filter_map(line).collect())
    }
}
