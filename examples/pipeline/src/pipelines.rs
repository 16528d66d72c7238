//! Pipelines: the run's own, and those that its jobs start.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use gitlab_ci::{AllowFailure, Job, Outcome, Variables, plan_of};

use crate::queue::{Ended, Interrupter, Queue, Standing};
use crate::report::{JobLine, State};
use crate::run::{INTERRUPTED, Run};
use crate::select::{Selected, Wanted};
use crate::tree;
use crate::work::{Children, Folders, Record, Runner, line};

/// How deep child pipelines may start others.
const MAX_CHILDREN: usize = 2;

/// Whoever must be told that the run is interrupted.
#[derive(Debug, Default)]
pub(crate) struct Interrupts(Mutex<(bool, Vec<Interrupter>)>);

impl Interrupts {
    fn held(&self) -> std::sync::MutexGuard<'_, (bool, Vec<Interrupter>)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn add(&self, interrupter: Interrupter) {
        let mut held = self.held();
        if held.0 {
            interrupter.interrupt();
        }
        held.1.push(interrupter);
    }

    pub(crate) fn interrupt(&self) {
        let mut held = self.held();
        held.0 = true;
        held.1.iter().for_each(Interrupter::interrupt);
    }
}

/// The result of a run and its exit code.
pub(crate) fn result(ended: Ended, lines: &[JobLine]) -> (&'static str, u8) {
    if ended == Ended::Interrupted {
        return ("interrupted", INTERRUPTED);
    }
    if lines.iter().any(|line| line.state == State::Failed) {
        return ("failed", 1);
    }
    if ended == Ended::Blocked { ("blocked", 3) } else { ("success", 0) }
}

/// What runs pipelines: the run's own, and those that its jobs start.
pub(crate) struct Pipelines<'r> {
    pub(crate) run: &'r Run<'r>,
    pub(crate) slots: u64,
    pub(crate) interrupts: &'r Interrupts,
    /// Child pipelines that wait for the end of their parent's.
    pub(crate) later: Mutex<Vec<(usize, Variables)>>,
    pub(crate) depth: usize,
}

impl std::fmt::Debug for Pipelines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipelines").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Pipelines<'_> {
    pub(crate) fn later(&self) -> Vec<(usize, Variables)> {
        std::mem::take(&mut *self.later.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Runs a pipeline to its end: how it ended, and what became of each job.
    pub(crate) fn whole(
        &self,
        runner: &Runner<'_>,
        selected: &Selected,
        played: &[usize],
    ) -> Result<(Ended, Vec<JobLine>)> {
        let mut queue = Queue::open(&runner.folders.run.join("queue.db"), selected.queue.clone())?;
        runner.load();
        queue.begin(played)?;
        let ended = queue.run(self.slots, runner, |interrupter| self.interrupts.add(interrupter))?;
        let standings = queue.standings()?;
        let records = runner.records();
        let jobs = selected.plan.jobs.iter().zip(standings).zip(&selected.held).enumerate();
        let lines = jobs.map(|(at, ((job, standing), held))| {
            let record = records.get(&at);
            let (state, reason) = state(job, standing, record, *held, ended);
            let mut line =
                line(job, state, record.filter(|_| !matches!(standing, Standing::Skipped { .. } | Standing::Manual)));
            line.reason = reason.or(line.reason);
            line
        });
        Ok((ended, lines.collect()))
    }
}

/// What became of a job, and why it did not run.
fn state(
    job: &Job,
    standing: Standing,
    record: Option<&Record>,
    held: Option<&str>,
    ended: Ended,
) -> (State, Option<String>) {
    let may_fail = job.allow_failure == AllowFailure::Yes || record.is_some_and(|record| record.allowed);
    match standing {
        Standing::Succeeded => {
            let failed = record.is_some_and(|record| !record.succeeded);
            (if failed { State::Warning } else { State::Success }, None)
        }
        Standing::Failed | Standing::TimedOut | Standing::Stopped => {
            if record.is_none_or(|record| record.reason.as_deref() == Some("interrupted")) {
                return (State::Canceled, Some("interrupted".to_owned()));
            }
            (if may_fail { State::Warning } else { State::Failed }, None)
        }
        Standing::Skipped { failed: 0, not_run: 0 } => {
            (State::Skipped, Some("nothing that it waits for failed".to_owned()))
        }
        Standing::Skipped { failed: 0, not_run } => {
            (State::Skipped, Some(format!("{not_run} that it needs did not run")))
        }
        Standing::Skipped { failed, .. } => (State::Skipped, Some(format!("{failed} that it waits for failed"))),
        Standing::Manual => (State::Manual, Some(held.unwrap_or("it waits for you: --play starts it").to_owned())),
        Standing::Waiting if ended == Ended::Interrupted => (State::Canceled, Some("interrupted".to_owned())),
        Standing::Waiting => (State::Created, Some("it waits for a manual job".to_owned())),
    }
}

impl Children for Pipelines<'_> {
    fn run(&self, parent: &Runner<'_>, at: usize, variables: Variables) -> Result<(), String> {
        let job = &parent.plan.jobs[at];
        let Some(trigger) = &job.trigger else { return Ok(()) };
        let Some(started) = self.run.started else {
            return Err("a run that is resumed starts no child pipeline: start a new run".to_owned());
        };
        if self.depth == MAX_CHILDREN {
            return Err(format!("child pipelines start each other more than {MAX_CHILDREN} deep"));
        }
        let mut context = started.context.clone();
        "parent_pipeline".clone_into(&mut context.source);
        context.given = variables;
        context.inputs = yaml::Map::default();
        let outcome = plan_of(&started.project(), &trigger.files, &context).map_err(|why| why.to_string())?;
        let plan = match outcome {
            Outcome::Pipeline(plan) => plan,
            Outcome::None { reason, .. } => return Err(format!("there is none: {reason}")),
        };
        plan.notes.iter().for_each(|note| parent.report.note(&note.to_string()));
        let wanted = Wanted { has_containers: parent.engine.is_some(), ..Wanted::default() };
        let selected = wanted.select(&plan).map_err(|why| why.to_string())?;
        let folder = parent.folders.run.join("children").join(at.to_string());
        // A further attempt begins anew.
        tree::remove(&folder).and_then(|()| fs::create_dir_all(&folder)).map_err(|why| why.to_string())?;
        let pipelines = Pipelines {
            run: self.run,
            slots: self.slots,
            interrupts: self.interrupts,
            later: Mutex::new(Vec::new()),
            depth: self.depth + 1,
        };
        let runner = Runner {
            plan: &selected.plan,
            folders: Folders { run: folder, ..parent.folders.clone() },
            apart: parent.apart.clone(),
            engine: parent.engine.clone(),
            objects_seen: parent.objects_seen.clone(),
            shell: parent.shell,
            report: parent.report,
            files: parent.files,
            tracked: parent.tracked.clone(),
            prefix: format!("{} › ", parent.name(job)),
            may_overlay: AtomicBool::new(parent.may_overlay.load(Ordering::Relaxed)),
            records: Mutex::default(),
            keeps_failed: false,
            children: &pipelines,
        };
        let (ended, lines) = pipelines.whole(&runner, &selected, &[]).map_err(|why| format!("{why:#}"))?;
        for (at, variables) in pipelines.later() {
            if let Err(why) = pipelines.run(&runner, at, variables) {
                parent.report.note(&format!("the child pipeline of {}: {why}", runner.name(&selected.plan.jobs[at])));
            }
        }
        match result(ended, &lines) {
            ("success", _) => Ok(()),
            (other, _) => Err(other.to_owned()),
        }
    }

    fn run_later(&self, _: &Runner<'_>, at: usize, variables: Variables) {
        self.later.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, variables));
    }
}
