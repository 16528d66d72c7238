//! Recording: the inputs of a router as plain data, to be recorded, sent and replayed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::effect::Effect;
use crate::error::Refusal;
use crate::fence::{FenceGate, Report};
use crate::goal::{CreateRequest, ReplaceRequest};
use crate::id::{Ask, ChangeId, Fence, Incarnation, NodeId, RepoId, TaskId, Ticket, WriteId};
use crate::inspect::{Inspection, Round};
use crate::migrate::MigrateRequest;
use crate::node::{NodeState, Served};
use crate::read::{ReadRequest, ReadStep};
use crate::recover::RecoverRequest;
use crate::repair::SyncResult;
use crate::router::Router;
use crate::row::{FeedEntry, Row};
use crate::store::{StoreMeta, SwapResult};
use crate::time::Timestamp;
use crate::write::{GiveUp, WriteRequest};

/// An input to a router. Each variant stands for the method of its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the methods say what each part is")]
pub enum Input {
    /// [`Router::begin_read`]
    BeginRead,
    /// [`Router::route_read`]
    RouteRead(ReadRequest),
    /// [`Router::begin_write`]
    BeginWrite(WriteRequest),
    /// [`Router::abort_write`]
    AbortWrite { write: WriteId, claim: GiveUp },
    /// [`Router::create`]
    Create(CreateRequest),
    /// [`Router::delete`]
    Delete(RepoId),
    /// [`Router::replace`]
    Replace(ReplaceRequest),
    /// [`Router::migrate`]
    Migrate(MigrateRequest),
    /// [`Router::abort_migration`]
    AbortMigration(MigrateRequest),
    /// [`Router::accept_loss`]
    AcceptLoss { repo: RepoId, survivor: NodeId },
    /// [`Router::recover`]
    Recover(RecoverRequest),
    /// [`Router::cancel`]
    Cancel(ChangeId),
    /// [`Router::remove_learner`]
    RemoveLearner { repo: RepoId, node: NodeId },
    /// [`Router::lost`]
    Lost { node: NodeId, incarnation: Incarnation },
    /// [`Router::inspect`]
    Inspect { inspection: Inspection, budget: u32 },
    /// [`Router::reserve`]
    Reserve(u32),
    /// [`Router::poll_effect`]
    PollEffect,
    /// [`Router::handle_node`]
    Node { node: NodeId, state: NodeState },
    /// [`Router::handle_served`]
    Served { node: NodeId, served: Served },
    /// [`Router::handle_row`]
    Row { ask: Ask, store: StoreMeta, repo: RepoId, row: Option<Row> },
    /// [`Router::handle_feed`]
    Feed { ask: Ask, store: StoreMeta, repo: RepoId, entry: Option<FeedEntry> },
    /// [`Router::handle_family`]
    Family { ask: Ask, store: StoreMeta, family: RepoId, members: Vec<RepoId> },
    /// [`Router::handle_swap`]
    Swap { ticket: Ticket, store: StoreMeta, result: SwapResult },
    /// [`Router::handle_report`]
    Report { ask: Option<Ask>, report: Report },
    /// [`Router::handle_promise`]
    Promise(Box<FenceGate>),
    /// [`Router::handle_declined`]
    Declined { repo: RepoId, node: NodeId, fence: Fence },
    /// [`Router::handle_synced`]
    Synced { task: TaskId, result: SyncResult },
    /// [`Router::handle_timeout`]
    Timeout,
}

/// The output of an [`Input`]: the value that its method returns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "an output may be an order to the host"]
pub enum Output {
    /// No value.
    Done,
    /// The point where a read began.
    Began(Ask),
    /// The next step of a read.
    Read(Result<ReadStep, Refusal>),
    /// The id of the write, if it was accepted.
    Write(Result<WriteId, Refusal>),
    /// The id of the change, if it was accepted.
    Change(Result<ChangeId, Refusal>),
    /// The result of a round of inspection.
    Inspected(Round),
    /// The next effect, if there was one.
    Effect(Option<Box<Effect>>),
}

impl Router {
    /// Applies `input` to the router.
    ///
    /// The same inputs at the same times, from the same configuration, give the same outputs and the same router: keep
    /// them, and [`Router::digest`] says whether a replay went as the recording did.
    ///
    /// ```
    /// use tenon_quorum::{Config, Incarnation, Input, NodeId, NodeState, Router, Timestamp};
    ///
    /// let config = Config::builder().build()?;
    /// let (mut router, mut replay) = (Router::new(config.clone()), Router::new(config));
    /// let input = Input::Node { node: NodeId(1), state: NodeState::up(Incarnation(1)) };
    /// router.apply(Timestamp::from_millis(1), &input);
    /// replay.apply(Timestamp::from_millis(1), &input);
    /// assert_eq!(router.digest(), replay.digest());
    /// # Ok::<(), tenon_quorum::ConfigError>(())
    /// ```
    pub fn apply(&mut self, now: Timestamp, input: &Input) -> Output {
        match input {
            Input::BeginRead => Output::Began(self.begin_read()),
            Input::RouteRead(request) => Output::Read(self.route_read(now, request)),
            Input::BeginWrite(request) => Output::Write(self.begin_write(now, request)),
            Input::Create(request) => Output::Change(self.create(now, request)),
            Input::Delete(repo) => Output::Change(self.delete(now, *repo)),
            Input::Replace(request) => Output::Change(self.replace(now, request)),
            Input::Migrate(request) => Output::Change(self.migrate(now, request)),
            Input::AbortMigration(request) => Output::Change(self.abort_migration(now, request)),
            Input::AcceptLoss { repo, survivor } => Output::Change(self.accept_loss(now, *repo, *survivor)),
            Input::Recover(request) => Output::Change(self.recover(now, request)),
            Input::Cancel(change) => Output::Change(self.cancel(now, *change)),
            Input::RemoveLearner { repo, node } => Output::Change(self.remove_learner(now, *repo, *node)),
            Input::Inspect { inspection, budget } => Output::Inspected(self.inspect(now, *inspection, *budget)),
            Input::PollEffect => Output::Effect(self.poll_effect().map(Box::new)),
            fact @ (Input::AbortWrite { .. }
            | Input::Reserve(_)
            | Input::Node { .. }
            | Input::Served { .. }
            | Input::Row { .. }
            | Input::Feed { .. }
            | Input::Family { .. }
            | Input::Swap { .. }
            | Input::Report { .. }
            | Input::Lost { .. }
            | Input::Promise(_)
            | Input::Declined { .. }
            | Input::Synced { .. }
            | Input::Timeout) => {
                self.tell(now, fact);
                Output::Done
            }
        }
    }

    /// The inputs that return nothing.
    fn tell(&mut self, now: Timestamp, fact: &Input) {
        match fact {
            Input::AbortWrite { write, claim } => self.abort_write(now, *write, *claim),
            Input::Reserve(repositories) => self.reserve(*repositories),
            Input::Node { node, state } => self.handle_node(now, *node, *state),
            Input::Served { node, served } => self.handle_served(now, *node, *served),
            Input::Lost { node, incarnation } => self.lost(now, *node, *incarnation),
            Input::Row { ask, store, repo, row } => self.handle_row(now, *ask, store, *repo, row.as_ref()),
            Input::Feed { ask, store, repo, entry } => self.handle_feed(now, *ask, store, *repo, *entry),
            Input::Family { ask, store, family, members } => self.handle_family(now, *ask, store, *family, members),
            Input::Swap { ticket, store, result } => self.handle_swap(now, *ticket, store, result),
            Input::Report { ask, report } => self.handle_report(now, *ask, report),
            Input::Promise(gate) => self.handle_promise(now, gate),
            Input::Declined { repo, node, fence } => self.handle_declined(now, *repo, *node, *fence),
            Input::Synced { task, result } => self.handle_synced(now, *task, result),
            Input::Timeout => self.handle_timeout(now),
            Input::BeginRead
            | Input::RouteRead(_)
            | Input::BeginWrite(_)
            | Input::Create(_)
            | Input::Delete(_)
            | Input::Replace(_)
            | Input::Migrate(_)
            | Input::AbortMigration(_)
            | Input::AcceptLoss { .. }
            | Input::Recover(_)
            | Input::Cancel(_)
            | Input::RemoveLearner { .. }
            | Input::Inspect { .. }
            | Input::PollEffect => {}
        }
    }
}
