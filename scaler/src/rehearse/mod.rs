//! Rehearsal: what the rules in force will do to a forecast, through the code that decides live.

mod levels;
mod plant;
mod stage;
mod what_if;

pub use what_if::WhatIf;

use alloc::vec::Vec;
use core::ops::Range;

use smallvec::SmallVec;

use crate::Timestamp;
use crate::config::{Records, Skip};
use crate::engine::{Engine, Move};
use crate::hpa::{PodSample, Pods, ReadyCondition, Requests};
use crate::id::{GroupId, MetricId, PoolId};
use crate::num::Milli;
use crate::reason::Reason;

use levels::Levels;
use stage::perform;

/// The world of a rehearsal: a forecast, or a trace of the past.
///
/// Its answers follow from what is asked alone: groups that do not meet are rehearsed one after another, each from the
/// first instant to the last.
pub trait World {
    /// The value of a group's metric at `at`, with `ready` instances serving; `None` for a missing sample.
    fn measure(&mut self, at: Timestamp, group: GroupId, metric: MetricId, ready: u32) -> Option<Milli>;

    /// The samples of a group's metric for each instance that serves at `at`, written into `samples` in the order of
    /// ids.
    ///
    /// Asked for rules that look at instances one by one ([`strategy::Hpa`](crate::strategy::Hpa) of a metric of pods),
    /// of which the rehearsal makes each: those that are starting are there, and not ready.
    ///
    /// Unless a world says otherwise, each reads what [`World::measure`] says, over the last quarter of a minute.
    fn measure_pods(
        &mut self,
        at: Timestamp,
        group: GroupId,
        metric: MetricId,
        pods: Pods<'_>,
        samples: &mut Vec<PodSample>,
    ) {
        let serving = || pods.0.iter().filter(|pod| matches!(pod.ready, ReadyCondition::Ready(_)));
        let ready = u32::try_from(serving().count()).unwrap_or(u32::MAX);
        let Some(value) = self.measure(at, group, metric, ready).map(Milli::as_thousandths) else { return };
        samples.extend(serving().map(|pod| PodSample { pod: pod.id, value, at, window_ms: 15_000 }));
    }

    /// The requests of each instance of a group.
    ///
    /// 1 of the resource at place 0 unless a world says otherwise, so that a utilisation of 0.62 is 62 %.
    fn requests(&mut self, group: GroupId) -> Requests {
        let _ = group;
        Requests::of(Some(1_000))
    }

    /// The size that a group begins with, all instances serving, without a memory of earlier decisions; `None` to begin
    /// as it is.
    ///
    /// A group's orders stay: a pause, an override, the tasks of chains.
    fn start_size(&mut self, group: GroupId) -> Option<u32> {
        let _ = group;
        None
    }

    /// The number of instances that the group needs at `at`.
    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32;

    /// Tells that the tick at `at` has changed these targets. Called only if it has changed any.
    ///
    /// Groups that are rehearsed apart are told of apart, each from the first instant to the last.
    fn decided(&mut self, at: Timestamp, moves: &[Move]) {
        let _ = (at, moves);
    }
}

/// Whether a rehearsal keeps a [`Row`] for each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeline {
    /// Keep no rows.
    #[default]
    None,
    /// Keep a row for each tick after which a group has other numbers than before.
    Rows,
}

/// The numbers of one group after a tick of a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The time of the tick.
    pub at: Timestamp,
    /// The id of the group.
    pub group: GroupId,
    /// The number of instances that serve.
    pub ready: u32,
    /// The number of instances that are starting.
    pub starting: u32,
    /// The target.
    pub wanted: u32,
    /// The number of instances that the load needs, by [`World::needed`].
    pub needed: u32,
    /// The reason for the last change of the target; `None` before the first.
    pub reason: Option<Reason>,
    /// The number of instances that the group has in each pool, starting ones included.
    pub pools: SmallVec<[(PoolId, u32); 2]>,
    /// The shortage so far, in instance-milliseconds.
    ///
    /// Times what an instance carries, that is the load that was not served.
    pub short_instance_ms: u128,
}

/// The parameters of a rehearsal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// The start.
    pub from: Timestamp,
    /// The end; the instant itself is outside.
    pub until: Timestamp,
    /// The interval at which metrics are measured, in ms.
    pub sample_ms: u64,
    /// The time that an instance takes to serve, in ms.
    pub start_ms: u64,
    /// The time that an instance takes to go, in ms.
    pub stop_ms: u64,
    /// The flap window in ms: two changes of target in opposite directions within it are a flap.
    pub flap_ms: u64,
    /// Whether decisions that cannot come out differently are skipped. The report is the same.
    pub skip: Skip,
    /// Whether the report has a timeline.
    pub timeline: Timeline,
}

/// The report of a rehearsal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of ticks.
    pub ticks: u64,
    /// The number of changes of target.
    pub changes: u64,
    /// The number of flaps: changes that took back one of the other direction too soon.
    pub flaps: u64,
    /// The number of instances launched.
    pub launched: u64,
    /// The number of instances released.
    pub released: u64,
    /// The number of instances that were cancelled before they came to serve.
    pub cancelled: u64,
    /// The time, over all groups, in which fewer instances served than were needed, in ms.
    pub shortage_ms: u64,
    /// The shortage over all groups, in instance-milliseconds.
    ///
    /// Times what an instance carries, that is the load that was not served.
    pub short_instance_ms: u128,
    /// The timeline: one row for each change, if [`Timeline::Rows`] was asked for.
    ///
    /// Group by group if groups were rehearsed apart.
    pub timeline: Vec<Row>,
    /// The use of each pool.
    pub pools: Vec<PoolUse>,
}

/// The use of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The id of the pool.
    pub pool: PoolId,
    /// The instance-milliseconds lent.
    pub instance_ms: u128,
    /// The highest number of instances lent at one time.
    pub peak: u64,
    /// The price of an instance-hour, in thousandths of the host's currency.
    pub price: u64,
}

impl PoolUse {
    /// The cost, in thousandths of the host's currency.
    #[must_use]
    pub fn cost(&self) -> u128 {
        self.instance_ms * u128::from(self.price) / 3_600_000
    }
}

impl Report {
    /// The instance-milliseconds over all pools.
    #[must_use]
    pub fn instance_ms(&self) -> u128 {
        self.pools.iter().map(|pool| pool.instance_ms).sum()
    }

    /// The cost over all pools, in thousandths of the host's currency.
    #[must_use]
    pub fn cost(&self) -> u128 {
        self.pools.iter().map(PoolUse::cost).sum()
    }
}

/// The number of groups that are rehearsed at one time if they do not meet: as many as fit a processor's cache.
const TROUPE: usize = 1024;

impl Engine {
    /// Rehearses on a copy of this engine, which does not change. The copy decides as the engine would.
    ///
    /// Groups meet only in their pools. Where no pool comes to its mark, they do not meet at all, and are rehearsed some
    /// at a time; where one does, all of them together, tick by tick.
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
    /// use tenon_scaler::{Rehearsal, World};
    ///
    /// struct Steady; // twelve jobs wait at any time
    /// impl World for Steady {
    ///     fn measure(&mut self, _: Timestamp, _: GroupId, _: MetricId, _: u32) -> Option<Milli> {
    ///         Some(Milli::from_units(12))
    ///     }
    ///     fn needed(&mut self, _: Timestamp, _: GroupId) -> u32 {
    ///         3
    ///     }
    /// }
    /// let hour = Rehearsal { from: now, until: now.after_millis(3_600_000), sample_ms: 15_000, ..Rehearsal::default() };
    /// assert_eq!(engine.rehearse(hour, &mut Steady).launched, 3); // this engine does not change
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rehearse<W: World>(&self, run: Rehearsal, world: &mut W) -> Report {
        let closed = self.ledger.accounts.iter().flat_map(|account| &account.stock).any(|stock| stock.closed);
        if self.slots.len() > TROUPE
            && self.quotas.nodes.is_empty()
            && !closed
            && let Some(report) = self.rehearse_apart(run, world)
        {
            return report;
        }
        self.rehearse_together(run, world)
    }

    fn rehearse_together<W: World>(&self, run: Rehearsal, world: &mut W) -> Report {
        let mut levels = Levels::new(&self.ledger);
        let mut report = perform(self.fork(0..self.slots.len(), run), run, world, &mut levels);
        levels.peaks(&self.ledger, &mut report.pools);
        report
    }

    /// Some groups at a time; `None` where they would have met in a pool.
    fn rehearse_apart<W: World>(&self, run: Rehearsal, world: &mut W) -> Option<Report> {
        let mut levels = Levels::new(&self.ledger);
        let mut whole: Option<Report> = None;
        for from in (0..self.slots.len()).step_by(TROUPE) {
            let until = (from + TROUPE).min(self.slots.len());
            let part = perform(self.fork(from..until, run), run, world, &mut levels);
            whole = Some(match whole {
                None => part,
                Some(sum) => sum.plus(part),
            });
        }
        let mut whole = whole.filter(|_| levels.never_short(self))?;
        levels.peaks(&self.ledger, &mut whole.pools);
        Some(whole)
    }

    /// A fork with some of the groups, in whose ledger they alone have anything.
    fn fork(&self, places: Range<usize>, run: Rehearsal) -> Self {
        let mut fork = Self::new(self.config.clone().with_skip(run.skip, Records::None));
        fork.slots = self.slots[places.clone()].to_vec();
        fork.due = self.due[places].to_vec();
        for slot in &mut fork.slots {
            slot.record = None;
            // The rehearsal makes instances of its own.
            slot.fleet = None;
        }
        fork.draining = fork.slots.iter().filter(|slot| slot.state.is_draining()).count();
        fork.ledger = self.ledger.clone();
        fork.ledger.keep_only(
            fork.slots
                .iter()
                .flat_map(|slot| slot.holdings.iter().map(|held| (held.pool, slot.traffic.shape, held.all()))),
        );
        fork.quotas = self.quotas.clone();
        fork.releases = self.releases.clone();
        let own = |id: &GroupId| fork.place(*id).is_ok();
        fork.requests =
            self.requests.iter().filter(|(_, held)| own(&held.group)).map(|(id, held)| (*id, *held)).collect();
        (fork.now, fork.last_tick, fork.next_tick) = (self.now, self.last_tick, self.next_tick);
        (fork.next_request, fork.young_from) = (self.next_request, self.young_from);
        if run.from < fork.now {
            // A trace of the past: the rehearsal's clock is right, whatever was read before.
            fork.rewind(run.from);
        }
        fork
    }
}

impl Report {
    /// The sum of two reports of groups that did not meet. The peaks are still to be found.
    fn plus(mut self, other: Self) -> Self {
        let Self {
            changes,
            flaps,
            launched,
            released,
            cancelled,
            shortage_ms,
            short_instance_ms,
            timeline,
            pools,
            ticks: _,
        } = other;
        self.changes += changes;
        self.flaps += flaps;
        self.launched += launched;
        self.released += released;
        self.cancelled += cancelled;
        self.shortage_ms += shortage_ms;
        self.short_instance_ms += short_instance_ms;
        self.timeline.extend(timeline);
        for (sum, pool) in self.pools.iter_mut().zip(&pools) {
            sum.instance_ms += pool.instance_ms;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::{QueueLength, Strategy};
    use crate::*;

    struct Load;

    impl World for Load {
        fn measure(&mut self, at: Timestamp, group: GroupId, _: MetricId, _: u32) -> Option<Milli> {
            let step = i64::try_from(at.as_millis() / 300_000).unwrap_or(0);
            Some(Milli::from_units((step * 7 + i64::from(group.0) * 13) % 11))
        }

        fn needed(&mut self, at: Timestamp, group: GroupId) -> u32 {
            u32::try_from((at.as_millis() / 300_000 + u64::from(group.0)) % 7).unwrap_or(0)
        }
    }

    fn engine(stock: u32) -> Engine {
        let mut engine = Engine::new(Config::builder().build().unwrap());
        for id in 0..3 {
            let (kind, watermark) = (PoolKind::Resident, Watermark::default());
            let stock = alloc::vec![(ShapeId(1), stock)];
            engine
                .put_pool(Timestamp::ZERO, Pool { id: PoolId(id), kind, idc: IdcId(id), price: 7, watermark, stock })
                .unwrap();
        }
        engine.put_release(Timestamp::ZERO, ReleaseId(1), VersionId(1));
        for group in 0..2_500 {
            let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(2) });
            let metric = Metric { id: MetricId(1), stale_after_ms: 900_000, when_stale: Staleness::ForbidIn };
            let policy = Policy {
                max: 9,
                metrics: alloc::vec![metric],
                rules: alloc::vec![Rule { id: RuleId(1), kind: RuleKind::Metric(MetricId(1), queue) }],
                ..Policy::default()
            };
            let (release, shape, tenant) = (ReleaseId(1), ShapeId(1), TenantId(1));
            let traffic = Traffic { id: GroupId(group), idcs: Vec::new(), tenant, release, shape };
            engine.put_group(Timestamp::ZERO, traffic, policy).unwrap();
        }
        engine
    }

    #[test]
    fn apart_is_together_where_groups_do_not_meet() {
        let run = Rehearsal {
            from: Timestamp::ZERO,
            until: Timestamp::from_millis(3_600_000),
            sample_ms: 300_000,
            start_ms: 40_000,
            stop_ms: 20_000,
            flap_ms: 600_000,
            ..Rehearsal::default()
        };
        let ample = engine(100_000);
        let together = ample.rehearse_together(run, &mut Load);
        assert!(together.changes > 1_000 && together.shortage_ms > 0);
        assert_eq!(ample.rehearse_apart(run, &mut Load), Some(together.clone()));
        // With what was the most in one pool, the groups meet there; with one more, they do not.
        let peak = u32::try_from(together.pools.iter().map(|pool| pool.peak).max().unwrap()).unwrap();
        assert_eq!(engine(peak).rehearse_apart(run, &mut Load), None);
        assert_eq!(
            engine(peak + 1).rehearse_apart(run, &mut Load),
            Some(engine(peak + 1).rehearse_together(run, &mut Load))
        );
    }
}
