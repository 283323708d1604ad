//! The owner of each session record: one word a record, all of them side by side, so that a successor finds its own records
//! without touching another slot's. Owns the states of that word; must never know what a record says. Read `sessions.rs` next.
//!
//! ```text
//!            claim                  begin_move                   end_move, by A or by B
//!   nobody ────────► owned by A ────────────────► moving from A to B ────────────────► owned by that slot
//!      ▲   free          │ ▲                            │ refuse_move, by B
//!      └─────────────────┘ └────────────────────────────┘
//! ```
//! Each arrow is one store or one compare-and-swap. So a death leaves a record with one owner, or moving between two slots. Both
//! of these look at it then, and one of them gets it.
//!
//! A record belongs to the slot that first claimed it. It is lent while its session is elsewhere; when that session is over, only
//! the first slot claims it again.

use std::fmt;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::AtomicU64;
use crate::words::put;

/// A record's word is `owner + 1`; while it moves, `target + 1` and `(source + 1) << 8`; zero when it has no owner.
const SOURCE: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    Slot(u8),
    /// Of the two, the first that ends the move is the owner.
    Moving {
        source: u8,
        target: u8,
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

    /// Makes a record without an owner the slot's. To be called by the slot in whose range the record lies.
    pub fn claim(&self, record: u32, slot: u8) {
        put(self.word(record), encode(Owner::Slot(slot)), Release);
    }

    /// Makes the record nobody's. To be called by its owner, once the record is clear.
    pub fn free(&self, record: u32) {
        put(self.word(record), encode(Owner::Nobody), Release);
    }

    /// Offers the record to `target`. To be called by its owner `source`, which uses the session no more.
    pub fn begin_move(&self, record: u32, source: u8, target: u8) {
        put(self.word(record), encode(Owner::Moving { source, target }), Release);
    }

    /// Makes a moving record the slot's, which is its source or its target. False when it does not move, or no longer.
    pub fn end_move(&self, record: u32, slot: u8) -> bool {
        match self.of(record) {
            moving @ Owner::Moving { source, target } if source == slot || target == slot => {
                self.change(record, moving, Owner::Slot(slot))
            }
            _ => false,
        }
    }

    /// Returns a record that moves to `slot` to its source. False when it does not move there, or no longer.
    pub fn refuse_move(&self, record: u32, slot: u8) -> bool {
        match self.of(record) {
            moving @ Owner::Moving { source, target } if target == slot => {
                self.change(record, moving, Owner::Slot(source))
            }
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
        Owner::Moving { source, target } => one_based(target) | one_based(source) << SOURCE,
    }
}

fn decode(word: u64) -> Owner {
    let slot = |part: u64| ((part & 0xff) as u8).checked_sub(1);
    match (slot(word), slot(word >> SOURCE)) {
        (None, _) => Owner::Nobody,
        (Some(owner), None) => Owner::Slot(owner),
        (Some(target), Some(source)) => Owner::Moving { source, target },
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use std::thread;

    use super::*;
    use crate::words::crash;
    use crate::{Arena, Parameters};

    #[test]
    fn a_record_moves_from_slot_to_slot_and_home() {
        let arena = Arena::in_memory(Parameters::TINY);
        let owners = arena.owners();
        assert_eq!(owners.of(5), Owner::Nobody);
        owners.claim(5, 1);
        assert!(!owners.end_move(5, 2) && !owners.end_move(5, 1), "it does not move");
        owners.begin_move(5, 1, 0);
        assert_eq!(owners.of(5), Owner::Moving { source: 1, target: 0 });
        assert!(!owners.end_move(5, 2) && !owners.refuse_move(5, 1), "a third slot, and the source itself");
        assert!(owners.end_move(5, 0) && !owners.end_move(5, 1));
        assert_eq!(owners.of(5), Owner::Slot(0));
        owners.begin_move(5, 0, 3);
        assert!(owners.refuse_move(5, 3) && !owners.end_move(5, 3));
        assert_eq!(owners.of(5), Owner::Slot(0));
        owners.begin_move(5, 0, 3);
        assert!(owners.end_move(5, 0), "the source may take it back");
        owners.free(5);
        assert_eq!((owners.of(5), owners.of(4), owners.of(6)), (Owner::Nobody, Owner::Nobody, Owner::Nobody));
    }

    #[test]
    fn a_source_or_target_that_dies_at_any_store_leaves_one_owner() {
        for stores in 0..=3 {
            let arena = Arena::in_memory(Parameters::TINY);
            let owners = arena.owners();
            owners.claim(0, 1);
            crash::after(stores, || {
                owners.begin_move(0, 1, 2);
                owners.end_move(0, 2);
            });
            let owners_after =
                [1, 2].into_iter().filter(|slot| owners.end_move(0, *slot) || owners.of(0) == Owner::Slot(*slot));
            assert_eq!(owners_after.count(), 1, "after {stores} stores");
        }
    }

    #[test]
    fn of_two_that_end_a_move_at_once_one_has_the_record() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        let arena = Arena::in_memory(Parameters::TINY);
        for round in 0..rounds {
            let record = round % 16;
            arena.owners().begin_move(record, 1, 2);
            let other = arena.clone();
            let [first, second] = if round % 256 == 0 || cfg!(miri) {
                let ended = thread::spawn(move || other.owners().end_move(record, 2));
                [arena.owners().end_move(record, 1), ended.join().expect("no panic")]
            } else {
                [other.owners().end_move(record, 2), arena.owners().end_move(record, 1)]
            };
            assert!(first != second);
        }
    }

    #[test]
    fn a_word_says_the_same_to_every_reader() {
        for owner in [Owner::Nobody, Owner::Slot(0), Owner::Slot(63), Owner::Moving { source: 0, target: 63 }] {
            assert_eq!(decode(encode(owner)), owner);
        }
    }
}
