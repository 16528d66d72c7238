//! Replay: one trace under several autoscalers, side by side.

use super::Objective;
use super::trial::{LOAD, Outcome, Past, Trial};
use crate::Timestamp;
use crate::behavior::Behavior;
use crate::error::PolicyError;
use crate::forecast::Series;
use crate::group::{Policy, Rule, RuleKind};
use crate::hpa;
use crate::id::{GroupId, MetricId, RuleId};
use crate::metric::{Metric, Staleness};
use crate::nomad::TargetValue;
use crate::num::Milli;
use crate::rehearse::World;
use crate::schedule::Zones;
use crate::strategy::{Hpa, Kpa, Strategy};

/// The autoscaler that a trace is replayed under.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Semantics {
    /// This crate's: the policy's metrics all read the whole load.
    Own(Policy),
    /// The Kubernetes `HorizontalPodAutoscaler`, with a target load per instance.
    Hpa {
        /// The target load of each instance.
        target: Milli,
        /// The behaviour; [`Behavior::kubernetes`] has the defaults.
        behavior: Behavior,
    },
    /// The Knative pod autoscaler.
    Kpa(Kpa),
    /// The Nomad Autoscaler's `target-value`, of the load on each instance.
    Nomad(TargetValue),
}

impl Semantics {
    fn policy(&self, objective: &Objective, step_ms: u64) -> Policy {
        let (strategy, behavior) = match self {
            Self::Own(policy) => return policy.clone(),
            Self::Hpa { target, behavior } => {
                let metric = hpa::Metric::new(hpa::Kind::AverageValue, target.as_thousandths());
                (Strategy::Hpa(Hpa::new(metric)), behavior.clone())
            }
            Self::Kpa(kpa) => (Strategy::Kpa(*kpa), Behavior::default()),
            Self::Nomad(_) => (Strategy::Given, Behavior::default()),
        };
        let stale_after_ms = step_ms.saturating_mul(3);
        Policy {
            min: objective.min,
            max: objective.max,
            metrics: alloc::vec![Metric { id: LOAD, stale_after_ms, when_stale: Staleness::ForbidIn }],
            rules: alloc::vec![Rule { id: RuleId(1), kind: RuleKind::Metric(LOAD, strategy) }],
            behavior,
            ..Policy::default()
        }
    }
}

/// The load, as each of them reads it.
struct Read<'a>(Past<'a>, &'a Semantics);

impl World for Read<'_> {
    fn measure(&mut self, at: Timestamp, group: GroupId, metric: MetricId, ready: u32) -> Option<Milli> {
        let load = self.0.measure(at, group, metric, ready)?;
        let Semantics::Nomad(strategy) = self.1 else { return Some(load) };
        #[expect(clippy::cast_precision_loss, reason = "the original calculates in floats")]
        let each = load.as_thousandths() as f64 / 1000.0 / f64::from(ready.max(1));
        let wanted = strategy.run(i64::from(ready), &[each]).map_or(i64::from(ready), |action| action.count);
        Some(Milli::from_units(wanted.max(0)))
    }

    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32 {
        self.0.needed(at, group)
    }
}

/// The outcome of a trace under each of several autoscalers, in their order.
///
/// Of `objective`, the load that an instance carries, the time it takes to serve and the bounds are read.
///
/// # Errors
///
/// The [`PolicyError`] of the first autoscaler whose policy is invalid.
pub fn side_by_side(
    history: &Series,
    objective: &Objective,
    zones: &Zones,
    semantics: &[Semantics],
) -> Result<alloc::vec::Vec<Outcome>, PolicyError> {
    let trial = Trial { history, objective, zones };
    let run = |one: &Semantics| {
        let policy = one.policy(objective, history.step_ms());
        trial.run_in(&policy, 0..history.len(), &mut Read(Past(history, objective), one))
    };
    semantics.iter().map(run).collect()
}
