//! Random histories over a network that loses, repeats, delays and reorders, with two routers, lost disks and lost
//! routers; every step is checked against a naive account of what was committed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, is told its seed by the environment, and prints what it did"
)]

mod common;

use common::{Dice, Fact, Message, REPO, Read, World, config};
use tenon_quorum::*;

/// What a history may do.
#[derive(Clone, Copy)]
struct Weather {
    loss: usize,
    repeat: usize,
    wipes: usize,
    restarts: usize,
    deletes: usize,
    restores: usize,
    migrations: usize,
}

const NEVER: usize = usize::MAX;

/// Has the node's present life take the place of its last one.
fn rejoin(world: &mut World, router: usize, node: NodeId) {
    let comes = Member::voter(node, world.nodes[&node].incarnation);
    let _ = world.routers[router].replace(world.now, &ReplaceRequest::new(REPO, node, comes));
}

/// To the shard where the repository is not, or back; nodes 1 to 3 are shard 1, the others shard 2.
fn migrate(world: &mut World, dice: &mut Dice) {
    let Some(row) = world.row.clone() else { return };
    let to = if let RowState::Moving { to, .. } = row.state { to } else { ShardId(3 - row.shard.0) };
    let first = 3 * (to.0 as usize - 1);
    let members: Members =
        world.nodes.iter().skip(first).take(3).map(|(node, state)| Member::voter(*node, state.incarnation)).collect();
    let request = MigrateRequest::new(REPO, to, members);
    let router = &mut world.routers[dice.below(2)];
    let _ =
        if dice.one_in(3) { router.abort_migration(world.now, &request) } else { router.migrate(world.now, &request) };
}

fn history(seed: u64, steps: usize, weather: Weather) -> (usize, usize) {
    let mut dice = Dice(seed);
    // Every other world puts repositories to rest whenever it can.
    let config = config().seed(seed).most_awake(if seed.is_multiple_of(2) { 0 } else { 64 }).build().unwrap();
    let mut world = World::new(config, 2, if weather.migrations == NEVER { 3 } else { 6 });
    let (mut reads, mut served, mut requests): (Vec<Read>, usize, u64) = (Vec::new(), 0, 0);
    for _ in 0..steps {
        if dice.one_in(weather.restores) {
            match dice.below(8) {
                0 => {
                    world.restore();
                    reads.clear();
                }
                1 | 2 => world.back_up(),
                _ => drop(world.routers[dice.below(2)].recover(world.now, &RecoverRequest::new(REPO))),
            }
        }
        if dice.one_in(weather.migrations) {
            migrate(&mut world, &mut dice);
        }
        match dice.below(100) {
            0..=69 if !world.net.is_empty() => {
                let mut message = world.net.remove(dice.below(world.net.len().min(12)));
                if let Message::Tell(_, Fact::Swap(_, _, result)) = &mut message
                    && dice.one_in(weather.loss)
                {
                    *result = SwapResult::Unknown;
                }
                if dice.one_in(weather.repeat) {
                    world.net.push(message.clone());
                }
                if dice.one_in(weather.loss) && !matches!(message, Message::Tell(_, Fact::Node(..))) {
                    continue;
                }
                world.deliver(&message);
            }
            70..=77 => {
                requests += 1;
                let _ = world.begin_write(dice.below(2), requests);
            }
            78..=85 => reads.push(world.begin_read(dice.below(2))),
            86..=92 => {
                let ms = [1, 100, 600, 3_000][dice.below(4)];
                world.tick(ms);
            }
            93..=94 => {
                let node = NodeId(u32::try_from(dice.below(3)).unwrap() + 1);
                let health = [Health::Up, Health::Up, Health::Ailing, Health::Down][dice.below(4)];
                world.health(node, health);
            }
            95 if dice.one_in(weather.restarts) => {
                let router = dice.below(2);
                world.restart_router(router);
                reads.retain(|read| read.router != router);
            }
            // One disk at a time: with two of three lost, what two of three held is lost. It comes back as a member.
            96..=97 if dice.one_in(weather.wipes) && world.is_whole() => {
                let node = NodeId(u32::try_from(dice.below(3)).unwrap() + 1);
                world.wipe(node);
                rejoin(&mut world, dice.below(2), node);
            }
            98 if dice.one_in(weather.wipes) => {
                let node = NodeId(u32::try_from(dice.below(3)).unwrap() + 1);
                rejoin(&mut world, dice.below(2), node);
            }
            99 if dice.one_in(weather.deletes) => {
                let _ = world.routers[dice.below(2)].delete(world.now, REPO);
                let request = CreateRequest::new(REPO, ShardId(1), world.voters(), Digest([0; 16]));
                let _ = world.routers[dice.below(2)].create(world.now, &request);
            }
            _ => {}
        }
        reads.retain(|read| match world.step_read(read) {
            Some(Ok(_)) => {
                served += 1;
                false
            }
            Some(Err(_)) => false,
            None => true,
        });
    }
    heal(&mut world);
    (world.feed.len(), served)
}

/// With the network whole again, every write is answered for good and every repair ends.
fn heal(world: &mut World) {
    let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
    for node in nodes {
        world.health(node, Health::Up);
    }
    for _ in 0..40 {
        // Disks may have been lost since the backup that hold all that it names: the operator names who is there now.
        let request = RecoverRequest::new(REPO).held_by(world.voters());
        let _ = world.routers[0].recover(world.now, &request);
        if world.row.as_ref().is_some_and(|row| matches!(row.state, RowState::Moving { .. })) {
            migrate(world, &mut Dice(0));
        }
        world.settle();
        world.tick(40_000);
    }
    world.settle();
    for router in 0..2 {
        let left = world.routers[router].next_deadline();
        assert_eq!(left, None, "everything ended: {:?}\n{:?}", world.routers[router].snapshot(), world.row);
    }
    let row = world.row.clone().unwrap();
    if row.state == RowState::Deleted {
        return;
    }
    let here = |voter: &Member| u32::from(voter.node.0 > 3) + 1 == row.shard.0;
    assert!(row.state == RowState::Live && row.voters().all(here), "on exactly one shard: {row:?}");
    let newest = row.newest.version;
    assert_eq!(world.read(0).unwrap().0, newest);
    assert_eq!(world.read(1).unwrap().0, newest);
}

fn sweep(name: &str, seeds: u64, steps: usize, weather: Weather) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (only, seeds) = (number("QUORUM_SEED"), number("QUORUM_HISTORIES").unwrap_or(seeds));
    let (mut commits, mut served) = (0, 0);
    for seed in only.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        let run = std::panic::catch_unwind(|| history(seed, steps, weather));
        let Ok((c, s)) = run else {
            panic!("seed {seed}; replay: QUORUM_SEED={seed} cargo test -p tenon-quorum --test model {name}");
        };
        commits += c;
        served += s;
    }
    println!("{name}: {commits} commits, {served} reads served");
    assert!(only.is_some() || (commits > 100 && served > 100), "the histories do too little: {commits}, {served}");
}

#[test]
fn fair_weather() {
    sweep(
        "fair_weather",
        150,
        400,
        Weather {
            loss: NEVER,
            repeat: NEVER,
            wipes: NEVER,
            restarts: NEVER,
            deletes: NEVER,
            restores: NEVER,
            migrations: NEVER,
        },
    );
}

#[test]
fn loss_and_repetition() {
    sweep(
        "loss_and_repetition",
        500,
        500,
        Weather {
            loss: 12,
            repeat: 8,
            wipes: NEVER,
            restarts: NEVER,
            deletes: NEVER,
            restores: NEVER,
            migrations: NEVER,
        },
    );
}

#[test]
fn lost_routers() {
    sweep(
        "lost_routers",
        400,
        500,
        Weather { loss: 15, repeat: 8, wipes: NEVER, restarts: 1, deletes: NEVER, restores: NEVER, migrations: NEVER },
    );
}

#[test]
fn lost_disks() {
    sweep(
        "lost_disks",
        400,
        600,
        Weather { loss: 20, repeat: 8, wipes: 1, restarts: 4, deletes: NEVER, restores: NEVER, migrations: NEVER },
    );
}

#[test]
fn deleted_and_created_again() {
    sweep(
        "deleted_and_created_again",
        300,
        500,
        Weather { loss: 20, repeat: 8, wipes: 3, restarts: 4, deletes: 1, restores: NEVER, migrations: NEVER },
    );
}

#[test]
fn restored_stores() {
    let calm =
        Weather { loss: 20, repeat: 8, wipes: NEVER, restarts: 4, deletes: NEVER, restores: 20, migrations: NEVER };
    sweep("restored_stores", 400, 600, calm);
}

#[test]
fn restored_stores_and_lost_disks() {
    let rough = Weather { loss: 20, repeat: 8, wipes: 1, restarts: 4, deletes: NEVER, restores: 20, migrations: NEVER };
    sweep("restored_stores_and_lost_disks", 400, 600, rough);
}

#[test]
fn migrations() {
    let moving =
        Weather { loss: 20, repeat: 8, wipes: NEVER, restarts: 4, deletes: NEVER, restores: NEVER, migrations: 60 };
    sweep("migrations", 200, 600, moving);
}

#[test]
fn migrations_in_all_weathers() {
    let all = Weather { loss: 20, repeat: 8, wipes: 2, restarts: 4, deletes: NEVER, restores: 40, migrations: 60 };
    sweep("migrations_in_all_weathers", 250, 700, all);
}

/// A learner that knew of a newer row than the router was asked again and again, while a write waited for a voter.
#[test]
fn a_doubt_that_a_learner_casts_ends_in_a_fetch() {
    history(
        14_618,
        600,
        Weather { loss: 20, repeat: 8, wipes: 1, restarts: 4, deletes: NEVER, restores: NEVER, migrations: NEVER },
    );
}

/// On its family's shard alone it could come to stand on nodes that hold none of the family's objects.
#[test]
fn a_fork_is_not_created_off_the_nodes_of_its_family() {
    let world = World::new(config().build().unwrap(), 1, 4);
    let mut router = world.routers[0].clone();
    let on = |nodes: [u32; 3]| nodes.map(|node| Member::voter(NodeId(node), Incarnation(1))).to_vec();
    let fork = |nodes| CreateRequest::new(RepoId(8), ShardId(1), on(nodes), Digest([0; 16])).fork_of(REPO);
    let split = Reason::FamilySplit { parent: REPO };
    assert_eq!(router.create(world.now, &fork([2, 3, 4])).map_err(|refusal| refusal.reason), Err(split));
    assert!(router.create(world.now, &fork([1, 2, 3])).is_ok());
}

/// Another router may have changed the row since: to delete what this one has deleted once is to delete it again.
#[test]
fn what_an_old_row_says_is_no_answer_to_a_change() {
    let mut world = World::new(config().build().unwrap(), 2, 3);
    let deleted = |world: &World| world.row.as_ref().is_some_and(|row| row.state == RowState::Deleted);
    world.routers[1].delete(world.now, REPO).unwrap();
    world.settle();
    assert!(deleted(&world));
    world.create();
    assert!(!deleted(&world));
    world.routers[1].delete(world.now, REPO).unwrap();
    world.settle();
    assert!(deleted(&world));
}
