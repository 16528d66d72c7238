//! Triggers of KEDA. Every one of them but cron, cpu and memory is a total, a threshold and an activation.

use jiff::tz::TimeZone;
use yaml::{Error, View};

use super::field::{Reader, shown, source};
use crate::cron::{Schedule, Window};
use crate::policy::{Feed, Gap, Input, Subject, Target, Trigger};
use crate::quantity::{milli_of, thousandths};

/// What one type of trigger calls its threshold, and its default in thousandths.
struct Kind {
    name: &'static str,
    threshold: &'static [&'static str],
    default: Option<i64>,
    activation: &'static [&'static str],
    is_queue: bool,
}

const fn kind(
    name: &'static str,
    threshold: &'static [&'static str],
    default: Option<i64>,
    activation: &'static [&'static str],
) -> Kind {
    Kind { name, threshold, default, activation, is_queue: default.is_some() }
}

/// The types that people have most.
const KINDS: [Kind; 21] = [
    kind("prometheus", &["threshold"], None, &["activationThreshold"]),
    kind("kafka", &["lagThreshold"], Some(10_000), &["activationLagThreshold"]),
    kind("apache-kafka", &["lagThreshold"], Some(10_000), &["activationLagThreshold"]),
    kind("aws-sqs-queue", &["queueLength"], Some(5_000), &["activationQueueLength"]),
    kind("azure-queue", &["queueLength"], Some(5_000), &["activationQueueLength"]),
    kind("azure-servicebus", &["messageCount"], Some(5_000), &["activationMessageCount"]),
    kind("azure-eventhub", &["unprocessedEventThreshold"], Some(64_000), &["activationUnprocessedEventThreshold"]),
    kind("rabbitmq", &["value", "queueLength"], Some(20_000), &["activationValue"]),
    kind("redis", &["listLength"], Some(5_000), &["activationListLength"]),
    kind("redis-cluster", &["listLength"], Some(5_000), &["activationListLength"]),
    kind("redis-sentinel", &["listLength"], Some(5_000), &["activationListLength"]),
    kind("redis-streams", &["lagCount", "pendingEntriesCount", "streamLength"], Some(5_000), &["activationLagCount"]),
    kind("gcp-pubsub", &["value", "subscriptionSize"], Some(10_000), &["activationValue"]),
    kind("gcp-stackdriver", &["targetValue"], Some(5_000), &["activationTargetValue"]),
    kind("aws-cloudwatch", &["targetMetricValue"], None, &["activationTargetMetricValue"]),
    kind("nats-jetstream", &["lagThreshold"], Some(10_000), &["activationLagThreshold"]),
    kind("activemq", &["targetQueueSize"], Some(10_000), &["activationTargetQueueSize"]),
    kind("pulsar", &["msgBacklogThreshold"], Some(10_000), &["activationMsgBacklogThreshold"]),
    kind("nsq", &["depthThreshold"], Some(10_000), &["activationDepthThreshold"]),
    kind("postgresql", &["targetQueryValue"], None, &["activationTargetQueryValue"]),
    kind("mysql", &["queryValue"], None, &["activationQueryValue"]),
];

/// What the threshold may be called in triggers of other types.
const THRESHOLDS: [&str; 22] = [
    "threshold",
    "targetValue",
    "value",
    "queueLength",
    "lagThreshold",
    "messageCount",
    "listLength",
    "targetQueryValue",
    "queryValue",
    "targetMetricValue",
    "thresholdValue",
    "targetQueueLength",
    "targetQueueSize",
    "targetPipelinesQueueLength",
    "targetWorkflowQueueLength",
    "targetObjectCount",
    "blobCount",
    "objectCount",
    "shardCount",
    "streamLength",
    "messageCountTarget",
    "queueDepth",
];

/// The text entries of `metadata`. Values are looked at one by one, and none but thresholds, schedules and zones is repeated.
struct Metadata<'a>(View<'a>);

impl<'a> Metadata<'a> {
    fn get(&self, name: &str) -> Result<Option<View<'a>>, Error> {
        self.0.get(name)
    }

    /// A number in thousandths.
    fn milli(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some(view) = self.get(name)? else { return Ok(None) };
        let text = source(&view)?;
        let text = text.trim();
        let value = text.parse::<f64>().ok().and_then(milli_of).or_else(|| thousandths(text));
        match value {
            Some(value) => Ok(Some(value)),
            None if text.starts_with(['<', '$', '{']) || text.contains("{{") => Err(view.error(format!(
                "must be a number, found `{}`, which looks like a placeholder: fill it in",
                shown(&view)
            ))),
            None => Err(view.error(format!("must be a number, found `{}`", shown(&view)))),
        }
    }

    fn boolean(&self, name: &str, otherwise: bool) -> Result<bool, Error> {
        let Some(view) = self.get(name)? else { return Ok(otherwise) };
        match source(&view)?.as_str() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
            _ => Err(view.error("must be \"true\" or \"false\"")),
        }
    }
}

/// Reads one trigger; what has to be measured of it goes to `inputs`.
pub(super) fn read(
    view: &View<'_>,
    place: usize,
    inputs: &mut Vec<Input>,
    reader: &mut Reader<'_>,
) -> Result<(Trigger, Option<Target>), Error> {
    reader.fields(view, &["type", "name", "metadata", "metricType", "useCachedMetrics"], &["authenticationRef"])?;
    let kind = view.require("type")?.text()?.to_owned();
    let name = view.get("name")?.map(|name| source(&name)).transpose()?;
    let metadata_view = view.require("metadata")?;
    for (_, entry) in metadata_view.entries()? {
        if entry.node().as_text().is_none() {
            reader.warn(&entry, "is not text: Kubernetes refuses it; put the value in quotes");
        }
    }
    let metadata = Metadata(metadata_view);
    let cached = match view.get("useCachedMetrics")? {
        Some(cached) => {
            let is_set = cached.boolean()?;
            if is_set && matches!(kind.as_str(), "cpu" | "memory" | "cron") {
                return Err(cached.error(format!("property \"useCachedMetrics\" is not supported for \"{kind}\"")));
            }
            is_set
        }
        None => false,
    };
    let metric_type = metric_type(view, &kind)?;
    let names = {
        let mut names = vec![format!("s{place}")];
        names.extend(name.clone());
        if !inputs.iter().any(|held| held.names.contains(&kind)) {
            names.push(kind.clone());
        }
        names
    };
    let mut trigger = Trigger {
        kind: kind.clone(),
        name,
        feed: Feed::Resource,
        target: Target::Value(1),
        activation: 0,
        cached,
        per_partition: None,
    };
    match kind.as_str() {
        "cpu" | "memory" => {
            let (input, target) = resource(view, &metadata, &kind, metric_type.as_deref(), reader)?;
            inputs.push(Input { names: with_names(input.names.clone(), names), ..input });
            trigger.target = target;
            Ok((trigger, Some(target)))
        }
        "cron" => {
            trigger.feed = Feed::Cron(Box::new(cron(&metadata, reader)?));
            trigger.target = of_type(metric_type.as_deref(), 1_000);
            Ok((trigger, None))
        }
        _ => {
            total(&metadata, &mut trigger, metric_type.as_deref(), reader)?;
            let known = KINDS.iter().find(|held| held.name == kind);
            let zero = match kind.as_str() {
                "prometheus" | "loki" | "aws-cloudwatch" => metadata.boolean("ignoreNullValues", true)?,
                "azure-app-insights" | "elasticsearch" | "opensearch" => metadata.boolean("ignoreNullValues", false)?,
                _ => false,
            };
            inputs.push(Input {
                names,
                subject: Subject::Total,
                path: view.path().to_owned(),
                at: view.at(),
                target: trigger.target,
                gap: if zero { Gap::Zero } else { Gap::Fails },
                query: if kind == "prometheus" {
                    metadata.get("query")?.map(|query| source(&query)).transpose()?
                } else {
                    None
                },
                is_queue: known.is_some_and(|known| known.is_queue) || kind.contains("queue"),
            });
            trigger.feed = Feed::Input(inputs.len() - 1);
            if kind == "prometheus" {
                look_at_query(&metadata, metric_type.as_deref(), reader)?;
            }
            Ok((trigger, None))
        }
    }
}

fn with_names(mut first: Vec<String>, more: Vec<String>) -> Vec<String> {
    for name in more {
        if !first.contains(&name) {
            first.push(name);
        }
    }
    first
}

fn metric_type(view: &View<'_>, kind: &str) -> Result<Option<String>, Error> {
    let resource = matches!(kind, "cpu" | "memory");
    let Some(held) = view.get("metricType")? else { return Ok(None) };
    let text = held.text()?;
    let allowed: &[&str] = if resource { &["Utilization", "AverageValue"] } else { &["AverageValue", "Value"] };
    if allowed.contains(&text) {
        return Ok(Some(text.to_owned()));
    }
    let of = if resource { "cpu and memory triggers" } else { "external metrics" };
    Err(held.error(format!(
        "'{text}' metric type is unsupported for {of}, allowed values are '{}' or '{}'",
        allowed[0], allowed[1]
    )))
}

fn of_type(metric_type: Option<&str>, milli: i64) -> Target {
    if metric_type == Some("Value") { Target::Value(milli) } else { Target::AverageValue(milli) }
}

/// A cpu or memory trigger.
fn resource(
    view: &View<'_>,
    metadata: &Metadata<'_>,
    kind: &str,
    metric_type: Option<&str>,
    reader: &mut Reader<'_>,
) -> Result<(Input, Target), Error> {
    for old in ["type", "metricType"] {
        if let Some(held) = metadata.get(old)? {
            if metric_type.is_none() {
                return Err(held.error(format!(
                    "KEDA removed it in 2.18: set `metricType: {}` beside `metadata` ({}.metricType); unknown metric type, allowed values are 'Utilization' or 'AverageValue'",
                    if shown(&held) == "AverageValue" { "AverageValue" } else { "Utilization" },
                    view.path()
                )));
            }
            reader.note(&held, "has no effect: KEDA removed it in 2.18, and metricType decides");
        }
    }
    let Some(metric_type) = metric_type else {
        return Err(Error::new(
            view.at(),
            format!("{}.metricType", view.path()),
            "is missing: unknown metric type, allowed values are 'Utilization' or 'AverageValue'",
        ));
    };
    let value = metadata.0.require("value")?;
    let text = source(&value)?;
    let target = if metric_type == "Utilization" {
        match text.parse::<i64>() {
            Ok(percent) if percent > 0 => Target::Utilization(percent),
            _ => return Err(value.error(format!("must be a whole number of per cent, found `{}`", shown(&value)))),
        }
    } else {
        match thousandths(&text).filter(|milli| *milli > 0) {
            Some(milli) => Target::AverageValue(milli),
            None => {
                return Err(
                    value.error(format!("must be a quantity such as `500m` or `200Mi`, found `{}`", shown(&value)))
                );
            }
        }
    };
    let container = metadata.get("containerName")?.map(|name| source(&name)).transpose()?;
    unknown(metadata, &["type", "metricType", "value", "containerName"], reader)?;
    let names = match &container {
        Some(container) => vec![format!("{container}/{kind}"), kind.to_owned()],
        None => vec![kind.to_owned()],
    };
    let subject = Subject::Resource { resource: kind.to_owned(), container };
    let (path, at) = (view.path().to_owned(), view.at());
    Ok((Input { names, subject, path, at, target, gap: Gap::Fails, query: None, is_queue: false }, target))
}

fn cron(metadata: &Metadata<'_>, reader: &mut Reader<'_>) -> Result<Window, Error> {
    let zone_view = metadata.0.require("timezone")?;
    let zone_name = source(&zone_view)?;
    let zone = TimeZone::get(&zone_name).map_err(|_| {
        zone_view.error(format!("`{}` is no name of a time zone, such as Europe/Berlin", shown(&zone_view)))
    })?;
    let schedule = |name: &str| -> Result<(Schedule, View<'_>), Error> {
        let view = metadata.0.require(name)?;
        let text = source(&view)?;
        let schedule = Schedule::parse(text.trim()).map_err(|words| {
            let advice =
                match text.trim().split_once(':').map(|(hour, minute)| (hour.parse::<u8>(), minute.parse::<u8>())) {
                    Some((Ok(hour), Ok(minute))) => format!("; {} as cron is `{minute} {hour} * * *`", text.trim()),
                    _ => String::new(),
                };
            view.error(format!("cron: {words}{advice}"))
        })?;
        Ok((schedule, view))
    };
    let (start, _) = schedule("start")?;
    let (end, end_view) = schedule("end")?;
    if start.text() == end.text() {
        return Err(end_view.error("start and end can not have exactly same time input"));
    }
    let replicas = metadata.0.require("desiredReplicas")?;
    let desired = source(&replicas)?
        .trim()
        .parse::<i64>()
        .map_err(|_| replicas.error(format!("must be a whole number, found `{}`", shown(&replicas))))?;
    if desired <= 0 {
        return Err(replicas.error("no desiredReplicas specified: must be greater than 0"));
    }
    if let (Some(from), Some(until)) = (start.weekdays(), end.weekdays())
        && from != until
        && until == 0b111_1111
    {
        reader.warn(
            &end_view,
            "fires daily, and start does not: after the last start of a week the window stays open until the last end before the next start; give end the same weekdays",
        );
    }
    unknown(metadata, &["timezone", "start", "end", "desiredReplicas"], reader)?;
    Ok(Window { start, end, zone, zone_name, replicas: desired })
}

/// A trigger that reads a total from somewhere.
fn total(
    metadata: &Metadata<'_>,
    trigger: &mut Trigger,
    metric_type: Option<&str>,
    reader: &mut Reader<'_>,
) -> Result<(), Error> {
    let known = KINDS.iter().find(|held| held.name == trigger.kind);
    let names: &[&str] = known.map_or(&THRESHOLDS, |known| known.threshold);
    let mut threshold = None;
    for name in names {
        if threshold.is_none() {
            threshold = metadata.milli(name)?.map(|value| (value, *name));
        }
    }
    if trigger.kind == "rabbitmq"
        && let (Some(old), Some(_)) = (metadata.get("queueLength")?, metadata.get("mode")?)
    {
        return Err(old.error("queueLength is deprecated; use mode and value"));
    }
    let value = match (threshold, known.and_then(|known| known.default)) {
        (Some((value, _)), _) if value > 0 => value,
        (Some((_, name)), _) => {
            let view = metadata.0.require(name)?;
            return Err(view.error(format!("must be greater than 0, found `{}`", shown(&view))));
        }
        (None, Some(default)) => default,
        (None, None) if known.is_some() => {
            return Err(metadata.0.require(names[0]).err().unwrap_or_else(|| metadata.0.error("has no threshold")));
        }
        (None, None) => {
            return Err(metadata.0.error(format!(
                "the threshold of a {} trigger is none that this program knows (it looks for {}): say it with --set \"{}.threshold='10'\"",
                trigger.kind,
                names.join(", "),
                metadata.0.path()
            )));
        }
    };
    trigger.target = of_type(metric_type, value);
    let activations = known.map_or_else(Vec::new, |known| known.activation.to_vec());
    for (key, entry) in metadata.0.entries()? {
        let is_known = activations.contains(&key.name.as_str());
        if is_known || (known.is_none() && key.name.starts_with("activation")) {
            trigger.activation = metadata.milli(&key.name)?.unwrap_or(0);
            if trigger.activation < 0 {
                reader.warn(&entry, "is below 0: the trigger is always active");
            }
        }
    }
    if matches!(trigger.kind.as_str(), "kafka" | "apache-kafka") {
        let limited = !metadata.boolean("allowIdleConsumers", false)?;
        trigger.per_partition = limited.then_some(value);
    }
    if trigger.kind == "aws-sqs-queue" && metadata.boolean("scaleOnInFlight", true)? {
        reader.note(
            &metadata.0,
            "scaleOnInFlight is true by default: messages that are being worked on count as waiting ones",
        );
    }
    let effective: Vec<&str> =
        names.iter().chain(&activations).copied().chain(["ignoreNullValues", "allowIdleConsumers", "mode"]).collect();
    unknown(metadata, &effective, reader)
}

/// Tells once of the entries that say what is measured, and not how it scales.
fn unknown(metadata: &Metadata<'_>, effective: &[&str], reader: &mut Reader<'_>) -> Result<(), Error> {
    let has_effect = |name: &str| effective.contains(&name) || name.starts_with("activation");
    let rest: Vec<&str> =
        metadata.0.entries()?.map(|(key, _)| key.name.as_str()).filter(|name| !has_effect(name)).collect();
    if !rest.is_empty() {
        reader.note(
            &metadata.0,
            format!("entries that say what is measured have no effect on a rehearsal: {}", rest.join(", ")),
        );
    }
    Ok(())
}

/// What is often wrong with the query of a prometheus trigger.
fn look_at_query(metadata: &Metadata<'_>, metric_type: Option<&str>, reader: &mut Reader<'_>) -> Result<(), Error> {
    let view = metadata.0.require("query")?;
    let query = source(&view)?.to_lowercase();
    let latency =
        ["histogram_quantile", "latency", "duration_seconds", "_p95", "_p99"].iter().any(|word| query.contains(word));
    if latency && metric_type != Some("Value") {
        reader.warn(
            &view,
            "looks like a latency, and AverageValue, the default, divides it by the replicas: set `metricType: Value`",
        );
    }
    let grouped = query.contains(" by ") || query.contains(" by(") || query.contains("without");
    let aggregated = ["sum", "avg", "max", "min", "count", "scalar", "quantile", "topk(1", "vector("]
        .iter()
        .any(|word| query.contains(word));
    if !aggregated || grouped {
        reader.warn(&view, "may return several series, which KEDA refuses: aggregate it, such as with sum( … )");
    }
    Ok(())
}
