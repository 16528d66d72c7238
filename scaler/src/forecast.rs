//! Forecasts: the load of the next day, from past days and weeks.
//!
//! Several models are tried on the last days of the history, each day forecast from what was known before it; the one
//! with the least error is chosen. The two seasonal-naive ones are among them, so the choice was never worse than the
//! better of these on the days that it was made on. How far it was off on those days gives the band.
//!
//! A hole in the history is missing data, not a zero. Known events (holidays, campaigns) are an input: their past days
//! are left out of what is learned, and their coming days are scaled.

mod errors;
mod nowcast;

use errors::Pair;
pub use nowcast::{Carry, Nowcast};

use alloc::vec::Vec;

use crate::Timestamp;
use crate::admit::Horizon;
use crate::num::{Milli, mul_div_ceil};

const DAY_MS: u64 = 86_400_000;

/// A time series: values at even steps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Series {
    start: Timestamp,
    step_ms: u64,
    values: Vec<Option<Milli>>,
}

/// Why there is no forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForecastError {
    /// The step is zero, or a day is not a multiple of it.
    #[error("a day is not a multiple of the step")]
    Step,
    /// The history has less than a week before the days to test on.
    #[error("there is less than a week of history before the days to test on")]
    TooShort,
    /// No day to test on has a value that could be forecast.
    #[error("no day to test on has a value that could be forecast")]
    Empty,
}

impl Series {
    /// A history from `start` on, with one value each `step_ms`; `None` is a hole.
    ///
    /// ```
    /// use tenon_scaler::forecast::Series;
    /// use tenon_scaler::{Milli, Timestamp};
    ///
    /// let series = Series::new(Timestamp::ZERO, 3_600_000, vec![Some(Milli::from_units(5)), None])?;
    /// assert_eq!((series.len(), series.value(1)), (2, None)); // a hole is missing data, not a zero
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ForecastError::Step`].
    pub fn new(start: Timestamp, step_ms: u64, values: Vec<Option<Milli>>) -> Result<Self, ForecastError> {
        if step_ms == 0 || !DAY_MS.is_multiple_of(step_ms) {
            return Err(ForecastError::Step);
        }
        Ok(Self { start, step_ms, values })
    }

    /// The instant of an index in the history, or after it.
    #[must_use]
    pub fn instant(&self, place: usize) -> Timestamp {
        self.start.after_millis(self.step_ms.saturating_mul(place as u64))
    }

    /// The index of an instant in the history, or after it; `None` before its start.
    #[must_use]
    pub fn place(&self, at: Timestamp) -> Option<usize> {
        if at < self.start {
            return None;
        }
        usize::try_from(at.millis_since(self.start) / self.step_ms).ok()
    }

    /// The number of values, holes included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The time between two values, in ms.
    #[must_use]
    pub const fn step_ms(&self) -> u64 {
        self.step_ms
    }

    /// The value at an index; `None` for a hole, and outside.
    #[must_use]
    pub fn value(&self, place: usize) -> Option<Milli> {
        self.values.get(place).copied().flatten()
    }

    pub(crate) fn day(&self) -> usize {
        usize::try_from(DAY_MS / self.step_ms).unwrap_or(1)
    }

    /// The hour of the day, counted from the start of the history.
    fn hour(&self, place: usize) -> usize {
        place % self.day() * 24 / self.day()
    }

    fn known(&self, place: usize, origin: usize) -> Option<i64> {
        if place >= origin {
            return None;
        }
        self.values.get(place).copied().flatten().map(Milli::as_thousandths)
    }

    /// The known values one `season` before `place`, two seasons before, and so on, as of `origin`; the nearest first.
    fn seasons(&self, place: usize, season: usize, origin: usize) -> impl Iterator<Item = i64> {
        (1..).map_while(move |back| place.checked_sub(season * back)).filter_map(move |past| self.known(past, origin))
    }
}

/// A forecasting model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Model {
    /// The value of the same time a day before.
    Day,
    /// The value of the same time a week before.
    Week,
    /// The median of the same time in up to six weeks before.
    WeekMedian,
    /// The weekly median, scaled by how the last week compares with the weeks before it.
    WeekTrend,
    /// A smoothed level with a smoothed weekly season (Holt and Winters, additive, without trend).
    Smoothed,
}

impl Model {
    /// All models. The naive ones come first, so that another must be better to be chosen.
    pub const ALL: [Self; 5] = [Self::Day, Self::Week, Self::WeekMedian, Self::WeekTrend, Self::Smoothed];
}

/// A known event: its days are not learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// The start of the event.
    pub from: Timestamp,
    /// The end of the event; the instant itself is outside.
    pub until: Timestamp,
    /// The load during the event in thousandths of an ordinary day's.
    pub scale_permille: u32,
}

/// The score of a model on the days it was tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// The model that was tested.
    pub model: Model,
    /// The mean absolute error.
    pub error: Milli,
}

/// A forecast: a chosen model with its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    series: Series,
    events: Vec<Event>,
    model: Model,
    scores: Vec<Score>,
    /// The actual values of the test in thousandths of the forecast ones, sorted.
    ratios: Vec<u64>,
    /// The forecast and actual values of the test, in the order of time.
    tested: Vec<Pair>,
    /// The parameters that the model has learned up to the end of the history.
    learned: Learned,
}

/// The parameters that a model learns from a history at once, rather than looks up in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Learned {
    /// The trend of [`Model::WeekTrend`]: the last week, and its value by the weeks before it.
    trend: (i128, i128),
    /// The level of [`Model::Smoothed`].
    level: i64,
    season: Vec<Option<i64>>,
}

impl Learned {
    fn of(series: &Series, model: Model, origin: usize) -> Self {
        match model {
            Model::Day | Model::Week | Model::WeekMedian => Self::default(),
            Model::WeekTrend => Self::trend(series, origin),
            Model::Smoothed => Self::smoothed(series, origin),
        }
    }

    /// Compares the last week with the weeks before it, where both are known.
    fn trend(series: &Series, origin: usize) -> Self {
        let week = series.day() * 7;
        let mut trend = (0, 0);
        for place in origin.saturating_sub(week)..origin {
            let then = median(series.seasons(place, week, origin).take(5));
            if let (Some(now), Some(then)) = (series.known(place, origin), then) {
                trend.0 += i128::from(now);
                trend.1 += i128::from(then);
            }
        }
        Self { trend, ..Self::default() }
    }

    /// Smooths the history up to `origin`: a tenth of a new value goes into the level, three tenths into its season.
    fn smoothed(series: &Series, origin: usize) -> Self {
        let week = series.day() * 7;
        let first: Vec<i64> = (0..week).filter_map(|place| series.known(place, origin)).collect();
        let sum: i128 = first.iter().map(|value| i128::from(*value)).sum();
        let level = i64::try_from(sum / i128::try_from(first.len().max(1)).unwrap_or(1)).unwrap_or(0);
        let mut state = Self { level, season: alloc::vec![None; week], ..Self::default() };
        for place in 0..origin {
            let Some(value) = series.known(place, origin) else { continue };
            let slot = place % week;
            let season = state.season[slot].unwrap_or_else(|| value.saturating_sub(state.level));
            let off = value.saturating_sub(state.level).saturating_sub(season);
            // A level that moves with every sample: over a day, its steps add up to what the day was off by.
            state.level = state.level.saturating_add(off / (10 * i64::try_from(series.day()).unwrap_or(1)));
            state.season[slot] = Some(season.saturating_add(off / 10 * 3));
        }
        state
    }

    fn at(&self, place: usize) -> Option<i64> {
        let season = self.season.get(place % self.season.len().max(1)).copied().flatten()?;
        Some(self.level.saturating_add(season).max(0))
    }
}

impl Forecast {
    /// Chooses a model for `series` by the error on its last `test_days` days.
    ///
    /// ```
    /// use tenon_scaler::forecast::{Forecast, Series};
    /// use tenon_scaler::{Milli, Timestamp};
    ///
    /// const HOUR_MS: u64 = 3_600_000;
    /// let load = |hour: u64| Some(Milli::from_units(if (8..20).contains(&(hour % 24)) { 60 } else { 10 }));
    /// let series = Series::new(Timestamp::ZERO, HOUR_MS, (0..28 * 24).map(load).collect())?;
    /// let forecast = Forecast::choose(series, vec![], 7)?;
    /// assert_eq!(forecast.at(Timestamp::from_millis((28 * 24 + 9) * HOUR_MS)), Some(Milli::from_units(60)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ForecastError::TooShort`] or [`ForecastError::Empty`].
    pub fn choose(mut series: Series, events: Vec<Event>, test_days: usize) -> Result<Self, ForecastError> {
        let day = series.day();
        let end = series.values.len();
        let first = end.checked_sub(day * test_days).filter(|first| *first >= day * 7 && *first < end);
        let first = first.ok_or(ForecastError::TooShort)?;
        for place in 0..end {
            let at = series.instant(place);
            if events.iter().any(|event| event.from <= at && at < event.until) {
                series.values[place] = None;
            }
        }
        let mut best: Option<(u64, Model, Vec<Pair>)> = None;
        let mut scores = Vec::new();
        for model in Model::ALL {
            let (error, tested) = backtest(&series, model, first);
            let Some(error) = error else { continue };
            scores.push(Score { model, error: Milli::from_thousandths(i64::try_from(error).unwrap_or(i64::MAX)) });
            if best.as_ref().is_none_or(|(least, ..)| error < *least) {
                best = Some((error, model, tested));
            }
        }
        let (_, model, tested) = best.ok_or(ForecastError::Empty)?;
        let mut ratios: Vec<u64> = tested.iter().copied().map(errors::ratio).collect();
        ratios.sort_unstable();
        let learned = Learned::of(&series, model, end);
        Ok(Self { series, events, model, scores, ratios, tested, learned })
    }

    /// Appends values that came after the history. The chosen model and its band stay.
    ///
    /// The forecast of the next days knows the days that have come by this alone.
    pub fn extend(&mut self, values: impl IntoIterator<Item = Option<Milli>>) {
        for value in values {
            let at = self.series.instant(self.series.values.len());
            let told = self.events.iter().all(|event| at < event.from || event.until <= at);
            self.series.values.push(value.filter(|_| told));
        }
        self.learned = Learned::of(&self.series, self.model, self.series.values.len());
    }

    /// The chosen model.
    #[must_use]
    pub fn model(&self) -> Model {
        self.model
    }

    /// The scores of all models, in the order of [`Model::ALL`].
    #[must_use]
    pub fn scores(&self) -> &[Score] {
        &self.scores
    }

    /// The expected value at an instant; `None` before the history, and where the history gives no basis.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Option<Milli> {
        let place = self.series.place(at)?;
        let end = self.series.values.len();
        let value = predict(&self.series, self.model, place, end, &self.learned)?;
        let scale = self.events.iter().find(|event| event.from <= at && at < event.until);
        let scaled = i128::from(value) * i128::from(scale.map_or(1000, |event| event.scale_permille)) / 1000;
        Some(Milli::from_thousandths(i64::try_from(scaled).unwrap_or(i64::MAX)))
    }

    /// A quantile of the value at an instant: the value that is not exceeded in `permille` thousandths of cases.
    ///
    /// It follows from the errors of the model on the days it was tested on.
    #[must_use]
    pub fn quantile(&self, at: Timestamp, permille: u16) -> Option<Milli> {
        let value = u128::from(self.at(at)?.at_least_zero()) * u128::from(self.ratio(permille)) / 1000;
        Some(Milli::from_thousandths(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    /// A quantile of the actual value, in thousandths of the forecast one.
    fn ratio(&self, permille: u16) -> u64 {
        let place = (self.ratios.len().saturating_sub(1)) * usize::from(permille.min(1000)) / 1000;
        self.ratios.get(place).copied().unwrap_or(1000)
    }

    /// The upper bound in instances for every slot of an admission's horizon.
    ///
    /// For each slot, the quantile's largest value over what one instance carries. The list ends where the forecast has
    /// no basis.
    #[must_use]
    pub fn instances(&self, horizon: Horizon, per_instance: Milli, permille: u16) -> Vec<u32> {
        let slot = |slot: u16| {
            let from = horizon.start.after_millis(horizon.slot_ms.saturating_mul(u64::from(slot)));
            let last = from.after_millis(horizon.slot_ms.saturating_sub(1));
            // The values that hold within the slot: at its start, and at each step of the history after it.
            let (first_place, last_place) = (self.series.place(from)?, self.series.place(last)?);
            let values = (first_place..=last_place).map(|place| self.quantile(self.series.instant(place), permille));
            let most = values.collect::<Option<Vec<_>>>()?.into_iter().max()?;
            Some(mul_div_ceil(most.at_least_zero(), 1, per_instance.at_least_zero()))
        };
        (0..horizon.slots).map_while(slot).collect()
    }
}

/// The mean absolute error of a model on the days from `first` on, each forecast from what was known before it; and what
/// was forecast, with what came.
fn backtest(series: &Series, model: Model, first: usize) -> (Option<u64>, Vec<Pair>) {
    let day = series.day();
    let mut sum: u128 = 0;
    let mut tested = Vec::new();
    for origin in (first..series.values.len()).step_by(day) {
        let learned = Learned::of(series, model, origin);
        for place in origin..(origin + day).min(series.values.len()) {
            let Some(came) = series.known(place, series.values.len()) else { continue };
            let Some(foreseen) = predict(series, model, place, origin, &learned) else { continue };
            sum += u128::from(came.abs_diff(foreseen));
            tested.push((foreseen, came));
        }
    }
    let count = tested.len() as u128;
    (sum.checked_div(count).map(|mean| u64::try_from(mean).unwrap_or(u64::MAX)), tested)
}

fn predict(series: &Series, model: Model, place: usize, origin: usize, learned: &Learned) -> Option<i64> {
    let week = series.day() * 7;
    match model {
        Model::Day => series.seasons(place, series.day(), origin).next(),
        Model::Week => series.seasons(place, week, origin).next(),
        Model::WeekMedian => median(series.seasons(place, week, origin).take(6)),
        Model::WeekTrend => {
            let value = median(series.seasons(place, week, origin).take(6))?;
            let (last, before) = learned.trend;
            let scaled = if before > 0 { i128::from(value) * last / before } else { i128::from(value) };
            i64::try_from(scaled).ok()
        }
        Model::Smoothed => learned.at(place),
    }
}

fn median(values: impl Iterator<Item = i64>) -> Option<i64> {
    let mut values: smallvec::SmallVec<[i64; 8]> = values.collect();
    values.sort_unstable();
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(i64::midpoint(values[middle - 1], values[middle])),
    }
}
