//! A program that a job runs: behind a guard, with its output as one stream, stoppable as a whole.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long a killed group may take to be gone, and a pipe that a runaway still holds may stay open.
const GRACE: Duration = Duration::from_secs(5);
const BLOCK: usize = 16 << 10;

/// How guards are started.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    argv: Vec<OsString>,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) argv: &'a [OsString],
    pub(crate) folder: &'a Path,
    /// All of its environment.
    pub(crate) env: &'a [(String, OsString)],
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(i32),
    Stopped,
}

impl Guard {
    /// This program, as `forge worker guard`.
    pub(crate) fn of_this_program() -> io::Result<Self> {
        let program = std::env::current_exe()?.into_os_string();
        Ok(Self { argv: vec![program, "worker".into(), "guard".into(), "--".into()] })
    }

    /// Runs a task to its end, or until `stop` says so. Everything it writes goes to `output`, in order.
    ///
    /// # Errors
    /// The guard could not be started; nothing runs.
    pub(crate) async fn run(
        &self,
        task: &Task<'_>,
        output: &mpsc::Sender<Bytes>,
        stop: &mut watch::Receiver<bool>,
    ) -> io::Result<Ended> {
        let (mut read, write) = channel()?;
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).args(task.argv).current_dir(task.folder).env_clear();
        command.envs(task.env.iter().map(|(name, value)| (name, value)));
        // Its own group: Ctrl-C reaches the worker alone, which decides.
        command.process_group(0).stdin(Stdio::piped()).stdout(write.try_clone()?).stderr(write);
        let mut child = command.spawn()?;
        // The command holds the pipe's other end too: as long as it lives, the pipe does not end.
        drop(command);
        let mut lifeline = child.stdin.take();
        let mut stopped = false;
        let mut ended = false;
        let mut patience: Option<Instant> = None;
        let mut block = vec![0; BLOCK];
        loop {
            tokio::select! {
                count = read.read(&mut block) => match count? {
                    0 => break,
                    count => {
                        // Nobody listens any more: the pipe is still emptied, so that nothing hangs.
                        let _unheard = output.send(Bytes::copy_from_slice(&block[..count])).await;
                    }
                },
                status = child.wait(), if !ended => {
                    status?;
                    ended = true;
                    patience = Some(Instant::now() + GRACE);
                }
                // Who cannot stop it any more does not want it either.
                _asked = stop.wait_for(|stop| *stop), if !stopped => {
                    stopped = true;
                    drop(lifeline.take());
                    patience = Some(Instant::now() + GRACE);
                }
                () = tokio::time::sleep_until(patience.unwrap_or_else(Instant::now)),
                    if patience.is_some() => break,
            }
        }
        // The same status again, if it is known already.
        let Ok(status) = tokio::time::timeout(GRACE, child.wait()).await else {
            child.kill().await?;
            return Ok(Ended::Stopped);
        };
        let status = status?;
        Ok(if stopped { Ended::Stopped } else { Ended::Exit(code(status)) })
    }
}

fn channel() -> io::Result<(pipe::Receiver, std::io::PipeWriter)> {
    let (read, write) = std::io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(read.into())?, write))
}

fn code(status: ExitStatus) -> i32 {
    // The guard itself was killed: as with any program that a signal ended.
    status.code().unwrap_or(137)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A guard for tests of what runs behind it: a shell that becomes the program.
    pub(crate) fn no_guard() -> Guard {
        let argv = ["sh", "-c", "exec \"$@\"", "guard"].map(OsString::from).to_vec();
        Guard { argv }
    }

    #[tokio::test]
    async fn output_comes_in_order_and_the_status_with_it() {
        let (output, mut lines) = mpsc::channel(64);
        let (_stop, mut stopped) = watch::channel(false);
        let argv = ["sh", "-c", "echo $A; echo two >&2; echo three; exit 3"].map(OsString::from);
        let env = [("A".to_owned(), "one".into()), ("PATH".to_owned(), std::env::var_os("PATH").unwrap())];
        let task = Task { argv: &argv, folder: Path::new("/"), env: &env };
        let ended = no_guard().run(&task, &output, &mut stopped).await.unwrap();
        assert_eq!(ended, Ended::Exit(3));
        drop(output);
        let mut all = Vec::new();
        while let Some(part) = lines.recv().await {
            all.extend_from_slice(&part);
        }
        assert_eq!(String::from_utf8(all).unwrap(), "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_so() {
        let (output, _lines) = mpsc::channel(64);
        let (_stop, mut stopped) = watch::channel(false);
        let guard = Guard { argv: vec!["/nonexistent".into()] };
        let task = Task { argv: &[], folder: Path::new("/"), env: &[] };
        assert!(guard.run(&task, &output, &mut stopped).await.is_err());
    }
}
