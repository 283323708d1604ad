//! The owner of a session record. Promised: of a source that takes a record back and its target, one has it, whichever of the two
//! is killed; the owner sees everything that the source wrote before; a record that its owner freed is seen to be clear.
//! Noticed: an `end_move` that is no compare-and-swap, and a `begin_move` without Release.

use millrace_arena::explore::{mortal, spawn};
use millrace_arena::{Arena, Owner};

use super::{PARAMETERS, every_way};

#[test]
fn of_source_and_target_one_has_a_moving_record_and_sees_what_was_written_before() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        arena.owners().claim(0, 0);
        let moving = arena.clone();
        let source = spawn(move || {
            mortal(|| {
                moving.session_words(0).put(0, 7);
                moving.owners().begin_move(0, 0, 1);
                moving.owners().end_move(0, 0)
            })
        });
        let taken = arena.owners().end_move(0, 1);
        assert!(!taken || arena.session_words(0).get(0) == 7);
        let taken_back = source.join();
        assert!(!(taken && taken_back == Some(true)));
        // A successor of either finds the same.
        let owner = arena.owners().of(0);
        match owner {
            Owner::Slot(1) => assert!(taken),
            Owner::Slot(0) => assert!(!taken),
            Owner::Moving { source: 0, target: 1 } => assert!(!taken && arena.owners().end_move(0, 0)),
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
