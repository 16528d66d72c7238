//! A snapshot: whatever the bytes, opening and reading in place end in an answer or a typed error; what is restored is
//! written to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_refslog::{ChecksumKey, Command, Config, ObjectFormat, ObjectId, RefName, Refs, Snapshot, Tip, Transaction};

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::open(bytes.to_vec()) else { return };
    let name = RefName::new("refs/heads/main").unwrap();
    let _ = snapshot.get(&name);
    let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build().unwrap();
    // Admission over it looks for the ref, its parents and what is below it.
    let names = ["HEAD", "refs/heads/main", "refs/heads"].map(|name| RefName::new(name).unwrap());
    let id = ObjectId::from_bytes(&[7; 20]).unwrap();
    let updates: Transaction = names.into_iter().map(|name| Command::update(name, id)).collect();
    let admitted = Tip::new(config.clone(), snapshot.clone()).map(|tip| tip.admit(&updates));
    if let Ok(refs) = Refs::restore(config, &snapshot) {
        assert_eq!(admitted.unwrap().ok(), refs.admit(&updates).ok(), "both admit alike");
        assert_eq!(refs.snapshot().as_bytes(), snapshot.as_bytes(), "one value, one encoding");
    }
});
