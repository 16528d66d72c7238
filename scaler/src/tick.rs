//! One tick over all groups: recall what leases have ended, decide, release, and share out what there is.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Reverse;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::allot::{Allotment, Grant, Holding, Refusal, even_out, grow, shrink};
use crate::config::Skip;
use crate::decide::{Haste, decide_with, step};
use crate::effect::{Effect, Progress, Request, RequestKind};
use crate::engine::{Engine, Move, Slot, inputs};
use crate::id::{PoolId, RequestId, ShapeId, VersionId};
use crate::record::{Decision, Record};

/// A launch in the order in which launches are cancelled: whether its pool is sound, when it was asked, its pool, its id,
/// and how many instances it has on their way.
type Youngest = (bool, Reverse<Timestamp>, PoolId, RequestId, u32);

/// A group that wants more than it has.
struct Asking {
    rank: u8,
    at: usize,
    count: u32,
    decision: Option<Decision>,
}

impl Engine {
    /// Runs a tick: decides every group whose answer may have changed, and emits the effects. Before the tick is due,
    /// does nothing.
    ///
    /// A late tick is taken at `now`; the next one falls on the next multiple of the period. Pass the reading of one clock
    /// that is meant to go forward, such as the machine's time kept by NTP. A single wrong reading takes nothing away, and
    /// ticks go on with the second reading after it that is right.
    ///
    /// ```
    /// # use tenon_scaler::strategy::{QueueLength, Strategy};
    /// # use tenon_scaler::{Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Policy, Pool, PoolId, PoolKind};
    /// # use tenon_scaler::{ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, TenantId, Timestamp, Traffic, VersionId};
    /// # let now = Timestamp::from_millis(1_000_000);
    /// # let mut engine = Engine::new(Config::builder().build()?);
    /// # let (group, depth, shape, tenant, release) = (GroupId(1), MetricId(1), ShapeId(1), TenantId(1), ReleaseId(1));
    /// # let (kind, watermark) = (PoolKind::Resident, tenon_scaler::Watermark::default());
    /// # let pool = Pool { id: PoolId(1), kind, idc: IdcId(1), price: 250, watermark, stock: vec![(shape, 10)] };
    /// # engine.put_pool(now, pool)?;
    /// # engine.put_release(now, release, VersionId(42));
    /// # let traffic = Traffic { id: group, idcs: vec![], tenant, release, shape };
    /// # let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(4) });
    /// # let metrics = vec![Metric { id: depth, stale_after_ms: 60_000, when_stale: Staleness::ForbidIn }];
    /// # let rules = vec![Rule { id: RuleId(1), kind: RuleKind::Metric(depth, queue) }];
    /// # engine.put_group(now, traffic, Policy { min: 1, max: 8, metrics, rules, ..Policy::default() })?;
    /// engine.handle_sample(now, group, depth, now, Some(Milli::from_units(19))); // nineteen jobs wait
    /// engine.handle_timeout(now);
    /// let Some(Effect::Launch { count, .. }) = engine.poll_effect() else { panic!("the group grows") };
    /// assert_eq!(count, 5); // one instance for four jobs
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let Some((now, haste)) = self.read_clock(now) else { return };
        self.moves.clear();
        self.crossings.clear();
        if haste == Haste::Usual {
            self.recall(now);
            self.expire(now);
            self.roll_plan(now);
        }
        let mut asking = self.decide_all(now, haste);
        asking.sort_unstable_by_key(|asking| (asking.rank, asking.at));
        for Asking { at, count, decision, .. } in asking {
            self.share_out(now, at, count, decision);
        }
        self.ledger.crossings(&mut self.crossings);
        self.last_tick = Some(now);
        self.forget_drained();
    }

    /// Gives back what stands in pools whose lease is over.
    fn recall(&mut self, now: Timestamp) {
        if !self.ledger.has_overdue(now) {
            return;
        }
        for at in 0..self.slots.len() {
            let overdue: SmallVec<[(PoolId, u32); 2]> = self.slots[at]
                .holdings
                .iter()
                .filter(|held| held.ready > 0 && self.ledger.account(held.pool).is_some_and(|pool| pool.is_over(now)))
                .map(|held| (held.pool, held.ready))
                .collect();
            for (pool, count) in overdue {
                self.release(now, at, pool, count);
            }
        }
    }

    /// Counts what has been starting for too long as failed: it is cancelled, and no longer counts as on its way. Where
    /// nothing that was asked of the pool since has come, nothing that is starting there is counted on any more.
    fn expire(&mut self, now: Timestamp) {
        while let Some((id, held)) = self.requests.range(self.young_from..).next() {
            let (id, held) = (*id, *held);
            if held.starting() > 0 {
                if held.at.after_millis(self.config.launch_deadline_ms) > now {
                    return;
                }
                self.counters.overdue += 1;
                if let Ok(at) = self.place(held.group) {
                    let shape = self.slots[at].traffic.shape;
                    let hangs = self.ledger.hangs(held.pool, shape, held.at);
                    self.ledger.strike(held.pool, shape, now, self.config.back_off);
                    self.cancel(now, at, id, held.starting());
                    if hangs {
                        self.give_up(now, held.pool, shape);
                    }
                }
            }
            // A launch with nothing on its way never has anything on its way again.
            self.young_from = RequestId(id.0.saturating_add(1));
        }
    }

    /// Cancels all that is starting in a pool.
    fn give_up(&mut self, now: Timestamp, pool: PoolId, shape: ShapeId) {
        let open = self.requests.range(self.young_from..).filter(|(_, held)| held.pool == pool && held.starting() > 0);
        let open: Vec<(RequestId, Request)> = open.map(|(id, held)| (*id, *held)).collect();
        for (id, held) in open {
            if let Some(at) = self.place(held.group).ok().filter(|at| self.slots[*at].traffic.shape == shape) {
                self.cancel(now, at, id, held.starting());
            }
        }
    }

    fn decide_all(&mut self, now: Timestamp, haste: Haste) -> Vec<Asking> {
        let mut asking = Vec::new();
        let keep = self.keeps_records();
        let all = self.config.skip == Skip::Nothing;
        for at in 0..self.slots.len() {
            if self.due[at] > now && !all {
                continue;
            }
            self.counters.decided += 1;
            let slot = &mut self.slots[at];
            if let Some(last) = self.last_tick {
                // The ticks that were passed over would have wanted what the last decision wanted.
                slot.state.coast(&slot.group.policy().behavior, last);
            }
            let inputs = inputs(&slot.holdings, &slot.samples, slot.fleet.as_deref());
            let before = keep.then(|| slot.state.clone());
            let (was, adopted) = (slot.state.target(), slot.state.has_adopted());
            let brief = step(&slot.group, &mut slot.state, &inputs, now, haste, &mut ());
            let delivered = inputs.delivered();
            let changed = brief.target != was || brief.target != delivered || adopted;
            let decision =
                before.filter(|_| changed).map(|before| decide_with(&slot.group, &before, &inputs, now, haste).0);
            // What a rule counts as delivered follows from the target, too: a new one is looked at once more.
            self.due[at] = if brief.target == was { brief.next_change } else { Timestamp::ZERO };
            if brief.target != was {
                let (group, after, reason) = (slot.traffic.id, brief.target, brief.reason);
                self.moves.push(Move { group, before: was, after, reason });
            }
            if brief.target > delivered {
                let rank = slot.group.policy().rank;
                asking.push(Asking { rank, at, count: brief.target - delivered, decision });
            } else if brief.target < delivered {
                self.take_in(now, at, delivered - brief.target, decision);
            } else if let Some(decision) = decision {
                self.keep_record(at, decision, Allotment::default());
            }
        }
        asking
    }

    /// Takes `count` instances of a group back: those that are starting first, so that those that serve are never fewer
    /// than the target.
    fn take_in(&mut self, now: Timestamp, at: usize, count: u32, decision: Option<Decision>) {
        let mut allotment = Allotment::default();
        let early = self.cancel_youngest(now, at, count, &mut allotment);
        let slot = &self.slots[at];
        let rooms: SmallVec<[(PoolId, u32); 4]> = slot.holdings.iter().map(|held| (held.pool, held.ready)).collect();
        let mut returned = SmallVec::new();
        shrink(&self.ledger, &slot.traffic, &slot.holdings, &rooms, count - early, &mut returned);
        for (pool, count) in returned {
            if self.requests.len() < self.config.max_requests {
                self.release(now, at, pool, count);
                allotment.returned.push((pool, count));
            } else {
                allotment.refusal = Some(Refusal::Busy);
                allotment.waiting += count;
            }
        }
        if allotment.waiting > 0 {
            self.due[at] = Timestamp::ZERO;
        }
        if let Some(decision) = decision {
            self.keep_record(at, decision, allotment);
        }
    }

    /// Cancels up to `count` of the instances that a group has starting: first those of pools whose launches failed of late,
    /// then those that were asked for last, so that what is nearest to serving stays. Returns how many there were.
    fn cancel_youngest(&mut self, now: Timestamp, at: usize, count: u32, allotment: &mut Allotment) -> u32 {
        let slot = &self.slots[at];
        let shape = slot.traffic.shape;
        let mut launches: SmallVec<[Youngest; 4]> = SmallVec::new();
        for id in &slot.launches {
            if let Some(held) = self.requests.get(id).filter(|held| held.starting() > 0) {
                let sound = self.ledger.account(held.pool).is_none_or(|account| !account.is_on_trial(shape, now));
                launches.push((sound, Reverse(held.at), held.pool, *id, held.starting()));
            }
        }
        launches.sort_unstable();
        let mut left = count;
        let mut rest = &launches[..];
        while let Some(first) = rest.first().filter(|_| left > 0) {
            let batch = rest.partition_point(|launch| (launch.0, launch.1) <= (first.0, first.1));
            let (alike, others) = rest.split_at(batch);
            rest = others;
            let slot = &self.slots[at];
            // In the order of their pools: launches of one pool are one room, also where a clock that went back has made
            // them of one age.
            let mut rooms: SmallVec<[(PoolId, u32); 4]> = SmallVec::new();
            for (_, _, pool, _, starting) in alike {
                match rooms.last_mut().filter(|(last, _)| last == pool) {
                    Some((_, room)) => *room += starting,
                    None => rooms.push((*pool, *starting)),
                }
            }
            let mut going = SmallVec::new();
            left -= shrink(&self.ledger, &slot.traffic, &slot.holdings, &rooms, left, &mut going);
            for (pool, mut share) in going {
                match allotment.cancelled.iter_mut().find(|(held, _)| *held == pool) {
                    Some((_, sum)) => *sum += share,
                    None => allotment.cancelled.push((pool, share)),
                }
                for (_, _, _, id, starting) in alike.iter().rev().filter(|launch| launch.2 == pool) {
                    let part = share.min(*starting);
                    share -= part;
                    self.cancel(now, at, *id, part);
                }
            }
        }
        count - left
    }

    /// Cancels `count` of the instances that a launch has on their way.
    fn cancel(&mut self, now: Timestamp, at: usize, id: RequestId, count: u32) {
        let Some(request) = self.requests.get_mut(&id).filter(|_| count > 0) else { return };
        request.keep = request.came.done + request.starting() - count;
        let (keep, pool) = (request.keep, request.pool);
        let slot = &mut self.slots[at];
        for held in slot.holdings.iter_mut().filter(|held| held.pool == pool) {
            (held.starting, held.leaving, held.since) = (held.starting - count, held.leaving + count, now);
        }
        self.quotas.give_back(slot.traffic.tenant, count);
        self.effects.push_back(Effect::Cancel { request: id, group: slot.traffic.id, pool, keep });
        self.due[at] = Timestamp::ZERO;
    }

    /// Launches as many of `count` instances as pools have.
    fn share_out(&mut self, now: Timestamp, at: usize, count: u32, decision: Option<Decision>) {
        let slot = &self.slots[at];
        let mut allotment =
            Allotment { version: self.releases.get(&slot.traffic.release).copied(), ..Allotment::default() };
        if let Some(version) = allotment.version {
            let (room, of) = self.quotas.room(slot.traffic.tenant);
            let allowed = count.min(room);
            grow(&self.ledger, &slot.traffic, &slot.holdings, allowed, now, &mut allotment);
            if let Some(tenant) = of.filter(|_| allowed < count) {
                allotment.missing += count - allowed;
                allotment.refusal = Some(Refusal::Quota(tenant));
            }
            let policy = slot.group.policy();
            if let Some(skew) = policy.skew {
                even_out(&self.ledger, &slot.traffic, &slot.holdings, skew, &mut allotment);
            }
            if policy.grant == Grant::Atomic && allotment.missing > 0 {
                allotment.lent.clear();
                allotment.missing = count;
            }
            let lent = core::mem::take(&mut allotment.lent);
            for (pool, count) in lent {
                if self.requests.len() < self.config.max_requests {
                    self.launch(now, at, pool, version, count);
                    allotment.lent.push((pool, count));
                } else {
                    allotment.refusal = Some(Refusal::Busy);
                    allotment.missing += count;
                }
            }
        } else {
            (allotment.missing, allotment.refusal) = (count, Some(Refusal::NoVersion));
        }
        if allotment.missing > 0 {
            self.due[at] = Timestamp::ZERO;
        }
        if let Some(decision) = decision {
            self.keep_record(at, decision, allotment);
        }
    }

    fn keep_record(&mut self, at: usize, decision: Decision, allotment: Allotment) {
        let slot = &mut self.slots[at];
        let record = Record { group: slot.traffic.id, decision, allotment };
        debug_assert_eq!(record.verify(), Ok(()), "a record follows from its own numbers");
        slot.record = Some(Box::new(record));
    }

    fn ask(&mut self, now: Timestamp, at: usize, pool: PoolId, kind: RequestKind, count: u32) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let group = self.slots[at].traffic.id;
        let request = Request { group, pool, kind, at: now, count, keep: count, came: Progress::default() };
        self.requests.insert(id, request);
        self.due[at] = Timestamp::ZERO;
        id
    }

    fn launch(&mut self, now: Timestamp, at: usize, pool: PoolId, version: VersionId, count: u32) {
        let request = self.ask(now, at, pool, RequestKind::Launch, count);
        let slot = &mut self.slots[at];
        let (group, shape) = (slot.traffic.id, slot.traffic.shape);
        if !slot.holdings.iter().any(|held| held.pool == pool) {
            slot.holdings.push(Holding { pool, starting: 0, ready: 0, leaving: 0, since: now });
        }
        for held in slot.holdings.iter_mut().filter(|held| held.pool == pool) {
            (held.starting, held.since) = (held.starting + count, now);
        }
        slot.launches.push(request);
        self.ledger.lend(pool, shape, count);
        self.quotas.take(slot.traffic.tenant, count);
        let price = self.ledger.account(pool).map_or(0, |account| account.pool.price);
        self.costs.change((slot.traffic.tenant, pool, price), now, count, 0);
        self.costs.keep_to(self.config.max_groups, now);
        self.effects.push_back(Effect::Launch { request, group, pool, shape, version, count });
    }

    fn release(&mut self, now: Timestamp, at: usize, pool: PoolId, count: u32) {
        let request = self.ask(now, at, pool, RequestKind::Release, count);
        let slot = &mut self.slots[at];
        for held in slot.holdings.iter_mut().filter(|held| held.pool == pool) {
            (held.ready, held.leaving, held.since) = (held.ready - count, held.leaving + count, now);
        }
        self.quotas.give_back(slot.traffic.tenant, count);
        self.effects.push_back(Effect::Release { request, group: slot.traffic.id, pool, count });
    }

    /// Forgets groups whose traffic is gone and whose last instance is.
    fn forget_drained(&mut self) {
        let gone = |slot: &Slot| slot.state.is_draining() && slot.state.target() == 0 && slot.holdings.is_empty();
        if self.draining > 0 && self.slots.iter().any(gone) {
            self.slots.retain(|slot| !gone(slot));
            self.due.clear();
            self.due.resize(self.slots.len(), Timestamp::ZERO);
            self.draining = self.slots.iter().filter(|slot| slot.state.is_draining()).count();
        }
    }
}
