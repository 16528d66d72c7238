//! Reads `.gitlab-ci.yml` as GitLab does, and plans the jobs of a pipeline.
//!
//! [`plan`] reads a file with all that it includes, merges, evaluates every rule for one way of starting the pipeline, and
//! gives the jobs in their order. Its only I/O is [`Files`].
//!
//! ```
//! use gitlab_ci::{Commit, Context, Memory, Outcome, Reference, plan};
//!
//! let files = Memory::new([(
//!     ".gitlab-ci.yml",
//!     "build: {stage: build, script: make}\n\
//!      test: {script: make test, parallel: 2}\n\
//!      deploy: {stage: deploy, script: ./deploy, rules: [{if: $CI_COMMIT_TAG}]}\n",
//! )]);
//! let context = Context::new(Commit::default(), Reference::Branch("main".to_owned()), "push");
//! let Outcome::Pipeline(plan) = plan(&files, &context)? else { unreachable!("it has jobs") };
//! let names: Vec<&str> = plan.jobs.iter().map(|job| job.name.as_str()).collect();
//! assert_eq!(names, ["build", "test 1/2", "test 2/2"]);
//! assert_eq!(plan.absent[0].reason, "no rule matches");
//! # Ok::<(), gitlab_ci::Error>(())
//! ```
//!
//! A key is effective, informational (taken, with a [`Note`]) or refused with file, line, key and what to do instead.
//! Nothing is dropped silently. Everything has a limit: files, bytes, depth, includes, jobs, expressions, patterns.

mod around;
mod config;
mod context;
mod duration;
mod expression;
mod glob;
mod inputs;
mod kept;
mod keys;
mod memory;
mod merge;
mod model;
mod plan;
mod rules;
mod slug;
mod source;
mod variables;

use yaml::{Map, Mark};

pub use context::{Commit, Context, Reference};
pub use expression::{Evaluated, Expression, ExpressionError, pattern};
pub use glob::{Glob, Style, is_pattern};
pub use memory::Memory;
pub use model::{
    Absent, AllowFailure, Artifacts, Cache, CacheKey, Environment, Error, Image, Job, Keep, Need, Note, Outcome, Place,
    Plan, Retry, Start, Trigger, When,
};
pub use slug::{environment_slug, slug};
pub use source::{Changed, Files};
pub use variables::{CycleError, Layers, Value, Variables, dotenv, expand, expand_all, is_name};

use config::Config;
use keys::Remarks;
use plan::Read;
use rules::World;
use source::{Given, Reader, Remark};

/// The file's name at the root of a repository.
pub const FILE: &str = ".gitlab-ci.yml";

/// Plans the pipeline of `.gitlab-ci.yml`.
///
/// # Errors
/// The first thing that cannot be run as it is written.
pub fn plan(files: &dyn Files, context: &Context) -> Result<Outcome, Error> {
    plan_of(files, &[FILE.to_owned()], context)
}

/// Plans the pipeline of these files, laid over each other in this order: those of a child pipeline.
///
/// # Errors
/// The first thing that cannot be run as it is written.
pub fn plan_of(files: &dyn Files, paths: &[String], context: &Context) -> Result<Outcome, Error> {
    let mut visible = context.predefined();
    visible.extend(context.project.clone());
    visible.extend(context.given.clone());
    let given = Given { variables: &visible, host: &context.commit.host, inputs: &context.inputs };
    let mut reader = Reader::new(given);
    let root = reader.read(files, paths);
    let sources = std::mem::take(&mut reader.sources);
    let mut remarks = Remarks { notes: std::mem::take(&mut reader.remarks), ..Remarks::default() };
    let place = |at: Mark| {
        let file = usize::try_from(at.file).ok().and_then(|file| sources.get(file)).cloned().unwrap_or_default();
        Place { file, line: at.line.max(1), column: at.column.max(1) }
    };
    // What is wrong, and in a line of its own what to do.
    let wrong = |error: yaml::Error| {
        let (message, help) = error.message.split_once('\n').unwrap_or((&error.message, ""));
        let help = (!help.is_empty()).then(|| help.to_owned());
        Error { place: place(error.at), message: message.to_owned(), help, key: error.path }
    };
    let root: Map = merge::resolve_references(&root.map_err(wrong)?).map_err(wrong)?;
    let config = Config::read(&root, context, &mut remarks).map_err(wrong)?;
    let world = World::new(files, context);
    let read = Read { config: &config, world: &world, context, place: &place };
    let mut outcome = read.plan(&mut remarks.notes).map_err(wrong)?;
    let told = notes(remarks.notes, &place);
    match &mut outcome {
        Outcome::Pipeline(plan) => {
            plan.notes = told;
            plan.files = sources;
        }
        Outcome::None { notes, .. } => *notes = told,
    }
    Ok(outcome)
}

/// Each remark once, at its first place.
fn notes(remarks: Vec<Remark>, place: &dyn Fn(Mark) -> Place) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    for (at, key, message) in remarks {
        if !notes.iter().any(|note| note.key == key && note.message == message) {
            notes.push(Note { place: place(at), key, message });
        }
    }
    notes
}
