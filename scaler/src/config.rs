//! Configuration of an engine.

use crate::admit::Slots;
use crate::error::ConfigError;
use crate::group::Limits;
use crate::pool::BackOff;
use crate::schedule::Zones;

/// Whether an engine skips decisions that cannot come out differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skip {
    /// Skip proven repeats: a group is decided again when an input has changed, or
    /// [`Decision::next_change`](crate::Decision) has come.
    ///
    /// The outcome is the same as without skipping.
    #[default]
    Proven,
    /// Skip nothing: every group is decided at every tick.
    Nothing,
}

/// Whether an engine keeps the record of each group's last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Records {
    /// Keep the last record of each group.
    #[default]
    Last,
    /// Keep no records. [`Engine::explain`](crate::Engine::explain) still answers.
    None,
}

/// The configuration of an engine. Built by [`Config::builder`], which checks it.
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
    /// A builder that starts from safe defaults.
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

    /// The time zones that rules may name.
    #[must_use]
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// The tick: the interval at which groups are decided, in ms.
    #[must_use]
    pub const fn tick_ms(&self) -> u64 {
        self.tick_ms
    }

    /// The launch deadline: the maximum time of a launch, in ms.
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

/// A builder of a [`Config`].
#[derive(Clone, Debug)]
pub struct ConfigBuilder(Config);

impl ConfigBuilder {
    /// Sets the tick, the interval at which groups are decided, in ms. Default: 15,000. Ticks fall on multiples of it.
    #[must_use]
    pub const fn tick_ms(mut self, ms: u64) -> Self {
        self.0.tick_ms = ms;
        self
    }

    /// Sets the time in which a group without traffic goes down to zero, in ms. Default: ten minutes.
    #[must_use]
    pub const fn drain_ms(mut self, ms: u64) -> Self {
        self.0.drain_ms = ms;
        self
    }

    /// Sets the back-off of a pool after a failed launch, in ms: `first_ms`, doubled with each consecutive failure up
    /// to `longest_ms`.
    ///
    /// Default: thirty seconds and ten minutes.
    #[must_use]
    pub const fn back_off_ms(mut self, first_ms: u64, longest_ms: u64) -> Self {
        self.0.back_off = BackOff { first_ms, longest_ms };
        self
    }

    /// Sets the launch deadline, in ms. Default: ten minutes.
    ///
    /// Instances that do not serve by then count as failed: they are cancelled, their pool is left alone for a while,
    /// and their share is requested elsewhere.
    #[must_use]
    pub const fn launch_deadline_ms(mut self, ms: u64) -> Self {
        self.0.launch_deadline_ms = ms;
        self
    }

    /// Sets the maximum difference of clocks, in ms. Default: two seconds.
    ///
    /// A sample may be this much later than `now`, and a tick this much earlier than the one before.
    #[must_use]
    pub const fn clock_skew_ms(mut self, ms: u64) -> Self {
        self.0.clock_skew_ms = ms;
        self
    }

    /// Sets the time without a tick, in ms, after which the next reading of the clock is doubted. Default: ten minutes,
    /// and at least four ticks.
    ///
    /// Such a tick grows groups and takes nothing away; one second later the next one is due and confirms it.
    #[must_use]
    pub const fn leap_ms(mut self, ms: u64) -> Self {
        self.0.leap_ms = ms;
        self
    }

    /// Sets the horizon of admission: the number of slots and the length of each in ms. Default: a day of five-minute
    /// slots.
    #[must_use]
    pub const fn horizon(mut self, slot_ms: u64, slots: u16) -> Self {
        self.0.slots = Slots { slot_ms, count: slots };
        self
    }

    /// Sets the limits of a policy: its largest maximum, and its number of rules and metrics.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// Sets the maximum number of groups. Default: 200,000.
    #[must_use]
    pub const fn max_groups(mut self, groups: usize) -> Self {
        self.0.max_groups = groups;
        self
    }

    /// Sets the maximum number of pools. Default: 1024.
    #[must_use]
    pub const fn max_pools(mut self, pools: usize) -> Self {
        self.0.max_pools = pools;
        self
    }

    /// Sets the maximum number of launches and releases that are open at one time. Default: a million.
    #[must_use]
    pub const fn max_requests(mut self, requests: usize) -> Self {
        self.0.max_requests = requests;
        self
    }

    /// Sets whether the record of each group's last change is kept.
    #[must_use]
    pub const fn records(mut self, records: Records) -> Self {
        self.0.records = records;
        self
    }

    /// Sets whether decisions that cannot come out differently are skipped.
    #[must_use]
    pub const fn skip(mut self, skip: Skip) -> Self {
        self.0.skip = skip;
        self
    }

    /// Sets the time zones that rules may name. Default: UTC alone.
    #[must_use]
    pub fn zones(mut self, zones: Zones) -> Self {
        self.0.zones = zones;
        self
    }

    /// Builds the configuration, if it is valid.
    ///
    /// ```
    /// use tenon_scaler::{Config, ConfigError};
    ///
    /// let config = Config::builder().tick_ms(30_000).build()?;
    /// assert_eq!(config.tick_ms(), 30_000);
    /// assert!(Config::builder().tick_ms(0).build().is_err());
    /// # Ok::<(), ConfigError>(())
    /// ```
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
