//! What goes wrong, and when: a schedule that is drawn before the day begins, so that it can be cut down.

use std::fmt;

use crate::chance::Chance;

/// One thing that goes wrong, or that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node's process dies, and starts again from its disk after so many ms.
    NodeCrash(u32, u64),
    /// A node's disk is lost; an empty one takes its place.
    DiskLost(u32),
    /// A copy is taken of a node's disk.
    KeepCopy(u32),
    /// The copy of a node's disk is put in its place.
    Rewind(u32),
    /// A router dies, and starts anew.
    RouterCrash(usize),
    /// A router stands still for so many ms, longer than its leases.
    RouterPause(usize, u64),
    /// A task centre dies, and starts anew from the rows.
    EngineCrash(usize),
    /// A task centre stands still for so many ms, longer than its share of the limits counts.
    EnginePause(usize, u64),
    /// A task centre's clock is wrong by so many ms, for one reading.
    ClockStep(usize, u64),
    /// A node hears nothing and is not heard for so many ms.
    Partition(u32, u64),
    /// So many messages in a thousand are lost, and as many come twice, for so many ms.
    Loss(u64, u64),
    /// Messages take up to so many ms, for so many ms.
    Slow(u64, u64),
    /// The metadata store and the queue's database lose the replies of some writes for so many ms.
    LostReplies(u64),
    /// All nodes of a data centre are down for so many ms.
    DatacenterDown(u32, u64),
    /// So many workers in a hundred die.
    WorkersDie(u64),
    /// No metric is measured for so many ms.
    MetricsGap(u64),
    /// Launches in one pool hang for so many ms.
    LaunchesHang(u64),
    /// Launches in one pool fail for so many ms.
    LaunchesFail(u64),
    /// An operator replaces a node by a spare one in some repositories.
    Replace(u32),
    /// An operator changes how many jobs may run at once, for so many ms.
    Limit(u32, u64),
    /// An operator pauses all queues for so many ms.
    PauseQueues(u64),
    /// An operator holds the fleet at a size for so many ms.
    Override(u32, u64),
    /// The metadata store is backed up.
    BackUp,
    /// The last backup of the metadata store is put in its place, and repositories are recovered.
    Restore,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeCrash(node, ms) => write!(f, "node {node} dies for {} s", ms / 1_000),
            Self::DiskLost(node) => write!(f, "node {node} loses its disk"),
            Self::KeepCopy(node) => write!(f, "a copy is taken of the disk of node {node}"),
            Self::Rewind(node) => write!(f, "the disk of node {node} goes back in time"),
            Self::RouterCrash(router) => write!(f, "router {router} dies"),
            Self::RouterPause(router, ms) => write!(f, "router {router} stands still for {} s", ms / 1_000),
            Self::EngineCrash(engine) => write!(f, "task centre {engine} dies"),
            Self::EnginePause(engine, ms) => write!(f, "task centre {engine} stands still for {} s", ms / 1_000),
            Self::ClockStep(engine, ms) => write!(f, "task centre {engine} reads a clock {} s ahead, once", ms / 1_000),
            Self::Partition(node, ms) => write!(f, "node {node} is cut off for {} s", ms / 1_000),
            Self::Loss(permille, ms) => write!(f, "{permille} ‰ of messages are lost for {} s", ms / 1_000),
            Self::Slow(most, ms) => write!(f, "messages take up to {most} ms for {} s", ms / 1_000),
            Self::LostReplies(ms) => write!(f, "stores lose replies for {} s", ms / 1_000),
            Self::DatacenterDown(dc, ms) => write!(f, "data centre {dc} is down for {} s", ms / 1_000),
            Self::WorkersDie(percent) => write!(f, "{percent} % of the workers die"),
            Self::MetricsGap(ms) => write!(f, "nothing is measured for {} s", ms / 1_000),
            Self::LaunchesHang(ms) => write!(f, "launches hang for {} s", ms / 1_000),
            Self::LaunchesFail(ms) => write!(f, "launches fail for {} s", ms / 1_000),
            Self::Replace(node) => write!(f, "node {node} is replaced in some repositories"),
            Self::Limit(limit, ms) => write!(f, "{limit} jobs may run at once, for {} s", ms / 1_000),
            Self::PauseQueues(ms) => write!(f, "the queues are paused for {} s", ms / 1_000),
            Self::Override(count, ms) => write!(f, "the fleet is held at {count} for {} s", ms / 1_000),
            Self::BackUp => f.write_str("the metadata store is backed up"),
            Self::Restore => f.write_str("the metadata store is taken back to its backup"),
        }
    }
}

/// What kind of day it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Weather {
    /// Nothing goes wrong.
    Calm,
    /// Machines, networks, disks, clocks and stores fail.
    Faulty,
    /// Operators replace, pause, limit and override, while some things fail.
    Operators,
    /// The metadata store comes back from backups.
    Restored,
}

/// How many nodes hold repositories; beyond them are spare ones.
pub(crate) const NODES: u32 = 6;
/// Nodes that are spare.
pub(crate) const SPARES: u32 = 2;

/// The schedule of a day that is `ms` long: sorted by time, and over well before the day is.
pub(crate) fn schedule(weather: Weather, seed: u64, ms: u64, routers: usize, engines: usize) -> Vec<(u64, Fault)> {
    let mut chance = Chance::new(seed, 1);
    let mut all = Vec::new();
    let (from, to) = (ms / 50, ms * 8 / 10);
    let per_day = match weather {
        Weather::Calm => 0,
        Weather::Faulty => 60,
        Weather::Operators | Weather::Restored => 40,
    };
    // At least a handful, however short the day.
    let count = if per_day == 0 { 0 } else { (per_day * ms / 86_400_000).max(6) };
    for _ in 0..count {
        let at = chance.between(from, to);
        let minutes = chance.between(1, 20) * 60_000;
        let node = 1 + u32::try_from(chance.below(u64::from(NODES))).unwrap_or(0);
        let (router, engine) = (chance.place(routers), chance.place(engines));
        let kinds: &[u8] = match weather {
            Weather::Calm => &[],
            Weather::Faulty => &[0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 22, 22],
            Weather::Operators => &[0, 3, 5, 7, 11, 12, 16, 16, 16, 17, 17, 18, 19, 22],
            Weather::Restored => &[0, 3, 5, 8, 20, 20, 21, 21],
        };
        let kind = kinds.get(chance.place(kinds.len())).copied().unwrap_or(0);
        let fault = match kind {
            0 => Fault::NodeCrash(node, minutes),
            1 => Fault::DiskLost(node),
            2 => {
                all.push((at.saturating_sub(chance.between(60_000, 1_800_000)).max(1), Fault::KeepCopy(node)));
                Fault::Rewind(node)
            }
            3 => Fault::RouterCrash(router),
            4 => Fault::RouterPause(router, minutes / 4),
            5 => Fault::EngineCrash(engine),
            6 => Fault::ClockStep(engine, [2_000, 60_000, 3_600_000][chance.place(3)]),
            7 => Fault::Partition(node, minutes),
            8 => Fault::Loss(chance.between(10, 200), minutes),
            9 => Fault::Slow(chance.between(100, 3_000), minutes),
            10 => Fault::LostReplies(minutes),
            11 => Fault::WorkersDie(chance.between(10, 60)),
            12 => Fault::MetricsGap(minutes),
            13 => Fault::LaunchesHang(minutes * 2),
            14 => Fault::LaunchesFail(minutes),
            15 => Fault::DatacenterDown(1 + u32::try_from(chance.below(3)).unwrap_or(0), minutes),
            16 => Fault::Replace(node),
            17 => Fault::Limit(15 + u32::try_from(chance.below(40)).unwrap_or(0), minutes * 2),
            18 => Fault::PauseQueues(minutes / 2),
            19 => Fault::Override(5 + u32::try_from(chance.below(40)).unwrap_or(0), minutes),
            20 => Fault::BackUp,
            22 => Fault::EnginePause(engine, minutes / 8),
            _ => Fault::Restore,
        };
        all.push((at, fault));
    }
    all.sort_by_key(|(at, _)| *at);
    all
}
