//! Tortures a host's own store, nodes and transport, and checks the crate's rules through them.
//!
//! A host implements [`Host`] over its metadata store and its node servers (with the codec of its transport in between)
//! and calls [`torture`] in a test, with a few hundred seeds. The kit keeps a repository and its fork there, drives two
//! routers over them, and treats the host as the world does: requests and replies are lost or come twice, swaps meet
//! rows that moved, processes die after they persisted and before they said so, or in the middle of it, and disks are
//! lost. Every second seed takes the store back to a backup, again and again, and has it recovered; every second pair
//! of seeds moves the family from shard to shard. So four seeds in a row are the least that tries everything.
//!
//! Beside each node the kit keeps what a node must hold by what it said; beside the store, rows, feeds and backup. What
//! the host says is held against that, and against what callers were answered: what was acknowledged is still there
//! after a recovery, what is of an earlier life of the store is refused once a gate has promised, and a family is found
//! on one shard.
//!
//! # What you must persist, and when
//!
//! The table on the crate's page says it; this is its SQL, as `SQLite` has it (`row` and `gate` in whatever encoding the
//! host likes). A node does each of its steps in one transaction, content and gate together.
//!
//! ```sql
//! -- the metadata store
//! CREATE TABLE store (id INTEGER PRIMARY KEY CHECK (id = 1), life INTEGER NOT NULL); -- larger after each restoration
//! CREATE TABLE rows (repo INTEGER PRIMARY KEY, family INTEGER, generation INTEGER, fence INTEGER, version INTEGER,
//!                    row BLOB NOT NULL, note INTEGER);
//! CREATE TABLE feed (repo INTEGER, version INTEGER, epoch INTEGER, digest BLOB, generation INTEGER, fence INTEGER,
//!                    PRIMARY KEY (repo, version));
//! CREATE TABLE boots (node INTEGER, incarnation INTEGER, record BLOB NOT NULL, PRIMARY KEY (node, incarnation));
//! -- swap, in one transaction; moved if and only if one row changed (`note` only if the swap clears it)
//! UPDATE rows SET generation = ?, fence = ?, version = ?, row = ?, note = NULL
//!  WHERE repo = ? AND generation = ? AND fence = ? AND version = ? AND (SELECT life FROM store) = ?;
//! INSERT INTO feed VALUES (?, ?, ?, ?, ?, ?);
//! -- every answer says `SELECT life FROM store` and the row's note, read in the same transaction
//! UPDATE rows SET note = ? WHERE repo = ?; -- a note: nothing is compared
//! -- the family of a root
//! SELECT repo FROM rows WHERE family = ?;
//! -- a node
//! CREATE TABLE node (id INTEGER PRIMARY KEY CHECK (id = 1), incarnation INTEGER NOT NULL, disk BLOB NOT NULL);
//! CREATE TABLE gates (repo INTEGER PRIMARY KEY, gate BLOB NOT NULL, staged BLOB, content BLOB);
//! ```
//!
//! `record` is the [`crate::BootRecord`] of a disk, `disk` the [`crate::Disk`] of a node: a node draws a boot at each
//! start, and each gate is told of it ([`FenceGate::started`]) when it is first taken from the disk.
//!
//! `gate` is the [`FenceGate`] whole, with the row that it keeps: after a restoration, that row is what is left to know
//! who the members were.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

#[cfg(doc)]
use crate::fence::FenceGate;
use crate::id::{Digest, Generation, Incarnation, NodeId, RepoId, RouterId, Version};
use crate::rng::mix;
use crate::row::{FeedEntry, Row};
use crate::store::{StoreMeta, SwapResult};

pub use crate::order::{Done, Order, Reply};

mod accounts;
mod act;
mod books;
mod run;
mod shadow;
mod weather;

/// The nodes that a host must have: two shards of three.
pub const NODES: [NodeId; 6] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(5), NodeId(6)];

/// The repositories that the kit makes: a root, and a fork of it.
pub const REPOS: [RepoId; 2] = [RepoId(1), RepoId(2)];

/// An answer of the store, with the store's own state from the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The life of the store, and the note beside the row.
    pub store: StoreMeta,
    /// The value that was read, or the result.
    pub found: T,
}

/// A swap that the store carries out.
#[derive(Clone, Copy, Debug)]
pub struct Swap<'a> {
    /// The life of the store that the swap is for.
    pub store: Generation,
    /// Whether to remove the note beside the row.
    pub clears_note: bool,
    /// The row that must be there.
    pub expect: Option<&'a Row>,
    /// The row that replaces it.
    pub next: &'a Row,
    /// The feed entry to append in the same transaction, if any.
    pub feed: Option<&'a FeedEntry>,
}

/// A host's store and nodes, each behind its own transport.
pub trait Host {
    /// The error of the host itself.
    type Error: Debug;

    /// The digest of the empty state of a repository.
    fn empty(&self, _repo: RepoId) -> Digest {
        Digest([0; 16])
    }

    /// The digest of the state after a write of `content` onto `base`.
    ///
    /// The same arguments must give the same digest. A host whose nodes check digests makes the content to be staged
    /// here, and looks it up by the digest.
    ///
    /// # Errors
    /// The host cannot make it.
    fn digest(&mut self, _base: &Row, content: &[u8]) -> Result<Digest, Self::Error> {
        let fold = |from: u64| content.iter().fold(from, |sum, byte| mix(sum ^ u64::from(*byte)));
        let mut digest = Digest([0; 16]);
        for (byte, of) in digest.0.iter_mut().zip([fold(1), fold(2)].into_iter().flat_map(u64::to_be_bytes)) {
            *byte = of;
        }
        Ok(digest)
    }

    /// Reads the whole row of a repository.
    ///
    /// # Errors
    /// The store failed.
    fn row(&mut self, repo: RepoId) -> Result<Answer<Option<Row>>, Self::Error>;

    /// Swaps the row and appends to the feed in one transaction, if the store's life and the row are as expected.
    ///
    /// Never answer [`SwapResult::Unknown`]: the kit loses replies itself.
    ///
    /// # Errors
    /// The store failed.
    fn swap(&mut self, swap: Swap<'_>) -> Result<Answer<SwapResult>, Self::Error>;

    /// Writes beside the row which router waits, in place of any other note.
    ///
    /// # Errors
    /// The store failed.
    fn note(&mut self, repo: RepoId, router: RouterId) -> Result<(), Self::Error>;

    /// Reads one entry of the feed.
    ///
    /// # Errors
    /// The store failed.
    fn feed(&mut self, repo: RepoId, version: Version) -> Result<Answer<Option<FeedEntry>>, Self::Error>;

    /// Reads the ids of all rows of a fork family, its root's too.
    ///
    /// # Errors
    /// The store failed.
    fn family(&mut self, family: RepoId) -> Result<Answer<Vec<RepoId>>, Self::Error>;

    /// Takes a backup of the store as it is now, in place of the one before.
    ///
    /// # Errors
    /// The store failed.
    fn back_up(&mut self) -> Result<(), Self::Error>;

    /// Restores the store from its last backup, in the life `generation`.
    ///
    /// Messages that are on their way to the store must not reach it in its earlier life.
    ///
    /// # Errors
    /// The store does not come up again.
    fn restore(&mut self, generation: Generation) -> Result<(), Self::Error>;

    /// Kills the store's process and starts it again.
    ///
    /// With `cut`, it dies while this swap is under way: all of the swap has happened, or nothing.
    ///
    /// # Errors
    /// The store does not come up again.
    fn crash_store(&mut self, cut: Option<Swap<'_>>) -> Result<(), Self::Error>;

    /// Sends an order to a node, and returns its reply once that is durable. A node in another life of its disk
    /// refuses.
    ///
    /// # Errors
    /// The node, or the way there, failed.
    fn order(&mut self, node: NodeId, life: Incarnation, order: &Order) -> Result<Reply, Self::Error>;

    /// Kills a node's process and starts it again: data that is not durable is gone.
    ///
    /// With `cut`, it dies while this order is under way.
    ///
    /// # Errors
    /// The node does not come up again.
    fn crash_node(&mut self, node: NodeId, cut: Option<(Incarnation, &Order)>) -> Result<(), Self::Error>;

    /// Copies a node's disk as it is now, in place of the copy before.
    ///
    /// # Errors
    /// The disk cannot be read.
    fn keep_disk(&mut self, node: NodeId) -> Result<(), Self::Error>;

    /// Kills a node's process, replaces its disk by the last copy of it, and starts it again.
    ///
    /// # Errors
    /// The node does not come up again.
    fn rewind_node(&mut self, node: NodeId) -> Result<(), Self::Error>;

    /// Replaces a node's disk by an empty one, and returns its new incarnation, larger than any before.
    ///
    /// # Errors
    /// The node does not come up again.
    fn lose_disk(&mut self, node: NodeId) -> Result<Incarnation, Self::Error>;
}

/// A rule that the host broke, with what is needed to reproduce it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// The step at which the fault showed.
    pub step: usize,
    /// A description of the fault.
    pub what: String,
}

/// The statistics of a run, so that a test can see that something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// The number of writes that were committed.
    pub commits: usize,
    /// The number of reads that were served.
    pub reads: usize,
    /// The number of orders that a gate refused.
    pub refusals: usize,
    /// The number of swaps that met another row.
    pub conflicts: usize,
    /// The number of requests and replies that were lost, and of requests that came twice.
    pub mishaps: usize,
    /// The number of processes that died.
    pub crashes: usize,
    /// The number of disks that were lost.
    pub disks: usize,
    /// The number of disks that went back in time.
    pub rewinds: usize,
    /// The number of gates that were cured after that.
    pub cures: usize,
    /// The number of times that the store came back from its backup.
    pub restores: usize,
    /// The number of repositories that were recovered after that.
    pub recoveries: usize,
    /// The number of repositories that moved to another shard.
    pub moves: usize,
}

/// Runs `steps` random steps through a new host, then stops all faults and checks that everything converges.
///
/// # Errors
/// The first rule that the host breaks.
pub fn torture<H: Host>(host: &mut H, seed: u64, steps: usize) -> Result<Ran, Violation> {
    let at = |step: usize| move |what| Violation { seed, step, what };
    let mut run = run::Run::new(host, seed).map_err(at(0))?;
    for step in 0..steps {
        run.step().map_err(at(step))?;
    }
    run.heal().map_err(at(steps))
}

fn failed(error: impl Debug) -> String {
    format!("the host failed: {error:?}")
}
