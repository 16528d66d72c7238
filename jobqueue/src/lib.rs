//! Decides which job runs next, where, and what its state may become.
//!
//! `tenon-jobqueue` is the task centre of a pipeline engine as a plain value: no socket, file, thread, clock or hidden
//! randomness is in it. It knows jobs, pipelines and workers by number. It opens a pipeline's batches in order, keeps a
//! queue for each tag, gives jobs to the workers that pull, watches leases and deadlines, and stops or retries what
//! must be. It does *not* run anything, store anything or call anything, and it does not know what a job does: your
//! server asks it, does what it says, and tells it what happened.
//!
//! # Two layers
//!
//! 1. **Rows and transitions, stateless.** A [`Job`] and a [`Pipeline`] are plain rows with a version. [`transition`]
//!    says what an event makes of a job, [`Pipeline::absorb`] what that does to its pipeline's counts, [`decide`] which
//!    jobs may run now. A host with a database may use these alone and write by compare-and-set.
//! 2. **[`Engine`]**, an index over the rows: queues, leases, timers, parked pulls. It never owns the truth. It proposes
//!    a write, the host makes it, and only then is it so; nothing is emitted that relies on a write before that write
//!    was told as made. Several engines may share one database: versions decide, and write ids tell whose write it was.
//!
//! Beside them stand three pure helpers: [`component`], the template that a worker follows with one job, [`trigger`],
//! which says what pipelines an event starts, and [`schedule`], which says when the clock starts one.
//!
//! # The loop
//!
//! ```text
//!           submit, pull, work, callback, approve, abort, retry, abort_pipeline, retry_pipeline       (ask)
//!   host  ─────────────────────────────────────────────────────────────────────────────►  Engine
//!         ◄─────────────────────────────────────────────────────────────────────────────
//!           poll_effect: Persist, Fetch (to the database)                                              (do)
//!                        Assign, Abort, Poll (to workers)   Judge (to your filters)   Answer, Closed (to callers)
//!         ─────────────────────────────────────────────────────────────────────────────►
//!           handle_committed, handle_conflicted, handle_unknown, handle_rows, handle_judged,           (tell)
//!           handle_timeout
//! ```
//!
//! A command returns a [`CallId`]; its answer comes later as [`Effect::Answer`], because it is true only once it is
//! written, and because nothing is refused before the row was read again. A worker pulls, gets [`Effect::Assign`],
//! acknowledges with the assignment's token, **starts only when that is answered**, sends heartbeats, and reports.
//!
//! Here is the whole of it, with a store in memory:
//!
//! ```
//! use tenon_jobqueue::memory::MemoryRows;
//! use tenon_jobqueue::{
//!     Act, Answer, Class, Config, Effect, Engine, Incarnation, JobId, JobSpec, NewJob, Outcome, PipelineId,
//!     PipelineState, PoolId, PoolSpec, PullRequest, Submission, Tag, Timestamp, Want, Worker, WorkerName,
//! };
//!
//! // Yours: tables in a database. A write changes all its rows, each from the version it expects, or none.
//! let (mut db, mut now) = (MemoryRows::default(), Timestamp::from_millis(1));
//! let mut engine = Engine::new(Config::builder(Incarnation::new(1)).seed(7).build()?);
//! let (pool, worker) = (PoolId::new(1), Worker { name: WorkerName::new(1), incarnation: Incarnation::new(1) });
//! engine.put_pool(now, PoolSpec { id: pool, tags: vec![Tag::OTHER], max_leases: 10, ..PoolSpec::default() })?;
//!
//! // Ask: a build, then a test.
//! let job = |id, order| NewJob { id: JobId::new(id), spec: JobSpec { order, ..JobSpec::default() }, tag: None };
//! let jobs = [job(1, 1), job(2, 2)];
//! let id = PipelineId::new(1);
//! engine.submit(now, &Submission { id, class: Class::new(0), priority: 0, jobs: &jobs, needs: &[] })?;
//! let mut closed = None;
//! while closed.is_none() {
//!     engine.pull(now, &PullRequest { pool, worker, want: 1, wait_ms: 1_000, previous: None })?;
//!     // Do, and tell.
//!     while let Some(effect) = engine.poll_effect() {
//!         match effect {
//!             Effect::Persist { ticket } => {
//!                 if db.write(engine.changes(ticket)) {
//!                     engine.handle_committed(now, ticket);
//!                 } else {
//!                     let fresh = db.read(Want::Written(ticket), engine.changes(ticket));
//!                     engine.handle_conflicted(now, ticket, &fresh);
//!                 }
//!             }
//!             Effect::Fetch { ask, want } => {
//!                 let written = if let Want::Written(ticket) = want { engine.changes(ticket) } else { &[] };
//!                 engine.handle_rows(now, ask, &db.read(want, written));
//!             }
//!             // In life this goes to the worker, whose words come back by the network.
//!             Effect::Assign { assignment, .. } => {
//!                 engine.work(now, worker, assignment.token, Act::Ack)?;
//!                 engine.work(now, worker, assignment.token, Act::Report(Outcome::Succeeded))?;
//!             }
//!             Effect::Answer { answer, .. } => assert!(!matches!(answer, Answer::Refused(_))),
//!             Effect::Closed { state, .. } => closed = Some(state),
//!             Effect::Abort { .. } | Effect::Poll { .. } | Effect::Judge { .. } => unreachable!("nobody asked for it"),
//!         }
//!     }
//!     // Call this when `next_deadline` says so.
//!     now = engine.next_deadline().unwrap_or(now);
//!     engine.handle_timeout(now);
//! }
//! assert_eq!(closed, Some(PipelineState::Succeeded));
//!
//! // A restart: a new life of the engine, rebuilt from the rows that have not ended.
//! let mut engine = Engine::new(Config::builder(Incarnation::new(2)).seed(7).build()?);
//! assert_eq!(engine.load(now, &db.open()).taken, 0);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # What you must persist, and when
//!
//! | what | when |
//! |---|---|
//! | all rows of [`Engine::changes`], in one transaction, each only from its expected version (`None`: only if absent) | on [`Effect::Persist`], before telling `handle_committed` |
//! | nothing | for every other effect: what it relies on is written before it is emitted |
//! | the engine's incarnation | before its first write: **no two lives may share one**, since write ids are made from it |
//! | a job's script, logs and artifacts | yours: the rows know a job by its number |
//!
//! A job's columns are `(job, attempt)` as the primary key, `version`, and the rest, as columns or as one value; pipelines
//! and keys have tables of their own. The
//! swap is `UPDATE … WHERE job = ? AND attempt = ? AND version = ?` and must touch exactly one row; an insert must fail
//! on the key. Should the answer of the database be lost, tell `handle_unknown`: the rows are read again and their
//! write ids tell. Answer [`Effect::Fetch`] with what the database says now, never from a cache.
//!
//! Ready stores on `SQLite` and `PostgreSQL` are in the repository's `examples/lib/job-store`; the README shows how to take
//! one, and how to write your own. The feature `testkit` brings a module that tortures your own store and tells which rule
//! it breaks.
//!
//! | output | do | tell | if it could not be done |
//! |---|---|---|---|
//! | [`Effect::Persist`] | write all or nothing | `handle_committed`, `handle_conflicted` | `handle_unknown`: the rows are read again |
//! | [`Effect::Fetch`] | read afresh | `handle_rows` | [`Engine::handle_unread`]: it is asked again after 200 ms |
//! | [`Effect::Judge`] | ask your filters | `handle_judged` | [`Engine::handle_unjudged`]: it is asked again after 200 ms |
//! | [`Effect::Assign`] | hand it to the worker | the worker's words | nothing: it comes back at its ack deadline, or to a pull that names the lost one |
//! | [`Effect::Abort`] | tell the worker | the worker's words | nothing: the worker reads `Aborting` at its next heartbeat; `abort_ms` ends the wait |
//! | [`Effect::Poll`] | ask for the result | a report, or when to ask again | nothing: it is asked again after `lease_ms` |
//! | [`Effect::Answer`], [`Effect::Closed`] | tell who asked | nothing | nothing: the rows say the same |
//!
//! # Many engines on one database
//!
//! Call [`Engine::handle_timeout`] when [`Engine::next_deadline`] says so, and answer each [`Effect::Fetch`]: that is all.
//! Every [`recheck_ms`](ConfigBuilder::recheck_ms) (2 s) an engine reads a page of what is open and the keys that its jobs
//! wait for. So it learns of what was submitted, freed and ended elsewhere, and drops what has closed; a page holds 1,000
//! pipelines. To be told at once, let the database notify (`NOTIFY` in the write's transaction) and call
//! [`Engine::handle_news`]. A key that is freed elsewhere is waited for at most the current hold, one hold of the job that
//! is noted as next, and twice `recheck_ms`. An engine that is alone sets `recheck_ms(0)` and reads nothing.
//!
//! [`Effect::Closed`] is emitted by the engine that wrote the end, once for each time that the pipeline ends, unless that
//! engine dies before: then by none, and the row says it. [`PullRequest::previous`] is known to the engine that served that
//! pull; elsewhere it is ignored, and the job comes back at its ack deadline.
//!
//! [`PoolSpec::max_leases`], [`PoolSpec::rate`] and key rates hold over all engines, and over all stripes of `Shared`; tell
//! each the same. An engine has a share of a pool's limits in the pool's row: it asks for more when its workers wait, and
//! gives back what others wait for, within two looks ([`Engine::handle_pool_news`]: at once). The share of an engine that
//! died comes back after five `recheck_ms`, or with [`Engine::handle_engine_gone`]. Fair turns are taken by each engine for
//! itself.
//!
//! # Which clock
//!
//! Pass the time of day in milliseconds, synchronised as servers' clocks are. Engines, and two readings of one engine, may
//! be [`CLOCK_SKEW_MS`] apart: leases are then lost so much earlier or later, and their fences hold whatever the skew. One
//! reading that is further ahead may end leases early; once a right one comes, what the wrong one set counts from then on:
//! no deadline, poll or rate waits for longer than it says.
//!
//! # After a start
//!
//! A life's number first; then pools, then controls ([`Engine::set_tag`], [`Engine::set_weight`],
//! [`Engine::set_component`], [`Engine::hold`], [`Engine::set_key_rate`]: a host persists them and tells them again, also
//! of tags that have no job yet); then the rows ([`Engine::load`]); then pulls.
//!
//! A worker whose death the host sees ([`Engine::handle_worker_gone`]) gives its jobs back at once; otherwise they come
//! back when their leases end. Dead jobs are rows in state `Dead`, for you to list; [`Engine::retry`] revives one.
//!
//! # Defaults
//!
//! ```
//! # use tenon_jobqueue::{Limits, Policy};
//! let policy = Policy::default();
//! assert_eq!((policy.ack_ms, policy.lease_ms, policy.abort_ms), (10_000, 60_000, 30_000)); // milliseconds
//! assert_eq!(policy.timeout_ms, 3_600_000); // an hour from the acknowledgement to the result
//! assert_eq!((policy.backoff_ms, policy.backoff_cap_ms), (1_000, 60_000));
//! assert_eq!((policy.max_attempts, policy.max_crashes, policy.max_nacks), (1, 3, 100));
//! assert_eq!((policy.start_by_ms, policy.finish_by_ms), (0, 0)); // no limit
//! let limits = Limits::default();
//! assert_eq!((limits.jobs, limits.jobs_per_tag, limits.pipelines), (10_000_000, 10_000_000, 10_000_000));
//! assert_eq!((limits.jobs_per_pipeline, limits.pull, limits.calls, limits.effects), (1_000, 1_000, 100_000, 1_000_000));
//! assert_eq!((limits.pools, limits.tags, limits.tags_per_pool), (10_000, 1_000_000, 10_000));
//! assert_eq!((limits.keys, limits.filters, limits.results), (100_000, 10_000, 100_000));
//! ```
//!
//! Compensation leaves rows alone that are younger than 5,000 ms ([`settling_ms`](ConfigBuilder::settling_ms)); a heartbeat
//! is written after 30 % of the lease, a request is tried 8 times, and one call of `handle_timeout` acts on 10,000 deadlines.
//!
//! # Who is next
//!
//! | means | what it does | bound |
//! |---|---|---|
//! | [`Turns::Rotation`] | a pull takes one job from each tag of its pool in turn, from a random one | cost does not depend on tags outside the pool |
//! | [`Turns::Priority`] | the best job of all tags of the pool | with [`ageing`](ConfigBuilder::ageing_ms): behind nothing that came more than `(255 - priority) × ageing` later |
//! | [`Turns::Fair`] | tags by weight, start-time fair queueing | of two busy tags, `abs(W_a / w_a - W_b / w_b) <= 1 / w_a + 1 / w_b` jobs |
//! | [`PoolSpec::rate`], [`Engine::set_key_rate`] | holds a pool, or a key's jobs, back | no other job waits |
//! | [`JobSpec::key`] with [`OnNewer`] | a limited number at a time ([`JobSpec::key_limit`], [`JobSpec::key_weight`]) over all engines; or the newest only; or unique from its opening to its end | the others block no queue |
//!
//! [`Engine::explain`] says of any job what it waits for. With feature `shared`, `Shared` stripes pipelines over many
//! engines behind `&self`, so that pools on many threads pull at once.
//!
//! # What a job's end means for its pipeline
//!
//! | end | required job | job that may fail |
//! |---|---|---|
//! | `Succeeded`, `Reused`, `Skipped` | goes on | goes on |
//! | `Failed`, `TimedOut` with an attempt left | goes on with the next attempt | the same |
//! | `Failed`, `TimedOut`, `Dead` | later jobs run only if [`When::Always`] or [`When::OnFailure`]; ends `Failed` | goes on |
//! | `Aborted`, `Superseded` | the same, but ends `Aborted` if nothing failed | goes on |
//! | none: waits for an approval | the pipeline waits | the pipeline does not wait; approving it later opens the pipeline again |
//!
//! A retry revives what was skipped because of the job. What succeeded, was reused or was superseded is not retried
//! ([`Refused::Terminal`]): submit a new job for it.
//!
//! # What a job waits for
//!
//! A job that names what it needs ([`Submission::needs`]) waits for those jobs and is judged by them alone, whatever else
//! its order does; an empty list starts it at once. A job that names nothing waits for all jobs of smaller orders. Where
//! each job stands is in the pipeline's row ([`Pipeline::outcomes`]), and what it waits for in the pipeline's [`Plan`]:
//! decisions read these two and no copy of a job's row, so two ends on two engines cannot miss each other.
//!
//! | what it waits for | names nothing, on success | names needs, on success | on failure | always |
//! |---|---|---|---|---|
//! | all good, or nothing | runs | runs | skipped | runs |
//! | some skipped, or optional manual jobs not played; rest good | runs | skipped | skipped | runs |
//! | some failed, none skipped | skipped | skipped | runs | runs |
//! | some failed, some skipped | skipped | skipped | runs; with needs: skipped | runs |
//! | some in progress, or waiting for an approval that is required | waits | waits | waits | waits |
//!
//! # What holds, whatever happens
//!
//! * Execution is at least once; a result is accepted once. Each delivery has a token that no other delivery shares.
//! * A worker that fell silent is not believed later, nor is the life before its restart.
//! * A pipeline's batch opens once, however many completions decide at once, on however many engines.
//! * Of all jobs with one [`Key`], as many are out at a time as [`JobSpec::key_limit`] allows (one by default); the key's
//!   row, written with the delivery, counts them. The others block no queue while they wait.
//! * A row moves only as [`table`] says, and no row leaves a terminal state: a retry is a new row.
//! * Within a queue: the larger priority, then the older, then the smaller sequence number, then the smaller id. With
//!   [`ageing`](ConfigBuilder::ageing_ms) no job waits behind one that came too much later; without, the lower may
//!   starve.
//! * Same configuration and inputs, same outputs. When effects are drained changes nothing. A refusal changes nothing.
//!   Late, repeated, unknown and early facts change nothing. An engine restored from a [`Snapshot`] behaves
//!   identically. Nothing outgrows its limit, and [`Refused::Full`] is an answer.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]

extern crate alloc;

pub mod component;
mod config;
mod decide;
mod effect;
mod engine;
mod event;
mod fair;
mod filter;
mod hash;
mod id;
mod job;
mod key;
mod kinds;
mod lane;
pub mod memory;
mod moves;
mod outcome;
mod pipeline;
mod plan;
mod pool_row;
mod queues;
mod rate;
mod reason;
mod recent;
mod rng;
pub mod schedule;
mod share;
#[cfg(feature = "shared")]
mod shared;
mod slab;
mod store;
pub mod table;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
mod timer;
mod transition;
pub mod trigger;
mod wait;
mod workers;

pub use config::{ComponentMode, Config, ConfigBuilder, ConfigError, Limits, PoolKind, PoolSpec, Service, Turns};
pub use decide::decide;
pub use effect::{Answer, Assignment, Change, Effect, Row, RowKey, Want};
pub use engine::{
    Compensated, Counters, Engine, Explanation, PullRequest, QueueView, RestoreError, Snapshot, Standing, Why,
};
pub use event::{Act, Event, EventKind, Stopper, Verdict};
pub use filter::{Filters, Hold, Judgement};
pub use id::{
    AskId, Attempt, CallId, Class, Component, Incarnation, JobId, JobKey, Key, LeaseToken, PipelineId, PoolId, Tag,
    Ticket, Version, Worker, WorkerName, WriteId,
};
pub use job::{
    Condition, Delivery, Entry, Job, JobSpec, Late, OnFailure, OnNewer, Outcome, Policy, ResultKey, Start, State,
    Tally, When,
};
pub use key::KeyRow;
pub use outcome::{JobClass, Outcomes};
pub use pipeline::{NeedsError, NewJob, Pipeline, PipelineState, Submission, run_orders};
pub use plan::{NeedsVerdict, Plan, PlannedJob};
pub use pool_row::{LifeRow, PoolRow, PoolShare};
pub use rate::Rate;
pub use reason::{Reason, Refused};
#[cfg(feature = "shared")]
pub use shared::{Pulled, Shared, Stripe, Waiter, Woken};
pub use time::Timestamp;
pub use transition::{Action, CLOCK_SKEW_MS, Stamp, Transition, backoff, revive, transition};
