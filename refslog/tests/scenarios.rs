//! Given / when / then: the log in short stories. Admission has tables of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{LINEAGE, config, empty, id, name, oid, refs_of, symbolic};
use tenon_refslog::{
    Agreement, Bisection, Change, Checksum, Command, CompactError, Form, LineageId, MergeError, Mode, Old, Point,
    Record, Refs, ReplayError, Replayed, Segment, Version, compact, compact_segments, diff,
};

/// A log of `main` moving along the ids, one record a step.
fn moves(ids: &[u64]) -> (Refs, Vec<Record>) {
    let mut refs = empty();
    let mut records = Vec::new();
    for to in ids {
        let update = Command::update(name("refs/heads/main"), oid(*to));
        let record = refs.admit(&update.into()).unwrap().into_record().unwrap();
        assert_eq!(refs.apply(&record).unwrap(), Replayed::Applied);
        records.push(record);
    }
    (refs, records)
}

fn genesis() -> Point {
    Point::genesis(LINEAGE)
}

#[test]
fn records_fold_and_replay_gives_the_same() {
    // `main` starts at 1; one record says 5, the next 6: they fold into one that says 6.
    let (end, records) = moves(&[1, 5, 6]);
    let mut replica = empty();
    let _ = replica.apply(&records[0]).unwrap();
    let folded = compact(replica.point(), Mode::Cover, &records[1..]).unwrap();
    assert_eq!(folded.changes(), [Change::new(name("refs/heads/main"), Old::Is(id(1)), Some(id(6)))]);
    assert_eq!(replica.replay(&folded).unwrap(), Replayed::Applied);
    assert_eq!(replica.point(), end.point());
    assert!(diff(&replica, &end).is_empty());
}

#[test]
fn a_replica_in_the_middle_of_a_to_e_to_a_does_not_keep_e() {
    let (end, records) = moves(&[1, 5, 1]);
    let base = records[0].after();
    let mut middle = empty();
    for record in &records[..2] {
        let _ = middle.apply(record).unwrap();
    }
    let exact = compact(base, Mode::Exact, &records[1..]).unwrap();
    assert!(exact.changes().is_empty());
    let refused = middle.replay(&exact).unwrap_err();
    assert_eq!(refused, ReplayError::NotAtBase { have: Version(2), need: Version(1) });
    let cover = compact(base, Mode::Cover, &records[1..]).unwrap();
    assert_eq!(cover.changes().len(), 1);
    assert_eq!(middle.replay(&cover).unwrap(), Replayed::Applied);
    assert_eq!(middle.point(), end.point());
}

#[test]
fn replay_refuses_what_it_cannot_take() {
    let (_, records) = moves(&[1, 2, 3]);
    let mut replica = empty();
    assert_eq!(replica.apply(&records[1]).unwrap_err(), ReplayError::Gap { have: Version(0), need: Version(1) });
    let _ = replica.apply(&records[0]).unwrap();
    assert_eq!(replica.apply(&records[0]).unwrap(), Replayed::AlreadyApplied);
    let mut stranger = Refs::new(config(), LineageId(9));
    let mismatch = ReplayError::LineageMismatch { have: LineageId(9), found: LINEAGE };
    assert_eq!(stranger.apply(&records[0]).unwrap_err(), mismatch);
}

#[test]
fn a_diverged_replica_is_told_so_and_keeps_its_refs() {
    let (_, records) = moves(&[1, 2]);
    let entries = [(name("refs/heads/main"), id(1)), (name("refs/heads/stray"), id(1))];
    let mut diverged = Refs::from_entries(config(), LINEAGE, Version(1), entries).unwrap();
    let before = diverged.snapshot().as_bytes().clone();
    assert!(matches!(diverged.apply(&records[1]), Err(ReplayError::ChecksumMismatch { .. })));
    let other = [(name("refs/heads/main"), id(7))];
    let mut wrong = Refs::from_entries(config(), LINEAGE, Version(1), other).unwrap();
    let why = ReplayError::OldMismatch { name: name("refs/heads/main") };
    assert_eq!(wrong.apply(&records[1]).unwrap_err(), why);
    assert_eq!(*diverged.snapshot().as_bytes(), before);
}

#[test]
fn a_tombstone_reaches_a_replica_that_still_has_the_ref() {
    let mut refs = refs_of(&[("refs/heads/a", id(1))]);
    let base = refs.point();
    let behind = refs.clone();
    let mut records = Vec::new();
    for update in [Command::delete(name("refs/heads/a")), Command::create(name("refs/heads/b"), oid(2))] {
        let record = refs.admit(&update.into()).unwrap().into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
        records.push(record);
    }
    for form in [Form::Invertible, Form::ForwardOnly] {
        let cover = compact(base, Mode::Cover, &records).unwrap();
        let cover = if form == Form::ForwardOnly { cover.forward_only() } else { cover };
        let mut replica = behind.clone();
        let _ = replica.replay(&cover).unwrap();
        assert_eq!(replica.point(), refs.point());
    }
}

#[test]
fn composition_refuses_what_does_not_fit() {
    let (_, records) = moves(&[1, 2, 3]);
    let part = |at: usize| {
        let base = if at == 0 { genesis() } else { records[at - 1].after() };
        Segment::of_record(base, &records[at], Mode::Cover).unwrap()
    };
    let gap = CompactError::NotAdjacent { end: Version(1), base: Version(2) };
    assert_eq!(part(0).then(&part(2)).unwrap_err(), gap);
    // At the right version, but from other refs.
    let other_refs = Point { checksum: Checksum::EMPTY, ..records[0].after() };
    let fork = Segment::of_record(other_refs, &records[1], Mode::Cover).unwrap();
    assert_eq!(part(0).then(&fork).unwrap_err(), CompactError::Diverged { at: Version(1) });
    let forward = part(1).forward_only();
    assert_eq!(forward.clone().exact().unwrap_err(), CompactError::NeedsOldValues);
    assert_eq!(part(0).then(&forward).unwrap().form(), Form::ForwardOnly);
    let elsewhere = Record::new(
        Point { lineage: LineageId(3), ..records[1].after() },
        vec![Change::new(name("refs/heads/main"), Old::Any, None)],
    );
    let strange = Segment::of_record(records[0].after(), &elsewhere.unwrap(), Mode::Cover);
    assert_eq!(strange.unwrap_err(), CompactError::LineageMismatch { have: LINEAGE, found: LineageId(3) });
    assert_eq!(compact_segments([]).unwrap(), None);
    // Adjacent and of equal checksums, but the second replaces what the first never left.
    let taken_up = Change::new(name("refs/heads/main"), Old::Is(id(9)), Some(id(2)));
    let contradicting = Record::new(records[1].after(), vec![taken_up]).unwrap();
    let broken = compact(genesis(), Mode::Cover, [&records[0], &contradicting]);
    assert_eq!(broken.unwrap_err(), CompactError::Broken { name: name("refs/heads/main") });
    let mut at_one = empty();
    let _ = at_one.apply(&records[0]).unwrap();
    let segment = Segment::of_record(at_one.point(), &contradicting, Mode::Cover).unwrap();
    assert!(matches!(at_one.snapshot().merge(&segment), Err(MergeError::OldMismatch { .. })));
}

#[test]
fn pending_changes_are_those_of_this_replica() {
    let (end, records) = moves(&[1, 5, 6]);
    let cover = compact(genesis(), Mode::Cover, &records).unwrap();
    let mut middle = empty();
    let _ = middle.apply(&records[0]).unwrap();
    let pending = middle.pending(&cover).unwrap();
    assert_eq!(pending, [Change::new(name("refs/heads/main"), Old::Is(id(1)), Some(id(6)))]);
    assert!(end.pending(&cover).unwrap().is_empty());
}

#[test]
fn a_forked_replica_is_taken_back() {
    let (end, records) = moves(&[1, 2]);
    let mut fork = empty();
    let _ = fork.apply(&records[0]).unwrap();
    let common = fork.clone();
    let stray = fork.admit(&Command::delete(name("refs/heads/main")).into()).unwrap().into_record().unwrap();
    let _ = fork.apply(&stray).unwrap();
    // At the same version, and somewhere else.
    let elsewhere = fork.replay(&compact(end.point(), Mode::Cover, &[]).unwrap());
    assert!(matches!(elsewhere, Err(ReplayError::ChecksumMismatch { version: Version(2), .. })), "{elsewhere:?}");
    let forward = Segment::of_record(common.point(), &stray, Mode::Cover).unwrap();
    assert_eq!(fork.rollback(&forward.forward_only()), Err(ReplayError::NeedsOldValues));
    let other = Segment::of_record(common.point(), &records[1], Mode::Cover).unwrap();
    assert!(matches!(fork.rollback(&other), Err(ReplayError::ChecksumMismatch { .. })));
    fork.rollback(&forward).unwrap();
    assert_eq!(fork.point(), common.point());
    let _ = fork.apply(&records[1]).unwrap();
    assert_eq!(fork.point(), end.point());
}

#[test]
fn the_parting_of_two_logs_is_found_in_few_probes() {
    for parting in [0_u64, 1, 499, 500, 998, 999] {
        let mut search = Bisection::new(Version(0), Version(1_000)).unwrap();
        let mut probes = 0;
        while let Some(at) = search.probe() {
            search.handle_answer(Version(at.0 + 1), Agreement::Different); // not asked for
            search.handle_answer(at, if at.0 <= parting { Agreement::Equal } else { Agreement::Different });
            probes += 1;
        }
        assert_eq!(search.parting(), Some(Version(parting)));
        assert!(probes <= 10);
    }
    assert_eq!(Bisection::new(Version(3), Version(3)), None);
}

#[test]
fn head_counts_for_the_checksum() {
    let main = refs_of(&[("HEAD", symbolic("refs/heads/main"))]);
    let dev = refs_of(&[("HEAD", symbolic("refs/heads/dev"))]);
    assert_ne!(main.checksum(), dev.checksum());
}
