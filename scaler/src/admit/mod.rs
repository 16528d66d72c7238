//! Admission: the superposed demand of all admitted groups over the horizon, and whether one more change fits.
//!
//! The plan holds a sum per pool and time slot, so that asking about one change costs the same however many are admitted.
//! A group's demand is the upper bound of what its policy can ask for: its metric rules at the forecast's upper bound
//! within the policy's bounds (at the maximum where there is no forecast), its timed rules as they stand.
//!
//! The horizon begins with the present, and moves with it.

mod envelope;
mod plan;

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::engine::Engine;
use crate::error::Refused;
use crate::group::{Group, Policy, Traffic};
use crate::id::{GroupId, IdcId, PoolId};
use crate::pool::{Account, Ledger, PoolKind};
use crate::state::Held;

use envelope::{Present, add_floors, envelope, runs};
pub(crate) use plan::{Plan, Planned, Slots};
use plan::{Upper, catch_up};

/// The authority under which a change is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Authority {
    /// The owner: the rules of admission decide.
    Owner,
    /// An operator, who grants what the rules would refuse. The plan remembers it.
    Operator,
}

/// The effect of a change on one pool that would go over its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolWitness {
    /// The id of the pool.
    pub pool: PoolId,
    /// The number of instances of the shape that the pool may lend: its stock up to its high mark.
    pub mark: u32,
    /// The first instant at which more is requested.
    pub first: Timestamp,
    /// The instant at which most is requested.
    pub worst: Timestamp,
    /// The number of instances above the mark at that instant.
    pub excess: u32,
}

/// The answer to a request for admission.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Admitted: no pool goes over its mark, by the forecast given.
    Admitted,
    /// Overridden: an operator admitted the change although these pools go over their mark.
    Overridden(Vec<PoolWitness>),
    /// Refused: these pools would go over their mark. Nothing has changed.
    Refused(Vec<PoolWitness>),
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

/// The horizon of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The start of its first slot.
    pub start: Timestamp,
    /// The length of a slot, in ms.
    pub slot_ms: u64,
    /// The number of slots.
    pub slots: u16,
}

/// The draft of a plan for one group: its policy, its forecast, and who admitted it.
struct Draft<'a> {
    group: &'a Group,
    traffic: &'a Traffic,
    upper: Upper,
    authority: Option<Authority>,
    /// The chain tasks that hold it, where they are to be others than those that it has.
    tasks: Option<&'a [Held]>,
}

impl Engine {
    /// The horizon that upper bounds are given for at `now`.
    ///
    /// It begins with the present, and moves with it.
    #[must_use]
    pub fn horizon(&self, now: Timestamp) -> Horizon {
        let slots = self.config.slots;
        let start = slots.at(self.plan_start(now.max(self.now)));
        Horizon { start, slot_ms: slots.slot_ms, slots: slots.count }
    }

    /// Adds or changes a group if no pool would go over its mark at any moment of the [`horizon`](Engine::horizon).
    ///
    /// `upper` is the forecast's upper bound of what the group's metric rules will want in each slot from the start of
    /// the horizon on. It may be longer than the horizon, up to twice as long: that is what counts as the horizon
    /// moves. A missing tail counts as the maximum, so give a new one with [`Engine::replan`] before it begins.
    ///
    /// Slots in which the change asks for no more than before cannot speak against it.
    ///
    /// # Errors
    /// As [`Engine::put_group`]; [`Refused::NoLanding`] where no pool fits; [`Refused::PlanBehind`] where ticks have not caught
    /// up with an outage yet. Nothing has changed. Nor has it after [`Verdict::Refused`].
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
        let upper = Upper::new(start, upper, slots);
        let draft = Draft { group: &group, traffic: &traffic, upper, authority: Some(authority), tasks: None };
        let planned = self.plan_group(draft, start);
        if planned.pools.is_empty() {
            return Err(Refused::NoLanding(id));
        }
        self.check_plan(start)?;
        let over = self.over(&self.plan_from(start), &planned, id, start, &Plan::default());
        if !over.is_empty() && authority == Authority::Owner {
            return Ok(Verdict::Refused(over));
        }
        self.put_checked(traffic, group)?;
        self.move_plan(start);
        self.plan.insert(slots, id, planned);
        Ok(if over.is_empty() { Verdict::Admitted } else { Verdict::Overridden(over) })
    }

    /// The pools that would go over their mark in slots of the horizon that are asked more of, with `planned` in the place of
    /// what `plan` has of the group, and with what else is about to be planned: told from the sums as they stand, so that
    /// nothing is copied.
    fn over(&self, plan: &Plan, planned: &Planned, id: GroupId, start: u64, others: &Plan) -> Vec<PoolWitness> {
        let slots = self.config.slots;
        let old = plan.groups.get(&id);
        let shares = |planned: &Planned| {
            let mut shares = alloc::vec![0_u64; slots.horizon()];
            planned.each_slot(slots, start, shares.len(), |slot, share| shares[slot] = share);
            shares
        };
        let new_shares = shares(planned);
        let old_shares = old.map(shares);
        let mut found = Vec::new();
        for pool in &planned.pools {
            let key = (*pool, planned.shape);
            let mark = self.ledger.account(*pool).map_or(0, |account| account.marked(planned.shape));
            let replaces = old.is_some_and(|old| old.shape == planned.shape && old.pools.contains(pool));
            let before = old_shares.as_ref().filter(|_| replaces);
            let mut witness: Option<PoolWitness> = None;
            for ((place, share), slot) in new_shares.iter().enumerate().zip(start..) {
                let gone = before.map_or(0, |shares| shares[place]);
                if *share <= gone {
                    continue;
                }
                let sum = plan.sum(key, slot) - gone + share + others.sum(key, slot);
                let Some(excess) = sum.checked_sub(u64::from(mark)).filter(|excess| *excess > 0) else { continue };
                let excess = u32::try_from(excess).unwrap_or(u32::MAX);
                let at = slots.at(slot);
                let witness = witness.get_or_insert(PoolWitness { pool: *pool, mark, first: at, worst: at, excess });
                if excess > witness.excess {
                    (witness.worst, witness.excess) = (at, excess);
                }
            }
            found.extend(witness);
        }
        found
    }

    /// Estimates the demand of every admitted group anew, from `now` on.
    ///
    /// `upper` answers as [`admit`](Engine::admit) is given. An admitted group stays, even where a pool goes over its
    /// mark: see [`Engine::overcommitted`].
    pub fn replan(&mut self, now: Timestamp, mut upper: impl FnMut(GroupId, Horizon) -> Vec<u32>) {
        let now = self.lift(now);
        let (slots, horizon) = (self.config.slots, self.horizon(now));
        let start = slots.of(horizon.start);
        let mut plan = Plan::new(start);
        for (id, held) in &self.plan.groups {
            let upper = match held.authority {
                Some(_) => Upper::new(start, &upper(*id, horizon), slots),
                None => Upper::default(),
            };
            if let Some(planned) = self.plan_anew(*id, upper, held.authority, start) {
                plan.insert(slots, *id, planned);
            }
        }
        self.plan = plan;
    }

    /// Lists the pools that the plan demands more of than their mark.
    ///
    /// Nothing is taken from admitted groups, and nothing more is admitted there. In the 32 ticks after an outage of
    /// more than a quarter of the horizon, groups that are not planned anew yet count as far as they were planned.
    #[must_use]
    pub fn overcommitted(&self) -> Vec<PoolWitness> {
        self.plan.witnesses(self.config.slots, &self.ledger)
    }

    /// The authority under which a group was admitted, if it was.
    #[must_use]
    pub fn admitted_by(&self, group: GroupId) -> Option<Authority> {
        self.plan.groups.get(&group).and_then(|planned| planned.authority)
    }

    /// The slot with which the horizon begins.
    pub(crate) fn plan_start(&self, now: Timestamp) -> u64 {
        let start = self.config.slots.of(now);
        if self.plan.groups.is_empty() { start } else { start.max(self.plan.start) }
    }

    fn plan_group(&self, draft: Draft<'_>, start: u64) -> Planned {
        let slots = self.config.slots;
        let slot = self.place(draft.traffic.id).ok().map(|place| &self.slots[place]);
        let present = slot.map(|slot| Present { group: &slot.group, state: &slot.state });
        let mut demand = match draft.authority {
            Some(_) => envelope(draft.group, &draft.upper, start, slots, present.as_ref()),
            None => alloc::vec![0; slots.span() as usize],
        };
        add_floors(&mut demand, draft.tasks.unwrap_or(slot.map_or(&[], |slot| slot.state.tasks())), start, slots);
        Planned {
            from: start,
            demand: runs(&demand),
            upper: draft.upper,
            authority: draft.authority,
            pools: landing(&self.ledger, draft.traffic),
            shape: draft.traffic.shape,
        }
    }

    /// Plans a group as it is now; `None` for one that is gone, or of which nothing is to be planned.
    fn plan_anew(&self, id: GroupId, upper: Upper, authority: Option<Authority>, start: u64) -> Option<Planned> {
        let slot = self.place(id).ok().map(|place| &self.slots[place])?;
        if authority.is_none() && slot.state.tasks().is_empty() {
            return None;
        }
        let draft = Draft { group: &slot.group, traffic: &slot.traffic, upper, authority, tasks: None };
        Some(self.plan_group(draft, start))
    }

    /// Whether the plan is whole, or so nearly that one step of catching up makes it so.
    pub(crate) fn check_plan(&self, start: u64) -> Result<(), Refused> {
        let step = catch_up(self.plan.groups.len());
        let behind = self.plan.behind(self.config.slots, start).count();
        if behind > step { Err(Refused::PlanBehind(behind)) } else { Ok(()) }
    }

    /// The plan of the horizon that begins with `start`: where ticks have not kept up, a copy that has.
    fn plan_from(&self, start: u64) -> Cow<'_, Plan> {
        if self.plan.behind(self.config.slots, start).next().is_none() {
            return Cow::Borrowed(&self.plan);
        }
        let mut plan = self.plan.clone();
        self.move_on(&mut plan, start);
        Cow::Owned(plan)
    }

    fn move_plan(&mut self, start: u64) {
        let mut plan = core::mem::take(&mut self.plan);
        self.move_on(&mut plan, start);
        self.plan = plan;
    }

    /// Has `plan` begin with `start`, and plans a bounded number of the groups anew that are then planned too short. Returns
    /// how many.
    fn move_on(&self, plan: &mut Plan, start: u64) -> usize {
        if plan.groups.is_empty() {
            *plan = Plan::new(start);
        }
        plan.shift_to(start);
        let step = catch_up(plan.groups.len());
        let behind: Vec<GroupId> = plan.behind(self.config.slots, start).take(step).collect();
        for id in &behind {
            self.refresh(plan, *id);
        }
        behind.len()
    }

    /// Plans a group anew, in a plan that has moved on.
    fn refresh(&self, plan: &mut Plan, id: GroupId) {
        let slots = self.config.slots;
        let Some(held) = plan.remove(slots, id) else { return };
        if let Some(planned) = self.plan_anew(id, held.upper, held.authority, plan.start) {
            plan.insert(slots, id, planned);
        }
    }

    /// The horizon moves with the tick at `now`: sums begin with the present, and a few groups are planned anew; after an
    /// outage a bounded share of those that are then planned too short.
    pub(crate) fn roll_plan(&mut self, now: Timestamp) {
        if self.plan.groups.is_empty() {
            return;
        }
        let mut plan = core::mem::take(&mut self.plan);
        let mut planned = self.move_on(&mut plan, self.config.slots.of(now));
        if planned == 0 {
            for id in plan.oldest(self.config.slots, self.config.tick_ms) {
                self.refresh(&mut plan, id);
                planned += 1;
            }
        }
        self.counters.planned += planned as u64;
        self.plan = plan;
    }

    /// The clock went back to `now`: the horizon begins there.
    pub(crate) fn rewind_plan(&mut self, now: Timestamp) {
        let slots = self.config.slots;
        let start = slots.of(now);
        if start >= self.plan.start {
            return;
        }
        let mut plan = Plan::new(start);
        for (id, held) in core::mem::take(&mut self.plan.groups) {
            if let Some(planned) = self.plan_anew(id, held.upper, held.authority, start) {
                plan.insert(slots, id, planned);
            }
        }
        self.plan = plan;
    }

    /// Counts the chain tasks of a group anew.
    pub(crate) fn plan_chains(&mut self, now: Timestamp, place: usize) {
        let start = self.plan_start(now);
        self.move_plan(start);
        let id = self.slots[place].id();
        let old = self.plan.remove(self.config.slots, id);
        let (upper, authority) = old.map_or((Upper::default(), None), |old| (old.upper, old.authority));
        if let Some(planned) = self.plan_anew(id, upper, authority, start) {
            self.plan.insert(self.config.slots, id, planned);
        }
    }

    /// The plan of a group with `tasks` of chains in place of those that it has.
    fn with_tasks(&self, plan: &Plan, place: usize, tasks: &[Held], start: u64) -> Planned {
        let slot = &self.slots[place];
        let old = plan.groups.get(&slot.id());
        let (upper, authority) = old.map_or((Upper::default(), None), |old| (old.upper.clone(), old.authority));
        let draft = Draft { group: &slot.group, traffic: &slot.traffic, upper, authority, tasks: Some(tasks) };
        self.plan_group(draft, start)
    }

    /// Adds what a chain task asks of a group over what is planned of it to `added`.
    pub(crate) fn add_task(&self, now: Timestamp, place: usize, held: Held, added: &mut Plan) {
        let slots = self.config.slots;
        let start = self.plan_start(now);
        let plan = self.plan_from(start);
        let with = self.with_tasks(&plan, place, &[held], start);
        let span = slots.span() as usize;
        let mut more = alloc::vec![0_u64; span];
        with.each_slot(slots, start, span, |slot, share| more[slot] = share);
        if let Some(base) = plan.groups.get(&self.slots[place].id()) {
            base.each_slot(slots, start, span, |slot, share| more[slot] = more[slot].saturating_sub(share));
        }
        added.start = start;
        for pool in &with.pools {
            let sums = added.sums.entry((*pool, with.shape)).or_default();
            sums.resize(span, 0);
            for (sum, more) in sums.iter_mut().zip(&more) {
                *sum += more;
            }
        }
    }

    /// The pools that a chain task would take over their mark, if it held a group at `count`; on top of the other groups that
    /// the same task holds.
    pub(crate) fn over_with_task(&self, now: Timestamp, place: usize, held: Held, others: &Plan) -> Vec<PoolWitness> {
        let start = self.plan_start(now);
        let plan = self.plan_from(start);
        let mut tasks: Vec<Held> = self.slots[place].state.tasks().to_vec();
        tasks.retain(|other| other.task != held.task);
        tasks.push(held);
        let planned = self.with_tasks(&plan, place, &tasks, start);
        self.over(&plan, &planned, self.slots[place].id(), start, others)
    }

    /// Takes a group out of the plan.
    pub(crate) fn unplan(&mut self, group: GroupId) {
        self.plan.remove(self.config.slots, group);
    }
}
