//! Many sorted stretches of changes into one: each name once, with its first old value and its last new one.

use alloc::collections::BinaryHeap;
use alloc::collections::binary_heap::PeekMut;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::{CompactError, Leg};
use crate::change::{Change, Old, Value};
use crate::codec::run::common_prefix;
use crate::oid::ObjectFormat;
use crate::record::Form;

/// Legs of fewer changes than this on average are sorted together; a heap of them would be larger than what is in them.
const SHORT: usize = 16;

/// The changes of adjacent legs.
pub(super) fn merge(legs: &[Leg<'_>], form: Form) -> Result<Vec<Change>, CompactError> {
    let common = common_prefix_of(legs);
    let mut merged = Merged { form, format: None, changes: Vec::new(), group: None };
    let all: usize = legs.iter().map(|leg| leg.changes.len()).sum();
    if all < SHORT * legs.len() {
        take_sorted(legs, common, &mut merged)?;
    } else {
        take_side_by_side(legs, common, &mut merged)?;
    }
    merged.close()?;
    Ok(merged.changes)
}

/// The sort is stable, so changes of one name stay in the order of the log.
fn take_sorted<'a>(legs: &[Leg<'a>], common: usize, merged: &mut Merged<'a>) -> Result<(), CompactError> {
    let all = legs.iter().flat_map(|leg| leg.changes);
    let mut keyed: Vec<(u128, &Change)> = all.map(|change| (change.name().key_at(common), change)).collect();
    keyed.sort_by(|one, other| {
        let by_key = one.0.cmp(&other.0);
        if by_key.is_eq() && !is_whole(one.0) { one.1.name().cmp(other.1.name()) } else { by_key }
    });
    keyed.into_iter().try_for_each(|(key, change)| merged.take(key, change))
}

/// Each leg is read once and in its own order, so that even those that do not fit the caches are read ahead of need.
fn take_side_by_side<'a>(legs: &[Leg<'a>], common: usize, merged: &mut Merged<'a>) -> Result<(), CompactError> {
    let heads = legs.iter().enumerate().filter_map(|(leg, it)| Head::new(leg, it.changes, common));
    let mut heads: BinaryHeap<Head<'a>> = heads.collect();
    while let Some(mut head) = heads.peek_mut() {
        merged.take(head.key, head.change)?;
        match Head::new(head.leg, head.rest, common) {
            Some(next) => *head = next,
            None => drop(PeekMut::pop(head)),
        }
    }
    Ok(())
}

/// The next change of a leg. The greatest is the first in the order of names and, of one name, in the order of the log.
struct Head<'a> {
    /// The sixteen bytes of the name behind what all share: most comparisons need no more.
    key: u128,
    leg: usize,
    change: &'a Change,
    rest: &'a [Change],
}

impl<'a> Head<'a> {
    fn new(leg: usize, changes: &'a [Change], common: usize) -> Option<Self> {
        let (change, rest) = changes.split_first()?;
        Some(Self { key: change.name().key_at(common), leg, change, rest })
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = other.key.cmp(&self.key);
        let by_name =
            if by_key.is_eq() && !is_whole(self.key) { other.change.name().cmp(self.change.name()) } else { by_key };
        by_name.then_with(|| other.leg.cmp(&self.leg))
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

/// The changes of one name, in the order of the log.
struct Group<'a> {
    key: u128,
    first: &'a Change,
    last: &'a Change,
}

impl<'a> Group<'a> {
    fn add(&mut self, change: &'a Change) -> Result<(), CompactError> {
        if !change.old().matches(self.last.new_value()) {
            return Err(CompactError::Broken { name: change.name().clone() });
        }
        self.last = change;
        Ok(())
    }
}

struct Merged<'a> {
    form: Form,
    /// The object format of all ids.
    format: Option<ObjectFormat>,
    changes: Vec<Change>,
    /// The group of changes that was taken last.
    group: Option<Group<'a>>,
}

impl<'a> Merged<'a> {
    /// Takes the next change in the order of names and, of one name, in the order of the log.
    fn take(&mut self, key: u128, change: &'a Change) -> Result<(), CompactError> {
        if let Some(group) = &mut self.group
            && group.key == key
            && (is_whole(key) || group.first.name() == change.name())
        {
            return group.add(change);
        }
        self.close()?;
        self.group = Some(Group { key, first: change, last: change });
        Ok(())
    }

    fn close(&mut self) -> Result<(), CompactError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let (name, new) = (group.first.name(), group.last.new_value());
        if let Some(id) = new.and_then(Value::id)
            && *self.format.get_or_insert(id.format()) != id.format()
        {
            return Err(CompactError::MixedFormats { name: name.clone() });
        }
        let old = match self.form {
            Form::Invertible => group.first.old().clone(),
            Form::ForwardOnly => Old::Any,
        };
        self.changes.push(Change::new(name.clone(), old, new.cloned()));
        Ok(())
    }
}

/// How many bytes all names share.
fn common_prefix_of(legs: &[Leg<'_>]) -> usize {
    let mut ends = legs.iter().flat_map(|leg| [leg.changes.first(), leg.changes.last()]).flatten().map(Change::name);
    let Some(first) = ends.next() else { return 0 };
    ends.fold(first.as_bytes().len(), |common, name| common.min(common_prefix(first.as_bytes(), name.as_bytes())))
}

/// Whether a key holds all the rest of its name: it ends in zero, and no name has a zero byte.
const fn is_whole(key: u128) -> bool {
    key.trailing_zeros() >= 8
}
