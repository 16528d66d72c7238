//! Hash tables for look-ups only: their order is never read.

use core::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use crate::rng::mix;

/// Ids are numbers already; mixing them is enough.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

macro_rules! numbers {
    ($($name:ident($number:ty);)*) => {$(
        fn $name(&mut self, number: $number) {
            self.write_u64(u64::from(number));
        }
    )*};
}

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    numbers! {
        write_u8(u8);
        write_u16(u16);
        write_u32(u32);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }
}

pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// The hash under which a [`hashbrown::HashTable`] of places finds `key`.
pub(crate) fn hash_of(key: &impl Hash) -> u64 {
    BuildHasherDefault::<IdHasher>::default().hash_one(key)
}
