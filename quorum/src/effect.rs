//! Effects: the orders that the host carries out.

use crate::id::{
    Ask, Boot, ChangeId, Generation, Incarnation, NodeId, RepoId, RequestId, RouterId, TaskId, Ticket, Version, WriteId,
};
use crate::read::Token;
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
    /// Swap the row in one transaction of the store. Tell [`crate::Router::handle_swap`].
    ///
    /// If the store is in the life `store` and the row is `expect` (`None`: absent), make it `next`, append `feed`, and
    /// remove the note beside the row if `clears_note`. Tell the life of the store and the note as they are afterwards.
    SwapRow {
        /// The id of the swap.
        ticket: Ticket,
        /// The life of the store that the swap was decided in. In another life, answer
        /// [`crate::SwapResult::OtherStore`].
        store: Generation,
        /// The whole row that the swap was decided on. Comparing its fence and version is enough.
        expect: Option<Row>,
        /// The whole new row.
        next: Row,
        /// The entry to append to the repository's feed, if any.
        feed: Option<FeedEntry>,
        /// Whether to remove the note beside the row.
        clears_note: bool,
    },
    /// Leave a note beside the row that this router waits for the repository. No answer is told.
    ///
    /// It overwrites any other note without a comparison. A note is advice; one that is lost costs a turn.
    LeaveNote {
        /// The repository that the router waits for.
        repo: RepoId,
        /// The router that waits.
        router: RouterId,
    },
    /// Fetch the row from the store, now. Tell [`crate::Router::handle_row`].
    FetchRow {
        /// The id of the fetch.
        ask: Ask,
        /// The repository whose row is fetched.
        repo: RepoId,
    },
    /// Fetch one entry of the change feed. Tell [`crate::Router::handle_feed`].
    FetchFeed {
        /// The id of the fetch.
        ask: Ask,
        /// The repository whose feed is read.
        repo: RepoId,
        /// The version of the entry.
        version: Version,
    },
    /// Fetch the ids of all rows of a fork family ([`Row::family`]), the root's too, now.
    ///
    /// Tell [`crate::Router::handle_family`].
    FetchFamily {
        /// The id of the fetch.
        ask: Ask,
        /// The id of the family's root.
        family: RepoId,
    },
    /// Hand the grant to its writer's node, which raises its gate to `base` and admits the client.
    ///
    /// Votes come in by [`crate::Router::handle_report`]; a node that cannot vote, by
    /// [`crate::Router::handle_declined`]; a write that failed before its commit, by [`crate::Router::abort_write`].
    Grant(Grant),
    /// Show the row to a node's gate. Tell its report, whether the gate refused or not:
    /// [`crate::Router::handle_report`].
    ///
    /// The gate raises itself ([`crate::FenceGate::raise`]), drops a dead vote and applies a proven one
    /// ([`crate::FenceGate::apply`]).
    RaiseGate {
        /// The id of the question.
        ask: Ask,
        /// The node.
        node: NodeId,
        /// The life of the node's disk. A node in another life must not answer.
        incarnation: Incarnation,
        /// The row to show.
        row: Row,
    },
    /// Ask a node for its report. Tell [`crate::Router::handle_report`].
    Probe {
        /// The id of the question.
        ask: Ask,
        /// The node.
        node: NodeId,
        /// The repository to report on.
        repo: RepoId,
    },
    /// Cure the gate of a disk that went back in time: [`crate::FenceGate::cure`], then persist.
    ///
    /// Tell its report, whether the gate refused or not: [`crate::Router::handle_report`].
    Cure {
        /// The id of the question.
        ask: Ask,
        /// The node.
        node: NodeId,
        /// The life of the node's disk. A node in another life must not answer.
        incarnation: Incarnation,
        /// The row, whose fence was raised after the router found the disk to have gone back.
        row: Row,
        /// The boot of the node that the cure is meant for.
        boot: Boot,
        /// The last serial heard of the gate.
        serial: u64,
    },
    /// Have a node's gate promise itself to a life of the store: [`crate::FenceGate::promise`], then persist.
    ///
    /// Then tell the whole gate: [`crate::Router::handle_promise`]. A node that holds nothing promises with a new gate.
    Promise {
        /// The node.
        node: NodeId,
        /// The life of the node's disk. A node in another life must not answer.
        incarnation: Incarnation,
        /// The repository whose gate promises.
        repo: RepoId,
        /// The life of the store to promise to.
        generation: Generation,
    },
    /// Start an empty repository on a node, whatever the node held of it. Tell [`crate::Router::handle_synced`].
    ///
    /// Raise the gate to the row, make the empty state durable, then [`crate::FenceGate::install`]. Where
    /// `row.newest.digest` is [`crate::Digest::TOMBSTONE`] the repository is deleted, and only the gate need remain.
    Initialise {
        /// The id of the task.
        task: TaskId,
        /// The node.
        target: NodeId,
        /// The life of the node's disk.
        incarnation: Incarnation,
        /// The row; `newest` is the empty state.
        row: Row,
    },
    /// Copy exactly the state that the row shows from one node to another. Tell [`crate::Router::handle_synced`].
    ///
    /// Only applied state is copied: raise the target's gate to the row, copy, make the copy durable, then
    /// [`crate::FenceGate::install`].
    Sync {
        /// The id of the task.
        task: TaskId,
        /// The node that is behind.
        target: NodeId,
        /// The life of the node's disk.
        incarnation: Incarnation,
        /// The node that has the state.
        source: NodeId,
        /// The row; `newest` is the state to copy.
        row: Row,
    },
    /// Answer the caller of a write.
    ///
    /// A write that was answered `Unknown` is answered once more when its outcome is known.
    Answer {
        /// The write.
        write: WriteId,
        /// The caller's id of the request.
        request: RequestId,
        /// The repository that was written.
        repo: RepoId,
        /// The outcome of the write.
        outcome: Outcome,
        /// The token for the caller, if the write was applied: a later read with [`crate::Freshness::AtLeast`] this
        /// sees the write.
        token: Option<Token>,
        /// The reason for the outcome.
        reason: Reason,
    },
    /// Answer the caller of a change (a creation, a removal, a change of members), once.
    Changed {
        /// The change.
        change: ChangeId,
        /// The repository that changed.
        repo: RepoId,
        /// `Ok` if the row shows the change; else the reason why not.
        result: Result<(), Reason>,
    },
}
