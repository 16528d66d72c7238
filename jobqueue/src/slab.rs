//! Places that are used again, in chunks: it grows without moving what is there, and never doubles.

use alloc::vec::Vec;

/// The end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// Places in a chunk, as a power of two.
const BITS: u32 = 12;
const CHUNK: usize = 1 << BITS;

#[derive(Clone, Debug)]
enum Place<T> {
    Used(T),
    Free(u32),
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<Place<T>>>,
    free: u32,
    pub(crate) used: u32,
}

impl<T: Clone> Clone for Slab<T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), free: self.free, used: self.used }
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE, used: 0 }
    }
}

const fn split(at: u32) -> (usize, usize) {
    ((at >> BITS) as usize, at as usize & (CHUNK - 1))
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        let at = self.free;
        if at != NONE {
            let (chunk, place) = split(at);
            let place = &mut self.chunks[chunk][place];
            if let Place::Free(next) = place {
                self.free = *next;
            }
            *place = Place::Used(value);
            return at;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first grows as it must, so that a small engine is small.
            let whole = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(whole));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let Some(last) = self.chunks.last_mut() else { return NONE };
        last.push(Place::Used(value));
        u32::try_from(full + last.len() - 1).unwrap_or(NONE)
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let (chunk, place) = split(at);
        let place = self.chunks.get_mut(chunk)?.get_mut(place)?;
        if matches!(place, Place::Free(_)) {
            return None;
        }
        let Place::Used(value) = core::mem::replace(place, Place::Free(self.free)) else { return None };
        self.free = at;
        self.used -= 1;
        Some(value)
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        let (chunk, place) = split(at);
        match self.chunks.get(chunk)?.get(place) {
            Some(Place::Used(value)) => Some(value),
            Some(Place::Free(_)) | None => None,
        }
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let (chunk, place) = split(at);
        match self.chunks.get_mut(chunk)?.get_mut(place) {
            Some(Place::Used(value)) => Some(value),
            Some(Place::Free(_)) | None => None,
        }
    }

    /// The places that are used.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u32, &T)> {
        let places = self.chunks.iter().flatten();
        (0..).zip(places).filter_map(|(at, place)| match place {
            Place::Used(value) => Some((at, value)),
            Place::Free(_) => None,
        })
    }

    /// What a place takes.
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
            assert_eq!(slab.remove(*gone), Some(*gone));
            assert_eq!(slab.remove(*gone), None);
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
