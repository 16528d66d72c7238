//! Groups: the traffic that a group serves, the policy it is sized by, and the inputs of its decisions.

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

/// A traffic group: the unit that calls stay inside.
///
/// Its elastic group is made from it, one to one, and has the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Traffic {
    /// The id of the group.
    pub id: GroupId,
    /// The data centres that its calls reach; empty for all.
    pub idcs: Vec<IdcId>,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The release group, which says the image that new instances run.
    pub release: ReleaseId,
    /// The shape of its instances.
    pub shape: ShapeId,
}

/// The policy of a group: how it is sized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// The minimum size. No rule goes below it; a timed cap and an operator's override may.
    pub min: u32,
    /// The maximum size. Only an operator's override may go above it.
    pub max: u32,
    /// The rank. Groups of a smaller rank are served first when stock is short.
    pub rank: u8,
    /// The metrics that rules may name.
    pub metrics: Vec<Metric>,
    /// The formulas of metrics that are computed from others.
    pub formulas: Vec<Formula>,
    /// The rules. Their order has no meaning.
    pub rules: Vec<Rule>,
    /// The behaviour: how fast metric rules may move the group.
    pub behavior: Behavior,
    /// The warm-up time of an instance, in ms.
    ///
    /// For that long after its start it is left out of the averages that
    /// [`Engine::handle_pod_samples`](crate::Engine::handle_pod_samples) takes: what it uses to start up says nothing
    /// about the load.
    pub warm_up_ms: u64,
    /// Whether the growth that is decided may be granted in part.
    pub grant: Grant,
    /// The maximum difference of instances between data centres.
    ///
    /// `None` if one may take what another lacks, as evenly as there is stock.
    pub skew: Option<u32>,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rule {
    /// The id of the rule within the group.
    pub id: RuleId,
    /// The kind of the rule, with its parameters.
    pub kind: RuleKind,
}

impl Rule {
    /// How the rule makes a count of its metric; `None` for one of the clock.
    pub(crate) fn strategy(&self) -> Option<&Strategy> {
        if let RuleKind::Metric(_, strategy) = &self.kind { Some(strategy) } else { None }
    }
}

/// The kind of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RuleKind {
    /// A metric rule: a wanted count from a metric.
    Metric(MetricId, Strategy),
    /// A timed floor: at least this many instances inside the window.
    Floor(Window, u32),
    /// A timed cap: at most this many instances inside the window.
    Cap(Window, u32),
    /// A timed delta: this many more (or fewer) instances inside the window.
    ///
    /// A delta that finds less to take takes less; at the end of the window exactly what it gave or took is undone.
    Delta(Window, i32),
    /// A timed step: this many more (or fewer) instances from this point on.
    ///
    /// A step that finds less to take takes less.
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

/// A group's policy after it has been checked, with its zones resolved: the input of [`decide`](crate::decide).
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

/// The limits of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest maximum of a group.
    pub instances: u32,
    /// The maximum number of rules, and of metrics, of one group.
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
    /// ```
    /// use tenon_scaler::{Group, Limits, Policy, PolicyError, Zones};
    ///
    /// let wrong = Policy { min: 9, max: 8, ..Policy::default() };
    /// assert_eq!(Group::new(wrong, &Zones::new(), Limits::default()).unwrap_err(), PolicyError::MinAboveMax);
    /// ```
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

    /// The index of a metric among the samples that a decision takes.
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

/// The inputs of one decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// The number of instances that serve.
    pub ready: u32,
    /// The number of instances on their way. They count, and are never requested twice.
    pub starting: u32,
    /// The last sample of each of the policy's metrics, in the policy's order. A missing tail counts as no sample.
    pub samples: &'a [Option<Sample>],
    /// The instances one by one, for rules that look at each; `None` if the host does not tell of them.
    pub fleet: Option<&'a Fleet>,
}

/// The instances of a group one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fleet {
    /// The time when they were seen.
    pub at: Timestamp,
    /// The instances, in the order of their ids.
    pub pods: Vec<Pod>,
    /// The samples of each instance, in the order of their ids, for each of the policy's metrics in its order. A
    /// missing tail counts as no sample.
    pub samples: Vec<Vec<PodSample>>,
}

impl Inputs<'_> {
    pub(crate) fn delivered(&self) -> u32 {
        self.ready.saturating_add(self.starting)
    }
}
