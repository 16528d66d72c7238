//! The face: ask it, do what its effects say, tell it what happened.

mod call;
mod flight;
mod keys;
#[cfg(feature = "shared")]
mod news;
mod observe;
mod pull;
mod rows;
mod snapshot;

pub use observe::{Counters, Explanation, QueueView, Standing, Why};
pub use rows::Compensated;
pub use snapshot::{RestoreError, Snapshot};

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::num::NonZeroU16;

use crate::config::{Config, PoolSpec, Service};
use crate::decide;
use crate::effect::{Answer, Change, Effect, Row, Want};
use crate::event::{Act, Event, Stopper};
use crate::filter::{Filters, Hold, Judgement};
use crate::id::{
    AskId, Attempt, CallId, Class, Component, Incarnation, JobId, JobKey, Key, LeaseToken, PipelineId, PoolId, Tag,
    Ticket, Version, Worker, WriteId,
};
use crate::job::{Entry, Job, ResultKey, State, Tally};
use crate::pipeline::{NewJob, Pipeline, Submission};
use crate::queues::Queues;
use crate::rate::Rate;
use crate::reason::{Reason, Refused};
use crate::recent::Recent;
use crate::rng::{Rng, mix};
use crate::store::{JobSlot, NONE, Store};
use crate::time::Timestamp;
use crate::timer::Timers;
use crate::transition::Stamp;

use call::{Call, Pull, Work};
use flight::{Flight, Origin};
use keys::KeySlot;

/// A worker's wish for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PullRequest {
    /// The pool it works for.
    pub pool: PoolId,
    /// The worker.
    pub worker: Worker,
    /// How many jobs it wants, 1 or more.
    pub want: u32,
    /// How long it waits for the first, in milliseconds.
    pub wait_ms: u64,
    /// Its pull before this one, if it never saw that one's answer: what was assigned by it is assigned again.
    pub previous: Option<CallId>,
}

/// Why rows are being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Purpose {
    /// A command would be refused by what is in memory, or nothing is.
    Call(CallId),
    /// Nobody knows whether this write was made.
    Resolve(Ticket),
    /// A pipeline's row, or its jobs, are not in memory.
    Pipeline(PipelineId),
    /// A worker says that it never saw this assignment.
    Again(CallId, LeaseToken),
    /// A key's row is not in memory.
    Key(Key),
}

/// What a rate holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Sleeper {
    /// The pulls parked at a pool, by its place.
    Pool(u32),
    /// The jobs set aside for a key.
    Key(Key),
}

/// The engine: an index over rows that live in a database. It never owns the truth, and can be made from the rows at
/// any time.
///
/// See the [crate's page](crate) for the loop around it.
#[derive(Clone, Debug)]
pub struct Engine {
    config: Config,
    now: Timestamp,
    rng: Rng,
    next_ticket: u64,
    next_call: u64,
    next_ask: u64,
    next_sequence: u64,
    store: Store,
    queues: Queues,
    timers: Timers,
    flights: Recent<Ticket, Flight>,
    calls: Recent<CallId, Call>,
    /// When parked pulls give up.
    patience: BTreeSet<(Timestamp, CallId)>,
    /// When rates let go what they hold back.
    sleepers: BTreeSet<(Timestamp, Sleeper)>,
    asks: BTreeMap<AskId, (Want, Purpose)>,
    effects: VecDeque<Effect>,
    /// Pipelines that may have something to decide; empty between calls.
    undecided: VecDeque<PipelineId>,
    keys: BTreeMap<Key, KeySlot>,
    /// Jobs that give way to newer ones, and to which; empty between calls.
    superseded: VecDeque<(JobId, JobId)>,
    filters: Filters,
    /// Jobs that the host is being asked about.
    judging: BTreeSet<JobId>,
    counters: Counters,
    /// The next write, as far as it is put together; empty between calls.
    scratch: Flight,
    batch: Vec<Job>,
    named: Vec<(Tag, JobId)>,
    /// Settled writes, whose memory is used again.
    spare: Vec<Flight>,
}

impl Engine {
    /// An engine with no rows and no pools.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            now: Timestamp::ZERO,
            rng: Rng::new(config.seed),
            next_ticket: 1,
            next_call: 1,
            next_ask: 1,
            next_sequence: 1,
            store: Store::default(),
            queues: Queues::new(config.ageing_ms),
            timers: Timers::default(),
            flights: Recent::default(),
            calls: Recent::default(),
            patience: BTreeSet::new(),
            sleepers: BTreeSet::new(),
            asks: BTreeMap::new(),
            effects: VecDeque::new(),
            undecided: VecDeque::new(),
            keys: BTreeMap::new(),
            superseded: VecDeque::new(),
            filters: Filters::default(),
            judging: BTreeSet::new(),
            counters: Counters::default(),
            scratch: Flight::new(),
            batch: Vec::new(),
            named: Vec::new(),
            spare: Vec::new(),
            config,
        }
    }

    // ---- commands -------------------------------------------------------------------------------------------------

    /// Declares a pool, anew or again. Pools are an operator's configuration, told again after a restart.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] beyond the limits of pools and their tags; nothing is changed.
    pub fn put_pool(&mut self, now: Timestamp, pool: PoolSpec) -> Result<(), Refused> {
        let limits = *self.config.limits();
        within(pool.tags.len(), limits.tags_per_pool)?;
        if self.queues.pool(pool.id).is_none() {
            within(self.queues.pools.len() + 1, limits.pools)?;
        }
        self.lift(now);
        self.queues.put_pool(pool, &self.store.jobs);
        self.pump();
        Ok(())
    }

    /// Pauses or resumes a tag: while it is closed its jobs wait, and no other tag's do.
    ///
    /// # Errors
    ///
    /// [`Refused::Unknown`] if no job ever had this tag here; nothing is changed.
    pub fn set_tag(&mut self, now: Timestamp, tag: Tag, service: Service) -> Result<(), Refused> {
        let lane = self.queues.find(tag).ok_or(Refused::Unknown)?;
        self.lift(now);
        self.queues.lanes[lane as usize].service = service;
        for link in 0..self.queues.lanes[lane as usize].pools.len() {
            self.queues.note_all(self.queues.lanes[lane as usize].pools[link].pool);
        }
        self.queues.refresh(lane, &self.store.jobs);
        self.pump();
        Ok(())
    }

    /// Says what a tag weighs in pools that go by [`Turns::Fair`](crate::Turns); 1 until it is said. It acts with the
    /// next job that is given out. Like pools, weights are an operator's configuration, told again after a restart.
    ///
    /// # Errors
    ///
    /// [`Refused::Unknown`] if no job ever had this tag here; nothing is changed.
    pub fn set_weight(&mut self, now: Timestamp, tag: Tag, weight: NonZeroU16) -> Result<(), Refused> {
        let lane = self.queues.find(tag).ok_or(Refused::Unknown)?;
        self.lift(now);
        self.queues.lanes[lane as usize].weight = weight;
        self.queues.refresh(lane, &self.store.jobs);
        self.pump();
        Ok(())
    }

    /// Switches a component off or on, system-wide: while it is off, its jobs are skipped as their batches open.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many filters; nothing is changed.
    pub fn set_component(&mut self, now: Timestamp, component: Component, service: Service) -> Result<(), Refused> {
        match service {
            Service::Closed => {
                within(self.filters.len() + 1, self.config.limits().filters)?;
                self.filters.degrade(component);
            }
            Service::Open => {
                self.filters.restore(component);
            }
        }
        self.lift(now);
        self.pump();
        Ok(())
    }

    /// Declares a window in which matching jobs are held as their batches open. Like pools, windows are an operator's
    /// configuration, told again after a restart; what is held is in the rows.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many filters; nothing is changed.
    pub fn hold(&mut self, now: Timestamp, hold: Hold) -> Result<(), Refused> {
        within(self.filters.len() + 1, self.config.limits().filters)?;
        self.lift(now);
        self.filters.hold(hold);
        self.pump();
        Ok(())
    }

    /// Takes a window back and sends what it held to the queues.
    pub fn release(&mut self, now: Timestamp, filter: u32) {
        self.lift(now);
        self.filters.unhold(filter);
        self.release_held(filter);
        self.pump();
    }

    /// Says that `job`, of an earlier run, succeeded with these inputs. What succeeds under this engine is remembered
    /// without being told.
    pub fn remember(&mut self, now: Timestamp, key: ResultKey, job: JobId) {
        self.lift(now);
        self.filters.remember(key, job, self.config.limits().results);
        self.pump();
    }

    /// Makes a pipeline and all its jobs. Answered with [`Answer::Submitted`] once they are written.
    ///
    /// # Errors
    ///
    /// [`Refused::Invalid`] without jobs, with a job twice, or with a policy that allows nothing; [`Refused::Exists`] if
    /// an id is in use here (if elsewhere, the answer says so); [`Refused::Full`]. Nothing is changed.
    pub fn submit(&mut self, now: Timestamp, new: &Submission<'_>) -> Result<CallId, Refused> {
        self.check_submission(new)?;
        let call = self.open(now, Work::Submit(new.id))?;
        let ticket = self.ticket();
        let (id, class, priority) = (new.id, new.class, new.priority);
        let (version, write, created) = (Version::FIRST, self.write_id(ticket), self.now);
        let mut row = Pipeline {
            id,
            version,
            write,
            class,
            priority,
            created,
            order: 0,
            unstarted: 0,
            remaining: 0,
            failed: 0,
            stopped: 0,
            aborted_at: None,
        };
        let mut batch = core::mem::take(&mut self.batch);
        batch.clear();
        for job in new.jobs {
            let job = Job {
                key: JobKey { job: job.id, attempt: Attempt::FIRST },
                pipeline: id,
                version,
                write,
                spec: job.spec,
                tag: self.tag_of(job, class),
                priority,
                state: State::Unstart,
                reason: Reason::Submitted,
                since: created,
                until: Timestamp::MAX,
                timeout_at: Timestamp::MAX,
                sequence: self.next_sequence,
                delivery: None,
                entry: Entry::Run,
                tally: Tally::default(),
                outcome: None,
            };
            self.next_sequence += 1;
            row.absorb(None, Some(&job));
            batch.push(job);
        }
        // The first batch opens at birth, unless the host must be asked: that is one write less for each pipeline.
        decide::decide(created, &mut row, &mut batch, &self.filters, &self.stamp(ticket));
        for job in &batch {
            self.put(NONE, &Change { expect: None, row: Row::Job(Job { version, ..*job }) });
        }
        self.batch = batch;
        self.put(NONE, &Change { expect: None, row: Row::Pipeline(Pipeline { version, ..row }) });
        self.propose(ticket, Origin::Call(call));
        Ok(call)
    }

    fn check_submission(&mut self, new: &Submission<'_>) -> Result<(), Refused> {
        let mut named = core::mem::take(&mut self.named);
        named.clear();
        named.extend(new.jobs.iter().map(|job| (self.tag_of(job, new.class), job.id)));
        let checked = self.check_named(new, &mut named);
        self.named = named;
        checked
    }

    fn check_named(&self, new: &Submission<'_>, named: &mut [(Tag, JobId)]) -> Result<(), Refused> {
        let limits = self.config.limits();
        named.sort_unstable_by_key(|(_, id)| *id);
        let twice = named.windows(2).any(|pair| pair[0].1 == pair[1].1);
        let hopeless = |job: &NewJob| {
            let policy = job.spec.policy;
            policy.max_attempts == 0 || policy.max_crashes == 0 || policy.max_nacks == 0 || policy.lease_ms == 0
        };
        if named.is_empty() || twice || new.jobs.iter().any(hopeless) {
            return Err(Refused::Invalid);
        }
        let is_here = |(_, id): &(Tag, JobId)| self.store.find_job(*id).is_some();
        if self.store.find_pipe(new.id).is_some() || named.iter().any(is_here) {
            return Err(Refused::Exists);
        }
        within(named.len(), limits.jobs_per_pipeline)?;
        within(self.store.jobs.used as usize + named.len(), limits.jobs)?;
        within(self.store.pipes.used as usize + 1, limits.pipelines)?;
        named.sort_unstable();
        let mut tags = self.queues.lanes.len();
        for same in named.chunk_by(|a, b| a.0 == b.0) {
            let lane = self.queues.find(same[0].0);
            tags += usize::from(lane.is_none());
            let there = lane.map_or(0, |lane| self.queues.lanes[lane as usize].jobs);
            within(there as usize + same.len(), limits.jobs_per_tag)?;
        }
        within(tags, limits.tags)
    }

    fn tag_of(&self, job: &NewJob, class: Class) -> Tag {
        job.tag.unwrap_or_else(|| self.config.tag(job.spec.component, class))
    }

    /// A worker wants jobs. Each comes as [`Effect::Assign`]; then the pull is answered with [`Answer::Pulled`]. If
    /// there is nothing, the pull is parked until something comes or its patience ends.
    ///
    /// # Errors
    ///
    /// [`Refused::Disabled`] for a pool that is closed or unknown, [`Refused::Invalid`] for no jobs,
    /// [`Refused::Full`] for too many or with too many calls open. Nothing is changed.
    pub fn pull(&mut self, now: Timestamp, request: &PullRequest) -> Result<CallId, Refused> {
        let pool = self.queues.pool(request.pool).ok_or(Refused::Disabled)?;
        if self.queues.pools[pool as usize].spec.service == Service::Closed {
            return Err(Refused::Disabled);
        }
        if request.want == 0 {
            return Err(Refused::Invalid);
        }
        within(request.want as usize, self.config.limits().pull)?;
        let until = now.max(self.now).after_millis(request.wait_ms);
        let (worker, want) = (request.worker, request.want);
        let pull = Pull { pool: request.pool, worker, want, until, flying: 0, got: 0 };
        let call = self.open(now, Work::Pull(pull))?;
        if let Some(previous) = request.previous {
            self.redeliver(call, worker, previous);
        }
        self.serve(call);
        self.pump();
        Ok(call)
    }

    /// The host no longer waits for a pull, for instance because the worker hung up. It is not answered; jobs already
    /// on their way to it come back when their acknowledgement is overdue, or to a pull that names this one.
    pub fn cancel_pull(&mut self, now: Timestamp, call: CallId) {
        self.lift(now);
        if matches!(self.calls.get(call), Some(Call { work: Work::Pull(_), .. })) {
            self.unpark(call);
            self.calls.remove(call);
        } else {
            self.counters.ignored += 1;
        }
        self.pump();
    }

    /// A worker says something about a job that it holds. Answered with [`Answer::Done`] once it is written; a worker
    /// starts a job only when its [`Act::Ack`] is answered so.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many calls open; nothing is changed. The other refusals come as answers, since
    /// nothing is refused before the row was read again.
    pub fn work(&mut self, now: Timestamp, worker: Worker, token: LeaseToken, act: Act) -> Result<CallId, Refused> {
        self.event(now, token.key.job, Event::Work { worker, token, act })
    }

    /// The callback that a suspended job waits for has come. Answered like [`Engine::work`].
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn callback(&mut self, now: Timestamp, token: LeaseToken) -> Result<CallId, Refused> {
        self.event(now, token.key.job, Event::Callback { token })
    }

    /// Somebody approves a manual job, or releases a held one. Answered with [`Answer::Done`].
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn approve(&mut self, now: Timestamp, job: JobId) -> Result<CallId, Refused> {
        self.event(now, job, Event::Approve)
    }

    /// Somebody wants a job stopped. Answered with [`Answer::Done`]; a running job is then `Aborting`.
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn abort(&mut self, now: Timestamp, job: JobId) -> Result<CallId, Refused> {
        self.event(now, job, Event::Abort(Stopper::User))
    }

    /// Somebody wants a new attempt of an ended job, at once. Answered with [`Answer::Retried`].
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn retry(&mut self, now: Timestamp, job: JobId) -> Result<CallId, Refused> {
        self.event(now, job, Event::Retry)
    }

    /// Somebody wants a whole pipeline stopped. Answered with [`Answer::Aborting`] once it is marked: from then on no
    /// job of it begins, and all of them are stopped.
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn abort_pipeline(&mut self, now: Timestamp, pipeline: PipelineId) -> Result<CallId, Refused> {
        self.command(now, Work::AbortPipeline(pipeline))
    }

    /// Somebody wants what failed, was stopped, or was skipped for it, tried again; results that are there are kept.
    /// Answered with [`Answer::Retried`].
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn retry_pipeline(&mut self, now: Timestamp, pipeline: PipelineId) -> Result<CallId, Refused> {
        self.command(now, Work::RetryPipeline(pipeline))
    }

    fn event(&mut self, now: Timestamp, job: JobId, event: Event) -> Result<CallId, Refused> {
        self.command(now, Work::Event(job, event))
    }

    fn command(&mut self, now: Timestamp, work: Work) -> Result<CallId, Refused> {
        let call = self.open(now, work)?;
        self.run(call, &[]);
        self.pump();
        Ok(call)
    }

    /// Opens a call, if the limits allow one.
    fn open(&mut self, now: Timestamp, work: Work) -> Result<CallId, Refused> {
        let limits = self.config.limits();
        within(self.calls.len() + 1, limits.calls)?;
        within(self.effects.len() + 1, limits.effects)?;
        self.lift(now);
        let call = CallId::new(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, Call { work, tries: 0, fresh: false, silent: false });
        Ok(call)
    }

    /// Says how often a job of this key may be given out, or that it is not limited. Its jobs wait aside meanwhile, and
    /// block neither their queue nor any other key. Like pools, such rates are an operator's configuration, told again
    /// after a restart; each engine keeps them for itself.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many keys; nothing is changed.
    pub fn set_key_rate(&mut self, now: Timestamp, key: Key, rate: Option<Rate>) -> Result<(), Refused> {
        if !self.keys.contains_key(&key) {
            within(self.keys.len() + 1, self.config.limits().keys)?;
        }
        self.lift(now);
        self.keys.entry(key).or_default().rate = rate;
        self.free_up(key);
        self.pump();
        Ok(())
    }

    // ---- facts ----------------------------------------------------------------------------------------------------

    /// The write was made.
    pub fn handle_committed(&mut self, now: Timestamp, ticket: Ticket) {
        self.lift(now);
        self.land(ticket);
        self.pump();
    }

    /// The write was not made, as a row had another version. `fresh` are the write's rows as they are; those that are
    /// not newer than what is known are ignored.
    pub fn handle_conflicted(&mut self, now: Timestamp, ticket: Ticket, fresh: &[Row]) {
        self.lift(now);
        self.fail(ticket, fresh);
        self.pump();
    }

    /// Nobody knows whether the write was made: its rows are read again, and their write ids tell.
    pub fn handle_unknown(&mut self, now: Timestamp, ticket: Ticket) {
        self.lift(now);
        match self.flights.get_mut(ticket) {
            Some(flight) if !flight.resolving => {
                flight.resolving = true;
                self.ask(Want::Written(ticket), Purpose::Resolve(ticket));
            }
            Some(_) | None => self.counters.ignored += 1,
        }
        self.pump();
    }

    /// The rows that were asked for, as far as there are any.
    pub fn handle_rows(&mut self, now: Timestamp, ask: AskId, rows: &[Row]) {
        self.lift(now);
        self.answered(ask, rows);
        self.pump();
    }

    /// The host's word about a job that it was asked to judge.
    pub fn handle_judged(&mut self, now: Timestamp, job: JobKey, judgement: Judgement) {
        self.lift(now);
        if self.judging.remove(&job.job) {
            self.filters.tell(job.job, judgement);
            if let Some(row) = self.job(job.job) {
                self.undecided.push_back(row.pipeline);
            }
        } else {
            self.counters.ignored += 1;
        }
        self.pump();
    }

    /// A worker, in this life, is dead: the host saw it die, or sees it in another life. What it held is taken back now,
    /// as it would be when its leases end.
    pub fn handle_worker_gone(&mut self, now: Timestamp, worker: Worker) {
        self.lift(now);
        let held = self.store.jobs_held(worker.name).filter_map(|at| self.store.jobs.get(at));
        let is_its = |slot: &&JobSlot| self.store.delivery(slot).is_some_and(|delivery| delivery.worker == worker);
        let mut held: Vec<JobId> = held.filter(is_its).map(JobSlot::id).collect();
        held.sort_unstable();
        if held.is_empty() {
            self.counters.ignored += 1;
        }
        for job in held {
            self.silently(job, Event::Gone { worker });
        }
        self.pump();
    }

    /// Time has passed. Due deadlines are acted on, at most so many at once; call again while
    /// [`Engine::next_deadline`] is not later than `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.lift(now);
        while let Some((until, call)) = self.patience.first().copied().filter(|(until, _)| *until <= self.now) {
            self.patience.remove(&(until, call));
            self.give_up(call);
        }
        while let Some((until, sleeper)) = self.sleepers.first().copied().filter(|(until, _)| *until <= self.now) {
            self.sleepers.remove(&(until, sleeper));
            match sleeper {
                Sleeper::Pool(pool) => self.queues.stir(pool),
                Sleeper::Key(key) => self.free_up(key),
            }
        }
        for _ in 0..self.config.budget {
            self.wind();
            let Some((at, job, slot)) = self.timers.peek() else { break };
            if at > self.now {
                break;
            }
            self.timers.pop();
            self.expire(job, slot);
        }
        self.pump();
    }

    // ---- views ----------------------------------------------------------------------------------------------------

    /// The next thing to do, if any.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Engine::handle_timeout`] is to be called next, unless something else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timer = self.timers.first();
        let patience = self.patience.first().map(|(until, _)| *until);
        let sleeper = self.sleepers.first().map(|(until, _)| *until);
        [timer, patience, sleeper].into_iter().flatten().min()
    }

    /// The rows of a write that is under way: all are to be written, or none. Empty once it is settled.
    #[must_use]
    pub fn changes(&self, ticket: Ticket) -> &[Change] {
        self.flights.get(ticket).map_or(&[], |flight| &flight.changes)
    }

    // ---- small things ---------------------------------------------------------------------------------------------

    fn lift(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    const fn ticket(&mut self) -> Ticket {
        let ticket = Ticket::new(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    const fn write_id(&self, ticket: Ticket) -> WriteId {
        WriteId { engine: self.config.engine, ticket }
    }

    /// What the write with this ticket is signed with.
    const fn stamp(&self, ticket: Ticket) -> Stamp {
        let chance = mix(self.config.seed ^ mix(ticket.get()));
        Stamp { write: self.write_id(ticket), chance }
    }

    fn ask(&mut self, want: Want, purpose: Purpose) {
        let ask = AskId::new(self.next_ask);
        self.next_ask += 1;
        self.asks.insert(ask, (want, purpose));
        self.effects.push_back(Effect::Fetch { ask, want });
    }

    /// Answers a call, which is then over.
    fn answer(&mut self, call: CallId, answer: Answer) {
        if self.calls.remove(call).is_some_and(|call| !call.silent) {
            if matches!(answer, Answer::Refused(_)) {
                self.counters.refused += 1;
            }
            self.effects.push_back(Effect::Answer { call, answer });
        }
    }

    /// Does to a job what nobody waits for the answer of.
    fn silently(&mut self, job: JobId, event: Event) {
        let call = CallId::new(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, Call { work: Work::Event(job, event), tries: 0, fresh: false, silent: true });
        self.run(call, &[]);
    }

    /// Does what the last change made possible: decisions first, so that parked pulls see all that came at once.
    fn pump(&mut self) {
        while let Some((job, by)) = self.superseded.pop_front() {
            self.silently(job, Event::Supersede { by });
        }
        while let Some(pipeline) = self.undecided.pop_front() {
            self.decide(pipeline);
        }
        while let Some(call) = self.queues.next_parked(self.now) {
            self.unpark(call);
            self.serve(call);
        }
        self.wind();
    }

    /// Makes the first alarm a true one: of a job that is there, that is not locked, and that is due no later.
    fn wind(&mut self) {
        while let Some((at, job, place)) = self.timers.peek() {
            if !rings(&self.store, at, job, place) {
                self.timers.drop_dead();
                continue;
            }
            let Some(slot) = self.store.jobs.get(place) else { return };
            if slot.lock.is_free() && self.store.due(slot) == Some(at) {
                return;
            }
            self.timers.pop();
            self.store.set_alarm(place, None);
            self.place(place);
        }
    }
}

/// Whether an entry of the timers stands for a job's alarm.
fn rings(store: &Store, at: Timestamp, job: JobId, slot: u32) -> bool {
    store.jobs.get(slot).is_some_and(|slot| slot.id() == job && store.alarm(slot) == Some(at))
}

fn within(used: usize, limit: u32) -> Result<(), Refused> {
    if used <= limit as usize { Ok(()) } else { Err(Refused::Full { used: used as u64, limit: u64::from(limit) }) }
}

/// The life that this engine's write ids carry.
impl Engine {
    /// This engine's life.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.config.engine
    }
}
