//! A ring of 64-bit messages from one worker to another: one producer, one consumer, no waiting. Owns the two cursors;
//! must never know what a message says. Read `handover.rs` next, the same ring with larger cells.
//!
//! Both cursors only grow and lie in the arena, so a successor of either side resumes where the dead one stopped: a cell is written
//! before the producer's cursor passes it, and read before the consumer's does.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::layout::RING_HEADER;
use crate::sync::AtomicU64;
use crate::words::put;

const SENT: usize = 0;
const RECEIVED: usize = 8;
const CELLS: usize = (RING_HEADER / 8) as usize;

#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    words: &'a [AtomicU64],
    capacity: u64,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(words: &'a [AtomicU64], capacity: u32) -> Messages<'a> {
        Messages { words, capacity: u64::from(capacity) }
    }

    /// Adds a message. To be called by the worker `from` alone. False when the ring is full, as the other side is slow or dead.
    pub fn send(&self, message: u64) -> bool {
        let sent = self.words[SENT].load(Relaxed);
        if !self.has_room() {
            return false;
        }
        put(self.cell(sent), message, Relaxed);
        put(&self.words[SENT], sent.wrapping_add(1), Release);
        true
    }

    /// True when the next `send` will be. To be called by the worker `from` alone, the only one that fills the ring.
    pub fn has_room(&self) -> bool {
        let sent = self.words[SENT].load(Relaxed);
        sent.wrapping_sub(self.words[RECEIVED].load(Acquire)) < self.capacity
    }

    /// Removes the oldest message. To be called by the worker `to` alone.
    pub fn receive(&self) -> Option<u64> {
        let received = self.words[RECEIVED].load(Relaxed);
        if self.words[SENT].load(Acquire) == received {
            return None;
        }
        let message = self.cell(received).load(Relaxed);
        put(&self.words[RECEIVED], received.wrapping_add(1), Release);
        Some(message)
    }

    pub fn is_empty(&self) -> bool {
        self.words[SENT].load(Acquire) == self.words[RECEIVED].load(Relaxed)
    }

    fn cell(&self, cursor: u64) -> &'a AtomicU64 {
        &self.words[CELLS + (cursor % self.capacity) as usize]
    }
}

#[cfg(all(test, not(modelled)))]
mod tests {
    use std::collections::VecDeque;
    use std::thread;

    use proptest::prelude::*;

    use crate::words::crash;
    use crate::{Arena, Parameters};

    #[test]
    fn messages_cross_threads_in_order_and_without_loss() {
        let count = if cfg!(miri) { 300 } else { 200_000 };
        let arena = Arena::in_memory(Parameters::TINY);
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..count {
                    while !arena.messages(0, 1).send(n) {
                        thread::yield_now();
                    }
                }
            });
            for n in 0..count {
                let message = loop {
                    match arena.messages(0, 1).receive() {
                        Some(message) => break message,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(message, n);
            }
        });
        assert!(arena.messages(0, 1).is_empty());
    }

    #[test]
    fn a_pair_has_a_ring_in_each_direction() {
        let arena = Arena::in_memory(Parameters::TINY);
        assert!(arena.messages(0, 1).send(5));
        assert!(arena.inbox_is_empty(0) && !arena.inbox_is_empty(1));
        assert_eq!(arena.messages(1, 0).receive(), None);
        assert_eq!(arena.messages(0, 1).receive(), Some(5));
    }

    #[test]
    fn a_sender_or_receiver_that_dies_at_any_store_loses_no_earlier_message() {
        for stores in 0..=2 {
            let arena = Arena::in_memory(Parameters::TINY);
            assert!(arena.messages(0, 1).send(1));
            let sent = crash::after(stores, || assert!(arena.messages(0, 1).send(2)));
            assert!(arena.messages(0, 1).send(3));
            crash::after(0, || assert_eq!(arena.messages(0, 1).receive(), Some(1)));
            let received: Vec<u64> = std::iter::from_fn(|| arena.messages(0, 1).receive()).collect();
            assert_eq!(received, if sent { vec![1, 2, 3] } else { vec![1, 3] });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_ring_is_a_bounded_queue(steps in proptest::collection::vec(any::<Option<u64>>(), 0..300)) {
            let arena = Arena::in_memory(Parameters { messages: 8, ..Parameters::TINY });
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Some(message) => {
                        prop_assert_eq!(arena.messages(2, 3).send(message), model.len() < 8);
                        if model.len() < 8 {
                            model.push_back(message);
                        }
                    }
                    None => prop_assert_eq!(arena.messages(2, 3).receive(), model.pop_front()),
                }
                prop_assert_eq!(arena.messages(2, 3).is_empty(), model.is_empty());
            }
        }
    }
}
