//! What an engine is told once. A configuration that exists is valid.

use alloc::vec::Vec;

use crate::id::{Class, Component, Incarnation, PoolId, Tag};
use crate::rate::Rate;

/// How much an engine may hold. Each limit refuses with [`Refused::Full`](crate::Refused::Full), and none drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Limits {
    /// Jobs that have not ended.
    pub jobs: u32,
    /// Jobs of one tag that have not ended.
    pub jobs_per_tag: u32,
    /// Jobs of one pipeline; never more than 65,535.
    pub jobs_per_pipeline: u32,
    /// Jobs that one job may name as what it needs.
    pub needs_per_job: u32,
    /// Pipelines that are open.
    pub pipelines: u32,
    /// Commands not yet answered, parked pulls among them.
    pub calls: u32,
    /// Effects not yet drained, beyond which no command is taken.
    pub effects: u32,
    /// Pools.
    pub pools: u32,
    /// Tags that ever had a job here.
    pub tags: u32,
    /// Tags of one pool.
    pub tags_per_pool: u32,
    /// Jobs that one pull may ask for.
    pub pull: u32,
    /// Keys that are remembered when no job here has them.
    pub keys: u32,
    /// Components that are off and windows that hold.
    pub filters: u32,
    /// Results that are remembered for reuse.
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

/// Why a configuration cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit is 0.
    #[error("every limit must be 1 or more")]
    ZeroLimit,
    /// No retry after a conflict.
    #[error("a request must be tried at least once")]
    ZeroTries,
    /// A heartbeat would never be written.
    #[error("heartbeats must be written before the lease is over: 1 to 99 percent")]
    HeartbeatShare,
}

/// What an engine is told once.
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
    /// A configuration for this life of an engine. **No two lives, on any host, may share an incarnation**: write ids
    /// are made from it. Draw it at random, or count it in the database.
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

    /// The tag of a job: the first that was declared of (component, class), (component, other), (other, class); else
    /// (other, other).
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

/// Makes a [`Config`].
#[derive(Clone, Debug)]
pub struct ConfigBuilder(Config);

impl ConfigBuilder {
    /// Where chance starts: rotations and jitter.
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

    /// Lets waiting outweigh priority: this many milliseconds are worth one step of it.
    ///
    /// A job then waits behind no job that came more than `(255 - its priority) × ageing_ms` after it. Without ageing
    /// priority is strict, and the lower may starve.
    #[must_use]
    pub const fn ageing_ms(mut self, ms: u32) -> Self {
        self.0.ageing_ms = Some(ms);
        self
    }

    /// How often a request is tried when the row changes under it; then it is `Contended`.
    #[must_use]
    pub const fn tries(mut self, tries: u32) -> Self {
        self.0.tries = tries;
        self
    }

    /// After how much of a lease, in percent, a heartbeat is written to the row; earlier ones are only answered.
    #[must_use]
    pub const fn heartbeat_percent(mut self, percent: u32) -> Self {
        self.0.heartbeat_percent = percent;
        self
    }

    /// How many deadlines one call of `handle_timeout` acts on.
    #[must_use]
    pub const fn budget(mut self, deadlines: u32) -> Self {
        self.0.budget = deadlines;
        self
    }

    /// How old a row must be, in milliseconds, before compensation looks at it.
    #[must_use]
    pub const fn settling_ms(mut self, ms: u64) -> Self {
        self.0.settling_ms = ms;
        self
    }

    /// How often, in milliseconds, the engine looks for what other engines on its database did: it reads a page of what is
    /// open, and the keys that jobs here wait for. 2,000 unless it is said; 0 never looks, for an engine that is alone.
    #[must_use]
    pub const fn recheck_ms(mut self, ms: u32) -> Self {
        self.0.recheck_ms = ms;
        self
    }

    /// The limits.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// The configuration.
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

/// How a pool comes by its resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PoolKind {
    /// Scaled ahead of demand, shared.
    #[default]
    Preset,
    /// Made for the job.
    OnDemand,
    /// Another platform, which throttles itself by how much it pulls.
    External,
}

/// Whether a pool or a tag takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Service {
    /// It does.
    #[default]
    Open,
    /// Nothing new is given out; what is given out goes on.
    Closed,
}

/// What becomes of a component's jobs as they open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ComponentMode {
    /// They run.
    #[default]
    Runs,
    /// They are skipped, and what waits for them goes on.
    Skipped,
}

/// Which of its tags a pool takes the next job from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Turns {
    /// Each pull goes round the tags that have something, one job from each, from a random one: no tag waits for
    /// another, however deep that one's queue is.
    #[default]
    Rotation,
    /// The best job of all tags: larger priority, then older, then the smaller sequence number; with
    /// [`ageing`](ConfigBuilder::ageing_ms), by what has aged most.
    Priority,
    /// By weight ([`Engine::set_weight`](crate::Engine::set_weight)): of two tags that both have something, neither is
    /// ever ahead of its share by more than one job of each.
    Fair,
}

/// A pool, as an operator declares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolSpec {
    /// The pool.
    pub id: PoolId,
    /// How it comes by its resources.
    pub kind: PoolKind,
    /// The tags it serves.
    pub tags: Vec<Tag>,
    /// How many jobs its workers may hold together.
    pub max_leases: u32,
    /// Whether it is drained.
    pub service: Service,
    /// Which of its tags is next.
    pub turns: Turns,
    /// How often it may be given a job; without one, as often as it pulls.
    pub rate: Option<Rate>,
}

impl Default for PoolSpec {
    /// Pool 0: open, for no tags yet, without limits.
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
