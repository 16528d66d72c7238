//! The router's public API: commands, effects, views and snapshots.

use alloc::vec::Vec;

use crate::commit::{Phase, Write};
use crate::config::Config;
use crate::effect::Effect;
use crate::error::{Refusal, RestoreError};
use crate::goal::{CreateRequest, Goal, ReplaceRequest};
use crate::id::{Ask, ChangeId, NodeId, RepoId, TaskId, WriteId};
use crate::migrate::{MigrateRequest, Migration, Way};
use crate::node::{Health, NodeState, Standing, Tally, Verdict};
use crate::reason::Reason;
use crate::recover::{RecoverRequest, Recovery};
use crate::row::{Member, Row};
use crate::snapshot::Snapshot;
use crate::state::{Cell, State};
use crate::time::Timestamp;
use crate::write::{GiveUp, WriteRequest, WriteView};

/// Counters of facts that changed nothing. Never part of a decision or a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counters {
    /// Facts about things that the router does not, or no longer, wait for, repeated facts included.
    pub stale_facts: u64,
    /// Facts that name things the router never asked for.
    pub unknown_facts: u64,
    /// Rows that break the rules of rows, or went backwards.
    pub bad_rows: u64,
    /// Reports that contradict an earlier one of the same serial number.
    pub contradictions: u64,
    /// Answers of a store in another life than the router's.
    pub foreign_answers: u64,
}

/// The router: decides, for many repositories, where reads and writes go and what is repaired.
///
/// Two routers are equal, and hash alike, if they decide alike: counters and the clock do not matter.
#[derive(Clone, Debug)]
pub struct Router {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) counters: Counters,
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
    /// An empty router. Rows, nodes and reports are told as they are needed.
    ///
    /// Before replacing a router in a running process, cancel the tasks that still carry out its effects, or drop their
    /// results: asks, tickets and ids restart with the new router, so an old result could be taken for a new one.
    ///
    /// ```
    /// use tenon_quorum::{Config, Router};
    ///
    /// let mut router = Router::new(Config::builder().build()?);
    /// assert_eq!(router.repositories(), (0, 0));
    /// assert_eq!(router.poll_effect(), None);
    /// # Ok::<(), tenon_quorum::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn new(config: Config) -> Self {
        let state = State::new(config.seed, config.generation);
        let counters =
            Counters { stale_facts: 0, unknown_facts: 0, bad_rows: 0, contradictions: 0, foreign_answers: 0 };
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
        self.outlived()?;
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
        self.state.wake(request.repo);
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
            noted: None,
            timer: Timestamp::MAX,
        }))
    }

    /// Gives a write up before its commit: the client went away, or its change was refused.
    ///
    /// Ends in an [`Effect::Answer`]. A write whose commit is on its way is not stopped; for an unknown write nothing
    /// changes.
    pub fn abort_write(&mut self, now: Timestamp, write: WriteId, claim: GiveUp) {
        self.lift(now);
        if self.state.writes.get(write).is_some() {
            self.give_up(write, claim);
        } else {
            self.counters.stale_facts += 1;
        }
    }

    /// Creates a repository: first its row, then its empty state on every member. Ends in an [`Effect::Changed`].
    ///
    /// ```
    /// use tenon_quorum::{Config, CreateRequest, Digest, Effect, Incarnation, Member, Members, NodeId};
    /// use tenon_quorum::{RepoId, Router, ShardId, Timestamp};
    ///
    /// let mut router = Router::new(Config::builder().build()?);
    /// let members: Members = (1..=3).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect();
    /// let request = CreateRequest::new(RepoId(7), ShardId(1), members, Digest([0; 16]));
    /// router.create(Timestamp::from_millis(1), &request)?;
    /// assert!(matches!(router.poll_effect(), Some(Effect::FetchRow { repo: RepoId(7), .. } | Effect::SwapRow { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, or the members are not N voters, each node once.
    pub fn create(&mut self, now: Timestamp, request: &CreateRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.outlived()?;
        if self.state.known() >= self.config.most_repositories as usize {
            return Err(Reason::Full { limit: self.config.most_repositories }.into());
        }
        if !request.is_sound(self.config.quorum) {
            return Err(Reason::BadCommand { repo: request.repo }.into());
        }
        if let Some(parent) = request.parent.filter(|parent| self.family_for(*parent, request).is_none()) {
            return Err(Reason::FamilySplit { parent }.into());
        }
        self.begin_change(request.repo, Goal::Create(request.clone()))
    }

    /// Deletes a repository. Ends in an [`Effect::Changed`].
    ///
    /// Its row becomes a tombstone with a version of its own, and its members are emptied ([`Effect::Initialise`]).
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached.
    pub fn delete(&mut self, now: Timestamp, repo: RepoId) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.begin_change(repo, Goal::Delete(repo))
    }

    /// Replaces one voter by another node, or by itself after its disk was lost. Ends in an [`Effect::Changed`].
    ///
    /// The newcomer learns, applies the newest state, then takes the seat in one step.
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached.
    pub fn replace(&mut self, now: Timestamp, request: &ReplaceRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.begin_change(request.repo, Goal::Replace(*request, None))
    }

    /// Accepts the loss of every state that `survivor` does not hold. Ends in an [`Effect::Changed`].
    ///
    /// The state that `survivor` has applied becomes the newest, in a new lineage, and votes of the old one are dead.
    /// For an operator, on record.
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, no row is held, or `survivor` is no member of it.
    pub fn accept_loss(&mut self, now: Timestamp, repo: RepoId, survivor: NodeId) -> Result<ChangeId, Refusal> {
        self.lift(now);
        let row = self.row_of(repo).ok_or(Reason::NoSuchRepository { repo })?;
        let epoch = row.newest.epoch;
        row.member(survivor).ok_or(Reason::NotAMember { node: survivor })?;
        self.begin_change(repo, Goal::AcceptLoss(repo, survivor, epoch))
    }

    /// Moves a fork family to another shard. It can be read throughout, but not written meanwhile.
    ///
    /// Each repository moves under a change of its own, each with its [`Effect::Changed`]; that of the root comes last.
    /// Ask again to resume a migration that was cut short. Once it ended, the old nodes' data of the family may be
    /// thrown away.
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, a granted write is under way, the members are not N
    /// voters, each node once, or the repository is a fork ([`Reason::NotTheRoot`] names the one to move).
    pub fn migrate(&mut self, now: Timestamp, request: &MigrateRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        self.start_migration(request, Way::There)
    }

    /// Takes a migration back, unless the root has moved already: then it goes on, and this ends in [`Reason::Moving`].
    ///
    /// A migration under way in this router ends in [`Reason::Aborted`].
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
        // A family never changes, so that an old row will do.
        if let Some(root) = self.row_of(request.root).map(|row| row.family).filter(|root| *root != request.root) {
            return Err(Reason::NotTheRoot { root }.into());
        }
        if let Some(write) = self.granted_write(request.root) {
            return Err(Reason::Busy { write }.into());
        }
        if self.state.changes.len() >= self.config.most_changes as usize {
            return Err(Reason::Full { limit: self.config.most_changes }.into());
        }
        self.drop_migration(request.root, way);
        self.begin_change(request.root, Goal::Migrate(Migration::leading(request.clone(), way)))
    }

    /// Recovers a repository after the store came back from a backup, under a larger [`Config::generation`].
    ///
    /// Until then, reads, grants and changes of the repository are refused ([`Reason::NotRecovered`]). W members
    /// promise ([`Effect::Promise`]), the newest state that can have been committed becomes the row's, and once W
    /// members hold it the repository is open. Ends in an [`Effect::Changed`]. A recovery that cannot be decided says
    /// why ([`Reason::TooFewPromises`], [`Reason::NobodyHolds`], [`Reason::Undecided`]) and is for an operator to
    /// settle: bring members back and recover again, or [`Router::accept_loss`].
    ///
    /// # Errors
    /// [`Refusal`], with nothing changed: a limit is reached, or more holders are named than a repository has members.
    pub fn recover(&mut self, now: Timestamp, request: &RecoverRequest) -> Result<ChangeId, Refusal> {
        self.lift(now);
        if request.holders.len() > usize::from(self.config.most_members) {
            return Err(Reason::BadCommand { repo: request.repo }.into());
        }
        self.begin_change(request.repo, Goal::Recover(Recovery::new(request.clone())))
    }

    pub(crate) fn begin_change(&mut self, repo: RepoId, goal: Goal) -> Result<ChangeId, Refusal> {
        self.outlived()?;
        if self.state.changes.len() >= self.config.most_changes as usize {
            return Err(Reason::Full { limit: self.config.most_changes }.into());
        }
        self.state.wake(repo);
        Ok(self.start_change(repo, goal))
    }
}

/// Effects, views, snapshots.
impl Router {
    /// The next effect for the host, oldest first.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.state.effects.pop_front()
    }

    /// The latest time to call [`Router::handle_timeout`]; `None` while nothing waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.state.timers.first().map(|(due, _)| *due)
    }

    /// The newest row that the router was told of, by reference, for a repository that is held in full.
    ///
    /// [`Router::row_of`] also knows repositories at rest.
    #[must_use]
    pub fn row(&self, repo: RepoId) -> Option<&Row> {
        self.state.cells.get(&repo).map(|cell| &cell.row)
    }

    /// The newest row that the router was told of.
    #[must_use]
    pub fn row_of(&self, repo: RepoId) -> Option<Row> {
        self.state.cell(repo).map(|cell| cell.row.clone())
    }

    /// The number of repositories that are known, and the number of them at rest.
    #[must_use]
    pub fn repositories(&self) -> (usize, usize) {
        (self.state.known(), self.state.rest.len())
    }

    /// Reserves memory for this many repositories, so that adding them moves nothing.
    pub fn reserve(&mut self, repositories: u32) {
        self.state.rest.reserve(repositories.min(self.config.most_repositories) as usize);
    }

    /// Lists the members of the row, in its order, each with its replica state and health.
    ///
    /// Health is `None` if the node is in another life of its disk than the row's. A node that is ejected for failures
    /// is ailing, here and in [`Router::explain`].
    pub fn members(&self, repo: RepoId) -> impl Iterator<Item = (Member, Verdict, Option<Health>)> {
        let cell = self.state.cell(repo);
        let stand = |cell: &Cell| -> Vec<_> {
            let of = |standing: &Standing| {
                let member = standing.member;
                (member, self.verdict(cell, standing).0, self.state.nodes.health(&member, self.now))
            };
            cell.standings.iter().map(of).collect()
        };
        cell.map(|cell| stand(&cell)).unwrap_or_default().into_iter()
    }

    /// The number of voters in each state.
    #[must_use]
    pub fn tally(&self, repo: RepoId) -> Option<Tally> {
        self.state.cell(repo).map(|cell| self.tally_of(&cell))
    }

    /// The view of a write; `None` once its outcome is known.
    #[must_use]
    pub fn write(&self, write: WriteId) -> Option<WriteView> {
        self.state.writes.get(write).map(|write| write.view(self))
    }

    /// Lists the copies under way or waiting: task, repository, target.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, RepoId, NodeId)> {
        self.state.tasks.iter().map(|(id, task)| (*id, task.repo, task.target))
    }

    /// The state of a node, as last told.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<NodeState> {
        self.state.nodes.get(node).map(|entry| entry.state)
    }

    /// Counters of facts that changed nothing.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// A snapshot: all state that decides, as plain data.
    ///
    /// A router needs none of it to be safe: the truth is in rows and gates.
    ///
    /// ```
    /// use tenon_quorum::{Config, Incarnation, NodeId, NodeState, Router, Timestamp};
    ///
    /// let config = Config::builder().build()?;
    /// let mut router = Router::new(config.clone());
    /// router.handle_node(Timestamp::from_millis(1), NodeId(1), NodeState::up(Incarnation(1)));
    /// let copy = Router::restore(config, router.snapshot())?;
    /// assert_eq!(copy.digest(), router.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.state)
    }

    /// Restores the router that `snapshot` was taken of, under `config`.
    ///
    /// # Errors
    /// [`RestoreError`]: the snapshot is of another format, too large for the configuration, or contradicts itself.
    pub fn restore(config: Config, snapshot: Snapshot) -> Result<Self, RestoreError> {
        let state = snapshot.checked(&config)?;
        let mut router = Self::new(config);
        let life = router.config.generation;
        router.state = State { life, store: state.store.max(life), ..state };
        Ok(router)
    }
}
