//! All refs of a repository at one version of its log.

use alloc::vec::Vec;

use crate::change::{MixedFormats, Target, Value};
use crate::config::Config;
use crate::digest::Checksum;
use crate::id::{LineageId, Point, Version};
use crate::log::Taken;
use crate::name::RefName;
use crate::oid::ObjectId;
use crate::record::Record;
use crate::store::{Place, Store};

/// All refs of a repository, at one [`Point`] of its log.
///
/// A plain value: [`Refs::admit`](Self::admit) asks what a transaction would do, [`Refs::apply`] tells that a record
/// was appended, [`Refs::replay`](Self::replay) catches up over a compacted stretch of the log.
#[derive(Clone, Debug)]
pub struct Refs {
    pub(crate) config: Config,
    pub(crate) point: Point,
    pub(crate) map: Store,
}

/// Why a set of refs is not a valid state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RefsError {
    /// A name stands twice.
    #[error("'{name}' stands twice")]
    Duplicate {
        /// The name that stands twice.
        name: RefName,
    },
    /// An id is not of the repository's object format.
    #[error("the id of '{name}' is not of the repository's object format")]
    Format {
        /// The name of the ref.
        name: RefName,
    },
    /// The refs do not have the claimed checksum, or the key is another.
    #[error("the refs have checksum {found}, not {want}")]
    Checksum {
        /// The claimed checksum.
        want: Checksum,
        /// The checksum of the refs under this key.
        found: Checksum,
    },
}

impl Refs {
    /// No refs, at the start of a new log.
    #[must_use]
    pub const fn new(config: Config, lineage: LineageId) -> Self {
        let map = Store::new(config.format);
        Self { config, point: Point::genesis(lineage), map }
    }

    /// The refs of an existing repository, as a host reads them from Git, at a version of its log.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// use tenon_refslog::{Value, Version};
    ///
    /// let refs = Refs::from_entries(config, LineageId(1), Version(7), [(main.clone(), Value::from(id))])?;
    /// assert_eq!((refs.version(), refs.get(&main)), (Version(7), Some(Value::from(id))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A name stands twice, or an id is of another object format.
    pub fn from_entries(
        config: Config,
        lineage: LineageId,
        version: Version,
        entries: impl IntoIterator<Item = (RefName, Value)>,
    ) -> Result<Self, RefsError> {
        let mut entries: Vec<(RefName, Value)> = entries.into_iter().collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut map = Store::new(config.format);
        let mut checksum = Checksum::EMPTY;
        let mut previous: Option<&RefName> = None;
        for (name, value) in &entries {
            if previous == Some(name) {
                return Err(RefsError::Duplicate { name: name.clone() });
            }
            if !value.fits(config.format) {
                return Err(RefsError::Format { name: name.clone() });
            }
            checksum = checksum.plus(config.key.entry(name, value));
            map.push(name, value);
            previous = Some(name);
        }
        Ok(Self { config, point: Point { lineage, version, checksum }, map })
    }

    /// The rules that the refs are held to.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The point of the log that the refs are at.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }

    /// The version: the number of records that the refs have seen.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.point.version
    }

    /// The log that the refs follow.
    #[must_use]
    pub const fn lineage(&self) -> LineageId {
        self.point.lineage
    }

    /// The checksum of all refs: equal on two replicas with the same key if and only if their refs are.
    #[must_use]
    pub const fn checksum(&self) -> Checksum {
        self.point.checksum
    }

    /// The number of refs, symbolic ones included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are no refs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// The value of a ref. Symbolic refs are not followed.
    #[must_use]
    pub fn get(&self, name: &RefName) -> Option<Value> {
        self.map.get(name.as_bytes())
    }

    /// All refs, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (RefName, Value)> {
        self.map.iter_from(Place::START)
    }

    /// The refs whose names start with `prefix`, in the order of names.
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
    /// assert_eq!(refs.iter_prefix(b"refs/heads/").count(), 1);
    /// assert_eq!(refs.iter_prefix(b"refs/tags/").count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (RefName, Value)> + 'a {
        self.map.iter_from(self.map.seek(prefix)).take_while(move |(name, _)| name.as_bytes().starts_with(prefix))
    }

    /// The ref at the end of the chain of symbolic refs that starts at `name`; it need not exist.
    ///
    /// `None` if the chain loops or is longer than [`Refs::READ_DEPTH`].
    #[must_use]
    pub fn resolve(&self, name: &RefName) -> Option<RefName> {
        let mut at = name.clone();
        for _ in 0..=Self::READ_DEPTH {
            match self.map.get(at.as_bytes()) {
                Some(Value::Symbolic(target)) => at = target,
                Some(Value::Direct(_)) | None => return Some(at),
            }
        }
        None
    }

    /// The record that turns these refs into those of `wanted`, at the next version.
    ///
    /// `None` if they are equal, or no version is left.
    ///
    /// For a log that follows decisions made elsewhere, such as Git's behind a `post-receive` hook: take `wanted` from
    /// a listing of Git's ([`Refs::from_entries`]), and nothing can be refused, whatever order the hooks ran in.
    ///
    /// # Errors
    /// The two are of different object formats.
    pub fn record_to(&self, wanted: &Self) -> Result<Option<Record>, RefsError> {
        if self.config.format != wanted.config.format
            && let Some((name, _)) = wanted.iter().find(|(_, value)| value.id().is_some())
        {
            return Err(RefsError::Format { name });
        }
        let changes = crate::reconcile::diff(self, wanted);
        let Some(version) = self.point.version.next().filter(|_| !changes.is_empty()) else { return Ok(None) };
        let checksum = crate::admit::checksum_after(&self.config.key, self.point.checksum, &changes);
        Ok(Some(Record::from_admission(Point { version, checksum, ..self.point }, changes)))
    }

    /// Tells the peeled id of a ref's object, `None` if the object is no annotated tag.
    ///
    /// A host that has the objects finds it out after a push. Changes neither checksum nor version; a ref that no
    /// longer holds `id` stays as it is.
    ///
    /// # Errors
    /// The peeled id is of another object format.
    pub fn handle_peeled(
        &mut self,
        name: &RefName,
        id: ObjectId,
        peeled: Option<ObjectId>,
    ) -> Result<Taken, MixedFormats> {
        let told = match peeled {
            Some(peeled) => Target::peeled_to(id, peeled)?,
            None => Target::not_a_tag(id),
        };
        match self.get(name) {
            Some(Value::Direct(held)) if held == told && held.peel() != told.peel() => {
                self.map.insert(name, &told.into());
                Ok(Taken::Taken)
            }
            _ => Ok(Taken::Unchanged),
        }
    }

    /// The maximum length of a chain of symbolic refs that Git reads through.
    pub const READ_DEPTH: usize = 4;

    /// Applies a record's changes. An error leaves the refs as they were: the checksum is computed first.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// # let transaction: Transaction = [Command::create(main.clone(), id)].into_iter().collect();
    /// # let record = refs.admit(&transaction)?.into_record().expect("the ref is new");
    /// use tenon_refslog::Replayed;
    ///
    /// assert_eq!(refs.apply(&record)?, Replayed::Applied);
    /// assert_eq!(refs.apply(&record)?, Replayed::AlreadyApplied);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`ReplayError`](crate::ReplayError); nothing is changed.
    pub fn apply(&mut self, record: &Record) -> Result<crate::Replayed, crate::ReplayError> {
        self.take(&crate::replay::Part::of_record(record))
    }
}
