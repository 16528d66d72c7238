//! A node: a disk with a gate for each repository, and whether its process runs.

use std::collections::BTreeMap;

use tenon_quorum::{
    Boot, BootRecord, Digest, Disk, FenceGate, Generation, Grant, Incarnation, NodeId, RepoId, Report, Route, Row,
    StageOrder, Stamp, Start, SyncResult,
};

#[derive(Clone)]
pub(super) struct Node {
    pub(super) incarnation: Incarnation,
    disk: Disk,
    gates: BTreeMap<RepoId, FenceGate>,
    pub(super) down_until: u64,
}

impl Node {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, disk: Disk::default(), gates: BTreeMap::new(), down_until: 0 }
    }

    pub(super) const fn is_up(&self, now: u64) -> bool {
        self.down_until <= now
    }

    /// Starts: draws a boot from the store's record of its disk, and tells every gate of it.
    pub(super) fn start(&mut self, store: Generation, record: &mut BootRecord) {
        let (drawn, step) = record.start(store, self.disk.boot);
        *record = drawn;
        if let Start::Keep { boot, rewound } = step {
            self.disk = self.disk.started(boot, rewound);
            (*record, _) = record.start(store, boot);
        }
        for gate in self.gates.values_mut() {
            *gate = gate.started(&self.disk);
        }
    }

    pub(super) fn gate(&mut self, repo: RepoId, node: NodeId) -> &mut FenceGate {
        let (incarnation, disk) = (self.incarnation, &self.disk);
        self.gates.entry(repo).or_insert_with(|| FenceGate::new(repo, node, incarnation).started(disk))
    }

    pub(super) fn holds(&self, row: &Row) -> bool {
        self.gates.get(&row.repo).is_some_and(|gate| {
            let report = gate.report();
            let staged = report.staged.is_some_and(|staged| staged.stamp == row.newest);
            !report.rewound && (report.applied == row.newest || staged)
        })
    }

    pub(super) fn knows(&self, row: &Row) -> bool {
        self.gates.get(&row.repo).is_some_and(|gate| gate.report().revision >= row.revision)
    }

    pub(super) fn show(&mut self, node: NodeId, row: &Row) -> Report {
        let gate = self.gate(row.repo, node);
        if let Ok(shown) = gate.show(row) {
            *gate = shown;
        }
        gate.report()
    }

    pub(super) fn cure(&mut self, node: NodeId, row: &Row, boot: Boot, serial: u64) -> Report {
        let gate = self.gate(row.repo, node);
        if let Ok(cured) = gate.cure(row, boot, serial) {
            *gate = cured;
        }
        gate.report()
    }

    pub(super) fn promise(&mut self, repo: RepoId, node: NodeId, generation: Generation) -> FenceGate {
        let gate = self.gate(repo, node);
        if let Ok(promised) = gate.promise(generation) {
            *gate = promised;
        }
        gate.clone()
    }

    pub(super) fn install(&mut self, node: NodeId, row: &Row) -> SyncResult {
        let gate = self.gate(row.repo, node);
        if let Ok(raised) = gate.raise(row) {
            *gate = raised;
        }
        match gate.install(&row.proof()) {
            Ok(installed) => {
                *gate = installed;
                SyncResult::Done(gate.report())
            }
            Err(_) => SyncResult::Failed,
        }
    }

    pub(super) fn take(&mut self, node: NodeId, grant: &Grant, digest: Digest) -> Result<StageOrder, Box<Report>> {
        let report = self.show(node, &grant.base);
        if report.applied == grant.base.newest && report.fence <= grant.base.fence {
            Ok(grant.stage(digest))
        } else {
            Err(Box::new(report))
        }
    }

    pub(super) fn stage(&mut self, node: NodeId, order: &StageOrder) -> (Report, bool) {
        let gate = self.gate(order.base.repo, node);
        let staged = gate.show(&order.base).and_then(|shown| {
            *gate = shown;
            gate.stage(order)
        });
        let voted = staged.is_ok();
        if let Ok(staged) = staged {
            *gate = staged;
        }
        (gate.report(), voted)
    }

    pub(super) fn serve(&mut self, repo: RepoId, node: NodeId, route: &Route) -> Result<Stamp, Box<Report>> {
        let gate = self.gate(repo, node);
        match gate.serve(route) {
            Ok(served) => {
                *gate = served;
                Ok(gate.applied())
            }
            Err(_) => Err(Box::new(gate.report())),
        }
    }
}
