//! What to fold next: a pure question over the sizes of pieces.

use alloc::vec::Vec;

use crate::id::Version;

/// What planning looks at: a stretch of the log and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Extent {
    /// Where the piece starts.
    pub base: Version,
    /// Where it ends.
    pub end: Version,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it is a record or was folded before.
    pub kind: PieceKind,
}

/// Whether a piece was folded before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PieceKind {
    /// One record, as appended.
    Record,
    /// Records folded into a segment.
    Segment,
}

/// What to do next about the length of the log, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Plan {
    /// Nothing: every piece is at least `factor` times as large as what follows it.
    Nothing,
    /// Fold the pieces between two versions into one segment.
    Fold(Stretch),
    /// Merge what is before the horizon into the snapshot; only there do tombstones go.
    Absorb(Stretch),
    /// The next step reads more than the budget allows.
    OverBudget(Stretch),
}

/// The pieces that a plan is about, and the numbers that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stretch {
    /// Where the first piece starts.
    pub base: Version,
    /// Where the last piece ends.
    pub end: Version,
    /// How many pieces.
    pub pieces: usize,
    /// Their bytes: what the step reads, and at most what it writes (plus the snapshot, for [`Plan::Absorb`]).
    pub bytes: u64,
    /// Bytes of the oldest piece (for [`Plan::Absorb`], of the snapshot).
    pub oldest: u64,
    /// Bytes of the pieces after the oldest (for [`Plan::Absorb`], of all): `oldest < factor × rest` is why.
    pub rest: u64,
}

/// The rule of planning: sizes fall by a factor from each piece to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) factor: u64,
    pub(crate) min_records: usize,
    pub(crate) budget: u64,
}

/// What a plan must leave as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    /// From this version on, each one stays readable: nothing is folded.
    pub(crate) readable: Version,
    /// Nothing beyond this version goes into the snapshot.
    pub(crate) horizon: Version,
    /// Versions that no fold may swallow.
    pub(crate) boundaries: &'a [Version],
}

impl Rule {
    /// The next step on `pieces`, none of which crosses a boundary that was there when it was made.
    ///
    /// Folds never cross a boundary. With factor `f`, `n` bytes of log leave at most `log_f n + 1` segments between two
    /// boundaries, and each byte is rewritten about as often.
    pub(crate) fn plan(&self, pieces: &[Extent], snapshot_bytes: u64, limits: &Limits<'_>) -> Plan {
        let Limits { readable, horizon, boundaries } = *limits;
        let foldable = pieces.iter().take_while(|piece| piece.end <= readable).count();
        let pieces = pieces.get(..foldable).unwrap_or_default();
        let mut over = None;
        let mut start = 0;
        while start < pieces.len() {
            let group = group_from(pieces.get(start..).unwrap_or_default(), boundaries);
            let sealed = start + group.len() < pieces.len();
            match self.fold_in(group, sealed) {
                Plan::Nothing => {}
                Plan::OverBudget(stretch) => over = over.or(Some(stretch)),
                plan @ (Plan::Fold(_) | Plan::Absorb(_)) => return plan,
            }
            start += group.len();
        }
        match (self.absorb(pieces, snapshot_bytes, horizon), over) {
            (Plan::Nothing, Some(stretch)) => Plan::OverBudget(stretch),
            (plan, _) => plan,
        }
    }

    fn fold_in(&self, group: &[Extent], sealed: bool) -> Plan {
        let records = group.iter().rev().take_while(|piece| piece.kind == PieceKind::Record).count();
        let enough = if sealed { 1 } else { self.min_records };
        let considered = if records < enough { group.len() - records } else { group.len() };
        let mut over = None;
        for last in (1..considered).rev() {
            let mut rest = group.get(last).map_or(0, |piece| piece.bytes);
            let mut first = last;
            while let Some(before) = first.checked_sub(1).and_then(|at| group.get(at)) {
                // Records are folded whatever their sizes; segments only where they are not large enough.
                let record = before.kind == PieceKind::Record;
                if !record && before.bytes >= self.factor.saturating_mul(rest) {
                    break;
                }
                first -= 1;
                rest = rest.saturating_add(before.bytes);
            }
            if first == last {
                continue;
            }
            match self.within_budget(group.get(first..=last).unwrap_or_default()) {
                Plan::OverBudget(stretch) => over = over.or(Some(stretch)),
                plan @ (Plan::Nothing | Plan::Fold(_) | Plan::Absorb(_)) => return plan,
            }
        }
        over.map_or(Plan::Nothing, Plan::OverBudget)
    }

    /// The newest pieces of a fold that the budget allows; a later plan goes on from there.
    fn within_budget(&self, pieces: &[Extent]) -> Plan {
        let mut bytes = 0_u64;
        let fitting = pieces.iter().rev().take_while(|piece| {
            bytes = bytes.saturating_add(piece.bytes);
            bytes <= self.budget
        });
        match fitting.count() {
            0 | 1 => stretch_of(pieces).map_or(Plan::Nothing, Plan::OverBudget),
            count => {
                stretch_of(pieces.get(pieces.len() - count..).unwrap_or_default()).map_or(Plan::Nothing, Plan::Fold)
            }
        }
    }

    fn absorb(&self, pieces: &[Extent], snapshot_bytes: u64, horizon: Version) -> Plan {
        let behind = pieces.iter().take_while(|piece| piece.end <= horizon).count();
        let Some(stretch) = stretch_of(pieces.get(..behind).unwrap_or_default()) else {
            return Plan::Nothing;
        };
        let stretch = Stretch { oldest: snapshot_bytes, rest: stretch.bytes, ..stretch };
        if snapshot_bytes >= self.factor.saturating_mul(stretch.bytes) {
            return Plan::Nothing;
        }
        let reads = stretch.bytes.saturating_add(snapshot_bytes);
        if reads > self.budget { Plan::OverBudget(stretch) } else { Plan::Absorb(stretch) }
    }
}

/// The pieces up to the first boundary.
fn group_from<'a>(pieces: &'a [Extent], boundaries: &[Version]) -> &'a [Extent] {
    let len = pieces.iter().position(|piece| boundaries.contains(&piece.end)).map_or(pieces.len(), |at| at + 1);
    pieces.get(..len).unwrap_or(pieces)
}

fn stretch_of(pieces: &[Extent]) -> Option<Stretch> {
    let (first, last) = (pieces.first()?, pieces.last()?);
    let sizes: Vec<u64> = pieces.iter().map(|piece| piece.bytes).collect();
    let bytes = sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
    Some(Stretch {
        base: first.base,
        end: last.end,
        pieces: pieces.len(),
        bytes,
        oldest: first.bytes,
        rest: bytes.saturating_sub(first.bytes),
    })
}
