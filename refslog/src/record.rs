//! Records: the changes of one admitted transaction, as the log keeps them.

use alloc::vec::Vec;

use crate::change::{Change, Old};
use crate::id::{LineageId, Point, Version};

/// The form of changes: whether they keep old values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Form {
    /// Invertible: old values are kept.
    ///
    /// The changes can be checked one by one, undone, and compacted in [`Mode::Exact`](crate::Mode).
    Invertible,
    /// Forward-only: old values are dropped, which saves one id per change.
    ForwardOnly,
}

/// A record of the log: the physical changes of one admitted transaction, and the point that they lead to.
///
/// The changes are sorted by name, no name stands twice, and none is a no-op.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "RecordParts"))]
#[must_use]
pub struct Record {
    after: Point,
    form: Form,
    changes: Vec<Change>,
    payload: Vec<u8>,
}

/// The payload is longer than [`Record::MAX_PAYLOAD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload has {len} bytes, {} are allowed", Record::MAX_PAYLOAD)]
pub struct PayloadTooLong {
    /// The length of the payload in bytes.
    pub len: usize,
}

/// Why changes do not make a record or a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MalformedChanges {
    /// There is no change, where at least one is needed.
    #[error("there is no change")]
    Empty,
    /// The version is 0, which is the state before the first record.
    #[error("no record makes version 0")]
    Genesis,
    /// A name stands twice or out of order.
    #[error("change {at} is not in the order of names, or its name stands twice")]
    Order {
        /// The index of the change.
        at: usize,
    },
    /// A change leaves its ref as it was, where that is not allowed.
    #[error("change {at} changes nothing")]
    NoOp {
        /// The index of the change.
        at: usize,
    },
    /// Old values are known for some changes and not for others.
    #[error("change {at} does not keep its old value as the others do")]
    Form {
        /// The index of the change.
        at: usize,
    },
    /// SHA-1 and SHA-256 ids are mixed.
    #[error("change {at} has an id of another object format")]
    MixedFormats {
        /// The index of the change.
        at: usize,
    },
}

/// The form is that of the changes, so it is not read.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Record")]
struct RecordParts {
    after: Point,
    changes: Vec<Change>,
    #[serde(default)]
    payload: Vec<u8>,
}

/// Why parts make no record.
#[cfg(feature = "serde")]
#[derive(Debug, thiserror::Error)]
enum RecordPartsError {
    #[error(transparent)]
    Changes(#[from] MalformedChanges),
    #[error(transparent)]
    Payload(#[from] PayloadTooLong),
}

#[cfg(feature = "serde")]
impl TryFrom<RecordParts> for Record {
    type Error = RecordPartsError;

    fn try_from(parts: RecordParts) -> Result<Self, RecordPartsError> {
        Ok(Self::new(parts.after, parts.changes)?.with_payload(parts.payload)?)
    }
}

impl Record {
    /// A record from its parts, for a host that keeps records in a form of its own.
    ///
    /// # Errors
    /// The first invariant that the changes break.
    pub fn new(after: Point, changes: Vec<Change>) -> Result<Self, MalformedChanges> {
        if after.version == Version::GENESIS {
            return Err(MalformedChanges::Genesis);
        }
        if changes.is_empty() {
            return Err(MalformedChanges::Empty);
        }
        let form = check_changes(&changes)?;
        match changes.iter().position(Change::is_no_op) {
            Some(at) => Err(MalformedChanges::NoOp { at }),
            None => Ok(Self { after, form, changes, payload: Vec::new() }),
        }
    }

    /// The longest payload in bytes: 64 KiB.
    pub const MAX_PAYLOAD: usize = 65_536;

    /// Sets the payload: bytes of the host's own, such as who made the change, when, by which push. Empty removes it.
    ///
    /// The crate never looks into the payload. It is encoded with the record, under its frame's CRC32C, and counts
    /// neither for the checksum of the refs nor for a replay.
    ///
    /// Payloads live as long as their record: a fold keeps changes, not payloads.
    /// [`LogConfigBuilder::retain_versions`](crate::LogConfigBuilder::retain_versions) says how many records stay as they are.
    ///
    /// ```
    /// # use tenon_refslog::{ChecksumKey, Command, Config, LineageId, ObjectFormat, ObjectId, RefName, Refs, Transaction};
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config.clone(), LineageId(1));
    /// # let main = RefName::new("refs/heads/main")?;
    /// # let id = ObjectId::from_hex("a".repeat(40))?;
    /// # let transaction: Transaction = [Command::create(main.clone(), id)].into_iter().collect();
    /// # let record = refs.admit(&transaction)?.into_record().expect("the ref is new");
    /// let record = record.with_payload("pushed by alice")?;
    /// assert_eq!(record.payload(), b"pushed by alice");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// More than [`Record::MAX_PAYLOAD`] bytes.
    pub fn with_payload(mut self, payload: impl Into<Vec<u8>>) -> Result<Self, PayloadTooLong> {
        let payload = payload.into();
        if payload.len() > Self::MAX_PAYLOAD {
            return Err(PayloadTooLong { len: payload.len() });
        }
        self.payload = payload;
        Ok(self)
    }

    /// The payload: the host's own bytes; empty if there are none.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The log that the record belongs to.
    #[must_use]
    pub const fn lineage(&self) -> LineageId {
        self.after.lineage
    }

    /// The version that the record makes.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.after.version
    }

    /// The version that the record applies to, one less than its own.
    #[must_use]
    pub fn base_version(&self) -> Version {
        // A record never makes version 0.
        self.after.version.previous().unwrap_or_default()
    }

    /// The point of the log after the record.
    #[must_use]
    pub const fn after(&self) -> Point {
        self.after
    }

    /// The form: whether the record keeps old values.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.form
    }

    /// The changes, in the order of names.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether the other is this record, perhaps with old values kept in one of the two only.
    pub(crate) fn is_same_but_for_form(&self, other: &Self) -> bool {
        let same = |(one, other): (&Change, &Change)| {
            let old = *one.old() == Old::Any || *other.old() == Old::Any || one.old() == other.old();
            one.name() == other.name() && one.new_value() == other.new_value() && old
        };
        self.after == other.after
            && self.payload == other.payload
            && self.changes.len() == other.changes.len()
            && self.changes.iter().zip(&other.changes).all(same)
    }

    /// The record without old values.
    pub fn forward_only(&self) -> Self {
        let changes = strip_old(&self.changes);
        Self { after: self.after, form: Form::ForwardOnly, changes, payload: self.payload.clone() }
    }

    pub(crate) fn from_admission(after: Point, changes: Vec<Change>) -> Self {
        Self { after, form: Form::Invertible, changes, payload: Vec::new() }
    }
}

/// The changes without old values.
pub(crate) fn strip_old(changes: &[Change]) -> Vec<Change> {
    changes.iter().map(|change| Change::new(change.name().clone(), Old::Any, change.new_value().cloned())).collect()
}

/// Checks order, form and object format; answers with the form. No change at all is invertible.
pub(crate) fn check_changes(changes: &[Change]) -> Result<Form, MalformedChanges> {
    let form = match changes.first().map(Change::old) {
        Some(Old::Any) => Form::ForwardOnly,
        Some(Old::Absent | Old::Is(_)) | None => Form::Invertible,
    };
    let mut format = None;
    let mut previous: Option<&Change> = None;
    for (at, change) in changes.iter().enumerate() {
        if previous.is_some_and(|before| before.name() >= change.name()) {
            return Err(MalformedChanges::Order { at });
        }
        if (*change.old() == Old::Any) != (form == Form::ForwardOnly) {
            return Err(MalformedChanges::Form { at });
        }
        for value in change.old().value().into_iter().chain(change.new_value()) {
            if let Some(id) = value.id()
                && *format.get_or_insert(id.format()) != id.format()
            {
                return Err(MalformedChanges::MixedFormats { at });
            }
        }
        previous = Some(change);
    }
    Ok(form)
}
