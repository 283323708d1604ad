//! The explorer itself, on the memory model's textbook examples: it must find what is allowed, and nothing that is not.
//! The words are those beside a session's record, put with Release and got with Acquire, and the sleeping handshake's.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use millrace_arena::Arena;
use millrace_arena::explore::{explore, spawn};

use super::PARAMETERS;

/// All that comes out.
fn outcomes<T: Ord + Clone + Send + 'static>(scene: impl Fn(Arena) -> T + Send + Sync + 'static) -> Vec<T> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = seen.clone();
    explore(2, move || {
        let found = scene(Arena::in_memory(PARAMETERS));
        noted.lock().expect("one thread").insert(found);
    });
    let seen = seen.lock().expect("one thread");
    seen.iter().cloned().collect()
}

#[test]
fn what_a_release_published_is_seen_by_who_acquires_it() {
    let found = outcomes(|arena| {
        let writer = arena.clone();
        let writing = spawn(move || {
            writer.session_words(0).put(0, 1);
            writer.session_words(0).put(1, 1);
        });
        let words = arena.session_words(0);
        let seen = (words.get(1), words.get(0));
        writing.join();
        seen
    });
    assert_eq!(found, [(0, 0), (0, 1), (1, 1)]);
}

#[test]
fn without_a_fence_each_of_two_may_miss_the_other() {
    let found = outcomes(|arena| {
        let other = arena.clone();
        let first = spawn(move || {
            other.session_words(0).put(0, 1);
            other.session_words(0).get(1)
        });
        let words = arena.session_words(0);
        words.put(1, 1);
        let second = words.get(0);
        (first.join(), second)
    });
    assert_eq!(found, [(0, 0), (0, 1), (1, 0), (1, 1)]);
}

#[test]
fn with_a_fence_one_of_two_sees_the_other() {
    let found = outcomes(|arena| {
        let other = arena.clone();
        let first = spawn(move || {
            other.slot(0).set_sleeping(true);
            other.slot(1).is_sleeping()
        });
        arena.slot(1).set_sleeping(true);
        let second = arena.slot(0).is_sleeping();
        (first.join(), second)
    });
    assert_eq!(found, [(false, true), (true, false), (true, true)]);
}

#[test]
fn one_word_never_runs_backwards() {
    let found = outcomes(|arena| {
        let writer = arena.clone();
        let writing = spawn(move || {
            writer.slot(0).set_pid(1);
            writer.slot(0).set_pid(2);
        });
        let seen = (arena.slot(0).pid(), arena.slot(0).pid());
        writing.join();
        seen
    });
    assert_eq!(found, [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]);
}

#[test]
fn relaxed_stores_are_seen_in_any_order() {
    let found = outcomes(|arena| {
        let writer = arena.clone();
        let writing = spawn(move || {
            writer.slot(0).set_pid(1);
            writer.slot(0).set_state(1);
        });
        let seen = (arena.slot(0).state(), arena.slot(0).pid());
        writing.join();
        seen
    });
    assert_eq!(found, [(0, 0), (0, 1), (1, 0), (1, 1)]);
}
