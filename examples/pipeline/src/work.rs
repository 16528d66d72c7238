//! Running the jobs of a run: what each finds, what is kept of it, and what became of it.

pub(crate) mod container;
mod keep;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use gitlab_ci::{AllowFailure, Job, Plan, Value, Variables, expand, is_name};
use sandbox::Sandbox;
use serde::{Deserialize, Serialize};

use crate::mask::Masks;
use crate::queue::{Verdict, Work};
use crate::report::{JobLine, Kind, Report, State};
use crate::shell::Shell;
use crate::stop::{Stop, Why};
use crate::tree;

/// How long `after_script` may take.
const AFTER_SCRIPT: Duration = Duration::from_mins(5);

/// What jobs run in.
#[derive(Clone, Debug)]
pub(crate) enum Apart {
    /// bubblewrap.
    Sandbox(Box<Sandbox>),
    /// Nothing: the user's own shell.
    No,
}

/// Folders of a run.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) run: PathBuf,
    /// The snapshot of the project.
    pub(crate) source: PathBuf,
    pub(crate) caches: PathBuf,
    /// The objects of the project's repository.
    pub(crate) objects: PathBuf,
}

impl Folders {
    pub(crate) fn place(&self, job: usize) -> PathBuf {
        self.run.join("jobs").join(job.to_string())
    }

    pub(crate) fn artifacts(&self, job: usize) -> PathBuf {
        self.run.join("artifacts").join(job.to_string())
    }

    pub(crate) fn log(&self, job: usize) -> PathBuf {
        self.run.join("logs").join(format!("{job}.log"))
    }

    /// What was kept of a job, if it has run.
    pub(crate) fn kept(&self, job: usize) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.record(job)).ok()?).ok()
    }

    fn record(&self, job: usize) -> PathBuf {
        self.run.join("records").join(format!("{job}.json"))
    }
}

/// What became of the last attempt of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) attempts: u32,
    pub(crate) exit_code: Option<i32>,
    /// Why it failed: `timeout`, `exit code 1` …
    pub(crate) reason: Option<String>,
    pub(crate) succeeded: bool,
    /// It failed with an exit code that it may fail with.
    pub(crate) allowed: bool,
    pub(crate) coverage: Option<f64>,
    pub(crate) started_ms: u64,
    pub(crate) finished_ms: u64,
    pub(crate) dotenv: Variables,
}

/// Runs the jobs of a plan.
#[derive(Debug)]
pub(crate) struct Runner<'r> {
    pub(crate) plan: &'r Plan,
    pub(crate) folders: Folders,
    pub(crate) apart: Apart,
    /// What runs the jobs that name an image.
    pub(crate) engine: Option<container::Engine>,
    /// Where jobs see the objects of the project's repository.
    pub(crate) objects_seen: PathBuf,
    pub(crate) shell: Shell,
    pub(crate) report: &'r Report,
    /// Values that are handed over as files.
    pub(crate) files: &'r BTreeMap<String, String>,
    pub(crate) tracked: BTreeSet<String>,
    /// What stands before the names of its jobs: those of child pipelines are told apart by it.
    pub(crate) prefix: String,
    pub(crate) may_overlay: AtomicBool,
    pub(crate) records: Mutex<BTreeMap<usize, Record>>,
    /// Whether the place of a job that failed is kept, to be looked at.
    pub(crate) keeps_failed: bool,
    pub(crate) children: &'r dyn Children,
}

/// Starts child pipelines.
pub(crate) trait Children: Sync + std::fmt::Debug {
    /// Runs the child pipeline of a job with these variables: how it went, in words if it did not succeed.
    fn run(&self, parent: &Runner<'_>, at: usize, variables: Variables) -> Result<(), String>;
    /// Runs it when the pipeline of its parent has ended.
    fn run_later(&self, parent: &Runner<'_>, at: usize, variables: Variables);
}

/// How an attempt failed.
#[derive(Clone, Debug)]
struct Failure {
    /// The kind, as `retry:when` names it.
    kind: &'static str,
    code: Option<i32>,
    reason: String,
}

impl Failure {
    fn system(reason: impl Into<String>) -> Self {
        Self { kind: "runner_system_failure", code: None, reason: reason.into() }
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self::system(why.to_string())
    }
}

impl Work for Runner<'_> {
    fn run(&self, at: usize, attempt: u32, is_last: bool, stop: &Stop) -> Verdict {
        let Some(job) = self.plan.jobs.get(at) else { return Verdict::FailedForGood(-1) };
        self.report.job_began(&self.name(job), attempt);
        let started_ms = self.report.now_ms();
        let mut record = Record { attempts: self.attempts_of(at) + 1, started_ms, ..Record::default() };
        let log = match process::Log::open(&self.folders.log(at), attempt > 1) {
            Ok(log) => log,
            Err(why) => return self.ended(at, job, record, &Err(Failure::from(why)), is_last),
        };
        let place = self.folders.place(at);
        let beside = container::Beside::default();
        let mut attempt = Attempt { runner: self, at, job, stop, log, place, beside };
        let result = attempt.whole(&mut record);
        if let Err(failure) = &result {
            attempt.note(&format!("failed: {}", failure.reason));
        }
        attempt.clear(result.is_err() && self.keeps_failed && stop.why() != Some(Why::Interrupted));
        self.ended(at, job, record, &result, is_last)
    }
}

impl Runner<'_> {
    /// How a job is called in what is said.
    pub(crate) fn name(&self, job: &Job) -> String {
        format!("{}{}", self.prefix, job.name)
    }

    fn attempts_of(&self, at: usize) -> u32 {
        self.records().get(&at).map_or(0, |record| record.attempts)
    }

    pub(crate) fn records(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Record>> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes in what an earlier life of this run has recorded.
    pub(crate) fn load(&self) {
        let mut records = self.records();
        for at in 0..self.plan.jobs.len() {
            records.extend(self.folders.kept(at).map(|record| (at, record)));
        }
    }

    /// Records the end of an attempt, and says what it means to the queue.
    fn ended(&self, at: usize, job: &Job, mut record: Record, result: &Result<(), Failure>, is_last: bool) -> Verdict {
        record.finished_ms = self.report.now_ms();
        let verdict = match result {
            Ok(()) => {
                (record.succeeded, record.exit_code) = (true, Some(0));
                Verdict::Succeeded
            }
            Err(failure) => {
                record.exit_code = failure.code;
                record.reason = Some(failure.reason.clone());
                let code = failure.code.unwrap_or(-1);
                let again = job.retry.counts(failure.kind, failure.code);
                let is_over = is_last || !again;
                let listed = match &job.allow_failure {
                    AllowFailure::ExitCodes(codes) => failure.code.is_some_and(|code| codes.contains(&code)),
                    AllowFailure::Yes | AllowFailure::No => false,
                };
                record.allowed = listed || job.allow_failure == AllowFailure::Yes;
                match (is_over, listed) {
                    // With a code that it may fail with, the job is as good as one that succeeded.
                    (true, true) => Verdict::Succeeded,
                    (true, false) => Verdict::FailedForGood(code),
                    (false, _) => Verdict::Failed(code),
                }
            }
        };
        let state = match (result, record.allowed) {
            (Ok(()), _) => State::Success,
            (Err(_), true) => State::Warning,
            (Err(_), false) => State::Failed,
        };
        self.report.job_ended(&JobLine { name: self.name(job), ..line(job, state, Some(&record)) });
        if let Ok(bytes) = serde_json::to_vec(&record) {
            // What is not recorded is only not shown after a restart.
            let _unrecorded = write_new(&self.folders.record(at), &bytes);
        }
        self.records().insert(at, record);
        verdict
    }
}

/// Writes a file whole, or not at all.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// A line of the summary.
pub(crate) fn line(job: &Job, state: State, record: Option<&Record>) -> JobLine {
    JobLine {
        name: job.name.clone(),
        stage: job.stage.clone(),
        state,
        attempts: record.map_or(0, |record| record.attempts),
        exit_code: record.and_then(|record| record.exit_code),
        reason: record.and_then(|record| record.reason.clone()),
        coverage: record.and_then(|record| record.coverage),
        started_ms: record.map(|record| record.started_ms),
        finished_ms: record.map(|record| record.finished_ms),
    }
}

/// One attempt of a job.
struct Attempt<'r> {
    runner: &'r Runner<'r>,
    at: usize,
    job: &'r Job,
    stop: &'r Stop,
    log: process::Log,
    place: PathBuf,
    beside: container::Beside,
}

impl Attempt<'_> {
    fn masks(&self) -> &Masks {
        self.runner.report.masks()
    }

    /// Says something about the job, in its log too.
    fn note(&mut self, message: &str) {
        let message = self.masks().text(message);
        self.log.write(&message);
        self.say(Kind::Note, &message);
    }

    fn say(&self, kind: Kind, text: &str) {
        self.runner.report.line(&self.runner.name(self.job), kind, text);
    }

    fn checkout(&self) -> PathBuf {
        self.place.join("checkout")
    }

    /// Where the job sees its checkout.
    fn project_folder(&self) -> PathBuf {
        if self.engine().is_some() {
            return self.container_folder();
        }
        match self.runner.apart {
            Apart::Sandbox(_) => PathBuf::from(sandbox::CHECKOUT),
            Apart::No => self.checkout(),
        }
    }

    fn whole(&mut self, record: &mut Record) -> Result<(), Failure> {
        if let Some(trigger) = &self.job.trigger {
            return self.trigger(trigger);
        }
        tree::remove(&self.place)?;
        fs::create_dir_all(&self.place)?;
        let values = self.values("running")?;
        let has_checkout = !matches!(values.get("GIT_STRATEGY").map(String::as_str), Some("none" | "empty"));
        if has_checkout {
            // An engine does not see what is mounted for this thread alone.
            let may_overlay = self.runner.may_overlay.load(Ordering::Relaxed) && self.engine().is_none();
            let done = tree::checkout(&self.runner.folders.source, &self.place, may_overlay)?;
            if done == tree::Copying::Files {
                if may_overlay {
                    self.runner.may_overlay.store(false, Ordering::Relaxed);
                }
                self.give(&self.checkout())?;
            }
        } else {
            fs::create_dir_all(self.checkout())?;
            self.give(&self.checkout())?;
        }
        self.pull_caches(&values)?;
        self.take_artifacts()?;
        self.beside = self.start_services(&values)?;
        let result = self.scripts(&values, record);
        self.stop_services(&self.beside);
        result
    }

    /// Runs the job's scripts, and keeps what it keeps.
    fn scripts(&mut self, values: &BTreeMap<String, String>, record: &mut Record) -> Result<(), Failure> {
        let commands: Vec<&str> = self.job.before_script.iter().chain(&self.job.script).map(String::as_str).collect();
        let result = self.script("script", &commands, values, None);
        let is_stopped = self.stop.why();
        if is_stopped.is_none() && !self.job.after_script.is_empty() {
            let commands: Vec<&str> = self.job.after_script.iter().map(String::as_str).collect();
            let status = if result.is_ok() { "success" } else { "failed" };
            let values = self.values(status)?;
            self.note("after_script");
            if let Err(why) = self.script("after_script", &commands, &values, Some(AFTER_SCRIPT)) {
                self.note(&format!("after_script: {}; this changes nothing", why.reason));
            }
        }
        if is_stopped != Some(Why::Interrupted) {
            self.push_caches(values, result.is_ok());
            self.keep_artifacts(values, result.is_ok(), record);
            record.coverage = self.coverage();
        }
        result
    }

    /// Starts a child pipeline instead of a script.
    fn trigger(&mut self, trigger: &gitlab_ci::Trigger) -> Result<(), Failure> {
        if trigger.files.is_empty() {
            self.note("nothing is started: --skip-triggers");
            return Ok(());
        }
        let values = self.values("running")?;
        let layers = &self.job.variables;
        let mut passed = Variables::new();
        if trigger.forwards_yaml_variables {
            let own = [&layers.global, &layers.workflow, &layers.job, &layers.matrix, &layers.rule];
            passed.extend(
                own.into_iter()
                    .flatten()
                    .map(|(name, _)| (name.clone(), Value::raw(values.get(name).cloned().unwrap_or_default()))),
            );
        }
        if trigger.forwards_pipeline_variables {
            passed.extend(layers.given.clone());
        }
        let (runner, at) = (self.runner, self.at);
        if trigger.waits {
            return runner.children.run(runner, at, passed).map_err(|why| Failure {
                kind: "script_failure",
                code: None,
                reason: format!("child pipeline: {why}"),
            });
        }
        self.note("its child pipeline runs once this pipeline has ended, and does not change its result");
        runner.children.run_later(runner, at, passed);
        Ok(())
    }

    /// Gives files to the user that jobs run as.
    fn give(&self, path: &Path) -> io::Result<()> {
        match &self.runner.apart {
            Apart::Sandbox(sandbox) => sandbox.give(path),
            Apart::No => Ok(()),
        }
    }

    /// The job's environment.
    fn values(&self, status: &str) -> Result<BTreeMap<String, String>, Failure> {
        let folder = self.project_folder();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let id = (self.at + 1).to_string();
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let at_run: Vec<(&str, String)> = vec![
            ("CI_BUILDS_DIR", text(folder.parent().unwrap_or(&folder))),
            ("CI_CONCURRENT_ID", "0".to_owned()),
            ("CI_CONCURRENT_PROJECT_ID", "0".to_owned()),
            ("CI_DISPOSABLE_ENVIRONMENT", "true".to_owned()),
            ("CI_JOB_ID", id.clone()),
            ("CI_JOB_STARTED_AT", format!("@{started}")),
            ("CI_JOB_STATUS", status.to_owned()),
            ("CI_JOB_TIMEOUT", self.job.timeout.unwrap_or(crate::DEFAULT_TIMEOUT).as_secs().to_string()),
            ("CI_PROJECT_DIR", text(&folder)),
            ("CI_RUNNER_DESCRIPTION", "pipeline on this machine".to_owned()),
            ("CI_RUNNER_EXECUTABLE_ARCH", format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)),
            ("CI_RUNNER_ID", "1".to_owned()),
            ("CI_RUNNER_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let mut all: Variables = at_run.into_iter().map(|(name, value)| (name.to_owned(), Value::raw(value))).collect();
        if let Some(image) = &self.job.image {
            all.insert("CI_JOB_IMAGE".to_owned(), Value::new(image.name.clone()));
        }
        let dotenv = self.dotenv();
        let values = self.job.values(all, dotenv).map_err(|why| Failure::system(why.to_string()))?;
        Ok(values)
    }

    /// Variables of the reports of those whose artifacts it takes; of two the later wins.
    fn dotenv(&self) -> Variables {
        let records = self.runner.records();
        let reports = self.job.takes_from.iter().filter_map(|at| records.get(at));
        reports.flat_map(|record| record.dotenv.clone()).collect()
    }

    /// The files of a value that is handed over as one, in the job's place and as the job sees it.
    fn file_values(&self, values: &mut BTreeMap<String, String>) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        let mut mounts = Vec::new();
        for (name, text) in self.runner.files {
            // A stronger layer may have replaced the value.
            if values.get(name).is_none_or(|value| value != text) {
                continue;
            }
            let file = self.place.join("files").join(name);
            fs::create_dir_all(self.place.join("files"))?;
            fs::write(&file, text)?;
            let seen = match self.runner.apart {
                _ if self.engine().is_some() => Self::container_file(name),
                Apart::Sandbox(_) => PathBuf::from("/job/files").join(name),
                Apart::No => file.clone(),
            };
            values.insert(name.clone(), seen.to_string_lossy().into_owned());
            mounts.push((file, seen));
        }
        Ok(mounts)
    }

    fn script(
        &mut self,
        name: &str,
        commands: &[&str],
        values: &BTreeMap<String, String>,
        limit: Option<Duration>,
    ) -> Result<(), Failure> {
        let mut values: BTreeMap<String, String> = values
            .iter()
            .filter(|(name, _)| is_name(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mounts = self.file_values(&mut values)?;
        let file = self.place.join(name);
        let text = match self.engine() {
            Some(_) => crate::shell::with_environment(&values, &crate::shell::script(Shell::Sh, commands)),
            None => crate::shell::script(self.runner.shell, commands),
        };
        fs::write(&file, text)?;
        let echoes: Vec<String> =
            commands.iter().map(|command| self.masks().text(&crate::shell::echo(command))).collect();
        let script = process::Script { file, values: &values, mounts: &mounts, echoes, limit };
        self.run_script(&script)
    }

    /// The number that `coverage` finds in the log: that of its last match.
    fn coverage(&self) -> Option<f64> {
        let regex = gitlab_ci::pattern(self.job.coverage.as_deref()?).ok().flatten()?;
        let log = fs::read_to_string(self.runner.folders.log(self.at)).ok()?;
        let found = log.lines().rev().find_map(|line| {
            let found = regex.captures_iter(line).last()?;
            Some(found.iter().flatten().last()?.as_str().to_owned())
        })?;
        let digits = found.find(|c: char| c.is_ascii_digit())?;
        let number: String = found[digits..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        number.trim_end_matches('.').parse().ok()
    }

    /// Removes what the job leaves behind, unless somebody may want to look at it.
    fn clear(&self, keeps: bool) {
        if !keeps {
            // `pipeline clean` removes what cannot be removed now.
            let _left = tree::remove(&self.place);
        }
    }
}

fn expanded(texts: &[String], values: &BTreeMap<String, String>) -> Vec<String> {
    texts.iter().map(|text| expand(text, values)).collect()
}
