//! Decides how many instances each group gets, from which pool, and what the next 24 hours hold.
//!
//! `tenon-scaler` is the decision core of an autoscaler. It reads no clock, opens no socket and starts no machine: a host
//! tells it what was measured, asks it with a tick, does the launches and releases that come out, and tells how they went.
//!
//! * **One group's decision is a pure function**, [`decide`]: metric rules, timed windows and steps, caps, cool-downs,
//!   stabilisation, pauses and overrides, in fixed layers. Its record says every number it follows from, and
//!   [`Decision::verify`] recomputes it.
//! * **An [`Engine`] sizes many groups from shared pools**: dedicated, resident and leased ones, evenly over data centres,
//!   with a ledger in which lent + free = total at all times.
//! * **Admission**, [`Engine::admit`], superposes a new or changed policy on all that is admitted over the horizon, and
//!   grants it or says which pool would go over its mark, when, and by how much.
//! * **A [`forecast`]** learns from past days and weeks which model fits; its upper bound is what admission counts with.
//!   Within the day, a [`forecast::Nowcast`] corrects it by what has come so far.
//! * **[`place`]** chooses hosts, for a platform that has its own: even over data centres, no more than two of one
//!   service on one; and advises what should move.
//! * **A [`chain`]** of services that call one another is planned as one: who is called first, no caller past what its
//!   callees carry, all or as much as there is; its assessment names the weakest link.
//! * **A [`portrait`]** says when a service is busy, whether that comes back, and whether it suits elastic scaling;
//!   **[`recommend`]** searches rules for it by rehearsal, and tests them on days that they were not fitted to.
//! * **A [`Rehearsal`] runs a forecast through the same code** on a fork of the engine, and tells changes, shortage,
//!   instance-hours and cost before anything is done.
//!
//! Others' autoscalers stand beside it, bit for bit: [`hpa`] (Kubernetes), [`kpa`] (Knative) and [`nomad`], each checked
//! against the original's own test tables. As strategies of a group ([`strategy::Hpa`], [`strategy::Kpa`]) they decide
//! among other rules and under its layers, as the original would; what else a host computes goes in as a metric, by
//! [`strategy::Strategy::Given`].
//!
//! # What it does not do
//!
//! It does not measure, call a cloud, keep files, or elect who is active: run one engine per set of pools, and restore its
//! [`Snapshot`] where the next one takes over. It holds no sample but the last of each metric (and, for a Knative rule, its
//! windows): other averages over time are the host's.
//!
//! # Ask, do, tell
//!
//! ```
//! use tenon_scaler::strategy::{QueueLength, Strategy};
//! use tenon_scaler::{
//!     Config, Effect, Engine, GroupId, IdcId, Metric, MetricId, Milli, Policy, Pool, PoolId, PoolKind, Progress,
//!     Reason, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, Stock, TenantId, Timestamp, Traffic,
//!     VersionId, Watermark,
//! };
//!
//! let mut engine = Engine::new(Config::builder().build()?);
//! let mut now = Timestamp::from_millis(1_000_000);
//!
//! // What there is: a pool of ten machines, an image, and a group that serves a queue.
//! engine.put_pool(now, Pool {
//!     id: PoolId(1),
//!     kind: PoolKind::Resident,
//!     idc: IdcId(1),
//!     price: 250,
//!     watermark: Watermark::default(),
//!     stock: vec![(ShapeId(1), 10)],
//! })?;
//! engine.put_release(now, ReleaseId(1), VersionId(42));
//! let workers = GroupId(1);
//! let depth = MetricId(1);
//! let traffic = Traffic { id: workers, idcs: vec![], tenant: TenantId(1), release: ReleaseId(1), shape: ShapeId(1) };
//! engine.put_group(now, traffic, Policy {
//!     min: 1,
//!     max: 8,
//!     metrics: vec![Metric { id: depth, stale_after_ms: 60_000, when_stale: Staleness::ForbidIn }],
//!     rules: vec![Rule {
//!         id: RuleId(1),
//!         kind: RuleKind::Metric(depth, Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(4) })),
//!     }],
//!     ..Policy::default()
//! })?;
//!
//! // Tell: nineteen jobs wait. Ask: a tick.
//! engine.handle_sample(now, workers, depth, now, Some(Milli::from_units(19)));
//! engine.handle_timeout(now);
//!
//! // Do: start what it asks for. Tell: they serve.
//! while let Some(effect) = engine.poll_effect() {
//!     match effect {
//!         Effect::Launch { request, count, version, .. } => {
//!             assert_eq!((count, version), (5, VersionId(42)));
//!             now = now.after_millis(30_000);
//!             engine.handle_launch(now, request, Progress::done(count));
//!         }
//!         // What is still starting is cancelled before anything that serves is released; none is here.
//!         Effect::Cancel { .. } => {}
//!         Effect::Release { request, count, .. } => engine.handle_release(now, request, count),
//!     }
//! }
//!
//! // Why? The record knows, and proves it.
//! let record = engine.record(workers).ok_or("no record")?;
//! assert_eq!(record.decision.reason, Reason::Metric(RuleId(1)));
//! assert_eq!(record.verify(), Ok(()));
//! assert_eq!(engine.stock(PoolId(1), ShapeId(1)).map(Stock::free), Some(5));
//!
//! // And when to come back.
//! assert_eq!(engine.next_deadline(), Some(Timestamp::from_millis(1_005_000)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The next 24 hours
//!
//! From what past weeks held: does it fit, and what will the rules do?
//!
//! ```
//! use tenon_scaler::forecast::{Forecast, Series};
//! use tenon_scaler::{
//!     Authority, Config, Engine, GroupId, IdcId, Metric, MetricId, Milli, Policy, Pool, PoolId, PoolKind,
//!     Rehearsal, ReleaseId, Rule, RuleId, RuleKind, ShapeId, Staleness, TenantId, Timestamp, Traffic, Verdict,
//!     VersionId, Watermark, World,
//! };
//! # use tenon_scaler::strategy::{QueueLength, Strategy};
//!
//! // Four weeks of hours: sixty jobs wait by day, ten by night.
//! const HOUR_MS: u64 = 3_600_000;
//! let jobs = |hour: u64| if (8..20).contains(&(hour % 24)) { 60 } else { 10 };
//! let past = (0..28 * 24).map(|hour| Some(Milli::from_units(jobs(hour)))).collect();
//! let forecast = Forecast::choose(Series::new(Timestamp::ZERO, HOUR_MS, past)?, vec![], 7)?;
//! let now = Timestamp::from_millis(28 * 24 * HOUR_MS);
//! # let mut engine = Engine::new(Config::builder().build()?);
//! # let (kind, idc, watermark) = (PoolKind::Resident, IdcId(1), Watermark::default());
//! # engine.put_pool(now, Pool { id: PoolId(1), kind, idc, price: 250, watermark, stock: vec![(ShapeId(1), 20)] })?;
//! # engine.put_release(now, ReleaseId(1), VersionId(42));
//! # let (tenant, release, shape, depth) = (TenantId(1), ReleaseId(1), ShapeId(1), MetricId(1));
//! # let traffic = Traffic { id: GroupId(1), idcs: vec![], tenant, release, shape };
//! # let queue = Strategy::QueueLength(QueueLength { per_instance: Milli::from_units(4) });
//! # let policy = Policy {
//! #     min: 1,
//! #     max: 30,
//! #     metrics: vec![Metric { id: depth, stale_after_ms: 600_000, when_stale: Staleness::ForbidIn }],
//! #     rules: vec![Rule { id: RuleId(1), kind: RuleKind::Metric(depth, queue) }],
//! #     ..Policy::default()
//! # };
//!
//! // Admission: with the pool, the traffic group and the policy of before, at what is not exceeded in 95 of 100 cases.
//! let upper = forecast.instances(engine.horizon(now), Milli::from_units(4), 950);
//! assert_eq!(engine.admit(now, traffic, policy, &upper, Authority::Owner)?, Verdict::Admitted);
//!
//! // Rehearsal: the forecast as the world, through the code that decides live.
//! struct Tomorrow(Forecast);
//! impl World for Tomorrow {
//!     fn measure(&mut self, at: Timestamp, _: GroupId, _: MetricId, _ready: u32) -> Option<Milli> {
//!         self.0.at(at)
//!     }
//!     fn needed(&mut self, at: Timestamp, _: GroupId) -> u32 {
//!         self.0.at(at).map_or(0, |jobs| u32::try_from(jobs.at_least_zero() / 4_000).unwrap_or(u32::MAX))
//!     }
//! }
//! let day = Rehearsal {
//!     from: now,
//!     until: now.after_millis(24 * HOUR_MS),
//!     sample_ms: 60_000,
//!     start_ms: 300_000,
//!     stop_ms: 30_000,
//!     flap_ms: 600_000,
//!     ..Rehearsal::default()
//! };
//! let report = engine.rehearse(day, &mut Tomorrow(forecast));
//! // The night's three, out at eight, in at twenty; short while the first start, and again at eight: a floor with a
//! // lead would help.
//! assert_eq!((report.changes, report.flaps, report.pools[0].peak), (3, 0, 15));
//! assert_eq!(report.shortage_ms, 2 * 300_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The layers
//!
//! From the lowest: the minimum; metric rules (the most that any wants; one that holds keeps the others from shrinking; a
//! broken metric forbids shrinking), held back by stabilisation, cool-down and rate; timed deltas, steps, floors and tasks
//! of chains; caps and the maximum; a pause; an operator's override. What a clock or an operator asks for is there at once.
//!
//! # What ends, and how it leaves
//!
//! Metric rules start from the number that is there, whatever brought it there. So what ends is not simply taken away: the
//! rules decide, and a rule that holds (a load within its tolerance) keeps what is there.
//!
//! | what ends | the size that metric rules start from | what paces the way down |
//! |---|---|---|
//! | a floor, a chain's task, an override | the target as it was | [`Behavior::inward`]: window, cool-down, rate |
//! | a delta's window, a step that is taken back | the target, its share included | the same; the share counts once more for the window |
//! | a rule that is removed, a policy that changes | the target; of a delta or a step, its share included | the same, by the new policy |
//! | the last metric rule, a minimum that is lowered | what stood at the minimum follows it | the same |
//! | a cap, a pause, a lower override | the target as it was | growth, by [`Behavior::out`] |
//! | measurements | the target: a broken metric forbids shrinking | nothing leaves |
//!
//! A group without a metric rule goes back to what it had before. What is starting is cancelled before anything that serves
//! is released, so that a release never takes what serves below the target.
//!
//! # Clocks
//!
//! Pass the machine's wall clock, kept by NTP: timed rules read it as Unix time. A source of samples may be ahead by
//! [`clock_skew_ms`](ConfigBuilder::clock_skew_ms). One wrong reading, ahead or behind, costs two ticks at most: a tick far
//! ahead takes nothing away before the next one confirms it ([`leap_ms`](ConfigBuilder::leap_ms)), and when two ticks say
//! that the clock went back, nothing that is remembered stays in the future.
//!
//! # What you must persist, and when
//!
//! | what | when | if it is lost |
//! |---|---|---|
//! | [`Engine::snapshot`] | after a tick, before its effects are acted on | deltas, cool-downs and open requests are forgotten; [`Engine::adopt`] takes over what runs |
//! | nothing else | | a sample comes again; a fact that was told twice changes nothing |
//!
//! After a restart, [`Engine::restore`] and [`catch_up`](Engine::catch_up) with what the cloud says of each open request; a
//! [`handle_census`](Engine::handle_census) per group and pool finds what was lost meanwhile. Without a snapshot, put pools
//! and groups and [`adopt`](Engine::adopt) what runs before the first tick. An effect that was drained
//! but not acted on is one of those requests: act on it under the same [`RequestId`]. The cloud must know a request under
//! its id for as long as a kept snapshot may name it, even where the request has come to its end. The feature `testkit`
//! brings a kit that runs your store, cloud and metrics source through crashes between each two steps, failures and gaps.
//!
//! # Laws
//!
//! The tests hold these to random histories:
//!
//! 1. The same configuration and inputs give the same outputs, byte for byte.
//! 2. When effects are drained never changes what is drained.
//! 3. A refused command changes nothing.
//! 4. Late, repeated, unknown and early facts change nothing, and are counted.
//! 5. Restored from a snapshot at any step, an engine answers as the original.
//! 6. Inputs replayed rebuild the state.
//! 7. Nothing outgrows its limit, and no input panics.
//! 8. The numbers in a record recompute the decision.
//!
//! And of its own: passing over decisions that [`Decision::next_change`] proves unchanged leaves the outcome the same, and
//! a rehearsal decides what the live engine then decides.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]

extern crate alloc;

mod admit;
mod adopt;
mod allot;
mod behavior;
pub mod chain;
mod clock;
mod config;
mod cost;
mod decide;
mod effect;
mod engine;
mod error;
mod facts;
pub mod forecast;
mod formula;
mod group;
pub mod hpa;
mod id;
pub mod kpa;
mod metric;
pub mod nomad;
mod num;
pub mod place;
mod pods;
mod pool;
pub mod portrait;
mod quota;
mod read;
mod reading;
mod reason;
pub mod recommend;
mod record;
mod rehearse;
mod schedule;
mod settle;
mod snapshot;
mod state;
pub mod strategy;
#[cfg(feature = "testkit")]
pub mod testkit;
mod tick;
mod time;

pub use admit::{Authority, Horizon, PoolWitness, Verdict};
pub use adopt::Running;
pub use allot::{Allotment, Grant, Holding, Refusal};
pub use behavior::{Behavior, Jump, Pace, Rate, RateLine};
pub use config::{Config, ConfigBuilder, Records, Skip};
pub use cost::Cost;
pub use decide::decide;
pub use effect::{Counters, Effect, Progress, Request, RequestKind};
pub use engine::{Engine, Move};
pub use error::{ConfigError, PolicyError, Refused, ZoneError};
pub use formula::{Formula, Term};
pub use group::{Fleet, Group, Inputs, Limits, Policy, Rule, RuleKind, Traffic};
pub use id::{
    GroupId, HostId, IdcId, MetricId, PoolId, ReleaseId, RequestId, RuleId, ShapeId, TaskId, TenantId, VersionId,
    ZoneId,
};
/// The library whose civil times and time zones schedules are made of ([`Window::from`], [`Days::Between`]).
pub use jiff;
pub use metric::{Metric, Sample, Staleness};
pub use num::Milli;
pub use pool::{Cause, Crossing, Pool, PoolKind, Stock, Watermark};
pub use quota::{Quota, QuotaUse};
pub use reason::{Direction, Reason};
pub use record::{
    Adopted, Decision, Layer, LayerLine, Limit, LimitLine, Lines, Mismatch, RateLines, Record, RuleLine, TimedLine,
};
pub use rehearse::{PoolUse, Rehearsal, Report, Row, Timeline, WhatIf, World};
pub use schedule::{Days, Point, Standing, Window, Zones};
pub use snapshot::{RestoreError, SNAPSHOT_VERSION, Snapshot};
pub use state::{Drain, GroupState, Override};
pub use time::Timestamp;

/// The code of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
