//! The atomics that the protocols are written in: here the processor's. In the package `models`, which is this crate once
//! more, a file of that package takes this one's place. Must never hold anything else. Read `words.rs` next.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicU64, fence};
