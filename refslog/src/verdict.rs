//! What admission answers: a verdict for each command, and a reason with each refusal.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::change::Value;
use crate::name::{NameError, RefName};
use crate::oid::ObjectFormat;
use crate::record::Record;

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// The name of a ref to be made breaks Git's rules.
    #[error("the name is not allowed: {0}")]
    BadName(NameError),
    /// The name of a ref to be made is longer than the configuration allows.
    #[error("the name has {len} bytes, {max} are allowed")]
    NameTooLong {
        /// Bytes of the name.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The name is outside of `refs/`, and not `HEAD`.
    #[error("refs outside of 'refs/' are not served")]
    OutsideRefs,
    /// The name is a file of Git's own that is no ref (`FETCH_HEAD`, `MERGE_HEAD`).
    #[error("a pseudo ref is no ref")]
    PseudoRef,
    /// The ref belongs to one worktree (`refs/bisect/…`, `refs/worktree/…`, `refs/rewritten/…`).
    #[error("the ref belongs to one worktree and is not shared")]
    PerWorktree,
    /// The value's id is of another object format.
    #[error("the id is not {want}, the repository's object format")]
    ObjectFormat {
        /// The repository's format.
        want: ObjectFormat,
    },
    /// Another command touches the same ref, perhaps through a symbolic ref.
    #[error("'{name}' is touched by command {other} too")]
    Duplicate {
        /// The ref.
        name: RefName,
        /// Index of the other command.
        other: usize,
    },
    /// The ref should not exist and does.
    #[error("the ref exists already, with {actual}")]
    Exists {
        /// What it holds.
        actual: Value,
    },
    /// The ref should hold a value and does not exist.
    #[error("the ref does not exist, {expected} was expected")]
    Missing {
        /// What it should hold.
        expected: Value,
    },
    /// The ref holds another value than was expected.
    #[error("the ref holds {actual}, {expected} was expected")]
    Stale {
        /// What it should hold.
        expected: Value,
        /// What it holds.
        actual: Value,
    },
    /// A ref cannot be both a directory and a file: the other one exists.
    #[error("conflicts with '{with}', which exists")]
    Conflict {
        /// The ref that exists.
        with: RefName,
    },
    /// A ref cannot be both a directory and a file: the other one is in this transaction.
    #[error("conflicts with '{with}' in the same transaction")]
    ConflictWithin {
        /// The other ref.
        with: RefName,
    },
    /// Symbolic refs that name each other in a circle, or a chain longer than the configuration allows.
    #[error("a chain of symbolic refs has no end within {max}")]
    SymrefLoop {
        /// Longest chain followed.
        max: usize,
    },
    /// `HEAD` itself would be deleted.
    #[error("HEAD cannot be deleted")]
    HeadDeletion,
    /// The transaction has more commands than the configuration allows.
    #[error("{count} commands, {max} are allowed")]
    TooManyCommands {
        /// Commands of the transaction.
        count: usize,
        /// Commands allowed.
        max: usize,
    },
    /// `HEAD` would name what is no ref below `refs/`: such a folder is no repository to Git.
    #[error("HEAD can only name a ref below 'refs/'")]
    HeadTarget,
    /// A part of the name between slashes is longer than the configuration allows.
    #[error("a component of the name has {len} bytes, {max} are allowed")]
    ComponentTooLong {
        /// Bytes of the longest component.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

impl Reason {
    /// A number for the reason that never changes its meaning.
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

/// What admission says of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// It passes and changes its ref.
    Changes,
    /// It passes and leaves its ref as it is.
    Unchanged,
    /// It does not pass, and so neither does its transaction. Boxed: few are refused, and there is one verdict per command.
    Refused(Box<Reason>),
}

impl Verdict {
    /// Why the command was refused, if it was.
    #[must_use]
    pub const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Changes | Self::Unchanged => None,
        }
    }
}

/// A transaction that may happen: append its record to the log, then [`Refs::apply`](crate::Refs::apply) it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    pub(crate) record: Option<Record>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Admitted {
    /// What to append to the log; `None` where the transaction changes nothing, and so makes no version.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// As [`Admitted::record`], by value.
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

/// A transaction that may not happen. Nothing of it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Refused {
    pub(crate) verdicts: Vec<Verdict>,
}

impl Refused {
    /// One verdict per command, in their order. What passes by itself is not refused here, but does not happen either.
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
