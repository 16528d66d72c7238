//! What a fetch may ask for: what the refs reach, and nothing else that happens to lie here.
//!
//! Git's own upload-pack serves, in the second version of its protocol, whatever it finds. So what is wanted is looked at before.
//! Tips of refs, which is nearly all, cost nothing; other commits a walk; single files, which a partial clone fetches when it
//! needs them, a list of all that is reachable, kept until the refs move.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tenon_quorum::Stamp;
use tenon_refslog::{ObjectId, Value};
use tokio::sync::watch;

use super::Shared;
use super::replica::{Replica, ReplicaError};
use crate::git::objects::{self, ObjectFolders};

/// All objects that the refs of one state reach, sorted.
type Reach = Arc<Vec<ObjectId>>;

/// The last list that was made.
#[derive(Debug, Default)]
pub(crate) struct Reached(Mutex<Option<(Stamp, Reach)>>);

/// The fetches that run, each by a number that grows.
#[derive(Debug)]
pub(crate) struct Fetches(watch::Sender<(u64, BTreeSet<u64>)>);

/// A fetch that runs; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Fetching(watch::Sender<(u64, BTreeSet<u64>)>, u64);

impl Default for Fetches {
    fn default() -> Self {
        Fetches(watch::Sender::new((0, BTreeSet::new())))
    }
}

impl Fetches {
    pub(crate) fn begin(&self) -> Fetching {
        let mut number = 0;
        self.0.send_modify(|(next, running)| {
            number = *next;
            *next += 1;
            running.insert(number);
        });
        Fetching(self.0.clone(), number)
    }

    /// Waits for the end of all that have begun.
    pub(crate) async fn those_before_now(&self) {
        let mut all = self.0.subscribe();
        let now = all.borrow_and_update().0;
        // The sender lives as long as this.
        let _ = all.wait_for(|(_, running)| running.first().is_none_or(|first| *first >= now)).await;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.send_modify(|(_, running)| {
            running.remove(&self.1);
        });
    }
}

/// The ids that a request of `upload-pack` wants.
fn wanted(request: &[u8]) -> BTreeSet<ObjectId> {
    let mut wanted = BTreeSet::new();
    let mut rest = request;
    while let Some((head, after)) = rest.split_at_checked(4) {
        let length = std::str::from_utf8(head).ok().and_then(|head| usize::from_str_radix(head, 16).ok());
        let Some(length) = length else { break };
        // A special packet is its length alone.
        let Some((line, next)) = after.split_at_checked(length.max(4) - 4) else { break };
        let id = line.strip_prefix(b"want ").and_then(|id| id.get(..40)).and_then(|id| ObjectId::from_hex(id).ok());
        wanted.extend(id);
        rest = next;
    }
    wanted
}

/// The first of the wanted objects that no ref reaches, nor one of `also`; `None` if all may be had.
pub(super) async fn out_of_reach(
    shared: &Shared,
    replica: &Replica,
    request: &[u8],
    also: &[ObjectId],
) -> Result<Option<ObjectId>, ReplicaError> {
    let mut open = wanted(request);
    let state = replica.state().await;
    let (stamp, refs) = (state.gate.applied(), state.refs.clone());
    drop(state);
    for id in refs.iter().filter_map(|(_, value)| Value::id(&value)).chain(also.iter().copied()) {
        open.remove(&id);
    }
    if open.is_empty() {
        return Ok(None);
    }
    let ids: Vec<ObjectId> = open.iter().copied().collect();
    let (git, folder) = (&shared.git, &replica.folder);
    let kinds = objects::kinds(git, folder, &ObjectFolders::default(), &ids).await?;
    if let Some(missing) = ids.iter().find(|id| !kinds.contains_key(id)) {
        return Ok(Some(*missing));
    }
    let commits: Vec<ObjectId> = ids.iter().copied().filter(|id| kinds[id] == "commit").collect();
    if commits.len() == ids.len() && objects::reachable(git, folder, &commits).await? {
        return Ok(None);
    }
    let reach = reach(shared, replica, stamp).await?;
    Ok(ids.into_iter().find(|id| reach.binary_search(id).is_err()))
}

/// Whether this is a commit that the refs reach.
pub(super) async fn is_reachable_commit(
    shared: &Shared,
    replica: &Replica,
    id: ObjectId,
) -> Result<bool, ReplicaError> {
    let (git, folder) = (&shared.git, &replica.folder);
    let kinds = objects::kinds(git, folder, &ObjectFolders::default(), &[id]).await?;
    Ok(kinds.get(&id).is_some_and(|kind| kind == "commit") && objects::reachable(git, folder, &[id]).await?)
}

async fn reach(shared: &Shared, replica: &Replica, at: Stamp) -> Result<Reach, ReplicaError> {
    let last = replica.reached.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((_, reach)) = last.filter(|(stamp, _)| *stamp == at) {
        return Ok(reach);
    }
    let mut all = objects::all_reachable(&shared.git, &replica.folder).await?;
    all.sort_unstable();
    let reach = Arc::new(all);
    *replica.reached.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, Arc::clone(&reach)));
    Ok(reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_are_found_in_both_versions_of_the_protocol() {
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let old = format!("0056want {one} multi_ack side-band-64k agent=git/2.47.0xx0032want {two}\n00000009done\n");
        let old =
            old.replacen("0056", &format!("{:04x}", 4 + 45 + " multi_ack side-band-64k agent=git/2.47.0xx".len()), 1);
        let new =
            format!("0011command=fetch0001000dofs-delta0032want {one}\n0032want {two}\n0032have {one}\n0009done\n0000");
        let both: BTreeSet<ObjectId> = [&one, &two].into_iter().map(|id| ObjectId::from_hex(id).unwrap()).collect();
        assert_eq!(wanted(old.as_bytes()), both);
        assert_eq!(wanted(new.as_bytes()), both);
        assert!(wanted(b"zzzz").is_empty() && wanted(b"ffffwant").is_empty() && wanted(b"").is_empty());
    }

    #[tokio::test]
    async fn a_sweep_waits_for_the_fetches_before_it_and_for_no_others() {
        let fetches = Fetches::default();
        fetches.those_before_now().await;
        let first = fetches.begin();
        let waits = fetches.those_before_now();
        let mut waits = std::pin::pin!(waits);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        let second = fetches.begin();
        drop(first);
        waits.await;
        drop(second);
        fetches.those_before_now().await;
    }
}
