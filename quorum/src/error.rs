//! Errors: why a configuration, a command, a message to a gate or a snapshot is refused.

use crate::id::{Boot, Fence, Generation, Incarnation, RepoId, Revision, Stamp};
use crate::reason::Reason;

/// Why a configuration was not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Read and write quorums do not intersect, or the numbers are out of range.
    #[error("quorum {n}/{r}/{w}: needs 1 <= r, w <= n <= 15, r + w > n and 2w > n")]
    Quorum {
        /// The number of voters (N).
        n: u8,
        /// The size of a read quorum (R).
        r: u8,
        /// The size of a write quorum (W).
        w: u8,
    },
    /// A limit or a time is zero that must not be.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// The maximum of members per repository is below its voters plus a learner, or above 32.
    #[error("most_members is {most}; it must be {least} to 32")]
    Members {
        /// The configured maximum.
        most: u8,
        /// The smallest valid maximum: N + 1, because a replacement needs room for a learner.
        least: u8,
    },
    /// W votes cannot come from this many failure domains.
    #[error("ack_domains is {domains}; the {w} votes of a write come from at most {w} domains")]
    Domains {
        /// The configured number of domains.
        domains: u8,
        /// The votes that a write needs (W).
        w: u32,
    },
    /// The time of a write ends before the lease of its grant.
    #[error("write_ms {write_ms} leaves no time to settle a write after its lease of {lease_ms} ms")]
    Lease {
        /// The whole time of a write, in ms.
        write_ms: u64,
        /// The lease of a grant, in ms.
        lease_ms: u64,
    },
}

/// A command that was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[error("{reason} (Q{code})", code = .reason.code())]
pub struct Refusal {
    /// The reason for the refusal.
    pub reason: Reason,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason }
    }
}

/// A refusal of a node's gate. The gate is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum GateRefusal {
    /// The message is for another repository's gate.
    #[error("the message is for another repository: this gate is of {mine}")]
    OtherRepository {
        /// The repository of this gate.
        mine: RepoId,
    },
    /// The message is for another node, or another life of this disk.
    #[error("the message is for another node, or another life of this disk: this is {mine}")]
    OtherIncarnation {
        /// The life of this gate's disk.
        mine: Incarnation,
    },
    /// The gate was shown a higher fence than the message carries.
    #[error("stale: the gate stands at {gate}")]
    StaleFence {
        /// The highest fence that the gate was shown.
        gate: Fence,
    },
    /// The gate was shown a newer configuration than the message carries.
    #[error("stale: the gate stands at {gate}")]
    StaleRevision {
        /// The newest configuration that the gate was shown.
        gate: Revision,
    },
    /// The gate has promised itself to a later life of the store.
    #[error("stale: the gate has promised itself to generation {}", .gate.0)]
    StaleGeneration {
        /// The life of the store that the gate promised itself to.
        gate: Generation,
    },
    /// The node has not applied what the message builds on.
    #[error("the node has not applied the state that the message builds on: it is at {applied}")]
    NotApplied {
        /// The state that the node has applied.
        applied: Stamp,
    },
    /// The message proves the staged write committed: apply it, then ask again.
    #[error("the staged write is committed: apply it first")]
    ApplyFirst,
    /// The node has another state at the same version.
    #[error("the node has another state at the same version: {applied}")]
    Divergent {
        /// The state that the node has applied.
        applied: Stamp,
    },
    /// The node voted for another state under the same fence.
    #[error("the node voted for {staged} under the same fence")]
    VotedOtherwise {
        /// The state that the node voted for.
        staged: Stamp,
    },
    /// A copy came before the raise that must precede it.
    #[error("the gate must be raised before the copy: it stands at {fence}")]
    NotRaised {
        /// The gate's fence.
        fence: Fence,
    },
    /// A copy would take the node back.
    #[error("the copy would take the node back from {applied}")]
    Downgrade {
        /// The state that the node has applied.
        applied: Stamp,
    },
    /// The node's disk went back in time. It does not count until it is cured.
    #[error("the node's disk went back in time and is not cured yet")]
    Rewound,
    /// The cure is meant for another start of the node.
    #[error("the cure is for another start of the node: this is {mine}")]
    OtherBoot {
        /// The last start that this gate was told of.
        mine: Boot,
    },
    /// The data must not be discarded: the node is a member of the newest row that its gate knows.
    #[error("the node is a member in {revision}")]
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

/// Why a snapshot was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot has another format than this crate reads.
    #[error("the snapshot has format {found}; this crate reads {known}")]
    Format {
        /// The format of the snapshot.
        found: u16,
        /// The format that this crate reads.
        known: u16,
    },
    /// The snapshot holds more than the configuration allows.
    #[error("the snapshot holds more than the limit {limit}")]
    Limit {
        /// The limit that is exceeded.
        limit: u32,
    },
    /// The snapshot contradicts itself; the text says where.
    #[error("the snapshot contradicts itself: {0}")]
    Broken(&'static str),
}
