//! The log over random histories: folded and absorbed in any order and budget, followed by replicas, pinned, read back.
//!
//! Replay: `REFSLOG_SEED=n REFSLOG_STEPS=m cargo test -p tenon-refslog --test log`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its seed from a variable")]

mod common;

use common::{Chance, LINEAGE, NAMES, config, name, oid, open_config, seed_and_steps};
use tenon_refslog::{
    Change, Checksum, Command, CompactError, Log, LogConfig, LogError, Mode, Piece, PinId, Plan, Point, Refs,
    ReplayError, Replayed, ReplicaId, Segment, Snapshot, Standing, Taken, Touched, Version, compact,
};

fn log_config() -> LogConfig {
    LogConfig::builder().min_records(4).retain_versions(12).max_lag_versions(60).build().unwrap()
}

/// Does one planned step, as a host would: fold, encode, decode, tell. Answers with the bytes written.
fn carry_out(log: &mut Log, plan: &Plan, seed: u64) -> usize {
    match plan {
        Plan::Nothing | Plan::OverBudget(_) => 0,
        Plan::Fold(stretch) => {
            let folded = log.fold(stretch).unwrap();
            let kept: usize = folded.inputs.iter().map(|(_, _, changes)| changes).sum();
            assert_eq!(kept - folded.superseded, folded.segment.changes().len(), "seed {seed}");
            let bytes = folded.segment.encode();
            let segment = Segment::decode(bytes.clone()).unwrap();
            assert_eq!(log.handle_folded(segment.clone()), Taken::Taken, "seed {seed}");
            assert_eq!(log.handle_folded(segment), Taken::Unchanged, "repeated; seed {seed}");
            bytes.len()
        }
        Plan::Absorb(stretch) => {
            let absorbed = log.absorb(stretch).unwrap();
            let changes: usize = absorbed.inputs.iter().map(|(_, _, changes)| changes).sum();
            let net = changes - absorbed.superseded;
            assert!(absorbed.added + absorbed.replaced + absorbed.removed <= net, "seed {seed}");
            assert!(absorbed.removed <= absorbed.tombstones, "seed {seed}");
            let refs = log.snapshot().len() + absorbed.added as u64 - absorbed.removed as u64;
            assert_eq!(absorbed.snapshot.len(), refs, "the numbers recompute what it holds; seed {seed}");
            let (first, last) = (absorbed.inputs.first().unwrap(), absorbed.inputs.last().unwrap());
            assert_eq!((first.0, last.1), (stretch.base, stretch.end), "seed {seed}");
            let snapshot = absorbed.snapshot;
            let opened = Snapshot::open(snapshot.as_bytes().clone()).unwrap();
            assert_eq!(log.handle_absorbed(opened.clone()), Taken::Taken, "seed {seed}");
            assert_eq!(log.handle_absorbed(opened), Taken::Unchanged, "repeated; seed {seed}");
            snapshot.as_bytes().len()
        }
    }
}

/// A version is pinned after a step was done and before it is told: what the pin was promised holds.
fn pinned_meanwhile(world: &mut World, plan: &Plan, chance: &mut Chance, seed: u64) {
    let (Plan::Fold(stretch) | Plan::Absorb(stretch)) = plan else { return };
    let version =
        Version(stretch.base.0 + chance.below(usize::try_from(stretch.end.0 - stretch.base.0).unwrap()) as u64);
    let folded = world.log.fold(stretch).unwrap();
    let absorbed = matches!(plan, Plan::Absorb(_)).then(|| world.log.absorb(stretch).unwrap());
    let pin = PinId(99);
    if world.log.pin(pin, version).is_err() {
        return;
    }
    let before = world.log.get(&name("refs/heads/main"), version);
    let taken = match absorbed {
        Some(absorbed) => world.log.handle_absorbed(absorbed.snapshot),
        None => world.log.handle_folded(folded.segment),
    };
    let harmless = version <= stretch.base && !matches!(plan, Plan::Absorb(_));
    assert_eq!(taken == Taken::Taken, harmless, "{version} in {plan:?}; seed {seed}");
    assert_eq!(world.log.get(&name("refs/heads/main"), version), before, "pinned {version}, seed {seed}");
    assert!(world.log.restore_at(open_config(), version).is_ok(), "pinned {version}, seed {seed}");
    assert_eq!(world.log.unpin(pin), Taken::Taken);
}

struct World {
    refs: Refs,
    states: Vec<Refs>,
    log: Log,
    replicas: Vec<Refs>,
    pins: Vec<(PinId, Version)>,
}

fn check(world: &World, chance: &mut Chance, seed: u64) {
    let log = &world.log;
    let at = |version: Version| &world.states[usize::try_from(version.0).unwrap()];
    assert_eq!(log.end(), world.refs.point(), "seed {seed}");
    for replica in &world.replicas {
        let mut caught_up = replica.clone();
        match log.since(replica.version()) {
            Ok(pieces) => {
                for piece in pieces {
                    assert_eq!(caught_up.take_piece(piece), Ok(Replayed::Applied), "seed {seed}");
                }
            }
            Err(LogError::BeforeSnapshot { .. }) => {
                assert!(matches!(log.standing(replica.version()), Standing::Resync { .. }), "seed {seed}");
                caught_up = log.restore_at(open_config(), log.end().version).unwrap();
            }
            Err(other) => panic!("{other}, seed {seed}"),
        }
        assert_eq!(caught_up.point(), world.refs.point(), "seed {seed}");
        assert!(caught_up.iter().eq(world.refs.iter()), "seed {seed}");
    }
    for (_, version) in &world.pins {
        if !matches!(log.standing(*version), Standing::Resync { .. }) {
            let restored = log.restore_at(open_config(), *version).unwrap();
            assert!(restored.iter().eq(at(*version).iter()), "pinned {version}, seed {seed}");
        }
    }
    for _ in 0..10 {
        let version = Version(chance.below(world.states.len()) as u64);
        let target = name(NAMES[chance.below(NAMES.len())]);
        match log.get(&target, version) {
            Ok(value) => assert_eq!(value, at(version).get(&target), "{target} at {version}, seed {seed}"),
            Err(LogError::VersionCompacted { base, end, .. }) => assert!(base < version && version < end),
            Err(LogError::BeforeSnapshot { base, .. }) => assert!(version < base),
            Err(other) => panic!("{other}, seed {seed}"),
        }
        if let Ok(checksum) = log.checksum_at(version) {
            assert_eq!(checksum, at(version).checksum(), "seed {seed}");
        }
    }
}

fn run(seed: u64, steps: usize) {
    let ids: Vec<_> = (0..4).map(oid).collect();
    let mut chance = Chance::new(seed);
    let refs = Refs::new(open_config(), LINEAGE);
    let mut world = World {
        states: vec![refs.clone()],
        log: Log::new(log_config(), refs.snapshot()),
        replicas: vec![refs.clone(); 3],
        pins: Vec::new(),
        refs,
    };
    for step in 0..steps {
        let transaction = common::transaction(&mut chance, &world.refs, &ids);
        if let Ok(Some(record)) = world.refs.admit(&transaction).map(tenon_refslog::Admitted::into_record) {
            assert_eq!(world.log.append(record.clone()).unwrap(), Taken::Taken);
            assert_eq!(world.log.append(record.clone()).unwrap(), Taken::Unchanged);
            let _ = world.refs.apply(&record).unwrap();
            world.states.push(world.refs.clone());
        }
        if chance.one_in(3) {
            let at = chance.below(world.replicas.len());
            let replica = &mut world.replicas[at];
            let some = 1 + chance.below(4);
            if let Ok(pieces) = world.log.since(replica.version()) {
                for piece in pieces.take(some) {
                    let _ = replica.take_piece(piece).unwrap();
                }
            } else {
                *replica = world.refs.clone();
            }
            world.log.handle_progress(ReplicaId(at as u64), replica.version()).unwrap();
        }
        if chance.one_in(12) {
            let version = Version(chance.below(world.states.len()) as u64);
            let pin = PinId(step as u64 % 3);
            if world.log.pin(pin, version).is_ok() {
                world.pins.retain(|(other, _)| *other != pin);
                world.pins.push((pin, version));
            }
        }
        if chance.one_in(20)
            && let Some((pin, _)) = world.pins.pop()
        {
            assert_eq!(world.log.unpin(pin), Taken::Taken);
        }
        let budget = [300, 2_000, u64::MAX][chance.below(3)];
        let plan = world.log.plan(budget);
        if chance.one_in(3) {
            pinned_meanwhile(&mut world, &plan, &mut chance, seed);
        } else {
            carry_out(&mut world.log, &plan, seed);
        }
        let readable = world.log.readable_from().max(world.log.snapshot().point().version);
        for version in readable.0..=world.log.end().version.0 {
            assert!(world.log.checksum_at(Version(version)).is_ok(), "{version} is retained; seed {seed}");
        }
        if step % 5 == 0 {
            check(&world, &mut chance, seed);
        }
    }
}

#[test]
fn replicas_pins_and_time_travel_survive_any_compaction() {
    let (seed, steps) = seed_and_steps(900, 400);
    for run_seed in seed..seed + 6 {
        run(run_seed, steps);
    }
}

fn append(log: &mut Log, refs: &mut Refs, command: Command) {
    let record = refs.admit(&command.into()).unwrap().into_record().unwrap();
    let _ = refs.apply(&record).unwrap();
    log.append(record).unwrap();
}

fn settled(log: &mut Log) -> usize {
    let mut written = 0;
    loop {
        let plan = log.plan(u64::MAX);
        match carry_out(log, &plan, 0) {
            0 => return written,
            bytes => written += bytes,
        }
    }
}

#[test]
fn a_difference_names_the_version_that_touched_last() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(2).retain_versions(0).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    log.handle_progress(ReplicaId(1), Version(0)).unwrap();
    for n in 0..3 {
        append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(n)));
        append(&mut log, &mut refs, Command::update(name("refs/heads/b"), oid(n % 2)));
    }
    let told = |log: &Log, from, to| {
        let touched = log.diff(Version(from), Version(to)).unwrap();
        let line = |it: Touched| (it.change.name().to_string(), it.after.0, it.by.0);
        touched.into_iter().map(line).collect::<Vec<_>>()
    };
    let a = |after, by| ("refs/heads/a".to_owned(), after, by);
    let b = |after, by| ("refs/heads/b".to_owned(), after, by);
    assert_eq!(told(&log, 0, 6), [a(4, 5), b(5, 6)]);
    assert_eq!(told(&log, 1, 4), [a(2, 3), b(3, 4)]);
    assert_eq!(told(&log, 2, 6), [a(4, 5)], "b went there and back");
    assert_eq!(told(&log, 3, 3), []);
    assert_eq!(log.diff(Version(4), Version(3)), Err(LogError::Future { asked: Version(4), newest: Version(3) }));
    settled(&mut log);
    assert_eq!(told(&log, 0, 6), [a(0, 6), b(0, 6)], "within a fold it cannot be told");
    let compacted = LogError::VersionCompacted { asked: Version(1), base: Version(0), end: Version(6) };
    assert_eq!(log.diff(Version(1), Version(6)), Err(compacted));
}

/// Whoever is needed holds the horizon, to the version; what is told beyond it is not taken.
#[test]
fn nothing_goes_beyond_the_horizon() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().retain_versions(0).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    let mut snapshots = vec![refs.snapshot()];
    for n in 0..6 {
        append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(n)));
        snapshots.push(refs.snapshot());
    }
    assert_eq!(log.horizon(), Version(6));
    log.pin(PinId(1), Version(3)).unwrap();
    assert_eq!(log.horizon(), Version(3));
    log.handle_progress(ReplicaId(1), Version(2)).unwrap();
    assert_eq!(log.horizon(), Version(2));
    assert_eq!(log.handle_absorbed(snapshots[3].clone()), Taken::Unchanged);
    assert_eq!(log.handle_absorbed(snapshots[2].clone()), Taken::Taken);
    assert_eq!(log.snapshot().point().version, Version(2));
}

#[test]
fn a_record_that_skips_one_is_refused() {
    let mut refs = Refs::new(config(), LINEAGE);
    let mut log = Log::new(LogConfig::builder().build().unwrap(), refs.snapshot());
    let mut records = Vec::new();
    for n in 0..3 {
        let update = Command::update(name("refs/heads/a"), oid(n));
        let record = refs.admit(&update.into()).unwrap().into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
        records.push(record);
    }
    let _ = log.append(records[0].clone()).unwrap();
    let gap = LogError::Future { asked: Version(2), newest: Version(1) };
    assert_eq!(log.append(records[2].clone()), Err(gap));
    assert_eq!(log.end(), records[0].after());
}

/// A segment that starts at the right version, but in other refs, is not taken.
#[test]
fn a_segment_of_a_fork_is_refused() {
    let mut refs = Refs::new(config(), LINEAGE);
    let mut log = Log::new(LogConfig::builder().build().unwrap(), refs.snapshot());
    append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(1)));
    let mut fork = Refs::new(config(), LINEAGE);
    for n in 2..4 {
        let record = fork.admit(&Command::update(name("refs/heads/a"), oid(n)).into()).unwrap().into_record().unwrap();
        let base = fork.point();
        let _ = fork.apply(&record).unwrap();
        let segment = Segment::of_record(base, &record, Mode::Cover).unwrap();
        let expected = match n {
            2 => LogError::OtherRecord { version: Version(1) },
            _ => CompactError::Diverged { at: Version(1) }.into(),
        };
        assert_eq!(log.append_segment(segment), Err(expected));
    }
    assert_eq!(log.end(), refs.point());
}

/// Trap: tombstones dropped one version too early. A deletion exactly at the horizon is still delivered.
#[test]
fn a_deletion_at_the_horizon_is_delivered() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(2).retain_versions(0).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    append(&mut log, &mut refs, Command::create(name("refs/heads/a"), oid(1)));
    append(&mut log, &mut refs, Command::create(name("refs/heads/b"), oid(1)));
    let mut replica = refs.clone();
    log.handle_progress(ReplicaId(1), replica.version()).unwrap();
    append(&mut log, &mut refs, Command::delete(name("refs/heads/a")));
    append(&mut log, &mut refs, Command::update(name("refs/heads/b"), oid(2)));
    settled(&mut log);
    assert_eq!((log.horizon(), log.snapshot().point().version), (Version(2), Version(2)));
    for piece in log.since(replica.version()).unwrap() {
        let _ = replica.take_piece(piece).unwrap();
    }
    assert_eq!(replica.point(), refs.point());
    // Once the replica has seen it, the tombstone goes with the rest.
    log.handle_progress(ReplicaId(1), replica.version()).unwrap();
    settled(&mut log);
    assert_eq!((log.pieces().count(), log.snapshot().len()), (0, 1));
}

#[test]
fn a_dead_replica_does_not_hold_the_log_for_ever() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(2).retain_versions(0).max_lag_versions(10).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    log.handle_progress(ReplicaId(1), Version(0)).unwrap();
    for n in 0..10 {
        append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(n)));
    }
    settled(&mut log);
    assert_eq!(log.snapshot().point().version, Version(0));
    assert!(matches!(log.standing(Version(0)), Standing::Behind { versions: 10, .. }));
    append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(99)));
    assert!(matches!(log.standing(Version(0)), Standing::Resync { versions: 11, .. }));
    settled(&mut log);
    assert_eq!(log.snapshot().point(), refs.point());
    assert!(matches!(log.since(Version(0)).err(), Some(LogError::BeforeSnapshot { .. })));
}

#[test]
fn a_pin_splits_folds_and_keeps_its_version() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(2).retain_versions(0).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    log.handle_progress(ReplicaId(1), Version(0)).unwrap();
    for n in 0..20 {
        append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(n)));
        if n == 9 {
            log.pin(PinId(1), Version(7)).unwrap();
        }
    }
    settled(&mut log);
    let ends: Vec<Version> = log
        .pieces()
        .map(|piece| match piece {
            Piece::Record(record) => record.version(),
            Piece::Segment(segment) => segment.end().version,
        })
        .collect();
    assert_eq!(ends, [Version(7), Version(20)]);
    assert_eq!(log.get(&name("refs/heads/a"), Version(7)).unwrap(), Some(oid(6).into()));
    let between = log.get(&name("refs/heads/a"), Version(9)).unwrap_err();
    assert_eq!(log.pins().collect::<Vec<_>>(), [(PinId(1), Version(7))]);
    assert_eq!(log.replicas().collect::<Vec<_>>(), [(ReplicaId(1), Version(0))]);
    assert_eq!(between, LogError::VersionCompacted { asked: Version(9), base: Version(7), end: Version(20) });
    assert_eq!(log.pin(PinId(2), Version(9)).unwrap_err(), between);
    assert_eq!(log.get(&name("refs/heads/b"), Version(9)).unwrap(), None, "untouched refs are known in between");
}

/// The numbers in a plan recompute it, and a small budget does the same work in more steps.
#[test]
fn plans_explain_themselves_and_resume() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(4).retain_versions(0).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    log.handle_progress(ReplicaId(1), Version(0)).unwrap();
    for n in 0..64 {
        append(&mut log, &mut refs, Command::create(name(&format!("refs/changes/{n}")), oid(n)));
    }
    let mut steps = 0;
    loop {
        match log.plan(1_500) {
            Plan::Fold(stretch) => {
                assert!(stretch.bytes <= 1_500 && stretch.pieces >= 2);
                assert_eq!(stretch.oldest + stretch.rest, stretch.bytes);
                carry_out(&mut log, &Plan::Fold(stretch), 0);
                steps += 1;
            }
            Plan::OverBudget(stretch) => {
                assert!(stretch.bytes > 1_500 && stretch.oldest < 2 * stretch.rest);
                break;
            }
            other @ (Plan::Nothing | Plan::Absorb(_)) => panic!("{other:?}"),
        }
    }
    assert!(steps > 3);
    settled(&mut log);
    assert_eq!(log.pieces().count(), 1);
    assert_eq!(log.plan(u64::MAX), Plan::Nothing);
}

/// Folds of an older log than this one, and of none, change nothing.
#[test]
fn unknown_folds_change_nothing() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(2).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    for n in 0..4 {
        append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(n)));
    }
    let late = Segment::empty(refs.point(), Mode::Cover);
    assert_eq!(log.handle_folded(late), Taken::Unchanged);
    assert_eq!(log.handle_absorbed(refs.snapshot()), Taken::Unchanged, "beyond what is retained");
    assert!(matches!(log.append_segment(Segment::empty(refs.point(), Mode::Cover)), Ok(Taken::Unchanged)));
    let exact = log.append_segment(Segment::empty(refs.point(), Mode::Exact));
    assert_eq!(exact, Err(LogError::NeedsCover));
    assert_eq!(log.pieces().count(), 4);
}

/// Write amplification and live segments of the geometric rule, on one-change transactions.
#[test]
fn geometric_folds_stay_few_and_cheap() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().retain_versions(0).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    log.handle_progress(ReplicaId(1), Version(0)).unwrap();
    let mut appended = 0;
    let mut written = 0;
    let mut most = 0;
    for n in 0..4_000_u64 {
        let command = Command::update(name(&format!("refs/changes/{}", n * 7919 % 3_000)), oid(n));
        let record = refs.admit(&command.into()).unwrap().into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
        appended += record.encode().len();
        log.append(record).unwrap();
        if n % 64 == 63 {
            written += settled(&mut log);
            most = most.max(log.pieces().count());
        }
    }
    let amplification = (appended + written) * 100 / appended;
    assert!(amplification <= 1_400, "{amplification} per cent");
    assert!(most <= 10, "{most} live pieces");
}

/// A fact is looked at as closely as a command: a fold is taken if it is what its pieces make, and only then.
#[test]
fn a_fold_of_something_else_is_not_taken() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(2).retain_versions(0).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    log.handle_progress(ReplicaId(1), Version(0)).unwrap();
    for n in 0..4 {
        append(&mut log, &mut refs, Command::update(name(&format!("refs/heads/{}", n % 3)), oid(n)));
    }
    let Plan::Fold(stretch) = log.plan(u64::MAX) else { panic!("nothing to fold") };
    let good = log.fold(&stretch).unwrap().segment;
    let made = |base: Point, end: Point, changes: Vec<Change>| {
        Segment::new(base, end, Mode::Cover, good.form(), changes).unwrap()
    };
    let (base, end, changes) = (good.base(), good.end(), good.changes().to_vec());
    let altered = Change::new(changes[0].name().clone(), changes[0].old().clone(), Some(oid(99).into()));
    let elsewhere = Checksum::from_bytes([7; 32]);
    for bad in [
        made(Point { checksum: elsewhere, ..base }, end, changes.clone()),
        made(base, Point { checksum: elsewhere, ..end }, changes.clone()),
        made(base, end, changes[1..].to_vec()),
        made(base, end, [&[altered], &changes[1..]].concat()),
        good.clone().exact().unwrap(),
    ] {
        assert_eq!(log.handle_folded(bad.clone()), Taken::Unchanged, "{bad:?}");
        assert_eq!(log.pieces().count(), 4);
    }
    assert!(log.restore_at(config(), Version(4)).is_ok());
    let mut twin = log.clone();
    assert_eq!(twin.handle_folded(good.forward_only()), Taken::Taken, "without old values it is still what they make");
    assert_eq!(log.handle_folded(good), Taken::Taken);
    assert_eq!(log.restore_at(config(), Version(4)).unwrap().point(), refs.point());
}

/// Two writers: the second record of a version is neither taken nor passed over in silence.
/// A host may fold by itself, or by another rule than the log's: what the log promises to keep readable is not folded.
#[test]
fn a_fold_of_what_is_retained_is_not_taken() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = |retain| LogConfig::builder().min_records(2).retain_versions(retain).build().unwrap();
    let (mut log, mut other) = (Log::new(rule(2), refs.snapshot()), Log::new(rule(0), refs.snapshot()));
    other.handle_progress(ReplicaId(1), Version(0)).unwrap();
    let mut records = Vec::new();
    for n in 0..4 {
        let record = refs.admit(&Command::create(name(&format!("refs/heads/{n}")), oid(n)).into()).unwrap();
        let record = record.into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
        log.append(record.clone()).unwrap();
        other.append(record.clone()).unwrap();
        records.push(record);
    }
    let Plan::Fold(stretch) = other.plan(u64::MAX) else { panic!("nothing to fold") };
    let all = other.fold(&stretch).unwrap().segment;
    assert_eq!((all.end().version, log.readable_from()), (Version(4), Version(2)));
    assert_eq!(log.handle_folded(all), Taken::Unchanged);
    assert!((0..=4).all(|version| log.restore_at(config(), Version(version)).is_ok()));
    let old = compact(log.snapshot().point(), Mode::Cover, &records[..2]).unwrap();
    assert_eq!(log.handle_folded(old), Taken::Taken, "what ends where the promise begins is folded");
}

#[test]
fn another_record_of_the_same_version_is_told() {
    let mut refs = Refs::new(config(), LINEAGE);
    let mut log = Log::new(LogConfig::builder().build().unwrap(), refs.snapshot());
    append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(1)));
    let fork = Refs::new(config(), LINEAGE);
    let other = fork.admit(&Command::update(name("refs/heads/a"), oid(2)).into()).unwrap().into_record().unwrap();
    assert_eq!(log.append(other.clone()), Err(LogError::OtherRecord { version: Version(1) }));
    assert!(matches!(refs.apply(&other), Err(ReplayError::ChecksumMismatch { version: Version(1), .. })));
    let own = log.pieces().next().unwrap().clone();
    let Piece::Record(own) = own else { panic!("a record") };
    assert_eq!(log.append(own.forward_only()), Ok(Taken::Unchanged), "the same without old values");
    // And at the snapshot itself.
    let mut later = Log::new(LogConfig::builder().build().unwrap(), refs.snapshot());
    assert_eq!(later.append(own), Ok(Taken::Unchanged));
    assert_eq!(later.append(other), Err(LogError::OtherRecord { version: Version(1) }));
}

/// What would hold nothing is not accepted, and what cannot be is not believed.
#[test]
fn needs_are_checked_when_they_are_told() {
    let mut refs = Refs::new(config(), LINEAGE);
    let rule = LogConfig::builder().min_records(2).retain_versions(0).max_lag_versions(3).build().unwrap();
    let mut log = Log::new(rule, refs.snapshot());
    for n in 0..5 {
        append(&mut log, &mut refs, Command::update(name("refs/heads/a"), oid(n)));
    }
    let beyond = log.pin(PinId(1), Version(1));
    assert!(matches!(beyond, Err(LogError::BeyondLimits { asked: Version(1), versions: 4, .. })), "{beyond:?}");
    assert_eq!(log.handle_progress(ReplicaId(1), Version(9)), Ok(Taken::Unchanged), "not there yet");
    assert_eq!(log.replicas().count(), 0);
    assert_eq!(log.handle_progress(ReplicaId(1), Version(3)), Ok(Taken::Taken));
    assert_eq!(log.handle_progress(ReplicaId(1), Version(3)), Ok(Taken::Unchanged));
    assert_eq!(log.horizon(), Version(3));
}
