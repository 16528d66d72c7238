//! Numbers as Kubernetes writes them, and spans of time as options are given.

/// A Kubernetes quantity (`100`, `1k`, `30000m`, `200Mi`, `1e3`) in thousandths, rounded up; `None` where it is none, or too
/// large.
pub(crate) fn thousandths(text: &str) -> Option<i64> {
    let (digits, suffix) = split(text);
    let (mantissa, decimals) = decimal(digits)?;
    let (by, over) = factor(suffix)?;
    let scaled = mantissa.checked_mul(by)?.checked_mul(1_000)?;
    let divisor = 10_i128.checked_pow(decimals)?.checked_mul(over)?;
    i64::try_from(scaled.div_euclid(divisor) + i128::from(scaled.rem_euclid(divisor) > 0)).ok()
}

/// The number, and what comes behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+')).unwrap_or(text.len());
    text.split_at(end)
}

/// A decimal number as an integer and how many of its digits stand behind the point.
fn decimal(text: &str) -> Option<(i128, u32)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{part}");
    if digits.is_empty() || digits.len() > 30 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    Some((if text.starts_with('-') { -value } else { value }, u32::try_from(part.len()).ok()?))
}

/// What a suffix multiplies by, and what it divides by.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_024_i128.pow(power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "" => Some((1, 1)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let ten = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 18)?;
            Some(if power < 0 { (1, ten) } else { (ten, 1) })
        }
    }
}

/// A float in thousandths, cut off; `None` where it is no number. What is a rounding error away from the next thousandth
/// counts as that.
pub(crate) fn milli_of(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, as is meant")]
    value.is_finite().then(|| (value * 1_000.0 + 1e-6).floor() as i64)
}

/// Thousandths as a float.
#[expect(clippy::cast_precision_loss, reason = "loads are floats already")]
pub(crate) fn units(milli: i64) -> f64 {
    milli as f64 / 1_000.0
}

/// A count as a float.
pub(crate) fn float(count: u32) -> f64 {
    f64::from(count)
}

/// A span of time (`90`, `90s`, `5m`, `1h30m`, `14d`, `250ms`) in ms; a bare number counts seconds.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000);
    }
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(ms)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// A span of time in words: `1h30m`, `45s`.
pub(crate) fn words(ms: u64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut rest = ms;
    let mut text = String::new();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
        if rest >= unit {
            text.push_str(&(rest / unit).to_string());
            text.push_str(name);
            rest %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_thousandths_and_rounded_up() {
        let rows = [
            ("100", 100_000),
            ("1k", 1_000_000),
            ("30000m", 30_000),
            ("2m", 2),
            ("200Mi", 200 * 1_024 * 1_024 * 1_000),
            ("1e3", 1_000_000),
            ("0.5", 500),
            (".5", 500),
            ("1.0001", 1_001),
            ("1500u", 2),
            ("-1.5", -1_500),
            ("1E", 1_000_000_000_000_000_000),
        ];
        for (text, expected) in &rows[..11] {
            assert_eq!(thousandths(text), Some(*expected), "{text}");
        }
        for text in ["", "m", "1 k", "1kk", "abc", "1e99", "0x10", "1.2.3", "9999999999999999999999", rows[11].0] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }

    #[test]
    fn spans_of_time_are_read_and_written() {
        let rows = [("90", 90_000), ("90s", 90_000), ("1h30m", 5_400_000), ("14d", 1_209_600_000), ("250ms", 250)];
        for (text, expected) in rows {
            assert_eq!(duration_ms(text), Some(expected), "{text}");
        }
        for text in ["", "s", "5x", "-5s", "5 s", "99999999999999999999"] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
        assert_eq!(words(5_400_000), "1h30m");
        assert_eq!(words(250), "250ms");
        assert_eq!(words(0), "0s");
    }
}
