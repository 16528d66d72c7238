//! Planning: which pieces to fold next, from their sizes alone. Pure.

use alloc::vec::Vec;

use crate::id::Version;

/// The extent of a piece: a stretch of the log and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Extent {
    /// The version where the piece starts.
    pub base: Version,
    /// The version where the piece ends.
    pub end: Version,
    /// The size of the piece in bytes.
    pub bytes: u64,
    /// Whether the piece is a record or a segment.
    pub kind: PieceKind,
}

/// The kind of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PieceKind {
    /// A record, as appended.
    Record,
    /// A segment, folded from records.
    Segment,
}

/// The next step that shortens the log, with the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Plan {
    /// Nothing to do: every piece is at least `factor` times as large as the piece after it.
    Nothing,
    /// Fold these pieces into one segment.
    Fold(Stretch),
    /// Merge these pieces, which are before the horizon, into the snapshot. Only there are tombstones dropped.
    Absorb(Stretch),
    /// The next step would read more than the budget allows.
    OverBudget(Stretch),
}

/// The pieces of a plan, with the numbers that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stretch {
    /// The version where the first piece starts.
    pub base: Version,
    /// The version where the last piece ends.
    pub end: Version,
    /// The number of pieces.
    pub pieces: usize,
    /// The size of the pieces in bytes.
    ///
    /// The step reads as much, and writes at most as much (plus the snapshot, for [`Plan::Absorb`]).
    pub bytes: u64,
    /// The size of the oldest piece (for [`Plan::Absorb`], of the snapshot), in bytes.
    pub oldest: u64,
    /// The size of the pieces after the oldest (for [`Plan::Absorb`], of all), in bytes.
    ///
    /// The reason for the step is `oldest < factor × rest`.
    pub rest: u64,
}

/// The rule of planning: sizes fall by a factor from each piece to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) factor: u64,
    pub(crate) min_records: usize,
    pub(crate) budget: u64,
}

/// The versions that a plan must not fold.
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
