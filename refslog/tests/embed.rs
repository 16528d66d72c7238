//! What hosts of Git build on: payloads, undo, admission over a snapshot, installing one, finding where logs part.
//!
//! Replay: `REFSLOG_SEED=n REFSLOG_STEPS=m cargo test -p tenon-refslog --test embed`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its seed from a variable")]

mod common;

use std::collections::BTreeMap;

use common::{Chance, LINEAGE, config, name, oid, open_config, seed_and_steps};
use tenon_refslog::{
    AdmitError, Agreement, Bisection, Command, Config, DfPolicy, InstallError, KeptReason, LineageId, Log, LogConfig,
    LogError, Mode, ObjectFormat, Piece, Plan, Record, RefName, Refs, Replayed, RootRefs, Segment, Snapshot, Tip,
    Transaction, Value, Version,
};

/// A history of which every state and record is at hand.
struct History {
    states: Vec<Refs>,
    records: Vec<Record>,
}

impl History {
    fn end(&self) -> &Refs {
        self.states.last().unwrap()
    }

    /// A random history by three actors, whose names are payloads.
    fn random(chance: &mut Chance, config: Config, steps: usize) -> Self {
        let ids: Vec<_> = (0..4).map(oid).collect();
        let mut it = Self { states: vec![Refs::new(config, LINEAGE)], records: Vec::new() };
        for _ in 0..steps {
            let transaction = common::transaction(chance, it.end(), &ids);
            let Some(record) = it.end().admit(&transaction).ok().and_then(tenon_refslog::Admitted::into_record) else {
                continue;
            };
            it.push(record.with_payload([u8::try_from(chance.below(3)).unwrap() + b'a']).unwrap());
        }
        it
    }

    fn push(&mut self, record: Record) {
        let mut refs = self.end().clone();
        let _ = refs.apply(&record).unwrap();
        self.states.push(refs);
        self.records.push(record);
    }

    fn log(&self, rule: LogConfig) -> Log {
        let mut log = Log::new(rule, self.states[0].snapshot());
        for record in &self.records {
            let _ = log.append(record.clone()).unwrap();
        }
        log
    }
}

/// Folds and absorbs until nothing is left to do.
fn settle(log: &mut Log) {
    loop {
        match log.plan(u64::MAX) {
            Plan::Fold(stretch) => drop(log.handle_folded(log.fold(&stretch).unwrap().segment)),
            Plan::Absorb(stretch) => drop(log.handle_absorbed(log.absorb(&stretch).unwrap().snapshot)),
            Plan::Nothing | Plan::OverBudget(_) => return,
        }
    }
}

fn keeping(versions: u64) -> LogConfig {
    LogConfig::builder().min_records(2).retain_versions(versions).build().unwrap()
}

/// A payload is the host's own, to the byte, and counts for nothing else; a fold keeps none.
#[test]
fn payloads_live_as_long_as_their_records() {
    let mut chance = Chance::new(3);
    let it = History::random(&mut chance, open_config(), 60);
    let plain = it.records[0].clone().with_payload([]).unwrap();
    assert_ne!(plain, it.records[0]);
    assert_eq!((plain.after(), plain.changes()), (it.records[0].after(), it.records[0].changes()));
    for record in &it.records {
        let read = Record::decode(&record.encode()).unwrap();
        assert_eq!(read.payload(), record.payload());
        assert_eq!(read.forward_only().payload(), record.payload());
    }
    let longest = vec![7; Record::MAX_PAYLOAD];
    let full = plain.clone().with_payload(longest.clone()).unwrap();
    assert_eq!(Record::decode(&full.encode()).unwrap().payload(), longest);
    let refused = plain.with_payload([&longest[..], &[7]].concat()).unwrap_err();
    assert_eq!(refused.len, Record::MAX_PAYLOAD + 1);
    let mut log = it.log(keeping(5));
    settle(&mut log);
    let kept: Vec<&[u8]> = log
        .pieces()
        .filter_map(|piece| match piece {
            Piece::Record(record) => Some(record.payload()),
            Piece::Segment(_) => None,
        })
        .collect();
    let expected: Vec<&[u8]> = it.records[it.records.len() - 5..].iter().map(Record::payload).collect();
    assert_eq!(kept, expected, "those of the retained versions");
}

/// What gives an actor's changes back, against a naive reading of every state.
#[test]
fn an_actor_is_undone_where_nobody_came_after() {
    let (seed, steps) = seed_and_steps(40, 60);
    let (mut given, mut kept) = (0, 0);
    for seed in seed..seed + 40 {
        let mut chance = Chance::new(seed);
        let len = 1 + chance.below(steps);
        let it = History::random(&mut chance, open_config(), len);
        let refs = it.end();
        let log = it.log(keeping(1_000));
        let actor = [b'a' + u8::try_from(chance.below(3)).unwrap()];
        let undo = log.undo(refs, |record| record.payload() == actor).unwrap();
        let ours: Vec<usize> = (0..it.records.len()).filter(|at| it.records[*at].payload() == actor).collect();
        assert_eq!(undo.versions, ours.iter().map(|at| it.records[*at].version()).collect::<Vec<_>>(), "seed {seed}");
        // Of each ref, who moved it: from the newest on, as long as it was the actor.
        let mut goal: BTreeMap<RefName, Option<Value>> = BTreeMap::new();
        let mut buried = 0;
        for target in common::NAMES.map(name) {
            let touches = |record: &Record| record.changes().iter().any(|change| *change.name() == target);
            let movers: Vec<usize> = (0..it.records.len()).filter(|at| touches(&it.records[*at])).collect();
            let last: Vec<usize> = movers.iter().rev().copied().take_while(|at| ours.contains(at)).collect();
            if let Some(first) = last.last() {
                let _ = goal.insert(target.clone(), it.states[*first].get(&target));
            }
            buried += movers.iter().filter(|at| ours.contains(at) && !last.contains(at)).count();
        }
        let moved: Vec<_> =
            undo.kept.iter().filter(|kept| matches!(kept.reason, KeptReason::MovedSince { .. })).collect();
        assert_eq!(moved.len(), buried, "seed {seed}");
        let refused: Vec<_> = undo.kept.iter().filter(|kept| matches!(kept.reason, KeptReason::Refused(_))).collect();
        assert_eq!(moved.len() + refused.len(), undo.kept.len(), "seed {seed}");
        let record = refs.admit(&undo.transaction).unwrap().into_record();
        let mut after = refs.clone();
        if let Some(record) = &record {
            let _ = after.apply(record).unwrap();
        }
        for target in common::NAMES.map(name) {
            let stays = refused.iter().any(|kept| kept.name == target);
            let expected = match goal.get(&target) {
                Some(value) if !stays => value.clone(),
                _ => refs.get(&target),
            };
            assert_eq!(after.get(&target), expected, "{target}, seed {seed}: {undo:#?}");
        }
        given += record.map_or(0, |record| record.changes().len());
        kept += undo.kept.len();
    }
    assert!(given > 50 && kept > 20, "{given} given back, {kept} kept");
}

#[test]
fn an_undo_says_what_it_cannot_look_at_or_into() {
    let mut refs = Refs::new(config(), LINEAGE);
    let mut log = Log::new(keeping(2), refs.snapshot());
    log.handle_progress(tenon_refslog::ReplicaId(1), Version(0)).unwrap();
    for n in 0..6 {
        let update = Command::update(name("refs/heads/a"), oid(n));
        let record = refs.admit(&update.into()).unwrap().into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
        // The last two do not say what they replaced.
        let _ = log.append(if n < 4 { record } else { record.forward_only() }).unwrap();
    }
    let newest = |record: &Record| record.version() == Version(6);
    let undo = log.undo(&refs, newest).unwrap();
    assert_eq!((undo.folded.len(), undo.kept.len(), undo.transaction.commands().len()), (0, 0, 1), "found before it");
    settle(&mut log);
    let undo = log.undo(&refs, |record| record.version() >= Version(5)).unwrap();
    assert_eq!((undo.folded.as_slice(), undo.kept.len()), (&[(Version(0), Version(4))][..], 0));
    let record = refs.admit(&undo.transaction).unwrap().into_record().unwrap();
    assert_eq!(record.changes()[0].new_value(), Some(&oid(3).into()), "the fold's end is told");
    let behind = Refs::new(config(), LINEAGE);
    assert!(matches!(log.undo(&behind, newest), Err(LogError::NotAtEnd { .. })));
}

/// The two faces of admission answer alike, verdict by verdict, and stand at the same point after each record.
#[test]
fn a_snapshot_and_a_tail_admit_as_all_refs_do() {
    let (seed, steps) = seed_and_steps(70, 120);
    let ids: Vec<_> = (0..4).map(oid).collect();
    let mut refused = 0;
    for (seed, df) in (seed..seed + 6).flat_map(|seed| [(seed, DfPolicy::GitCompat), (seed, DfPolicy::FinalState)]) {
        let rules = Config::builder(ObjectFormat::Sha1, common::key()).df(df).root_refs(RootRefs::Any).build().unwrap();
        let mut chance = Chance::new(seed);
        let mut refs = Refs::new(rules.clone(), LINEAGE);
        let mut tip = Tip::new(rules.clone(), refs.snapshot()).unwrap();
        for step in 0..steps {
            let transaction = common::transaction_over(&mut chance, &refs, &ids, common::of_any_class);
            match (refs.admit(&transaction), tip.admit(&transaction)) {
                (Ok(one), Ok(other)) => {
                    assert_eq!(one, other, "step {step}, seed {seed}");
                    if let Some(record) = one.into_record() {
                        let base = refs.point();
                        let _ = refs.apply(&record).unwrap();
                        if chance.one_in(2) {
                            assert_eq!(tip.apply(&record), Ok(Replayed::Applied));
                        } else {
                            let segment = Segment::of_record(base, &record, Mode::Cover).unwrap();
                            assert_eq!(tip.replay(&segment), Ok(Replayed::Applied));
                        }
                        assert_eq!(tip.apply(&record), Ok(Replayed::AlreadyApplied));
                    }
                }
                (Err(one), Err(AdmitError::Refused(other))) => {
                    assert_eq!(one, other, "step {step}, seed {seed}");
                    refused += 1;
                }
                (one, other) => panic!("{one:?}, {other:?}; step {step}, seed {seed}"),
            }
            assert_eq!(tip.point(), refs.point(), "step {step}, seed {seed}");
            let target = common::ordinary(&mut chance);
            assert_eq!(tip.get(&target).unwrap(), refs.get(&target));
            assert_eq!(tip.resolve(&target).unwrap(), refs.resolve(&target));
            if chance.one_in(10) {
                assert!(Refs::try_from(&tip).unwrap().iter().eq(refs.iter()), "step {step}, seed {seed}");
                tip = Tip::new(rules.clone(), refs.snapshot()).unwrap();
            }
        }
    }
    assert!(refused > 300);
}

#[test]
fn a_log_has_its_tip_wherever_it_is_folded() {
    for seed in 0..6 {
        let mut chance = Chance::new(seed);
        let it = History::random(&mut chance, open_config(), 60);
        let mut log = it.log(keeping(chance.below(20) as u64));
        settle(&mut log);
        let tip = log.tip(open_config()).unwrap();
        assert_eq!(tip.point(), it.end().point(), "seed {seed}");
        assert!(Refs::try_from(&tip).unwrap().iter().eq(it.end().iter()), "seed {seed}");
        // What does not follow changes nothing.
        let mut tip = Tip::new(open_config(), it.states[0].snapshot()).unwrap();
        assert!(matches!(tip.apply(&it.records[1]), Err(LogError::Replay(_))));
        let other = it.records[0].changes().to_vec();
        let elsewhere = tenon_refslog::Point { checksum: it.records[1].after().checksum, ..it.records[0].after() };
        assert!(tip.apply(&Record::new(elsewhere, other).unwrap()).is_err());
        assert_eq!((tip.point(), tip.changed()), (it.states[0].point(), 0));
    }
}

/// What is damaged is told where it is read, and nothing is admitted on a guess.
#[test]
fn a_damaged_snapshot_admits_nothing_that_reads_it() {
    let all = (0..3_000).map(|n| (name(&format!("refs/changes/{n:05}")), oid(n).into()));
    let refs = Refs::from_entries(config(), LINEAGE, Version(1), all).unwrap();
    let good = refs.snapshot().as_bytes().clone();
    let update = Command::update(name("refs/changes/01500"), oid(1)).into();
    let (mut read, mut passed) = (0, 0);
    for at in (5..good.len() - 100).step_by(97) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 4;
        let Ok(snapshot) = Snapshot::open(bytes) else { continue };
        match Tip::new(config(), snapshot).unwrap().admit(&update) {
            Err(AdmitError::Decode(_)) => read += 1,
            answer => {
                assert_eq!(answer.unwrap(), refs.admit(&update).unwrap(), "byte {at}");
                passed += 1;
            }
        }
    }
    assert!(read > 5 && passed > 10 * read, "{read} blocks are on the way, {passed} are not");
}

#[test]
fn installing_a_snapshot_goes_forward_only() {
    let mut chance = Chance::new(5);
    let it = History::random(&mut chance, open_config(), 40);
    let newest = it.end().snapshot();
    for state in &it.states {
        let mut refs = state.clone();
        let expected = if state.point() == it.end().point() { Replayed::AlreadyApplied } else { Replayed::Applied };
        assert_eq!(refs.install(&newest), Ok(expected));
        assert!(refs.point() == it.end().point() && refs.iter().eq(it.end().iter()));
        if state.point() != refs.point() {
            let older = InstallError::Older { have: refs.version(), found: state.version() };
            assert_eq!(refs.install(&state.snapshot()), Err(older));
            assert_eq!(refs.point(), it.end().point());
        }
    }
    // A diverged replica at the same version takes what the log holds; another log's is refused.
    let entries = [(name("refs/heads/stray"), oid(1).into())];
    let mut diverged = Refs::from_entries(open_config(), LINEAGE, it.end().version(), entries.clone()).unwrap();
    assert_eq!(diverged.install(&newest), Ok(Replayed::Applied));
    assert_eq!(diverged.point(), it.end().point());
    let mut stranger = Refs::from_entries(open_config(), LineageId(9), Version(1), entries).unwrap();
    assert!(matches!(stranger.install(&newest), Err(InstallError::LineageMismatch { .. })));
    let mut damaged = newest.as_bytes().to_vec();
    damaged[9] ^= 1;
    let mut behind = it.states[0].clone();
    assert!(matches!(behind.install(&Snapshot::open(damaged).unwrap()), Err(InstallError::Restore(_))));
    assert_eq!(behind.point(), it.states[0].point());
}

/// Two logs of one history that part at some version, each folded in its own way: where they part is found as closely as it
/// can be told.
#[test]
fn where_folded_logs_part_is_found() {
    let mut exact = 0;
    for seed in 0..60 {
        let mut chance = Chance::new(seed);
        let mut one = History::random(&mut chance, open_config(), 60);
        let common = chance.below(one.records.len());
        let mut other = History { states: one.states[..=common].to_vec(), records: one.records[..common].to_vec() };
        // The fork has a ref of its own from there on, so that the two are never equal again.
        let stray: Transaction = Command::create(name("refs/stray"), oid(1)).into();
        other.push(other.end().admit(&stray).unwrap().into_record().unwrap());
        for at in 0..8 {
            let touch = |n: u64| Transaction::from(Command::update(name("refs/touched"), oid(n)));
            other.push(other.end().admit(&touch(at)).unwrap().into_record().unwrap());
            one.push(one.end().admit(&touch(at)).unwrap().into_record().unwrap());
        }
        let mut logs = [&one, &other].map(|it| {
            let mut log = it.log(keeping(chance.below(40) as u64));
            log.handle_progress(tenon_refslog::ReplicaId(1), Version(0)).unwrap();
            let pinned = Version(chance.below(it.records.len()) as u64);
            log.pin(tenon_refslog::PinId(1), pinned).unwrap();
            log
        });
        logs.iter_mut().for_each(settle);
        let last = logs[0].end().version.min(logs[1].end().version);
        // The last version that both can tell.
        let readable = |version: Version| logs.iter().all(|log| log.checksum_at(version).is_ok());
        let end = (0..=last.0).rev().map(Version).find(|version| readable(*version)).unwrap();
        if end.0 <= common as u64 {
            continue;
        }
        let mut search = Bisection::new(Version(0), end).unwrap();
        let mut probes = 0;
        while let Some(at) = search.probe() {
            probes += 1;
            assert!(probes < 64, "seed {seed}");
            match [logs[0].checksum_at(at), logs[1].checksum_at(at)] {
                [Err(LogError::VersionCompacted { base, end, .. }), _]
                | [Ok(_), Err(LogError::VersionCompacted { base, end, .. })] => search.handle_folded(at, base, end),
                [Ok(one), Ok(other)] if one == other => search.handle_answer(at, Agreement::Equal),
                _ => search.handle_answer(at, Agreement::Different),
            }
        }
        let (equal, different) = search.bounds();
        assert!(
            equal.0 <= common as u64 && different.0 > common as u64,
            "{equal}..{different} of {common}, seed {seed}"
        );
        let between = (equal.0 + 1..different.0).map(Version).find(|version| readable(*version));
        assert_eq!(between, None, "nothing between can be told; seed {seed}");
        assert_eq!(search.parting(), Some(equal));
        exact += usize::from(different.0 == equal.0 + 1);
    }
    assert!(exact > 5, "{exact}");
}
