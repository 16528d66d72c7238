//! Ids of jobs, pipelines, pools and the rest.
//!
//! The names that a host knows them by are mapped to numbers once, at the host's edge.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name($inner);

        impl $name {
            /// The id with this number.
            #[must_use]
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number of the id.
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
    /// The id of a job, the same over all its attempts.
    JobId(u64);
    /// The id of a pipeline: one run of an orchestration.
    PipelineId(u64);
    /// A reusable operation (build, scan, deploy); 0 is `other`.
    Component(u32);
    /// A class of pipelines, which isolates businesses from each other; 0 is `other`.
    Class(u32);
    /// The id of a pool of resources whose workers pull.
    PoolId(u32);
    /// A key: a resource that jobs share and that a limited number may hold at a time, such as an environment, a lock
    /// or a branch.
    Key(u64);
    /// The lasting name of a worker.
    WorkerName(u64);
    /// One life of a worker or of an engine. A restart starts a new one.
    Incarnation(u64);
    /// The number of an attempt of a job, from 1.
    Attempt(u32);
    /// The version of a row: how often it was written, 1 when it was inserted.
    Version(u32);
    /// The number of a proposed write within an engine's life.
    Ticket(u64);
    /// The number of a command, within an engine's life, that is answered later.
    CallId(u64);
    /// The number of a read of rows that an engine asked for.
    AskId(u64);
}

impl Attempt {
    /// The first attempt.
    pub const FIRST: Self = Self(1);

    /// The next attempt.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Version {
    /// The version of a row that was just inserted.
    pub const FIRST: Self = Self(1);

    /// The next version.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The id of a row's last write: an engine's life and its ticket.
///
/// Versions of two proposals from the same base coincide; write ids never do, so only they tell whose write it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WriteId {
    /// The engine's life.
    pub engine: Incarnation,
    /// The ticket of the write.
    pub ticket: Ticket,
}

/// A worker in one of its lives. A restarted worker does not own the jobs of its earlier life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Worker {
    /// The lasting name.
    pub name: WorkerName,
    /// The life.
    pub incarnation: Incarnation,
}

/// The primary key of a job's row: the job and the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct JobKey {
    /// The job.
    pub job: JobId,
    /// The number of the attempt.
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
    /// The key of the row that was delivered.
    pub key: JobKey,
    /// The row's version at the delivery.
    pub version: Version,
    /// The id of the write that delivered it.
    pub write: WriteId,
}

/// The tag of a job: what it needs and which business it belongs to. Jobs with one tag wait in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tag {
    /// The machine or environment that the job needs; 0 is `other`.
    pub component: Component,
    /// The business that the job belongs to; 0 is `other`.
    pub class: Class,
}

impl Tag {
    /// The tag of jobs without a declared tag of their own.
    pub const OTHER: Self = Self { component: Component::new(0), class: Class::new(0) };

    /// The tag with this component and class.
    ///
    /// ```
    /// use tenon_jobqueue::{Component, Tag};
    ///
    /// assert_eq!(Tag::new(3, 1).component, Component::new(3));
    /// assert_eq!(Tag::new(0, 0), Tag::OTHER);
    /// ```
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
