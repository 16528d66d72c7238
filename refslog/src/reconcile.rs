//! What two states differ in, and where two logs part.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::change::{Change, Old};
use crate::id::Version;
use crate::refs::Refs;

/// The changes that lead from the refs of `from` to those of `to`, in the order of names. Equal checksums under one key
/// are answered without a look at the refs.
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

/// Whether two logs have the same checksum at a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Agreement {
    /// They have.
    Equal,
    /// They have not.
    Different,
}

/// The search for the version at which two logs part, by asking for checksums: at most 64 probes, for `n` versions about
/// `log2 n`.
///
/// Ask [`Bisection::probe`], compare the checksums of both logs there, tell [`Bisection::handle_answer`]. What is found is
/// a version at which the logs agree and after which they differ. That is the first such version, unless the refs of the
/// two were equal again somewhere after they had parted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "BisectionParts"))]
pub struct Bisection {
    equal: Version,
    different: Version,
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Bisection")]
struct BisectionParts {
    equal: Version,
    different: Version,
}

#[cfg(feature = "serde")]
impl TryFrom<BisectionParts> for Bisection {
    type Error = &'static str;

    fn try_from(parts: BisectionParts) -> Result<Self, &'static str> {
        Self::new(parts.equal, parts.different).ok_or("logs that differ where they agree")
    }
}

impl Bisection {
    /// Two logs that agree at `equal` and differ at the later version `different`; `None` where that is not later.
    #[must_use]
    pub fn new(equal: Version, different: Version) -> Option<Self> {
        (equal < different).then_some(Self { equal, different })
    }

    /// The version to compare next; `None` when the search is over.
    #[must_use]
    pub fn probe(&self) -> Option<Version> {
        let middle = Version(self.equal.0.midpoint(self.different.0));
        (middle > self.equal).then_some(middle)
    }

    /// Tells what the comparison at a version gave. One that was not asked for is late or unknown: it changes nothing.
    pub fn handle_answer(&mut self, version: Version, answer: Agreement) {
        if self.probe() != Some(version) {
            return;
        }
        match answer {
            Agreement::Equal => self.equal = version,
            Agreement::Different => self.different = version,
        }
    }

    /// The last version at which the logs agree, once the search is over: the record after it is the first that differs.
    #[must_use]
    pub fn parting(&self) -> Option<Version> {
        self.probe().is_none().then_some(self.equal)
    }
}
