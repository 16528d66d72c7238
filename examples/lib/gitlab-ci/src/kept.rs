//! The values of `artifacts` and `cache`.

use yaml::{Error, View};

use crate::keys::{Remarks, text, texts};
use crate::merge::flat;
use crate::model::{Artifacts, Cache, CacheKey, Keep};

/// How many caches a job may have.
const MAX_CACHES: usize = 4;

pub(crate) fn artifacts(view: &View<'_>, remarks: &mut Remarks) -> Result<Artifacts, Error> {
    const REPORTS: [&str; 21] = [
        "accessibility",
        "annotations",
        "api_fuzzing",
        "browser_performance",
        "cobertura",
        "codequality",
        "container_scanning",
        "coverage_fuzzing",
        "coverage_report",
        "cyclonedx",
        "dast",
        "dependency_scanning",
        "license_scanning",
        "load_performance",
        "metrics",
        "performance",
        "repository_xray",
        "requirements",
        "sast",
        "secret_detection",
        "terraform",
    ];
    view.only(&[
        "paths",
        "exclude",
        "untracked",
        "when",
        "reports",
        "name",
        "expire_in",
        "expose_as",
        "public",
        "access",
    ])?;
    for name in ["name", "expire_in", "expose_as", "public", "access"] {
        if let Some(there) = view.get(name)? {
            remarks.push((there.at(), format!("artifacts.{name}"), "has no effect on a local run".to_owned()));
        }
    }
    if let Some(time) = view.get("expire_in")?
        && text(&time)? != "never"
    {
        crate::keys::time(&time)?;
    }
    let mut found = Artifacts {
        paths: list_of(view, "paths")?,
        exclude: list_of(view, "exclude")?,
        untracked: flag(view, "untracked")?,
        when: keep(view)?,
        ..Artifacts::default()
    };
    if let Some(reports) = view.get("reports")? {
        for (key, report) in reports.entries()? {
            match key.name.as_str() {
                "dotenv" => found.dotenv = texts(&report)?,
                "junit" => found.junit = texts(&report)?,
                name if REPORTS.contains(&name) => {
                    let message = "this report is not looked at on a local run".to_owned();
                    remarks.push((key.at, format!("artifacts.reports.{name}"), message));
                }
                _ => return Err(reports.key_error(key, "is not a known report")),
            }
        }
    }
    Ok(found)
}

pub(crate) fn caches(view: &View<'_>, remarks: &mut Remarks) -> Result<Vec<Cache>, Error> {
    let nodes = flat(view.node());
    if nodes.len() > MAX_CACHES {
        return Err(view.error(format!("a job may have at most {MAX_CACHES} caches")));
    }
    let mut all = Vec::new();
    for node in nodes {
        let one = View::new(node, view.path().to_owned());
        one.only(&["key", "paths", "untracked", "when", "policy", "fallback_keys", "unprotect"])?;
        if one.map()?.is_empty() {
            continue;
        }
        if let Some(there) = one.get("unprotect")? {
            remarks.push((there.at(), "cache.unprotect".to_owned(), "has no effect on a local run".to_owned()));
        }
        let policy = one.get("policy")?.map(|policy| text(&policy)).transpose()?;
        let policy = policy.unwrap_or_else(|| "pull-push".to_owned());
        if !["pull-push", "pull", "push"].contains(&policy.as_str()) && !policy.contains('$') {
            return Err(one.error(format!("`policy` must be `pull-push`, `pull` or `push`; found `{policy}`")));
        }
        all.push(Cache {
            key: one.get("key")?.map(|key| cache_key(&key)).transpose()?.unwrap_or_default(),
            paths: list_of(&one, "paths")?,
            untracked: flag(&one, "untracked")?,
            when: keep(&one)?,
            policy,
            fallback_keys: list_of(&one, "fallback_keys")?,
        });
    }
    Ok(all)
}

fn cache_key(view: &View<'_>) -> Result<CacheKey, Error> {
    if view.node().as_map().is_none() {
        return Ok(CacheKey::Text(text(view)?));
    }
    view.only(&["files", "files_commits", "prefix"])?;
    let files = match view.get("files")? {
        Some(files) => texts(&files)?,
        None => list_of(view, "files_commits")?,
    };
    if files.is_empty() {
        return Err(view.error("needs `files`"));
    }
    Ok(CacheKey::Files { files, prefix: view.get("prefix")?.map(|prefix| text(&prefix)).transpose()? })
}

fn keep(view: &View<'_>) -> Result<Keep, Error> {
    let Some(when) = view.get("when")? else { return Ok(Keep::OnSuccess) };
    match when.text()? {
        "on_success" => Ok(Keep::OnSuccess),
        "on_failure" => Ok(Keep::OnFailure),
        "always" => Ok(Keep::Always),
        other => Err(when.error(format!("must be `on_success`, `on_failure` or `always`; found `{other}`"))),
    }
}

fn list_of(view: &View<'_>, name: &str) -> Result<Vec<String>, Error> {
    Ok(view.get(name)?.map(|list| texts(&list)).transpose()?.unwrap_or_default())
}

fn flag(view: &View<'_>, name: &str) -> Result<bool, Error> {
    view.get(name)?.map_or(Ok(false), |flag| flag.boolean())
}
