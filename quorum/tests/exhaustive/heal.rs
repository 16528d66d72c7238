//! From a state that faults can lead to: faults stop, an operator does what `explain` says, and a write is applied.

use tenon_quorum::*;

use crate::common::{Fact, REPO};
use crate::message::Message;
use crate::system::{Reply, System};

/// The name of the write that is to be applied.
const LAST: RequestId = RequestId(2);

/// Rounds of two seconds after which the repository must have taken a write: a lease, a hold, a recovery and a change of
/// members one after the other.
const ROUNDS: usize = 40;

pub fn is_live(mut system: System) -> bool {
    system.reading = None;
    let nodes = u32::try_from(system.nodes.len()).expect("few nodes");
    for node in (1..=nodes).map(NodeId) {
        if system.nodes[node.0 as usize - 1].up {
            let state = NodeState::up(system.nodes[node.0 as usize - 1].node.incarnation);
            system.tell_all(&Fact::Node(node, state));
        } else {
            system.restart(node);
        }
    }
    let (mut asked, last) = (None, system.routers.len() - 1);
    for round in 0..ROUNDS {
        settle(&mut system);
        if let Some(outcome) = asked.and_then(|write| system.outcome_of(write)) {
            if matches!(outcome, Outcome::Applied(_)) {
                return true;
            }
            asked = None;
        }
        if asked.is_none() {
            let now = system.now;
            let name = RequestId(LAST.0 + 1 + round as u64);
            let request = WriteRequest::new(REPO, name);
            asked = system.at(last, |router| router.begin_write(now, &request)).ok().map(|_| name);
            settle(&mut system);
        }
        for router in 0..system.routers.len() {
            system.pass(router, 2_000 / system.routers.len() as u64);
        }
        settle(&mut system);
        if round % 4 == 3 {
            operate(&mut system);
        }
    }
    let story = system.routers[last].1.get().explain(REPO);
    std::println!("no write in {ROUNDS} rounds: {:?}\n{story:#?}", system.row.get());
    false
}

/// Everything arrives.
fn settle(system: &mut System) {
    for _ in 0..5_000 {
        let Some(at) = system.net.iter().position(|parcel| !matches!(parcel.get().message, Message::Serve(..))) else {
            system.net.clear();
            return;
        };
        system.deliver(at, Reply::AtOnce);
    }
}

fn operate(system: &mut System) {
    let now = system.now;
    let last = system.routers.len() - 1;
    let _ = system.at(last, |router| router.inspect(now, Inspection::Full(None), 1));
    settle(system);
    let Some(story) = system.routers[last].1.get().explain(REPO) else { return };
    for Obstacle { remedy, .. } in story.obstacles {
        match remedy {
            Remedy::BringBack { node, incarnation }
                if system.nodes[node.0 as usize - 1].node.incarnation > incarnation =>
            {
                system.at(last, |router| router.lost(now, node, incarnation));
            }
            Remedy::Replace { leaves, comes } => {
                let node = if comes.is_some() { leaves } else { NodeId(4) };
                if let Some(server) = system.nodes.get(node.0 as usize - 1) {
                    let comes = Member::voter(node, server.node.incarnation);
                    let request = ReplaceRequest::new(REPO, leaves, comes);
                    let _ = system.at(last, |router| router.replace(now, &request));
                }
            }
            Remedy::Recover => {
                let _ = system.at(last, |router| router.recover(now, &RecoverRequest::new(REPO)));
            }
            Remedy::AcceptLoss { survivor } => {
                let _ = system.at(last, |router| router.accept_loss(now, REPO, survivor));
            }
            Remedy::BringBack { .. } | Remedy::Migrate { .. } | Remedy::Create | Remedy::Restart | Remedy::Wait => {}
            _ => panic!("not known to this world: {remedy:?}"),
        }
        settle(system);
    }
}
