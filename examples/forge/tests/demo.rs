//! The demo checks everything that the host promises, and fails on any loss.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

#[test]
fn the_demo_finds_nothing_lost_stale_or_different() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
    command.arg("demo");
    let out = common::bounded(command);
    let said = common::text(&out);
    assert!(out.status.success(), "{said}");
    for line in ["pushes that failed            0", "0 stale", "0 missing", "0 different"] {
        assert!(said.contains(line), "{said}");
    }
}
