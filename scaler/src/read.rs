//! The reading of a group's metric rules: each reads its metric and gives its verdict, and the highest wanted count
//! applies.

use alloc::boxed::Box;

use crate::Timestamp;
use crate::group::{Binding, Fleet, Group, Inputs, RuleKind};
use crate::hpa::{Kind, MetricError, Pods, Tally, Usage, tally};
use crate::id::RuleId;
use crate::metric::{Reading, Sample};
use crate::reason::Reason;
use crate::record::{RuleLine, Said, Trace};
use crate::state::{GroupState, RuleState};
use crate::strategy::{
    Breaches, Evidence, Hpa, HpaEvidence, KpaEvidence, QueueEvidence, Strategy, TargetEvidence, Threshold, Verdict,
};

/// The joint result of the metric rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metrics {
    pub(crate) said: Said,
    pub(crate) broken: bool,
    /// Whether some rule has no say for want of a fresh sample.
    silent: bool,
    /// Whether rules that start over after a move stand behind what is wanted.
    pub(crate) starts_over: bool,
}

impl Metrics {
    /// The result if no rule has a say: the group keeps `rest`.
    pub(crate) const fn nothing(rest: u32) -> Self {
        Self { said: Said::nothing(rest), broken: false, silent: false, starts_over: false }
    }

    pub(crate) fn hear(&mut self, rule: RuleId, verdict: Verdict, evidence: &Evidence, size: u32) {
        self.note(rule, verdict, matches!(evidence, Evidence::Silent), size);
    }

    fn note(&mut self, rule: RuleId, verdict: Verdict, silent: bool, size: u32) {
        self.said.hear(rule, verdict, size);
        self.broken |= verdict == Verdict::Broken;
        self.silent |= silent;
    }

    /// Why the metric rules want what they want.
    pub(crate) fn reason(&self) -> Reason {
        match self.said.by {
            Some(rule) => Reason::Metric(rule),
            None if self.said.spoken => Reason::Steady,
            None if self.broken => Reason::Broken,
            None if self.silent => Reason::Silent,
            None => Reason::Steady,
        }
    }

    /// Whether a pass has failed as the original sees it: a metric is broken, and the others would shrink the group or say
    /// nothing.
    pub(crate) fn fails(&self, size: u32) -> bool {
        self.broken && !(self.said.spoken && self.said.wanted >= size)
    }
}

/// The inputs that every rule of one decision shares.
struct Reader<'a> {
    inputs: &'a Inputs<'a>,
    /// The size that metric rules start from.
    size: u32,
    /// The part of the size that exists or is on its way.
    delivered: u32,
    /// The part of the size that serves.
    ready: u32,
    now: Timestamp,
    next: Timestamp,
}

pub(crate) fn run_metrics<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    inputs: &Inputs<'_>,
    size: u32,
    now: Timestamp,
    trace: &mut T,
    next: &mut Timestamp,
) -> Metrics {
    let mut metrics = Metrics::nothing(state.base);
    let of_metrics = |count: u32| {
        let more = u64::from(count).saturating_add(u64::from(size)).saturating_sub(u64::from(state.target));
        u32::try_from(more).unwrap_or(u32::MAX)
    };
    let (delivered, ready) = (of_metrics(inputs.delivered()), of_metrics(inputs.ready));
    let mut reader = Reader { inputs, size, delivered, ready, now, next: *next };
    for (at, (rule, binding)) in group.rules().enumerate() {
        let (RuleKind::Metric(_, strategy), Binding::Metric(index)) = (&rule.kind, binding) else {
            continue;
        };
        let index = usize::from(*index);
        let metric = &group.policy().metrics[index];
        let sample = inputs.samples.get(index).copied().flatten();
        let reading = metric.read(sample, now);
        if let Reading::Fresh(sample) = reading {
            reader.next = sample.at.after_millis(metric.stale_after_ms).min(reader.next);
        }
        let found = reader.read(rule.id, strategy, index, reading, at, state);
        let verdict = found.verdict();
        metrics.note(rule.id, verdict, matches!(found, Found::Small(Evidence::Silent)), size);
        let starts_over = matches!(strategy, Strategy::Threshold(_) | Strategy::Steps(_));
        metrics.starts_over |= starts_over && matches!(verdict, Verdict::Want(_));
        if T::ON {
            let age_ms = sample.map(|sample| now.millis_since(sample.at));
            trace.rule(RuleLine { rule: rule.id, age_ms, evidence: found.into_evidence(), verdict });
        }
    }
    if !metrics.said.spoken {
        trace.rest(state.base);
    }
    *next = reader.next;
    metrics
}

/// Evidence that is boxed only where it is kept: most decisions keep none.
enum Found {
    Small(Evidence),
    Hpa(HpaEvidence),
    Kpa(KpaEvidence),
}

impl Found {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Small(evidence) => evidence.verdict(),
            Self::Hpa(evidence) => evidence.verdict(),
            Self::Kpa(evidence) => evidence.verdict(),
        }
    }

    fn into_evidence(self) -> Evidence {
        match self {
            Self::Small(evidence) => evidence,
            Self::Hpa(evidence) => Evidence::Hpa(Box::new(evidence)),
            Self::Kpa(evidence) => Evidence::Kpa(Box::new(evidence)),
        }
    }
}

impl Reader<'_> {
    fn read(
        &mut self,
        rule: RuleId,
        strategy: &Strategy,
        index: usize,
        reading: Reading,
        at: usize,
        state: &mut GroupState,
    ) -> Found {
        let sample = match reading {
            Reading::Fresh(sample) => sample,
            Reading::Assumed(value) => Sample { at: Timestamp::ZERO, value, over: self.delivered },
            Reading::Silent | Reading::Broken => {
                state.rules[at] = RuleState::Fresh;
                let silent = reading == Reading::Silent;
                return Found::Small(if silent { Evidence::Silent } else { Evidence::Broken });
            }
        };
        let assumed = matches!(reading, Reading::Assumed(_));
        Found::Small(match strategy {
            Strategy::Threshold(threshold) => {
                let breaches = read_threshold(threshold, sample, assumed, &mut state.rules[at]);
                Evidence::Threshold(breaches.evidence(threshold, self.size, self.ready))
            }
            Strategy::Target(rule) => Evidence::Target(TargetEvidence {
                value: sample.value,
                over: sample.over,
                rule: *rule,
                size: self.size,
            }),
            Strategy::QueueLength(rule) => Evidence::QueueLength(QueueEvidence { total: sample.value, rule: *rule }),
            Strategy::Steps(steps) => {
                if !assumed && matches!(state.rules[at], RuleState::Heard(heard) if heard >= sample.at) {
                    return Found::Small(Evidence::Heard);
                }
                state.rules[at] = RuleState::Fresh;
                Evidence::Steps(steps.evidence(sample.value, self.size, self.ready))
            }
            Strategy::Hpa(hpa) => return self.read_hpa(hpa, index, sample, assumed),
            Strategy::Kpa(kpa) => {
                // Windows move with time, whatever is measured.
                self.next = self.now.after_millis(1);
                let memory = state.more.get_or_insert_default();
                let memory = memory.kpa(rule, kpa, self.inputs.ready, self.now);
                if assumed {
                    memory.assume(kpa, sample.value, self.now);
                } else {
                    memory.observe(sample);
                }
                return Found::Kpa(memory.decide(kpa, self.inputs.ready, self.now));
            }
            Strategy::Given => Evidence::Given(sample.value),
        })
    }

    fn read_hpa(&mut self, hpa: &Hpa, index: usize, sample: Sample, assumed: bool) -> Found {
        let Inputs { ready, fleet, .. } = *self.inputs;
        let usage = match (hpa.metric.kind, fleet) {
            (Kind::Value, fleet) => {
                let ready = fleet.map_or(i64::from(ready), |fleet| Pods(&fleet.pods).ready());
                let none = fleet.map_or(self.inputs.delivered() == 0, |fleet| fleet.pods.is_empty());
                Ok(Usage::Value { usage: sample.value.as_thousandths(), ready: (!none).then_some(ready) })
            }
            (Kind::AverageValue, _) => {
                Ok(Usage::AverageValue { usage: sample.value.as_thousandths(), replicas: self.delivered })
            }
            (_, Some(fleet)) if !assumed => self.tally(hpa, index, fleet),
            _ => Tally::even(&hpa.metric, sample.value, sample.over).map(Usage::Pods),
        };
        match usage {
            Ok(usage) => {
                let Hpa { metric, tolerance, guard, .. } = *hpa;
                Found::Hpa(HpaEvidence { metric, tolerance, usage, size: self.size, guard })
            }
            Err(error) => Found::Small(Evidence::HpaFailed(error)),
        }
    }

    fn tally(&mut self, hpa: &Hpa, index: usize, fleet: &Fleet) -> Result<Usage, MetricError> {
        let samples = fleet.samples.get(index).map_or(&[][..], |samples| samples);
        if matches!(hpa.metric.kind, Kind::CpuUtilization | Kind::CpuAverage) {
            // A pod is doubted for so long after its start: what it counts for changes then.
            let ends = fleet.pods.iter().filter_map(|pod| pod.started);
            let ends = ends.map(|started| started.after_millis(hpa.cpu_initialization_ms));
            self.next = ends.filter(|end| *end > self.now).min().unwrap_or(self.next).min(self.next);
        }
        tally(hpa.doubt(), &hpa.metric, Pods(&fleet.pods), samples, self.now).map(Usage::Pods)
    }
}

fn read_threshold(threshold: &Threshold, sample: Sample, assumed: bool, held: &mut RuleState) -> Breaches {
    if assumed {
        let mut breaches = Breaches::default();
        (0..threshold.of).for_each(|_| breaches.push(threshold, sample.value));
        *held = RuleState::Fresh;
        return breaches;
    }
    held.count(threshold, sample)
}
