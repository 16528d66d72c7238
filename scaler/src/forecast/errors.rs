//! Errors of the chosen model on the days that it was tested on.

use super::Forecast;
use crate::num::Milli;

/// A forecast value and the actual one, both in thousandths.
pub(super) type Pair = (i64, i64);

/// The actual value, in thousandths of the forecast one.
pub(super) fn ratio((foreseen, came): Pair) -> u64 {
    let ratio = u128::from(came.max(0).unsigned_abs()) * 1000 / u128::from(foreseen.max(1).unsigned_abs());
    u64::try_from(ratio).unwrap_or(u64::MAX)
}

impl Forecast {
    /// The mean absolute percentage error of the chosen model on the test days, in thousandths of the actual value (100
    /// is 10 %).
    ///
    /// Values of 0 and below have no such error and are left out; `None` if there are no others.
    #[must_use]
    pub fn mape_permille(&self) -> Option<u32> {
        let of =
            |(foreseen, came): &Pair| u128::from(came.abs_diff(*foreseen)) * 1000 / u128::from(came.unsigned_abs());
        let errors = || self.tested.iter().filter(|(_, came)| *came > 0).map(of);
        let sum = errors().fold(0_u128, u128::saturating_add);
        let mean = sum.checked_div(errors().count() as u128)?;
        Some(u32::try_from(mean).unwrap_or(u32::MAX))
    }

    /// The mean pinball loss of [`Forecast::quantile`] at `permille` thousandths, on the days that the chosen model was
    /// tested on.
    ///
    /// An actual value above the quantile costs `permille` thousandths of the distance, one below it the rest of a
    /// thousand. Of two forecasts, the one with the smaller loss has the better quantile; at 500 it is half the mean
    /// absolute error.
    #[must_use]
    pub fn pinball(&self, permille: u16) -> Milli {
        let permille = permille.min(1000);
        let ratio = self.ratio(permille);
        let loss = |(foreseen, came): &Pair| {
            let quantile = u128::from(foreseen.max(&0).unsigned_abs()) * u128::from(ratio) / 1000;
            let quantile = i64::try_from(quantile).unwrap_or(i64::MAX);
            let weight = if *came >= quantile { permille } else { 1000 - permille };
            u128::from(came.abs_diff(quantile)) * u128::from(weight)
        };
        let sum = self.tested.iter().map(loss).fold(0_u128, u128::saturating_add);
        let mean = sum / (self.tested.len().max(1) as u128 * 1000);
        Milli::from_thousandths(i64::try_from(mean).unwrap_or(i64::MAX))
    }
}
