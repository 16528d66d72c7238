//! What can be wrong with what a host passes in.

use crate::id::{GroupId, IdcId, MetricId, PoolId, RuleId, ShapeId, TaskId, TenantId, ZoneId};

/// Why a time zone was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// No such name in the data that the crate carries.
    #[error("no such time zone in the bundled data")]
    Unknown,
    /// Not the bytes of a `TZif` file.
    #[error("not the bytes of a TZif file")]
    Malformed,
    /// All 65,536 ids are given out.
    #[error("no zone id is left")]
    Full,
}

/// Why a configuration was not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit, a period or a back-off of zero.
    #[error("{0} must be above zero")]
    Zero(&'static str),
    /// A back-off whose cap is below its start.
    #[error("the longest back-off is shorter than the first")]
    BackOff,
}

/// Why a policy is none: it could be read in two ways, or never holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The minimum is above the maximum.
    #[error("the minimum is above the maximum")]
    MinAboveMax,
    /// The maximum is above what a group may have by the configuration.
    #[error("a maximum above the limit of {0}")]
    MaxAboveLimit(u32),
    /// More rules or metrics than the configuration allows.
    #[error("more than {0} rules or metrics")]
    TooMany(usize),
    /// Two rules, or two metrics, of one id.
    #[error("rule id {0} is used twice")]
    RuleTwice(RuleId),
    /// Two metrics of one id.
    #[error("metric id {0} is used twice")]
    MetricTwice(MetricId),
    /// A rule names a metric that the policy does not declare.
    #[error("rule {0} names metric {1}, which the policy does not declare")]
    NoMetric(RuleId, MetricId),
    /// A rule names a zone that the configuration does not hold.
    #[error("rule {0} names zone {1}, which the configuration does not hold")]
    NoZone(RuleId, ZoneId),
    /// A rule whose days never come.
    #[error("the days of rule {0} never come")]
    Never(RuleId),
    /// A target or a share per instance of zero or less.
    #[error("rule {0} has a target that is not above zero")]
    Target(RuleId),
    /// `n` of `m` samples with `n` of 0, above `m`, or `m` above 64.
    #[error("rule {0} asks for n of m samples, where 1 <= n <= m <= 64 does not hold")]
    Samples(RuleId),
    /// A threshold that fires out at or below where it fires in, or never.
    #[error("rule {0} fires out at or below where it fires in, or never fires")]
    Bounds(RuleId),
    /// Bands that are none, out of order, or more than 64.
    #[error("rule {0} has no bands, too many, or some out of order")]
    Bands(RuleId),
    /// A KPA rule whose windows, rates or target are outside their ranges.
    #[error("rule {0} has windows, rates or a target outside their ranges")]
    Kpa(RuleId),
    /// A rate without a policy, or one with a period of zero or more than an hour.
    #[error("the behaviour has a rate without policies, or with a period of zero or of more than an hour")]
    Rate,
    /// A formula that leaves no value or several, reads nothing, or names a metric that is not declared or not measured.
    #[error("the formula of metric {0} leaves no value, or reads what is not measured")]
    Formula(MetricId),
    /// Two windows for one direction: the highest count holds for a time, and shrinking is stabilised as well.
    #[error("a behavior has both a highest count that holds and a stabilization of scale-in")]
    Windows,
    /// A metric that is stale as soon as it is seen.
    #[error("metric {0} is stale as soon as it is seen")]
    Staleness(MetricId),
}

/// Why a command was refused; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No such group.
    #[error("no group {0}")]
    NoGroup(GroupId),
    /// No such pool.
    #[error("no pool {0}")]
    NoPool(PoolId),
    /// The group is being drained: it takes no new rules.
    #[error("group {0} is being drained")]
    Draining(GroupId),
    /// As many groups or pools as the configuration allows.
    #[error("no more than {0} of them")]
    Full(usize),
    /// Less stock than is lent.
    #[error("pool {pool} has {lent} instances of shape {shape} lent: its stock cannot be {total}")]
    StockBelowLent {
        /// The pool.
        pool: PoolId,
        /// The shape.
        shape: ShapeId,
        /// What is lent of it.
        lent: u32,
        /// What its stock was to be.
        total: u32,
    },
    /// A release of what was never lent.
    #[error("pool {pool} lent {lent} instances of shape {shape}: {asked} cannot come back")]
    NeverLent {
        /// The pool.
        pool: PoolId,
        /// The shape.
        shape: ShapeId,
        /// What is lent of it.
        lent: u32,
        /// What was to come back.
        asked: u32,
    },
    /// Instances that run in another data centre than their pool stands in.
    #[error("pool {pool} stands in data centre {idc}, not in {told}")]
    WrongIdc {
        /// The pool.
        pool: PoolId,
        /// Where it stands.
        idc: IdcId,
        /// Where the instances were said to run.
        told: IdcId,
    },
    /// A pool that has no stock of a group's shape.
    #[error("pool {pool} has no stock of shape {shape}")]
    NoShape {
        /// The pool.
        pool: PoolId,
        /// The shape.
        shape: ShapeId,
    },
    /// More instances run than a pool has free.
    #[error("pool {pool} has {free} of shape {shape} free, and {running} run that it has not lent")]
    MoreThanStock {
        /// The pool.
        pool: PoolId,
        /// The shape.
        shape: ShapeId,
        /// What is not lent of it.
        free: u32,
        /// How many run and were never lent.
        running: u32,
    },
    /// A pool that has instances lent keeps its kind and its place.
    #[error("pool {0} has instances lent: it keeps its kind, data centre and tenant")]
    PoolInUse(PoolId),
    /// A pool with one shape twice, a mark above 1000 per mille, or marks the wrong way round.
    #[error("pool {0} names a shape twice or has marks out of order")]
    PoolShape(PoolId),
    /// A traffic group that is moved while it has instances.
    #[error("group {0} has instances in data centre {1}, which it would no longer name")]
    InUse(GroupId, IdcId),
    /// No pool that the group may use has its shape.
    #[error("no pool that group {0} may use has its shape")]
    NoLanding(GroupId),
    /// After a time without ticks, more groups are planned too short for the horizon than one step of catching up plans anew.
    /// Each tick catches up with a thirty-second of the groups: ask again after a few, at most 32.
    #[error("{0} groups are not planned for the whole horizon yet: ask again after a few ticks, at most 32")]
    PlanBehind(usize),
    /// A task that ends before it begins.
    #[error("task {0} ends before it begins")]
    NoTime(TaskId),
    /// A node of the service tree that would be its own ancestor, or stand deeper than sixteen.
    #[error("the quota of tenant {0} would be its own ancestor, or stands too deep")]
    QuotaCycle(TenantId),
    /// The policy is none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
