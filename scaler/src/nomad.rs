//! The Nomad Autoscaler's `threshold` and `target-value` strategies, exactly, with the texts that configure them.
//!
//! Follows the Nomad Autoscaler as of July 2026 (its main branch at ede4e61), texts of errors included. Checked against the
//! test tables of the original (`tests/conformance.rs`). Sources: `plugins/builtin/strategy` of the
//! Nomad Autoscaler.

use alloc::string::String;

use crate::reason::Direction;

/// Why a configuration is invalid, in the original's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NomadError {
    /// Neither bound is given.
    #[error("missing required field, must have either \"lower_bound\" or \"upper_bound\"")]
    NoBound,
    /// No action is given.
    #[error("missing required field, must have either \"delta\", \"percentage\" or \"value\"")]
    NoAction,
    /// Several actions are given.
    #[error("only one of \"delta\", \"percentage\" or \"value\" must be provided")]
    Actions,
    /// No target is given.
    #[error("missing required field `target`")]
    NoTarget,
    /// A value of `threshold` cannot be read. Names the field and its text.
    #[error("invalid value for \"{0}\": {1} (string)")]
    Threshold(&'static str, String),
    /// A value of `target-value` cannot be read. Names the field and its text.
    #[error("invalid value for `{0}`: {1} (string)")]
    TargetValue(&'static str, String),
    /// An action's value is not a whole number. Names the field and its text. (The spelling of the message is the
    /// original's.)
    #[error("\"{0}\" value {1} is not an interger")]
    NotInteger(&'static str, String),
    /// A percentage is not a number.
    #[error("\"percentage\" value {0} is not a number")]
    NotANumber(String),
    /// A count is negative.
    #[error("\"value\" value {0} is negative")]
    Negative(String),
}

/// A change that a strategy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Action {
    /// The direction of the change.
    pub direction: Direction,
    /// The new count.
    pub count: i64,
}

/// The `threshold` strategy: act when enough samples are within bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    lower: f64,
    upper: f64,
    trigger: i64,
    change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Delta(i64),
    Percentage(f64),
    Value(i64),
}

/// Finds the text of a key; an empty text counts as none.
fn text<'a>(config: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    config.iter().find(|(held, text)| *held == key && !text.is_empty()).map(|(_, text)| *text)
}

impl Threshold {
    /// Parses the strategy's configuration.
    ///
    /// # Errors
    /// A [`NomadError`] that names the field.
    pub fn parse(config: &[(&str, &str)]) -> Result<Self, NomadError> {
        let bound = |key: &'static str, open: f64| {
            let wrong = |text: &str| NomadError::Threshold(key, text.into());
            text(config, key).map_or(Ok(open), |text| text.parse::<f64>().map_err(|_| wrong(text)))
        };
        if text(config, "lower_bound").is_none() && text(config, "upper_bound").is_none() {
            return Err(NomadError::NoBound);
        }
        let upper = bound("upper_bound", f64::INFINITY)?;
        let lower = bound("lower_bound", f64::NEG_INFINITY)?;
        let key = "within_bounds_trigger";
        let wrong = |text: &str| NomadError::Threshold(key, text.into());
        let trigger = text(config, key).map_or(Ok(5), |text| text.parse().map_err(|_| wrong(text)))?;
        let whole =
            |key: &'static str, text: &str| text.parse::<i64>().map_err(|_| NomadError::NotInteger(key, text.into()));
        let change = match (text(config, "delta"), text(config, "percentage"), text(config, "value")) {
            (None, None, None) => return Err(NomadError::NoAction),
            (Some(delta), None, None) => Change::Delta(whole("delta", delta)?),
            (None, Some(share), None) => {
                Change::Percentage(share.parse().map_err(|_| NomadError::NotANumber(share.into()))?)
            }
            (None, None, Some(value)) => match whole("value", value)? {
                below if below < 0 => return Err(NomadError::Negative(value.into())),
                value => Change::Value(value),
            },
            _ => return Err(NomadError::Actions),
        };
        Ok(Self { lower, upper, trigger, change })
    }

    /// The action for `count` instances, if any. The lower bound is inside, the upper one outside.
    #[must_use]
    pub fn run(&self, count: i64, samples: &[f64]) -> Option<Action> {
        let within = samples.iter().filter(|sample| self.lower <= **sample && **sample < self.upper).count();
        if i64::try_from(within).unwrap_or(i64::MAX) < self.trigger {
            return None;
        }
        let wanted = match self.change {
            Change::Delta(delta) => count.saturating_add(delta),
            Change::Percentage(share) => ceil(float(count) * (1.0 + share / 100.0)),
            Change::Value(value) => value,
        };
        let wanted = wanted.max(0);
        let direction = if wanted > count { Direction::Out } else { Direction::In };
        (wanted != count).then_some(Action { direction, count: wanted })
    }
}

/// The `target-value` strategy: keep the last sample at its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetValue {
    target: f64,
    threshold: f64,
    max_up: Option<i64>,
    max_down: Option<i64>,
}

impl TargetValue {
    /// Parses the strategy's configuration.
    ///
    /// # Errors
    /// A [`NomadError`] that names the field.
    pub fn parse(config: &[(&str, &str)]) -> Result<Self, NomadError> {
        let number = |key: &'static str| {
            let wrong = |text: &str| NomadError::TargetValue(key, text.into());
            text(config, key).map(|text| text.parse::<f64>().map_err(|_| wrong(text))).transpose()
        };
        let whole = |key: &'static str| {
            let wrong = |text: &str| NomadError::TargetValue(key, text.into());
            text(config, key).map(|text| text.parse::<i64>().map_err(|_| wrong(text))).transpose()
        };
        Ok(Self {
            target: number("target")?.ok_or(NomadError::NoTarget)?,
            threshold: number("threshold")?.unwrap_or(0.01),
            max_up: whole("max_scale_up")?,
            max_down: whole("max_scale_down")?,
        })
    }

    /// The action for `count` instances, if any.
    #[must_use]
    pub fn run(&self, count: i64, samples: &[f64]) -> Option<Action> {
        let last = *samples.last()?;
        // A target of zero: a queue that should be empty.
        let factor = if self.target.abs() > 0.0 { last / self.target } else { last };
        let direction = if count == 0 {
            (factor > 0.0).then_some(Direction::Out)?
        } else if factor < 1.0 - self.threshold {
            Direction::In
        } else {
            (factor > 1.0 + self.threshold).then_some(Direction::Out)?
        };
        let mut wanted = if count == 0 { ceil(factor) } else { ceil(float(count) * factor) };
        if let Some(most) = self.max_down {
            wanted = wanted.max(count.saturating_sub(most));
        }
        if let Some(most) = self.max_up {
            wanted = wanted.min(count.saturating_add(most));
        }
        (wanted != count).then_some(Action { direction, count: wanted })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, which is what is meant")]
fn ceil(value: f64) -> i64 {
    libm::ceil(value) as i64
}

#[expect(clippy::cast_precision_loss, reason = "the original calculates so")]
fn float(value: i64) -> f64 {
    value as f64
}
