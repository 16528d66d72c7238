//! Changes of a row that are not writes. Each has a goal that the row shows or does not, so it may be tried again
//! after a conflict or a lost answer without harm.

use crate::effect::Effect;
use crate::goal::{Goal, Plan};
use crate::id::{Ask, ChangeId, Fence, RepoId, Ticket};
use crate::reason::Reason;
use crate::router::Router;
use crate::row::{FeedEntry, Member, Role, Row, RowState};
use crate::store::SwapResult;
use crate::time::Timestamp;
use crate::work::Owner;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Stage {
    Fetching(Ask),
    Swapping(Ticket),
    /// Members must catch up first.
    Waiting,
    /// A fork is made; the row of its family's root is fetched, for the family may have begun to move.
    Confirming(Ask),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Change {
    pub(crate) repo: RepoId,
    pub(crate) goal: Goal,
    pub(crate) stage: Stage,
    /// Whether the row that it goes by is one that the store held after the change began. What an older one says may be
    /// tried, but is no answer: another router may have changed it since.
    pub(crate) current: bool,
    /// The seat of the learner that it lets in: it leaves again if the change fails.
    pub(crate) joined: Option<Member>,
    /// The fence of the row that the last swap was decided on, until its result is told.
    pub(crate) unsure: Option<Fence>,
    pub(crate) began: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) timer: Timestamp,
}

impl Router {
    /// Starts a change whose command was accepted, from the row that is held, or that is fetched first.
    pub(crate) fn start_change(&mut self, repo: RepoId, goal: Goal) -> ChangeId {
        let id = ChangeId(self.state.next_id());
        let patience = if goal.copies() { self.config.change_ms } else { self.config.write_ms };
        let change = Change {
            repo,
            goal,
            stage: Stage::Waiting,
            current: false,
            joined: None,
            unsure: None,
            began: self.now,
            deadline: self.now.after_millis(patience),
            attempts: 0,
            timer: Timestamp::MAX,
        };
        let row = self.state.cells.get(&repo).map(|cell| cell.row.clone());
        if row.is_none() && !change.goal.may_be_absent() {
            self.look_at_row(id, change);
        } else {
            self.pursue(id, change, row.as_ref());
        }
        id
    }

    /// Goes for the goal from `row`, which the store held at some time (a swap finds out if it no longer does).
    fn pursue(&mut self, id: ChangeId, mut change: Change, row: Option<&Row>) {
        if let Goal::Recover(recovery) = &mut change.goal {
            self.ask_promises(recovery, row);
        }
        if let Goal::Migrate(migration) = &mut change.goal {
            self.lead(migration, row);
        }
        if let Goal::Hold(hold) = &mut change.goal {
            hold.taken |= row.is_some_and(|row| row.lease == Some(hold.lease));
        }
        if let Goal::Replace(_, shard @ None) = &mut change.goal {
            *shard = row.map(|row| row.shard);
        }
        match change.goal.plan(row, self) {
            Plan::Done | Plan::Fail(_) if !change.current => self.look_at_row(id, change),
            Plan::Done => match self.root_of_fork(&change) {
                Some(root) => {
                    change.stage = Stage::Confirming(self.state.fetch(root));
                    self.state.work.begin(root, Owner::Change(id));
                    self.park(id, change);
                }
                None => self.end_change(id, change, Ok(())),
            },
            Plan::Fail(reason) => self.end_change(id, change, Err(reason)),
            Plan::Wait => {
                change.stage = Stage::Waiting;
                let repo = change.repo;
                self.park(id, change);
                self.probe(repo);
                self.schedule_repairs(repo);
            }
            Plan::Swap(next) => {
                let feed = row.filter(|row| row.newest != next.newest).map(|_| next.feed_entry());
                self.swap_for(id, change, row, next, feed);
            }
            Plan::SwapWith(next, feed) => self.swap_for(id, change, row, next, feed),
        }
    }

    fn swap_for(&mut self, id: ChangeId, mut change: Change, row: Option<&Row>, next: Row, feed: Option<FeedEntry>) {
        if change.attempts >= self.config.attempts {
            let attempts = change.attempts;
            return self.end_change(id, change, Err(Reason::Contended { attempts }));
        }
        change.attempts = change.attempts.saturating_add(1);
        change.unsure = row.map(|row| row.fence);
        if let Goal::Replace(request, _) = &change.goal {
            let seat = |member: &&Member| member.role == Role::Learner && member.node == request.comes.node;
            let comes = next.members.iter().find(seat).filter(|seat| row.is_none_or(|row| !row.members.contains(seat)));
            change.joined = comes.copied().or(change.joined);
        }
        change.stage = Stage::Swapping(self.state.swap(Owner::Change(id), row.cloned(), next, feed));
        self.park(id, change);
    }

    fn park(&mut self, id: ChangeId, mut change: Change) {
        let wake = self.now.after_millis(self.config.retry_ms).min(change.deadline);
        self.state.set_timer(Owner::Change(id), &mut change.timer, wake);
        self.state.work.begin(change.repo, Owner::Change(id));
        self.state.changes.insert(id, change);
    }

    fn end_change(&mut self, id: ChangeId, mut change: Change, result: Result<(), Reason>) {
        self.state.set_timer(Owner::Change(id), &mut change.timer, Timestamp::MAX);
        self.state.work.end(change.repo, Owner::Change(id));
        if let Some(root) = self.root_of_fork(&change) {
            self.state.work.end(root, Owner::Change(id));
        }
        // Nobody asked for the router's own; the row shows it.
        if !change.goal.is_own() {
            self.state.effects.push_back(Effect::Changed { change: id, repo: change.repo, result });
        }
        if result.is_err() {
            self.clear_up_after(&change);
        }
    }

    /// Ends a change in favour of another.
    pub(crate) fn abandon_change(&mut self, id: ChangeId) {
        let Some(change) = self.state.changes.remove(&id) else { return };
        if let Stage::Swapping(ticket) = change.stage {
            self.state.swaps.remove(&ticket);
        }
        self.end_change(id, change, Err(Reason::Aborted));
    }

    /// The root of the family, if the change makes a fork.
    fn root_of_fork(&self, change: &Change) -> Option<RepoId> {
        let Goal::Create(request) = &change.goal else { return None };
        request.parent?;
        self.state.cells.get(&change.repo).map(|cell| cell.row.family)
    }

    /// Takes in the row of the family's root, as the store held it after the fork was made.
    ///
    /// A family that moves lists its forks after its root was marked: so either the list holds this one, or the mark is
    /// seen here.
    fn confirm(&mut self, id: ChangeId, root: Option<&Row>) {
        let Some(mut change) = self.state.changes.remove(&id) else { return };
        if let Some(root) = self.root_of_fork(&change) {
            self.state.work.end(root, Owner::Change(id));
        }
        let Goal::Create(request) = &change.goal else { return self.end_change(id, change, Ok(())) };
        let stays = |root: &Row| {
            matches!(root.state, RowState::Live | RowState::Deleted | RowState::Pinned { .. })
                && root.shard == request.shard
        };
        if root.is_some_and(stays) {
            return self.end_change(id, change, Ok(()));
        }
        change.goal = Goal::Undo(change.repo, request.parent.unwrap_or(change.repo));
        let row = self.state.cells.get(&change.repo).map(|cell| cell.row.clone());
        self.pursue(id, change, row.as_ref());
    }

    fn look_at_row(&mut self, id: ChangeId, mut change: Change) {
        change.stage = Stage::Fetching(self.state.fetch(change.repo));
        self.park(id, change);
    }

    /// Takes in the result of a swap that a change asked for. The row, if one was told, is taken in already.
    pub(crate) fn change_swapped(&mut self, id: ChangeId, next: &Row, result: &SwapResult) {
        let Some(mut change) = self.state.changes.remove(&id) else { return };
        if !matches!(result, SwapResult::Unknown) {
            change.current = true;
            change.unsure = None;
        }
        match result {
            SwapResult::Moved => {
                change.attempts = 0;
                let empty = next.newest.version == next.born || next.state == RowState::Deleted;
                if empty && !matches!(change.goal, Goal::Recover(_)) {
                    self.init_members(change.repo);
                } else {
                    self.show_row(change.repo);
                }
                self.pursue(id, change, Some(next));
            }
            SwapResult::Conflict(row) => self.pursue(id, change, row.as_ref()),
            SwapResult::OtherStore | SwapResult::Unknown => self.look_at_row(id, change),
        }
    }

    /// A row was told that the store held after `ask`.
    pub(crate) fn change_row_told(&mut self, id: ChangeId, ask: Ask, repo: RepoId, row: Option<&Row>) {
        let Some(change) = self.state.changes.get(&id) else { return };
        match change.stage {
            Stage::Confirming(wanted) if wanted <= ask && change.repo != repo => return self.confirm(id, row),
            Stage::Fetching(wanted) if wanted <= ask && change.repo == repo => {}
            Stage::Fetching(_) | Stage::Waiting | Stage::Swapping(_) | Stage::Confirming(_) => return,
        }
        if let Some(mut change) = self.state.changes.remove(&id) {
            change.current = true;
            self.pursue(id, change, row);
        }
    }

    /// A node has promised: its promise may name other nodes to ask.
    pub(crate) fn change_promised(&mut self, id: ChangeId) {
        let waits = |change: &Change| change.stage == Stage::Waiting;
        if self.state.changes.get(&id).is_some_and(waits)
            && let Some(change) = self.state.changes.remove(&id)
        {
            let row = self.state.cells.get(&change.repo).map(|cell| cell.row.clone());
            self.pursue(id, change, row.as_ref());
        }
    }

    /// Something was learned about the members: a change that waits for them looks again.
    pub(crate) fn advance_change(&mut self, id: ChangeId) {
        let Some(change) = self.state.changes.get(&id).filter(|change| change.stage == Stage::Waiting) else {
            return;
        };
        let row = self.state.cells.get(&change.repo).map(|cell| cell.row.clone());
        if matches!(change.goal.plan(row.as_ref(), self), Plan::Wait) {
            return;
        }
        if let Some(change) = self.state.changes.remove(&id) {
            self.pursue(id, change, row.as_ref());
        }
    }

    pub(crate) fn change_timer(&mut self, id: ChangeId) {
        self.relist(id);
        let Some(mut change) = self.state.changes.remove(&id) else { return };
        if let Stage::Swapping(ticket) = change.stage {
            self.state.swaps.remove(&ticket);
        }
        if let Goal::Recover(recovery) = &mut change.goal {
            recovery.paused();
        }
        if self.now >= change.deadline {
            let cell = self.state.cells.get(&change.repo);
            let unsettled = cell.and_then(|cell| self.unsettled(cell));
            let reason = unsettled.unwrap_or(Reason::Deadline { waits_for: self.change_waits_for(&change) });
            self.end_change(id, change, Err(reason));
        } else {
            self.show_row(change.repo);
            self.look_at_row(id, change);
        }
    }
}
