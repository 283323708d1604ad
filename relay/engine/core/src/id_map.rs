//! Maps by numbers that the control plane chose: ids, which are random or counted, and track logs. Owns their hash; must never be used
//! for what a stranger chooses, such as addresses and ufrags, which keep the standard library's keyed hash. Read `engine/mod.rs` next.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// 2^64 divided by the golden ratio (Knuth, volume 3, section 6.4): neighbours end up far apart.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One multiplication.
#[derive(Clone, Copy, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, id: u64) {
        // A map uses the low bits for the bucket and the high ones for the check. Only the high ones depend on all of the id.
        let mixed = id.wrapping_mul(GOLDEN);
        self.0 = mixed ^ mixed.swap_bytes();
    }

    fn write_u32(&mut self, id: u32) {
        self.write_u64(id.into());
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_ids_of_any_stride_spread_over_a_table() {
        for stride in [1, 2, 64, 1 << 16, 1 << 32, 1 << 56] {
            let low = |id: u64| {
                let mut hasher = IdHasher::default();
                hasher.write_u64(id * stride);
                hasher.finish() % 128
            };
            let mut load = [0; 128];
            (0..256).for_each(|id| load[low(id) as usize] += 1);
            assert!(load.iter().all(|load| *load <= 16), "stride {stride}: {load:?}");
        }
    }
}
