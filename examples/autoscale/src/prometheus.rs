//! `--prometheus`: fetches what a rehearsal needs from the server that an option names. No address of a manifest is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::args::Day;
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::policy::{Autoscaler, Input, Subject};
use crate::quantity::words;
use crate::trace::{self, Column, Reading};

/// Prometheus answers with 11,000 points of a series at most.
const MAX_POINTS: u64 = 10_000;
/// The most questions of one series, and the most bytes of one answer.
const MAX_QUESTIONS: u64 = 200;
const MAX_BYTES: usize = 128 << 20;
const PATIENCE: Duration = Duration::from_mins(1);

/// A span of time, and the distance of the points asked for; in ms.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u64,
    until: u64,
    step: u64,
}

/// Fetches the columns of one autoscaler.
pub(crate) fn fetch(
    day: &Day,
    autoscalers: &[Autoscaler],
    now: u64,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Column>> {
    let Some(address) = &day.prometheus else { return Ok(Vec::new()) };
    let [autoscaler] = autoscalers else {
        return Err(Error::new("--prometheus fetches for one autoscaler: choose it with --name"));
    };
    let base = Url::parse(address).map_err(|error| Error::new(format!("--prometheus {address}: {error}")))?;
    if base.scheme() != "http" {
        return Err(Error::new(format!(
            "--prometheus {address}: only http is spoken; forward the port, such as with `kubectl port-forward svc/prometheus 9090`, and give http://127.0.0.1:9090"
        )));
    }
    let since = day.since.unwrap_or(86_400_000);
    let step = day.step.unwrap_or(60_000).max(1_000);
    let span = Span { from: now.saturating_sub(since) / step * step, until: now / step * step, step };
    if (span.until - span.from) / step / MAX_POINTS >= MAX_QUESTIONS {
        return Err(Error::new(format!("--since {} at --step {} are too many points", words(since), words(step))));
    }
    let mut queries: BTreeMap<&str, &str> = BTreeMap::new();
    for text in &day.query {
        let (metric, query) =
            text.split_once('=').ok_or_else(|| Error::new(format!("--query {text}: write METRIC=PROMQL")))?;
        queries.insert(metric, query);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(format!("the network cannot be used: {error}")))?;
    runtime.block_on(async {
        let client = Client::builder().timeout(PATIENCE).redirect(Policy::none()).build();
        let client = client.map_err(|error| Error::new(format!("the network cannot be used: {error}")))?;
        let server = Server { client, base, span };
        let mut columns = Vec::new();
        for input in autoscaler.inputs.iter().filter(|input| !day.ignore.iter().any(|name| input.names.contains(name)))
        {
            let asked = input.names.iter().find_map(|name| queries.get(name.as_str()).map(|query| (*query).to_owned()));
            let query = asked.or_else(|| query_of(autoscaler, input)).ok_or_else(|| {
                let name = &input.names[0];
                Error::new(format!("{name}: no query tells it to Prometheus; say it with --query '{name}=PROMQL'"))
            })?;
            let column = server.column(&query, &input.names[0], findings).await?;
            columns.push(column.ok_or_else(|| {
                Error::new(format!(
                    "{}: Prometheus has no values of `{query}`; say another query with --query '{}=PROMQL'",
                    input.names[0], input.names[0]
                ))
            })?);
            findings.push(Finding::note(format!("{} was fetched as `{query}`", input.names[0])));
        }
        if day.recorded_replicas.is_none()
            && let Some(query) = replicas_of(autoscaler)
        {
            columns.extend(server.column(&query, "replicas", findings).await?);
        }
        Ok(columns)
    })
}

/// A label's value as `PromQL` writes it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The labels of a workload's pods.
fn pods_of(autoscaler: &Autoscaler, container: Option<&str>) -> String {
    let mut labels = Vec::new();
    labels.extend(autoscaler.namespace.as_ref().map(|namespace| format!("namespace={}", quoted(namespace))));
    labels.push(format!("pod=~{}", quoted(&format!("{}-.*", autoscaler.target.1))));
    labels.push(container.map_or_else(|| "container!=\"\"".to_owned(), |name| format!("container={}", quoted(name))));
    labels.join(",")
}

/// The query that tells an input.
fn query_of(autoscaler: &Autoscaler, input: &Input) -> Option<String> {
    match &input.subject {
        Subject::Resource { resource, container } => {
            let pods = pods_of(autoscaler, container.as_deref());
            match resource.as_str() {
                "cpu" => Some(format!("sum(rate(container_cpu_usage_seconds_total{{{pods}}}[2m]))")),
                "memory" => Some(format!("avg(sum by (pod) (container_memory_working_set_bytes{{{pods}}}))")),
                _ => None,
            }
        }
        Subject::Pods | Subject::Total => input.query.clone(),
    }
}

fn replicas_of(autoscaler: &Autoscaler) -> Option<String> {
    let (kind, name) = &autoscaler.target;
    let (metric, label) = match kind.as_str() {
        "Deployment" => ("kube_deployment_status_replicas_ready", "deployment"),
        "StatefulSet" => ("kube_statefulset_status_replicas_ready", "statefulset"),
        _ => return None,
    };
    let namespace =
        autoscaler.namespace.as_ref().map(|held| format!("namespace={},", quoted(held))).unwrap_or_default();
    Some(format!("max({metric}{{{namespace}{label}={}}})", quoted(name)))
}

struct Server {
    client: Client,
    base: Url,
    span: Span,
}

impl Server {
    /// The answer to a query as a column; `None` where there is none.
    async fn column(&self, query: &str, name: &str, findings: &mut Vec<Finding>) -> Result<Option<Column>> {
        let mut whole: Option<Column> = None;
        let mut from = self.span.from;
        while from < self.span.until {
            let until = (from + self.span.step * (MAX_POINTS - 1)).min(self.span.until);
            let text = self.ask(query, from, until).await?;
            // An answer without a series has no point.
            let is_empty = text.replace(char::is_whitespace, "").contains("\"result\":[]");
            if !is_empty {
                let mut columns = trace::read("the answer of Prometheus", &text, &Reading::default(), findings)?;
                if columns.len() > 1 {
                    return Err(Error::new(format!(
                        "`{query}` answers with {} series: aggregate it, such as with sum( … )",
                        columns.len()
                    )));
                }
                if let Some(column) = columns.pop() {
                    match &mut whole {
                        Some(held) => held.points.extend(column.points),
                        None => whole = Some(Column { names: vec![name.to_owned()], ..column }),
                    }
                }
            }
            from = until + self.span.step;
        }
        Ok(whole)
    }

    async fn ask(&self, query: &str, from: u64, until: u64) -> Result<String> {
        let wrong = |what: String| Error::new(format!("Prometheus at {}: {what}", self.base));
        let mut url = self.base.clone();
        let path = format!("{}/api/v1/query_range", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let (start, end, step) = (seconds(from), seconds(until), seconds(self.span.step));
        url.query_pairs_mut()
            .append_pair("query", query)
            .append_pair("start", &start)
            .append_pair("end", &end)
            .append_pair("step", &step);
        let mut answer = self.client.get(url).send().await.map_err(|error| wrong(plain(&error)))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| wrong(plain(&error)))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BYTES {
                return Err(wrong(format!(
                    "the answer has more than {MAX_BYTES} bytes: ask for less with --since or a longer --step"
                )));
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("the answer is no text".into()))?;
        if !status.is_success() && !text.trim_start().starts_with('{') {
            return Err(wrong(format!("answers {status}")));
        }
        Ok(text)
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// What went wrong on the way, down to its cause.
fn plain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
