//! Decides which replica of a repository serves a read or takes a write, and what is repaired.
//!
//! `tenon-quorum` is the router of a replicated, sharded platform as a plain value: no socket, file, thread, clock or
//! hidden randomness is in it. It knows repositories by number, nodes, versions and digests; it does *not* know what a
//! repository holds, does not move bytes, does not store anything, and does not elect a leader. Your server asks it,
//! does what it says, and tells it what happened.
//!
//! # Where truth lives
//!
//! * **One row per repository** ([`Row`]) in *your* metadata store, changed only by compare-and-set of the whole row.
//!   A write is committed when that row moved, and only then. Beside it a change feed ([`FeedEntry`]).
//! * **One gate per repository on every node** ([`FenceGate`]), persisted by *your* node server, asked before every
//!   read, vote and copy.
//!
//! The router itself may be lost at any time, and several may share one store: what they know is a cache that the row
//! and the gates correct.
//!
//! # The loop
//!
//! ```text
//!             begin_read, route_read, begin_write, abort_write,               (ask)
//!             create, delete, replace, remove_learner, migrate, cancel,
//!             accept_loss, recover, lost, inspect
//!   host  ───────────────────────────────────────────────────────────►  Router
//!         ◄───────────────────────────────────────────────────────────
//!             poll_effect, to the store: SwapRow, FetchRow, FetchFeed,         (do)
//!                            FetchFamily, LeaveNote
//!                          to nodes: Grant, RaiseGate, Probe, Promise, Sync,
//!                            Initialise, Cure
//!                          to callers: Answer, Changed
//!         ───────────────────────────────────────────────────────────►
//!             handle_row, handle_feed, handle_family, handle_swap,            (tell)
//!             handle_report, handle_declined, handle_promise, handle_synced,
//!             handle_node, handle_served, handle_timeout
//! ```
//!
//! * **A write.** `begin_write` → `SwapRow` (raises the fence) → `Grant` to one node, which raises its gate and admits
//!   the client → the node has every member stage the write ([`Grant::stage`], [`FenceGate::stage`]) → each report
//!   that shows the staged record is a vote → W equal votes → `SwapRow` (moves `newest`, with its feed entry) →
//!   `Answer`, and `RaiseGate` to all members, which apply what they had staged. The client is answered on `Answer`,
//!   never before.
//! * **A write that fails** after its grant is closed first: the fence is raised in the row, then on N − W + 1 gates.
//!   Only then is it answered `NotApplied`. If the store's answer was lost, the row and the feed say what happened.
//! * **A read.** `begin_read` when the request arrives → `route_read`: fetch the row and ask again, or wait and ask
//!   again, or a [`Route`]. The node's gate checks the route; if it refuses, tell its report and ask again.
//! * **A node that is behind** is found by reads, reports and probes, and brought up by `Sync`.
//! * **The life of a repository**: `create` (a fork names its parent), `delete`, `replace` a member, `migrate` a fork
//!   family to another shard. Each ends in a `Changed`, and whatever was cut short is taken up by asking again.
//! * **What is under way** is seen by [`Router::changes`] and [`Router::write`]: since when, in which phase, and what it
//!   waits for, in numbers ([`WaitsFor`]); a change that runs out of time says the same ([`Reason::Deadline`]).
//!   [`Router::cancel`] ends a change. A replacement that fails lets go whom it had brought in; a learner that a lost
//!   router left behind is named by [`Router::explain`] and let go by [`Router::remove_learner`].
//! * **What is in the way.** [`Router::explain`] lists what keeps a repository from being written, with the command that
//!   removes it ([`Obstacle`]). [`Router::lost`] declares that a disk will never speak again.
//! * **Loss.** [`Router::findings`] says what is wrong with each replica, [`Router::inspect`] looks where no read
//!   looks; `replace` a node whose disk is gone by itself. What one voter holds alone is pinned to it, and an operator
//!   may end that: `accept_loss`.
//! * **A store that came back from a backup** gets a larger [`ConfigBuilder::generation`]. Then [`Router::recover`]
//!   every repository: its members' gates promise, and know what the store has forgotten.
//!
//! Here is the whole of it as a program, with a store, three nodes and their transport in memory:
//!
//! ```
//! use std::{collections::BTreeMap, error::Error};
//! use tenon_quorum::{
//!     Admission, Config, CreateRequest, Digest, Effect, FeedEntry, FenceGate, First, Generation, Incarnation,
//!     Member, Members, NodeId, NodeState, Outcome, ReadRequest, ReadStep, RepoId, RequestId, Router, Row, ShardId,
//!     StoreMeta, SwapResult, SyncResult, Timestamp, Version, WriteRequest,
//! };
//!
//! fn main() -> Result<(), Box<dyn Error>> {
//!     let (repo, now) = (RepoId(7), Timestamp::from_millis(1));
//!     let mut router = Router::new(Config::builder().seed(1).build()?);
//!     let mut store: BTreeMap<RepoId, Row> = BTreeMap::new(); // yours: a table
//!     let mut feed: Vec<FeedEntry> = Vec::new(); // yours: a table, written in the same transaction
//!     let life = StoreMeta::new(Generation(1)); // yours: a row of the store, read with each answer
//!     let mut gates: BTreeMap<NodeId, FenceGate> = BTreeMap::new(); // yours: one durable record per node and repository
//!     for node in (1..=3).map(NodeId) {
//!         router.handle_node(now, node, NodeState::up(Incarnation(1)));
//!         gates.insert(node, FenceGate::new(repo, node, Incarnation(1)));
//!     }
//!
//!     // Ask.
//!     let members: Members = gates.keys().map(|node| Member::voter(*node, Incarnation(1))).collect();
//!     router.create(now, &CreateRequest::new(repo, ShardId(1), members, Digest([0; 16])))?;
//!     let mut answer = None;
//!     let mut write = None;
//!     for _ in 0..2 {
//!         // Do, and tell.
//!         while let Some(effect) = router.poll_effect() {
//!             match effect {
//!                 Effect::SwapRow { ticket, store: of, expect, next, feed: entry, .. } => {
//!                     let found = store.get(&repo).cloned();
//!                     let result = if of != life.generation {
//!                         SwapResult::OtherStore
//!                     } else if found == expect {
//!                         store.insert(repo, next);
//!                         feed.extend(entry);
//!                         SwapResult::Moved
//!                     } else {
//!                         SwapResult::Conflict(found)
//!                     };
//!                     router.handle_swap(now, ticket, &life, &result);
//!                 }
//!                 Effect::FetchRow { ask, repo } => router.handle_row(now, ask, &life, repo, store.get(&repo)),
//!                 Effect::FetchFeed { ask, repo, version } => {
//!                     let entry = feed.iter().find(|entry| entry.version() == version).copied();
//!                     router.handle_feed(now, ask, &life, repo, entry);
//!                 }
//!                 Effect::Initialise { task, target, row, .. } | Effect::Sync { task, target, row, .. } => {
//!                     let raised = gates[&target].raise(&row)?; // persist, then copy, then:
//!                     gates.insert(target, raised.install(&row.proof())?); // persist
//!                     router.handle_synced(now, task, &SyncResult::Done(gates[&target].report()));
//!                 }
//!                 Effect::Grant(grant) => {
//!                     // On the writer's node: admit the client, run the write, ship it to every member; there:
//!                     let order = grant.stage(Digest([9; 16]));
//!                     for member in &grant.base.members {
//!                         let shown = gates[&member.node].show(&order.base)?; // it may prove the vote before; then keep the content
//!                         let staged = shown.stage(&order)?; // persist
//!                         router.handle_report(now, None, &staged.report());
//!                         gates.insert(member.node, staged);
//!                     }
//!                 }
//!                 Effect::RaiseGate { ask, node, row, .. } => {
//!                     let mut gate = gates[&node].raise(&row)?; // persist
//!                     if gate.proves_staged(&row.proof()) {
//!                         gate = gate.apply(&row.proof())?; // make the write visible, persist
//!                     }
//!                     router.handle_report(now, Some(ask), &gate.report());
//!                     gates.insert(node, gate);
//!                 }
//!                 Effect::Probe { ask, node, .. } => router.handle_report(now, Some(ask), &gates[&node].report()),
//!                 Effect::Cure { ask, node, row, boot, serial, .. } => {
//!                     let cured = gates[&node].cure(&row, boot, serial)?; // persist
//!                     router.handle_report(now, Some(ask), &cured.report());
//!                     gates.insert(node, cured);
//!                 }
//!                 Effect::LeaveNote { .. } => {} // a note beside the row: only where several routers share the store
//!                 Effect::FetchFamily { ask, family } => {
//!                     let of = |row: &&Row| row.family == family;
//!                     let all: Vec<RepoId> = store.values().filter(of).map(|row| row.repo).collect();
//!                     router.handle_family(now, ask, &life, family, &all);
//!                 }
//!                 Effect::Promise { node, generation, .. } => {
//!                     let promised = gates[&node].promise(generation)?; // persist
//!                     router.handle_promise(now, &promised);
//!                     gates.insert(node, promised);
//!                 }
//!                 Effect::Answer { outcome, .. } => answer = Some(outcome),
//!                 Effect::Changed { result, .. } => assert_eq!(result, Ok(())),
//!             }
//!         }
//!         if write.is_none() {
//!             write = Some(router.begin_write(now, &WriteRequest::new(repo, RequestId(1)))?);
//!         }
//!     }
//!     assert!(matches!(answer, Some(Outcome::Applied(stamp)) if stamp.version == Version(1)));
//!
//!     // A read that sees it.
//!     let read = ReadRequest::linearizable(repo, router.begin_read());
//!     let route = loop {
//!         match router.route_read(now, &read)? {
//!             ReadStep::Serve(route) => break route,
//!             ReadStep::First(First::FetchRow(ask)) => router.handle_row(now, ask, &life, repo, store.get(&repo)),
//!             ReadStep::First(First::Wait { .. }) => unreachable!("nothing is out"),
//!         }
//!     };
//!     assert_eq!(gates[&route.node].admit_read(&route), Ok(Admission::Serve));
//!     println!("{} serves {}: {}", route.node, route.proof.newest, route.reason);
//!     Ok(())
//! }
//! ```
//!
//! # What hosts ask
//!
//! * **In which order does a host start?** Open the store and read its life, build the router with that generation, tell
//!   every node that is registered ([`Router::handle_node`]), then tell the rows as they are needed, or all of them at
//!   once ([`Router::reserve`], [`Router::handle_row`]): tombstones too, so that a full [`Router::inspect`] finds nodes
//!   that missed a delete. A node opens its gates before its port, answers probes at once, and needs nothing from the
//!   router to start. Requests may come in as soon as the nodes are told.
//! * **May the coordinator send the orders to stage itself?** Yes. [`Grant::stage`] is data: any process that has the
//!   grant and the content may send it to every member. What counts is that the writer's node took the grant first (it
//!   raises its gate to `base`), and that each node makes content and gate durable before it reports.
//! * **In which order does a node stage?** [`FenceGate::show`] the order's base (it may prove the vote before), make the
//!   content durable, [`FenceGate::stage`], persist, report. Raising and voting is one persist.
//! * **In which order does a node take a copy?** Two persists, with the copy between them: [`FenceGate::raise`] to the
//!   row and persist; copy and make durable; [`FenceGate::install`] and persist. A node that copies first and raises
//!   afterwards is refused as stale by a fence that rose meanwhile, and has copied in vain.
//! * **What does the source of a copy serve when it has moved on?** What the row of the order shows, if it still can
//!   (contents by digest, a log by version); else it refuses, the host tells [`SyncResult::Failed`], and the copy is asked
//!   again with the newer row. Never a newer state under the older row, and never what is only staged.
//! * **How is a token made?** From what was served or answered: [`Token::of`] the proof that the caller saw.
//! * **When does a node call [`FenceGate::lost`]?** When it finds that it does not hold what its gate says: a check of the
//!   content fails at start, in a read or in an inspection. An empty disk is no such case: it has no gate, and a new life.
//! * **Must I write the glue myself?** No. [`ReadQueue`] is the loop around a read, with its waiters and its timer.
//!   [`Order`] and [`Reply`] are what goes between routers and nodes, and [`FenceGate::obey`] says what a node does for an
//!   order: which gate to persist, and what to do with the content in between.
//!
//! # How fast, and with which build
//!
//! A decision is some hundred nanoseconds of this crate's code inlined into yours, so two settings of your `Cargo.toml`
//! matter more than any of ours. `codegen-units = 1` for this crate lets the compiler see a write's whole path at once;
//! `lto = "fat"` lets it see yours with it.
//!
//! ```toml
//! [profile.release]
//! lto = "fat"
//!
//! [profile.release.package.tenon-quorum]
//! codegen-units = 1
//! ```
//!
//! Many reads that come at once are decided faster together: [`Router::route_many`].
//!
//! # What you must persist, and when
//!
//! | what | where | when |
//! |---|---|---|
//! | the row and its feed entry | the metadata store, one transaction, if the store is in the swap's life | on `SwapRow`, before telling `Moved` |
//! | the life of the store | the metadata store; read with each answer ([`StoreMeta`]) | when a backup takes the store's place: a larger one, before anything else |
//! | the last boot of each disk ([`BootRecord`]) | the metadata store | when a node starts, before it is answered |
//! | the boot that a node drew ([`Disk`]) | the node | before it says so, and before it admits anything |
//! | the gate that `promise` gives | the node | before it is told |
//! | the gate that `raise` gives | the node | before anything is admitted under it, or its report is sent |
//! | the gate that `stage` gives, with objects and ref record | the node | before the report (the vote) is sent |
//! | the gate that `apply` gives | the node | with or after making the write visible |
//! | the gate that `install` gives | the node | after the copy is durable |
//! | the gate that `cure` gives | the node | before its report is sent |
//! | the gate that `discard` gives | the node | before what it held is thrown away |
//! | the node's incarnation | the node, *on the same disk as the data* | at the disk's first use: a new disk draws a larger one, which names the store's life ([`Incarnation::drawn`]) |
//! | the note of a router that waits | the metadata store, beside the row | on `LeaveNote`; it may be lost |
//! | the router | nowhere | never: [`Router::snapshot`] is for hand-over and replay |
//!
//! The feature `testkit` brings a kit that tortures your store and your nodes, and the SQL of this table.
//!
//! # Safety
//!
//! * W counts *assigned* voters. A node of which nothing is known counts in nothing.
//! * A vote is durable, invisible, and not the node's version until the row proves it committed.
//! * The fence protects, not the clock: time ends leases and waits, and decides nothing else.
//! * Staleness is never widened. With every good node ailing, an ailing one that is *fresh* serves.
//!
//! # Limits
//!
//! * A recovery writes one entry of the feed, that of the newest state: between it and the backup's last one is a gap.
//!   A reader of the feed takes the state whole there, and a write that was under way, if its version lies in the gap,
//!   ends as [`Outcome::Unknown`] ([`Reason::FeedGap`]).
//! * A fork family moves behind its root. One whose root is deleted stays on its shard ([`Reason::Deleted`]); its members
//!   are still replaced, one at a time.
//! * [`Router::accept_loss`] says what is newest and makes no copies: while fewer than W voters hold that, the
//!   repository is pinned to the survivor again, until repair has made them. Turn a migration back, or end it, before
//!   that command: its learners stay learners.
//! * What the old nodes hold of a family that has moved is yours to throw away, and what a node holds of any repository
//!   whose row does not name it: ask its gate first ([`FenceGate::discard`]), so that no read that an old router sends finds
//!   nothing. The gates stay, for a store that comes back from an earlier backup.
//! * A write that was acknowledged can still be lost where W of its holders were lost or went back in time; or where the
//!   store was restored, a disk had gone back in time without being found out, and fewer than N gates promised. A deletion,
//!   or a change of members, outlives a restoration only if it was answered after N − W + 1 gates knew of it: a change of
//!   members is answered then, a deletion is answered at once.
//! * A virtual machine that is resumed *with its memory* draws no boot, and is not covered by what finds out disks that
//!   went back in time.
//!
//! # Several routers
//!
//! They share the store and the nodes, and nothing else: give each a number ([`ConfigBuilder::router`]) that it keeps
//! through restarts. A grant writes its holder and its lease into the row; other routers leave it alone for the lease
//! and two polls, each by its own clock from when it first saw that fence, then anyone raises the fence. A router that
//! waits leaves a note beside the row, and a router that commits while another's note stands lets that one go first. No
//! lease decides safety, so a wrong clock costs time at most. A router that restarts may forget everything: what it
//! knew is fetched and probed again; what operators declared [`Router::lost`] is to be declared again.
//!
//! # Disks that go back in time
//!
//! A copied folder, or a virtual machine's disk from a snapshot, is an older copy of a disk in the same life. It has
//! forgotten votes and promises. It is found out by its boot (the store knows the last one that it drew), by a serial below
//! what was heard, or by less than it had when the repository went to rest; it counts in nothing from then on, and one
//! thing cures it: a fence that was raised in the row after that, the gate raised to it, a copy, and then
//! [`Effect::Cure`]. The router does all of that by itself; [`Finding::Rewound`] and [`Router::explain`] show it.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

extern crate alloc;

mod advice;
mod assess;
mod balance;
mod ballot;
mod boot;
mod cancel;
mod change;
mod commit;
mod config;
mod cure;
mod effect;
mod error;
mod facts;
mod fence;
mod goal;
mod id;
mod inspect;
mod lease;
mod lock;
mod migrate;
mod node;
mod order;
mod placement;
mod quorum;
mod read;
mod read_queue;
mod reason;
mod record;
mod recover;
mod repair;
mod rest;
mod rng;
mod route;
mod route_many;
mod router;
mod row;
mod seats;
mod settle;
#[cfg(feature = "shared")]
mod shared;
mod snapshot;
mod state;
mod store;
mod table;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
mod waits;
mod work;
mod write;

pub use advice::{Obstacle, Remedy};
pub use balance::Balance;
pub use boot::{BootRecord, Disk, Start};
pub use cancel::{ChangeKind, ChangePhase, ChangeView};
pub use config::{Config, ConfigBuilder};
pub use effect::Effect;
pub use error::{ConfigError, GateRefusal, Refusal, RestoreError};
pub use fence::{Admission, FenceGate, Report, StageOrder, Staged};
pub use goal::{CreateRequest, ReplaceRequest};
pub use id::{
    Ask, Boot, ChangeId, Digest, DomainId, Epoch, Fence, Generation, Incarnation, NodeId, RepoId, RequestId, Revision,
    RouterId, ShardId, Stamp, TaskId, Ticket, Version, WriteId,
};
pub use inspect::{Explanation, Finding, Inspection, MemberExplained, Round};
pub use migrate::MigrateRequest;
pub use node::{Health, NodeState, Served, Tally, Verdict};
pub use order::{Act, Done, Duty, Order, Reply};
pub use placement::{PlacementError, Shard, Strictness, Survival, Survives, place, survival};
pub use quorum::{Availability, Quorum};
pub use read::{DuringWrite, First, Freshness, ReadRequest, ReadStep, Route, Token};
pub use read_queue::{PendingRead, ReadEvent, ReadQueue};
pub use reason::Reason;
pub use record::{Input, Output};
pub use recover::RecoverRequest;
pub use repair::SyncResult;
pub use router::{Counters, Router};
pub use row::{FeedEntry, Lease, Member, Members, Proof, Purpose, Role, Row, RowState};
#[cfg(feature = "shared")]
pub use shared::{Shared, Stripe};
pub use snapshot::Snapshot;
pub use store::{StoreMeta, SwapResult};
pub use time::Timestamp;
pub use waits::WaitsFor;
pub use write::{GiveUp, Grant, Outcome, WritePhase, WriteRequest, WriteView};
