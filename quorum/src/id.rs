//! Ids: a newtype each, so that no two can be mixed up.

use core::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty) $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}

ids! {
    /// The id of a repository. It is a number, so that a rename moves nothing.
    RepoId(u64) "repo ";
    /// The id of a node: a machine that holds replicas.
    NodeId(u32) "node ";
    /// The id of a shard: a group of nodes that hold the same repositories.
    ShardId(u32) "shard ";
    /// The id of a failure domain: nodes that fail together (a rack, a datacentre).
    DomainId(u32) "domain ";
    /// One life of a node's disk. A wiped disk comes back under a *larger* number; a restart keeps the number.
    ///
    /// A host that draws it from its store uses [`Incarnation::drawn`], which a store from a backup cannot repeat.
    Incarnation(u64) "incarnation ";
    /// The id of a router among those that share one store. A replacement keeps the number.
    RouterId(u32) "router ";
    /// The caller's own id of a request. The router only hands it back.
    RequestId(u64) "request ";
    /// The id of a write. One router never uses an id twice.
    WriteId(u64) "write ";
    /// The id of a change of a row that is not a write (a creation, a removal, a change of members).
    ChangeId(u64) "change ";
    /// The id of a copy of a repository from one node to another.
    TaskId(u64) "task ";
    /// One life of the metadata store. A store restored from a backup starts a larger one.
    Generation(u32) "generation ";
    /// A lineage of a repository. It grows when a loss is accepted, and when a deleted id is used again.
    Epoch(u32) "epoch ";
    /// The number of a member configuration of a repository. It grows with every change of members.
    Revision(u32) "revision ";
    /// The number of writes that a repository has taken.
    Version(u64) "v";
    /// A point in the router's own order of events.
    ///
    /// A row fetched under an `Ask` shows the store as it was *after* that point: this order, never a clock, says
    /// whether a row is fresh enough for a read.
    Ask(u64) "ask ";
    /// The id of a swap that the router waits to be told about. It is an [`Ask`] too.
    Ticket(u64) "ticket ";
}

impl Version {
    /// The next version.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Incarnation {
    /// The life that a counter of the store gives to an empty disk in the store's life `store`.
    ///
    /// A store that came back from a backup counts anew, and every number that it draws is larger than those before.
    ///
    /// ```
    /// use tenon_quorum::{Generation, Incarnation};
    ///
    /// // A store that came back from a backup counts anew, and still draws larger numbers.
    /// assert!(Incarnation::drawn(Generation(2), 1) > Incarnation::drawn(Generation(1), 900));
    /// ```
    #[must_use]
    pub const fn drawn(store: Generation, counter: u32) -> Self {
        Self((store.0 as u64) << 32 | counter as u64)
    }
}

impl Ticket {
    /// The point in the router's order at which the swap was asked for.
    #[must_use]
    pub const fn ask(self) -> Ask {
        Ask(self.0)
    }
}

/// The digest of a repository's state. Two replicas are equal if and only if their digests are.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of a deleted repository. No live state has it.
    pub const TOMBSTONE: Self = Self([0xff; 16]);
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The right to change one repository: only the router that raised the row's fence last may write.
///
/// Ordered by generation, then counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fence {
    /// The life of the store in which the fence was raised.
    pub generation: Generation,
    /// The number of raises in that life.
    pub counter: u64,
}

impl Fence {
    /// The next fence of the same generation.
    ///
    /// ```
    /// use tenon_quorum::{Fence, Generation};
    ///
    /// let fence = Fence { generation: Generation(1), counter: 4 };
    /// assert!(fence.raised() > fence);
    /// assert_eq!(fence.raised().to_string(), "fence 1.5");
    /// ```
    #[must_use]
    pub const fn raised(self) -> Self {
        Self { generation: self.generation, counter: self.counter.saturating_add(1) }
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fence {}.{}", self.generation.0, self.counter)
    }
}

/// One start of a node. It is drawn from the store before the node acts: see [`crate::BootRecord`].
///
/// Ordered by the life of the store, then the counter. The default is the boot of a disk that never started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Boot {
    /// The life of the store that the boot was drawn from.
    pub store: Generation,
    /// The number of boots drawn in that life for this disk.
    pub counter: u64,
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot {}.{}", self.store.0, self.counter)
    }
}

/// One state of a repository: lineage, version, digest. A version alone proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stamp {
    /// The lineage.
    pub epoch: Epoch,
    /// The number of writes that led to this state.
    pub version: Version,
    /// The digest of the state.
    pub digest: Digest,
}

impl Stamp {
    /// The state of a node that holds nothing. No row has it: lineages start at 1.
    pub const BLANK: Self = Self { epoch: Epoch(0), version: Version(0), digest: Digest([0; 16]) };

    /// The next state: one write later, with this digest.
    #[must_use]
    pub const fn next(self, digest: Digest) -> Self {
        Self { epoch: self.epoch, version: self.version.next(), digest }
    }

    /// The same state as the start of the next lineage.
    #[must_use]
    pub(crate) const fn in_next_epoch(self) -> Self {
        Self { epoch: Epoch(self.epoch.0.saturating_add(1)), ..self }
    }

    /// Whether this state lies beyond `other` in the same or a later lineage, by its numbers.
    ///
    /// ```
    /// use tenon_quorum::{Digest, Stamp};
    ///
    /// let first = Stamp::BLANK.next(Digest([1; 16]));
    /// assert!(first.is_beyond(Stamp::BLANK));
    /// assert!(!first.is_beyond(first));
    /// ```
    #[must_use]
    pub fn is_beyond(self, other: Self) -> bool {
        self.epoch > other.epoch || (self.epoch == other.epoch && self.version > other.version)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [head, ..] = self.digest.0.as_chunks::<4>().0 else {
            return Ok(());
        };
        write!(f, "{} (epoch {}, {:08x}…)", self.version, self.epoch.0, u32::from_be_bytes(*head))
    }
}
