//! The data-safety lock: a repository whose newest state one voter alone holds, beyond repair, is pinned to that voter.
//!
//! It is a fact about the row, so it is written into the row: every router reads there and nowhere else, and neither a
//! migration nor a change of members takes the last copy away. It ends by itself once W voters hold the state again,
//! or by [`Router::accept_loss`].

use crate::goal::{Goal, Plan};
use crate::id::{NodeId, RepoId};
use crate::node::{Standing, Verdict};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Row, RowState};
use crate::state::Cell;
use crate::work::Owner;

impl Router {
    /// Sets the lock or lifts it, if what was learned of the members calls for that.
    pub(crate) fn watch_lock(&mut self, repo: RepoId) {
        let Some(cell) = self.state.cells.get(&repo) else { return };
        let called_for = match cell.row.state {
            RowState::Live => self.sole_holder(cell).is_some(),
            RowState::Pinned { .. } => self.is_held_again(cell),
            RowState::Deleted | RowState::Moving { .. } | RowState::Decided | RowState::Recovering => false,
        };
        let room = self.state.changes.len() < self.config.most_changes as usize;
        if called_for && room && self.is_recovered(&cell.row) && !self.is_locking(repo) {
            self.start_change(repo, Goal::Lock(repo));
        }
    }

    fn is_locking(&self, repo: RepoId) -> bool {
        let lock = |owner: &Owner| match owner {
            Owner::Change(id) => self.state.changes.get(id).is_some_and(|change| change.goal == Goal::Lock(repo)),
            Owner::Write(_) | Owner::Task(_) => false,
        };
        self.state.work.of(repo).iter().any(lock)
    }

    /// The one voter that holds the newest state, where all others are known to have lost it or to hold another.
    fn sole_holder(&self, cell: &Cell) -> Option<NodeId> {
        if cell.row.newest.version == cell.row.born {
            // Empty: it can be had from nothing.
            return None;
        }
        let mut holder = None;
        for standing in cell.standings.iter().filter(|standing| standing.is_voter()) {
            match cell.verdict(standing) {
                _ if self.is_lost(&standing.member) => {}
                Verdict::Current if holder.is_none() => holder = Some(standing.member.node),
                Verdict::Divergent { .. } => {}
                Verdict::Current
                | Verdict::Lagging { .. }
                | Verdict::RowOld
                | Verdict::Ahead { .. }
                | Verdict::Rewound { .. }
                | Verdict::Unknown => return None,
            }
        }
        holder.filter(|_| self.config.quorum.write() > 1)
    }

    fn is_held_again(&self, cell: &Cell) -> bool {
        let holds = |standing: &&Standing| {
            standing.is_voter() && cell.verdict(standing) == Verdict::Current && !self.is_lost(&standing.member)
        };
        let held = cell.standings.iter().filter(holds).count();
        u32::try_from(held).is_ok_and(|held| held >= self.config.quorum.write())
    }

    /// The next step of a lock from `row`.
    pub(crate) fn plan_lock(&self, row: &Row) -> Plan {
        let Some(cell) = self.state.cells.get(&row.repo).filter(|cell| cell.row.order() == row.order()) else {
            return Plan::Fail(Reason::Overtaken { fence: row.fence });
        };
        match row.state {
            RowState::Live => match self.sole_holder(cell) {
                Some(node) => Plan::Swap(Row { state: RowState::Pinned { node }, ..row.raised() }),
                None => Plan::Done,
            },
            RowState::Pinned { .. } if self.is_held_again(cell) => {
                Plan::Swap(Row { state: RowState::Live, ..row.raised() })
            }
            RowState::Pinned { .. }
            | RowState::Deleted
            | RowState::Moving { .. }
            | RowState::Decided
            | RowState::Recovering => Plan::Done,
        }
    }
}
