//! Hash tables for look-ups only: their order is never read.

use core::hash::{BuildHasherDefault, Hasher};

use crate::rng::mix;

/// Ids are numbers already; mixing them is enough.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }
}

pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<IdHasher>>;
