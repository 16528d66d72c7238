//! Recorded metrics, in the forms in which people have them.

mod clock;
mod csv;
mod json;
mod json_clouds;
mod number;
mod promtool;
mod series;

use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::finding::Finding;

pub(crate) use series::{Between, Reader, Series, median_step};

/// One recorded series.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The names under which it can be bound, the first one first.
    pub(crate) names: Vec<String>,
    /// What it is counted in, where the form says so.
    pub(crate) unit: Option<String>,
    /// Instants in ms since 1970, in order, each once; `None` where a value is missing.
    pub(crate) points: Vec<(u64, Option<f64>)>,
    pub(crate) file: String,
}

/// Which of the two passes a reading means that a fold of the clock shows twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fold {
    /// The first one, in summer time
    Earlier,
    /// The second one, in winter time
    Later,
}

/// How civil times are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// The zone of times that name none.
    pub(crate) zone: Option<TimeZone>,
    pub(crate) fold: Option<Fold>,
}

/// The largest trace, in bytes.
const MAX_BYTES: usize = 512 << 20;
/// The most series of one file.
const MAX_SERIES: usize = 2_000;
/// The most points of one file.
const MAX_POINTS: usize = 20_000_000;

/// Reads the text of one file.
pub(crate) fn read(file: &str, text: &str, reading: &Reading, findings: &mut Vec<Finding>) -> Result<Vec<Column>> {
    if text.len() > MAX_BYTES {
        return Err(Error::of_file(file, format!("the trace has {} bytes, and {MAX_BYTES} are read", text.len())));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = text.trim_start();
    let mut raw = if start.is_empty() {
        return Err(Error::of_file(file, "the trace is empty"));
    } else if promtool::is_promtool(start) {
        promtool::read(file, text)?
    } else if start.starts_with(['{', '[']) {
        json::read(file, text, findings)?
    } else {
        csv::read(file, text, reading, findings)?
    };
    if raw.len() > MAX_SERIES {
        return Err(Error::of_file(file, format!("the trace has {} series, and {MAX_SERIES} are read", raw.len())));
    }
    if raw.iter().map(|held| held.points.len()).sum::<usize>() > MAX_POINTS {
        return Err(Error::of_file(file, format!("the trace has more than {MAX_POINTS} points")));
    }
    raw.retain(|held| !held.points.is_empty());
    if raw.is_empty() {
        return Err(Error::of_file(file, "the trace holds no point"));
    }
    raw.into_iter().map(|held| held.sorted(file, findings)).collect()
}

/// A series as it was read: points in the order of the file, each with its place in it.
#[derive(Debug, Default)]
struct Raw {
    names: Vec<String>,
    unit: Option<String>,
    points: Vec<Point>,
    /// Whether the form is known to come in any order.
    any_order: bool,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: u64,
    value: Option<f64>,
    /// The line and the column of the time; 0 where the form has none that a reader could use.
    line: usize,
    column: usize,
}

impl Raw {
    fn sorted(mut self, file: &str, findings: &mut Vec<Finding>) -> Result<Column> {
        if !self.points.is_sorted_by_key(|point| point.at) {
            self.points.sort_by_key(|point| point.at);
            if !self.any_order {
                let name = self.names.first().cloned().unwrap_or_default();
                findings.push(
                    Finding::note(format!("the rows of `{name}` are not in order of time, and were sorted"))
                        .in_file(file, None),
                );
            }
        }
        if let Some(two) = self.points.windows(2).find(|two| two[0].at == two[1].at) {
            let at = crate::cron::instant(two[1].at).map(|at| at.to_string()).unwrap_or_default();
            let name = self.names.first().cloned().unwrap_or_default();
            let message = format!("`{name}` has two values at {at}: keep one of the rows");
            return Err(match two[1].line.max(two[0].line) {
                0 => Error::of_file(file, message),
                line => Error::at(file, line, two[1].column.max(1), message),
            });
        }
        let points = self.points.iter().map(|point| (point.at, point.value)).collect();
        Ok(Column { names: self.names, unit: self.unit, points, file: file.to_owned() })
    }
}

/// An instant that an option names, in ms.
pub(crate) fn instant(text: &str, reading: &Reading) -> Option<u64> {
    let written = clock::parse(text)?;
    clock::resolve(&[written], reading).ok()?.first().copied()
}

/// The line and the column of a place in a text, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}
