//! Nowcasts: a forecast of the day's next steps, corrected by its latest measurement.
//!
//! A forecast is made from past days. Within the day, what the newest measurement was off by is the best news there is
//! about the next ones: a fixed share of it is carried over. Which share, and whether as a factor or as an amount, is
//! chosen by backtest, as the model was; "nothing of it" is among the choices, so that a correction was never worse than
//! none on the days that it was chosen on. How far the corrected values were off, hour of the day by hour of the day,
//! gives the band: the small hours after a night out are harder to foresee than a Tuesday noon.

use alloc::vec::Vec;

use super::{Forecast, ForecastError, Learned, predict};
use crate::Timestamp;
use crate::num::Milli;

/// The correction that a measurement makes to a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Carry {
    /// This many thousandths of the factor by which the forecast was off.
    Factor(u16),
    /// This many thousandths of the amount by which the forecast was off.
    Amount(u16),
}

impl Carry {
    /// The corrections that a backtest chooses from. No correction is the first, so that another must be better to be
    /// chosen.
    const CHOICES: [Self; 11] = [
        Self::Amount(0),
        Self::Amount(200),
        Self::Amount(400),
        Self::Amount(600),
        Self::Amount(800),
        Self::Amount(1000),
        Self::Factor(200),
        Self::Factor(400),
        Self::Factor(600),
        Self::Factor(800),
        Self::Factor(1000),
    ];

    fn correct(self, foreseen: i64, seen: &Seen) -> i64 {
        let off = i128::from(seen.came) - i128::from(seen.foreseen);
        let (foreseen, share) = match self {
            Self::Amount(share) => (i128::from(foreseen), off * i128::from(share) / 1000),
            Self::Factor(share) => {
                // A forecast of next to nothing that was off by much is no factor to go by.
                let base = i128::from(seen.foreseen.max(1));
                let factor = off.clamp(-base, base * MOST_GROWTH) * MILLION / base;
                (i128::from(foreseen), i128::from(foreseen) * factor * i128::from(share) / (MILLION * 1000))
            }
        };
        i64::try_from((foreseen + share).max(0)).unwrap_or(i64::MAX)
    }
}

/// A factor carries over at most so many times what was forecast.
const MOST_GROWTH: i128 = 4;

/// The hours of a day, each with a spread of its own.
const HOURS: usize = 24;

/// A past instant at which a value was forecast: the actual value, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Seen {
    came: i64,
    foreseen: i64,
}

/// A correction of a [`Forecast`] by a measurement that is a given number of steps old, with its error.
///
/// It is fitted once, on the past; the forecast that it corrects may learn of later days by [`Forecast::extend`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Nowcast {
    carry: Carry,
    /// The mean size of a deviation in each hour, in millionths of what was expected; at least 1.
    spread: Vec<i64>,
    /// Every deviation in thousandths of its hour's spread, in order.
    deviations: Vec<i64>,
}

const MILLION: i128 = 1_000_000;

impl Nowcast {
    /// Fits a correction on the last `days` days of a forecast's history.
    ///
    /// It is for values that lie `steps` steps of the history after the newest measurement.
    ///
    /// # Errors
    /// [`ForecastError::TooShort`] where there is less than a week before those days, [`ForecastError::Empty`] where none
    /// of them has two values so far apart.
    pub fn fit(forecast: &Forecast, steps: usize, days: usize) -> Result<Self, ForecastError> {
        let series = &forecast.series;
        let (day, end) = (series.day(), series.values.len());
        let first = day.checked_mul(days).and_then(|span| end.checked_sub(span));
        let first = first.filter(|first| *first >= day * 7 && *first < end).ok_or(ForecastError::TooShort)?;
        let mut past: Vec<Option<Seen>> = Vec::with_capacity(end - first);
        for origin in (first..end).step_by(day) {
            let learned = Learned::of(series, forecast.model, origin);
            past.extend((origin..(origin + day).min(end)).map(|place| {
                let foreseen = predict(series, forecast.model, place, origin, &learned)?;
                Some(Seen { came: series.known(place, end)?, foreseen })
            }));
        }
        let pairs: Vec<(usize, Seen, Seen)> = (steps..past.len())
            .filter_map(|at| Some((series.hour(first + at), past[at]?, past[at - steps]?)))
            .collect();
        let error = |carry: &Carry| -> u128 {
            pairs.iter().map(|(_, here, seen)| u128::from(here.came.abs_diff(carry.correct(here.foreseen, seen)))).sum()
        };
        let carry = Carry::CHOICES.iter().copied().min_by_key(error).filter(|_| !pairs.is_empty());
        let carry = carry.ok_or(ForecastError::Empty)?;
        let off: Vec<(usize, i64)> = pairs
            .iter()
            .map(|(hour, here, seen)| (*hour, deviation(here.came, carry.correct(here.foreseen, seen))))
            .collect();
        let spread: Vec<i64> = (0..HOURS).map(|hour| spread_of(&off, hour)).collect();
        let scaled = |(hour, off): &(usize, i64)| clamp(i128::from(*off) * 1000 / i128::from(spread[*hour]));
        let mut deviations: Vec<i64> = off.iter().map(scaled).collect();
        deviations.sort_unstable();
        Ok(Self { carry, spread, deviations })
    }

    /// The correction that the backtest chose.
    #[must_use]
    pub fn carry(&self) -> Carry {
        self.carry
    }

    /// The expected value at an instant, after `seen` was measured.
    ///
    /// Without a measurement, or where the forecast had no value for its instant, that is the forecast.
    #[must_use]
    pub fn at(&self, forecast: &Forecast, at: Timestamp, seen: Option<(Timestamp, Milli)>) -> Option<Milli> {
        let foreseen = forecast.at(at)?;
        let news = seen.and_then(|(when, came)| {
            Some(Seen { came: came.as_thousandths(), foreseen: forecast.at(when)?.as_thousandths() })
        });
        let corrected = news.map(|seen| self.carry.correct(foreseen.as_thousandths(), &seen));
        Some(corrected.map_or(foreseen, Milli::from_thousandths))
    }

    /// A quantile of the value at an instant, after `seen` was measured: the value not exceeded in `permille`
    /// thousandths of cases.
    ///
    /// It follows from the errors of corrected values in this hour of the day. Without a measurement it is the
    /// forecast's own [quantile](Forecast::quantile).
    #[must_use]
    pub fn quantile(
        &self,
        forecast: &Forecast,
        at: Timestamp,
        seen: Option<(Timestamp, Milli)>,
        permille: u16,
    ) -> Option<Milli> {
        if seen.is_none_or(|(when, _)| forecast.at(when).is_none()) {
            return forecast.quantile(at, permille);
        }
        let expected = i128::from(self.at(forecast, at, seen)?.as_thousandths());
        let place = self.deviations.len().saturating_sub(1) * usize::from(permille.min(1000)) / 1000;
        let deviation = i128::from(self.deviations.get(place).copied().unwrap_or(0));
        let hour = forecast.series.place(at).map(|place| forecast.series.hour(place))?;
        let spread = i128::from(self.spread.get(hour).copied().unwrap_or(0));
        // Both factors are at most a billion, so that the product of the two with a 64-bit value fits.
        let value = expected + expected * (spread * deviation / 1000) / MILLION;
        Some(Milli::from_thousandths(i64::try_from(value.max(0)).unwrap_or(i64::MAX)))
    }
}

fn clamp(value: i128) -> i64 {
    const MOST: i64 = 1_000_000_000;
    i64::try_from(value).unwrap_or(if value < 0 { -MOST } else { MOST }).clamp(-MOST, MOST)
}

/// How far off, in millionths of what was expected.
fn deviation(came: i64, expected: i64) -> i64 {
    clamp((i128::from(came) - i128::from(expected)) * MILLION / i128::from(expected.max(1)))
}

/// The mean size of the deviations in an hour; that of all hours where it has none.
fn spread_of(off: &[(usize, i64)], hour: usize) -> i64 {
    let mean = |sizes: &mut dyn Iterator<Item = i64>| {
        let (mut sum, mut count) = (0_i128, 0_i128);
        for size in sizes {
            (sum, count) = (sum + i128::from(size.abs()), count + 1);
        }
        sum.checked_div(count)
    };
    let own = mean(&mut off.iter().filter(|(held, _)| *held == hour).map(|(_, off)| *off));
    let found = own.or_else(|| mean(&mut off.iter().map(|(_, off)| *off)));
    clamp(found.unwrap_or(1)).max(1)
}
