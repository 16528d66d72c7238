//! After the store came back from a backup: what is newest is found out from the nodes, for every repository.
//!
//! The store has forgotten what was committed after the backup; the gates of the nodes have not. Until a repository is
//! recovered, the core refuses to read or write it. Repositories that were made after the backup have no name any more:
//! they get one that says so.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tenon_quorum::{Member, RecoverRequest, RepoId, RowState};

use super::Host;
use super::driver::decode;
use super::http::Failure;
use super::log;

/// How many repositories are worked on at once.
const AT_ONCE: usize = 4;

/// What became of every repository.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recovered {
    /// By name, with the version that is newest.
    pub(crate) done: Vec<(String, u64)>,
    /// How many were of this life of the store already.
    pub(crate) unchanged: usize,
    /// By name, and why not.
    pub(crate) failed: Vec<(String, String)>,
}

/// Recovers every repository that the store or a node knows of. Asked again, it goes on where it was cut short.
pub(crate) async fn recover(host: &Host) -> Result<Recovered, Failure> {
    let up: Vec<Member> = {
        let up = host.driver.nodes.all().into_iter().filter(|(_, known)| known.is_up());
        up.map(|(node, known)| Member::voter(node, known.incarnation)).collect()
    };
    let mut names: BTreeMap<RepoId, Option<String>> = BTreeMap::new();
    for member in &up {
        let held = host.driver.nodes.repositories(member.node).await.map_err(Failure::unavailable)?;
        names.extend(held.into_iter().map(|repo| (repo, None)));
    }
    let known = host.driver.stored(|store| store.names()).await?;
    names.extend(known.into_iter().map(|(id, name)| (RepoId(id), Some(name))));
    let up = &up;
    let mut ended = futures_util::stream::iter(names)
        .map(|(repo, name)| async move {
            let shown = name.clone().unwrap_or_else(|| format!("recovered/{}", repo.0));
            (shown, one(host, repo, name, up).await)
        })
        .buffer_unordered(AT_ONCE);
    let mut all = Recovered::default();
    while let Some((name, end)) = ended.next().await {
        match end {
            Ok(Some(version)) => all.done.push((name, version)),
            Ok(None) => all.unchanged += 1,
            Err(why) => all.failed.push((name, why.message)),
        }
    }
    all.done.sort_unstable();
    Ok(all)
}

/// The newest version; `None` if there was nothing to do.
async fn one(host: &Host, repo: RepoId, name: Option<String>, up: &[Member]) -> Result<Option<u64>, Failure> {
    let stored = async || {
        let body = host.driver.stored(move |store| store.row(repo.0)).await?;
        Ok::<_, Failure>(body.and_then(|body| decode(repo, &body)))
    };
    let generation = host.driver.view(|core| core.router.config().generation());
    let open = |state| !matches!(state, RowState::Decided | RowState::Recovering);
    let done = stored().await?.is_some_and(|row| row.fence.generation >= generation && open(row.state));
    if !done {
        let request = RecoverRequest::new(repo).held_by(up.iter().copied());
        host.driver.change(|router, now| router.recover(now, &request)).await.map_err(Failure::unavailable)?;
    }
    let Some(row) = stored().await? else { return Ok(None) };
    if name.is_none() && row.state != RowState::Deleted {
        host.driver.stored(move |store| store.adopt(repo.0, &format!("recovered/{}", repo.0))).await?;
    }
    if !done {
        host.survey(repo).await?;
        let holders: BTreeSet<_> = host.applied(repo).into_iter().filter(|(_, v)| *v == row.newest.version.0).collect();
        let Some((source, _)) = holders.first() else { return Err(Failure::unavailable("nobody holds it yet")) };
        log::mend(&host.driver.store, &host.driver.nodes, &row, *source).await.map_err(Failure::unavailable)?;
    }
    Ok((!done).then_some(row.newest.version.0))
}
