//! The pages show programs that run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test reads files, and fails by panicking"
)]

use std::fs;
use std::path::Path;

use tenon_quorum::{Config, Effect, ReadStep, Refusal, RepoId, Router, Timestamp};

/// What the front page of the repository shows, as far as it is not shown there.
const fn carry_out(_: &Effect) {}

mod front_page {
    use super::carry_out;
    // the front page begins
    use tenon_quorum::{ReadRequest, ReadStep, Refusal, RepoId, Router, Timestamp};

    fn read(router: &mut Router, now: Timestamp, repo: RepoId) -> Result<ReadStep, Refusal> {
        let read = ReadRequest::linearizable(repo, router.begin_read()); // ask
        let step = router.route_read(now, &read)?; // which node, and why
        while let Some(effect) = router.poll_effect() {
            carry_out(&effect); // do: swap this row, probe that node
        }
        Ok(step) // and tell, as answers come: handle_swap, handle_report
    }
    // the front page ends

    pub(super) const READ: fn(&mut Router, Timestamp, RepoId) -> Result<ReadStep, Refusal> = read;
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn it_shows_the_quickstart() {
    let program = fs::read_to_string(root().join("examples/quickstart.rs")).unwrap();
    let shown: String = program.split_inclusive('\n').filter(|line| !line.starts_with("#![allow")).collect();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&shown), "README.md shows another program than examples/quickstart.rs");
}

#[test]
fn the_front_page_shows_lines_that_compile() {
    let Ok(page) = fs::read_to_string(root().join("../README.md")) else {
        eprintln!("skipped: the_front_page_shows_lines_that_compile: a package has no front page beside it");
        return;
    };
    let own = fs::read_to_string(root().join("tests/readme.rs")).unwrap();
    let lines =
        own.split("// the front page begins\n").nth(1).unwrap().split("    // the front page ends").next().unwrap();
    let shown: String = lines.split_inclusive('\n').map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    assert!(page.contains(&format!("```rust\n{shown}```")), "README.md shows other lines:\n{shown}");
    let mut router = Router::new(Config::builder().build().unwrap());
    let step: Result<ReadStep, Refusal> = front_page::READ(&mut router, Timestamp::ZERO, RepoId(1));
    assert!(matches!(step, Ok(ReadStep::First(_))), "the row is fetched first: {step:?}");
}
