//! Tenon's own YAML: groups that are sized from shared pools, with floors, caps and deltas by the clock, and tasks for chains.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::policy::Autoscaler;

/// A set of groups and the pools that they share.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) pools: Vec<Pool>,
    pub(crate) groups: Vec<Group>,
    pub(crate) links: Vec<Link>,
    pub(crate) tasks: Vec<Task>,
}

/// A pool of machines.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    /// The lease of machines that are leased.
    pub(crate) lease: Option<(Timestamp, Timestamp)>,
    pub(crate) datacentre: String,
    /// Thousandths for an instance and an hour.
    pub(crate) price: u64,
    pub(crate) stock: u32,
    /// The high and the low mark, in thousandths of the stock.
    pub(crate) marks: (u16, u16),
}

/// A group: its bounds, its metric and its behavior, in the words that all autoscalers here have; and its timed rules.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) scaler: Autoscaler,
    pub(crate) timed: Vec<Timed>,
}

/// A rule of the clock.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) kind: TimedKind,
    pub(crate) zone: TimeZone,
    pub(crate) days: Days,
    pub(crate) from: Time,
    pub(crate) until: Time,
    pub(crate) lead_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimedKind {
    Floor(u32),
    Cap(u32),
    Delta(i32),
}

/// On which days a rule of the clock begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Days {
    Every,
    /// Bit 0 is Monday.
    Week(u8),
    MonthEnd,
}

/// A service of the chain: its group, by its place, what one instance carries, and whom it calls: places and thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) group: usize,
    pub(crate) per_instance: i64,
    pub(crate) calls: Vec<(usize, u32)>,
}

/// So many instances for services of the chain, for a time.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) wanted: Vec<(usize, u32)>,
    /// Whether a part of it is better than nothing.
    pub(crate) partial: bool,
}
