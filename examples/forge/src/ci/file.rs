//! `.gitlab-ci.yml`: the keys that are supported, each with its line; any other is an error that names it.

mod yaml;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use yaml::{Node, Value};

/// The file's name at the root of a repository.
pub(crate) const FILE: &str = ".gitlab-ci.yml";
/// The largest file that is read, in bytes.
pub(crate) const MOST_BYTES: usize = 256 << 10;

const MOST_JOBS: usize = 200;
const MOST_STAGES: usize = 50;
const MOST_TAGS: usize = 16;
const MOST_RETRIES: u8 = 10;
const LONGEST_NAME: usize = 128;
const LONGEST_TAG: usize = 64;
const LONGEST_TIMEOUT_S: u32 = 24 * 3600;
const DEFAULT_STAGES: [&str; 3] = ["build", "test", "deploy"];
const DEFAULT_STAGE: &str = "test";
/// Top-level words of the format that are no jobs, and not supported.
const KNOWN_ELSEWHERE: [&str; 10] =
    ["after_script", "cache", "default", "image", "include", "pages", "services", "spec", "types", "workflow"];

/// A CI file that has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CiFile {
    /// In their order.
    pub(crate) stages: Vec<String>,
    /// In the file's order.
    pub(crate) jobs: Vec<JobDef>,
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
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) allow_failure: bool,
    /// How many times it runs again after its script has failed.
    pub(crate) retry: u8,
    /// In seconds, if the file says one.
    pub(crate) timeout_s: Option<u32>,
    /// The jobs it waits for, by their place in [`CiFile::jobs`]; `None`: all of the stages before.
    pub(crate) needs: Option<Vec<usize>>,
    pub(crate) when: JobWhen,
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
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl FileError {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self { line: line.max(1), message: message.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl CiFile {
    /// Reads a CI file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub(crate) fn parse(text: &str) -> Result<Self, FileError> {
        if text.len() > MOST_BYTES {
            return Err(FileError::at(1, format!("the file is larger than {} KiB", MOST_BYTES >> 10)));
        }
        let root = yaml::read(text)?;
        let Value::Map(entries) = &root.value else {
            return Err(root.error("the file must be a mapping of jobs and settings"));
        };
        let mut common = Common::default();
        let mut drafts = Vec::new();
        for (key, node) in entries {
            match key.name.as_str() {
                "stages" => common.stages = stages(node)?,
                "before_script" => common.before_script = script("before_script", node)?,
                "variables" => common.variables = variables(node)?,
                name if KNOWN_ELSEWHERE.contains(&name) || name == "<<" => {
                    return Err(FileError::at(key.line, format!("the key `{name}` is not supported")));
                }
                name if name.starts_with('.') => {
                    return Err(FileError::at(key.line, format!("the hidden job `{name}` is not supported")));
                }
                name if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) => {
                    return Err(FileError::at(key.line, "a job's name is 1 to 128 printable characters"));
                }
                _ => drafts.push((key, node)),
            }
        }
        let Some(((key, _), rest)) = drafts.split_first() else {
            return Err(root.error("the file has no job"));
        };
        if rest.len() >= MOST_JOBS {
            return Err(FileError::at(key.line, format!("more than {MOST_JOBS} jobs")));
        }
        let names: Vec<&str> = drafts.iter().map(|(key, _)| key.name.as_str()).collect();
        let jobs = drafts.iter().map(|(key, node)| job(key, node, &common, &names)).collect::<Result<Vec<_>, _>>()?;
        let file = Self { stages: common.stages, jobs };
        file.check_order()?;
        Ok(file)
    }

    /// No job needs one of a later stage: such a file is a slip, and a cycle with the stages in between.
    fn check_order(&self) -> Result<(), FileError> {
        for job in &self.jobs {
            for needed in job.needs.iter().flatten().map(|at| &self.jobs[*at]) {
                if needed.stage > job.stage {
                    let message = format!(
                        "`{}` needs `{}`, which is in the later stage `{}`",
                        job.name, needed.name, self.stages[needed.stage]
                    );
                    return Err(FileError::at(job.line, message));
                }
            }
        }
        Ok(())
    }
}

/// What holds for every job that does not say otherwise.
struct Common {
    stages: Vec<String>,
    before_script: Vec<String>,
    variables: BTreeMap<String, String>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            stages: DEFAULT_STAGES.map(str::to_owned).to_vec(),
            before_script: Vec::new(),
            variables: BTreeMap::new(),
        }
    }
}

fn job(key: &yaml::Key, node: &Node, common: &Common, names: &[&str]) -> Result<JobDef, FileError> {
    let Value::Map(entries) = &node.value else {
        return Err(FileError::at(key.line, format!("`{}` is neither a setting nor a job with a `script`", key.name)));
    };
    let mut stage: Option<(usize, String)> = None;
    let mut before = common.before_script.clone();
    let mut main = None;
    let mut allow_failure = None;
    let mut def = JobDef {
        name: key.name.clone(),
        line: key.line,
        stage: 0,
        script: Vec::new(),
        tags: Vec::new(),
        variables: common.variables.clone(),
        allow_failure: false,
        retry: 0,
        timeout_s: None,
        needs: None,
        when: JobWhen::default(),
    };
    for (key, value) in entries {
        match key.name.as_str() {
            "stage" => stage = Some((key.line, text("stage", value)?.to_owned())),
            "script" => main = Some(script("script", value)?),
            "before_script" => before = script("before_script", value)?,
            "tags" => def.tags = tags(value)?,
            "variables" => def.variables.extend(variables(value)?),
            "allow_failure" => allow_failure = Some(flag("allow_failure", value)?),
            "retry" => def.retry = retry(value)?,
            "timeout" => def.timeout_s = Some(timeout(value)?),
            "needs" => def.needs = Some(needs(value, &def.name, names)?),
            "when" => def.when = when(value)?,
            other => return Err(FileError::at(key.line, format!("the key `{other}` is not supported"))),
        }
    }
    let main = main.ok_or_else(|| FileError::at(def.line, format!("`{}` has no `script`", def.name)))?;
    if main.is_empty() {
        return Err(FileError::at(def.line, format!("the `script` of `{}` is empty", def.name)));
    }
    let (line, stage) = stage.unwrap_or((def.line, DEFAULT_STAGE.to_owned()));
    def.stage = common.stages.iter().position(|s| *s == stage).ok_or_else(|| {
        FileError::at(line, format!("`{}` is in the stage `{stage}`, which `stages` does not name", def.name))
    })?;
    def.script = before;
    def.script.extend(main);
    // A job that waits for somebody does not hold the pipeline, unless it says so.
    def.allow_failure = allow_failure.unwrap_or(def.when == JobWhen::Manual);
    Ok(def)
}

fn stages(node: &Node) -> Result<Vec<String>, FileError> {
    let mut stages: Vec<String> = Vec::new();
    for item in list("stages", node)? {
        let name = text("stages", item)?;
        if stages.iter().any(|s| s == name) {
            return Err(item.error(format!("the stage `{name}` is there twice")));
        }
        stages.push(name.to_owned());
    }
    if stages.is_empty() || stages.len() > MOST_STAGES {
        return Err(node.error(format!("`stages` names 1 to {MOST_STAGES} stages")));
    }
    Ok(stages)
}

fn script(key: &str, node: &Node) -> Result<Vec<String>, FileError> {
    let line = |item: &Node| match &item.value {
        Value::Plain(text) | Value::Text(text) => Ok(text.clone()),
        Value::Null | Value::List(_) | Value::Map(_) => Err(item.error(format!(
            "a line of `{key}` must be text (put it in quotes if it holds `: `, or begins with one of `[{{&*!|>'\"%@`)"
        ))),
    };
    match &node.value {
        Value::List(items) => items.iter().map(line).collect(),
        Value::Null => Ok(Vec::new()),
        Value::Plain(_) | Value::Text(_) | Value::Map(_) => Ok(vec![line(node)?]),
    }
}

fn tags(node: &Node) -> Result<Vec<String>, FileError> {
    let items = list("tags", node)?;
    if items.len() > MOST_TAGS {
        return Err(node.error(format!("more than {MOST_TAGS} tags")));
    }
    let mut tags = Vec::new();
    for item in items {
        let tag = text("tags", item)?;
        if !is_tag(tag) {
            return Err(item.error(format!("`{tag}` is no tag: use letters, digits, '.', '_' and '-', at most 64")));
        }
        tags.push(tag.to_owned());
    }
    tags.sort();
    tags.dedup();
    Ok(tags)
}

/// Whether a worker can have this tag.
pub(crate) fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= LONGEST_TAG
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn variables(node: &Node) -> Result<BTreeMap<String, String>, FileError> {
    let Value::Map(entries) = &node.value else {
        return Err(node.error("`variables` must be a mapping of names to values"));
    };
    let mut all = BTreeMap::new();
    for (key, value) in entries {
        let name = &key.name;
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(FileError::at(key.line, format!("`{name}` is no name for a variable")));
        }
        let given = if value.value == Value::Null { "" } else { text("variables", value)? };
        // `$$` is a dollar; one alone would be another variable's value, which this host does not put in.
        let plain = given.replace("$$", "");
        if plain.contains('$') {
            return Err(
                value.error(format!("`{name}` refers to another variable, which is not supported (`$$` is `$`)"))
            );
        }
        if given.contains('\0') {
            return Err(value.error(format!("`{name}` holds a NUL, which no variable can")));
        }
        all.insert(name.clone(), given.replace("$$", "$"));
    }
    Ok(all)
}

fn retry(node: &Node) -> Result<u8, FileError> {
    let wrong = || node.error(format!("`retry` must be a number from 0 to {MOST_RETRIES}"));
    let count = match &node.value {
        Value::Plain(text) => text.parse::<u8>().map_err(|_| wrong())?,
        Value::Map(entries) => match entries.as_slice() {
            [(key, value)] if key.name == "max" => return retry(value),
            _ => match entries.iter().find(|(key, _)| key.name != "max") {
                Some((key, _)) => {
                    return Err(FileError::at(key.line, format!("the key `{}` of `retry` is not supported", key.name)));
                }
                None => return Err(wrong()),
            },
        },
        Value::Null | Value::Text(_) | Value::List(_) => return Err(wrong()),
    };
    if count > MOST_RETRIES { Err(wrong()) } else { Ok(count) }
}

/// `90`, `90s`, `1h 30m`, `10 minutes`, `1 hour 5 minutes`.
fn timeout(node: &Node) -> Result<u32, FileError> {
    let wrong = || node.error("`timeout` must be a time such as `90s`, `10 minutes` or `1h 30m`, from 1 s to 24 h");
    let given = text("timeout", node)?;
    let mut total: u32 = 0;
    let mut rest = given.trim();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = rest[digits..].trim_start();
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            _ => return Err(wrong()),
        };
        rest = rest[letters..].trim_start();
        total = count.checked_mul(unit).and_then(|s| total.checked_add(s)).ok_or_else(wrong)?;
    }
    if (1..=LONGEST_TIMEOUT_S).contains(&total) { Ok(total) } else { Err(wrong()) }
}

fn needs(node: &Node, job: &str, names: &[&str]) -> Result<Vec<usize>, FileError> {
    let mut found = Vec::new();
    for item in list("needs", node)? {
        let name = if let Value::Map(entries) = &item.value {
            match entries.as_slice() {
                [(key, value)] if key.name == "job" => text("needs", value)?,
                _ => return Err(item.error("an entry of `needs` is a job's name")),
            }
        } else {
            text("needs", item)?
        };
        if name == job {
            return Err(item.error(format!("`{job}` needs itself")));
        }
        let at = names.iter().position(|n| *n == name);
        let at = at.ok_or_else(|| item.error(format!("`{job}` needs `{name}`, which is no job of this file")))?;
        if !found.contains(&at) {
            found.push(at);
        }
    }
    Ok(found)
}

fn when(node: &Node) -> Result<JobWhen, FileError> {
    match text("when", node)? {
        "on_success" => Ok(JobWhen::OnSuccess),
        "on_failure" => Ok(JobWhen::OnFailure),
        "always" => Ok(JobWhen::Always),
        "manual" => Ok(JobWhen::Manual),
        other => Err(node
            .error(format!("`when: {other}` is not supported: use `on_success`, `on_failure`, `always` or `manual`"))),
    }
}

fn list<'a>(key: &str, node: &'a Node) -> Result<&'a [Node], FileError> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Null | Value::Plain(_) | Value::Text(_) | Value::Map(_) => {
            Err(node.error(format!("`{key}` must be a list")))
        }
    }
}

fn text<'a>(key: &str, node: &'a Node) -> Result<&'a str, FileError> {
    match &node.value {
        Value::Plain(text) | Value::Text(text) => Ok(text),
        Value::Null | Value::List(_) | Value::Map(_) => Err(node.error(format!("`{key}` takes text here"))),
    }
}

fn flag(key: &str, node: &Node) -> Result<bool, FileError> {
    let plain = if let Value::Plain(text) = &node.value { text.as_str() } else { "" };
    match plain {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(node.error(format!("`{key}` is `true` or `false`"))),
    }
}

#[cfg(test)]
mod tests;
