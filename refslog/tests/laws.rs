//! The laws, over random histories. There are no effects here, so "lazy drain" has nothing to say.
//!
//! A failure prints its seed; replay: `REFSLOG_SEED=n REFSLOG_STEPS=m cargo test -p tenon-refslog --test laws`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is not listed must not come up")]
#![allow(clippy::disallowed_methods, reason = "a test reads its seed from a variable")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;

use common::{Chance, LINEAGE, config, oid, open_config, seed_and_steps};
use proptest::prelude::*;
use tenon_refslog::{
    Action, Change, Checksum, Command, DecodeError, Deref, DfPolicy, Log, LogConfig, LogError, Mode, ObjectId, Old,
    Piece, PinId, Plan, Point, Reason, Record, Records, RefName, Refs, ReplayError, Replayed, ReplicaId, Segment,
    Snapshot, Taken, Transaction, Value, Version, compact, compact_segments, git,
};

fn ids() -> Vec<ObjectId> {
    (0..4).map(oid).collect()
}

struct History {
    refs: Refs,
    records: Vec<Record>,
    states: Vec<Refs>,
    refused: Vec<(Refs, Transaction)>,
}

fn history(seed: u64, steps: usize) -> History {
    let mut chance = Chance::new(seed);
    let mut refs = Refs::new(open_config(), LINEAGE);
    let mut it = History { refs: refs.clone(), records: Vec::new(), states: vec![refs.clone()], refused: Vec::new() };
    for _ in 0..steps {
        let transaction = common::transaction(&mut chance, &refs, &ids());
        match refs.admit(&transaction) {
            Ok(admitted) => {
                if let Some(record) = admitted.into_record() {
                    assert_eq!(refs.apply(&record), Ok(Replayed::Applied), "seed {seed}");
                    it.records.push(record);
                    it.states.push(refs.clone());
                }
            }
            Err(_) => it.refused.push((refs.clone(), transaction)),
        }
    }
    it.refs = refs;
    it
}

fn bytes(refs: &Refs) -> bytes::Bytes {
    refs.snapshot().as_bytes().clone()
}

fn each_seed(runs: u64, check: impl Fn(u64, usize)) {
    let (seed, steps) = seed_and_steps(100, 150);
    for run in 0..runs {
        check(seed + run, steps);
    }
}

#[test]
fn determinism() {
    each_seed(4, |seed, steps| {
        let (one, two) = (history(seed, steps), history(seed, steps));
        assert_eq!(bytes(&one.refs), bytes(&two.refs), "seed {seed}");
        let encoded = |it: &History| it.records.iter().map(Record::encode).collect::<Vec<_>>();
        assert_eq!(encoded(&one), encoded(&two), "seed {seed}");
    });
}

#[test]
fn a_refusal_changes_nothing() {
    each_seed(4, |seed, steps| {
        let it = history(seed, steps);
        assert!(!it.refused.is_empty());
        for (refs, transaction) in &it.refused {
            let before = bytes(refs);
            assert!(refs.admit(transaction).is_err());
            assert_eq!(bytes(refs), before, "seed {seed}");
        }
        // Every record on every state: what does not fit changes nothing.
        for state in it.states.iter().step_by(7) {
            let before = bytes(state);
            for record in &it.records {
                let mut refs = state.clone();
                if refs.apply(record) != Ok(Replayed::Applied) {
                    assert_eq!(bytes(&refs), before, "seed {seed}");
                }
            }
        }
    });
}

#[test]
fn late_repeated_and_early_records_change_nothing() {
    each_seed(4, |seed, steps| {
        let it = history(seed, steps);
        let mut chance = Chance::new(seed);
        let mut refs = Refs::new(open_config(), LINEAGE);
        while refs.point() != it.refs.point() {
            let record = chance.pick(&it.records);
            let next = record.base_version() == refs.version();
            let before = refs.point();
            let applied = refs.apply(record);
            if next {
                assert_eq!(applied, Ok(Replayed::Applied), "seed {seed}");
            } else {
                assert_eq!(applied == Ok(Replayed::AlreadyApplied), record.version() <= before.version);
                // One of the same version that leads elsewhere is not late.
                let elsewhere = Point { checksum: Checksum::EMPTY, ..record.after() };
                let other = Record::new(elsewhere, record.changes().to_vec()).unwrap();
                if record.after() == before {
                    assert!(matches!(refs.apply(&other), Err(ReplayError::ChecksumMismatch { .. })), "seed {seed}");
                }
                assert_eq!(refs.point(), before, "seed {seed}");
            }
        }
        assert_eq!(bytes(&refs), bytes(&it.refs), "seed {seed}");
    });
}

#[test]
fn twins_answer_alike_for_ever() {
    each_seed(4, |seed, steps| {
        let it = history(seed, steps);
        for (at, state) in it.states.iter().enumerate().step_by(5) {
            let opened = Snapshot::open(bytes(state)).unwrap();
            let mut twin = Refs::restore(open_config(), &opened).unwrap();
            assert_eq!(twin.point(), state.point());
            assert!(twin.iter().eq(state.iter()), "seed {seed}");
            let mut chance = Chance::new(seed ^ at as u64);
            let transaction = common::transaction(&mut chance, state, &ids());
            assert_eq!(twin.admit(&transaction), state.admit(&transaction), "seed {seed}");
            for record in &it.records[at..] {
                assert_eq!(twin.apply(record), Ok(Replayed::Applied), "seed {seed}");
            }
            assert_eq!(bytes(&twin), bytes(&it.refs), "seed {seed}");
        }
    });
}

#[test]
fn the_log_rebuilds_the_state() {
    each_seed(4, |seed, steps| {
        let it = history(seed, steps);
        let mut file = Vec::new();
        for record in &it.records {
            record.encode_into(&mut file);
        }
        let read: Result<Vec<Record>, DecodeError> = Records::new(file).collect();
        assert_eq!(read.as_ref(), Ok(&it.records), "seed {seed}");
        let mut refs = Refs::new(open_config(), LINEAGE);
        for record in read.unwrap() {
            let _ = refs.apply(&record).unwrap();
        }
        assert_eq!(bytes(&refs), bytes(&it.refs), "seed {seed}");
        let state = refs
            .iter()
            .fold(tenon_refslog::Checksum::EMPTY, |sum, (name, value)| sum.plus(common::key().entry(&name, &value)));
        assert_eq!(state, refs.checksum(), "the checksum kept change by change is that of all refs; seed {seed}");
    });
}

/// A log read back from what was made durable plans, answers and grows as the one that was lost.
#[test]
fn a_log_read_back_is_a_twin() {
    each_seed(4, |seed, steps| {
        let it = history(seed, steps);
        let rule = LogConfig::builder().min_records(4).retain_versions(2).build().unwrap();
        let mut log = Log::new(rule, it.states[0].snapshot());
        let mut chance = Chance::new(seed);
        for (at, record) in it.records.iter().enumerate() {
            let version = Version(chance.below(at + 1) as u64);
            match chance.below(8) {
                0 => drop(log.pin(PinId(1), version)),
                1 => drop(log.unpin(PinId(1))),
                2 => drop(log.handle_progress(ReplicaId(1), version)),
                _ => {}
            }
            let mut twin = Log::new(rule, Snapshot::open(log.snapshot().as_bytes().clone()).unwrap());
            for piece in log.pieces() {
                let taken = match piece {
                    Piece::Record(record) => twin.append(Record::decode(&record.encode()).unwrap()),
                    Piece::Segment(segment) => twin.append_segment(Segment::decode(segment.encode()).unwrap()),
                };
                assert_eq!(taken, Ok(Taken::Taken), "seed {seed}");
            }
            for (pin, version) in log.pins() {
                twin.pin(pin, version).unwrap();
            }
            for (replica, version) in log.replicas() {
                assert_eq!(twin.handle_progress(replica, version), Ok(Taken::Taken), "seed {seed}");
            }
            assert_eq!((twin.end(), twin.horizon()), (log.end(), log.horizon()), "seed {seed}");
            assert_eq!(twin.plan(u64::MAX), log.plan(u64::MAX), "seed {seed}");
            for version in (0..=at as u64).map(Version) {
                assert_eq!(twin.standing(version), log.standing(version), "seed {seed}");
                assert_eq!(twin.checksum_at(version), log.checksum_at(version), "seed {seed}");
            }
            log = twin;
            let _ = log.append(record.clone()).unwrap();
            match log.plan(u64::MAX) {
                Plan::Fold(stretch) => {
                    let folded = log.fold(&stretch).unwrap();
                    let _ = log.handle_folded(folded.segment);
                }
                Plan::Absorb(stretch) => {
                    let snapshot = log.absorb(&stretch).unwrap().snapshot;
                    let _ = log.handle_absorbed(snapshot);
                }
                Plan::Nothing | Plan::OverBudget(_) => {}
            }
        }
        let _ = (log.unpin(PinId(1)), log.forget(ReplicaId(1)));
        let mut steps = 0;
        while let Plan::Absorb(stretch) | Plan::Fold(stretch) = log.plan(u64::MAX) {
            let snapshot = log.absorb(&stretch).unwrap().snapshot;
            if log.handle_absorbed(snapshot) == Taken::Unchanged {
                let _ = log.handle_folded(log.fold(&stretch).unwrap().segment);
            }
            steps += 1;
            assert!(steps < 1_000, "seed {seed}");
        }
        assert!(log.snapshot().point().version > Version::GENESIS, "seed {seed}: nothing was folded away");
        assert_eq!(log.restore_at(open_config(), log.end().version).unwrap().point(), it.refs.point(), "seed {seed}");
    });
}

/// Whoever asks for more than a limit is refused, and nothing grows for it.
#[test]
fn nothing_outgrows_its_limit() {
    let rule = LogConfig::builder().max_needs(3).build().unwrap();
    let mut log = Log::new(rule, Refs::new(open_config(), LINEAGE).snapshot());
    for n in 0..3 {
        assert!(log.handle_progress(ReplicaId(n), Version(0)).is_ok() && log.pin(PinId(n), Version(0)).is_ok());
    }
    for n in 3..9 {
        assert_eq!(log.handle_progress(ReplicaId(n), Version(0)), Err(LogError::TooManyNeeds { max: 3 }));
        assert_eq!(log.pin(PinId(n), Version(0)), Err(LogError::TooManyNeeds { max: 3 }));
    }
    // Those who are there already go on, and a place that is given up is free again.
    assert!(log.handle_progress(ReplicaId(1), Version(0)).is_ok() && log.pin(PinId(1), Version(0)).is_ok());
    assert_eq!((log.forget(ReplicaId(0)), log.forget(ReplicaId(0))), (Taken::Taken, Taken::Unchanged));
    assert!(log.handle_progress(ReplicaId(7), Version(0)).is_ok());
    assert_eq!((log.unpin(PinId(0)), log.unpin(PinId(0))), (Taken::Taken, Taken::Unchanged));
    assert!(log.pin(PinId(7), Version(0)).is_ok());
}

/// Each reason's numbers recompute the decision, with nothing but the refs and the transaction at hand.
#[test]
fn every_refusal_is_explained_by_its_numbers() {
    each_seed(8, |seed, steps| {
        for (refs, transaction) in history(seed, steps).refused {
            for (at, reason) in refs.admit(&transaction).unwrap_err().reasons() {
                let command = &transaction.commands()[at];
                let name = command.name();
                let physical = refs.get(name);
                // What acts on a symbolic ref itself still reads what the ref's target leads to.
                let start = match (command.deref(), &physical) {
                    (Deref::Never, Some(Value::Symbolic(target))) => target,
                    _ => name,
                };
                let next = |at: &RefName| refs.get(at).and_then(|value| value.target_name().cloned());
                let links = successors(next(start), next).take(100).count();
                let end = refs.resolve(start).and_then(|end| refs.get(&end));
                let holds = |value: &Value| end.as_ref() == Some(value) || physical.as_ref() == Some(value);
                let explained = match reason {
                    Reason::Stale { expected, actual } => {
                        holds(actual) && expected != actual && command.old().value() == Some(expected)
                    }
                    Reason::Exists { actual } => {
                        holds(actual) && (*command.old() == Old::Absent || *command.action() == Action::Verify)
                    }
                    Reason::Missing { expected } => end.is_none() && command.old().value() == Some(expected),
                    Reason::Conflict { with } => refs.get(with).is_some(),
                    Reason::ConflictWithin { with } => refs.get(with).is_none(),
                    Reason::Duplicate { other, .. } => *other != at && *other < transaction.commands().len(),
                    Reason::SymrefLoop { max } => links > *max,
                    Reason::HeadDeletion => *command.action() == Action::Delete,
                    Reason::HeadTarget => matches!(command.action(), Action::Set(Value::Symbolic(to)) if to.is_head()),
                    _ => panic!("unexpected {reason:?}, seed {seed}"),
                };
                assert!(explained, "{reason:?} does not explain {command:?}, seed {seed}");
            }
        }
    });
}

#[test]
fn how_a_stretch_is_cut_does_not_show() {
    each_seed(6, |seed, steps| {
        let it = history(seed, steps);
        let mut chance = Chance::new(seed);
        for mode in [Mode::Cover, Mode::Exact] {
            let whole = compact(it.states[0].point(), mode, &it.records).unwrap();
            for _ in 0..6 {
                let (a, b) = (chance.below(it.records.len()), chance.below(it.records.len()));
                let (a, b) = (a.min(b), a.max(b));
                let part = |from: usize, to: usize, mode| {
                    compact(it.states[from].point(), mode, &it.records[from..to]).unwrap()
                };
                // Any mixture with an exact part is exact.
                let other = if chance.one_in(2) { Mode::Cover } else { mode };
                let parts = [part(0, a, mode), part(a, b, other), part(b, it.records.len(), mode)];
                let left = parts[0].then(&parts[1]).unwrap().then(&parts[2]).unwrap();
                let right = parts[0].then(&parts[1].then(&parts[2]).unwrap()).unwrap();
                assert_eq!(left.encode(), right.encode(), "associative; seed {seed}");
                assert_eq!(left.encode(), whole.encode(), "canonical; seed {seed}");
                assert_eq!(Segment::decode(left.encode()).unwrap(), left, "seed {seed}");
            }
        }
    });
}

/// Long stretches are folded in another way than short ones, to the same end: of each name the first old value and the last
/// new one. Some of the names differ only far behind.
#[test]
fn long_stretches_fold_as_short_ones_do() {
    let names: Vec<RefName> = (0..200_u64)
        .map(|n| match n % 3 {
            0 => format!("refs/heads/{n}"),
            1 => format!("refs/heads/with-a-long-name-in-front/{n}"),
            _ => format!("refs/heads/with-a-long-name-in-front/{n}/and-behind"),
        })
        .map(|text| RefName::new(text).unwrap())
        .collect();
    each_seed(4, |seed, _| {
        let mut chance = Chance::new(seed);
        let mut refs = Refs::new(open_config(), LINEAGE);
        let base = refs.point();
        let (mut records, mut segments, mut expected) = (Vec::new(), Vec::new(), BTreeMap::new());
        for _ in 0..12 {
            let picked: BTreeSet<&RefName> = (0..90).map(|_| chance.pick(&names)).collect();
            let commands = picked.into_iter().map(|name| match chance.below(4) {
                0 => Command::delete(name.clone()),
                _ => Command::update(name.clone(), oid(chance.below(1_000) as u64)),
            });
            let record = refs.admit(&commands.collect()).unwrap().into_record().unwrap();
            for change in record.changes() {
                let first =
                    expected.get(change.name()).map_or(change.old(), |(old, _): &(Old, Option<Value>)| old).clone();
                let _ = expected.insert(change.name().clone(), (first, change.new_value().cloned()));
            }
            segments.push(Segment::of_record(refs.point(), &record, Mode::Cover).unwrap());
            let _ = refs.apply(&record).unwrap();
            records.push(record);
        }
        let expected: Vec<Change> =
            expected.into_iter().map(|(name, (old, new))| Change::new(name, old, new)).collect();
        let folded = compact_segments(&segments).unwrap().unwrap();
        assert_eq!(folded.changes(), expected, "seed {seed}");
        assert_eq!(compact(base, Mode::Cover, &records).unwrap(), folded, "seed {seed}");
    });
}

#[test]
fn the_order_of_commands_makes_no_difference() {
    each_seed(4, |seed, steps| {
        let mut chance = Chance::new(seed);
        let refs = history(seed, steps).refs;
        for _ in 0..100 {
            let transaction = common::transaction(&mut chance, &refs, &ids());
            let reversed: Transaction = transaction.commands().iter().rev().cloned().collect();
            let (one, two) = (refs.admit(&transaction), refs.admit(&reversed));
            assert_eq!(one.as_ref().ok().map(|a| a.record()), two.as_ref().ok().map(|a| a.record()), "seed {seed}");
        }
    });
}

#[test]
fn a_gentler_policy_admits_what_git_admits() {
    each_seed(4, |seed, steps| {
        let it = history(seed, steps);
        let gentle = tenon_refslog::Config::builder(config().format(), common::key())
            .df(DfPolicy::FinalState)
            .root_refs(tenon_refslog::RootRefs::Any)
            .build()
            .unwrap();
        let mut chance = Chance::new(seed);
        for state in it.states.iter().step_by(3) {
            let other = Refs::restore(gentle.clone(), &state.snapshot()).unwrap();
            let transaction = common::transaction(&mut chance, state, &ids());
            if let Ok(admitted) = state.admit(&transaction) {
                assert_eq!(other.admit(&transaction).unwrap().record(), admitted.record(), "seed {seed}");
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the bytes are, the answer is a value or an error.
    #[test]
    fn no_input_makes_a_reader_panic(input in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Record::decode(&input);
        let _ = Segment::decode(input.clone());
        let _ = Records::new(input.clone()).count();
        if let Ok(snapshot) = Snapshot::open(input.clone()) {
            let _ = snapshot.for_each(|_, _| {});
        }
        let format = config().format();
        let _ = git::parse_packed_refs(&input, format);
        let _ = git::parse_for_each_ref(&input, &input, format);
        let _ = git::parse_hook_lines(&input, format);
        let _ = git::parse_update_ref(&input, format);
        let _ = git::parse_reflog(&input, format);
    }

    /// A name is well-formed exactly if Git's rules say so, and then it is representable and unchanged.
    #[test]
    fn names_keep_their_bytes(input in proptest::collection::vec(prop::sample::select(b"/.@{a~ lock\x7f\xff".to_vec()), 1..12)) {
        let strict = tenon_refslog::RefName::new(&input);
        if let Ok(name) = &strict {
            prop_assert_eq!(name.as_bytes(), input.as_slice());
            prop_assert!(name.is_well_formed());
            prop_assert!(tenon_refslog::RefName::broken(&input).is_ok());
        }
    }

    /// `update-ref` input is read back as it was written.
    #[test]
    fn transactions_pass_through_text(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let transaction = common::transaction(&mut chance, &Refs::new(open_config(), LINEAGE), &ids());
        // What Git has no words for is refused, and nothing else is.
        let unwritable = |command: &Command| {
            matches!((command.action(), command.old()), (Action::Set(Value::Direct(_)), Old::Is(Value::Symbolic(_))))
        };
        let Ok(text) = git::write_transaction(&transaction, config().format()) else {
            prop_assert!(transaction.commands().iter().any(unwritable));
            return Ok(());
        };
        prop_assert!(!transaction.commands().iter().any(unwritable));
        // Git's verdict on a symbolic ref that it is not told to act on itself is a refusal to read on.
        let Ok(read) = git::parse_update_ref(&text, config().format()) else {
            prop_assert!(Refs::new(open_config(), LINEAGE).admit(&transaction).is_err());
            return Ok(());
        };
        let plain = |command: &Command| (command.name().clone(), command.action().clone(), command.deref());
        prop_assert!(read.commands().iter().map(plain).eq(transaction.commands().iter().map(plain)));
        let refs = Refs::new(open_config(), LINEAGE);
        prop_assert_eq!(refs.admit(&read).ok(), refs.admit(&transaction).ok());
    }
}
