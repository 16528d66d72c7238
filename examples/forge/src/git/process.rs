//! One Git process: its environment, its process group, its limits, its end.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::{GitError, last_line};

/// The most that [`Invocation::run`] takes from standard output unless told otherwise: the refs of a very large repository.
const OUTPUT_LIMIT: usize = 256 << 20;
/// What is kept of standard error: enough for the reason, not enough to hurt.
const STDERR_LIMIT: usize = 16 << 10;

/// A Git command on its way to being spawned.
#[derive(Debug)]
pub(crate) struct Invocation {
    command: Command,
    what: &'static str,
    limit: Duration,
    settings: usize,
    output: Option<File>,
}

/// What a finished Git process left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl Invocation {
    pub(super) fn new(program: &Path, what: &'static str, limit: Duration) -> Invocation {
        let mut command = Command::new(program);
        command.arg(what).env_clear().process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        for (name, value) in [
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_COMMITTER_NAME", "forge"),
            ("GIT_COMMITTER_EMAIL", "forge@localhost"),
        ] {
            command.env(name, value);
        }
        Invocation { command, what, limit, settings: 0, output: None }
    }

    /// Runs in `folder`, which is the bare repository itself.
    pub(super) fn folder(&mut self, folder: &Path) {
        self.command.current_dir(folder).env("GIT_DIR", folder);
    }

    /// Sets a configuration value above the repository's own.
    pub(crate) fn setting(&mut self, key: &str, value: impl AsRef<OsStr>) -> &mut Invocation {
        let at = self.settings;
        self.settings += 1;
        self.command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        self.command.env("GIT_CONFIG_COUNT", self.settings.to_string());
        self
    }

    pub(crate) fn env(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Invocation {
        self.command.env(name, value);
        self
    }

    pub(crate) fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Invocation {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Invocation {
        self.command.args(args);
        self
    }

    /// Sends standard output to a file.
    pub(crate) fn output_to(&mut self, file: File) -> &mut Invocation {
        self.output = Some(file);
        self
    }

    /// Starts the process in a group of its own.
    ///
    /// # Errors
    /// The program could not be started; nothing runs.
    pub(crate) fn spawn(&mut self) -> Result<Running, GitError> {
        if let Some(file) = self.output.take() {
            self.command.stdout(Stdio::from(file));
        }
        let mut child = self.command.spawn().map_err(|source| GitError::Io { what: self.what, source })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let stderr = child.stderr.take().map(|stderr| tokio::spawn(keep_stderr(stderr)));
        Ok(Running {
            what: self.what,
            limit: self.limit,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr,
            child,
            group,
        })
    }

    /// Runs the process with `input` on standard input until it succeeds.
    ///
    /// # Errors
    /// It could not be started, ran too long, wrote too much, or ended with another status than 0.
    pub(crate) async fn run(&mut self, input: &[u8]) -> Result<Output, GitError> {
        let output = self.run_to_end(input).await?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(GitError::Failed { what: self.what, message: failure(&output) })
        }
    }

    /// Runs the process with `input` on standard input to its end, whatever its status.
    ///
    /// # Errors
    /// It could not be started, ran too long or wrote too much.
    pub(crate) async fn run_to_end(&mut self, input: &[u8]) -> Result<Output, GitError> {
        let running = self.spawn()?;
        let (what, limit) = (self.what, self.limit);
        match tokio::time::timeout(limit, running.feed(input)).await {
            Ok(output) => output,
            Err(_) => Err(GitError::TooSlow { what, limit }),
        }
    }
}

/// What to say of a process that failed.
fn failure(output: &Output) -> String {
    let line = last_line(&output.stderr);
    if line.is_empty() { output.status.to_string() } else { line }
}

/// A Git process that runs. Dropped before its end, it and all it started are killed.
#[derive(Debug)]
pub(crate) struct Running {
    what: &'static str,
    limit: Duration,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    stderr: Option<JoinHandle<String>>,
    child: Child,
    group: Option<Pid>,
}

impl Running {
    /// How long the process may run.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Wraps an error of reading from or writing to the process.
    pub(crate) fn io(&self, source: std::io::Error) -> GitError {
        GitError::Io { what: self.what, source }
    }

    async fn feed(mut self, input: &[u8]) -> Result<Output, GitError> {
        let stdin = self.stdin.take();
        let write = async move {
            if let Some(mut stdin) = stdin {
                // A process that ends early closes its end; its status says why.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let stdout = self.stdout.take();
        let read = async move {
            match stdout {
                Some(stdout) => bounded(stdout, OUTPUT_LIMIT).await,
                None => Ok(Some(Vec::new())),
            }
        };
        let ((), stdout) = tokio::join!(write, read);
        let Some(stdout) = stdout.map_err(|source| self.io(source))? else {
            return Err(GitError::TooMuch { what: self.what, limit: OUTPUT_LIMIT });
        };
        let (status, stderr) = self.finish().await?;
        Ok(Output { stdout, stderr, status })
    }

    /// Waits for the end of the process; its status and what it wrote to standard error.
    ///
    /// # Errors
    /// The process could not be waited for.
    pub(crate) async fn finish(mut self) -> Result<(ExitStatus, String), GitError> {
        drop(self.stdin.take());
        let status = self.child.wait().await.map_err(|source| self.io(source))?;
        if status.code().is_none() {
            // Killed by a signal: what it had started must not go on without it.
            self.kill_group();
        }
        self.group = None;
        let stderr = match self.stderr.take() {
            // A grandchild may hold the pipe open; what it would still say is not waited for.
            Some(task) => {
                tokio::time::timeout(Duration::from_secs(1), task).await.ok().and_then(Result::ok).unwrap_or_default()
            }
            None => String::new(),
        };
        Ok((status, stderr))
    }

    /// Waits for success.
    ///
    /// # Errors
    /// The process ended with another status than 0.
    pub(crate) async fn succeed(self) -> Result<(), GitError> {
        let what = self.what;
        let (status, stderr) = self.finish().await?;
        if status.success() {
            return Ok(());
        }
        Err(GitError::Failed { what, message: failure(&Output { stdout: Vec::new(), stderr, status }) })
    }

    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // Gone already is as good as killed.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
    }
}

async fn keep_stderr(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut block = [0; 4096];
    while let Ok(count) = stderr.read(&mut block).await {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&block[..count]);
        if kept.len() > STDERR_LIMIT {
            kept.drain(..kept.len() - STDERR_LIMIT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Reads all, or `None` when there is more than `limit` bytes.
pub(crate) async fn bounded(mut from: impl AsyncRead + Unpin, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    let mut block = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut block).await?;
        if count == 0 {
            return Ok(Some(all));
        }
        if all.len() + count > limit {
            return Ok(None);
        }
        all.extend_from_slice(&block[..count]);
    }
}
