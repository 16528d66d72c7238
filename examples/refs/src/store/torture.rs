//! The folder under the crate's host kit: lost replies, versions appended twice, a process that dies between each two steps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::io::Write as _;

use bytes::Bytes;
use tenon_refslog::Version;
use tenon_refslog::testkit::{Appended, LogStore, torture};

use super::{Access, Kept, Store};

struct Folder {
    folder: tempfile::TempDir,
    store: Option<Store>,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Some(Store::create(&folder.path().join("log"), &[7; 32]).unwrap());
        Self { folder, store }
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }
}

impl LogStore for Folder {
    type Error = anyhow::Error;

    fn append(&mut self, version: Version, record: &[u8]) -> anyhow::Result<Appended> {
        Ok(match self.store().append(version, Bytes::copy_from_slice(record))? {
            Kept::Now => Appended::Durable,
            Kept::Before => Appended::Taken,
        })
    }

    fn records_after(&mut self, version: Version) -> anyhow::Result<Vec<Bytes>> {
        let records = self.store().records.iter().filter(|(at, _)| *at > version);
        Ok(records.map(|(_, bytes)| bytes.clone()).collect())
    }

    fn put_snapshot(&mut self, at: Version, snapshot: &[u8]) -> anyhow::Result<()> {
        self.store().put_snapshot(at, Bytes::copy_from_slice(snapshot))
    }

    fn snapshot(&mut self) -> anyhow::Result<Option<Bytes>> {
        Ok(self.store().snapshot.as_ref().map(|(_, bytes)| bytes.clone()))
    }

    fn put_segment(&mut self, base: Version, end: Version, segment: &[u8]) -> anyhow::Result<()> {
        self.store().put_segment(base, end, Bytes::copy_from_slice(segment))
    }

    fn segments(&mut self) -> anyhow::Result<Vec<Bytes>> {
        Ok(self.store().segments.iter().map(|(_, _, bytes)| bytes.clone()).collect())
    }

    fn crash(&mut self, torn: Option<&[u8]>) -> anyhow::Result<()> {
        self.store = None;
        let log = self.folder.path().join("log");
        if let Some(torn) = torn {
            let mut file = OpenOptions::new().create(true).append(true).open(log.join("records"))?;
            file.write_all(torn)?;
        }
        self.store = Some(Store::open(&log, Access::Write)?);
        Ok(())
    }
}

#[test]
fn the_folder_keeps_a_log_through_everything() {
    let (mut records, mut torn, mut folded) = (0, 0, 0);
    for seed in 0..8 {
        let report = torture(&mut Folder::new(), seed, 80).unwrap_or_else(|broken| panic!("{broken}"));
        records += report.records;
        torn += report.torn;
        folded += report.segments.min(report.snapshots);
    }
    assert!(records > 100 && torn > 20 && folded > 10, "too little happened: {records} {torn} {folded}");
}
