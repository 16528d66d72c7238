//! The gate by itself: what it admits, what it refuses, what it keeps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tenon_quorum::*;

const REPO: RepoId = RepoId(7);
const NODE: NodeId = NodeId(1);

fn fence(counter: u64) -> Fence {
    Fence { generation: Generation(1), counter }
}

fn stamp(version: u64, state: u8) -> Stamp {
    Stamp { epoch: Epoch(1), version: Version(version), digest: Digest([state; 16]) }
}

fn row(counter: u64, newest: Stamp) -> Row {
    Row {
        repo: REPO,
        family: REPO,
        shard: ShardId(1),
        revision: Revision(1),
        members: [1, 2, 3].map(|node| Member::voter(NodeId(node), Incarnation(1))).into_iter().collect(),
        previous: Members::default(),
        newest,
        born: Version(0),
        fence: fence(counter),
        lease: None,
        state: RowState::Live,
    }
}

fn proof(counter: u64, newest: Stamp) -> Proof {
    row(counter, newest).proof()
}

fn order(counter: u64, base: Stamp, state: u8) -> StageOrder {
    StageOrder { base: row(counter, base), digest: Digest([state; 16]) }
}

/// A gate at `v5`, raised to fence 5.
fn gate() -> FenceGate {
    let at = row(5, stamp(5, 5));
    FenceGate::new(REPO, NODE, Incarnation(1)).raise(&at).unwrap().install(&at.proof()).unwrap()
}

fn route(proof: Proof) -> Route {
    let reason = Reason::AtNewest(Tally::default());
    Route { node: NODE, incarnation: Incarnation(1), proof, reason }
}

#[test]
fn reads_are_admitted_by_what_is_applied() {
    let staged = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    for (gate, proof, admitted) in [
        (gate(), proof(5, stamp(5, 5)), Ok(Admission::Serve)),
        (gate(), proof(9, stamp(5, 5)), Ok(Admission::Serve)),
        (gate(), proof(5, stamp(4, 4)), Ok(Admission::Serve)),
        (gate(), proof(4, stamp(5, 5)), Err(GateRefusal::StaleFence { gate: fence(5) })),
        (gate(), proof(6, stamp(6, 6)), Err(GateRefusal::NotApplied { applied: stamp(5, 5) })),
        (gate(), proof(5, stamp(5, 9)), Err(GateRefusal::Divergent { applied: stamp(5, 5) })),
        (staged.clone(), proof(6, stamp(6, 6)), Ok(Admission::ApplyFirst)),
        (staged.clone(), proof(6, stamp(5, 5)), Ok(Admission::Serve)),
        (staged, proof(6, stamp(6, 9)), Err(GateRefusal::NotApplied { applied: stamp(5, 5) })),
    ] {
        assert_eq!(gate.admit_read(&route(proof)), admitted, "{proof:?}");
    }
    let other_life = Route { incarnation: Incarnation(2), ..route(proof(5, stamp(5, 5))) };
    assert_eq!(gate().admit_read(&other_life), Err(GateRefusal::OtherIncarnation { mine: Incarnation(1) }));
    let old = Proof { revision: Revision(0), ..proof(5, stamp(5, 5)) };
    assert_eq!(gate().admit_read(&route(old)), Err(GateRefusal::StaleRevision { gate: Revision(1) }));
    let other_lineage = Stamp { epoch: Epoch(2), ..stamp(4, 4) };
    assert!(gate().admit_read(&route(proof(6, other_lineage))).is_err());
}

#[test]
fn a_vote_needs_the_base_and_is_given_once_per_fence() {
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    assert_eq!(voted.staged().unwrap().stamp, stamp(6, 6));
    assert_eq!(voted.applied(), stamp(5, 5), "a vote is not the node's version");
    assert_eq!(voted.report().fence, fence(6), "raised in the same value");
    assert_eq!(voted.stage(&order(6, stamp(5, 5), 6)), Ok(voted.clone()), "repeated");
    for (gate, order, refusal) in [
        (gate(), order(4, stamp(5, 5), 6), GateRefusal::StaleFence { gate: fence(5) }),
        (gate(), order(6, stamp(4, 4), 6), GateRefusal::NotApplied { applied: stamp(5, 5) }),
        (gate(), order(6, stamp(6, 6), 7), GateRefusal::NotApplied { applied: stamp(5, 5) }),
        (gate(), order(6, stamp(5, 9), 6), GateRefusal::Divergent { applied: stamp(5, 5) }),
        (voted.clone(), order(6, stamp(5, 5), 9), GateRefusal::VotedOtherwise { staged: stamp(6, 6) }),
        (voted.clone(), order(7, stamp(6, 6), 7), GateRefusal::ApplyFirst),
    ] {
        assert_eq!(gate.stage(&order), Err(refusal), "{order:?}");
    }
    let overwritten = voted.stage(&order(7, stamp(5, 5), 8)).unwrap();
    assert_eq!(overwritten.staged().unwrap().stamp, stamp(6, 8), "a higher fence at the same base may");
}

#[test]
fn a_raise_drops_a_vote_only_if_the_row_rules_it_out() {
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    for (row, kept) in [
        (row(6, stamp(5, 5)), true),
        (row(7, stamp(5, 5)), false),
        (row(7, stamp(6, 6)), true),
        (row(7, stamp(6, 9)), false),
        (row(8, stamp(7, 7)), true),
    ] {
        assert_eq!(voted.raise(&row).unwrap().staged().is_some(), kept, "{row:?}");
    }
}

#[test]
fn what_is_proven_is_applied_and_nothing_else() {
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    let applied = voted.apply(&proof(6, stamp(6, 6))).unwrap();
    assert_eq!((applied.applied(), applied.staged()), (stamp(6, 6), None));
    assert_eq!(applied.apply(&proof(6, stamp(6, 6))), Ok(applied.clone()), "repeated");
    assert!(voted.apply(&proof(6, stamp(6, 9))).is_err());
    assert!(gate().apply(&proof(6, stamp(6, 6))).is_err());
}

#[test]
fn a_copy_needs_the_raise_first_and_never_goes_back() {
    let (shown, to) = (row(8, stamp(8, 8)), proof(8, stamp(8, 8)));
    assert_eq!(gate().install(&to), Err(GateRefusal::NotRaised { fence: fence(5) }));
    let installed = gate().raise(&shown).unwrap().install(&to).unwrap();
    assert_eq!(installed.applied(), stamp(8, 8));
    let back = proof(8, stamp(7, 7));
    assert_eq!(installed.install(&back), Err(GateRefusal::Downgrade { applied: stamp(8, 8) }));
    let other = proof(8, stamp(8, 9));
    assert_eq!(installed.install(&other), Err(GateRefusal::Divergent { applied: stamp(8, 8) }));
    // The fence rose while the copy ran: what is committed stays committed.
    let later = gate().raise(&shown).unwrap().raise(&row(9, stamp(8, 8))).unwrap();
    assert_eq!(later.install(&to).unwrap().applied(), stamp(8, 8));
    // A vote beyond the copy is kept, one that the copy holds is not.
    let beyond = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    assert!(beyond.install(&proof(6, stamp(5, 5))).unwrap().staged().is_some());
    let held = beyond.raise(&row(8, stamp(6, 6))).unwrap().install(&proof(8, stamp(6, 6))).unwrap();
    assert_eq!((held.applied(), held.staged()), (stamp(6, 6), None));
}

#[test]
fn the_same_state_in_a_later_lineage_needs_no_copy() {
    let next = Stamp { epoch: Epoch(2), version: Version(6), digest: Digest([5; 16]) };
    assert_eq!(gate().raise(&row(7, next)).unwrap().applied(), next);
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    assert_eq!(voted.raise(&row(7, next)).unwrap().staged(), None, "votes of the old lineage are dead");
}

#[test]
fn every_change_of_a_gate_counts_in_its_serial() {
    let mut serials = vec![gate().report().serial];
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    serials.push(voted.report().serial);
    serials.push(voted.apply(&proof(6, stamp(6, 6))).unwrap().report().serial);
    assert!(serials.is_sorted_by(|a, b| a < b), "{serials:?}");
    assert_eq!(voted.raise(&row(6, stamp(5, 5))).unwrap(), voted, "nothing new, nothing counted");
    let other = Row { repo: RepoId(8), ..row(9, stamp(9, 9)) };
    assert_eq!(gate().raise(&other), Err(GateRefusal::OtherRepository { mine: REPO }));
    assert_eq!(gate().install(&other.proof()), Err(GateRefusal::OtherRepository { mine: REPO }));
}

#[test]
fn a_gate_that_lost_its_state_forgets_no_fence_and_no_vote() {
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    let lost = voted.lost();
    let (before, after) = (voted.report(), lost.report());
    assert_eq!(after, Report { applied: Stamp::BLANK, serial: before.serial + 1, ..before });
    assert_eq!(lost.lost(), lost, "there is nothing more to lose");
    // The vote was for what comes after v5, which is not here: it cannot be applied onto nothing.
    let committed = proof(6, stamp(6, 6));
    let refused = GateRefusal::NotApplied { applied: Stamp::BLANK };
    assert_eq!(lost.admit_read(&route(committed)), Err(refused));
    assert_eq!(lost.apply(&committed), Err(refused));
    assert_eq!(lost.stage(&order(5, stamp(5, 5), 9)), Err(GateRefusal::StaleFence { gate: fence(6) }));
    // A copy of what it builds on makes it good again; a copy of what it led to replaces it.
    let back = lost.install(&proof(6, stamp(5, 5))).unwrap();
    assert_eq!(back.staged(), voted.staged());
    assert_eq!(back.apply(&committed).unwrap().applied(), stamp(6, 6));
    let over = lost.install(&committed).unwrap();
    assert_eq!((over.applied(), over.staged()), (stamp(6, 6), None));
}

#[test]
fn a_vote_is_not_applied_to_what_was_lost() {
    let lost = gate().stage(&order(6, stamp(5, 5), 6)).unwrap().lost();
    let committed = proof(6, stamp(6, 6));
    assert_eq!(lost.apply(&committed), Err(GateRefusal::NotApplied { applied: Stamp::BLANK }));
    assert_eq!(lost.admit_read(&route(committed)), Err(GateRefusal::NotApplied { applied: Stamp::BLANK }));
    assert_eq!(lost.install(&committed).unwrap().applied(), stamp(6, 6));
}

#[test]
fn a_gate_keeps_the_newest_row_that_it_was_shown() {
    let two = Row { revision: Revision(2), ..row(7, stamp(5, 5)) };
    let raised = gate().raise(&two).unwrap();
    assert_eq!((raised.row(), raised.report().revision), (Some(&two), Revision(2)));
    // What is as high as the gate, but older, is admitted and not kept.
    let before = raised.raise(&Row { newest: stamp(4, 4), ..two.clone() }).unwrap();
    assert_eq!(before.row(), Some(&two));
    // A proof alone raises the fence, and says nothing of members.
    let voted = raised.stage(&StageOrder { base: two.clone(), digest: Digest([6; 16]) }).unwrap();
    let proof = Proof { revision: Revision(3), fence: fence(9), ..proof(9, stamp(6, 6)) };
    let applied = voted.apply(&proof).unwrap();
    let report = applied.report();
    assert_eq!((report.fence, report.revision, applied.row()), (fence(9), Revision(2), Some(&two)));
}

#[test]
fn a_promise_rules_out_every_earlier_life_of_the_store() {
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    let promised = voted.promise(Generation(2)).unwrap();
    let (before, after) = (voted.report(), promised.report());
    // What the vote and the fence say of the earlier life is what a recovery must see.
    assert_eq!(after, Report { generation: Generation(2), serial: before.serial + 1, ..before });
    assert_eq!(promised.promise(Generation(2)).unwrap(), promised, "repeated");
    let stale = GateRefusal::StaleGeneration { gate: Generation(2) };
    assert_eq!(promised.promise(Generation(1)), Err(stale));
    assert_eq!(promised.raise(&row(99, stamp(5, 5))), Err(stale));
    assert_eq!(promised.stage(&order(99, stamp(5, 5), 6)), Err(stale));
    assert_eq!(promised.apply(&proof(6, stamp(6, 6))), Err(stale));
    assert_eq!(promised.install(&proof(5, stamp(5, 5))), Err(stale));
    assert_eq!(promised.admit_read(&route(proof(6, stamp(5, 5)))), Err(stale));
    // Configurations are counted anew in the next life.
    let recovered =
        Row { revision: Revision(0), fence: Fence { generation: Generation(2), counter: 1 }, ..row(0, stamp(6, 6)) };
    let raised = promised.raise(&recovered).unwrap();
    assert_eq!((raised.report().revision, raised.staged().is_some()), (Revision(0), true));
    assert_eq!(raised.apply(&recovered.proof()).unwrap().applied(), stamp(6, 6));
}

#[test]
fn one_call_shows_a_row_or_serves_a_read_and_applies_what_either_proves() {
    let voted = gate().stage(&order(6, stamp(5, 5), 6)).unwrap();
    let (committed, lost) = (row(6, stamp(6, 6)), row(7, stamp(5, 5)));
    let stepwise = voted.raise(&committed).unwrap().apply(&committed.proof()).unwrap();
    assert_eq!(voted.show(&committed).unwrap().report(), stepwise.report());
    assert_eq!(voted.show(&lost).unwrap(), voted.raise(&lost).unwrap(), "nothing to apply");
    assert_eq!(voted.show(&row(4, stamp(5, 5))), Err(GateRefusal::StaleFence { gate: fence(6) }));
    let read = route(committed.proof());
    assert_eq!(voted.serve(&read).unwrap(), voted.apply(&committed.proof()).unwrap());
    assert_eq!(voted.serve(&route(lost.proof())).unwrap(), voted, "a read raises nothing");
    assert!(gate().serve(&read).is_err());
}
