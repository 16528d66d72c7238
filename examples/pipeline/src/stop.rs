//! Stopping a job from another thread.

use std::sync::Mutex;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Why a job is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It ran for too long.
    Timeout,
    /// The run is interrupted.
    Interrupted,
}

#[derive(Debug, Default)]
struct Held {
    process: Option<Pid>,
    why: Option<Why>,
}

/// A job's process, if it has one now, and whether it is to be stopped.
#[derive(Debug, Default)]
pub(crate) struct Stop(Mutex<Held>);

impl Stop {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Stops the job: kills its process with all of its group, and lets it start no other.
    pub(crate) fn stop(&self, why: Why) {
        let mut held = self.held();
        held.why.get_or_insert(why);
        if let Some(process) = held.process {
            end(process);
        }
    }

    /// Why the job is to be stopped, if it is.
    pub(crate) fn why(&self) -> Option<Why> {
        self.held().why
    }

    /// Starts a process of the job, unless it is to be stopped.
    pub(crate) fn start<T>(&self, spawn: impl FnOnce() -> std::io::Result<(T, u32)>) -> std::io::Result<Option<T>> {
        let mut held = self.held();
        if held.why.is_some() {
            return Ok(None);
        }
        let (child, id) = spawn()?;
        held.process = i32::try_from(id).ok().map(Pid::from_raw);
        Ok(Some(child))
    }

    /// The process has ended and not yet been reaped: what is left of its group is killed, and nobody kills it later.
    pub(crate) fn ended(&self) {
        if let Some(process) = self.held().process.take() {
            end(process);
        }
    }
}

/// A process that is gone already is no concern.
fn end(process: Pid) {
    let _gone = killpg(process, Signal::SIGKILL);
    let _gone = kill(process, Signal::SIGKILL);
}
