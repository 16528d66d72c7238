//! Sketches: finding the difference of two sets of refs without a common log, by sending about as much as they differ.
//!
//! Rateless invertible Bloom look-up tables (Yang, Gilad and Alizadeh, "Practical rateless set reconciliation", SIGCOMM
//! 2024): one side sends an endless row of [`Cell`]s, the other takes its own refs out of each and stops as soon as what is
//! left resolves, after some 1.35 to 1.7 cells a difference. Each entry goes into cell `i` with probability
//! `1 / (1 + i / 2)`, in both sides alike. Entries are keyed 16-byte hashes of (name, value), so that nobody without the key
//! can choose names that collide.

use alloc::collections::{BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::change::Value;
use crate::codec::Reader;
use crate::codec::error::DecodeError;
use crate::name::RefName;
use crate::refs::Refs;

/// The hash of a ref and its value under the hosts' common key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct EntryId(pub u128);

impl EntryId {
    fn of(refs: &Refs, name: &RefName, value: &Value) -> Self {
        Self(u128::from_le_bytes(refs.config().key().entry(name, value).prefix16()))
    }

    /// Tells a lone entry from a sum of several: a bijection of each half, mixed (the finaliser of `SplitMix64`). That of
    /// zero, which an empty cell holds, is not zero.
    fn check(self) -> u64 {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
        mix(half(self.0) ^ mix(half(self.0 >> 64)).rotate_left(23) ^ 0x9e37_79b9_7f4a_7c15)
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A cell of a sketch, in 24 bytes: the sum of its entries, and the sum of their checks.
///
/// The original keeps a count of the entries besides, which says of a lone one on which side it is. Here sums wrap, and what
/// is taken out of a cell that it is not in leaves its negative: that says the same. That a sum of several passes for a lone
/// entry has odds of 2⁻⁶³ at each look; the checksum of all refs tells in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cell {
    sum: u128,
    check: u64,
}

/// The side that has an entry which the other lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Here,
    There,
}

impl Cell {
    fn add(&mut self, entry: EntryId) {
        self.sum = self.sum.wrapping_add(entry.0);
        self.check = self.check.wrapping_add(entry.check());
    }

    fn remove(&mut self, entry: EntryId) {
        self.sum = self.sum.wrapping_sub(entry.0);
        self.check = self.check.wrapping_sub(entry.check());
    }

    const fn is_zero(&self) -> bool {
        self.sum == 0 && self.check == 0
    }

    /// The entry that is alone in the cell.
    fn lone(&self) -> Option<(EntryId, Side)> {
        let (there, here) = (EntryId(self.sum), EntryId(self.sum.wrapping_neg()));
        if self.check == there.check() {
            Some((there, Side::There))
        } else if self.check.wrapping_neg() == here.check() {
            Some((here, Side::Here))
        } else {
            None
        }
    }

    /// Appends the cell's bytes to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sum.to_le_bytes());
        out.extend_from_slice(&self.check.to_le_bytes());
    }

    /// Reads cells that stand one behind another.
    ///
    /// # Errors
    /// What is wrong with the bytes, and where.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let mut reader = Reader::new(bytes, 0);
        let mut cells = Vec::new();
        while reader.left() > 0 {
            let sum = u128::from_le_bytes(reader.array()?);
            let check = u64::from_le_bytes(reader.array()?);
            cells.push(Self { sum, check });
        }
        Ok(cells)
    }
}

/// Which cells an entry falls into, one after another.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    state: u64,
    index: u64,
}

impl Mapping {
    fn new(entry: EntryId) -> Self {
        // The multiplier needs an odd state to keep all of its bits.
        Self { state: entry.check() | 1, index: 0 }
    }

    /// The next cell: the gap that makes the probability `1 / (1 + i / 2)`, in integers, so that both sides agree.
    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(0xda94_2042_e4dd_58b5);
        let root = u128::from(self.state.isqrt().max(1));
        let gap = ((2 * u128::from(self.index) + 3) * ((1 << 32) - root.min(1 << 32))).div_ceil(2 * root).max(1);
        self.index = self.index.saturating_add(u64::try_from(gap).unwrap_or(u64::MAX));
    }
}

/// Entries, by the next cell that each falls into.
#[derive(Clone, Debug, Default)]
struct Window {
    entries: Vec<(EntryId, Mapping)>,
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Window {
    fn add(&mut self, entry: EntryId, mapping: Mapping) {
        self.next.push(Reverse((mapping.index, self.entries.len())));
        self.entries.push((entry, mapping));
    }

    /// Does something to cell `index` with every entry that falls into it. Cells are asked for in order.
    fn apply(&mut self, cell: &mut Cell, index: u64, change: impl Fn(&mut Cell, EntryId)) {
        while let Some(mut top) = self.next.peek_mut().filter(|top| top.0.0 <= index) {
            let Some((entry, mapping)) = self.entries.get_mut(top.0.1) else { return };
            change(cell, *entry);
            mapping.advance();
            top.0.0 = mapping.index;
        }
    }
}

/// A sketch, the sending side: an endless row of cells of one set of refs.
///
/// Send nothing where the checksums are equal; else send cells until the other side says that it is done.
#[derive(Clone, Debug)]
pub struct Sketch {
    window: Window,
    sent: u64,
}

impl Sketch {
    /// The sketch of these refs.
    #[must_use]
    pub fn new(refs: &Refs) -> Self {
        let mut window = Window::default();
        for (name, value) in refs.iter() {
            let entry = EntryId::of(refs, &name, &value);
            window.add(entry, Mapping::new(entry));
        }
        Self { window, sent: 0 }
    }

    /// The next cell.
    pub fn next_cell(&mut self) -> Cell {
        let mut cell = Cell::default();
        self.window.apply(&mut cell, self.sent, Cell::add);
        self.sent = self.sent.saturating_add(1);
        cell
    }
}

/// The entries that only one side has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Difference {
    /// Entries that only the receiving side has.
    pub here: Vec<EntryId>,
    /// Entries that only the sending side has: ask it for them ([`Refs::entries_of`]).
    pub there: Vec<EntryId>,
}

/// Why a row of cells cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SketchError {
    /// The cells are not those of a set of refs: the other side uses another key, or sends other data.
    #[error("the cells are not those of a set of refs under this key")]
    Inconsistent,
    /// The difference was not found within the maximum of cells: take a snapshot instead.
    #[error("the difference was not found within {max} cells")]
    TooManyCells {
        /// The maximum number of cells.
        max: usize,
    },
}

/// A reconciler, the receiving side: removes its own refs from each cell, and resolves the rest.
#[derive(Clone, Debug)]
pub struct Reconciler {
    own: Window,
    found_here: Window,
    found_there: Window,
    cells: Vec<Cell>,
    known: BTreeSet<EntryId>,
    difference: Difference,
    max_cells: usize,
}

impl Reconciler {
    /// A reconciler of these refs with the sender's cells. It gives up after `max_cells`.
    #[must_use]
    pub fn new(refs: &Refs, max_cells: usize) -> Self {
        Self {
            own: Sketch::new(refs).window,
            found_here: Window::default(),
            found_there: Window::default(),
            cells: Vec::new(),
            known: BTreeSet::new(),
            difference: Difference::default(),
            max_cells,
        }
    }

    /// Takes in the next cell, and returns the difference once it is known. Further cells change nothing then.
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
    /// use tenon_refslog::{Reconciler, Sketch};
    ///
    /// let (mut sender, mut receiver) = (Sketch::new(&refs), Reconciler::new(&before, 100));
    /// let difference = loop {
    ///     if let Some(found) = receiver.handle_cell(sender.next_cell())? {
    ///         break found.clone();
    ///     }
    /// };
    /// assert_eq!(refs.entries_of(&difference.there)[0].0, main);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The cells cannot be resolved, or too many were needed.
    pub fn handle_cell(&mut self, cell: Cell) -> Result<Option<&Difference>, SketchError> {
        if self.is_done() {
            return Ok(Some(&self.difference));
        }
        if self.cells.len() >= self.max_cells {
            return Err(SketchError::TooManyCells { max: self.max_cells });
        }
        let index = self.cells.len();
        let mut left = cell;
        self.own.apply(&mut left, index as u64, Cell::remove);
        self.found_there.apply(&mut left, index as u64, Cell::remove);
        self.found_here.apply(&mut left, index as u64, Cell::add);
        self.cells.push(left);
        self.resolve(index)?;
        Ok(if self.is_done() { Some(&self.difference) } else { None })
    }

    /// Every entry falls into the first cell, so that is empty once all are found.
    fn is_done(&self) -> bool {
        self.cells.first().is_some_and(Cell::is_zero)
    }

    fn resolve(&mut self, start: usize) -> Result<(), SketchError> {
        let mut queue = alloc::vec![start];
        while let Some(at) = queue.pop() {
            let Some((entry, side)) = self.cells.get(at).and_then(Cell::lone) else { continue };
            // A difference needs more than a cell, and is found once.
            if !self.known.insert(entry) || self.known.len() > self.cells.len() {
                return Err(SketchError::Inconsistent);
            }
            let mut mapping = Mapping::new(entry);
            while let Some(cell) = usize::try_from(mapping.index).ok().and_then(|index| self.cells.get_mut(index)) {
                match side {
                    Side::There => cell.remove(entry),
                    Side::Here => cell.add(entry),
                }
                if cell.lone().is_some() {
                    queue.extend(usize::try_from(mapping.index));
                }
                mapping.advance();
            }
            let (window, found) = match side {
                Side::There => (&mut self.found_there, &mut self.difference.there),
                Side::Here => (&mut self.found_here, &mut self.difference.here),
            };
            window.add(entry, mapping);
            found.push(entry);
        }
        Ok(())
    }
}

impl Refs {
    /// The refs of these entry ids, in the order of names: the answer to the other side of a reconciliation.
    #[must_use]
    pub fn entries_of(&self, ids: &[EntryId]) -> Vec<(RefName, Value)> {
        let wanted: BTreeSet<EntryId> = ids.iter().copied().collect();
        self.iter().filter(|(name, value)| wanted.contains(&EntryId::of(self, name, value))).collect()
    }
}
