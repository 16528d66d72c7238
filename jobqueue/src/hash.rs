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

/// The hash under which an index of rows finds an id.
///
/// Ids mostly count up, and what came together is mostly wanted together: sixteen neighbours share a line of the
/// table's places, and differ in the seven bits that the table compares first. Blocks of neighbours are scattered, so
/// no other pattern of ids costs more than chance would.
pub(crate) const fn near(id: u64) -> u64 {
    ((mix(id >> 4) & !15) | (id & 15)) ^ (id << 57)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn neighbours_share_a_block_and_no_pattern_of_ids_crowds() {
        let block = |id: u64| near(id) & 0xffff_fff0;
        assert!((0..16).all(|id| block(id) == block(0)));
        assert_eq!((0..16).map(|id| near(id) >> 57).collect::<BTreeSet<u64>>().len(), 16);
        for step in [1_u64, 7, 16, 1 << 12, 1 << 20, 1 << 40, 1 << 48] {
            let mut crowd = alloc::vec![0_u32; 1 << 12];
            for number in 0..1_u64 << 15 {
                let place = near(number.wrapping_mul(step)) >> 4 & 0xfff;
                crowd[usize::try_from(place).unwrap()] += 1;
            }
            let most = crowd.iter().max().unwrap();
            // Eight to a place on average, and sixteen at once where neighbours are.
            assert!(*most <= 8 * 16, "step {step}: {most} in one place");
        }
    }
}
