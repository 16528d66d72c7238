//! Admission: what all admitted groups will ask for over the horizon, superposed; and whether one change more still fits.
//!
//! The plan holds a sum per pool and time slot, so that asking about one change costs the same however many are admitted.
//! A group's demand is the upper bound of what its policy can ask for: its metric rules at the forecast's upper bound
//! within the policy's bounds (at the maximum where there is no forecast), its timed rules as they stand.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use jiff::tz::TimeZone;
use smallvec::SmallVec;

use crate::Timestamp;
use crate::engine::Engine;
use crate::error::Refused;
use crate::group::{Binding, Group, Policy, RuleKind, Traffic};
use crate::id::{GroupId, IdcId, PoolId, ShapeId};
use crate::num::shift;
use crate::pool::{Account, Ledger, PoolKind};
use crate::schedule::Window;
use crate::state::{GroupState, Held};

/// Who asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Authority {
    /// The rules decide.
    Owner,
    /// An operator grants what the rules would refuse; the plan remembers it.
    Operator,
}

/// What a change would do to one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolWitness {
    /// The pool.
    pub pool: PoolId,
    /// What it may lend of the shape: its stock up to its high mark.
    pub mark: u32,
    /// The first instant at which more is asked for.
    pub first: Timestamp,
    /// The instant at which most is asked for.
    pub worst: Timestamp,
    /// How much that is above the mark.
    pub excess: u32,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It holds: under the mark by the forecast it was admitted with.
    Admitted,
    /// An operator has it hold although these pools go over.
    Overridden(Vec<PoolWitness>),
    /// It does not: these pools would go over. Nothing has changed.
    Refused(Vec<PoolWitness>),
}

/// What is planned of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Planned {
    /// Slot and demand from that slot on, in order; the first slot is 0. With the floors of chain tasks.
    pub(crate) demand: Vec<(u16, u32)>,
    /// The same without the floors of chain tasks.
    pub(crate) own: Vec<(u16, u32)>,
    /// Under whose authority it was admitted; `None` for a group of which chain tasks alone are planned.
    pub(crate) authority: Option<Authority>,
    /// Where it lands: the pools, and of how many each has its even share.
    pub(crate) pools: SmallVec<[PoolId; 3]>,
    pub(crate) shape: ShapeId,
}

/// The admitted demand over the horizon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Plan {
    pub(crate) start: Timestamp,
    pub(crate) groups: BTreeMap<GroupId, Planned>,
    /// Per pool and shape, the sum in each slot.
    pub(crate) sums: BTreeMap<(PoolId, ShapeId), Vec<u64>>,
}

/// How the horizon is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) slot_ms: u64,
    pub(crate) count: u16,
}

impl Plan {
    fn at(&self, slots: Slots, slot: usize) -> Timestamp {
        self.start.after_millis(slots.slot_ms.saturating_mul(slot as u64))
    }

    fn add(&mut self, slots: Slots, planned: &Planned) {
        for pool in &planned.pools {
            let sums = self.sums.entry((*pool, planned.shape)).or_default();
            sums.resize(usize::from(slots.count), 0);
            each_slot(slots, planned, |slot, share| sums[slot] += share);
        }
    }

    fn remove(&mut self, slots: Slots, planned: &Planned) {
        for pool in &planned.pools {
            if let Some(sums) = self.sums.get_mut(&(*pool, planned.shape)) {
                each_slot(slots, planned, |slot, share| sums[slot] -= share);
            }
        }
    }

    /// Which of `pools` are over their mark, and when.
    fn witnesses(&self, slots: Slots, ledger: &Ledger, pools: &[PoolId], shape: ShapeId) -> Vec<PoolWitness> {
        let mut found = Vec::new();
        for pool in pools {
            let Some(sums) = self.sums.get(&(*pool, shape)) else { continue };
            let mark = ledger.account(*pool).map_or(0, |account| account.marked(shape));
            let Some(first) = sums.iter().position(|sum| *sum > u64::from(mark)) else { continue };
            // The first of the highest.
            let worst = (0..sums.len()).rev().max_by_key(|slot| sums[*slot]).unwrap_or(first);
            found.push(PoolWitness {
                pool: *pool,
                mark,
                first: self.at(slots, first),
                worst: self.at(slots, worst),
                excess: u32::try_from(sums[worst] - u64::from(mark)).unwrap_or(u32::MAX),
            });
        }
        found
    }
}

/// The share of each pool in each slot: even, rounded up.
fn each_slot(slots: Slots, planned: &Planned, mut take: impl FnMut(usize, u64)) {
    let parts = planned.pools.len().max(1) as u64;
    for (at, (from, demand)) in planned.demand.iter().enumerate() {
        let until = planned.demand.get(at + 1).map_or(slots.count, |(next, _)| *next);
        let share = u64::from(*demand).div_ceil(parts);
        (*from..until).for_each(|slot| take(usize::from(slot), share));
    }
}

/// The resident pools, or the tenant's own, that a group's demand lands on: the cheapest of each data centre.
fn landing(ledger: &Ledger, traffic: &Traffic) -> SmallVec<[PoolId; 3]> {
    let fits = |account: &&Account, own: bool| {
        let kind = match account.pool.kind {
            PoolKind::Dedicated(tenant) => own && tenant == traffic.tenant,
            PoolKind::Resident => !own,
            PoolKind::Emergency { .. } => false,
        };
        let reached = traffic.idcs.is_empty() || traffic.idcs.contains(&account.pool.idc);
        kind && reached && account.stock.iter().any(|stock| stock.shape == traffic.shape)
    };
    let own = ledger.accounts.iter().any(|account| fits(&account, true));
    let mut best: BTreeMap<IdcId, (u64, PoolId)> = BTreeMap::new();
    for account in ledger.accounts.iter().filter(|account| fits(account, own)) {
        let offer = (account.pool.price, account.pool.id);
        best.entry(account.pool.idc).and_modify(|held| *held = offer.min(*held)).or_insert(offer);
    }
    best.into_values().map(|(_, pool)| pool).collect()
}

/// The most that a policy can ask for in each slot.
fn envelope(group: &Group, upper: &[u32], now: Timestamp, slots: Slots, base: u32) -> Vec<(u16, u32)> {
    let policy = group.policy();
    let count = usize::from(slots.count);
    let by_metric = policy.rules.iter().any(|rule| matches!(rule.kind, RuleKind::Metric(..)));
    let metric = |slot: usize| {
        let wanted = if by_metric { upper.get(slot).copied().unwrap_or(policy.max) } else { base };
        wanted.clamp(policy.min, policy.max)
    };
    let mut demand: Vec<u32> = (0..count).map(metric).collect();
    let mut floors = alloc::vec![0_u32; count];
    let mut caps = alloc::vec![policy.max; count];
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
                let first = point.next_after(zone, Timestamp::from_millis(now.as_millis().saturating_sub(1)));
                if let Some(at) = first.filter(|_| by > 0) {
                    let slot = usize::try_from(at.millis_since(now) / slots.slot_ms).unwrap_or(count).min(count);
                    for demand in &mut demand[slot..] {
                        *demand = shift(*demand, i64::from(by));
                    }
                }
            }
        }
    }
    let mut runs: Vec<(u16, u32)> = Vec::new();
    for (slot, wanted) in (0..slots.count).zip(demand) {
        let at = usize::from(slot);
        let size = wanted.max(floors[at]).max(policy.min).min(caps[at]);
        if runs.last().is_none_or(|(_, before)| *before != size) {
            runs.push((slot, size));
        }
    }
    runs
}

/// A demand with the floors of chain tasks in it.
fn with_floors(own: &[(u16, u32)], tasks: &[Held], start: Timestamp, slots: Slots) -> Vec<(u16, u32)> {
    if tasks.is_empty() {
        return own.to_vec();
    }
    let mut demand = alloc::vec![0_u32; usize::from(slots.count)];
    for (at, (from, size)) in own.iter().enumerate() {
        let until = own.get(at + 1).map_or(slots.count, |(next, _)| *next);
        demand[usize::from(*from)..usize::from(until)].fill(*size);
    }
    for task in tasks {
        for (slot, size) in demand.iter_mut().enumerate() {
            let from = start.after_millis(slots.slot_ms.saturating_mul(slot as u64));
            if task.from < from.after_millis(slots.slot_ms) && from < task.until {
                *size = task.count.max(*size);
            }
        }
    }
    let mut runs: Vec<(u16, u32)> = Vec::new();
    for (slot, size) in (0..slots.count).zip(demand) {
        if runs.last().is_none_or(|(_, before)| *before != size) {
            runs.push((slot, size));
        }
    }
    runs
}

/// Every slot that the window touches.
fn each_touched(window: &Window, zone: &TimeZone, start: Timestamp, slots: Slots, mut take: impl FnMut(usize)) {
    each_stay(window, zone, start, slots, |from, until| {
        let first = from / slots.slot_ms;
        let end = until.div_ceil(slots.slot_ms);
        (first..end.min(u64::from(slots.count))).filter_map(|slot| usize::try_from(slot).ok()).for_each(&mut take);
    });
}

/// Every slot that the window covers wholly.
fn each_covered(window: &Window, zone: &TimeZone, start: Timestamp, slots: Slots, mut take: impl FnMut(usize)) {
    each_stay(window, zone, start, slots, |from, until| {
        let first = from.div_ceil(slots.slot_ms);
        let end = until / slots.slot_ms;
        (first..end.min(u64::from(slots.count))).filter_map(|slot| usize::try_from(slot).ok()).for_each(&mut take);
    });
}

/// Every stay inside the window over the horizon: from and until, in ms since its start.
fn each_stay(window: &Window, zone: &TimeZone, start: Timestamp, slots: Slots, mut take: impl FnMut(u64, u64)) {
    let end = start.after_millis(slots.slot_ms.saturating_mul(u64::from(slots.count)));
    let mut at = start;
    // Each step goes to a later edge; a window has at most a few in a day.
    for _ in 0..usize::from(slots.count) * 2 + 2 {
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

/// The horizon of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The start of its first slot.
    pub start: Timestamp,
    /// How long a slot is, in ms.
    pub slot_ms: u64,
    /// How many slots there are.
    pub slots: u16,
}

impl Engine {
    /// The horizon that upper bounds are given for at `now`: from the last [`replan`](Engine::replan) on, or from the
    /// present where nothing is admitted yet.
    #[must_use]
    pub fn horizon(&self, now: Timestamp) -> Horizon {
        let Slots { slot_ms, count } = self.config.slots;
        Horizon { start: self.plan_start(now.max(self.now)), slot_ms, slots: count }
    }

    /// Asks for a group to be made or changed, where that is granted only if no pool would go over its mark at any moment
    /// of the [`horizon`](Engine::horizon). `upper` is the forecast's upper bound of what the group's metric rules will
    /// want in each slot; a missing tail counts as the maximum.
    ///
    /// Slots in which the change asks for no more than before cannot speak against it.
    ///
    /// # Errors
    /// As [`Engine::put_group`], and [`Refused::NoLanding`] where no pool fits; nothing has changed. Nor has it after
    /// [`Verdict::Refused`].
    pub fn admit(
        &mut self,
        now: Timestamp,
        traffic: Traffic,
        policy: Policy,
        upper: &[u32],
        authority: Authority,
    ) -> Result<Verdict, Refused> {
        let now = self.lift(now);
        let group = Group::new(policy, &self.config.zones, self.config.limits)?;
        let slots = self.config.slots;
        let id = traffic.id;
        let start = self.plan_start(now);
        let planned = self.plan_group(&group, &traffic, upper, start, Some(authority));
        if planned.pools.is_empty() {
            return Err(Refused::NoLanding(id));
        }
        let over = self.over(&planned, self.plan.groups.get(&id), start);
        if !over.is_empty() && authority == Authority::Owner {
            return Ok(Verdict::Refused(over));
        }
        self.put_checked(traffic, group)?;
        if let Some(old) = self.plan.groups.remove(&id) {
            self.plan.remove(slots, &old);
        }
        self.plan.start = start;
        self.plan.add(slots, &planned);
        self.plan.groups.insert(id, planned);
        Ok(if over.is_empty() { Verdict::Admitted } else { Verdict::Overridden(over) })
    }

    /// The pools that would go over their mark in slots that are asked more of, with `planned` in the place of `old`:
    /// told from the sums as they stand, so that nothing is copied.
    fn over(&self, planned: &Planned, old: Option<&Planned>, start: Timestamp) -> Vec<PoolWitness> {
        self.over_beside(planned, old, start, &Plan::default())
    }

    /// The same with what else is about to be planned.
    fn over_beside(
        &self,
        planned: &Planned,
        old: Option<&Planned>,
        start: Timestamp,
        others: &Plan,
    ) -> Vec<PoolWitness> {
        let slots = self.config.slots;
        let shares = |planned: &Planned| {
            let mut shares = alloc::vec![0_u64; usize::from(slots.count)];
            each_slot(slots, planned, |slot, share| shares[slot] = share);
            shares
        };
        let new_shares = shares(planned);
        let old_shares = old.map(shares);
        let at = |slot: usize| start.after_millis(slots.slot_ms.saturating_mul(slot as u64));
        let mut found = Vec::new();
        for pool in &planned.pools {
            let sums = self.plan.sums.get(&(*pool, planned.shape));
            let beside = others.sums.get(&(*pool, planned.shape));
            let mark = self.ledger.account(*pool).map_or(0, |account| account.marked(planned.shape));
            let replaces = old.is_some_and(|old| old.shape == planned.shape && old.pools.contains(pool));
            let before = old_shares.as_ref().filter(|_| replaces);
            let mut witness: Option<PoolWitness> = None;
            for (slot, share) in new_shares.iter().enumerate() {
                let gone = before.map_or(0, |shares| shares[slot]);
                if *share <= gone {
                    continue;
                }
                let sum = sums.map_or(0, |sums| sums[slot]) - gone + share;
                let sum = sum + beside.map_or(0, |sums| sums[slot]);
                let Some(excess) = sum.checked_sub(u64::from(mark)).filter(|excess| *excess > 0) else { continue };
                let excess = u32::try_from(excess).unwrap_or(u32::MAX);
                let fresh = PoolWitness { pool: *pool, mark, first: at(slot), worst: at(slot), excess };
                let witness = witness.get_or_insert(fresh);
                if excess > witness.excess {
                    (witness.worst, witness.excess) = (at(slot), excess);
                }
            }
            found.extend(witness);
        }
        found
    }

    /// Estimates the demand of every admitted group anew, from `now` on. What is admitted stays, even where a pool goes
    /// over: see [`Engine::overcommitted`].
    pub fn replan(&mut self, now: Timestamp, mut upper: impl FnMut(GroupId, Horizon) -> Vec<u32>) {
        let now = self.lift(now);
        let slots = self.config.slots;
        let start = slots.align(now);
        let horizon = Horizon { start, slot_ms: slots.slot_ms, slots: slots.count };
        let mut plan = Plan { start, ..Plan::default() };
        for (id, held) in &self.plan.groups {
            let Ok(place) = self.place(*id) else { continue };
            let slot = &self.slots[place];
            let planned = if held.authority.is_some() {
                self.plan_group(&slot.group, &slot.traffic, &upper(*id, horizon), start, held.authority)
            } else {
                self.plan_tasks(place, start)
            };
            plan.add(slots, &planned);
            plan.groups.insert(*id, planned);
        }
        self.plan = plan;
    }

    /// The pools that the plan asks more of than their mark: nothing is taken from what is admitted, and nothing more is
    /// admitted there.
    #[must_use]
    pub fn overcommitted(&self) -> Vec<PoolWitness> {
        let pools = self.plan.sums.keys();
        pools.flat_map(|(pool, shape)| self.plan.witnesses(self.config.slots, &self.ledger, &[*pool], *shape)).collect()
    }

    /// Under whose authority a group was admitted.
    #[must_use]
    pub fn admitted_by(&self, group: GroupId) -> Option<Authority> {
        self.plan.groups.get(&group).and_then(|planned| planned.authority)
    }

    fn plan_start(&self, now: Timestamp) -> Timestamp {
        if self.plan.groups.is_empty() { self.config.slots.align(now) } else { self.plan.start }
    }

    fn plan_group(
        &self,
        group: &Group,
        traffic: &Traffic,
        upper: &[u32],
        start: Timestamp,
        authority: Option<Authority>,
    ) -> Planned {
        let state = self.place(traffic.id).ok().map(|place| &self.slots[place].state);
        let base = state.map_or(0, |state| state.base);
        let own = envelope(group, upper, start, self.config.slots, base);
        let demand = with_floors(&own, state.map_or(&[], GroupState::tasks), start, self.config.slots);
        Planned { demand, own, authority, pools: landing(&self.ledger, traffic), shape: traffic.shape }
    }

    /// What is planned of a group that was not admitted: the floors of its chain tasks.
    fn plan_tasks(&self, place: usize, start: Timestamp) -> Planned {
        let slot = &self.slots[place];
        let own = alloc::vec![(0, 0)];
        let demand = with_floors(&own, slot.state.tasks(), start, self.config.slots);
        let (pools, shape) = (landing(&self.ledger, &slot.traffic), slot.traffic.shape);
        Planned { demand, own, authority: None, pools, shape }
    }

    /// Counts the chain tasks of a group anew.
    pub(crate) fn plan_chains(&mut self, now: Timestamp, place: usize) {
        let slots = self.config.slots;
        let start = self.plan_start(now);
        let id = self.slots[place].id();
        let planned = match self.plan.groups.remove(&id) {
            Some(old) => {
                self.plan.remove(slots, &old);
                let demand = with_floors(&old.own, self.slots[place].state.tasks(), start, slots);
                Planned { demand, ..old }
            }
            None => self.plan_tasks(place, start),
        };
        if planned.authority.is_none() && self.slots[place].state.tasks().is_empty() {
            return;
        }
        self.plan.start = start;
        self.plan.add(slots, &planned);
        self.plan.groups.insert(id, planned);
    }

    /// Adds what a chain task asks of a group over what is planned of it to `added`.
    pub(crate) fn add_task(&self, now: Timestamp, place: usize, held: Held, added: &mut Plan) {
        let slots = self.config.slots;
        let start = self.plan_start(now);
        let old = self.plan.groups.get(&self.slots[place].id());
        let base = old.cloned().unwrap_or_else(|| self.plan_tasks(place, start));
        let with = with_floors(&base.own, &[held], start, slots);
        let mut more = alloc::vec![0_u64; usize::from(slots.count)];
        let with = Planned { demand: with, ..base.clone() };
        each_slot(slots, &with, |slot, share| more[slot] = share);
        each_slot(slots, &base, |slot, share| more[slot] = more[slot].saturating_sub(share));
        for pool in &base.pools {
            let sums = added.sums.entry((*pool, base.shape)).or_default();
            sums.resize(usize::from(slots.count), 0);
            for (sum, more) in sums.iter_mut().zip(&more) {
                *sum += more;
            }
        }
    }

    /// The pools that a chain task would take over their mark, if it held a group at `count`; on top of the other groups that
    /// the same task holds.
    pub(crate) fn over_with_task(&self, now: Timestamp, place: usize, held: Held, others: &Plan) -> Vec<PoolWitness> {
        let slots = self.config.slots;
        let start = self.plan_start(now);
        let old = self.plan.groups.get(&self.slots[place].id());
        let base = old.cloned().unwrap_or_else(|| self.plan_tasks(place, start));
        let mut tasks: Vec<Held> = self.slots[place].state.tasks().to_vec();
        tasks.retain(|other| other.task != held.task);
        tasks.push(held);
        let planned = Planned { demand: with_floors(&base.own, &tasks, start, slots), ..base };
        self.over_beside(&planned, old, start, others)
    }

    /// Takes a group out of the plan.
    pub(crate) fn unplan(&mut self, group: GroupId) {
        if let Some(planned) = self.plan.groups.remove(&group) {
            self.plan.remove(self.config.slots, &planned);
        }
    }
}

impl Plan {
    /// Rebuilds a plan from what was planned of each group; `None` where a demand is not in order or outside the horizon.
    pub(crate) fn rebuild(start: Timestamp, groups: BTreeMap<GroupId, Planned>, slots: Slots) -> Option<Self> {
        let mut plan = Self { start, ..Self::default() };
        for planned in groups.values() {
            let sound = |demand: &[(u16, u32)]| {
                demand.first().is_some_and(|(slot, _)| *slot == 0)
                    && demand.windows(2).all(|two| two[0].0 < two[1].0)
                    && demand.iter().all(|(slot, _)| *slot < slots.count)
            };
            if !sound(&planned.demand) || !sound(&planned.own) {
                return None;
            }
            plan.add(slots, planned);
        }
        plan.groups = groups;
        Some(plan)
    }
}

impl Slots {
    fn align(self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis() - now.as_millis() % self.slot_ms)
    }
}
