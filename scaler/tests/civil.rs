//! Windows and points on the days on which clocks jump, in four zones, against a reference that reads the wall clock
//! minute by minute.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use jiff::civil::{Date, DateTime, Time, date, time};
use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan as _};
use support::{Dice, seeds};
use tenon_scaler::{Days, Point, Timestamp, Window, Zones};

const MINUTE: i64 = 60_000;

/// Days around which the clocks of a zone jump: an hour at night, half an hour, and at midnight itself.
fn jumps() -> Vec<(&'static str, Date)> {
    vec![
        ("Europe/Berlin", date(2026, 3, 29)),
        ("Europe/Berlin", date(2026, 10, 25)),
        ("America/New_York", date(2026, 3, 8)),
        ("America/New_York", date(2026, 11, 1)),
        ("Australia/Lord_Howe", date(2026, 10, 4)),
        ("Australia/Lord_Howe", date(2026, 4, 5)),
        ("America/Sao_Paulo", date(2018, 11, 4)),
        ("America/Sao_Paulo", date(2018, 2, 18)),
    ]
}

/// The wall clock, minute by minute, from three days before a date to four days after it.
struct Wall(Vec<(i64, DateTime)>);

impl Wall {
    fn around(zone: &TimeZone, day: Date) -> Self {
        let start = zone.to_timestamp(day.checked_sub(3.days()).unwrap().to_datetime(time(0, 0, 0, 0))).unwrap();
        let read = |at: i64| (at, zone.to_datetime(Instant::from_millisecond(at).unwrap()));
        Self((0..7 * 1440).map(|minute| read(start.as_millisecond() + minute * MINUTE)).collect())
    }

    /// The first minute at which the clock shows this or later: in a gap the change itself, in a fold the first pass.
    fn first(&self, at: DateTime) -> Option<i64> {
        self.0.iter().find(|(_, wall)| *wall >= at).map(|(at, _)| *at)
    }

    /// The last minute at which the clock shows this: in a fold the last pass, in a gap the change itself.
    fn last(&self, at: DateTime) -> Option<i64> {
        self.0.iter().rev().find(|(_, wall)| *wall == at).map(|(at, _)| *at).or_else(|| self.first(at))
    }

    fn dates(&self) -> Vec<Date> {
        let mut dates: Vec<Date> = self.0.iter().map(|(_, wall)| wall.date()).collect();
        dates.dedup();
        dates.sort_unstable();
        dates.dedup();
        // The first and last are cut off, and a window may end on the day after it began.
        dates[1..dates.len() - 2].to_vec()
    }
}

fn some_time(dice: &mut Dice) -> Time {
    let minute = dice.pick(&[0, 0, 15, 29, 30, 31, 45, 59]);
    time(dice.pick(&[0, 0, 1, 1, 2, 2, 3, 23]), minute, 0, 0)
}

fn instant(at: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(at).unwrap())
}

fn zone_and_wall(dice: &mut Dice) -> (TimeZone, tenon_scaler::ZoneId, Wall) {
    let (name, day) = dice.pick(&jumps());
    let mut zones = Zones::new();
    let id = zones.bundled(name).unwrap();
    let zone = zones.get(id).unwrap().clone();
    let wall = Wall::around(&zone, day);
    (zone, id, wall)
}

#[test]
fn windows_stand_as_a_wall_clock_shows_them() {
    seeds(60, |seed| {
        let mut dice = Dice(seed);
        let (zone, id, wall) = zone_and_wall(&mut dice);
        let lead_ms = dice.pick(&[0, 0, 300_000, 3_600_000]);
        let window =
            Window { zone: id, days: Days::Every, from: some_time(&mut dice), until: some_time(&mut dice), lead_ms };
        let mut spans = vec![];
        for day in wall.dates() {
            let end = if window.until > window.from { day } else { day.tomorrow().unwrap() };
            let from = wall.first(day.to_datetime(window.from)).unwrap();
            let until = wall.last(end.to_datetime(window.until)).unwrap();
            if from < until {
                spans.push((from - i64::try_from(lead_ms).unwrap(), until));
            }
        }
        let inside = |at: i64| spans.iter().any(|(from, until)| *from <= at && at < *until);
        // The middle days: what began before the first of the dates is not known here.
        let middle: Vec<i64> = wall.0[2 * 1440..4 * 1440].iter().map(|(at, _)| *at).collect();
        for pair in middle.windows(2) {
            let standing = window.standing(&zone, instant(pair[0]));
            assert_eq!(standing.inside, inside(pair[0]), "{window:?} at {}", wall_of(&zone, pair[0]));
            let until = i64::try_from(standing.until.as_millis()).unwrap();
            assert!(until > pair[0], "it says when to look again");
            if inside(pair[0]) != inside(pair[1]) {
                assert_eq!(until, pair[1], "{window:?} at {}: the edge is to the minute", wall_of(&zone, pair[0]));
            }
            assert!(
                !middle.contains(&until) || until == pair[1] || inside(until - MINUTE) == inside(pair[0]),
                "{window:?} at {}: nothing changes before {}",
                wall_of(&zone, pair[0]),
                wall_of(&zone, until)
            );
        }
    });
}

#[test]
fn points_fall_as_a_wall_clock_shows_them() {
    seeds(60, |seed| {
        let mut dice = Dice(seed);
        let (zone, id, wall) = zone_and_wall(&mut dice);
        let lead_ms = dice.pick(&[0, 0, 300_000]);
        let point = Point { zone: id, days: Days::Every, at: some_time(&mut dice), lead_ms };
        let falls: Vec<i64> = wall
            .dates()
            .into_iter()
            .map(|day| wall.first(day.to_datetime(point.at)).unwrap() - i64::try_from(lead_ms).unwrap())
            .collect();
        for (at, _) in &wall.0[2 * 1440..3 * 1440 + 720] {
            let next = point.next_after(&zone, instant(*at)).map(|at| i64::try_from(at.as_millis()).unwrap());
            let expected = falls.iter().copied().find(|fall| fall > at);
            assert_eq!(next, expected, "{point:?} after {}", wall_of(&zone, *at));
        }
    });
}

fn wall_of(zone: &TimeZone, at: i64) -> DateTime {
    zone.to_datetime(Instant::from_millisecond(at).unwrap())
}
