//! Three replicas, one of them cut off: a write commits on two, a read finds it, the third is brought up to date.
#![allow(clippy::print_stdout, clippy::wildcard_imports, reason = "it shows what was decided, and why")]
use std::{collections::BTreeMap, error::Error};
use tenon_quorum::*;

fn main() -> Result<(), Box<dyn Error>> {
    let (repo, now, cut_off) = (RepoId(7), Timestamp::from_millis(1), NodeId(3));
    let mut router = Router::new(Config::builder().build()?);
    let store = StoreMeta::new(Generation(1)); // yours: what the store says of itself with each answer
    let (mut row, mut gates) = (None::<Row>, BTreeMap::new()); // yours: a table of the store; a record on every node
    for node in (1..=3).map(NodeId) {
        router.handle_node(now, node, NodeState::up(Incarnation(1)));
        gates.insert(node, FenceGate::new(repo, node, Incarnation(1)));
    }
    let members: Members = gates.keys().map(|node| Member::voter(*node, Incarnation(1))).collect();
    router.create(now, &CreateRequest::new(repo, ShardId(1), members, Digest([0; 16])))?;
    for round in ["create", "write", "read"] {
        if round == "write" {
            router.begin_write(now, &WriteRequest::new(repo, RequestId(1)).through(NodeId(1)))?;
        } else if round == "read" {
            let read = ReadRequest::linearizable(repo, router.begin_read());
            while let ReadStep::First(First::FetchRow(ask)) = router.route_read(now, &read)? {
                router.handle_row(now, ask, &store, repo, row.as_ref());
            }
            let ReadStep::Serve(route) = router.route_read(now, &read)? else { continue };
            println!("read:   {} serves {}: {}", route.node, route.proof.newest, route.reason);
        }
        while let Some(effect) = router.poll_effect() {
            match effect {
                Effect::SwapRow { ticket, next, .. } => {
                    println!("store:  the row moves to {}, {}", next.newest, next.fence);
                    row = Some(next); // nobody else writes it here; a real store compares first
                    router.handle_swap(now, ticket, &store, &SwapResult::Moved);
                }
                Effect::Initialise { task, target, row, .. } | Effect::Sync { task, target, row, .. } => {
                    println!("repair: {target} is brought to {}", row.newest);
                    let raised = gates[&target].raise(&row)?; // persist; then copy; then:
                    gates.insert(target, raised.install(&row.proof())?); // persist again
                    router.handle_synced(now, task, &SyncResult::Done(gates[&target].report()));
                }
                Effect::Grant(grant) => {
                    println!("grant:  {} may write under {}", grant.writer, grant.base.fence);
                    for member in grant.base.members.iter().filter(|member| member.node != cut_off) {
                        let staged = gates[&member.node].show(&grant.base)?.stage(&grant.stage(Digest([9; 16])))?;
                        router.handle_report(now, None, &staged.report());
                        gates.insert(member.node, staged);
                    }
                }
                Effect::RaiseGate { ask, node, row, .. } => {
                    gates.insert(node, gates[&node].show(&row)?);
                    router.handle_report(now, Some(ask), &gates[&node].report());
                }
                Effect::Probe { ask, node, .. } => router.handle_report(now, Some(ask), &gates[&node].report()),
                Effect::Answer { outcome, reason, .. } => println!("answer: {outcome}: {reason}"),
                Effect::Changed { result, .. } => println!("change: {result:?}"),
                Effect::FetchRow { .. } | Effect::FetchFeed { .. } => println!("only after a lost answer"),
                Effect::FetchFamily { .. } | Effect::Promise { .. } => println!("only in a move or a recovery"),
                Effect::Cure { .. } | Effect::LeaveNote { .. } => println!("only for old disks, and among routers"),
            }
        }
    }
    Ok(())
}
