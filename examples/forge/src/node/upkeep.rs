//! Upkeep: packs that have piled up are rolled together, loose refs are packed. One repository at a time.
//!
//! Every push leaves a pack. Nothing is ever pruned here: objects that no ref reaches may be those of an open vote.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tenon_quorum::RepoId;
use tokio::sync::Notify;

use super::Shared;
use super::replica::ReplicaError;
use crate::git::repository;

/// More packs than this are rolled together: reading slows down with their number.
const MOST_PACKS: usize = 20;
/// More loose refs than this are packed: each is a file to open for every listing.
const MOST_LOOSE_REFS: usize = 200;

/// Repositories that changed since they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    changed: Mutex<BTreeSet<RepoId>>,
    wake: Notify,
}

impl Upkeep {
    /// A repository has changed.
    pub(crate) fn note(&self, id: RepoId) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.wake.notify_one();
    }

    fn next(&self) -> Option<RepoId> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }
}

/// Looks after every repository that changed, for as long as the node runs.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        while let Some(id) = shared.upkeep.next() {
            if let Err(error) = tend(&shared, id).await {
                tracing::warn!(%id, %error, "upkeep did not succeed; tried again after the next change");
            }
        }
        shared.upkeep.wake.notified().await;
    }
}

async fn tend(shared: &Arc<Shared>, id: RepoId) -> Result<(), ReplicaError> {
    let replica = shared.replica(id).await?;
    let folder = &replica.folder;
    let state = replica.state().await;
    replica.parcels.expire(state.parcel())?;
    drop(state);
    if packs(folder)? > MOST_PACKS {
        let _alone_in_packing = replica.packing.lock().await;
        // Rolled up by size, without a look at what is reachable: nothing gets lost, and each object is copied rarely.
        shared.git.within(folder, "repack").args(["--geometric=2", "-d", "-l", "--quiet"]).run(&[]).await?;
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || repository::sync_objects(&folder)).await.map_err(io::Error::other)??;
        tracing::info!(%id, packs = packs(&replica.folder)?, "packs rolled together");
    }
    if has_loose_refs(folder)? {
        let _turn = replica.turn().await;
        let _alone = replica.refs_lock.write().await;
        shared.git.within(folder, "pack-refs").args(["--all", "--prune"]).run(&[]).await?;
    }
    Ok(())
}

fn packs(repository: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in repository::list(&repository.join("objects/pack"))? {
        count += usize::from(entry.extension().is_some_and(|extension| extension == "pack"));
    }
    Ok(count)
}

/// Whether there are more loose refs than should be.
fn has_loose_refs(repository: &Path) -> io::Result<bool> {
    let mut folders = vec![repository.join("refs")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in repository::list(&folder)? {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                count += 1;
            }
        }
        if count > MOST_LOOSE_REFS {
            return Ok(true);
        }
    }
    Ok(false)
}
