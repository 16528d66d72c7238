//! Rehearsal: what the rules in force will do to a forecast, through the code that decides live.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::Timestamp;
use crate::config::{Records, Skip};
use crate::effect::Effect;
use crate::engine::Engine;
use crate::id::{GroupId, MetricId, PoolId, RequestId};
use crate::num::Milli;
use crate::pool::Ledger;

/// What a rehearsal is fed with: a forecast, or a trace of the past. Its answers follow from what is asked alone: groups
/// that do not meet are rehearsed one after another, each from the first instant to the last.
pub trait World {
    /// What a metric of a group would read at `at`, with `ready` instances serving; `None` for a missing sample.
    fn measure(&mut self, at: Timestamp, group: GroupId, metric: MetricId, ready: u32) -> Option<Milli>;

    /// How many instances the group would need at `at`.
    fn needed(&mut self, at: Timestamp, group: GroupId) -> u32;
}

/// How a rehearsal runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The first instant.
    pub from: Timestamp,
    /// The end; the instant itself is outside.
    pub until: Timestamp,
    /// How often metrics are measured, in ms.
    pub sample_ms: u64,
    /// How long an instance takes to serve, in ms.
    pub start_ms: u64,
    /// How long an instance takes to go, in ms.
    pub stop_ms: u64,
    /// Two changes of target in opposite directions within this time, in ms, are a flap.
    pub flap_ms: u64,
    /// Whether decisions that cannot come out differently are passed over; the report is the same.
    pub skip: Skip,
}

/// What a rehearsal came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Ticks taken.
    pub ticks: u64,
    /// Changes of target.
    pub changes: u64,
    /// Changes that took back one of the other direction too soon.
    pub flaps: u64,
    /// Instances launched.
    pub launched: u64,
    /// Instances released.
    pub released: u64,
    /// The time, in ms over all groups, for which fewer instances served than were needed.
    pub shortage_ms: u64,
    /// What each pool lent.
    pub pools: Vec<PoolUse>,
}

/// What one pool lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool.
    pub pool: PoolId,
    /// Instance-milliseconds lent.
    pub instance_ms: u128,
    /// The most instances lent at one time.
    pub peak: u64,
    /// The price of an instance-hour, in thousandths.
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
    /// Instance-milliseconds over all pools.
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

/// What the rehearsed host has been asked and not yet done: both delays are constant, so that both lines stay in order.
#[derive(Debug, Default)]
struct Cloud {
    launches: VecDeque<(Timestamp, RequestId, u32)>,
    releases: VecDeque<(Timestamp, RequestId, u32, PoolId)>,
}

/// What every pool has lent of every shape after each tick, and how many requests are open then.
#[derive(Debug, Default)]
struct Levels {
    /// How many numbers a tick has: stock by stock in the order of the ledger, and the requests.
    width: usize,
    /// Tick by tick; the first row is the start.
    rows: Vec<u64>,
}

impl Levels {
    fn new(ledger: &Ledger) -> Self {
        let stocks: usize = ledger.accounts.iter().map(|account| account.stock.len()).sum();
        Self { width: stocks + 1, rows: Vec::new() }
    }

    fn note(&mut self, engine: &Engine, tick: usize) {
        let stocks = engine.ledger.accounts.iter().flat_map(|account| &account.stock);
        let row = stocks.map(|stock| u64::from(stock.lent)).chain([engine.requests.len() as u64]);
        let from = tick * self.width;
        if self.rows.len() < from + self.width {
            self.rows.resize(from + self.width, 0);
        }
        for (sum, part) in self.rows[from..].iter_mut().zip(row) {
            *sum += part;
        }
    }

    /// Whether there was always something left: of every stock below its mark, and of the requests that may be open.
    fn never_short(&self, engine: &Engine) -> bool {
        let marks = engine
            .ledger
            .accounts
            .iter()
            .flat_map(|account| account.stock.iter().map(|stock| u64::from(account.marked(stock.shape))));
        let limits = marks.chain([engine.config.max_requests as u64]);
        limits.enumerate().all(|(at, limit)| self.rows.iter().skip(at).step_by(self.width).all(|level| *level < limit))
    }

    /// The most that each pool lent at one time.
    fn peaks(&self, ledger: &Ledger, pools: &mut [PoolUse]) {
        for row in self.rows.chunks(self.width) {
            let mut row = row.iter();
            for (pool, account) in pools.iter_mut().zip(&ledger.accounts) {
                let lent = row.by_ref().take(account.stock.len()).sum();
                pool.peak = pool.peak.max(lent);
            }
        }
    }
}

/// So many groups are rehearsed at one time where they do not meet: as many as a processor keeps at hand.
const TROUPE: usize = 1024;

/// What is watched of one group.
#[derive(Clone, Copy, Debug)]
struct Watch {
    group: GroupId,
    short_since: Option<Timestamp>,
    needed: u32,
    /// The last change of target, and whether it grew.
    moved: Option<(Timestamp, bool)>,
}

struct Stage<'w, W> {
    engine: Engine,
    world: &'w mut W,
    run: Rehearsal,
    cloud: Cloud,
    watches: Vec<Watch>,
    levels: &'w mut Levels,
    report: Report,
}

impl Engine {
    /// Rehearses on a fork of this engine: this one does not change. What the fork decides is what the original would.
    ///
    /// Groups meet only in their pools. Where no pool comes to its mark, they do not meet at all, and are rehearsed some
    /// at a time; where one does, all of them together, tick by tick.
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
        let mut report = self.fork(0..self.slots.len(), run).perform(run, world, &mut levels);
        levels.peaks(&self.ledger, &mut report.pools);
        report
    }

    /// Some groups at a time; `None` where they would have met in a pool.
    fn rehearse_apart<W: World>(&self, run: Rehearsal, world: &mut W) -> Option<Report> {
        let mut levels = Levels::new(&self.ledger);
        let mut whole: Option<Report> = None;
        for from in (0..self.slots.len()).step_by(TROUPE) {
            let until = (from + TROUPE).min(self.slots.len());
            let part = self.fork(from..until, run).perform(run, world, &mut levels);
            whole = Some(match whole {
                None => part,
                Some(sum) => sum.plus(&part),
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
            // The world tells of groups, not of the instances that will stand in them.
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
        fork.next_request = self.next_request;
        fork
    }

    fn perform<W: World>(self, run: Rehearsal, world: &mut W, levels: &mut Levels) -> Report {
        let watches = self.groups().map(|group| Watch { group, short_since: None, needed: 0, moved: None }).collect();
        let span = u128::from(run.until.millis_since(run.from));
        let pools = self.ledger.accounts.iter().map(|account| PoolUse {
            pool: account.pool.id,
            instance_ms: u128::from(account.lent()) * span,
            peak: 0,
            price: account.pool.price,
        });
        let report = Report { pools: pools.collect(), ..Report::default() };
        let mut stage = Stage { engine: self, world, run, cloud: Cloud::default(), watches, levels, report };
        stage.take_over();
        stage.play();
        stage.report
    }
}

impl Report {
    /// What two casts came to that did not meet. The peaks are still to be found.
    fn plus(mut self, other: &Self) -> Self {
        let Self { changes, flaps, launched, released, shortage_ms, pools, ticks: _ } = other;
        self.changes += changes;
        self.flaps += flaps;
        self.launched += launched;
        self.released += released;
        self.shortage_ms += shortage_ms;
        for (sum, pool) in self.pools.iter_mut().zip(pools) {
            sum.instance_ms += pool.instance_ms;
        }
        self
    }
}

impl<W: World> Stage<'_, W> {
    /// What was asked of the real cloud before the fork is done by the rehearsed one, as if asked at the start.
    fn take_over(&mut self) {
        self.engine.effects.clear();
        let Rehearsal { from, start_ms, stop_ms, .. } = self.run;
        for (id, request) in self.engine.requests() {
            let total = request.count - request.failed;
            match request.kind {
                crate::RequestKind::Launch => {
                    self.cloud.launches.push_back((from.after_millis(start_ms), id, total));
                }
                crate::RequestKind::Release => {
                    self.cloud.releases.push_back((from.after_millis(stop_ms), id, request.count, request.pool));
                }
            }
        }
    }

    fn play(&mut self) {
        let Rehearsal { from, until, sample_ms, .. } = self.run;
        let mut sample_at = from;
        let mut tick_at = self.engine.next_tick.max(from);
        self.levels.note(&self.engine, 0);
        let mut tick = 0;
        while tick_at < until {
            while sample_at <= tick_at {
                self.obey(sample_at);
                self.measure(sample_at);
                sample_at = sample_at.after_millis(sample_ms.max(1));
            }
            self.obey(tick_at);
            self.engine.handle_timeout(tick_at);
            self.report.ticks += 1;
            self.note_moves(tick_at);
            self.take_effects(tick_at);
            tick += 1;
            self.levels.note(&self.engine, tick);
            tick_at = self.engine.next_tick.max(tick_at.after_millis(1));
        }
        self.obey(until);
        for watch in &self.watches {
            if let Some(since) = watch.short_since {
                self.report.shortage_ms += until.millis_since(since);
            }
        }
    }

    /// Does what the cloud has finished by `now`.
    fn obey(&mut self, now: Timestamp) {
        loop {
            let launch = self.cloud.launches.front().map(|(at, ..)| *at).filter(|at| *at <= now);
            let release = self.cloud.releases.front().map(|(at, ..)| *at).filter(|at| *at <= now);
            let launch_first = match (launch, release) {
                (None, None) => return,
                (Some(launch), Some(release)) => launch <= release,
                (launch, _) => launch.is_some(),
            };
            if launch_first {
                let Some((at, request, count)) = self.cloud.launches.pop_front() else { return };
                let group = self.engine.requests.get(&request).map(|request| request.group);
                self.engine.handle_launch(at, request, count, 0);
                self.look(at, group);
            } else {
                let Some((at, request, count, pool)) = self.cloud.releases.pop_front() else { return };
                let before = self.engine.requests.get(&request).map_or(0, crate::Request::open);
                self.engine.handle_release(at, request, count);
                let left = u128::from(self.run.until.millis_since(at)) * u128::from(before);
                if let Some(place) = self.report.pools.iter().position(|held| held.pool == pool) {
                    self.report.pools[place].instance_ms -= left;
                }
            }
        }
    }

    fn measure(&mut self, at: Timestamp) {
        for place in 0..self.engine.slots.len() {
            let slot = &self.engine.slots[place];
            let (group, ready) = (slot.traffic.id, slot.inputs().ready);
            for index in 0..slot.samples.len() {
                let metric = self.engine.slots[place].group.policy().metrics[index].id;
                let value = self.world.measure(at, group, metric, ready);
                self.engine.take_sample(at, place, index, at, value);
            }
            let needed = self.world.needed(at, group);
            if let Some(watch) = self.watches.get_mut(place) {
                watch.needed = needed;
                note_shortage(watch, at, ready, &mut self.report);
            }
        }
    }

    fn look(&mut self, at: Timestamp, group: Option<GroupId>) {
        let Some(place) = group.and_then(|group| self.engine.place(group).ok()) else { return };
        let ready = self.engine.slots[place].inputs().ready;
        if let Some(watch) = self.watches.get_mut(place) {
            note_shortage(watch, at, ready, &mut self.report);
        }
    }

    fn note_moves(&mut self, now: Timestamp) {
        for moved in 0..self.engine.moves.len() {
            let step = self.engine.moves[moved];
            let grew = step.after > step.before;
            self.report.changes += 1;
            let Ok(place) = self.watches.binary_search_by_key(&step.group, |watch| watch.group) else { continue };
            let watch = &mut self.watches[place];
            if watch.moved.is_some_and(|(at, up)| up != grew && now.millis_since(at) < self.run.flap_ms) {
                self.report.flaps += 1;
            }
            watch.moved = Some((now, grew));
        }
        if self.watches.len() != self.engine.slots.len() {
            let engine = &self.engine;
            self.watches.retain(|watch| engine.place(watch.group).is_ok());
        }
    }

    fn take_effects(&mut self, now: Timestamp) {
        let left = u128::from(self.run.until.millis_since(now));
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Launch { request, pool, count, .. } => {
                    self.report.launched += u64::from(count);
                    self.cloud.launches.push_back((now.after_millis(self.run.start_ms), request, count));
                    if let Some(place) = self.report.pools.iter().position(|held| held.pool == pool) {
                        self.report.pools[place].instance_ms += left * u128::from(count);
                    }
                }
                Effect::Release { request, group, pool, count } => {
                    self.report.released += u64::from(count);
                    self.cloud.releases.push_back((now.after_millis(self.run.stop_ms), request, count, pool));
                    self.look(now, Some(group));
                }
            }
        }
    }
}

fn note_shortage(watch: &mut Watch, at: Timestamp, ready: u32, report: &mut Report) {
    match (ready < watch.needed, watch.short_since) {
        (true, None) => watch.short_since = Some(at),
        (false, Some(since)) => {
            report.shortage_ms += at.millis_since(since);
            watch.short_since = None;
        }
        (true, Some(_)) | (false, None) => {}
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
            skip: Skip::Proven,
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
