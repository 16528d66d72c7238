//! Reconciliation: the difference of two states, and the version where two logs part.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::change::{Change, Old};
use crate::id::Version;
use crate::refs::Refs;

/// The changes that lead from the refs of `from` to those of `to`, in the order of names.
///
/// If both checksums are equal under one key, the refs are not compared.
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
/// use tenon_refslog::diff;
///
/// let changes = diff(&before, &refs);
/// assert_eq!(changes.len(), 1);
/// assert_eq!(changes[0].name(), &main);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn diff(from: &Refs, to: &Refs) -> Vec<Change> {
    if from.config.key == to.config.key && from.checksum() == to.checksum() {
        return Vec::new();
    }
    let mut changes = Vec::new();
    let mut before = from.iter().peekable();
    let mut after = to.iter().peekable();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        let (name, old, new) = match (old, new) {
            (Some((name, old)), new) => (name, Some(old), new.map(|(_, value)| value)),
            (None, Some((name, new))) => (name, None, Some(new)),
            (None, None) => return changes,
        };
        if old != new {
            changes.push(Change::new(name, Old::known(old), new));
        }
    }
}

/// The result of comparing two logs at a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Agreement {
    /// The checksums are equal.
    Equal,
    /// The checksums differ.
    Different,
}

/// The search for the version at which two logs part, by comparing checksums.
///
/// For `n` versions it takes about `log2 n` probes, at most 64, and two more for each folded stretch that a probe falls
/// into.
///
/// Ask [`Bisection::probe`], compare the checksums of both logs there, tell [`Bisection::handle_answer`]; where one of the
/// logs has folded that version, tell [`Bisection::handle_folded`] between which two it can. What is found is a version at
/// which the logs agree and after which they differ. That is the first such version, unless the refs of the two were equal
/// again somewhere after they had parted.
///
/// ```
/// use tenon_refslog::{Agreement, Bisection, Version};
///
/// let mut search = Bisection::new(Version(0), Version(100)).expect("0 is before 100");
/// // The logs part after version 70; one of them has folded 40 to 60 into one segment.
/// while let Some(at) = search.probe() {
///     match at.0 {
///         41..60 => search.handle_folded(at, Version(40), Version(60)),
///         0..=70 => search.handle_answer(at, Agreement::Equal),
///         _ => search.handle_answer(at, Agreement::Different),
///     }
/// }
/// assert_eq!(search.bounds(), (Version(70), Version(71)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "BisectionParts"))]
pub struct Bisection {
    equal: Version,
    different: Version,
    /// The folded stretch between whose ends no version can be compared.
    folded: Option<(Version, Version)>,
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Bisection")]
struct BisectionParts {
    equal: Version,
    different: Version,
    #[serde(default)]
    folded: Option<(Version, Version)>,
}

#[cfg(feature = "serde")]
impl TryFrom<BisectionParts> for Bisection {
    type Error = &'static str;

    fn try_from(parts: BisectionParts) -> Result<Self, &'static str> {
        let search = Self::new(parts.equal, parts.different).ok_or("logs that differ where they agree")?;
        Ok(Self { folded: parts.folded.filter(|(base, end)| base < end), ..search })
    }
}

impl Bisection {
    /// A search between `equal`, where the logs agree, and the later version `different`, where they differ.
    ///
    /// `None` if `different` is not later.
    ///
    /// ```
    /// use tenon_refslog::{Agreement, Bisection, Version};
    ///
    /// let mut search = Bisection::new(Version(0), Version(100)).expect("the second version is later");
    /// while let Some(version) = search.probe() {
    ///     search.handle_answer(version, if version <= Version(41) { Agreement::Equal } else { Agreement::Different });
    /// }
    /// assert_eq!(search.parting(), Some(Version(41)));
    /// ```
    #[must_use]
    pub fn new(equal: Version, different: Version) -> Option<Self> {
        (equal < different).then_some(Self { equal, different, folded: None })
    }

    /// The version to compare next; `None` when the search is over.
    #[must_use]
    pub fn probe(&self) -> Option<Version> {
        let within = |version: &Version| self.equal < *version && *version < self.different;
        let middle = Version(self.equal.0.midpoint(self.different.0));
        match self.folded {
            // The ends of what is folded around the middle: the later one first.
            Some((base, end)) if base < middle && middle < end => [end, base].into_iter().find(within),
            _ => Some(middle).filter(within),
        }
    }

    /// Tells the result of the comparison at a version. A version that was not asked for changes nothing.
    pub fn handle_answer(&mut self, version: Version, answer: Agreement) {
        if self.probe() != Some(version) {
            return;
        }
        match answer {
            Agreement::Equal => self.equal = version,
            Agreement::Different => self.different = version,
        }
    }

    /// Tells that the probed version was folded in one of the logs, between `base` and `end`.
    ///
    /// [`LogError::VersionCompacted`](crate::LogError::VersionCompacted) has both. A version that was not asked for, or
    /// is not between them, changes nothing.
    pub fn handle_folded(&mut self, version: Version, base: Version, end: Version) {
        if self.probe() != Some(version) || version <= base || end <= version {
            return;
        }
        // The end of what one log has folded may be within what the other has.
        self.folded = Some(match self.folded {
            Some((low, high)) if base < high && low < end => (base.min(low), end.max(high)),
            _ => (base, end),
        });
    }

    /// The closest bounds so far: a version at which the logs agree, and a later one at which they differ.
    #[must_use]
    pub const fn bounds(&self) -> (Version, Version) {
        (self.equal, self.different)
    }

    /// The last version at which the logs are known to agree, once the search is over.
    ///
    /// The record after it is the first that differs, unless that was folded: [`Bisection::bounds`] tells up to where.
    #[must_use]
    pub fn parting(&self) -> Option<Version> {
        self.probe().is_none().then_some(self.equal)
    }
}
