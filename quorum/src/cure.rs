//! Cures: disks that went back in time are found out, fenced off, brought to the newest state and cured.
//!
//! What such a disk has forgotten may be a vote that is about to be counted. So the fence is raised in the row first,
//! after it was found out: whatever the disk voted for is dead then, or committed already. Then it is raised to that row
//! and copied to, like any member that is behind; and only then its gate is told that it is good again.

use crate::effect::Effect;
use crate::goal::{Goal, Plan};
use crate::id::RepoId;
use crate::node::{Health, Standing};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Member, Row, RowState};
use crate::state::Cell;
use crate::work::Owner;

impl Standing {
    /// Whether the fence of `row` is known to have been raised after the disk was found to have gone back.
    pub(crate) fn is_curable(&self, row: &Row) -> bool {
        self.rewound.is_some_and(|rewind| rewind.floor.is_some_and(|floor| row.fence > floor))
    }

    /// Whether it still waits for such a raise.
    fn needs_raise(&self, row: &Row) -> bool {
        self.rewound.is_some() && !self.is_curable(row)
    }
}

impl Router {
    /// Does what is next for every member whose disk went back in time.
    pub(crate) fn tend_rewound(&mut self, repo: RepoId) {
        let Some(cell) = self.state.cells.get(&repo) else { return };
        if cell.standings.iter().all(|standing| standing.rewound.is_none()) || !self.is_recovered(&cell.row) {
            return;
        }
        let room = self.state.changes.len() < self.config.most_changes as usize;
        if cell.standings.iter().any(|standing| standing.needs_raise(&cell.row)) && room && !self.is_curing(repo) {
            self.start_change(repo, Goal::Cure(repo));
        }
        self.order_cures(repo);
    }

    /// Orders the cure of every member that is at the newest state again.
    fn order_cures(&mut self, repo: RepoId) {
        let ask = crate::id::Ask(self.state.point.saturating_add(1));
        let (now, until) = (self.now, self.now.after_millis(self.config.retry_ms));
        let crate::state::State { cells, nodes, effects, .. } = &mut self.state;
        let Some(cell) = cells.get_mut(&repo) else { return };
        let Cell { row, standings, .. } = cell;
        let before = effects.len();
        for standing in standings {
            let Member { node, incarnation, .. } = standing.member;
            let up = nodes.alive(node, incarnation).is_some_and(|state| state.health != Health::Down);
            let curable = standing.is_curable(row);
            let (Some(rewind), Some(known)) = (&mut standing.rewound, standing.known) else { continue };
            if up && curable && known.report.applied == row.newest && rewind.curing <= now {
                rewind.curing = until;
                let (row, boot, serial) = (row.clone(), known.report.boot, rewind.serial);
                effects.push_back(Effect::Cure { ask, node, incarnation, row, boot, serial });
            }
        }
        if effects.len() > before {
            let _drawn = self.state.draw();
        }
    }

    fn is_curing(&self, repo: RepoId) -> bool {
        let cure = |owner: &Owner| match owner {
            Owner::Change(id) => self.state.changes.get(id).is_some_and(|change| change.goal == Goal::Cure(repo)),
            Owner::Write(_) | Owner::Task(_) => false,
        };
        self.state.work.of(repo).iter().any(cure)
    }

    /// The next step of a cure from `row`: one raise of the fence, which voids no grant that runs.
    pub(crate) fn plan_cure(&self, row: &Row) -> Plan {
        let Some(cell) = self.state.cells.get(&row.repo).filter(|cell| cell.row.order() == row.order()) else {
            return Plan::Wait;
        };
        if !cell.standings.iter().any(|standing| standing.needs_raise(row)) {
            return Plan::Done;
        }
        match row.state {
            RowState::Decided | RowState::Recovering => Plan::Fail(Reason::Recovering),
            _ if self.is_leased(cell) => Plan::Wait,
            RowState::Live | RowState::Deleted | RowState::Moving { .. } | RowState::Pinned { .. } => {
                Plan::Swap(row.raised())
            }
        }
    }
}
