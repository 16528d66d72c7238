//! Sweeping: what no ref reaches goes, from one repository on this node.
//!
//! What is reachable is packed anew, fetches that were under way end by themselves, and then all older packs go. A write that is
//! open, or a parcel that came before, is never swept away: the one defers the sweep, the other is checked once more before it
//! is voted for.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenon_refslog::{ObjectId, Value};

use super::Shared;
use super::replica::{Replica, ReplicaError};
use crate::git::objects::{self, ObjectFolders};
use crate::git::repository;

/// How long fetches that were under way are waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swept {
    /// Of the repository's objects, before and after.
    pub(crate) bytes_before: u64,
    pub(crate) bytes: u64,
}

/// Sweeps out what neither a ref nor one of `keep` reaches. Of `keep`, what is not here is passed over.
///
/// # Errors
/// A write is open, or a fetch does not end; nothing is lost, and nothing is freed.
pub(super) async fn sweep(shared: &Shared, replica: &Replica, keep: &[ObjectId]) -> Result<Swept, ReplicaError> {
    let _alone_in_packing = replica.packing.lock().await;
    let first = roots(shared, replica, keep).await?;
    let bytes_before = bytes(&replica.folder)?;
    let old = packs(&replica.folder)?;
    let fresh = pack(shared, replica, &first, &BTreeSet::new()).await?;
    if tokio::time::timeout(PATIENCE, replica.fetches.those_before_now()).await.is_err() {
        return Err(ReplicaError::Refused(format!("a fetch runs for longer than {} s; ask again", PATIENCE.as_secs())));
    }
    let turn = replica.turn().await;
    let now = roots(shared, replica, keep).await?;
    let late = pack(shared, replica, &now, &first).await?;
    let alone = replica.sweeping.write().await;
    // Whatever came in before this is looked at once more before it is voted for.
    replica.sweeps.fetch_add(1, Ordering::SeqCst);
    let stays = |pack: &PathBuf| fresh.as_ref() == Some(pack) || late.as_ref() == Some(pack);
    for pack in old.iter().filter(|pack| !stays(pack)) {
        remove(pack)?;
    }
    repository::sync_objects(&replica.folder)?;
    drop((alone, turn));
    Ok(Swept { bytes_before, bytes: bytes(&replica.folder)? })
}

/// What everything that stays is reachable from.
async fn roots(shared: &Shared, replica: &Replica, keep: &[ObjectId]) -> Result<BTreeSet<ObjectId>, ReplicaError> {
    let state = replica.state().await;
    if state.gate.staged().is_some() {
        return Err(ReplicaError::Refused("a write is open; ask again after the next push".into()));
    }
    let refs: BTreeSet<ObjectId> = state.refs.iter().filter_map(|(_, value)| Value::id(&value)).collect();
    drop(state);
    let here = objects::kinds(&shared.git, &replica.folder, &ObjectFolders::default(), keep).await?;
    let whole: Vec<ObjectId> = here.into_keys().filter(|id| !refs.contains(id)).collect();
    let mut roots = refs;
    for id in whole {
        // An object may be here without what it needs, once an earlier sweep has passed it over.
        if objects::connected(&shared.git, &replica.folder, &ObjectFolders::default(), &[id]).await.is_ok() {
            roots.insert(id);
        }
    }
    Ok(roots)
}

/// Packs what is reachable from `roots` and not from `without`; the pack's file, if there was anything to pack.
async fn pack(
    shared: &Shared,
    replica: &Replica,
    roots: &BTreeSet<ObjectId>,
    without: &BTreeSet<ObjectId>,
) -> Result<Option<PathBuf>, ReplicaError> {
    if roots.is_subset(without) {
        return Ok(None);
    }
    let name = objects::repack(&shared.git, &replica.folder, roots, without).await?;
    Ok(name.map(|name| replica.folder.join(format!("objects/pack/pack-{name}.pack"))))
}

fn packs(repository: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = repository::list(&repository.join("objects/pack"))?;
    found.retain(|file| file.extension().is_some_and(|extension| extension == "pack"));
    Ok(found)
}

/// Removes a pack: its index first, for a pack is there as long as its index is.
fn remove(pack: &Path) -> io::Result<()> {
    for extension in ["idx", "rev", "bitmap", "mtimes", "pack"] {
        match std::fs::remove_file(pack.with_extension(extension)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn bytes(repository: &Path) -> io::Result<u64> {
    let mut folders = vec![repository.join("objects")];
    let mut sum = 0;
    while let Some(folder) = folders.pop() {
        for entry in repository::list(&folder)? {
            match std::fs::symlink_metadata(&entry) {
                Ok(found) if found.is_dir() => folders.push(entry),
                Ok(found) => sum += found.len(),
                // Moved or removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(sum)
}
