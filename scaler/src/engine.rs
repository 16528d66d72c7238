//! The engine's public API: many groups, their pools, and one tick over all of them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::admit::Plan;
use crate::allot::Holding;
use crate::config::{Config, Records};
use crate::cost::Costs;
use crate::decide::decide;
use crate::effect::{Counters, Effect, Request};
use crate::error::Refused;
use crate::group::{Fleet, Group, Inputs, Policy, Traffic};
use crate::id::{GroupId, PoolId, ReleaseId, RequestId, ShapeId, TenantId, VersionId};
use crate::metric::Sample;
use crate::pool::{Crossing, Ledger, Pool, Stock};
use crate::quota::{Quota, QuotaUse, Quotas};
use crate::reason::Reason;
use crate::record::{Decision, Record};
use crate::state::{GroupState, Override};

/// The engine: sizes many groups from shared pools. Call it at each tick, carry out the [`Effect`]s, tell the facts.
///
/// A plain value: cloning it forks it, and a fork answers as the original would.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) now: Timestamp,
    /// A tick that was behind `now`, and has not been confirmed yet.
    pub(crate) behind: Option<Timestamp>,
    pub(crate) last_tick: Option<Timestamp>,
    pub(crate) next_tick: Timestamp,
    /// In the order of their ids.
    pub(crate) slots: Vec<Slot>,
    /// When each group has to be decided again, in the order of `slots`: a tick looks at all of these, and at few groups.
    pub(crate) due: Vec<Timestamp>,
    /// How many groups go down to nothing: while there is none, no tick looks for those that are gone.
    pub(crate) draining: usize,
    pub(crate) ledger: Ledger,
    pub(crate) quotas: Quotas,
    pub(crate) costs: Costs,
    pub(crate) plan: Plan,
    pub(crate) releases: BTreeMap<ReleaseId, VersionId>,
    pub(crate) requests: BTreeMap<RequestId, Request>,
    pub(crate) next_request: u64,
    /// Launches before this one have nothing on their way: they are over, have come, or were cancelled.
    pub(crate) young_from: RequestId,
    /// Requests from this one on have not been handed to the host yet.
    pub(crate) unasked_from: RequestId,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) counters: Counters,
    /// The targets that the last tick changed. They say nothing about what comes next, and are in no snapshot.
    pub(crate) moves: Vec<Move>,
    /// The watermarks that were crossed between the last two ticks; in no snapshot, either.
    pub(crate) crossings: Vec<Crossing>,
}

/// A change of a group's target by a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The group.
    pub group: GroupId,
    /// Its target before.
    pub before: u32,
    /// Its target now.
    pub after: u32,
    /// The reason for the new target.
    pub reason: Reason,
}

/// One group, with all that belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) traffic: Traffic,
    pub(crate) group: Group,
    pub(crate) state: GroupState,
    pub(crate) samples: SmallVec<[Option<Sample>; 2]>,
    pub(crate) fleet: Option<Box<Fleet>>,
    pub(crate) holdings: SmallVec<[Holding; 2]>,
    /// When the last holding of a pool ended: an older census says nothing about it.
    pub(crate) counted: Timestamp,
    /// The launches that are not over, in the order in which they were asked.
    pub(crate) launches: SmallVec<[RequestId; 2]>,
    pub(crate) record: Option<Box<Record>>,
}

impl Slot {
    pub(crate) fn inputs(&self) -> Inputs<'_> {
        inputs(&self.holdings, &self.samples, self.fleet.as_deref())
    }

    pub(crate) fn id(&self) -> GroupId {
        self.traffic.id
    }
}

/// The inputs of a decision for a group with these holdings and samples.
pub(crate) fn inputs<'a>(holdings: &[Holding], samples: &'a [Option<Sample>], fleet: Option<&'a Fleet>) -> Inputs<'a> {
    let (mut ready, mut starting) = (0, 0);
    for holding in holdings {
        ready += holding.ready;
        starting += holding.starting;
    }
    Inputs { ready, starting, samples, fleet }
}

impl Engine {
    /// An engine without groups and pools.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            now: Timestamp::ZERO,
            behind: None,
            last_tick: None,
            next_tick: Timestamp::ZERO,
            slots: Vec::new(),
            due: Vec::new(),
            draining: 0,
            ledger: Ledger::default(),
            quotas: Quotas::default(),
            costs: Costs::default(),
            plan: Plan::default(),
            releases: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            young_from: RequestId(0),
            unasked_from: RequestId(0),
            effects: VecDeque::new(),
            counters: Counters::default(),
            moves: Vec::new(),
            crossings: Vec::new(),
        }
    }

    pub(crate) fn place(&self, group: GroupId) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&group, Slot::id)
    }

    /// Adds a pool, or changes one: its stock, its price, its lease, its marks.
    ///
    /// # Errors
    /// [`Refused::StockBelowLent`], [`Refused::PoolInUse`], [`Refused::PoolShape`] or [`Refused::Full`]; nothing has
    /// changed.
    pub fn put_pool(&mut self, now: Timestamp, pool: Pool) -> Result<(), Refused> {
        let now = self.lift(now);
        let (id, price) = (pool.id, pool.price);
        let before = self.ledger.account(id).map(|account| account.pool.price);
        self.ledger.put(pool, self.config.max_pools)?;
        if let Some(before) = before.filter(|before| *before != price) {
            self.costs.close(id, before, now);
        }
        Ok(())
    }

    /// Sets the quota of a tenant, and its place in the service tree.
    ///
    /// A quota below the present use takes nothing away: it prevents additions.
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
    /// use tenon_scaler::Quota;
    ///
    /// engine.put_quota(now, Quota { tenant, parent: None, limit: 20 })?;
    /// assert_eq!(engine.quota(tenant).map(|quota| (quota.quota.limit, quota.used)), Some((20, 0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Refused::QuotaCycle`] or [`Refused::Full`]; nothing has changed.
    pub fn put_quota(&mut self, now: Timestamp, quota: Quota) -> Result<(), Refused> {
        self.lift(now);
        self.quotas.put(quota, self.config.max_groups)?;
        self.recount();
        Ok(())
    }

    /// Counts anew what each tenant has, where the tree or a group's place in it has changed.
    fn recount(&mut self) {
        let Self { quotas, slots, .. } = self;
        quotas.recount(slots.iter().map(|slot| (slot.traffic.tenant, slot.holdings.iter().map(Holding::wanted).sum())));
    }

    /// Charges a group's instances to another tenant from now on.
    fn move_costs(&mut self, at: usize, before: TenantId) {
        let slot = &self.slots[at];
        for holding in &slot.holdings {
            let price = self.ledger.account(holding.pool).map_or(0, |account| account.pool.price);
            self.costs.change((before, holding.pool, price), self.now, 0, holding.all());
            self.costs.change((slot.traffic.tenant, holding.pool, price), self.now, holding.all(), 0);
        }
        self.costs.keep_to(self.config.max_groups, self.now);
    }

    /// The quota of a tenant, with its present use.
    #[must_use]
    pub fn quota(&self, tenant: TenantId) -> Option<&QuotaUse> {
        self.quotas.get(tenant)
    }

    /// Sets the image that a release group runs from now on. Running instances keep theirs.
    pub fn put_release(&mut self, now: Timestamp, release: ReleaseId, version: VersionId) {
        self.lift(now);
        self.releases.insert(release, version);
    }

    /// Adds the elastic group of a traffic group, or changes one, without asking whether pools can carry it.
    ///
    /// [`Engine::admit`] asks.
    ///
    /// A rule that stays the same keeps what it remembers; a delta that goes takes its share with it.
    ///
    /// # Errors
    /// [`Refused::Policy`], [`Refused::Draining`], [`Refused::InUse`] or [`Refused::Full`]; nothing has changed.
    pub fn put_group(&mut self, now: Timestamp, traffic: Traffic, policy: Policy) -> Result<(), Refused> {
        self.lift(now);
        let group = Group::new(policy, &self.config.zones, self.config.limits)?;
        self.put_checked(traffic, group)
    }

    pub(crate) fn put_checked(&mut self, traffic: Traffic, group: Group) -> Result<(), Refused> {
        match self.place(traffic.id) {
            Ok(at) => {
                self.check_move(at, &traffic)?;
                let slot = &mut self.slots[at];
                if let Some(last) = self.last_tick {
                    slot.state.coast(&slot.group.policy().behavior, last);
                }
                let kept = group.policy().metrics.iter().map(|metric| {
                    slot.group.metric_index(metric.id).and_then(|at| slot.samples.get(at).copied().flatten())
                });
                slot.samples = kept.collect();
                if let Some(fleet) = &mut slot.fleet {
                    let kept = group.policy().metrics.iter().map(|metric| {
                        let before = slot.group.metric_index(metric.id).and_then(|at| fleet.samples.get_mut(at));
                        before.map_or(Vec::new(), core::mem::take)
                    });
                    fleet.samples = kept.collect();
                }
                slot.state.carry_over(&slot.group, &group);
                let moved = Some(slot.traffic.tenant).filter(|tenant| *tenant != traffic.tenant);
                (slot.traffic, slot.group) = (traffic, group);
                self.due[at] = Timestamp::ZERO;
                if let Some(before) = moved {
                    self.recount();
                    self.move_costs(at, before);
                }
            }
            Err(_) if self.slots.len() >= self.config.max_groups => {
                return Err(Refused::Full(self.config.max_groups));
            }
            Err(at) => {
                let slot = Slot {
                    state: GroupState::new(&group, 0),
                    samples: SmallVec::from_elem(None, group.policy().metrics.len()),
                    fleet: None,
                    holdings: SmallVec::new(),
                    counted: Timestamp::ZERO,
                    launches: SmallVec::new(),
                    record: None,
                    traffic,
                    group,
                };
                self.slots.insert(at, slot);
                self.due.insert(at, Timestamp::ZERO);
            }
        }
        Ok(())
    }

    /// A group with instances keeps its shape, and every data centre that they stand in.
    fn check_move(&self, at: usize, traffic: &Traffic) -> Result<(), Refused> {
        let slot = &self.slots[at];
        if slot.state.is_draining() {
            return Err(Refused::Draining(traffic.id));
        }
        for holding in slot.holdings.iter().filter(|holding| holding.all() > 0) {
            let Some(account) = self.ledger.account(holding.pool) else {
                continue;
            };
            let idc = account.pool.idc;
            let outside = !traffic.idcs.is_empty() && !traffic.idcs.contains(&idc);
            if outside || slot.traffic.shape != traffic.shape {
                return Err(Refused::InUse(traffic.id, idc));
            }
        }
        Ok(())
    }

    /// Tells that a traffic group is gone.
    ///
    /// Its elastic group goes down to zero over the configured time, and is forgotten when its last instance is gone.
    ///
    /// # Errors
    /// [`Refused::NoGroup`]; nothing has changed.
    pub fn drop_traffic(&mut self, now: Timestamp, group: GroupId) -> Result<(), Refused> {
        let now = self.lift(now);
        let over_ms = self.config.drain_ms;
        let at = self.place(group).map_err(|_| Refused::NoGroup(group))?;
        self.draining += usize::from(!self.slots[at].state.is_draining());
        self.slots[at].state.drain(now, over_ms);
        self.due[at] = Timestamp::ZERO;
        self.unplan(group);
        Ok(())
    }

    /// Sets an operator's override of a group's size until an instant, or removes it.
    ///
    /// # Errors
    /// [`Refused::NoGroup`]; nothing has changed.
    pub fn set_by_hand(&mut self, now: Timestamp, group: GroupId, by_hand: Option<Override>) -> Result<(), Refused> {
        self.lift(now);
        let at = self.place(group).map_err(|_| Refused::NoGroup(group))?;
        self.slots[at].state.set_by_hand(by_hand);
        self.due[at] = Timestamp::ZERO;
        Ok(())
    }

    /// Pauses decisions for a group: its target stays as it is.
    ///
    /// # Errors
    /// [`Refused::NoGroup`]; nothing has changed.
    pub fn pause(&mut self, now: Timestamp, group: GroupId) -> Result<(), Refused> {
        self.lift(now);
        let at = self.place(group).map_err(|_| Refused::NoGroup(group))?;
        self.slots[at].state.pause();
        self.due[at] = Timestamp::ZERO;
        Ok(())
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// [`Refused::NoGroup`]; nothing has changed.
    pub fn resume(&mut self, now: Timestamp, group: GroupId) -> Result<(), Refused> {
        self.lift(now);
        let at = self.place(group).map_err(|_| Refused::NoGroup(group))?;
        self.slots[at].state.resume();
        self.due[at] = Timestamp::ZERO;
        Ok(())
    }

    /// The next effect for the host.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front()?;
        if effect.is_request() {
            self.unasked_from = RequestId(effect.request().0.saturating_add(1));
        }
        Some(effect)
    }

    /// The latest time to call [`Engine::handle_timeout`]; `None` while there is no group.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        (!self.slots.is_empty()).then_some(self.next_tick)
    }

    /// The decision that a tick would make for a group now, with its reasons. Nothing changes.
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
    /// use tenon_scaler::Reason;
    ///
    /// engine.handle_sample(now, group, depth, now, Some(Milli::from_units(19)));
    /// let decision = engine.explain(now, group).ok_or("no such group")?;
    /// assert_eq!((decision.target, decision.reason), (5, Reason::Metric(RuleId(1))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn explain(&self, now: Timestamp, group: GroupId) -> Option<Decision> {
        let slot = self.place(group).ok().map(|at| &self.slots[at])?;
        let ahead = self.now > now.after_millis(self.config.clock_skew_ms);
        let mut state = slot.state.clone();
        if let Some(last) = self.last_tick {
            state.coast(&slot.group.policy().behavior, last);
        }
        Some(decide(&slot.group, &state, &slot.inputs(), if ahead { now } else { now.max(self.now) }).0)
    }

    /// The record of a group's last change, if [`Records::Last`] is configured.
    #[must_use]
    pub fn record(&self, group: GroupId) -> Option<&Record> {
        self.place(group).ok().and_then(|at| self.slots[at].record.as_deref())
    }

    /// Lists the groups, in the order of their ids.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.slots.iter().map(Slot::id)
    }

    /// The state of a group.
    #[must_use]
    pub fn state(&self, group: GroupId) -> Option<&GroupState> {
        self.place(group).ok().map(|at| &self.slots[at].state)
    }

    /// The traffic group that a group is made from, as it was last told.
    #[must_use]
    pub fn traffic(&self, group: GroupId) -> Option<&Traffic> {
        self.place(group).ok().map(|at| &self.slots[at].traffic)
    }

    /// The policy that a group is sized by.
    #[must_use]
    pub fn policy(&self, group: GroupId) -> Option<&Policy> {
        self.place(group).ok().map(|at| self.slots[at].group.policy())
    }

    /// The instances of a group in each pool.
    #[must_use]
    pub fn holdings(&self, group: GroupId) -> &[Holding] {
        self.place(group).ok().map_or(&[], |at| &self.slots[at].holdings)
    }

    /// The stock of a shape in a pool.
    #[must_use]
    pub fn stock(&self, pool: PoolId, shape: ShapeId) -> Option<&Stock> {
        self.ledger.account(pool)?.stock.iter().find(|stock| stock.shape == shape)
    }

    /// Lists the pools, in the order of their ids.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.ledger.accounts.iter().map(|account| &account.pool)
    }

    /// Lists the open requests: a host asks its cloud about these.
    ///
    /// [`Engine::catch_up`] asks about all of them and tells the answers.
    pub fn requests(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.requests.iter().map(|(id, request)| (*id, request))
    }

    /// An open request by its id.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.get(&id)
    }

    /// The targets that the last tick changed, in the order of the groups' ids.
    #[must_use]
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// The watermarks that pools crossed, either way, between the last two ticks: use them to raise and end alarms.
    ///
    /// In the order of pools; each crossing is told once.
    #[must_use]
    pub fn crossings(&self) -> &[Crossing] {
        &self.crossings
    }

    /// Counters of facts that changed nothing, by their cause.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn keeps_records(&self) -> bool {
        self.config.records == Records::Last
    }
}
