//! Costs: instance-hours by tenant and pool, at the price that each pool had then, rolled up along the service tree.
//!
//! An instance counts from its launch to when it is gone: that is what a cloud bills.

use alloc::vec::Vec;

use crate::Timestamp;
use crate::engine::{Engine, Slot};
use crate::id::{PoolId, TenantId};

const HOUR_MS: u128 = 3_600_000;

/// The cost of one tenant in one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cost {
    /// The tenant; `None` for the sum of tenants that have been forgotten.
    pub tenant: Option<TenantId>,
    /// The pool.
    pub pool: PoolId,
    /// The number of instances that it has now.
    pub instances: u32,
    /// The instance-milliseconds used so far.
    pub instance_ms: u128,
    /// The cost in thousandths of the host's currency, times the milliseconds of an hour, so that no fraction is lost.
    price_ms: u128,
    /// The time up to which the cost is counted.
    pub until: Timestamp,
}

impl Cost {
    /// The cost in thousandths of the host's currency.
    #[must_use]
    pub const fn cost(&self) -> u128 {
        self.price_ms / HOUR_MS
    }

    /// The instance-hours used so far, a begun one counted in full.
    #[must_use]
    pub const fn instance_hours(&self) -> u128 {
        self.instance_ms.div_ceil(HOUR_MS)
    }

    fn key(&self) -> (Option<TenantId>, PoolId) {
        (self.tenant, self.pool)
    }

    fn run(&mut self, now: Timestamp, price: u64) {
        let spent = u128::from(self.instances) * u128::from(now.millis_since(self.until));
        self.instance_ms = self.instance_ms.saturating_add(spent);
        self.price_ms = self.price_ms.saturating_add(spent.saturating_mul(u128::from(price)));
        self.until = self.until.max(now);
    }

    fn take_over(&mut self, other: &Self) {
        self.instance_ms = self.instance_ms.saturating_add(other.instance_ms);
        self.price_ms = self.price_ms.saturating_add(other.price_ms);
        self.instances = self.instances.saturating_add(other.instances);
    }
}

/// In the order of tenants and pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Costs(Vec<Cost>);

impl Costs {
    fn line(&mut self, tenant: Option<TenantId>, pool: PoolId, now: Timestamp) -> &mut Cost {
        let at = self.0.binary_search_by_key(&(tenant, pool), Cost::key).unwrap_or_else(|at| {
            self.0.insert(at, Cost { tenant, pool, instances: 0, instance_ms: 0, price_ms: 0, until: now });
            at
        });
        &mut self.0[at]
    }

    /// The tenant has `added` more of the pool and `gone` fewer from now on.
    pub(crate) fn change(
        &mut self,
        (tenant, pool, price): (TenantId, PoolId, u64),
        now: Timestamp,
        added: u32,
        gone: u32,
    ) {
        let line = self.line(Some(tenant), pool, now);
        line.run(now, price);
        line.instances = line.instances.saturating_add(added).saturating_sub(gone);
    }

    /// After the clock went back to `now`: what was counted for later is taken back, as of what there is now.
    pub(crate) fn rewind(&mut self, now: Timestamp, price: impl Fn(PoolId) -> u64) {
        for line in self.0.iter_mut().filter(|line| line.until > now) {
            let over = u128::from(line.instances) * u128::from(line.until.millis_since(now));
            line.instance_ms = line.instance_ms.saturating_sub(over);
            line.price_ms = line.price_ms.saturating_sub(over.saturating_mul(u128::from(price(line.pool))));
            line.until = now;
        }
    }

    /// The price of a pool is about to change.
    pub(crate) fn close(&mut self, pool: PoolId, price: u64, now: Timestamp) {
        self.0.iter_mut().filter(|line| line.pool == pool).for_each(|line| line.run(now, price));
    }

    /// With too many lines, those of tenants that have nothing any more are put together.
    pub(crate) fn keep_to(&mut self, limit: usize, now: Timestamp) {
        while self.0.len() > limit {
            let idle = |line: &Cost| line.tenant.is_some() && line.instances == 0;
            let Some(at) = self.0.iter().position(idle) else { return };
            let old = self.0.remove(at);
            let line = self.line(None, old.pool, now);
            line.take_over(&old);
        }
    }

    /// Whether what it says tenants have is what they have.
    pub(crate) fn fits<'a>(&self, slots: impl Iterator<Item = &'a Slot>) -> bool {
        let mut held = alloc::collections::BTreeMap::<(Option<TenantId>, PoolId), u64>::new();
        for slot in slots {
            for holding in slot.holdings.iter().filter(|holding| holding.all() > 0) {
                *held.entry((Some(slot.traffic.tenant), holding.pool)).or_default() += u64::from(holding.all());
            }
        }
        let told = self.0.iter().filter(|line| line.instances > 0).map(|line| (line.key(), u64::from(line.instances)));
        told.eq(held) && self.0.windows(2).all(|two| two[0].key() < two[1].key())
    }
}

impl Engine {
    /// The costs of each tenant in each pool, up to `now`.
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
    /// engine.handle_timeout(now); // launches the policy's minimum, one instance
    /// let hour = now.after_millis(3_600_000);
    /// assert_eq!(engine.costs(hour)[0].cost(), 250); // the pool's price of an instance-hour
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn costs(&self, now: Timestamp) -> Vec<Cost> {
        let price = |pool| self.ledger.account(pool).map_or(0, |account| account.pool.price);
        let mut lines = self.costs.0.clone();
        for line in &mut lines {
            line.run(now.max(self.now), price(line.pool));
        }
        lines
    }

    /// The costs of a tenant and of all below it in the service tree, in each pool, up to `now`.
    ///
    /// The tree is that of the quotas.
    #[must_use]
    pub fn cost_of(&self, now: Timestamp, tenant: TenantId) -> Vec<Cost> {
        let mut sums = Costs::default();
        for line in self.costs(now) {
            if line.tenant.is_some_and(|of| of == tenant || self.quotas.is_under(of, tenant)) {
                sums.line(Some(tenant), line.pool, line.until).take_over(&line);
            }
        }
        sums.0
    }
}
