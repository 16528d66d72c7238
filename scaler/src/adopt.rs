//! Adoption: taking over instances that run already, after a start without a snapshot, or where a census finds more
//! than the ledger knows.

use alloc::collections::BTreeMap;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::allot::{Allotment, Holding, grow, shrink};
use crate::engine::Engine;
use crate::error::Refused;
use crate::id::{GroupId, IdcId, PoolId, ShapeId, VersionId};
use crate::record::Adopted;

/// Running instances of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The group that the instances serve.
    pub group: GroupId,
    /// The pool that the instances stand in.
    pub pool: PoolId,
    /// The data centre that the instances stand in: that of the pool.
    pub idc: IdcId,
    /// The image that the instances run.
    pub version: VersionId,
    /// The number of instances.
    pub count: u32,
}

impl Engine {
    /// Takes over instances that run already, so that they are not launched a second time.
    ///
    /// Call it once the pools and groups are put, and before the first tick. A group's target becomes what runs; its
    /// next decision says what was taken over and goes on from there, through the group's behaviour.
    ///
    /// What the engine knows of already (instances that serve, and those that launches have under way) is not counted twice,
    /// so that asking again changes nothing. Returns how many instances were taken over.
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
    /// use tenon_scaler::Running;
    ///
    /// let running = Running { group, pool: PoolId(1), idc: IdcId(1), version: VersionId(42), count: 3 };
    /// engine.adopt(now, &[running])?;
    /// assert_eq!(engine.holdings(group)[0].ready, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Refused::NoGroup`], [`Refused::NoPool`], [`Refused::WrongIdc`], [`Refused::NoShape`], or
    /// [`Refused::MoreThanStock`] where more run than a pool has; nothing has changed.
    pub fn adopt(&mut self, now: Timestamp, running: &[Running]) -> Result<u32, Refused> {
        let mut told: BTreeMap<(GroupId, PoolId), u32> = BTreeMap::new();
        for one in running {
            let sum = told.entry((one.group, one.pool)).or_default();
            *sum = sum.saturating_add(one.count);
            let account = self.ledger.account(one.pool).ok_or(Refused::NoPool(one.pool))?;
            if account.pool.idc != one.idc {
                return Err(Refused::WrongIdc { pool: one.pool, idc: account.pool.idc, told: one.idc });
            }
        }
        let mut asked: BTreeMap<(PoolId, ShapeId), u32> = BTreeMap::new();
        for ((group, pool), count) in &mut told {
            let place = self.place(*group).map_err(|_| Refused::NoGroup(*group))?;
            let shape = self.slots[place].traffic.shape;
            let free = self.stock(*pool, shape).ok_or(Refused::NoShape { pool: *pool, shape })?.free();
            *count -= self.known(place, *pool).min(*count);
            let sum = asked.entry((*pool, shape)).or_default();
            *sum = sum.saturating_add(*count);
            if *sum > free {
                return Err(Refused::MoreThanStock { pool: *pool, shape, free, running: *sum });
            }
        }
        let now = self.lift(now);
        let mut all = 0_u32;
        for ((group, pool), found) in told {
            let Ok(place) = self.place(group) else { continue };
            let mut left = found;
            let mut lines: SmallVec<[Adopted; 0]> = SmallVec::new();
            // What is known already is taken to be what was told first.
            for one in running.iter().rev().filter(|one| (one.group, one.pool) == (group, pool)) {
                let count = one.count.min(left);
                left -= count;
                if count > 0 {
                    lines.push(Adopted { pool, idc: one.idc, version: Some(one.version), count });
                }
            }
            lines.reverse();
            self.take_over(now, place, pool, found);
            self.slots[place].state.adopt(lines, found);
            all = all.saturating_add(found);
        }
        Ok(all)
    }

    /// The number of a group's instances in a pool that the engine knows: those that serve, and those of its launches.
    fn known(&self, place: usize, pool: PoolId) -> u32 {
        let slot = &self.slots[place];
        let ready = slot.holdings.iter().find(|held| held.pool == pool).map_or(0, |held| held.ready);
        let launches = slot.launches.iter().filter_map(|id| self.requests.get(id)).filter(|held| held.pool == pool);
        launches.fold(ready, |sum, held| sum.saturating_add(held.open()))
    }

    /// A census counted `serving` instances of a group in a pool: those that nothing explains are found. As many as the pool
    /// has stock for enter the ledger; the group releases what it does not want.
    pub(crate) fn find(&mut self, now: Timestamp, place: usize, pool: PoolId, serving: u32) {
        let shape = self.slots[place].traffic.shape;
        let over = serving.saturating_sub(self.known(place, pool));
        let Some(account) = self.ledger.account(pool) else {
            self.counters.unknown += 1;
            return;
        };
        let idc = account.pool.idc;
        let free = self.stock(pool, shape).map_or(0, crate::pool::Stock::free);
        if over > free {
            self.counters.impossible += 1;
        }
        let found = over.min(free);
        if found == 0 {
            self.counters.late += u64::from(over == 0);
            return;
        }
        self.take_over(now, place, pool, found);
        let state = &mut self.slots[place].state;
        let line = Adopted { pool, idc, version: None, count: found };
        // A group that has been decided is to have what was decided.
        let raise = if state.is_decided() { 0 } else { found };
        state.adopt(SmallVec::from_iter([line]), raise);
    }

    /// A group of a rehearsal begins with `size` instances that serve, and remembers nothing of before.
    pub(crate) fn begin_with(&mut self, now: Timestamp, place: usize, size: u32) {
        let mut allotment = Allotment::default();
        let slot = &self.slots[place];
        let ready = slot.inputs().ready;
        if size > ready {
            grow(&self.ledger, &slot.traffic, &slot.holdings, size - ready, now, &mut allotment);
            for (pool, count) in allotment.lent {
                self.take_over(now, place, pool, count);
            }
        } else {
            let rooms: SmallVec<[(PoolId, u32); 4]> =
                slot.holdings.iter().map(|held| (held.pool, held.ready)).collect();
            let tenant = slot.traffic.tenant;
            shrink(&self.ledger, &slot.traffic, &slot.holdings, &rooms, ready - size, &mut allotment.returned);
            for (pool, count) in allotment.returned {
                for held in self.slots[place].holdings.iter_mut().filter(|held| held.pool == pool) {
                    held.ready -= count;
                }
                self.quotas.give_back(tenant, count);
                self.give_back(place, pool, count);
            }
        }
        let slot = &mut self.slots[place];
        slot.state = slot.state.forgetful(&slot.group, size);
        self.due[place] = Timestamp::ZERO;
    }

    pub(crate) fn take_over(&mut self, now: Timestamp, place: usize, pool: PoolId, count: u32) {
        if count == 0 {
            return;
        }
        let slot = &mut self.slots[place];
        if !slot.holdings.iter().any(|held| held.pool == pool) {
            slot.holdings.push(Holding { pool, starting: 0, ready: 0, leaving: 0, since: now });
        }
        for held in slot.holdings.iter_mut().filter(|held| held.pool == pool) {
            (held.ready, held.since) = (held.ready + count, now);
        }
        let (tenant, shape) = (slot.traffic.tenant, slot.traffic.shape);
        self.ledger.lend(pool, shape, count);
        self.quotas.take(tenant, count);
        let price = self.ledger.account(pool).map_or(0, |account| account.pool.price);
        self.costs.change((tenant, pool, price), now, count, 0);
        self.costs.keep_to(self.config.max_groups, now);
        self.due[place] = Timestamp::ZERO;
    }
}
