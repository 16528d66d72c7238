//! `HorizontalPodAutoscaler`, in its four versions.

use yaml::{Error, View};

use super::behavior;
use super::field::{Metadata, Reader, both, count, metadata, quantity, source};
use crate::policy::{Autoscaler, Gap, Input, Metric, Source, Subject, Target};

const VERSIONS: [&str; 4] = ["autoscaling/v2", "autoscaling/v2beta2", "autoscaling/v2beta1", "autoscaling/v1"];

pub(super) fn read(root: &View<'_>, version: &str, reader: &mut Reader<'_>) -> Result<Autoscaler, Error> {
    let version_view = root.require("apiVersion")?;
    if !VERSIONS.contains(&version) {
        return Err(version_view.error(format!("must be one of {}, found `{version}`", VERSIONS.join(", "))));
    }
    if matches!(version, "autoscaling/v2beta1" | "autoscaling/v2beta2") {
        let since = if version.ends_with('1') { "1.25" } else { "1.26" };
        reader.note(&version_view, format!("is served no more since Kubernetes {since}: write autoscaling/v2"));
    }
    reader.fields(root, &["apiVersion", "kind", "metadata", "spec", "status"], &[])?;
    let metadata = metadata(root)?;
    for (name, _, at, path) in &metadata.annotations {
        if version == "autoscaling/v1"
            && let Some(field @ ("metrics" | "behavior")) = name.strip_prefix("autoscaling.alpha.kubernetes.io/")
        {
            return Err(Error::new(
                *at,
                path.clone(),
                format!(
                    "hides {field} of a later version: `kubectl get hpa.v2.autoscaling {} -o yaml` shows them as fields",
                    metadata.name
                ),
            ));
        }
    }
    let spec = root.require("spec")?;
    let old = version == "autoscaling/v1";
    let effective: &[&str] = if old {
        &["scaleTargetRef", "minReplicas", "maxReplicas", "targetCPUUtilizationPercentage"]
    } else {
        &["scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"]
    };
    let known = reader.fields(&spec, effective, &["selectionStrategy"]);
    both(known, autoscaler(&spec, version, metadata, reader))
}

fn autoscaler(
    spec: &View<'_>,
    version: &str,
    metadata: Metadata,
    reader: &mut Reader<'_>,
) -> Result<Autoscaler, Error> {
    let old = version == "autoscaling/v1";
    let target = reference(&spec.require("scaleTargetRef")?, reader)?;
    let max = count(&spec.require("maxReplicas")?, 1)?;
    let min_view = spec.get("minReplicas")?;
    let min = min_view.as_ref().map_or(Ok(1), |view| count(view, 0))?;
    if min > max {
        let view = min_view.as_ref().unwrap_or(spec);
        return Err(view.error(format!("minReplicas {min} must be less than or equal to maxReplicas {max}")));
    }
    let mut inputs = Vec::new();
    if old {
        let percent = spec.get("targetCPUUtilizationPercentage")?;
        let target = percent.as_ref().map_or(Ok(80), |view| count(view, 1))?;
        inputs.push(cpu(percent.as_ref().unwrap_or(spec), i64::from(target)));
    } else if let Some(metrics) = spec.get("metrics")?.filter(|metrics| metrics.node().as_list() != Some(&[])) {
        for metric in metrics.items()? {
            inputs.push(input(&metric, version == "autoscaling/v2beta1", reader)?);
        }
    } else {
        reader.note(spec, "has no metrics: Kubernetes takes CPU at 80 % of the request");
        inputs.push(cpu(spec, 80));
    }
    if min == 0 {
        let view = min_view.as_ref().unwrap_or(spec);
        if inputs.iter().all(|input| input.subject != Subject::Total) {
            return Err(view.error(
                "minReplicas 0 must have at least one Object or External metric: nothing measures pods that are not there",
            ));
        }
        reader.note(view, "scales to zero: the feature gate HPAScaleToZero is on by default from Kubernetes 1.37 only");
    }
    let behavior = spec.get("behavior")?.map(|view| behavior::read(&view, reader)).transpose()?;
    let metrics = (0..)
        .zip(&inputs)
        .map(|(at, input)| Metric { label: input.names[0].clone(), source: Source::Input(at), target: input.target })
        .collect();
    let (name, namespace) = (metadata.name, metadata.namespace);
    Ok(Autoscaler { name, namespace, target, file: reader.file(), min, max, inputs, metrics, behavior, keda: None })
}

/// The workload that is scaled: kind and name.
fn reference(view: &View<'_>, reader: &mut Reader<'_>) -> Result<(String, String), Error> {
    reader.fields(view, &["apiVersion", "kind", "name"], &[])?;
    Ok((source(&view.require("kind")?)?, source(&view.require("name")?)?))
}

fn cpu(view: &View<'_>, percent: i64) -> Input {
    Input {
        names: vec!["cpu".into()],
        subject: Subject::Resource { resource: "cpu".into(), container: None },
        path: view.path().to_owned(),
        at: view.at(),
        target: Target::Utilization(percent),
        gap: Gap::Fails,
        query: None,
        is_queue: false,
    }
}

/// One entry of `metrics`.
fn input(view: &View<'_>, beta1: bool, reader: &mut Reader<'_>) -> Result<Input, Error> {
    let kind = view.require("type")?;
    let field = match kind.text()? {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        other => {
            return Err(
                kind.error(format!("must be Resource, ContainerResource, Pods, Object or External, found `{other}`"))
            );
        }
    };
    reader.fields(view, &["type", field], &[])?;
    let held = view.require(field)?;
    let (subject, names) = if matches!(field, "resource" | "containerResource") {
        let resource = source(&held.require("name")?)?;
        let container = match field {
            "containerResource" => Some(source(&held.require("container")?)?),
            _ => None,
        };
        let mut names = vec![resource.clone()];
        names.splice(0..0, container.as_ref().map(|container| format!("{container}/{resource}")));
        (Subject::Resource { resource, container }, names)
    } else {
        let named = match held.get("metric")? {
            Some(metric) => {
                reader.fields(&metric, &["name"], &["selector"])?;
                metric.require("name")?
            }
            None => held.require(if beta1 { "metricName" } else { "metric" })?,
        };
        let subject = if field == "pods" { Subject::Pods } else { Subject::Total };
        (subject, vec![source(&named)?])
    };
    let target = if beta1 { target_of_beta1(&held, field, reader)? } else { target(&held, field, reader)? };
    let mut names = names;
    names.push(view.path().rsplit('.').next().unwrap_or_default().to_owned());
    let (path, at) = (held.path().to_owned(), held.at());
    Ok(Input { names, subject, path, at, target, gap: Gap::Fails, query: None, is_queue: false })
}

/// `target` with its `type`.
fn target(held: &View<'_>, field: &str, reader: &mut Reader<'_>) -> Result<Target, Error> {
    let (effective, informational): (&[&str], &[&str]) = match field {
        "resource" => (&["name", "target"], &[]),
        "containerResource" => (&["name", "container", "target"], &[]),
        "object" => (&["metric", "target"], &["describedObject"]),
        _ => (&["metric", "target"], &[]),
    };
    reader.fields(held, effective, informational)?;
    let view = held.require("target")?;
    reader.fields(&view, &["type", "averageUtilization", "averageValue", "value"], &[])?;
    let kind_view = view.require("type")?;
    let kind = kind_view.text()?;
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        return Err(kind_view.error(format!("must be Utilization, Value or AverageValue, found `{kind}`")));
    }
    let utilization = view.get("averageUtilization")?;
    let average = view.get("averageValue")?;
    let value = view.get("value")?;
    let found = match field {
        "resource" | "containerResource" => match (&utilization, &average) {
            (Some(_), Some(second)) => {
                return Err(second.error("may not stand beside averageUtilization: choose one of them"));
            }
            // What is set decides, whatever the type says.
            (_, Some(average)) => Target::AverageValue(quantity(average)?),
            (Some(utilization), None) => Target::Utilization(i64::from(count(utilization, 1)?)),
            (None, None) => return Err(view.error("must specify averageUtilization or averageValue")),
        },
        "pods" => match &average {
            Some(average) => Target::AverageValue(quantity(average)?),
            None => return Err(view.error("must specify a positive averageValue")),
        },
        "object" => match (kind, &value, &average) {
            (_, Some(_), Some(second)) => {
                return Err(second.error("may not stand beside value: choose one of them"));
            }
            ("Value", Some(value), _) => Target::Value(quantity(value)?),
            ("AverageValue", _, Some(average)) => Target::AverageValue(quantity(average)?),
            _ => {
                return Err(kind_view.error(format!(
                    "is {kind}, and the number of that type is not set: the metric would fail at every pass"
                )));
            }
        },
        _ => match (&average, &value) {
            (Some(average), None) => Target::AverageValue(quantity(average)?),
            (None, Some(value)) => Target::Value(quantity(value)?),
            (Some(second), Some(_)) => return Err(second.error("may not stand beside value: choose one of them")),
            (None, None) => return Err(view.error("must specify either value or averageValue")),
        },
    };
    if matches!(
        (kind, found),
        ("Utilization", Target::AverageValue(_)) | ("AverageValue" | "Value", Target::Utilization(_))
    ) {
        reader.warn(&kind_view, format!("says {kind}, and another kind of number is set: the number decides"));
    }
    Ok(found)
}

/// The flat targets of `v2beta1`.
fn target_of_beta1(held: &View<'_>, field: &str, reader: &mut Reader<'_>) -> Result<Target, Error> {
    let (effective, informational): (&[&str], &[&str]) = match field {
        "resource" => (&["name", "targetAverageUtilization", "targetAverageValue"], &[]),
        "containerResource" => (&["name", "container", "targetAverageUtilization", "targetAverageValue"], &[]),
        "pods" => (&["metricName", "targetAverageValue"], &["selector"]),
        "object" => (&["metricName", "targetValue", "averageValue"], &["target", "selector"]),
        _ => (&["metricName", "targetValue", "targetAverageValue"], &["metricSelector"]),
    };
    reader.fields(held, effective, informational)?;
    let average = held.get(if field == "object" { "averageValue" } else { "targetAverageValue" })?;
    if let Some(average) = average {
        return Ok(Target::AverageValue(quantity(&average)?));
    }
    match field {
        "resource" | "containerResource" => {
            Ok(Target::Utilization(i64::from(count(&held.require("targetAverageUtilization")?, 1)?)))
        }
        "pods" => Err(held.error("must specify a positive targetAverageValue")),
        _ => Ok(Target::Value(quantity(&held.require("targetValue")?)?)),
    }
}
