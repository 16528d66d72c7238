//! How a pipeline is started, and the variables that follow from it.

use yaml::Map;

use crate::slug::slug;
use crate::variables::{Value, Variables};

/// What a pipeline runs for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The head of a branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// A merge request of one branch into another.
    MergeRequest {
        /// The branch with the change.
        source: String,
        /// The branch that it is to go into.
        target: String,
    },
}

impl Reference {
    /// The name of the branch or tag.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Branch(name) | Self::Tag(name) | Self::MergeRequest { source: name, .. } => name,
        }
    }
}

/// The commit that a pipeline runs for, and its project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its full hash.
    pub sha: String,
    /// The hash of the commit before.
    pub before_sha: String,
    /// Its whole message.
    pub message: String,
    /// Its author, as `Name <address>`.
    pub author: String,
    /// Its time, in ISO 8601.
    pub timestamp: String,
    /// The path of the project, such as `group/name`.
    pub project: String,
    /// The host of the server, such as `gitlab.com`.
    pub host: String,
    /// The default branch.
    pub default_branch: String,
}

/// How a pipeline is started.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The commit.
    pub commit: Commit,
    /// What it runs for.
    pub reference: Reference,
    /// `push`, `merge_request_event`, `schedule`, `web`, `api`, `trigger`, `pipeline`, `parent_pipeline` …
    pub source: String,
    /// The number of the pipeline.
    pub pipeline_id: u64,
    /// Variables of the project or group.
    pub project: Variables,
    /// Variables given when the pipeline was started.
    pub given: Variables,
    /// Inputs of the file, by `spec:inputs`.
    pub inputs: Map,
    /// Refused keys that are taken without effect, such as `release`.
    pub ignore: Vec<String>,
    /// Whether jobs that start pipelines of other projects are left out.
    pub skip_triggers: bool,
}

impl Default for Commit {
    /// A commit of nothing in particular.
    fn default() -> Self {
        Self {
            sha: "0".repeat(40),
            before_sha: "0".repeat(40),
            message: String::new(),
            author: String::new(),
            timestamp: String::new(),
            project: "local/project".to_owned(),
            host: "gitlab.com".to_owned(),
            default_branch: "main".to_owned(),
        }
    }
}

impl Context {
    /// A pipeline of this commit, started in this way, without variables.
    #[must_use]
    pub fn new(commit: Commit, reference: Reference, source: impl Into<String>) -> Self {
        Self {
            commit,
            reference,
            source: source.into(),
            pipeline_id: 1,
            project: Variables::new(),
            given: Variables::new(),
            inputs: Map::default(),
            ignore: Vec::new(),
            skip_triggers: false,
        }
    }

    /// The variables that every job of the pipeline has, before it runs.
    #[must_use]
    pub fn predefined(&self) -> Variables {
        let Commit { sha, before_sha, message, author, timestamp, project, host, default_branch } = &self.commit;
        let (title, description) = message.split_once('\n').unwrap_or((message, ""));
        let (namespace, name) = project.rsplit_once('/').unwrap_or(("", project));
        let short: String = sha.chars().take(8).collect();
        let id = self.pipeline_id.to_string();
        let url = format!("https://{host}/{project}");
        let reference = self.reference.name();
        let is_protected = reference == default_branch && !matches!(self.reference, Reference::MergeRequest { .. });
        let mut all: Vec<(&str, String)> = vec![
            ("CI", "true".to_owned()),
            ("GITLAB_CI", "true".to_owned()),
            ("CI_API_V4_URL", format!("https://{host}/api/v4")),
            ("CI_COMMIT_AUTHOR", author.clone()),
            ("CI_COMMIT_BEFORE_SHA", before_sha.clone()),
            ("CI_COMMIT_DESCRIPTION", description.trim_start_matches('\n').to_owned()),
            ("CI_COMMIT_MESSAGE", message.clone()),
            ("CI_COMMIT_REF_NAME", reference.to_owned()),
            ("CI_COMMIT_REF_PROTECTED", is_protected.to_string()),
            ("CI_COMMIT_REF_SLUG", slug(reference)),
            ("CI_COMMIT_SHA", sha.clone()),
            ("CI_COMMIT_SHORT_SHA", short),
            ("CI_COMMIT_TIMESTAMP", timestamp.clone()),
            ("CI_COMMIT_TITLE", title.to_owned()),
            ("CI_CONFIG_PATH", crate::FILE.to_owned()),
            ("CI_DEFAULT_BRANCH", default_branch.clone()),
            ("CI_PIPELINE_ID", id.clone()),
            ("CI_PIPELINE_IID", id.clone()),
            ("CI_PIPELINE_SOURCE", self.source.clone()),
            ("CI_PIPELINE_URL", format!("{url}/-/pipelines/{id}")),
            ("CI_PROJECT_ID", "1".to_owned()),
            ("CI_PROJECT_NAME", name.to_owned()),
            ("CI_PROJECT_NAMESPACE", namespace.to_owned()),
            ("CI_PROJECT_PATH", project.clone()),
            ("CI_PROJECT_PATH_SLUG", slug(project)),
            ("CI_PROJECT_ROOT_NAMESPACE", namespace.split('/').next().unwrap_or_default().to_owned()),
            ("CI_PROJECT_TITLE", name.to_owned()),
            ("CI_PROJECT_URL", url.clone()),
            ("CI_PROJECT_VISIBILITY", "private".to_owned()),
            ("CI_REGISTRY", format!("registry.{host}")),
            ("CI_REGISTRY_IMAGE", format!("registry.{host}/{}", project.to_lowercase())),
            ("CI_SERVER", "yes".to_owned()),
            ("CI_SERVER_FQDN", host.clone()),
            ("CI_SERVER_HOST", host.clone()),
            ("CI_SERVER_NAME", "GitLab".to_owned()),
            ("CI_SERVER_PORT", "443".to_owned()),
            ("CI_SERVER_PROTOCOL", "https".to_owned()),
            ("CI_SERVER_URL", format!("https://{host}")),
            ("CI_TEMPLATE_REGISTRY_HOST", format!("registry.{host}")),
        ];
        match &self.reference {
            Reference::Branch(name) => all.push(("CI_COMMIT_BRANCH", name.clone())),
            Reference::Tag(name) => all.push(("CI_COMMIT_TAG", name.clone())),
            Reference::MergeRequest { source, target } => all.extend([
                ("CI_MERGE_REQUEST_EVENT_TYPE", "detached".to_owned()),
                ("CI_MERGE_REQUEST_ID", "1".to_owned()),
                ("CI_MERGE_REQUEST_IID", "1".to_owned()),
                ("CI_MERGE_REQUEST_PROJECT_ID", "1".to_owned()),
                ("CI_MERGE_REQUEST_PROJECT_PATH", project.clone()),
                ("CI_MERGE_REQUEST_PROJECT_URL", url.clone()),
                ("CI_MERGE_REQUEST_REF_PATH", "refs/merge-requests/1/head".to_owned()),
                ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", source.clone()),
                ("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", String::new()),
                ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "1".to_owned()),
                ("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH", project.clone()),
                ("CI_MERGE_REQUEST_SOURCE_PROJECT_URL", url.clone()),
                ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", target.clone()),
                ("CI_MERGE_REQUEST_TITLE", title.to_owned()),
                ("CI_OPEN_MERGE_REQUESTS", format!("{project}!1")),
            ]),
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), Value::raw(value))).collect()
    }
}
