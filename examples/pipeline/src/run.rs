//! Runs, resumes and looks into runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gitlab_ci::{Job, Outcome, Plan, Variables};
use nix::sys::signal::{SigSet, Signal};
use sandbox::{Network, Sandbox, Unavailable};
use serde::{Deserialize, Serialize};

use crate::cli::{ApartArgs, Executor, PlaceArgs, ResumeArgs, RunArgs, ShowArgs};
use crate::git::Repository;
use crate::home::{Home, Lock};
use crate::mask::Masks;
use crate::pipelines::{Interrupts, Pipelines, result};
use crate::queue::Ended;
use crate::report::{Format, Report};
use crate::select::{Selected, Wanted, waits_for};
use crate::settings::Settings;
use crate::shell::Shell;
use crate::snapshot::{self, OBJECTS_INSIDE, Which};
use crate::start::Started;
use crate::work::container::{self, Engine};
use crate::work::{Apart, Children as _, Folders, Runner, write_new};
use crate::{NONE, tree};

/// The exit code of an interrupted run.
pub(crate) const INTERRUPTED: u8 = 130;

/// What a run keeps of itself, to go on with it later. Values of the variables file are not in it.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    plan: Plan,
    wanted: SavedWanted,
    tracked: BTreeSet<String>,
    what: String,
    name: String,
}

/// The part of the command line that decides how jobs start.
#[derive(Debug, Default, Serialize, Deserialize)]
struct SavedWanted {
    play: Vec<String>,
    allow_deploy: bool,
    without_services: bool,
}

/// `pipeline run`.
pub(crate) fn run(args: &RunArgs) -> Result<u8> {
    block_signals()?;
    let started = Started::new(&args.start)?;
    let plan = match started.plan()? {
        Outcome::Pipeline(plan) => plan,
        Outcome::None { reason, notes } => {
            let report = Report::new(args.show.log_format, Masks::new(&started.settings.masked), std::iter::empty());
            for note in &notes {
                report.note(&note.to_string());
            }
            report.ended("none", NONE, &[], &format!("no pipeline: {reason}"));
            return Ok(NONE);
        }
    };
    let engine = engine(&args.show, &args.apart, &plan)?;
    let wanted = Wanted {
        names: args.jobs.clone(),
        only: args.only,
        play: args.play.clone(),
        allow_deploy: args.allow_deploy,
        without_services: args.without_services,
        has_containers: engine.is_some(),
    };
    let selected = wanted.select(&plan)?;
    let home = Home::of(&started.repository.root, args.start.place.state_dir.as_deref())?;
    let apart = apart_for(&args.apart, &home, &selected.plan, engine.is_some())?;
    let (number, folder) = home.new_run()?;
    let lock = Lock::take(&folder)?;
    let which = if args.start.committed { Which::Committed } else { Which::Working };
    let objects = objects_for(&apart, &started.repository);
    let made = snapshot::make(&started.repository, which, wants_submodules(&plan), &folder.join("source"), &objects)?;
    let saved = Saved {
        wanted: SavedWanted {
            play: args.play.iter().chain(&args.jobs).cloned().collect(),
            allow_deploy: args.allow_deploy,
            without_services: args.without_services,
        },
        plan: without_project(selected.plan.clone()),
        tracked: made.tracked,
        what: made.what,
        name: describe(&plan, &started),
    };
    write_new(&folder.join("run.json"), &serde_json::to_vec(&saved)?)?;
    let run = Run {
        number,
        folder,
        home: &home,
        repository: &started.repository,
        settings: &started.settings,
        started: Some(&started),
        engine,
    };
    let ended = run.go(&saved, &selected, &apart, &args.show, &[]);
    drop(lock);
    ended
}

/// `pipeline resume`.
pub(crate) fn resume(args: &ResumeArgs) -> Result<u8> {
    block_signals()?;
    let (repository, home) = place(&args.place)?;
    let settings = Settings::read(args.place.variables_file.as_deref(), &repository.root)?;
    let (number, folder) = home.last_run()?;
    let Some(lock) = Lock::take(&folder)? else { bail!("run {number} is being worked at by another process") };
    let saved = saved(&folder, &settings)?;
    let engine = engine(&args.show, &args.apart, &saved.plan)?;
    let selected = select_again(&saved, engine.is_some())?;
    if let Some(engine) = &engine {
        engine.clear(&folder);
    }
    let mut played = Vec::new();
    for name in &args.play {
        played.extend(crate::select::named(&selected.plan, name)?);
    }
    let apart = apart_for(&args.apart, &home, &selected.plan, engine.is_some())?;
    let run = Run { number, folder, home: &home, repository: &repository, settings: &settings, started: None, engine };
    let ended = run.go(&saved, &selected, &apart, &args.show, &played);
    drop(lock);
    ended
}

/// `pipeline shell`.
pub(crate) fn shell(job: &str, args: &PlaceArgs, apart_args: &ApartArgs) -> Result<u8> {
    let (repository, home) = place(args)?;
    let settings = Settings::read(args.variables_file.as_deref(), &repository.root)?;
    let (number, folder) = home.last_run()?;
    let selected = select_again(&saved(&folder, &settings)?, true)?;
    let at = *crate::select::named(&selected.plan, job)?.first().context("there is no such job")?;
    let folders = folders(&folder, &home, &repository);
    let place = folders.place(at);
    if !place.is_dir() {
        bail!("run {number} has no copy of `{job}`: only the copy of a job that failed is kept");
    }
    let checkout = place.join("checkout");
    if place.join("upper").is_dir() {
        tree::checkout(&folders.source, &place, true)?;
    }
    let apart = apart(apart_args, &home)?;
    let values = selected.plan.jobs[at].values(Variables::new(), Variables::new()).unwrap_or_default();
    let values = values.into_iter().filter(|(name, _)| gitlab_ci::is_name(name));
    let program = find_shell().program();
    println!("a shell in the copy of `{job}` of run {number}: leave it with `exit`");
    let mut command = match &apart {
        Apart::Sandbox(sandbox) => {
            let inside =
                values.fold(sandbox::Job::new(&place, [program, "-i"]), |job, (name, value)| job.env(name, value));
            sandbox.command(&inside.read_only(&folders.objects, OBJECTS_INSIDE))?
        }
        Apart::No => {
            let mut command = Command::new(program);
            command.arg("-i").envs(values).current_dir(&checkout);
            command
        }
    };
    let status = command.status().context("the shell cannot be started")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// What became of a job in the last run of this project, and what it waited for there; nothing if it had no part in it.
pub(crate) fn story(args: &PlaceArgs, job: &str) -> Option<(u64, String)> {
    let (repository, home) = place(args).ok()?;
    let settings = Settings::read(args.variables_file.as_deref(), &repository.root).ok()?;
    let (number, folder) = home.last_run().ok()?;
    let plan = saved(&folder, &settings).ok()?.plan;
    let folders = folders(&folder, &home, &repository);
    let at = plan.jobs.iter().position(|other| other.name == job)?;
    let Some(record) = folders.kept(at) else { return Some((number, "it did not run".to_owned())) };
    let before = waits_for(&plan, at).into_iter().filter_map(|other| {
        let ended = folders.kept(other)?.finished_ms;
        Some((ended, plan.jobs[other].name.as_str()))
    });
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    let waited = match before.max() {
        Some((ended, last)) => format!("waited for `{last}`, which ended {:.1} s into the run", seconds(ended)),
        None => "waited for nothing".to_owned(),
    };
    let end = match (&record.reason, record.succeeded) {
        (_, true) => "success".to_owned(),
        (Some(reason), false) if record.allowed => format!("warning ({reason})"),
        (Some(reason), false) => format!("failed ({reason})"),
        (None, false) => "failed".to_owned(),
    };
    let ran = seconds(record.finished_ms.saturating_sub(record.started_ms));
    Some((number, format!("{waited}; began at {:.1} s; {end} after {ran:.1} s", seconds(record.started_ms))))
}

fn place(args: &PlaceArgs) -> Result<(Repository, Home)> {
    let repository = Repository::find(&args.directory)?;
    let home = Home::of(&repository.root, args.state_dir.as_deref())?;
    Ok((repository, home))
}

/// What the last run kept of itself, with the values of the variables file as they are now.
fn saved(folder: &Path, settings: &Settings) -> Result<Saved> {
    let bytes =
        fs::read(folder.join("run.json")).context("the last run has not begun: start it again with `pipeline run`")?;
    let mut saved: Saved =
        serde_json::from_slice(&bytes).context("the last run was made by another version of this program")?;
    for job in &mut saved.plan.jobs {
        job.variables.project.clone_from(&settings.variables);
    }
    Ok(saved)
}

fn select_again(saved: &Saved, has_containers: bool) -> Result<Selected> {
    let SavedWanted { play, allow_deploy, without_services } = &saved.wanted;
    let known = |name: &&String| saved.plan.jobs.iter().any(|job| job.name == **name || job.group == **name);
    let wanted = Wanted {
        play: play.iter().filter(known).cloned().collect(),
        allow_deploy: *allow_deploy,
        without_services: *without_services,
        has_containers,
        ..Wanted::default()
    };
    wanted.select(&saved.plan)
}

/// A plan without the values of the variables file, which may be secret.
fn without_project(mut plan: Plan) -> Plan {
    plan.jobs.iter_mut().for_each(|job| job.variables.project.clear());
    plan
}

fn folders(run: &Path, home: &Home, repository: &Repository) -> Folders {
    Folders {
        run: run.to_owned(),
        source: run.join("source"),
        caches: home.caches.clone(),
        objects: repository.common.join("objects"),
    }
}

fn describe(plan: &Plan, started: &Started) -> String {
    let reference = match &started.context.reference {
        gitlab_ci::Reference::Branch(name) => format!("branch {name}"),
        gitlab_ci::Reference::Tag(name) => format!("tag {name}"),
        gitlab_ci::Reference::MergeRequest { source, target } => format!("merge request of {source} into {target}"),
    };
    plan.name.as_ref().map_or(reference.clone(), |name| format!("{name} ({reference})"))
}

fn wants_submodules(plan: &Plan) -> bool {
    let wants = |job: &Job| {
        let value = job.variables.get("GIT_SUBMODULE_STRATEGY");
        value.is_some_and(|value| matches!(value.text.as_str(), "normal" | "recursive"))
    };
    plan.jobs.iter().any(wants)
}

fn objects_for(apart: &Apart, repository: &Repository) -> PathBuf {
    match apart {
        Apart::Sandbox(_) => PathBuf::from(OBJECTS_INSIDE),
        Apart::No => repository.common.join("objects"),
    }
}

/// The engine that runs jobs with an image, if they are to run in containers and there is one.
fn engine(show: &ShowArgs, args: &ApartArgs, plan: &Plan) -> Result<Option<Engine>> {
    let names_one = plan.jobs.iter().any(|job| job.image.is_some());
    if show.executor == Executor::Shell || !names_one {
        return Ok(None);
    }
    let network = if args.no_network { container::Network::Inside } else { container::Network::Outside };
    let found = Engine::find(network);
    if found.is_none() && show.executor == Executor::Container {
        bail!("neither docker nor podman answers: install one of them, or run in your shell with --executor shell");
    }
    Ok(found)
}

/// What jobs run in that run in the shell; a run without such jobs needs no sandbox.
fn apart_for(args: &ApartArgs, home: &Home, plan: &Plan, has_engine: bool) -> Result<Apart> {
    let all_in_containers = has_engine && plan.jobs.iter().all(|job| job.image.is_some());
    if all_in_containers { Ok(Apart::No) } else { apart(args, home) }
}

/// The sandbox, if jobs are to have one. It is never dropped silently.
fn apart(args: &ApartArgs, home: &Home) -> Result<Apart> {
    if args.no_sandbox {
        return Ok(Apart::No);
    }
    let folder = home.root.join("sandbox");
    let sandbox = Sandbox::new(&folder).context("the sandbox's folder cannot be made")?;
    let network = if args.no_network { Network::None } else { Network::Host };
    let sandbox = sandbox.network(network).hide(&home.root);
    // What worked since the machine was started works still.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known = folder.join("works");
    let key = format!("{boot}{args:?}{}", nix::unistd::geteuid());
    if fs::read_to_string(&known).is_ok_and(|text| text == key && !boot.is_empty()) {
        return Ok(Apart::Sandbox(Box::new(sandbox)));
    }
    sandbox.probe().map_err(|why| {
        let package = if matches!(why, Unavailable::NotInstalled) {
            "install the package bubblewrap, or "
        } else if matches!(why, Unavailable::NoSetpriv(_)) {
            "install the package util-linux, or "
        } else {
            "let the package bubblewrap make user namespaces here, or "
        };
        anyhow::anyhow!("jobs cannot be kept apart from this machine: {why}; {package}run them as you, with all that you may do, with --no-sandbox")
    })?;
    fs::write(&known, key)?;
    Ok(Apart::Sandbox(Box::new(sandbox)))
}

fn find_shell() -> Shell {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let has_bash = std::env::split_paths(&folders).any(|folder| folder.join("bash").is_file());
    if has_bash { Shell::Bash } else { Shell::Sh }
}

/// Signals that end a run are taken by a thread of their own; processes of jobs get them as usual.
fn block_signals() -> Result<()> {
    Ok(ending_signals().thread_block()?)
}

fn ending_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// One run of a project.
pub(crate) struct Run<'r> {
    number: u64,
    folder: PathBuf,
    home: &'r Home,
    repository: &'r Repository,
    settings: &'r Settings,
    /// How it was started; a run that is resumed starts no child pipelines.
    pub(crate) started: Option<&'r Started>,
    /// What runs the jobs that name an image.
    engine: Option<Engine>,
}

impl Run<'_> {
    fn go(&self, saved: &Saved, selected: &Selected, apart: &Apart, show: &ShowArgs, played: &[usize]) -> Result<u8> {
        let masks = Masks::new(&self.settings.masked);
        let report = Report::new(show.log_format, masks, selected.plan.jobs.iter().map(|job| job.name.chars().count()));
        report.began(self.number, &saved.name, selected.plan.jobs.len(), &saved.what);
        saved.plan.notes.iter().for_each(|note| report.note(&note.to_string()));
        images(&selected.plan, &report, self.engine.as_ref());
        let folders = folders(&self.folder, self.home, self.repository);
        if let Apart::Sandbox(sandbox) = apart {
            sandbox.give(&folders.source).context("the snapshot cannot be given to the jobs' user")?;
        }
        let interrupts: &'static Interrupts = Box::leak(Box::default());
        std::thread::spawn(move || {
            let mut times = 0;
            while ending_signals().wait().is_ok() {
                interrupts.interrupt();
                times += 1;
                if times > 1 {
                    std::process::exit(i32::from(INTERRUPTED));
                }
            }
        });
        let slots = show
            .parallel
            .map_or_else(|| std::thread::available_parallelism().map_or(2, std::num::NonZero::get), usize::from);
        let pipelines = Pipelines {
            run: self,
            slots: u64::try_from(slots).unwrap_or(2),
            interrupts,
            later: Mutex::new(Vec::new()),
            depth: 0,
        };
        let runner = Runner {
            plan: &selected.plan,
            folders,
            apart: apart.clone(),
            engine: self.engine.clone(),
            objects_seen: objects_for(apart, self.repository),
            shell: find_shell(),
            report: &report,
            files: &self.settings.files,
            tracked: saved.tracked.clone(),
            prefix: String::new(),
            may_overlay: AtomicBool::new(nix::unistd::geteuid().is_root()),
            records: Mutex::default(),
            keeps_failed: true,
            children: &pipelines,
        };
        let (ended, lines) = pipelines.whole(&runner, selected, played)?;
        for (at, variables) in pipelines.later() {
            if ended != Ended::Interrupted
                && let Err(why) = pipelines.run(&runner, at, variables)
            {
                report.note(&format!("the child pipeline of {}: {why}", selected.plan.jobs[at].name));
            }
        }
        let (result, exit) = result(ended, &lines);
        if let Some(engine) = self.engine.as_ref().filter(|_| ended == Ended::Interrupted) {
            engine.clear(&self.folder);
        }
        if ended == Ended::Interrupted {
            tree::remove(&self.folder.join("jobs"))?;
        }
        if let Some(file) = &show.junit {
            let project = &self.repository.commit.project;
            let log = |at: usize| fs::read_to_string(runner.folders.log(at)).ok();
            let text = crate::junit::report(project, &lines, &log);
            fs::write(file, report.masks().text(&text))
                .with_context(|| format!("the report {} cannot be written", file.display()))?;
        }
        let artifacts = self.folder.join("artifacts");
        let look = if artifacts.is_dir() {
            format!("artifacts are in {}", artifacts.display())
        } else {
            format!("logs are in {}", self.folder.join("logs").display())
        };
        report.ended(result, exit, &lines, &look);
        if show.log_format == Format::Text && ended == Ended::Blocked {
            println!("a job waits for you: start it with `pipeline resume --play JOB`");
        }
        Ok(exit)
    }
}

/// Says which images are used by what, or not.
fn images(plan: &Plan, report: &Report, engine: Option<&Engine>) {
    let values = |job: &Job| job.values(Variables::new(), Variables::new()).unwrap_or_default();
    let mut by_image: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for job in &plan.jobs {
        if let Some(image) = &job.image {
            by_image.entry(gitlab_ci::expand(&image.name, &values(job))).or_default().push(&job.name);
        }
    }
    for (image, jobs) in by_image {
        let jobs = jobs.join(", ");
        match engine {
            Some(engine) => report.note(&format!("image {image} runs {jobs}, with {}", engine.name())),
            None => report.note(&format!("image {image} is not used: {jobs} run in your shell")),
        }
    }
    let uses_docker = |job: &&Job| {
        let lines = job.before_script.iter().chain(&job.script);
        lines
            .into_iter()
            .any(|line| line.split_whitespace().any(|word| matches!(word, "docker" | "podman" | "buildah")))
    };
    let docker: Vec<&str> = plan
        .jobs
        .iter()
        .filter(|job| engine.is_none() || job.image.is_none())
        .filter(uses_docker)
        .map(|job| job.name.as_str())
        .collect();
    if !docker.is_empty() {
        report.note(&format!(
            "{} use docker or a like, which the sandbox does not reach: --no-sandbox lets them",
            docker.join(", ")
        ));
    }
}
