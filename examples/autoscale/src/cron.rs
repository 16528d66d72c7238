//! KEDA's cron trigger: two schedules of five fields in a zone, read as the library reads them that KEDA uses
//! (`robfig/cron` v3).
//!
//! The trigger is open exactly if the next firing of `end` is not after the next firing of `start`. A reading of the clock that
//! a gap leaves out is no firing, and one that a fold shows twice is two.

use jiff::civil::{Date, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

use crate::finding::Finding;

/// A schedule: the readings of the clock at which it fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    minutes: u64,
    hours: u64,
    days: Field,
    months: u64,
    weekdays: Field,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Whether it is `*`, which leaves the choice of days to the other field.
    any: bool,
}

/// When a trigger is open.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) start: Schedule,
    pub(crate) end: Schedule,
    pub(crate) zone: TimeZone,
    pub(crate) zone_name: String,
    pub(crate) replicas: i64,
}

/// A stretch of time in which a trigger is open, in ms; the end is outside.
pub(crate) type Stretch = (u64, u64);

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// So many years ahead a firing is looked for.
const YEARS: i16 = 5;

impl Schedule {
    /// Reads five fields.
    ///
    /// # Errors
    /// The library's own words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        if text.starts_with('@') {
            return Err(format!("parser does not accept descriptors: {text}"));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        Ok(Self {
            minutes: field(minutes, (0, 59), &[])?.bits,
            hours: field(hours, (0, 23), &[])?.bits,
            days: field(days, (1, 31), &[])?,
            months: field(months, (1, 12), &MONTHS)?.bits,
            weekdays: field(weekdays, (0, 6), &WEEKDAYS)?,
            text: fields.join(" "),
        })
    }

    /// The text that it was read from.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn fires_on(&self, date: Date) -> bool {
        let month = u32::from(date.month().unsigned_abs());
        let day = self.days.bits >> date.day().unsigned_abs() & 1 == 1;
        let weekday = self.weekdays.bits >> weekday_of(date) & 1 == 1;
        let days = if self.days.any || self.weekdays.any { day && weekday } else { day || weekday };
        self.months >> month & 1 == 1 && days
    }

    /// On which days of the week it fires, Sunday first; `None` where days of the month have a say.
    pub(crate) fn weekdays(&self) -> Option<u64> {
        self.days.any.then_some(self.weekdays.bits & 0b111_1111)
    }

    /// The readings of the clock at which it fires on a day, in minutes after midnight.
    fn readings(&self) -> impl Iterator<Item = (i8, i8)> + '_ {
        let set = |bits: u64, until: i8| (0..until).filter(move |at| bits >> at & 1 == 1);
        set(self.hours, 24).flat_map(move |hour| set(self.minutes, 60).map(move |minute| (hour, minute)))
    }

    /// The first firing strictly after `after`; `None` where there is none in five years.
    pub(crate) fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let first = zone.to_datetime(after).date();
        let mut date = first;
        while date.year() - first.year() <= YEARS {
            if self.fires_on(date) {
                let mut best: Option<Timestamp> = None;
                for (hour, minute) in self.readings() {
                    let ambiguous = zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
                    let both = match ambiguous.offset() {
                        AmbiguousOffset::Unambiguous { .. } => [ambiguous.compatible().ok(), None],
                        AmbiguousOffset::Gap { .. } => [None, None],
                        AmbiguousOffset::Fold { .. } => [ambiguous.earlier().ok(), ambiguous.later().ok()],
                    };
                    for at in both.into_iter().flatten().filter(|at| *at > after) {
                        best = Some(best.map_or(at, |held| held.min(at)));
                    }
                }
                if best.is_some() {
                    return best;
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    /// The days of the year from `from` on at which it names a reading that a gap leaves out, or a fold shows twice.
    fn faults(&self, zone: &TimeZone, from: Date) -> Vec<Fault> {
        let mut faults = Vec::new();
        let days = (0..366).filter_map(|ahead: i32| from.checked_add(ahead.days()).ok());
        for date in days.filter(|date| self.fires_on(*date)) {
            for (hour, minute) in self.readings() {
                let at = date.at(hour, minute, 0, 0);
                match zone.to_ambiguous_timestamp(at).offset() {
                    AmbiguousOffset::Unambiguous { .. } => {}
                    AmbiguousOffset::Gap { .. } => faults.push(Fault { at, kind: FaultKind::Skipped }),
                    AmbiguousOffset::Fold { .. } => faults.push(Fault { at, kind: FaultKind::Twice }),
                }
            }
        }
        faults
    }
}

/// A reading of the clock that does not come, or comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault {
    at: jiff::civil::DateTime,
    kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Skipped,
    Twice,
}

fn weekday_of(date: Date) -> u32 {
    match date.weekday() {
        Weekday::Sunday => 0,
        Weekday::Monday => 1,
        Weekday::Tuesday => 2,
        Weekday::Wednesday => 3,
        Weekday::Thursday => 4,
        Weekday::Friday => 5,
        Weekday::Saturday => 6,
    }
}

/// A list of ranges with steps.
fn field(text: &str, bounds: (u32, u32), names: &[&str]) -> Result<Field, String> {
    let mut whole = Field { bits: 0, any: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let field = range(part, bounds, names)?;
        whole = Field { bits: whole.bits | field.bits, any: whole.any || field.any };
    }
    Ok(whole)
}

fn range(text: &str, (least, most): (u32, u32), names: &[&str]) -> Result<Field, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let single = ends.len() == 1;
    let mut any = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends[..] {
        _ if any => (least, most),
        [one] => (number(one, names)?, number(one, names)?),
        [from, until] => (number(from, names)?, number(until, names)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step, &[])?;
            if single {
                end = most;
            }
            any = any && step <= 1;
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let steps = (start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    Ok(Field { bits: steps.fold(0, |bits, at| bits | 1 << at), any })
}

/// A number, or a name that stands for one.
fn number(text: &str, names: &[&str]) -> Result<u32, String> {
    let first = u32::from(names.len() == 12);
    if let Some(at) = (first..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(at, _)| at) {
        return Ok(at);
    }
    match text.parse::<i64>() {
        Ok(value) if value < 0 => Err(format!("negative number ({value}) not allowed: {text}")),
        Ok(value) => u32::try_from(value).map_err(|_| format!("failed to parse int from {text}: out of range")),
        Err(_) => Err(format!("failed to parse int from {text}: invalid syntax")),
    }
}

impl Window {
    /// The stretches in which it is open between two instants, in ms.
    pub(crate) fn stretches(&self, from: u64, until: u64) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut at = from;
        while at < until {
            let Some(now) = instant(at) else { break };
            let start = self.start.next(&self.zone, now).map(millis);
            let end = self.end.next(&self.zone, now).map(millis);
            // A schedule that never fires again counts as long past: the library says so.
            let open = match (start, end) {
                (Some(start), Some(end)) => end <= start,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            let next = start.into_iter().chain(end).min().unwrap_or(until).min(until);
            if open {
                match stretches.last_mut().filter(|last| last.1 == at) {
                    Some(last) => last.1 = next,
                    None => stretches.push((at, next)),
                }
            }
            at = next.max(at + 1);
        }
        stretches
    }
}

impl Window {
    /// Firings that a clock which is put forward or back takes away or doubles in the year after `first`.
    pub(crate) fn faults(&self, first: Timestamp) -> Vec<Finding> {
        let from = self.zone.to_datetime(first).date();
        let mut findings = Vec::new();
        for (name, schedule) in [("start", &self.start), ("end", &self.end)] {
            for fault in schedule.faults(&self.zone, from).into_iter().take(MAX_FAULTS) {
                let (zone, at) = (&self.zone_name, fault.at.strftime("%Y-%m-%d %H:%M"));
                let text = match fault.kind {
                    FaultKind::Skipped => format!(
                        "cron in {zone}: {at} does not exist, since the clock is put forward: {name} does not fire, and the window before or after it changes"
                    ),
                    FaultKind::Twice => {
                        format!("cron in {zone}: {at} comes twice, since the clock is put back: {name} fires twice")
                    }
                };
                findings.push(Finding::warning(text));
            }
        }
        findings
    }
}

/// So many faults of a schedule are told of.
const MAX_FAULTS: usize = 4;

/// An instant of so many ms.
pub(crate) fn instant(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: &str, end: &str, zone: &str) -> Window {
        let zone_name = zone.to_owned();
        let zone = TimeZone::get(zone).unwrap();
        let (start, end) = (Schedule::parse(start).unwrap(), Schedule::parse(end).unwrap());
        Window { start, end, zone, zone_name, replicas: 1 }
    }

    fn open(window: &Window, from: &str, until: &str) -> Vec<(String, String)> {
        let ms = |text: &str| millis(text.parse().unwrap());
        let text = |at| instant(at).unwrap().to_string();
        window.stretches(ms(from), ms(until)).into_iter().map(|(from, until)| (text(from), text(until))).collect()
    }

    #[test]
    fn schedules_are_refused_in_the_words_of_the_library() {
        for (text, expected) in [
            ("07:00", "expected exactly 5 fields, found 1: [07:00]"),
            ("0 7 * *", "expected exactly 5 fields, found 4: [0 7 * *]"),
            ("0 7 * * 7", "end of range (7) above maximum (6): 7"),
            ("60 7 * * *", "end of range (60) above maximum (59): 60"),
            ("@daily", "parser does not accept descriptors: @daily"),
            ("0 7 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("0 9-7 * * *", "beginning of range (9) beyond end of range (7): 9-7"),
            ("0/0 7 * * *", "step of range should be a positive number: 0/0"),
            ("a 7 * * *", "failed to parse int from a: invalid syntax"),
            ("1-2-3 7 * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 7 * * *", "too many slashes: 1/2/3"),
            ("", "empty spec string"),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err(), expected, "{text}");
        }
        for text in ["*/15 0-6,22 1 JAN-mar MON-FRI", "5/10 ? ? * sun"] {
            assert!(Schedule::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_firing_in_a_gap_is_left_out_and_one_in_a_fold_comes_twice() {
        // The start of 29 March is left out, so that its day is open from 28 March on.
        let berlin = window("30 2 * * *", "0 4 * * *", "Europe/Berlin");
        assert_eq!(
            open(&berlin, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"),
            [
                ("2026-03-28T01:30:00Z".to_owned(), "2026-03-29T02:00:00Z".to_owned()),
                ("2026-03-30T00:30:00Z".to_owned(), "2026-03-30T02:00:00Z".to_owned())
            ]
        );
        // The end of 29 March is left out: from 22:00 on, the next start comes before the next end.
        let night = window("0 22 * * *", "30 2 * * *", "Europe/Berlin");
        assert_eq!(
            open(&night, "2026-03-27T12:00:00Z", "2026-03-30T03:00:00Z"),
            [
                ("2026-03-27T21:00:00Z".to_owned(), "2026-03-28T01:30:00Z".to_owned()),
                ("2026-03-29T20:00:00Z".to_owned(), "2026-03-30T00:30:00Z".to_owned())
            ]
        );
        let twice = window("30 2 * * *", "45 2 * * *", "Europe/Berlin");
        assert_eq!(open(&twice, "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z").len(), 2);
        let faults = berlin.start.faults(&berlin.zone, jiff::civil::date(2026, 1, 1));
        assert_eq!(faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::Skipped, FaultKind::Twice]);
    }

    #[test]
    fn a_start_on_weekdays_with_a_daily_end_is_open_over_the_weekend() {
        let window = window("30 6 * * 1-5", "10 22 * * *", "Etc/UTC");
        // Friday, 5 June 2026.
        assert_eq!(
            open(&window, "2026-06-05T00:00:00Z", "2026-06-09T00:00:00Z"),
            [
                ("2026-06-05T06:30:00Z".to_owned(), "2026-06-07T22:10:00Z".to_owned()),
                ("2026-06-08T06:30:00Z".to_owned(), "2026-06-08T22:10:00Z".to_owned())
            ]
        );
    }

    #[test]
    fn both_day_fields_restricted_mean_either() {
        let schedule = Schedule::parse("0 0 13 * 5").unwrap();
        let days: Vec<i8> = (1..=30).filter(|day| schedule.fires_on(jiff::civil::date(2026, 6, *day))).collect();
        assert_eq!(days, [5, 12, 13, 19, 26]);
    }
}
