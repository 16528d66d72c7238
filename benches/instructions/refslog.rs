//! Instruction counts of the hot paths of `tenon-refslog`. A count does not depend on how busy the machine is, so the
//! limit beside each is a guard: what exceeds it has become slower, and the run fails.
#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::unwrap_used,
    reason = "a bench: its entry point is generated, and it fails by panicking"
)]

use std::hint::black_box;

use bytes::Bytes;
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use tenon_refslog::{
    ChecksumKey, Command, Config, LineageId, Mode, ObjectFormat, ObjectId, Point, Record, RefName, Refs, Segment,
    Snapshot, Transaction, Value, ValueRef, compact,
};

fn limit(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

fn id(number: usize) -> ObjectId {
    let mut bytes = [7; 20];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    ObjectId::from_bytes(&bytes).unwrap()
}

fn name(number: usize) -> RefName {
    RefName::new(format!("refs/changes/{:02}/{number}/1", number % 100)).unwrap()
}

/// A repository of `count` refs, and a transaction that moves ten of them.
fn ten_updates(count: usize) -> (Refs, Transaction) {
    let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build().unwrap();
    let mut refs = Refs::new(config, LineageId(1));
    let creates: Transaction = (0..count).map(|number| Command::create(name(number), id(number))).collect();
    let record = refs.admit(&creates).unwrap().into_record().unwrap();
    let _ = refs.apply(&record).unwrap();
    let updates = (0..10).map(|number| {
        let at = number * count / 10;
        Command::push(Some(id(at)), Some(id(at + count)), name(at))
    });
    (refs, updates.collect())
}

fn record() -> Record {
    let (refs, transaction) = ten_updates(1_000);
    refs.admit(&transaction).unwrap().into_record().unwrap()
}

fn frame() -> Bytes {
    record().encode()
}

/// A thousand records of one change each, over a hundred refs.
fn stretch() -> (Point, Vec<Record>) {
    let (mut refs, _) = ten_updates(100);
    let base = refs.point();
    let mut records = Vec::new();
    for version in 0..1_000 {
        let transaction = Transaction::from(Command::update(name(version % 100), id(1_000 + version)));
        let record = refs.admit(&transaction).unwrap().into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
        records.push(record);
    }
    (base, records)
}

#[library_benchmark(config = limit(LIMITS.admit))]
#[bench::ten_of_ten_thousand(ten_updates(10_000))]
fn admit((refs, transaction): (Refs, Transaction)) -> (Refs, Option<Record>) {
    let record = black_box(&refs).admit(black_box(&transaction)).unwrap().into_record();
    (refs, record)
}

#[library_benchmark(config = limit(LIMITS.encode))]
#[bench::ten_changes(record())]
fn encode(record: Record) -> Bytes {
    black_box(&record).encode()
}

#[library_benchmark(config = limit(LIMITS.decode))]
#[bench::ten_changes(frame())]
fn decode(frame: Bytes) -> Record {
    Record::decode(black_box(&frame)).unwrap()
}

/// A snapshot of ten thousand refs, every block of which was looked at before, and a name in it.
fn looked_up() -> (Snapshot, RefName) {
    let (refs, _) = ten_updates(10_000);
    let snapshot = refs.snapshot();
    snapshot.scan(|_, _| {}).unwrap();
    (snapshot, name(6_789))
}

#[library_benchmark(config = limit(LIMITS.lookup))]
#[bench::one_of_ten_thousand(looked_up())]
fn lookup((snapshot, name): (Snapshot, RefName)) -> (Snapshot, Option<Value>) {
    let found = black_box(&snapshot).get(black_box(&name)).unwrap();
    (snapshot, found)
}

fn unread() -> Snapshot {
    let (refs, _) = ten_updates(10_000);
    Snapshot::open(refs.snapshot().as_bytes().clone()).unwrap()
}

#[library_benchmark(config = limit(LIMITS.scan))]
#[bench::ten_thousand(unread())]
fn scan(snapshot: Snapshot) -> Snapshot {
    let each = |name: &[u8], value: ValueRef<'_>| {
        black_box((name, value));
    };
    black_box(&snapshot).scan(each).unwrap();
    snapshot
}

#[library_benchmark(config = limit(LIMITS.fold))]
#[bench::thousand_records(stretch())]
fn fold((base, records): (Point, Vec<Record>)) -> Segment {
    compact(black_box(base), Mode::Cover, black_box(&records)).unwrap()
}

/// The most instructions each may take: what was measured, and a tenth.
struct Limits {
    admit: u64,
    encode: u64,
    decode: u64,
    fold: u64,
    lookup: u64,
    scan: u64,
}

const LIMITS: Limits =
    Limits { admit: 47_400, encode: 9_800, decode: 16_000, fold: 869_000, lookup: 2_430, scan: 2_066_000 };

library_benchmark_group!(name = hot, benchmarks = [admit, encode, decode, fold, lookup, scan]);
main!(library_benchmark_groups = hot);
