//! Stores and copies on atomic words, and the small sequence-locked record that several parts use. Owns the memory
//! ordering of those; must never know which part calls. Read `track_log.rs` next.
//!
//! A sequence lock: the writer makes the lock odd, writes, makes it even again; a reader that saw one even value before
//! and after its copy has a whole copy. A writer that dies in between leaves it odd, and its successor goes on from there.

use std::sync::atomic::Ordering;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{AtomicU64, fence, spin_loop};

/// Tries of a reader of a small record. They take longer than any writer, unless the writer died.
const TRIES: usize = if cfg!(modelled) { 2 } else { 64 };

/// Stores a word. Every store of a protocol goes through here, so that a test can end a writer before any of them.
#[inline]
pub(crate) fn put(word: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(all(test, not(modelled)))]
    crash::step();
    word.store(value, order);
}

/// Begins a write under the lock.
#[inline]
pub(crate) fn lock(word: &AtomicU64) -> u64 {
    let writing = word.load(Relaxed).wrapping_add(1) | 1;
    // A reader that finds it locked also sees what was stored before.
    put(word, writing, Release);
    // No store below may be seen before the lock is odd.
    fence(Release);
    writing
}

/// Ends the write that `lock` began.
#[inline]
pub(crate) fn unlock(word: &AtomicU64, writing: u64) {
    put(word, writing.wrapping_add(1), Release);
}

/// The lock's value when a read may begin; `None` during a write.
#[inline]
pub(crate) fn stable(word: &AtomicU64) -> Option<u64> {
    let value = word.load(Acquire);
    (value & 1 == 0).then_some(value)
}

/// True when everything that was read since `stable` returned `before` belongs together.
#[inline]
pub(crate) fn unchanged(word: &AtomicU64, before: u64) -> bool {
    // No load above may be satisfied after this one.
    fence(Acquire);
    word.load(Relaxed) == before
}

/// Writes a record of `1 + N` words: the lock, then the fields.
pub(crate) fn write_record<const N: usize>(words: &[AtomicU64], fields: [u64; N]) {
    let writing = lock(&words[0]);
    for (word, field) in words[1..=N].iter().zip(fields) {
        put(word, field, Relaxed);
    }
    unlock(&words[0], writing);
}

/// Reads what `write_record` wrote; `None` when its writer died in the middle.
pub(crate) fn read_record<const N: usize>(words: &[AtomicU64]) -> Option<[u64; N]> {
    for _ in 0..TRIES {
        if let Some(before) = stable(&words[0]) {
            let fields = std::array::from_fn(|i| words[1 + i].load(Relaxed));
            if unchanged(&words[0], before) {
                return Some(fields);
            }
        }
        spin_loop();
    }
    None
}

/// Copies bytes in; the last word is filled up with zeros.
#[inline]
pub(crate) fn put_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let words = &words[..bytes.len().div_ceil(8)];
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (word, chunk) in words.iter().zip(chunks) {
        put(word, u64::from_le_bytes(*chunk), Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        put(&words[chunks.len()], u64::from_le_bytes(last), Relaxed);
    }
}

/// Copies bytes out.
#[inline]
pub(crate) fn get_bytes(words: &[AtomicU64], bytes: &mut [u8]) {
    let words = &words[..bytes.len().div_ceil(8)];
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    let whole = chunks.len();
    for (word, chunk) in words.iter().zip(chunks) {
        *chunk = word.load(Relaxed).to_le_bytes();
    }
    if !rest.is_empty() {
        rest.copy_from_slice(&words[whole].load(Relaxed).to_le_bytes()[..rest.len()]);
    }
}

/// Ends a writer before its n-th store, as a kill would.
#[cfg(all(test, not(modelled)))]
pub(crate) mod crash {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    thread_local! {
        static STORES_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    struct Killed;

    pub(crate) fn step() {
        STORES_LEFT.with(|left| match left.get() {
            Some(0) => {
                left.set(None);
                std::panic::resume_unwind(Box::new(Killed));
            }
            Some(n) => left.set(Some(n - 1)),
            None => {}
        });
    }

    /// Runs `write`, which may make `stores` stores; true when it finished.
    pub(crate) fn after(stores: u32, write: impl FnOnce()) -> bool {
        STORES_LEFT.with(|left| left.set(Some(stores)));
        let finished = catch_unwind(AssertUnwindSafe(write));
        STORES_LEFT.with(|left| left.set(None));
        match finished {
            Ok(()) => true,
            Err(cause) if cause.is::<Killed>() => false,
            Err(cause) => std::panic::resume_unwind(cause),
        }
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use super::*;

    fn words<const N: usize>() -> [AtomicU64; N] {
        std::array::from_fn(|_| AtomicU64::new(0))
    }

    #[test]
    fn bytes_of_every_length_come_back() {
        let words = words::<4>();
        for len in 0..=32 {
            let bytes: Vec<u8> = (1..=len).collect();
            put_bytes(&words, &bytes);
            let mut back = vec![0; usize::from(len)];
            get_bytes(&words, &mut back);
            assert_eq!(back, bytes);
        }
    }

    #[test]
    fn a_record_whose_writer_dies_at_any_store_is_old_new_or_absent_and_can_be_written_again() {
        for stores in 0..=5 {
            let words = words::<4>();
            write_record(&words, [1, 1, 1]);
            let finished = crash::after(stores, || write_record(&words, [2, 2, 2]));
            let seen = read_record::<3>(&words);
            assert!(
                matches!((stores, seen), (0, Some([1, 1, 1])) | (1..=4, None) | (5, Some([2, 2, 2]))),
                "{stores}: {seen:?}"
            );
            assert_eq!(finished, stores == 5);
            write_record(&words, [3, 3, 3]);
            assert_eq!(read_record(&words), Some([3, 3, 3]));
        }
    }
}
