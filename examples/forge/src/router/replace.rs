//! A node that lost its disk takes its own places again.
//!
//! A node is a name and a life of its disk. One that comes back empty under its old name is a stranger to every
//! repository: it counts in no quorum, and nothing is copied to it, until it is put in its own place: it learns, holds
//! the newest state, and only then is a voter again.

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tenon_quorum::{Member, NodeId, ReplaceRequest, RepoId};

use super::Host;
use super::http::Failure;

/// How many repositories are worked on at once.
const AT_ONCE: usize = 4;

/// What became of every repository that a node has a place in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Replaced {
    /// In how many it is a voter again.
    pub(crate) taken: usize,
    /// In how many it was one all along: its disk is the one they know.
    pub(crate) unchanged: usize,
    /// The others by name, and why not.
    pub(crate) failed: Vec<(String, String)>,
}

enum Place {
    Taken,
    Unchanged,
    Failed(String),
}

/// Puts `node`, in the life that it is in now, in its own place of every repository.
pub(crate) async fn replace(host: &Host, node: NodeId) -> Result<Replaced, Failure> {
    let known = host.driver.nodes.known(node).filter(super::nodes::Known::is_up);
    let Some(known) = known else {
        return Err(Failure::unavailable(format!("{node} is not up: start it first, with an empty folder")));
    };
    let comes = Member::voter(node, known.incarnation);
    let names = host.driver.stored(|store| store.names()).await?;
    let mut places = futures_util::stream::iter(names)
        .map(|(id, name)| async move { (name, replace_in(host, RepoId(id), comes).await) })
        .buffer_unordered(AT_ONCE);
    let mut done = Replaced { taken: 0, unchanged: 0, failed: Vec::new() };
    while let Some((name, place)) = places.next().await {
        match place {
            Place::Taken => done.taken += 1,
            Place::Unchanged => done.unchanged += 1,
            Place::Failed(why) => done.failed.push((name, why)),
        }
    }
    Ok(done)
}

async fn replace_in(host: &Host, repo: RepoId, comes: Member) -> Place {
    // The row as the store has it: the decision stands on who the members are now.
    if host.survey(repo).await.is_err() {
        return Place::Unchanged;
    }
    let row = host.driver.view(|core| core.router.row_of(repo));
    let member = row.as_ref().and_then(|row| row.member(comes.node));
    match member {
        None => return Place::Unchanged,
        Some(member) if member.incarnation == comes.incarnation => return Place::Unchanged,
        Some(_) => {}
    }
    let request = ReplaceRequest::new(repo, comes.node, comes);
    match host.driver.change(|router, now| router.replace(now, &request)).await {
        Ok(()) => Place::Taken,
        Err(why) => Place::Failed(why),
    }
}
