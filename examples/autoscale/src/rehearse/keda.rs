//! What KEDA does around its HPA: it asks the triggers now and then, switches between nothing and something, and answers the
//! HPA's own questions.

use super::fleet::Fleet;
use super::world::World;
use super::{By, Plant};
use crate::cron::{Stretch, instant};
use crate::finding::Finding;
use crate::policy::{Autoscaler, Composite, Fallback, FallbackBehavior, Feed, Keda, Pause, Target, Trigger};
use crate::quantity::{float, milli_of, units, words};

/// KEDA's state for one `ScaledObject`.
pub(super) struct Shell<'a> {
    keda: &'a Keda,
    created: u64,
    last_active: Option<u64>,
    /// How often each trigger has failed in a row, polls and the HPA's questions together.
    failures: Vec<u32>,
    /// What the last poll read of each trigger.
    polled: Vec<Option<Raw>>,
    /// The stretches in which each cron trigger is open.
    open: Vec<Vec<Stretch>>,
    partitions: Option<u32>,
}

/// What a trigger reads before it is cut and judged; `None` for a failure.
type Raw = Option<i64>;

/// The answer of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// A value in thousandths.
    Value {
        milli: i64,
        active: bool,
    },
    /// The fallback's value.
    Fallback(i64),
    /// It has failed for good, and a formula sees nil.
    Nil,
    Failed,
}

impl<'a> Shell<'a> {
    pub(super) fn new(keda: &'a Keda, plant: &Plant) -> Self {
        let open = |trigger: &Trigger| match &trigger.feed {
            Feed::Cron(window) => window.stretches(plant.from, plant.until),
            Feed::Input(_) | Feed::Resource => Vec::new(),
        };
        let count = keda.triggers.len();
        Self {
            keda,
            created: plant.from,
            last_active: None,
            failures: vec![0; count],
            polled: vec![None; count],
            open: keda.triggers.iter().map(open).collect(),
            partitions: plant.partitions,
        }
    }

    pub(super) const fn polling_ms(&self) -> u64 {
        self.keda.polling_ms
    }

    /// When any cron trigger is open.
    pub(super) fn open_stretches(&self) -> Vec<Stretch> {
        let mut all: Vec<Stretch> = self.open.iter().flatten().copied().collect();
        all.sort_unstable();
        let mut merged: Vec<Stretch> = Vec::new();
        for stretch in all {
            match merged.last_mut().filter(|last| stretch.0 <= last.1) {
                Some(last) => last.1 = last.1.max(stretch.1),
                None => merged.push(stretch),
            }
        }
        merged
    }

    /// What clocks that are put forward and back do to cron triggers in the year after the first instant.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let first = instant(self.created);
        let windows = self.keda.triggers.iter().filter_map(|trigger| match &trigger.feed {
            Feed::Cron(window) => Some(window),
            Feed::Input(_) | Feed::Resource => None,
        });
        windows.zip(first.into_iter().cycle()).flat_map(|(window, first)| window.faults(first)).collect()
    }

    /// What a trigger reads now.
    fn read(&self, place: usize, now: u64, world: &mut World<'_>) -> Raw {
        match &self.keda.triggers[place].feed {
            Feed::Cron(window) => {
                let stretches = &self.open[place];
                let at = stretches.partition_point(|stretch| stretch.1 <= now);
                let is_open = stretches.get(at).is_some_and(|stretch| stretch.0 <= now);
                Some(if is_open { window.replicas.saturating_mul(1_000) } else { 0 })
            }
            Feed::Input(input) if world.is_ignored(*input) => Some(0),
            Feed::Input(input) => world.trigger(*input, now),
            Feed::Resource => Some(0),
        }
    }

    /// Judges what was read: a failure counts, and from the one above the threshold on the fallback holds.
    fn judge(&mut self, place: usize, raw: Raw, fleet: &Fleet) -> Answer {
        let trigger = &self.keda.triggers[place];
        if let Some(value) = raw {
            self.failures[place] = 0;
            let cut = match (trigger.per_partition, self.partitions) {
                (Some(each), Some(partitions)) => value.min(each.saturating_mul(i64::from(partitions))),
                _ => value,
            };
            return Answer::Value { milli: cut, active: value > trigger.activation };
        }
        let Some(fallback) = self.keda.fallback else { return Answer::Failed };
        self.failures[place] = self.failures[place].saturating_add(1);
        if self.failures[place] <= fallback.threshold {
            return Answer::Failed;
        }
        if fallback.behavior == FallbackBehavior::ScalingModifiers {
            return Answer::Nil;
        }
        let target = self.keda.formula.as_ref().map_or(trigger.target, |formula| formula.target);
        match fallback_value(fallback, target, fleet) {
            Some(value) => Answer::Fallback(value),
            None => Answer::Failed,
        }
    }

    /// The HPA asks for a trigger's value.
    pub(super) fn query(&mut self, place: usize, now: u64, world: &mut World<'_>, fleet: &Fleet) -> Option<i64> {
        match self.ask(place, now, world, fleet) {
            Answer::Value { milli, .. } | Answer::Fallback(milli) => Some(milli),
            Answer::Nil | Answer::Failed => None,
        }
    }

    fn ask(&mut self, place: usize, now: u64, world: &mut World<'_>, fleet: &Fleet) -> Answer {
        let cached = if self.keda.triggers[place].cached { self.polled[place] } else { None };
        let raw = cached.unwrap_or_else(|| self.read(place, now, world));
        self.judge(place, raw, fleet)
    }

    /// The HPA asks for the value of the formula.
    pub(super) fn composite(&mut self, now: u64, world: &mut World<'_>, fleet: &Fleet) -> Option<i64> {
        let keda = self.keda;
        let formula = keda.formula.as_ref()?;
        let answers: Vec<(usize, Answer)> =
            self.external().into_iter().map(|place| (place, self.ask(place, now, world, fleet))).collect();
        self.formula(formula, &answers)
    }

    /// The triggers that are neither cpu nor memory.
    fn external(&self) -> Vec<usize> {
        let triggers = self.keda.triggers.iter().enumerate();
        triggers.filter(|(_, trigger)| !matches!(trigger.feed, Feed::Resource)).map(|(place, _)| place).collect()
    }

    /// The value of the formula in thousandths; `None` where it has failed.
    fn formula(&self, formula: &Composite, answers: &[(usize, Answer)]) -> Option<i64> {
        // With a fallback in force the formula is not worked out.
        let fallen = answers.iter().find_map(|(_, answer)| match answer {
            Answer::Fallback(value) => Some(*value),
            Answer::Value { .. } | Answer::Nil | Answer::Failed => None,
        });
        if fallen.is_some() {
            return fallen;
        }
        if answers.iter().any(|(_, answer)| *answer == Answer::Failed) {
            return None;
        }
        let of_name = |name: &String| {
            let found = answers.iter().find(|(place, _)| self.keda.triggers[*place].name.as_ref() == Some(name));
            match found {
                Some((_, Answer::Value { milli, .. })) => Some(units(*milli)),
                _ => None,
            }
        };
        let values: Vec<Option<f64>> = formula.formula.names().iter().map(of_name).collect();
        match formula.formula.value(&values) {
            Ok(Some(value)) => milli_of(value),
            // Nil stands for the fallback's replicas.
            Ok(None) => {
                let fallback = self.keda.fallback?;
                Some(formula.target.number().saturating_mul(i64::from(fallback.replicas)))
            }
            Err(_) => None,
        }
    }

    /// One poll: the size that it asks for, if it is another, by whom and why.
    pub(super) fn poll(
        &mut self,
        now: u64,
        world: &mut World<'_>,
        fleet: &Fleet,
        autoscaler: &Autoscaler,
    ) -> Option<(u32, By, String)> {
        let mut answers = Vec::new();
        for place in self.external() {
            let raw = self.read(place, now, world);
            self.polled[place] = Some(raw);
            answers.push((place, self.judge(place, raw, fleet)));
        }
        let failed = answers.iter().any(|(_, answer)| *answer == Answer::Failed);
        let mut active: Vec<&str> = Vec::new();
        for (place, answer) in &answers {
            if matches!(answer, Answer::Value { active: true, .. } | Answer::Fallback(_)) {
                active.push(autoscaler.metrics.get(*place).map_or("a trigger", |metric| metric.label.as_str()));
            }
        }
        if let Some(formula) = &self.keda.formula {
            active.clear();
            let value = if failed { None } else { self.formula(formula, &answers) };
            if value.is_some_and(|value| units(value) > formula.activation) {
                active.push("the formula");
            }
        }
        let only_resources = answers.is_empty();
        let is_active = !active.is_empty() || (only_resources && !failed) || self.keda.pauses.has(Pause::ForcedActive);
        let size = fleet.size();
        if is_active {
            return self.while_active(now, size, failed, &active);
        }
        self.while_inactive(now, size, failed)
    }

    fn while_active(&mut self, now: u64, size: u32, failed: bool, active: &[&str]) -> Option<(u32, By, String)> {
        let below_idle = self.keda.idle.is_some() && size < self.keda.min;
        if size == 0 || below_idle {
            if self.keda.pauses.has(Pause::Growing) {
                return None;
            }
            self.last_active = Some(now);
            let why = if active.is_empty() {
                "activation is forced".into()
            } else {
                format!("{} is active", active.join(", "))
            };
            return Some((self.keda.min.max(1), By::Activated, why));
        }
        if !failed {
            self.last_active = Some(now);
        }
        None
    }

    fn while_inactive(&mut self, now: u64, size: u32, failed: bool) -> Option<(u32, By, String)> {
        if failed && self.keda.fallback.is_none_or(|fallback| fallback.replicas != 0) {
            return None;
        }
        let rest = match self.keda.idle {
            Some(idle) if size > idle => Some(idle),
            None if size > 0 && self.keda.min == 0 => Some(0),
            _ => None,
        };
        if let Some(rest) = rest {
            let due = match self.last_active {
                Some(at) => at.saturating_add(self.keda.cooldown_ms) < now,
                None => self.created.saturating_add(self.keda.initial_cooldown_ms) <= now,
            };
            if !due || self.keda.pauses.has(Pause::Shrinking) {
                return None;
            }
            let why = match self.last_active {
                Some(at) => {
                    format!("no trigger has been active for {}, longer than the cooldownPeriod", words(now - at))
                }
                None => "no trigger has been active so far".into(),
            };
            return Some((rest, By::Deactivated, why));
        }
        if self.keda.idle.is_none() && size < self.keda.min {
            return Some((self.keda.min, By::Activated, "below minReplicaCount".into()));
        }
        None
    }
}

/// The value that makes the HPA want the fallback's replicas.
fn fallback_value(fallback: Fallback, target: Target, fleet: &Fleet) -> Option<i64> {
    let current = fleet.size();
    let replicas = match fallback.behavior {
        FallbackBehavior::Static | FallbackBehavior::ScalingModifiers => fallback.replicas,
        FallbackBehavior::Current => current,
        FallbackBehavior::CurrentIfHigher => current.max(fallback.replicas),
        FallbackBehavior::CurrentIfLower => current.min(fallback.replicas),
    };
    match target {
        Target::Value(milli) => match fleet.ready() {
            0 => None,
            ready => milli_of(units(milli) * float(replicas) / float(ready)),
        },
        Target::AverageValue(milli) | Target::Utilization(milli) => Some(milli.saturating_mul(i64::from(replicas))),
    }
}
