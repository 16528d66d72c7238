//! What the interfaces of `CloudWatch`, Datadog and Google Cloud answer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json::{At, Pair, Value, names_of, typed};
use super::series::median_step;
use super::{Point, Raw};
use crate::error::{Error, Result};
use crate::finding::Finding;

#[derive(Deserialize)]
struct Statistics {
    #[serde(rename = "Label", default)]
    label: String,
    #[serde(rename = "Datapoints")]
    points: Vec<Datapoint>,
}

#[derive(Deserialize)]
struct Datapoint {
    #[serde(rename = "Timestamp")]
    at: At,
    #[serde(rename = "Unit", default)]
    unit: String,
    #[serde(rename = "Average")]
    average: Option<Value>,
    #[serde(rename = "Sum")]
    sum: Option<Value>,
    #[serde(rename = "Maximum")]
    maximum: Option<Value>,
    #[serde(rename = "Minimum")]
    minimum: Option<Value>,
    #[serde(rename = "SampleCount")]
    count: Option<Value>,
}

type Statistic = fn(&Datapoint) -> Option<Value>;

const STATISTICS: [(&str, Statistic); 5] = [
    ("Average", |point| point.average),
    ("Sum", |point| point.sum),
    ("Maximum", |point| point.maximum),
    ("Minimum", |point| point.minimum),
    ("SampleCount", |point| point.count),
];

/// `aws cloudwatch get-metric-statistics`: in any order; a sum is over a period, and is no rate.
pub(super) fn statistics(file: &str, text: &str, findings: &mut Vec<Finding>) -> Result<Vec<Raw>> {
    let held: Statistics = typed(file, text)?;
    let unit = held.points.first().map(|point| point.unit.clone()).unwrap_or_default();
    let mut columns = Vec::new();
    for (name, of) in STATISTICS {
        let mut raw = Raw { names: vec![name.to_owned()], unit: unit_of(&unit), any_order: true, ..Raw::default() };
        raw.points = held
            .points
            .iter()
            .filter_map(|point| of(point).map(|value| Point { at: point.at.0, value: value.0, line: 0, column: 0 }))
            .collect();
        if !raw.points.is_empty() {
            columns.push(raw);
        }
    }
    // The label is the name where there is one statistic.
    if columns.len() == 1 && !held.label.is_empty() {
        columns[0].names.insert(0, held.label);
    }
    for raw in columns.iter_mut().filter(|raw| raw.names.contains(&"Sum".to_owned())) {
        per_second(raw, file, findings);
    }
    Ok(columns)
}

/// A sum over each period becomes a rate.
fn per_second(raw: &mut Raw, file: &str, findings: &mut Vec<Finding>) {
    let mut points: Vec<(u64, Option<f64>)> = raw.points.iter().map(|point| (point.at, point.value)).collect();
    points.sort_by_key(|point| point.0);
    let Some(period_ms) = median_step(&points).filter(|period| *period > 0) else { return };
    #[expect(clippy::cast_precision_loss, reason = "a period is short")]
    let seconds = period_ms as f64 / 1_000.0;
    for point in &mut raw.points {
        point.value = point.value.map(|value| value / seconds);
    }
    findings.push(
        Finding::note(format!(
            "the sums of periods of {seconds} s were divided by their length: they are read per second"
        ))
        .in_file(file, None),
    );
}

fn unit_of(unit: &str) -> Option<String> {
    match unit {
        "" | "None" => None,
        "Percent" => Some("%".into()),
        other => Some(other.to_lowercase()),
    }
}

#[derive(Deserialize)]
struct MetricData {
    #[serde(rename = "MetricDataResults")]
    results: Vec<MetricDataResult>,
    #[serde(rename = "NextToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct MetricDataResult {
    #[serde(rename = "Id", default)]
    id: String,
    #[serde(rename = "Label", default)]
    label: String,
    #[serde(rename = "Timestamps")]
    timestamps: Vec<At>,
    #[serde(rename = "Values")]
    values: Vec<Value>,
}

/// `aws cloudwatch get-metric-data`: the newest first, in pages.
pub(super) fn metric_data(file: &str, text: &str, findings: &mut Vec<Finding>) -> Result<Vec<Raw>> {
    let held: MetricData = typed(file, text)?;
    more_pages(held.next.as_deref(), file, findings);
    held.results
        .into_iter()
        .map(|result| {
            if result.timestamps.len() != result.values.len() {
                let (times, values) = (result.timestamps.len(), result.values.len());
                return Err(Error::of_file(
                    file,
                    format!("{} has {times} Timestamps and {values} Values: expected as many of both", result.id),
                ));
            }
            let points = result.timestamps.iter().zip(&result.values);
            let points = points.map(|(at, value)| Point { at: at.0, value: value.0, line: 0, column: 0 }).collect();
            let names = [result.id, result.label].into_iter().filter(|name| !name.is_empty()).collect();
            Ok(Raw { names, points, any_order: true, ..Raw::default() })
        })
        .collect()
}

fn more_pages(token: Option<&str>, file: &str, findings: &mut Vec<Finding>) {
    if token.is_some_and(|token| !token.is_empty()) {
        let warning = Finding::warning("the answer has another page, which is not here: the trace is not whole");
        findings.push(warning.in_file(file, None));
    }
}

#[derive(Deserialize)]
struct Datadog {
    series: Vec<DatadogSeries>,
}

#[derive(Deserialize)]
struct DatadogSeries {
    #[serde(default)]
    metric: String,
    #[serde(default)]
    scope: String,
    pointlist: Vec<Pair>,
}

/// Datadog's `/api/v1/query`.
pub(super) fn datadog(file: &str, text: &str) -> Result<Vec<Raw>> {
    let held: Datadog = typed(file, text)?;
    let of = |series: DatadogSeries| {
        let points =
            series.pointlist.iter().map(|Pair(at, value)| Point { at: *at, value: *value, line: 0, column: 0 });
        let whole = format!("{}{{{}}}", series.metric, series.scope);
        let names = if series.metric.is_empty() { vec!["value".into()] } else { vec![whole, series.metric] };
        Raw { names, points: points.collect(), ..Raw::default() }
    };
    Ok(held.series.into_iter().map(of).collect())
}

#[derive(Deserialize)]
struct Google {
    #[serde(rename = "timeSeries")]
    series: Vec<GoogleSeries>,
    #[serde(rename = "nextPageToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct GoogleSeries {
    #[serde(default)]
    metric: GoogleMetric,
    points: Vec<GooglePoint>,
}

#[derive(Default, Deserialize)]
struct GoogleMetric {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct GooglePoint {
    interval: GoogleInterval,
    value: GoogleValue,
}

#[derive(Deserialize)]
struct GoogleInterval {
    #[serde(rename = "endTime")]
    end: At,
}

#[derive(Deserialize)]
struct GoogleValue {
    #[serde(rename = "doubleValue")]
    double: Option<Value>,
    #[serde(rename = "int64Value")]
    integer: Option<Value>,
}

/// Google Cloud's `timeSeries.list`: the newest first; whole numbers are texts.
pub(super) fn google(file: &str, text: &str, findings: &mut Vec<Finding>) -> Result<Vec<Raw>> {
    let held: Google = typed(file, text)?;
    more_pages(held.next.as_deref(), file, findings);
    held.series
        .into_iter()
        .map(|series| {
            let mut raw = Raw { any_order: true, ..Raw::default() };
            for point in &series.points {
                let Some(value) = point.value.double.or(point.value.integer) else {
                    return Err(Error::of_file(
                        file,
                        "a value is neither a doubleValue nor an int64Value: distributions cannot be read",
                    ));
                };
                raw.points.push(Point { at: point.interval.end.0, value: value.0, line: 0, column: 0 });
            }
            let kind = series.metric.kind;
            let labels = names_of(&series.metric.labels).swap_remove(0);
            raw.names = vec![format!("{kind}{labels}")];
            raw.names.extend(kind.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned));
            raw.names.push(kind);
            Ok(raw)
        })
        .collect()
}
