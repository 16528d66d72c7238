//! The values of a job's keys.

use std::time::Duration;

use yaml::{Error, Node, Value as Yaml, View};

use crate::duration;
use crate::expression::{Expression, pattern};
use crate::merge::flat;
use crate::model::{AllowFailure, Retry};
use crate::variables::{Value, Variables};

/// How deep lists of commands may lie in each other.
const MAX_SCRIPT_DEPTH: usize = 10;
/// How many jobs one may need.
const MAX_NEEDS: usize = 50;
/// How many jobs `parallel` may make.
pub(crate) const MAX_PARALLEL: usize = 200;
/// How many tags a job may have.
const MAX_TAGS: usize = 50;

/// The words that `when` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenWord {
    OnSuccess,
    OnFailure,
    Always,
    Manual,
    Delayed,
    Never,
}

/// One rule of `rules`.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) line: u32,
    pub(crate) condition: Option<(String, Expression)>,
    pub(crate) changes: Option<(Vec<String>, Option<String>)>,
    pub(crate) exists: Option<Vec<String>>,
    pub(crate) when: Option<WhenWord>,
    pub(crate) allow_failure: Option<AllowFailure>,
    pub(crate) variables: Variables,
    pub(crate) needs: Option<Vec<NeedName>>,
    pub(crate) start_in: Option<Duration>,
}

/// `only` or `except`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) refs: Option<Vec<String>>,
    pub(crate) variables: Vec<(String, Expression)>,
    pub(crate) changes: Option<Vec<String>>,
}

/// A job that is needed, by name.
#[derive(Clone, Debug)]
pub(crate) struct NeedName {
    pub(crate) node: yaml::Mark,
    pub(crate) job: String,
    pub(crate) artifacts: bool,
    pub(crate) optional: bool,
    /// The cells of its matrix that are needed; without, all.
    pub(crate) cells: Option<Vec<Cell>>,
}

/// One cell of a matrix: names and values, in the order of the file.
pub(crate) type Cell = Vec<(String, String)>;

/// How many times a job is there.
#[derive(Clone, Debug)]
pub(crate) enum Parallel {
    Number(usize),
    Matrix(Vec<Cell>),
}

/// What remains to be said about keys that were read.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    /// Where, about which key, and what.
    pub(crate) notes: Vec<(yaml::Mark, String, String)>,
    /// What cannot be done here: in the way only if the job is in the pipeline.
    pub(crate) refused: Vec<Error>,
}

impl Remarks {
    pub(crate) fn push(&mut self, note: (yaml::Mark, String, String)) {
        self.notes.push(note);
    }
}

/// A scalar's text, as GitLab makes one of a number or a boolean.
pub(crate) fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Yaml::Null => Some(String::new()),
        Yaml::Bool(value) => Some(value.to_string()),
        Yaml::Int(value) => Some(value.to_string()),
        Yaml::Float(value) => Some(float(*value)),
        Yaml::Text(text) => Some(text.clone()),
        Yaml::List(_) | Yaml::Map(_) => None,
    }
}

/// As Ruby writes a float: `3.1`, `7.0`, `1.0e+20`.
fn float(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    if value == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    let digits = exponent.trim_start_matches('-');
    let minus = if exponent.starts_with('-') { "-" } else { "" };
    format!("{mantissa}{point}e{sign}{minus}{digits:0>2}")
}

pub(crate) fn text(view: &View<'_>) -> Result<String, Error> {
    match view.node().value {
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => Err(view.wrong("text")),
        Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::Text(_) => Ok(scalar(view.node()).unwrap_or_default()),
    }
}

/// A text or a list of texts, lists in it included.
pub(crate) fn texts(view: &View<'_>) -> Result<Vec<String>, Error> {
    flat(view.node()).into_iter().map(|node| text(&View::new(node, view.path().to_owned()))).collect()
}

pub(crate) fn script(view: &View<'_>) -> Result<Vec<String>, Error> {
    fn add(view: &View<'_>, depth: usize, lines: &mut Vec<String>) -> Result<(), Error> {
        match &view.node().value {
            Yaml::Text(text) => lines.push(text.clone()),
            Yaml::List(_) if depth > MAX_SCRIPT_DEPTH => {
                return Err(view.error(format!("lists lie more than {MAX_SCRIPT_DEPTH} deep in each other")));
            }
            Yaml::List(_) => {
                for item in view.items()? {
                    add(&item, depth + 1, lines)?;
                }
            }
            other @ (Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::Map(_)) => {
                let help = "must be text: put the whole command in single quotes if it holds `: ` or is a number or a word like `true`";
                return Err(view.error(format!("{help}; found {}", other.kind())));
            }
        }
        Ok(())
    }
    let mut lines = Vec::new();
    add(view, 0, &mut lines)?;
    Ok(lines)
}

pub(crate) fn variables(view: &View<'_>, remarks: &mut Remarks) -> Result<Variables, Error> {
    let mut all = Variables::new();
    for (key, value) in view.entries()? {
        if !crate::variables::is_name(&key.name) {
            let message = "is no name that a shell can set: it is there for rules and other variables only";
            remarks.push((key.at, value.path().to_owned(), message.to_owned()));
        }
        all.insert(key.name.clone(), variable(&value)?);
    }
    Ok(all)
}

fn variable(view: &View<'_>) -> Result<Value, Error> {
    if let Some(text) = scalar(view.node()) {
        return Ok(Value::new(text));
    }
    if view.node().as_map().is_none() {
        return Err(view.wrong("text, a number, a boolean or a mapping with `value`"));
    }
    view.only(&["value", "description", "options", "expand"])?;
    let value = view.get("value")?.map(|value| text(&value)).transpose()?.unwrap_or_default();
    if let Some(options) = view.get("options")? {
        let options = texts(&options)?;
        if !options.contains(&value) {
            return Err(view.error(format!("its value must be one of its options: {}", options.join(", "))));
        }
    }
    let expands = view.get("expand")?.map(|expand| expand.boolean()).transpose()?.unwrap_or(true);
    Ok(Value { text: value, raw: !expands })
}

pub(crate) fn when(view: &View<'_>, in_rule: bool) -> Result<WhenWord, Error> {
    Ok(match view.text()? {
        "on_success" => WhenWord::OnSuccess,
        "on_failure" => WhenWord::OnFailure,
        "always" => WhenWord::Always,
        "manual" => WhenWord::Manual,
        "delayed" => WhenWord::Delayed,
        "never" if in_rule => WhenWord::Never,
        other => {
            let never = if in_rule { ", `never`" } else { "" };
            return Err(view.error(format!(
                "must be `on_success`, `on_failure`, `always`, `manual`, `delayed`{never}; found `{other}`"
            )));
        }
    })
}

pub(crate) fn time(view: &View<'_>) -> Result<Duration, Error> {
    let given = text(view)?;
    duration::parse(&given).ok_or_else(|| view.error(format!("`{given}` is no time such as `90 seconds` or `1h 30m`")))
}

pub(crate) fn timeout(view: &View<'_>) -> Result<Duration, Error> {
    let time = time(view)?;
    if time.is_zero() { Err(view.error("must be longer than nothing")) } else { Ok(time) }
}

pub(crate) fn rules(view: &View<'_>, remarks: &mut Remarks) -> Result<Vec<Rule>, Error> {
    if view.node().as_list().is_none() {
        return Err(view.wrong("a list of rules"));
    }
    let nodes = flat(view.node());
    if nodes.is_empty() {
        return Err(view.error("is empty: leave it out, or write a rule such as `- when: always`"));
    }
    let rule = |(at, node): (usize, _)| rule(&View::new(node, format!("{}[{at}]", view.path())), remarks);
    nodes.into_iter().enumerate().map(rule).collect()
}

fn rule(view: &View<'_>, remarks: &mut Remarks) -> Result<Rule, Error> {
    view.only(&[
        "if",
        "changes",
        "exists",
        "when",
        "allow_failure",
        "variables",
        "needs",
        "start_in",
        "interruptible",
        "auto_cancel",
    ])?;
    let condition = view.get("if")?.map(|view| expression(&view)).transpose()?;
    let changes = view.get("changes")?.map(|changes| {
        if changes.node().as_map().is_none() {
            return Ok((texts(&changes)?, None));
        }
        changes.only(&["paths", "compare_to"])?;
        let compare_to = changes.get("compare_to")?.map(|to| text(&to)).transpose()?;
        Ok((texts(&changes.require("paths")?)?, compare_to))
    });
    let exists = view.get("exists")?.map(|exists| {
        if exists.node().as_map().is_none() {
            return texts(&exists);
        }
        exists.only(&["paths", "project", "ref"])?;
        if exists.get("project")?.is_some() {
            return Err(exists.error("files of another project cannot be looked for: name files of this one"));
        }
        texts(&exists.require("paths")?)
    });
    for name in ["interruptible", "auto_cancel"] {
        if let Some(there) = view.get(name)? {
            remarks.push((there.at(), format!("rules.{name}"), "has no effect on a local run".to_owned()));
        }
    }
    Ok(Rule {
        line: view.at().line,
        condition,
        changes: changes.transpose()?,
        exists: exists.transpose()?,
        when: view.get("when")?.map(|view| when(&view, true)).transpose()?,
        allow_failure: view.get("allow_failure")?.map(|view| allow_failure(&view)).transpose()?,
        variables: view.get("variables")?.map(|view| variables(&view, remarks)).transpose()?.unwrap_or_default(),
        needs: view.get("needs")?.map(|view| needs(&view, remarks)).transpose()?,
        start_in: view.get("start_in")?.map(|view| time(&view)).transpose()?,
    })
}

fn expression(view: &View<'_>) -> Result<(String, Expression), Error> {
    let source = view.text()?;
    let parsed = Expression::parse(source).map_err(|why| view.error(format!("{why}: {source}")))?;
    Ok((source.split_whitespace().collect::<Vec<_>>().join(" "), parsed))
}

pub(crate) fn policy(view: &View<'_>) -> Result<Policy, Error> {
    if view.node().as_map().is_none() {
        let refs = texts(view)?;
        check_refs(view, &refs)?;
        return Ok(Policy { refs: Some(refs), ..Policy::default() });
    }
    view.only(&["refs", "variables", "changes"])?;
    let refs = view.get("refs")?.map(|refs| texts(&refs)).transpose()?;
    check_refs(view, refs.as_deref().unwrap_or_default())?;
    let mut variables = Vec::new();
    if let Some(all) = view.get("variables")? {
        for node in flat(all.node()) {
            variables.push(expression(&View::new(node, all.path().to_owned()))?);
        }
    }
    let changes = view.get("changes")?.map(|changes| texts(&changes)).transpose()?;
    Ok(Policy { refs, variables, changes })
}

fn check_refs(view: &View<'_>, refs: &[String]) -> Result<(), Error> {
    for name in refs {
        let bare = crate::rules::without_project(name).0;
        if let Err(why) = pattern(bare) {
            return Err(view.error(format!("`{name}` is no regular expression: {why}")));
        }
    }
    Ok(())
}

pub(crate) fn needs(view: &View<'_>, remarks: &mut Remarks) -> Result<Vec<NeedName>, Error> {
    let nodes = flat(view.node());
    if nodes.len() > MAX_NEEDS {
        return Err(view.error(format!("a job may need at most {MAX_NEEDS} others")));
    }
    let mut all = Vec::new();
    for (at, node) in nodes.into_iter().enumerate() {
        let need = View::new(node, format!("{}[{at}]", view.path()));
        if let Yaml::Text(job) = &node.value {
            let (job, at) = (job.clone(), need.at());
            all.push(NeedName { node: at, job, artifacts: true, optional: false, cells: None });
            continue;
        }
        need.only(&["job", "artifacts", "optional", "parallel", "pipeline", "project", "ref"])?;
        let other = need.get("project")?.or(need.get("pipeline")?);
        if let Some(there) = other {
            remarks.refused.push(there.error(
                "artifacts of other pipelines are not there on this machine\ntake this need out with a rule, or run with `--ignore needs:project`",
            ));
            continue;
        }
        let flag = |name: &str, default: bool| need.get(name)?.map_or(Ok(default), |flag| flag.boolean());
        let cells = need.get("parallel")?.map(|parallel| {
            parallel.only(&["matrix"])?;
            matrix(&parallel.require("matrix")?)
        });
        all.push(NeedName {
            node: need.at(),
            job: text(&need.require("job")?)?,
            artifacts: flag("artifacts", true)?,
            optional: flag("optional", false)?,
            cells: cells.transpose()?,
        });
    }
    Ok(all)
}

pub(crate) fn parallel(view: &View<'_>) -> Result<Parallel, Error> {
    let wrong = || view.error(format!("must be a number from 1 to {MAX_PARALLEL}, or a mapping with `matrix`"));
    if let Yaml::Int(number) = view.node().value {
        let number = usize::try_from(number).ok().filter(|number| (1..=MAX_PARALLEL).contains(number));
        return number.map(Parallel::Number).ok_or_else(wrong);
    }
    if view.node().as_map().is_none() {
        return Err(wrong());
    }
    view.only(&["matrix"])?;
    Ok(Parallel::Matrix(matrix(&view.require("matrix")?)?))
}

fn matrix(view: &View<'_>) -> Result<Vec<Cell>, Error> {
    let mut cells: Vec<Cell> = Vec::new();
    for entry in view.items()? {
        let mut rows: Vec<Cell> = vec![Vec::new()];
        for (key, values) in entry.entries()? {
            let values = texts(&values)?;
            if rows.len().saturating_mul(values.len()) > MAX_PARALLEL {
                return Err(view.error(format!("makes more than {MAX_PARALLEL} jobs")));
            }
            let with = |row: &Cell, value: &String| {
                row.iter().cloned().chain([(key.name.clone(), value.clone())]).collect::<Cell>()
            };
            rows =
                rows.iter().flat_map(|row| values.iter().map(|value| with(row, value)).collect::<Vec<_>>()).collect();
        }
        cells.append(&mut rows);
    }
    if cells.is_empty() || cells.len() > MAX_PARALLEL {
        return Err(view.error(format!("makes {} jobs; it must be 1 to {MAX_PARALLEL}", cells.len())));
    }
    Ok(cells)
}

pub(crate) fn allow_failure(view: &View<'_>) -> Result<AllowFailure, Error> {
    if let Yaml::Bool(value) = view.node().value {
        return Ok(if value { AllowFailure::Yes } else { AllowFailure::No });
    }
    if view.node().as_map().is_none() {
        return Err(view.wrong("`true`, `false` or a mapping with `exit_codes`"));
    }
    view.only(&["exit_codes"])?;
    Ok(AllowFailure::ExitCodes(exit_codes(&view.require("exit_codes")?)?))
}

fn exit_codes(view: &View<'_>) -> Result<Vec<i32>, Error> {
    let code = |node| {
        let view = View::new(node, view.path().to_owned());
        let number = view.integer()?;
        i32::try_from(number).map_err(|_| view.error("must be an exit code"))
    };
    flat(view.node()).into_iter().map(code).collect()
}

pub(crate) fn retry(view: &View<'_>) -> Result<Retry, Error> {
    const KINDS: [&str; 13] = [
        "always",
        "unknown_failure",
        "script_failure",
        "api_failure",
        "stuck_or_timeout_failure",
        "runner_system_failure",
        "runner_unsupported",
        "stale_schedule",
        "job_execution_timeout",
        "archived_failure",
        "unmet_prerequisites",
        "scheduler_failure",
        "data_integrity_failure",
    ];
    let max = |view: &View<'_>| {
        let number = u8::try_from(view.integer()?).ok().filter(|number| *number <= 2);
        number.ok_or_else(|| view.error("must be 0, 1 or 2 further attempts"))
    };
    if view.node().as_map().is_none() {
        return Ok(Retry { max: max(view)?, ..Retry::default() });
    }
    view.only(&["max", "when", "exit_codes"])?;
    let when = view.get("when")?.map(|when| texts(&when)).transpose()?.unwrap_or_default();
    if let Some(unknown) = when.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(view.error(format!("`{unknown}` is no kind of failure; known are {}", KINDS.join(", "))));
    }
    Ok(Retry {
        max: view.get("max")?.map(|view| max(&view)).transpose()?.unwrap_or(0),
        when,
        exit_codes: view.get("exit_codes")?.map(|codes| exit_codes(&codes)).transpose()?.unwrap_or_default(),
    })
}

pub(crate) fn tags(view: &View<'_>) -> Result<Vec<String>, Error> {
    let tags = texts(view)?;
    if tags.len() > MAX_TAGS {
        return Err(view.error(format!("a job may have at most {MAX_TAGS} tags")));
    }
    Ok(tags)
}

pub(crate) fn coverage(view: &View<'_>) -> Result<String, Error> {
    let written = view.text()?;
    match pattern(written) {
        Ok(Some(_)) => Ok(written.to_owned()),
        Ok(None) => Err(view.error("must be a regular expression in slashes, such as `/total \\d+%/`")),
        Err(why) => Err(view.error(format!("is no regular expression: {why}"))),
    }
}

/// What a job takes of `default` and of the file's variables: `None` for all.
pub(crate) fn inherited(view: &View<'_>, name: &str) -> Result<Option<Vec<String>>, Error> {
    view.only(&["default", "variables"])?;
    let Some(which) = view.get(name)? else { return Ok(None) };
    if let Yaml::Bool(all) = which.node().value {
        return Ok(if all { None } else { Some(Vec::new()) });
    }
    texts(&which).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_text_as_in_ruby() {
        for (value, wanted) in [
            (3.1, "3.1"),
            (7.0, "7.0"),
            (1e20, "1.0e+20"),
            (1.5e-7, "1.5e-07"),
            (0.0, "0.0"),
            (1e16, "1.0e+16"),
            (0.001, "0.001"),
        ] {
            assert_eq!(float(value), wanted);
        }
    }
}
