//! A table of what is under way, by numbers that count up.
//!
//! Most entries are gone before many younger ones have come, so an entry's place is its number modulo the table's size:
//! finding it is one comparison. What outstays a whole round moves to an ordinary map.

use alloc::vec::Vec;
use core::hash::Hash;

use crate::hash::Map;

/// The smallest table.
const LEAST: usize = 64;

/// Numbers that count up.
pub(crate) trait Number: Copy + Eq + Ord + Hash {
    fn number(self) -> u64;
}

#[derive(Clone, Debug)]
pub(crate) struct Recent<K, T> {
    /// A power of two of places.
    ring: Vec<Option<(K, T)>>,
    old: Map<K, T>,
    used: usize,
}

impl<K, T> Default for Recent<K, T> {
    fn default() -> Self {
        Self { ring: Vec::new(), old: Map::default(), used: 0 }
    }
}

impl<K: Number, T> Recent<K, T> {
    fn place(&self, key: K) -> usize {
        let mask = self.ring.len().wrapping_sub(1) as u64;
        usize::try_from(key.number() & mask).unwrap_or(0)
    }

    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    /// Puts in an entry whose number is not there.
    pub(crate) fn insert(&mut self, key: K, value: T) {
        // At most half full, so that only what outstays its time is in anybody's way.
        if self.used * 2 >= self.ring.len() {
            self.grow();
        }
        self.used += 1;
        let at = self.place(key);
        if let Some((old, value)) = self.ring[at].replace((key, value)) {
            self.old.insert(old, value);
        }
    }

    fn grow(&mut self) {
        let size = (self.ring.len() * 2).max(LEAST);
        let ring = core::mem::replace(&mut self.ring, core::iter::repeat_with(|| None).take(size).collect());
        for (key, value) in ring.into_iter().flatten() {
            let at = self.place(key);
            // Numbers that differ modulo the old size differ modulo the new one.
            self.ring[at] = Some((key, value));
        }
    }

    pub(crate) fn get(&self, key: K) -> Option<&T> {
        match self.ring.get(self.place(key)) {
            Some(Some((found, value))) if *found == key => Some(value),
            Some(_) => self.old.get(&key),
            None => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let at = self.place(key);
        match self.ring.get_mut(at) {
            Some(Some((found, value))) if *found == key => Some(value),
            Some(_) => self.old.get_mut(&key),
            None => None,
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let at = self.place(key);
        let place = self.ring.get_mut(at)?;
        let gone = match place.take() {
            Some((found, value)) if found == key => Some(value),
            other => {
                *place = other;
                self.old.remove(&key)
            }
        };
        self.used -= usize::from(gone.is_some());
        gone
    }

    /// All entries, by their numbers.
    pub(crate) fn sorted(&self) -> Vec<(K, &T)> {
        let mut all: Vec<(K, &T)> = self.ring.iter().flatten().map(|(key, value)| (*key, value)).collect();
        #[expect(clippy::disallowed_methods, reason = "sorted before anybody sees it")]
        all.extend(self.old.iter().map(|(key, value)| (*key, value)));
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Ticket;
    use alloc::collections::BTreeMap;

    impl Number for u64 {
        fn number(self) -> u64 {
            self
        }
    }

    #[test]
    fn it_is_a_map_for_any_mix_of_short_and_long_stays() {
        let (mut table, mut map) = (Recent::default(), BTreeMap::new());
        for number in 0..20_000_u64 {
            table.insert(number, number * 3);
            map.insert(number, number * 3);
            // One in seven stays for thousands of rounds, the others for a few.
            for gone in [number.saturating_sub(5), number.saturating_sub(3_000)] {
                if gone % 7 != 0 || gone + 3_000 == number {
                    assert_eq!(table.remove(gone), map.remove(&gone));
                }
            }
            assert_eq!(table.get(number / 2), map.get(&(number / 2)));
            assert_eq!(table.len(), map.len());
        }
        let all: BTreeMap<u64, u64> = table.sorted().into_iter().map(|(key, value)| (key, *value)).collect();
        assert_eq!(all, map);
        assert!(table.ring.len() <= 4 * map.len(), "it is as large as what is in it");
        assert_eq!(Recent::<Ticket, ()>::default().get(Ticket::new(1)), None);
    }
}
