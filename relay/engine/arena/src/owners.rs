//! Whose each session record is: one word a record, all of them side by side, so that a successor looks at its own without
//! touching anybody's record. Owns the states of that word; must never know what a record says. Read `sessions.rs` next.
//!
//! ```text
//!            claim                     give                      take, by either of the two
//!   nobody ────────► owned by A ────────────────► A gave it to B ────────────────► owned by the taker
//!      ▲   free          │ ▲                            │ refuse, by B
//!      └─────────────────┘ └────────────────────────────┘
//! ```
//! Each arrow is one store or one compare-and-swap. So a death leaves a record with one owner, or between two that are both
//! asked to look, and of those one gets it. A record is lent out of the range of the slot that claimed it: only that slot
//! claims it again, once it is nobody's.

use std::fmt;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::AtomicU64;
use crate::words::put;

/// A record's word is `owner + 1`, and `(giver + 1) << 8` while it is given and not taken; zero is nobody's.
const GIVER: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    Slot(u8),
    /// Whoever of the two takes it first has it.
    Given {
        from: u8,
        to: u8,
    },
}

pub struct Owners<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Owners<'a> {
    pub(crate) fn new(words: &'a [AtomicU64]) -> Owners<'a> {
        Owners { words }
    }

    pub fn of(&self, record: u32) -> Owner {
        decode(self.word(record).load(Acquire))
    }

    /// By the slot in whose range the record lies, when it is nobody's.
    pub fn claim(&self, record: u32, slot: u8) {
        put(self.word(record), encode(Owner::Slot(slot)), Release);
    }

    /// By its owner, once the record is clear.
    pub fn free(&self, record: u32) {
        put(self.word(record), encode(Owner::Nobody), Release);
    }

    /// By its owner `from`, who has done with the session and touches it no more.
    pub fn give(&self, record: u32, from: u8, to: u8) {
        put(self.word(record), encode(Owner::Given { from, to }), Release);
    }

    /// Makes a given record the slot's, who gave it or to whom it was given; false when it is not given, or no longer.
    pub fn take(&self, record: u32, slot: u8) -> bool {
        match self.of(record) {
            given @ Owner::Given { from, to } if from == slot || to == slot => {
                self.change(record, given, Owner::Slot(slot))
            }
            _ => false,
        }
    }

    /// Gives a record that was given to the slot, and not taken, back to its giver.
    pub fn refuse(&self, record: u32, slot: u8) -> bool {
        match self.of(record) {
            given @ Owner::Given { from, to } if to == slot => self.change(record, given, Owner::Slot(from)),
            _ => false,
        }
    }

    fn change(&self, record: u32, from: Owner, to: Owner) -> bool {
        #[cfg(all(test, not(modelled)))]
        crate::words::crash::step();
        self.word(record).compare_exchange(encode(from), encode(to), AcqRel, Relaxed).is_ok()
    }

    fn word(&self, record: u32) -> &'a AtomicU64 {
        &self.words[record as usize]
    }
}

impl fmt::Debug for Owners<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owners").field("records", &self.words.len()).finish()
    }
}

fn encode(owner: Owner) -> u64 {
    let one_based = |slot: u8| u64::from(slot) + 1;
    match owner {
        Owner::Nobody => 0,
        Owner::Slot(slot) => one_based(slot),
        Owner::Given { from, to } => one_based(to) | one_based(from) << GIVER,
    }
}

fn decode(word: u64) -> Owner {
    let slot = |part: u64| ((part & 0xff) as u8).checked_sub(1);
    match (slot(word), slot(word >> GIVER)) {
        (None, _) => Owner::Nobody,
        (Some(owner), None) => Owner::Slot(owner),
        (Some(to), Some(from)) => Owner::Given { from, to },
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use std::thread;

    use super::*;
    use crate::words::crash;
    use crate::{Arena, Parameters};

    #[test]
    fn a_record_goes_from_hand_to_hand_and_home() {
        let arena = Arena::in_memory(Parameters::TINY);
        let owners = arena.owners();
        assert_eq!(owners.of(5), Owner::Nobody);
        owners.claim(5, 1);
        assert!(!owners.take(5, 2) && !owners.take(5, 1), "nobody gave it");
        owners.give(5, 1, 0);
        assert_eq!(owners.of(5), Owner::Given { from: 1, to: 0 });
        assert!(!owners.take(5, 2) && !owners.refuse(5, 1), "a third slot, and the giver's word");
        assert!(owners.take(5, 0) && !owners.take(5, 1));
        assert_eq!(owners.of(5), Owner::Slot(0));
        owners.give(5, 0, 3);
        assert!(owners.refuse(5, 3) && !owners.take(5, 3));
        assert_eq!(owners.of(5), Owner::Slot(0));
        owners.give(5, 0, 3);
        assert!(owners.take(5, 0), "whoever gave it may take it back");
        owners.free(5);
        assert_eq!((owners.of(5), owners.of(4), owners.of(6)), (Owner::Nobody, Owner::Nobody, Owner::Nobody));
    }

    #[test]
    fn a_giver_or_taker_that_dies_at_any_store_leaves_one_who_gets_it() {
        for stores in 0..=3 {
            let arena = Arena::in_memory(Parameters::TINY);
            let owners = arena.owners();
            owners.claim(0, 1);
            crash::after(stores, || {
                owners.give(0, 1, 2);
                owners.take(0, 2);
            });
            let takers = [1, 2].into_iter().filter(|slot| owners.take(0, *slot) || owners.of(0) == Owner::Slot(*slot));
            assert_eq!(takers.count(), 1, "after {stores} stores");
        }
    }

    #[test]
    fn of_two_that_take_at_once_one_has_it() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        let arena = Arena::in_memory(Parameters::TINY);
        for round in 0..rounds {
            let record = round % 16;
            arena.owners().give(record, 1, 2);
            let other = arena.clone();
            let [first, second] = if round % 256 == 0 || cfg!(miri) {
                let taken = thread::spawn(move || other.owners().take(record, 2));
                [arena.owners().take(record, 1), taken.join().expect("no panic")]
            } else {
                [other.owners().take(record, 2), arena.owners().take(record, 1)]
            };
            assert!(first != second);
        }
    }

    #[test]
    fn a_word_says_the_same_to_every_reader() {
        for owner in [Owner::Nobody, Owner::Slot(0), Owner::Slot(63), Owner::Given { from: 0, to: 63 }] {
            assert_eq!(decode(encode(owner)), owner);
        }
    }
}
