//! The face for many threads: repositories are striped, calls run beside each other, chance is the caller's.
#![cfg(feature = "shared")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and threads are what it is about"
)]

use tenon_quorum::*;

const NOW: Timestamp = Timestamp::from_millis(1);

/// A face that knows `count` repositories on three nodes, all well.
fn shared(count: u64) -> Shared {
    let shared = Shared::new(&Config::builder().seed(5).most_awake(2).build().unwrap(), 8);
    for node in (1..=3).map(NodeId) {
        shared.handle_node(NOW, node, NodeState::up(Incarnation(1)));
    }
    for repo in (0..count).map(RepoId) {
        let row = Row {
            repo,
            family: repo,
            shard: ShardId(1),
            revision: Revision(1),
            members: (1..=3).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect(),
            previous: Members::default(),
            newest: Stamp { epoch: Epoch(1), version: Version(0), digest: Digest([1; 16]) },
            born: Version(0),
            fence: Fence { generation: Generation(1), counter: 1 },
            lease: None,
            state: RowState::Live,
        };
        let ask = shared.begin_read(repo);
        shared.of(repo, |router| {
            router.handle_row(NOW, ask, &StoreMeta::new(Generation(1)), repo, Some(&row));
            for member in &row.members {
                let gate = FenceGate::new(repo, member.node, Incarnation(1)).raise(&row).unwrap();
                router.handle_report(NOW, None, &gate.install(&row.proof()).unwrap().report());
            }
        });
    }
    shared
}

fn read(shared: &Shared, repo: u64, request: u64) -> NodeId {
    let request = ReadRequest::linearizable(RepoId(repo), Ask(1))
        .freshness(Freshness::BoundedStale { age_ms: 1_000_000 })
        .request(RequestId(request));
    match shared.route_read(NOW, &request).unwrap() {
        ReadStep::Serve(route) => route.node,
        ReadStep::First(first) => panic!("{first:?}"),
    }
}

#[test]
fn threads_decide_alike_whatever_runs_beside_them() {
    let shared = shared(200);
    let alone: Vec<NodeId> = (0..200).map(|n| read(&shared, n, n * 7)).collect();
    assert!((1..=3).all(|node| alone.contains(&NodeId(node))));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let beside: Vec<NodeId> = (0..200).map(|n| read(&shared, n, n * 7)).collect();
                    assert_eq!(beside, alone);
                }
            });
        }
    });
}

#[test]
fn an_effect_names_the_stripe_to_tell() {
    let shared = shared(50);
    for repo in (0..50).map(RepoId) {
        shared.of(repo, |router| router.begin_write(NOW, &WriteRequest::new(repo, RequestId(repo.0)))).unwrap();
    }
    let mut granted = 0;
    while let Some((stripe, effect)) = shared.poll_effect() {
        if let Effect::SwapRow { ticket, next, .. } = &effect {
            assert_eq!(stripe, shared.stripe(next.repo));
            shared
                .with(stripe, |router| {
                    router.handle_swap(NOW, *ticket, &StoreMeta::new(Generation(1)), &SwapResult::Moved);
                })
                .unwrap();
        }
        if let Effect::Grant(grant) = effect {
            assert_eq!(stripe, shared.stripe(grant.base.repo));
            granted += 1;
        }
    }
    assert_eq!(granted, 50);
    assert!(shared.next_deadline().is_some());
}
