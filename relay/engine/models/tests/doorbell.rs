//! The sleeping handshake. Promised: an engine never sleeps over a message; of many senders one rings, and none while the engine
//! is awake; a sender that dies loses no message, and the engine finds what it left at the next wake-up.
//!
//! Seen to be noticed: the sleeper's fence left out; the sender's.

use millrace_arena::Arena;
use millrace_arena::explore::{Doorbell, mortal, spawn};

use super::{PARAMETERS, every_way};

/// The reactor's wait: looks into the inbox once more between `set_sleeping` and the wait.
fn sleep(arena: &Arena, bell: Doorbell) {
    arena.slot(1).set_sleeping(true);
    if arena.inbox_is_empty(1) {
        bell.wait();
    }
    arena.slot(1).set_sleeping(false);
}

fn send(arena: &Arena, bell: Doorbell, message: u64) {
    assert!(arena.messages(0, 1).send(message));
    if arena.slot(1).take_sleeping() {
        bell.ring();
    }
}

#[test]
fn no_message_is_slept_over() {
    every_way(|| {
        let (arena, bell) = (Arena::in_memory(PARAMETERS), Doorbell::new());
        let sender = arena.clone();
        let sending = spawn(move || {
            send(&sender, bell, 1);
            send(&sender, bell, 2);
        });
        let mut received = 0;
        while received < 2 {
            match arena.messages(0, 1).receive() {
                Some(message) => {
                    received += 1;
                    assert_eq!(message, received);
                }
                None => sleep(&arena, bell),
            }
        }
        sending.join();
    });
}

#[test]
fn a_datagram_that_is_handed_over_wakes_its_owner_too() {
    every_way(|| {
        let (arena, bell) = (Arena::in_memory(PARAMETERS), Doorbell::new());
        let sender = arena.clone();
        spawn(move || {
            assert!(sender.handover(0, 1).push(0, ([192, 0, 2, 1], 1).into(), &[1; 8]));
            if sender.slot(1).take_sleeping() {
                bell.ring();
            }
        });
        sleep(&arena, bell);
        assert!(arena.handover(0, 1).pop(&mut [0; millrace_arena::MAX_DATAGRAM]).is_some());
    });
}

/// A sender that dies between its message and its ring does not wake the engine. The engine's beat does (after 150 ms at most), or the next
/// sender.
#[test]
fn what_a_dead_sender_left_is_found_when_the_next_one_rings() {
    every_way(|| {
        let (arena, bell) = (Arena::in_memory(PARAMETERS), Doorbell::new());
        let receiving = arena.clone();
        let receiver = spawn(move || {
            sleep(&receiving, bell);
            std::iter::from_fn(|| receiving.messages(0, 1).receive()).collect::<Vec<_>>()
        });
        let sent = mortal(|| send(&arena, bell, 1));
        // The beat: a timeout of the wait.
        bell.ring();
        let mut received = receiver.join();
        received.extend(std::iter::from_fn(|| arena.messages(0, 1).receive()));
        assert!(received == [1] || (received.is_empty() && sent.is_none()), "{received:?}");
    });
}
