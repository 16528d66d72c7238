//! Two sets of refs without a common log: what they differ in, and how much was sent to know.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its seed from a variable")]

mod common;

use std::collections::BTreeSet;

use common::{Chance, LINEAGE, config, id, name, seed_and_steps};
use tenon_refslog::{
    Cell, ChecksumKey, Config, Difference, LineageId, ObjectFormat, Reconciler, RefName, Refs, Sketch, SketchError,
    Value, Version,
};

/// Two sets of which `common` refs are equal, and `here` and `there` on one side only.
fn pair(chance: &mut Chance, common: usize, here: usize, there: usize) -> (Refs, Refs) {
    let entry = |n: usize, value: u64| (name(&format!("refs/changes/{n}")), id(value));
    let all: Vec<(RefName, Value)> = (0..common + here + there).map(|n| entry(n, chance.next() >> 8)).collect();
    let build = |lineage, entries: Vec<(RefName, Value)>| {
        Refs::from_entries(config(), LineageId(lineage), Version(1), entries).unwrap()
    };
    let one = all[..common + here].to_vec();
    let other = [&all[..common], &all[common + here..]].concat();
    (build(1, one), build(2, other))
}

fn reconcile(here: &Refs, there: &Refs) -> (Difference, usize) {
    let mut sketch = Sketch::new(there);
    let mut reconciler = Reconciler::new(here, 1_000_000);
    let mut bytes = 0;
    loop {
        let mut sent = Vec::new();
        sketch.next_cell().encode_into(&mut sent);
        bytes += sent.len();
        for cell in Cell::decode_all(&sent).unwrap() {
            if let Some(difference) = reconciler.handle_cell(cell).unwrap() {
                return (difference.clone(), bytes);
            }
        }
    }
}

#[test]
fn what_differs_is_found_and_little_is_sent() {
    let (seed, _) = seed_and_steps(7, 0);
    let mut chance = Chance::new(seed);
    for (common, one, other) in [(0, 0, 5), (100, 0, 0), (100, 1, 0), (500, 3, 4), (2_000, 150, 50), (10, 300, 300)] {
        let (here, there) = pair(&mut chance, common, one, other);
        let (difference, bytes) = reconcile(&here, &there);
        let of = |ids: &[_], refs: &Refs| refs.entries_of(ids).into_iter().collect::<Vec<_>>();
        let only = |of: &Refs, not: &Refs| {
            let others: BTreeSet<RefName> = not.iter().map(|(name, _)| name).collect();
            of.iter().filter(|(name, _)| !others.contains(name)).collect::<Vec<_>>()
        };
        assert_eq!(of(&difference.here, &here), only(&here, &there), "seed {seed}");
        assert_eq!(of(&difference.there, &there), only(&there, &here), "seed {seed}");
        let differences = one + other;
        if differences >= 200 {
            assert!(bytes <= differences * 38, "{bytes} bytes for {differences} differences, seed {seed}");
        }
        if differences == 0 {
            assert_eq!(here.checksum(), there.checksum(), "equal sets are told by their checksums: nothing is sent");
        }
    }
}

#[test]
fn another_key_is_no_difference_of_refs() {
    let (here, _) = pair(&mut Chance::new(1), 20, 0, 0);
    let other = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([9; 32])).build().unwrap();
    let there = Refs::from_entries(other, LINEAGE, Version(1), here.iter()).unwrap();
    let mut sketch = Sketch::new(&there);
    let mut reconciler = Reconciler::new(&here, 30);
    let mut outcome = Ok(None);
    for _ in 0..40 {
        outcome = reconciler.handle_cell(sketch.next_cell()).map(Option::<&Difference>::cloned);
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome, Err(SketchError::TooManyCells { max: 30 }));
}

#[test]
fn cells_from_nowhere_end_in_an_error() {
    let (here, _) = pair(&mut Chance::new(2), 20, 0, 0);
    let mut chance = Chance::new(3);
    for _ in 0..200 {
        let mut reconciler = Reconciler::new(&here, 50);
        let ended = (0..60).any(|_| {
            let bytes: Vec<u8> = (0..24).map(|_| u8::try_from(chance.below(256)).unwrap()).collect();
            reconciler.handle_cell(Cell::decode_all(&bytes).unwrap()[0]).is_err()
        });
        assert!(ended);
    }
    assert!(Cell::decode_all(&[0; 20]).is_err());
}
