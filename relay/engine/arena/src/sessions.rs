//! A session's lasting record: a few hundred opaque bytes from which a successor adopts it. Owns the record's two copies and their
//! checksums; must never know what the bytes say. Read `owners.rs` next.
//!
//! Each write goes into the older copy, so a writer that dies in the middle leaves the record as it was before.
//! A copy is `lock, number, len, checksum, 4 spare words`, then the bytes. The number grows with every write; a record
//! whose newest copy has no bytes is clear. Beside it lie words for what changes with every packet: each is whole at any
//! moment, and is seen to change in the order of the stores.

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::Arena;
use crate::layout::{SESSION_COPY_HEADER, SESSION_WORDS};
use crate::prefetch::prefetch;
use crate::sync::AtomicU64;
use crate::words::{get_bytes, lock, put, put_bytes, stable, unchanged, unlock};

const LOCK: usize = 0;
const NUMBER: usize = 1;
const LEN: usize = 2;
const CHECKSUM: usize = 3;
const BYTES: usize = (SESSION_COPY_HEADER / 8) as usize;

#[derive(Clone, Copy, Debug)]
pub struct SessionRecord<'a> {
    copies: [&'a [AtomicU64]; 2],
}

impl<'a> SessionRecord<'a> {
    pub(crate) fn new(words: &'a [AtomicU64]) -> SessionRecord<'a> {
        let (first, second) = words.split_at(words.len() / 2);
        SessionRecord { copies: [first, second] }
    }

    /// How many bytes fit.
    pub fn capacity(&self) -> usize {
        (self.copies[0].len() - BYTES) * 8
    }

    /// Replaces the record. To be called by its owner alone. False when the bytes do not fit.
    pub fn write(&self, bytes: &[u8]) -> bool {
        if bytes.len() > self.capacity() {
            return false;
        }
        let numbers = self.copies.map(|copy| read_copy(copy, &mut Vec::new()).unwrap_or(0));
        let (older, number) = if numbers[0] <= numbers[1] { (0, numbers[1] + 1) } else { (1, numbers[0] + 1) };
        let copy = self.copies[older];
        let writing = lock(&copy[LOCK]);
        // Clears what the copy held beyond the new bytes, while its length is known: no keys are left behind, and a page that was
        // never used is never touched (reading a hole of a memfd costs a page, too).
        let held = (copy[LEN].load(Relaxed) as usize).min(self.capacity()).div_ceil(8);
        for word in copy[BYTES..][..held].iter().skip(bytes.len().div_ceil(8)) {
            put(word, 0, Relaxed);
        }
        put(&copy[NUMBER], number, Relaxed);
        put(&copy[LEN], bytes.len() as u64, Relaxed);
        put(&copy[CHECKSUM], checksum(number, bytes), Relaxed);
        put_bytes(&copy[BYTES..], bytes);
        unlock(&copy[LOCK], writing);
        true
    }

    /// The bytes that were last written whole; `None` when the record is clear.
    pub fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = [Vec::new(), Vec::new()];
        let numbers = [0, 1].map(|i| read_copy(self.copies[i], &mut bytes[i]).unwrap_or(0));
        let [first, second] = bytes;
        let newest = if numbers[0] > numbers[1] { first } else { second };
        (!newest.is_empty()).then_some(newest)
    }

    /// True when a writer died while writing it. Then a record whose `read` is `None` is lost and not clear.
    pub fn is_torn(&self) -> bool {
        self.copies.iter().any(|copy| copy[LOCK].load(Relaxed) != 0 && read_copy(copy, &mut Vec::new()).is_none())
    }

    /// Clears the record.
    pub fn clear(&self) {
        self.write(&[]);
        // The older copy too: no keys are left behind.
        self.write(&[]);
    }
}

/// The words beside one session's record. The record's owner writes them, and its successor reads them.
#[derive(Clone)]
pub struct SessionWords {
    arena: Arena,
    start: u64,
}

impl SessionWords {
    pub(crate) fn new(arena: Arena, start: u64) -> SessionWords {
        SessionWords { arena, start }
    }

    /// Stores a word, after all words that were stored before.
    #[inline]
    pub fn put(&self, at: usize, value: u64) {
        put(&self.words()[at], value, Release);
    }

    /// Stores consecutive words, one after the other.
    #[inline]
    pub fn put_all<const N: usize>(&self, at: usize, values: [u64; N]) {
        for (word, value) in self.words()[at..at + N].iter().zip(values) {
            put(word, value, Release);
        }
    }

    #[inline]
    pub fn get(&self, at: usize) -> u64 {
        self.words()[at].load(Acquire)
    }

    /// Fetches these words, which are stored to soon.
    pub fn prefetch(&self, at: usize, count: usize) {
        prefetch(&self.words()[at..at + count]);
    }

    fn words(&self) -> &[AtomicU64] {
        self.arena.section(self.start, SESSION_WORDS as u64 * 8)
    }
}

impl fmt::Debug for SessionWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionWords").field("start", &self.start).finish_non_exhaustive()
    }
}

/// A copy's number and bytes; `None` when it is torn or was never written.
fn read_copy(copy: &[AtomicU64], bytes: &mut Vec<u8>) -> Option<u64> {
    let before = stable(&copy[LOCK])?;
    let (number, len) = (copy[NUMBER].load(Relaxed), copy[LEN].load(Relaxed) as usize);
    let expected = copy[CHECKSUM].load(Relaxed);
    if len > (copy.len() - BYTES) * 8 {
        return None;
    }
    bytes.resize(len, 0);
    get_bytes(&copy[BYTES..], bytes);
    let whole = unchanged(&copy[LOCK], before) && number > 0 && checksum(number, bytes) == expected;
    if !whole {
        bytes.clear();
    }
    whole.then_some(number)
}

/// FNV-1a over the number and the bytes. It detects a stray write, not an attack.
fn checksum(number: u64, bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let seeded = number.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix);
    bytes.iter().fold(seeded, mix)
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use super::*;
    use crate::words::crash;
    use crate::{Arena, Parameters};

    #[test]
    fn a_record_is_what_was_written_last() {
        let arena = Arena::in_memory(Parameters::TINY);
        let record = arena.session(arena.record(2, 3));
        assert_eq!(record.read(), None);
        for n in 1..=9u8 {
            assert!(record.write(&vec![n; usize::from(n) * 20]));
            assert_eq!(record.read(), Some(vec![n; usize::from(n) * 20]));
        }
        assert!(!record.write(&[0; 257]));
        assert_eq!(arena.session(arena.record(2, 2)).read(), None);
        record.clear();
        assert_eq!(record.read(), None);
        assert!(record.copies.iter().all(|copy| copy[BYTES..].iter().all(|word| word.load(Relaxed) == 0)));
    }

    #[test]
    fn a_writer_that_dies_at_any_store_leaves_the_record_before_or_after() {
        for earlier in 0..3u8 {
            for stores in 0..=10 {
                let arena = Arena::in_memory(Parameters::TINY);
                let record = arena.session(arena.record(0, 0));
                for n in 0..=earlier {
                    assert!(record.write(&[n + 1; 30]));
                }
                let finished = crash::after(stores, || assert!(record.write(&[99; 40])));
                let expected = if finished { vec![99; 40] } else { vec![earlier + 1; 30] };
                assert_eq!(record.read(), Some(expected), "after {stores} stores");
                assert!(record.write(&[100; 50]));
                assert_eq!(record.read(), Some(vec![100; 50]));
            }
        }
    }

    #[test]
    fn a_record_that_never_was_whole_is_told_from_a_clear_one() {
        for stores in 0..=10 {
            let arena = Arena::in_memory(Parameters::TINY);
            let record = arena.session(arena.record(0, 0));
            assert!(!record.is_torn());
            let finished = crash::after(stores, || assert!(record.write(&[7; 30])));
            assert_eq!(record.read().is_some(), finished);
            assert_eq!(record.is_torn(), stores > 0 && !finished, "after {stores} stores");
            record.clear();
            assert!(record.read().is_none() && !record.is_torn());
        }
    }

    #[test]
    fn clearing_that_ends_at_any_store_leaves_the_record_or_none() {
        for stores in 0..30 {
            let arena = Arena::in_memory(Parameters::TINY);
            let record = arena.session(arena.record(0, 0));
            assert!(record.write(&[1; 30]) && record.write(&[2; 30]));
            crash::after(stores, || record.clear());
            assert!(record.read().is_none_or(|bytes| bytes == [2; 30]), "after {stores} stores");
            assert!(record.write(&[3; 30]));
            assert_eq!(record.read(), Some(vec![3; 30]));
        }
    }

    #[test]
    fn the_words_beside_a_record_are_its_own() {
        let arena = Arena::in_memory(Parameters::TINY);
        let words = arena.session_words(arena.record(1, 2));
        words.put(0, 5);
        words.put_all(SESSION_WORDS - 1, [6]);
        assert!(
            arena.session(arena.record(1, 2)).write(&[9; 256]) && arena.session(arena.record(1, 1)).write(&[9; 256])
        );
        let again = arena.session_words(arena.record(1, 2));
        assert_eq!((again.get(0), again.get(1), again.get(SESSION_WORDS - 1)), (5, 0, 6));
        assert_eq!(arena.session_words(arena.record(1, 3)).get(0), 0);
        assert_eq!(arena.session(arena.record(1, 3)).read(), None);
    }

    #[test]
    fn a_stray_write_is_noticed_and_the_copy_before_it_taken() {
        let arena = Arena::in_memory(Parameters::TINY);
        let record = arena.session(arena.record(1, 0));
        assert!(record.write(&[1; 16]));
        assert!(record.write(&[2; 16]));
        record.copies[0][BYTES].fetch_xor(1, Relaxed);
        record.copies[1][BYTES].fetch_xor(1, Relaxed);
        assert_eq!(record.read(), None);
        record.copies[1][BYTES].fetch_xor(1, Relaxed);
        let survivor = record.read().expect("one copy is whole");
        assert!(survivor == [1; 16] || survivor == [2; 16]);
    }
}
