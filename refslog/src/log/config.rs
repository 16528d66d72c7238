//! Configuration of a log: how it is kept short, and for how long replicas are waited for.

/// The configuration of a log. Built by [`LogConfig::builder`], which checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub(super) factor: u64,
    pub(super) min_records: usize,
    pub(super) retain_versions: u64,
    pub(super) max_lag_versions: u64,
    pub(super) max_lag_bytes: u64,
    pub(super) max_needs: usize,
}

/// A builder of a [`LogConfig`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct LogConfigBuilder(LogConfig);

/// Why a log's configuration is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LogConfigError {
    /// The factor is below 2, so pieces would not grow.
    #[error("factor is {given}; it must be at least 2")]
    Factor {
        /// The given factor.
        given: u64,
    },
    /// The minimum of records is below 2, which a segment needs at least.
    #[error("min_records is {given}; it must be at least 2")]
    MinRecords {
        /// The given minimum.
        given: usize,
    },
}

impl LogConfig {
    /// A builder that starts from the defaults.
    ///
    /// Factor 2, folds from 64 records on, 1,000 versions kept readable, replicas followed up to 1,000,000 versions or
    /// 1 GiB behind, 1,024 of them.
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
    /// Sets the factor by which a piece is larger than the piece after it.
    ///
    /// A smaller factor gives more pieces and fewer rewrites.
    pub const fn factor(mut self, factor: u64) -> Self {
        self.0.factor = factor;
        self
    }

    /// Sets the number of records that gather before they are folded.
    pub const fn min_records(mut self, min_records: usize) -> Self {
        self.0.min_records = min_records;
        self
    }

    /// Sets the number of versions before the newest that stay readable one by one, even if no replica needs them.
    ///
    /// Their records are not folded, so this many of them are kept.
    pub const fn retain_versions(mut self, versions: u64) -> Self {
        self.0.retain_versions = versions;
        self
    }

    /// Sets the maximum number of versions that a replica or pin may be behind before the log stops waiting for it.
    pub const fn max_lag_versions(mut self, versions: u64) -> Self {
        self.0.max_lag_versions = versions;
        self
    }

    /// Sets the maximum size of log, in bytes, that a replica or pin may hold back before the log stops waiting for it.
    pub const fn max_lag_bytes(mut self, bytes: u64) -> Self {
        self.0.max_lag_bytes = bytes;
        self
    }

    /// Sets the maximum number of replicas, and of pins.
    pub const fn max_needs(mut self, needs: usize) -> Self {
        self.0.max_needs = needs;
        self
    }

    /// Builds the configuration, if it is valid.
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
