//! Git's text formats: whatever the bytes, no panic; the first byte picks the object format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_refslog::{ObjectFormat, git};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, text)) = bytes.split_first() else { return };
    let format = if first % 2 == 0 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 };
    let _ = git::parse_packed_refs(text, format);
    let _ = git::parse_for_each_ref(text, text, format);
    let _ = git::parse_hook_lines(text, format);
    let _ = git::parse_reflog(text, format);
    if let Ok(transaction) = git::parse_update_ref(text, format) {
        let written = git::write_transaction(&transaction, format).expect("what was parsed can be written");
        assert_eq!(git::parse_update_ref(&written, format).as_ref(), Ok(&transaction), "what is written reads back");
    }
});
