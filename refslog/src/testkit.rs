//! Tortures a host's own log store, and checks the crate's rules through it.
//!
//! A host implements [`LogStore`] for its store (a file, a table, an object store) and calls [`torture`] in a test, with a
//! few hundred seeds. The kit writes a random history through the store as a writer would, and treats it as the world
//! does: replies are lost, writers append the same version twice, the process dies between each two steps, a write is cut
//! short, snapshots are stale, records are folded and deleted. After each step, a replica that knows nothing must come to
//! the very refs that were acknowledged, every record that is left must be the bytes that were appended (its payload
//! included), and every pin must be kept and its version be readable.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use bytes::Bytes;

use crate::{
    ChecksumKey, Command, Config, LineageId, Mode, ObjectFormat, ObjectId, PinId, Point, Record, RefName, Refs,
    Segment, Snapshot, Transaction, Version, compact,
};

/// The result of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The version was free; the bytes are durable now.
    Durable,
    /// The version is taken by another record; nothing was changed.
    Taken,
}

/// A host's store of one repository's log.
pub trait LogStore {
    /// The error of the store itself.
    type Error: Debug;

    /// Appends a record's bytes under a version, durably, if that version is free (compare-and-set).
    ///
    /// # Errors
    /// The store failed. Whether the record was kept may then be unknown.
    fn append(&mut self, version: Version, record: &[u8]) -> Result<Appended, Self::Error>;

    /// Reads the records after a version, in order, as they were appended. Records that a segment replaced may be
    /// missing.
    ///
    /// # Errors
    /// The store failed.
    fn records_after(&mut self, version: Version) -> Result<Vec<Bytes>, Self::Error>;

    /// Stores a snapshot durably; only then deletes older snapshots, and records and segments up to it.
    ///
    /// # Errors
    /// The store failed.
    fn put_snapshot(&mut self, at: Version, snapshot: &[u8]) -> Result<(), Self::Error>;

    /// Reads the newest snapshot, if there is one.
    ///
    /// # Errors
    /// The store failed.
    fn snapshot(&mut self) -> Result<Option<Bytes>, Self::Error>;

    /// Stores a segment durably; only then deletes the records that it covers.
    ///
    /// # Errors
    /// The store failed.
    fn put_segment(&mut self, base: Version, end: Version, segment: &[u8]) -> Result<(), Self::Error>;

    /// Reads all segments that no snapshot replaced, in order.
    ///
    /// # Errors
    /// The store failed.
    fn segments(&mut self) -> Result<Vec<Bytes>, Self::Error>;

    /// Stores a pin durably; `None` removes it.
    ///
    /// Only a host that pins versions implements this and [`LogStore::pins`].
    ///
    /// # Errors
    /// The store failed.
    fn put_pin(&mut self, _pin: PinId, _version: Option<Version>) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Reads all pins, in the order of their numbers.
    ///
    /// `None`, the default, means that the host pins nothing.
    ///
    /// # Errors
    /// The store failed.
    fn pins(&mut self) -> Result<Option<Vec<(PinId, Version)>>, Self::Error> {
        Ok(None)
    }

    /// Kills the process and starts it again: data that is not durable is gone.
    ///
    /// With `torn`, as many bytes of the next record, which was never acknowledged, had reached the medium.
    ///
    /// # Errors
    /// The store does not come up again.
    fn crash(&mut self, torn: Option<&[u8]>) -> Result<(), Self::Error>;
}

/// A rule that the store broke, with what is needed to reproduce it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// The step at which the fault showed.
    pub step: usize,
    /// A description of the fault.
    pub what: String,
}

/// The statistics of a run, so that a test can see that something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of records acknowledged.
    pub records: usize,
    /// The number of appends that were repeated or in conflict.
    pub conflicts: usize,
    /// The number of crashes.
    pub crashes: usize,
    /// The number of crashes that left part of a record behind.
    pub torn: usize,
    /// The number of segments stored.
    pub segments: usize,
    /// The number of snapshots stored.
    pub snapshots: usize,
    /// The number of versions pinned.
    pub pins: usize,
}

/// Runs `steps` random steps through a new store.
///
/// # Errors
/// The first rule that the store breaks.
pub fn torture<S: LogStore>(store: &mut S, seed: u64, steps: usize) -> Result<Report, Violation> {
    let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([seed.to_le_bytes()[0]; 32]));
    let config = config.build().map_err(|error| Violation { seed, step: 0, what: format!("{error}") })?;
    let refs = Refs::new(config.clone(), LineageId(seed));
    let chance = Chance(seed);
    let (stale, appended, pins) = (refs.clone(), BTreeMap::new(), BTreeMap::new());
    let mut run = Run { store, config, chance, stale, refs, appended, pins, report: Report::default() };
    for step in 0..steps {
        run.step().and_then(|()| run.check()).map_err(|what| Violation { seed, step, what })?;
    }
    Ok(run.report)
}

struct Run<'a, S> {
    store: &'a mut S,
    config: Config,
    chance: Chance,
    /// The refs after all acknowledged records.
    refs: Refs,
    /// A replica that now and then catches up.
    stale: Refs,
    /// The records that were acknowledged.
    appended: BTreeMap<Version, Bytes>,
    /// The pins that were acknowledged, each with what its version must come to.
    pins: BTreeMap<PinId, Point>,
    report: Report,
}

fn failed(error: impl Debug) -> String {
    format!("the store failed: {error:?}")
}

impl<S: LogStore> Run<'_, S> {
    fn step(&mut self) -> Result<(), String> {
        match self.chance.below(12) {
            0..=4 => self.write(),
            5 => self.conflict(),
            6 => self.crash(),
            7 => self.fold(),
            8 => self.snapshot(),
            9 => self.pin(),
            10 => self.unpin(),
            _ => {
                let mut stale = self.stale.clone();
                self.catch_up(&mut stale)?;
                self.stale = stale;
                Ok(())
            }
        }
    }

    fn next_record(&mut self) -> Option<Record> {
        let mut transaction = Transaction::new();
        for n in 0..=self.chance.below(3) {
            let name = RefName::store(format!("refs/heads/{}-{n}", self.chance.below(6)).as_bytes());
            let id = ObjectId::from_bytes(&[self.chance.below(200) + 1; 20]).ok()?;
            transaction.push(match self.chance.below(3) {
                0 => Command::delete(name),
                _ => Command::update(name, id),
            });
        }
        let record = self.refs.admit(&transaction).ok()?.into_record()?;
        let payload = b"who, when, by which push";
        record.with_payload(payload.get(..usize::from(self.chance.below(25)))?).ok()
    }

    /// Appends; in one of three cases the reply is lost and the log is read back to learn what happened.
    fn write(&mut self) -> Result<(), String> {
        let Some(record) = self.next_record() else { return Ok(()) };
        let found = self.store.append(record.version(), &record.encode()).map_err(failed)?;
        if found != Appended::Durable {
            return Err(format!("version {} is free and was refused", record.version()));
        }
        if self.chance.below(3) == 0 {
            self.store.crash(None).map_err(failed)?;
            let kept = self.store.records_after(self.refs.version()).map_err(failed)?;
            if kept.first() != Some(&record.encode()) {
                return Err(format!("version {} was acknowledged as durable and is gone", record.version()));
            }
        }
        let _ = self.refs.apply(&record).map_err(|error| format!("{error}"))?;
        self.appended.insert(record.version(), record.encode());
        self.report.records += 1;
        Ok(())
    }

    /// Pins the newest version.
    fn pin(&mut self) -> Result<(), String> {
        if self.store.pins().map_err(failed)?.is_none() {
            return Ok(());
        }
        let pin = PinId(u64::from(self.chance.below(3)));
        self.store.put_pin(pin, Some(self.refs.version())).map_err(failed)?;
        self.pins.insert(pin, self.refs.point());
        self.report.pins += 1;
        if self.chance.below(2) == 0 { self.store.crash(None).map_err(failed) } else { Ok(()) }
    }

    fn unpin(&mut self) -> Result<(), String> {
        let Some((pin, _)) = self.pins.pop_first() else { return Ok(()) };
        self.store.put_pin(pin, None).map_err(failed)?;
        if self.chance.below(2) == 0 { self.store.crash(None).map_err(failed) } else { Ok(()) }
    }

    /// A second writer, or the same one again, appends a version that is there.
    fn conflict(&mut self) -> Result<(), String> {
        let version = self.refs.version();
        let mut kept = self.store.records_after(Version(version.0.saturating_sub(1))).map_err(failed)?;
        let Some(newest) = kept.pop().filter(|_| version > Version::GENESIS) else { return Ok(()) };
        let found = self.store.append(version, b"another record").map_err(failed)?;
        let again = self.store.append(version, &newest).map_err(failed)?;
        if (found, again) != (Appended::Taken, Appended::Taken) {
            return Err(format!("version {version} is taken, and was appended again"));
        }
        self.report.conflicts += 1;
        Ok(())
    }

    /// Dies; perhaps in the middle of a record that nobody was told of.
    fn crash(&mut self) -> Result<(), String> {
        self.report.crashes += 1;
        let record = self.next_record().map(|record| record.encode());
        let cut = record.as_ref().map(|bytes| bytes.len() / (1 + usize::from(self.chance.below(4))) - 1);
        let torn = record.as_ref().zip(cut).and_then(|(bytes, cut)| bytes.get(..cut)).filter(|part| !part.is_empty());
        self.report.torn += usize::from(torn.is_some());
        self.store.crash(torn).map_err(failed)
    }

    fn decoded(&mut self, after: Version) -> Result<Vec<Record>, String> {
        let kept = self.store.records_after(after).map_err(failed)?;
        kept.iter()
            .map(|bytes| {
                let record = Record::decode(bytes).map_err(|error| format!("a record was altered: {error}"))?;
                match self.appended.get(&record.version()) {
                    Some(appended) if appended != bytes => {
                        Err(format!("record {} is not as appended", record.version()))
                    }
                    _ => Ok(record),
                }
            })
            .collect()
    }

    /// Folds the records since the last segment or snapshot, not across a pinned version, and lets the store forget them.
    fn fold(&mut self) -> Result<(), String> {
        let mut base = Refs::new(self.config.clone(), self.refs.lineage());
        self.restore(&mut base)?;
        self.replay_segments(&mut base)?;
        let mut records = self.decoded(base.version())?;
        let pinned = self.pins.values().map(|point| point.version).filter(|version| *version > base.version()).min();
        records.retain(|record| pinned.is_none_or(|pinned| record.version() <= pinned));
        if records.len() < 2 {
            return Ok(());
        }
        let some = 2 + usize::from(self.chance.below(4));
        let segment =
            compact(base.point(), Mode::Cover, records.iter().take(some)).map_err(|error| format!("{error}"))?;
        let (from, to) = (segment.base().version, segment.end().version);
        self.store.put_segment(from, to, &segment.encode()).map_err(failed)?;
        self.report.segments += 1;
        if self.chance.below(2) == 0 { self.store.crash(None).map_err(failed) } else { Ok(()) }
    }

    /// Keeps the newest refs as a snapshot, unless an older version is pinned.
    fn snapshot(&mut self) -> Result<(), String> {
        if self.pins.values().any(|point| point.version < self.refs.version()) {
            return Ok(());
        }
        let snapshot = self.refs.snapshot();
        self.store.put_snapshot(self.refs.version(), snapshot.as_bytes()).map_err(failed)?;
        self.report.snapshots += 1;
        if self.chance.below(2) == 0 { self.store.crash(None).map_err(failed) } else { Ok(()) }
    }

    /// Takes the snapshot where that is newer than the replica.
    fn restore(&mut self, replica: &mut Refs) -> Result<(), String> {
        let Some(bytes) = self.store.snapshot().map_err(failed)? else { return Ok(()) };
        let snapshot = Snapshot::open(bytes).map_err(|error| format!("a snapshot was altered: {error}"))?;
        if snapshot.point().version > replica.version() {
            *replica = Refs::restore(self.config.clone(), &snapshot).map_err(|error| format!("{error}"))?;
        }
        Ok(())
    }

    fn replay_segments(&mut self, replica: &mut Refs) -> Result<(), String> {
        for bytes in self.store.segments().map_err(failed)? {
            let segment = Segment::decode(bytes).map_err(|error| format!("a segment was altered: {error}"))?;
            let _ = replica.replay(&segment).map_err(|error| format!("a segment does not follow: {error}"))?;
        }
        Ok(())
    }

    /// Brings a replica to the newest version through the store alone.
    fn catch_up(&mut self, replica: &mut Refs) -> Result<(), String> {
        self.restore(replica)?;
        self.replay_segments(replica)?;
        for record in self.decoded(replica.version())? {
            let _ = replica.apply(&record).map_err(|error| format!("a record does not follow: {error}"))?;
        }
        if replica.point() == self.refs.point() {
            return Ok(());
        }
        let (found, want) = (replica.version(), self.refs.version());
        Err(format!("a replica comes to version {found}, {want} was acknowledged; or to other refs"))
    }

    fn check(&mut self) -> Result<(), String> {
        let mut fresh = Refs::new(self.config.clone(), self.refs.lineage());
        self.catch_up(&mut fresh)?;
        let mut stale = self.stale.clone();
        self.catch_up(&mut stale)?;
        self.check_pins()
    }

    /// Every pin is there, and what it pins can be made again.
    fn check_pins(&mut self) -> Result<(), String> {
        let Some(kept) = self.store.pins().map_err(failed)? else { return Ok(()) };
        let wanted: Vec<(PinId, Version)> = self.pins.iter().map(|(pin, point)| (*pin, point.version)).collect();
        if kept != wanted {
            return Err(format!("{wanted:?} are pinned, {kept:?} are kept"));
        }
        // One of them, as a look at all after each step takes long.
        let at = usize::from(self.chance.below(3)) % self.pins.len().max(1);
        let Some(pinned) = self.pins.values().nth(at).copied() else { return Ok(()) };
        let mut refs = Refs::new(self.config.clone(), self.refs.lineage());
        self.restore(&mut refs)?;
        for bytes in self.store.segments().map_err(failed)? {
            let segment = Segment::decode(bytes).map_err(|error| format!("a segment was altered: {error}"))?;
            if segment.end().version <= pinned.version {
                let _ = refs.replay(&segment).map_err(|error| format!("a segment does not follow: {error}"))?;
            }
        }
        for record in self.decoded(refs.version())?.iter().filter(|record| record.version() <= pinned.version) {
            let _ = refs.apply(record).map_err(|error| format!("a record does not follow: {error}"))?;
        }
        if refs.point() != pinned {
            return Err(format!("version {} is pinned and cannot be made again", pinned.version));
        }
        Ok(())
    }
}

/// `SplitMix64`: the same seed gives the same run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u8) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((z ^ (z >> 31)) % u64::from(bound.max(1))).unwrap_or_default()
    }
}
