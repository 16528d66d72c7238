//! The README shows the program that the repository runs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test reads files, and fails by panicking"
)]

use std::fs;
use std::path::Path;

#[test]
fn it_shows_the_quickstart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = fs::read_to_string(root.join("examples/quickstart.rs")).unwrap();
    let shown: String = program.split_inclusive('\n').filter(|line| !line.starts_with("#![allow")).collect();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    assert!(readme.contains(&shown), "README.md shows another program than examples/quickstart.rs");
}
