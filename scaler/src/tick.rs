//! One tick over all groups: recall what leases have ended, decide, release, and share out what there is.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::allot::{Allotment, Grant, Holding, Refusal, even_out, grow, shrink};
use crate::config::Skip;
use crate::decide::{decide, step};
use crate::effect::{Effect, Request, RequestKind};
use crate::engine::{Engine, Move, Slot, inputs};
use crate::id::{PoolId, RequestId, VersionId};
use crate::record::{Decision, Record};

/// A group that wants more than it has.
struct Asking {
    rank: u8,
    at: usize,
    count: u32,
    decision: Option<Decision>,
}

impl Engine {
    /// Decides every group whose answer may have changed, and emits what follows. Before the tick is due, nothing.
    ///
    /// A late tick is taken at `now`; the next one falls on the next multiple of the period.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let now = self.lift(now);
        if now < self.next_tick {
            return;
        }
        let period = self.config.tick_ms;
        self.next_tick = Timestamp::from_millis(now.as_millis() - now.as_millis() % period).after_millis(period);
        self.moves.clear();
        self.recall(now);
        let mut asking = self.decide_all(now);
        asking.sort_unstable_by_key(|asking| (asking.rank, asking.at));
        for Asking { at, count, decision, .. } in asking {
            self.share_out(now, at, count, decision);
        }
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

    fn decide_all(&mut self, now: Timestamp) -> Vec<Asking> {
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
            let was = slot.state.target();
            let brief = step(&slot.group, &mut slot.state, &inputs, now, &mut ());
            let delivered = inputs.delivered();
            let changed = brief.target != was || brief.target != delivered;
            let decision = before.filter(|_| changed).map(|before| decide(&slot.group, &before, &inputs, now).0);
            // What a rule counts as delivered follows from the target, too: a new one is looked at once more.
            self.due[at] = if brief.target == was { brief.next_change } else { Timestamp::ZERO };
            if brief.target != was {
                self.moves.push(Move { group: slot.traffic.id, before: was, after: brief.target });
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

    /// Returns `count` instances of a group that serve; those that have not started yet wait.
    fn take_in(&mut self, now: Timestamp, at: usize, count: u32, decision: Option<Decision>) {
        let slot = &self.slots[at];
        let mut allotment = Allotment::default();
        shrink(&self.ledger, &slot.traffic, &slot.holdings, count, &mut allotment);
        let returned = core::mem::take(&mut allotment.returned);
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

    fn request(&mut self, at: usize, pool: PoolId, kind: RequestKind, count: u32) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let group = self.slots[at].traffic.id;
        self.requests.insert(id, Request { group, pool, kind, count, done: 0, failed: 0 });
        self.due[at] = Timestamp::ZERO;
        id
    }

    fn launch(&mut self, now: Timestamp, at: usize, pool: PoolId, version: VersionId, count: u32) {
        let request = self.request(at, pool, RequestKind::Launch, count);
        let slot = &mut self.slots[at];
        let (group, shape) = (slot.traffic.id, slot.traffic.shape);
        if !slot.holdings.iter().any(|held| held.pool == pool) {
            slot.holdings.push(Holding { pool, starting: 0, ready: 0, leaving: 0, since: now });
        }
        for held in slot.holdings.iter_mut().filter(|held| held.pool == pool) {
            (held.starting, held.since) = (held.starting + count, now);
        }
        self.ledger.lend(pool, shape, count);
        self.quotas.take(slot.traffic.tenant, count);
        let price = self.ledger.account(pool).map_or(0, |account| account.pool.price);
        self.costs.change((slot.traffic.tenant, pool, price), now, count, 0);
        self.costs.keep_to(self.config.max_groups, now);
        self.effects.push_back(Effect::Launch { request, group, pool, shape, version, count });
    }

    fn release(&mut self, now: Timestamp, at: usize, pool: PoolId, count: u32) {
        let request = self.request(at, pool, RequestKind::Release, count);
        let slot = &mut self.slots[at];
        for held in slot.holdings.iter_mut().filter(|held| held.pool == pool) {
            (held.ready, held.leaving, held.since) = (held.ready - count, held.leaving + count, now);
        }
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
