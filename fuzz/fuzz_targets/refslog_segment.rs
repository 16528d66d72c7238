//! A segment: whatever the bytes, no panic; what decodes encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_refslog::Segment;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(segment) = Segment::decode(bytes.to_vec()) {
        assert_eq!(segment.encode(), bytes, "one value, one encoding");
    }
});
