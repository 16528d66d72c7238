//! Variables: their layers, and the expansion of one in another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest value after expansion, in bytes.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// A variable as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Its text.
    pub text: String,
    /// Whether its text is taken as it is: `expand: false`.
    pub raw: bool,
}

impl Value {
    /// A value in which other variables are put in.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), raw: false }
    }

    /// A value that is taken as it is.
    pub fn raw(text: impl Into<String>) -> Self {
        Self { text: text.into(), raw: true }
    }
}

/// Variables by name, as they are written.
pub type Variables = BTreeMap<String, Value>;

/// The layers of a job's variables. A later field wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// What the pipeline and the job are: `CI_COMMIT_SHA`, `CI_JOB_NAME` …
    pub predefined: Variables,
    /// Of the top level of the file.
    pub global: Variables,
    /// Of the rule of `workflow` that matched.
    pub workflow: Variables,
    /// Of the job.
    pub job: Variables,
    /// Of the job's cell of `parallel:matrix`.
    pub matrix: Variables,
    /// Of the rule of the job that matched.
    pub rule: Variables,
    /// Of the reports of the jobs whose artifacts it takes.
    pub dotenv: Variables,
    /// Of the project or group.
    pub project: Variables,
    /// Given when the pipeline was started.
    pub given: Variables,
}

impl Layers {
    /// The layers, the weakest first.
    fn all(&self) -> [&Variables; 9] {
        let Self { predefined, global, workflow, job, matrix, rule, dotenv, project, given } = self;
        [predefined, global, workflow, job, matrix, rule, dotenv, project, given]
    }

    /// One layer of all, before expansion.
    #[must_use]
    pub fn merged(&self) -> Variables {
        self.all().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The strongest layer that has this variable, before expansion.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.all().into_iter().rev().find_map(|layer| layer.get(name))
    }

    /// Every variable with its final value.
    ///
    /// # Errors
    /// Variables that refer to each other in a circle.
    pub fn expanded(&self) -> Result<BTreeMap<String, String>, CycleError> {
        expand_all(&self.merged())
    }
}

/// Variables that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CycleError {
    /// Each of these refers to the next, and the last to the first.
    #[error("variables refer to each other in a circle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
    /// The value of this one is too long.
    #[error("the variable {0} is longer than {MAX_VALUE_BYTES} bytes once others are put in")]
    TooLong(String),
}

/// Puts variables into each other, in whatever order they stand. Unknown names become empty text.
///
/// # Errors
/// Variables that refer to each other in a circle, or become too long.
pub fn expand_all(variables: &Variables) -> Result<BTreeMap<String, String>, CycleError> {
    let mut done = BTreeMap::new();
    for name in variables.keys() {
        // Depth first, without recursion: a name is looked at again once all that it refers to are done.
        let mut path: Vec<&str> = vec![name];
        while let Some(&name) = path.last() {
            let Some((name, value)) = variables.get_key_value(name).filter(|_| !done.contains_key(name)) else {
                path.pop();
                continue;
            };
            let missing = if value.raw { None } else { first_missing(&value.text, variables, &done) };
            if let Some(missing) = missing {
                if let Some(start) = path.iter().position(|on_path| *on_path == missing) {
                    let circle = path[start..].iter().chain([&missing]).map(|name| (*name).to_owned());
                    return Err(CycleError::Cycle(circle.collect()));
                }
                path.push(missing);
                continue;
            }
            let text = if value.raw { value.text.clone() } else { expand(&value.text, &done) };
            if text.len() > MAX_VALUE_BYTES {
                return Err(CycleError::TooLong(name.clone()));
            }
            done.insert(name.clone(), text);
            path.pop();
        }
    }
    Ok(done)
}

/// The first variable that a text refers to and that is there but not done.
fn first_missing<'v>(text: &str, all: &'v Variables, done: &BTreeMap<String, String>) -> Option<&'v str> {
    let mut missing = None;
    scan(text, &mut |part| {
        if let Part::Reference { name, .. } = part
            && missing.is_none()
            && !done.contains_key(name)
        {
            missing = all.get_key_value(name).map(|(name, _)| name.as_str());
        }
    });
    missing
}

/// Puts values into a text: `$A`, `${A}`, `%A%`. `$$` is one dollar, and what follows it is text. `$A` of an unknown name
/// is empty; `%A%` of one, and shell forms such as `${A:-b}`, stay as they are.
#[must_use]
pub fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    scan(text, &mut |part| match part {
        Part::Text(text) => out.push_str(text),
        Part::Dollar => out.push('$'),
        Part::Reference { name, whole } => match values.get(name) {
            Some(value) => out.push_str(value),
            None if whole.starts_with('%') => out.push_str(whole),
            None => {}
        },
    });
    out
}

enum Part<'t> {
    Text(&'t str),
    Dollar,
    Reference { name: &'t str, whole: &'t str },
}

fn scan<'t>(text: &'t str, take: &mut dyn FnMut(Part<'t>)) {
    let mut rest = text;
    while let Some(at) = rest.find(['$', '%']) {
        take(Part::Text(&rest[..at]));
        rest = &rest[at..];
        let inner = &rest[1..];
        let name = name_at(inner);
        let (part, length) = if rest.starts_with("$$") {
            (Part::Dollar, 2)
        } else if rest.starts_with('%') {
            let length = name.len() + 2;
            if !name.is_empty() && inner[name.len()..].starts_with('%') {
                (Part::Reference { name, whole: &rest[..length] }, length)
            } else {
                (Part::Text(&rest[..1]), 1)
            }
        } else if let Some(braced) = inner.strip_prefix('{') {
            let name = name_at(braced);
            let length = name.len() + 3;
            if !name.is_empty() && braced[name.len()..].starts_with('}') {
                (Part::Reference { name, whole: &rest[..length] }, length)
            } else {
                (Part::Text(&rest[..2]), 2)
            }
        } else if name.is_empty() {
            (Part::Text(&rest[..1]), 1)
        } else {
            let length = name.len() + 1;
            (Part::Reference { name, whole: &rest[..length] }, length)
        };
        take(part);
        rest = &rest[length..];
    }
    take(Part::Text(rest));
}

/// The name of a variable that a text begins with.
fn name_at(text: &str) -> &str {
    let is_first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    if !text.as_bytes().first().is_some_and(is_first) {
        return "";
    }
    let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    &text[..length]
}

/// Whether a shell can set a variable of this name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name_at(name).len() == name.len()
}

/// The variables of a dotenv report: `KEY=value` lines. As on GitLab, quotes are part of the value and spaces around it are
/// not; empty lines and comments count for nothing.
///
/// # Errors
/// The line that is none, from 1.
pub fn dotenv(text: &str) -> Result<Variables, (usize, String)> {
    let mut all = Variables::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| (number, format!("`{line}` has no `=`")))?;
        let name = name.trim();
        if !is_name(name) {
            return Err((number, format!("`{name}` is no name of a variable")));
        }
        all.insert(name.to_owned(), Value::raw(value.trim()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::new(*value))).collect()
    }

    #[test]
    fn variables_are_put_into_each_other_in_any_order() {
        let mut variables = all(&[
            ("LATER", "$BASE/later"),
            ("BASE", "root"),
            ("BRACES", "${BASE}2"),
            ("DOLLAR", "cost 5$$"),
            ("ESCAPED", "$$BASE"),
            ("VIA", "$ESCAPED"),
            ("MISSING", "a-$NO-b"),
            ("PERCENT", "%BASE% %NO% 100% %Y"),
            ("SHELL", "${BASE:-x} ${} $ $1 ${1}"),
        ]);
        variables.insert("RAW".to_owned(), Value::raw("$BASE $$"));
        variables.insert("OF_RAW".to_owned(), Value::new("<$RAW>"));
        let expanded = expand_all(&variables).unwrap();
        for (name, wanted) in [
            ("LATER", "root/later"),
            ("BRACES", "root2"),
            ("DOLLAR", "cost 5$"),
            ("ESCAPED", "$BASE"),
            ("VIA", "$BASE"),
            ("MISSING", "a--b"),
            ("PERCENT", "root %NO% 100% %Y"),
            ("SHELL", "${BASE:-x} ${} $ $1 ${1}"),
            ("RAW", "$BASE $$"),
            ("OF_RAW", "<$BASE $$>"),
        ] {
            assert_eq!(expanded[name], wanted, "{name}");
        }
    }

    #[test]
    fn circles_are_named_and_growth_is_bounded() {
        let circle = expand_all(&all(&[("A", "$B"), ("B", "x${C}"), ("C", "$A"), ("D", "$A")]));
        assert_eq!(circle, Err(CycleError::Cycle(["A", "B", "C", "A"].map(str::to_owned).to_vec())));
        assert_eq!(expand_all(&all(&[("A", "$A")])), Err(CycleError::Cycle(vec!["A".into(), "A".into()])));
        let doubles: Vec<(String, String)> =
            (1..40).map(|at| (format!("A{at}"), format!("$A{0}$A{0}", at - 1))).collect();
        let mut variables = all(&[("A0", "x")]);
        variables.extend(doubles.into_iter().map(|(name, value)| (name, Value::new(value))));
        assert!(matches!(expand_all(&variables), Err(CycleError::TooLong(_))));
    }

    #[test]
    fn stronger_layers_win_before_anything_is_put_in() {
        let layers = Layers {
            global: all(&[("BASE", "root"), ("PATH_", "$BASE/x")]),
            job: all(&[("BASE", "job")]),
            given: all(&[("OTHER", "given")]),
            ..Layers::default()
        };
        assert_eq!(layers.expanded().unwrap()["PATH_"], "job/x");
        assert_eq!(layers.get("OTHER").unwrap().text, "given");
    }

    #[test]
    fn a_dotenv_report_is_lines_of_names_and_values() {
        let read = dotenv("A=1\nB=x=y\r\n# comment\n\nC= \"quoted\" \nD=$A\n").unwrap();
        let text = |name: &str| read[name].text.as_str();
        assert_eq!((text("A"), text("B"), text("C"), text("D")), ("1", "x=y", "\"quoted\"", "$A"));
        assert_eq!(dotenv("A=1\nno\n").unwrap_err().0, 2);
        assert!(dotenv("1A=x").is_err());
    }
}
