//! Effects: what the host must do.

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
    /// In one transaction of the store: if the store is in the life `store` and the row is `expect` (`None`: absent),
    /// make it `next`, append `feed`, and remove the note beside the row if `clears_note`. Tell
    /// [`crate::Router::handle_swap`], with the life of the store and the note as they are after it.
    SwapRow {
        /// Names the swap.
        ticket: Ticket,
        /// The life of the store that it was decided in: another one answers [`crate::SwapResult::OtherStore`].
        store: Generation,
        /// The whole row that this was decided on. Comparing its fence and version is enough.
        expect: Option<Row>,
        /// The whole new row.
        next: Row,
        /// What to append to the feed of the repository.
        feed: Option<FeedEntry>,
        /// Whether the note beside the row goes.
        clears_note: bool,
    },
    /// Write beside the row that this router waits for the repository, in place of any other note: without comparing
    /// anything, and nothing is told. A note is advice; one that is lost costs a turn.
    LeaveNote {
        /// Of which repository.
        repo: RepoId,
        /// Who waits.
        router: RouterId,
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
        /// Names the question.
        ask: Ask,
        /// The node.
        node: NodeId,
        /// The life of its disk; another one must not answer.
        incarnation: Incarnation,
        /// The row to show.
        row: Row,
    },
    /// Ask a node for its report. Tell [`crate::Router::handle_report`].
    Probe {
        /// Names the question.
        ask: Ask,
        /// The node.
        node: NodeId,
        /// Of which repository.
        repo: RepoId,
    },
    /// Cure the gate of a disk that went back in time: [`crate::FenceGate::cure`], persist. Tell its report, whether the
    /// gate refused or not: [`crate::Router::handle_report`].
    Cure {
        /// Names the question.
        ask: Ask,
        /// The node.
        node: NodeId,
        /// The life of its disk; another one must not answer.
        incarnation: Incarnation,
        /// The row, whose fence was raised after the router found the disk to have gone back.
        row: Row,
        /// The start of the node that is meant.
        boot: Boot,
        /// The last serial that was heard of the gate.
        serial: u64,
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
        /// What the caller has seen now, if the write was applied: a later read with
        /// [`crate::Freshness::AtLeast`] this sees it.
        token: Option<Token>,
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
