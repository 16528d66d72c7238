//! Leases: several routers share a repository in turns, and a member that never catches up gets time to.
//!
//! A lease in the row decides nothing. It says how long other routers leave a grant alone, by their own clocks; whoever
//! finds it over raises the fence. A router that waits leaves a note beside the row, and whoever commits while another's
//! note stands lets that one go first. So all make progress, whatever their clocks say.

use crate::commit::{Flow, Write};
use crate::effect::Effect;
use crate::goal::{Goal, Plan};
use crate::id::{Incarnation, NodeId, RepoId};
use crate::node::{Health, Verdict};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Lease, Purpose, Row, RowState};
use crate::state::Cell;
use crate::time::Timestamp;
use crate::work::Owner;

/// A member that is overtaken again and again, and what it gets to catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Hold {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: Lease,
    /// The row has shown it.
    pub(crate) taken: bool,
}

impl Router {
    /// Two polls of a router that waits.
    fn polls(&self) -> u64 {
        self.config.retry_ms.saturating_mul(2)
    }

    pub(crate) const fn write_lease(&self) -> Lease {
        Lease { holder: self.config.router, ms: self.config.lease_ms, purpose: Purpose::Write }
    }

    /// The reason why no write is granted now, if it is not this router's turn.
    pub(crate) fn is_barred(&self, cell: &Cell) -> Option<Reason> {
        let mine = |lease: &Lease| lease.holder == self.config.router;
        if let Some(lease) = cell.row.lease.filter(|lease| !(mine(lease) && lease.purpose == Purpose::Write)) {
            let patience = lease.ms.saturating_add(if mine(&lease) { 0 } else { self.polls() });
            if self.now < cell.fence_seen.after_millis(patience) {
                return Some(why(&lease));
            }
        }
        if let Some(hold) = self.hold_of(cell.row.repo) {
            return Some(why(&hold.lease));
        }
        let yields = self.now < cell.yields;
        yields.then_some(Reason::Yielding { ms: cell.yields.millis_since(self.now) })
    }

    /// Leaves a note that a write of this router waits for its turn, once per grant of the other router.
    pub(crate) fn wait_in_line(&mut self, write: &mut Write) -> Flow {
        let Some(row) = self.state.cells.get(&write.repo).map(|cell| &cell.row) else { return Flow::Stay };
        let other = row.lease.is_some_and(|lease| lease.holder != self.config.router);
        if other && write.noted != Some(row.fence) {
            write.noted = Some(row.fence);
            self.state.effects.push_back(Effect::LeaveNote { repo: write.repo, router: self.config.router });
        }
        Flow::Stay
    }

    /// The reason why a write was not granted by its deadline.
    pub(crate) fn why_not_granted(&self, write: &Write) -> Option<Reason> {
        let cell = self.state.cells.get(&write.repo)?;
        self.is_barred(cell).or_else(|| self.unsettled(cell))
    }

    /// This router's write has ended while the note of another router stands: that one goes first.
    pub(crate) fn let_go_first(&mut self, repo: RepoId) {
        let until = self.now.after_millis(self.polls());
        if let Some(cell) = self.state.cells.get_mut(&repo) {
            cell.yields = until;
        }
    }

    fn hold_of(&self, repo: RepoId) -> Option<Hold> {
        let of = |owner: &Owner| match owner {
            Owner::Change(id) => match self.state.changes.get(id).map(|change| &change.goal) {
                Some(Goal::Hold(hold)) => Some(*hold),
                Some(_) | None => None,
            },
            Owner::Write(_) | Owner::Task(_) => None,
        };
        self.state.work.of(repo).iter().find_map(of)
    }

    /// A copy to a member has ended; if writes overtook it once too often, the next grant is held.
    pub(crate) fn count_round(&mut self, repo: RepoId, node: NodeId, incarnation: Incarnation, begun: Timestamp) {
        let most = self.config.catch_up_rounds;
        let Some(cell) = self.state.cells.get_mut(&repo) else { return };
        let newest = cell.row.newest.version.0;
        let member = cell.standings.iter().position(|s| s.member.node == node && s.member.incarnation == incarnation);
        let Some(at) = member else { return };
        let verdict = cell.standings.get(at).map(|standing| cell.verdict(standing));
        let Some(standing) = cell.standings.get_mut(at) else { return };
        let Some(Verdict::Lagging { applied }) = verdict else {
            standing.rounds = 0;
            return;
        };
        standing.rounds = standing.rounds.saturating_add(1);
        let rounds = standing.rounds;
        if rounds < most {
            return;
        }
        standing.rounds = 0;
        let lag = newest.saturating_sub(applied.version.0);
        let two_copies = self.now.millis_since(begun).saturating_mul(2);
        let ms = two_copies.max(self.polls()).min(self.config.hold_ms);
        let lease = Lease { holder: self.config.router, ms, purpose: Purpose::CatchUp { rounds, lag } };
        let room = self.state.changes.len() < self.config.most_changes as usize;
        if room && self.hold_of(repo).is_none() {
            self.start_change(repo, Goal::Hold(Hold { node, incarnation, lease, taken: false }));
        }
    }

    /// Whether a granted write would be voided by a raise of the fence: this router's own, or another's whose lease runs.
    pub(crate) fn is_leased(&self, cell: &Cell) -> bool {
        let patience = |lease: &Lease| lease.ms.saturating_add(self.polls());
        let runs = |lease: &Lease| self.now < cell.fence_seen.after_millis(patience(lease));
        let other = |lease: &Lease| lease.holder != self.config.router && runs(lease);
        self.granted_write(cell.row.repo).is_some() || cell.row.lease.as_ref().is_some_and(other)
    }

    /// The next step of a hold from `row`.
    pub(crate) fn plan_hold(&self, hold: &Hold, row: &Row) -> Plan {
        let Some(cell) = self.state.cells.get(&row.repo).filter(|cell| cell.row.order() == row.order()) else {
            return Plan::Wait;
        };
        let behind = cell.standings.iter().any(|standing| {
            let (verdict, health) = self.verdict(cell, standing);
            let it = standing.member.node == hold.node && standing.member.incarnation == hold.incarnation;
            it && matches!(verdict, Verdict::Lagging { .. }) && health != Health::Down
        });
        if row.lease == Some(hold.lease) {
            let over = self.now >= cell.fence_seen.after_millis(hold.lease.ms);
            return if behind && !over { Plan::Wait } else { Plan::Swap(row.raised()) };
        }
        if hold.taken || !behind || !matches!(row.state, RowState::Live | RowState::Pinned { .. }) {
            return Plan::Done;
        }
        if self.is_leased(cell) {
            return Plan::Wait;
        }
        Plan::Swap(Row { lease: Some(hold.lease), ..row.raised() })
    }
}

const fn why(lease: &Lease) -> Reason {
    match lease.purpose {
        Purpose::Write => Reason::Leased { holder: lease.holder, ms: lease.ms },
        Purpose::CatchUp { rounds, lag } => Reason::Held { rounds, lag, ms: lease.ms },
    }
}
