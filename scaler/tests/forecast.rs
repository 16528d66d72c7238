//! Forecasts: on seven months of New York taxis, and on histories with holes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "the numbers are small")]

use tenon_scaler::forecast::{Event, Forecast, ForecastError, Model, Series};
use tenon_scaler::{Horizon, Milli, Timestamp};

const DAY: usize = 48;
const HALF_HOUR_MS: u64 = 1_800_000;
const START: Timestamp = Timestamp::from_millis(0);

fn taxi() -> Vec<Option<Milli>> {
    let text = include_str!("data/nyc_taxi.csv");
    let value = |line: &str| Some(Milli::from_units(line.split_once(',')?.1.parse().ok()?));
    text.lines().skip(1).map(value).collect()
}

fn series(values: Vec<Option<Milli>>) -> Series {
    Series::new(START, HALF_HOUR_MS, values).unwrap()
}

fn at(place: usize) -> Timestamp {
    START.after_millis(HALF_HOUR_MS * place as u64)
}

/// The mean absolute error of forecasting one day after another from `first` on, each from all before it.
fn error(
    values: &[Option<Milli>],
    first: usize,
    days: usize,
    forecast: impl Fn(&[Option<Milli>], usize) -> Milli,
) -> f64 {
    let mut sum = 0.0;
    for place in first..first + days * DAY {
        let origin = first + (place - first) / DAY * DAY;
        let came = values[place].unwrap().as_thousandths();
        sum += (came - forecast(&values[..origin], place).as_thousandths()).abs() as f64;
    }
    sum / (days * DAY) as f64
}

#[test]
fn the_chosen_model_was_never_worse_than_the_better_naive_one() {
    let values = taxi();
    for weeks in (8..28).step_by(6) {
        let forecast = Forecast::choose(series(values[..weeks * 7 * DAY].to_vec()), vec![], 14).unwrap();
        let of = |model| forecast.scores().iter().find(|score| score.model == model).unwrap().error;
        let chosen = of(forecast.model());
        assert!(chosen <= of(Model::Day).min(of(Model::Week)), "{weeks} weeks: {:?}", forecast.scores());
    }
}

#[test]
fn on_days_that_it_has_not_seen_it_beats_the_better_naive_one() {
    let values = taxi();
    // The first three quarters are to learn from; four ordinary weeks after them are the test.
    let first = values.len() / DAY * 3 / 4 * DAY;
    let chosen = Forecast::choose(series(values[..first].to_vec()), vec![], 28).unwrap();
    let ours = error(&values, first, 4, |known, place| {
        Forecast::choose(series(known.to_vec()), vec![], 28).unwrap().at(at(place)).unwrap()
    });
    let week = error(&values, first, 4, |_, place| values[place - 7 * DAY].unwrap());
    let day = error(&values, first, 4, |_, place| values[place - DAY].unwrap());
    assert!(ours <= week.min(day) * 1.05, "{:?}: {ours} against {week} and {day}", chosen.model());
}

#[test]
fn a_hole_is_not_a_zero() {
    let mut values = taxi()[..10 * 7 * DAY].to_vec();
    let whole = Forecast::choose(series(values.clone()), vec![], 14).unwrap();
    // A dead metric for three days, long before the end.
    for value in &mut values[5 * 7 * DAY..5 * 7 * DAY + 3 * DAY] {
        *value = None;
    }
    let holed = Forecast::choose(series(values), vec![], 14).unwrap();
    for place in 10 * 7 * DAY..11 * 7 * DAY {
        let (one, other) = (whole.at(at(place)).unwrap(), holed.at(at(place)).unwrap());
        assert!(other.as_thousandths() * 10 > one.as_thousandths() * 7, "{place}: {one} became {other}");
    }
}

#[test]
fn an_event_is_left_out_of_what_is_learned_and_scales_what_comes() {
    let ordinary: Vec<_> = (0..8 * 7 * DAY).map(|place| Some(Milli::from_units(100 + (place % DAY) as i64))).collect();
    let mut values = ordinary.clone();
    for value in &mut values[50 * DAY..52 * DAY] {
        *value = Some(Milli::from_units(9000));
    }
    let past = Event { from: at(50 * DAY), until: at(52 * DAY), scale_permille: 60_000 };
    let coming = Event { from: at(57 * DAY), until: at(58 * DAY), scale_permille: 3_000 };
    let forecast = Forecast::choose(series(values), vec![past, coming], 14).unwrap();
    assert_eq!(forecast.at(at(56 * DAY + 7)), Some(Milli::from_units(107)));
    assert_eq!(forecast.at(at(57 * DAY + 7)), Some(Milli::from_units(321)));
}

#[test]
fn the_band_holds_what_it_says_on_the_days_it_was_made_from() {
    let values = taxi();
    let end = 12 * 7 * DAY;
    let forecast = Forecast::choose(series(values[..end].to_vec()), vec![], 28).unwrap();
    let mut within = 0;
    for (place, came) in values.iter().enumerate().skip(end).take(14 * DAY) {
        within += usize::from(*came <= forecast.quantile(at(place), 950));
    }
    assert!(within * 100 >= 14 * DAY * 85, "{within} of {}", 14 * DAY);
    assert!(forecast.quantile(at(end), 500) <= forecast.quantile(at(end), 950));
}

#[test]
fn the_upper_bound_of_an_admission() {
    let values: Vec<_> = (0..21 * DAY).map(|place| Some(Milli::from_units((place % DAY) as i64 * 10))).collect();
    let forecast = Forecast::choose(series(values), vec![], 7).unwrap();
    let horizon = Horizon { start: at(21 * DAY), slot_ms: 3_600_000, slots: 24 };
    let upper = forecast.instances(horizon, Milli::from_units(100), 900);
    // An hour has two values; the larger counts, rounded up.
    assert_eq!(upper[..4], [1, 1, 1, 1]);
    assert_eq!(upper[23], 5);
    assert_eq!(upper.len(), 24);
}

#[test]
fn what_cannot_be_forecast_is_refused() {
    let values = taxi();
    assert_eq!(Series::new(START, 7, vec![]).unwrap_err(), ForecastError::Step);
    let short = Forecast::choose(series(values[..8 * DAY].to_vec()), vec![], 7).unwrap_err();
    assert_eq!(short, ForecastError::TooShort);
    assert_eq!(Forecast::choose(series(vec![None; 21 * DAY]), vec![], 7).unwrap_err(), ForecastError::Empty);
}
