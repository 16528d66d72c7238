//! The most that a policy can ask for, slot by slot.

use alloc::vec::Vec;

use jiff::tz::TimeZone;

use crate::Timestamp;
use crate::group::{Binding, Group, Rule, RuleKind};
use crate::num::shift;
use crate::schedule::{Point, Window};
use crate::state::{GroupState, Held, RuleState};

use super::plan::{Slots, Upper};

/// A group as it is now: what it remembers says what its steps have added.
pub(super) struct Present<'a> {
    pub(super) group: &'a Group,
    pub(super) state: &'a GroupState,
}

impl Present<'_> {
    /// When a step falls next, where it is the same as before; and what it has added.
    fn step(&self, rule: &Rule) -> (Option<Timestamp>, u32) {
        let found = self.group.rules().zip(&self.state.rules).find(|((held, _), _)| held.id == rule.id);
        match found {
            Some(((held, _), RuleState::Point { due, share })) => {
                (Some(*due).filter(|due| *held == *rule && *due > Timestamp::ZERO), *share)
            }
            _ => (None, 0),
        }
    }
}

/// The most that a policy can ask for in each slot from `start` on.
pub(super) fn envelope(
    group: &Group,
    upper: &Upper,
    start: u64,
    slots: Slots,
    present: Option<&Present<'_>>,
) -> Vec<u32> {
    let policy = group.policy();
    let now = slots.at(start);
    let base = present.map_or(0, |present| present.state.base);
    let by_metric = policy.rules.iter().any(|rule| matches!(rule.kind, RuleKind::Metric(..)));
    let metric = |slot: u32| {
        let known = upper.at(start.saturating_add(u64::from(slot)));
        let wanted = if by_metric { known.unwrap_or(policy.max) } else { base };
        wanted.clamp(policy.min, policy.max)
    };
    let mut demand: Vec<u32> = (0..slots.span()).map(metric).collect();
    let mut floors = alloc::vec![0_u32; demand.len()];
    let mut caps = alloc::vec![policy.max; demand.len()];
    let mut steps = Vec::new();
    let mut added = 0_u32;
    for (rule, binding) in group.rules() {
        let Binding::Zone(zone) = binding else { continue };
        match rule.kind {
            RuleKind::Metric(..) => {}
            RuleKind::Delta(window, by) => {
                // What a delta takes may not be there to take: it is not counted on.
                each_touched(&window, zone, now, slots, |slot| {
                    demand[slot] = shift(demand[slot], i64::from(by.max(0)));
                });
            }
            RuleKind::Floor(window, floor) => {
                each_touched(&window, zone, now, slots, |slot| floors[slot] = floors[slot].max(floor));
            }
            RuleKind::Cap(window, cap) => {
                each_covered(&window, zone, now, slots, |slot| caps[slot] = caps[slot].min(cap));
            }
            RuleKind::Step(point, by) => {
                let (due, share) = present.map_or((None, 0), |present| present.step(rule));
                added = added.saturating_add(share);
                each_fall(&point, zone, (now, due), slots, |at| steps.push((at, by)));
            }
        }
    }
    take_steps(&mut demand, added, steps, now, slots);
    for (slot, wanted) in demand.iter_mut().enumerate() {
        *wanted = (*wanted).max(floors[slot]).max(policy.min).min(caps[slot]);
    }
    demand
}

/// Adds what steps will have added: at most as much as they ask, and less by what others take back of it.
fn take_steps(demand: &mut [u32], added: u32, mut steps: Vec<(Timestamp, i32)>, now: Timestamp, slots: Slots) {
    if steps.is_empty() && added == 0 {
        return;
    }
    steps.sort_unstable();
    let mut levels = alloc::vec![added; demand.len()];
    let mut level = added;
    for (at, by) in steps {
        level = shift(level, i64::from(by));
        // What is taken back in the middle of a slot was there in it.
        let ms = at.millis_since(now);
        let slot = if by < 0 { ms.div_ceil(slots.slot_ms) } else { ms / slots.slot_ms };
        let slot = usize::try_from(slot).unwrap_or(usize::MAX).min(levels.len());
        levels[slot..].fill(level);
    }
    for (demand, level) in demand.iter_mut().zip(levels) {
        *demand = demand.saturating_add(level);
    }
}

/// Takes the floors of chain tasks into a demand.
pub(super) fn add_floors(demand: &mut [u32], tasks: &[Held], start: u64, slots: Slots) {
    for task in tasks {
        for (slot, size) in (start..).zip(demand.iter_mut()) {
            if task.from < slots.at(slot.saturating_add(1)) && slots.at(slot) < task.until {
                *size = task.count.max(*size);
            }
        }
    }
}

/// A demand in which what stays the same is said once.
pub(super) fn runs(demand: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (slot, size) in (0..).zip(demand) {
        if runs.last().is_none_or(|(_, before)| before != size) {
            runs.push((slot, *size));
        }
    }
    runs
}

/// Every slot that the window touches.
fn each_touched(window: &Window, zone: &TimeZone, start: Timestamp, slots: Slots, mut take: impl FnMut(usize)) {
    each_stay(window, zone, start, slots, |from, until| {
        let first = from / slots.slot_ms;
        let end = until.div_ceil(slots.slot_ms);
        (first..end.min(u64::from(slots.span()))).filter_map(|slot| usize::try_from(slot).ok()).for_each(&mut take);
    });
}

/// Every slot that the window covers wholly.
fn each_covered(window: &Window, zone: &TimeZone, start: Timestamp, slots: Slots, mut take: impl FnMut(usize)) {
    each_stay(window, zone, start, slots, |from, until| {
        let first = from.div_ceil(slots.slot_ms);
        let end = until / slots.slot_ms;
        (first..end.min(u64::from(slots.span()))).filter_map(|slot| usize::try_from(slot).ok()).for_each(&mut take);
    });
}

/// Every stay inside the window over the span: from and until, in ms since its start.
fn each_stay(window: &Window, zone: &TimeZone, start: Timestamp, slots: Slots, mut take: impl FnMut(u64, u64)) {
    let end = start.after_millis(slots.slot_ms.saturating_mul(u64::from(slots.span())));
    let mut at = start;
    // Each step goes to a later edge; a window has at most a few in a day.
    for _ in 0..slots.span() * 2 + 2 {
        if at >= end {
            return;
        }
        let standing = window.standing(zone, at);
        if standing.inside {
            take(at.millis_since(start), standing.until.min(end).millis_since(start));
        }
        at = standing.until;
    }
}

/// Every instant of the span at which a point falls: from `due` on where that is known.
fn each_fall(
    point: &Point,
    zone: &TimeZone,
    (start, due): (Timestamp, Option<Timestamp>),
    slots: Slots,
    mut take: impl FnMut(Timestamp),
) {
    let end = start.after_millis(slots.slot_ms.saturating_mul(u64::from(slots.span())));
    let before = Timestamp::from_millis(start.as_millis().saturating_sub(1));
    let mut next = due.or_else(|| point.next_after(zone, before));
    // Each is later than the one before.
    for _ in 0..slots.span() * 2 + 2 {
        let Some(at) = next.filter(|at| *at < end) else { return };
        take(at);
        next = point.next_after(zone, at);
    }
}
