//! JSON: Prometheus and `VictoriaMetrics` here, the clouds' forms beside this file.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::clock::{epoch, ms_of};
use super::number::{Comma, parse};
use super::{Point, Raw, json_clouds};
use crate::error::{Error, Result};
use crate::finding::Finding;

/// A value that may be a number, a text or nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value(pub(super) Option<f64>);

/// An instant in ms, from seconds or ms as a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct At(pub(super) u64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a number in quotes, or null")
            }

            fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
                Ok(Value(Some(value).filter(|value| value.is_finite())))
            }

            #[expect(clippy::cast_precision_loss, reason = "values are floats")]
            fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
                Ok(Value(Some(value as f64)))
            }

            #[expect(clippy::cast_precision_loss, reason = "values are floats")]
            fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
                Ok(Value(Some(value as f64)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Value, E> {
                match parse(text, Comma::Thousands) {
                    Some(measured) => Ok(Value(measured.value)),
                    None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_unit<E>(self) -> std::result::Result<Value, E> {
                Ok(Value(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = At;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time: seconds or ms since 1970, or such as 2026-06-01T08:00:00Z")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<At, E> {
                ms_of(value).map(At).ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<At, E> {
                let found = epoch(&value.to_string());
                found.map(At).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<At, E> {
                match super::clock::parse(text) {
                    Some(super::clock::Written::Instant(at)) => Ok(At(at)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// `[time, value]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair(pub(super) u64, pub(super) Option<f64>);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Two;
        impl<'de> Visitor<'de> for Two {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair of a time and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Pair, A::Error> {
                let at: At = items.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let value: Value = items.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Pair(at.0, value.0))
            }
        }
        deserializer.deserialize_seq(Two)
    }
}

/// A series of Prometheus or `VictoriaMetrics`.
#[derive(Debug, Deserialize)]
struct PromSeries {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Pair>,
}

#[derive(Debug, Deserialize)]
struct PromData {
    #[serde(default)]
    result: Vec<PromSeries>,
}

/// What an answer says of its kind.
#[derive(Deserialize)]
struct Kind {
    data: KindOnly,
}

#[derive(Deserialize)]
struct KindOnly {
    #[serde(rename = "resultType")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Prometheus {
    data: PromData,
}

#[derive(Debug, Deserialize)]
struct PromError {
    #[serde(default)]
    error: String,
}

/// A line of `VictoriaMetrics`' export.
#[derive(Debug, Deserialize)]
struct Exported {
    metric: BTreeMap<String, String>,
    values: Vec<Value>,
    timestamps: Vec<At>,
}

/// Which top-level keys a text has.
#[derive(Debug, Default)]
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<Keys, A::Error> {
                let mut keys = Keys::default();
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value::<IgnoredAny>()?;
                    keys.0.push(key);
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(Top)
    }
}

/// An error of the reader of JSON, with the place that it names.
fn wrong(file: &str, first_line: usize, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    Error::at(file, error.line().max(1) + first_line - 1, error.column().max(1), message)
}

pub(super) fn typed<'a, T: Deserialize<'a>>(file: &str, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| wrong(file, 1, &error))
}

pub(super) fn read(file: &str, text: &str, findings: &mut Vec<Finding>) -> Result<Vec<Raw>> {
    if text.trim_start().starts_with('[') {
        // What `promtool query range -o json` prints.
        let series: Vec<PromSeries> = typed(file, text)?;
        return Ok(series.into_iter().map(of_prometheus).collect());
    }
    // Several objects, one a line, are an export of VictoriaMetrics.
    let mut first = serde_json::Deserializer::from_str(text).into_iter::<Keys>();
    let keys = match first.next() {
        Some(Ok(keys)) => keys.0,
        Some(Err(error)) => return Err(wrong(file, 1, &error)),
        None => return Err(Error::of_file(file, "the trace is empty")),
    };
    let has = |name: &str| keys.iter().any(|key| key == name);
    if has("timestamps") && has("values") {
        return exported(file, text);
    }
    if has("data") || has("status") {
        return prometheus(file, text);
    }
    if has("Datapoints") {
        return json_clouds::statistics(file, text, findings);
    }
    if has("MetricDataResults") {
        return json_clouds::metric_data(file, text, findings);
    }
    if has("series") {
        return json_clouds::datadog(file, text);
    }
    if has("timeSeries") {
        return json_clouds::google(file, text, findings);
    }
    let (line, column) = super::place(text, text.find('{').unwrap_or(0));
    Err(Error::at(
        file,
        line,
        column,
        format!(
            "an object with the keys {} is of no form that is known: expected an answer of Prometheus, an export of VictoriaMetrics, or an answer of CloudWatch, Datadog or Google Cloud",
            keys.join(", ")
        ),
    ))
}

fn prometheus(file: &str, text: &str) -> Result<Vec<Raw>> {
    // An answer that is an error has another shape.
    if let Ok(PromError { error }) = serde_json::from_str::<PromError>(text)
        && !error.is_empty()
    {
        let error: String = error.chars().take(200).collect();
        return Err(Error::of_file(file, format!("Prometheus answered with an error instead of values: {error}")));
    }
    let kind = typed::<Kind>(file, text)?.data.kind;
    if kind != "matrix" {
        return Err(Error::of_file(
            file,
            format!(
                "the answer is a {kind}, which is of one instant: ask /api/v1/query_range with start, end and step"
            ),
        ));
    }
    let data = typed::<Prometheus>(file, text)?.data;
    Ok(data.result.into_iter().map(of_prometheus).collect())
}

fn of_prometheus(series: PromSeries) -> Raw {
    let points = series.values.into_iter().map(|Pair(at, value)| Point { at, value, line: 0, column: 0 }).collect();
    Raw { names: names_of(&series.metric), points, ..Raw::default() }
}

fn exported(file: &str, text: &str) -> Result<Vec<Raw>> {
    let mut series: Vec<Raw> = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let held: Exported = serde_json::from_str(line).map_err(|error| wrong(file, number, &error))?;
        if held.values.len() != held.timestamps.len() {
            let message = format!(
                "there are {} values and {} timestamps: expected as many of both",
                held.values.len(),
                held.timestamps.len()
            );
            return Err(Error::at(file, number, 1, message));
        }
        let points = held.timestamps.iter().zip(&held.values);
        let points = points.map(|(at, value)| Point { at: at.0, value: value.0, line: number, column: 1 });
        let names = names_of(&held.metric);
        // A long series comes in several lines.
        match series.iter_mut().find(|known| known.names == names) {
            Some(known) => known.points.extend(points),
            None => series.push(Raw { names, points: points.collect(), any_order: true, ..Raw::default() }),
        }
    }
    Ok(series)
}

/// The labels as text, and the name of the metric.
pub(super) fn names_of(labels: &BTreeMap<String, String>) -> Vec<String> {
    let name = labels.get("__name__").cloned();
    let rest: Vec<String> =
        labels.iter().filter(|(key, _)| *key != "__name__").map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let braces = if rest.is_empty() && name.is_some() { String::new() } else { format!("{{{}}}", rest.join(", ")) };
    let mut names = vec![format!("{}{braces}", name.clone().unwrap_or_default())];
    names.extend(name.filter(|name| *name != names[0]));
    names
}
