//! The refs of a state in memory: sorted leaves of up to 128 names, packed.
//!
//! A map of names to values costs some 170 bytes a ref; a million refs are ordinary here. In a leaf, names lie behind one
//! another without the prefix that all of them share, and ids in an array: some 40 bytes a ref, and an update overwrites
//! an id in its place.

mod leaf;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::change::{Peel, Target, Value};
use crate::codec::run::common_prefix;
use crate::name::RefName;
use crate::oid::{ObjectFormat, ObjectId};
use leaf::{Kind, Leaf};

const LEAF: usize = 128;
const SPARSE: usize = 16;

/// A sorted map from names to values.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    format: ObjectFormat,
    /// The first name of each leaf.
    firsts: Vec<RefName>,
    leaves: Vec<Leaf>,
    len: usize,
    /// Symbolic refs by name, which few refs are. Peeled ids stand apart likewise.
    symbolic: BTreeMap<RefName, RefName>,
    peeled: BTreeMap<RefName, ObjectId>,
}

/// A place between names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) leaf: usize,
    index: usize,
}

impl Place {
    /// Before all names.
    pub(crate) const START: Self = Self { leaf: 0, index: 0 };
}

impl Store {
    pub(crate) const fn new(format: ObjectFormat) -> Self {
        Self {
            format,
            firsts: Vec::new(),
            leaves: Vec::new(),
            len: 0,
            symbolic: BTreeMap::new(),
            peeled: BTreeMap::new(),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Appends a name that is after all others; builds dense leaves.
    pub(crate) fn push(&mut self, name: &RefName, value: &Value) {
        let full = self.leaves.last().is_none_or(|leaf| leaf.len() >= LEAF);
        if full {
            if let Some(leaf) = self.leaves.last_mut() {
                leaf.tails.shrink_to_fit();
            }
            self.firsts.push(name.clone());
            let ids = Vec::with_capacity(LEAF * self.format.len());
            let (ends, kinds) = (Vec::with_capacity(LEAF), Vec::with_capacity(LEAF));
            self.leaves.push(Leaf { prefix: name.as_bytes().len(), tails: Vec::new(), ends, kinds, ids });
        }
        let leaf = self.leaves.len() - 1;
        let index = self.leaves.get(leaf).map_or(0, Leaf::len);
        self.insert_at(Place { leaf, index }, name, value);
    }

    fn find(&self, name: &[u8]) -> Result<Place, Place> {
        self.find_near(0, name)
    }

    /// Whether a name can only stand in this leaf.
    fn is_leaf_of(&self, leaf: usize, name: &[u8]) -> bool {
        self.firsts.get(leaf).is_some_and(|first| first.as_bytes() <= name)
            && self.firsts.get(leaf + 1).is_none_or(|next| name < next.as_bytes())
    }

    /// Looks in a leaf first, for names that come in order.
    pub(crate) fn find_near(&self, hint: usize, name: &[u8]) -> Result<Place, Place> {
        let leaf = if self.is_leaf_of(hint, name) {
            hint
        } else {
            self.firsts.partition_point(|first| first.as_bytes() <= name).saturating_sub(1)
        };
        let (Some(first), Some(held)) = (self.firsts.get(leaf), self.leaves.get(leaf)) else {
            return Err(Place { leaf: 0, index: 0 });
        };
        let prefix = first.as_bytes().get(..held.prefix).unwrap_or_default();
        let found = match name.strip_prefix(prefix) {
            Some(tail) => held.search(tail),
            None if name < prefix => Err(0),
            None => Err(held.len()),
        };
        found.map(|index| Place { leaf, index }).map_err(|index| Place { leaf, index })
    }

    fn kind_at(&self, place: Place) -> Option<(Kind, &[u8])> {
        let leaf = self.leaves.get(place.leaf)?;
        let len = self.format.len();
        Some((*leaf.kinds.get(place.index)?, leaf.ids.get(place.index * len..(place.index + 1) * len)?))
    }

    pub(crate) fn value_at(&self, place: Place, name: &[u8]) -> Option<Value> {
        let (kind, id) = self.kind_at(place)?;
        if kind == Kind::Symbolic {
            return self.symbolic.get(name).cloned().map(Value::Symbolic);
        }
        // Ids in a leaf come from ids; a peeled id is of the same format.
        let id = ObjectId::from_bytes(id).ok()?;
        let peeled = if kind == Kind::Peeled { self.peeled.get(name) } else { None };
        let plain = || if kind == Kind::NotATag { Target::not_a_tag(id) } else { Target::from(id) };
        Some(peeled.and_then(|peeled| Target::peeled_to(id, *peeled).ok()).unwrap_or_else(plain).into())
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<Value> {
        self.value_at(self.find(name).ok()?, name)
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.find(name).is_ok()
    }

    pub(crate) fn insert(&mut self, name: &RefName, value: &Value) {
        match self.find(name.as_bytes()) {
            Ok(place) => self.overwrite(place, name, value),
            Err(place) => self.insert_at(place, name, value),
        }
    }

    /// What stands in a leaf for a value; the rest goes beside.
    fn put_aside(&mut self, name: &RefName, value: &Value) -> (Kind, [u8; 32]) {
        let mut bytes = [0; 32];
        self.symbolic.remove(name);
        self.peeled.remove(name);
        match value {
            Value::Symbolic(target) => {
                self.symbolic.insert(name.clone(), target.clone());
                (Kind::Symbolic, bytes)
            }
            Value::Direct(target) => {
                let id = target.as_id_bytes();
                if let Some(space) = bytes.get_mut(..id.len()) {
                    space.copy_from_slice(id);
                }
                match target.peel() {
                    Peel::Unknown => (Kind::Id, bytes),
                    Peel::NotATag => (Kind::NotATag, bytes),
                    Peel::To(peeled) => {
                        self.peeled.insert(name.clone(), peeled);
                        (Kind::Peeled, bytes)
                    }
                }
            }
        }
    }

    fn overwrite(&mut self, place: Place, name: &RefName, value: &Value) {
        let (kind, id) = self.put_aside(name, value);
        let len = self.format.len();
        let Some(leaf) = self.leaves.get_mut(place.leaf) else { return };
        if let Some(held) = leaf.kinds.get_mut(place.index) {
            *held = kind;
        }
        if let (Some(held), Some(id)) = (leaf.ids.get_mut(place.index * len..(place.index + 1) * len), id.get(..len)) {
            held.copy_from_slice(id);
        }
    }

    fn insert_at(&mut self, place: Place, name: &RefName, value: &Value) {
        let (kind, id) = self.put_aside(name, value);
        let id_len = self.format.len();
        if self.leaves.is_empty() {
            self.firsts.push(name.clone());
            self.leaves.push(Leaf { prefix: name.as_bytes().len(), ..Leaf::default() });
        }
        let (Some(first), Some(leaf)) = (self.firsts.get_mut(place.leaf), self.leaves.get_mut(place.leaf)) else {
            return;
        };
        let common = common_prefix(first.as_bytes(), name.as_bytes()).min(leaf.prefix);
        if common < leaf.prefix {
            let mut shorter = Leaf::default();
            leaf.copy_into(first, 0..leaf.len(), &mut shorter, common, id_len);
            *leaf = shorter;
        }
        let tail = name.as_bytes().get(common..).unwrap_or_default();
        leaf.insert(place.index, tail, kind, id.get(..id_len).unwrap_or_default());
        if place.index == 0 {
            *first = name.clone();
        }
        self.len += 1;
        if leaf.len() > LEAF {
            self.split(place.leaf);
        }
    }

    fn split(&mut self, at: usize) {
        let (Some(first), Some(leaf)) = (self.firsts.get(at).cloned(), self.leaves.get(at)) else { return };
        let id_len = self.format.len();
        let middle = leaf.len() / 2;
        let (low, high) = (self.rebuilt(at, &first, 0..middle), self.rebuilt(at, &first, middle..leaf.len()));
        debug_assert_eq!(low.ids.len(), low.len() * id_len, "an id each");
        let Some(second) = self.name_at(Place { leaf: at, index: middle }) else { return };
        self.firsts.insert(at + 1, second);
        self.leaves.insert(at + 1, high);
        if let Some(leaf) = self.leaves.get_mut(at) {
            *leaf = low;
        }
    }

    /// A part of a leaf with the longest prefix that its names share.
    fn rebuilt(&self, at: usize, first: &RefName, range: core::ops::Range<usize>) -> Leaf {
        let Some(leaf) = self.leaves.get(at) else { return Leaf::default() };
        let (low, high) = (leaf.tail(range.start), leaf.tail(range.end.saturating_sub(1)));
        let prefix = leaf.prefix + common_prefix(low, high);
        let mut part = Leaf::default();
        leaf.copy_into(first, range, &mut part, prefix, self.format.len());
        part
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        let Ok(place) = self.find(name) else { return };
        self.symbolic.remove(name);
        self.peeled.remove(name);
        let id_len = self.format.len();
        // The first name is replaced before it goes: the prefix is read from it.
        let next = self.name_at(Place { index: 1, ..place }).filter(|_| place.index == 0);
        let (Some(first), Some(leaf)) = (self.firsts.get_mut(place.leaf), self.leaves.get_mut(place.leaf)) else {
            return;
        };
        leaf.remove(place.index, id_len);
        self.len -= 1;
        if let Some(next) = next {
            *first = next;
        }
        if leaf.len() == 0 {
            self.firsts.remove(place.leaf);
            self.leaves.remove(place.leaf);
        } else if leaf.len() < SPARSE {
            self.merge(place.leaf.saturating_sub(1));
        }
    }

    /// Merges a leaf with the next one, where both fit well within one.
    fn merge(&mut self, at: usize) {
        let (Some(low), Some(high)) = (self.leaves.get(at), self.leaves.get(at + 1)) else { return };
        let (Some(first), Some(second)) = (self.firsts.get(at), self.firsts.get(at + 1)) else { return };
        if low.len() + high.len() > LEAF * 3 / 4 {
            return;
        }
        let prefix = common_prefix(first.as_bytes(), second.as_bytes()).min(low.prefix).min(high.prefix);
        let mut merged = Leaf::default();
        let id_len = self.format.len();
        low.copy_into(first, 0..low.len(), &mut merged, prefix, id_len);
        high.copy_into(second, 0..high.len(), &mut merged, prefix, id_len);
        self.firsts.remove(at + 1);
        self.leaves.remove(at + 1);
        if let Some(leaf) = self.leaves.get_mut(at) {
            *leaf = merged;
        }
    }

    /// The first place whose name is not before `name`.
    pub(crate) fn seek(&self, name: &[u8]) -> Place {
        match self.find(name) {
            Ok(place) => place,
            Err(place) => self.normal(place),
        }
    }

    /// Whether the name at a place starts with `lead`.
    pub(crate) fn starts_with(&self, place: Place, lead: &[u8]) -> bool {
        let (Some(first), Some(held)) = (self.firsts.get(place.leaf), self.leaves.get(place.leaf)) else {
            return false;
        };
        let prefix = first.as_bytes().get(..held.prefix).unwrap_or_default();
        let common = common_prefix(prefix, lead);
        let rest = lead.get(common..).unwrap_or_default();
        let within = common == prefix.len() && held.tail(place.index).starts_with(rest);
        place.index < held.len() && (rest.is_empty() || within)
    }

    /// A place behind the last name of a leaf is the first of the next.
    pub(crate) fn normal(&self, place: Place) -> Place {
        let behind = self.leaves.get(place.leaf).is_some_and(|leaf| place.index >= leaf.len());
        if behind { Place { leaf: place.leaf + 1, index: 0 } } else { place }
    }

    pub(crate) fn after(&self, place: Place) -> Place {
        self.normal(Place { index: place.index + 1, ..place })
    }

    /// Puts the name at a place into `name`; `false` behind the last.
    pub(crate) fn read_name(&self, place: Place, name: &mut Vec<u8>) -> bool {
        name.clear();
        let (Some(first), Some(leaf)) = (self.firsts.get(place.leaf), self.leaves.get(place.leaf)) else {
            return false;
        };
        if place.index >= leaf.len() {
            return false;
        }
        name.extend_from_slice(first.as_bytes().get(..leaf.prefix).unwrap_or_default());
        name.extend_from_slice(leaf.tail(place.index));
        true
    }

    pub(crate) fn name_at(&self, place: Place) -> Option<RefName> {
        let mut name = Vec::new();
        self.read_name(place, &mut name).then(|| RefName::store(&name))
    }

    /// Everything from a place on, in the order of names.
    pub(crate) fn iter_from(&self, start: Place) -> impl Iterator<Item = (RefName, Value)> {
        let mut place = start;
        let mut buffer = Vec::new();
        core::iter::from_fn(move || {
            if !self.read_name(place, &mut buffer) {
                return None;
            }
            let value = self.value_at(place, &buffer)?;
            place = self.after(place);
            Some((RefName::store(&buffer), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;

    use super::*;

    fn value(n: u64) -> Value {
        match n % 7 {
            0 => Value::Symbolic(RefName::store(format!("refs/heads/{n}").as_bytes())),
            _ => ObjectId::from_bytes(&[u8::try_from(n % 255 + 1).unwrap(); 20]).unwrap().into(),
        }
    }

    /// Against a `BTreeMap`, over names that share much and little, in an order that splits, merges and re-prefixes.
    #[test]
    fn a_store_is_a_sorted_map() {
        let mut state = 1_u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut store = Store::new(ObjectFormat::Sha1);
        let mut map: BTreeMap<RefName, Value> = BTreeMap::new();
        for round in 0..30_000_u64 {
            let n = next(700);
            let text = match n % 3 {
                0 => format!("refs/changes/{:02}/{n}/1", n % 100),
                1 => format!("refs/heads/topic-{n}"),
                _ => format!("{}/{n}", ["refs", "a", "zz/long/dir"][usize::try_from(n % 9 / 3).unwrap()]),
            };
            let name = RefName::store(text.as_bytes());
            // Grow, then shrink, then grow.
            if (round / 7_000) % 2 == 0 || next(4) == 0 {
                let value = value(next(1_000));
                store.insert(&name, &value);
                map.insert(name.clone(), value);
            } else {
                store.remove(name.as_bytes());
                map.remove(&name);
            }
            assert_eq!(store.get(name.as_bytes()), map.get(&name).cloned());
            assert_eq!(store.len(), map.len());
            if round % 500 == 0 {
                let all = map.iter().map(|(name, value)| (name.clone(), value.clone()));
                assert!(store.iter_from(Place::START).eq(all));
                let from = store.iter_from(store.seek(name.as_bytes())).map(|(name, _)| name);
                assert!(from.eq(map.range(name.clone()..).map(|(name, _)| name.clone())));
            }
        }
    }

    #[test]
    fn pushing_in_order_builds_the_same() {
        let mut store = Store::new(ObjectFormat::Sha1);
        let names: Vec<RefName> = (0..1_000).map(|n| RefName::store(format!("refs/x/{n:05}").as_bytes())).collect();
        for name in &names {
            store.push(name, &value(3));
        }
        assert!(store.iter_from(Place::START).map(|(name, _)| name).eq(names.iter().cloned()));
        assert!(names.iter().all(|name| store.contains(name.as_bytes())));
    }
}
