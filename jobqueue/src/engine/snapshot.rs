//! Snapshots: the engine's state as plain data. A restored copy behaves identically.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::num::NonZeroU16;

use super::call::{Call, Work};
use super::clock::Clock;
use super::flight::{Flight, Origin};
use super::keys::KeySlot;
use super::pools::OwnLife;
use super::sweep::Sweep;
use super::{Engine, Purpose, Sleeper};
use crate::config::{Config, PoolSpec, Service, Turns};
use crate::effect::{Change, Effect, Row, Want};
use crate::fair::Flow;
use crate::filter::Filters;
use crate::id::{AskId, CallId, Incarnation, JobId, JobKey, Key, PipelineId, Tag, Ticket, Version, Worker};
use crate::job::Job;
use crate::key::KeyRow;
use crate::pipeline::Pipeline;
use crate::plan::Plan;
use crate::rate::{Bucket, Rate};
use crate::rng::Rng;
use crate::share::Share;
use crate::store::{JobSlot, Lock, NONE, Planned};
use crate::time::Timestamp;

/// The layout of [`Snapshot`] that this version writes and reads.
const FORMAT: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct PipeState {
    id: PipelineId,
    row: Option<Pipeline>,
    asked: bool,
    read_at: Option<Version>,
    late: bool,
    plan: Option<Plan>,
    pass: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct PoolState {
    spec: PoolSpec,
    active: Vec<u32>,
    bucket: Bucket,
    share: Option<Share>,
    /// How far each tag is behind its fair share, by the tag's place.
    flows: Vec<(u32, u64, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct KeyState {
    key: Key,
    row: Option<KeyRow>,
    known: bool,
    asked: bool,
    callers: Vec<CallId>,
    openers: Vec<PipelineId>,
    void_newest: Option<JobKey>,
    /// Jobs that were set aside, best first.
    aside: Vec<JobId>,
    rate: Option<Rate>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct FlightState {
    ticket: Ticket,
    changes: Vec<Change>,
    origin: Origin,
    resolving: bool,
    waiters: Vec<CallId>,
}

/// A snapshot of an engine.
///
/// Two are equal whatever their clocks say; counters are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Snapshot {
    format: u32,
    engine: Incarnation,
    rng: Rng,
    next: [u64; 4],
    jobs: Vec<Job>,
    /// Jobs whose deadline is not watched, as their pipeline's row is locked or unknown.
    silent: Vec<JobId>,
    pipelines: Vec<PipeState>,
    lanes: Vec<(Tag, Service, NonZeroU16)>,
    pools: Vec<PoolState>,
    sleepers: Vec<(Timestamp, Sleeper)>,
    flights: Vec<FlightState>,
    calls: Vec<(CallId, Call)>,
    asks: Vec<(AskId, Want, Purpose)>,
    effects: Vec<Effect>,
    keys: Vec<KeyState>,
    filters: Filters,
    judging: Vec<JobId>,
    now: Clock,
    sweep: Sweep,
    gone: Vec<(Worker, u8)>,
    life: OwnLife,
    gone_lives: Vec<(Incarnation, Timestamp)>,
}

/// Why a snapshot was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot has a format of another version.
    #[error("the snapshot has format {0}, which this version does not read")]
    Format(u32),
    /// The snapshot is of another life of the engine: start a new engine and load the rows.
    #[error("the snapshot is of another engine's life: {0}")]
    OtherLife(Incarnation),
    /// The snapshot contradicts itself; the text says where.
    #[error("the snapshot contradicts itself: {0}")]
    Broken(&'static str),
}

impl Engine {
    /// The snapshot of the engine, as plain data.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let rows = self.store.jobs.places().filter_map(|(at, _)| self.store.row(at));
        let mut jobs: Vec<Job> = rows.collect();
        jobs.sort_unstable_by_key(|job| job.key);
        let slots = self.store.jobs.places().map(|(_, slot)| slot).filter(|slot| slot.lock.is_free());
        let silent = slots.filter(|slot| self.store.unwatched(slot.rest()).is_some());
        let mut silent: Vec<JobId> = silent.map(JobSlot::id).collect();
        silent.sort_unstable();
        let pipelines = self.store.pipes.places().map(|(_, slot)| PipeState {
            id: slot.id,
            row: slot.row.clone(),
            asked: slot.asked,
            read_at: slot.read_at,
            late: slot.late,
            plan: slot.graph().map(|graph| graph.plan.clone()),
            pass: slot.pass,
        });
        let mut pipelines: Vec<PipeState> = pipelines.collect();
        pipelines.sort_unstable_by_key(|pipeline| pipeline.id);
        let asks = self.asks.iter().map(|(ask, (want, purpose))| (*ask, *want, *purpose));
        let flights = self.flights.sorted().into_iter().filter_map(|(ticket, flight)| {
            let Flight { changes, origin, resolving, waiters, .. } = (**flight.as_ref()?).clone();
            Some(FlightState { ticket, changes, origin, resolving, waiters })
        });
        Snapshot {
            format: FORMAT,
            engine: self.config.engine,
            rng: self.rng.clone(),
            next: [self.next_ticket, self.next_call, self.next_ask, self.next_sequence],
            jobs,
            silent,
            pipelines,
            lanes: self.queues.lanes.iter().map(|lane| (lane.tag, lane.service, lane.weight)).collect(),
            pools: self.pool_states(),
            sleepers: self.sleepers.iter().copied().collect(),
            flights: flights.collect(),
            calls: self.calls.sorted().into_iter().map(|(id, call)| (id, *call)).collect(),
            asks: asks.collect(),
            effects: self.effects.iter().copied().collect(),
            keys: self.keys.iter().map(|(key, slot)| self.key_state(*key, slot)).collect(),
            filters: self.filters.clone(),
            judging: self.judging.iter().copied().collect(),
            now: Clock(self.now),
            sweep: self.sweep,
            gone: self.gone.iter().map(|(worker, pass)| (*worker, *pass)).collect(),
            life: self.life,
            gone_lives: self.gone_lives.iter().map(|(life, until)| (*life, *until)).collect(),
        }
    }

    fn key_state(&self, key: Key, slot: &KeySlot) -> KeyState {
        let aside = slot.aside.iter().filter_map(|(_, at)| self.store.jobs.get(*at));
        let aside = aside.map(JobSlot::id).collect();
        KeyState {
            key,
            row: slot.row,
            known: slot.known,
            asked: slot.asked,
            callers: slot.callers.clone(),
            openers: slot.openers.iter().copied().collect(),
            void_newest: slot.void_newest(),
            aside,
            rate: slot.rate,
        }
    }

    /// Restores the engine of this snapshot.
    ///
    /// ```
    /// # use tenon_jobqueue::{Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, PipelineId, PoolId, PoolSpec};
    /// # use tenon_jobqueue::{PullRequest, Submission, Tag, Timestamp, Worker, WorkerName};
    /// # let now = Timestamp::from_millis(1);
    /// # let mut engine = Engine::new(Config::builder(Incarnation::new(1)).recheck_ms(0).build()?);
    /// # let (pool, worker) = (PoolId::new(1), Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) });
    /// # engine.put_pool(now, PoolSpec { id: pool, tags: vec![Tag::OTHER], max_leases: 10, ..PoolSpec::default() })?;
    /// # let jobs = [NewJob { id: JobId::new(1), spec: JobSpec::default(), tag: None }];
    /// # let submission = Submission { id: PipelineId::new(1), class: Class::new(0), priority: 0, jobs: &jobs, needs: &[] };
    /// # let persist = |engine: &mut Engine| {
    /// #     let mut others = Vec::new();
    /// #     while let Some(effect) = engine.poll_effect() {
    /// #         match effect {
    /// #             Effect::Persist { ticket } => engine.handle_committed(now, ticket),
    /// #             other => others.push(other),
    /// #         }
    /// #     }
    /// #     others
    /// # };
    /// # engine.submit(now, &submission)?;
    /// # persist(&mut engine);
    /// let config = Config::builder(Incarnation::new(1)).recheck_ms(0).build()?;
    /// let copy = Engine::restore(config, &engine.snapshot())?;
    /// assert_eq!(copy.snapshot(), engine.snapshot());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RestoreError`] says what is wrong with it; there is no engine then.
    pub fn restore(config: Config, snapshot: &Snapshot) -> Result<Self, RestoreError> {
        if snapshot.format != FORMAT {
            return Err(RestoreError::Format(snapshot.format));
        }
        if snapshot.engine != config.engine {
            return Err(RestoreError::OtherLife(snapshot.engine));
        }
        let mut engine = Self::new(config);
        engine.now = snapshot.now.0;
        engine.rng = snapshot.rng.clone();
        for (tag, service, weight) in &snapshot.lanes {
            let lane = engine.queues.lane(*tag, &mut engine.store.tags);
            let lane = &mut engine.queues.lanes[lane as usize];
            (lane.service, lane.weight) = (*service, *weight);
        }
        if engine.queues.lanes.len() != snapshot.lanes.len() {
            return Err(RestoreError::Broken("one tag, two queues"));
        }
        for pool in &snapshot.pools {
            engine.queues.put_pool(pool.spec.clone(), &engine.store.jobs);
        }
        if engine.queues.pools.len() != snapshot.pools.len() {
            return Err(RestoreError::Broken("one pool twice"));
        }
        engine.restore_keys(snapshot);
        engine.restore_rows(snapshot)?;
        // A holder that its key's row does not name was asked about when it came; that is not to be asked again.
        engine.restore_keys(snapshot);
        [engine.next_ticket, engine.next_call, engine.next_ask, engine.next_sequence] = snapshot.next;
        engine.restore_work(snapshot)?;
        engine.restore_shares(snapshot)?;
        engine.restore_rotation(snapshot)?;
        engine.filters = snapshot.filters.clone();
        engine.sleepers = snapshot.sleepers.iter().copied().collect();
        engine.judging = snapshot.judging.iter().copied().collect();
        engine.sweep = snapshot.sweep;
        engine.store.pass = snapshot.sweep.pass;
        engine.gone = snapshot.gone.iter().copied().collect();
        engine.life = snapshot.life;
        engine.gone_lives = snapshot.gone_lives.iter().copied().collect();
        engine.undecided.clear();
        engine.superseded.clear();
        engine.queues.woken.clear();
        Ok(engine)
    }

    fn pool_states(&self) -> Vec<PoolState> {
        let mut all: Vec<PoolState> = Vec::new();
        for pool in &self.queues.pools {
            let (spec, active, bucket) = (pool.spec.clone(), pool.active.clone(), pool.bucket);
            let share = pool.share.as_deref().cloned();
            all.push(PoolState { spec, active, bucket, share, flows: Vec::new() });
        }
        for (lane, at) in self.queues.lanes.iter().zip(0..) {
            for link in &lane.pools {
                let pool = &self.queues.pools[link.pool as usize];
                if pool.spec.turns == Turns::Fair {
                    let (lag, owes) = link.flow.behind(pool.clock);
                    all[link.pool as usize].flows.push((at, lag, owes));
                }
            }
        }
        all
    }

    /// After the rows, whose coming moved the shares.
    fn restore_shares(&mut self, snapshot: &Snapshot) -> Result<(), RestoreError> {
        for (at, saved) in snapshot.pools.iter().enumerate() {
            self.queues.pools[at].bucket = saved.bucket;
            self.queues.pools[at].share = saved.share.clone().map(Box::new);
            for (lane, lag, owes) in &saved.flows {
                let lane = self.queues.lanes.get_mut(*lane as usize);
                let mut links = lane.into_iter().flat_map(|lane| &mut lane.pools);
                let link = links.find(|link| link.pool as usize == at);
                let link = link.ok_or(RestoreError::Broken("a share of no tag"))?;
                (link.flow, self.queues.pools[at].clock) = Flow::of(*lag, *owes);
            }
        }
        for lane in 0..u32::try_from(self.queues.lanes.len()).unwrap_or(0) {
            self.queues.refresh(lane, &self.store.jobs);
        }
        Ok(())
    }

    fn restore_keys(&mut self, snapshot: &Snapshot) {
        for key in &snapshot.keys {
            let slot = self.keys.entry(key.key).or_default();
            (slot.row, slot.known, slot.asked) = (key.row, key.known, key.asked);
            slot.callers.clone_from(&key.callers);
            slot.openers = key.openers.iter().copied().collect();
            slot.set_void_newest(key.void_newest);
            slot.rate = key.rate;
        }
    }

    fn restore_rows(&mut self, snapshot: &Snapshot) -> Result<(), RestoreError> {
        for pipeline in &snapshot.pipelines {
            if self.store.find_pipe(pipeline.id).is_some() {
                return Err(RestoreError::Broken("one pipeline twice"));
            }
            let at = self.store.pipe(pipeline.id);
            if let Some(slot) = self.store.pipes.get_mut(at) {
                slot.row.clone_from(&pipeline.row);
                slot.asked = pipeline.asked;
                slot.read_at = pipeline.read_at;
                slot.late = pipeline.late;
                slot.pass = pipeline.pass;
                slot.planned = pipeline.plan.clone().map(|plan| Box::new(Planned::new(plan)));
            }
        }
        for job in &snapshot.jobs {
            if !job.check() || job.state.is_terminal() {
                return Err(RestoreError::Broken("a job's row cannot be"));
            }
            if self.store.find_job(job.id()).is_some() {
                return Err(RestoreError::Broken("one job twice"));
            }
            if self.store.find_pipe(job.pipeline).is_none() {
                return Err(RestoreError::Broken("a job without its pipeline"));
            }
            self.apply_job(job, NONE);
        }
        if self.queues.lanes.len() != snapshot.lanes.len() {
            return Err(RestoreError::Broken("a job without its queue"));
        }
        for id in snapshot.keys.iter().flat_map(|key| &key.aside) {
            let at = self.store.find_job(*id).ok_or(RestoreError::Broken("a job set aside that is not there"))?;
            self.withdraw(at);
            self.set_aside(at);
            // Its deadline is watched there, too.
            self.place(at);
        }
        for id in &snapshot.silent {
            let at = self.store.find_job(*id).ok_or(RestoreError::Broken("a silent job that is not there"))?;
            let rest = self.store.jobs.get(at).map_or(NONE, JobSlot::rest);
            if let Some(alarm) = self.store.take_alarm(rest) {
                self.timers.disarm(alarm);
            }
        }
        Ok(())
    }

    fn restore_work(&mut self, snapshot: &Snapshot) -> Result<(), RestoreError> {
        for (id, call) in &snapshot.calls {
            if let Work::Pull(pull) = call.work {
                let Some(pool) = self.queues.pools.get_mut(pull.pool as usize) else {
                    return Err(RestoreError::Broken("a pull for no pool"));
                };
                if pull.flying == 0 {
                    let parked = &mut pool.parked;
                    let Err(place) = parked.binary_search(id) else {
                        return Err(RestoreError::Broken("one call twice"));
                    };
                    parked.insert(place, *id);
                    if !pull.is_hasty() {
                        self.patience.insert((pull.until, *id));
                    }
                }
            }
            if self.calls.get(*id).is_some() {
                return Err(RestoreError::Broken("one call twice"));
            }
            *self.calls.open(*id) = *call;
        }
        for saved in &snapshot.flights {
            if let Origin::Pull(_, pool) = saved.origin {
                let pool = self.queues.pools.get_mut(pool as usize);
                pool.ok_or(RestoreError::Broken("a delivery for no pool"))?.flying += 1;
            }
            if self.flights.get(saved.ticket).is_some() {
                return Err(RestoreError::Broken("one write twice"));
            }
            let mut flight = Box::<Flight>::default();
            for change in &saved.changes {
                let place = self.relock(change, saved.ticket)?;
                flight.add(change.expect, change.row.clone(), place);
            }
            (flight.origin, flight.resolving) = (saved.origin, saved.resolving);
            flight.waiters.clone_from(&saved.waiters);
            *self.flights.open(saved.ticket) = Some(flight);
        }
        self.asks = snapshot.asks.iter().map(|(ask, want, purpose)| (*ask, (*want, *purpose))).collect();
        self.effects = snapshot.effects.iter().copied().collect();
        Ok(())
    }

    /// Locks a row for the write that was under way for it; returns where it is kept.
    fn relock(&mut self, change: &Change, ticket: Ticket) -> Result<u32, RestoreError> {
        let (at, held) = match &change.row {
            Row::Plan(_) | Row::Pool(_) | Row::Life(_) => return Ok(NONE),
            Row::Job(_) if change.expect.is_none() => (NONE, None),
            Row::Key(row) => (NONE, self.keys.get(&row.key).and_then(|slot| slot.lock)),
            Row::Job(job) => {
                let at = self.store.find_job(job.id()).unwrap_or(NONE);
                (at, self.store.jobs.get(at).and_then(|slot| slot.lock.ticket()))
            }
            Row::Pipeline(row) => {
                let at = self.store.pipe(row.id);
                (at, self.store.pipes.get(at).and_then(|slot| slot.lock.ticket()))
            }
        };
        if held.is_some_and(|held| held != ticket) {
            return Err(RestoreError::Broken("two writes of one row"));
        }
        match &change.row {
            Row::Job(_) => self.lock_job(at, ticket),
            Row::Pipeline(_) => {
                if let Some(slot) = self.store.pipes.get_mut(at) {
                    slot.lock = Lock::of(ticket);
                }
            }
            Row::Key(row) => self.lock_key(row.key, ticket),
            Row::Plan(_) | Row::Pool(_) | Row::Life(_) => {}
        }
        Ok(at)
    }

    /// The rotations go on where they were, so the order of each pool's active lanes is state.
    fn restore_rotation(&mut self, snapshot: &Snapshot) -> Result<(), RestoreError> {
        for (at, saved) in snapshot.pools.iter().enumerate() {
            let found: BTreeSet<u32> = self.queues.pools[at].active.iter().copied().collect();
            let wanted: BTreeSet<u32> = saved.active.iter().copied().collect();
            if found != wanted || wanted.len() != saved.active.len() {
                return Err(RestoreError::Broken("a rotation that does not fit its queues"));
            }
            self.queues.set_rotation(at, &saved.active);
        }
        Ok(())
    }
}
