//! Changes of a row that are not writes. Each has a goal that the row shows or does not, so it may be tried again
//! after a conflict or a lost answer without harm.

use crate::effect::Effect;
use crate::error::Reason;
use crate::goal::{Goal, Plan};
use crate::id::{Ask, ChangeId, RepoId, Ticket};
use crate::router::{Router, SwapResult};
use crate::row::{FeedEntry, Row, RowState};
use crate::state::Owner;
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Stage {
    Fetching(Ask),
    Swapping(Ticket),
    /// Members must catch up first.
    Waiting,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Change {
    pub(crate) repo: RepoId,
    pub(crate) goal: Goal,
    pub(crate) stage: Stage,
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
        match change.goal.plan(row, self) {
            Plan::Done => self.end_change(id, change, Ok(())),
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
        self.state.effects.push_back(Effect::Changed { change: id, repo: change.repo, result });
    }

    fn look_at_row(&mut self, id: ChangeId, mut change: Change) {
        change.stage = Stage::Fetching(self.state.fetch(change.repo));
        self.park(id, change);
    }

    /// What became of a swap that a change asked for. The row, if one was told, is taken in already.
    pub(crate) fn change_swapped(&mut self, id: ChangeId, next: &Row, result: &SwapResult) {
        let Some(mut change) = self.state.changes.remove(&id) else { return };
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
            SwapResult::Unknown => self.look_at_row(id, change),
        }
    }

    /// A row was told that the store held after `ask`.
    pub(crate) fn change_row_told(&mut self, id: ChangeId, ask: Ask, row: Option<&Row>) {
        let waits = |change: &Change| match change.stage {
            Stage::Fetching(wanted) => wanted <= ask,
            Stage::Waiting | Stage::Swapping(_) => false,
        };
        if !self.state.changes.get(&id).is_some_and(waits) {
            return;
        }
        if let Some(change) = self.state.changes.remove(&id) {
            self.pursue(id, change, row);
        }
    }

    /// Somebody has promised: what was learned may name others to ask.
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
        let Some(mut change) = self.state.changes.remove(&id) else { return };
        if let Stage::Swapping(ticket) = change.stage {
            self.state.swaps.remove(&ticket);
        }
        if let Goal::Recover(recovery) = &mut change.goal {
            recovery.paused();
        }
        if self.now >= change.deadline {
            self.end_change(id, change, Err(Reason::Deadline));
        } else {
            self.show_row(change.repo);
            self.look_at_row(id, change);
        }
    }
}
