//! Deployments and `StatefulSet`s that stand in the stream: what their pods request.

use yaml::{Error, View};

use super::field::{metadata, quantity};

/// A workload, and what its containers request.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) replicas: Option<u32>,
    pub(crate) containers: Vec<Container>,
}

/// A container of a pod: resources and their thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) requests: Vec<(String, i64)>,
    pub(crate) limits: Vec<(String, i64)>,
}

impl Workload {
    /// What a pod requests of a resource: the sum over its containers, or that of one of them; `None` where a container that
    /// counts requests nothing.
    pub(crate) fn request(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        self.sum(container, |held| find(&held.requests, resource).or_else(|| find(&held.limits, resource)))
    }

    /// The first container that counts and requests nothing of a resource: Kubernetes cannot tell a utilisation then.
    pub(crate) fn without_request(&self, resource: &str, container: Option<&str>) -> Option<&str> {
        let mut counted = self.containers.iter().filter(|held| container.is_none_or(|name| name == held.name));
        let lacks =
            |held: &&Container| find(&held.requests, resource).or_else(|| find(&held.limits, resource)).is_none();
        counted.find(lacks).map(|held| held.name.as_str())
    }

    /// What a pod may use of a resource at most.
    pub(crate) fn limit(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        self.sum(container, |held| find(&held.limits, resource))
    }

    fn sum(&self, container: Option<&str>, of: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
        let mut counted =
            self.containers.iter().filter(|held| container.is_none_or(|name| name == held.name)).peekable();
        counted.peek()?;
        counted.try_fold(0_i64, |sum, held| Some(sum.saturating_add(of(held)?)))
    }
}

fn find(values: &[(String, i64)], resource: &str) -> Option<i64> {
    values.iter().find(|(name, _)| name == resource).map(|(_, value)| *value)
}

pub(super) fn read(root: &View<'_>) -> Result<Workload, Error> {
    let metadata = metadata(root)?;
    let mut containers = Vec::new();
    let mut replicas = None;
    if let Some(spec) = root.get("spec")? {
        replicas =
            spec.get("replicas")?.and_then(|view| view.integer().ok()).and_then(|count| u32::try_from(count).ok());
        if let Some(pod) = inner(&spec, &["template", "spec"])? {
            if let Some(held) = pod.get("containers")? {
                containers = held.items()?.map(|view| container(&view)).collect::<Result<_, _>>()?;
            }
            if let Some(first) = pod.get("initContainers")? {
                // One that is always restarted runs beside the others, and counts.
                for view in first.items()? {
                    if view.get("restartPolicy")?.is_some_and(|policy| policy.text() == Ok("Always")) {
                        containers.push(container(&view)?);
                    }
                }
            }
        }
    }
    let kind = root.require("kind")?.text()?.to_owned();
    Ok(Workload { kind, name: metadata.name, namespace: metadata.namespace, replicas, containers })
}

fn inner<'a>(view: &View<'a>, names: &[&str]) -> Result<Option<View<'a>>, Error> {
    let mut at = view.clone();
    for name in names {
        match at.get(name)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn container(view: &View<'_>) -> Result<Container, Error> {
    let name = view.get("name")?.and_then(|name| name.text().ok().map(str::to_owned)).unwrap_or_default();
    let of = |part: &str| -> Result<Vec<(String, i64)>, Error> {
        let Some(held) = inner(view, &["resources", part])? else { return Ok(Vec::new()) };
        held.entries()?.map(|(key, entry)| Ok((key.name.clone(), quantity(&entry)?))).collect()
    };
    Ok(Container { name, requests: of("requests")?, limits: of("limits")? })
}
