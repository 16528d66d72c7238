//! Obstacles: what keeps a repository from being written, and the command that removes each.

use alloc::vec::Vec;

use crate::id::{Incarnation, NodeId, ShardId};
use crate::node::{Health, Standing, Verdict};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Member, RowState};
use crate::state::Cell;

/// An obstacle to writing a repository, with the command that removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Obstacle {
    /// The condition that blocks writes.
    pub reason: Reason,
    /// The command or action that removes the obstacle.
    pub remedy: Remedy,
}

/// The command or action that removes an [`Obstacle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Wait: the obstacle ends by itself.
    Wait,
    /// Restart: replace this router by one that is configured for the store's present life.
    Restart,
    /// Create the repository again with [`Router::create`]: it was deleted.
    Create,
    /// Recover the repository with [`Router::recover`]: its row is from an earlier life of the store.
    Recover,
    /// Finish the migration with [`Router::migrate`] to that shard, or take it back with [`Router::abort_migration`].
    Migrate {
        /// The shard that the repository is moving to.
        to: ShardId,
    },
    /// Bring the node back.
    ///
    /// Where its disk is gone for good, declare this life of it lost with [`Router::lost`].
    BringBack {
        /// The node.
        node: NodeId,
        /// The life of the node's disk that must speak again.
        incarnation: Incarnation,
    },
    /// Replace this voter, whose disk is gone, with [`Router::replace`].
    ///
    /// The new voter is the same node in the life that it is in now (`comes`), or another node.
    Replace {
        /// The voter that leaves.
        leaves: NodeId,
        /// The present life of the leaving node's disk, if the node is back.
        comes: Option<Incarnation>,
    },
    /// Accept the loss with [`Router::accept_loss`] in favour of the node with the latest state: no node that answered
    /// holds the newest state.
    AcceptLoss {
        /// The node that holds the latest state.
        survivor: NodeId,
    },
}

impl Router {
    /// Lists all obstacles to writing the repository of `cell`, the first to remove in front.
    pub(crate) fn obstacles(&self, cell: &Cell) -> Vec<Obstacle> {
        let mut found = Vec::new();
        let mut note = |reason, remedy| found.push(Obstacle { reason, remedy });
        if let Err(reason) = self.outlived() {
            note(reason, Remedy::Restart);
        }
        if let Some(reason) = self.unreadable(&cell.row) {
            let deleted = cell.row.state == RowState::Deleted;
            note(reason, if deleted { Remedy::Create } else { Remedy::Recover });
        }
        if let RowState::Moving { to, .. } = cell.row.state {
            note(Reason::Moving, Remedy::Migrate { to });
        }
        if let Some(reason) = self.is_barred(cell) {
            note(reason, Remedy::Wait);
        }
        if let Some(reason @ Reason::Unsettled { node, incarnation, .. }) = self.unsettled(cell) {
            let up = self.state.nodes.alive(node, incarnation).is_some_and(|state| state.health != Health::Down);
            note(reason, if up { Remedy::Wait } else { Remedy::BringBack { node, incarnation } });
        }
        let (tally, needed) = (self.tally_of(cell), self.config.quorum.write());
        let reason = Reason::TooFewVoters { tally, needed };
        for standing in cell.standings.iter().filter(|standing| standing.is_voter()) {
            if let Some(remedy) = self.remedy_for(cell, standing) {
                note(reason, remedy);
            }
        }
        if let Some(survivor) = self.survivor(cell) {
            note(reason, Remedy::AcceptLoss { survivor });
        }
        found
    }

    fn remedy_for(&self, cell: &Cell, standing: &Standing) -> Option<Remedy> {
        let Member { node, incarnation, .. } = standing.member;
        if self.is_lost(&standing.member) {
            let comes = self.state.nodes.get(node).map(|entry| entry.state.incarnation);
            return Some(Remedy::Replace { leaves: node, comes: comes.filter(|life| *life > incarnation) });
        }
        match self.verdict(cell, standing) {
            (Verdict::Unknown, _) | (_, Health::Down) => Some(Remedy::BringBack { node, incarnation }),
            (Verdict::Current, _) => None,
            (Verdict::Divergent { .. } | Verdict::Ahead { .. }, _) => {
                Some(Remedy::Replace { leaves: node, comes: None })
            }
            (Verdict::Lagging { .. } | Verdict::RowOld | Verdict::Rewound { .. }, _) => Some(Remedy::Wait),
        }
    }

    /// The member with the latest state, if every voter that may still speak has spoken and none holds the newest
    /// state.
    fn survivor(&self, cell: &Cell) -> Option<NodeId> {
        let holds = |standing: &Standing| match self.verdict(cell, standing).0 {
            Verdict::Current | Verdict::RowOld => true,
            // It is cured by itself where it is at the newest state.
            Verdict::Rewound { applied } => applied == cell.row.newest,
            Verdict::Unknown => !self.is_lost(&standing.member),
            Verdict::Lagging { .. } | Verdict::Divergent { .. } | Verdict::Ahead { .. } => false,
        };
        if cell.row.newest.version == cell.row.born || cell.standings.iter().any(holds) {
            return None;
        }
        let alive = |standing: &&Standing| standing.is_voter() && !self.is_lost(&standing.member);
        let most = cell.standings.iter().filter(alive).filter_map(|s| Some((s.word()?.applied, s.member.node)));
        let most = most.filter(|(applied, _)| *applied != crate::id::Stamp::BLANK);
        most.max_by_key(|(applied, _)| (applied.epoch, applied.version)).map(|(_, node)| node)
    }
}
