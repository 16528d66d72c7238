//! Behaviour: how fast a group may move in each direction (cool-down, stabilisation, rate).

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::error::PolicyError;
use crate::hpa::{Events, Policy, PolicyKind, Select, furthest};
use crate::reason::Direction;

/// The behaviour of a group: how fast it may move.
///
/// `out` holds metric rules back: what a clock or an operator asks for is there at once. `inward` paces every way down,
/// whatever has ended: see [the table](crate#what-ends-and-how-it-leaves).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Behavior {
    /// The pace of growing.
    pub out: Pace,
    /// The pace of shrinking.
    pub inward: Pace,
    /// The window, in ms, in which the highest wanted count holds, in both directions; 0 for none.
    ///
    /// A count that is exactly this old still holds.
    ///
    /// This is what Kubernetes does for an autoscaler without `behavior`. It takes the place of `inward.stabilize_ms`, which
    /// must be 0 then.
    pub highest_ms: u64,
    /// The limit on how far one decision of metric rules may grow the group; `None` for no limit.
    pub jump: Option<Jump>,
}

/// A limit on one decision's growth: the group may grow to the larger of two counts, whatever it did before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Jump {
    /// The factor: the group may grow to this many times its size.
    pub factor: u32,
    /// The minimum: the group may always grow to this many instances.
    pub minimum: u32,
}

/// The pace of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pace {
    /// The cool-down in ms: the time after a move in this direction in which no further one is made.
    pub cooldown_ms: u64,
    /// The stabilisation window in ms, over which all decisions must agree.
    ///
    /// Growth takes the least wanted within the window, shrinking the most.
    pub stabilize_ms: u64,
    /// The limit on how much may move within a period; `None` for no limit.
    pub rate: Option<Rate>,
}

/// The rate of one direction: policies that each limit the movement within a period.
///
/// They are those of `autoscaling/v2`, and this crate's Kubernetes autoscaler uses the same code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rate {
    /// The selection of the policy that applies.
    pub select: Select,
    /// The policies. A period is at most an hour.
    pub policies: Vec<Policy>,
}

impl Rate {
    /// A pace that allows no move in this direction.
    #[must_use]
    pub const fn disabled() -> Self {
        Self { select: Select::Disabled, policies: Vec::new() }
    }
}

impl Behavior {
    /// The behaviour of a Kubernetes autoscaler without a `behavior` field.
    ///
    /// Growth is limited to the larger of twice the size and 4 in one pass. The highest count wanted in the last five
    /// minutes holds, so that growth that the limit cut off is made up for in the next pass.
    #[must_use]
    pub fn kubernetes_unset() -> Self {
        Self { highest_ms: 300_000, jump: Some(Jump { factor: 2, minimum: 4 }), ..Self::default() }
    }

    /// The behaviour of a Kubernetes autoscaler with an empty `behavior` field (for one without, see
    /// [`Behavior::kubernetes_unset`]).
    ///
    /// Out by the larger of 4 instances and 100 % in 15 seconds; in by any number, once no more was wanted for five
    /// minutes.
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
            ..Self::default()
        }
    }

    /// How long what was wanted counts for the way down, in ms; the end is outside.
    pub(crate) fn window_in(&self) -> u64 {
        if self.highest_ms > 0 { self.highest_ms.saturating_add(1) } else { self.inward.stabilize_ms }
    }

    pub(crate) fn has_windows(&self) -> bool {
        self.out.stabilize_ms > 0 || self.window_in() > 0
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
        if self.highest_ms > 0 && self.inward.stabilize_ms > 0 {
            return Err(PolicyError::Windows);
        }
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

    /// Nothing is later than `now`.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        for event in self.out.0.iter_mut().chain(&mut self.inward.0) {
            event.at = now.min(event.at);
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

/// A policy of a rate, with the moves that it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RateLine {
    /// The policy.
    pub policy: Policy,
    /// The number of instances added within the policy's period.
    pub added: i64,
    /// The number of instances removed within the policy's period.
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

/// The maximum number of runs in one history.
const MAX_RUNS: usize = 64;

/// The recent history of wanted counts, as far as it still matters for one extreme.
///
/// A monotone queue (the sliding-window maximum of Lemire, "Streaming maximum-minimum filter using no more than three
/// comparisons per element", 2006).
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

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Nothing is later than `now`.
    pub(crate) fn rewind(&mut self, now: Timestamp) {
        for (_, at) in &mut self.0 {
            *at = now.min(*at);
        }
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
