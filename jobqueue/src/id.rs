//! What things are called. Text that a host knows them by is mapped once, at the host's edge.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name($inner);

        impl $name {
            /// The name for this number.
            #[must_use]
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number behind the name.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

ids! {
    /// A job, the same over all its attempts.
    JobId(u64);
    /// A pipeline: one run of an orchestration.
    PipelineId(u64);
    /// A reusable operation (build, scan, deploy); 0 is `other`.
    Component(u32);
    /// A kind of pipeline, for isolation between businesses; 0 is `other`.
    Class(u32);
    /// A pool of resources whose workers pull.
    PoolId(u32);
    /// What jobs share that must not run at the same time: an environment, a lock, a branch.
    Key(u64);
    /// A worker's lasting name.
    WorkerName(u64);
    /// One life of a worker or of an engine: a restart is a new one.
    Incarnation(u64);
    /// Which try of a job a row is, from 1.
    Attempt(u32);
    /// How often a row was written; 1 when it was inserted.
    Version(u32);
    /// One proposed change of an engine's life.
    Ticket(u64);
    /// One command of an engine's life that is answered later.
    CallId(u64);
    /// One read of rows that an engine asked for.
    AskId(u64);
}

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Version {
    /// The version of a row that was just inserted.
    pub const FIRST: Self = Self(1);

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Who wrote a row last: an engine's life and its ticket.
///
/// Versions of two proposals from the same base coincide; write ids never do, so only they tell whose write it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WriteId {
    /// The engine's life.
    pub engine: Incarnation,
    /// Its ticket.
    pub ticket: Ticket,
}

/// A worker in one of its lives: a restarted worker does not own what its dead self held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Worker {
    /// The lasting name.
    pub name: WorkerName,
    /// The life.
    pub incarnation: Incarnation,
}

/// Which row of a job: the job and the attempt are the row's primary key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct JobKey {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: Attempt,
}

/// The fence of one delivery, frozen in the row when the job was given out.
///
/// Acks, heartbeats and reports raise the row's version, not the token; a later delivery has another token, so what
/// an earlier worker still says is refused.
#[must_use = "without its token a delivery can be neither acknowledged nor reported"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeaseToken {
    /// The row that was delivered.
    pub key: JobKey,
    /// The row's version at the delivery.
    pub version: Version,
    /// The write that delivered it.
    pub write: WriteId,
}

/// What a job needs and whom it belongs to; jobs with one tag wait in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tag {
    /// What machine or environment the job needs; 0 is `other`.
    pub component: Component,
    /// Which business it belongs to; 0 is `other`.
    pub class: Class,
}

impl Tag {
    /// The tag of what has no tag of its own.
    pub const OTHER: Self = Self { component: Component::new(0), class: Class::new(0) };

    /// The tag with this component and class.
    #[must_use]
    pub const fn new(component: u32, class: u32) -> Self {
        Self { component: Component::new(component), class: Class::new(class) }
    }
}

impl crate::recent::Number for Ticket {
    fn new(number: u64) -> Self {
        Self(number)
    }

    fn number(self) -> u64 {
        self.0
    }
}

impl crate::recent::Number for CallId {
    fn new(number: u64) -> Self {
        Self(number)
    }

    fn number(self) -> u64 {
        self.0
    }
}
