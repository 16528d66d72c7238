//! Errors: why a zone, a configuration, a policy or a command is refused.

use crate::id::{GroupId, IdcId, MetricId, PoolId, RuleId, ShapeId, TaskId, TenantId, ZoneId};

/// Why a time zone was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// The bundled data has no zone of this name.
    #[error("the bundled data has no such time zone")]
    Unknown,
    /// The bytes are not those of a `TZif` file.
    #[error("the bytes are not those of a TZif file")]
    Malformed,
    /// All 65,536 zone ids are in use.
    #[error("no zone id is left")]
    Full,
}

/// Why a configuration is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit, a period or a back-off is zero.
    #[error("{0} must be above zero")]
    Zero(&'static str),
    /// The longest back-off is shorter than the first.
    #[error("the longest back-off is shorter than the first")]
    BackOff,
}

/// Why a policy is invalid: it could be read in two ways, or never holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The minimum is above the maximum.
    #[error("the minimum is above the maximum")]
    MinAboveMax,
    /// The maximum is above the limit of the configuration.
    #[error("the maximum is above the limit of {0}")]
    MaxAboveLimit(u32),
    /// The policy has more rules or metrics than the configuration allows.
    #[error("the policy has more than {0} rules or metrics")]
    TooMany(usize),
    /// Two rules have the same id.
    #[error("rule id {0} is used twice")]
    RuleTwice(RuleId),
    /// Two metrics have the same id.
    #[error("metric id {0} is used twice")]
    MetricTwice(MetricId),
    /// A rule names a metric that the policy does not declare.
    #[error("rule {0} names metric {1}, which the policy does not declare")]
    NoMetric(RuleId, MetricId),
    /// A rule names a zone that the configuration does not hold.
    #[error("rule {0} names zone {1}, which the configuration does not hold")]
    NoZone(RuleId, ZoneId),
    /// The days of a rule never come.
    #[error("the days of rule {0} never come")]
    Never(RuleId),
    /// A target, or a share per instance, is zero or less.
    #[error("rule {0} has a target that is not above zero")]
    Target(RuleId),
    /// The threshold's samples are invalid: `n` of `m` with `n` of 0, `n` above `m`, or `m` above 64.
    #[error("rule {0} asks for n of m samples, where 1 <= n <= m <= 64 does not hold")]
    Samples(RuleId),
    /// The threshold fires out at or below where it fires in, or never fires.
    #[error("rule {0} fires out at or below where it fires in, or never fires")]
    Bounds(RuleId),
    /// The bands of a rule are missing, out of order, or more than 64.
    #[error("rule {0} has no bands, too many, or some out of order")]
    Bands(RuleId),
    /// The windows, rates or target of a KPA rule are outside their ranges.
    #[error("rule {0} has windows, rates or a target outside their ranges")]
    Kpa(RuleId),
    /// A rate has no policy, or a policy with a period of zero or more than an hour.
    #[error("the behaviour has a rate without policies, or with a period of zero or of more than an hour")]
    Rate,
    /// The formula leaves no value or several, reads nothing, or names a metric that is not declared or not measured.
    #[error("the formula of metric {0} leaves no value, or reads a metric that is not measured")]
    Formula(MetricId),
    /// Shrinking has two windows: the highest count holds for a time, and shrinking is stabilised as well.
    #[error("the behaviour has both a highest count that holds and a stabilisation of shrinking")]
    Windows,
    /// The metric is stale as soon as it is seen: its age limit is zero.
    #[error("metric {0} is stale as soon as it is seen")]
    Staleness(MetricId),
}

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The group does not exist.
    #[error("group {0} does not exist")]
    NoGroup(GroupId),
    /// The pool does not exist.
    #[error("pool {0} does not exist")]
    NoPool(PoolId),
    /// The group is being drained: it takes no new rules.
    #[error("group {0} is being drained")]
    Draining(GroupId),
    /// The maximum number of groups, pools or tenants is reached.
    #[error("the limit of {0} is reached")]
    Full(usize),
    /// The new stock is less than is lent.
    #[error("pool {pool} has {lent} instances of shape {shape} lent: its stock cannot be {total}")]
    StockBelowLent {
        /// The id of the pool.
        pool: PoolId,
        /// The shape of the stock.
        shape: ShapeId,
        /// The number of instances lent.
        lent: u32,
        /// The new stock.
        total: u32,
    },
    /// More instances would be returned than were lent.
    #[error("pool {pool} lent {lent} instances of shape {shape}: {asked} cannot come back")]
    NeverLent {
        /// The id of the pool.
        pool: PoolId,
        /// The shape of the instances.
        shape: ShapeId,
        /// The number of instances lent.
        lent: u32,
        /// The number of instances to return.
        asked: u32,
    },
    /// The instances run in another data centre than their pool stands in.
    #[error("pool {pool} stands in data centre {idc}, not in {told}")]
    WrongIdc {
        /// The id of the pool.
        pool: PoolId,
        /// The data centre of the pool.
        idc: IdcId,
        /// The data centre that was told.
        told: IdcId,
    },
    /// The pool has no stock of the group's shape.
    #[error("pool {pool} has no stock of shape {shape}")]
    NoShape {
        /// The id of the pool.
        pool: PoolId,
        /// The shape of the group's instances.
        shape: ShapeId,
    },
    /// More unknown instances run than the pool has free.
    #[error("pool {pool} has {free} of shape {shape} free, and {running} run that it has not lent")]
    MoreThanStock {
        /// The id of the pool.
        pool: PoolId,
        /// The shape of the instances.
        shape: ShapeId,
        /// The number of instances that are not lent.
        free: u32,
        /// The number of instances that run and were never lent.
        running: u32,
    },
    /// The pool has instances lent, so its kind, data centre and tenant cannot change.
    #[error("pool {0} has instances lent: it keeps its kind, data centre and tenant")]
    PoolInUse(PoolId),
    /// The pool has one shape twice, a mark above 1000 per mille, or its low mark above its high mark.
    #[error("pool {0} names a shape twice or has marks out of order")]
    PoolShape(PoolId),
    /// The traffic group has instances in a data centre that it would no longer name.
    #[error("group {0} has instances in data centre {1}, which it would no longer name")]
    InUse(GroupId, IdcId),
    /// No pool that the group may use has its shape.
    #[error("no pool that group {0} may use has its shape")]
    NoLanding(GroupId),
    /// Too many groups are not yet planned for the whole horizon, after a time without ticks.
    ///
    /// Each tick catches up with a thirty-second of the groups: ask again after a few, at most 32.
    #[error("{0} groups are not planned for the whole horizon yet: ask again after a few ticks, at most 32")]
    PlanBehind(usize),
    /// The task ends before it begins.
    #[error("task {0} ends before it begins")]
    NoTime(TaskId),
    /// The node of the service tree would be its own ancestor, or stand deeper than sixteen levels.
    #[error("the quota of tenant {0} would be its own ancestor, or stands too deep")]
    QuotaCycle(TenantId),
    /// The policy is invalid.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
