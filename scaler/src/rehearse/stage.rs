//! The host of a rehearsal: measures, ticks, starts and stops as the real one would, in a time of its own.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::plant::Plant;
use super::{Levels, PoolUse, Rehearsal, Report, Row, Timeline, World};
use crate::Timestamp;
use crate::effect::{Effect, Progress, Request, RequestKind};
use crate::engine::Engine;
use crate::group::{Rule, RuleKind};
use crate::hpa::{Pod, PodSample, Pods};
use crate::id::{GroupId, PoolId, RequestId};
use crate::reason::Reason;
use crate::strategy::Strategy;

/// The rehearsed cloud: orders that are not carried out yet. Both delays are constant, so both queues stay in order.
#[derive(Debug, Default)]
struct Cloud {
    launches: VecDeque<(Timestamp, RequestId, u32)>,
    releases: VecDeque<(Timestamp, RequestId, u32, PoolId)>,
}

/// The observations of one group.
#[derive(Clone, Debug)]
struct Watch {
    group: GroupId,
    needed: u32,
    /// By how many it is short, and since when that has been counted.
    short: u32,
    counted: Timestamp,
    short_instance_ms: u128,
    /// The last change of target, and whether it grew.
    moved: Option<(Timestamp, bool)>,
    /// Its instances, where a rule looks at them.
    plant: Option<Plant>,
    reason: Option<Reason>,
    /// Ready, starting, wanted and needed in the last row.
    row: Option<(u32, u32, u32, u32)>,
}

struct Stage<'w, W> {
    engine: Engine,
    world: &'w mut W,
    run: Rehearsal,
    cloud: Cloud,
    watches: Vec<Watch>,
    levels: &'w mut Levels,
    report: Report,
    pods: Vec<Pod>,
    samples: Vec<PodSample>,
}

/// Plays `engine` through a rehearsal.
pub(super) fn perform<W: World>(mut engine: Engine, run: Rehearsal, world: &mut W, levels: &mut Levels) -> Report {
    engine.effects.clear();
    engine.unasked_from = RequestId(engine.next_request);
    for place in 0..engine.slots.len() {
        if let Some(size) = world.start_size(engine.slots[place].id()) {
            engine.begin_with(run.from, place, size);
        }
    }
    let watches = engine.slots.iter().map(|slot| Watch {
        group: slot.id(),
        needed: 0,
        short: 0,
        counted: run.from,
        short_instance_ms: 0,
        moved: None,
        plant: slot.group.reads_pods().then(Plant::default),
        reason: None,
        row: None,
    });
    let watches = watches.collect();
    let span = u128::from(run.until.millis_since(run.from));
    let pools = engine.ledger.accounts.iter().map(|account| PoolUse {
        pool: account.pool.id,
        instance_ms: u128::from(account.lent()) * span,
        peak: 0,
        price: account.pool.price,
    });
    let report = Report { pools: pools.collect(), ..Report::default() };
    let (cloud, pods, samples) = (Cloud::default(), Vec::new(), Vec::new());
    let mut stage = Stage { engine, world, run, cloud, watches, levels, report, pods, samples };
    stage.take_over();
    stage.play();
    stage.report
}

impl<W: World> Stage<'_, W> {
    /// What was asked of the real cloud before the fork is done by the rehearsed one, as if asked at the start.
    fn take_over(&mut self) {
        let Rehearsal { from, start_ms, stop_ms, .. } = self.run;
        let long_ago = Timestamp::from_millis(from.as_millis().saturating_sub(DAY_MS));
        for (watch, slot) in self.watches.iter_mut().zip(&self.engine.slots) {
            for held in &slot.holdings {
                if let Some(plant) = &mut watch.plant {
                    plant.launch((held.pool, None), held.ready, long_ago, long_ago);
                }
            }
        }
        let open: Vec<(RequestId, Request)> = self.engine.requests().map(|(id, request)| (id, *request)).collect();
        for (id, request) in open {
            match request.kind {
                RequestKind::Launch => {
                    let total = request.came.done + request.starting();
                    let ready_at = from.after_millis(start_ms);
                    self.cloud.launches.push_back((ready_at, id, total));
                    if let Some(plant) = self.plant(request.group) {
                        plant.launch((request.pool, Some(id)), request.starting(), from, ready_at);
                    }
                    self.stop(from, id, request.leaving());
                }
                RequestKind::Release => {
                    self.cloud.releases.push_back((from.after_millis(stop_ms), id, request.count, request.pool));
                }
            }
        }
    }

    fn plant(&mut self, group: GroupId) -> Option<&mut Plant> {
        let at = self.watches.binary_search_by_key(&group, |watch| watch.group).ok()?;
        self.watches[at].plant.as_mut()
    }

    /// Instances of a launch that was cancelled are gone at once: they have not begun to serve.
    fn stop(&mut self, now: Timestamp, id: RequestId, count: u32) {
        let Some(request) = self.engine.requests.get(&id).copied().filter(|_| count > 0) else { return };
        let came = Progress { cancelled: request.came.cancelled + count, ..request.came };
        self.engine.handle_launch(now, id, came);
        let left = u128::from(self.run.until.millis_since(now)) * u128::from(count);
        if let Some(place) = self.report.pools.iter().position(|held| held.pool == request.pool) {
            self.report.pools[place].instance_ms -= left;
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
            self.obey(tick_at);
            self.note_rows(tick_at);
            tick += 1;
            self.levels.note(&self.engine, tick);
            tick_at = self.engine.next_tick.max(tick_at.after_millis(1));
        }
        self.obey(until);
        for watch in &mut self.watches {
            watch.count(until, watch.short, &mut self.report);
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
                self.engine.handle_launch(at, request, Progress::done(count));
                self.look(at, group);
            } else {
                let Some((at, request, count, pool)) = self.cloud.releases.pop_front() else { return };
                let before = self.engine.requests.get(&request).map_or(0, Request::open);
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
                let group_of = &self.engine.slots[place].group;
                let metric = group_of.policy().metrics[index].id;
                if group_of.is_computed(metric) {
                    continue;
                }
                let of_it = |rule: &&Rule| matches!(rule.kind, RuleKind::Metric(id, _) if id == metric);
                let of_pods =
                    |rule: &Rule| matches!(rule.strategy(), Some(Strategy::Hpa(hpa)) if hpa.metric.is_of_pods());
                let mut readers = group_of.policy().rules.iter().filter(of_it);
                let of_all = readers.clone().any(|rule| !of_pods(rule)) || readers.clone().next().is_none();
                let plant = self.watches.get(place).and_then(|watch| watch.plant.as_ref());
                if let Some(plant) = plant.filter(|_| readers.any(of_pods)) {
                    let requests = self.world.requests(group);
                    plant.pods(at, requests, &mut self.pods);
                    self.samples.clear();
                    self.world.measure_pods(at, group, metric, Pods(&self.pods), &mut self.samples);
                    self.engine.handle_pods(at, group, at, &self.pods);
                    self.engine.handle_pod_samples(at, group, metric, at, &self.samples);
                }
                if !of_all {
                    continue;
                }
                let value = self.world.measure(at, group, metric, ready);
                self.engine.take_sample(at, place, index, at, value);
            }
            let needed = self.world.needed(at, group);
            if let Some(watch) = self.watches.get_mut(place) {
                watch.needed = needed;
                watch.count(at, needed.saturating_sub(ready), &mut self.report);
            }
        }
    }

    fn look(&mut self, at: Timestamp, group: Option<GroupId>) {
        let Some(place) = group.and_then(|group| self.engine.place(group).ok()) else { return };
        let ready = self.engine.slots[place].inputs().ready;
        if let Some(watch) = self.watches.get_mut(place) {
            watch.count(at, watch.needed.saturating_sub(ready), &mut self.report);
        }
    }

    fn note_rows(&mut self, at: Timestamp) {
        if self.run.timeline == Timeline::None {
            return;
        }
        for (watch, slot) in self.watches.iter_mut().zip(&self.engine.slots) {
            let inputs = slot.inputs();
            let (ready, starting, wanted) = (inputs.ready, inputs.starting, slot.state.target());
            let row = (ready, starting, wanted, watch.needed);
            if watch.row == Some(row) {
                continue;
            }
            watch.row = Some(row);
            watch.count(at, watch.short, &mut self.report);
            self.report.timeline.push(Row {
                at,
                group: watch.group,
                ready,
                starting,
                wanted,
                needed: watch.needed,
                reason: watch.reason,
                pools: slot.holdings.iter().map(|held| (held.pool, held.wanted())).collect(),
                short_instance_ms: watch.short_instance_ms,
            });
        }
    }

    fn note_moves(&mut self, now: Timestamp) {
        if !self.engine.moves.is_empty() {
            self.world.decided(now, &self.engine.moves);
        }
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
            watch.reason = Some(step.reason);
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
                Effect::Launch { request, group, pool, count, .. } => {
                    self.report.launched += u64::from(count);
                    let ready_at = now.after_millis(self.run.start_ms);
                    self.cloud.launches.push_back((ready_at, request, count));
                    if let Some(plant) = self.plant(group) {
                        plant.launch((pool, Some(request)), count, now, ready_at);
                    }
                    if let Some(place) = self.report.pools.iter().position(|held| held.pool == pool) {
                        self.report.pools[place].instance_ms += left * u128::from(count);
                    }
                }
                Effect::Cancel { request, group, keep, .. } => {
                    let at = self.cloud.launches.partition_point(|(_, id, _)| *id < request);
                    if let Some((_, id, total)) = self.cloud.launches.get_mut(at)
                        && *id == request
                    {
                        self.report.cancelled += u64::from(*total - keep.min(*total));
                        *total = keep;
                    }
                    let leaving = self.engine.requests.get(&request).map_or(0, Request::leaving);
                    if let Some(plant) = self.plant(group) {
                        plant.cancel(request, leaving);
                    }
                    self.stop(now, request, leaving);
                }
                Effect::Release { request, group, pool, count } => {
                    self.report.released += u64::from(count);
                    self.cloud.releases.push_back((now.after_millis(self.run.stop_ms), request, count, pool));
                    if let Some(plant) = self.plant(group) {
                        plant.release(pool, count, now);
                    }
                    self.look(now, Some(group));
                }
            }
        }
    }
}

impl Watch {
    /// Counts the shortage up to `at`, from when on the group is short by `short`.
    fn count(&mut self, at: Timestamp, short: u32, report: &mut Report) {
        if self.short > 0 {
            let span = at.millis_since(self.counted);
            let missing = u128::from(self.short) * u128::from(span);
            report.shortage_ms += span;
            report.short_instance_ms += missing;
            self.short_instance_ms += missing;
        }
        (self.short, self.counted) = (short, at.max(self.counted));
    }
}

const DAY_MS: u64 = 86_400_000;
