//! Starts of nodes: how a disk that went back in time is found out, and made good again.
//!
//! A node draws a [`Boot`] from the store at each start and writes it to its disk before it acts. A disk that does not
//! know the last boot that was drawn for it is an older copy of itself: what its gates promised and voted for since is
//! forgotten, so they count in nothing until the router has raised the fence and brought them to the newest state.

use crate::error::GateRefusal;
use crate::fence::{FenceGate, Report};
use crate::id::{Boot, Generation};
use crate::row::Row;

/// What the store keeps of one disk (a node in one life): the last boot that it drew.
///
/// A node that starts sends the boot that is on its disk; the store calls [`BootRecord::start`] in one transaction with
/// keeping the record; the node does what it is told, until it is told to be ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BootRecord {
    /// The last boot that the node is known to have written down.
    kept: Boot,
    /// A boot that was drawn since: the node may have written it down, or died before.
    drawn: Boot,
}

/// What a node that starts is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a node that is not ready admits nothing"]
pub enum Start {
    /// Write this to the disk ([`Disk::started`]), then ask again with it.
    Keep {
        /// The boot.
        boot: Boot,
        /// Whether the disk went back in time.
        rewound: bool,
    },
    /// The store knows that the boot is on the disk: serve.
    Ready,
}

impl BootRecord {
    /// What a node is to do whose disk says `disk` (the default, if nothing), and the record to keep. `store` is the
    /// life that the store is in.
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

/// What a node keeps of its own starts, beside its gates, on the same disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Disk {
    /// The last boot.
    pub boot: Boot,
    /// The boot at which the disk was last found to have gone back in time; the default if never.
    pub rewound: Boot,
}

impl Disk {
    /// What to write down for [`Start::Keep`].
    #[must_use]
    pub const fn started(self, boot: Boot, rewound: bool) -> Self {
        Self { boot, rewound: if rewound { boot } else { self.rewound } }
    }
}

impl FenceGate {
    /// The node has started: what every gate becomes when it is first taken from the disk in that boot, a new one too.
    /// It is persisted with its next change.
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

    /// Cures the gate of a disk that went back in time, on order of a router which raised the fence in the row after it
    /// found that out: `row` is that row, `boot` the start of the node that is meant, `serial` the last that was heard of
    /// the gate. The copy comes first ([`Self::install`]).
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
