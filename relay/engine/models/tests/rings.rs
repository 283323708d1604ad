//! The rings between two workers. Promised: what is received was sent, whole, once and in order, whatever the other side
//! does; what a successor of either side finds is what its predecessor left; a full ring refuses and never overwrites.
//!
//! Seen to be noticed: `SENT` stored Relaxed; the cursor stored before its cell.

use millrace_arena::explore::{mortal, spawn};
use millrace_arena::{Arena, MAX_DATAGRAM};

use super::{PARAMETERS, every_way};

/// Three messages through a ring of two: the third needs the cell of the first.
#[test]
fn messages_come_once_and_in_order() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        let sender = arena.clone();
        let sending = spawn(move || {
            let ring = sender.messages(0, 1);
            assert!(ring.send(1) && ring.send(2));
            2 + u64::from(ring.send(3))
        });
        let ring = arena.messages(0, 1);
        let mut received: Vec<u64> = (0..2).filter_map(|_| ring.receive()).collect();
        let sent = sending.join();
        received.extend(std::iter::from_fn(|| ring.receive()));
        assert_eq!(received, (1..=sent).collect::<Vec<_>>());
        assert!(ring.is_empty());
    });
}

#[test]
fn a_sender_that_dies_leaves_a_ring_that_its_successor_goes_on_with() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        assert!(arena.messages(0, 1).send(1));
        let receiving = arena.clone();
        let receiver = spawn(move || {
            let ring = receiving.messages(0, 1);
            [ring.receive(), ring.receive()].into_iter().flatten().collect::<Vec<u64>>()
        });
        let sent = mortal(|| arena.messages(0, 1).send(2));
        assert_ne!(sent, Some(false), "there is room for two");
        // The successor; its predecessor is dead before it begins.
        let also = arena.messages(0, 1).send(3);
        let mut received = receiver.join();
        received.extend(std::iter::from_fn(|| arena.messages(0, 1).receive()));
        let expected = [Some(1), sent.map(|_| 2), also.then_some(3)];
        assert_eq!(received, expected.into_iter().flatten().collect::<Vec<_>>());
    });
}

#[test]
fn a_receiver_that_dies_loses_nothing_and_its_successor_may_see_one_message_again() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        assert!(arena.messages(0, 1).send(1) && arena.messages(0, 1).send(2));
        let sending = arena.clone();
        let sender = spawn(move || sending.messages(0, 1).send(3));
        let mut received: Vec<u64> = mortal(|| arena.messages(0, 1).receive()).flatten().into_iter().collect();
        // The successor.
        received.extend(std::iter::from_fn(|| arena.messages(0, 1).receive()));
        let sent = sender.join();
        received.extend(std::iter::from_fn(|| arena.messages(0, 1).receive()));
        assert_eq!(received, (1..=2 + u64::from(sent)).collect::<Vec<_>>());
    });
}

fn push(arena: &Arena, n: u8) -> bool {
    arena.handover(0, 1).push(n, ([192, 0, 2, n], u16::from(n)).into(), &[n; 9])
}

fn pop(arena: &Arena) -> Option<u8> {
    let mut out = [0; MAX_DATAGRAM];
    arena.handover(0, 1).pop(&mut out).map(|(n, remote, len)| {
        assert_eq!(remote, ([192, 0, 2, n], u16::from(n)).into());
        assert_eq!(out[..len], [n; 9]);
        n
    })
}

#[test]
fn datagrams_come_whole_and_in_order_whoever_dies() {
    every_way(|| {
        let arena = Arena::in_memory(PARAMETERS);
        assert!(push(&arena, 1));
        let popping = arena.clone();
        let popper = spawn(move || {
            let first = mortal(|| pop(&popping)).flatten();
            // The successor, if it was killed.
            [first, pop(&popping)]
        });
        let pushed = mortal(|| push(&arena, 2)).unwrap_or(false);
        let also = push(&arena, 3);
        let mut popped: Vec<u8> = popper.join().into_iter().flatten().collect();
        popped.extend(std::iter::from_fn(|| pop(&arena)));
        let expected = [Some(1), pushed.then_some(2), also.then_some(3)];
        assert_eq!(popped, expected.into_iter().flatten().collect::<Vec<_>>());
    });
}
