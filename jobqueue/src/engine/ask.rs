//! Commands: the requests of the host.

use core::cell::RefCell;
use core::num::NonZeroU16;

use super::call::{Call, Pull, Work};
use super::flight::Origin;
use super::{Engine, PullRequest, within};
use crate::config::{ComponentMode, PoolSpec, Service};
use crate::decide;
use crate::effect::Row;
use crate::event::{Act, Event, Stopper};
use crate::filter::Hold;
use crate::id::{
    Attempt, CallId, Class, Component, JobId, JobKey, Key, LeaseToken, PipelineId, Tag, Version, Worker, WriteId,
};
use crate::job::{Entry, Job, ResultKey, State, Tally};
use crate::outcome::Outcomes;
use crate::pipeline::{NeedsError, NewJob, Pipeline, Submission};
use crate::plan::{Graph, Plan};
use crate::rate::Rate;
use crate::reason::{Reason, Refused};
use crate::store::NONE;
use crate::time::Timestamp;

impl Engine {
    /// Declares a pool, or changes its declaration.
    ///
    /// Pools are an operator's configuration, told again after a restart.
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
        let id = pool.id;
        self.queues.put_pool(pool, &self.store.jobs);
        if let Some(at) = self.queues.pool(id) {
            self.share_pool(at);
        }
        self.pump();
        Ok(())
    }

    /// Pauses or resumes a tag: while it is closed its jobs wait, and no other tag's do.
    ///
    /// It may be told before the tag has any job. Like pools, it is an operator's configuration, told again after a
    /// restart and before the rows.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many tags; nothing is changed.
    pub fn set_tag(&mut self, now: Timestamp, tag: Tag, service: Service) -> Result<(), Refused> {
        if self.queues.find(tag).is_none() {
            within(self.queues.lanes.len() + 1, self.config.limits().tags)?;
        }
        self.lift(now);
        let lane = self.queues.lane(tag, &mut self.store.tags);
        self.queues.lanes[lane as usize].service = service;
        for link in 0..self.queues.lanes[lane as usize].pools.len() {
            self.queues.note_all(self.queues.lanes[lane as usize].pools[link].pool);
        }
        self.queues.refresh(lane, &self.store.jobs);
        self.pump();
        Ok(())
    }

    /// Sets the weight of a tag in pools that go by [`Turns::Fair`](crate::Turns). Default: 1.
    ///
    /// It acts with the next job that is given out. Like pools, weights are an operator's configuration, told again
    /// after a restart.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many tags; nothing is changed.
    pub fn set_weight(&mut self, now: Timestamp, tag: Tag, weight: NonZeroU16) -> Result<(), Refused> {
        if self.queues.find(tag).is_none() {
            within(self.queues.lanes.len() + 1, self.config.limits().tags)?;
        }
        self.lift(now);
        let lane = self.queues.lane(tag, &mut self.store.tags);
        self.queues.lanes[lane as usize].weight = weight;
        self.queues.refresh(lane, &self.store.jobs);
        self.pump();
        Ok(())
    }

    /// Sets the treatment of a component's jobs, system-wide, as they open: they run, or they are skipped.
    ///
    /// Like pools, it is an operator's configuration, told again after a restart and before the rows.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many filters; nothing is changed.
    pub fn set_component(&mut self, now: Timestamp, component: Component, mode: ComponentMode) -> Result<(), Refused> {
        match mode {
            ComponentMode::Skipped => {
                within(self.filters.len() + 1, self.config.limits().filters)?;
                self.filters.degrade(component);
            }
            ComponentMode::Runs => {
                self.filters.restore(component);
            }
        }
        self.lift(now);
        self.pump();
        Ok(())
    }

    /// Declares a window in which matching jobs are held as their batches open.
    ///
    /// Like pools, windows are an operator's configuration, told again after a restart. Which jobs are held is in the
    /// rows.
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

    /// Removes a window and sends the jobs that it held to the queues.
    pub fn release(&mut self, now: Timestamp, filter: u32) {
        self.lift(now);
        self.filters.unhold(filter);
        self.release_held(filter);
        self.pump();
    }

    /// Remembers that `job`, of an earlier run, succeeded with these inputs, for reuse.
    ///
    /// Successes under this engine are remembered without being told.
    pub fn remember(&mut self, now: Timestamp, key: ResultKey, job: JobId) {
        self.lift(now);
        self.filters.remember(key, job, self.config.limits().results);
        self.pump();
    }

    /// Submits a pipeline with all its jobs. Answered with [`Answer::Submitted`](crate::Answer::Submitted) once they
    /// are written.
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
    /// use tenon_jobqueue::Answer;
    ///
    /// let call = engine.submit(now, &submission)?;
    /// let Some(Effect::Persist { ticket }) = engine.poll_effect() else { panic!("the submission is to be written") };
    /// engine.handle_committed(now, ticket); // once the rows are written
    /// assert_eq!(engine.poll_effect(), Some(Effect::Answer { call, answer: Answer::Submitted }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused::Invalid`] without jobs, with a job twice, or with a policy that allows nothing; [`Refused::Needs`] with a
    /// job that can never start ([`Plan::of`] names all that is in the way); [`Refused::Exists`] if
    /// an id is in use here (if elsewhere, the answer says so); [`Refused::Full`]. Nothing is changed.
    pub fn submit(&mut self, now: Timestamp, new: &Submission<'_>) -> Result<CallId, Refused> {
        self.check_submission(new)?;
        let plan = Plan::of(new, WriteId::default()).map_err(|wrong| refuse_needs(&wrong))?;
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
            owes: false,
            outcomes: Outcomes::default(),
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
                start_by: Timestamp::MAX,
                finish_by: Timestamp::MAX,
            };
            self.next_sequence += 1;
            row.absorb(None, None, Some(&job));
            batch.push(job);
        }
        // The first batch opens at birth, unless the host must be asked: that is one write less for each pipeline.
        let graph = plan.map(Graph::new);
        if let Some(graph) = &graph {
            row.outcomes = Outcomes::new(graph.plan.jobs.len());
        }
        let stamp = self.stamp(ticket);
        let later = RefCell::default();
        let judge = |row: &Pipeline, job: &Job, unwanted: Option<Reason>| self.judge(row, job, unwanted, &later);
        decide::decide_up_to(usize::MAX, created, &mut row, graph.as_ref(), &mut batch, &judge, &stamp);
        for job in &mut batch {
            job.version = version;
            self.put_new_job(job);
        }
        self.batch = batch;
        let at = self.store.add_pipe(id);
        self.put_pipeline(ticket, at, None, Pipeline { version, ..row });
        if let Some(graph) = graph {
            let plan = Plan { write, ..graph.plan };
            self.scratch.add(None, Row::Plan(plan), NONE);
        }
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
            let spec = &job.spec;
            let weightless = spec.key.is_some() && (spec.key_weight == 0 || spec.key_weight > spec.key_limit);
            weightless
                || policy.max_attempts == 0
                || policy.max_crashes == 0
                || policy.max_nacks == 0
                || policy.max_unacked == 0
                || policy.lease_ms == 0
        };
        if named.is_empty() || twice || new.jobs.iter().any(hopeless) {
            return Err(Refused::Invalid);
        }
        let is_here = |(_, id): &(Tag, JobId)| self.store.find_job(*id).is_some();
        if self.store.find_pipe(new.id).is_some() || named.iter().any(is_here) {
            return Err(Refused::Exists);
        }
        within(named.len(), limits.jobs_per_pipeline.min(u32::from(u16::MAX)))?;
        let needs = new.needs.iter().map(|(_, needs)| needs.len()).max();
        within(needs.unwrap_or(0), limits.needs_per_job)?;
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

    /// Asks for jobs for a worker. Each comes as [`Effect::Assign`](crate::Effect::Assign).
    ///
    /// Then the pull is answered with [`Answer::Pulled`](crate::Answer::Pulled). If there is no job, the pull is parked
    /// until one comes or its patience ends.
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
    /// let call = engine.pull(now, &PullRequest { pool, worker, want: 1, wait_ms: 1_000, previous: None })?;
    /// let effects = persist(&mut engine); // writes what the engine asks for
    /// assert!(effects.iter().any(|effect| matches!(effect, Effect::Assign { call: by, .. } if *by == call)));
    /// assert_eq!(engine.leased(pool), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let (worker, want) = (request.worker, request.want);
        let (since, until) = (self.now, self.now);
        let call = self.open(now, Work::Pull(Pull { pool, worker, want, since, until, flying: 0, got: 0 }))?;
        let now = self.now;
        if let Some(Call { work: Work::Pull(pull), .. }) = self.calls.get_mut(call) {
            (pull.since, pull.until) = (now, now.after_millis(request.wait_ms));
        }
        if let Some(previous) = request.previous {
            self.redeliver(call, worker, previous);
        }
        self.serve(call);
        self.pump();
        Ok(call)
    }

    /// Cancels a pull that the host no longer waits for, for instance because the worker hung up.
    ///
    /// The pull is not answered. Jobs already on their way to it come back when their acknowledgement is overdue, or to
    /// a pull that names this one.
    pub fn cancel_pull(&mut self, now: Timestamp, call: CallId) {
        self.lift(now);
        if matches!(self.calls.get(call), Some(Call { work: Work::Pull(_), .. })) {
            self.unpark(call);
            self.calls.close(call);
        } else {
            self.counters.ignored += 1;
        }
        self.pump();
    }

    /// Tells a worker's message about a job that it holds.
    ///
    /// Answered with [`Answer::Done`](crate::Answer::Done) once it is written. A worker starts a job only when its
    /// [`Act::Ack`] is answered so.
    ///
    /// # Errors
    ///
    /// [`Refused::Full`] with too many calls open; nothing is changed. The other refusals come as answers, since
    /// nothing is refused before the row was read again.
    pub fn work(&mut self, now: Timestamp, worker: Worker, token: LeaseToken, act: Act) -> Result<CallId, Refused> {
        self.event(now, token.key.job, Event::Work { worker, token, act })
    }

    /// Tells that the callback came that a suspended job waits for. Answered like [`Engine::work`].
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn callback(&mut self, now: Timestamp, token: LeaseToken) -> Result<CallId, Refused> {
        self.event(now, token.key.job, Event::Callback { token })
    }

    /// Approves a manual job, or releases a held one. Answered with [`Answer::Done`](crate::Answer::Done).
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn approve(&mut self, now: Timestamp, job: JobId) -> Result<CallId, Refused> {
        self.event(now, job, Event::Approve)
    }

    /// Stops a job. Answered with [`Answer::Done`](crate::Answer::Done); a running job is then `Aborting`.
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn abort(&mut self, now: Timestamp, job: JobId) -> Result<CallId, Refused> {
        self.event(now, job, Event::Abort(Stopper::User))
    }

    /// Starts a new attempt of an ended job at once. Answered with [`Answer::Retried`](crate::Answer::Retried).
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn retry(&mut self, now: Timestamp, job: JobId) -> Result<CallId, Refused> {
        self.event(now, job, Event::Retry)
    }

    /// Aborts a whole pipeline. Answered with [`Answer::Aborting`](crate::Answer::Aborting) once it is marked.
    ///
    /// From then on no job of it begins, and all of them are stopped.
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn abort_pipeline(&mut self, now: Timestamp, pipeline: PipelineId) -> Result<CallId, Refused> {
        self.command(now, Work::AbortPipeline(pipeline))
    }

    /// Retries the jobs of a pipeline that failed, were stopped, or were skipped because of those. Results of others
    /// are kept.
    ///
    /// Answered with [`Answer::Retried`](crate::Answer::Retried).
    ///
    /// # Errors
    ///
    /// As for [`Engine::work`].
    pub fn retry_pipeline(&mut self, now: Timestamp, pipeline: PipelineId) -> Result<CallId, Refused> {
        self.command(now, Work::RetryPipeline(pipeline))
    }

    fn event(&mut self, now: Timestamp, job: JobId, event: Event) -> Result<CallId, Refused> {
        let call = self.open(now, Work::Event(job, event))?;
        self.run_event(call, false, job, &event, &[]);
        self.pump();
        Ok(call)
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
        Ok(self.call(work, false))
    }

    /// Sets the maximum rate at which jobs of a key are given out; `None` is no limit.
    ///
    /// Its jobs wait aside meanwhile, and block neither their queue nor any other key. Like pools, such rates are an
    /// operator's configuration, told again after a restart. Used rate is kept in the key's row: the rate holds over
    /// all engines that are told it.
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
}

/// The needs that cannot be, in short.
fn refuse_needs(wrong: &NeedsError) -> Refused {
    match wrong {
        NeedsError::Missing(job, need) | NeedsError::Later(job, need) => Refused::Needs { job: *job, need: *need },
        NeedsError::Cycle(circle) => {
            let job = circle.first().copied().unwrap_or_default();
            Refused::Needs { job, need: circle.get(1).copied().unwrap_or(job) }
        }
        NeedsError::Twice(_) => Refused::Invalid,
    }
}
