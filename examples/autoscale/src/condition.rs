//! `--fail-if 'short > 1%'`: a condition on what came out.

use crate::error::{Error, Result};
use crate::output::percent;
use crate::quantity::duration_ms;
use crate::rehearse::{Outcome, Sums};

/// A condition that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    figure: Figure,
    is_above: bool,
    /// Whether the bound itself counts.
    inclusive: bool,
    bound: f64,
    is_share: bool,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Short,
    Unserved,
    PodHours,
    Changes,
    Flaps,
    Starts,
    Peak,
}

const FIGURES: [(&str, Figure); 7] = [
    ("short", Figure::Short),
    ("unserved", Figure::Unserved),
    ("pod-hours", Figure::PodHours),
    ("changes", Figure::Changes),
    ("flaps", Figure::Flaps),
    ("starts", Figure::Starts),
    ("peak", Figure::Peak),
];

impl Condition {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let known = FIGURES.map(|(name, _)| name).join(", ");
        let wrong = |what: &str| {
            Error::new(format!("--fail-if '{text}': {what}; write such as 'short > 1%' with one of {known}"))
        };
        let at = text.find(['>', '<']).ok_or_else(|| wrong("there is no > or <"))?;
        let (name, rest) = text.split_at(at);
        let is_above = rest.starts_with('>');
        let inclusive = rest[1..].starts_with('=');
        let number = rest[1..].trim_start_matches('=').trim();
        let figure = FIGURES.iter().find(|(known, _)| *known == name.trim()).map(|(_, figure)| *figure);
        let figure = figure.ok_or_else(|| wrong("the figure is not known"))?;
        let (digits, is_share) = number.strip_suffix('%').map_or((number, false), |digits| (digits.trim(), true));
        let bound = match (digits.parse::<f64>(), duration_ms(digits)) {
            (Ok(bound), _) if bound.is_finite() => bound,
            #[expect(clippy::cast_precision_loss, reason = "a span of time")]
            (_, Some(ms)) if figure == Figure::Short => ms as f64 / 1_000.0,
            _ => return Err(wrong("there is no number behind the sign")),
        };
        if is_share && !matches!(figure, Figure::Short | Figure::Unserved) {
            return Err(wrong("only short and unserved are shares"));
        }
        Ok(Self { figure, is_above, inclusive, bound, is_share, text: text.to_owned() })
    }

    /// What it says of an outcome where it holds.
    ///
    /// # Errors
    /// Where the figure is not known, since no capacity is.
    pub(crate) fn holds(&self, outcome: &Outcome) -> Result<Option<String>> {
        let value = self.value(&outcome.sums).ok_or_else(|| {
            Error::new(format!(
                "--fail-if '{}': {} has no such figure, since what a pod carries is not known: say it with --capacity",
                self.text, outcome.title
            ))
        })?;
        let beyond = if self.is_above { value > self.bound } else { value < self.bound };
        let at = self.inclusive && (value - self.bound).abs() <= f64::EPSILON * self.bound.abs();
        let sign = if self.is_share { " %" } else { "" };
        Ok((beyond || at).then(|| format!("{}: '{}' holds: it is {value:.3}{sign}", outcome.title, self.text)))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    fn value(&self, sums: &Sums) -> Option<f64> {
        Some(match self.figure {
            Figure::Short if self.is_share => percent(sums.short_seconds?, sums.seconds),
            Figure::Short => sums.short_seconds?,
            Figure::Unserved if self.is_share => percent(sums.unserved?, sums.demanded?),
            Figure::Unserved => sums.unserved?,
            Figure::PodHours => sums.pod_seconds / 3_600.0,
            Figure::Changes => sums.changes as f64,
            Figure::Flaps => sums.flaps as f64,
            Figure::Starts => sums.starts as f64,
            Figure::Peak => f64::from(sums.peak),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_or_refused_with_the_way_to_write_them() {
        for (text, figure, above, bound, share) in [
            ("short > 1%", Figure::Short, true, 1.0, true),
            ("short>=90s", Figure::Short, true, 90.0, false),
            ("unserved > 0.1 %", Figure::Unserved, true, 0.1, true),
            ("pod-hours < 12", Figure::PodHours, false, 12.0, false),
        ] {
            let read = Condition::parse(text).unwrap();
            assert_eq!((read.figure, read.is_above, read.is_share), (figure, above, share), "{text}");
            assert!((read.bound - bound).abs() < 1e-12, "{text}");
        }
        for text in ["short", "shortage > 1%", "short > many", "flaps > 1%", "peak > 5m"] {
            assert!(Condition::parse(text).unwrap_err().message.contains("write such as"), "{text}");
        }
    }
}
