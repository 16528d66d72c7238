//! What a group's next decision depends on besides its inputs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::behavior::{Behavior, Extreme, Moves, Recent};
use crate::group::{Binding, Group, RuleKind};
use crate::id::RuleId;
use crate::metric::Sample;
use crate::strategy::{Breaches, Kpa, Memory, Strategy, Threshold};

/// What an operator has set by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Override {
    /// Exactly so many.
    pub count: u32,
    /// Until this instant, which is outside; [`Timestamp::MAX`] for no end.
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

/// A group whose traffic is gone goes down to nothing in a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Drain {
    /// The size at which it began.
    pub size: u32,
    /// When it began.
    pub since: Timestamp,
    /// How long it takes, in ms.
    pub over_ms: u64,
}

impl Drain {
    /// What is left of the group at `now`.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> u32 {
        let left_ms = self.over_ms.saturating_sub(now.millis_since(self.since));
        crate::num::mul_div_ceil(u64::from(self.size), left_ms, self.over_ms.max(1))
    }
}

/// What the next decision depends on besides its inputs. Plain data, made by decisions alone.
#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GroupState {
    /// The size that metric rules had last decided, without what timed rules added.
    pub(crate) base: u32,
    /// What steps have added and not yet taken back.
    pub(crate) steps: u32,
    pub(crate) target: u32,
    pub(crate) paused: bool,
    pub(crate) by_hand: Option<Override>,
    pub(crate) draining: Option<Drain>,
    pub(crate) moved_out: Option<Timestamp>,
    pub(crate) moved_in: Option<Timestamp>,
    pub(crate) least: Recent,
    pub(crate) most: Recent,
    pub(crate) rules: SmallVec<[RuleState; 2]>,
    /// What few groups have to remember.
    pub(crate) more: Option<Box<More>>,
}

/// What groups with rates or with a KPA rule remember.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct More {
    /// Moves that rates count.
    pub(crate) moves: Moves,
    /// What a task for its chain holds it at.
    pub(crate) chain: Option<Held>,
    /// In the order in which the rules were first heard.
    pub(crate) kpa: Vec<(RuleId, Memory)>,
}

/// A floor for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Held {
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
    }

    pub(crate) fn kpa(&mut self, rule: RuleId, of: &Kpa, ready: u32, now: Timestamp) -> &mut Memory {
        let at = self.kpa.iter().position(|(held, _)| *held == rule).unwrap_or_else(|| {
            self.kpa.push((rule, Memory::new(of, ready, now)));
            self.kpa.len() - 1
        });
        &mut self.kpa[at].1
    }
}

/// What one rule remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum RuleState {
    /// It has not been looked at yet, or has nothing to remember.
    Fresh,
    /// The last samples of a threshold, and the instant of the newest.
    Samples(Breaches, Timestamp),
    /// The sample of a step rule that has moved the group.
    Heard(Timestamp),
    /// Where a window stands until an instant, and what a delta has given.
    Window { inside: bool, until: Timestamp, share: i32 },
    /// When a point falls next.
    Point(Timestamp),
}

impl Clone for GroupState {
    fn clone(&self) -> Self {
        Self {
            base: self.base,
            steps: self.steps,
            target: self.target,
            paused: self.paused,
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
    /// A group of `size` instances that no decision has been made for.
    #[must_use]
    pub fn new(group: &Group, size: u32) -> Self {
        let base = size.clamp(group.policy.min, group.policy.max);
        Self {
            base,
            steps: 0,
            target: size,
            paused: false,
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

    /// How many instances were last decided.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Whether automatic decisions are paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// What an operator has set by hand.
    #[must_use]
    pub fn by_hand(&self) -> Option<Override> {
        self.by_hand
    }

    /// Sets the size by hand, or hands it back to the rules.
    pub fn set_by_hand(&mut self, by_hand: Option<Override>) {
        self.by_hand = by_hand;
    }

    /// Holds the target as it is: rules are heard again after [`GroupState::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Lets the group go down to nothing over `over_ms`; no rule is heard any more.
    pub fn drain(&mut self, now: Timestamp, over_ms: u64) {
        self.draining = self.draining.or(Some(Drain { size: self.target, since: now, over_ms }));
    }

    /// Whether the group is going down to nothing.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Carries what is still meant over to a changed policy: rules that are the same keep what they remember, and what a
    /// delta gave is undone with the rule.
    pub(crate) fn carry_over(&mut self, old: &Group, new: &Group) {
        let rules = new.policy.rules.iter().map(|rule| {
            let kept = old.policy.rules.iter().position(|held| held == rule);
            kept.and_then(|at| self.rules.get(at).copied()).unwrap_or(RuleState::Fresh)
        });
        self.rules = rules.collect();
        if !new.policy.rules.iter().any(|rule| matches!(rule.kind, RuleKind::Step(..))) {
            self.steps = 0;
        }
        if let Some(more) = &mut self.more {
            more.kpa.retain(|(id, _)| old.rule(*id) == new.rule(*id));
            if !new.policy.behavior.has_rates() {
                more.moves = Moves::default();
            }
        }
        self.more = self.more.take().filter(|more| **more != More::default());
        self.base = self.base.clamp(new.policy.min, new.policy.max);
    }

    /// Takes in a sample of a metric, by its place among the policy's: rules that count samples count each of them, also
    /// those between two decisions.
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
        self.least.coast(until, behavior.out.stabilize_ms);
        self.most.coast(until, behavior.inward.stabilize_ms);
    }

    /// Whether this can be a state of `group`.
    pub(crate) fn is_sound(&self, group: &Group) -> bool {
        let policy = &group.policy;
        self.rules.len() == policy.rules.len()
            && (policy.min..=policy.max).contains(&self.base)
            && self.least.is_sound(Extreme::Least)
            && self.most.is_sound(Extreme::Most)
            && self.more.as_ref().is_none_or(|more| more.is_sound(group))
            && policy.rules.iter().zip(&self.rules).all(|(rule, state)| match (&rule.kind, state) {
                (_, RuleState::Fresh)
                | (RuleKind::Metric(_, Strategy::Threshold(_)), RuleState::Samples(..))
                | (RuleKind::Metric(_, Strategy::Steps(_)), RuleState::Heard(_))
                | (RuleKind::Step(..), RuleState::Point(_)) => true,
                (RuleKind::Delta(_, by), RuleState::Window { share, inside, .. }) => {
                    share.signum() * by.signum() >= 0 && share.abs() <= by.abs() && (*inside || *share == 0)
                }
                (RuleKind::Floor(..) | RuleKind::Cap(..), RuleState::Window { share, .. }) => *share == 0,
                _ => false,
            })
    }
}
