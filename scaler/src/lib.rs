//! Placeholder page.
#![no_std]

extern crate alloc;

mod allot;
mod behavior;
mod clock;
mod config;
mod decide;
mod effect;
mod engine;
mod error;
mod facts;
mod group;
mod id;
mod metric;
mod num;
mod pool;
mod reason;
mod record;
mod rehearse;
mod schedule;
mod snapshot;
pub mod strategy;
mod tick;
mod time;

pub use allot::{Allotment, Holding, Refusal};
pub use behavior::{Behavior, Pace};
pub use config::{Config, ConfigBuilder, Records, Skip};
pub use decide::decide;
pub use effect::{Counters, Effect, Request, RequestKind};
pub use engine::{Engine, Move};
pub use error::{ConfigError, PolicyError, Refused, ZoneError};
pub use group::{Drain, Group, GroupState, Inputs, Limits, Override, Policy, Rule, RuleKind, Traffic};
pub use id::{GroupId, IdcId, MetricId, PoolId, ReleaseId, RequestId, RuleId, ShapeId, TenantId, VersionId, ZoneId};
pub use metric::{Metric, Sample, Staleness};
pub use num::Milli;
pub use pool::{Cause, Pool, PoolKind, Stock, Watermark};
pub use reason::{Direction, Reason};
pub use record::{Decision, Layer, LayerLine, Limit, LimitLine, Lines, Mismatch, Record, RuleLine, TimedLine};
pub use rehearse::{PoolUse, Rehearsal, Report, World};
pub use schedule::{Days, Point, Standing, Window, Zones};
pub use snapshot::{RestoreError, SNAPSHOT_VERSION, Snapshot};
pub use time::Timestamp;
