//! The values of what is around a job: images, services, environments, child pipelines.

use yaml::{Error, Value as Yaml, View};

use crate::keys::{Remarks, text, texts, variables};
use crate::merge::flat;
use crate::model::{Environment, Image, Trigger};

pub(crate) fn image(view: &View<'_>, remarks: &mut Remarks) -> Result<Image, Error> {
    if view.node().as_map().is_none() {
        return Ok(Image { name: text(view)?, ..Image::default() });
    }
    view.only(&["name", "alias", "entrypoint", "command", "pull_policy", "docker", "kubernetes", "variables"])?;
    if let Some(there) = view.get("kubernetes")? {
        remarks.push((there.at(), "image.kubernetes".to_owned(), "has no effect on a local run".to_owned()));
    }
    let words = |name: &str| view.get(name)?.map(|words| texts(&words)).transpose();
    let docker = |name: &str| -> Result<Option<String>, Error> {
        let docker = view.get("docker")?;
        docker.map_or(Ok(None), |docker| docker.get(name)?.map(|value| text(&value)).transpose())
    };
    let pull_policy = words("pull_policy")?.unwrap_or_default();
    if let Some(other) = pull_policy.iter().find(|word| !["always", "if-not-present", "never"].contains(&word.as_str()))
    {
        return Err(view.error(format!("`pull_policy` must be `always`, `if-not-present` or `never`; found `{other}`")));
    }
    let aliases = view.get("alias")?.map(|alias| text(&alias)).transpose()?.unwrap_or_default();
    Ok(Image {
        name: text(&view.require("name")?)?,
        aliases: aliases.split([',', ' ']).filter(|alias| !alias.is_empty()).map(str::to_owned).collect(),
        entrypoint: words("entrypoint")?,
        command: words("command")?,
        pull_policy,
        user: docker("user")?,
        platform: docker("platform")?,
        variables: view.get("variables")?.map(|view| variables(&view, remarks)).transpose()?.unwrap_or_default(),
    })
}

pub(crate) fn services(view: &View<'_>, remarks: &mut Remarks) -> Result<Vec<Image>, Error> {
    let nodes = flat(view.node()).into_iter().enumerate();
    nodes.map(|(at, node)| image(&View::new(node, format!("{}[{at}]", view.path())), remarks)).collect()
}

pub(crate) fn environment(view: &View<'_>, remarks: &mut Remarks) -> Result<Environment, Error> {
    let (name, url, action, tier) = if view.node().as_map().is_none() {
        (text(view)?, None, None, None)
    } else {
        view.only(&["name", "url", "action", "on_stop", "auto_stop_in", "deployment_tier", "kubernetes"])?;
        let one = |name: &str| view.get(name)?.map(|value| text(&value)).transpose();
        let there = view.get("name")?.or(view.get("url")?);
        there.ok_or_else(|| view.error("needs a `name`"))?;
        (one("name")?.unwrap_or_default(), one("url")?, one("action")?, one("deployment_tier")?)
    };
    remarks.push((
        view.at(),
        "environment".to_owned(),
        "nothing is recorded on a local run; its variables are set".to_owned(),
    ));
    let action = action.unwrap_or_else(|| "start".to_owned());
    if !["start", "prepare", "stop", "verify", "access"].contains(&action.as_str()) {
        return Err(
            view.error(format!("`action` must be `start`, `prepare`, `stop`, `verify` or `access`; found `{action}`"))
        );
    }
    let tiers = ["production", "staging", "testing", "development", "other"];
    if let Some(other) = tier.as_deref().filter(|tier| !tiers.contains(tier)) {
        return Err(view.error(format!("`deployment_tier` must be one of {}; found `{other}`", tiers.join(", "))));
    }
    // Without one it is guessed once the name's variables are known.
    Ok(Environment { name, url, action, tier: tier.unwrap_or_default() })
}

/// The tier that GitLab takes an environment of this name for.
pub(crate) fn guessed_tier(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["dev", "review", "trunk"]) {
        "development"
    } else if has(&["test", "tst", "int", "acpt", "accept", "acept", "qa", "qc", "control", "quality"]) {
        "testing"
    } else if has(&["stg", "stag", "model", "modl", "pre", "demo", "non"]) {
        "staging"
    } else if has(&["prd", "prod", "live"]) {
        "production"
    } else {
        "other"
    }
}

/// `None`: it starts a pipeline of another project, and the caller is told to leave that out.
pub(crate) fn trigger(view: &View<'_>, skip: bool, remarks: &mut Remarks) -> Result<Option<Trigger>, Error> {
    let mut refuse = |at: yaml::Mark, what: &str| {
        if !skip {
            let message =
                format!("starts {what}, which cannot be done on this machine\n`--skip-triggers` leaves it out");
            remarks.refused.push(view.error(message));
            return Ok(None);
        }
        remarks.push((at, "trigger".to_owned(), format!("{what} is not started: --skip-triggers")));
        Ok(None)
    };
    if view.node().as_map().is_none() {
        text(view)?;
        return refuse(view.at(), "a pipeline of another project");
    }
    view.only(&["include", "project", "branch", "strategy", "forward", "inputs"])?;
    if let Some(project) = view.get("project")? {
        return refuse(project.at(), "a pipeline of another project");
    }
    if let Some(inputs) = view.get("inputs")? {
        return refuse(inputs.at(), "a child pipeline with inputs");
    }
    let include = view.require("include")?;
    let mut files = Vec::new();
    for node in flat(include.node()) {
        let entry = View::new(node, include.path().to_owned());
        if let Yaml::Text(path) = &node.value {
            files.push(path.trim_start_matches('/').to_owned());
            continue;
        }
        let Some(local) = entry.get("local")? else {
            return refuse(entry.at(), "a child pipeline whose file is not in the repository");
        };
        entry.only(&["local"])?;
        files.push(text(&local)?.trim_start_matches('/').to_owned());
    }
    let waits = match view.get("strategy")?.map(|strategy| text(&strategy)).transpose()?.as_deref() {
        None => false,
        Some("depend" | "mirror") => true,
        Some(other) => return Err(view.error(format!("`strategy` must be `depend` or `mirror`; found `{other}`"))),
    };
    let forward = |name: &str, default: bool| -> Result<bool, Error> {
        view.get("forward")?.map_or(Ok(default), |forward| {
            forward.only(&["yaml_variables", "pipeline_variables"])?;
            forward.get(name)?.map_or(Ok(default), |flag| flag.boolean())
        })
    };
    Ok(Some(Trigger {
        files,
        waits,
        forwards_yaml_variables: forward("yaml_variables", true)?,
        forwards_pipeline_variables: forward("pipeline_variables", false)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_guessed_from_names() {
        for (name, tier) in [
            ("review/x", "development"),
            ("integration", "testing"),
            ("staging", "staging"),
            ("pre-prod", "staging"),
            ("production", "production"),
            ("live", "production"),
            ("gaia", "other"),
        ] {
            assert_eq!(guessed_tier(name), tier, "{name}");
        }
    }
}
