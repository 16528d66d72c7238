//! One group's decision: a pure function of the group, its state, its inputs and the time.
//!
//! The layers, from the lowest: minimum < metric rules < timed deltas, steps and floors < caps < pause < an operator's
//! override. Metric rules alone are held back by the group's behaviour: what a clock or an operator says is done at once.

use crate::Timestamp;
use crate::clock::{Timed, run_clock};
use crate::group::{Group, Inputs};
use crate::read::run_metrics;
use crate::reason::Reason;
use crate::record::{Decision, Layer, LayerLine, Lines, Trace};
use crate::settle::settle;
use crate::state::GroupState;

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
        state.start_over(group, inputs.samples);
        next = now.after_millis(1);
    }
    let target = run_layers(group, state, &timed, now, trace, &mut next, &mut reason);
    state.target = target;
    Brief { target, reason, next_change: next }
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
    let mut layer = |layer: Layer, why: &dyn Fn(u32) -> Reason| {
        let before = size;
        size = layer.apply(before);
        if size != before || matches!(layer, Layer::ByHand(_) | Layer::Draining(_)) {
            *reason = why(before);
        }
        trace.layer(LayerLine { layer, before, after: size });
    };
    if timed.deltas != 0 {
        layer(Layer::Deltas(timed.deltas), &|_| Reason::Timed);
    }
    if state.steps != 0 {
        layer(Layer::Steps(state.steps), &|_| Reason::Timed);
    }
    if let Some((rule, count)) = timed.floor {
        layer(Layer::Floor(count), &|_| Reason::Floor(rule));
    }
    if let Some(held) = state.more.as_ref().and_then(|more| more.chain).filter(|held| now < held.until) {
        if held.from <= now {
            *next = held.until.min(*next);
            layer(Layer::Chain(held.count), &|_| Reason::Chain);
        } else {
            *next = held.from.min(*next);
        }
    }
    layer(Layer::Minimum(policy.min), &Reason::Minimum);
    if let Some((rule, count)) = timed.cap {
        layer(Layer::Cap(count), &|_| Reason::Cap(rule));
    }
    layer(Layer::Maximum(policy.max), &Reason::Maximum);
    if state.paused {
        layer(Layer::Paused(state.target), &|_| Reason::Paused);
    }
    if let Some(by_hand) = state.by_hand.filter(|by_hand| now < by_hand.until) {
        *next = by_hand.until.min(*next);
        layer(Layer::ByHand(by_hand.count), &|_| Reason::ByHand);
    }
    if let Some(draining) = &state.draining {
        *next = now.after_millis(1).min(*next);
        layer(Layer::Draining(draining.left(now)), &|_| Reason::Draining);
    }
    size
}
