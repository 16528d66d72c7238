//! A figure and the bound it answers to.

use serde::Serialize;

/// What a figure must reach. The numbers are the crates' promises; a bound stands beside the bench that measures it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The value is at most this.
    AtMost(f64),
    /// The value is at least this.
    AtLeast(f64),
    /// The value divided by the peer's is at most this.
    RatioAtMost(f64),
    /// The value divided by the peer's is at least this.
    RatioAtLeast(f64),
    /// Shown for comparison; nothing is promised.
    None,
}

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The median measured, or nothing where it could not be (see `note`).
    pub value: Option<f64>,
    /// The unit of `value` and of the peer's.
    pub unit: &'static str,
    /// The peer that ran beside it, with its own value.
    pub peer: Option<String>,
    /// The value divided by the peer's, from interleaved rounds.
    pub ratio: Option<f64>,
    /// The bound, as text.
    pub bound: String,
    /// Whether the bound holds; nothing where none is set or nothing was measured.
    pub holds: Option<bool>,
    /// What a reader must know beside the number: a smaller scale, a peer that is not installed.
    pub note: String,
    #[serde(skip)]
    limit: Bound,
}

impl Row {
    /// A figure that stands by itself.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, limit: Bound) -> Self {
        let mut row = Self {
            name: name.into(),
            value: Some(value),
            unit,
            peer: None,
            ratio: None,
            bound: String::new(),
            holds: None,
            note: String::new(),
            limit,
        };
        row.judge();
        row
    }

    /// A figure that could not be measured here, with the reason: a peer that is not installed is a row, not a failure.
    #[must_use]
    pub fn absent(name: impl Into<String>, unit: &'static str, why: impl Into<String>) -> Self {
        let mut row = Self::new(name, 0.0, unit, Bound::None);
        row.value = None;
        row.note = why.into();
        row
    }

    /// Sets the peer that ran in the same rounds, its value, and the ratio of the two.
    #[must_use]
    pub fn beside(mut self, peer: &str, value: f64, ratio: f64) -> Self {
        self.peer = Some(format!("{peer}: {}", short(value)));
        self.ratio = Some(ratio);
        self.judge();
        self
    }

    /// Adds what a reader must know beside the number.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn judge(&mut self) {
        let unit = self.unit;
        (self.bound, self.holds) = match self.limit {
            Bound::AtMost(limit) => (format!("≤ {} {unit}", short(limit)), self.value.map(|value| value <= limit)),
            Bound::AtLeast(limit) => (format!("≥ {} {unit}", short(limit)), self.value.map(|value| value >= limit)),
            Bound::RatioAtMost(limit) => (format!("ratio ≤ {limit}"), self.ratio.map(|ratio| ratio <= limit)),
            Bound::RatioAtLeast(limit) => (format!("ratio ≥ {limit}"), self.ratio.map(|ratio| ratio >= limit)),
            Bound::None => (String::new(), None),
        };
    }
}

/// A number as people read it: three significant figures, thousands marked.
#[must_use]
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1e9 {
        format!("{:.2} G", value / 1e9)
    } else if size >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if size >= 1e4 {
        format!("{:.1} k", value / 1e3)
    } else if size >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Row};

    #[test]
    fn a_bound_is_judged_on_what_it_names() {
        assert_eq!(Row::new("a", 3.0, "ns", Bound::AtMost(3.0)).holds, Some(true));
        assert_eq!(Row::new("a", 3.1, "ns", Bound::AtMost(3.0)).holds, Some(false));
        assert_eq!(Row::new("a", 2.9, "ns", Bound::AtLeast(3.0)).holds, Some(false));
        let lone = Row::new("a", 3.0, "ns", Bound::RatioAtMost(1.5));
        assert_eq!(lone.holds, None, "a ratio without a peer is not judged");
        assert_eq!(lone.beside("peer", 1.0, 3.0).holds, Some(false));
        assert_eq!(Row::absent("a", "ns", "not installed").holds, None);
    }
}
