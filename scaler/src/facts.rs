//! What hosts tell: samples, and how requests go. A fact that is late, repeated, unknown or early changes nothing and is
//! counted.

use crate::Timestamp;
use crate::effect::{Request, RequestKind};
use crate::engine::{Engine, Slot};
use crate::id::{GroupId, MetricId, PoolId, RequestId};
use crate::metric::Sample;
use crate::num::Milli;

impl Engine {
    /// A metric of a group was measured at `at`; `None` is a missing sample, which leaves the last one to grow older.
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
        if value.is_some() && at > now {
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

    /// Of a launch, `ready` instances in all serve by now and `failed` in all will not come. A failure leaves the pool
    /// alone for a while.
    pub fn handle_launch(&mut self, now: Timestamp, request: RequestId, ready: u32, failed: u32) {
        let now = self.lift(now);
        let Some((held, place)) = self.progress(request, RequestKind::Launch, ready, failed) else {
            return;
        };
        let (came, lost) = (ready.max(held.done) - held.done, failed.max(held.failed) - held.failed);
        let slot = &mut self.slots[place];
        let shape = slot.traffic.shape;
        for holding in slot.holdings.iter_mut().filter(|holding| holding.pool == held.pool) {
            holding.starting -= came + lost;
            holding.ready += came;
            holding.since = now;
        }
        if slot.state.is_draining()
            || slot.state.target() < slot.inputs().delivered()
            || lost > 0
            || slot.group.reads_ready
        {
            self.due[place] = Timestamp::ZERO;
        }
        if came > 0 {
            self.ledger.forgive(held.pool, shape);
        }
        if lost > 0 {
            self.ledger.strike(held.pool, shape, now, self.config.back_off);
            self.give_back(place, held.pool, lost);
        }
        self.advance(request, came, lost);
    }

    /// Of a release, `gone` instances in all are gone by now.
    pub fn handle_release(&mut self, now: Timestamp, request: RequestId, gone: u32) {
        let now = self.lift(now);
        let Some((held, place)) = self.progress(request, RequestKind::Release, gone, 0) else {
            return;
        };
        let left = gone - held.done;
        for holding in self.slots[place].holdings.iter_mut().filter(|holding| holding.pool == held.pool) {
            holding.leaving -= left;
            holding.since = now;
        }
        self.give_back(place, held.pool, left);
        self.advance(request, left, 0);
    }

    /// At `at`, `serving` instances of a group in a pool served, without those asked to go. Fewer than should: the others
    /// are lost, and will be replaced.
    ///
    /// A census from before the last change to these counts says nothing about them.
    pub fn handle_census(&mut self, now: Timestamp, group: GroupId, pool: PoolId, at: Timestamp, serving: u32) {
        let now = self.lift(now);
        let Ok(place) = self.place(group) else {
            self.counters.unknown += 1;
            return;
        };
        let Some(holding) = self.slots[place].holdings.iter_mut().find(|holding| holding.pool == pool) else {
            self.counters.unknown += 1;
            return;
        };
        if at > now {
            self.counters.early += 1;
        } else if at <= holding.since || serving == holding.ready {
            self.counters.late += 1;
        } else if serving > holding.ready {
            self.counters.impossible += 1;
        } else {
            let lost = holding.ready - serving;
            holding.ready = serving;
            holding.since = at;
            self.give_back(place, pool, lost);
            self.due[place] = Timestamp::ZERO;
        }
    }

    /// The request and the group's place, where the fact says something new and possible.
    fn progress(&mut self, id: RequestId, kind: RequestKind, done: u32, failed: u32) -> Option<(Request, usize)> {
        let early = self.effects.front().is_some_and(|effect| effect.request() <= id);
        if early {
            self.counters.early += 1;
            return None;
        }
        let held = self.requests.get(&id).copied().filter(|held| held.kind == kind);
        let Some((held, place)) = held.and_then(|held| Some((held, self.place(held.group).ok()?))) else {
            self.counters.unknown += 1;
            return None;
        };
        let (all_done, all_failed) = (done.max(held.done), failed.max(held.failed));
        if all_done.checked_add(all_failed).is_none_or(|sum| sum > held.count) {
            self.counters.impossible += 1;
            return None;
        }
        if (all_done, all_failed) == (held.done, held.failed) {
            self.counters.late += 1;
            return None;
        }
        Some((held, place))
    }

    fn advance(&mut self, id: RequestId, done: u32, failed: u32) {
        let Some(held) = self.requests.get_mut(&id) else {
            return;
        };
        held.done += done;
        held.failed += failed;
        if held.open() == 0 {
            self.requests.remove(&id);
        }
    }

    /// Returns instances to the ledger that a group no longer has.
    fn give_back(&mut self, place: usize, pool: PoolId, count: u32) {
        let slot = &mut self.slots[place];
        let shape = slot.traffic.shape;
        slot.holdings.retain(|holding| holding.all() > 0);
        self.quotas.give_back(slot.traffic.tenant, count);
        let price = self.ledger.account(pool).map_or(0, |account| account.pool.price);
        self.costs.change((slot.traffic.tenant, pool, price), self.now, 0, count);
        let outcome = self.ledger.take_back(pool, shape, count);
        debug_assert_eq!(outcome, Ok(()), "what a group had was lent to it");
    }
}

/// Computes what is made of a metric that has just been measured.
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
