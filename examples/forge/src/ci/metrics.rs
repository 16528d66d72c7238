//! Metrics in Prometheus' text format.

use std::fmt::Write as _;

use super::show;
use super::view::{QueueView, WorkerState};
use crate::router::{Failure, Host};

/// Everything that is measured, now.
pub(crate) async fn text(host: &Host) -> Result<String, Failure> {
    let view = show::overview(host).await?;
    let centre = &host.ci().centre;
    let (open, all) = show::stored(centre, |centre| centre.store.totals()).await?;
    let (counters, closed, refused) =
        centre.view(|core| (*core.engine.counters(), core.closed.clone(), core.refused.clone()));
    let mut out = Page(String::new());

    out.family("forge_ci_queue_depth", "gauge", "Jobs that wait, by what they need and where they come from.");
    out.queues("forge_ci_queue_depth", &view.queues, |q| q.depth.to_string());
    out.family("forge_ci_queue_oldest_seconds", "gauge", "How long the oldest waiting job has waited.");
    out.queues("forge_ci_queue_oldest_seconds", &view.queues, |q| seconds(q.oldest_ms.unwrap_or(0)));
    out.family("forge_ci_queue_running", "gauge", "Jobs that workers hold.");
    out.queues("forge_ci_queue_running", &view.queues, |q| q.running.to_string());

    out.family("forge_ci_pipelines_open", "gauge", "Pipelines that have not ended.");
    out.line("forge_ci_pipelines_open", &[], open);
    out.family("forge_ci_pipelines", "counter", "Pipelines ever made.");
    out.line("forge_ci_pipelines", &[], all);
    out.family("forge_ci_pipelines_closed_total", "counter", "Pipelines that ended in this life of the router.");
    for (state, count) in closed {
        out.line("forge_ci_pipelines_closed_total", &[("state", state)], count);
    }
    out.family("forge_ci_writes_total", "counter", "Writes of rows in this life of the router.");
    for (outcome, count) in [("committed", counters.committed), ("conflicted", counters.conflicted)] {
        out.line("forge_ci_writes_total", &[("outcome", outcome)], count);
    }
    out.family("forge_ci_refused_total", "counter", "Requests that were refused, by the rule's number.");
    for (rule, count) in refused {
        out.line("forge_ci_refused_total", &[("rule", &rule.to_string())], count);
    }

    out.family("forge_ci_workers", "gauge", "Workers by what they do.");
    let states =
        [WorkerState::Starting, WorkerState::Idle, WorkerState::Busy, WorkerState::Leaving, WorkerState::Silent];
    for state in states {
        let count = view.workers.iter().filter(|w| w.state == state).count();
        out.line("forge_ci_workers", &[("state", state.word())], count);
    }
    out.family("forge_ci_fleet_target", "gauge", "Workers that the scaler wants.");
    out.line("forge_ci_fleet_target", &[], view.fleet.target);
    out.family("forge_ci_fleet_ready", "gauge", "Workers of the fleet that serve.");
    out.line("forge_ci_fleet_ready", &[], view.fleet.ready);

    out.family("forge_node_up", "gauge", "Whether a node answers.");
    for node in &view.nodes {
        out.line("forge_node_up", &[("node", &node.node.to_string())], u8::from(node.up));
    }
    out.family("forge_replica_lag", "gauge", "Versions that a replica is known to be behind.");
    for (repo, replica) in view.repos.iter().flat_map(|repo| repo.replicas.iter().map(move |r| (repo, r))) {
        if let Some(lag) = replica.lag {
            out.line("forge_replica_lag", &[("repository", &repo.name), ("node", &replica.node.to_string())], lag);
        }
    }
    Ok(out.0)
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escape(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _infallible = writeln!(self.0, "{name}{labels} {value}");
    }

    fn queues(&mut self, name: &str, queues: &[QueueView], value: impl Fn(&QueueView) -> String) {
        for queue in queues {
            self.line(name, &[("tags", &queue.tags.join(",")), ("class", queue.class)], value(queue));
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_prometheus_reads_it() {
        let mut page = Page(String::new());
        page.family("a", "gauge", "What.");
        page.line("a", &[("x", "q\"\\"), ("y", "z")], 3);
        page.line("b", &[], seconds(1_250));
        assert_eq!(page.0, "# HELP a What.\n# TYPE a gauge\na{x=\"q\\\"\\\\\",y=\"z\"} 3\nb 1.250\n");
    }
}
