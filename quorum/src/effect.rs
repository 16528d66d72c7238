//! Effects: what the host must do.

use crate::id::{Ask, ChangeId, Generation, Incarnation, NodeId, RepoId, RequestId, TaskId, Ticket, Version, WriteId};
use crate::reason::Reason;
use crate::row::{FeedEntry, Row};
use crate::write::{Grant, Outcome};

/// An order to the host, from [`crate::Router::poll_effect`].
///
/// Several may be carried out at once, in any order: what must wait for something is emitted after it. Each says what
/// to tell the router afterwards; where nothing can be told (the reply was lost), tell nothing: a time-out follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "an effect nobody carries out stalls the router until a time-out"]
pub enum Effect {
    /// In one transaction of the store: if the row is `expect` (`None`: absent), make it `next` and append `feed`.
    /// Tell [`crate::Router::handle_swap`].
    SwapRow {
        /// Names the swap.
        ticket: Ticket,
        /// The whole row that this was decided on. Comparing its fence and version is enough.
        expect: Option<Row>,
        /// The whole new row.
        next: Row,
        /// What to append to the feed of the repository.
        feed: Option<FeedEntry>,
    },
    /// Fetch the row from the store, now. Tell [`crate::Router::handle_row`].
    FetchRow {
        /// Names the fetch.
        ask: Ask,
        /// Of which repository.
        repo: RepoId,
    },
    /// Fetch one entry of the change feed. Tell [`crate::Router::handle_feed`].
    FetchFeed {
        /// Names the fetch.
        ask: Ask,
        /// Of which repository.
        repo: RepoId,
        /// Of which version.
        version: Version,
    },
    /// Fetch the ids of all rows of a fork family ([`Row::family`]), the root's too, now. Tell
    /// [`crate::Router::handle_family`].
    FetchFamily {
        /// Names the fetch.
        ask: Ask,
        /// Which family: its root's id.
        family: RepoId,
    },
    /// Hand the grant to its writer's node, which raises its gate to `base` and admits the client. Votes come in by
    /// [`crate::Router::handle_report`]; a node that cannot vote by [`crate::Router::handle_declined`]; a write that
    /// came to nothing by [`crate::Router::abort_write`].
    Grant(Grant),
    /// Show the row to a node's gate: it raises itself ([`crate::FenceGate::raise`]), drops a dead vote, applies a
    /// proven one ([`crate::FenceGate::apply`]). Tell its report, whether the gate refused or not:
    /// [`crate::Router::handle_report`].
    RaiseGate {
        /// The node.
        node: NodeId,
        /// The life of its disk; another one must not answer.
        incarnation: Incarnation,
        /// The row to show.
        row: Row,
    },
    /// Ask a node for its report. Tell [`crate::Router::handle_report`].
    Probe {
        /// The node.
        node: NodeId,
        /// Of which repository.
        repo: RepoId,
    },
    /// Have a node's gate promise itself to a life of the store: [`crate::FenceGate::promise`], persist, then tell the
    /// gate whole: [`crate::Router::handle_promise`]. A node that holds nothing promises with a new gate.
    Promise {
        /// The node.
        node: NodeId,
        /// The life of its disk; another one must not answer.
        incarnation: Incarnation,
        /// Of which repository.
        repo: RepoId,
        /// The life of the store.
        generation: Generation,
    },
    /// Start a repository on a node, empty, whatever the node held of it: raise the gate to the row, make the empty
    /// state durable, then [`crate::FenceGate::install`]. Where `row.newest.digest` is [`crate::Digest::TOMBSTONE`]
    /// the repository is deleted, and nothing but the gate need remain. Tell [`crate::Router::handle_synced`].
    Initialise {
        /// Names the task.
        task: TaskId,
        /// The node.
        target: NodeId,
        /// The life of its disk.
        incarnation: Incarnation,
        /// The row; `newest` is the empty state.
        row: Row,
    },
    /// Copy exactly the state that the row shows, applied state only, from one node to another: raise the target's
    /// gate to the row, copy, make it durable, then [`crate::FenceGate::install`].
    /// Tell [`crate::Router::handle_synced`].
    Sync {
        /// Names the task.
        task: TaskId,
        /// The node that is behind.
        target: NodeId,
        /// The life of its disk.
        incarnation: Incarnation,
        /// The node that has the state.
        source: NodeId,
        /// The row; `newest` is the state to copy.
        row: Row,
    },
    /// Answer the caller of a write. A write that was answered `Unknown` is answered once more when it is known.
    Answer {
        /// Which write.
        write: WriteId,
        /// The caller's name for it.
        request: RequestId,
        /// To which repository.
        repo: RepoId,
        /// How it ended.
        outcome: Outcome,
        /// Why.
        reason: Reason,
    },
    /// Answer the caller of a change (a creation, a removal, a change of members), once.
    Changed {
        /// Which change.
        change: ChangeId,
        /// Of which repository.
        repo: RepoId,
        /// `Ok` if the row shows it; else why not.
        result: Result<(), Reason>,
    },
}
