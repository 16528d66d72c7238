//! Seats: whether the configuration before is settled, and which of its voters can never speak again.
//!
//! One configuration follows another only once the one before is *settled*: enough of its voters know of the present one
//! (or are lost) that no W of them can vote on as before. Until then the row carries them ([`Row::previous`]).

use crate::id::{Incarnation, NodeId};
use crate::node::Standing;
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Member, Row};
use crate::state::Cell;
use crate::time::Timestamp;
use crate::work::Owner;

impl Router {
    /// Declares a life of a node's disk lost, and every life before: no gate of it will ever speak again.
    ///
    /// For an operator. A node that is only down is not lost. A repository that waits for the gate of such a node
    /// ([`Reason::Unsettled`]) goes on; a node that speaks in that life is ignored from now on.
    ///
    /// A new life of the disk, once it registers, says the same of the lives before by itself.
    pub fn lost(&mut self, now: Timestamp, node: NodeId, incarnation: Incarnation) {
        self.lift(now);
        if !self.state.nodes.lose(node, incarnation, self.now, self.config.most_nodes) {
            self.counters.stale_facts += 1;
            return;
        }
        self.advance_all();
    }

    /// Nodes have changed: whatever waits looks again.
    pub(crate) fn advance_all(&mut self) {
        let all: alloc::vec::Vec<Owner> = self.state.work.iter().map(|(_, owner)| owner).collect();
        for owner in all {
            match owner {
                Owner::Write(id) => self.advance_write(id),
                Owner::Change(id) => self.advance_change(id),
                Owner::Task(_) => {}
            }
        }
        self.start_tasks();
    }

    /// Whether the disk that the member means is known to be gone: no gate on it will ever speak.
    pub(crate) fn is_lost(&self, member: &Member) -> bool {
        self.state.nodes.is_lost(member.node, member.incarnation)
    }

    /// Whether the configuration before the row's can do nothing any more.
    pub(crate) fn is_settled(&self, cell: &Cell) -> bool {
        cell.row.previous.is_empty() || self.unsettled(cell).is_none()
    }

    /// The reason why the previous configuration is not settled, if it is not: over its N seats, voters that know the
    /// present configuration, lost seats and empty seats must add up to N − W + 1.
    pub(crate) fn unsettled(&self, cell: &Cell) -> Option<Reason> {
        let (row, quorum) = (&cell.row, self.config.quorum);
        if row.previous.is_empty() {
            return None;
        }
        let silent = || row.previous.iter().filter(|seat| !Self::is_told(cell, seat) && !self.is_lost(seat));
        let missing = u32::try_from(silent().count()).unwrap_or(u32::MAX);
        let (told, needed) = (quorum.voters().saturating_sub(missing), quorum.blocking());
        let first = silent().next().filter(|_| told < needed)?;
        let Member { node, incarnation, .. } = *first;
        Some(Reason::Unsettled { told, needed, node, incarnation, others: missing.saturating_sub(1) })
    }

    /// How many seats of the configuration before know the present one (or are lost, or were empty), and how many must.
    pub(crate) fn settling(&self, cell: &Cell) -> (u32, u32) {
        match self.unsettled(cell) {
            Some(Reason::Unsettled { told, needed, .. }) => (told, needed),
            Some(_) | None => (0, 0),
        }
    }

    fn is_told(cell: &Cell, seat: &Member) -> bool {
        cell.heard().any(|standing| standing.member.is_same(seat) && Self::has_said_it_knows(cell, standing))
    }

    /// Whether that gate is known to have persisted the row's configuration.
    fn has_said_it_knows(cell: &Cell, standing: &Standing) -> bool {
        // Nobody cures the disk of one that leaves: what it says now is on it, and it votes for nothing.
        let leaves = cell.leavers.iter().any(|leaver| leaver.member.is_same(&standing.member));
        let word = if leaves { standing.word() } else { standing.report() };
        word.is_some_and(|report| report.knows(&cell.row))
    }

    /// Whether enough voters of the configuration before `row`'s have persisted it, if that is the row held here.
    /// Before that no other may follow: a recovery finds its way from each configuration to the next.
    pub(crate) fn knows_of(&self, row: &Row) -> bool {
        let cell = self.state.cells.get(&row.repo).filter(|cell| cell.row.order() == row.order());
        cell.is_some_and(|cell| self.is_settled(cell))
    }
}
