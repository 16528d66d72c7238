//! Every order of events in small worlds: two writers, two reads one after the other, three nodes (and a learner), and a
//! fault of each kind, checked by `stateright` on the crate's own `Router` and `FenceGate`.
//!
//! A plain run looks at the nearest 130,000 states of each world, repeats counted, more than a million in all. `QUORUM_STATES=1000000 cargo test
//! --release -p tenon-quorum --test exhaustive -- --nocapture` looks at more (`.ci/deep` does). `QUORUM_WORLD` picks
//! worlds by a part of their names.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test fails by panicking, is told its size by the environment, and prints what it did"
)]

mod carry;
#[path = "../common/mod.rs"]
mod common;
mod heal;
mod history;
mod message;
mod model;
mod system;

use model::{Bounded, Budget, Start};
use stateright::{Checker, HasDiscoveries, Model, UniformChooser};

/// Worlds in which every order of events is looked at, nearest first.
fn worlds() -> Vec<Bounded> {
    let one = Budget { writes: 1, reads: 1, ..Budget::default() };
    let two = Budget { writes: 2, reads: 2, ..Budget::default() };
    let settled = |name, routers, budget| Bounded::new(name, routers, Start::Settled, budget);
    vec![
        settled("one writer, one read", 1, Budget { delays: 2, ..one }),
        settled("two writers, two reads", 2, two),
        settled("two writers, a delay", 2, Budget { delays: 1, reads: 1, ..two }),
        settled("a lost message", 1, Budget { losses: 1, pauses: 1, ..one }),
        settled("a lost commit reply", 1, Budget { lost_replies: 1, pauses: 1, ..one }),
        settled("a repeated message, a delay", 1, Budget { repeats: 1, delays: 1, ..one }),
        settled("a pause past the lease", 2, Budget { pauses: 1, reads: 1, ..two }),
        settled("a crash", 1, Budget { crashes: 1, pauses: 1, ..one }),
        settled("a lost disk", 1, Budget { disks: 1, swaps: 1, ..one }),
        settled("a disk that goes back in time", 1, Budget { rewinds: 1, pauses: 1, ..one }),
        settled("a disk that goes back in time, two routers", 2, Budget { rewinds: 1, ..two }),
        settled("a lost router", 2, Budget { routers: 1, pauses: 1, ..one }),
        settled("a write given up, a delay", 1, Budget { aborts: 1, delays: 1, ..one }),
        settled("a store from a backup", 1, Budget { restores: 1, pauses: 1, ..one }),
        settled("a swap of a member", 1, Budget { swaps: 1, ..one }),
        Bounded::new("a learner, two writers", 2, Start::Learner, two),
    ]
}

/// Too wide to look at every order: everything that may happen, once each.
fn one_of_each() -> Bounded {
    let budget = Budget {
        writes: 2,
        reads: 2,
        delays: 4,
        losses: 1,
        lost_replies: 1,
        repeats: 1,
        pauses: 2,
        crashes: 1,
        disks: 1,
        rewinds: 0,
        routers: 1,
        swaps: 2,
        aborts: 1,
        restores: 1,
    };
    Bounded::new("one of each, by chance", 2, Start::Learner, budget)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Checks what must never be; and what must be seen somewhere, if every state was looked at. How many states there were.
fn judge(checker: &impl Checker<Bounded>, whole: bool) -> usize {
    for property in checker.model().properties() {
        if property.expectation.discovery_is_failure() {
            checker.assert_no_discovery(property.name);
        } else if whole {
            checker.assert_any_discovery(property.name);
        }
    }
    let (name, states, deep) = (checker.model().name, checker.unique_state_count(), checker.max_depth());
    let all = if whole { ", all there are" } else { "" };
    println!("{name}: {states} states{all}, up to {deep} steps");
    states
}

#[test]
fn every_order_of_events() {
    let most = number("QUORUM_STATES", 130_000);
    let only = std::env::var("QUORUM_WORLD").unwrap_or_default();
    let mut total = 0;
    for world in worlds().into_iter().filter(|world| world.name.contains(&only)) {
        let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
        let checker = checker.target_state_count(most).spawn_bfs().join();
        total += judge(&checker, checker.state_count() < most);
    }
    println!("{total} states");
}

/// Small enough to be looked at whole each time: a read at one router, a write through another, one late raise of a gate.
#[test]
fn a_read_beside_another_routers_write() {
    let budget = Budget { writes: 1, reads: 1, delays: 1, ..Budget::default() };
    let world = Bounded::new("another router reads, a delay", 2, Start::Settled, budget);
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    judge(&checker, true);
}

#[test]
fn one_of_each_by_chance() {
    let (most, seed) = (number("QUORUM_STATES", 20_000), number("QUORUM_SEED", 1) as u64);
    let checker = one_of_each().checker().finish_when(HasDiscoveries::AnyFailures);
    let checker =
        checker.target_state_count(most).target_max_depth(1_000).spawn_simulation(seed, UniformChooser).join();
    judge(&checker, false);
}
