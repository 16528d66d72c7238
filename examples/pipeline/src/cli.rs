//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::report::Format;

/// Runs your own .gitlab-ci.yml on this machine.
///
/// Every job gets a fresh copy of your files, outside of your tree, and a sandbox; your tree is never written to.
///
/// Exit codes: 0 the pipeline succeeded; 1 it failed; 2 the file or the arguments are wrong, nothing ran; 3 a job waits for
/// you (`--play JOB`); 4 there is no pipeline for this commit; 130 it was interrupted.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  pipeline run                       the pipeline of a push of the current branch
  pipeline run test --only           one job, without what it needs
  pipeline run --tag v1.2            the pipeline of a tag
  pipeline run --source merge_request_event --target-branch main
  pipeline explain deploy            why a job is there, and what it waits for
  pipeline resume                    goes on with the last run; no finished job runs again
  pipeline shell test                a shell in the copy of a job that failed";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the pipeline, or the named jobs with what they need.
    Run(RunArgs),
    /// Goes on with the last run where it stopped; no finished job runs again.
    Resume(ResumeArgs),
    /// Lists the jobs of the pipeline.
    List(StartArgs),
    /// Draws which job waits for which.
    Graph {
        #[command(flatten)]
        start: StartArgs,
        /// Write a Mermaid flowchart.
        #[arg(long)]
        mermaid: bool,
    },
    /// Says why a job is in the pipeline, what it waits for and whose artifacts it takes; and what became of it in the last run.
    Explain {
        job: String,
        #[command(flatten)]
        start: StartArgs,
    },
    /// Checks the file without running anything.
    Lint(StartArgs),
    /// Opens a shell in the copy of a job of the last run that failed.
    Shell {
        job: String,
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        apart: ApartArgs,
    },
    /// Prints what a shell needs to complete commands: `source <(pipeline completions bash)`.
    Completions { shell: clap_complete::Shell },
    /// Removes old runs and caches of this project.
    Clean {
        #[command(flatten)]
        place: PlaceArgs,
        /// Keep the newest of them, up to so many MiB together; without, all go.
        #[arg(long, value_name = "MIB", default_value_t = 0)]
        keep: u64,
    },
}

/// Which project.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The project, or a folder in it.
    #[arg(short = 'C', long = "directory", value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
    /// Where runs and caches are kept [default: `$XDG_STATE_HOME/pipeline` or `~/.local/state/pipeline`].
    #[arg(long, value_name = "DIR", env = "PIPELINE_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The file with variables of the project [default: .pipeline-variables.yml at its root, if it is there].
    #[arg(long, value_name = "FILE")]
    pub(crate) variables_file: Option<PathBuf>,
}

/// How the pipeline is started.
#[derive(Clone, Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The CI file, from the root of the project.
    #[arg(long, value_name = "PATH", default_value = gitlab_ci::FILE)]
    pub(crate) file: String,
    /// Run as for a push of this branch [default: the current branch].
    #[arg(long, conflicts_with = "tag")]
    pub(crate) branch: Option<String>,
    /// Run as for this tag.
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// How the pipeline is started: `push`, `merge_request_event`, `schedule`, `web`, `api`, `trigger`, `pipeline`, `chat`.
    #[arg(long, default_value = "push")]
    pub(crate) source: String,
    /// The branch that a merge request is to go into [default: the default branch].
    #[arg(long, value_name = "BRANCH")]
    pub(crate) target_branch: Option<String>,
    /// A variable of the pipeline; stronger than all of the file. May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) variable: Vec<(String, String)>,
    /// An input of the file (`spec:inputs`). May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) input: Vec<(String, String)>,
    /// The folder that stands for another project, a URL or `templates` in `include`. May be given several times.
    #[arg(long, value_name = "HOST/PATH=DIR", value_parser = pair)]
    pub(crate) include_root: Vec<(String, String)>,
    /// Take a key that is refused without effect, such as `release`. May be given several times.
    #[arg(long, value_name = "KEY")]
    pub(crate) ignore: Vec<String>,
    /// Leave out jobs that start pipelines of other projects.
    #[arg(long)]
    pub(crate) skip_triggers: bool,
    /// What `rules:changes` compares with [default: the merge base with the default branch].
    #[arg(long, value_name = "REV")]
    pub(crate) changes_base: Option<String>,
    /// Take the files of the commit, without changes that are not committed.
    #[arg(long)]
    pub(crate) committed: bool,
}

/// How jobs are kept apart.
#[derive(Clone, Debug, Args)]
pub(crate) struct ApartArgs {
    /// Give jobs no network.
    #[arg(long)]
    pub(crate) no_network: bool,
    /// Run jobs without a sandbox: as you, with all that you may do and see.
    #[arg(long, conflicts_with = "no_network")]
    pub(crate) no_sandbox: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Jobs to run, with what they need; all, if none is named.
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<String>,
    /// Run the named jobs without what they need.
    #[arg(long, requires = "jobs")]
    pub(crate) only: bool,
    /// A manual job to start. May be given several times.
    #[arg(long, value_name = "JOB")]
    pub(crate) play: Vec<String>,
    /// Run jobs that deploy; without, they are listed and not run.
    #[arg(long)]
    pub(crate) allow_deploy: bool,
    /// Run jobs with services without these.
    #[arg(long)]
    pub(crate) without_services: bool,
    #[command(flatten)]
    pub(crate) apart: ApartArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) start: StartArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ResumeArgs {
    /// A manual job to start. May be given several times.
    #[arg(long, value_name = "JOB")]
    pub(crate) play: Vec<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) apart: ApartArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// How a run goes and what it says.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    /// Jobs that run at once [default: the processors of this machine].
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) parallel: Option<u16>,
    /// For people, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,
    /// Write the result as a `JUnit` report, one test case a job.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// What jobs with an image run in: containers if docker or podman is there, always the shell, or always containers.
    #[arg(long, value_enum, default_value_t = Executor::Auto)]
    pub(crate) executor: Executor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    Auto,
    Shell,
    Container,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a name and a value are joined by `=`")?;
    if name.is_empty() { Err("the name is missing".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}
