//! Places that are used again, in chunks: it grows without moving what is there, and never doubles.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::HashTable;

/// The end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// Places in a chunk, as a power of two: few, so that a small engine is small.
const BITS: u32 = 6;
const CHUNK: usize = 1 << BITS;

#[derive(Clone, Debug)]
enum Place<T> {
    Used(T),
    Free(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[Place<T>; CHUNK]>>,
    /// The first of the places that were used before.
    free: u32,
    /// The first place that was never used.
    fresh: u32,
    pub(crate) used: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE, fresh: 0, used: 0 }
    }
}

const fn split(at: u32) -> (usize, usize) {
    ((at >> BITS) as usize, at as usize % CHUNK)
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let at = self.next();
        let (chunk, place) = split(at);
        if chunk == self.chunks.len() {
            self.chunks.push(Box::new(core::array::from_fn(|_| Place::Free(NONE))));
        }
        let Some(chunk) = self.chunks.get_mut(chunk) else { return NONE };
        match chunk[place] {
            Place::Free(next) if at == self.free => self.free = next,
            Place::Free(_) | Place::Used(_) => self.fresh += 1,
        }
        chunk[place] = Place::Used(value);
        self.used += 1;
        at
    }

    /// The place that the next value is put into.
    pub(crate) const fn next(&self) -> u32 {
        if self.free == NONE { self.fresh } else { self.free }
    }

    /// Frees a place; returns whether it was used.
    pub(crate) fn remove(&mut self, at: u32) -> bool {
        let (chunk, place) = split(at);
        let Some(chunk) = self.chunks.get_mut(chunk) else { return false };
        if matches!(chunk[place], Place::Free(_)) {
            return false;
        }
        chunk[place] = Place::Free(self.free);
        self.free = at;
        self.used -= 1;
        true
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        let (chunk, place) = split(at);
        match &self.chunks.get(chunk)?[place] {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let (chunk, place) = split(at);
        match &mut self.chunks.get_mut(chunk)?[place] {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// Frees what is idle, and takes it out of the `index` of places, once that is most of all: then it has paid for the
    /// looking. Returns how many are idle still, of the `idle` that were.
    pub(crate) fn tidy(&mut self, index: &mut HashTable<u32>, idle: u32, is_idle: impl Fn(&T) -> bool) -> u32 {
        if idle <= self.used / 2 + 64 {
            return idle;
        }
        index.retain(|at| {
            let goes = self.get(*at).is_some_and(&is_idle);
            if goes {
                self.remove(*at);
            }
            !goes
        });
        0
    }

    /// The places that are used.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u32, &T)> {
        let places = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..).zip(places).filter_map(|(at, place)| match place {
            Place::Used(value) => Some((at, value)),
            Place::Free(_) => None,
        })
    }

    /// The size of a place in bytes.
    #[cfg(test)]
    pub(crate) const fn bytes_a_place() -> usize {
        size_of::<Place<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn places_are_used_again_and_stay_where_they_are() {
        let mut slab = Slab::default();
        let at: Vec<u32> = (0..10_000_u32).map(|number| slab.insert(number)).collect();
        for gone in at.iter().filter(|at| *at % 3 == 0) {
            assert!(slab.remove(*gone));
            assert!(!slab.remove(*gone));
        }
        assert_eq!(slab.used, 6_666);
        assert!((0..3_334).all(|number| slab.insert(number) < 10_000), "free places first");
        assert_eq!(slab.insert(7), 10_000);
        assert!(at.iter().filter(|at| *at % 3 != 0).all(|at| slab.get(*at) == Some(at)));
        assert_eq!(slab.places().count(), 10_001);
        assert_eq!(slab.get(NONE), None);
        assert_eq!(slab.get_mut(20_000), None);
    }
}
