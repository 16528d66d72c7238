//! Which job runs next, where, and what its state may become.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod event;
mod id;
mod job;
mod reason;
#[expect(dead_code, reason = "the queues rotate by it; the transition only mixes")]
mod rng;
pub mod table;
mod time;
mod transition;

pub use event::{Act, Event, EventKind, Stopper, Verdict};
pub use id::{
    AskId, Attempt, CallId, Class, Component, Incarnation, JobId, JobKey, LeaseToken, PipelineId, PoolId, Tag, Ticket,
    Version, Worker, WorkerName, WriteId,
};
pub use job::{Delivery, Entry, Job, JobSpec, OnFailure, Outcome, Policy, Start, State, Tally, When};
pub use reason::{Reason, Refused};
pub use time::Timestamp;
pub use transition::{Action, Stamp, Transition, backoff, transition};
