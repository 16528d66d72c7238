//! The host kit passes a good store and finds out each way in which a store can be bad.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bytes::Bytes;
use tenon_refslog::testkit::{Appended, LogStore, Report, torture};
use tenon_refslog::{PinId, Record, Records, Version};

/// How a store misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    LosesAcknowledged,
    Overwrites,
    ForgetsBeforeSegment,
    KeepsTornTail,
    ForgetsTooMuch,
    StaleSnapshotAfterForgetting,
    DropsPayloads,
    ForgetsPins,
    KeepsWhatIsUnpinned,
}

/// A store over one append-only file and two tables, in memory; what is durable survives a crash.
#[derive(Debug)]
struct FileStore {
    fault: Fault,
    file: Vec<u8>,
    snapshot: Option<(Version, Bytes)>,
    segments: BTreeMap<Version, (Version, Bytes)>,
    pins: BTreeMap<PinId, Version>,
}

impl FileStore {
    fn new(fault: Fault) -> Self {
        Self { fault, file: Vec::new(), snapshot: None, segments: BTreeMap::new(), pins: BTreeMap::new() }
    }

    fn read(&self) -> Vec<(Version, Bytes)> {
        let records = Records::new(self.file.clone()).map_while(Result::ok);
        records.map(|record| (record.version(), record.encode())).collect()
    }

    fn newest(&self) -> Version {
        let snapshot = self.snapshot.as_ref().map(|(version, _)| *version);
        let segment = self.segments.values().map(|(end, _)| *end).max();
        let record = self.read().last().map(|(version, _)| *version);
        snapshot.into_iter().chain(segment).chain(record).max().unwrap_or_default()
    }

    fn forget_records(&mut self, up_to: Version) {
        let kept: Vec<_> = self.read().into_iter().filter(|(version, _)| *version > up_to).collect();
        self.file = kept.into_iter().flat_map(|(_, bytes)| bytes).collect();
    }
}

impl LogStore for FileStore {
    type Error = String;

    fn append(&mut self, version: Version, record: &[u8]) -> Result<Appended, String> {
        if version <= self.newest() && self.fault != Fault::Overwrites {
            return Ok(Appended::Taken);
        }
        if self.fault == Fault::DropsPayloads {
            let plain = Record::decode(record).unwrap().with_payload([]).unwrap();
            self.file.extend_from_slice(&plain.encode());
        } else {
            self.file.extend_from_slice(record);
        }
        Ok(Appended::Durable)
    }

    fn records_after(&mut self, version: Version) -> Result<Vec<Bytes>, String> {
        Ok(self.read().into_iter().filter(|(at, _)| *at > version).map(|(_, bytes)| bytes).collect())
    }

    fn put_snapshot(&mut self, at: Version, snapshot: &[u8]) -> Result<(), String> {
        if self.fault != Fault::StaleSnapshotAfterForgetting || self.snapshot.is_none() {
            self.snapshot = Some((at, Bytes::copy_from_slice(snapshot)));
        }
        self.segments.retain(|_, (end, _)| *end > at);
        self.forget_records(at);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.snapshot.as_ref().map(|(_, bytes)| bytes.clone()))
    }

    fn put_segment(&mut self, base: Version, end: Version, segment: &[u8]) -> Result<(), String> {
        if self.fault != Fault::ForgetsBeforeSegment {
            self.segments.insert(base, (end, Bytes::copy_from_slice(segment)));
        }
        self.forget_records(if self.fault == Fault::ForgetsTooMuch { Version(end.0 + 1) } else { end });
        Ok(())
    }

    fn segments(&mut self) -> Result<Vec<Bytes>, String> {
        Ok(self.segments.values().map(|(_, bytes)| bytes.clone()).collect())
    }

    fn put_pin(&mut self, pin: PinId, version: Option<Version>) -> Result<(), String> {
        match version {
            Some(version) => drop(self.pins.insert(pin, version)),
            None if self.fault == Fault::KeepsWhatIsUnpinned => {}
            None => drop(self.pins.remove(&pin)),
        }
        Ok(())
    }

    fn pins(&mut self) -> Result<Option<Vec<(PinId, Version)>>, String> {
        Ok(Some(self.pins.iter().map(|(pin, version)| (*pin, *version)).collect()))
    }

    fn crash(&mut self, torn: Option<&[u8]>) -> Result<(), String> {
        if self.fault == Fault::ForgetsPins {
            self.pins.clear();
        }
        if self.fault == Fault::LosesAcknowledged {
            let newest = self.read().last().map(|(_, bytes)| bytes.len()).unwrap_or_default();
            self.file.truncate(self.file.len() - newest);
        }
        self.file.extend_from_slice(torn.unwrap_or_default());
        if self.fault != Fault::KeepsTornTail {
            // Recovery: a torn end is cut off; anything else would be damage.
            let mut records = Records::new(self.file.clone());
            let end = records.by_ref().take_while(Result::is_ok).count();
            let error = Records::new(self.file.clone()).nth(end);
            assert!(error.is_none_or(|error| error.unwrap_err().is_torn()));
            self.file.truncate(records.offset());
        }
        Ok(())
    }
}

#[test]
fn a_good_store_passes() {
    let mut sum = Report::default();
    for seed in 0..60 {
        let report = torture(&mut FileStore::new(Fault::None), seed, 120).unwrap();
        sum.records += report.records;
        sum.conflicts += report.conflicts;
        sum.torn += report.torn;
        sum.segments += report.segments;
        sum.snapshots += report.snapshots;
        sum.pins += report.pins;
    }
    assert!(sum.pins > 100, "{sum:?}");
    assert!(sum.records > 1_000 && sum.conflicts > 50 && sum.torn > 100 && sum.segments > 100 && sum.snapshots > 100);
}

#[test]
fn each_fault_is_found_within_a_few_seeds() {
    for fault in [
        Fault::LosesAcknowledged,
        Fault::Overwrites,
        Fault::ForgetsBeforeSegment,
        Fault::KeepsTornTail,
        Fault::ForgetsTooMuch,
        Fault::StaleSnapshotAfterForgetting,
        Fault::DropsPayloads,
        Fault::ForgetsPins,
        Fault::KeepsWhatIsUnpinned,
    ] {
        let found = (0..20).any(|seed| torture(&mut FileStore::new(fault), seed, 120).is_err());
        assert!(found, "{fault:?} was not found");
    }
}
