//! The slot of each client address, and of each ufrag whose session moved away from the slot that made it. A worker looks here for
//! the owner of a datagram that is not its own. Owns a fixed hash table that many processes write without locks; must never know
//! why an address belongs to a slot. Read `handover.rs` next.
//!
//! An address lies in one of the `WINDOW` cells after its hash, and a search looks at all of them, so removal leaves no
//! tombstones. A cell is `version << 16 | slot << 8 | state`, then the address in three words. The version grows with
//! every change, so a compare-and-swap or a second look notices any. A writer that dies while its cell is `BUSY`
//! leaves it to `remove_slot`, which its successor calls.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use crate::endpoint;
use crate::layout::ADDRESS_STRIDE;
use crate::sync::{AtomicU64, fence};
use crate::words::put;

const CELL_WORDS: usize = (ADDRESS_STRIDE / 8) as usize;
/// Cells in which an address may lie: so many that a half-full table practically never refuses, so few that a look takes a microsecond.
const WINDOW: usize = if cfg!(modelled) { 2 } else { 32 };
/// How often a change is tried again when other writers changed a cell meanwhile.
const TRIES: usize = if cfg!(modelled) { 3 } else { 8 };

const FREE: u64 = 0;
const BUSY: u64 = 1;
const READY: u64 = 2;

#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    words: &'a [AtomicU64],
    seed: u64,
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The socket and the remote address.
    Address(u8, SocketAddr),
    Ufrag(String),
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

    /// Makes `slot` the owner of an address, whichever slot was before. False when the address's window is full.
    pub fn insert(&self, socket: u8, remote: SocketAddr, slot: u8) -> bool {
        self.insert_key(endpoint::pack(socket, &remote), slot)
    }

    /// The owner of an address.
    pub fn find(&self, socket: u8, remote: &SocketAddr) -> Option<u8> {
        self.seek(endpoint::pack(socket, remote)).map(|seen| slot_of(seen.state))
    }

    /// Removes an address, if it is `slot`'s.
    pub fn remove(&self, socket: u8, remote: &SocketAddr, slot: u8) {
        self.remove_key(endpoint::pack(socket, remote), |owner| owner == slot);
    }

    /// Makes `to` the owner of an address that is `from`'s. Does nothing when it is another slot's by now.
    pub fn pass_on(&self, socket: u8, remote: &SocketAddr, from: u8, to: u8) {
        let key = endpoint::pack(socket, remote);
        for _ in 0..TRIES {
            match self.seek(key) {
                Some(seen) if slot_of(seen.state) == from => {
                    if seen.change(to, READY) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Makes `slot` the owner of a ufrag. False when its window is full, or it is too long.
    pub fn insert_ufrag(&self, ufrag: &str, slot: u8) -> bool {
        endpoint::pack_ufrag(ufrag).is_some_and(|key| self.insert_key(key, slot))
    }

    /// The owner of the session that this ufrag names, if it is not in the slot that the ufrag begins with.
    pub fn find_ufrag(&self, ufrag: &str) -> Option<u8> {
        self.seek(endpoint::pack_ufrag(ufrag)?).map(|seen| slot_of(seen.state))
    }

    /// Removes a ufrag, whichever slot owns it.
    pub fn remove_ufrag(&self, ufrag: &str) {
        if let Some(key) = endpoint::pack_ufrag(ufrag) {
            self.remove_key(key, |_| true);
        }
    }

    fn insert_key(&self, key: [u64; 3], slot: u8) -> bool {
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
                self.resolve(key, slot);
                return true;
            }
        }
        false
    }

    fn remove_key(&self, key: [u64; 3], is_theirs: impl Fn(u8) -> bool) {
        for _ in 0..TRIES {
            match self.seek(key) {
                Some(seen) if is_theirs(slot_of(seen.state)) => seen.change(slot_of(seen.state), FREE),
                _ => return,
            };
        }
    }

    /// Removes all of a slot's addresses and ufrags.
    pub fn remove_slot(&self, slot: u8) {
        self.retain_slot(slot, |_| false);
    }

    /// Removes a slot's addresses and ufrags that are not wanted, and the cells that its dead worker left half written. No worker of that
    /// slot may be writing.
    pub fn retain_slot(&self, slot: u8, is_wanted: impl Fn(Known) -> bool) {
        for cell in self.words.chunks_exact(CELL_WORDS) {
            let seen = Seen::look(cell);
            let key = std::array::from_fn(|i| cell[1 + i].load(Relaxed));
            let known = || {
                endpoint::unpack_ufrag(key).map_or_else(
                    || {
                        let (socket, remote) = endpoint::unpack(key);
                        Known::Address(socket, remote)
                    },
                    Known::Ufrag,
                )
            };
            let is_retained = || state_of(seen.state) == READY && is_wanted(known());
            if state_of(seen.state) != FREE && slot_of(seen.state) == slot && !is_retained() {
                seen.change(slot, FREE);
            }
        }
    }

    /// To be called after a claim, as two writers may have claimed a cell each for one address: makes both agree on the first cell.
    fn resolve(&self, key: [u64; 3], slot: u8) {
        for _ in 0..TRIES {
            if self.resolve_once(key, slot) {
                return;
            }
        }
    }

    /// False when a cell was changed meanwhile, so that another one may be the first now.
    fn resolve_once(&self, key: [u64; 3], slot: u8) -> bool {
        // Each writer has stored its own cell, and at least one of them must see the other's.
        fence(SeqCst);
        let mut first = true;
        for cell in self.window(key) {
            let seen = Seen::look(cell);
            if !seen.holds(key) {
                if !seen.is_unchanged() {
                    return false;
                }
                continue;
            }
            let is_resolved = if !first {
                seen.change(slot_of(seen.state), FREE)
            } else {
                slot_of(seen.state) == slot || seen.change(slot, READY)
            };
            if !is_resolved {
                return false;
            }
            first = false;
        }
        true
    }

    fn seek(&self, key: [u64; 3]) -> Option<Seen<'a>> {
        self.window(key).map(Seen::look).find(|seen| seen.holds(key))
    }

    fn window(&self, key: [u64; 3]) -> impl Iterator<Item = &'a [AtomicU64]> + use<'a> {
        let (words, cells) = (self.words, self.words.len() / CELL_WORDS);
        let start = hash(key, self.seed) as usize;
        (0..WINDOW.min(cells)).map(move |i| {
            let cell = start.wrapping_add(i) % cells * CELL_WORDS;
            &words[cell..cell + CELL_WORDS]
        })
    }
}

impl<'a> Seen<'a> {
    fn look(cell: &'a [AtomicU64]) -> Seen<'a> {
        Seen { cell, state: cell[0].load(Acquire) }
    }

    /// True when the cell, as it was seen, holds this address.
    fn holds(&self, key: [u64; 3]) -> bool {
        let same = state_of(self.state) == READY
            && self.cell[1..].iter().zip(key).all(|(word, part)| word.load(Relaxed) == part);
        same && self.is_unchanged()
    }

    fn is_unchanged(&self) -> bool {
        // A writer that reused the cell meanwhile changed its version before the address.
        fence(Acquire);
        self.cell[0].load(Relaxed) == self.state
    }

    /// Changes owner or state and leaves the address. False when the cell was changed since it was seen.
    fn change(&self, slot: u8, state: u64) -> bool {
        #[cfg(all(test, not(modelled)))]
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

#[cfg(all(test, not(modelled)))]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::words::crash;
    use crate::{Arena, Parameters};

    fn remote(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, (n >> 8) as u8], 1000 + n))
    }

    #[test]
    fn an_address_is_the_last_owners_and_only_the_owner_removes_it() {
        let arena = Arena::in_memory(Parameters::TINY);
        let table = arena.addresses();
        assert_eq!(table.find(0, &remote(1)), None);
        assert!(table.insert(0, remote(1), 2));
        assert!(table.insert(0, remote(1), 2));
        assert_eq!(table.find(1, &remote(1)), None, "another socket is another path");
        table.pass_on(0, &remote(1), 2, 3);
        table.pass_on(0, &remote(1), 2, 1);
        assert_eq!(table.find(0, &remote(1)), Some(3));
        table.remove(0, &remote(1), 2);
        assert_eq!(table.find(0, &remote(1)), Some(3));
        table.remove(0, &remote(1), 3);
        assert_eq!(table.find(0, &remote(1)), None);
    }

    #[test]
    fn a_ufrag_leads_to_its_sessions_slot_until_it_is_removed() {
        let arena = Arena::in_memory(Parameters::TINY);
        let table = arena.addresses();
        assert_eq!(table.find_ufrag("00abcdefgh"), None);
        assert!(
            table.insert_ufrag("00abcdefgh", 2) && table.insert_ufrag("00abcdefgi", 2) && table.insert(0, remote(1), 2)
        );
        assert!(table.insert_ufrag("00abcdefgh", 3));
        assert_eq!((table.find_ufrag("00abcdefgh"), table.find_ufrag("00abcdefgi")), (Some(3), Some(2)));
        assert!(!table.insert_ufrag("longer than sixteen", 1));
        table.retain_slot(2, |known| known == Known::Ufrag("00abcdefgi".into()));
        assert_eq!((table.find_ufrag("00abcdefgi"), table.find(0, &remote(1))), (Some(2), None));
        table.remove_ufrag("00abcdefgh");
        assert_eq!((table.find_ufrag("00abcdefgh"), table.find_ufrag("00abcdefgi")), (None, Some(2)));
    }

    #[test]
    fn a_dead_slots_addresses_are_forgotten_and_no_others() {
        let arena = Arena::in_memory(Parameters::TINY);
        let table = arena.addresses();
        for n in 0..60 {
            assert!(table.insert(0, remote(n), (n % 3) as u8));
        }
        table.remove_slot(1);
        for n in 0..60 {
            assert_eq!(table.find(0, &remote(n)), (n % 3 != 1).then_some((n % 3) as u8));
        }
    }

    #[test]
    fn a_full_table_refuses_and_takes_again_what_was_freed() {
        let arena = Arena::in_memory(Parameters { addresses: 16, ..Parameters::TINY });
        let table = arena.addresses();
        for n in 0..16 {
            assert!(table.insert(0, remote(n), 0));
        }
        assert!(!table.insert(0, remote(16), 0));
        table.remove(0, &remote(7), 0);
        assert!(table.insert(0, remote(16), 0));
        assert_eq!(table.find(0, &remote(16)), Some(0));
    }

    #[test]
    fn tables_filled_to_a_half_practically_never_refuse() {
        let cells = if cfg!(miri) { 256 } else { 65_536 };
        let refused = |_| {
            let arena = Arena::in_memory(Parameters { addresses: cells, ..Parameters::TINY });
            let is_refused = |n: &u32| !arena.addresses().insert(0, SocketAddr::from((n.to_be_bytes(), 5)), 0);
            (0..cells / 2).filter(is_refused).count()
        };
        // The hash is seeded anew each time. Of 32,768 addresses a table refuses 0.15 on the average and 5 at most (400 tables
        // simulated), as full windows lie side by side. With a window of 24 cells eight tables would refuse 9, with 16 over 80.
        let refused: usize = (0..8).map(refused).sum();
        assert!(refused <= 12, "{refused} of {}", cells * 4);
    }

    #[test]
    fn a_writer_that_dies_at_any_store_leaves_a_table_that_its_successor_mends() {
        for stores in 0..8 {
            let arena = Arena::in_memory(Parameters { addresses: 16, ..Parameters::TINY });
            let table = arena.addresses();
            let finished = crash::after(stores, || assert!(table.insert(0, remote(1), 1)));
            let found = table.find(0, &remote(1));
            assert!(found.is_none() || found == Some(1), "after {stores} stores");
            assert!(!finished || found == Some(1));
            table.remove_slot(1);
            for n in 0..16 {
                assert!(table.insert(0, remote(n), 2), "no cell is lost after {stores} stores");
            }
        }
    }

    /// Four writers over a few addresses: every one of them stays found, and is its last owner's once they are done.
    #[test]
    fn writers_at_once_leave_one_cell_for_each_address() {
        let rounds = if cfg!(miri) { 10 } else { 5_000 };
        let arena = Arena::in_memory(Parameters { addresses: 32, ..Parameters::TINY });
        thread::scope(|scope| {
            for slot in 0..4u8 {
                let arena = &arena;
                scope.spawn(move || {
                    for round in 0..rounds {
                        for n in 0..6 {
                            arena.addresses().insert(0, remote(n), slot);
                            if round % 3 == 0 {
                                arena.addresses().remove(0, &remote(n), slot);
                            }
                        }
                    }
                });
            }
        });
        for n in 0..6 {
            assert!(arena.addresses().insert(0, remote(n), 0));
            assert_eq!(arena.addresses().find(0, &remote(n)), Some(0));
            arena.addresses().remove(0, &remote(n), 0);
        }
        let left: Vec<Option<u8>> = (0..6).map(|n| arena.addresses().find(0, &remote(n))).collect();
        assert_eq!(left, [None; 6], "no second cell of an address is left");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 200 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_table_is_a_map(steps in proptest::collection::vec((0u16..40, 0u8..3, 0u8..4), 0..200)) {
            let arena = Arena::in_memory(Parameters::TINY);
            let table = arena.addresses();
            let mut model = HashMap::new();
            for (n, slot, step) in steps {
                match step {
                    0 | 1 => {
                        prop_assert!(table.insert(0, remote(n), slot));
                        model.insert(n, slot);
                    }
                    2 => {
                        table.remove(0, &remote(n), slot);
                        if model.get(&n) == Some(&slot) {
                            model.remove(&n);
                        }
                    }
                    _ if n == 0 => {
                        table.remove_slot(slot);
                        model.retain(|_, owner| *owner != slot);
                    }
                    _ => {}
                }
            }
            for n in 0..40 {
                prop_assert_eq!(table.find(0, &remote(n)), model.get(&n).copied());
            }
        }
    }
}
