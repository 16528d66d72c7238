//! From a CI file to the queue's terms: orders from stages and needs, tags as components, branches as classes.

use std::collections::BTreeMap;
use std::time::Duration;

use gitlab_ci::{Commit, Context, Reference, Value};

use tenon_jobqueue::{Class, Component, JobId, JobSpec, NewJob, OnFailure, Policy, Start, Tag, When};

use super::centre::LEASE_MS;
use super::file::{CiFile, JobDef, JobWhen};
use super::store::PipelineRecord;

/// What kind of push a pipeline is for: each kind has its queues, so that no kind's backlog holds up another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BranchClass {
    Main,
    Branch,
    Tag,
}

pub(crate) const CLASSES: [BranchClass; 3] = [BranchClass::Main, BranchClass::Branch, BranchClass::Tag];

impl BranchClass {
    fn of(reference: &str) -> Self {
        match reference {
            "refs/heads/main" | "refs/heads/master" => Self::Main,
            tag if tag.starts_with("refs/tags/") => Self::Tag,
            _ => Self::Branch,
        }
    }

    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Main => 1,
            Self::Branch => 2,
            Self::Tag => 3,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Main => "main line",
            Self::Branch => "branches",
            Self::Tag => "tags",
        }
    }

    pub(crate) fn word_of(class: Class) -> &'static str {
        CLASSES.into_iter().find(|c| c.number() == class.get()).map_or("other", Self::word)
    }

    /// What is released goes first, then what everybody builds upon.
    const fn priority(self) -> u8 {
        match self {
            Self::Tag => 20,
            Self::Main => 10,
            Self::Branch => 0,
        }
    }
}

/// A CI file in the queue's terms.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) file: CiFile,
    orders: Vec<u32>,
    class: BranchClass,
}

impl Plan {
    /// The plan of a file that was pushed to `reference`.
    pub(crate) fn new(file: CiFile, reference: &str) -> Self {
        let orders = file.jobs.iter().map(|job| u32::try_from(job.stage + 1).unwrap_or(u32::MAX)).collect();
        Self { file, orders, class: BranchClass::of(reference) }
    }

    pub(crate) fn class(&self) -> Class {
        Class::new(self.class.number())
    }

    pub(crate) fn priority(&self) -> u8 {
        self.class.priority()
    }

    /// What the jobs need that say so, numbered like [`Plan::jobs`].
    pub(crate) fn needs(&self, first: u64) -> Vec<(JobId, Vec<JobId>)> {
        let id = |at: usize| JobId::new(first.saturating_add(u64::try_from(at).unwrap_or(u64::MAX)));
        let named = self.file.jobs.iter().enumerate();
        named.filter_map(|(at, job)| Some((id(at), job.needs.as_ref()?.iter().copied().map(id).collect()))).collect()
    }

    /// The jobs as the queue takes them, numbered from `first`, each with its component.
    pub(crate) fn jobs(&self, first: u64, components: &[u32], timeout: Duration) -> Vec<NewJob> {
        let jobs = self.file.jobs.iter().zip(&self.orders).zip(components);
        (first..)
            .zip(jobs)
            .map(|(id, ((job, order), component))| NewJob {
                id: JobId::new(id),
                spec: spec(job, *order, Component::new(*component), timeout),
                tag: Some(Tag::new(*component, self.class.number())),
            })
            .collect()
    }
}

fn spec(job: &JobDef, order: u32, component: Component, timeout: Duration) -> JobSpec {
    let timeout_ms = job.timeout_s.map_or(timeout, |s| Duration::from_secs(u64::from(s))).as_millis();
    JobSpec {
        order,
        component,
        when: match job.when {
            JobWhen::OnSuccess | JobWhen::Manual => When::OnSuccess,
            JobWhen::OnFailure => When::OnFailure,
            JobWhen::Always => When::Always,
        },
        start: if job.when == JobWhen::Manual { Start::Manual } else { Start::Auto },
        on_failure: if job.allow_failure { OnFailure::Allowed } else { OnFailure::Fails },
        policy: Policy {
            ack_ms: 10_000,
            lease_ms: LEASE_MS,
            timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
            abort_ms: 15_000,
            backoff_ms: 500,
            backoff_cap_ms: 30_000,
            max_attempts: 1 + u16::from(job.retry),
            max_crashes: 3,
            max_nacks: 5,
            max_unacked: 20,
            ..Policy::default()
        },
        ..JobSpec::default()
    }
}

/// What a job's script finds in its environment, besides what the worker adds.
pub(crate) fn variables(
    pipeline: &PipelineRecord,
    job: &JobDef,
    stage: &str,
    repository: &str,
    id: JobId,
) -> BTreeMap<String, String> {
    let context = context(&pipeline.reference, &pipeline.hash, &pipeline.subject, repository, pipeline.id);
    let mut all = context.predefined();
    all.extend(job.predefined.clone());
    let of_the_job = [
        ("CI_JOB_ID", id.to_string()),
        ("CI_JOB_NAME", job.name.clone()),
        ("CI_JOB_STAGE", stage.to_owned()),
        // Only the worker knows: it puts the folder in this one's place.
        ("CI_PROJECT_DIR", PROJECT_DIR.to_owned()),
    ];
    all.extend(of_the_job.map(|(name, value)| (name.to_owned(), Value::raw(value))));
    all.extend(job.variables.clone());
    // The plan was refused if they refer to each other in a circle.
    gitlab_ci::expand_all(&all).unwrap_or_default()
}

/// What stands for the folder of the checkout until a worker has one.
pub(crate) const PROJECT_DIR: &str = "${CI_PROJECT_DIR}";

/// How a push starts its pipeline.
pub(crate) fn context(reference: &str, hash: &str, subject: &str, repository: &str, pipeline: u64) -> Context {
    let commit = Commit {
        sha: hash.to_owned(),
        message: subject.to_owned(),
        project: repository.to_owned(),
        host: "localhost".to_owned(),
        ..Commit::default()
    };
    let name = short_reference(reference).to_owned();
    let of = if reference.starts_with("refs/tags/") { Reference::Tag(name) } else { Reference::Branch(name) };
    Context { pipeline_id: pipeline, ..Context::new(commit, of, "push") }
}

/// A branch's or tag's name, without where it stands.
pub(crate) fn short_reference(reference: &str) -> &str {
    reference.strip_prefix("refs/heads/").or_else(|| reference.strip_prefix("refs/tags/")).unwrap_or(reference)
}

/// A set of tags as one name: sorted, joined by commas, which no tag holds.
pub(crate) fn join(tags: &[String]) -> String {
    tags.join(",")
}

pub(crate) fn split(joined: &str) -> Vec<String> {
    joined.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(text: &str) -> Vec<(String, u32)> {
        let plan = Plan::new(CiFile::parse(text).unwrap(), "refs/heads/main");
        plan.file.jobs.iter().map(|j| j.name.clone()).zip(plan.orders.clone()).collect()
    }

    #[test]
    fn stages_become_orders_and_needs_are_passed_on() {
        let text = "
a: {stage: build, script: x}
b: {stage: build, script: x}
c: {stage: test, script: x}
d: {stage: test, script: x, needs: []}
e: {stage: deploy, script: x}
f: {stage: deploy, script: x, needs: [a]}
";
        let wanted = [("a", 1), ("b", 1), ("c", 2), ("d", 2), ("e", 3), ("f", 3)];
        assert_eq!(orders(text), wanted.map(|(name, order)| (name.to_owned(), order)));
        let plan = Plan::new(CiFile::parse(text).unwrap(), "refs/heads/main");
        let id = JobId::new;
        assert_eq!(plan.needs(10), [(id(13), vec![]), (id(15), vec![id(10)])]);
    }

    #[test]
    fn a_circle_is_named_with_a_line() {
        let e = CiFile::parse("a: {script: x, needs: [b]}\nb: {script: x, needs: [a]}\n").unwrap_err();
        assert_eq!(e.to_string(), "line 1: `a.needs`: jobs need each other in a circle: a → b → a");
    }

    #[test]
    fn what_the_file_says_is_what_the_queue_is_told() {
        let text = "a: {script: x, when: manual, retry: 2, timeout: 90s}\nb: {script: x, allow_failure: true}\n";
        let plan = Plan::new(CiFile::parse(text).unwrap(), "refs/tags/v1");
        let jobs = plan.jobs(10, &[4, 5], Duration::from_mins(1));
        assert_eq!(jobs.iter().map(|j| j.id.get()).collect::<Vec<_>>(), [10, 11]);
        let (a, b) = (jobs[0].spec, jobs[1].spec);
        assert_eq!((a.start, a.on_failure, a.component.get()), (Start::Manual, OnFailure::Allowed, 4));
        assert_eq!((a.policy.max_attempts, a.policy.timeout_ms, b.policy.timeout_ms), (3, 90_000, 60_000));
        assert_eq!((plan.class().get(), plan.priority(), b.on_failure), (3, 20, OnFailure::Allowed));
    }

    #[test]
    fn sets_of_tags_have_one_name() {
        assert_eq!(split(&join(&["a".into(), "b".into()])), ["a", "b"]);
        assert!(split(&join(&[])).is_empty());
    }
}
