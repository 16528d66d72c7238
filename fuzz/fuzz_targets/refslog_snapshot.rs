//! A snapshot: whatever the bytes, opening and reading in place end in an answer or a typed error; what is restored is
//! written to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_refslog::{ChecksumKey, Config, ObjectFormat, RefName, Refs, Snapshot};

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::open(bytes.to_vec()) else { return };
    let name = RefName::new("refs/heads/main").unwrap();
    let _ = snapshot.get(&name);
    let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build().unwrap();
    if let Ok(refs) = Refs::restore(config, &snapshot) {
        assert_eq!(refs.snapshot().as_bytes(), snapshot.as_bytes(), "one value, one encoding");
    }
});
