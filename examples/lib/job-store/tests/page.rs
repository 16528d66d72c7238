//! The program on the page of `tenon-jobqueue` is what stands here, and runs, as often as one likes; the schema on the page
//! and on that of the host kit is the one that the stores make.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use job_store::BlockingPostgresStore;
use job_store::server::Server;

include!("page/take.rs");

const PAGE: &str = include_str!("../../../../jobqueue/README.md");
const KIT: &str = include_str!("../../../../jobqueue/src/testkit/mod.rs");
const CODE: &str = include_str!("page/take.rs");
const SCHEMA: &str = include_str!("../schema.sql");

#[test]
fn the_page_shows_what_is_run_here() {
    assert!(PAGE.contains(CODE), "the page shows tests/page/take.rs");
    let rows = SCHEMA.split_once("CREATE TABLE jobqueue_payloads").unwrap().0;
    assert!(PAGE.contains(rows), "the page shows schema.sql as far as the engine needs it");
    let tables = KIT.lines().filter_map(|line| line.strip_prefix("//! ")).collect::<Vec<_>>().join("\n");
    for line in rows.lines() {
        assert!(tables.contains(line), "the host kit's page shows schema.sql: {line}");
    }
}

fn runs_twice(open: impl Fn() -> Box<dyn Store>) {
    for now in [1, 2] {
        let mut store = open();
        let read = life(store.as_mut(), Timestamp::from_millis(now)).unwrap();
        assert_eq!(read, b"cargo test");
        assert!(store.open_rows().unwrap().is_empty(), "it has ended");
    }
}

#[test]
fn the_program_on_the_page_runs_twice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    runs_twice(|| Box::new(SqliteStore::open(&file).unwrap()));
    if let Some(server) = Server::start_or_skip("the_program_on_the_page_runs_twice").unwrap() {
        runs_twice(|| Box::new(BlockingPostgresStore::open(&server.url()).unwrap()));
    }
}
