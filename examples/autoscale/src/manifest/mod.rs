//! Reads a stream of manifests: every `HorizontalPodAutoscaler` and `ScaledObject` in it, and the workloads beside them.
//!
//! A field is *effective* (it decides what is rehearsed), *informational* (it is told of once), or refused with its path, its
//! line and what to do. Nothing is dropped silently.

mod behavior;
mod edit;
mod field;
mod fleet;
mod hpa;
mod keda;
mod trigger;
mod workload;

use std::collections::BTreeSet;

use yaml::{Options, Schema, View};

use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::fleet::Fleet;
use crate::policy::Autoscaler;

pub(crate) use edit::Edit;
use field::Reader;
pub(crate) use workload::Workload;

/// What a stream of manifests holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) kinds: Kinds,
    pub(crate) findings: Vec<Finding>,
}

/// The objects of a stream, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds {
    pub(crate) autoscalers: Vec<Autoscaler>,
    pub(crate) fleets: Vec<Fleet>,
    workloads: Vec<Workload>,
    /// Kinds that have no part in a rehearsal.
    others: BTreeSet<String>,
}

impl Kinds {
    fn is_empty(&self) -> bool {
        self.autoscalers.is_empty() && self.fleets.is_empty()
    }
}

/// Kinds that scale by other means.
const OTHER_MACHINES: [&str; 3] = ["ScaledJob", "HTTPScaledObject", "VerticalPodAutoscaler"];

/// Reads the text of one file, with `edits` made in it.
pub(crate) fn read(file: &str, text: &str, edits: &[Edit], stream: &mut Stream) -> Result<()> {
    let found = documents(text, edits).and_then(|documents| {
        let reader = Reader::new(file, &mut stream.findings);
        let mut objects = Objects { reader, stream: &mut stream.kinds, refused: None };
        for document in &documents {
            for warning in &document.warnings {
                objects.reader.warn_at(warning.at, "", warning.message.clone());
            }
            let root = View::of(document);
            if !root.is_null() {
                objects.read(&root)?;
            }
        }
        objects.finish()
    });
    found.map_err(|error| explained(file, text, error))?;
    let mut reader = Reader::new(file, &mut stream.findings);
    for (line, text) in (1..).zip(text.lines()) {
        if is_template(text) && !text.trim_start().starts_with('#') {
            let at = yaml::Mark { file: 0, line, column: 1 };
            reader.note_at(at, "", "braces of a template stand in a field that has no effect here".into());
        }
    }
    Ok(())
}

fn documents(text: &str, edits: &[Edit]) -> std::result::Result<Vec<yaml::Document>, yaml::Error> {
    let options =
        Options { schema: Schema::CoreYaml11Booleans, max_bytes: 16 << 20, max_nodes: 1_000_000, ..Options::default() };
    let mut documents = yaml::parse(text, &options)?;
    for edit in edits {
        edit.make(&mut documents)?;
    }
    Ok(documents)
}

/// What is found on the way through the objects of a file.
struct Objects<'a> {
    reader: Reader<'a>,
    stream: &'a mut Kinds,
    /// The first object that scales by other means.
    refused: Option<yaml::Error>,
}

impl Objects<'_> {
    /// One object of the stream, or each of a list.
    fn read(&mut self, root: &View<'_>) -> std::result::Result<(), yaml::Error> {
        let kind = root.require("kind")?;
        let version = root.require("apiVersion")?.text()?;
        match kind.text()? {
            "List" => {
                if let Some(items) = root.get("items")? {
                    for item in items.items()? {
                        self.read(&item)?;
                    }
                }
            }
            "HorizontalPodAutoscaler" => self.stream.autoscalers.push(hpa::read(root, version, &mut self.reader)?),
            "ScaledObject" => self.stream.autoscalers.push(keda::read(root, version, &mut self.reader)?),
            "Fleet" if version.starts_with("tenon/") => {
                self.stream.fleets.push(fleet::read(root, version, &mut self.reader)?);
            }
            "Deployment" | "StatefulSet" | "ReplicaSet" => self.stream.workloads.push(workload::read(root)?),
            other if OTHER_MACHINES.contains(&other) => {
                let message = format!(
                    "{other} scales by other means and is not rehearsed: give a HorizontalPodAutoscaler or a ScaledObject"
                );
                self.refused.get_or_insert_with(|| kind.error(message));
            }
            other => {
                self.stream.others.insert(other.to_owned());
            }
        }
        Ok(())
    }

    /// Refuses a stream in which nothing but other means scales; beside something else they are told of.
    fn finish(mut self) -> std::result::Result<(), yaml::Error> {
        match self.refused {
            Some(error) if self.stream.is_empty() => Err(error),
            Some(error) => {
                self.reader.warn_at(error.at, &error.path, error.message);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn is_template(line: &str) -> bool {
    line.contains("{{") || line.contains("{%")
}

/// An error with what is likely behind it: a template, or a space that is none.
fn explained(file: &str, text: &str, error: yaml::Error) -> Error {
    let line_at = |line: u32| usize::try_from(line).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?));
    let culprit = line_at(error.at.line).is_some_and(is_template);
    let is_parsed = documents(text, &[]).is_ok();
    if let Some(line) = text.lines().position(is_template).filter(|_| culprit || !is_parsed || error.path.is_empty()) {
        let line = if culprit { error.at.line as usize } else { line + 1 };
        let shown: String = text.lines().nth(line - 1).unwrap_or_default().trim().chars().take(80).collect();
        let path = if culprit { error.path } else { String::new() };
        let message = format!(
            "this is a template, not a manifest: pipe it through `helm template RELEASE CHART -s templates/FILE | autoscale … --policy -`; the line reads `{shown}`"
        );
        return Error { path, ..Error::at(file, line, 1, message) };
    }
    let hard_space = text.lines().position(|line| line.contains('\u{a0}') && !line.trim_start().starts_with('#'));
    let mut error = Error::of_yaml(file, error);
    if let Some(line) = hard_space {
        error.message = format!(
            "{}; line {} has a no-break space, as web pages have: write a plain space in its place",
            error.message,
            line + 1
        );
    }
    error
}

impl Stream {
    /// Leaves the autoscalers of that name alone; all of them where there is no name.
    pub(crate) fn choose(&mut self, name: Option<&str>) -> Result<()> {
        let fleets = self.kinds.fleets.iter().map(|held| held.name.clone());
        let known: Vec<String> = self.kinds.autoscalers.iter().map(|held| held.name.clone()).chain(fleets).collect();
        if known.is_empty() {
            let others: Vec<&str> = self.kinds.others.iter().map(String::as_str).collect();
            let seen = if others.is_empty() { String::new() } else { format!("; there is {}", others.join(", ")) };
            return Err(Error::new(format!("no HorizontalPodAutoscaler or ScaledObject stands in the policy{seen}")));
        }
        if let Some(name) = name {
            self.kinds.autoscalers.retain(|held| held.name == name);
            self.kinds.fleets.retain(|held| held.name == name);
            if self.kinds.is_empty() {
                return Err(Error::new(format!(
                    "--name {name}: no autoscaler has that name; there is {}",
                    known.join(", ")
                )));
            }
        }
        for (at, one) in self.kinds.autoscalers.iter().enumerate() {
            let same = |other: &&Autoscaler| {
                other.target == one.target && other.namespace == one.namespace && !one.target.1.is_empty()
            };
            if let Some(other) = self.kinds.autoscalers[..at].iter().find(same) {
                return Err(Error::new(format!(
                    "{} and {} both scale {} {}: Kubernetes lets them fight, and KEDA refuses it; choose one with --name",
                    other.title(),
                    one.title(),
                    one.target.0,
                    one.target.1
                )));
            }
        }
        Ok(())
    }

    /// The workload that an autoscaler scales, if it stands in the stream.
    pub(crate) fn workload_of(&self, autoscaler: &Autoscaler) -> Option<&Workload> {
        let (kind, name) = &autoscaler.target;
        self.kinds.workloads.iter().find(|held| {
            held.name == *name
                && (kind.is_empty() || held.kind == *kind)
                && (held.namespace == autoscaler.namespace
                    || held.namespace.is_none()
                    || autoscaler.namespace.is_none())
        })
    }
}
