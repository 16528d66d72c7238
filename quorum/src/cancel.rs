//! Changes under way, seen from outside, and the commands that end them or clear up after them.

use alloc::vec::Vec;

use crate::change::{Change, Stage};
use crate::error::Refusal;
use crate::goal::{Goal, Plan};
use crate::id::{ChangeId, Fence, Incarnation, NodeId, RepoId, ShardId};
use crate::migrate::{Family, Way};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Member, Role, Row, RowState};
use crate::time::Timestamp;
use crate::waits::WaitsFor;

/// What a change is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ChangeKind {
    /// The repository exists ([`Router::create`]).
    Create,
    /// The repository is deleted ([`Router::delete`]), or a fork is unmade whose family began to move.
    Delete,
    /// One voter takes another's place ([`Router::replace`]).
    Replace {
        /// The voter that leaves.
        leaves: NodeId,
        /// The node that comes.
        comes: NodeId,
    },
    /// A learner leaves: [`Router::remove_learner`], or the router's own clean-up after a failed replacement.
    RemoveLearner {
        /// The learner.
        node: NodeId,
    },
    /// What one node holds becomes the newest state ([`Router::accept_loss`]).
    AcceptLoss {
        /// That node.
        survivor: NodeId,
    },
    /// The repository is open again after a restore of the store ([`Router::recover`]).
    Recover,
    /// The repository is on another shard ([`Router::migrate`]).
    Migrate {
        /// That shard.
        to: ShardId,
    },
    /// A migration is taken back ([`Router::abort_migration`]).
    AbortMigration {
        /// The shard that it was to.
        to: ShardId,
    },
    /// The repository is pinned to the one node that holds it, or set free again: the router's own.
    Pin,
    /// The fence is raised, for a disk went back in time: the router's own.
    Cure,
    /// The next grant is held, so that this node catches up: the router's own.
    Hold {
        /// The node.
        node: NodeId,
    },
}

/// Where a change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ChangePhase {
    /// The row is being fetched.
    Fetching,
    /// A swap of the row is out.
    Swapping,
    /// Nodes, or other repositories, must do something first.
    Waiting,
    /// A fork is made; the row of its family's root is read once more.
    Confirming,
}

/// A change under way, seen from outside: [`Router::changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ChangeView {
    /// Its name.
    pub change: ChangeId,
    /// Of which repository.
    pub repo: RepoId,
    /// What it is to reach.
    pub kind: ChangeKind,
    /// Since when.
    pub since: Timestamp,
    /// When it ends at the latest.
    pub deadline: Timestamp,
    /// Where it stands.
    pub phase: ChangePhase,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// Swaps in a row that met another row.
    pub attempts: u32,
}

/// A learner that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Leave {
    pub(crate) repo: RepoId,
    pub(crate) node: NodeId,
    /// In this life of its disk: the router clears up, and nobody waits for an answer. `None`: a command, any life.
    pub(crate) life: Option<Incarnation>,
    /// A swap that lets it in may still be on its way to the store: it was decided on a row of this fence.
    pub(crate) unsure: Option<Fence>,
}

impl Leave {
    /// The next step from `row`.
    pub(crate) fn plan(&self, row: &Row, router: &Router) -> Plan {
        let leaves = |member: &Member| {
            let same = member.node == self.node && self.life.is_none_or(|life| life == member.incarnation);
            same && member.role == Role::Learner
        };
        let is_there = row.members.iter().any(leaves);
        let moving = matches!(row.state, RowState::Moving { .. });
        if moving && is_there && self.life.is_none() {
            return Plan::Fail(Reason::Moving);
        }
        // Learners of a family that moves are the move's own.
        if moving || row.state == RowState::Deleted {
            return Plan::Done;
        }
        if !is_there {
            // A swap that is still on its way is to find another row.
            return if self.unsure == Some(row.fence) { Plan::Swap(row.raised()) } else { Plan::Done };
        }
        if row.state == RowState::Decided || !router.knows_of(row) {
            return Plan::Wait;
        }
        Plan::Swap(row.reconfigured(row.members.iter().filter(|member| !leaves(member)).copied().collect()))
    }
}

impl Change {
    /// Whether it is to make `node` a voter.
    fn brings_in(&self, repo: RepoId, node: NodeId) -> bool {
        matches!(&self.goal, Goal::Replace(request, _) if self.repo == repo && request.comes.node == node)
    }

    fn kind(&self) -> ChangeKind {
        match &self.goal {
            Goal::Create(_) => ChangeKind::Create,
            Goal::Delete(_) | Goal::Undo(..) => ChangeKind::Delete,
            Goal::Replace(request, _) => ChangeKind::Replace { leaves: request.leaves, comes: request.comes.node },
            Goal::AcceptLoss(_, survivor, _) => ChangeKind::AcceptLoss { survivor: *survivor },
            Goal::Recover(_) => ChangeKind::Recover,
            Goal::Migrate(migration) => match migration.way {
                Way::There => ChangeKind::Migrate { to: migration.request.to },
                Way::Back => ChangeKind::AbortMigration { to: migration.request.to },
            },
            Goal::Lock(_) => ChangeKind::Pin,
            Goal::Cure(_) => ChangeKind::Cure,
            Goal::Hold(hold) => ChangeKind::Hold { node: hold.node },
            Goal::Leave(leave) => ChangeKind::RemoveLearner { node: leave.node },
        }
    }
}

/// Changes under way.
impl Router {
    /// Every change under way, oldest first: what it is to reach, since when, where it stands, and what it waits for.
    /// Those that the router began by itself are among them.
    pub fn changes(&self) -> impl Iterator<Item = ChangeView> {
        self.state.changes.iter().map(|(id, change)| self.view_change(*id, change))
    }

    /// The changes under way of one repository, oldest first.
    pub fn changes_of(&self, repo: RepoId) -> impl Iterator<Item = ChangeView> {
        self.changes().filter(move |view| view.repo == repo)
    }

    fn view_change(&self, id: ChangeId, change: &Change) -> ChangeView {
        let phase = match change.stage {
            Stage::Fetching(_) => ChangePhase::Fetching,
            Stage::Swapping(_) => ChangePhase::Swapping,
            Stage::Waiting => ChangePhase::Waiting,
            Stage::Confirming(_) => ChangePhase::Confirming,
        };
        ChangeView {
            change: id,
            repo: change.repo,
            kind: change.kind(),
            since: change.began,
            deadline: change.deadline,
            phase,
            waits_for: self.change_waits_for(change),
            attempts: change.attempts,
        }
    }

    /// Ends a change before its goal is reached: its [`crate::Effect::Changed`] says [`Reason::Aborted`]. What a
    /// replacement brought in leaves again; a migration is taken back as by [`Router::abort_migration`]. Of any other
    /// change what is done stays done, and a swap that is on its way to the store may still happen: the row shows it.
    ///
    /// The answer names the change whose [`crate::Effect::Changed`] says that the repository is as it was: this one, or
    /// the one that takes a migration back.
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: no such change is under way ([`Reason::NoSuchChange`]), it is the router's
    /// own, or it is a fork's part in a migration, which only the root's can be cancelled ([`Reason::NotTheRoot`]).
    pub fn cancel(&mut self, now: Timestamp, change: ChangeId) -> Result<ChangeId, Refusal> {
        self.lift(now);
        let found = self.state.changes.get(&change).filter(|found| !found.goal.is_own());
        let Some(found) = found else { return Err(Reason::NoSuchChange { change }.into()) };
        if let Goal::Migrate(migration) = &found.goal {
            let (request, root) = (migration.request.clone(), migration.request.root);
            match (&migration.family, migration.way) {
                (Family::Led, _) => return Err(Reason::NotTheRoot { root }.into()),
                (_, Way::There) => return self.abort_migration(now, &request),
                (_, Way::Back) => {}
            }
        }
        self.abandon_change(change);
        Ok(change)
    }

    /// Lets a learner go: one that an earlier replacement left behind, whose router is gone, say. Its seat counts among
    /// the members that the configuration allows. Ends in an [`crate::Effect::Changed`]; `Ok` if the row has no such
    /// learner.
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, or a replacement that this router works on brings the
    /// node in ([`Reason::Joining`]: [`Router::cancel`] that).
    pub fn remove_learner(&mut self, now: Timestamp, repo: RepoId, node: NodeId) -> Result<ChangeId, Refusal> {
        self.lift(now);
        if let Some((change, _)) = self.state.changes.iter().find(|(_, change)| change.brings_in(repo, node)) {
            return Err(Reason::Joining { node, change: *change }.into());
        }
        self.begin_change(repo, Goal::Leave(Leave { repo, node, life: None, unsure: None }))
    }

    /// After a replacement that failed: whom it brought in leaves again.
    pub(crate) fn clear_up_after(&mut self, change: &Change) {
        if let Some(Member { node, incarnation, .. }) = change.joined {
            let leave = Leave { repo: change.repo, node, life: Some(incarnation), unsure: change.unsure };
            self.start_change(change.repo, Goal::Leave(leave));
        }
    }

    /// Learners of the row that no change under way here brings in.
    pub(crate) fn left_behind(&self, row: &Row) -> Vec<NodeId> {
        let wanted = |node: NodeId| self.state.changes.values().any(|change| change.brings_in(row.repo, node));
        let moving = matches!(row.state, RowState::Moving { .. });
        let learners = row.members.iter().filter(|member| member.role == Role::Learner && !moving);
        learners.map(|member| member.node).filter(|node| !wanted(*node)).collect()
    }
}
