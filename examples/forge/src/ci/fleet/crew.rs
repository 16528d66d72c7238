//! The workers as processes: what the scaler asked for, and what has become of it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tenon_scaler::{Progress, RequestId};
use tokio::process::Child;

/// A worker that does not ask for work so long after its start will not.
const START_LIMIT_MS: u64 = 20_000;

/// How workers come to be.
pub(crate) trait Launch: Debug + Send + Sync {
    /// Starts a worker of this name. Its life is tied to the standard input of what is returned.
    fn launch(&self, name: &str) -> Result<Child>;
}

/// The processes by name, and what each request has come to.
#[derive(Debug, Default)]
pub(super) struct Crew {
    workers: BTreeMap<String, Process>,
    totals: BTreeMap<RequestId, Progress>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    pid: Option<u32>,
    stage: Stage,
    started_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Starting(RequestId),
    /// It was told not to come before it did.
    Cancelled(RequestId),
    Serving,
    Leaving(RequestId),
}

impl Process {
    fn terminate(&self) {
        if let Some(pid) = self.pid.and_then(|pid| i32::try_from(pid).ok()) {
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Crew {
    /// Starts so many workers for a request; asked again, none.
    pub(super) fn launch(&mut self, at_ms: u64, launch: &dyn Launch, request: RequestId, count: u32) {
        if self.totals.contains_key(&request) {
            return;
        }
        self.totals.insert(request, Progress::default());
        for _ in 0..count {
            // One of so many names is free.
            let names = (1..=self.workers.len() + 1).map(|n| format!("w{n}"));
            let Some(name) = names.into_iter().find(|name| !self.workers.contains_key(name)) else { continue };
            match launch.launch(&name) {
                Ok(child) => {
                    let (pid, stage) = (child.id(), Stage::Starting(request));
                    self.workers.insert(name, Process { child, pid, stage, started_ms: at_ms });
                }
                Err(e) => {
                    tracing::warn!("a worker cannot be started: {e:#}");
                    self.total(request).failed += 1;
                }
            }
        }
    }

    /// Keeps no more than `keep` workers of a launch: those that have not come yet are told not to.
    pub(super) fn cancel(&mut self, request: RequestId, keep: u32) {
        let keep = keep.saturating_sub(self.totals(request).done) as usize;
        let starting = self.workers.values_mut().filter(|worker| worker.stage == Stage::Starting(request));
        for worker in starting.skip(keep) {
            worker.stage = Stage::Cancelled(request);
            worker.terminate();
        }
    }

    /// Tells so many to go for a request, the idle first, then those that came last; each finishes what it runs. Asked
    /// again, nobody. Who has ended by itself meanwhile is gone too.
    pub(super) fn release(&mut self, request: RequestId, count: u32, busy: &[String]) {
        if self.totals.contains_key(&request) {
            return;
        }
        let mut serving: Vec<_> = self.workers.iter_mut().filter(|(_, w)| w.stage == Stage::Serving).collect();
        serving.sort_by_key(|(name, w)| (busy.contains(name), std::cmp::Reverse(w.started_ms)));
        let mut gone = count;
        for (_, worker) in serving.into_iter().take(count as usize) {
            gone -= 1;
            worker.stage = Stage::Leaving(request);
            worker.terminate();
        }
        self.total(request).done += gone;
    }

    /// Takes in which processes have ended, and names them.
    pub(super) fn reap(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for (name, worker) in &mut self.workers {
            if let Ok(Some(status)) = worker.child.try_wait() {
                ended.push((name.clone(), worker.stage, status));
            }
        }
        for (name, stage, status) in &ended {
            self.workers.remove(name);
            match *stage {
                Stage::Starting(request) => self.total(request).failed += 1,
                Stage::Cancelled(request) => self.total(request).cancelled += 1,
                Stage::Leaving(request) => self.total(request).done += 1,
                Stage::Serving => tracing::warn!(worker = name, "ended by itself: {status}"),
            }
        }
        ended.into_iter().map(|(name, ..)| name).collect()
    }

    /// Those that have asked for work serve; those that never will are given up.
    pub(super) fn greet(&mut self, at_ms: u64, seen: &[String]) {
        let mut came = Vec::new();
        for (name, worker) in &mut self.workers {
            let (Stage::Starting(request) | Stage::Cancelled(request)) = worker.stage else { continue };
            if seen.contains(name) && worker.stage == Stage::Starting(request) {
                worker.stage = Stage::Serving;
                came.push(request);
            } else if at_ms.saturating_sub(worker.started_ms) > START_LIMIT_MS {
                // Its end is seen with the next look, and counted as a failure.
                let _gone_already = worker.child.start_kill();
            }
        }
        for request in came {
            self.total(request).done += 1;
        }
    }

    fn total(&mut self, request: RequestId) -> &mut Progress {
        self.totals.entry(request).or_default()
    }

    /// What a request has come to so far.
    pub(super) fn totals(&self, request: RequestId) -> Progress {
        self.totals.get(&request).copied().unwrap_or_default()
    }

    /// Forgets requests that nobody will ask about.
    pub(super) fn keep(&mut self, is_open: impl Fn(RequestId) -> bool) {
        self.totals.retain(|id, _| is_open(*id));
    }

    pub(super) fn count(&self, is: impl Fn(Stage) -> bool) -> u32 {
        u32::try_from(self.workers.values().filter(|w| is(w.stage)).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn serving(&self) -> u32 {
        self.count(|stage| stage == Stage::Serving)
    }

    /// The processes by name: their ids, and what they are at.
    pub(super) fn processes(&self) -> impl Iterator<Item = (&String, Option<u32>, Stage)> {
        self.workers.iter().map(|(name, w)| (name, w.pid, w.stage))
    }

    /// Gives the processes away.
    pub(super) fn disband(&mut self) -> Vec<Child> {
        std::mem::take(&mut self.workers).into_values().map(|worker| worker.child).collect()
    }

    #[cfg(test)]
    pub(super) fn child(&mut self, name: &str) -> Option<&mut Child> {
        self.workers.get_mut(name).map(|worker| &mut worker.child)
    }
}
