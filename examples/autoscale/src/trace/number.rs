//! Values as traces write them, also those that were formatted for a reader.

/// How commas are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comma {
    /// `1,721,992.28`: they part thousands.
    Thousands,
    /// `1,5`: it stands for the point.
    Decimal,
}

/// A value, and what it is counted in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) value: Option<f64>,
    pub(super) unit: Option<Unit>,
}

/// Units that belong together: what is of one kind may be mixed in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Percent,
    Count,
    Bytes,
    Seconds,
}

impl Unit {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

/// What is written where a value is missing.
fn is_missing(text: &str) -> bool {
    let words = ["nan", "null", "none", "nil", "na", "n/a", "-", "inf", "+inf", "-inf", "infinity", "undefined"];
    text.is_empty() || words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Reads a value; `None` where the text is none.
pub(super) fn parse(text: &str, comma: Comma) -> Option<Measured> {
    let text = text.trim();
    if is_missing(text) {
        return Some(Measured { value: None, unit: None });
    }
    if let Ok(value) = text.parse::<f64>() {
        return Some(Measured { value: Some(value).filter(|value| value.is_finite()), unit: None });
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ',' | '-' | '+')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let digits = match comma {
        Comma::Thousands if is_grouped(digits) => digits.replace(',', ""),
        Comma::Decimal if digits.matches(',').count() == 1 && !digits.contains('.') => digits.replace(',', "."),
        Comma::Thousands | Comma::Decimal if digits.contains(',') => return None,
        Comma::Thousands | Comma::Decimal => digits.to_owned(),
    };
    let number: f64 = digits.parse().ok()?;
    let (factor, unit) = scale(suffix.trim())?;
    Some(Measured { value: Some(number * factor), unit })
}

/// Whether every comma parts three digits.
fn is_grouped(digits: &str) -> bool {
    let whole = digits.trim_start_matches(['-', '+']).split('.').next().unwrap_or_default();
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3)
}

fn scale(suffix: &str) -> Option<(f64, Option<Unit>)> {
    let (factor, unit) = match suffix {
        "" => return Some((1.0, None)),
        "%" => (1.0, Unit::Percent),
        "K" | "k" => (1e3, Unit::Count),
        "M" | "Mil" => (1e6, Unit::Count),
        "G" | "Bil" => (1e9, Unit::Count),
        "T" | "Tri" => (1e12, Unit::Count),
        "B" | "bytes" => (1.0, Unit::Bytes),
        "kB" | "KB" => (1e3, Unit::Bytes),
        "MB" => (1e6, Unit::Bytes),
        "GB" => (1e9, Unit::Bytes),
        "TB" => (1e12, Unit::Bytes),
        "KiB" | "Ki" => (1_024.0, Unit::Bytes),
        "MiB" | "Mi" => (1_048_576.0, Unit::Bytes),
        "GiB" | "Gi" => (1_073_741_824.0, Unit::Bytes),
        "TiB" | "Ti" => (1_099_511_627_776.0, Unit::Bytes),
        "ns" => (1e-9, Unit::Seconds),
        "µs" | "us" => (1e-6, Unit::Seconds),
        "ms" => (1e-3, Unit::Seconds),
        "s" => (1.0, Unit::Seconds),
        "min" | "mins" => (60.0, Unit::Seconds),
        "hour" | "hours" => (3_600.0, Unit::Seconds),
        _ => return None,
    };
    Some((factor, Some(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_with_units_commas_and_holes() {
        for (text, comma, value, unit) in [
            ("94.0", Comma::Thousands, Some(94.0), None),
            ("1e3", Comma::Thousands, Some(1_000.0), None),
            ("1,721,992.5", Comma::Thousands, Some(1_721_992.5), None),
            ("1,5", Comma::Decimal, Some(1.5), None),
            ("12.5 %", Comma::Thousands, Some(12.5), Some(Unit::Percent)),
            ("1.2 K", Comma::Thousands, Some(1_200.0), Some(Unit::Count)),
            ("2 MiB", Comma::Thousands, Some(2_097_152.0), Some(Unit::Bytes)),
            ("250 ms", Comma::Thousands, Some(0.25), Some(Unit::Seconds)),
            ("NaN", Comma::Thousands, None, None),
            ("+Inf", Comma::Thousands, None, None),
            ("null", Comma::Thousands, None, None),
            ("", Comma::Thousands, None, None),
        ] {
            assert_eq!(parse(text, comma), Some(Measured { value, unit }), "{text}");
        }
        for (text, comma) in [
            ("12.51 °C", Comma::Thousands),
            ("1,5", Comma::Thousands),
            ("12,34,567", Comma::Thousands),
            ("abc", Comma::Thousands),
            ("1.5.2", Comma::Thousands),
        ] {
            assert_eq!(parse(text, comma), None, "{text}");
        }
    }
}
