//! The store under the refs log's host kit: lost replies, versions appended twice, the process killed between each two steps.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use bytes::Bytes;
use tenon_refslog::Version;
use tenon_refslog::testkit::{Appended, LogStore, torture};

use super::{Compaction, FeedRow, Pipelines, SegmentRow, Sqlite, Store, StoreError, Swap, Swapped};

const REPO: u64 = 1;

/// One repository's log in the store, as the router uses it.
struct Log {
    folder: tempfile::TempDir,
    store: Sqlite,
}

impl Log {
    fn new() -> Log {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("store.db")).unwrap();
        Log { folder, store }
    }
}

/// The row that stands for a version: only that it is another one for each counts here.
fn row(version: u64) -> Vec<u8> {
    version.to_be_bytes().to_vec()
}

impl LogStore for Log {
    type Error = StoreError;

    fn append(&mut self, version: Version, record: &[u8]) -> Result<Appended, StoreError> {
        let Version(version) = version;
        let before = row(version - 1);
        let feed = FeedRow {
            version,
            digest: [0; 16],
            fence: (1, 1),
            epoch: 1,
            record: record.to_vec(),
            pipelines: Pipelines::Wanted,
        };
        let expect = (version > 1).then_some(before.as_slice());
        let next = row(version);
        let swap = Swap { life: 1, repo: REPO, expect, next: &next, feed: Some(&feed), clears_note: false };
        match self.store.swap(&swap)?.1 {
            Swapped::Moved => Ok(Appended::Durable),
            Swapped::Conflict(_) | Swapped::OtherLife => Ok(Appended::Taken),
        }
    }

    fn records_after(&mut self, version: Version) -> Result<Vec<Bytes>, StoreError> {
        let feed = self.store.feed(REPO, version.0, usize::MAX)?;
        Ok(feed.into_iter().filter(|row| !row.record.is_empty()).map(|row| row.record.into()).collect())
    }

    fn put_snapshot(&mut self, at: Version, snapshot: &[u8]) -> Result<(), StoreError> {
        let mut segments = self.store.log(REPO, 0)?.segments;
        segments.retain(|segment| segment.end > at.0);
        let done = Compaction { snapshot: Some((at.0, snapshot.to_vec())), segments, through: at.0 };
        self.store.compact(REPO, &done)
    }

    fn snapshot(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.store.log(REPO, 0)?.snapshot.map(|(_, bytes)| bytes.into()))
    }

    fn put_segment(&mut self, base: Version, end: Version, segment: &[u8]) -> Result<(), StoreError> {
        let mut segments = self.store.log(REPO, 0)?.segments;
        segments.push(SegmentRow { base: base.0, end: end.0, bytes: segment.to_vec() });
        self.store.compact(REPO, &Compaction { snapshot: None, segments, through: end.0 })
    }

    fn segments(&mut self) -> Result<Vec<Bytes>, StoreError> {
        Ok(self.store.log(REPO, 0)?.segments.into_iter().map(|segment| segment.bytes.into()).collect())
    }

    /// What is in the files at this moment is what the next process finds; a write cut short lies at the end of the
    /// write-ahead log.
    fn crash(&mut self, torn: Option<&[u8]>) -> Result<(), StoreError> {
        let next = tempfile::tempdir().unwrap();
        for file in ["store.db", "store.db-wal"] {
            let (from, to) = (self.folder.path().join(file), next.path().join(file));
            if from.exists() {
                fs::copy(from, to).unwrap();
            }
        }
        if let Some(torn) = torn {
            let log = next.path().join("store.db-wal");
            OpenOptions::new().create(true).append(true).open(log).unwrap().write_all(torn).unwrap();
        }
        self.store = Sqlite::open(&next.path().join("store.db"))?;
        self.folder = next;
        Ok(())
    }
}

#[test]
fn the_store_keeps_a_refs_log_through_everything() {
    let mut seen = (0, 0, 0, 0);
    for seed in 0..4 {
        let report = torture(&mut Log::new(), seed, 60).unwrap_or_else(|broken| panic!("{broken}"));
        seen.0 += report.records;
        seen.1 += report.conflicts;
        seen.2 += report.torn;
        seen.3 += report.segments.min(report.snapshots);
    }
    assert!(seen.0 > 40 && seen.1 > 5 && seen.2 > 5 && seen.3 > 2, "too little happened: {seen:?}");
}

/// The kit catches a store that forgets: without that, its silence would mean nothing.
#[test]
fn a_store_that_folds_too_much_is_caught() {
    struct Forgetful(Log);
    impl LogStore for Forgetful {
        type Error = StoreError;
        fn append(&mut self, version: Version, record: &[u8]) -> Result<Appended, StoreError> {
            self.0.append(version, record)
        }
        fn records_after(&mut self, version: Version) -> Result<Vec<Bytes>, StoreError> {
            self.0.records_after(version)
        }
        fn put_snapshot(&mut self, at: Version, snapshot: &[u8]) -> Result<(), StoreError> {
            self.0.put_snapshot(at, snapshot)
        }
        fn snapshot(&mut self) -> Result<Option<Bytes>, StoreError> {
            self.0.snapshot()
        }
        fn put_segment(&mut self, base: Version, end: Version, segment: &[u8]) -> Result<(), StoreError> {
            self.0.put_segment(base, end, segment)?;
            let segments = self.0.store.log(REPO, 0)?.segments;
            self.0.store.compact(REPO, &Compaction { snapshot: None, segments, through: end.0 + 1 })
        }
        fn segments(&mut self) -> Result<Vec<Bytes>, StoreError> {
            self.0.segments()
        }
        fn crash(&mut self, torn: Option<&[u8]>) -> Result<(), StoreError> {
            self.0.crash(torn)
        }
    }
    assert!((0..4).any(|seed| torture(&mut Forgetful(Log::new()), seed, 60).is_err()));
}
