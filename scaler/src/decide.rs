//! One group's decision: a pure function of the group, its state, its inputs and the time.
//!
//! The layers, from the lowest: minimum < metric rules < timed deltas, steps and floors < caps < pause < an operator's
//! override. Metric rules alone are held back by the group's behaviour: what a clock or an operator says is done at once.

use crate::Timestamp;
use crate::behavior::{Behavior, Extreme};
use crate::clock::{Timed, run_clock};
use crate::group::{Binding, Group, GroupState, Inputs, RuleKind, RuleState};
use crate::metric::{Reading, Sample};
use crate::reason::{Direction, Reason};
use crate::record::{Decision, Layer, LayerLine, Limit, LimitLine, Lines, RuleLine, Said, Trace};
use crate::strategy::{Breaches, Evidence, QueueEvidence, Strategy, TargetEvidence, Verdict};

/// Decides how many instances `group` gets, and tells what its state is afterwards.
///
/// Calling it again with the new state and the same inputs, before [`Decision::next_change`], gives the same target.
pub fn decide(group: &Group, state: &GroupState, inputs: &Inputs<'_>, now: Timestamp) -> (Decision, GroupState) {
    let mut next = state.clone();
    let mut lines = Lines::default();
    let brief = step(group, &mut next, inputs, now, &mut lines);
    let decision = Decision {
        at: now,
        ready: inputs.ready,
        starting: inputs.starting,
        previous: state.target,
        target: brief.target,
        reason: brief.reason,
        next_change: brief.next_change,
        lines,
    };
    (decision, next)
}

/// What a decision comes to, without its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) target: u32,
    pub(crate) reason: Reason,
    pub(crate) next_change: Timestamp,
}

/// The one code path of every decision: live, rehearsed, explained.
pub(crate) fn step<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    inputs: &Inputs<'_>,
    now: Timestamp,
    trace: &mut T,
) -> Brief {
    let mut next = Timestamp::MAX;
    let timed = run_clock(group, state, now, trace, &mut next);
    let metric = run_metrics(group, state, inputs, now, trace, &mut next);
    let (mut reason, fired) = settle(group, state, metric, now, trace, &mut next);
    if fired {
        // The samples that moved the group speak of the size before: thresholds start over, and are heard again at once.
        for rule in &mut state.rules {
            if let RuleState::Samples(breaches, _) = rule {
                *breaches = Breaches::default();
            }
        }
        next = now.after_millis(1);
    }
    let target = run_layers(group, state, &timed, now, trace, &mut next, &mut reason);
    state.target = target;
    Brief { target, reason, next_change: next }
}

/// What the metric rules say together.
#[derive(Clone, Copy, Debug)]
struct Metrics {
    said: Said,
    broken: bool,
    /// Whether a threshold stands behind what is wanted.
    threshold: bool,
}

fn run_metrics<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    inputs: &Inputs<'_>,
    now: Timestamp,
    trace: &mut T,
    next: &mut Timestamp,
) -> Metrics {
    let base = state.base;
    let extra = u64::from(inputs.delivered()).saturating_add(u64::from(base));
    let delivered = u32::try_from(extra.saturating_sub(u64::from(state.target))).unwrap_or(u32::MAX);
    let mut metrics = Metrics { said: Said::nothing(base), broken: false, threshold: false };
    trace.base(base);
    for (at, (rule, binding)) in group.rules().enumerate() {
        let (RuleKind::Metric(_, strategy), Binding::Metric(index)) = (&rule.kind, binding) else {
            continue;
        };
        let index = usize::from(*index);
        let metric = &group.policy().metrics[index];
        let sample = inputs.samples.get(index).copied().flatten();
        let reading = metric.read(sample, now);
        if let Reading::Fresh(sample) = reading {
            *next = sample.at.after_millis(metric.stale_after_ms).min(*next);
        }
        let evidence = read_rule(strategy, reading, &mut state.rules[at], base, delivered);
        let verdict = evidence.verdict();
        metrics.said.hear(rule.id, verdict, base);
        metrics.broken |= verdict == Verdict::Broken;
        metrics.threshold |= matches!((strategy, verdict), (Strategy::Threshold(_), Verdict::Want(_)));
        if T::ON {
            let age_ms = sample.map(|sample| now.millis_since(sample.at));
            trace.rule(RuleLine { rule: rule.id, age_ms, evidence, verdict });
        }
    }
    metrics
}

fn read_rule(strategy: &Strategy, reading: Reading, held: &mut RuleState, base: u32, delivered: u32) -> Evidence {
    let sample = match reading {
        Reading::Fresh(sample) => sample,
        Reading::Assumed(value) => Sample { at: Timestamp::ZERO, value, over: delivered },
        Reading::Silent | Reading::Broken => {
            *held = RuleState::Fresh;
            return if reading == Reading::Silent { Evidence::Silent } else { Evidence::Broken };
        }
    };
    match strategy {
        Strategy::Threshold(threshold) => {
            let (mut breaches, last) = if let RuleState::Samples(breaches, last) = *held {
                (breaches, Some(last))
            } else {
                (Breaches::default(), None)
            };
            if matches!(reading, Reading::Assumed(_)) {
                (0..threshold.of).for_each(|_| breaches.push(threshold, sample.value));
                *held = RuleState::Fresh;
            } else {
                if last.is_none_or(|last| sample.at > last) {
                    breaches.push(threshold, sample.value);
                }
                *held = RuleState::Samples(breaches, sample.at);
            }
            Evidence::Threshold(breaches.evidence(threshold, base, delivered))
        }
        Strategy::Target(rule) => {
            Evidence::Target(TargetEvidence { value: sample.value, over: sample.over, rule: *rule })
        }
        Strategy::QueueLength(rule) => Evidence::QueueLength(QueueEvidence { total: sample.value, rule: *rule }),
        Strategy::Given => Evidence::Given(sample.value),
    }
}

/// Holds what metric rules want back by the group's behaviour, and makes it the new base.
fn settle<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    metrics: Metrics,
    now: Timestamp,
    trace: &mut T,
    next: &mut Timestamp,
) -> (Reason, bool) {
    let policy = group.policy();
    let base = state.base;
    let mut reason = metrics.said.by.map_or(Reason::Steady, Reason::Metric);
    let mut size = metrics.said.wanted;
    let mut limit = |limit: Limit, why: Reason, until: Timestamp, size: &mut u32| {
        let before = *size;
        *size = limit.apply(before);
        if *size != before {
            reason = why;
            *next = until.min(*next);
        }
        trace.limit(LimitLine { limit, before, after: *size, until });
    };
    if state.paused {
        limit(Limit::Paused { size: base }, Reason::Paused, Timestamp::MAX, &mut size);
    }
    if metrics.broken {
        limit(Limit::Broken { size: base }, Reason::Broken, Timestamp::MAX, &mut size);
    }
    let bounds = Limit::Bounds { min: policy.min, max: policy.max };
    let why = if size < policy.min { Reason::Minimum } else { Reason::Maximum };
    limit(bounds, why, Timestamp::MAX, &mut size);
    let Behavior { out, inward } = policy.behavior;
    if out.stabilize_ms > 0 || inward.stabilize_ms > 0 {
        state.least.push(Extreme::Least, size, now, out.stabilize_ms);
        state.most.push(Extreme::Most, size, now, inward.stabilize_ms);
        let (least, most) = (state.least.extreme().unwrap_or(size), state.most.extreme().unwrap_or(size));
        let until = state.least.changes_at(out.stabilize_ms).min(state.most.changes_at(inward.stabilize_ms));
        limit(Limit::Stabilized { size: base, least, most }, Reason::Stabilized, until, &mut size);
    }
    let (direction, moved, pace) =
        if size > base { (Direction::Out, state.moved_out, out) } else { (Direction::In, state.moved_in, inward) };
    if let Some(moved) = moved.filter(|_| pace.cooldown_ms > 0 && size != base) {
        let cooldown =
            Limit::Cooldown { size: base, waited_ms: now.millis_since(moved), cooldown_ms: pace.cooldown_ms };
        limit(cooldown, Reason::Cooldown(direction), moved.after_millis(pace.cooldown_ms), &mut size);
    }
    if size != base {
        *(if size > base { &mut state.moved_out } else { &mut state.moved_in }) = Some(now);
        state.base = size;
    }
    (reason, metrics.threshold && size != base)
}

fn run_layers<T: Trace>(
    group: &Group,
    state: &GroupState,
    timed: &Timed,
    now: Timestamp,
    trace: &mut T,
    next: &mut Timestamp,
    reason: &mut Reason,
) -> u32 {
    let policy = group.policy();
    let mut size = state.base;
    let mut layer = |layer: Layer, why: Reason| {
        let before = size;
        size = layer.apply(before);
        if size != before || matches!(layer, Layer::ByHand(_) | Layer::Draining(_)) {
            *reason = why;
        }
        trace.layer(LayerLine { layer, before, after: size });
    };
    if timed.deltas != 0 {
        layer(Layer::Deltas(timed.deltas), Reason::Timed);
    }
    if state.steps != 0 {
        layer(Layer::Steps(state.steps), Reason::Timed);
    }
    if let Some((rule, count)) = timed.floor {
        layer(Layer::Floor(count), Reason::Floor(rule));
    }
    layer(Layer::Minimum(policy.min), Reason::Minimum);
    if let Some((rule, count)) = timed.cap {
        layer(Layer::Cap(count), Reason::Cap(rule));
    }
    layer(Layer::Maximum(policy.max), Reason::Maximum);
    if state.paused {
        layer(Layer::Paused(state.target), Reason::Paused);
    }
    if let Some(by_hand) = state.by_hand.filter(|by_hand| now < by_hand.until) {
        *next = by_hand.until.min(*next);
        layer(Layer::ByHand(by_hand.count), Reason::ByHand);
    }
    if let Some(draining) = &state.draining {
        *next = now.after_millis(1).min(*next);
        layer(Layer::Draining(draining.left(now)), Reason::Draining);
    }
    size
}
