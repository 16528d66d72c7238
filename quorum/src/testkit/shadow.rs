//! The model of a node: its expected gate and content.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Done, Order, Reply};
use crate::boot::Disk;
use crate::error::GateRefusal;
use crate::fence::{Admission, FenceGate, Report};
use crate::id::{Digest, Incarnation, NodeId, RepoId};
use crate::row::Row;

/// A node's gate and contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shadow {
    pub(super) gate: FenceGate,
    pub(super) content: Vec<u8>,
    pub(super) staged: Vec<u8>,
    /// The serial that the node last gave: only that it grows is asked of it.
    pub(super) serial: u64,
}

/// The states that an order may lead to.
pub(super) struct Outcomes {
    /// What was passed on the way: a node that refuses, or dies on the way, may be left in any of these.
    pub(super) way: Vec<Shadow>,
    /// What the node holds if it did all of it, and says so.
    pub(super) end: Option<(Shadow, Done)>,
    /// Whether the node may refuse what its gate allows: the source of a copy may be out of its reach, and a host may keep
    /// what it could throw away.
    pub(super) may_refuse: bool,
}

impl Shadow {
    pub(super) fn new(repo: RepoId, node: NodeId, life: Incarnation) -> Self {
        Self { gate: FenceGate::new(repo, node, life), content: Vec::new(), staged: Vec::new(), serial: 0 }
    }

    /// The same once the node has started again.
    pub(super) fn started(self, disk: &Disk) -> Self {
        Self { gate: self.gate.started(disk), ..self }
    }

    /// Whether the node's word fits; serials need only grow.
    pub(super) fn says(&self, report: &Report) -> bool {
        let numbered = |report: Report| Report { serial: 0, began: 0, ..report };
        numbered(*report) == numbered(self.gate.report()) && report.began <= report.serial
    }

    /// Whether the node did what it was to do. A gate that is told whole is the one that the node reports, and knows
    /// the members.
    pub(super) fn did(&self, reply: &Reply, wanted: &Done) -> bool {
        let done = match &reply.done {
            Done::Promised(gate) => gate.report() == reply.report && gate.row() == self.gate.row(),
            done @ (Done::Yes | Done::Refused | Done::Content(_)) => done == wanted,
        };
        done && self.says(&reply.report)
    }

    /// What becomes of the node that gets `order`; `copy` is what a copy must come to.
    pub(super) fn after(&self, order: &Order, copy: &[u8]) -> Outcomes {
        let mut way = alloc::vec![self.clone()];
        let end = self.walk(order, copy, &mut way).ok();
        Outcomes { way, end, may_refuse: matches!(order, Order::Copy(..) | Order::Discard(_)) }
    }

    fn walk(&self, order: &Order, copy: &[u8], way: &mut Vec<Self>) -> Result<(Self, Done), GateRefusal> {
        let mut next = self.clone();
        let mut done = Done::Yes;
        match order {
            Order::Probe(_) => {}
            Order::Raise(row) => next.show(row, way)?,
            Order::Stage(order, content) => {
                next.show(&order.base, way)?;
                next.gate = next.gate.stage(order)?;
                next.staged.clone_from(content);
            }
            Order::Initialise(row) => next.install(row, &[], way)?,
            Order::Copy(row, _) => next.install(row, copy, way)?,
            Order::Read(route) => {
                if self.gate.admit_read(route)? == Admission::ApplyFirst {
                    next.gate = next.gate.apply(&route.proof)?;
                    next.content.clone_from(&self.staged);
                }
                done = Done::Content(next.content.clone());
            }
            Order::Cure(row, boot, serial) => {
                next.gate = next.gate.raise(row)?;
                way.push(next.clone());
                next.gate = next.gate.cure(row, *boot, *serial)?;
            }
            Order::Discard(row) => {
                next.gate = next.gate.discard(row)?;
                next.content = Vec::new();
            }
            Order::Promise(_, generation) => {
                next.gate = next.gate.promise(*generation)?;
                done = Done::Promised(Box::new(next.gate.clone()));
            }
        }
        way.push(next.clone());
        Ok((next, done))
    }

    fn show(&mut self, row: &Row, way: &mut Vec<Self>) -> Result<(), GateRefusal> {
        self.gate = self.gate.raise(row)?;
        way.push(self.clone());
        if self.gate.proves_staged(&row.proof()) {
            self.gate = self.gate.apply(&row.proof())?;
            self.content.clone_from(&self.staged);
            way.push(self.clone());
        }
        Ok(())
    }

    fn install(&mut self, row: &Row, content: &[u8], way: &mut Vec<Self>) -> Result<(), GateRefusal> {
        // A copy may come in after the fence rose again.
        if let Ok(raised) = self.gate.raise(row) {
            self.gate = raised;
            way.push(self.clone());
        }
        let before = self.gate.applied();
        if before != row.newest {
            // Whoever is half way from one content to the other may say that it holds nothing.
            way.push(Self { gate: self.gate.lost(), ..self.clone() });
        }
        self.gate = self.gate.install(&row.proof())?;
        if self.gate.applied() != before {
            self.content = content.to_vec();
        }
        Ok(())
    }

    /// Whether the node holds that state, seen by readers or not.
    pub(super) fn holds(&self, digest: Digest) -> bool {
        let staged = self.gate.staged().is_some_and(|staged| staged.stamp.digest == digest);
        self.gate.applied().digest == digest || staged
    }
}
