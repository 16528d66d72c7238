//! From what rules want to the target: what holds growth back, what stands above metric rules, and how the way down is
//! paced.
//!
//! The *size* that metric rules start from is the target before, without what timed deltas and steps add to it now. So a
//! rule that holds keeps the number that is there, whatever brought it there: a floor, an override, a chain's task. What
//! ends stops being asked for, and from then on the metric rules decide, through the group's scale-in behaviour.

use crate::Timestamp;
use crate::behavior::{Behavior, Moves, Pace, bound};
use crate::clock::Timed;
use crate::decide::Haste;
use crate::group::Group;
use crate::num::shift;
use crate::read::Metrics;
use crate::reason::{Direction, Reason};
use crate::record::{Layer, LayerLine, Limit, LimitLine, Stage, Trace};
use crate::state::GroupState;

/// A size on its way from what rules want to the target.
struct Course<'t, T> {
    size: u32,
    reason: Reason,
    next: Timestamp,
    trace: &'t mut T,
}

impl<T: Trace> Course<'_, T> {
    /// Whether the limit holds anything back; if so, until when by itself.
    fn limit(&mut self, stage: Stage, limit: Limit, until: Timestamp) -> bool {
        let before = self.size;
        self.size = limit.apply(before);
        if self.size != before {
            self.reason = limit.reason(before, self.size);
            self.next = until.min(self.next);
        }
        self.trace.limit(stage, LimitLine { limit, before, after: self.size, until });
        self.size != before
    }

    fn layer(&mut self, stage: Stage, layer: Layer) {
        let before = self.size;
        self.size = layer.apply(before);
        self.reason = layer.reason(before, self.size).unwrap_or(self.reason);
        self.trace.layer(stage, LayerLine { layer, before, after: self.size });
    }
}

/// The inputs of settling one decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard<'a> {
    /// The size that metric rules start from.
    pub(crate) size: u32,
    /// The result of the timed rules.
    pub(crate) timed: &'a Timed,
    /// The result of the metric rules.
    pub(crate) metrics: Metrics,
    /// Whether nothing could be measured, as the original sees it: its log takes nothing in then, and nothing moves.
    pub(crate) idle: bool,
}

/// The target, and what it is bound by.
pub(crate) fn settle<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    heard: &Heard<'_>,
    (now, haste): (Timestamp, Haste),
    trace: &mut T,
    next: &mut Timestamp,
) -> (u32, Reason) {
    let policy = group.policy();
    let behavior = &policy.behavior;
    let Heard { size, timed, metrics, idle } = *heard;
    let shares = timed.deltas.saturating_add(i64::from(state.steps));
    let mut course = Course { size: metrics.said.wanted, reason: metrics.reason(), next: *next, trace };
    if metrics.broken {
        course.limit(Stage::Metric, Limit::Broken { size }, Timestamp::MAX);
    }
    course.limit(Stage::Metric, Limit::Bounds { min: policy.min, max: policy.max }, Timestamp::MAX);
    let by_hand = state.by_hand.filter(|by_hand| now < by_hand.until);
    let chain = state.chain_floor(now, &mut course.next);
    if behavior.has_windows() {
        let floor = timed.floor.map_or(0, |(_, count)| count).max(chain.unwrap_or(0)).max(policy.min);
        let wanted = match by_hand {
            Some(by_hand) => by_hand.count,
            None if state.paused => state.target,
            None => shift(course.size, shares).max(floor),
        };
        state.log(
            behavior,
            now,
            size.saturating_add(timed.taken),
            (!idle).then_some((course.size, shift(wanted, shares.saturating_neg()))),
        );
    }
    if !idle {
        hold_out(&mut course, state, behavior, size, now);
    }
    let metric = course.size;
    lift(&mut course, timed, state.steps, chain, policy.min);
    let reference = shift(size.saturating_add(timed.taken), shares);
    if course.size < reference && !idle {
        hold_in(&mut course, state, behavior, (reference, shares), now);
    }
    cap(&mut course, state, timed, policy.max, now);
    if haste == Haste::Leap {
        course.limit(Stage::Pace, Limit::Leap { size: reference.min(state.target) }, now.after_millis(1));
    }
    if let Some(by_hand) = by_hand.filter(|_| state.draining.is_none()) {
        course.next = by_hand.until.min(course.next);
        course.layer(Stage::Top, Layer::ByHand(by_hand.count));
    }
    let Course { size: target, reason, next: until, trace } = course;
    *next = until;
    let adopted = state.take_adopted();
    let reason = reason.of_change(state.target, target, &adopted);
    trace.adopted(adopted);
    // What rules had said stays as it is where none has a say, and goes down no faster than the group does.
    if metrics.said.spoken && !state.paused {
        let left = state.base.min(shift(target, shares.saturating_neg()));
        state.base = metric.max(left).clamp(policy.min, policy.max);
    }
    state.ended = false;
    note_move(state, behavior, (state.target, target), metric > size, now);
    (target, reason)
}

/// Holds metric growth back: by the window, the cool-down and the rate of growing.
fn hold_out<T: Trace>(course: &mut Course<'_, T>, state: &GroupState, behavior: &Behavior, size: u32, now: Timestamp) {
    let out = &behavior.out;
    if behavior.highest_ms > 0 {
        let most = state.most.extreme().unwrap_or(course.size);
        course.limit(Stage::Metric, Limit::Highest { most }, state.most.changes_at(behavior.window_in()));
    }
    if course.size <= size {
        return;
    }
    if out.stabilize_ms > 0 {
        let least = state.least.extreme().unwrap_or(course.size);
        let until = state.least.changes_at(out.stabilize_ms);
        course.limit(Stage::Metric, Limit::StabilizedOut { size, least }, until);
    }
    pace(course, state, (Stage::Metric, Direction::Out, size), behavior, now);
    if let Some(jump) = behavior.jump.filter(|_| course.size > size) {
        let limit = Limit::Jump { size, factor: jump.factor, minimum: jump.minimum };
        course.limit(Stage::Metric, limit, Timestamp::MAX);
    }
}

/// Holds the way down back: by the window, the cool-down and the rate of shrinking.
fn hold_in<T: Trace>(
    course: &mut Course<'_, T>,
    state: &GroupState,
    behavior: &Behavior,
    (size, shares): (u32, i64),
    now: Timestamp,
) {
    let window = behavior.window_in();
    if window > 0 {
        let most = shift(state.most.extreme().unwrap_or(0), shares);
        course.limit(Stage::Pace, Limit::StabilizedIn { size, most }, state.most.changes_at(window));
    }
    pace(course, state, (Stage::Pace, Direction::In, size), behavior, now);
}

/// Holds a move back by the cool-down and the rate of its direction.
fn pace<T: Trace>(
    course: &mut Course<'_, T>,
    held: &GroupState,
    (stage, direction, size): (Stage, Direction, u32),
    behavior: &Behavior,
    now: Timestamp,
) {
    let (last, pace): (Option<Timestamp>, &Pace) = match direction {
        Direction::Out => (held.moved_out, &behavior.out),
        Direction::In => (held.moved_in, &behavior.inward),
    };
    if let Some(last) = last.filter(|_| pace.cooldown_ms > 0 && course.size != size) {
        let cooldown = Limit::Cooldown { size, waited_ms: now.millis_since(last), cooldown_ms: pace.cooldown_ms };
        course.limit(stage, cooldown, last.after_millis(pace.cooldown_ms));
    }
    let Some(rate) = pace.rate.as_ref().filter(|_| course.size != size) else { return };
    let none = Moves::default();
    let counted = held.more.as_ref().map_or(&none, |more| &more.moves);
    let lines = rate.policies.iter().map(|policy| counted.line(*policy, now));
    let bound = bound(direction, size, rate.select, lines.clone());
    if T::ON {
        course.trace.rate(rate.select, lines);
    }
    if course.limit(stage, Limit::Rate { size, bound }, Timestamp::MAX) {
        course.next = counted.changes_at(behavior, now).min(course.next);
    }
}

/// Raises the size by what stands above metric rules, at once.
fn lift<T: Trace>(course: &mut Course<'_, T>, timed: &Timed, steps: u32, chain: Option<u32>, min: u32) {
    if timed.deltas != 0 {
        course.layer(Stage::Metric, Layer::Deltas(timed.deltas));
    }
    if steps != 0 {
        course.layer(Stage::Metric, Layer::Steps(steps));
    }
    if let Some((rule, count)) = timed.floor {
        course.layer(Stage::Metric, Layer::Floor { rule, count });
    }
    if let Some(count) = chain {
        course.layer(Stage::Metric, Layer::Chain(count));
    }
    course.layer(Stage::Metric, Layer::Minimum(min));
}

/// Caps the size, at once, or sets it aside for an override, a pause or a drain.
fn cap<T: Trace>(course: &mut Course<'_, T>, state: &GroupState, timed: &Timed, max: u32, now: Timestamp) {
    if let Some((rule, count)) = timed.cap {
        course.layer(Stage::Pace, Layer::Cap { rule, count });
    }
    course.layer(Stage::Pace, Layer::Maximum(max));
    if state.paused {
        course.layer(Stage::Pace, Layer::Paused(state.target));
    }
    if let Some(draining) = &state.draining {
        course.next = now.after_millis(1).min(course.next);
        course.layer(Stage::Pace, Layer::Draining(draining.left(now)));
    }
}

/// Remembers a move: cool-downs count from it, and rates count it.
fn note_move(
    state: &mut GroupState,
    behavior: &Behavior,
    (before, after): (u32, u32),
    by_metric: bool,
    now: Timestamp,
) {
    if after == before {
        return;
    }
    if after < before {
        state.moved_in = Some(now);
    } else if by_metric {
        state.moved_out = Some(now);
    }
    if behavior.has_rates() {
        state.more.get_or_insert_default().moves.store(behavior, before, after, now);
    }
}
