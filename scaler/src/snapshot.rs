//! Snapshots: the whole state of an engine as versioned plain data, and the checks that it is consistent.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::admit::{Plan, Planned};
use crate::allot::Holding;
use crate::config::Config;
use crate::cost::Costs;
use crate::effect::{Effect, Request, RequestKind};
use crate::engine::{Engine, Slot};
use crate::error::PolicyError;
use crate::group::{Fleet, Group, Policy, Traffic};
use crate::id::{GroupId, PoolId, ReleaseId, RequestId, ShapeId, TenantId, VersionId};
use crate::metric::Sample;
use crate::pool::Ledger;
use crate::quota::Quotas;
use crate::record::Record;
use crate::state::GroupState;

/// The format version of snapshots that [`Engine::snapshot`] writes, and the only one that [`Engine::restore`] reads.
pub const SNAPSHOT_VERSION: u16 = 1;

/// A snapshot of an [`Engine`], without its configuration, its counters and its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Snapshot {
    version: u16,
    last_tick: Option<Timestamp>,
    next_tick: Timestamp,
    groups: Vec<Saved>,
    ledger: Ledger,
    quotas: Quotas,
    costs: Costs,
    plan_start: u64,
    /// The sums follow from these.
    planned: BTreeMap<GroupId, Planned>,
    releases: BTreeMap<ReleaseId, VersionId>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    effects: VecDeque<Effect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Saved {
    traffic: Traffic,
    policy: Policy,
    state: GroupState,
    samples: SmallVec<[Option<Sample>; 2]>,
    fleet: Option<Box<Fleet>>,
    holdings: SmallVec<[Holding; 2]>,
    counted: Timestamp,
    record: Option<Box<Record>>,
}

/// Why a snapshot was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot has another format version.
    #[error("the snapshot has version {0}; this crate reads {SNAPSHOT_VERSION}")]
    Version(u16),
    /// Groups, pools or effects are out of order, listed twice, or more than the configuration allows.
    #[error("groups, pools or effects are out of order or too many")]
    Order,
    /// The configuration refuses the policy of a group.
    #[error("the policy of group {0} is invalid: {1}")]
    Policy(GroupId, PolicyError),
    /// The state of a group cannot have come from its policy.
    #[error("the state of group {0} does not fit its policy")]
    State(GroupId),
    /// The ledger is inconsistent: groups hold another number of instances than the pool has lent, or more than it has.
    #[error("groups hold another number of shape {1} in pool {0} than the pool has lent")]
    Ledger(PoolId, ShapeId),
    /// A quota is inconsistent: its use is not what the groups under it hold.
    #[error("the use of tenant {0}'s quota is not what its groups hold")]
    Quota(TenantId),
    /// The costs are inconsistent: they name other numbers of instances than groups hold.
    #[error("the costs name other numbers of instances than groups hold")]
    Costs,
    /// The requests are inconsistent: they have other numbers under way than groups have starting and leaving.
    #[error("the open requests of group {0} do not match its starting and leaving instances")]
    Requests(GroupId),
}

impl Snapshot {
    /// Lists the open requests. A host that restores the snapshot asks the cloud about them.
    ///
    /// The cloud must know them as long as the snapshot is kept.
    pub fn requests(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.requests.iter().map(|(id, request)| (*id, request))
    }
}

impl Engine {
    /// A snapshot of the engine. A restored copy behaves identically.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let saved = |slot: &Slot| {
            let mut state = slot.state.clone();
            if let Some(last) = self.last_tick {
                state.coast(&slot.group.policy().behavior, last);
            }
            Saved {
                traffic: slot.traffic.clone(),
                policy: slot.group.policy().clone(),
                state,
                samples: slot.samples.clone(),
                fleet: slot.fleet.clone(),
                holdings: slot.holdings.clone(),
                counted: slot.counted,
                record: slot.record.clone(),
            }
        };
        Snapshot {
            version: SNAPSHOT_VERSION,
            last_tick: self.last_tick,
            next_tick: self.next_tick,
            groups: self.slots.iter().map(saved).collect(),
            ledger: self.ledger.clone(),
            quotas: self.quotas.clone(),
            costs: self.costs.clone(),
            plan_start: self.plan.start,
            planned: self.plan.groups.clone(),
            releases: self.releases.clone(),
            requests: self.requests.clone(),
            next_request: self.next_request,
            effects: self.effects.clone(),
        }
    }

    /// Restores an engine, after checking that the snapshot is consistent.
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
    /// let copy = Engine::restore(Config::builder().build()?, engine.snapshot())?;
    /// assert_eq!(copy.snapshot(), engine.snapshot());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`RestoreError`] that names what does not fit; there is no engine then.
    pub fn restore(config: Config, snapshot: Snapshot) -> Result<Self, RestoreError> {
        if snapshot.version != SNAPSHOT_VERSION {
            return Err(RestoreError::Version(snapshot.version));
        }
        let mut engine = Self::new(config);
        for saved in snapshot.groups {
            let id = saved.traffic.id;
            let group = Group::new(saved.policy, &engine.config.zones, engine.config.limits)
                .map_err(|error| RestoreError::Policy(id, error))?;
            let metrics = group.policy().metrics.len();
            let fleet_fits = saved.fleet.as_ref().is_none_or(|fleet| fleet.is_sound(metrics));
            if !saved.state.is_sound(&group) || saved.samples.len() != metrics || !fleet_fits {
                return Err(RestoreError::State(id));
            }
            if engine.slots.last().is_some_and(|last| last.id() >= id) {
                return Err(RestoreError::Order);
            }
            engine.slots.push(Slot {
                traffic: saved.traffic,
                group,
                state: saved.state,
                samples: saved.samples,
                fleet: saved.fleet,
                holdings: saved.holdings,
                counted: saved.counted,
                launches: SmallVec::new(),
                record: saved.record,
            });
        }
        engine.due = alloc::vec![Timestamp::ZERO; engine.slots.len()];
        engine.draining = engine.slots.iter().filter(|slot| slot.state.is_draining()).count();
        engine.ledger = snapshot.ledger;
        engine.quotas = snapshot.quotas;
        engine.costs = snapshot.costs;
        engine.plan = Plan::rebuild(snapshot.plan_start, snapshot.planned, engine.config.slots)
            .filter(|plan| plan.groups.keys().all(|group| engine.place(*group).is_ok()))
            .ok_or(RestoreError::Order)?;
        engine.releases = snapshot.releases;
        engine.requests = snapshot.requests;
        engine.next_request = snapshot.next_request;
        engine.effects = snapshot.effects;
        for (id, held) in &engine.requests {
            if let Some(at) = engine.place(held.group).ok().filter(|_| held.kind == RequestKind::Launch) {
                engine.slots[at].launches.push(*id);
            }
        }
        let unasked = engine.effects.iter().find(|effect| effect.is_request()).map(Effect::request);
        engine.unasked_from = unasked.unwrap_or(RequestId(engine.next_request));
        (engine.last_tick, engine.next_tick) = (snapshot.last_tick, snapshot.next_tick);
        engine.check_order()?;
        engine.check_ledger()?;
        engine.check_requests()?;
        engine.check_quotas()?;
        Ok(engine)
    }

    fn check_order(&self) -> Result<(), RestoreError> {
        let Self { config, slots, ledger, requests, effects, next_request, .. } = self;
        let pools = &ledger.accounts;
        let next = RequestId(*next_request);
        let made = || effects.iter().filter(|effect| effect.is_request()).map(Effect::request);
        let sound = slots.len() <= config.max_groups
            && pools.len() <= config.max_pools
            && requests.len() <= config.max_requests
            && pools.windows(2).all(|two| two[0].pool.id < two[1].pool.id)
            && pools.iter().all(|account| {
                account.stock.len() == account.pool.stock.len()
                    && account
                        .stock
                        .iter()
                        .zip(&account.pool.stock)
                        .all(|(held, (shape, total))| (held.shape, held.total) == (*shape, *total))
            })
            && requests.keys().next_back().is_none_or(|last| *last < next)
            && made().zip(made().skip(1)).all(|(one, other)| one < other)
            && effects.iter().all(|effect| effect.request() < next)
            && made().all(|id| requests.contains_key(&id));
        if sound { Ok(()) } else { Err(RestoreError::Order) }
    }

    /// Checks that each quota's use is what the groups under it hold.
    fn check_quotas(&self) -> Result<(), RestoreError> {
        if !self.quotas.is_sound() || self.quotas.nodes.len() > self.config.max_groups {
            return Err(RestoreError::Order);
        }
        if !self.costs.fits(self.slots.iter()) {
            return Err(RestoreError::Costs);
        }
        let mut counted = self.quotas.clone();
        let held = |slot: &Slot| (slot.traffic.tenant, slot.holdings.iter().map(Holding::wanted).sum());
        counted.recount(self.slots.iter().map(held));
        let wrong = counted.nodes.iter().zip(&self.quotas.nodes).find(|(counted, said)| counted.used != said.used);
        wrong.map_or(Ok(()), |(counted, _)| Err(RestoreError::Quota(counted.quota.tenant)))
    }

    /// Lent + free = total, and lent is what groups hold.
    fn check_ledger(&self) -> Result<(), RestoreError> {
        let mut held: BTreeMap<(PoolId, ShapeId), u64> = BTreeMap::new();
        for slot in &self.slots {
            for holding in &slot.holdings {
                let all = u64::from(holding.starting) + u64::from(holding.ready) + u64::from(holding.leaving);
                *held.entry((holding.pool, slot.traffic.shape)).or_default() += all;
            }
        }
        for account in &self.ledger.accounts {
            for stock in &account.stock {
                let key = (account.pool.id, stock.shape);
                let sum = held.remove(&key).unwrap_or(0);
                if sum != u64::from(stock.lent) || stock.lent > stock.total {
                    return Err(RestoreError::Ledger(key.0, key.1));
                }
            }
        }
        match held.into_iter().find(|(_, sum)| *sum > 0) {
            Some(((pool, shape), _)) => Err(RestoreError::Ledger(pool, shape)),
            None => Ok(()),
        }
    }

    /// Checks that starting and leaving instances are those that requests have under way.
    fn check_requests(&self) -> Result<(), RestoreError> {
        let mut open: BTreeMap<(GroupId, PoolId), (u64, u64)> = BTreeMap::new();
        for request in self.requests.values() {
            if !request.is_sound() {
                return Err(RestoreError::Requests(request.group));
            }
            let sums = open.entry((request.group, request.pool)).or_default();
            sums.0 += u64::from(request.starting());
            sums.1 += u64::from(request.leaving());
        }
        for slot in &self.slots {
            for holding in &slot.holdings {
                let (starting, leaving) = open.remove(&(slot.id(), holding.pool)).unwrap_or_default();
                if (starting, leaving) != (u64::from(holding.starting), u64::from(holding.leaving)) {
                    return Err(RestoreError::Requests(slot.id()));
                }
            }
        }
        match open.into_keys().next() {
            Some((group, _)) => Err(RestoreError::Requests(group)),
            None => Ok(()),
        }
    }
}
