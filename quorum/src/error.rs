//! What refuses, and says why: configurations, commands, gates, snapshots.

use crate::id::{Boot, Fence, Generation, Incarnation, RepoId, Revision, Stamp};
use crate::reason::Reason;

/// Why a configuration was not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The quorum does not meet itself.
    #[error("quorum {n}/{r}/{w}: needs 1 <= r, w <= n <= 15, r + w > n and 2w > n")]
    Quorum {
        /// Voters.
        n: u8,
        /// To read.
        r: u8,
        /// To write.
        w: u8,
    },
    /// A limit or a time that must not be zero is.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// The members allowed per repository are fewer than its voters, or more than 32.
    #[error("most_members is {most}: needs {least} to 32")]
    Members {
        /// As configured.
        most: u8,
        /// One more than the voters: a replacement needs room for a learner.
        least: u8,
    },
    /// W votes cannot come from so many domains.
    #[error("ack_domains is {domains}: at most the {w} votes of a write")]
    Domains {
        /// As configured.
        domains: u8,
        /// W.
        w: u32,
    },
    /// A write would end before its grant does.
    #[error("write_ms {write_ms} leaves no time to settle a write after its lease of {lease_ms} ms")]
    Lease {
        /// The whole time of a write.
        write_ms: u64,
        /// The time to gather votes.
        lease_ms: u64,
    },
}

/// A command that was refused; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[error("{reason} (Q{code})", code = .reason.code())]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason }
    }
}

/// Why a node's gate refused; the gate is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum GateRefusal {
    /// The message is for another repository's gate.
    #[error("this is the gate of {mine}")]
    OtherRepository {
        /// The gate's.
        mine: RepoId,
    },
    /// The message is for another node, or another life of this disk.
    #[error("this is {mine}")]
    OtherIncarnation {
        /// The gate's.
        mine: Incarnation,
    },
    /// A higher fence was shown to the gate.
    #[error("stale: the gate stands at {gate}")]
    StaleFence {
        /// That fence.
        gate: Fence,
    },
    /// A newer configuration was shown to the gate.
    #[error("stale: the gate stands at {gate}")]
    StaleRevision {
        /// That configuration.
        gate: Revision,
    },
    /// The gate has promised itself to a later life of the store.
    #[error("stale: the gate has promised itself to generation {}", .gate.0)]
    StaleGeneration {
        /// That life.
        gate: Generation,
    },
    /// The node has not applied what the message builds on.
    #[error("not applied: the node is at {applied}")]
    NotApplied {
        /// What it has applied.
        applied: Stamp,
    },
    /// The message proves the staged write committed: apply it, then ask again.
    #[error("the staged write is committed: apply it first")]
    ApplyFirst,
    /// The node has another state at the same version.
    #[error("divergent: the node is at {applied}")]
    Divergent {
        /// What it has applied.
        applied: Stamp,
    },
    /// The node voted for another state under the same fence.
    #[error("voted for {staged} under this fence")]
    VotedOtherwise {
        /// That state.
        staged: Stamp,
    },
    /// A copy came before the raise that must precede it.
    #[error("raise the gate first: it stands at {fence}")]
    NotRaised {
        /// The gate's fence.
        fence: Fence,
    },
    /// A copy would take the node back.
    #[error("would go back from {applied}")]
    Downgrade {
        /// What it has applied.
        applied: Stamp,
    },
    /// The node's disk went back in time; it counts in nothing until it is cured.
    #[error("the disk went back in time: not cured yet")]
    Rewound,
    /// A cure is meant for another start of the node.
    #[error("this is {mine}")]
    OtherBoot {
        /// The gate's.
        mine: Boot,
    },
    /// What is to be thrown away is what the row counts on.
    #[error("a member in {revision}")]
    IsMember {
        /// The newest configuration that the gate knows.
        revision: Revision,
    },
}

impl GateRefusal {
    /// The stable number of this refusal.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::OtherRepository { .. } => 400,
            Self::OtherIncarnation { .. } => 401,
            Self::StaleFence { .. } => 402,
            Self::StaleRevision { .. } => 403,
            Self::NotApplied { .. } => 404,
            Self::ApplyFirst => 405,
            Self::Divergent { .. } => 406,
            Self::VotedOtherwise { .. } => 407,
            Self::NotRaised { .. } => 408,
            Self::Downgrade { .. } => 409,
            Self::StaleGeneration { .. } => 410,
            Self::Rewound => 411,
            Self::OtherBoot { .. } => 412,
            Self::IsMember { .. } => 413,
        }
    }
}

/// Why a snapshot was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot is of another format.
    #[error("snapshot format {found}; this is {known}")]
    Format {
        /// Its format.
        found: u16,
        /// This crate's.
        known: u16,
    },
    /// The snapshot is larger than the configuration allows.
    #[error("the snapshot holds more than the limit {limit}")]
    Limit {
        /// The limit.
        limit: u32,
    },
    /// The snapshot contradicts itself.
    #[error("the snapshot contradicts itself: {0}")]
    Broken(&'static str),
}
