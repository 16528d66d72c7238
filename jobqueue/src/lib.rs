//! Which job runs next, where, and what its state may become.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod decide;
mod effect;
mod engine;
mod event;
mod hash;
mod id;
mod job;
mod lane;
mod pipeline;
mod queues;
mod reason;
mod rng;
mod store;
pub mod table;
mod time;
mod timer;
mod transition;

pub use config::{Config, ConfigBuilder, ConfigError, Limits, PoolKind, PoolSpec, Service};
pub use decide::decide;
pub use effect::{Answer, Assignment, Change, Effect, Row, Want};
pub use engine::{Compensated, Counters, Engine, Explanation, PullRequest, RestoreError, Snapshot, Standing, Why};
pub use event::{Act, Event, EventKind, Stopper, Verdict};
pub use id::{
    AskId, Attempt, CallId, Class, Component, Incarnation, JobId, JobKey, LeaseToken, PipelineId, PoolId, Tag, Ticket,
    Version, Worker, WorkerName, WriteId,
};
pub use job::{Delivery, Entry, Job, JobSpec, OnFailure, Outcome, Policy, Start, State, Tally, When};
pub use pipeline::{NeedsError, NewJob, Pipeline, PipelineState, Submission, run_orders};
pub use reason::{Reason, Refused};
pub use time::Timestamp;
pub use transition::{Action, Stamp, Transition, backoff, revive, transition};
