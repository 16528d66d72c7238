//! Portraits: when a service is busy, whether that recurs, and whether the service suits elastic scaling.
//!
//! All from its load alone, and three things that only its owner knows: whether it keeps state, how many instances it has,
//! and how long one takes to serve. Every judgement carries the number that it follows from.

use alloc::vec::Vec;

use jiff::tz::TimeZone;

use crate::Timestamp;
use crate::forecast::Series;
use crate::num::Milli;

/// The state that an instance keeps, which says whether it can go without a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Keeps {
    /// Nothing.
    Nothing,
    /// State that can be rebuilt, such as caches and connections. A new instance has to warm up.
    Cache,
    /// State that would be lost.
    State,
}

/// Facts about a service that only its owner knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The state that an instance keeps.
    pub keeps: Keeps,
    /// The number of instances.
    pub instances: u32,
    /// The size of an instance: CPU, in thousandths of a core.
    pub cpu_milli: u32,
    /// The time that an instance takes to serve, in ms.
    pub start_ms: u64,
}

/// A stretch of the usual day that is above or below the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stretch {
    /// The start of the stretch, in minutes after midnight.
    pub from_minute: u16,
    /// The end of the stretch, in minutes after midnight; smaller than its start if it runs past midnight.
    pub until_minute: u16,
    /// The load at its extreme.
    pub extreme: Milli,
}

/// A trait of a service, for or against elastic scaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Trait {
    /// Stateful: an instance keeps state that would be lost.
    Stateful,
    /// Warms up: a new instance has to rebuild its caches.
    WarmsUp,
    /// Few: the service has this many instances, too few to miss one.
    Few(u32),
    /// Uneven: the usual peak is this many thousandths of the usual valley, so there is something to save.
    Uneven(u32),
    /// Even: the usual peak is this many thousandths of the usual valley, so there is little to save.
    Even(u32),
    /// Daily: the load resembles the day before. Timed rules can know it.
    ///
    /// This many thousandths of its variation recur.
    Daily(i32),
    /// Weekly: the load resembles the week before, more than the day before.
    ///
    /// This many thousandths of its variation recur.
    Weekly(i32),
    /// Irregular: the load resembles neither the day nor the week before, so metric rules have to see it.
    ///
    /// The number is the larger of the two recurrences, in thousandths.
    Irregular(i32),
    /// Sudden: the fastest usual growth within the start of an instance, in thousandths of the peak. A metric rule
    /// comes late.
    Sudden(u32),
    /// Large: an instance takes more than a quarter of a large host, and is hard to place. The number is its CPU in
    /// thousandths of a core.
    Large(u32),
    /// Holes: this many thousandths of the history are missing.
    Holes(u32),
}

impl Trait {
    /// The stable number of the trait, the same in every version.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Stateful => 300,
            Self::WarmsUp => 301,
            Self::Few(_) => 302,
            Self::Uneven(_) => 310,
            Self::Even(_) => 311,
            Self::Daily(_) => 320,
            Self::Weekly(_) => 321,
            Self::Irregular(_) => 322,
            Self::Sudden(_) => 323,
            Self::Large(_) => 330,
            Self::Holes(_) => 340,
        }
    }

    /// How much it speaks for the service, or against it.
    const fn weight(self) -> i32 {
        match self {
            Self::Stateful => -100,
            Self::Few(_) | Self::Even(_) => -50,
            Self::Holes(_) => -30,
            Self::WarmsUp | Self::Sudden(_) | Self::Large(_) | Self::Irregular(_) => -10,
            Self::Uneven(_) => 40,
            Self::Daily(_) | Self::Weekly(_) => 30,
        }
    }
}

/// The suitability of a service for elastic scaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Suitability {
    /// Not suitable.
    No,
    /// Suitable with the care that its traits ask for.
    WithCare,
    /// Suitable.
    Yes,
}

/// The portrait of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub struct Portrait {
    /// The median load of each hour of the day.
    pub day: [Option<Milli>; 24],
    /// The median over its days of each weekday's highest load; Monday first.
    pub week: [Option<Milli>; 7],
    /// The peaks: stretches in which the usual day is in the upper quarter between its lowest and highest hour.
    pub peaks: Vec<Stretch>,
    /// The valleys: stretches in which the usual day is in the lower quarter.
    pub valleys: Vec<Stretch>,
    /// The part of the variation that recurs after a day, in thousandths: 1000 for all, 0 for none; `None` if unknown.
    pub daily_permille: Option<i32>,
    /// The part of the variation that recurs after a week, in thousandths; `None` if unknown.
    pub weekly_permille: Option<i32>,
    /// The traits of the service, with their numbers.
    pub traits: Vec<Trait>,
    /// The suitability for elastic scaling.
    pub suitability: Suitability,
}

/// The maximum number of instances of a service that cannot miss one.
const FEW: u32 = 3;
/// The peak over the valley from which there is something to save, in thousandths.
const UNEVEN_PERMILLE: u32 = 1_300;
/// The part of the variation that has to recur for a rhythm, in thousandths.
const RHYTHM_PERMILLE: i32 = 500;
/// The growth within the start of an instance that is sudden, in thousandths of the peak.
const SUDDEN_PERMILLE: u32 = 200;
/// A quarter of a host of sixty-four cores.
const LARGE_CPU_MILLI: u32 = 16_000;

impl Portrait {
    /// The portrait of a service, from its load by the wall clock of `zone`.
    pub fn new(history: &Series, service: &Service, zone: &TimeZone) -> Self {
        let (day, week) = profiles(history, zone);
        let (lowest, highest) = (day.iter().flatten().min().copied(), day.iter().flatten().max().copied());
        let mut portrait = Self {
            day,
            week,
            peaks: Vec::new(),
            valleys: Vec::new(),
            daily_permille: autocorrelation(history, history.day()),
            weekly_permille: autocorrelation(history, history.day() * 7),
            traits: Vec::new(),
            suitability: Suitability::No,
        };
        if let (Some(lowest), Some(highest)) = (lowest, highest) {
            let span = i128::from(highest.as_thousandths()) - i128::from(lowest.as_thousandths());
            let above = |quarters: i128| i128::from(lowest.as_thousandths()) + span * quarters / 4;
            let (high, low) = (above(3), above(1));
            if span > 0 {
                portrait.peaks = stretches(&portrait.day, |load| load >= high, Milli::max);
                portrait.valleys = stretches(&portrait.day, |load| load <= low, Milli::min);
            }
            let ratio = ratio_permille(highest.at_least_zero(), lowest.at_least_zero());
            portrait.traits.push(if ratio >= UNEVEN_PERMILLE { Trait::Uneven(ratio) } else { Trait::Even(ratio) });
        }
        portrait.judge(history, service);
        portrait
    }

    fn judge(&mut self, history: &Series, service: &Service) {
        let Self { traits, daily_permille, weekly_permille, .. } = self;
        match service.keeps {
            Keeps::Nothing => {}
            Keeps::Cache => traits.push(Trait::WarmsUp),
            Keeps::State => traits.push(Trait::Stateful),
        }
        if service.instances < FEW {
            traits.push(Trait::Few(service.instances));
        }
        match (*daily_permille, *weekly_permille) {
            (Some(day), week) if day >= RHYTHM_PERMILLE && week.is_none_or(|week| day >= week) => {
                traits.push(Trait::Daily(day));
            }
            (_, Some(week)) if week >= RHYTHM_PERMILLE => traits.push(Trait::Weekly(week)),
            (Some(day), _) => traits.push(Trait::Irregular(day)),
            (None, _) => {}
        }
        let sudden = growth_permille(history, service.start_ms);
        if sudden >= SUDDEN_PERMILLE {
            traits.push(Trait::Sudden(sudden));
        }
        if service.cpu_milli > LARGE_CPU_MILLI {
            traits.push(Trait::Large(service.cpu_milli));
        }
        let holes = (0..history.len()).filter(|place| history.value(*place).is_none()).count();
        let holes = ratio_permille(holes as u64, history.len().max(1) as u64);
        if holes >= 100 {
            traits.push(Trait::Holes(holes));
        }
        let sum: i32 = traits.iter().map(|held| held.weight()).sum();
        let reserve = traits.iter().any(|held| held.weight() < 0);
        self.suitability = match sum {
            ..=0 => Suitability::No,
            _ if reserve => Suitability::WithCare,
            _ => Suitability::Yes,
        };
    }
}

fn ratio_permille(of: u64, to: u64) -> u32 {
    crate::num::mul_div_ceil(of, 1000, to)
}

fn median(values: &mut [i64]) -> Option<Milli> {
    values.sort_unstable();
    values.get(values.len() / 2).copied().map(Milli::from_thousandths)
}

/// The median of each hour of the day, and of the highest load of each day of the week.
fn profiles(history: &Series, zone: &TimeZone) -> ([Option<Milli>; 24], [Option<Milli>; 7]) {
    let mut hours: [Vec<i64>; 24] = Default::default();
    let mut days: [Vec<i64>; 7] = Default::default();
    let mut last = None;
    for place in 0..history.len() {
        let Some(load) = history.value(place).map(Milli::as_thousandths) else { continue };
        let Some((date, hour)) = civil(history.instant(place), zone) else { continue };
        if let Some(hour) = usize::try_from(hour).ok().and_then(|hour| hours.get_mut(hour)) {
            hour.push(load);
        }
        let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0).min(6);
        match days[weekday].last_mut().filter(|_| last == Some(date)) {
            Some(most) => *most = load.max(*most),
            None => days[weekday].push(load),
        }
        last = Some(date);
    }
    (hours.map(|mut loads| median(&mut loads)), days.map(|mut loads| median(&mut loads)))
}

fn civil(at: Timestamp, zone: &TimeZone) -> Option<(jiff::civil::Date, i8)> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.as_millis()).ok()?).ok()?;
    let civil = zone.to_datetime(at);
    Some((civil.date(), civil.hour()))
}

/// The stretches of hours for which `holds`, with their extreme; one that runs past midnight is one.
fn stretches(
    day: &[Option<Milli>; 24],
    holds: impl Fn(i128) -> bool,
    extreme: impl Fn(Milli, Milli) -> Milli,
) -> Vec<Stretch> {
    let inside = |hour: usize| day[hour % 24].filter(|load| holds(i128::from(load.as_thousandths())));
    let mut found = Vec::new();
    for from in (0..24).filter(|hour| inside(*hour).is_some() && inside(hour + 23).is_none()) {
        let length = (0..24).take_while(|ahead| inside(from + ahead).is_some()).count();
        let most = (from..from + length).filter_map(inside).reduce(&extreme).unwrap_or(Milli::ZERO);
        let minute = |hour: usize| u16::try_from(hour % 24 * 60).unwrap_or(0);
        found.push(Stretch { from_minute: minute(from), until_minute: minute(from + length), extreme: most });
    }
    found
}

/// How much of the variation comes back after `lag` values, in thousandths; over the pairs that are both known.
fn autocorrelation(history: &Series, lag: usize) -> Option<i32> {
    let known = |place: usize| history.value(place).map(|load| i128::from(load.as_thousandths()));
    let pairs = || (lag..history.len()).filter_map(|place| Some((known(place - lag)?, known(place)?)));
    let count = i128::try_from(pairs().count()).ok()?;
    if count < 2 {
        return None;
    }
    let (sum_before, sum_after) = pairs().fold((0, 0), |sums, (before, after)| (sums.0 + before, sums.1 + after));
    let (mean_before, mean_after) = (sum_before / count, sum_after / count);
    // Deviations are scaled down so that products of any loads still add up.
    let widest = pairs().map(|(before, after)| (before - mean_before).abs().max((after - mean_after).abs())).max()?;
    let scale = widest / 1_000_000 + 1;
    let (mut both, mut of_before, mut of_after) = (0_i128, 0_i128, 0_i128);
    for (before, after) in pairs() {
        let (before, after) = ((before - mean_before) / scale, (after - mean_after) / scale);
        both += before * after;
        of_before += before * before;
        of_after += after * after;
    }
    let spread = of_before.unsigned_abs().isqrt() * of_after.unsigned_abs().isqrt();
    if spread == 0 {
        return None;
    }
    i32::try_from(both * 1000 / i128::try_from(spread).ok()?).ok()
}

/// The growth within `start_ms` that one day in ten sees, in thousandths of the highest load.
fn growth_permille(history: &Series, start_ms: u64) -> u32 {
    let ahead = usize::try_from(start_ms.div_ceil(history.step_ms().max(1))).unwrap_or(usize::MAX).max(1);
    let load = |place: usize| history.value(place).map(Milli::at_least_zero);
    let growth = |place: usize| Some(load(place.checked_add(ahead)?)?.saturating_sub(load(place)?));
    let day = history.day().max(1);
    let mut fastest: Vec<u64> = (0..history.len())
        .step_by(day)
        .filter_map(|from| (from..(from + day).min(history.len())).filter_map(growth).max())
        .collect();
    fastest.sort_unstable();
    let often = fastest.get(fastest.len() * 9 / 10).copied().unwrap_or(0);
    let highest = (0..history.len()).filter_map(load).max().unwrap_or(0);
    if highest == 0 { 0 } else { ratio_permille(often, highest) }
}
