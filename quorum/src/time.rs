//! Time as an input: milliseconds since an epoch that the host picks.

/// An instant, in milliseconds since an epoch that the host picks.
///
/// A core never reads a clock. Every call that depends on time takes `now` as its first argument; a `now` older than
/// one already seen is lifted to it, so that a clock that steps back cannot undo anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);
    /// The largest instant; "never" as a deadline.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `ms` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// The milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The instant `ms` milliseconds later, or [`Timestamp::MAX`] if that cannot be represented.
    #[must_use]
    pub const fn after_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The milliseconds from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
