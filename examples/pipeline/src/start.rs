//! How a pipeline is started: from the command line and the repository to a plan.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Result, bail};
use gitlab_ci::{Context, Outcome, Reference, Value, plan_of};

use crate::cli::StartArgs;
use crate::git::Repository;
use crate::project::Project;
use crate::settings::Settings;

/// Everything that decides about a plan.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) repository: Repository,
    pub(crate) settings: Settings,
    pub(crate) context: Context,
    args: StartArgs,
    include_roots: Vec<(String, PathBuf)>,
}

impl Started {
    pub(crate) fn new(args: &StartArgs) -> Result<Self> {
        let repository = Repository::find(&args.place.directory)?;
        let settings = Settings::read(args.place.variables_file.as_deref(), &repository.root)?;
        let reference = reference(args, &repository)?;
        let mut context = Context::new(repository.commit.clone(), reference, args.source.clone());
        context.project.clone_from(&settings.variables);
        context.given = args.variable.iter().map(|(name, value)| (name.clone(), Value::new(value.clone()))).collect();
        context.ignore.clone_from(&args.ignore);
        context.skip_triggers = args.skip_triggers;
        for (name, value) in &args.input {
            let documents =
                yaml::parse(value, &yaml::Options { schema: yaml::Schema::Yaml11, ..yaml::Options::default() })?;
            let node = documents.into_iter().next().map_or_else(
                || yaml::Node::new(yaml::Value::Text(String::new()), yaml::Mark::default()),
                |document| document.root,
            );
            context.inputs.set(yaml::Key { name: name.clone(), at: yaml::Mark::default() }, node);
        }
        let mut include_roots = Vec::new();
        for (place, folder) in &args.include_root {
            let folder = PathBuf::from(folder);
            if !folder.is_dir() {
                bail!("--include-root: {} is no folder", folder.display());
            }
            include_roots.push((place.trim_end_matches('/').to_owned(), folder));
        }
        Ok(Self { repository, settings, context, args: args.clone(), include_roots })
    }

    /// The project's files.
    pub(crate) fn project(&self) -> Project<'_> {
        let target = match &self.context.reference {
            Reference::MergeRequest { target, .. } => Some(target.as_str()),
            Reference::Branch(_) | Reference::Tag(_) => None,
        };
        Project {
            repository: &self.repository,
            committed: self.args.committed,
            changes_base: self.args.changes_base.as_deref(),
            target,
            include_roots: &self.include_roots,
            said: Mutex::new(Vec::new()),
        }
    }

    /// Reads the file and plans its pipeline. What was found out on the way is among the notes.
    pub(crate) fn plan(&self) -> Result<Outcome> {
        let project = self.project();
        let mut outcome = plan_of(&project, std::slice::from_ref(&self.args.file), &self.context)?;
        let said = project.said.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let place = gitlab_ci::Place { file: self.args.file.clone(), line: 1, column: 1 };
        let notes = said.into_iter().map(|message| gitlab_ci::Note {
            place: place.clone(),
            key: "rules.changes".to_owned(),
            message,
        });
        match &mut outcome {
            Outcome::Pipeline(plan) => plan.notes.extend(notes),
            Outcome::None { notes: told, .. } => told.extend(notes),
        }
        Ok(outcome)
    }
}

fn reference(args: &StartArgs, repository: &Repository) -> Result<Reference> {
    const SOURCES: [&str; 11] = [
        "push",
        "merge_request_event",
        "schedule",
        "web",
        "api",
        "trigger",
        "pipeline",
        "chat",
        "external",
        "webide",
        "external_pull_request_event",
    ];
    if !SOURCES.contains(&args.source.as_str()) {
        bail!("--source {} is not known; known are {}", args.source, SOURCES.join(", "));
    }
    if let Some(tag) = &args.tag {
        if args.source == "merge_request_event" {
            bail!("a merge request has no tag: leave --tag or --source out");
        }
        return Ok(Reference::Tag(tag.clone()));
    }
    let default = &repository.commit.default_branch;
    // Without a branch checked out, the pipeline is the default branch's.
    let branch = args.branch.clone().or_else(|| repository.branch.clone()).unwrap_or_else(|| default.clone());
    if args.source == "merge_request_event" {
        let target = args.target_branch.clone().unwrap_or_else(|| default.clone());
        return Ok(Reference::MergeRequest { source: branch, target });
    }
    if args.target_branch.is_some() {
        bail!("--target-branch belongs to --source merge_request_event");
    }
    Ok(Reference::Branch(branch))
}
