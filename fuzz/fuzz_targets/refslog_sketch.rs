//! Cells of a sketch: whatever the bytes, no panic; what decodes encodes to the same bytes, and ends in an answer or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_refslog::{Cell, ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, Reconciler, RefName, Refs};

fuzz_target!(|bytes: &[u8]| {
    let Ok(cells) = Cell::decode_all(bytes) else { return };
    let mut again = Vec::new();
    cells.iter().for_each(|cell| cell.encode_into(&mut again));
    assert_eq!(again, bytes, "one value, one encoding");
    let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build().unwrap();
    let mut refs = Refs::new(config, LineageId(1));
    let id = ObjectId::from_bytes(&[7; 20]).unwrap();
    let create = Command::create(RefName::new("refs/heads/main").unwrap(), id);
    let record = refs.admit(&create.into()).unwrap().into_record().unwrap();
    let _ = refs.apply(&record).unwrap();
    let mut reconciler = Reconciler::new(&refs, 64);
    let _ = cells.into_iter().try_for_each(|cell| reconciler.handle_cell(cell).map(drop));
});
