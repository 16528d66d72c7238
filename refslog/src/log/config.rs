//! How a log is kept short, and for whom.

/// How a log is kept short. Built by [`LogConfig::builder`]; cannot be invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub(super) factor: u64,
    pub(super) min_records: usize,
    pub(super) retain_versions: u64,
    pub(super) max_lag_versions: u64,
    pub(super) max_lag_bytes: u64,
    pub(super) max_needs: usize,
}

/// Collects the fields of a [`LogConfig`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct LogConfigBuilder(LogConfig);

/// Why a log's configuration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LogConfigError {
    /// Below 2, pieces do not grow.
    #[error("a factor of {given}: pieces grow from 2 on")]
    Factor {
        /// What was asked for.
        given: u64,
    },
    /// A segment needs at least two records.
    #[error("min_records is {given}, two are needed to fold")]
    MinRecords {
        /// What was asked for.
        given: usize,
    },
}

impl LogConfig {
    /// The defaults: factor 2, folds from 64 records on, 1,000 versions kept readable, replicas followed up to 1,000,000
    /// versions or 1 GiB behind, 1,024 of them.
    pub const fn builder() -> LogConfigBuilder {
        LogConfigBuilder(Self {
            factor: 2,
            min_records: 64,
            retain_versions: 1_000,
            max_lag_versions: 1_000_000,
            max_lag_bytes: 1 << 30,
            max_needs: 1_024,
        })
    }
}

impl LogConfigBuilder {
    /// How many times larger a piece is than what follows it: more pieces and fewer rewrites with a smaller one.
    pub const fn factor(mut self, factor: u64) -> Self {
        self.0.factor = factor;
        self
    }

    /// How many records gather before they are folded.
    pub const fn min_records(mut self, min_records: usize) -> Self {
        self.0.min_records = min_records;
        self
    }

    /// How many versions before the newest can still be read, one by one, even if nobody needs them. Their records are not
    /// folded, so this many of them are kept.
    pub const fn retain_versions(mut self, versions: u64) -> Self {
        self.0.retain_versions = versions;
        self
    }

    /// How many versions a replica or pin may be behind before the log stops waiting for it.
    pub const fn max_lag_versions(mut self, versions: u64) -> Self {
        self.0.max_lag_versions = versions;
        self
    }

    /// How many bytes of log a replica or pin may hold back before the log stops waiting for it.
    pub const fn max_lag_bytes(mut self, bytes: u64) -> Self {
        self.0.max_lag_bytes = bytes;
        self
    }

    /// How many replicas, and how many pins, are followed at most.
    pub const fn max_needs(mut self, needs: usize) -> Self {
        self.0.max_needs = needs;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// A field that cannot work.
    pub fn build(self) -> Result<LogConfig, LogConfigError> {
        let config = self.0;
        if config.factor < 2 {
            return Err(LogConfigError::Factor { given: config.factor });
        }
        if config.min_records < 2 {
            return Err(LogConfigError::MinRecords { given: config.min_records });
        }
        Ok(config)
    }
}
