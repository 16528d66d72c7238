//! The last line of the terminal while a run is under way: how far it is, what runs and for how long.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How many jobs are named at once.
const NAMED: usize = 4;

/// A line below the output; there is none where the output is not a terminal.
#[derive(Debug)]
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    run: Mutex<Run>,
}

#[derive(Debug, Default)]
struct Run {
    jobs: usize,
    ended: BTreeSet<String>,
    running: Vec<(String, Instant)>,
}

impl Live {
    pub(crate) fn new(wanted: bool) -> Self {
        let both = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = (wanted && both).then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or(ProgressStyle::default_bar());
            ProgressBar::new_spinner().with_style(style)
        });
        Self { bar, run: Mutex::default() }
    }

    fn change(&self, change: impl FnOnce(&mut Run)) {
        let Some(bar) = &self.bar else { return };
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut run);
        bar.set_message(run.told());
    }

    pub(crate) fn began(&self, jobs: usize) {
        self.change(|run| run.jobs = jobs);
        if let Some(bar) = &self.bar {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
    }

    pub(crate) fn job_began(&self, name: &str) {
        self.change(|run| {
            // It may be tried again.
            run.ended.remove(name);
            run.running.push((name.to_owned(), Instant::now()));
        });
    }

    pub(crate) fn job_ended(&self, name: &str) {
        self.change(|run| {
            let before = run.running.len();
            run.running.retain(|(other, _)| other != name);
            if run.running.len() < before {
                run.ended.insert(name.to_owned());
            }
        });
    }

    /// Writes lines above.
    pub(crate) fn put(&self, text: &str) {
        // Nobody reads on: the run goes on for its own sake.
        let write = || drop(writeln!(std::io::stdout().lock(), "{text}"));
        match &self.bar {
            Some(bar) => {
                self.change(|_| {});
                bar.suspend(write);
            }
            None => write(),
        }
    }

    pub(crate) fn ended(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Run {
    fn told(&self) -> String {
        let named = self.running.iter().take(NAMED);
        let named: Vec<String> = named.map(|(name, since)| format!("{name} {} s", since.elapsed().as_secs())).collect();
        let more = self.running.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let running = if named.is_empty() { "nothing runs".to_owned() } else { named.join(", ") };
        format!("{} of {} done; {running}{more}", self.ended.len(), self.jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_the_run_is_and_what_runs() {
        let since = Instant::now();
        let running = ["a", "b", "c", "d", "e"].map(|name| (name.to_owned(), since)).to_vec();
        let ended = ["x", "y"].map(str::to_owned).into();
        let run = Run { jobs: 9, ended, running };
        assert_eq!(run.told(), "2 of 9 done; a 0 s, b 0 s, c 0 s, d 0 s, and 1 more");
        assert_eq!(Run { jobs: 1, ..Run::default() }.told(), "0 of 1 done; nothing runs");
    }
}
