//! What metric rules want is held back by the group's bounds and behaviour, and becomes its new base.

use crate::Timestamp;
use crate::behavior::{Behavior, Extreme, Moves, Pace, bound};
use crate::group::Group;
use crate::read::Metrics;
use crate::reason::{Direction, Reason};
use crate::record::{Limit, LimitLine, Trace};
use crate::state::GroupState;

/// A wanted size on its way through the limits.
struct Wanted<'t, T> {
    base: u32,
    size: u32,
    reason: Reason,
    next: Timestamp,
    trace: &'t mut T,
}

impl<T: Trace> Wanted<'_, T> {
    /// Whether the limit holds anything back; if so, until when by itself.
    fn limit(&mut self, limit: Limit, why: Reason, until: Timestamp) -> bool {
        let before = self.size;
        self.size = limit.apply(before);
        if self.size != before {
            self.reason = why;
            self.next = until.min(self.next);
        }
        self.trace.limit(LimitLine { limit, before, after: self.size, until });
        self.size != before
    }
}

/// Returns what the size is bound by, and whether rules that start over after a move have moved it.
pub(crate) fn settle<T: Trace>(
    group: &Group,
    state: &mut GroupState,
    metrics: Metrics,
    now: Timestamp,
    trace: &mut T,
    next: &mut Timestamp,
) -> (Reason, bool) {
    let policy = group.policy();
    let base = state.base;
    let reason = metrics.said.by.map_or(Reason::Steady, Reason::Metric);
    let mut wanted = Wanted { base, size: metrics.said.wanted, reason, next: *next, trace };
    if state.paused {
        wanted.limit(Limit::Paused { size: base }, Reason::Paused, Timestamp::MAX);
    }
    if metrics.broken {
        wanted.limit(Limit::Broken { size: base }, Reason::Broken, Timestamp::MAX);
    }
    let bounds = Limit::Bounds { min: policy.min, max: policy.max };
    let size = wanted.size;
    let why = if size < policy.min { Reason::Minimum(size) } else { Reason::Maximum(size) };
    wanted.limit(bounds, why, Timestamp::MAX);
    let Behavior { out, inward } = &policy.behavior;
    if out.stabilize_ms > 0 || inward.stabilize_ms > 0 {
        let size = wanted.size;
        state.least.push(Extreme::Least, size, now, out.stabilize_ms);
        state.most.push(Extreme::Most, size, now, inward.stabilize_ms);
        let (least, most) = (state.least.extreme().unwrap_or(size), state.most.extreme().unwrap_or(size));
        let until = state.least.changes_at(out.stabilize_ms).min(state.most.changes_at(inward.stabilize_ms));
        wanted.limit(Limit::Stabilized { size: base, least, most }, Reason::Stabilized, until);
    }
    let rated = wanted.size != base && {
        let (direction, moved, pace) = if wanted.size > base {
            (Direction::Out, state.moved_out, out)
        } else {
            (Direction::In, state.moved_in, inward)
        };
        hold(&mut wanted, state, (direction, moved, pace), now)
    };
    let Wanted { size, reason, .. } = wanted;
    *next = wanted.next;
    if size != base {
        *(if size > base { &mut state.moved_out } else { &mut state.moved_in }) = Some(now);
        state.base = size;
        if policy.behavior.has_rates() {
            state.more.get_or_insert_default().moves.store(&policy.behavior, base, size, now);
        }
    }
    if let Some(more) = state.more.as_ref().filter(|_| rated) {
        *next = more.moves.changes_at(&policy.behavior, now).min(*next);
    }
    (reason, metrics.threshold && size != base)
}

/// Holds a move back by the cool-down and the rate of its direction; whether the rate did.
fn hold<T: Trace>(
    wanted: &mut Wanted<'_, T>,
    state: &GroupState,
    (direction, last, pace): (Direction, Option<Timestamp>, &Pace),
    now: Timestamp,
) -> bool {
    let size = wanted.base;
    if let Some(last) = last.filter(|_| pace.cooldown_ms > 0) {
        let cooldown = Limit::Cooldown { size, waited_ms: now.millis_since(last), cooldown_ms: pace.cooldown_ms };
        wanted.limit(cooldown, Reason::Cooldown(direction), last.after_millis(pace.cooldown_ms));
    }
    let Some(rate) = pace.rate.as_ref().filter(|_| wanted.size != size) else { return false };
    let none = Moves::default();
    let counted = state.more.as_ref().map_or(&none, |more| &more.moves);
    let lines = rate.policies.iter().map(|policy| counted.line(*policy, now));
    let bound = bound(direction, size, rate.select, lines.clone());
    if T::ON {
        wanted.trace.rate(rate.select, lines);
    }
    wanted.limit(Limit::Rate { size, bound }, Reason::Rate(direction), Timestamp::MAX)
}
