//! Configuration: the rules that a repository's refs are held to.

use crate::digest::ChecksumKey;
use crate::name::RefName;
use crate::oid::ObjectFormat;

/// The policy for conflicts between `a` and `a/b` (a directory and a file, where refs are files).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DfPolicy {
    /// As Git: a new name conflicts with every existing ref and with every other name of the transaction.
    ///
    /// So "delete `a`, create `a/b`" takes two transactions.
    #[default]
    GitCompat,
    /// Only the refs that exist after the transaction must not conflict.
    FinalState,
}

/// The names outside of `refs/` that a transaction may touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RootRefs {
    /// `HEAD` alone: the only root ref that a served repository needs.
    #[default]
    HeadOnly,
    /// Every root ref that Git both makes and deletes: capitals and underscores, such as `ORIG_HEAD`.
    ///
    /// Git also makes `foo/bar` or `lower`, which it then cannot delete; those are refused.
    Any,
}

/// Whether a transaction may delete `HEAD` itself (not the branch that it names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HeadDeletion {
    /// Refuse: Git takes a folder without `HEAD` for no repository.
    #[default]
    Refuse,
    /// Allow, as `git update-ref --no-deref -d HEAD` does.
    Allow,
}

/// The rules of one repository's refs. Built by [`Config::builder`], which checks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) format: ObjectFormat,
    pub(crate) key: ChecksumKey,
    pub(crate) df: DfPolicy,
    pub(crate) root_refs: RootRefs,
    pub(crate) head_deletion: HeadDeletion,
    pub(crate) max_commands: usize,
    pub(crate) max_name_len: usize,
    pub(crate) max_component_len: usize,
    pub(crate) max_symref_depth: usize,
}

/// Why a configuration is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The maximum of commands is 0: no transaction could pass.
    #[error("max_commands is 0; it must be at least 1")]
    NoCommands,
    /// The maximum length of a name is 0, or more than can be represented.
    #[error("max_name_len {given} is not within 1..={}", RefName::MAX_LEN)]
    NameLen {
        /// The given maximum, in bytes.
        given: usize,
    },
    /// The maximum length of a component is 0, or more than a name has.
    #[error("max_component_len {given} is not within 1..={}", RefName::MAX_LEN)]
    ComponentLen {
        /// The given maximum, in bytes.
        given: usize,
    },
}

impl Config {
    /// A builder with Git's rules for a repository of this object format, and the secret key of its checksums.
    pub const fn builder(format: ObjectFormat, key: ChecksumKey) -> ConfigBuilder {
        ConfigBuilder(Self {
            format,
            key,
            df: DfPolicy::GitCompat,
            root_refs: RootRefs::HeadOnly,
            head_deletion: HeadDeletion::Refuse,
            max_commands: 1_000_000,
            max_name_len: 3_072,
            max_component_len: 250,
            max_symref_depth: crate::Refs::READ_DEPTH,
        })
    }

    /// The repository's object format.
    #[must_use]
    pub const fn format(&self) -> ObjectFormat {
        self.format
    }

    /// The secret key of the repository's checksums.
    #[must_use]
    pub const fn key(&self) -> &ChecksumKey {
        &self.key
    }
}

/// A builder of a [`Config`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ConfigBuilder(Config);

impl ConfigBuilder {
    /// Sets the policy for conflicts between `a` and `a/b`. Default: as Git.
    pub const fn df(mut self, df: DfPolicy) -> Self {
        self.0.df = df;
        self
    }

    /// Sets which names outside of `refs/` may be touched. Default: `HEAD`.
    pub const fn root_refs(mut self, root_refs: RootRefs) -> Self {
        self.0.root_refs = root_refs;
        self
    }

    /// Sets whether `HEAD` may be deleted. Default: no.
    pub const fn head_deletion(mut self, head_deletion: HeadDeletion) -> Self {
        self.0.head_deletion = head_deletion;
        self
    }

    /// Sets the maximum number of commands of one transaction. Default: 1,000,000.
    pub const fn max_commands(mut self, max_commands: usize) -> Self {
        self.0.max_commands = max_commands;
        self
    }

    /// Sets the maximum length of a new name or of a symbolic ref's target, in bytes. Default: 3,072.
    ///
    /// The default leaves a quarter of a path on Linux to the folder of the repository.
    pub const fn max_name_len(mut self, max_name_len: usize) -> Self {
        self.0.max_name_len = max_name_len;
        self
    }

    /// Sets the maximum length of a component (a part between slashes), in bytes. Default: 250.
    ///
    /// Git makes a file of that name with `.lock` appended, and file systems take 255 bytes.
    pub const fn max_component_len(mut self, max_component_len: usize) -> Self {
        self.0.max_component_len = max_component_len;
        self
    }

    /// Sets the maximum number of symbolic refs in a chain that a command may go through. Default: 4.
    ///
    /// Git reads through as many; it updates through longer chains, which it then cannot read.
    pub const fn max_symref_depth(mut self, max_symref_depth: usize) -> Self {
        self.0.max_symref_depth = max_symref_depth;
        self
    }

    /// Builds the configuration, if it is valid.
    ///
    /// ```
    /// use tenon_refslog::{ChecksumKey, Config, ConfigError, ObjectFormat};
    ///
    /// let builder = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32]));
    /// assert_eq!(builder.max_commands(0).build().unwrap_err(), ConfigError::NoCommands);
    /// ```
    ///
    /// # Errors
    /// A limit that lets nothing through, or that cannot be represented.
    pub fn build(self) -> Result<Config, ConfigError> {
        let config = self.0;
        if config.max_commands == 0 {
            return Err(ConfigError::NoCommands);
        }
        if !(1..=RefName::MAX_LEN).contains(&config.max_name_len) {
            return Err(ConfigError::NameLen { given: config.max_name_len });
        }
        if !(1..=RefName::MAX_LEN).contains(&config.max_component_len) {
            return Err(ConfigError::ComponentLen { given: config.max_component_len });
        }
        Ok(config)
    }
}
