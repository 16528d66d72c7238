//! Schedules: when they fire, through changes of the clocks, and what becomes of what was missed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tenon_jobqueue::Timestamp;
use tenon_jobqueue::schedule::{Missed, Schedule, next_after};
use tenon_jobqueue::trigger::{Civil, Cron};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

/// What clocks show that are so many minutes ahead of 1970-01-01 00:00, a Thursday; within January and February.
fn shown(minutes: u64) -> Civil {
    let small = |number: u64| u8::try_from(number).unwrap();
    let days = minutes / 1_440;
    let (month, day) = if days < 31 { (1, days + 1) } else { (2, days - 30) };
    let (hour, minute) = (small(minutes / 60 % 24), small(minutes % 60));
    Civil { minute, hour, day: small(day.min(28)), month, weekday: small((days + 4) % 7) }
}

fn utc(at: Timestamp) -> Civil {
    shown(at.as_millis() / MINUTE)
}

/// Clocks that go forward by so many minutes on day 9 at this minute of the day, and back on day 19 at this one.
fn clocks(by: u64, forward: u64, back: u64) -> impl Fn(Timestamp) -> Civil {
    move |at| {
        let minutes = at.as_millis() / MINUTE;
        let summer = (9 * 1_440 + forward..19 * 1_440 + back - by).contains(&minutes);
        shown(minutes + if summer { by } else { 0 })
    }
}

fn minute(number: u64) -> Timestamp {
    Timestamp::from_millis(number * MINUTE)
}

/// Every firing within four weeks.
fn firings(cron: &str, clocks: &impl Fn(Timestamp) -> Civil) -> Vec<u64> {
    let cron = Cron::new(cron).unwrap();
    let (mut at, mut all) = (Timestamp::ZERO, Vec::new());
    while let Some(next) = next_after(&cron, at, clocks).filter(|next| next.as_millis() < 28 * DAY) {
        assert!(next > at);
        all.push(next.as_millis() / MINUTE);
        at = next;
    }
    all
}

#[test]
fn it_fires_in_each_minute_that_it_names_and_in_no_other() {
    for cron in ["0 * * * *", "*/7 3-5 * * *", "30 2 * * 1", "0 0 13 * 5", "59 23 31 1 *", "* * * * *"] {
        let parsed = Cron::new(cron).unwrap();
        let named: Vec<u64> = (1..28 * 1_440).filter(|at| parsed.matches(&shown(*at))).collect();
        assert_eq!(firings(cron, &utc), named, "{cron}");
    }
}

#[test]
fn a_fixed_hour_fires_once_a_day_whatever_the_clocks_do() {
    // Changes at two o'clock, at midnight, and of half an hour.
    for (by, forward, back) in [(60, 120, 180), (60, 0, 60), (60, 23 * 60 + 30, 1_440), (30, 120, 150), (120, 60, 180)]
    {
        let clocks = clocks(by, forward, back);
        for at in (0..1_440).step_by(65) {
            let cron = format!("{} {} * * *", at % 60, at / 60);
            let all = firings(&cron, &clocks);
            let mut days: Vec<u64> = all.iter().map(|at| at / 1_440).collect();
            days.dedup();
            let first = usize::from(at == 0);
            assert!(
                all.len() >= 28 - first - 1 && all.len() <= 28,
                "{cron} by {by} at {forward}: {} firings",
                all.len()
            );
            for pair in all.windows(2) {
                let apart = pair[1] - pair[0];
                assert!((1_440 - by..=1_440 + by).contains(&apart), "{cron} by {by} at {forward}: {pair:?}");
            }
        }
    }
}

#[test]
fn what_the_clocks_skip_fires_right_after_the_gap_and_what_they_repeat_the_first_time() {
    let clocks = clocks(60, 120, 180);
    let fires = firings("30 2 * * *", &clocks);
    // On day 9 there is no 02:30: at 03:00, which is minute 120. On day 19, 02:30 comes at minute 90 and again at 150.
    assert!(fires.contains(&(9 * 1_440 + 120)), "{fires:?}");
    assert!(fires.contains(&(19 * 1_440 + 90)) && !fires.contains(&(19 * 1_440 + 150)), "{fires:?}");
    assert!(fires.contains(&(8 * 1_440 + 150)) && fires.contains(&(10 * 1_440 + 90)), "{fires:?}");
}

#[test]
fn every_hour_is_every_hour_of_time_that_passes() {
    let fires = firings("0 * * * *", &clocks(60, 120, 180));
    assert_eq!(fires, (1..28 * 24).map(|hour| hour * 60).collect::<Vec<_>>());
}

#[test]
fn a_start_within_the_repeated_hour_does_not_repeat_it() {
    let clocks = clocks(60, 120, 180);
    let cron = Cron::new("30 2 * * *").unwrap();
    // Day 19: minutes 120 to 179 show two o'clock for the second time.
    for at in 90..180 {
        let next = next_after(&cron, minute(19 * 1_440 + at), &clocks).unwrap();
        assert_eq!(next, minute(20 * 1_440 + 150), "after minute {at}");
    }
}

#[test]
fn what_was_missed_is_skipped_made_up_for_once_or_made_up_for_whole() {
    let cron = Cron::new("0 * * * *").unwrap();
    let hour = |hour: u64| minute(hour * 60);
    let run = |missed, now: Timestamp| {
        let (mut schedule, mut fired, mut passed) = (Schedule::new(&cron, missed, hour(0), utc), Vec::new(), 0);
        assert_eq!(schedule.decide(&cron, hour(1).after_millis(0).min(minute(59)), utc), None, "not before it is due");
        while let Some(decision) = schedule.decide(&cron, now, utc) {
            assert!(decision.schedule.last > schedule.last && decision.schedule.next > schedule.next, "it moves");
            fired.extend(decision.fire.map(|at| at.as_millis() / (60 * MINUTE)));
            passed += decision.missed;
            schedule = decision.schedule;
        }
        assert_eq!(schedule.next, Some(hour(6)));
        (fired, passed)
    };
    let (punctual, late) = (hour(5).after_millis(Schedule::LATE_MS - 1), hour(5).after_millis(Schedule::LATE_MS));
    assert_eq!(run(Missed::Skip, punctual), (vec![5], 4));
    assert_eq!(run(Missed::Skip, late), (vec![], 5));
    assert_eq!(run(Missed::Once, late), (vec![5], 4));
    assert_eq!(run(Missed::All, late), (vec![1, 2, 3, 4, 5], 0));
}

#[test]
fn a_day_that_never_comes_is_not_waited_for_and_years_are_passed_over() {
    let never = Cron::new("0 0 30 2 *").unwrap();
    let clocks = |at: Timestamp| Civil { day: 1, month: 2, weekday: 1, ..shown(at.as_millis() / MINUTE % 1_440) };
    assert_eq!(next_after(&never, Timestamp::ZERO, &clocks), None);
    assert_eq!(next_after(&never, Timestamp::MAX, &clocks), None);
    let schedule = Schedule::new(&never, Missed::All, Timestamp::ZERO, clocks);
    assert_eq!(schedule.decide(&never, Timestamp::MAX, clocks), None);
    // Twenty years of minutes are more than are counted.
    let minutely = Cron::new("* * * * *").unwrap();
    let clocks = |at: Timestamp| shown(at.as_millis() / MINUTE % 1_440);
    let schedule = Schedule::new(&minutely, Missed::Once, Timestamp::ZERO, clocks);
    let now = Timestamp::from_millis(20 * 365 * DAY);
    let decision = schedule.decide(&minutely, now, clocks).unwrap();
    assert_eq!((decision.fire, decision.schedule.next), (Some(now), Some(now.after_millis(MINUTE))));
    assert!(decision.missed > 100_000);
}

#[test]
fn numbers_of_the_policies_stay() {
    for missed in [Missed::Skip, Missed::Once, Missed::All] {
        assert_eq!(Missed::from_code(missed.code()), Some(missed));
    }
    assert_eq!((Missed::from_code(3), Missed::All.code()), (None, 2));
}
