//! Instruction counts of the hot paths of `tenon-quorum`. A count does not depend on how busy the machine is, so the
//! limit beside each is a guard: what exceeds it has become slower, and the run fails.
#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::unwrap_used,
    reason = "a bench: its entry point is generated, and it fails by panicking"
)]

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use tenon_quorum::{
    Ask, Config, CreateRequest, Digest, Effect, FenceGate, First, Freshness, Generation, Incarnation, Member, Members,
    NodeId, NodeState, ReadRequest, ReadStep, RepoId, RequestId, Router, Row, ShardId, StoreMeta, SwapResult,
    SyncResult, Timestamp, WriteRequest,
};

fn limit(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

const REPO: RepoId = RepoId(7);
const NOW: Timestamp = Timestamp::from_millis(1);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// A host in memory that does what the router says at once.
struct Host {
    router: Router,
    row: Option<Row>,
    gates: [FenceGate; 3],
}

impl Host {
    fn new() -> Self {
        Self::with(Config::builder().build().unwrap())
    }

    fn with(config: Config) -> Self {
        let mut router = Router::new(config);
        let gates = NODES.map(|node| {
            router.handle_node(NOW, node, NodeState::up(Incarnation(1)));
            FenceGate::new(REPO, node, Incarnation(1))
        });
        let members: Members = NODES.iter().map(|node| Member::voter(*node, Incarnation(1))).collect();
        router.create(NOW, &CreateRequest::new(REPO, ShardId(1), members, Digest([0; 16]))).unwrap();
        let mut host = Self { router, row: None, gates };
        host.drain();
        host.write();
        host
    }

    /// The repository is at rest: there is room for one that is awake, and that is another.
    fn resting() -> Self {
        let mut host = Self::with(Config::builder().most_awake(1).build().unwrap());
        let ask = host.router.begin_read();
        let other = Row { repo: RepoId(8), ..host.row.clone().unwrap() };
        host.router.handle_row(NOW, ask, &StoreMeta::new(Generation(1)), other.repo, Some(&other));
        host.router.handle_timeout(NOW);
        assert_eq!(host.router.repositories(), (2, 1));
        let _ = host.decide();
        host
    }

    /// A read by the row that is held.
    fn decide(&mut self) -> ReadStep {
        let request = ReadRequest::linearizable(REPO, Ask(1)).freshness(Freshness::BoundedStale { age_ms: 10_000 });
        self.router.route_read(NOW, &request).unwrap()
    }

    fn gate(&mut self, node: NodeId) -> &mut FenceGate {
        let at = NODES.iter().position(|other| *other == node).unwrap();
        &mut self.gates[at]
    }

    /// One write from request to answer: grant, votes, commit, and the gates raised.
    fn write(&mut self) {
        self.router.begin_write(NOW, &WriteRequest::new(REPO, RequestId(1))).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.router.poll_effect() {
            match effect {
                Effect::SwapRow { ticket, next, .. } => {
                    self.row = Some(next);
                    self.router.handle_swap(NOW, ticket, &StoreMeta::new(Generation(1)), &SwapResult::Moved);
                }
                Effect::Initialise { task, target, row, .. } | Effect::Sync { task, target, row, .. } => {
                    let gate = self.gate(target);
                    *gate = gate.raise(&row).unwrap().install(&row.proof()).unwrap();
                    let report = gate.report();
                    self.router.handle_synced(NOW, task, &SyncResult::Done(report));
                }
                Effect::Grant(grant) => {
                    for member in &grant.base.members {
                        let gate = self.gate(member.node);
                        *gate = gate.stage(&grant.stage(Digest([9; 16]))).unwrap();
                        let report = gate.report();
                        self.router.handle_report(NOW, None, &report);
                    }
                }
                Effect::RaiseGate { node, row, .. } => {
                    let gate = self.gate(node);
                    let raised = gate.raise(&row).unwrap();
                    let proof = row.proof();
                    *gate = if raised.proves_staged(&proof) { raised.apply(&proof).unwrap() } else { raised };
                    let report = gate.report();
                    self.router.handle_report(NOW, None, &report);
                }
                Effect::Probe { node, .. } | Effect::Promise { node, .. } => {
                    let report = self.gate(node).report();
                    self.router.handle_report(NOW, None, &report);
                }
                Effect::FetchRow { ask, repo } => {
                    self.router.handle_row(NOW, ask, &StoreMeta::new(Generation(1)), repo, self.row.as_ref());
                }
                Effect::FetchFamily { .. }
                | Effect::Cure { .. }
                | Effect::LeaveNote { .. }
                | Effect::FetchFeed { .. }
                | Effect::Answer { .. }
                | Effect::Changed { .. } => {}
            }
        }
    }

    /// A read whose row is fetched, up to its route.
    fn read(&mut self) -> ReadStep {
        let request = ReadRequest::linearizable(REPO, self.router.begin_read());
        while let ReadStep::First(First::FetchRow(ask)) = self.router.route_read(NOW, &request).unwrap() {
            self.router.handle_row(NOW, ask, &StoreMeta::new(Generation(1)), REPO, self.row.as_ref());
        }
        self.router.route_read(NOW, &request).unwrap()
    }
}

#[library_benchmark(config = limit(LIMITS.read))]
#[bench::three_replicas(Host::new())]
fn read(mut host: Host) -> (Host, ReadStep) {
    let step = black_box(&mut host).read();
    (host, step)
}

#[library_benchmark(config = limit(LIMITS.decisions))]
#[bench::at_rest(Host::resting())]
fn hundred_decisions(mut host: Host) -> Host {
    for _ in 0..100 {
        let _ = black_box(black_box(&mut host).decide());
    }
    host
}

#[library_benchmark(config = limit(LIMITS.write))]
#[bench::three_replicas(Host::new())]
fn write(mut host: Host) -> Host {
    black_box(&mut host).write();
    host
}

/// The most instructions each may take: what was measured, and a twentieth.
struct Limits {
    read: u64,
    decisions: u64,
    write: u64,
}

const LIMITS: Limits = Limits { read: 6_750, decisions: 21_400, write: 21_600 };

library_benchmark_group!(name = hot, benchmarks = [read, hundred_decisions, write]);
main!(library_benchmark_groups = hot);
