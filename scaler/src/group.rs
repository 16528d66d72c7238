//! A group: what traffic it serves, the policy it is sized by, and what its size depends on besides its inputs.

use alloc::vec::Vec;

use jiff::tz::TimeZone;
use smallvec::SmallVec;

use crate::Timestamp;
use crate::allot::Grant;
use crate::behavior::Behavior;
use crate::error::PolicyError;
use crate::formula::Formula;
use crate::hpa::{Pod, PodSample};
use crate::id::{GroupId, IdcId, MetricId, ReleaseId, RuleId, ShapeId, TenantId, ZoneId};
use crate::metric::{Metric, Sample};
use crate::schedule::{Days, Point, Window, Zones};
use crate::strategy::{Guard, Strategy};

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
    /// The minimum: no rule goes below it. A timed cap and an operator's override do.
    pub min: u32,
    /// The maximum: nothing but an operator's override goes above it.
    pub max: u32,
    /// Groups of a smaller rank are served first when stock is short.
    pub rank: u8,
    /// The metrics that rules may name.
    pub metrics: Vec<Metric>,
    /// Which of these are computed from others, and how.
    pub formulas: Vec<Formula>,
    /// The rules; their order has no meaning.
    pub rules: Vec<Rule>,
    /// How fast metric rules may move the group.
    pub behavior: Behavior,
    /// For how long after its start an instance is left out of the averages that
    /// [`Engine::handle_pod_samples`](crate::Engine::handle_pod_samples) takes, in ms: what it uses to start up says
    /// nothing about the load.
    pub warm_up_ms: u64,
    /// Whether a part of the growth that is decided is better than nothing.
    pub grant: Grant,
    /// By how many instances one data centre may have more than another. `None` where what one lacks the others may take,
    /// as evenly as there is stock.
    pub skew: Option<u32>,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rule {
    /// Its name within the group.
    pub id: RuleId,
    /// What it says.
    pub kind: RuleKind,
}

impl Rule {
    /// How the rule makes a count of its metric; `None` for one of the clock.
    pub(crate) fn strategy(&self) -> Option<&Strategy> {
        if let RuleKind::Metric(_, strategy) = &self.kind { Some(strategy) } else { None }
    }
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub(crate) policy: Policy,
    /// One per rule: its index among the metrics, or its zone.
    bindings: SmallVec<[Binding; 2]>,
    /// Whether some rule's answer changes with how many instances serve, though as many are there or on their way.
    pub(crate) reads_ready: bool,
    /// Whether a rule is to be exactly as its original in all that it makes the group do.
    pub(crate) exact: bool,
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
        if policy.formulas.len() > limits.rules {
            return Err(PolicyError::TooMany(limits.rules));
        }
        policy.formulas.iter().try_for_each(|formula| formula.check(&policy.metrics, &policy.formulas))?;
        policy.behavior.check()?;
        let mut bindings = SmallVec::with_capacity(policy.rules.len());
        for (at, rule) in policy.rules.iter().enumerate() {
            if policy.rules[..at].iter().any(|other| other.id == rule.id) {
                return Err(PolicyError::RuleTwice(rule.id));
            }
            bindings.push(bind(rule, &policy.metrics, zones)?);
        }
        let strategies = || policy.rules.iter().filter_map(|rule| rule.strategy());
        let reads_ready = strategies().any(Strategy::reads_ready);
        let exact = strategies().any(|strategy| matches!(strategy, Strategy::Hpa(hpa) if hpa.guard == Guard::Off));
        Ok(Self { policy, bindings, reads_ready, exact })
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

    /// Whether a metric is computed from others.
    pub(crate) fn is_computed(&self, id: MetricId) -> bool {
        self.policy.formulas.iter().any(|formula| formula.metric == id)
    }

    /// Whether some rule looks at instances one by one.
    pub(crate) fn reads_pods(&self) -> bool {
        let of_pods = |hpa: &crate::strategy::Hpa| hpa.metric.is_of_pods();
        self.policy.rules.iter().any(|rule| matches!(rule.strategy(), Some(Strategy::Hpa(hpa)) if of_pods(hpa)))
    }

    /// Whether any rule reads a metric.
    pub(crate) fn has_metric_rules(&self) -> bool {
        self.policy.rules.iter().any(|rule| rule.strategy().is_some())
    }

    /// A rule by its id.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.policy.rules.iter().find(|rule| rule.id == id)
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

/// What one decision takes from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// Instances that serve.
    pub ready: u32,
    /// Instances that are on their way: they count, and are never asked for twice.
    pub starting: u32,
    /// The last sample of each of the policy's metrics, in the policy's order; a missing tail counts as no sample.
    pub samples: &'a [Option<Sample>],
    /// The instances one by one, for rules that look at each; `None` where the host does not tell of them.
    pub fleet: Option<&'a Fleet>,
}

/// The instances of a group one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fleet {
    /// When they were seen.
    pub at: Timestamp,
    /// In the order of their ids.
    pub pods: Vec<Pod>,
    /// What was measured of each, in the order of their ids, for each of the policy's metrics in its order; a missing
    /// tail counts as nothing measured.
    pub samples: Vec<Vec<PodSample>>,
}

impl Inputs<'_> {
    pub(crate) fn delivered(&self) -> u32 {
        self.ready.saturating_add(self.starting)
    }
}
