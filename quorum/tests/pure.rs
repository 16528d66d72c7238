//! The pure parts, on any input: quorum arithmetic, what a shard survives, and the gate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use proptest::prelude::*;
use tenon_quorum::*;

const REPO: RepoId = RepoId(7);

fn any_quorum() -> impl Strategy<Value = Quorum> {
    (1..=15_u8, 1..=15_u8, 1..=15_u8).prop_filter_map("a quorum that meets", |(n, r, w)| Quorum::new(n, r, w).ok())
}

/// Rows of one repository, as a store could have held them: each follows from the one before.
fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    proptest::collection::vec((0..3_u8, any::<u8>()), 1..12).prop_map(|steps| {
        let members: Members = (1..=3).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect();
        let mut row = Row {
            repo: REPO,
            family: REPO,
            shard: ShardId(1),
            revision: Revision(1),
            members,
            newest: Stamp { epoch: Epoch(1), version: Version(0), digest: Digest([0; 16]) },
            born: Version(0),
            previous: Members::default(),
            lease: None,
            fence: Fence { generation: Generation(1), counter: 1 },
            state: RowState::Live,
        };
        let mut rows = vec![row.clone()];
        for (kind, digest) in steps {
            match kind {
                0 => row.newest = row.newest.next(Digest([digest; 16])),
                1 => row.fence = row.fence.raised(),
                _ => {
                    row.fence = row.fence.raised();
                    row.revision = Revision(row.revision.0 + 1);
                }
            }
            rows.push(row.clone());
        }
        rows
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any R voters meet any W, and any W meet any other W: counted, not argued.
    #[test]
    fn quorums_meet(quorum in any_quorum()) {
        let (n, r, w) = (quorum.voters(), quorum.read(), quorum.write());
        prop_assert!(r + w > n && 2 * w > n);
        prop_assert_eq!(quorum.blocking() + w, n + 1);
        prop_assert!(w >= quorum.blocking());
    }

    /// A chance is a chance, grows with that of a node, and is no better where nodes fail together.
    #[test]
    fn availability_is_a_chance(quorum in any_quorum(), p in 0.0..=1.0_f64, q in 0.0..=1.0_f64) {
        let (low, high) = (quorum.availability(p.min(q)), quorum.availability(p.max(q)));
        for chance in [low.reads, low.writes, high.reads, high.writes] {
            prop_assert!((-1e-9..=1.0 + 1e-9).contains(&chance), "{chance}");
        }
        prop_assert!(high.reads >= low.reads - 1e-9 && high.writes >= low.writes - 1e-9);
        let n = u8::try_from(quorum.voters()).unwrap();
        let apart = quorum.availability_by_domain(p, 1.0, &[n]);
        prop_assert!((apart.writes - quorum.availability(p).writes).abs() < 1e-9);
    }

    /// Whatever rows come in whatever order, a gate's fence, configuration and version never go back, and what it
    /// refuses leaves it as it was.
    #[test]
    fn a_gate_never_goes_back(rows in any_rows(), order in proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 1..40)) {
        let mut gate = FenceGate::new(REPO, NodeId(1), Incarnation(1));
        for (which, how) in order {
            let row = which.get(&rows);
            let next = match how {
                0 => gate.raise(row),
                1 => gate.show(row),
                _ => gate.raise(row).and_then(|raised| raised.install(&row.proof())),
            };
            if let Ok(next) = next {
                let (old, new) = (gate.report(), next.report());
                prop_assert!(new.fence >= old.fence && new.revision >= old.revision);
                prop_assert!(new.applied.version >= old.applied.version && new.serial >= old.serial);
                prop_assert!(gate.row().is_none_or(|old| next.row().unwrap().order() >= old.order()));
                gate = next;
            }
            let read = Route { node: NodeId(1), incarnation: Incarnation(1), proof: row.proof(), reason: Reason::Aborted };
            if gate.admit_read(&read) == Ok(Admission::Serve) {
                prop_assert!(gate.applied().version >= row.newest.version, "a stale read is admitted");
            }
        }
    }

    /// Of two choices the more loaded one is never taken, and one that failed too often is ailing wherever one looks.
    #[test]
    fn a_loaded_node_is_spared(seed in any::<u64>(), loaded in 1..=3_u32) {
        let config = Config::builder().seed(seed).balance(Balance::TwoChoices).eject_percent(50).build().unwrap();
        let (now, rows) = (Timestamp::from_millis(1_000), any_row());
        let mut router = Router::new(config);
        for node in 1..=3 {
            let load = if node == loaded { 100 } else { 1 };
            router.handle_node(now, NodeId(node), NodeState::up(Incarnation(1)).load(load));
        }
        let ask = router.begin_read();
        router.handle_row(now, ask, &StoreMeta::new(Generation(1)), REPO, Some(&rows));
        for member in &rows.members {
            let gate = FenceGate::new(REPO, member.node, Incarnation(1)).raise(&rows).unwrap();
            router.handle_report(now, None, &gate.install(&rows.proof()).unwrap().report());
        }
        let read = ReadRequest::linearizable(REPO, Ask(0)).freshness(Freshness::BoundedStale { age_ms: 1_000 });
        let mut to_loaded = 0;
        for _ in 0..300 {
            let Ok(ReadStep::Serve(route)) = router.route_read(now, &read) else { panic!("it is current") };
            to_loaded += u32::from(route.node == NodeId(loaded));
        }
        prop_assert!(to_loaded * 20 < 300, "{to_loaded} of 300 go to the loaded one");
        for _ in 0..5 {
            router.handle_served(now, NodeId(loaded), Served::Badly);
        }
        let told = router.explain(REPO).unwrap().members;
        let told: Vec<_> = told.iter().map(|member| (member.node, member.verdict, Some(member.health))).collect();
        let seen: Vec<_> = router.members(REPO).map(|(member, verdict, health)| (member.node, verdict, health)).collect();
        prop_assert_eq!(&told, &seen);
        prop_assert!(seen.contains(&(NodeId(loaded), Verdict::Current, Some(Health::Ailing))));
    }
}

fn any_row() -> Row {
    Row {
        repo: REPO,
        family: REPO,
        shard: ShardId(1),
        revision: Revision(1),
        members: (1..=3).map(|node| Member::voter(NodeId(node), Incarnation(1))).collect(),
        newest: Stamp { epoch: Epoch(1), version: Version(0), digest: Digest([0; 16]) },
        born: Version(0),
        previous: Members::default(),
        lease: None,
        fence: Fence { generation: Generation(1), counter: 1 },
        state: RowState::Live,
    }
}
