//! What can be written as plain data is read back as it was, and what is no value of its type is refused.
#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fmt::Debug;

use common::{Chance, LINEAGE, empty, id, name, oid, open_config, symbolic};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenon_refslog::{
    Agreement, Bisection, Cell, Change, Command, Difference, HeadDeletion, Log, LogConfig, Mode, ObjectId, Old, Plan,
    Reason, Record, RefName, Refs, Segment, Sketch, Target, Transaction, Value, Verdict, Version, compact, git,
};

fn passes<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
}

fn refused<T: DeserializeOwned + Debug>(text: &str) -> String {
    serde_json::from_str::<T>(text).unwrap_err().to_string()
}

#[test]
fn a_history_passes_through() {
    let ids: Vec<_> = (0..4).map(oid).collect();
    let mut chance = Chance::new(11);
    let mut refs = Refs::new(open_config(), LINEAGE);
    let base = refs.point();
    let mut records = Vec::new();
    let mut reasons = 0;
    for _ in 0..150 {
        let transaction = common::transaction(&mut chance, &refs, &ids);
        passes(&transaction);
        match refs.admit(&transaction) {
            Ok(admitted) => {
                if let Some(record) = admitted.into_record() {
                    passes(&record);
                    passes(&record.forward_only());
                    let _ = refs.apply(&record).unwrap();
                    records.push(record);
                }
            }
            Err(refusal) => {
                refusal.verdicts().iter().for_each(passes::<Verdict>);
                reasons += refusal.reasons().count();
            }
        }
        passes(&refs.point());
    }
    assert!(records.len() > 20 && reasons > 20);
    for mode in [Mode::Cover, Mode::Exact] {
        passes(&compact(base, mode, &records).unwrap());
    }
    let mut log = Log::new(LogConfig::builder().min_records(2).retain_versions(0).build().unwrap(), empty().snapshot());
    passes(&log.standing(Version(0)));
    for record in records {
        let _ = log.append(record).unwrap();
    }
    passes(&log.standing(Version(3)));
    let plan = log.plan(u64::MAX);
    assert!(matches!(plan, Plan::Fold(_) | Plan::Absorb(_)));
    passes(&plan);
}

#[test]
fn odd_values_pass_through() {
    passes(&RefName::new(b"refs/heads/caf\xe9").unwrap());
    passes(&RefName::broken("refs/heads/a..b").unwrap());
    passes(&ObjectId::from_bytes(&[9; 32]).unwrap());
    passes(&symbolic("refs/heads/main"));
    passes(&HeadDeletion::Allow);
    passes(&Agreement::Different);
    passes(&Bisection::new(Version(3), Version(900)).unwrap());
    passes(&Reason::TooManyCommands { count: 3, max: 2 });
    // A peeled id counts for nothing, and stays all the same.
    let tag = Target::peeled_to(oid(1), oid(2)).unwrap();
    let text = serde_json::to_string(&tag).unwrap();
    assert_eq!(serde_json::from_str::<Target>(&text).unwrap().peeled(), Some(oid(2)));
    let mut sketch = Sketch::new(&common::refs_of(&[("refs/heads/a", id(1)), ("refs/heads/b", id(2))]));
    let cell: Cell = sketch.next_cell();
    passes(&cell);
    passes(&Difference::default());
    let line = git::HookLine { old: None, new: Some(id(1)), name: name("refs/heads/a") };
    passes(&line);
    passes(&Transaction::from(Command::verify(name("refs/heads/a"), Old::Absent)));
}

#[test]
fn what_is_no_value_is_refused() {
    assert!(refused::<RefName>("\"refs/../x\"").contains("leave"));
    assert!(refused::<ObjectId>(&format!("\"{}\"", "0".repeat(40))).contains("null"));
    let point = serde_json::to_string(&empty().point()).unwrap();
    let after = point.replace("\"version\":0", "\"version\":1");
    let change = serde_json::to_string(&Change::new(name("refs/heads/a"), Old::Absent, Some(id(1)))).unwrap();
    let record = |changes: &str| format!("{{\"after\":{after},\"form\":\"Invertible\",\"changes\":[{changes}]}}");
    assert!(serde_json::from_str::<Record>(&record(&change)).is_ok());
    assert!(refused::<Record>(&record("")).contains("no change"));
    assert!(refused::<Record>(&record(&format!("{change},{change}"))).contains("twice"));
    let segment = |form: &str| {
        format!("{{\"base\":{point},\"end\":{after},\"mode\":\"Cover\",\"form\":\"{form}\",\"changes\":[{change}]}}")
    };
    assert!(serde_json::from_str::<Segment>(&segment("Invertible")).is_ok());
    assert!(refused::<Segment>(&segment("ForwardOnly")).contains("old value"));
    assert!(refused::<Bisection>("{\"equal\":4,\"different\":4}").contains("agree"));
    // The peeled id of an old value is dropped, however it comes.
    let tag = Value::from(Target::peeled_to(oid(1), oid(2)).unwrap());
    let text = change.replace("\"Absent\"", &format!("{{\"Is\":{}}}", serde_json::to_string(&tag).unwrap()));
    let read: Change = serde_json::from_str(&text).unwrap();
    assert!(matches!(read.old().value(), Some(Value::Direct(target)) if target.peeled().is_none()));
}
