//! Repair: which member is brought up to the row, from which source, each copy once, within a budget per node.

use alloc::vec::Vec;

use crate::effect::Effect;
use crate::fence::Report;
use crate::id::{Ask, Incarnation, NodeId, RepoId, Stamp, TaskId};
use crate::node::{Health, Standing, Verdict};
use crate::router::Router;
use crate::row::{Member, RowState};
use crate::state::Cell;
use crate::time::Timestamp;
use crate::work::Owner;

/// The result of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SyncResult {
    /// Done: the copy is installed and durable. Carries the target's report afterwards.
    Done(Report),
    /// The copy failed; nothing was installed.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Copying {
    Queued,
    /// The copy failed; it is queued again after a pause.
    Pausing,
    /// The copy runs from this node; `None` starts the repository empty.
    Running(Option<NodeId>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Task {
    pub(crate) repo: RepoId,
    pub(crate) target: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) copying: Copying,
    pub(crate) attempts: u32,
    /// When the copy was ordered last.
    pub(crate) begun: (Ask, Timestamp),
    /// The state that was to be copied then.
    pub(crate) copied: Stamp,
    pub(crate) timer: Timestamp,
}

impl Router {
    /// Queues a copy for every member that is known to be behind the row, then starts what the budget lets start.
    pub(crate) fn schedule_repairs(&mut self, repo: RepoId) {
        let Some(cell) = self.state.cells.get(&repo) else {
            return;
        };
        let mut found = Vec::new();
        if cell.row.state == RowState::Decided {
            return;
        }
        for standing in &cell.standings {
            let member = standing.member;
            let heard_since = standing.known.is_some_and(|known| known.seen > cell.since);
            let (verdict, health) = self.verdict(cell, standing);
            let behind = match verdict {
                Verdict::Lagging { .. } => heard_since,
                // The fence comes before the copy.
                Verdict::Rewound { applied } => applied != cell.row.newest && standing.is_curable(&cell.row),
                Verdict::Current
                | Verdict::Divergent { .. }
                | Verdict::RowOld
                | Verdict::Ahead { .. }
                | Verdict::Unknown => false,
            };
            let behind = behind && health != Health::Down;
            if behind && !self.state.is_target(repo, member.node) {
                found.push(member);
            }
        }
        for member in found {
            self.queue_task(repo, member.node, member.incarnation);
        }
        self.start_tasks();
    }

    /// A member spoke: if it is behind it is to be repaired; if it is not, it may be the source that a copy waited for.
    pub(crate) fn repair_after(&mut self, report: &Report) {
        let current = self.state.cells.get(&report.repo).is_some_and(|cell| report.applied == cell.row.newest);
        if !current {
            self.schedule_repairs(report.repo);
        } else if !self.state.queue.is_empty() {
            self.start_tasks();
        }
        self.tend_rewound(report.repo);
        let pinned = self.state.cells.get(&report.repo).is_some_and(|cell| cell.row.state != RowState::Live);
        if pinned || !current {
            self.watch_lock(report.repo);
        }
    }

    /// A repository was created: its members are to start it.
    pub(crate) fn init_members(&mut self, repo: RepoId) {
        let Some(cell) = self.state.cells.get(&repo) else {
            return;
        };
        for member in &cell.row.members.clone() {
            let up = self.state.nodes.alive(member.node, member.incarnation).is_some_and(|s| s.health != Health::Down);
            if up && !self.state.is_target(repo, member.node) {
                self.queue_task(repo, member.node, member.incarnation);
            }
        }
        self.start_tasks();
    }

    /// A node is back: what was deleted while it was away is emptied there.
    pub(crate) fn empty_deleted(&mut self, node: NodeId) {
        let missed = |cell: &&Cell| {
            let theirs = cell.standings.iter().find(|standing| standing.member.node == node);
            cell.row.state == RowState::Deleted
                && theirs.is_some_and(|standing| {
                    let (verdict, health) = self.verdict(cell, standing);
                    health != Health::Down && matches!(verdict, Verdict::Lagging { .. } | Verdict::Unknown)
                })
        };
        let missed: Vec<RepoId> = self.state.cells.values().filter(missed).map(|cell| cell.row.repo).collect();
        for repo in missed {
            let member = self.state.cells.get(&repo).and_then(|cell| cell.row.member(node)).copied();
            if let Some(Member { incarnation, .. }) = member.filter(|_| !self.state.is_target(repo, node)) {
                self.queue_task(repo, node, incarnation);
            }
        }
    }

    fn queue_task(&mut self, repo: RepoId, target: NodeId, incarnation: Incarnation) {
        if self.state.tasks.len() >= self.config.most_tasks as usize {
            return;
        }
        let id = TaskId(self.state.next_id());
        let task = Task {
            repo,
            target,
            incarnation,
            copying: Copying::Queued,
            attempts: 0,
            begun: (Ask(0), self.now),
            copied: Stamp::BLANK,
            timer: Timestamp::MAX,
        };
        self.state.targets.insert((repo, target, id));
        self.requeue(id, task);
    }

    /// Puts a task into the queue; if it still waits there after a pause, what is known may be old.
    fn requeue(&mut self, id: TaskId, task: Task) {
        self.state.queue.insert(id);
        self.pause(id, task, Copying::Queued);
    }

    fn pause(&mut self, id: TaskId, mut task: Task, copying: Copying) {
        task.copying = copying;
        let pause = self.config.retry_ms.saturating_mul(1 << task.attempts.min(6));
        self.state.set_timer(Owner::Task(id), &mut task.timer, self.now.after_millis(pause));
        self.state.tasks.insert(id, task);
    }

    /// Starts queued copies, oldest first, while their nodes have room.
    pub(crate) fn start_tasks(&mut self) {
        if self.state.queue.is_empty() {
            return;
        }
        let queued: Vec<TaskId> = self.state.queue.iter().copied().collect();
        for id in queued {
            self.start_task(id);
        }
    }

    fn has_room(&self, node: NodeId) -> bool {
        self.state.copying.get(&node).copied().unwrap_or(0) < self.config.syncs_per_node
    }

    fn start_task(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        let (repo, target, incarnation) = (task.repo, task.target, task.incarnation);
        let Some(cell) = self.state.cells.get(&repo) else {
            return self.drop_task(id);
        };
        let of = |standing: &&Standing| standing.member.node == target && standing.member.incarnation == incarnation;
        let standing = cell.standings.iter().find(of);
        let alive = self.state.nodes.alive(target, incarnation).is_some_and(|state| state.health != Health::Down);
        let wanted = standing.is_some_and(|standing| {
            let verdict = cell.verdict(standing);
            matches!(verdict, Verdict::Lagging { .. } | Verdict::Unknown)
                || (matches!(verdict, Verdict::Rewound { .. }) && standing.is_curable(&cell.row))
        });
        if !alive || !wanted || cell.row.state == RowState::Decided {
            return self.drop_task(id);
        }
        if !self.has_room(target) {
            return;
        }
        let (row, cell_newest) = (cell.row.clone(), cell.row.newest);
        let is_empty = cell.row.newest.version == cell.row.born || cell.row.state == RowState::Deleted;
        let source = if is_empty { None } else { self.source(repo) };
        if !is_empty && source.is_none() {
            return;
        }
        *self.state.copying.entry(target).or_insert(0) += 1;
        self.state.queue.remove(&id);
        let effect = match source {
            None => Effect::Initialise { task: id, target, incarnation, row },
            Some(source) => {
                *self.state.copying.entry(source).or_insert(0) += 1;
                Effect::Sync { task: id, target, incarnation, source, row }
            }
        };
        self.state.effects.push_back(effect);
        let (until, newest) = (self.now.after_millis(self.config.sync_ms), cell_newest);
        let begun = (self.state.draw(), self.now);
        if let Some(mut task) = self.state.tasks.remove(&id) {
            task.copying = Copying::Running(source);
            (task.begun, task.copied) = (begun, newest);
            self.state.set_timer(Owner::Task(id), &mut task.timer, until);
            self.state.tasks.insert(id, task);
        }
    }

    /// The member to copy from: it holds exactly the row's state. Never a majority, never the next best.
    fn source(&self, repo: RepoId) -> Option<NodeId> {
        let cell = self.state.cells.get(&repo)?;
        let exact = cell.standings.iter().filter(|standing| {
            let (verdict, health) = self.verdict(cell, standing);
            let applied = standing.applied() == Some(cell.row.newest);
            verdict == Verdict::Current && applied && health != Health::Down && self.has_room(standing.member.node)
        });
        let load = |node: NodeId| self.state.copying.get(&node).copied().unwrap_or(0);
        exact.map(|standing| standing.member.node).min_by_key(|node| (load(*node), *node))
    }

    /// Forgets a copy.
    fn drop_task(&mut self, id: TaskId) {
        let Some(mut task) = self.state.tasks.remove(&id) else { return };
        self.give_room_back(&task);
        self.state.queue.remove(&id);
        self.state.targets.remove(&(task.repo, task.target, id));
        self.state.set_timer(Owner::Task(id), &mut task.timer, Timestamp::MAX);
    }

    fn give_room_back(&mut self, task: &Task) {
        let Copying::Running(source) = task.copying else { return };
        for node in core::iter::once(task.target).chain(source) {
            if let Some(count) = self.state.copying.get_mut(&node) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.state.copying.remove(&node);
                }
            }
        }
    }

    /// A copy is installed. An overtaken one is asked once more: the report shows that the target still lags.
    pub(crate) fn task_done(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else { return };
        let (repo, target, incarnation, (_, begun)) = (task.repo, task.target, task.incarnation, task.begun);
        self.drop_task(id);
        self.schedule_repairs(repo);
        self.count_round(repo, target, incarnation, begun);
    }

    /// The node is up: copies to it that failed before are tried at once, as if for the first time.
    pub(crate) fn retry_copies(&mut self, node: NodeId) {
        let to = |(id, task): (&TaskId, &Task)| (task.target == node).then_some(*id);
        let tasks: alloc::vec::Vec<TaskId> = self.state.tasks.iter().filter_map(to).collect();
        for id in tasks {
            let Some(task) = self.state.tasks.get_mut(&id) else { continue };
            task.attempts = 0;
            if task.copying == Copying::Pausing
                && let Some(task) = self.state.tasks.remove(&id)
            {
                self.requeue(id, task);
            }
        }
    }

    /// A copy failed, or nothing was heard of it: it is tried again after a pause, a bounded number of times.
    pub(crate) fn task_failed(&mut self, id: TaskId) {
        let Some(mut task) = self.state.tasks.remove(&id) else { return };
        self.give_room_back(&task);
        self.state.queue.remove(&id);
        let newest = self.state.cells.get(&task.repo).map(|cell| cell.row.newest);
        if matches!(task.copying, Copying::Running(_)) && newest.is_some_and(|newest| newest != task.copied) {
            // The source has moved on: nothing is wrong with either, and a pause would only let more writes in.
            let (repo, target, incarnation, (_, begun)) = (task.repo, task.target, task.incarnation, task.begun);
            self.requeue(id, task);
            self.start_tasks();
            return self.count_round(repo, target, incarnation, begun);
        }
        task.attempts = task.attempts.saturating_add(1);
        let over = task.attempts >= self.config.attempts;
        self.pause(id, task, Copying::Pausing);
        if over {
            let repo = self.state.tasks.get(&id).map(|task| task.repo);
            self.drop_task(id);
            // A write may have waited for this copy.
            if let Some(repo) = repo {
                self.advance_repo(repo);
            }
        }
        self.start_tasks();
    }

    /// A task has waited long enough. What the router knows may be old: the row is fetched and shown to the members.
    pub(crate) fn task_timer(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else { return };
        let (repo, target) = (task.repo, task.target);
        match task.copying {
            Copying::Running(_) => self.task_failed(id),
            Copying::Queued if self.has_room(target) => self.task_failed(id),
            Copying::Queued | Copying::Pausing => {
                if let Some(task) = self.state.tasks.remove(&id) {
                    self.requeue(id, task);
                }
                if !self.has_room(target) {
                    return;
                }
            }
        }
        self.state.fetch(repo);
        self.show_row(repo);
    }
}
