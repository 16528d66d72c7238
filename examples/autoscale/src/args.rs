//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::quantity::{duration_ms, thousandths};
use crate::trace::{Between, Fold};

/// What would my autoscaler have done? Plays a recorded day through a Kubernetes HPA or a KEDA `ScaledObject`.
///
/// Exit codes: 0, all is well; 1, a condition of --fail-if holds, or lint has a warning; 2, something that was given is
/// refused.
#[derive(Debug, Parser)]
#[command(name = "autoscale", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Plays a trace through the autoscalers of a manifest, and says what they would have done
    Rehearse(Box<Rehearse>),
    /// Plays one trace through several manifests, or one manifest with changes, side by side
    Compare(Box<Compare>),
    /// Says what Kubernetes or KEDA would refuse, and what would not do what was meant
    Lint(Lint),
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Files of manifests, each with one autoscaler, or with the one of --name
    #[arg(required = true, value_name = "FILE")]
    pub(crate) policies: Vec<String>,
    /// Compare the autoscalers of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// One more to compare: the first file with this change, such as `spec.metrics[0].resource.target.averageUtilization=60`
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) day: Day,
    #[command(flatten)]
    pub(crate) print: Print,
}

#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Files of manifests; `-` reads standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) policies: Vec<String>,
    /// Look at the autoscaler of this name alone
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// How what came out is told.
#[derive(Debug, Args)]
pub(crate) struct Print {
    /// How to print what came out
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Write a page to look at: one file that makes no request and runs no script
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// End with exit code 1 if this holds, such as 'short > 1%', 'unserved > 0.1%', 'flaps > 3', 'pod-hours > 120'
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// A file of manifests; `-` reads standard input, such as from `helm template` or `kubectl get -o yaml`
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) policy: Vec<String>,
    /// Rehearse the autoscaler of this name alone
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Change a field before the manifest is read, such as spec.maxReplicas=20
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) day: Day,
    #[command(flatten)]
    pub(crate) print: Print,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table, the changes, and what is worth knowing
    Table,
    /// JSON, with every change
    Json,
}

/// The trace, how it is read, and the plant.
#[derive(Debug, Args)]
pub(crate) struct Day {
    /// A file of recorded metrics: an answer of Prometheus, promtool, `VictoriaMetrics`, `CloudWatch`, Datadog or Google Cloud, an
    /// export of Grafana, or CSV; NAME=FILE gives the series of a file a name
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Vec<String>,
    /// Fetch the trace from this server of Prometheus, such as `http://127.0.0.1:9090`; no other address is asked
    #[arg(long, value_name = "URL", conflicts_with = "trace")]
    pub(crate) prometheus: Option<String>,
    /// How far back to fetch [default: 1d]
    #[arg(long, value_parser = span, value_name = "TIME", requires = "prometheus")]
    pub(crate) since: Option<u64>,
    /// How far apart the points are that are fetched [default: 1m]
    #[arg(long, value_parser = span, value_name = "TIME", requires = "prometheus")]
    pub(crate) step: Option<u64>,
    /// The query that tells a metric
    #[arg(long, value_name = "METRIC=PROMQL", requires = "prometheus")]
    pub(crate) query: Vec<String>,
    /// Read a column as what all pods together are asked for: cores used, requests per second
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "METRIC[=COLUMN]")]
    pub(crate) load: Vec<String>,
    /// Read a column as per cent of the request, with the replicas of then
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "METRIC[=COLUMN]")]
    pub(crate) utilisation: Vec<String>,
    /// Read a column as what each pod reads, whatever their number
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "METRIC[=COLUMN]")]
    pub(crate) per_pod: Vec<String>,
    /// Read a column as arrivals per second, and work them off with --service-rate
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "METRIC[=COLUMN]")]
    pub(crate) backlog: Vec<String>,
    /// Read a column as the metric itself, which does not follow the pods of the rehearsal
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "METRIC[=COLUMN]")]
    pub(crate) open_loop: Vec<String>,
    /// Leave a metric out
    #[arg(long, value_name = "METRIC")]
    pub(crate) ignore: Vec<String>,
    /// What one ready pod works off each second
    #[arg(long, value_name = "[METRIC=]NUMBER")]
    pub(crate) service_rate: Vec<String>,
    /// How many replicas ran when the trace was recorded: a number, or the column that says it
    #[arg(long, value_name = "N|COLUMN")]
    pub(crate) recorded_replicas: Option<String>,
    /// What a pod requests, such as cpu=500m,memory=256Mi, or web/cpu=500m for a container
    #[arg(long, value_delimiter = ',', value_name = "RESOURCE=QUANTITY")]
    pub(crate) request: Vec<String>,
    /// What a pod may use at most, such as cpu=1
    #[arg(long, value_delimiter = ',', value_name = "RESOURCE=QUANTITY")]
    pub(crate) limit: Vec<String>,
    /// What one ready pod carries of the load, or `unlimited`
    #[arg(long, value_name = "NUMBER")]
    pub(crate) capacity: Option<String>,
    /// With how many pods it begins
    #[arg(long, value_name = "N")]
    pub(crate) initial: Option<u32>,
    /// How long a pod takes from its creation to ready [default: 60s]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) start: Option<u64>,
    /// How long a pod takes to go [default: 30s]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) stop: Option<u64>,
    /// How many pods fit on the nodes that there are; a further one waits for --node-start, and its node stays
    #[arg(long, value_name = "N")]
    pub(crate) pool: Option<u32>,
    /// How long a node takes to start [default: 2m]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) node_start: Option<u64>,
    /// How far metrics of pods are behind [default: 30s]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) metric_lag: Option<u64>,
    /// Over how long metrics of pods are averaged [default: 15s]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) metric_window: Option<u64>,
    /// How much of the beginning is left out of the sums [default: 10m]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) warm_up: Option<u64>,
    /// How often the HPA decides [default: 15s]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) sync: Option<u64>,
    /// The cluster's tolerance [default: 0.1]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) tolerance: Option<f64>,
    /// The cluster's window of scaling in [default: 5m]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) downscale_window: Option<u64>,
    /// For how long the cluster doubts the CPU of a young pod [default: 5m]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) cpu_initialization: Option<u64>,
    /// Within which time of its start a pod that is not ready never was [default: 30s]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) initial_readiness: Option<u64>,
    /// Two changes in opposite directions within this time are a flap [default: 10m]
    #[arg(long, value_parser = span, value_name = "TIME")]
    pub(crate) flap: Option<u64>,
    /// How many partitions a Kafka topic has: its lag is cut to so many times the threshold
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<u32>,
    /// The price of a pod for an hour
    #[arg(long, value_name = "NUMBER")]
    pub(crate) price: Option<f64>,
    /// The zone of times that name none, such as Europe/Berlin
    #[arg(long)]
    pub(crate) zone: Option<String>,
    /// Which time is meant by a reading that the clock showed twice
    #[arg(long, value_enum)]
    pub(crate) fold: Option<Fold>,
    /// What holds between two rows [default: held, or linear where held rows would resonate with the window]
    #[arg(long, value_enum)]
    pub(crate) between: Option<Between>,
    /// Take the series with this label alone, such as pod="web-1"
    #[arg(long, value_name = "LABEL")]
    pub(crate) select: Vec<String>,
    /// Add up all series of the trace
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) sum: bool,
    /// The first instant [default: the first row]
    #[arg(long, value_name = "INSTANT")]
    pub(crate) from: Option<String>,
    /// The end [default: one step after the last row]
    #[arg(long, value_name = "INSTANT")]
    pub(crate) until: Option<String>,
}

fn span(text: &str) -> Result<u64, String> {
    duration_ms(text).ok_or_else(|| format!("`{text}` is no span of time: write such as 90s, 5m, 1h30m"))
}

/// `cpu=500m`: a name and thousandths.
pub(crate) fn named_quantity(option: &str, text: &str) -> crate::error::Result<(String, i64)> {
    let wrong = || crate::error::Error::new(format!("{option} {text}: write such as cpu=500m or memory=256Mi"));
    let (name, quantity) = text.split_once('=').ok_or_else(wrong)?;
    let value = thousandths(quantity).filter(|value| *value > 0).ok_or_else(wrong)?;
    Ok((name.to_owned(), value))
}
