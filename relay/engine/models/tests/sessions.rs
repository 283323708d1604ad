//! Session records and the words beside them. Promised: while one write goes on, and wherever it is killed, a reader finds the
//! record before or after it, whole; a first write that is killed leaves a record that is known to be lost; the successor can write
//! again. A word beside the record is seen only with all stores before it: an index is never behind its packets.
//!
//! Seen to be noticed: a write into the newer copy; a word stored Relaxed.

use millrace_arena::Arena;
use millrace_arena::explore::{mortal, spawn};

use super::{PARAMETERS, every_way};

const OLD: [u8; 20] = [1; 20];
const NEW: [u8; 11] = [2; 11];
const NEXT: [u8; 9] = [3; 9];

/// After `earlier` writes each copy has been written or not.
fn replace(earlier: usize) {
    every_way(move || {
        let arena = Arena::in_memory(PARAMETERS);
        (0..earlier).for_each(|_| assert!(arena.session(0).write(&OLD)));
        let writing = arena.clone();
        let writer = spawn(move || mortal(|| writing.session(0).write(&NEW)));
        let seen = arena.session(0).read().expect("one copy is always whole");
        assert!(seen == OLD || seen == NEW, "{seen:?}");
        let written = writer.join().is_some();
        // The successor.
        let record = arena.session(0);
        let found = record.read().expect("one copy is always whole");
        assert_eq!(found, if written { &NEW[..] } else { &OLD[..] });
        assert!(record.write(&NEXT));
        assert_eq!(record.read().as_deref(), Some(&NEXT[..]));
        assert!(record.write(&OLD) && !record.is_torn());
    });
}

#[test]
fn a_record_is_replaced_whole_the_second_time() {
    replace(1);
}

#[test]
fn a_record_is_replaced_whole_the_third_time() {
    replace(2);
}

#[test]
fn a_first_record_is_there_whole_or_lost_and_told_from_a_clear_one() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        let begun = arena.clone();
        let writer = spawn(move || mortal(|| begun.session(0).write(&NEW)).is_some());
        let seen = arena.session(0).read();
        assert!(seen.is_none_or(|seen| seen == NEW));
        let written = writer.join();
        let record = arena.session(0);
        assert_eq!(record.read().is_some(), written);
        assert!(!(written && record.is_torn()));
        record.clear();
        assert!(record.read().is_none() && !record.is_torn());
    });
}

#[test]
fn a_word_is_seen_with_everything_that_was_put_before_it() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        let writing = arena.clone();
        let writer = spawn(move || {
            mortal(|| {
                let words = writing.session_words(0);
                words.put_all(0, [1, 1]);
                words.put(0, 2);
                words.put(1, 2);
            })
        });
        let words = arena.session_words(0);
        let second = words.get(1);
        assert!(words.get(0) >= second);
        writer.join();
        let second = words.get(1);
        assert!(words.get(0) >= second && words.get(0) <= second + 1);
    });
}
