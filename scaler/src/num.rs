//! Quantities as integers: thousandths, with arithmetic that saturates and never wraps.

/// A quantity in thousandths of its unit: 1.5 requests a second is `Milli::from_thousandths(1500)`.
///
/// Integers make a decision the same on every machine. A result too large to name stays at the largest, so an overload
/// that overflows still reads as an overload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Milli(i64);

impl Milli {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// The largest quantity.
    pub const MAX: Self = Self(i64::MAX);

    /// `thousandths` thousandths of a unit.
    #[must_use]
    pub const fn from_thousandths(thousandths: i64) -> Self {
        Self(thousandths)
    }

    /// `units` whole units, at most [`Milli::MAX`].
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self(units.saturating_mul(1000))
    }

    /// The nearest thousandth to `value`; `None` for a NaN, which is a missing sample and not a number.
    ///
    /// ```
    /// use tenon_scaler::Milli;
    ///
    /// assert_eq!(Milli::from_f64(1.5), Some(Milli::from_thousandths(1_500)));
    /// assert_eq!(Milli::from_f64(f64::NAN), None);
    /// ```
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Self> {
        if value.is_nan() {
            return None;
        }
        let scaled = value * 1000.0;
        let rounded = if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 };
        #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, which is what is promised")]
        Some(Self(rounded as i64))
    }

    /// The quantity in thousandths of its unit.
    #[must_use]
    pub const fn as_thousandths(self) -> i64 {
        self.0
    }

    /// The quantity in thousandths, at least zero.
    #[must_use]
    pub fn at_least_zero(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }
}

impl core::fmt::Display for Milli {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let size = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:03}", size / 1000, size % 1000)
    }
}

/// `a * b / c` rounded up, at most `u32::MAX`; `u32::MAX` where `c` is 0 and the product is not.
pub(crate) fn mul_div_ceil(a: u64, b: u64, c: u64) -> u32 {
    let product = u128::from(a) * u128::from(b);
    if product == 0 {
        return 0;
    }
    if c == 0 {
        return u32::MAX;
    }
    u32::try_from(product.div_ceil(u128::from(c))).unwrap_or(u32::MAX)
}

/// `base + by`, kept within `0..=u32::MAX`.
pub(crate) fn shift(base: u32, by: i64) -> u32 {
    let sum = i64::from(base).saturating_add(by);
    u32::try_from(sum.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_never_overflows_to_little() {
        assert_eq!(mul_div_ceil(u64::MAX, u64::MAX, 1), u32::MAX);
        assert_eq!(mul_div_ceil(5, 3, 0), u32::MAX);
        assert_eq!(mul_div_ceil(0, 3, 0), 0);
        assert_eq!(mul_div_ceil(10, 1001, 1000), 11);
        assert_eq!(shift(3, -5), 0);
        assert_eq!(shift(u32::MAX, i64::MAX), u32::MAX);
    }

    #[test]
    fn floats_round_saturate_and_nan_is_missing() {
        assert_eq!(Milli::from_f64(1.2345), Some(Milli(1235)));
        assert_eq!(Milli::from_f64(-0.5), Some(Milli(-500)));
        assert_eq!(Milli::from_f64(f64::INFINITY), Some(Milli::MAX));
        assert_eq!(Milli::from_f64(f64::NAN), None);
    }
}
