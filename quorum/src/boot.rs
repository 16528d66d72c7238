//! Starts of nodes: how a disk that went back in time is found out, and made good again.
//!
//! A node draws a [`Boot`] from the store at each start and writes it to its disk before it acts. A disk that does not
//! know the last boot that was drawn for it is an older copy of itself: what its gates promised and voted for since is
//! forgotten, so they count in nothing until the router has raised the fence and brought them to the newest state.

use crate::error::GateRefusal;
use crate::fence::{FenceGate, Report};
use crate::id::{Boot, Generation};
use crate::row::Row;

/// The last boot of one disk (a node in one life), as the store keeps it.
///
/// A node that starts sends the boot that is on its disk. The store calls [`BootRecord::start`] and keeps the record in
/// one transaction. The node follows the answer until it is told [`Start::Ready`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BootRecord {
    /// The last boot that the node is known to have persisted.
    kept: Boot,
    /// A boot drawn since then: the node may have persisted it, or died before.
    drawn: Boot,
}

/// The next step of a node that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a node that is not ready admits nothing"]
pub enum Start {
    /// Persist this boot with [`Disk::started`], then ask again with it.
    Keep {
        /// The boot to persist.
        boot: Boot,
        /// Whether the disk went back in time: an older copy of it was put back.
        rewound: bool,
    },
    /// Serve: the store knows that the boot is on the disk.
    Ready,
}

impl BootRecord {
    /// Decides the next step of a node that starts, and the record to keep.
    ///
    /// `disk` is the boot on the node's disk (the default, if none), `store` the present life of the store.
    ///
    /// ```
    /// use tenon_quorum::{BootRecord, Disk, Generation, Start};
    ///
    /// let (record, disk) = (BootRecord::default(), Disk::default());
    /// let (record, step) = record.start(Generation(1), disk.boot); // keep the record
    /// let Start::Keep { boot, rewound } = step else { panic!("a node persists its boot first") };
    /// let disk = disk.started(boot, rewound); // persist the disk, then ask again
    /// assert_eq!(record.start(Generation(1), disk.boot).1, Start::Ready);
    /// ```
    pub fn start(&self, store: Generation, disk: Boot) -> (Self, Start) {
        if disk == self.drawn && disk.store == store && disk != self.kept {
            return (Self { kept: disk, ..*self }, Start::Ready);
        }
        let last = self.drawn.max(Boot { store, counter: 0 });
        let boot = Boot { store: last.store, counter: last.counter.saturating_add(1) };
        // A store that came back from a backup may have forgotten boots that the disk knows.
        (Self { drawn: boot, ..*self }, Start::Keep { boot, rewound: disk < self.kept })
    }
}

/// A node's own record of its starts. It is persisted beside the gates, on the same disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Disk {
    /// The last boot of the node on this disk.
    pub boot: Boot,
    /// The boot at which the disk was last found to have gone back in time; the default if never.
    pub rewound: Boot,
}

impl Disk {
    /// The record to persist for [`Start::Keep`].
    #[must_use]
    pub const fn started(self, boot: Boot, rewound: bool) -> Self {
        Self { boot, rewound: if rewound { boot } else { self.rewound } }
    }
}

impl FenceGate {
    /// The gate after a start of its node.
    ///
    /// Call it on each gate when it is first taken from the disk in that boot, and on a new gate too. The result is
    /// persisted with the gate's next change.
    pub fn started(&self, disk: &Disk) -> Self {
        let report = self.report;
        if report.boot == disk.boot {
            return self.clone();
        }
        let rewound = report.rewound || report.boot < disk.rewound;
        // Boots come before serials in the order of reports: a new one need not be on the disk to be told.
        let (boot, began) = (disk.boot, report.serial);
        Self { report: Report { boot, began, rewound, ..report }, row: self.row.clone() }
    }

    /// Cures the gate of a disk that went back in time.
    ///
    /// A router orders it ([`crate::Effect::Cure`]) once it raised the fence in the row after it found that out: `row`
    /// is that row, `boot` the start of the node that is meant, `serial` the last serial heard of the gate. The copy
    /// comes first ([`Self::install`]).
    ///
    /// # Errors
    /// [`GateRefusal`], with the gate as it was: the row is older than the gate, the node has not applied exactly its
    /// newest state, or it has started again since.
    pub fn cure(&self, row: &Row, boot: Boot, serial: u64) -> Result<Self, GateRefusal> {
        let raised = self.raise(row)?;
        let mut next = raised.report;
        if next.boot != boot {
            return Err(GateRefusal::OtherBoot { mine: next.boot });
        }
        if next.applied != row.newest {
            return Err(GateRefusal::NotApplied { applied: next.applied });
        }
        next.rewound = false;
        next.serial = next.serial.max(serial).saturating_add(1);
        next.began = next.serial;
        Ok(Self { report: next, row: raised.row })
    }
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const ONE: Generation = Generation(1);

    /// Starts until the node is ready; whether it was found to have gone back.
    fn start(record: &mut BootRecord, disk: &mut Disk, store: Generation) -> bool {
        let (kept, step) = record.start(store, disk.boot);
        *record = kept;
        let Start::Keep { boot, rewound } = step else { panic!("a start draws first") };
        *disk = disk.started(boot, rewound);
        let (kept, step) = record.start(store, disk.boot);
        *record = kept;
        assert_eq!(step, Start::Ready);
        rewound
    }

    #[test]
    fn an_older_copy_of_a_disk_is_found_out_at_its_start() {
        let (mut record, mut disk) = (BootRecord::default(), Disk::default());
        assert!(!start(&mut record, &mut disk, ONE));
        let copy = disk;
        assert!(!start(&mut record, &mut disk, ONE) && !start(&mut record, &mut disk, ONE));
        disk = copy;
        assert!(start(&mut record, &mut disk, ONE));
        assert_eq!(disk.rewound, disk.boot);
        assert!(!start(&mut record, &mut disk, ONE), "it is found out once");
        assert!(start(&mut record, &mut Disk::default(), ONE), "an empty disk under the old incarnation");
    }

    #[test]
    fn a_node_that_dies_while_it_starts_is_not_taken_for_rewound() {
        let (mut record, mut disk) = (BootRecord::default(), Disk::default());
        start(&mut record, &mut disk, ONE);
        for _ in 0..3 {
            // It draws, and dies before it has written the boot down.
            let (kept, step) = record.start(ONE, disk.boot);
            record = kept;
            assert!(matches!(step, Start::Keep { rewound: false, .. }));
        }
        let (kept, step) = record.start(ONE, disk.boot);
        let Start::Keep { boot, rewound } = step else { panic!("a start draws first") };
        disk = disk.started(boot, rewound);
        // It dies before it has said so.
        assert_eq!(kept.start(ONE, disk.boot).1, Start::Ready);
    }

    #[test]
    fn a_store_from_a_backup_draws_no_boot_twice_and_accuses_nobody() {
        let (mut record, mut disk) = (BootRecord::default(), Disk::default());
        start(&mut record, &mut disk, ONE);
        let backup = record;
        start(&mut record, &mut disk, ONE);
        let (forgotten, last) = (disk, disk.boot);
        record = backup;
        assert!(!start(&mut record, &mut disk, Generation(2)) && disk.boot > last);
        disk = forgotten;
        assert!(start(&mut record, &mut disk, Generation(2)), "but in its next life it knows what it drew");
    }
}
