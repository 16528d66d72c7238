//! What a plan is made of.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::variables::Layers;

/// A place in one of the files that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file, as it was included.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What is wrong with a file: it cannot be run as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}{message}{}", KeyAnd(key), HelpOf(help))]
pub struct Error {
    /// Where it stands.
    pub place: Place,
    /// Which key it is, such as `build.needs[0]`; empty for the file itself.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it on the command line of the program `pipeline`, if there is something.
    pub help: Option<String>,
}

/// What to do, behind what is wrong.
struct HelpOf<'a>(&'a Option<String>);

impl fmt::Display for HelpOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |help| write!(f, ": {help}"))
    }
}

/// A remark about a file that is run all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// Which key it is.
    pub key: String,
    /// The remark.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.place, KeyAnd(&self.key), self.message)
    }
}

struct KeyAnd<'a>(&'a str);

impl fmt::Display for KeyAnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "`{}`: ", self.0) }
    }
}

/// What becomes of a file with one way of starting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a pipeline.
    Pipeline(Plan),
    /// There is none, and why.
    None {
        /// Why.
        reason: String,
        /// Remarks about the file.
        notes: Vec<Note>,
    },
}

/// The jobs of one pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name, if `workflow:name` says one.
    pub name: Option<String>,
    /// All stages, `.pre` first and `.post` last.
    pub stages: Vec<String>,
    /// The jobs, by stage, and in the order of the file.
    pub jobs: Vec<Job>,
    /// Jobs of the file that are not in this pipeline, and why.
    pub absent: Vec<Absent>,
    /// Remarks, each once.
    pub notes: Vec<Note>,
    /// Every file that was read.
    pub files: Vec<String>,
}

/// A job of the file that is not in the pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A job of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name, such as `test 1/3`.
    pub name: String,
    /// Its name in the file, such as `test`.
    pub group: String,
    /// Where it stands.
    pub place: Place,
    /// Its stage.
    pub stage: String,
    /// The number of its stage in [`Plan::stages`].
    pub stage_index: usize,
    /// Commands before the script, in the same shell.
    pub before_script: Vec<String>,
    /// Commands.
    pub script: Vec<String>,
    /// Commands afterwards, in a shell of their own.
    pub after_script: Vec<String>,
    /// Its variables, without those of dotenv reports.
    pub variables: Layers,
    /// What decided that it is in the pipeline.
    pub decided_by: String,
    /// When it is wanted.
    pub when: When,
    /// What starts it.
    pub start: Start,
    /// What its failure means.
    pub allow_failure: AllowFailure,
    /// Further attempts.
    pub retry: Retry,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// The jobs that it waits for, if it names any (or none of them); otherwise all of earlier stages.
    pub needs: Option<Vec<Need>>,
    /// The jobs whose artifacts it takes, by number, in order.
    pub takes_from: Vec<usize>,
    /// What is kept of its files.
    pub artifacts: Option<Artifacts>,
    /// What is kept from one pipeline to the next.
    pub cache: Vec<Cache>,
    /// The container that it runs in.
    pub image: Option<Image>,
    /// The containers beside it.
    pub services: Vec<Image>,
    /// What only one job uses at a time.
    pub resource_group: Option<String>,
    /// What it deploys to, or looks at.
    pub environment: Option<Environment>,
    /// The pattern of its coverage, as it is written.
    pub coverage: Option<String>,
    /// What its runner must have.
    pub tags: Vec<String>,
    /// Its number and how many there are, with `parallel`.
    pub parallel: Option<(usize, usize)>,
    /// The child pipeline that it starts instead of a script.
    pub trigger: Option<Trigger>,
}

impl Job {
    /// Whether it deploys: it has an environment that it starts, and its stage or its environment's tier says so.
    #[must_use]
    pub fn deploys(&self) -> bool {
        const WORDS: [&str; 4] = ["deploy", "deployment", "release", "production"];
        self.environment.as_ref().is_some_and(|environment| {
            let starts = environment.action == "start";
            starts && (WORDS.contains(&self.stage.as_str()) || WORDS.contains(&environment.tier.as_str()))
        })
    }
}

impl Retry {
    /// Whether a failure of this kind counts, and with this exit code.
    #[must_use]
    pub fn counts(&self, kind: &str, code: Option<i32>) -> bool {
        let of_kind = self.when.iter().any(|wanted| wanted == "always" || wanted == kind);
        let of_code = code.is_some_and(|code| self.exit_codes.contains(&code));
        (self.when.is_empty() && self.exit_codes.is_empty()) || of_kind || of_code
    }
}

/// When a job is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// When nothing that it waits for failed.
    #[default]
    OnSuccess,
    /// When something that it waits for failed.
    OnFailure,
    /// In either case.
    Always,
}

/// What starts a job once it is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// Nothing more.
    #[default]
    Auto,
    /// A person.
    Manual,
    /// The time.
    After(Duration),
}

/// What the failure of a job means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowFailure {
    /// The pipeline fails.
    #[default]
    No,
    /// The pipeline goes on; if the job is manual, nobody waits for it.
    Yes,
    /// The pipeline goes on with one of these exit codes, and fails with any other.
    ExitCodes(Vec<i32>),
}

/// How often a job runs again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// At most so many further attempts.
    pub max: u8,
    /// The kinds of failure that count; with no kinds and no exit codes all do.
    pub when: Vec<String>,
    /// The exit codes that count besides.
    pub exit_codes: Vec<i32>,
}

/// A job that another waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Its number in [`Plan::jobs`].
    pub job: usize,
    /// Whether its artifacts are taken.
    pub artifacts: bool,
}

/// What is kept of a job's files, with variables not yet put in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// Patterns of what is kept.
    pub paths: Vec<String>,
    /// Patterns of what is not.
    pub exclude: Vec<String>,
    /// Whether files that are not tracked are kept.
    pub untracked: bool,
    /// With which result.
    pub when: Keep,
    /// Patterns of dotenv reports.
    pub dotenv: Vec<String>,
    /// Patterns of `JUnit` reports.
    pub junit: Vec<String>,
}

/// With which result of the job its files are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// If it succeeded.
    #[default]
    OnSuccess,
    /// If it failed.
    OnFailure,
    /// In either case.
    Always,
}

impl Keep {
    /// Whether they are kept with this result.
    #[must_use]
    pub const fn holds(self, succeeded: bool) -> bool {
        match self {
            Self::OnSuccess => succeeded,
            Self::OnFailure => !succeeded,
            Self::Always => true,
        }
    }
}

/// A cache, with variables not yet put in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Under what it is kept.
    pub key: CacheKey,
    /// Patterns of what is kept.
    pub paths: Vec<String>,
    /// Whether files that are not tracked are kept.
    pub untracked: bool,
    /// With which result it is saved.
    pub when: Keep,
    /// `pull-push`, `pull` or `push`, or a variable with one of them.
    pub policy: String,
    /// Keys that are tried when nothing is kept under its own.
    pub fallback_keys: Vec<String>,
}

/// Under what a cache is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheKey {
    /// A text.
    Text(String),
    /// What these files hold.
    Files {
        /// The files.
        files: Vec<String>,
        /// What the key begins with.
        prefix: Option<String>,
    },
}

impl Default for CacheKey {
    fn default() -> Self {
        Self::Text("default".to_owned())
    }
}

/// A container's image, with variables not yet put in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The image.
    pub name: String,
    /// The names that a service is reached by.
    pub aliases: Vec<String>,
    /// What is started instead of the image's own entry point.
    pub entrypoint: Option<Vec<String>>,
    /// The command of a service.
    pub command: Option<Vec<String>>,
    /// When it is fetched: `always`, `if-not-present` or `never`, the first that can be.
    pub pull_policy: Vec<String>,
    /// The user inside.
    pub user: Option<String>,
    /// The platform.
    pub platform: Option<String>,
    /// Variables of a service's own.
    pub variables: crate::variables::Variables,
}

/// What a job deploys to, with variables not yet put in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Where it is looked at.
    pub url: Option<String>,
    /// `start`, `prepare`, `stop`, `verify` or `access`.
    pub action: String,
    /// `production`, `staging`, `testing`, `development` or `other`.
    pub tier: String,
}

/// A child pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The files that it is made of, from the root of the repository.
    pub files: Vec<String>,
    /// Whether the job ends as the child pipeline ends; otherwise it ends at once.
    pub waits: bool,
    /// Whether the variables of the file are passed on.
    pub forwards_yaml_variables: bool,
    /// Whether the variables that the pipeline was started with are passed on.
    pub forwards_pipeline_variables: bool,
}
