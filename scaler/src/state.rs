//! The state of a group: what its next decision depends on besides its inputs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::behavior::{Behavior, Extreme, Moves, Recent};
use crate::group::{Binding, Group, Rule, RuleKind};
use crate::id::{RuleId, TaskId};
use crate::metric::Sample;
use crate::num::shift;
use crate::record::Adopted;
use crate::strategy::{Breaches, Kpa, Memory, Strategy, Threshold};

/// An operator's override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Override {
    /// The exact size.
    pub count: u32,
    /// The time until which it holds, which is outside; [`Timestamp::MAX`] for no end.
    pub until: Timestamp,
}

impl RuleState {
    /// Counts a sample of a threshold, if it is a new one.
    pub(crate) fn count(&mut self, threshold: &Threshold, sample: Sample) -> Breaches {
        let (mut breaches, last) = if let Self::Samples(breaches, last) = *self {
            (breaches, Some(last))
        } else {
            (Breaches::default(), None)
        };
        if last.is_none_or(|last| sample.at > last) {
            breaches.push(threshold, sample.value);
            *self = Self::Samples(breaches, sample.at);
        }
        breaches
    }
}

/// The drain of a group whose traffic is gone: it goes down to zero in a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Drain {
    /// The size at which the drain began.
    pub size: u32,
    /// The time when it began.
    pub since: Timestamp,
    /// The duration in ms.
    pub over_ms: u64,
}

impl Drain {
    /// The size left at `now`.
    ///
    /// ```
    /// use tenon_scaler::{Drain, Timestamp};
    ///
    /// let drain = Drain { size: 10, since: Timestamp::ZERO, over_ms: 600_000 };
    /// assert_eq!(drain.left(Timestamp::from_millis(300_000)), 5);
    /// ```
    #[must_use]
    pub fn left(&self, now: Timestamp) -> u32 {
        let left_ms = self.over_ms.saturating_sub(now.millis_since(self.since));
        crate::num::mul_div_ceil(u64::from(self.size), left_ms, self.over_ms.max(1))
    }
}

/// The state of a group: what its next decision depends on besides its inputs.
///
/// Plain data, made by decisions alone.
#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing of its own, and a tick over many reads them all"
)]
pub struct GroupState {
    /// The size that metric rules had last decided, without what timed rules added.
    pub(crate) base: u32,
    /// The number of instances that steps have added and not yet taken back: the sum of their shares.
    pub(crate) steps: u32,
    pub(crate) target: u32,
    pub(crate) paused: bool,
    /// Whether the window of growing has begun, with the size that there was then; that of shrinking.
    begun: (bool, bool),
    /// Whether a decision has been made.
    decided: bool,
    /// Whether the last decision has told the windows what it wanted, so that ticks that are passed over would have, too.
    tells: bool,
    /// Whether a share of a timed delta or a step has ended since the windows were last told.
    pub(crate) ended: bool,
    pub(crate) by_hand: Option<Override>,
    pub(crate) draining: Option<Drain>,
    pub(crate) moved_out: Option<Timestamp>,
    pub(crate) moved_in: Option<Timestamp>,
    pub(crate) least: Recent,
    pub(crate) most: Recent,
    pub(crate) rules: SmallVec<[RuleState; 2]>,
    /// The memory that few groups need.
    pub(crate) more: Option<Box<More>>,
}

/// The memory of groups with rates or with a KPA rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct More {
    /// Moves that rates count.
    pub(crate) moves: Moves,
    /// The floors of tasks for the group's chain.
    pub(crate) chain: Vec<Held>,
    /// The instances taken over since the last decision.
    pub(crate) adopted: SmallVec<[Adopted; 0]>,
    /// In the order in which the rules were first heard.
    pub(crate) kpa: Vec<(RuleId, Memory)>,
}

/// A floor for a time: a task for a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Held {
    pub(crate) task: TaskId,
    pub(crate) count: u32,
    pub(crate) from: Timestamp,
    /// The instant itself is outside.
    pub(crate) until: Timestamp,
}

impl More {
    fn is_sound(&self, group: &Group) -> bool {
        let kpa = |id: RuleId| {
            group
                .rule(id)
                .and_then(|rule| if let RuleKind::Metric(_, Strategy::Kpa(of)) = &rule.kind { Some(of) } else { None })
        };
        let twice = (1..self.kpa.len()).any(|at| self.kpa[..at].iter().any(|(id, _)| *id == self.kpa[at].0));
        !twice
            && self.kpa.iter().all(|(id, memory)| kpa(*id).is_some_and(|of| memory.is_sound(of)))
            && self.moves.is_sound()
            && self.chain.len() <= MAX_TASKS
            && self.adopted.len() <= MAX_ADOPTED
    }

    pub(crate) fn kpa(&mut self, rule: RuleId, of: &Kpa, ready: u32, now: Timestamp) -> &mut Memory {
        let at = self.kpa.iter().position(|(held, _)| *held == rule).unwrap_or_else(|| {
            self.kpa.push((rule, Memory::new(of, ready, now)));
            self.kpa.len() - 1
        });
        &mut self.kpa[at].1
    }
}

/// The memory of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum RuleState {
    /// Fresh: the rule has not been looked at yet, or has nothing to remember.
    Fresh,
    /// The last samples of a threshold, and the instant of the newest.
    Samples(Breaches, Timestamp),
    /// The sample of a step rule that has moved the group.
    Heard(Timestamp),
    /// Where a window stands until an instant, and what a delta has given.
    Window { inside: bool, until: Timestamp, share: i32 },
    /// When a point falls next, and how much of what its step added is still there.
    Point { due: Timestamp, share: u32 },
}

/// The most lines of what was taken over that one decision names.
const MAX_ADOPTED: usize = 1_024;

/// The most tasks for its chain that a group has at one time.
pub(crate) const MAX_TASKS: usize = 32;

impl RuleState {
    /// The number of instances that a step has added and not yet taken back.
    pub(crate) const fn step_share(&self) -> u32 {
        if let Self::Point { share, .. } = self { *share } else { 0 }
    }
}

/// The sum of what deltas and steps add.
fn added(rules: &[RuleState]) -> i64 {
    let share = |held: &RuleState| match held {
        RuleState::Window { share, .. } => i64::from(*share),
        RuleState::Point { share, .. } => i64::from(*share),
        RuleState::Fresh | RuleState::Samples(..) | RuleState::Heard(_) => 0,
    };
    rules.iter().map(share).sum()
}

impl Clone for GroupState {
    fn clone(&self) -> Self {
        Self {
            base: self.base,
            steps: self.steps,
            target: self.target,
            paused: self.paused,
            begun: self.begun,
            decided: self.decided,
            tells: self.tells,
            ended: self.ended,
            by_hand: self.by_hand,
            draining: self.draining,
            moved_out: self.moved_out,
            moved_in: self.moved_in,
            least: self.least.clone(),
            most: self.most.clone(),
            // A copy of plain memory: the derived clone would go element by element.
            rules: SmallVec::from_slice(&self.rules),
            more: self.more.clone(),
        }
    }
}

impl GroupState {
    /// The state of a group of `size` instances, before its first decision.
    #[must_use]
    pub fn new(group: &Group, size: u32) -> Self {
        let base = size.clamp(group.policy.min, group.policy.max);
        Self {
            base,
            steps: 0,
            target: size,
            paused: false,
            begun: (false, false),
            decided: false,
            tells: false,
            ended: false,
            by_hand: None,
            draining: None,
            moved_out: None,
            moved_in: None,
            least: Recent::default(),
            most: Recent::default(),
            rules: SmallVec::from_elem(RuleState::Fresh, group.policy.rules.len()),
            more: None,
        }
    }

    /// The target: the size that was last decided.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.target
    }

    /// A state of this size without a memory of earlier decisions.
    ///
    /// The group's orders stay: a pause, an override, the tasks of chains.
    pub(crate) fn forgetful(&self, group: &Group, size: u32) -> Self {
        let mut fresh = Self { paused: self.paused, by_hand: self.by_hand, ..Self::new(group, size) };
        let tasks = self.tasks();
        if !tasks.is_empty() {
            fresh.more.get_or_insert_default().chain = tasks.to_vec();
        }
        fresh
    }

    /// Whether decisions are paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The operator's override, if there is one.
    #[must_use]
    pub fn by_hand(&self) -> Option<Override> {
        self.by_hand
    }

    /// Sets an operator's override, or removes it.
    pub fn set_by_hand(&mut self, by_hand: Option<Override>) {
        self.by_hand = by_hand;
    }

    /// Pauses decisions: the target stays as it is until [`GroupState::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Starts a drain: the group goes down to zero over `over_ms`, and no rule is heard any more.
    pub fn drain(&mut self, now: Timestamp, over_ms: u64) {
        self.draining = self.draining.or(Some(Drain { size: self.target, since: now, over_ms }));
    }

    /// Whether the group is going down to zero.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// The size that metric rules start from: the target, without the `kept` part of it that timed deltas and steps still
    /// add. Where something cuts the target, it cuts that part first.
    pub(crate) fn size(&self, kept: i64) -> u32 {
        shift(self.target, kept.saturating_neg()).max(self.base.min(self.target))
    }

    /// Tells the windows the size that there is, where they have just begun or a share has just ended; and what metric rules
    /// want now, and what all want together.
    pub(crate) fn log(&mut self, behavior: &Behavior, now: Timestamp, size: u32, wanted: Option<(u32, u32)>) {
        let (out, inward) = (behavior.out.stabilize_ms, behavior.window_in());
        if !self.begun.0 {
            self.least.push(Extreme::Least, size, now, out);
        }
        if !self.begun.1 || self.ended {
            self.most.push(Extreme::Most, size, now, inward);
        }
        self.begun = (out > 0, inward > 0);
        self.tells = wanted.is_some();
        if let Some((by_metric, by_all)) = wanted {
            self.least.push(Extreme::Least, by_metric, now, out);
            self.most.push(Extreme::Most, by_all, now, inward);
        }
    }

    /// The tasks for its chain that a group has, over or not.
    pub(crate) fn tasks(&self) -> &[Held] {
        self.more.as_ref().map_or(&[], |more| &more.chain)
    }

    /// The highest floor of the chain tasks that hold at `now`.
    pub(crate) fn chain_floor(&self, now: Timestamp, next: &mut Timestamp) -> Option<u32> {
        let held = &self.more.as_ref().filter(|more| !more.chain.is_empty())?.chain;
        let mut floor = None;
        for held in held.iter().filter(|held| now < held.until) {
            if held.from <= now {
                *next = held.until.min(*next);
                floor = floor.max(Some(held.count));
            } else {
                *next = held.from.min(*next);
            }
        }
        floor
    }

    /// Instances that ran were taken over: the group is to have `raise` more of them.
    pub(crate) fn adopt(&mut self, lines: SmallVec<[Adopted; 0]>, raise: u32) {
        if lines.is_empty() {
            return;
        }
        self.target = self.target.saturating_add(raise);
        self.base = self.base.max(self.target.min(self.base.saturating_add(raise)));
        let adopted = &mut self.more.get_or_insert_default().adopted;
        if adopted.len().saturating_add(lines.len()) <= MAX_ADOPTED {
            adopted.extend(lines);
        }
    }

    pub(crate) fn is_decided(&self) -> bool {
        self.decided
    }

    pub(crate) fn has_adopted(&self) -> bool {
        self.more.as_ref().is_some_and(|more| !more.adopted.is_empty())
    }

    pub(crate) fn take_adopted(&mut self) -> SmallVec<[Adopted; 0]> {
        self.decided = true;
        self.more.as_mut().map_or_else(SmallVec::new, |more| core::mem::take(&mut more.adopted))
    }

    /// Carries what is still meant over to a changed policy: rules that are the same keep what they remember. What a delta or
    /// a step had added stops being asked for with its rule; a step whose numbers change keeps it.
    pub(crate) fn carry_over(&mut self, old: &Group, new: &Group) {
        let fresh = |rule: &Rule| {
            let kept = old.policy.rules.iter().position(|held| held == rule);
            let same_step = |held: &Rule| {
                held.id == rule.id && matches!((&held.kind, &rule.kind), (RuleKind::Step(..), RuleKind::Step(..)))
            };
            let changed = old.policy.rules.iter().position(same_step);
            match (kept.and_then(|at| self.rules.get(at)), changed.and_then(|at| self.rules.get(at))) {
                (Some(state), _) => *state,
                (None, Some(RuleState::Point { share, .. })) => {
                    RuleState::Point { due: Timestamp::ZERO, share: *share }
                }
                _ => RuleState::Fresh,
            }
        };
        let rules = new.policy.rules.iter().map(fresh).collect();
        let before = core::mem::replace(&mut self.rules, rules);
        self.ended |= added(&before) > added(&self.rules);
        self.steps = self.rules.iter().fold(0, |sum: u32, held| sum.saturating_add(held.step_share()));
        if let Some(more) = &mut self.more {
            more.kpa.retain(|(id, _)| old.rule(*id) == new.rule(*id));
            if !new.policy.behavior.has_rates() {
                more.moves = Moves::default();
            }
        }
        self.more = self.more.take().filter(|more| **more != More::default());
        let behavior = &new.policy.behavior;
        if behavior.out.stabilize_ms == 0 {
            self.least.clear();
            self.begun.0 = false;
        }
        if behavior.window_in() == 0 {
            self.most.clear();
            self.begun.1 = false;
        }
        // What stood at the minimum follows it, and so does a group that no metric rule speaks for any more.
        if self.base == old.policy.min || (old.has_metric_rules() && !new.has_metric_rules()) {
            self.base = new.policy.min;
        }
        self.base = self.base.clamp(new.policy.min, new.policy.max);
    }

    /// After the clock went back to `now`: nothing that is remembered is later, and every window and point is looked up
    /// anew.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        self.moved_out = self.moved_out.map(|at| at.min(now));
        self.moved_in = self.moved_in.map(|at| at.min(now));
        self.least.rewind(now);
        self.most.rewind(now);
        if let Some(draining) = &mut self.draining {
            draining.since = draining.since.min(now);
        }
        for held in &mut self.rules {
            match held {
                RuleState::Samples(_, at) | RuleState::Heard(at) => *at = now.min(*at),
                RuleState::Window { until, .. } => *until = Timestamp::ZERO,
                RuleState::Point { due, .. } => *due = Timestamp::ZERO,
                RuleState::Fresh => {}
            }
        }
        if let Some(more) = &mut self.more {
            more.moves.rewind(now);
            more.kpa.iter_mut().for_each(|(_, memory)| memory.rewind(now));
        }
    }

    /// Takes in a sample of a metric, by its index among the policy's.
    ///
    /// Rules that count samples count each of them, also those between two decisions.
    ///
    /// A decision takes its own samples in; telling one twice changes nothing.
    pub fn observe(&mut self, group: &Group, metric: usize, sample: Sample, ready: u32) {
        for (at, (rule, binding)) in group.rules().enumerate() {
            let (RuleKind::Metric(_, strategy), Binding::Metric(index)) = (&rule.kind, binding) else { continue };
            if usize::from(*index) != metric {
                continue;
            }
            if let Strategy::Threshold(threshold) = strategy {
                self.rules[at].count(threshold, sample);
            } else if let Strategy::Kpa(of) = strategy {
                self.more.get_or_insert_default().kpa(rule.id, of, ready, sample.at).observe(sample);
            }
        }
    }

    /// The samples that moved the group speak of the size before: rules that count them start over.
    pub(crate) fn start_over(&mut self, group: &Group, samples: &[Option<Sample>]) {
        for ((rule, binding), held) in group.rules().zip(&mut self.rules) {
            let (RuleKind::Metric(_, strategy), Binding::Metric(index)) = (&rule.kind, binding) else { continue };
            if let RuleState::Samples(breaches, _) = held {
                *breaches = Breaches::default();
            } else if let Strategy::Steps(_) = strategy {
                let sample = samples.get(usize::from(*index)).copied().flatten();
                *held = sample.map_or(RuleState::Fresh, |sample| RuleState::Heard(sample.at));
            }
        }
    }

    /// Takes in that decisions up to `until` would have wanted what the last one wanted.
    pub(crate) fn coast(&mut self, behavior: &Behavior, until: Timestamp) {
        if !self.tells {
            return;
        }
        self.least.coast(until, behavior.out.stabilize_ms);
        self.most.coast(until, behavior.window_in());
    }

    /// Whether this can be a state of `group`.
    pub(crate) fn is_sound(&self, group: &Group) -> bool {
        let policy = &group.policy;
        self.rules.len() == policy.rules.len()
            && (policy.min..=policy.max).contains(&self.base)
            && self.steps == self.rules.iter().fold(0, |sum: u32, held| sum.saturating_add(held.step_share()))
            && self.least.is_sound(Extreme::Least)
            && self.most.is_sound(Extreme::Most)
            && self.more.as_ref().is_none_or(|more| more.is_sound(group))
            && policy.rules.iter().zip(&self.rules).all(|(rule, state)| match (&rule.kind, state) {
                (_, RuleState::Fresh)
                | (RuleKind::Metric(_, Strategy::Threshold(_)), RuleState::Samples(..))
                | (RuleKind::Metric(_, Strategy::Steps(_)), RuleState::Heard(_))
                | (RuleKind::Step(..), RuleState::Point { .. }) => true,
                (RuleKind::Delta(_, by), RuleState::Window { share, inside, .. }) => {
                    share.signum() * by.signum() >= 0 && share.abs() <= by.abs() && (*inside || *share == 0)
                }
                (RuleKind::Floor(..) | RuleKind::Cap(..), RuleState::Window { share, .. }) => *share == 0,
                _ => false,
            })
    }
}
