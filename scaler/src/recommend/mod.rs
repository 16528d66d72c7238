//! Recommendation: the cheapest rules that would have kept the shortage under an objective.
//!
//! They are found by rehearsing candidates on history, and tested on days that they were not fitted to.
//!
//! Three families are searched: a metric rule alone, timed floors alone, and floors with a metric rule as the backstop.
//! Each candidate is judged week by week, by rules made from the *other* weeks, so that a timetable is not praised for
//! having learned by heart what it is asked. Within a family, more head-room means less shortage and more cost: the least
//! that suffices is found by bisection, and a family is left as soon as it can no longer be the cheapest.

mod profile;
mod replay;
mod trial;

pub use replay::{Semantics, side_by_side};
pub use trial::Outcome;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Timestamp;
use crate::error::PolicyError;
use crate::forecast::Series;
use crate::group::Policy;
use crate::id::ZoneId;
use crate::num::{Milli, mul_div_ceil};
use crate::schedule::Zones;

use profile::{Calendar, Timetable};
use trial::{Plan, Trial};

/// The objective that rules are to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objective {
    /// The load that one instance carries.
    pub per_instance: Milli,
    /// The time that an instance takes to serve, in ms.
    pub start_ms: u64,
    /// The allowed shortage: the share of the time, in millionths, in which fewer may serve than are needed.
    pub shortage_millionths: u32,
    /// The minimum size.
    pub min: u32,
    /// The maximum size.
    pub max: u32,
    /// The zone whose wall clock timed rules follow.
    pub zone: ZoneId,
    /// The number of days at the end that are held out for the test.
    pub test_days: u32,
}

/// Why no rules are recommended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecommendError {
    /// The history has fewer than two weeks before the days that are held out, or no day is held out.
    #[error("the history has fewer than two weeks before the days that are held out, or no day is held out")]
    TooShort,
    /// An instance carries nothing, or the maximum is below the minimum or zero.
    #[error("an instance carries nothing, or the bounds leave no room")]
    Objective,
    /// The zone is not among those given.
    #[error("zone {0} is not among those given")]
    NoZone(ZoneId),
    /// No rules tried would have met the objective; the least shortage was this many millionths.
    #[error("no rules keep the shortage under the objective: the least is {0} millionths")]
    OutOfReach(u32),
    /// The rules found are not a valid policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The family of rules that is recommended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// A metric rule alone.
    Metric,
    /// Timed floors alone.
    Timed,
    /// Timed floors, with a metric rule as the backstop.
    Both,
}

/// Whether rules are worth their while, compared with a fixed fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Take the rules.
    ///
    /// On the days that were held out, the rules keep to the objective where the fixed fleet does not; or they cost
    /// less, there as on the days that they were fitted to, and keep to the objective or are short no longer than the
    /// fixed fleet.
    Rules,
    /// Take the fixed fleet, which is this policy: no rules tried beat it.
    Fixed(Box<Policy>),
}

/// A recommendation: the cheapest rules found, and the evidence for them.
///
/// The rules follow from the days that they were fitted to alone; the [`Advice`] also from the days that were held out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Recommendation {
    /// The rules.
    pub policy: Policy,
    /// The family of the rules.
    pub family: Family,
    /// The outcome of the rules on the days that they were fitted to, each week by rules made from the other weeks.
    pub fitted: Outcome,
    /// The outcome of the rules on the days that were held out.
    pub tested: Outcome,
    /// The smallest fleet of a fixed size that meets the objective on the days that the rules were fitted to.
    pub fixed_size: u32,
    /// The outcome of that fleet on the days that were held out.
    pub fixed: Outcome,
    /// The days that the rules were fitted to: from and until.
    pub fitted_days: (Timestamp, Timestamp),
    /// The days that were held out: from and until.
    pub tested_days: (Timestamp, Timestamp),
    /// The number of candidates that were rehearsed.
    pub tried: u32,
    /// Whether to take these rules, or the fixed fleet.
    pub advice: Advice,
    /// The allowed shortage, in millionths of the time.
    pub allowed_millionths: u32,
}

impl Recommendation {
    /// The saving against the fixed fleet on the days that were held out, in thousandths of its instance-hours.
    ///
    /// Below 0 if the rules cost more.
    #[must_use]
    pub fn saves_permille(&self) -> i64 {
        let (ours, theirs) = (self.tested.instance_ms, self.fixed.instance_ms.max(1));
        let share = i64::try_from(ours.saturating_mul(1000) / theirs).unwrap_or(i64::MAX);
        1000 - share
    }

    /// The outcome of the advice on the days that were held out: that of the rules, or of the fixed fleet.
    #[must_use]
    pub const fn advised(&self) -> &Outcome {
        match self.advice {
            Advice::Rules => &self.tested,
            Advice::Fixed(_) => &self.fixed,
        }
    }

    /// The shortage of the advice on the days that were held out, in thousandths of the allowed shortage.
    ///
    /// Up to 1000 the objective is met; 3000 is three times too much.
    #[must_use]
    pub fn shortage_of_allowed_permille(&self) -> u32 {
        let short = u64::from(self.advised().shortage_millionths());
        let permille = short.saturating_mul(1000).div_ceil(u64::from(self.allowed_millionths.max(1)));
        u32::try_from(permille).unwrap_or(u32::MAX)
    }
}

/// Head-room is looked for on a grid of so many steps, each of so many thousandths.
const STEPS: u32 = 64;
const STEP_PERMILLE: u32 = 25;

/// Finds rules for the load in `history`, which counts what all instances together carry.
///
/// ```
/// use tenon_scaler::forecast::Series;
/// use tenon_scaler::recommend::{Objective, RecommendError, recommend};
/// use tenon_scaler::{Milli, Timestamp, ZoneId, Zones};
///
/// let history = Series::new(Timestamp::ZERO, 3_600_000, vec![Some(Milli::from_units(5)); 24])?; // one day is too short
/// let (zone, shortage_millionths) = (ZoneId(0), 1_000);
/// let (per_instance, start_ms, min, max, test_days) = (Milli::from_units(2), 60_000, 1, 20, 7);
/// let objective = Objective { per_instance, start_ms, shortage_millionths, min, max, zone, test_days };
/// assert_eq!(recommend(&history, &objective, &Zones::new()).unwrap_err(), RecommendError::TooShort);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A [`RecommendError`].
pub fn recommend(history: &Series, objective: &Objective, zones: &Zones) -> Result<Recommendation, RecommendError> {
    let Objective { per_instance, min, max, zone, test_days, .. } = *objective;
    if per_instance <= Milli::ZERO || min > max || max == 0 {
        return Err(RecommendError::Objective);
    }
    let day = history.day();
    let held_out = day.saturating_mul(usize::try_from(test_days).unwrap_or(usize::MAX));
    let split = history.len().checked_sub(held_out).filter(|split| held_out > 0 && *split >= day * 14);
    let split = split.ok_or(RecommendError::TooShort)?;
    let calendar = Calendar::new(history, zones.get(zone).ok_or(RecommendError::NoZone(zone))?);
    let mut search = Search::new(history, objective, zones, &calendar, split);
    search.metric();
    search.timed(None);
    for floors in [850, 950, 1050] {
        search.timed(Some(floors));
    }
    let best = search.best.take().ok_or(RecommendError::OutOfReach(search.least))?;
    let timetable = Timetable::new(history, &calendar, 0..split, None);
    let trial = Trial { history, objective, zones };
    let policy = best.plan.policy(objective, history.step_ms(), &timetable);
    let fixed_size = fixed(history, objective, split);
    let (from, until) = (history.instant(split), history.instant(history.len()));
    let tested = trial.run(&policy, split..history.len())?;
    let fixed = trial.fixed(fixed_size, split..history.len());
    let allowed = objective.shortage_millionths;
    let cheaper = best.outcome.instance_ms < trial.fixed(fixed_size, 0..split).instance_ms
        && tested.instance_ms < fixed.instance_ms;
    let serves = tested.shortage_millionths() <= allowed.max(fixed.shortage_millionths());
    let alone_serves = tested.shortage_millionths() <= allowed && fixed.shortage_millionths() > allowed;
    let fleet = || Box::new(Policy { min: fixed_size, max: max.max(fixed_size), ..Policy::default() });
    Ok(Recommendation {
        tested,
        fixed,
        advice: if alone_serves || (cheaper && serves) { Advice::Rules } else { Advice::Fixed(fleet()) },
        allowed_millionths: allowed,
        policy,
        family: best.plan.family(),
        fitted: best.outcome,
        fixed_size,
        fitted_days: (history.instant(0), from),
        tested_days: (from, until),
        tried: search.tried,
    })
}

/// The size that is short of what is needed no longer than the objective allows.
fn fixed(history: &Series, objective: &Objective, split: usize) -> u32 {
    let mut needed: Vec<u32> = (0..split).map(|place| objective.needed(history.value(place))).collect();
    needed.sort_unstable();
    let short = needed.len() as u64 * u64::from(objective.shortage_millionths.min(1_000_000)) / 1_000_000;
    let place = needed.len().saturating_sub(1).saturating_sub(usize::try_from(short).unwrap_or(usize::MAX));
    needed.get(place).copied().unwrap_or(0).clamp(objective.min, objective.max)
}

impl Objective {
    fn needed(&self, load: Option<Milli>) -> u32 {
        mul_div_ceil(load.map_or(0, Milli::at_least_zero), 1, self.per_instance.at_least_zero())
    }
}

struct Candidate {
    plan: Plan,
    outcome: Outcome,
}

struct Search<'a> {
    trial: Trial<'a>,
    /// The weeks that are fitted to, each with a timetable made from the others.
    weeks: Vec<(core::ops::Range<usize>, Timetable)>,
    best: Option<Candidate>,
    /// The least shortage seen, in millionths.
    least: u32,
    tried: u32,
}

impl<'a> Search<'a> {
    fn new(history: &'a Series, objective: &'a Objective, zones: &'a Zones, calendar: &Calendar, split: usize) -> Self {
        let week = history.day() * 7;
        let weeks = (0..split / week).map(|at| {
            // What does not fill the last week belongs to it.
            let end = if at + 1 == split / week { split } else { (at + 1) * week };
            let own = at * week..end;
            let others = Timetable::new(history, calendar, 0..split, Some(&own));
            (own, others)
        });
        let weeks = weeks.collect();
        Self { trial: Trial { history, objective, zones }, weeks, best: None, least: 1_000_000, tried: 0 }
    }

    /// A metric rule alone, holding on for a shorter or a longer while before it shrinks the group.
    fn metric(&mut self) {
        for calm in [2, 6] {
            self.bisect(|headroom| Plan { floors: None, metric: Some(headroom), calm });
        }
    }

    /// Timed floors: alone, or of a fixed height with a metric rule as the backstop.
    fn timed(&mut self, floors: Option<u32>) {
        match floors {
            None => self.bisect(|headroom| Plan { floors: Some(1000 + headroom), metric: None, calm: 2 }),
            Some(_) => self.bisect(|headroom| Plan { floors, metric: Some(headroom), calm: 2 }),
        }
    }

    /// Finds the least head-room that suffices, unless it costs more than the best so far.
    fn bisect(&mut self, plan: impl Fn(u32) -> Plan) {
        let (mut low, mut high) = (0, STEPS);
        while low < high {
            let middle = u32::midpoint(low, high);
            let Some(outcome) = self.rehearse(plan(middle * STEP_PERMILLE)) else { return };
            let millionths = outcome.shortage_millionths();
            self.least = self.least.min(millionths);
            let dear = self.best.as_ref().is_some_and(|best| outcome.instance_ms >= best.outcome.instance_ms);
            if millionths <= self.trial.objective.shortage_millionths {
                high = middle;
                if !dear {
                    self.best = Some(Candidate { plan: plan(middle * STEP_PERMILLE), outcome });
                }
            } else if dear {
                // More head-room costs more still.
                return;
            } else {
                low = middle + 1;
            }
        }
    }

    fn rehearse(&mut self, plan: Plan) -> Option<Outcome> {
        self.tried += 1;
        let mut sum = Outcome::default();
        for (week, timetable) in &self.weeks {
            let policy = plan.policy(self.trial.objective, self.trial.history.step_ms(), timetable);
            sum = sum.plus(self.trial.run(&policy, week.clone()).ok()?);
        }
        Some(sum)
    }
}
