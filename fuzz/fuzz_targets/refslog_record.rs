//! A record: whatever the bytes, no panic; what decodes encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_refslog::{Record, Records};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::decode(bytes) {
        assert_eq!(record.encode(), bytes, "one value, one encoding");
    }
    for record in Records::new(bytes.to_vec()) {
        if record.is_err() {
            break;
        }
    }
});
