//! The host of a rehearsal: measures, ticks, starts and stops as the real one would, in a time of its own.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Levels, PoolUse, Rehearsal, Report, World};
use crate::Timestamp;
use crate::effect::{Effect, Progress, Request, RequestKind};
use crate::engine::Engine;
use crate::id::{GroupId, PoolId, RequestId};

/// What the rehearsed host has been asked and not yet done: both delays are constant, so that both lines stay in order.
#[derive(Debug, Default)]
struct Cloud {
    launches: VecDeque<(Timestamp, RequestId, u32)>,
    releases: VecDeque<(Timestamp, RequestId, u32, PoolId)>,
}

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

/// Plays `engine` through a rehearsal.
pub(super) fn perform<W: World>(engine: Engine, run: Rehearsal, world: &mut W, levels: &mut Levels) -> Report {
    let watches = engine.groups().map(|group| Watch { group, short_since: None, needed: 0, moved: None }).collect();
    let span = u128::from(run.until.millis_since(run.from));
    let pools = engine.ledger.accounts.iter().map(|account| PoolUse {
        pool: account.pool.id,
        instance_ms: u128::from(account.lent()) * span,
        peak: 0,
        price: account.pool.price,
    });
    let report = Report { pools: pools.collect(), ..Report::default() };
    let mut stage = Stage { engine, world, run, cloud: Cloud::default(), watches, levels, report };
    stage.take_over();
    stage.play();
    stage.report
}

impl<W: World> Stage<'_, W> {
    /// What was asked of the real cloud before the fork is done by the rehearsed one, as if asked at the start.
    fn take_over(&mut self) {
        self.engine.effects.clear();
        let Rehearsal { from, start_ms, stop_ms, .. } = self.run;
        self.engine.unasked_from = RequestId(self.engine.next_request);
        let open: Vec<(RequestId, Request)> = self.engine.requests().map(|(id, request)| (id, *request)).collect();
        for (id, request) in open {
            match request.kind {
                RequestKind::Launch => {
                    let total = request.came.done + request.starting();
                    self.cloud.launches.push_back((from.after_millis(start_ms), id, total));
                    self.stop(from, id, request.leaving());
                }
                RequestKind::Release => {
                    self.cloud.releases.push_back((from.after_millis(stop_ms), id, request.count, request.pool));
                }
            }
        }
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
                Effect::Cancel { request, keep, .. } => {
                    let at = self.cloud.launches.partition_point(|(_, id, _)| *id < request);
                    if let Some((_, id, total)) = self.cloud.launches.get_mut(at)
                        && *id == request
                    {
                        self.report.cancelled += u64::from(*total - keep.min(*total));
                        *total = keep;
                    }
                    let leaving = self.engine.requests.get(&request).map_or(0, Request::leaving);
                    self.stop(now, request, leaving);
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
