//! Parcels: the objects of a push, in a folder of their own beside the repository's, until the push is decided.
//!
//! A parcel is indexed, checked and durable before anything is voted for. Nothing in it can be fetched. It becomes part of the
//! repository when the vote that needs it is proven, and goes with the push when that is refused. After a restart only the parcel
//! of the open vote is left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenon_refslog::ObjectId;
use tokio::sync::watch;

use crate::git::repository;
use crate::wire::ParcelId;

/// A parcel that nobody asked for in so long came with a push whose router is gone.
const LONGEST: Duration = Duration::from_mins(30);
/// Parcels that one repository holds at once: as many pushes are under way.
const MOST: usize = 256;

/// The parcels of one repository.
#[derive(Debug)]
pub(crate) struct Parcels {
    folder: PathBuf,
    known: Mutex<BTreeMap<ParcelId, Known>>,
}

#[derive(Debug)]
struct Known {
    since: Instant,
    stands: watch::Sender<Stands>,
    /// Its push was refused while it came in: it goes once it is here.
    unwanted: bool,
}

/// How far a parcel has come.
#[derive(Debug, Clone)]
enum Stands {
    Coming,
    /// Here, with all that these ids need, as the repository was after so many sweeps.
    Here(BTreeSet<ObjectId>, u64),
    Failed,
}

/// The right to fill a new parcel. Dropped without [`Arrival::complete`], the parcel has failed.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    parcels: &'a Parcels,
    id: ParcelId,
    done: bool,
}

impl Parcels {
    /// The parcels beside the objects of `repository`.
    pub(crate) fn of(repository: &Path) -> Parcels {
        Parcels { folder: repository.join("parcels"), known: Mutex::default() }
    }

    pub(crate) fn folder(&self, id: &ParcelId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    /// Removes all that a former life left, but the parcel of the open vote.
    pub(crate) fn clean(&self, vote: Option<&ParcelId>) -> io::Result<()> {
        let keep = vote.map(|id| self.folder(id));
        for entry in repository::list(&self.folder)? {
            if Some(&entry) != keep.as_ref() {
                repository::remove(&entry)?;
            }
        }
        Ok(())
    }

    /// Begins a parcel; `None` if there is one of this name already, or too many.
    pub(crate) fn begin(&self, id: &ParcelId) -> Option<Arrival<'_>> {
        let mut known = self.known();
        if known.contains_key(id) || known.len() >= MOST {
            return None;
        }
        let fresh = Known { since: Instant::now(), stands: watch::Sender::new(Stands::Coming), unwanted: false };
        known.insert(id.clone(), fresh);
        Some(Arrival { parcels: self, id: id.clone(), done: false })
    }

    /// Waits for a parcel that is coming in, until it is here or has failed.
    pub(crate) async fn arrived(&self, id: &ParcelId) {
        let stands = self.known().get(id).map(|known| known.stands.subscribe());
        if let Some(mut stands) = stands {
            let _failed_if_gone = stands.wait_for(|stands| !matches!(stands, Stands::Coming)).await;
        }
    }

    /// Whether a parcel is here, with all that `ids` need, as far as `sweeps` sweeps go.
    pub(crate) fn vouches(&self, id: &ParcelId, ids: &[ObjectId], sweeps: u64) -> bool {
        let known = self.known();
        let Some(stands) = known.get(id).map(|known| known.stands.borrow()) else { return false };
        matches!(&*stands, Stands::Here(tips, at) if *at == sweeps && ids.iter().all(|id| tips.contains(id)))
    }

    /// Removes a parcel whose push is decided; one that is still coming in goes when it is here.
    pub(crate) fn remove(&self, id: &ParcelId) -> io::Result<()> {
        {
            let mut known = self.known();
            let coming = known.get_mut(id).filter(|known| matches!(*known.stands.borrow(), Stands::Coming));
            if let Some(coming) = coming {
                coming.unwanted = true;
                return Ok(());
            }
            known.remove(id);
        }
        repository::remove(&self.folder(id))
    }

    /// Removes parcels that nobody will ask for, but never the open vote's.
    pub(crate) fn expire(&self, vote: Option<&ParcelId>) -> io::Result<()> {
        let late = |known: &Known| known.since.elapsed() > LONGEST && !matches!(*known.stands.borrow(), Stands::Coming);
        let gone: Vec<ParcelId> = {
            let known = self.known();
            known.iter().filter(|(id, known)| Some(*id) != vote && late(known)).map(|(id, _)| id.clone()).collect()
        };
        gone.iter().try_for_each(|id| self.remove(id))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ParcelId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrival<'_> {
    /// The parcel is whole, checked and durable, as the repository was after `sweeps` sweeps.
    pub(crate) fn complete(mut self, tips: impl IntoIterator<Item = ObjectId>, sweeps: u64) -> io::Result<()> {
        self.done = true;
        let unwanted = {
            let known = self.parcels.known();
            let here = known.get(&self.id);
            if let Some(known) = here {
                known.stands.send_replace(Stands::Here(tips.into_iter().collect(), sweeps));
            }
            here.is_none_or(|known| known.unwanted)
        };
        if unwanted { self.parcels.remove(&self.id) } else { Ok(()) }
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(known) = self.parcels.known().remove(&self.id) {
            known.stands.send_replace(Stands::Failed);
        }
        let _tried_again_at_the_next_start = repository::remove(&self.parcels.folder(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: &str) -> ParcelId {
        ParcelId::try_from(digit.repeat(32)).unwrap()
    }

    fn object(digit: &str) -> ObjectId {
        ObjectId::from_hex(digit.repeat(40)).unwrap()
    }

    #[tokio::test]
    async fn a_parcel_vouches_for_its_tips_until_it_is_removed_or_a_sweep_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let parcels = Parcels::of(dir.path());
        let arrival = parcels.begin(&id("a")).unwrap();
        assert!(parcels.begin(&id("a")).is_none(), "there is one of this name");
        std::fs::create_dir_all(parcels.folder(&id("a"))).unwrap();
        let (name, tip) = (id("a"), [object("1")]);
        assert!(!parcels.vouches(&name, &tip, 3));
        let ((), ()) = tokio::join!(parcels.arrived(&name), async {
            tokio::task::yield_now().await;
            arrival.complete([object("1")], 3).unwrap();
        });
        assert!(parcels.vouches(&name, &tip, 3), "it was waited for");
        assert!(!parcels.vouches(&name, &[object("2")], 3));
        assert!(!parcels.vouches(&name, &tip, 4), "a sweep may have taken what it leans on");
        parcels.remove(&name).unwrap();
        assert!(!parcels.vouches(&name, &tip, 3));
        assert!(!parcels.folder(&id("a")).exists());
    }

    #[tokio::test]
    async fn what_is_refused_while_it_comes_in_goes_when_it_is_here_and_what_breaks_off_goes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let parcels = Parcels::of(dir.path());
        for name in ["a", "b"] {
            let arrival = parcels.begin(&id(name)).unwrap();
            std::fs::create_dir_all(parcels.folder(&id(name))).unwrap();
            if name == "a" {
                parcels.remove(&id(name)).unwrap();
                assert!(parcels.folder(&id(name)).exists(), "it is being written");
                arrival.complete([object("1")], 0).unwrap();
            } else {
                drop(arrival);
            }
            assert!(!parcels.vouches(&id(name), &[object("1")], 0));
            assert!(!parcels.folder(&id(name)).exists(), "{name}");
        }
        std::fs::create_dir_all(parcels.folder(&id("c"))).unwrap();
        std::fs::create_dir_all(parcels.folder(&id("d"))).unwrap();
        parcels.clean(Some(&id("c"))).unwrap();
        assert!(parcels.folder(&id("c")).exists() && !parcels.folder(&id("d")).exists());
    }
}
