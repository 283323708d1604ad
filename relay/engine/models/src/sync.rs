//! The atomics of a model: those of `arena/src/sync.rs`, simulated by the explorer. Owns nothing but the names.
//! Must never know a protocol. Read `explore.rs` next.

use std::sync::atomic::Ordering;

pub(crate) use explore::fence;

#[path = "explore.rs"]
pub mod explore;
#[path = "memory.rs"]
mod memory;

/// A word of the execution that is under way.
#[derive(Debug)]
pub(crate) struct AtomicU64(usize);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> AtomicU64 {
        AtomicU64(explore::new_word(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        explore::load(self.0, order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        explore::store(self.0, value, order);
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        explore::modify(self.0, |_| value, order)
    }

    pub(crate) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        explore::modify(self.0, |before| before | bits, order)
    }

    pub(crate) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        explore::modify(self.0, |before| before & bits, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        expected: u64,
        value: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        explore::compare_exchange(self.0, expected, value, success, failure)
    }
}

/// Does nothing: tries are counted, so waiting would not help.
pub(crate) fn spin_loop() {}
