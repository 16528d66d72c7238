//! Figures of `tenon-refslog`: bytes, times and memory, beside the installed Git and `gix-ref`.

use std::hint::black_box;

use tenon_refslog::{
    ChecksumKey, Command, Config, LineageId, Log, LogConfig, Mode, ObjectFormat, ObjectId, Old, Piece, Plan,
    Reconciler, Record, RefName, Refs, Segment, Sketch, Snapshot, Tip, Transaction, Value, ValueRef, Version, compact,
    git,
};

use crate::{Bound, Row, Scale, bytes_held, median_ns};

mod peers;

/// A name as a review system has them by the million: `refs/changes/34/1234/1`.
fn change_ref(n: usize) -> RefName {
    let change = n / 2 + 1;
    RefName::new(format!("refs/changes/{:02}/{change}/{}", change % 100, n % 2 + 1)).expect("a well-formed name")
}

/// `SplitMix64`, so that ids do not compress.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    fn oid(&mut self) -> ObjectId {
        let words = [self.next(), self.next(), self.next() | 1].map(u64::to_be_bytes).concat();
        ObjectId::from_bytes(&words[..20]).expect("twenty bytes, not all zero")
    }
}

fn config() -> Config {
    Config::builder(ObjectFormat::Sha1, ChecksumKey::new([7; 32])).build().expect("a valid configuration")
}

fn state(count: usize, chance: &mut Chance) -> Refs {
    let entries: Vec<(RefName, Value)> = (0..count).map(|n| (change_ref(n), chance.oid().into())).collect();
    Refs::from_entries(config(), LineageId(1), Version(1), entries).expect("names are distinct")
}

fn updates(refs: &Refs, picks: impl Iterator<Item = usize>, chance: &mut Chance) -> Transaction {
    picks
        .map(|n| {
            let name = change_ref(n);
            let old = Old::known(refs.get(&name));
            Command::update(name, chance.oid()).expecting(old)
        })
        .collect()
}

fn record(refs: &Refs, transaction: &Transaction) -> Record {
    refs.admit(transaction).expect("it fits").into_record().expect("it changes something")
}

/// As `f64`; counts here are far below 2^52.
fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Every figure of the crate.
#[must_use]
pub fn rows(scale: Scale) -> Vec<Row> {
    let mut chance = Chance(1);
    let million = scale.pick(1_000_000, 100_000);
    let mut rows = Vec::new();
    let (refs, held) = bytes_held(|| state(million, &mut chance));
    let memory = real(usize::try_from(held).unwrap_or(0)) / real(million);
    rows.push(Row::new("memory a ref, resident", memory, "bytes", Bound::AtMost(80.0)));
    let snapshot = refs.snapshot();
    rows.extend(snapshot_rows(&refs, &snapshot, &mut chance));
    rows.extend(log_bytes(&mut chance));
    rows.push(payload_row(&mut chance));
    rows.extend(transactions(scale, &mut chance));
    rows.extend(tip_rows(&snapshot, &refs, &mut chance));
    rows.extend(compaction(scale, &refs, &snapshot, &mut chance));
    rows.push(checksum_row(&mut chance));
    rows.extend(sketch_rows(&mut chance));
    rows.extend(amplification(scale, &refs, &mut chance));
    rows.extend(peers::rows(scale));
    rows
}

fn snapshot_rows(refs: &Refs, snapshot: &Snapshot, chance: &mut Chance) -> Vec<Row> {
    let count = refs.len();
    let bytes = snapshot.as_bytes().clone();
    let packed = git::write_packed_refs(refs.iter()).expect("no line feed").len();
    let size = real(bytes.len()) / real(count);
    let peer = real(packed) / real(count);
    let open = median_ns(51, || {
        for _ in 0..100 {
            let _ = black_box(Snapshot::open(black_box(bytes.clone())).expect("a good file"));
        }
        100
    });
    let names: Vec<RefName> = (0..10_000).map(|_| change_ref(chance.below(count))).collect();
    let lookup = median_ns(11, || {
        for name in &names {
            black_box(snapshot.get(name).expect("a good file"));
        }
        names.len()
    });
    let decode = median_ns(7, || decoded(snapshot));
    let resident = median_ns(11, || {
        for name in &names {
            black_box(refs.get(name));
        }
        names.len()
    });
    vec![
        Row::new("snapshot, bytes a ref", size, "bytes", Bound::AtMost(25.0)).beside("packed-refs", peer, size / peer),
        Row::new("snapshot, open", open / 1e3, "µs", Bound::AtMost(5.0)),
        Row::new("snapshot, point lookup", lookup / 1e3, "µs", Bound::AtMost(1.0)),
        Row::new("snapshot, full decode a ref", decode, "ns", Bound::AtMost(12.0)),
        Row::new("resident refs, point lookup", resident / 1e3, "µs", Bound::None),
    ]
}

/// Reads all refs; how many there are. Opens the bytes anew, so that every block's checksum is computed again.
fn decoded(snapshot: &Snapshot) -> usize {
    let fresh = Snapshot::open(snapshot.as_bytes().clone()).expect("a good file");
    let mut seen = 0;
    let each = |name: &[u8], value: ValueRef<'_>| {
        black_box((name, value));
        seen += 1;
    };
    fresh.scan(each).expect("a good file");
    seen
}

fn log_bytes(chance: &mut Chance) -> Vec<Row> {
    let pool = 1_000_000;
    let mut refs = Refs::new(config(), LineageId(1));
    let (mut forward, mut invertible, mut changes) = (0, 0, 0);
    let frame = 4 + 2;
    for round in 0..1_000 {
        // Half of the transactions create, half update what an earlier one created.
        let at = |n: usize| (n * 7919 + round / 2 * 104_729) % pool;
        let transaction = updates(&refs, (0..10).map(at), chance);
        let record = record(&refs, &transaction);
        let _ = refs.apply(&record).expect("it follows");
        // The invertible form is told of updates, which are the ones that have an old id to keep.
        forward += record.forward_only().encode().len() - frame;
        if round % 2 == 1 {
            invertible += record.encode().len() - frame;
        }
        changes += record.changes().len();
    }
    let forward = real(forward) / real(changes);
    let invertible = real(invertible) / real(changes / 2);
    vec![
        Row::new("log, bytes a change, forward-only", forward, "bytes", Bound::AtMost(33.0))
            .note("10 changes a transaction, whole checksum in each, frame excluded"),
        Row::new("log, bytes a change, invertible", invertible, "bytes", Bound::AtMost(54.0)).note("updates"),
    ]
}

/// What a payload adds to a record beyond its own bytes: who, when and by which push, in 48 bytes.
fn payload_row(chance: &mut Chance) -> Row {
    let refs = state(1_000, chance);
    let plain = record(&refs, &updates(&refs, 0..10, chance));
    let payload = [7_u8; 48];
    let laden = plain.clone().with_payload(payload).expect("a short one");
    let added = real(laden.encode().len() - plain.encode().len()) - real(payload.len());
    Row::new("payload of 48 bytes, bytes beside it", added, "bytes", Bound::AtMost(2.0))
        .note("its length; read back whole")
}

/// Admission by a snapshot that was just opened, as by a process that starts for one push.
fn tip_rows(snapshot: &Snapshot, refs: &Refs, chance: &mut Chance) -> Vec<Row> {
    let bytes = snapshot.as_bytes().clone();
    let fresh = || {
        let snapshot = Snapshot::open(bytes.clone()).expect("a good file");
        Tip::new(config(), snapshot).expect("of this format")
    };
    let transactions: Vec<Transaction> = (0..100)
        .map(|_| {
            let mut picks: Vec<usize> = (0..10).map(|_| chance.below(refs.len())).collect();
            picks.sort_unstable();
            picks.dedup();
            updates(refs, picks.into_iter(), chance)
        })
        .collect();
    let open = median_ns(51, || {
        for _ in 0..20 {
            black_box(fresh());
        }
        20
    });
    let cold = median_ns(11, || {
        for transaction in &transactions {
            let _ = black_box(fresh().admit(transaction).expect("it fits"));
        }
        transactions.len()
    });
    let tip = fresh();
    let warm = median_ns(11, || {
        for transaction in &transactions {
            let _ = black_box(tip.admit(transaction).expect("it fits"));
        }
        transactions.len()
    });
    let note = format!("{} k refs; computes only", refs.len() / 1_000);
    vec![
        Row::new("admission over a snapshot, open", open / 1e3, "µs", Bound::AtMost(10.0)).note(note.clone()),
        Row::new("ten updates admitted over a snapshot just opened", cold / 1e3, "µs", Bound::AtMost(100.0))
            .note(format!("{note}; about one block a ref, each checksummed")),
        Row::new("ten updates admitted over a snapshot read before", warm / 1e3, "µs", Bound::AtMost(50.0)).note(note),
    ]
}

fn transactions(scale: Scale, chance: &mut Chance) -> Vec<Row> {
    let many = scale.pick(100_000, 10_000);
    let empty = Refs::new(config(), LineageId(1));
    let creates: Transaction = (0..many).map(|n| Command::create(change_ref(n), chance.oid())).collect();
    let create = median_ns(7, || {
        black_box(record(&empty, &creates).encode());
        1
    });
    let refs = state(scale.pick(100_000, 100_000), chance);
    let mut picks: Vec<usize> = (0..10_000).map(|_| chance.below(refs.len())).collect();
    picks.sort_unstable();
    picks.dedup();
    let count = picks.len();
    let cas = updates(&refs, picks.into_iter(), chance);
    let update = median_ns(7, || {
        black_box(record(&refs, &cas).encode());
        1
    });
    vec![
        Row::new("100 k creates admitted and encoded", create / 1e6, "ms", Bound::AtMost(60.0))
            .note(if many == 100_000 { "computes only" } else { "10 k; computes only" }),
        Row::new("10 k compare-and-set updates on 100 k refs", update / 1e6, "ms", Bound::AtMost(10.0))
            .note(format!("{count} updates; computes only")),
    ]
}

fn compaction(scale: Scale, refs: &Refs, snapshot: &Snapshot, chance: &mut Chance) -> Vec<Row> {
    let mut after = refs.clone();
    let mut records = Vec::new();
    for _ in 0..1_000 {
        let mut picks: Vec<usize> = (0..10).map(|_| chance.below(refs.len())).collect();
        picks.sort_unstable();
        picks.dedup();
        let record = record(&after, &updates(&after, picks.into_iter(), chance));
        let _ = after.apply(&record).expect("it follows");
        records.push(record);
    }
    let merge = median_ns(5, || {
        let segment = compact(refs.point(), Mode::Cover, &records).expect("they are adjacent");
        let _ = black_box(snapshot.merge(&segment).expect("it fits"));
        1
    });
    let mut rows = vec![
        Row::new("compaction of 10 k changes into a 1 M base", merge / 1e6, "ms", Bound::AtMost(120.0))
            .note(if refs.len() == 1_000_000 { "" } else { "100 k base" }),
    ];
    rows.push(fold_row(scale, refs, chance));
    rows
}

/// Records of many changes each, as segments that were folded once: what remains is to fold those.
fn fold_row(scale: Scale, refs: &Refs, chance: &mut Chance) -> Row {
    let rounds = scale.pick(10, 4);
    let mut after = refs.clone();
    let mut segments: Vec<Segment> = Vec::new();
    for _ in 0..rounds {
        let base = after.point();
        let all = 0..after.len();
        let record = record(&after, &updates(&after, all, chance));
        let _ = after.apply(&record).expect("it follows");
        segments.push(Segment::of_record(base, &record, Mode::Cover).expect("it starts there"));
    }
    let changes: usize = segments.iter().map(|segment| segment.changes().len()).sum();
    let fold = median_ns(3, || {
        black_box(tenon_refslog::compact_segments(&segments).expect("they are adjacent"));
        changes
    });
    Row::new("fold, changes a second", 1e9 / fold, "changes/s", Bound::AtLeast(10e6)).note(format!(
        "{} k changes over {} k refs",
        changes / 1_000,
        refs.len() / 1_000
    ))
}

fn checksum_row(chance: &mut Chance) -> Row {
    let key = ChecksumKey::new([7; 32]);
    let entries: Vec<(RefName, Value, Value)> =
        (0..10_000).map(|n| (change_ref(n), chance.oid().into(), chance.oid().into())).collect();
    let spent = median_ns(21, || {
        let mut sum = tenon_refslog::Checksum::EMPTY;
        for (name, old, new) in &entries {
            sum = sum.minus(key.entry(name, old)).plus(key.entry(name, new));
        }
        black_box(sum);
        entries.len()
    });
    Row::new("checksum a change (an update: two hashes)", spent, "ns", Bound::AtMost(400.0))
}

/// What two sets of refs without a common log send to know what they differ in.
fn sketch_rows(chance: &mut Chance) -> Vec<Row> {
    let common = state(100_000, chance);
    let mut rows = Vec::new();
    for differences in [0, 100, 1_000, 10_000] {
        let picks = (0..differences / 2).map(|n| n * 7 % common.len());
        let mut moved = common.clone();
        if differences > 0 {
            // A ref that moved is two differences: what it held, and what it holds.
            let _ = moved.apply(&record(&common, &updates(&common, picks, chance))).expect("it follows");
        }
        let (sent, found) = reconciled(&common, &moved);
        assert_eq!(found, differences, "all of them are found");
        let name = format!("sketch, bytes a difference, {differences} of 100 k refs");
        rows.push(match differences {
            0 => Row::new("sketch, bytes sent when equal", real(sent), "bytes", Bound::AtMost(0.0)),
            // Few differences need more cells each; the bound is for many.
            1..1_000 => Row::new(name, real(sent) / real(differences), "bytes", Bound::None),
            _ => Row::new(name, real(sent) / real(differences), "bytes", Bound::AtMost(36.0)),
        });
    }
    rows
}

/// Bytes sent, and differences found.
fn reconciled(here: &Refs, there: &Refs) -> (usize, usize) {
    if here.checksum() == there.checksum() {
        return (0, 0);
    }
    let (mut sketch, mut reconciler) = (Sketch::new(there), Reconciler::new(here, 1_000_000));
    let mut bytes = Vec::new();
    loop {
        let cell = sketch.next_cell();
        cell.encode_into(&mut bytes);
        if let Some(found) = reconciler.handle_cell(cell).expect("the cells of a set") {
            return (bytes.len(), found.here.len() + found.there.len());
        }
    }
}

fn amplification(scale: Scale, refs: &Refs, chance: &mut Chance) -> Vec<Row> {
    let count = scale.pick(100_000, 20_000);
    let mut refs = refs.clone();
    let rule = LogConfig::builder().build().expect("the defaults");
    let mut log = Log::new(rule, refs.snapshot());
    let (mut appended, mut written, mut live) = (0_u64, 0_u64, 0);
    for n in 0..count {
        let pick = chance.below(refs.len());
        let record = record(&refs, &updates(&refs, [pick].into_iter(), chance));
        let _ = refs.apply(&record).expect("it follows");
        appended += record.encode().len() as u64;
        log.append(record).expect("it follows");
        if n % 64 != 63 {
            continue;
        }
        loop {
            match log.plan(u64::MAX) {
                Plan::Fold(stretch) => {
                    let segment = log.fold(&stretch).expect("as planned").segment;
                    written += segment.encode().len() as u64;
                    let _ = log.handle_folded(segment);
                }
                Plan::Absorb(stretch) => {
                    let snapshot = log.absorb(&stretch).expect("as planned").snapshot;
                    written += snapshot.as_bytes().len() as u64;
                    let _ = log.handle_absorbed(snapshot);
                }
                Plan::Nothing | Plan::OverBudget(_) => break,
            }
        }
        live = live.max(log.pieces().filter(|piece| matches!(piece, Piece::Segment(_))).count());
    }
    let amplified = real(usize::try_from((appended + written) * 100 / appended).unwrap_or(0)) / 100.0;
    let note = format!("{} k one-change transactions on {} k refs, default rule", count / 1_000, refs.len() / 1_000);
    vec![
        Row::new("write amplification", amplified, "×", Bound::AtMost(14.0)).note(note),
        Row::new("live segments at most", real(live), "segments", Bound::AtMost(10.0)),
    ]
}
