//! Times as people write them: `1h 30m`, `90 seconds`, `3 days and 4 hours`.

use std::time::Duration;

/// The longest time, in seconds: a hundred years.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

/// Reads a time. A number alone is seconds.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut total = 0.0_f64;
    let mut rest = text.trim();
    let mut seen = false;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (count, after): (f64, &str) =
            if digits > 0 { (rest[..digits].parse().ok()?, rest[digits..].trim_start()) } else { word_number(rest)? };
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match after[..letters].to_ascii_lowercase().as_str() {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "wk" | "wks" | "week" | "weeks" => 604_800.0,
            "mo" | "mon" | "mos" | "month" | "months" => 2_592_000.0,
            "y" | "yr" | "yrs" | "year" | "years" => 31_557_600.0,
            _ => return None,
        };
        total += count * unit;
        rest = after[letters..].trim_start_matches([' ', '\t', ',']);
        rest = rest.strip_prefix("and ").unwrap_or(rest).trim_start();
        seen = true;
    }
    let bound = Duration::from_secs(MAX_SECONDS).as_secs_f64();
    if seen && total <= bound { Duration::try_from_secs_f64(total).ok() } else { None }
}

/// `one hour`: the number, and what follows it.
fn word_number(text: &str) -> Option<(f64, &str)> {
    const WORDS: [(&str, f64); 13] = [
        ("an", 1.0),
        ("a", 1.0),
        ("one", 1.0),
        ("two", 2.0),
        ("three", 3.0),
        ("four", 4.0),
        ("five", 5.0),
        ("six", 6.0),
        ("seven", 7.0),
        ("eight", 8.0),
        ("nine", 9.0),
        ("ten", 10.0),
        ("half", 0.5),
    ];
    WORDS.iter().find_map(|(word, number)| Some((*number, text.strip_prefix(word)?.strip_prefix(' ')?.trim_start())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("3600", 3_600),
            ("2 seconds", 2),
            ("1h 30m", 5_400),
            ("3h 30m", 12_600),
            ("3 hours 30 minutes", 12_600),
            ("one hour", 3_600),
            ("1 week, 2 days and 3 mins 4 sec", 604_800 + 172_800 + 184),
            ("1.5 hours", 5_400),
            ("90s", 90),
            ("2 mos", 5_184_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "soon", "3 fortnights", "-1", "1..2 h", "999999999999999 years", "h"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
