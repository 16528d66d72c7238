//! One group's decision: a pure function of the group, its state, its inputs and the time.
//!
//! The layers, from the lowest: minimum < metric rules < timed deltas, steps and floors < caps < pause < an operator's
//! override. What a clock or an operator asks for is done at once. What they asked for *leaves* as everything else does:
//! through the stabilisation, the cool-down and the rate of the group's scale-in behaviour ([`settle`](crate::settle)).

use crate::Timestamp;
use crate::clock::run_clock;
use crate::group::{Group, Inputs};
use crate::read::{Metrics, run_metrics};
use crate::reason::Reason;
use crate::record::{Decision, Lines, Trace};
use crate::settle::{Heard, settle};
use crate::state::GroupState;

/// Decides the size of `group`, and returns its state afterwards.
///
/// Calling it again with the new state and the same inputs, before [`Decision::next_change`], gives the same target.
///
/// ```
/// use tenon_scaler::{Group, GroupState, Inputs, Limits, Policy, Timestamp, Zones, decide};
///
/// let group = Group::new(Policy { min: 2, max: 8, ..Policy::default() }, &Zones::new(), Limits::default())?;
/// let state = GroupState::new(&group, 0);
/// let (decision, _) = decide(&group, &state, &Inputs::default(), Timestamp::from_millis(1));
/// assert_eq!(decision.target, 2); // the policy's minimum
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decide(group: &Group, state: &GroupState, inputs: &Inputs<'_>, now: Timestamp) -> (Decision, GroupState) {
    decide_with(group, state, inputs, now, Haste::Usual)
}

pub(crate) fn decide_with(
    group: &Group,
    state: &GroupState,
    inputs: &Inputs<'_>,
    now: Timestamp,
    haste: Haste,
) -> (Decision, GroupState) {
    let mut next = state.clone();
    let mut lines = Lines::default();
    let brief = step(group, &mut next, inputs, now, haste, &mut lines);
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

/// Whether a decision may take instances away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Usual: the decision may take instances away.
    Usual,
    /// Time has leapt, and the reading may be wrong: nothing shrinks and no step is taken until the next tick confirms it.
    Leap,
}

/// The result of a decision, without its record.
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
    haste: Haste,
    trace: &mut T,
) -> Brief {
    let mut next = Timestamp::MAX;
    let timed = run_clock(group, state, now, haste, trace, &mut next);
    let policy = group.policy();
    let size = state.size(timed.kept).saturating_sub(timed.taken);
    // What is below the minimum is on its way there.
    let size = if group.exact { size } else { size.max(policy.min) };
    trace.base(size, i64::from(state.target) - i64::from(size));
    // As the original: out of bounds, it goes to the bound, and no metric is read.
    let outside = group.exact && !(policy.min..=policy.max).contains(&size);
    let metrics = if outside {
        trace.rest(size);
        Metrics::nothing(size)
    } else {
        run_metrics(group, state, inputs, size, now, trace, &mut next)
    };
    let idle = outside || (group.exact && metrics.fails(size));
    let heard = Heard { size, timed: &timed, metrics, idle };
    let (target, reason) = settle(group, state, &heard, (now, haste), trace, &mut next);
    if metrics.starts_over && target != state.target {
        state.start_over(group, inputs.samples);
        next = now.after_millis(1);
    }
    state.target = target;
    Brief { target, reason, next_change: next }
}
