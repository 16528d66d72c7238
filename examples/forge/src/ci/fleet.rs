//! The worker fleet: the scaler says how many, this starts and stops them, and tells what became of it.
//!
//! What the scaler reads is the load (jobs that wait or run and that these workers can do) and the age of the oldest that
//! waits. A worker counts as there once it has asked for work.

mod crew;
#[cfg(test)]
mod torture;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
pub(crate) use crew::Launch;
use crew::{Crew, Stage};
use tenon_scaler::strategy::{Change, QueueLength, Strategy, Threshold, Trigger};
use tenon_scaler::{
    Behavior, Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Pace, Policy, Pool, PoolId, PoolKind,
    ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, TenantId, Timestamp, Traffic, VersionId, Watermark,
};

use super::centre::{Centre, now};
use super::view::{FleetDecision, FleetPoint, FleetView};

const GROUP: GroupId = GroupId(1);
const POOL: PoolId = PoolId(1);
const SHAPE: ShapeId = ShapeId(1);
const RELEASE: ReleaseId = ReleaseId(1);
const LOAD: MetricId = MetricId(1);
const OLDEST: MetricId = MetricId(2);
const BY_LOAD: RuleId = RuleId(1);
const BY_AGE: RuleId = RuleId(2);

/// How often the fleet is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How many points and decisions are remembered.
const POINTS: usize = 2_400;
const DECISIONS: u32 = 200;

/// How the fleet is sized.
#[derive(Clone, Debug)]
pub(crate) struct Sizing {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Jobs, waiting or running, that one worker carries.
    pub(crate) jobs_per_worker: u32,
    /// A job that waited longer than this asks for one worker more.
    pub(crate) oldest_ms: u64,
    /// For so long fewer must do before a worker goes.
    pub(crate) calm_ms: u64,
    /// What the workers have.
    pub(crate) tags: Vec<String>,
}

/// The fleet.
#[derive(Debug)]
pub(crate) struct Fleet {
    state: Mutex<State>,
    sizing: Sizing,
    launch: Box<dyn Launch>,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    crew: Crew,
    points: VecDeque<FleetPoint>,
    decisions: VecDeque<FleetDecision>,
    target: u32,
    why: String,
    closing: bool,
}

impl Fleet {
    pub(crate) fn new(centre: &Centre, sizing: Sizing, launch: Box<dyn Launch>) -> Result<Self> {
        let mut decisions: VecDeque<FleetDecision> = centre.store.fleet()?.into();
        decisions.truncate(DECISIONS as usize);
        let state = State {
            engine: engine(&sizing)?,
            crew: Crew::default(),
            points: VecDeque::new(),
            decisions,
            target: 0,
            why: "starting".into(),
            closing: false,
        };
        Ok(Self { state: Mutex::new(state), sizing, launch })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the fleet at its size, for ever.
    pub(crate) async fn run(self: Arc<Self>, centre: Arc<Centre>) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            let (load, oldest_ms) = self.load(&centre);
            self.with(|state| state.turn(self.launch.as_ref(), &centre, load, oldest_ms));
            let (changed, news) = self.with(|state| state.note(load));
            if changed {
                centre.stir();
            }
            if let Some(decision) = news {
                tracing::info!(from = decision.from, to = decision.to, "the fleet: {}", decision.reason);
                if let Err(e) = centre.store.add_fleet(&decision, DECISIONS) {
                    tracing::warn!("a decision about the fleet is not remembered: {e}");
                }
            }
        }
    }

    /// Jobs that wait or run and that these workers can do, and how long the oldest has waited.
    fn load(&self, centre: &Centre) -> (u32, u64) {
        let at = now();
        centre.view(|core| {
            let components = &core.components;
            let ours = |component: u32| {
                components.get(&component).is_some_and(|needs| needs.iter().all(|tag| self.sizing.tags.contains(tag)))
            };
            let mut load: u32 = 0;
            let mut oldest: u64 = 0;
            for queue in core.engine.queues().filter(|queue| ours(queue.tag.component.get())) {
                load = load.saturating_add(queue.depth).saturating_add(queue.leased);
                oldest = oldest.max(queue.oldest.map_or(0, |since| at.millis_since(since)));
            }
            (load, oldest)
        })
    }

    /// Nobody is started, and the page says why.
    pub(crate) fn stay_empty(&self, why: &str) {
        self.with(|state| state.why = format!("no jobs run: {why}"));
    }

    pub(crate) fn view(&self) -> FleetView {
        self.with(|state| FleetView {
            min: self.sizing.min,
            max: self.sizing.max,
            target: state.target,
            ready: state.crew.serving(),
            starting: state.crew.count(|stage| matches!(stage, Stage::Starting(_))),
            why: state.why.clone(),
            points: state.points.iter().copied().collect(),
            decisions: state.decisions.iter().cloned().collect(),
        })
    }

    /// The processes by name: their ids, and whether they were told to go.
    pub(crate) fn processes(&self) -> BTreeMap<String, (Option<u32>, bool)> {
        self.with(|state| {
            let is_leaving = |stage| matches!(stage, Stage::Leaving(_));
            state.crew.processes().map(|(name, pid, stage)| (name.clone(), (pid, is_leaving(stage)))).collect()
        })
    }

    /// Ends all workers, which give back what they run, and waits for that for a while.
    pub(crate) async fn stop(&self, patience: Duration) {
        let workers = self.with(|state| {
            state.closing = true;
            state.crew.disband()
        });
        let ends = workers.into_iter().map(|mut worker| async move {
            drop(worker.stdin.take());
            if tokio::time::timeout(patience, worker.wait()).await.is_err() {
                let _gone_already = worker.kill().await;
            }
        });
        futures_util::future::join_all(ends).await;
    }
}

/// One group of one pool, sized by two rules: so many jobs a worker, and one worker more when a job waits too long.
fn engine(sizing: &Sizing) -> Result<Engine> {
    let at = Timestamp::from_millis(now().as_millis());
    let tick_ms = u64::try_from(TICK.as_millis())?;
    let mut engine = Engine::new(Config::builder().tick_ms(tick_ms).back_off_ms(2_000, 30_000).build()?);
    let stock = vec![(SHAPE, sizing.max)];
    let kind = PoolKind::Resident;
    let pool = Pool { id: POOL, kind, idc: IdcId(1), price: 1, watermark: Watermark::default(), stock };
    engine.put_pool(at, pool)?;
    engine.put_release(at, RELEASE, VersionId(1));
    let metric = |id| Metric { id, stale_after_ms: 10_000, when_stale: Staleness::ForbidIn };
    let units = |n: u64| Milli::from_units(i64::try_from(n).unwrap_or(i64::MAX));
    let length = QueueLength { per_instance: units(u64::from(sizing.jobs_per_worker)) };
    let out = Some(Trigger { past: units(sizing.oldest_ms.div_ceil(1000)), by: Change::Count(1) });
    let waited = Threshold { out, inward: None, need: 4, of: 4 };
    let policy = Policy {
        min: sizing.min,
        max: sizing.max,
        metrics: vec![metric(LOAD), metric(OLDEST)],
        rules: vec![
            Rule { id: BY_LOAD, kind: RuleKind::Metric(LOAD, Strategy::QueueLength(length)) },
            Rule { id: BY_AGE, kind: RuleKind::Metric(OLDEST, Strategy::Threshold(waited)) },
        ],
        behavior: Behavior { inward: Pace { stabilize_ms: sizing.calm_ms, ..Pace::default() }, ..Behavior::default() },
        ..Policy::default()
    };
    let traffic = Traffic { id: GROUP, idcs: vec![], tenant: TenantId(1), release: RELEASE, shape: SHAPE };
    engine.put_group(at, traffic, policy)?;
    Ok(engine)
}

impl State {
    /// One look at the fleet: tells what became of it, asks for its size, acts.
    fn turn(&mut self, launch: &dyn Launch, centre: &Centre, load: u32, oldest_ms: u64) {
        if self.closing {
            return;
        }
        let at = Timestamp::from_millis(now().as_millis());
        for name in self.crew.reap() {
            centre.forget(&name);
        }
        let seen = centre.view(|core| core.workers.keys().cloned().collect::<Vec<_>>());
        self.crew.greet(at.as_millis(), &seen);
        self.tell(at);
        let oldest = Milli::from_thousandths(i64::try_from(oldest_ms).unwrap_or(i64::MAX));
        self.engine.handle_sample(at, GROUP, LOAD, at, Some(Milli::from_units(i64::from(load))));
        self.engine.handle_sample(at, GROUP, OLDEST, at, Some(oldest));
        self.engine.handle_timeout(at);
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Launch { request, count, .. } => self.crew.launch(at.as_millis(), launch, request, count),
                Effect::Cancel { request, keep, .. } => self.crew.cancel(request, keep),
                Effect::Release { request, count, .. } => {
                    let busy = centre.view(|core| {
                        let busy = core.workers.iter().filter(|(_, seen)| seen.job.is_some());
                        busy.map(|(name, _)| name.clone()).collect::<Vec<_>>()
                    });
                    self.crew.release(request, count, &busy);
                }
            }
        }
    }

    /// Tells what every request has come to, and how many serve: who ended by itself is missed there.
    fn tell(&mut self, at: Timestamp) {
        let crew = &self.crew;
        let _ = self.engine.catch_up(at, |id, _| Ok::<_, std::convert::Infallible>(Some(crew.totals(id))));
        self.engine.handle_census(at, GROUP, POOL, at, self.crew.serving());
        let engine = &self.engine;
        self.crew.keep(|id| engine.requests().any(|(held, _)| held == id));
    }

    /// Remembers how it stands; whether that is new, and a change of the target with its reason.
    fn note(&mut self, load: u32) -> (bool, Option<FleetDecision>) {
        let at_ms = now().as_millis();
        let target = self.engine.state(GROUP).map_or(0, tenon_scaler::GroupState::target);
        let point = FleetPoint { at_ms, target, ready: self.crew.serving(), load };
        let same = |p: &FleetPoint| (p.target, p.ready, p.load) == (point.target, point.ready, point.load);
        let changed = !self.points.back().is_some_and(same);
        if changed {
            self.points.push_back(point);
            if self.points.len() > POINTS {
                self.points.pop_front();
            }
        }
        if let Some(record) = self.engine.record(GROUP) {
            self.why = words(record.decision.reason, load);
        }
        let before = std::mem::replace(&mut self.target, target);
        let Some(record) = self.engine.record(GROUP).filter(|_| before != target) else { return (changed, None) };
        let reason = record.decision.reason;
        let decision =
            FleetDecision { at_ms, from: before, to: target, code: reason.code(), reason: words(reason, load) };
        self.decisions.push_front(decision.clone());
        self.decisions.truncate(DECISIONS as usize);
        (true, Some(decision))
    }
}

/// The scaler's reason, with what the rules are about.
fn words(reason: tenon_scaler::Reason, load: u32) -> String {
    let jobs = if load == 1 { "1 job".to_owned() } else { format!("{load} jobs") };
    if let tenon_scaler::Reason::Metric(rule) = reason {
        return if rule == BY_LOAD {
            format!("{jobs} waiting or running")
        } else {
            "a job has waited too long".to_owned()
        };
    }
    format!("{reason}, with {jobs} waiting or running")
}
