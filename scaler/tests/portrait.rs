//! Portraits of services: of the taxis of New York, and of services made up to have one trait each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use jiff::tz::TimeZone;
use tenon_scaler::forecast::Series;
use tenon_scaler::portrait::{Keeps, Portrait, Service, Suitability, Trait};
use tenon_scaler::{Milli, Timestamp};

/// Tuesday, 1 July 2014, midnight, as the wall clock of the trace has it.
const START: Timestamp = Timestamp::from_millis(1_404_172_800_000);

fn service() -> Service {
    Service { keeps: Keeps::Nothing, instances: 40, cpu_milli: 2_000, start_ms: 300_000 }
}

fn draw(step_ms: u64, values: Vec<Option<i64>>, service: &Service) -> Portrait {
    let values = values.into_iter().map(|value| value.map(Milli::from_units)).collect();
    Portrait::new(&Series::new(START, step_ms, values).unwrap(), service, &TimeZone::UTC)
}

fn taxi() -> Vec<Option<i64>> {
    let text = include_str!("data/nyc_taxi.csv");
    text.lines().skip(1).map(|line| Some(line.split_once(',').unwrap().1.parse().unwrap())).collect()
}

fn codes(portrait: &Portrait) -> Vec<u16> {
    portrait.traits.iter().map(|held| held.code()).collect()
}

#[test]
fn the_taxis_of_new_york() {
    let portrait = draw(1_800_000, taxi(), &service());
    // The city rides in the evening and sleeps from two to six.
    assert!(
        portrait.peaks.iter().any(|peak| peak.from_minute <= 18 * 60 && peak.until_minute >= 22 * 60),
        "{portrait:?}"
    );
    let [valley] = portrait.valleys[..] else { panic!("{portrait:?}") };
    assert!((60..=180).contains(&valley.from_minute) && (300..=420).contains(&valley.until_minute), "{valley:?}");
    // Friday is the highest, Monday the lowest.
    let best = (0..7).max_by_key(|day| portrait.week[*day]).unwrap();
    let worst = (0..7).min_by_key(|day| portrait.week[*day]).unwrap();
    assert!(best == 4 && worst == 0, "{:?}", portrait.week);
    // A week says more about it than a day.
    assert!(portrait.weekly_permille.unwrap() > portrait.daily_permille.unwrap());
    assert!(
        matches!(portrait.traits[..], [Trait::Uneven(ratio), Trait::Weekly(_), ..] if ratio > 3_000),
        "{portrait:?}"
    );
    assert_eq!(portrait.suitability, Suitability::Yes, "{:?}", portrait.traits);
}

#[test]
fn what_keeps_state_does_not_suit_whatever_its_load() {
    let portrait = draw(1_800_000, taxi(), &Service { keeps: Keeps::State, ..service() });
    assert!(codes(&portrait).contains(&300));
    assert_eq!(portrait.suitability, Suitability::No);
    let portrait = draw(1_800_000, taxi(), &Service { keeps: Keeps::Cache, cpu_milli: 32_000, ..service() });
    assert!(codes(&portrait).contains(&301) && codes(&portrait).contains(&330));
    assert_eq!(portrait.suitability, Suitability::WithCare);
    let portrait = draw(1_800_000, taxi(), &Service { instances: 2, ..service() });
    assert!(portrait.traits.contains(&Trait::Few(2)));
}

#[test]
fn a_flat_load_has_no_peak_and_nothing_to_save() {
    let portrait = draw(300_000, vec![Some(100); 14 * 288], &service());
    assert!(portrait.peaks.is_empty() && portrait.valleys.is_empty());
    assert_eq!(portrait.traits, [Trait::Even(1_000)]);
    assert_eq!((portrait.daily_permille, portrait.suitability), (None, Suitability::No));
}

#[test]
fn a_peak_past_midnight_is_one() {
    let night = |place: usize| Some(if (4..22).contains(&(place % 24)) { 100 } else { 900 });
    let portrait = draw(3_600_000, (0..14 * 24).map(night).collect(), &service());
    let [peak] = portrait.peaks[..] else { panic!("{portrait:?}") };
    assert_eq!((peak.from_minute, peak.until_minute, peak.extreme), (22 * 60, 4 * 60, Milli::from_units(900)));
    assert_eq!(portrait.daily_permille, Some(1_000));
    // From 100 to 900 within one start of an instance: a metric rule comes late.
    assert!(portrait.traits.contains(&Trait::Sudden(889)), "{:?}", portrait.traits);
}

#[test]
fn holes_are_not_zeros() {
    let values: Vec<Option<i64>> =
        taxi().into_iter().enumerate().map(|(at, value)| value.filter(|_| at % 48 >= 20 || at % 5 > 0)).collect();
    let (whole, holed) = (draw(1_800_000, taxi(), &service()), draw(1_800_000, values, &service()));
    assert!(whole.day[3].unwrap().as_thousandths() < holed.day[3].unwrap().as_thousandths() * 11 / 10);
    let mostly = taxi().into_iter().enumerate().map(|(at, value)| value.filter(|_| at % 4 == 0)).collect();
    assert!(draw(1_800_000, mostly, &service()).traits.iter().any(|held| matches!(held, Trait::Holes(750))));
    // Nothing at all, and numbers as large as there are.
    assert_eq!(draw(300_000, vec![], &service()).suitability, Suitability::No);
    assert_eq!(draw(300_000, vec![None; 4_000], &service()).suitability, Suitability::No);
    let extreme = |at: i64| Some(if at % 2 == 0 { i64::MAX } else { i64::MIN });
    assert_eq!(draw(300_000, (0..5_000).map(extreme).collect(), &service()).daily_permille, Some(1_000));
}
