//! The store on the page of `tenon-jobqueue` is what stands here, and passes the host kit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tenon_jobqueue::testkit::{JobStore, Report, Written, torture};

include!("page/db.rs");

const PAGE: &str = include_str!("../../../jobqueue/README.md");
const CODE: &str = include_str!("page/db.rs");
const TABLES: &str = include_str!("page/tables.sql");

impl JobStore for Db {
    type Error = Box<dyn std::error::Error>;

    fn write(&mut self, changes: &[Change]) -> Fails<Written> {
        Ok(if Self::write(self, changes)? { Written::Made } else { Written::Conflict })
    }

    fn read(&mut self, want: Want, written: &[Change]) -> Fails<Vec<Row>> {
        Self::read(self, want, written)
    }

    fn open_rows(&mut self) -> Fails<Vec<Row>> {
        self.rows("open")
    }

    fn next_life(&mut self) -> Fails<Incarnation> {
        Ok(self.start()?.0)
    }

    /// That a file survives is looked at by the store of this program; this one is in memory.
    fn crash(&mut self, _cut: Option<&[Change]>) -> Fails<()> {
        Ok(())
    }
}

#[test]
fn the_store_on_the_page_keeps_the_rules() {
    assert!(PAGE.contains(CODE) && PAGE.contains(TABLES), "the page shows tests/page/");
    let mut all = Report::default();
    for seed in 0..5 {
        let mut db = Db(Connection::open_in_memory().unwrap());
        db.0.execute_batch(TABLES).unwrap();
        all += torture(&mut db, seed, 300).unwrap_or_else(|broken| panic!("{broken}"));
    }
    assert!(all.conflicts > 50 && all.results > 50, "{all:?}");
}
