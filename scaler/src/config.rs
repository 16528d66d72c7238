//! What an engine is built with.

use crate::admit::Slots;
use crate::error::ConfigError;
use crate::group::Limits;
use crate::pool::BackOff;
use crate::schedule::Zones;

/// Whether an engine passes over decisions that cannot come out differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skip {
    /// A group is decided again when an input has changed, or [`Decision::next_change`](crate::Decision) has come. The
    /// outcome is the same as without skipping.
    #[default]
    Proven,
    /// Every group is decided at every tick.
    Nothing,
}

/// Whether an engine keeps the record of each group's last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Records {
    /// One record a group.
    #[default]
    Last,
    /// None; [`Engine::explain`](crate::Engine::explain) still answers.
    None,
}

/// A configuration that cannot be invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) tick_ms: u64,
    pub(crate) drain_ms: u64,
    pub(crate) back_off: BackOff,
    pub(crate) launch_deadline_ms: u64,
    pub(crate) clock_skew_ms: u64,
    pub(crate) leap_ms: u64,
    pub(crate) slots: Slots,
    pub(crate) limits: Limits,
    pub(crate) max_groups: usize,
    pub(crate) max_pools: usize,
    pub(crate) max_requests: usize,
    pub(crate) records: Records,
    pub(crate) skip: Skip,
    pub(crate) zones: Zones,
}

impl Config {
    /// Starts from safe defaults.
    #[must_use]
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder(Self {
            tick_ms: 15_000,
            drain_ms: 600_000,
            back_off: BackOff { first_ms: 30_000, longest_ms: 600_000 },
            launch_deadline_ms: 600_000,
            clock_skew_ms: 2_000,
            leap_ms: 600_000,
            slots: Slots { slot_ms: 300_000, count: 288 },
            limits: Limits::default(),
            max_groups: 200_000,
            max_pools: 1024,
            max_requests: 1_000_000,
            records: Records::Last,
            skip: Skip::Proven,
            zones: Zones::new(),
        })
    }

    /// The zones that rules may name.
    #[must_use]
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// How often groups are decided, in ms.
    #[must_use]
    pub const fn tick_ms(&self) -> u64 {
        self.tick_ms
    }

    /// How long a launch may take, in ms.
    #[must_use]
    pub const fn launch_deadline_ms(&self) -> u64 {
        self.launch_deadline_ms
    }

    pub(crate) fn with_skip(mut self, skip: Skip, records: Records) -> Self {
        (self.skip, self.records) = (skip, records);
        // A rehearsal's clock is never wrong.
        self.leap_ms = u64::MAX;
        self
    }
}

/// Builds a [`Config`].
#[derive(Clone, Debug)]
pub struct ConfigBuilder(Config);

impl ConfigBuilder {
    /// How often groups are decided, in ms; 15,000 by default. Ticks fall on multiples of it.
    #[must_use]
    pub const fn tick_ms(mut self, ms: u64) -> Self {
        self.0.tick_ms = ms;
        self
    }

    /// Over how long a group whose traffic is gone goes down, in ms; ten minutes by default.
    #[must_use]
    pub const fn drain_ms(mut self, ms: u64) -> Self {
        self.0.drain_ms = ms;
        self
    }

    /// For how long a pool is left alone after a failed launch, in ms: `first_ms`, then twice that with each failure in
    /// a row, up to `longest_ms`. Thirty seconds and ten minutes by default.
    #[must_use]
    pub const fn back_off_ms(mut self, first_ms: u64, longest_ms: u64) -> Self {
        self.0.back_off = BackOff { first_ms, longest_ms };
        self
    }

    /// How long a launch may take, in ms; ten minutes by default. What has not come to serve by then counts as failed: it is
    /// cancelled, its pool is left alone for a while, and its share is asked for elsewhere.
    #[must_use]
    pub const fn launch_deadline_ms(mut self, ms: u64) -> Self {
        self.0.launch_deadline_ms = ms;
        self
    }

    /// How far clocks may be apart, in ms; two seconds by default. A sample may be this much later than `now`, and a tick this
    /// much earlier than the one before.
    #[must_use]
    pub const fn clock_skew_ms(mut self, ms: u64) -> Self {
        self.0.clock_skew_ms = ms;
        self
    }

    /// After how long without a tick, in ms, the next one may be a wrong reading of the clock; ten minutes by default, and at
    /// least four ticks. Such a tick grows groups and takes nothing away; one second later the next one is due and confirms
    /// it.
    #[must_use]
    pub const fn leap_ms(mut self, ms: u64) -> Self {
        self.0.leap_ms = ms;
        self
    }

    /// The horizon of admission: so many slots of so many ms; a day of five minutes each by default.
    #[must_use]
    pub const fn horizon(mut self, slot_ms: u64, slots: u16) -> Self {
        self.0.slots = Slots { slot_ms, count: slots };
        self
    }

    /// The largest maximum of a policy, and the most rules and metrics it may have.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// The most groups; 200,000 by default.
    #[must_use]
    pub const fn max_groups(mut self, groups: usize) -> Self {
        self.0.max_groups = groups;
        self
    }

    /// The most pools; 1024 by default.
    #[must_use]
    pub const fn max_pools(mut self, pools: usize) -> Self {
        self.0.max_pools = pools;
        self
    }

    /// The most launches and releases that are open at one time; a million by default.
    #[must_use]
    pub const fn max_requests(mut self, requests: usize) -> Self {
        self.0.max_requests = requests;
        self
    }

    /// Whether the record of each group's last change is kept.
    #[must_use]
    pub const fn records(mut self, records: Records) -> Self {
        self.0.records = records;
        self
    }

    /// Whether decisions that cannot come out differently are passed over.
    #[must_use]
    pub const fn skip(mut self, skip: Skip) -> Self {
        self.0.skip = skip;
        self
    }

    /// The zones that rules may name; UTC alone by default.
    #[must_use]
    pub fn zones(mut self, zones: Zones) -> Self {
        self.0.zones = zones;
        self
    }

    /// Checks and builds.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the field.
    pub fn build(self) -> Result<Config, ConfigError> {
        let config = self.0;
        let above_zero = [
            ("tick_ms", config.tick_ms),
            ("drain_ms", config.drain_ms),
            ("back_off_ms", config.back_off.first_ms),
            ("launch_deadline_ms", config.launch_deadline_ms),
            ("horizon.slot_ms", config.slots.slot_ms),
            ("horizon.slots", u64::from(config.slots.count)),
            ("limits.instances", u64::from(config.limits.instances)),
        ];
        let counts = [
            ("limits.rules", config.limits.rules),
            ("max_groups", config.max_groups),
            ("max_pools", config.max_pools),
            ("max_requests", config.max_requests),
        ];
        if let Some((name, _)) = above_zero.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero(name));
        }
        if let Some((name, _)) = counts.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero(name));
        }
        if config.back_off.longest_ms < config.back_off.first_ms {
            return Err(ConfigError::BackOff);
        }
        Ok(config)
    }
}
