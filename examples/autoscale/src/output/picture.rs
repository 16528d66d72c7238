//! From what came out to shapes: the run of demand and pods over time, thinned to what a picture can show, as SVG paths.

use std::fmt::Write as _;

use crate::rehearse::Outcome;

/// So many instants a picture shows at most.
const WIDTH: usize = 1_200;

/// How things stand from an instant on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    pub(super) at: u64,
    pub(super) demand: Option<f64>,
    pub(super) ready: f64,
    pub(super) starting: f64,
    pub(super) short: bool,
}

/// A stretch in which ready pods carried less than was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shortage {
    pub(super) from: u64,
    pub(super) until: u64,
    /// The most that was missing at one time.
    pub(super) most: f64,
}

/// The run of one rehearsal.
pub(super) struct Run {
    pub(super) moments: Vec<Moment>,
    pub(super) shortages: Vec<Shortage>,
    from: u64,
    until: u64,
}

impl Run {
    pub(super) fn new(outcome: &Outcome, from: u64, until: u64) -> Self {
        let mut instants: Vec<u64> = outcome.levels.iter().map(|held| held.at).collect();
        instants.extend(outcome.demand.iter().map(|held| held.0));
        instants.retain(|at| (from..until).contains(at));
        instants.push(from);
        instants.sort_unstable();
        instants.dedup();
        let (mut level, mut row) = (0, 0);
        let mut moments = Vec::with_capacity(instants.len());
        for at in instants {
            while outcome.levels.get(level + 1).is_some_and(|next| next.at <= at) {
                level += 1;
            }
            while outcome.demand.get(row + 1).is_some_and(|next| next.0 <= at) {
                row += 1;
            }
            let demand = outcome.demand.get(row).filter(|held| held.0 <= at).and_then(|held| held.1);
            let (ready, starting) = outcome.levels.get(level).map_or((0, 0), |held| (held.ready, held.starting));
            let (ready, starting) = (f64::from(ready), f64::from(starting));
            let short =
                outcome.capacity.zip(demand).is_some_and(|(each, load)| load - ready * each > load.abs() * 1e-9);
            moments.push(Moment { at, demand, ready, starting, short });
        }
        let shortages = shortages(&moments, outcome.capacity.unwrap_or(0.0), until);
        Self { moments: thinned(moments, from, until), shortages, from, until }
    }

    /// The largest of a figure.
    pub(super) fn most(&self, of: impl Fn(&Moment) -> Option<f64>) -> f64 {
        self.moments.iter().filter_map(of).fold(0.0, f64::max)
    }

    /// Where an instant stands, from 0 to 1000.
    pub(super) fn across(&self, at: u64) -> f64 {
        share(at.saturating_sub(self.from), self.until - self.from) * 1_000.0
    }

    /// A figure as steps; where it is missing, the line is broken. `closed` down to the ground for an area.
    pub(super) fn path(&self, most: f64, closed: bool, of: impl Fn(&Moment) -> Option<f64>) -> String {
        let mut path = String::new();
        let mut open = false;
        let height = |value: f64| 100.0 - (value / most.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0) * 100.0;
        for (place, moment) in self.moments.iter().enumerate() {
            let from = self.across(moment.at);
            let until = self.moments.get(place + 1).map_or(1_000.0, |next| self.across(next.at));
            match of(moment) {
                None if open => {
                    if closed {
                        let _ = write!(path, "L{from:.1} 100Z");
                    }
                    open = false;
                }
                None => {}
                Some(value) => {
                    let y = height(value);
                    if open {
                        let _ = write!(path, "V{y:.2}H{until:.1}");
                    } else if closed {
                        let _ = write!(path, "M{from:.1} 100V{y:.2}H{until:.1}");
                    } else {
                        let _ = write!(path, "M{from:.1} {y:.2}H{until:.1}");
                    }
                    open = true;
                }
            }
        }
        if open && closed {
            path.push_str("V100Z");
        }
        path
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn shortages(moments: &[Moment], capacity: f64, until: u64) -> Vec<Shortage> {
    let mut found: Vec<Shortage> = Vec::new();
    for (place, moment) in moments.iter().enumerate().filter(|(_, moment)| moment.short) {
        let end = moments.get(place + 1).map_or(until, |next| next.at);
        let missing = moment.demand.unwrap_or(0.0) - moment.ready * capacity;
        match found.last_mut().filter(|last| last.until == moment.at) {
            Some(last) => (last.until, last.most) = (end, last.most.max(missing)),
            None => found.push(Shortage { from: moment.at, until: end, most: missing }),
        }
    }
    found
}

/// Moments that fall on one place of the picture become one: the highest demand, the fewest ready pods, short if any was.
fn thinned(moments: Vec<Moment>, from: u64, until: u64) -> Vec<Moment> {
    if moments.len() <= WIDTH {
        return moments;
    }
    let span = (until - from).div_ceil(u64::try_from(WIDTH).unwrap_or(1)).max(1);
    let mut thin: Vec<Moment> = Vec::with_capacity(WIDTH + 1);
    for moment in moments {
        let at = from + (moment.at - from) / span * span;
        match thin.last_mut().filter(|last| last.at == at) {
            Some(last) => {
                last.demand = match (last.demand, moment.demand) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    (one, other) => one.or(other),
                };
                last.ready = last.ready.min(moment.ready);
                last.starting = last.starting.max(moment.starting);
                last.short |= moment.short;
            }
            None => thin.push(Moment { at, ..moment }),
        }
    }
    thin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at: u64, demand: Option<f64>, ready: f64) -> Moment {
        Moment { at, demand, ready, starting: 0.0, short: demand.is_some_and(|load| load > ready) }
    }

    #[test]
    fn shortages_that_follow_each_other_are_one() {
        let moments =
            [moment(0, Some(1.0), 2.0), moment(10, Some(5.0), 2.0), moment(20, Some(4.0), 2.0), moment(30, None, 2.0)];
        assert_eq!(shortages(&moments, 1.0, 40), [Shortage { from: 10, until: 30, most: 3.0 }]);
    }

    #[test]
    fn a_long_run_is_thinned_and_no_shortage_is_lost() {
        let moments: Vec<Moment> =
            (0..10_000).map(|at| moment(at, Some(if at == 7_777 { 9.0 } else { 1.0 }), 2.0)).collect();
        let thin = thinned(moments, 0, 10_000);
        assert!(thin.len() <= WIDTH + 1);
        assert_eq!(thin.iter().filter(|moment| moment.short).count(), 1);
        let run = Run { moments: thin, shortages: vec![], from: 0, until: 10_000 };
        assert!((run.most(|moment| moment.demand) - 9.0).abs() < 1e-12);
    }

    #[test]
    fn a_line_is_broken_where_a_value_is_missing() {
        let moments = vec![moment(0, Some(1.0), 0.0), moment(50, None, 0.0), moment(75, Some(2.0), 0.0)];
        let run = Run { moments, shortages: vec![], from: 0, until: 100 };
        assert_eq!(run.path(2.0, false, |moment| moment.demand), "M0.0 50.00H500.0M750.0 0.00H1000.0");
        assert_eq!(
            run.path(2.0, true, |moment| moment.demand),
            "M0.0 100V50.00H500.0L500.0 100ZM750.0 100V0.00H1000.0V100Z"
        );
    }
}
