//! Reading fields: what is known of a mapping, and numbers as Kubernetes takes them.

use yaml::{Error, Mark, View};

use crate::finding::{Finding, Level};
use crate::quantity::thousandths;

/// What is found on the way through a file.
pub(super) struct Reader<'a> {
    file: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, findings: &'a mut Vec<Finding>) -> Self {
        Self { file, findings }
    }

    fn find(&mut self, level: Level, at: Mark, path: &str, text: String) {
        let file = Some(self.file.to_owned());
        let finding = Finding { level, file, line: Some(at.line), path: path.to_owned(), text };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// The file that is read.
    pub(super) fn file(&self) -> String {
        self.file.to_owned()
    }

    pub(super) fn warn_at(&mut self, at: Mark, path: &str, text: String) {
        self.find(Level::Warning, at, path, text);
    }

    pub(super) fn note_at(&mut self, at: Mark, path: &str, text: String) {
        self.find(Level::Note, at, path, text);
    }

    pub(super) fn warn(&mut self, view: &View<'_>, text: impl Into<String>) {
        self.find(Level::Warning, view.at(), view.path(), text.into());
    }

    pub(super) fn note(&mut self, view: &View<'_>, text: impl Into<String>) {
        self.find(Level::Note, view.at(), view.path(), text.into());
    }

    /// Refuses entries that are neither effective nor informational, and tells of the latter.
    pub(super) fn fields(&mut self, view: &View<'_>, effective: &[&str], informational: &[&str]) -> Result<(), Error> {
        for (key, entry) in view.entries()? {
            let name = key.name.as_str();
            if informational.contains(&name) {
                self.note(&entry, "has no effect on a rehearsal");
            } else if !effective.contains(&name) {
                let known = effective.join(", ");
                return Err(view
                    .key_error(key, format!("is not a field that Kubernetes or KEDA knows here; known are {known}")));
            }
        }
        Ok(())
    }
}

/// A fault that was found first, and what became of the rest: where that is faulty too, both are told.
pub(super) fn both<T>(first: Result<(), Error>, rest: Result<T, Error>) -> Result<T, Error> {
    match (first, rest) {
        (Ok(()), rest) => rest,
        (Err(first), Ok(_)) => Err(first),
        (Err(first), Err(second)) => {
            let message =
                format!("{}; and line {}: {}: {}", first.message, second.at.line, second.path, second.message);
            Err(Error { message, ..first })
        }
    }
}

/// A whole number from `least` on.
pub(super) fn count(view: &View<'_>, least: u32) -> Result<u32, Error> {
    if view.node().as_text().is_some() {
        return Err(view.error(format!("must be a whole number without quotes, found `{}`", shown(view))));
    }
    let number = view.integer()?;
    let limit = u32::try_from(i32::MAX).unwrap_or(u32::MAX);
    match u32::try_from(number) {
        Ok(number) if number >= least && number <= limit => Ok(number),
        _ => Err(view.error(format!("must be a whole number from {least} to {limit}, found {number}"))),
    }
}

/// A quantity of Kubernetes in thousandths, above 0.
pub(super) fn quantity(view: &View<'_>) -> Result<i64, Error> {
    let text = view.node().source().ok_or_else(|| view.wrong("a quantity"))?;
    match thousandths(text) {
        Some(value) if value > 0 => Ok(value),
        Some(_) => Err(view.error(format!("must be greater than 0, found `{text}`"))),
        None => Err(view.error(format!("must be a quantity such as `100`, `30000m` or `200Mi`, found `{text}`"))),
    }
}

/// What stands there, for an error about a number, a schedule or a name.
pub(super) fn shown(view: &View<'_>) -> String {
    view.node().source().unwrap_or("a list or a mapping").chars().take(60).collect()
}

/// A text, or a number or a truth value as it is written.
pub(super) fn source(view: &View<'_>) -> Result<String, Error> {
    view.node().source().map(str::to_owned).ok_or_else(|| view.wrong("text"))
}

/// The name, the namespace and the annotations of an object.
pub(super) fn metadata(root: &View<'_>) -> Result<Metadata, Error> {
    let Some(view) = root.get("metadata")? else { return Ok(Metadata::default()) };
    let text = |name: &str| view.get(name)?.map(|view| source(&view)).transpose();
    let mut annotations = Vec::new();
    if let Some(held) = view.get("annotations")? {
        for (key, entry) in held.entries()? {
            annotations.push((
                key.name.clone(),
                source(&entry).unwrap_or_default(),
                entry.at(),
                entry.path().to_owned(),
            ));
        }
    }
    Ok(Metadata { name: text("name")?.unwrap_or_default(), namespace: text("namespace")?, annotations })
}

/// What stands under `metadata`.
#[derive(Default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    /// Name, value, place and path.
    pub(super) annotations: Vec<(String, String, Mark, String)>,
}
