//! Facts: samples, and the progress of requests. One that is late, repeated, unknown or early changes nothing and is
//! counted.

use crate::Timestamp;
use crate::effect::{Progress, Request, RequestKind};
use crate::engine::{Engine, Slot};
use crate::id::{GroupId, MetricId, PoolId, RequestId};
use crate::metric::Sample;
use crate::num::Milli;

impl Engine {
    /// Tells a sample of a group's metric, measured at `at`.
    ///
    /// `None` is a missing sample, which leaves the last one to grow older.
    ///
    /// What is averaged per instance is averaged over the instances that serve now.
    pub fn handle_sample(
        &mut self,
        now: Timestamp,
        group: GroupId,
        metric: MetricId,
        at: Timestamp,
        value: Option<Milli>,
    ) {
        let now = self.lift(now);
        let Ok(place) = self.place(group) else {
            self.counters.unknown += 1;
            return;
        };
        let Some(index) = self.slots[place].group.metric_index(metric) else {
            self.counters.unknown += 1;
            return;
        };
        if self.slots[place].group.is_computed(metric) {
            self.counters.impossible += 1;
            return;
        }
        self.take_sample(now, place, index, at, value);
    }

    /// Whether `at` is later than the clocks of others may be ahead.
    pub(crate) fn is_early(&self, at: Timestamp, now: Timestamp) -> bool {
        at > now.after_millis(self.config.clock_skew_ms)
    }

    /// [`Engine::handle_sample`] for who knows where the group and the metric stand.
    pub(crate) fn take_sample(
        &mut self,
        now: Timestamp,
        place: usize,
        index: usize,
        at: Timestamp,
        value: Option<Milli>,
    ) {
        let slot = &self.slots[place];
        if value.is_some() && self.is_early(at, now) {
            self.counters.early += 1;
        } else if value.is_some() && slot.samples[index].is_some_and(|held| at <= held.at) {
            self.counters.late += 1;
        } else {
            let over = slot.inputs().ready;
            self.take_average(place, index, at, value, over);
        }
    }

    /// Takes in a new sample that is averaged over so many instances.
    pub(crate) fn take_average(&mut self, place: usize, index: usize, at: Timestamp, value: Option<Milli>, over: u32) {
        let Some(value) = value else {
            self.counters.missing += 1;
            return;
        };
        let slot = &mut self.slots[place];
        let ready = slot.inputs().ready;
        let sample = Sample { at, value, over };
        slot.samples[index] = Some(sample);
        slot.state.observe(&slot.group, index, sample, ready);
        self.due[place] = Timestamp::ZERO;
        if !slot.group.policy().formulas.is_empty() {
            compute(slot, index, ready);
        }
    }

    /// Tells the progress of a launch: see [`Progress`]. A failure leaves the pool alone for a while.
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
    /// use tenon_scaler::Progress;
    ///
    /// engine.handle_timeout(now);
    /// let Some(Effect::Launch { request, count, .. }) = engine.poll_effect() else { panic!("the group grows") };
    /// engine.handle_launch(now, request, Progress::done(count));
    /// assert_eq!(engine.holdings(group)[0].ready, 1); // the policy's minimum serves
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn handle_launch(&mut self, now: Timestamp, request: RequestId, progress: Progress) {
        let now = self.lift(now);
        let Some((held, place)) = self.progress(request, RequestKind::Launch, progress) else {
            return;
        };
        let after = Request { came: progress.max(held.came), ..held };
        let (came, lost) = (after.came.done - held.came.done, after.came.failed - held.came.failed);
        let stopped = after.came.cancelled - held.came.cancelled;
        let slot = &mut self.slots[place];
        let (shape, tenant) = (slot.traffic.shape, slot.traffic.tenant);
        let mut counted = (0, 0);
        for holding in slot.holdings.iter_mut().filter(|holding| holding.pool == held.pool) {
            counted.0 = holding.wanted();
            holding.starting -= held.starting() - after.starting();
            holding.leaving -= held.leaving() - after.leaving();
            holding.ready += came;
            holding.since = now;
            counted.1 = holding.wanted();
        }
        self.quotas.give_back(tenant, counted.0.saturating_sub(counted.1));
        self.quotas.take(tenant, counted.1.saturating_sub(counted.0));
        if slot.state.is_draining()
            || slot.state.target() < slot.inputs().delivered()
            || lost + stopped > 0
            || slot.group.reads_ready
        {
            self.due[place] = Timestamp::ZERO;
        }
        if came > 0 {
            self.ledger.forgive(held.pool, shape, held.at);
        }
        // What is gone without having been cancelled has failed, whatever it is called.
        let uncalled = stopped > 0 && after.came.cancelled > after.count - after.keep;
        if lost > 0 || uncalled {
            self.ledger.strike(held.pool, shape, now, self.config.back_off);
        }
        self.give_back(place, held.pool, lost + stopped);
        self.advance(request, after, place);
    }

    /// Tells the progress of a release: `gone` instances are gone in all.
    pub fn handle_release(&mut self, now: Timestamp, request: RequestId, gone: u32) {
        let now = self.lift(now);
        let Some((held, place)) = self.progress(request, RequestKind::Release, Progress::done(gone)) else {
            return;
        };
        let left = gone - held.came.done;
        for holding in self.slots[place].holdings.iter_mut().filter(|holding| holding.pool == held.pool) {
            holding.leaving -= left;
            holding.since = now;
        }
        self.give_back(place, held.pool, left);
        self.advance(request, Request { came: Progress::done(gone), ..held }, place);
    }

    /// Tells the progress of any request, as [`Engine::handle_launch`] or [`Engine::handle_release`] does.
    pub fn handle_progress(&mut self, now: Timestamp, request: RequestId, progress: Progress) {
        match self.requests.get(&request).map(|held| held.kind) {
            Some(RequestKind::Release) => self.handle_release(now, request, progress.done),
            Some(RequestKind::Launch) | None => self.handle_launch(now, request, progress),
        }
    }

    /// Asks about every open request, in the order of their ids, and tells the answers.
    ///
    /// A host runs it before each tick, and after a restart. `None` leaves a request as it is.
    ///
    /// Requests that have not been handed out by [`Engine::poll_effect`] yet are left out.
    ///
    /// # Errors
    /// The first error of `ask`; what was answered before it has been told.
    pub fn catch_up<E>(
        &mut self,
        now: Timestamp,
        mut ask: impl FnMut(RequestId, &Request) -> Result<Option<Progress>, E>,
    ) -> Result<(), E> {
        let mut from = RequestId(0);
        while let Some((id, request)) = self.requests.range(from..self.unasked_from).next() {
            let id = *id;
            let answer = ask(id, request)?;
            from = RequestId(id.0.saturating_add(1));
            if let Some(progress) = answer {
                self.handle_progress(now, id, progress);
            }
        }
        Ok(())
    }

    /// Tells a census: at `at`, `serving` instances of a group served in a pool, without those asked to go.
    ///
    /// Fewer than expected: the others are lost, and will be replaced. More than launches explain: they are found, and
    /// belong to the group from now on.
    ///
    /// A census from before the last change to these counts says nothing about them.
    pub fn handle_census(&mut self, now: Timestamp, group: GroupId, pool: PoolId, at: Timestamp, serving: u32) {
        let now = self.lift(now);
        let Ok(place) = self.place(group) else {
            self.counters.unknown += 1;
            return;
        };
        let early = self.is_early(at, now);
        let slot = &mut self.slots[place];
        let counted = slot.counted;
        let holding = slot.holdings.iter_mut().find(|holding| holding.pool == pool);
        let since = holding.as_ref().map_or(counted, |holding| holding.since);
        let ready = holding.as_ref().map_or(0, |holding| holding.ready);
        if early {
            self.counters.early += 1;
        } else if at <= since || (serving == ready && holding.is_some()) {
            self.counters.late += 1;
        } else if serving > ready {
            self.find(now, place, pool, serving);
        } else if let Some(holding) = holding {
            let lost = ready - serving;
            holding.ready = serving;
            holding.since = at;
            self.quotas.give_back(slot.traffic.tenant, lost);
            self.give_back(place, pool, lost);
            self.due[place] = Timestamp::ZERO;
        } else {
            self.counters.unknown += 1;
        }
    }

    /// The request and the group's place, where the fact says something new and possible.
    fn progress(&mut self, id: RequestId, kind: RequestKind, told: Progress) -> Option<(Request, usize)> {
        if id >= self.unasked_from {
            let waiting = self.requests.contains_key(&id);
            *(if waiting { &mut self.counters.early } else { &mut self.counters.unknown }) += 1;
            return None;
        }
        let held = self.requests.get(&id).copied().filter(|held| held.kind == kind);
        let Some((held, place)) = held.and_then(|held| Some((held, self.place(held.group).ok()?))) else {
            self.counters.unknown += 1;
            return None;
        };
        let all = told.max(held.came);
        if all.ended().is_none_or(|sum| sum > held.count) {
            self.counters.impossible += 1;
            return None;
        }
        if all == held.came {
            self.counters.late += 1;
            return None;
        }
        Some((held, place))
    }

    fn advance(&mut self, id: RequestId, after: Request, place: usize) {
        if after.open() > 0 {
            self.requests.insert(id, after);
        } else {
            self.requests.remove(&id);
            self.slots[place].launches.retain(|launch| *launch != id);
        }
    }

    /// Returns instances to the ledger that a group no longer has.
    pub(crate) fn give_back(&mut self, place: usize, pool: PoolId, count: u32) {
        if count == 0 {
            return;
        }
        let slot = &mut self.slots[place];
        let shape = slot.traffic.shape;
        let before = slot.holdings.len();
        slot.holdings.retain(|holding| holding.all() > 0);
        if slot.holdings.len() < before {
            slot.counted = self.now;
        }
        let price = self.ledger.account(pool).map_or(0, |account| account.pool.price);
        self.costs.change((slot.traffic.tenant, pool, price), self.now, 0, count);
        let outcome = self.ledger.take_back(pool, shape, count);
        debug_assert_eq!(outcome, Ok(()), "what a group had was lent to it");
    }
}

/// Computes the metrics made from a metric that has just been measured.
fn compute(slot: &mut Slot, measured: usize, ready: u32) {
    let policy = slot.group.policy();
    let Some(metric) = policy.metrics.get(measured).map(|metric| metric.id) else { return };
    for formula in policy.formulas.iter().filter(|formula| formula.reads(metric)) {
        let read = |id| slot.group.metric_index(id).and_then(|at| slot.samples.get(at).copied().flatten());
        let Some((value, at)) = formula.value(read, ready) else { continue };
        if let Some(index) = slot.group.metric_index(formula.metric) {
            let sample = Sample { at, value, over: ready };
            slot.samples[index] = Some(sample);
            slot.state.observe(&slot.group, index, sample, ready);
        }
    }
}
