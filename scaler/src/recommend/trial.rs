//! Trials: one candidate on some days, made and rehearsed.

use alloc::vec::Vec;
use core::ops::Range;

use super::profile::Timetable;
use super::{Family, Objective};
use crate::Timestamp;
use crate::behavior::{Behavior, Pace};
use crate::config::{Config, Records};
use crate::effect::{Effect, Progress};
use crate::engine::Engine;
use crate::error::PolicyError;
use crate::forecast::Series;
use crate::group::{Policy, Rule, RuleKind, Traffic};
use crate::id::{GroupId, IdcId, MetricId, PoolId, ReleaseId, RuleId, ShapeId, TenantId, VersionId};
use crate::metric::{Metric, Staleness};
use crate::num::{Milli, mul_div_ceil};
use crate::pool::{Pool, PoolKind, Watermark};
use crate::rehearse::{Rehearsal, World};
use crate::schedule::{Days, Window, Zones};
use crate::strategy::{QueueLength, Strategy};

/// The outcome of rules on some days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The instance-milliseconds used.
    pub instance_ms: u128,
    /// The time in which fewer instances served than were needed, in ms.
    pub shortage_ms: u64,
    /// The number of changes of target.
    pub changes: u64,
    /// The length of the trial, in ms.
    pub span_ms: u64,
}

impl Outcome {
    /// The share of the time with a shortage, in millionths.
    #[must_use]
    pub fn shortage_millionths(&self) -> u32 {
        mul_div_ceil(self.shortage_ms, 1_000_000, self.span_ms)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            instance_ms: self.instance_ms + other.instance_ms,
            shortage_ms: self.shortage_ms + other.shortage_ms,
            changes: self.changes + other.changes,
            span_ms: self.span_ms + other.span_ms,
        }
    }
}

/// A candidate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Timed floors at so many thousandths of what is usual.
    pub(super) floors: Option<u32>,
    /// A metric rule with so many thousandths of head-room.
    pub(super) metric: Option<u32>,
    /// For how many samples the metric rule holds on before it shrinks the group.
    pub(super) calm: u64,
}

pub(super) const LOAD: MetricId = MetricId(1);

impl Plan {
    pub(super) fn family(&self) -> Family {
        match (self.floors, self.metric) {
            (None, _) => Family::Metric,
            (Some(_), None) => Family::Timed,
            (Some(_), Some(_)) => Family::Both,
        }
    }

    /// The rules, with floors as in `timetable`.
    pub(super) fn policy(&self, objective: &Objective, step_ms: u64, timetable: &Timetable) -> Policy {
        let per_instance = objective.per_instance.at_least_zero();
        let mut kinds = Vec::new();
        let mut metrics = Vec::new();
        if let Some(headroom) = self.metric {
            let carries = per_instance.saturating_mul(1000) / (1000 + u64::from(headroom));
            let carries = Milli::from_thousandths(i64::try_from(carries.max(1)).unwrap_or(i64::MAX));
            kinds.push(RuleKind::Metric(LOAD, Strategy::QueueLength(QueueLength { per_instance: carries })));
            let stale_after_ms = step_ms.saturating_mul(3);
            metrics.push(Metric { id: LOAD, stale_after_ms, when_stale: Staleness::ForbidIn });
        }
        for step in timetable.0.iter().filter(|_| self.floors.is_some()) {
            let height = step.load.at_least_zero().saturating_mul(u64::from(self.floors.unwrap_or(0)));
            let floor = mul_div_ceil(height, 1, per_instance.saturating_mul(1000)).min(objective.max);
            if floor > objective.min {
                let (zone, days, lead_ms) = (objective.zone, Days::Week(step.days), objective.start_ms);
                kinds.push(RuleKind::Floor(Window { zone, days, from: step.from, until: step.until, lead_ms }, floor));
            }
        }
        let inward = Pace { stabilize_ms: step_ms.saturating_mul(self.calm), ..Pace::default() };
        Policy {
            min: objective.min,
            max: objective.max,
            metrics,
            rules: (1..).zip(kinds).map(|(id, kind)| Rule { id: RuleId(id), kind }).collect(),
            behavior: Behavior { inward, ..Behavior::default() },
            ..Policy::default()
        }
    }
}

pub(super) struct Trial<'a> {
    pub(super) history: &'a Series,
    pub(super) objective: &'a Objective,
    pub(super) zones: &'a Zones,
}

/// A metric tells of the interval that is over; what is needed is told by the one that begins.
pub(super) struct Past<'a>(pub(super) &'a Series, pub(super) &'a Objective);

impl World for Past<'_> {
    fn measure(&mut self, at: Timestamp, _: GroupId, _: MetricId, _: u32) -> Option<Milli> {
        // Of what was before the history, its first value is the best guess.
        self.0.value(self.0.place(at)?.saturating_sub(1))
    }

    fn needed(&mut self, at: Timestamp, _: GroupId) -> u32 {
        self.1.needed(self.0.place(at).and_then(|place| self.0.value(place))).min(self.1.max)
    }
}

impl Trial<'_> {
    /// Rehearses a policy on some days.
    pub(super) fn run(&self, policy: &Policy, days: Range<usize>) -> Result<Outcome, PolicyError> {
        self.run_in(policy, days, &mut Past(self.history, self.objective))
    }

    /// Rehearses a policy on some days in a world of one's own.
    pub(super) fn run_in<W: World>(
        &self,
        policy: &Policy,
        days: Range<usize>,
        world: &mut W,
    ) -> Result<Outcome, PolicyError> {
        let (from, until) = (self.history.instant(days.start), self.history.instant(days.end));
        let Some(engine) = self.engine(policy, from, world)? else { return Ok(Outcome::default()) };
        let run = Rehearsal {
            from,
            until,
            sample_ms: self.history.step_ms(),
            start_ms: self.objective.start_ms,
            ..Rehearsal::default()
        };
        let report = engine.rehearse(run, world);
        Ok(Outcome {
            instance_ms: report.instance_ms(),
            shortage_ms: report.shortage_ms,
            changes: report.changes,
            span_ms: until.millis_since(from),
        })
    }

    /// An engine with one group, which already has what the policy wants at `from`: nobody starts cold.
    fn engine<W: World>(&self, policy: &Policy, from: Timestamp, world: &mut W) -> Result<Option<Engine>, PolicyError> {
        let instances = self.objective.max.max(policy.max).max(1);
        let limits = crate::Limits { instances, ..crate::Limits::default() };
        let config = Config::builder().tick_ms(self.history.step_ms()).zones(self.zones.clone()).limits(limits);
        let Ok(config) = config.records(Records::None).build() else { return Ok(None) };
        let mut engine = Engine::new(config);
        let (id, shape, release) = (PoolId(1), ShapeId(1), ReleaseId(1));
        let (kind, watermark) = (PoolKind::Resident, Watermark::default());
        let stock = alloc::vec![(shape, u32::MAX)];
        let _ = engine.put_pool(Timestamp::ZERO, Pool { id, kind, idc: IdcId(1), price: 1000, watermark, stock });
        engine.put_release(Timestamp::ZERO, release, VersionId(1));
        let traffic = Traffic { id: GroupId(1), idcs: Vec::new(), tenant: TenantId(1), release, shape };
        crate::Group::new(policy.clone(), self.zones, limits)?;
        let _ = engine.put_group(Timestamp::ZERO, traffic, policy.clone());
        let before = Timestamp::from_millis(from.as_millis().saturating_sub(1));
        for metric in &policy.metrics {
            let first = world.measure(from, GroupId(1), metric.id, policy.min.max(1));
            engine.handle_sample(before, GroupId(1), metric.id, before, first);
        }
        engine.handle_timeout(before);
        while let Some(effect) = engine.poll_effect() {
            if let Effect::Launch { request, count, .. } = effect {
                engine.handle_launch(before, request, Progress::done(count));
            }
        }
        Ok(Some(engine))
    }

    /// The outcome of a fleet of a fixed size.
    pub(super) fn fixed(&self, size: u32, days: Range<usize>) -> Outcome {
        let (from, until) = (self.history.instant(days.start), self.history.instant(days.end));
        let span_ms = until.millis_since(from);
        let needed = |place: &usize| self.objective.needed(self.history.value(*place)).min(self.objective.max) > size;
        let short = days.filter(needed).count() as u64;
        Outcome {
            instance_ms: u128::from(size) * u128::from(span_ms),
            shortage_ms: short * self.history.step_ms(),
            changes: 0,
            span_ms,
        }
    }
}
