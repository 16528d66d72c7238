//! Configuration: every limit and time has a field and a safe default, and is checked once, when it is built.

use crate::balance::Balance;
use crate::error::ConfigError;
use crate::id::{Generation, RouterId};
use crate::quorum::Quorum;
use crate::read::DuringWrite;

/// The configuration of a [`crate::Router`]: limits, times and policies. Built by [`Config::builder`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    pub(crate) quorum: Quorum,
    pub(crate) generation: Generation,
    pub(crate) router: RouterId,
    pub(crate) seed: u64,
    pub(crate) lease_ms: u64,
    pub(crate) write_ms: u64,
    pub(crate) retry_ms: u64,
    pub(crate) attempts: u32,
    pub(crate) most_repositories: u32,
    pub(crate) most_awake: u32,
    pub(crate) most_nodes: u32,
    pub(crate) most_members: u8,
    pub(crate) most_writes: u32,
    pub(crate) most_changes: u32,
    pub(crate) most_tasks: u32,
    pub(crate) syncs_per_node: u32,
    pub(crate) sync_ms: u64,
    pub(crate) catch_up_rounds: u32,
    pub(crate) hold_ms: u64,
    pub(crate) change_ms: u64,
    pub(crate) ack_domains: u8,
    pub(crate) during_write: DuringWrite,
    pub(crate) balance: Balance,
    pub(crate) near_percent: u16,
    pub(crate) slow_start_ms: u64,
    pub(crate) eject_after: u32,
    pub(crate) eject_ms: u64,
    pub(crate) eject_percent: u8,
}

impl Config {
    /// A builder that starts from the defaults.
    ///
    /// ```
    /// use tenon_quorum::{Config, Quorum};
    ///
    /// let config = Config::builder().quorum(Quorum::new(5, 3, 3)?).lease_ms(30_000).build()?;
    /// assert_eq!(config.quorum().voters(), 5);
    /// # Ok::<(), tenon_quorum::ConfigError>(())
    /// ```
    pub const fn builder() -> ConfigBuilder {
        ConfigBuilder {
            config: Self {
                quorum: Quorum::THREE,
                generation: Generation(1),
                router: RouterId(0),
                seed: 0,
                lease_ms: 60_000,
                write_ms: 90_000,
                retry_ms: 1_000,
                attempts: 8,
                most_repositories: 16_000_000,
                most_awake: 65_536,
                most_nodes: 4_096,
                most_members: 8,
                most_writes: 16_384,
                most_changes: 4_096,
                most_tasks: 65_536,
                syncs_per_node: 4,
                sync_ms: 600_000,
                catch_up_rounds: 4,
                hold_ms: 60_000,
                change_ms: 1_800_000,
                ack_domains: 1,
                during_write: DuringWrite::AnyCurrent,
                balance: Balance::Random,
                near_percent: 125,
                slow_start_ms: 0,
                eject_after: 5,
                eject_ms: 30_000,
                eject_percent: 34,
            },
        }
    }

    /// A builder that starts from this configuration.
    pub const fn to_builder(self) -> ConfigBuilder {
        ConfigBuilder { config: self }
    }

    /// The quorum (N, R, W) of every repository.
    #[must_use]
    pub const fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// This router's number.
    #[must_use]
    pub const fn router(&self) -> RouterId {
        self.router
    }

    /// The life of the store that this router decides for.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// Builds a [`Config`].
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct ConfigBuilder {
    config: Config,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $ty:ty;)*) => {$(
        $(#[$doc])*
        pub const fn $name(mut self, $name: $ty) -> Self {
            self.config.$name = $name;
            self
        }
    )*};
}

impl ConfigBuilder {
    setters! {
        /// N, R and W of every repository (default 3/2/2).
        quorum: Quorum;
        /// The life of the store. Larger after every restore from a backup (default 1).
        generation: Generation;
        /// This router's number among the routers that share the store (default 0).
        ///
        /// Each needs a number of its own and keeps it through restarts.
        router: RouterId;
        /// The seed of the random number generator (default 0).
        seed: u64;
        /// Length of a grant's lease in ms: votes count from the grant until then (default 60 000).
        lease_ms: u64;
        /// Time from `begin_write` to its first answer, in ms. Must be longer than the lease (default 90 000).
        write_ms: u64;
        /// Retry interval in ms: the wait for an answer of the store or of a node before asking again (default 1 000).
        ///
        /// A failed copy is retried after 2, 4, … 64 times that, and at once when its node comes back.
        retry_ms: u64;
        /// Maximum attempts of a write or a change on a row that other routers keep changing, and of a copy (default
        /// 8).
        attempts: u32;
        /// Maximum number of repositories whose rows are held (default 16 million).
        most_repositories: u32;
        /// Maximum number of repositories held in full (default 65 536).
        ///
        /// Of the others, if all voters are current, only the row is held, in 42 bytes.
        most_awake: u32;
        /// Maximum number of nodes (default 4 096).
        most_nodes: u32;
        /// Maximum members of a repository, learners included: N + 1 to 32 (default 8).
        most_members: u8;
        /// Maximum number of writes under way, including those whose outcome is still being determined (default 16
        /// 384).
        most_writes: u32;
        /// Maximum number of changes under way (default 4 096).
        most_changes: u32;
        /// Maximum number of copies under way or waiting (default 65 536).
        most_tasks: u32;
        /// Maximum number of concurrent copies that one node takes part in (default 4).
        syncs_per_node: u32;
        /// Timeout of a copy in ms, counted from the last news of it (default 600 000).
        sync_ms: u64;
        /// Consecutive copies to one member that writes may overtake; then the next grant is held until the member has
        /// caught up (default 4).
        catch_up_rounds: u32;
        /// Maximum time for which a grant is held so that a member catches up, in ms (default 60 000).
        ///
        /// Shorter, if two copies take less.
        hold_ms: u64;
        /// Timeout of a change that waits for copies, in ms (default 1 800 000).
        change_ms: u64;
        /// Minimum number of failure domains that the votes of a write must come from, at most W (default 1: any).
        ack_domains: u8;
        /// The node that reads go to while a write is granted (default: any that is current).
        during_write: DuringWrite;
        /// The policy that chooses one of several qualified nodes (default: at random).
        balance: Balance;
        /// Load limit for preferring the caller's own domain, in percent of the mean load of the candidates (default
        /// 125).
        near_percent: u16;
        /// Slow start in ms: the share of a node that came up grows from zero over this time (default 0: at once).
        slow_start_ms: u64;
        /// Consecutive failures after which a node is ejected, that is, counts as ailing for a while (default 5).
        eject_after: u32;
        /// Base ejection time in ms: the n-th ejection lasts n times this, at most 10 times (default 30 000).
        eject_ms: u64;
        /// Maximum share of nodes ejected at once, in percent (default 34).
        eject_percent: u8;
    }

    /// Builds the configuration, if it is valid.
    ///
    /// ```
    /// use tenon_quorum::{Config, ConfigError};
    ///
    /// let refused = Config::builder().lease_ms(60_000).write_ms(60_000).build();
    /// assert_eq!(refused.unwrap_err(), ConfigError::Lease { write_ms: 60_000, lease_ms: 60_000 });
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`]: a limit or a time is zero, there is no room for a learner, or a write would end with its lease.
    pub fn build(self) -> Result<Config, ConfigError> {
        let config = self.config;
        for (value, name) in [
            (config.lease_ms, "lease_ms"),
            (config.retry_ms, "retry_ms"),
            (config.sync_ms, "sync_ms"),
            (config.change_ms, "change_ms"),
            (config.catch_up_rounds.into(), "catch_up_rounds"),
            (config.hold_ms, "hold_ms"),
            (config.eject_after.into(), "eject_after"),
            (config.attempts.into(), "attempts"),
            (config.most_repositories.into(), "most_repositories"),
            (config.most_nodes.into(), "most_nodes"),
            (config.most_writes.into(), "most_writes"),
            (config.most_changes.into(), "most_changes"),
            (config.most_tasks.into(), "most_tasks"),
            (config.ack_domains.into(), "ack_domains"),
            (config.syncs_per_node.into(), "syncs_per_node"),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        let least = u8::try_from(config.quorum.voters()).unwrap_or(u8::MAX).saturating_add(1);
        if config.most_members < least || config.most_members > 32 {
            return Err(ConfigError::Members { most: config.most_members, least });
        }
        if u32::from(config.ack_domains) > config.quorum.write() {
            return Err(ConfigError::Domains { domains: config.ack_domains, w: config.quorum.write() });
        }
        if config.write_ms <= config.lease_ms {
            return Err(ConfigError::Lease { write_ms: config.write_ms, lease_ms: config.lease_ms });
        }
        Ok(config)
    }
}
