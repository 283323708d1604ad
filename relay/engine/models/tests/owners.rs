//! Whose a session record is. Promised: of a giver that takes it back and the one to whom it was given, one has it, whoever of the
//! two is killed; who has it sees everything that the giver wrote before; a record that its owner freed is seen to be clear.
//! Noticed: a take that is no compare-and-swap, and a `give` without Release.

use millrace_arena::explore::{mortal, spawn};
use millrace_arena::{Arena, Owner};

use super::{PARAMETERS, every_way};

#[test]
fn of_giver_and_taker_one_has_a_given_record_and_sees_what_was_written_before() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        arena.owners().claim(0, 0);
        let giving = arena.clone();
        let giver = spawn(move || {
            mortal(|| {
                giving.session_words(0).put(0, 7);
                giving.owners().give(0, 0, 1);
                giving.owners().take(0, 0)
            })
        });
        let taken = arena.owners().take(0, 1);
        assert!(!taken || arena.session_words(0).get(0) == 7);
        let taken_back = giver.join();
        assert!(!(taken && taken_back == Some(true)));
        // Whoever comes after the dead, on either side, finds the same.
        let owner = arena.owners().of(0);
        match owner {
            Owner::Slot(1) => assert!(taken),
            Owner::Slot(0) => assert!(!taken),
            Owner::Given { from: 0, to: 1 } => assert!(!taken && arena.owners().take(0, 0)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_record_that_is_nobodys_is_clear() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        arena.owners().claim(0, 1);
        arena.session_words(0).put(0, 9);
        let ending = arena.clone();
        let other = spawn(move || {
            mortal(|| {
                ending.session_words(0).put(0, 0);
                ending.owners().free(0);
            })
        });
        if arena.owners().of(0) == Owner::Nobody {
            assert_eq!(arena.session_words(0).get(0), 0);
        }
        other.join();
    });
}
