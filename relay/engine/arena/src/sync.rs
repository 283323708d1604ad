//! The atomics of the protocols: here the processor's. The package `models` is this crate once more, with a file of its own in place of
//! this one. Must never hold anything else. Read `words.rs` next.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicU64, fence};
