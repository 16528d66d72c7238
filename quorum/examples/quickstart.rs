//! Three replicas, one of them cut off: a write commits on two, a read finds it, the third is brought up to date.
#![allow(clippy::print_stdout, reason = "it shows what was decided, and why")]
use std::collections::BTreeMap;
use std::error::Error;

use tenon_quorum::{
    Config, CreateRequest, Digest, Effect, FenceGate, First, Generation, Incarnation, Member, Members, NodeId,
    NodeState, ReadRequest, ReadStep, RepoId, RequestId, Router, Row, ShardId, StoreMeta, SwapResult, SyncResult,
    Timestamp, WriteRequest,
};

const REPO: RepoId = RepoId(7);
const CUT_OFF: NodeId = NodeId(3);
const DISK: Incarnation = Incarnation(1);

/// What is yours: a table of your metadata store, and a durable record on every node.
struct Host {
    store: StoreMeta,
    row: Option<Row>,
    gates: BTreeMap<NodeId, FenceGate>,
}

impl Host {
    /// The store moves its row only from the row, and in the life, that the router decided on.
    fn swap(&mut self, life: Generation, expect: Option<&Row>, next: Row) -> SwapResult {
        if life != self.store.generation {
            return SwapResult::OtherStore;
        }
        if self.row.as_ref() != expect {
            return SwapResult::Conflict(self.row.clone());
        }
        println!("store:  the row moves to {}, {}", next.newest, next.fence);
        self.row = Some(next);
        SwapResult::Moved
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let now = Timestamp::from_millis(1);
    let mut host = Host { store: StoreMeta::new(Generation(1)), row: None, gates: BTreeMap::new() };
    let mut router = Router::new(Config::builder().build()?);
    for node in [NodeId(1), NodeId(2), NodeId(3)] {
        router.handle_node(now, node, NodeState::up(DISK));
        host.gates.insert(node, FenceGate::new(REPO, node, DISK));
    }
    let members: Members = host.gates.keys().map(|node| Member::voter(*node, DISK)).collect();
    router.create(now, &CreateRequest::new(REPO, ShardId(1), members, Digest([0; 16])))?;
    run(&mut router, &mut host, now)?;

    router.begin_write(now, &WriteRequest::new(REPO, RequestId(1)).through(NodeId(1)))?;
    run(&mut router, &mut host, now)?;

    let read = ReadRequest::linearizable(REPO, router.begin_read());
    let route = loop {
        match router.route_read(now, &read)? {
            ReadStep::Serve(route) => break route,
            ReadStep::First(First::FetchRow(ask)) => router.handle_row(now, ask, &host.store, REPO, host.row.as_ref()),
            ReadStep::First(First::Wait { .. }) => run(&mut router, &mut host, now)?,
        }
    };
    let served = host.gates[&route.node].serve(&route)?; // the node's gate has the last word; it is persisted, then:
    println!("read:   {} serves {}: {}", route.node, served.applied(), route.reason);
    host.gates.insert(route.node, served);
    run(&mut router, &mut host, now)
}

/// Does what the router says until it says nothing more. Each arm is a call over your network; several run at once.
fn run(router: &mut Router, host: &mut Host, now: Timestamp) -> Result<(), Box<dyn Error>> {
    while let Some(effect) = router.poll_effect() {
        match effect {
            Effect::SwapRow { ticket, store, expect, next, .. } => {
                let result = host.swap(store, expect.as_ref(), next);
                router.handle_swap(now, ticket, &host.store, &result);
            }
            Effect::Initialise { task, target, row, .. } | Effect::Sync { task, target, row, .. } => {
                println!("repair: {target} is brought to {}", row.newest);
                host.gates.insert(target, host.gates[&target].raise(&row)?); // persisted; then the copy is made; then:
                host.gates.insert(target, host.gates[&target].install(&row.proof())?); // persisted again
                router.handle_synced(now, task, &SyncResult::Done(host.gates[&target].report()));
            }
            Effect::Grant(grant) => {
                println!("grant:  {} may write under {}", grant.writer, grant.base.fence);
                for member in grant.base.members.iter().filter(|member| member.node != CUT_OFF) {
                    // The client's data is durable; the vote is persisted, then reported.
                    let voted = host.gates[&member.node].show(&grant.base)?.stage(&grant.stage(Digest([9; 16])))?;
                    host.gates.insert(member.node, voted);
                    router.handle_report(now, None, &host.gates[&member.node].report());
                }
            }
            Effect::RaiseGate { ask, node, row, .. } => {
                host.gates.insert(node, host.gates[&node].show(&row)?);
                router.handle_report(now, Some(ask), &host.gates[&node].report());
            }
            Effect::Probe { ask, node, .. } => router.handle_report(now, Some(ask), &host.gates[&node].report()),
            Effect::Answer { outcome, reason, .. } => println!("answer: {outcome}: {reason}"),
            Effect::Changed { result, .. } => println!("change: {result:?}"),
            Effect::FetchRow { .. } | Effect::FetchFeed { .. } => println!("only after a lost answer"),
            Effect::FetchFamily { .. } | Effect::Promise { .. } => println!("only in a move or a recovery"),
            Effect::Cure { .. } | Effect::LeaveNote { .. } => println!("only for old disks, and among routers"),
        }
    }
    Ok(())
}
