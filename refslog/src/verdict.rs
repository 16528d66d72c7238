//! The result of admission: a verdict for each command, and a reason with each refusal.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::change::Value;
use crate::name::{NameError, RefName};
use crate::oid::ObjectFormat;
use crate::record::Record;

/// The reason why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// The name of a ref to be created breaks Git's rules.
    #[error("the name is not allowed: {0}")]
    BadName(NameError),
    /// The name of a ref to be created is longer than the configuration allows.
    #[error("the name has {len} bytes, {max} are allowed")]
    NameTooLong {
        /// The length of the name in bytes.
        len: usize,
        /// The maximum in bytes.
        max: usize,
    },
    /// The name is outside of `refs/`, and is not a root ref that the configuration allows.
    #[error("refs outside of 'refs/' are not served")]
    OutsideRefs,
    /// The name is a file of Git's own that is no ref (`FETCH_HEAD`, `MERGE_HEAD`).
    #[error("the name is a file of Git's own, not a ref")]
    PseudoRef,
    /// The ref belongs to one worktree (`refs/bisect/…`, `refs/worktree/…`, `refs/rewritten/…`).
    #[error("the ref belongs to one worktree and is not shared")]
    PerWorktree,
    /// The new id is of another object format than the repository.
    #[error("the id is not {want}, the repository's object format")]
    ObjectFormat {
        /// The repository's format.
        want: ObjectFormat,
    },
    /// Another command touches the same ref, perhaps through a symbolic ref.
    #[error("'{name}' is touched by command {other} too")]
    Duplicate {
        /// The name of the ref.
        name: RefName,
        /// The index of the other command.
        other: usize,
    },
    /// The ref exists, but the command expected that it does not.
    #[error("the ref exists already, with {actual}")]
    Exists {
        /// The value of the ref.
        actual: Value,
    },
    /// The ref does not exist, but the command expected a value.
    #[error("the ref does not exist, {expected} was expected")]
    Missing {
        /// The expected value.
        expected: Value,
    },
    /// The ref holds another value than the command expected.
    #[error("the ref holds {actual}, {expected} was expected")]
    Stale {
        /// The expected value.
        expected: Value,
        /// The value of the ref.
        actual: Value,
    },
    /// The name conflicts with an existing ref: a ref cannot be both a directory and a file.
    #[error("conflicts with '{with}', which exists")]
    Conflict {
        /// The ref that exists.
        with: RefName,
    },
    /// The name conflicts with another of this transaction: a ref cannot be both a directory and a file.
    #[error("conflicts with '{with}' in the same transaction")]
    ConflictWithin {
        /// The other name.
        with: RefName,
    },
    /// The chain of symbolic refs loops, or is longer than the configuration allows.
    #[error("the chain of symbolic refs loops or is longer than {max}")]
    SymrefLoop {
        /// The maximum length of a chain.
        max: usize,
    },
    /// The command would delete `HEAD` itself.
    #[error("HEAD cannot be deleted")]
    HeadDeletion,
    /// The transaction has more commands than the configuration allows.
    #[error("the transaction has {count} commands, {max} are allowed")]
    TooManyCommands {
        /// The number of commands.
        count: usize,
        /// The maximum number of commands.
        max: usize,
    },
    /// `HEAD` would name something other than a ref below `refs/`, so that Git would not take the folder for a
    /// repository.
    #[error("HEAD can only name a ref below 'refs/'")]
    HeadTarget,
    /// A component of the name (a part between slashes) is longer than the configuration allows.
    #[error("a component of the name has {len} bytes, {max} are allowed")]
    ComponentTooLong {
        /// The length of the longest component in bytes.
        len: usize,
        /// The maximum in bytes.
        max: usize,
    },
}

impl Reason {
    /// The stable number of this reason.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::BadName(_) => 1,
            Self::NameTooLong { .. } => 2,
            Self::OutsideRefs => 3,
            Self::PseudoRef => 4,
            Self::PerWorktree => 5,
            Self::ObjectFormat { .. } => 6,
            Self::Duplicate { .. } => 7,
            Self::Exists { .. } => 8,
            Self::Missing { .. } => 9,
            Self::Stale { .. } => 10,
            Self::Conflict { .. } => 11,
            Self::ConflictWithin { .. } => 12,
            Self::SymrefLoop { .. } => 13,
            Self::HeadDeletion => 14,
            Self::TooManyCommands { .. } => 15,
            Self::HeadTarget => 16,
            Self::ComponentTooLong { .. } => 17,
        }
    }
}

/// The verdict on one command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// Passes, and changes its ref.
    Changes,
    /// Passes, and leaves its ref as it is.
    Unchanged,
    /// Refused, and so is its transaction.
    ///
    /// Boxed: few are refused, and there is one verdict per command.
    Refused(Box<Reason>),
}

impl Verdict {
    /// The reason why the command was refused, if it was.
    #[must_use]
    pub const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Changes | Self::Unchanged => None,
        }
    }
}

/// An admitted transaction. Append its record to the log, then [`Refs::apply`](crate::Refs::apply) it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    pub(crate) record: Option<Record>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Admitted {
    /// The record to append to the log; `None` if the transaction changes nothing, and so makes no version.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The record ([`Admitted::record`]), by value.
    #[must_use]
    pub fn into_record(self) -> Option<Record> {
        self.record
    }

    /// One verdict per command, in their order; none is a refusal.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }
}

/// A refused transaction. None of its commands takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Refused {
    pub(crate) verdicts: Vec<Verdict>,
}

impl Refused {
    /// One verdict per command, in their order.
    ///
    /// A command that passes by itself is not refused here, but does not take effect either.
    #[must_use]
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// The refused commands: index and reason.
    pub fn reasons(&self) -> impl Iterator<Item = (usize, &Reason)> {
        self.verdicts.iter().enumerate().filter_map(|(at, verdict)| verdict.reason().map(|reason| (at, reason)))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reasons().next() {
            Some((at, reason)) => write!(f, "command {at}: {reason}"),
            None => f.write_str("refused"),
        }
    }
}

impl core::error::Error for Refused {}
