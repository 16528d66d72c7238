//! Changes under way as the host sees them, and the commands that end them or clear up after them.

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

/// The kind of a change, with its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ChangeKind {
    /// Create the repository ([`Router::create`]).
    Create,
    /// Delete the repository ([`Router::delete`]). Also undoes a fork whose family began to move while it was made.
    Delete,
    /// Replace one voter by another node ([`Router::replace`]).
    Replace {
        /// The voter that leaves.
        leaves: NodeId,
        /// The node that takes its place.
        comes: NodeId,
    },
    /// Remove a learner: [`Router::remove_learner`], or the router's own clean-up after a failed replacement.
    RemoveLearner {
        /// The learner to remove.
        node: NodeId,
    },
    /// Make one node's state the newest ([`Router::accept_loss`]).
    AcceptLoss {
        /// The node whose state is kept.
        survivor: NodeId,
    },
    /// Recover the repository after a restore of the store ([`Router::recover`]).
    Recover,
    /// Move the repository to another shard ([`Router::migrate`]).
    Migrate {
        /// The shard to move to.
        to: ShardId,
    },
    /// Take a migration back ([`Router::abort_migration`]).
    AbortMigration {
        /// The shard that the migration was going to.
        to: ShardId,
    },
    /// Pin the repository to the one node that holds its newest state, or unpin it. Begun by the router itself.
    Pin,
    /// Raise the fence because a disk went back in time. Begun by the router itself.
    Cure,
    /// Hold the next grant so that a member catches up. Begun by the router itself.
    Hold {
        /// The member that catches up.
        node: NodeId,
    },
}

/// The phase of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ChangePhase {
    /// The row is being fetched.
    Fetching,
    /// A swap of the row is under way.
    Swapping,
    /// The change waits for nodes or for other repositories.
    Waiting,
    /// A fork is made; the row of its family's root is being read once more.
    Confirming,
}

/// A change under way, as [`Router::changes`] lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ChangeView {
    /// The id of the change.
    pub change: ChangeId,
    /// The repository that changes.
    pub repo: RepoId,
    /// The kind of the change, with its target.
    pub kind: ChangeKind,
    /// The time when the change began.
    pub since: Timestamp,
    /// The latest time at which the change ends.
    pub deadline: Timestamp,
    /// The phase of the change.
    pub phase: ChangePhase,
    /// The condition that the change waits for.
    pub waits_for: WaitsFor,
    /// Consecutive swaps that failed because the row had changed.
    pub attempts: u32,
}

/// A learner that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Leave {
    pub(crate) repo: RepoId,
    pub(crate) node: NodeId,
    /// The life of the learner's disk, if the router clears up by itself and no caller waits. `None`: a command, for
    /// any life.
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

/// Commands and views for changes under way.
impl Router {
    /// Lists every change under way, oldest first, with its target, start, phase and what it waits for.
    ///
    /// Changes that the router began by itself are among them.
    pub fn changes(&self) -> impl Iterator<Item = ChangeView> {
        self.state.changes.iter().map(|(id, change)| self.view_change(*id, change))
    }

    /// Lists the changes under way of one repository, oldest first.
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

    /// Cancels a change: its [`crate::Effect::Changed`] says [`Reason::Aborted`].
    ///
    /// A learner that a replacement brought in leaves again; a migration is taken back as by
    /// [`Router::abort_migration`]. For any other change, what is done stays done, and a swap that is on its way to the
    /// store may still happen: the row shows it.
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

    /// Removes a learner that an earlier replacement left behind, for example because its router is gone.
    ///
    /// Its seat counts towards the members that the configuration allows. Ends in an [`crate::Effect::Changed`]; `Ok`
    /// if the row has no such learner.
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

    /// Removes the learner that a failed replacement brought in.
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
