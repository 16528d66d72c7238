//! JSON, with every change.

use serde_json::{Value, json};

use super::Rehearsed;
use crate::day::Stage;
use crate::finding::Finding;
use crate::rehearse::Outcome;

/// An instant as text.
pub(crate) fn instant(at: u64) -> String {
    crate::cron::instant(at).map(|at| at.to_string()).unwrap_or_default()
}

/// All outcomes of a stream as one document.
pub(crate) fn document(result: &Rehearsed, stage: &Stage, findings: &[Finding]) -> Value {
    json!({
        "from": instant(stage.plant.from),
        "until": instant(stage.plant.until),
        "autoscalers": result.outcomes.iter().map(autoscaler).collect::<Vec<_>>(),
        "pools": result.pools,
        "defaults": stage.defaults,
        "findings": findings,
    })
}

fn autoscaler(outcome: &Outcome) -> Value {
    let changes: Vec<Value> = outcome
        .changes
        .iter()
        .map(|change| {
            json!({
                "at": instant(change.at),
                "before": change.before,
                "size": change.after,
                "by": change.by.word(),
                "reason": change.reason,
            })
        })
        .collect();
    let cron: Vec<[String; 2]> = outcome.cron_active.iter().map(|held| [instant(held.0), instant(held.1)]).collect();
    json!({
        "name": outcome.name,
        "title": outcome.title,
        "initial": outcome.initial,
        "final": outcome.last,
        "changes": changes,
        "sums": outcome.sums,
        "demand": outcome.demand_name,
        "capacity": outcome.capacity,
        "levels": outcome.levels.iter().map(|held| json!([instant(held.at), held.ready, held.starting])).collect::<Vec<_>>(),
        "cron_active": cron,
        "findings": outcome.findings,
    })
}
