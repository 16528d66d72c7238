//! The profile of a usual week, and the few floors that cover it.

use alloc::vec::Vec;
use core::ops::Range;

use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::forecast::Series;
use crate::num::Milli;

/// A day is looked at in half hours.
const SLOTS: usize = 48;
/// Days that are alike share their floors: so many kinds of days at most.
const KINDS: usize = 4;
/// The number of floors for each kind of day.
const FLOORS: usize = 7;

/// For each place in a history: the day of its week (0 is Monday) and the half hour of its day, by the wall clock.
pub(super) struct Calendar(Vec<(u8, u8)>);

impl Calendar {
    pub(super) fn new(history: &Series, zone: &TimeZone) -> Self {
        let of = |place: usize| {
            let at = i64::try_from(history.instant(place).as_millis()).ok();
            let at =
                at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            let civil = zone.to_datetime(at);
            let weekday = civil.date().weekday().to_monday_zero_offset();
            let half_hour = civil.hour() * 2 + civil.minute() / 30;
            (u8::try_from(weekday).unwrap_or(0), u8::try_from(half_hour).unwrap_or(0))
        };
        Self((0..history.len()).map(of).collect())
    }
}

/// A floor over a part of some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Bit 0 is Monday.
    pub(super) days: u8,
    pub(super) from: Time,
    pub(super) until: Time,
    /// The load that it covers.
    pub(super) load: Milli,
}

/// The floors that cover what the days of a week usually hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Timetable(pub(super) Vec<Step>);

type Day = [u64; SLOTS];

impl Timetable {
    /// Made from `range`, without what is `left_out`.
    pub(super) fn new(
        history: &Series,
        calendar: &Calendar,
        range: Range<usize>,
        left_out: Option<&Range<usize>>,
    ) -> Self {
        let days = usual_days(history, calendar, range, left_out);
        let mut steps = Vec::new();
        for (bits, day) in kinds(&days) {
            for slots in cover(&day) {
                let load = day[slots.clone()].iter().copied().max().unwrap_or(0);
                if load > 0 {
                    let load = Milli::from_thousandths(i64::try_from(load).unwrap_or(i64::MAX));
                    steps.push(Step { days: bits, from: clock(slots.start), until: clock(slots.end), load });
                }
            }
        }
        Self(steps)
    }
}

/// The wall-clock time at which a half hour begins; after the last one, midnight.
fn clock(slot: usize) -> Time {
    let slot = i8::try_from(slot % SLOTS).unwrap_or(0);
    Time::new(slot / 2, slot % 2 * 30, 0, 0).unwrap_or(Time::MIN)
}

/// For each day of the week and half hour, the median over the weeks of the largest load in it.
fn usual_days(history: &Series, calendar: &Calendar, range: Range<usize>, left_out: Option<&Range<usize>>) -> [Day; 7] {
    let mut seen: Vec<Vec<u64>> = alloc::vec![Vec::new(); 7 * SLOTS];
    let mut last = None;
    for place in range {
        let (weekday, half_hour) = calendar.0[place];
        let slot = usize::from(weekday) * SLOTS + usize::from(half_hour);
        let Some(load) = history.value(place).filter(|_| left_out.is_none_or(|out| !out.contains(&place))) else {
            last = None;
            continue;
        };
        let load = load.at_least_zero();
        match seen[slot].last_mut().filter(|_| last == Some(slot)) {
            Some(most) => *most = load.max(*most),
            None => seen[slot].push(load),
        }
        last = Some(slot);
    }
    let mut days = [[0; SLOTS]; 7];
    for (slot, mut loads) in seen.into_iter().enumerate() {
        loads.sort_unstable();
        // The upper of the two in the middle: a floor too high costs a little, one too low is short every week.
        days[slot / SLOTS][slot % SLOTS] = loads.get(loads.len() / 2).copied().unwrap_or(0);
    }
    days
}

/// Puts the days of the week together that are most alike, until few kinds are left: which days, and what covers them.
fn kinds(days: &[Day; 7]) -> Vec<(u8, Day)> {
    let mut kinds: Vec<(u8, Day)> = days.iter().zip(0..).map(|(day, bit)| (1 << bit, *day)).collect();
    while kinds.len() > KINDS {
        let mut closest = (u128::MAX, 0, 1);
        for one in 0..kinds.len() {
            for other in one + 1..kinds.len() {
                let apart = kinds[one].1.iter().zip(&kinds[other].1).map(|(a, b)| u128::from(a.abs_diff(*b))).sum();
                closest = closest.min((apart, one, other));
            }
        }
        let (_, one, other) = closest;
        let (bits, day) = kinds.remove(other);
        kinds[one].0 |= bits;
        for (most, load) in kinds[one].1.iter_mut().zip(day) {
            *most = load.max(*most);
        }
    }
    kinds
}

/// The cheapest cover of a day by a few floors, each as high as its highest half hour (by dynamic programming).
fn cover(day: &Day) -> Vec<Range<usize>> {
    // The least cost of the first `end` half hours, and where its last floor begins; a row for each count of floors.
    let mut rows: Vec<[(u128, usize); SLOTS + 1]> = alloc::vec![[(u128::MAX, 0); SLOTS + 1]];
    rows[0][0].0 = 0;
    for floors in 1..=FLOORS {
        let mut row = [(u128::MAX, 0); SLOTS + 1];
        for (end, least) in row.iter_mut().enumerate().skip(1) {
            let mut most = 0;
            for from in (0..end).rev() {
                most = day[from].max(most);
                let before = rows[floors - 1][from].0;
                let cost = before.saturating_add(u128::from(most) * (end - from) as u128);
                *least = (cost, from).min(*least);
            }
        }
        rows.push(row);
    }
    let count = (1..=FLOORS).min_by_key(|floors| (rows[*floors][SLOTS].0, *floors)).unwrap_or(1);
    let mut parts = Vec::new();
    let mut end = SLOTS;
    for floors in (1..=count).rev() {
        let from = rows[floors][end].1;
        parts.push(from..end);
        end = from;
    }
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_covered_as_cheaply_as_so_many_floors_can() {
        let mut day = [10; SLOTS];
        day[18..24].fill(90);
        day[40..42].fill(50);
        assert_eq!(cover(&day), [0..18, 18..24, 24..40, 40..42, 42..48]);
        let ramp: Day = core::array::from_fn(|slot| slot as u64);
        let parts = cover(&ramp);
        assert_eq!((parts.len(), parts[0].start, parts[6].end), (FLOORS, 0, SLOTS));
        assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
    }

    #[test]
    fn days_that_are_alike_share_a_kind() {
        let mut days = [[100; SLOTS]; 7];
        days[5] = [40; SLOTS];
        days[6] = [30; SLOTS];
        days[4] = [101; SLOTS];
        let kinds: Vec<u8> = kinds(&days).into_iter().map(|(bits, _)| bits).collect();
        assert_eq!(kinds, [0b000_1111, 0b001_0000, 0b010_0000, 0b100_0000]);
    }
}
