//! The newest refs without all of them in memory: a snapshot, read in place, and the changes since.

use alloc::collections::BTreeMap;
use core::ops::{Bound, ControlFlow};

use crate::admit::{self, Around, Source};
use crate::change::Value;
use crate::codec::error::DecodeError;
use crate::compact::Segment;
use crate::config::Config;
use crate::id::Point;
use crate::log::{Log, LogError, Piece};
use crate::name::RefName;
use crate::record::Record;
use crate::refs::{Refs, RefsError};
use crate::replay::{self, Part, Replayed};
use crate::snapshot::{RestoreError, Snapshot};
use crate::transaction::Transaction;
use crate::verdict::{Admitted, Refused};

/// The refs at the newest version of a log, as a snapshot read in place and the changes since.
///
/// It opens in microseconds, whatever the number of refs, and keeps only changed refs in memory.
///
/// It admits transactions as [`Refs`] does, verdict by verdict, and reads the blocks of the snapshot that the transaction's
/// names are in: about one for each ref. Refs that a transaction creates cost a few look-ups more, for their parents and what
/// may be below them. As the changes since the snapshot grow, so does this: take a newer snapshot now and then.
///
/// ```
/// use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Snapshot, Tip};
///
/// let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
/// let stored = Refs::new(config.clone(), LineageId(1)).snapshot().as_bytes().clone();
///
/// let mut tip = Tip::new(config, Snapshot::open(stored)?)?;
/// let create = Command::create(RefName::new("refs/heads/main")?, ObjectId::from_hex("a".repeat(40))?);
/// if let Some(record) = tip.admit(&create.into())?.into_record() {
///     tip.apply(&record)?; // once it is durable
/// }
/// assert_eq!(tip.point().version.0, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tip {
    config: Config,
    snapshot: Snapshot,
    point: Point,
    /// The changed refs: their value since the snapshot; `None` if deleted.
    changed: BTreeMap<RefName, Option<Value>>,
}

/// Why a transaction is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The transaction is refused, with a reason for each refused command.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The snapshot could not be read, so the transaction was not judged.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Tip {
    /// The refs of a snapshot, none of which is read yet.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// # let transaction: Transaction = [Command::create(main.clone(), id)].into_iter().collect();
    /// # let record = refs.admit(&transaction)?.into_record().expect("the ref is new");
    /// # let before = refs.clone();
    /// # refs.apply(&record)?;
    /// use tenon_refslog::Tip;
    ///
    /// let tip = Tip::new(config, refs.snapshot())?; // reads no ref yet
    /// assert_eq!((tip.point(), tip.changed()), (refs.point(), 0));
    /// assert!(tip.get(&main)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The snapshot is of another object format.
    pub fn new(config: Config, snapshot: Snapshot) -> Result<Self, RestoreError> {
        if snapshot.format() != config.format() {
            return Err(RestoreError::ObjectFormat { want: config.format(), found: snapshot.format() });
        }
        Ok(Self { config, point: snapshot.point(), snapshot, changed: BTreeMap::new() })
    }

    /// The point of the log that the refs are at.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The number of refs that changed since the snapshot. As many are in memory.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// The value of a ref. Symbolic refs are not followed.
    ///
    /// # Errors
    ///
    /// A block on the way is damaged.
    pub fn get(&self, name: &RefName) -> Result<Option<Value>, DecodeError> {
        self.look_up(name.as_bytes())
    }

    /// The ref at the end of the chain of symbolic refs that starts at `name`; it need not exist.
    ///
    /// `None` if the chain loops or is longer than [`Refs::READ_DEPTH`].
    ///
    /// # Errors
    /// A block on the way is damaged.
    pub fn resolve(&self, name: &RefName) -> Result<Option<RefName>, DecodeError> {
        Source::resolve(self, name)
    }

    /// Admits or refuses a transaction, as [`Refs::admit`] does. Changes nothing.
    ///
    /// # Errors
    /// It is refused, or the snapshot cannot be read.
    pub fn admit(&self, transaction: &Transaction) -> Result<Admitted, AdmitError> {
        Ok(admit::admit(self, transaction)??)
    }

    /// Applies a record's changes. An error leaves the refs as they were: the checksum is computed first.
    ///
    /// # Errors
    /// As [`Refs::apply`], or the snapshot cannot be read; nothing is changed.
    pub fn apply(&mut self, record: &Record) -> Result<Replayed, LogError> {
        self.take(&Part::of_record(record))
    }

    /// Applies a segment of the log.
    ///
    /// # Errors
    /// As [`Refs::replay`], or the snapshot cannot be read; nothing is changed.
    pub fn replay(&mut self, segment: &Segment) -> Result<Replayed, LogError> {
        self.take(&Part::of_segment(segment))
    }

    fn take(&mut self, part: &Part<'_>) -> Result<Replayed, LogError> {
        let get = |name: &RefName| self.look_up(name.as_bytes());
        let replayed = replay::check(&self.config, self.point, part, get)??;
        if replayed == Replayed::Applied {
            let values = part.changes().iter().map(|change| (change.name().clone(), change.new_value().cloned()));
            self.changed.extend(values);
            self.point = part.after();
        }
        Ok(replayed)
    }
}

impl Source for Tip {
    type Error = DecodeError;

    fn config(&self) -> &Config {
        &self.config
    }

    fn point(&self) -> Point {
        self.point
    }

    fn look_up(&self, name: &[u8]) -> Result<Option<Value>, DecodeError> {
        match self.changed.get(name) {
            Some(value) => Ok(value.clone()),
            None => self.snapshot.get_bytes(name),
        }
    }

    fn contains(&self, name: &[u8]) -> Result<bool, DecodeError> {
        Ok(self.look_up(name)?.is_some())
    }

    fn around(&self, name: &[u8]) -> Result<Around, DecodeError> {
        // Whether something is below is found out with one look, if it is asked for at all.
        Ok(Around { exists: self.contains(name)?, leads: true })
    }

    fn first_below(&self, lead: &[u8], counts: &mut dyn FnMut(&[u8]) -> bool) -> Result<Option<RefName>, DecodeError> {
        let since = self.changed.range::<[u8], _>((Bound::Included(lead), Bound::Unbounded));
        let mut since = since.take_while(|(name, _)| name.as_bytes().starts_with(lead));
        let new = since.find(|(name, value)| value.is_some() && counts(name.as_bytes())).map(|(name, _)| name.clone());
        let old = self.snapshot.find_from(lead, |name| {
            if !name.starts_with(lead) {
                ControlFlow::Break(None)
            } else if !self.changed.contains_key(name) && counts(name) {
                ControlFlow::Break(Some(RefName::store(name)))
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok([new, old].into_iter().flatten().min())
    }
}

impl Log {
    /// The refs at the log's end, without all of them in memory.
    ///
    /// # Errors
    /// The log is of another object format than the configuration, or damaged.
    pub fn tip(&self, config: Config) -> Result<Tip, LogError> {
        let mut tip = Tip::new(config, self.snapshot().clone())?;
        for piece in self.pieces() {
            let _ = match piece {
                Piece::Record(record) => tip.apply(record)?,
                Piece::Segment(segment) => tip.replay(segment)?,
            };
        }
        Ok(tip)
    }
}

impl TryFrom<&Tip> for Refs {
    type Error = RestoreError;

    /// All refs, in memory: reads the whole snapshot.
    fn try_from(tip: &Tip) -> Result<Self, RestoreError> {
        let base = Self::restore(tip.config.clone(), &tip.snapshot)?;
        let held = base.iter().filter(|(name, _)| !tip.changed.contains_key(name.as_bytes()));
        let since = tip.changed.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        let point = tip.point;
        let refs = Self::from_entries(tip.config.clone(), point.lineage, point.version, held.chain(since))?;
        if refs.checksum() == point.checksum {
            return Ok(refs);
        }
        Err(RefsError::Checksum { want: point.checksum, found: refs.checksum() }.into())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use super::*;
    use crate::{ChecksumKey, Command, LineageId, ObjectFormat, ObjectId, Version};

    /// Ten refs of many are ten blocks of many, and what leads to them.
    #[test]
    fn a_transaction_reads_the_blocks_that_it_is_about() {
        let id = |n: u8| ObjectId::from_bytes(&[n; 20]).unwrap();
        let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([7; 32])).build().unwrap();
        let names: Vec<RefName> =
            (0..40_000).map(|n| RefName::store(format!("refs/changes/{:02}/{n}/1", n % 100).as_bytes())).collect();
        let all = names.iter().map(|name| (name.clone(), id(1).into()));
        let refs = Refs::from_entries(config.clone(), LineageId(1), Version(1), all).unwrap();
        let bytes = refs.snapshot().as_bytes().clone();
        let fresh = || Tip::new(config.clone(), Snapshot::open(bytes.clone()).unwrap()).unwrap();
        assert_eq!(fresh().snapshot.blocks_read(), 0, "opening reads none");
        let picked = || names.iter().step_by(4_001);
        let updates: Transaction = picked().map(|name| Command::update(name.clone(), id(2))).collect();
        let tip = fresh();
        assert_eq!(tip.admit(&updates).unwrap(), refs.admit(&updates).unwrap());
        let read = tip.snapshot.blocks_read();
        assert!((10..=14).contains(&read), "{read} blocks for ten updates");
        let below = |name: &RefName| RefName::store(&[name.as_bytes(), b"0"].concat());
        let creates: Transaction = picked().map(|name| Command::create(below(name), id(2))).collect();
        let tip = fresh();
        assert_eq!(tip.admit(&creates).unwrap(), refs.admit(&creates).unwrap());
        let read = tip.snapshot.blocks_read();
        assert!((10..=45).contains(&read), "{read} blocks for ten new refs");
    }
}
