//! Undo: restoring the values that a version, a push or an actor replaced.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Log, LogError, Piece};
use crate::change::{Change, Old, Value};
use crate::id::Version;
use crate::name::RefName;
use crate::record::Record;
use crate::refs::Refs;
use crate::transaction::{Command, Transaction};
use crate::verdict::Reason;

/// An undo: the transaction that restores old values, and the changes that it cannot undo.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Undo {
    /// The transaction that restores the old values. Empty if none can be restored.
    ///
    /// Admit it like any other, now: each command expects the value that the record left.
    pub transaction: Transaction,
    /// The chosen versions, oldest first.
    pub versions: Vec<Version>,
    /// The changes that are not undone, in the order of versions and names.
    pub kept: Vec<Kept>,
    /// Folded stretches, in which no record can be chosen any more: base and end of each.
    pub folded: Vec<(Version, Version)>,
}

/// A change that is not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The name of the ref.
    pub name: RefName,
    /// The version that changed it.
    pub version: Version,
    /// The reason why the change stays.
    pub reason: KeptReason,
}

/// The reason why a change is not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptReason {
    /// Another record has moved the ref since: the record of this version, or one that was folded up to it.
    MovedSince {
        /// The version that moved the ref.
        by: Version,
    },
    /// The old value is unknown: it was dropped with the old values of its record, and that record was folded.
    OldUnknown,
    /// Undoing the change would not be admitted beside the other commands.
    Refused(Box<Reason>),
}

/// The last mover of a ref, as seen from the end of the log backwards.
enum Seen {
    /// Chosen records moved it last: from here back to the value that the oldest of them found.
    Ours {
        now: Option<Value>,
        before: Option<Value>,
        versions: Vec<Version>,
    },
    /// Another record moved it.
    Theirs(Version),
    Unknown,
}

impl Log {
    /// The transaction that undoes the `chosen` records where no other record has moved the ref since, and the changes
    /// that it cannot undo.
    ///
    /// `refs` are those at the log's end; nothing is changed.
    ///
    /// Records that moved a ref one after the other are given back together. Only records can be chosen, not what was
    /// folded: see [`Undo::folded`].
    ///
    /// ```
    /// # use tenon_refslog::{
    /// #     ChecksumKey, Command, Config, LineageId, Log, LogConfig, ObjectFormat, ObjectId, RefName, Refs, Version,
    /// # };
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let config = Config::builder(ObjectFormat::Sha1, ChecksumKey::new([42; 32])).build()?;
    /// # let mut refs = Refs::new(config, LineageId(1));
    /// # let mut log = Log::new(LogConfig::builder().build()?, refs.snapshot());
    /// # let main = RefName::new("refs/heads/main")?;
    /// # for (hex, who) in [("a", "ann"), ("b", "mallory")] {
    /// #     let push = Command::update(main.clone(), ObjectId::from_hex(hex.repeat(40))?);
    /// #     let record = refs.admit(&push.into())?.into_record().ok_or("a change")?.with_payload(who)?;
    /// #     refs.apply(&record)?;
    /// #     log.append(record)?;
    /// # }
    /// let undo = log.undo(&refs, |record| record.payload() == b"mallory")?;
    /// assert_eq!((undo.versions.as_slice(), undo.kept.len()), (&[Version(2)][..], 0));
    /// let record = refs.admit(&undo.transaction)?.into_record().ok_or("a change")?;
    /// assert_eq!(record.changes()[0].new_value(), Some(&ObjectId::from_hex("a".repeat(40))?.into()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The refs are not at the log's end, or the log cannot be read.
    pub fn undo(&self, refs: &Refs, mut chosen: impl FnMut(&Record) -> bool) -> Result<Undo, LogError> {
        if refs.point() != self.end() {
            return Err(LogError::NotAtEnd { have: refs.version(), newest: self.end().version });
        }
        let mut undo =
            Undo { transaction: Transaction::new(), versions: Vec::new(), kept: Vec::new(), folded: Vec::new() };
        let mut seen: BTreeMap<&RefName, Seen> = BTreeMap::new();
        for (piece, _) in self.pieces.iter().rev() {
            let end = piece.end().version;
            match piece {
                Piece::Record(record) if chosen(record) => {
                    undo.versions.push(end);
                    for change in record.changes() {
                        self.note(change, end, &mut seen, &mut undo.kept)?;
                    }
                }
                Piece::Record(_) | Piece::Segment(_) => {
                    if let Piece::Segment(segment) = piece {
                        undo.folded.push((segment.base().version, end));
                    }
                    for change in piece.changes() {
                        match seen.get_mut(change.name()) {
                            // What it left is what is given back: further back, there is nothing of ours to undo on top.
                            Some(ours @ Seen::Ours { .. }) => {
                                close(ours, end, change.name(), refs, &mut undo.transaction);
                            }
                            Some(Seen::Theirs(_) | Seen::Unknown) => {}
                            None => drop(seen.insert(change.name(), Seen::Theirs(end))),
                        }
                    }
                }
            }
        }
        for (name, mut state) in seen {
            close(&mut state, Version::GENESIS, name, refs, &mut undo.transaction);
        }
        undo.versions.reverse();
        undo.folded.reverse();
        self.keep_what_is_refused(refs, &mut undo, &mut chosen);
        undo.kept.sort_by(|one, other| (one.version, &one.name).cmp(&(other.version, &other.name)));
        Ok(undo)
    }

    /// Notes what a chosen record did to a ref.
    fn note<'a>(
        &self,
        change: &'a Change,
        version: Version,
        seen: &mut BTreeMap<&'a RefName, Seen>,
        kept: &mut Vec<Kept>,
    ) -> Result<(), LogError> {
        let name = change.name();
        let mut keep = |reason| kept.push(Kept { name: name.clone(), version, reason });
        let before = match change.old() {
            Old::Absent => Some(None),
            Old::Is(value) => Some(Some(value.clone())),
            Old::Any => match self.get(name, version.previous().unwrap_or_default()) {
                Ok(value) => Some(value),
                Err(LogError::VersionCompacted { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        match (seen.get_mut(name), before) {
            (Some(Seen::Theirs(by)), _) => keep(KeptReason::MovedSince { by: *by }),
            (Some(Seen::Unknown), _) => keep(KeptReason::OldUnknown),
            (Some(Seen::Ours { before, versions, .. }), Some(found)) => {
                *before = found;
                versions.push(version);
            }
            (Some(state @ Seen::Ours { .. }), None) => {
                // What is newer is not given back either: it would leave what this record made.
                if let Seen::Ours { versions, .. } = state {
                    let newer = versions.iter().map(|version| (*version, KeptReason::OldUnknown));
                    kept.extend(newer.map(|(version, reason)| Kept { name: name.clone(), version, reason }));
                }
                *state = Seen::Unknown;
                kept.push(Kept { name: name.clone(), version, reason: KeptReason::OldUnknown });
            }
            (None, Some(before)) => {
                let now = change.new_value().cloned();
                seen.insert(name, Seen::Ours { now, before, versions: alloc::vec![version] });
            }
            (None, None) => {
                keep(KeptReason::OldUnknown);
                seen.insert(name, Seen::Unknown);
            }
        }
        Ok(())
    }

    /// Takes out of the transaction what admission refuses, until it is admitted.
    fn keep_what_is_refused(&self, refs: &Refs, undo: &mut Undo, chosen: &mut impl FnMut(&Record) -> bool) {
        while let Err(refused) = refs.admit(&undo.transaction) {
            let reasons: Vec<(usize, Reason)> = refused.reasons().map(|(at, reason)| (at, reason.clone())).collect();
            // Of two that stand in each other's way, one may stay.
            let mutual = |reason: &Reason| matches!(reason, Reason::Duplicate { .. } | Reason::ConflictWithin { .. });
            let alone: Vec<&(usize, Reason)> = reasons.iter().filter(|(_, reason)| !mutual(reason)).collect();
            let out: Vec<&(usize, Reason)> =
                if alone.is_empty() { reasons.last().into_iter().collect() } else { alone };
            for (at, reason) in &out {
                let Some(command) = undo.transaction.commands().get(*at) else { continue };
                let versions = self.pieces.iter().filter_map(|(piece, _)| match piece {
                    Piece::Record(record) if piece.change_of(command.name()).is_some() && chosen(record) => {
                        Some(record.version())
                    }
                    Piece::Record(_) | Piece::Segment(_) => None,
                });
                let version = versions.last().unwrap_or_default();
                let reason = KeptReason::Refused(Box::new(reason.clone()));
                undo.kept.push(Kept { name: command.name().clone(), version, reason });
            }
            let rest = undo.transaction.commands().iter().enumerate();
            let rest = rest.filter(|(at, _)| !out.iter().any(|(refused, _)| refused == at));
            undo.transaction = rest.map(|(_, command)| command.clone()).collect();
        }
    }
}

/// Writes down what gives a ref back, once it is known how far back that goes.
fn close(state: &mut Seen, by: Version, name: &RefName, refs: &Refs, transaction: &mut Transaction) {
    let Seen::Ours { now, before, .. } = core::mem::replace(state, Seen::Theirs(by)) else { return };
    if now == before {
        return;
    }
    let command = match before {
        Some(value) => Command::update(name.clone(), value),
        None => Command::delete(name.clone()),
    };
    // Git compares an id with what a symbolic ref leads to, so that what is symbolic now is expected as such.
    debug_assert_eq!(now, refs.get(name), "the refs are those at the log's end");
    transaction.push(command.expecting(Old::known(now)).no_deref());
}
