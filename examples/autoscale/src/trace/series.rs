//! What a recorded series says at any instant.

/// What holds between two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Between {
    /// The earlier row holds until the later one
    Held,
    /// The value goes from one row to the next in a straight line
    Linear,
}

/// A series with its step.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) points: Vec<(u64, Option<f64>)>,
    /// The median distance of its rows, in ms; `None` for one row, which holds for ever.
    pub(crate) step_ms: Option<u64>,
    pub(crate) between: Between,
}

impl Series {
    pub(crate) fn new(points: Vec<(u64, Option<f64>)>, between: Between) -> Self {
        let step_ms = median_step(&points);
        Self { points, step_ms, between }
    }

    /// Of the row at `place`, until when it counts: less than two steps, and not past the next one.
    fn end(&self, place: usize) -> u64 {
        let at = self.points[place].0;
        let alone = self.step_ms.map_or(u64::MAX, |step| at.saturating_add(step.saturating_mul(2)));
        self.points.get(place + 1).map_or(alone, |next| next.0.min(alone))
    }
}

/// The median distance of rows, in ms.
pub(crate) fn median_step(points: &[(u64, Option<f64>)]) -> Option<u64> {
    let mut steps: Vec<u64> = points.windows(2).map(|two| two[1].0 - two[0].0).collect();
    let middle = steps.len() / 2;
    (!steps.is_empty()).then(|| *steps.select_nth_unstable(middle).1)
}

/// Looks a series up at instants that go forward.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    series: &'a Series,
    place: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(series: &'a Series) -> Self {
        Self { series, place: 0 }
    }

    /// The last row that is not after `at`.
    fn seek(&mut self, at: u64) -> Option<usize> {
        let points = &self.series.points;
        if points.first().is_none_or(|first| first.0 > at) {
            return None;
        }
        if points[self.place].0 > at {
            self.place = 0;
        }
        while points.get(self.place + 1).is_some_and(|next| next.0 <= at) {
            self.place += 1;
        }
        Some(self.place)
    }

    /// The value at `at`; `None` where it is missing.
    pub(crate) fn value(&mut self, at: u64) -> Option<f64> {
        let place = self.seek(at)?;
        let (from, value) = self.series.points[place];
        let value = value.filter(|_| at < self.series.end(place))?;
        if self.series.between == Between::Linear
            && let Some((until, Some(next))) = self.series.points.get(place + 1).copied()
            && self.series.step_ms.is_some_and(|step| until - from <= step + step / 2)
        {
            let share = ratio(at - from, until - from);
            return Some(value + (next - value) * share);
        }
        Some(value)
    }

    /// The next instant after `at` at which the value may be another.
    pub(crate) fn next_change(&mut self, at: u64) -> u64 {
        match self.seek(at) {
            None => self.series.points.first().map_or(u64::MAX, |first| first.0),
            Some(place) => {
                let end = self.series.end(place);
                let next = self.series.points.get(place + 1).map_or(u64::MAX, |next| next.0);
                if end > at { end } else { next }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "two rows are not thousands of years apart")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_for_less_than_two_steps() {
        let points = vec![(0, Some(1.0)), (60, Some(2.0)), (120, None), (180, Some(3.0)), (600, Some(4.0))];
        let series = Series::new(points, Between::Held);
        assert_eq!(series.step_ms, Some(60));
        let mut reader = Reader::new(&series);
        let seen: Vec<Option<f64>> =
            [0, 59, 60, 119, 120, 179, 180, 299, 300, 599, 600, 719, 720].map(|at| reader.value(at)).into();
        let expected = [
            Some(1.0),
            Some(1.0),
            Some(2.0),
            Some(2.0),
            None,
            None,
            Some(3.0),
            Some(3.0),
            None,
            None,
            Some(4.0),
            Some(4.0),
            None,
        ];
        assert_eq!(seen, expected);
        assert_eq!(Reader::new(&series).next_change(180), 300);
        assert_eq!(Reader::new(&series).next_change(300), 600);
    }

    #[test]
    fn a_straight_line_goes_over_one_step_alone() {
        let points = vec![(0, Some(0.0)), (60, Some(6.0)), (120, Some(0.0)), (360, Some(9.0))];
        let series = Series::new(points, Between::Linear);
        let mut reader = Reader::new(&series);
        assert_eq!(reader.value(20), Some(2.0));
        assert_eq!(reader.value(90), Some(3.0));
        assert_eq!(reader.value(130), Some(0.0));
        assert_eq!(reader.value(300), None);
        assert_eq!(reader.value(10), Some(1.0), "also back in time");
    }
}
