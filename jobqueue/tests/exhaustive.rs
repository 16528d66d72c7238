//! Every order of events in small worlds, breadth first, by the model checker `stateright`.
//!
//! Two kinds of worlds: two task centres that each run the real [`Engine`](tenon_jobqueue::Engine) ([`engines`]), and
//! deciders and centres made of nothing but the row layer and its commit protocol ([`rows`]), whose states are small
//! enough to see very many of them.
//!
//! A plain run looks at some thousand states; `JOBQUEUE_STATES=100000 cargo test --release -p tenon-jobqueue --test
//! exhaustive -- --nocapture` at so many of each world.
#![allow(unreachable_pub, unused_must_use, dead_code, reason = "test modules use their part of what they share")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, is told its size by the environment, and prints what it did"
)]

mod common;
#[path = "exhaustive/engines.rs"]
mod engines;
#[path = "exhaustive/ledger.rs"]
mod ledger;
#[path = "exhaustive/message.rs"]
mod message;
#[path = "exhaustive/plan.rs"]
mod plan;
#[path = "exhaustive/rows.rs"]
mod rows;

use common::new_job;
use engines::{Budget, Checked, World};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, Model};
use tenon_jobqueue::{Key, NewJob, Outcome};

/// How many states of each world are looked at, and of how many one is followed to its end.
fn size() -> (usize, u64) {
    let told = std::env::var("JOBQUEUE_STATES").ok().and_then(|states| states.parse().ok());
    told.map_or((2_000, 16), |states| (states, 2))
}

/// Looks at one world; what may happen and did is noted in `seen`. How many different states there were.
fn explore<M>(name: &str, model: M, most: usize, seen: &mut BTreeSet<&'static str>) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Debug + Send + Sync + Clone + PartialEq,
    M::Action: Debug + Send + Sync + Clone + PartialEq,
{
    let expected: Vec<_> =
        model.properties().into_iter().map(|property| (property.name, property.expectation)).collect();
    let checker = model.checker().target_state_count(most).spawn_bfs().join();
    for (name_of, expectation) in expected {
        let found = checker.discovery(name_of);
        match (expectation, found) {
            (Expectation::Sometimes, Some(_)) => _ = seen.insert(name_of),
            (_, None) => {}
            (_, Some(path)) => {
                let steps = path.into_actions();
                let steps: Vec<String> = steps.iter().map(|step| checker.model().format_action(step)).collect();
                panic!("{name}: not so: {name_of}; after\n  {}", steps.join("\n  "));
            }
        }
    }
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let all = if checker.state_count() < most { ", all there are" } else { "" };
    println!("{name}: {states} states, {depth} deep{all}");
    states
}

fn keyed(id: u64) -> NewJob {
    let mut job = new_job(id, 1);
    job.spec.key = Some(Key::new(7));
    job
}

fn retried(id: u64, order: u32) -> NewJob {
    let mut job = new_job(id, order);
    (job.spec.policy.max_attempts, job.spec.policy.backoff_ms) = (2, 0);
    job
}

fn worlds() -> Vec<(&'static str, World, Budget)> {
    let (none, won) = (Budget::default(), Outcome::Succeeded);
    let fault = Budget { losses: 1, doubles: 1, ..none };
    let pulls = [1, 1];
    let one = [new_job(1, 1)];
    let stages = [new_job(1, 1), new_job(2, 1), new_job(3, 2)];
    vec![
        ("one job, two that pull", World::new(&one, 0, won), Budget { pulls, ..none }),
        ("a submission, a crash", World::unwritten(&stages), Budget { crashes: 1, losses: 1, ..none }),
        ("messages lost and doubled", World::new(&one, 0, won), Budget { pulls: [2, 1], ..fault }),
        ("a worker that pauses", World::new(&one, 0, won), Budget { pulls, ticks: 2, ..none }),
        ("two ends of one stage", World::new(&stages, 2, won), Budget { pulls, ..fault }),
        ("two ends, and a crash", World::new(&stages, 2, won), Budget { crashes: 1, losses: 1, ..none }),
        ("a job that runs is aborted", World::new(&stages, 1, won), Budget { aborts: 1, ticks: 1, ..fault }),
        ("a pipeline is aborted", World::new(&stages, 1, won), Budget { stops: 1, pulls: [0, 1], losses: 1, ..none }),
        (
            "a failure, and another attempt",
            World::new(&[retried(1, 1), new_job(2, 2)], 1, Outcome::Failed { code: 1 }),
            Budget { pulls, ticks: 1, doubles: 1, ..none },
        ),
        ("one key, two jobs", World::new(&[keyed(1), keyed(2)], 0, won), Budget { pulls, ticks: 1, losses: 1, ..none }),
        (
            "one of each",
            World::new(&stages, 0, won),
            Budget { pulls: [1, 1], losses: 1, doubles: 1, crashes: 1, ticks: 1, aborts: 1, stops: 1 },
        ),
    ]
}

fn row_worlds() -> Vec<(&'static str, rows::World, rows::Budget)> {
    let (none, won) = (rows::Budget::default(), Outcome::Succeeded);
    let stages = [new_job(1, 1), new_job(2, 2)];
    let pair = [new_job(1, 1), new_job(2, 1), new_job(3, 2)];
    let failed = Outcome::Failed { code: 1 };
    let world = rows::World::new;
    vec![
        ("rows: two stages", world(&stages, won), rows::Budget { pulls: 3, ..none }),
        ("rows: a pair, then one", world(&pair, won), rows::Budget { pulls: 3, doubles: 1, ..none }),
        ("rows: replies lost", world(&stages, won), rows::Budget { pulls: 3, losses: 2, doubles: 1, ..none }),
        ("rows: a worker that pauses", world(&stages, won), rows::Budget { pulls: 3, ticks: 2, doubles: 1, ..none }),
        ("rows: crashes", world(&pair, won), rows::Budget { pulls: 3, crashes: 2, ..none }),
        (
            "rows: a job aborted",
            world(&stages, won).begun(),
            rows::Budget { pulls: 2, aborts: 1, ticks: 1, losses: 1, ..none },
        ),
        ("rows: a pipeline aborted", world(&pair, won).begun(), rows::Budget { pulls: 2, stops: 1, losses: 1, ..none }),
        (
            "rows: attempts",
            world(&[retried(1, 1), new_job(2, 2)], failed),
            rows::Budget { pulls: 3, ticks: 1, losses: 1, ..none },
        ),
        (
            "rows: one of each",
            world(&stages, won),
            rows::Budget { pulls: 2, losses: 1, doubles: 1, crashes: 1, ticks: 1, aborts: 1, stops: 1 },
        ),
    ]
}

#[test]
fn two_centres_with_real_engines() {
    let (most, ends_of_one_in) = size();
    let (mut total, mut seen) = (0, BTreeSet::new());
    for (name, mut start, budget) in worlds() {
        start.budget = budget;
        total += explore(name, Checked { start, ends_of_one_in }, most, &mut seen);
    }
    tell("engines", total, most, &seen);
}

#[test]
fn two_deciders_and_two_centres_on_the_rows_alone() {
    let (most, ends_of_one_in) = size();
    let (mut total, mut seen) = (0, BTreeSet::new());
    for (name, mut start, budget) in row_worlds() {
        start.budget = budget;
        total += explore(name, rows::Checked { start, ends_of_one_in }, 5 * most, &mut seen);
    }
    tell("rows", total, most, &seen);
}

fn tell(of: &str, total: usize, most: usize, seen: &BTreeSet<&'static str>) {
    println!("{total} states of {of}; seen: {seen:?}");
    assert!(total >= most * 3, "{total}");
    assert_eq!(seen.len(), 5, "what must be possible was not seen: {seen:?}");
}
