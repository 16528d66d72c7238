//! How fast a group may move: cool-down and stabilisation, per direction.

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::error::PolicyError;
use crate::hpa::{Events, Policy, PolicyKind, Select, furthest};
use crate::reason::Direction;

/// Limits on how fast metric rules may move a group. Timed rules and operators are not held up by them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Behavior {
    /// In the growing direction.
    pub out: Pace,
    /// In the shrinking direction.
    pub inward: Pace,
}

/// The pace of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pace {
    /// For how long, in ms, after a move in this direction, no further one is made.
    pub cooldown_ms: u64,
    /// For how long, in ms, every rule must have agreed: growth takes the least wanted within the window, shrinking the
    /// most.
    pub stabilize_ms: u64,
    /// How much may move within a period; `None` for no limit.
    pub rate: Option<Rate>,
}

/// Policies of one direction, each with how much may move within a period: those of `autoscaling/v2`, of which this
/// autoscaler's are the same ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rate {
    /// Which of the policies holds.
    pub select: Select,
    /// The policies; periods are of at most an hour.
    pub policies: Vec<Policy>,
}

impl Rate {
    /// No move in this direction at all.
    #[must_use]
    pub const fn disabled() -> Self {
        Self { select: Select::Disabled, policies: Vec::new() }
    }
}

impl Behavior {
    /// The defaults of `autoscaling/v2`: out by the larger of 4 instances and 100 % in 15 seconds; in by any number, once
    /// nothing more was wanted for five minutes.
    #[must_use]
    pub fn kubernetes() -> Self {
        let policy = |kind, value| Policy { kind, value, period_ms: 15_000 };
        let rate = |policies| Some(Rate { select: Select::Max, policies });
        let both = alloc::vec![policy(PolicyKind::Pods, 4), policy(PolicyKind::Percent, 100)];
        Self {
            out: Pace { rate: rate(both), ..Pace::default() },
            inward: Pace {
                stabilize_ms: 300_000,
                rate: rate(alloc::vec![policy(PolicyKind::Percent, 100)]),
                ..Pace::default()
            },
        }
    }

    pub(crate) fn has_rates(&self) -> bool {
        self.out.rate.is_some() || self.inward.rate.is_some()
    }

    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let sound = |pace: &Pace| {
            pace.rate.as_ref().is_none_or(|rate| {
                let periods = rate.policies.iter().all(|policy| (1..=LONGEST_MS).contains(&policy.period_ms));
                periods
                    && rate.policies.len() <= MAX_RUNS
                    && (rate.select == Select::Disabled || !rate.policies.is_empty())
            })
        };
        if sound(&self.out) && sound(&self.inward) { Ok(()) } else { Err(PolicyError::Rate) }
    }

    fn policies(&self) -> impl Iterator<Item = &Policy> {
        [&self.out, &self.inward].into_iter().flat_map(|pace| &pace.rate).flat_map(|rate| &rate.policies)
    }
}

/// The longest period of a rate.
const LONGEST_MS: u64 = 3_600_000;

/// Moves that rates count, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Moves {
    out: Events,
    inward: Events,
}

impl Moves {
    /// A policy, with what was added and what went within its period.
    pub(crate) fn line(&self, policy: Policy, now: Timestamp) -> RateLine {
        let within = |events: &Events| events.within(policy.period_ms, now);
        RateLine { policy, added: within(&self.out), gone: within(&self.inward) }
    }

    /// Remembers a move. With no room left, the two oldest become one, as of the younger: the group then waits longer,
    /// never less.
    pub(crate) fn store(&mut self, behavior: &Behavior, before: u32, after: u32, now: Timestamp) {
        let (events, pace) =
            if after > before { (&mut self.out, &behavior.out) } else { (&mut self.inward, &behavior.inward) };
        let policies = pace.rate.as_ref().map_or(&[][..], |rate| &rate.policies);
        events.store(after.abs_diff(before), policies, now);
        if events.0.len() > MAX_RUNS {
            events.0.sort_by_key(|event| event.at);
            let oldest = events.0.remove(0);
            events.0[0].change = events.0[0].change.saturating_add(oldest.change);
        }
    }

    /// When the first of them leaves a period.
    pub(crate) fn changes_at(&self, behavior: &Behavior, now: Timestamp) -> Timestamp {
        let events = || self.out.0.iter().chain(&self.inward.0);
        let leaves = |policy: &Policy| {
            events().map(|event| event.at.after_millis(policy.period_ms)).filter(|at| *at > now).min()
        };
        behavior.policies().filter_map(leaves).min().unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.out.0.len() <= MAX_RUNS && self.inward.0.len() <= MAX_RUNS
    }
}

/// One policy of a rate at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateLine {
    /// The policy.
    pub policy: Policy,
    /// What was added within its period.
    pub added: i64,
    /// What went within its period.
    pub gone: i64,
}

/// How far policies let a group of `size` go.
pub(crate) fn bound(direction: Direction, size: u32, select: Select, lines: impl Iterator<Item = RateLine>) -> u32 {
    let bound = furthest(direction, size, select, lines.map(|line| (line.policy, line.added, line.gone)));
    match direction {
        Direction::Out => bound.max(size),
        Direction::In => bound.min(size),
    }
}

/// As many runs as one history holds.
const MAX_RUNS: usize = 64;

/// What was wanted lately, as far as it still matters for one extreme: a monotone queue (the sliding-window maximum of
/// Lemire, "Streaming maximum-minimum filter using no more than three comparisons per element", 2006).
///
/// A run is a wanted count and the last instant at which it was wanted. From front to back, runs grow younger and less
/// extreme; the front is the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Recent(SmallVec<[(u32, Timestamp); 2]>);

/// Which extreme a history keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extreme {
    Least,
    Most,
}

impl Recent {
    /// Takes in that `wanted` is wanted at `now`, and forgets what is `window_ms` old.
    ///
    /// A history with no room left lets its second oldest run take over the value of the oldest's place: the group then
    /// waits longer, never less.
    pub(crate) fn push(&mut self, extreme: Extreme, wanted: u32, now: Timestamp, window_ms: u64) {
        if window_ms == 0 {
            self.0.clear();
            return;
        }
        while self.0.last().is_some_and(|(held, _)| !more(extreme, *held, wanted)) {
            self.0.pop();
        }
        self.forget(now, window_ms);
        if self.0.len() >= MAX_RUNS {
            let (_, younger) = self.0.remove(1);
            self.0[0].1 = younger;
        }
        self.0.push((wanted, now));
    }

    /// The extreme of the window; `None` where nothing is kept.
    pub(crate) fn extreme(&self) -> Option<u32> {
        self.0.first().map(|(held, _)| *held)
    }

    /// When the extreme leaves the window, if nothing is added.
    pub(crate) fn changes_at(&self, window_ms: u64) -> Timestamp {
        self.0.first().map_or(Timestamp::MAX, |(_, last)| last.after_millis(window_ms))
    }

    /// Takes in that what was wanted last was still wanted at `until`.
    pub(crate) fn coast(&mut self, until: Timestamp, window_ms: u64) {
        if let Some((_, last)) = self.0.last_mut() {
            *last = until.max(*last);
        }
        self.forget(until, window_ms);
    }

    fn forget(&mut self, now: Timestamp, window_ms: u64) {
        let old = self.0.iter().take_while(|(_, last)| now.millis_since(*last) >= window_ms).count();
        self.0.drain(..old);
    }

    pub(crate) fn is_sound(&self, extreme: Extreme) -> bool {
        self.0.len() <= MAX_RUNS
            && self.0.windows(2).all(|two| more(extreme, two[0].0, two[1].0) && two[0].1 <= two[1].1)
    }
}

const fn more(extreme: Extreme, held: u32, than: u32) -> bool {
    match extreme {
        Extreme::Least => held < than,
        Extreme::Most => held > than,
    }
}
