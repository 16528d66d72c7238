//! Instants as traces write them: with an offset, as a number since 1970, or as a reading of some wall clock.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::{Fold, Reading};

/// A time as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Written {
    /// An instant, in ms since 1970.
    Instant(u64),
    /// A reading of a wall clock.
    Civil(DateTime),
}

/// Reads a time; `None` where the text is none.
pub(super) fn parse(text: &str) -> Option<Written> {
    let text = text.trim();
    if let Some(at) = epoch(text) {
        return Some(Written::Instant(at));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.len() < 10 {
        return None;
    }
    let spaced = text.replacen(' ', "T", 1);
    let utc = [" UTC", " GMT"].iter().find_map(|zone| spaced.strip_suffix(zone)).map(|rest| format!("{rest}Z"));
    let whole = utc.unwrap_or(spaced).replace(' ', "");
    if let Ok(at) = whole.parse::<Timestamp>() {
        return u64::try_from(at.as_millisecond()).ok().map(Written::Instant);
    }
    let dashes = if whole.as_bytes().get(4) == Some(&b'/') { whole.replacen('/', "-", 2) } else { whole };
    dashes.parse::<DateTime>().ok().map(Written::Civil)
}

/// Seconds (also with a fraction), ms, µs or ns since 1970, told apart by their size.
pub(super) fn epoch(text: &str) -> Option<u64> {
    if text.is_empty()
        || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || matches!(byte, b'e' | b'E' | b'+'))
    {
        return None;
    }
    if let Ok(whole) = text.parse::<u64>() {
        return of_size(whole);
    }
    let value: f64 = text.parse().ok()?;
    ms_of(value)
}

fn of_size(whole: u64) -> Option<u64> {
    match whole {
        0..100_000_000 => None,
        100_000_000..100_000_000_000 => Some(whole * 1_000),
        100_000_000_000..100_000_000_000_000 => Some(whole),
        100_000_000_000_000..100_000_000_000_000_000 => Some(whole / 1_000),
        _ => Some(whole / 1_000_000),
    }
}

/// A number since 1970 in ms, rounded.
pub(super) fn ms_of(value: f64) -> Option<u64> {
    if !value.is_finite() || value < 1e8 {
        return None;
    }
    let ms = match value {
        _ if value < 1e11 => value * 1_000.0,
        _ if value < 1e14 => value,
        _ if value < 1e17 => value / 1_000.0,
        _ => value / 1_000_000.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the size is checked above")]
    Some(ms.round() as u64)
}

/// Why a reading of a wall clock is no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// No zone is named.
    NoZone,
    /// The clock never showed it.
    Gap,
    /// The clock showed it twice, and nothing says which time is meant.
    Fold,
    /// It is before 1970, or past what can be counted.
    Range,
}

/// The instants of the readings of one series, in the order of the file. A reading that the clock showed twice and that is
/// there twice is told apart by the order.
pub(super) fn resolve(times: &[Written], reading: &Reading) -> Result<Vec<u64>, (usize, Doubt)> {
    let falling = is_falling(times);
    let mut seen: Vec<(DateTime, usize, usize)> = Vec::new();
    let zone = reading.zone.as_ref();
    let is_twice = |zone: &TimeZone, at: DateTime| {
        matches!(zone.to_ambiguous_timestamp(at).offset(), AmbiguousOffset::Fold { .. })
    };
    // Readings that a fold shows twice: how often each is there, and how many of them have been met.
    if let Some(zone) = zone {
        for time in times {
            if let Written::Civil(at) = time
                && is_twice(zone, *at)
            {
                match seen.iter_mut().find(|held| held.0 == *at) {
                    Some(held) => held.1 += 1,
                    None => seen.push((*at, 1, 0)),
                }
            }
        }
    }
    let mut instants = Vec::with_capacity(times.len());
    for (place, time) in times.iter().enumerate() {
        let at = match time {
            Written::Instant(at) => *at,
            Written::Civil(at) => {
                let zone = zone.ok_or((place, Doubt::NoZone))?;
                let ambiguous = zone.to_ambiguous_timestamp(*at);
                let instant = match ambiguous.offset() {
                    AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible(),
                    AmbiguousOffset::Gap { .. } => return Err((place, Doubt::Gap)),
                    AmbiguousOffset::Fold { .. } => {
                        let held = seen.iter_mut().find(|held| held.0 == *at).ok_or((place, Doubt::Fold))?;
                        held.2 += 1;
                        let earlier = match (held.1, reading.fold) {
                            (2, _) => (held.2 == 1) != falling,
                            (_, Some(fold)) => fold == Fold::Earlier,
                            (_, None) => return Err((place, Doubt::Fold)),
                        };
                        if earlier { ambiguous.earlier() } else { ambiguous.later() }
                    }
                };
                let ms = instant.ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
                ms.ok_or((place, Doubt::Range))?
            }
        };
        instants.push(at);
    }
    Ok(instants)
}

fn is_falling(times: &[Written]) -> bool {
    match (times.first(), times.last()) {
        (Some(Written::Civil(first)), Some(Written::Civil(last))) => first > last,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_apart_by_form_and_size() {
        for (text, expected) in [
            ("2026-06-01T08:00:00Z", 1_780_300_800_000),
            ("2026-06-01 10:00:00+02:00", 1_780_300_800_000),
            ("2026-06-01 08:00:00 UTC", 1_780_300_800_000),
            ("1780300800", 1_780_300_800_000),
            ("1780300800.5", 1_780_300_800_500),
            ("1780300800000", 1_780_300_800_000),
            ("1780300800000000", 1_780_300_800_000),
        ] {
            assert_eq!(parse(text), Some(Written::Instant(expected)), "{text}");
        }
        for text in ["2014-04-10 00:04:00", "2014-04-10T00:04", "2014/04/10 00:04:00"] {
            assert!(matches!(parse(text), Some(Written::Civil(_))), "{text}");
        }
        for text in ["", "timestamp", "12", "1.5", "2014-13-10 00:04:00", "yesterday"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_fold_is_decided_by_the_order_or_by_an_option_and_a_gap_never() {
        let zone = TimeZone::get("America/New_York").ok();
        let civil = |text: &str| parse(text).unwrap();
        let reading = |fold| Reading { zone: zone.clone(), fold };
        let night = ["2014-11-02 00:30:00", "2014-11-02 01:00:00", "2014-11-02 01:30:00", "2014-11-02 02:00:00"];
        let once: Vec<Written> = night.iter().map(|text| civil(text)).collect();
        assert_eq!(resolve(&once, &reading(None)), Err((1, Doubt::Fold)));
        let steps = |times: &[Written], fold| -> Vec<u64> {
            let instants = resolve(times, &reading(fold)).unwrap();
            instants.windows(2).map(|two| (two[1] - two[0]) / 60_000).collect()
        };
        assert_eq!(steps(&once, Some(Fold::Earlier)), [30, 30, 90]);
        assert_eq!(steps(&once, Some(Fold::Later)), [90, 30, 30]);
        let mut twice = once.clone();
        twice.splice(3..3, [once[1], once[2]]);
        assert_eq!(steps(&twice, None), [30, 30, 30, 30, 30]);
        twice.reverse();
        let mut falling = resolve(&twice, &reading(None)).unwrap();
        falling.reverse();
        assert!(falling.windows(2).all(|two| two[1] - two[0] == 1_800_000));
        assert_eq!(resolve(&[civil("2014-03-09 02:30:00")], &reading(None)), Err((0, Doubt::Gap)));
        assert_eq!(resolve(&once, &Reading::default()), Err((0, Doubt::NoZone)));
    }
}
