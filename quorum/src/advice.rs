//! What keeps a repository from being written, and the command that removes it.

use alloc::vec::Vec;

use crate::id::{Incarnation, NodeId, ShardId};
use crate::node::{Health, Standing, Verdict};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Member, RowState};
use crate::state::Cell;

/// Something that is in the way of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Obstacle {
    /// What it is.
    pub reason: Reason,
    /// What removes it.
    pub remedy: Remedy,
}

/// What removes an obstacle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Nothing need be done: it ends by itself.
    Wait,
    /// Put a router that is configured for the store's life in this one's place.
    Restart,
    /// [`Router::create`]: the repository is deleted.
    Create,
    /// [`Router::recover`].
    Recover,
    /// [`Router::migrate`] to that shard, or [`Router::abort_migration`].
    Migrate {
        /// Where to.
        to: ShardId,
    },
    /// Bring the node back; where its disk is gone for good, [`Router::lost`] with this life of it.
    BringBack {
        /// The node.
        node: NodeId,
        /// The life of its disk that is meant.
        incarnation: Incarnation,
    },
    /// [`Router::replace`] this voter, whose disk is gone: by the same node in the life that it is in now (`comes`), or by
    /// another node.
    Replace {
        /// The voter that leaves.
        leaves: NodeId,
        /// The life that its node is in now, if it is back.
        comes: Option<Incarnation>,
    },
    /// [`Router::accept_loss`] in favour of the node that holds the most: nobody that speaks holds the newest state.
    AcceptLoss {
        /// The node.
        survivor: NodeId,
    },
}

impl Router {
    /// All that keeps the repository of `cell` from being written, the first to be removed in front.
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

    /// The member that holds the most, where every voter that may still speak has spoken, and none holds the newest state.
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
