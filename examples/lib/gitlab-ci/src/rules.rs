//! Which jobs are in a pipeline: `rules`, `workflow:rules`, `only` and `except`.

use std::cell::OnceCell;
use std::time::Duration;

use crate::context::{Context, Reference};
use crate::expression::pattern;
use crate::glob::{Glob, Style};
use crate::keys::{NeedName, Policy, Rule, WhenWord};
use crate::model::AllowFailure;
use crate::source::{Changed, Files};
use crate::variables::{Layers, Variables, expand};

/// What rules look at besides variables.
pub(crate) struct World<'w> {
    pub(crate) files: &'w dyn Files,
    pub(crate) context: &'w Context,
    list: OnceCell<Vec<String>>,
}

/// What a matching rule says.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    pub(crate) by: String,
    pub(crate) when: Option<WhenWord>,
    pub(crate) allow_failure: Option<AllowFailure>,
    pub(crate) variables: Variables,
    pub(crate) needs: Option<Vec<NeedName>>,
    pub(crate) start_in: Option<Duration>,
}

impl<'w> World<'w> {
    pub(crate) const fn new(files: &'w dyn Files, context: &'w Context) -> Self {
        Self { files, context, list: OnceCell::new() }
    }

    fn list(&self) -> Result<&[String], String> {
        if let Some(list) = self.list.get() {
            return Ok(list);
        }
        let list = self.files.list().map_err(|why| format!("the files of the commit cannot be listed: {why}"))?;
        Ok(self.list.get_or_init(|| list))
    }

    /// The first rule that matches.
    pub(crate) fn first(
        &self,
        rules: &[Rule],
        layers: &Layers,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Matched>, String> {
        for (rule, number) in rules.iter().zip(1..) {
            if !self.holds(rule, layers, warnings)? {
                continue;
            }
            let what = rule.condition.as_ref().map(|(text, _)| format!(" (`{text}`)")).unwrap_or_default();
            return Ok(Some(Matched {
                by: format!("rule {number}, line {}{what}", rule.line),
                when: rule.when,
                allow_failure: rule.allow_failure.clone(),
                variables: rule.variables.clone(),
                needs: rule.needs.clone(),
                start_in: rule.start_in,
            }));
        }
        Ok(None)
    }

    fn holds(&self, rule: &Rule, layers: &Layers, warnings: &mut Vec<String>) -> Result<bool, String> {
        if let Some((text, expression)) = &rule.condition {
            let evaluated = expression.evaluate(&|name| layers.get(name).map(|value| value.text.as_str()));
            warnings.extend(evaluated.warnings.into_iter().map(|warning| format!("`{text}`: {warning}")));
            if !evaluated.holds {
                return Ok(false);
            }
        }
        if let Some((paths, compare_to)) = &rule.changes
            && !self.changed(paths, compare_to.as_deref(), layers)?
        {
            return Ok(false);
        }
        if let Some(paths) = &rule.exists {
            let values = layers.expanded().map_err(|why| why.to_string())?;
            let patterns: Vec<String> = paths.iter().map(|path| expand(path, &values)).collect();
            if !self.exists(&patterns)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn exists(&self, patterns: &[String]) -> Result<bool, String> {
        let list = self.list()?;
        for pattern in patterns {
            let pattern = pattern.trim_start_matches('/');
            // A folder is there if a file in it is.
            let is_folder = pattern.ends_with('/');
            let glob =
                Glob::new(&if is_folder { format!("{pattern}**/*") } else { pattern.to_owned() }, Style::Fnmatch)?;
            if list.iter().any(|file| glob.matches(file)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn changed(&self, paths: &[String], compare_to: Option<&str>, layers: &Layers) -> Result<bool, String> {
        let values = layers.expanded().map_err(|why| why.to_string())?;
        let compare_to = compare_to.map(|to| expand(to, &values));
        let is_compared = matches!(self.context.reference, Reference::Branch(_) | Reference::MergeRequest { .. })
            && matches!(self.context.source.as_str(), "push" | "merge_request_event" | "external_pull_request_event");
        // Without commits to compare, everything counts as changed: a tag, a schedule, a pipeline started by a person.
        if !is_compared && compare_to.is_none() {
            return Ok(true);
        }
        let changed =
            self.files.changed(compare_to.as_deref()).map_err(|why| format!("changes cannot be listed: {why}"))?;
        let Changed::Files(files) = changed else { return Ok(true) };
        for path in paths {
            let glob = Glob::new(&expand(path, &values), Style::Fnmatch)?;
            if files.iter().any(|file| glob.matches(file)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `only` and `except` want a job. Why not, if they do not.
    pub(crate) fn wanted(
        &self,
        only: Option<&Policy>,
        except: Option<&Policy>,
        layers: &Layers,
        warnings: &mut Vec<String>,
    ) -> Result<Result<String, String>, String> {
        let default = Policy { refs: Some(vec!["branches".to_owned(), "tags".to_owned()]), ..Policy::default() };
        let only = only.map_or_else(
            || default.clone(),
            |only| Policy {
                // With other keys alone, `refs` keeps its default.
                refs: only.refs.clone().or_else(|| default.refs.clone()),
                ..only.clone()
            },
        );
        let clauses = |policy: &Policy, warnings: &mut Vec<String>| -> Result<Vec<(String, bool)>, String> {
            let mut clauses = Vec::new();
            if let Some(refs) = &policy.refs {
                clauses.push((refs.join(", "), refs.iter().any(|pattern| self.is_ref(pattern))));
            }
            if !policy.variables.is_empty() {
                let mut any = false;
                for (text, expression) in &policy.variables {
                    let evaluated = expression.evaluate(&|name| layers.get(name).map(|value| value.text.as_str()));
                    warnings.extend(evaluated.warnings.into_iter().map(|warning| format!("`{text}`: {warning}")));
                    any |= evaluated.holds;
                }
                let texts: Vec<&str> = policy.variables.iter().map(|(text, _)| text.as_str()).collect();
                clauses.push((format!("variables {}", texts.join(", ")), any));
            }
            if let Some(paths) = &policy.changes {
                clauses.push((format!("changes {}", paths.join(", ")), self.changed(paths, None, layers)?));
            }
            Ok(clauses)
        };
        let found = clauses(&only, warnings)?;
        if let Some((what, _)) = found.iter().find(|(_, holds)| !holds) {
            return Ok(Err(format!("`only` does not hold ({what})")));
        }
        if let Some(except) = except
            && let Some((what, _)) = clauses(except, warnings)?.iter().find(|(_, holds)| *holds)
        {
            return Ok(Err(format!("`except` holds ({what})")));
        }
        let all: Vec<&str> = found.iter().map(|(what, _)| what.as_str()).collect();
        Ok(Ok(format!("`only` holds ({})", all.join("; "))))
    }

    /// Whether one entry of `refs` is what the pipeline runs for.
    fn is_ref(&self, entry: &str) -> bool {
        let (entry, project) = without_project(entry);
        if project.is_some_and(|project| !project.eq_ignore_ascii_case(&self.context.commit.project)) {
            return false;
        }
        let source = self.context.source.as_str();
        let is_merge_request = matches!(self.context.reference, Reference::MergeRequest { .. });
        match entry {
            "branches" => return matches!(self.context.reference, Reference::Branch(_)),
            "tags" => return matches!(self.context.reference, Reference::Tag(_)),
            "merge_requests" => return is_merge_request,
            "pushes" => return source == "push",
            "schedules" => return source == "schedule",
            "triggers" => return source == "trigger",
            "pipelines" => return source == "pipeline",
            "external_pull_requests" => return source == "external_pull_request_event",
            "web" | "api" | "external" | "chat" if entry == source => return true,
            _ => {}
        }
        let name = self.context.reference.name();
        match pattern(entry) {
            Ok(Some(regex)) => !is_merge_request && regex.is_match(name),
            Ok(None) => !is_merge_request && entry == name,
            Err(_) => false,
        }
    }
}

/// An entry of `refs` without the project behind `@`.
pub(crate) fn without_project(entry: &str) -> (&str, Option<&str>) {
    match entry.rsplit_once('@') {
        Some((name, project)) if project.contains('/') && !project.ends_with('/') => (name, Some(project)),
        Some(_) | None => (entry, None),
    }
}
