//! What two states differ in.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::change::{Change, Old, Value};
use crate::name::RefName;
use crate::refs::Refs;

/// The changes that lead from the refs of `from` to those of `to`, in the order of names. Equal checksums under one key
/// are answered without a look at the refs.
#[must_use]
pub fn diff(from: &Refs, to: &Refs) -> Vec<Change> {
    if from.config.key == to.config.key && from.checksum() == to.checksum() {
        return Vec::new();
    }
    let mut changes = Vec::new();
    let mut before = from.map.iter().peekable();
    let mut after = to.map.iter().peekable();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old: Option<(&RefName, &Value)> = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        let old_value = old.map(|(_, value)| value);
        let new_value = new.map(|(_, value)| value);
        if let Some((name, _)) = old.or(new)
            && old_value != new_value
        {
            changes.push(Change::new(name.clone(), Old::known(old_value.cloned()), new_value.cloned()));
        }
    }
}
