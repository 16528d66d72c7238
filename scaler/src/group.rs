//! A group: what traffic it serves, the policy it is sized by, and what its size depends on besides its inputs.

use alloc::vec::Vec;

use jiff::tz::TimeZone;
use smallvec::SmallVec;

use crate::Timestamp;
use crate::behavior::{Behavior, Extreme, Recent};
use crate::error::PolicyError;
use crate::id::{GroupId, IdcId, MetricId, ReleaseId, RuleId, ShapeId, TenantId, ZoneId};
use crate::metric::{Metric, Sample};
use crate::schedule::{Days, Point, Window, Zones};
use crate::strategy::{Breaches, Strategy};

/// A traffic group: the unit that calls stay inside. Its elastic group is made from it, one to one, and takes its id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Traffic {
    /// The group.
    pub id: GroupId,
    /// The data centres that its calls reach; empty for all.
    pub idcs: Vec<IdcId>,
    /// Who owns it.
    pub tenant: TenantId,
    /// Which image its new instances run.
    pub release: ReleaseId,
    /// The shape of its instances.
    pub shape: ShapeId,
}

/// How a group is sized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// Never fewer, except by an operator's override.
    pub min: u32,
    /// Never more, except by an operator's override.
    pub max: u32,
    /// Groups of a smaller rank are served first when stock is short.
    pub rank: u8,
    /// The metrics that rules may name.
    pub metrics: Vec<Metric>,
    /// The rules; their order has no meaning.
    pub rules: Vec<Rule>,
    /// How fast metric rules may move the group.
    pub behavior: Behavior,
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rule {
    /// Its name within the group.
    pub id: RuleId,
    /// What it says.
    pub kind: RuleKind,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RuleKind {
    /// A wanted count from a metric.
    Metric(MetricId, Strategy),
    /// Inside the window, at least so many.
    Floor(Window, u32),
    /// Inside the window, at most so many.
    Cap(Window, u32),
    /// Inside the window, so many more (or fewer) than otherwise. A delta that finds less to take takes less; at the end
    /// of the window exactly what it gave or took is undone.
    Delta(Window, i32),
    /// From this point on, so many more (or fewer). One that finds less to take takes less.
    Step(Point, i32),
}

impl RuleKind {
    fn when(&self) -> Option<(ZoneId, Days)> {
        match self {
            Self::Metric(..) => None,
            Self::Floor(window, _) | Self::Cap(window, _) | Self::Delta(window, _) => Some((window.zone, window.days)),
            Self::Step(point, _) => Some((point.zone, point.days)),
        }
    }
}

/// A policy that has been checked, with its zones at hand: what [`decide`](crate::decide) takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    policy: Policy,
    /// One per rule: its index among the metrics, or its zone.
    bindings: SmallVec<[Binding; 2]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Metric(u16),
    Zone(TimeZone),
}

/// What a policy may ask for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest maximum.
    pub instances: u32,
    /// The most rules, and the most metrics, of one group.
    pub rules: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { instances: 100_000, rules: 32 }
    }
}

impl Group {
    /// Checks a policy.
    ///
    /// # Errors
    /// A [`PolicyError`] that names the rule which can be read in two ways, or never holds.
    pub fn new(policy: Policy, zones: &Zones, limits: Limits) -> Result<Self, PolicyError> {
        if policy.min > policy.max {
            return Err(PolicyError::MinAboveMax);
        }
        if policy.max > limits.instances {
            return Err(PolicyError::MaxAboveLimit(limits.instances));
        }
        if policy.rules.len() > limits.rules || policy.metrics.len() > limits.rules {
            return Err(PolicyError::TooMany(limits.rules));
        }
        for (at, metric) in policy.metrics.iter().enumerate() {
            if policy.metrics[..at].iter().any(|other| other.id == metric.id) {
                return Err(PolicyError::MetricTwice(metric.id));
            }
            if metric.stale_after_ms == 0 {
                return Err(PolicyError::Staleness(metric.id));
            }
        }
        let mut bindings = SmallVec::with_capacity(policy.rules.len());
        for (at, rule) in policy.rules.iter().enumerate() {
            if policy.rules[..at].iter().any(|other| other.id == rule.id) {
                return Err(PolicyError::RuleTwice(rule.id));
            }
            bindings.push(bind(rule, &policy.metrics, zones)?);
        }
        Ok(Self { policy, bindings })
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The place of a metric among the samples that a decision takes.
    #[must_use]
    pub fn metric_index(&self, id: MetricId) -> Option<usize> {
        self.policy.metrics.iter().position(|metric| metric.id == id)
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = (&Rule, &Binding)> {
        self.policy.rules.iter().zip(&self.bindings)
    }
}

fn bind(rule: &Rule, metrics: &[Metric], zones: &Zones) -> Result<Binding, PolicyError> {
    if let Some((zone, days)) = rule.kind.when() {
        if !days.is_possible() {
            return Err(PolicyError::Never(rule.id));
        }
        return zones.get(zone).cloned().map(Binding::Zone).ok_or(PolicyError::NoZone(rule.id, zone));
    }
    let RuleKind::Metric(metric, strategy) = &rule.kind else {
        return Ok(Binding::Zone(TimeZone::UTC));
    };
    strategy.check(rule.id)?;
    metrics
        .iter()
        .position(|held| held.id == *metric)
        .and_then(|at| u16::try_from(at).ok())
        .map(Binding::Metric)
        .ok_or(PolicyError::NoMetric(rule.id, *metric))
}

/// What an operator has set by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Override {
    /// Exactly so many.
    pub count: u32,
    /// Until this instant, which is outside; [`Timestamp::MAX`] for no end.
    pub until: Timestamp,
}

/// A group whose traffic is gone goes down to nothing in a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Drain {
    /// The size at which it began.
    pub size: u32,
    /// When it began.
    pub since: Timestamp,
    /// How long it takes, in ms.
    pub over_ms: u64,
}

impl Drain {
    /// What is left of the group at `now`.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> u32 {
        let left_ms = self.over_ms.saturating_sub(now.millis_since(self.since));
        crate::num::mul_div_ceil(u64::from(self.size), left_ms, self.over_ms.max(1))
    }
}

/// What the next decision depends on besides its inputs. Plain data, made by decisions alone.
#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GroupState {
    /// The size that metric rules had last decided, without what timed rules added.
    pub(crate) base: u32,
    /// What steps have added and not yet taken back.
    pub(crate) steps: u32,
    pub(crate) target: u32,
    pub(crate) paused: bool,
    pub(crate) by_hand: Option<Override>,
    pub(crate) draining: Option<Drain>,
    pub(crate) moved_out: Option<Timestamp>,
    pub(crate) moved_in: Option<Timestamp>,
    pub(crate) least: Recent,
    pub(crate) most: Recent,
    pub(crate) rules: SmallVec<[RuleState; 2]>,
}

/// What one rule remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum RuleState {
    /// It has not been looked at yet, or has nothing to remember.
    Fresh,
    /// The last samples of a threshold, and the instant of the newest.
    Samples(Breaches, Timestamp),
    /// Where a window stands until an instant, and what a delta has given.
    Window { inside: bool, until: Timestamp, share: i32 },
    /// When a point falls next.
    Point(Timestamp),
}

impl Clone for GroupState {
    fn clone(&self) -> Self {
        Self {
            base: self.base,
            steps: self.steps,
            target: self.target,
            paused: self.paused,
            by_hand: self.by_hand,
            draining: self.draining,
            moved_out: self.moved_out,
            moved_in: self.moved_in,
            least: self.least.clone(),
            most: self.most.clone(),
            // A copy of plain memory: the derived clone would go element by element.
            rules: SmallVec::from_slice(&self.rules),
        }
    }
}

impl GroupState {
    /// A group of `size` instances that no decision has been made for.
    #[must_use]
    pub fn new(group: &Group, size: u32) -> Self {
        let base = size.clamp(group.policy.min, group.policy.max);
        Self {
            base,
            steps: 0,
            target: size,
            paused: false,
            by_hand: None,
            draining: None,
            moved_out: None,
            moved_in: None,
            least: Recent::default(),
            most: Recent::default(),
            rules: SmallVec::from_elem(RuleState::Fresh, group.policy.rules.len()),
        }
    }

    /// How many instances were last decided.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Whether automatic decisions are paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// What an operator has set by hand.
    #[must_use]
    pub fn by_hand(&self) -> Option<Override> {
        self.by_hand
    }

    /// Sets the size by hand, or hands it back to the rules.
    pub fn set_by_hand(&mut self, by_hand: Option<Override>) {
        self.by_hand = by_hand;
    }

    /// Holds the target as it is: rules are heard again after [`GroupState::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Lets the group go down to nothing over `over_ms`; no rule is heard any more.
    pub fn drain(&mut self, now: Timestamp, over_ms: u64) {
        self.draining = self.draining.or(Some(Drain { size: self.target, since: now, over_ms }));
    }

    /// Whether the group is going down to nothing.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Carries what is still meant over to a changed policy: rules that are the same keep what they remember, and what a
    /// delta gave is undone with the rule.
    pub(crate) fn carry_over(&mut self, old: &Group, new: &Group) {
        let rules = new.policy.rules.iter().map(|rule| {
            let kept = old.policy.rules.iter().position(|held| held == rule);
            kept.and_then(|at| self.rules.get(at).copied()).unwrap_or(RuleState::Fresh)
        });
        self.rules = rules.collect();
        if !new.policy.rules.iter().any(|rule| matches!(rule.kind, RuleKind::Step(..))) {
            self.steps = 0;
        }
        self.base = self.base.clamp(new.policy.min, new.policy.max);
    }

    /// Takes in that decisions up to `until` would have wanted what the last one wanted.
    pub(crate) fn coast(&mut self, behavior: &Behavior, until: Timestamp) {
        self.least.coast(until, behavior.out.stabilize_ms);
        self.most.coast(until, behavior.inward.stabilize_ms);
    }

    /// Whether this can be a state of `group`.
    pub(crate) fn is_sound(&self, group: &Group) -> bool {
        let policy = &group.policy;
        self.rules.len() == policy.rules.len()
            && (policy.min..=policy.max).contains(&self.base)
            && self.least.is_sound(Extreme::Least)
            && self.most.is_sound(Extreme::Most)
            && policy.rules.iter().zip(&self.rules).all(|(rule, state)| match (&rule.kind, state) {
                (_, RuleState::Fresh)
                | (RuleKind::Metric(_, Strategy::Threshold(_)), RuleState::Samples(..))
                | (RuleKind::Step(..), RuleState::Point(_)) => true,
                (RuleKind::Delta(_, by), RuleState::Window { share, inside, .. }) => {
                    share.signum() * by.signum() >= 0 && share.abs() <= by.abs() && (*inside || *share == 0)
                }
                (RuleKind::Floor(..) | RuleKind::Cap(..), RuleState::Window { share, .. }) => *share == 0,
                _ => false,
            })
    }
}

/// What one decision takes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// Instances that serve.
    pub ready: u32,
    /// Instances that are on their way: they count, and are never asked for twice.
    pub starting: u32,
    /// The last sample of each of the policy's metrics, in the policy's order; a missing tail counts as no sample.
    pub samples: &'a [Option<Sample>],
}

impl Inputs<'_> {
    pub(crate) fn delivered(&self) -> u32 {
        self.ready.saturating_add(self.starting)
    }
}
