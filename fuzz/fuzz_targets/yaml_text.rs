//! Any text is read, within the limits, or refused with a place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use yaml::{Options, Schema, parse};

fuzz_target!(|text: &str| {
    for schema in [Schema::Core, Schema::CoreYaml11Booleans, Schema::Yaml11] {
        match parse(text, &Options { schema, max_nodes: 10_000, ..Options::default() }) {
            Ok(documents) => assert!(documents.len() <= 1_000),
            Err(error) => assert!(error.at.line > 0 && !error.message.is_empty()),
        }
    }
});
