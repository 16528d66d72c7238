//! The face: commands, facts, effects, views.

use alloc::vec::Vec;

use crate::balance::{News, Wish};
use crate::commit::{Phase, Write};
use crate::config::Config;
use crate::effect::Effect;
use crate::error::{Reason, Refusal, RestoreError};
use crate::fence::{FenceGate, Report};
use crate::goal::{CreateRequest, Goal, ReplaceRequest};
use crate::id::{Ask, ChangeId, Fence, NodeId, RepoId, TaskId, Ticket, WriteId};
use crate::migrate::{MigrateRequest, Migration, Way};
use crate::node::{Health, Heard, NodeState, Served, Standing, Tally, Verdict};
use crate::recover::{RecoverRequest, Recovery};
use crate::repair::SyncResult;
use crate::row::{FeedEntry, Member, Row, RowState};
use crate::snapshot::Snapshot;
use crate::state::{Cell, Owner, State};
use crate::time::Timestamp;
use crate::write::{GiveUp, WriteRequest, WriteView};

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SwapResult {
    /// The row is `next` now.
    Moved,
    /// The row was not `expect`, and nothing was changed; this is what it is (`None`: absent).
    Conflict(Option<Row>),
    /// No answer came, or one that does not say: the swap may have happened, may still happen, or not.
    Unknown,
}

/// How often what was told changed nothing. Never part of a decision or a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counters {
    /// Facts about what the router does not (or no longer) wait for, repeated ones too.
    pub stale_facts: u64,
    /// Facts that name what the router never asked for.
    pub unknown_facts: u64,
    /// Rows that break the rules of rows, or went backwards.
    pub bad_rows: u64,
    /// Reports that contradict an earlier one of the same serial number.
    pub contradictions: u64,
}

/// Decides, for many repositories, where reads and writes go and what is repaired. See the crate's page.
///
/// Two routers are equal, and hash alike, if they decide alike: counters and the clock do not matter.
#[derive(Clone, Debug)]
pub struct Router {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    counters: Counters,
}

impl PartialEq for Router {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && self.state == other.state
    }
}

impl Eq for Router {}

impl core::hash::Hash for Router {
    fn hash<H: core::hash::Hasher>(&self, hasher: &mut H) {
        self.config.hash(hasher);
        self.state.hash(hasher);
    }
}

/// Commands.
impl Router {
    /// A router that knows nothing: rows, nodes and reports are told as they are needed.
    ///
    /// Asks, tickets and ids are those of one router's life. Whoever puts a new router in an old one's place within a
    /// process ends the tasks that carry out the old one's effects, or drops what they tell: their tickets could be
    /// taken for the new one's.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        let state = State::new(config.seed);
        let counters = Counters { stale_facts: 0, unknown_facts: 0, bad_rows: 0, contradictions: 0 };
        Self { config, state, now: Timestamp::ZERO, counters }
    }

    /// Marks where a read begins; call it when the request arrives, and route with it until the read is served.
    #[must_use = "route the read with it"]
    pub const fn begin_read(&mut self) -> Ask {
        self.state.point = self.state.point.saturating_add(1);
        Ask(self.state.point)
    }

    /// Starts a write. It ends in an [`Effect::Answer`] by its deadline; a grant may come before.
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: the repository has a write under way, a limit is reached, or what was
    /// learned just now rules the write out (too few voters, deleted, moving).
    pub fn begin_write(&mut self, now: Timestamp, request: &WriteRequest) -> Result<WriteId, Refusal> {
        self.lift(now);
        if self.state.writes.len() >= self.config.most_writes as usize {
            return Err(Reason::Full { limit: self.config.most_writes }.into());
        }
        let open = |id: &WriteId| self.state.writes.get(*id).is_some_and(|write| !write.answered);
        if let Some(write) = self.state.work.writes(request.repo).find(open) {
            return Err(Reason::Busy { write }.into());
        }
        let cell = self.state.cell(request.repo);
        let cell = cell.as_deref();
        // What an old row says is no ground for a refusal: another router may have changed it since.
        let fresh = cell.filter(|cell| self.now.millis_since(cell.told) <= self.config.retry_ms);
        if let Some(cell) = fresh {
            self.writable(cell, request.writer)?;
        }
        let deadline = self.now.after_millis(self.config.write_ms);
        let phase = if fresh.is_some() || cell.is_some_and(|cell| self.writable(cell, request.writer).is_ok()) {
            Phase::Gathering
        } else {
            Phase::Locating(self.state.fetch(request.repo))
        };
        Ok(self.start_write(Write {
            repo: request.repo,
            request: request.request,
            writer: request.writer,
            phase,
            grant: None,
            holder: None,
            declined: Vec::new(),
            failing: None,
            answered: false,
            deadline,
            lease_end: Timestamp::MAX,
            retry: self.now.after_millis(self.config.retry_ms),
            retries: 0,
            shown: false,
            attempts: 0,
            timer: Timestamp::MAX,
        }))
    }

    /// Gives a write up before its commit: the client went away, or its change was refused. Ends in an
    /// [`Effect::Answer`]; a write whose commit is on its way is not stopped. Of an unknown write it changes nothing.
    pub fn abort_write(&mut self, now: Timestamp, write: WriteId, claim: GiveUp) {
        self.lift(now);
        if self.state.writes.get(write).is_some() {
            self.give_up(write, claim);
        } else {
            self.counters.stale_facts += 1;
        }
    }

    /// Creates a repository: its row first, then its empty state on every member. Ends in an [`Effect::Changed`].
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, or the members are not N voters, each node once.
    pub fn create(&mut self, now: Timestamp, request: &CreateRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        if self.state.known() >= self.config.most_repositories as usize {
            return Err(Reason::Full { limit: self.config.most_repositories }.into());
        }
        if !request.is_sound(self.config.quorum) {
            return Err(Reason::BadCommand { repo: request.repo }.into());
        }
        if let Some(parent) = request.parent.filter(|parent| self.family_for(*parent, request).is_none()) {
            return Err(Reason::FamilySplit { parent }.into());
        }
        self.change(request.repo, Goal::Create(request.clone()))
    }

    /// Deletes a repository: its row becomes a tombstone with a version of its own, and its members are emptied
    /// ([`Effect::Initialise`]). Ends in an [`Effect::Changed`].
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached.
    pub fn delete(&mut self, now: Timestamp, repo: RepoId) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.change(repo, Goal::Delete(repo))
    }

    /// Replaces one voter: the newcomer learns, applies the newest state, then takes the place in one step. A node
    /// whose disk was lost is replaced by itself. Ends in an [`Effect::Changed`].
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached.
    pub fn replace(&mut self, now: Timestamp, request: &ReplaceRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.change(request.repo, Goal::Replace(*request))
    }

    /// Accepts that whatever `survivor` does not hold is lost: what it has applied becomes the newest state, in a new
    /// lineage, and votes of the old one are dead. For an operator, on record. Ends in an [`Effect::Changed`].
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, no row is held, or `survivor` is no member of it.
    pub fn accept_loss(&mut self, now: Timestamp, repo: RepoId, survivor: NodeId) -> Result<ChangeId, Refusal> {
        self.lift(now);
        let row = self.row_of(repo).ok_or(Reason::NoSuchRepository { repo })?;
        let epoch = row.newest.epoch;
        row.member(survivor).ok_or(Reason::NotAMember { node: survivor })?;
        self.change(repo, Goal::AcceptLoss(repo, survivor, epoch))
    }

    /// Moves a fork family to another shard: readable throughout, not writable meanwhile. Each repository moves under a
    /// change of its own, each with its [`Effect::Changed`]; that of the root comes last. A migration that was cut short is taken up by
    /// asking again. Once it ended, what the old nodes hold of the family may be thrown away.
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, a granted write is under way, or the members are not N
    /// voters, each node once.
    pub fn migrate(&mut self, now: Timestamp, request: &MigrateRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.start_migration(request, Way::There)
    }

    /// Takes a migration back, unless the root has changed places already: then it goes on, and this ends in
    /// [`Reason::Moving`]. Of a migration in this router the change ends in [`Reason::Aborted`].
    ///
    /// # Errors
    /// [`Refusal`], as for [`Router::migrate`].
    pub fn abort_migration(&mut self, now: Timestamp, request: &MigrateRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.start_migration(request, Way::Back)
    }

    fn start_migration(&mut self, request: &MigrateRequest, way: Way) -> Result<ChangeId, Refusal> {
        if !crate::goal::are_sound(&request.members, self.config.quorum) {
            return Err(Reason::BadCommand { repo: request.root }.into());
        }
        if let Some(write) = self.granted_write(request.root) {
            return Err(Reason::Busy { write }.into());
        }
        if self.state.changes.len() >= self.config.most_changes as usize {
            return Err(Reason::Full { limit: self.config.most_changes }.into());
        }
        if way == Way::Back {
            self.drop_migration(request.root);
        }
        self.change(request.root, Goal::Migrate(Migration::leading(request.clone(), way)))
    }

    /// Finds out what is newest after the store came back from a backup, under a larger [`Config::generation`]: until
    /// then, reads, grants and changes of the repository are refused ([`Reason::NotRecovered`]). W members promise
    /// ([`Effect::Promise`]), the newest state that can have been committed becomes the row's, and once W members hold
    /// it the repository is open. Ends in an [`Effect::Changed`]; what cannot be decided says why
    /// ([`Reason::TooFewPromises`], [`Reason::NobodyHolds`], [`Reason::Undecided`]) and is an operator's to settle:
    /// bring members back and recover again, or [`Router::accept_loss`].
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, or more holders are named than a repository has members.
    pub fn recover(&mut self, now: Timestamp, request: &RecoverRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        if request.holders.len() > usize::from(self.config.most_members) {
            return Err(Reason::BadCommand { repo: request.repo }.into());
        }
        self.change(request.repo, Goal::Recover(Recovery::new(request.clone())))
    }

    fn change(&mut self, repo: RepoId, goal: Goal) -> Result<ChangeId, Refusal> {
        if self.state.changes.len() >= self.config.most_changes as usize {
            return Err(Reason::Full { limit: self.config.most_changes }.into());
        }
        self.state.wake(repo);
        Ok(self.start_change(repo, goal))
    }
}

/// Facts. What is late, repeated, unknown or early changes nothing and is counted.
impl Router {
    /// A node is, or is now, like this. The first news of a node brings it into play.
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
        let writes: Vec<WriteId> = self.state.writes.ids().collect();
        for id in writes {
            self.advance_write(id);
        }
        self.start_tasks();
    }

    /// How a node did what it was asked: too many failures in a row make it ailing for a while, a bounded share of
    /// the nodes at once.
    pub fn handle_served(&mut self, now: Timestamp, node: NodeId, served: Served) {
        self.lift(now);
        if !self.state.nodes.served(node, served, self.now, &self.config) {
            self.counters.unknown_facts += 1;
        }
    }

    /// The store's row of `repo` (`None`: there is none), fetched after the router gave out `ask`.
    pub fn handle_row(&mut self, now: Timestamp, ask: Ask, repo: RepoId, row: Option<&Row>) {
        self.lift(now);
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

    /// One entry of the change feed of `repo` (`None`: the feed has none of that version).
    pub fn handle_feed(&mut self, now: Timestamp, ask: Ask, repo: RepoId, entry: Option<FeedEntry>) {
        self.lift(now);
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

    /// The ids of all rows whose family is `family`, as the store had them after it was asked.
    pub fn handle_family(&mut self, now: Timestamp, ask: Ask, family: RepoId, members: &[RepoId]) {
        self.lift(now);
        if !self.family_told(ask, family, members) {
            self.counters.stale_facts += 1;
        }
    }

    /// What became of the swap that `ticket` names.
    pub fn handle_swap(&mut self, now: Timestamp, ticket: Ticket, result: &SwapResult) {
        self.lift(now);
        let Some(swap) = self.state.swaps.remove(&ticket) else {
            self.counters.stale_facts += 1;
            return;
        };
        let repo = swap.next.repo;
        let row = match result {
            SwapResult::Moved => Some(&swap.next),
            SwapResult::Conflict(row) => row.as_ref().filter(|row| row.repo == repo),
            SwapResult::Unknown => None,
        };
        if row.is_some() {
            self.learn_row(repo, ticket.ask(), row);
        }
        match swap.owner {
            Owner::Write(id) => self.write_swapped(id, ticket, &swap.next, result),
            Owner::Change(id) => self.change_swapped(id, &swap.next, result),
            Owner::Task(_) => {}
        }
        self.advance_repo(repo);
    }

    /// What a node says of itself for one repository: after a probe, a raise, a vote, a refusal, or unasked.
    ///
    /// A report that holds a staged record is a vote. Reports of one gate are put in order by their serial number.
    pub fn handle_report(&mut self, now: Timestamp, report: &Report) {
        self.lift(now);
        self.state.wake(report.repo);
        if self.hear(report) {
            self.advance_repo(report.repo);
            self.repair_after(report);
        }
    }

    /// Takes a report in; `false` if it says nothing new.
    fn hear(&mut self, report: &Report) -> bool {
        let seen = Ask(self.state.point.saturating_add(1));
        let Some(cell) = self.state.cells.get_mut(&report.repo) else {
            self.counters.unknown_facts += 1;
            return false;
        };
        let of = |standing: &&mut Standing| {
            standing.member.node == report.node && standing.member.incarnation == report.incarnation
        };
        let Some(standing) = cell.standings.iter_mut().find(of) else {
            self.counters.unknown_facts += 1;
            return false;
        };
        match standing.hear(report, seen) {
            Heard::Taken => return true,
            Heard::Late => self.counters.stale_facts += 1,
            Heard::Contradiction => self.counters.contradictions += 1,
        }
        false
    }

    /// What a node has promised: its gate, whole, once [`FenceGate::promise`] is persisted.
    pub fn handle_promise(&mut self, now: Timestamp, gate: &FenceGate) {
        self.lift(now);
        let report = gate.report();
        let current = report.generation >= self.config.generation;
        let recoveries = if current { self.promised(gate) } else { Vec::new() };
        if recoveries.is_empty() {
            self.counters.stale_facts += 1;
            return;
        }
        self.state.wake(report.repo);
        self.hear(&report);
        for id in recoveries {
            self.change_promised(id);
        }
        self.advance_repo(report.repo);
        self.schedule_repairs(report.repo);
    }

    /// `node` cannot vote under the grant whose fence is `fence`; the write fails as soon as votes cannot add up.
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

    /// How a copy that [`Effect::Sync`] or [`Effect::Initialise`] asked for ended.
    pub fn handle_synced(&mut self, now: Timestamp, task: TaskId, result: &SyncResult) {
        self.lift(now);
        if !self.state.tasks.contains_key(&task) {
            self.counters.stale_facts += 1;
            return;
        }
        if let SyncResult::Done(report) = result {
            self.handle_report(now, report);
        }
        match result {
            SyncResult::Done(_) => self.task_done(task),
            SyncResult::Failed => self.task_failed(task),
        }
    }

    /// It is `now`: whatever was to happen by now happens. Before [`Router::next_deadline`] it changes nothing.
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

/// Effects, views, snapshots.
impl Router {
    /// The next order to the host, oldest first.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.state.effects.pop_front()
    }

    /// When to call [`Router::handle_timeout`] at the latest; `None` while nothing waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.state.timers.first().map(|(due, _)| *due)
    }

    /// The newest row that the router was told of, by reference: of a repository that is awake. [`Router::row_of`]
    /// knows those at rest too.
    #[must_use]
    pub fn row(&self, repo: RepoId) -> Option<&Row> {
        self.state.cells.get(&repo).map(|cell| &cell.row)
    }

    /// The newest row that the router was told of.
    #[must_use]
    pub fn row_of(&self, repo: RepoId) -> Option<Row> {
        self.state.cell(repo).map(|cell| cell.row.clone())
    }

    /// How many repositories are known, and how many of them are at rest.
    #[must_use]
    pub fn repositories(&self) -> (usize, usize) {
        (self.state.known(), self.state.rest.len())
    }

    /// Makes room for so many repositories at once, so that taking them in moves nothing.
    pub fn reserve(&mut self, repositories: u32) {
        self.state.rest.reserve(repositories.min(self.config.most_repositories) as usize);
    }

    /// How each member stands to that row, in the row's order, with its health if it is in the row's life of its disk.
    pub fn members(&self, repo: RepoId) -> impl Iterator<Item = (Member, Verdict, Option<Health>)> {
        let cell = self.state.cell(repo);
        let stand = |cell: &Cell| -> Vec<_> {
            let of = |standing: &Standing| {
                let member = standing.member;
                let health = self.state.nodes.alive(member.node, member.incarnation).map(|state| state.health);
                (member, self.verdict(cell, standing).0, health)
            };
            cell.standings.iter().map(of).collect()
        };
        cell.map(|cell| stand(&cell)).unwrap_or_default().into_iter()
    }

    /// How many voters stand how.
    #[must_use]
    pub fn tally(&self, repo: RepoId) -> Option<Tally> {
        self.state.cell(repo).map(|cell| self.tally_of(&cell))
    }

    /// Where a write stands; `None` once its outcome is known.
    #[must_use]
    pub fn write(&self, write: WriteId) -> Option<WriteView> {
        self.state.writes.get(write).map(Write::view)
    }

    /// The copies under way or waiting: task, repository, target.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, RepoId, NodeId)> {
        self.state.tasks.iter().map(|(id, task)| (*id, task.repo, task.target))
    }

    /// How a node is, as last told.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<NodeState> {
        self.state.nodes.get(node).map(|entry| entry.state)
    }

    /// How often what was told changed nothing.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Everything that decides, as plain data. A router needs none of it to be safe: the truth is in rows and gates.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.state)
    }

    /// The router that `snapshot` was taken of, under `config`.
    ///
    /// # Errors
    /// [`RestoreError`]: the snapshot is of another format, too large for the configuration, or contradicts itself.
    pub fn restore(config: Config, snapshot: Snapshot) -> Result<Self, RestoreError> {
        let state = snapshot.checked(&config)?;
        let mut router = Self::new(config);
        router.state = state;
        Ok(router)
    }
}

/// What commands and facts share.
impl Router {
    pub(crate) fn lift(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.state.clock.0 = self.now;
        self.state.calm(self.config.most_awake);
    }

    /// Something was learned about `repo`: its writes and changes look again.
    fn advance_repo(&mut self, repo: RepoId) {
        for owner in self.state.work.of(repo) {
            match owner {
                Owner::Write(id) => self.advance_write(id),
                Owner::Change(id) => self.advance_change(id),
                Owner::Task(_) => {}
            }
        }
    }

    /// Takes in what the store held after `ask`; `false` if that says nothing new.
    pub(crate) fn learn_row(&mut self, repo: RepoId, ask: Ask, row: Option<&Row>) -> bool {
        let most = usize::from(self.config.most_members);
        let checked = row
            .ok_or(Reason::NoSuchRepository { repo })
            .and_then(|row| row.check(self.config.quorum, most).map(|()| row));
        let room = self.state.known() < self.config.most_repositories as usize;
        let known = self.state.cells.get(&repo);
        match checked {
            Ok(row) if known.is_some_and(|cell| !cell.is_news(row, ask)) => false,
            Ok(row) if known.is_some() || room => {
                let now = self.state.history.time_of(ask);
                let point = self.state.draw();
                self.state.absent.remove(&repo);
                match self.state.cells.get_mut(&repo) {
                    Some(cell) => cell.learn(row, ask, now, point),
                    None => self.state.admit(Cell::new(row.clone(), ask, now, point)),
                }
                true
            }
            Ok(_) => self.note_absent(repo, ask, Reason::Full { limit: self.config.most_repositories }),
            Err(_) if known.is_some() => {
                self.counters.bad_rows += 1;
                false
            }
            Err(reason) => self.note_absent(repo, ask, reason),
        }
    }

    fn note_absent(&mut self, repo: RepoId, ask: Ask, reason: Reason) -> bool {
        const MOST: usize = 1024;
        if self.state.absent.get(&repo).is_some_and(|(as_of, _)| *as_of >= ask) {
            return false;
        }
        if self.state.absent.len() >= MOST && !self.state.absent.contains_key(&repo) {
            self.state.absent.pop_first();
        }
        self.state.absent.insert(repo, (ask, reason));
        true
    }

    pub(crate) fn unreadable(&self, row: &Row) -> Option<Reason> {
        if row.state == RowState::Deleted {
            return Some(Reason::Deleted { at: row.newest.version });
        }
        if !self.is_recovered(row) {
            let (row, store) = (row.fence.generation, self.config.generation);
            return Some(Reason::NotRecovered { row, store });
        }
        matches!(row.state, RowState::Decided | RowState::Recovering).then_some(Reason::Recovering)
    }

    /// Whether the row is of the store's present life.
    pub(crate) fn is_recovered(&self, row: &Row) -> bool {
        row.fence.generation >= self.config.generation
    }

    /// Whether a write can be granted, or could be once answers that may come have come.
    pub(crate) fn writable(&self, cell: &Cell, writer: Option<NodeId>) -> Result<Tally, Reason> {
        if let Some(reason) = self.unreadable(&cell.row) {
            return Err(reason);
        }
        match cell.row.state {
            RowState::Moving { .. } => return Err(Reason::Moving),
            RowState::Pinned { node } if writer.is_some_and(|writer| writer != node) => {
                return Err(Reason::Pinned { node });
            }
            RowState::Live | RowState::Deleted | RowState::Decided | RowState::Recovering | RowState::Pinned { .. } => {
            }
        }
        let (tally, needed) = (self.tally_of(cell), self.config.quorum.write());
        if tally.able() < needed && tally.able() + self.answers_pending(cell) < needed {
            return Err(Reason::TooFewVoters { tally, needed });
        }
        let domains = u32::from(self.config.ack_domains);
        if domains > 1 {
            let able = |standing: &Standing| {
                let (verdict, health) = self.verdict(cell, standing);
                (verdict == Verdict::Current && health != Health::Down) || self.could_change(cell, standing)
            };
            let reach = self.domains(cell, able);
            if reach < domains {
                return Err(Reason::TooFewDomains { domains: reach, needed: domains });
            }
        }
        if let Some(node) = writer.filter(|node| !self.is_able(cell, *node) && !self.may_answer(cell, *node)) {
            return Err(Reason::WriterUnusable { node, tally });
        }
        Ok(tally)
    }

    /// Whether the voter `node` is at the newest state and not down.
    pub(crate) fn is_able(&self, cell: &Cell, node: NodeId) -> bool {
        cell.standings.iter().any(|standing| {
            let (verdict, health) = self.verdict(cell, standing);
            let able = verdict == Verdict::Current && health != Health::Down;
            able && standing.is_voter() && standing.member.node == node
        })
    }

    fn may_answer(&self, cell: &Cell, node: NodeId) -> bool {
        cell.standings
            .iter()
            .any(|standing| standing.is_voter() && standing.member.node == node && self.could_change(cell, standing))
    }

    /// Whether hearing from the member could change how it counts: it was never heard, or not since the row moved.
    fn could_change(&self, cell: &Cell, standing: &Standing) -> bool {
        let alive = self.state.nodes.alive(standing.member.node, standing.member.incarnation);
        if alive.is_none_or(|state| state.health == Health::Down) {
            return false;
        }
        match cell.verdict(standing) {
            Verdict::Unknown | Verdict::RowOld => true,
            Verdict::Lagging { .. } => standing.known.is_some_and(|known| known.seen <= cell.since),
            Verdict::Current | Verdict::Divergent { .. } | Verdict::Ahead { .. } => false,
        }
    }

    pub(crate) fn answers_pending(&self, cell: &Cell) -> u32 {
        let pending = cell.standings.iter().filter(|s| s.is_voter() && self.could_change(cell, s));
        u32::try_from(pending.count()).unwrap_or(u32::MAX)
    }

    /// Asks every member whose answer could matter for its report, each once at a time.
    pub(crate) fn probe(&mut self, repo: RepoId) {
        let Some(cell) = self.state.cells.get(&repo) else {
            return;
        };
        let ripe = |standing: &&Standing| standing.probing <= self.now && self.could_change(cell, standing);
        let asked: Vec<NodeId> = cell.standings.iter().filter(ripe).map(|standing| standing.member.node).collect();
        let until = self.now.after_millis(self.config.retry_ms);
        for node in asked {
            self.state.effects.push_back(Effect::Probe { node, repo });
            let cell = self.state.cells.get_mut(&repo);
            if let Some(s) = cell.and_then(|cell| cell.standings.iter_mut().find(|s| s.member.node == node)) {
                s.probing = until;
            }
        }
    }

    /// Asks every member that was not heard after `since` for its report, each once at a time.
    pub(crate) fn probe_all(&mut self, repo: RepoId, since: Ask) {
        let (now, until) = (self.now, self.now.after_millis(self.config.retry_ms));
        let Some(cell) = self.state.cells.get_mut(&repo) else { return };
        for standing in &mut cell.standings {
            let heard = standing.known.is_some_and(|known| known.seen > since);
            if !heard && standing.probing <= now {
                standing.probing = until;
                self.state.effects.push_back(Effect::Probe { node: standing.member.node, repo });
            }
        }
    }

    /// How a member counts, health as it is now.
    pub(crate) fn verdict(&self, cell: &Cell, standing: &Standing) -> (Verdict, Health) {
        self.state.nodes.verdict(cell, standing, self.now)
    }

    pub(crate) fn tally_of(&self, cell: &Cell) -> Tally {
        let mut tally = Tally::default();
        for standing in cell.standings.iter().filter(|standing| standing.is_voter()) {
            let (verdict, health) = self.verdict(cell, standing);
            tally.count(verdict, health);
        }
        tally
    }

    /// Shows the row to the gates of all members that can be reached.
    pub(crate) fn show_row(&mut self, repo: RepoId) {
        let Some(cell) = self.state.cells.get(&repo) else {
            return;
        };
        for &Member { node, incarnation, .. } in &cell.row.members {
            let alive = self.state.nodes.alive(node, incarnation);
            if alive.is_some_and(|state| state.health != Health::Down) {
                self.state.effects.push_back(Effect::RaiseGate { node, incarnation, row: cell.row.clone() });
            }
        }
    }

    /// The node that gets a grant: the one asked for, or any that is best.
    pub(crate) fn choose_writer(&mut self, repo: RepoId, wanted: Option<NodeId>) -> Option<Member> {
        let cell = self.state.cells.get(&repo)?;
        let pinned = if let RowState::Pinned { node } = cell.row.state { Some(node) } else { None };
        if let Some(node) = wanted.or(pinned) {
            return cell.row.member(node).copied().filter(|member| self.is_able(cell, member.node));
        }
        let tally = self.tally_of(cell);
        self.choose(repo, &tally, Wish::default())
    }
}
