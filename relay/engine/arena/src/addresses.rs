//! Which slot owns which client address: the table that says whose a datagram is when it reaches the wrong worker. Owns
//! a fixed hash table that many processes write without locks; must never know why an address belongs to a slot.
//! Read `handover.rs` next.
//!
//! An address lies in one of the `WINDOW` cells after its hash, and a search looks at all of them, so removal leaves no
//! tombstones. A cell is `version << 16 | slot << 8 | state`, then the address in three words. The version moves with
//! every change, so a compare-and-swap or a second look notices any. A writer that dies while its cell is `BUSY`
//! leaves it to `remove_slot`, which its successor calls.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::endpoint;
use crate::layout::ADDRESS_STRIDE;
use crate::words::put;

const CELL_WORDS: usize = (ADDRESS_STRIDE / 8) as usize;
/// Long enough that a table filled to a half practically never refuses, short enough to read in a microsecond.
const WINDOW: usize = 16;
/// How often a change starts again when other writers got in between.
const TRIES: usize = 8;

const FREE: u64 = 0;
const BUSY: u64 = 1;
const READY: u64 = 2;

#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    words: &'a [AtomicU64],
    seed: u64,
}

/// A look at one cell.
struct Seen<'a> {
    cell: &'a [AtomicU64],
    state: u64,
}

impl<'a> Addresses<'a> {
    pub(crate) fn new(words: &'a [AtomicU64], seed: u64) -> Addresses<'a> {
        Addresses { words, seed }
    }

    /// Makes `slot` the owner, whoever was before. False when there is no room near the address's place.
    pub fn insert(&self, socket: u8, remote: SocketAddr, slot: u8) -> bool {
        let key = endpoint::pack(socket, &remote);
        for _ in 0..TRIES {
            if let Some(seen) = self.seek(key) {
                if slot_of(seen.state) == slot || seen.change(slot, READY) {
                    return true;
                }
                continue;
            }
            let Some(free) = self.window(key).map(Seen::look).find(|seen| state_of(seen.state) == FREE) else {
                return false;
            };
            if free.claim(key, slot) {
                self.settle(key, slot);
                return true;
            }
        }
        false
    }

    /// The owner of an address.
    pub fn find(&self, socket: u8, remote: &SocketAddr) -> Option<u8> {
        self.seek(endpoint::pack(socket, remote)).map(|seen| slot_of(seen.state))
    }

    /// Forgets an address, if it is `slot`'s.
    pub fn remove(&self, socket: u8, remote: &SocketAddr, slot: u8) {
        let key = endpoint::pack(socket, remote);
        for _ in 0..TRIES {
            match self.seek(key) {
                Some(seen) if slot_of(seen.state) == slot => seen.change(slot, FREE),
                _ => return,
            };
        }
    }

    /// Forgets all of a slot's addresses, and mends what its dead worker left half done. No worker of that slot may be
    /// writing.
    pub fn remove_slot(&self, slot: u8) {
        for cell in self.words.chunks_exact(CELL_WORDS) {
            let seen = Seen::look(cell);
            if state_of(seen.state) != FREE && slot_of(seen.state) == slot {
                seen.change(slot, FREE);
            }
        }
    }

    /// After a claim: two writers may have claimed a cell each for one address. Both then agree on the first.
    fn settle(&self, key: [u64; 3], slot: u8) {
        let mut first = true;
        for cell in self.window(key) {
            let seen = Seen::look(cell);
            if !seen.holds(key) {
                continue;
            }
            if !first {
                seen.change(slot_of(seen.state), FREE);
            } else if slot_of(seen.state) == slot || seen.change(slot, READY) {
                first = false;
            }
        }
    }

    fn seek(&self, key: [u64; 3]) -> Option<Seen<'a>> {
        self.window(key).map(Seen::look).find(|seen| seen.holds(key))
    }

    fn window(&self, key: [u64; 3]) -> impl Iterator<Item = &'a [AtomicU64]> + use<'a> {
        let (words, cells) = (self.words, self.words.len() / CELL_WORDS);
        let start = hash(key, self.seed) as usize;
        (0..WINDOW).map(move |i| {
            let cell = start.wrapping_add(i) % cells * CELL_WORDS;
            &words[cell..cell + CELL_WORDS]
        })
    }
}

impl<'a> Seen<'a> {
    fn look(cell: &'a [AtomicU64]) -> Seen<'a> {
        Seen { cell, state: cell[0].load(Acquire) }
    }

    /// Whether the cell, as it was seen, holds this address.
    fn holds(&self, key: [u64; 3]) -> bool {
        let same = state_of(self.state) == READY
            && self.cell[1..].iter().zip(key).all(|(word, part)| word.load(Relaxed) == part);
        // A writer that reused the cell meanwhile moved its version before it touched the address.
        fence(Acquire);
        same && self.cell[0].load(Relaxed) == self.state
    }

    /// Changes owner or state without touching the address; false when somebody else changed the cell first.
    fn change(&self, slot: u8, state: u64) -> bool {
        #[cfg(test)]
        crate::words::crash::step();
        self.cell[0].compare_exchange(self.state, after(self.state, slot, state), AcqRel, Relaxed).is_ok()
    }

    /// Takes a free cell for an address.
    fn claim(&self, key: [u64; 3], slot: u8) -> bool {
        if !self.change(slot, BUSY) {
            return false;
        }
        let busy = after(self.state, slot, BUSY);
        fence(Release);
        for (word, part) in self.cell[1..].iter().zip(key) {
            put(word, part, Relaxed);
        }
        put(&self.cell[0], after(busy, slot, READY), Release);
        true
    }
}

fn state_of(word: u64) -> u64 {
    word & 0xff
}

fn slot_of(word: u64) -> u8 {
    (word >> 8) as u8
}

/// The word that follows `word`, one version on.
fn after(word: u64, slot: u8, state: u64) -> u64 {
    ((word >> 16).wrapping_add(1) << 16) | u64::from(slot) << 8 | state
}

/// Seeded, so that a stranger cannot choose addresses that crowd one window. The multipliers are those of the
/// MurmurHash3 finaliser.
fn hash(key: [u64; 3], seed: u64) -> u64 {
    key.iter().fold(seed, |mixed, part| {
        let mixed = (mixed ^ part).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^ mixed >> 33
    })
}
