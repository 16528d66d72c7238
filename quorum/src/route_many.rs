//! Many reads at once: the memory of each is asked for before the first is decided.

use alloc::vec::Vec;
use core::hint::black_box;

use crate::error::Refusal;
use crate::read::{ReadRequest, ReadStep};
use crate::router::Router;
use crate::time::Timestamp;

/// The number of rows prefetched at once: about as many loads as one core keeps in flight.
const AHEAD: usize = 16;

/// Below this number of repositories at rest, rows are near enough that prefetching only costs.
const LARGE: usize = 100_000;

impl Router {
    /// Routes `requests` in order, as [`Router::route_read`] does one by one, and fills `steps` with the results.
    ///
    /// The decisions are those of single calls. From some 100 000 repositories on, the rows are prefetched 16 at a time
    /// before they are decided on, so that one wait for memory serves all of them.
    pub fn route_many(&mut self, now: Timestamp, requests: &[ReadRequest], steps: &mut Vec<Result<ReadStep, Refusal>>) {
        steps.reserve(requests.len());
        self.route_ahead(now, requests, steps, LARGE);
    }

    fn route_ahead(
        &mut self,
        now: Timestamp,
        requests: &[ReadRequest],
        steps: &mut Vec<Result<ReadStep, Refusal>>,
        large: usize,
    ) {
        let ahead = self.state.rest.len() >= large;
        for some in requests.chunks(AHEAD) {
            if ahead {
                black_box(some.iter().fold(0, |all, request| all ^ self.state.rest.touch(request.repo)));
            }
            steps.extend(some.iter().map(|request| self.route_read(now, request)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::id::{
        Ask, Digest, Epoch, Fence, Generation, Incarnation, NodeId, RepoId, Revision, ShardId, Stamp, Version,
    };
    use crate::node::NodeState;
    use crate::read::Freshness;
    use crate::row::{Member, Members, Row, RowState};

    #[test]
    fn many_at_once_are_decided_as_one_by_one() {
        let now = Timestamp::from_millis(1_000_000);
        let mut router = Router::new(Config::builder().build().expect("valid"));
        for node in 0..3 {
            router.handle_node(now, NodeId(node), NodeState::up(Incarnation(1)));
        }
        for repo in (0..100).map(RepoId) {
            let row = Row {
                repo,
                family: repo,
                shard: ShardId(1),
                revision: Revision(1),
                members: (0..3).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect(),
                newest: Stamp { epoch: Epoch(1), version: Version(0), digest: Digest([7; 16]) },
                born: Version(0),
                previous: Members::default(),
                lease: None,
                fence: Fence { generation: Generation(1), counter: 1 },
                state: RowState::Live,
            };
            assert!(router.state.rest.insert(&row, now));
        }
        // Some are not known, some need their rows fetched.
        let fresh = |repo: u64| if repo.is_multiple_of(7) { 0 } else { 1_000_000 };
        let read = |repo: u64| {
            let stale = Freshness::BoundedStale { age_ms: fresh(repo) };
            ReadRequest::linearizable(RepoId(repo), Ask(1)).freshness(stale)
        };
        let requests: Vec<ReadRequest> = (0..120).map(read).collect();
        let mut alone = router.clone();
        let wanted: Vec<_> = requests.iter().map(|request| alone.route_read(now, request)).collect();
        for large in [0, LARGE] {
            let (mut router, mut steps) = (router.clone(), Vec::new());
            router.route_ahead(now, &requests, &mut steps, large);
            assert_eq!(steps, wanted);
            assert_eq!(router, alone);
        }
    }
}
