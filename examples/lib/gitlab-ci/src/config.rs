//! A merged file as settings and jobs, each key read, taken without effect, or refused.

use std::collections::BTreeSet;
use std::time::Duration;

use yaml::{Error, Key, Map, Mark, Node, View};

use crate::around;
use crate::context::Context;
use crate::kept;
use crate::keys::{self, NeedName, Parallel, Policy, Remarks, Rule, WhenWord};
use crate::merge::{Extender, flat};
use crate::model::{AllowFailure, Artifacts, Cache, Environment, Image, Retry, Trigger};
use crate::variables::Variables;

/// How many jobs a file may have.
const MAX_JOBS: usize = 1_000;
/// How many stages a file may have.
const MAX_STAGES: usize = 200;
/// The longest name, in characters.
const MAX_NAME: usize = 255;

/// Top-level keys that are settings.
const SETTINGS: [&str; 12] = [
    "after_script",
    "before_script",
    "cache",
    "default",
    "image",
    "include",
    "services",
    "spec",
    "stages",
    "types",
    "variables",
    "workflow",
];
/// What a job takes from `default`, if it has not the key itself.
const DEFAULTS: [&str; 12] = [
    "image",
    "services",
    "before_script",
    "after_script",
    "cache",
    "artifacts",
    "tags",
    "retry",
    "interruptible",
    "hooks",
    "id_tokens",
    "timeout",
];
/// What the top level may say for all jobs, as older files do.
const OLD_DEFAULTS: [&str; 5] = ["image", "services", "before_script", "after_script", "cache"];
/// Keys of a job that do something.
const EFFECTIVE: [&str; 29] = [
    "after_script",
    "allow_failure",
    "artifacts",
    "before_script",
    "cache",
    "coverage",
    "dependencies",
    "environment",
    "except",
    "extends",
    "image",
    "inherit",
    "needs",
    "only",
    "parallel",
    "resource_group",
    "retry",
    "rules",
    "script",
    "services",
    "stage",
    "start_in",
    "tags",
    "timeout",
    "trigger",
    "variables",
    "when",
    "id_tokens",
    "secrets",
];
/// Keys of a job that are taken without effect, and why.
const INFORMATIONAL: [(&str, &str); 7] = [
    ("interruptible", "has no effect on a local run"),
    ("identity", "has no effect on a local run"),
    ("dast_configuration", "has no effect on a local run"),
    ("manual_confirmation", "has no effect on a local run"),
    ("pages", "nothing is published on a local run; `public` is an artifact as any other"),
    ("publish", "nothing is published on a local run"),
    ("tags", "a local run has no runners to choose from"),
];
/// Keys of a job that are refused, and what to do instead.
const REFUSED: [(&str, &str); 4] = [
    ("hooks", "scripts of hooks are not run\nput them into `before_script`, or run with `--ignore hooks`"),
    ("release", "releases are not made on this machine\nrun with `--ignore release` to run the job's script alone"),
    ("run", "steps are not run: write a `script`"),
    ("type", "is the old name of `stage`: write `stage`"),
];

/// A file's settings and jobs.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) name: Option<String>,
    pub(crate) workflow: Option<Vec<Rule>>,
    pub(crate) stages: Vec<String>,
    pub(crate) variables: Variables,
    pub(crate) jobs: Vec<JobConfig>,
}

/// One job of a file, before anything is decided about it.
#[derive(Debug)]
pub(crate) struct JobConfig {
    pub(crate) at: Mark,
    pub(crate) name: String,
    pub(crate) stage: String,
    pub(crate) stage_index: usize,
    pub(crate) before_script: Vec<String>,
    pub(crate) script: Vec<String>,
    pub(crate) after_script: Vec<String>,
    pub(crate) variables: Variables,
    pub(crate) inherits: Option<Vec<String>>,
    pub(crate) rules: Option<Vec<Rule>>,
    pub(crate) only: Option<Policy>,
    pub(crate) except: Option<Policy>,
    pub(crate) when: Option<WhenWord>,
    pub(crate) start_in: Option<Duration>,
    pub(crate) allow_failure: Option<AllowFailure>,
    pub(crate) retry: Retry,
    pub(crate) timeout: Option<Duration>,
    pub(crate) needs: Option<Vec<NeedName>>,
    pub(crate) dependencies: Option<(Mark, Vec<String>)>,
    pub(crate) artifacts: Option<Artifacts>,
    pub(crate) cache: Vec<Cache>,
    pub(crate) image: Option<Image>,
    pub(crate) services: Vec<Image>,
    pub(crate) resource_group: Option<String>,
    pub(crate) environment: Option<Environment>,
    pub(crate) coverage: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) parallel: Option<Parallel>,
    pub(crate) trigger: Option<Trigger>,
    /// What is in the way if the job is in the pipeline.
    pub(crate) refused: Option<Error>,
}

impl Config {
    /// Reads the merged mapping of a file, in which references are resolved.
    pub(crate) fn read(root: &Map, context: &Context, remarks: &mut Remarks) -> Result<Self, Error> {
        let start = root.iter().next().map_or_else(Mark::default, |(key, _)| key.at);
        if let Some((key, _)) = root.entry("types") {
            return Err(Error::new(key.at, "types", "is the old name of `stages`: write `stages`"));
        }
        if let Some((key, _)) = root.entry("spec") {
            return Err(Error::new(
                key.at,
                "spec",
                "stands in a document of its own before the file: put `---` behind it",
            ));
        }
        let stages = stages(root)?;
        let mut variables = Variables::new();
        if let Some(node) = root.get("variables").filter(|node| !node.is_null()) {
            variables = keys::variables(&View::new(node, "variables".to_owned()), remarks)?;
        }
        let (name, workflow) = workflow(root, remarks)?;
        let defaults = defaults(root, remarks)?;
        let mut extender = Extender::new(root);
        let mut jobs = Vec::new();
        for (key, node) in root {
            if SETTINGS.contains(&key.name.as_str()) || key.name.starts_with('.') {
                continue;
            }
            if jobs.len() == MAX_JOBS {
                return Err(Error::new(key.at, "", format!("the file has more than {MAX_JOBS} jobs")));
            }
            check_name(key, node)?;
            let mut job = extender.job(key, node)?;
            inherit(&mut job, key, &defaults)?;
            jobs.push(JobConfig::read(key, &job, &stages, context, remarks)?);
        }
        if jobs.is_empty() {
            return Err(Error::new(
                start,
                "",
                "the file has no job: a job is a key with a `script`, and its name does not begin with a dot",
            ));
        }
        Ok(Self { name, workflow, stages, variables, jobs })
    }
}

fn check_name(key: &Key, node: &Node) -> Result<(), Error> {
    let length = key.name.chars().count();
    if length == 0 || length > MAX_NAME {
        return Err(Error::new(
            key.at,
            "",
            format!("a job's name has 1 to {MAX_NAME} characters, this one has {length}"),
        ));
    }
    if matches!(key.name.as_str(), "true" | "false" | "nil") {
        return Err(Error::new(key.at, "", format!("a job may not be called `{}`", key.name)));
    }
    if node.as_map().is_none() {
        return Err(Error::new(key.at, &*key.name, "is neither a setting that is known nor a job with a `script`"));
    }
    Ok(())
}

fn stages(root: &Map) -> Result<Vec<String>, Error> {
    let named = match root.get("stages").filter(|node| !node.is_null()) {
        Some(node) => keys::texts(&View::new(node, "stages".to_owned()))?,
        None => ["build", "test", "deploy"].map(str::to_owned).to_vec(),
    };
    let mut seen = BTreeSet::new();
    let between = named.into_iter().filter(|name| !matches!(name.as_str(), ".pre" | ".post"));
    let between: Vec<String> = between.filter(|name| seen.insert(name.clone())).collect();
    if between.len() > MAX_STAGES {
        let at = root.get("stages").map_or_else(Mark::default, |node| node.at);
        return Err(Error::new(at, "stages", format!("more than {MAX_STAGES} stages")));
    }
    Ok([".pre".to_owned()].into_iter().chain(between).chain([".post".to_owned()]).collect())
}

fn workflow(root: &Map, remarks: &mut Remarks) -> Result<(Option<String>, Option<Vec<Rule>>), Error> {
    let Some(node) = root.get("workflow").filter(|node| !node.is_null()) else { return Ok((None, None)) };
    let view = View::new(node, "workflow".to_owned());
    view.only(&["name", "rules", "auto_cancel"])?;
    if let Some(there) = view.get("auto_cancel")? {
        remarks.push((there.at(), "workflow.auto_cancel".to_owned(), "has no effect on a local run".to_owned()));
    }
    let name = view.get("name")?.map(|name| keys::text(&name)).transpose()?;
    let rules = view.get("rules")?.map(|rules| keys::rules(&rules, remarks)).transpose()?;
    for rule in rules.iter().flatten() {
        if !matches!(rule.when, None | Some(WhenWord::Always | WhenWord::Never)) {
            return Err(view.error("a rule of `workflow` has `when: always` or `when: never`, and no other"));
        }
    }
    Ok((name, rules))
}

/// What jobs take that have not the key themselves.
fn defaults(root: &Map, remarks: &mut Remarks) -> Result<Map, Error> {
    let mut defaults = Map::default();
    for name in OLD_DEFAULTS {
        if let Some((key, node)) = root.entry(name).filter(|(_, node)| !node.is_null()) {
            defaults.set(key.clone(), node.clone());
        }
    }
    let Some(node) = root.get("default").filter(|node| !node.is_null()) else { return Ok(defaults) };
    let view = View::new(node, "default".to_owned());
    view.only(&[&DEFAULTS[..], &["identity"]].concat())?;
    for (key, node) in view.map()? {
        match key.name.as_str() {
            "timeout" => remarks.push((
                key.at,
                "default.timeout".to_owned(),
                "has no effect, as on GitLab: write it in the jobs".to_owned(),
            )),
            "identity" => {}
            _ if node.is_null() => {}
            _ => defaults.set(key.clone(), node.clone()),
        }
    }
    Ok(defaults)
}

fn inherit(job: &mut Map, key: &Key, defaults: &Map) -> Result<(), Error> {
    let which = match job.get("inherit") {
        Some(node) => keys::inherited(&View::new(node, format!("{}.inherit", key.name)), "default")?,
        None => None,
    };
    for (default, node) in defaults {
        let is_taken = which.as_ref().is_none_or(|names| names.contains(&default.name));
        let is_there = job.get(&default.name).is_some_and(|node| !node.is_null());
        // A job that starts a child pipeline has no script of its own to prepare.
        let fits = job.get("trigger").is_none();
        if is_taken && !is_there && fits {
            job.set(default.clone(), node.clone());
        }
    }
    Ok(())
}

impl JobConfig {
    fn read(key: &Key, map: &Map, stages: &[String], context: &Context, remarks: &mut Remarks) -> Result<Self, Error> {
        let name = key.name.clone();
        let node = Node::new(yaml::Value::Map(map.clone()), key.at);
        let view = View::new(&node, name.clone());
        remarks.refused.clear();
        check_keys(&view, map, context, remarks)?;
        let (stage, stage_index) = stage(&view, stages)?;
        let commands = |key: &str| view.get(key)?.map_or(Ok(Vec::new()), |script| keys::script(&script));
        let script = commands("script")?;
        let trigger = view
            .get("trigger")?
            .map(|trigger| around::trigger(&trigger, context.skip_triggers, remarks))
            .transpose()?;
        if script.is_empty() && trigger.is_none() {
            let what = if map.get("script").is_some_and(|node| !node.is_null()) {
                "the `script` is empty"
            } else {
                "has no `script`"
            };
            return Err(
                view.error(format!("{what}: a job needs commands, a `trigger`, or a name that begins with a dot"))
            );
        }
        let rules = view.get("rules")?.map(|rules| keys::rules(&rules, remarks)).transpose()?;
        let only = view.get("only")?.map(|only| keys::policy(&only)).transpose()?;
        let except = view.get("except")?.map(|except| keys::policy(&except)).transpose()?;
        if rules.is_some() && (only.is_some() || except.is_some()) {
            return Err(view.error("has `rules` and `only` or `except`: a job has one or the other"));
        }
        let when = view.get("when")?.map(|when| keys::when(&when, false)).transpose()?;
        let start_in = view.get("start_in")?.map(|time| keys::time(&time)).transpose()?;
        if when == Some(WhenWord::Delayed) && start_in.is_none() && rules.is_none() {
            return Err(view.error("`when: delayed` needs `start_in`"));
        }
        let mut environment = view.get("environment")?.map(|there| around::environment(&there, remarks)).transpose()?;
        if let Some(environment) = &mut environment
            && environment.name.is_empty()
        {
            environment.name.clone_from(&name);
        }
        let dependencies = view.get("dependencies")?;
        let dependencies = dependencies.map(|list| Ok::<_, Error>((list.at(), keys::texts(&list)?))).transpose()?;
        let mut job = Self {
            at: key.at,
            stage,
            stage_index,
            before_script: commands("before_script")?,
            script,
            after_script: commands("after_script")?,
            variables: view.get("variables")?.map(|v| keys::variables(&v, remarks)).transpose()?.unwrap_or_default(),
            inherits: view.get("inherit")?.map(|inherit| keys::inherited(&inherit, "variables")).transpose()?.flatten(),
            rules,
            only,
            except,
            when,
            start_in,
            allow_failure: view.get("allow_failure")?.map(|allow| keys::allow_failure(&allow)).transpose()?,
            retry: view.get("retry")?.map(|retry| keys::retry(&retry)).transpose()?.unwrap_or_default(),
            timeout: view.get("timeout")?.map(|time| keys::timeout(&time)).transpose()?,
            needs: needs(&view, context, remarks)?,
            dependencies,
            artifacts: view.get("artifacts")?.map(|there| kept::artifacts(&there, remarks)).transpose()?,
            cache: view.get("cache")?.map(|cache| kept::caches(&cache, remarks)).transpose()?.unwrap_or_default(),
            image: view.get("image")?.map(|image| around::image(&image, remarks)).transpose()?,
            services: view.get("services")?.map(|all| around::services(&all, remarks)).transpose()?.unwrap_or_default(),
            resource_group: view.get("resource_group")?.map(|group| keys::text(&group)).transpose()?,
            environment,
            coverage: view.get("coverage")?.map(|coverage| keys::coverage(&coverage)).transpose()?,
            tags: view.get("tags")?.map(|tags| keys::tags(&tags)).transpose()?.unwrap_or_default(),
            parallel: view.get("parallel")?.map(|parallel| keys::parallel(&parallel)).transpose()?,
            trigger: trigger.map(|trigger| {
                trigger.unwrap_or(Trigger {
                    files: Vec::new(),
                    waits: false,
                    forwards_yaml_variables: false,
                    forwards_pipeline_variables: false,
                })
            }),
            refused: None,
            name,
        };
        job.refused = remarks.refused.first().cloned();
        Ok(job)
    }
}

/// Needs, without those of other pipelines if they are to be ignored.
fn needs(view: &View<'_>, context: &Context, remarks: &mut Remarks) -> Result<Option<Vec<NeedName>>, Error> {
    let Some(needs) = view.get("needs")? else { return Ok(None) };
    if !context.ignore.iter().any(|key| key == "needs:project") {
        return keys::needs(&needs, remarks).map(Some);
    }
    let is_foreign =
        |node: &Node| node.as_map().is_some_and(|map| map.get("project").is_some() || map.get("pipeline").is_some());
    let (foreign, own): (Vec<&Node>, Vec<&Node>) = flat(needs.node()).into_iter().partition(|node| is_foreign(node));
    for node in &foreign {
        remarks.push((node.at, "needs.project".to_owned(), "is left out: --ignore needs:project".to_owned()));
    }
    if own.is_empty() && !foreign.is_empty() {
        // Such a need says nothing about the order.
        return Ok(None);
    }
    let own = Node::new(yaml::Value::List(own.into_iter().cloned().collect()), needs.at());
    keys::needs(&View::new(&own, needs.path().to_owned()), remarks).map(Some)
}

fn stage(view: &View<'_>, stages: &[String]) -> Result<(String, usize), Error> {
    let there = view.get("stage")?;
    let name = there.as_ref().map_or(Ok("test".to_owned()), keys::text)?;
    if let Some(at) = stages.iter().position(|stage| *stage == name) {
        return Ok((name, at));
    }
    let message = format!("the stage `{name}` is not among the stages: {}", stages.join(", "));
    Err(there.as_ref().unwrap_or(view).error(message))
}

fn check_keys(view: &View<'_>, map: &Map, context: &Context, remarks: &mut Remarks) -> Result<(), Error> {
    for (key, node) in map {
        let name = key.name.as_str();
        if node.is_null() {
            continue;
        }
        if let Some((_, why)) = INFORMATIONAL.iter().find(|(known, _)| *known == name) {
            remarks.push((key.at, name.to_owned(), (*why).to_owned()));
            continue;
        }
        if matches!(name, "id_tokens" | "secrets") {
            tokens(view, key, node, context, remarks);
            continue;
        }
        if EFFECTIVE.contains(&name) {
            continue;
        }
        if context.ignore.iter().any(|ignored| ignored.as_str() == name) {
            remarks.push((key.at, name.to_owned(), format!("has no effect: --ignore {name}")));
            continue;
        }
        let refused = REFUSED.iter().find(|(known, _)| *known == name).map(|(_, why)| (*why).to_owned());
        if matches!(name, "hooks" | "release") {
            remarks.refused.extend(refused.map(|why| view.key_error(key, why)));
            continue;
        }
        return Err(view.key_error(
            key,
            refused.unwrap_or_else(|| {
                format!("is no key of a job that is known\ncorrect it, or run with `--ignore {name}`")
            }),
        ));
    }
    Ok(())
}

/// A token or secret is never invented: its value comes from the variables of the project.
fn tokens(view: &View<'_>, key: &Key, node: &Node, context: &Context, remarks: &mut Remarks) {
    let names =
        node.as_map().map(|map| map.iter().map(|(key, _)| key.name.clone()).collect::<Vec<_>>()).unwrap_or_default();
    let is_known = |name: &String| context.project.contains_key(name) || context.given.contains_key(name);
    if let Some(missing) = names.iter().find(|name| !is_known(name)) {
        if context.ignore.contains(&key.name) {
            remarks.push((key.at, key.name.clone(), format!("`{missing}` is not set: --ignore {}", key.name)));
            return;
        }
        let message = format!(
            "`{missing}` is made by GitLab alone\ngive it a value in the variables file or with `--variable`, or run with `--ignore {}`",
            key.name
        );
        remarks.refused.push(view.key_error(key, message));
        return;
    }
    remarks.push((key.at, key.name.clone(), "values are taken from the variables given for this run".to_owned()));
}
