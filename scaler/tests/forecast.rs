//! Forecasts: on seven months of New York taxis, and on histories with holes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "the numbers are small")]

mod support;

use tenon_scaler::forecast::{Carry, Event, Forecast, ForecastError, Model, Nowcast, Series};
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

/// Forecasts the days from `first` on one after another, and hands out each place with the value seen `steps` before it.
fn each_place(
    values: &[Option<Milli>],
    first: usize,
    steps: usize,
    mut look: impl FnMut(&Forecast, usize, (Timestamp, Milli)),
) {
    let mut forecast = Forecast::choose(series(values[..first].to_vec()), vec![], 28).unwrap();
    for place in first..values.len() {
        if place > first && place.is_multiple_of(DAY) {
            forecast.extend(values[place - DAY..place].iter().copied());
        }
        look(&forecast, place, (at(place - steps), values[place - steps].unwrap()));
    }
}

#[test]
fn the_day_so_far_corrects_the_forecast_on_days_that_it_has_not_seen() {
    let values = taxi();
    let first = values.len() / DAY * 3 / 4 * DAY;
    let fitted = Forecast::choose(series(values[..first].to_vec()), vec![], 28).unwrap();
    for (steps, worth) in [(1, 0.5), (2, 0.65)] {
        let nowcast = Nowcast::fit(&fitted, steps, 56).unwrap();
        let (mut plain, mut corrected, mut inside, mut count) = (0.0, 0.0, 0, 0);
        each_place(&values, first, steps, |forecast, place, seen| {
            let came = values[place].unwrap();
            let off = |value: Option<Milli>| (value.unwrap().as_thousandths() - came.as_thousandths()).abs() as f64;
            plain += off(forecast.at(at(place)));
            corrected += off(nowcast.at(forecast, at(place), Some(seen)));
            let bound = |permille| nowcast.quantile(forecast, at(place), Some(seen), permille).unwrap();
            assert!(bound(100) <= bound(500) && bound(500) <= bound(900) && bound(900) <= bound(1000));
            inside += usize::from(came <= bound(900));
            count += 1;
        });
        assert!(corrected < plain * worth, "{steps} steps: {corrected:.0} of {plain:.0}");
        let share = f64::from(u32::try_from(inside).unwrap()) / f64::from(count);
        // A band that was fitted in summer and autumn, over Christmas, New Year and a blizzard.
        assert!((0.8..=0.96).contains(&share), "{steps} steps: {share} are below the 900th thousandth");
    }
}

#[test]
fn a_correction_is_none_where_the_day_says_nothing() {
    // Noise without memory around a day's shape: what the last value was off by says nothing of the next.
    let mut dice = support::Dice(7);
    let noisy = |place: usize, dice: &mut support::Dice| {
        let shape = 40_000 + 1_000 * i64::try_from(place % DAY).unwrap();
        Some(Milli::from_thousandths(shape + i64::from(dice.small(20_000)) - 10_000))
    };
    let values: Vec<_> = (0..63 * DAY).map(|place| noisy(place, &mut dice)).collect();
    let forecast = Forecast::choose(series(values), vec![], 14).unwrap();
    let nowcast = Nowcast::fit(&forecast, 1, 28).unwrap();
    assert!(matches!(nowcast.carry(), Carry::Amount(0 | 200) | Carry::Factor(200)), "{:?}", nowcast.carry());
}

#[test]
fn without_a_measurement_a_correction_is_the_forecast() {
    let values = taxi();
    let forecast = Forecast::choose(series(values[..56 * DAY].to_vec()), vec![], 14).unwrap();
    let nowcast = Nowcast::fit(&forecast, 1, 28).unwrap();
    let next = at(56 * DAY + 20);
    assert_eq!(nowcast.at(&forecast, next, None), forecast.at(next));
    assert_eq!(nowcast.quantile(&forecast, next, None, 950), forecast.quantile(next, 950));
    assert_eq!(Nowcast::fit(&forecast, 1, 50), Err(ForecastError::TooShort));
    assert_eq!(Nowcast::fit(&forecast, DAY, 1), Err(ForecastError::Empty));
    assert_eq!(Nowcast::fit(&forecast, 1, usize::MAX), Err(ForecastError::TooShort));
}

#[test]
fn absurd_values_saturate() {
    let mut values = taxi()[..56 * DAY].to_vec();
    for (place, value) in values.iter_mut().enumerate().skip(20 * DAY) {
        *value = match place % 7 {
            0 => Some(Milli::MAX),
            1 => Some(Milli::from_thousandths(i64::MIN)),
            2 => None,
            _ => *value,
        };
    }
    let mut forecast = Forecast::choose(series(values), vec![], 14).unwrap();
    let nowcast = Nowcast::fit(&forecast, 1, 28).unwrap();
    forecast.extend([Some(Milli::MAX), None, Some(Milli::from_thousandths(i64::MIN))]);
    for place in 55 * DAY..57 * DAY {
        for seen in [Milli::MAX, Milli::ZERO, Milli::from_thousandths(i64::MIN)] {
            let bound = nowcast.quantile(&forecast, at(place), Some((at(place - 1), seen)), 1000);
            assert!(bound.is_none_or(|bound| bound >= Milli::ZERO));
        }
    }
}

/// The errors of the chosen model are those of the backtest, calculated here once more in floats.
#[test]
fn the_errors_of_the_chosen_model_are_those_of_its_test() {
    // Eight on working days and eleven on the last day; as a week before, so the test week is off where it differs.
    let load = |place: usize| {
        let (day, week) = (place / DAY % 7, place / DAY / 7);
        if week == 3 && day == 6 { 20 } else { 8 + i64::try_from(day).unwrap() % 3 }
    };
    let values = (0..28 * DAY).map(|place| Some(Milli::from_units(load(place))));
    let forecast = Forecast::choose(series(values.collect()), vec![], 7).unwrap();
    assert_eq!(forecast.model(), Model::Week);
    // Six days are right, and the last one is 20 where 8 was forecast: 12 of 20 are 600 thousandths, on one day of seven.
    assert_eq!(forecast.mape_permille(), Some(600 / 7));
    let mean = forecast.scores().iter().find(|score| score.model == Model::Week).unwrap().error;
    assert_eq!(mean, Milli::from_thousandths(12_000 / 7));
    // The median is the forecast itself: half the mean absolute error.
    assert_eq!(forecast.pinball(500), Milli::from_thousandths(6_000 / 7));
    // At nine tenths, the ratio is that of the day that was off: right there, and too much on the six others.
    let over: i64 = (0..6).map(|day| (8_000 + day % 3 * 1_000) * 3 / 2).sum();
    assert_eq!(forecast.pinball(900), Milli::from_thousandths(over / 10 / 7));
    // Nothing came below the lowest quantile, and nothing above the highest.
    assert_eq!((forecast.pinball(0), forecast.pinball(1000)), (Milli::ZERO, Milli::ZERO));
}
