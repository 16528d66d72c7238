//! The guard: this crate has no clock, thread, file, socket, environment, async, global or hidden chance.
//!
//! Three fences, outermost first: `#![no_std]`, by which the compiler itself refuses every such name; `clippy.toml`, for
//! what the rest of the build could smuggle in; and this test, for what neither sees. The same file stands, byte for
//! byte, in every core crate, and says so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

const CORES: [&str; 4] = ["quorum", "refslog", "jobqueue", "scaler"];

/// The few lines every core needs alike: copied, so that no shared crate becomes everyone's semver hub.
const COPIES: [&str; 3] = ["src/time.rs", "src/rng.rs", "tests/purity.rs"];

/// What no line of a core may say. `no_std` makes most of these impossible; the rest would bring `std` or I/O back in.
const FORBIDDEN: [&str; 22] = [
    "extern crate std",
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::thread",
    "std::process",
    "std::time",
    "SystemTime",
    "Instant::now",
    "async fn",
    "async move",
    ".await",
    "tokio::",
    "thread_local!",
    "static mut",
    "lazy_static",
    "OnceLock",
    "LazyLock",
    "RandomState",
    "getrandom",
    "thread_rng",
];

/// Every library a core may link. None of them does I/O for a caller that does not ask, and a core cannot ask.
const LIBRARIES: [&str; 13] = [
    "blake3",
    "bytes",
    "crc32c",
    "crossbeam-queue",
    "crossbeam-utils",
    "hashbrown",
    "jiff",
    "libm",
    "parking_lot",
    "serde",
    "smallvec",
    "static_assertions",
    "thiserror",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn the_compiler_is_told_no_std() {
    let page = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(page.contains("#![no_std]"), "src/lib.rs must say #![no_std], without conditions");
}

#[test]
fn no_source_names_the_outside_world() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(!files.is_empty(), "the guard must have something to guard");
    for file in files {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            for word in FORBIDDEN {
                assert!(!code.contains(word), "{}:{}: `{word}` in a core", file.display(), number + 1);
            }
            let is_static = code.starts_with("static ")
                || code.starts_with("pub static ")
                || code.starts_with("pub(crate) static ");
            assert!(!is_static, "{}:{}: a global in a core; use `const`", file.display(), number + 1);
        }
    }
}

#[test]
fn only_listed_libraries_are_linked() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let linked = manifest.split("[dependencies]").nth(1).map_or("", |rest| rest.split("\n[").next().unwrap());
    for line in linked.lines().filter(|line| line.contains('=')) {
        let name = line.split(['=', '.', ' ']).next().unwrap();
        assert!(LIBRARIES.contains(&name), "`{name}` is not on the list of libraries a core may link");
    }
}

#[test]
fn the_shared_lines_are_the_same_in_every_core() {
    for file in COPIES {
        let Ok(ours) = fs::read(root().join(file)) else {
            continue;
        };
        for core in CORES {
            let theirs = root().join("..").join(core).join(file);
            if theirs.exists() {
                assert!(fs::read(&theirs).unwrap() == ours, "{file} differs from that of `{core}`");
            }
        }
    }
}
