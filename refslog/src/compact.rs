//! Compaction: folding a stretch of the log into one segment.

mod merge;

use alloc::vec::Vec;

use crate::change::Change;
use crate::id::{LineageId, Point, Version};
use crate::name::RefName;
use crate::record::{Form, MalformedChanges, Record, check_changes, strip_old};

/// The mode of a segment: which changes it keeps, and so where it may be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mode {
    /// Cover: every touched ref is kept, even one that ends as it began, and deletions stay as tombstones.
    ///
    /// Valid for a replica at any version from base to end.
    Cover,
    /// Exact: only net changes are kept (`a → e → a` is dropped).
    ///
    /// Smaller, but valid at the base alone.
    Exact,
}

/// A segment: a stretch of the log, folded. Each touched ref stands once, with its value at the base and at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "SegmentParts"))]
#[must_use]
pub struct Segment {
    base: Point,
    end: Point,
    mode: Mode,
    form: Form,
    changes: Vec<Change>,
}

/// Why stretches of the log cannot be folded into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum CompactError {
    /// The stretches are of different logs.
    #[error("log {found} cannot follow log {have}")]
    LineageMismatch {
        /// The log of the first stretch.
        have: LineageId,
        /// The log of the second stretch.
        found: LineageId,
    },
    /// The second stretch does not start where the first ends.
    #[error("a stretch that ends at version {end} cannot be followed by one that starts at {base}")]
    NotAdjacent {
        /// The version where the first ends.
        end: Version,
        /// The version where the second starts.
        base: Version,
    },
    /// The stretches meet at one version, but their refs differ there.
    #[error("the stretches meet at version {at}, but their refs differ there")]
    Diverged {
        /// The version where they meet.
        at: Version,
    },
    /// The second stretch replaces another value than the first left.
    #[error("'{name}' ends the first stretch with one value and starts the second with another")]
    Broken {
        /// The name of the ref.
        name: RefName,
    },
    /// Exact mode needs old values to tell which refs end as they began, and some were dropped.
    #[error("exact compaction needs old values, and some were dropped")]
    NeedsOldValues,
    /// The stretches hold ids of different object formats.
    #[error("'{name}' has an id of another object format")]
    MixedFormats {
        /// The name of the ref.
        name: RefName,
    },
}

/// Why the parts do not make a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SegmentError {
    /// The end is of another log than the base.
    #[error("the end is of another log than the base")]
    LineageMismatch,
    /// The end is not after the base, or, for an empty segment, not at it.
    #[error("a segment cannot go from version {base} to {end}")]
    Versions {
        /// The base version.
        base: Version,
        /// The end version.
        end: Version,
    },
    /// The changes break an invariant.
    #[error(transparent)]
    Changes(#[from] MalformedChanges),
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Segment")]
struct SegmentParts {
    base: Point,
    end: Point,
    mode: Mode,
    form: Form,
    changes: Vec<Change>,
}

#[cfg(feature = "serde")]
impl TryFrom<SegmentParts> for Segment {
    type Error = SegmentError;

    fn try_from(SegmentParts { base, end, mode, form, changes }: SegmentParts) -> Result<Self, SegmentError> {
        Self::new(base, end, mode, form, changes)
    }
}

impl Segment {
    /// An empty segment at a point. Composing it with another segment changes nothing.
    pub const fn empty(at: Point, mode: Mode) -> Self {
        Self { base: at, end: at, mode, form: Form::Invertible, changes: Vec::new() }
    }

    /// A segment of one record, which starts at `base`.
    ///
    /// # Errors
    /// The record does not start there, or exact mode was asked for and it has no old values.
    pub fn of_record(base: Point, record: &Record, mode: Mode) -> Result<Self, CompactError> {
        check_link(base, record.lineage(), record.base_version())?;
        if mode == Mode::Exact && record.form() == Form::ForwardOnly {
            return Err(CompactError::NeedsOldValues);
        }
        Ok(Self { base, end: record.after(), mode, form: record.form(), changes: record.changes().to_vec() })
    }

    /// A segment from its parts, for a host that keeps segments in a form of its own.
    ///
    /// # Errors
    /// The first invariant that the parts break.
    pub fn new(base: Point, end: Point, mode: Mode, form: Form, changes: Vec<Change>) -> Result<Self, SegmentError> {
        if base.lineage != end.lineage {
            return Err(SegmentError::LineageMismatch);
        }
        let still = base.version == end.version;
        if base.version > end.version || (still && (!changes.is_empty() || base.checksum != end.checksum)) {
            return Err(SegmentError::Versions { base: base.version, end: end.version });
        }
        let found = check_changes(&changes)?;
        if !changes.is_empty() && found != form {
            return Err(MalformedChanges::Form { at: 0 }.into());
        }
        if mode == Mode::Exact
            && let Some(at) = changes.iter().position(Change::is_no_op)
        {
            return Err(MalformedChanges::NoOp { at }.into());
        }
        Ok(Self { base, end, mode, form, changes })
    }

    /// The point where the segment starts.
    #[must_use]
    pub const fn base(&self) -> Point {
        self.base
    }

    /// The point where the segment ends.
    #[must_use]
    pub const fn end(&self) -> Point {
        self.end
    }

    /// The mode: which changes the segment keeps.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The form: whether the segment keeps old values.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.form
    }

    /// The changes, in the order of names.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The segment without old values.
    pub fn forward_only(&self) -> Self {
        Self { form: Form::ForwardOnly, changes: strip_old(&self.changes), ..*self }
    }

    /// The segment without refs that end as they began.
    ///
    /// # Errors
    ///
    /// [`CompactError::NeedsOldValues`] for a forward-only segment in [`Mode::Cover`].
    pub fn exact(mut self) -> Result<Self, CompactError> {
        if self.mode == Mode::Cover {
            if self.form == Form::ForwardOnly {
                return Err(CompactError::NeedsOldValues);
            }
            self.changes.retain(|change| !change.is_no_op());
            self.mode = Mode::Exact;
        }
        Ok(self)
    }

    /// Joins this segment and the one that follows it.
    ///
    /// Associative: the result does not depend on how a stretch is cut.
    ///
    /// Cover and Cover make Cover; anything with Exact makes Exact. Without the old values of one, those of the other
    /// are dropped too.
    ///
    /// # Errors
    /// They are not adjacent, or one contradicts the other.
    pub fn then(&self, next: &Self) -> Result<Self, CompactError> {
        fold(self.base, self.mode, &[Leg::from(self), Leg::from(next)])
    }
}

/// Folds records, which must be adjacent and start at `base`, into one segment.
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
/// use tenon_refslog::{Mode, compact};
///
/// let segment = compact(before.point(), Mode::Cover, [&record])?;
/// assert_eq!((segment.base(), segment.end()), (before.point(), refs.point()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The records are not adjacent, contradict each other, or lack the old values that exact mode needs.
pub fn compact<'a>(
    base: Point,
    mode: Mode,
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<Segment, CompactError> {
    let mut at = base;
    let legs = records.into_iter().map(|record| {
        let leg = Leg::of_record(at, record);
        at = record.after();
        leg
    });
    fold(base, mode, &legs.collect::<Vec<_>>())
}

/// Folds adjacent segments into one; `None` for none.
///
/// # Errors
/// As [`Segment::then`].
pub fn compact_segments<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Result<Option<Segment>, CompactError> {
    let legs: Vec<Leg<'a>> = segments.into_iter().map(Leg::from).collect();
    legs.first().map(|first| fold(first.base, first.mode, &legs)).transpose()
}

/// A stretch to fold: what records and segments have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg<'a> {
    base: Point,
    end: Point,
    mode: Mode,
    form: Form,
    changes: &'a [Change],
}

impl<'a> Leg<'a> {
    /// A record that follows `before`, and claims to start at its own base.
    pub(crate) fn of_record(before: Point, record: &'a Record) -> Self {
        let (lineage, version) = (record.lineage(), record.base_version());
        let base = Point { lineage, version, checksum: before.checksum };
        Self { base, end: record.after(), mode: Mode::Cover, form: record.form(), changes: record.changes() }
    }
}

impl<'a> From<&'a Segment> for Leg<'a> {
    fn from(segment: &'a Segment) -> Self {
        let Segment { base, end, mode, form, changes } = segment;
        Self { base: *base, end: *end, mode: *mode, form: *form, changes }
    }
}

/// Folds legs, the first of which starts at `base`. Exact if `mode` or any leg is; forward-only if any leg is.
pub(crate) fn fold(base: Point, mode: Mode, legs: &[Leg<'_>]) -> Result<Segment, CompactError> {
    let (mut end, mut mode, mut form) = (base, mode, Form::Invertible);
    for leg in legs {
        check_link(end, leg.base.lineage, leg.base.version)?;
        if end.checksum != leg.base.checksum {
            return Err(CompactError::Diverged { at: end.version });
        }
        if leg.mode == Mode::Exact {
            mode = Mode::Exact;
        }
        if leg.form == Form::ForwardOnly {
            form = Form::ForwardOnly;
        }
        end = leg.end;
    }
    if mode == Mode::Exact && form == Form::ForwardOnly {
        return Err(CompactError::NeedsOldValues);
    }
    let mut changes = merge::merge(legs, form)?;
    if mode == Mode::Exact {
        changes.retain(|change| !change.is_no_op());
    }
    Ok(Segment { base, end, mode, form, changes })
}

fn check_link(end: Point, lineage: LineageId, base: Version) -> Result<(), CompactError> {
    if end.lineage != lineage {
        return Err(CompactError::LineageMismatch { have: end.lineage, found: lineage });
    }
    if end.version != base {
        return Err(CompactError::NotAdjacent { end: end.version, base });
    }
    Ok(())
}
