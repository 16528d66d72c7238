//! Configuration of an engine: told once, and valid once it is built.

use alloc::vec::Vec;

use crate::id::{Class, Component, Incarnation, PoolId, Tag};
use crate::rate::Rate;

/// The limits of an engine. At each, a command is refused with [`Refused::Full`](crate::Refused::Full); nothing is
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Limits {
    /// Maximum number of jobs that have not ended.
    pub jobs: u32,
    /// Maximum number of jobs of one tag that have not ended.
    pub jobs_per_tag: u32,
    /// Maximum number of jobs of one pipeline; never more than 65,535.
    pub jobs_per_pipeline: u32,
    /// Maximum number of jobs that one job may need.
    pub needs_per_job: u32,
    /// Maximum number of open pipelines.
    pub pipelines: u32,
    /// Maximum number of commands not yet answered, parked pulls included.
    pub calls: u32,
    /// Maximum number of effects not yet drained; beyond it no command is accepted.
    pub effects: u32,
    /// Maximum number of pools.
    pub pools: u32,
    /// Maximum number of tags that ever had a job here.
    pub tags: u32,
    /// Maximum number of tags of one pool.
    pub tags_per_pool: u32,
    /// Maximum number of jobs that one pull may ask for.
    pub pull: u32,
    /// Maximum number of keys that are remembered when no job here has them.
    pub keys: u32,
    /// Maximum number of switched-off components and hold windows together.
    pub filters: u32,
    /// Maximum number of results that are remembered for reuse.
    pub results: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs: 10_000_000,
            jobs_per_tag: 10_000_000,
            jobs_per_pipeline: 1_000,
            needs_per_job: 50,
            pipelines: 10_000_000,
            calls: 100_000,
            effects: 1_000_000,
            pools: 10_000,
            tags: 1_000_000,
            tags_per_pool: 10_000,
            pull: 1_000,
            keys: 100_000,
            filters: 10_000,
            results: 100_000,
        }
    }
}

/// Why a configuration is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit is 0.
    #[error("every limit must be 1 or more")]
    ZeroLimit,
    /// The number of tries is 0.
    #[error("a request must be tried at least once")]
    ZeroTries,
    /// The heartbeat share is not within 1 to 99 percent, so a heartbeat would never be written in time.
    #[error("heartbeat_percent must be 1 to 99, so that heartbeats are written before the lease ends")]
    HeartbeatShare,
}

/// The configuration of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    pub(crate) engine: Incarnation,
    pub(crate) seed: u64,
    pub(crate) ageing_ms: Option<u32>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) tries: u32,
    pub(crate) heartbeat_percent: u32,
    pub(crate) budget: u32,
    pub(crate) settling_ms: u64,
    pub(crate) recheck_ms: u32,
    pub(crate) limits: Limits,
}

impl Config {
    /// A builder for one life of an engine.
    ///
    /// **No two lives, on any host, may share an incarnation**: write ids are made from it. Draw it at random, or count
    /// it in the database.
    #[must_use]
    pub fn builder(engine: Incarnation) -> ConfigBuilder {
        ConfigBuilder(Self {
            engine,
            seed: 0,
            ageing_ms: None,
            tags: Vec::new(),
            tries: 8,
            heartbeat_percent: 30,
            budget: 10_000,
            settling_ms: 5_000,
            recheck_ms: 2_000,
            limits: Limits::default(),
        })
    }

    /// The tag of a job: the first declared of (component, class), (component, other), (other, class); else (other,
    /// other).
    ///
    /// ```
    /// use tenon_jobqueue::{Class, Component, Config, Incarnation, Tag};
    ///
    /// let config = Config::builder(Incarnation::new(1)).tag(Tag::new(3, 0)).build()?;
    /// assert_eq!(config.tag(Component::new(3), Class::new(9)), Tag::new(3, 0)); // declared for any class
    /// assert_eq!(config.tag(Component::new(4), Class::new(9)), Tag::OTHER);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn tag(&self, component: Component, class: Class) -> Tag {
        let exact = Tag { component, class };
        let by_component = Tag { component, ..Tag::OTHER };
        let by_class = Tag { class, ..Tag::OTHER };
        let declared = |tag: &Tag| self.tags.binary_search(tag).is_ok();
        [exact, by_component, by_class].into_iter().find(declared).unwrap_or(Tag::OTHER)
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// A builder of a [`Config`].
#[derive(Clone, Debug)]
pub struct ConfigBuilder(Config);

impl ConfigBuilder {
    /// Sets the seed of the random number generator, which rotations and jitter use.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.0.seed = seed;
        self
    }

    /// Declares a tag, so that jobs may have it.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.0.tags.push(tag);
        self
    }

    /// Sets ageing: each such number of milliseconds of waiting outweighs one step of priority.
    ///
    /// A job then waits behind no job that came more than `(255 - its priority) × ageing_ms` after it. Without ageing
    /// priority is strict, and the lower may starve.
    #[must_use]
    pub const fn ageing_ms(mut self, ms: u32) -> Self {
        self.0.ageing_ms = Some(ms);
        self
    }

    /// Sets the maximum number of tries of a request whose row keeps changing. Then it is refused as `Contended`.
    #[must_use]
    pub const fn tries(mut self, tries: u32) -> Self {
        self.0.tries = tries;
        self
    }

    /// Sets the share of a lease, in percent, after which a heartbeat is written to the row. Earlier ones are only
    /// answered.
    #[must_use]
    pub const fn heartbeat_percent(mut self, percent: u32) -> Self {
        self.0.heartbeat_percent = percent;
        self
    }

    /// Sets the maximum number of deadlines that one call of `handle_timeout` acts on.
    #[must_use]
    pub const fn budget(mut self, deadlines: u32) -> Self {
        self.0.budget = deadlines;
        self
    }

    /// Sets the age of a row, in ms, from which compensation looks at it.
    #[must_use]
    pub const fn settling_ms(mut self, ms: u64) -> Self {
        self.0.settling_ms = ms;
        self
    }

    /// Sets the interval, in ms, at which the engine looks for changes by other engines on its database. Default:
    /// 2,000.
    ///
    /// It reads a page of open pipelines and jobs, and the keys that jobs here wait for. 0 never looks, for an engine
    /// that is alone.
    #[must_use]
    pub const fn recheck_ms(mut self, ms: u32) -> Self {
        self.0.recheck_ms = ms;
        self
    }

    /// Sets the limits.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// Builds the configuration, if it is valid.
    ///
    /// ```
    /// use tenon_jobqueue::{Config, ConfigError, Incarnation};
    ///
    /// assert!(Config::builder(Incarnation::new(1)).seed(7).build().is_ok());
    /// assert_eq!(Config::builder(Incarnation::new(1)).tries(0).build().unwrap_err(), ConfigError::ZeroTries);
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what cannot be.
    pub fn build(mut self) -> Result<Config, ConfigError> {
        let l = &self.0.limits;
        let least = [l.jobs, l.jobs_per_tag, l.jobs_per_pipeline, l.needs_per_job, l.pipelines, l.calls, l.effects]
            .into_iter()
            .chain([l.pools, l.tags, l.tags_per_pool, l.pull, l.keys, l.filters, l.results, self.0.budget])
            .min();
        if least == Some(0) {
            return Err(ConfigError::ZeroLimit);
        }
        if self.0.tries == 0 {
            return Err(ConfigError::ZeroTries);
        }
        if !(1..100).contains(&self.0.heartbeat_percent) {
            return Err(ConfigError::HeartbeatShare);
        }
        self.0.tags.sort_unstable();
        self.0.tags.dedup();
        Ok(self.0)
    }
}

/// The kind of a pool: how it gets its resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PoolKind {
    /// Preset: scaled ahead of demand, and shared.
    #[default]
    Preset,
    /// On demand: a resource is made for each job.
    OnDemand,
    /// External: another platform, which throttles itself by how much it pulls.
    External,
}

/// Whether a pool or a tag gives out jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Service {
    /// Open: new jobs are delivered.
    #[default]
    Open,
    /// Closed: no new job is delivered. Delivered jobs go on.
    Closed,
}

/// The treatment of a component's jobs as they open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ComponentMode {
    /// The jobs run.
    #[default]
    Runs,
    /// The jobs are skipped, and jobs that wait for them go on.
    Skipped,
}

/// The scheduling of a pool: which of its tags supplies the next job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Turns {
    /// Round robin: each pull takes one job in turn from each tag that has some, starting at a random tag.
    ///
    /// No tag waits for another, however deep that one's queue is.
    #[default]
    Rotation,
    /// Strict priority over all tags: larger priority first, then older, then the smaller sequence number.
    ///
    /// With [`ageing`](ConfigBuilder::ageing_ms), by what has aged most.
    Priority,
    /// Weighted fair: tags share by weight ([`Engine::set_weight`](crate::Engine::set_weight)).
    ///
    /// Of two tags that both have jobs, neither is ever ahead of its share by more than one job of each.
    Fair,
}

/// The declaration of a pool, by an operator.
///
/// ```
/// use tenon_jobqueue::{PoolId, PoolSpec, Service, Tag};
///
/// let pool = PoolSpec { id: PoolId::new(1), tags: vec![Tag::OTHER], max_leases: 10, ..PoolSpec::default() };
/// assert_eq!((pool.service, pool.rate), (Service::Open, None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolSpec {
    /// The id of the pool.
    pub id: PoolId,
    /// The kind of the pool: how it gets its resources.
    pub kind: PoolKind,
    /// The tags that the pool serves.
    pub tags: Vec<Tag>,
    /// Maximum number of jobs that the pool's workers may hold together.
    pub max_leases: u32,
    /// Whether the pool gives out jobs, or is drained.
    pub service: Service,
    /// The scheduling: which tag supplies the next job.
    pub turns: Turns,
    /// The maximum rate of deliveries; without one, as often as workers pull.
    pub rate: Option<Rate>,
}

impl Default for PoolSpec {
    /// Pool 0: open, without tags and without limits.
    fn default() -> Self {
        Self {
            id: PoolId::new(0),
            kind: PoolKind::default(),
            tags: Vec::new(),
            max_leases: u32::MAX,
            service: Service::default(),
            turns: Turns::default(),
            rate: None,
        }
    }
}
