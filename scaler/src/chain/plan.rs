//! One plan for a whole chain: callees are granted first, and callers do not grow past what those carry.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Chain, Link, share, times};
use crate::Timestamp;
use crate::admit::{Plan, PoolWitness};
use crate::allot::{Allotment, Grant, Refusal, grow};
use crate::engine::Engine;
use crate::error::Refused;
use crate::id::{GroupId, PoolId, TaskId};
use crate::num::Milli;
use crate::pool::{Cause, Ledger};
use crate::quota::Quotas;
use crate::state::{Held, MAX_TASKS};

/// A task for a chain: a minimum size for each of its services, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTask {
    /// The id of the task.
    ///
    /// At each instant the highest of the floors of all tasks applies; a task replaces one with the same id.
    pub id: TaskId,
    /// The minimum size of each service. Services that are not listed stay as they are.
    pub wanted: Vec<(GroupId, u32)>,
    /// The start of the task.
    pub from: Timestamp,
    /// The end of the task; the instant itself is outside.
    pub until: Timestamp,
    /// Whether the task may be granted in part.
    pub grant: Grant,
}

/// Why a service is granted less than it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBack {
    /// A callee carries no more.
    Callee {
        /// The group of the callee.
        callee: GroupId,
        /// The load that the callee will carry.
        carries: Milli,
    },
    /// The policy's maximum is reached.
    Maximum(u32),
    /// With more, these pools would go over their mark, by what is admitted over the time of the task.
    Admitted(Vec<PoolWitness>),
    /// Pools or quotas do not have more.
    Short {
        /// The cause, for each pool that was asked.
        causes: Vec<(PoolId, Cause)>,
        /// The reason, if it is not a pool's.
        refusal: Option<Refusal>,
    },
}

/// The grant of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStep {
    /// The service.
    pub group: GroupId,
    /// The number of instances that it has, or that are on their way.
    pub before: u32,
    /// The number of instances that it wants.
    pub wanted: u32,
    /// The number of instances granted; never fewer than before.
    pub granted: u32,
    /// The reason why not all are granted.
    pub held_back: Option<HeldBack>,
}

/// The plan of a whole chain, callees before callers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ChainPlan {
    /// The grant of each service.
    pub steps: Vec<ChainStep>,
}

impl ChainPlan {
    /// Whether every service is granted what it wants.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.steps.iter().all(|step| step.held_back.is_none())
    }
}

/// The answer to a task for a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum ChainVerdict {
    /// Started: every group has its grant as a floor for the time of the task.
    Started(ChainPlan),
    /// Refused: the task must be granted whole, and could not be. Nothing has changed.
    Refused(ChainPlan),
}

/// The resources left while a plan is made.
struct Drawing<'a> {
    engine: &'a Engine,
    chain: &'a Chain,
    ledger: Ledger,
    quotas: Quotas,
    /// The load that each service will carry, and the load that its callers will ask of it.
    carries: BTreeMap<GroupId, Milli>,
    asked: BTreeMap<GroupId, Milli>,
    /// The task, and what it adds to the plan so far.
    task: &'a ChainTask,
    added: Plan,
}

impl Engine {
    /// The plan that a task for a chain would get now. Nothing changes.
    ///
    /// # Errors
    /// [`Refused::NoGroup`] for a service that has no group here.
    pub fn plan_chain(&self, now: Timestamp, chain: &Chain, task: &ChainTask) -> Result<ChainPlan, Refused> {
        let mut drawing = Drawing {
            engine: self,
            chain,
            ledger: self.ledger.clone(),
            quotas: self.quotas.clone(),
            carries: BTreeMap::new(),
            asked: BTreeMap::new(),
            task,
            added: Plan::default(),
        };
        for link in chain.links() {
            let before = drawing.delivered(link.group)?;
            drawing.ask(link, before, 0);
        }
        let mut steps = Vec::new();
        for link in chain.links() {
            let wanted = task.wanted.iter().find(|(group, _)| *group == link.group).map(|(_, count)| *count);
            steps.push(drawing.step(link, wanted, now.max(self.now))?);
        }
        Ok(ChainPlan { steps })
    }

    /// Starts a task for a chain: each group has its grant as a floor.
    ///
    /// An atomic task that cannot be granted whole changes nothing. Admission counts the floors over the time of the
    /// task, and a task is granted no more than admitted demand leaves.
    ///
    /// # Errors
    /// As [`Engine::plan_chain`], [`Refused::NoTime`] for a task that ends before it begins, [`Refused::Full`] for a
    /// group with 32 tasks, and [`Refused::PlanBehind`] where ticks have not caught up with an outage yet; nothing has changed.
    pub fn start_chain(&mut self, now: Timestamp, chain: &Chain, task: &ChainTask) -> Result<ChainVerdict, Refused> {
        self.check_plan(self.plan_start(now.max(self.now)))?;
        let plan = self.plan_chain(now, chain, task)?;
        if task.until <= task.from {
            return Err(Refused::NoTime(task.id));
        }
        let now = self.lift(now);
        let kept = |held: &Held| held.task != task.id && now < held.until;
        let full = |group: &GroupId| {
            let place = self.place(*group).ok()?;
            Some(self.slots[place].state.tasks().iter().filter(|held| kept(held)).count() >= MAX_TASKS)
        };
        if task.wanted.iter().any(|(group, _)| full(group) == Some(true)) {
            return Err(Refused::Full(MAX_TASKS));
        }
        if task.grant == Grant::Atomic && !plan.is_whole() {
            return Ok(ChainVerdict::Refused(plan));
        }
        for step in &plan.steps {
            let named = task.wanted.iter().any(|(group, _)| *group == step.group);
            if let Some(at) = self.place(step.group).ok().filter(|_| named) {
                let (count, from, until) = (step.wanted.min(step.granted), task.from, task.until);
                let held = Held { task: task.id, count, from, until };
                let tasks = &mut self.slots[at].state.more.get_or_insert_default().chain;
                tasks.retain(kept);
                tasks.push(held);
                self.plan_chains(now, at);
                self.due[at] = Timestamp::ZERO;
            }
        }
        Ok(ChainVerdict::Started(plan))
    }

    /// Ends a task for a chain before its time, and returns the number of groups that it held.
    ///
    /// Its floors are gone, and the instances that they held leave through each group's behaviour.
    pub fn end_chain(&mut self, now: Timestamp, task: TaskId) -> usize {
        let now = self.lift(now);
        let mut ended = 0;
        for at in 0..self.slots.len() {
            if self.slots[at].state.tasks().iter().any(|held| held.task == task) {
                if let Some(more) = &mut self.slots[at].state.more {
                    more.chain.retain(|held| held.task != task);
                }
                self.due[at] = Timestamp::ZERO;
                self.plan_chains(now, at);
                ended += 1;
            }
        }
        ended
    }
}

impl Drawing<'_> {
    fn delivered(&self, group: GroupId) -> Result<u32, Refused> {
        let at = self.engine.place(group).map_err(|_| Refused::NoGroup(group))?;
        Ok(self.engine.slots[at].inputs().delivered())
    }

    /// Counts what `count` instances of a service ask of those that it calls, in place of what `before` did.
    fn ask(&mut self, link: &Link, count: u32, before: u32) {
        for call in self.chain.calls_of(link.group) {
            let of = |count| share(times(link.per_instance, count), call.permille).as_thousandths();
            let asked = self.asked.entry(call.callee).or_default();
            *asked =
                Milli::from_thousandths(asked.as_thousandths().saturating_add(of(count)).saturating_sub(of(before)));
        }
    }

    fn step(&mut self, link: &Link, wanted: Option<u32>, now: Timestamp) -> Result<ChainStep, Refused> {
        let group = link.group;
        let at = self.engine.place(group).map_err(|_| Refused::NoGroup(group))?;
        let slot = &self.engine.slots[at];
        let before = slot.inputs().delivered();
        let wanted = wanted.unwrap_or(before);
        let mut granted = wanted.max(before);
        let mut held_back = None;
        let max = slot.group.policy().max.max(before);
        if granted > max {
            (granted, held_back) = (max, Some(HeldBack::Maximum(max)));
        }
        if let Some((most, callee)) = self.carried(link, before).filter(|(most, _)| *most < granted) {
            let carries = self.carries.get(&callee).copied().unwrap_or(Milli::ZERO);
            (granted, held_back) = (most.max(before), Some(HeldBack::Callee { callee, carries }));
        }
        let named = self.task.wanted.iter().any(|(other, _)| *other == group);
        if named {
            let (most, over) = self.planned(at, wanted.min(granted), now);
            if most < wanted.min(granted) {
                (granted, held_back) = (most.max(before), Some(HeldBack::Admitted(over)));
            }
        }
        if granted > before {
            let mut allotment = Allotment::default();
            let (room, of) = self.quotas.room(slot.traffic.tenant);
            let asked = granted - before;
            grow(&self.ledger, &slot.traffic, &slot.holdings, asked.min(room), now, &mut allotment);
            for (pool, count) in &allotment.lent {
                self.ledger.lend(*pool, slot.traffic.shape, *count);
                self.quotas.take(slot.traffic.tenant, *count);
            }
            let missing = allotment.missing + asked.saturating_sub(room);
            if missing > 0 {
                let refusal = of.filter(|_| room < asked).map(Refusal::Quota).or(allotment.refusal);
                held_back = Some(HeldBack::Short { causes: allotment.causes.to_vec(), refusal });
                granted -= missing;
            }
        }
        if named {
            let held = self.held(wanted.min(granted));
            self.engine.add_task(now, at, held, &mut self.added);
        }
        self.ask(link, granted, before);
        let carries = times(link.per_instance, granted);
        self.carries.insert(group, link.limit.map_or(carries, |limit| limit.min(carries)));
        Ok(ChainStep { group, before, wanted, granted, held_back })
    }

    fn held(&self, count: u32) -> Held {
        Held { task: self.task.id, count, from: self.task.from, until: self.task.until }
    }

    /// Up to how many instances of a service the plan leaves over the time of the task, and which pools say so.
    fn planned(&self, at: usize, wanted: u32, now: Timestamp) -> (u32, Vec<PoolWitness>) {
        let over = |count| self.engine.over_with_task(now, at, self.held(count), &self.added);
        let witness = over(wanted);
        if witness.is_empty() {
            return (wanted, witness);
        }
        let (mut low, mut high) = (0, wanted);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if over(middle).is_empty() { low = middle } else { high = middle }
        }
        (low, witness)
    }

    /// How many instances of a service those that it calls carry, and which of them says so.
    fn carried(&self, link: &Link, before: u32) -> Option<(u32, GroupId)> {
        let of = |call: &super::Call| {
            let one = share(link.per_instance, call.permille).at_least_zero();
            let carries = self.carries.get(&call.callee).copied().unwrap_or(Milli::ZERO).as_thousandths();
            let asked = self.asked.get(&call.callee).copied().unwrap_or(Milli::ZERO).as_thousandths();
            let spare = u64::try_from(carries.saturating_sub(asked)).unwrap_or(0);
            let more = spare.checked_div(one).map_or(u32::MAX, |more| u32::try_from(more).unwrap_or(u32::MAX));
            (before.saturating_add(more), call.callee)
        };
        self.chain.calls_of(link.group).map(of).min()
    }
}
