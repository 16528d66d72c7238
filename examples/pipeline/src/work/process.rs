//! A job's processes: started apart, read line by line, and ended with all that they started.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::{Apart, Attempt, Failure};
use crate::report::Kind;
use crate::stop::Why;

/// The largest log of a job, in bytes.
const MAX_LOG_BYTES: u64 = 32 << 20;
/// The longest line that is shown as one, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The variable by which a job's processes are known, those that left its group too.
const MARK: &str = "PIPELINE_JOB_MARK";

/// A job's log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    left: u64,
}

impl Log {
    /// A further attempt goes on with the log.
    pub(super) fn open(path: &Path, goes_on: bool) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).write(true).append(goes_on).truncate(!goes_on).open(path)?;
        Ok(Self { file, left: MAX_LOG_BYTES })
    }

    /// Writes a line; `false` once the log is full.
    pub(super) fn write(&mut self, line: &str) -> bool {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX).saturating_add(1);
        let Some(left) = self.left.checked_sub(length) else {
            self.left = 0;
            return false;
        };
        self.left = left;
        // A full disk must not end the job.
        let _full = writeln!(self.file, "{line}");
        true
    }
}

/// A script to run.
pub(super) struct Script<'s> {
    pub(super) file: PathBuf,
    pub(super) values: &'s BTreeMap<String, String>,
    pub(super) mounts: &'s [(PathBuf, PathBuf)],
    /// What is echoed of its commands, in order.
    pub(super) echoes: Vec<String>,
    pub(super) limit: Option<Duration>,
}

impl Attempt<'_> {
    /// Runs a script to its end, or until it is stopped or has taken too long.
    pub(super) fn run_script(&mut self, script: &Script<'_>) -> Result<(), Failure> {
        let (reader, writer) = io::pipe()?;
        let mark = format!("{}-{}-{}", std::process::id(), self.at, script.file.display());
        let mut command = self.command(script, &mark)?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let stop = self.stop;
        let started = stop.start(|| command.spawn().map(|child| (child.id(), child)).map(|(id, child)| (child, id)));
        // The command holds the writing end.
        drop(command);
        let child = started.map_err(|why| Failure::system(format!("the shell cannot be started: {why}")))?;
        let Some(mut child) = child else { return Err(self.stopped()) };
        let process = i32::try_from(child.id()).map(Pid::from_raw).map_err(|_| Failure::system("no such process"))?;
        let is_over = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
        let late = std::thread::scope(|scope| {
            let watch = script.limit.map(|limit| {
                let is_over = Arc::clone(&is_over);
                scope.spawn(move || {
                    let (lock, changed) = &*is_over;
                    let held = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let (held, _) = changed
                        .wait_timeout_while(held, limit, |is_over| !*is_over)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    if !*held {
                        stop.ended();
                    }
                    !*held
                })
            });
            let has_sandbox = matches!(self.runner.apart, Apart::Sandbox(_)) || self.engine().is_some();
            scope.spawn(move || {
                // Waits without reaping: until then the number is the process's own.
                while let Err(nix::errno::Errno::EINTR) =
                    waitid(Id::Pid(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                {}
                stop.ended();
                if !has_sandbox {
                    end_marked(&mark);
                }
            });
            self.read(reader, &script.echoes);
            let (lock, changed) = &*is_over;
            *lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
            changed.notify_all();
            watch.is_some_and(|watch| watch.join().unwrap_or(false))
        });
        let status = child.wait()?;
        if late || self.stop.why().is_some() {
            // What the client has started goes on without it.
            self.end_container();
        }
        if late {
            return Err(Failure::system("it took longer than 5 minutes"));
        }
        self.judged(status)
    }

    fn judged(&self, status: ExitStatus) -> Result<(), Failure> {
        if self.stop.why().is_some() {
            return Err(self.stopped());
        }
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => {
                // The engine's own codes: it could not start the container, or the image has no shell.
                let reason = match (self.engine(), code) {
                    (Some(engine), 125..=127) => {
                        format!("exit code {code}: {} could not run the image, or a command is missing", engine.name())
                    }
                    _ => format!("exit code {code}"),
                };
                let kind =
                    if self.engine().is_some() && code == 125 { "runner_system_failure" } else { "script_failure" };
                Err(Failure { kind, code: Some(code), reason })
            }
            (None, signal) => Err(Failure::system(format!("killed by signal {}", signal.unwrap_or_default()))),
        }
    }

    fn stopped(&self) -> Failure {
        match self.stop.why() {
            Some(Why::Timeout) => Failure { kind: "job_execution_timeout", code: None, reason: "timeout".to_owned() },
            Some(Why::Interrupted) | None => Failure::system("interrupted"),
        }
    }

    fn command(&self, script: &Script<'_>, mark: &str) -> Result<Command, Failure> {
        if let Some(engine) = self.engine() {
            return self.container_command(engine, script);
        }
        let shell = self.runner.shell.program();
        match &self.runner.apart {
            Apart::Sandbox(sandbox) => {
                let inside = Path::new("/job/script");
                let words = [shell.into(), inside.as_os_str().to_owned()];
                let mut job = sandbox::Job::new(&self.place, words).read_only(&script.file, inside);
                job = job.read_only(&self.runner.folders.objects, crate::snapshot::OBJECTS_INSIDE);
                for (from, to) in script.mounts {
                    job = job.read_only(from, to);
                }
                for (name, value) in script.values {
                    job = job.env(name, value);
                }
                Ok(sandbox.command(&job)?)
            }
            Apart::No => {
                let mut command = Command::new(shell);
                command.arg(&script.file).current_dir(self.checkout());
                for (name, _) in std::env::vars_os() {
                    // Of a pipeline that this one runs in.
                    if name
                        .to_str()
                        .is_some_and(|name| name.starts_with("CI_") || name.starts_with("GITLAB_") || name == "CI")
                    {
                        command.env_remove(&name);
                    }
                }
                command.envs(script.values).env(MARK, mark);
                Ok(command)
            }
        }
    }

    /// Reads what the job writes, until nobody can write any more.
    fn read(&mut self, mut reader: PipeReader, echoes: &[String]) {
        let report = self.runner.report;
        let masks = report.masks().clone();
        let mut stream = masks.stream();
        let mut echoes: VecDeque<&String> = echoes.iter().collect();
        let mut line: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 32 << 10];
        let mut is_cut = false;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(count) => count,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let text = if count == 0 { stream.end() } else { stream.push(&buffer[..count]) };
            for byte in text {
                if byte != b'\n' {
                    line.push(byte);
                }
                if byte == b'\n' || line.len() >= MAX_LINE_BYTES {
                    self.line(&mut line, &mut echoes, &mut is_cut);
                }
            }
            if count == 0 {
                break;
            }
        }
        if !line.is_empty() {
            self.line(&mut line, &mut echoes, &mut is_cut);
        }
    }

    fn line(&mut self, line: &mut Vec<u8>, echoes: &mut VecDeque<&String>, is_cut: &mut bool) {
        let text = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
        line.clear();
        let is_echo = echoes.front().is_some_and(|echo| **echo == text);
        if is_echo {
            echoes.pop_front();
        }
        if self.log.write(&text) {
            let kind = if is_echo { Kind::Command } else { Kind::Output };
            self.say(kind, &text);
        } else if !std::mem::replace(is_cut, true) {
            let message = format!("the log is cut: it has more than {} MiB", MAX_LOG_BYTES >> 20);
            self.say(Kind::Note, &message);
        }
    }
}

/// Ends the processes of a job that have left its group: they are known by a variable that they were given.
fn end_marked(mark: &str) {
    let wanted = format!("{MARK}={mark}");
    // A process that starts another meanwhile is met again.
    for _ in 0..10 {
        let mut any = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            if environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
                // It may have ended by itself.
                any |= nix::sys::signal::kill(Pid::from_raw(number), nix::sys::signal::Signal::SIGKILL).is_ok();
            }
        }
        if !any {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
