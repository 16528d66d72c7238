//! What `promtool query range` prints: a line of labels, then `value @[time]` line by line.

use super::clock::epoch;
use super::number::{Comma, parse};
use super::{Point, Raw};
use crate::error::{Error, Result};

/// Whether the first line is one of labels.
pub(super) fn is_promtool(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.trim_end().ends_with("=>") || is_point(line))
}

fn is_point(line: &str) -> bool {
    line.contains(" @[") && line.trim_end().ends_with(']')
}

pub(super) fn read(file: &str, text: &str) -> Result<Vec<Raw>> {
    let mut series: Vec<Raw> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            continue;
        }
        let (labels, point) = match trimmed.split_once("=>") {
            Some((labels, point)) => (Some(labels.trim()), point.trim()),
            None => (None, trimmed),
        };
        if let Some(labels) = labels {
            let mut names = vec![if labels.is_empty() { "{}".to_owned() } else { labels.to_owned() }];
            names.extend(labels.split_once('{').map(|(name, _)| name.to_owned()).filter(|name| !name.is_empty()));
            series.push(Raw { names, ..Raw::default() });
        }
        if point.is_empty() {
            continue;
        }
        let wrong = || {
            let shown: String = trimmed.chars().take(60).collect();
            Error::at(file, number, 1, format!("`{shown}` is no point: expected `value @[seconds]`"))
        };
        let (value, time) = point.split_once(" @[").ok_or_else(wrong)?;
        let at = epoch(time.trim_end_matches(']').trim()).ok_or_else(wrong)?;
        let value = parse(value, Comma::Thousands).ok_or_else(wrong)?.value;
        if series.is_empty() {
            series.push(Raw { names: vec!["value".into()], ..Raw::default() });
        }
        if let Some(last) = series.last_mut() {
            last.points.push(Point { at, value, line: number, column: 1 });
        }
    }
    Ok(series)
}
