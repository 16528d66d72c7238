//! Changes of a row that are not writes. Each has a goal that the row shows or does not, so it may be tried again
//! after a conflict or a lost answer without harm.

use alloc::vec::Vec;

use crate::effect::Effect;
use crate::error::Reason;
use crate::id::{Ask, ChangeId, Digest, Epoch, Fence, RepoId, Revision, ShardId, Stamp, Ticket, Version};
use crate::quorum::Quorum;
use crate::router::{Router, SwapResult};
use crate::row::{Member, Role, Row, RowState};
use crate::state::Owner;
use crate::time::Timestamp;

/// A repository to be created, empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CreateRequest {
    /// Its id. The id of a deleted repository may be used again: a new lineage, whose version goes on.
    pub repo: RepoId,
    /// The shard it is placed on.
    pub shard: ShardId,
    /// Exactly N voters, and no learner.
    pub members: Vec<Member>,
    /// What the empty state hashes to.
    pub empty: Digest,
}

impl CreateRequest {
    /// An empty repository on `members` of `shard`.
    #[must_use]
    pub const fn new(repo: RepoId, shard: ShardId, members: Vec<Member>, empty: Digest) -> Self {
        Self { repo, shard, members, empty }
    }

    pub(crate) fn is_sound(&self, quorum: Quorum) -> bool {
        let voters = self.members.iter().all(|member| member.role == Role::Voter);
        let mut nodes: Vec<_> = self.members.iter().map(|member| member.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        voters && nodes.len() == self.members.len() && u32::try_from(nodes.len()) == Ok(quorum.voters())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Goal {
    Create(CreateRequest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Stage {
    Fetching(Ask),
    Swapping(Ticket),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Change {
    pub(crate) repo: RepoId,
    pub(crate) goal: Goal,
    pub(crate) stage: Stage,
    pub(crate) deadline: Timestamp,
    pub(crate) retry: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) timer: Timestamp,
}

enum Plan {
    Done,
    Swap(Row),
    Fail(Reason),
}

impl Goal {
    /// What is left to do, given the row (`None`: absent).
    fn plan(&self, row: Option<&Row>, router: &Router) -> Plan {
        match self {
            Self::Create(request) => plan_create(request, row, router),
        }
    }
}

fn plan_create(request: &CreateRequest, row: Option<&Row>, router: &Router) -> Plan {
    let fence = Fence { generation: router.config.generation, counter: 1 };
    let mut next = Row {
        repo: request.repo,
        family: request.repo,
        shard: request.shard,
        revision: Revision(1),
        members: request.members.clone(),
        newest: Stamp { epoch: Epoch(1), version: Version(0), digest: request.empty },
        born: Version(0),
        fence,
        state: RowState::Live,
    };
    let Some(row) = row else {
        return Plan::Swap(next);
    };
    if row.state == RowState::Deleted {
        next.newest = Stamp { epoch: Epoch(row.newest.epoch.0.saturating_add(1)), ..row.newest.next(request.empty) };
        next.born = next.newest.version;
        next.revision = Revision(row.revision.0.saturating_add(1));
        next.fence = row.fence.raised().max(fence);
        return Plan::Swap(next);
    }
    let same = row.shard == next.shard && row.members == next.members && row.newest == next.newest;
    if same && row.fence == next.fence { Plan::Done } else { Plan::Fail(Reason::Exists { repo: request.repo }) }
}

impl Router {
    pub(crate) fn start_change(&mut self, repo: RepoId, goal: Goal) -> ChangeId {
        let id = ChangeId(self.state.next_id());
        let change = Change {
            repo,
            goal,
            stage: Stage::Fetching(Ask(0)),
            deadline: self.now.after_millis(self.config.write_ms),
            retry: Timestamp::MAX,
            attempts: 0,
            timer: Timestamp::MAX,
        };
        let row = self.state.cells.get(&repo).map(|cell| cell.row.clone());
        self.pursue(id, change, row.as_ref());
        id
    }

    /// Goes for the goal from `row`, which the store held at some time (a swap finds out if it no longer does).
    fn pursue(&mut self, id: ChangeId, mut change: Change, row: Option<&Row>) {
        match change.goal.plan(row, self) {
            Plan::Done => self.end_change(id, change, Ok(())),
            Plan::Fail(reason) => self.end_change(id, change, Err(reason)),
            Plan::Swap(_) if change.attempts >= self.config.attempts => {
                let attempts = change.attempts;
                self.end_change(id, change, Err(Reason::Contended { attempts }));
            }
            Plan::Swap(next) => {
                change.attempts = change.attempts.saturating_add(1);
                change.stage = Stage::Swapping(self.state.swap(Owner::Change(id), row.cloned(), next, None));
                self.park(id, change);
            }
        }
    }

    fn park(&mut self, id: ChangeId, mut change: Change) {
        change.retry = self.now.after_millis(self.config.retry_ms);
        let wake = change.retry.min(change.deadline);
        self.state.set_timer(Owner::Change(id), &mut change.timer, wake);
        self.state.work.insert((change.repo, Owner::Change(id)));
        self.state.changes.insert(id, change);
    }

    fn end_change(&mut self, id: ChangeId, mut change: Change, result: Result<(), Reason>) {
        self.state.set_timer(Owner::Change(id), &mut change.timer, Timestamp::MAX);
        self.state.work.remove(&(change.repo, Owner::Change(id)));
        self.state.effects.push_back(Effect::Changed { change: id, repo: change.repo, result });
    }

    fn look_at_row(&mut self, id: ChangeId, mut change: Change) {
        change.stage = Stage::Fetching(self.state.fetch(change.repo));
        self.park(id, change);
    }

    pub(crate) fn change_swapped(&mut self, id: ChangeId, result: &SwapResult) {
        let Some(change) = self.state.changes.remove(&id) else {
            return;
        };
        match result {
            SwapResult::Moved => {
                self.init_members(change.repo);
                self.end_change(id, change, Ok(()));
            }
            SwapResult::Conflict(row) => self.pursue(id, change, row.as_ref()),
            SwapResult::Unknown => self.look_at_row(id, change),
        }
    }

    /// A row was told that the store held after `ask`.
    pub(crate) fn change_row_told(&mut self, id: ChangeId, ask: Ask, row: Option<&Row>) {
        let waits = |change: &Change| matches!(change.stage, Stage::Fetching(wanted) if wanted <= ask);
        if !self.state.changes.get(&id).is_some_and(waits) {
            return;
        }
        if let Some(change) = self.state.changes.remove(&id) {
            self.pursue(id, change, row);
        }
    }

    pub(crate) fn change_timer(&mut self, id: ChangeId) {
        let Some(change) = self.state.changes.remove(&id) else {
            return;
        };
        if let Stage::Swapping(ticket) = change.stage {
            self.state.swaps.remove(&ticket);
        }
        if self.now >= change.deadline {
            self.end_change(id, change, Err(Reason::Deadline));
        } else {
            self.look_at_row(id, change);
        }
    }
}
