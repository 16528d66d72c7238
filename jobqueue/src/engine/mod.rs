//! The engine's public API: ask it, carry out its effects, tell it what happened.

mod ask;
mod batch;
mod call;
mod clock;
mod flight;
mod keys;
#[cfg(feature = "shared")]
mod news;
mod observe;
mod place;
mod pools;
mod pull;
mod rows;
mod settle;
mod snapshot;
mod sweep;
mod tell;

pub use observe::{Counters, Explanation, QueueView, Standing, Why};
pub use rows::Compensated;
pub use snapshot::{RestoreError, Snapshot};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::config::Config;
use crate::effect::{Answer, Change, Effect, Want};
use crate::event::Event;
use crate::filter::Filters;
use crate::id::{AskId, CallId, Incarnation, JobId, Key, LeaseToken, PipelineId, PoolId, Tag, Ticket, Worker, WriteId};
use crate::job::Job;
use crate::queues::Queues;
use crate::reason::Refused;
use crate::recent::Recent;
use crate::rng::Rng;
use crate::store::Store;
use crate::time::Timestamp;
use crate::timer::Timers;
use crate::transition::{CLOCK_SKEW_MS, Stamp};

use call::{Call, Work};
use flight::Flight;
use keys::KeySlot;
use pools::OwnLife;
use sweep::Sweep;

/// A worker's request for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PullRequest {
    /// The pool that the worker works for.
    pub pool: PoolId,
    /// The worker that asks.
    pub worker: Worker,
    /// Maximum number of jobs, 1 or more.
    pub want: u32,
    /// Maximum wait for the first job, in milliseconds.
    ///
    /// With 0 the pull waits for no job; in a pool whose limits are shared it may wait for one reading of the pool's row.
    pub wait_ms: u64,
    /// The worker's pull before this one, if it never saw that one's answer. Jobs assigned by it are assigned again.
    pub previous: Option<CallId>,
}

/// Why rows are being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Purpose {
    /// A command would be refused by what is in memory, or nothing is.
    Call(CallId),
    /// An unknown write, to find out whether it was made.
    Resolve(Ticket),
    /// A pipeline's row, or its jobs, are not in memory.
    Pipeline(PipelineId),
    /// A worker says that it never saw this assignment.
    Again(CallId, LeaseToken),
    /// A key's row is not in memory, or may be old.
    Key(Key),
    /// A page of all that is open.
    Page,
    /// Pipelines that owe something.
    Owing,
    /// How a pool's limits are shared, by its place.
    Pool(u32),
    /// The jobs charged to a life in a pool, by the pool's place.
    Charged(u32, Incarnation),
}

/// Something that is looked at again at a set time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Sleeper {
    /// The pulls parked at a pool, by its place.
    Pool(u32),
    /// The jobs set aside for a key.
    Key(Key),
    /// A read that failed, by its number.
    Ask(u64),
    /// A pipeline with a job that could not be judged.
    Pipeline(PipelineId),
}

/// The engine: an index over rows that live in a database.
///
/// It never owns the truth, and can be made from the rows at any time.
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
    /// Deadlines of jobs, those of one tick in the order of a queue.
    timers: Timers<(u8, u64, JobId)>,
    flights: Recent<Ticket, Option<Box<Flight>>>,
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
    sweep: Sweep,
    /// Jobs that dead workers hold; empty between calls.
    bereaved: VecDeque<(JobId, Worker)>,
    /// Workers that died, and the pass of pages in which that was told: jobs of theirs may not be here yet.
    gone: BTreeMap<Worker, u8>,
    /// The row of this engine's life.
    life: OwnLife,
    /// Lives of other engines that the host knows to be dead, and when their shares have lapsed in any case.
    gone_lives: BTreeMap<Incarnation, Timestamp>,
    filters: Filters,
    /// Jobs that the host is being asked about.
    judging: BTreeSet<JobId>,
    counters: Counters,
    /// The next write, as far as it is put together; empty between calls.
    scratch: Box<Flight>,
    batch: Vec<Job>,
    named: Vec<(Tag, JobId)>,
    /// Settled writes, whose memory is used again.
    #[allow(clippy::vec_box, reason = "they go to and fro as they are")]
    spare: Vec<Box<Flight>>,
}

impl Engine {
    /// An engine without rows and pools.
    ///
    /// ```
    /// use tenon_jobqueue::{Config, Engine, Incarnation};
    ///
    /// let mut engine = Engine::new(Config::builder(Incarnation::new(1)).build()?);
    /// assert_eq!((engine.jobs(), engine.poll_effect()), (0, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
            sweep: Sweep::default(),
            gone: BTreeMap::new(),
            bereaved: VecDeque::new(),
            life: OwnLife::default(),
            gone_lives: BTreeMap::new(),
            filters: Filters::default(),
            judging: BTreeSet::new(),
            counters: Counters::default(),
            scratch: Box::default(),
            batch: Vec::new(),
            named: Vec::new(),
            spare: Vec::new(),
            config,
        }
    }

    // ---- views ----------------------------------------------------------------------------------------------------

    /// The next effect, if any.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The latest time to call [`Engine::handle_timeout`], unless something else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(Timestamp::from_millis);
        let patience = self.patience.first().map(|(until, _)| *until);
        let sleeper = self.sleepers.first().map(|(until, _)| *until);
        let sweep = Some(self.sweep.due).filter(|due| *due != Timestamp::MAX);
        [timer, patience, sleeper, sweep].into_iter().flatten().min()
    }

    /// The changes of a write that is under way: all are to be written, or none. Empty once the write is settled.
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
    /// engine.submit(now, &submission)?;
    /// let Some(Effect::Persist { ticket }) = engine.poll_effect() else { panic!("the submission is to be written") };
    /// assert_eq!(engine.changes(ticket).len(), 2); // the pipeline's row and the job's
    /// engine.handle_committed(now, ticket);
    /// assert!(engine.changes(ticket).is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn changes(&self, ticket: Ticket) -> &[Change] {
        self.flights.get(ticket).and_then(Option::as_ref).map_or(&[], |flight| &flight.changes)
    }

    // ---- small things ---------------------------------------------------------------------------------------------

    fn lift(&mut self, now: Timestamp) {
        if self.now.millis_since(now) > CLOCK_SKEW_MS {
            self.step_back(now);
        }
        self.now = self.now.max(now);
        self.start_sweeping();
    }

    const fn ticket(&mut self) -> Ticket {
        let ticket = Ticket::new(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    const fn write_id(&self, ticket: Ticket) -> WriteId {
        WriteId { engine: self.config.engine, ticket }
    }

    /// The stamp of the write with this ticket.
    const fn stamp(&self, ticket: Ticket) -> Stamp {
        // Whoever needs chance mixes it: see `backoff`.
        Stamp { write: self.write_id(ticket), chance: self.config.seed.wrapping_add(ticket.get()) }
    }

    fn ask(&mut self, want: Want, purpose: Purpose) {
        let ask = AskId::new(self.next_ask);
        self.next_ask += 1;
        self.asks.insert(ask, (want, purpose));
        self.effects.push_back(Effect::Fetch { ask, want });
    }

    /// Answers a call, which is then over.
    fn answer(&mut self, call: CallId, answer: Answer) {
        if self.calls.close(call).is_some_and(|call| !call.silent) {
            self.counters.refused += u64::from(matches!(answer, Answer::Refused(_)));
            self.effects.push_back(Effect::Answer { call, answer });
        }
    }

    /// A new call, under way from now on.
    fn call(&mut self, work: Work, silent: bool) -> CallId {
        let id = CallId::new(self.next_call);
        self.next_call += 1;
        *self.calls.open(id) = Call { work, tries: 0, fresh: false, silent };
        id
    }

    /// Does to a job what nobody waits for the answer of.
    fn silently(&mut self, job: JobId, event: Event) {
        let call = self.call(Work::Event(job, event), true);
        self.run(call, &[]);
    }

    /// Does what the last change made possible.
    #[inline]
    fn pump(&mut self) {
        if !(self.superseded.is_empty()
            && self.bereaved.is_empty()
            && self.undecided.is_empty()
            && self.queues.woken.is_empty())
        {
            self.follow_up();
        }
    }

    /// Decisions first, so that parked pulls see all that came at once.
    #[cold]
    fn follow_up(&mut self) {
        while let Some((job, by)) = self.superseded.pop_front() {
            self.silently(job, Event::Supersede { by });
        }
        while let Some((job, worker)) = self.bereaved.pop_front() {
            self.silently(job, Event::Gone { worker });
        }
        while let Some(pipeline) = self.undecided.pop_front() {
            self.decide(pipeline);
        }
        self.seek_shares();
        while let Some(call) = self.queues.next_parked(self.now) {
            self.unpark(call);
            self.serve(call);
        }
    }
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
