//! The plan of each group, and the sum over all of them, slot by slot, as time goes on.
//!
//! A group is planned a quarter of the horizon further than the horizon reaches. So the horizon moves with the present at no
//! cost; ticks plan a few groups anew, those first that were planned longest ago, and no group is planned too short while
//! ticks come. After a time without ticks that is longer than that quarter, groups are planned too short. Ticks catch up, each
//! with a bounded share of them, and nothing is admitted before they have.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::id::{GroupId, PoolId, ShapeId};
use crate::pool::Ledger;

use super::{Authority, PoolWitness};

/// How the horizon is cut up: slots are counted since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) slot_ms: u64,
    pub(crate) count: u16,
}

impl Slots {
    /// The slot that an instant is in.
    pub(super) const fn of(self, at: Timestamp) -> u64 {
        at.as_millis() / self.slot_ms
    }

    /// When a slot begins.
    pub(super) const fn at(self, slot: u64) -> Timestamp {
        Timestamp::from_millis(slot.saturating_mul(self.slot_ms))
    }

    /// How many slots there are in the horizon.
    pub(super) fn horizon(self) -> usize {
        usize::from(self.count)
    }

    /// By how many slots a group is planned further than the horizon.
    pub(super) fn margin(self) -> u32 {
        u32::from(self.count).div_ceil(4)
    }

    /// Over how many slots a group is planned.
    pub(super) fn span(self) -> u32 {
        u32::from(self.count) + self.margin()
    }

    /// The first slot that a group planned from `from` on is not planned for.
    const fn end(self, from: u64) -> u64 {
        let count = self.count as u64;
        from.saturating_add(count + count.div_ceil(4))
    }

    /// How many groups a tick plans anew, so that each of `groups` is in half the time after which it would fall short.
    fn budget(self, groups: usize, tick_ms: u64) -> usize {
        let margin_ms = u64::from(self.margin()).saturating_mul(self.slot_ms);
        let ticks = (margin_ms / 4 / tick_ms.max(1)).max(1);
        usize::try_from((groups as u64).div_ceil(ticks)).unwrap_or(groups)
    }
}

/// How many groups that are planned too short are planned anew at one time at most: a thirty-second of all groups, so that as
/// many ticks catch up with any outage; and so many that a few groups are caught up with at once.
pub(super) fn catch_up(groups: usize) -> usize {
    groups.div_ceil(32).max(64)
}

/// The upper bound of what a group's metric rules will want, from a slot on. Outside of it nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Upper {
    pub(super) from: u64,
    pub(super) counts: Vec<u32>,
}

impl Upper {
    /// An upper bound, as far as it can ever be asked for: twice the horizon.
    pub(super) fn new(from: u64, counts: &[u32], slots: Slots) -> Self {
        Self { from, counts: counts[..counts.len().min(slots.horizon() * 2)].to_vec() }
    }

    pub(super) fn at(&self, slot: u64) -> Option<u32> {
        let at = slot.checked_sub(self.from).and_then(|at| usize::try_from(at).ok())?;
        self.counts.get(at).copied()
    }
}

/// The plan of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Planned {
    /// The slot from which on it is planned.
    pub(super) from: u64,
    /// A number of slots after `from`, and the demand from there on; in order, the first is 0. With the floors of chain
    /// tasks.
    pub(super) demand: Vec<(u32, u32)>,
    pub(super) upper: Upper,
    /// Under whose authority it was admitted; `None` for a group of which chain tasks alone are planned.
    pub(super) authority: Option<Authority>,
    /// Where it lands: the pools, and of how many each has its even share.
    pub(super) pools: SmallVec<[PoolId; 3]>,
    pub(super) shape: ShapeId,
}

impl Planned {
    /// The share of each pool in each of `length` slots from `start` on: even, rounded up.
    pub(super) fn each_slot(&self, slots: Slots, start: u64, length: usize, mut take: impl FnMut(usize, u64)) {
        let parts = self.pools.len().max(1) as u64;
        let place = |offset: u32| {
            let slot = self.from.saturating_add(u64::from(offset));
            usize::try_from(slot.saturating_sub(start)).unwrap_or(usize::MAX).min(length)
        };
        for (at, (offset, demand)) in self.demand.iter().enumerate() {
            let until = self.demand.get(at + 1).map_or(slots.span(), |(next, _)| *next);
            let share = u64::from(*demand).div_ceil(parts);
            (place(*offset)..place(until)).for_each(|slot| take(slot, share));
        }
    }

    /// Whether this can have been planned by `start`.
    fn is_sound(&self, slots: Slots, start: u64) -> bool {
        self.from <= start
            && self.demand.first().is_some_and(|(slot, _)| *slot == 0)
            && self.demand.windows(2).all(|two| two[0].0 < two[1].0)
            && self.demand.iter().all(|(slot, _)| *slot < slots.span())
            && self.upper.counts.len() <= slots.horizon() * 2
    }
}

/// The admitted demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The slot with which the sums begin: that of the last tick, or of the last change.
    pub(crate) start: u64,
    pub(crate) groups: BTreeMap<GroupId, Planned>,
    /// Per pool and shape, the sum in each slot from `start` on.
    pub(super) sums: BTreeMap<(PoolId, ShapeId), Vec<u64>>,
    /// From when on each group is planned.
    ages: BTreeSet<(u64, GroupId)>,
}

impl Plan {
    /// A plan of nothing.
    pub(super) fn new(start: u64) -> Self {
        Self { start, ..Self::default() }
    }

    /// Plans a group, in the place of what was planned of it.
    pub(super) fn insert(&mut self, slots: Slots, id: GroupId, planned: Planned) {
        self.remove(slots, id);
        let span = slots.span() as usize;
        for pool in &planned.pools {
            let sums = self.sums.entry((*pool, planned.shape)).or_default();
            sums.resize(span, 0);
            planned.each_slot(slots, self.start, span, |slot, share| sums[slot] += share);
        }
        self.ages.insert((planned.from, id));
        self.groups.insert(id, planned);
    }

    pub(super) fn remove(&mut self, slots: Slots, id: GroupId) -> Option<Planned> {
        let planned = self.groups.remove(&id)?;
        self.ages.remove(&(planned.from, id));
        for pool in &planned.pools {
            if let Some(sums) = self.sums.get_mut(&(*pool, planned.shape)) {
                planned.each_slot(slots, self.start, sums.len(), |slot, share| sums[slot] -= share);
            }
        }
        Some(planned)
    }

    /// Has the sums begin with a later slot: what is past is forgotten.
    pub(super) fn shift_to(&mut self, start: u64) {
        let by = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.start = self.start.max(start);
        for sums in self.sums.values_mut().filter(|_| by > 0) {
            let length = sums.len();
            sums.drain(..by.min(length));
            sums.resize(length, 0);
        }
    }

    /// The groups that are not planned for the whole horizon that begins with `start`, those first that were planned longest
    /// ago.
    pub(super) fn behind(&self, slots: Slots, start: u64) -> impl Iterator<Item = GroupId> {
        let horizon = start.saturating_add(u64::from(slots.count));
        self.ages.iter().take_while(move |(from, _)| slots.end(*from) < horizon).map(|(_, id)| *id)
    }

    /// Those that a tick plans anew: few, and those that were planned longest ago.
    pub(super) fn oldest(&self, slots: Slots, tick_ms: u64) -> SmallVec<[GroupId; 4]> {
        let half = u64::from(slots.margin().div_ceil(2));
        let old = self.ages.iter().take_while(|(from, _)| from.saturating_add(half) <= self.start);
        old.take(slots.budget(self.groups.len(), tick_ms)).map(|(_, id)| *id).collect()
    }

    /// The demand on a pool in the slot with this offset from `start`.
    pub(super) fn sum(&self, key: (PoolId, ShapeId), slot: u64) -> u64 {
        let at = slot.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        self.sums.get(&key).zip(at).and_then(|(sums, at)| sums.get(at)).copied().unwrap_or(0)
    }

    /// The pools that are over their mark in the horizon, and when.
    pub(super) fn witnesses(&self, slots: Slots, ledger: &Ledger) -> Vec<PoolWitness> {
        let mut found = Vec::new();
        for ((pool, shape), sums) in &self.sums {
            let sums = &sums[..slots.horizon().min(sums.len())];
            let mark = ledger.account(*pool).map_or(0, |account| account.marked(*shape));
            let Some(first) = sums.iter().position(|sum| *sum > u64::from(mark)) else { continue };
            // The first of the highest.
            let worst = (0..sums.len()).rev().max_by_key(|slot| sums[*slot]).unwrap_or(first);
            found.push(PoolWitness {
                pool: *pool,
                mark,
                first: slots.at(self.start.saturating_add(first as u64)),
                worst: slots.at(self.start.saturating_add(worst as u64)),
                excess: u32::try_from(sums[worst] - u64::from(mark)).unwrap_or(u32::MAX),
            });
        }
        found
    }

    /// Rebuilds a plan from what was planned of each group; `None` where a demand is not in order or outside the span.
    pub(crate) fn rebuild(start: u64, groups: BTreeMap<GroupId, Planned>, slots: Slots) -> Option<Self> {
        start.checked_add(u64::from(slots.span()))?;
        let mut plan = Self::new(start);
        for (id, planned) in groups {
            if !planned.is_sound(slots, start) {
                return None;
            }
            plan.insert(slots, id, planned);
        }
        Some(plan)
    }
}
