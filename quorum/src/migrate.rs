//! Migration: a fork family moves to another shard, readable throughout, closed to writes meanwhile.
//!
//! Each repository goes through four rows: the newcomers learn (`Moving`), the places are swapped once they hold the
//! newest state (the old voters learn on, so that they know where the repository went), and the old members are let
//! go. The family's root leads: it swaps first, once *all* of the family is held by the newcomers, and that one swap
//! decides for all. Before it, everything can be taken back; after it, the others follow. Every node of both shards
//! holds the whole family in between, so no order of steps, and no crash, takes a fork from what it shares.
//!
//! A family that was taken back may set out again while some router still thinks that it is at home. So each journey has
//! a number, the root's configuration in which it began: what was marked for the last one is marked anew before it
//! counts as held, and only a root that is known to be past that configuration sends a fork home.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::effect::Effect;
use crate::goal::{Goal, Plan};
use crate::id::{Ask, ChangeId, NodeId, RepoId, Revision, ShardId};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{Member, Members, Role, Row, RowState};
use crate::state::Cell;

/// A request to move a fork family to another shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MigrateRequest {
    /// The root of the family: the repository that all others were forked from.
    pub root: RepoId,
    /// The shard to move to.
    pub to: ShardId,
    /// The new members: exactly N voters, none of which holds the family now.
    pub members: Members,
}

impl MigrateRequest {
    /// A request to move `root`, and every fork of it, to `members` of the shard `to`.
    #[must_use]
    pub fn new(root: RepoId, to: ShardId, members: impl Into<Members>) -> Self {
        Self { root, to, members: members.into() }
    }
}

/// Which way a migration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Way {
    There,
    /// Taken back, if the root has not swapped yet.
    Back,
}

/// The known members of the family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Family {
    /// Not the root: the root decides.
    Led,
    /// Not asked for yet: a fork that is made before the root is marked is in the list that is fetched afterwards.
    Unknown,
    Asked(Ask),
    Known(Vec<RepoId>),
}

/// One repository's part in a migration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Migration {
    pub(crate) request: MigrateRequest,
    pub(crate) way: Way,
    pub(crate) family: Family,
}

impl Migration {
    pub(crate) const fn led_by(request: MigrateRequest, way: Way) -> Self {
        Self { request, way, family: Family::Led }
    }

    pub(crate) const fn leading(request: MigrateRequest, way: Way) -> Self {
        Self { request, way, family: Family::Unknown }
    }

    /// The next step from `row`.
    pub(crate) fn plan(&self, row: &Row, router: &Router) -> Plan {
        if self.family != Family::Led && row.family != row.repo {
            return Plan::Fail(Reason::NotTheRoot { root: row.family });
        }
        let there = row.shard == self.request.to;
        let plan = match row.state {
            RowState::Deleted if self.family == Family::Led => Plan::Done,
            RowState::Deleted => Plan::Fail(Reason::Deleted { at: row.newest.version }),
            RowState::Pinned { node } => Plan::Fail(Reason::Pinned { node }),
            RowState::Decided | RowState::Recovering => Plan::Fail(Reason::Recovering),
            RowState::Moving { to, .. } if to != self.request.to => Plan::Fail(Reason::Moving),
            RowState::Moving { .. } if there => Self::let_go(row, router),
            RowState::Moving { round, .. } if self.family == Family::Led => self.follow(row, round, router),
            RowState::Moving { .. } if self.way == Way::Back || self.pinned(router).is_some() => {
                Self::learners_leave(row)
            }
            RowState::Moving { round, .. } => match &self.family {
                Family::Known(others) if others.iter().all(|repo| self.is_held(*repo, round, router)) => {
                    self.swap(row, router)
                }
                Family::Known(_) | Family::Unknown | Family::Asked(_) | Family::Led => Plan::Wait,
            },
            RowState::Live if there || self.goes_back(router) => self.done(there, router),
            // It was marked, and taken back: here, for a fork that cannot move, or by another router.
            RowState::Live if matches!(self.family, Family::Asked(_) | Family::Known(_)) => {
                Plan::Fail(self.pinned(router).map_or(Reason::Aborted, |node| Reason::Pinned { node }))
            }
            RowState::Live => self.mark(row, router),
        };
        // A configuration follows another only once enough gates know of that one.
        if matches!(plan, Plan::Swap(_)) && !router.knows_of(row) { Plan::Wait } else { plan }
    }

    /// The row of the root, as it is known here, awake or at rest.
    fn root<'a>(&self, router: &'a Router) -> Option<Cow<'a, Cell>> {
        router.state.cell(self.request.root)
    }

    /// Whether the repository is to stay where it is, or return there.
    fn goes_back(&self, router: &Router) -> bool {
        if self.family != Family::Led {
            return self.way == Way::Back;
        }
        self.root(router).is_some_and(|root| root.row.state == RowState::Live && root.row.shard != self.request.to)
    }

    /// This repository is where it should be; the root waits for the others.
    fn done(&self, there: bool, router: &Router) -> Plan {
        let Family::Known(others) = &self.family else {
            return if self.family == Family::Led { Plan::Done } else { Plan::Wait };
        };
        match self.way {
            _ if !others.iter().all(|repo| self.is_home(*repo, there, router)) => Plan::Wait,
            Way::Back if there => Plan::Fail(Reason::Moving),
            Way::There | Way::Back => Plan::Done,
        }
    }

    /// The node that one of the others is pinned to, so that the family cannot move.
    fn pinned(&self, router: &Router) -> Option<NodeId> {
        let Family::Known(others) = &self.family else { return None };
        others.iter().find_map(|repo| Router::pinned_to(router.state.cells.get(repo)?))
    }

    /// Whether another of the family is where the root is, and does not move.
    fn is_home(&self, repo: RepoId, there: bool, router: &Router) -> bool {
        let Some(cell) = router.state.cell(repo) else { return false };
        match cell.row.state {
            RowState::Live | RowState::Pinned { .. } => (cell.row.shard == self.request.to) == there,
            RowState::Deleted => true,
            RowState::Moving { .. } | RowState::Decided | RowState::Recovering => false,
        }
    }

    /// Whether another of the family is as far as the root, whose row is `root`, waits for it to be.
    pub(crate) fn is_ready(&self, repo: RepoId, root: &Row, router: &Router) -> bool {
        if let RowState::Moving { round, .. } = root.state {
            self.is_held(repo, round, router)
        } else {
            self.is_home(repo, root.shard == self.request.to, router)
        }
    }

    /// The newcomers learn, and writes end.
    fn mark(&self, row: &Row, router: &Router) -> Plan {
        let Some(round) = self.round(row, router) else { return Plan::Wait };
        let comers = &self.request.members;
        let is_member = |comer: &Member| row.members.iter().any(|member| member.node == comer.node);
        if let Some(comer) = comers.iter().find(|comer| is_member(comer)) {
            return Plan::Fail(Reason::NotAMember { node: comer.node });
        }
        if row.members.len().saturating_add(comers.len()) > usize::from(router.config.most_members) {
            return Plan::Fail(Reason::Full { limit: router.config.most_members.into() });
        }
        if let Some(write) = router.granted_write(row.repo) {
            return Plan::Fail(Reason::Busy { write });
        }
        let revision = row.next_revision();
        let learners = comers.iter().map(|comer| comer.taking(Role::Learner, revision));
        let next = row.reconfigured(row.voters().copied().chain(learners).collect());
        Plan::Swap(Row { state: RowState::Moving { to: self.request.to, round }, ..next })
    }

    /// The journey that `row` is marked for: the root begins one, the others join that of their root.
    fn round(&self, row: &Row, router: &Router) -> Option<Revision> {
        if self.family != Family::Led {
            return Some(row.next_revision());
        }
        let root = self.root(router)?;
        if let RowState::Moving { round, .. } = root.row.state { Some(round) } else { Some(root.row.revision) }
    }

    /// A fork on its way: it swaps after its root, returns after it, or waits with it.
    fn follow(&self, row: &Row, round: Revision, router: &Router) -> Plan {
        let Some(root) = self.root(router) else { return Plan::Wait };
        if root.row.shard == self.request.to {
            return if self.has_swapped(&root, router) { self.swap(row, router) } else { Plan::Wait };
        }
        // What is known of the root may be older than this journey, or the root came back and set out again.
        if let RowState::Moving { to, round: theirs } = root.row.state
            && to == self.request.to
        {
            let joined = Row { state: root.row.state, ..row.raised() };
            return if theirs > round { Plan::Swap(joined) } else { Plan::Wait };
        }
        if root.row.revision > round { Self::learners_leave(row) } else { Plan::Wait }
    }

    /// Removes the learners. The voters stay.
    fn learners_leave(row: &Row) -> Plan {
        let next = row.reconfigured(row.voters().copied().collect());
        Plan::Swap(Row { state: RowState::Live, ..next })
    }

    /// The newcomers take the places, once they hold the newest state. One whose disk was lost meanwhile learns anew:
    /// past the root's swap there is no way back.
    fn swap(&self, row: &Row, router: &Router) -> Plan {
        let revision = row.next_revision();
        if row.members.iter().any(|member| member.role == Role::Learner && router.is_lost(member)) {
            let alive = |member: &Member| match router.state.nodes.get(member.node) {
                Some(entry) if member.role == Role::Learner && router.is_lost(member) => {
                    Member { incarnation: entry.state.incarnation, since: revision, ..*member }
                }
                _ => *member,
            };
            return Plan::Swap(row.reconfigured(row.members.iter().map(alive).collect()));
        }
        if !router.newcomers_hold(row) {
            return Plan::Wait;
        }
        let seat = |member: &Member| {
            let role = if member.role == Role::Voter { Role::Learner } else { Role::Voter };
            member.taking(role, revision)
        };
        Plan::Swap(Row { shard: self.request.to, ..row.reconfigured(row.members.iter().map(seat).collect()) })
    }

    /// Whether another of the family can follow at any time: the newcomers hold it, and it does not return before its
    /// root does.
    fn is_held(&self, repo: RepoId, round: Revision, router: &Router) -> bool {
        let Some(cell) = router.state.cell(repo) else { return false };
        let marked = RowState::Moving { to: self.request.to, round };
        cell.row.state == RowState::Deleted || (cell.row.state == marked && router.newcomers_hold(&cell.row))
    }

    /// Whether the root has swapped for good: a store restored from a backup would find it there again.
    fn has_swapped(&self, root: &Cell, router: &Router) -> bool {
        root.row.shard == self.request.to && (root.row.state == RowState::Live || router.leavers_know(root))
    }

    /// The old members are let go once enough of them know where the repository went.
    fn let_go(row: &Row, router: &Router) -> Plan {
        let cell = router.state.cells.get(&row.repo).filter(|cell| cell.row.order() == row.order());
        if !cell.is_some_and(|cell| router.leavers_know(cell)) {
            return Plan::Wait;
        }
        Self::learners_leave(row)
    }
}

impl Router {
    /// Whether every learner of the row, as held here, has applied its newest state.
    pub(crate) fn newcomers_hold(&self, row: &Row) -> bool {
        let mut learners = row.members.iter().filter(|member| member.role == Role::Learner);
        learners.all(|learner| self.has_applied(row, learner))
    }

    /// Whether N − W + 1 of those that leave know the row that they learn under, and so its members.
    fn leavers_know(&self, cell: &Cell) -> bool {
        let left = cell.standings.iter().filter(|standing| !standing.is_voter());
        let told = left.filter(|standing| {
            standing.report().is_some_and(|report| report.knows(&cell.row)) || self.is_lost(&standing.member)
        });
        u32::try_from(told.count()).is_ok_and(|told| told >= self.config.quorum.blocking())
    }

    /// Does what the root of a migrating family needs besides its own row: once it is marked, fetches the list of the
    /// others and starts a change for each.
    pub(crate) fn lead(&mut self, migration: &mut Migration, row: Option<&Row>) {
        let marked = |row: &&Row| {
            let decided = row.shard == migration.request.to || migration.way == Way::Back;
            matches!(row.state, RowState::Moving { .. }) || decided
        };
        let Some(row) = row.filter(marked) else { return };
        if migration.family == Family::Unknown {
            let (ask, family) = (self.state.draw(), row.family);
            self.state.effects.push_back(Effect::FetchFamily { ask, family });
            migration.family = Family::Asked(ask);
        }
    }

    /// The family of a root that migrates, as the store had it after `ask`; `false` if no migration waits for it.
    pub(crate) fn family_told(&mut self, ask: Ask, family: RepoId, members: &[RepoId]) -> bool {
        let mut found = None;
        for owner in self.state.work.of(family) {
            let crate::work::Owner::Change(id) = owner else { continue };
            if let Some(Goal::Migrate(migration)) = self.state.changes.get_mut(&id).map(|change| &mut change.goal)
                && migration.family == Family::Asked(ask)
            {
                let others: Vec<RepoId> = members.iter().copied().filter(|repo| *repo != family).collect();
                found = Some((id, migration.request.clone(), migration.way, others.clone()));
                migration.family = Family::Known(others);
            }
        }
        let Some((lead, request, way, others)) = found else { return false };
        for repo in others {
            if self.state.changes.len() >= self.config.most_changes as usize {
                // The root finds out that some are missing when its time ends.
                break;
            }
            self.state.wake(repo);
            self.start_change(repo, Goal::Migrate(Migration::led_by(request.clone(), way)));
        }
        self.advance_change(lead);
        true
    }

    /// Ends this router's own migration of a family the other way: `way` was chosen.
    pub(crate) fn drop_migration(&mut self, root: RepoId, way: Way) {
        let led = |id: &ChangeId| match self.state.changes.get(id).map(|change| &change.goal) {
            Some(Goal::Migrate(migration)) => migration.request.root == root && migration.way != way,
            Some(_) | None => false,
        };
        let ended: Vec<ChangeId> = self.state.changes.keys().copied().filter(led).collect();
        for id in ended {
            self.abandon_change(id);
        }
    }

    /// A change waited: a root asks for its family once more, for the list may have been lost on its way; a fork looks
    /// at its root, unless that is on its way here and looks for itself.
    pub(crate) fn relist(&mut self, id: ChangeId) {
        let Some(Goal::Migrate(migration)) = self.state.changes.get_mut(&id).map(|change| &mut change.goal) else {
            return;
        };
        match migration.family {
            Family::Asked(_) => migration.family = Family::Unknown,
            Family::Led => {
                let root = migration.request.root;
                if !self.state.work.is_any(root) {
                    self.state.fetch(root);
                }
            }
            Family::Unknown | Family::Known(_) => {}
        }
    }
}
