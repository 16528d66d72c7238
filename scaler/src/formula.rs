//! Formulas: metrics computed from others, such as load per instance, the larger of two queues, or a rate for each
//! instance.

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::error::PolicyError;
use crate::id::MetricId;
use crate::metric::{Metric, Sample};
use crate::num::Milli;

/// A term of a formula in reverse Polish notation: values are pushed on a stack, and operations take two off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Term {
    /// The last sample of a measured metric.
    Metric(MetricId),
    /// A constant.
    Number(Milli),
    /// The number of instances that serve.
    Ready,
    /// The sum of two values.
    Add,
    /// The first value less the second.
    Sub,
    /// The product of two values.
    Mul,
    /// The first value over the second; over zero, the sample is missing.
    Div,
    /// The larger of two values.
    Max,
    /// The smaller of two values.
    Min,
}

/// A formula: a metric that is computed whenever one of its inputs is measured.
///
/// Its sample is as old as the oldest of its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Formula {
    /// The metric that is computed.
    pub metric: MetricId,
    /// The terms, in reverse Polish notation.
    pub terms: Vec<Term>,
}

/// The maximum number of terms of one formula.
const MAX_TERMS: usize = 64;

impl Formula {
    /// Checks that it leaves one value, and names only metrics that are declared and measured.
    pub(crate) fn check(&self, metrics: &[Metric], formulas: &[Self]) -> Result<(), PolicyError> {
        let wrong = Err(PolicyError::Formula(self.metric));
        let declared = |id: MetricId| metrics.iter().any(|metric| metric.id == id);
        let computed = |id: MetricId| formulas.iter().filter(|other| other.metric == id).count();
        let mut depth = 0_usize;
        let mut reads = false;
        for term in &self.terms {
            match term {
                Term::Metric(id) if !declared(*id) || computed(*id) > 0 => return wrong,
                Term::Metric(_) => (depth, reads) = (depth + 1, true),
                Term::Number(_) | Term::Ready => depth += 1,
                Term::Add | Term::Sub | Term::Mul | Term::Div | Term::Max | Term::Min if depth < 2 => return wrong,
                Term::Add | Term::Sub | Term::Mul | Term::Div | Term::Max | Term::Min => depth -= 1,
            }
        }
        let once = declared(self.metric) && computed(self.metric) == 1;
        if once && reads && depth == 1 && self.terms.len() <= MAX_TERMS { Ok(()) } else { wrong }
    }

    pub(crate) fn reads(&self, id: MetricId) -> bool {
        self.terms.contains(&Term::Metric(id))
    }

    /// The value of the formula, and the time of its oldest sample.
    ///
    /// `None` if a sample is missing, or a divisor is zero.
    ///
    /// ```
    /// use tenon_scaler::{Formula, MetricId, Milli, Sample, Term, Timestamp};
    ///
    /// // The load of each instance: metric 1 over the number of instances that serve.
    /// let formula = Formula { metric: MetricId(2), terms: vec![Term::Metric(MetricId(1)), Term::Ready, Term::Div] };
    /// let at = Timestamp::from_millis(1);
    /// let load = |_| Some(Sample { at, value: Milli::from_units(30), over: 4 });
    /// assert_eq!(formula.value(load, 4), Some((Milli::from_thousandths(7_500), at)));
    /// ```
    #[must_use]
    pub fn value(&self, sample: impl Fn(MetricId) -> Option<Sample>, ready: u32) -> Option<(Milli, Timestamp)> {
        let mut stack: SmallVec<[i64; 8]> = SmallVec::new();
        let mut oldest = Timestamp::MAX;
        for term in &self.terms {
            let value = match term {
                Term::Metric(id) => {
                    let sample = sample(*id)?;
                    oldest = oldest.min(sample.at);
                    sample.value.as_thousandths()
                }
                Term::Number(number) => number.as_thousandths(),
                Term::Ready => i64::from(ready) * 1000,
                Term::Add | Term::Sub | Term::Mul | Term::Div | Term::Max | Term::Min => {
                    let (second, first) = (stack.pop()?, stack.pop()?);
                    operate(*term, first, second)?
                }
            };
            stack.push(value);
        }
        stack.pop().map(|value| (Milli::from_thousandths(value), oldest))
    }
}

/// In thousandths, at most as large as can be named.
fn operate(term: Term, first: i64, second: i64) -> Option<i64> {
    let (wide, other) = (i128::from(first), i128::from(second));
    let value = match term {
        Term::Add => wide + other,
        Term::Sub => wide - other,
        Term::Mul => wide * other / 1000,
        Term::Div => (wide * 1000).checked_div(other)?,
        Term::Max => wide.max(other),
        Term::Min => wide.min(other),
        Term::Metric(_) | Term::Number(_) | Term::Ready => return None,
    };
    let bound = if value < 0 { i64::MIN } else { i64::MAX };
    Some(i64::try_from(value).unwrap_or(bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milli(units: i64) -> Milli {
        Milli::from_units(units)
    }

    #[test]
    fn a_formula_is_as_old_as_its_oldest_part_and_does_not_wrap() {
        let sample = |id: MetricId| match id.0 {
            1 => Some(Sample { at: Timestamp::from_millis(70), value: milli(30), over: 1 }),
            2 => Some(Sample { at: Timestamp::from_millis(50), value: milli(4), over: 1 }),
            3 => Some(Sample { at: Timestamp::from_millis(60), value: Milli::MAX, over: 1 }),
            _ => None,
        };
        let value = |terms: &[Term]| Formula { metric: MetricId(9), terms: terms.to_vec() }.value(sample, 5);
        let (one, two, huge) = (Term::Metric(MetricId(1)), Term::Metric(MetricId(2)), Term::Metric(MetricId(3)));
        let at = Timestamp::from_millis;
        assert_eq!(value(&[one, two, Term::Div]), Some((Milli::from_thousandths(7_500), at(50))));
        assert_eq!(value(&[one, Term::Ready, Term::Div, two, Term::Max]), Some((milli(6), at(50))));
        assert_eq!(value(&[one, two, Term::Sub, Term::Number(milli(2)), Term::Mul]), Some((milli(52), at(50))));
        assert_eq!(value(&[huge, huge, Term::Mul]), Some((Milli::MAX, at(60))));
        assert_eq!(value(&[one, Term::Number(Milli::ZERO), Term::Div]), None);
        assert_eq!(value(&[one, Term::Metric(MetricId(4)), Term::Min]), None);
    }
}
