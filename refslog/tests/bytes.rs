//! The bytes of every format: kept for ever in `tests/data/golden`, and damaged in every way.
//!
//! A new format gets new files (`REFSLOG_BLESS=1` writes those that are missing); the old ones stay and must be read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its files and variables")]

mod common;

use std::path::PathBuf;

use bytes::Bytes;
use common::{LINEAGE, config, id, key, name, oid, symbolic};
use tenon_refslog::{
    Change, ChecksumKey, Command, Config, DecodeErrorKind, Mode, ObjectFormat, ObjectId, Old, Peel, Point, Record,
    Records, Refs, RefsError, RestoreError, Segment, Snapshot, Target, Transaction, Value, Version, compact,
};

/// A log that has everything in it: creates, updates, deletions, symbolic refs, a tag, numbers, odd bytes, long names.
fn log() -> (Refs, Vec<Refs>, Vec<Record>) {
    let tag = Value::from(Target::peeled_to(oid(70), oid(71)).unwrap());
    let long = format!("refs/heads/{}", "long/".repeat(12) + "name");
    let first: Vec<Command> = (0..140_u64)
        .map(|n| Command::create(name(&format!("refs/changes/{:02}/{}/1", n % 7, 1000 + n)), oid(n)))
        .chain([
            Command::create(name("HEAD"), symbolic("refs/heads/main")),
            Command::create(name("refs/heads/main"), oid(1)),
            Command::create(name("refs/tags/v1.0"), tag),
            Command::create(name(&long), oid(3)),
            Command::create(tenon_refslog::RefName::new(b"refs/heads/caf\xe9").unwrap(), oid(4)),
        ])
        .collect();
    let steps: [Vec<Command>; 4] = [
        first,
        vec![Command::update(name("HEAD"), oid(5)).expecting(Old::Is(id(1))), Command::delete(name(&long))],
        vec![
            Command::update(name("HEAD"), symbolic("refs/heads/next")),
            Command::delete(name("refs/changes/03/1003/1")),
        ],
        vec![Command::update(name("refs/heads/main"), oid(1)), Command::delete(name("refs/tags/v1.0"))],
    ];
    let mut refs = Refs::new(config(), LINEAGE);
    let mut states = vec![refs.clone()];
    let mut records = Vec::new();
    for step in steps {
        let record = refs.admit(&Transaction::from_iter(step)).unwrap().into_record().unwrap();
        let _ = refs.apply(&record).unwrap();
        states.push(refs.clone());
        records.push(record);
    }
    (refs, states, records)
}

fn sha256_record() -> Record {
    let wide = |n| ObjectId::from_bytes(&[n; 32]).unwrap();
    let config = Config::builder(ObjectFormat::Sha256, key()).build().unwrap();
    let refs = Refs::from_entries(config, LINEAGE, Version(9), [(name("refs/heads/a"), wide(1).into())]).unwrap();
    let both = [Command::update(name("refs/heads/a"), wide(2)), Command::create(name("refs/heads/b"), wide(3))];
    refs.admit(&both.into_iter().collect()).unwrap().into_record().unwrap()
}

/// A record with a payload, of whose ids it is known what they peel to.
fn with_everything() -> Record {
    let refs = Refs::new(config(), LINEAGE);
    let tag = Value::from(Target::peeled_to(oid(70), oid(71)).unwrap());
    let plain = Value::from(Target::not_a_tag(oid(1)));
    let both = [Command::create(name("refs/heads/a"), plain), Command::create(name("refs/tags/v1"), tag)];
    let record = refs.admit(&both.into_iter().collect()).unwrap().into_record().unwrap();
    record.with_payload(b"ann, by push 7".to_vec()).unwrap()
}

fn peels_of(record: &Record) -> Vec<Option<Peel>> {
    let peel = |value: Option<&Value>| match value {
        Some(Value::Direct(target)) => Some(target.peel()),
        _ => None,
    };
    record.changes().iter().map(|change| peel(change.new_value())).collect()
}

fn log_bytes(records: &[Record]) -> Bytes {
    let mut out = Vec::new();
    for record in records {
        record.encode_into(&mut out);
    }
    out.into()
}

fn golden(file: &str, bytes: &[u8]) -> Bytes {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "data", "golden", file].iter().collect();
    if std::env::var_os("REFSLOG_BLESS").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(kept == bytes, "{file}: the encoding has changed; give the new one a format of its own");
    kept.into()
}

#[test]
fn golden_files_are_written_and_read_as_ever() {
    let (end, states, records) = log();
    let kept = golden("log-v1.bin", &log_bytes(&records));
    assert_eq!(Records::new(kept).map(Result::unwrap).collect::<Vec<_>>(), records);
    let wide = sha256_record();
    let kept = golden("record-sha256-v1.bin", &wide.encode());
    assert_eq!(Record::decode(&kept).unwrap(), wide);
    let rich = with_everything();
    let kept = golden("record-payload-v1.bin", &rich.encode());
    let read = Record::decode(&kept).unwrap();
    assert_eq!((read.payload(), peels_of(&read)), (rich.payload(), peels_of(&rich)));
    assert_eq!(read, rich);
    let kept = golden("record-forward-only-v1.bin", &records[1].forward_only().encode());
    assert_eq!(Record::decode(&kept).unwrap(), records[1].forward_only());
    for (file, mode, from) in [("segment-cover-v1.bin", Mode::Cover, 0), ("segment-exact-v1.bin", Mode::Exact, 1)] {
        let segment = compact(states[from].point(), mode, &records[from..]).unwrap();
        assert_eq!(Segment::decode(golden(file, &segment.encode())).unwrap(), segment);
    }
    let empty = Segment::empty(end.point(), Mode::Cover);
    assert_eq!(Segment::decode(golden("segment-empty-v1.bin", &empty.encode())).unwrap(), empty);
    let kept = golden("snapshot-v1.bin", end.snapshot().as_bytes());
    let opened = Snapshot::open(kept).unwrap();
    let restored = Refs::restore(config(), &opened).unwrap();
    assert!(restored.iter().eq(end.iter()) && restored.point() == end.point());
    for (name, value) in end.iter() {
        assert_eq!(opened.get(&name).unwrap(), Some(value));
    }
    for missing in ["A", "refs/changes/03/1003/1", "refs/changes/03/1003", "refs/heads/zz", "zz"] {
        assert_eq!(opened.get(&name(missing)).unwrap(), None, "{missing}");
    }
}

fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..bytes.len() * 8).map(move |bit| {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        (bit, damaged)
    })
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let (end, states, records) = log();
    let file = log_bytes(&records[1..]);
    for (bit, damaged) in flips(&file) {
        let read: Vec<_> = Records::new(damaged).collect();
        let (last, good) = read.split_last().unwrap();
        assert!(last.is_err(), "bit {bit}");
        assert!(good.iter().zip(&records[1..]).all(|(read, record)| read.as_ref() == Ok(record)), "bit {bit}");
    }
    for mode in [Mode::Cover, Mode::Exact] {
        let segment = compact(states[1].point(), mode, &records[1..]).unwrap().encode();
        for (bit, damaged) in flips(&segment) {
            assert!(Segment::decode(damaged).is_err(), "bit {bit}");
        }
    }
    let bytes = end.snapshot().as_bytes().clone();
    for (bit, damaged) in flips(&bytes) {
        let restored = Snapshot::open(damaged).map(|opened| Refs::restore(config(), &opened));
        assert!(!matches!(restored, Ok(Ok(_))), "bit {bit}");
    }
}

#[test]
fn a_cut_is_found_wherever_it_is() {
    let (end, states, records) = log();
    let file = log_bytes(&records[1..]);
    let ends: Vec<usize> = (1..=3).map(|n| log_bytes(&records[1..=n]).len()).collect();
    for len in 0..file.len() {
        let mut reader = Records::new(file.slice(..len));
        let whole = reader.by_ref().take_while(Result::is_ok).count();
        assert_eq!(whole, ends.iter().filter(|end| **end <= len).count(), "cut at {len}");
        let again: Vec<_> = Records::new(file.slice(..len)).collect();
        if len > 0 && !ends.contains(&len) {
            let error = again.last().unwrap().as_ref().unwrap_err();
            assert!(error.is_torn(), "cut at {len}: {error}");
            assert_eq!(error.offset(), ends.iter().rfind(|end| **end < len).copied().unwrap_or(0));
        }
    }
    let segment = compact(states[0].point(), Mode::Cover, &records).unwrap().encode();
    let snapshot = end.snapshot().as_bytes().clone();
    for len in 0..segment.len() {
        assert!(Segment::decode(segment.slice(..len)).is_err(), "cut at {len}");
    }
    for len in 0..snapshot.len() {
        assert!(Snapshot::open(snapshot.slice(..len)).is_err(), "cut at {len}");
    }
}

#[test]
fn damage_before_a_good_record_is_not_taken_for_a_cut() {
    let (_, _, records) = log();
    let file = log_bytes(&records[1..]);
    let last = file.len() - records[3].encode().len();
    for (bit, damaged) in flips(&file).take_while(|(bit, _)| bit / 8 < last) {
        let error = Records::new(damaged).find_map(Result::err).unwrap();
        assert!(!error.is_torn(), "bit {bit}: {error}");
    }
    // A range that a file system allocated and never wrote reads as zeros.
    for zeros in 1..64 {
        let mut tail = file.to_vec();
        tail.extend(vec![0; zeros]);
        let error = Records::new(tail).find_map(Result::err).unwrap();
        assert_eq!((error.offset(), error.is_torn()), (file.len(), true), "{zeros}: {error}");
    }
}

/// Names and payloads are bytes that others choose: whole frames among them. Wherever such a record is cut off, it is a write
/// that was cut short, and not damage before a good record.
#[test]
fn what_looks_like_a_frame_is_none() {
    let (_, _, records) = log();
    let inner = records[1].encode();
    // A frame of bytes that a name may hold.
    let tries = (50..120).flat_map(|len| (0..300).map(move |n| format!("{n:06}{}", "b".repeat(len))));
    let mut frames = tries.map(|body| framed(body.as_bytes()));
    let fits = |frame: &Vec<u8>| tenon_refslog::RefName::new([b"refs/heads/", &frame[..]].concat()).is_ok();
    let frame = frames.find(fits).expect("one in a few hundred");
    let refs = Refs::new(config(), LINEAGE);
    let named = tenon_refslog::RefName::new([b"refs/heads/", &frame[..]].concat()).unwrap();
    let plain = refs.admit(&Command::create(named, oid(1)).into()).unwrap().into_record().unwrap();
    let laden = plain.clone().with_payload([&inner[..], &frame, &inner].concat()).unwrap();
    for record in [plain, laden] {
        let file = [&inner[..], &record.encode()].concat();
        for len in inner.len() + 1..file.len() {
            let error = Records::new(file[..len].to_vec()).find_map(Result::err).unwrap();
            assert_eq!((error.offset(), error.is_torn()), (inner.len(), true), "cut at {len}: {error}");
        }
        // And cut off in what a file system had set aside for it.
        for len in (inner.len() + 1..file.len()).step_by(3) {
            let padded = [&file[..len], &[0; 300]].concat();
            let error = Records::new(padded).find_map(Result::err).unwrap();
            assert_eq!((error.offset(), error.is_torn()), (inner.len(), true), "unwritten from {len}: {error}");
        }
        // Damage before a good record stays damage, whatever that looks like.
        let more = [&file[..], &inner].concat();
        for (bit, damaged) in flips(&more).take_while(|(bit, _)| bit / 8 < file.len()).step_by(5) {
            let error = Records::new(damaged).find_map(Result::err).unwrap();
            assert!(!error.is_torn(), "bit {bit}: {error}");
        }
    }
}

/// The body of a frame: behind a length in bytes of seven bits, and two checksums of four.
fn body_of(frame: &[u8]) -> &[u8] {
    let length = 1 + frame.iter().take_while(|byte| **byte >= 0x80).count();
    &frame[length + 8..]
}

/// The frame with its body altered and its checksum made to fit.
fn resealed(frame: &[u8], alter: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut body = body_of(frame).to_vec();
    let length = &frame[..frame.len() - body.len() - 8];
    alter(&mut body);
    let of_length = crc32c::crc32c(length);
    let crc = crc32c::crc32c_append(of_length, &body);
    [length, &of_length.to_le_bytes(), &crc.to_le_bytes(), &body].concat()
}

/// Damage under a checksum that was made to fit: what is accepted is exactly what the encoder would have written.
#[test]
fn hostile_bytes_with_fitting_checksums_are_canonical_or_refused() {
    let (_, _, records) = log();
    let mut accepted = 0;
    let others = [sha256_record(), records[1].forward_only(), with_everything()];
    for record in records[1..].iter().chain(&others) {
        let frame = record.encode();
        for at in 0..body_of(&frame).len() {
            for flip in [1_u8, 2, 0x10, 0x80, 0xff] {
                let hostile = resealed(&frame, |body| body[at] ^= flip);
                if let Ok(read) = Record::decode(&hostile) {
                    accepted += 1;
                    assert_eq!(read.encode(), hostile, "byte {at} ^ {flip:#x}");
                }
            }
        }
    }
    assert!(accepted > 100, "only {accepted} were accepted: is anything tried?");
}

/// Where the checksummed parts of a segment with one node above its blocks stand: the blocks, the node, the footer. The
/// footer's checksum counts the tag that follows it, too.
fn parts_of(segment: &[u8]) -> Vec<std::ops::Range<usize>> {
    const META: usize = 89;
    let number = |at: usize| usize::try_from(u32::from_le_bytes(segment[at..at + 4].try_into().unwrap())).unwrap();
    let footer = segment.len() - 5 - 4 - META - 21;
    let node = number(footer + 8);
    assert_eq!((segment[footer + 20], number(footer + 16)), (1, footer - node), "one level, and the root is its node");
    let count = number(node);
    let children = number(node + 8);
    let ends = (0..count).map(|child| children + number(node + 16 + 4 * count + 4 * child));
    let mut starts = vec![children];
    starts.extend(ends);
    let blocks = starts.windows(2).map(|pair| pair[0]..pair[1]);
    blocks.chain([node..footer, footer..segment.len() - 5]).collect()
}

#[test]
fn hostile_segments_with_fitting_checksums_are_canonical_or_refused() {
    let (_, states, records) = log();
    let (mut accepted, mut refused) = (0, 0);
    for segment in [
        compact(states[0].point(), Mode::Cover, &records).unwrap(),
        compact(states[0].point(), Mode::Cover, &records).unwrap().forward_only(),
    ] {
        let bytes = segment.encode();
        let tag = bytes[4];
        for part in parts_of(&bytes) {
            let is_footer = part.end == bytes.len() - 5;
            for at in part.start..part.end - 4 {
                let mut hostile = bytes.to_vec();
                hostile[at] ^= 1 << (at % 8);
                let lead = if is_footer { crc32c::crc32c(&[tag]) } else { 0 };
                let crc = crc32c::crc32c_append(lead, &hostile[part.start..part.end - 4]);
                hostile[part.end - 4..part.end].copy_from_slice(&crc.to_le_bytes());
                match Segment::decode(hostile.clone()) {
                    Ok(read) => {
                        accepted += 1;
                        assert_eq!(read.encode(), hostile, "byte {at}");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(accepted > 3_000 && refused > 500, "{accepted} accepted, {refused} refused: is anything tried?");
}

#[test]
fn later_formats_and_other_files_are_unsupported() {
    let (end, _, records) = log();
    let frame = records[1].encode();
    let later = resealed(&frame, |body| body[0] = 0x7f);
    let error = Record::decode(&later).unwrap_err();
    let start = frame.len() - body_of(&frame).len();
    assert_eq!((error.offset(), error.kind()), (start, &DecodeErrorKind::Unsupported { tag: 0x7f }));
    let snapshot = end.snapshot().as_bytes().clone();
    let error = Segment::decode(snapshot).unwrap_err();
    assert!(matches!(error.kind(), DecodeErrorKind::Unsupported { .. }), "{error}");
    let text = Snapshot::open(vec![b'x'; 500]).unwrap_err();
    assert!(matches!(text.kind(), DecodeErrorKind::Unsupported { .. }), "{text}");
}

/// A frame of a body of less than 128 bytes.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::try_from(body.len()).unwrap()];
    assert!(frame[0] < 0x80);
    let of_length = crc32c::crc32c(&frame);
    frame.extend(of_length.to_le_bytes());
    frame.extend(crc32c::crc32c_append(of_length, body).to_le_bytes());
    frame.extend(body);
    frame
}

#[test]
fn a_number_has_one_form() {
    let record = sha256_record().forward_only();
    let frame = record.encode();
    let body = body_of(&frame);
    // Tag, lineage, version, checksum; then the count.
    let (version, count) = (9, 42);
    assert_eq!((body[version], body[count]), (10, 2));
    for at in [version, count] {
        for more in [&[0x00][..], &[0x80, 0x00], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]] {
            let longer = [&body[..at], &[body[at] | 0x80], more, &body[at + 1..]].concat();
            // What is cut off at the end makes room in the one byte of the length, and is never reached.
            let error = Record::decode(&framed(&longer[..longer.len().min(127)])).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (&DecodeErrorKind::Overlong, 9 + at), "{more:x?}");
        }
    }
    assert_eq!(Record::decode(&framed(body)).as_ref(), Ok(&record));
}

/// Whole bytes are not enough: the refs must be those that the key's holder wrote.
#[test]
fn a_snapshot_of_another_key_is_not_restored() {
    let (end, _, _) = log();
    let other = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([8; 32])).build().unwrap();
    let refused = Refs::restore(other, &end.snapshot()).unwrap_err();
    assert!(matches!(refused, RestoreError::Refs(RefsError::Checksum { want, .. }) if want == end.checksum()));
}

#[test]
fn a_segment_of_every_mode_and_form_is_read_back() {
    let (_, states, records) = log();
    for mode in [Mode::Cover, Mode::Exact] {
        let segment = compact(states[0].point(), mode, &records).unwrap();
        for segment in [segment.forward_only(), segment] {
            assert_eq!(Segment::decode(segment.encode()).unwrap(), segment);
        }
    }
}

/// Where there is no id, nothing tells the object formats apart: only one of the two may be written.
#[test]
fn without_any_id_the_first_format_is_written() {
    let after = Point { version: Version(1), ..Point::genesis(LINEAGE) };
    let gone = Record::new(after, vec![Change::new(name("refs/heads/a"), Old::Any, None)]).unwrap();
    let error = Record::decode(&resealed(&gone.encode(), |body| body[0] ^= 1)).unwrap_err();
    assert_eq!(error.kind(), &DecodeErrorKind::NotCanonical);

    let segment = Segment::of_record(Point::genesis(LINEAGE), &gone, Mode::Cover).unwrap();
    let mut bytes = segment.encode().to_vec();
    let end = bytes.len();
    let tag = bytes[4] ^ 1;
    (bytes[4], bytes[end - 5]) = (tag, tag);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[tag]), &bytes[end - 5 - 4 - 89 - 21..end - 9]);
    bytes[end - 9..end - 5].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Segment::decode(bytes).unwrap_err().kind(), &DecodeErrorKind::NotCanonical);
}

/// What is known of all new ids stands in one bit, and nowhere else: the bit without such an id, and all ids known without the
/// bit, are other bytes for the same record.
#[test]
fn what_is_known_of_peeled_ids_is_written_in_one_way() {
    let after = Point { version: Version(1), ..Point::genesis(LINEAGE) };
    let gone = Change::new(name("refs/heads/a"), Old::Any, None);
    let tag = Value::from(Target::peeled_to(oid(70), oid(71)).unwrap());
    let tagged = Change::new(name("refs/tags/v1"), Old::Any, Some(tag));
    for changes in [vec![gone], vec![tagged]] {
        let good = Record::new(after, changes).unwrap().encode();
        assert!(Record::decode(&good).is_ok());
        let error = Record::decode(&resealed(&good, |body| body[0] ^= 4)).unwrap_err();
        assert_eq!(error.kind(), &DecodeErrorKind::NotCanonical);
    }
}

#[test]
fn a_count_is_not_believed() {
    // A frame of a few bytes that claims 2^40 changes: refused before anything is set aside for them.
    let mut body = vec![0x10];
    body.extend([0; 8]);
    body.push(1);
    body.extend([0; 32]);
    body.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0, 1, 0]);
    assert_eq!(Record::decode(&framed(&body)).unwrap_err().kind(), &DecodeErrorKind::Truncated);
}

#[test]
fn records_cannot_be_built_wrong() {
    let after = Point { version: Version(3), ..Point::genesis(LINEAGE) };
    let create = |n: &str| Change::new(name(n), Old::Absent, Some(id(1)));
    let build = |changes: Vec<Change>| Record::new(after, changes).map(|_| ());
    assert!(build(vec![create("refs/heads/a"), create("refs/heads/b")]).is_ok());
    assert!(build(vec![]).is_err());
    assert!(build(vec![create("refs/heads/b"), create("refs/heads/a")]).is_err());
    assert!(build(vec![create("refs/heads/a"), create("refs/heads/a")]).is_err());
    assert!(build(vec![Change::new(name("refs/heads/a"), Old::Is(id(1)), Some(id(1)))]).is_err());
    assert!(build(vec![create("refs/heads/a"), Change::new(name("refs/heads/b"), Old::Any, None)]).is_err());
    assert!(Record::new(Point::genesis(LINEAGE), vec![create("refs/heads/a")]).is_err());
}
