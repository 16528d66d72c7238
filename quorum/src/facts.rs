//! Facts: the events that the host tells the router.

use alloc::vec::Vec;

use crate::balance::News;
use crate::commit::Phase;
use crate::fence::{FenceGate, Report};
use crate::id::{Ask, Fence, NodeId, RepoId, TaskId, Ticket, WriteId};
use crate::node::{Health, Heard, NodeState, Served, Standing};
use crate::repair::SyncResult;
use crate::router::Router;
use crate::row::{FeedEntry, Row};
use crate::store::{StoreMeta, SwapResult};
use crate::time::Timestamp;
use crate::work::Owner;

/// Facts. One that is late, repeated, unknown or early changes nothing and is counted.
impl Router {
    /// Tells the state of a node. The first news of a node adds it to the router.
    pub fn handle_node(&mut self, now: Timestamp, node: NodeId, state: NodeState) {
        self.lift(now);
        match self.state.nodes.hear(node, state, self.now, self.config.most_nodes) {
            News::None => {
                self.counters.stale_facts += 1;
                return;
            }
            News::Load => return,
            News::Life => {}
        }
        if state.health != Health::Down {
            self.retry_copies(node);
        }
        if state.health != Health::Down {
            self.empty_deleted(node);
        }
        self.advance_all();
    }

    /// Tells how a node served a request.
    ///
    /// Too many consecutive failures make the node ailing for a while; only a bounded share of the nodes is ailing for
    /// that at once.
    pub fn handle_served(&mut self, now: Timestamp, node: NodeId, served: Served) {
        self.lift(now);
        if !self.state.nodes.served(node, served, self.now, &self.config) {
            self.counters.unknown_facts += 1;
        }
    }

    /// Tells the store's row of `repo` (`None`: there is none), fetched after the router gave out `ask`, with the
    /// store's own state.
    pub fn handle_row(&mut self, now: Timestamp, ask: Ask, store: &StoreMeta, repo: RepoId, row: Option<&Row>) {
        self.lift(now);
        if !self.is_ours(ask, store) {
            return self.foreign_row(repo);
        }
        if ask.0 > self.state.point || row.is_some_and(|row| row.repo != repo) {
            self.counters.unknown_facts += 1;
            return;
        }
        self.state.wake(repo);
        if !self.learn_row(repo, ask, row) {
            self.counters.stale_facts += 1;
            return;
        }
        self.advance_repo(repo);
        for owner in self.state.work.of(repo) {
            if let Owner::Change(id) = owner {
                self.change_row_told(id, ask, repo, row);
            }
        }
        self.start_tasks();
    }

    /// Tells one entry of the change feed of `repo` (`None`: the feed has none of that version).
    pub fn handle_feed(&mut self, now: Timestamp, ask: Ask, store: &StoreMeta, repo: RepoId, entry: Option<FeedEntry>) {
        self.lift(now);
        if !self.is_ours(ask, store) {
            return;
        }
        let waits = |id: &WriteId| {
            let phase = self.state.writes.get(*id).map(|write| write.phase);
            let Some(Phase::ReadingFeed(wanted, version)) = phase else {
                return false;
            };
            wanted == ask && entry.is_none_or(|entry: FeedEntry| entry.version() == version)
        };
        let waiting = self.state.work.writes(repo).find(waits);
        match waiting {
            Some(id) => self.feed_told(id, entry),
            None => self.counters.stale_facts += 1,
        }
    }

    /// Tells the ids of all rows whose family is `family`, as the store held them after it was asked.
    pub fn handle_family(&mut self, now: Timestamp, ask: Ask, store: &StoreMeta, family: RepoId, members: &[RepoId]) {
        self.lift(now);
        if self.is_ours(ask, store) && !self.family_told(ask, family, members) {
            self.counters.stale_facts += 1;
        }
    }

    /// Tells the result of the swap that `ticket` names.
    pub fn handle_swap(&mut self, now: Timestamp, ticket: Ticket, store: &StoreMeta, result: &SwapResult) {
        self.lift(now);
        // What a store in another life says of a swap says nothing of it in this router's life.
        let result = if self.is_ours(ticket.ask(), store) { result } else { &SwapResult::Unknown };
        let Some(swap) = self.state.swaps.remove(&ticket) else {
            self.counters.stale_facts += 1;
            return;
        };
        let repo = swap.next.repo;
        let row = match result {
            SwapResult::Moved => Some(&swap.next),
            SwapResult::Conflict(row) => row.as_ref().filter(|row| row.repo == repo),
            SwapResult::OtherStore | SwapResult::Unknown => None,
        };
        if let Some(cell) = self.state.cells.get_mut(&repo).filter(|_| matches!(result, SwapResult::Moved)) {
            cell.note_raise(ticket);
        }
        if row.is_some() {
            self.learn_row(repo, ticket.ask(), row);
        }
        let ended = matches!(result, SwapResult::Moved) && swap.next.lease.is_none();
        if let Owner::Write(_) = swap.owner
            && ended
            && store.note.is_some_and(|note| note != self.config.router)
        {
            self.let_go_first(repo);
        }
        match swap.owner {
            Owner::Write(id) => self.write_swapped(id, ticket, &swap.next, result),
            Owner::Change(id) => self.change_swapped(id, &swap.next, result),
            Owner::Task(_) => {}
        }
        self.advance_repo(repo);
    }

    /// Tells a node's report on one repository: after a probe, a raise, a vote, a refusal, or unasked.
    ///
    /// `ask` names the question, if the effect that asked named one.
    ///
    /// A report that holds a staged record is a vote. Reports of one gate are put in order by their boots and serial
    /// numbers; an answer that comes before what was heard when it was asked for is one of a disk that went back in time.
    pub fn handle_report(&mut self, now: Timestamp, ask: Option<Ask>, report: &Report) {
        self.lift(now);
        self.state.wake(report.repo);
        if self.hear(ask, report) {
            self.advance_repo(report.repo);
            self.repair_after(report);
        }
    }

    /// Takes a report in; `false` if it says nothing new.
    fn hear(&mut self, ask: Option<Ask>, report: &Report) -> bool {
        let seen = Ask(self.state.point.saturating_add(1));
        let asked = ask.filter(|ask| ask.0 <= self.state.point);
        let gone = self.state.nodes.is_lost(report.node, report.incarnation);
        let Some(cell) = self.state.cells.get_mut(&report.repo).filter(|_| !gone) else {
            self.counters.unknown_facts += 1;
            return false;
        };
        let of = |standing: &&mut Standing| {
            standing.member.node == report.node && standing.member.incarnation == report.incarnation
        };
        let Some(standing) = cell.heard_mut().find(of) else {
            self.counters.unknown_facts += 1;
            return false;
        };
        match standing.hear(report, asked, seen) {
            Heard::Taken => return true,
            Heard::Late => self.counters.stale_facts += 1,
            Heard::Contradiction => self.counters.contradictions += 1,
        }
        false
    }

    /// Whether the store that answers `ask` is the one that this router decides for.
    fn is_ours(&mut self, ask: Ask, store: &StoreMeta) -> bool {
        let theirs = store.generation;
        if theirs == self.state.life {
            return true;
        }
        self.counters.foreign_answers += 1;
        self.state.store = self.state.store.max(theirs);
        if ask.0 <= self.state.point {
            self.state.foreign = (self.state.foreign.0.max(ask), theirs);
        }
        false
    }

    /// Nothing can be decided about `repo`: what waits for its row ends.
    fn foreign_row(&mut self, repo: RepoId) {
        self.advance_repo(repo);
    }

    /// Tells a node's promise: its whole gate, once [`FenceGate::promise`] is persisted.
    pub fn handle_promise(&mut self, now: Timestamp, gate: &FenceGate) {
        self.lift(now);
        let report = gate.report();
        let current = report.generation >= self.config.generation && !report.rewound;
        let recoveries = if current { self.promised(gate) } else { Vec::new() };
        if recoveries.is_empty() {
            self.counters.stale_facts += 1;
            return;
        }
        self.state.wake(report.repo);
        self.hear(None, &report);
        for id in recoveries {
            self.change_promised(id);
        }
        self.advance_repo(report.repo);
        self.schedule_repairs(report.repo);
    }

    /// Tells that `node` cannot vote under the grant whose fence is `fence`. The write fails as soon as W votes are out
    /// of reach.
    pub fn handle_declined(&mut self, now: Timestamp, repo: RepoId, node: NodeId, fence: Fence) {
        self.lift(now);
        let most = usize::from(self.config.most_members);
        let concerns = |id: &WriteId| {
            self.state.writes.get(*id).is_some_and(|write| {
                let granted = write.grant.is_some_and(|base| base.fence == fence);
                granted && !write.declined.contains(&node) && write.declined.len() < most
            })
        };
        let concerned = self.state.work.writes(repo).find(concerns);
        let Some(write) = concerned.and_then(|id| self.state.writes.get_mut(id)) else {
            self.counters.stale_facts += 1;
            return;
        };
        write.declined.push(node);
        self.advance_repo(repo);
    }

    /// Tells the result of a copy that [`crate::Effect::Sync`] or [`crate::Effect::Initialise`] ordered.
    pub fn handle_synced(&mut self, now: Timestamp, task: TaskId, result: &SyncResult) {
        self.lift(now);
        let Some(begun) = self.state.tasks.get(&task).map(|task| task.begun.0) else {
            self.counters.stale_facts += 1;
            return;
        };
        if let SyncResult::Done(report) = result {
            self.handle_report(now, Some(begun), report);
        }
        match result {
            SyncResult::Done(_) => self.task_done(task),
            SyncResult::Failed => self.task_failed(task),
        }
    }

    /// Advances the clock to `now` and does everything that is due.
    ///
    /// Before [`Router::next_deadline`] it changes nothing.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.lift(now);
        // Every timer that fires is set again, if at all, later than now.
        while let Some(&(due, owner)) = self.state.timers.first() {
            if due > self.now {
                return;
            }
            self.state.timers.remove(&(due, owner));
            match owner {
                Owner::Write(id) => self.write_timer(id),
                Owner::Change(id) => self.change_timer(id),
                Owner::Task(id) => self.task_timer(id),
            }
        }
    }
}
