//! What a plain scalar is, by schema.

use crate::{Schema, Value};

/// What a plain scalar without a tag is.
///
/// # Errors
/// It looks like a date, which the schema has no value for.
pub(crate) fn resolve(text: &str, schema: Schema) -> Result<Value, &'static str> {
    Ok(match schema {
        Schema::Core => core(text).unwrap_or_else(|| Value::Text(text.to_owned())),
        Schema::CoreYaml11Booleans => {
            go_boolean(text).map(Value::Bool).or_else(|| core(text)).unwrap_or_else(|| Value::Text(text.to_owned()))
        }
        Schema::Yaml11 => {
            if is_date(text) {
                return Err("a date must stand in quotes");
            }
            yaml11(text).unwrap_or_else(|| Value::Text(text.to_owned()))
        }
    })
}

/// What a scalar is whose tag of the core schema says so: `None` if it cannot be that.
pub(crate) fn tagged(kind: &str, text: &str, schema: Schema) -> Option<Value> {
    let resolved = || resolve(text, schema).ok();
    match kind {
        "null" => Some(Value::Null),
        "bool" => resolved().filter(|value| matches!(value, Value::Bool(_))),
        "int" => resolved().filter(|value| matches!(value, Value::Int(_))),
        "float" => match resolved()? {
            #[allow(clippy::cast_precision_loss, reason = "a float was asked for")]
            Value::Int(number) => Some(Value::Float(number as f64)),
            value @ Value::Float(_) => Some(value),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        },
        _ => Some(Value::Text(text.to_owned())),
    }
}

fn core(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    let (sign, digits) = split_sign(text);
    if let Some(value) = infinite(sign, digits, text) {
        return Some(value);
    }
    let radix = match digits.get(..2) {
        Some("0o") if sign.is_empty() => Some(8),
        Some("0x") if sign.is_empty() => Some(16),
        _ => None,
    };
    if let Some(radix) = radix {
        return integer("", &digits[2..], radix);
    }
    if is_digits(digits) {
        return integer(sign, digits, 10);
    }
    if is_float(digits, false) { text.parse().ok().map(Value::Float) } else { None }
}

/// The booleans of Go's YAML library, which Kubernetes uses.
fn go_boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// As Ruby's scanner of scalars decides.
fn yaml11(text: &str) -> Option<Value> {
    if text.is_empty() || text == "~" || text.eq_ignore_ascii_case("null") {
        return Some(Value::Null);
    }
    if ["yes", "true", "on"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Some(Value::Bool(true));
    }
    if ["no", "false", "off"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Some(Value::Bool(false));
    }
    let (sign, digits) = split_sign(text);
    if let Some(value) = infinite(sign, digits, text) {
        return Some(value);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(value) = sexagesimal(sign, digits) {
        return Some(value);
    }
    let bare = || digits.replace(['_', ','], "");
    if digits != "." && is_float(&bare(), true) && digits.contains('.') && !digits.starts_with(['_', ',']) {
        return format!("{sign}{}", bare()).parse().ok().map(Value::Float);
    }
    let of = |radix: u32, digits: &str| {
        let is_part = |c: char| c == '_' || c == ',' || c.is_digit(radix);
        let digits = if digits.chars().all(is_part) { digits.replace(['_', ','], "") } else { return None };
        integer(sign, &digits, radix)
    };
    match digits.as_bytes() {
        [b'0'] => Some(Value::Int(0)),
        [b'0', b'b', ..] => of(2, &digits[2..]),
        [b'0', b'x' | b'X', ..] => of(16, &digits[2..]),
        [b'0', ..] => of(8, &digits[1..]),
        // A comma or a line below stands between two digits.
        _ if digits.ends_with([',', '_']) || [",,", "__", ",_", "_,"].iter().any(|two| digits.contains(two)) => None,
        _ => of(10, digits),
    }
}

/// `1:30` and `1:30:00`: hours, minutes and seconds, also where there are no seconds.
fn sexagesimal(sign: &str, digits: &str) -> Option<Value> {
    let parts: Vec<&str> = digits.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    let is_small = |part: &&str| (1..=2).contains(&part.len()) && is_digits(part) && (part.len() == 1 || *part < "60");
    let first = parts[0].replace('_', "");
    if !is_digits(&first) || parts[0].starts_with('_') || !parts[1..].iter().all(is_small) {
        return None;
    }
    let mut total: i64 = 0;
    for (part, weight) in [first.as_str(), parts[1], parts.get(2).copied().unwrap_or("0")].iter().zip([3_600, 60, 1]) {
        total = part.parse::<i64>().ok()?.checked_mul(weight)?.checked_add(total)?;
    }
    Some(Value::Int(if sign == "-" { -total } else { total }))
}

/// `2026-11-30`, with or without a time of day.
fn is_date(text: &str) -> bool {
    let mut parts = text.trim_start_matches('-').splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let day = rest.bytes().take_while(u8::is_ascii_digit).count();
    let after = &rest[day..];
    let ends = after.is_empty() || (after.starts_with(['T', 't', ' ', '\t']) && is_clock(after[1..].trim_start()));
    year.len() == 4 && is_digits(year) && is_short(month) && is_short(&rest[..day]) && ends
}

/// `1:02:03`, and whatever belongs to a time behind it.
fn is_clock(text: &str) -> bool {
    let mut parts = text.splitn(3, ':');
    let (Some(hour), Some(minute), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    is_short(hour)
        && minute.len() == 2
        && is_digits(minute)
        && rest.len() >= 2
        && rest.bytes().take(2).all(|byte| byte.is_ascii_digit())
        && rest.chars().all(|c| c.is_ascii_digit() || " .:Z+-".contains(c))
}

fn is_short(text: &str) -> bool {
    text.len() <= 2 && is_digits(text)
}

fn split_sign(text: &str) -> (&str, &str) {
    if text.starts_with(['+', '-']) { text.split_at(1) } else { ("", text) }
}

fn infinite(sign: &str, digits: &str, text: &str) -> Option<Value> {
    match digits {
        ".inf" | ".Inf" | ".INF" if sign == "-" => Some(Value::Float(f64::NEG_INFINITY)),
        ".inf" | ".Inf" | ".INF" => Some(Value::Float(f64::INFINITY)),
        _ if matches!(text, ".nan" | ".NaN" | ".NAN") => Some(Value::Float(f64::NAN)),
        _ => None,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Digits with a point, an exponent or both; YAML 1.1 wants the exponent's sign written.
fn is_float(digits: &str, signed_exponent: bool) -> bool {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_is_number = (is_digits(whole) || whole.is_empty())
        && (is_digits(fraction) || fraction.is_empty())
        && !(whole.is_empty() && fraction.is_empty());
    let exponent_is_number = exponent.is_none_or(|exponent| {
        let (sign, digits) = split_sign(exponent);
        is_digits(digits) && !(signed_exponent && sign.is_empty())
    });
    mantissa_is_number && exponent_is_number
}

/// An integer; as a float, if it has more than 64 bits.
fn integer(sign: &str, digits: &str, radix: u32) -> Option<Value> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let signed = format!("{sign}{digits}");
    if let Ok(number) = i64::from_str_radix(&signed, radix) {
        return Some(Value::Int(number));
    }
    if radix == 10 { signed.parse().ok().map(Value::Float) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn each_schema_has_its_own_idea_of_a_scalar() {
        use Value::{Bool, Float, Int, Null};
        let of = |text: &str| {
            [Schema::Core, Schema::CoreYaml11Booleans, Schema::Yaml11].map(|schema| resolve(text, schema).unwrap())
        };
        let alike = |value: Value| [value.clone(), value.clone(), value];
        for (written, wanted) in [
            ("", alike(Null)),
            ("~", alike(Null)),
            ("true", alike(Bool(true))),
            ("yes", [text("yes"), Bool(true), Bool(true)]),
            ("Off", [text("Off"), Bool(false), Bool(false)]),
            ("y", [text("y"), Bool(true), text("y")]),
            ("12", alike(Int(12))),
            ("-7", alike(Int(-7))),
            ("010", [Int(10), Int(10), Int(8)]),
            ("0o14", [Int(12), Int(12), text("0o14")]),
            ("0x1F", alike(Int(31))),
            ("0b11", [text("0b11"), text("0b11"), Int(3)]),
            ("1,000", [text("1,000"), text("1,000"), Int(1000)]),
            ("1,", alike(text("1,"))),
            ("089", [Int(89), Int(89), text("089")]),
            ("3.10", alike(Float(3.1))),
            ("1.", alike(Float(1.0))),
            (".5", alike(Float(0.5))),
            (".", alike(text("."))),
            ("1e3", [Float(1000.0), Float(1000.0), text("1e3")]),
            ("1.5e+3", alike(Float(1500.0))),
            ("1.2.3", alike(text("1.2.3"))),
            ("1:30", [text("1:30"), text("1:30"), Int(5400)]),
            ("12:61", alike(text("12:61"))),
            ("500m", alike(text("500m"))),
            ("-", alike(text("-"))),
            ("+", alike(text("+"))),
            ("-.inf", alike(Float(f64::NEG_INFINITY))),
            ("9223372036854775808", alike(Float(9_223_372_036_854_775_808.0))),
            ("nil", alike(text("nil"))),
            ("a:b", alike(text("a:b"))),
        ] {
            assert_eq!(of(written), wanted, "{written}");
        }
    }

    #[test]
    fn only_yaml_1_1_knows_dates_and_refuses_them() {
        for date in ["2026-11-30", "2026-1-3", "2026-11-30 08:45:00", "2026-11-30T08:45:00.5Z"] {
            assert!(resolve(date, Schema::Yaml11).is_err(), "{date}");
            assert_eq!(resolve(date, Schema::Core), Ok(text(date)));
        }
        for no_date in ["2026-11", "1.2026-11-30", "2026-11-30-x", "2026-11-30T08", "20261-1-1", "2026-11-30 é"] {
            assert_eq!(resolve(no_date, Schema::Yaml11), Ok(text(no_date)), "{no_date}");
        }
    }
}
