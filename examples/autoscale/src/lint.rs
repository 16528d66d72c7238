//! What Kubernetes or KEDA would take, and what would then not do what was meant.

use jiff::Timestamp;

use crate::finding::{Finding, Level};
use crate::policy::{Autoscaler, Behavior, Feed, Input, Keda, Select, Subject, Target};
use crate::quantity::units;

/// Words in names of metrics that are no total.
const LATENCY: [&str; 6] = ["latency", "duration", "response_time", "p95", "p99", "quantile"];
/// Words in names of metrics that count what there is, however many pods there are.
const TOTAL: [&str; 9] = ["queue", "depth", "length", "backlog", "lag", "messages", "total", "requests", "pending"];

/// Looks at one autoscaler; cron firings are looked at for the year from `now` on where that is given.
pub(crate) fn look(autoscaler: &Autoscaler, now: Option<Timestamp>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for input in &autoscaler.inputs {
        of_input(autoscaler, input, &mut findings);
    }
    if let Some(behavior) = &autoscaler.behavior {
        of_behavior(behavior, &mut findings);
    }
    if let Some(keda) = &autoscaler.keda {
        of_keda(autoscaler, keda, now, &mut findings);
    }
    if autoscaler.min == autoscaler.max && autoscaler.keda.as_ref().is_none_or(|keda| keda.min > 0) {
        findings.push(Finding::warning(format!("the minimum is the maximum, {}: nothing is scaled", autoscaler.max)));
    }
    for finding in &mut findings {
        finding.file.get_or_insert_with(|| autoscaler.file.clone());
    }
    findings
}

fn of_input(autoscaler: &Autoscaler, input: &Input, findings: &mut Vec<Finding>) {
    let mut warn = |text: String| {
        let path = input.path.clone();
        findings.push(Finding { level: Level::Warning, file: None, line: Some(input.at.line), path, text });
    };
    let name = input.names.first().map(|name| name.to_lowercase()).unwrap_or_default();
    let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match (&input.subject, input.target) {
        (Subject::Total, Target::AverageValue(_)) if says(&LATENCY) && autoscaler.keda.is_none() => {
            warn("looks like a latency, and AverageValue divides it by the replicas: use a Value target".into());
        }
        (Subject::Total, Target::Value(_)) if says(&TOTAL) && !says(&LATENCY) => {
            warn("looks like a total, and a Value target compares it as it is: it does not fall as pods are added, so that the size runs to the maximum; AverageValue divides it".into());
        }
        (Subject::Total, Target::Value(_)) if input.is_queue => {
            warn("a queue's depth does not fall as pods are added at once: with `metricType: Value` the size runs to the maximum; AverageValue divides it".into());
        }
        (Subject::Resource { .. }, Target::Utilization(percent)) if percent > 100 => {
            warn(format!("{percent} % of the request is reached only where pods use more than they request"));
        }
        (Subject::Resource { resource, .. }, _) if resource == "memory" => {
            warn("most programs keep the memory that they have: it does not fall as pods are added, and the size does not come down".into());
        }
        _ => {}
    }
}

fn of_behavior(behavior: &Behavior, findings: &mut Vec<Finding>) {
    if behavior.down.select == Select::Disabled {
        findings.push(Finding::warning("scaleDown is disabled: the size never comes down"));
    }
    if behavior.up.window_ms.is_some_and(|window| window >= 300_000) {
        findings.push(Finding::warning("growth waits for a window of five minutes or more: a surge is over by then"));
    }
}

fn of_keda(autoscaler: &Autoscaler, keda: &Keda, now: Option<Timestamp>, findings: &mut Vec<Finding>) {
    for (place, trigger) in keda.triggers.iter().enumerate() {
        let path = format!("spec.triggers[{place}]");
        let mut warn = |text: String| {
            findings.push(Finding { level: Level::Warning, file: None, line: None, path: path.clone(), text });
        };
        if trigger.activation > trigger.target.number() && !matches!(trigger.feed, Feed::Resource) {
            warn(format!(
                "is active only above {}, which is more than the threshold of {}: from 0, several pods' work waits",
                units(trigger.activation),
                units(trigger.target.number())
            ));
        }
        let Feed::Cron(window) = &trigger.feed else { continue };
        let (min, desired) = (i64::from(autoscaler.min), window.replicas);
        // Within a tenth of the size, the HPA holds.
        if desired > min && desired * 10 <= min * 11 {
            warn(format!(
                "desiredReplicas {desired} is within the tolerance of a tenth of minReplicaCount {min}: nothing moves, since cron is a metric and no floor"
            ));
        }
        if desired <= min {
            warn(format!(
                "desiredReplicas {desired} is no more than minReplicaCount {min}: the window changes nothing"
            ));
        }
        if desired > i64::from(autoscaler.max) {
            warn(format!(
                "desiredReplicas {desired} is more than maxReplicaCount {}: the maximum holds",
                autoscaler.max
            ));
        }
        if let Some(now) = now {
            for mut fault in window.faults(now) {
                fault.path = format!("spec.triggers[{place}]");
                findings.push(fault);
            }
        }
    }
}
