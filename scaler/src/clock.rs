//! Timed rules at an instant: windows that hold, deltas with the share that each was given, steps that have fallen due.

use crate::Timestamp;
use crate::decide::Haste;
use crate::group::{Binding, Group, RuleKind};
use crate::id::RuleId;
use crate::record::{TimedLine, Trace};
use crate::state::{GroupState, RuleState};

/// The result of the timed rules at an instant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timed {
    pub(crate) deltas: i64,
    pub(crate) floor: Option<(RuleId, u32)>,
    pub(crate) cap: Option<(RuleId, u32)>,
    /// The part of the shares of deltas and steps that held before this decision and still does.
    pub(crate) kept: i64,
    /// The number of instances that steps took from the size that metric rules start from.
    pub(crate) taken: u32,
}

/// The maximum number of missed steps that one decision catches up with.
const MAX_CATCH_UP: usize = 100;

pub(crate) fn run_clock<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    now: Timestamp,
    haste: Haste,
    trace: &mut T,
    next: &mut Timestamp,
) -> Timed {
    let mut timed = Timed::default();
    let steps = state.steps;
    let mut entered = false;
    let mut stepped = false;
    for (at, (rule, binding)) in group.rules().enumerate() {
        let Binding::Zone(zone) = binding else {
            continue;
        };
        match &rule.kind {
            RuleKind::Metric(..) => {}
            RuleKind::Step(point, _) => {
                let (due, share) = if let RuleState::Point { due, share } = state.rules[at] {
                    (due, share)
                } else {
                    (Timestamp::ZERO, 0)
                };
                let due = if due > Timestamp::ZERO {
                    due
                } else {
                    let before = Timestamp::from_millis(now.as_millis().saturating_sub(1));
                    point.next_after(zone, before).unwrap_or(Timestamp::MAX)
                };
                state.rules[at] = RuleState::Point { due, share };
                stepped |= is_due(due, now) && haste == Haste::Usual;
                *next = due.min(*next);
            }
            RuleKind::Floor(window, _) | RuleKind::Cap(window, _) | RuleKind::Delta(window, _) => {
                if let RuleState::Window { inside, until, share } = state.rules[at]
                    && now < until
                {
                    *next = until.min(*next);
                    note_window(&rule.kind, rule.id, inside, &mut timed);
                    timed.deltas += i64::from(share);
                    timed.kept += i64::from(share);
                    continue;
                }
                let (was_inside, share) = if let RuleState::Window { inside, share, .. } = state.rules[at] {
                    (inside, share)
                } else {
                    (false, 0)
                };
                let standing = window.standing(zone, now);
                // In a leap of the clock, what has ended may not have.
                let stays = standing.inside || (haste == Haste::Leap && share > 0);
                state.ended |= share > 0 && !stays;
                let share = if stays { share } else { 0 };
                entered |= standing.inside && !was_inside;
                state.rules[at] = RuleState::Window { inside: stays, until: standing.until, share };
                timed.deltas += i64::from(share);
                timed.kept += i64::from(share);
                *next = standing.until.min(*next);
                if stays != standing.inside {
                    // It is looked at again in the next tick.
                    state.rules[at] = RuleState::Window { inside: true, until: now, share };
                    *next = now.after_millis(1).min(*next);
                }
                note_window(&rule.kind, rule.id, standing.inside, &mut timed);
            }
        }
    }
    if stepped {
        *next = run_steps(group, state, now, &mut timed, trace).min(*next);
        state.ended |= state.steps < steps || timed.taken > 0;
    }
    timed.kept += i64::from(state.steps.min(steps));
    if entered {
        enter_deltas(group, state, &mut timed);
    }
    if T::ON {
        trace_deltas(group, state, trace);
    }
    timed
}

fn note_window(kind: &RuleKind, rule: RuleId, inside: bool, timed: &mut Timed) {
    if !inside {
        return;
    }
    if let RuleKind::Floor(_, count) = kind
        && timed.floor.is_none_or(|(_, held)| held < *count)
    {
        timed.floor = Some((rule, *count));
    }
    if let RuleKind::Cap(_, count) = kind
        && timed.cap.is_none_or(|(_, held)| held > *count)
    {
        timed.cap = Some((rule, *count));
    }
}

/// Gives deltas whose window has begun their share: all of what they add, and as much of what they take as there is.
fn enter_deltas(group: &Group, state: &mut GroupState, timed: &mut Timed) {
    for (at, (rule, _)) in group.rules().enumerate() {
        let (RuleKind::Delta(_, by), RuleState::Window { inside: true, until, share: 0 }) =
            (&rule.kind, state.rules[at])
        else {
            continue;
        };
        let spare = i64::from(state.base) + i64::from(state.steps) + timed.deltas - i64::from(group.policy().min);
        let given =
            if *by >= 0 { *by } else { -i32::try_from(spare.clamp(0, i64::from(by.unsigned_abs()))).unwrap_or(0) };
        state.rules[at] = RuleState::Window { inside: true, until, share: given };
        timed.deltas += i64::from(given);
    }
}

fn trace_deltas<T: Trace>(group: &Group, state: &GroupState, trace: &mut T) {
    for ((rule, _), held) in group.rules().zip(&state.rules) {
        if let (RuleKind::Delta(_, asked), RuleState::Window { inside: true, share, .. }) = (&rule.kind, held) {
            trace.timed(TimedLine::Delta { rule: rule.id, asked: *asked, given: *share });
        }
    }
}

/// Whether an instant has come; [`Timestamp::MAX`] is "never", even then.
fn is_due(due: Timestamp, now: Timestamp) -> bool {
    due <= now && due < Timestamp::MAX
}

/// Takes the steps that have fallen due, in the order of their instants; returns when the next one does.
fn run_steps<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    now: Timestamp,
    timed: &mut Timed,
    trace: &mut T,
) -> Timestamp {
    for _ in 0..MAX_CATCH_UP {
        let due = state
            .rules
            .iter()
            .enumerate()
            .filter_map(|(at, held)| if let RuleState::Point { due, .. } = held { Some((*due, at)) } else { None });
        let Some((due, at)) = due.min() else {
            return Timestamp::MAX;
        };
        if !is_due(due, now) {
            return due;
        }
        let Some((rule, Binding::Zone(zone))) = group.rules().nth(at) else {
            return Timestamp::MAX;
        };
        let RuleKind::Step(point, by) = &rule.kind else {
            return Timestamp::MAX;
        };
        let share = state.rules[at].step_share();
        state.rules[at] = RuleState::Point { due: point.next_after(zone, due).unwrap_or(Timestamp::MAX), share };
        let given = take_step(group, state, (at, *by), timed);
        trace.timed(TimedLine::Step { rule: rule.id, at: due, asked: *by, given });
    }
    now.after_millis(1)
}

/// Adds to the rule's share, or takes from the shares first and from the base next, never below the minimum.
fn take_step(group: &Group, state: &mut GroupState, (at, by): (usize, i32), timed: &mut Timed) -> i32 {
    if by >= 0 {
        let given = by.unsigned_abs().min(u32::MAX - state.steps);
        state.steps += given;
        if let RuleState::Point { share, .. } = &mut state.rules[at] {
            *share += given;
        }
        return i32::try_from(given).unwrap_or(i32::MAX);
    }
    let asked = by.unsigned_abs();
    let from_steps = asked.min(state.steps);
    state.steps -= from_steps;
    let mut left = from_steps;
    for held in &mut state.rules {
        if let RuleState::Point { share, .. } = held {
            let part = left.min(*share);
            (*share, left) = (*share - part, left - part);
        }
    }
    let spare = i64::from(state.base) + i64::from(state.steps) + timed.deltas - i64::from(group.policy().min);
    let spare = u32::try_from(spare.max(0)).unwrap_or(u32::MAX).min(state.base - group.policy().min.min(state.base));
    let from_base = (asked - from_steps).min(spare);
    state.base -= from_base;
    timed.taken = timed.taken.saturating_add(from_base);
    -i32::try_from(from_steps + from_base).unwrap_or(i32::MAX)
}
