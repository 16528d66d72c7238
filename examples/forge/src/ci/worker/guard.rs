//! The guard: a process between a worker and what a job runs. It ends the job's whole process group when the
//! worker wants that, and when the worker dies, by whatever means: both close the guard's standard input.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// The status of a guard that could not start the program, as shells have it.
const NOT_STARTED: u8 = 127;

/// `forge worker guard PROGRAM ARGS…`: runs the program until it ends or standard input does.
pub(crate) fn main(argv: &[OsString]) -> ExitCode {
    match run(argv, std::io::stdin()) {
        Ok(status) => ExitCode::from(code(status)),
        Err(e) => {
            tracing::error!("cannot start {}: {e}", argv.first().map_or("nothing".into(), |p| p.to_string_lossy()));
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn run(argv: &[OsString], mut lifeline: impl Read + Send + 'static) -> std::io::Result<ExitStatus> {
    let (program, rest) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program).args(rest).stdin(Stdio::null()).process_group(0).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(lifeline.read(&mut byte), Ok(1)) {}
        let _gone_already = killpg(pid, Signal::SIGKILL);
    });
    // The end is seen before it is collected: until then the group's number cannot be another's.
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let _nothing_left_behind = killpg(pid, Signal::SIGKILL);
    child.wait()
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    #[test]
    fn a_status_is_passed_on() {
        let (lifeline, _held) = std::io::pipe().unwrap();
        assert_eq!(code(run(&shell("exit 7"), lifeline).unwrap()), 7);
        let (lifeline, _held) = std::io::pipe().unwrap();
        assert_eq!(code(run(&shell("kill -TERM $$"), lifeline).unwrap()), 143);
    }

    #[test]
    fn the_end_of_the_lifeline_ends_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = shell(&format!("sleep 60 & echo $! > {}; sleep 60", file.display()));
        let (lifeline, held) = std::io::pipe().unwrap();
        let running = std::thread::spawn(move || run(&script, lifeline).unwrap());
        await_true(|| std::fs::read_to_string(&file).is_ok_and(|s| s.ends_with('\n')));
        drop(held);
        assert_eq!(code(running.join().unwrap()), 137);
        await_true(|| is_gone(&file));
    }

    #[test]
    fn what_a_script_leaves_behind_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let (lifeline, _held) = std::io::pipe().unwrap();
        run(&shell(&format!("sleep 60 & echo $! > {}", file.display())), lifeline).unwrap();
        await_true(|| is_gone(&file));
    }

    fn await_true(condition: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < until, "waited in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Not there, or killed and not yet collected by its new parent.
    fn is_gone(file: &std::path::Path) -> bool {
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }
}
