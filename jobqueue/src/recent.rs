//! A table of what is under way, by numbers that count up.
//!
//! Most entries are gone before many younger ones have come, so an entry's place is its number modulo the table's size:
//! finding it is one comparison. What outstays a whole round moves to an ordinary map.

use alloc::vec::Vec;
use core::hash::Hash;

use crate::hash::Map;

/// The smallest table.
const LEAST: usize = 64;

/// Numbers that count up from 1.
pub(crate) trait Number: Copy + Eq + Ord + Hash {
    fn new(number: u64) -> Self;
    fn number(self) -> u64;
}

#[derive(Clone, Debug)]
pub(crate) struct Recent<K, T> {
    /// A power of two of places; what was in a free one is used again.
    ring: Vec<Place<T>>,
    old: Map<K, T>,
    /// The youngest number that was forgotten.
    gone: T,
    used: usize,
}

#[derive(Clone, Debug)]
struct Place<T> {
    /// Whose it is; 0 if it is free.
    number: u64,
    value: T,
}

impl<T> Place<T> {
    fn is_of(&self, key: impl Number) -> bool {
        self.number == key.number() && self.number != 0
    }
}

impl<K, T: Default> Default for Recent<K, T> {
    fn default() -> Self {
        Self { ring: Vec::new(), old: Map::default(), gone: T::default(), used: 0 }
    }
}

impl<K: Number, T: Default> Recent<K, T> {
    fn place(&self, key: K) -> usize {
        let mask = self.ring.len().wrapping_sub(1) as u64;
        usize::try_from(key.number() & mask).unwrap_or(0)
    }

    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    /// Makes an entry for a number that is not there. It holds what an earlier one has left behind.
    pub(crate) fn open(&mut self, key: K) -> &mut T {
        // At most half full, so that only what outstays its time is in anybody's way.
        if self.used * 2 >= self.ring.len() {
            self.grow();
        }
        self.used += 1;
        let at = self.place(key);
        let place = &mut self.ring[at];
        if place.number != 0 {
            self.put_by(at);
        }
        let place = &mut self.ring[at];
        place.number = key.number();
        &mut place.value
    }

    /// Makes room for a younger one.
    #[cold]
    fn put_by(&mut self, at: usize) {
        let place = &mut self.ring[at];
        self.old.insert(K::new(place.number), core::mem::take(&mut place.value));
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.ring.len() * 2).max(LEAST);
        let free = || Place { number: 0, value: T::default() };
        let ring = core::mem::replace(&mut self.ring, core::iter::repeat_with(free).take(size).collect());
        for place in ring.into_iter().filter(|place| place.number != 0) {
            let at = self.place(K::new(place.number));
            // Numbers that differ modulo the old size differ modulo the new one.
            self.ring[at] = place;
        }
    }

    pub(crate) fn get(&self, key: K) -> Option<&T> {
        match self.ring.get(self.place(key)) {
            Some(place) if place.is_of(key) => Some(&place.value),
            Some(_) | None => self.get_old(key),
        }
    }

    #[cold]
    fn get_old(&self, key: K) -> Option<&T> {
        self.old.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let at = self.place(key);
        if !self.ring.get(at).is_some_and(|place| place.is_of(key)) {
            return self.get_old_mut(key);
        }
        Some(&mut self.ring[at].value)
    }

    #[cold]
    fn get_old_mut(&mut self, key: K) -> Option<&mut T> {
        self.old.get_mut(&key)
    }

    /// Forgets an entry, and shows for the last time what it holds.
    pub(crate) fn close(&mut self, key: K) -> Option<&mut T> {
        let at = self.place(key);
        if !self.ring.get(at).is_some_and(|place| place.is_of(key)) {
            return self.close_old(key);
        }
        self.used -= 1;
        let place = &mut self.ring[at];
        place.number = 0;
        Some(&mut place.value)
    }

    #[cold]
    fn close_old(&mut self, key: K) -> Option<&mut T> {
        self.gone = self.old.remove(&key)?;
        self.used -= 1;
        Some(&mut self.gone)
    }

    /// All entries, by their numbers.
    pub(crate) fn sorted(&self) -> Vec<(K, &T)> {
        let ring = self.ring.iter().filter(|place| place.number != 0);
        let mut all: Vec<(K, &T)> = ring.map(|place| (K::new(place.number), &place.value)).collect();
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
        fn new(number: u64) -> Self {
            number
        }

        fn number(self) -> u64 {
            self
        }
    }

    #[test]
    fn it_is_a_map_for_any_mix_of_short_and_long_stays() {
        let (mut table, mut map) = (Recent::default(), BTreeMap::new());
        for number in 1..20_000_u64 {
            *table.open(number) = number * 3;
            map.insert(number, number * 3);
            // One in seven stays for thousands of rounds, the others for a few.
            for gone in [number.saturating_sub(5), number.saturating_sub(3_000)] {
                if gone % 7 != 0 || gone + 3_000 == number {
                    assert_eq!(table.close(gone).copied(), map.remove(&gone));
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
