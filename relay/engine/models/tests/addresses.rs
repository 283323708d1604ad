//! The address table. Promised: an address that was inserted is found with one of its writers as its owner, never another slot,
//! and lies in one cell once they are done; a cell that is freed and claimed for another address never passes its owner on; a writer that
//! dies leaves nothing that its successor does not repair.
//!
//! Seen to be noticed: the fence before a claim is resolved left out, or the one after a cell is taken; a cell that changes while it
//! is looked at taken for another address's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use millrace_arena::explore::{explore, mortal, spawn};
use millrace_arena::{Arena, Known};

use super::{PARAMETERS, every_way};

fn remote(n: u8) -> SocketAddr {
    ([192, 0, 2, n], u16::from(n)).into()
}

#[test]
fn two_that_insert_one_address_at_once_leave_it_in_one_cell() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        let other = arena.clone();
        let second = spawn(move || assert!(other.addresses().insert(0, remote(1), 1)));
        assert!(arena.addresses().insert(0, remote(1), 0));
        second.join();
        let table = arena.addresses();
        let owner = table.find(0, &remote(1)).expect("inserted twice");
        table.remove(0, &remote(1), owner);
        assert_eq!(table.find(0, &remote(1)), None, "no second cell is left");
    });
}

#[test]
fn a_reader_finds_an_owner_that_there_was() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        assert!(arena.addresses().insert(0, remote(1), 0));
        let other = arena.clone();
        let writer = spawn(move || {
            mortal(|| {
                other.addresses().remove(0, &remote(1), 0);
                // In the place of the first, which is the next free one for it.
                assert!(other.addresses().insert(0, remote(1), 1));
            })
        });
        let found = arena.addresses().find(0, &remote(1));
        assert!(found.is_none_or(|owner| owner < 2), "{found:?}");
        if writer.join().is_some() {
            assert_eq!(arena.addresses().find(0, &remote(1)), Some(1));
        }
        arena.addresses().remove_slot(0);
        arena.addresses().remove_slot(1);
        assert_eq!(arena.addresses().find(0, &remote(1)), None);
        assert!(arena.addresses().insert(0, remote(1), 0));
        assert_eq!(arena.addresses().find(0, &remote(1)), Some(0));
    });
}

/// A client moved: the new owner inserts its address while the old one removes it.
#[test]
fn an_owner_that_lets_go_takes_nothing_of_the_next_one() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        assert!(arena.addresses().insert(0, remote(1), 0));
        let old = arena.clone();
        let leaving = spawn(move || old.addresses().remove(0, &remote(1), 0));
        assert!(arena.addresses().insert(0, remote(1), 1));
        leaving.join();
        assert_eq!(arena.addresses().find(0, &remote(1)), Some(1));
        arena.addresses().remove(0, &remote(1), 1);
        assert_eq!(arena.addresses().find(0, &remote(1)), None, "no second cell is left");
    });
}

/// Three addresses for the two cells of a window: the third takes the first one's cell when that is freed.
#[test]
fn a_cell_that_is_used_again_lends_its_owner_to_nobody() {
    let [first, beside, then] = crowd().map(remote);
    every_way(move || {
        let arena = Arena::in_memory(PARAMETERS);
        assert!(arena.addresses().insert(0, first, 0) && arena.addresses().insert(0, beside, 0));
        let other = arena.clone();
        let writer = spawn(move || {
            mortal(|| {
                other.addresses().remove(0, &first, 0);
                assert!(other.addresses().insert(0, then, 1));
            })
        });
        let found = (arena.addresses().find(0, &first), arena.addresses().find(0, &then));
        assert!(found.0.is_none_or(|owner| owner == 0) && found.1.is_none_or(|owner| owner == 1), "{found:?}");
        writer.join();
        let table = arena.addresses();
        assert_eq!(table.find(0, &beside), Some(0));
        // The successor keeps what is whole, and mends the rest.
        table.retain_slot(1, |known| matches!(known, Known::Address(_, remote) if remote == then));
        table.remove_slot(1);
        table.remove(0, &first, 0);
        assert!(table.insert(0, then, 0), "no cell is lost");
    });
}

/// Of these, the third finds no room beside the first two.
fn crowd() -> [u8; 3] {
    let found = Arc::new(Mutex::new(None));
    let result = found.clone();
    explore(0, move || {
        let mut triples = (1..40u8).flat_map(|a| (a + 1..40).flat_map(move |b| (b + 1..40).map(move |c| [a, b, c])));
        *result.lock().expect("one thread") = triples.find(|[a, b, c]| {
            let arena = Arena::in_memory(PARAMETERS);
            let insert = |n: u8| arena.addresses().insert(0, remote(n), 0);
            insert(*a) && insert(*b) && !insert(*c)
        });
    });
    let crowd = *found.lock().expect("one thread");
    crowd.expect("forty addresses crowd somewhere among sixteen cells")
}
