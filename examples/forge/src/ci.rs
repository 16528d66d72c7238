//! Pipelines: what a push to a repository with a CI file starts, the workers that run it, the fleet they
//! form, and the page that shows it all.

pub(crate) mod api;
pub(crate) mod centre;
pub(crate) mod file;
pub(crate) mod fleet;
pub(crate) mod follow;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod show;
pub(crate) mod store;
pub(crate) mod view;
pub(crate) mod wire;
pub(crate) mod words;
pub(crate) mod worker;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use sandbox::{Network, Sandbox};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::home::Home;
use crate::router::{Failure, Host};
use centre::{Centre, Settings};
use fleet::{Fleet, Launch, Sizing};
use logs::Logs;
use store::CiStore;

/// The environment variable that hands a worker its token (never in `argv`, which every user of the machine can read).
pub(crate) const WORKER_TOKEN_ENV: &str = "FORGE_WORKER_TOKEN";
/// The file of the data folder that holds it.
pub(crate) const WORKER_TOKEN_FILE: &str = "worker-token";
/// Commits of open pipelines that one repository vouches for at once, the newest first.
const MOST_OPEN: u32 = 64;
/// How long workers may take to give back what they run when the whole ends.
const FAREWELL: Duration = Duration::from_secs(4);

/// Pipelines and the worker fleet.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Pipelines (jobs run apart from this machine, with bubblewrap)")]
pub(crate) struct CiArgs {
    /// Fewest workers of the fleet; 0 for none while nothing waits [default: 1, or 0 if there is no fleet].
    #[arg(long)]
    pub(crate) workers_min: Option<u32>,
    /// Most workers of the fleet; 0 for no fleet.
    #[arg(long, default_value_t = 4)]
    pub(crate) workers_max: u32,
    /// Jobs, waiting or running, that one worker of the fleet carries.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs_per_worker: u32,
    /// A job that waited longer, in seconds, asks for one worker more.
    #[arg(long, default_value_t = 20)]
    pub(crate) oldest_seconds: u64,
    /// For so long, in seconds, fewer workers must do before one goes.
    #[arg(long, default_value_t = 60)]
    pub(crate) calm_seconds: u64,
    /// Tags of the fleet's workers: jobs that need others wait for workers of your own (`forge worker run`).
    #[arg(long, value_delimiter = ',', default_value = "linux,shell")]
    pub(crate) worker_tags: Vec<String>,
    #[command(flatten)]
    pub(crate) jobs: JobArgs,
    /// Longest run of a job whose file says no time-out, in seconds.
    #[arg(long, default_value_t = 3600)]
    pub(crate) job_seconds: u64,
    /// Where a job's log is cut, in bytes.
    #[arg(long, default_value_t = 4 << 20)]
    pub(crate) max_log_bytes: u64,
}

/// How jobs are kept apart from the machine.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct JobArgs {
    /// Give jobs the machine's network. They then reach what listens on its loopback, too.
    #[arg(long)]
    pub(crate) jobs_network: bool,
    /// A folder that jobs see, read-only, besides the system's programs and the tools on PATH; may be given several times.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) job_tools: Vec<PathBuf>,
    /// Run jobs without a sandbox: as this user, with all that it may do and see.
    #[arg(long)]
    pub(crate) unsafe_jobs: bool,
}

/// What runs jobs.
#[derive(Clone, Debug)]
pub(crate) enum Jobs {
    Apart(Box<Sandbox>),
    /// As the worker's user.
    Unsafe,
}

impl JobArgs {
    /// Finds out how jobs can be run here; the sandbox keeps its files beside `folder`, and shows nothing of `data`.
    ///
    /// # Errors
    /// Why none run, and what to do.
    pub(crate) fn decide(&self, folder: &Path, data: &Path) -> Result<Jobs, String> {
        if self.unsafe_jobs {
            return Ok(Jobs::Unsafe);
        }
        let network = if self.jobs_network { Network::Host } else { Network::None };
        let own = folder.with_extension("sandbox");
        let cannot = |why: &dyn std::fmt::Display| {
            format!(
                "they cannot be kept apart from this machine, {why}; mend that, or let them do all that this user may do, \
                 with --unsafe-jobs"
            )
        };
        let sandbox = Sandbox::new(&own).map_err(|e| cannot(&format!("{}: {e}", own.display())))?;
        let sandbox = sandbox.network(network).hide(folder).hide(data).hide(own);
        let sandbox = self.job_tools.iter().fold(sandbox, Sandbox::tools);
        match sandbox.probe() {
            Ok(()) => Ok(Jobs::Apart(Box::new(sandbox))),
            Err(why) => Err(cannot(&why)),
        }
    }

    /// The flags that a worker is started with.
    fn words(&self) -> Vec<std::ffi::OsString> {
        let flags = [(self.jobs_network, "--jobs-network"), (self.unsafe_jobs, "--unsafe-jobs")];
        let mut words: Vec<std::ffi::OsString> =
            flags.iter().filter(|(on, _)| *on).map(|(_, flag)| flag.into()).collect();
        words.extend(self.job_tools.iter().flat_map(|folder| ["--job-tools".into(), folder.into()]));
        words
    }
}

impl CiArgs {
    /// Whether all of it can be, before anything is started.
    pub(crate) fn check(&self) -> Result<()> {
        if self.fewest() > self.workers_max {
            bail!("--workers-min {} is above --workers-max {}", self.fewest(), self.workers_max);
        }
        if let Some(tag) = self.worker_tags.iter().find(|tag| !file::is_tag(tag)) {
            bail!("`{tag}` is no tag: use letters, digits, '.', '_' and '-' with --worker-tags");
        }
        Ok(())
    }

    fn fewest(&self) -> u32 {
        self.workers_min.unwrap_or(self.workers_max.min(1))
    }

    /// A fleet that grows and shrinks while somebody watches. Its CI files are its own: where jobs cannot be kept
    /// apart they run all the same.
    pub(crate) fn demo(data: &Path) -> Self {
        let jobs = JobArgs::default();
        let unsafe_jobs = jobs.decide(&data.with_extension("demo"), data).is_err();
        Self {
            workers_min: Some(1),
            workers_max: 4,
            jobs_per_worker: 1,
            oldest_seconds: 20,
            calm_seconds: 3,
            worker_tags: vec!["linux".into(), "shell".into()],
            jobs: JobArgs { unsafe_jobs, ..jobs },
            job_seconds: 60,
            max_log_bytes: 1 << 20,
        }
    }
}

/// Everything about pipelines, as the router holds it.
#[derive(Debug)]
pub(crate) struct Ci {
    pub(crate) centre: Arc<Centre>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) worker_token: String,
    /// Why no jobs run, if none do.
    pub(crate) no_jobs: Option<String>,
    /// Whether whoever waits for something shall be let go.
    pub(crate) closing: watch::Sender<bool>,
}

impl Ci {
    /// Takes up what was open when the last life ended; nothing runs before [`Ci::run`].
    pub(crate) fn start(home: &Home, url: &str, args: &CiArgs) -> Result<Self> {
        let folder = home.path().join("ci");
        let worker_token = home.secret(WORKER_TOKEN_FILE)?;
        let logs =
            Logs::open(folder.join("logs"), args.max_log_bytes).context("the folder of job logs cannot be made")?;
        let settings = Settings { job_timeout: Duration::from_secs(args.job_seconds) };
        let centre = Centre::start(Arc::new(CiStore::open(&home.store())?), logs, settings)?;
        let sizing = Sizing {
            min: args.fewest(),
            max: args.workers_max,
            jobs_per_worker: args.jobs_per_worker,
            oldest_ms: args.oldest_seconds.saturating_mul(1000),
            calm_ms: args.calm_seconds.saturating_mul(1000),
            tags: args.worker_tags.clone(),
        };
        let no_jobs =
            if args.workers_max == 0 { None } else { args.jobs.decide(&folder.join("probe"), home.path()).err() };
        if let Some(why) = &no_jobs {
            tracing::warn!("no jobs run: {why}");
        }
        let processes = Processes {
            data: home.path().to_owned(),
            jobs: args.jobs.words(),
            folder: folder.join("workers"),
            server: url.to_owned(),
            token: worker_token.clone(),
            tags: args.worker_tags.join(","),
        };
        let fleet = Arc::new(Fleet::new(&centre, sizing, Box::new(processes))?);
        Ok(Self { centre, fleet, worker_token, no_jobs, closing: watch::Sender::new(false) })
    }

    /// Follows pushes and keeps the fleet, until the tasks are ended.
    pub(crate) fn run(&self, host: &Host) -> Vec<JoinHandle<()>> {
        let mut tasks = vec![tokio::spawn(follow::run(host.clone()))];
        match &self.no_jobs {
            None => tasks.push(tokio::spawn(Arc::clone(&self.fleet).run(Arc::clone(&self.centre)))),
            Some(why) => self.fleet.stay_empty(why),
        }
        tasks
    }

    /// The version up to which a repository's pushes have their pipelines.
    pub(crate) async fn followed(&self, repo: u64) -> Result<u64, Failure> {
        Ok(show::stored(&self.centre, move |centre| centre.store.cursor(repo)).await?.version)
    }

    /// The commits of a repository whose pipelines have not ended.
    pub(crate) async fn open_commits(&self, repo: u64) -> Result<Vec<String>, Failure> {
        show::stored(&self.centre, move |centre| centre.store.open_commits(repo, MOST_OPEN)).await
    }

    /// Ends the workers, which give back what they run; then lets go who waits.
    pub(crate) async fn close(&self) {
        self.fleet.stop(FAREWELL).await;
        self.closing.send_replace(true);
    }
}

/// Workers as processes of this program.
#[derive(Debug)]
struct Processes {
    data: PathBuf,
    jobs: Vec<std::ffi::OsString>,
    folder: PathBuf,
    server: String,
    token: String,
    tags: String,
}

impl Launch for Processes {
    fn launch(&self, name: &str) -> Result<Child> {
        std::fs::create_dir_all(&self.folder)?;
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join(format!("{name}.log")))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["worker", "run", "--with-parent", "--name", name, "--server", &self.server])
            .args(["--tags", &self.tags])
            .arg("--folder")
            .arg(self.folder.join(name))
            .arg("--data")
            .arg(&self.data)
            .args(&self.jobs)
            .env(WORKER_TOKEN_ENV, &self.token)
            // Its own group: Ctrl-C in the terminal reaches the router alone, which ends the workers in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a worker")?;
        Ok(child)
    }
}
