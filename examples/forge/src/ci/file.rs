//! `.gitlab-ci.yml`: read and planned by `gitlab-ci`, then held to what this host does. What it does not do is an error
//! that names it, or a note on the pipeline where a job runs all the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use gitlab_ci::{AllowFailure, Changed, Context, Files, Job, Outcome, Start, Value, Variables, When, plan};
use serde::{Deserialize, Deserializer, Serialize};

/// The file's name at the root of a repository.
pub(crate) const FILE: &str = gitlab_ci::FILE;
/// The largest file that is read, in bytes.
pub(crate) const MOST_BYTES: usize = 256 << 10;
/// How many files a pipeline is made of, at most.
pub(crate) const MOST_FILES: usize = 150;

const MOST_JOBS: usize = 1_000;
const LONGEST_TAG: usize = 64;
const LONGEST_TIMEOUT_S: u64 = 24 * 3600;

/// A CI file as one push runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CiFile {
    /// In their order.
    pub(crate) stages: Vec<String>,
    /// By stage, and in the file's order.
    pub(crate) jobs: Vec<JobDef>,
    /// What of the file has no effect here.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

/// One job of a CI file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobDef {
    pub(crate) name: String,
    /// The line of its name.
    pub(crate) line: usize,
    /// Its place among the stages.
    pub(crate) stage: usize,
    /// The commands, those of `before_script` first.
    pub(crate) script: Vec<String>,
    /// Sorted, none twice.
    pub(crate) tags: Vec<String>,
    /// What the job itself predefines, such as `CI_NODE_INDEX`; weaker than all that the file says.
    #[serde(default)]
    pub(crate) predefined: Variables,
    /// Before others are put into them.
    #[serde(deserialize_with = "kept_variables")]
    pub(crate) variables: Variables,
    pub(crate) allow_failure: bool,
    /// How many times it runs again after its script has failed.
    pub(crate) retry: u8,
    /// In seconds, if the file says one.
    pub(crate) timeout_s: Option<u32>,
    /// The jobs it waits for, by their place in [`CiFile::jobs`]; `None`: all of the stages before.
    pub(crate) needs: Option<Vec<usize>>,
    pub(crate) when: JobWhen,
}

/// Variables as they are kept; an older forge kept bare texts, with others put into them already.
fn kept_variables<'de, D: Deserializer<'de>>(kept: D) -> Result<Variables, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Text(String),
        Value(Value),
    }
    let kept = BTreeMap::<String, Kept>::deserialize(kept)?;
    let value = |kept| match kept {
        Kept::Text(text) => Value::raw(text),
        Kept::Value(value) => value,
    };
    Ok(kept.into_iter().map(|(name, kept)| (name, value(kept))).collect())
}

/// What makes a job run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobWhen {
    #[default]
    OnSuccess,
    OnFailure,
    Always,
    /// Somebody's approval.
    Manual,
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct FileError {
    /// The file, if it is one that the first includes.
    pub(crate) file: Option<String>,
    pub(crate) line: u32,
    pub(crate) message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file}, line {}: {}", self.line, self.message),
            None => write!(f, "line {}: {}", self.line, self.message),
        }
    }
}

impl FileError {
    fn at(place: &gitlab_ci::Place, message: impl Into<String>) -> Self {
        let file = Some(place.file.clone()).filter(|file| file != FILE && !file.is_empty());
        Self { file, line: place.line.max(1), message: message.into() }
    }
}

/// Files of a commit, as far as they were fetched.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    files: BTreeMap<String, Option<String>>,
    missing: RefCell<Option<String>>,
}

impl Fetched {
    /// The file that the last reading stopped at, as nobody has fetched it.
    pub(crate) fn missing(&self) -> Option<String> {
        self.missing.take()
    }

    /// Takes a file, or that there is none of that name.
    pub(crate) fn put(&mut self, path: &str, text: Option<String>) {
        self.files.insert(path.to_owned(), text);
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }
}

impl Files for Fetched {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        if let Some(file) = self.files.get(path) {
            return Ok(file.clone().map(String::into_bytes));
        }
        self.missing.replace(Some(path.to_owned()));
        Err(io::Error::other("it has not been fetched"))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Err(io::Error::other("this host does not list files: name each, without patterns or `exists`"))
    }

    fn changed(&self, _: Option<&str>) -> io::Result<Changed> {
        Err(io::Error::other("this host does not compare commits: leave `changes` out"))
    }

    fn elsewhere(&self, _: &str) -> io::Result<Option<(Box<dyn Files + '_>, String)>> {
        Err(io::Error::other("this host reads files of the repository alone"))
    }
}

impl CiFile {
    /// The jobs that a push runs; `Err` in the second place says why it runs none.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub(crate) fn read(files: &dyn Files, context: &Context) -> Result<Result<Self, String>, FileError> {
        let outcome = plan(files, context).map_err(|error| {
            let key = if error.key.is_empty() { String::new() } else { format!("`{}`: ", error.key) };
            FileError::at(&error.place, format!("{key}{}", error.message))
        })?;
        let plan = match outcome {
            Outcome::Pipeline(plan) => plan,
            Outcome::None { reason, .. } => return Ok(Err(reason)),
        };
        if let Some(job) = plan.jobs.get(MOST_JOBS) {
            return Err(FileError::at(&job.place, format!("more than {MOST_JOBS} jobs")));
        }
        let mut notes: Vec<String> = plan.notes.iter().map(ToString::to_string).collect();
        // `.pre` and `.post` are stages of every file; here they are shown where they have jobs.
        let is_used = |at: usize| plan.jobs.iter().any(|job| job.stage_index == at);
        let is_shown = |at: usize| !matches!(plan.stages[at].as_str(), ".pre" | ".post") || is_used(at);
        let shown: Vec<usize> = (0..plan.stages.len()).filter(|at| is_shown(*at)).collect();
        let mut jobs = Vec::with_capacity(plan.jobs.len());
        for (at, job) in plan.jobs.iter().enumerate() {
            let is_taken = plan.jobs.iter().any(|other| other.takes_from.contains(&at));
            check(job, is_taken, &mut notes)?;
            let stage = shown.iter().position(|at| *at == job.stage_index).unwrap_or_default();
            jobs.push(JobDef::of(job, stage)?);
        }
        let stages = shown.into_iter().map(|at| plan.stages[at].clone()).collect();
        Ok(Ok(Self { stages, jobs, notes }))
    }
}

/// Refuses what a job cannot do without and this host has not; notes what it can do without.
fn check(job: &Job, is_taken: bool, notes: &mut Vec<String>) -> Result<(), FileError> {
    let hands_on =
        job.artifacts.as_ref().is_some_and(|kept| kept.untracked || !kept.paths.is_empty() || !kept.dotenv.is_empty());
    let refused = [
        (!job.after_script.is_empty(), "`after_script` is not supported"),
        (!job.services.is_empty(), "`services` are not supported: jobs do not run in containers here"),
        (job.trigger.is_some(), "`trigger` is not supported"),
        (job.environment.is_some(), "`environment` is not supported"),
        (job.resource_group.is_some(), "`resource_group` is not supported"),
        (matches!(job.start, Start::After(_)), "`when: delayed` is not supported"),
        (matches!(job.allow_failure, AllowFailure::ExitCodes(_)), "`allow_failure:exit_codes` is not supported"),
        (!job.retry.when.is_empty() || !job.retry.exit_codes.is_empty(), "`retry` is supported as a number alone"),
        (
            hands_on && is_taken,
            "`artifacts` are not handed to later jobs here: give those `dependencies: []`, or do both in one job",
        ),
    ];
    if let Some((_, why)) = refused.iter().find(|(is_so, _)| *is_so) {
        return Err(FileError::at(&job.place, format!("`{}`: {why}", job.name)));
    }
    let mut note = |is_so: bool, what: String| {
        if is_so {
            notes.push(format!("{}: `{}`: {what}", job.place, job.name));
        }
    };
    let image = job.image.as_ref().map_or("", |image| image.name.as_str());
    note(job.image.is_some(), format!("the image {image} is not used: the job runs in the worker's shell"));
    note(!job.cache.is_empty(), "its cache is not kept".to_owned());
    note(job.artifacts.is_some(), "its artifacts are not kept".to_owned());
    note(job.coverage.is_some(), "its coverage is not looked for".to_owned());
    Ok(())
}

impl JobDef {
    fn of(job: &Job, stage: usize) -> Result<Self, FileError> {
        let wrong = |why: String| FileError::at(&job.place, format!("`{}`: {why}", job.name));
        let mut tags = job.tags.clone();
        tags.sort();
        tags.dedup();
        if let Some(tag) = tags.iter().find(|tag| !is_tag(tag)) {
            return Err(wrong(format!(
                "`{tag}` is no tag: use letters, digits, '.', '_' and '-', at most {LONGEST_TAG}"
            )));
        }
        if job.name.contains(char::is_control) {
            return Err(wrong("a job's name has no control characters".to_owned()));
        }
        let seconds = job.timeout.map(|time| time.as_secs().max(1));
        if seconds.is_some_and(|seconds| seconds > LONGEST_TIMEOUT_S) {
            return Err(wrong("its `timeout` is longer than 24 h".to_owned()));
        }
        let mut layers = job.variables.clone();
        let pipeline_wide = std::mem::take(&mut layers.predefined);
        // Of what is predefined, what the pipeline's own record says is put in when the job runs.
        let own = ["CI_NODE_TOTAL", "CI_NODE_INDEX", "CI_JOB_NAME_SLUG", "CI_JOB_MANUAL"];
        let predefined = pipeline_wide.into_iter().filter(|(name, _)| own.contains(&name.as_str())).collect();
        let mut variables = layers.merged();
        variables.retain(|name, _| gitlab_ci::is_name(name));
        Ok(Self {
            name: job.name.clone(),
            line: usize::try_from(job.place.line).unwrap_or_default(),
            stage,
            script: job.before_script.iter().chain(&job.script).cloned().collect(),
            tags,
            predefined,
            variables,
            allow_failure: job.allow_failure == AllowFailure::Yes,
            retry: job.retry.max,
            timeout_s: seconds.and_then(|seconds| u32::try_from(seconds).ok()),
            needs: job.needs.as_ref().map(|needs| needs.iter().map(|need| need.job).collect()),
            when: match (job.start, job.when) {
                (Start::Manual, _) => JobWhen::Manual,
                (_, When::OnSuccess) => JobWhen::OnSuccess,
                (_, When::OnFailure) => JobWhen::OnFailure,
                (_, When::Always) => JobWhen::Always,
            },
        })
    }
}

/// Whether a worker can have this tag.
pub(crate) fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= LONGEST_TAG
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
impl CiFile {
    /// A file alone, pushed to the main branch.
    pub(crate) fn parse(text: &str) -> Result<Self, FileError> {
        let mut files = Fetched::default();
        files.put(FILE, Some(text.to_owned()));
        let context = super::plan::context("refs/heads/main", &"0".repeat(40), "subject", "demo", 1);
        Self::read(&files, &context).map(|read| read.expect("there is a pipeline"))
    }
}

#[cfg(test)]
mod tests;
