//! Comma-separated values: plain ones, and the three forms of Grafana.

use std::borrow::Cow;

use super::clock::{Doubt, Written, parse, resolve};
use super::number::{Comma, Unit, parse as number};
use super::{Point, Raw, Reading};
use crate::error::{Error, Result};
use crate::finding::Finding;

/// One row, and where it stands.
struct Record<'a> {
    line: usize,
    /// Cells and their columns in the line.
    cells: Vec<(Cow<'a, str>, usize)>,
}

/// What parts cells, and what is left of the text when a first line said so.
fn delimiter(text: &str) -> (char, usize) {
    if let Some(rest) = text.strip_prefix("sep=")
        && let Some(sign) = rest.chars().next()
    {
        let end = text.find('\n').map_or(text.len(), |end| end + 1);
        return (sign, end);
    }
    let (mut quoted, mut counts) = (false, [0_usize; 3]);
    for c in text.lines().next().unwrap_or_default().chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => counts[0] += 1,
            ';' if !quoted => counts[1] += 1,
            '\t' if !quoted => counts[2] += 1,
            _ => {}
        }
    }
    let sign = if counts[1] > 0 && counts[1] >= counts[0] {
        ';'
    } else if counts[2] > 0 && counts[0] == 0 {
        '\t'
    } else {
        ','
    };
    (sign, 0)
}

/// The rows of a text that are not empty.
fn records<'a>(file: &str, text: &'a str, sign: char, first_line: usize) -> Result<Vec<Record<'a>>> {
    let mut records = Vec::new();
    let (mut line, mut rest) = (first_line, text);
    while !rest.is_empty() {
        let start = line;
        let (mut cells, mut column) = (Vec::new(), 1_usize);
        loop {
            let (cell, length, ended) = cell(rest, sign)
                .ok_or_else(|| Error::at(file, start, column, "a quotation mark is opened and never closed"))?;
            line += rest[..length].matches('\n').count();
            let width = rest[..length].chars().count();
            cells.push((cell, column));
            column += width;
            rest = &rest[length..];
            if ended {
                break;
            }
        }
        if cells.len() > 1 || !cells[0].0.trim().is_empty() {
            records.push(Record { line: start, cells });
        }
    }
    Ok(records)
}

/// The first cell of a text, how much of the text it takes with what ends it, and whether it ends its row.
fn cell(text: &str, sign: char) -> Option<(Cow<'_, str>, usize, bool)> {
    let ending = |at: usize| {
        let rest = &text[at..];
        if let Some(rest) = rest.strip_prefix("\r\n") {
            return Some((text.len() - rest.len(), true));
        }
        match rest.chars().next() {
            None => Some((at, true)),
            Some('\n' | '\r') => Some((at + 1, true)),
            Some(c) if c == sign => Some((at + c.len_utf8(), false)),
            Some(_) => None,
        }
    };
    if let Some(body) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut from = 0;
        loop {
            let end = from + body[from..].find('"')?;
            value.push_str(&body[from..end]);
            from = end + 1;
            if body[from..].starts_with('"') {
                value.push('"');
                from += 1;
            } else {
                break;
            }
        }
        // What stands between the closing mark and the end of the cell is of no matter.
        let mut at = 1 + from;
        loop {
            if let Some((length, ended)) = ending(at) {
                return Some((Cow::Owned(value), length, ended));
            }
            at += text[at..].chars().next()?.len_utf8();
        }
    }
    let end = text.find([sign, '\n', '\r']).unwrap_or(text.len());
    let (length, ended) = ending(end)?;
    Some((Cow::Borrowed(&text[..end]), length, ended))
}

fn is_time_name(name: &str) -> bool {
    ["time", "timestamp", "date", "datetime", "ts", "@timestamp"]
        .iter()
        .any(|known| name.trim().eq_ignore_ascii_case(known))
}

pub(super) fn read(file: &str, text: &str, reading: &Reading, findings: &mut Vec<Finding>) -> Result<Vec<Raw>> {
    let (sign, skipped) = delimiter(text);
    let records = records(file, &text[skipped..], sign, usize::from(skipped > 0) + 1)?;
    let Some(first) = records.first() else { return Err(Error::of_file(file, "the trace holds no row")) };
    let names: Vec<String> = first.cells.iter().map(|(cell, _)| cell.trim().to_lowercase()).collect();
    let is_long = names.len() == 3 && names[0] == "series" && is_time_name(&names[1]) && names[2] == "value";
    let mut table = Table { file, reading, findings, comma: Comma::Thousands };
    if is_long {
        return table.long(&records[1..]);
    }
    if sign == ';' {
        table.comma = Comma::Decimal;
    }
    table.wide(&records)
}

struct Table<'a> {
    file: &'a str,
    reading: &'a Reading,
    findings: &'a mut Vec<Finding>,
    comma: Comma,
}

impl Table<'_> {
    /// A time and a value of each series in a row; several tables below each other, each with a header.
    fn wide(&mut self, records: &[Record<'_>]) -> Result<Vec<Raw>> {
        let mut columns = Vec::new();
        let mut at = 0;
        while at < records.len() {
            let has_header = records[at].cells.iter().all(|(cell, _)| parse(cell).is_none());
            let header: Vec<String> = if has_header {
                at += 1;
                records[at - 1].cells.iter().map(|(cell, _)| cell.trim().to_owned()).collect()
            } else {
                (0..records[at].cells.len())
                    .map(|place| if place == 0 { "time".into() } else { "value".into() })
                    .collect()
            };
            let time = header.iter().position(|name| is_time_name(name)).unwrap_or(0);
            // A next table begins where a row names the time again.
            let is_row = |record: &&Record<'_>| {
                record.cells.get(time).is_none_or(|(cell, _)| !is_time_name(cell) || !has_header)
            };
            let rows = records[at..].iter().take_while(is_row).count();
            self.frame(&header, time, &records[at..at + rows], &mut columns)?;
            at += rows;
        }
        Ok(columns)
    }

    fn frame(&mut self, header: &[String], time: usize, rows: &[Record<'_>], columns: &mut Vec<Raw>) -> Result<()> {
        let times: Vec<(&str, usize, usize)> = rows
            .iter()
            .map(|row| {
                row.cells.get(time).map_or(("", row.line, 1), |(cell, column)| (cell.as_ref(), row.line, *column))
            })
            .collect();
        let instants = self.instants(&times)?;
        let width = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0).max(header.len());
        if width < 2 {
            let line = rows.first().map_or(1, |row| row.line);
            return Err(Error::at(
                self.file,
                line,
                1,
                "a row has one cell: a time and a value are expected, with `,` or `;` between them",
            ));
        }
        for place in (0..width).filter(|place| *place != time) {
            let name = header
                .get(place)
                .cloned()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| format!("column {}", place + 1));
            let mut raw = Raw { names: names_of(&name), ..Raw::default() };
            let mut unit = None;
            for (row, at) in rows.iter().zip(&instants) {
                let (cell, column) = row.cells.get(place).map_or(("", 1), |(cell, column)| (cell.as_ref(), *column));
                let value = self.value(cell, row.line, column, &mut unit)?;
                raw.points.push(Point {
                    at: *at,
                    value,
                    line: row.line,
                    column: row.cells.get(time).map_or(1, |cell| cell.1),
                });
            }
            raw.unit = unit.map(|unit: Unit| unit.name().to_owned());
            columns.push(raw);
        }
        Ok(())
    }

    /// The name of the series, a time and a value in a row.
    fn long(&mut self, rows: &[Record<'_>]) -> Result<Vec<Raw>> {
        let mut order: Vec<String> = Vec::new();
        for row in rows {
            let name = row.cells[0].0.as_ref();
            if !order.iter().any(|held| held == name) {
                order.push(name.to_owned());
            }
        }
        let mut columns = Vec::new();
        for name in order {
            let own: Vec<&Record<'_>> = rows.iter().filter(|row| row.cells[0].0 == name).collect();
            let times: Vec<(&str, usize, usize)> = own
                .iter()
                .map(|row| {
                    row.cells.get(1).map_or(("", row.line, 1), |(cell, column)| (cell.as_ref(), row.line, *column))
                })
                .collect();
            let instants = self.instants(&times)?;
            let (mut raw, mut unit) = (Raw { names: names_of(&name), ..Raw::default() }, None);
            for (row, at) in own.iter().zip(instants) {
                // Thousands may be parted by commas without quotation marks.
                let text: Vec<&str> =
                    row.cells[2.min(row.cells.len())..].iter().map(|(cell, _)| cell.as_ref()).collect();
                let column = row.cells.get(2).map_or(1, |cell| cell.1);
                let value = self.value(&text.join(","), row.line, column, &mut unit)?;
                raw.points.push(Point { at, value, line: row.line, column: row.cells.get(1).map_or(1, |cell| cell.1) });
            }
            raw.unit = unit.map(|unit: Unit| unit.name().to_owned());
            columns.push(raw);
        }
        Ok(columns)
    }

    fn instants(&self, times: &[(&str, usize, usize)]) -> Result<Vec<u64>> {
        let wrong = |place: usize, message: String| {
            let (_, line, column) = times[place];
            Error::at(self.file, line, column, message)
        };
        let mut written: Vec<Written> = Vec::with_capacity(times.len());
        for (place, (text, ..)) in times.iter().enumerate() {
            written.push(parse(text).ok_or_else(|| {
                let text: String = text.chars().take(40).collect();
                wrong(place, format!("`{text}` is no time: expected such as 2026-06-01T08:00:00Z, 2026-06-01 08:00:00, or seconds or ms since 1970"))
            })?);
        }
        resolve(&written, self.reading).map_err(|(place, doubt)| {
            let text = times[place].0.trim();
            wrong(place, match doubt {
                Doubt::NoZone => format!("`{text}` names no zone: say whose clock it is with --zone, such as --zone Europe/Berlin or --zone UTC"),
                Doubt::Gap => format!("`{text}` is a reading that the clock never showed, since it was put forward: is --zone right?"),
                Doubt::Fold => format!("`{text}` is a reading that the clock showed twice, since it was put back: say which one with --fold earlier or --fold later"),
                Doubt::Range => format!("`{text}` is before 1970, or too far ahead"),
            })
        })
    }

    fn value(&mut self, cell: &str, line: usize, column: usize, unit: &mut Option<Unit>) -> Result<Option<f64>> {
        let text: String = cell.trim().chars().take(40).collect();
        let Some(measured) = number(cell, self.comma) else {
            return Err(Error::at(
                self.file,
                line,
                column,
                format!(
                    "`{text}` is no value: expected a number; if it was formatted for readers, export with \"Formatted data\" off"
                ),
            ));
        };
        let is_zero = measured.value.is_none_or(|value| value.abs() < f64::MIN_POSITIVE);
        match (measured.unit, *unit) {
            (Some(new), None) => {
                *unit = Some(new);
                if new == Unit::Count {
                    let note = Finding::note(
                        "values such as `1.2 K` were rounded when they were formatted: export with \"Formatted data\" off for the exact ones",
                    );
                    let note = note.in_file(self.file, None);
                    if !self.findings.contains(&note) {
                        self.findings.push(note);
                    }
                }
            }
            (Some(new), Some(held)) if new != held => {
                return Err(Error::at(
                    self.file,
                    line,
                    column,
                    format!(
                        "`{text}` is counted in {}, and the rows above in {}: export with \"Formatted data\" off",
                        new.name(),
                        held.name()
                    ),
                ));
            }
            (None, Some(held)) if !matches!(held, Unit::Count | Unit::Percent) && !is_zero => {
                return Err(Error::at(
                    self.file,
                    line,
                    column,
                    format!(
                        "`{text}` has no unit, and the rows above are counted in {}: export with \"Formatted data\" off",
                        held.name()
                    ),
                ));
            }
            _ => {}
        }
        Ok(measured.value)
    }
}

/// A header, and the metric's name in it where it is the text of labels.
fn names_of(header: &str) -> Vec<String> {
    let mut names = vec![header.to_owned()];
    if let Some(name) = header.split("__name__=\"").nth(1).and_then(|rest| rest.split('"').next()) {
        names.push(name.to_owned());
    } else if let Some((name, _)) = header.split_once('{').filter(|(name, _)| !name.is_empty()) {
        names.push(name.to_owned());
    }
    names
}
